"""What a look around a minimum gives: errors, profiles, surfaces and contours, frozen."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Contour", "ContourPoint", "MinosError", "StatProfile", "StatSurface", "plain"]


@dataclass(frozen=True)
class MinosError:
    """Asymmetric error of one parameter: how far the statistic takes to rise by sigma squared.

    ``lower`` (negative) and ``upper`` are in the parameter's unit. Where the parameter reaches its
    limit first, the error is the distance to it and ``at_limit_...`` is true: the interval is open
    there. ``valid_...`` is false, and the number NaN, where no crossing was found; ``message`` says
    why.
    """

    model: str
    name: str
    unit: str
    value: float
    sigma: float
    lower: float
    upper: float
    valid_lower: bool
    valid_upper: bool
    at_limit_lower: bool
    at_limit_upper: bool
    nfev: int
    message: str = ""

    @classmethod
    def none(cls, model: str, name: str, unit: str, value: float, reason: str) -> MinosError:
        """Of a parameter that has no error."""
        nan, no = math.nan, False
        return cls(model, name, unit, float(value), 1.0, nan, nan, no, no, no, no, 0, reason)

    @property
    def success(self) -> bool:
        """Whether both sides are crossings or limits."""
        return self.valid_lower and self.valid_upper

    @property
    def errn(self) -> float:
        """Size of the lower error, as Gammapy calls it."""
        return -self.lower

    @property
    def errp(self) -> float:
        """The upper error, as Gammapy calls it."""
        return self.upper

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {key: plain(value) for key, value in vars(self).items()}

    def __str__(self) -> str:
        low = "limit" if self.at_limit_lower else f"{self.lower:.3g}"
        high = "limit" if self.at_limit_upper else f"+{self.upper:.3g}"
        text = f"{self.model}.{self.name} = {self.value:.5g} ({low}, {high}) {self.unit}".rstrip()
        return f"{text}. {self.message}" if self.message else text


@dataclass(frozen=True, eq=False)
class StatProfile:
    """Statistic along one parameter, all else re-fitted.

    ``values`` (n,) in the parameter's unit; ``stat`` (n,), NaN where the others found no minimum;
    ``others`` (n, n_free) all free parameters there; ``stat_min`` at the minimum.
    """

    model: str
    name: str
    unit: str
    values: np.ndarray
    stat: np.ndarray
    stat_min: float
    others: np.ndarray = field(repr=False)

    @property
    def delta(self) -> np.ndarray:
        """Rise above the minimum, shape (n,)."""
        return self.stat - self.stat_min

    def to_dict(self) -> dict[str, Any]:
        """For JSON; ``values`` and ``stat`` as Gammapy has them."""
        return {key: plain(value) for key, value in vars(self).items() if key != "others"}


@dataclass(frozen=True, eq=False)
class StatSurface:
    """Statistic over two parameters, all else re-fitted: ``stat[i, k]`` at ``x[i]``, ``y[k]``."""

    names: tuple[tuple[str, str], tuple[str, str]]
    x: np.ndarray
    y: np.ndarray
    stat: np.ndarray
    stat_min: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {key: plain(value) for key, value in vars(self).items()}


@dataclass(frozen=True)
class ContourPoint:
    """One point of a contour.

    ``valid`` is false where the level was not met; ``at_limit`` where a limit was met before it.
    ``angle`` (rad) is that of its ray, ``reach`` the distance in units of the ellipse's.
    """

    x: float
    y: float
    valid: bool
    at_limit: bool
    angle: float = math.nan
    reach: float = math.nan


@dataclass(frozen=True, eq=False)
class Contour:
    """A closed line of two parameters: the last point is the first one again.

    ``x`` and ``y`` in the parameters' units, in the order of the angle around the minimum;
    ``valid`` and ``at_limit``, of the same length, as of `ContourPoint`. ``cl`` is the probability
    that the line holds for two parameters. ``closed`` tells that the line is all of the level's and
    bounds the region; if not, ``message`` says where. ``minimum`` is the point that it is around.
    """

    names: tuple[tuple[str, str], tuple[str, str]]
    x: np.ndarray
    y: np.ndarray
    valid: np.ndarray
    at_limit: np.ndarray
    sigma: float
    cl: float
    message: str = ""
    closed: bool = True
    minimum: tuple[float, float] = (math.nan, math.nan)
    units: tuple[str, str] = ("", "")

    @property
    def success(self) -> bool:
        """Whether every point is on the level or at a limit."""
        return bool(self.valid.all())

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {key: plain(value) for key, value in vars(self).items()} | {"success": self.success}


def plain(value: Any) -> Any:
    """What JSON can spell: lists, and None for what is not finite."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
