"""A dataset from images: counts, with what there is of background, exposure and PSF.

`image_parts` takes each of them as a FITS file, a map, an array on the counts' pixels or a number,
brings it to the counts' pixels and energy bands, and says in ``notes`` what it assumed. What is
missing:

exposure
    1 cm2 s everywhere, so that the flux of a source between the energies of the image is its
    number of counts.
background
    None: every photon is a source's. ``"flat"`` is an even one, of as many counts as the image has
    in all, so that its fitted norm is the share of the counts that is background.
psf
    A Gaussian whose FWHM is one pixel.
energy
    1 to 10 TeV, if neither the file nor ``energy`` says.
energy dispersion
    None: reconstructed energy is true energy.

Pixels that are NaN in the counts, in the background or in the exposure are left out of the fit.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.table import Table
from numpy.typing import NDArray

from .errors import DataError
from .fits_maps import LARGEST, FileMap, FloatArray, hdu_names, is_image, naming, opened, read_map
from .image_psf import (
    FWHM,
    TABLE_SUFFIXES,
    constant_psf,
    fermi_theta,
    gaussian_mixture,
    psf_of_map,
    psf_of_table,
    read_table,
    width_of,
)
from .irf.edisp import EDispKernelMap
from .irf.psf import PSF_WIDTHS, PSFMap
from .maps import Axes, MapAxis, WcsGeom, WcsNDMap
from .paths import expand_path
from .response_io import EXPOSURE_UNIT, energy_matrix, identity_edisp

log = logging.getLogger(__name__)

DEFAULT_ENERGY = (1.0, 10.0)
# True-energy bins a decade where the exposure is given at energies of its own.
_PER_DECADE = 12
# How far from a whole number a float32 count may be.
_WHOLE = 1e-3


def image_parts(
    counts: Any,
    background: Any = None,
    exposure: Any = None,
    psf: Any = None,
    *,
    name: str | None = None,
    energy: Any = None,
    mask: Any = None,
    exposure_unit: str | None = None,
) -> dict[str, Any]:
    """The keyword arguments of a dataset made of images; see `MapDataset.from_images`."""
    notes: list[str] = []
    found = _load("counts", counts, None)
    if found.image is None:
        raise DataError(f"{found.where}: is a region, not an image")
    axis = _energy_axis(found, energy, notes)
    geom = found.image.to_cube([axis])
    if name is None:
        is_path = isinstance(counts, str | os.PathLike)
        name = _split(counts)[0].name.split(".")[0] if is_path else "image"
    values, valid = _counts(found, geom)
    if mask is not None:
        valid &= _mask(_load("mask", mask, geom), geom)
    expected: FloatArray | None = None
    if background is None:
        notes.append(
            "no background: every event is taken as one of a source's; background='flat' gives an "
            "even one to fit"
        )
    else:
        expected, known = _background(background, values, valid, geom, notes)
        valid &= known
    held, known = _exposure(exposure, exposure_unit, geom, notes)
    valid &= known
    if not valid.any():
        raise DataError(
            f"{found.where}: no pixel is left to fit; each is NaN or masked in counts, mask, "
            "background or exposure"
        )
    edisp = identity_edisp(geom, axis, held.geom.axes["energy_true"])
    spread = _psf(psf, geom, edisp, notes)
    for note in notes:
        log.info("%s: %s", name, note)
    return {
        "name": str(name),
        "counts": WcsNDMap(geom, np.where(valid, values, 0.0)),
        "background": None if expected is None else WcsNDMap(geom, np.where(valid, expected, 0.0)),
        "exposure": held,
        "psf": spread,
        "edisp": edisp,
        "mask_safe": None if valid.all() else WcsNDMap(geom, valid),
        "notes": tuple(notes),
    }


def is_quantity(source: Any) -> bool:
    """Whether a text begins with a number (3e10 cm2 s): a value, not a path."""
    number = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
    return isinstance(source, str) and bool(re.fullmatch(rf"{number}( .*)?", source.strip()))


# Reading


def _split(source: str | os.PathLike[str]) -> tuple[Path, str | int | None]:
    """A path and, if it ends in ``[HDU]``, the name or number of the HDU."""
    text = os.fspath(source)
    match = re.fullmatch(r"(.+?)\[([^\[\]]+)\]", text)
    path = expand_path(match.group(1) if match else text, "path")
    if match is None:
        return path, None
    key = match.group(2).strip()
    return path, int(key) if key.isdigit() else key.upper()


def _pick(hdus: fits.HDUList, path: Path, role: str, key: str | int | None) -> Any:
    """The HDU that is named, or the one that can be meant."""
    names = hdu_names(hdus)
    listed = ", ".join(f"{i} {n or 'unnamed'}" for i, n in enumerate(names))
    if key is not None:
        if key in names or (isinstance(key, int) and key < len(hdus)):
            return hdus[key]
        raise DataError(f"{role}: {path}: no HDU {key!r}; there are {listed}")
    if role.upper() in names:
        return hdus[role.upper()]
    images = [hdu for hdu in hdus if is_image(hdu)]
    if len(images) > 1 and images[0] is not hdus[0]:
        raise DataError(f"{role}: {path}: has several images; name one as FILE[HDU]: {listed}")
    return images[0] if images else hdus[min(1, len(hdus) - 1)]


def _load(role: str, source: Any, like: WcsGeom | None, unit: str = "") -> FileMap:
    """A map from a path, a map, or an array or a number on the pixels of ``like``."""
    if isinstance(source, WcsNDMap):
        axes, image = source.geom.axes, source.geom.to_image()
        nodes = {axis.name: axis.centers for axis in axes}
        data = np.asarray(source.data, dtype=float)
        return FileMap(role, image, axes, nodes, data, source.unit, fits.Header())
    if isinstance(source, str | os.PathLike):
        path, key = _split(source)
        with opened(path, strict=False) as hdus:
            hdu = _pick(hdus, path, role, key)
            found = read_map(hdus, path, hdus.index_of(hdu))
        return FileMap(
            f"{role}: {found.where}", found.image, found.axes, found.nodes, found.data,
            found.unit, found.header,
        )  # fmt: skip
    try:
        quantity = u.Quantity(source)
        data = np.asarray(quantity.value, dtype=float)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{role}: {type(source).__name__} cannot be used; expected a path, a WcsNDMap or an "
            "array on the pixels of the counts"
        ) from error
    if quantity.unit != u.dimensionless_unscaled:
        unit = quantity.unit.to_string()
    if like is None:
        raise DataError(f"{role}: an array has no sky coordinates; expected a path or a WcsNDMap")
    shape = like.shape
    if data.ndim == 0:
        data = np.full(shape, float(data))
    if data.ndim == 3 and len(data) == 1:
        data = data[0]
    axes = like.axes if data.ndim == 3 else Axes()
    expected = (*(axis.nbin for axis in axes), *shape)
    if data.shape != expected:
        raise DataError(
            f"{role}: an array of shape {data.shape} does not fit the counts; expected "
            f"{like.shape} or {like.data_shape}"
        )
    nodes = {axis.name: axis.centers for axis in axes}
    return FileMap(role, like.to_image(), axes, nodes, data, unit, fits.Header())


# Counts and bands


def _energy_axis(found: FileMap, energy: Any, notes: list[str]) -> MapAxis:
    own = found.axes[0] if len(found.axes) == 1 else None
    if len(found.axes) > 1 or (own is not None and not own.name.startswith("energy")):
        raise DataError(
            f"{found.where}: its axes are {', '.join(found.axes.names)}; expected energy or none"
        )
    planes = int(np.prod(found.data.shape[:-2]))
    if energy is not None:
        axis = _given_energy(energy)
        if axis.nbin != planes:
            raise DataError(
                f"energy: gives {axis.nbin} bins, but {found.where} has {planes}; expected "
                f"{planes + 1} edges"
            )
        return axis
    if own is not None:
        return MapAxis("energy", own.bounds, "TeV", "log" if own.bounds[0] > 0 else "lin")
    low, high = DEFAULT_ENERGY
    notes.append(
        f"the counts' energies are not known; taken as {low:g} to {high:g} TeV (energy= says them)"
    )
    return MapAxis("energy", np.array([low, high]))


def _given_energy(energy: Any) -> MapAxis:
    if isinstance(energy, MapAxis):
        return MapAxis("energy", energy.edges.to_value("TeV"))
    try:
        if isinstance(energy, str):
            raise TypeError("one energy")
        edges = [
            float(value.to_value("TeV") if value.unit != u.dimensionless_unscaled else value.value)
            for value in (u.Quantity(item) for item in energy)
        ]
    except (TypeError, ValueError) as error:
        raise DataError(
            f"energy: {energy!r} cannot be used; expected edges like ['1 TeV', '10 TeV']"
        ) from error
    if len(edges) < 2 or not (edges[0] > 0 and np.all(np.diff(edges) > 0) and edges[-1] < 1e9):
        raise DataError(
            f"energy: {energy!r} cannot be used; expected at least 2 edges that increase from more "
            "than 0, like ['1 TeV', '10 TeV']"
        )
    return MapAxis("energy", np.array(edges))


def _at(role: str, values: FloatArray, bad: NDArray[np.bool_]) -> str:
    """The first bad pixel in words."""
    place = tuple(int(i) for i in np.argwhere(bad)[0])
    band = f" of band {place[0]}" if len(values) > 1 else ""
    return f"pixel (x, y) = ({place[-1]}, {place[-2]}){band} is {values[place]:g}"


def _counts(found: FileMap, geom: WcsGeom) -> tuple[FloatArray, NDArray[np.bool_]]:
    unit = found.unit.strip().lower().rstrip("s")
    if unit not in ("", "count", "ct", "photon", "ph", "event", "adu", "1", "dimensionless"):
        raise DataError(
            f"{found.where}: its unit (BUNIT) is {found.unit!r}; expected counts, since a flux or "
            "a rate has no Poisson statistic"
        )
    values = found.data.reshape(geom.data_shape)
    valid = ~np.isnan(values)
    values = np.where(valid, values, 0.0)
    for bad, what in (
        (np.abs(values) > LARGEST, "expected a number of events"),
        (values < 0, "expected 0 or more events (is a background subtracted?)"),
        (
            np.abs(values - np.rint(values)) > _WHOLE,
            "expected whole numbers of events, not a smoothed or weighted map",
        ),
    ):
        if bad.any():
            raise DataError(f"{found.where}: {_at('counts', values, bad)}; {what}")
    return np.rint(values), valid


# The sky of one map on the pixels of another


def _pixel_centres(geom: WcsGeom, own: WcsGeom, part: int) -> Iterator[tuple[Any, Any]]:
    """Pixel positions in ``own`` of ``part`` x ``part`` points in each pixel of a geometry."""
    y, x = np.mgrid[: geom.shape[0], : geom.shape[1]].astype(float)
    offsets = (np.arange(part) + 0.5) / part - 0.5
    for dy in offsets:
        for dx in offsets:
            lon, lat = geom.pix_to_lonlat(x + dx, y + dy)
            yield own.from_frame(lon, lat, geom.frame)


def _overlap(found: FileMap, geom: WcsGeom, covered: NDArray[np.bool_]) -> None:
    if not covered.any():
        own, here = found.image or geom, geom.center_lonlat
        at = own.center_lonlat
        raise DataError(
            f"{found.where}: does not overlap the counts: it lies around ({at[0]:.4g}, "
            f"{at[1]:.4g}) deg {own.frame}, the counts around ({here[0]:.4g}, "
            f"{here[1]:.4g}) deg {geom.frame}"
        )


def _sampled(found: FileMap, geom: WcsGeom, area: bool) -> FloatArray:
    """A map on the pixels of a geometry, NaN beyond it: (planes, ny, nx).

    With ``area``, values are contents of pixels: their density is kept, averaged over each pixel.
    Otherwise they are interpolated (bilinear).
    """
    image, target = found.image, geom.to_image()
    planes = found.data.reshape(-1, *found.data.shape[-2:])
    if image is None:
        return np.broadcast_to(planes, (len(planes), *target.shape))
    if image.is_aligned(target):
        return planes
    if area:
        planes = planes / image.solid_angle()
        coarser = max(target.pixel_scales) / min(image.pixel_scales)
        part = int(np.clip(math.ceil(2.0 * coarser), 1, 12))
    else:
        part = 1
    source = WcsNDMap(WcsGeom(image.wcs, image.shape, _plane_axes(len(planes))), planes)
    total = np.zeros((len(planes), *target.shape))
    for lon, lat in _pixel_centres(target, image, part):
        total += source.interp_by_coord(lon, lat)
    total /= part**2
    _overlap(found, target, np.isfinite(total))
    return total * target.solid_angle() if area else total


def _plane_axes(count: int) -> Axes:
    return Axes([MapAxis("plane", np.arange(count + 1.0), "", "lin")])


def _mask(found: FileMap, geom: WcsGeom) -> NDArray[np.bool_]:
    """Where data are valid: the value of the nearest pixel is neither 0 nor NaN."""
    planes = found.data.reshape(-1, *found.data.shape[-2:])
    image, target = found.image, geom.to_image()
    if len(planes) not in (1, geom.data_shape[0]):
        raise DataError(
            f"{found.where}: has {len(planes)} planes; expected 1 or {geom.data_shape[0]}"
        )
    if image is not None and not image.is_aligned(target):
        source = WcsNDMap(WcsGeom(image.wcs, image.shape, _plane_axes(len(planes))), planes)
        lonlat = next(_pixel_centres(target, image, 1))
        planes = source.get_by_coord(*lonlat)
        _overlap(found, target, np.isfinite(planes))
    return np.broadcast_to(np.nan_to_num(planes) != 0, geom.data_shape)


def _background(
    source: Any,
    counts: FloatArray,
    valid: NDArray[np.bool_],
    geom: WcsGeom,
    notes: list[str],
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Expected counts of the background in each bin, and where they are known."""
    if isinstance(source, str) and source.strip().lower() == "flat":
        area = np.nan_to_num(geom.to_image().solid_angle())
        flat = np.zeros(geom.data_shape)
        for band, (own, good) in enumerate(zip(counts, valid, strict=True)):
            total = max(float(own[good].sum()), 1.0)
            flat[band] = area * (total / max(float(area[good].sum()), 1e-300))
        notes.append(
            "the background is flat, with as many counts as the image: its norm is the share of "
            "the counts that is background"
        )
        return flat, np.broadcast_to(area > 0, geom.data_shape)
    found = _load("background", u.Quantity(source) if is_quantity(source) else source, geom)
    values = _sampled(found, geom, area=True)
    if len(values) != geom.data_shape[0]:
        raise DataError(
            f"{found.where}: has {len(values)} energy bands, the counts have {geom.data_shape[0]}"
        )
    own = found.axes[0] if len(found.axes) else None
    if len(values) > 1 and own is not None and not own.is_like(geom.axes["energy"]):
        raise DataError(f"{found.where}: its energy bins are not those of the counts")
    known = np.isfinite(values)
    values = np.where(known, values, 0.0)
    bad = (values < 0) | (values > LARGEST)
    if bad.any():
        raise DataError(f"{found.where}: {_at('background', values, bad)}; expected 0 or more")
    return values, known


def _exposure(
    source: Any, unit: str | None, geom: WcsGeom, notes: list[str]
) -> tuple[WcsNDMap, NDArray[np.bool_]]:
    """The exposure in m2 s over true energies, and where it is known."""
    axis = geom.axes["energy"]
    if source is None:
        notes.append(
            "no exposure: 1 cm2 s, so that a source's flux within the image's energies is its "
            "number of counts"
        )
        source = u.Quantity(1.0, "cm2 s")
    elif is_quantity(source):
        try:
            source = u.Quantity(source)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"exposure: {source!r} cannot be used; expected a path or one like '3e10 cm2 s'"
            ) from error
    found = _load("exposure", source, geom)
    if unit is None and not found.unit:
        notes.append(f"{found.where}: has no unit (BUNIT); taken as cm2 s")
    with_unit = unit or found.unit or "cm2 s"
    found = FileMap(
        found.where, found.image, found.axes, found.nodes, found.data, with_unit, found.header
    ).to(EXPOSURE_UNIT)
    values = _sampled(found, geom, area=False)
    known = np.isfinite(values)
    values = np.where(known, values, 0.0)
    bad = (values < 0) | (values > LARGEST)
    if bad.any():
        raise DataError(f"{found.where}: {_at('exposure', values, bad)} m2 s; expected 0 or more")
    if not values.any():
        raise DataError(f"{found.where}: is 0 everywhere on the counts; expected an exposure")
    values, true = _at_energies(found, values, axis)
    valid = np.broadcast_to(known.all(axis=0), geom.data_shape)
    cube = geom.to_image().to_cube([true])
    return WcsNDMap(cube, np.array(values), EXPOSURE_UNIT), valid


def _at_energies(found: FileMap, values: FloatArray, axis: MapAxis) -> tuple[FloatArray, MapAxis]:
    """Planes of an exposure on true-energy bins that fill the bands of the counts."""
    own = found.axes[0] if len(found.axes) else None
    like = len(values) == axis.nbin and (own is None or own.is_like(axis))
    if len(values) == 1 or like:
        planes = np.broadcast_to(values, (axis.nbin, *values.shape[1:]))
        return planes, MapAxis("energy_true", axis.bounds, "TeV", axis.interp)
    if own is None or not own.name.startswith("energy"):
        raise DataError(
            f"{found.where}: has {len(values)} planes, whose energies are not given, and the "
            f"counts have {axis.nbin} bands"
        )
    decades = np.diff(np.log10(axis.bounds))
    edges = [axis.bounds[:1]]
    for low, high, width in zip(axis.bounds, axis.bounds[1:], decades, strict=False):
        edges.append(np.geomspace(low, high, max(2, math.ceil(width * _PER_DECADE)) + 1)[1:])
    true = MapAxis("energy_true", np.concatenate(edges))
    matrix = energy_matrix(found.nodes[own.name], true.centers)
    # A power law between its energies, as exposures are, but where there is none.
    floor = 1e-30 * float(values.max())
    logs = np.tensordot(matrix, np.log(np.maximum(values, floor)), axes=1)
    return np.where(logs > math.log(floor) * (1 - 1e-9) + 1e-6, np.exp(logs), 0.0), true


def _psf(source: Any, geom: WcsGeom, edisp: EDispKernelMap, notes: list[str]) -> PSFMap:
    axis = edisp.energy_true
    if source is None:
        sigma = float(np.clip(max(geom.pixel_scales) / FWHM, PSF_WIDTHS[0], PSF_WIDTHS[-1]))
        notes.append(f"no PSF: a Gaussian of sigma {sigma:.4g} deg (FWHM of one pixel)")
        return constant_psf(gaussian_mixture(sigma), geom, axis)
    width = None if isinstance(source, WcsNDMap | PSFMap) else width_of(source)
    if width is not None:
        if width < float(PSF_WIDTHS[0]):
            notes.append(f"psf: sigma {width:g} deg is taken as {PSF_WIDTHS[0]:g} deg")
        return constant_psf(gaussian_mixture(width), geom, axis)
    if isinstance(source, PSFMap):
        raise DataError("psf: a PSFMap cannot be used; expected a width, an image or a table")
    if isinstance(source, Table):
        return constant_psf(psf_of_table(source, "psf", None, axis, notes), geom, axis)
    if isinstance(source, str | os.PathLike):
        return _psf_of_file(source, geom, edisp, notes)
    if not isinstance(source, WcsNDMap):
        kernel = np.asarray(source, dtype=float) if np.ndim(source) == 2 else None
        if kernel is None or min(kernel.shape) < 1:
            raise DataError(
                f"psf: {type(source).__name__} cannot be used; expected a width like '0.05 deg', "
                "an image of the kernel (path, WcsNDMap or 2D array), or a table of rad and psf"
            )
        bare = WcsGeom(geom.wcs, geom.shape)
        found = FileMap("psf", None, Axes(), {}, kernel, "", fits.Header())
        return psf_of_map(found, bare, axis, edisp, notes)
    return psf_of_map(_load("psf", source, geom), geom, axis, edisp, notes)


def _psf_of_file(
    source: str | os.PathLike[str], geom: WcsGeom, edisp: EDispKernelMap, notes: list[str]
) -> PSFMap:
    path, key = _split(source)
    axis = edisp.energy_true
    if not path.is_file():
        raise DataError(f"psf: {os.fspath(source)!r} is neither a width like '0.05 deg' nor a file")
    if path.suffix.lower() in TABLE_SUFFIXES:
        weights = psf_of_table(read_table(path), f"psf: {path}", None, axis, notes)
        return constant_psf(weights, geom, axis)
    with opened(path, strict=False) as hdus:
        hdu = _pick(hdus, path, "psf", key)
        where = f"psf: {path} [{hdu.name or hdus.index_of(hdu)}]"
        columns = (
            {str(name).upper() for name in getattr(hdu.columns, "names", ())}
            if (isinstance(hdu, fits.BinTableHDU))
            else set()
        )
        if columns and "DATA" not in columns:
            table = Table.read(hdu)
            return constant_psf(
                psf_of_table(table, where, fermi_theta(hdus), axis, notes), geom, axis
            )
        if is_image(hdu) and not _has_sky(hdu.header):
            data = np.squeeze(np.asarray(hdu.data, dtype=float))
            if data.ndim != 2:
                raise DataError(f"{where}: has {data.ndim} axes; expected an image")
            notes.append(f"{where}: has no sky coordinates; taken in pixels of the counts")
            found = FileMap(where, None, Axes(), {}, data, "", hdu.header)
        else:
            with naming(where):
                read = read_map(hdus, path, hdus.index_of(hdu))
            found = FileMap(
                where, read.image, read.axes, read.nodes, read.data, read.unit, read.header
            )
    return psf_of_map(found, geom, axis, edisp, notes)


def _has_sky(header: fits.Header) -> bool:
    kinds = [str(header.get(f"CTYPE{i}", "")) for i in (1, 2)]
    return any(kind[:4] in ("RA--", "DEC-", "GLON", "GLAT", "ELON", "ELAT") for kind in kinds)


def check_keys(entry: dict[str, Any], allowed: Sequence[str], where: str) -> None:
    """DataError naming a key that is not known."""
    for key in entry:
        if key not in allowed:
            raise DataError(f"{where}: key {key!r} is not known; expected {', '.join(allowed)}")
