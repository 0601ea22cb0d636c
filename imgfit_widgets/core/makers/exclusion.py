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
from numpy.typing import NDArray

from ..errors import DataError
from ..fits_maps import read_first
from ..irf.axis import FloatArray
from ..maps import WcsGeom, convert_frame, nearest_pixel, positions, separation
from ..paths import expand_path
from ..progress import Progress, silent

BoolArray = NDArray[np.bool_]
# Pixels that are looked at between two looks at whether to stop.
_PIXELS = 65536
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
            self._mask = _read_mask(self.path)

    def keep(self, geom: WcsGeom, outside: bool = True, progress: Progress = silent) -> BoolArray:
        """Pixels of a geometry that are not excluded, by their centre.

        Parameters
        ----------
        geom : `WcsGeom`
        outside : bool
            Whether the sky beyond a FITS mask is kept.
        progress : callable
            Called between parts of the map; may raise `Cancelled`.

        Returns
        -------
        ndarray of bool, shape (ny, nx)
        """
        ny, nx = geom.shape
        keep = np.empty(geom.shape, dtype=bool)
        step = max(1, _PIXELS // nx)
        for start in range(0, ny, step):
            progress(start / ny, "exclusions")
            y, x = np.mgrid[start : min(start + step, ny), :nx]
            lon, lat = geom.wcs.wcs_pix2world(x.ravel(), y.ravel(), 0)
            keep[start : start + step] = self._keeps(geom, lon, lat, outside).reshape(x.shape)
        return keep

    def _keeps(self, geom: WcsGeom, lon: FloatArray, lat: FloatArray, outside: bool) -> BoolArray:
        """Whether positions in the frame of a geometry (N,) are kept."""
        if self._mask is not None:
            data, own = self._mask
            i, j = own.lonlat_to_pix(*convert_frame(lon, lat, geom.frame, own.frame))
            with np.errstate(invalid="ignore"):
                on_mask = (i >= -0.5) & (i < data.shape[1] - 0.5)
                on_mask &= (j >= -0.5) & (j < data.shape[0] - 0.5)
            keep = np.full(lon.shape, outside)
            keep[on_mask] = data[nearest_pixel(j[on_mask]), nearest_pixel(i[on_mask])]
            return keep
        ra, dec = convert_frame(lon, lat, geom.frame, "icrs")
        inside = np.zeros(lon.shape, dtype=bool)
        for contains in self._inside:
            inside |= contains(ra, dec)
        return ~inside


def _read_mask(path: Path) -> tuple[BoolArray, WcsGeom]:
    """The first image of a file as booleans, with its pixels."""
    found = read_first(path)
    if found.image is None:
        raise DataError(f"{found.where}: is a region, not an image; expected a mask of 1 and 0")
    data = np.nan_to_num(found.data).reshape(-1, *found.image.shape)
    if not np.array_equal(data, np.broadcast_to(data[:1], data.shape)):
        raise DataError(
            f"{found.where}: has {len(data)} planes that differ; expected an image, the same for "
            "all energies"
        )
    return data[0] != 0.0, found.image


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
    if centre is None:
        centre = getattr(region, "vertices", None)
    if centre is None:
        return None  # a line or a text
    # DS9 counts angles from the longitude of the region's own frame.
    frame = "galactic" if centre.frame.name == "galactic" else "icrs"
    vectors = centre.transform_to(frame).cartesian.xyz.value.reshape(3, -1).mean(axis=1)
    lon_0, lat_0 = map(float, positions(vectors))
    plane = WcsGeom.create((lon_0, lat_0), 1e-3, 1e-3, "TAN", frame).wcs
    pixels = region.to_pixel(plane)
    if not getattr(pixels, "area", 0.0) > 0.0:
        return None
    # Some versions turn the answer of contains around for DS9's "-".
    pixels.meta["include"] = True

    def contains(ra: FloatArray, dec: FloatArray) -> BoolArray:
        lon, lat = convert_frame(ra, dec, "icrs", frame)
        # The other half of the sky has no place in the plane.
        with np.errstate(invalid="ignore"):
            near = separation(lon, lat, lon_0, lat_0) < 85.0
        found = np.zeros(near.shape, dtype=bool)
        x, y = plane.wcs_world2pix(lon[near], lat[near], 0)
        found[near] = pixels.contains(PixCoord(x, y))
        return found

    return contains
