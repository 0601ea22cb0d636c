"""Fourier transforms of radial shapes of size 1, as functions of the wave number.

`ball`
    The projection of a full sphere, from which hollow ones are made.
`DiskMixture`
    A shape whose brightness falls with the radius is a sum of disks of many radii.
`Table`
    Such a transform on a grid of wave numbers, for those shapes where it costs much.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import j0, j1

__all__ = ["DiskMixture", "Table", "ball", "disk", "sinc"]


def sinc(x: np.ndarray) -> np.ndarray:
    """sin(x) / x."""
    return np.asarray(np.sinc(x * (1.0 / np.pi)))


def ball(x: np.ndarray) -> np.ndarray:
    """3 (sin x - x cos x) / x^3, the transform of a sphere of radius 1 and content 1."""
    small = np.abs(x) < 0.05
    y = np.where(small, 1.0, x)
    far = 3.0 * (np.sin(y) - y * np.cos(y)) / y**3
    square = x * x
    near = 1.0 - square / 10.0 * (1.0 - square / 28.0 * (1.0 - square / 54.0))
    return np.asarray(np.where(small, near, far))


def disk(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """2 J1(x) / x, the transform of a disk of radius 1 and content 1, and its derivative."""
    zeroth, first = np.asarray(j0(x)), np.asarray(j1(x))
    return _disk(x, zeroth, first)


def _disk(x: np.ndarray, zeroth: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    small = np.abs(x) < 1e-3
    y = np.where(small, 1.0, x)
    value = np.where(small, 1.0 - x * x / 8.0, 2.0 * first / y)
    slope = np.where(small, -x / 4.0, 2.0 * (zeroth - value) / y)
    return value, slope


@dataclass
class DiskMixture:
    """Disks of several radii, one on top of the other.

    The transform at kappa is ``sum(weight R^2 disk(kappa R))``.

    Attributes
    ----------
    radius, weight : ndarray, shape (n,)
    by_extra : ndarray, shape (n,)
        Derivative of the radii by the parameter that spreads them.
    """

    radius: np.ndarray
    weight: np.ndarray
    by_extra: np.ndarray

    def at(self, kappa: np.ndarray) -> np.ndarray:
        """Values at kappa (m,), shape (4, m).

        The transform, its derivatives by kappa and by the parameter, and that of the last by kappa.
        """
        found = np.empty((4, len(kappa)))
        r, w = self.radius, self.weight
        for first in range(0, len(kappa), 256):
            part = slice(first, first + 256)
            x = np.outer(kappa[part], r)
            zeroth, one = j0(x), j1(x)
            value, slope = _disk(x, zeroth, one)
            found[0, part] = value @ (w * r**2)
            found[1, part] = slope @ (w * r**3)
            # d/dR of R^2 disk(kappa R) is 2 R J0(kappa R).
            found[2, part] = zeroth @ (2.0 * w * r * self.by_extra)
            found[3, part] = one @ (-2.0 * w * r**2 * self.by_extra)
        return found


class Table:
    """A transform and its derivatives on a grid of wave numbers, with cubics in between.

    Parameters
    ----------
    mixture : DiskMixture
    stop : float
        Largest wave number.
    step : float
        Between the first nodes; small against the inverse of the shape's extent.
    growth : float
        Far out nodes are as far apart as this part of the wave number; 0 for even steps, which
        a shape with an edge needs, as its transform swings on and on.
    """

    def __init__(self, mixture: DiskMixture, stop: float, step: float, growth: float = 0.0) -> None:
        self.stop, self._step, self._growth = stop, step, growth
        place = np.arange(max(int(np.ceil(self._place(np.array(stop)))), 1) + 2.0)
        kappa = np.sinh(growth * place) * (step / growth) if growth else place * step
        self._value, self._slope, self._extra, self._extra_slope = mixture.at(kappa)
        # By the place among the nodes.
        rate = step * np.cosh(growth * place)
        self._slope *= rate
        self._extra_slope *= rate

    def _place(self, kappa: np.ndarray) -> np.ndarray:
        """Which node a wave number is, in between too."""
        if not self._growth:
            return kappa * (1.0 / self._step)
        return np.asarray(np.arcsinh(kappa * (self._growth / self._step)) / self._growth)

    def at(self, kappa: np.ndarray, slopes: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Value and derivatives by kappa and by the parameter; the last two 0 unless wanted."""
        place = self._place(kappa)
        i = np.minimum(place.astype(np.int32), len(self._value) - 2)
        t = place - i
        a, b = self._value[i], self._value[i + 1]
        c, d = self._slope[i], self._slope[i + 1]
        # Hermite form: a + t (c + t (e + t f)).
        f = 2.0 * (a - b) + c + d
        e = b - a - c - f
        value = a + t * (c + t * (e + t * f))
        if not slopes:
            zero = np.zeros_like(value)
            return value, zero, zero
        slope = (c + t * (2.0 * e + t * (3.0 * f))) / np.hypot(self._step, self._growth * kappa)
        a, b = self._extra[i], self._extra[i + 1]
        c, d = self._extra_slope[i], self._extra_slope[i + 1]
        f = 2.0 * (a - b) + c + d
        e = b - a - c - f
        return value, slope, a + t * (c + t * (e + t * f))
