"""Peaks of a significance map, and what they are worth after looking at a whole map.

`find_sources` gives a `FoundSources`: a table, and point sources to begin a fit with.

The chance of a peak anywhere in a map is the expected Euler characteristic of the excursion set of
a Gaussian field, ``R0 p(u) + R1 rho1(u) + R2 rho2(u)`` (Worsley et al. 1996, Hum. Brain Mapp. 4,
58; for searches in physics Vitells & Gross 2011, Astropart. Phys. 35, 230), where u is sqrt(TS), p
the one-sided Gaussian tail, ``rho1 = exp(-u^2 / 2) / 2 pi``, ``rho2 = u exp(-u^2 / 2) / (2
pi)^1.5``, R2 the number of correlation areas, ``sum over pixels of sqrt(lx ly)``, R1 half the
map's outline in correlation lengths. The roughness ``l = 2 (1 - r)`` per pixel squared comes from
the correlation r of neighbouring pixels, the autocorrelation of the disk or of the source's image.
It is never more than one trial a pixel (Bonferroni), which holds for sharp disks. The number of
trials is the ratio of that chance to p(u).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter
from scipy.special import log_ndtr, ndtri_exp

from ..errors import DataError, InputError
from ..maps import WcsGeom, WcsNDMap, convert_frame, separation
from ..models import Models, PointSpatialModel, SkyModel
from .bands import as_degrees
from .flux_maps import FluxMaps

FloatArray = NDArray[np.float64]

__all__ = ["FoundSources", "find_sources", "log_trials"]


@dataclass(frozen=True, eq=False)
class FoundSources:
    """Peaks of a map, the most significant first.

    Attributes
    ----------
    table : `~astropy.table.Table`
        ``name, x, y`` (pixels), ``lon, lat`` (deg, the map's frame), ``ra, dec`` (deg),
        ``sqrt_ts``, ``p_value`` (one-sided, of this place alone), ``trials``, ``p_value_post``,
        ``sigma_post`` (0 if the peak is no surprise), and, if the maps have them, ``flux,
        flux_err, flux_ul, norm, npred_excess``.
    threshold : float
        sqrt(TS) that peaks had to reach.
    min_distance : float
        Degrees.
    frame : str
    reference_model : `SkyModel` or None
        What a norm of 1 stands for.
    """

    table: Table
    threshold: float
    min_distance: float
    frame: str
    reference_model: SkyModel | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.table)

    def to_models(self, taken: Sequence[str] = ()) -> Models:
        """Point sources at the peaks, with the map's spectrum and each peak's flux.

        Parameters
        ----------
        taken : sequence of str
            Names that the sources must not have.

        Raises
        ------
        DataError
            If the map has no fluxes.
        """
        if self.reference_model is None or "norm" not in self.table.colnames:
            raise DataError("found sources: the map has no flux, so they cannot become models")
        found = []
        used = set(taken)
        for row in self.table:
            name, number = str(row["name"]), 1
            while name in used:
                number += 1
                name = f"{row['name']}-{number}"
            used.add(name)
            old = self.reference_model.spectral_model
            spectral = type(old)(**{p.name: p for p in old.parameters})
            linear = spectral.parameters[spectral.linear]
            linear.value = float(linear.value * row["norm"])
            spatial = PointSpatialModel(
                frame=self.frame, lon_0=float(row["lon"]), lat_0=float(row["lat"])
            )
            found.append(SkyModel(spectral, spatial, name))
        return Models(found)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = [
            {key: row[key].item() for key in self.table.colnames}  # numpy's to Python's
            for row in self.table
        ]
        return {
            "threshold": self.threshold,
            "min_distance": self.min_distance,
            "frame": self.frame,
            "sources": rows,
        }

    def __str__(self) -> str:
        if not len(self):
            return f"No peak reaches sqrt(TS) {self.threshold:g}.\n"
        lines = [f"{len(self)} above sqrt(TS) {self.threshold:g}:"]
        for row in self.table:
            text = (
                f"  {row['name']}: {self.frame} ({row['lon']:.3f}, {row['lat']:.3f}) deg, "
                f"{row['sqrt_ts']:.1f} sigma, {row['sigma_post']:.1f} after "
                f"{row['trials']:.3g} trials"
            )
            if "flux" in self.table.colnames:
                text += f", flux {row['flux']:.2e} cm-2 s-1"
            lines.append(text)
        return "\n".join(lines) + "\n"


def find_sources(
    maps: FluxMaps | WcsNDMap,
    threshold: float = 5.0,
    min_distance: Any = None,
    band: int = 0,
    neighbour_correlation: tuple[float, float] | None = None,
    stem: str = "source",
) -> FoundSources:
    """Find the peaks of a map of sqrt(TS).

    Parameters
    ----------
    maps : `FluxMaps` or `WcsNDMap`
        Of an estimator, or a map of sqrt(TS) of shape (ny, nx) or (band, ny, nx).
    threshold : float
        Least sqrt(TS).
    min_distance : angle, optional
        Between two peaks, of which the lower is left out. By default twice the distance at which
        neighbouring pixels' correlation would have fallen to 0.5.
    band : int
        Which energy band.
    neighbour_correlation : (float, float), optional
        Correlation of a pixel's noise with the next one's along x and y; `FluxMaps` know it. For
        a `WcsNDMap` 0 by default: every pixel is a trial.
    stem : str
        Sources are named ``stem-1`` and so on.

    Raises
    ------
    InputError
        If a number is out of range.
    DataError
        If the map has no valid pixel.
    """
    if not (isinstance(threshold, Real) and math.isfinite(threshold) and threshold > 0):
        raise InputError(f"threshold: {threshold!r}; expected a sqrt(TS) above 0")
    chosen = maps["sqrt_ts"] if isinstance(maps, FluxMaps) else maps
    planes = chosen.data.reshape(-1, *chosen.geom.shape)
    if not 0 <= band < len(planes):
        raise InputError(f"band: {band}; the map has {len(planes)}, counted from 0")
    geom = chosen.geom.to_image()
    image = np.asarray(planes[band], dtype=float)
    valid = np.isfinite(image)
    if not valid.any():
        raise DataError("find_sources: the map has no valid pixel")
    if neighbour_correlation is None:
        every = maps.meta.get("neighbour_correlation") if isinstance(maps, FluxMaps) else None
        neighbour_correlation = tuple(every[band]) if every is not None else (0.0, 0.0)
    if not all(0 <= r <= 1 for r in neighbour_correlation):
        raise InputError(f"neighbour_correlation: {neighbour_correlation}; expected 0 to 1 each")
    distance = (
        _typical_distance(geom, neighbour_correlation)
        if min_distance is None
        else as_degrees("min_distance", min_distance)
    )
    peaks = _peaks(geom, image, valid, float(threshold), distance)
    table = _table(geom, peaks, image, valid, neighbour_correlation, stem)
    if isinstance(maps, FluxMaps):
        rows, columns = peaks[:, 0].astype(int), peaks[:, 1].astype(int)
        for name in ("flux", "flux_err", "flux_ul", "norm", "npred_excess"):
            if name in maps.maps:
                table[name] = maps[name].data[band][rows, columns]
                if maps[name].unit:
                    table[name].unit = maps[name].unit
    model = maps.reference_model if isinstance(maps, FluxMaps) else None
    return FoundSources(table, float(threshold), distance, geom.frame, model)


def log_trials(
    sqrt_ts: FloatArray, valid: NDArray[np.bool_], neighbour_correlation: tuple[float, float]
) -> FloatArray:
    """Logarithm of the number of trials that a search of a map stands for, see the module.

    Parameters
    ----------
    sqrt_ts : ndarray, shape (N,)
        Heights of peaks.
    valid : ndarray of bool, shape (ny, nx)
        The pixels searched.
    neighbour_correlation : (float, float)
        Along x and y.
    """
    u = np.asarray(sqrt_ts, dtype=float)
    rough_x, rough_y = (math.sqrt(2.0 * (1.0 - r)) for r in neighbour_correlation)
    # Outline: pixels' edges between valid and not, half of it in correlation lengths.
    framed = np.pad(valid, 1)
    across_x = np.count_nonzero(framed[:, 1:] != framed[:, :-1])
    across_y = np.count_nonzero(framed[1:] != framed[:-1])
    outline = 0.5 * (across_x * rough_y + across_y * rough_x)
    area = np.count_nonzero(valid) * rough_x * rough_y
    log_p = log_ndtr(-u)
    excursion = np.exp(-0.5 * u * u - log_p)
    ratio = 1.0 + 0.5 * outline * excursion / (2.0 * np.pi)
    ratio += area * np.maximum(u, 0.0) * excursion / (2.0 * np.pi) ** 1.5
    return np.asarray(np.log(np.clip(ratio, 1.0, np.count_nonzero(valid))))


def _typical_distance(geom: WcsGeom, correlation: tuple[float, float]) -> float:
    """Twice the distance at which a Gaussian correlation of this roughness is 0.5."""
    lengths = [
        scale * math.sqrt(math.log(2.0) / max(1.0 - r, 1e-9))
        for scale, r in zip(geom.pixel_scales, correlation, strict=True)
    ]
    return 2.0 * max(lengths)


def _peaks(
    geom: WcsGeom, image: FloatArray, valid: NDArray[np.bool_], threshold: float, distance: float
) -> FloatArray:
    """Rows (y, x, refined y, refined x, lon, lat) of local maxima, highest first."""
    filled = np.where(valid, image, -np.inf)
    top = (filled >= maximum_filter(filled, 3, mode="constant", cval=-np.inf)) & (
        filled >= threshold
    )
    rows, columns = np.nonzero(top)
    order = np.argsort(-filled[rows, columns], kind="stable")
    kept: list[list[float]] = []
    for i in order:
        y, x = int(rows[i]), int(columns[i])
        fine_y, fine_x = y + _offset(filled[:, x], y), x + _offset(filled[y], x)
        lon, lat = (float(v) for v in geom.pix_to_lonlat(fine_x, fine_y))
        far = np.array([row[4:] for row in kept]).reshape(-1, 2)
        if len(far) and float(separation(far[:, 0], far[:, 1], lon, lat).min()) < distance:
            continue
        kept.append([y, x, fine_y, fine_x, lon, lat])
    return np.array(kept).reshape(-1, 6)


def _offset(line: FloatArray, at: int) -> float:
    """The top of the parabola through a maximum and its neighbours, within half a pixel."""
    if not 0 < at < len(line) - 1 or not np.all(np.isfinite(line[at - 1 : at + 2])):
        return 0.0
    # TS is a parabola near its top, sqrt(TS) less so.
    before, here, after = np.sign(line[at - 1 : at + 2]) * line[at - 1 : at + 2] ** 2
    bend = before - 2.0 * here + after
    return float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)) if bend < 0 else 0.0


def _table(
    geom: WcsGeom,
    peaks: FloatArray,
    image: FloatArray,
    valid: NDArray[np.bool_],
    correlation: tuple[float, float],
    stem: str,
) -> Table:
    u = image[peaks[:, 0].astype(int), peaks[:, 1].astype(int)]
    log_p = log_ndtr(-u)
    trials = log_trials(u, valid, correlation)
    # Chance of one or more such peaks; small ones are exact by their logarithm.
    expected = np.exp(np.minimum(log_p + trials, 50.0))
    with np.errstate(divide="ignore"):
        log_post = np.where(expected < 1e-6, log_p + trials, np.log(-np.expm1(-expected)))
    ra, dec = convert_frame(peaks[:, 4], peaks[:, 5], geom.frame, "icrs")
    table = Table()
    table["name"] = np.array([f"{stem}-{i + 1}" for i in range(len(peaks))], dtype="U64")
    columns: dict[str, tuple[FloatArray, str]] = {
        "x": (peaks[:, 3], "pix"),
        "y": (peaks[:, 2], "pix"),
        "lon": (peaks[:, 4], "deg"),
        "lat": (peaks[:, 5], "deg"),
        "ra": (ra % 360.0, "deg"),
        "dec": (dec, "deg"),
        "sqrt_ts": (u, ""),
        "p_value": (np.exp(log_p), ""),
        "trials": (np.exp(trials), ""),
        "p_value_post": (np.exp(log_post), ""),
        "sigma_post": (np.maximum(-ndtri_exp(log_post), 0.0), ""),
    }
    for name, (values, unit) in columns.items():
        table[name] = np.asarray(values, dtype=float)
        if unit:
            table[name].unit = unit
    return table
