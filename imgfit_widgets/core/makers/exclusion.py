"""Parts of the sky that are kept out of the estimate of the background.

They come as a FITS mask (an image with a celestial WCS, 1 where the sky is kept and 0 where it is
excluded) or as DS9 regions (whatever lies in one of them is excluded, with or without DS9's ``-``).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS
from numpy.typing import NDArray

from ..errors import DataError
from ..irf.axis import FloatArray
from ..irf.io import FITS_ERRORS, open_fits
from ..maps import WcsGeom, convert_frame, nearest_pixel, separation
from ..paths import expand_path

BoolArray = NDArray[np.bool_]
_REGIONS = (".reg", ".ds9", ".txt", ".crtf")


class Exclusion:
    """Excluded parts of the sky.

    Parameters
    ----------
    path : path
        A FITS mask, or DS9 regions (by the file's ending).
    where : str
        What errors begin with.

    Raises
    ------
    DataError
        If the file is missing or holds neither a mask nor regions on the sky.
    """

    def __init__(self, path: str | os.PathLike[str], where: str = "exclusion") -> None:
        self.path = expand_path(path, where)
        if not self.path.is_file():
            raise DataError(
                f"{where}: {str(path)!r}: no such file; expected a FITS mask or DS9 regions"
            )
        self._inside: list[Callable[[FloatArray, FloatArray], BoolArray]] = []
        self._mask: tuple[BoolArray, WcsGeom] | None = None
        if self.path.suffix.lower() in _REGIONS:
            self._inside = _read_regions(self.path)
        else:
            data, wcs = _read_mask(self.path)
            self._mask = data, WcsGeom(wcs, (data.shape[0], data.shape[1]))

    def keep(self, geom: WcsGeom, outside: bool = True) -> BoolArray:
        """Pixels of a geometry that are not excluded, by their centre.

        Parameters
        ----------
        geom : `WcsGeom`
        outside : bool
            Whether the sky beyond a FITS mask is kept.

        Returns
        -------
        ndarray of bool, shape (ny, nx)
        """
        y, x = np.mgrid[: geom.shape[0], : geom.shape[1]]
        lon, lat = geom.wcs.wcs_pix2world(x.ravel(), y.ravel(), 0)
        if self._mask is not None:
            data, own = self._mask
            i, j = own.lonlat_to_pix(*convert_frame(lon, lat, geom.frame, own.frame))
            with np.errstate(invalid="ignore"):
                on_mask = (i >= -0.5) & (i < data.shape[1] - 0.5)
                on_mask &= (j >= -0.5) & (j < data.shape[0] - 0.5)
            keep = np.full(lon.shape, outside)
            keep[on_mask] = data[nearest_pixel(j[on_mask]), nearest_pixel(i[on_mask])]
            return keep.reshape(geom.shape)
        ra, dec = convert_frame(lon, lat, geom.frame, "icrs")
        inside = np.zeros(lon.shape, dtype=bool)
        for contains in self._inside:
            inside |= contains(ra, dec)
        return ~inside.reshape(geom.shape)


def _read_mask(path: Path) -> tuple[BoolArray, WCS]:
    """The first image of a file as booleans, with its celestial WCS."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        with open_fits(path) as hdus:
            try:
                images = [
                    hdu
                    for hdu in hdus
                    if isinstance(hdu, (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU))
                    and hdu.header.get("NAXIS", 0) >= 2
                ]
                if not images:
                    raise DataError(f"{path}: holds no image; expected a mask of 1 and 0")
                hdu = images[0]
                data = np.squeeze(np.asarray(hdu.data))
                wcs = WCS(hdu.header, naxis=2).celestial
            except (*FITS_ERRORS, AttributeError) as error:
                if isinstance(error, DataError):
                    raise
                raise DataError(f"{path}: cannot be read as a FITS mask ({error})") from error
    if data.ndim == 3 and np.all(data == data[:1]):
        data = data[0]
    if data.ndim != 2:
        raise DataError(
            f"{path} [{hdu.name or 'PRIMARY'}]: has shape {data.shape}; expected an image, the "
            "same for all energies"
        )
    if wcs.naxis != 2 or not wcs.has_celestial:
        raise DataError(f"{path} [{hdu.name or 'PRIMARY'}]: has no celestial WCS")
    return np.asarray(np.nan_to_num(data), dtype=bool), wcs


def _read_regions(path: Path) -> list[Callable[[FloatArray, FloatArray], BoolArray]]:
    """A test of positions (ICRS degrees) for each region of a file that has an area."""
    # Only here: it takes a while to load, and most reductions have no regions.
    from regions import Regions

    kind = "crtf" if path.suffix.lower() == ".crtf" else "ds9"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = Regions.read(path, format=kind)
    except Exception as error:  # the parser raises whatever a bad line leads it into
        raise DataError(f"{path}: cannot be read as {kind} regions ({error})") from error
    tests = [
        _membership(region, f"{path}: region {number} ({type(region).__name__})")
        for number, region in enumerate(found, 1)
    ]
    areas = [test for test in tests if test is not None]
    if not areas:
        raise DataError(f"{path}: holds no region with an area; expected circles, ellipses, …")
    return areas


def _membership(region: Any, where: str) -> Callable[[FloatArray, FloatArray], BoolArray] | None:
    """Whether positions (ICRS degrees) lie in a sky region; None for one without an area.

    Tested in the tangential plane of the region's own centre, so that a circle is one on the sky
    whatever the projection of the map.
    """
    from regions import PixCoord, PixelRegion

    if isinstance(region, PixelRegion):
        raise DataError(
            f"{where}: is in pixels; expected a region on the sky (fk5, icrs, galactic)"
        )
    centre = getattr(region, "center", None)
    if centre is None and hasattr(region, "vertices"):
        vectors = region.vertices.icrs.cartesian.xyz.value
        middle = vectors.mean(axis=1) / np.linalg.norm(vectors.mean(axis=1))
        centre = (np.degrees(np.arctan2(middle[1], middle[0])), np.degrees(np.arcsin(middle[2])))
    elif centre is not None:
        centre = (centre.icrs.ra.deg, centre.icrs.dec.deg)
    plane = WCS(naxis=2)
    plane.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    plane.wcs.cdelt = [-1e-3, 1e-3]
    plane.wcs.crpix = [1.0, 1.0]
    if centre is None:
        return None  # a line or a text
    plane.wcs.crval = [float(centre[0]), float(centre[1])]
    pixels = region.to_pixel(plane)
    if not getattr(pixels, "area", 0.0) > 0.0:
        return None

    def contains(lon: FloatArray, lat: FloatArray) -> BoolArray:
        x, y = plane.wcs_world2pix(lon, lat, 0)
        # The other half of the sky has no place in the plane.
        near = separation(lon, lat, *map(float, centre)) < 85.0
        good = np.isfinite(x) & np.isfinite(y) & near
        found = np.zeros(x.shape, dtype=bool)
        found[good] = pixels.contains(PixCoord(x[good], y[good]))
        if not pixels.meta.get("include", True):
            found[good] = ~found[good]  # DS9's "-", which turns the answer of contains around
        return found

    return contains
