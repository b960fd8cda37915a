"""How near a batch is to what a model was trained on, as far as the model itself can tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import keras
from keras import tree

from secateur.errors import InvalidArgumentError
from secateur.keras.data_free_losses import (
    Role,
    activation_loss,
    balance_loss,
    confidence_loss,
    spread_loss,
    statistics_loss,
)
from secateur.keras.flatten import Call, Graph, Tensor
from secateur.keras.output_roles import features_of, output_roles
from secateur.keras.running import Listener, run_graph


@dataclass(frozen=True)
class Terms:
    """How much each term of the loss counts; 0 leaves it out.

    Attributes:
        confidence: Outputs are certain of one class.
        balance: Classes come equally often.
        activation: What goes into the last layer is large.
        statistics: What goes into batch normalisations has their moving statistics.
        spread: Outputs that are no classes differ between samples.
        scale: Numbers that go in are small: no larger than certainty asks for.

    Raises:
        InvalidArgumentError: A negative weight.

    References:
        Chen et al., DAFL (arXiv 1904.01186), eq. 7, for the first three and their weights.
    """

    confidence: float = 1.0
    balance: float = 5.0
    activation: float = 0.1
    statistics: float = 1.0
    spread: float = 0.1
    scale: float = 0.05

    def __post_init__(self) -> None:
        for own in fields(self):
            value = getattr(self, own.name)
            if not value >= 0:
                raise InvalidArgumentError(f"{own.name} must be at least 0, got {value!r}.")


class Judge:
    """The loss of a batch: the sum of the terms that the model has something to say to.

    Args:
        graph: The model, flat.
        model: The same model, as it was given.
        outputs: What its outputs are; None to look.
        terms: How much each counts.

    Attributes:
        roles: What each output is.

    Raises:
        InvalidArgumentError: No term applies.
    """

    def __init__(
        self, graph: Graph, model: Any, outputs: Role | Sequence[Role] | None, terms: Terms
    ) -> None:
        self._graph, self._terms = graph, terms
        self.roles = output_roles(graph, model, outputs)
        self._norms = [call for call in graph.calls if terms.statistics and _keeps_moments(call)]
        found = [features_of(graph, output) for output in graph.outputs]
        self._features = [t for t in dict.fromkeys(found) if t is not None and terms.activation]
        if not (self._norms or self._features or any(map(self._judges, self.roles, graph.outputs))):
            shapes = [tuple(tensor.shape) for tensor in graph.outputs]
            raise InvalidArgumentError(
                f"Model {model.name!r} says nothing of the data it was trained on: its outputs are plain "
                f"numbers {shapes}, it has no layer before the last, and no batch normalisation, or the "
                "terms for those are 0. Pass real samples; or, if the outputs are logits, "
                "outputs='logits'."
            )

    @property
    def scale_cost(self) -> float | None:
        """What the logarithm of the inputs' scale is to cost; None where nothing tells the scale.

        The activation term's gain is made up for: it is to turn the inputs, not to enlarge them.
        """
        gained = self._terms.activation if self._features else 0.0
        if self._norms:
            return gained
        certain = self._terms.confidence and any(role != "values" for role in self.roles)
        return gained + self._terms.scale if certain else None

    def _judges(self, role: Role, output: Tensor) -> bool:
        if role == "values":
            return bool(self._terms.spread) and _is_wide(output)
        return bool(self._terms.confidence or self._terms.balance)

    def loss(self, samples: Any, seen: Listener) -> Any:
        """The loss of a batch, a scalar tensor.

        Args:
            samples: The batch, nested as the model takes it.
            seen: Sees every call with its outputs.
        """
        norms = {id(call) for call in self._norms}
        wanted = {id(tensor) for tensor in self._features}
        parts: list[Any] = []

        def visit(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            del kwargs
            if id(call) in norms:
                layer = call.operation
                moments = layer.moving_mean, layer.moving_variance
                gap = statistics_loss(args[0], *moments, axis=layer.axis)
                parts.append(self._terms.statistics / len(norms) * gap)

        def heard(call: Call, results: list[Any]) -> None:
            seen(call, results)
            for tensor, value in zip(call.outputs, results, strict=True):
                if id(tensor) in wanted:
                    parts.append(self._terms.activation / len(wanted) * activation_loss(value))

        outputs = tree.flatten(run_graph(self._graph, samples, visit, heard))
        for role, tensor, value in zip(self.roles, self._graph.outputs, outputs, strict=True):
            parts.extend(loss / len(outputs) for loss in self._of_output(role, tensor, value))
        return sum(parts)

    def _of_output(self, role: Role, tensor: Tensor, value: Any) -> list[Any]:
        terms = self._terms
        if role == "values":
            return [terms.spread * spread_loss(value)] if _is_wide(tensor) else []
        return [
            terms.confidence * confidence_loss(value, role),
            terms.balance * balance_loss(value, role),
        ]


def _keeps_moments(call: Call) -> bool:
    return isinstance(call.operation, keras.layers.BatchNormalization)


def _is_wide(tensor: Tensor) -> bool:
    """Whether an output is a vector, so that samples can differ in direction."""
    return len(tensor.shape) > 1 and tensor.shape[-1] != 1
