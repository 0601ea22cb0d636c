"""Maps in FITS files, whoever wrote them: an HDU with its sky coordinates and its energy table.

`opened`
    A FITS file, for a while; every fault of it as one error.
`read_map`
    One HDU as a `FileMap`: images of any celestial projection, cubes with the tables of axes that
    Gammapy (``BANDS``), Fermi's tools and ctools (``EBOUNDS``, ``ENERGIES``) write, and Gammapy's
    region maps.
`read_first`, `read_geom`
    The image of a file that holds one, or only its pixels.
`FileMap`
    What the file holds, in double precision, energies in TeV and angles in degrees.

An axis is given by edges or by nodes. Nodes become bins whose edges lie half-way (in the logarithm
for an energy), so that both are integrated alike; the nodes are kept beside.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning, AstropyWarning
from astropy.wcs import WCS, WCSSUB_LATITUDE, WCSSUB_LONGITUDE, FITSFixedWarning
from numpy.typing import NDArray

from .errors import DataError
from .irf.io import refuse_truncated
from .maps import Axes, MapAxis, WcsGeom, WcsNDMap
from .paths import expand_path

FloatArray = NDArray[np.float64]

# Larger numbers are no physics: a damaged file, or a value that stands for "undefined".
LARGEST = 1e35

_NAMES = {"E": "energy", "ENERGY": "energy", "THETA": "rad"}
_UNITS = {"energy": "TeV", "energy_true": "TeV", "rad": "deg", "migra": ""}
_LOG_AXES = ("energy", "energy_true")


@dataclass(frozen=True, eq=False)
class FileMap:
    """A map as its file has it.

    Parameters
    ----------
    where : str
        File and HDU, for messages.
    image : `WcsGeom` or None
        The pixels; None for one value that holds everywhere (a region map).
    axes : `Axes`
        Further axes, the outermost first; energies in TeV, angles in degrees.
    nodes : dict of ndarray
        For each axis the values at which the data stand: its nodes, or the centres of its bins.
    data : ndarray, shape (axes..., ny, nx); ny = nx = 1 for a region
    unit : str
        As in the file (BUNIT).
    header : `~astropy.io.fits.Header`
    """

    where: str
    image: WcsGeom | None
    axes: Axes
    nodes: dict[str, FloatArray]
    data: FloatArray
    unit: str
    header: fits.Header

    def ordered(self, *names: str) -> FloatArray:
        """The data with its axes in the order of some names, all of them.

        Raises
        ------
        DataError
            If the map has other axes.
        """
        if sorted(self.axes.names) != sorted(names):
            raise DataError(
                f"{self.where}: its axes are {', '.join(self.axes.names) or 'none'}; "
                f"expected {', '.join(names)}"
            )
        order = [self.axes.names.index(name) for name in names]
        return np.transpose(self.data, (*order, len(order), len(order) + 1))

    def to(self, unit: str) -> FileMap:
        """The map in a unit; DataError if it has no such unit."""
        try:
            factor = float(u.Unit(self.unit).to(unit))
        except (ValueError, TypeError) as error:
            raise DataError(
                f"{self.where}: its unit (BUNIT) is {self.unit!r}, expected one like {unit!r}"
            ) from error
        if factor == 1.0:
            return self
        return FileMap(
            self.where, self.image, self.axes, self.nodes, self.data * factor, unit, self.header
        )

    def to_map(self) -> WcsNDMap:
        """The map on its pixels."""
        if self.image is None:
            raise DataError(f"{self.where}: is a region, not an image; expected pixels on the sky")
        return WcsNDMap(self.image.to_cube(self.axes), self.data, self.unit)


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Put file and HDU before the text of an error that does not name them."""
    try:
        yield
    except DataError as error:
        if where.split(" [")[0] in str(error):
            raise
        raise DataError(f"{where}: {error}") from error


_FITS, _GZIP = b"SIMPLE", b"\x1f\x8b"


@contextmanager
def opened(path: Path, strict: bool = True) -> Iterator[fits.HDUList]:
    """The HDUs of a FITS file; whatever is wrong with it, there or in the block, is one DataError.

    Parameters
    ----------
    path : Path
    strict : bool
        Whether a header that bends the standard is an error too.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a FITS file")
    with path.open("rb") as file:
        if not file.read(len(_FITS)).startswith((_FITS, _GZIP)):
            raise DataError(f"{path}: is no FITS file; expected one, which begins with SIMPLE")
    if path.suffix == ".gz":
        # Else the HDUs before a cut would be taken for the whole file.
        refuse_truncated(path)
    with warnings.catch_warnings():
        if strict:
            warnings.simplefilter("error", AstropyUserWarning)
            warnings.simplefilter("ignore", FITSFixedWarning)
        else:
            warnings.simplefilter("ignore", AstropyWarning)
            warnings.filterwarnings("error", message=".*truncated.*")
        try:
            # A file of one's own, since astropy leaves open what it cannot read.
            with path.open("rb") as file, fits.open(file, memmap=False) as hdus:
                yield hdus
        except DataError:
            raise
        except Exception as error:
            # A damaged header surfaces as any exception of astropy's, from any attribute.
            refuse_truncated(path)
            text = str(error).strip().split("\n")[0] or type(error).__name__
            raise DataError(f"{path}: cannot be read ({text})") from error


def hdu_names(hdus: fits.HDUList) -> list[str]:
    """The names of the HDUs, upper case."""
    return [str(hdu.name).upper() for hdu in hdus]


def is_image(hdu: Any) -> bool:
    """Whether an HDU holds an image of two or more axes."""
    return not isinstance(hdu, fits.BinTableHDU | fits.TableHDU) and hdu.header.get("NAXIS", 0) >= 2


def read_map(
    hdus: fits.HDUList,
    path: str | Path,
    key: str | int,
    energy: MapAxis | None = None,
) -> FileMap:
    """Read one map.

    Parameters
    ----------
    hdus : `~astropy.io.fits.HDUList`
    path : path
        For messages.
    key : str or int
        Name or number of the HDU.
    energy : `MapAxis`, optional
        What the planes are, instead of what the file says.

    Raises
    ------
    DataError
        Naming file, HDU, keyword or column, what was found and what was expected.
    """
    hdu = hdus[key]
    where = f"{path} [{hdu.name or key}]"
    header = hdu.header
    if isinstance(hdu, fits.BinTableHDU | fits.TableHDU):
        return _read_region(hdus, hdu, where)
    if header.get("NAXIS", 0) < 2 or hdu.data is None:
        raise DataError(f"{where}: holds no image")
    data = np.asarray(hdu.data, dtype=np.float64)
    wcs, swapped = read_wcs(header, where)
    if swapped:
        data = np.swapaxes(data, -1, -2)
    shape = data.shape[-2:]
    if energy is not None:
        axes, nodes = Axes([energy]), {energy.name: energy.centers}
    else:
        axes, nodes = _axes_of(hdus, hdu, where)
    expected = tuple(axis.nbin for axis in axes)
    planes = data.shape[:-2]
    if planes != expected:
        # Axes of length 1 (Stokes, frequency, one energy) say nothing.
        if [n for n in planes if n > 1] != [n for n in expected if n > 1]:
            raise DataError(
                f"{where}: has planes {planes}, but its axes say {expected}"
                + ("" if len(axes) else "; no table of energies (BANDS, EBOUNDS, ENERGIES) found")
            )
        data = data.reshape(*expected, *shape)
    geom = WcsGeom(wcs, (shape[0], shape[1]))
    return FileMap(where, geom, axes, nodes, data, _unit_of(header), header)


def _unit_of(header: fits.Header) -> str:
    return str(header.get("BUNIT", "") or "").strip()


def read_first(path: Path, hdu: str | int | None = None) -> FileMap:
    """The first image of a file, or the one in an HDU.

    Raises
    ------
    DataError
        If there is none, or it has no sky coordinates.
    """
    with opened(path) as hdus:
        if hdu is None:
            found = [number for number, each in enumerate(hdus) if is_image(each)]
            if not found:
                raise DataError(f"{path}: holds no image; expected one with sky coordinates")
            hdu = found[0]
        elif not (hdu < len(hdus) if isinstance(hdu, int) else hdu.upper() in hdu_names(hdus)):
            names = ", ".join(name or "unnamed" for name in hdu_names(hdus))
            raise DataError(f"{path}: no HDU {hdu!r}; there are {names}")
        return read_map(hdus, path, hdu)


def read_geom(path: str | os.PathLike[str], hdu: str | int | None = None) -> WcsGeom:
    """The pixels of an image in a FITS file, without its further axes.

    Parameters
    ----------
    path : path
    hdu : str or int, optional
        By default the first HDU that holds an image.

    Raises
    ------
    DataError
        If there is no image with a celestial WCS.
    """
    source = expand_path(path, "geometry")
    image = read_first(source, hdu).image
    if image is None:
        raise DataError(f"{source}: is a region, not an image; expected pixels on the sky")
    return image


def read_wcs(header: fits.Header, where: str) -> tuple[WCS, bool]:
    """The celestial coordinates of an image, and whether latitude runs along x.

    ICRS, FK5 of equinox 2000 (which differs from it by less than 0.1 arcsec) and galactic
    coordinates.
    """
    wcs = WCS(header, naxis=2)
    kinds = [str(kind) for kind in wcs.wcs.ctype]
    if not wcs.has_celestial:
        raise DataError(
            f"{where}: has no sky coordinates (CTYPE1 {kinds[0]!r}, CTYPE2 {kinds[1]!r}); expected "
            "ones like 'GLON-CAR', 'GLAT-CAR' or 'RA---TAN', 'DEC--TAN'"
        )
    if wcs.sip is not None or wcs.cpdis1 is not None or wcs.det2im1 is not None:
        raise DataError(f"{where}: its coordinates are distorted (SIP or a table); reproject it")
    swapped = bool(wcs.wcs.lng == 1)
    wcs = wcs.sub([WCSSUB_LONGITUDE, WCSSUB_LATITUDE])
    geom = WcsGeom(wcs, (1, 1))
    with naming(where):
        frame = geom.frame
    if frame == "icrs":
        system = str(wcs.wcs.radesys).strip().upper()
        equinox = float(wcs.wcs.equinox)
        old = np.isfinite(equinox) and equinox != 2000.0 and system != "ICRS"
        if system not in ("", "ICRS", "FK5") or old:
            raise DataError(
                f"{where}: its equatorial system is {system or 'not named'}"
                f"{f' of equinox {equinox:g}' if old else ''}; expected ICRS or FK5 of 2000"
            )
    if not np.all(np.isfinite(wcs.pixel_scale_matrix)) or not abs(
        np.linalg.det(wcs.pixel_scale_matrix)
    ):
        raise DataError(f"{where}: its pixels have no size (CDELT or CD); expected degrees")
    return wcs, swapped


def _read_region(hdus: fits.HDUList, hdu: Any, where: str) -> FileMap:
    """A table: Gammapy's map of one region; others are refused by name."""
    header, names = hdu.header, [name.upper() for name in hdu.columns.names]
    if str(header.get("PIXTYPE", "")).strip().upper() == "HEALPIX":
        raise DataError(
            f"{where}: is a HEALPix map, which is not supported; interpolate it to a WCS map "
            "(in Gammapy: interp_to_geom)"
        )
    if str(header.get("INDXSCHM", "")).strip().upper() == "SPARSE" or "PIX" in names:
        raise DataError(
            f"{where}: is a sparse map, which is not supported; write it with sparse=False"
        )
    if "DATA" not in names:
        raise DataError(f"{where}: is a table without a column DATA; expected an image")
    axes, nodes = _axes_of(hdus, hdu, where)
    values = np.asarray(hdu.data["DATA"], dtype=np.float64)
    expected = tuple(axis.nbin for axis in axes)
    if values.size != int(np.prod(expected)):
        raise DataError(f"{where}: has {values.size} values, but its axes say {expected}")
    unit = hdu.columns["DATA"].unit or ""
    return FileMap(where, None, axes, nodes, values.reshape(*expected, 1, 1), unit, header)


# Axes


def _axes_of(hdus: fits.HDUList, hdu: Any, where: str) -> tuple[Axes, dict[str, FloatArray]]:
    """Axes of a map, outermost first, from the table that belongs to it."""
    names = hdu_names(hdus)
    path = where.split(" [")[0]
    listed = hdu.header.get("BANDSHDU")
    name = hdu.name.upper()
    wanted = [str(listed).strip().upper()] if listed else []
    wanted += [f"{name}_BANDS"] if name else []
    if name in ("", "PRIMARY", "SKYMAP") or hdu is hdus[0]:
        wanted.append("BANDS")
    for table in wanted:
        if table in names:
            return _bands(hdus[table], f"{path} [{table}]", name == "EXPOSURE")
    if listed:
        raise DataError(f"{where}: its table of axes (BANDSHDU) {listed!r} is not in the file")
    planes = hdu.header.get("NAXIS3", 1) if is_image(hdu) else 1
    for table, reader in (("EBOUNDS", _ebounds), ("ENERGIES", _energies)):
        if table in names:
            axis, nodes = reader(hdus[table], f"{path} [{table}]")
            # A list of one energy, or of bins for another map of the file, says nothing here.
            if axis.nbin == planes:
                return Axes([axis]), {axis.name: nodes}
    return Axes(), {}


def _bands(hdu: fits.BinTableHDU, where: str, is_true: bool) -> tuple[Axes, dict[str, FloatArray]]:
    """The axes of a BANDS table; its columns are named by AXCOLS1, AXCOLS2 ..., innermost first."""
    header, columns = hdu.header, hdu.columns.names
    axes: list[MapAxis] = []
    nodes: dict[str, FloatArray] = {}
    number = 1
    while f"AXCOLS{number}" in header:
        keys = [key.strip() for key in str(header[f"AXCOLS{number}"]).split(",")]
        missing = [key for key in keys if key not in columns]
        if missing or len(keys) > 2:
            raise DataError(
                f"{where}: AXCOLS{number} names {', '.join(keys)}; the table has the columns "
                f"{', '.join(columns)}"
            )
        stem = keys[0].removesuffix("_MIN").upper()
        name = _NAMES.get(stem, stem.lower())
        if is_true and name == "energy":
            name = "energy_true"
        if name not in _UNITS:
            raise DataError(
                f"{where}: has an axis {name!r}, which is not supported; supported: "
                f"{', '.join(_UNITS)}"
            )
        if name in nodes:
            raise DataError(f"{where}: names the axis {name!r} twice")
        default = "log" if name in _LOG_AXES else "lin"
        interp = str(header.get(f"INTERP{number}", default)).strip().lower()
        values = [_column(hdu, where, key, _UNITS[name]) for key in keys]
        with naming(where):
            axis, own = _axis(name, values, "log" if interp == "log" else "lin")
        axes.insert(0, axis)
        nodes[name] = own
        number += 1
    if not axes:
        raise DataError(f"{where}: names no axes; expected AXCOLS1 in its header")
    return Axes(axes), nodes


def _axis(name: str, columns: Sequence[FloatArray], interp: str) -> tuple[MapAxis, FloatArray]:
    """An axis from a column of nodes, or from the lower and upper edges of its bins."""
    unit = _UNITS[name]
    if len(columns) == 1:
        nodes = np.unique(columns[0])
        return MapAxis(name, edges_between(nodes, interp), unit, interp), nodes
    low, high = (np.unique(column) for column in columns)
    bounds = np.append(low, high[-1])
    if len(low) != len(high) or not np.allclose(
        high[:-1], low[1:], rtol=1e-5, atol=1e-9 * abs(high[-1])
    ):
        raise DataError(f"axis {name}: its bins do not follow on each other without gaps")
    if name in _LOG_AXES and bounds[0] <= 0:
        raise DataError(f"axis {name}: edges must be positive, got {bounds[0]:g} {unit}")
    # A radius or a migra from 0 has no logarithm.
    if interp == "log" and bounds[0] <= 0:
        interp = "lin"
    axis = MapAxis(name, bounds, unit, interp)
    return axis, axis.centers


def edges_between(nodes: FloatArray, interp: str) -> FloatArray:
    """Edges half-way between nodes, extrapolated at both ends; a factor 10 around a single one."""
    if interp == "log" and not np.all(nodes > 0):
        raise DataError(f"axis: nodes must be positive, got {nodes[0]:g}")
    x = np.log(nodes) if interp == "log" else np.asarray(nodes, dtype=float)
    if len(x) == 1:
        half = 0.5 * np.log(10.0) if interp == "log" else 0.5
        edges = np.array([x[0] - half, x[0] + half])
    else:
        middle = 0.5 * (x[1:] + x[:-1])
        edges = np.concatenate([[2 * x[0] - middle[0]], middle, [2 * x[-1] - middle[-1]]])
    return np.asarray(np.exp(edges) if interp == "log" else edges)


def _ebounds(hdu: Any, where: str) -> tuple[MapAxis, FloatArray]:
    """Energy bins as OGIP lists them: in keV if no unit is given."""
    columns = [_column(hdu, where, key, "TeV", "keV") for key in ("E_MIN", "E_MAX")]
    with naming(where):
        return _axis("energy", columns, "log")


def _energies(hdu: Any, where: str) -> tuple[MapAxis, FloatArray]:
    """Energies at which an exposure or a flux stands: in MeV if no unit is given."""
    names = [name for name in hdu.columns.names if name.upper() == "ENERGY"]
    key = names[0] if names else hdu.columns.names[0]
    with naming(where):
        return _axis("energy_true", [_column(hdu, where, key, "TeV", "MeV")], "log")


def _column(hdu: Any, where: str, key: str, unit: str, default: str | None = None) -> FloatArray:
    """A column of an axis in a unit; all its values finite."""
    found = next((name for name in hdu.columns.names if name.upper() == key.upper()), None)
    if found is None:
        raise DataError(f"{where}: no column {key}; there are {', '.join(hdu.columns.names)}")
    own = hdu.columns[found].unit or (unit if default is None else default)
    try:
        values = np.atleast_1d(np.asarray(hdu.data[found], dtype=np.float64))
        factor = float(u.Unit(own).to(unit)) if own != unit else 1.0
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{where}: column {key} has unit {own!r}, expected one like {unit!r}"
        ) from error
    if not values.size or not np.all(np.isfinite(values)):
        raise DataError(f"{where}: column {key} is empty or not finite; expected numbers")
    return values if factor == 1.0 else values * factor
