"""The pixels of a TS map, block by block: pure arrays, so that blocks can go to other processes.

In a block, pixels close to the source are taken one by one. Further out the source is far below
the background, and three terms of a series stand for all pixels; where that would not be exact
(bright sources, hardly any background) every pixel with counts is taken one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, next_fast_len, rfft2

from ..products import product
from ..response import PixelPosition
from .kernels import SourceImages, Stamps
from .norm_fit import NormFit, Templates, fit_norms

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

__all__ = ["BLOCK", "Layer", "Strip", "run_strip"]

BLOCK = 24
"""Pixels along each side of a block, at most."""
_SMALL = 0.05
"""Up to this source over background the series holds: its next term is 2e-6 of a count."""
_CHUNK = 64


@dataclass
class Layer:
    """One energy bin of one dataset, on the rows of a strip with ``half`` pixels more on each side.

    Attributes
    ----------
    counts, inverse : ndarray, shape (rows + 2 half_y, nx + 2 half_x)
        Counts, and 1 over the background; 0 where pixels are not used.
    images : int
        Index into `Strip.images`.
    bin : int
        Index among the bins of these images.
    """

    counts: FloatArray
    inverse: FloatArray
    images: int
    bin: int


@dataclass
class Strip:
    """Some rows of the map: where TS is wanted, and all that is needed for it."""

    first_row: int
    wanted: BoolArray
    layers: list[Layer]
    images: list[SourceImages]
    positions: list[PixelPosition]
    half: tuple[int, int]
    block: int
    """Columns of a block, over which the projection hardly varies."""
    core: FloatArray
    """Offsets (n, 2) along y and x of the pixels that are taken one by one."""
    n_sigma: float
    n_sigma_ul: float
    asymmetric: bool
    limit: bool


@dataclass
class _Seen:
    """A layer in a block."""

    counts: FloatArray
    inverse: FloatArray
    mixture: FloatArray
    stamps: Stamps


def run_strip(strip: Strip, tick: Callable[[float], None] | None = None) -> dict[str, FloatArray]:
    """Fit every wanted pixel of a strip.

    Parameters
    ----------
    tick : callable, optional
        Called before each block with the share of the strip that is done.

    Returns
    -------
    dict of ndarray
        ``norm, norm_err, ts, npred_excess`` and what was asked for, each of shape
        ``strip.wanted.shape`` and NaN where not wanted.
    """
    names = ["norm", "norm_err", "ts", "npred_excess"]
    names += ["norm_errn", "norm_errp"] if strip.asymmetric else []
    names += ["norm_ul"] if strip.limit else []
    maps = {name: np.full(strip.wanted.shape, np.nan) for name in names}
    nx = strip.wanted.shape[1]
    for x0 in range(0, nx, strip.block):
        if tick is not None:
            tick(x0 / nx)
        x1 = min(x0 + strip.block, nx)
        y, x = np.nonzero(strip.wanted[:, x0:x1])
        if not len(y):
            continue
        fit, total = _block(strip, x0, x1, y, x)
        found = [fit.norm, fit.err, fit.ts, fit.norm * total]
        found += [fit.errn, fit.errp] if strip.asymmetric else []
        found += [fit.ul] if strip.limit else []
        for name, values in zip(names, found, strict=True):
            maps[name][y, x0 + x] = np.where(total > 0, values, np.nan)
    return maps


def _block(
    strip: Strip, x0: int, x1: int, y: NDArray[np.intp], x: NDArray[np.intp]
) -> tuple[NormFit, FloatArray]:
    half_x = strip.half[1]
    rows, nx = strip.wanted.shape
    pixels = y * nx + x0 + x
    mixtures = [images.at(pixels).mixtures() for images in strip.images]
    middle = 0.5 * (x0 + x1 - 1), strip.first_row + 0.5 * (rows - 1)
    stamps = [
        Stamps.at(images.widths, position, *middle, strip.half)
        for images, position in zip(strip.images, strip.positions, strict=True)
    ]
    cut = slice(x0, x1 + 2 * half_x)
    seen = [
        _Seen(
            layer.counts[:, cut],
            layer.inverse[:, cut],
            mixtures[layer.images][layer.bin],
            stamps[layer.images],
        )
        for layer in strip.layers
    ]
    total = np.zeros(len(y))
    for one in seen:
        mask = one.inverse > 0
        if mask.all():
            total += one.mixture @ one.stamps.whole()
        else:
            sums = one.stamps.sums(mask.astype(float))[y, x]
            total += np.einsum("pw,pw->p", sums, one.mixture)
    total = np.where(total > 0, total, 0.0)
    safe = np.where(total > 0, total, 1.0)
    lowest, near = _near(strip, seen, y, x, safe)

    def fit(templates: Templates) -> NormFit:
        return fit_norms(templates, strip.n_sigma, strip.n_sigma_ul, strip.asymmetric, strip.limit)

    if near is None:
        result, bad = None, np.arange(len(y))
    else:
        templates, tail = near
        result = fit(templates)
        bad = np.flatnonzero(result.largest() * tail > _SMALL)
    for start in range(0, len(bad), _CHUNK):
        some = bad[start : start + _CHUNK]
        better = fit(_whole(strip, seen, y[some], x[some], some, safe[some], lowest[some]))
        result = _empty_like(better, len(y)) if result is None else result
        for name, values in vars(better).items():
            if values.size:
                getattr(result, name)[some] = values
    if result is None:
        raise AssertionError("a block without pixels")
    return result, total


def _empty_like(fit: NormFit, count: int) -> NormFit:
    return NormFit(**{name: np.zeros(count if v.size else 0) for name, v in vars(fit).items()})


def _near(
    strip: Strip,
    seen: list[_Seen],
    y: NDArray[np.intp],
    x: NDArray[np.intp],
    total: FloatArray,
) -> tuple[FloatArray, tuple[Templates, FloatArray] | None]:
    """The lowest factors; and templates of pixels nearby, with how large the source is beyond.

    No templates if taking all counts one by one is less work.
    """
    half_y, half_x = strip.half
    dy, dx = strip.core.T.astype(int)
    ratios, counts, series = [], [], np.zeros((3, len(y)))
    steepest, tail = np.zeros(len(y)), np.zeros(len(y))
    sparse = sum(np.count_nonzero(one.counts) for one in seen) <= len(dy) * len(seen)
    width = seen[0].counts.shape[1]
    at = ((y + half_y) * width + x + half_x)[:, None] + (dy * width + dx)
    for one in seen:
        stamps = one.stamps.images[:, half_y + dy, half_x + dx]
        # In single precision, as it is fitted.
        ratio = product(one.mixture.astype(np.float32), stamps.astype(np.float32))
        ratio *= one.inverse.astype(np.float32).take(at)
        steepest = np.maximum(steepest, ratio.max(axis=1))
        if sparse:
            continue
        n = one.counts.astype(np.float32).take(at)
        ratios.append(ratio)
        counts.append(n)
        linear = one.counts * one.inverse
        own = np.einsum("pw,pw->p", one.stamps.sums(linear)[y, x], one.mixture)
        series[0] += own - np.einsum("pj,pj->p", ratio, n)
        # The second and third terms are small: a mean shape does.
        mean = one.mixture.mean(axis=0)
        stamp = np.tensordot(mean, one.stamps.images, axes=1)
        strength = one.mixture.sum(axis=1) / max(float(mean.sum()), 1e-300)
        stamp[half_y + dy, half_x + dx] = 0.0
        with np.errstate(over="ignore", invalid="ignore"):  # where next to no background is
            squares, cubes = _moved(linear, one.inverse, stamp)[:, y, x]
            series[1] += np.maximum(squares, 0.0) * strength**2
            series[2] += np.maximum(cubes, 0.0) * strength**3
        with_counts = one.inverse[one.counts > 0]
        tail = np.maximum(
            tail, 1.1 * strength * float(stamp.max()) * float(with_counts.max(initial=0.0))
        )
    lowest = -1.0 / np.maximum(steepest, 1e-300)
    if sparse:
        return lowest, None
    templates = Templates(
        np.concatenate(ratios, axis=1), np.concatenate(counts, axis=1), total, series, lowest
    )
    return lowest, (templates, tail)


def _whole(
    strip: Strip,
    seen: list[_Seen],
    y: NDArray[np.intp],
    x: NDArray[np.intp],
    index: NDArray[np.intp],
    total: FloatArray,
    lowest: FloatArray,
) -> Templates:
    """Templates of all pixels with counts."""
    half_y, half_x = strip.half
    ratios, counts = [np.zeros((len(y), 0))], [np.zeros(0)]
    for one in seen:
        rows, columns = np.nonzero(one.counts)
        # From the pixel to the counts, as places in the stamp.
        down, right = rows - y[:, None], columns - x[:, None]
        inside = (down >= 0) & (down <= 2 * half_y) & (right >= 0) & (right <= 2 * half_x)
        images = one.stamps.images.reshape(len(one.stamps.images), -1)
        images = product(one.mixture[index], images)
        at = np.where(inside, down * (2 * half_x + 1) + right, 0)
        near = np.where(inside, np.take_along_axis(images, at, axis=1), 0.0)
        ratios.append(np.maximum(near, 0.0) * one.inverse[rows, columns])
        counts.append(one.counts[rows, columns])
    ratio = np.concatenate(ratios, axis=1)
    lowest = np.maximum(lowest, -1.0 / np.maximum(ratio.max(axis=1, initial=0.0), 1e-300))
    return Templates(
        ratio, np.concatenate(counts), total, np.zeros((3, len(y))), lowest * (1.0 - 1e-12)
    )


def _moved(linear: FloatArray, inverse: FloatArray, stamp: FloatArray) -> FloatArray:
    """Sums of ``n (K / b)**k`` for k of 2 and 3 with the stamp on each pixel, shape (2, ny, nx)."""
    images = np.stack([linear * inverse, linear * inverse**2])
    kernels = np.stack([stamp**2, stamp**3])[:, ::-1, ::-1]
    shape = tuple(next_fast_len(n, real=True) for n in linear.shape)
    # Wrapping round reaches only the sums of stamps that overlap the border, which are cut off.
    found = irfft2(rfft2(images, shape) * rfft2(kernels, shape), shape)
    rows, columns = stamp.shape
    return np.asarray(found[:, rows - 1 : linear.shape[0], columns - 1 : linear.shape[1]])
