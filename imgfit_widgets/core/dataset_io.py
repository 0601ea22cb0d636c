"""Map datasets as FITS files, in the layout that Gammapy reads and writes.

Each map is an image HDU with a ``NAME_BANDS`` table of its axes. What Gammapy does not know is
kept beside it, where it is ignored there: ``PSF_GAUSS``, the exact PSF (weights of a mixture of
Gaussians), and the background norms of the runs in the header of ``PRIMARY``. A file of Gammapy's
has only the table ``PSF``, which is turned into a mixture.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
from pathlib import Path
from typing import Any, NoReturn, Protocol

import astropy.units as u
import numpy as np
from astropy.io import fits

from .data import GTI, RunInfo
from .errors import DataError
from .fits_maps import LARGEST, FileMap, FloatArray, hdu_names, is_image, opened, read_map
from .irf.edisp import EDispKernelMap
from .irf.io import refuse_truncated
from .irf.psf import PSF_WIDTHS, RAD_BOUNDS, PSFMap
from .maps import Axes, MapAxis, WcsGeom, WcsNDMap
from .response_io import (
    EXPOSURE_UNIT,
    WHOLE_BIN,
    edisp_map,
    exposure_on,
    identity_edisp,
    psf_map,
)

log = logging.getLogger(__name__)

CREATOR = "imgfit_widgets"
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
    @property
    def notes(self) -> tuple[str, ...]: ...


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
    # A header holds ASCII only.
    primary.header["NAME"] = dataset.name.encode("ascii", "backslashreplace").decode()
    primary.header["CREATOR"] = CREATOR
    norms = {str(run.obs_id): run.fov_norm for run in dataset.runs if run.fov_norm is not None}
    if norms:
        primary.header["FOVNORM"] = json.dumps(norms)
    if dataset.notes:
        primary.header["NOTES"] = json.dumps(dataset.notes)
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
        geom = edisp.geom.to_cube(axes)
        _add_image(hdus, "EDISP", geom, edisp.data, meta={WHOLE_BIN: True})
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
    with opened(source) as hdus:
        reader = _Reader(source, hdus)
        try:
            return reader.parts()
        except DataError:
            raise
        except Exception as error:
            refuse_truncated(source)
            text = str(error).strip().split("\n")[0] or type(error).__name__
            raise DataError(f"{source} [{reader.current}]: cannot be read ({text})") from error


class _Reader:
    """Reads one file; remembers the HDU it is at, for errors."""

    def __init__(self, path: Path, hdus: fits.HDUList) -> None:
        self.path = path
        self.hdus = hdus
        self.current = "PRIMARY"
        self.names: list[str] = []

    def parts(self) -> dict[str, Any]:
        self.names = hdu_names(self.hdus)
        header = self.hdus[0].header
        if "COUNTS" not in self.names:
            self.refuse()
        found = self.map("COUNTS")
        if found.axes.names != ["energy"]:
            raise DataError(
                f"{found.where}: its axes are {', '.join(found.axes.names) or 'none'}; expected "
                "energy"
            )
        if found.image is None:
            raise DataError(
                f"{found.where}: is a region (a spectrum), not an image; expected a MapDataset"
            )
        counts = found.to_map()
        geom, energy = counts.geom, counts.geom.axes["energy"]
        parts: dict[str, Any] = {
            "name": str(header.get("NAME", self.path.name.split(".")[0])),
            "notes": self.notes(header),
        }
        for key in ("MASK_SAFE", "MASK_FIT"):
            if key in self.names:
                mask = self.like_counts(key, geom)
                parts[key.lower()] = WcsNDMap(geom, np.nan_to_num(mask.data) != 0)
        safe = parts["mask_safe"].data if "mask_safe" in parts else np.array(True)
        parts["counts"] = self.finite("COUNTS", counts, safe)
        if np.any(parts["counts"].data < 0):
            raise DataError(f"{self.path} [COUNTS]: holds negative values; expected counted events")
        if "COUNTS_OFF" in self.names:
            parts["background"] = self.finite("COUNTS_OFF", self.background_of_off(geom), safe)
        elif "BACKGROUND" in self.names:
            background = self.like_counts("BACKGROUND", geom, "")
            parts["background"] = self.finite("BACKGROUND", background, safe)
        axis = None
        if "EXPOSURE" in self.names:
            parts["exposure"] = exposure_on(self.map("EXPOSURE"), geom, energy)
            axis = parts["exposure"].geom.axes["energy_true"]
        if "EDISP" in self.names:
            edisp, weights = self.map("EDISP"), self.optional("EDISP_EXPOSURE")
            parts["edisp"] = edisp_map(edisp, weights, geom, energy, axis)
        elif axis is not None:
            parts["edisp"] = identity_edisp(geom, energy, axis)
        if "PSF" in self.names:
            psf, weights = self.map("PSF"), self.optional("PSF_EXPOSURE")
            exact = self.mixture(psf)
            parts["psf"] = psf_map(psf, weights, exact, geom, axis, parts.get("edisp"))
        if "GTI" in self.names:
            self.current = "GTI"
            parts["gti"] = GTI.read(self.path)
        parts["runs"] = self.runs("META_TABLE" in self.names, header)
        return parts

    def refuse(self) -> NoReturn:
        """Say what a file without counts is."""
        images = [
            hdu.name or "PRIMARY" for hdu in self.hdus if is_image(hdu) or hdu.header.get("ZIMAGE")
        ]
        if images and not {"EXPOSURE", "BACKGROUND", "EDISP", "PSF"} & set(self.names):
            raise DataError(
                f"{self.path}: no HDU COUNTS; a plain image (HDU {', '.join(images)}) is not a "
                "dataset, since it says nothing of PSF and exposure. Name them in a datasets.yaml "
                f"(datasets: [{{type: ImageDataset, name: image, counts: {self.path.name}, psf: "
                "0.05 deg, ...}]) or with MapDataset.from_images()"
            )
        raise DataError(
            f"{self.path}: no HDU COUNTS; expected a map dataset, found "
            f"{', '.join(sorted(filter(None, self.names)))}"
        )

    def map(self, name: str) -> FileMap:
        """A map as the file has it."""
        self.current = name
        return read_map(self.hdus, self.path, name)

    def optional(self, name: str) -> FileMap | None:
        return self.map(name) if name in self.names else None

    def like_counts(self, name: str, geom: WcsGeom, unit: str | None = None) -> WcsNDMap:
        """A map whose pixels and energy bins have to be those of COUNTS."""
        found = self.map(name)
        sky_map = (found if unit is None or _counts_like(found.unit) else found.to(unit)).to_map()
        if not sky_map.geom.is_aligned(geom):
            raise DataError(f"{found.where}: its pixels are not those of COUNTS")
        if not (
            found.axes.names == geom.axes.names
            and all(own.is_like(other) for own, other in zip(found.axes, geom.axes, strict=True))
        ):
            raise DataError(f"{found.where}: its energy bins are not those of COUNTS")
        return WcsNDMap(geom, sky_map.data, "" if unit is not None else sky_map.unit)

    def background_of_off(self, geom: WcsGeom) -> WcsNDMap:
        """What the OFF counts of a MapDatasetOnOff say of the background: alpha times them."""
        off = self.like_counts("COUNTS_OFF", geom, "").data
        if "ACCEPTANCE" in self.names and "ACCEPTANCE_OFF" in self.names:
            on, other = (
                np.nan_to_num(self.like_counts(key, geom).data, posinf=0.0, neginf=0.0)
                for key in ("ACCEPTANCE", "ACCEPTANCE_OFF")
            )
            alpha = np.divide(on, other, out=np.zeros_like(on), where=other > 0)
        else:
            alpha = np.ones_like(off)
        log.warning(
            "%s [COUNTS_OFF]: the background is taken as alpha times the OFF counts (%.6g); their "
            "own fluctuations do not enter the statistic (cash), as they would in wstat",
            self.path,
            float(np.nansum(alpha * off)),
        )
        return WcsNDMap(geom, alpha * off)

    def finite(self, name: str, sky_map: WcsNDMap, safe: Any) -> WcsNDMap:
        """A map with 0 for what is not finite outside of the valid data; inside it is an error."""
        finite = np.isfinite(sky_map.data)
        if not finite.all():
            if not np.all(finite | ~np.asarray(safe)):
                raise DataError(
                    f"{self.path} [{name}]: holds values that are not finite where MASK_SAFE says "
                    "that data are valid"
                )
            sky_map = WcsNDMap(sky_map.geom, np.where(finite, sky_map.data, 0.0), sky_map.unit)
        largest = float(np.abs(sky_map.data).max())
        if largest > LARGEST:
            raise DataError(f"{self.path} [{name}]: holds {largest:g}; expected counts")
        return sky_map

    def mixture(self, psf: FileMap) -> FloatArray | None:
        """The exact PSF that this program wrote, (T, W, y, x), if it is of the widths used now."""
        if "PSF_GAUSS" not in self.names:
            return None
        self.current = "PSF_GAUSS"
        hdu = self.hdus["PSF_GAUSS"]
        widths = (hdu.header.get("WIDTHMIN", np.nan), hdu.header.get("WIDTHMAX", np.nan))
        weights = np.asarray(hdu.data, dtype=float)
        expected = (psf.data.shape[0], len(PSF_WIDTHS), *psf.data.shape[-2:])
        if (
            weights.ndim < 2
            or weights.shape[1] != len(PSF_WIDTHS)
            or not np.allclose(np.array(widths, dtype=float), PSF_WIDTHS[[0, -1]])
        ):
            return None
        total = weights.sum(axis=1)
        if weights.shape != expected or not np.all(
            (np.abs(total - 1.0) < 1e-3) | (np.abs(weights).sum(axis=1) == 0)
        ):
            raise DataError(
                f"{self.path} [PSF_GAUSS]: has shape {weights.shape} and weights that add up to "
                f"{float(np.min(total)):g} to {float(np.max(total)):g}; expected shape {expected} "
                "and a sum of 1"
            )
        return weights

    def notes(self, header: fits.Header) -> tuple[str, ...]:
        try:
            return tuple(str(note) for note in json.loads(str(header.get("NOTES", "[]"))))
        except (ValueError, TypeError):
            return ()

    def runs(self, listed: bool, header: fits.Header) -> tuple[RunInfo, ...]:
        """Runs as META_TABLE has them; its columns differ from version to version."""
        if not listed:
            return ()
        self.current = "META_TABLE"
        hdu = self.hdus["META_TABLE"]
        names = hdu.columns.names
        if "OBS_ID" not in names or not len(hdu.data):
            return ()
        try:
            ids = [int(i) for i in np.ravel(hdu.data["OBS_ID"])]
            norms = json.loads(header.get("FOVNORM", "{}"))

            def values(name: str) -> FloatArray:
                found = np.ravel(hdu.data[name]) if name in names else np.zeros(0)
                numbers = np.asarray(found, dtype=float)
                return numbers if len(numbers) == len(ids) else np.zeros(len(ids))

            livetime = values("LIVETIME")
            if not livetime.any():
                livetime = np.full(len(ids), self.livetime() / len(ids))
            found = np.ravel(hdu.data["TELESCOP"]) if "TELESCOP" in names else [""]
            telescopes = [str(telescope).strip() for telescope in found]
            if len(telescopes) != len(ids):
                telescopes = telescopes[:1] * len(ids)
            columns = (ids, telescopes, values("RA_PNT"), values("DEC_PNT"), livetime)
            return tuple(
                RunInfo(i, telescope, float(ra), float(dec), float(t), norms.get(str(i)))
                for i, telescope, ra, dec, t in zip(*columns, strict=True)
            )
        except (ValueError, TypeError, OverflowError) as error:
            log.warning("%s [META_TABLE]: the runs cannot be told from it (%s)", self.path, error)
            return ()

    def livetime(self) -> float:
        """Live time in s that Gammapy keeps with the exposure."""
        if "EXPOSURE" not in self.names:
            return 0.0
        text = json.loads(self.hdus["EXPOSURE"].header.get("META", "{}")).get("livetime", "0 s")
        return float(u.Quantity(text).to_value("s"))


def _counts_like(unit: str) -> bool:
    """Whether a unit says counts (or nothing)."""
    return unit.lower().rstrip("s") in ("", "count", "ct", "photon", "ph", "event")
