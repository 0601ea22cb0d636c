"""Map datasets as FITS files, in the layout that Gammapy reads and writes.

Each map is an image HDU with a ``NAME_BANDS`` table of its axes. What Gammapy does not know is
kept beside it, where it is ignored there: ``PSF_GAUSS``, the exact PSF (weights of a mixture of
Gaussians), and the background norms of the runs in the header of ``PRIMARY``. A file of Gammapy's
has only the table ``PSF``, which is turned into a mixture.
"""

from __future__ import annotations

import gzip
import json
import os
import warnings
from pathlib import Path
from typing import Any, Protocol

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS, FITSFixedWarning

from .data import GTI, RunInfo
from .errors import DataError
from .irf.edisp import EDispKernelMap
from .irf.io import FITS_ERRORS, open_fits, refuse_truncated
from .irf.psf import PSF_WIDTHS, RAD_BOUNDS, PSFMap
from .maps import Axes, MapAxis, WcsGeom, WcsNDMap

CREATOR = "imgfit_widgets"
EXPOSURE_UNIT = "m2 s"
# Column stem of each axis in a BANDS table; the reconstructed energy has none.
_STEMS = {"energy": "E", "energy_true": "ENERGY_TRUE", "rad": "RAD"}


class DatasetParts(Protocol):
    """What a dataset is made of."""

    @property
    def name(self) -> str: ...
    @property
    def counts(self) -> WcsNDMap: ...
    @property
    def background(self) -> WcsNDMap | None: ...
    @property
    def exposure(self) -> WcsNDMap | None: ...
    @property
    def psf(self) -> PSFMap | None: ...
    @property
    def edisp(self) -> EDispKernelMap | None: ...
    @property
    def mask_safe(self) -> WcsNDMap | None: ...
    @property
    def mask_fit(self) -> WcsNDMap | None: ...
    @property
    def gti(self) -> GTI | None: ...
    @property
    def runs(self) -> tuple[RunInfo, ...]: ...
    @property
    def livetime(self) -> float: ...


def write_parts(
    dataset: DatasetParts, path: str | os.PathLike[str], overwrite: bool = False
) -> None:
    """Write a dataset to a FITS file.

    Raises
    ------
    DataError
        If the file exists and ``overwrite`` is not set, or its folder cannot be written.
    """
    hdus = to_hdus(dataset)
    target = Path(path)
    if target.exists() and not overwrite:
        raise DataError(f"{target}: exists already; choose another name or allow overwriting")
    try:
        if target.suffix == ".gz":
            # A low level costs a fifth of the time of astropy's and a few per cent of size.
            with open(target, "wb") as raw, gzip.GzipFile(target.stem, "wb", 1, raw, 0) as file:
                hdus.writeto(file)
        else:
            hdus.writeto(target, overwrite=overwrite)
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror or error})") from error


def to_hdus(dataset: DatasetParts) -> fits.HDUList:
    """The HDUs of a dataset, maps in single precision."""
    primary = fits.PrimaryHDU()
    primary.header["NAME"] = dataset.name
    primary.header["CREATOR"] = CREATOR
    norms = {str(run.obs_id): run.fov_norm for run in dataset.runs if run.fov_norm is not None}
    if norms:
        primary.header["FOVNORM"] = json.dumps(norms)
    hdus = fits.HDUList([primary])

    _add_map(hdus, "COUNTS", dataset.counts)
    if dataset.exposure is not None:
        meta = {"livetime": f"{dataset.livetime} s"} if dataset.runs else {}
        _add_map(hdus, "EXPOSURE", dataset.exposure, meta)
    if dataset.background is not None:
        _add_map(hdus, "BACKGROUND", dataset.background)
    if dataset.edisp is not None:
        edisp = dataset.edisp
        axes = [edisp.energy_true, edisp.energy]
        _add_image(hdus, "EDISP", edisp.geom.to_cube(axes), edisp.data)
        total = MapAxis("energy", edisp.energy.bounds[[0, -1]], edisp.energy.unit)
        geom = edisp.geom.to_cube([edisp.energy_true, total])
        _add_image(hdus, "EDISP_EXPOSURE", geom, edisp.exposure[:, None], EXPOSURE_UNIT)
    if dataset.psf is not None:
        psf = dataset.psf
        rad = MapAxis("rad", RAD_BOUNDS, "deg", "lin")
        _add_image(hdus, "PSF", psf.geom.to_cube([psf.energy_true, rad]), psf.table(), "sr-1")
        total = MapAxis("rad", RAD_BOUNDS[[0, -1]], "deg", "lin")
        geom = psf.geom.to_cube([psf.energy_true, total])
        _add_image(hdus, "PSF_EXPOSURE", geom, psf.exposure[:, None], EXPOSURE_UNIT)
        gauss = fits.ImageHDU(psf.weights.astype(np.float32), name="PSF_GAUSS")
        gauss.header["WIDTHMIN"] = (float(PSF_WIDTHS[0]), "[deg] width of the first Gaussian")
        gauss.header["WIDTHMAX"] = (float(PSF_WIDTHS[-1]), "[deg] width of the last one")
        hdus.append(gauss)
    for name, mask in (("MASK_SAFE", dataset.mask_safe), ("MASK_FIT", dataset.mask_fit)):
        if mask is not None:
            _add_image(hdus, name, mask.geom, np.asarray(mask.data, dtype=np.int64))
    if dataset.gti is not None:
        hdus.append(_gti_hdu(dataset.gti))
    if dataset.runs:
        hdus.append(_runs_hdu(dataset.runs))
    return hdus


def _add_map(
    hdus: fits.HDUList, name: str, sky_map: WcsNDMap, meta: dict[str, Any] | None = None
) -> None:
    _add_image(hdus, name, sky_map.geom, sky_map.data, sky_map.unit, meta)


def _add_image(
    hdus: fits.HDUList,
    name: str,
    geom: WcsGeom,
    data: np.ndarray,
    unit: str = "",
    meta: dict[str, Any] | None = None,
) -> None:
    """An image HDU and the table of its axes (the innermost axis first)."""
    # Contiguous, since astropy writes any other array element by element: seconds for a PSF.
    values = data if data.dtype == np.int64 else data.astype(np.float32, order="C")
    image = fits.ImageHDU(values, header=geom.wcs.to_header(), name=name)
    bands = _bands_hdu(f"{name}_BANDS", geom.axes)
    for key in bands.header:
        if key.startswith(("AXCOLS", "INTERP")):
            image.header[key] = bands.header[key]
    shape = (*geom.npix, *(axis.nbin for axis in reversed(geom.axes)))
    image.header["WCSSHAPE"] = f"({','.join(map(str, shape))})"
    image.header["BANDSHDU"] = f"{name}_BANDS"
    image.header["META"] = json.dumps(meta or {})
    image.header["BUNIT"] = unit
    hdus += [image, bands]


def _bands_hdu(name: str, axes: Axes) -> fits.BinTableHDU:
    columns: list[fits.Column] = []
    keywords: dict[str, str] = {}
    grids = np.meshgrid(*(np.arange(axis.nbin) for axis in axes), indexing="ij")
    for number, (axis, grid) in enumerate(zip(reversed(axes), reversed(grids), strict=True), 1):
        stem, index = _STEMS[axis.name], grid.ravel()
        center = "ENERGY" if axis.name == "energy" else stem
        values = {
            center: axis.centers,
            f"{stem}_MIN": axis.bounds[:-1],
            f"{stem}_MAX": axis.bounds[1:],
        }
        columns += [
            fits.Column(key, "D", unit=axis.unit, array=array[index])
            for key, array in values.items()
        ]
        keywords[f"AXCOLS{number}"] = f"{stem}_MIN,{stem}_MAX"
        keywords[f"INTERP{number}"] = axis.interp
    channel = fits.Column("CHANNEL", "K", array=np.arange(grids[0].size))
    hdu = fits.BinTableHDU.from_columns([channel, *columns], name=name)
    hdu.header.update(keywords)
    return hdu


def _gti_hdu(gti: GTI) -> fits.BinTableHDU:
    hdu = fits.BinTableHDU.from_columns(
        [
            fits.Column("START", "D", unit="s", array=gti.start),
            fits.Column("STOP", "D", unit="s", array=gti.stop),
        ],
        name="GTI",
    )
    whole = int(gti.mjd_ref)
    hdu.header.update(
        {"MJDREFI": whole, "MJDREFF": gti.mjd_ref - whole, "TIMESYS": gti.time_system}
    )
    return hdu


def _runs_hdu(runs: tuple[RunInfo, ...]) -> fits.BinTableHDU:
    """Gammapy keeps one row with a vector column for each quantity."""
    count = len(runs)
    width = max(len(run.telescope) for run in runs)
    telescopes = np.array([[run.telescope for run in runs]], dtype=f"S{max(width, 1)}")
    columns = [
        fits.Column(
            "TELESCOP",
            f"{telescopes.itemsize * count}A",
            dim=f"({telescopes.itemsize},{count})",
            array=telescopes,
        ),
        fits.Column("OBS_ID", f"{count}K", array=[[run.obs_id for run in runs]]),
        fits.Column("RA_PNT", f"{count}D", array=[[run.ra for run in runs]]),
        fits.Column("DEC_PNT", f"{count}D", array=[[run.dec for run in runs]]),
        fits.Column("LIVETIME", f"{count}D", unit="s", array=[[run.livetime for run in runs]]),
    ]
    return fits.BinTableHDU.from_columns(columns, name="META_TABLE")


def read_parts(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The parts of a dataset file, as keyword arguments of a dataset.

    Raises
    ------
    DataError
        Naming the file and the HDU that is missing or cannot be used.
    """
    source = Path(path)
    if source.suffix == ".gz" and source.is_file():
        # Else the HDUs before a cut would be taken for the whole file.
        refuse_truncated(source)
    with warnings.catch_warnings():
        warnings.simplefilter("error", AstropyUserWarning)
        warnings.simplefilter("ignore", FITSFixedWarning)
        with open_fits(source) as hdus:
            reader = _Reader(source, hdus)
            try:
                return reader.parts()
            except DataError:
                raise
            except (*FITS_ERRORS, AttributeError, AstropyUserWarning) as error:
                refuse_truncated(source)
                raise DataError(f"{source} [{reader.current}]: cannot be read ({error})") from error


class _Reader:
    """Reads one file; remembers the HDU it is at, for errors."""

    def __init__(self, path: Path, hdus: fits.HDUList) -> None:
        self.path = path
        self.hdus = hdus
        self.current = "PRIMARY"

    def parts(self) -> dict[str, Any]:
        names = {hdu.name for hdu in self.hdus}
        header = self.hdus[0].header
        if "COUNTS" not in names:
            raise DataError(
                f"{self.path}: no HDU COUNTS; expected a map dataset, found "
                f"{', '.join(sorted(filter(None, names)))}"
            )
        counts = self.map("COUNTS")
        parts: dict[str, Any] = {
            "name": str(header.get("NAME", self.path.name.split(".")[0])),
            "counts": counts,
        }
        for key, unit in (("BACKGROUND", ""), ("EXPOSURE", EXPOSURE_UNIT)):
            if key in names:
                parts[key.lower()] = self.map(key, unit)
        for key in ("MASK_SAFE", "MASK_FIT"):
            if key in names:
                mask = self.map(key)
                parts[key.lower()] = WcsNDMap(mask.geom, mask.data.astype(bool))
        if "EDISP" in names:
            parts["edisp"] = self.edisp(counts)
        if "PSF" in names:
            parts["psf"] = self.psf("PSF_GAUSS" in names)
        if "GTI" in names:
            parts["gti"] = GTI.read(self.path)
        parts["runs"] = self.runs("META_TABLE" in names, header)
        for key in ("background", "exposure", "mask_safe", "mask_fit"):
            if key in parts:
                self.check_geometry(key.upper(), parts[key].geom, counts.geom, key != "exposure")
        safe = parts["mask_safe"].data if "mask_safe" in parts else np.array(True)
        for key in ("counts", "background"):
            if key in parts:
                parts[key] = self.finite(key.upper(), parts[key], safe)
        if np.any(parts["counts"].data < 0):
            raise DataError(f"{self.path} [COUNTS]: holds negative values; expected counted events")
        if "exposure" in parts:
            # Not finite beyond the projection, where nothing was seen.
            exposure = parts["exposure"]
            finite = np.nan_to_num(exposure.data, posinf=0.0, neginf=0.0)
            parts["exposure"] = WcsNDMap(exposure.geom, finite, exposure.unit)
        return parts

    def finite(self, name: str, sky_map: WcsNDMap, safe: Any) -> WcsNDMap:
        """A map with 0 for what is not finite outside of the valid data; inside it is an error."""
        finite = np.isfinite(sky_map.data)
        if finite.all():
            return sky_map
        if not np.all(finite | ~np.asarray(safe)):
            raise DataError(
                f"{self.path} [{name}]: holds values that are not finite where MASK_SAFE says that "
                "data are valid"
            )
        return WcsNDMap(sky_map.geom, np.where(finite, sky_map.data, 0.0), sky_map.unit)

    def check_geometry(self, name: str, geom: WcsGeom, counts: WcsGeom, bins: bool) -> None:
        """Refuse a map whose pixels (and ``bins``) are not those of COUNTS."""
        if not geom.is_aligned(counts):
            raise DataError(f"{self.path} [{name}]: its pixels are not those of COUNTS")
        if bins and not (
            geom.axes.names == counts.axes.names
            and all(own.is_like(other) for own, other in zip(geom.axes, counts.axes, strict=True))
        ):
            raise DataError(f"{self.path} [{name}]: its energy bins are not those of COUNTS")

    def map(self, name: str, unit: str | None = None) -> WcsNDMap:
        """A map, turned into ``unit`` (None for the unit that the file has)."""
        self.current = name
        hdu = self.hdus[name]
        header = hdu.header
        wcs = WCS(header, naxis=2).celestial
        axes = self.axes(header.get("BANDSHDU", f"{name}_BANDS"))
        data = np.asarray(hdu.data)
        expected = tuple(axis.nbin for axis in axes)
        if data.shape[:-2] != expected:
            raise DataError(
                f"{self.path} [{name}]: has {data.shape[:-2]} planes, its axes say {expected}"
            )
        values = data.astype(bool) if name.startswith("MASK") else data.astype(np.float64)
        geom = WcsGeom(wcs, (data.shape[-2], data.shape[-1]), Axes(axes))
        geom.frame  # noqa: B018  refuses a frame that is not supported, naming it
        found = str(header.get("BUNIT", "")).strip()
        if unit is None:
            return WcsNDMap(geom, values, found)
        try:
            factor = u.Unit(found).to(unit)
        except ValueError as error:
            raise DataError(
                f"{self.path} [{name}]: its unit (BUNIT) is {found!r}, expected one like {unit!r}"
            ) from error
        return WcsNDMap(geom, values if factor == 1.0 else values * factor, unit)

    def axes(self, name: str) -> list[MapAxis]:
        """Axes of a map, outermost first."""
        self.current = name
        hdu = self.hdus[name]
        header, data = hdu.header, hdu.data
        axes: list[MapAxis] = []
        number = 1
        while f"AXCOLS{number}" in header:
            low, high = (key.strip() for key in header[f"AXCOLS{number}"].split(","))
            stem = low.removesuffix("_MIN")
            bounds = np.append(np.unique(data[low]), np.max(data[high]))
            names = {"E": "energy", "ENERGY_TRUE": "energy_true", "RAD": "rad"}
            unit = data.columns[low].unit or "TeV"
            interp = header.get(f"INTERP{number}", "log")
            axes.insert(0, MapAxis(names.get(stem, stem.lower()), bounds, unit, interp))
            number += 1
        return [_in_tev(axis) if axis.name.startswith("energy") else axis for axis in axes]

    def edisp(self, counts: WcsNDMap) -> EDispKernelMap:
        kernel = self.map("EDISP")
        axes = kernel.geom.axes
        if axes.names != ["energy_true", "energy"]:
            raise DataError(
                f"{self.path} [EDISP]: axes {axes.names} are not supported; expected a kernel with "
                "reconstructed and true energy"
            )
        if not axes["energy"].is_like(counts.geom.axes["energy"]):
            raise DataError(f"{self.path} [EDISP]: its energy bins differ from those of COUNTS")
        return EDispKernelMap(
            kernel.geom.to_image(),
            axes["energy"],
            axes["energy_true"],
            np.nan_to_num(kernel.data),
            self.exposure("EDISP_EXPOSURE", kernel),
        )

    def exposure(self, name: str, like: WcsNDMap) -> np.ndarray:
        """Exposure of a response map, shape (T, y, x); ones if the file has none."""
        if name not in {hdu.name for hdu in self.hdus}:
            return np.ones((like.data.shape[0], *like.data.shape[-2:]))
        return np.asarray(self.map(name, EXPOSURE_UNIT).data)[:, 0]

    def psf(self, exact: bool) -> PSFMap:
        table = self.map("PSF")
        axes = table.geom.axes
        if axes.names != ["energy_true", "rad"]:
            raise DataError(f"{self.path} [PSF]: axes {axes.names} are not supported")
        exposure = self.exposure("PSF_EXPOSURE", table)
        if exact:
            self.current = "PSF_GAUSS"
            hdu = self.hdus["PSF_GAUSS"]
            widths = (hdu.header.get("WIDTHMIN"), hdu.header.get("WIDTHMAX"))
            weights = np.asarray(hdu.data, dtype=float)
            if weights.shape[1] == len(PSF_WIDTHS) and np.allclose(
                np.array(widths, dtype=float), PSF_WIDTHS[[0, -1]]
            ):
                return PSFMap(table.geom.to_image(), axes["energy_true"], weights, exposure)
        return PSFMap.from_table(
            table.geom.to_image(), axes["energy_true"], axes["rad"], table.data, exposure
        )

    def runs(self, listed: bool, header: fits.Header) -> tuple[RunInfo, ...]:
        if not listed:
            return ()
        self.current = "META_TABLE"
        hdu = self.hdus["META_TABLE"]
        names, row = hdu.columns.names, hdu.data[0]
        if "OBS_ID" not in names:
            return ()
        ids = np.atleast_1d(row["OBS_ID"])
        norms = json.loads(header.get("FOVNORM", "{}"))

        def values(name: str) -> np.ndarray:
            found = np.atleast_1d(row[name]).astype(float) if name in names else np.zeros(len(ids))
            return found if len(found) == len(ids) else np.zeros(len(ids))

        livetime = values("LIVETIME")
        if not livetime.any():
            livetime = np.full(len(ids), self.livetime() / len(ids))
        telescopes = (
            [str(t).strip() for t in np.atleast_1d(row["TELESCOP"])]
            if ("TELESCOP" in names)
            else [""]
        )
        if len(telescopes) != len(ids):
            telescopes = telescopes[:1] * len(ids)
        return tuple(
            RunInfo(int(i), telescope, float(ra), float(dec), float(t), norms.get(str(int(i))))
            for i, telescope, ra, dec, t in zip(
                ids, telescopes, values("RA_PNT"), values("DEC_PNT"), livetime, strict=True
            )
        )

    def livetime(self) -> float:
        """Live time in s that Gammapy keeps with the exposure."""
        if "EXPOSURE" not in {hdu.name for hdu in self.hdus}:
            return 0.0
        text = json.loads(self.hdus["EXPOSURE"].header.get("META", "{}")).get("livetime", "0 s")
        return float(u.Quantity(text).to_value("s"))


def _in_tev(axis: MapAxis) -> MapAxis:
    if axis.unit == "TeV":
        return axis
    return MapAxis(axis.name, axis.edges.to_value("TeV"), "TeV", axis.interp)
