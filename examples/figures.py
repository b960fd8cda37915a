"""What the examples print: one line of figures for each model."""

import tempfile
from pathlib import Path

import keras
import numpy as np

import secateur as sc


def show(name: str, model: keras.Model, x: np.ndarray, y: np.ndarray) -> None:
    """Print accuracy on held-out rows, weights (and how many are not zero), and bytes on disk."""
    accuracy = model.evaluate(x, y, verbose=0, return_dict=True)["accuracy"]
    weights = model.get_weights()
    nonzero = sum(int(np.count_nonzero(array)) for array in weights)
    print(
        f"{name:28} accuracy {accuracy:.3f}   {nonzero:9,} of {model.count_params():9,} weights not zero"
        f"   {stored_bytes(model):9,} bytes"
    )


def stored_bytes(model: keras.Model) -> int:
    """Bytes of the model's file as `sc.save` writes it, as small as it can."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        sc.save(path, model, profile="small")
        return path.stat().st_size
