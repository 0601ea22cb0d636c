"""A point or a Gaussian at given parameters, in closed form: `SourceState`.

Each axis of its image is a sum of Gaussians integrated over pixels, so that an image is a matrix
product, and the way back from pixels to parameters another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from .pixels import PixelIntegrals
from .products import product
from .response import LocalResponse

__all__ = ["SourceState"]


@dataclass
class SourceState:
    """A source at given parameters: counts at amplitude 1 by band and width, and pixel integrals.

    ``spectrum`` its parameters, ``flux`` (T,) in each true-energy bin at amplitude 1, ``local`` the
    response at its centre. ``sigma`` (W,) is in degrees.
    """

    source: Any
    amplitude: float
    jacobian: np.ndarray
    spectrum: np.ndarray
    flux: np.ndarray
    flux_slopes: np.ndarray
    local: LocalResponse
    metric: np.ndarray
    scale: np.ndarray
    rho: float
    size: float
    sigma: np.ndarray
    along_x: PixelIntegrals
    along_y: PixelIntegrals
    has_slopes: ClassVar[bool] = True

    # --- counts by band and width
    def unit_of(self, flux: np.ndarray) -> np.ndarray:
        """Counts of a flux (T,), shape (R, W)."""
        local = self.local
        return _received(flux * local.exposure[0], local.edisp[0], local.weights[0])

    @cached_property
    def unit(self) -> np.ndarray:
        """Counts at amplitude 1, shape (R, W)."""
        return self.unit_of(self.flux)

    @cached_property
    def unit_slopes(self) -> np.ndarray:
        """Derivatives of `unit` by pixel x, y, shape (2, R, W)."""
        exposure, edisp, weights = self.local.exposure, self.local.edisp, self.local.weights
        incoming = self.flux * exposure
        slopes = edisp[1:] * incoming[0][:, None] + edisp[0] * incoming[1:, :, None]
        slopes = slopes.transpose(0, 2, 1) @ weights[0]
        slopes += (edisp[0] * incoming[0][:, None]).T @ weights[1:]
        return np.asarray(slopes)

    def by_flux(self, by_unit: np.ndarray) -> np.ndarray:
        """From the derivative by `unit` to that by the flux (T,) at amplitude 1."""
        local = self.local
        found = ((local.edisp[0] @ by_unit) * local.weights[0]).sum(axis=1)
        return np.asarray(found * local.exposure[0])

    # --- images
    @cached_property
    def ratio(self) -> np.ndarray:
        """Source size over effective width, shape (W,)."""
        return np.asarray(self.size / self.sigma)

    @property
    def _degrees(self) -> int:
        """Hermite polynomials along each axis: two for oblique pixels."""
        return 2 if self.rho else 1

    @cached_property
    def _content(self) -> np.ndarray:
        """What multiplies the terms of the two axes, shape (R, W, degree along y, along x).

        A correlation of the two axes is, to first order, the product of their first Hermite
        polynomials (Mehler 1866).
        """
        return self._content_of(self.unit)

    def _content_of(self, unit: np.ndarray) -> np.ndarray:
        """The same of other counts (..., R, W)."""
        n = self._degrees
        found = np.zeros((*unit.shape, n, n))
        found[..., 0, 0] = unit
        if self.rho:
            found[..., 1, 1] = self.rho * unit
        return found

    @cached_property
    def _content_slopes(self) -> np.ndarray:
        """Derivatives of `_content` by pixel x, y."""
        return self._content_of(self.unit_slopes)

    def _image(self, content: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Terms (W, degree, n) along both axes times a content, shape (R, ny, nx)."""
        if content.shape[-1] == 1:
            return product(y[:, 0].T * content[:, None, :, 0, 0], x[:, 0])
        rows = y.reshape(-1, y.shape[2])
        across = (content @ x).reshape(len(content), len(rows), -1)
        return product(rows.T, across)

    @cached_property
    def _template(self) -> np.ndarray:
        return self._image(
            self._content, *(a.terms(self._degrees) for a in (self.along_y, self.along_x))
        )

    def template(self) -> np.ndarray:
        """Counts in the rectangle at amplitude 1, shape (R, ny, nx)."""
        return self._template

    def counts(self) -> np.ndarray:
        """Counts in the rectangle."""
        return self._template * self.amplitude

    def image_of(self, flux: np.ndarray) -> np.ndarray:
        """Counts of another flux (T,)."""
        (y, _, _), (x, _, _) = self._jets
        return self._image(self._content_of(self.unit_of(flux)), y, x)

    def worth_of(self, slope: np.ndarray, flux: np.ndarray) -> float:
        """The counts of another flux (T,), times a slope (R, ny, nx)."""
        return float(np.vdot(self.image_of(flux), slope))

    @cached_property
    def _jets(self) -> tuple[np.ndarray, np.ndarray]:
        """`PixelIntegrals.jet` along y and x, each of shape (3, W, degree, n)."""
        return self.along_y.jet(self._degrees), self.along_x.jet(self._degrees)

    def moved(self) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of the counts by pixel x and y, each of shape (R, ny, nx)."""
        (y, y_moved, _), (x, x_moved, _) = self._jets
        content = self._content
        by_x, by_y = self._image(content, y, x_moved), self._image(content, y_moved, x)
        by_x += self._image(self._content_slopes[0], y, x)
        by_y += self._image(self._content_slopes[1], y, x)
        return by_x * self.amplitude, by_y * self.amplitude

    def wider(self) -> np.ndarray:
        """Derivatives of the counts by the size in degrees."""
        (y, _, y_wider), (x, _, x_wider) = self._jets
        content = self._content * self.ratio[:, None, None]
        found = self._image(content * self.scale[0], y, x_wider)
        found += self._image(content * self.scale[1], y_wider, x)
        return found * self.amplitude

    def bent(
        self, slope: np.ndarray, fluxes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What a slope (R, ny, nx) makes of the derivatives of the counts at amplitude 1.

        By pixel x, y, by the size if there is one, and by shares of further ``fluxes`` (n, T).

        Returns
        -------
        by_unit : ndarray, shape (R, W)
            By `unit`.
        first : ndarray, shape (m,)
        second : ndarray, shape (m, m)
        """
        wider = not self.source.is_point
        jets = [
            np.concatenate([first, axis.second_jet(self._degrees, wider)]).transpose(1, 0, 2, 3)
            for axis, first in zip((self.along_y, self.along_x), self._jets, strict=True)
        ]
        y, x = (jet.reshape(len(jet), -1, jet.shape[3]) for jet in jets)
        rows = product(y.reshape(-1, y.shape[2]), slope).reshape(len(slope), *y.shape[:2], -1)
        worth = rows @ x.transpose(0, 2, 1)
        # Which derivative along y, along x: (R, W, 6 or 4, degree, 6 or 4, degree).
        each = worth.shape[2] // self._degrees, self._degrees
        worth = worth.reshape(*worth.shape[:2], *each, *each)
        content, slopes = self._content, self._content_slopes
        by_terms = np.einsum("rwji,rwajbi->abw", content, worth)
        plain = worth[:, :, 0, :, 0]
        by_unit = self._by_unit(plain)
        moved = [worth[:, :, 0, :, 1], worth[:, :, 1, :, 0]]
        xx, xy, yy = by_terms[0, 3].sum(), by_terms[1, 1].sum(), by_terms[3, 0].sum()
        second = np.array([[xx, xy], [xy, yy]])
        if wider:
            sx, sy = (scale * self.ratio for scale in self.scale)
            rate = (1.0 - self.ratio**2) / self.sigma
            xs = by_terms[0, 4] @ sx + by_terms[2, 1] @ sy
            ys = by_terms[1, 2] @ sx + by_terms[4, 0] @ sy
            ss = by_terms[0, 5] @ sx**2 + by_terms[5, 0] @ sy**2
            ss += 2.0 * (by_terms[2, 2] @ (sx * sy))
            ss += (by_terms[0, 2] * self.scale[0] + by_terms[2, 0] * self.scale[1]) @ rate
            second = np.block([[second, np.array([[xs], [ys]])], [np.array([xs, ys, ss])]])
            wider = worth[:, :, 0, :, 2] * sx[:, None, None]
            moved.append(wider + worth[:, :, 2, :, 0] * sy[:, None, None])
        count = len(moved)
        rates = [*slopes, np.zeros_like(content)][:count]  # the size changes none
        rates += [self._content_of(self.unit_of(flux)) for flux in fluxes]
        first = np.array([float(np.vdot(rate, plain)) for rate in rates])
        first[:count] += [float(np.vdot(content, way)) for way in moved]
        first[:2] += self._by_pixel_shape(plain, by_terms[0, 2], by_terms[2, 0])
        found = np.zeros((len(rates), len(rates)))
        found[:count, :count] = second
        for i, rate in enumerate(rates):
            for k, way in enumerate(moved):
                cross = float(np.vdot(rate, way))
                found[i, k] += cross
                found[k, i] += cross
        return by_unit, first, found

    def pull_back(self, slope: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """From the derivative by each pixel's counts to those by what shapes the source.

        Parameters
        ----------
        slope : ndarray, shape (R, ny, nx)

        Returns
        -------
        by_unit : ndarray, shape (R, W)
            By `unit`, for amplitude 1.
        by_xy : ndarray, shape (2,)
            By the pixel position, for amplitude 1.
        by_size : float
            By the source's sigma in degrees, for amplitude 1.
        """
        jet_y, jet_x = self._jets
        content = self._content
        beside = product(slope, jet_x.reshape(-1, jet_x.shape[3]).T)
        beside = beside.transpose(0, 2, 1).reshape(len(slope), *jet_x.shape[:3], -1)
        beside = beside.transpose(0, 1, 2, 4, 3)
        # By the products of terms, with one axis moved or wider: (R, 3 or 2, W, degree, degree).
        over_y, over_x = jet_y @ beside[:, :1], jet_y[0] @ beside[:, 1:]
        by_content = over_y[:, 0]
        by_x, by_sx = (over_x * content[:, None]).sum(axis=(0, 3, 4))
        by_y, by_sy = (over_y[:, 1:] * content[:, None]).sum(axis=(0, 3, 4))
        by_unit = self._by_unit(by_content)
        by_xy = np.array([by_x.sum(), by_y.sum()])
        by_xy += self.unit_slopes.reshape(2, -1) @ by_unit.ravel()
        by_xy += self._by_pixel_shape(by_content, by_sx, by_sy)
        if not self.size:
            return by_unit, by_xy, 0.0
        by_size = float((by_sx * self.scale[0] + by_sy * self.scale[1]) @ self.ratio)
        return by_unit, by_xy, by_size

    def _by_unit(self, by_content: np.ndarray) -> np.ndarray:
        """From the derivative by `_content` to that by `unit`."""
        by_unit = by_content[:, :, 0, 0]
        return by_unit + self.rho * by_content[:, :, 1, 1] if self.rho else by_unit

    def _by_pixel_shape(
        self, by_content: np.ndarray, by_sx: np.ndarray, by_sy: np.ndarray
    ) -> np.ndarray:
        """From derivatives to those by pixel x, y that pixels bring about which vary in shape.

        ``by_sx``, ``by_sy`` (W,) are by the widths in pixels.
        """
        by_scale = np.array([by_sx @ self.sigma, by_sy @ self.sigma])
        scale_slopes = 0.5 * self.metric[1:, [0, 2]] / self.scale
        by_xy = scale_slopes @ by_scale
        if self.rho:
            by_rho = float(np.vdot(by_content[:, :, 1, 1], self.unit))
            rho_slopes = self.metric[1:, 1] / np.prod(self.scale)
            rho_slopes -= self.rho * (scale_slopes @ (1.0 / self.scale))
            by_xy += by_rho * rho_slopes
        return np.asarray(by_xy)


def _received(incoming: np.ndarray, edisp: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Photons (T,) by band and width: of (T, R) and (T, W), shape (R, W)."""
    return np.asarray((edisp * incoming[:, None]).T @ weights)
