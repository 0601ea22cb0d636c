"""Energy dispersion: the table of a DL3 file (EDISP_2D), and kernels on the sky.

`EnergyDispersion2D`
    p(migra | true energy, offset) with migra = reconstructed / true energy.
`EDispKernelMap`
    Probability that a photon of a true-energy bin is found in a reconstructed bin, on a coarse
    sky grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..maps import MapAxis, WcsGeom
from .axis import FloatArray, IrfAxis

# Probabilities under this are numerical noise of the tables.
THRESHOLD = 1e-8


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
        samples = np.asarray(energies, dtype=float)
        node, part, inside = self.energy.locate(samples)
        upper = np.minimum(node + 1, len(self.energy.nodes) - 1)
        lower_share = np.where(inside, 1.0 - part, 0.0)[:, None, None]
        upper_share = np.where(inside, part, 0.0)[:, None, None]

        bounds, running = self._migra_bounds, self._cumulative
        # The last edge takes in all of the table, for the norm.
        edges = np.append(energy.bounds / samples[:, None], np.full((len(samples), 1), np.inf), 1)
        low = np.clip(np.searchsorted(bounds, edges, side="right") - 1, 0, len(bounds) - 2)
        share = np.clip((edges - bounds[low]) / (bounds[low + 1] - bounds[low]), 0.0, 1.0)

        def below(row: NDArray[np.intp]) -> FloatArray:
            first, second = running[row[:, None], low], running[row[:, None], low + 1]
            return np.asarray(first + (second - first) * share[..., None])

        cumulative = below(node) * lower_share + below(upper) * upper_share
        at = self.offset.weights(offsets).T
        with np.errstate(invalid="ignore", divide="ignore"):
            found = (np.diff(cumulative[:, :-1], axis=1) @ at) / (cumulative[:, -1:] @ at)
        found = np.clip(np.nan_to_num(found, posinf=0.0, neginf=0.0), 0.0, 1.0)
        found[found < THRESHOLD] = 0.0
        return np.asarray(found)

    @cached_property
    def _cumulative(self) -> FloatArray:
        """Density accumulated to each migra edge, shape (energy, migra + 1, offset)."""
        n_energy, n_migra, n_offset = self.data.shape
        running = np.zeros((n_energy, n_migra + 1, n_offset))
        np.multiply(self.data, np.diff(self._migra_bounds)[:, None], out=running[:, 1:])
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
