"""Typed fields of a configuration: traits that validate themselves and know where they stand.

A `Section` is a HasTraits whose traits are values (`Quantity`, `Choice`, `Whole`, ...) or further
sections (`Sub`). A bad value is refused at assignment with a `ConfigError` that starts with the
YAML path, gives the value and says what is expected; the old value stays. Sections are never
replaced, so that a widget which is linked to one stays linked: assigning a mapping to a section
fills the one that is there, and what the mapping leaves out goes back to its default.

`imgfit_widgets.core.config` holds the schema that is built from these.
"""

from __future__ import annotations

import copy
import datetime
import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import yaml
from astropy import units as u
from astropy.coordinates import Angle
from astropy.time import Time
from traitlets import HasTraits, TraitType

from .errors import ConfigError
from .yaml_text import YamlProblem, load_yaml

SectionT = TypeVar("SectionT", bound="Section")


class Value(TraitType[Any, Any]):
    """One key with a value. Subclasses say in `parse` what they accept, in `expected` in words.

    Parameters
    ----------
    default : object
        Anything that `parse` accepts, or None for an optional key.
    help : str
        One sentence for the person who edits the configuration.
    optional : bool
        Whether the key may be left empty (``null`` in YAML).
    """

    kind: ClassVar[str] = "text"
    expected = "text"
    unit = ""
    choices: tuple[str, ...] = ()

    def __init__(self, default: Any, help: str, *, optional: bool = False) -> None:
        super().__init__(default_value=default, allow_none=optional, help=help)
        self.tag(unit=self.unit, kind=self.kind)

    def parse(self, value: Any) -> Any:
        """The value to keep; raises ValueError, with the reason or empty, for a bad one."""
        if not isinstance(value, str):
            raise ValueError
        return value

    def validate(self, obj: Any, value: Any) -> Any:
        if self.allow_none and isinstance(value, str) and not value.strip():
            return None
        try:
            return self.parse(value)
        except (ValueError, TypeError, OverflowError) as error:
            reason = f" ({error})" if str(error) else ""
            shown = repr(str(value)) if isinstance(value, (str, u.Quantity)) else repr(value)
            problem = f"{shown} cannot be used{reason}; expected {self.expected}"
            raise ConfigError(f"{obj.path_of(self.name)}: {problem}") from None

    def plain(self, value: Any) -> Any:
        """The value as YAML writes it."""
        return value

    def text(self, value: Any) -> str:
        """The value as one line of text that `parse` takes back; empty for None."""
        return "" if value is None else str(self.plain(value))


class Text(Value):
    """Free text."""

    def parse(self, value: Any) -> str:
        if not isinstance(value, (str, Path)):
            raise ValueError
        return str(value)


class FilePath(Value):
    """A path, kept as it was written: ``$VARIABLES`` are expanded only where it is used."""

    expected = "a path"

    def parse(self, value: Any) -> Path:
        if not isinstance(value, (str, Path)) or not str(value).strip() or "\0" in str(value):
            raise ValueError
        return Path(value)

    def plain(self, value: Any) -> Any:
        return None if value is None else str(value)


class Quantity(Value):
    """A number with a unit, such as ``"0.02 deg"``.

    Parameters
    ----------
    unit : str
        A unit of the right kind; any other that converts to it is accepted and kept.
    positive : bool
        Refuse zero and below.
    bounds : (float, float)
        Allowed range, inclusive, in ``unit``.
    """

    kind = "quantity"

    def __init__(
        self,
        default: Any,
        help: str,
        *,
        unit: str = "deg",
        positive: bool = False,
        bounds: tuple[float, float] = (-math.inf, math.inf),
        optional: bool = False,
    ) -> None:
        self.unit = unit
        self.positive = positive
        self.bounds = bounds
        self.noun = "an energy" if u.Unit(unit).physical_type == "energy" else "an angle"
        example = "1 TeV" if self.noun == "an energy" else "0.5 deg"
        self.expected = f"{self.noun} with its unit, such as {example!r}"
        if positive:
            self.expected = self.expected.replace(" with", " above 0 with")
        elif math.isfinite(bounds[0]):
            self.expected += f", from {bounds[0]:g} to {bounds[1]:g} {unit}"
        super().__init__(default, help, optional=optional)

    def parse(self, value: Any) -> u.Quantity:
        quantity = self._to_quantity(value)
        number = float(quantity.to_value(self.unit))
        if not math.isfinite(number):
            raise ValueError("not a finite number")
        if self.positive and number <= 0:
            raise ValueError("not above 0")
        if not self.bounds[0] <= number <= self.bounds[1]:
            raise ValueError("out of range")
        return quantity

    def _to_quantity(self, value: Any) -> u.Quantity:
        if isinstance(value, bool) or not isinstance(value, (str, u.Quantity, int, float)):
            raise ValueError
        try:
            quantity = u.Quantity(value)
        except TypeError:
            quantity = None  # "5h34m" is an angle, but no quantity; "abc" is neither
        if quantity is not None and not quantity.isscalar:
            raise ValueError("a single number is needed")
        if quantity is not None and quantity.unit.is_equivalent(self.unit):
            return _angle(quantity) if self.noun == "an angle" else quantity
        if self.noun == "an angle" and isinstance(value, str):
            try:
                return _angle(Angle(value))
            except (ValueError, u.UnitsError, TypeError):
                pass
        if quantity is None:
            raise ValueError
        if quantity.unit == u.dimensionless_unscaled:
            raise ValueError("it has no unit")
        raise ValueError(f"{quantity.unit} is not the unit of {self.noun}")

    def plain(self, value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, Angle):  # astropy reads no "1e-05 deg" as an angle
            return f"{np.format_float_positional(value.value, trim='0')} {value.unit}"
        return f"{value.value} {value.unit}"


class Choice(Value):
    """One word of a list."""

    kind = "choice"

    def __init__(
        self, default: Any, help: str, choices: Sequence[str], *, optional: bool = False
    ) -> None:
        self.choices = tuple(choices)
        self.expected = "one of " + ", ".join(choices)
        super().__init__(default, help, optional=optional)

    def parse(self, value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError
        if value not in self.choices:
            near = nearest(value, self.choices)
            raise ValueError(f"did you mean {near!r}?" if near else "")
        return value


class Choices(Choice):
    """Several words of a list."""

    kind = "choices"

    def __init__(self, default: Any, help: str, choices: Sequence[str]) -> None:
        super().__init__(default, help, choices)
        self.expected = "a list of words out of " + ", ".join(choices)

    def parse(self, value: Any) -> Any:
        return [super(Choices, self).parse(word) for word in _items(value)]

    def plain(self, value: Any) -> Any:
        return list(value)

    def text(self, value: Any) -> str:
        return ", ".join(value)


class Whole(Value):
    """A whole number."""

    kind = "int"

    def __init__(
        self, default: Any, help: str, *, minimum: int = 1, optional: bool = False
    ) -> None:
        self.minimum = minimum
        self.expected = f"a whole number from {minimum} up"
        super().__init__(default, help, optional=optional)

    def parse(self, value: Any) -> int:
        number = _whole(value)
        if number < self.minimum:
            raise ValueError
        return number


class Number(Value):
    """A finite number within a range.

    Parameters
    ----------
    bounds : (float, float)
        Allowed range, inclusive.
    """

    kind = "float"

    def __init__(
        self, default: Any, help: str, *, bounds: tuple[float, float], optional: bool = False
    ) -> None:
        self.bounds = bounds
        self.expected = f"a number from {bounds[0]:g} to {bounds[1]:g}"
        if math.isinf(bounds[1]):
            self.expected = f"a number from {bounds[0]:g} up"
        super().__init__(default, help, optional=optional)

    def parse(self, value: Any) -> float:
        if isinstance(value, (bool, np.bool_)):
            raise ValueError
        number = float(value)
        if not math.isfinite(number) or not self.bounds[0] <= number <= self.bounds[1]:
            raise ValueError
        return number


class Flag(Value):
    """True or false."""

    kind = "bool"
    expected = "true or false"

    def parse(self, value: Any) -> bool:
        if isinstance(value, str) and value.strip().lower() in ("true", "false"):
            return value.strip().lower() == "true"
        if not isinstance(value, (bool, np.bool_)):
            raise ValueError
        return bool(value)

    def text(self, value: Any) -> str:
        return str(value).lower()


class Ids(Value):
    """A list of whole numbers without repetition."""

    kind = "ids"
    expected = "a list of observation numbers, such as [110380, 111140]"

    def parse(self, value: Any) -> list[int]:
        numbers = [_whole(item) for item in _items(value)]
        twice = [number for number in numbers if numbers.count(number) > 1]
        if twice:
            raise ValueError(f"{twice[0]} stands there twice")
        return numbers

    def plain(self, value: Any) -> Any:
        return list(value)

    def text(self, value: Any) -> str:
        return ", ".join(map(str, value))


class Options(Value):
    """A mapping of option names to values, which the step that uses them checks."""

    kind = "dict"
    expected = "a mapping such as {offset_max: 2.5 deg}"

    def parse(self, value: Any) -> dict[str, Any]:
        if isinstance(value, str):
            try:
                value = load_yaml(value) or {}
            except YamlProblem as error:
                raise ValueError(f"not valid YAML: {error}") from None
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise ValueError
        return copy.deepcopy(dict(value))

    def plain(self, value: Any) -> Any:
        return _plain(value)

    def text(self, value: Any) -> str:
        if not value:
            return ""
        shown = yaml.safe_dump(_plain(value), default_flow_style=True, sort_keys=False, width=1000)
        return str(shown).strip()


class Instant(Value):
    """A date and time, or several."""

    kind = "time"
    expected = "a date and time such as '2020-01-31 22:30:00'"

    def parse(self, value: Any) -> Time:
        if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
            value = value.isoformat()
        if isinstance(value, Mapping):
            raise ValueError
        try:
            found = Time(value)
        except ValueError as error:
            # astropy goes on to say what each of its formats makes of it.
            raise ValueError(str(error).split("\n")[0].split(" where the")[0]) from None
        if not found.size or not np.all(np.isfinite(found.jd)):
            raise ValueError("no time")
        return found

    def plain(self, value: Any) -> Any:
        if value is None:
            return None
        return value.value if value.isscalar else value.value.tolist()


class Sub(TraitType[SectionT, "SectionT | Mapping[str, Any] | None"]):
    """A section inside a section; made once with its owner, and filled, never replaced."""

    def __init__(self, section: type[SectionT], help: str, **defaults: Any) -> None:
        super().__init__(default_value=None, help=help)
        self.section = section
        self.defaults = defaults

    def default(self, obj: Any = None) -> SectionT | None:
        return None if obj is None else self._new(obj)

    def _new(self, obj: Section) -> SectionT:
        return self.section(obj, self.name or "", self.defaults)

    def validate(self, obj: Any, value: Any) -> SectionT:
        return value  # type: ignore[no-any-return]

    def set(self, obj: Any, value: Any) -> None:
        new = self._new(obj)
        new.fill(value)
        getattr(obj, self.name or "").take(new)


class Section(HasTraits):
    """A group of keys; see the module's docstring."""

    aliases: ClassVar[dict[str, str]] = {}
    _parent: Section | None
    _name: str

    def __init__(
        self,
        parent: Section | None = None,
        name: str = "",
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        self._parent = parent
        self._name = name
        self._path = "" if parent is None else parent.path_of(name)
        super().__init__()
        for key, value in (defaults or {}).items():
            setattr(self, key, value)

    @property
    def path(self) -> str:
        """Where the section stands in the YAML: ``datasets.geom.wcs``; empty for the whole."""
        return self._path

    def path_of(self, name: str | None) -> str:
        """The YAML path of one of the section's keys."""
        return f"{self._path}.{name}" if self._path else str(name)

    @classmethod
    def keys(cls) -> list[str]:
        """The keys in the order in which the class lists them."""
        return [name for name, trait in vars(cls).items() if isinstance(trait, (Value, Sub))]

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or hasattr(type(self), name):
            super().__setattr__(name, value)
        else:
            raise self.unknown(name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(str(self.unknown(name)))

    def unknown(self, name: Any) -> ConfigError:
        """The error for a key that the section does not have; it names the nearest right one."""
        near = nearest(str(name), [*self.keys(), *self.aliases])
        if near:
            hint = f"did you mean {self.path_of(near)}?"
        else:
            root = self
            while root._parent is not None:
                root = root._parent
            paths = [field.path for field in root.fields()]
            last = nearest(str(name), [path.rsplit(".", 1)[-1] for path in paths], cutoff=0.85)
            here = [path for path in paths if last and path.rsplit(".", 1)[-1] == last]
            hint = f"did you mean {' or '.join(here[:2])}? " if here else ""
            hint += f"{self.path or 'the configuration'} has {', '.join(self.keys())}"
        return ConfigError(f"{self.path_of(str(name))}: no such key; {hint}")

    def fill(self, values: Any) -> None:
        """Set the keys of a mapping, or of a section of the same kind; None changes nothing."""
        if isinstance(values, Section):
            values = values.to_dict()
        if values is None:
            return
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"{self.path or 'configuration'}: {values!r} cannot be used; "
                f"expected a mapping with the keys {', '.join(self.keys())}"
            )
        for key, value in values.items():
            name = self.aliases.get(key, key)
            if name not in self.keys():
                raise self.unknown(key)
            if name != key and name in values:
                raise ConfigError(
                    f"{self.path_of(key)}: this is the older name of {self.path_of(name)}, "
                    "which is given too; leave one of them out"
                )
            setattr(self, name, value)

    def take(self, other: Section) -> None:
        """Copy all values of another section of the same kind."""
        for mine, theirs in zip(self.fields(), other.fields(), strict=True):
            setattr(mine.section, mine.name, copy.deepcopy(getattr(theirs.section, theirs.name)))

    def fields(self) -> list[Field]:
        """Every key with a value, in file order, of this section and those inside it."""
        return list(self._fields())

    def _fields(self) -> Iterator[Field]:
        for key in self.keys():
            trait = self.traits()[key]
            if isinstance(trait, Sub):
                yield from getattr(self, key)._fields()
            elif isinstance(trait, Value):
                yield Field(self.path_of(key), self, key, trait)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as YAML takes them."""
        data: dict[str, Any] = {}
        for key in self.keys():
            trait, value = self.traits()[key], getattr(self, key)
            data[key] = trait.plain(value) if isinstance(trait, Value) else value.to_dict()
        return data

    def observe_all(self, handler: Callable[[Any], None]) -> Callable[[], None]:
        """Call ``handler(change)`` for a change of any field; the answer is called to stop that."""
        fields = self.fields()
        for field in fields:
            field.section.observe(handler, field.name)

        def stop() -> None:
            for field in fields:
                field.section.unobserve(handler, field.name)

        return stop


@dataclass(frozen=True)
class Field:
    """One key of the configuration, with all that an editor needs to show it."""

    path: str
    section: Section
    name: str
    trait: Value

    @property
    def kind(self) -> str:
        """quantity, choice, choices, text, int, bool, ids, dict or time."""
        return self.trait.kind

    @property
    def unit(self) -> str:
        """The unit that a bare number would have; empty where there is none."""
        return self.trait.unit

    @property
    def choices(self) -> tuple[str, ...]:
        """The words to choose from; empty where the value is free."""
        return self.trait.choices

    @property
    def help(self) -> str:
        """One sentence on what the key does."""
        return str(self.trait.help)

    @property
    def expected(self) -> str:
        """What a right value looks like, in words."""
        return self.trait.expected

    @property
    def optional(self) -> bool:
        """Whether the key may stay empty."""
        return bool(self.trait.allow_none)

    @property
    def value(self) -> Any:
        """The present value."""
        return getattr(self.section, self.name)

    @property
    def default(self) -> Any:
        """The value that a new configuration has."""
        parent, name = self.section._parent, self.section._name
        trait = parent.traits()[name] if parent is not None else None
        fresh = trait._new(parent) if isinstance(trait, Sub) and parent is not None else None
        return getattr(fresh or type(self.section)(), self.name)

    @property
    def text(self) -> str:
        """The present value as text; `set` takes it back."""
        return self.trait.text(self.value)

    @property
    def default_text(self) -> str:
        """The default as text."""
        return self.trait.text(self.default)

    def set(self, value: Any) -> None:
        """Assign a value or its text; ConfigError, and no change, if it is bad."""
        setattr(self.section, self.name, value)


def nearest(word: str, words: Sequence[str], cutoff: float = 0.6) -> str:
    """The most similar of ``words``, or an empty string."""
    found = difflib.get_close_matches(word.lower(), words, 1, cutoff)
    return found[0] if found else ""


def _angle(value: u.Quantity) -> Angle:
    """As an Angle; hours become degrees, because Gammapy reads no text with them."""
    return Angle(value, "deg") if value.unit == u.hourangle else Angle(value)


def _items(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [item.strip() for item in value.strip("[] ").split(",") if item.strip()]
    if isinstance(value, Mapping) or not isinstance(value, (Sequence, np.ndarray)):
        raise ValueError
    return list(value)


def _whole(value: Any) -> int:
    if isinstance(value, (bool, np.bool_)):
        raise ValueError
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            raise ValueError(f"{value!r} is not a whole number") from None
    if isinstance(value, (int, np.integer)) or (
        isinstance(value, (float, np.floating)) and float(value).is_integer()
    ):
        return int(value)
    raise ValueError


def _plain(value: Any) -> Any:
    if isinstance(value, u.Quantity):
        return f"{value.value} {value.unit}" if value.isscalar else [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return str(value) if isinstance(value, Path) else value
