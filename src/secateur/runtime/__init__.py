"""The sparse runtime: pruned and cut models on the CPU, with NumPy and the extension alone.

    engine = sc.runtime.compile("model.safetensors", batch=32)
    y = engine.predict(x)

Neither Keras nor TensorFlow is imported for a model that comes from a file. `SparseDense`, a Keras layer,
is loaded when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from secateur.runtime.engine import Engine, Support, chain_of_arrays, compile, supports

if TYPE_CHECKING:
    from secateur.runtime.sparse_dense import SparseDense

__all__ = ["Engine", "SparseDense", "Support", "chain_of_arrays", "compile", "supports"]


def __getattr__(name: str) -> Any:
    if name == "SparseDense":
        from secateur.runtime.sparse_dense import SparseDense

        return SparseDense
    raise AttributeError(f"module 'secateur.runtime' has no attribute {name!r}")
