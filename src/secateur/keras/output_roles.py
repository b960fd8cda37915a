"""What the outputs of a model are, and what they are computed from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import keras
from keras import tree

from secateur.errors import InvalidArgumentError
from secateur.keras.data_free_losses import Role
from secateur.keras.flatten import Call, Graph, Tensor

_ROLES: dict[str, Role] = {"softmax": "probabilities", "sigmoid": "sigmoid"}


def output_roles(graph: Graph, model: Any, asked: Role | Sequence[Role] | None) -> list[Role]:
    """What each output is: as asked; or by the activation it comes from, or by the model's loss.

    Args:
        graph: The model, flat.
        model: The same model; where it is compiled with a loss on logits, plain outputs are those.
        asked: One for all outputs, or one for each; None to look.

    Raises:
        InvalidArgumentError: A role that does not exist, or not one for each output.
    """
    outputs = graph.outputs
    if asked is not None:
        given = [asked] * len(outputs) if isinstance(asked, str) else list(asked)
        if len(given) != len(outputs) or not set(given) <= set(get_args(Role)):
            raise InvalidArgumentError(
                f"outputs is one of {', '.join(map(repr, get_args(Role)))} for all outputs, or one for "
                f"each of the {len(outputs)}; got {asked!r}."
            )
        return given
    by_loss = _roles_of_losses(model, len(outputs))
    found = [role_of(maker_of(graph, output)) for output in outputs]
    return [own or other or "values" for own, other in zip(found, by_loss, strict=True)]


def maker_of(graph: Graph, tensor: Tensor) -> Call | None:
    """The call that a tensor comes out of; None for an input of the model."""
    return next((call for call in graph.calls if any(t is tensor for t in call.outputs)), None)


def features_of(graph: Graph, output: Tensor) -> Tensor | None:
    """What the last layer with weights before an output takes; None where that is the model's input."""
    inputs = {id(tensor) for tensor in graph.inputs}
    call = maker_of(graph, output)
    while call is not None and call.inputs:
        first = call.inputs[0]
        if isinstance(call.operation, keras.layers.Layer) and call.operation.weights:
            return None if id(first) in inputs else first
        call = maker_of(graph, first)
    return None


def role_of(maker: Call | None) -> Role | None:
    """What a call puts out, by its activation or what it is itself; None where that does not tell."""
    if maker is None:
        return None
    activation = getattr(maker.operation, "activation", None)
    name = str(getattr(activation, "__name__", "")) or type(maker.operation).__name__
    return _ROLES.get(name.lower())


def _roles_of_losses(model: Any, count: int) -> list[Role | None]:
    losses = tree.flatten(getattr(model, "loss", None)) if getattr(model, "compiled", False) else []
    if len(losses) != count:
        return [None] * count
    return [_role_of_loss(loss) for loss in losses]


def _role_of_loss(loss: Any) -> Role | None:
    settings = getattr(loss, "_fn_kwargs", {})  # where Keras keeps them once a model is compiled
    if not (settings.get("from_logits") or getattr(loss, "from_logits", False)):
        return None
    function = getattr(getattr(loss, "fn", None), "__name__", type(loss).__name__)
    return "binary_logits" if "binary" in function.lower() else "logits"
