"""Which shape has a source: a table of nested hypotheses, each fitted to the same data.

A point is a disk, a Gaussian and an ellipse of size 0; a Gaussian is an ellipse without
eccentricity; two points are one where the second has no flux. `compare_shapes` fits them all and
gives a `Ladder` of `Rung`; nothing is changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import ModelError
from .fit import Fit, look_around
from .fit_result import FitResult
from .inference import STUCK, fit_as_point, information_criteria, models_with_shape
from .likelihood import Likelihood
from .minimise import Minimiser
from .models import (
    DiskSpatialModel,
    GaussianSpatialModel,
    Models,
    PointSpatialModel,
    SpatialModel,
)
from .profile import models_at
from .profile_result import plain
from .progress import Progress, part, silent
from .stats import sigma_of

__all__ = ["SECOND", "Ladder", "Rung", "compare_shapes"]

START_SIZES = (0.1, 0.3)
"""Degrees from which a size is fitted, if the source has none."""
START_ECCENTRICITY = 0.6
START_ANGLES = (-45.0, 0.0, 45.0, 90.0)
SECOND = "Second source"
SEARCHED = 3.0
"""From how many sigma on a second source is preferred. Its place was searched for, so that chance
alone gives 2 sigma to one point in five."""
_AWAY, _FAR = 3.0, 8.0
"""How far away a second source is looked for, in sizes of the source; at most in widths of the PSF.
"""


@dataclass(frozen=True, eq=False)
class Rung:
    """One hypothesis and what the data say of it.

    Attributes
    ----------
    label, tag : str
        In words, and of the spatial model.
    against : str
        Label of the simpler hypothesis that it contains; empty for the first.
    ts : float
        Statistic of the simpler one minus this one's.
    dof : int
        Free parameters more than the simpler one.
    sigma : float
        Significance of ``ts``: ``sqrt(ts)`` for a size, which is bounded at 0 (half of chi2(1)).
        That of a second source is for its place; it was looked for at many.
    delta_ts : float
        Statistic of the point minus this one's.
    aic : float
        Akaike's criterion; the lowest is preferred, see `Ladder.preferred`.
    message : str
        Why there is no fit, or why its numbers must not be taken at their face value.
    """

    label: str
    tag: str
    against: str
    ts: float
    dof: int
    sigma: float
    delta_ts: float
    aic: float
    message: str = ""
    result: FitResult | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; the fit is left out."""
        return {k: plain(v) for k, v in vars(self).items() if k != "result"}


@dataclass(frozen=True, eq=False)
class Ladder:
    """The hypotheses of one source, the simplest first."""

    name: str
    rungs: tuple[Rung, ...]

    @property
    def preferred(self) -> Rung:
        """The one with the lowest AIC; a second source from 3 sigma on, as it was searched for."""
        fair = [rung for rung in self.rungs if rung.label != SECOND or rung.sigma >= SEARCHED]
        return min(fair, key=lambda rung: rung.aic if not math.isnan(rung.aic) else math.inf)

    def __getitem__(self, label: str) -> Rung:
        for rung in self.rungs:
            if rung.label == label:
                return rung
        known = ", ".join(rung.label for rung in self.rungs)
        raise ModelError(f"{self.name}: {label!r} is no hypothesis; expected one of {known}")

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"name": self.name, "rungs": [rung.to_dict() for rung in self.rungs]}

    def __str__(self) -> str:
        lines = [f"{self.name}: shapes, the simplest first"]
        for rung in self.rungs:
            text = f"  {rung.label:<13} dTS {rung.delta_ts:8.1f}   AIC {rung.aic:.1f}"
            if rung.against:
                text += f"   {rung.sigma:.1f} sigma against a {noun(rung.against)}"
            lines.append(f"{text}   {rung.message}".rstrip())
        return "\n".join(lines) + "\n"


def compare_shapes(
    datasets: Any,
    models: Models,
    name: str,
    fit: Fit | None = None,
    progress: Progress = silent,
) -> Ladder:
    """Fit a source as a point, a disk, a Gaussian, an elongated Gaussian, and as two points.

    The second point has the spectrum of the first, and an amplitude of its own.

    Parameters
    ----------
    datasets : dataset or sequence of them
    models : Models
        All are fitted together; the source's shape is replaced in copies.
    name : str
    fit : Fit, optional

    Raises
    ------
    ModelError
        If there is no such source, or it has no position.
    FitError
        If the fit as a point finds no minimum.
    """
    fit = fit or Fit()
    point = fit_as_point(datasets, models, name, fit, part(progress, 0.0, 0.2))
    sizes = _sizes(models[name].spatial_model)

    def best(kind: type[SpatialModel], starts: Sequence[dict[str, float]], share: Progress) -> Any:
        tried = []
        for number, values in enumerate(starts):
            other = models_with_shape(point, name, kind, values)
            now = part(share, number / len(starts), (number + 1) / len(starts))
            tried.append(fit.solve(datasets, other, now))
        return _lowest(tried)

    disk = best(DiskSpatialModel, [{"r_0": 2.0 * s} for s in sizes], part(progress, 0.2, 0.35))
    gauss = best(GaussianSpatialModel, [{"sigma": s} for s in sizes], part(progress, 0.35, 0.5))
    size = abs(gauss.value(name, "sigma")) if gauss.success else sizes[0]
    ellipses = [
        {"sigma": 1.2 * max(size, 0.01), "e": START_ECCENTRICITY, "phi": phi}
        for phi in START_ANGLES
    ]
    elongated = best(GaussianSpatialModel, ellipses, part(progress, 0.5, 0.8))
    axis = elongated if elongated.success else None
    second = _as_two(datasets, point, name, size, axis, fit, part(progress, 0.8, 1.0))
    return Ladder(
        name,
        (
            _rung("Point", "point", point, None, point),
            _rung("Disk", "disk", disk, ("Point", point), point),
            _rung("Gaussian", "gauss", gauss, ("Point", point), point),
            _rung("Elongated", "gauss", elongated, ("Gaussian", gauss), point),
            _rung(SECOND, "point", second, ("Point", point), point),
        ),
    )


def _lowest(tried: Sequence[FitResult]) -> FitResult:
    """The best of some fits, of those that succeeded if any did."""
    good = [result for result in tried if result.success]
    return min(good or tried, key=lambda result: float(result.total_stat))


def _as_two(
    datasets: Any,
    point: FitResult,
    name: str,
    size: float,
    elongated: FitResult | None,
    fit: Fit,
    progress: Progress,
) -> FitResult:
    """The fit with a second point, from where the rest of the light lies and from a long axis."""
    group = [datasets] if hasattr(datasets, "counts") else list(datasets)
    models, added = _with_second(point, name)
    minimiser = Minimiser(Likelihood(group, models), fit.max_calls)
    like = minimiser.likelihood
    p = like.full(minimiser.origin)
    width = min(float(s.psf_width(p)) for t in like.terms for s in t.sources if s.is_point)
    look_around(
        minimiser, min(_AWAY * max(width, size), _FAR * width), part(progress, 0.0, 0.5), [added]
    )
    for key in ("lon_0", "lat_0"):
        at = minimiser.origin[like.names.index((added, key))]
        models[added].parameters[key].value = float(at)
    tried = [fit.solve(datasets, models, part(progress, 0.5, 0.75))]
    if elongated is not None:
        try:
            apart = _along(point, name, elongated)
            tried.append(fit.solve(datasets, apart, part(progress, 0.75, 1.0)))
        except ModelError:
            pass  # The long axis reaches beyond the map, or beyond limits of the position.
    return _lowest(tried)


def _along(point: FitResult, name: str, elongated: FitResult) -> Models:
    """Two points on the long axis of an ellipse, as far apart as twice its sigma."""
    models, added = _with_second(point, name)
    lon, lat = models[name].spatial_model.position_lonlat
    sigma, phi = (
        q.value * q.factor_to_expected
        for q in (models_at(elongated)[name].spatial_model.parameters[k] for k in ("sigma", "phi"))
    )
    north, east = sigma * math.cos(math.radians(phi)), sigma * math.sin(math.radians(phi))
    east /= math.cos(math.radians(lat))
    for one, sign in ((name, 1.0), (added, -1.0)):
        shape = models[one].spatial_model
        for key, at in (("lon_0", lon + sign * east), ("lat_0", lat + sign * north)):
            if not shape.parameters[key].frozen:
                shape.parameters[key].value = at / shape.parameters[key].factor_to_expected
    return models


def _with_second(point: FitResult, name: str) -> tuple[Models, str]:
    """The models at a minimum with a second point at a source's place; and its name."""
    models = models_at(point)
    first = models[name]
    label = f"{name}-b" if f"{name}-b" not in models.names else models.unique_name(name)
    second = first.copy(label)
    lon, lat = first.spatial_model.position_lonlat
    second.spatial_model = PointSpatialModel(frame=first.frame, lon_0=lon, lat_0=lat)
    for p in second.spectral_model.parameters:
        p.link = p.prior = None  # what is known of the first is counted once
        if p.name == second.spectral_model.linear:
            p.frozen = False
        elif not p.frozen:
            p.link = first.spectral_model.parameters[p.name]
    models.append(second)
    return models, second.name


def noun(label: str) -> str:
    """A label of a hypothesis within a sentence: "point", but "Gaussian"."""
    return label if label == "Gaussian" else label.lower()


def _sizes(shape: SpatialModel) -> list[float]:
    """Standard deviations to start from: around the source's own, if it has one."""
    if shape.size_parameter is None:
        return list(START_SIZES)
    parameter = shape.parameters[str(shape.size_parameter)]
    own = abs(float(parameter.value * parameter.factor_to_expected))
    own = 0.5 * own if isinstance(shape, DiskSpatialModel) else own
    return [own, 3.0 * own] if own > 0 else list(START_SIZES)


def _rung(
    label: str,
    tag: str,
    result: FitResult,
    simpler: tuple[str, FitResult] | None,
    point: FitResult,
) -> Rung:
    if not result.success:
        nan = math.nan
        against = simpler[0] if simpler else ""
        return Rung(label, tag, against, nan, 0, nan, nan, nan, result.message)
    priors = result.priors_beyond(point)
    aic = information_criteria(result).aic - priors
    delta = float(point.total_stat - result.total_stat) + priors
    if simpler is None:
        return Rung(label, tag, "", math.nan, 0, math.nan, 0.0, aic, "", result)
    against, other = simpler
    ts = float(other.total_stat - result.total_stat) + priors - other.priors_beyond(point)
    dof = len(result.names) - len(other.names)
    message = ""
    if not other.success:
        ts, message = math.nan, f"There is no fit of a {noun(against)} to compare it with."
    elif ts < -STUCK:
        message = "It fits worse than the simpler shape: it stopped in another minimum."
    ts = max(ts, 0.0) if ts > -STUCK else ts
    sigma = math.sqrt(max(ts, 0.0)) if dof == 1 else sigma_of(ts, dof)
    return Rung(label, tag, against, ts, dof, sigma, delta, aic, message, result)
