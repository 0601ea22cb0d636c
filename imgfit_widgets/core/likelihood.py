"""What a fit minimises: the evaluator's statistic of the parameters that are really free.

`Likelihood` takes linked parameters for one, by the linear map from the free parameters to all
those that move, and adds the priors. `Room` says how far each parameter may go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .derivatives import Derivatives
from .errors import ModelError
from .evaluator import DatasetLike, Evaluator
from .models import Models, Parameter, Prior, SkyModel

__all__ = ["Likelihood", "Room", "find_place", "limits_of"]

_SHAPE_BOUNDS = {
    "index": (-10.0, 10.0),
    "tilt": (-10.0, 10.0),
    "beta": (-10.0, 10.0),
    "lambda_": (-1.0, 1e3),
}
"""How far spectral shapes may go, in canonical units. ``alpha`` depends on the model."""
_ROUND, _OVAL, _DIRECTIONS = 0.05, 0.3, (0.0, 45.0, 90.0, -45.0)
"""Eccentricities that are level, where they have a slope, and the directions (deg) to try."""


class Likelihood:
    """Statistic, gradient and expected curvature of the free parameters.

    Parameters
    ----------
    datasets : sequence of DatasetLike
    models : Models
        Read now.

    Attributes
    ----------
    evaluator : Evaluator
    names : list of (model, parameter)
        The free parameters; of linked ones the first.
    free_parameters : list of Parameter
    free_places : ndarray of int
        Their positions among all parameters.
    units : ndarray
        What turns their values into canonical units.
    x0 : ndarray
        Their values in the models, within the range that a uniform prior allows.
    follows : dict of int to int
        Position of a linked parameter among all to that of the one it goes with.
    fixed_prior_stat : float
        What the priors of frozen parameters add to the statistic.
    """

    def __init__(self, datasets: Sequence[DatasetLike], models: Models) -> None:
        self.evaluator = ev = Evaluator(datasets, models)
        self.models, self.terms, self._datasets = models, ev.terms, datasets
        unique = list(models.parameters.unique_parameters)
        free = [p for p in unique if not p.frozen]
        chosen = {id(p.leader): i for i, p in enumerate(free)}
        moving = [chosen[id(p.leader)] for p in ev.free_parameters]
        first = [moving.index(i) for i in range(len(free))]
        self.free_parameters = free
        self.names = [(p.owner, p.name) for p in free]
        self.free_places, self.units = ev.free_places[first], ev.units[first]
        self.x0 = np.array([np.clip(p.value, *limits_of(p)) for p in free], dtype=float)
        self._spread: np.ndarray | None = None
        self.follows: dict[int, int] = {}
        if len(moving) > len(free):
            self._spread = np.zeros((len(moving), len(free)))
            self._spread[np.arange(len(moving)), moving] = 1.0
            for place, i in zip(ev.free_places, moving, strict=True):
                if int(place) != int(self.free_places[i]):
                    self.follows[int(place)] = int(self.free_places[i])
        self.priors: list[tuple[int, Prior]] = [
            (i, p.prior) for i, p in enumerate(free) if p.prior is not None
        ]
        fixed = [p for p in unique if p.frozen and p.prior]
        self.fixed_prior_stat: float = float(sum(p.prior.penalty(p.value)[0] for p in fixed))

    def _all(self, x: np.ndarray) -> np.ndarray:
        return x if self._spread is None else self._spread @ x

    def full(self, x: np.ndarray) -> np.ndarray:
        """All parameters in canonical units, with the free ones at ``x``."""
        return self.evaluator.full(self._all(x))

    def prior_stat(self, x: np.ndarray) -> float:
        """What the priors add to the statistic."""
        return self.fixed_prior_stat + sum(
            prior.penalty(float(x[i]))[0] for i, prior in self.priors
        )

    def stat(self, x: np.ndarray) -> float:
        """Cash statistic over the fit mask, and the priors."""
        return self.evaluator.stat(self._all(x)) + self.prior_stat(x)

    def stat_and_gradient(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """The statistic and its derivatives with respect to ``x``."""
        stat, gradient = self.evaluator.stat_and_gradient(self._all(x))
        if self._spread is not None:
            gradient = gradient @ self._spread
        stat += self.fixed_prior_stat
        for i, prior in self.priors:
            added, slope, _ = prior.penalty(float(x[i]))
            stat += added
            gradient[i] += slope
        return stat, gradient

    def derivatives(self, x: np.ndarray) -> Derivatives:
        """The statistic, its gradient, and its expected and exact second derivatives by ``x``."""
        return self._whole(self.evaluator.derivatives(self._all(x)), x)

    def without_walls(self, x: np.ndarray) -> Derivatives | None:
        """`derivatives` for errors where a prediction is held at 0, None where none is."""
        found = self.evaluator.without_walls(self._all(x))
        return None if found is None else self._whole(found, x)

    def _whole(self, found: Derivatives, x: np.ndarray) -> Derivatives:
        """With links and priors."""
        if self._spread is not None:
            found = found.through(self._spread)
        found.stat += self.fixed_prior_stat
        for i, prior in self.priors:
            added, slope, second = prior.penalty(float(x[i]))
            found.stat += added
            found.gradient[i] += slope
            found.add([i], second, second)
        return found

    def information(self, x: np.ndarray) -> np.ndarray:
        """Expected second derivatives of the statistic, shape (n_free, n_free)."""
        return self.derivatives(x).expected

    @property
    def has_links(self) -> bool:
        """Whether parameters follow others."""
        return self._spread is not None

    @property
    def has_extended(self) -> bool:
        """Whether a source has an extent of its own."""
        return any(not s.is_point for term in self.terms for s in term.sources)

    def recentre(self, x: np.ndarray) -> bool:
        """Place every rectangle around its source at ``x``; whether this changes anything."""
        return self.evaluator.recentre(self._all(x))

    def off_saddle(self, x: np.ndarray) -> np.ndarray:
        """``x`` with free eccentricities near 0 moved to where they have a slope.

        A round source is level in ``e`` and ``phi`` whatever the data: the best of four directions
        within the limits is where a fit can begin.
        """
        for i, (q, (model, name)) in enumerate(zip(self.free_parameters, self.names, strict=True)):
            if name != "e" or not abs(x[i]) < _ROUND or not limits_of(q)[1] > _OVAL:
                continue
            leader = self.models[model].parameters["phi"].leader
            at = next((k for k, p in enumerate(self.free_parameters) if p.leader is leader), None)
            moved = x.copy()
            moved[i] = _OVAL
            tried = [moved]
            if at is not None:
                low, high = limits_of(self.free_parameters[at])
                for angle in _DIRECTIONS[1:]:
                    ways = [x[at] + (angle + turn) / self.units[at] for turn in (0, -180, 180)]
                    inside = [way for way in ways if low <= way <= high]
                    if inside:
                        tried.append(moved.copy())
                        tried[-1][at] = inside[0]
            x = min(tried, key=self.stat)
        return x

    def position_on_map(self, model: str, x: np.ndarray) -> bool:
        """Whether a source at ``x`` lies on a pixel of at least one dataset."""
        return self.evaluator.position_on_map(model, self._all(x))

    def bands_of(self, model: str) -> int:
        """How many energy bands with bins to fit the datasets of a component have."""
        found = set()
        names = self.models[model].datasets_names
        for term, dataset in zip(self.terms, self._datasets, strict=True):
            if names is None or term.name in names:
                edges = np.asarray(dataset.energy_axis.edges.to_value("TeV"), dtype=float)
                for band, (low, high) in enumerate(pairwise(edges)):
                    if term.mask is None or term.mask[band].any():
                        found.add((round(float(low), 12), round(float(high), 12)))
        return len(found)


@dataclass(frozen=True)
class Room:
    """Limits of the free parameters in their units.

    ``natural`` marks those whose tighter limits are ours and not the user's; ``lowest`` is 0 for a
    size that may turn negative on the way, because the shape depends on its square.
    """

    lower: np.ndarray
    upper: np.ndarray
    natural: np.ndarray
    lowest: np.ndarray

    @classmethod
    def of(cls, likelihood: Likelihood) -> Room:
        """Positions stay on the maps, sizes below the maps' size, shapes in their ranges.

        Raises
        ------
        ModelError
            If the user's limits leave no room there.
        """
        rows = [
            _room(likelihood, model, q, float(unit))
            for (model, _), q, unit in zip(
                likelihood.names, likelihood.free_parameters, likelihood.units, strict=True
            )
        ]
        low, high, natural, lowest = (list(column) for column in zip(*rows, strict=True))
        return cls(np.array(low), np.array(high), np.array(natural, bool), np.array(lowest))


def _room(
    likelihood: Likelihood, model: str, q: Parameter, unit: float
) -> tuple[float, float, bool, float]:
    user_low, user_high = limits_of(q)
    own_low, own_high = -np.inf, np.inf
    component, name = likelihood.models[model], q.name
    lowest = user_low
    if isinstance(component, SkyModel) and q.kind == "spatial":
        if name in ("lon_0", "lat_0") or likelihood.evaluator.is_size(model, name):
            box = likelihood.evaluator.extent(model)
            own_low, own_high = {"lon_0": box[0], "lat_0": box[1]}.get(name, (0.0, box[2]))
            if likelihood.evaluator.is_even(model, name):
                own_low = -box[2]
                lowest = max(user_low, 0.0)
                # Mirrored at the end, so no further to the other side.
                user_low = -user_high if user_low <= 0 else user_low
        elif name == "phi":
            if (user_high - user_low) * unit >= 360.0 * (1 - 1e-9):
                # A full circle is no limit; a result beyond is turned back.
                user_low, lowest, user_high = -np.inf, -np.inf, np.inf
        elif name in component.spatial_model.fields():
            field = component.spatial_model.fields()[name]
            ends = np.array([field.min, field.max])
            own_low, own_high = np.where(np.isnan(ends), (-np.inf, np.inf), ends)
            # An ellipse of no width would be a line.
            own_high = 0.999 if name == "e" else own_high
            user_low, user_high = max(user_low, own_low), min(user_high, own_high)
    if name in _SHAPE_BOUNDS:
        own_low, own_high = _SHAPE_BOUNDS[name]
    elif name == "alpha":
        curved = "lambda_" in component.parameters.names
        own_low, own_high = (0.05, 10.0) if curved else (-10.0, 10.0)
    own_low, own_high = own_low / unit, own_high / unit
    low, high = max(user_low, own_low), min(user_high, own_high)
    if not low < high:
        raise ModelError(
            f"{q.label}: its limits {user_low:g} to {user_high:g} {q.unit_text} leave no room "
            f"within {own_low:g} to {own_high:g}, where the data are"
        )
    natural = own_low >= user_low and own_high <= user_high
    return low, high, natural, max(lowest, low)


def limits_of(parameter: Parameter) -> tuple[float, float]:
    """Limits of a parameter and of its uniform prior, infinite where it has none."""
    low, high = parameter.min, parameter.max
    low, high = (-np.inf if np.isnan(low) else low), (np.inf if np.isnan(high) else high)
    if parameter.prior is None:
        return low, high
    floor, ceiling = parameter.prior.limits
    if not max(low, floor) <= min(high, ceiling):
        raise ModelError(
            f"{parameter.label}: its prior allows {floor:g} to {ceiling:g}, its limits {low:g} to "
            f"{high:g} {parameter.unit_text}; expected a common range"
        )
    return max(low, floor), min(high, ceiling)


def find_place(names: Sequence[tuple[str, str]], parameter: object) -> int:
    """Position of a free parameter, given itself, ``MODEL.PARAMETER`` or (model, name).

    Raises
    ------
    ModelError
        Naming the free parameters.
    """
    if isinstance(parameter, Parameter):
        wanted: tuple[str, ...] = (parameter.owner, parameter.name)
    elif isinstance(parameter, str):
        wanted = tuple(parameter.rpartition(".")[::2])
    else:
        wanted = tuple(map(str, parameter)) if isinstance(parameter, (tuple, list)) else ()
    found = [i for i, name in enumerate(names) if name == wanted]
    if not found:
        label = ".".join(wanted) if wanted else repr(parameter)
        known = ", ".join(".".join(name) for name in names)
        raise ModelError(f"{label}: not a free parameter of this fit; expected one of {known}")
    return found[0]
