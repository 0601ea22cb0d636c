"""Events and good time intervals of a run: plain arrays, read-only.

`EventList`
    Positions, energies and times.
`GTI`
    Good time intervals, sorted, none twice; cut, joined and moved to other reference times.

Times are seconds since a reference (MJD, in a time system), as files have them; two files of one
run may use different references, so `reference_shift` brings one to the other. The seconds are SI
seconds: a leap second counts, as in astropy.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.time import Time
from numpy.typing import NDArray

from .errors import DataError
from .tables import FileCache, Keywords, Table, read_table, unit_factor

FloatArray = NDArray[np.float64]
TimeRange = tuple[Time, Time]

DAY = 86400.0
J2000 = 51544.0
CLOCK = 2e-6
"""s; a reference in double precision is not better known than this."""

_SYSTEMS = {
    "tt": "tt", "tdt": "tt", "et": "tt", "tdb": "tdb", "tai": "tai", "iat": "tai", "utc": "utc",
    "gmt": "utc", "tcg": "tcg", "tcb": "tcb",
}  # fmt: skip


@dataclass(frozen=True)
class TimeReference:
    """What times in a file count from.

    Parameters
    ----------
    mjd : float
    system : str
        ``tt``, ``tdb``, ``tai``, ``utc``, ``tcg`` or ``tcb``.
    """

    mjd: float = J2000
    system: str = "tt"

    @classmethod
    def from_keywords(cls, keywords: Keywords) -> TimeReference | None:
        """Reference of an HDU (MJDREFI, MJDREFF or MJDREF; TIMEOFFS, TIMEZERO; TIMESYS), or None.

        Raises
        ------
        DataError
            For a keyword that is no number, a day outside 0 to 200000 or an unknown time system.
        """
        whole, fraction = keywords.number("MJDREFI"), keywords.number("MJDREFF")
        if whole is None:
            whole, fraction = keywords.number("MJDREF"), None
        if whole is None:
            return None
        name = keywords.text_of("TIMESYS", "tt").lower()
        if name not in _SYSTEMS:
            raise DataError(
                f"{keywords.where}: keyword TIMESYS is {name.upper()!r}; expected one of "
                f"{', '.join(sorted({s.upper() for s in _SYSTEMS.values()}))}"
            )
        # Corrections of the clock stand in the unit of the times.
        offset = (keywords.number("TIMEOFFS") or 0.0) + (keywords.number("TIMEZERO") or 0.0)
        mjd = whole + (fraction or 0.0) + offset * time_unit(keywords) / DAY
        if not 0.0 <= mjd <= 2e5:
            raise DataError(
                f"{keywords.where}: its times count from MJD {mjd:g} (MJDREFI, MJDREFF); expected "
                "a day from 0 to 200000"
            )
        return cls(mjd, _SYSTEMS[name])

    def seconds(self, time: Time) -> float:
        """An instant in s since this reference."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # leap seconds of the years to come are not known
            clock = "tai" if self.system == "utc" else self.system
            start = getattr(Time(self.mjd, format="mjd", scale=self.system), clock)
            instant = getattr(time, clock)
            days = (instant.jd1 - start.jd1) + (instant.jd2 - start.jd2)
        return float(days) * DAY

    def time(self, seconds: FloatArray) -> Time:
        """Seconds since this reference as instants."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            clock = "tai" if self.system == "utc" else self.system
            start = getattr(Time(self.mjd, format="mjd", scale=self.system), clock)
            days = np.asarray(seconds) / DAY
            return getattr(
                Time(start.jd1 + 0 * days, start.jd2 + days, format="jd", scale=clock), self.system
            )


def time_unit(keywords: Keywords) -> float:
    """Seconds in the unit of the time keywords (TIMEUNIT)."""
    found = keywords.text_of("TIMEUNIT", "s")
    factor = unit_factor(found, "s")
    if factor is None:
        raise DataError(f"{keywords.where}: keyword TIMEUNIT is {found!r}; expected 's' or 'd'")
    return factor


def reference_shift(old: TimeReference, new: TimeReference) -> float:
    """What to add to seconds since ``old`` to have seconds since ``new``."""
    if old == new:
        return 0.0
    if old.system == new.system and old.system != "utc":
        return (old.mjd - new.mjd) * DAY
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return new.seconds(Time(old.mjd, format="mjd", scale=old.system))


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
    time : ndarray, shape (N,)
        s since ``reference``.
    reference : `TimeReference` or None
        None if the file does not say.
    keywords : `Keywords`
        Keywords of the HDU.
    """

    ra: NDArray[np.floating]
    dec: NDArray[np.floating]
    energy: NDArray[np.floating]
    time: FloatArray
    reference: TimeReference | None
    keywords: Keywords

    @classmethod
    def read(
        cls, path: Path, hdu_name: str = "EVENTS", files: FileCache | None = None
    ) -> EventList:
        """Read an EVENTS HDU.

        Raises
        ------
        DataError
            If file, HDU or a column is missing, a unit is wrong, a number is not finite or the
            file is truncated.
        """
        table = read_table(path, hdu_name, ("RA", "DEC", "ENERGY", "TIME"), files)
        keywords = table.keywords
        ra = table.values("RA", "deg", keep_precision=True)
        if len(ra) and not (ra.min() >= 0.0 and ra.max() < 360.0):
            turn = ra.dtype.type(360.0)
            ra = ra - turn * np.floor(ra / turn)
            ra[ra >= 360.0] = 0.0  # a tiny negative number is 360 after rounding
        dec = table.values("DEC", "deg", keep_precision=True)
        beyond = np.abs(dec) > 90.0
        if beyond.any():
            raise DataError(
                f"{table.where}: column DEC holds {dec[beyond][0]:g} (in "
                f"{np.count_nonzero(beyond)} of {len(dec)} rows); expected -90 to 90 deg"
            )
        unit = keywords.text_of("EUNIT")
        energy = table.values("ENERGY", "TeV", unit, keep_precision=True)
        arrays = (ra, dec, energy, _times(table, "TIME"))
        for array in arrays:
            array.flags.writeable = False
        return cls(*arrays, TimeReference.from_keywords(keywords), keywords)

    def __len__(self) -> int:
        return len(self.energy)

    @property
    def header(self) -> fits.Header:
        """Keywords of the HDU, as astropy has them."""
        return self.keywords.header()

    def select(self, mask: NDArray[np.bool_]) -> EventList:
        """The events where ``mask`` is true; the list itself if that is all of them."""
        if mask.all():
            return self
        new = replace(
            self,
            ra=self.ra[mask],
            dec=self.dec[mask],
            energy=self.energy[mask],
            time=self.time[mask],
        )
        for array in (new.ra, new.dec, new.energy, new.time):
            array.flags.writeable = False
        return new


@dataclass(frozen=True, eq=False)
class GTI:
    """Good time intervals, in seconds since ``mjd_ref`` (MJD, ``time_system``).

    Those that are read, joined or cut here are in order, have a length and do not overlap.
    """

    start: FloatArray
    stop: FloatArray
    mjd_ref: float = J2000
    time_system: str = "tt"

    @property
    def reference(self) -> TimeReference:
        return TimeReference(self.mjd_ref, self.time_system)

    @property
    def time_sum(self) -> float:
        """Total time in s."""
        return float(np.sum(self.stop - self.start))

    @property
    def time_start(self) -> Time:
        """Starts of the intervals."""
        return self.reference.time(self.start)

    @property
    def time_stop(self) -> Time:
        """Ends of the intervals."""
        return self.reference.time(self.stop)

    @classmethod
    def read(
        cls,
        path: Path,
        hdu_name: str = "GTI",
        files: FileCache | None = None,
        reference: TimeReference | None = None,
    ) -> GTI:
        """Read a GTI HDU; intervals that overlap are joined, so that no time counts twice.

        Parameters
        ----------
        path : Path
        hdu_name : str
        files : `FileCache`, optional
        reference : `TimeReference`, optional
            What times count from if the HDU does not say.

        Raises
        ------
        DataError
            If file, HDU or a column is missing, a unit is wrong, a number is not finite or an
            interval stops before it starts.
        """
        table = read_table(path, hdu_name, ("START", "STOP"), files)
        start, stop = _times(table, "START"), _times(table, "STOP")
        backwards = np.flatnonzero(stop < start)
        if len(backwards):
            row = int(backwards[0])
            raise DataError(
                f"{table.where}: an interval stops before it starts: row {row + 1} goes from "
                f"{start[row]:.9g} to {stop[row]:.9g} s"
            )
        found = TimeReference.from_keywords(table.keywords) or reference or TimeReference()
        return cls(*_joined(start, stop), found.mjd, found.system)

    def shifted(self, mjd_ref: float, time_system: str | None = None) -> GTI:
        """The same intervals relative to another reference time."""
        new = TimeReference(mjd_ref, time_system or self.time_system)
        shift = reference_shift(self.reference, new)
        return GTI(self.start + shift, self.stop + shift, new.mjd, new.system)

    @classmethod
    def union(cls, parts: Sequence[GTI]) -> GTI:
        """All intervals of several runs, overlapping ones merged, in the first one's reference."""
        mjd, system = parts[0].mjd_ref, parts[0].time_system
        parts = [part.shifted(mjd, system) for part in parts]
        start = np.concatenate([part.start for part in parts])
        stop = np.concatenate([part.stop for part in parts])
        return cls(*_joined(start, stop), mjd, system)

    def contains(
        self,
        times: FloatArray,
        reference: TimeReference | None = None,
        rounded_ends: bool = False,
    ) -> NDArray[np.bool_]:
        """Whether times (s, since ``reference`` or the own one) are good; both ends count.

        With ``rounded_ends`` the first start and the last stop are taken as rounded if they are
        whole seconds, and times less than a second beyond them are good. Runs of H.E.S.S. are
        written so, with a few events behind the stop; they belong to the run, and Gammapy counts
        them. Gaps between intervals stay exact.
        """
        if not len(self.start):
            return np.zeros(len(times), dtype=bool)
        shift = 0.0 if reference is None else reference_shift(reference, self.reference)
        slack = CLOCK if shift else 0.0
        low, high = self.start - shift - slack, self.stop - shift + slack
        if rounded_ends:
            if float(self.start[0]).is_integer():
                low[0] = np.nextafter(low[0] - 1.0, np.inf)
            if float(self.stop[-1]).is_integer():
                high[-1] = np.nextafter(high[-1] + 1.0, -np.inf)
        if len(low) == 1:
            return np.asarray((times >= low[0]) & (times <= high[0]))
        index = np.searchsorted(low, times, side="right") - 1
        return np.asarray((index >= 0) & (times <= high[np.maximum(index, 0)]))

    def select_time(self, ranges: Sequence[TimeRange]) -> GTI:
        """What of the intervals lies in some ranges of time, which may overlap."""
        low, high = range_seconds(ranges, self.reference)
        parts = [
            (np.maximum(self.start, a), np.minimum(self.stop, b))
            for a, b in zip(low, high, strict=True)
        ]
        start = np.concatenate([part[0] for part in parts])
        stop = np.concatenate([part[1] for part in parts])
        return GTI(*_joined(start, stop), self.mjd_ref, self.time_system)


def range_seconds(
    ranges: Sequence[TimeRange], reference: TimeReference
) -> tuple[FloatArray, FloatArray]:
    """Starts and ends of ranges of time in s since a reference, in order and joined."""
    bounds = np.array([[reference.seconds(t) for t in pair] for pair in ranges]).reshape(-1, 2)
    return _joined(bounds[:, 0], bounds[:, 1])


def within_ranges(
    times: FloatArray, reference: TimeReference, ranges: Sequence[TimeRange]
) -> NDArray[np.bool_]:
    """Whether times lie in one of some ranges; their start counts, their end does not."""
    low, high = range_seconds(ranges, reference)
    if not len(low):
        return np.zeros(len(times), dtype=bool)
    index = np.searchsorted(low, times, side="right") - 1
    return np.asarray((index >= 0) & (times < high[np.maximum(index, 0)]))


def _times(table: Table, name: str) -> FloatArray:
    """A column of times in s; without a unit of its own it has that of the keywords."""
    default = (
        "" if name not in table.units or table.units[name] else table.keywords.text_of("TIMEUNIT")
    )
    return np.asarray(table.values(name, "s", default), dtype=np.float64)


def _joined(start: FloatArray, stop: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Intervals in order without empty ones, those that overlap or touch joined."""
    keep = stop > start
    order = np.argsort(start[keep], kind="stable")
    start, stop = start[keep][order], stop[keep][order]
    if len(start):
        reach = np.maximum.accumulate(stop)
        first = np.concatenate([[True], start[1:] > reach[:-1]])
        last = np.concatenate([first[1:], [True]])
        start, stop = start[first], reach[last]
    for array in (start, stop):
        array.flags.writeable = False
    return start, stop
