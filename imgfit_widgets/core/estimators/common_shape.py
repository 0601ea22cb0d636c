"""Several bands of one source with a common position and size, each with its own flux and norms.

For a given shape the amplitudes and norms of each band are solved, in which the statistic is
convex; what is left is the statistic as a function of the shape alone. Its gradient is that of the
whole statistic at the solved values (envelope theorem), so it is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from ..dataset import MapDataset
from ..likelihood import Likelihood, limits_of
from ..live import LinearSolver
from ..models import Models
from ..progress import Progress

FloatArray = NDArray[np.float64]

__all__ = ["CommonFit", "fit_common"]

_EDM_VALID = 1e-3
"""Expected further gain below which a minimum is one; the linear part is solved to about 1e-6."""
_STEP = 0.05
"""Step of the differences for the second derivatives, in errors."""


@dataclass(frozen=True)
class CommonFit:
    """Common values and errors by parameter name, the statistic of all bands, and the verdict."""

    success: bool
    message: str
    stat: float
    values: dict[str, float]
    errors: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""

        def plain(numbers: dict[str, float]) -> dict[str, float | None]:
            return {k: v if np.isfinite(v) else None for k, v in numbers.items()}

        return {
            "success": self.success,
            "message": self.message,
            "stat": self.stat,
            "values": plain(self.values),
            "errors": plain(self.errors),
        }


class _Band:
    """One band's statistic as a function of the shape."""

    def __init__(
        self, datasets: Sequence[MapDataset], models: Models, source: str, names: list[str]
    ) -> None:
        self.likelihood = Likelihood(datasets, models)
        self.solver = LinearSolver(self.likelihood)
        self.places = [self.likelihood.names.index((source, name)) for name in names]
        self.x = self.likelihood.x0.copy()

    def __call__(self, shape: FloatArray) -> tuple[float, FloatArray]:
        like = self.likelihood
        self.x[self.places] = shape
        p = like.full(self.x)
        solved = self.solver.solve(p)
        p[solved.places] = solved.values
        self.x = p[like.free_places] / like.units
        stat, gradient = like.stat_and_gradient(self.x)
        return float(stat), gradient[self.places]


def fit_common(
    bands: Sequence[tuple[Sequence[MapDataset], Models]],
    source: str,
    names: list[str],
    progress: Progress,
) -> CommonFit:
    """Fit the parameters ``names`` of a source, common to all bands.

    Parameters
    ----------
    bands : sequence of (datasets, models)
        Each band's models, with the source by the same name and the common start.
    progress : Progress
        Called at each step; may raise `Cancelled`.
    """
    parts = [_Band(datasets, models, source, names) for datasets, models in bands]
    model = bands[0][1][source]
    start = np.array([model.parameters[name].value for name in names])
    scale = np.array([_scale(parts, source, name, i) for i, name in enumerate(names)])
    low, high = _bounds(parts[0].likelihood, source, names, start)
    calls = 0
    zero = 0.0

    def evaluate(u: FloatArray) -> tuple[float, FloatArray]:
        nonlocal calls
        calls += 1
        progress(1.0 - 20.0 / (20.0 + calls), f"Common shape: {calls} evaluations")
        found = [band(start + u * scale) for band in parts]
        stat = sum(one[0] for one in found) - zero
        return stat, np.sum([one[1] for one in found], axis=0) * scale

    zero = evaluate(np.zeros(len(start)))[0]
    bounds = list(zip((low - start) / scale, (high - start) / scale, strict=True))
    u = np.zeros(len(start))
    search: Any = minimize  # its stubs know no function that returns the gradient as well
    # Twice, because the first pass begins with steps that know nothing of the curvature.
    for _ in range(2):
        options = {"ftol": 1e-13, "gtol": 1e-6, "maxiter": 200}
        u = search(evaluate, u, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    u, hessian = _newton(evaluate, u, np.array(bounds))
    stat, gradient = evaluate(u)
    values = start + u * scale
    errors = np.full(len(u), np.nan)
    message, success = "The common shape was found.", True
    edge = [n for n, v, (a, b) in zip(names, u, bounds, strict=True) if min(v - a, b - v) < 1e-3]
    if np.linalg.eigvalsh(hessian)[0] <= 0:
        message, success = "The common shape has no minimum; start closer to the source", False
    else:
        inverse = np.linalg.inv(hessian)
        errors = np.sqrt(2.0 * np.diag(inverse)) * scale
        edm = 0.5 * float(gradient @ inverse @ gradient)
        if edge:
            message, success = f"The common {edge[0]} ran to the edge of the map", False
        elif not edm < _EDM_VALID:
            message, success = (
                f"The common shape was not reached (estimated distance {edm:.2g})",
                False,
            )
    even = [parts[0].likelihood.evaluator.is_even(source, name) for name in names]
    values = np.where(even, np.abs(values), values)
    return CommonFit(
        success,
        message,
        stat + zero,
        dict(zip(names, map(float, values), strict=True)),
        dict(zip(names, map(float, errors), strict=True)),
    )


def _newton(evaluate: Any, u: FloatArray, bounds: FloatArray) -> tuple[FloatArray, FloatArray]:
    """A few Newton steps, and the second derivatives at their end."""
    hessian = _hessian(evaluate, u)
    for _ in range(3):
        stat, gradient = evaluate(u)
        if np.linalg.eigvalsh(hessian)[0] <= 0:
            break
        step = -np.linalg.solve(hessian, gradient)
        if -0.5 * float(gradient @ step) < 1e-6:
            break
        tried = np.clip(u + step, bounds[:, 0], bounds[:, 1])
        if evaluate(tried)[0] > stat + 1e-7:
            break
        u = tried
        hessian = _hessian(evaluate, u)
    return u, hessian


def _hessian(evaluate: Any, u: FloatArray) -> FloatArray:
    """Second derivatives by differences of the gradient, in steps of a fraction of the error."""
    size = np.ones(len(u))
    for _ in range(2):
        rows = []
        for i in range(len(u)):
            step = np.zeros(len(u))
            step[i] = _STEP * size[i]
            rows.append((evaluate(u + step)[1] - evaluate(u - step)[1]) / (2.0 * step[i]))
        hessian = np.array(rows)
        curvature = np.diag(hessian)
        size = np.where(curvature > 0, np.sqrt(2.0 / np.maximum(curvature, 1e-6)), 1.0)
    return np.asarray(0.5 * (hessian + hessian.T))


def _scale(parts: list[_Band], source: str, name: str, i: int) -> float:
    """About one error: from the Fisher information of all bands."""
    information = 0.0
    for band in parts:
        matrix = band.likelihood.information(band.x)
        information += float(matrix[band.places[i], band.places[i]])
    if information > 0:
        return float(np.clip(np.sqrt(2.0 / information), 1e-4, 0.1))
    return 0.01


def _bounds(
    likelihood: Likelihood, source: str, names: list[str], start: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The user's limits and the map; sizes may turn negative on the way, as in `Fit`."""
    ev = likelihood.evaluator
    lons, lats, half = ev.extent(source)
    own = {"lon_0": lons, "lat_0": lats}
    low, high = [], []
    for name in names:
        parameter = ev.models[source].parameters[name]
        user_low, user_high = limits_of(parameter)
        if ev.is_size(source, name):
            own[name] = (-half if ev.is_even(source, name) else 0.0, half)
        if ev.is_even(source, name) and user_low == 0:
            user_low = -user_high
        a, b = own.get(name, (-np.inf, np.inf))
        unit = parameter.factor_to_expected
        low.append(max(user_low, a / unit))
        high.append(min(user_high, b / unit))
    return np.minimum(low, start), np.maximum(high, start)
