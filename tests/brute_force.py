"""Expected counts of an extended source by adding up its parts: no Fourier, no plane, no core.

The source is cut into many small parts in polar coordinates around its centre, each with the
brightness that Gammapy's documentation defines, the exposure where it lies and its true place on
the sphere. Every part puts the PSF's Gaussians into every pixel, by true angular distance,
integrated over the pixel by 2 x 2 Gauss-Legendre points with the pixel's solid angle.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from scipy.ndimage import map_coordinates
from scipy.special import erf, gamma

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(2)


def profile(spatial: Any, rho: Any) -> Any:
    """Brightness per square degree at an elliptical radius in degrees along the major axis."""
    v = {p.name: p.value for p in spatial.parameters}
    q = np.sqrt(1.0 - v.get("e", 0.0) ** 2)
    kind = type(spatial).__name__
    if kind == "GaussianSpatialModel":
        s = v["sigma"]
        return np.exp(-0.5 * (rho / s) ** 2) / (2 * np.pi * s * s * q)
    if kind == "DiskSpatialModel":
        width = max(v["edge_width"], 1e-9)
        edge = 0.5 * (1 - erf((rho / v["r_0"] - 1) / width * 2.326174307353347))
        return edge / (np.pi * v["r_0"] ** 2 * q)
    if kind == "GeneralizedGaussianSpatialModel":
        norm = 2 * np.pi * v["r_0"] ** 2 * q * v["eta"] * gamma(2 * v["eta"])
        return np.exp(-((rho / v["r_0"]) ** (1 / v["eta"]))) / norm
    outer = v["r_0"] if kind == "Shell2SpatialModel" else v["radius"] + v["width"]
    inner = v["r_0"] * (1 - v["eta"]) if kind == "Shell2SpatialModel" else v["radius"]
    root = [np.sqrt(np.clip(r * r - rho * rho, 0, None)) for r in (outer, inner)]
    return 3 / (2 * np.pi * (outer**3 - inner**3)) * (root[0] - root[1])


def breaks(spatial: Any) -> list[float]:
    """Radii (deg) between which the profile is smooth; the last one ends it."""
    v = {p.name: p.value for p in spatial.parameters}
    kind = type(spatial).__name__
    if kind == "GaussianSpatialModel":
        return [0.0, 2 * v["sigma"], 5 * v["sigma"]]
    if kind == "DiskSpatialModel":
        r, w = v["r_0"], max(v["edge_width"], 1e-9)
        return [0.0, *(r * x for x in sorted({max(0.05, 1 - 1.5 * w), 1.0, 1 + 1.5 * w}))]
    if kind == "GeneralizedGaussianSpatialModel":
        return [0.0, *(v["r_0"] * t ** v["eta"] for t in (0.02, 0.5, 3.0, 20.0))]
    if kind == "Shell2SpatialModel":
        return [0.0, v["r_0"] * (1 - v["eta"]), v["r_0"]]
    return [0.0, v["radius"], v["radius"] + v["width"]]


def parts(spatial: Any, frame: str, step: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Longitude and latitude (deg, in ``frame``) and flux of parts about ``step`` degrees apart."""
    v = {p.name: p.value for p in spatial.parameters}
    q, phi = np.sqrt(1 - v.get("e", 0.0) ** 2), v.get("phi", 0.0)
    rings = []
    edges = breaks(spatial)
    for a, b in pairwise(edges):
        x, w = np.polynomial.legendre.leggauss(8 + int(1.5 * (b - a) / step))
        # r = a + (b - a) sin^2: roots at either end become smooth.
        t = np.pi / 4 * (x + 1)
        rings += zip(
            a + (b - a) * np.sin(t) ** 2, w * np.pi / 4 * (b - a) * np.sin(2 * t), strict=True
        )
    along, across, flux = [], [], []
    for rho, weight in rings:
        n = 8 + int(2 * np.pi * rho / step)
        angle = 2 * np.pi * (np.arange(n) + 0.5) / n
        along.append(rho * np.cos(angle))
        across.append(rho * np.sin(angle) * q)
        flux.append(np.full(n, profile(spatial, rho) * rho * weight * q * 2 * np.pi / n))
    north, east = np.concatenate(along), np.concatenate(across)
    centre = SkyCoord(v["lon_0"], v["lat_0"], unit="deg", frame=spatial.frame)
    position = np.degrees(np.arctan2(east, north)) + phi
    sky = centre.directional_offset_by(position * u.deg, np.hypot(north, east) * u.deg)
    sky = sky.transform_to(frame).spherical
    return sky.lon.deg, sky.lat.deg, np.concatenate(flux)


def sample(values: np.ndarray, geom: Any, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Values (..., y, x) between pixel centres; (..., n)."""
    x, y = geom.lonlat_to_pix(lon, lat)
    ny, nx = values.shape[-2:]
    x, y = np.clip(x, 0, nx - 1.001), np.clip(y, 0, ny - 1.001)
    i, j = x.astype(int), y.astype(int)
    a, b = x - i, y - j
    low = values[..., j, i] * (1 - a) + values[..., j, i + 1] * a
    high = values[..., j + 1, i] * (1 - a) + values[..., j + 1, i + 1] * a
    return low * (1 - b) + high * b


def expected_counts(dataset: Any, model: Any, apart: float | None = None) -> np.ndarray:
    """Counts of an extended source, shape (band, y, x); power law PL2 with its index.

    Parts lie ``apart`` degrees, or as far as the PSF does not tell.
    """
    geom, spatial = dataset.geom, model.spatial_model
    lon, lat, flux = parts(spatial, geom.frame, apart or 0.7 * float(dataset.psf.widths.min()))
    at = spatial.position.transform_to(geom.frame).spherical
    here = np.array([at.lon.deg]), np.array([at.lat.deg])
    edisp = sample(dataset.edisp.data, dataset.edisp.geom, *here)[..., 0]
    weights = sample(dataset.psf.weights, dataset.psf.geom, *here)[..., 0]
    exposure = sample(dataset.exposure.data, dataset.exposure.geom, lon, lat) * 1e4
    v = {p.name: p.value for p in model.spectral_model.parameters}
    g = 1.0 - v["index"]
    edges = dataset.energy_axis_true.bounds
    scale = v["amplitude"] / (v["emax"] ** g - v["emin"] ** g)
    spectrum = scale * (edges[1:] ** g - edges[:-1] ** g)
    # By band and width, what each part emits: (R, W, n).
    emitted = np.einsum("t,tr,tw,tn->rwn", spectrum, edisp, weights, exposure * flux)
    towards = _vectors(lon, lat)
    ny, nx = geom.shape
    found = np.zeros((edisp.shape[1], ny * nx))
    solid = geom.solid_angle().ravel() * np.degrees(1.0) ** 2
    y, x = np.mgrid[:ny, :nx].astype(float)
    for dy, wy in zip(_NODES / 2, _WEIGHTS / 2, strict=True):
        for dx, wx in zip(_NODES / 2, _WEIGHTS / 2, strict=True):
            pixel = _vectors(*geom.pix_to_lonlat(x + dx, y + dy)).reshape(3, -1)
            widest = float(dataset.psf.widths.max())
            reached = np.flatnonzero(_near(pixel, towards, 6.5 * widest))
            for some in np.array_split(
                reached, max(1, len(reached) * towards.shape[1] // 4_000_000)
            ):
                # 1 - cos(d) by the cosine is good to 1e-16: d to 1e-8 rad.
                half = np.degrees(1.0) ** 2 * (1.0 - pixel[:, some].T @ towards)
                for k, w in enumerate(dataset.psf.widths):
                    kernel = np.exp(-half / w**2) / (2 * np.pi * w * w)
                    found[:, some] += wx * wy * solid[some] * (kernel @ emitted[:, k].T).T
    return found.reshape(-1, ny, nx)


def expected_counts_near_equator(dataset: Any, model: Any, sub: int = 6) -> np.ndarray:
    """Counts (y, x) of a source of any size on square pixels around (0, 0), one PSF for all of it.

    Brightness by true angular distance times the exposure, linear between the centres of its
    pixels and continued beyond the map, on ``sub``^2 points a pixel; the PSF on the flat sky, which
    a degree from the equator is right to 2e-4.
    """
    spatial, (ny, nx) = model.spatial_model, dataset.geom.shape
    v = {p.name: p.value for p in spatial.parameters}
    q, pixel = np.sqrt(1.0 - v.get("e", 0.0) ** 2), dataset.geom.binsz[0]
    here = np.array([v["lon_0"]]), np.array([v["lat_0"]])
    edisp, weights = (
        sample(values, irf.geom, *here)[..., 0] if values.shape[-1] > 1 else values[..., 0, 0]
        for irf, values in ((dataset.edisp, dataset.edisp.data), (dataset.psf, dataset.psf.weights))
    )
    used = weights.max(axis=0) > 1e-9
    widths, weights = dataset.psf.widths[used], weights[:, used]
    margin = int(np.ceil(5 * widths.max() / pixel))
    y, x = ((np.arange((n + 2 * margin) * sub) + 0.5) / sub - 0.5 - margin for n in (ny, nx))
    lat, lon = np.radians((y - 0.5 * (ny - 1)) * pixel)[:, None], (0.5 * (nx - 1) - x) * pixel
    b, away = np.radians(v["lat_0"]), np.radians(lon - v["lon_0"])
    east = np.cos(lat) * np.sin(away)
    north = np.cos(b) * np.sin(lat) - np.sin(b) * np.cos(lat) * np.cos(away)
    out = np.sin(b) * np.sin(lat) + np.cos(b) * np.cos(lat) * np.cos(away)
    distance = np.degrees(np.arctan2(np.hypot(east, north), out))
    angle = np.arctan2(east, north) - np.radians(v.get("phi", 0.0))
    rho = np.hypot(distance * np.cos(angle), distance * np.sin(angle) / q)
    image = profile(spatial, rho) * (pixel / sub) ** 2 * np.cos(lat)
    value = {p.name: p.value for p in model.spectral_model.parameters}
    g, edges = 1.0 - value["index"], dataset.energy_axis_true.bounds
    flux = value["amplitude"] * np.diff(edges**g) / (value["emax"] ** g - value["emin"] ** g)
    there = np.meshgrid(np.clip(y, 0, ny - 1), np.clip(x, 0, nx - 1), indexing="ij")
    found = np.zeros((ny, nx))
    for k, width in enumerate(widths):
        emitted = (flux * 1e4 * edisp[:, 0]) * weights[:, k]
        exposure = np.tensordot(emitted, dataset.exposure.data, axes=1)
        lit = image * map_coordinates(exposure, there, order=1)
        scale = pixel / (width * np.sqrt(2.0))
        to_y, to_x = (
            0.5 * np.diff(erf((np.arange(n + 1)[:, None] - 0.5 - fine) * scale), axis=0)
            for n, fine in ((ny, y), (nx, x))
        )
        found += to_y @ lit @ to_x.T
    return found


def exposure_over(dataset: Any, model: Any, image: np.ndarray) -> np.ndarray:
    """What the slope of the exposure makes of an image with that of the centre all over a Gaussian.

    The reference's truth is such an image, in one band and pixels of 0.02 deg. To first order, and
    as if all true energies had the same slope, that of their sum.
    """
    spatial = model.spatial_model
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] * 0.02
    centre = [(image * axis).sum() / image.sum() for axis in (y, x)]
    variance = (image * ((y - centre[0]) ** 2 + (x - centre[1]) ** 2)).sum() / image.sum() / 2.0
    lon, lat = spatial.lon_0.value, spatial.lat_0.value
    here = np.array([lon]), np.array([lat])
    edisp = sample(np.asarray(dataset.edisp.data), dataset.edisp.geom, *here)[:, 0, 0]
    edges = dataset.energy_axis_true.bounds
    index = {p.name: p.value for p in model.spectral_model.parameters}["index"]
    flux = edges[:-1] ** (1.0 - index) - edges[1:] ** (1.0 - index)
    plane = np.tensordot(flux * edisp, np.asarray(dataset.exposure.data), axes=1)
    at = np.array([[lon, lon, lon + 0.05, lon - 0.05], [lat + 0.05, lat - 0.05, lat, lat]])
    up, down, left, right = np.log(sample(plane, dataset.geom, *at))
    over = (up - down) * (y - centre[0]) + (right - left) * (x - centre[1])
    return np.asarray(1.0 + spatial.sigma.value**2 / variance * over / 0.1)


def _near(pixel: np.ndarray, towards: np.ndarray, reach: float) -> np.ndarray:
    """Pixels that lie within the source's circle and the PSF's reach (deg)."""
    middle = towards.mean(axis=1)
    middle /= np.linalg.norm(middle)
    own = np.arccos(np.clip(middle @ towards, -1, 1).min())
    return np.arccos(np.clip(middle @ pixel, -1, 1)) < own + np.radians(reach)


def _vectors(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    lon, lat = np.radians(lon), np.radians(lat)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
