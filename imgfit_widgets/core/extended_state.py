"""An extended source at given parameters, on the plane around it: `ExtendedState`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .plane import SkyPlane

__all__ = ["ExtendedState"]


@dataclass
class ExtendedState:
    """An extended source at given parameters, at amplitude 1.

    ``spectrum`` are its parameters; ``base`` and ``shape`` multiply to the transform of the source
    on the cells; ``unit`` (R, k, W) are counts by band, exposure image and width, ``unit_slopes``
    their derivatives by pixel x, y.
    """

    source: Any
    plane: SkyPlane
    amplitude: float
    spectrum: np.ndarray
    base: np.ndarray
    shape: np.ndarray
    values: np.ndarray
    shape_slopes: list[np.ndarray]
    unit: np.ndarray
    unit_slopes: np.ndarray
    spread: np.ndarray
    flux_slopes: np.ndarray
    jacobian: np.ndarray
    on_plane: np.ndarray
    turn: float
    has_slopes: bool

    @cached_property
    def transfer(self) -> np.ndarray:
        """PSF and response as a factor of each wave vector, shape (R, k, north, half east)."""
        return np.asarray(self.source.transfer(self.unit))

    @cached_property
    def exposed(self) -> np.ndarray:
        """Spectra of the source times each exposure image, shape (k, north, half east)."""
        return np.asarray(self.exposed_of(self.shape * self.base))

    def exposed_of(self, spectrum: np.ndarray) -> np.ndarray:
        """The same of another spectrum on the cells."""
        return self.plane.spectrum(self.source.exposure * self.plane.image(spectrum))

    def _blurred(self, exposed: np.ndarray, transfer: np.ndarray) -> np.ndarray:
        """Spectra in each band, shape (R, north, half east)."""
        return np.asarray((transfer * exposed).sum(axis=1))

    def _to_pixels(self, blurred: np.ndarray) -> np.ndarray:
        window = self.plane.window.astype(blurred.real.dtype, copy=False)
        return self.plane.to_pixels(self.plane.image(blurred * window))

    @cached_property
    def _template(self) -> np.ndarray:
        return self._to_pixels(self._blurred(self.exposed, self.transfer))

    def template(self) -> np.ndarray:
        """Counts in the rectangle at amplitude 1, shape (R, ny, nx)."""
        return self._template

    def counts(self) -> np.ndarray:
        """Counts in the rectangle."""
        return self._template * self.amplitude

    def images(
        self, places: list[int], spectra: dict[int, np.ndarray], units: dict[int, np.ndarray]
    ) -> np.ndarray:
        """Counts at amplitude 1 of other shapes, of other mixtures, or of both, for each of places.

        ``spectra`` multiply `base` to transforms on the cells; ``units`` (R, k, W) are mixtures.
        In single precision. Shape (places, R, y, x).
        """
        transfer = self.transfer.astype(np.float32)
        blurred = np.zeros((len(places), *transfer[:, 0].shape), dtype=np.complex64)
        if spectra:
            stack = np.array(list(spectra.values()), dtype=np.complex64)
            stack *= self.base
            on_cells = self.plane.image(stack)
            rows = [places.index(place) for place in spectra]
            for k, exposure in enumerate(self.source.exposure):
                exposed = self.plane.spectrum(exposure * on_cells)
                blurred[rows] += transfer[:, k] * exposed[:, None]
        for place, unit in units.items():
            blurred[places.index(place)] += self._blurred(self.exposed, self.source.transfer(unit))
        found = self._to_pixels(blurred.reshape(-1, *blurred.shape[2:]))
        return found.reshape(*blurred.shape[:2], *found.shape[1:])

    def moved(self) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of the spectrum by the position east and north."""
        spectrum = -1j * (self.shape * self.base)
        return spectrum * self.plane.east, spectrum * self.plane.north
