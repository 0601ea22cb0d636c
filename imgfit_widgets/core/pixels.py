"""Gaussians integrated over pixels, and the exposure across an extended source.

`PixelIntegrals`
    Gaussians of several widths, and their Hermite relatives, over the pixels of one axis.
`ExposureMoments`
    The exposure under a Gaussian source as a sum of Hermite polynomials.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import fft
from scipy.special import ndtr

from .products import product

__all__ = [
    "ExposureMoments",
    "PixelIntegrals",
    "between",
    "bilinear",
    "binned",
    "few_images",
    "fewer_widths",
    "longer_waves",
    "no_less_than_0",
    "within",
]


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


class ExposureMoments:
    """The exposure under a Gaussian source as a sum of Hermite polynomials of the position.

    Over a Gaussian of size s the exposure is projected onto He_m(u) He_n(v), u and v the distances
    from the centre in units of s: the best sum of a given degree in the mean square under the
    source, and exact in the total. Since He_n times a Gaussian is its n-th derivative, and
    derivatives pass through a convolution, each term keeps a closed form behind a Gaussian PSF of
    width w: ``(s / sigma)**n He_n(u) density(u)``, sigma^2 = s^2 + w^2, u in units of sigma.

    Parameters
    ----------
    mixing, images : ndarray, shapes (T, k), (k, ny, nx)
        The exposure of some pixels in cm2 s as ``mixing @ images``, constant within a pixel;
        continued beyond them.
    box : tuple of int
        These pixels (y0, y1, x0, x1), which hold the source.
    order : int
        Number of polynomials an axis; the total degree stays below it.
    """

    def __init__(
        self,
        mixing: np.ndarray,
        images: np.ndarray,
        box: tuple[int, int, int, int],
        order: int,
    ) -> None:
        y0, y1, x0, x1 = box
        self._mixing, self._images = mixing, images
        self._x_edges, self._y_edges = _open_edges(x0, x1), _open_edges(y0, y1)
        self.order = order
        degree = np.arange(order)
        factorial = np.array([math.factorial(int(n)) for n in degree], dtype=float)
        self._factor = (np.add.outer(degree, degree) < order) / np.outer(factorial, factorial)

    def coefficients(self, x: float, y: float, size: np.ndarray) -> np.ndarray:
        """Coefficients at a pixel position for a size (2,) in pixels along x and y.

        Returns
        -------
        ndarray, shape (5, T, order, order)
            First axis: value, derivative by x, by y, by the size along x, along y. Last two: degree
            along y, along x. cm2 s.
        """
        (px, dx, sx), (py, dy, sy) = (
            PixelIntegrals(edges, centre, width).jet(self.order)[:, 0]
            for edges, centre, width in (
                (self._x_edges, x, size[:1]),
                (self._y_edges, y, size[1:]),
            )
        )
        stacked = product(self._images, np.concatenate([px, dx, sx]).T)
        across, moved_x, wider_x = np.split(stacked, 3, axis=2)
        found = np.stack([py @ across, py @ moved_x, dy @ across, py @ wider_x, sy @ across])
        return np.asarray(np.tensordot(self._mixing, found * self._factor, axes=(1, 1))).transpose(
            1, 0, 2, 3
        )


def _open_edges(first: int, stop: int) -> np.ndarray:
    """Edges of pixels, the outermost ones far out."""
    edges = np.arange(first, stop + 1) - 0.5
    edges[0] -= 1e7
    edges[-1] += 1e7
    return edges


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


def fewer_widths(widths: np.ndarray, size: float, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Widths whose Gaussians, blurred by ``size``, stand for those of a mixture.

    Blurred Gaussians of nearly the same width are nearly dependent: cubic interpolation in the
    logarithm of the blurred width, at nodes a factor ``ratio`` apart, replaces them.

    Parameters
    ----------
    widths : ndarray, shape (W,)
        Increasing.

    Returns
    -------
    nodes : ndarray, shape (K,)
        The widths themselves if that would be no fewer.
    matrix : ndarray, shape (W, K)
        What turns weights of ``widths`` into weights of ``nodes``.
    """
    position = 0.5 * np.log(size**2 + widths**2)
    span = float(position[-1] - position[0])
    count = max(4, math.ceil(span / math.log(ratio)) + 1)
    if not size or count >= len(widths):
        return widths, np.eye(len(widths))
    knots = np.linspace(position[0], position[-1], count)
    nodes = np.sqrt(np.maximum(np.exp(2.0 * knots) - size**2, 0.0))
    at = (position - knots[0]) / (knots[1] - knots[0])
    first = np.clip(np.floor(at).astype(int) - 1, 0, count - 4)
    matrix = np.zeros((len(widths), count))
    for k in range(4):
        others = [other for other in range(4) if other != k]
        basis = np.prod([(at - first - o) / (k - o) for o in others], axis=0)
        matrix[np.arange(len(widths)), first + k] = basis
    return nodes, matrix


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
