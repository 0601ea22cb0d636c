"""What a fit leaves behind: frozen, and with references to what it was computed from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import FitError
from .likelihood import limits_of
from .models import Models
from .response import DatasetLike

__all__ = ["FitResult", "FitStep", "LaterTS", "SourceTS"]


@dataclass(frozen=True)
class FitStep:
    """How far a running fit is: evaluations so far, statistic, values by (model, parameter)."""

    nfev: int
    stat: float
    values: dict[tuple[str, str], float]


@dataclass(frozen=True)
class SourceTS:
    """How much a source improves the fit.

    ``ts`` is the statistic without it minus the one with it. Other amplitudes and norms are solved
    anew, and other sources take the place and shape that is best then (not where parameters are
    linked: `source_ts` fits everything again). ``dof`` is the number of its free parameters,
    ``sigma`` the equivalent significance if ts followed chi2(dof); NaN for a source without a free
    parameter, whose ts says nothing of chance.
    """

    ts: float
    dof: int
    sigma: float


class LaterTS(Mapping[str, SourceTS]):
    """`SourceTS` by source, computed all at once when the first is asked for.

    Parameters
    ----------
    names : sequence of str
    compute : callable
        Called once; a result that goes to another thread is to be asked before.
    """

    def __init__(self, names: Sequence[str], compute: Callable[[], dict[str, SourceTS]]) -> None:
        self._names = tuple(names)
        self._compute: Callable[[], dict[str, SourceTS]] | None = compute
        self._found: dict[str, SourceTS] = {}

    def __getitem__(self, name: str) -> SourceTS:
        if self._compute is not None:
            self._found, self._compute = self._compute(), None
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def conditions_of(models: Models) -> tuple[tuple[int, Any], ...]:
    """The place of each parameter's leader (-1 if it is not among them), and its prior."""
    parameters = list(models.parameters)
    place = {id(p): i for i, p in enumerate(parameters)}
    return tuple((place.get(id(p.leader), -1), p.prior) for p in parameters)


@dataclass(frozen=True, eq=False)
class FitResult:
    """The outcome of a fit, whole and unchanging.

    Attributes
    ----------
    success : bool
        Whether this is a minimum inside the map with a covariance.
    message : str
        Why not, and what to do; or how good it is.
    nfev : int
        Evaluations of the likelihood.
    total_stat : float
        Statistic at the end.
    edm : float
        Expected distance to the minimum, in units of the statistic.
    names : tuple of (model, parameter)
        The free parameters.
    values, errors : ndarray, shape (n,)
        In the parameters' units; an error is NaN if the data do not give one.
    covariance : ndarray, shape (n, n)
    parameters : tuple of dict
        Every parameter: model, name, value, unit, error, min, max, frozen.
    ts : mapping
        Source name to `SourceTS`; computed when it is asked for.
    datasets, models
        What was fitted.
    backend : str
        ``newton``, or ``minuit`` where the valley was not that simple.
    conditions : tuple of (int, Prior or None)
        The place of each parameter's leader, and its prior, when it was fitted.
    """

    success: bool
    message: str
    nfev: int
    total_stat: float
    edm: float
    names: tuple[tuple[str, str], ...]
    values: np.ndarray
    errors: np.ndarray
    covariance: np.ndarray = field(repr=False)
    parameters: tuple[dict[str, Any], ...] = field(repr=False)
    ts: Mapping[str, SourceTS]
    datasets: Sequence[DatasetLike] = field(repr=False)
    models: Models = field(repr=False)
    backend: str = "newton"
    conditions: tuple[tuple[int, Any], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "conditions", conditions_of(self.models))

    @property
    def stat(self) -> float:
        """The same as `total_stat`."""
        return self.total_stat

    @property
    def correlation(self) -> np.ndarray:
        """Correlation of the free parameters, shape (n, n)."""
        scale = np.sqrt(np.clip(np.diag(self.covariance), 0.0, None))
        with np.errstate(invalid="ignore", divide="ignore"):
            found = self.covariance / np.outer(scale, scale)
        return np.where(np.isfinite(found), found, np.eye(len(scale)))

    def key(self, model: str, parameter: str) -> tuple[str, str] | None:
        """The entry of `names` that a parameter was fitted as, itself or one linked; or None."""
        keys = [(row["model"], row["name"]) for row in self.parameters]
        if (model, parameter) not in keys:
            return None
        leader = self.conditions[keys.index((model, parameter))][0]
        same = [key for key, (of, _) in zip(keys, self.conditions, strict=True) if of == leader]
        same = same if leader >= 0 else [(model, parameter)]
        return next((key for key in same if key in self.names), None)

    def value(self, model: str, parameter: str) -> float:
        """Value of a free parameter."""
        return float(self.values[self._place(model, parameter)])

    def error(self, model: str, parameter: str) -> float:
        """Error of a free parameter."""
        return float(self.errors[self._place(model, parameter)])

    def _place(self, model: str, parameter: str) -> int:
        key = self.key(model, parameter)
        if key is None:
            raise FitError(f"{model}.{parameter}: not fitted; expected a free parameter")
        return self.names.index(key)

    def priors_beyond(self, other: FitResult) -> float:
        """What priors add to the statistic that the other fit, of other models, does not have.

        Their scale is a matter of units, so that it must not decide between the two.
        """
        theirs = {
            (row["model"], row["name"])
            for row, (_, prior) in zip(other.parameters, other.conditions, strict=True)
            if prior is not None
        }
        own: dict[int, list[tuple[dict[str, Any], Any]]] = {}
        for place, row in enumerate(self.parameters):
            leader, prior = self.conditions[place]
            if prior is not None:
                own.setdefault(place if leader < 0 else leader, []).append((row, prior))
        total = 0.0
        for linked in own.values():
            if not theirs & {(row["model"], row["name"]) for row, _ in linked}:
                row, prior = linked[0]
                total += prior.penalty(row["value"])[0]
        return float(total)

    def apply(self, models: Models | None = None) -> None:
        """Write values, errors and covariance into models (those that were fitted by default)."""
        models = self.models if models is None else models
        targets = [models[model].parameters[name] for model, name in self.names]
        for parameter, value in zip(targets, self.values, strict=True):
            # Rounding may leave a value at a limit beyond it by its last digit.
            parameter.value = float(np.clip(value, *limits_of(parameter)))
        models.set_covariance(targets, self.covariance)
        fitted = {id(p.leader) for p in targets}
        for parameter in models.parameters:
            if id(parameter.leader) not in fitted:
                parameter.leader.covariance_row = None
                parameter.error = 0.0
        for parameter, error in zip(targets, self.errors, strict=True):
            parameter.error = float(error)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: what the command line prints as ``fit``, and each source's significance."""
        rows = [{k: _json_number(v) for k, v in row.items()} for row in self.parameters]
        return {
            "success": bool(self.success),
            "message": self.message,
            "nfev": int(self.nfev),
            "stat": _json_number(self.total_stat),
            "parameters": rows,
            "covariance": {
                "names": [f"{model}.{name}" for model, name in self.names],
                "data": [[_json_number(v) for v in row] for row in self.covariance.tolist()],
            },
            "ts": {
                name: {"ts": _json_number(t.ts), "dof": t.dof, "sigma": _json_number(t.sigma)}
                for name, t in self.ts.items()
            },
        }

    def __str__(self) -> str:
        return (
            "OptimizeResult\n\n"
            f"\tbackend    : {self.backend}\n"
            f"\tmethod     : {self.backend}\n"
            f"\tsuccess    : {self.success}\n"
            f"\tmessage    : {self.message}\n"
            f"\tnfev       : {self.nfev}\n"
            f"\ttotal stat : {self.total_stat:.2f}\n"
        )


def _json_number(value: Any) -> Any:
    """Floats that JSON cannot spell become None."""
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value
