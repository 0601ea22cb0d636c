"""Runs added up into one dataset, or each made into a dataset of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from functools import partial

import numpy as np

from ..data import GTI, Observation, RunInfo
from ..dataset import Datasets, MapDataset
from ..errors import DataError, ImgfitError
from ..maps import WcsNDMap
from ..models import FoVBackgroundModel, Models
from ..parallel import imap
from ..progress import Progress, part, silent
from .reduction import Reduction
from .responses import StackedResponses
from .run import Run, Window, reduce_run

log = logging.getLogger(__name__)

# Values of an exposure map that are computed between two looks at whether to stop.
_VALUES = 1 << 20


def reduce_observations(
    observations: Sequence[Observation],
    reduction: Reduction,
    stack: bool = True,
    name: str = "stacked",
    progress: Progress = silent,
    executor: Executor | None = None,
    failed: dict[int, str] | None = None,
    unused: dict[int, str] | None = None,
) -> Datasets:
    """Reduce observations to datasets.

    Parameters
    ----------
    observations : sequence of `Observation`
    reduction : `Reduction`
    stack : bool
        One dataset called ``name``, or one a run called ``obs-OBS_ID``.
    progress : callable
        ``progress(fraction, message)``; may raise `Cancelled`, and is called often enough for that
        to take effect within 0.2 s.
    executor : `~concurrent.futures.Executor` or None
        Where runs are reduced side by side (`parallel.open_executor`); None for here, one by
        one. The numbers do not depend on it: runs are always added in their order.
    failed : dict, optional
        Where to put the runs that cannot be reduced, with their reasons, and go on without them;
        by default the first one ends the reduction.
    unused : dict, optional
        Where to put those of which no energy is trusted or whose background cannot be scaled;
        they add nothing, as in Gammapy.

    Raises
    ------
    DataError
        If no run covers the map, or a file cannot be used.
    """
    if not observations:
        raise DataError("observations: none selected; nothing to reduce")
    whole, progress = progress, part(progress, 0.0, 0.98)
    reduce = partial(_reduce, reduction=reduction, masked=stack, keep_going=failed is not None)
    if executor is None:
        reduced = _one_by_one(observations, reduce, progress)
    else:
        reduced = _side_by_side(observations, reduce, progress, executor)
    stacked = Stack(reduction) if stack else None
    single: list[MapDataset] = []
    outside, left_out = [], dict[int, str]()
    total = len(observations)
    for index, (observation, run) in enumerate(zip(observations, reduced, strict=True)):
        share = part(progress, (index + 0.95) / total, (index + 1) / total)
        if isinstance(run, Run) and run.problem and unused is not None:
            unused[observation.obs_id] = run.problem
        if isinstance(run, str):
            log.warning("Observation %d is left out: %s", observation.obs_id, run)
            left_out[observation.obs_id] = run
            if failed is not None:
                failed[observation.obs_id] = run
        elif run is None:
            log.warning(
                "Observation %d does not overlap with the map and adds nothing", observation.obs_id
            )
            outside.append(observation.obs_id)
        elif stacked is not None:
            stacked.add(run, progress=share)
        else:
            single.append(_single_dataset(run, reduction, share))
        share(1.0, f"Run {observation.obs_id}: done")
    if len(outside) == total:
        raise DataError(
            "datasets.geom.wcs.skydir: the map does not overlap with any of the observations "
            f"{', '.join(map(str, outside))}; it has no exposure"
        )
    if len(outside) + len(left_out) == total:
        reasons = "; ".join(f"{run}: {reason}" for run, reason in list(left_out.items())[:3])
        raise DataError(f"observations: none of the {total} can be used ({reasons})")
    if stacked is not None:
        single = [stacked.dataset(name, part(whole, 0.98, 1.0))]
    datasets = Datasets(single)
    whole(1.0, "Reduction done")
    return datasets


def _reduce(
    observation: Observation,
    reduction: Reduction,
    masked: bool,
    keep_going: bool,
    progress: Progress = silent,
) -> Run | str | None:
    """A run, the reason why it cannot be reduced, or None if it lies off the map."""
    try:
        return reduce_run(observation, reduction, masked, progress)
    except ImgfitError as error:
        text = str(error)
        if not text.startswith(f"observation {observation.obs_id}"):
            text = f"observation {observation.obs_id}: {text}"
        if not keep_going:
            raise type(error)(text) from error
        return text


def _one_by_one(
    observations: Sequence[Observation],
    reduce: partial[Run | str | None],
    progress: Progress,
) -> Iterator[Run | str | None]:
    """Reduce runs here, with progress within each."""
    for index, observation in enumerate(observations):
        start = index / len(observations)
        share = part(progress, start, (index + 0.95) / len(observations))
        yield reduce(observation, progress=share)


def _side_by_side(
    observations: Sequence[Observation],
    reduce: partial[Run | str | None],
    progress: Progress,
    executor: Executor,
) -> Iterator[Run | str | None]:
    """Reduce runs with an executor, and look at whether to stop while they are made."""
    done = 0

    def wait() -> None:
        progress(done / len(observations), f"Runs: {done} of {len(observations)} done")

    for run in imap(reduce, observations, executor, wait):
        yield run
        done += 1


def _single_dataset(run: Run, reduction: Reduction, progress: Progress) -> MapDataset:
    """A run as a dataset of its own, on its window; its norm is left to a background model."""
    stack = Stack(reduction, run.window, run.nodes)
    stack.add(run, masked=False, progress=part(progress, 0.0, 0.8))
    dataset = stack.dataset(f"obs-{run.info.obs_id}", part(progress, 0.8, 1.0))
    if run.info.fov_norm is not None:
        model = FoVBackgroundModel(dataset_name=dataset.name)
        model.parameters["norm"].value = run.norm
        model.parameters["norm"].error = run.norm_error
        dataset.models = Models([model])
    return dataset


class Stack:
    """Sums over runs; memory does not grow with their number.

    Parameters
    ----------
    reduction : `Reduction`
    window, nodes : (slice, slice), optional
        The part of the map and of the coarse grid that is kept; all by default.
    """

    def __init__(
        self, reduction: Reduction, window: Window | None = None, nodes: Window | None = None
    ) -> None:
        self.reduction = reduction
        self.window = window or _all(reduction.geom.shape)
        self.nodes = nodes or _all(reduction.geom_irf.shape)
        shape = _shape(self.window)
        n_bands, n_true = reduction.energy_axis.nbin, reduction.energy_axis_true.nbin
        self.counts = np.zeros((n_bands, *shape))
        self.mask = np.zeros((n_bands, *shape), dtype=bool)
        self.maps: list[str] = []
        """What the runs have of ``exposure``, ``background``, ``psf`` and ``edisp``."""
        self.background = np.zeros((n_bands, *shape))
        self.exposure = np.zeros((n_true, *shape))
        self.runs: list[RunInfo] = []
        self.gtis: list[GTI] = []
        self.problems: dict[int, str] = {}

    def add(self, run: Run, masked: bool = True, progress: Progress = silent) -> None:
        """Add a run: its scaled background within its mask, or (not ``masked``) all as it is."""
        if not self.runs:
            self.maps = run.maps
            self.responses = StackedResponses(
                self.reduction.geom_irf.crop(*self.nodes),
                self.reduction.energy_axis,
                self.reduction.energy_axis_true,
                "psf" in self.maps,
                "edisp" in self.maps,
            )
        elif run.maps != self.maps:
            lacking = sorted(set(self.maps) ^ set(run.maps))
            raise DataError(
                f"observation {run.info.obs_id}: cannot be stacked with {self.runs[0].obs_id}, "
                f"since only one of them has {', '.join(lacking)}; leave "
                f"{', '.join(lacking)} out of datasets.map_selection"
            )
        at = (slice(None), *_within(run.window, self.window))
        self.counts[at] += np.where(run.mask, run.counts, 0.0) if masked else run.counts
        if run.background is not None:
            scaled = np.where(run.mask, run.background * run.norm, 0.0)
            self.background[at] += scaled if masked else run.background
        self.mask[at] |= run.mask
        if run.aeff is not None:
            energies = self.reduction.energy_axis_true.centers
            exposure = self.exposure[at]
            step = max(1, _VALUES // (len(exposure) * exposure.shape[2]))
            for start in range(0, exposure.shape[1], step):
                progress(0.0, f"Run {run.info.obs_id}: exposure")
                rows = slice(start, start + step)
                run.aeff.add_exposure(
                    exposure[:, rows], energies, run.offset[rows], run.info.livetime
                )
        self.responses.add(
            run.responses,
            _within(run.nodes, self.nodes),
            run.node_offset,
            run.info.livetime,
            run.seen,
            run.bands,
            part(progress, 0.5, 1.0),
        )
        if run.problem:
            self.problems[run.info.obs_id] = run.problem
        self.runs.append(run.info)
        self.gtis.append(run.gti)

    def _first_problem(self) -> str:
        run, problem = next(iter(self.problems.items()))
        more = len(self.problems) - 1
        return f"observation {run}: {problem}" + (f" (and {more} more)" if more else "")

    def dataset(self, name: str, progress: Progress = silent) -> MapDataset:
        """What has been added up.

        Raises
        ------
        DataError
            If nothing is left after the masks.
        """
        reduction = self.reduction
        geom = reduction.geom.crop(*self.window)
        cube = geom.to_cube([reduction.energy_axis_true])
        if not np.any(self.mask):
            raise DataError(
                f"dataset {name}: no bin of the map is left after the safe-data mask "
                f"({', '.join(reduction.safe_mask.methods) or 'no method'}); it has no exposure"
                if not self.problems
                else f"dataset {name}: no run can be used; {self._first_problem()}"
            )
        psf, edisp = self.responses.maps(progress)
        made = self.maps
        return MapDataset(
            name=name,
            counts=WcsNDMap(geom, self.counts),
            background=WcsNDMap(geom, self.background) if "background" in made else None,
            exposure=WcsNDMap(cube, self.exposure, "m2 s") if "exposure" in made else None,
            psf=psf,
            edisp=edisp,
            mask_safe=WcsNDMap(geom, self.mask),
            gti=GTI.union(self.gtis),
            runs=tuple(self.runs),
        )


def _all(shape: tuple[int, int]) -> Window:
    return slice(0, shape[0]), slice(0, shape[1])


def _shape(window: Window) -> tuple[int, int]:
    return window[0].stop - window[0].start, window[1].stop - window[1].start


def _within(inner: Window, outer: Window) -> Window:
    """A window in terms of another one that holds it."""
    rows, columns = (
        slice(own.start - whole.start, own.stop - whole.start)
        for own, whole in zip(inner, outer, strict=True)
    )
    return rows, columns
