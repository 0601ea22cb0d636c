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
        lower, part, inside = self.energy.locate(samples)
        upper = np.minimum(lower + 1, len(self.energy.nodes) - 1)
        at_offset = self.offset.weights(at).T
        careful = self._extrapolated(samples, lower, upper, at)
        found = np.empty((len(samples), energy.nbin, len(at)))
        numbers = self.data.shape[1] * max(energy.nbin, len(at), self.data.shape[2])
        step = max(1, _CHUNK // max(numbers, 1))
        for start in range(0, len(samples), step):
            rows = slice(start, start + step)
            density = self.data[lower[rows]] * (inside - part)[rows, None, None]
            density += self.data[upper[rows]] * part[rows, None, None]
            shares = self._shares(energy.bounds / samples[rows, None])
            held = shares @ density @ at_offset
            for which, columns in careful:
                # Where a straight line is drawn on beyond the nodes the density can fall below 0.
                some = np.flatnonzero(which[rows])
                drawn = density[some] @ at_offset[:, columns]
                held[np.ix_(some, np.arange(held.shape[1]), columns)] = shares[some] @ np.maximum(
                    drawn, 0.0, out=drawn
                )
            with np.errstate(invalid="ignore", divide="ignore"):
                found[rows] = held[:, :-1] / held[:, -1:]
        found = np.clip(np.nan_to_num(found, posinf=0.0, neginf=0.0), 0.0, 1.0)
        found[found < THRESHOLD] = 0.0
        return np.asarray(found)

    def _shares(self, edges: FloatArray) -> FloatArray:
        """What of each migra bin lies between edges (S, R + 1): its widths, (S, R + 1, migra).

        The last row takes in all of the table, for the norm.
        """
        bounds = self._migra_bounds
        width = np.diff(bounds)
        below = np.clip(edges[:, :, None] - bounds[:-1], 0.0, width)
        shares = np.empty((len(edges), edges.shape[1], len(width)))
        np.subtract(below[:, 1:], below[:, :-1], out=shares[:, :-1])
        shares[:, -1] = width
        return shares

    def _extrapolated(
        self,
        samples: FloatArray,
        lower: NDArray[np.intp],
        upper: NDArray[np.intp],
        offsets: FloatArray,
    ) -> list[tuple[NDArray[np.bool_], NDArray[np.intp]]]:
        """Energies (a mask) and offsets (places) beyond the outer nodes whose density needs care.

        ``lower`` and ``upper`` are the nodes between which the energies lie.
        """
        outside = _beyond(self.energy, samples)
        found = [(outside, np.arange(len(offsets)))] if outside.any() else []
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
                found.append((which, np.flatnonzero(side)))
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
