"""Axes of response tables, and linear interpolation between their nodes.

The rules are those of GADF readers in the field: ``LO == HI`` means nodes, otherwise bin centres
(geometric for energies, else arithmetic); linear extrapolation inside the outer half bins; nothing
beyond the edges; an axis of length 1 is constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class IrfAxis:
    """Nodes of one axis of a response table.

    Parameters
    ----------
    name : str
    nodes : ndarray, shape (N,)
        Positions at which the table holds values, increasing.
    edges : tuple of float
        Range in which the table is valid.
    log : bool
        Whether interpolation is linear in the logarithm (energies).
    """

    name: str
    nodes: FloatArray
    edges: tuple[float, float]
    bounds: FloatArray
    log: bool = False

    @classmethod
    def from_bounds(cls, name: str, low: ArrayLike, high: ArrayLike, log: bool = False) -> IrfAxis:
        """An axis from a table's ``_LO`` and ``_HI`` columns."""
        lo, hi = np.asarray(low, dtype=float).ravel(), np.asarray(high, dtype=float).ravel()
        if len(lo) != len(hi) or not len(lo) or not np.all(np.isfinite(lo) & np.isfinite(hi)):
            raise DataError(f"axis {name}: lower and upper bounds must be finite and as many")
        if np.array_equal(lo, hi):
            nodes, bounds = lo, lo
        else:
            bounds = np.append(lo, hi[-1])
            nodes = np.sqrt(lo * hi) if log else 0.5 * (lo + hi)
        if not np.all(np.diff(nodes) > 0) or (log and nodes[0] <= 0):
            raise DataError(f"axis {name}: values must increase, got {lo[:4].tolist()} …")
        return cls(name, nodes, (float(bounds[0]), float(bounds[-1])), bounds, log)

    def locate(self, values: ArrayLike) -> tuple[NDArray[np.intp], FloatArray, NDArray[np.bool_]]:
        """Lower node, fraction towards the next one, and whether inside the edges.

        Of the shape of ``values``; fractions beyond [0, 1] extrapolate.
        """
        at = np.asarray(values, dtype=float)
        nodes, slope, steps = self._places
        with np.errstate(invalid="ignore", divide="ignore"):
            inside = (at >= self.edges[0]) & (at <= self.edges[1])
            if len(nodes) == 1:
                return np.zeros(at.shape, dtype=np.intp), np.zeros(at.shape), inside
            if self.log:
                at = np.log(at)
            # Beyond the outer nodes the last piece goes on.
            if steps is None:
                index = np.searchsorted(nodes[1:-1], at, side="right")
            else:
                place = np.fmax(np.fmin((at - nodes[0]) * steps, len(nodes) - 2), 0)
                index = place.astype(np.intp)
            fraction = (at - nodes.take(index)) * slope.take(index)
        fraction[~inside] = 0.0
        return index, fraction, inside

    @cached_property
    def _places(self) -> tuple[FloatArray, FloatArray, float | None]:
        """Nodes as they are interpolated in, the inverse steps after each, and of all if even.

        Even but for the rounding of single precision, in which tables have them: what is that close
        to a node may be taken as on either side of it.
        """
        nodes = np.log(self.nodes) if self.log else self.nodes
        step = np.diff(nodes)
        even = len(step) > 0 and np.ptp(step) < 1e-5 * step.mean()
        return nodes, 1.0 / step, float(1.0 / step.mean()) if even else None

    def weights(self, values: ArrayLike) -> FloatArray:
        """Interpolation matrix, shape (len(values), N): rows of zeros beyond the edges."""
        at = np.asarray(values, dtype=float).ravel()
        index, fraction, inside = self.locate(at)
        matrix = np.zeros((len(at), len(self.nodes)))
        place = np.arange(0, matrix.size, len(self.nodes)) + index
        flat = matrix.reshape(-1)
        flat[place] = inside - fraction
        if len(self.nodes) > 1:
            flat[place + 1] = fraction
        return matrix
