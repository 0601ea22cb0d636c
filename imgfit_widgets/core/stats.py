"""Fit statistics: what Poisson counts say about a prediction.

`cash` is the statistic of the fit. `PoissonTerm` sums it fast, with derivatives, over a fixed set
of pixels, and stays finite and smooth for predictions that a minimiser drives to zero or below.
"""

from __future__ import annotations

import numpy as np
from scipy import stats as scipy_stats

__all__ = ["TRUNCATION", "PoissonTerm", "cash", "sigma_of"]

TRUNCATION = 1e-25
"""Predictions at or below this are taken as this, as Gammapy does."""

FLOOR = 1e-3
"""`PoissonTerm` bends smoothly below this fraction of the background."""


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

    Below ``floor`` the prediction mu is replaced by ``floor exp(mu / floor - 1)``: continuous with
    its first derivative, positive, convex in mu, and never reached by a physical model, whose
    prediction is at least the background.

    Parameters
    ----------
    n : ndarray
        Counts.
    background : ndarray, same shape
        Background at norm 1, which sets the floor.
    mask : ndarray of bool, same shape, or None
        Pixels that count; None for all.
    """

    def __init__(self, n: np.ndarray, background: np.ndarray, mask: np.ndarray | None) -> None:
        self.floor = np.maximum(FLOOR * background, TRUNCATION)
        self.weight = None if mask is None or bool(mask.all()) else mask.astype(float)
        self.n = np.asarray(n, dtype=float)
        if self.weight is not None:
            self.n = self.n * self.weight

    def sum(self, mu: np.ndarray) -> float:
        """The statistic."""
        return self.sum_and_slope(mu)[0]

    def sum_and_slope(self, mu: np.ndarray) -> tuple[float, np.ndarray]:
        """The statistic and its derivative with respect to each pixel's prediction."""
        n, weight = self.n, self.weight
        low = mu < self.floor
        if low.any():
            bent = np.where(low, mu / self.floor - 1.0, 0.0)
            positive = np.where(low, self.floor * np.exp(np.maximum(bent, -700.0)), mu)
            log = np.log(np.where(low, self.floor, mu)) + bent
            slope = 2.0 * (positive / np.where(low, self.floor, mu) * _or_one(weight))
            slope -= 2.0 * n / np.where(low, self.floor, mu)
        else:
            positive, log = mu, np.log(mu)
            slope = n / mu
            np.subtract(1.0 if weight is None else weight, slope, out=slope)
            slope *= 2.0
        total = positive.sum() if weight is None else np.vdot(positive, weight)
        return 2.0 * float(total - np.vdot(n, log)), slope

    def curvature(self, mu: np.ndarray) -> np.ndarray:
        """Second derivative of the statistic with respect to each pixel's prediction."""
        low = mu < self.floor
        curvature = 2.0 * self.n / np.where(low, np.inf, mu) ** 2
        if low.any():
            bent = np.exp(np.clip(mu / self.floor - 1.0, -700.0, 0.0)) / self.floor
            curvature += np.where(low, 2.0 * bent * _or_one(self.weight), 0.0)
        return np.asarray(curvature)


def sigma_of(ts: float, dof: int) -> float:
    """Significance in Gaussian sigmas of a test statistic that follows chi2(dof) by chance.

    The two-sided equivalent, so that ``sigma_of(ts, 1) == sqrt(ts)``; by logarithms, so that it
    stays exact where the probability itself underflows.
    """
    if not ts > 0 or dof < 1:
        return 0.0
    log_p = float(scipy_stats.chi2.logsf(ts, dof))
    if log_p > -600.0:
        return float(-scipy_stats.norm.ppf(0.5 * np.exp(log_p)))
    # Far tails: solve log(2 Q(z)) = log p by Newton; d log Q / dz tends to -z.
    if not np.isfinite(log_p):
        half = 0.5 * dof
        log_p = (half - 1.0) * np.log(0.5 * ts) - 0.5 * ts - float(_log_gamma(half))
    z = np.sqrt(-2.0 * log_p)
    for _ in range(20):
        z += (np.log(2.0) + float(scipy_stats.norm.logsf(z)) - log_p) / z
    return float(z)


def _log_gamma(value: float) -> float:
    from scipy.special import gammaln

    return float(gammaln(value))


def _or_one(weight: np.ndarray | None) -> np.ndarray | float:
    return 1.0 if weight is None else weight
