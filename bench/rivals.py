"""Other tools that multiply by the same matrices, timed in turn with us."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Run = Callable[[], Any]


def milliseconds(run: Run, seconds: float) -> float:
    """The fastest of as many runs as fit into some time, at least two."""
    best, runs, end = float("inf"), 0, time.perf_counter() + seconds
    while runs < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best, runs = min(best, time.perf_counter() - start), runs + 1
    return best * 1e3


def side_by_side(
    timers: Sequence[Callable[[float], float]], rounds: int = 5, seconds: float = 0.4
) -> list[float]:
    """The best milliseconds of each, all of them in turn, so that a busy machine slows all alike.

    Args:
        timers: Seconds to spend -> milliseconds of the fastest run.
        rounds: Turns.
        seconds: Of each turn.
    """
    best = [float("inf")] * len(timers)
    for _ in range(rounds):
        for place, timer in enumerate(timers):
            best[place] = min(best[place], timer(seconds))
    return best


def tensorflow_chain(kernels: Sequence[NDArray[Any]], x: NDArray[Any]) -> Run:
    """Dense layers with ReLU in one tf.function."""
    import tensorflow as tf

    weights = [tf.constant(kernel) for kernel in kernels]

    @tf.function
    def model(h: Any) -> Any:
        for weight in weights:
            h = tf.nn.relu(tf.matmul(h, weight))
        return h

    given = tf.constant(x)
    return lambda: model(given).numpy()


_WRITE = """
import sys, numpy as np, onnx
from onnx import TensorProto, helper, numpy_helper
folder = sys.argv[1]
kernels = np.load(folder + "/kernels.npz")
nodes, last = [], "x"
for name in kernels.files:
    nodes.append(helper.make_node("MatMul", [last, name], ["m" + name]))
    nodes.append(helper.make_node("Relu", ["m" + name], ["r" + name]))
    last = "r" + name
first, final = kernels[kernels.files[0]].shape[0], kernels[kernels.files[-1]].shape[1]
graph = helper.make_graph(nodes, "chain",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, first])],
    [helper.make_tensor_value_info(last, TensorProto.FLOAT, [None, final])],
    [numpy_helper.from_array(kernels[n], n) for n in kernels.files])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
model.ir_version = 8
onnx.save(model, folder + "/model.onnx")
"""

_SERVE = """
import sys, time, numpy as np, onnxruntime as rt
folder = sys.argv[1]
session = rt.InferenceSession(folder + "/model.onnx", providers=["CPUExecutionProvider"])
x = np.load(folder + "/x.npy")
run = lambda: session.run(None, {"x": x})
np.save(folder + "/y.npy", run()[0])
print("ready", flush=True)
for line in sys.stdin:
    best, runs, end = 1e9, 0, time.perf_counter() + float(line)
    while runs < 2 or time.perf_counter() < end:
        start = time.perf_counter(); run(); best = min(best, time.perf_counter() - start); runs += 1
    print(best * 1e3, flush=True)
"""


class OnnxChain:
    """ONNX Runtime in a process of its own, by another Python: it need not fit beside TensorFlow.

    Attributes:
        answer: What it makes of x.
    """

    def __init__(self, python: str, kernels: Sequence[NDArray[Any]], x: NDArray[Any]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        named: Any = {f"k{i:02}": kernel for i, kernel in enumerate(kernels)}
        np.savez(folder / "kernels.npz", **named)
        np.save(folder / "x.npy", x)
        subprocess.run([python, "-c", _WRITE, str(folder)], check=True)
        self._process = subprocess.Popen(
            [python, "-c", _SERVE, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._line() != "ready":
            raise RuntimeError(f"ONNX Runtime did not start with {python}.")
        self.answer = np.load(folder / "y.npy")

    def milliseconds(self, seconds: float) -> float:
        """The fastest of the runs that fit into some time."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return float(self._line())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
        self._folder.cleanup()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()
