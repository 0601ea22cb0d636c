"""PSF and energy dispersion of a run, which change with the distance from its pointing alone.

So both are computed once for each set of responses, at a few offsets, and interpolated from there
to wherever on the sky they are asked for. Runs that share their responses share that work.

`Pieces`, `Listed`
    The offsets, and the interpolation between them.
`OffsetResponses`
    PSF and energy dispersion at these offsets.
`ResponseCache`
    Those that were made last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..irf.axis import FloatArray, IrfAxis
from ..maps import MapAxis
from ..products import product

Interpolation = Callable[[FloatArray], FloatArray]

# Step in ln E of the energies over which "exact" averages area and energy dispersion in a bin.
SUB_STEP = 0.0155
# Chebyshev points: polynomials through them stay close to what they interpolate.
_POINTS = np.cos(np.pi * (np.arange(4)[::-1] + 0.5) / 4)
_SAME = 1e-5


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

    def to(self, offsets: FloatArray) -> Interpolation:
        """What takes values (..., K) at `offsets` to others (P,), 0 beyond them all."""
        piece = np.searchsorted(self.borders, offsets) - 1
        piece[offsets == self.borders[0]] = 0
        inside = np.flatnonzero((piece >= 0) & (piece < len(self.borders) - 1))
        piece = piece[inside]
        low, high = self.borders[piece], self.borders[piece + 1]
        at = (2.0 * offsets[inside] - low - high) / (high - low)
        matrix = np.zeros((len(offsets), len(self.borders) - 1, len(_POINTS)))
        for point, place in enumerate(_POINTS):
            others = np.delete(_POINTS, point)
            matrix[inside, piece, point] = np.prod(
                [(at - other) / (place - other) for other in others], axis=0
            )
        return partial(_interpolated, matrix.reshape(len(offsets), -1).T)


def _borders(axis: IrfAxis) -> FloatArray:
    """Nodes and edges of an axis, with some more in the half bins beyond the outer nodes."""
    first, last = axis.nodes[[0, -1]]
    low, high = axis.edges[0], max(axis.edges[1], axis.edges[0] + 2.0 * _SAME)
    return np.concatenate([np.linspace(low, first, 5), axis.nodes, np.linspace(last, high, 5)])


def _interpolated(matrix: FloatArray, values: FloatArray) -> FloatArray:
    return product(values, matrix)


class Listed:
    """Offsets each taken as it is, for numbers that are to be exactly those of the tables.

    Parameters
    ----------
    offsets : ndarray, shape (P,)
        All that will be asked for, in degrees.
    """

    def __init__(self, offsets: FloatArray) -> None:
        self.offsets = np.unique(offsets)

    def to(self, offsets: FloatArray) -> Interpolation:
        """What takes values (..., K) at `offsets` to others (P,) that are among them."""
        return partial(np.take, indices=np.searchsorted(self.offsets, offsets), axis=-1)


@dataclass(frozen=True, eq=False)
class OffsetResponses:
    """PSF and energy dispersion of a run at K offsets.

    Parameters
    ----------
    at : `Pieces` or `Listed`
        The offsets.
    psf : ndarray, shape (T, K, W), or None
        Mixtures, see `irf.mixture`.
    photons : ndarray, shape (T, R, K), or None
        Effective area in m2 times the probability to be found in each reconstructed bin.
    """

    at: Pieces | Listed
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
        area = np.ones(shape)
        if "aeff" in tables:
            area = tables["aeff"].evaluate(samples.ravel(), at.offsets).reshape(shape)
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
            psf = tables["psf"].mixture(energies, at.offsets)
        return cls(at, psf, photons.sum(axis=1) if "edisp" in tables else None)


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
