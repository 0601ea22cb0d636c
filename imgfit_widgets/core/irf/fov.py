"""Field-of-view systems: how a background table lies on the sky while the telescope follows it.

A system is a matrix M that turns ICRS unit vectors: with ``x, y, z = M @ v`` the pointing is at
``x = 1``, the field-of-view longitude is ``arctan2(y, x)`` and the latitude ``arcsin(z)``.
Longitudes run towards smaller right ascension (RADEC) or smaller azimuth (ALTAZ).
"""

from __future__ import annotations

import erfa
import numpy as np
from numpy.typing import NDArray

from ..maps import unit_vectors
from .axis import FloatArray

ALIGNMENTS = ("RADEC", "ALTAZ", "REVERSE_LON_RADEC")
Location = tuple[float, float, float]

_FLIP = np.diag([1.0, -1.0, 1.0])
# Degrees of the Earth's rotation in a second.
_SPIN = 360.0 / 86400.0


def radec_system(ra: float, dec: float, reverse: bool = False) -> FloatArray:
    """The system that is aligned with right ascension and declination, pointing at degrees.

    ``reverse`` lets longitudes run towards larger right ascension (REVERSE_LON_RADEC).
    """
    towards = _towards(np.radians(ra), np.radians(dec))
    return towards if reverse else np.asarray(_FLIP @ towards)


def altaz_systems(
    ra: float,
    dec: float,
    location: Location,
    start: FloatArray,
    stop: FloatArray,
    exact: bool = True,
) -> list[tuple[float, FloatArray]]:
    """Systems aligned with the horizon over some good time, with their shares of it.

    Precession and nutation IAU 2006/2000A, UT1 taken as UTC (a rotation by less than 0.004 deg);
    aberration and refraction shift the whole field and are left out.

    Parameters
    ----------
    ra, dec : float
        Pointing, ICRS degrees.
    location : (float, float, float)
        Geodetic longitude (east) and latitude in degrees, height in m.
    start, stop : ndarray, shape (N,)
        Good time, MJD (UTC).
    exact : bool
        Follow every interval in steps of at most 0.5 deg of rotation, or take the time without its
        gaps in steps of 1 deg and their ends, as Gammapy does.

    Returns
    -------
    list of (float, ndarray of shape (3, 3))
    """
    pointing = unit_vectors(ra, dec)
    if exact:
        times, weights = _midpoints(pointing, location, start, stop)
    else:
        times, weights = _ends(pointing, location, float(start[0]), float(np.sum(stop - start)))
    systems = []
    for time, weight in zip(times, weights / weights.sum(), strict=True):
        horizon = _horizon(time, location)
        x, y, z = horizon @ pointing
        matrix = _FLIP @ _towards(np.arctan2(y, x), np.arcsin(np.clip(z, -1, 1))) @ horizon
        systems.append((float(weight), matrix))
    return systems


def _towards(lon: float, lat: float) -> FloatArray:
    """Rotation that brings a direction (radians) to x."""
    cos_lon, sin_lon, cos_lat, sin_lat = np.cos(lon), np.sin(lon), np.cos(lat), np.sin(lat)
    return np.array(
        [
            [cos_lat * cos_lon, cos_lat * sin_lon, sin_lat],
            [-sin_lon, cos_lon, 0.0],
            [-sin_lat * cos_lon, -sin_lat * sin_lon, cos_lat],
        ]
    )


def _horizon(mjd: float, location: Location) -> FloatArray:
    """Matrix from ICRS to the horizon: x north, y east, z up (azimuth runs north to east)."""
    whole, part = 2400000.5, mjd
    tai = erfa.utctai(whole, part)
    tt = erfa.taitt(*tai)
    sidereal = erfa.gst06a(whole, part, *tt) + np.radians(location[0])
    equator = np.array(
        [
            [np.cos(sidereal), np.sin(sidereal), 0.0],
            [-np.sin(sidereal), np.cos(sidereal), 0.0],
            [0.0, 0.0, 1.0],
        ]
    ) @ erfa.pnm06a(*tt)
    lat = np.radians(location[1])
    level = np.array(
        [[-np.sin(lat), 0.0, np.cos(lat)], [0.0, 1.0, 0.0], [np.cos(lat), 0.0, np.sin(lat)]]
    )
    return np.asarray(level @ equator)


def _turning(pointing: FloatArray, location: Location, mjd: float) -> float:
    """How fast the field turns, degrees a second, as Gammapy estimates it."""
    x, y, _ = _horizon(mjd, location) @ pointing
    # omega cos(latitude) |cos(azimuth)| / cos(altitude)
    return float(_SPIN * abs(np.cos(np.radians(location[1]))) * abs(x) / max(x * x + y * y, 1e-9))


def _midpoints(
    pointing: FloatArray, location: Location, start: FloatArray, stop: FloatArray
) -> tuple[FloatArray, FloatArray]:
    times: list[float] = []
    weights: list[float] = []
    for first, last in zip(start.tolist(), stop.tolist(), strict=True):
        fastest = max(_turning(pointing, location, t) for t in np.linspace(first, last, 5))
        count = int(np.clip(np.ceil((last - first) * 86400.0 * fastest / 0.5), 1, 400))
        step = (last - first) / count
        times += [first + (k + 0.5) * step for k in range(count)]
        weights += [step] * count
    return np.array(times), np.array(weights)


def _ends(
    pointing: FloatArray, location: Location, start: float, duration: float
) -> tuple[FloatArray, FloatArray]:
    times = [start]
    while times[-1] < start + duration:
        step = 1.0 / max(_turning(pointing, location, times[-1]), 1e-9)
        times.append(min(times[-1] + max(step, 1.0) / 86400.0, start + duration))
    at = np.array(times)
    weights: NDArray[np.float64] = np.zeros(len(at))
    weights[1:] += 0.5 * np.diff(at)
    weights[:-1] += 0.5 * np.diff(at)
    return at, weights if weights.any() else np.ones(len(at))
