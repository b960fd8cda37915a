"""Whether validation samples were trained on."""

from __future__ import annotations

import hashlib
import warnings
from typing import Any

import numpy as np
from keras import tree

from secateur.errors import DataOverlapWarning


def warn_of_overlap(train: Any, validation: Any) -> None:
    """Warn if inputs of the validation data occur in the training data, bit for bit.

    Args:
        train: (x, y, ...) arrays; anything else is not looked into.
        validation: The same.

    Warns:
        DataOverlapWarning: Says how many.
    """
    if not (isinstance(train, tuple) and isinstance(validation, tuple)):
        return
    known = set(_digests(train[0]))
    held_out = _digests(validation[0])
    shared = sum(digest in known for digest in held_out)
    if shared:
        warnings.warn(
            f"{shared} of {len(held_out)} validation samples occur in the training data, too: what "
            "is measured on them says little of new data. Remove duplicates before splitting.",
            DataOverlapWarning,
            stacklevel=4,
        )


def _digests(inputs: Any) -> list[bytes]:
    """One digest for each sample."""
    leaves = [np.ascontiguousarray(leaf) for leaf in tree.flatten(inputs)]
    if any(leaf.dtype.hasobject for leaf in leaves):
        leaves = [leaf.astype(np.bytes_) if leaf.dtype.hasobject else leaf for leaf in leaves]
    return [
        hashlib.blake2b(b"".join(leaf[row].tobytes() for leaf in leaves), digest_size=16).digest()
        for row in range(len(leaves[0]))
    ]
