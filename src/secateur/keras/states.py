"""States of a recurrent layer before each step: what its recurrent kernel takes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src import backend

from secateur.arrays import Array
from secateur.keras.flatten import twin


def previous_states(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Array:
    """The state h before each step.

    Args:
        layer: LSTM, GRU, SimpleRNN, ConvLSTM, or an RNN of one stock cell.
        args: Positional arguments of its call: the inputs, perhaps the initial states.
        kwargs: Keyword arguments of its call.

    Returns:
        (batch, time, units...), float; time in the order of the inputs, also where the layer runs
        backwards.
    """
    whole = twin(layer, return_sequences=True, return_state=False, stateful=False)
    after = np.asarray(ops.convert_to_numpy(whole(*args, **{**kwargs, "training": False})))
    initial = kwargs.get("initial_state", args[1] if len(args) > 1 else None)
    first = np.zeros_like(after[:, :1])
    if initial is not None:
        state = initial[0] if isinstance(initial, (list, tuple)) else initial
        first = np.asarray(ops.convert_to_numpy(state))[:, None]
    before = np.concatenate([first, after[:, :-1]], axis=1)
    return before[:, ::-1] if layer.go_backwards else before


def reset_states(cell: keras.layers.GRUCell, x: Array, before: Array) -> Array:
    """The reset gate times the state: what the candidate's kernel of a classic GRU takes.

    Args:
        cell: With `reset_after=False`.
        x: (batch, time, in).
        before: (batch, time, units), see `previous_states`.

    References:
        Cho et al. (arXiv 1406.1078), eq. 8.
    """
    units = slice(cell.units, 2 * cell.units)
    gate = x @ _value(cell.kernel)[:, units] + before @ _value(cell.recurrent_kernel)[:, units]
    if cell.bias is not None:
        gate = gate + _value(cell.bias)[units]
    reset = ops.convert_to_numpy(cell.recurrent_activation(ops.convert_to_tensor(gate)))
    return np.asarray(reset * before)


def _value(variable: Any) -> Array:
    return np.asarray(ops.convert_to_numpy(backend.convert_to_tensor(variable)))
