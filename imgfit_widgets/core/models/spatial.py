"""Spatial models: where a source is and how it is spread on the sky.

`PointSpatialModel` for a source smaller than the point spread function; `GaussianSpatialModel`,
`GeneralizedGaussianSpatialModel` and `DiskSpatialModel` for extended ones, round or elliptical;
`ShellSpatialModel` and `Shell2SpatialModel` for the projection of a hollow sphere;
`TemplateSpatialModel` for an image of another instrument; `ConstantSpatialModel` for emission that
fills the map.

A further shape is a class with a ``tag``, declared parameters (``lon_0`` and ``lat_0`` first),
``evaluate``, ``transform``, ``reach``, ``evaluation_radius`` and ``outline``, appended to
`SPATIAL_MODELS`; the editor, the handles on the map and the fit follow from these.
"""

from __future__ import annotations

import numpy as np
from astropy import units as u

from .disk import DiskSpatialModel
from .gauss import GaussianSpatialModel, GeneralizedGaussianSpatialModel
from .shell import Shell2SpatialModel, ShellSpatialModel
from .spatial_base import (
    FRAMES,
    EllipticModel,
    Outline,
    SpatialModel,
    Wave,
    circle,
    ellipse,
    separation_angle,
)
from .template import ConstantSpatialModel, TemplateSpatialModel

__all__ = [
    "FRAMES",
    "SPATIAL_MODELS",
    "ConstantSpatialModel",
    "DiskSpatialModel",
    "EllipticModel",
    "GaussianSpatialModel",
    "GeneralizedGaussianSpatialModel",
    "Outline",
    "PointSpatialModel",
    "Shell2SpatialModel",
    "ShellSpatialModel",
    "SpatialModel",
    "TemplateSpatialModel",
    "Wave",
    "circle",
    "ellipse",
]


class PointSpatialModel(SpatialModel):
    """A point."""

    tag = ("PointSpatialModel", "point")

    @property
    def evaluation_radius(self) -> u.Quantity:
        return 0.0 * u.deg

    def evaluate(self, lon: object, lat: object) -> np.ndarray:
        distance = separation_angle(*self.position_lonlat, lon, lat)[0]
        return np.where(distance == 0, np.inf, 0.0)

    def transform(
        self, values: np.ndarray, wave: Wave, slopes: bool
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        return np.ones_like(wave.length), []

    def reach(self, values: np.ndarray) -> float:
        return 0.0


SPATIAL_MODELS: list[type[SpatialModel]] = [
    PointSpatialModel,
    GaussianSpatialModel,
    DiskSpatialModel,
    ShellSpatialModel,
    Shell2SpatialModel,
    GeneralizedGaussianSpatialModel,
    TemplateSpatialModel,
    ConstantSpatialModel,
]
