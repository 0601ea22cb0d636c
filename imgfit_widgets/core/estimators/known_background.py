"""Counts over a background that is known: errors, limits and sensitivity of the excess.

All in closed form. The likelihood of an excess s over a background b is that of Cash (1979), ApJ
228, 939: ``2 (b + s - n ln(b + s))``, least at ``s = n - b``. It has risen by ``k**2`` where
``z - ln z = 1 + k**2 / (2 n)`` with ``z = (b + s) / n``, which the two branches of Lambert's W
solve. Arrays of any shape; counts.
"""

from __future__ import annotations

from numbers import Real

import numpy as np
from numpy.typing import NDArray
from scipy.special import lambertw

from ..errors import InputError

FloatArray = NDArray[np.float64]

__all__ = ["check_n_sigma", "errn", "errp", "matching_excess", "upper_limit"]


def check_n_sigma(name: str, value: float) -> float:
    """The value, if it is a number of sigmas.

    Raises
    ------
    InputError
        If it is not above 0 and finite.
    """
    if not (isinstance(value, Real) and np.isfinite(value) and value > 0):
        raise InputError(f"{name}: {value!r} is no number of sigmas; expected more than 0")
    return float(value)


def errn(counts: FloatArray, n_sigma: float = 1.0) -> FloatArray:
    """How far below the best excess the statistic has risen by ``n_sigma**2``; 0 for no counts."""
    return np.asarray(counts * (1.0 - _total_over_counts(counts, n_sigma, 0)))


def errp(counts: FloatArray, n_sigma: float = 1.0) -> FloatArray:
    """How far above the best excess the statistic has risen by ``n_sigma**2``."""
    above = counts * (_total_over_counts(counts, n_sigma, -1) - 1.0)
    return np.where(counts > 0, above, 0.5 * n_sigma**2)


def upper_limit(counts: FloatArray, background: FloatArray, n_sigma: float = 2.0) -> FloatArray:
    """The excess above the best one at which the statistic has risen by ``n_sigma**2``.

    Without counts it is ``n_sigma**2 / 2``, as for no background: an upper limit that the
    background's downward fluctuation does not lower (and Gammapy's choice). With a few counts, far
    fewer than the background, it is counted from a negative excess and may be negative itself;
    `flux_upper_limit` counts from 0.
    """
    excess = np.where(counts > 0, counts - background, 0.0)
    return np.asarray(excess + errp(counts, n_sigma))


def matching_excess(background: FloatArray, n_sigma: float = 5.0) -> FloatArray:
    """The excess over a background that would have a significance of ``n_sigma``.

    NaN where no background is expected.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(background > 0, background, np.nan)
        w = lambertw((0.5 * n_sigma**2 / ratio - 1.0) / np.e, k=0).real
        return np.asarray(ratio * np.expm1(w + 1.0))


def _total_over_counts(counts: FloatArray, n_sigma: float, branch: int) -> FloatArray:
    """The expectation over the counts at which the statistic has risen by ``n_sigma**2``."""
    n = np.where(counts > 0, counts, 1.0)
    found = -lambertw(-np.exp(-1.0 - 0.5 * n_sigma**2 / n), k=branch).real
    return np.where(counts > 0, found, 1.0)
