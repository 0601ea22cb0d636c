"""Point spread functions as people have them, as a mixture of circular Gaussians.

`psf_of_images`
    From a width, an image of the kernel, or a table of a radial profile.
`mixture_of_kernel`, `mixture_of_profile`
    The last two as weights on `PSF_WIDTHS`: the non-negative mixture that is nearest in the mean
    square (Lawson & Hanson 1974, ch. 23). Numbers tell how near; what is far from circular, or
    from any such mixture, is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.table import Table
from scipy.special import erf

from .errors import DataError
from .fits_maps import FileMap, FloatArray, edges_between
from .irf.edisp import EDispKernelMap
from .irf.psf import PSF_WIDTHS, PSFMap, spread
from .maps import MapAxis, WcsGeom
from .response_io import energy_matrix, one_pixel, psf_map

FWHM = 2.0 * math.sqrt(2.0 * math.log(2.0))

# From where on the description is told, and from where on it is refused: the share of the photons
# that it puts elsewhere, and the long over the short axis of the kernel.
_TOLD = {"share": 0.05, "axes": 1.1}
_REFUSED = {"share": 0.25, "axes": 1.6}

_RADII = ("rad", "theta", "radius", "r", "offset", "separation", "angle")
_VALUES = ("psf", "psf_value", "value", "density", "profile", "intensity", "brightness")
TABLE_SUFFIXES = (".ecsv", ".csv", ".txt", ".dat")


def width_of(value: Any) -> float | None:
    """The width (sigma, degrees) that a value says, or None if it does not say one.

    "0.05 deg", an angle, a number of degrees, ``{"sigma": ...}``, ``{"fwhm": ...}`` or
    "fwhm 0.12 deg".
    """
    factor = 1.0
    if isinstance(value, Mapping):
        if len(value) != 1 or str(next(iter(value))).lower() not in ("sigma", "fwhm"):
            raise DataError(
                f"psf: {dict(value)!r} cannot be used; expected {{sigma: 0.05 deg}} or "
                "{fwhm: 0.12 deg}"
            )
        key, value = next(iter(value.items()))
        factor = 1.0 / FWHM if str(key).lower() == "fwhm" else 1.0
        found = _angle(value)
        if found is None:
            raise DataError(f"psf.{key}: {value!r} is not an angle; expected one like '0.05 deg'")
    else:
        if isinstance(value, str):
            word, _, rest = value.strip().partition(" ")
            if word.lower() in ("sigma", "fwhm") and rest:
                factor = 1.0 / FWHM if word.lower() == "fwhm" else 1.0
                value = rest.lstrip("= ")
        found = _angle(value)
    if found is None:
        return None
    sigma = found * factor
    if not 0 < sigma <= float(PSF_WIDTHS[-1]):
        raise DataError(
            f"psf: a Gaussian width of {sigma:g} deg cannot be used; expected more than 0 and at "
            f"most {PSF_WIDTHS[-1]:.3g} deg"
        )
    return sigma


def _angle(value: Any) -> float | None:
    """Degrees; None for what is no angle."""
    if isinstance(value, bool | Path):
        return None
    try:
        angle = u.Quantity(value)
    except (TypeError, ValueError):
        return None
    if angle.shape != ():
        return None
    if angle.unit == u.dimensionless_unscaled:
        return float(angle.value)
    if not angle.unit.is_equivalent(u.deg):
        return None
    return float(angle.to_value("deg"))


def gaussian_mixture(sigma: float) -> FloatArray:
    """A Gaussian of a width in degrees as weights (W,)."""
    return np.asarray(spread([sigma])[0])


def constant_psf(weights: FloatArray, geom: WcsGeom, axis: MapAxis) -> PSFMap:
    """A PSF that is the same everywhere, from weights (W,) or (T, W)."""
    cube = np.broadcast_to(weights, (axis.nbin, len(PSF_WIDTHS)))[:, :, None, None].copy()
    return PSFMap(one_pixel(geom.to_image()), axis, cube, np.ones((axis.nbin, 1, 1)))


def psf_of_map(
    found: FileMap,
    geom: WcsGeom,
    axis: MapAxis,
    edisp: EDispKernelMap,
    notes: list[str],
) -> PSFMap:
    """From an image (or a cube in energy) of the kernel, or from Gammapy's table of profiles."""
    if "rad" in found.axes.names:
        return psf_map(found, None, None, geom, axis, edisp)
    if len(found.axes) > 1:
        raise DataError(
            f"{found.where}: has axes {', '.join(found.axes.names)}; expected a kernel with at "
            "most one of energy"
        )
    image = found.image if found.image is not None else geom
    planes = found.data.reshape(-1, *found.data.shape[-2:])
    weights = np.stack(
        [mixture_of_kernel(plane, image.pixel_scales, found.where, notes) for plane in planes]
    )
    if len(found.axes):
        weights = energy_matrix(found.nodes[found.axes[0].name], axis.centers) @ weights
    elif len(weights) > 1:
        raise DataError(f"{found.where}: has {len(weights)} planes without energies")
    return constant_psf(weights, geom, axis)


def mixture_of_kernel(
    kernel: FloatArray, scales: tuple[float, float], where: str, notes: list[str]
) -> FloatArray:
    """The mixture (W,) nearest to an image of a point source.

    Each Gaussian is integrated over the pixels, so that the pixels do not widen the PSF; the
    kernel's own centroid is its centre.

    Parameters
    ----------
    kernel : ndarray, shape (ny, nx)
        In any unit; what is not finite counts as 0.
    scales : (float, float)
        Degrees along x and y.
    where : str
    notes : list of str
        What to tell is added here.
    """
    image = np.nan_to_num(np.asarray(kernel, dtype=float), nan=0.0, posinf=0.0, neginf=0.0)
    total = float(image.sum())
    if not total > 0 or float(image.min()) < -0.05 * float(image.max()):
        raise DataError(
            f"{where}: cannot be a point spread function: its pixels add up to {total:g} and "
            f"reach from {image.min():g} to {image.max():g}"
        )
    image = np.maximum(image, 0.0)
    image = image / image.sum()
    x, y = (np.arange(n) * s for n, s in zip(image.shape[::-1], scales, strict=True))
    x0, y0 = float(image.sum(axis=0) @ x), float(image.sum(axis=1) @ y)
    dx, dy = x - x0, y - y0
    xx, yy = image.sum(axis=0) @ dx**2, image.sum(axis=1) @ dy**2
    # A pixel has a width of its own.
    spread_xy = np.array([[xx, dy @ image @ dx], [dy @ image @ dx, yy]])
    spread_xy += np.diag([scales[0] ** 2, scales[1] ** 2]) / 12.0
    short, long = np.linalg.eigvalsh(spread_xy)
    ratio = math.sqrt(float(long) / max(float(short), 1e-300))
    extent = 0.5 * min(image.shape[1] * scales[0], image.shape[0] * scales[1])
    low, high = 0.3 * min(scales), max(0.6 * extent, 0.3 * min(scales))
    known = _known(low, high)
    along_x, along_y = (
        np.diff(erf((np.append(d, d[-1] + s) - 0.5 * s) / (math.sqrt(2) * PSF_WIDTHS[known, None])))
        / 2.0
        for d, s in ((dx, scales[0]), (dy, scales[1]))
    )
    design = np.einsum("wy,wx->yxw", along_y, along_x).reshape(image.size, -1)
    found = _nonnegative(design, image.ravel())
    share = 0.5 * float(np.abs(design @ found - image.ravel()).sum())
    off = math.hypot(
        x0 / scales[0] - (image.shape[1] - 1) / 2, y0 / scales[1] - (image.shape[0] - 1) / 2
    )
    if off > 0.5:
        notes.append(
            f"{where}: the centroid of the kernel is {off:.2g} pixels off its middle; centred"
        )
    _judge(where, share, ratio, notes)
    return _weights(found, known)


def mixture_of_profile(
    rad: FloatArray, values: FloatArray, where: str, notes: list[str]
) -> FloatArray:
    """The mixture (W,) nearest to a surface brightness at radii (N,) in degrees."""
    order = np.argsort(rad, kind="stable")
    rad, values = np.asarray(rad, dtype=float)[order], np.asarray(values, dtype=float)[order]
    if len(rad) < 4 or not np.all(np.isfinite(rad)) or rad[0] < 0 or not np.all(np.diff(rad) > 0):
        raise DataError(
            f"{where}: its radii {rad[:4].tolist()} ... cannot be used; expected at least 4 that "
            "increase from 0 or more, in degrees"
        )
    if not np.all(np.isfinite(values)) or values.min() < 0 or not values.max() > 0:
        raise DataError(
            f"{where}: its profile reaches from {values.min():g} to {values.max():g}; expected "
            "a finite density of 0 or more"
        )
    edges = np.maximum(edges_between(rad, "lin"), 0.0)
    edges[0] = 0.0
    area = np.pi * np.diff(edges**2)
    known = _known(0.5 * float(np.diff(rad).min()), 0.6 * float(rad[-1]))
    basis = np.exp(-0.5 * (rad[:, None] / PSF_WIDTHS[known]) ** 2)
    basis /= 2.0 * np.pi * PSF_WIDTHS[known] ** 2
    content = values * area
    total = float(content.sum())
    scale = np.sqrt(area)
    # Between the peak (no area) and the containment (area).
    found = _nonnegative(basis * scale[:, None], values / total * scale)
    share = 0.5 * float(np.abs((basis @ found) * area - content / total).sum())
    _judge(where, share, 1.0, notes)
    return _weights(found, known)


def _nonnegative(design: FloatArray, values: FloatArray) -> FloatArray:
    """The non-negative weights (W,) for which ``design`` (N, W) comes nearest to ``values``.

    Neighbouring widths are nearly dependent: columns of length 1 and a small ridge keep the search
    from going round in circles.
    """
    # Only here: it takes a third of a second to load, and a reduction has no use for it.
    from scipy.optimize import nnls

    length = np.sqrt((design**2).sum(axis=0))
    q, r = np.linalg.qr(design / length)
    ridge = 1e-5 * np.eye(r.shape[1])
    right = np.concatenate([q.T @ values, np.zeros(r.shape[1])])
    found, _ = nnls(np.concatenate([r, ridge]), right, maxiter=100 * r.shape[1])
    return np.asarray(found / length)


def _known(low: float, high: float) -> np.ndarray:
    """Places of the widths that an image or a table can tell; at least one."""
    known = np.flatnonzero((low <= PSF_WIDTHS) & (high >= PSF_WIDTHS))
    if len(known):
        return known
    return np.array([int(np.argmin(np.abs(np.log(PSF_WIDTHS / max(low, 1e-9)))))])


def _weights(found: FloatArray, known: np.ndarray) -> FloatArray:
    weights = np.zeros(len(PSF_WIDTHS))
    weights[known] = found / found.sum()
    return weights


def _judge(where: str, share: float, ratio: float, notes: list[str]) -> None:
    said = (
        f"{where}: circular Gaussians put {100 * share:.1f} % of the photons elsewhere; the long "
        f"axis of the PSF is {ratio:.2f} times the short one"
    )
    if share > _REFUSED["share"] or ratio > _REFUSED["axes"]:
        raise DataError(
            f"{said}; expected at most {100 * _REFUSED['share']:.0f} % and {_REFUSED['axes']:g}"
        )
    if share > _TOLD["share"] or ratio > _TOLD["axes"]:
        notes.append(said)


# Tables


def psf_of_table(
    table: Table, where: str, theta: FloatArray | None, axis: MapAxis, notes: list[str]
) -> FloatArray:
    """Weights (T, W) from columns rad and psf, or from Fermi's table of Energy and Psf.

    Parameters
    ----------
    theta : ndarray or None
        The radii (degrees) of Fermi's table, which stand in an HDU of their own.
    """
    names = {str(name).lower(): name for name in table.colnames}
    if theta is not None and {"energy", "psf"} <= set(names):
        energies = _values(table, names["energy"], "TeV", "MeV", where, notes)
        profiles = np.asarray(table[names["psf"]], dtype=float)
        good = energies > 0
        if profiles.shape != (len(energies), len(theta)) or not good.any():
            raise DataError(
                f"{where}: has profiles of shape {profiles.shape}; expected "
                f"({len(energies)}, {len(theta)}) for its energies and radii"
            )
        rows = [mixture_of_profile(theta, row, where, notes) for row in profiles[good]]
        return energy_matrix(energies[good], axis.centers) @ np.stack(rows)
    rad = next((names[key] for key in _RADII if key in names), None)
    value = next((names[key] for key in _VALUES if key in names), None)
    if rad is None or value is None or np.ndim(table[value]) != 1:
        raise DataError(
            f"{where}: has the columns {', '.join(table.colnames)}; expected rad (an angle) and "
            "psf (a density at that radius)"
        )
    radii = _values(table, rad, "deg", "deg", where, notes)
    return mixture_of_profile(radii, np.asarray(table[value], dtype=float), where, notes)[None]


def _values(
    table: Table, name: str, unit: str, default: str, where: str, notes: list[str]
) -> FloatArray:
    found = table[name].unit
    if found is None:
        notes.append(f"{where}: column {name} has no unit; taken as {default}")
        found = default
    try:
        factor = float(u.Unit(found).to(unit))
        return np.asarray(table[name], dtype=float) * factor
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{where}: column {name} has unit {str(found)!r}, expected one like {unit!r}"
        ) from error


def read_table(path: Path) -> Table:
    """A table of text: ECSV, or columns with commas or blanks and their names in the first line."""
    try:
        if path.suffix.lower() == ".ecsv":
            return Table.read(path, format="ascii.ecsv")
        return Table.read(path, format="ascii.csv" if path.suffix == ".csv" else "ascii")
    except Exception as error:
        # astropy's readers raise what the text happens to break.
        text = str(error).strip().split("\n")[0]
        raise DataError(f"{path}: cannot be read as a table ({text})") from error


def fermi_theta(hdus: fits.HDUList) -> FloatArray | None:
    """The radii in degrees of a file of Fermi's gtpsf, if it is one."""
    for hdu in hdus:
        if hdu.name.upper() == "THETA" and "Theta" in getattr(hdu.columns, "names", ()):
            return np.asarray(hdu.data["Theta"], dtype=float)
    return None
