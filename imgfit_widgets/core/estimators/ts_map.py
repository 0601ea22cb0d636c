"""`TSMapEstimator`: at every pixel, how much a source there would improve the fit, and its flux."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dataset import Datasets, MapDataset
from ..errors import DataError, InputError
from ..evaluator import Evaluator
from ..maps import MapAxis, WcsNDMap
from ..models import Models, PointSpatialModel, PowerLawSpectralModel, SkyModel
from ..parallel import imap, open_executor
from ..progress import Progress, silent
from ..response import PixelPosition
from .bands import as_degrees, combined_mask, energy_bands, names_of, neighbour_correlation
from .flux_maps import UNITS, FluxMaps
from .kernels import SourceImages, Stamps, reach_of, source_size
from .known_background import check_n_sigma
from .ts_blocks import BLOCK, Layer, Strip, run_strip

FloatArray = NDArray[np.float64]

__all__ = ["TSMapEstimator"]

OPTIONAL = ("errn-errp", "ul")
_TAIL = 1e-4
"""Share of a source along each axis that may lie beyond the kernel, if no width is given."""
_UNEVEN = 1e-3
"""How much the projection may widen the source, relatively, between a block's middle and edge."""
_CORE = 0.015
"""Pixels where the source is above this fraction of its peak are taken one by one."""


class TSMapEstimator:
    """A one-parameter fit of a source's norm at each pixel, everything else held.

    The models of the datasets, background included, are the null hypothesis as they stand; leave
    out the source that is to be seen. The image of the source is exact at the centre of each pixel:
    exposure, PSF and energy dispersion are those of the place, and integrated over each pixel, as
    in the fit (Gammapy takes one kernel for the whole map). All energy bins of a band are fitted
    with one norm, Gammapy's ``sum_over_energy_groups=False``.

    Parameters
    ----------
    kernel_model : `SkyModel`, optional
        The source: a point with a power law of index 2 by default; its position does not matter.
        A round Gaussian is taken with the exposure of its centre.
    kernel_width : angle, optional
        Full width beyond which the source is cut off. By default 1e-4 of it is lost on each axis.
    n_sigma, n_sigma_ul : float
        Of errors and upper limits.
    selection_optional : sequence of str
        ``errn-errp``, ``ul`` or ``all``. A lower error ends where a prediction would be negative;
        a limit is counted from the best norm, a negative one too.
    energy_edges : sequence of energies, optional
        Bands; by default all bins are one band.
    n_jobs : int
        Processes; numbers do not depend on it.
    scheduler : str, optional
        Address of a Dask scheduler instead.
    """

    tag = "TSMapEstimator"

    def __init__(
        self,
        kernel_model: SkyModel | None = None,
        kernel_width: Any = None,
        n_sigma: float = 1.0,
        n_sigma_ul: float = 2.0,
        selection_optional: Any = None,
        energy_edges: Any = None,
        n_jobs: int = 1,
        scheduler: str | None = None,
    ) -> None:
        if kernel_model is None:
            spectral = PowerLawSpectralModel(index=2.0)
            kernel_model = SkyModel(spectral, PointSpatialModel(), "ts-kernel")
        self.kernel_model = kernel_model
        source_size(kernel_model)
        self.kernel_width = (
            None if kernel_width is None else as_degrees("kernel_width", kernel_width, True)
        )
        self.n_sigma = check_n_sigma("n_sigma", n_sigma)
        self.n_sigma_ul = check_n_sigma("n_sigma_ul", n_sigma_ul)
        self.selection_optional = names_of(selection_optional, OPTIONAL)
        self.energy_edges = energy_edges
        self.n_jobs, self.scheduler = n_jobs, scheduler

    def run(
        self,
        datasets: MapDataset | Sequence[MapDataset],
        mask: Any = None,
        progress: Progress = silent,
    ) -> FluxMaps:
        """Make the maps.

        Parameters
        ----------
        datasets : `MapDataset` or sequence of them
            On the same pixels; fitted together.
        mask : ndarray or `WcsNDMap` of bool, optional
            Used besides the datasets' own, for data and positions.
        progress : Progress
            Called for each block of at most 24 x 24 pixels; may raise `Cancelled`.

        Returns
        -------
        `FluxMaps`
            ``ts`` (never negative), ``sqrt_ts`` (negative for a negative flux), ``norm`` of the
            kernel model and ``flux`` (cm-2 s-1 within the band) with ``_err`` and what was chosen
            of ``_errn``, ``_errp``, ``_ul``; ``npred_excess``. NaN outside the mask and where no
            photon would be seen.

        Raises
        ------
        DataError
            If a dataset lacks a response, expects no background, or has other pixels.
        InputError
            If a mask or the energy edges do not fit.
        """
        group = [datasets] if isinstance(datasets, MapDataset) else list(datasets)
        _check(group)
        progress(0.0, "Predicting counts")
        expected = _expected(group)
        masks = [combined_mask(dataset, mask) for dataset in group]
        axis, _ = energy_bands(group[0].energy_axis, self.energy_edges, sum_over=True)
        bands: list[dict[str, FloatArray]] = []
        correlations: list[list[float]] = []
        with open_executor(self.n_jobs, self.scheduler) as executor:
            for number in range(axis.nbin):
                edges = axis.bounds[number : number + 2]
                shape = group[0].geom.shape
                names: dict[str, FloatArray] = {}

                def tick(done: float, base: int = number) -> None:
                    progress((base + done) / axis.nbin, f"TS map, band {base + 1} of {axis.nbin}")

                strips, correlation = self._strips(group, expected, masks, edges, tick)
                correlations.append(list(correlation))
                for found, first in self._results(strips, executor, tick):
                    for name, values in found.items():
                        whole = names.setdefault(name, np.full(shape, np.nan))
                        whole[first : first + len(values)] = values
                bands.append(self._quantities(names, edges))
        geom = group[0].geom.to_cube([axis])
        maps = {
            name: WcsNDMap(geom, np.stack([b[name] for b in bands]), UNITS.get(name[:4], ""))
            for name in bands[0]
        }
        progress(1.0, "TS map done")
        meta = {
            "n_sigma": self.n_sigma,
            "n_sigma_ul": self.n_sigma_ul,
            "neighbour_correlation": correlations,
        }
        return FluxMaps(maps, self.tag, self.kernel_model, meta)

    def _results(
        self, strips: list[Strip], executor: Any, tick: Callable[[float], None]
    ) -> Iterator[tuple[dict[str, FloatArray], int]]:
        count = len(strips)
        if executor is None:
            for number, strip in enumerate(strips):

                def inside(share: float, done: int = number) -> None:
                    tick((done + share) / count)

                yield run_strip(strip, inside), strip.first_row
            return
        state = [0]  # strips done, for whoever asks while they are waited for
        for found in imap(run_strip, strips, executor, lambda: tick(state[0] / count)):
            yield found, strips[state[0]].first_row
            state[0] += 1
            tick(state[0] / count)

    def _quantities(self, names: dict[str, FloatArray], edges: FloatArray) -> dict[str, FloatArray]:
        flux = float(self.kernel_model.spectral_model.integral(float(edges[0]), float(edges[1])))
        found = {"ts": names["ts"], "sqrt_ts": np.copysign(np.sqrt(names["ts"]), names["norm"])}
        found["npred_excess"] = names["npred_excess"]
        for name, values in names.items():
            if name.startswith("norm"):
                found[name] = values
                found["flux" + name.removeprefix("norm")] = values * flux
        return found

    def _strips(
        self,
        group: list[MapDataset],
        expected: list[FloatArray],
        masks: list[NDArray[np.bool_]],
        edges: FloatArray,
        tick: Callable[[float], None],
    ) -> tuple[list[Strip], tuple[float, float]]:
        """The map's rows in strips of one block's height; and how its noise is correlated."""
        images, positions, cubes = [], [], []
        for dataset, background, mask in zip(group, expected, masks, strict=True):
            bins = _bins_between(dataset, edges)
            tick(0.0)
            images.append(SourceImages.of(dataset, self.kernel_model, bins))
            positions.append(PixelPosition(dataset.geom, dataset.geom.frame))
            used = mask[bins] & (background[bins] > 0)
            counts = np.where(used, dataset.counts.data[bins], 0.0)
            inverse = np.divide(1.0, background[bins], out=np.zeros(used.shape), where=used)
            cubes.append((used, counts, inverse))
        wanted = np.logical_or.reduce([used.any(axis=0) for used, _, _ in cubes])
        if not wanted.any():
            raise DataError(
                f"TS map: no pixel between {edges[0]:g} and {edges[1]:g} TeV has both valid data "
                "and an expected background"
            )
        tick(0.0)
        half, core, correlation = self._extent(group[0], images, positions, wanted)
        pad = ((0, 0), (half[0], half[0]), (half[1], half[1]))
        padded = [(np.pad(counts, pad), np.pad(inverse, pad)) for _, counts, inverse in cubes]
        ny, nx = wanted.shape
        block = min(_block_size(position, nx, ny) for position in positions)
        strips = []
        for first in range(0, ny, block):
            stop = min(first + block, ny)
            if not wanted[first:stop].any():
                continue
            rows = slice(first, stop + 2 * half[0])
            layers = [
                Layer(counts[r, rows], inverse[r, rows], number, r)
                for number, (counts, inverse) in enumerate(padded)
                for r in range(len(counts))
            ]
            pixels = slice(first * nx, stop * nx)
            strips.append(
                Strip(
                    first,
                    wanted[first:stop],
                    layers,
                    [one.at(pixels).trimmed() for one in images],
                    positions,
                    half,
                    block,
                    core,
                    self.n_sigma,
                    self.n_sigma_ul,
                    "errn-errp" in self.selection_optional,
                    "ul" in self.selection_optional,
                )
            )
        return strips, correlation

    def _extent(
        self,
        dataset: MapDataset,
        images: list[SourceImages],
        positions: list[PixelPosition],
        wanted: NDArray[np.bool_],
    ) -> tuple[tuple[int, int], FloatArray, tuple[float, float]]:
        """Half the kernel's size in pixels along y, x; the offsets taken one by one; and the
        correlation of neighbouring pixels' noise.
        """
        pixels = np.flatnonzero(wanted)
        pixels = pixels[:: max(1, len(pixels) // 200)]
        ny, nx = dataset.geom.shape
        means = [one.at(pixels).mixtures().sum(axis=0) for one in images]
        reach = max(
            reach_of(mixture, one.widths, _TAIL)
            for one, sample in zip(images, means, strict=True)
            for mixture in sample[:: max(1, len(sample) // 20)]
        )
        if self.kernel_width is not None:
            reach = min(0.5 * self.kernel_width, reach)
        scale_x, scale_y = dataset.geom.pixel_scales
        half = (
            int(np.clip(np.ceil(reach / scale_y), 1, ny)),
            int(np.clip(np.ceil(reach / scale_x), 1, nx)),
        )
        shape = np.zeros((2 * half[0] + 1, 2 * half[1] + 1))
        for one, position, sample in zip(images, positions, means, strict=True):
            stamps = Stamps.at(one.widths, position, 0.5 * (nx - 1), 0.5 * (ny - 1), half)
            image = np.tensordot(sample.sum(axis=0), stamps.images, axes=1)
            shape = np.maximum(shape, image / max(float(image.max()), 1e-300))
        return half, np.argwhere(shape > _CORE) - np.array(half), neighbour_correlation(shape)


def _check(group: list[MapDataset]) -> None:
    if not group:
        raise InputError("TS map: there is no dataset")
    Datasets(group)  # names must differ
    for dataset in group:
        if not dataset.geom.is_aligned(group[0].geom):
            raise DataError(
                f"TS map: dataset {dataset.name!r} has other pixels than {group[0].name!r}; stack "
                "them or make one map each"
            )
        if np.any(dataset.counts.data < 0):
            raise DataError(
                f"TS map: the counts of dataset {dataset.name!r} are negative somewhere"
            )
        if dataset.background is None:
            raise DataError(
                f"TS map: dataset {dataset.name!r} has no background, which the null hypothesis "
                "needs"
            )


def _expected(group: list[MapDataset]) -> list[FloatArray]:
    """What the models predict in each dataset."""
    models = Datasets(group).models
    if not len(models):
        return [np.asarray(d.background.data, float) for d in group if d.background is not None]
    evaluator = Evaluator(group, Models(list(models)))
    return evaluator.npred(evaluator.x0)


def _block_size(position: PixelPosition, nx: int, ny: int) -> int:
    """Pixels of a block over which the size of a degree in pixels varies by `_UNEVEN` at most."""
    most = 0.0
    for x in np.linspace(0.0, nx - 1.0, 5):
        for y in np.linspace(0.0, ny - 1.0, 5):
            (xx, _, yy), *slopes = position.metric(float(x), float(y))
            size = max(float(xx), float(yy))
            most = max(most, *(float(np.abs(slope).max()) / size for slope in slopes))
    # The metric is in squares; a block's edge is half a block from its middle.
    return int(np.clip(4.0 * _UNEVEN / max(most, 1e-9), 4, BLOCK))


def _bins_between(dataset: MapDataset, edges: FloatArray) -> slice:
    """Bins of one dataset in a band of another's edges."""
    axis: MapAxis = dataset.energy_axis
    inside = (axis.bounds[:-1] >= edges[0] * (1 - 1e-6)) & (
        axis.bounds[1:] <= edges[1] * (1 + 1e-6)
    )
    found = np.flatnonzero(inside)
    if not len(found):
        raise InputError(
            f"energy_edges: dataset {dataset.name!r} has no bin within {edges[0]:g} to "
            f"{edges[1]:g} TeV"
        )
    return slice(int(found[0]), int(found[-1]) + 1)
