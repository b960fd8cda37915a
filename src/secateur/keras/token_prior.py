"""Which token ids are likely, as far as a table of embeddings tells."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata, spearmanr

from secateur.arrays import Array

_WORDS = 256
_CLEAR = 5.0


def likely_ids(table: Array, ids: Array) -> Array:
    """Probabilities of ids, by Zipf's law over a rank that the table tells.

    Most vocabularies list frequent words first. Whether this one does shows in its table, since rows
    that were trained often lie elsewhere than those that were not: where their distance from the mean
    has a clear trend along the ids (Spearman's rho beyond five standard errors), the rank is the order
    of ids. Else it is the order of distances, the farthest row, which training moved most, first.
    Tables of fewer than 256 rows are of letters or categories, of which Zipf's law says nothing: all
    are alike.

    Args:
        table: (vocabulary, width) float.
        ids: The ids that may come, ascending.

    Returns:
        (len(ids),) float64, sums to 1.

    References:
        Mandelbrot (1953), "An informational theory of the statistical structure of language": the share
        of the word of rank r is about 1 / (r + 2.7).

    Example:
        >>> likely_ids(np.zeros((4, 2)), np.array([1, 2])).tolist()
        [0.5, 0.5]
    """
    if len(ids) < _WORDS:
        return np.full(len(ids), 1 / len(ids))
    rows = table[ids].astype(np.float64)
    distances = np.linalg.norm(rows - rows.mean(axis=0), axis=1)
    rank = np.arange(len(ids))
    if abs(spearmanr(rank, distances).statistic) * np.sqrt(len(ids)) <= _CLEAR:
        rank = rankdata(-distances, "ordinal") - 1
    shares = 1 / (rank + 2.7)
    return np.asarray(shares / shares.sum())
