"""Distillation: a model learns from another one while it is trained by plain `fit`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import keras
from keras import ops, tree

from secateur.errors import InvalidArgumentError
from secateur.keras.keeping import trace_again
from secateur.keras.lessons import Inside, Lessons

OutputKind = Literal["logits", "probabilities", "sigmoid", "values"]
_KINDS = {"softmax": "probabilities", "sigmoid": "sigmoid"}


@dataclass(frozen=True)
class Distillation:
    """How much a student listens to its teacher.

    The loss is (1 - weight) * the student's own + weight * the distance of its outputs from the
    teacher's: T^2 KL(teacher || student) of distributions softened by the temperature T, the binary
    form of it for sigmoid outputs, the mean squared difference for plain values.

    Attributes:
        weight: Share of the teacher's part, 0 to 1.
        temperature: T, above 0.
        outputs: What the outputs are: "logits", "probabilities" (softmax), "sigmoid", "values"; None
            reads it off the layers that make them, a layer without activation giving "values".
        inside: Hidden states, attention and an adversarial loss beside the outputs; None for none.

    References:
        Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531),
        section 2.
    """

    weight: float = 0.5
    temperature: float = 2.0
    outputs: OutputKind | None = None
    inside: Inside | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise InvalidArgumentError(f"weight must be from 0 to 1, got {self.weight!r}.")
        if not self.temperature > 0:
            raise InvalidArgumentError(f"temperature must be above 0, got {self.temperature!r}.")
        if self.outputs not in (None, "logits", "probabilities", "sigmoid", "values"):
            raise InvalidArgumentError(
                "outputs must be 'logits', 'probabilities', 'sigmoid' or 'values', "
                f"got {self.outputs!r}."
            )


@contextmanager
def taught(student: Any, teacher: Any, how: Distillation) -> Iterator[None]:
    """Add the teacher's part to the student's loss while this lasts.

    Args:
        student: A compiled Keras model; the same inputs and outputs as the teacher's.
        teacher: A Keras model; it is run at inference and not changed.
        how: Weight, temperature, kind of outputs.

    Raises:
        InvalidArgumentError: Their outputs have other shapes, or the student is not compiled.
    """
    _check(student, teacher)
    kinds = [how.outputs or kind for kind in output_kinds(student)]
    own_loss = student.compute_loss
    lessons = None if how.inside is None else Lessons(student, teacher, how.inside)
    if lessons is not None:
        lessons.build()

    def compute_loss(
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        own = own_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
        if not training:
            return own
        targets = tree.flatten(teacher(x, training=False))
        parts = [
            distance(ops.stop_gradient(target), found, kind, how.temperature)
            for target, found, kind in zip(targets, tree.flatten(y_pred), kinds, strict=True)
        ]
        total = (1 - how.weight) * own + how.weight * sum(parts)
        return total if lessons is None else total + lessons.loss(x)

    student.__dict__["compute_loss"] = compute_loss
    trace_again(student)
    try:
        yield
    finally:
        student.__dict__.pop("compute_loss", None)
        trace_again(student)


def distance(target: Any, found: Any, kind: OutputKind, temperature: float = 1.0) -> Any:
    """How far a student's outputs are from its teacher's, averaged over all but the last axis.

    Args:
        target: The teacher's outputs, (..., classes).
        found: The student's, of the same shape.
        kind: What they are.
        temperature: Softens distributions; the result is scaled by its square, so that gradients
            keep their size.

    Returns:
        A scalar tensor, at least 0.
    """
    target, found = ops.cast(target, "float32"), ops.cast(found, "float32")
    if kind == "values":
        return ops.mean(ops.square(target - found))
    if kind == "sigmoid":
        one, two = _binary(target, temperature), _binary(found, temperature)
    else:
        one, two = (_softened(value, kind, temperature) for value in (target, found))
    divergence = ops.sum(ops.exp(one) * (one - two), axis=-1)
    return temperature**2 * ops.mean(divergence)


def _softened(value: Any, kind: OutputKind, temperature: float) -> Any:
    """Logarithms of the softened distribution; log p stands for logits as well as logits do."""
    logits = value if kind == "logits" else ops.log(ops.clip(value, 1e-7, 1.0))
    return ops.log_softmax(logits / temperature, axis=-1)


def _binary(value: Any, temperature: float) -> Any:
    """Logarithms of the softened probabilities of yes and no."""
    clipped = ops.clip(value, 1e-7, 1 - 1e-7)
    logits = (ops.log(clipped) - ops.log(1 - clipped)) / temperature
    return ops.stack([ops.log_sigmoid(logits), ops.log_sigmoid(-logits)], axis=-1)


def output_kinds(model: Any) -> list[OutputKind]:
    """What each output of a model is, read off the activation of the layer that makes it.

    Args:
        model: A Keras model; one without a graph of layers gives "values" for every output.
    """
    outputs = tree.flatten(getattr(model, "outputs", None) or [])
    kinds: list[OutputKind] = []
    for output in outputs:
        history = getattr(output, "_keras_history", None)
        layer = history.operation if history is not None else None
        activation = getattr(layer, "activation", None)
        name = "softmax" if isinstance(layer, keras.layers.Softmax) else activation_name(activation)
        kinds.append(_KINDS.get(name, "values"))  # type: ignore[arg-type]
    return kinds


def activation_name(activation: Any) -> str:
    """Name of an activation function, "" for none."""
    return str(getattr(activation, "__name__", "")) if activation is not None else ""


def _check(student: Any, teacher: Any) -> None:
    if not student.compiled:
        raise InvalidArgumentError(
            f"Model {student.name!r} is not compiled, so it has no loss to add a teacher's part to; "
            "call compile first."
        )
    if not getattr(student, "outputs", None):
        raise InvalidArgumentError(
            f"Model {student.name!r} is subclassed and does not say what comes out of it, so it cannot "
            "be taught; teach what prune or cut gives back, or a functional model."
        )
    if not getattr(
        teacher, "outputs", None
    ):  # a subclassed one shows its outputs when it is called
        return
    one, two = ([tuple(o.shape) for o in tree.flatten(m.outputs)] for m in (student, teacher))
    if one != two:
        raise InvalidArgumentError(
            f"The student puts out {one}, the teacher {two}; both must be the same."
        )
