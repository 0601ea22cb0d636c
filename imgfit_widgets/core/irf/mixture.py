"""Mixtures of circular Gaussians of fixed widths, which every point spread function is kept as.

A mixture makes the pixel integral of a point source a product of two error functions per width,
lets Gaussian sources be convolved by adding squared widths, is differentiable, and stacks linearly.

`spread`
    Any Gaussian.
`king`
    A King profile, which is a mixture of Gaussians in closed form.
`from_annuli`
    A table of contents of annuli, as the most likely mixture without negative parts.
`from_profiles`
    A table of surface brightness, by a linear map, for smooth tables.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import digamma, gammaln, polygamma

from ..maps import MapAxis
from ..products import product
from .axis import FloatArray

# Widths (degrees) of the mixture: a Gaussian between two of them is met to 4e-4 of its peak.
_RATIO = 1.15
PSF_WIDTHS: FloatArray = np.asarray(0.004 * _RATIO ** np.arange(44.0), dtype=np.float64)
PSF_WIDTHS.flags.writeable = False

# Annuli of a table are joined to this part of their radius.
_ANNULUS = 0.06
# Longest stride of an iteration, in the logarithm of a weight.
_LONGEST = float(np.log(10.0))

# Radii of Gammapy's PSF tables: 66 bins of 0.01 deg.
RAD_BOUNDS: FloatArray = np.linspace(0.0, 0.66, 67)


def spread(sigma: ArrayLike) -> FloatArray:
    """Circular Gaussians as mixtures of `PSF_WIDTHS`.

    Cubic (Lagrange) interpolation in the logarithm of the width, so weights add up to 1 and one
    or two of them are slightly negative; the profile is met to 4e-4 of its peak.

    Parameters
    ----------
    sigma : array_like, shape (N,)
        Widths in degrees; clipped to the range of `PSF_WIDTHS`.

    Returns
    -------
    ndarray, shape (N, W)
    """
    weights = np.zeros((np.size(sigma), len(PSF_WIDTHS)))
    add_gaussians(weights, np.ravel(sigma), np.ones(np.size(sigma)))
    return weights


def add_gaussians(weights: FloatArray, sigma: FloatArray, content: FloatArray) -> None:
    """Add Gaussians of some content (N,) to mixtures (N, W), in place."""
    widths = np.clip(sigma, PSF_WIDTHS[0], PSF_WIDTHS[-1])
    position = np.log(widths / PSF_WIDTHS[0]) / np.log(_RATIO)
    first = np.clip(position.astype(int) - 1, 0, len(PSF_WIDTHS) - 4)
    t = position - first
    place = np.arange(len(widths)) * weights.shape[1] + first
    flat = weights.reshape(-1)
    for node in range(4):
        others = [other for other in range(4) if other != node]
        basis = content.copy()
        for other in others:
            basis *= (t - other) / (node - other)
        flat[place + node] += basis


def profiles(weights: FloatArray, rad: ArrayLike) -> FloatArray:
    """Surface brightness in deg-2 at radii (N,) of mixtures (W, ...): shape (N, ...)."""
    r = np.asarray(rad, dtype=float)[:, None]
    basis = np.exp(-0.5 * (r / PSF_WIDTHS) ** 2) / (2.0 * np.pi * PSF_WIDTHS**2)
    return np.tensordot(basis, weights, axes=1)


@lru_cache(maxsize=8)
def _projection(centers: bytes, bounds: bytes) -> FloatArray:
    """Matrix (W, rad) that turns radial profiles into weights.

    Least squares over annuli of the counts-like quantity r p(r), held smooth by a small ridge.
    Linear, so that it commutes with stacking and interpolation. Only widths that the table can
    tell are used: wider ones would be fitted to its last bins alone and put counts beyond it.
    """
    rad = np.frombuffer(centers)
    edges = np.frombuffer(bounds)
    area = np.diff(edges**2) * np.pi
    known = (0.7 * np.diff(edges).min() <= PSF_WIDTHS) & (0.38 * edges[-1] >= PSF_WIDTHS)
    basis = np.exp(-0.5 * (rad[:, None] / PSF_WIDTHS) ** 2) / (2.0 * np.pi * PSF_WIDTHS**2)
    # Weighting by sqrt(area) lies between the peak (area-free) and the containment (area).
    scale = np.sqrt(area)[:, None]
    design = (basis * scale)[:, known]
    norm = np.sqrt((design**2).sum(axis=0))
    design = design / norm
    ridge = 1e-9 * np.eye(design.shape[1])
    matrix = np.zeros((len(PSF_WIDTHS), len(rad)))
    matrix[known] = np.linalg.solve(design.T @ design + ridge, design.T) / norm[:, None] * scale.T
    return matrix


def from_profiles(values: FloatArray, rad: MapAxis) -> FloatArray:
    """Radial profiles as mixtures, each normalised to 1.

    Parameters
    ----------
    values : ndarray, shape (rad, ...)
        Surface brightness at bin centres, in any unit.
    rad : `MapAxis`
        Degrees.

    Returns
    -------
    ndarray, shape (W, ...)
        Zero where the profile is.
    """
    matrix = _projection(rad.centers.tobytes(), rad.bounds.tobytes())
    weights = product(matrix, values.reshape(len(values), -1)).reshape(-1, *values.shape[1:])
    total = weights.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        weights = weights / total
    return np.asarray(np.where(total > 0, weights, 0.0))


def king(sigma: FloatArray, gamma: FloatArray) -> FloatArray:
    """King profiles as mixtures.

    ``(1 + r^2 / (2 gamma sigma^2))^-gamma`` is the Laplace transform of a gamma distribution, so
    the profile is a mixture of Gaussians whose ``s = gamma sigma^2 / width^2`` follows the
    distribution ``Gamma(gamma - 1)``. What lies beyond `PSF_WIDTHS` is left out.

    Parameters
    ----------
    sigma, gamma : ndarray, shape (N,)
        Degrees, and the exponent (clipped to 1.01 and above: there is no norm at 1).

    Returns
    -------
    ndarray, shape (N, W)
        Each normalised to 1.
    """
    gamma = np.maximum(gamma, 1.01)
    s = (gamma * sigma**2)[:, None] / PSF_WIDTHS**2
    shape = (gamma - 1.0)[:, None]
    # The density in log width times the step, a sum that converges faster than any power.
    with np.errstate(under="ignore"):
        weights = 2.0 * np.log(_RATIO) * np.exp(shape * np.log(s) - s - gammaln(shape))
    steep = np.flatnonzero(gamma > 12.0)
    if len(steep):
        # Too narrow for the steps: some Gaussians at the quantiles of ln s, which is near normal.
        nodes, content = np.polynomial.hermite_e.hermegauss(7)
        mean, width = digamma(gamma[steep] - 1.0), np.sqrt(polygamma(1, gamma[steep] - 1.0))
        weights[steep] = 0.0
        held = np.zeros((len(steep), len(PSF_WIDTHS)))
        for node, share in zip(nodes, content / content.sum(), strict=True):
            at = np.sqrt(gamma[steep]) * sigma[steep] * np.exp(-0.5 * (mean + node * width))
            add_gaussians(held, at, np.full(len(steep), share))
        weights[steep] = held
    total = weights.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(weights, total, out=np.zeros_like(weights), where=total > 0))


def from_annuli(content: FloatArray, edges: FloatArray, iterations: int = 60) -> FloatArray:
    """The most likely mixtures for what a table holds in annuli.

    Starts from a smooth linear estimate and follows Richardson (1972, JOSA 62, 55) and Lucy (1974,
    AJ 79, 745), which keeps weights positive, with the longer steps of Biggs and Andrews (1997,
    Applied Optics 36, 1766). The content of a smooth table within any radius is met to 0.5 %, that
    of the H.E.S.S. tables to 1 % (median), as far as their own noise lets it.

    Parameters
    ----------
    content : ndarray, shape (annuli, N)
        In any unit; not negative.
    edges : ndarray, shape (annuli + 1,)
        Radii in degrees, increasing.

    Returns
    -------
    ndarray, shape (W, N)
        Each normalised to 1, or 0 where the table is.
    """
    total = content.sum(axis=0)
    filled = total > 0
    weights = np.zeros((len(PSF_WIDTHS), content.shape[1]))
    if not filled.any():
        return weights
    edges, content = _merged(edges, content[:, filled])
    # In single precision, which is that of the tables, at half the time.
    observed = (content / total[filled]).astype(np.float32)
    known = _known_widths(edges)
    basis, start = (matrix.astype(np.float32) for matrix in _annuli(edges.tobytes()))
    back = (basis / basis.sum(axis=0)).T
    estimate = np.maximum(start @ observed, 1e-4)
    estimate /= estimate.sum(axis=0)
    guess, last_step = estimate, np.zeros_like(estimate)
    log_guess = log_estimate = np.log(estimate)
    for _ in range(iterations):
        found = guess * (back @ (observed / np.maximum(basis @ guess, 1e-12)))
        log_found = np.log(np.maximum(found, 1e-30))
        step = np.sqrt(guess) * (log_found - log_guess)
        length = np.maximum((last_step**2).sum(axis=0), 1e-30)
        further = np.minimum(np.maximum((step * last_step).sum(axis=0) / length, 0.0), 0.95)
        stride = np.minimum(np.maximum(log_found - log_estimate, -_LONGEST), _LONGEST)
        log_guess = log_found + further * stride
        guess = np.exp(log_guess)
        held = guess.sum(axis=0)
        guess, log_guess = guess / held, log_guess - np.log(held)
        estimate, log_estimate, last_step = found, log_found, step
    held = estimate.astype(np.float64)
    weights[np.ix_(known, filled)] = held / held.sum(axis=0)
    return weights


def _merged(edges: FloatArray, content: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Annuli joined to at least a part of their radius, which tells as much about the widths."""
    keep = [0, 1]
    for place in range(2, len(edges)):
        if edges[place] - edges[keep[-1]] >= _ANNULUS * edges[keep[-1]] * (1 - 1e-6):
            keep.append(place)
    if keep[-1] != len(edges) - 1:
        keep.append(len(edges) - 1)
    return edges[keep], np.add.reduceat(content, keep[:-1], axis=0)


def _known_widths(radii: FloatArray) -> NDArray[np.intp]:
    """The places in `PSF_WIDTHS` of those that a table can tell."""
    known = np.flatnonzero((0.35 * radii[1] <= PSF_WIDTHS) & (0.45 * radii[-1] >= PSF_WIDTHS))
    if len(known):
        return known
    return np.array([int(np.argmin(np.abs(np.log(PSF_WIDTHS / (0.3 * radii[-1])))))])


@lru_cache(maxsize=8)
def _annuli(edges: bytes) -> tuple[FloatArray, FloatArray]:
    """Contents of annuli for each width that a table can tell, and a smooth linear inverse."""
    radii = np.frombuffer(edges)
    widths = PSF_WIDTHS[_known_widths(radii)]
    outside = np.exp(-0.5 * (radii[:, None] / widths) ** 2)
    basis = outside[:-1] - outside[1:]
    bend = np.diff(np.eye(len(widths)), 2, axis=0)
    smooth = 1e2 * basis.T @ basis + 0.1 * bend.T @ bend + 1e-6 * np.eye(len(widths))
    return basis, np.asarray(np.linalg.solve(smooth, 1e2 * basis.T))
