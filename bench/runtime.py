"""The sparse runtime beside TensorFlow and ONNX Runtime, in one run on the same threads.

    python -m bench.runtime chain              # twelve Dense layers, sparsity x batch x kernel: the grid
    python -m bench.runtime chain --quick      # the corners that must hold
    python -m bench.runtime minilm             # MiniLM pruned to 80 and 90 %, batch 1 and 32, length 64
    python -m bench.runtime texts              # answers beside Keras's on every text model
    python -m bench.runtime layer              # SparseDense inside a TensorFlow model

All tools take turns, and the best of each counts. TensorFlow runs a tf.function, or the model as
`predict_on_batch` compiles it. For ONNX Runtime give the Python of an environment that has it and onnx
with --onnx-python. Every answer is checked.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from bench.rivals import OnnxChain, milliseconds, side_by_side, tensorflow_chain
from numpy.typing import NDArray

from secateur import runtime
from secateur._kernels.native import runtime as settings
from secateur._kernels.native import spmm
from secateur._kernels.native.spmm import Epilogue
from secateur.activations import Activation

SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
BATCHES = (1, 2, 4, 8, 32, 128)
CORNERS = [
    (0.9, 1, 128),
    (0.9, 1, 32),
    (0.9, 1, 1),
    (0.7, 1, 128),
    (0.5, 1, 128),
    (0.5, 1, 32),
    (0.5, 1, 1),
    (0.9, 4, 128),
]
NUM_LAYERS, NARROW, WIDE = 12, 768, 3072


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


def kernel_times(kernel: NDArray[Any], batch: int) -> dict[str, float]:
    """Milliseconds of every kernel on one layer with ReLU, weights in cache."""
    x = np.ones((batch, kernel.shape[0]), np.float32)
    y = np.empty((batch, kernel.shape[1]), np.float32)
    relu = Epilogue.of(Activation("relu"))
    runs: dict[str, Callable[[], object]] = {}
    for height in (1, 4):
        matrix = spmm.pack_blocked(kernel.T, height)
        scratch = np.empty(matrix.scratch_floats(batch), np.float32)
        runs[f"{height}x1"] = partial(
            spmm.multiply_blocked, matrix, x, y, batch, None, None, relu, scratch
        )
    packers = {"lookup": spmm.pack_lookup, "bitmask": spmm.pack_bitmask, "csr": spmm.pack_short_csr}
    if batch <= 16:
        for name, pack in packers.items():
            packed: Any = pack(kernel.T)
            runs[name] = partial(spmm.multiply_small, packed, x, y, None, None, relu)

    def dense() -> None:
        np.matmul(x, kernel, out=y)
        spmm.finish_rows(y, None, None, relu)

    runs["dense"] = dense
    timers = [partial(milliseconds, run) for run in runs.values()]
    return dict(zip(runs, side_by_side(timers, rounds=3, seconds=0.02), strict=True))


def chain_row(
    sparsity: float, height: int, batch: int, onnx_python: str | None, peak: float
) -> tuple[float, float]:
    """Print one line; returns how many times as fast as TensorFlow and ONNX Runtime (NaN) we are."""
    kernels = make_chain(sparsity, height)
    x = np.random.default_rng(1).standard_normal((batch, NARROW)).astype(np.float32)
    start = time.perf_counter()
    source = runtime.chain_of_arrays(kernels, ["relu"] * NUM_LAYERS)
    engine = runtime.compile(source, batch=batch)
    started = time.perf_counter() - start
    theirs = tensorflow_chain(kernels, x)
    expected = theirs()
    bound = 1e-4 * float(np.abs(expected).max())
    np.testing.assert_allclose(engine.predict(x), expected, atol=bound)
    timers = [partial(milliseconds, lambda: engine.predict(x)), partial(milliseconds, theirs)]
    rival = None if onnx_python is None else OnnxChain(onnx_python, kernels, x)
    if rival is not None:
        np.testing.assert_allclose(rival.answer, expected, atol=bound)
        timers.append(rival.milliseconds)
    ours, tf, *rest = side_by_side(timers)
    onnx = rest[0] if rest else float("nan")
    if rival is not None:
        rival.close()
    flops = 2 * batch * sum(int(np.count_nonzero(kernel)) for kernel in kernels)
    chosen = sorted({name for by_rows in engine.kernels().values() for name in by_rows.values()})
    print(
        f"| {sparsity:.0%} | {height}x1 | {batch} | {ours:.2f} | {tf:.2f} | {onnx:.2f} | "
        f"{tf / ours:.1f} | {onnx / ours:.1f} | {flops / (ours / 1e3) / peak:.0%} | {started:.2f} | "
        f"{', '.join(chosen)} |",
        flush=True,
    )
    return tf / ours, onnx / ours


def chain(onnx_python: str | None, quick: bool) -> None:
    """The grid, and where sparse begins to pay."""
    peak = settings.peak_flops(200)
    print(
        f"{settings.num_threads()} threads, {settings.simd()}, peak {peak / 1e9:.0f} GFLOP/s "
        "(multiply-adds between registers)\n"
    )
    print(
        "| zeros | blocks | batch | ours ms | TF ms | ORT ms | TF / ours | ORT / ours | of peak | "
        "compile s | kernels |\n|" + "---|" * 11
    )
    grid = [(s, h, b) for h in (1, 4) for b in BATCHES for s in SPARSITIES]
    found = {
        corner: chain_row(*corner, onnx_python, peak) for corner in (CORNERS if quick else grid)
    }
    if quick:
        return
    print("\n| blocks | batch | faster than TF from | faster than ORT from |\n|---|---|---|---|")
    for height in (1, 4):
        for batch in BATCHES:
            ratios = [found[s, height, batch] for s in SPARSITIES]
            cells = [begins_to_pay([ratio[i] for ratio in ratios]) for i in (0, 1)]
            print(f"| {height}x1 | {batch} | {cells[0]} | {cells[1]} |")
    print("\nOne layer of 768 x 3072 alone, its weights in cache, milliseconds:\n")
    for sparsity in SPARSITIES:
        for batch in BATCHES:
            times = kernel_times(make_chain(sparsity, 1)[0], batch)
            print(
                f"{sparsity:.0%} zeros, batch {batch}:", *(f"{n} {t:.3f}" for n, t in times.items())
            )


def begins_to_pay(ratios: list[float]) -> str:
    """The share of zeros from which on all that was measured is faster, on a line between two."""
    if any(np.isnan(ratios)):
        return "-"
    slower = [place for place, ratio in enumerate(ratios) if ratio < 1]
    if not slower:
        return f"{SPARSITIES[0]:.0%} or less"
    last = slower[-1]
    if last + 1 == len(ratios):
        return "nowhere"
    here, there = ratios[last], ratios[last + 1]
    share = (1 - here) / (there - here)
    return f"{SPARSITIES[last] + share * (SPARSITIES[last + 1] - SPARSITIES[last]):.0%}"


def difference(actual: Any, expected: Any) -> float:
    """The largest difference of two nests of arrays, relative to the largest number expected."""
    import keras

    pairs = zip(keras.tree.flatten(actual), keras.tree.flatten(expected), strict=True)
    return max(float(np.abs(a - e).max() / max(np.abs(e).max(), 1e-30)) for a, e in pairs)


def minilm() -> None:
    """MiniLM from its file without Keras's help, beside its dense model in TensorFlow."""
    import tempfile
    from pathlib import Path

    from bench.zoo import MiniLM, load_trec

    import secateur as sc

    dense = MiniLM.load()
    texts = list(load_trec().texts)
    print("| zeros | batch | ours ms | TF dense ms | times | compile s | difference | kernels |")
    print("|" + "---|" * 8)
    for sparsity in (0.8, 0.9):
        result = sc.prune(dense.model, sparsity=sparsity)  # all matrices but the embeddings
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "m.safetensors"
            sc.save(path, result)
            for batch in (1, 32):
                tokens, mask = dense.tokenizer.encode(texts[:batch], 64)
                tokens, mask = padded_to(tokens, 64), padded_to(mask, 64)
                start = time.perf_counter()
                engine = runtime.compile(path, batch=batch, length=64)
                started = time.perf_counter() - start
                apart = difference(
                    engine.predict([tokens, mask]), result.model.predict_on_batch([tokens, mask])
                )
                assert apart < 1e-4
                run = partial(engine.predict, [tokens, mask])
                theirs = partial(dense.model.predict_on_batch, [tokens, mask])
                theirs()
                ours, tf = side_by_side(
                    [partial(milliseconds, run), partial(milliseconds, theirs)], seconds=1
                )
                counts: dict[str, int] = {}
                for by_rows in engine.kernels().values():
                    for name in by_rows.values():
                        counts[name] = counts.get(name, 0) + 1
                print(
                    f"| {sparsity:.0%} | {batch} | {ours:.2f} | {tf:.2f} | {tf / ours:.2f} | "
                    f"{started:.2f} | {apart:.0e} | {counts} |",
                    flush=True,
                )


def padded_to(array: NDArray[Any], length: int) -> NDArray[Any]:
    """Columns of zeros up to a length."""
    return np.pad(array, ((0, 0), (0, length - array.shape[1])))


def text_models() -> Iterator[tuple[str, Any, list[Any]]]:
    """(name, model, batches of different lengths) of every text model that there is."""
    from bench.zoo import MiniLM, Vocabulary, load_sms, load_trec
    from bench.zoo.phonemes import Pronouncer, load_sounds
    from bench.zoo.sms import message_features
    from bench.zoo.textmodels import TEXT_MODELS, simple_nn

    trec, sms = load_trec(), load_sms()
    for data_name, data in (("TREC", trec), ("SMS", sms)):
        vocabulary = Vocabulary.of(data.texts, 8000)
        for name, make in TEXT_MODELS.items():
            model = make(8000, 32, len(set(data.labels)))
            batches = [vocabulary.encode(data.texts[i : i + n], 32) for i, n in ((0, 70), (70, 3))]
            yield f"{name} on {data_name}", model, batches
    yield "SimpleNN on SMS", simple_nn(), [message_features(sms.texts[:40]).astype(np.float32)]
    lm = MiniLM.load()
    yield (
        "MiniLM",
        lm.model,
        [
            list(lm.tokenizer.encode(trec.texts[i : i + n], m))
            for i, n, m in ((0, 40, 64), (40, 3, 9))
        ],
    )
    from secateur.demo.lemmatiser import load_lemmatiser, load_rows

    yield (
        "lemmatiser",
        load_lemmatiser().model,
        [load_rows().features[first : first + n] for first, n in ((0, 200), (40000, 3))],
    )
    speaker, words = Pronouncer.load(), sorted(load_sounds())
    yield (
        "g2p",
        speaker.model,
        [speaker.taught(words[i : i + n]) for i, n in ((1000, 37), (50000, 5))],
    )


def texts() -> None:
    """Every text model, half its weights zeros, its words ragged and masked as they come."""
    import secateur as sc

    print("| model | largest relative difference |\n|---|---|")
    for name, model, batches in text_models():
        result = sc.prune(model, sparsity=0.5)
        engine = runtime.compile(result, batch=32)
        apart = max(
            difference(engine.predict(batch), result.model.predict(batch, verbose=0))
            for batch in batches
        )
        assert apart < 1e-4, (name, apart)
        print(f"| {name} | {apart:.1e} |", flush=True)


def layer() -> None:
    """SparseDense beside Dense: one layer in a model that TensorFlow runs."""
    import keras

    print(
        "| inputs x outputs | zeros | batch | Dense ms | SparseDense ms | times |\n|" + "---|" * 6
    )
    for inputs, outputs in ((256, 256), (768, 3072), (2048, 8192)):
        for sparsity in (0.8, 0.9):
            for batch in (1, 32, 128):
                rng = np.random.default_rng(0)
                dense = keras.layers.Dense(outputs)
                dense.build((None, inputs))
                kernel = rng.standard_normal((inputs, outputs)).astype(np.float32)
                kernel[rng.random(kernel.shape) < sparsity] = 0
                dense.set_weights([kernel, np.zeros(outputs, np.float32)])
                sparse = runtime.SparseDense.from_dense(dense)
                x = rng.standard_normal((batch, inputs)).astype(np.float32)
                models = [
                    keras.Sequential([keras.Input((inputs,)), made]) for made in (dense, sparse)
                ]
                answers = [model.predict_on_batch(x) for model in models]
                assert difference(answers[1], answers[0]) < 1e-5
                theirs, ours = side_by_side(
                    [partial(milliseconds, partial(model.predict_on_batch, x)) for model in models],
                    rounds=3,
                    seconds=0.1,
                )
                print(
                    f"| {inputs} x {outputs} | {sparsity:.0%} | {batch} | {theirs:.2f} | {ours:.2f} | "
                    f"{theirs / ours:.1f} |",
                    flush=True,
                )


def main() -> None:
    """Parse and run."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("what", choices=["chain", "minilm", "texts", "layer"])
    parser.add_argument("--onnx-python")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if arguments.what == "chain":
        chain(arguments.onnx_python, arguments.quick)
    else:
        {"minilm": minilm, "texts": texts, "layer": layer}[arguments.what]()


if __name__ == "__main__":
    main()
