"""The likelihood of datasets and models as a function of a flat float64 vector.

`Evaluator` is compiled once from datasets and models. It then gives the Cash statistic and its
exact gradient for any values of the free parameters, in their own units and in the order of
``models.parameters.free_parameters``. It holds no Quantity and no trait.

How the work is kept small. A point is a sum over mixture widths w of ``c[r, w] Ey[w] (x) Ex[w]``:
r is the energy band, E a Gaussian integrated over the pixels of one axis, c the expected counts. A
round Gaussian is one convolution on the pixels of the map (`GaussianSource`), any other shape one
on cells of its own (`ExtendedSource`). Only the pixels of a rectangle around each source are
touched at a step (sources whose rectangles overlap share a region); everywhere else the prediction
is the scaled background, whose statistic is a closed form of sums taken at compile. The gradient is
taken backwards: from the derivative of the statistic by each pixel's prediction, never
through an image for each parameter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .derivatives import Derivatives
from .errors import DataError, ModelError
from .extended import ExtendedSource
from .flat import FlatSource
from .gaussian import GaussianSource
from .models import (
    ConstantSpatialModel,
    FoVBackgroundModel,
    GaussianSpatialModel,
    Models,
    PointSpatialModel,
    SkyModel,
    SpatialModel,
    TemplateSpatialModel,
)
from .pixels import binned, no_less_than_0
from .products import gram
from .response import DatasetLike, PixelPosition, Response
from .source import Source
from .stats import BandSums, PoissonTerm, sum_of_product

__all__ = ["DatasetLike", "Evaluator"]

Extent = tuple[tuple[float, float], tuple[float, float], float]
"""Ranges of longitude and latitude, and half a diagonal, in degrees."""

_BIN, _MAX_BIN = 0.5, 8
"""Side of a bin for a rough prediction, in widths of what is to be seen; in pixels at most."""
_LOST = 0.4
"""Part of the pixels to fit that may be left out with the bins that a mask cuts through."""
_UNEQUAL = 4e-3
"""Relative change of the squared pixel size over sigma up to which a Gaussian takes the short way.
"""
_OBLIQUE = 0.03
"""Correlation of the axes, which is followed to first order, up to which it does so too."""

_WAYS = {"centre": Source, "pixels": GaussianSource, "plane": ExtendedSource}


class Evaluator:
    """Statistic, gradient and prediction of datasets under models.

    Not to be shared between threads.

    Parameters
    ----------
    datasets : sequence of DatasetLike
    models : Models
        Read now; later changes of them have no effect.

    Raises
    ------
    ModelError
        For a model that these datasets cannot be compared with: its name, parameter and why.

    Attributes
    ----------
    names : list of (model, parameter)
        The free parameters.
    x0 : ndarray, shape (n_free,)
        Their values in the models.
    free_places : ndarray of int, shape (n_free,)
        Their positions among all parameters.
    """

    def __init__(self, datasets: Sequence[DatasetLike], models: Models) -> None:
        self.models = models
        check_models(datasets, models)
        parameters = list(models.parameters)
        self._place = {(p.owner, p.name): i for i, p in enumerate(parameters)}
        self._base = np.array([p.value * p.factor_to_expected for p in parameters])
        free = [i for i, p in enumerate(parameters) if not p.frozen]
        self.free_places = np.array(free, dtype=int)
        self.units = np.array([parameters[i].factor_to_expected for i in free])
        self.names = [(parameters[i].owner, parameters[i].name) for i in free]
        self.x0 = np.array([parameters[i].value for i in free])
        self.free_parameters = [parameters[i] for i in free]
        self._extents: dict[str, Extent] = {}
        free_set = set(free)
        self.terms = [DatasetTerm(d, models, self._place, free_set) for d in datasets]
        for model in models.sky_models:
            sources = self._sources(model.name)
            if not any(s.on_map(self._base) for s in sources):
                raise ModelError(sources[0].off_map_message(self._base))

    def full(self, x: np.ndarray) -> np.ndarray:
        """All parameters in canonical units, with the free ones at ``x``."""
        p = self._base.copy()
        p[self.free_places] = x * self.units
        return p

    def place(self, model: str, parameter: str) -> int:
        """Position of a parameter among all parameters."""
        return self._place[(model, parameter)]

    def stat(self, x: np.ndarray) -> float:
        """Cash statistic over the fit mask."""
        p = self.full(x)
        return sum(term.evaluate(p, None) for term in self.terms)

    def stat_and_gradient(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Cash statistic and its derivatives with respect to ``x``."""
        p = self.full(x)
        gradient = np.zeros(len(p))
        stat = sum(term.evaluate(p, gradient) for term in self.terms)
        return stat, gradient[self.free_places] * self.units

    def derivatives(self, x: np.ndarray) -> Derivatives:
        """The statistic and its derivatives up to the second.

        The Fisher information and the exact second derivatives, but for how the drift of the
        response with position goes on to change: per degree it is small, and what it would be
        multiplied with are residuals.
        """
        p = self.full(x)
        found = Derivatives.zero(len(p))
        found.stat = sum(term.differentiate(p, found) for term in self.terms)
        return found.of(self.free_places, self.units)

    def without_walls(self, x: np.ndarray) -> Derivatives | None:
        """The derivatives at ``x`` for errors, where a prediction is held at 0; None elsewhere.

        What holds it there is steep and says nothing of how well anything is known, and bins
        without counts say nothing in second derivatives: the expected ones are to be taken.
        """
        sums = [region.poisson for term in self.terms for region in term.regions or []]
        if not any(one.is_held for one in sums):
            return None
        for one in sums:
            one.walled = False
        try:
            found = self.derivatives(x)
        finally:
            for one in sums:
                one.walled = True
        # What was asked for last may have been a step that was not taken.
        return found if any(one.is_held for one in sums) else None

    def npred(self, x: np.ndarray) -> list[np.ndarray]:
        """Predicted counts of each dataset, background included, shape (band, y, x)."""
        return self.npred_full(self.full(x))

    def npred_full(self, p: np.ndarray) -> list[np.ndarray]:
        """`npred` for all parameters in canonical units."""
        found = []
        for term in self.terms:
            image = term.predicted_background(p)
            term.settle(p)
            for source in term.sources:
                source.add_to(image, p)
            found.append(image)
        return found

    def npred_of(self, model: str, x: np.ndarray) -> list[np.ndarray]:
        """Predicted counts of one component in each dataset, shape (band, y, x)."""
        p = self.full(x)
        component = self.models[model]
        found = []
        for term in self.terms:
            if isinstance(component, FoVBackgroundModel):
                own = term.norm is not None and term.norm.model == model
                found.append(term.predicted_background(p) if own else np.zeros(term.shape))
                continue
            image = np.zeros(term.shape)
            term.settle(p)
            for source in term.sources:
                if source.model.name == model:
                    source.add_to(image, p)
            found.append(image)
        return found

    def recentre(self, x: np.ndarray) -> bool:
        """Place every rectangle around its source at ``x``; whether this changes anything."""
        p = self.full(x)
        return any([term.lay_out(p) for term in self.terms])

    def set_rough(self, rough: bool) -> None:
        """Let predictions be off by a few per cent, and in bins of pixels, for a quick way down.

        Takes effect with `recentre`. Images (`npred`) are of exact predictions only.
        """
        for term in self.terms:
            term.rough = rough
            for source in term.sources:
                source.rough = rough

    @property
    def layouts(self) -> int:
        """How often rectangles were placed."""
        return sum(term.layouts for term in self.terms)

    def position_on_map(self, model: str, x: np.ndarray) -> bool:
        """Whether a source at ``x`` lies on a pixel of at least one dataset."""
        p = self.full(x)
        return any(s.on_map(p) for s in self._sources(model))

    def is_size(self, model: str, parameter: str) -> bool:
        """Whether a parameter is an angular size of a source."""
        component = self.models[model]
        return isinstance(component, SkyModel) and parameter in component.spatial_model.size_names

    def is_even(self, model: str, parameter: str) -> bool:
        """Whether the sign of a parameter has no meaning."""
        component = self.models[model]
        return isinstance(component, SkyModel) and parameter in component.spatial_model.even_names

    def extent(self, model: str) -> Extent:
        """The longitudes, latitudes and half the diagonal of the maps that a source may be on.

        Degrees in the source's frame; longitudes are near that of the source in its models.
        """
        if model in self._extents:
            return self._extents[model]
        lon_0 = float(self._base[self.place(model, "lon_0")])
        parts = [s.extent(lon_0) for s in self._sources(model)]
        lows, highs = np.min(parts, axis=0), np.max(parts, axis=0)
        found = (lows[0], highs[1]), (lows[2], highs[3]), highs[4]
        self._extents[model] = found
        return found

    def _sources(self, model: str) -> list[Source]:
        return [s for term in self.terms for s in term.sources if s.model.name == model]


def check_models(datasets: Sequence[DatasetLike], models: Models) -> None:
    """Refuse models that cannot be evaluated on these datasets."""
    names = [d.name for d in datasets]
    known = ", ".join(repr(n) for n in names) or "none"
    seen: dict[str, str] = {}
    taken: set[str] = set()
    for model in models:
        if model.name in taken:
            raise ModelError(f"{model.name}: this name is used twice; each model needs its own")
        taken.add(model.name)
        for part in model.parts:
            for owner in {p.owner for p in part.parameters} - {model.name}:
                raise ModelError(
                    f"{model.name}: its {part.kind} model is that of {owner!r} too; each model "
                    "needs its own"
                )
        wanted = model.datasets_names
        if wanted is not None and not set(wanted) & set(names):
            raise ModelError(
                f"{model.name}.datasets_names: {', '.join(map(repr, wanted))} is not among the "
                f"datasets; there are: {known}"
            )
        if isinstance(model, FoVBackgroundModel):
            other = seen.setdefault(model.dataset_name, model.name)
            if other != model.name:
                raise ModelError(
                    f"{model.name}: dataset {model.dataset_name!r} has a background model already, "
                    f"{other!r}"
                )
            if datasets[names.index(model.dataset_name)].background is None:
                raise ModelError(
                    f"{model.name}: dataset {model.dataset_name!r} has no background to scale"
                )
            continue
        _check_shape(model)
        _check_spectrum(model)


def _check_shape(model: SkyModel) -> None:
    spatial = model.spatial_model
    known = (PointSpatialModel, ConstantSpatialModel, TemplateSpatialModel)
    if not isinstance(spatial, known) and type(spatial).transform is SpatialModel.transform:
        raise ModelError(
            f"{model.name}: spatial model {type(spatial).__name__} has no transform; a fit needs it"
        )
    for p in spatial.parameters:
        if p.name == "e" and not p.value < 1:
            raise ModelError(f"{model.name}.e: {p.value:g} leaves no width; expected less than 1")


def make_source(
    model: SkyModel,
    dataset: DatasetLike,
    response: Response,
    place: dict[tuple[str, str], int],
    free: set[int],
) -> Source:
    """A source by the way that suits its shape."""
    shape = model.spatial_model
    kind: type[Source] = ExtendedSource
    if isinstance(shape, ConstantSpatialModel):
        kind = FlatSource
    elif isinstance(shape, PointSpatialModel) or (
        isinstance(shape, GaussianSpatialModel)
        and (
            shape.e.value == 0
            and shape.e.frozen
            and shape.phi.frozen
            and _same_pixels(model, dataset)
        )
    ):
        kind = Source if isinstance(shape, PointSpatialModel) else GaussianSource
    return kind(model, dataset, response, place, free)


def _same_pixels(model: SkyModel, dataset: DatasetLike) -> bool:
    """Whether pixels have nearly the same shape on the sky all over a source."""
    shape, geom = model.spatial_model, dataset.geom
    pixel = PixelPosition.of(geom, model.frame)
    x, y, _ = pixel.at(*shape.position_lonlat)
    ny, nx = geom.shape
    metric = pixel.metric(float(np.clip(x, 0, nx - 1)), float(np.clip(y, 0, ny - 1)))
    size = abs(shape.sigma.value * shape.sigma.factor_to_expected)
    per_pixel = np.abs(metric[1:]).max() / max(metric[0, 0], metric[0, 2])
    oblique = abs(metric[0, 1]) / math.sqrt(metric[0, 0] * metric[0, 2])
    equal = per_pixel * math.sqrt(metric[0].max()) * size < _UNEQUAL
    return bool(equal and oblique < _OBLIQUE)


def _check_spectrum(model: SkyModel) -> None:
    values = {p.name: p.value * p.factor_to_expected for p in model.spectral_model.parameters}
    for name in ("emin", "emax", "reference"):
        if name in values and not values[name] > 0:
            raise ModelError(f"{model.name}.{name}: {values[name]:g} TeV; expected more than 0")
    if "emin" in values and not values["emin"] < values["emax"]:
        raise ModelError(
            f"{model.name}.emax: {values['emax']:g} TeV; expected more than emin, "
            f"{values['emin']:g} TeV"
        )


class _Norm:
    """The background factor of each band and its derivatives by what is free."""

    def __init__(
        self,
        model: FoVBackgroundModel,
        place: dict[tuple[str, str], int],
        free: set[int],
        energy: np.ndarray,
    ) -> None:
        self.model, self._free = model.name, free
        self.tilt, self.norm, self.reference = (
            place[(model.name, name)] for name in ("tilt", "norm", "reference")
        )
        self._log_energy = np.log(energy)
        self._ones = np.ones(len(energy))

    def shape(self, p: np.ndarray) -> np.ndarray:
        """Factor of each band at norm 1."""
        if p[self.tilt] == 0.0:
            return self._ones
        return np.asarray(np.exp(-p[self.tilt] * self._distance(p)))

    def columns(self, p: np.ndarray) -> dict[int, np.ndarray]:
        """Derivatives of each band's factor by each free parameter."""
        found = {}
        shape = self.shape(p)
        factor = p[self.norm] * shape
        if self.norm in self._free:
            found[self.norm] = shape
        if self.tilt in self._free:
            found[self.tilt] = -factor * self._distance(p)
        if self.reference in self._free:
            found[self.reference] = factor * (p[self.tilt] / p[self.reference])
        return found

    def add_gradient(self, p: np.ndarray, slope: np.ndarray, gradient: np.ndarray) -> None:
        """``slope``: derivative of the statistic by each band's factor."""
        for place, column in self.columns(p).items():
            gradient[place] += float(slope @ column)

    def add_curvature(self, p: np.ndarray, slope: np.ndarray, found: Derivatives) -> None:
        """The same, with what the second derivatives of each band's factor add."""
        self.add_gradient(p, slope, found.gradient)
        if not self._free & {self.tilt, self.reference}:
            return
        norm, tilt, reference = p[[self.norm, self.tilt, self.reference]]
        shape, distance = self.shape(p), self._distance(p)
        second = {
            (self.norm, self.tilt): -distance,
            (self.norm, self.reference): tilt / reference,
            (self.tilt, self.tilt): norm * distance**2,
            (self.tilt, self.reference): norm * (1.0 - tilt * distance) / reference,
            (self.reference, self.reference): norm * tilt * (tilt - 1.0) / reference**2,
        }
        for (one, other), factor in second.items():
            found.bend(one, other, float(slope @ (shape * factor)))

    def _distance(self, p: np.ndarray) -> np.ndarray:
        return np.asarray(self._log_energy - math.log(p[self.reference]))


class Region:
    """Pixels that one or several overlapping sources reach, or bins of them.

    Bins of which the mask leaves out a part are left out, and are as if no source reached them.
    """

    def __init__(self, term: DatasetTerm, box: tuple[int, int, int, int], members: list[int]):
        y0, y1, x0, x1 = box
        size = term.bin
        cut = (slice(None), slice(y0, y1), slice(x0, x1))
        counts, background = (np.ascontiguousarray(q[cut]) for q in (term.counts, term.background))
        mask = None if term.mask is None else np.ascontiguousarray(term.mask[cut])
        of_bins, self.lost = mask, 0.0
        if size > 1 and mask is not None:
            of_bins, used = binned(1.0 - mask, size) == 0.0, int(mask.sum())
            mask = of_bins.repeat(size, 1).repeat(size, 2)[:, : y1 - y0, : x1 - x0]
            self.lost = 1.0 - int(mask.sum()) / max(used, 1)
        self.background = binned(background, size)
        self.poisson = PoissonTerm(binned(counts, size), self.background, of_bins)
        self.members = members
        self._predicted = np.empty_like(self.background)
        self.slices = []
        for member in members:
            a, b, c, d = term.sources[member].box
            rows, columns = (
                slice((low - first) // size, -(-(high - first) // size))
                for low, high, first in ((a, b, y0), (c, d, x0))
            )
            self.slices.append((slice(None), rows, columns))
        self.sums = BandSums.of(counts, background, mask)
        self.offset = 0.0
        if size > 1:
            # What the statistic would be in pixels, if all of a bin were alike.
            each = binned(np.ones(background.shape[1:]), size)
            self.offset = 2.0 * float((self.poisson.n * np.log(each)).sum())

    def predicted(self, factor: np.ndarray, states: list[Any]) -> np.ndarray:
        """Counts of the scaled background and of its sources; they hold until the next call."""
        mu = np.multiply(self.background, factor[:, None, None], out=self._predicted)
        for state, cut in zip(states, self.slices, strict=True):
            mu[cut] += state.counts()
        return self._predicted


class DatasetTerm:
    """One dataset's part of the statistic."""

    def __init__(
        self,
        dataset: DatasetLike,
        models: Models,
        place: dict[tuple[str, str], int],
        free: set[int],
    ) -> None:
        self.name, self.geom = dataset.name, dataset.geom
        edges = np.asarray(dataset.energy_axis.edges.to_value("TeV"), dtype=float)
        self.shape = (len(edges) - 1, *dataset.geom.shape)
        if dataset.counts is None:
            raise DataError(f"dataset {dataset.name!r}: has no counts to compare a model with")
        mask = None if dataset.mask is None else np.asarray(dataset.mask, dtype=bool)
        if mask is not None and not mask.any():
            raise DataError(
                f"dataset {dataset.name!r}: the mask leaves no bin to fit; widen the fit range or "
                "the safe mask"
            )
        self.mask = None if mask is None or mask.all() else mask
        self.counts = np.asarray(dataset.counts.data, dtype=float)
        self.background = np.zeros(self.shape)
        if dataset.background is not None:
            self.background = no_less_than_0(np.asarray(dataset.background.data, dtype=float))
        background_model = models.background_model(dataset.name)
        self.norm: _Norm | None = None
        if background_model is not None:
            self.norm = _Norm(background_model, place, free, np.sqrt(edges[:-1] * edges[1:]))
        wanted = [m for m in models.sky_models if m.applies_to(dataset.name)]
        response = Response(dataset) if wanted else None
        self.sources = [make_source(m, dataset, response, place, free) for m in wanted if response]
        self.totals = BandSums.of(self.counts, self.background, self.mask)
        for source in self.sources:
            source.whole_map = self.totals.bare
        self._ones = np.ones(self.shape[0])
        self.outside = self.totals
        self.regions: list[Region] | None = None
        self.layouts = 0
        self.rough = False
        self.bin = 1

    def factor(self, p: np.ndarray) -> np.ndarray:
        """Background factor of each band."""
        return self._ones if self.norm is None else p[self.norm.norm] * self.norm.shape(p)

    def predicted_background(self, p: np.ndarray) -> np.ndarray:
        """Scaled background, shape (R, y, x)."""
        return np.asarray(self.background * self.factor(p)[:, None, None])

    def suit(self, p: np.ndarray) -> None:
        """Compute points and round Gaussians in the way that is best for them here."""
        for number, source in enumerate(self.sources):
            if type(source) not in (Source, GaussianSource) or source.is_settled(p):
                continue
            kind = _WAYS[source.way(p)]
            if kind is not type(source):
                self.sources[number] = kind(*source.compiled_from)
                self.sources[number].take_over(source)

    def _coarsest(self, p: np.ndarray) -> int:
        """Pixels along each axis of bins that show what a rough prediction can."""
        blur = min((source.blur(p) for source in self.sources), default=0.0)
        return round(min(max(_BIN * blur / max(self.geom.binsz), 1.0), _MAX_BIN))

    def lay_out(self, p: np.ndarray) -> bool:
        """Place the rectangles and cut the map into regions and the rest, where that is new."""
        self.suit(p)
        size = self._coarsest(p) if self.rough else 1
        changed = self._place(p, size)
        # Where a mask cuts through many bins, pixels show more.
        if size > 1 and any(region.lost > _LOST for region in self.regions or []):
            changed = self._place(p, 1) or changed
        return changed

    def _place(self, p: np.ndarray, size: int) -> bool:
        """`lay_out` in bins of a given size."""
        before, self.bin = self.bin, size
        for source in self.sources:
            source.set_bin(self.bin)
        changed = [before != self.bin, *(source.lay_out(p) for source in self.sources)]
        if self.regions is not None and not any(changed):
            return False
        groups: list[tuple[tuple[int, int, int, int], list[int]]] = []
        for number, source in enumerate(self.sources):
            box, members = source.box, [number]
            if box[1] <= box[0] or box[3] <= box[2]:
                continue
            merged = True
            while merged:
                merged = False
                for group in groups:
                    if _overlap(box, group[0]):
                        box, members = _union(box, group[0]), members + group[1]
                        groups.remove(group)
                        merged = True
                        break
            groups.append((box, members))
        self.layouts += 1
        self.regions = [Region(self, box, sorted(members)) for box, members in groups]
        self.outside = self.totals
        for region in self.regions:
            self.outside = self.outside.minus(region.sums)
        return True

    def settle(self, p: np.ndarray) -> list[Region]:
        """The regions, laid out anew if a source has left its rectangle."""
        if self.regions is None or not all(s.stays(p) for s in self.sources):
            self.lay_out(p)
        return self.regions or []

    def evaluate(self, p: np.ndarray, gradient: np.ndarray | None) -> float:
        """Statistic; adds to ``gradient`` (by all parameters, canonical units) if given."""
        regions = self.settle(p)
        factor = self.factor(p)
        if gradient is None:
            stat = self.outside.stat(factor)
            for region in regions:
                mu = region.predicted(factor, self._states(region, p, False))
                stat += region.poisson.sum(mu) + region.offset
            return stat
        stat, by_factor = self.outside.stat_and_slope(factor)
        for region in regions:
            states = self._states(region, p, True)
            mu = region.predicted(factor, states)
            part, slope = region.poisson.sum_and_slope(mu)
            stat += part + region.offset
            by_factor = by_factor + sum_of_product(slope, region.background)
            for state, cut in zip(states, region.slices, strict=True):
                state.source.add_gradient(state, slope[cut], gradient)
        if self.norm is not None:
            self.norm.add_gradient(p, by_factor, gradient)
        return stat

    def _states(self, region: Region, p: np.ndarray, slopes: bool) -> list[Any]:
        return [self.sources[m].state(p, slopes) for m in region.members]

    def differentiate(self, p: np.ndarray, found: Derivatives) -> float:
        """Statistic; adds its derivatives (by all parameters, canonical units) to ``found``."""
        regions = self.settle(p)
        factor = self.factor(p)
        norm: dict[int, np.ndarray] = {}
        stat, by_factor = self.outside.stat_and_slope(factor)
        if self.norm is not None:
            norm = self.norm.columns(p)
            slopes = np.array(list(norm.values())).reshape(len(norm), len(factor))
            expected = self.outside.expected(factor)
            observed = self.outside.curvature(factor)
            found.add(list(norm), (slopes * expected) @ slopes.T, (slopes * observed) @ slopes.T)
        for region in regions:
            states = self._states(region, p, True)
            mu = region.predicted(factor, states)
            part, slope, curvature = region.poisson.derivatives(mu)
            stat += part + region.offset
            by_factor = by_factor + sum_of_product(slope, region.background)
            images = {k: region.background * v[:, None, None] for k, v in norm.items()}
            for state, cut in zip(states, region.slices, strict=True):
                for place, column in state.source.columns(state).items():
                    if column.shape == mu.shape and place not in images:
                        images[place] = column
                    else:
                        image = images.setdefault(place, np.zeros_like(mu))
                        image[cut] += column
                state.source.add_curvature(state, slope[cut], found)
            stack = np.array([image.ravel() for image in images.values()])
            stack = stack.reshape(len(images), mu.size)
            expected = region.poisson.expected(mu)
            found.add(list(images), gram(stack, expected.ravel()), gram(stack, curvature.ravel()))
        if self.norm is not None:
            self.norm.add_curvature(p, by_factor, found)
        return stat


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]


def _union(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    return min(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), max(a[3], b[3])
