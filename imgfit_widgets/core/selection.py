"""Which observations a configuration selects: by number, by pointing, by time.

`select_ids`
    Run numbers by ``observations.obs_ids`` or ``obs_file``, then ``obs_cone``, as Gammapy's
    Analysis selects them.
`time_ranges`
    The ranges of ``observations.obs_time``, to which good times are cut.
`read_ids`
    Run numbers of a text file.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.time import Time

from .config import Observations as Settings
from .config import SkyCircle
from .data import DataStore
from .errors import ConfigError, DataError
from .paths import expand_path

if TYPE_CHECKING:
    from .events import TimeRange

log = logging.getLogger(__name__)

MAX_FILE = 10_000_000
"""Bytes of a list of observations; more is some other file."""


def select_ids(store: DataStore, settings: Settings) -> list[int]:
    """Run numbers that a configuration selects.

    Parameters
    ----------
    store : `DataStore`
    settings : `~imgfit_widgets.core.config.Observations`
        The section ``observations``: ``obs_ids`` or ``obs_file`` (all runs of the observation index
        without), of these the ones that point into ``obs_cone``.

    Returns
    -------
    list of int
        In the order in which they are named, or of the index; each once.

    Raises
    ------
    ConfigError
        If ``obs_ids`` and ``obs_file`` are both set, the file cannot be used, the cone is not
        complete, or no run is left (the message counts the runs that each step kept).
    DataError
        For a run that the index does not list.
    """
    path = settings.path_of
    if settings.obs_ids and settings.obs_file is not None:
        raise ConfigError(
            f"{path('obs_file')}: {str(settings.obs_file)!r} and {path('obs_ids')} are both set; "
            "expected one of them"
        )
    ids = store.obs_ids
    steps = [f"{len(ids)} in the index {store.obs_index.path}"]
    named = None
    if settings.obs_ids:
        named, key = settings.obs_ids, path("obs_ids")
    elif settings.obs_file is not None:
        named, key = read_ids(settings.obs_file, path("obs_file")), path("obs_file")
    if named is not None:
        listed = set(ids)
        for obs_id in named:
            if obs_id not in listed and obs_id not in store.hdu_index:
                shown = ", ".join(map(str, ids[:8])) + (", …" if len(ids) > 8 else "")
                raise DataError(
                    f"{key}: observation {obs_id}: not in the index of {store.base_dir}; it lists "
                    f"{shown or 'none'}"
                )
        ids = list(dict.fromkeys(int(obs_id) for obs_id in named))
        steps.append(f"{len(ids)} by {key}")
    if not ids:
        raise ConfigError(f"{path('datastore')}: no run is selected: {', '.join(steps)}")
    circle = _circle(settings.obs_cone)
    if circle is not None:
        ids = _within(store, ids, settings.obs_cone, circle, steps)
    log.info("Observations selected: %s", ", ".join(steps))
    return ids


def time_ranges(settings: Settings) -> list[TimeRange]:
    """Ranges of time that a configuration selects, none for all time.

    Returns
    -------
    list of (start, stop)
        Instants; the start belongs to a range, the end does not.

    Raises
    ------
    ConfigError
        If one end is missing, there are not as many starts as ends, or one is not before its end.
    """
    section = settings.obs_time
    start, stop = section.start, section.stop
    if start is None and stop is None:
        return []
    for name, other, value in (("start", "stop", start), ("stop", "start", stop)):
        if value is None:
            raise ConfigError(
                f"{section.path_of(name)}: not set, but {section.path_of(other)} is; expected both"
            )
    starts, stops = _instants(start), _instants(stop)
    if len(starts) != len(stops):
        raise ConfigError(
            f"{section.path_of('stop')}: has {len(stops)} times, {section.path_of('start')} has "
            f"{len(starts)}; expected as many"
        )
    for low, high in zip(starts, stops, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # leap seconds of the years to come
            if not low < high:
                raise ConfigError(f"{section.path}: start {low} is not before stop {high}")
    return list(zip(starts, stops, strict=True))


def _instants(time: Time) -> list[Time]:
    if time.isscalar:
        return [time]
    flat = time.ravel()
    return [flat[index] for index in range(len(flat))]


def read_ids(file: str | Path, key: str = "observations.obs_file") -> list[int]:
    """Run numbers of a text file, each once: the first column of a table, or a plain list.

    Columns may be separated by blanks, commas, semicolons, tabs or bars, ``#`` starts a comment,
    and one line of names may stand above. What is laid out otherwise is left to astropy's reader.

    Raises
    ------
    ConfigError
        Naming the file, and the line with what is no whole number.
    """
    path = expand_path(file, key)
    if os.path.exists(path) and not os.path.isfile(path):
        raise ConfigError(f"{key}: {path}: cannot be read: not a file")
    try:
        with open(path, "rb") as handle:
            content = handle.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise ConfigError(f"{key}: {path}: cannot be read: {reason}") from None
    if len(content) > MAX_FILE:
        raise ConfigError(
            f"{key}: {path}: larger than {MAX_FILE // 1_000_000} MB; expected a list of "
            "observation numbers"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ConfigError(f"{key}: {path}: no text; expected a list of observation numbers")
    try:
        numbers = _first_column(text)
    except _NoNumberError as error:
        other = _astropy_column(text)
        if other is None:
            raise ConfigError(
                f"{key}: {path}, line {error.line}: {error.word[:40]!r} is no observation number; "
                "expected a whole number in the first column"
            ) from None
        numbers = other
    if not numbers:
        raise ConfigError(f"{key}: {path}: lists no observations; expected one a line")
    return list(dict.fromkeys(numbers))


class _NoNumberError(Exception):
    def __init__(self, line: int, word: str) -> None:
        super().__init__(word)
        self.line = line
        self.word = word


def _first_column(text: str) -> list[int]:
    numbers: list[int] = []
    heading = False
    for line, row in enumerate(text.splitlines(), start=1):
        row = row.partition("#")[0].strip()
        if not row.strip("=-+| \t"):
            continue  # empty, or a rule of a drawn table
        words = [word.strip().strip("\"'") for word in re.split(r"[,;|\s]+", row.strip("|,; \t"))]
        word = words[0] if words else ""
        if re.fullmatch(r"[-+]?\d{1,18}(\.0*)?", word):
            numbers.append(int(word.partition(".")[0]))
        elif not numbers and not heading and re.fullmatch(r"[A-Za-z_][\w.-]*", word):
            heading = True
        else:
            raise _NoNumberError(line, word)
    return numbers


def _astropy_column(text: str) -> list[int] | None:
    """First column of a table of any layout that astropy knows, None if it holds no numbers."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            column = Table.read(text.splitlines(), format="ascii").columns[0]
            values = np.asarray(column.filled(-1) if hasattr(column, "filled") else column)
    except Exception:  # a dozen readers, each with its own errors
        return None
    if values.dtype.kind not in "iu" or not len(values) or not column.name.isidentifier():
        return None  # a number as heading is a line that could not be read
    return [int(value) for value in values]


def _circle(cone: SkyCircle) -> tuple[SkyCoord, float] | None:
    """Centre and radius in degrees; None if no cone is set (a frame alone is none)."""
    names = ("frame", "lon", "lat", "radius")
    missing = [name for name in names if getattr(cone, name) is None]
    if len([name for name in missing if name != "frame"]) == 3:
        return None
    if missing:
        given = [name for name in names if name not in missing]
        raise ConfigError(
            f"{cone.path}.{missing[0]}: not set, but {', '.join(given)} "
            f"{'is' if len(given) == 1 else 'are'}; expected all of {', '.join(names)}"
        )
    centre = SkyCoord(cone.lon, cone.lat, frame=cone.frame)
    return centre.icrs, float(cone.radius.to_value("deg"))


def _within(
    store: DataStore,
    ids: list[int],
    cone: SkyCircle,
    circle: tuple[SkyCoord, float],
    steps: list[str],
) -> list[int]:
    """The runs that point into a circle: less than its radius away, as in Gammapy."""
    index = store.obs_index
    for name, column in (("RA_PNT", index.ra), ("DEC_PNT", index.dec)):
        if column is None:
            raise DataError(f"{index.path}: no column {name}, which {cone.path} needs")
    centre, radius = circle
    pointings = [index.pointing(obs_id) for obs_id in ids]
    unknown = [obs_id for obs_id, found in zip(ids, pointings, strict=True) if found is None]
    if unknown:
        log.warning(
            "%s: where these runs pointed is not in %s, so they are left out: %s",
            cone.path,
            index.path,
            ", ".join(map(str, unknown)),
        )
    positions = np.array([found or (np.nan, np.nan) for found in pointings])
    known = np.isfinite(positions[:, 0])
    distance = np.full(len(ids), np.inf)
    at = SkyCoord(positions[known, 0] * u.deg, positions[known, 1] * u.deg, frame="icrs")
    distance[known] = centre.separation(at).deg
    kept = [obs_id for obs_id, d in zip(ids, distance, strict=True) if d < radius]
    steps.append(f"{len(kept)} by {cone.path}")
    if not kept:
        nearest = int(np.argmin(distance))
        hint = (
            f"; the nearest, {ids[nearest]}, points {distance[nearest]:.3g} deg from its centre"
            if known.any()
            else ""
        )
        raise ConfigError(
            f"{cone.path}: no run is left: {', '.join(steps)} (radius {radius:g} deg){hint}"
        )
    return kept
