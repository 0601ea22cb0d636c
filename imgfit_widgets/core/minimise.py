"""The way down the exact gradient to a minimum, free of any judgement about it.

Amplitudes and norms are solved at the start positions first, where the statistic is convex in them,
so that the slope in position means something. A point that starts beyond the PSF then goes in one
step to where slope and curvature say that it belongs. Damped steps by the second derivatives go
down from there, or by the Fisher information where these do not curve upwards; positions are
limited to the map. As the second derivatives are exact, some four steps reach what takes Minuit
some sixty evaluations. Extended sources are predicted roughly, in bins of pixels, for most of the
way (`Evaluator.set_rough`); the last steps are taken with the exact prediction, so that any start
of one valley ends in one point. Where they find no bottom, Minuit takes over with the same
gradient, scales and limits. `Minimiser.refit` follows a minimum while some parameters are held
elsewhere: what profiles and contours are made of.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .derivatives import Derivatives
from .fit_result import FitStep
from .likelihood import Likelihood, Room
from .live import LinearSolver
from .progress import Progress, silent

__all__ = ["EDM_VALID", "LEVEL", "Minimiser", "curves_up", "newton_step", "scored"]

_STARTED = 1.0
"""Amplitudes and norms are solved before the first step until one would gain less, or to the end if
nothing else is free.
"""
_SCORING_STEPS = 40
_STRIDE = 7.0
"""How far a position or size may go in one scoring step, in scales."""
_BELL = 12.0
"""Width, in scales, of the bell as which the gain of a point falls with the distance.

1.2 of the effective width of the PSF: 1 for a Gaussian PSF in much background, more for a bright
source.
"""
_FARTHEST = 20.0
"""How far up that bell one step may go, in scales."""
_SEEN = 25.0
"""What a source must gain where it starts for its slope and curvature to tell where it belongs."""
_SCORED = 1e-2
"""The scoring ends when a step is expected to gain less."""
_SCORED_ROUGH = 0.3
"""With a rough prediction: its lowest statistic is off by more."""
_LEAP = 10.0
"""With a rough prediction, where a step that is expected to gain less is the last, untried."""
_CURVED = 0.02
"""Part of the expected curvature that the true one has to have for steps by it."""
LEVEL = 1e-9
"""Curvature, as a part of the largest, that is none."""
_NEAR_STEP = 1.0
"""How far, in scales, the exact minimum may be from the rough one to be next to it."""
_NEWTON_STEPS = 12
_EDM = 1e-8
"""Newton stops when the expected further gain in the statistic is below this: 1e-4 of an error."""
EDM_VALID = 1e-5
"""A minimum is one if the expected further gain is below this."""
_REFIT_STEPS = 60
_REFIT_EDM = 1e-6
_STEPS = {"phi": 3.0, "e": 0.03, "eta": 0.03, "edge_width": 0.03}
"""Scales of shape parameters in canonical units."""


class Minimiser:
    """One way down. Works in ``u = (x - origin) / scale``, in which errors are about 1.

    Parameters
    ----------
    likelihood : Likelihood
    max_calls : int
        Evaluations after which it gives up.
    progress, on_step
        As for `Fit.solve`.

    Attributes
    ----------
    information : ndarray, shape (n, n)
        Expected second derivatives by the parameters where it last asked for them.
    """

    def __init__(
        self,
        likelihood: Likelihood,
        max_calls: int,
        progress: Progress = silent,
        on_step: Callable[[FitStep], None] | None = None,
    ) -> None:
        self.likelihood, self.max_calls = likelihood, max_calls
        self.progress, self.on_step = progress, on_step
        self.solver = LinearSolver(likelihood)
        self.nfev = 0
        self.used_minuit = False
        self.origin = likelihood.x0.copy()
        self.scale = np.ones(len(self.origin))
        # How far scoring moves each parameter at a time, in scales. Where predictions are rough,
        # amplitudes stay on the step.
        most = 1e6 if likelihood.has_extended else np.inf
        self.longest = np.full(len(self.origin), most)
        # Sizes and position of each source with a size; its sizes; how wide (deg) it is at first.
        self._growing: list[tuple[list[int], list[int], float]] = []
        self.room = Room.of(likelihood)
        self.lower, self.upper = self.room.lower, self.room.upper
        self._last: tuple[bytes, float, np.ndarray] = (b"", 0.0, np.empty(0))
        self._derived: tuple[bytes, Derivatives] = (b"", Derivatives.zero(0))
        self.information = np.zeros((0, 0))
        self._zero = 0.0

    # --- the function that Minuit sees
    def _evaluate(self, u: Any) -> tuple[float, np.ndarray]:
        u = np.asarray(u, dtype=float)
        if not np.all(np.isfinite(u)):
            return 1e30, np.zeros(len(u))
        x = self.origin + u * self.scale
        key = x.tobytes()
        if key != self._last[0]:
            if key == self._derived[0]:
                stat, gradient = self._derived[1].stat, self._derived[1].gradient
            else:
                stat, gradient = self.likelihood.stat_and_gradient(x)
                self._count(x, stat)
            if not np.isfinite(stat) or not np.all(np.isfinite(gradient)):
                stat, gradient = 1e30, np.zeros(len(u))
            self._last = (key, stat, gradient)
        return self._last[1] - self._zero, self._last[2] * self.scale

    def _derivatives(self, u: np.ndarray) -> Derivatives:
        """The statistic and its derivatives by u."""
        x = self.origin + u * self.scale
        key = x.tobytes()
        if key != self._derived[0]:
            self._derived = key, self.likelihood.derivatives(x)
            self.information = self._derived[1].expected
            self._count(x, self._derived[1].stat)
        found = self._derived[1].of(slice(None), self.scale)
        found.stat -= self._zero
        return found

    def _count(self, x: np.ndarray, stat: float) -> None:
        self.nfev += 1
        self._report(x, stat)

    def _recentre(self, x: np.ndarray) -> None:
        """Place every source's rectangle around it: the statistic changes by its last digits."""
        if self.likelihood.recentre(x):
            self._last = (b"", 0.0, np.empty(0))
            self._derived = (b"", Derivatives.zero(0))

    def stat_and_slope(self, u: np.ndarray) -> tuple[float, np.ndarray]:
        """The statistic and its derivatives by u."""
        stat, slope = self._evaluate(u)
        return stat + self._zero, slope

    def _report(self, x: np.ndarray, stat: float) -> None:
        self.progress(1.0 - 8.0 / (8.0 + self.nfev), f"Fitting: {self.nfev} evaluations")
        if self.on_step is not None:
            values = dict(zip(self.likelihood.names, map(float, x), strict=True))
            self.on_step(FitStep(self.nfev, float(stat), values))

    # --- the steps
    def run(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Down to the bottom: the point, its Hessian and what a limit holds, in u."""
        self._report(self.origin, np.nan)
        rough = self.likelihood.has_extended
        try:
            self.likelihood.evaluator.set_rough(rough)
            self._start()
            u, here = self._score(self._approached(), *((_SCORED_ROUGH, _LEAP) if rough else ()))
        finally:
            self.likelihood.evaluator.set_rough(False)
        if rough:
            self._recentre(self.origin + u * self.scale)
            u, here = self._score(self._nearer(u, here.observed))
        u, hessian, held = self._polish(u, here.observed)
        for _ in range(4):
            if self._is_bottom(u, hessian, held) or self.nfev > self.max_calls:
                break
            downhill = self._escape(u, hessian, held)
            u = self._minuit(u if downhill is None else downhill)
            u, hessian, held = self._polish(u)
        return u, hessian, held

    def stand_at(self, x: np.ndarray, errors: np.ndarray) -> None:
        """Take a minimum that is known already for the origin."""
        self.origin = np.clip(x, self.lower, self.upper)
        self.scale = np.where(errors > 0, errors, 1.0)
        self._recentre(self.origin)
        self._zero = self._evaluate(np.zeros(len(x)))[0] + self._zero

    def _is_bottom(self, u: np.ndarray, hessian: np.ndarray, held: np.ndarray) -> bool:
        step = newton_step(hessian, self._evaluate(u)[1], held)
        return step is not None and -0.5 * float(self._evaluate(u)[1] @ step) < EDM_VALID

    def _nearer(self, u: np.ndarray, hessian: np.ndarray) -> np.ndarray:
        """One step by second derivatives that are nearly true here, if it is short and a gain.

        So that the exact ones are asked for next to the minimum only.
        """
        if self.nfev >= self.max_calls:
            return u
        held = self._at_bound(u)
        stat, gradient = self._evaluate(u)
        step = newton_step(_free_of(hessian, held), gradient, held)
        if step is None or not np.abs(step).max() <= _NEAR_STEP:
            return u
        tried = np.clip(u + step, *self._u_bounds())
        return tried if self._derivatives(tried).stat < stat else u

    def _score(
        self, u: np.ndarray, enough: float = _SCORED, leap: float = 0.0
    ) -> tuple[np.ndarray, Derivatives]:
        def spent() -> bool:
            return self.nfev >= self.max_calls

        bounds, ev = self._u_bounds(), self.likelihood.evaluator
        return scored(
            self._derivatives, self._longest, u, bounds, spent, enough, lambda: ev.layouts, leap
        )

    def _longest(self, u: np.ndarray) -> np.ndarray:
        """How far each parameter may go in one step from u: further where its source has grown."""
        longest = self.longest.copy()
        for own, sizes, first in self._growing:
            x = self.origin[sizes] + u[sizes] * self.scale[sizes]
            grown = float(np.abs(x * self.likelihood.units[sizes]).max()) / first
            longest[own] *= max(grown, 1.0)
        return longest

    def _start(self) -> None:
        """Solve what is linear and find out how large a step of each parameter is."""
        ev = self.likelihood
        place_of, is_size = ev.evaluator.place, ev.evaluator.is_size
        self._recentre(self.origin)
        p = ev.full(self.origin)
        whole = set(ev.free_places) <= set(self.solver.places)
        linear = self.solver.solve(p) if whole else self.solver.solve(p, enough=_STARTED)
        for place, value in zip(linear.places, linear.values, strict=True):
            p[place] = value
        for place in {s.linear for t in ev.terms for s in t.sources} & set(linear.places):
            # Nothing here: a source of one sigma still has a slope towards its neighbours.
            p[place] = max(p[place], linear.scale(place))
        x = p[ev.free_places] / ev.units
        x = ev.off_saddle(np.clip(x, self.lower, self.upper))
        p = ev.full(x)
        start = ev.derivatives(x)
        known = np.diag(start.expected)
        width = min((float(s.psf_width(p)) for t in ev.terms for s in t.sources), default=0.05)
        for i, (model, name) in enumerate(ev.names):
            place, unit = int(ev.free_places[i]), ev.units[i]
            if linear.scale(place) > 0:
                self.scale[i] = linear.scale(place) / unit
            elif name in ("lon_0", "lat_0") or is_size(model, name):
                size = width
                if is_size(model, name):
                    size = max(width, abs(p[place])) / 2
                if name == "lon_0":
                    size = size / max(np.cos(np.radians(p[place_of(model, "lat_0")])), 0.01)
                self.scale[i] = size / 10 / unit
                self.longest[i] = _STRIDE
            elif name in _STEPS:
                self.scale[i] = _STEPS[name] / unit
                self.longest[i] = _STRIDE
            else:
                # As the data say, where they say enough; no step may leave a shape's own scale.
                most = 0.03 * max(abs(x[i]), 1.0) if name != "reference" else 0.1
                error = np.sqrt(2.0 / known[i]) if known[i] > 0 else np.inf
                self.scale[i] = float(np.clip(error, 0.01 * most, most))
        for model in {model for model, _ in ev.names}:
            mine = [i for i, (owner, _) in enumerate(ev.names) if owner == model]
            sizes = [i for i in mine if is_size(*ev.names[i])]
            own = sizes + [i for i in mine if ev.names[i][1] in ("lon_0", "lat_0")]
            if sizes:
                first = max(width, float(np.abs(x * ev.units)[sizes].max()))
                self._growing.append((own, sizes, first))
        self.origin, self._zero = x, start.stat
        self._derived, self.information = (x.tobytes(), start), start.expected

    def _approached(self) -> np.ndarray:
        """Nearer to points that are farther from their start than a step may go, 0 where none is.

        What a source gains with its amplitude at its best falls with the distance d from its place
        like a bell of some width S. Its slope over its curvature is ``d / (1 - d**2 / S**2)``, so
        that they tell d, and its amplitude is ``exp(-d**2 / (4 S**2))`` times that at its place.
        """
        like, start = self.likelihood, np.zeros(len(self.origin))
        if like.has_extended or self.nfev >= self.max_calls:
            return start
        here, u = self._derivatives(start), start.copy()
        places, at_all = like.free_places.tolist(), dict[int, list[int]]()
        linear = [i for i, place in enumerate(places) if place in self.solver.places]
        for source in (s for term in like.terms for s in term.sources):
            own = [(source.model.name, name) for name in ("lon_0", "lat_0")]
            if set(own) <= set(like.names) and source.linear in places:
                at_all[places.index(source.linear)] = [like.names.index(name) for name in own]
        for amplitude, at in at_all.items():
            value = self.origin[amplitude] / self.scale[amplitude]
            if 0.5 * value**2 * here.expected[amplitude, amplitude] < _SEEN:
                continue
            apart = (self.origin[list(at_all.values())] - self.origin[at]) / self.scale[at]
            if (np.hypot(*apart.T) < 1.5 * _FARTHEST).sum() > 1:
                continue  # The slope may be a neighbour's.
            way, d = _far_up(here, at, linear)
            if d > _STRIDE:
                u[at] = d * way
                u[amplitude] = value * math.expm1((d / (2.0 * _BELL)) ** 2)
        u = np.clip(u, *self._u_bounds())
        return u if u.any() and self._derivatives(u).stat < here.stat else start

    def _minuit(self, u: np.ndarray) -> np.ndarray:
        # Loaded where it is needed: most fits end without it.
        from iminuit import Minuit

        self.used_minuit = True
        minuit = Minuit(lambda v: self._evaluate(v)[0], u, grad=lambda v: self._evaluate(v)[1])
        minuit.errordef = Minuit.LEAST_SQUARES
        minuit.strategy = 0
        minuit.print_level = -1
        minuit.tol = 1e-3
        minuit.errors[:] = 1.0
        low, high = self._u_bounds()
        minuit.limits[:] = list(zip(low, high, strict=True))
        minuit.migrad(ncall=max(self.max_calls - self.nfev, 50))
        return np.asarray(np.clip(np.array(minuit.values), low, high))

    def _u_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        return (self.lower - self.origin) / self.scale, (self.upper - self.origin) / self.scale

    def _at_bound(self, u: np.ndarray) -> np.ndarray:
        low, high = self._u_bounds()
        return np.asarray((u - low < 1e-3) | (high - u < 1e-3))

    def _polish(
        self, u: np.ndarray, hessian: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Newton steps to the bottom; returns the point, its Hessian and what a limit holds.

        ``hessian`` if it is known at u already; it is 0 for what is held.
        """
        held = self._at_bound(u)
        self._recentre(self.origin + u * self.scale)
        if hessian is None:
            hessian = self._derivatives(u).observed
        hessian = _free_of(hessian, held)
        low, high = self._u_bounds()
        stat, gradient = self._evaluate(u)
        travelled = 0.0
        for _ in range(_NEWTON_STEPS):
            step = newton_step(hessian, gradient, held)
            if step is None or -0.5 * float(gradient @ step) < _EDM or self.nfev > self.max_calls:
                break
            size, moved = 1.0, False
            step *= min(1.0, 3.0 / max(float(np.abs(step).max()), 1e-300))
            while size > 1e-3:
                tried = np.clip(u + size * step, low, high)
                found, slope = self._evaluate(tried)
                if found <= stat + 1e-7:
                    moved = True
                    break
                size *= 0.3
            if not moved:
                break
            travelled += float(np.abs(tried - u).max())
            u, stat, gradient = tried, found, slope
            if travelled > 0.1:
                travelled = 0.0
                held = self._at_bound(u)
                self._recentre(self.origin + u * self.scale)
                hessian = _free_of(self._derivatives(u).observed, held)
                stat, gradient = self._evaluate(u)
        return u, hessian, held

    def _escape(self, u: np.ndarray, hessian: np.ndarray, held: np.ndarray) -> np.ndarray | None:
        """A lower point beside a saddle, None if this is no saddle."""
        free = np.flatnonzero(~held)
        if not len(free):
            return None
        values, vectors = np.linalg.eigh(hessian[np.ix_(free, free)])
        if values[0] > -1e-6 * max(abs(values[-1]), 1.0):
            return None
        direction = np.zeros(len(u))
        direction[free] = vectors[:, 0]
        low, high = self._u_bounds()
        here = self._evaluate(u)[0]
        best, best_stat = None, here - 1e-6
        for size in (0.3, 1.0, 3.0, 10.0):
            for sign in (1.0, -1.0):
                tried = np.clip(u + sign * size * direction, low, high)
                stat = self._evaluate(tried)[0]
                if stat < best_stat:
                    best, best_stat = tried, stat
        return best

    def refit(
        self, u: np.ndarray, hessian: np.ndarray, fixed: np.ndarray
    ) -> tuple[np.ndarray, float, np.ndarray, bool]:
        """The lowest point near ``u`` with some parameters held there.

        Steps by the Hessian of a minimum nearby, which every step corrects (BFGS): from there it
        takes two or three evaluations.

        Parameters
        ----------
        u : ndarray
            Where to start.
        hessian : ndarray
            Second derivatives in u.
        fixed : ndarray of bool
            What is held.

        Returns
        -------
        u : ndarray
        stat : float
            Above that of the origin.
        gradient : ndarray
            By u; of the held ones it is the slope of the profile.
        valid : bool
            Whether this is a minimum of the others.
        """
        low, high = self._u_bounds()
        u = np.clip(u, low, high)
        stat, gradient = self._evaluate(u)
        metric, fresh = hessian, False
        for _ in range(_REFIT_STEPS):
            held = fixed | ((u <= low) & (gradient > 0)) | ((u >= high) & (gradient < 0))
            if held.all():
                return u, stat, gradient, True
            step = newton_step(metric, gradient, held)
            if step is None and not fresh:
                metric, fresh = self._information(u), True
                step = newton_step(metric, gradient, held)
            if step is None:
                return u, stat, gradient, False
            gain = -0.5 * float(gradient @ step)
            if gain < _REFIT_EDM:
                return u, stat, gradient, True
            size, found, slope, tried = 1.0, np.inf, gradient, u
            while size > 1e-4:
                tried = np.clip(u + size * step, low, high)
                found, slope = self._evaluate(tried)
                if found <= stat - 1e-4 * size * gain or (found <= stat + 1e-9 and gain < 1e-4):
                    break
                size *= 0.35
            else:
                if fresh:
                    return u, stat, gradient, gain < EDM_VALID
                metric, fresh = self._information(u), True
                continue
            metric = _secant(metric, tried - u, slope - gradient)
            u, stat, gradient = tried, found, slope
        return u, stat, gradient, False

    def _information(self, u: np.ndarray) -> np.ndarray:
        x = self.origin + u * self.scale
        return self.likelihood.information(x) * np.outer(self.scale, self.scale)


def _free_of(hessian: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Second derivatives without those of what is held."""
    return np.where(held | held[:, None], 0.0, hessian)


def scored(
    derivatives: Callable[[np.ndarray], Derivatives],
    longest: Callable[[np.ndarray], np.ndarray],
    u: np.ndarray,
    bounds: tuple[np.ndarray, np.ndarray],
    spent: Callable[[], bool] = bool,
    enough: float = _SCORED,
    layouts: Callable[[], int] = int,
    leap: float = 0.0,
) -> tuple[np.ndarray, Derivatives]:
    """Damped steps (Levenberg-Marquardt) down, as far as they gain much.

    By the second derivatives where they curve upwards in all directions, as they do near a minimum;
    elsewhere by the Fisher information. Along the last step the curvature that was met there then
    takes the expected one's place (a BFGS update), because the two differ much where a source is
    far from its best size.

    Parameters
    ----------
    derivatives : callable
        The statistic with its derivatives.
    longest : callable
        How far each parameter may go in one step from u. When one would go further, all those that
        have a limit go a part of the step, and those with none (infinity) to where they are best
        beside that; far from a minimum a part of it too, as a source in a wrong place is best gone.
    u : ndarray
        Where to start.
    bounds : (low, high)
    spent : callable
        Whether to stop.
    enough : float
        It ends when a step is expected to gain less.
    layouts : callable
        A number that changes with what rough predictions are made of: statistics before and after
        are not to be compared.
    leap : float
        The step to the bottom is taken untried where it is a short one and to gain less.

    Returns
    -------
    u : ndarray
    here : Derivatives
        There, or from where the last step was taken untried.
    """
    low, high = bounds
    here = derivatives(u)
    damping = 1e-3
    last: tuple[np.ndarray, np.ndarray] | None = None
    for _ in range(_SCORING_STEPS):
        gradient = here.gradient
        held = ((u <= low) & (gradient > 0)) | ((u >= high) & (gradient < 0))
        diagonal = np.maximum(np.diag(here.expected), 1e-12)
        metric = here.observed
        near = _curves_up(metric, diagonal, held)
        if not near:
            metric = here.expected if last is None else _secant(here.expected, *last)
        while damping < 1e6:
            damped = metric + np.diag(damping * diagonal)
            step = newton_step(damped, gradient, held)
            gain = -0.5 * float(gradient @ step) if step is not None else np.nan
            if step is None or not gain >= enough or spent():
                return u, here
            most = longest(u)
            part = float((most / np.maximum(np.abs(step), 1e-300)).min(initial=1.0))
            step *= part
            if part < 1.0 and near:
                _lead(step, np.isinf(most) & ~held, damped, gradient)
            tried = np.clip(u + step, low, high)
            if near and gain < leap and part >= 1.0 and np.abs(step).max() <= _NEAR_STEP:
                return tried, here
            # With its derivatives at once: most steps lead down.
            layout, there = layouts(), derivatives(tried)
            if there.stat >= here.stat and layouts() != layout:
                here = derivatives(u)
            if there.stat < here.stat:
                break
            damping = max(damping * 8.0, 1e-2)
        else:
            return u, here
        good = here.stat - there.stat > 0.5 * gain
        last, u, here = (tried - u, there.gradient - gradient), tried, there
        damping = max(damping * (0.1 if good else 2.0), 1e-6)
    return u, here


def _far_up(here: Derivatives, at: list[int], linear: list[int]) -> tuple[np.ndarray, float]:
    """Where the top of the bell is on whose side a source stands: direction in u, distance.

    Parameters
    ----------
    here : Derivatives
    at, linear : list of int
        Its position; all that is at its best wherever the source is.
    """
    bend = here.observed
    try:
        best = np.linalg.solve(bend[np.ix_(linear, linear)], bend[np.ix_(linear, at)])
    except np.linalg.LinAlgError:
        return np.zeros(2), 0.0
    slope = here.gradient[at] - here.gradient[linear] @ best
    steepness = math.hypot(*slope)
    if not steepness > 0:
        return np.zeros(2), 0.0
    way = -slope / steepness
    curvature = float(way @ (bend[np.ix_(at, at)] - bend[np.ix_(at, linear)] @ best) @ way)
    root = math.hypot(curvature, 2.0 * steepness / _BELL) - curvature
    return way, min(root * _BELL**2 / (2.0 * steepness), _FARTHEST)


def _lead(step: np.ndarray, free: np.ndarray, metric: np.ndarray, gradient: np.ndarray) -> None:
    """Put what is free to where the parabola is lowest beside the rest of a step."""
    if free.any():
        slope = gradient[free] + metric[free][:, ~free] @ step[~free]
        step[free] = -np.linalg.solve(metric[free][:, free], slope)


def _curves_up(hessian: np.ndarray, diagonal: np.ndarray, held: np.ndarray) -> bool:
    """Whether second derivatives are, in all directions, some part of the expected ones."""
    free = _free(held)
    scale = np.sqrt(diagonal[free])
    return curves_up(hessian[free][:, free] / (scale[:, None] * scale), _CURVED)


def _free(held: np.ndarray) -> slice | np.ndarray:
    return np.flatnonzero(~held) if held.any() else slice(None)


def curves_up(matrix: np.ndarray, least: float) -> bool:
    """Whether all eigenvalues of a symmetric matrix are above a number."""
    lower = matrix.copy()
    lower.flat[:: len(lower) + 1] -= least
    try:
        np.linalg.cholesky(lower)
    except np.linalg.LinAlgError:
        return False
    return True


def _secant(metric: np.ndarray, step: np.ndarray, change: np.ndarray) -> np.ndarray:
    """BFGS: the metric with the curvature that the gradient's change shows along a step."""
    along = metric @ step
    met, expected = float(step @ change), float(step @ along)
    if not met > 1e-3 * expected > 0:
        return metric
    return np.asarray(metric + np.outer(change, change) / met - np.outer(along, along) / expected)


def newton_step(hessian: np.ndarray, gradient: np.ndarray, held: np.ndarray) -> np.ndarray | None:
    """The step to the bottom of the parabola, None if it has none."""
    free = _free(held)
    diagonal = hessian.diagonal()[free]
    if not diagonal.min(initial=np.inf) > 0 or not len(diagonal):
        return None
    scale = np.sqrt(diagonal)
    scaled = hessian[free][:, free] / (scale[:, None] * scale)
    if not curves_up(scaled, LEVEL):
        return None
    step = np.zeros(len(gradient))
    step[free] = -np.linalg.solve(scaled, gradient[free] / scale) / scale
    return step
