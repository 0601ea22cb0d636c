"""Ticks and grid lines of a sky map: where round longitudes and latitudes meet the frame.

A tick is a crossing of a line of equal longitude (or latitude) with the lower (or left) edge of the
part of the map that is seen, found on the WCS itself, so that it is right in any projection and at
any zoom. Positions are pixels of the map, labels are degrees or sexagesimal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.maps import WcsGeom
from .palette import nice_step

FloatArray = NDArray[np.float64]

# (x low, x high, y low, y high) in pixels
View = tuple[float, float, float, float]

_SAMPLES = 129
# Round steps of sexagesimal axes, in seconds of arc or of time.
_SEXAGESIMAL = tuple(unit * count for unit in (1, 60, 3600) for count in (1, 2, 5, 10, 15, 20, 30))
_HOURS = (*_SEXAGESIMAL[:14], 3600, 7200, 10800, 14400, 21600)
_DEGREES = (*_SEXAGESIMAL[:14], 3600, 7200, 18000, 36000, 54000, 108000, 162000)


class Tick(NamedTuple):
    """A tick: its pixel along the edge, the coordinate in degrees, and its label."""

    at: float
    value: float
    label: str


class SkyTicks(NamedTuple):
    """The ticks of the lower and of the left edge."""

    lon: list[Tick]
    lat: list[Tick]


def axis_labels(frame: str) -> tuple[str, str]:
    """Names of a frame's axes."""
    if frame == "galactic":
        return "Galactic longitude", "Galactic latitude"
    return "Right ascension", "Declination"


def sky_ticks(
    geom: WcsGeom, view: View, n_lon: int = 5, n_lat: int = 5, sexagesimal: bool = False
) -> SkyTicks:
    """About ``n_lon`` and ``n_lat`` round coordinates on the lower and the left edge of a view."""
    x_low, x_high, y_low, y_high = view
    along_x = np.linspace(x_low, x_high, _SAMPLES)
    along_y = np.linspace(y_low, y_high, _SAMPLES)
    lon, _ = geom.pix_to_lonlat(along_x, np.full(_SAMPLES, y_low))
    _, lat = geom.pix_to_lonlat(np.full(_SAMPLES, x_low), along_y)
    hours = sexagesimal and geom.frame == "icrs"
    return SkyTicks(
        _edge_ticks(along_x, lon, n_lon, sexagesimal, hours, longitude=True),
        _edge_ticks(along_y, lat, n_lat, sexagesimal, False, longitude=False),
    )


def grid_lines(geom: WcsGeom, view: View, ticks: SkyTicks) -> tuple[FloatArray, FloatArray]:
    """Lines of equal longitude and latitude through a view, in pixels, parted by NaN."""
    x_low, x_high, y_low, y_high = view
    lon, lat = geom.pix_to_lonlat(
        *np.meshgrid(np.linspace(x_low, x_high, 17), np.linspace(y_low, y_high, 17))
    )
    if not np.isfinite(lon).any():
        return np.array([]), np.array([])
    across_lon = np.linspace(np.nanmin(lon), np.nanmax(lon), 65)
    across_lat = np.linspace(np.nanmin(lat), np.nanmax(lat), 65)
    lines = [
        geom.lonlat_to_pix(np.full(65, value), across_lat)
        for value in _extend([tick.value for tick in ticks.lon], across_lon)
    ]
    lines += [
        geom.lonlat_to_pix(across_lon, np.full(65, value))
        for value in _extend([tick.value for tick in ticks.lat], across_lat)
    ]
    if not lines:
        return np.array([]), np.array([])
    parted = [np.column_stack([*line]) for line in lines]
    gap = np.full((1, 2), np.nan)
    joined = np.concatenate([part for line in parted for part in (gap, line)][1:])
    return joined[:, 0], joined[:, 1]


def _extend(values: Sequence[float], across: FloatArray) -> list[float]:
    """The round values of ticks, continued over all the coordinates that a view holds."""
    if len(values) < 2:
        return list(values)
    ordered = sorted(values)
    step = min(np.diff(ordered))
    first = math.ceil(across[0] / step - 1e-6)
    last = math.floor(across[-1] / step + 1e-6)
    if last - first > 40:
        return ordered
    return [index * step for index in range(first, last + 1)]


def _edge_ticks(
    pixels: FloatArray,
    coordinate: FloatArray,
    wanted: int,
    sexagesimal: bool,
    hours: bool,
    longitude: bool,
) -> list[Tick]:
    """Round values of a coordinate along an edge; `coordinate` in degrees, NaN off the sky."""
    good = np.isfinite(coordinate)
    if good.sum() < 2:
        return []
    pixels, coordinate = pixels[good], coordinate[good]
    low, high = float(coordinate.min()), float(coordinate.max())
    if not high > low:
        return []
    step = _step(low, high, wanted, sexagesimal, hours)
    # Minutes even where whole degrees or hours would do, so that one sees which form it is.
    precision = min(step, 0.25 if hours else 1.0 / 60.0)
    ticks = []
    for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        value = index * step
        for at in _crossings(pixels, coordinate - value):
            shown = value % 360.0 if longitude else value
            label = (
                format_sexagesimal(shown, hours, precision)
                if sexagesimal
                else format_degrees(shown, step, longitude)
            )
            ticks.append(Tick(at, value, label))
    return sorted(ticks)


def _step(low: float, high: float, wanted: int, sexagesimal: bool, hours: bool) -> float:
    """A round step in degrees: about ``wanted`` ticks, but two at least."""
    scale = (15.0 if hours else 1.0) / 3600.0
    step = 0.0
    for number in (wanted, wanted + 1, wanted + 2, 2 * wanted + 2):
        rough = (high - low) / max(number, 1)
        if sexagesimal and rough >= scale:
            steps = _HOURS if hours else _DEGREES
            step = next((s for s in steps if s * scale >= 0.999 * rough), steps[-1]) * scale
        else:
            step = nice_step(rough)
        if math.floor(high / step + 1e-9) > math.ceil(low / step - 1e-9):
            break
    return step


def _crossings(pixels: FloatArray, difference: FloatArray) -> list[float]:
    """Pixels at which a sampled curve goes through zero, by linear interpolation."""
    sign = np.sign(difference)
    found = [float(at) for at in pixels[sign == 0]]
    for index in np.flatnonzero(sign[:-1] * sign[1:] < 0):
        share = difference[index] / (difference[index] - difference[index + 1])
        found.append(float(pixels[index] + share * (pixels[index + 1] - pixels[index])))
    return found


def format_degrees(value: float, step: float, longitude: bool = False) -> str:
    """Degrees with as many decimals as a step between ticks asks for."""
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    rounded = round(value, decimals)
    if longitude and rounded >= 360.0:
        rounded -= 360.0
    text = f"{rounded + 0.0:.{decimals}f}"
    return f"{text}°".replace("-", "\N{MINUS SIGN}")


def format_sexagesimal(value: float, hours: bool, step: float) -> str:
    """Degrees as h m s or ° ′ ″, down to the unit that a step between ticks (degrees) asks for."""
    scale = 240.0 if hours else 3600.0
    step_units = step * scale
    decimals = max(0, -math.floor(math.log10(step_units) + 1e-9)) if step_units < 1 else 0
    total = round(abs(value) * scale, decimals)
    if hours:
        total %= 86400.0
    big, rest = divmod(total, 3600.0)
    middle, small = divmod(rest, 60.0)
    units = ("h", "m", "s") if hours else ("°", "′", "″")
    sign = "\N{MINUS SIGN}" if value < 0 and total > 0 else ""
    text = f"{sign}{int(big)}{units[0]}"
    if step_units % 3600.0 > 1e-6:
        text += f"{int(middle):02d}{units[1]}"
    if step_units % 60.0 > 1e-6:
        text += f"{small:0{2 + (decimals + 1 if decimals else 0)}.{decimals}f}{units[2]}"
    return text
