"""The two index files of a DL3 store: which runs there are and where their HDUs lie (GADF v0.3).

`HduIndex`
    ``hdu-index.fits.gz``: file and HDU of each part of each run.
`ObsIndex`
    ``obs-index.fits.gz``: the runs and where they pointed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .tables import Table, read_table

HDU_COLUMNS = ("OBS_ID", "HDU_TYPE", "HDU_CLASS", "FILE_DIR", "FILE_NAME", "HDU_NAME")


@dataclass(frozen=True)
class HduLocation:
    """Where an HDU is, from the HDU index."""

    path: Path
    name: str
    hdu_class: str


@dataclass(frozen=True, eq=False)
class HduIndex:
    """HDUs of all runs.

    Parameters
    ----------
    path : Path
        The file, in whose folder FILE_DIR starts.
    table : `~imgfit_widgets.core.tables.Table`
    """

    path: Path
    table: Table

    @classmethod
    def read(cls, base_dir: Path) -> HduIndex:
        """Read ``hdu-index.fits.gz`` of a folder."""
        path, table = _read(base_dir, "hdu-index", HDU_COLUMNS, HDU_COLUMNS)
        return cls(path, table)

    @cached_property
    def _rows(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Run numbers in order, and the rows that they stand in."""
        ids, rows = observation_ids(self.table)
        order = np.argsort(ids, kind="stable")
        return ids[order], rows[order]

    def __contains__(self, obs_id: int) -> bool:
        ids, _ = self._rows
        at = int(np.searchsorted(ids, obs_id))
        return at < len(ids) and int(ids[at]) == obs_id

    def hdus(self, obs_id: int, readable: Container[str] = ()) -> dict[str, HduLocation]:
        """HDUs of a run by type; of several of one type the first that is of a readable class.

        Raises
        ------
        DataError
            If a path uses an environment variable that is not set.
        """
        ids, rows = self._rows
        first, last = np.searchsorted(ids, [obs_id, obs_id + 1])
        found: dict[str, HduLocation] = {}
        for row in rows[first:last]:
            kind, hdu_class, folder, file, name = (
                self._word(column, int(row)) for column in HDU_COLUMNS[1:]
            )
            kind, hdu_class = kind.lower(), hdu_class.lower()
            if not kind or not file:
                continue  # a blank row lists nothing
            if kind not in found or (
                found[kind].hdu_class not in readable and hdu_class in readable
            ):
                path = self.path.parent / self._expanded(folder) / self._expanded(file)
                found[kind] = HduLocation(
                    Path(os.path.normpath(path)), name or kind.upper(), hdu_class
                )
        return found

    def _word(self, column: str, row: int) -> str:
        value: Any = self.table.columns[column][row]
        if isinstance(value, bytes):
            return value.partition(b"\0")[0].decode("latin-1").strip()
        return str(value)

    def _expanded(self, text: str) -> str:
        text = os.path.expandvars(text)
        unset = re.search(r"\$(\w+|\{\w+\})", text)
        if unset:
            name = unset.group(1).strip("{}")
            raise DataError(
                f"{self.table.where}: {text!r}: the environment variable {name} is not set"
            )
        return text


@dataclass(frozen=True, eq=False)
class ObsIndex:
    """Runs of a store.

    Parameters
    ----------
    path : Path
    ids : ndarray of int, shape (N,)
        Run numbers in the order of the file, each once.
    ra, dec : ndarray, shape (N,)
        Pointing, ICRS degrees, NaN where it is blank; None if the file has no such column.
    """

    path: Path
    ids: NDArray[np.int64]
    ra: NDArray[np.floating] | None
    dec: NDArray[np.floating] | None

    @classmethod
    def read(cls, base_dir: Path) -> ObsIndex:
        """Read ``obs-index.fits.gz`` of a folder."""
        names = ("OBS_ID", "RA_PNT", "DEC_PNT")
        path, table = _read(base_dir, "obs-index", names, names[:1])
        ids, rows = observation_ids(table)
        _, once = np.unique(ids, return_index=True)
        once.sort()
        ra, dec = (
            table.values(name, "deg", allow_blank=True)[rows[once]]
            if name in table.columns
            else None
            for name in names[1:]
        )
        return cls(path, ids[once], ra, dec)

    def pointing(self, obs_id: int) -> tuple[float, float] | None:
        """Where a run pointed, ICRS degrees; None if that is not known."""
        at = np.flatnonzero(self.ids == obs_id)
        if self.ra is None or self.dec is None or not len(at):
            return None
        ra, dec = float(self.ra[at[0]]), float(self.dec[at[0]])
        return (ra, dec) if np.isfinite(ra) and abs(dec) <= 90.0 else None


def observation_ids(table: Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Run numbers (column OBS_ID: integers, whole floats or text) and their rows, blanks left out.

    Raises
    ------
    DataError
        Naming the row and the value that is no whole number.
    """
    values = table.columns["OBS_ID"]
    blank = table.blank.get("OBS_ID", np.zeros(len(values), dtype=bool))
    if values.dtype.kind == "S":
        words = table.words("OBS_ID")
        blank = np.array([not word for word in words], dtype=bool)
        numbers = [_whole(table, row, word) for row, word in enumerate(words) if word]
        return np.array(numbers, dtype=np.int64), np.flatnonzero(~blank)
    if values.dtype.kind == "f":
        blank = blank | np.isnan(values)
        wrong = ~blank & ~((values == np.rint(values)) & (np.abs(values) < 2.0**53))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            _whole(table, row, repr(float(values[row])))
    return values[~blank].astype(np.int64), np.flatnonzero(~blank)


def _whole(table: Table, row: int, word: str) -> int:
    match = re.fullmatch(r"([-+]?\d{1,18})(\.0*)?", word)
    if match is None:
        raise DataError(
            f"{table.where}: OBS_ID in row {row + 1} is {word!r}; expected a whole number"
        )
    return int(match.group(1))


def _read(
    base_dir: Path, name: str, columns: tuple[str, ...], required: tuple[str, ...]
) -> tuple[Path, Table]:
    paths = [base_dir / f"{name}{end}" for end in (".fits.gz", ".fits")]
    path = next((path for path in paths if os.path.isfile(path)), None)
    if path is None:
        raise DataError(f"{base_dir}: no {name}.fits.gz; expected a DL3 data store")
    table = read_table(path, None, columns)
    missing = [column for column in required if column not in table.columns]
    if missing:
        raise DataError(
            f"{table.where}: no column {', '.join(missing)}; there are {', '.join(table.names)}"
        )
    return path, table
