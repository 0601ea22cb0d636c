"""Point spread functions, all kept as one thing: a mixture of circular Gaussians of fixed widths.

A mixture makes the pixel integral of a point source a product of two error functions per width,
lets Gaussian sources be convolved by adding squared widths, is differentiable, and stacks linearly.

`MultiGaussPSF`
    PSF_3GAUSS of a DL3 file.
`PSFMap`
    Weights of the mixture on a coarse sky grid; what a dataset holds.
`spread`, `from_profiles`
    Any Gaussian, or any radial profile, as weights on `PSF_WIDTHS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from ..errors import DataError
from ..maps import MapAxis, WcsGeom
from .axis import FloatArray, IrfAxis

# Widths (degrees) of the mixture: a Gaussian between two of them is met to 4e-4 of its peak.
_RATIO = 1.15
PSF_WIDTHS: FloatArray = np.asarray(0.004 * _RATIO ** np.arange(44.0), dtype=np.float64)
PSF_WIDTHS.flags.writeable = False

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
    _add_gaussians(weights, np.ravel(sigma), np.ones(np.size(sigma)))
    return weights


def _add_gaussians(weights: FloatArray, sigma: FloatArray, content: FloatArray) -> None:
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
    weights = np.tensordot(matrix, values, axes=1)
    total = weights.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        weights = weights / total
    return np.asarray(np.where(total > 0, weights, 0.0))


@dataclass(frozen=True, eq=False)
class MultiGaussPSF:
    """Up to three concentric Gaussians per true energy and offset (PSF_3GAUSS).

    Parameters
    ----------
    energy, offset : `IrfAxis`
        TeV and degrees.
    amplitude : ndarray, shape (3, energy, offset)
        Relative heights at the centre, the first one 1.
    sigma : ndarray, shape (3, energy, offset)
        Degrees; 0 means that the component is not used.
    """

    tag = "psf_3gauss"

    energy: IrfAxis
    offset: IrfAxis
    amplitude: FloatArray
    sigma: FloatArray

    def __post_init__(self) -> None:
        sigma, amplitude = np.array(self.sigma, dtype=float), np.array(self.amplitude, dtype=float)
        if not np.any(sigma > 0):
            raise DataError("psf_3gauss: every SIGMA is 0")
        # An unused component must not drag its neighbours' interpolated width towards 0, nor an
        # empty node at large offset or high energy: they take the nearest used width.
        for component in range(len(sigma)):
            used = sigma[component] > 0
            amplitude[component][~used] = 0.0 if component else 1.0
            if np.any(used):
                sigma[component] = _fill_nearest(sigma[component], used)
            else:
                sigma[component] = 1.0
        for name, array in (("sigma", sigma), ("amplitude", amplitude)):
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def mixture(self, energies: ArrayLike, offsets: ArrayLike) -> FloatArray:
        """Weights at true energies (T,) in TeV and offsets (P,) in degrees: (T, P, W).

        As the field does, the parameters are interpolated linearly, then normalised.
        """
        at_energy, at_offset = self.energy.weights(energies), self.offset.weights(offsets).T
        heights = np.maximum(at_energy @ self.amplitude @ at_offset, 0.0)  # (3, T, P)
        widths = at_energy @ self.sigma @ at_offset
        content = heights * widths**2
        with np.errstate(invalid="ignore", divide="ignore"):
            content = np.nan_to_num(content / content.sum(axis=0))
        mixture = np.zeros((*content.shape[1:], len(PSF_WIDTHS)))
        for width, part in zip(widths, content, strict=True):
            if np.any(part > 0):
                _add_gaussians(mixture.reshape(-1, len(PSF_WIDTHS)), width.ravel(), part.ravel())
        return mixture


def _fill_nearest(values: FloatArray, used: np.ndarray) -> FloatArray:
    """Values of unused nodes replaced by the nearest used one, along offset before energy."""
    filled = values.copy()
    energy, offset = np.nonzero(used)
    for row, column in zip(*np.nonzero(~used), strict=True):
        nearest = np.argmin(10 * np.abs(energy - row) + np.abs(offset - column))
        filled[row, column] = values[energy[nearest], offset[nearest]]
    return filled


@dataclass(frozen=True, eq=False)
class PSFMap:
    """Point spread function on the sky.

    Parameters
    ----------
    geom : `WcsGeom`
        Coarse image geometry (``binsize_irf``).
    energy_true : `MapAxis`
    weights : ndarray, shape (T, W, y, x)
        Mixture over `widths`; each sums to 1, or is 0 where nothing was observed.
    exposure : ndarray, shape (T, y, x)
        m2 s; the weight of each node when datasets are stacked.
    """

    geom: WcsGeom
    energy_true: MapAxis
    weights: FloatArray
    exposure: FloatArray

    @property
    def widths(self) -> FloatArray:
        """Widths of the mixture in degrees, shape (W,)."""
        return PSF_WIDTHS

    def table(self) -> FloatArray:
        """Profiles in sr-1 as Gammapy tabulates them, shape (T, 66, y, x).

        Taken at the centres of 66 bins of 0.01 deg and normalised so that the sum of
        ``2 pi r dr`` over them is 1.
        """
        centers = 0.5 * (RAD_BOUNDS[1:] + RAD_BOUNDS[:-1])
        values = profiles(np.moveaxis(self.weights, 1, 0), centers)
        values = np.maximum(values, 0.0)
        step = np.radians(0.01)
        norm = np.tensordot(2.0 * np.pi * np.radians(centers) * step, values, axes=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.moveaxis(np.nan_to_num(values / norm), 0, 1)

    @classmethod
    def from_table(
        cls,
        geom: WcsGeom,
        energy_true: MapAxis,
        rad: MapAxis,
        values: FloatArray,
        exposure: FloatArray,
    ) -> PSFMap:
        """From tabulated profiles, shape (T, rad, y, x)."""
        weights = from_profiles(np.moveaxis(np.asarray(values, dtype=float), 1, 0), rad)
        return cls(geom, energy_true, np.moveaxis(weights, 0, 1), exposure)

    def containment_radius(self, fraction: float, lon: float, lat: float) -> FloatArray:
        """Radius in degrees that holds a fraction of a point source at a position, shape (T,)."""
        x, y = self.geom.lonlat_to_pix(lon, lat)
        column = int(np.clip(np.rint(x), 0, self.geom.npix[0] - 1))
        row = int(np.clip(np.rint(y), 0, self.geom.npix[1] - 1))
        rad = np.linspace(0.0, 3.0, 3001)
        inside = 1.0 - np.exp(-0.5 * (rad[:, None] / PSF_WIDTHS) ** 2)
        held = inside @ self.weights[:, :, row, column].T
        return np.array([np.interp(fraction, np.maximum.accumulate(h), rad) for h in held.T])
