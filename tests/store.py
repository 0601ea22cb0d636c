"""Small DL3 stores of made-up runs, for tests of what is read from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from imgfit_widgets.core.data import DataStore

KINDS = {
    "events": "events", "gti": "gti", "aeff": "aeff_2d", "edisp": "edisp_2d", "psf": "psf_3gauss",
    "bkg": "bkg_3d",
}  # fmt: skip
REFERENCE = {"MJDREFI": 51544, "MJDREFF": 0.5, "TIMESYS": "TT", "TIMEUNIT": "s"}


def table(name: str, columns: Sequence[tuple[Any, ...]], header: dict[str, Any]) -> Any:
    """A table HDU of (name, format, unit, values); a header value None leaves the keyword out."""
    hdu = fits.BinTableHDU.from_columns(
        [fits.Column(n, form, unit or None, array=v) for n, form, unit, v in columns], name=name
    )
    hdu.header.update({key: value for key, value in header.items() if value is not None})
    return hdu


@dataclass
class Run:
    """One run: by default 20 events, one every 100 s from 50 s on, in 2000 s of good time."""

    time: Any = field(default_factory=lambda: 50.0 + 100.0 * np.arange(20))
    gti: Sequence[tuple[float, float]] = ((0.0, 2000.0),)
    header: dict[str, Any] = field(default_factory=dict)
    gti_header: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, tuple[Any, ...] | None] = field(default_factory=dict)
    time_unit: str | None = "s"
    extra: Sequence[Any] = ()
    pointing: tuple[float, float] = (83.6, 22.0)

    def hdus(self) -> fits.HDUList:
        n = len(self.time)
        header = {
            **REFERENCE, "RA_PNT": self.pointing[0], "DEC_PNT": self.pointing[1], "DEADC": 0.9,
            "TELESCOP": "TEST", "GEOLON": 16.5, "GEOLAT": -23.3, "ALTITUDE": 1835.0, **self.header,
        }  # fmt: skip
        columns: dict[str, tuple[Any, ...] | None] = {
            "EVENT_ID": ("K", None, np.arange(n)),
            "TIME": ("D", self.time_unit, np.asarray(self.time, dtype=float)),
            "RA": ("E", "deg", np.linspace(83.0, 84.0, n)),
            "DEC": ("E", "deg", np.linspace(21.5, 22.5, n)),
            "ENERGY": ("E", "TeV", np.geomspace(0.5, 20.0, n) if n else np.zeros(0)),
            **self.columns,
        }
        kept = [(name, *c) for name, c in columns.items() if c is not None]
        bounds = np.array(self.gti, dtype=float).reshape(-1, 2)
        intervals = [
            (name, "D", self.time_unit, bounds[:, i]) for i, name in enumerate(("START", "STOP"))
        ]
        return fits.HDUList(
            [
                fits.PrimaryHDU(),
                table("EVENTS", kept, header),
                table("GTI", intervals, {**REFERENCE, **self.gti_header}),
                *self.extra,
            ]
        )


def write_store(folder: Path, runs: dict[int, Run], kinds: dict[str, str] = KINDS) -> Path:
    """Write runs, each in a file of its own with all its HDUs, and the two index files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, run in runs.items():
        run.hdus().writeto(folder / f"run_{number}.fits", overwrite=True)
    rows = [
        (number, kind, hdu_class, "", f"run_{number}.fits", kind.upper())
        for number in runs
        for kind, hdu_class in kinds.items()
    ]
    write_hdu_index(folder, rows)
    write_obs_index(folder, [(number, *run.pointing) for number, run in runs.items()])
    return folder


def write_hdu_index(folder: Path, rows: Sequence[tuple[Any, ...]], id_format: str = "K") -> None:
    """Write hdu-index.fits.gz from rows (OBS_ID, HDU_TYPE, HDU_CLASS, FILE_DIR, FILE_NAME, …)."""
    names = ("HDU_TYPE", "HDU_CLASS", "FILE_DIR", "FILE_NAME", "HDU_NAME")
    columns = [("OBS_ID", id_format, None, np.array([row[0] for row in rows]))]
    for number, name in enumerate(names, start=1):
        columns.append((name, "200A", None, np.array([row[number] for row in rows], dtype="S200")))
    hdu = table("HDU_INDEX", columns, {"HDUCLAS1": "INDEX"})
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(folder / "hdu-index.fits.gz", overwrite=True)


def write_obs_index(folder: Path, rows: Sequence[tuple[Any, ...]], id_format: str = "K") -> None:
    """Write obs-index.fits.gz from rows (OBS_ID, RA_PNT, DEC_PNT)."""
    columns = [
        (name, form, unit, np.array([row[i] for row in rows]))
        for i, (name, form, unit) in enumerate(
            [("OBS_ID", id_format, None), ("RA_PNT", "D", "deg"), ("DEC_PNT", "D", "deg")]
        )
    ]
    hdu = table("OBS_INDEX", columns, REFERENCE)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(folder / "obs-index.fits.gz", overwrite=True)


def one(folder: Path, run: Run, **options: Any) -> Any:
    """The only observation of a store of one run."""
    return DataStore.from_dir(write_store(folder, {1: run})).obs(1, **options)
