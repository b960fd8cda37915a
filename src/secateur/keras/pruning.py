"""`prune` and `plan_prune` for Keras models, with data and without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from secateur.activation_store import GIGABYTE
from secateur.arguments import check_callable, check_switch
from secateur.criteria import Criterion
from secateur.data_criteria import DataCriterion
from secateur.data_plan import DataPrunePlan
from secateur.errors import InvalidArgumentError
from secateur.keras import weight_pruning
from secateur.keras.choosing import Selection, Selectors
from secateur.keras.cloning import clone_model
from secateur.keras.data import first_batch
from secateur.keras.data_jobs import OnData
from secateur.keras.data_pruning import Calibration
from secateur.keras.results import Result
from secateur.keras.walk import is_graph
from secateur.keras.weight_pruning import How, prepare
from secateur.patterns import Pattern, parse_pattern
from secateur.plan import PrunePlan
from secateur.pruning import Progress, Request, warn_if_short
from secateur.recipes import Method, weight_criterion
from secateur.reconstruction import Solver
from secateur.report import Left
from secateur.selection import Norm

if TYPE_CHECKING:
    from secateur.keras.protocols import Model


@dataclass(frozen=True)
class ModelPrunePlan:
    """What is to go from a model, and why; nothing has changed yet.

    Attributes:
        model: The model it was made for.
        plan: The decisions; `plan.to_json()` saves them.
        left: What will be left as it is, with the reason.
    """

    model: Any
    plan: PrunePlan
    left: tuple[Left, ...]

    def apply(self, *, inplace: bool = False) -> Result:
        """Prune a copy of the model, or with `inplace` the model itself.

        Raises:
            InvalidArgumentError: The model's weights no longer have the shapes the plan was made for.
        """
        target = self.model if inplace else clone_model(self.model)
        return weight_pruning.apply(self.plan, target, self.left, None, None)

    def __str__(self) -> str:
        return _with_left(str(self.plan), self.left)


@dataclass(frozen=True, eq=False)
class DataModelPrunePlan:
    """What pruning on data is to do to a model; nothing has changed yet.

    Attributes:
        model: The model it was made for.
        plan: How much of each weight goes, and by which method.
        left: What will be left as it is, with the reason.
    """

    model: Any
    plan: DataPrunePlan
    left: tuple[Left, ...]
    _asked: OnData

    def apply(self, *, inplace: bool = False) -> Result:
        """Prune a copy of the model, or with `inplace` the model itself: the data goes through it.

        Raises:
            NonFiniteError, FactorisationError: As for `prune`.
        """
        target = self.model if inplace else clone_model(self.model)
        return self._asked.run(target, self.plan, restores=inplace)

    def __str__(self) -> str:
        return _with_left(str(self.plan), self.left)


def _with_left(text: str, left: tuple[Left, ...]) -> str:
    return "\n".join([text, *(f"  left as it is: {own.name}: {own.reason}" for own in left)])


def prune(
    model: Model,
    *,
    sparsity: float | Mapping[Any, float] | None = None,
    threshold: float | None = None,
    count: int | None = None,
    criterion: str | Criterion | DataCriterion | None = None,
    pattern: str | Pattern = "unstructured",
    scope: str | Mapping[Any, str] | None = None,
    norm: Norm = "l2",
    include: Selectors = None,
    exclude: Selectors = None,
    data: Any = None,
    reconstruction: str | Solver | None = None,
    allocation: str | None = None,
    damping: float | None = None,
    asymmetric: bool | None = None,
    refit_bias: bool | None = None,
    refit_norms: bool | None = None,
    mask: Any = None,
    batch_size: int = 32,
    max_samples: int | None = None,
    memory: int = GIGABYTE,
    inplace: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Zero the least salient weights of a Keras model; with data, make up for them with the others.

    Kernels of dense, convolutional, recurrent and attention layers are pruned, wherever they stand in
    nested models and wrappers; embeddings and custom weights if `include` names them; biases and
    normalisation only by their own name ("dense/bias").

    Args:
        model: A built model: Sequential, functional or subclassed. A subclassed model comes back as a
            functional model of the same layers (unless `inplace`).
        sparsity: Fraction of zeros, 0 to 1: exactly `round(sparsity * size)` go, of all chosen weights
            or of each group of `scope`. Or a mapping of layer name, weight name or pattern to the
            fraction for each of its weights; what it does not name is left.
        threshold: Weights with a saliency strictly below go.
        count: Exactly this many weights (or blocks) go, of each group of `scope`.
        criterion: Without data "magnitude" (default), "random", "path" (for models that are one chain
            of Dense layers) or a `Criterion`. With data also "wanda", "ria", "obs", "sparsegpt", with
            labels "taylor" and "fisher", or a `DataCriterion`; left out, "admm" chooses and repairs
            together, the best there is.
        pattern: "unstructured", "n:m" (n kept of m consecutive inputs; its own target) or "block:RxC"
            (R outputs by C inputs).
        scope: What is ranked together: "global" (default without data), "layer" (each weight matrix
            alone; default with data), "row" (each output alone), or a mapping of layer name or pattern
            to the name of a group.
        norm: How a block's saliency is made of its weights': "l1" or "l2".
        include: Layers, layer types, names or patterns: only these. Default: every weight matrix but
            embeddings.
        exclude: The same, for what to leave.
        data: Calibration samples: an array, a list or dict of arrays, a generator, a tf.data.Dataset or
            PyDataset. A few hundred will do, more is better. Labels, as in (x, y), are only looked at by
            "taylor" and "fisher".
        reconstruction: What makes up for what goes: "refit" (least squares on what is left),
            "sparsegpt", "admm", a `Solver`, or "none". Default: with a criterion as published, else
            "admm".
        allocation: How one sparsity is shared out over the weights: "loss" (by what the model's outputs
            lose when one weight alone is pruned; default where weights are repaired by a method of
            ours), "uniform" (default of published methods), "erk", "lamp", "owl" or "global" (by
            normalised OBS losses).
        damping: How strongly weights are held to what they were: a part of the inputs' mean squares.
            Default 0.2; for published methods what their papers say, 0.01 (0.1 with `asymmetric`).
        asymmetric: Keep the given network's outputs, fed with what the pruned one makes of the data so
            far. Default: wherever weights are repaired by a method of ours. Those also make up for what
            a residual stream has lost, where a layer's output is added to one.
        refit_bias: Whether the bias behind a weight changes, too. Default: as `asymmetric`.
        refit_norms: Whether scales and offsets of layer normalisations change, too, to bring what they
            put out near what it was. Default: as `asymmetric`.
        mask: Which positions of padded data are real, where neither Keras masks nor a `mask=` in the
            model say so: an array (samples, time), or the name of the input that is the mask.
        batch_size: For data given as arrays. The result does not depend on it beyond rounding.
        max_samples: Read no more than so many samples.
        memory: Bytes of activations kept in memory; the rest goes to a temporary file.
        inplace: Change the model given instead of a copy.
        progress: Called with each weight's name when it is done; with allocation "loss" once more
            before, when what it costs has been measured.

    Returns:
        `.model`, `.masks`, `.report` and `.plan`. A compiled model stays compiled, with its optimizer's
        state.

    Raises:
        UnsupportedModelError: The model is not built, or cannot be copied or traced.
        InvalidArgumentError: No target, more than one, or out of range; a name that matches nothing;
            data that does not fit the model, or says nothing of a weight that is named.
        NonFiniteError: A weight is NaN or infinite, or what goes into one; the message names it and
            nothing was changed.
        FactorisationError: The data says too little for this `damping`.

    Warns:
        TargetNotReachedWarning: Fewer weights are zero than asked for; it says why.
        CalibrationWarning: Fewer samples than the method needs.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="out")])
        >>> result = prune(model, sparsity=0.75)
        >>> result.report["out/kernel"].num_zeros
        24
    """
    check_switch("inplace", inplace)
    check_callable("progress", progress, "progress(name)")
    how, selection = How(sparsity, threshold, count, scope), Selection(include, exclude)
    method = Method(criterion, reconstruction, damping, asymmetric, refit_bias, refit_norms)
    calibration = Calibration(data, mask, batch_size, max_samples, memory)
    asked = OnData(how, selection, parse_pattern(pattern), norm, method, allocation, calibration)
    if data is not None:
        target = model if inplace else _clone(model, data)
        return asked.run(target, None, progress, restores=inplace)
    target = model if inplace else clone_model(model)
    prepared = prepare(target, _without_data(asked), how, selection)
    result = weight_pruning.apply(prepared.plan, target, prepared.left, prepared, progress)
    warn_if_short(prepared.plan, result.report)
    return result


def plan_prune(
    model: Model,
    *,
    sparsity: float | Mapping[Any, float] | None = None,
    threshold: float | None = None,
    count: int | None = None,
    criterion: str | Criterion | DataCriterion | None = None,
    pattern: str | Pattern = "unstructured",
    scope: str | Mapping[Any, str] | None = None,
    norm: Norm = "l2",
    include: Selectors = None,
    exclude: Selectors = None,
    data: Any = None,
    reconstruction: str | Solver | None = None,
    allocation: str | None = None,
    damping: float | None = None,
    asymmetric: bool | None = None,
    refit_bias: bool | None = None,
    refit_norms: bool | None = None,
    mask: Any = None,
    batch_size: int = 32,
    max_samples: int | None = None,
    memory: int = GIGABYTE,
) -> ModelPrunePlan | DataModelPrunePlan:
    """Decide what `prune` would remove, and change nothing.

    Args, Raises: As for `prune`.

    Returns:
        A plan that prints, turns into JSON (`.plan.to_json()`) and can be applied (`.apply()`). With
        data it says how much of each weight goes; which, comes out when it is applied.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="out")])
        >>> plan = plan_prune(model, threshold=0.01)
        >>> plan.apply().report.size
        32
    """
    how, selection = How(sparsity, threshold, count, scope), Selection(include, exclude)
    method = Method(criterion, reconstruction, damping, asymmetric, refit_bias, refit_norms)
    calibration = Calibration(data, mask, batch_size, max_samples, memory)
    asked = OnData(how, selection, parse_pattern(pattern), norm, method, allocation, calibration)
    # A subclassed model's weights get other names once it is traced, so the plan is for the trace.
    target = model if is_graph(model) else _clone(model, data)
    if data is not None:
        plan, left = asked.decide(target)
        return DataModelPrunePlan(target, plan, left, asked)
    prepared = prepare(target, _without_data(asked), how, selection)
    return ModelPrunePlan(target, prepared.plan, prepared.left)


def _clone(model: Model, data: Any) -> Model:
    """A copy to be changed; data tells what a subclassed model takes, where nothing else does."""
    if data is None or is_graph(model):
        return clone_model(model)
    return clone_model(model, input_spec=first_batch(data))


def _without_data(asked: OnData) -> Request:
    """The same request for weights alone; what only makes sense with data is refused."""
    given = {
        "reconstruction": asked.method.reconstruction,
        "damping": asked.method.damping,
        "asymmetric": asked.method.asymmetric,
        "refit_bias": asked.method.refit_bias,
        "refit_norms": asked.method.refit_norms,
        "allocation": asked.allocation,
        "mask": asked.calibration.mask,
    }
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise InvalidArgumentError(
            f"{', '.join(names)} can only be used with data; pass calibration samples as data=..."
        )
    return Request(weight_criterion(asked.method.criterion), asked.pattern, asked.norm)
