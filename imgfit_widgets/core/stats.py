"""Fit statistics: what Poisson counts say about a prediction.

`cash` is the statistic of the fit. `PoissonTerm` sums it fast, with derivatives, over a fixed set
of pixels, and stays finite and smooth for predictions that a minimiser drives to zero or below.
`BandSums` does the same in closed form for pixels that hold a scaled background only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from scipy import special

__all__ = [
    "BARE",
    "FLOOR",
    "TRUNCATION",
    "BandSums",
    "PoissonTerm",
    "cash",
    "sigma_of",
    "sum_of_product",
]

TRUNCATION = 1e-25
"""Predictions at or below this are taken as this, as Gammapy does."""

FLOOR = 1e-3
"""`PoissonTerm` bends smoothly below this fraction of the background ..."""

BARE = 1e-12
"""... or below this number of counts, in pixels that have no background."""

_PART = 1 << 15
"""Pixels that are summed in one go."""


def cash(n: np.ndarray, mu: np.ndarray) -> np.ndarray:
    """Cash statistic of each bin, ``2 (mu - n log mu)`` (Cash 1979, ApJ 228, 939).

    Parameters
    ----------
    n, mu : ndarray, same shape
        Counts observed and predicted.
    """
    mu = np.maximum(np.asarray(mu, dtype=float), TRUNCATION)
    return np.asarray(2.0 * (mu - np.asarray(n) * np.log(mu)))


class PoissonTerm:
    """The Cash sum over some pixels as a function of the prediction.

    Below ``floor``, with ``d = 1 - mu / floor``, the prediction mu is replaced by
    ``mu + floor d**3 / 3`` and its logarithm by ``log(floor) - d - d**2 / 2``: continuous up to the
    second derivative, convex in mu, and steep below 0, so that nothing is gained by predictions
    that are negative, where no counts are either. No physical model comes there, whose prediction
    is at least the background.

    Parameters
    ----------
    n : ndarray
        Counts.
    background : ndarray, same shape
        Background at norm 1, which sets the floor.
    mask : ndarray of bool, same shape, or None
        Pixels that count; None for all.
    """

    walled = True
    """Whether `expected` has what the steep part gives. Without it a bin that is below the
    background counts as much as one at it: what an error can be said to be there."""
    is_held = False
    """Whether the prediction would be negative somewhere, when a slope was asked for last: in bins
    with a background, as where there is none rounding alone may make it so."""

    def __init__(self, n: np.ndarray, background: np.ndarray, mask: np.ndarray | None) -> None:
        self.floor = np.maximum(FLOOR * background, BARE)
        self.weight = None if mask is None or bool(mask.all()) else mask.astype(float)
        self.n = np.asarray(n, dtype=float)
        if self.weight is not None:
            self.n = np.where(self.weight > 0, self.n, 0.0)
        self._twice = 2.0 * _or_one(self.weight)
        # Large arrays are used again: making them takes longer than filling them.
        self._log, self._slope = np.empty_like(self.n), np.empty_like(self.n)

    def sum(self, mu: np.ndarray) -> float:
        """The statistic."""
        if (mu < self.floor).any():
            return self.sum_and_slope(mu)[0]
        return self._sum(mu, np.log(mu, out=self._log))

    def sum_and_slope(self, mu: np.ndarray) -> tuple[float, np.ndarray]:
        """The statistic and its derivative with respect to each pixel's prediction.

        The latter holds until the next call.
        """
        n, weight = self.n, self.weight
        low = mu < self.floor
        self.is_held = False
        if low.any():
            below = (mu < -0.01 * self.floor) & (self.floor > BARE)
            self.is_held = bool((below if weight is None else below & (weight > 0)).any())
            held, d = np.where(low, self.floor, mu), np.where(low, 1.0 - mu / self.floor, 0.0)
            positive, log = _bent(held, d)
            slope = 2.0 * ((1.0 - d * d) * _or_one(weight) - (1.0 + d) * n / held)
            return self._sum(positive, log), slope
        slope = np.divide(n, mu, out=self._slope)
        np.subtract(1.0 if weight is None else weight, slope, out=slope)
        slope *= 2.0
        return self._sum(mu, np.log(mu, out=self._log)), slope

    def derivatives(self, mu: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """The statistic and its first two derivatives with respect to each pixel's prediction.

        They hold until the next call.
        """
        stat, slope = self.sum_and_slope(mu)
        if (mu < self.floor).any():
            return stat, slope, self.curvature(mu)
        # 2 n / mu^2 from the slope, 2 (weight - n / mu).
        curvature = np.subtract(self._twice, slope, out=self._log)
        curvature /= mu
        return stat, slope, curvature

    def _sum(self, mu: np.ndarray, log: np.ndarray) -> float:
        total = mu.sum() if self.weight is None else sum_of_product(mu, self.weight).sum()
        return 2.0 * float(total - sum_of_product(self.n, log).sum())

    def curvature(self, mu: np.ndarray) -> np.ndarray:
        """Second derivative of the statistic with respect to each pixel's prediction."""
        low = mu < self.floor
        curvature = 2.0 * self.n / np.where(low, self.floor, mu) ** 2
        if low.any():
            d = np.where(low, 1.0 - mu / self.floor, 0.0)
            curvature += 4.0 * d / self.floor * _or_one(self.weight)
        return np.asarray(curvature)

    def expected(self, mu: np.ndarray) -> np.ndarray:
        """What `curvature` is on average, if the prediction is true."""
        expected = 2.0 / np.maximum(mu, self.floor if self.walled else self.floor / FLOOR)
        if self.weight is not None:
            expected *= self.weight
        return np.asarray(expected)


@dataclass
class BandSums:
    """What the statistic of a scaled background needs to know of some pixels, by band.

    ``counts`` and ``log`` leave out pixels without background, whose statistic is ``fixed``;
    ``bare`` tells whether there are counts in such pixels.
    """

    background: np.ndarray
    counts: np.ndarray
    log: np.ndarray
    fixed: np.ndarray
    bare: bool = False

    @classmethod
    def of(cls, n: np.ndarray, background: np.ndarray, mask: np.ndarray | None) -> BandSums:
        """Sums over pixels (R, y, x), those of the mask if there is one."""
        sums = np.zeros((4, len(n)))
        # By parts, which stay in the processor's cache.
        rows = max(_PART // max(n.shape[2], 1), 1)
        for band, first in product(range(len(n)), range(0, n.shape[1], rows)):
            part = band, slice(first, first + rows)
            counts, expected = n[part], background[part]
            use = ... if mask is None else mask[part]
            counts, expected = counts[use].ravel(), expected[use].ravel()
            sums[0, band] += expected.sum()
            filled = expected > BARE / FLOOR
            if not filled.all():
                # What `PoissonTerm` gives for a prediction of 0.
                sums[3, band] += 2.0 * (1.0 - math.log(BARE)) * counts[~filled].sum()
                counts, expected = counts[filled], expected[filled]
            sums[1, band] += counts.sum()
            sums[2, band] += np.einsum("i,i->", counts, np.log(expected))
        return cls(sums[0], sums[1], sums[2], sums[3], bool(sums[3].any()))

    def minus(self, other: BandSums) -> BandSums:
        return BandSums(
            self.background - other.background,
            self.counts - other.counts,
            self.log - other.log,
            self.fixed - other.fixed,
        )

    def stat(self, factor: np.ndarray) -> float:
        """Statistic of ``factor * background``."""
        if factor.min() < FLOOR:
            return self.stat_and_slope(factor)[0]
        stat = 2.0 * (factor @ self.background - self.counts @ np.log(factor))
        return float(stat) + self._constant

    def stat_and_slope(self, factor: np.ndarray) -> tuple[float, np.ndarray]:
        """The same, and its derivative by each band's factor.

        Bends below `FLOOR` as `PoissonTerm` does.
        """
        held, d = np.maximum(factor, FLOOR), np.maximum(1.0 - factor / FLOOR, 0.0)
        positive, log = _bent(held, d)
        stat = 2.0 * (positive @ self.background - self.counts @ log) + self._constant
        slope = 2.0 * ((1.0 - d * d) * self.background - (1.0 + d) * self.counts / held)
        return float(stat), slope

    @cached_property
    def _constant(self) -> float:
        return float((self.fixed - 2.0 * self.log).sum())

    def curvature(self, factor: np.ndarray) -> np.ndarray:
        """Second derivative by each band's factor."""
        d = np.maximum(1.0 - factor / FLOOR, 0.0)
        of_counts = 2.0 * self.counts / np.maximum(factor, FLOOR) ** 2
        return np.asarray(of_counts + 4.0 * d * self.background / FLOOR)

    def expected(self, factor: np.ndarray) -> np.ndarray:
        """What `curvature` is on average, if the prediction is true."""
        return np.asarray(2.0 * self.background / np.maximum(factor, FLOOR))


def sum_of_product(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """For each band, (R, y, x) to (R,); not through BLAS, whose threads cost more here."""
    return np.asarray(np.einsum("ryx,ryx->r", one, other))


def _bent(held: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What stands for a prediction ``held * (1 - d)`` and for its logarithm, with d 0 or more."""
    return held * (1.0 - d + d**3 / 3.0), np.log(held) - d * (1.0 + 0.5 * d)


def sigma_of(ts: float, dof: int) -> float:
    """Significance in Gaussian sigmas of a test statistic that follows chi2(dof) by chance.

    The two-sided equivalent, so that ``sigma_of(ts, 1) == sqrt(ts)``; by logarithms, so that it
    stays exact where the probability itself underflows.
    """
    if not ts > 0 or dof < 1:
        return 0.0
    half, x = 0.5 * dof, 0.5 * float(ts)
    p = float(special.gammaincc(half, x))
    # Far out, the upper incomplete gamma function by its continued fraction (DLMF 8.9.2).
    log_p = math.log(p) if p > 1e-290 else _log_upper_gamma(half, x)
    return float(-special.ndtri_exp(log_p - math.log(2.0)))


def _log_upper_gamma(a: float, x: float) -> float:
    """Logarithm of the regularised upper incomplete gamma function for x far above a."""
    fraction = 0.0
    for k in range(60, 0, -1):
        fraction = k * (k - a) / (x + 2 * k + 1 - a - fraction)
    value = a * math.log(x) - x - math.log(x + 1 - a - fraction)
    return value - float(special.gammaln(a))


def _or_one(weight: np.ndarray | None) -> np.ndarray | float:
    return 1.0 if weight is None else weight
