"""The verdict on a fit: whether its last point is a minimum; in words why not and what to do."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .fit_result import SourceTS
from .likelihood import Likelihood
from .minimise import EDM_VALID, LEVEL, Minimiser, curves_up
from .models import SkyModel

__all__ = ["blind_shapes", "judge", "praise"]

_SHAPE_ERROR, _SHARED = 0.5, 0.97
"""A shape in one band counts as measured with an error and a correlation below these."""


def judge(
    minimiser: Minimiser,
    x: np.ndarray,
    hessian: np.ndarray,
    gradient: np.ndarray,
    held: np.ndarray,
) -> tuple[str, np.ndarray, float]:
    """Why this is no good minimum ("" if it is one), the covariance in u, and the EDM."""
    like = minimiser.likelihood
    n = len(x)
    names = [f"{model}.{name}" for model, name in like.names]
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
    elif twins := _twins(like, minimiser.information, free):
        reason = f"No minimum: the fit cannot tell {twins} apart; freeze one of them"
    elif len(free):
        scale = np.sqrt(np.diag(hessian)[free])
        scaled = hessian[np.ix_(free, free)] / np.outer(scale, scale)
        if not curves_up(scaled, LEVEL):
            _, vectors = np.linalg.eigh(scaled)
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
    if blind := _blind(like, covariance * np.outer(minimiser.scale, minimiser.scale), held):
        return blind, covariance, edm
    off = _stopped_at(minimiser, x, held)
    if off:
        return off, covariance, edm
    if reason:
        return reason, covariance, edm
    if not edm < EDM_VALID:
        left = (
            "after the allowed number of evaluations "
            if minimiser.nfev > minimiser.max_calls
            else ""
        )
        return (
            f"No minimum was reached {left}(estimated distance {edm:.2g}); fit again from here",
            covariance,
            edm,
        )
    return "", covariance, edm


def _twins(like: Likelihood, information: np.ndarray, free: np.ndarray) -> str:
    """The parameters that change the prediction in one and the same way, "" if there are none.

    By the Fisher information, in which such parameters are exactly dependent.
    """
    known = [int(i) for i in free if information[i, i] > 0]
    if len(known) < 2:
        return ""
    scale = np.sqrt(np.diag(information)[known])
    scaled = information[np.ix_(known, known)] / np.outer(scale, scale)
    if curves_up(scaled, LEVEL):
        return ""
    _, vectors = np.linalg.eigh(scaled)
    order = sorted(np.argsort(-np.abs(vectors[:, 0]))[:2])
    names = like.names
    return " and ".join(".".join(names[known[i]]) for i in order)


def _stopped_at(minimiser: Minimiser, x: np.ndarray, held: np.ndarray) -> str:
    """Why positions or sizes are where the fit was not allowed to go further."""
    ev = minimiser.likelihood
    for i in np.flatnonzero(held):
        model, name = ev.names[i]
        # A round or pointlike shape is one, though its parameter has no room to the other side.
        vanishes = ev.free_parameters[i].kind == "spatial" and minimiser.room.lower[i] == 0
        if minimiser.room.natural[i] and not (vanishes and x[i] < 1e-2 * minimiser.room.upper[i]):
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
            return f"{source.name} left the map; start closer to a source or freeze its position"
    if not np.all(np.isfinite(x)):
        return "The fit met values that are not finite; start closer to a source"
    return ""


def _blind(like: Likelihood, covariance: np.ndarray, held: np.ndarray) -> str:
    """What to tell of the shape of a spectrum that is to be measured in one band, "" if nothing.

    One band only knows of it what the width of the PSF says, which depends on energy.
    """
    for i, model, other in blind_shapes(like):
        variance = covariance[i, i]
        measured = 0 < variance < _SHAPE_ERROR**2 and not held[i]
        if measured and other is not None:
            shared = covariance[i, other] ** 2 / max(variance * covariance[other, other], 1e-300)
            measured = shared < _SHARED**2
        if not measured:
            name = ".".join(like.names[i])
            rival = f" from {'.'.join(like.names[other])}" if other is not None else ""
            return (
                f"{name} cannot be told{rival} with one energy band of {model}'s data; freeze "
                f"{name}, or reduce the data to several energy bands"
            )
    return ""


def blind_shapes(like: Likelihood) -> Iterator[tuple[int, str, int | None]]:
    """Free shapes of spectra with data in one band only.

    Yields the place of the parameter, its model and the place of the amplitude if that is free.
    """
    for i, (q, (model, name)) in enumerate(zip(like.free_parameters, like.names, strict=True)):
        component = like.models[model]
        linear = component.spectral_model.linear
        if q.kind != "spectral" or name == linear or q.prior is not None:
            continue
        group = {p.owner for p in like.models.parameters if p.leader is q.leader}
        if all(like.bands_of(owner) <= 1 for owner in group):
            amplitude = (model, linear)
            yield i, model, like.names.index(amplitude) if amplitude in like.names else None


def praise(
    like: Likelihood, x: np.ndarray, errors: np.ndarray, held: np.ndarray, ts: dict[str, SourceTS]
) -> str:
    """That it worked, and what of the result must not be taken at its face value."""
    names = like.names
    at = [f"{m}.{n}" for (m, n), h in zip(names, held, strict=True) if h]
    text = "Optimization terminated successfully."
    if at:
        text += f" At its limit, so without an error: {', '.join(at)}."
    for (model, name), value, error in zip(names, x, errors, strict=True):
        if like.evaluator.is_even(model, name) and value < 2.0 * error:
            text += (
                f" {model} need not be extended: its {name} is compatible with 0, "
                "so a point describes it as well."
            )
        source = like.models[model]
        if isinstance(source, SkyModel) and name == source.linear_parameter.name and value < 0:
            text += f" {model} has a negative flux: a deficit, not a source."
    for i, model, _ in blind_shapes(like):
        if not held[i]:
            text += (
                f" {model} is seen in one energy band: {'.'.join(names[i])} follows from the width "
                "of the PSF alone; freeze it, or reduce the data to several energy bands."
            )
    for name, found in ts.items():
        if found.dof and found.sigma < 3.0:
            text += f" {name} is not significant here ({found.sigma:.1f} sigma)."
    return text
