"""Whether a trace is what the model does: the flat calls against the model's own call, nothing cut."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import tree

from secateur.errors import UnsupportedModelError
from secateur.keras.graph import Graph
from secateur.keras.proof import relative_difference, tolerance_of
from secateur.keras.running import run_graph


def check_trace(graph: Graph, samples: Any) -> None:
    """Compare the flat calls with the model itself.

    The proof compares a cut model with flat calls; a `call` that depends on something else than its
    tensors (their values, say, or the clock) would be traced wrongly, and both would be wrong alike.

    Args:
        graph: The flat model.
        samples: Inputs, nested as the model takes them.

    Raises:
        UnsupportedModelError: The outputs differ.
    """
    model = graph.model
    expected = tree.flatten(model(samples, training=False))
    try:
        found = tree.flatten(run_graph(graph, samples))
    except Exception as error:
        raise _unlike(model, f"running it raised {type(error).__name__}: {error}") from error
    differences = [relative_difference(one, two) for one, two in zip(found, expected, strict=True)]
    if np.isnan(differences).any():
        return  # NaN on these samples: measuring and the proof say so, and where.
    worst, tolerance = max(differences, default=0.0), tolerance_of(graph)
    if not worst <= tolerance:
        raise _unlike(model, f"outputs differ by {worst:.3g} relative, more than {tolerance:g}")


def _unlike(model: Any, what: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"Model {model.name!r} was traced, but what was traced is not what the model does: {what}. A "
        "`call` may decide by values, slice arrays by sizes that only the data tells, or use functions "
        "other than keras.ops: write it with keras.ops on tensors alone, or register a rule for its "
        "layer (secateur.register_rule)."
    )
