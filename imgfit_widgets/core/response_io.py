"""Responses of a dataset file, on the grids that the fit works with.

Gammapy keeps PSF and energy dispersion on the counts' own projection, on one all-sky pixel, or on
a region, and tabulates them against true energy nodes of their own. Here all of them come to the
counts' projection and to the exposure's true-energy bins:

`psf_map`
    PSFMap (energy_true, rad), or RecoPSFMap (energy, rad), as mixtures of Gaussians.
`edisp_map`
    EDispKernelMap (energy, energy_true), or EDispMap (migra, energy_true), as kernels.
`identity_edisp`
    What stands for a missing energy dispersion.
`exposure_on`
    The exposure on the counts' pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .fits_maps import LARGEST, FileMap
from .irf.edisp import THRESHOLD, EDispKernelMap
from .irf.psf import PSFMap
from .maps import MapAxis, WcsGeom, WcsNDMap

log = logging.getLogger(__name__)

FloatArray = NDArray[np.float64]

EXPOSURE_UNIT = "m2 s"
WHOLE_BIN = "whole_bin"
"""In META of an energy dispersion: of whole true-energy bins, per exposure at their centre."""
# Nodes along the longer side of a response that has to be sampled anew.
_MOST_NODES = 24


# Where: one grid in the counts' projection


def one_pixel(geom: WcsGeom) -> WcsGeom:
    """One pixel that covers a geometry."""
    return geom.downsample(max(geom.shape))


def _is_affine(geom: WcsGeom, other: WcsGeom) -> bool:
    """Whether the pixels of two maps are tied by a linear relation: projected alike."""
    ny, nx = geom.shape
    grid = np.meshgrid(np.linspace(0, nx - 1.0, 5), np.linspace(0, ny - 1.0, 5))
    x, y = (v.ravel() for v in grid)
    target = np.stack(_pixels_of(geom, x, y, other))
    good = np.all(np.isfinite(target), axis=0)
    if good.sum() < min(good.size, 8):
        return False
    design = np.stack([np.ones_like(x), x, y], axis=1)[good]
    solved = np.linalg.lstsq(design, target[:, good].T, rcond=None)[0]
    return bool(np.abs(design @ solved - target[:, good].T).max() < 1e-6)


def _pixels_of(
    geom: WcsGeom, x: FloatArray, y: FloatArray, other: WcsGeom
) -> tuple[FloatArray, FloatArray]:
    """Pixels of ``other`` at pixels of ``geom``; across the seam of an all-sky map too."""
    lon, lat = geom.pix_to_lonlat(x, y)
    ox, oy = other.lonlat_to_pix(*other.from_frame(lon, lat, geom.frame))
    turn = 360.0 / other.binsz[0]
    if other.projection == "CAR" and other.npix[0] >= turn - 1e-6:
        with np.errstate(invalid="ignore"):
            ox = (ox + 0.5) % turn - 0.5
    return ox, oy


def on_counts_grid(found: FileMap, data: FloatArray, geom: WcsGeom) -> tuple[WcsGeom, FloatArray]:
    """Values (..., ny, nx) of a map, on a grid in the projection of the counts.

    A region, or a map that is the same everywhere, is one pixel. A map in the counts' projection
    stays as it is; any other is interpolated (bilinear) to about its own resolution.

    Raises
    ------
    DataError
        If it does not cover any of the counts' map.
    """
    own, image = found.image, geom.to_image()
    if own is not None:
        _refuse_elsewhere(found.where, own, image)
    if own is None or not np.ptp(data, axis=(-2, -1)).any():
        return one_pixel(image), np.ascontiguousarray(data[..., :1, :1])
    if _is_affine(image, own):
        return own, data
    step = max(1, int(min(own.pixel_scales) / max(image.pixel_scales)))
    step = max(step, -(-max(image.shape) // _MOST_NODES))
    target = image.downsample(step)
    y, x = np.mgrid[: target.shape[0], : target.shape[1]].astype(float)
    return target, _bilinear(data, *_pixels_of(target, x, y, own))


def _refuse_elsewhere(where: str, own: WcsGeom, geom: WcsGeom) -> None:
    ny, nx = geom.shape
    grid = np.meshgrid(np.linspace(0, nx - 1.0, 25), np.linspace(0, ny - 1.0, 25))
    x, y = _pixels_of(geom, grid[0].ravel(), grid[1].ravel(), own)
    width, height = own.npix
    with np.errstate(invalid="ignore"):
        inside = (x > -1.0) & (x < width) & (y > -1.0) & (y < height)
    if not inside.any():
        at, here = own.center_lonlat, geom.center_lonlat
        raise DataError(
            f"{where}: lies on another part of the sky (around {at[0]:.4g}, {at[1]:.4g} deg "
            f"{own.frame}) than the counts (around {here[0]:.4g}, {here[1]:.4g} deg {geom.frame})"
        )


def _bilinear(data: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """Values at pixel positions, those of the border beyond it; 0 where there is no sky."""
    ny, nx = data.shape[-2:]
    good = np.isfinite(x) & np.isfinite(y)
    x, y = (np.clip(np.where(good, v, 0.0), 0.0, n - 1.0) for v, n in ((x, nx), (y, ny)))
    i, j = (np.floor(v).astype(int) for v in (x, y))
    i1, j1 = np.minimum(i + 1, nx - 1), np.minimum(j + 1, ny - 1)
    u, v = x - i, y - j
    found = (1 - v) * ((1 - u) * data[..., j, i] + u * data[..., j, i1])
    found = found + v * ((1 - u) * data[..., j1, i] + u * data[..., j1, i1])
    return np.asarray(np.where(good, found, 0.0))


# At which energies: the exposure's


def energy_matrix(nodes: FloatArray, energies: FloatArray) -> FloatArray:
    """Matrix (energies, nodes) that interpolates linearly in log E; the outer nodes beyond them."""
    if len(nodes) == 1:
        return np.ones((len(energies), 1))
    x = np.clip(np.log(energies), np.log(nodes[0]), np.log(nodes[-1]))
    low = np.clip(np.searchsorted(np.log(nodes), x, side="right") - 1, 0, len(nodes) - 2)
    share = (x - np.log(nodes[low])) / np.log(nodes[low + 1] / nodes[low])
    matrix = np.zeros((len(energies), len(nodes)))
    rows = np.arange(len(energies))
    matrix[rows, low] = 1.0 - share
    matrix[rows, low + 1] += share
    return matrix


def at_energies(
    found: FileMap, data: FloatArray, axis: MapAxis | None
) -> tuple[MapAxis, FloatArray]:
    """Values (T, ...) at the true energies of an axis: as they are if they stand for its bins."""
    own = found.axes["energy_true"]
    if axis is None:
        return own, data
    nodes = found.nodes["energy_true"]
    if own.nbin == axis.nbin and np.all(
        (axis.centers > own.bounds[:-1]) & (axis.centers < own.bounds[1:])
    ):
        return axis, data
    outside = axis.centers[(axis.centers < own.bounds[0]) | (axis.centers > own.bounds[-1])]
    if len(nodes) > 1 and len(outside):
        log.warning(
            "%s: begins at %.3g and ends at %.3g TeV; taken as at its ends for the exposure's "
            "%d bins beyond",
            found.where, own.bounds[0], own.bounds[-1], len(outside),
        )  # fmt: skip
    return axis, np.asarray(np.tensordot(energy_matrix(nodes, axis.centers), data, axes=1))


def _clean(values: FloatArray) -> FloatArray:
    return np.asarray(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0))


# What


def exposure_on(found: FileMap, geom: WcsGeom, energy: MapAxis) -> WcsNDMap:
    """The exposure (T, ny, nx) in m2 s on the pixels of the counts; 0 off its own map.

    An axis ``energy`` is taken as that of true energy, as Gammapy does; a single node holds for
    all energies of the counts (``energy``).
    """
    found = found.to(EXPOSURE_UNIT)
    names = found.axes.names
    if len(names) != 1 or names[0] not in ("energy_true", "energy"):
        raise DataError(
            f"{found.where}: its axes are {', '.join(names) or 'none'}; expected energy_true"
        )
    axis = found.axes[0]
    bounds = energy.bounds[[0, -1]] if len(found.nodes[names[0]]) == 1 else axis.bounds
    axis = MapAxis("energy_true", bounds, "TeV", "log" if bounds[0] > 0 else "lin")
    data = _clean(found.data)
    if float(data.min()) < 0 or float(data.max()) > LARGEST:
        bad = float(data.min() if data.min() < 0 else data.max())
        raise DataError(f"{found.where}: holds {bad:g} m2 s; expected an exposure of 0 or more")
    image, target = found.image, geom.to_image()
    if image is None:
        data = np.broadcast_to(data, (*data.shape[:-2], *target.shape)).copy()
    elif not image.is_aligned(target):
        _refuse_elsewhere(found.where, image, target)
        y, x = np.mgrid[: target.shape[0], : target.shape[1]].astype(float)
        px, py = _pixels_of(target, x, y, image)
        width, height = image.npix
        with np.errstate(invalid="ignore"):
            inside = (px >= -0.5) & (px <= width - 0.5) & (py >= -0.5) & (py <= height - 0.5)
        data = np.where(inside, _bilinear(data, px, py), 0.0)
    return WcsNDMap(target.to_cube([axis]), data, EXPOSURE_UNIT)


def weights_of(exposure: FileMap | None, shape: Sequence[int]) -> FloatArray:
    """What a response map is weighted with when stacked, (T, y, x); ones if there is nothing."""
    if exposure is None or exposure.data.size != int(np.prod(shape)):
        return np.ones(tuple(shape))
    return _clean(exposure.to(EXPOSURE_UNIT).data.reshape(tuple(shape)))


def edisp_map(
    found: FileMap, exposure: FileMap | None, geom: WcsGeom, energy: MapAxis, axis: MapAxis | None
) -> EDispKernelMap:
    """Kernels (T, R, y, x) from kernels or from a density in migra, at the exposure's energies.

    A density in migra is accumulated from its lower end and read at the edges of the reconstructed
    bins, for photons at the centre (or node) of each true-energy bin.
    """
    if "migra" in found.axes.names:
        data = _from_migra(found, energy)
    else:
        data = _clean(found.ordered("energy_true", "energy"))
        if not found.axes["energy"].is_like(energy):
            raise DataError(f"{found.where}: its energy bins differ from those of COUNTS")
    total = data.sum(axis=1)
    # What a whole bin gives, per area at its centre, may be any number where that area is small.
    most = np.inf if WHOLE_BIN in str(found.header.get("META", "")) else 1.5
    if float(data.min()) < -0.01 or not float(total.max()) <= most:
        raise DataError(
            f"{found.where}: probabilities reach from {data.min():g} to {total.max():g} in a "
            "true-energy bin; expected 0 to 1"
        )
    weights = weights_of(exposure, (len(data), *data.shape[-2:]))
    grid, both = on_counts_grid(found, np.concatenate([data, weights[:, None]], axis=1), geom)
    own, both = at_energies(found, both, axis)
    return EDispKernelMap(grid, energy, own, np.ascontiguousarray(both[:, :-1]), both[:, -1])


def _from_migra(found: FileMap, energy: MapAxis) -> FloatArray:
    density = _clean(found.ordered("energy_true", "migra"))
    bounds = found.axes["migra"].bounds
    running = np.zeros((len(density), len(bounds), *density.shape[2:]))
    np.cumsum(density * np.diff(bounds)[:, None, None], axis=1, out=running[:, 1:])
    kernel = np.empty((len(density), energy.nbin, *density.shape[2:]))
    for row, node in enumerate(found.nodes["energy_true"]):
        at = np.clip(energy.bounds / node, bounds[0], bounds[-1])
        low = np.clip(np.searchsorted(bounds, at, side="right") - 1, 0, len(bounds) - 2)
        share = ((at - bounds[low]) / (bounds[low + 1] - bounds[low]))[:, None, None]
        below = running[row][low] * (1.0 - share) + running[row][low + 1] * share
        kernel[row] = np.diff(below, axis=0)
    kernel[kernel < THRESHOLD] = 0.0
    return kernel


def identity_edisp(geom: WcsGeom, energy: MapAxis, axis: MapAxis) -> EDispKernelMap:
    """Reconstructed energy is true energy: each true bin's part inside each reconstructed one.

    A true-energy bin that an edge cuts is shared as the photons of a spectrum of index 2 are.
    """
    low = np.maximum(axis.bounds[:-1, None], energy.bounds[None, :-1])
    high = np.minimum(axis.bounds[1:, None], energy.bounds[None, 1:])
    whole = 1.0 / axis.bounds[:-1] - 1.0 / axis.bounds[1:]
    inside = np.where(high > low * (1 + 1e-9), 1.0 / low - 1.0 / np.maximum(high, low), 0.0)
    kernel = np.minimum(inside / whole[:, None], 1.0)
    # Edges that agree to rounding leave nothing on the other side.
    kernel = np.where(kernel > 1 - 1e-6, 1.0, np.where(kernel < 1e-6, 0.0, kernel))
    return EDispKernelMap(
        one_pixel(geom.to_image()), energy, axis, kernel[:, :, None, None],
        np.ones((axis.nbin, 1, 1)),
    )  # fmt: skip


def psf_map(
    found: FileMap,
    exposure: FileMap | None,
    exact: FloatArray | None,
    geom: WcsGeom,
    axis: MapAxis | None,
    edisp: EDispKernelMap | None,
) -> PSFMap:
    """Mixtures (T, W, y, x) from profiles in true or reconstructed energy.

    Parameters
    ----------
    exact : ndarray, shape (T, W, y, x), or None
        The mixture itself, in a file of this program's.
    edisp : `EDispKernelMap` or None
        For a PSF in reconstructed energy: that of a true energy is the mean over the reconstructed
        energies that its photons are found at, which is exact for one band or none dispersed.
    """
    energy = "energy" if "energy" in found.axes.names else "energy_true"
    profiles = _clean(found.ordered(energy, "rad"))
    if float(profiles.min()) < 0 and float(profiles.min()) < -1e-3 * float(profiles.max()):
        raise DataError(f"{found.where}: holds {profiles.min():g}; expected a density of 0 or more")
    if exact is not None:
        weights = exact
    else:
        rad = found.axes["rad"]
        own = found.image or one_pixel(geom)
        table = PSFMap.from_table(own, found.axes[energy], rad, profiles, np.empty(0))
        weights = table.weights
        lost = (profiles.max(axis=1) > 0) & ~(np.abs(weights).sum(axis=1) > 0)
        if lost.any():
            raise DataError(
                f"{found.where}: a profile cannot be described by Gaussians of {rad.bounds[1]:.3g} "
                f"to {rad.bounds[-1]:.3g} deg; expected one that falls off within its "
                f"{rad.nbin} radii"
            )
    held = weights_of(exposure, (len(weights), *weights.shape[-2:]))
    grid, both = on_counts_grid(found, np.concatenate([weights, held[:, None]], axis=1), geom)
    if energy == "energy":
        target, both = _to_true_energy(found, both, axis, edisp)
    else:
        target, both = at_energies(found, both, axis)
    return PSFMap(grid, target, np.ascontiguousarray(both[:, :-1]), both[:, -1])


def _to_true_energy(
    found: FileMap, data: FloatArray, axis: MapAxis | None, edisp: EDispKernelMap | None
) -> tuple[MapAxis, FloatArray]:
    if axis is None or edisp is None:
        raise DataError(
            f"{found.where}: is in reconstructed energy; expected an exposure that says which true "
            "energies there are"
        )
    log.info(
        "%s: is in reconstructed energy; taken at each true energy as the mean over the energies "
        "that its photons are found at",
        found.where,
    )
    kernel = edisp.data.mean(axis=(2, 3))
    empty = kernel.sum(axis=1) <= 0
    nearest = np.argmin(np.abs(np.log(axis.centers[:, None] / edisp.energy.centers)), axis=1)
    kernel[empty, nearest[empty]] = 1.0
    kernel = kernel / kernel.sum(axis=1, keepdims=True)
    at = energy_matrix(found.nodes["energy"], edisp.energy.centers)
    return axis, np.asarray(np.tensordot(kernel @ at, data, axes=1))
