"""Energy dispersion: the table of a DL3 file (EDISP_2D), and kernels on the sky.

`EnergyDispersion2D`
    p(migra | true energy, offset) with migra = reconstructed / true energy.
`EDispKernelMap`
    Probability that a photon of a true-energy bin is found in a reconstructed bin, on a coarse
    sky grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..maps import MapAxis, WcsGeom
from ..products import product
from .axis import FloatArray, IrfAxis

# Probabilities under this are numerical noise of the tables.
THRESHOLD = 1e-8
# Numbers held at once where densities are followed one by one.
_CHUNK = 1 << 18


@dataclass(frozen=True, eq=False)
class EnergyDispersion2D:
    """Energy dispersion of a DL3 file.

    Parameters
    ----------
    energy : `IrfAxis`
        True energy, TeV.
    migra : `IrfAxis`
    offset : `IrfAxis`
        Degrees.
    data : ndarray, shape (energy, migra, offset)
        Probability density in migra.
    """

    tag = "edisp_2d"

    energy: IrfAxis
    migra: IrfAxis
    offset: IrfAxis
    data: NDArray[np.floating]

    def probabilities(self, energies: ArrayLike, energy: MapAxis, offsets: ArrayLike) -> FloatArray:
        """Probability that a photon is found in each reconstructed bin.

        The density is accumulated over the table's migra axis and normalised to 1.

        Parameters
        ----------
        energies : array_like, shape (S,)
            True energies, TeV.
        energy : `MapAxis`
            Reconstructed energy, R bins.
        offsets : array_like, shape (P,)
            Degrees.

        Returns
        -------
        ndarray, shape (S, R, P)
        """
        samples, at = np.asarray(energies, dtype=float), np.asarray(offsets, dtype=float)
        lower, part, inside = self.energy.locate(samples)
        upper = np.minimum(lower + 1, len(self.energy.nodes) - 1)
        weights = (inside - part)[:, None, None], part[:, None, None]
        # The last edge takes in all of the table, for the norm.
        edges = np.append(energy.bounds / samples[:, None], np.full((len(samples), 1), np.inf), 1)
        at_offset = self.offset.weights(at).T
        first, second = self._below(np.stack([lower, upper]), edges)
        below = first * weights[0] + second * weights[1]
        found = product(np.diff(below[:, :-1], axis=1), at_offset)
        total = product(below[:, -1:], at_offset)

        for rows, columns in self._extrapolated(samples, lower, upper, at):
            # Where a straight line is drawn on beyond the nodes the density can fall below 0.
            step = max(1, _CHUNK // (len(columns) * self.data.shape[1]))
            for start in range(0, len(rows), step):
                some = rows[start : start + step]
                density = self.data[lower[some]] * weights[0][some]
                density += self.data[upper[some]] * weights[1][some]
                density = product(density, at_offset[:, columns])
                held = product(self._shares(edges[some]), np.maximum(density, 0.0, out=density))
                found[np.ix_(some, np.arange(energy.nbin), columns)] = held[:, :-1]
                total[some[:, None], 0, columns] = held[:, -1]
        with np.errstate(invalid="ignore", divide="ignore"):
            found = found / total
        found = np.clip(np.nan_to_num(found, posinf=0.0, neginf=0.0), 0.0, 1.0)
        found[found < THRESHOLD] = 0.0
        return np.asarray(found)

    def _below(self, nodes: NDArray[np.intp], edges: FloatArray) -> FloatArray:
        """The table at energy nodes (N, S), summed up to migra edges (S, E): (N, S, E, offset)."""
        bounds = self._migra_bounds
        asked = np.unique(nodes)
        row = np.searchsorted(asked, nodes)[..., None]
        table = self.data[asked]
        running = np.zeros((len(asked), len(bounds), table.shape[2]))
        np.multiply(table, np.diff(bounds)[:, None], out=running[:, 1:])
        np.cumsum(running[:, 1:], axis=1, out=running[:, 1:])
        low = np.clip(np.searchsorted(bounds, edges, side="right") - 1, 0, len(bounds) - 2)
        share = np.clip((edges - bounds[low]) / (bounds[low + 1] - bounds[low]), 0.0, 1.0)
        first, second = running[row, low], running[row, low + 1]
        return np.asarray(first + (second - first) * share[..., None])

    def _shares(self, edges: FloatArray) -> FloatArray:
        """What of each migra bin lies between edges (S, E): its widths, (S, E - 1, migra).

        The last row takes in all from the start, for the norm.
        """
        bounds = self._migra_bounds
        below = np.clip(edges[:, :, None] - bounds[:-1], 0.0, np.diff(bounds))
        return np.concatenate([np.diff(below[:, :-1], axis=1), below[:, -1:]], axis=1)

    def _extrapolated(
        self,
        samples: FloatArray,
        lower: NDArray[np.intp],
        upper: NDArray[np.intp],
        offsets: FloatArray,
    ) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Energies and offsets (their places) beyond the outer nodes whose density needs care.

        ``lower`` and ``upper`` are the nodes between which the energies lie.
        """
        outside = _beyond(self.energy, samples)
        found = [(np.flatnonzero(outside), np.arange(len(offsets)))] if outside.any() else []
        beyond = _beyond(self.offset, offsets)
        asked = np.unique([lower, upper])
        for end, (near, far) in zip(self.offset.edges, ((0, 1), (-1, -2)), strict=True):
            side = beyond & ((offsets < self.offset.nodes[0]) == (near == 0))
            if not side.any():
                continue
            nodes = self.offset.nodes
            stretch = (end - nodes[near]) / (nodes[near] - nodes[far])
            outer, inner = self.data[asked, :, near], self.data[asked, :, far]
            drawn = (outer + stretch * (outer - inner)) * np.diff(self._migra_bounds)
            below = np.maximum(-drawn, 0.0).sum(axis=1)
            negative = np.zeros(len(self.energy.nodes), dtype=bool)
            negative[asked] = below > 1e-5 * np.maximum(drawn.sum(axis=1), 0.0)
            which = (negative[lower] | negative[upper]) & ~outside
            if which.any():
                found.append((np.flatnonzero(which), np.flatnonzero(side)))
        return found

    @property
    def _migra_bounds(self) -> FloatArray:
        """Edges of the migra bins; between nodes where the table gives nodes."""
        bounds, nodes = self.migra.bounds, self.migra.nodes
        if len(bounds) > len(nodes):
            return bounds
        middle = 0.5 * (nodes[1:] + nodes[:-1])
        return np.concatenate([[nodes[0]], middle, [nodes[-1]]])


def _beyond(axis: IrfAxis, values: FloatArray) -> NDArray[np.bool_]:
    """Whether values lie between the outer nodes of an axis and its edges."""
    if len(axis.nodes) == 1:
        return np.zeros(values.shape, dtype=bool)
    _, part, inside = axis.locate(values)
    return np.asarray(inside & ((part < 0.0) | (part > 1.0)))


@dataclass(frozen=True, eq=False)
class EDispKernelMap:
    """Energy-dispersion kernels on the sky.

    Parameters
    ----------
    geom : `WcsGeom`
        Coarse image geometry (``binsize_irf``).
    energy, energy_true : `MapAxis`
    data : ndarray, shape (T, R, y, x)
    exposure : ndarray, shape (T, y, x)
        m2 s; the weight of each kernel when datasets are stacked.
    """

    geom: WcsGeom
    energy: MapAxis
    energy_true: MapAxis
    data: FloatArray
    exposure: FloatArray
