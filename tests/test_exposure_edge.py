"""Extended sources where the exposure ends: at the edge of the field of view of one of the runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from brute_force import profile
from scipy.ndimage import map_coordinates
from scipy.special import erf
from toy import WIDTHS, toy_dataset, toy_models, with_counts

from imgfit_widgets.core.evaluator import Evaluator
from imgfit_widgets.core.extended import ExtendedSource
from imgfit_widgets.core.fit import Fit
from imgfit_widgets.core.maps import WcsNDMap
from imgfit_widgets.core.models import (
    DiskSpatialModel,
    GaussianSpatialModel,
    GeneralizedGaussianSpatialModel,
    Models,
    ShellSpatialModel,
)

PIXEL = 0.02
EDGES = {
    "column": lambda lon, lat: lon < 0.113,
    "oblique": lambda lon, lat: 0.8 * lon + 0.6 * lat < 0.0537,
    "field of view": lambda lon, lat: np.hypot(lon + 1.5, lat - 0.5) < 1.62,
}
SHAPES = {
    "small gauss": (GaussianSpatialModel, {"sigma": 0.05}),
    "gauss": (GaussianSpatialModel, {"sigma": 0.2}),
    "ellipse": (GaussianSpatialModel, {"sigma": 0.2, "e": 0.7, "phi": 30.0}),
    "disk": (DiskSpatialModel, {"r_0": 0.3, "edge_width": 0.1}),
    "shell": (ShellSpatialModel, {"radius": 0.25, "width": 0.05}),
    "gauss-general": (GeneralizedGaussianSpatialModel, {"r_0": 0.15, "eta": 0.8}),
}


def seen_until(edge: str, beyond: float) -> Any:
    """A dataset whose exposure falls to a part ``beyond`` of it; one PSF for all of the map."""
    dataset = toy_dataset()
    lon, lat = dataset.geom.pixel_lonlat
    step = np.where(EDGES[edge]((lon + 180.0) % 360.0 - 180.0, lat), 1.0, beyond)
    exposure = WcsNDMap(dataset.exposure.geom, dataset.exposure.data * step, "m2 s")
    weights = np.ones_like(dataset.psf.weights) * dataset.psf.weights[:, :, 5:6, 6:7]
    psf = SimpleNamespace(widths=WIDTHS, weights=weights, geom=dataset.psf.geom)
    return SimpleNamespace(**{**vars(dataset), "exposure": exposure, "psf": psf})


def brute_force(dataset: Any, models: Models, sub: int = 10) -> np.ndarray:
    """Counts (y, x): brightness times exposure (linear between pixels) on ``sub``^2 points a pixel.

    On the flat sky, which half a degree from the equator is right to 4e-5.
    """
    spatial, spectral = models[0].spatial_model, models[0].spectral_model
    (ny, nx), v = dataset.geom.shape, {p.name: p.value for p in spatial.parameters}
    column, row = np.arange(nx), np.arange(ny)
    fine = [(np.arange(n * sub) + 0.5) / sub - 0.5 for n in (ny, nx)]
    east, north = (
        -(fine[1] - 0.5 * (nx - 1)) * PIXEL - v["lon_0"],
        (fine[0] - 0.5 * (ny - 1)) * PIXEL - v["lat_0"],
    )
    phi, q = np.radians(v.get("phi", 0.0)), np.sqrt(1.0 - v.get("e", 0.0) ** 2)
    along = north[:, None] * np.cos(phi) + east * np.sin(phi)
    across = east * np.cos(phi) - north[:, None] * np.sin(phi)
    image = profile(spatial, np.hypot(along, across / q)) * (PIXEL / sub) ** 2
    there = np.meshgrid(*fine, indexing="ij")
    value = {p.name: p.value for p in spectral.parameters}
    g, edges = 1.0 - value["index"], dataset.energy_axis_true.bounds
    flux = value["amplitude"] * np.diff(edges**g) / (value["emax"] ** g - value["emin"] ** g)
    found = np.zeros((ny, nx))
    for k, width in enumerate(WIDTHS):
        emitted = (flux * 1e4 * dataset.edisp.data[:, 0, 0, 0]) * dataset.psf.weights[:, k, 0, 0]
        exposure = np.tensordot(emitted, dataset.exposure.data, axes=1)
        lit = image * map_coordinates(exposure, there, order=1, mode="nearest")
        to_y, to_x = (
            0.5 * np.diff(erf((np.append(p - 0.5, p[-1] + 0.5)[:, None] - f) * scale), axis=0)
            for p, f, scale in zip(
                (row, column), fine, 2 * [PIXEL / (width * np.sqrt(2.0))], strict=True
            )
        )
        found += to_y @ lit @ to_x.T
    return found


def source(shape: str, lon: float, lat: float, amplitude: float = 2e-11, **more: Any) -> Models:
    kind, values = SHAPES[shape]
    models = toy_models(amplitude=amplitude, **more)
    models[0].spatial_model = kind(frame="galactic", lon_0=lon, lat_0=lat, **values)
    return models


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("lon", "lat", "beyond"), [(0.1, -0.05, 0.0), (0.071, 0.033, 0.7)])
def test_counts_at_an_edge_are_those_of_brute_force(
    edge: str, shape: str, lon: float, lat: float, beyond: float
) -> None:
    dataset = seen_until(edge, beyond)
    models = source(shape, lon, lat, background=False)
    evaluator = Evaluator([dataset], models)
    ours = evaluator.npred_of("src", evaluator.x0)[0][0]
    truth = brute_force(dataset, models)
    # Of a small source beyond the edge only a tail is left, whose slope is steep in a pixel.
    total = 2e-3 if shape == "small gauss" else 1e-3
    assert ours.sum() == pytest.approx(truth.sum(), rel=total)
    assert ours.max() == pytest.approx(truth.max(), rel=3e-3)
    np.testing.assert_allclose(ours, truth, atol=3e-3 * truth.max())


@pytest.mark.parametrize("name", ["lon_0", "lat_0", "sigma"])
def test_statistic_is_smooth_as_a_source_moves_over_an_edge(name: str) -> None:
    dataset, models = seen_until("field of view", 0.3), source("gauss", 0.1, -0.05, 1e-10)
    evaluator = Evaluator([dataset], models)
    dataset = with_counts(dataset, evaluator.npred(evaluator.x0)[0])
    evaluator = Evaluator([dataset], models)
    i = [n for _, n in evaluator.names].index(name)
    stats, slopes, step = [], [], 0.0008
    for k in range(-25, 26):
        x = evaluator.x0.copy()
        x[i] += k * step
        stat, gradient = evaluator.stat_and_gradient(x)
        stats.append(stat)
        slopes.append(gradient[i])
    curvature = np.diff(stats, 2)
    assert curvature.min() > 0
    assert np.abs(np.diff(curvature)).max() < 0.05 * curvature.max()
    by_differences = (np.array(stats[2:]) - stats[:-2]) / (2 * step)
    np.testing.assert_allclose(slopes[1:-1], by_differences, atol=1e-3 * np.abs(slopes).max())


def test_a_gaussian_that_comes_to_an_edge_is_computed_as_one_that_starts_there() -> None:
    dataset = seen_until("field of view", 0.0)
    evaluator = Evaluator([dataset], source("small gauss", -0.6, 0.1))
    assert type(evaluator.terms[0].sources[0]) is not ExtendedSource
    evaluator.stat(evaluator.x0)
    assert type(evaluator.terms[0].sources[0]) is not ExtendedSource
    there = Evaluator([dataset], source("small gauss", 0.1, -0.05))
    assert evaluator.stat(there.x0) == pytest.approx(there.stat(there.x0), abs=2e-3)
    assert type(evaluator.terms[0].sources[0]) is ExtendedSource


def test_a_fit_at_an_edge_finds_the_source() -> None:
    dataset, models = seen_until("field of view", 0.0), source("gauss", 0.1, -0.05, 2e-10)
    expected = brute_force(dataset, models)[None] + dataset.background.data
    result = Fit().solve([with_counts(dataset, expected)], source("gauss", 0.02, 0.01, 1e-10))
    assert result.success, result.message
    truth = [2e-10, 0.1, -0.05, 0.2, 1.0]
    assert np.all(np.abs(result.values - truth) < 0.05 * result.errors)
