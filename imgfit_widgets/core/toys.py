"""Toys: fake counts from models, many fits of them, and what these say of errors and significances.

`fake_counts`
    Poisson counts of what the models predict.
`run_toys`
    Fits of many such datasets: pulls, coverage, failures (`ToyResult`).
`ts_p_value`
    How often chance gives a source as significant as one that was found (`ToyPValue`).

Toy i is drawn with a generator seeded by (seed, i), so numbers do not depend on how many workers
there are, nor on how many toys come before. A fit that fails is counted and named.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from scipy.special import betaincinv, erfcinv

from .dataset import Datasets, MapDataset
from .errors import FitError, ImgfitError, InputError, ModelError
from .evaluator import Evaluator
from .fit import Fit, FitResult
from .likelihood import Likelihood
from .maps import WcsNDMap
from .models import GaussianPrior, Models
from .parallel import imap, open_executor
from .progress import Progress, part, silent
from .stats import sigma_of

FloatArray = NDArray[np.float64]
Intervals = Mapping[tuple[str, str], tuple[float, float]]

__all__ = [
    "ParameterPull",
    "ToyPValue",
    "ToyResult",
    "binomial_interval",
    "fake_counts",
    "run_toys",
    "ts_p_value",
]

_ONE_SIGMA = math.erf(math.sqrt(0.5))
_CHUNK = 5
"""Toys that a worker gets at a time."""


def fake_counts(
    datasets: MapDataset | Sequence[MapDataset], models: Models | None = None, seed: Any = 0
) -> Datasets:
    """The same datasets with Poisson counts of what the models predict.

    Parameters
    ----------
    datasets : `MapDataset` or sequence of them
    models : `Models`, optional
        Those of the datasets by default.
    seed : int, sequence of int or `numpy.random.Generator`
    """
    group = _group(datasets)
    chosen = _models(group, models)
    return Datasets(_draw(group, _expected(group, chosen), np.random.default_rng(seed), chosen))


@dataclass(frozen=True)
class ParameterPull:
    """How the fitted values of one parameter lie around the truth.

    ``mean`` and ``width`` are of (value - truth) / error over the ``n`` toys that have both; 0 and
    1 are expected. ``bias`` is the mean of value - truth, in the parameter's unit. ``coverage`` is
    the share of toys whose interval of one error holds the truth, 0.683 expected, with its 68 %
    interval; ``interval_coverage`` that of the intervals that were asked for.
    """

    model: str
    name: str
    truth: float
    unit: str
    n: int
    mean: float
    mean_err: float
    width: float
    width_err: float
    bias: float
    bias_err: float
    coverage: float
    coverage_low: float
    coverage_high: float
    interval_coverage: float
    n_intervals: int


@dataclass(frozen=True, eq=False)
class ToyResult:
    """The fits of all toys.

    Attributes
    ----------
    names : tuple of (model, parameter)
        The free parameters, P of them.
    units : tuple of str
    truth : ndarray, shape (P,)
        What the toys were drawn from.
    values, errors : ndarray, shape (n_toys, P)
        NaN where a fit came to no numbers.
    intervals : ndarray, shape (n_toys, P, 2)
        Those that were asked for, else NaN.
    success : ndarray of bool, shape (n_toys,)
    messages : tuple of str
        Of each fit.
    stat : ndarray, shape (n_toys,)
    ts : dict of str to ndarray, shape (n_toys,)
        Of each source.
    seed : int
    """

    names: tuple[tuple[str, str], ...]
    units: tuple[str, ...]
    truth: FloatArray
    values: FloatArray = field(repr=False)
    errors: FloatArray = field(repr=False)
    intervals: FloatArray = field(repr=False)
    success: NDArray[np.bool_] = field(repr=False)
    messages: tuple[str, ...] = field(repr=False)
    stat: FloatArray = field(repr=False)
    ts: dict[str, FloatArray] = field(repr=False)
    seed: int

    @property
    def n_toys(self) -> int:
        return len(self.success)

    @property
    def n_failed(self) -> int:
        """Fits without a valid minimum."""
        return int(np.count_nonzero(~self.success))

    @property
    def failures(self) -> dict[str, int]:
        """Why fits failed, and how often, the most frequent first."""
        texts = [m for m, ok in zip(self.messages, self.success, strict=True) if not ok]
        return dict(Counter(texts).most_common())

    @cached_property
    def residuals(self) -> FloatArray:
        """Value minus truth, shape (n_toys, P); longitudes the short way round."""
        found = self.values - self.truth
        for i, (_, name) in enumerate(self.names):
            if name == "lon_0" and self.units[i] == "deg":
                found[:, i] = (found[:, i] + 180.0) % 360.0 - 180.0
        return found

    @cached_property
    def pulls(self) -> tuple[ParameterPull, ...]:
        """One for each free parameter, from the fits that succeeded."""
        return tuple(self._pull(i) for i in range(len(self.names)))

    def pull(self, model: str, name: str) -> ParameterPull:
        """That of one parameter."""
        if (model, name) not in self.names:
            raise ModelError(f"{model}.{name}: is no free parameter of these toys")
        return self.pulls[self.names.index((model, name))]

    def _pull(self, i: int) -> ParameterPull:
        error = self.errors[:, i]
        good = self.success & np.isfinite(self.values[:, i]) & (error > 0)
        n = int(np.count_nonzero(good))
        residual = self.residuals[good, i]
        pull = residual / error[good]
        mean, mean_err, width, width_err = _moments(pull)
        bias, bias_err, _, _ = _moments(residual)
        inside = int(np.count_nonzero(np.abs(pull) <= 1.0))
        low, high = binomial_interval(inside, n)
        ends = self.intervals[:, i]
        known = self.success & np.all(np.isfinite(ends), axis=1)
        held = (ends[known, 0] <= self.truth[i]) & (self.truth[i] <= ends[known, 1])
        model, name = self.names[i]
        return ParameterPull(
            model,
            name,
            float(self.truth[i]),
            self.units[i],
            n,
            mean,
            mean_err,
            width,
            width_err,
            bias,
            bias_err,
            inside / n if n else math.nan,
            low,
            high,
            float(held.mean()) if len(held) else math.nan,
            len(held),
        )

    def to_table(self) -> Table:
        """One row for each parameter, the fields of `ParameterPull`."""
        keys = list(ParameterPull.__dataclass_fields__)
        return Table({key: [getattr(pull, key) for pull in self.pulls] for key in keys})

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "n_toys": self.n_toys,
            "n_failed": self.n_failed,
            "failures": self.failures,
            "seed": self.seed,
            "pulls": [{k: _plain(v) for k, v in vars(pull).items()} for pull in self.pulls],
        }

    def __str__(self) -> str:
        lines = [f"{self.n_toys} toys, seed {self.seed}: {self.n_failed} fits failed"]
        lines += [f"  {count} x {text}" for text, count in self.failures.items()]
        for p in self.pulls:
            if p.n < 2:
                lines.append(f"  {p.model}.{p.name}: {p.n} toys with an error, too few")
                continue
            text = (
                f"  {p.model}.{p.name}: pull {p.mean:+.2f} +/- {p.mean_err:.2f} wide "
                f"{p.width:.2f} +/- {p.width_err:.2f}; one error holds the truth in "
                f"{100 * p.coverage:.0f} % of {p.n} ({100 * p.coverage_low:.0f} to "
                f"{100 * p.coverage_high:.0f} %, expected 68 %)"
            )
            if p.n_intervals:
                text += f"; the intervals do in {100 * p.interval_coverage:.0f} %"
            lines.append(text)
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, eq=False)
class ToyPValue:
    """How often chance does as well as a source.

    ``p_value`` is (1 + n_above) / (1 + toys that were fitted), which is never 0 (Phipson & Smyth
    2010, Stat. Appl. Genet. Mol. Biol. 9, 39); ``p_low, p_high`` the 68 % interval of the share;
    ``p_worst`` what it is if every failed toy had been above. ``p_wilks`` is what a chi-square of
    ``dof`` gives, which need not hold where position or size mean nothing without the source.
    """

    source: str
    observed_ts: float
    dof: int
    n_toys: int
    n_failed: int
    n_above: int
    p_value: float
    p_low: float
    p_high: float
    p_worst: float
    sigma: float
    p_wilks: float
    seed: int
    failures: dict[str, int]
    ts: FloatArray = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = {key: _plain(value) for key, value in vars(self).items() if key != "ts"}
        return {**found, "ts": [_plain(float(v)) for v in self.ts]}

    def __str__(self) -> str:
        text = (
            f"{self.source}: TS {self.observed_ts:.2f}. {self.n_above} of "
            f"{self.n_toys - self.n_failed} toys without it reach that: p = {self.p_value:.2g} "
            f"(68 % interval {self.p_low:.2g} to {self.p_high:.2g}), {self.sigma:.1f} sigma; "
            f"chi-square with {self.dof} degrees of freedom says {self.p_wilks:.2g}.\n"
        )
        if self.n_failed:
            text += (
                f"{self.n_failed} toys failed; had they all been above, p = {self.p_worst:.2g}.\n"
            )
            text += "".join(f"  {count} x {why}\n" for why, count in self.failures.items())
        return text


def run_toys(
    datasets: MapDataset | Sequence[MapDataset],
    models: Models | None = None,
    n_toys: int = 100,
    seed: int = 0,
    fit: Fit | None = None,
    intervals: Callable[[FitResult], Intervals] | None = None,
    n_jobs: int = 1,
    scheduler: str | None = None,
    progress: Progress = silent,
) -> ToyResult:
    """Draw counts from the models and fit them with the same models, many times.

    A Gaussian prior is taken for another measurement, which each toy makes anew: its mean varies
    around the truth by its standard deviation.

    Parameters
    ----------
    datasets : `MapDataset` or sequence of them
        Their counts are not used.
    models : `Models`, optional
        The truth, and where fits begin; those of the datasets by default. Not changed.
    n_toys : int
    seed : int
    fit : `Fit`, optional
    intervals : callable, optional
        Asymmetric intervals of a fit, for their coverage: (model, parameter) to (low, high). A
        function of a module if there are several processes.
    n_jobs : int
        Processes; a script's work has to stand below ``if __name__ == "__main__":`` for several.
    scheduler : str, optional
        Address of a Dask scheduler instead.
    progress : Progress
        May raise `Cancelled`.

    Raises
    ------
    InputError
        If a number is out of range, or nothing is free.
    """
    group = _group(datasets)
    chosen = _models(group, models)
    work = _Work(
        tuple(_bare(group)),
        tuple(_expected(group, chosen)),
        chosen.copy(),
        chosen.copy(),
        _whole("seed", seed, 0),
        Fit() if fit is None else fit,
        intervals,
    )
    likelihood = Likelihood(group, chosen)
    names = tuple(likelihood.names)
    if not names:
        raise InputError("toys: every parameter is frozen; free at least one")
    toys = _run(work, _whole("n_toys", n_toys, 1), n_jobs, scheduler, progress)
    nothing = np.full(len(names), np.nan)
    parameters = likelihood.free_parameters
    sources = [model.name for model in chosen.sky_models]
    return ToyResult(
        names,
        tuple(p.unit_text for p in parameters),
        likelihood.x0.copy(),
        np.array([nothing if toy.values is None else toy.values for toy in toys]),
        np.array([nothing if toy.errors is None else toy.errors for toy in toys]),
        np.array([[toy.intervals.get(key, (np.nan, np.nan)) for key in names] for toy in toys]),
        np.array([toy.success for toy in toys]),
        tuple(toy.message for toy in toys),
        np.array([toy.stat for toy in toys]),
        {name: np.array([toy.ts.get(name, np.nan) for toy in toys]) for name in sources},
        work.seed,
    )


def ts_p_value(
    datasets: MapDataset | Sequence[MapDataset],
    source: str,
    models: Models | None = None,
    n_toys: int = 100,
    seed: int = 0,
    fit: Fit | None = None,
    n_jobs: int = 1,
    scheduler: str | None = None,
    progress: Progress = silent,
) -> ToyPValue:
    """The chance of a source's TS where there is none.

    The models without the source are fitted to the data; toys are drawn from that and fitted with
    the source, from where it is in ``models``. TS is that of `FitResult`, for data and toys alike.
    Places that the fit does not reach from there are not searched: for a source that was found by
    looking at a whole map, see `estimators.find`.

    Parameters
    ----------
    source : str
        Its name.

    Raises
    ------
    InputError, ModelError
        If there is no such source, or no free parameter.
    FitError
        If the data themselves cannot be fitted.
    """
    group = _group(datasets)
    chosen = _models(group, models)
    names = [model.name for model in chosen.sky_models]
    if source not in names:
        raise ModelError(f"source: there is no {source!r}; there are {', '.join(names) or 'none'}")
    solver = Fit() if fit is None else fit
    observed = solver.solve(group, chosen.copy(), part(progress, 0.0, 0.05))
    null = chosen.copy()
    null.remove(source)
    if any(not p.frozen for p in null.parameters):
        fitted = solver.solve(group, null, part(progress, 0.05, 0.1))
        if not fitted.success:
            raise FitError(f"toys: the fit without {source} failed: {fitted.message}")
        fitted.apply(null)
    if not observed.success:
        raise FitError(f"toys: the fit of the data failed: {observed.message}")
    found = observed.ts[source]
    if not found.dof:
        raise InputError(f"toys: {source} has no free parameter, so its TS says nothing of chance")
    work = _Work(
        tuple(_bare(group)),
        tuple(_expected(group, null)),
        null,
        chosen.copy(),
        _whole("seed", seed, 0),
        solver,
        None,
    )
    count = _whole("n_toys", n_toys, 1)
    toys = _run(work, count, n_jobs, scheduler, part(progress, 0.1, 1.0))
    ts = np.array([toy.ts.get(source, np.nan) if toy.success else np.nan for toy in toys])
    fitted_toys = int(np.count_nonzero(np.isfinite(ts)))
    failed = count - fitted_toys
    above = int(np.count_nonzero(ts[np.isfinite(ts)] >= found.ts))
    low, high = binomial_interval(above, fitted_toys)
    p_value = (1 + above) / (1 + fitted_toys)
    failures = Counter(toy.message for toy in toys if not toy.success)
    return ToyPValue(
        source,
        float(found.ts),
        found.dof,
        count,
        failed,
        above,
        p_value,
        low,
        high,
        (1 + above + failed) / (1 + count),
        _two_sided_sigma(p_value),
        math.erfc(sigma_of(found.ts, found.dof) / math.sqrt(2.0)),
        work.seed,
        dict(failures.most_common()),
        ts,
    )


def binomial_interval(k: int, n: int, level: float = _ONE_SIGMA) -> tuple[float, float]:
    """Central interval of a share of which k of n were seen (Clopper & Pearson 1934).

    (0, 1) if nothing was seen.
    """
    tail = 0.5 * (1.0 - level)
    if n == 0:
        return 0.0, 1.0
    low = float(betaincinv(k, n - k + 1, tail)) if k > 0 else 0.0
    high = float(betaincinv(k + 1, n - k, 1.0 - tail)) if k < n else 1.0
    return low, high


# --- the work of one toy, which may be done in another process
@dataclass(frozen=True)
class _Work:
    datasets: tuple[MapDataset, ...]
    expected: tuple[FloatArray, ...]
    truth: Models
    models: Models
    seed: int
    fit: Fit
    intervals: Callable[[FitResult], Intervals] | None


@dataclass(frozen=True)
class _Toy:
    success: bool
    message: str
    stat: float = math.nan
    values: FloatArray | None = None
    errors: FloatArray | None = None
    ts: dict[str, float] = field(default_factory=dict)
    intervals: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)


def _one(work: _Work, number: int, progress: Progress = silent) -> _Toy:
    rng = np.random.default_rng([work.seed, number])
    models = work.models.copy()
    group = list(_draw(work.datasets, work.expected, rng, None))
    for parameter in work.truth.parameters.unique_parameters:
        prior = parameter.prior
        if isinstance(prior, GaussianPrior) and prior.weight > 0 and not parameter.frozen:
            mean = rng.normal(parameter.value, prior.sigma / math.sqrt(prior.weight))
            own = models[parameter.owner].parameters[parameter.name]
            own.prior = GaussianPrior(mean, prior.sigma, prior.weight)
    try:
        result = work.fit.solve(group, models, progress)
        # Without a minimum there are no intervals.
        found = work.intervals(result) if work.intervals and result.success else {}
    except ImgfitError as error:
        return _Toy(False, str(error))
    return _Toy(
        bool(result.success),
        result.message,
        float(result.total_stat),
        np.array(result.values),
        np.array(result.errors),
        {name: float(ts.ts) for name, ts in result.ts.items()},
        {key: (float(low), float(high)) for key, (low, high) in found.items()},
    )


def _several(work: _Work, numbers: range) -> list[_Toy]:
    return [_one(work, number) for number in numbers]


def _run(
    work: _Work, count: int, n_jobs: int, scheduler: str | None, progress: Progress
) -> list[_Toy]:
    toys: list[_Toy] = []

    def tell(fraction: float = 0.0, message: str = "") -> None:
        failed = sum(not toy.success for toy in toys)
        text = f"Toys: {len(toys)} of {count}" + (f", {failed} failed" if failed else "")
        progress((len(toys) + fraction) / count, text)

    with open_executor(n_jobs, scheduler) as executor:
        tell()
        if executor is None:
            for number in range(count):
                toys.append(_one(work, number, tell))
        else:
            chunks = [range(i, min(i + _CHUNK, count)) for i in range(0, count, _CHUNK)]
            for some in imap(partial(_several, work), chunks, executor, tell):
                toys += some
                tell()
    tell()
    return toys


# --- helpers
def _group(datasets: MapDataset | Sequence[MapDataset]) -> list[MapDataset]:
    group = [datasets] if isinstance(datasets, MapDataset) else list(datasets)
    if not group:
        raise InputError("toys: there is no dataset")
    return group


def _models(group: Sequence[MapDataset], models: Models | None) -> Models:
    chosen = Datasets(group).models if models is None else models
    if not len(chosen):
        raise InputError("toys: there is no model; add a source or a background model first")
    return chosen


def _expected(group: Sequence[MapDataset], models: Models) -> list[FloatArray]:
    """What the models predict, never below 0: a deficit can take no more than there is."""
    evaluator = Evaluator(group, models)
    return [np.maximum(image, 0.0) for image in evaluator.npred(evaluator.x0)]


def _bare(group: Sequence[MapDataset]) -> Iterator[MapDataset]:
    for dataset in group:
        yield _with_counts(dataset, np.zeros(dataset.geom.data_shape), None)


def _draw(
    group: Sequence[MapDataset],
    expected: Sequence[FloatArray],
    rng: np.random.Generator,
    models: Models | None,
) -> Iterator[MapDataset]:
    for dataset, mean in zip(group, expected, strict=True):
        yield _with_counts(dataset, rng.poisson(mean).astype(float), models)


def _with_counts(dataset: MapDataset, counts: FloatArray, models: Models | None) -> MapDataset:
    return MapDataset(
        name=dataset.name,
        counts=WcsNDMap(dataset.geom, counts),
        background=dataset.background,
        exposure=dataset.exposure,
        psf=dataset.psf,
        edisp=dataset.edisp,
        mask_safe=dataset.mask_safe,
        mask_fit=dataset.mask_fit,
        gti=dataset.gti,
        runs=dataset.runs,
        models=models,
    )


def _whole(name: str, value: Any, minimum: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < minimum:
        raise InputError(f"{name}: {value!r}; expected a whole number from {minimum} up")
    return int(value)


def _moments(values: FloatArray) -> tuple[float, float, float, float]:
    """Mean and width, each with its error; NaN for fewer than two values."""
    n = len(values)
    if n < 2:
        return math.nan, math.nan, math.nan, math.nan
    width = float(np.std(values, ddof=1))
    return float(np.mean(values)), width / math.sqrt(n), width, width / math.sqrt(2.0 * (n - 1))


def _two_sided_sigma(p_value: float) -> float:
    return float(math.sqrt(2.0) * erfcinv(min(max(p_value, 1e-300), 1.0)))


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
