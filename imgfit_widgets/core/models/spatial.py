"""Spatial models: where a source is and how it is spread on the sky.

`PointSpatialModel` for a source smaller than the point spread function, `GaussianSpatialModel` for
an extended one. A further shape is a class with a ``tag``, declared parameters (``lon_0`` and
``lat_0`` first), ``evaluate``, ``evaluation_radius`` and ``outline``, appended to `SPATIAL_MODELS`;
the editor and the handles on the map follow from these.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord

from ..errors import ModelError
from .parameter import ParameterField, ParameterOwner

__all__ = [
    "FRAMES",
    "SPATIAL_MODELS",
    "GaussianSpatialModel",
    "Outline",
    "PointSpatialModel",
    "SpatialModel",
]

FRAMES = ("icrs", "galactic")

Outline = tuple[str, np.ndarray, np.ndarray]
"""Label, longitudes and latitudes in degrees of the model's frame: a closed line."""


class SpatialModel(ParameterOwner):
    """Base: a normalised distribution on the sky around (lon_0, lat_0) in ``frame``."""

    kind = "spatial"
    size_parameter: ClassVar[str | None] = None
    """The parameter that a size handle on the map drags, if there is one."""

    lon_0 = ParameterField(0.0, "deg", help="longitude of the centre")
    lat_0 = ParameterField(0.0, "deg", min=-90.0, max=90.0, help="latitude of the centre")

    def __init__(self, frame: str = "icrs", **values: Any) -> None:
        if frame not in FRAMES:
            raise ModelError(
                f"{self.tag[0]}: frame {frame!r} is not known; expected {' or '.join(FRAMES)}"
            )
        self.frame = frame
        super().__init__(**values)

    @property
    def position_lonlat(self) -> tuple[float, float]:
        """(lon_0, lat_0) in degrees of the model's frame."""
        lon, lat = self.lon_0, self.lat_0
        return lon.value * lon.factor_to_expected, lat.value * lat.factor_to_expected

    @property
    def position(self) -> SkyCoord:
        """The centre."""
        lon, lat = self.position_lonlat
        return SkyCoord(lon, lat, unit="deg", frame=self.frame)

    @property
    def evaluation_radius(self) -> u.Quantity:
        """Beyond this distance from the centre the model is negligible."""
        raise NotImplementedError

    def evaluate(self, lon: Any, lat: Any) -> np.ndarray:
        """Surface brightness in sr-1 at positions in degrees of the model's frame."""
        raise NotImplementedError

    def outline(self) -> list[Outline]:
        """Lines to draw on a map, without the point spread function; none for a point."""
        return []

    @classmethod
    def new_at(cls, lon: float, lat: float, frame: str) -> SpatialModel:
        """A model of default shape at a position in degrees."""
        return cls(frame=frame, lon_0=float(lon), lat_0=float(lat))


class PointSpatialModel(SpatialModel):
    """A point."""

    tag = ("PointSpatialModel", "point")

    @property
    def evaluation_radius(self) -> u.Quantity:
        return 0.0 * u.deg

    def evaluate(self, lon: Any, lat: Any) -> np.ndarray:
        return np.where(_separation(self, lon, lat) == 0, np.inf, 0.0)


class GaussianSpatialModel(SpatialModel):
    """A Gaussian of standard deviation ``sigma`` in each direction.

    ``e`` and ``phi`` are kept for Gammapy's files; a fit refuses an elongated one.
    """

    tag = ("GaussianSpatialModel", "gauss")
    size_parameter = "sigma"
    sigma = ParameterField(0.1, "deg", min=0.0, help="standard deviation along each axis")
    e = ParameterField(0.0, min=0.0, max=1.0, frozen=True, help="eccentricity")
    phi = ParameterField(
        0.0, "deg", min=-180.0, max=180.0, frozen=True, help="rotation of the major axis"
    )

    @property
    def _sigma_deg(self) -> float:
        return float(self.sigma.value * self.sigma.factor_to_expected)

    @property
    def evaluation_radius(self) -> u.Quantity:
        return 5.0 * self._sigma_deg * u.deg

    def evaluate(self, lon: Any, lat: Any) -> np.ndarray:
        sigma = np.radians(self._sigma_deg)
        distance = np.radians(_separation(self, lon, lat))
        # On the sphere exp((cos d - 1) / sigma^2), normalised: the planar Gaussian when small.
        norm = 2 * np.pi * sigma**2 * -np.expm1(-2 / sigma**2)
        return np.asarray(np.exp(-2 * np.sin(distance / 2) ** 2 / sigma**2) / norm)

    def outline(self) -> list[Outline]:
        lon, lat = self.position_lonlat
        return [("1\N{GREEK SMALL LETTER SIGMA}", *circle(lon, lat, self._sigma_deg))]


SPATIAL_MODELS: list[type[SpatialModel]] = [PointSpatialModel, GaussianSpatialModel]


def circle(lon: float, lat: float, radius: float, n: int = 73) -> tuple[np.ndarray, np.ndarray]:
    """A circle on the sky as a closed line; all in degrees, longitudes near ``lon``."""
    angle = np.linspace(0.0, 2 * np.pi, n)
    r, b = np.radians(radius), np.radians(lat)
    sin_lat = np.sin(b) * np.cos(r) + np.cos(b) * np.sin(r) * np.cos(angle)
    east = np.sin(angle) * np.sin(r) * np.cos(b)
    dlon = np.arctan2(east, np.cos(r) - np.sin(b) * sin_lat)
    return lon + np.degrees(dlon), np.degrees(np.arcsin(np.clip(sin_lat, -1.0, 1.0)))


def _separation(model: SpatialModel, lon: Any, lat: Any) -> np.ndarray:
    """Distance from the model's centre in degrees (haversine, exact for small angles)."""
    lon_0, lat_0 = (np.radians(v) for v in model.position_lonlat)
    lon, lat = np.radians(np.asarray(lon, float)), np.radians(np.asarray(lat, float))
    half = (
        np.sin((lat - lat_0) / 2) ** 2
        + np.cos(lat) * np.cos(lat_0) * np.sin((lon - lon_0) / 2) ** 2
    )
    return np.asarray(np.degrees(2 * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0)))))
