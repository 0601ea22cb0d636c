"""One observation in its part of the map: counts, background, mask and responses."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np
from astropy.wcs.utils import proj_plane_pixel_scales
from numpy.typing import NDArray

from ..data import GTI, Observation, RunInfo
from ..errors import DataError
from ..irf.aeff import EffectiveAreaTable2D
from ..irf.axis import FloatArray
from ..maps import WcsGeom, nearest_pixel, positions, rotation, unit_vectors
from ..progress import Progress, silent
from .background import Matched
from .reduction import NEEDS, Reduction
from .responses import OffsetResponses
from .safe_mask import bins_within

log = logging.getLogger(__name__)

Window = tuple[slice, slice]
BoolArray = NDArray[np.bool_]

# Pixels that are computed between two looks at whether to stop.
_PIXELS = 65536


@dataclass(frozen=True, eq=False)
class Run:
    """What one observation adds, in a window of the map.

    A map that is not selected, or for which the run has no response, is None.
    """

    info: RunInfo
    window: Window
    counts: FloatArray  # (R, y, x)
    background: FloatArray | None  # (R, y, x), before its norm
    mask: BoolArray  # (R, y, x)
    aeff: EffectiveAreaTable2D | None
    offset: FloatArray  # (y, x), infinite where the run is not used
    norm: float
    norm_error: float
    nodes: Window  # of the coarse geometry, (v, u)
    seen: BoolArray  # (v, u), where the run enters the PSF map
    bands: BoolArray  # (R, v, u), what of the energy dispersion is inside the mask
    node_offset: FloatArray  # (v, u)
    responses: OffsetResponses
    gti: GTI
    problem: str  # why its mask is empty, if no bin is trusted or its background cannot be scaled

    @property
    def maps(self) -> list[str]:
        """The maps that the run has."""
        parts = {
            "exposure": self.aeff,
            "background": self.background,
            "psf": self.responses.psf,
            "edisp": self.responses.photons,
        }
        return [name for name, value in parts.items() if value is not None]


def reduce_run(
    observation: Observation, reduction: Reduction, masked: bool, progress: Progress = silent
) -> Run | None:
    """Reduce one run.

    Parameters
    ----------
    observation : `Observation`
    reduction : `Reduction`
    masked : bool
        Only where the run enters a stack, or all of its window with the mask beside it.
    progress : callable
        Called often enough for a cancel within 0.2 s.

    Returns
    -------
    Run or None
        None if the run lies off the map.
    """
    log.info("Processing observation %d", observation.obs_id)
    label = f"Run {observation.obs_id}"
    reduction.geom.survey(lambda done, what: progress(0.05 * done, f"{label}: {what}"))
    progress(0.05, f"{label}: reading events")
    ra, dec = observation.pointing
    window = find_window(reduction, ra, dec)
    if window is None:
        return None
    rows, columns = window
    axis, axis_true = reduction.energy_axis, reduction.energy_axis_true
    pointing = unit_vectors(ra, dec)
    has = {name: _has(observation, reduction, name) for name in NEEDS}

    vectors = reduction.vectors[:, rows, columns].reshape(3, -1)
    offset = _offset(vectors, pointing)
    with np.errstate(invalid="ignore"):
        safe = np.isfinite(offset) & (offset < reduction.safe_mask.offset_limit)
    # A ring looks at all of the window; otherwise what is masked need not be computed.
    whole = not masked or (reduction.background is not None and not reduction.background.scales_run)
    used = np.isfinite(offset) if whole else safe
    shape = (rows.stop - rows.start, columns.stop - columns.start)

    progress(0.1, f"{label}: counting events")
    if "counts" in reduction.selection:
        limit = np.inf if whole else reduction.safe_mask.offset_limit
        counts = _count(observation, reduction, window, pointing, limit)
    else:
        counts = np.zeros((axis.nbin, *shape))

    background: FloatArray | None = None
    mask: BoolArray = np.broadcast_to(safe, (axis.nbin, offset.size)).reshape(axis.nbin, *shape)
    if has["background"]:
        progress(0.15, f"{label}: background")
        solid_angle = reduction.geom.solid_angle()[rows, columns].ravel()[used]
        expected = np.zeros((axis.nbin, offset.size))
        rate = _background(observation, reduction, vectors[:, used], progress, label)
        expected[:, used] = rate * (observation.ontime * solid_angle)
        background = expected.reshape(axis.nbin, *shape)
        # Where the table knows no background the run cannot be used (it is not 0 in truth).
        mask = mask & (background > 0.0)
    progress(0.5, f"{label}: safe mask")
    trusted, problem = _bands(observation, reduction, window, pointing, background)
    mask = mask & trusted[:, None, None]

    matched = Matched(np.zeros(0) if background is None else background)
    if background is not None and reduction.background is not None and not problem:
        keep = reduction.keep(
            rows, columns, lambda done, what: progress(0.5 + 0.05 * done, f"{label}: {what}")
        )
        matched = reduction.background.run(
            counts,
            background,
            mask,
            keep,
            _scales(reduction),
            lambda done, what: progress(0.55 + 0.1 * done, f"{label}: {what}"),
        )
        background = matched.background
        mask = mask & matched.mask
        problem = matched.problem
    if problem:
        log.warning("Observation %d: %s; the run is not used", observation.obs_id, problem)
        mask = np.zeros_like(mask)

    exposed = used & mask.any(axis=0).ravel() if masked else used
    exposed_offset = np.where(exposed, offset, np.inf).reshape(shape)

    livetime = observation.livetime
    nodes, at_nodes, seen, bands = _nodes(reduction, window, pointing, mask, trusted, masked)
    progress(0.7, f"{label}: PSF and energy dispersion")
    tables = {
        kind: getattr(observation, kind)
        for kind in ("aeff", "edisp", "psf")
        if (has[kind] if kind in has else observation.has(kind))
    }
    responses = reduction.responses.get(tables, axis, axis_true, at_nodes.ravel(), reduction.exact)
    scaled = reduction.background is not None and reduction.background.scales_run
    norm = float(matched.norm) if scaled and not problem else None
    return Run(
        info=RunInfo(observation.obs_id, observation.telescope, ra, dec, livetime, norm),
        window=window,
        counts=counts,
        background=background,
        mask=mask,
        aeff=observation.aeff if has["exposure"] else None,
        offset=exposed_offset,
        norm=float(matched.norm),
        norm_error=float(matched.norm_error),
        nodes=nodes,
        seen=seen,
        bands=bands,
        node_offset=at_nodes,
        responses=responses,
        gti=observation.gti,
        problem=problem,
    )


def _has(observation: Observation, reduction: Reduction, name: str) -> bool:
    """Whether a map is to be made and can be."""
    if name not in reduction.selection:
        return False
    if observation.has(NEEDS[name]):
        return True
    log.warning(
        "Observation %d has no %s, so its map of the %s is left out",
        observation.obs_id,
        NEEDS[name],
        name,
    )
    return False


def find_window(reduction: Reduction, ra: float, dec: float) -> Window | None:
    """Rows and columns within ``offset_max`` of a pointing (ICRS degrees); None if there are none.

    A box of that half width in pixels of the map's centre, as in Gammapy. Where pixels shrink
    towards a pole that box would cut the field of view, so "exact" widens it to hold all of it.
    """
    geom = reduction.geom
    x, y = geom.lonlat_to_pix(*geom.from_frame(ra, dec, "icrs"))
    window: Window | None = None
    if np.isfinite(x) and np.isfinite(y):
        window = _cutout(geom, float(x), float(y), reduction.offset_max)
    if reduction.exact:
        with np.errstate(invalid="ignore"):
            offset = _offset(reduction.vectors[:, ::4, ::4].reshape(3, -1), unit_vectors(ra, dec))
            near = (offset < reduction.offset_max).reshape(reduction.vectors[0, ::4, ::4].shape)
        if near.any():
            window = _widened(window, _bounding_box(near), geom.shape)
    return window


def _cutout(geom: WcsGeom, x: float, y: float, half_width: float) -> Window | None:
    spans = []
    for at, scale, length in zip((y, x), geom.pixel_scales[::-1], geom.shape, strict=True):
        size = max(round(2.0 * half_width / scale), 1)
        start = math.ceil(at - size / 2.0)
        spans.append(slice(max(start, 0), min(start + size, length)))
    rows, columns = spans
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return None
    return rows, columns


def _widened(window: Window | None, coarse: Window, shape: tuple[int, int]) -> Window:
    """A window that holds a box of every fourth pixel too, if that sticks out by more than 8."""
    if window is None:
        window = (slice(coarse[0].start * 4, 1), slice(coarse[1].start * 4, 1))
    spans = []
    for span, box, length in zip(window, coarse, shape, strict=True):
        start, stop = span.start, span.stop
        if box.start * 4 < start - 8:
            start = max(box.start * 4 - 4, 0)
        if box.stop * 4 - 3 > stop + 8:
            stop = min(box.stop * 4 + 4, length)
        spans.append(slice(start, max(stop, start + 1)))
    return spans[0], spans[1]


def _scales(reduction: Reduction) -> tuple[float, float]:
    """Size of a pixel along x and y in degrees; in Gammapy that of the header."""
    if reduction.exact:
        return reduction.geom.pixel_scales
    x, y = proj_plane_pixel_scales(reduction.geom.wcs)
    return float(x), float(y)


def _background(
    observation: Observation,
    reduction: Reduction,
    vectors: FloatArray,
    progress: Progress,
    label: str,
) -> FloatArray:
    """Background rate in each bin at positions (3, P), s-1 sr-1, shape (R, P)."""
    axis = reduction.energy_axis
    frames = observation.fov_rotations(reduction.exact)
    rate = np.zeros((axis.nbin, vectors.shape[1]))
    steps = [(f, s) for f in frames for s in range(0, max(vectors.shape[1], 1), _PIXELS)]
    for number, ((weight, matrix), start) in enumerate(steps):
        progress(0.2 + 0.3 * number / len(steps), f"{label}: background")
        part = slice(start, start + _PIXELS)
        x, y, z = matrix @ vectors[:, part]
        lon = np.degrees(np.arctan2(y, x))
        lat = np.degrees(np.arcsin(np.clip(z, -1.0, 1.0)))
        found = observation.bkg.integrate(axis, lon, lat, power_law_bins=not reduction.exact)
        rate[:, part] += weight * found
    return rate


def _bands(
    observation: Observation,
    reduction: Reduction,
    window: Window,
    pointing: FloatArray,
    background: FloatArray | None,
) -> tuple[BoolArray, str]:
    """Energy bins that the safe masks trust, shape (R,), and what to say if these are none."""
    safe = reduction.safe_mask
    missing = [kind for kind in safe.responses if not observation.has(kind)]
    if missing:
        raise DataError(
            f"observation {observation.obs_id}: has no {missing[0]}, which the safe mask "
            f"{', '.join(safe.methods)} needs"
        )
    if safe.position is not None:
        at = unit_vectors(*safe.position)
    else:
        rows, columns = window
        middle = (columns.start + columns.stop - 1) / 2.0, (rows.start + rows.stop - 1) / 2.0
        at = unit_vectors(
            *reduction.geom.to_frame(*reduction.geom.pix_to_lonlat(*middle), frame="icrs")
        )
    offset = float(_offset(at[:, None], pointing)[0])
    total = None if background is None else background.sum(axis=(1, 2))
    axis = reduction.energy_axis
    low, high = safe.energies(
        observation, axis, reduction.energy_axis_true, offset if np.isfinite(offset) else 0.0, total
    )
    found = bins_within(axis, low, high)
    if found.any():
        return found, ""
    methods = ", ".join(method for method in safe.methods if method != "offset-max")
    if not np.isfinite(low):
        return found, f"{methods} trusts no energy of it; change datasets.safe_mask"
    until = f"to {high:.3g} TeV" if np.isfinite(high) else "on"
    bins = f"{axis.nbin} bins" if axis.nbin > 1 else "1 bin"
    return found, (
        f"{methods} trusts it from {low:.3g} TeV {until}, where no whole bin of "
        f"datasets.geom.axes.energy lies ({bins} from {axis.bounds[0]:.3g} to "
        f"{axis.bounds[-1]:.3g} TeV); change that axis or datasets.safe_mask"
    )


def _nodes(
    reduction: Reduction,
    window: Window,
    pointing: FloatArray,
    mask: BoolArray,
    trusted: BoolArray,
    masked: bool,
) -> tuple[Window, FloatArray, BoolArray, BoolArray]:
    """Where on the coarse grid a run has responses.

    Returns
    -------
    nodes : (slice, slice)
    offsets : ndarray, shape (v, u)
        Of the nodes, degrees.
    seen : ndarray of bool, shape (v, u)
        Nodes at which the run enters the PSF map.
    bands : ndarray of bool, shape (R, v, u)
        Bins that enter the energy dispersion.
    """
    offset = _offset(reduction.vectors_irf.reshape(3, -1), pointing)
    offset = offset.reshape(reduction.geom_irf.shape)
    n_bands = len(mask)
    if not reduction.exact:
        geom = reduction.geom_irf
        x, y = geom.lonlat_to_pix(*positions(rotation("icrs", geom.frame) @ pointing))
        nodes = _cutout(geom, float(x), float(y), reduction.offset_max)
        nodes = nodes or (slice(0, 0), slice(0, 0))
        if not masked:
            every = np.ones((n_bands, *offset[nodes].shape), dtype=bool)
            return nodes, offset[nodes], every[0], every
        # In the coordinates of the window: nodes can lie between two pixels, and then rounding
        # decides which one is looked up.
        own = geom.crop(*nodes)
        v, u = np.mgrid[: own.shape[0], : own.shape[1]]
        lon, lat = own.wcs.wcs_pix2world(u.ravel(), v.ravel(), 0)
        px, py = reduction.geom.crop(*window).lonlat_to_pix(lon, lat)
        px, py = px.reshape(own.shape), py.reshape(own.shape)
        bands = _at_nodes(mask, px, py, linear=True)
        seen = _at_nodes(np.any(mask, axis=0, keepdims=True), px, py, linear=False)[0]
        return nodes, offset[nodes], seen, bands
    # Some nodes further than the events reach, so that nothing is interpolated with nothing.
    margin = 1.5 * reduction.binsz_irf
    steps = [margin / scale for scale in reduction.geom.pixel_scales]
    px, py = reduction.nodes_xy
    rows, columns = window
    with np.errstate(invalid="ignore"):
        near: BoolArray = (px > columns.start - steps[0]) & (px < columns.stop + steps[0])
        near &= (py > rows.start - steps[1]) & (py < rows.stop + steps[1])
        near &= np.isfinite(offset)
        if masked:
            limit = min(reduction.safe_mask.offset_limit, reduction.offset_max * np.sqrt(2.0))
            near &= offset < limit + margin
    nodes = _bounding_box(near)
    seen = near[nodes]
    if not masked:
        every = np.repeat(seen[None], n_bands, axis=0)
        return nodes, offset[nodes], seen, every
    some = mask.any(axis=(1, 2)) & trusted
    bands = some[:, None, None] & seen
    return nodes, offset[nodes], seen & np.any(some), bands


def _at_nodes(mask: BoolArray, x: FloatArray, y: FloatArray, linear: bool) -> BoolArray:
    """A mask (R, ny, nx) at pixel positions: of the nearest pixel, or any of its neighbours.

    The first is False beyond the mask; the second is continued there, as Gammapy does for the
    energy dispersion: what a bilinear interpolation of 0 and 1 gives is taken unless it is 0.
    """
    ny, nx = mask.shape[1:]
    if not linear:
        i, j = nearest_pixel(x), nearest_pixel(y)
        inside = (i >= 0) & (i < nx) & (j >= 0) & (j < ny)
        return np.asarray(mask[:, np.clip(j, 0, ny - 1), np.clip(i, 0, nx - 1)] & inside)
    i = np.clip(np.floor(x).astype(int), 0, max(nx - 2, 0))
    j = np.clip(np.floor(y).astype(int), 0, max(ny - 2, 0))
    next_i, next_j = np.minimum(i + 1, nx - 1), np.minimum(j + 1, ny - 1)
    values = mask.astype(float)
    lower = values[:, j, i] * (1 - (x - i)) + values[:, j, next_i] * (x - i)
    upper = values[:, next_j, i] * (1 - (x - i)) + values[:, next_j, next_i] * (x - i)
    return np.asarray(lower * (1 - (y - j)) + upper * (y - j) != 0.0)


def _bounding_box(inside: NDArray[np.bool_]) -> Window:
    """Rows and columns that hold all that is inside; empty if nothing is."""
    spans = []
    for axis in (1, 0):
        index = np.flatnonzero(inside.any(axis=axis))
        spans.append(slice(int(index[0]), int(index[-1]) + 1) if len(index) else slice(0, 0))
    return spans[0], spans[1]


def _offset(vectors: FloatArray, pointing: FloatArray) -> FloatArray:
    """Angular distance in degrees of unit vectors (3, N) from one (3,)."""
    half = 0.5 * np.sqrt(((vectors - pointing[:, None]) ** 2).sum(axis=0))
    return np.asarray(2.0 * np.degrees(np.arcsin(np.minimum(half, 1.0))))


def _count(
    observation: Observation,
    reduction: Reduction,
    window: Window,
    pointing: FloatArray,
    limit: float,
) -> FloatArray:
    """Events in the bins of a window, shape (R, y, x); beyond ``limit`` degrees they may lack."""
    geom, bounds = reduction.geom, reduction.energy_axis.bounds
    rows, columns = window
    events = observation.events
    near = np.flatnonzero((events.energy >= bounds[0]) & (events.energy < bounds[-1]))
    ra, dec, energy = events.ra[near], events.dec[near], events.energy[near]
    # Only events that can fall into the window need the full projection.
    reach = min(reduction.offset_max * np.sqrt(2.0), limit) + 2.0 * max(geom.pixel_scales)
    vectors = unit_vectors(ra, dec)
    near = np.flatnonzero(pointing @ vectors > np.cos(min(np.radians(reach), np.pi)))
    if geom.frame == "icrs":  # as they stand: turning would move events that lie on an edge
        lon, lat = ra[near].astype(float), dec[near].astype(float)
    else:
        lon, lat = positions(rotation("icrs", geom.frame) @ vectors[:, near])
    x, y = geom.lonlat_to_pix(lon, lat)
    column = nearest_pixel(x) - columns.start
    row = nearest_pixel(y) - rows.start
    n_rows, n_columns = rows.stop - rows.start, columns.stop - columns.start
    inside = (column >= 0) & (column < n_columns) & (row >= 0) & (row < n_rows)
    band = np.searchsorted(bounds, energy[near][inside], side="right") - 1
    flat = (band * n_rows + row[inside]) * n_columns + column[inside]
    n_bins = (len(bounds) - 1) * n_rows * n_columns
    return np.bincount(flat, minlength=n_bins).astype(float).reshape(-1, n_rows, n_columns)
