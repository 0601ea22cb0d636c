"""What the estimators share: energy bands made of bins, masks, and the exposure of a spectrum.

`energy_bands`
    Edges that a user gives, on the bins that a dataset has.
`combined_mask`
    A dataset's masks and one of the user's.
`ReferenceCounts`
    Counts that a spectrum at its reference amplitude gives in each pixel, no PSF.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from numbers import Real
from typing import Any

import astropy.units as u
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ..dataset import MapDataset
from ..errors import DataError, InputError
from ..maps import MapAxis, WcsGeom, WcsNDMap
from ..models import PowerLawSpectralModel, SpectralModel
from ..pixels import few_images, no_less_than_0

log = logging.getLogger(__name__)

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

__all__ = [
    "Interpolation",
    "ReferenceCounts",
    "as_degrees",
    "as_tev",
    "combined_mask",
    "energy_bands",
    "names_of",
    "neighbour_correlation",
    "reference_spectrum",
]


def as_degrees(name: str, value: Any, positive: bool = False) -> float:
    """An angle as degrees: a number is taken as degrees, a text or quantity with its unit.

    Raises
    ------
    InputError
        If it is no angle, negative, or 0 where it must be positive.
    """
    return _plain(name, value, "deg", "an angle such as '0.1 deg'", positive)


def as_tev(name: str, value: Any) -> float:
    """An energy as TeV, from a number, a text or a quantity."""
    return _plain(name, value, "TeV", "an energy such as '1 TeV'", True)


def _plain(name: str, value: Any, unit: str, expected: str, positive: bool) -> float:
    bound = "above 0" if positive else "0 or more"
    try:
        number = float(value if isinstance(value, Real) else u.Quantity(value).to(unit).value)
    except (TypeError, ValueError, u.UnitsError):
        raise InputError(f"{name}: {str(value)!r} cannot be used; expected {expected}") from None
    if not np.isfinite(number) or number < 0 or (positive and number == 0):
        raise InputError(f"{name}: {str(value)!r} is out of range; expected {expected}, {bound}")
    return number


def energy_bands(
    axis: MapAxis, energy_edges: Any = None, sum_over: bool = False
) -> tuple[MapAxis, list[slice]]:
    """Bands of whole bins.

    Parameters
    ----------
    axis : `MapAxis`
        Reconstructed energies of a dataset, TeV.
    energy_edges : sequence of energies, optional
        Edges of the bands; each goes to the nearest edge of a bin. By default every bin is a band.
    sum_over : bool
        Without edges: one band of all bins.

    Returns
    -------
    axis : `MapAxis`
    bins : list of slice
        The bins of each band.

    Raises
    ------
    InputError
        If there are fewer than two edges, they do not increase, or no bin lies between two.
    """
    bounds = axis.bounds
    if energy_edges is None:
        places = [0, axis.nbin] if sum_over else list(range(axis.nbin + 1))
    else:
        edges = [as_tev("energy_edges", value) for value in energy_edges]
        shown = ", ".join(f"{value:g}" for value in edges)
        if len(edges) < 2 or np.any(np.diff(edges) <= 0):
            raise InputError(f"energy_edges: [{shown}] TeV; expected two or more that increase")
        distance = np.abs(np.log(np.array(edges)[:, None] / bounds))
        places = [int(place) for place in np.argmin(distance, axis=1)]
        if np.any(np.diff(places) <= 0):
            raise InputError(
                f"energy_edges: [{shown}] TeV leave a band without a bin; the edges of the bins "
                f"are {', '.join(f'{value:g}' for value in bounds)} TeV"
            )
        if distance.min(axis=1).max() > 1e-2:
            log.warning(
                "energy_edges: [%s] TeV are taken at the nearest edges of the bins, [%s] TeV",
                shown,
                ", ".join(f"{bounds[place]:.3g}" for place in places),
            )
    bins = [slice(low, high) for low, high in pairwise(places)]
    return MapAxis("energy", bounds[places], axis.unit, axis.interp), bins


def combined_mask(dataset: MapDataset, mask: Any = None) -> BoolArray:
    """Bins that count: within the dataset's safe and fit masks and the user's.

    Parameters
    ----------
    mask : ndarray or `WcsNDMap`, optional
        Of shape (ny, nx) or (energy, ny, nx); true where data are used.

    Returns
    -------
    ndarray of bool, shape (energy, ny, nx)

    Raises
    ------
    InputError
        If the mask has another shape or leaves nothing.
    """
    own = np.asarray(dataset.mask)
    if mask is not None:
        data = np.asarray(mask.data if isinstance(mask, WcsNDMap) else mask)
        if data.shape not in (own.shape, own.shape[1:]):
            raise InputError(
                f"mask: shape {data.shape} does not fit dataset {dataset.name!r}; expected "
                f"{own.shape[1:]} or {own.shape}"
            )
        if data.dtype.kind not in "biu":
            raise InputError(f"mask: holds {data.dtype.name} numbers; expected true and false")
        own = own & data.astype(bool)
    if not own.any():
        raise InputError(f"mask: leaves no bin of dataset {dataset.name!r}")
    return own


def reference_spectrum(spectral_model: SpectralModel | None) -> SpectralModel:
    """The spectrum of a flux map: by default a power law of index 2."""
    return PowerLawSpectralModel(index=2.0) if spectral_model is None else spectral_model


@dataclass(frozen=True)
class Interpolation:
    """From values on the nodes of one map to values at the pixel centres of another.

    Cubic convolution (Keys 1981, IEEE ASSP 29, 1153) between 16 nodes; where one of them holds
    nothing, linear between those of the 4 next ones that do. Rows that no node reaches are 0.

    Attributes
    ----------
    nodes : ndarray of int, shape (pixels, 16)
    weights : ndarray, shape (pixels, 16)
        If all nodes hold something.
    beyond : pair of ndarray, shape (pixels,)
        How far, along y and x, a pixel lies beyond the inner one of its nodes.
    size : int
        Number of nodes of the map.
    """

    nodes: NDArray[np.int32]
    weights: FloatArray
    beyond: tuple[FloatArray, FloatArray]
    size: int
    _known: dict[bytes, csr_matrix] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, geom: WcsGeom, other: WcsGeom) -> Interpolation:
        """From the nodes ``other``, wherever the pixels of ``geom`` lie between them."""
        lon, lat = (v.ravel() for v in geom.pixel_lonlat)
        x, y = other.lonlat_to_pix(*other.from_frame(lon, lat, geom.frame))
        ny, nx = other.shape
        x, y = (np.clip(np.nan_to_num(v, nan=-9.0), -3.0, n + 2.0) for v, n in ((x, nx), (y, ny)))
        i, j = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
        shift = np.arange(-1, 3, dtype=np.int32)
        columns = np.clip(i[:, None] + shift, 0, nx - 1)
        rows = np.clip(j[:, None] + shift, 0, ny - 1) * np.int32(nx)
        nodes = (rows[:, :, None] + columns[:, None, :]).reshape(-1, 16)
        weights = (_keys(y - j)[:, :, None] * _keys(x - i)[:, None, :]).reshape(-1, 16)
        return cls(nodes, weights, (y - j, x - i), nx * ny)

    def matrix(self, valid: BoolArray) -> csr_matrix:
        """As a sparse matrix (pixels, nodes), if so many nodes hold something."""
        key = valid.tobytes()
        if key not in self._known:
            self._known[key] = self._matrix(valid)
        return self._known[key]

    def _matrix(self, valid: BoolArray) -> csr_matrix:
        weights, held = self.weights, valid.ravel().take(self.nodes)
        some = np.flatnonzero(~held.all(axis=1))
        if len(some):
            along_y, along_x = (_linear(part[some]) for part in self.beyond)
            linear = (along_y[:, :, None] * along_x[:, None, :]).reshape(-1, 16) * held[some]
            share = linear.sum(axis=1, keepdims=True)
            weights = weights.copy()
            weights[some] = np.divide(linear, share, out=np.zeros_like(linear), where=share > 1e-12)
        start = np.arange(0, self.nodes.size + 1, 16, dtype=np.int32)
        shape = len(self.nodes), self.size
        return csr_matrix((weights.ravel(), self.nodes.ravel(), start), shape=shape)


def _keys(t: FloatArray) -> FloatArray:
    t2, t3 = t * t, t * t * t
    return np.stack(
        [
            -0.5 * t3 + t2 - 0.5 * t,
            1.5 * t3 - 2.5 * t2 + 1.0,
            -1.5 * t3 + 2.0 * t2 + 0.5 * t,
            0.5 * t3 - 0.5 * t2,
        ],
        axis=1,
    )


def _linear(t: FloatArray) -> FloatArray:
    zero = np.zeros_like(t)
    return np.stack([zero, 1.0 - t, t, zero], axis=1)


@dataclass(frozen=True)
class ReferenceCounts:
    """Counts of a source by pixel if all its photons came from there, by reconstructed bin.

    ``exposure`` (j, pixels) and ``edisp`` (k, pixels) are few images; the counts of bin r are
    ``sum_jk (mixing_exposure[t, j] mixing_edisp[t, r, k]) flux[t] exposure[j] edisp[k]``.
    """

    flux: FloatArray
    mixing_exposure: FloatArray
    exposure: FloatArray
    mixing_edisp: FloatArray
    edisp: FloatArray

    @classmethod
    def of(
        cls,
        dataset: MapDataset,
        spectral_model: SpectralModel,
        interpolation: Interpolation | None = None,
    ) -> ReferenceCounts:
        """Prepare a dataset and a spectrum, whose amplitude is taken as it is.

        ``interpolation`` from the nodes of the energy dispersion, if it is known already.

        Raises
        ------
        DataError
            If the dataset has no exposure or energy dispersion, or they cover another map.
        """
        if dataset.exposure is None or dataset.edisp is None:
            missing = "exposure" if dataset.exposure is None else "edisp"
            raise DataError(f"dataset {dataset.name!r}: has no {missing}, which a flux needs")
        if not dataset.exposure.geom.is_aligned(dataset.geom):
            raise DataError(f"dataset {dataset.name!r}: its exposure is not on the counts' pixels")
        bounds = dataset.energy_axis_true.bounds
        values = spectral_model.canonical_values()
        flux = spectral_model.integral_values(values, bounds[:-1], bounds[1:])[0]
        mixing, images = few_images(no_less_than_0(np.asarray(dataset.exposure.data, dtype=float)))
        cube = np.nan_to_num(np.asarray(dataset.edisp.data, dtype=float))
        flat = cube.reshape(-1, *cube.shape[-2:])
        mixing_edisp, edisp = few_images(flat)
        interpolation = interpolation or Interpolation.of(dataset.geom, dataset.edisp.geom)
        nodes = interpolation.matrix(flat.any(axis=0))
        return cls(
            flux,
            mixing * 1e4,  # m2 s to cm2 s
            images.reshape(len(images), -1),
            mixing_edisp.reshape(*cube.shape[:2], -1),
            (nodes @ edisp.reshape(len(edisp), -1).T).T,
        )

    def cube(self, shape: tuple[int, int]) -> FloatArray:
        """The counts, shape (bins, ny, nx)."""
        mixing = np.einsum("t,tj,trk->rjk", self.flux, self.mixing_exposure, self.mixing_edisp)
        found = np.zeros((len(mixing), self.exposure.shape[1]))
        for j, image in enumerate(self.exposure):
            found += (mixing[:, j] @ self.edisp) * image
        return np.maximum(found, 0.0).reshape(-1, *shape)


def names_of(selection: Sequence[str] | str | None, known: Sequence[str]) -> tuple[str, ...]:
    """What a user chose of the optional quantities; ``all`` for every one.

    Raises
    ------
    InputError
        For one that is not known.
    """
    chosen = [selection] if isinstance(selection, str) else list(selection or ())
    for name in chosen:
        if name not in known and name != "all":
            raise InputError(f"selection_optional: {name!r} is not one of all, {', '.join(known)}")
    return tuple(known) if "all" in chosen else tuple(chosen)


def neighbour_correlation(kernel: FloatArray) -> tuple[float, float]:
    """Correlation of white noise, summed with a kernel, between a pixel and the next along x, y."""
    total = float(np.vdot(kernel, kernel))
    across = float(np.vdot(kernel[:, 1:], kernel[:, :-1]))
    along = float(np.vdot(kernel[1:], kernel[:-1]))
    return across / total, along / total
