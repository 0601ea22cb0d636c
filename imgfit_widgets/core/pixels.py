"""Gaussians integrated over pixels, and the exposure across an extended source.

`PixelIntegrals`
    Gaussians of several widths, and their Hermite relatives, over the pixels of one axis.
`ExposureMoments`
    The exposure under a Gaussian source as a sum of Hermite polynomials.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy.special import erf

__all__ = ["ExposureMoments", "PixelIntegrals", "few_images", "fewer_widths"]


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
        cumulative = erf(self._u * math.sqrt(0.5))
        self.value = 0.5 * (cumulative[:, 1:] - cumulative[:, :-1])
        self._density: np.ndarray | None = None

    def _edges(self) -> np.ndarray:
        """Standard normal density at the pixel edges."""
        if self._density is None:
            self._density = np.exp(-0.5 * self._u * self._u) * (1.0 / math.sqrt(2.0 * math.pi))
        return self._density

    def moment(self, order: int) -> np.ndarray:
        """Differences over each pixel of ``u**order * density(u)``, shape (W, n).

        Order 0 gives minus sigma times the derivative of `value` with respect to the centre,
        order 1 minus sigma times the one with respect to sigma; orders 0, 1 and 2 give the same
        of the correlation term, whose factor is order 0.
        """
        edges = self._edges()
        if order:
            edges = edges * self._u**order
        return np.asarray(edges[:, 1:] - edges[:, :-1])

    def hermite(self, order: int, ratio: np.ndarray) -> np.ndarray:
        """Integrals of ``ratio**n He_n(u) density(u)`` for degrees n below ``order``.

        Shape (W, order, n_pixels); degree 0 is `value`.
        """
        terms = np.empty((len(self.sigma), order, self.value.shape[1]))
        terms[:, 0] = self.value
        if order > 1:
            factor = -np.ones(len(self.sigma))
            # The primitive of He_n times the density is minus He_(n-1) times the density.
            for degree, edges in enumerate(self._hermite_edges(order - 1)):
                factor = factor * ratio
                terms[:, degree + 1] = factor[:, None] * (edges[:, 1:] - edges[:, :-1])
        return terms

    def pull_back(
        self, over: np.ndarray, order: int, ratio: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Derivatives of ``sum(over * hermite(order, ratio))`` for each width.

        Parameters
        ----------
        over : ndarray, shape (W, order, n_pixels)

        Returns
        -------
        by_centre, by_sigma, by_ratio : ndarray, shape (W,)
        """
        if order == 1:
            flat = over[:, 0]
            by_centre = -np.einsum("wj,wj->w", self.moment(0), flat) / self.sigma
            by_sigma = -np.einsum("wj,wj->w", self.moment(1), flat) / self.sigma
            return by_centre, by_sigma, np.zeros_like(by_centre)
        by_centre, by_sigma, by_ratio = (np.zeros(len(self.sigma)) for _ in range(3))
        power = np.ones(len(self.sigma))
        before = self.value
        for degree, edges in enumerate(self._hermite_edges(order)):
            # ``before`` is the integral of He_n density, ``here`` the difference of He_n density.
            flat = over[:, degree]
            here = edges[:, 1:] - edges[:, :-1]
            tilted = edges * self._u
            by_centre -= power * np.einsum("wj,wj->w", here, flat)
            by_sigma -= power * np.einsum("wj,wj->w", tilted[:, 1:] - tilted[:, :-1], flat)
            if degree:
                slope = degree * power / ratio
                by_ratio += slope * np.einsum("wj,wj->w", before, flat)
            before = -here
            power = power * ratio
        return by_centre / self.sigma, by_sigma / self.sigma, by_ratio

    def hermite_slopes(self, order: int) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of ``hermite(order, ratio)`` at a fixed ratio of 1: by the centre, by sigma.

        Each of shape (W, order, n).
        """
        by_centre = np.empty((len(self.sigma), order, self.value.shape[1]))
        by_sigma = np.empty_like(by_centre)
        for degree, edges in enumerate(self._hermite_edges(order)):
            tilted = edges * self._u
            by_centre[:, degree] = -(edges[:, 1:] - edges[:, :-1])
            by_sigma[:, degree] = -(tilted[:, 1:] - tilted[:, :-1])
        scale = self.sigma[:, None, None]
        return by_centre / scale, by_sigma / scale

    def _hermite_edges(self, count: int) -> Iterator[np.ndarray]:
        """``He_n(u) density(u)`` at the pixel edges for n below ``count``."""
        u = self._u
        previous, current = np.zeros_like(u), self._edges()
        for degree in range(count):
            yield current
            previous, current = current, u * current - degree * previous


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
        The exposure of the map in cm2 s as ``mixing @ images``, constant within a pixel; continued
        beyond the map.
    box : tuple of int
        Pixels (y0, y1, x0, x1) that hold the source.
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
        self._mixing, self._images = mixing, images[:, y0:y1, x0:x1]
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
        along_x = PixelIntegrals(self._x_edges, x, size[:1])
        along_y = PixelIntegrals(self._y_edges, y, size[1:])
        one = np.ones(1)
        px, py = along_x.hermite(self.order, one)[0], along_y.hermite(self.order, one)[0]
        (dx,), (sx,) = along_x.hermite_slopes(self.order)
        (dy,), (sy,) = along_y.hermite_slopes(self.order)
        stacked = self._images @ np.concatenate([px, dx, sx]).T
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


def few_images(cube: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A cube (T, ny, nx) whose planes share few shapes, as ``mixing @ images``.

    Returns
    -------
    mixing : ndarray, shape (T, k)
    images : ndarray, shape (k, ny, nx)
        To 3e-6 of the largest plane.
    """
    step = max(1, int(math.sqrt(cube[0].size / 2000.0)))
    sample = np.asarray(cube[:, ::step, ::step], dtype=float).reshape(len(cube), -1)
    values, vectors = np.linalg.eigh(sample @ sample.T)
    mixing = vectors[:, values > 1e-11 * max(float(values[-1]), 1e-300)]
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
