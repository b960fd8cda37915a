"""What pruning did to each tensor, as values that print as a table and turn into JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TensorReport:
    """One tensor before and after.

    Attributes:
        name: Name of the tensor.
        shape: Its shape.
        dtype: Its dtype.
        size: Number of weights.
        num_zeros: Weights that are zero now.
        asked_sparsity: Fraction asked for in the group it was ranked with; None for a threshold.
        threshold: Saliency below which weights (or blocks) went; None where the pattern is the
            target or nothing went.
        largest_removed: Largest saliency that went, None if nothing did.
        smallest_kept: Smallest saliency that stayed, None if nothing did.
        num_removed: Weights that went (some may have been zero before).
        relative_error: Part of the energy of what the matrix puts out on the calibration data that is
            lost, 0 = nothing; None without data.
        bias_refitted: Whether the bias behind it was changed to make up for a part of that.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    size: int
    num_zeros: int
    num_removed: int
    asked_sparsity: float | None
    threshold: float | None
    largest_removed: float | None
    smallest_kept: float | None
    relative_error: float | None = None
    bias_refitted: bool = False

    @property
    def reached_sparsity(self) -> float:
        """Fraction of weights that are zero now, 0 to 1 (0 for an empty tensor)."""
        return self.num_zeros / self.size if self.size else 0.0


@dataclass(frozen=True)
class Left:
    """Something that was left as it is, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class PruneReport(Sequence[TensorReport]):
    """Reports of all tensors, in order, and what else there is to say.

    Attributes:
        tensors: What was pruned.
        left: What was left as it is, and why.
        refitted: Biases, scales and offsets that were changed to make up for what went.

    Example:
        >>> report = PruneReport((TensorReport("w", (4,), "float32", 4, 2, 2, 0.5, 2.0, 1.0, 2.0),))
        >>> report.sparsity
        0.5
        >>> report["w"].num_zeros
        2
    """

    tensors: tuple[TensorReport, ...]
    left: tuple[Left, ...] = ()
    refitted: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Number of weights in the tensors that were pruned."""
        return sum(tensor.size for tensor in self.tensors)

    @property
    def num_zeros(self) -> int:
        """Number of zeros in the tensors that were pruned."""
        return sum(tensor.num_zeros for tensor in self.tensors)

    @property
    def sparsity(self) -> float:
        """Fraction of zeros over the tensors that were pruned."""
        return self.num_zeros / self.size if self.size else 0.0

    def __len__(self) -> int:
        return len(self.tensors)

    def __iter__(self) -> Iterator[TensorReport]:
        return iter(self.tensors)

    def __getitem__(self, key: Any) -> Any:
        """A tensor's report by name or position."""
        if isinstance(key, str):
            for tensor in self.tensors:
                if tensor.name == key:
                    return tensor
            raise KeyError(f"{key!r} was not pruned; these were: {[t.name for t in self.tensors]}")
        return self.tensors[key]

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries and lists, ready for JSON."""
        return {
            "size": self.size,
            "num_zeros": self.num_zeros,
            "sparsity": self.sparsity,
            "tensors": [
                {**asdict(tensor), "reached_sparsity": tensor.reached_sparsity}
                for tensor in self.tensors
            ],
            "left": [asdict(left) for left in self.left],
            "refitted": list(self.refitted),
        }

    def __str__(self) -> str:
        with_data = any(tensor.relative_error is not None for tensor in self.tensors)
        last = ("error", "bias") if with_data else ("threshold", "removed <=", "kept >=")
        rows: list[tuple[str, ...]] = [("tensor", "shape", "asked", "reached", *last)]
        rows += [_row(tensor, with_data) for tensor in self.tensors]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        lines.append(f"{self.num_zeros:,} of {self.size:,} weights are zero ({self.sparsity:.2%})")
        if self.refitted:
            lines.append(f"{len(self.refitted)} biases, scales and offsets make up for it")
        lines += [f"left as it is: {left.name}: {left.reason}" for left in self.left]
        return "\n".join(lines)


def _row(tensor: TensorReport, with_data: bool) -> tuple[str, ...]:
    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    first = (
        tensor.name,
        "x".join(map(str, tensor.shape)) or "()",
        number(tensor.asked_sparsity, ".2%"),
        format(tensor.reached_sparsity, ".2%"),
    )
    if with_data:
        bias = "refitted" if tensor.bias_refitted else "-"
        return (*first, number(tensor.relative_error, ".4f"), bias)
    return (
        *first,
        number(tensor.threshold, ".4g"),
        number(tensor.largest_removed, ".4g"),
        number(tensor.smallest_kept, ".4g"),
    )
