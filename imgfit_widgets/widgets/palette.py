"""From numbers to the bytes of a picture: cuts, stretch, colour table, PNG.

The way of a map to the screen, each step a plain function:

`cut_levels`
    Which values become the first and the last colour.
`stretch`
    Values to 0–1 between the cuts; `unstretch` is its inverse, for the ticks of a colour bar.
`to_index`
    Values to 8-bit colour numbers; `BLANK` where there is no value.
`colour_table`
    The 256 colours of a named map, with bias and contrast as in DS9.
`encode_png`
    Colour numbers and table to an indexed PNG. Written here, not with an image library: one byte a
    pixel without filters is what deflate takes fastest, and a new table costs nothing.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
ByteArray = NDArray[np.uint8]

N_COLOURS = 255
BLANK = 255
BLANK_COLOUR = (148, 155, 166)

# Anchors at equal steps. inferno, viridis, cividis and magma are matplotlib's public-domain maps
# sampled at 13 points; "heat" follows the ramps of DS9; "blue-red" is ColorBrewer's RdBu, reversed.
COLOUR_MAPS: dict[str, str] = {
    "inferno": "000004 110a30 320a5e 57106e 781c6d 9a2865 bc3754 d84c3e ed6925 f98e09 fbb61a f4df53"
    " fcffa4",
    "viridis": "440154 481f70 443983 3b528b 31688e 287c8e 21918c 20a486 35b779 5ec962 90d743 c8e020"
    " fde725",
    "magma": "000004 100b2d 2c115f 51127c 721f81 932b80 b73779 d8456c f1605d fc8961 feb078 fed799"
    " fcfdbf",
    "cividis": "00224e 003170 2a3f6d 434e6c 575d6d 6a6c71 7d7c78 918b78 a59c74 bcae6c d2c060 e9d34e"
    " fee838",
    "heat": "000000 4b1000 962000 e13000 ff4000 ff5600 ff6b00 ff8000 ff9500 ffab00 ffc000 ffe073"
    " ffffff",
    "gray": "000000 ffffff",
    "gray inverted": "ffffff 000000",
    "blue-red": "053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 67001f",
}
DIVERGING = frozenset({"blue-red"})

STRETCHES = ("linear", "sqrt", "log", "asinh")
# How far the two curved stretches bend: the factors that DS9 uses for log and asinh.
_LOG, _ASINH = 1000.0, 10.0

CUTS: dict[str, float] = {
    "min–max": 100.0,
    "99.9 %": 99.9,
    "99.5 %": 99.5,
    "99 %": 99.0,
    "98 %": 98.0,
    "95 %": 95.0,
    "90 %": 90.0,
}


def cut_levels(
    data: ArrayLike, percent: float = 100.0, symmetric: bool = False
) -> tuple[float, float]:
    """The values between which the central ``percent`` of the finite data lie.

    Parameters
    ----------
    data : array_like
        NaN and infinite values do not count; without any finite value the answer is (0, 1).
    percent : float
        100 means minimum and maximum.
    symmetric : bool
        Centred on zero, as a diverging colour map wants it.

    Returns
    -------
    low, high : float
        ``low < high`` always.
    """
    values = np.asarray(data, dtype=float)
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    if symmetric:
        high = float(np.percentile(np.abs(values), percent))
        low = -high
    else:
        tail = 0.5 * (100.0 - percent)
        low, high = (float(level) for level in np.percentile(values, [tail, 100.0 - tail]))
    return separate(low, high)


def separate(low: float, high: float) -> tuple[float, float]:
    """Two cuts in order and apart, so that a flat map still has a scale."""
    if low > high:
        low, high = high, low
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        margin = 0.5 * abs(low) or 0.5
        low, high = low - margin, high + margin
    return low, high


def stretch(data: ArrayLike, low: float, high: float, kind: str = "linear") -> FloatArray:
    """Values to 0–1 between two cuts, clipped; NaN stays NaN."""
    scaled = np.clip((np.asarray(data, dtype=float) - low) / (high - low), 0.0, 1.0)
    if kind == "linear":
        return scaled
    if kind == "sqrt":
        return np.asarray(np.sqrt(scaled))
    if kind == "log":
        return np.asarray(np.log1p(_LOG * scaled) / math.log1p(_LOG))
    if kind == "asinh":
        return np.asarray(np.arcsinh(_ASINH * scaled) / math.asinh(_ASINH))
    raise ValueError(f"stretch: {kind!r} is not one of {', '.join(STRETCHES)}")


def unstretch(position: ArrayLike, low: float, high: float, kind: str = "linear") -> FloatArray:
    """The values at positions 0–1 of a stretch."""
    at = np.asarray(position, dtype=float)
    if kind == "sqrt":
        at = at * at
    elif kind == "log":
        at = np.expm1(at * math.log1p(_LOG)) / _LOG
    elif kind == "asinh":
        at = np.sinh(at * math.asinh(_ASINH)) / _ASINH
    return np.asarray(low + at * (high - low))


def to_index(data: ArrayLike, low: float, high: float, kind: str = "linear") -> ByteArray:
    """Colour numbers 0–254 of values; `BLANK` where a value is not finite."""
    values = np.asarray(data, dtype=float)
    scaled = stretch(values, low, high, kind)
    np.multiply(scaled, N_COLOURS - 1, out=scaled)
    scaled += 0.5
    blank = ~np.isfinite(values)
    scaled[blank] = BLANK
    return scaled.astype(np.uint8)


def colour_table(name: str, bias: float = 0.5, contrast: float = 1.0) -> ByteArray:
    """The colours of a map, shape (256, 3); the last is that of blank pixels.

    ``bias`` is the place (0–1) of the middle colour and ``contrast`` how fast colours change
    about it; 0.5 and 1 leave the map as it is.
    """
    anchors = np.array([list(bytes.fromhex(text)) for text in COLOUR_MAPS[name].split()], float)
    at = (np.linspace(0.0, 1.0, N_COLOURS) - bias) * contrast + 0.5
    steps = np.linspace(0.0, 1.0, len(anchors))
    table = np.empty((N_COLOURS + 1, 3), dtype=np.uint8)
    for channel in range(3):
        table[:-1, channel] = np.rint(np.interp(at, steps, anchors[:, channel]))
    table[BLANK] = BLANK_COLOUR
    return table


def encode_png(index: ByteArray, table: ByteArray) -> bytes:
    """An indexed PNG; row 0 of ``index`` (shape (ny, nx)) is the bottom row of the picture."""
    height, width = index.shape
    # Each row is led by its filter type, 0: none.
    rows = np.zeros((height, width + 1), dtype=np.uint8)
    rows[:, 1:] = index[::-1]
    # Noise has no long repeats to look for: run lengths alone take half the time at the same size.
    deflate = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", table.tobytes()),
        (b"IDAT", deflate.compress(rows.tobytes()) + deflate.flush()),
        (b"IEND", b""),
    )
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, body in chunks:
        parts += [
            struct.pack(">I", len(body)),
            kind,
            body,
            struct.pack(">I", zlib.crc32(kind + body)),
        ]
    return b"".join(parts)


def gradient(table: ByteArray, stops: int = 33) -> str:
    """A colour table as a CSS gradient from left to right."""
    picked = table[np.linspace(0, N_COLOURS - 1, stops).round().astype(int)]
    colours = ", ".join(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in picked)
    return f"linear-gradient(to right, {colours})"


def bar_ticks(low: float, high: float, kind: str, limit: int = 6) -> list[tuple[float, str]]:
    """Ticks of a colour bar: (position 0–1, label), both cuts included.

    Round values where the stretch leaves room for their labels: a tick nearer than the width of a
    label to one already there is left out.
    """
    digits = _digits(high - low, max(abs(low), abs(high)))
    ticks = [(0.0, number(low, digits)), (1.0, number(high, digits))]
    room = 0.85 / limit
    for value in _candidates(low, high, limit):
        at = float(stretch(value, low, high, kind))
        if all(abs(at - other) >= room for other, _ in ticks):
            ticks.append((at, number(value, digits)))
    return sorted(ticks)


def _candidates(low: float, high: float, limit: int) -> Sequence[float]:
    """Round values between two cuts, the coarse ones first, down to fine ones near ``low``."""
    found: list[float] = []
    for shrink in (1.0, 10.0, 100.0):
        step = nice_step((high - low) / shrink / (limit - 1))
        first = math.ceil(low / step)
        found += [
            index * step for index in range(first, first + 2 * limit) if low < index * step < high
        ]
    return found


def nice_step(rough: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(
        factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= 0.999 * rough
    )


def _digits(span: float, size: float) -> int:
    """Decimals that tell values apart which lie ``span`` / 100 from each other."""
    if span <= 0 or not math.isfinite(span) or size >= 1e4 or size < 1e-2:
        return -1
    return max(0, 2 - math.floor(math.log10(span)))


def number(value: float, digits: int = -1) -> str:
    """A number for a scale: with some decimals, or in three digits if ``digits`` is negative."""
    text = f"{value:.{digits}f}" if digits >= 0 else f"{value:.3g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        text = f"{mantissa}e{int(exponent)}"
    elif "." in text:
        text = text.rstrip("0").rstrip(".")
    return text.replace("-", "\N{MINUS SIGN}") if text not in ("-0", "0") else "0"
