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
from .axis import FloatArray, IrfAxis

# Probabilities under this are numerical noise of the tables.
THRESHOLD = 1e-8
# Numbers held at once where densities are followed one by one.
_CHUNK = 1 << 21


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
        node, part, inside = self.energy.locate(samples)
        upper = np.minimum(node + 1, len(self.energy.nodes) - 1)
        lower_share = np.where(inside, 1.0 - part, 0.0)[:, None, None]
        upper_share = np.where(inside, part, 0.0)[:, None, None]
        # Only the energies of the table that are asked for.
        first, last = (int(node.min()), int(upper.max())) if len(samples) else (0, 0)
        node, upper = node - first, upper - first
        table = self.data[first : last + 1]

        bounds = self._migra_bounds
        # The last edge takes in all of the table, for the norm.
        edges = np.append(energy.bounds / samples[:, None], np.full((len(samples), 1), np.inf), 1)
        low = np.clip(np.searchsorted(bounds, edges, side="right") - 1, 0, len(bounds) - 2)
        share = np.clip((edges - bounds[low]) / (bounds[low + 1] - bounds[low]), 0.0, 1.0)

        def below(
            running: FloatArray, row: NDArray[np.intp], some: NDArray[np.intp] | slice
        ) -> FloatArray:
            first, second = running[row[:, None], low[some]], running[row[:, None], low[some] + 1]
            return np.asarray(first + (second - first) * share[some][..., None])

        everything = slice(None)
        running = self._accumulated(table)
        cumulative = below(running, node, everything) * lower_share
        cumulative += below(running, upper, everything) * upper_share
        at_offset = self.offset.weights(at).T
        total = cumulative[:, -1:] @ at_offset
        found = np.diff(cumulative[:, :-1], axis=1) @ at_offset

        for rows, columns in self._extrapolated(table, node, upper, samples, at):
            # Where a straight line is drawn on beyond the nodes the density can fall below 0.
            step = max(1, _CHUNK // (len(columns) * len(bounds)))
            for start in range(0, len(rows), step):
                some = rows[start : start + step]
                density = table[node[some]] * lower_share[some]
                density += table[upper[some]] * upper_share[some]
                density = density @ at_offset[:, columns]
                np.maximum(density, 0.0, out=density)
                held = below(self._accumulated(density), np.arange(len(some)), some)
                found[np.ix_(some, np.arange(energy.nbin), columns)] = np.diff(held[:, :-1], axis=1)
                total[some[:, None], 0, columns] = held[:, -1]
        with np.errstate(invalid="ignore", divide="ignore"):
            found = found / total
        found = np.clip(np.nan_to_num(found, posinf=0.0, neginf=0.0), 0.0, 1.0)
        found[found < THRESHOLD] = 0.0
        return np.asarray(found)

    def _extrapolated(
        self,
        table: NDArray[np.floating],
        node: NDArray[np.intp],
        upper: NDArray[np.intp],
        samples: FloatArray,
        offsets: FloatArray,
    ) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Energies and offsets (their places) beyond the outer nodes whose density needs care.

        ``node`` and ``upper`` are the rows of ``table`` between which the energies lie.
        """
        found = []
        everywhere = np.arange(len(offsets))
        outside = _beyond(self.energy, samples)
        if outside.any() and len(offsets):
            found.append((np.flatnonzero(outside), everywhere))
        beyond = _beyond(self.offset, offsets)
        if not beyond.any():
            return found
        for end, (near, far) in zip(self.offset.edges, ((0, 1), (-1, -2)), strict=True):
            side = beyond & ((offsets < self.offset.nodes[0]) == (near == 0))
            if not side.any():
                continue
            nodes = self.offset.nodes
            stretch = (end - nodes[near]) / (nodes[near] - nodes[far])
            outer, inner = table[..., near], table[..., far]
            drawn = (outer + stretch * (outer - inner)) * np.diff(self._migra_bounds)
            below = np.maximum(-drawn, 0.0).sum(axis=1)
            negative = below > 1e-5 * np.maximum(drawn.sum(axis=1), 0.0)
            rows = np.flatnonzero((negative[node] | negative[upper]) & ~outside)
            if len(rows):
                found.append((rows, np.flatnonzero(side)))
        return found

    def _accumulated(self, density: NDArray[np.floating]) -> FloatArray:
        """Density (N, migra, P) accumulated to each migra edge, shape (N, migra + 1, P)."""
        running = np.zeros((len(density), density.shape[1] + 1, density.shape[2]))
        np.multiply(density, np.diff(self._migra_bounds)[:, None], out=running[:, 1:])
        np.cumsum(running[:, 1:], axis=1, out=running[:, 1:])
        return running

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
