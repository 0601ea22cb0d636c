"""Gaussians integrated over pixels, and the exposure across an extended source.

`PixelIntegrals`
    Gaussians of several widths, and their Hermite relatives, over the pixels of one axis.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import fft
from scipy.special import ndtr

__all__ = [
    "PixelIntegrals",
    "between",
    "bilinear",
    "binned",
    "few_exposures",
    "few_images",
    "longer_waves",
    "no_less_than_0",
    "within",
]

_SAMPLED = 500
"""Pixels from which it is found in how many ways an exposure varies."""


class PixelIntegrals:
    """Gaussians of several widths around one centre, integrated over the pixels of one axis.

    Parameters
    ----------
    edges : ndarray, shape (n + 1,)
        Pixel coordinates of the edges.
    centre : float
        Pixel coordinate of the centre.
    sigma : ndarray, shape (W,)
        Widths in pixels.

    Attributes
    ----------
    value : ndarray, shape (W, n)
    """

    def __init__(self, edges: np.ndarray, centre: float, sigma: np.ndarray) -> None:
        self.sigma = sigma
        self._u = (edges - centre) / sigma[:, None]
        self._known: list[np.ndarray] = []
        cumulative = ndtr(self._u)
        self.value = cumulative[:, 1:] - cumulative[:, :-1]

    def terms(self, order: int) -> np.ndarray:
        """Integrals of ``He_n(u) density(u)`` for degrees n below ``order``, shape (W, order, n).

        u is the distance from the centre in widths; degree 0 is `value`.
        """
        if order == 1:
            return np.asarray(self.value[:, None])
        found = np.empty((len(self.sigma), order, self.value.shape[1]))
        found[:, 0] = self.value
        # The primitive of He_n times the density is minus He_(n-1) times the density.
        for degree, edges in enumerate(self._hermite_edges(order - 1)):
            np.subtract(edges[:, :-1], edges[:, 1:], out=found[:, degree + 1])
        return found

    def jet(self, order: int) -> np.ndarray:
        """`terms` and their derivatives by the centre and by sigma, shape (3, W, order, n)."""
        found = np.empty((3, len(self.sigma), order, self.value.shape[1]))
        found[0, :, 0] = self.value
        for degree, edges in enumerate(self._hermite_edges(order)):
            np.subtract(edges[:, :-1], edges[:, 1:], out=found[1, :, degree])
            tilted = edges * self._u
            np.subtract(tilted[:, :-1], tilted[:, 1:], out=found[2, :, degree])
        found[0, :, 1:] = found[1, :, :-1]
        found[1:] /= self.sigma[:, None, None]
        return found

    def second_jet(self, order: int, wider: bool = True) -> np.ndarray:
        """Second derivatives of `terms`, shape (3, W, order, n), or (1, W, order, n).

        Twice by the centre and, if ``wider``, by the centre and sigma, twice by sigma.
        """
        found = np.empty((3 if wider else 1, len(self.sigma), order, self.value.shape[1]))
        u = self._u
        before = np.zeros(1)
        for degree, edges in enumerate(self._hermite_edges(order + 1)):
            if degree:
                tilted = u * edges
                ways = [edges]
                if wider:
                    ways += [tilted - before, u * (tilted - 2.0 * before)]
                for out, at_edges in zip(found[:, :, degree - 1], ways, strict=True):
                    np.subtract(at_edges[:, :-1], at_edges[:, 1:], out=out)
            before = edges
        found /= (self.sigma**2)[:, None, None]
        return found

    def _hermite_edges(self, count: int) -> list[np.ndarray]:
        """``He_n(u) density(u)`` at the pixel edges for n below ``count``."""
        u, known = self._u, self._known
        if not known:
            density = np.exp(-0.5 * u * u)
            density *= 1.0 / math.sqrt(2.0 * math.pi)
            known.append(density)
        for degree in range(len(known), count):
            raised = u * known[-1]
            if degree > 1:
                raised -= (degree - 1) * known[-2]
            known.append(raised)
        return known[:count]


def few_images(cube: np.ndarray, exact: float = 3e-6) -> tuple[np.ndarray, np.ndarray]:
    """A cube (T, ny, nx) whose planes share few shapes, as ``mixing @ images``.

    Returns
    -------
    mixing : ndarray, shape (T, k)
    images : ndarray, shape (k, ny, nx)
        To a part ``exact`` of the largest plane.
    """
    step = max(1, int(math.sqrt(cube[0].size / 2000.0)))
    sample = np.asarray(cube[:, ::step, ::step], dtype=float).reshape(len(cube), -1)
    values, vectors = np.linalg.eigh(sample @ sample.T)
    kept = values > exact**2 * max(float(values[-1]), 1e-300)
    kept[-1] = True  # also of a cube that is 0
    mixing = vectors[:, kept]
    images = mixing.T @ np.asarray(cube, dtype=float).reshape(len(cube), -1)
    return mixing, images.reshape(-1, *cube.shape[1:])


def few_exposures(
    cube: np.ndarray,
    share: np.ndarray,
    exact: float,
    shown: np.ndarray | float = 1.0,
    bright: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """An exposure by true energy as ``mixing @ images``, for a source with these counts.

    The first image is the exposure of all counts together. The others, in which that of each energy
    differs from it, show only as far as their PSFs differ too.

    Parameters
    ----------
    cube : ndarray, shape (T, ny, nx)
    share : ndarray, shape (T,)
        Part of the counts at each true energy.
    exact : float
        To what part of the first image the others are followed; 1 for not at all.
    shown : ndarray, shape (T,)
        What part of such a difference shows.
    bright : tuple of ndarray, shapes (ny,), (nx,)
        Of which brightness the source is along y and x; everywhere the same by default.

    Returns
    -------
    mixing : ndarray, shape (T, k)
    images : ndarray, shape (k, ny, nx)
    """
    step = max(1, math.ceil(math.sqrt(cube[0].size / (_SAMPLED if exact < 1.0 else 20))))
    sample = np.array(cube[:, ::step, ::step], dtype=float)
    if bright:
        sample *= np.outer(bright[0][::step], bright[1][::step])
    sample = sample.reshape(len(cube), -1)
    mean = np.abs(sample.mean(axis=1))
    weight = share / np.where(mean > 0.0, mean, 1.0)
    weight = np.maximum(weight, 1e-7 * max(float(weight.max()), 1e-100))
    part = weight * mean
    part /= max(float(part.sum()), 1e-300)
    if exact >= 1.0:
        image = (weight @ cube.transpose(1, 0, 2))[None]
        return (part / weight)[:, None], image
    sample *= weight[:, None]
    total = sample.sum(axis=0)
    sample -= part[:, None] * total
    shown = np.broadcast_to(np.clip(shown, 1e-3, 1.0), len(cube))
    sample *= shown[:, None]
    least = exact**2 * max(float(total @ total), 1e-300)
    left = np.empty((len(cube), 0))
    if np.vdot(sample, sample) > least:
        size, left = np.linalg.eigh(sample @ sample.T)
        left = left[:, size > least]
    few = np.vstack([weight, left.T * (weight * shown)])
    # Row by row of the map: a product of all would have to copy it.
    images = (few @ cube.transpose(1, 0, 2)).transpose(1, 0, 2)
    if len(images) > 1:
        images = np.ascontiguousarray(images)
        images[1:] -= np.multiply.outer((left * shown[:, None]).T @ part, images[0])
    return np.column_stack([part / weight, left / (weight * shown)[:, None]]), images


def binned(images: np.ndarray, size: int) -> np.ndarray:
    """Sums over squares of ``size`` pixels of images (..., ny, nx); the last may be cut off."""
    if size == 1:
        return images
    for axis in (-2, -1):
        images = np.add.reduceat(images, np.arange(0, images.shape[axis], size), axis)
    return images


def no_less_than_0(values: np.ndarray) -> np.ndarray:
    """The values with 0 where they are negative or not finite."""
    if not (values.min(initial=0.0) >= 0.0 and np.isfinite(values.sum())):
        values = np.maximum(np.nan_to_num(values), 0.0)
    return values


def between(at: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixel of ``size`` before each position, and how far on to the next one that is."""
    at = np.clip(np.nan_to_num(at, nan=-1.0), 0.0, size - 1.0)
    before = at.astype(np.int32)
    return before, at - before


def within(at: np.ndarray, size: int) -> tuple[np.ndarray, slice]:
    """Positions counted from the first of the pixels (of ``size``) between which they lie."""
    left, part = between(at, size)
    first = int(left.min())
    return (left - first) + part, slice(first, min(int(left.max()) + 2, size))


def longer_waves(images: np.ndarray, x: np.ndarray, y: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """What images, with straight lines between pixels, have of the waves longer than two cells.

    At positions x, y; beyond the outer pixels as next to them. In single precision.

    Parameters
    ----------
    images : ndarray, shape (k, ny, nx)
    x, y : ndarray
        NaN is as beyond.
    cell : ndarray, shape (2, 2)
        The sides of a cell (columns) in pixels along x and y.
    """
    # The transform goes on with a mirror image, which is to begin where nothing happens.
    beyond = math.ceil(4.0 * float(np.hypot(*cell.T).max()))
    ny, nx = images.shape[1:]
    x, y = (
        np.clip(np.nan_to_num(at, nan=-1e9), -beyond, n - 1 + beyond) + beyond
        for at, n in ((x, nx), (y, ny))
    )
    images = np.pad(images, [(0, 0), (beyond, beyond), (beyond, beyond)], mode="edge")
    # Parts of pixels for cells that are smaller; as an odd number they bend where pixels do.
    parts = math.ceil(1.0 / float(np.hypot(*cell).min())) // 2 * 2 + 1
    if parts > 1:
        along = [(np.arange(parts * n) + 0.5) / parts - 0.5 for n in images.shape[1:]]
        images = bilinear(images, *np.broadcast_arrays(along[1], along[0][:, None]))
        x, y = (parts * q + 0.5 * (parts - 1) for q in (x, y))
    spectrum = fft.dctn(images.astype(np.float32), axes=(1, 2))
    waves = [np.arange(n) * (parts / n) for n in images.shape[1:]]
    inside = np.ones(images.shape[1:], dtype=bool)
    for side in cell.T:
        # Of the two waves that a product of cosines is, both are to be long enough.
        inside &= np.abs(waves[1] * side[0]) + np.abs(waves[0] * side[1])[:, None] < 1.0
    # Lines between half pixels, from which it is taken, leave more of a wave than those.
    kept = [np.cos(np.arange(n) * (0.25 * math.pi / n)) ** 2 for n in images.shape[1:]]
    spectrum *= np.where(inside, 4.0 * kept[0][:, None] * kept[1], 0.0).astype(np.float32)
    halves = fft.idctn(spectrum, s=[2 * n for n in images.shape[1:]], axes=(1, 2))
    return bilinear(halves, 2.0 * x + 0.5, 2.0 * y + 0.5)


def bilinear(images: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Values of images (k, ny, nx) between pixel centres, shape (k, ...).

    Beyond the outer ones those next to them.
    """
    ny, nx = images.shape[-2:]
    (left, x), (low, y) = between(x, nx), between(y, ny)
    right = np.minimum(left + 1, nx - 1)
    low, high = low * nx, np.minimum(low + 1, ny - 1) * nx
    corners = [
        (low + left, (1.0 - x) * (1.0 - y)),
        (low + right, x * (1.0 - y)),
        (high + left, (1.0 - x) * y),
        (high + right, x * y),
    ]
    found = np.empty((len(images), *x.shape))
    for k, image in enumerate(images):
        # `take` of one plane at a time: indexing the stack takes five times as long.
        found[k] = sum(image.ravel().take(place) * weight for place, weight in corners)
    return found
