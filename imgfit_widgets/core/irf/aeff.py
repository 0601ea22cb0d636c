"""Effective area (AEFF_2D): true energy and offset from the pointing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..products import product
from .axis import FloatArray, IrfAxis


@dataclass(frozen=True, eq=False)
class EffectiveAreaTable2D:
    """Effective area in m2.

    Parameters
    ----------
    energy : `IrfAxis`
        True energy, TeV.
    offset : `IrfAxis`
        Degrees.
    data : ndarray, shape (energy, offset)
    energy_min, energy_max : float or None
        Range of energy in TeV that the file's header calls safe.
    """

    tag = "aeff_2d"

    energy: IrfAxis
    offset: IrfAxis
    data: FloatArray
    energy_min: float | None = None
    energy_max: float | None = None

    def evaluate(self, energies: ArrayLike, offsets: ArrayLike) -> FloatArray:
        """Effective area at true energies (T,) in TeV and offsets (P,) in degrees.

        Returns
        -------
        ndarray, shape (T, P)
            m2; 0 beyond the table's edges.
        """
        table = self.energy.weights(energies) @ self.data
        return np.asarray(np.maximum(product(table, self.offset.weights(offsets).T), 0.0))

    def add_exposure(
        self, exposure: FloatArray, energies: ArrayLike, offsets: FloatArray, livetime: float
    ) -> None:
        """Add area times live time to an exposure map, in place.

        Parameters
        ----------
        exposure : ndarray, shape (T, y, x)
            m2 s.
        energies : array_like, shape (T,)
            True energy, TeV.
        offsets : ndarray, shape (y, x)
            Degrees; infinite where the run adds nothing.
        livetime : float
            s.
        """
        table = self.energy.weights(energies) @ self.data * livetime
        # Only a line that is drawn on beyond the outer nodes can fall below 0.
        falls = bool(np.any(table @ self.offset.weights(self.offset.edges).T <= 0.0))
        # In parts that fit into the processor's cache.
        rows = max(1, 4096 // offsets.shape[1])
        for start in range(0, len(offsets), rows):
            part = slice(start, start + rows)
            area = product(table, self.offset.weights(offsets[part].ravel()).T)
            if falls:
                np.maximum(area, 0.0, out=area)
            exposure[:, part] += area.reshape(len(table), -1, offsets.shape[1])
