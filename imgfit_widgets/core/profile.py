"""The likelihood around a minimum: asymmetric errors, profiles, surfaces, contours.

`Profiles` is made of a `FitResult` and answers for any of its free parameters, all others re-fitted
at every point. What takes many points also comes as a generator (``iter_...``), so that a widget
can draw points as they come and stop when it likes; the collecting forms take ``progress`` instead,
which may raise `Cancelled`. `Profiles.ellipse` is the parabolic contour from the covariance, at
once.

Levels: ``sigma`` on one parameter is where the statistic has risen by sigma squared. A contour of
``sigma`` is where it has risen by sigma squared too, which for two parameters holds 39.3 % at 1
sigma, as in Gammapy and Minuit; ``cl`` asks for a probability instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .errors import FitError, ModelError
from .fit_result import FitResult, conditions_of
from .likelihood import Likelihood, find_place
from .minimise import Minimiser
from .models import Models
from .profile_result import Contour, ContourPoint, MinosError, StatProfile, StatSurface
from .progress import Progress, part, silent

__all__ = ["Contour", "ContourPoint", "MinosError", "Profiles", "StatProfile", "StatSurface"]

_ROOT_STEPS = 40
_ROOT_CLOSE = 1e-4
"""How near a crossing has to be, in sigmas."""
_LOWER = 1e-3
"""A point so much below the minimum means that there is a lower one."""
_JUMP = 1.3
"""Neighbours on a contour whose distances from the minimum differ by this factor are looked at."""
_HALVINGS = 7
_NEVER_REACHED = 30.0
"""Hesse errors beyond which a crossing is not looked for."""


class Profiles:
    """The likelihood around the minimum of a fit.

    Parameters
    ----------
    result : FitResult
        Parameters are named by themselves, ``MODEL.PARAMETER`` or (model, name).
    max_calls : int
        Evaluations that each answer may take.

    Raises
    ------
    FitError
        If the fit did not succeed, or its models have changed in kind since.
    """

    def __init__(self, result: FitResult, max_calls: int = 20000) -> None:
        if not result.success:
            raise FitError(f"profile: the fit found no minimum to look around: {result.message}")
        self.result, self.max_calls = result, max_calls
        self.likelihood = Likelihood(list(result.datasets), models_at(result))
        self.minimiser = Minimiser(self.likelihood, 10**9)
        errors = np.where(np.isfinite(result.errors) & (result.errors > 0), result.errors, 0.0)
        self.minimiser.stand_at(np.asarray(result.values), errors)
        self._held = errors == 0
        scale, n = self.minimiser.scale, len(errors)
        covariance = np.asarray(result.covariance) / np.outer(scale, scale)
        self._covariance = covariance
        self._hessian = np.zeros((n, n))
        free = np.flatnonzero(~self._held)
        if len(free):
            self._hessian[np.ix_(free, free)] = 2.0 * np.linalg.inv(covariance[np.ix_(free, free)])
        for i in np.flatnonzero(self._held):
            self._hessian[i, i] = 1.0
        room = self.minimiser.room
        self._low = (room.lowest - self.minimiser.origin) / scale
        self._high = (room.upper - self.minimiser.origin) / scale

    # --- errors
    def minos(self, parameter: Any, sigma: float = 1.0, progress: Progress = silent) -> MinosError:
        """Asymmetric error of a parameter; see `MinosError`.

        A few re-fits a side: Newton's method on the root of the rise, whose slope is the gradient
        at the conditional minimum.
        """
        i = self._place(parameter)
        _positive(sigma, "sigma")
        start = self.minimiser.nfev
        sides = []
        for number, sign in enumerate((-1.0, 1.0)):
            label = ".".join(self.result.names[i])
            progress(0.5 * number, f"{'Lower' if sign < 0 else 'Upper'} error of {label}")
            direction = sign * self._unit(i)
            sides.append(self._cross(direction, direction != 0, sigma, progress))
        progress(1.0, "Done")
        (low, low_kind), (high, high_kind) = sides
        scale = float(self.minimiser.scale[i])
        model, name = self.result.names[i]
        notes = [note for _, kind in sides if (note := _NOTES.get(kind, ""))]
        return MinosError(
            model,
            name,
            self.likelihood.free_parameters[i].unit_text,
            float(self.result.values[i]),
            float(sigma),
            -low * scale,
            high * scale,
            low_kind in ("level", "limit"),
            high_kind in ("level", "limit"),
            low_kind == "limit",
            high_kind == "limit",
            self.minimiser.nfev - start,
            " ".join(dict.fromkeys(notes)),
        )

    def minos_of(
        self, parameters: Sequence[Any], progress: Progress = silent
    ) -> tuple[MinosError, ...]:
        """Asymmetric errors of several; one that has none says why in its ``message``."""
        found = []
        for number, parameter in enumerate(parameters):
            share = part(progress, number / len(parameters), (number + 1) / len(parameters))
            try:
                found.append(self.minos(parameter, progress=share))
            except FitError as error:
                i = find_place(self.result.names, parameter)
                unit, value = self.likelihood.free_parameters[i].unit_text, self.result.values[i]
                found.append(MinosError.none(*self.result.names[i], unit, value, str(error)))
        return tuple(found)

    def _unit(self, *places: int) -> np.ndarray:
        direction = np.zeros(len(self._held))
        direction[list(places)] = 1.0
        return direction

    def _cross(
        self, ray: np.ndarray, fixed: np.ndarray, sigma: float, progress: Progress = silent
    ) -> tuple[float, str]:
        """Distance along a ray in u at which the re-fitted statistic has risen by sigma squared.

        Also its kind: ``level``, ``limit``, ``lower`` (a lower minimum), ``far`` or ``lost``.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = np.where(ray > 0, self._high / ray, np.where(ray < 0, self._low / ray, np.inf))
        end = max(float(ends.min()), 0.0)
        if end == 0.0:
            return 0.0, "limit"
        # What the others do along the ray, by the covariance: the start of each re-fit.
        along = self._follow(fixed, ray)
        curvature = float(along @ self._hessian @ along)
        guess = sigma / math.sqrt(0.5 * curvature) if curvature > 0 else sigma
        # The bracket: below the level at `inner`, above it at `outer`.
        inner, outer, at = 0.0, math.inf, min(guess, end)
        here = along * at
        called = self.minimiser.nfev
        for _ in range(_ROOT_STEPS):
            progress(0.5, "Following the likelihood")
            u, stat, gradient, valid = self.minimiser.refit(here, self._hessian, fixed)
            if not valid or self.minimiser.nfev - called > self.max_calls:
                if at - inner < 1e-3 * guess:
                    return math.nan, "lost"
                at = 0.5 * (inner + at)
                here = along * at
                continue
            if stat < -_LOWER:
                return math.nan, "lower"
            root = math.sqrt(max(stat, 0.0))
            slope = float(gradient @ ray)
            if abs(root - sigma) < _ROOT_CLOSE * max(sigma, 1.0):
                return at, "level"
            if root < sigma:
                if at >= end:
                    return end, "limit"
                inner = at
            else:
                outer = at
            rate = slope / (2.0 * root) if root > 0 else 0.0
            step = (sigma - root) / rate if rate > 0 else math.inf
            found = at + step
            most = min(outer, end, 3.0 * at)
            if not inner < found < outer or found > most:
                found = 0.5 * (inner + outer) if math.isfinite(outer) else most
            if outer - inner < 1e-9 * guess:
                return at, "level"
            if found > _NEVER_REACHED * guess and root < 0.3 * sigma:
                return math.nan, "far"
            here = u + along * (found - at)
            at = found
            here[fixed] = ray[fixed] * at
        return math.nan, "lost"

    def _follow(self, fixed: np.ndarray, ray: np.ndarray) -> np.ndarray:
        """The ray with what the others do along it near the minimum."""
        along = ray.copy()
        others = np.flatnonzero(~fixed & ~self._held)
        if len(others):
            block = self._hessian[np.ix_(others, others)]
            along[others] = -np.linalg.solve(block, self._hessian[others] @ ray)
        return along

    # --- one parameter
    def iter_profile(
        self,
        parameter: Any,
        values: Sequence[float] | np.ndarray | None = None,
        bounds: float | tuple[float, float] = 2.0,
        n: int = 11,
    ) -> Iterator[tuple[float, float, np.ndarray]]:
        """Points of `stat_profile` as they come: value, statistic, all free parameters.

        From the minimum outwards, so not in the order of the values.
        """
        i = self._place(parameter)
        wanted = self._scan(i, values, bounds, n)
        along = self._follow(self._unit(i) != 0, self._unit(i))
        fixed = self._unit(i) != 0
        target = (wanted - self.minimiser.origin[i]) / self.minimiser.scale[i]
        for side in (target[target >= 0], target[target < 0]):
            here, at = np.zeros(len(along)), 0.0
            for value in side[np.argsort(np.abs(side), kind="stable")]:
                begin = here + along * (value - at)
                begin[i] = value
                u, stat, _, valid = self._refit(begin, fixed)
                if valid:
                    here, at = u, float(value)
                x = self.minimiser.origin + u * self.minimiser.scale
                yield (
                    float(self.minimiser.origin[i] + value * self.minimiser.scale[i]),
                    self.result.total_stat + stat if valid else math.nan,
                    x,
                )

    def stat_profile(
        self,
        parameter: Any,
        values: Sequence[float] | np.ndarray | None = None,
        bounds: float | tuple[float, float] = 2.0,
        n: int = 11,
        progress: Progress = silent,
    ) -> StatProfile:
        """Statistic along a parameter, all else re-fitted.

        Parameters
        ----------
        parameter
        values : array, optional
            Where, in the parameter's unit.
        bounds : float or (float, float)
            Else so many Hesse errors to each side, or from here to there; within the limits.
        n : int
            How many values between the bounds.
        """
        i = self._place(parameter)
        count = len(self._scan(i, values, bounds, n))
        points = []
        for point in self.iter_profile(parameter, values, bounds, n):
            points.append(point)
            progress(len(points) / count, f"Profile: {len(points)} of {count} points")
        points.sort(key=lambda point: point[0])
        model, name = self.result.names[i]
        return StatProfile(
            model,
            name,
            self.likelihood.free_parameters[i].unit_text,
            _fixed([p[0] for p in points]),
            _fixed([p[1] for p in points]),
            self.result.total_stat,
            _fixed([p[2] for p in points]),
        )

    def _scan(self, i: int, values: Any, bounds: Any, n: int) -> np.ndarray:
        label = ".".join(self.result.names[i])
        room = self.minimiser.room
        low, high = float(room.lowest[i]), float(room.upper[i])
        if values is not None:
            found = np.atleast_1d(np.asarray(values, dtype=float))
            if found.ndim != 1 or not len(found) or not np.all(np.isfinite(found)):
                raise ModelError(f"{label}: scan values {values!r}; expected finite numbers")
            outside = found[(found < low) | (found > high)]
            if len(outside):
                raise ModelError(
                    f"{label}: scan value {outside[0]:g} is outside {low:g} to {high:g}"
                )
            return found
        if int(n) < 2:
            raise ModelError(f"{label}: {n} scan values; expected 2 or more")
        if np.ndim(bounds) == 0:
            reach = float(bounds) * float(self.minimiser.scale[i])
            _positive(bounds, "bounds")
            first, last = self.minimiser.origin[i] - reach, self.minimiser.origin[i] + reach
        else:
            first, last = (float(b) for b in bounds)
        first, last = max(first, low), min(last, high)
        if not first < last:
            raise ModelError(
                f"{label}: scan bounds {bounds!r}; expected room in {low:g} to {high:g}"
            )
        return np.linspace(first, last, int(n))

    def _refit(
        self, u: np.ndarray, fixed: np.ndarray
    ) -> tuple[np.ndarray, float, np.ndarray, bool]:
        return self.minimiser.refit(u, self._hessian, fixed)

    # --- two parameters
    def iter_surface(
        self, x: Any, y: Any, x_values: Any = None, y_values: Any = None, n: int = 11
    ) -> Iterator[tuple[int, int, float]]:
        """Points of `stat_surface` as they come: indices and statistic, back and forth by rows."""
        i, k = self._pair(x, y)
        xs, ys = self._scan(i, x_values, 2.0, n), self._scan(k, y_values, 2.0, n)
        fixed = self._unit(i, k) != 0
        origin, scale = self.minimiser.origin, self.minimiser.scale
        along = [self._follow(fixed, self._unit(place)) for place in (i, k)]
        here = np.zeros(len(origin))
        for row, value in enumerate(xs):
            columns = range(len(ys)) if row % 2 == 0 else range(len(ys) - 1, -1, -1)
            for column in columns:
                to = (value - origin[i]) / scale[i], (ys[column] - origin[k]) / scale[k]
                begin = here + along[0] * (to[0] - here[i]) + along[1] * (to[1] - here[k])
                begin[[i, k]] = to
                u, stat, _, valid = self._refit(begin, fixed)
                if valid:
                    here = u
                yield row, column, self.result.total_stat + stat if valid else math.nan

    def stat_surface(
        self,
        x: Any,
        y: Any,
        x_values: Any = None,
        y_values: Any = None,
        n: int = 11,
        progress: Progress = silent,
    ) -> StatSurface:
        """Statistic on a grid of two parameters, all else re-fitted.

        Parameters
        ----------
        x, y
            The two parameters.
        x_values, y_values : array, optional
            In their units; by default ``n`` within 2 Hesse errors.
        """
        i, k = self._pair(x, y)
        xs, ys = self._scan(i, x_values, 2.0, n), self._scan(k, y_values, 2.0, n)
        stat = np.full((len(xs), len(ys)), np.nan)
        for number, (row, column, value) in enumerate(self.iter_surface(x, y, xs, ys)):
            stat[row, column] = value
            progress((number + 1) / stat.size, f"Surface: {number + 1} of {stat.size} points")
        names = (self.result.names[i], self.result.names[k])
        return StatSurface(names, _fixed(xs), _fixed(ys), _fixed(stat), self.result.total_stat)

    def iter_contour(
        self, x: Any, y: Any, sigma: float = 1.0, n: int = 40, cl: float | None = None
    ) -> Iterator[ContourPoint]:
        """The ``n`` points of `stat_contour` as they come, in order around the minimum.

        The line is not closed, and points that it takes between two of them are left out.
        """
        at = self._rays(x, y, sigma, cl)
        for angle in np.linspace(0.0, 2.0 * np.pi, _count(n), endpoint=False):
            yield at(float(angle))

    def _rays(
        self, x: Any, y: Any, sigma: float, cl: float | None
    ) -> Callable[[float], ContourPoint]:
        """The point of a contour at an angle, in which the ellipse is passed evenly."""
        i, k = self._pair(x, y)
        level, _ = _level(sigma, cl)
        origin, scale = self.minimiser.origin, self.minimiser.scale
        root = np.linalg.cholesky(self._covariance[np.ix_([i, k], [i, k])])
        fixed = self._unit(i, k) != 0

        def at(angle: float) -> ContourPoint:
            direction = self._unit()
            direction[[i, k]] = root @ np.array([np.cos(angle), np.sin(angle)])
            distance, kind = self._cross(direction, fixed, level)
            valid = kind in ("level", "limit")
            here = origin + scale * direction * (distance if valid else math.nan)
            reach = distance / level if valid else math.nan
            return ContourPoint(
                float(here[i]), float(here[k]), valid, kind == "limit", angle, reach
            )

        return at

    def stat_contour(
        self,
        x: Any,
        y: Any,
        sigma: float = 1.0,
        n: int = 40,
        cl: float | None = None,
        progress: Progress = silent,
    ) -> Contour:
        """The line of two parameters where the re-fitted statistic has risen by sigma squared.

        Each point is found along its own ray from the minimum, so that the line is in order. Where
        it bends sharply or meets a limit there are further rays in between. `Contour.closed` and
        ``message`` tell where the region is not bounded by the level: at a limit of a parameter, at
        points that were not found, and where it lies in its own shadow, as seen from the minimum.

        Parameters
        ----------
        x, y
            The two parameters.
        sigma : float
        n : int
            Points at least.
        cl : float, optional
            Probability within the line for two parameters, instead of ``sigma``.
        """
        i, k = self._pair(x, y)
        level, probability = _level(sigma, cl)
        points: list[ContourPoint] = []
        for point in self.iter_contour(x, y, sigma, n, cl):
            points.append(point)
            progress(len(points) / n, f"Contour: {len(points)} of {n} points")
        at = self._rays(x, y, sigma, cl)
        line, hidden = [points[0]], False
        for last in (*points[1:], replace(points[0], angle=2.0 * np.pi)):
            between, broken = _between(line[-1], last, at)
            line += [*between, last]
            hidden |= broken
        names = (self.result.names[i], self.result.names[k])
        notes = []
        lost = sum(not p.valid for p in points)
        if lost:
            notes.append(
                f"{lost} of {n} points were not found: there is a lower minimum, or the "
                "likelihood does not rise; fit again from elsewhere."
            )
        if hidden:
            notes.append(
                "The region is not seen whole from the minimum: the line is cut short where it "
                "jumps; see stat_surface."
            )
        if met := self._limits_met(line, i, k):
            notes.append(f"The contour ends at a limit of a parameter: {met}.")
        elif any(p.at_limit for p in line):
            notes.append("The contour ends at a limit of a parameter.")
        return Contour(
            names,
            _fixed([p.x for p in line]),
            _fixed([p.y for p in line]),
            _fixed([p.valid for p in line]),
            _fixed([p.at_limit for p in line]),
            level,
            probability,
            " ".join(notes),
            not notes,
            **self._middle(i, k),
        )

    def _limits_met(self, line: list[ContourPoint], i: int, k: int) -> str:
        """Which limits the points at a limit lie at, in words."""
        room = self.minimiser.room
        found: dict[str, None] = {}
        for place, values in ((i, [p.x for p in line]), (k, [p.y for p in line])):
            label, scale = ".".join(self.result.names[place]), self.minimiser.scale[place]
            for end in (float(room.lowest[place]), float(room.upper[place])):
                near = [abs(v - end) < 1e-6 * scale for v in values]
                if any(a and p.at_limit for a, p in zip(near, line, strict=True)):
                    found[f"{label} = {end:g}"] = None
        return ", ".join(found)

    def ellipse(
        self, x: Any, y: Any, sigma: float = 1.0, n: int = 73, cl: float | None = None
    ) -> Contour:
        """The contour by the covariance alone: at once, and right where the rise is a parabola."""
        i, k = self._pair(x, y)
        level, probability = _level(sigma, cl)
        block = np.asarray(self.result.covariance)[np.ix_([i, k], [i, k])]
        angle = np.linspace(0.0, 2.0 * np.pi, _count(n))
        line = level * np.linalg.cholesky(block) @ np.stack([np.cos(angle), np.sin(angle)])
        names = (self.result.names[i], self.result.names[k])
        flags = np.ones(len(angle), dtype=bool)
        return Contour(
            names,
            _fixed(self.result.values[i] + line[0]),
            _fixed(self.result.values[k] + line[1]),
            _fixed(flags),
            _fixed(~flags),
            level,
            probability,
            **self._middle(i, k),
        )

    # --- helpers
    def _middle(self, i: int, k: int) -> dict[str, Any]:
        """What a contour of two parameters says of the point that it is around."""
        return {
            "minimum": (float(self.result.values[i]), float(self.result.values[k])),
            "units": tuple(self.likelihood.free_parameters[j].unit_text for j in (i, k)),
        }

    def _place(self, parameter: Any) -> int:
        i = find_place(self.result.names, parameter)
        if self._held[i]:
            raise FitError(
                f"{'.'.join(self.result.names[i])}: it is at its limit and has no error; widen the "
                "limit and fit again"
            )
        return i

    def _pair(self, x: Any, y: Any) -> tuple[int, int]:
        i, k = self._place(x), self._place(y)
        if i == k:
            raise ModelError(f"{'.'.join(self.result.names[i])}: expected two different parameters")
        return i, k


_NOTES = {
    "limit": "The parameter meets its limit before the level.",
    "lower": "There is a lower minimum on the way; fit again from there.",
    "far": "The likelihood does not rise to the level; the data do not bound the parameter.",
    "lost": "The other parameters found no minimum on the way.",
}


def _between(
    first: ContourPoint, last: ContourPoint, at: Callable[[float], ContourPoint]
) -> tuple[list[ContourPoint], bool]:
    """Points between two rays that differ much, and whether the line jumps between them.

    The half with the larger step is halved again and again: what remains is a bend, or a jump.
    """
    before: list[ContourPoint] = []
    after: list[ContourPoint] = []
    for _ in range(_HALVINGS):
        if not (first.valid and last.valid) or not _apart(first, last):
            return before + after, False
        middle = at(0.5 * (first.angle + last.angle))
        if not middle.valid:
            return before + after, False
        if _apart(first, middle) >= _apart(middle, last):
            last = middle
            after.insert(0, middle)
        else:
            first = middle
            before.append(middle)
    return before + after, max(first.reach, last.reach) > _JUMP * min(first.reach, last.reach)


def _apart(one: ContourPoint, other: ContourPoint) -> float:
    """By how much two neighbours differ, 0 if it does not matter."""
    ratio = max(one.reach, other.reach) / max(min(one.reach, other.reach), 1e-12)
    if one.at_limit != other.at_limit:
        return ratio
    return ratio if ratio > _JUMP and not one.at_limit else 0.0


def models_at(result: FitResult) -> Models:
    """The fitted models with values and limits as the fit left them; a copy.

    Raises
    ------
    FitError
        If components, shapes, links or priors have changed since.
    """
    models = result.models.copy()
    known = {(q.owner, q.name): q for q in models.parameters}
    if set(known) != {(row["model"], row["name"]) for row in result.parameters}:
        raise FitError("the models have other parameters than when they were fitted; fit again")
    if conditions_of(result.models) != result.conditions:
        raise FitError("the models have other links or priors than were fitted; fit again")
    for row in result.parameters:
        parameter = known[(row["model"], row["name"])]
        parameter.min = parameter.max = np.nan
        parameter.value = row["value"]
    for row in result.parameters:
        parameter = known[(row["model"], row["name"])]
        low, high = row["min"], row["max"]
        # Rounding may have left a value at a limit beyond it by its last digit.
        parameter.value = float(np.nanmax([np.nanmin([parameter.value, high]), low]))
        parameter.min, parameter.max, parameter.frozen = low, high, row["frozen"]
    return models


def _level(sigma: float, cl: float | None) -> tuple[float, float]:
    """The root of the rise, and the probability for two parameters."""
    if cl is None:
        _positive(sigma, "sigma")
        return float(sigma), -math.expm1(-0.5 * sigma**2)
    if not 0.0 < cl < 1.0:
        raise FitError(f"cl {cl!r}; expected a probability between 0 and 1")
    return math.sqrt(-2.0 * math.log1p(-cl)), float(cl)


def _positive(value: Any, name: str) -> None:
    if isinstance(value, bool) or not 0 < float(value) < math.inf:
        raise FitError(f"{name} {value!r}; expected a number above 0")


def _count(n: int) -> int:
    if int(n) < 4:
        raise FitError(f"a contour of {n} points; expected 4 or more")
    return int(n)


def _fixed(values: Any) -> np.ndarray:
    array = np.array(values)
    array.flags.writeable = False
    return array
