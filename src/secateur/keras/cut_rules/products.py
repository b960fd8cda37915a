"""Rules for products of tensors: matmul, einsum, dot, tensordot."""

from __future__ import annotations

from typing import Any

import numpy as np

from secateur.keras.cut_rules.site import Kept, Site, is_array
from secateur.keras.cut_rules.table import layer, op
from secateur.keras.flatten import Tensor
from secateur.network import MaybeLabels


def contract(site: Site, operands: list[Any], letters: list[str], out: str) -> None:
    """Axes with one letter are tied; letters that are summed away are marked as mixed."""
    found: dict[str, MaybeLabels] = {}
    seen: dict[str, int] = {}
    for operand, names in zip(operands, letters, strict=True):
        if not isinstance(operand, Tensor):
            continue
        for name, labels, size in zip(names, site.axes(operand), operand.shape, strict=True):
            if size == 1 and name not in found:
                continue
            if name not in seen:
                found[name], seen[name] = labels, 1
                continue
            seen[name] += 1
            if found[name] is not None or labels is not None:
                found[name] = site.tie(found[name], labels)
    if sum(isinstance(operand, Tensor) for operand in operands) > 1:
        for name, count in seen.items():
            if name not in out and count > 1:
                site.network.mix(found[name])
    site.output(*(found.get(name) for name in out))

    def rearranged(kept: Kept) -> tuple[tuple[Any, ...], dict[str, Any]]:
        cut = [
            kept.take(operand, [found.get(name) for name in names])
            if is_array(operand)
            else operand
            for operand, names in zip(operands, letters, strict=True)
        ]
        return tuple(cut), {}

    if any(is_array(operand) for operand in operands):
        site.rearrange(rearranged)


@op("Matmul")
def matmul(site: Site) -> None:
    """(..., n, k) @ (..., k, m)."""
    one, two = site.argument("x1", 0), site.argument("x2", 1)
    ranks = len(one.shape), len(two.shape)
    lead = "abcdefgh"
    out_rank = len(site.call.outputs[0].shape)
    if ranks[1] == 1:
        contract(site, [one, two], [lead[: ranks[0] - 1] + "k", "k"], lead[: ranks[0] - 1])
        return
    if ranks[0] == 1:
        names = lead[: ranks[1] - 2]
        contract(site, [one, two], ["k", names + "km"], names + "m")
        return
    names = lead[: out_rank - 2]
    first = names[len(names) - (ranks[0] - 2) :] + "nk"
    second = names[len(names) - (ranks[1] - 2) :] + "km"
    contract(site, [one, two], [first, second], names + "nm")


@op("Einsum")
def einsum(site: Site) -> None:
    """Any equation, "..." spelled out in capitals."""
    equation = site.operation.subscripts.replace(" ", "")
    operands = list(site.call.args)
    if "->" not in equation:
        site.wall("an einsum without an explicit output")
        return
    left, out = equation.split("->")
    spelled = "ZYXWVUTS"
    letters = []
    longest = 0
    for names, operand in zip(left.split(","), operands, strict=True):
        missing = len(operand.shape) - len(names.replace("...", ""))
        longest = max(longest, missing) if "..." in names else longest
        letters.append(names.replace("...", spelled[len(spelled) - missing :] if missing else ""))
    contract(
        site,
        operands,
        letters,
        out.replace("...", spelled[len(spelled) - longest :] if longest else ""),
    )
    for operand, names in zip(operands, letters, strict=True):
        if isinstance(operand, Tensor) and len(set(names)) < len(names):
            site.wall("an einsum that takes a diagonal")


@op("Tensordot")
def tensordot(site: Site) -> None:
    """Sums over pairs of axes."""
    one, two = site.argument("x1", 0), site.argument("x2", 1)
    axes = site.operation.axes
    ranks = len(one.shape), len(two.shape)
    if isinstance(axes, int):
        pairs = list(zip(range(ranks[0] - axes, ranks[0]), range(axes), strict=True))
    else:
        first, second = (np.atleast_1d(a).tolist() for a in axes)
        pairs = [(i % ranks[0], j % ranks[1]) for i, j in zip(first, second, strict=True)]
    left = [chr(97 + i) for i in range(ranks[0])]
    right = [chr(65 + j) for j in range(ranks[1])]
    for i, j in pairs:
        right[j] = left[i]
    out = [n for n in left if n not in right] + [n for n in right if n not in left]
    contract(site, [one, two], ["".join(left), "".join(right)], "".join(out))


@op("Outer")
def outer(site: Site) -> None:
    """Two tensors, flattened, to a matrix of all products."""
    one, two = site.argument("x1", 0), site.argument("x2", 1)
    if any(not isinstance(x, Tensor) or len(x.shape) != 1 for x in (one, two)):
        site.wall("multiplies flattened tensors")
        return
    site.output(site.axes(one)[0], site.axes(two)[0])


@op("Dot")
def dot(site: Site) -> None:
    """(..., k) . (..., k, m)."""
    one, two = site.argument("x1", 0), site.argument("x2", 1)
    if len(two.shape) != 2 or len(one.shape) < 2:
        site.wall("a dot product of these ranks is not known")
        return
    names = "abcdefgh"[: len(one.shape) - 1]
    contract(site, [one, two], [names + "k", "km"], names + "m")


@layer("Dot")
def dot_layer(site: Site) -> None:
    """Sums over one axis of each of two tensors, batch by batch."""
    one, two = site.argument("inputs", 0)
    if site.operation.normalize:
        site.wall("normalises what it sums")
        return
    axes = site.operation.axes
    first, second = (axes, axes) if isinstance(axes, int) else axes
    left = ["b", *(chr(99 + i) for i in range(1, len(one.shape)))]
    right = ["b", *(chr(67 + j) for j in range(1, len(two.shape)))]
    right[second % len(two.shape)] = left[first % len(one.shape)]
    kept_left = [n for n in left if n not in right[1:]]
    out = kept_left + [n for n in right[1:] if n not in left]
    if len(out) == 1:
        out.append("#")
    contract(site, [one, two], ["".join(left), "".join(right)], "".join(out))
    site.argument_change = None
