"""What can be cut: every model of keras.applications and backbones of keras-hub, at ratio 0.5.

Run `python -m bench.prunability [NAME ...]`: cut, proven, saved, loaded with plain Keras in
another process, trained one step. Prints one line a model.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import tree

from secateur.keras.cut_rules import is_leaf, opener_of
from secateur.keras.cutting import plan_cut
from secateur.keras.describe import describe
from secateur.keras.flatten import flatten
from secateur.keras.proof import random_samples

_TINY = {"vocabulary_size": 512, "num_layers": 2, "hidden_dim": 64, "intermediate_dim": 256}
_BASE = {"num_layers": 12, "hidden_dim": 768, "intermediate_dim": 3072, "num_heads": 12}


def applications() -> dict[str, Callable[[], keras.Model]]:
    """The models of keras.applications, with random weights and small inputs where they are allowed."""
    found = {}
    for name in dir(keras.applications):
        maker = getattr(keras.applications, name)
        if callable(maker) and name[0].isupper():
            found[name] = lambda maker=maker: _application(maker)
    return found


def _application(maker: Callable[..., keras.Model]) -> keras.Model:
    try:
        return maker(weights=None, input_shape=(96, 96, 3))
    except ValueError:
        return maker(weights=None)


def backbones() -> dict[str, Callable[[], keras.Model]]:
    """Backbones of keras-hub in their real sizes, with random weights."""
    from keras_hub import models as hub

    vit = {"num_layers": 12, "num_heads": 12, "hidden_dim": 768}
    return {
        "BertBackbone": lambda: hub.BertBackbone(vocabulary_size=30522, **_BASE),
        "RobertaBackbone": lambda: hub.RobertaBackbone(vocabulary_size=50265, **_BASE),
        "DistilBertBackbone": lambda: hub.DistilBertBackbone(
            vocabulary_size=30522, **{**_BASE, "num_layers": 6}
        ),
        "AlbertBackbone": lambda: hub.AlbertBackbone(
            vocabulary_size=30000, embedding_dim=128, **_BASE
        ),
        "DebertaV3Backbone": lambda: hub.DebertaV3Backbone(vocabulary_size=128100, **_BASE),
        "GPT2Backbone": lambda: hub.GPT2Backbone(vocabulary_size=50257, **_BASE),
        "ElectraBackbone": lambda: hub.ElectraBackbone(
            vocab_size=30522,
            num_layers=12,
            num_heads=4,
            hidden_dim=256,
            embedding_dim=128,
            intermediate_dim=1024,
        ),
        "OPTBackbone": lambda: hub.OPTBackbone(vocabulary_size=50272, **_BASE),
        "BartBackbone": lambda: hub.BartBackbone(
            vocabulary_size=50265, **{**_BASE, "num_layers": 6}
        ),
        "ViTBackbone": lambda: hub.ViTBackbone(
            image_shape=(224, 224, 3), patch_size=16, mlp_dim=3072, **vit
        ),
        "LlamaBackbone": lambda: hub.LlamaBackbone(
            num_query_heads=8, num_key_value_heads=4, **_TINY
        ),
        "MistralBackbone": lambda: hub.MistralBackbone(
            num_query_heads=8, num_key_value_heads=4, **_TINY
        ),
        "GemmaBackbone": lambda: hub.GemmaBackbone(
            num_query_heads=8, num_key_value_heads=4, head_dim=8, **_TINY
        ),
        "T5Backbone": lambda: hub.T5Backbone(num_heads=8, **_TINY),
        "WhisperBackbone": lambda: hub.WhisperBackbone(num_heads=8, **_TINY),
    }


def latency(model: keras.Model, samples: Any, repeats: int = 5) -> float:
    """Milliseconds of a call of the compiled model: the best of some."""
    import tensorflow as tf

    call = tf.function(lambda x: model(x, training=False), autograph=False)
    call(samples)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        tree.map_structure(np.asarray, call(samples))
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def train_one_step(model: keras.Model, samples: Any) -> bool:
    """Whether a step of gradient descent changes the weights and leaves them finite."""
    outputs = model(samples, training=False)
    targets = tree.map_structure(lambda x: np.zeros(x.shape, "float32"), outputs)
    model.compile("sgd", "mse")
    history = model.fit(samples, targets, batch_size=2, verbose=0)
    return bool(np.isfinite(history.history["loss"][-1]))


def loads_elsewhere(model: keras.Model) -> bool:
    """Whether plain Keras loads the saved model in a process that knows nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cut.keras"
        model.save(path)
        code = f"import keras; keras.models.load_model({str(path)!r})"
        return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def rows(names: list[str], align: int) -> Iterator[str]:
    """Lines of the table."""
    makers = {**applications(), **backbones()}
    for name in names or makers:
        try:
            yield row(name, makers[name](), align)
        except Exception as error:
            first = str(error).splitlines()[0][:120]
            yield f"| {name} | FAILED {type(error).__name__}: {first} |"
        keras.backend.clear_session()


def row(name: str, model: keras.Model, align: int) -> str:
    """One line of the table."""
    start = time.perf_counter()
    plan = plan_cut(model, ratio=0.5, align=align)
    seconds = time.perf_counter() - start
    result = plan.apply()
    before, after = result.parameters
    samples = random_samples(describe(flatten(model, is_leaf, opener_of)), 2)
    times = latency(model, samples), latency(result.model, samples)
    trained = train_one_step(result.model, samples)
    loaded = loads_elsewhere(result.model)
    left = "; ".join(f"{wall}: {why}"[:80] for wall, why in list(plan.walls.items())[:2])
    if not left and after > 0.6 * before:
        left = "; ".join(
            dict.fromkeys(f"{g.name}: {g.why}"[:80] for g in plan.groups if not g.removed)
        )[:160]
    assert result.proof is not None
    return (
        f"| {name} | {before:,} | {after:,} | {1 - after / before:.1%} | {seconds:.1f} | "
        f"{times[0]:.1f} | {times[1]:.1f} | "
        f"{result.proof.difference:.1e} | {'yes' if loaded and trained else 'NO'} | {left} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--align", type=int, default=8)
    options = parser.parse_args()
    print(
        "| model | parameters | after | gone | plan s | ms before | ms after | proof "
        "| loads, trains | left |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for line in rows(options.names, options.align):
        print(line, flush=True)


if __name__ == "__main__":
    main()
