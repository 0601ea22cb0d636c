"""Model parameters: numbers that a person edits, a widget links to and a fit changes.

`Parameter` is the only mutable thing in a model. Every trait of it refuses a bad value where it is
assigned, with a `ModelError` that names ``MODEL.PARAMETER``, the value and what is allowed.
`ParameterField` declares a parameter of a model class; `Parameters` is an ordered group of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, ClassVar, overload

import numpy as np
import traitlets
from astropy import units as u
from astropy.table import Table

from ..errors import ModelError
from .prior import Prior

__all__ = ["Parameter", "ParameterField", "ParameterOwner", "Parameters", "link_labels"]


class _Number(traitlets.TraitType[Any, Any]):
    """A float; text and quantities are converted. NaN stands for "no limit" where allowed."""

    def __init__(self, default_value: float = 0.0, allow_nan: bool = False, **kwargs: Any) -> None:
        self.allow_nan = allow_nan
        super().__init__(default_value, **kwargs)

    def validate(self, obj: Any, value: Any) -> float:
        number = obj._number(self.name, value)
        if not self.allow_nan and not np.isfinite(number):
            raise ModelError(f"{obj.label}: {self.name} {value!r} is not a finite number")
        obj._check_limits(self.name, number)
        return float(number)


class _UnitTrait(traitlets.TraitType[Any, Any]):
    """An astropy unit, given as such or as text."""

    def validate(self, obj: Any, value: Any) -> u.UnitBase:
        try:
            unit = u.Unit(value)
            if not 0.0 < unit.decompose().scale < np.inf:
                raise ValueError("its factor is no number above 0")
        except (ValueError, TypeError, OverflowError) as error:
            raise ModelError(f"{obj.label}: unit {value!r} is not a unit: {error}") from None
        expected = obj.expected_unit
        if expected is not None and not unit.is_equivalent(expected):
            raise ModelError(
                f"{obj.label}: unit '{value}' cannot be converted to '{expected}', "
                "in which this parameter is measured"
            )
        return unit


class _Link(traitlets.TraitType[Any, Any]):
    """The parameter that this one follows, None for none."""

    def validate(self, obj: Any, value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, Parameter):
            raise ModelError(f"{obj.label}: link {value!r} is no parameter")
        if obj in value.line:
            raise ModelError(f"{obj.label}: cannot be linked to {value.label}, which follows it")
        expected = obj.expected_unit
        if expected is not None and value.expected_unit is not None:
            if value.expected_unit != expected:
                raise ModelError(
                    f"{obj.label}: cannot be linked to {value.label}, which is measured in "
                    f"'{value.expected_unit}' and not in '{expected}'"
                )
        elif not value.unit.is_equivalent(obj.unit):
            raise ModelError(
                f"{obj.label}: cannot be linked to {value.label}, whose unit is '{value.unit}'"
            )
        return value

    def set(self, obj: Any, value: Any) -> None:
        value = self.validate(obj, value)
        old = obj._trait_values.get(self.name)
        if old is not None:
            old.unobserve(obj._follow, names=_SHARED)
            super().set(obj, None)
        if value is not None:
            obj._take_over(value)
            super().set(obj, value)
            value.observe(obj._follow, names=_SHARED)


class _PriorTrait(traitlets.TraitType[Any, Any]):
    """A `Prior` or None."""

    def validate(self, obj: Any, value: Any) -> Prior | None:
        if value is None or isinstance(value, Prior):
            return value
        raise ModelError(f"{obj.label}: prior {value!r} is neither a prior nor None")


_SHARED = ("unit", "min", "max", "value", "error", "frozen", "prior")
"""What linked parameters have in common."""


class Parameter(traitlets.HasTraits):
    """One number of a model.

    Parameters
    ----------
    name : str
    value : float, str or Quantity
        Text may carry a unit ("0.1 deg").
    unit : str or Unit
        Unit of value, error, min and max.
    error : float
        Standard deviation, 0 before a fit.
    min, max : float
        Limits of the value, NaN for none.
    frozen : bool
        Whether a fit leaves the value alone.
    prior : Prior, optional
        What is known of the value beforehand, in `unit`.

    ``link`` is a parameter that this one follows: from then on both have the same value, error,
    limits, prior and state, whichever of the two is changed, and a fit takes them for one.

    ``covariance_row`` is the covariance that it is part of, shared with the others of a fit, and
    its row in there, None before a fit.
    """

    covariance_row: tuple[np.ndarray, int] | None = None
    name = traitlets.Unicode()
    owner = traitlets.Unicode()
    unit = _UnitTrait(u.dimensionless_unscaled)
    value = _Number(0.0)
    error = _Number(0.0, allow_nan=True)
    min = _Number(np.nan, allow_nan=True)
    max = _Number(np.nan, allow_nan=True)
    frozen = traitlets.Bool(False)
    prior = _PriorTrait(None, allow_none=True)
    link = _Link(None, allow_none=True)

    def __init__(
        self,
        name: str,
        value: Any = 0.0,
        unit: Any = None,
        error: Any = 0.0,
        min: Any = np.nan,
        max: Any = np.nan,
        frozen: bool = False,
        expected_unit: u.UnitBase | None = None,
        kind: str = "",
        prior: Prior | None = None,
    ) -> None:
        super().__init__()
        self.expected_unit = expected_unit
        self.kind = kind
        self.name = name
        if unit is None:
            quantity = _as_quantity(value)
            if quantity is not None:
                value, unit = float(quantity.value), quantity.unit
        self.unit = "" if unit is None else unit
        # The value goes first: the limits are then checked against it, whatever it is.
        self.value = value
        self.min, self.max = min, max
        self.error = error
        self.frozen = frozen
        self.prior = prior

    # --- links
    @property
    def line(self) -> list[Parameter]:
        """The parameter itself, the one that it follows, the one that this follows, and so on."""
        found = [self]
        while found[-1].link is not None:
            found.append(found[-1].link)
        return found

    @property
    def leader(self) -> Parameter:
        """The parameter that gives the value: itself if it follows none."""
        leader = self
        while (ahead := leader.link) is not None:
            leader = ahead
        return leader

    def _take_over(self, leader: Parameter) -> None:
        """Become like the parameter that is to be followed."""
        self.min = self.max = np.nan
        for name in ("unit", "value", "min", "max", "error", "frozen", "prior"):
            setattr(self, name, getattr(leader, name))

    def _follow(self, change: Any) -> None:
        """The leader has changed."""
        if not _same(getattr(self, change["name"]), change["new"]):
            setattr(self, change["name"], change["new"])

    @traitlets.observe(*_SHARED)
    def _lead(self, change: Any) -> None:
        """A change of a follower is one of its leader."""
        leader = self._trait_values.get("link")
        if leader is not None and not _same(getattr(leader, change["name"]), change["new"]):
            setattr(leader, change["name"], change["new"])

    # Observers are not copied: a copied or unpickled follower looks to its leader again.
    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        leader = self._trait_values.get("link")
        if leader is not None:
            leader.observe(self._follow, names=_SHARED)

    @property
    def label(self) -> str:
        """``MODEL.PARAMETER``, as error messages and ``--set`` spell it."""
        return f"{self.owner}.{self.name}" if self.owner else self.name

    @property
    def unit_text(self) -> str:
        """The unit as files and tables write it, for example ``s-1 cm-2``."""
        return _unit_text(self.unit)

    @property
    def quantity(self) -> u.Quantity:
        """The value with its unit. Assigning converts to the parameter's unit."""
        return self.value * self.unit

    @quantity.setter
    def quantity(self, value: Any) -> None:
        self.value = u.Quantity(value) if not isinstance(value, str) else value

    @property
    def factor_to_expected(self) -> float:
        """What turns a value in `unit` into one in the unit that the model computes in."""
        if self.expected_unit is None:
            return 1.0
        return float(self.unit.to(self.expected_unit))

    def copy(self) -> Parameter:
        """A new parameter with the same content, no owner and no link."""
        return Parameter(
            self.name,
            self.value,
            self.unit,
            self.error,
            self.min,
            self.max,
            self.frozen,
            self.expected_unit,
            self.kind,
            self.prior,
        )

    def __repr__(self) -> str:
        frozen = ", frozen" if self.frozen else ""
        return f"Parameter({self.label} = {self.value:g} +/- {self.error:g} {self.unit}{frozen})"

    def _number(self, trait: str, value: Any) -> float:
        """Turn what was assigned to ``trait`` into a float in this parameter's unit."""
        if isinstance(value, (bool, np.bool_)) or value is None:
            raise ModelError(f"{self.label}: {trait} {value!r} is not a number")
        quantity = _as_quantity(value)
        try:
            if quantity is not None and quantity.unit != u.dimensionless_unscaled:
                return float(quantity.to_value(self.unit))
            return float(value)
        except u.UnitConversionError:
            raise ModelError(
                f"{self.label}: {trait} {str(value)!r} cannot be converted to '{self.unit}'"
            ) from None
        except (TypeError, ValueError, OverflowError):
            unit = f" in '{self.unit_text}'" if self.unit_text else ""
            raise ModelError(
                f"{self.label}: {trait} {value!r} is not a number; expected one{unit}"
            ) from None

    def _check_limits(self, trait: str, number: float) -> None:
        """Refuse a value outside the limits, and limits that exclude the value."""
        if trait == "error" and number < 0:
            raise ModelError(f"{self.label}: error {number:g} is negative; expected 0 or more")
        # Traits that are not set yet count as unknown: reading them would validate their default.
        value, low, high = (self._trait_values.get(k, np.nan) for k in ("value", "min", "max"))
        if trait == "value" and (number < low or number > high):
            raise ModelError(
                f"{self.label}: value {number:g} is outside its limits; expected a number "
                f"{_range_text(low, high)} {self.unit_text}".rstrip()
            )
        if trait == "min" and (number > value or number > high):
            raise ModelError(
                f"{self.label}: min {number:g} is above {_known_text(value=value, max=high)}"
            )
        if trait == "max" and (number < value or number < low):
            raise ModelError(
                f"{self.label}: max {number:g} is below {_known_text(value=value, min=low)}"
            )


def _known_text(**numbers: float) -> str:
    """What is known of some numbers, for example "the value 1 or the max 2"."""
    known = [f"the {name} {number:g}" for name, number in numbers.items() if not np.isnan(number)]
    return " or ".join(known)


class ParameterField:
    """Declares a parameter in the body of a model class; reading it gives the `Parameter`.

    The unit declared here is the one that the model computes in; a user's unit is converted to it.
    """

    def __init__(
        self,
        value: float,
        unit: str = "",
        min: float = np.nan,
        max: float = np.nan,
        frozen: bool = False,
        help: str = "",
    ) -> None:
        self.value, self.unit = value, u.Unit(unit)
        self.min, self.max, self.frozen, self.help = min, max, frozen, help
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> ParameterField: ...
    @overload
    def __get__(self, instance: ParameterOwner, owner: type) -> Parameter: ...
    def __get__(self, instance: ParameterOwner | None, owner: type) -> ParameterField | Parameter:
        if instance is None:
            return self
        return instance.parameters[self.name]

    def __set__(self, instance: ParameterOwner, value: Any) -> None:
        if isinstance(value, Parameter):
            # As in Gammapy: ``b.index = a.index`` makes one parameter of the two.
            instance.parameters[self.name].link = value
            return
        label = instance.parameters[self.name].label
        raise ModelError(
            f"{label}: cannot be replaced by {value!r}; assign to its .value or .quantity"
        )

    def make(self, kind: str, value: Any = None) -> Parameter:
        """A new parameter, with the default or with ``value`` (number, text or quantity)."""
        unit: Any = self.unit
        if isinstance(value, Parameter):
            parameter = value.copy()
            parameter.name, parameter.kind = self.name, kind
            parameter.expected_unit = self.unit
            parameter.unit = parameter.unit
            return parameter
        quantity = _as_quantity(value) if value is not None else None
        if quantity is not None and quantity.unit != u.dimensionless_unscaled:
            value, unit = float(quantity.value), quantity.unit
        scale = 1.0
        if unit != self.unit and unit.is_equivalent(self.unit):
            scale = float(self.unit.to(unit))
        return Parameter(
            self.name,
            self.value if value is None else value,
            unit,
            min=self.min * scale,
            max=self.max * scale,
            frozen=self.frozen,
            expected_unit=self.unit,
            kind=kind,
        )


class ParameterOwner:
    """Base of the spatial and spectral models: a tag and the parameters its class declares.

    Keyword arguments set parameters, as numbers, text ("0.1 deg"), quantities or `Parameter`.
    """

    tag: tuple[str, ...] = ()
    kind = ""

    def __init__(self, **values: Any) -> None:
        fields = self.fields()
        unknown = sorted(set(values) - set(fields))
        if unknown:
            raise ModelError(
                f"{self.tag[0]}: no parameter {unknown[0]!r}; it has {', '.join(fields)}"
            )
        self.parameters = Parameters(
            field.make(self.kind, values.get(name)) for name, field in fields.items()
        )

    _declared: ClassVar[dict[str, ParameterField]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        own = {k: v for k, v in vars(cls).items() if isinstance(v, ParameterField)}
        cls._declared = cls._declared | own

    @classmethod
    def fields(cls) -> dict[str, ParameterField]:
        """The declared parameters, by name, in order."""
        return cls._declared

    def canonical_values(self) -> np.ndarray:
        """Parameter values in the units that the class declares, float64."""
        return np.array([p.value * p.factor_to_expected for p in self.parameters])


class Parameters:
    """An ordered group of parameters; index by name or position."""

    def __init__(self, parameters: Iterable[Parameter] = ()) -> None:
        self._items = tuple(parameters)

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __add__(self, other: Parameters) -> Parameters:
        return Parameters((*self._items, *other))

    def __contains__(self, item: object) -> bool:
        return item in self._items or item in self.names

    def __getitem__(self, key: str | int) -> Parameter:
        if isinstance(key, str):
            for parameter in self._items:
                if parameter.name == key:
                    return parameter
            owner = next((p.owner for p in self._items if p.owner), "")
            label = f"{owner}.{key}" if owner else repr(key)
            raise ModelError(f"{label}: no such parameter; expected one of {', '.join(self.names)}")
        return self._items[key]

    @property
    def names(self) -> list[str]:
        """Names in order."""
        return [p.name for p in self._items]

    @property
    def value(self) -> np.ndarray:
        """Values in order, each in its parameter's unit."""
        return np.array([p.value for p in self._items])

    @property
    def free_parameters(self) -> Parameters:
        """Those that a fit may change; of linked ones the first."""
        return Parameters(p for p in self.unique_parameters if not p.frozen)

    @property
    def unique_parameters(self) -> Parameters:
        """All, but of linked ones only the first."""
        first = {id(p.leader): p for p in reversed(self._items)}
        return Parameters(p for p in self._items if first[id(p.leader)] is p)

    @property
    def covariance(self) -> np.ndarray:
        """Covariance in their units, shape (n, n); errors squared where nothing else is known.

        That is for those that no fit knew, and for those that got another error since.
        """
        matrix = np.diag([np.nan_to_num(p.error) ** 2 for p in self._items]).astype(float)
        known: dict[int, tuple[np.ndarray, list[int], list[int]]] = {}
        for place, parameter in enumerate(self._items):
            if (found := parameter.leader.covariance_row) is not None:
                block, row = found
                if math.isclose(parameter.error**2, block[row, row], rel_tol=1e-3):
                    _, places, rows = known.setdefault(id(block), (block, [], []))
                    places.append(place)
                    rows.append(row)
        for block, places, rows in known.values():
            matrix[np.ix_(places, places)] = block[np.ix_(rows, rows)]
        return matrix

    def share(self, covariance: np.ndarray) -> None:
        """Have a covariance, shape (n, n), in common."""
        block = np.array(covariance, dtype=float)
        block.flags.writeable = False
        for row, parameter in enumerate(self._items):
            parameter.leader.covariance_row = block, row

    def share_as(self, others: Parameters) -> None:
        """Have in common what as many others have."""
        twins = zip(self._items, others, strict=True)
        known = [(own, other) for own, other in twins if other.leader.covariance_row is not None]
        if known:
            own, other = (Parameters(column) for column in zip(*known, strict=True))
            own.share(other.covariance)

    def prior_stat_sum(self) -> float:
        """What the priors add to a fit statistic; linked parameters count once."""
        items = self.unique_parameters
        return float(sum(p.prior.penalty(p.value)[0] for p in items if p.prior is not None))

    def freeze_all(self) -> None:
        """Freeze every parameter of the group."""
        for parameter in self._items:
            parameter.frozen = True

    def unfreeze_all(self) -> None:
        """Free every parameter of the group."""
        for parameter in self._items:
            parameter.frozen = False

    def to_table(self) -> Table:
        """The group as an astropy table with Gammapy's columns."""
        items = self._items
        table = Table()
        table["type"] = _text_column(p.kind for p in items)
        table["name"] = _text_column(p.name for p in items)
        for column, form in (("value", ".4e"), ("unit", ""), ("error", ".3e"), ("min", ".3e")):
            if column == "unit":
                table["unit"] = _text_column(p.unit_text for p in items)
            else:
                table[column] = np.array([getattr(p, column) for p in items], dtype=float)
                table[column].format = form
        table["max"] = np.array([p.max for p in items], dtype=float)
        table["max"].format = ".3e"
        table["frozen"] = np.array([p.frozen for p in items], dtype=bool)
        labels = link_labels(items)
        table["link"] = _text_column(labels.get(id(p), "") for p in items)
        table["prior"] = _text_column("" if p.prior is None else p.prior.tag for p in items)
        return table

    def __str__(self) -> str:
        return str(self.to_table())


def _as_quantity(value: Any) -> u.Quantity | None:
    """``value`` as a scalar quantity if it is one or is text for one, else None."""
    if isinstance(value, u.Quantity):
        return value
    if isinstance(value, str):
        try:
            return u.Quantity(value)
        except (TypeError, ValueError):
            return None
    return None


def link_labels(parameters: Iterable[Parameter]) -> dict[int, str]:
    """What linked parameters are called in files: ``NAME@MODEL`` of the first, by ``id``."""
    groups: dict[int, list[Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(id(parameter.leader), []).append(parameter)
    return {
        id(p): f"{group[0].name}@{group[0].owner}"
        for group in groups.values()
        if len(group) > 1
        for p in group
    }


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal; two NaN are."""
    return bool(one == other or (one != one and other != other))


@lru_cache(maxsize=128)
def _unit_text(unit: u.UnitBase) -> str:
    try:
        return str(unit.to_string("fits"))
    except ValueError:
        return str(unit)


def _text_column(values: Iterable[str]) -> np.ndarray:
    return np.array(list(values), dtype=str)


def _range_text(low: float, high: float) -> str:
    if np.isnan(low):
        return f"of {high:g} or less"
    if np.isnan(high):
        return f"of {low:g} or more"
    return f"from {low:g} to {high:g}"
