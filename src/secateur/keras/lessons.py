"""What a student is taught beside its teacher's outputs: hidden states, attention, and a judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from secateur.errors import InvalidArgumentError, MissingDependencyError
from secateur.keras.features import Features, default_hidden, mean_over_heads


@dataclass(frozen=True)
class Inside:
    """What of the inside is taught, and how much it counts beside the loss.

    Attributes:
        hidden: Layers by name, in both models; None takes those that both have.
        attention: `MultiHeadAttention` layers by name, in both models.
        hidden_weight: Of the mean squared distance of hidden states, each scaled by its teacher's
            mean square. Where widths differ, a learned linear map leads from the student's to the
            teacher's (it is thrown away afterwards).
        attention_weight: Of the mean squared distance of attention maps, averaged over heads.
        adversarial_weight: Of -log D(student), D being a discriminator that learns to tell the
            teacher's last hidden states from the student's.
        learning_rate: Of the linear maps and the discriminator (Adam).

    References:
        Romero et al., "FitNets" (arXiv 1412.6550), eq. 3, for hidden states and maps between them;
        Jiao et al., "TinyBERT" (arXiv 1909.10351), eqs. 7 and 8, for attention and hidden states
        (differs: attention is averaged over heads, since cut models have fewer); Goodfellow et al.
        (arXiv 1406.2661), section 3, for the non-saturating adversarial loss.
    """

    hidden: Sequence[str] | None = None
    attention: Sequence[str] = ()
    hidden_weight: float = 0.1
    attention_weight: float = 0.0
    adversarial_weight: float = 0.0
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("hidden_weight", "attention_weight", "adversarial_weight"):
            if not getattr(self, name) >= 0:
                raise InvalidArgumentError(f"{name} must be at least 0, got {getattr(self, name)}.")
        if self.attention_weight and not self.attention:
            raise InvalidArgumentError(
                "attention_weight is set, but attention names no layers; name the "
                "MultiHeadAttention layers to be compared."
            )
        if not self.learning_rate > 0:
            raise InvalidArgumentError(f"learning_rate must be > 0, got {self.learning_rate!r}.")


class Lessons:
    """Compares the inside of two models on each batch, and trains maps and judge as it goes.

    Args:
        student: A Keras model that can be traced.
        teacher: Another.
        how: What is compared.

    Raises:
        MissingDependencyError: The backend is not TensorFlow.
        InvalidArgumentError: Layers that are not there, or that both models do not share.
    """

    def __init__(self, student: Any, teacher: Any, how: Inside) -> None:
        if keras.backend.backend() != "tensorflow":
            raise MissingDependencyError("Teaching of hidden states needs the TensorFlow backend.")
        self._how = how
        names = list(default_hidden(teacher, student) if how.hidden is None else how.hidden)
        if not names and (how.hidden_weight or how.adversarial_weight):
            raise InvalidArgumentError(
                "No layer is shared by name, so no hidden states can be compared; name some."
            )
        self._student = Features(student, names, how.attention)
        self._teacher = Features(teacher, names, how.attention)
        pairs = zip(self._student.widths, self._teacher.widths, strict=True)
        self._maps = [self._map(one, two) for one, two in pairs]
        self._judge: Any = None
        if how.adversarial_weight:
            self._judge = _discriminator(self._teacher.widths[-1])
        self._optimizer = keras.optimizers.Adam(how.learning_rate)

    @staticmethod
    def _map(width: int, wanted: int) -> Any:
        if width == wanted:
            return None
        layer = keras.layers.Dense(wanted, use_bias=False)
        layer.build((None, width))
        return layer

    def loss(self, x: Any) -> Any:
        """The additional loss on a batch of inputs; a scalar tensor."""
        target, target_maps = self._teacher(x)
        found, found_maps = self._student(x)
        target = [ops.stop_gradient(value) for value in target]
        how = self._how
        total = ops.convert_to_tensor(0.0)
        if how.hidden_weight or how.adversarial_weight:
            self._learn(found, target)
        if how.hidden_weight:
            total += how.hidden_weight * self._hidden_distance(found, target)
        if how.attention_weight:
            pairs = zip(target_maps, found_maps, strict=True)
            gaps = [
                ops.mean(ops.square(ops.stop_gradient(mean_over_heads(a)) - mean_over_heads(b)))
                for a, b in pairs
            ]
            total += how.attention_weight * sum(gaps)
        if how.adversarial_weight:
            total += how.adversarial_weight * _binary_loss(self._judged(self._mapped(found)[-1]), 1)
        return total

    def _mapped(self, hidden: Sequence[Any]) -> list[Any]:
        pairs = zip(hidden, self._maps, strict=True)
        return [value if layer is None else layer(value) for value, layer in pairs]

    def _hidden_distance(self, found: Sequence[Any], target: Sequence[Any]) -> Any:
        gaps = [
            ops.mean(ops.square(one - two)) / (ops.mean(ops.square(two)) + 1e-8)
            for one, two in zip(self._mapped(found), target, strict=True)
        ]
        return sum(gaps) / len(gaps)

    def _judged(self, hidden: Any) -> Any:
        return self._judge(ops.reshape(hidden, (-1, hidden.shape[-1])))

    def _learn(self, found: Sequence[Any], target: Sequence[Any]) -> None:
        """One step of the maps and the judge, on hidden states that do not move."""
        import tensorflow as tf

        still = [ops.stop_gradient(value) for value in found]
        variables = self._variables()
        if not variables:
            return
        with tf.GradientTape() as tape:
            loss = self._hidden_distance(still, target)
            if self._how.adversarial_weight:
                own = ops.stop_gradient(self._mapped(still)[-1])
                real, false = self._judged(target[-1]), self._judged(own)
                loss += _binary_loss(real, 1) + _binary_loss(false, 0)
        self._optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)

    def build(self) -> None:
        """Make the optimizer's variables now: a traced step must not."""
        if variables := self._variables():
            self._optimizer.build(variables)

    def _variables(self) -> list[Any]:
        found = [v for layer in self._maps if layer is not None for v in layer.variables]
        return found if self._judge is None else [*found, *self._judge.trainable_variables]


def _binary_loss(logits: Any, label: int) -> Any:
    return ops.mean(ops.softplus(-logits if label else logits))


def _discriminator(width: int) -> Any:
    return keras.Sequential(
        [
            keras.Input((width,)),
            keras.layers.Dense(64, activation="leaky_relu"),
            keras.layers.Dense(1),
        ]
    )
