"""Several bands of one source with a common position and size, each with its own flux and norms.

For a given shape the amplitudes and norms of each band are solved, in which the statistic is
convex; what is left is the statistic as a function of the shape alone. Its gradient is that of the
whole statistic at the solved values (envelope theorem), its second derivatives are those of all
parameters less what the solved ones take. Damped steps by these go down and Newton steps end it, or
L-BFGS-B where they find no minimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dataset import MapDataset
from ..derivatives import Derivatives
from ..errors import FitError
from ..likelihood import Likelihood, limits_of
from ..live import LinearSolver
from ..minimise import scored
from ..models import Models
from ..progress import Progress

FloatArray = NDArray[np.float64]

__all__ = ["CommonFit", "CommonShape", "fit_common"]

_EDM_VALID = 1e-3
"""Expected further gain below which a minimum is one; the linear part is solved to about 1e-6."""
_NEWTON_STEPS = 5


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

    def set_rough(self, rough: bool) -> None:
        """Whether the prediction may be off by a few per cent from now on."""
        self.likelihood.evaluator.set_rough(rough)
        self.likelihood.recentre(self.x)

    def stat(self, shape: FloatArray) -> float:
        """The lowest statistic for a shape."""
        like = self.likelihood
        self.x[self.places] = shape
        p = like.full(self.x)
        solved = self.solver.solve(p)
        p[solved.places] = solved.values
        self.x = p[like.free_places] / like.units
        return float(solved.stat)

    def derivatives(self, shape: FloatArray) -> Derivatives:
        """That statistic and its derivatives by the shape."""
        self.stat(shape)
        found, own = self.likelihood.derivatives(self.x), np.array(self.places)
        expected, observed = (self._profiled(m) for m in (found.expected, found.observed))
        return Derivatives(found.stat, found.gradient[own], expected, observed)

    def _profiled(self, matrix: FloatArray) -> FloatArray:
        """Second derivatives by the shape while all other parameters follow."""
        others = np.setdiff1d(np.flatnonzero(matrix.diagonal() > 0), self.places)
        own = np.array(self.places)
        inner, across = matrix[np.ix_(own, own)], matrix[np.ix_(others, own)]
        size = np.sqrt(matrix.diagonal()[others])
        scaled = matrix[np.ix_(others, others)] / np.outer(size, size)
        taken = np.linalg.lstsq(scaled, across / size[:, None], rcond=1e-12)[0]
        return np.asarray(inner - (across / size[:, None]).T @ taken)

    def width(self) -> float:
        """Effective width of the PSF at the sources, degrees; the narrowest."""
        p = self.likelihood.full(self.x)
        sources = [s for term in self.likelihood.terms for s in term.sources]
        return min((float(s.psf_width(p)) for s in sources), default=0.05)


class CommonShape:
    """The way from one start down to the common shape.

    Parameters
    ----------
    bands : sequence of (datasets, models)
        Each band's models, with the source by the same name and the common start.
    source : str
    names : list of str
        Parameters of the source that are common to all bands.
    progress : Progress
        Called at each step; may raise `Cancelled`.
    """

    def __init__(
        self,
        bands: Sequence[tuple[Sequence[MapDataset], Models]],
        source: str,
        names: list[str],
        progress: Progress,
    ) -> None:
        self._parts = [_Band(datasets, models, source, names) for datasets, models in bands]
        self._names, self._progress, self._calls = names, progress, 0
        model, ev = bands[0][1][source], self._parts[0].likelihood.evaluator
        self._start = np.array([model.parameters[name].value for name in names])
        self._units = np.array([model.parameters[name].factor_to_expected for name in names])
        self._scale = np.array([_scale(self._parts, i) for i in range(len(names))])
        low, high = _bounds(self._parts[0].likelihood, source, names, self._start)
        self._bounds = (np.array([low, high]).T - self._start[:, None]) / self._scale[:, None]
        self._sizes = np.array([ev.is_size(source, name) for name in names], dtype=bool)
        self._angular = self._sizes | np.isin(names, ["lon_0", "lat_0"])
        self._even = np.array([ev.is_even(source, name) for name in names], dtype=bool)
        self._width = min(part.width() for part in self._parts)
        self._zero = 0.0
        self._u = np.zeros(len(names))

    def _stat(self, u: FloatArray) -> float:
        """The statistic above that of the start."""
        self._calls += 1
        done = 1.0 - 20.0 / (20.0 + self._calls)
        self._progress(done, f"Common shape: {self._calls} evaluations")
        shape = self._start + u * self._scale
        return sum(band.stat(shape) for band in self._parts) - self._zero

    def _derivatives(self, u: FloatArray) -> Derivatives:
        """The same with its derivatives by u."""
        found = Derivatives.zero(len(u))
        for band in self._parts:
            found = found.plus(band.derivatives(self._start + u * self._scale))
        found.stat -= self._zero
        return found.of(slice(None), self._scale)

    def _slope(self, u: FloatArray) -> tuple[float, FloatArray]:
        """The statistic and its gradient."""
        self._stat(u)
        found = self._derivatives(u)
        return found.stat, found.gradient

    def _longest(self, u: FloatArray) -> FloatArray:
        """Steps lead no further than half of what the source seems to be wide."""
        sizes = np.abs((self._start + u * self._scale) * self._units)[self._sizes]
        wide = sizes.max(initial=self._width)
        return np.where(self._angular, 0.5 * wide / (self._scale * self._units), 5.0)

    def descend(self) -> float:
        """Go down as far as much is gained, roughly at first: the statistic there."""
        for rough in (True, False):
            for part in self._parts:
                part.set_rough(rough)
            self._zero += self._stat(self._u)
            self._u, here = scored(
                self._derivatives,
                self._longest,
                self._u,
                tuple(self._bounds.T),
                layouts=lambda: sum(part.likelihood.evaluator.layouts for part in self._parts),
            )
        return here.stat + self._zero

    def polish(self, progress: Progress) -> CommonFit:
        """On to the bottom, with errors and the verdict."""
        self._progress, self._calls = progress, 0
        u, here = self._newton(self._u)
        if not _edm(here) < _EDM_VALID:
            # Loaded where it is needed, as most sessions end without it.
            from scipy.optimize import minimize

            search: Any = minimize  # its stubs know no function that returns the gradient as well
            u = search(
                self._slope, u, jac=True, method="L-BFGS-B", bounds=self._bounds,
                options={"ftol": 1e-13, "gtol": 1e-6, "maxiter": 200},
            ).x  # fmt: skip
            u, here = self._newton(u)
        self._u = u
        values = self._start + u * self._scale
        errors = np.full(len(u), np.nan)
        message, success = "The common shape was found.", True
        low, high = self._bounds.T
        edge = [n for n, near in zip(self._names, np.minimum(u - low, high - u), strict=True)
                if near < 1e-3]  # fmt: skip
        edm = _edm(here)
        if not np.isfinite(edm):
            message, success = "The common shape has no minimum; start closer to the source", False
        else:
            errors = np.sqrt(2.0 * np.diag(np.linalg.inv(here.observed))) * self._scale
            if edge:
                message, success = f"The common {edge[0]} ran to the edge of the map", False
            elif not edm < _EDM_VALID:
                success = False
                message = f"The common shape was not reached (estimated distance {edm:.2g})"
        values = np.where(self._even, np.abs(values), values)
        return CommonFit(
            success,
            message,
            here.stat + self._zero,
            dict(zip(self._names, map(float, values), strict=True)),
            dict(zip(self._names, map(float, errors), strict=True)),
        )

    def _newton(self, u: FloatArray) -> tuple[FloatArray, Derivatives]:
        """A few Newton steps, and the derivatives at their end."""
        here = self._derivatives(u)
        for _ in range(_NEWTON_STEPS):
            if np.linalg.eigvalsh(here.observed)[0] <= 0:
                break
            step = -np.linalg.solve(here.observed, here.gradient)
            if -0.5 * float(here.gradient @ step) < 1e-6:
                break
            tried = np.clip(u + step, self._bounds[:, 0], self._bounds[:, 1])
            if self._stat(tried) > here.stat + 1e-7:
                break
            u, here = tried, self._derivatives(tried)
        return u, here


def fit_common(shapes: Sequence[CommonShape], progress: Progress) -> CommonFit:
    """The lowest of the minima below some starts; those that end higher are not followed to theirs.

    If the lowest is none the next one is taken, and if there is none at all the first is told.
    """
    tried = sorted(((shape.descend(), i) for i, shape in enumerate(shapes)))
    first: CommonFit | None = None
    for _, i in tried:
        found = shapes[i].polish(progress)
        if found.success:
            return found
        first = first or found
    if first is None:
        raise FitError("energy dependence: nothing was fitted")
    return first


def _edm(here: Derivatives) -> float:
    """Expected further gain, infinite where the second derivatives are not those of a minimum."""
    if np.linalg.eigvalsh(here.observed)[0] <= 0:
        return np.inf
    return 0.5 * float(here.gradient @ np.linalg.solve(here.observed, here.gradient))


def _scale(parts: list[_Band], i: int) -> float:
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
