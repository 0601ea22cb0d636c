"""Shapes that are no formula.

`TemplateSpatialModel` is an image of the sky read from a FITS file, `ConstantSpatialModel` the same
brightness everywhere.
"""

from __future__ import annotations

import math
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning

from ..errors import DataError, ModelError
from ..maps import WcsGeom, WcsNDMap
from .parameter import Parameter, ParameterField
from .spatial_base import Outline, SpatialModel

__all__ = ["ConstantSpatialModel", "TemplateSpatialModel", "read_image"]

_ENCLOSED = 0.68
"""Part of the light within the lines that show a template."""
_MOST_PIXELS, _LINES = 300, 12
"""Pixels a side in which these are looked for, and how many are shown."""


class TemplateSpatialModel(SpatialModel):
    """The shape of an image, bilinear between its pixels and 0 beyond.

    Its position is the image's centre and frozen; when it moves, every pixel moves by as many
    degrees of longitude and latitude.

    Parameters
    ----------
    map : WcsNDMap, optional
        An image in sr-1, or in any unit if ``normalize``; read from ``filename`` by default.
    normalize : bool
        Whether the image is scaled to an integral of 1. As in Gammapy its pixels are then taken as
        flux for each pixel.
    filename : str, optional
        Where the image lies: what a models file keeps. ``$VARIABLES`` are replaced on reading.
    **values
        ``lon_0``, ``lat_0``.

    Raises
    ------
    ModelError
        If the file cannot be read or is no image that can be a shape.
    """

    tag = ("TemplateSpatialModel", "template")
    further_keys = ("filename", "normalize", "unit")
    needs_file = True
    lon_0 = ParameterField(0.0, "deg", frozen=True, help="longitude of the image's centre")
    lat_0 = ParameterField(
        0.0, "deg", min=-90.0, max=90.0, frozen=True, help="latitude of the image's centre"
    )

    def __init__(
        self,
        map: WcsNDMap | None = None,
        normalize: bool = True,
        filename: str | os.PathLike[str] | None = None,
        frame: str | None = None,
        **values: Any,
    ) -> None:
        self.filename = None if filename is None else os.fspath(filename)
        if map is None and self.filename is None:
            raise ModelError("TemplateSpatialModel.filename: missing; which image is the shape?")
        self.map = read_image(str(self.filename)) if map is None else map
        self.normalize = bool(normalize)
        where = f"template {self.filename or ''}".rstrip()
        try:
            own = self.map.geom.frame
        except DataError as error:
            raise ModelError(f"{where}: {error}") from None
        if frame not in (None, own):
            raise ModelError(f"{where}: its frame is {own}; found frame {frame!r} for the model")
        self._brightness = _brightness(self.map, self.normalize, where)
        lon, lat = self.map.geom.center_lonlat
        for name, centre in (("lon_0", lon), ("lat_0", lat)):
            given = values.get(name)
            if given is None or (isinstance(given, Parameter) and np.isnan(given.value)):
                values[name] = centre
        super().__init__(frame=own, **values)

    @classmethod
    def read(cls, filename: str | os.PathLike[str], normalize: bool = True) -> TemplateSpatialModel:
        """The image of a FITS file."""
        return cls(normalize=normalize, filename=filename)

    @classmethod
    def new_at(cls, lon: float, lat: float, frame: str) -> SpatialModel:
        raise ModelError(
            "TemplateSpatialModel: needs an image; make it with TemplateSpatialModel.read(FILE) or "
            "name its filename in the YAML"
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any], frame: str | None, values: dict[str, Any]) -> Any:
        filename, normalize = data.get("filename"), data.get("normalize", True)
        if not isinstance(filename, str) or not filename.strip():
            raise ModelError(f"filename: found {filename!r}; expected the name of a FITS image")
        if not isinstance(normalize, bool):
            raise ModelError(f"normalize: found {normalize!r}; expected true or false")
        return cls(normalize=normalize, filename=filename, frame=frame, **values)

    def copy(self) -> TemplateSpatialModel:
        values: dict[str, Any] = {p.name: p for p in self.parameters}
        return type(self)(self.map, self.normalize, self.filename, **values)

    def to_dict(self) -> dict[str, Any]:
        if self.filename is None:
            raise ModelError(
                "TemplateSpatialModel.filename: missing; a models file names the image: set it"
            )
        return {"filename": self.filename, "normalize": self.normalize, "unit": "sr-1"}

    @property
    def evaluation_radius(self) -> u.Quantity:
        return 0.5 * max(self.map.geom.width) * u.deg

    def reach(self, values: np.ndarray) -> float:
        return 0.5 * float(np.hypot(*self.map.geom.width))

    @property
    def resolution(self) -> float:
        """Size of its pixels in degrees."""
        return float(min(self.map.geom.pixel_scales))

    def evaluate(self, lon: Any, lat: Any) -> np.ndarray:
        here, centre = self.position_lonlat, self.map.geom.center_lonlat
        lon = np.asarray(lon, float) - (here[0] - centre[0])
        lat = np.asarray(lat, float) - (here[1] - centre[1])
        inside = np.abs(lat) <= 90.0
        x, y = self.map.geom.lonlat_to_pix(lon, np.where(inside, lat, 0.0))
        return np.where(inside, _bilinear(self._brightness, x, y), 0.0)

    def outline(self) -> list[Outline]:
        """What encloses most of the light in the smallest area, and the image's border.

        The first of several lines has the label.
        """
        found = [("", *self._on_sky(x, y)) for x, y in self._contours]
        if found:
            found[0] = (f"{100.0 * _ENCLOSED:.0f} % of the light", *found[0][1:])
        ny, nx = self.map.geom.shape
        t = np.linspace(0.0, 1.0, 19)
        zero, one = np.zeros_like(t), np.ones_like(t)
        x = np.concatenate([t, one, t[::-1], zero]) * nx - 0.5
        y = np.concatenate([zero, t, one, t[::-1]]) * ny - 0.5
        return [*found, ("image", *self._on_sky(x, y))]

    def _on_sky(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions in its pixels as longitude and latitude where it has been moved to."""
        lon, lat = self.map.geom.pix_to_lonlat(x, y)
        here, centre = self.position_lonlat, self.map.geom.center_lonlat
        turn = (here[0] - centre[0] + 180.0) % 360.0 - 180.0
        lon = lon + turn
        lon = lon + 360.0 * np.round((here[0] - np.nanmean(lon)) / 360.0)
        return lon, np.clip(lat + here[1] - centre[1], -90.0, 90.0)

    @cached_property
    def _contours(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The longest lines, in pixels, around most of the light."""
        # Loaded here: few sources are templates.
        from astropy.nddata import block_reduce
        from contourpy import contour_generator

        size = max(1, math.ceil(max(self._brightness.shape) / _MOST_PIXELS))
        image, area = self._brightness, np.nan_to_num(self.map.geom.solid_angle())
        if size > 1:
            image, area = (block_reduce(a, size, np.mean) for a in (image, area))
        order = np.argsort(-image, axis=None)
        light = np.cumsum((image * area).ravel()[order])
        last = int(np.searchsorted(light, _ENCLOSED * light[-1]))
        level = float(image.ravel()[order[min(last, len(order) - 1)]])
        if not level < image.max():
            return []  # as bright everywhere
        # A dark border closes the lines.
        lines: Any = contour_generator(z=np.pad(image, 1)).lines(level)
        lines = sorted((line for line in lines if len(line) > 3), key=len)[: -_LINES - 1 : -1]
        return [(x, y) for x, y in (size * (line.T - 0.5) - 0.5 for line in lines)]


class ConstantSpatialModel(SpatialModel):
    """The same brightness ``value`` everywhere: it fills the map and has no position."""

    tag = ("ConstantSpatialModel", "const")
    has_position = False
    value = ParameterField(1.0, "sr-1", frozen=True, help="brightness")

    @classmethod
    def fields(cls) -> dict[str, ParameterField]:
        return {k: v for k, v in super().fields().items() if k not in ("lon_0", "lat_0")}

    def __init__(self, frame: str = "icrs", **values: Any) -> None:
        super().__init__(frame=frame, **values)
        self._anchor = (0.0, 0.0)

    @classmethod
    def new_at(cls, lon: float, lat: float, frame: str) -> SpatialModel:
        model = cls(frame=frame)
        model._anchor = (float(lon), float(lat))
        return model

    def copy(self) -> ConstantSpatialModel:
        model = type(self)(self.frame, **{p.name: p for p in self.parameters})
        model._anchor = self._anchor
        return model

    @property
    def position_lonlat(self) -> tuple[float, float]:
        """Where it was put: nothing but where another shape would go that takes its place."""
        return self._anchor

    @property
    def position(self) -> SkyCoord | None:
        return None

    @property
    def evaluation_radius(self) -> u.Quantity:
        return 180.0 * u.deg

    def evaluate(self, lon: Any, lat: Any) -> np.ndarray:
        value = float(self.canonical_values()[0])
        return np.full(np.broadcast_shapes(np.shape(lon), np.shape(lat)), value)

    def reach(self, values: np.ndarray) -> float:
        return 180.0


def read_image(filename: str | os.PathLike[str]) -> WcsNDMap:
    """The first image of a FITS file: two axes on the sky, others of length 1 only."""
    path = Path(os.path.expandvars(os.fspath(filename))).expanduser()
    where = f"template {filename}"
    try:
        with fits.open(path, memmap=False) as hdus:
            for hdu in hdus:
                if getattr(hdu, "is_image", False) and hdu.header.get("NAXIS", 0) >= 2:
                    data, header, name = np.asarray(hdu.data, float), hdu.header, hdu.name
                    break
            else:
                raise ModelError(f"{where}: has no image; expected one with two axes on the sky")
    except (OSError, TypeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelError(f"{where}: cannot be read as FITS: {reason}") from None
    name = name or "PRIMARY"
    if data.size != data.shape[-1] * data.shape[-2]:
        raise ModelError(
            f"{where}, HDU {name}: its shape is {data.shape}; expected one plane, integrated over "
            "energy: an image with an energy axis is not supported"
        )
    wcs = _celestial(header, f"{where}, HDU {name}")
    unit = str(header.get("BUNIT", "")).strip()
    try:
        u.Unit(unit)
    except (ValueError, TypeError):
        raise ModelError(f"{where}, HDU {name}: BUNIT {unit!r} is not a unit") from None
    return WcsNDMap(WcsGeom(wcs, data.shape[-2:]), data.reshape(data.shape[-2:]), unit)


def _celestial(header: fits.Header, where: str) -> WCS:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        try:
            wcs = WCS(header).celestial
        except (ValueError, KeyError, MemoryError) as error:
            raise ModelError(f"{where}: its WCS cannot be read: {error}") from None
    found = [str(name) for name in wcs.wcs.ctype]
    if wcs.naxis != 2 or not found[0].startswith(("GLON", "RA--")):
        raise ModelError(f"{where}: CTYPE {found}; expected galactic or equatorial sky axes")
    return wcs


def _brightness(image: WcsNDMap, normalize: bool, where: str) -> np.ndarray:
    data = np.asarray(image.data, dtype=float)
    if data.ndim != 2:
        raise ModelError(f"{where}: its shape is {data.shape}; expected an image (y, x)")
    bad = ~np.isfinite(data)
    if bad.any():
        raise ModelError(f"{where}: {int(bad.sum())} of its {data.size} pixels are not finite")
    if not data.any():
        raise ModelError(f"{where}: all its pixels are 0")
    if data.min() < 0:
        raise ModelError(f"{where}: a pixel is {data.min():g}; expected 0 or more")
    if normalize:
        data = data / data.sum() / image.geom.solid_angle()
        return np.where(np.isfinite(data), data, 0.0)
    unit = u.Unit(image.unit)
    if unit == u.dimensionless_unscaled:
        return data
    if not unit.is_equivalent("sr-1"):
        raise ModelError(f"{where}: its unit is {image.unit}; expected sr-1, or normalize: true")
    return np.asarray(data * unit.to("sr-1"))


def _bilinear(data: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Values between pixel centres; 0 more than half a pixel beyond the outer ones."""
    ny, nx = data.shape
    with np.errstate(invalid="ignore"):
        inside = (x >= -0.5) & (x <= nx - 0.5) & (y >= -0.5) & (y <= ny - 0.5)
    x, y = (np.clip(np.nan_to_num(v), 0, n - 1) for v, n in ((x, nx), (y, ny)))
    i, j = np.minimum(x.astype(int), max(nx - 2, 0)), np.minimum(y.astype(int), max(ny - 2, 0))
    i1, j1 = np.minimum(i + 1, nx - 1), np.minimum(j + 1, ny - 1)
    fx, fy = x - i, y - j
    low = (1 - fx) * data[j, i] + fx * data[j, i1]
    high = (1 - fx) * data[j1, i] + fx * data[j1, i1]
    return np.where(inside, (1 - fy) * low + fy * high, 0.0)
