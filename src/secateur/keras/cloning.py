"""An independent copy of a model, of any kind, down to the last bit of its weights."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

from secateur.keras.compiling import carry_compile
from secateur.keras.deferred import set_value
from secateur.keras.model_arrays import finish_loading
from secateur.keras.rebuilding import rebuild
from secateur.keras.tensors import require_built
from secateur.keras.tracing import nodes_restored
from secateur.keras.walk import named_variables, walk_layers

if TYPE_CHECKING:
    from secateur.keras.protocols import Model, Variable


def clone_model(model: Model, *, input_spec: Any = None) -> Model:
    """Copy a model: new layers of the same names and settings, with bit-equal weights.

    A functional or sequential model comes back as its own kind. A subclassed one is traced by
    calling it on symbolic inputs and comes back as a functional model; custom layers without a
    working config are replaced by the layers they are made of. A compiled model's copy is compiled,
    see `carry_compile`.

    Where the backend can, original and copy share the memory of a weight until one of them is
    changed.

    Args:
        model: A built model. It is not changed.
        input_spec: For a subclassed model of which it is not known what it was built with, or whose
            inputs are integers that no stock layer looks up: an example batch, `keras.InputSpec` or
            symbolic tensor, or a list or dict of them.

    Raises:
        UnsupportedModelError: The model is not built, cannot be traced, or a layer cannot be
            copied.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> copy = clone_model(model)
        >>> bool((copy.get_weights()[0] == model.get_weights()[0]).all())
        True
    """
    require_built(model)
    with nodes_restored(model):
        rebuilt = rebuild(model, input_spec)
        copy_trainable(rebuilt.graph, rebuilt.skeleton)
    skeleton: Any = rebuilt.skeleton
    skeleton._trainable = model.trainable
    skeleton.dtype_policy = model.dtype_policy
    pairs = _copy_values(rebuilt.graph, skeleton)
    finish_loading(skeleton)
    _copy_assets(rebuilt.graph, skeleton)
    carry_compile(model, skeleton, pairs)
    return rebuilt.skeleton


def keeps_assets(layer: Any) -> bool:
    """Whether a layer has state that is neither in its variables nor in its config."""
    return hasattr(layer, "save_assets") and hasattr(layer, "load_assets")


def copy_trainable(graph: Model, skeleton: Model) -> None:
    """Make layers and variables of a copy trainable where those of the original are."""
    for old, new in zip(walk_layers(graph), walk_layers(skeleton), strict=True):
        layer: Any = new.layer
        # The setter would change all layers inside as well.
        layer._trainable = old.layer.trainable
    pairs = zip(named_variables(graph), named_variables(skeleton), strict=True)
    for before, after in pairs:
        after.variable.trainable = before.variable.trainable


def _copy_values(graph: Model, skeleton: Model) -> dict[int, Variable]:
    """Copy all values; the copies of the graph's variables by the ids of those."""
    copies = {named.name: named.variable for named in named_variables(skeleton)}
    pairs = {}
    for named in named_variables(graph):
        set_value(copies[named.name], named.variable.value)
        pairs[id(named.variable)] = copies[named.name]
    return pairs


def _copy_assets(graph: Model, skeleton: Model) -> None:
    for old, new in zip(walk_layers(graph), walk_layers(skeleton), strict=True):
        before: Any = old.layer
        after: Any = new.layer
        if keeps_assets(before):
            with tempfile.TemporaryDirectory() as folder:
                before.save_assets(folder)
                after.load_assets(folder)
