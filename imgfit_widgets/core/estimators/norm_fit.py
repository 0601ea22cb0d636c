"""The factor on a template that fits Poisson counts best, for many templates at once.

For each of P templates K over a background b, the statistic ``2 sum(b + F K - n ln(b + F K))`` is
convex in F; its slope is brought to 0 by Newton's steps inside a bracket, as in Stewart (2009), A&A
495, 989, appendix A. Pixels where F K is far below b may come as the first three terms of their
series instead of one by one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
AnyFloats = NDArray[np.floating]

__all__ = ["NormFit", "Templates", "fit_norms"]

_STEPS = 60
_ENOUGH = 3e-3
"""Steps end below this many sigmas; Newton's last one leaves about its square."""


@dataclass
class Templates:
    """P templates over their pixels.

    Attributes
    ----------
    ratio : ndarray, shape (P, J)
        K / b of pixels taken one by one.
    counts : ndarray, shape (P, J) or (J,)
    total : ndarray, shape (P,)
        Sum of K over all pixels that are used.
    series : ndarray, shape (3, P)
        ``sum(n (K / b)**k)`` for k of 1, 2, 3 over the other pixels.
    lowest : ndarray, shape (P,)
        The least F, where the prediction reaches 0 in some pixel; below 0.
    """

    ratio: AnyFloats
    counts: AnyFloats
    total: FloatArray
    series: FloatArray
    lowest: FloatArray

    def rows(self, chosen: NDArray[np.bool_]) -> Templates:
        """Some of the templates."""
        counts = self.counts if self.counts.ndim == 1 else self.counts[chosen]
        return Templates(
            self.ratio[chosen],
            counts,
            self.total[chosen],
            self.series[:, chosen],
            self.lowest[chosen],
        )

    def single(self) -> Templates:
        """In single precision: a sum over n counts is off by some 1e-7 of them."""
        ratio, counts = (np.asarray(a, dtype=np.float32) for a in (self.ratio, self.counts))
        return Templates(ratio, counts, self.total, self.series, self.lowest)

    def slopes(self, norm: FloatArray) -> tuple[FloatArray, FloatArray]:
        """First and second derivative of half the statistic, each of shape (P,)."""
        share = norm[:, None].astype(self.ratio.dtype) * self.ratio
        share += 1.0
        # Next to the lowest factor it may be rounded to 0.
        np.maximum(share, np.finfo(share.dtype).eps, out=share)
        np.divide(self.ratio, share, out=share)
        weighted = share * self.counts
        one, two, three = self.series
        first = self.total - weighted.sum(axis=1) - (one - norm * (two - norm * three))
        second = np.einsum("pj,pj->p", weighted, share) + two - 2.0 * norm * three
        return first, second

    def ts(self, norm: FloatArray) -> FloatArray:
        """The statistic at F = 0 minus that at F."""
        one, two, three = self.series
        log = norm[:, None].astype(self.ratio.dtype) * self.ratio
        log += 1.0
        np.maximum(log, np.finfo(log.dtype).eps, out=log)
        np.log(log, out=log)
        tail = norm * (one - norm * (0.5 * two - norm * three / 3.0))
        seen = np.einsum("pj,pj->p", log, np.broadcast_to(self.counts, log.shape))
        return np.asarray(2.0 * (seen + tail - norm * self.total))


@dataclass
class NormFit:
    """Best factors, each array of shape (P,); ``errn, errp, ul`` are empty unless asked for."""

    norm: FloatArray
    err: FloatArray
    ts: FloatArray
    errn: FloatArray
    errp: FloatArray
    ul: FloatArray

    def largest(self) -> FloatArray:
        """The largest size of a factor that was tried, shape (P,)."""
        found = np.abs(self.norm)
        if self.errp.size:
            found = np.maximum(found, np.abs(self.norm + self.errp))
            found = np.maximum(found, np.abs(self.norm - self.errn))
        return np.maximum(found, np.abs(self.ul)) if self.ul.size else found


def fit_norms(
    templates: Templates,
    n_sigma: float = 1.0,
    n_sigma_ul: float = 2.0,
    asymmetric: bool = False,
    limit: bool = False,
) -> NormFit:
    """Fit each template's factor.

    A template without a count under it has its factor at the lowest allowed; its error is the
    distance at which the statistic, a straight line there, has risen by ``n_sigma**2``.
    """
    templates = templates.single()
    norm = _best(templates)
    curvature = np.maximum(templates.slopes(norm)[1], 0.0)
    ts = np.maximum(templates.ts(norm), 0.0)
    straight = 0.5 * n_sigma / templates.total
    with np.errstate(divide="ignore"):
        sigma = np.where(curvature > 0, 1.0 / np.sqrt(curvature), straight)
    err = np.where(curvature > 0, sigma * n_sigma, straight * n_sigma)
    none = np.empty(0)
    errn, errp, ul = none, none, none
    if asymmetric:
        errp = _crossing(templates, norm, ts, sigma, n_sigma, 1.0) - norm
        errn = norm - _crossing(templates, norm, ts, sigma, n_sigma, -1.0)
    if limit:
        ul = _crossing(templates, norm, ts, sigma, n_sigma_ul, 1.0)
    return NormFit(norm, err, ts, errn, errp, ul)


def _best(templates: Templates) -> FloatArray:
    found = np.zeros(len(templates.total))
    rows = np.arange(len(found))
    low, high = templates.lowest.copy(), np.full(len(found), np.inf)
    norm = np.zeros(len(found))
    for _ in range(_STEPS):
        first, second = templates.slopes(norm)
        rises = first > 0
        high = np.where(rises, np.minimum(high, norm), high)
        low = np.where(rises, low, np.maximum(low, norm))
        step = np.divide(-first, second, out=np.full_like(first, -np.inf), where=second > 0)
        # Of a hyperbola with this value and slope: exact where all pixels have one ratio, as a
        # tangent is not, and nearer where they have not.
        step *= np.maximum(1.0 - first / templates.total, 0.1)
        tried = norm + step
        # Beyond the bracket: halfway to its end.
        tried = np.where(tried <= low, 0.5 * (norm + low), tried)
        tried = np.where(tried >= high, 0.5 * (norm + high), tried)
        moved = np.abs(tried - norm)
        far = moved > 1e-9 * np.abs(templates.lowest)
        moved *= np.sqrt(np.maximum(second, 0.0))
        norm = tried
        found[rows] = norm
        going = (moved > _ENOUGH) | (far & (second <= 0))
        if not going.any():
            break
        if np.count_nonzero(going) < 0.6 * len(going):
            # Only those that still move: most pixels need few steps, bright ones many.
            rows, norm, low, high = rows[going], norm[going], low[going], high[going]
            templates = templates.rows(going)
    return found


def _crossing(
    templates: Templates,
    norm: FloatArray,
    ts: FloatArray,
    sigma: FloatArray,
    n_sigma: float,
    sign: float,
) -> FloatArray:
    """Where, beside the best factor, the statistic has risen by ``n_sigma**2``.

    Downwards at most to the lowest factor.
    """
    floor = templates.lowest if sign < 0 else norm
    at = np.maximum(norm + sign * n_sigma * sigma, floor)
    at = np.where(sign < 0, np.maximum(at, norm + 0.9 * (templates.lowest - norm)), at)
    for _ in range(_STEPS):
        excess = ts - templates.ts(at) - n_sigma**2
        slope = 2.0 * templates.slopes(at)[0]
        with np.errstate(divide="ignore", invalid="ignore"):
            step = np.where(sign * slope > 0, -excess / slope, 0.0)
        tried = at + step
        if sign < 0:
            tried = np.where(tried < templates.lowest, 0.5 * (at + templates.lowest), tried)
        else:
            tried = np.where(tried < norm, 0.5 * (at + norm), tried)
        moved = np.abs(tried - at)
        at = tried
        if not np.any(moved > _ENOUGH * sigma):
            break
    return at
