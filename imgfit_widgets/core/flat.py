"""Emission that fills the map: `FlatSource`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from .derivatives import Derivatives
from .models import SkyModel
from .pixels import bilinear, binned
from .response import DatasetLike, Response
from .source import Source

__all__ = ["FlatSource"]


class FlatSource(Source):
    """Emission of the same brightness everywhere, which the PSF does not change."""

    def __init__(
        self,
        model: SkyModel,
        dataset: DatasetLike,
        response: Response,
        place: dict[tuple[str, str], int],
        free: set[int],
    ) -> None:
        super().__init__(model, dataset, response, place, free)
        self._value = place[(model.name, "value")]
        ny, nx = self.geom.shape
        self.box = (0, ny, 0, nx)
        self._centre_pixel = 0.5 * (nx - 1), 0.5 * (ny - 1)
        geom = dataset.exposure.geom
        self._mixing, images = response.exposure_images()
        if not response.same_pixels:
            lon, lat = self.geom.pixel_lonlat
            x, y = geom.lonlat_to_pix(*geom.from_frame(lon, lat, self.geom.frame))
            images = bilinear(images, x, y)
        self._images = images * np.nan_to_num(self.geom.solid_angle())
        edisp = response.at(*self._centre_pixel).edisp[0]
        # Counts in each band per flux and true energy, on the exposure images: shape (T, R, k).
        self._turn_over = np.einsum("tk,tr->trk", self._mixing, edisp)

    def position(self, p: np.ndarray) -> tuple[float, float, np.ndarray]:
        """The centre of the map, wherever that is."""
        return (*self._centre_pixel, np.zeros((2, 2)))

    def stays(self, p: np.ndarray) -> bool:
        return True

    def lay_out(self, p: np.ndarray) -> bool:
        """The rectangle is the map."""
        return False

    def psf_width(self, p: np.ndarray) -> float:
        """No width: what the PSF does to it cannot be seen."""
        return float(np.median(self._response.widths))

    def blur(self, p: np.ndarray) -> float:
        """It has no structure."""
        return math.inf

    def _new_state(self, p: np.ndarray, slopes: bool) -> FlatState:
        spectrum, *flux = self._unit_flux(p)
        return FlatState(self, 0.0, spectrum, float(p[self._value]), *flux)

    def image(self, flux: np.ndarray) -> np.ndarray:
        """Counts (R, y, x) at brightness 1 of a flux (T,)."""
        images = binned(self._images, self.bin)
        return np.tensordot(np.tensordot(flux, self._turn_over, axes=1), images, axes=1)

    def columns(self, state: FlatState) -> dict[int, np.ndarray]:  # type: ignore[override]
        """Derivatives of the counts by each parameter, shape (R, ny, nx)."""
        found = {}
        if self.linear in self._free:
            found[self.linear] = state.template()
        if self._value in self._free:
            found[self._value] = state.amplitude * self.image(state.flux)
        for i in self._free_flux():
            scale = state.amplitude * state.value
            found[self._spectrum[i]] = scale * self.image(state.flux_slopes[i])
        return found

    def add_gradient(  # type: ignore[override]
        self, state: FlatState, slope: np.ndarray, gradient: np.ndarray
    ) -> None:
        """Add to ``gradient`` what follows from the statistic's derivative by each pixel."""
        by_flux = self._by_flux(slope)
        gradient[self.linear] += state.value * float(state.flux @ by_flux)
        gradient[self._value] += state.amplitude * float(state.flux @ by_flux)
        for i, place in enumerate(self._spectrum):
            if i != self._linear_at:
                scale = state.amplitude * state.value
                gradient[place] += scale * float(state.flux_slopes[i] @ by_flux)

    def _by_flux(self, slope: np.ndarray) -> np.ndarray:
        """The derivative by the flux (T,) at brightness 1."""
        images = binned(self._images, self.bin)
        by_images = np.tensordot(slope, images, axes=([1, 2], [1, 2]))
        return np.asarray(np.einsum("trk,rk->t", self._turn_over, by_images))

    def add_curvature(  # type: ignore[override]
        self, state: FlatState, slope: np.ndarray, found: Derivatives
    ) -> None:
        """`add_gradient`, and what the slope makes of the counts' second derivatives."""
        self.add_gradient(state, slope, found.gradient)
        by_flux = self._by_flux(slope)
        found.bend(self.linear, self._value, float(state.flux @ by_flux))
        for i in self._free_flux():
            by_shape = float(state.flux_slopes[i] @ by_flux)
            found.bend(self.linear, self._spectrum[i], state.value * by_shape)
            found.bend(self._value, self._spectrum[i], state.amplitude * by_shape)
        for (i, k), flux in self._flux_curvatures(state.spectrum).items():
            scale = state.amplitude * state.value
            found.bend(self._spectrum[i], self._spectrum[k], scale * float(flux @ by_flux))


@dataclass
class FlatState:
    """Flat emission at given parameters; ``flux`` (T,) is that at amplitude 1."""

    source: FlatSource
    amplitude: float
    spectrum: np.ndarray
    value: float
    flux: np.ndarray
    flux_slopes: np.ndarray
    has_slopes: ClassVar[bool] = True

    @cached_property
    def _template(self) -> np.ndarray:
        return self.source.image(self.flux) * self.value

    def template(self) -> np.ndarray:
        """Counts at amplitude 1, shape (R, ny, nx)."""
        return self._template

    def counts(self) -> np.ndarray:
        """Counts."""
        return self._template * self.amplitude
