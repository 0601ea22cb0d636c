"""Shells: the projection of a hollow sphere that shines evenly between two radii."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy import units as u

from .parameter import ParameterField
from .spatial_base import Outline, SpatialModel, Wave, circle, separation_angle
from .transforms import ball, sinc

__all__ = ["Shell2SpatialModel", "ShellSpatialModel"]

_THIN = 1e-6
"""The thinnest shell, as a part of its radius: thinner ones look the same."""


class _Shell(SpatialModel):
    """What both parametrisations share; ``_radii`` gives the inner and the outer radius."""

    def _radii(self, values: np.ndarray) -> tuple[float, float, np.ndarray]:
        """Inner and outer radius in degrees, and their derivatives: rows inner, outer."""
        raise NotImplementedError

    @property
    def radii(self) -> tuple[float, float]:
        """Inner and outer radius in degrees."""
        return self._radii(self.canonical_values()[2:])[:2]

    def evaluate(self, lon: Any, lat: Any) -> np.ndarray:
        inner, outer = (np.radians(r) for r in self.radii)
        distance = np.radians(separation_angle(*self.position_lonlat, lon, lat)[0])
        norm = 3.0 / (2.0 * np.pi * (outer**3 - inner**3))
        # A root of what is cut off at 0 is never NaN.
        far = np.sqrt(np.maximum(outer**2 - distance**2, 0.0))
        near = np.sqrt(np.maximum(inner**2 - distance**2, 0.0))
        return np.asarray(norm * (far - near))

    def transform(
        self, values: np.ndarray, wave: Wave, slopes: bool
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        inner, outer, jacobian = self._radii(values)
        k = wave.length
        content = outer**3 - inner**3
        value = (outer**3 * ball(k * outer) - inner**3 * ball(k * inner)) / content
        if not slopes:
            return value, []
        # d/dR of R^3 ball(k R) is 3 R^2 sinc(k R).
        by_outer = (3.0 * outer**2 / content) * (sinc(k * outer) - value)
        by_inner = (3.0 * inner**2 / content) * (value - sinc(k * inner))
        return value, [by_inner * a + by_outer * b for a, b in jacobian.T]

    def reach(self, values: np.ndarray) -> float:
        return self._radii(values)[1]

    def outline(self) -> list[Outline]:
        lon, lat = self.position_lonlat
        inner, outer = self.radii
        # The first line is the one that a handle drags.
        lines = [(outer, "outer"), (inner, "inner")]
        if self.size_parameter == "radius":
            lines.reverse()
        return [(label, *circle(lon, lat, r)) for r, label in lines if r > 0]


class ShellSpatialModel(_Shell):
    """A shell from the inner ``radius`` to ``radius + width``."""

    tag = ("ShellSpatialModel", "shell")
    size_parameter = "radius"
    size_names = ("radius", "width")
    radius = ParameterField(0.1, "deg", min=0.0, help="inner radius")
    width = ParameterField(0.05, "deg", min=0.0, help="width of the shell")

    def _radii(self, values: np.ndarray) -> tuple[float, float, np.ndarray]:
        inner = max(float(values[0]), 0.0)
        width = max(float(values[1]), _THIN * inner, 1e-9)
        return inner, inner + width, np.array([[1.0, 0.0], [1.0, 1.0]])

    @property
    def evaluation_radius(self) -> u.Quantity:
        return self.radii[1] * u.deg


class Shell2SpatialModel(_Shell):
    """A shell with the outer radius ``r_0`` and the relative width ``eta``."""

    tag = ("Shell2SpatialModel", "shell2")
    size_parameter = "r_0"
    size_names = ("r_0",)
    r_0 = ParameterField(0.1, "deg", min=0.0, help="outer radius")
    eta = ParameterField(0.2, min=0.02, max=1.0, help="width as a part of the outer radius")

    def _radii(self, values: np.ndarray) -> tuple[float, float, np.ndarray]:
        outer = max(float(values[0]), 1e-9)
        eta = float(np.clip(values[1], _THIN, 1.0))
        return (1.0 - eta) * outer, outer, np.array([[1.0 - eta, -outer], [1.0, 0.0]])

    @property
    def evaluation_radius(self) -> u.Quantity:
        return self.radii[1] * u.deg
