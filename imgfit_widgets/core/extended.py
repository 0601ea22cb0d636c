"""Extended sources of any shape in one dataset.

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

import numpy as np
from scipy import fft

from .derivatives import Derivatives
from .errors import DataError
from .extended_state import ExtendedState
from .maps import unit_vectors
from .models import GaussianSpatialModel, SkyModel, TemplateSpatialModel
from .models.spatial import Wave, circle
from .pixels import between, bilinear, few_exposures, longer_waves, within
from .plane import SkyPlane, TangentPoint, points
from .products import product
from .response import DatasetLike, Response
from .source import EDGE, Source, mean_width, tail_reach

__all__ = ["ExtendedSource"]

_MARGIN_DEG = 0.06
"""How far a source may move at least before its plane follows."""
_NEAR = 0.5
"""Part of how far it may move or grow within which a new plane would be no better."""
_SAME_CELLS = 1e-3
"""And part of its fineness, where that sets the cells."""
_ROUGH = 100.0
"""How much more than the following is good enough for a rough plane."""
_ALIAS = 1e-5
"""Part of a point's spectrum that may lie beyond what the cells can represent."""
_ROUGH_ALIAS = 1e-2
_MAX_CELL_DEG = 0.1
"""Cells are no larger, because they sample the exposure too."""
_MAX_CELLS = 1024
_BEND = 0.015
"""A bend at the border of the map (`Response.border_bend`) that matters: by 0.1 % of the peak."""
_ACROSS_EDGE = 0.25
"""How densely the exposure is sampled where it has a step, in pixels of the exposure."""
_SMALL, _FINEST = 0.1, 0.1
"""And the cells there, in parts of the source's reach, but no finer than such a part of a pixel.

The counts of a small source are what the product with the exposure has on the whole, in which their
finest waves meet.
"""
_SHRUNK = 0.6
"""Part of its reach to which a source may shrink in such cells."""
_ACROSS_PIXEL = 0.05
"""How far, in these pixels, its rows and columns may be from straight ones of the cells."""
_BRIGHT = 0.7
"""Part of a Gaussian's reach (3 sigma) beyond which it is too faint for places to matter."""
_EXPOSURE = 2e-4
"""To what part of the exposure its variation over the source is followed at each true energy."""
_STRAIGHT = 5e-3
"""To what part of its blurred size pixels must be where straight rows and columns have them."""
_BENT = 0.07
"""And to what part of the PSF's width if their distance from these is followed to first order."""
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
        self._own_reach, self._reach_range = 0.0, (0.0, 0.0)
        self._own_fineness: float | None = None  # where the cells follow it
        self._parts = 1  # of a cell's side, over which the exposure is averaged
        self._smallest: float | None = None
        self._laid_out: tuple[float, ...] = ()
        self._wave = Wave.of(np.zeros(0), np.zeros(0))
        self._inside = self._blur = self._between = np.empty(0)
        self._node = np.empty(0, dtype=np.int32)
        self._mixing = self.exposure = np.empty(0)
        self._template: np.ndarray | None = None

    @property
    def is_point(self) -> bool:
        return False

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

    def _is_near(self, p: np.ndarray) -> bool:
        """Whether the plane is nearly the one that would be laid out here."""
        if self._tangent is None or not self.stays(p):
            return False
        u, v, _ = self._tangent.place(float(p[self._lon]), float(p[self._lat]))
        reach = self.spatial.reach(p[self._shape])
        near = bool(math.hypot(u, v) <= _NEAR * self._margin)
        low, high = self._reach_range
        near &= bool(abs(reach - self._own_reach) <= _NEAR * (high - reach))
        near &= bool(reach - low >= _NEAR * (self._own_reach - low))
        if self._own_fineness is not None:
            change = self._fineness(p[self._shape]) - self._own_fineness
            # A ring without width shows between which cells it lies.
            near &= bool(abs(change) < _SAME_CELLS * self._own_fineness)
        return near

    def lay_out(self, p: np.ndarray) -> bool:
        """Put the plane and the rectangle around the source, unless they are nearly there."""
        # All but the amplitude, which changes nothing here.
        spectrum = [i for i in self._spectrum if i != self.linear]
        here = (float(self.rough), float(self.bin), *p[spectrum])
        if here == self._laid_out and self._is_near(p):
            return False
        self._laid_out = here
        lon, lat = float(p[self._lon]), float(p[self._lat])
        used, share, mixture = self.mixture(p)
        self._use(used)
        self._key = None
        widths = self._response.widths[used]
        psf = tail_reach(mixture, widths)
        values = p[self._shape]
        own = self.spatial.reach(values)
        grown = 1.2 * own + 0.3 * float(widths.min())
        self._margin = max(_MARGIN_DEG, 0.1 * (own + psf))
        self._own_reach = own
        self._reach_range = 0.4 * own if own > psf else 0.0, grown
        reach = min(grown + psf + self._margin, 170.0)
        self.box = self._box_around(lon, lat, reach)
        self._tangent = TangentPoint(lon, lat)
        if not self._has_pixels():
            self.box = (0, 0, 0, 0)
            self._plane = None
            return True
        far = self._farthest(lon, lat, reach)
        half = max(far, 0.5 * (grown + far + psf) + self._margin)
        own_box = self._box_around(lon, lat, grown + self._margin)
        step = 0.0 if self.rough else self._response.exposure_step(own_box, _MAX_CELL_DEG)
        cell, blurred, stepped = self._cell_size(mixture, values, step)
        response = self._response
        pixel = response.exposure_pixel
        is_bent = not self.rough and response.exposure_step(own_box, cell) > EDGE
        if is_bent:
            # A step under the source has structure of its own, which only the PSF smooths.
            finest = _SMALL * own, _FINEST * pixel
            if finest[1] < finest[0] < min(cell, stepped):
                self._reach_range = _SHRUNK * own, grown
            cell = max(min(cell, stepped, max(finest)), 2.0 * half / _MAX_CELLS)
            blurred = stepped
        elif not self.rough and response.same_pixels:
            # Large cells do not show where the exposure begins to go on beyond the map.
            is_bent = response.border_bend(own_box, cell) > _BEND
        cell = max(cell, 2.0 * half / _MAX_CELLS)
        across = math.ceil(cell / (_ACROSS_EDGE * pixel))
        self._parts = int(np.clip(across, 4, 16)) if is_bent else 1
        self._own_fineness = self._fineness(values) if cell > blurred else None
        width = mean_width(mixture, widths)
        # The edges of other shapes are as sharp as the PSF, and as bright as their centres.
        is_gaussian = isinstance(self.spatial, GaussianSpatialModel)
        smooth, bright = (self._fineness(values), _BRIGHT) if is_gaussian else (0.0, 1.0)
        seen = bright * own + 2.0 * width
        straight = min(_STRAIGHT * math.hypot(width, smooth), _SAME_AREA * seen)
        straight *= _ROUGH if self.rough else 1.0
        bent = _BENT * width  # a step of the exposure shows where the PSF puts it
        self._plane = plane = SkyPlane(
            self.geom,
            self.model.frame,
            (lon, lat),
            cell,
            (half, half),
            self.box,
            (seen, straight, bent),
            self.bin,
        )
        self._wave = Wave.of(plane.east, plane.north)
        self._inside = plane.representable()
        self._set_exposure(share, grown + self._margin, bright)
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
        return True

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

    def _cell_size(
        self, mixture: np.ndarray, values: np.ndarray, step: float
    ) -> tuple[float, float, float]:
        """The largest cells (deg) that hold what the PSF lets through.

        Of the shape; of a point; of the shape times a step of the exposure of some height, which a
        Gaussian shows less of than a point. The first are larger for shapes without much
        structure; then they hold until these are finer by a quarter.
        """
        widths = self._response.widths[self._used]
        weight = np.abs(mixture) / max(float(np.abs(mixture).sum()), 1e-300)
        cells = np.geomspace(0.3 * widths.min(), _MAX_CELL_DEG, 60)
        passed = np.exp(-0.5 * (math.pi * widths / cells[:, None]) ** 2) @ weight
        alias = _ROUGH_ALIAS if self.rough else _ALIAS
        enough = int(np.searchsorted(passed, alias))
        blurred = stepped = float(cells[max(enough - 1, 0)])
        if isinstance(self.spatial, GaussianSpatialModel):
            # Along its steepest line, far above its own wave numbers.
            size = math.sqrt(2.0 * math.pi) * self._fineness(values)
            sharp = passed * np.minimum(step * cells / (math.pi * max(size, 1e-6)), 1.0)
            stepped = float(cells[max(int(np.searchsorted(sharp, alias)) - 1, 0)])
        self._smallest = None
        if isinstance(self.spatial, TemplateSpatialModel):
            return blurred, blurred, stepped
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
        held = int(np.searchsorted(passed, alias))
        if held > enough:
            self._smallest = 0.75 * self._fineness(values)
        return float(cells[max(held - 1, 0)]), blurred, stepped

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
        return self._of_bins(int(y0), int(y1), int(x0), int(x1))

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

    def _set_exposure(self, share: np.ndarray, reach: float, bright: float) -> None:
        """The exposure on the cells as few images times a mixing by true energy.

        ``reach`` is how far (deg) from the plane's centre the source comes, ``bright`` the part of
        it where places matter.
        """
        plane, cube = self.plane, self._response.exposure
        geom, axes = self._exposure_geom, None
        # Where the source does not come, the slopes next to there go on.
        rows, columns = part = plane.within(reach)
        if self._parts > 1:
            axes = plane.axes(geom, self._parts, bright * reach, _ACROSS_PIXEL)
        if axes:
            x, y = axes[0][:, columns], axes[1][:, rows]
        else:
            x, y = geom.lonlat_to_pix(*geom.from_frame(*plane.lonlat(part=part), self.model.frame))
        span = np.eye(2) if axes else _pixels_per_cell(x, y)
        # Only the pixels that the cells lie on.
        anywhere = x, y
        (x, pixels_x), (y, pixels_y) = (
            within(at, size) for at, size in zip(anywhere, cube.shape[:0:-1], strict=True)
        )
        cube = cube[:, pixels_y, pixels_x]
        mixing, images = few_exposures(cube, share, _EXPOSURE * (_ROUGH if self.rough else 1.0))
        self._mixing = 1e4 * mixing  # m2 s to cm2 s
        if axes:
            along_x, along_y = (
                _low_waves_along(at, size)
                for at, size in zip((x, y), images.shape[:0:-1], strict=True)
            )
            single = np.ascontiguousarray(images, dtype=np.float32)
            exposure = product(product(along_y, single), along_x.T)
        elif self._parts > 1:
            first = pixels_x.start, pixels_y.start
            exposure = longer_waves(images, anywhere[0] - first[0], anywhere[1] - first[1], span)
        else:
            exposure = bilinear(images, x, y)
        self.exposure = plane.padded(exposure.astype(np.float32, copy=False), part)

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
        spectrum, flux, flux_slopes = self._unit_flux(p)
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
            spectrum,
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
        """Derivatives of the counts in the rectangle by each free parameter, shape (R, ny, nx).

        ``state`` has slopes.
        """
        free, plane = self._free, state.plane
        # By spectra on the cells, and by mixtures: in one go through what all have to pass.
        spectra: dict[int, np.ndarray] = {}
        units: dict[int, np.ndarray] = {}
        for k in self._varied if state.shape_slopes else ():
            spectra[self._shape[k]] = state.shape_slopes[k]
        if free & {self._lon, self._lat}:
            drift = np.tensordot(state.jacobian.T, state.unit_slopes, axes=1)
            for k, place in enumerate((self._lon, self._lat)):
                if place in free:
                    by_u, by_v = state.on_plane[:, k]
                    spectra[place] = state.shape * (-1j * (by_u * plane.east + by_v * plane.north))
                    units[place] = drift[k]
            if self._phi is not None and self._shape[self._phi] in spectra and self._lon in free:
                spectra[self._lon] += state.turn * spectra[self._shape[self._phi]]
        for i in self._free_flux():
            units[self._spectrum[i]] = self._unit_of(state, state.flux_slopes[i])
        found = {}
        if places := list(dict.fromkeys([*spectra, *units])):
            images = state.amplitude * state.images(places, spectra, units)
            found = dict(zip(places, images, strict=True))
        if self.linear in free:
            found[self.linear] = state.template()
        return found

    def _unit_of(self, state: ExtendedState, flux: np.ndarray) -> np.ndarray:
        """`ExtendedState.unit` of another flux (T,)."""
        return np.asarray(np.einsum("tk,trw->rkw", flux[:, None] * self._mixing, state.spread))

    def add_gradient(  # type: ignore[override]
        self, state: ExtendedState, slope: np.ndarray, gradient: np.ndarray
    ) -> None:
        """Add to ``gradient`` what follows from the statistic's derivative by each pixel."""
        self._add_gradient(state, *self._pulled_back(state, slope), gradient)

    def _pulled_back(
        self, state: ExtendedState, slope: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """From the derivative by each pixel's counts to those by what they are made of.

        By the cells' spectra, to be weighted; by the mixtures (R, k, W); by the spectrum of the
        shape, whose real part times real changes of it is what they are worth. At amplitude 1.
        """
        plane = state.plane
        weight = plane.column_weight / (plane.shape[0] * plane.shape[1])
        there = plane.spectrum(plane.to_cells(slope)) * plane.window
        by_unit = self._by_unit(state.exposed, there)
        back = plane.image((state.transfer * there[:, None]).sum(axis=0))
        back = plane.spectrum((self.exposure * back).sum(axis=0))
        return there, by_unit, np.conj(back) * state.base * weight

    def _by_unit(self, exposed: np.ndarray, there: np.ndarray) -> np.ndarray:
        """What spectra (k, ...) behind each mixture are worth to slopes (R, ...): (R, k, W)."""
        plane = self.plane
        weight = plane.column_weight / (plane.shape[0] * plane.shape[1])
        return np.stack(
            [
                [self._by_width((t.real * e.real + t.imag * e.imag) * weight) for e in exposed]
                for t in there
            ]
        )

    def _add_gradient(
        self,
        state: ExtendedState,
        there: np.ndarray,
        by_unit: np.ndarray,
        share: np.ndarray,
        gradient: np.ndarray,
    ) -> None:
        plane, amplitude = state.plane, state.amplitude
        gradient[self.linear] += float(np.vdot(by_unit, state.unit))
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

    def add_curvature(  # type: ignore[override]
        self, state: ExtendedState, slope: np.ndarray, found: Derivatives
    ) -> None:
        """`add_gradient`, and what the statistic's slope makes of the counts' second derivatives.

        Not of those of the PSF and the energy dispersion.
        """
        plane, amplitude = state.plane, state.amplitude
        there, by_unit, share = self._pulled_back(state, slope)
        own = np.zeros_like(found.gradient)
        self._add_gradient(state, there, by_unit, share, own)
        found.gradient += own
        varied = self._varied if state.shape_slopes else []
        chosen = self._free_flux()
        places = [self._lon, self._lat, *(self._shape[k] for k in varied)]
        if amplitude:
            for place in places + [self._spectrum[i] for i in chosen]:
                found.bend(self.linear, place, own[place] / amplitude)
        # By u, v and the shape as it lies on the plane.
        count = 2 + len(varied)
        second = np.zeros((count, count))
        real, imaginary = np.ascontiguousarray(share.real), np.ascontiguousarray(share.imag)
        still = (share * state.shape).real
        second[0, 0] = -float(still.sum(axis=0) @ plane.east[0] ** 2)
        second[1, 1] = -float((still * plane.north**2).sum())
        second[0, 1] = second[1, 0] = -float((still * plane.east * plane.north).sum())
        for a, k in enumerate(varied, start=2):
            moving = imaginary * state.shape_slopes[k]
            second[:2, a] = second[a, :2] = plane.along_east(moving), plane.along_north(moving)
        if varied:
            second[2:, 2:] = self.spatial.curvature(state.values, self._wave, real, varied)
        turn = np.eye(count)
        turn[:2, :2] = state.on_plane
        if self._phi in varied:
            turn[2 + varied.index(self._phi), 0] = state.turn
        found.add(places, 0.0, amplitude * turn.T @ second @ turn)
        if not chosen:
            return
        ways = [*state.moved(), *(state.shape_slopes[k] * state.base for k in varied)]
        worth = np.stack([self._by_unit(state.exposed_of(way), there).ravel() for way in ways])
        for i in chosen:
            across = turn.T @ (worth @ self._unit_of(state, state.flux_slopes[i]).ravel())
            for place, value in zip(places, across, strict=True):
                found.bend(place, self._spectrum[i], amplitude * float(value))
        for (i, k), flux in self._flux_curvatures(state.spectrum).items():
            bend = float(np.vdot(by_unit, self._unit_of(state, flux)))
            found.bend(self._spectrum[i], self._spectrum[k], amplitude * bend)

    def psf_width(self, p: np.ndarray) -> float:
        """Effective width (deg) of the PSF at the source."""
        used, _, mixture = self.mixture(p)
        return mean_width(mixture, self._response.widths[used])

    def blur(self, p: np.ndarray) -> float:
        """As of any source; edges of other shapes than a Gaussian are as sharp as the PSF."""
        smooth = isinstance(self.spatial, GaussianSpatialModel)
        return math.hypot(self.psf_width(p), self._fineness(p[self._shape]) if smooth else 0.0)

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


def _pixels_per_cell(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pixels along x and y (rows) from a cell to that next to it along east and north (columns).

    Of cells at pixels x, y around the middle: most of them, as the seam of a map may be among them.
    """
    some = tuple(slice(max(n // 2 - 4, 0), n // 2 + 5) for n in x.shape)
    steps = np.array([[np.diff(q[some], axis=axis).ravel() for axis in (1, 0)] for q in (x, y)])
    known = steps[..., np.isfinite(steps).all(axis=(0, 1))]
    return np.asarray(np.median(known, axis=-1)) if known.size else np.eye(2)


def _low_waves_along(at: np.ndarray, size: int) -> np.ndarray:
    """What cells have of the waves longer than two of them in pixels, along one axis: (n, size).

    Values at the cells' centres would move a step by up to half a cell. ``at`` (parts, n) are
    positions, in pixels, of points spread evenly over each cell.
    """
    parts, count = at.shape
    left, beyond = between(at.T.ravel(), size)
    sampled = np.zeros((at.size, size), np.float32)
    place = np.arange(at.size)
    sampled[place, left] = 1.0 - beyond
    sampled[place, np.minimum(left + 1, size - 1)] += beyond
    # Continued by their mirror image, in which there is no step.
    waves = fft.dct(sampled, axis=0, norm="ortho")[:count] / math.sqrt(parts)
    return np.asarray(fft.idct(waves, axis=0, norm="ortho"))
