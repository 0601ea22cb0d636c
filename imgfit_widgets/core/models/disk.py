"""The disk, round or elliptical, with a sharp or soft edge."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from astropy import units as u
from scipy.special import erf

from .parameter import ParameterField
from .spatial_base import EllipticModel, Outline, ellipse
from .transforms import DiskMixture, Table, disk

__all__ = ["DiskSpatialModel"]

EDGE = 2.326174307353347
"""Twice erfinv(0.9): the edge falls from 95 % to 5 % over ``edge_width``."""


class DiskSpatialModel(EllipticModel):
    """Constant brightness within ``r_0``, or within an ellipse of that major semi-axis.

    ``edge_width`` is the part of the radius over which the brightness falls from 95 % to 5 %. As in
    Gammapy the brightness inside is that of the sharp disk, whatever the edge: a soft one contains
    ``1 + (edge_width / 3.29)**2`` of the flux.
    """

    tag = ("DiskSpatialModel", "disk")
    size_parameter = "r_0"
    size_names = even_names = ("r_0",)
    r_0 = ParameterField(0.1, "deg", min=0.0, help="radius, or major semi-axis")
    e = ParameterField(0.0, min=0.0, max=1.0, frozen=True, help="eccentricity")
    phi = ParameterField(
        0.0, "deg", min=-180.0, max=180.0, frozen=True, help="rotation of the major axis"
    )
    edge_width = ParameterField(
        0.01, min=0.0, max=1.0, frozen=True, help="width of the edge, as a part of the radius"
    )

    @property
    def evaluation_radius(self) -> u.Quantity:
        return 1.1 * self.semi_axes[0] * (1.0 + self.edge_width.value) * u.deg

    def evaluate(self, lon: Any, lat: Any) -> np.ndarray:
        beyond = self.radius(lon, lat) - 1.0
        width = self.edge_width.value
        if width > 0:
            inside = 0.5 * (1.0 - erf(beyond * (EDGE / width)))
        else:
            inside = (beyond < 0).astype(float)
        return np.asarray(inside / self._area)

    def radial(
        self, kappa: np.ndarray, extra: np.ndarray, slopes: bool
    ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        width = max(float(extra[0]), 0.0)
        if not width > 0:
            value, slope = disk(kappa)
            return value, slope, [np.zeros_like(value)]
        stop = 2.0 ** (math.ceil(2.0 * math.log2(max(float(kappa.max(initial=1.0)), 8.0))) / 2.0)
        value, slope, by_edge = _soft(width, stop).at(kappa, slopes)
        return value, slope, [by_edge]

    def reach(self, values: np.ndarray) -> float:
        return abs(float(values[0])) * (1.0 + 0.9 * abs(float(values[3])))

    def outline(self) -> list[Outline]:
        lon, lat = self.position_lonlat
        return [("r\N{SUBSCRIPT ZERO}", *ellipse(lon, lat, *self.semi_axes))]


@lru_cache(maxsize=16)
def _soft(width: float, stop: float) -> Table:
    """A disk with a soft edge: disks whose radii are spread like a Gaussian around 1."""
    to_sigma = 1.0 / (EDGE * math.sqrt(2.0))
    sigma = width * to_sigma
    low, high = max(-6.5, -1.0 / sigma), 6.5
    nodes, weights = np.polynomial.legendre.leggauss(24 + int(4.0 * sigma * min(stop, 40 / sigma)))
    z = 0.5 * (high - low) * nodes + 0.5 * (high + low)
    weight = 0.5 * (high - low) * weights * np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    mixture = DiskMixture(1.0 + sigma * z, weight, z * to_sigma)
    return Table(mixture, stop, 0.15)
