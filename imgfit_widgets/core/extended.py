"""Extended sources of any shape in one dataset, and emission that fills the map.

An `ExtendedSource` is computed on a `SkyPlane` around it. Its Fourier transform is a closed form
(`SpatialModel.transform`), so that it is placed exactly, whatever its size in pixels, and every
derivative is analytic:

1. the transform of the shape at the wave vectors that the cells can hold;
2. on the cells, times the exposure there (few images that all true energies share);
3. in Fourier space again, times the PSF mixture, by energy band, and the pixel window;
4. from cells to pixels.

What the cells cannot hold, the PSF would not let through either: that sets their size.

Each step is linear in the one before, and the gradient runs through the transposed steps from the
derivative of the statistic by each pixel's counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from scipy import fft

from .errors import DataError
from .maps import unit_vectors
from .models import GaussianSpatialModel, SkyModel, TemplateSpatialModel
from .models.spatial import Wave, circle
from .plane import SkyPlane, TangentPoint, points
from .products import product
from .response import DatasetLike, Response
from .source import EDGE, Source, tail_reach

__all__ = ["ExtendedSource", "FlatSource"]

_MARGIN_DEG = 0.06
"""How far a source may move at least before its plane follows."""
_ALIAS = 1e-4
"""Part of a point's spectrum that may lie beyond what the cells can represent."""
_MAX_CELL_DEG = 0.1
"""Cells are no larger, because they sample the exposure too."""
_MAX_CELLS = 1024
_ACROSS_EDGE = 0.25
"""How densely the exposure is sampled where it has a step, in pixels of the exposure."""
_ACROSS_PIXEL = 0.05
"""How far, in these pixels, its rows and columns may be from straight ones of the cells."""
_EXPOSURE = 2e-4
"""To what part of the exposure its variation over the source is followed at each true energy."""
_STRAIGHT = 5e-3
"""To what part of its blurred size pixels must be where straight rows and columns have them."""
_SAME_AREA = 4e-4
"""And to what part of the distance from the centre, lest sides of pixels are not theirs either."""
_RADIAL = 3000
"""Nodes of the PSF's transform along the wave number."""


class ExtendedSource(Source):
    """One source of any shape with a transform, in one dataset."""

    def __init__(
        self,
        model: SkyModel,
        dataset: DatasetLike,
        response: Response,
        place: dict[tuple[str, str], int],
        free: set[int],
    ) -> None:
        super().__init__(model, dataset, response, place, free)
        self.spatial = model.spatial_model
        self._exposure_geom = dataset.exposure.geom
        self._shape = [place[(model.name, name)] for name in self.spatial.shape_names]
        self._phi = (
            self.spatial.shape_names.index("phi") if "phi" in self.spatial.shape_names else None
        )
        free_shape = {k for k, at in enumerate(self._shape) if at in free}
        if self._phi is not None and not (self.spatial.e.frozen and self.spatial.e.value == 0):
            free_shape.add(self._phi)  # it turns with the position
        self._varied = sorted(free_shape)
        self._tangent: TangentPoint | None = None
        self._plane: SkyPlane | None = None
        self._reach_range = (0.0, 0.0)
        self._parts = 1  # of a cell's side, over which the exposure is averaged
        self._smallest: float | None = None
        self._laid_out: tuple[float, ...] = ()
        self._wave = Wave.of(np.zeros(0), np.zeros(0))
        self._inside = self._blur = self._between = np.empty(0)
        self._node = np.empty(0, dtype=np.int32)
        self._mixing = self.exposure = np.empty(0)
        self._template: np.ndarray | None = None

    @property
    def plane(self) -> SkyPlane:
        """The plane around the source, laid out before."""
        if self._plane is None:
            raise DataError(f"{self.model.name}: is off the map of {self.dataset_name!r}")
        return self._plane

    # --- layout
    def stays(self, p: np.ndarray) -> bool:
        if self._tangent is None:
            return False
        u, v, _ = self._tangent.place(float(p[self._lon]), float(p[self._lat]))
        if not math.hypot(u, v) <= self._margin:
            return False
        values = p[self._shape]
        if self._smallest is not None and self._fineness(values) < self._smallest:
            return False
        low, high = self._reach_range
        return bool(low <= self.spatial.reach(values) <= high)

    def lay_out(self, p: np.ndarray) -> None:
        """Put the plane and the rectangle around the source."""
        # All but the amplitude, which changes nothing here.
        spectrum = [i for i in self._spectrum if i != self.linear]
        here = tuple(p[[self._lon, self._lat, *self._shape, *spectrum]])
        if here == self._laid_out:
            return
        self._laid_out = here
        lon, lat = float(p[self._lon]), float(p[self._lat])
        used, share, mixture = self._mixture(p)
        self._use(used)
        widths = self._response.widths[self._used]
        psf = tail_reach(mixture, widths)
        values = p[self._shape]
        own = self.spatial.reach(values)
        grown = 1.2 * own + 0.3 * float(widths.min())
        self._margin = max(_MARGIN_DEG, 0.1 * (own + psf))
        self._reach_range = 0.4 * own if own > psf else 0.0, grown
        reach = min(grown + psf + self._margin, 170.0)
        self.box = self._box_around(lon, lat, reach)
        self._tangent = TangentPoint(lon, lat)
        if not self._has_pixels():
            self.box = (0, 0, 0, 0)
            self._plane = None
            return
        far = self._farthest(lon, lat, reach)
        half = max(far, 0.5 * (grown + far + psf) + self._margin)
        cell, blurred = self._cell_size(mixture, values)
        own_box = self._box_around(lon, lat, grown + self._margin)
        self._parts = 1
        if self._response.exposure_step(own_box, cell) > EDGE:
            # A step under the source has structure of its own, which only the PSF smooths.
            cell = max(min(cell, blurred), 2.0 * half / _MAX_CELLS)
            step = _ACROSS_EDGE * self._response.exposure_pixel
            self._parts = int(np.clip(math.ceil(cell / step), 2, 16))
        cell = max(cell, 2.0 * half / _MAX_CELLS)
        width = _mean_width(mixture, widths)
        seen = own + 2.0 * width
        # The edges of other shapes are as sharp as the PSF.
        smooth = self._fineness(values) if isinstance(self.spatial, GaussianSpatialModel) else 0.0
        straight = min(_STRAIGHT * math.hypot(width, smooth), _SAME_AREA * seen)
        self._plane = plane = SkyPlane(
            self.geom,
            self.model.frame,
            (lon, lat),
            cell,
            (half, half),
            self.box,
            (seen, straight),
        )
        self._wave = Wave.of(plane.east, plane.north)
        self._inside = plane.representable()
        self._set_exposure(share, grown + self._margin)
        # The PSF's transform depends on the wave number only.
        top = float(self._wave.length.max()) * (1.0 + 1e-9)
        nodes = np.linspace(0.0, top, _RADIAL)
        self._blur = np.exp(-0.5 * (nodes * widths[:, None]) ** 2)
        # North and south are alike, so one half does.
        place = self._wave.length[: plane.shape[0] // 2 + 1] * ((_RADIAL - 1) / top)
        self._node = np.minimum(place.astype(np.int32), _RADIAL - 2)
        self._between = place - self._node
        self._template = None
        if isinstance(self.spatial, TemplateSpatialModel):
            self._template = self._template_spectrum(self.spatial)

    def _fineness(self, values: np.ndarray) -> float:
        """A length (deg) that shrinks with the finest structure of the shape."""
        named = dict(zip(self.spatial.shape_names, values, strict=True))
        found = math.inf
        for name in self.spatial.size_names:
            found = min(found, abs(float(named[name])))
        if "e" in named:
            found *= math.sqrt(max(1.0 - float(named["e"]) ** 2, 0.0))
        if "eta" in named:
            found *= float(named["eta"])
        return found

    def _cell_size(self, mixture: np.ndarray, values: np.ndarray) -> tuple[float, float]:
        """The largest cell (deg) that holds what the PSF lets through of the shape, and of a point.

        Larger for shapes without much structure; then it holds until they are finer by a quarter.
        """
        widths = self._response.widths[self._used]
        weight = np.abs(mixture) / max(float(np.abs(mixture).sum()), 1e-300)
        cells = np.geomspace(0.3 * widths.min(), _MAX_CELL_DEG, 60)
        passed = np.exp(-0.5 * (math.pi * widths / cells[:, None]) ** 2) @ weight
        enough = int(np.searchsorted(passed, _ALIAS))
        blurred = float(cells[max(enough - 1, 0)])
        self._smallest = None
        if isinstance(self.spatial, TemplateSpatialModel):
            return blurred, blurred
        shrunk, names = values.copy(), self.spatial.shape_names
        for i, name in enumerate(names):
            if name in self.spatial.size_names:
                shrunk[i] *= 0.75
            elif name == "e":
                shrunk[i] = math.sqrt(1.0 - 0.75**2 * max(1.0 - shrunk[i] ** 2, 0.0))
            elif name in ("eta", "edge_width"):
                shrunk[i] *= 0.75
        # Two lengths of the wave vector in each cell's octave, in all directions.
        k = (math.pi / cells[:, None] * np.array([1.0, 1.02, 1.05]))[:, :, None]
        angle = np.linspace(0.0, math.pi, 13)[:-1]
        wave = Wave.of(k * np.cos(angle), k * np.sin(angle))
        strength = np.abs(self.spatial.transform(shrunk, wave, False)[0]).max(axis=(1, 2))
        # Cells increase: the largest strength at this or any larger wave number.
        passed *= np.maximum.accumulate(strength)
        held = int(np.searchsorted(passed, _ALIAS))
        if held > enough:
            self._smallest = 0.75 * self._fineness(values)
        return float(cells[max(held - 1, 0)]), blurred

    def _mixture(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The widths that matter, the share of each true energy, and the PSF mixture."""
        x, y, _ = self.position(p)
        flux = self._unit_flux(p)[0]
        local = self._response.at(x, y)
        strength = np.abs(flux)[:, None] * np.abs(local.edisp[0])
        strength = strength * np.maximum(np.abs(local.exposure[0]), 1e-300)[:, None]
        share = strength.max(axis=1)
        share = share / max(float(share.sum()), 1e-300)
        used = self.widths_used(x, y, share)
        return used, share, (share @ local.weights[0])[used]

    def _box_around(self, lon: float, lat: float, reach: float) -> tuple[int, int, int, int]:
        """Pixels within a distance (deg) of a position; the whole map where that is hard to say."""
        ny, nx = self.geom.shape
        everything = (0, ny, 0, nx)
        at_lon, at_lat = (float(v) for v in self.geom.from_frame(lon, lat, self.model.frame))
        if self.whole_map or abs(at_lat) + reach > 88.0 or reach > 60.0:
            return everything
        ring = np.stack(self.geom.lonlat_to_pix(*circle(at_lon, at_lat, reach)))
        centre = np.stack(self.geom.lonlat_to_pix(at_lon, at_lat))
        low, high = ring.min(axis=1), ring.max(axis=1)
        # Across the map's far side a ring falls apart and does not hold its centre.
        if not np.all((low <= centre) & (centre <= high)):
            return everything
        (x0, y0), (x1, y1) = np.floor(low).astype(int), np.ceil(high).astype(int) + 1
        return (
            int(np.clip(y0, 0, ny)),
            int(np.clip(y1, 0, ny)),
            int(np.clip(x0, 0, nx)),
            int(np.clip(x1, 0, nx)),
        )

    def _farthest(self, lon: float, lat: float, reach: float) -> float:
        """Distance (deg) of the farthest pixel of the rectangle, ``reach`` at most."""
        y0, y1, x0, x1 = self.box
        y, x = np.mgrid[y0 - 0.5 : y1 - 0.5 : 9j, x0 - 0.5 : x1 - 0.5 : 9j]
        there = unit_vectors(*self.geom.pix_to_lonlat(x, y))
        here = unit_vectors(*self.geom.from_frame(lon, lat, self.model.frame))
        cos = np.tensordot(here, there, axes=1)
        if not np.all(np.isfinite(cos)):
            return reach
        return min(math.degrees(math.acos(float(np.clip(cos.min(), -1.0, 1.0)))), reach)

    def _set_exposure(self, share: np.ndarray, reach: float) -> None:
        """The exposure on the cells as few images times a mixing by true energy.

        ``reach`` is how far (deg) from the plane's centre the source comes.
        """
        plane = self.plane
        mixing, images = self._response.exposure_images
        geom = self._exposure_geom
        if self._parts > 1 and (axes := plane.axes(geom, self._parts, reach, _ACROSS_PIXEL)):
            cells = self._low_waves_along(images, *axes)
        else:
            x, y = geom.lonlat_to_pix(*geom.from_frame(*plane.lonlat(), self.model.frame))
            cells = self._low_waves(images, x, y) if self._parts > 1 else bilinear(images, x, y)
        # The few combinations that matter here, weighted by the counts of each true energy.
        sample = cells[:, ::3, ::3].reshape(len(cells), -1)
        scale = share / np.maximum(np.abs(mixing @ sample.mean(axis=1)), 1e-300)
        scale = np.maximum(scale, 1e-7 * max(float(scale.max()), 1e-300))
        # Of all true energies at once by way of the few images' own lengths and angles.
        size, turn = np.linalg.eigh(sample @ sample.T)
        within = turn * np.sqrt(np.maximum(size, 0.0))
        left, strength, _ = np.linalg.svd(scale[:, None] * mixing @ within, full_matrices=False)
        left = left[:, strength > _EXPOSURE * max(float(strength[0]), 1e-300)]
        self._mixing = left / scale[:, None]
        self.exposure = np.tensordot(left.T @ (scale[:, None] * mixing), cells, axes=1)

    def _low_waves_along(self, images: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The same as `_low_waves` where rows and columns of cells are those of pixels.

        Then it is one matrix along each axis. ``x``, ``y`` (parts, cells) are pixels of the images.
        """
        plane, parts = self.plane, self._parts
        offsets = points(parts) * plane.cell
        kept = self._inside[0], self._inside[: plane.shape[0] // 2 + 1, 0]
        matrices, spans = [], []
        for at, waves, held, size in zip(
            (x, y), plane.waves, kept, images.shape[:0:-1], strict=True
        ):
            left, part = between(at, size)
            # Only the pixels that the cells lie on.
            first, stop = int(left.min()), min(int(left.max()) + 2, size)
            spans.append(slice(first, stop))
            sampled = np.zeros((*at.shape, stop - first))
            place = np.arange(at.size)
            flat = sampled.reshape(at.size, -1)
            flat[place, left.ravel() - first] = 1.0 - part.ravel()
            flat[place, np.minimum(left + 1, size - 1).ravel() - first] += part.ravel()
            spectrum = fft.rfft(sampled, axis=1)
            shift = np.exp(-1j * offsets[:, None] * waves) * (held / parts)
            mean = np.einsum("pk,pkj->kj", shift, spectrum)
            matrices.append(fft.irfft(mean, at.shape[1], axis=0))
        along_x, along_y = matrices
        return product(product(along_y, images[:, spans[1], spans[0]]), along_x.T)

    def _low_waves(self, images: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """What waves longer than two cells have of the exposure, for cells at pixels x, y of it.

        Values at the cells' centres would move a step by up to half a cell.
        """
        plane = self.plane
        offsets = points(self._parts)
        (x_v, x_u), (y_v, y_u) = (np.gradient(q) for q in (x, y))
        spectrum = np.zeros((len(images), *plane.east.shape), dtype=complex)
        for dv in offsets:
            for du in offsets:
                there = x + x_u * du + x_v * dv, y + y_u * du + y_v * dv
                along_x, along_y = plane.phase(du * plane.cell, dv * plane.cell)
                sampled = bilinear(images, *there)
                spectrum += plane.spectrum(sampled) * (along_y[:, None] * along_x)
        along_x, along_y = plane.phase(0.0, 0.0)
        back = np.conj(along_y[:, None] * along_x) * self._inside / self._parts**2
        return plane.image(spectrum * back)

    def _template_spectrum(self, spatial: TemplateSpatialModel) -> np.ndarray:
        """Transform of an image around its position, from averages over the cells."""
        plane = self.plane
        n = int(np.clip(math.ceil(2.0 * plane.cell / spatial.resolution), 2, 8))
        image = np.zeros(plane.shape)
        for dv in points(n):
            for du in points(n):
                image += spatial.evaluate(*plane.lonlat(du, dv))
        image *= (math.radians(plane.cell) / n) ** 2
        cell = np.sinc(plane.east * (plane.cell / (2.0 * math.pi)))
        cell = cell * np.sinc(plane.north * (plane.cell / (2.0 * math.pi)))
        along_x, along_y = plane.phase(0.0, 0.0)
        return np.asarray(plane.spectrum(image) * np.conj(along_y[:, None] * along_x) / cell)

    # --- prediction
    def _new_state(self, p: np.ndarray, slopes: bool) -> ExtendedState:
        plane = self.plane
        x, y, jacobian = self.position(p)
        flux, flux_slopes = self._unit_flux(p)
        local = self._nearby.at(x, y)
        weights = local.weights
        u, v, on_plane = plane.place(float(p[self._lon]), float(p[self._lat]))
        along_x, along_y = plane.phase(u, v)
        base = (self._inside * along_y[:, None]) * along_x
        values = p[self._shape]
        turn = 0.0
        if self._phi is not None:
            angle, turn = plane.turn(float(p[self._lon]))
            values[self._phi] += angle
        shape_slopes: list[np.ndarray] = []
        if self._template is not None:
            shape: np.ndarray = self._template
        else:
            shape, shape_slopes = self.spatial.transform(values, self._wave, slopes)
        spread = np.einsum("tr,tw->trw", local.edisp[0], weights[0])
        strength = flux[:, None] * self._mixing
        unit = np.einsum("tk,trw->rkw", strength, spread)
        unit_slopes = np.empty((0, *unit.shape))
        if slopes:
            moved = np.einsum("ptr,tw->ptrw", local.edisp[1:], weights[0])
            moved += np.einsum("tr,ptw->ptrw", local.edisp[0], weights[1:])
            unit_slopes = np.einsum("tk,ptrw->prkw", strength, moved)
        return ExtendedState(
            self,
            plane,
            0.0,
            base,
            shape,
            values,
            shape_slopes,
            unit,
            unit_slopes,
            spread,
            flux_slopes,
            jacobian,
            on_plane,
            turn,
            slopes,
        )

    def columns(self, state: ExtendedState) -> dict[int, np.ndarray]:  # type: ignore[override]
        """Derivatives of the counts in the rectangle by each parameter, shape (R, ny, nx).

        At a response that does not vary with position: for the Fisher information. ``state`` has
        slopes.
        """
        amplitude = state.amplitude
        by_u, by_v = (amplitude * state.counts_of(s) for s in state.moved())
        by_shape = {
            k: amplitude * state.counts_of(state.shape_slopes[k] * state.base)
            for k in (self._varied if state.shape_slopes else ())
        }
        found = {self.linear: state.template()}
        for place, k in ((self._lon, 0), (self._lat, 1)):
            found[place] = by_u * state.on_plane[0, k] + by_v * state.on_plane[1, k]
        found |= {self._shape[k]: column for k, column in by_shape.items()}
        if self._phi in by_shape:
            found[self._lon] = found[self._lon] + by_shape[self._phi] * state.turn
        if self._shape_free:
            for i, place in enumerate(self._spectrum):
                if i != self._linear_at:
                    rate = state.flux_slopes[i][:, None] * self._mixing
                    unit = np.einsum("tk,trw->rkw", rate, state.spread)
                    found[place] = amplitude * state.counts_with(unit)
        return found

    def add_gradient(  # type: ignore[override]
        self, state: ExtendedState, slope: np.ndarray, gradient: np.ndarray
    ) -> None:
        """Add to ``gradient`` what follows from the statistic's derivative by each pixel."""
        plane, amplitude = state.plane, state.amplitude
        weight = plane.column_weight / (plane.shape[0] * plane.shape[1])
        there = plane.spectrum(plane.to_cells(slope)) * plane.window
        by_unit = np.stack(
            [
                [
                    self._by_width((t.real * e.real + t.imag * e.imag) * weight)
                    for e in state.exposed
                ]
                for t in there
            ]
        )
        gradient[self.linear] += float(np.vdot(by_unit, state.unit))
        back = plane.image((state.transfer * there[:, None]).sum(axis=0))
        back = plane.spectrum((self.exposure * back).sum(axis=0))
        share = np.conj(back) * state.base * weight
        moving = (share * state.shape).imag
        by_uv = np.array([plane.along_east(moving), plane.along_north(moving)])
        by_lonlat = by_uv @ state.on_plane
        by_lonlat += (state.unit_slopes.reshape(2, -1) @ by_unit.ravel()) @ state.jacobian
        if state.shape_slopes:
            real = share.real.copy()
            # Not through BLAS, whose threads cost more than they give here.
            by_shape = {
                k: float(np.einsum("yx,yx->", real, state.shape_slopes[k])) for k in self._varied
            }
            for k, value in by_shape.items():
                gradient[self._shape[k]] += amplitude * value
            if self._phi in by_shape:
                by_lonlat[0] += by_shape[self._phi] * state.turn
        gradient[self._lon] += amplitude * by_lonlat[0]
        gradient[self._lat] += amplitude * by_lonlat[1]
        if self._shape_free:
            by_flux = np.einsum("tk,rkw,trw->t", self._mixing, by_unit, state.spread)
            for i, place in enumerate(self._spectrum):
                if i != self._linear_at:
                    gradient[place] += amplitude * float(state.flux_slopes[i] @ by_flux)

    def psf_width(self, p: np.ndarray) -> float:
        """Effective width (deg) of the PSF at the source."""
        used, _, mixture = self._mixture(p)
        return _mean_width(mixture, self._response.widths[used])

    # --- the PSF along the wave number
    def transfer(self, unit: np.ndarray) -> np.ndarray:
        """Mixtures (R, k, W) as factors of each wave vector."""
        along = unit @ self._blur
        count, half = self._wave.length.shape[0], len(self._node)
        found = np.empty((*along.shape[:-1], *self._wave.length.shape))
        north = found[..., :half, :]
        np.multiply(np.diff(along).take(self._node, axis=-1), self._between, out=north)
        north += along.take(self._node, axis=-1)
        found[..., half:, :] = found[..., count - half : 0 : -1, :]
        return found

    def _by_width(self, by_transfer: np.ndarray) -> np.ndarray:
        """The transpose of `transfer` for one mixture."""
        count, half = len(by_transfer), len(self._node)
        both = by_transfer[:half].copy()
        both[count - half : 0 : -1] += by_transfer[half:]
        node, upper = self._node.ravel(), (both * self._between).ravel()
        found = np.bincount(node, both.ravel() - upper, _RADIAL)
        found[1:] += np.bincount(node, upper, _RADIAL)[:-1]
        return np.asarray(self._blur @ found)


@dataclass
class ExtendedState:
    """An extended source at given parameters, at amplitude 1.

    ``base`` and ``shape`` multiply to the spectrum of the source on the cells; ``unit`` (R, k, W)
    are counts by band, exposure image and width, ``unit_slopes`` their derivatives by pixel x, y.
    """

    source: ExtendedSource
    plane: SkyPlane
    amplitude: float
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
        return self.source.transfer(self.unit)

    @cached_property
    def exposed(self) -> np.ndarray:
        """Spectra of the source times each exposure image, shape (k, north, half east)."""
        return self._exposed(self.shape * self.base)

    def _exposed(self, spectrum: np.ndarray) -> np.ndarray:
        return self.plane.spectrum(self.source.exposure * self.plane.image(spectrum))

    def _to_pixels(self, exposed: np.ndarray, transfer: np.ndarray) -> np.ndarray:
        blurred = (transfer * exposed).sum(axis=1) * self.plane.window
        return self.plane.to_pixels(self.plane.image(blurred))

    @cached_property
    def _template(self) -> np.ndarray:
        return self._to_pixels(self.exposed, self.transfer)

    def template(self) -> np.ndarray:
        """Counts in the rectangle at amplitude 1, shape (R, ny, nx)."""
        return self._template

    def counts(self) -> np.ndarray:
        """Counts in the rectangle."""
        return self._template * self.amplitude

    def counts_of(self, spectrum: np.ndarray) -> np.ndarray:
        """Counts at amplitude 1 of another spectrum on the cells."""
        return self._to_pixels(self._exposed(spectrum), self.transfer)

    def counts_with(self, unit: np.ndarray) -> np.ndarray:
        """Counts of the source with other mixtures (R, k, W)."""
        return self._to_pixels(self.exposed, self.source.transfer(unit))

    def moved(self) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of the spectrum by the position east and north."""
        spectrum = -1j * (self.shape * self.base)
        return spectrum * self.plane.east, spectrum * self.plane.north


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
        self._mixing, images = response.exposure_images
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

    def lay_out(self, p: np.ndarray) -> None:
        """The rectangle is the map."""

    def psf_width(self, p: np.ndarray) -> float:
        """No width: what the PSF does to it cannot be seen."""
        return float(np.median(self._response.widths))

    def _new_state(self, p: np.ndarray, slopes: bool) -> FlatState:
        return FlatState(self, 0.0, float(p[self._value]), *self._unit_flux(p))

    def image(self, flux: np.ndarray) -> np.ndarray:
        """Counts (R, y, x) at brightness 1 of a flux (T,)."""
        return np.tensordot(np.tensordot(flux, self._turn_over, axes=1), self._images, axes=1)

    def columns(self, state: FlatState) -> dict[int, np.ndarray]:  # type: ignore[override]
        """Derivatives of the counts by each parameter, shape (R, ny, nx)."""
        found = {
            self.linear: state.template(),
            self._value: state.amplitude * self.image(state.flux),
        }
        if self._shape_free:
            for i, place in enumerate(self._spectrum):
                if i != self._linear_at:
                    scale = state.amplitude * state.value
                    found[place] = scale * self.image(state.flux_slopes[i])
        return found

    def add_gradient(  # type: ignore[override]
        self, state: FlatState, slope: np.ndarray, gradient: np.ndarray
    ) -> None:
        """Add to ``gradient`` what follows from the statistic's derivative by each pixel."""
        by_images = np.tensordot(slope, self._images, axes=([1, 2], [1, 2]))
        by_flux = np.einsum("trk,rk->t", self._turn_over, by_images)
        gradient[self.linear] += state.value * float(state.flux @ by_flux)
        gradient[self._value] += state.amplitude * float(state.flux @ by_flux)
        for i, place in enumerate(self._spectrum):
            if i != self._linear_at:
                scale = state.amplitude * state.value
                gradient[place] += scale * float(state.flux_slopes[i] @ by_flux)


@dataclass
class FlatState:
    """Flat emission at given parameters; ``flux`` (T,) is that at amplitude 1."""

    source: FlatSource
    amplitude: float
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


def _mean_width(mixture: np.ndarray, widths: np.ndarray) -> float:
    """Root mean square of the widths (deg) of a mixture."""
    total = float(mixture.sum())
    variance = float(mixture @ widths**2) / total if total > 0 else 0.0
    return math.sqrt(variance) if variance > 0 else float(widths[0])


def between(at: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixel of ``size`` before each position, and how far on to the next one that is."""
    at = np.clip(np.nan_to_num(at, nan=-1.0), 0.0, size - 1.0)
    before = at.astype(np.int32)
    return before, at - before


def bilinear(images: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Values of images (k, ny, nx) between pixel centres, shape (k, ...).

    Beyond the outer ones those next to them.
    """
    ny, nx = images.shape[-2:]
    (left, x), (low, y) = between(x, nx), between(y, ny)
    right = np.minimum(left + 1, nx - 1)
    low, high = low * nx, np.minimum(low + 1, ny - 1) * nx
    corners = [
        (low + left, (1.0 - x) * (1.0 - y)),
        (low + right, x * (1.0 - y)),
        (high + left, (1.0 - x) * y),
        (high + right, x * y),
    ]
    found = np.empty((len(images), *x.shape))
    for k, image in enumerate(images):
        # `take` of one plane at a time: indexing the stack takes five times as long.
        found[k] = sum(image.ravel().take(place) * weight for place, weight in corners)
    return found
