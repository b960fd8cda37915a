"""Batches made from a model alone, for calibration and distillation where there is no data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import tree
from keras.src.utils.module_utils import tensorflow

from secateur.arrays import Array
from secateur.errors import (
    ArgumentTypeError,
    InvalidArgumentError,
    NonFiniteError,
    UnsupportedModelError,
)
from secateur.keras.cloning import clone_model
from secateur.keras.cut_rules import is_leaf, opener_of
from secateur.keras.data import graph_signature
from secateur.keras.data_free_losses import Role
from secateur.keras.flatten import Call, Graph, flatten
from secateur.keras.input_kinds import Told, find_inputs, known_shapes
from secateur.keras.judging import Judge, Terms
from secateur.keras.soft_inputs import Lengths, Tokens
from secateur.pruning import Progress
from secateur.signature import Batch, InputSignature

if TYPE_CHECKING:
    from secateur.keras.protocols import Model

_REPORTS = 10


@dataclass(frozen=True)
class Generation:
    """How batches are made.

    Attributes:
        steps: Of descent, for each batch; 0 for what the descent starts from.
        batch_size: Samples that are made together, and over which classes are balanced.
        number_rate: Learning rate for numbers, relative to their root mean square.
        token_rate: Learning rate for embeddings of tokens, relative to that of their table.
        token_share: Share of tokens that move, above 0 to 1; the others stay what they were drawn as.
        terms: What is descended.

    Raises:
        InvalidArgumentError: A value out of range.
    """

    steps: int = 60
    batch_size: int = 256
    number_rate: float = 0.05
    token_rate: float = 0.15
    token_share: float = 0.25
    terms: Terms = field(default_factory=Terms)

    def __post_init__(self) -> None:
        _check_count("steps", self.steps, 0)
        _check_count("batch_size", self.batch_size, 1)
        for name in ("number_rate", "token_rate"):
            if not getattr(self, name) > 0:
                raise InvalidArgumentError(f"{name} must be above 0, got {getattr(self, name)!r}.")
        if not 0 < self.token_share <= 1:
            raise InvalidArgumentError(
                f"token_share must be above 0 and at most 1, got {self.token_share!r}."
            )


def generate(
    model: Model,
    count: int = 1024,
    *,
    seed: int = 0,
    shapes: Mapping[str, tuple[int, ...]] | tuple[int, ...] | None = None,
    tokens: Tokens | None = None,
    mask: str | None = None,
    fixed: Mapping[str, Any] | None = None,
    outputs: Role | Sequence[Role] | None = None,
    how: Generation | None = None,
    progress: Progress | None = None,
) -> Batch:
    """Make samples such as a model may have been trained on, from the model alone.

    They are for `prune(model, data=...)`, `cut` and distillation where no data is to be had: nearer to
    data than noise is, never as good. Batches begin as noise that knows what can be known (frequent
    tokens and lengths, scales of `Rescaling` and `Normalization`, smoothness of what goes into
    convolutions) and descend on what the model says to them: outputs certain of one class, classes in
    balance, strong activations, the moving statistics of batch normalisations.

    - Numbers move freely; their scale is as small as certainty allows, or what batch
      normalisations say.
    - Tokens (whatever an embedding looks up) move as embeddings and are real ids at every step. Rows
      are filled up with `Tokens.padding` after lengths at random.
    - Other inputs are told: `mask` names the one that is 1 where a position is real, `fixed` gives
      the values of any.

    Args:
        model: A built model of any kind. It is not changed.
        count: Samples to make.
        seed: Same seed, same samples.
        shapes: For inputs of open sizes: name -> shape without the batch axis; for a model of one
            input the shape alone will do.
        tokens: How texts became token ids. Default: 0 fills up at the right, lengths from 1 on.
        mask: Name of the input that says which positions are real.
        fixed: Input name -> values (for all samples, or one row each, taken in turn).
        outputs: What the outputs are: "probabilities", "logits", "sigmoid", "binary_logits" or
            "values", for all or one each. Default: by their activations, and by the loss.
        how: Steps, batch size, terms.
        progress: Called with what is being done, ten times a batch.

    Returns:
        (count, ...) arrays in the model's structure: one array, a list, or a dict by name.

    Raises:
        UnsupportedModelError: Not built, inputs of strings, integers that are neither looked up nor
            told, a backend other than TensorFlow.
        ArgumentTypeError: `tokens` or `how` of another type.
        InvalidArgumentError: Open sizes, names that no input has, or a model that says nothing of
            its data.
        NonFiniteError: The model puts out NaN or infinities.

    References:
        Chen et al., "Data-Free Learning of Student Networks" (DAFL, arXiv 1904.01186); Yin et al.,
        "Dreaming to Distill" (DeepInversion, arXiv 1912.08795). Differs: the batch itself is
        optimised as in the latter, by the losses of the former; see `Terms` and the losses.

    Example:
        >>> import keras
        >>> layers = [keras.layers.Embedding(50, 8), keras.layers.GlobalAveragePooling1D()]
        >>> model = keras.Sequential([keras.Input((6,), dtype="int32"), *layers,
        ...     keras.layers.Dense(3, activation="softmax")])
        >>> x = generate(model, 16)
        >>> x.shape, x.dtype, bool(x.max() < 50)
        ((16, 6), dtype('int32'), True)

        Pruning, and compression with the model as its own teacher (one-hot labels, or
        `y.argmax(-1)` for a sparse loss; with weight=1.0 they only judge)::

            sc.prune(model, sparsity=0.9, data=sc.generate(model))

            x, held = sc.generate(model, 4096), sc.generate(model, 1024, seed=1)
            y, held_y = (model.predict(own).argmax(-1) for own in (x, held))
            sc.compress(model, train=(x, y), validation=(held, held_y), metric="accuracy",
                max_drop=0.02, target=sc.Size(ratio=5),
                tuning=sc.FineTuning(distillation=sc.Distillation(weight=1.0)))
    """
    _check_count("count", count, 1)
    _check_backend()
    _check_type("tokens", tokens, Tokens)
    _check_type("how", how, Generation)
    _check_count("seed", seed, 0)
    how = how or Generation()
    graph = flatten(
        clone_model(model), is_leaf, opener_of
    )  # running moves states of stateful layers
    signature = graph_signature(graph)
    sizes = known_shapes(model, signature, shapes or {})
    told = Told(sizes, tokens or Tokens(), mask, fixed or {}, how.token_share)
    maker = _Maker(model, graph, told, outputs, how)
    return maker.make(count, np.random.default_rng(seed), progress)


class _Maker:
    """Makes batches for one model."""

    def __init__(
        self,
        model: Any,
        graph: Graph,
        told: Told,
        outputs: Role | Sequence[Role] | None,
        how: Generation,
    ) -> None:
        self._graph, self._signature = graph, graph_signature(graph)
        self._told, self._how = told, how
        self._judge = Judge(self._graph, model, outputs, self._how.terms)
        self._inputs = find_inputs(self._graph, self._signature, told, self._judge.scale_cost)
        self._gradients = self._compiled()

    def make(self, count: int, rng: np.random.Generator, progress: Progress | None) -> Batch:
        """`count` samples in the model's structure."""
        own_size = self._signature.batch_size
        number = math.ceil(count / (own_size or self._how.batch_size))
        sizes = [own_size] * number if own_size else _shares(count, number)
        batches: list[list[Array]] = []
        for size in sizes:
            what = f"batch {len(batches) + 1} of {number}"
            batches.append(self._batch(size, rng, what, progress))
        arrays = [np.concatenate(parts)[:count] for parts in zip(*batches, strict=True)]
        return _in_structure(self._signature, arrays)

    def _batch(
        self, size: int, rng: np.random.Generator, what: str, progress: Progress | None
    ) -> list[Array]:
        lengths = Lengths(self._told.tokens, size, rng)
        for own in self._inputs:
            own.soft.start(size, rng, lengths)
        every = max(1, self._how.steps // _REPORTS)
        for step in range(1, self._how.steps + 1):
            loss = self._step(rng)
            if not math.isfinite(loss):
                raise NonFiniteError(
                    f"The loss of generated {what} became {loss} in step {step}: the model puts out NaN "
                    "or infinities. Check its weights, or lower number_rate and token_rate."
                )
            if progress is not None and step % every == 0:
                progress(f"generating {what}, step {step} of {self._how.steps}: loss {loss:.3f}")
        return [own.soft.values for own in self._inputs]

    def _step(self, rng: np.random.Generator) -> float:
        """One step of descent; returns the loss before it."""
        loss, gradients = self._gradients([own.soft.values for own in self._inputs])
        for own, found in zip(self._inputs, gradients, strict=True):
            rate = self._how.token_rate if own.lookups else self._how.number_rate
            own.soft.step([np.asarray(gradient) for gradient in found], rate, rng)
        return float(loss)

    def _compiled(self) -> Callable[..., Any]:
        """From the inputs' values to the loss and its gradients, a list for each input."""
        lookups = {id(call) for own in self._inputs for call in own.lookups}

        def gradients(values: Sequence[Any]) -> Any:
            with tensorflow.GradientTape(watch_accessed_variables=False) as tape:
                moving = [[value] if value.dtype.is_floating else [] for value in values]
                tape.watch(moving)
                found: dict[int, Any] = {}

                def seen(call: Call, results: list[Any]) -> None:
                    if id(call) in lookups:
                        tape.watch(results[0])
                        found[id(call)] = results[0]

                loss = self._judge.loss(self._nested(values), seen)
            sources = [
                [found[id(call)] for call in own.lookups] or values_of
                for own, values_of in zip(self._inputs, moving, strict=True)
            ]
            return loss, tape.gradient(loss, sources, unconnected_gradients="zero")

        found: Callable[..., Any] = tensorflow.function(
            gradients, reduce_retracing=True, autograph=False
        )
        return found

    def _nested(self, values: Sequence[Any]) -> Any:
        return tree.pack_sequence_as(self._graph.input_structure, list(values))


def _shares(count: int, number: int) -> list[int]:
    """`count` shared out as evenly as can be."""
    return [len(part) for part in np.array_split(np.arange(count), number)]


def _in_structure(signature: InputSignature, arrays: list[Array]) -> Batch:
    if signature.structure == "dict":
        names = [spec.name for spec in signature.inputs]
        return dict(zip(names, arrays, strict=True))
    return arrays[0] if signature.structure == "single" else arrays


def _check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidArgumentError(f"{name} must be a whole number >= {least}, got {value!r}.")


def _check_type(name: str, value: Any, wanted: type) -> None:
    if value is not None and not isinstance(value, wanted):
        raise ArgumentTypeError(
            f"{name} must be a secateur.{wanted.__name__}, got {type(value).__name__}."
        )


def _check_backend() -> None:
    if keras.backend.backend() != "tensorflow":
        raise UnsupportedModelError(
            "Generating follows gradients, which are taken by TensorFlow, but Keras runs on "
            f"{keras.backend.backend()}; set KERAS_BACKEND=tensorflow."
        )
