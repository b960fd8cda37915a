"""The sparse runtime: pruned and cut models on the CPU, with NumPy and the extension alone.

    engine = sc.runtime.compile("model.safetensors", batch=32)
    y = engine.predict(x)

Neither Keras nor TensorFlow is imported for a model that comes from a file.
"""

from __future__ import annotations

from secateur.runtime.engine import Engine, Support, chain_of_arrays, compile, supports

__all__ = ["Engine", "Support", "chain_of_arrays", "compile", "supports"]
