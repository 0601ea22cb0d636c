"""Reduction: observations and a geometry become map datasets.

`Reduction`
    What is asked for: geometry, energy axes, cuts, background method, accuracy.
`reduce_observations`
    Runs it over observations, stacked into one dataset or one dataset a run.

With ``accuracy="exact"`` the background follows every energy node of its table, and area, energy
dispersion and PSF are averaged over each true-energy bin; ``"gammapy"`` takes them as Gammapy 2.1
does (one power law between the edges of a bin, the bin's centre). Everything else is the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from astropy.nddata import NoOverlapError, overlap_slices
from numpy.typing import NDArray

from .data import GTI, Observation, RunInfo
from .dataset import Datasets, MapDataset
from .errors import DataError
from .irf.aeff import EffectiveAreaTable2D
from .irf.edisp import EDispKernelMap
from .irf.psf import PSF_WIDTHS, PSFMap
from .maps import MapAxis, WcsGeom, WcsNDMap, positions, rotation, unit_vectors
from .models import FoVBackgroundModel, Models
from .parallel import imap
from .progress import Progress, part, silent

log = logging.getLogger(__name__)

FloatArray = NDArray[np.float64]

Window = tuple[slice, slice]

ACCURACIES = ("exact", "gammapy")
# Energies per true-energy bin over which "exact" averages area and energy dispersion.
SUB_ENERGIES = 10


@dataclass(frozen=True, eq=False)
class Reduction:
    """Settings of a reduction.

    Parameters
    ----------
    geom : `WcsGeom`
        With the axis ``energy``.
    energy_axis_true : `MapAxis`
    binsz_irf : float
        Pixel size in degrees of the PSF and energy-dispersion maps.
    offset_max : float
        Half width in degrees of the part of the map that a run contributes to.
    safe_offset_max : float or None
        Events further than this from the pointing (degrees) are not used.
    fov_background : bool
        Scale each run's background to its counts.
    accuracy : {"exact", "gammapy"}
    """

    geom: WcsGeom
    energy_axis_true: MapAxis
    binsz_irf: float
    offset_max: float
    safe_offset_max: float | None = None
    fov_background: bool = True
    accuracy: str = "exact"

    def __post_init__(self) -> None:
        if self.accuracy not in ACCURACIES:
            raise DataError(
                f"accuracy: {self.accuracy!r} is not one of {', '.join(map(repr, ACCURACIES))}"
            )

    @property
    def exact(self) -> bool:
        return self.accuracy == "exact"

    @property
    def energy_axis(self) -> MapAxis:
        return self.geom.axes["energy"]

    @cached_property
    def geom_irf(self) -> WcsGeom:
        """Coarse image geometry of the responses."""
        return self.geom.to_image().to_binsz(self.binsz_irf)

    @property
    def vectors(self) -> FloatArray:
        """ICRS unit vectors of the pixel centres, shape (3, ny, nx); NaN beyond the projection."""
        return self.geom.icrs_vectors

    @property
    def vectors_irf(self) -> FloatArray:
        """The same for the coarse geometry."""
        return self.geom_irf.icrs_vectors


@dataclass(frozen=True, eq=False)
class _Run:
    """What one observation adds, in a window of the map."""

    info: RunInfo
    window: Window
    counts: FloatArray  # (R, y, x)
    background: FloatArray  # (R, y, x), before its norm
    mask: NDArray[np.bool_]  # (R, y, x)
    aeff: EffectiveAreaTable2D
    offset: FloatArray  # (y, x), infinite where the run is not used
    norm: float
    norm_error: float
    nodes: Window  # of the coarse geometry, (v, u)
    node_exposure: FloatArray  # (T, v, u)
    psf: FloatArray  # (T, v, u, W)
    edisp: FloatArray  # (T, R, v, u)
    gti: GTI


def reduce_observations(
    observations: Sequence[Observation],
    reduction: Reduction,
    stack: bool = True,
    name: str = "stacked",
    progress: Progress = silent,
    executor: Executor | None = None,
) -> Datasets:
    """Reduce observations to datasets.

    Parameters
    ----------
    observations : sequence of `Observation`
    reduction : `Reduction`
    stack : bool
        One dataset called ``name``, or one a run called ``obs-OBS_ID``.
    progress : callable
        ``progress(fraction, message)``; may raise `Cancelled`.
    executor : `~concurrent.futures.Executor` or None
        Where runs are reduced side by side (`parallel.open_executor`); None for here, one by
        one. The numbers do not depend on it: runs are always added in their order.

    Raises
    ------
    DataError
        If no run covers the map, or a file cannot be used.
    """
    if not observations:
        raise DataError("observations: none selected; nothing to reduce")
    stacked = _Stack(reduction) if stack else None
    single: list[MapDataset] = []
    skipped = []
    if executor is None:
        reduced = _one_by_one(observations, reduction, stack, progress)
    else:
        reduced = imap(partial(_reduce, reduction=reduction, masked=stack), observations, executor)
    for index, (observation, run) in enumerate(zip(observations, reduced, strict=True)):
        progress((index + 1) / len(observations), f"Run {observation.obs_id}: done")
        if run is None:
            log.warning(
                "Observation %d does not overlap with the map and adds nothing", observation.obs_id
            )
            skipped.append(observation.obs_id)
        elif stacked is not None:
            stacked.add(run)
        else:
            single.append(_single_dataset(run, reduction))
    if len(skipped) == len(observations):
        raise DataError(
            "datasets.geom.wcs.skydir: the map does not overlap with any of the observations "
            f"{', '.join(map(str, skipped))}; it has no exposure"
        )
    progress(1.0, "Reduction done")
    return Datasets(single if stacked is None else [stacked.dataset(name)])


def _one_by_one(
    observations: Sequence[Observation], reduction: Reduction, masked: bool, progress: Progress
) -> Iterator[_Run | None]:
    """Reduce runs here, with progress within each."""
    for index, observation in enumerate(observations):
        share = part(progress, index / len(observations), (index + 1) / len(observations))
        yield _reduce(observation, reduction, masked, share)


def _reduce(
    observation: Observation, reduction: Reduction, masked: bool, progress: Progress = silent
) -> _Run | None:
    """One run in its window of the map (not ``masked``: its own map); None if it lies off it."""
    log.info("Processing observation %d", observation.obs_id)
    progress(0.0, f"Run {observation.obs_id}: reading events")
    window = _window(reduction, *observation.pointing)
    if window is None:
        return None
    if masked:
        return _reduce_run(observation, reduction, window, window, progress)
    whole = (slice(0, window[0].stop - window[0].start), slice(0, window[1].stop - window[1].start))
    own = replace(reduction, geom=reduction.geom.crop(*window))
    return _reduce_run(observation, own, whole, window, progress, masked=False)


def _single_dataset(run: _Run, reduction: Reduction) -> MapDataset:
    """A run as a dataset of its own, on its window; its norm is left to a background model."""
    stack = _Stack(replace(reduction, geom=reduction.geom.crop(*run.window)))
    stack.add(run, masked=False)
    dataset = stack.dataset(f"obs-{run.info.obs_id}")
    if reduction.fov_background:
        model = FoVBackgroundModel(dataset_name=dataset.name)
        model.parameters["norm"].value = run.norm
        model.parameters["norm"].error = run.norm_error
        dataset.models = Models([model])
    return dataset


def _reduce_run(
    observation: Observation,
    reduction: Reduction,
    inner: Window,
    window: Window,
    progress: Progress,
    masked: bool = True,
) -> _Run:
    """One run's maps in the part ``inner`` of the reduction's map, which lies at ``window`` of the
    whole one; with ``masked`` only where they enter a stack.
    """
    label = f"Run {observation.obs_id}"
    ra, dec = observation.pointing
    rows, columns = inner
    axis, axis_true = reduction.energy_axis, reduction.energy_axis_true
    pointing = unit_vectors(ra, dec)

    vectors = reduction.vectors[:, rows, columns].reshape(3, -1)
    offset = _offset(vectors, pointing)
    with np.errstate(invalid="ignore"):
        limit = np.inf if reduction.safe_offset_max is None else reduction.safe_offset_max
        safe = np.isfinite(offset) & (offset < limit)
    used = safe if masked else np.isfinite(offset)
    shape = (rows.stop - rows.start, columns.stop - columns.start)

    counts = _count(observation, reduction, rows, columns, pointing)

    progress(0.3, f"{label}: background")
    lon, lat = _field_of_view(vectors[:, used], ra, dec)
    rate = observation.bkg.integrate(axis, lon, lat, power_law_bins=not reduction.exact)
    solid_angle = reduction.geom.solid_angle()[rows, columns].ravel()[used]
    background: FloatArray = np.zeros((axis.nbin, offset.size))
    background[:, used] = rate * (observation.ontime * solid_angle)
    # Where the table knows no background the run cannot be used (it is not 0 in truth).
    mask = ((background > 0.0) & safe).reshape(axis.nbin, *shape)
    background = background.reshape(axis.nbin, *shape)

    norm, norm_error = 1.0, 0.0
    if reduction.fov_background:
        n_counts, n_background = counts[mask].sum(), background[mask].sum()
        if n_background <= 0 or n_counts <= 0:
            log.warning(
                "Observation %d: %d counts over %.3g background counts, so its background cannot "
                "be scaled; the run is not used",
                observation.obs_id,
                n_counts,
                n_background,
            )
            mask = np.zeros_like(mask)
        else:
            norm, norm_error = n_counts / n_background, np.sqrt(n_counts) / n_background

    progress(0.6, f"{label}: exposure")
    livetime = observation.livetime
    exposed = used & mask.any(axis=0).ravel() if masked else used
    exposed_offset = np.where(exposed, offset, np.inf).reshape(shape)

    progress(0.8, f"{label}: PSF and energy dispersion")
    with np.errstate(invalid="ignore"):
        # One node further than the events reach, so that nothing is interpolated with nothing.
        reach = min(limit, reduction.offset_max * np.sqrt(2.0)) if masked else np.inf
        margin = 1.5 * reduction.binsz_irf if reduction.exact else 0.0
        offset_irf = _offset(reduction.vectors_irf.reshape(3, -1), pointing)
        near = (offset_irf < reach + margin).reshape(reduction.geom_irf.shape)
    nodes = _bounding_box(near)
    at_nodes = offset_irf.reshape(near.shape)[nodes].ravel()
    seen = near[nodes].ravel() & mask.any()
    node_exposure = observation.aeff.evaluate(axis_true.centers, at_nodes) * (seen * livetime)
    energies, edisp = _energy_response(observation, reduction, at_nodes)
    psf = observation.psf.mixture(energies, at_nodes)
    box = (-1, nodes[0].stop - nodes[0].start, nodes[1].stop - nodes[1].start)
    fov_norm = float(norm) if reduction.fov_background else None
    info = RunInfo(observation.obs_id, observation.telescope, ra, dec, livetime, fov_norm)
    return _Run(
        info,
        window,
        counts,
        background,
        mask,
        observation.aeff,
        exposed_offset,
        float(norm),
        float(norm_error),
        nodes,
        node_exposure.reshape(box),
        psf.reshape(*box, len(PSF_WIDTHS)),
        edisp.reshape(*edisp.shape[:2], *box[1:]),
        observation.gti,
    )


def _energy_response(
    observation: Observation, reduction: Reduction, offsets: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Energies at which to take the PSF (T,), and energy-dispersion kernels (T, R, P).

    Gammapy takes both at the centre of a true-energy bin. Near the threshold area and dispersion
    rise so steeply within a bin that this costs 0.3 % of the counts; so "exact" averages the
    product of area and dispersion over the bin for a power law of index 2, relative to the area at
    the centre (by which the kernel will be multiplied), and takes the PSF at the mean energy of the
    photons that are found.
    """
    axis, axis_true = reduction.energy_axis, reduction.energy_axis_true
    if not reduction.exact:
        return axis_true.centers, observation.edisp.probabilities(axis_true.centers, axis, offsets)
    edges = np.log(axis_true.bounds)
    fraction = np.linspace(0.0, 1.0, SUB_ENERGIES + 1)
    sub_edges = np.exp(edges[:-1, None] + np.diff(edges)[:, None] * fraction)
    samples = np.sqrt(sub_edges[:, 1:] * sub_edges[:, :-1])
    flux = 1.0 / sub_edges[:, :-1] - 1.0 / sub_edges[:, 1:]
    flux /= flux.sum(axis=1, keepdims=True)

    shape = (*samples.shape, len(offsets))
    area = observation.aeff.evaluate(samples.ravel(), offsets).reshape(shape)
    centre = observation.aeff.evaluate(axis_true.centers, offsets)
    found = observation.edisp.probabilities(samples.ravel(), axis, offsets)
    photons = found.reshape(*samples.shape, axis.nbin, -1) * (flux[..., None] * area)[:, :, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        kernel = np.nan_to_num(photons.sum(axis=1) / centre[:, None], posinf=0.0)
        weight = photons.sum(axis=(2, 3))
        mean = np.exp((weight * np.log(samples)).sum(axis=1) / weight.sum(axis=1))
    return np.where(np.isfinite(mean), mean, axis_true.centers), kernel


def _window(reduction: Reduction, ra: float, dec: float) -> Window | None:
    """Rows and columns within ``offset_max`` of the pointing; None if there are none."""
    geom = reduction.geom
    x, y = geom.lonlat_to_pix(*geom.from_frame(ra, dec, "icrs"))
    if not np.isfinite(x) or not np.isfinite(y):
        return None
    size = [max(round(2.0 * reduction.offset_max / scale), 1) for scale in geom.pixel_scales]
    try:
        window, _ = overlap_slices(
            geom.shape, (size[1], size[0]), (float(y), float(x)), mode="trim"
        )
    except NoOverlapError:
        return None
    rows, columns = window
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return None
    return rows, columns


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


def _field_of_view(vectors: FloatArray, ra: float, dec: float) -> tuple[FloatArray, FloatArray]:
    """Field-of-view longitude (positive towards smaller RA) and latitude, degrees."""
    ra_rad, dec_rad = np.radians(ra), np.radians(dec)
    x, y, z = vectors
    along = np.cos(ra_rad) * x + np.sin(ra_rad) * y
    east = np.cos(ra_rad) * y - np.sin(ra_rad) * x
    lon = np.arctan2(east, np.cos(dec_rad) * along + np.sin(dec_rad) * z)
    lat = np.arcsin(np.clip(np.cos(dec_rad) * z - np.sin(dec_rad) * along, -1.0, 1.0))
    return -np.degrees(lon), np.degrees(lat)


def _count(
    observation: Observation,
    reduction: Reduction,
    rows: slice,
    columns: slice,
    pointing: FloatArray,
) -> FloatArray:
    """Events in the bins of a window, shape (R, y, x)."""
    geom, bounds = reduction.geom, reduction.energy_axis.bounds
    events = observation.events
    near = (events.energy >= bounds[0]) & (events.energy < bounds[-1])
    ra, dec, energy = events.ra[near], events.dec[near], events.energy[near]
    # Only events that can fall into the window need the full projection.
    reach = np.radians(reduction.offset_max * np.sqrt(2.0) + 2.0 * max(geom.pixel_scales))
    vectors = unit_vectors(ra, dec)
    near = pointing @ vectors > np.cos(min(reach, np.pi))
    lon, lat = positions(rotation("icrs", geom.frame) @ vectors[:, near])
    x, y = geom.lonlat_to_pix(lon, lat)
    column = np.rint(x).astype(int) - columns.start
    row = np.rint(y).astype(int) - rows.start
    n_rows, n_columns = rows.stop - rows.start, columns.stop - columns.start
    inside = (column >= 0) & (column < n_columns) & (row >= 0) & (row < n_rows)
    band = np.searchsorted(bounds, energy[near][inside], side="right") - 1
    flat = (band * n_rows + row[inside]) * n_columns + column[inside]
    n_bins = (len(bounds) - 1) * n_rows * n_columns
    return np.bincount(flat, minlength=n_bins).astype(float).reshape(-1, n_rows, n_columns)


class _Stack:
    """Sums over runs; memory does not grow with their number."""

    def __init__(self, reduction: Reduction) -> None:
        n_bands, n_true = reduction.energy_axis.nbin, reduction.energy_axis_true.nbin
        shape, shape_irf = reduction.geom.shape, reduction.geom_irf.shape
        self.reduction = reduction
        self.counts = np.zeros((n_bands, *shape))
        self.background = np.zeros((n_bands, *shape))
        self.mask = np.zeros((n_bands, *shape), dtype=bool)
        self.exposure = np.zeros((n_true, *shape))
        self.node_exposure = np.zeros((n_true, *shape_irf))
        self.psf = np.zeros((n_true, *shape_irf, len(PSF_WIDTHS)))
        self.edisp = np.zeros((n_true, n_bands, *shape_irf))
        self.runs: list[RunInfo] = []
        self.gtis: list[GTI] = []

    def add(self, run: _Run, masked: bool = True) -> None:
        """Add a run: its scaled background within its mask, or (not ``masked``) all as it is."""
        window = (slice(None), *(run.window if masked else (slice(None), slice(None))))
        if masked:
            self.counts[window] += np.where(run.mask, run.counts, 0.0)
            self.background[window] += np.where(run.mask, run.background * run.norm, 0.0)
        else:
            self.counts[window] += run.counts
            self.background[window] += run.background
        self.mask[window] |= run.mask
        energies = self.reduction.energy_axis_true.centers
        run.aeff.add_exposure(self.exposure[window], energies, run.offset, run.info.livetime)
        nodes = (..., *run.nodes)
        self.node_exposure[nodes] += run.node_exposure
        self.psf[(*nodes, slice(None))] += run.psf * run.node_exposure[..., None]
        self.edisp[nodes] += run.edisp * run.node_exposure[:, None]
        self.runs.append(run.info)
        self.gtis.append(run.gti)

    def dataset(self, name: str) -> MapDataset:
        reduction = self.reduction
        geom, geom_irf = reduction.geom, reduction.geom_irf
        axis, axis_true = reduction.energy_axis, reduction.energy_axis_true
        if not np.any(self.mask):
            raise DataError(
                f"dataset {name}: no pixel of the map is left after the safe-data mask; it has no "
                "exposure"
            )
        seen = np.where(self.node_exposure > 0, self.node_exposure, np.inf)[:, None]
        psf = np.empty((len(seen), len(PSF_WIDTHS), *geom_irf.shape))
        np.divide(np.moveaxis(self.psf, 3, 1), seen, out=psf)
        edisp = self.edisp / seen
        return MapDataset(
            name=name,
            counts=WcsNDMap(geom, self.counts),
            background=WcsNDMap(geom, self.background),
            exposure=WcsNDMap(geom.to_cube([axis_true]), self.exposure, "m2 s"),
            psf=PSFMap(geom_irf, axis_true, psf, self.node_exposure),
            edisp=EDispKernelMap(geom_irf, axis, axis_true, edisp, self.node_exposure),
            mask_safe=WcsNDMap(geom, self.mask),
            gti=GTI.union(self.gtis),
            runs=tuple(self.runs),
        )
