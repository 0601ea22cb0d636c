"""Linear parameters re-solved at fixed shapes: fast enough to follow a hand.

`LinearSolver` finds source amplitudes and background norms, in which the statistic is convex, for
given positions and sizes. The fit starts with it and takes a source's test statistic from it.
`LiveLikelihood` answers "what if the source were here?" while it is dragged.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from .errors import ModelError
from .evaluator import DatasetLike, DatasetTerm, Region
from .likelihood import Likelihood, limits_of
from .models import Models
from .products import gram
from .stats import BandSums

__all__ = ["LinearSolver", "LiveLikelihood", "LiveState"]

_MAX_STEPS = 40
_ENOUGH = 1e-9
"""Expected further gain in the statistic at which Newton's steps end."""


@dataclass
class _Columns:
    """What each linear parameter at 1 puts into a region, and what does not vary.

    ``rows`` (k,) are the places of those parameters among the ones that are solved for; ``images``
    (k, pixels); ``fixed`` has the region's shape.
    """

    region: Region
    fixed: np.ndarray
    rows: np.ndarray
    images: np.ndarray


@dataclass
class _Part:
    """A dataset's pixels that sources reach, and the sums over those where there are none.

    ``norm`` is the place of its background norm among the parameters that are solved for, or None.
    """

    term: DatasetTerm
    outside: BandSums
    shape: np.ndarray
    norm: int | None
    columns: list[_Columns]


@dataclass
class LinearFit:
    """Values and curvature of the linear parameters.

    ``places`` are their positions among all parameters; ``hessian`` is that of the statistic, in
    canonical units.
    """

    places: list[int]
    values: np.ndarray
    stat: float
    hessian: np.ndarray

    def scale(self, place: int) -> float:
        """Error of one parameter when the others are held, 0 if the data say nothing of it."""
        if place not in self.places:
            return 0.0
        i = self.places.index(place)
        curvature = float(self.hessian[i, i])
        return float(np.sqrt(2.0 / curvature)) if curvature > 0 else 0.0


class LinearSolver:
    """Newton's method for amplitudes and norms, over the pixels that sources reach.

    Parameters
    ----------
    likelihood : Likelihood
    """

    def __init__(self, likelihood: Likelihood) -> None:
        self.likelihood, self._terms = likelihood, likelihood.terms
        self._follows = likelihood.follows
        candidates = {self._own(s.linear) for term in self._terms for s in term.sources}
        candidates |= {self._own(term.norm.norm) for term in self._terms if term.norm}
        # Of all that is solved for, among all parameters.
        self.places = [int(i) for i in likelihood.free_places if int(i) in candidates]
        self._limits: dict[int, tuple[float, float]] = {}
        free = zip(
            likelihood.free_places.tolist(),
            likelihood.free_parameters,
            likelihood.units.tolist(),
            strict=True,
        )
        for place, q, unit in free:
            low, high = limits_of(q)
            self._limits[place] = low * unit, high * unit
        # Priors: of what is solved by its place, with the unit that they are in.
        self._priors = {
            int(likelihood.free_places[i]): (prior, float(likelihood.units[i]))
            for i, prior in likelihood.priors
        }

    def _own(self, place: int) -> int:
        """The place of a parameter, or of the one that it is linked to."""
        return self._follows.get(place, place)

    def solve(
        self, p: np.ndarray, without: Collection[str] = (), enough: float = _ENOUGH
    ) -> LinearFit:
        """Solve for the free linear parameters.

        Parameters
        ----------
        p : ndarray
            All parameters in canonical units (`Likelihood.full`).
        without : collection of str
            Sources that are taken out.
        enough : float
            It ends when a step is expected to gain less.
        """
        used = {
            self._own(s.linear)
            for t in self._terms
            for s in t.sources
            if s.model.name not in without
        }
        used |= {self._own(term.norm.norm) for term in self._terms if term.norm}
        places = [i for i in self.places if i in used]
        parts = self._parts(p, places, without)
        low, high = np.array([self._limits[i] for i in places]).reshape(-1, 2).T
        # A negative start would begin where the statistic is bent.
        values = np.clip(np.maximum(p[places], 0.0), low, high)
        stat, slope, hessian = self._derivatives(parts, p, places, values)
        for _ in range(_MAX_STEPS):
            step = -_solve_scaled(hessian, slope)
            gain = -0.5 * float(slope @ step)
            if not np.isfinite(gain) or gain < enough:
                break
            size = 1.0
            while size > 1e-6:
                tried = np.clip(values + size * step, low, high)
                found = self._derivatives(parts, p, places, tried)
                if found[0] <= stat + 1e-10 * abs(stat) * 1e-3:
                    break
                size *= 0.4
            else:
                break
            moved = np.abs(tried - values).max(initial=0.0)
            values, (stat, slope, hessian) = tried, found
            if not moved > 0:
                break
        return LinearFit(places, values, stat, hessian)

    def prior_stat(self, p: np.ndarray) -> float:
        """What the priors add to the statistic for all parameters in canonical units."""
        parts = (q.penalty(float(p[place]) / unit)[0] for place, (q, unit) in self._priors.items())
        return sum(parts, self.likelihood.fixed_prior_stat)

    def _parts(
        self, p: np.ndarray, places: list[int], without: Collection[str] = ()
    ) -> list[_Part]:
        row = {place: i for i, place in enumerate(places)}
        return [self._part(term, p, row, without) for term in self._terms]

    def _part(
        self, term: DatasetTerm, p: np.ndarray, row: dict[int, int], without: Collection[str]
    ) -> _Part:
        shape, norm = np.ones(term.shape[0]), None
        if term.norm is not None:
            shape = term.norm.shape(p)
            norm = row.get(self._own(term.norm.norm))
        if all(source.model.name in without for source in term.sources):
            return _Part(term, term.totals, shape, norm, [])
        found = []
        for region in term.settle(p):
            background = region.background * shape[:, None, None]
            images: dict[int, np.ndarray] = {}
            if norm is not None:
                images[norm] = background
                fixed = np.zeros_like(background)
            else:
                fixed = background * (1.0 if term.norm is None else p[term.norm.norm])
            for member, cut in zip(region.members, region.slices, strict=True):
                source = term.sources[member]
                if source.model.name in without:
                    continue
                template = source.state(p).template()
                own = row.get(self._own(source.linear))
                if own is not None:
                    image = images.setdefault(own, np.zeros_like(background))
                    image[cut] += template
                else:
                    fixed[cut] += template * p[source.linear]
            stack = np.array([image.ravel() for image in images.values()])
            rows = np.array(list(images), dtype=int)
            found.append(_Columns(region, fixed, rows, stack.reshape(len(rows), background.size)))
        return _Part(term, term.outside, shape, norm, found)

    def _derivatives(
        self,
        parts: list[_Part],
        p: np.ndarray,
        places: list[int],
        values: np.ndarray,
    ) -> tuple[float, np.ndarray, np.ndarray]:
        stat, slope = self.likelihood.fixed_prior_stat, np.zeros(len(places))
        hessian = np.zeros((len(places), len(places)))
        for place, (prior, unit) in self._priors.items():
            k = places.index(place) if place in places else None
            added, first, second = prior.penalty(float(p[place] if k is None else values[k]) / unit)
            stat += added
            if k is not None:
                slope[k] += first / unit
                hessian[k, k] += second / unit**2
        for one in parts:
            term, norm = one.term, one.norm
            factor = one.shape
            if term.norm is not None:
                factor = factor * (p[term.norm.norm] if norm is None else values[norm])
            part, by_factor = one.outside.stat_and_slope(factor)
            stat += part
            if norm is not None:
                slope[norm] += by_factor @ one.shape
                hessian[norm, norm] += one.outside.curvature(factor) @ one.shape**2
            for column in one.columns:
                rows, images = column.rows, column.images
                mu = column.fixed + (values[rows] @ images).reshape(column.fixed.shape)
                part, by_pixel, curvature = column.region.poisson.derivatives(mu)
                stat += part + column.region.offset
                slope[rows] += images @ by_pixel.ravel()
                hessian[rows[:, None], rows] += gram(images, curvature.ravel())
        return stat, slope, hessian


def _solve_scaled(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Solve a symmetric system whose unknowns differ by many orders; those without weight stay."""
    weight = matrix.diagonal()
    known = slice(None) if weight.min(initial=1.0) > 0 else np.flatnonzero(weight > 0)
    scale = np.sqrt(weight[known])
    scaled = matrix[known][:, known] / (scale[:, None] * scale)
    scaled.flat[:: len(scaled) + 1] += 1e-12
    solution = np.zeros(len(vector))
    solution[known] = np.linalg.solve(scaled, vector[known] / scale) / scale
    return solution


@dataclass(frozen=True)
class LiveState:
    """The likelihood at some position, with amplitudes and norms re-solved.

    Attributes
    ----------
    values : dict
        (model, parameter) to value, in the parameter's unit: what was moved and what followed.
    stat : float
        Cash statistic.
    delta_ts : float
        What the source is worth: the statistic without it, re-solved, minus `stat`. All sources
        together if none was named.
    npred : tuple of ndarray
        Predicted counts of each dataset, shape (band, y, x), read-only.
    flux : dict
        Source name to its flux (cm-2 s-1) over the reconstructed energies of the first dataset.
    """

    values: dict[tuple[str, str], float]
    stat: float
    delta_ts: float
    npred: tuple[np.ndarray, ...] = field(repr=False)
    flux: dict[str, float]


class LiveLikelihood:
    """The likelihood of datasets while a source is moved by hand.

    Parameters
    ----------
    datasets : sequence of DatasetLike
    models : Models
        Read now. Frozen amplitudes and norms stay as they are; positions and sizes follow `update`
        whether frozen or not.
    """

    def __init__(self, datasets: Sequence[DatasetLike], models: Models) -> None:
        self._likelihood = Likelihood(datasets, models)
        self._solver = LinearSolver(self._likelihood)
        self._p = self._likelihood.full(self._likelihood.x0)
        self._parameters = list(models.parameters)
        self._place = {(q.owner, q.name): i for i, q in enumerate(self._parameters)}
        leaders = [q.leader for q in self._parameters]
        self._twins = [[i for i, q in enumerate(leaders) if q is own] for own in leaders]
        self._factors = [q.factor_to_expected for q in self._parameters]
        self._spectra = {
            model.name: [self._place[(model.name, q.name)] for q in model.spectral_model.parameters]
            for model in models.sky_models
        }
        self._null: tuple[tuple[object, ...], float] | None = None
        edges = datasets[0].energy_axis.edges.to_value("TeV")
        self._band = np.array([edges[0]]), np.array([edges[-1]])

    def update(self, name: str | None = None, resolve: bool = True, **values: float) -> LiveState:
        """Move a source and re-solve what is linear.

        Parameters
        ----------
        name : str, optional
            The source that is moved, and whose worth is wanted.
        resolve : bool
            Whether amplitudes and norms are re-solved; if not, all values are taken as they are.
        **values : float
            New values of the source's parameters (``lon_0=..., lat_0=..., sigma=...``), each in
            its parameter's unit.
        """
        changed: dict[tuple[str, str], float] = {}
        for key, value in values.items():
            if (name, key) not in self._place:
                raise ModelError(f"{name}.{key}: no such parameter")
            place = self._place[(str(name), key)]
            self._p[self._twins[place]] = float(value) * self._factors[place]
            changed[(str(name), key)] = float(value)
        p, ev = self._p, self._likelihood.evaluator
        if resolve:
            solved = self._solver.solve(p)
            stat = solved.stat
            for place, value in zip(solved.places, solved.values, strict=True):
                q = self._parameters[place]
                p[place] = value
                for twin, leader in self._likelihood.follows.items():
                    if leader == place:
                        p[twin] = value
                changed[(q.owner, q.name)] = float(value / self._factors[place])
        else:
            stat = sum(term.evaluate(p, None) for term in ev.terms)
            stat += self._solver.prior_stat(p)
        every = [m.name for m in ev.models.sky_models]
        without = every if name is None else [name]
        delta = self._stat_without(without) - stat if every else 0.0
        images = ev.npred_full(p)
        for image in images:
            image.flags.writeable = False
        flux = {}
        for model in ev.models.sky_models:
            spectrum = p[self._spectra[model.name]]
            found, _ = model.spectral_model.integral_values(spectrum, *self._band)
            flux[model.name] = float(found[0])
        return LiveState(changed, float(stat), float(delta), tuple(images), flux)

    def _stat_without(self, names: list[str]) -> float:
        """The statistic without some sources, re-solved; known as long as nothing else changes."""
        others = [
            i
            for i, q in enumerate(self._parameters)
            if q.owner not in names and i not in self._solver.places
        ]
        key = (*names, self._p[others].tobytes())
        if self._null is None or self._null[0] != key:
            self._null = key, self._solver.solve(self._p, names).stat
        return self._null[1]
