"""Effective area (AEFF_2D): true energy and offset from the pointing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

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
    """

    tag = "aeff_2d"

    energy: IrfAxis
    offset: IrfAxis
    data: FloatArray

    def evaluate(
        self, energies: ArrayLike, offsets: ArrayLike, factor: float = 1.0
    ) -> FloatArray:
        """Effective area at true energies (T,) in TeV and offsets (P,) in degrees.

        Returns
        -------
        ndarray, shape (T, P)
            m2, times ``factor`` (a live time, say); 0 beyond the table's edges.
        """
        at_energy = self.energy.weights(energies) @ self.data * factor
        area = at_energy @ self.offset.weights(offsets).T
        return np.asarray(np.maximum(area, 0.0, out=area))
