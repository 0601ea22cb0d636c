"""A source in one dataset: its counts by band and width, its rectangle, its derivatives.

`Source` is compiled from a model and a dataset; `SourceState` is that source at given parameters.
It computes points, and Gaussians that are too small for the pixels; others derive from it.
The gradient is taken backwards: from the derivative of the statistic by each pixel's counts to what
shapes the source.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.special import erfc

from .derivatives import Derivatives
from .errors import ModelError
from .models import SkyModel, SpectralModel
from .pixels import PixelIntegrals
from .response import DatasetLike, PixelPosition, Response
from .source_state import SourceState

__all__ = [
    "EDGE",
    "GAUSSIAN_REACH",
    "MIN_MARGIN_DEG",
    "Source",
    "mean_width",
    "pixels_within",
    "tail_reach",
]

GAUSSIAN_REACH = 4.3
"""Standard deviations that hold all but 1e-4 of a Gaussian."""
EDGE = 0.01
"""A step of the exposure (`Response.exposure_step`) that matters.

It puts a pixel of a Gaussian wrong by 0.25 % of its peak.
"""
_TAIL = 2e-5
"""Share of a source that may lie beyond its rectangle on each axis."""
_NEGLIGIBLE = 1e-9
"""Widths whose share of the mixture stays below this are left out."""
MIN_MARGIN_DEG = 0.06
"""How far a source may move before its rectangle follows."""
_EVEN_PIXELS = 1.0
"""Up to this size the exposure at the centre stands for all of a source."""
_MANY = 90_000
"""Pixels of a rectangle from which on larger cells are quicker."""
_ALIAS = 1e-3
"""Part of a step of the exposure that the PSF may let through in waves that pixels do not hold."""


class Source:
    """One source in one dataset: its counts in each band and width, and its rectangle."""

    def __init__(
        self,
        model: SkyModel,
        dataset: DatasetLike,
        response: Response,
        place: dict[tuple[str, str], int],
        free: set[int],
    ) -> None:
        self.compiled_from = model, dataset, response, place, free
        self._free = free
        self.model, self.geom, self._response = model, dataset.geom, response
        self.dataset_name = dataset.name
        self._spectral: SpectralModel = model.spectral_model
        self._spectrum = [place[(model.name, q.name)] for q in self._spectral.parameters]
        own = (place[(model.name, q.name)] for q in model.parameters)
        self.linear = place[(model.name, self._spectral.linear)]
        self._linear_at = self._spectrum.index(self.linear)
        self._not_linear = np.array([i for i in own if i != self.linear])
        self._key: bytes | None = None
        self._state: Any = None
        self._shape_free = any(i in free for i in self._spectrum if i != self.linear)
        # Emission that fills the map has no position.
        self._lon, self._lat = (place.get((model.name, key), -1) for key in ("lon_0", "lat_0"))
        self._sigma = place.get((model.name, "sigma"))
        self._e = place.get((model.name, "e"))
        self._pixel = PixelPosition.of(dataset.geom, model.frame)
        edges = np.asarray(dataset.energy_axis_true.edges.to_value("TeV"), dtype=float)
        self._energies = edges[:-1], edges[1:]
        self._flux_key: bytes | None = None
        self._flux = self._flux_slopes = np.empty(0)
        self._mixture_key: tuple[float, float, bytes] = (np.nan, np.nan, b"")
        self._mixture = np.empty(0, dtype=int), np.empty(0), np.empty(0)
        self._reached: tuple[Any, int, int] = (None, 0, 0)
        self._matter = np.empty(0, dtype=int)
        self._place_key = (np.nan, np.nan)
        self._place = (np.nan, np.nan, np.empty((2, 2)))
        # The rectangle: pixels [y0, y1) x [x0, x1), the widths used there, and where the source
        # has to stay for it to hold.
        self.box = (0, 0, 0, 0)
        self._laid_out_as = self.box, 0
        self._used = np.arange(len(response.widths))
        self._nearby = response.whole  # until it is known which widths are used
        self._edges: tuple[np.ndarray, np.ndarray] = np.empty(0), np.empty(0)
        self._centre = (np.nan, np.nan)
        self._margin = 0.0
        self._sigma_range = (0.0, 0.0)
        self.rough = False
        """Whether a prediction that is off by a few per cent will do."""
        self.bin = 1
        """Pixels that one of its own has along each axis; its rectangle begins at a multiple."""
        self.whole_map = False
        """Whether the rectangle is the map: where pixels have nothing but the source's tail."""

    # --- position
    def position(self, p: np.ndarray) -> tuple[float, float, np.ndarray]:
        """Pixel coordinates and their derivatives by (lon, lat)."""
        key = float(p[self._lon]), float(p[self._lat])
        if key != self._place_key:
            self._place_key, self._place = key, self._pixel.at(*key)
        return self._place

    @property
    def is_point(self) -> bool:
        """Whether it has no size."""
        return self._sigma is None

    def on_map(self, p: np.ndarray) -> bool:
        """Whether the position falls onto a pixel."""
        x, y, _ = self.position(p)
        ny, nx = self.geom.shape
        return -0.5 <= x <= nx - 0.5 and -0.5 <= y <= ny - 0.5

    def off_map_message(self, p: np.ndarray) -> str:
        """What to tell a user whose source is not on the map."""
        lon, lat = self.geom.center_lonlat
        width, height = self.geom.width
        return (
            f"{self.model.name}.lon_0, lat_0: ({p[self._lon]:g}, {p[self._lat]:g}) deg "
            f"{self.model.frame} is off the map of dataset {self.dataset_name!r}; expected a "
            f"position on its {width:g} x {height:g} deg around ({lon:g}, {lat:g}) deg "
            f"{self.geom.frame}"
        )

    def extent(self, lon_0: float) -> tuple[float, float, float, float, float]:
        """Least and largest lon and lat of the map (deg, the model's frame), half its diagonal."""
        return *self._pixel.extent(lon_0), 0.5 * math.hypot(*self.geom.width)

    def psf_width(self, p: np.ndarray) -> float:
        """Effective width (deg) of the source in the map: the mixture's, with its own size."""
        state = self.state(p)
        unit = state.unit
        total = float(unit.sum())
        if not total > 0:
            return float(np.median(self._response.widths))
        variance = float((unit @ state.sigma**2).sum()) / total
        return math.sqrt(variance) if variance > 0 else float(self._response.widths[0])

    # --- rectangle
    def stays(self, p: np.ndarray) -> bool:
        """Whether the rectangle still holds the source."""
        if self._e is not None and p[self._e] != 0:
            return False
        x, y, _ = self.position(p)
        if not max(abs(x - self._centre[0]), abs(y - self._centre[1])) <= self._margin:
            return False
        return bool(self._sigma_range[0] <= self._size(p) <= self._sigma_range[1])

    def _size(self, p: np.ndarray) -> float:
        return abs(float(p[self._sigma])) if self._sigma is not None else 0.0

    def lay_out(self, p: np.ndarray) -> bool:
        """Put the rectangle around the source; whether it is another one now."""
        self._check_round(p)
        x, y, _ = self.position(p)
        ny, nx = self.geom.shape
        size = self._size(p)
        used, _, mixture = self.mixture(p)
        changed = self._use(used)
        known = self._response.widths[used]
        largest = 1.3 * size + 0.3 * float(known.min())
        widths = np.hypot(known, largest if size else 0.0)
        reach = tail_reach(mixture, widths)
        margin = max(MIN_MARGIN_DEG, 0.1 * reach)
        metric = self._pixel.metric(x, y)[0]
        scale = math.sqrt(metric[0]), math.sqrt(metric[2])
        self._centre, self._margin = (x, y), margin * min(scale)
        self._sigma_range = (0.0, largest)
        half = [(reach + margin) * s for s in scale]
        self.box = (0, ny, 0, nx) if self.whole_map else self._of_bins(*pixels_within(x, y, half))
        if not changed and (self.box, self.bin) == self._laid_out_as:
            return False
        self._key, self._laid_out_as = None, (self.box, self.bin)
        y0, y1, x0, x1 = self.box
        along_x, along_y = (
            np.append(np.arange(low, high, self.bin), high) - 0.5
            for low, high in ((x0, x1), (y0, y1))
        )
        self._edges = along_x, along_y
        return True

    def _check_round(self, p: np.ndarray) -> None:
        if self._e is not None and p[self._e] != 0:
            raise ModelError(
                f"{self.model.name}.e: {p[self._e]:g} for a source that was compiled as a round "
                "one; free e, or set it before"
            )

    def is_settled(self, p: np.ndarray) -> bool:
        """Whether there is no reason to ask again for `way`."""
        return self.is_point

    def take_over(self, other: Source) -> None:
        """Be asked for what another way to compute the same source was asked for."""
        self.rough, self.bin, self.whole_map = other.rough, other.bin, other.whole_map

    def _of_bins(self, y0: int, y1: int, x0: int, x1: int) -> tuple[int, int, int, int]:
        """The part of a rectangle that is on the map, made of whole bins."""
        (y0, y1), (x0, x1) = (
            (
                min(max(low, 0), size) // self.bin * self.bin,
                min(-(-min(max(high, 0), size) // self.bin) * self.bin, size),
            )
            for (low, high), size in zip(((y0, y1), (x0, x1)), self.geom.shape, strict=True)
        )
        return y0, y1, x0, x1

    def set_bin(self, size: int) -> None:
        """Take other bins from the next layout on."""
        if size != self.bin:
            self.bin, self._key = size, None

    def blur(self, p: np.ndarray) -> float:
        """How far (deg) the finest structure is blurred that the source shows in the map."""
        used, _, mixture = self.mixture(p)
        return math.hypot(mean_width(mixture, self._response.widths[used]), self._size(p))

    def way(self, p: np.ndarray) -> str:
        """How a point or a round Gaussian is best computed here.

        Returns
        -------
        "centre"
            With the exposure at its centre.
        "pixels"
            On the pixels of the map.
        "plane"
            On cells of its own: at a step of the exposure, or of one in other pixels than those of
            the counts, where these pixels cannot follow it.
        """
        if self._sigma is None:
            return "centre"
        size, response = self._size(p), self._response
        x, y, _ = self.position(p)
        ny, nx = self.geom.shape
        near = float(np.clip(x, 0, nx - 1)), float(np.clip(y, 0, ny - 1))
        scale = np.sqrt(self._pixel.metric(*near)[0, [0, 2]])
        uneven = size > self._even_size(scale)
        if self.rough:
            return "pixels" if uneven and response.same_pixels else "centre"
        half = GAUSSIAN_REACH * size * scale
        if not (abs(x - near[0]) <= half[0] and abs(y - near[1]) <= half[1]):
            return "centre"
        own_box = self._own_box(x, y, half)
        if not uneven and response.exposure_step(own_box, size) <= EDGE:
            return "centre"
        if not uneven or not response.same_pixels:
            return "plane"
        used, _, mixture = self.mixture(p)
        widths = response.widths[used]
        if np.prod(2.0 * (np.hypot(tail_reach(mixture, widths), half / scale) * scale)) > _MANY:
            return "plane"
        # What the PSF lets through of waves that are shorter than two pixels.
        weight = np.abs(mixture) / max(float(np.abs(mixture).sum()), 1e-300)
        passed = float(weight @ np.exp(-0.5 * (math.pi * float(scale.min()) * widths) ** 2))
        if passed > _ALIAS and passed * response.exposure_step(own_box, size) > _ALIAS:
            return "plane"
        return "pixels"

    def _own_box(self, x: float, y: float, half: Any) -> tuple[int, int, int, int]:
        """Pixels of the map within so many along each axis of a position."""
        y0, y1, x0, x1 = pixels_within(x, y, half)
        ny, nx = self.geom.shape
        return max(y0, 0), min(y1, ny), max(x0, 0), min(x1, nx)

    def _even_size(self, scale: np.ndarray) -> float:
        """Size (deg) up to which the exposure at the centre stands for all of a source."""
        return _EVEN_PIXELS / float(min(scale))

    def mixture(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Places of the widths that matter, the share of each true energy, and the PSF mixture."""
        x, y, _ = self.position(p)
        flux = self._unit_flux(p)[1]
        key = x, y, flux.tobytes()
        if key != self._mixture_key:
            local = self._nearby.at(x, y)
            strength = np.abs(flux)[:, None] * np.abs(local.edisp[0])
            strength = strength * np.maximum(np.abs(local.exposure[0]), 1e-300)[:, None]
            share = strength.max(axis=1)
            share = share / max(float(share.sum()), 1e-300)
            used = self._widths_near(x, y, flux, share)
            if np.array_equal(used, self._used):
                weights = local.weights[0]
            else:
                weights = self._response.at(x, y).weights[0][:, used]
            self._mixture = used, share, share @ weights
            self._mixture_key = key
        return self._mixture

    def _widths_near(self, x: float, y: float, flux: np.ndarray, share: np.ndarray) -> np.ndarray:
        """Places of the widths that matter at a position; the last ones if that is next to it."""
        (i, j), (known, *last) = self._response.psf_node(x, y), self._reached
        if known is not flux or max(abs(i - last[0]), abs(j - last[1])) > 1:
            reached = share @ self._response.largest_weights(x, y)
            found = np.flatnonzero(reached > _NEGLIGIBLE)
            self._reached = flux, i, j
            self._matter = found if len(found) else np.arange(len(self._response.widths))
        return self._matter

    def _use(self, widths: np.ndarray) -> bool:
        """Take over the widths of a new layout; whether they are others."""
        if np.array_equal(widths, self._used):
            return False
        self._used, self._nearby = widths, self._response.around(widths)
        return True

    def _has_pixels(self) -> bool:
        return self.box[1] > self.box[0] and self.box[3] > self.box[2]

    # --- prediction
    def _unit_flux(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Parameters of the spectrum at amplitude 1, its flux (cm-2 s-1) in each true-energy bin.

        And the derivatives of that.
        """
        values = p[self._spectrum]
        values[self._linear_at] = 1.0
        key = values.tobytes()
        if key != self._flux_key:
            self._flux, self._flux_slopes = self._spectral.integral_values(values, *self._energies)
            self._flux_key = key
        return values, self._flux, self._flux_slopes

    def state(self, p: np.ndarray, slopes: bool = False) -> SourceState:
        """Everything about the source at ``p`` that its pixels and gradient need.

        It holds until the next call; where only the amplitude has changed it is the last one.
        """
        key = p[self._not_linear].tobytes()
        if key != self._key or (slopes and not self._state.has_slopes):
            self._key, self._state = key, self._new_state(p, slopes)
        state: SourceState = self._state
        state.amplitude = float(p[self.linear])
        return state

    def _new_state(self, p: np.ndarray, slopes: bool) -> Any:
        x, y, jacobian = self.position(p)
        spectrum, flux, flux_slopes = self._unit_flux(p)
        local = self._nearby.at(x, y)
        metric = self._pixel.metric(x, y)
        xx, xy, yy = metric[0].tolist()
        scale = math.sqrt(xx), math.sqrt(yy)
        size = float(p[self._sigma]) if self._sigma is not None else 0.0
        widths = self._response.widths[self._used]
        sigma = np.hypot(widths, size) if size else widths
        rho = xy / (scale[0] * scale[1])
        return SourceState(
            self,
            0.0,
            jacobian,
            spectrum,
            flux,
            flux_slopes,
            local,
            metric,
            np.array(scale),
            rho if abs(rho) > 1e-9 else 0.0,
            size,
            sigma,
            PixelIntegrals(self._edges[0], x, sigma * scale[0]),
            PixelIntegrals(self._edges[1], y, sigma * scale[1]),
        )

    def add_to(self, image: np.ndarray, p: np.ndarray) -> None:
        """Add the predicted counts to a full image; the rectangle must hold the source."""
        y0, y1, x0, x1 = self.box
        if y1 > y0 and x1 > x0:
            image[:, y0:y1, x0:x1] += self.state(p).counts()

    def _free_flux(self) -> list[int]:
        """Which parameters of the spectrum are free, other than the amplitude."""
        if not self._shape_free:
            return []
        return [
            i
            for i, place in enumerate(self._spectrum)
            if i != self._linear_at and place in self._free
        ]

    def _flux_curvatures(self, values: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
        """Second derivatives of the flux (T,) at amplitude 1 by free parameters of the spectrum.

        By differences of its exact slopes.
        """
        chosen, found = self._free_flux(), {}
        for i in chosen:
            step = 1e-4 * max(abs(values[i]), 1e-2)
            ends = []
            for sign in (1.0, -1.0):
                moved = values.copy()
                moved[i] += sign * step
                ends.append(self._spectral.integral_values(moved, *self._energies)[1])
            for k in chosen:
                if k >= i:
                    found[i, k] = (ends[0][k] - ends[1][k]) / (2.0 * step)
        return found

    def columns(self, state: SourceState) -> dict[int, np.ndarray]:
        """Derivatives of the counts in the rectangle by each free parameter, shape (R, ny, nx)."""
        found = {}
        if self.linear in self._free:
            found[self.linear] = state.template()
        if self._free & {self._lon, self._lat}:
            by_x, by_y = state.moved()
            for place, (along_x, along_y) in zip(
                (self._lon, self._lat), state.jacobian.T, strict=True
            ):
                if place in self._free:
                    found[place] = by_x * along_x + by_y * along_y
        if self._sigma in self._free:
            found[self._sigma] = state.wider()
        for i in self._free_flux():
            found[self._spectrum[i]] = state.amplitude * state.image_of(state.flux_slopes[i])
        return found

    def add_curvature(self, state: SourceState, slope: np.ndarray, found: Derivatives) -> None:
        """What `add_gradient` adds, and the slope times the counts' second derivatives.

        Not of those of the response, nor of the shape of pixels.
        """
        chosen = self._free_flux()
        by_unit, first, second = state.bent(slope, state.flux_slopes[chosen])
        # From pixels x, y (and the size) to what the parameters are.
        turn = np.eye(len(first))
        turn[:2, :2] = state.jacobian
        first, second = first @ turn, turn.T @ second @ turn
        places = [self._lon, self._lat]
        if self._sigma is not None:
            places.append(self._sigma)
        places += [self._spectrum[i] for i in chosen]
        found.gradient[self.linear] += float(np.vdot(by_unit, state.unit))
        for i, place in enumerate(places):
            found.gradient[place] += state.amplitude * float(first[i])
            found.bend(self.linear, place, float(first[i]))
        found.add(places, 0.0, state.amplitude * second)
        if chosen:
            for (i, k), flux in self._flux_curvatures(state.spectrum).items():
                bend = state.amplitude * state.worth_of(slope, flux)
                found.bend(self._spectrum[i], self._spectrum[k], bend)

    def add_gradient(self, state: SourceState, slope: np.ndarray, gradient: np.ndarray) -> None:
        """Add to ``gradient`` what follows from the statistic's derivative by each pixel."""
        by_unit, by_xy, by_size = state.pull_back(slope)
        amplitude = state.amplitude
        gradient[self.linear] += float(np.vdot(by_unit, state.unit))
        by_lonlat = (by_xy * amplitude) @ state.jacobian
        gradient[self._lon] += by_lonlat[0]
        gradient[self._lat] += by_lonlat[1]
        if self._sigma is not None:
            gradient[self._sigma] += by_size * amplitude
        if self._shape_free:
            by_flux = state.by_flux(by_unit)
            for i, place in enumerate(self._spectrum):
                if i != self._linear_at:
                    gradient[place] += amplitude * float(state.flux_slopes[i] @ by_flux)


def pixels_within(x: float, y: float, half: Any) -> tuple[int, int, int, int]:
    """Pixels (y0, y1, x0, x1) within so many along x and y of a position, on the map or not."""
    return (
        math.floor(y - half[1]),
        math.ceil(y + half[1]) + 1,
        math.floor(x - half[0]),
        math.ceil(x + half[0]) + 1,
    )


def mean_width(mixture: np.ndarray, widths: np.ndarray) -> float:
    """Root mean square of the widths (deg) of a mixture."""
    total = float(mixture.sum())
    variance = float(mixture @ widths**2) / total if total > 0 else 0.0
    return math.sqrt(variance) if variance > 0 else float(widths[0])


def tail_reach(mixture: np.ndarray, widths: np.ndarray) -> float:
    """Distance (deg) beyond which, along one axis, less than `_TAIL` of the mixture lies."""
    total = abs(float(mixture.sum()))
    if not total > 0:
        return float(5.0 * widths.min())
    distance, beyond = _tails(widths.tobytes())
    far = np.flatnonzero(np.abs(beyond @ mixture) > _TAIL * total)
    return float(distance[min(far[-1] + 1, len(distance) - 1)]) if len(far) else 0.0


@lru_cache(maxsize=64)
def _tails(widths: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Distances (n,), and what lies beyond them along one axis of each width: (n, W)."""
    sigma = np.frombuffer(widths)
    distance = np.linspace(0.0, 5.0 * float(sigma.max()), 80)
    return distance, erfc(distance[:, None] / (math.sqrt(2.0) * sigma))
