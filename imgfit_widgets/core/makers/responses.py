"""PSF and energy dispersion of a run, which change with the distance from its pointing alone.

So both are computed once for each set of responses, at a few offsets, and interpolated from there
to wherever on the sky they are asked for. Runs that share their responses share that work.

`Pieces`, `Listed`
    The offsets, and the interpolation between them.
`OffsetResponses`
    PSF and energy dispersion at these offsets.
`ResponseCache`
    Those that were made last.
`StackedResponses`
    Their mean over runs, on a grid of the sky.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ..irf.axis import FloatArray, IrfAxis
from ..irf.edisp import EDispKernelMap
from ..irf.psf import PSF_WIDTHS, PSFMap
from ..maps import MapAxis, WcsGeom
from ..products import product
from ..progress import Progress, silent

# Step in ln E of the energies over which "exact" averages area and energy dispersion in a bin.
SUB_STEP = 0.0155
# Chebyshev points: polynomials through them stay close to what they interpolate.
_POINTS = np.cos(np.pi * (np.arange(4)[::-1] + 0.5) / 4)
_OTHERS = np.array([np.delete(_POINTS, point) for point in range(len(_POINTS))])
_SAME = 1e-5
# Values that are added to a map at once, in the processor's cache.
_CACHED = 1 << 16
# Values of the energy dispersion that are held beside the map of it.
_AT_ONCE = 1 << 21


class Pieces:
    """Cubics of the offset, at least one between each two nodes of some response tables.

    Tables are linear between their nodes, so what is made of several of them has kinks there and
    is smooth in between, where a cubic through four points of the piece meets it to 1e-4. Beyond
    the outer nodes, where densities that would fall below 0 are cut, shorter pieces meet it to 5e-4
    of the probability and 2e-5 of the counts in a wide band, 2e-3 and 4e-4 in narrow ones. No point
    lies on a border, where one of the tables may end.

    Parameters
    ----------
    axes : sequence of `IrfAxis`
        Offset axes, degrees.
    reach : float
        Largest offset that is asked for.
    """

    def __init__(self, axes: Sequence[IrfAxis], reach: float) -> None:
        borders = np.unique(np.concatenate([_borders(axis) for axis in axes]))
        borders = borders[np.append(True, np.diff(borders) > _SAME)]
        self.end = float(borders[-1])
        self.borders = borders[: max(int(np.searchsorted(borders, reach)), 1) + 1]
        low, high = self.borders[:-1, None], self.borders[1:, None]
        self.offsets: FloatArray = (0.5 * (low + high) + 0.5 * (high - low) * _POINTS).ravel()

    def to(self, offsets: FloatArray) -> csr_array:
        """The matrix (P, K) from `offsets` to others (P,); rows of nothing beyond them all."""
        count = len(_POINTS)
        piece = np.searchsorted(self.borders, offsets) - 1
        piece[offsets == self.borders[0]] = 0
        inside = (piece >= 0) & (piece < len(self.borders) - 1)
        piece = piece[inside]
        low, high = self.borders[piece], self.borders[piece + 1]
        at = (2.0 * offsets[inside] - low - high) / (high - low)
        weights = np.prod((at[:, None, None] - _OTHERS) / (_POINTS[:, None] - _OTHERS), axis=2)
        columns = (piece[:, None] * count + np.arange(count)).astype(np.int32)
        rows = np.concatenate([[0], count * np.cumsum(inside)]).astype(np.int32)
        shape = len(offsets), len(self.offsets)
        return csr_array((weights.ravel(), columns.ravel(), rows), shape)


def _borders(axis: IrfAxis) -> FloatArray:
    """Nodes and edges of an axis, with some more in the half bins beyond the outer nodes."""
    first, last = axis.nodes[[0, -1]]
    low, high = axis.edges[0], max(axis.edges[1], axis.edges[0] + 2.0 * _SAME)
    return np.concatenate([np.linspace(low, first, 5), axis.nodes, np.linspace(last, high, 5)])


class Listed:
    """Offsets each taken as it is, for numbers that are to be exactly those of the tables.

    Parameters
    ----------
    offsets : ndarray, shape (P,)
        All that will be asked for, in degrees.
    """

    def __init__(self, offsets: FloatArray) -> None:
        self.offsets = np.unique(offsets)

    def to(self, offsets: FloatArray) -> csr_array:
        """The matrix (P, K) from `offsets` to others (P,) that are among them."""
        columns = np.searchsorted(self.offsets, offsets)
        entries = np.ones(len(columns)), columns, np.arange(len(columns) + 1)
        return csr_array(entries, shape=(len(columns), len(self.offsets)))


@dataclass(frozen=True, eq=False)
class OffsetResponses:
    """PSF and energy dispersion of a run at K offsets.

    Parameters
    ----------
    at : `Pieces` or `Listed`
        The offsets.
    area : ndarray, shape (K, T)
        Effective area at the centres of the true-energy bins, m2.
    psf : ndarray, shape (K, T, W), or None
        Mixtures, see `irf.mixture`, times that area, by which runs count in their mean.
    photons : ndarray, shape (K, T, R), or None
        Effective area in m2 times the probability to be found in each reconstructed bin.
    """

    at: Pieces | Listed
    area: FloatArray
    psf: FloatArray | None
    photons: FloatArray | None

    @classmethod
    def of(
        cls,
        tables: Mapping[str, Any],
        at: Pieces | Listed,
        axis: MapAxis,
        axis_true: MapAxis,
        exact: bool,
    ) -> OffsetResponses:
        """Those of some response tables.

        Gammapy takes both at the centre of a true-energy bin. Near the threshold area and
        dispersion rise so steeply within a bin that this costs 0.3 % of the counts; so ``exact``
        averages their product over the bin for a power law of index 2, and takes the PSF at the
        mean energy of the photons that are found.

        Parameters
        ----------
        tables : dict
            Responses by their kind, ``aeff edisp psf``, as far as there are any. Without the first
            the area is taken as 1, without the second a photon is found whatever its energy.
        at : `Pieces` or `Listed`
        axis, axis_true : `MapAxis`
        exact : bool
        """
        samples, flux = _samples(axis_true) if exact else (axis_true.centers[:, None], np.ones(1))
        shape = (*samples.shape, len(at.offsets))
        area, central = np.ones(shape), np.ones((len(at.offsets), axis_true.nbin))
        if "aeff" in tables:
            area = tables["aeff"].evaluate(samples.ravel(), at.offsets).reshape(shape)
            central = tables["aeff"].evaluate(axis_true.centers, at.offsets).T
        photons = (area * flux[..., None])[:, :, None]
        if "edisp" in tables:
            found = tables["edisp"].probabilities(samples.ravel(), axis, at.offsets)
            photons = photons * found.reshape(*samples.shape, axis.nbin, -1)
        psf = None
        if "psf" in tables:
            # As many nodes lie at an offset as its circle is long.
            weight = (photons * at.offsets).sum(axis=(2, 3))
            with np.errstate(invalid="ignore", divide="ignore"):
                mean = np.exp((weight * np.log(samples)).sum(axis=1) / weight.sum(axis=1))
            energies = np.where(np.isfinite(mean), mean, axis_true.centers)
            psf = np.moveaxis(tables["psf"].mixture(energies, at.offsets), 1, 0)
            psf = psf * central[..., None]
        found = np.moveaxis(photons.sum(axis=1), 2, 0) if "edisp" in tables else None
        return cls(at, central, psf, found)

    def same_psf(self, other: OffsetResponses) -> bool:
        """Whether the PSF is the same; of the same file it is, whatever process read it."""
        if self is other:
            return True
        pairs = (self.at.offsets, other.at.offsets), (self.area, other.area), (self.psf, other.psf)
        return all(np.array_equal(mine, its) for mine, its in pairs)  # type: ignore[arg-type]


def _samples(axis_true: MapAxis) -> tuple[FloatArray, FloatArray]:
    """Energies in each bin and the share of a power law of index 2 around each, both (T, S)."""
    edges = np.log(axis_true.bounds)
    widest = float(np.diff(edges).max())
    fraction = np.linspace(0.0, 1.0, max(4, math.ceil(widest / SUB_STEP)) + 1)
    sub_edges = np.exp(edges[:-1, None] + np.diff(edges)[:, None] * fraction)
    flux = 1.0 / sub_edges[:, :-1] - 1.0 / sub_edges[:, 1:]
    flux /= flux.sum(axis=1, keepdims=True)
    return np.sqrt(sub_edges[:, 1:] * sub_edges[:, :-1]), flux


class ResponseCache:
    """The responses that were made last, for runs of one period, which often share them.

    Parameters
    ----------
    size : int
        How many are kept.
    """

    def __init__(self, size: int = 4) -> None:
        self.size = size
        self._made: dict[tuple[Any, ...], OffsetResponses] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"size": self.size, "_made": {}}  # another process makes its own

    def get(
        self,
        tables: Mapping[str, Any],
        axis: MapAxis,
        axis_true: MapAxis,
        offsets: FloatArray,
        exact: bool,
    ) -> OffsetResponses:
        """The responses for some offsets (P,), made if they are not there.

        See `OffsetResponses.of`; Gammapy's are made at each of the offsets and not kept.
        """
        if not exact:
            return OffsetResponses.of(tables, Listed(offsets), axis, axis_true, exact)
        at = Pieces(
            [table.offset for table in tables.values()],
            float(np.max(offsets, initial=0.0, where=np.isfinite(offsets))),
        )
        key = (axis, axis_true, at.borders[-1], *tables.values())
        if key not in self._made:
            while len(self._made) >= self.size:
                self._made.pop(next(iter(self._made)))
            self._made[key] = OffsetResponses.of(tables, at, axis, axis_true, exact)
        return self._made[key]


class StackedResponses:
    """Mean PSF and energy dispersion of runs, weighted by their exposure, on a coarse sky grid.

    What runs with the same responses add is first summed as weights of their offsets, and taken to
    the grid once.

    Parameters
    ----------
    geom : `WcsGeom`
        The grid.
    axis, axis_true : `MapAxis`
    psf, edisp : bool
        Whether there are any.
    """

    def __init__(
        self, geom: WcsGeom, axis: MapAxis, axis_true: MapAxis, psf: bool, edisp: bool
    ) -> None:
        self.geom, self.axis, self.axis_true = geom, axis, axis_true
        shape = (*geom.shape, axis_true.nbin)
        self._psf = np.zeros((*shape, len(PSF_WIDTHS))) if psf else None
        self._edisp = np.zeros((*shape, axis.nbin)) if edisp else None
        self._exposure_psf, self._exposure_edisp = np.zeros(shape), np.zeros(shape)
        self._shared: OffsetResponses | None = None
        self._waiting: csr_array | None = None  # (nodes, K), what has not been taken to the grid

    def add(
        self,
        responses: OffsetResponses,
        nodes: tuple[slice, slice],
        offsets: FloatArray,
        livetime: float,
        seen: NDArray[np.bool_],
        bands: NDArray[np.bool_],
        progress: Progress = silent,
    ) -> None:
        """Add a run.

        Parameters
        ----------
        responses : `OffsetResponses`
        nodes : (slice, slice)
            The part of the grid that it covers, (v, u).
        offsets : ndarray, shape (v, u)
            Of the nodes, degrees.
        livetime : float
            s.
        seen : ndarray of bool, shape (v, u)
            Where it enters the PSF.
        bands : ndarray of bool, shape (R, v, u)
            Where it enters the energy dispersion.
        """
        if not offsets.size:
            return
        step = max(1, _AT_ONCE // (offsets.shape[1] * self.axis_true.nbin * self.axis.nbin))
        if len(offsets) > step:
            first = nodes[0].start
            for start in range(0, len(offsets), step):
                progress(start / len(offsets), "Stacking the energy dispersion")
                stop = min(start + step, len(offsets))
                rows = slice(start, stop)
                within = slice(first + start, first + stop), nodes[1]
                some = offsets[rows], livetime, seen[rows], bands[:, rows]
                self.add(responses, within, *some, progress)
            return
        matrix = responses.at.to(offsets.ravel())
        shape = (*offsets.shape, self.axis_true.nbin)
        exposure = np.maximum(matrix @ responses.area, 0.0).reshape(shape) * livetime
        self._exposure_psf[nodes] += exposure * seen[..., None]
        self._exposure_edisp[nodes] += exposure * np.any(bands, axis=0, keepdims=True)[0, ..., None]
        if self._edisp is not None and responses.photons is not None:
            found = matrix @ responses.photons.reshape(matrix.shape[1], -1)
            found = np.maximum(found, 0.0, out=found).reshape(*shape, self.axis.nbin)
            found *= np.moveaxis(bands, 0, 2)[:, :, None] * livetime
            self._edisp[nodes] += found
        if self._psf is not None:
            if self._shared is None or not self._shared.same_psf(responses):
                self._settle(progress)
            matrix.data *= np.repeat(seen.ravel() * livetime, np.diff(matrix.indptr))
            ends = np.zeros(self.geom.shape, dtype=matrix.indptr.dtype)
            ends[nodes] = np.diff(matrix.indptr).reshape(offsets.shape)
            ends = np.concatenate([[0], np.cumsum(ends)])
            added = csr_array((matrix.data, matrix.indices, ends), (ends.size - 1, matrix.shape[1]))
            self._waiting = added if self._waiting is None else self._waiting + added
            self._shared = responses

    def _settle(self, progress: Progress) -> None:
        """Take the PSF of runs that shared their responses to the grid."""
        waiting, shared, self._waiting, self._shared = self._waiting, self._shared, None, None
        if waiting is None or shared is None or shared.psf is None or self._psf is None:
            return
        values = shared.psf.reshape(waiting.shape[1], -1)
        stacked = self._psf.reshape(len(self._psf) * self._psf.shape[1], -1)
        dense = 4 * waiting.nnz > math.prod(waiting.shape)
        step = max(1, _CACHED // values.shape[1])
        for start in range(0, len(stacked), step):
            progress(start / len(stacked), "Stacking the PSF")
            some = waiting[start : start + step]
            if some.nnz:
                found = product(some.toarray(), values) if dense else some @ values
                stacked[start : start + step] += found

    def maps(self, progress: Progress = silent) -> tuple[PSFMap | None, EDispKernelMap | None]:
        """The mean of what has been added; what it was is gone then."""
        self._settle(progress)
        psf = edisp = None
        if self._psf is not None:
            mean, exposure = _mean(self._psf, self._exposure_psf)
            psf = PSFMap(self.geom, self.axis_true, mean, exposure)
        if self._edisp is not None:
            mean, exposure = _mean(self._edisp, self._exposure_edisp)
            edisp = EDispKernelMap(self.geom, self.axis, self.axis_true, mean, exposure)
        return psf, edisp


def _mean(sums: FloatArray, exposure: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Sums (y, x, T, N) over exposure (y, x, T), in place, as (T, N, y, x), and (T, y, x)."""
    sums *= np.divide(1.0, exposure, out=np.zeros_like(exposure), where=exposure > 0)[..., None]
    return np.moveaxis(sums, (2, 3), (0, 1)), np.moveaxis(exposure, 2, 0).copy()
