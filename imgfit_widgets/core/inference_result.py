"""Answers to questions about a source: frozen, with ``to_dict()`` and a plain sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from .fit_result import FitResult
from .profile_result import plain

__all__ = ["Comparison", "Criteria", "ExtensionTest", "FluxUpperLimit", "Localisation"]


class _Answer:
    """What the results share: JSON."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON; fits are left out."""
        return {k: plain(v) for k, v in vars(self).items() if not isinstance(v, FitResult)}


@dataclass(frozen=True)
class Comparison(_Answer):
    """The likelihood ratio of a simpler and a richer fit of the same data.

    Attributes
    ----------
    ts : float
        Statistic of the simpler fit minus that of the richer.
    dof : int
        How many more free parameters the richer has.
    p_value : float
        Chance of such a ts or more if the simpler model is true.
    sigma : float
        The same as a significance, ``sqrt(ts)`` for one degree of freedom.
    delta_aic, delta_bic : float
        Of the richer minus of the simpler fit: negative speaks for the richer.
    message : str
        What must not be taken at its face value.
    """

    name: str
    ts: float
    dof: int
    p_value: float
    sigma: float
    delta_aic: float
    delta_bic: float
    message: str = ""
    simpler: FitResult | None = field(default=None, repr=False, compare=False)
    richer: FitResult | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        parameters = "1 parameter" if self.dof == 1 else f"{self.dof} parameters"
        text = (
            f"{self.name}: TS = {self.ts:.1f} for {parameters}, {self.sigma:.1f} sigma "
            f"(p = {self.p_value:.2g})."
        )
        return f"{text} {self.message}".rstrip()


@dataclass(frozen=True)
class ExtensionTest(_Answer):
    """A point against an extended shape.

    ``ts`` has one degree of freedom at the bound 0 of the size: ``sigma = sqrt(ts)`` and
    ``p_value`` is half that of chi2(1). ``size`` and ``error`` are of the shape's size parameter,
    in degrees; ``upper_limit`` is the size at which the statistic has risen by
    ``ndtri(cl) ** 2``, NaN if it never does. ``sizes`` and ``ts_sizes`` are the sizes that were
    tried and the ts of each, NaN where nothing was found. ``at_bound`` tells that the fit still got
    better at the largest one, so that ``size`` is no measurement.
    """

    name: str
    shape: str
    parameter: str
    ts: float
    p_value: float
    sigma: float
    size: float
    error: float
    upper_limit: float
    cl: float
    message: str
    sizes: tuple[float, ...]
    ts_sizes: tuple[float, ...]
    at_bound: bool
    point: FitResult | None = field(default=None, repr=False, compare=False)
    extended: FitResult | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        size = f"{self.parameter} = {self.size:.3g} +/- {self.error:.2g} deg"
        if math.isfinite(self.upper_limit):
            size += f", {self.parameter} < {self.upper_limit:.3g} deg ({100 * self.cl:g} %)"
        return (
            f"{self.name} as {self.shape}: TS_ext = {self.ts:.1f} ({self.sigma:.1f} sigma), "
            f"{size}. {self.message}"
        ).rstrip()


@dataclass(frozen=True)
class FluxUpperLimit(_Answer):
    """An upper limit on a source's amplitude.

    ``value`` is the limit and ``best``, ``error`` the fit, in ``unit``; ``flux`` the limit as flux
    (cm-2 s-1) between ``energy_min`` and ``energy_max`` (TeV). ``cl`` is one-sided.
    """

    name: str
    parameter: str
    unit: str
    value: float
    best: float
    error: float
    cl: float
    ts: float
    flux: float
    energy_min: float
    energy_max: float
    message: str = ""

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.parameter} < {self.value:.3g} {self.unit} at {100 * self.cl:g} %, "
            f"flux({self.energy_min:g}-{self.energy_max:g} TeV) < {self.flux:.3g} cm-2 s-1. "
            f"{self.message}"
        ).rstrip()


@dataclass(frozen=True)
class Localisation(_Answer):
    """Where a source is.

    ``lon, lat`` in degrees of ``frame``; ``semi_major``, ``semi_minor`` (deg) of the 1-sigma
    ellipse (39.3 %), ``angle`` (deg) of the major axis from the frame's north through east;
    ``radii`` (deg) of the circles that hold the true position with probabilities ``containment``.
    For each of these ``deviation`` is how far the contour, all else re-fitted, is off the ellipse
    at most, as a share of the ellipse; NaN if it was not checked.
    """

    name: str
    frame: str
    lon: float
    lat: float
    semi_major: float
    semi_minor: float
    angle: float
    containment: tuple[float, ...]
    radii: tuple[float, ...]
    deviation: tuple[float, ...]
    message: str = ""

    @property
    def r68(self) -> float:
        """Radius that holds 68 %, degrees."""
        return self.radii[self.containment.index(0.68)]

    @property
    def r95(self) -> float:
        """Radius that holds 95 %, degrees."""
        return self.radii[self.containment.index(0.95)]

    @property
    def r99(self) -> float:
        """Radius that holds 99 %, degrees."""
        return self.radii[self.containment.index(0.99)]

    def __str__(self) -> str:
        radii = ", ".join(
            f"r{100 * c:g} = {r:.4f}" for c, r in zip(self.containment, self.radii, strict=True)
        )
        return (
            f"{self.name} at ({self.lon:.4f}, {self.lat:.4f}) deg {self.frame}: {radii} deg; "
            f"ellipse {self.semi_major:.4f} x {self.semi_minor:.4f} deg at {self.angle:.0f} deg. "
            f"{self.message}"
        ).rstrip()


@dataclass(frozen=True)
class Criteria(_Answer):
    """Akaike's and the Bayesian information criterion of a fit; lower is better.

    ``aic = stat + 2 k``, ``bic = stat + k ln(n)`` with k free parameters and n fitted bins. Only
    differences between fits of the same bins mean anything.
    """

    aic: float
    bic: float
    stat: float
    n_free: int
    n_bins: int

    def __str__(self) -> str:
        return (
            f"AIC = {self.aic:.2f}, BIC = {self.bic:.2f} ({self.n_free} free parameters, "
            f"{self.n_bins} bins)"
        )
