"""How data is split for a search: k folds, a splitter of scikit-learn, or one held-out part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import tree

from secateur.errors import ArgumentTypeError, InvalidArgumentError, MissingDependencyError


@dataclass(frozen=True)
class Fold:
    """Row numbers of one split.

    Attributes:
        train: Rows that may be trained and calibrated on.
        held_out: Rows that are scored.
    """

    train: np.ndarray[Any, np.dtype[np.intp]]
    held_out: np.ndarray[Any, np.dtype[np.intp]]


def make_folds(data: Any, splitter: Any, groups: Any = None, seed: int = 0) -> tuple[Fold, ...]:
    """Split data.

    Args:
        data: (x, y) or (x, y, sample_weight).
        splitter: A number k of folds (stratified where the labels are classes), a fraction to hold
            out once, a splitter of scikit-learn, or an iterable of (train, held-out) row numbers.
        groups: One label per sample; samples of one group never stand on both sides.
        seed: Of the shuffling.

    Raises:
        MissingDependencyError: scikit-learn is needed and not installed.
        InvalidArgumentError: A number that makes no sense, or a split without samples.

    Example:
        >>> folds = make_folds((np.zeros((6, 2)), np.array([0, 1] * 3)), 3)
        >>> [len(fold.held_out) for fold in folds]
        [2, 2, 2]
    """
    if not isinstance(data, tuple) or len(data) not in (2, 3):
        raise ArgumentTypeError("data must be arrays, (x, y) or (x, y, sample_weight).")
    labels = np.asarray(tree.flatten(data[1])[0])
    if isinstance(splitter, (int, float)) and not isinstance(splitter, bool):
        splitter = _by_number(splitter, labels, groups, seed)
    rows = np.arange(len(labels))
    if hasattr(splitter, "split"):
        splits = splitter.split(rows, labels, groups)
    elif isinstance(splitter, Sequence) or hasattr(splitter, "__iter__"):
        splits = splitter
    else:
        raise ArgumentTypeError(
            "splitter must be a number of folds, a fraction, a splitter of scikit-learn or pairs of "
            f"row numbers; got {type(splitter).__name__}."
        )
    folds = tuple(Fold(np.asarray(one), np.asarray(two)) for one, two in splits)
    if not folds or any(not len(f.train) or not len(f.held_out) for f in folds):
        raise InvalidArgumentError("A fold holds no samples; give fewer folds or more data.")
    return folds


def part(data: Any, rows: Any) -> Any:
    """The samples of these rows."""
    return tree.map_structure(lambda leaf: np.asarray(leaf)[rows], data)


def _by_number(number: float, labels: Any, groups: Any, seed: int) -> Any:
    try:
        from sklearn import model_selection as sk
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "Splitting data needs scikit-learn; install it with: pip install 'secateur[search]', or "
            "pass pairs of row numbers as splitter."
        ) from error
    classes = labels.ndim == 1 and labels.dtype.kind in "iub"
    if isinstance(number, int):
        if number < 2:
            raise InvalidArgumentError(f"At least 2 folds are needed, got {number}.")
        if groups is not None:
            kind = sk.StratifiedGroupKFold if classes else sk.GroupKFold
            return kind(number, shuffle=True, random_state=seed)
        return (sk.StratifiedKFold if classes else sk.KFold)(
            number, shuffle=True, random_state=seed
        )
    if not 0 < number < 1:
        raise InvalidArgumentError(f"A fraction to hold out lies between 0 and 1, got {number}.")
    if groups is not None:
        return sk.GroupShuffleSplit(1, test_size=number, random_state=seed)
    kind = sk.StratifiedShuffleSplit if classes else sk.ShuffleSplit
    return kind(1, test_size=number, random_state=seed)
