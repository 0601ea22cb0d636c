"""What the data say of a source, one call each: is it there, is it extended, how bright at most,
where, and which of two models is the better.

Every function fits copies, changes nothing and gives a frozen result with ``to_dict()`` and a plain
sentence as its ``str``:

`source_ts`
    How much a source improves the fit, everything else fitted again without it.
`compare`
    The likelihood ratio of two nested fits.
`extension_test`
    A point against a Gaussian or a disk of its own size, with an upper limit.
`flux_upper_limit`
    The profile likelihood of the amplitude.
`localise`
    Error ellipse and the radii that hold the position with 68, 95 and 99 %.
`information_criteria`
    AIC and BIC of a fit.

A probability from chi2 is an approximation (Wilks 1938): good for many counts,
away from a bound.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import chdtrc, ndtri

from .errors import FitError, ModelError
from .fit import Fit, as_they_are
from .fit_result import FitResult
from .inference_result import (
    Comparison,
    Criteria,
    ExtensionTest,
    FluxUpperLimit,
    Localisation,
)
from .live import LiveLikelihood
from .models import SPATIAL_MODELS, Models, PointSpatialModel, SkyModel, SpatialModel
from .profile import Profiles, models_at
from .progress import Progress, part, silent
from .stats import sigma_of

__all__ = [
    "Comparison",
    "Criteria",
    "ExtensionTest",
    "FluxUpperLimit",
    "Localisation",
    "compare",
    "extension_test",
    "flux_upper_limit",
    "information_criteria",
    "localise",
    "source_ts",
]

CONTAINMENTS = (0.68, 0.95, 0.99)
STUCK = 0.05
"""A richer model that fits worse by more than this has not found its minimum."""
_SIZES = 9
"""How many sizes a source is tried with to see whether it is extended."""
_PARABOLIC = 0.1
"""A contour that is off the ellipse by more than this share of it is no ellipse."""


# --- comparisons
def information_criteria(result: FitResult) -> Criteria:
    """AIC and BIC of a fit (Akaike 1974; Schwarz 1978)."""
    k = len(result.names)
    masks = [d.counts.data.size if d.mask is None else int(d.mask.sum()) for d in result.datasets]
    n = sum(masks)
    stat = float(result.total_stat)
    return Criteria(stat + 2.0 * k, stat + k * math.log(n), stat, k, n)


def compare(simpler: FitResult, richer: FitResult, name: str = "") -> Comparison:
    """The likelihood ratio of two nested fits of the same data.

    Raises
    ------
    FitError
        If a fit did not succeed, the data differ, or the richer has no more parameters.
    """
    for label, result in (("simpler", simpler), ("richer", richer)):
        if not result.success:
            raise FitError(f"compare: the {label} fit found no minimum: {result.message}")
    if [id(d) for d in simpler.datasets] != [id(d) for d in richer.datasets]:
        raise FitError("compare: the two fits are of different datasets; expected the same ones")
    dof = len(richer.names) - len(simpler.names)
    if dof < 1:
        raise FitError(
            f"compare: {len(simpler.names)} and {len(richer.names)} free parameters; the second "
            "fit has to have more"
        )
    priors = richer.priors_beyond(simpler)
    ts = float(simpler.total_stat - richer.total_stat) + priors
    message = ""
    if ts < -STUCK:
        message = "The richer model fits worse: it stopped in another minimum; start it elsewhere."
    few, many = information_criteria(simpler), information_criteria(richer)
    p_value = float(chdtrc(dof, max(ts, 0.0)))
    return Comparison(
        name or "richer against simpler",
        ts,
        dof,
        p_value,
        sigma_of(ts, dof),
        many.aic - few.aic - priors,
        many.bic - few.bic - priors,
        message,
        simpler,
        richer,
    )


def source_ts(
    datasets: Any,
    models: Models,
    name: str,
    fit: Fit | None = None,
    result: FitResult | None = None,
    progress: Progress = silent,
) -> Comparison:
    """How much a source improves the fit, all other parameters fitted again without it.

    Parameters
    ----------
    datasets : dataset or sequence of them
    models : Models
    name : str
        The source.
    fit : Fit, optional
    result : FitResult, optional
        The fit with the source, if it is there already.
    """
    fit = fit or Fit()
    source = _source(models, name)
    free = source.parameters.free_parameters
    linked = [p.label for p in free if _shared(models, source, p)]
    if len(linked) == len(free):
        what = f"shares all of them ({', '.join(linked)})" if linked else "has none"
        raise ModelError(
            f"{name}: expected free parameters of its own to test; it {what}: free its "
            f"{source.linear_parameter.name}"
        )
    full = result or fit.solve(datasets, models, part(progress, 0.0, 0.6))
    _check(full, "the fit with the source")
    without = models_at(full)
    without.remove(name)
    if without.parameters.free_parameters:
        null = fit.solve(datasets, without, part(progress, 0.6, 1.0))
    else:
        null = as_they_are(datasets, without)
    found = compare(null, full, name)
    if linked:
        note = f"It shares {', '.join(linked)} with other models."
        found = _with_message(found, f"{found.message} {note}".strip())
    return found


def _own_size(models: Models, name: str) -> float:
    """Degrees of what the source has for a size, 0 if it has none."""
    spatial = _source(models, name).spatial_model
    size = spatial.size_parameter and spatial.parameters[spatial.size_parameter]
    return abs(float(size.value * size.factor_to_expected)) if size else 0.0


def extension_test(
    datasets: Any,
    models: Models,
    name: str,
    shape: str = "gauss",
    cl: float = 0.95,
    fit: Fit | None = None,
    progress: Progress = silent,
    max_size: float | None = None,
) -> ExtensionTest:
    """Whether a source is extended, and how large it may be.

    The source is fitted as a point and as ``shape`` of sizes that grow from a fiftieth of
    ``max_size`` to ``max_size``, everything else following. The extension is the first minimum that
    is met on the way up, with the size free: that of this source. A deeper one at larger sizes,
    such as emission around it that the models lack makes, is only told of: beyond the first one the
    place is held.

    Parameters
    ----------
    datasets, models, name
        As for `source_ts`; whatever shape the source has is replaced in copies.
    shape : str
        Tag of a spatial model with one size: ``gauss`` or ``disk``.
    cl : float
        One-sided probability of the upper limit.
    max_size : float, optional
        Degrees up to which the source may be extended; by default 0.5, or three times what it is.
    """
    _probability(cl)
    if max_size is None:
        max_size = max(0.5, 3.0 * min(_own_size(models, name), 30.0))
    if not 0.0 < max_size <= 90.0:
        raise FitError(f"max_size {max_size!r}; expected degrees from 0 to 90")
    fit = fit or Fit()
    kind = _shape(shape)
    size = str(kind.size_parameter)
    point = fit_as_point(datasets, models, name, fit, part(progress, 0.0, 0.1))

    def extended(near: FitResult, degrees: float, free: bool, progress: Progress) -> FitResult:
        other = models_with_shape(near, name, kind, {size: degrees})
        own = other[name].spatial_model.parameters[size]
        own.frozen, own.max = not free, max_size
        return fit.solve(datasets, other, progress)

    sizes = np.geomspace(0.02, 1.0, _SIZES) * max_size
    near, curve, first = point, [0.0], _SIZES
    beyond: LiveLikelihood | None = None
    for number, degrees in enumerate(map(float, sizes)):
        share = part(progress, 0.1 + 0.07 * number, 0.17 + 0.07 * number)
        share(0.0, f"{name} as {kind.tag[0]} of {degrees:.2g} deg")
        if beyond is not None:
            grown: dict[str, Any] = {size: degrees}
            curve.append(point.total_stat - beyond.update(name, **grown).stat)
            continue
        one = extended(near, degrees, False, share)
        curve.append(point.total_stat - one.total_stat if one.success else math.nan)
        if curve[-1] < np.nanmax(curve[:-1]):
            first, beyond = number, LiveLikelihood(list(point.datasets), models_at(one))
        elif one.success:
            near = one
    del curve[0]
    # From the last size before the fit got worse.
    start = 0.5 * sizes[0] if first == 0 else sizes[first - 1]
    best = extended(near, float(start), True, part(progress, 0.8, 0.9))
    if not best.success:
        raise FitError(f"{name}: the fit as {kind.tag[0]} found no minimum: {best.message}")
    ts = float(point.total_stat - best.total_stat)
    value, error = best.value(name, size), best.error(name, size)
    limit, notes = math.nan, []
    at_bound = value > max_size * (1.0 - 1e-6)
    further = [(t, s) for t, s in zip(curve, sizes, strict=True) if s > value and t > ts + STUCK]
    if at_bound:
        notes.append(
            f"The fit still gets better at max_size = {max_size:g} deg: there is emission that the "
            "models lack, or the source is larger."
        )
    elif further:
        notes.append(
            f"A deeper minimum lies beyond {size} = {min(s for _, s in further):.2g} deg "
            f"(TS = {max(further)[0]:.1f}): emission around the source that the models lack?"
        )
    if math.isfinite(error):
        minos = Profiles(best).minos((name, size), float(ndtri(cl)), part(progress, 0.9, 1.0))
        if minos.valid_upper and not minos.at_limit_upper:
            limit = value + minos.upper
        else:
            notes.append(f"No upper limit: {minos.message}")
    else:
        notes.append("No upper limit: the size is at its limit.")
    ts = max(ts, 0.0) if ts > -STUCK else ts
    if ts < 0:
        notes.append("The extended fit is worse: start closer to the source.")
    return ExtensionTest(
        name,
        kind.tag[0],
        size,
        ts,
        0.5 * float(chdtrc(1, max(ts, 0.0))),
        math.sqrt(max(ts, 0.0)),
        value,
        error,
        limit,
        float(cl),
        " ".join(notes),
        tuple(map(float, sizes)),
        tuple(map(float, curve)),
        at_bound,
        point,
        best,
    )


# --- limits
def flux_upper_limit(
    datasets: Any,
    models: Models,
    name: str,
    cl: float = 0.95,
    free_shape: bool = False,
    fit: Fit | None = None,
    progress: Progress = silent,
) -> FluxUpperLimit:
    """Upper limit on a source's amplitude by the profile likelihood (Rolke et al. 2005, bounded).

    The amplitude at which the statistic, all else re-fitted, has risen by ``ndtri(cl) ** 2``
    (2.71 for 95 %) above its minimum at an amplitude of 0 or more: a deficit gives no lower limit
    than an empty place.

    Parameters
    ----------
    datasets, models, name
        As for `source_ts`.
    cl : float
        One-sided.
    free_shape : bool
        Whether the source's own position, size and spectral shape are re-fitted too; by default
        they are held as they are in ``models``, so that the limit is for that place.
    """
    _probability(cl)
    fit = fit or Fit()
    held = models.copy()
    source = _source(held, name)
    amplitude = source.linear_parameter
    if not free_shape:
        for parameter in source.parameters:
            parameter.frozen = parameter is not amplitude
    amplitude.prior = None
    amplitude.min = amplitude.max = np.nan
    amplitude.frozen = False
    result = fit.solve(datasets, held, part(progress, 0.0, 0.5))
    _check(result, "the fit")
    key = result.key(name, amplitude.name) or (name, amplitude.name)
    best, error = result.value(*key), result.error(*key)
    profiles = Profiles(result)
    floor = 0.0
    message = ""
    zero = profiles.stat_profile(key, [0.0]).delta[0]
    if best < 0:
        floor = float(zero)
        message = "The best amplitude is negative; the limit is counted from 0."
    partners = [
        q.label for q in held.parameters if q.leader is amplitude.leader and q is not amplitude
    ]
    if partners:
        message = f"{message} It is for {', '.join(partners)} too, linked with it.".strip()
    level = math.sqrt(floor + float(ndtri(cl)) ** 2)
    minos = profiles.minos(key, level, part(progress, 0.5, 1.0))
    if not minos.valid_upper or minos.at_limit_upper:
        raise FitError(f"{name}: no upper limit on {amplitude.name}: {minos.message}")
    value = best + minos.upper
    edges = np.asarray(result.datasets[0].energy_axis.edges.to_value("TeV"), dtype=float)
    limited = models_at(result)[name]
    limited.linear_parameter.value = value
    flux = limited.spectral_model.integral(float(edges[0]), float(edges[-1]))
    return FluxUpperLimit(
        name,
        amplitude.name,
        amplitude.unit_text,
        float(value),
        best,
        error,
        float(cl),
        math.copysign(float(zero), best),
        float(flux),
        float(edges[0]),
        float(edges[-1]),
        message,
    )


# --- place
def localise(
    result: FitResult, name: str, check: bool = True, n: int = 12, progress: Progress = silent
) -> Localisation:
    """Error ellipse and radii of containment of a fitted position.

    From the covariance; with ``check`` the contours of the same probabilities are found at ``n``
    points each and compared with the ellipse.

    Raises
    ------
    FitError
        If the fit has no minimum, or the position was not free or is at a limit.
    """
    _check(result, "the fit")
    source = _source(result.models, name)
    found = {p: result.key(name, p) for p in ("lon_0", "lat_0")}
    keys = [key for key in found.values() if key is not None]
    if len(keys) < len(found):
        missing = ", ".join(f"{name}.{p}" for p, key in found.items() if key is None)
        raise FitError(f"{missing}: not fitted; free the position and fit again")
    profiles = Profiles(result)
    rows = [result.names.index(key) for key in keys]
    parameters = [source.spatial_model.parameters[p] for _, p in keys]
    units = np.array([q.factor_to_expected for q in parameters])
    lon, lat = result.values[rows] * units
    # Degrees on the sky: east is longer in longitude by 1 / cos(lat).
    to_sky = units * np.array([math.cos(math.radians(lat)), 1.0])
    covariance = result.covariance[np.ix_(rows, rows)] * np.outer(to_sky, to_sky)
    if not np.all(np.diag(covariance) > 0):
        raise FitError(f"{name}: its position is at a limit and has no error")
    values, vectors = np.linalg.eigh(covariance)
    minor, major = np.sqrt(values)
    angle = math.degrees(math.atan2(vectors[0, 1], vectors[1, 1])) % 180.0
    radii = tuple(_containment_radius(major, minor, c) for c in CONTAINMENTS)
    deviation = [math.nan] * len(CONTAINMENTS)
    message = ""
    if check:
        inverse = np.linalg.inv(covariance)
        for number, c in enumerate(CONTAINMENTS):
            share = part(progress, number / len(CONTAINMENTS), (number + 1) / len(CONTAINMENTS))
            line = profiles.stat_contour(keys[0], keys[1], n=n, cl=c, progress=share)
            offset = np.stack([line.x, line.y]) - result.values[rows][:, None]
            offset = offset * to_sky[:, None]
            reach = np.sqrt(
                np.einsum("in,ij,jn->n", offset, inverse, offset) / (-2.0 * np.log1p(-c))
            )
            deviation[number] = float(np.abs(reach - 1.0).max())
            if not line.success:
                message = line.message
        if not message and not max(deviation) < _PARABOLIC:
            message = (
                f"The contours are up to {100 * max(deviation):.0f} % off the ellipse: quote the "
                "contour."
            )
    return Localisation(
        name,
        source.frame,
        float(lon),
        float(lat),
        float(major),
        float(minor),
        float(angle),
        CONTAINMENTS,
        radii,
        tuple(deviation),
        message,
    )


def _containment_radius(major: float, minor: float, containment: float) -> float:
    """Radius of the circle that holds a share of a two-dimensional Gaussian.

    The radial integral of the density is closed; that over the angle is a sum over a full period,
    exact to rounding.
    """
    angle = np.linspace(0.0, 2.0 * np.pi, 720, endpoint=False)
    q = (np.cos(angle) / major) ** 2 + (np.sin(angle) / minor) ** 2

    def excess(radius: float) -> float:
        inside = -np.expm1(-0.5 * q * radius**2) / q
        return float(inside.mean()) / (major * minor) - containment

    # Loaded where it is needed: it would take a tenth of the time in which a page opens.
    from scipy.optimize import brentq

    return float(brentq(excess, 0.0, 10.0 * major, xtol=1e-12 * major))


# --- helpers
def fit_as_point(
    datasets: Any, models: Models, name: str, fit: Fit, progress: Progress = silent
) -> FitResult:
    """The fit with a source as a point, from which nested shapes grow.

    Raises
    ------
    ModelError
        If there is no such source, or it has no position.
    FitError
        If it finds no minimum.
    """
    source = _source(models, name)
    if not source.spatial_model.has_position:
        raise ModelError(f"{name}: it has no position, so it cannot be a point; expected one")
    base = models.copy()
    _put_shape(base, name, PointSpatialModel)
    point = fit.solve(datasets, base, progress)
    _check(point, f"{name}: the fit as a point")
    return point


def models_with_shape(
    near: FitResult, name: str, kind: type[SpatialModel], values: dict[str, float]
) -> Models:
    """The models at a minimum with another shape of a source at its place, ``values`` free."""
    other = models_at(near)
    _put_shape(other, name, kind, **values)
    for key in values:
        other[name].spatial_model.parameters[key].frozen = False
    return other


def _put_shape(models: Models, name: str, kind: type[SpatialModel], **values: float) -> None:
    """Give a source another shape at its place, which stays linked with that of others."""
    source = models[name]
    place = {key: source.spatial_model.parameters[key] for key in ("lon_0", "lat_0")}
    source.spatial_model = kind(frame=source.frame, **place, **values)
    for key, old in place.items():
        new = source.spatial_model.parameters[key]
        new.link = old.link
        for parameter in models.parameters:
            if parameter.link is old:
                parameter.link = new


def _source(models: Models, name: str) -> SkyModel:
    model = models[name]
    if not isinstance(model, SkyModel):
        raise ModelError(f"{name}: it is no source; expected one of the sky models")
    return model


def _shared(models: Models, source: SkyModel, parameter: Any) -> bool:
    return any(q.leader is parameter.leader and q.owner != source.name for q in models.parameters)


def _shape(tag: str) -> type[SpatialModel]:
    known = {t: cls for cls in SPATIAL_MODELS for t in cls.tag if _is_sized_point(cls)}
    if tag not in known:
        raise ModelError(
            f"shape {tag!r} has no size that is a point at 0; expected one of {', '.join(known)}"
        )
    return known[tag]


def _is_sized_point(kind: type[SpatialModel]) -> bool:
    """Whether the shape is a point at size 0, which alone its fit adjusts."""
    size = kind.size_parameter
    others = [f for n, f in kind.fields().items() if n not in ("lon_0", "lat_0", size)]
    return size in kind.even_names and all(field.frozen for field in others)


def _check(result: FitResult, what: str) -> None:
    if not result.success:
        raise FitError(f"{what} found no minimum: {result.message}")


def _probability(cl: float) -> None:
    if not 0.5 < cl < 1.0:
        raise FitError(f"cl {cl!r}; expected a probability between 0.5 and 1")


def _with_message(found: Comparison, message: str) -> Comparison:
    return Comparison(**(vars(found) | {"message": message}))
