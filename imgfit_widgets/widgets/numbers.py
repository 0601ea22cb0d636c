"""How numbers are written: a value to two significant digits of its error, never more than known.

`value_text` and `error_text` go side by side in a table; `measurement` is the form for reading,
with one power of ten and the unit, `interval` the same with asymmetric errors, and `signs` gives a
number its minus sign.
"""

from __future__ import annotations

import math
import re

from ..core.profile import MinosError

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def value_text(value: float, error: float = 0.0) -> str:
    """A number as an input shows it: to two digits of its error, else to at most six digits.

    ``(-0.0518133, 0.00272)`` → "-0.0518", ``(2.9626e-11, 1.459e-12)`` → "2.96e-11".
    """
    if not math.isfinite(value):
        return ""
    if not (math.isfinite(error) and error > 0):
        short = f"{value:.6g}"
        return f"{value:.4g}" if "e" in short else short
    decimals = _decimals(error)
    if _plain(value, error):
        return f"{round(value, decimals):.{max(decimals, 0)}f}"
    exponent = math.floor(math.log10(max(abs(value), error)))
    return f"{value:.{max(decimals + exponent, 0)}e}"


def error_text(error: float, value: float = 0.0) -> str:
    """An error to two significant digits, in the form that `value_text` gives its value."""
    if not (math.isfinite(error) and error > 0):
        return ""
    if _plain(value, error):
        return f"{round(error, _decimals(error)):.{max(_decimals(error), 0)}f}"
    return f"{error:.1e}"


def limit_text(limit: float) -> str:
    """A limit of a parameter; empty for none."""
    return "" if math.isnan(limit) else f"{limit:g}"


def measurement(value: float, error: float = 0.0, unit: str = "") -> str:
    """A value, its error and its unit: ``(2.96 ± 0.15) × 10⁻¹¹ cm⁻² s⁻¹``."""
    tail = f" {unit_text(unit)}" if unit else ""
    if not (math.isfinite(error) and error > 0):
        return f"{signs(f'{value:.6g}')}{tail}"
    if _plain(value, error):
        return f"{signs(value_text(value, error))} ± {error_text(error, value)}{tail}"
    exponent = math.floor(math.log10(max(abs(value), error)))
    scale = 10.0**exponent
    power = f"10{str(exponent).translate(_SUPERSCRIPT)}"
    decimals = max(_decimals(error / scale), 0)
    number = signs(f"{value / scale:.{decimals}f}")
    return f"({number} ± {error / scale:.{decimals}f}) × {power}{tail}"


def interval(error: MinosError) -> str:
    """A value with both errors and its unit: ``0.102 (−0.011 +0.013) deg``; "limit" if open."""
    smallest = min(
        (abs(side) for side in (error.lower, error.upper) if math.isfinite(side) and side != 0.0),
        default=0.0,
    )
    scale, power = 1.0, ""
    if not _plain(error.value, smallest or 1.0):
        exponent = math.floor(math.log10(max(abs(error.value), smallest) or 1.0))
        scale, power = 10.0**exponent, f" × 10{str(exponent).translate(_SUPERSCRIPT)}"
    decimals = max(_decimals(smallest / scale), 0) if smallest else 3
    sides: list[str] = []
    for side, valid, limited in (
        (error.lower, error.valid_lower, error.at_limit_lower),
        (error.upper, error.valid_upper, error.at_limit_upper),
    ):
        sign = "\N{MINUS SIGN}" if len(sides) == 0 else "+"
        number = f"{sign}{abs(side) / scale:.{decimals}f}"
        sides.append("limit" if limited else number if valid else f"{sign}?")
    value = signs(f"{error.value / scale:.{decimals}f}")
    tail = f" {unit_text(error.unit)}" if error.unit else ""
    return f"{value} ({' '.join(sides)}){power}{tail}"


def signs(text: str) -> str:
    """A number for reading: with minus signs, and its power of ten raised."""
    power = re.compile(r"e([-+]?)0*(\d+)\b")
    text = power.sub(lambda m: f" × 10{(m[1].strip('+') + m[2]).translate(_SUPERSCRIPT)}", text)
    return text.replace("-", "\N{MINUS SIGN}")


def unit_text(unit: str) -> str:
    """A unit for reading: "s-1 cm-2" → "cm⁻² s⁻¹"."""
    words = unit.split()
    words.sort(key=lambda word: {"cm": 0, "m": 0, "s": 1}.get(word.rstrip("-0123456789"), 2))
    return " ".join(_raised(word) for word in words)


def count_text(value: float) -> str:
    """A count with thin spaces between thousands."""
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _raised(word: str) -> str:
    name = word.rstrip("-0123456789")
    return name + word[len(name) :].translate(_SUPERSCRIPT)


def _decimals(error: float) -> int:
    """Decimals that show two significant digits of ``error``, which may round up to a power."""
    return 1 - math.floor(math.log10(float(f"{error:.1e}")))


def _plain(value: float, error: float) -> bool:
    """Whether both look well without a power of ten."""
    largest = max(abs(value), error)
    return 1e-4 <= largest < 1e6 and error >= 1e-6
