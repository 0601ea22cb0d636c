"""Reading of instrument responses: one table says which class reads which HDU.

The class of an HDU is the one that the HDU index names, because headers of real files are not to
be trusted with it. To add a format, append its reader to `READERS`.
"""

from __future__ import annotations

import gzip
import logging
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyWarning

from ..errors import DataError
from .aeff import EffectiveAreaTable2D
from .axis import FloatArray, IrfAxis
from .background import Background3D
from .edisp import EnergyDispersion2D
from .psf import MultiGaussPSF

log = logging.getLogger(__name__)

Irf = EffectiveAreaTable2D | EnergyDispersion2D | MultiGaussPSF | Background3D

FITS_ERRORS = (OSError, ValueError, TypeError, KeyError, IndexError, EOFError, VerifyWarning)


@dataclass(frozen=True, eq=False)
class IrfTable:
    """One row of arrays of a response HDU, with the words for its errors."""

    where: str
    row: Any
    columns: fits.ColDefs
    header: fits.Header

    def column(self, *names: str) -> FloatArray:
        """The first of some columns that is there."""
        for name in names:
            if name in self.columns.names:
                return np.asarray(self.row[name])
        raise DataError(
            f"{self.where}: no column {' or '.join(names)}; "
            f"there are {', '.join(self.columns.names)}"
        )

    def unit(self, name: str) -> str:
        return self.columns[name].unit or ""

    def values(self, name: str, unit: str) -> FloatArray:
        """A column in a unit, double precision."""
        values = self.column(name).astype(float)
        found = self.unit(name)
        if not found or found == unit:
            return values
        try:
            return np.asarray(u.Quantity(values, found).to_value(unit))
        except (ValueError, TypeError) as error:
            raise DataError(
                f"{self.where}: column {name} has unit {found!r}, expected one like {unit!r}"
            ) from error

    def axis(self, name: str, column: str, unit: str, log: bool = False) -> IrfAxis:
        try:
            return IrfAxis.from_bounds(
                name, self.values(f"{column}_LO", unit), self.values(f"{column}_HI", unit), log
            )
        except DataError as error:
            text = str(error)
            raise DataError(
                text if text.startswith(self.where) else f"{self.where}: {text}"
            ) from error

    def cube(self, name: str, *axes: IrfAxis) -> np.ndarray:
        """A data column with axes in the given order (files hold them reversed)."""
        data = self.column(name)
        shape = tuple(len(axis.nodes) for axis in axes)
        if data.shape == shape[::-1]:
            return data.T
        if data.shape == shape:
            return data
        raise DataError(
            f"{self.where}: column {name} has shape {data.shape}, expected {shape[::-1]}"
        )


def _read_aeff(table: IrfTable) -> EffectiveAreaTable2D:
    energy = table.axis("energy_true", "ENERG", "TeV", log=True)
    offset = table.axis("offset", "THETA", "deg")
    area = np.nan_to_num(table.cube("EFFAREA", energy, offset).astype(float))
    unit = table.unit("EFFAREA") or "m2"
    return EffectiveAreaTable2D(energy, offset, area * _factor(table, "EFFAREA", unit, "m2"))


def _read_edisp(table: IrfTable) -> EnergyDispersion2D:
    prefix = "ETRUE" if "ETRUE_LO" in table.columns.names else "ENERG"
    energy = table.axis("energy_true", prefix, "TeV", log=True)
    migra = table.axis("migra", "MIGRA", "")
    offset = table.axis("offset", "THETA", "deg")
    matrix = table.cube("MATRIX", energy, migra, offset)
    native = np.ascontiguousarray(matrix, dtype=matrix.dtype.newbyteorder("="))
    return EnergyDispersion2D(energy, migra, offset, native)


def _read_psf_3gauss(table: IrfTable) -> MultiGaussPSF:
    energy = table.axis("energy_true", "ENERG", "TeV", log=True)
    offset = table.axis("offset", "THETA", "deg")
    sigma = np.stack(
        [
            table.cube(f"SIGMA_{i}", energy, offset).astype(float)
            * _factor(table, f"SIGMA_{i}", table.unit(f"SIGMA_{i}") or "deg", "deg")
            for i in (1, 2, 3)
        ]
    )
    amplitude = np.ones_like(sigma)
    for i in (2, 3):
        amplitude[i - 1] = table.cube(f"AMPL_{i}", energy, offset)
    return MultiGaussPSF(energy, offset, np.nan_to_num(amplitude), np.nan_to_num(sigma))


def _read_bkg_3d(table: IrfTable) -> Background3D:
    energy = table.axis("energy", "ENERG", "TeV", log=True)
    fov_lon = table.axis("fov_lon", "DETX", "deg")
    fov_lat = table.axis("fov_lat", "DETY", "deg")
    name = "BKG" if "BKG" in table.columns.names else "BGD"
    rate = table.cube(name, energy, fov_lon, fov_lat).astype(float)
    unit = table.unit(name)
    alignment = str(table.header.get("FOVALIGN", "RADEC")).strip().upper()
    if alignment != "RADEC":
        raise DataError(
            f"{table.where}: FOVALIGN {alignment!r} is not supported yet; supported: 'RADEC'"
        )
    if unit.replace(" ", "") not in ("", *_CHAINED_UNITS):
        factor = _factor(table, name, unit, "s-1 MeV-1 sr-1")
    else:
        log.warning(
            "%s: unit %r of %s cannot be read; taking s-1 MeV-1 sr-1", table.where, unit, name
        )
        factor = 1.0
    return Background3D(energy, fov_lon, fov_lat, rate * factor)


# What CTA's first data challenge writes: a chain of divisions, which the standard leaves open.
_CHAINED_UNITS = ("1/s/MeV/sr", "s^-1/MeV/sr")

READERS: dict[str, Callable[[IrfTable], Irf]] = {
    "aeff_2d": _read_aeff,
    "edisp_2d": _read_edisp,
    "psf_3gauss": _read_psf_3gauss,
    "bkg_3d": _read_bkg_3d,
}


def _factor(table: IrfTable, name: str, unit: str, expected: str) -> float:
    try:
        return float(u.Unit(unit).to(expected))
    except ValueError as error:
        raise DataError(
            f"{table.where}: column {name} has unit {unit!r}, expected one like {expected!r}"
        ) from error


def open_fits(path: Path) -> fits.HDUList:
    """Open a FITS file read-only, with one clear error when it cannot be."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        return fits.open(path, memmap=False, lazy_load_hdus=True)
    except FITS_ERRORS as error:
        raise DataError(f"{path}: not a FITS file, or a damaged one") from error


def find_hdu(hdus: fits.HDUList, path: Path, name: str) -> Any:
    """An HDU by its name, whatever its case; reads no further than it."""
    seen: list[str] = []
    with suppress(*FITS_ERRORS):
        # Until there is no further HDU, which is an IndexError.
        while True:
            hdu = hdus[len(seen)]
            if hdu.name.upper() == name.strip().upper():
                return hdu
            seen.append(hdu.name or "PRIMARY")
    refuse_truncated(path)
    raise DataError(f"{path}: no HDU {name!r}; there are {', '.join(seen)}")


def refuse_truncated(path: Path) -> None:
    """DataError if a file cannot be read to its end (FITS comes in blocks of 2880 bytes)."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            size = 0
            while block := file.read(1 << 20):
                size += len(block)
    except (OSError, EOFError, zlib.error):
        size = -1
    if size % 2880:
        raise DataError(f"{path}: cannot be read to its end; the file is truncated")


def read_irf(path: Path, hdu_name: str, hdu_class: str) -> Irf:
    """Read one instrument response.

    Parameters
    ----------
    path : Path
    hdu_name, hdu_class : str
        As the HDU index gives them.

    Raises
    ------
    DataError
        Naming file, HDU and column.
    """
    where = f"{path} [{hdu_name}]"
    reader = READERS.get(hdu_class.strip().lower())
    if reader is None:
        raise DataError(
            f"{where}: responses of class {hdu_class!r} are not supported yet; "
            f"supported: {', '.join(READERS)}"
        )
    with open_fits(path) as hdus:
        hdu = find_hdu(hdus, path, hdu_name)
        try:
            columns, row = hdu.columns, hdu.data[0]
        except (*FITS_ERRORS, AttributeError) as error:
            refuse_truncated(path)
            raise DataError(f"{where}: cannot be read; the file is damaged") from error
        if str(hdu.header.get("HDUCLAS3", "")).strip().upper() == "POINT-LIKE":
            raise DataError(
                f"{where}: is a point-like response (HDUCLAS3), from which no image can be made"
            )
        return reader(IrfTable(where, row, columns, hdu.header))
