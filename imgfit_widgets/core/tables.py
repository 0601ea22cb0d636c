"""Binary tables of FITS files, read fast: only the HDU, keywords and columns that are asked for.

Opening a file with `astropy.io.fits` costs several milliseconds, most of it spent on keywords and
columns that nobody needs; a store has thousands of runs. Event lists, good time intervals and index
files are plain binary tables, which the FITS standard 4.0 (sections 4.4 and 7.3) lays out in a few
rules; a response is one row of arrays.

`read_table`
    A table HDU of a file: its `Keywords` and its columns, as a `Table`.
`read_row`
    The first row of a table of arrays, as a `Row`.
`FileCache`
    The last few files, unpacked, with their headers, for runs that keep many HDUs in one file.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import astropy.units as u
import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from .errors import DataError

BLOCK = 2880
CARD = 80
CHUNK = 1 << 22
"""Bytes of a table that are held at a time."""

# Bytes of one element, and how numpy writes it (big-endian, as FITS is).
_FORMS = {
    "L": (1, "S1"), "X": (0, ""), "B": (1, "u1"), "I": (2, ">i2"), "J": (4, ">i4"), "K": (8, ">i8"),
    "A": (1, "S"), "E": (4, ">f4"), "D": (8, ">f8"), "C": (8, ">c8"), "M": (16, ">c16"),
    "P": (8, ""), "Q": (16, ""),
}  # fmt: skip
_ALIASES = {
    "degree": "deg", "degrees": "deg", "degs": "deg", "radian": "rad", "radians": "rad",
    "sec": "s", "secs": "s", "second": "s", "seconds": "s", "day": "d", "days": "d",
    "ev": "eV", "kev": "keV", "mev": "MeV", "gev": "GeV", "tev": "TeV", "deg": "deg", "s": "s",
    "d": "d",
}  # fmt: skip


Hdu = tuple["Keywords", int]
"""An HDU: its keywords, and where its data start."""


@dataclass
class _Known:
    """What is kept of a file."""

    content: bytes | None = None  # of one that is gzipped
    hdus: list[Hdu] = field(default_factory=list)


class FileCache:
    """The last files, so that the HDUs of one run cost one unpacking and one look at the headers.

    Parameters
    ----------
    size : int
        How many files are kept.
    """

    def __init__(self, size: int = 2) -> None:
        self.size = size
        self._files: dict[tuple[str, int, int], _Known] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"size": self.size, "_files": {}}  # another process reads for itself

    def _known(self, path: Path, file: BinaryIO) -> _Known:
        status = os.fstat(file.fileno())
        key = (str(path), status.st_mtime_ns, status.st_size)
        known = self._files.pop(key, None) or _Known()
        while len(self._files) >= max(self.size, 1):
            self._files.pop(next(iter(list(self._files))), None)
        self._files[key] = known
        return known

    def open(self, path: Path) -> tuple[BinaryIO, list[Hdu]]:
        """A file for reading, unpacked if it is gzipped whatever its name.

        And its first HDUs, as far as they have been looked at; whoever looks further adds to them.

        Raises
        ------
        DataError
            If it is missing, not readable, or its gzip stream is cut or damaged.
        """
        try:
            file = open(path, "rb")  # noqa: SIM115
        except FileNotFoundError:
            raise DataError(f"{path}: no such file") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DataError(f"{path}: cannot be read: {reason}") from None
        try:
            known = self._known(path, file)
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if not packed:
                return file, known.hdus
            if known.content is None:
                known.content = gzip.decompress(file.read())
        except (OSError, EOFError, zlib.error) as error:
            file.close()
            raise DataError(
                f"{path}: cannot be read to its end; the file is truncated or damaged ({error})"
            ) from None
        file.close()
        return BytesIO(known.content), known.hdus


class Keywords:
    """Keywords of an HDU, each parsed when it is asked for.

    Parameters
    ----------
    text : str
        The cards, 80 characters each.
    where : str
        File and HDU, for errors.
    """

    def __init__(self, text: str, where: str) -> None:
        self.text = text
        self.where = where
        self._cards: dict[str, str] = {}
        for start in range(0, len(text), CARD):
            self._cards.setdefault(text[start : start + 8].rstrip(), text[start : start + CARD])

    def only(self, names: tuple[str, ...]) -> Keywords:
        """Just some of them, to be kept for long."""
        cards = (self._cards.get(name, "") for name in names)
        return Keywords("".join(card for card in cards if card), self.where)

    def __contains__(self, name: str) -> bool:
        return self._card(name) is not None

    def _card(self, name: str) -> str | None:
        card = self._cards.get(name)
        return card if card is not None and card[8:9] == "=" else None

    def _split(self, name: str) -> tuple[str | None, str, bool]:
        """Value as it stands there (None: no value), comment, and whether it is quoted text."""
        card = self._card(name)
        if card is None:
            return None, "", False
        field = card[9:].strip()
        if field.startswith("'"):
            match = re.match(r"'((?:[^']|'')*)'?\s*(?:/(.*))?", field)
            text, comment = (match.group(1), match.group(2)) if match else (field, "")
            return text.replace("''", "'").strip(), (comment or "").strip(), True
        value, _, comment = field.partition("/")
        return value.strip() or None, comment.strip(), False

    def text_of(self, name: str, default: str = "") -> str:
        """A keyword as text; ``default`` if it is missing or blank."""
        return self._split(name)[0] or default

    def number(self, name: str, unit: str = "") -> float | None:
        """A keyword as a number, None if it is missing, blank or not a finite number ("nan").

        A unit in the text ("1800 s") or, as the standard has it, in front of the comment ("[km]")
        is converted.

        Raises
        ------
        DataError
            If it is something else.
        """
        value, comment, _quoted = self._split(name)
        if not value:
            return None
        match = re.fullmatch(r"([-+]?[\d.]+(?:[eEdD][-+]?\d+)?)\s*([A-Za-z].*)?", value)
        number = math.nan
        try:
            number = float(match.group(1).upper().replace("D", "E") if match else value)
        except ValueError:
            match = None
        if match is None:
            if value.lower() in ("nan", "inf", "-inf", "none", "null", "n/a", "na", "unknown"):
                return None
            raise DataError(f"{self.where}: keyword {name} is {value!r}; expected a number")
        found = match.group(2)
        if not found:
            bracket = re.match(r"\[([^\]]*)\]", comment)
            found = bracket.group(1).strip() if bracket else ""
        if unit and found:
            factor = unit_factor(found, unit)
            if factor is None and match.group(2):
                raise DataError(
                    f"{self.where}: keyword {name} is {value!r}; expected a number in {unit}"
                )
            number *= 1.0 if factor is None else factor
        return number if math.isfinite(number) else None

    def count(self, name: str, default: int | None = None) -> int:
        """A keyword of the table's own layout: a whole number from 0 up."""
        value = self._split(name)[0]
        if value is None and default is not None:
            return default
        if value is None or not re.fullmatch(r"\+?\d{1,18}", value):
            found = "missing" if value is None else repr(value)
            raise DataError(
                f"{self.where}: keyword {name} is {found}; expected a whole number; the file is "
                "damaged"
            )
        return int(value)

    def header(self) -> fits.Header:
        """All of them, as astropy has them."""
        return fits.Header.fromstring(self.text)


@dataclass(frozen=True)
class Column:
    """Where a column stands in a row, and how its numbers are scaled.

    Most columns of an event list are never asked for, so their keywords are not looked at.
    """

    keywords: Keywords
    number: int
    name: str
    form: str
    repeat: int
    offset: int

    @property
    def unit(self) -> str:
        return self.keywords.text_of(f"TUNIT{self.number}")

    @property
    def scale(self) -> float:
        scale = self.keywords.number(f"TSCAL{self.number}")
        return 1.0 if scale is None else scale

    @property
    def zero(self) -> float:
        return self.keywords.number(f"TZERO{self.number}") or 0.0

    @property
    def null(self) -> int | None:
        null = self.keywords.text_of(f"TNULL{self.number}")
        return int(null) if re.fullmatch(r"[-+]?\d{1,19}", null) else None


@dataclass(frozen=True, eq=False)
class Table:
    """A binary table, in memory only with the columns that were asked for.

    Parameters
    ----------
    where : str
        File and HDU, for errors.
    keywords : `Keywords`
    n_rows : int
    columns : dict
        Values by upper-case name; text columns as byte strings, numbers as native numbers.
    units : dict
        Unit as it stands in the file, empty if there is none.
    blank : dict
        Where an integer column is blank (TNULL), if anywhere.
    names : tuple of str
        All columns that the file has.
    """

    where: str
    keywords: Keywords
    n_rows: int
    columns: dict[str, NDArray[Any]]
    units: dict[str, str]
    blank: dict[str, NDArray[np.bool_]]
    names: tuple[str, ...]

    def values(
        self,
        name: str,
        unit: str,
        default_unit: str = "",
        keep_precision: bool = False,
        allow_blank: bool = False,
    ) -> NDArray[np.floating]:
        """A column of numbers in a unit: double precision, or that of the file.

        With ``allow_blank`` blank ones are NaN, else they are refused.

        Raises
        ------
        DataError
            If it is missing, no number, in another kind of unit, or not finite somewhere.
        """
        values = self.raw_numbers(name)
        single = keep_precision and values.dtype.kind == "f" and values.dtype.itemsize == 4
        values = values.astype(np.float32 if single else np.float64, copy=False)
        found = self.units[name].strip() or default_unit or unit
        if found != unit:
            factor = unit_factor(found, unit)
            if factor is None:
                raise DataError(
                    f"{self.where}: column {name} has unit {found!r}, expected one like {unit!r}"
                )
            if factor != 1.0:
                values = values * values.dtype.type(factor)
        bad = ~np.isfinite(values)
        if name in self.blank:
            bad |= self.blank[name]
        if allow_blank:
            return np.where(bad, values.dtype.type(np.nan), values)
        if bad.any():
            raise DataError(
                f"{self.where}: column {name} holds values that are not finite in "
                f"{np.count_nonzero(bad)} of {self.n_rows} rows; expected numbers in {unit}"
            )
        return values

    def raw_numbers(self, name: str) -> NDArray[Any]:
        """A column as the numbers that it holds, blank ones as they stand there."""
        if name not in self.columns:
            raise DataError(
                f"{self.where}: no column {name}; there are {', '.join(self.names) or 'none'}"
            )
        values = self.columns[name]
        if values.dtype.kind not in "iuf":
            raise DataError(f"{self.where}: column {name} holds text; expected numbers")
        return values

    def words(self, name: str) -> list[str]:
        """A column as text without blanks at its ends; numbers are written out."""
        values = self.columns[name]
        if values.dtype.kind != "S":
            blank = self.blank.get(name, np.zeros(len(values), dtype=bool))
            return ["" if no else str(v) for v, no in zip(values.tolist(), blank, strict=True)]
        # Text ends at the first NUL (section 7.3.3.1), whatever stands behind it.
        return [value.partition(b"\0")[0].decode("latin-1").strip() for value in values.tolist()]


@lru_cache(maxsize=64)
def unit_factor(found: str, unit: str) -> float | None:
    """What turns numbers in the unit ``found`` into ``unit``; None if that is no such unit."""
    found = found.strip()
    found = _ALIASES.get(found.lower(), found)
    if found == unit:
        return 1.0
    try:
        return float(u.Unit(found).to(unit))
    except (ValueError, TypeError):
        return None


def read_table(
    path: Path,
    hdu: str | None,
    columns: tuple[str, ...],
    files: FileCache | None = None,
) -> Table:
    """Read some columns of a binary table.

    Parameters
    ----------
    path : Path
    hdu : str or None
        Its name, whatever the case; None for the first table of the file.
    columns : tuple of str
        Names in upper case; those that the file does not have are left out.
    files : `FileCache`, optional
        Unpacked files to look into first.

    Raises
    ------
    DataError
        Naming the file, the HDU and what is wrong: no FITS file, no such HDU, no table, a column
        that holds several numbers a row, a file that ends before the table does.
    """
    return _find(path, hdu, files, lambda file, at, words: _table(file, at, words, columns))


@dataclass(frozen=True, eq=False)
class Row:
    """The first row of a table of arrays.

    Parameters
    ----------
    where : str
        File and HDU, for errors.
    keywords : `Keywords`
    columns : dict
        Arrays of numbers by upper-case name, in the order of axes of numpy (TDIM reversed).
    units : dict
        Unit as it stands in the file, empty if there is none.
    """

    where: str
    keywords: Keywords
    columns: dict[str, NDArray[Any]]
    units: dict[str, str]


def read_row(path: Path, hdu: str | None, files: FileCache | None = None) -> Row:
    """Read the first row of a binary table; columns that are no numbers are left out.

    Raises
    ------
    DataError
        Naming the file, the HDU and what is wrong.
    """
    return _find(path, hdu, files, _row)


Found = TypeVar("Found")


def _find(
    path: Path,
    hdu: str | None,
    files: FileCache | None,
    read: Callable[[BinaryIO, int, Keywords], Found],
) -> Found:
    """Go to an HDU by its name (None: the first table) and read it."""
    file, hdus = (files or FileCache()).open(path)
    with file:
        seen: list[str] = []
        try:
            for keywords, start in _hdus(file, path, hdus):
                name = keywords.text_of("EXTNAME") or ("" if seen else "PRIMARY")
                wanted = (
                    keywords.text_of("XTENSION") == "BINTABLE"
                    if hdu is None
                    else name.upper() == hdu.strip().upper()
                )
                if wanted:
                    keywords.where = f"{path} [{hdu or name or len(seen)}]"
                    return read(file, start, keywords)
                seen.append(name or f"HDU {len(seen)}")
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    what = "table HDU" if hdu is None else f"HDU {hdu!r}"
    raise DataError(f"{path}: no {what}; there are {', '.join(seen)}")


def _hdus(file: BinaryIO, path: Path, known: list[Hdu]) -> Iterator[Hdu]:
    """The HDUs in order: those that are known, and further ones, which are added to them."""
    yield from known
    size = file.seek(0, os.SEEK_END)
    position = _end(*known[-1]) if known else 0
    number = len(known)
    while position < size:
        file.seek(position)
        blocks: list[bytes] = []
        end = -1
        while end < 0:
            block = file.read(BLOCK)
            if not blocks:
                if number and block[:8] != b"XTENSION":
                    if block.strip(b"\0 "):
                        raise DataError(
                            f"{path}: holds something else than an HDU at byte {position}; the "
                            "file is damaged"
                        )
                    return  # a filled end
                if not number and block[:9] != b"SIMPLE  =":
                    raise DataError(f"{path}: not a FITS file, or a damaged one")
            if len(block) < BLOCK:
                raise DataError(f"{path}: cannot be read to its end; the file is truncated")
            blocks.append(block)
            for card in range(0, BLOCK, CARD):
                if block[card : card + 8] == b"END     ":
                    end = (len(blocks) - 1) * BLOCK + card
                    break
        text = b"".join(blocks)[:end].decode("latin-1")
        keywords = Keywords(text, f"{path} [{number}]")
        start = position + len(blocks) * BLOCK
        known.append((keywords, start))
        yield keywords, start
        position = _end(keywords, start)
        number += 1
    if position > size and position - size >= BLOCK:
        raise DataError(f"{path}: cannot be read to its end; the file is truncated")


def _end(keywords: Keywords, start: int) -> int:
    """Where the data of an HDU end, filled up to a block."""
    return start + -(-_data_size(keywords) // BLOCK) * BLOCK


def _data_size(keywords: Keywords) -> int:
    n_axes = keywords.count("NAXIS", 0)
    if not n_axes:
        return 0
    bits = keywords.text_of("BITPIX")
    if bits not in ("8", "16", "32", "64", "-32", "-64") or n_axes > 999:
        raise DataError(
            f"{keywords.where}: BITPIX is {bits!r}, NAXIS {n_axes}; the file is damaged"
        )
    lengths = [keywords.count(f"NAXIS{axis}") for axis in range(1, n_axes + 1)]
    items = keywords.count("PCOUNT", 0) + math.prod(lengths)
    return abs(int(bits)) // 8 * keywords.count("GCOUNT", 1) * items


def _layout(keywords: Keywords) -> tuple[dict[str, Column], int]:
    """Columns by upper-case name, and bytes of a row."""
    width = keywords.count("NAXIS1")
    columns: dict[str, Column] = {}
    offset = 0
    for number in range(1, keywords.count("TFIELDS") + 1):
        name = keywords.text_of(f"TTYPE{number}", f"col{number}").upper()
        form = keywords.text_of(f"TFORM{number}").upper()
        match = re.match(r"(\d{0,9})([A-Z])", form)
        if match is None or match.group(2) not in _FORMS:
            raise DataError(
                f"{keywords.where}: column {name} has format {form!r} (TFORM{number}), which is "
                "none of a binary table; the file is damaged"
            )
        repeat = int(match.group(1) or 1)
        kind = match.group(2)
        columns.setdefault(name, Column(keywords, number, name, kind, repeat, offset))
        offset += (repeat + 7) // 8 if kind == "X" else repeat * _FORMS[kind][0]
    if offset != width:
        raise DataError(
            f"{keywords.where}: its columns take {offset} bytes a row, its header says {width} "
            "(NAXIS1); the file is damaged"
        )
    return columns, width


def _open_table(file: BinaryIO, start: int, keywords: Keywords) -> tuple[dict[str, Column], int]:
    """The layout of a table that is whole."""
    where = keywords.where
    if keywords.text_of("XTENSION") != "BINTABLE":
        raise DataError(f"{where}: holds no table; expected a binary table")
    if keywords.text_of("ZTABLE") == "T":
        raise DataError(
            f"{where}: is a compressed table, which cannot be read; expected a plain one"
        )
    layout, width = _layout(keywords)
    n_rows = keywords.count("NAXIS2") if width else 0
    if file.seek(0, os.SEEK_END) < start + n_rows * width:
        raise DataError(
            f"{where}: ends before its {n_rows} rows do: cannot be read to its end; the file is "
            "truncated"
        )
    return layout, width


def _row(file: BinaryIO, start: int, keywords: Keywords) -> Row:
    layout, width = _open_table(file, start, keywords)
    if not width or not keywords.count("NAXIS2"):
        raise DataError(f"{keywords.where}: holds no rows; expected one with the response")
    file.seek(start)
    content = file.read(width)
    columns: dict[str, NDArray[Any]] = {}
    units: dict[str, str] = {}
    for column in layout.values():
        if column.form not in "BIJKED":
            continue
        form = np.dtype(_FORMS[column.form][1])
        array = np.frombuffer(content, form, column.repeat, column.offset)
        shape = _dimensions(column)
        values = array.astype(form.newbyteorder("="), copy=False)
        columns[column.name] = _scaled(column, values).reshape(shape)
        units[column.name] = column.unit.strip()
    return Row(keywords.where, keywords, columns, units)


def _dimensions(column: Column) -> tuple[int, ...]:
    """Shape of a column's array by TDIM, or flat."""
    name = f"TDIM{column.number}"
    text = column.keywords.text_of(name)
    if not text:
        return (column.repeat,)
    words = text.strip("() ").split(",")
    shape = tuple(int(w) if w.strip().isdigit() and len(w) < 10 else -1 for w in words)[::-1]
    if min(shape) < 0 or math.prod(shape) != column.repeat:
        raise DataError(
            f"{column.keywords.where}: column {column.name} has {name} {text!r} but "
            f"{column.repeat} numbers; the file is damaged"
        )
    return shape


def _table(file: BinaryIO, start: int, keywords: Keywords, names: tuple[str, ...]) -> Table:
    where = keywords.where
    layout, width = _open_table(file, start, keywords)
    n_rows = keywords.count("NAXIS2") if width else 0
    wanted = [layout[name] for name in names if name in layout]
    for column in wanted:
        if column.form in "XLPQCM" or (column.repeat != 1 and column.form != "A"):
            raise DataError(
                f"{where}: column {column.name} has format {column.repeat}{column.form}; expected "
                "one number a row, or text"
            )
    size = n_rows * width
    kept = [column for column in wanted if column.form != "A" or column.repeat]
    formats = [
        f"S{column.repeat}" if column.form == "A" else _FORMS[column.form][1] for column in kept
    ]
    arrays = [np.empty(n_rows, np.dtype(form).newbyteorder("=")) for form in formats]
    if kept and size:
        row = np.dtype(
            {
                "names": [column.name for column in kept],
                "formats": formats,
                "offsets": [column.offset for column in kept],
                "itemsize": width,
            }
        )
        file.seek(start)
        step = max(CHUNK // width, 1)
        for first in range(0, n_rows, step):
            last = min(first + step, n_rows)
            content = file.read((last - first) * width)
            if len(content) < (last - first) * width:
                raise DataError(f"{where}: cannot be read to its end; the file is truncated")
            rows = np.frombuffer(content, dtype=row)
            for column, array in zip(kept, arrays, strict=True):
                array[first:last] = rows[column.name]
    columns: dict[str, NDArray[Any]] = {}
    blank: dict[str, NDArray[np.bool_]] = {}
    for column, array in zip(kept, arrays, strict=True):
        null = column.null if array.dtype.kind in "iu" else None
        if null is not None and (missing := array == null).any():
            blank[column.name] = missing
        columns[column.name] = _scaled(column, array)
    for column in wanted:
        if column.name not in columns:  # text of no length
            columns[column.name] = np.zeros(n_rows, dtype="S1")
    units = {column.name: column.unit for column in wanted}
    return Table(where, keywords, n_rows, columns, units, blank, tuple(layout))


def _scaled(column: Column, array: NDArray[Any]) -> NDArray[Any]:
    """Numbers with TSCAL and TZERO applied; unsigned integers, which FITS writes so, stay whole."""
    if column.form == "A":
        return array
    scale, zero = column.scale, column.zero
    if scale == 1.0 and zero == 0.0:
        return array
    if array.dtype.kind in "iu" and scale == 1.0 and zero == 2.0**63:
        return array.astype(np.uint64) + np.uint64(1 << 63)
    whole = scale == 1.0 and zero.is_integer() and abs(zero) < 2.0**62
    if array.dtype.kind in "iu" and whole:
        return array.astype(np.int64) + np.int64(int(zero))
    return array * scale + zero
