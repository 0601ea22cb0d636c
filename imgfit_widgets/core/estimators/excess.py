"""Excess over an expectation within a circle around every pixel, and its significance."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from ..errors import DataError

FloatArray = NDArray[np.float64]


class ExcessMaps(NamedTuple):
    """Sums within the circle around each pixel, all of shape (ny, nx); NaN outside the mask."""

    counts: FloatArray
    expected: FloatArray
    excess: FloatArray
    sqrt_ts: FloatArray


def disk_sum(image: FloatArray, radius: float, radius_y: float | None = None) -> FloatArray:
    """Sum of an image over the pixels whose centres lie within a radius (in pixels) of each.

    One running sum per row of the disk, so the cost grows with the radius and not its square.
    Where pixels are not square on the sky, the disk is an ellipse with ``radius`` along x and
    ``radius_y`` along y.
    """
    radius_y = radius if radius_y is None else radius_y
    reach = int(np.floor(radius + 1e-9))
    reach_y = int(np.floor(radius_y + 1e-9))
    ny, nx = image.shape
    running = np.zeros((ny, nx + 2 * reach + 1))
    np.cumsum(image, axis=1, out=running[:, reach + 1 : reach + 1 + nx])
    running[:, reach + 1 + nx :] = running[:, reach + nx : reach + nx + 1]
    total = np.zeros((ny, nx))
    for dy in range(-min(reach_y, ny - 1), min(reach_y, ny - 1) + 1):
        share = 1.0 - (dy / radius_y) ** 2 if dy else 1.0
        half = int(np.floor(radius * np.sqrt(max(share, 0.0)) + 1e-9))
        rows = running[max(0, dy) : min(ny, ny + dy)]
        inside = total[max(0, -dy) : min(ny, ny - dy)]
        inside += rows[:, reach + half + 1 : reach + half + 1 + nx]
        inside -= rows[:, reach - half : reach - half + nx]
    return total


def sqrt_ts(counts: FloatArray, expected: FloatArray) -> FloatArray:
    """Signed significance of counts over an expectation that is known.

    ``sign(n - mu) sqrt(2 (n ln(n / mu) - n + mu))``: Cash (1979), ApJ 228, 939, with the excess
    at its best value. NaN where nothing is expected.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        ts = 2.0 * (xlogy(counts, counts / expected) - counts + expected)
        value = np.copysign(np.sqrt(np.maximum(ts, 0.0)), counts - expected)
    return np.where(expected > 0, value, np.nan)


class Significance:
    """`sqrt_ts` within circles of the same counts over one expectation after another.

    What the expectation does not change is computed once, as a drag asks for.

    Parameters
    ----------
    counts : ndarray, shape (ny, nx)
    mask : ndarray of bool, shape (ny, nx)
        Pixels that are used; sums leave the others out.
    radius, radius_y : float
        As for `disk_sum`.
    """

    def __init__(
        self,
        counts: FloatArray,
        mask: NDArray[np.bool_],
        radius: float,
        radius_y: float | None = None,
    ) -> None:
        self._unused, self._radii = ~mask, (radius, radius_y)
        self._counts = _whole(disk_sum(np.where(mask, counts, 0.0), radius, radius_y), counts)
        self._own = xlogy(self._counts, self._counts) - self._counts

    def __call__(self, expected: FloatArray) -> FloatArray:
        """The map of an expectation, shape (ny, nx); NaN outside the mask."""
        mu = disk_sum(np.where(self._unused, 0.0, expected), *self._radii)
        mu[self._unused | ~(mu > 0)] = np.nan
        half_ts = self._own + mu
        half_ts -= self._counts * np.log(mu)
        np.maximum(half_ts, 0.0, out=half_ts)
        return np.copysign(np.sqrt(2.0 * half_ts), self._counts - mu)


def _whole(sums: FloatArray, counts: FloatArray) -> FloatArray:
    """Sums of counts without the rounding noise that differences of running sums leave."""
    return np.rint(sums) if np.all(counts == np.rint(counts)) else sums


def excess_maps(
    counts: FloatArray,
    expected: FloatArray,
    mask: NDArray[np.bool_],
    radius: float,
    radius_y: float | None = None,
) -> ExcessMaps:
    """Counts, expectation, excess and significance within a circle around each pixel.

    Parameters
    ----------
    counts, expected : ndarray, shape (ny, nx)
    mask : ndarray of bool, shape (ny, nx)
        Pixels that are used; sums leave the others out.
    radius, radius_y : float
        Correlation radius in pixels along x and, by default the same, y; 0 for each pixel by
        itself.

    Raises
    ------
    DataError
        If the radius is negative.
    """
    if not radius >= 0:
        raise DataError(f"correlation radius: {radius:g} pixels; expected 0 or more")
    n = _whole(disk_sum(np.where(mask, counts, 0.0), radius, radius_y), counts)
    mu = disk_sum(np.where(mask, expected, 0.0), radius, radius_y)
    maps = (n, mu, n - mu, sqrt_ts(n, mu))
    return ExcessMaps(*(np.where(mask, values, np.nan) for values in maps))
