"""Rules for dense layers, embeddings and products of matrices."""

from __future__ import annotations

from typing import Any

from secateur.keras.cut_rules.site import Kept, Site
from secateur.keras.cut_rules.table import layer
from secateur.network import MaybeLabels

_MIXING = {"softmax", "log_softmax", "sparsemax", "glu"}
_ELEMENTWISE = {
    "linear", "relu", "relu6", "sigmoid", "tanh", "softplus", "softsign", "silu", "swish", "gelu", "elu",
    "selu", "celu", "exponential", "leaky_relu", "mish", "hard_sigmoid", "hard_silu", "hard_swish",
    "hard_tanh", "hard_shrink", "soft_shrink", "tanh_shrink", "squareplus", "log_sigmoid",
    "sparse_plus", "sparse_sigmoid", "threshold",
}  # fmt: skip


def activation_mixes(function: Any) -> str:
    """Why an activation needs all positions of the last axis, or "" if it works value by value."""
    name = getattr(function, "__name__", type(function).__name__)
    module = getattr(function, "__module__", "") or ""
    if name in _ELEMENTWISE or function is None:
        return ""
    if name in _MIXING:
        return f"{name} runs over this axis"
    if module.startswith("keras."):
        return ""
    return f"the activation {name} is not known to work value by value"


def activate(site: Site, labels: MaybeLabels, function: Any) -> None:
    """Freeze an axis under an activation that mixes its positions."""
    why = activation_mixes(function)
    if why:
        site.freeze(labels, f"{site.name}: {why}")


@layer("Dense")
def dense(site: Site) -> None:
    """`y = activation(x @ kernel + bias)`: takes slots on the last axis, makes `units` new ones."""
    dense_layer = site.operation
    *lead, features = site.axes()
    units = site.fresh(dense_layer.units, "neuron")
    site.weight(dense_layer._kernel, features, units)
    site.weight(dense_layer.bias, units)
    activate(site, units, dense_layer.activation)
    site.output(*lead, units)
    site.resize(lambda kept: {"units": kept.count(units)})


@layer("Embedding")
def embedding(site: Site) -> None:
    """Rows of a table: makes `output_dim` slots."""
    table = site.operation
    width = site.fresh(table.output_dim, "embedding")
    site.weight(table._embeddings, None, width)
    site.output(*(None for _ in site.axes()), width)
    site.resize(lambda kept: {"output_dim": kept.count(width)})


@layer("ReversibleEmbedding")
def reversible_embedding(site: Site) -> None:
    """Rows of a table forward; in reverse, scores against every row."""
    table = site.operation
    reverse = site.argument("reverse", 1, False)
    if reverse:
        *lead, features = site.axes()
        site.weight(table._embeddings, None, features) if table.tie_weights else None
        if not table.tie_weights:
            site.weight(table.reverse_embeddings, features, None)
        site.output(*lead, None)
        site.resize(lambda kept: {"output_dim": kept.count(features, table.output_dim)})
        return
    width = site.fresh(table.output_dim, "embedding")
    site.weight(table._embeddings, None, width)
    if not table.tie_weights:
        site.weight(table.reverse_embeddings, width, None)
    site.output(*(None for _ in site.axes()), width)
    site.resize(lambda kept: {"output_dim": kept.count(width)})


@layer("EinsumDense")
def einsum_dense(site: Site) -> None:
    """Dense over any axes: letters that only kernel and output share are new slots.

    Of several new axes that stand together (heads and their width, say) the first is the one that
    is cut.
    """
    own = site.operation
    x, kernel, out = split_equation(own.equation, site.rank)
    labels: dict[str, MaybeLabels] = dict(zip(x, site.axes(), strict=True))
    sizes = dict(zip(kernel, own._kernel.shape, strict=True))
    new = [letter for letter in out if letter in kernel and letter not in x]
    for letter in new:
        labels[letter] = site.fresh(sizes[letter], "neuron" if len(new) == 1 else "head")
    for letter in new[1:]:
        site.freeze(
            labels[letter], f"{site.name}: another axis of the same kernel is the one that is cut"
        )
    site.weight(own._kernel, *(labels[letter] for letter in kernel))
    if own.bias is not None:
        axes = [letter for letter in out if letter in (own.bias_axes or "")]
        full: list[MaybeLabels] = [labels[letter] for letter in axes]
        site.weight(own.bias, *full, *(None for _ in own.bias.shape[len(full) :]))
    activate(site, labels[out[-1]], own.activation)
    site.output(*(labels[letter] for letter in out))
    shape = own.partial_output_shape
    tail = out[len(out) - len(shape) :]

    def change(kept: Kept) -> dict[str, Any]:
        sized = [
            None if size is None else kept.count(labels[letter], size)
            for size, letter in zip(shape, tail, strict=True)
        ]
        return {"output_shape": tuple(sized)}

    site.resize(change)


def split_equation(equation: str, rank: int) -> tuple[str, str, str]:
    """Letters of input, kernel and output, with "..." spelled out in capitals.

    Example:
        >>> split_equation("...x,xy->...y", 3)
        ('ABx', 'xy', 'ABy')
    """
    left, out = equation.replace(" ", "").split("->")
    x, kernel = left.split(",")
    missing = rank - len(x.replace("...", ""))
    spelled = "ABCDEFGHIJKLMNOP"[:missing]
    return x.replace("...", spelled), kernel, out.replace("...", spelled)
