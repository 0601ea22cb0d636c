"""What is asked of a reduction."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..irf.axis import FloatArray
from ..maps import MapAxis, WcsGeom
from ..progress import Progress, silent
from .background import BackgroundMethod
from .exclusion import Exclusion
from .responses import ResponseCache
from .safe_mask import SafeMask

ACCURACIES = ("exact", "gammapy")
MAPS = ("counts", "exposure", "background", "psf", "edisp")
NEEDS = {"exposure": "aeff", "background": "bkg", "psf": "psf", "edisp": "edisp"}
"""The response that each map is made of."""


@dataclass(frozen=True, eq=False)
class Reduction:
    """Settings of a reduction.

    Parameters
    ----------
    geom : `WcsGeom`
        With the axis ``energy``.
    energy_axis_true : `MapAxis`
    binsz_irf : float
        Pixel size in degrees of the PSF and energy-dispersion maps.
    offset_max : float
        Half width in degrees of the part of the map that a run contributes to.
    safe_mask : `SafeMask`
    background : BackgroundMethod or None
        How a run's background is matched to its counts; None to take it as it is.
    exclusion : `Exclusion` or None
        Parts of the sky that are kept out of that.
    selection : tuple of str
        The maps to make, out of `MAPS`.
    accuracy : {"exact", "gammapy"}
    responses : `ResponseCache`
        PSF and energy dispersion that runs share.
    """

    geom: WcsGeom
    energy_axis_true: MapAxis
    binsz_irf: float
    offset_max: float
    safe_mask: SafeMask = field(default_factory=SafeMask)
    background: BackgroundMethod | None = None
    exclusion: Exclusion | None = None
    selection: tuple[str, ...] = MAPS
    accuracy: str = "exact"
    responses: ResponseCache = field(default_factory=ResponseCache, repr=False)

    def __post_init__(self) -> None:
        if self.accuracy not in ACCURACIES:
            raise DataError(
                f"accuracy: {self.accuracy!r} is not one of {', '.join(map(repr, ACCURACIES))}"
            )

    @property
    def exact(self) -> bool:
        return self.accuracy == "exact"

    @property
    def energy_axis(self) -> MapAxis:
        return self.geom.axes["energy"]

    @cached_property
    def geom_irf(self) -> WcsGeom:
        """Coarse image geometry of the responses."""
        return self.geom.to_image().to_binsz(self.binsz_irf)

    @property
    def vectors(self) -> FloatArray:
        """ICRS unit vectors of the pixel centres, shape (3, ny, nx); NaN beyond the projection."""
        return self.geom.icrs_vectors

    @property
    def vectors_irf(self) -> FloatArray:
        """The same for the coarse geometry."""
        return self.geom_irf.icrs_vectors

    @cached_property
    def nodes_xy(self) -> tuple[FloatArray, FloatArray]:
        """Pixel coordinates in `geom` of the nodes of `geom_irf`, each of its shape."""
        return self.geom.lonlat_to_pix(*self.geom_irf.pixel_lonlat)

    def keep(self, rows: slice, columns: slice, progress: Progress = silent) -> NDArray[np.bool_]:
        """Pixels of a window that are not excluded, shape (y, x)."""
        if self.exclusion is None:
            return np.ones((rows.stop - rows.start, columns.stop - columns.start), dtype=bool)
        if self.exact:
            if "_keep" not in self.__dict__:
                found = self.exclusion.keep(self.geom.to_image(), progress=progress)
                self.__dict__["_keep"] = found
            return np.asarray(self.__dict__["_keep"][rows, columns])
        # In the coordinates of the window, so that a pixel whose centre lies on the edge of one
        # of the mask falls to the same side as in Gammapy, where the sky beyond is excluded too.
        return self.exclusion.keep(self.geom.to_image().crop(rows, columns), False, progress)
