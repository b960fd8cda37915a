"""Which units cost least when the weights that stay are refit: greedy removal with an exact update.

A layer reads units through columns of W (out, in); H is the damped covariance of its inputs. If the
columns c of one unit go and the others are refit by least squares, the squared error grows by

    tr(W_c (H^-1_cc)^-1 W_c^T),
    W <- W - W_c (H^-1_cc)^-1 H^-1_c:,    H^-1 <- H^-1 - H^-1_:c (H^-1_cc)^-1 H^-1_c:

so removing the cheapest unit again and again prices every further one given those that are gone. This is
OBS (Hassibi & Stork 1992) for groups of columns, as in ZipLM (arXiv 2302.04089), eq. 3 and algorithm 1.

Differs from the paper: units that several layers read are priced by the sum of their errors, each as a
part of its layer's output energy; only P = W^T W is updated, not W, so the cost does not depend on the
number of outputs; and updates are gathered and applied in blocks, as a blocked Cholesky factorisation
with pivoting does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from secateur.errors import FactorisationError, InvalidArgumentError

Float64: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

# Columns that are eliminated before the matrices are updated: few, so that those gathered stay in
# cache; enough, so that the update is one product of matrices.
_BLOCK = 64


@dataclass(frozen=True, eq=False)
class Readout:
    """How one weight matrix reads a group of units.

    Attributes:
        name: The layer, for messages.
        inverse: H^-1 at the columns of the units, (columns, columns) float64.
        products: P = W^T W at the same columns, (columns, columns) float64.
        columns: (units, span) columns of each unit.
        energy: What errors are divided by: the layer's output energy.
    """

    name: str
    inverse: Float64
    products: Float64
    columns: npt.NDArray[np.intp]
    energy: float


def greedy_removal(
    readouts: Sequence[Readout], num_removed: int | None = None
) -> tuple[npt.NDArray[np.intp], Float64]:
    """Remove units one by one, each time the one that costs least given those that are gone.

    Args:
        readouts: The matrices that read the units, one or more.
        num_removed: How many go; None for all but one.

    Returns:
        The units in the order in which they go, those that stay last by what each would cost next; and
        the error after each (of those that stay, if it went next), summed over the readouts, each as a
        part of its energy. The errors never fall. Of equal costs the earlier unit goes first.

    Raises:
        InvalidArgumentError: No readouts, or of different numbers of units.
        FactorisationError: An H^-1 is not positive definite.

    Example:
        >>> inverse, products = np.eye(3), np.diag([3.0, 1.0, 2.0])
        >>> readout = Readout("", inverse, products, np.arange(3)[:, None], 6.0)
        >>> order, errors = greedy_removal([readout])
        >>> order, errors
        (array([1, 2, 0]), array([0.16666667, 0.5       , 1.        ]))
    """
    counts = {len(readout.columns) for readout in readouts}
    if len(counts) != 1:
        raise InvalidArgumentError(
            f"Readouts must read the same units, at least one; they read {sorted(counts)} units."
        )
    (num_units,) = counts
    wanted = num_units - 1 if num_removed is None else min(num_removed, num_units - 1)
    states = [_Elimination(readout) for readout in readouts]
    gone = np.zeros(num_units, np.bool_)
    order: list[int] = []
    errors: list[float] = []
    total = 0.0
    for _ in range(wanted):
        costs = _costs(states, gone)
        unit = int(np.argmin(costs))
        total += float(costs[unit])
        gone[unit] = True
        order.append(unit)
        errors.append(total)
        for state in states:
            state.remove(unit)
    costs = _costs(states, gone)
    rest = np.argsort(costs, kind="stable")[: num_units - wanted]
    return np.array([*order, *rest], np.intp), np.array([*errors, *(total + costs[rest])])


def _costs(states: Sequence[_Elimination], gone: npt.NDArray[np.bool_]) -> Float64:
    """What each unit costs to remove next, at least 0; inf for those that are gone."""
    costs = np.sum([state.costs() for state in states], axis=0)
    return np.where(gone, np.inf, np.maximum(costs, 0.0))


class _Elimination:
    """H^-1 and P of one readout while units are eliminated from them.

    Of a unit with columns c, H^-1_cc = R R^T; L = H^-1_:c R^-T and D = P_:c R^-T - L M / 2 with
    M = R^-1 P_cc R^-T. Then H^-1 <- H^-1 - L L^T and P <- P - D L^T - L D^T. The columns of L and D are
    gathered and applied to the matrices a block at a time; the units' own diagonal blocks, from
    which costs are read, are kept up to date.
    """

    def __init__(self, readout: Readout) -> None:
        self.name = readout.name
        self.energy = readout.energy if readout.energy > 0 else 1.0
        self.inverse = readout.inverse.astype(np.float64)
        self.products = readout.products.astype(np.float64)
        self.columns = readout.columns.copy()
        self.alive = np.ones(len(readout.columns), np.bool_)
        index = self.columns[:, :, None], self.columns[:, None, :]
        self.inverse_blocks = self.inverse[index]  # (units, span, span)
        self.product_blocks = self.products[index]
        self._forget()

    def _forget(self) -> None:
        width = _BLOCK + self.columns.shape[1]
        self.gathered = 0
        self._left = np.empty((len(self.inverse), width), order="F")
        self._right = np.empty((len(self.inverse), width), order="F")

    @property
    def left(self) -> Float64:
        """Columns of L since the matrices were last updated."""
        return self._left[:, : self.gathered]

    @property
    def right(self) -> Float64:
        """Columns of D since then."""
        return self._right[:, : self.gathered]

    def costs(self) -> Float64:
        """Per unit, by how much the error grows if it goes next; 0 for those that are gone."""
        costs = np.zeros(len(self.columns))
        inverse, products = self.inverse_blocks[self.alive], self.product_blocks[self.alive]
        if inverse.shape[-1] == 1:
            costs[self.alive] = products[:, 0, 0] / inverse[:, 0, 0]
        else:
            solved = np.linalg.solve(inverse, products)
            costs[self.alive] = np.einsum("uii->u", solved)
        return costs / self.energy

    def remove(self, unit: int) -> None:
        """Eliminate a unit's columns."""
        own = self.columns[unit]
        inverse = self.inverse[:, own] - self.left @ self.left[own].T  # (columns, span)
        products = self.products[:, own] - self.right @ self.left[own].T
        products -= self.left @ self.right[own].T
        try:
            root = np.linalg.cholesky(inverse[own])
        except np.linalg.LinAlgError as error:
            raise FactorisationError(
                f"The inverse Hessian of layer {self.name!r} is not positive definite after "
                f"{np.count_nonzero(~self.alive)} units went. Raise damping (ten times as much is "
                "a good next try) or calibrate with more data."
            ) from error
        back = np.linalg.inv(root)
        left = inverse @ back.T
        middle = back @ products[own] @ back.T
        right = products @ back.T - left @ (middle / 2)
        new = slice(self.gathered, self.gathered + own.size)
        self._left[:, new], self._right[:, new] = left, right
        self.gathered += own.size
        self.alive[unit] = False
        one, two = left[self.columns], right[self.columns]  # (units, span, span of the removed)
        self.inverse_blocks -= one @ one.swapaxes(1, 2)
        cross = two @ one.swapaxes(1, 2)
        self.product_blocks -= cross + cross.swapaxes(1, 2)
        if self.gathered >= _BLOCK:
            self._apply()

    def _apply(self) -> None:
        """Apply what was gathered, and drop the columns of units that are gone."""
        stay = np.sort(self.columns[self.alive].reshape(-1))
        left, right = self.left[stay], self.right[stay]
        self.inverse = self.inverse[np.ix_(stay, stay)] - left @ left.T
        cross = right @ left.T
        self.products = self.products[np.ix_(stay, stay)] - cross - cross.T
        place = np.zeros(int(self.columns.max()) + 1, np.intp)
        place[stay] = np.arange(stay.size)
        self.columns = place[self.columns]  # of units that are gone: meaningless, never read
        self._forget()
