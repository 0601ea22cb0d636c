"""Gaussian shapes, round or elliptical: `GaussianSpatialModel` and, with a further parameter for
how steeply it falls, `GeneralizedGaussianSpatialModel`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from astropy import units as u
from scipy.special import digamma, gamma, gammaincc

from .parameter import ParameterField
from .spatial_base import EllipticModel, Outline, ellipse, separation_angle
from .transforms import DiskMixture, Table

__all__ = ["GaussianSpatialModel", "GeneralizedGaussianSpatialModel"]


class GaussianSpatialModel(EllipticModel):
    """A Gaussian of standard deviation ``sigma`` along the major axis, sqrt(1 - e^2) of it across.

    ``phi`` is the direction of the major axis from North towards East.
    """

    tag = ("GaussianSpatialModel", "gauss")
    size_parameter = "sigma"
    size_names = even_names = ("sigma",)
    sigma = ParameterField(0.1, "deg", min=0.0, help="standard deviation along the major axis")
    e = ParameterField(0.0, min=0.0, max=1.0, frozen=True, help="eccentricity")
    phi = ParameterField(
        0.0, "deg", min=-180.0, max=180.0, frozen=True, help="rotation of the major axis"
    )

    @property
    def evaluation_radius(self) -> u.Quantity:
        return 5.0 * self.semi_axes[0] * u.deg

    def evaluate(self, lon: Any, lat: Any) -> np.ndarray:
        if self.e.value:
            return np.asarray(np.exp(-0.5 * self.radius(lon, lat) ** 2) / (2.0 * self._area))
        sigma = np.radians(self.semi_axes[0])
        distance = np.radians(separation_angle(*self.position_lonlat, lon, lat)[0])
        # On the sphere exp((cos d - 1) / sigma^2), normalised: the planar Gaussian when small.
        norm = 2 * np.pi * sigma**2 * -np.expm1(-2 / sigma**2)
        return np.asarray(np.exp(-2 * np.sin(distance / 2) ** 2 / sigma**2) / norm)

    def radial(
        self, kappa: np.ndarray, extra: np.ndarray, slopes: bool
    ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        value = np.exp(-0.5 * kappa * kappa)
        return value, -kappa * value, []

    def _radial_curvature(
        self, kappa: np.ndarray, extra: np.ndarray
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        square = kappa * kappa
        return (square - 1.0) * np.exp(-0.5 * square), []

    def reach(self, values: np.ndarray) -> float:
        return 4.3 * abs(float(values[0]))

    def outline(self) -> list[Outline]:
        lon, lat = self.position_lonlat
        return [("1\N{GREEK SMALL LETTER SIGMA}", *ellipse(lon, lat, *self.semi_axes))]


class GeneralizedGaussianSpatialModel(EllipticModel):
    """``exp(-rho**(1 / eta))``, normalised: a disk for eta → 0, a Gaussian at 0.5, Laplace at 1.

    ``rho`` is the elliptical radius in units of ``r_0``; as in Gammapy, at eta = 0.5 the standard
    deviation is r_0 / sqrt(2).
    """

    tag = ("GeneralizedGaussianSpatialModel", "gauss-general")
    size_parameter = "r_0"
    size_names = even_names = ("r_0",)
    r_0 = ParameterField(0.1, "deg", min=0.0, help="radius where it has fallen by 1/e")
    eta = ParameterField(0.5, min=0.01, max=1.0, help="0 to 1: how slowly it falls")
    e = ParameterField(0.0, min=0.0, max=1.0, frozen=True, help="eccentricity")
    phi = ParameterField(
        0.0, "deg", min=-180.0, max=180.0, frozen=True, help="rotation of the major axis"
    )

    @property
    def evaluation_radius(self) -> u.Quantity:
        return self.semi_axes[0] * (1.0 + 8.0 * self.eta.value) * u.deg

    def evaluate(self, lon: Any, lat: Any) -> np.ndarray:
        eta = self.eta.value
        norm = 2.0 * self._area * eta * gamma(2.0 * eta)
        with np.errstate(over="ignore"):
            return np.asarray(np.exp(-(self.radius(lon, lat) ** (1.0 / eta))) / norm)

    def radial(
        self, kappa: np.ndarray, extra: np.ndarray, slopes: bool
    ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        eta = float(extra[0])
        # Rounded up, so that a fit with a moving size finds the same table again.
        stop = 2.0 ** (math.ceil(4.0 * math.log2(max(float(kappa.max(initial=1.0)), 4.0))) / 4.0)
        value, slope, by_eta = _generalised(eta, stop).at(kappa, slopes)
        return value, slope, [by_eta - 2.0 * digamma(1.0 + 2.0 * eta) * value]

    def reach(self, values: np.ndarray) -> float:
        eta = float(np.clip(values[1], 0.01, 1.0))
        # The flux beyond rho is the incomplete gamma function of rho^(1/eta).
        t = np.linspace(0.0, 30.0, 601)
        beyond = float(t[np.argmax(gammaincc(2.0 * eta, t) < 1e-4)])
        return float(abs(float(values[0])) * beyond**eta)

    def outline(self) -> list[Outline]:
        lon, lat = self.position_lonlat
        return [("r\N{SUBSCRIPT ZERO}", *ellipse(lon, lat, *self.semi_axes))]


@lru_cache(maxsize=16)
def _generalised(eta: float, stop: float) -> Table:
    """``exp(-rho**(1/eta))`` as disks of radius t^eta, t spread as exp(-t); normalised."""
    last = 26.0
    extent = last**eta
    # Nodes in s, t = s^2 where radii vary slowly, or even in the logarithm for a steep edge.
    low, high = math.log(1e-9), math.log(last)
    count = 48 + int(0.6 * stop * extent)
    nodes, weights = _legendre(min(48 * math.ceil(count / 48), 1200))
    if eta < 0.25:
        log_t = 0.5 * (high - low) * nodes + 0.5 * (high + low)
        t = np.exp(log_t)
        weight = 0.5 * (high - low) * weights * t
    else:
        # Even steps in the radius, whose oscillation has to be followed.
        radius = 0.5 * extent * (nodes + 1.0)
        t = radius ** (1.0 / eta)
        log_t = np.log(t)
        weight = 0.5 * extent * weights * radius ** (1.0 / eta - 1.0) / eta
    weight = weight * np.exp(-t) / gamma(1.0 + 2.0 * eta)
    radius = np.exp(eta * log_t)
    mixture = DiskMixture(radius, weight, radius * log_t)
    growth = 0.05 if eta > 0.5 else 0.0  # without an edge
    return Table(mixture, stop, 0.25 / max(1.0, 12.0**eta), growth)


@lru_cache(maxsize=32)
def _legendre(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the integral over [-1, 1]."""
    return np.polynomial.legendre.leggauss(count)
