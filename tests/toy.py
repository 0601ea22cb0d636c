"""A small made-up dataset for tests of the likelihood, and an integrator that shares no code."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from astropy.coordinates import SkyCoord

from imgfit_widgets.core.evaluator import Evaluator
from imgfit_widgets.core.maps import MapAxis, WcsGeom, WcsNDMap
from imgfit_widgets.core.models import (
    FoVBackgroundModel,
    GaussianSpatialModel,
    Models,
    PointSpatialModel,
    PowerLaw2SpectralModel,
    SkyModel,
)

WIDTHS = np.array([0.03, 0.05, 0.09])


def toy_dataset(
    bands: int = 1,
    proj: str = "CAR",
    centre: tuple[float, float] = (0.0, 0.0),
    slope: float = 0.0,
    mask: np.ndarray | None = None,
    name: str = "toy",
    width: tuple[float, float] = (2.4, 2.0),
) -> Any:
    """A dataset of 120 x 100 pixels of 0.02 deg with 3 true energies.

    ``slope`` is the relative change of the exposure per degree of longitude; the PSF mixture and
    the energy dispersion vary with true energy, the mixture also across the map.
    """
    energy = MapAxis.from_energy_bounds("0.5 TeV", "5 TeV", bands)
    energy_true = MapAxis.from_energy_bounds("0.3 TeV", "10 TeV", 3, name="energy_true")
    geom = WcsGeom.create(centre, width, 0.02, proj, "galactic", [energy])
    coarse = WcsGeom.create(centre, width, 0.2, proj, "galactic")
    x = geom.wrap(geom.pixel_lonlat[0]) - geom.wrap(np.array(centre[0]))
    lon, _lat = coarse.pixel_lonlat
    drift = 0.1 * (coarse.wrap(lon) - coarse.wrap(np.array(centre[0])))
    weights = np.empty((3, 3, *coarse.shape))
    for t, (a, b) in enumerate([(0.2, 0.3), (0.5, 0.4), (0.7, 0.25)]):
        weights[t, 0], weights[t, 1] = a + drift, b
        weights[t, 2] = 1.0 - weights[t, 0] - weights[t, 1]
    edisp = np.zeros((3, bands, *coarse.shape))
    for t in range(3):
        share = np.exp(-0.5 * ((np.arange(bands) - t * (bands - 1) / 2.0) / 0.8) ** 2)
        edisp[t] = (0.9 * share / share.sum())[:, None, None] * np.ones(coarse.shape)
    exposure = np.stack([(1.0 + slope * x) * v for v in (2e9, 5e9, 8e9)])
    y_pix, x_pix = np.mgrid[: geom.shape[0], : geom.shape[1]]
    level = 0.6 + 0.002 * x_pix + 0.001 * y_pix
    background = np.stack([level / (1.0 + band) for band in range(bands)])
    return SimpleNamespace(
        name=name,
        geom=geom,
        energy_axis=energy,
        energy_axis_true=energy_true,
        counts=WcsNDMap(geom, np.zeros(geom.data_shape)),
        background=WcsNDMap(geom, background),
        exposure=WcsNDMap(geom.to_cube([energy_true]), exposure, "m2 s"),
        edisp=SimpleNamespace(data=edisp, geom=coarse),
        psf=SimpleNamespace(widths=WIDTHS, weights=weights, geom=coarse),
        mask=mask,
        models=None,
    )


def with_counts(dataset: Any, counts: np.ndarray) -> Any:
    """The same dataset with other counts."""
    return SimpleNamespace(**{**vars(dataset), "counts": WcsNDMap(dataset.geom, counts)})


def steep(dataset: Any) -> Any:
    """The same dataset with an exposure that falls to a half within 0.7 to 1.2 deg, by energy."""
    lon, lat = dataset.geom.pixel_lonlat
    x, y = dataset.geom.wrap(lon) - 0.4, lat + 0.2
    falls = [np.exp(-0.69 * (x**2 + y**2) / width**2) for width in (0.7, 0.9, 1.2)]
    exposure = WcsNDMap(dataset.exposure.geom, dataset.exposure.data * np.array(falls), "m2 s")
    return SimpleNamespace(**{**vars(dataset), "exposure": exposure})


def toy_models(
    lon: float = 0.1,
    lat: float = -0.05,
    amplitude: float = 2e-11,
    sigma: float | None = None,
    frame: str = "galactic",
    background: bool = True,
    name: str = "src",
    dataset: str = "toy",
) -> Models:
    """One source with a frozen index and, by default, a background model."""
    if sigma is None:
        spatial: Any = PointSpatialModel(frame=frame, lon_0=lon, lat_0=lat)
    else:
        spatial = GaussianSpatialModel(frame=frame, lon_0=lon, lat_0=lat, sigma=sigma)
    spectral = PowerLaw2SpectralModel(amplitude=amplitude, index=2.2, emin=0.5, emax=5.0)
    spectral.index.frozen = True
    models = Models([SkyModel(spectral, spatial, name)])
    if background:
        models.append(FoVBackgroundModel(dataset_name=dataset))
    return models


def nearest(values: np.ndarray, geom: WcsGeom, lon: float, lat: float) -> np.ndarray:
    """Values of a map at a position by bilinear interpolation, written out once more."""
    x, y = (float(v) for v in geom.lonlat_to_pix(lon, lat))
    i, j = int(np.floor(x)), int(np.floor(y))
    u, v = x - i, y - j
    return (
        values[..., j, i] * (1 - u) * (1 - v)
        + values[..., j, i + 1] * u * (1 - v)
        + values[..., j + 1, i] * (1 - u) * v
        + values[..., j + 1, i + 1] * u * v
    )


def expected_counts(dataset: Any, model: SkyModel, oversampling: int = 9) -> np.ndarray:
    """Counts of a source by brute force, shape (band, y, x).

    The surface brightness on the sphere, at true angular distances, summed over ``oversampling``
    squared points in every pixel, each with its own solid angle. Response at the source.
    """
    geom: WcsGeom = dataset.geom
    spatial = model.spatial_model
    at = SkyCoord(
        spatial.lon_0.value, spatial.lat_0.value, unit="deg", frame=spatial.frame
    ).galactic
    lon_0, lat_0 = at.l.deg, at.b.deg
    exposure = nearest(dataset.exposure.data, geom, lon_0, lat_0) * 1e4
    edisp = nearest(dataset.edisp.data, dataset.edisp.geom, lon_0, lat_0)
    weights = nearest(dataset.psf.weights, dataset.psf.geom, lon_0, lat_0)
    edges = dataset.energy_axis_true.bounds
    values = {p.name: p.value for p in model.spectral_model.parameters}
    g = 1.0 - values["index"]
    norm = values["amplitude"] / (values["emax"] ** g - values["emin"] ** g)
    flux = norm * (edges[1:] ** g - edges[:-1] ** g)
    size = spatial.sigma.value if hasattr(spatial, "sigma") else 0.0
    sub = (np.arange(oversampling) + 0.5) / oversampling - 0.5
    ny, nx = geom.shape
    xs = (np.arange(nx)[:, None] + sub).ravel()
    ys = (np.arange(ny)[:, None] + sub).ravel()
    lon, lat = geom.pix_to_lonlat(*np.meshgrid(xs, ys))
    east = np.radians(lon - lon_0) / 2
    north = np.radians(lat - lat_0) / 2
    half = np.sin(north) ** 2 + np.cos(np.radians(lat)) * np.cos(np.radians(lat_0)) * (
        np.sin(east) ** 2
    )
    distance = np.degrees(2 * np.arcsin(np.sqrt(half)))
    # Solid angle of a sample: the Jacobian of the projection by differences.
    dlon = np.gradient(lon, axis=1), np.gradient(lon, axis=0)
    dlat = np.gradient(lat, axis=1), np.gradient(lat, axis=0)
    area = np.abs(dlon[0] * dlat[1] - dlon[1] * dlat[0]) * np.cos(np.radians(lat))
    counts = np.zeros((edisp.shape[1], ny, nx))
    for w, width in enumerate(dataset.psf.widths):
        sigma = np.hypot(width, size)
        density = np.exp(-0.5 * (distance / sigma) ** 2) / (2 * np.pi * sigma**2) * area
        image = density.reshape(ny, oversampling, nx, oversampling).sum(axis=(1, 3))
        counts += ((flux * exposure * weights[:, w]) @ edisp)[:, None, None] * image
    return counts


def source(spatial: Any, amplitude: float = 2e-11, background: bool = False) -> Models:
    """`toy_models` of another shape."""
    models = toy_models(amplitude=amplitude, background=background)
    models[0].spatial_model = spatial
    return models


def predicted(dataset: Any, models: Models) -> np.ndarray:
    """Counts of the source, shape (band, y, x)."""
    evaluator = Evaluator([dataset], models)
    return evaluator.npred_of("src", evaluator.x0)[0]
