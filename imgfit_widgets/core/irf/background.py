"""Background rates (BKG_2D, BKG_3D): reconstructed energy and place in the field of view.

Rates are interpolated in their logarithm, linearly in log energy and in field-of-view degrees, so
between two nodes the spectrum is a power law, whose integral over a bin is taken exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from ..maps import MapAxis
from ..products import product
from .axis import FloatArray, IrfAxis

# What stands for 0 on a logarithmic scale.
_TINY = float(np.finfo(np.float32).tiny)
_CHUNK = 16384


def fill_energy_gaps(rate: FloatArray) -> FloatArray:
    """Fill zeros between two positive energies by log interpolation, axis 0; not at the ends."""
    valid = np.isfinite(rate) & (rate > 0)
    filled = np.where(np.isfinite(rate), rate, 0.0)
    if valid.all():
        return filled
    held = np.logical_or.accumulate(valid, axis=0)
    held &= np.logical_or.accumulate(valid[::-1], axis=0)[::-1]
    gap = held & ~valid
    for place in zip(*np.nonzero(gap.any(axis=0)), strict=True):
        at = (slice(None), *place)
        nodes, empty = np.flatnonzero(valid[at]), np.flatnonzero(gap[at])
        filled[(empty, *place)] = np.exp(np.interp(empty, nodes, np.log(rate[at][nodes])))
    return filled


class _PowerLaws:
    """Integral over energy of rates that are power laws between energies.

    Exact: with ``x = ln(E2 B2 / E1 B1)``, ``L = ln(E2 / E1)`` each piece is
    ``L (E2 B2 - E1 B1) / x``. In single precision, which is that of the tables, at a third of the
    time, about their largest value at each energy: right to some 1e-6.

    Parameters
    ----------
    log_rates : ndarray, shape (N, positions)
        Of a table at the energies.
    energies : ndarray, shape (N,)
    """

    def __init__(self, log_rates: FloatArray, energies: FloatArray) -> None:
        height = log_rates + np.log(energies)[:, None]
        top = height.max(axis=1)
        self.table = np.ascontiguousarray((height - top[:, None]).T.astype(np.float32))
        self._step = np.diff(np.log(energies)).astype(np.float32)
        self._fall = np.diff(top)[:, None].astype(np.float32)
        self._share = np.exp(top - top.max())[:, None].astype(np.float32)
        self._scale = float(np.exp(top.max()))

    def integrate(self, to_positions: csr_array) -> FloatArray:
        """The integral at positions (P,), which the logarithms are interpolated to."""
        height = np.ascontiguousarray((to_positions @ self.table).T)
        x = np.diff(height, axis=0)
        x += self._fall
        # Where both ends are nearly as high (an E-1 spectrum), their difference would be lost to
        # rounding.
        flat = np.abs(x) < 0.1
        np.exp(height, out=height)
        height *= self._share
        pieces = np.diff(height, axis=0)
        np.divide(pieces, x, out=pieces, where=~flat)
        if flat.any():
            mean, square = 0.5 * (height[1:] + height[:-1])[flat], x[flat] ** 2
            pieces[flat] = mean * (1.0 - square / 12.0 + square**2 / 120.0)
        return (self._step @ pieces).astype(np.float64) * self._scale


class _BackgroundTable:
    """What tables over any field-of-view axes share: the integral over energy."""

    energy: IrfAxis
    data: FloatArray
    alignment = "RADEC"

    def __post_init__(self) -> None:
        data = fill_energy_gaps(np.array(self.data, dtype=float))
        data.flags.writeable = False
        object.__setattr__(self, "data", data)

    def _sky_weights(
        self, lon: FloatArray, lat: FloatArray, padded: bool
    ) -> tuple[csr_array, NDArray[np.bool_]]:
        """Interpolation from the table's positions to others, shape (P, positions).

        And whether the table holds them (with Gammapy's padding).
        """
        raise NotImplementedError

    @property
    def radius(self) -> float:
        """Radius in degrees of the largest circle that the table holds."""
        raise NotImplementedError

    def integrate(
        self, energy: MapAxis, fov_lon: ArrayLike, fov_lat: ArrayLike, power_law_bins: bool = False
    ) -> FloatArray:
        """Rate in each reconstructed bin.

        Parameters
        ----------
        energy : `MapAxis`
        fov_lon, fov_lat : array_like, shape (P,)
            Degrees.
        power_law_bins : bool
            Take the rate as one power law between the edges of each bin, as Gammapy does,
            instead of following every node of the table.

        Returns
        -------
        ndarray, shape (R, P)
            s-1 sr-1.
        """
        lon = np.asarray(fov_lon, dtype=float)
        lat = np.asarray(fov_lat, dtype=float)
        bands = [
            self._energies(low, high, power_law_bins)
            for low, high in zip(energy.bounds[:-1], energy.bounds[1:], strict=True)
        ]
        laws = [self._power_laws(energies) if len(energies) else None for energies in bands]
        rates = np.zeros((energy.nbin, len(lon)))
        # In parts that fit into the processor's cache.
        for start in range(0, len(lon), _CHUNK):
            part = slice(start, start + _CHUNK)
            to_sky, inside = self._sky_weights(lon[part], lat[part], power_law_bins)
            for band, law in enumerate(laws):
                if law is not None:
                    rates[band, part] = law.integrate(to_sky)
            rates[:, part][:, ~inside] = 0.0
        rates[rates < 1e6 * _TINY] = 0.0
        return rates

    def _power_laws(self, energies: FloatArray) -> _PowerLaws:
        """The rates of the table's positions at energies in TeV."""
        at_energy = self.energy.weights(energies)
        used = at_energy.any(axis=0)
        log_rates = np.log(np.maximum(self.data.reshape(len(self.data), -1)[used], _TINY))
        return _PowerLaws(product(at_energy[:, used], log_rates), energies * 1e6)  # per MeV

    def spectrum(self) -> FloatArray:
        """Rate summed over the field of view within `radius`, shape (energy,)."""
        steps = (np.arange(24) + 0.5) / 24
        theta, angle = np.meshgrid(self.radius * steps, 2 * np.pi * steps)
        lon, lat = (theta * np.cos(angle)).ravel(), (theta * np.sin(angle)).ravel()
        to_sky, _ = self._sky_weights(lon, lat, padded=False)
        table = self.data.reshape(len(self.energy.nodes), -1)
        return np.asarray((to_sky @ table.T).T @ theta.ravel())

    def _energies(self, low: float, high: float, ends_only: bool) -> FloatArray:
        """Energies between which the rate of a bin is a power law; none beyond the table."""
        start, stop = max(low, self.energy.edges[0]), min(high, self.energy.edges[1])
        # Gammapy takes a bin that reaches beyond the table as empty.
        if start >= stop or (ends_only and (start, stop) != (low, high)):
            return np.array([])
        nodes = self.energy.nodes
        between = nodes[(nodes > start) & (nodes < stop) & (not ends_only)]
        return np.array([start, *between, stop])


@dataclass(frozen=True, eq=False)
class Background3D(_BackgroundTable):
    """Background rate over the field of view in s-1 MeV-1 sr-1 (BKG_3D).

    Parameters
    ----------
    energy : `IrfAxis`
        Reconstructed energy, TeV.
    fov_lon, fov_lat : `IrfAxis`
        Degrees from the pointing; longitude positive towards smaller right ascension (azimuth).
    data : ndarray, shape (energy, fov_lon, fov_lat)
        Gaps in energy are filled.
    alignment : {"RADEC", "ALTAZ", "REVERSE_LON_RADEC"}
        What the field of view is aligned with.
    """

    tag = "bkg_3d"

    energy: IrfAxis
    fov_lon: IrfAxis
    fov_lat: IrfAxis
    data: FloatArray
    alignment: str = "RADEC"

    @property
    def radius(self) -> float:
        """Radius in degrees of the largest circle that the table holds."""
        return min(*map(abs, self.fov_lon.edges), *map(abs, self.fov_lat.edges))

    def _sky_weights(
        self, lon: FloatArray, lat: FloatArray, padded: bool
    ) -> tuple[csr_array, NDArray[np.bool_]]:
        """Bilinear interpolation from field-of-view nodes to positions, (P, nodes)."""
        (i, part_lon, inside_lon), (j, part_lat, inside_lat) = (
            self.fov_lon.locate(lon),
            self.fov_lat.locate(lat),
        )
        n_lon, n_lat = len(self.fov_lon.nodes), len(self.fov_lat.nodes)
        next_i, next_j = np.minimum(i + 1, n_lon - 1), np.minimum(j + 1, n_lat - 1)
        columns = np.empty((len(lon), 4), dtype=np.int32)
        weights = np.empty((len(lon), 4), dtype=np.float32)
        for first, row, across in ((0, i, 1.0 - part_lon), (2, next_i, part_lon)):
            columns[:, first] = row * n_lat + j
            columns[:, first + 1] = row * n_lat + next_j
            weights[:, first + 1] = across * part_lat
            weights[:, first] = across - weights[:, first + 1]
        return _rows(weights, columns, n_lon * n_lat), inside_lon & inside_lat


@dataclass(frozen=True, eq=False)
class Background2D(_BackgroundTable):
    """Background rate by distance from the pointing in s-1 MeV-1 sr-1 (BKG_2D).

    Parameters
    ----------
    energy : `IrfAxis`
        Reconstructed energy, TeV.
    offset : `IrfAxis`
        Degrees.
    data : ndarray, shape (energy, offset)
        Gaps in energy are filled.
    """

    tag = "bkg_2d"

    energy: IrfAxis
    offset: IrfAxis
    data: FloatArray

    @property
    def radius(self) -> float:
        """Radius in degrees of the largest circle that the table holds."""
        return self.offset.edges[1]

    def _sky_weights(
        self, lon: FloatArray, lat: FloatArray, padded: bool
    ) -> tuple[csr_array, NDArray[np.bool_]]:
        """Linear interpolation between offsets, constant beyond the outer nodes."""
        distance, nodes, limit = _distance(lon, lat), self.offset.nodes, self.offset.edges[1]
        if padded and len(self.offset.bounds) > 1:
            limit += self.offset.bounds[-1] - self.offset.bounds[-2]
        index, part, _ = self.offset.locate(np.clip(distance, nodes[0], nodes[-1]))
        columns = np.stack([index, np.minimum(index + 1, len(nodes) - 1)], axis=1)
        weights = np.stack([1.0 - part, part], axis=1)
        return _rows(weights, columns, len(nodes)), distance <= limit


def _rows(weights: NDArray[np.floating], columns: NDArray[np.integer], width: int) -> csr_array:
    """A sparse matrix (P, width), single precision, from the entries of its rows, both (P, N)."""
    ends = np.arange(0, weights.size + 1, weights.shape[1], dtype=np.int32)
    entries = weights.astype(np.float32, copy=False), columns.astype(np.int32, copy=False)
    return csr_array((*(part.ravel() for part in entries), ends), shape=(len(weights), width))


def _distance(lon: FloatArray, lat: FloatArray) -> FloatArray:
    """Degrees from the pointing of field-of-view positions."""
    cosine = np.cos(np.radians(lon)) * np.cos(np.radians(lat))
    sine = np.hypot(np.sin(np.radians(lat)), np.sin(np.radians(lon)) * np.cos(np.radians(lat)))
    return np.asarray(np.degrees(np.arctan2(sine, cosine)))
