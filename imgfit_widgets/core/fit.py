"""The fit: models to datasets, errors from the second derivatives, an honest verdict.

`Fit.solve` is pure: it reads datasets and models once and returns a `FitResult`, so that it can run
in a worker thread; `FitResult.apply` writes values and errors into models. `Fit.confidence`,
`stat_profile`, `stat_surface` and `stat_contour` look around the minimum (see `profile`).
`LiveLikelihood` is re-exported from `live` for those who fit by hand.

How it goes down is in `minimise`. The fit succeeds only if its last point has no slope left, curves
upwards in every direction and lies inside the map; otherwise the message says in words what is
wrong and what to do (`verdict`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import numpy as np

from .dataset import Datasets
from .errors import FitError
from .evaluator import DatasetLike
from .fit_result import FitResult, FitStep, LaterTS, SourceTS
from .likelihood import Likelihood, limits_of
from .live import LiveLikelihood, LiveState
from .minimise import Minimiser, newton_step
from .models import Models, Parameter
from .profile import Profiles
from .profile_result import Contour, MinosError, StatProfile, StatSurface
from .progress import Progress, part, silent
from .stats import sigma_of
from .verdict import judge, praise

__all__ = [
    "Fit",
    "FitResult",
    "FitStep",
    "LiveLikelihood",
    "LiveState",
    "SourceTS",
    "as_they_are",
    "look_around",
]

_RANKED = 0.1
"""Amplitudes and norms are solved until so much is to be gained where only the order matters."""
_CLEARLY = 10.0
"""A source whose amplitude is so many times its error is significant without being asked."""
_MOVED = 0.1
"""What others must gain by moving, once a source is taken out, for its TS to be asked with that."""


class Fit:
    """Fits models to datasets.

    Parameters
    ----------
    max_calls : int
        Evaluations after which the fit gives up.
    search_radius : float
        Degrees around each source with a free position in which the fit first looks for the place
        where a source improves the likelihood most; 0, the default, for none.
    """

    def __init__(self, max_calls: int = 2000, search_radius: float = 0.0) -> None:
        if not 0.0 <= search_radius <= 180.0:
            raise FitError(f"fit: search_radius {search_radius!r}; expected degrees from 0 to 180")
        self.max_calls, self.search_radius = max_calls, search_radius

    def run(
        self,
        datasets: Any,
        models: Models | None = None,
        progress: Progress = silent,
        on_step: Callable[[FitStep], None] | None = None,
    ) -> FitResult:
        """`solve`, then write the result into the models (those of the datasets by default)."""
        models = _models_on(datasets) if models is None else models
        result = self.solve(datasets, models, progress, on_step)
        result.apply(models)
        return result

    def solve(
        self,
        datasets: Any,
        models: Models,
        progress: Progress = silent,
        on_step: Callable[[FitStep], None] | None = None,
    ) -> FitResult:
        """Fit without changing anything.

        Parameters
        ----------
        datasets : dataset or sequence of them
        models : Models
        progress : Progress
            Called during the fit; may raise `Cancelled`.
        on_step : callable, optional
            Called with a `FitStep` at each evaluation.

        Raises
        ------
        ModelError, DataError
            If models and datasets cannot be compared.
        FitError
            If there is nothing to fit.
        """
        group = [datasets] if hasattr(datasets, "counts") else list(datasets)
        if not group:
            raise FitError("fit: there is no dataset")
        for dataset in group:
            if np.min(dataset.counts.data, initial=0.0) < 0:
                raise FitError(f"fit: the counts of dataset {dataset.name} are negative somewhere")
        if models is None or not len(models):
            raise FitError("fit: there is no model: give some, or set those of the datasets")
        likelihood = Likelihood(group, models)
        if not any(term.totals.counts.any() or term.totals.bare for term in likelihood.terms):
            raise FitError("fit: no counts in the bins to fit; widen the fit range or the mask")
        if not likelihood.names:
            raise FitError("fit: every parameter is frozen; free at least one")
        minimiser = Minimiser(likelihood, self.max_calls, progress, on_step)
        if self.search_radius:
            minimiser.progress = part(progress, 0.5, 1.0)
            look_around(minimiser, self.search_radius, part(progress, 0.0, 0.5))
        return _result(minimiser, *minimiser.run(), group)

    # --- around the minimum
    def profiles(self, fitted: Any, models: Models | None = None) -> Profiles:
        """What looks around a minimum.

        Parameters
        ----------
        fitted : FitResult, or dataset or sequence of them
            Datasets are fitted first, with ``models`` or their own, which stay as they are.
        models : Models, optional
        """
        if isinstance(fitted, FitResult):
            return Profiles(fitted)
        return Profiles(self.solve(fitted, _models_on(fitted) if models is None else models))

    def confidence(
        self,
        fitted: Any,
        parameter: Any,
        sigma: float = 1.0,
        models: Models | None = None,
        progress: Progress = silent,
    ) -> MinosError:
        """Asymmetric error of a parameter (`Profiles.minos`); ``fitted`` as for `profiles`."""
        return self.profiles(fitted, models).minos(parameter, sigma, progress)

    def stat_profile(
        self,
        fitted: Any,
        parameter: Any,
        values: Any = None,
        bounds: float | tuple[float, float] = 2.0,
        n: int = 11,
        models: Models | None = None,
        progress: Progress = silent,
    ) -> StatProfile:
        """Statistic along a parameter (`Profiles.stat_profile`)."""
        return self.profiles(fitted, models).stat_profile(parameter, values, bounds, n, progress)

    def stat_surface(
        self,
        fitted: Any,
        x: Any,
        y: Any,
        x_values: Any = None,
        y_values: Any = None,
        n: int = 11,
        models: Models | None = None,
        progress: Progress = silent,
    ) -> StatSurface:
        """Statistic over two parameters (`Profiles.stat_surface`)."""
        return self.profiles(fitted, models).stat_surface(x, y, x_values, y_values, n, progress)

    def stat_contour(
        self,
        fitted: Any,
        x: Any,
        y: Any,
        sigma: float = 1.0,
        n: int = 40,
        cl: float | None = None,
        models: Models | None = None,
        progress: Progress = silent,
    ) -> Contour:
        """Contour of two parameters (`Profiles.stat_contour`)."""
        return self.profiles(fitted, models).stat_contour(x, y, sigma, n, cl, progress)


def _models_on(datasets: Any) -> Models:
    """The models that a dataset, or some of them, have."""
    if isinstance(datasets, Datasets):
        return datasets.models
    return Datasets([datasets] if hasattr(datasets, "counts") else datasets).models


def as_they_are(datasets: Any, models: Models) -> FitResult:
    """The statistic of models of which nothing is free, to compare fits with."""
    group = [datasets] if hasattr(datasets, "counts") else list(datasets)
    like = Likelihood(group, models)
    nothing, stat = np.zeros(0), like.stat(np.zeros(0))
    return FitResult(
        success=True,
        message="Nothing is free.",
        nfev=1,
        total_stat=stat,
        edm=0.0,
        names=(),
        values=nothing,
        errors=nothing,
        covariance=np.zeros((0, 0)),
        parameters=_rows(like, nothing, nothing),
        ts={},
        datasets=group,
        models=models,
    )


def look_around(
    minimiser: Minimiser,
    radius: float,
    progress: Progress = silent,
    names: Collection[str] | None = None,
) -> None:
    """Start each source that may move, or only some, where it improves the likelihood most.

    On a grid of half the source's width within ``radius`` degrees, amplitudes and norms re-solved
    at each point; one source after the other, in their order.
    """
    like, solver = minimiser.likelihood, minimiser.solver
    movable = [
        m.name
        for m in like.models.sky_models
        if {(m.name, "lon_0"), (m.name, "lat_0")} <= set(like.names)
        and (names is None or m.name in names)
    ]
    x = minimiser.origin.copy()
    for number, model in enumerate(movable):
        i, k = (like.names.index((model, name)) for name in ("lon_0", "lat_0"))
        units = like.units[[i, k]]
        p = like.full(x)
        widths = (float(s.psf_width(p)) for t in like.terms for s in t.sources)
        step = max(0.5 * min(widths, default=0.05), radius / 40.0)
        count = int(np.ceil(radius / step))
        steps = step * np.arange(-count, count + 1)
        best, best_x = np.inf, x
        near = solver.solve(like.full(x))
        start = x[[i, k]] * units
        shrink = max(np.cos(np.radians(start[1])), 0.01)
        for row, north in enumerate(steps):
            done = (number + row / len(steps)) / len(movable)
            progress(done, f"Looking for {model} within {radius:g} deg")
            for east in steps:
                if np.hypot(north, east) > radius:
                    continue
                tried = x.copy()
                tried[[i, k]] = (start + np.array([east / shrink, north])) / units
                inside = np.all(tried >= minimiser.lower) and np.all(tried <= minimiser.upper)
                if not inside or not like.position_on_map(model, tried):
                    continue
                p = like.full(tried)
                # From those of the place before: most are nearly the same.
                p[near.places] = near.values
                near = solver.solve(p, enough=_RANKED)
                if near.stat < best:
                    best, best_x = near.stat, tried
        x = best_x
    minimiser.origin = x


def _result(
    minimiser: Minimiser,
    u: np.ndarray,
    hessian: np.ndarray,
    held: np.ndarray,
    datasets: Sequence[DatasetLike],
) -> FitResult:
    like = minimiser.likelihood
    x = minimiser.origin + u * minimiser.scale
    stat, gradient = minimiser.stat_and_slope(u)
    reason, covariance, edm = judge(minimiser, x, hessian, gradient, held)
    at_zero = None if reason else like.without_walls(x)
    if at_zero is not None:
        free = np.flatnonzero(~held)
        known = at_zero.of(free, minimiser.scale[free]).expected
        if np.linalg.eigvalsh(known)[0] > 0:
            covariance[np.ix_(free, free)] = 2.0 * np.linalg.inv(known)
    covariance = covariance * np.outer(minimiser.scale, minimiser.scale)
    variance = np.diag(covariance).copy()
    errors = np.where(variance > 0, np.sqrt(np.abs(variance)), np.nan)
    for i, (_, name) in enumerate(like.names):
        if x[i] < minimiser.room.lowest[i]:  # the shape depends on the square of this size
            x[i] = -x[i]
            covariance[i] *= -1.0
            covariance[:, i] *= -1.0
        elif name == "phi":
            x[i] = _turned_back(like.free_parameters[i], x[i])
    message = reason or praise(like, x, errors, held, _significances(minimiser, x, stat, errors))
    if at_zero is not None:
        message += " Predicted counts are held at 0 somewhere: take asymmetric errors (MINOS)."
    for array in (x, errors, covariance):
        array.flags.writeable = False
    return FitResult(
        success=not reason,
        message=message,
        nfev=minimiser.nfev,
        total_stat=stat,
        edm=float(edm),
        names=tuple(like.names),
        values=x,
        errors=errors,
        covariance=covariance,
        parameters=_rows(like, x, errors),
        ts=LaterTS(
            [model.name for model in like.models.sky_models],
            partial(_settled, minimiser, x, stat, hessian),
        ),
        datasets=datasets,
        models=like.models,
        backend="minuit" if minimiser.used_minuit else "newton",
    )


def _turned_back(phi: Parameter, value: float) -> float:
    """An angle turned by half circles, which leave an ellipse as it is, into its limits."""
    turn = 180.0 / phi.factor_to_expected
    low, high = limits_of(phi)
    if not np.isfinite(low):
        low = high - 2.0 * turn if np.isfinite(high) else -turn
    high = min(high, low + 2.0 * turn)
    if low <= value <= high:
        return value
    turns = np.ceil((low - value) / turn) if value < low else np.floor((high - value) / turn)
    return float(value + turn * turns)


def _significances(
    minimiser: Minimiser, x: np.ndarray, stat: float, errors: np.ndarray | None = None
) -> dict[str, SourceTS]:
    """With other sources where they are: at most too significant.

    If ``errors`` are given, only of sources whose amplitude is not many times its own.
    """
    like = minimiser.likelihood
    p = like.full(x)
    found = {}
    for model in like.models.sky_models:
        amplitude = (model.name, model.linear_parameter.name)
        if errors is not None and amplitude in like.names:
            i = like.names.index(amplitude)
            if x[i] > _CLEARLY * errors[i]:
                continue
        dof = sum(name == model.name for name, _ in like.names)
        found[model.name] = _source_ts(minimiser.solver.solve(p, [model.name]).stat - stat, dof)
    return found


def _source_ts(ts: float, dof: int) -> SourceTS:
    return SourceTS(float(ts), dof, sigma_of(ts, dof) if dof else np.nan)


def _settled(
    minimiser: Minimiser,
    x: np.ndarray,
    stat: float,
    hessian: np.ndarray,
) -> dict[str, SourceTS]:
    """`_significances` with other sources where they are best then."""
    minimiser.progress, minimiser.on_step = silent, None
    found = {}
    for name, ts in _significances(minimiser, x, stat).items():
        lowest = _lowest_without(minimiser, x, name, hessian)
        found[name] = _source_ts(min(ts.ts, lowest - stat), ts.dof)
    return found


def _lowest_without(minimiser: Minimiser, x: np.ndarray, name: str, hessian: np.ndarray) -> float:
    """The statistic without a source, all others at their best; infinite where that is not told."""
    like = minimiser.likelihood
    own = np.array([model == name for model, _ in like.names], dtype=bool)
    linear = np.isin(like.free_places, minimiser.solver.places)
    at = np.flatnonzero(own & linear)
    has_prior = {i for i, _ in like.priors} & set(at.tolist())
    if len(at) != 1 or not (~own & ~linear).any() or like.has_links or has_prior:
        return np.inf
    if not minimiser.lower[at[0]] <= 0.0 <= minimiser.upper[at[0]]:
        return np.inf
    without = minimiser.solver.solve(like.full(x), [name])
    values = like.full(x)
    values[without.places] = without.values
    start = values[like.free_places] / like.units
    start[at] = 0.0
    u = (start - minimiser.origin) / minimiser.scale
    stat, slope = minimiser.stat_and_slope(u)
    step = newton_step(hessian, slope, own)
    if step is not None and -0.5 * float(slope @ step) < _MOVED:
        return stat
    u, *_ = minimiser.refit(u, hessian, own)
    return minimiser.stat_and_slope(u)[0]


def _rows(like: Likelihood, x: np.ndarray, errors: np.ndarray) -> tuple[dict[str, Any], ...]:
    values = dict(zip(like.names, x, strict=True))
    found_errors = dict(zip(like.names, errors, strict=True))
    rows = []
    first = {id(q.leader): name for q, name in zip(like.free_parameters, like.names, strict=True)}
    for q in like.models.parameters:
        key = first.get(id(q.leader), (q.owner, q.name))
        rows.append(
            {
                "model": q.owner,
                "name": q.name,
                "value": float(values.get(key, q.value)),
                "unit": q.unit_text,
                "error": float(found_errors.get(key, 0.0)),
                "min": float(q.min),
                "max": float(q.max),
                "frozen": bool(q.frozen),
            }
        )
    return tuple(rows)
