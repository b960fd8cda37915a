"""The sparse runtime beside TensorFlow and ONNX Runtime, in one run on the same threads.

    python bench/runtime.py chain              # twelve Dense layers, sparsity x batch x kernel
    python bench/runtime.py chain --quick      # the corners that must hold
    python bench/runtime.py minilm             # a transformer of MiniLM's shape at 80 and 90 %
    python bench/runtime.py minilm M.safetensors   # any model of ours from its file

TensorFlow runs the model as `model.predict_on_batch` compiles it (a tf.function, warmed up). ONNX
Runtime is used if it can be imported; where it does not fit beside TensorFlow, give the Python of an
environment that has it with --onnx-python.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur import runtime
from secateur._kernels.native import spmm
from secateur._kernels.native.spmm import Epilogue
from secateur.activations import Activation

SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95)
BATCHES = (1, 32, 128)
NUM_LAYERS, NARROW, WIDE = 12, 768, 3072


def milliseconds(run: Callable[[], object], seconds: float = 1.0) -> float:
    """The fastest of as many runs as fit into some time."""
    run()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best * 1e3


def make_chain(sparsity: float, height: int) -> list[NDArray[Any]]:
    """Kernels (inputs, outputs) with zeros in blocks of `height` outputs."""
    rng = np.random.default_rng(0)
    kernels = []
    for number in range(NUM_LAYERS):
        shape = (NARROW, WIDE) if number % 2 == 0 else (WIDE, NARROW)
        kernel = rng.standard_normal(shape).astype(np.float32) / np.float32(shape[0] ** 0.5)
        keep = rng.random((shape[0], shape[1] // height)) >= sparsity
        kernels.append(kernel * np.repeat(keep, height, axis=1))
    return kernels


def tensorflow_chain(kernels: list[NDArray[Any]], x: NDArray[Any]) -> tuple[Any, float]:
    """TensorFlow's answer and its time."""
    import tensorflow as tf

    weights = [tf.constant(kernel) for kernel in kernels]

    @tf.function
    def model(h: Any) -> Any:
        for weight in weights:
            h = tf.nn.relu(tf.matmul(h, weight))
        return h

    given = tf.constant(x)
    return model(given).numpy(), milliseconds(lambda: model(given).numpy())


ONNX_CODE = """
import sys, time, numpy as np, onnxruntime as rt
folder = sys.argv[1]
session = rt.InferenceSession(folder + "/model.onnx", providers=["CPUExecutionProvider"])
x = np.load(folder + "/x.npy")
run = lambda: session.run(None, {"x": x})
run(); best = 1e9; end = time.perf_counter() + 1
while time.perf_counter() < end:
    start = time.perf_counter(); run(); best = min(best, time.perf_counter() - start)
print(best * 1e3)
"""

ONNX_MODEL = """
import sys, numpy as np, onnx
from onnx import TensorProto, helper, numpy_helper
folder = sys.argv[1]
kernels = np.load(folder + "/kernels.npz")
nodes, last = [], "x"
for name in kernels.files:
    nodes.append(helper.make_node("MatMul", [last, name], ["m" + name]))
    nodes.append(helper.make_node("Relu", ["m" + name], ["r" + name]))
    last = "r" + name
graph = helper.make_graph(nodes, "chain",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 768])],
    [helper.make_tensor_value_info(last, TensorProto.FLOAT, [None, 768])],
    [numpy_helper.from_array(kernels[n], n) for n in kernels.files])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
model.ir_version = 8
onnx.save(model, folder + "/model.onnx")
"""


def onnx_chain(python: str | None, kernels: list[NDArray[Any]], x: NDArray[Any]) -> float | None:
    """ONNX Runtime's time, in a process of its own; None where there is no such environment."""
    if python is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        named: Any = {f"k{i:02}": kernel for i, kernel in enumerate(kernels)}
        np.savez(Path(folder) / "kernels.npz", **named)
        np.save(Path(folder) / "x.npy", x)
        subprocess.run([python, "-c", ONNX_MODEL, folder], check=True)
        done = subprocess.run(
            [python, "-c", ONNX_CODE, folder], check=True, capture_output=True, text=True
        )
    return float(done.stdout)


def dense_peak() -> float:
    """FLOP/s of NumPy's BLAS on a large product: what dense code gets here, now."""
    a = np.ones((1536, 1536), np.float32)
    out = np.empty_like(a)
    return 2 * 1536**3 / (milliseconds(lambda: np.matmul(a, a, out=out)) / 1e3)


def kernel_times(kernel: NDArray[Any], batch: int) -> dict[str, float]:
    """Milliseconds of every kernel on one layer."""
    x = np.ones((batch, kernel.shape[0]), np.float32)
    y = np.empty((batch, kernel.shape[1]), np.float32)
    relu = Epilogue.of(Activation("relu"))
    times = {}
    for height in (1, 4):
        matrix = spmm.pack_blocked(kernel.T, height)
        scratch = np.empty(matrix.scratch_floats(batch), np.float32)
        times[f"{height}x1"] = milliseconds(
            lambda m=matrix, s=scratch: spmm.multiply_blocked(m, x, y, None, None, relu, s), 0.15
        )
    if batch <= 16:
        for name, pack in (("bitmask", spmm.pack_bitmask), ("csr", spmm.pack_short_csr)):
            small: Any = pack(kernel.T)
            times[name] = milliseconds(
                lambda m=small: spmm.multiply_small(m, x, y, None, None, relu), 0.15
            )

    def dense() -> None:
        np.matmul(x, kernel, out=y)
        spmm.finish_rows(y, None, None, relu)

    times["dense"] = milliseconds(dense, 0.15)
    return times


def chain(onnx_python: str | None, quick: bool) -> None:
    """The grid; every answer is checked against TensorFlow's."""
    peak = dense_peak()
    print(f"dense peak (NumPy's BLAS): {peak / 1e9:.0f} GFLOP/s")
    print(
        "zeros height batch |  ours ms  TF ms  ORT ms | TF/ours ORT/ours | share of peak | kernels"
    )
    corners = [
        (0.9, 1, 128),
        (0.9, 1, 32),
        (0.9, 1, 1),
        (0.7, 1, 128),
        (0.5, 1, 128),
        (0.9, 4, 128),
    ]
    grid = [(s, h, b) for h in (1, 4) for s in SPARSITIES for b in BATCHES]
    for sparsity, height, batch in corners if quick else grid:
        kernels = make_chain(sparsity, height)
        x = np.random.default_rng(1).standard_normal((batch, NARROW)).astype(np.float32)
        engine = runtime.compile(
            runtime.chain_of_arrays(kernels, ["relu"] * NUM_LAYERS), batch=batch
        )
        expected, theirs = tensorflow_chain(kernels, x)
        answer = engine.predict(x)
        np.testing.assert_allclose(answer, expected, atol=1e-4 * np.abs(expected).max())
        ours = milliseconds(lambda e=engine, d=x: e.predict(d))
        onnx = onnx_chain(onnx_python, kernels, x)
        flops = 2 * batch * sum(int(np.count_nonzero(kernel)) for kernel in kernels)
        chosen = sorted(
            {name for by_rows in engine.kernels().values() for name in by_rows.values()}
        )
        beside = "" if onnx is None else f"{onnx / ours:5.1f}x"
        print(
            f"{sparsity:5.2f} {height:3}x1 {batch:5} | {ours:8.2f} {theirs:7.2f} "
            f"{'-' if onnx is None else f'{onnx:.2f}':>7} | {theirs / ours:5.1f}x {beside:>7} | "
            f"{flops / (ours / 1e3) / peak:6.0%} | {', '.join(chosen)}",
            flush=True,
        )
        if not quick:
            single = kernel_times(kernels[0], batch)
            print("      one layer, ms:", {name: round(ms, 3) for name, ms in single.items()})


def transformer_file(folder: str, sparsity: float) -> str:
    """A file of a model of MiniLM's shape from stock layers, random weights, pruned."""
    import keras
    from keras import layers, ops

    import secateur as sc

    ids = keras.Input((64,), dtype="int32", name="ids")
    mask = keras.Input((64,), dtype="bool", name="mask")
    positions = ids * 0 + np.arange(64, dtype=np.int32)
    h = layers.Embedding(30522, 384)(ids) + layers.Embedding(512, 384)(positions)
    h = layers.LayerNormalization(epsilon=1e-12)(h)
    seen = ops.expand_dims(mask, 1)
    for _ in range(6):
        a = layers.MultiHeadAttention(12, 32)(h, h, attention_mask=seen)
        h = layers.LayerNormalization(epsilon=1e-12)(h + a)
        f = layers.Dense(384)(layers.Dense(1536, activation="gelu")(h))
        h = layers.LayerNormalization(epsilon=1e-12)(h + f)
    z = layers.UnitNormalization()(layers.GlobalAveragePooling1D()(h, mask=mask))
    result = sc.prune(keras.Model([ids, mask], z), sparsity=sparsity)
    path = str(Path(folder) / f"transformer-{sparsity}.safetensors")
    sc.save(path, result)
    return path


def whole_model(path: str) -> None:
    """A model from its file, against Keras, batch 1 and 32, length 64."""
    import secateur as sc

    model = sc.load(path)
    for batch in (1, 32):
        engine = runtime.compile(path, batch=batch, length=64)
        rng = np.random.default_rng(0)
        inputs = []
        for spec in engine.inputs:
            shape = [batch, *(64 if size is None else size for size in spec.shape)]
            if spec.dtype == np.bool_:
                inputs.append(np.arange(shape[1])[None] < rng.integers(8, 65, (batch, 1)))
            else:
                inputs.append(rng.integers(1, 1000, shape).astype(spec.dtype))
        given = inputs if len(inputs) > 1 else inputs[0]
        expected = model.predict_on_batch(given)
        answer = engine.predict(given)
        difference = np.abs(answer - expected).max() / np.abs(expected).max()
        theirs = milliseconds(lambda g=given: model.predict_on_batch(g), 3)
        ours = milliseconds(lambda e=engine, g=given: e.predict(g), 3)
        print(
            f"batch {batch}: ours {ours:.2f} ms, Keras on TensorFlow {theirs:.2f} ms, "
            f"{theirs / ours:.1f}x, largest relative difference {difference:.1e}",
            flush=True,
        )


def main() -> None:
    """Parse and run."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["chain", "minilm"])
    parser.add_argument("path", nargs="?")
    parser.add_argument("--onnx-python")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if arguments.what == "chain":
        chain(arguments.onnx_python, arguments.quick)
    elif arguments.path is None:
        with tempfile.TemporaryDirectory() as folder:
            for sparsity in (0.8, 0.9):
                print(f"a transformer of MiniLM's shape, random weights, {sparsity:.0%} zeros")
                whole_model(transformer_file(folder, sparsity))
    else:
        whole_model(arguments.path)


if __name__ == "__main__":
    main()
