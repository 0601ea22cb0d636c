"""The point spread function of a dataset: mixtures of Gaussians on a coarse sky grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..maps import MapAxis, WcsGeom
from .axis import FloatArray
from .mixture import PSF_WIDTHS, RAD_BOUNDS, from_profiles, profiles

__all__ = ["PSFMap"]


@dataclass(frozen=True, eq=False)
class PSFMap:
    """Point spread function on the sky.

    Parameters
    ----------
    geom : `WcsGeom`
        Coarse image geometry (``binsize_irf``).
    energy_true : `MapAxis`
    weights : ndarray, shape (T, W, y, x)
        Mixture over `widths`; each sums to 1, or is 0 where nothing was observed.
    exposure : ndarray, shape (T, y, x)
        m2 s; the weight of each node when datasets are stacked.
    """

    geom: WcsGeom
    energy_true: MapAxis
    weights: FloatArray
    exposure: FloatArray

    @property
    def widths(self) -> FloatArray:
        """Widths of the mixture in degrees, shape (W,)."""
        return PSF_WIDTHS

    def table(self) -> FloatArray:
        """Profiles in sr-1 as Gammapy tabulates them, shape (T, 66, y, x).

        Taken at the centres of 66 bins of 0.01 deg and normalised so that the sum of
        ``2 pi r dr`` over them is 1.
        """
        centers = 0.5 * (RAD_BOUNDS[1:] + RAD_BOUNDS[:-1])
        values = profiles(np.moveaxis(self.weights, 1, 0), centers)
        values = np.maximum(values, 0.0)
        step = np.radians(0.01)
        norm = np.tensordot(2.0 * np.pi * np.radians(centers) * step, values, axes=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.moveaxis(np.nan_to_num(values / norm), 0, 1)

    @classmethod
    def from_table(
        cls,
        geom: WcsGeom,
        energy_true: MapAxis,
        rad: MapAxis,
        values: FloatArray,
        exposure: FloatArray,
    ) -> PSFMap:
        """From tabulated profiles, shape (T, rad, y, x)."""
        weights = from_profiles(np.moveaxis(np.asarray(values, dtype=float), 1, 0), rad)
        return cls(geom, energy_true, np.moveaxis(weights, 0, 1), exposure)

    def containment_radius(self, fraction: float, lon: float, lat: float) -> FloatArray:
        """Radius in degrees that holds a fraction of a point source at a position, shape (T,)."""
        x, y = self.geom.lonlat_to_pix(lon, lat)
        column = int(np.clip(np.rint(x), 0, self.geom.npix[0] - 1))
        row = int(np.clip(np.rint(y), 0, self.geom.npix[1] - 1))
        rad = np.linspace(0.0, 3.0, 3001)
        inside = 1.0 - np.exp(-0.5 * (rad[:, None] / PSF_WIDTHS) ** 2)
        held = inside @ self.weights[:, :, row, column].T
        return np.array([np.interp(fraction, np.maximum.accumulate(h), rad) for h in held.T])
