"""The fit: down the exact gradient, errors from the second derivatives, an honest verdict.

`Fit.solve` is pure: it reads datasets and models once and returns a `FitResult`, so that it can run
in a worker thread; `FitResult.apply` writes values and errors into models. `LiveLikelihood` is
re-exported from `live` for those who fit by hand.

How it goes. Amplitudes and norms are solved at the start positions first, where the statistic is
convex in them, so that the slope in position means something. Damped steps by the Fisher
information go down from there, positions limited to the map: near a source a handful of them reach
what takes Minuit some sixty evaluations. Newton steps with a Hessian taken by differences of the
exact gradient finish it, so that any start of one valley ends in one point; where they find no
bottom, Minuit takes over with the same gradient, scales and limits. The fit succeeds only if its
last point has no slope left, curves upwards in every direction and lies inside the map; otherwise
the message says in words what is wrong and what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .errors import FitError, ModelError
from .evaluator import DatasetLike, Evaluator
from .fit_result import FitResult, FitStep, SourceTS, limits_of
from .live import LinearSolver, LiveLikelihood, LiveState
from .models import Models, SkyModel
from .progress import Progress, silent
from .stats import sigma_of

__all__ = ["Fit", "FitResult", "FitStep", "LiveLikelihood", "LiveState", "SourceTS"]

_SCORING_STEPS = 40
_STRIDE = 5.0
"""How far a position or size may go in one scoring step, in scales."""
_NEWTON_STEPS = 12
_EDM = 1e-9
"""Newton stops when the expected further gain in the statistic is below this."""
_EDM_VALID = 1e-5
"""A minimum is one if the expected further gain is below this."""


class Fit:
    """Fits models to datasets.

    Parameters
    ----------
    max_calls : int
        Evaluations after which the fit gives up.
    """

    def __init__(self, max_calls: int = 2000) -> None:
        self.max_calls = max_calls

    def run(
        self,
        datasets: Any,
        models: Models | None = None,
        progress: Progress = silent,
        on_step: Callable[[FitStep], None] | None = None,
    ) -> FitResult:
        """`solve`, then write the result into the models (``datasets.models`` by default)."""
        models = datasets.models if models is None else models
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
            Called with a `FitStep` every few evaluations.

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
        if not any(np.any(d.counts.data[... if d.mask is None else d.mask]) for d in group):
            raise FitError("fit: no counts in the bins to fit; widen the fit range or the mask")
        for dataset in group:
            if np.any(dataset.counts.data < 0):
                raise FitError(f"fit: the counts of dataset {dataset.name} are negative somewhere")
        if models is None or not len(models):
            raise FitError("fit: there is no model; add a source or a background model first")
        evaluator = Evaluator(group, models)
        if not evaluator.names:
            raise FitError("fit: every parameter is frozen; free at least one")
        return _Minimisation(evaluator, self.max_calls, progress, on_step).run(group)


class _Minimisation:
    """One fit. Works in ``u = (x - origin) / scale``, in which errors are about 1."""

    def __init__(
        self,
        evaluator: Evaluator,
        max_calls: int,
        progress: Progress,
        on_step: Callable[[FitStep], None] | None,
    ) -> None:
        self.evaluator, self.max_calls = evaluator, max_calls
        self.progress, self.on_step = progress, on_step
        self.solver = LinearSolver(evaluator)
        self.nfev = 0
        self.used_minuit = False
        self.origin = evaluator.x0.copy()
        self.scale = np.ones(len(self.origin))
        # Scoring moves parameters with stride 1 by at most 5 scales at a time.
        self.stride = np.zeros(len(self.origin))
        self.lower, self.upper, self.natural = _bounds(evaluator)
        self._last: tuple[bytes, float, np.ndarray] = (b"", 0.0, np.empty(0))
        self._zero = 0.0

    # --- the function that Minuit sees
    def _evaluate(self, u: Any) -> tuple[float, np.ndarray]:
        u = np.asarray(u, dtype=float)
        if not np.all(np.isfinite(u)):
            return 1e30, np.zeros(len(u))
        key = u.tobytes()
        if key != self._last[0]:
            x = self.origin + u * self.scale
            stat, gradient = self.evaluator.stat_and_gradient(x)
            self.nfev += 1
            if not np.isfinite(stat) or not np.all(np.isfinite(gradient)):
                stat, gradient = 1e30, np.zeros(len(u))
            self._last = (key, stat, gradient * self.scale)
            if self.nfev % 5 == 1:
                self._report(x, stat)
        return self._last[1] - self._zero, self._last[2]

    def _report(self, x: np.ndarray, stat: float) -> None:
        self.progress(1.0 - 30.0 / (30.0 + self.nfev), f"Fitting: {self.nfev} evaluations")
        if self.on_step is not None:
            values = dict(zip(self.evaluator.names, map(float, x), strict=True))
            self.on_step(FitStep(self.nfev, float(stat), values))

    # --- the steps
    def run(self, datasets: Sequence[DatasetLike]) -> FitResult:
        self._report(self.origin, np.nan)
        self._start()
        u = self._score(np.zeros(len(self.origin)))
        u, hessian, held = self._polish(u)
        for _ in range(4):
            if self._is_bottom(u, hessian, held) or self.nfev > self.max_calls:
                break
            downhill = self._escape(u, hessian, held)
            u = self._minuit(u if downhill is None else downhill)
            u, hessian, held = self._polish(u)
        return self._result(u, hessian, held, datasets)

    def _is_bottom(self, u: np.ndarray, hessian: np.ndarray, held: np.ndarray) -> bool:
        step = _newton_step(hessian, self._evaluate(u)[1], held)
        return step is not None and -0.5 * float(self._evaluate(u)[1] @ step) < _EDM_VALID

    def _score(self, u: np.ndarray) -> np.ndarray:
        """Damped steps (Levenberg-Marquardt) by the Fisher information.

        Along the last step the curvature that was met there takes the expected one's place (a
        BFGS update), because the two differ much where a source is far from its best size.
        """
        low, high = self._u_bounds()
        stat, gradient = self._evaluate(u)
        outer = np.outer(self.scale, self.scale)
        damping = 1e-3
        last: tuple[np.ndarray, np.ndarray] | None = None
        for _ in range(_SCORING_STEPS):
            metric = self.evaluator.information(self.origin + u * self.scale) * outer
            diagonal = np.maximum(np.diag(metric), 1e-12)
            if last is not None:
                metric = _secant(metric, *last)
            while damping < 1e6:
                held = ((u <= low) & (gradient > 0)) | ((u >= high) & (gradient < 0))
                step = _newton_step(metric + np.diag(damping * diagonal), gradient, held)
                gain = -0.5 * float(gradient @ step) if step is not None else np.nan
                if step is None or not gain >= 1e-2 or self.nfev >= self.max_calls:
                    return u
                step *= min(1.0, _STRIDE / max(float((np.abs(step) * self.stride).max()), 1e-300))
                tried = np.clip(u + step, low, high)
                found, slope = self._evaluate(tried)
                if found < stat:
                    break
                damping = max(damping * 8.0, 1e-2)
            else:
                return u
            good = stat - found > 0.5 * gain
            last = tried - u, slope - gradient
            u, stat, gradient = tried, found, slope
            damping = max(damping * (0.1 if good else 2.0), 1e-6)
        return u

    def _start(self) -> None:
        """Solve what is linear and find out how large a step of each parameter is."""
        ev = self.evaluator
        p = ev.full(self.origin)
        linear = self.solver.solve(p)
        for place, value in zip(linear.places, linear.values, strict=True):
            p[place] = value
        for source in {s.linear: s for t in ev.terms for s in t.sources}.values():
            error = linear.scale(source.linear)
            if source.linear in linear.places and p[source.linear] < error:
                # Nothing here: a source of one sigma still has a slope towards its neighbours.
                p[source.linear] = error
        x = p[ev.free_places] / (ev.units)
        x = ev.off_saddle(np.clip(x, self.lower, self.upper))
        width = min((float(s.psf_width(p)) for t in ev.terms for s in t.sources), default=0.05)
        for i, (model, name) in enumerate(ev.names):
            place, unit = int(ev.free_places[i]), ev.units[i]
            if linear.scale(place) > 0:
                self.scale[i] = linear.scale(place) / unit
            elif name in ("lon_0", "lat_0") or ev.is_size(model, name):
                size = width
                if ev.is_size(model, name):
                    size = max(width, abs(p[place])) / 2
                if name == "lon_0":
                    size = size / max(np.cos(np.radians(p[ev.place(model, "lat_0")])), 0.01)
                self.scale[i] = size / 10 / unit
                self.stride[i] = 1.0
            elif name in ("e", "eta", "edge_width", "phi"):
                self.scale[i] = 3.0 / unit if name == "phi" else 0.03
                self.stride[i] = 1.0
            else:
                self.scale[i] = 0.03 * max(abs(x[i]), 1.0) if name != "reference" else 0.1
        self.origin = x
        ev.recentre(x)
        self._last = (b"", 0.0, np.empty(0))
        self._zero = self._evaluate(np.zeros(len(x)))[0] + self._zero

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

    def _hessian(self, u: np.ndarray, held: np.ndarray) -> np.ndarray:
        """Second derivatives by central differences of the exact gradient; held ones are 0."""
        n = len(u)
        hessian = np.zeros((n, n))
        self.evaluator.recentre(self.origin + u * self.scale)
        self._last = (b"", 0.0, np.empty(0))
        for i in np.flatnonzero(~held):
            step = np.zeros(n)
            step[i] = 0.02
            hessian[i] = (self._evaluate(u + step)[1] - self._evaluate(u - step)[1]) / 0.04
        hessian[:, held] = 0.0
        return 0.5 * (hessian + hessian.T)

    def _polish(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Newton steps to the bottom; returns the point, its Hessian and what a limit holds."""
        held = self._at_bound(u)
        hessian = self._hessian(u, held)
        low, high = self._u_bounds()
        stat, gradient = self._evaluate(u)
        travelled = 0.0
        for _ in range(_NEWTON_STEPS):
            step = _newton_step(hessian, gradient, held)
            if step is None or -0.5 * float(gradient @ step) < _EDM:
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
                hessian = self._hessian(u, held)
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

    # --- the verdict
    def _result(
        self,
        u: np.ndarray,
        hessian: np.ndarray,
        held: np.ndarray,
        datasets: Sequence[DatasetLike],
    ) -> FitResult:
        ev = self.evaluator
        x = self.origin + u * self.scale
        gradient = self._evaluate(u)[1]
        stat = float(ev.stat(x))
        reason, covariance, edm = self._judge(x, hessian, gradient, held)
        outer = np.outer(self.scale, self.scale)
        covariance = covariance * outer
        variance = np.diag(covariance).copy()
        errors = np.where(variance > 0, np.sqrt(np.abs(variance)), np.nan)
        for i, (model, name) in enumerate(ev.names):
            if ev.is_even(model, name):  # the shape depends on its square only
                x[i] = self._mirrored(i, x[i], covariance)
            if name == "phi" and abs(x[i] * ev.units[i]) > 180.0:  # an ellipse turned by 180 deg
                turn = 180.0 / ev.units[i]
                x[i] -= turn * np.round(x[i] / turn)
        ts = self._significances(x, stat)
        message = reason or self._praise(x, errors, held, ts)
        for array in (x, errors, covariance):
            array.flags.writeable = False
        return FitResult(
            success=not reason,
            message=message,
            nfev=self.nfev,
            total_stat=stat,
            edm=float(edm),
            names=tuple(ev.names),
            values=x,
            errors=errors,
            covariance=covariance,
            parameters=self._rows(x, errors),
            ts=ts,
            datasets=datasets,
            models=ev.models,
            backend="minuit" if self.used_minuit else "newton",
        )

    def _mirrored(self, i: int, value: float, covariance: np.ndarray) -> float:
        if value < 0:
            covariance[i] *= -1.0
            covariance[:, i] *= -1.0
        return abs(value)

    def _judge(
        self, x: np.ndarray, hessian: np.ndarray, gradient: np.ndarray, held: np.ndarray
    ) -> tuple[str, np.ndarray, float]:
        """Why this is no good minimum ("" if it is one), the covariance in u, and the EDM."""
        n = len(x)
        names = [f"{model}.{name}" for model, name in self.evaluator.names]
        nothing = np.zeros((n, n))
        free = np.flatnonzero(~held)
        covariance, edm = nothing, np.nan
        weak = [i for i in free if not hessian[i, i] > 1e-9]
        reason = ""
        if weak:
            what = "parameters" if len(weak) > 1 else "parameter"
            reason = (
                f"The data do not constrain the {what} {', '.join(names[i] for i in weak)}; "
                "freeze it or start closer to a source"
            )
        elif twins := self._twins(x, free):
            reason = f"No minimum: the fit cannot tell {twins} apart; freeze one of them"
        elif len(free):
            scale = np.sqrt(np.diag(hessian)[free])
            scaled = hessian[np.ix_(free, free)] / np.outer(scale, scale)
            values, vectors = np.linalg.eigh(scaled)
            if values[0] < 1e-9:
                order = np.argsort(-np.abs(vectors[:, 0]))[:2]
                pair = " and ".join(names[free[i]] for i in sorted(order))
                reason = f"No minimum: the statistic still falls along {pair}; start elsewhere"
            else:
                inverse = np.linalg.inv(scaled) / np.outer(scale, scale)
                covariance = nothing.copy()
                covariance[np.ix_(free, free)] = 2.0 * inverse
                edm = 0.5 * float(gradient[free] @ inverse @ gradient[free])
        else:
            edm = 0.0
        off = self._stopped_at(x, held)
        if off:
            return off, covariance, edm
        if reason:
            return reason, covariance, edm
        if not edm < _EDM_VALID:
            left = "after the allowed number of evaluations" if self.nfev > self.max_calls else ""
            return (
                f"No minimum was reached {left}(estimated distance {edm:.2g}); fit again from here",
                covariance,
                edm,
            )
        return "", covariance, edm

    def _twins(self, x: np.ndarray, free: np.ndarray) -> str:
        """The parameters that change the prediction in one and the same way, "" if there are none.

        By the Fisher information, in which such parameters are exactly dependent.
        """
        information = self.evaluator.information(x)
        known = [int(i) for i in free if information[i, i] > 0]
        if len(known) < 2:
            return ""
        scale = np.sqrt(np.diag(information)[known])
        values, vectors = np.linalg.eigh(information[np.ix_(known, known)] / np.outer(scale, scale))
        if values[0] > 1e-9:
            return ""
        order = sorted(np.argsort(-np.abs(vectors[:, 0]))[:2])
        names = self.evaluator.names
        return " and ".join(".".join(names[known[i]]) for i in order)

    def _stopped_at(self, x: np.ndarray, held: np.ndarray) -> str:
        """Why positions or sizes are where the fit was not allowed to go further."""
        ev = self.evaluator
        for i in np.flatnonzero(held):
            if self.natural[i]:
                model, name = ev.names[i]
                if name in ("lon_0", "lat_0"):
                    return (
                        f"{model} ran to the edge of the map ({model}.{name} = {x[i]:.4g}); start "
                        "closer to a source or freeze its position"
                    )
                return (
                    f"{model}.{name} ran to its physical bound {x[i]:.4g}; start closer to a "
                    "source or freeze it"
                )
        for source in ev.models.sky_models:
            if not ev.position_on_map(source.name, x):
                return (
                    f"{source.name} left the map; start closer to a source or freeze its position"
                )
        if not np.all(np.isfinite(x)):
            return "The fit met values that are not finite; start closer to a source"
        return ""

    def _praise(
        self, x: np.ndarray, errors: np.ndarray, held: np.ndarray, ts: dict[str, SourceTS]
    ) -> str:
        """That it worked, and what of the result must not be taken at its face value."""
        names = self.evaluator.names
        at = [f"{m}.{n}" for (m, n), h in zip(names, held, strict=True) if h]
        text = "Optimization terminated successfully."
        if at:
            text += f" At its limit, so without an error: {', '.join(at)}."
        for (model, name), value, error in zip(names, x, errors, strict=True):
            if self.evaluator.is_even(model, name) and value < 2.0 * error:
                text += (
                    f" {model} need not be extended: its {name} is compatible with 0, "
                    "so a point describes it as well."
                )
            source = self.evaluator.models[model]
            if isinstance(source, SkyModel) and name == source.linear_parameter.name and value < 0:
                text += f" {model} has a negative flux: a deficit, not a source."
        for name, found in ts.items():
            if found.dof and found.sigma < 3.0:
                text += f" {name} is not significant here ({found.sigma:.1f} sigma)."
        return text

    def _significances(self, x: np.ndarray, stat: float) -> dict[str, SourceTS]:
        p = self.evaluator.full(x)
        found = {}
        for model in self.evaluator.models.sky_models:
            dof = sum(name == model.name for name, _ in self.evaluator.names)
            ts = self.solver.solve(p, [model.name]).stat - stat
            found[model.name] = SourceTS(float(ts), dof, sigma_of(ts, dof) if dof else np.nan)
        return found

    def _rows(self, x: np.ndarray, errors: np.ndarray) -> tuple[dict[str, Any], ...]:
        values = dict(zip(self.evaluator.names, x, strict=True))
        found_errors = dict(zip(self.evaluator.names, errors, strict=True))
        rows = []
        for q in self.evaluator.models.parameters:
            key = (q.owner, q.name)
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


def _bounds(evaluator: Evaluator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Limits of the free parameters, and whether the tighter ones are ours, not the user's.

    Positions stay on the maps, sizes below the maps' size, indices within 10 of 0. Sizes may turn
    negative on the way: the shape depends on their square, so a point source is a smooth minimum.
    """
    low, high, natural = [], [], []
    for i, ((model, name), q) in enumerate(
        zip(evaluator.names, evaluator.free_parameters, strict=True)
    ):
        user_low, user_high = limits_of(q)
        own_low, own_high = -np.inf, np.inf
        component = evaluator.models[model]
        size = evaluator.is_size(model, name)
        if isinstance(component, SkyModel) and (size or name in ("lon_0", "lat_0")):
            box = evaluator.extent(model)
            even = evaluator.is_even(model, name)
            own_low, own_high = {"lon_0": box[0], "lat_0": box[1]}.get(
                name, (-box[2] if even else 0.0, box[2])
            )
            own_low, own_high = own_low / evaluator.units[i], own_high / evaluator.units[i]
            if even and user_low == 0:
                user_low = -np.inf
        elif name == "phi" and user_high - user_low >= 360.0 / evaluator.units[i] * (1 - 1e-9):
            # A full circle is no limit.
            user_low, user_high = -np.inf, np.inf
        elif name in ("index", "tilt"):
            own_low, own_high = -10.0, 10.0
        if not max(user_low, own_low) < min(user_high, own_high):
            raise ModelError(
                f"{q.label}: its limits {user_low:g} to {user_high:g} {q.unit_text} leave no room "
                f"within {own_low:g} to {own_high:g}, where the data are"
            )
        low.append(max(user_low, own_low))
        high.append(min(user_high, own_high))
        natural.append(own_low >= user_low and own_high <= user_high)
    return np.array(low, float), np.array(high, float), np.array(natural, bool)


def _secant(metric: np.ndarray, step: np.ndarray, change: np.ndarray) -> np.ndarray:
    """BFGS: the metric with the curvature that the gradient's change shows along a step."""
    along = metric @ step
    met, expected = float(step @ change), float(step @ along)
    if not met > 1e-3 * expected > 0:
        return metric
    return np.asarray(metric + np.outer(change, change) / met - np.outer(along, along) / expected)


def _newton_step(hessian: np.ndarray, gradient: np.ndarray, held: np.ndarray) -> np.ndarray | None:
    """The step to the bottom of the parabola, None if it has none."""
    free = np.flatnonzero(~held)
    if not len(free) or not np.all(np.diag(hessian)[free] > 0):
        return None
    scale = np.sqrt(np.diag(hessian)[free])
    scaled = hessian[np.ix_(free, free)] / np.outer(scale, scale)
    values, vectors = np.linalg.eigh(scaled)
    if values[0] < 1e-9:
        return None
    step = np.zeros(len(gradient))
    step[free] = -(vectors @ ((vectors.T @ (gradient[free] / scale)) / values)) / scale
    return step
