"""Priors: what is known of a parameter before the data speak.

A prior adds ``-2 ln p(value)`` times its weight to the fit statistic. `GaussianPrior` is a
measurement from elsewhere, `UniformPrior` an allowed range. Both are plain frozen values in their
parameter's unit, spelled in YAML as Gammapy does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from astropy import units as u

from ..errors import ModelError

__all__ = ["PRIORS", "GaussianPrior", "Prior", "UniformPrior", "prior_from_dict"]


@dataclass(frozen=True)
class Prior:
    """Base: numbers in the parameter's unit, and a weight on their contribution."""

    tag: ClassVar[str] = "Prior"
    fields: ClassVar[tuple[str, ...]] = ()

    weight: float = 1.0

    def __post_init__(self) -> None:
        for name in (*self.fields, "weight"):
            value = getattr(self, name)
            try:
                number = float(value)
            except (TypeError, ValueError):
                number = math.nan
            if isinstance(value, bool) or not math.isfinite(number):
                raise ModelError(f"{self.tag}.{name}: {value!r} is not a finite number")
            object.__setattr__(self, name, number)
        if not self.weight >= 0:
            raise ModelError(f"{self.tag}.weight: {self.weight:g}; expected 0 or more")

    def penalty(self, value: float) -> tuple[float, float, float]:
        """What is added to the statistic, and its first and second derivative by the value."""
        raise NotImplementedError

    @property
    def limits(self) -> tuple[float, float]:
        """The range outside which the prior is zero."""
        return -math.inf, math.inf

    def to_dict(self) -> dict[str, Any]:
        """As a YAML file has it."""
        return {
            "type": self.tag,
            "parameters": [
                {"name": name, "value": getattr(self, name), "unit": ""} for name in self.fields
            ],
            "weight": self.weight,
        }


@dataclass(frozen=True)
class GaussianPrior(Prior):
    """A Gaussian of mean ``mu`` and standard deviation ``sigma``."""

    tag: ClassVar[str] = "GaussianPrior"
    fields: ClassVar[tuple[str, ...]] = ("mu", "sigma")

    mu: float = 0.0
    sigma: float = 1.0

    def __init__(self, mu: float = 0.0, sigma: float = 1.0, weight: float = 1.0) -> None:
        for name, value in (("mu", mu), ("sigma", sigma), ("weight", weight)):
            object.__setattr__(self, name, value)
        self.__post_init__()
        if not self.sigma > 0:
            raise ModelError(f"{self.tag}.sigma: {self.sigma:g}; expected more than 0")

    def penalty(self, value: float) -> tuple[float, float, float]:
        pull = (value - self.mu) / self.sigma
        norm = math.log(2.0 * math.pi) + 2.0 * math.log(self.sigma)
        w = self.weight
        return w * (pull * pull + norm), 2.0 * w * pull / self.sigma, 2.0 * w / self.sigma**2


@dataclass(frozen=True)
class UniformPrior(Prior):
    """The same probability from ``min`` to ``max``, none outside."""

    tag: ClassVar[str] = "UniformPrior"
    fields: ClassVar[tuple[str, ...]] = ("min", "max")

    min: float = 0.0
    max: float = 1.0

    def __init__(self, min: float = 0.0, max: float = 1.0, weight: float = 1.0) -> None:
        for name, value in (("min", min), ("max", max), ("weight", weight)):
            object.__setattr__(self, name, value)
        self.__post_init__()
        if not self.min < self.max:
            raise ModelError(
                f"{self.tag}: min {self.min:g} and max {self.max:g}; expected min below max"
            )

    @property
    def limits(self) -> tuple[float, float]:
        return (self.min, self.max) if self.weight > 0 else (-math.inf, math.inf)

    def penalty(self, value: float) -> tuple[float, float, float]:
        low, high = self.limits
        inside = low <= value <= high
        norm = 2.0 * self.weight * math.log(self.max - self.min)
        return (norm if inside else math.inf), 0.0, 0.0


PRIORS: list[type[Prior]] = [GaussianPrior, UniformPrior]


def prior_from_dict(data: Any, unit: u.UnitBase) -> Prior:
    """A prior from its YAML mapping.

    Parameters
    ----------
    data : dict
        ``type``, ``parameters`` (a list of name, value and perhaps unit) and perhaps ``weight``.
    unit : Unit
        Unit of the parameter, to which numbers with a unit are converted.

    Raises
    ------
    ModelError
        With the key, the value found and what was expected.
    """
    known = {cls.tag: cls for cls in PRIORS}
    if not isinstance(data, dict):
        raise ModelError(f"found {data!r}; expected a mapping with type and parameters")
    kind = data.get("type")
    if not isinstance(kind, str) or kind not in known:
        raise ModelError(f"type: {kind!r} is not known; expected one of {', '.join(known)}")
    for key in data:
        if key not in ("type", "parameters", "weight"):
            raise ModelError(f"{key}: not known; expected type, parameters, weight")
    cls, values = known[kind], dict[str, Any]()
    entries = data.get("parameters")
    if not isinstance(entries, list):
        raise ModelError(f"parameters: found {entries!r}; expected a list of name and value")
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("name") not in cls.fields:
            raise ModelError(
                f"parameters: found {entry!r}; expected a mapping with value and a name out of "
                f"{', '.join(cls.fields)}"
            )
        values[entry["name"]] = _in_unit(entry, unit)
    return cls(**values, weight=data.get("weight", 1.0))


def _in_unit(entry: dict[str, Any], unit: u.UnitBase) -> Any:
    """The value of a prior's number; one without a unit of its own is in the parameter's."""
    text = entry.get("unit")
    value = entry.get("value")
    if text in (None, ""):
        return value
    try:
        return float(value * u.Unit(text).to(unit))
    except (TypeError, ValueError) as error:
        raise ModelError(f"{entry['name']}: {value!r} {text!r}: {error}") from None
