"""What a call's output is added to: the other operand of the sum that alone reads it."""

from __future__ import annotations

from collections.abc import Sequence

from secateur.keras.flatten import Graph, Tensor
from secateur.keras.matrix_calls import has_no_activation, puts_out_rows


def added_to(graph: Graph, number: int) -> Tensor | None:
    """The tensor that the output of a linear call is added to, if it is known before the call runs.

    Args:
        graph: A flat graph.
        number: Position of the call in it.

    Returns:
        The other operand of a sum of two tensors of one shape that alone reads the output, dropout in
        between aside; None where there is no such sum, or the output is not the matrix's product plus
        a bias, in the order of its rows.
    """
    own = graph.calls[number]
    if not (puts_out_rows(own) and has_no_activation(own)):
        return None
    made = {id(tensor): at for at, call in enumerate(graph.calls) for tensor in call.outputs}
    tensor = graph.calls[number].outputs[0]
    while True:
        readers = [call for call in graph.calls if any(own is tensor for own in call.inputs)]
        if len(readers) != 1 or any(own is tensor for own in graph.outputs):
            return None
        (reader,) = readers
        kind = type(reader.operation).__name__
        if kind == "Dropout":
            tensor = reader.outputs[0]
            continue
        others = [own for own in reader.inputs if own is not tensor]
        if kind != "Add" or len(reader.inputs) != 2 or len(others) != 1:
            return None
        (other,) = others
        known = made.get(id(other), -1) < number
        return other if known and _alike(other.shape, tensor.shape) else None


def _alike(one: Sequence[int | None], other: Sequence[int | None]) -> bool:
    """Whether two shapes are the same as far as they are known."""
    return len(one) == len(other) and all(
        None in pair or pair[0] == pair[1] for pair in zip(one, other, strict=True)
    )
