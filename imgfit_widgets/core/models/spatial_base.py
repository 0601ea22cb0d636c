"""What all spatial models have in common, and the geometry on the sphere that they share.

`SpatialModel`
    A shape around (lon_0, lat_0).
`EllipticModel`
    A shape that is a function of the elliptical radius, with eccentricity and rotation.
`Wave`
    Wave vectors at which `SpatialModel.transform` is wanted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord

from ..errors import ModelError
from .parameter import ParameterField, ParameterOwner

__all__ = [
    "FRAMES",
    "EllipticModel",
    "Outline",
    "SpatialModel",
    "Wave",
    "circle",
    "ellipse",
]

FRAMES = ("icrs", "galactic")

Outline = tuple[str, np.ndarray, np.ndarray]
"""Label, longitudes and latitudes in degrees of the model's frame: a closed line."""


@dataclass(frozen=True)
class Wave:
    """Wave vectors on the sky in radians per degree, arrays of one shape.

    Attributes
    ----------
    east, north : ndarray
        Components towards increasing longitude and latitude of the model's frame.
    length : ndarray
    """

    east: np.ndarray
    north: np.ndarray
    length: np.ndarray

    @classmethod
    def of(cls, east: Any, north: Any) -> Wave:
        """From the components."""
        east, north = np.broadcast_arrays(np.asarray(east, float), np.asarray(north, float))
        return cls(east, north, np.hypot(east, north))


class SpatialModel(ParameterOwner):
    """Base: a distribution on the sky around (lon_0, lat_0) in ``frame``."""

    kind = "spatial"
    size_parameter: ClassVar[str | None] = None
    """The parameter that a size handle on the map drags, if there is one."""
    size_names: ClassVar[tuple[str, ...]] = ()
    """Parameters that are angles on the sky, in degrees."""
    even_names: ClassVar[tuple[str, ...]] = ()
    """Those of them whose sign has no meaning, so that a fit may pass through 0."""
    has_position: ClassVar[bool] = True
    needs_file: ClassVar[bool] = False
    """Whether it cannot be made from a position alone."""
    further_keys: ClassVar[tuple[str, ...]] = ()
    """Keys of a models file that only this shape has."""
    """Whether there is a centre that can be moved."""

    lon_0 = ParameterField(0.0, "deg", help="longitude of the centre")
    lat_0 = ParameterField(0.0, "deg", min=-90.0, max=90.0, help="latitude of the centre")

    def __init__(self, frame: str = "icrs", **values: Any) -> None:
        if frame not in FRAMES:
            raise ModelError(
                f"{self.tag[0]}: frame {frame!r} is not known; expected {' or '.join(FRAMES)}"
            )
        self.frame = frame
        super().__init__(**values)

    @property
    def position_lonlat(self) -> tuple[float, float]:
        """(lon_0, lat_0) in degrees of the model's frame."""
        lon, lat = self.lon_0, self.lat_0
        return lon.value * lon.factor_to_expected, lat.value * lat.factor_to_expected

    @property
    def position(self) -> SkyCoord:
        """The centre."""
        lon, lat = self.position_lonlat
        return SkyCoord(lon, lat, unit="deg", frame=self.frame)

    @property
    def evaluation_radius(self) -> u.Quantity:
        """Beyond this distance from the centre the model is negligible."""
        raise NotImplementedError

    def evaluate(self, lon: Any, lat: Any) -> np.ndarray:
        """Surface brightness in sr-1 at positions in degrees of the model's frame."""
        raise NotImplementedError

    @property
    def shape_names(self) -> tuple[str, ...]:
        """Parameters besides the position, in the order of `transform`."""
        return tuple(name for name in self.fields() if name not in ("lon_0", "lat_0"))

    def transform(
        self, values: np.ndarray, wave: Wave, slopes: bool
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Fourier transform of the shape around its centre: what a fit is made of.

        Parameters
        ----------
        values : ndarray
            `shape_names` in their declared units.
        wave : Wave
            Where it is wanted, shape S.
        slopes : bool
            Whether the derivatives are wanted.

        Returns
        -------
        transform : ndarray, shape S
            The integral of brightness times exp(-i k x); at k = 0 the part of the flux that is in
            the shape.
        derivatives : list of ndarray, shape S
            By each of ``values``; empty unless ``slopes``.
        """
        raise ModelError(f"{self.tag[0]}: has no transform, so it cannot be fitted")

    def curvature(
        self, values: np.ndarray, wave: Wave, weight: np.ndarray, chosen: Sequence[int]
    ) -> np.ndarray:
        """Second derivatives of the transform, weighted and summed.

        By differences of the exact first ones, unless a shape knows better.

        Parameters
        ----------
        values, wave
            As for `transform`.
        weight : ndarray, shape S
        chosen : sequence of int
            By which of ``values``.

        Returns
        -------
        ndarray, shape (n_chosen, n_chosen)
        """
        found = np.zeros((len(chosen), len(chosen)))
        for i, k in enumerate(chosen):
            step = _step(self.shape_names[k], self.size_names, float(values[k]))
            ends = []
            for way in (step, -step):
                moved = values.copy()
                moved[k] += way
                slopes = self.transform(moved, wave, True)[1]
                ends.append([weighed(weight, slopes[other]) for other in chosen])
            found[i] = (np.array(ends[0]) - ends[1]) / (2.0 * step)
        return 0.5 * (found + found.T)

    def reach(self, values: np.ndarray) -> float:
        """Distance (deg) from the centre beyond which at most 1e-4 of the flux lies.

        For any ``values`` of `shape_names`, as a fit passes through them.
        """
        raise NotImplementedError

    def outline(self) -> list[Outline]:
        """Lines to draw on a map, without the point spread function; none for a point."""
        return []

    def copy(self) -> SpatialModel:
        """A copy that shares no parameter."""
        return type(self)(frame=self.frame, **{p.name: p for p in self.parameters})

    def to_dict(self) -> dict[str, Any]:
        """What a models file keeps besides type, frame and parameters."""
        return {}

    @classmethod
    def from_dict(cls, data: dict[str, Any], frame: str | None, values: dict[str, Any]) -> Any:
        """The model from the further keys of a models file and its parameters."""
        return cls(frame=frame or "icrs", **values)

    @classmethod
    def new_at(cls, lon: float, lat: float, frame: str) -> SpatialModel:
        """A model of default shape at a position in degrees."""
        return cls(frame=frame, lon_0=float(lon), lat_0=float(lat))


class EllipticModel(SpatialModel):
    """A shape that depends on the elliptical radius ``rho`` only, 1 at the size parameter.

    The major semi-axis has the length ``size_parameter`` and the direction ``phi``, counted from
    North towards East; the minor one is sqrt(1 - e^2) of it.
    """

    @property
    def semi_axes(self) -> tuple[float, float, float]:
        """Semi-axes in degrees and the rotation in radians."""
        values = dict(zip(self.fields(), self.canonical_values(), strict=True))
        major = abs(values[str(self.size_parameter)])
        minor = major * math.sqrt(max(1.0 - values["e"] ** 2, 0.0))
        return major, minor, math.radians(values["phi"])

    def radius(self, lon: Any, lat: Any) -> np.ndarray:
        """Elliptical radius of positions in degrees of the model's frame."""
        major, minor, phi = self.semi_axes
        distance, angle = separation_angle(*self.position_lonlat, lon, lat)
        along, across = distance * np.cos(angle - phi), distance * np.sin(angle - phi)
        tiny = 1e-12
        return np.asarray(np.hypot(along / max(major, tiny), across / max(minor, tiny)))

    @property
    def _area(self) -> float:
        """Pi a b in sr."""
        major, minor, _ = self.semi_axes
        return math.pi * math.radians(max(major, 1e-12)) * math.radians(max(minor, 1e-12))

    def radial(
        self, kappa: np.ndarray, extra: np.ndarray, slopes: bool
    ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Transform of the round shape of size 1 at wave numbers ``kappa``.

        Returns it, its derivative by kappa and those by each further parameter (``extra``).
        """
        raise NotImplementedError

    def transform(
        self, values: np.ndarray, wave: Wave, slopes: bool
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        named = dict(zip(self.shape_names, values, strict=True))
        size, e, phi = named[str(self.size_parameter)], named["e"], math.radians(named["phi"])
        others = [n for n in self.shape_names if n not in (self.size_parameter, "e", "phi")]
        extra = np.array([named[n] for n in others])
        if e == 0.0:
            length, across = wave.length, np.zeros_like(wave.length)
            along = across
            if slopes:
                across = wave.east * math.cos(phi) - wave.north * math.sin(phi)
        else:
            along = wave.east * math.sin(phi) + wave.north * math.cos(phi)
            across = wave.east * math.cos(phi) - wave.north * math.sin(phi)
            length = np.sqrt(np.maximum(wave.length**2 - (e * across) ** 2, 0.0))
        value, by_kappa, by_extra = self.radial(abs(size) * length, extra, slopes)
        if not slopes:
            return value, []
        # d(kappa) / d(length squared), finite at the origin, where the other factor is 0.
        share = by_kappa * (abs(size) / (2.0 * np.maximum(length, 1e-12)))
        found = {
            str(self.size_parameter): by_kappa * length * math.copysign(1.0, size),
            "e": share * (-2.0 * e) * across**2,
            # d(across)/d(phi) = -along
            "phi": share * (2.0 * e * e * math.radians(1.0)) * (across * along),
            **dict(zip(others, by_extra, strict=True)),
        }
        return value, [found[name] for name in self.shape_names]

    def curvature(
        self, values: np.ndarray, wave: Wave, weight: np.ndarray, chosen: Sequence[int]
    ) -> np.ndarray:
        # By w = kappa^2, of which the shape is a function: d2f = f'' w_a w_b + f' w_ab.
        names = [self.shape_names[k] for k in chosen]
        named = dict(zip(self.shape_names, values, strict=True))
        size, e, phi = named[str(self.size_parameter)], named["e"], math.radians(named["phi"])
        others = [n for n in self.shape_names if n not in (self.size_parameter, "e", "phi")]
        extra = np.array([named[n] for n in others])
        across = wave.east * math.cos(phi) - wave.north * math.sin(phi)
        square = np.maximum(wave.length**2 - (e * across) ** 2, 0.0)
        kappa = abs(size) * np.sqrt(square)
        _, slope, _ = self.radial(kappa, extra, True)
        bend, extra_slopes = self._radial_curvature(kappa, extra)
        q = weight * slope * (0.5 * kappa)
        p = weight * bend * (0.25 * kappa**2) - 0.5 * q
        # First derivatives of log w, second ones of w over w.
        to_log, second = {}, {}
        if {"e", "phi"} & set(names):
            along = wave.east * math.sin(phi) + wave.north * math.cos(phi)
            inverse = 1.0 / np.maximum(square, 1e-24)
            a2, ab = across**2 * inverse, across * along * inverse
            turn = math.radians(1.0)
            to_log = {"e": -2.0 * e * a2, "phi": (2.0 * e * e * turn) * ab}
            second["e", "e"] = -2.0 * a2
            second["e", "phi"] = (4.0 * e * turn) * ab
            second["phi", "phi"] = (2.0 * (e * turn) ** 2) * (a2 - along**2 * inverse)
        of_size = 2.0 / math.copysign(max(abs(size), 1e-12), size)
        found = np.zeros((len(chosen), len(chosen)))
        for i, one in enumerate(names):
            for k, other in enumerate(names[i:], start=i):
                both = tuple(sorted((one, other)))
                if one == other == self.size_parameter:
                    value = weighed(weight * bend, square)
                elif both in second:
                    value = weighed(q, second[both])
                    value += weighed(p * to_log[one], to_log[other])
                elif self.size_parameter in both and not set(both) & set(others):
                    value = of_size * weighed(p + q, to_log[one if one in to_log else other])
                elif one in others and other in others:
                    value = self._extra_curvature(kappa, extra, weight, others, one, other)
                else:
                    mixed, way = (one, other) if one in others else (other, one)
                    rate = weight * extra_slopes[others.index(mixed)] * (0.5 * kappa)
                    value = weighed(rate, to_log[way]) if way in to_log else of_size * rate.sum()
                found[i, k] = found[k, i] = value
        return found

    def _radial_curvature(
        self, kappa: np.ndarray, extra: np.ndarray
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Derivatives by kappa of what `radial` gives: of its slope, of those by ``extra``."""
        step = 1e-3
        _, high, high_extra = self.radial(kappa + step, extra, True)
        low = kappa - step
        _, slope, low_extra = self.radial(np.abs(low), extra, True)
        # The transform is even in kappa, its slope odd.
        bend = (high - np.where(low < 0, -slope, slope)) / (2.0 * step)
        return bend, [(a - b) / (2.0 * step) for a, b in zip(high_extra, low_extra, strict=True)]

    def _extra_curvature(
        self,
        kappa: np.ndarray,
        extra: np.ndarray,
        weight: np.ndarray,
        others: list[str],
        one: str,
        other: str,
    ) -> float:
        i, k = others.index(one), others.index(other)
        step = _step(one, self.size_names, float(extra[i]))
        ends = []
        for way in (step, -step):
            moved = extra.copy()
            moved[i] += way
            ends.append(weighed(weight, self.radial(kappa, moved, True)[2][k]))
        return (ends[0] - ends[1]) / (2.0 * step)


def _step(name: str, sizes: Sequence[str], value: float) -> float:
    """A step for differences, exact to about 1e-6: of a size, an angle or a plain number."""
    if name == "phi":
        return 0.05
    return 1e-3 * max(abs(value), 1e-3 if name in sizes else 0.03)


def weighed(weight: np.ndarray, values: np.ndarray) -> float:
    """The sum of a product; not through BLAS, whose threads cost more here."""
    return float(np.einsum("i,i->", weight.ravel(), values.ravel()))


def circle(lon: float, lat: float, radius: float, n: int = 73) -> tuple[np.ndarray, np.ndarray]:
    """A circle on the sky as a closed line; all in degrees, longitudes near ``lon``."""
    return offset_by(lon, lat, radius, np.linspace(0.0, 2 * np.pi, n))


def ellipse(
    lon: float, lat: float, major: float, minor: float, phi: float, n: int = 73
) -> tuple[np.ndarray, np.ndarray]:
    """An ellipse on the sky as a closed line: semi-axes in degrees, rotation in radians."""
    t = np.linspace(0.0, 2 * np.pi, n)
    north, east = major * np.cos(t), minor * np.sin(t)
    radius = np.hypot(north, east)
    return offset_by(lon, lat, radius, np.arctan2(east, north) + phi)


def offset_by(lon: float, lat: float, radius: Any, angle: Any) -> tuple[np.ndarray, np.ndarray]:
    """Positions at distances (deg) and position angles (rad, from North towards East)."""
    r, b = np.radians(radius), np.radians(lat)
    sin_lat = np.sin(b) * np.cos(r) + np.cos(b) * np.sin(r) * np.cos(angle)
    east = np.sin(angle) * np.sin(r) * np.cos(b)
    dlon = np.arctan2(east, np.cos(r) - np.sin(b) * sin_lat)
    return lon + np.degrees(dlon), np.degrees(np.arcsin(np.clip(sin_lat, -1.0, 1.0)))


def separation_angle(
    lon_0: float, lat_0: float, lon: Any, lat: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Distance (deg, haversine: exact when small) and position angle (rad) from a centre."""
    l0, b0 = math.radians(lon_0), math.radians(lat_0)
    lon, lat = np.radians(np.asarray(lon, float)), np.radians(np.asarray(lat, float))
    half = np.sin((lat - b0) / 2) ** 2 + np.cos(lat) * math.cos(b0) * np.sin((lon - l0) / 2) ** 2
    distance = np.degrees(2 * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0))))
    east = np.cos(lat) * np.sin(lon - l0)
    north = math.cos(b0) * np.sin(lat) - math.sin(b0) * np.cos(lat) * np.cos(lon - l0)
    return np.asarray(distance), np.asarray(np.arctan2(east, north))
