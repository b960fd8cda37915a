"""What a model computes inside: outputs of named layers, and attention maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from secateur.errors import InvalidArgumentError
from secateur.keras.cut_rules import is_leaf, opener_of
from secateur.keras.flatten import Call, flatten
from secateur.keras.running import for_inference, run_graph

_HIDDEN = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.LayerNormalization,
    keras.layers.RNN,
    keras.layers.Bidirectional,
)


class Features:
    """Looks into a model while it runs at inference; gradients pass through.

    Args:
        model: A built Keras model that can be traced.
        hidden: Layers whose output is wanted.
        attention: `MultiHeadAttention` layers whose maps are wanted.

    Attributes:
        widths: Length of the last axis of each hidden output.

    Raises:
        InvalidArgumentError: No such layer, one that is called several times, or no attention.
        UnsupportedModelError: The model cannot be traced.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="d")])
        >>> hidden, maps = Features(model, ["d"])(ops.ones((4, 3)))
        >>> hidden[0].shape, maps
        (TensorShape([4, 2]), [])
    """

    def __init__(self, model: Any, hidden: Sequence[str], attention: Sequence[str] = ()) -> None:
        self._graph = flatten(model, is_leaf, opener_of)
        self._hidden = [self._call(name) for name in hidden]
        self._attention = [self._call(name) for name in attention]
        for call in self._attention:
            if not isinstance(call.operation, keras.layers.MultiHeadAttention):
                raise InvalidArgumentError(f"{call.name!r} is no MultiHeadAttention layer.")
        self.widths = [int(call.outputs[0].shape[-1] or 0) for call in self._hidden]

    def _call(self, name: str) -> Call:
        found = [call for call in self._graph.calls if call.name == name]
        if len(found) == 1:
            return found[0]
        names = list(dict.fromkeys(call.name for call in self._graph.calls))
        raise InvalidArgumentError(
            f"Layer {name!r} is called {len(found)} times in the model, so it has no one output; "
            f"there are {names[:20]}."
        )

    def __call__(self, x: Any) -> tuple[list[Any], list[Any]]:
        """Hidden outputs (batch, ..., width) and attention maps (batch, heads, queries, keys)."""
        hidden: dict[int, Any] = {}
        maps: dict[int, Any] = {}
        attention = {id(call) for call in self._attention}

        def visit(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if id(call) in attention:
                asked = {**for_inference(call.operation, kwargs), "return_attention_scores": True}
                maps[id(call)] = call.operation(*args, **asked)[1]

        def seen(call: Call, outputs: list[Any]) -> None:
            hidden[id(call)] = outputs[0]

        run_graph(self._graph, x, visit, seen)
        return (
            [hidden[id(call)] for call in self._hidden],
            [maps[id(call)] for call in self._attention],
        )


def default_hidden(model: Any, other: Any) -> list[str]:
    """Layers of features that both models call just once, by name.

    Args:
        model: A Keras model.
        other: Another one, such as what was cut from it.
    """

    def names(own: Any) -> list[str]:
        calls = flatten(own, is_leaf, opener_of).calls
        listed = [call.name for call in calls if isinstance(call.operation, _HIDDEN)]
        return [name for name in listed if listed.count(name) == 1]

    there = set(names(other))
    return [name for name in names(model) if name in there]


def mean_over_heads(scores: Any) -> Any:
    """(batch, heads, queries, keys) -> (batch, queries, keys): what models of any heads share."""
    return ops.mean(scores, axis=1)
