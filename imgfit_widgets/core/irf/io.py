"""Reading of instrument responses: one table says which class reads which HDU.

The class of an HDU is the one that the HDU index names, because headers of real files are not to
be trusted with it. To add a format, append its reader to `READERS`.
"""

from __future__ import annotations

import gzip
import logging
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyWarning

from ..errors import DataError
from ..tables import FileCache, Row, read_row, unit_factor
from .aeff import EffectiveAreaTable2D
from .axis import FloatArray, IrfAxis
from .background import Background2D, Background3D
from .edisp import EnergyDispersion2D
from .fov import ALIGNMENTS
from .psf import KingPSF, MultiGaussPSF, TablePSF

log = logging.getLogger(__name__)

PSF = MultiGaussPSF | KingPSF | TablePSF
Background = Background2D | Background3D
Irf = EffectiveAreaTable2D | EnergyDispersion2D | PSF | Background

FITS_ERRORS = (OSError, ValueError, TypeError, KeyError, IndexError, EOFError, VerifyWarning)


@dataclass(frozen=True, eq=False)
class IrfTable:
    """One row of arrays of a response HDU, with the words for its errors."""

    row: Row

    @property
    def where(self) -> str:
        return self.row.where

    @property
    def names(self) -> list[str]:
        return list(self.row.columns)

    def column(self, *names: str) -> np.ndarray:
        """The first of some columns that is there."""
        for name in names:
            if name in self.row.columns:
                return self.row.columns[name]
        raise DataError(
            f"{self.where}: no column {' or '.join(names)} with numbers; "
            f"there are {', '.join(self.names) or 'none'}"
        )

    def unit(self, name: str) -> str:
        return self.row.units[name]

    def values(self, name: str, unit: str) -> FloatArray:
        """A column in a unit, double precision."""
        values = self.column(name).astype(float)
        factor = _factor(self, name, self.unit(name) or unit, unit)
        return values if factor == 1.0 else values * factor

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
        if name in _POSITIVE and not (data > 0).any():
            raise DataError(f"{self.where}: column {name} holds no number above 0")
        shape = tuple(len(axis.nodes) for axis in axes)
        if data.shape == shape[::-1]:
            return data.T
        if data.shape == shape:
            return data
        if data.ndim == 1 and data.size == math.prod(shape):  # without TDIM
            return data.reshape(shape[::-1]).T
        raise DataError(
            f"{self.where}: column {name} has shape {data.shape}, expected {shape[::-1]}"
        )


_POSITIVE = {"EFFAREA", "MATRIX", "SIGMA_1", "SIGMA1", "SIGMA", "GAMMA", "RPSF"}
"""Columns without which a response is none. A background may be 0."""


def _read_aeff(table: IrfTable) -> EffectiveAreaTable2D:
    energy = table.axis("energy_true", "ENERG", "TeV", log=True)
    offset = table.axis("offset", "THETA", "deg")
    area = np.nan_to_num(table.cube("EFFAREA", energy, offset).astype(float))
    unit = table.unit("EFFAREA") or "m2"
    area = area * _factor(table, "EFFAREA", unit, "m2")
    limits = (_threshold(table, key) for key in ("LO_THRES", "HI_THRES"))
    return EffectiveAreaTable2D(energy, offset, area, *limits)


def _threshold(table: IrfTable, key: str) -> float | None:
    """A safe energy of the header in TeV; None where it is missing or 0."""
    number = table.row.keywords.number(key, "TeV")
    if number is not None and number < 0:
        raise DataError(f"{table.where}: keyword {key} is {number:g}; expected an energy in TeV")
    return number or None


def _read_edisp(table: IrfTable) -> EnergyDispersion2D:
    prefix = "ETRUE" if "ETRUE_LO" in table.names else "ENERG"
    energy = table.axis("energy_true", prefix, "TeV", log=True)
    migra = table.axis("migra", "MIGRA", "")
    offset = table.axis("offset", "THETA", "deg")
    matrix = table.cube("MATRIX", energy, migra, offset)
    native = np.ascontiguousarray(matrix, dtype=matrix.dtype.newbyteorder("="))
    return EnergyDispersion2D(energy, migra, offset, native)


def _read_psf_gauss(table: IrfTable) -> MultiGaussPSF:
    """PSF_3GAUSS, and what has fewer components."""
    energy = table.axis("energy_true", "ENERG", "TeV", log=True)
    offset = table.axis("offset", "THETA", "deg")
    sigma, amplitude = [], []
    for i in (1, 2, 3):
        name = next((n for n in (f"SIGMA_{i}", f"SIGMA{i}") if n in table.names), None)
        if name is None and i == 1 and "SIGMA" in table.names:
            name = "SIGMA"
        if name is None and i > 1:
            continue
        name = name or "SIGMA_1"  # whose absence is an error
        values = table.cube(name, energy, offset).astype(float)
        sigma.append(values * _factor(table, name, table.unit(name) or "deg", "deg"))
        height = np.ones_like(values)
        if i > 1:
            height = table.cube(f"AMPL_{i}", energy, offset).astype(float)
        amplitude.append(height)
    return MultiGaussPSF(
        energy, offset, np.nan_to_num(np.stack(amplitude)), np.nan_to_num(np.stack(sigma))
    )


def _read_psf_king(table: IrfTable) -> KingPSF:
    energy = table.axis("energy_true", "ENERG", "TeV", log=True)
    offset = table.axis("offset", "THETA", "deg")
    sigma = table.cube("SIGMA", energy, offset).astype(float)
    sigma = sigma * _factor(table, "SIGMA", table.unit("SIGMA") or "deg", "deg")
    gamma = table.cube("GAMMA", energy, offset).astype(float)
    return KingPSF(energy, offset, np.nan_to_num(sigma), np.nan_to_num(gamma))


def _read_psf_table(table: IrfTable) -> TablePSF:
    energy = table.axis("energy_true", "ENERG", "TeV", log=True)
    offset = table.axis("offset", "THETA", "deg")
    rad = table.axis("rad", "RAD", "deg")
    edges = rad.bounds
    if len(edges) == len(rad.nodes):  # nodes: edges half-way between them
        middle = 0.5 * (edges[1:] + edges[:-1])
        edges = np.concatenate([[max(2 * edges[0] - middle[0], 0.0)], middle, [edges[-1]]])
    if edges[0] < 0:
        raise DataError(f"{table.where}: column RAD_LO starts at {edges[0]:g} deg, expected 0")
    values = table.cube("RPSF", energy, offset, rad)
    return TablePSF(energy, offset, np.ascontiguousarray(edges, dtype=float), values)


def _read_bkg_3d(table: IrfTable) -> Background3D:
    energy = table.axis("energy", "ENERG", "TeV", log=True)
    fov_lon = table.axis("fov_lon", "DETX", "deg")
    fov_lat = table.axis("fov_lat", "DETY", "deg")
    alignment = table.row.keywords.text_of("FOVALIGN", "RADEC").upper()
    if alignment not in ALIGNMENTS:
        raise DataError(
            f"{table.where}: FOVALIGN is {alignment!r}, expected one of {', '.join(ALIGNMENTS)}"
        )
    rate = _rate(table, energy, fov_lon, fov_lat)
    return Background3D(energy, fov_lon, fov_lat, rate, alignment)


def _read_bkg_2d(table: IrfTable) -> Background2D:
    energy = table.axis("energy", "ENERG", "TeV", log=True)
    offset = table.axis("offset", "THETA", "deg")
    return Background2D(energy, offset, _rate(table, energy, offset))


def _rate(table: IrfTable, *axes: IrfAxis) -> FloatArray:
    """The rate of a background table in s-1 MeV-1 sr-1."""
    name = "BGD" if "BGD" in table.names and "BKG" not in table.names else "BKG"
    rate = table.cube(name, *axes).astype(float)
    if not (rate >= 0).any():
        raise DataError(f"{table.where}: column {name} holds no number from 0 up")
    unit = table.unit(name)
    if unit.replace(" ", "") not in ("", *_CHAINED_UNITS):
        return rate * _factor(table, name, unit, "s-1 MeV-1 sr-1")
    log.warning("%s: unit %r of %s cannot be read; taking s-1 MeV-1 sr-1", table.where, unit, name)
    return rate


# What CTA's first data challenge writes: a chain of divisions, which the standard leaves open.
_CHAINED_UNITS = ("1/s/MeV/sr", "s^-1/MeV/sr")

READERS: dict[str, Callable[[IrfTable], Irf]] = {
    "aeff_2d": _read_aeff,
    "edisp_2d": _read_edisp,
    "psf_3gauss": _read_psf_gauss,
    "psf_gauss": _read_psf_gauss,
    "psf_king": _read_psf_king,
    "psf_table": _read_psf_table,
    "bkg_2d": _read_bkg_2d,
    "bkg_3d": _read_bkg_3d,
}


def _factor(table: IrfTable, name: str, unit: str, expected: str) -> float:
    factor = unit_factor(unit, expected)
    if factor is None:
        raise DataError(
            f"{table.where}: column {name} has unit {unit!r}, expected one like {expected!r}"
        )
    return factor


def open_fits(path: Path) -> fits.HDUList:
    """Open a FITS file read-only, with one clear error when it cannot be."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    # Opened here, since astropy leaves a file open whose first header it cannot read.
    file = open(path, "rb")  # noqa: SIM115  closed with the HDUs
    try:
        return fits.open(file, memmap=False, lazy_load_hdus=True)
    except BaseException as error:
        file.close()
        if not isinstance(error, FITS_ERRORS):
            raise
        raise DataError(f"{path}: not a FITS file, or a damaged one") from error


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


def read_irf(path: Path, hdu_name: str, hdu_class: str, files: FileCache | None = None) -> Irf:
    """Read one instrument response.

    Parameters
    ----------
    path : Path
    hdu_name, hdu_class : str
        As the HDU index gives them.
    files : `FileCache`, optional
        Unpacked files to look into first.

    Raises
    ------
    DataError
        Naming file, HDU and column.
    """
    where = f"{path} [{hdu_name}]"
    reader = READERS.get(hdu_class.strip().lower())
    if reader is None:
        raise DataError(
            f"{where}: responses of class {hdu_class!r} cannot be read; expected one of "
            f"{', '.join(READERS)}"
        )
    row = read_row(path, hdu_name, files)
    if row.keywords.text_of("HDUCLAS3").upper() == "POINT-LIKE":
        raise DataError(
            f"{where}: is a point-like response (HDUCLAS3), which tells of one direction only; "
            "images need full-enclosure responses"
        )
    try:
        # A damaged number (a signalling NaN, one too large) may warn before it is looked at.
        with np.errstate(invalid="ignore", over="ignore"):
            return reader(IrfTable(row))
    except DataError as error:
        text = str(error)
        raise DataError(text if text.startswith(where) else f"{where}: {text}") from error
