"""DL3 data: index files, observations, events and good time intervals (GADF v0.3).

`DataStore`
    A folder with ``obs-index.fits.gz`` and ``hdu-index.fits.gz``; hands out observations.
`Observation`
    One run: where it pointed, for how long, its events and responses, read when asked for.
`EventList`, `GTI`
    Plain arrays, read-only.
`RunInfo`
    What a reduced dataset remembers of a run.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.utils.exceptions import AstropyUserWarning
from numpy.typing import NDArray

from .errors import DataError
from .irf.aeff import EffectiveAreaTable2D
from .irf.background import Background3D
from .irf.edisp import EnergyDispersion2D
from .irf.io import FITS_ERRORS, READERS, Irf, find_hdu, open_fits, read_irf, refuse_truncated
from .irf.psf import MultiGaussPSF
from .paths import expand_path

FloatArray = NDArray[np.float64]

REQUIRED_IRF = ("aeff", "edisp", "psf", "bkg")
_IRF_CLASSES = {
    "aeff": EffectiveAreaTable2D,
    "edisp": EnergyDispersion2D,
    "psf": MultiGaussPSF,
    "bkg": Background3D,
}


@dataclass(frozen=True, eq=False)
class EventList:
    """Events of one run.

    Parameters
    ----------
    ra, dec : ndarray, shape (N,)
        ICRS degrees, RA in [0, 360), in the precision of the file: single precision is kept, as
        astropy does, so that an event at the edge of a pixel is counted where others count it.
    energy : ndarray, shape (N,)
        Reconstructed energy, TeV.
    header : `~astropy.io.fits.Header`
        Keywords of the HDU.
    """

    ra: NDArray[np.floating]
    dec: NDArray[np.floating]
    energy: NDArray[np.floating]
    header: fits.Header

    @classmethod
    def read(cls, path: Path, hdu_name: str = "EVENTS") -> EventList:
        """Read an EVENTS HDU.

        Raises
        ------
        DataError
            If file, HDU or a column is missing, a unit is wrong or the file is truncated.
        """
        where = f"{path} [{hdu_name}]"
        data, header = _read_table(path, hdu_name)
        columns = []
        for name, unit in (("RA", "deg"), ("DEC", "deg"), ("ENERGY", "TeV")):
            columns.append(_column(where, data, name, unit, keep_precision=True))
        columns[0] = columns[0] % columns[0].dtype.type(360.0)
        for array in columns:
            array.flags.writeable = False
        ra, dec, energy = columns
        return cls(ra, dec, energy, header)

    def __len__(self) -> int:
        return len(self.energy)


@dataclass(frozen=True, eq=False)
class GTI:
    """Good time intervals, in seconds since ``mjd_ref`` (MJD, ``time_system``)."""

    start: FloatArray
    stop: FloatArray
    mjd_ref: float = 51544.0
    time_system: str = "tt"

    @property
    def time_sum(self) -> float:
        """Total time in s."""
        return float(np.sum(self.stop - self.start))

    @classmethod
    def read(cls, path: Path, hdu_name: str = "GTI") -> GTI:
        where = f"{path} [{hdu_name}]"
        data, header = _read_table(path, hdu_name)
        start, stop = (
            np.asarray(_column(where, data, name, "s"), dtype=np.float64)
            for name in ("START", "STOP")
        )
        if not np.all(stop >= start):
            raise DataError(f"{where}: an interval stops before it starts")
        return cls(
            start,
            stop,
            float(header.get("MJDREFI", 51544)) + float(header.get("MJDREFF", 0.0)),
            str(header.get("TIMESYS", "tt")).strip().lower(),
        )

    def shifted(self, mjd_ref: float) -> GTI:
        """The same intervals relative to another reference time."""
        shift = (self.mjd_ref - mjd_ref) * 86400.0
        return GTI(self.start + shift, self.stop + shift, mjd_ref, self.time_system)

    @classmethod
    def union(cls, parts: Sequence[GTI]) -> GTI:
        """All intervals of several runs, overlapping ones merged, in the first one's reference."""
        reference = parts[0].mjd_ref
        parts = [part.shifted(reference) for part in parts]
        start = np.concatenate([part.start for part in parts])
        stop = np.concatenate([part.stop for part in parts])
        order = np.argsort(start)
        merged: list[list[float]] = []
        for low, high in zip(start[order], stop[order], strict=True):
            if merged and low <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], high)
            else:
                merged.append([low, high])
        bounds = np.array(merged).reshape(-1, 2)
        return cls(bounds[:, 0], bounds[:, 1], reference, parts[0].time_system)


@dataclass(frozen=True)
class RunInfo:
    """What a reduced dataset remembers of a run.

    Parameters
    ----------
    obs_id : int
    telescope : str
    ra, dec : float
        Pointing, ICRS degrees.
    livetime : float
        s.
    fov_norm : float or None
        Factor that scales its background table to its counts; None if it is not known.
    """

    obs_id: int
    telescope: str
    ra: float
    dec: float
    livetime: float
    fov_norm: float | None = None


@dataclass(frozen=True)
class HduLocation:
    """Where an HDU is, from the HDU index."""

    path: Path
    name: str
    hdu_class: str


@dataclass(frozen=True, eq=False)
class Observation:
    """One run.

    Parameters
    ----------
    obs_id : int
    hdus : dict
        `HduLocation` by type: ``events gti aeff edisp psf bkg``.
    cache : dict
        Responses already read by the store; runs of one period often share one file.
    """

    obs_id: int
    hdus: dict[str, HduLocation]
    cache: dict[HduLocation, Irf] = field(default_factory=dict, repr=False)

    @cached_property
    def events(self) -> EventList:
        return EventList.read(self._hdu("events").path, self._hdu("events").name)

    @cached_property
    def gti(self) -> GTI:
        return GTI.read(self._hdu("gti").path, self._hdu("gti").name)

    def _keyword(self, name: str) -> float:
        try:
            return float(self.events.header[name])
        except (KeyError, TypeError, ValueError) as error:
            at = self._hdu("events")
            raise DataError(
                f"{at.path} [{at.name}]: keyword {name} is missing or no number"
            ) from error

    @property
    def pointing(self) -> tuple[float, float]:
        """Right ascension and declination of the pointing, ICRS degrees."""
        return self._keyword("RA_PNT"), self._keyword("DEC_PNT")

    @property
    def ontime(self) -> float:
        """Good time in s, dead time included."""
        return self.gti.time_sum

    @property
    def livetime(self) -> float:
        """Good time in s without dead time."""
        return self.ontime * self._keyword("DEADC")

    @property
    def telescope(self) -> str:
        return str(self.events.header.get("TELESCOP", "Unknown"))

    def _hdu(self, kind: str) -> HduLocation:
        if kind not in self.hdus:
            raise DataError(
                f"observation {self.obs_id}: the HDU index lists no {kind!r}; it lists "
                f"{', '.join(self.hdus)}"
            )
        return self.hdus[kind]

    def _irf(self, kind: str) -> Irf:
        location = self._hdu(kind)
        if location not in self.cache:
            self.cache[location] = read_irf(location.path, location.name, location.hdu_class)
        irf = self.cache[location]
        if not isinstance(irf, _IRF_CLASSES[kind]):
            raise DataError(
                f"{location.path} [{location.name}]: listed as {kind!r} but of class "
                f"{location.hdu_class!r}"
            )
        return irf

    @property
    def aeff(self) -> EffectiveAreaTable2D:
        return self._irf("aeff")  # type: ignore[return-value]

    @property
    def edisp(self) -> EnergyDispersion2D:
        return self._irf("edisp")  # type: ignore[return-value]

    @property
    def psf(self) -> MultiGaussPSF:
        return self._irf("psf")  # type: ignore[return-value]

    @property
    def bkg(self) -> Background3D:
        return self._irf("bkg")  # type: ignore[return-value]

    def fov_rotations(self, exact: bool) -> list[tuple[float, FloatArray]]:
        ra, dec = np.radians(self.pointing)
        matrix = np.array(
            [
                [np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)],
                [np.sin(ra), -np.cos(ra), 0.0],
                [-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)],
            ]
        )
        return [(1.0, matrix)]

    def __str__(self) -> str:
        ra, dec = self.pointing
        return (
            f"Observation\n\n  OBS_ID     : {self.obs_id}\n  telescope  : {self.telescope}\n"
            f"  pointing   : {ra:.3f} deg, {dec:.3f} deg (ICRS)\n"
            f"  ontime     : {self.ontime:.1f} s\n  livetime   : {self.livetime:.1f} s\n"
            f"  events     : {len(self.events)}\n"
        )


class Observations(tuple[Observation, ...]):
    """Several runs, in order."""

    @property
    def ids(self) -> list[int]:
        return [obs.obs_id for obs in self]


@dataclass(frozen=True, eq=False)
class DataStore:
    """A folder of DL3 data with its two index files.

    Parameters
    ----------
    base_dir : Path
    hdu_table, obs_table : `~astropy.table.Table`
    """

    base_dir: Path
    hdu_table: Table
    obs_table: Table
    cache: dict[HduLocation, Irf] = field(default_factory=dict, repr=False)

    @classmethod
    def from_dir(cls, base_dir: str | os.PathLike[str]) -> DataStore:
        """Open a data store.

        Raises
        ------
        DataError
            If the folder or one of its index files is missing or not readable.
        """
        base = expand_path(base_dir, "data store")
        if not base.is_dir():
            raise DataError(f"{base_dir}: no such folder ({base}); expected a DL3 data store")
        tables = []
        for name, columns in (
            ("hdu-index", ("OBS_ID", "HDU_TYPE", "HDU_CLASS", "FILE_DIR", "FILE_NAME", "HDU_NAME")),
            ("obs-index", ("OBS_ID",)),
        ):
            path = next(
                (
                    base / f"{name}{end}"
                    for end in (".fits.gz", ".fits")
                    if (base / f"{name}{end}").exists()
                ),
                None,
            )
            if path is None:
                raise DataError(f"{base}: no {name}.fits.gz; expected a DL3 data store")
            data, _ = _read_table(path, 1)
            missing = [column for column in columns if column not in data.dtype.names]
            if missing:
                raise DataError(f"{path}: no column {', '.join(missing)}")
            tables.append(Table(data))
        return cls(base, tables[0], tables[1])

    @property
    def obs_ids(self) -> list[int]:
        return [int(value) for value in self.obs_table["OBS_ID"]]

    def obs(self, obs_id: int, required_irf: Iterable[str] = REQUIRED_IRF) -> Observation:
        """One observation; its files are there, and what they must hold is listed.

        Raises
        ------
        DataError
            For a run that the index does not list, an HDU that is missing or a file that is not
            on disk.
        """
        rows = self.hdu_table[self.hdu_table["OBS_ID"] == obs_id]
        if not len(rows):
            known = self.obs_ids
            shown = ", ".join(map(str, known[:8])) + (", …" if len(known) > 8 else "")
            raise DataError(
                f"observation {obs_id}: not in the index of {self.base_dir}; it lists {shown}"
            )
        hdus: dict[str, HduLocation] = {}
        for row in rows:
            kind = str(row["HDU_TYPE"]).strip().lower()
            folder = Path(str(row["FILE_DIR"]).strip())
            path = Path(os.path.normpath(self.base_dir / folder / str(row["FILE_NAME"]).strip()))
            found = HduLocation(
                path, str(row["HDU_NAME"]).strip(), str(row["HDU_CLASS"]).strip().lower()
            )
            # Of several HDUs of a type the first one counts that can be read.
            if kind not in hdus or (
                hdus[kind].hdu_class not in READERS and found.hdu_class in READERS
            ):
                hdus[kind] = found
        required = ("events", "gti", *required_irf)
        missing = [kind for kind in required if kind not in hdus]
        if missing:
            raise DataError(
                f"observation {obs_id}: the HDU index lists no {', '.join(missing)}, which an "
                "image needs"
            )
        for kind in required:
            if not hdus[kind].path.exists():
                raise DataError(
                    f"observation {obs_id}: its {kind} file is not there: {hdus[kind].path}"
                )
        return Observation(obs_id, hdus, self.cache)

    def get_observations(
        self, obs_ids: Iterable[int] | None = None, required_irf: Iterable[str] = REQUIRED_IRF
    ) -> Observations:
        """Some observations, or all that the index lists."""
        required = tuple(required_irf)
        if obs_ids is not None:
            return Observations(self.obs(int(obs_id), required) for obs_id in obs_ids)
        try:
            return Observations(self.obs(obs_id, required) for obs_id in self.obs_ids)
        except DataError as error:
            raise DataError(
                f"{error} (no runs were named, so all {len(self.obs_ids)} of the index were taken; "
                "name some in observations.obs_ids)"
            ) from error


def _read_table(path: Path, hdu_name: str | int) -> tuple[Any, fits.Header]:
    """Data and header of a table HDU; a truncated file is an error, not a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", AstropyUserWarning)
        with open_fits(path) as hdus:
            where = f"{path} [{hdu_name}]"
            try:
                hdu = (
                    hdus[hdu_name] if isinstance(hdu_name, int) else find_hdu(hdus, path, hdu_name)
                )
                data, header = hdu.data, hdu.header
                rows = 0 if data is None else len(data)
            except (*FITS_ERRORS, AstropyUserWarning, AttributeError) as error:
                if isinstance(error, DataError):
                    raise
                refuse_truncated(path)
                raise DataError(f"{where}: cannot be read; the file is damaged") from error
            if data is None or data.dtype.names is None:
                raise DataError(f"{where}: holds no table")
            if rows and header.get("NAXIS2") != rows:
                raise DataError(f"{where}: has {rows} rows, its header says {header.get('NAXIS2')}")
            return data, header


def _column(
    where: str, data: Any, name: str, unit: str, keep_precision: bool = False
) -> NDArray[np.floating]:
    """A column in a unit, as native numbers: double precision or that of the file."""
    if name not in data.dtype.names:
        raise DataError(f"{where}: no column {name}; there are {', '.join(data.dtype.names)}")
    found = (data.columns[name].unit or unit).strip()
    values = np.asarray(data[name])
    single = keep_precision and values.dtype.kind == "f" and values.dtype.itemsize == 4
    values = values.astype(np.float32 if single else np.float64)
    if found != unit:
        try:
            values = values * u.Unit(found).to(unit)
        except ValueError as error:
            raise DataError(
                f"{where}: column {name} has unit {found!r}, expected one like {unit!r}"
            ) from error
    if not np.all(np.isfinite(values)):
        raise DataError(f"{where}: column {name} holds values that are not finite")
    return values
