"""Round Gaussian sources on the pixels of the map: `GaussianSource`.

Where the pixels of a map are as good as equal all over a source, and fine enough, no other cells
are needed: the source is a product of two Gaussians, one along each axis, times the exposure in
each pixel, and one convolution blurs it. As a Gaussian has next to no waves that are shorter than
two pixels, the sum over pixels is the integral. Its derivatives by position and size are its
derivatives along the axes, so that all of them, and the way back from pixels to parameters, are
small matrix products.

For a rough prediction (`Source.bin`) bins take the place of pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from scipy import fft

from .derivatives import Derivatives
from .models import SkyModel
from .pixels import few_exposures
from .products import product
from .response import DatasetLike, LocalResponse, Response
from .source import (
    EDGE,
    GAUSSIAN_REACH,
    MIN_MARGIN_DEG,
    Source,
    mean_width,
    pixels_within,
    tail_reach,
)

__all__ = ["GaussianSource"]

_DEGREE = 6
"""Derivatives along each axis, the value included: four for curvatures, one for oblique pixels."""
_MARGIN_DEG = 0.03
"""How far a source may move before its rectangle follows, unless the prediction is rough."""
_NEAR = 0.5
"""Part of how far it may move or grow within which another rectangle would be no better."""
_UNEVEN = 2.0
"""How many times larger than one that takes the exposure at its centre a source is to follow it."""
_EXPOSURE = 2e-4
"""To what part of the source its shape is followed that differs with the true energy."""
_DIM = 1e-3
"""Brightness, in that of its centre, of a source where it counts as having none."""
_COARSEST = 1.6
"""Size of what it is to show, at most, in sizes of the source: bins are half of that."""
_CENTRE = np.zeros((_DEGREE, _DEGREE))
_CENTRE[0, 0] = 1.0


class GaussianSource(Source):
    """One round Gaussian in one dataset, on the pixels of its map."""

    def __init__(
        self,
        model: SkyModel,
        dataset: DatasetLike,
        response: Response,
        place: dict[tuple[str, str], int],
        free: set[int],
    ) -> None:
        super().__init__(model, dataset, response, place, free)
        self._places = [self._lon, self._lat, place[(model.name, "sigma")]]
        self._laid_out_for: tuple[Any, ...] = ()
        self._own_size = self._even = 0.0
        self._still: GaussianState | None = None

    def lay_out(self, p: np.ndarray) -> bool:
        """Put the rectangle around the source, unless it is nearly there."""
        self._check_round(p)
        if self.is_settled(p):
            return False
        self._laid_out_for, self._key, self._still = self._conditions(p), None, None
        x, y, _ = self.position(p)
        size = self._size(p)
        used, share, mixture = self.mixture(p)
        self._use(used)
        widths = self._response.widths[used]
        largest = (1.3 if self.rough else 1.05) * size + 0.3 * float(widths.min())
        metric = self._pixel.metric(x, y)[0]
        scale = np.sqrt(metric[[0, 2]])
        reach = tail_reach(mixture, np.hypot(widths, largest))
        margin = max(MIN_MARGIN_DEG, 0.1 * reach) if self.rough else _MARGIN_DEG
        self._centre, self._margin = (x, y), margin * float(scale.min())
        self._own_size, self._even = size, self._even_size(scale)
        smallest = max(0.5 * size, self._even, self.bin / float(scale.min()))
        # A smaller one takes the exposure at its centre: one passes into the other.
        blended = _UNEVEN * self._even
        self._blends = size < blended and not self.rough and not self._has_step(x, y, scale)
        if size >= blended:
            smallest = max(smallest, blended)
        self._sigma_range = smallest, largest
        half = (reach + margin) * scale
        y0, y1, x0, x1 = pixels_within(x, y, half)
        ny, nx = self.geom.shape
        self.box = (0, ny, 0, nx) if self.whole_map else self._of_bins(y0, y1, x0, x1)
        if not self._has_pixels():
            self.box = (0, 0, 0, 0)
            return True
        # What spills over one side of the grid comes in from the other: all of it is held.
        bin_ = self.bin
        first = [min(low, own) // bin_ for low, own in ((y0, self.box[0]), (x0, self.box[2]))]
        stop = [-(-max(a, b) // bin_) for a, b in ((y1, self.box[1]), (x1, self.box[3]))]
        self._shape = shape = tuple(
            fft.next_fast_len(b - a, real=True) for a, b in zip(first, stop, strict=True)
        )
        self._cut = tuple(
            slice(low // bin_ - a, -(-high // bin_) - a)
            for low, high, a in zip(self.box[::2], self.box[1::2], first, strict=True)
        )
        self._cells = [
            (np.arange(n) + a + 0.5) * bin_ - 0.5 for n, a in zip(shape, first, strict=True)
        ]
        self._set_exposure(first, share, scale, mixture)
        self._set_blur(metric, widths)
        return True

    def _conditions(self, p: np.ndarray) -> tuple[Any, ...]:
        spectrum = [i for i in self._spectrum if i != self.linear]
        return (self.rough, self.bin, self.whole_map, *p[spectrum])

    def is_settled(self, p: np.ndarray) -> bool:
        """Whether it is laid out nearly as it would be here."""
        return self._conditions(p) == self._laid_out_for and self._is_near(p)

    def _is_near(self, p: np.ndarray) -> bool:
        """Whether the rectangle is nearly the one that would be laid out here."""
        if not self.stays(p):
            return False
        x, y, _ = self.position(p)
        size, (low, high) = self._size(p), self._sigma_range
        near = max(abs(x - self._centre[0]), abs(y - self._centre[1])) <= _NEAR * self._margin
        near &= abs(size - self._own_size) <= _NEAR * (high - size)
        return bool(near and size - low >= _NEAR * (self._own_size - low))

    def _set_exposure(
        self, first: list[int], share: np.ndarray, scale: np.ndarray, mixture: np.ndarray
    ) -> None:
        """The exposure in the pixels as few images times a mixing by true energy."""
        cube, bin_ = self._response.exposure, self.bin
        parts, beyond, bright = [], [], []
        axes = zip(first, self._shape, cube.shape[1:], self._centre[::-1], scale[::-1], strict=True)
        for a, n, size, centre, per_deg in axes:
            # Of a bin that in its middle; beyond the map that at the border.
            phase = min(bin_ // 2, size - 1)
            at = np.clip(np.arange(a, a + n), 0, (size - 1 - phase) // bin_)
            parts.append(slice(at[0] * bin_ + phase, at[-1] * bin_ + phase + 1, bin_))
            beyond.append(at - at[0])
            away = (np.arange(at[0], at[-1] + 1) * bin_ + phase - centre) / per_deg
            bright.append(np.exp(-0.5 * (away / self._own_size) ** 2) + _DIM)
        mixing, images = few_exposures(
            cube[:, *parts],
            share,
            1.0 if self.rough else _EXPOSURE,
            1.0 if self.rough else self._shown(mixture),
            (bright[0], bright[1]),
        )
        if images.shape[1:] != self._shape:
            images = images[:, beyond[0][:, None], beyond[1]]
        self._mixing = 1e4 * mixing  # m2 s to cm2 s
        if bin_ == 1:
            images = _lines(_lines(images).transpose(0, 2, 1)).transpose(0, 2, 1)
        if self._blends:
            images = np.concatenate([np.ones((1, *self._shape)), images])
        self.exposure = images
        self.single_exposure = images.astype(np.float32)

    def _shown(self, mixture: np.ndarray) -> np.ndarray | float:
        """What part of a difference between the exposures of two true energies shows, (T,).

        By as much as their PSFs differ, where all are in one band and none gains on the others.
        """
        local = self._nearby.at(*self._centre)
        if local.edisp.shape[2] > 1 or self._shape_free:
            return 1.0
        square = self._response.widths[self._used] ** 2
        mean = float(mixture @ square) / max(float(mixture.sum()), 1e-300)
        apart = np.abs(local.weights[0] @ square - mean)
        return np.asarray(apart / (abs(mean) + self._own_size**2))

    def _has_step(self, x: float, y: float, scale: np.ndarray) -> bool:
        box = self._own_box(x, y, GAUSSIAN_REACH * self._own_size * scale)
        return self._response.exposure_step(box, self._own_size) > EDGE

    def _set_blur(self, metric: np.ndarray, widths: np.ndarray) -> None:
        """Gaussian PSFs, times the pixel window, as factors of waves along y and along x."""
        (ny, nx), cell = self._shape, self.bin
        xx, xy, yy = metric.tolist()
        ky = 2.0 * math.pi * fft.fftfreq(ny, cell)
        kx = 2.0 * math.pi * fft.rfftfreq(nx, cell)
        square = -0.5 * widths[:, None] ** 2
        along_y = np.exp(square * (yy * ky * ky)) * np.sinc(ky * (cell / (2.0 * math.pi)))
        along_x = np.exp(square * (xx * kx * kx)) * np.sinc(kx * (cell / (2.0 * math.pi)))
        self._oblique = abs(xy) > 1e-9 * math.sqrt(xx * yy)
        if self._oblique:  # to first order
            along_y = np.concatenate([along_y, along_y * ky])
            along_x = np.concatenate([along_x, along_x * kx * (2.0 * xy * square)])
        self._blur_y, self._blur_x = np.ascontiguousarray(along_y.T), along_x
        self._column_weight = np.full(len(kx), 2.0 / (nx * ny))
        self._column_weight[0] *= 0.5
        if nx % 2 == 0:
            self._column_weight[-1] *= 0.5

    # --- prediction
    def _new_state(self, p: np.ndarray, slopes: bool) -> GaussianState:
        x, y, jacobian = self.position(p)
        spectrum, flux, flux_slopes = self._unit_flux(p)
        local = self._nearby.at(*self._centre) if self.rough else self._nearby.at(x, y)
        metric = self._pixel.metric(x, y)
        size = float(p[self._sigma])
        square = size * size
        xx, xy, yy = metric[0].tolist()
        value = _CENTRE
        if self._oblique:
            value = _CENTRE.copy()
            value[1, 1] = square * xy
        along_x = _derivatives(self._cells[1], x, math.sqrt(xx * square))
        along_y = _derivatives(self._cells[0], y, math.sqrt(yy * square))
        along_x *= self.bin
        along_y *= self.bin
        state = GaussianState(
            self,
            0.0,
            jacobian,
            spectrum,
            flux,
            flux_slopes,
            local,
            metric,
            size,
            value,
            along_y,
            along_x,
            *self._mixed(local.exposure, size),
            not self.rough,
        )
        if self.rough:
            # The response is that of one place, and the same as long as the spectrum is.
            if self._still is None or self._still.flux is not flux:
                self._still = state
            state.unit, state.transfer = self._still.unit, self._still.transfer
        return state

    def _mixed(self, centre: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray | None]:
        """What makes the exposure of the images (T, k), and its derivatives by x, y, the size.

        ``centre`` (3, T) is the exposure there, as in `LocalResponse`.
        """
        if not self._blends:
            return self._mixing, None
        t = (abs(size) / self._even - 1.0) / (_UNEVEN - 1.0)
        share, rate = 1.0, 0.0
        if t < 1.0:
            share = t * t * (3.0 - 2.0 * t) if t > 0.0 else 0.0
            rate = 6.0 * t * (1.0 - t) / (_UNEVEN - 1.0) / self._even if t > 0.0 else 0.0
        rate = math.copysign(rate, size)
        mixing = np.column_stack([centre[0] * (1.0 - share), self._mixing * share])
        slopes = np.zeros((3, *mixing.shape))
        slopes[:2, :, 0] = centre[1:] * (1.0 - share)
        slopes[2] = np.column_stack([-rate * centre[0], rate * self._mixing])
        return mixing, slopes

    def transfer(self, unit: np.ndarray) -> np.ndarray:
        """Mixtures (R, k, W) as real factors of each wave vector: (R, k, north, half east)."""
        if self._oblique:
            unit = np.concatenate([unit, unit], axis=-1)
        return np.asarray((self._blur_y * unit[:, :, None, :]) @ self._blur_x)

    def by_unit(self, exposed: np.ndarray, there: np.ndarray) -> np.ndarray:
        """What spectra (k, ...) behind each mixture are worth to slopes (R, ...): (R, k, W)."""
        real = there.real[:, None] * exposed.real + there.imag[:, None] * exposed.imag
        real *= self._column_weight
        found = ((self._blur_y.T @ real) * self._blur_x).sum(axis=-1)
        if self._oblique:
            half = found.shape[-1] // 2
            found = found[..., :half] + found[..., half:]
        return np.asarray(found)

    def spectrum(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(fft.rfft2(images))

    def image(self, spectra: np.ndarray) -> np.ndarray:
        return np.asarray(fft.irfft2(spectra, s=self._shape))

    def in_box(self, images: np.ndarray) -> np.ndarray:
        """The rectangle of images (..., ny, nx)."""
        rows, columns = self._cut
        return images[..., rows, columns]

    def from_box(self, pixels: np.ndarray) -> np.ndarray:
        """Images that are 0 but for the rectangle."""
        found = np.zeros((len(pixels), *self._shape))
        rows, columns = self._cut
        found[:, rows, columns] = pixels
        return found

    def columns(self, state: GaussianState) -> dict[int, np.ndarray]:  # type: ignore[override]
        """Derivatives of the counts in the rectangle by each free parameter, shape (R, ny, nx)."""
        found = {}
        if self.linear in self._free:
            found[self.linear] = state.template()
        if self._free.intersection(self._places):
            moved = zip(self._places, state.moved(), strict=True)
            found.update((place, image) for place, image in moved if place in self._free)
        for i in self._free_flux():
            found[self._spectrum[i]] = state.amplitude * state.image_of(state.flux_slopes[i])
        return found

    def add_gradient(  # type: ignore[override]
        self, state: GaussianState, slope: np.ndarray, gradient: np.ndarray
    ) -> None:
        """Add to ``gradient`` what follows from the statistic's derivative by each pixel."""
        _, by_unit, moments = state.pull_back(slope)
        self._add_gradient(state, by_unit, moments, gradient)

    def _add_gradient(
        self, state: GaussianState, by_unit: np.ndarray, moments: np.ndarray, gradient: np.ndarray
    ) -> np.ndarray:
        first = state.first(by_unit, moments)
        gradient[self.linear] += float(np.vdot(by_unit, state.unit))
        gradient[self._places] += state.amplitude * first
        if self._shape_free:
            by_flux = state.by_flux(by_unit)
            for i, place in enumerate(self._spectrum):
                if i != self._linear_at:
                    gradient[place] += state.amplitude * float(state.flux_slopes[i] @ by_flux)
        return first

    def add_curvature(  # type: ignore[override]
        self, state: GaussianState, slope: np.ndarray, found: Derivatives
    ) -> None:
        """What `add_gradient` adds, and the slope times the counts' second derivatives.

        Not of those of the response, nor of the shape of pixels.
        """
        there, by_unit, moments = state.pull_back(slope)
        first = self._add_gradient(state, by_unit, moments, found.gradient)
        places, amplitude = self._places, state.amplitude
        for place, value in zip(places, first.tolist(), strict=True):
            found.bend(self.linear, place, value)
        found.add(places, 0.0, amplitude * state.second(moments))
        chosen = self._free_flux()
        if not chosen:
            return
        by_flux = state.by_flux(by_unit)
        ways = np.stack([self.by_unit(way, there) for way in state.exposed_moved])
        for i in chosen:
            found.bend(self.linear, self._spectrum[i], float(state.flux_slopes[i] @ by_flux))
            unit = state.unit_of(state.flux_slopes[i])
            across = ways.reshape(3, -1) @ unit.ravel()
            for place, value in zip(places, across.tolist(), strict=True):
                found.bend(place, self._spectrum[i], amplitude * value)
        for (i, k), flux in self._flux_curvatures(state.spectrum).items():
            found.bend(self._spectrum[i], self._spectrum[k], amplitude * float(flux @ by_flux))

    def psf_width(self, p: np.ndarray) -> float:
        """Effective width (deg) of the source in the map: the mixture's, with its own size."""
        used, _, mixture = self.mixture(p)
        return math.hypot(mean_width(mixture, self._response.widths[used]), self._size(p))

    def blur(self, p: np.ndarray) -> float:
        """As of any source, but bins are to be no larger than the source allows."""
        return min(super().blur(p), _COARSEST * self._size(p))


@dataclass
class GaussianState:
    """A Gaussian source at given parameters.

    ``along_y``, ``along_x`` (`_DEGREE`, n) are Gaussians of area 1 in the cells of each axis and
    their derivatives by the centre; ``value`` (`_DEGREE`, `_DEGREE`) what of their products makes
    the source. ``mixing`` (T, k) turns the images of the exposure into that of each true energy,
    ``mixing_slopes`` (3, T, k) are its derivatives by pixel x, y and the size, None if it has none.
    ``drifts`` tells whether the response is that of each place.
    """

    source: Any
    amplitude: float
    jacobian: np.ndarray
    spectrum: np.ndarray
    flux: np.ndarray
    flux_slopes: np.ndarray
    local: LocalResponse
    metric: np.ndarray
    size: float
    value: np.ndarray
    along_y: np.ndarray
    along_x: np.ndarray
    mixing: np.ndarray
    mixing_slopes: np.ndarray | None
    drifts: bool
    has_slopes: ClassVar[bool] = True

    # --- counts by band, exposure image and width
    def _unit_of(self, strength: np.ndarray, edisp: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Of (T, k), (T, R), (T, W): (R, k, W)."""
        count, images = edisp.shape[1], strength.shape[1]
        both = (edisp[:, :, None] * strength[:, None, :]).reshape(len(edisp), -1)
        return np.asarray((both.T @ weights).reshape(count, images, -1))

    def unit_of(self, flux: np.ndarray) -> np.ndarray:
        """Counts of a flux (T,), shape (R, k, W)."""
        local = self.local
        return self._unit_of(flux[:, None] * self.mixing, local.edisp[0], local.weights[0])

    @cached_property
    def unit(self) -> np.ndarray:
        """Counts at amplitude 1, shape (R, k, W)."""
        return self.unit_of(self.flux)

    @cached_property
    def unit_slopes(self) -> np.ndarray:
        """Derivatives of `unit` by lon, lat and, for a mixing that varies, the size.

        Shape (0, 2 or 3, R, k, W).
        """
        if not self.drifts:
            return np.empty((0, *self.unit.shape))
        strength = self.flux[:, None] * self.mixing
        edisp, weights = self.local.edisp, self.local.weights
        found = np.array(
            [
                self._unit_of(strength, edisp[way], weights[0])
                + self._unit_of(strength, edisp[0], weights[way])
                for way in (1, 2)
            ]
        )
        turn = self.turn[:2, :2]
        if self.mixing_slopes is not None:
            own = [
                self._unit_of(self.flux[:, None] * slopes, edisp[0], weights[0])
                for slopes in self.mixing_slopes
            ]
            found, turn = np.array([found[0] + own[0], found[1] + own[1], own[2]]), self.turn
        return np.asarray((turn.T @ found.reshape(len(found), -1)).reshape(found.shape))

    def by_flux(self, by_unit: np.ndarray) -> np.ndarray:
        """From the derivative by `unit` to that by the flux (T,) at amplitude 1."""
        spread = np.einsum("rkw,tw->trk", by_unit, self.local.weights[0])
        return np.asarray(np.einsum("trk,tr,tk->t", spread, self.local.edisp[0], self.mixing))

    # --- which derivatives along the axes make those by parameters
    @cached_property
    def turn(self) -> np.ndarray:
        """From lon, lat, size to pixel x, y, size: shape (3, 3)."""
        turn = np.eye(3)
        turn[:2, :2] = self.jacobian
        return turn

    @cached_property
    def _first(self) -> np.ndarray:
        """As `value`, of the derivatives by lon, lat and the size, shape (3, ...)."""
        value, size = self.value, self.size
        found = np.zeros((3, _DEGREE, _DEGREE))
        xx, xy, yy = self.metric[0].tolist()
        found[0, :, 1:] = value[:, :-1]
        found[1, 1:] = value[:-1]
        found[2, :, 2:] = size * xx * value[:, :-2]
        found[2, 2:] += size * yy * value[:-2]
        found[2, 1, 1] += 2.0 * size * xy
        # The shape of pixels, where it varies.
        half = 0.5 * size * size
        for way in (0, 1):
            xx, xy, yy = self.metric[1 + way].tolist()
            found[way, :, 2:] += half * xx * value[:, :-2]
            found[way, 2:] += half * yy * value[:-2]
            found[way, 1, 1] += 2.0 * half * xy
        return np.asarray((self.turn.T @ found.reshape(3, -1)).reshape(found.shape))

    @cached_property
    def _second(self) -> np.ndarray:
        """Of the second derivatives, shape (3, 3, ...), pixels being equal."""
        size = self.size
        xx, xy, yy = self.metric[0].tolist()
        found = np.zeros((3, 3, _DEGREE, _DEGREE))
        found[0, 0, 0, 2] = found[0, 1, 1, 1] = found[1, 0, 1, 1] = found[1, 1, 2, 0] = 1.0
        wider = np.zeros((_DEGREE, _DEGREE))
        wider[0, 2], wider[1, 1], wider[2, 0] = xx, 2.0 * xy, yy
        found[0, 2, :, 1:] = found[2, 0, :, 1:] = size * wider[:, :-1]
        found[1, 2, 1:] = found[2, 1, 1:] = size * wider[:-1]
        found[2, 2] = wider
        found[2, 2, :, 2:] += size * size * xx * wider[:, :-2]
        found[2, 2, 2:] += size * size * yy * wider[:-2]
        found[2, 2, 1:, 1:] += size * size * 2.0 * xy * wider[:-1, :-1]
        return found

    # --- images
    @cached_property
    def _own(self) -> np.ndarray:
        """The source in the cells, shape (ny, nx), its sum 1."""
        if self.value is _CENTRE:
            return np.outer(self.along_y[0], self.along_x[0])
        return np.asarray(self.along_y.T @ self.value @ self.along_x)

    @cached_property
    def exposed(self) -> np.ndarray:
        """Spectra of the source times each exposure image, shape (k, ny, nx // 2 + 1)."""
        return np.asarray(self.source.spectrum(self.source.exposure * self._own))

    @cached_property
    def exposed_moved(self) -> np.ndarray:
        """The same of its derivatives by lon, lat and the size, shape (3, k, ...); single."""
        along_y, along_x = self.along_y.astype(np.float32), self.along_x.astype(np.float32)
        moved = along_y.T @ (self._first.astype(np.float32) @ along_x)
        return np.asarray(self.source.spectrum(moved[:, None] * self.source.single_exposure))

    @cached_property
    def transfer(self) -> np.ndarray:
        """PSF and response as a factor of each wave vector, shape (R, k, ny, nx // 2 + 1)."""
        return np.asarray(self.source.transfer(self.unit))

    def _blurred(self, transfer: np.ndarray, exposed: np.ndarray) -> np.ndarray:
        """Images of the rectangle, shape (R, y, x)."""
        spectra = (transfer * exposed).sum(axis=1) if len(exposed) > 1 else transfer[:, 0] * exposed
        return np.asarray(self.source.in_box(self.source.image(spectra)))

    @cached_property
    def _template(self) -> np.ndarray:
        return self._blurred(self.transfer, self.exposed)

    def template(self) -> np.ndarray:
        """Counts in the rectangle at amplitude 1, shape (R, ny, nx)."""
        return self._template

    def counts(self) -> np.ndarray:
        """Counts in the rectangle."""
        return self._template * self.amplitude

    def image_of(self, flux: np.ndarray) -> np.ndarray:
        """Counts of another flux (T,)."""
        return self._blurred(self.source.transfer(self.unit_of(flux)), self.exposed)

    def moved(self) -> np.ndarray:
        """Derivatives of the counts by lon, lat and the size, shape (3, R, ny, nx).

        In single precision.
        """
        spectra = (self.transfer.astype(np.float32) * self.exposed_moved[:, None]).sum(axis=2)
        if len(slopes := self.unit_slopes):
            drift = self.source.transfer(slopes.reshape(-1, *slopes.shape[2:])).astype(np.float32)
            drift = drift.reshape(*slopes.shape[:3], *drift.shape[2:])
            spectra[: len(drift)] += (drift * self.exposed.astype(np.complex64)).sum(axis=2)
        spectra *= np.float32(self.amplitude)
        return np.asarray(self.source.in_box(self.source.image(spectra)))

    # --- from the statistic's slope by each pixel to that by what the source is made of
    def pull_back(self, slope: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """From the derivative by each pixel's counts (R, ny, nx), at amplitude 1.

        Returns
        -------
        there : ndarray, shape (R, ny, nx // 2 + 1)
            Its spectrum.
        by_unit : ndarray, shape (R, k, W)
        moments : ndarray, shape (`_DEGREE`, `_DEGREE`)
            By products of derivatives along the axes.
        """
        source = self.source
        there = source.spectrum(source.from_box(slope))
        back = source.image((self.transfer * there[:, None]).sum(axis=0))
        back = (source.exposure * back).sum(axis=0)
        moments = product(product(self.along_y, back), self.along_x.T)
        return there, source.by_unit(self.exposed, there), moments

    def first(self, by_unit: np.ndarray, moments: np.ndarray) -> np.ndarray:
        """Derivatives by lon, lat and the size at amplitude 1."""
        found = self._first.reshape(3, -1) @ moments.ravel()
        if len(drift := self.unit_slopes):
            found[: len(drift)] += drift.reshape(len(drift), -1) @ by_unit.ravel()
        return np.asarray(found)

    def second(self, moments: np.ndarray) -> np.ndarray:
        """Second derivatives by lon, lat and the size at amplitude 1."""
        found = (self._second.reshape(9, -1) @ moments.ravel()).reshape(3, 3)
        return np.asarray(self.turn.T @ found @ self.turn)


def _derivatives(at: np.ndarray, centre: float, sigma: float) -> np.ndarray:
    """A Gaussian density at some places, and its derivatives by the centre: (`_DEGREE`, n)."""
    u = (at - centre) * (1.0 / sigma)
    found = np.empty((_DEGREE, len(at)))
    np.exp(-0.5 * u * u, out=found[0])
    found[0] *= 1.0 / (math.sqrt(2.0 * math.pi) * sigma)
    np.multiply(u, found[0], out=found[1])
    for degree in range(2, _DEGREE):
        np.multiply(u, found[degree - 1], out=found[degree])
        found[degree] -= (degree - 1) * found[degree - 2]
    found *= (sigma ** -np.arange(float(_DEGREE)))[:, None]
    return found


def _lines(images: np.ndarray) -> np.ndarray:
    """What straight lines between pixel centres are worth in a sum over the pixels of each column.

    A sum of them times a smooth function is the integral of that times the lines, to the fifth
    order in a pixel: a line rises and falls as ``1 + D**2 / 12 + D**4 / 360`` of a derivative D.
    Shape (k, ny, nx); two pixels at the ends stay as they are.
    """
    found = images.copy()
    middle = found[:, 2:-2]
    middle *= 194.0 / 240.0
    middle += 0.1 * (images[:, 1:-3] + images[:, 3:-1])
    middle -= (images[:, :-4] + images[:, 4:]) / 240.0
    return found
