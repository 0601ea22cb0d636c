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

    def kernel(
        self,
        energy_true: MapAxis,
        energy: MapAxis,
        offsets: ArrayLike,
        oversampling: int = 1,
        index: float = 2.0,
    ) -> FloatArray:
        """Probabilities of reconstructed bins.

        Parameters
        ----------
        energy_true, energy : `MapAxis`
        offsets : array_like, shape (P,)
            Degrees.
        oversampling : int
            Energies per true-energy bin at which the density is taken; with 1 its centre,
            with more the mean over the bin for a power law of ``index``.

        Returns
        -------
        ndarray, shape (T, R, P)
        """
        cumulative, norm = self._cumulative(energy_true, energy, oversampling, index)
        at = self.offset.weights(offsets).T
        with np.errstate(invalid="ignore", divide="ignore"):
            kernel = np.diff(cumulative @ at, axis=1) / (norm @ at)[:, None, :]
        kernel = np.clip(np.nan_to_num(kernel, posinf=0.0, neginf=0.0), 0.0, 1.0)
        kernel[kernel < THRESHOLD] = 0.0
        return np.asarray(kernel)

    def _cumulative(
        self, energy_true: MapAxis, energy: MapAxis, oversampling: int, index: float
    ) -> tuple[FloatArray, FloatArray]:
        """Cumulative density at the reconstructed edges (T, R + 1, offset) and in all (T, offset)."""
        edges = np.log(energy_true.bounds)
        fraction = (np.arange(oversampling) + 0.5) / oversampling
        samples = np.exp(edges[:-1, None] + np.diff(edges)[:, None] * fraction)  # (T, S)
        share = samples ** (1.0 - index)
        share = share / share.sum(axis=1, keepdims=True)

        node, part, inside = self.energy.locate(samples.ravel())
        upper = np.minimum(node + 1, len(self.energy.nodes) - 1)
        width = np.diff(self.migra.bounds) if len(self.migra.bounds) > len(
            self.migra.nodes
        ) else np.gradient(self.migra.nodes)
        density = self.data[node] * (1.0 - part)[:, None, None]
        density += self.data[upper] * part[:, None, None]
        density *= (inside[:, None] * width)[:, :, None]
        running = np.zeros((density.shape[0], density.shape[1] + 1, density.shape[2]))
        np.cumsum(density, axis=1, out=running[:, 1:])

        bounds = self.migra.bounds
        if len(bounds) == len(self.migra.nodes):
            bounds = np.append(bounds - 0.5 * width, bounds[-1] + 0.5 * width[-1])
        migra = energy.bounds / samples.reshape(-1, 1)  # (T * S, R + 1)
        low = np.clip(np.searchsorted(bounds, migra, side="right") - 1, 0, len(bounds) - 2)
        part = np.clip((migra - bounds[low]) / (bounds[low + 1] - bounds[low]), 0.0, 1.0)
        rows = np.arange(len(migra))[:, None]
        at_edges = running[rows, low] * (1.0 - part)[..., None] + running[rows, low + 1] * part[..., None]

        shape = (*samples.shape, len(energy.bounds), -1)
        mean = np.einsum("ts,tsro->tro", share, at_edges.reshape(shape))
        norm = np.einsum("ts,tso->to", share, running[:, -1].reshape(*samples.shape, -1))
        return mean, norm


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
