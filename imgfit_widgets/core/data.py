"""DL3 data: observations and the store that hands them out (GADF v0.3).

`DataStore`
    A folder with ``obs-index.fits.gz`` and ``hdu-index.fits.gz``; hands out observations.
`Observation`
    One run: where it pointed, for how long, its events and responses, read when asked for.
`EventList`, `GTI`
    Plain arrays, read-only (`imgfit_widgets.core.events`).
`RunInfo`
    What a reduced dataset remembers of a run.

Memory does not grow with the number of runs: an observation keeps a few keywords and its good time
intervals, never its events, and the store keeps the responses of the last few runs only.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from astropy.table import Table

from .errors import DataError
from .events import GTI, EventList, FloatArray, TimeRange, TimeReference, within_ranges
from .index import HduIndex, HduLocation, ObsIndex
from .irf.aeff import EffectiveAreaTable2D
from .irf.edisp import EnergyDispersion2D
from .irf.fov import altaz_systems, radec_system
from .irf.io import PSF, READERS, Background, Irf, read_irf
from .paths import expand_path
from .tables import FileCache, Keywords, read_table

__all__ = [
    "GTI", "REQUIRED_IRF", "DataStore", "EventList", "HduLocation", "IrfCache", "Observation",
    "Observations", "RunInfo",
]  # fmt: skip

log = logging.getLogger(__name__)

REQUIRED_IRF = ("aeff", "edisp", "psf", "bkg")
KINDS = ("events", "gti", *REQUIRED_IRF)
_KEPT = (
    "OBS_MODE", "RA_PNT", "DEC_PNT", "DEADC", "LIVETIME", "ONTIME", "TELESCOP", "GEOLON", "GEOLAT",
    "ALTITUDE", "MJDREFI", "MJDREFF", "MJDREF", "TIMESYS", "TIMEUNIT", "TIMEOFFS", "TIMEZERO",
)  # fmt: skip


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


class IrfCache:
    """The responses that were used last: runs of one period often share one file.

    Parameters
    ----------
    size : int
        How many are kept; a run has four, and several may be reduced side by side.
    """

    def __init__(self, size: int = 16) -> None:
        self.size = size
        self._irfs: dict[HduLocation, Irf] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"size": self.size, "_irfs": {}}  # another process reads for itself

    def __len__(self) -> int:
        return len(self._irfs)

    def get(self, at: HduLocation, files: FileCache | None = None) -> Irf:
        """A response, read if it is not there; the one that was not used longest goes."""
        irf = self._irfs.pop(at, None)
        if irf is None:
            irf = read_irf(at.path, at.name, at.hdu_class, files)
        while len(self._irfs) >= max(self.size, 1):
            self._irfs.pop(next(iter(list(self._irfs))), None)
        self._irfs[at] = irf
        return irf


@dataclass(frozen=True, eq=False)
class Observation:
    """One run.

    Parameters
    ----------
    obs_id : int
    hdus : dict
        `HduLocation` by type: ``events gti aeff edisp psf bkg``, also ``pointing rad_max``.
    cache : `IrfCache`
        Responses already read by the store.
    files : `FileCache`
        Files already unpacked by the store.
    time_ranges : tuple of (Time, Time)
        The run's good time is cut to these, its events alike; all of it if there are none.
    index_pointing : (float, float) or None
        RA_PNT and DEC_PNT of the observation index, for runs whose events do not say.
    """

    obs_id: int
    hdus: dict[str, HduLocation]
    cache: IrfCache = field(default_factory=IrfCache, repr=False)
    files: FileCache = field(default_factory=FileCache, repr=False)
    time_ranges: tuple[TimeRange, ...] = ()
    index_pointing: tuple[float, float] | None = None

    def has(self, kind: str) -> bool:
        """Whether the index lists a part of the run (``psf``) and its file is on disk."""
        return kind in self.hdus and os.path.isfile(self.hdus[kind].path)

    @property
    def events(self) -> EventList:
        """Events within the good time; read anew each time and not kept."""
        at = self._hdu("events")
        events = EventList.read(at.path, at.name, self.files)
        gti = self._file_gti
        # Without a reference of their own, times count from that of the intervals.
        reference = events.reference or gti.reference
        good = gti.contains(events.time, reference, rounded_ends=True)
        if self.time_ranges:
            good &= within_ranges(events.time, reference, self.time_ranges)
        return events.select(good)

    @cached_property
    def gti(self) -> GTI:
        """Good time intervals, cut to `time_ranges`."""
        gti = self._file_gti
        return gti.select_time(self.time_ranges) if self.time_ranges else gti

    @cached_property
    def _file_gti(self) -> GTI:
        at = self._hdu("gti")
        own = TimeReference.from_keywords(self._kept)
        gti = GTI.read(at.path, at.name, self.files, own)
        if self.time_ranges and own is None:
            keywords = read_table(at.path, at.name, (), self.files).keywords
            if TimeReference.from_keywords(keywords) is None:
                raise DataError(
                    f"{at.path} [{at.name}]: keyword MJDREFI is missing, so its times cannot be "
                    "compared with observations.obs_time"
                )
        return gti

    @property
    def keywords(self) -> Keywords:
        """Keywords of the EVENTS HDU; read anew each time and not kept."""
        at = self._hdu("events")
        return read_table(at.path, at.name, (), self.files).keywords

    @cached_property
    def _kept(self) -> Keywords:
        """The few keywords that make the numbers below; a header may have hundreds."""
        return self.keywords.only(_KEPT)

    @cached_property
    def pointing(self) -> tuple[float, float]:
        """Right ascension and declination of the pointing, ICRS degrees.

        From the EVENTS header (RA_PNT, DEC_PNT), else the mean of the pointing table over the good
        time, else from the observation index.

        Raises
        ------
        DataError
            For a run that drifts, or that says nowhere where it pointed.
        """
        keywords = self._kept
        mode = keywords.text_of("OBS_MODE").upper()
        if mode == "DRIFT":
            raise DataError(
                f"observation {self.obs_id}: OBS_MODE is 'DRIFT' ({keywords.where}): the run "
                "points at no fixed position, so no image can be made of it"
            )
        ra, dec = keywords.number("RA_PNT", "deg"), keywords.number("DEC_PNT", "deg")
        if ra is not None and dec is not None:
            found, where = (ra, dec), keywords.where
        elif self.has("pointing"):
            found, where = self._mean_pointing()
        elif self.index_pointing is not None:
            found, where = self.index_pointing, "observation index"
        else:
            raise DataError(
                f"observation {self.obs_id}: where it pointed is not known: {keywords.where} has "
                "no RA_PNT and DEC_PNT, there is no pointing table and none in the observation "
                "index"
            )
        if not abs(found[1]) <= 90.0:
            raise DataError(f"{where}: keyword DEC_PNT is {found[1]:g}; expected -90 to 90 deg")
        return float(found[0]) % 360.0, float(found[1])

    def _mean_pointing(self) -> tuple[tuple[float, float], str]:
        """Mean direction of the pointing table over the good time, linear between its rows."""
        at = self.hdus["pointing"]
        table = read_table(at.path, at.name, ("TIME", "RA_PNT", "DEC_PNT"), self.files)
        unit = table.keywords.text_of("TIMEUNIT")
        time, ra, dec = (
            table.values("TIME", "s", unit),
            np.radians(table.values("RA_PNT", "deg")),
            np.radians(table.values("DEC_PNT", "deg")),
        )
        if not len(time):
            raise DataError(f"{table.where}: holds no rows; expected where the run pointed")
        order = np.argsort(time, kind="stable")
        time = time[order]
        vectors = np.stack(
            [np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=0
        )[:, order]
        reference = TimeReference.from_keywords(table.keywords) or self.gti.reference
        good = self.gti.shifted(reference.mjd, reference.system)
        total: FloatArray = np.zeros(3)
        for ends in zip(good.start, good.stop, strict=True):
            inside = (time > ends[0]) & (time < ends[1])
            nodes = np.concatenate([ends[:1], time[inside], ends[1:]])
            for axis in range(3):
                first, last = np.interp(ends, time, vectors[axis])
                values = np.concatenate([[first], vectors[axis][inside], [last]])
                total[axis] += np.trapezoid(values, nodes)
        if not np.any(total):
            total = vectors.mean(axis=1)
        x, y, z = total
        found = (
            float(np.degrees(np.arctan2(y, x))),
            float(np.degrees(np.arctan2(z, np.hypot(x, y)))),
        )
        return found, table.where

    @property
    def location(self) -> tuple[float, float, float] | None:
        """Longitude and latitude in degrees (east, north), altitude in m; None if not known."""
        keywords = self._kept
        lon, lat = keywords.number("GEOLON", "deg"), keywords.number("GEOLAT", "deg")
        if lon is None or lat is None:
            return None
        if not abs(lat) <= 90.0:
            raise DataError(f"{keywords.where}: keyword GEOLAT is {lat:g}; expected -90 to 90 deg")
        return lon, lat, keywords.number("ALTITUDE", "m") or 0.0

    @property
    def ontime(self) -> float:
        """Good time in s, dead time included.

        Raises
        ------
        DataError
            If there is none.
        """
        time = self.gti.time_sum
        if not time > 0.0:
            at = self._hdu("gti")
            cut = " in the ranges of observations.obs_time" if self.time_ranges else ""
            raise DataError(
                f"observation {self.obs_id}: has no good time{cut}: {at.path} [{at.name}]"
            )
        return time

    @cached_property
    def deadtime_correction(self) -> float:
        """Share of the good time in which the instrument is alive (DEADC), in (0, 1].

        Raises
        ------
        DataError
            If it is out of range, or missing without LIVETIME and ONTIME to make it from.
        """
        keywords = self._kept
        value, origin = keywords.number("DEADC"), "DEADC"
        if value is None:
            live, on = keywords.number("LIVETIME", "s"), keywords.number("ONTIME", "s")
            if live is None or not on:
                raise DataError(
                    f"{keywords.where}: keyword DEADC is missing or no number, and LIVETIME and "
                    "ONTIME are not both there to make it from"
                )
            value, origin = live / on, "LIVETIME / ONTIME"
        # Single precision may round 1 up.
        if not 0.0 < value <= 1.0 + 1e-6:
            raise DataError(
                f"{keywords.where}: {origin} is {value:g}; expected the share of live time, above "
                "0 and at most 1"
            )
        return min(value, 1.0)

    @property
    def livetime(self) -> float:
        """Good time in s without dead time."""
        return self.ontime * self.deadtime_correction

    @property
    def telescope(self) -> str:
        return self._kept.text_of("TELESCOP", "Unknown")

    def _hdu(self, kind: str) -> HduLocation:
        if kind not in self.hdus:
            raise DataError(
                f"observation {self.obs_id}: the HDU index lists no {kind!r}; it lists "
                f"{', '.join(self.hdus) or 'nothing'}"
            )
        return self.hdus[kind]

    def _irf(self, kind: str) -> Irf:
        at = self._hdu(kind)
        # Classes are named for what they are: psf_table, psf_3gauss, psf_king.
        if not at.hdu_class.startswith(f"{kind}_"):
            raise DataError(
                f"{at.path} [{at.name}]: listed as {kind!r} but of class {at.hdu_class!r}; "
                f"expected one that starts with {kind}_"
            )
        return self.cache.get(at, self.files)

    @property
    def aeff(self) -> EffectiveAreaTable2D:
        return cast(EffectiveAreaTable2D, self._irf("aeff"))

    @property
    def edisp(self) -> EnergyDispersion2D:
        return cast(EnergyDispersion2D, self._irf("edisp"))

    @property
    def psf(self) -> PSF:
        return cast(PSF, self._irf("psf"))

    @property
    def bkg(self) -> Background:
        return cast(Background, self._irf("bkg"))

    def fov_rotations(self, exact: bool) -> list[tuple[float, FloatArray]]:
        """The systems of the background's field of view during the run, see `irf.fov`.

        Parameters
        ----------
        exact : bool
            How a field that turns with the horizon is followed.

        Returns
        -------
        list of (float, ndarray of shape (3, 3))
            Share of the good time, and the matrix from ICRS.

        Raises
        ------
        DataError
            If that asks for the place of the telescope and the file does not tell it.
        """
        alignment = self.bkg.alignment
        if alignment != "ALTAZ":
            return [(1.0, radec_system(*self.pointing, reverse=alignment != "RADEC"))]
        if self.location is None:
            raise DataError(
                f"{self.keywords.where}: keywords GEOLON and GEOLAT are missing; the background "
                "is aligned with the horizon (FOVALIGN 'ALTAZ'), so they are needed"
            )
        start, stop = (time.utc.mjd for time in (self.gti.time_start, self.gti.time_stop))
        return altaz_systems(*self.pointing, self.location, start, stop, exact)

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
    hdu_index : `HduIndex`
    obs_index : `ObsIndex`
    cache : `IrfCache`
    files : `FileCache`
    """

    base_dir: Path
    hdu_index: HduIndex
    obs_index: ObsIndex
    cache: IrfCache = field(default_factory=IrfCache, repr=False)
    files: FileCache = field(default_factory=FileCache, repr=False)

    @classmethod
    def from_dir(cls, base_dir: str | os.PathLike[str]) -> DataStore:
        """Open a data store.

        Raises
        ------
        DataError
            If the folder or one of its index files is missing or not readable.
        """
        base = expand_path(base_dir, "data store")
        if not os.path.isdir(base):
            raise DataError(f"{base_dir}: no such folder ({base}); expected a DL3 data store")
        return cls(base, HduIndex.read(base), ObsIndex.read(base))

    @property
    def obs_ids(self) -> list[int]:
        """Run numbers of the observation index, in its order, each once."""
        return [int(value) for value in self.obs_index.ids]

    @property
    def obs_table(self) -> Table:
        """The whole observation index, as astropy reads it."""
        return Table.read(self.obs_index.path, hdu=1)

    @property
    def hdu_table(self) -> Table:
        """The whole HDU index, as astropy reads it."""
        return Table.read(self.hdu_index.path, hdu=1)

    def obs(
        self,
        obs_id: int,
        required_irf: Iterable[str] = REQUIRED_IRF,
        time_ranges: Iterable[TimeRange] = (),
    ) -> Observation:
        """One observation; its files are there, and what they must hold is listed.

        Events and good time intervals are always required.

        Raises
        ------
        DataError
            For a run that the index does not list, an HDU that is missing, a file that is not
            on disk, or a point-like response.
        """
        required = tuple(dict.fromkeys(("events", "gti", *required_irf)))
        for kind in required:
            if kind not in (*KINDS, "rad_max"):
                raise DataError(
                    f"required_irf: {kind!r} is no part of a run; expected some of "
                    f"{', '.join(KINDS)}"
                )
        if obs_id not in self.hdu_index:
            if obs_id in self.obs_index.ids:
                raise DataError(
                    f"observation {obs_id}: listed in {self.obs_index.path} but not in "
                    f"{self.hdu_index.path}, so its files are not known"
                )
            known = self.obs_ids
            shown = ", ".join(map(str, known[:8])) + (", …" if len(known) > 8 else "")
            raise DataError(
                f"observation {obs_id}: not in the index of {self.base_dir}; it lists {shown}"
            )
        hdus = self.hdu_index.hdus(obs_id, READERS)
        missing = [kind for kind in required if kind not in hdus]
        if missing or "rad_max" in required:
            if "rad_max" in required or self._is_point_like(hdus):
                absent = [kind for kind in missing if kind != "rad_max"]
                lists = f"; the HDU index lists no {', '.join(absent)}" if absent else ""
                raise DataError(
                    f"observation {obs_id}: a point-like response (rad_max) tells of one "
                    f"direction only, so no image can be made of it{lists}; images need "
                    "full-enclosure responses"
                )
            raise DataError(
                f"observation {obs_id}: the HDU index lists no {', '.join(missing)}, which an "
                "image needs"
            )
        for kind in required:
            if not os.path.isfile(hdus[kind].path):
                raise DataError(
                    f"observation {obs_id}: its {kind} file is not there: {hdus[kind].path}"
                )
        pointing = self.obs_index.pointing(obs_id)
        return Observation(obs_id, hdus, self.cache, self.files, tuple(time_ranges), pointing)

    def _is_point_like(self, hdus: dict[str, HduLocation]) -> bool:
        """Whether what is there of a run is for one direction on the sky."""
        if "rad_max" in hdus:
            return True
        for kind in ("aeff", "edisp"):
            if kind in hdus:
                try:
                    at = hdus[kind]
                    keywords = read_table(at.path, at.name, (), self.files).keywords
                except DataError:
                    continue
                if keywords.text_of("HDUCLAS3").upper() == "POINT-LIKE" or "RAD_MAX" in keywords:
                    return True
        return False

    def get_observations(
        self,
        obs_ids: Iterable[int] | None = None,
        required_irf: Iterable[str] = REQUIRED_IRF,
        failed: dict[int, str] | None = None,
        time_ranges: Iterable[TimeRange] = (),
    ) -> Observations:
        """Some observations, or all that the index lists.

        Parameters
        ----------
        obs_ids : iterable of int, optional
        required_irf : iterable of str
            What each run must have, of ``aeff edisp psf bkg``; events and gti it must have anyway.
        failed : dict, optional
            Takes up runs that cannot be used, with the reason; they are left out. Good time,
            dead time and pointing are looked at too. Without it the first such run is an error.
        time_ranges : iterable of (Time, Time), optional
            Good time is cut to these; runs without time left drop out.

        Raises
        ------
        DataError
            For a run that cannot be used (no ``failed``), or if no run is left.
        """
        required, ranges = tuple(required_irf), tuple(time_ranges)
        named = obs_ids is not None
        ids = list(dict.fromkeys(int(i) for i in (self.obs_ids if obs_ids is None else obs_ids)))
        found: list[Observation] = []
        outside: list[Observation] = []
        reasons: dict[int, str] = {}
        for obs_id in ids:
            try:
                observation = self.obs(obs_id, required, ranges)
                if ranges and not observation.gti.time_sum > 0.0 and observation._file_gti.time_sum:
                    outside.append(observation)
                    log.info(
                        "Observation %d has no good time in the ranges of observations.obs_time "
                        "and drops out",
                        obs_id,
                    )
                    continue
                if failed is not None:
                    _ = observation.pointing, observation.livetime
            except DataError as error:
                if failed is None:
                    raise error if named else _of_all(error, len(ids)) from error
                reasons[obs_id] = str(error)
                log.warning("Observation %d is left out: %s", obs_id, error)
                continue
            found.append(observation)
        if failed is not None:
            failed.update(reasons)
        if ids and not found:
            raise self._nothing_left(ids, outside, reasons, ranges)
        return Observations(found)

    def _nothing_left(
        self,
        ids: Sequence[int],
        outside: Sequence[Observation],
        reasons: dict[int, str],
        ranges: Sequence[TimeRange],
    ) -> DataError:
        texts = []
        if outside:
            spans = "; ".join(f"{start.iso} to {stop.iso}" for start, stop in ranges[:3])
            start = min(obs._file_gti.time_start[0].utc for obs in outside)
            stop = max(obs._file_gti.time_stop[-1].utc for obs in outside)
            texts.append(
                f"observations.obs_time: {len(outside)} of {len(ids)} runs have no good time in "
                f"{spans}; their good time lies between {start.iso} and {stop.iso} UTC"
            )
        if reasons:
            first = next(iter(reasons.values()))
            texts.append(f"{len(reasons)} of {len(ids)} runs cannot be used; the first: {first}")
        return DataError(f"no run is left: {'. '.join(texts)}")


def _of_all(error: DataError, count: int) -> DataError:
    return DataError(
        f"{error} (no runs were named, so all {count} of the index were taken; name some in "
        "observations.obs_ids)"
    )
