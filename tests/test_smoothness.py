"""Shapes of any size: counts against brute force, and a statistic without cusps or steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from brute_force import expected_counts, expected_counts_near_equator
from toy import toy_dataset, toy_models, with_counts

from imgfit_widgets.core.evaluator import Evaluator
from imgfit_widgets.core.models import (
    DiskSpatialModel,
    GaussianSpatialModel,
    GeneralizedGaussianSpatialModel,
    Models,
    PointSpatialModel,
    Shell2SpatialModel,
    ShellSpatialModel,
)

SMOOTH: dict[str, tuple[Any, dict[str, float]]] = {
    "point": (PointSpatialModel, {}),
    "round": (GaussianSpatialModel, {"sigma": 0.12}),
    "gauss": (GaussianSpatialModel, {"sigma": 0.15, "e": 0.7, "phi": 30.0}),
    "disk": (DiskSpatialModel, {"r_0": 0.16, "e": 0.6, "phi": 35.0, "edge_width": 0.1}),
    "shell": (ShellSpatialModel, {"radius": 0.2, "width": 0.05}),
    "shell2": (Shell2SpatialModel, {"r_0": 0.25, "eta": 0.2}),
    "gauss-general": (
        GeneralizedGaussianSpatialModel,
        {"r_0": 0.15, "eta": 0.8, "e": 0.5, "phi": 40.0},
    ),
}
LINES = {"lon_0": 0.02, "lat_0": 0.02, "phi": 25.0, "e": 0.15, "eta": 0.15, "edge_width": 0.09}


def source(spatial: Any, background: bool) -> Models:
    models = toy_models(amplitude=1e-10, background=background)
    models[0].spatial_model = spatial
    return models


def bright(shape: str) -> Evaluator:
    """Compared with its own expected counts, all of its shape free."""
    kind, values = SMOOTH[shape]
    spatial = kind(frame="galactic", lon_0=0.1, lat_0=-0.05, **values)
    for parameter in spatial.parameters:
        parameter.frozen = parameter.name not in ("lon_0", "lat_0", *values)
    models, dataset = source(spatial, background=True), toy_dataset(slope=0.3)
    evaluator = Evaluator([dataset], models)
    expected = evaluator.npred(evaluator.x0)[0]
    return Evaluator([with_counts(dataset, expected)], models)


@pytest.mark.parametrize("shape", SMOOTH)
def test_curvature_has_no_cusp_in_any_parameter(shape: str) -> None:
    """Along lines that pass through pixel centres: two pixels in position, 60 % in size."""
    evaluator = bright(shape)
    for i, (model, name) in enumerate(evaluator.names):
        if model != "src" or name == "amplitude":
            continue
        stats = []
        half = LINES.get(name, 0.3 * evaluator.x0[i])
        evaluator.recentre(evaluator.x0)
        for value in evaluator.x0[i] + half * np.linspace(-1.0, 1.0, 61):
            x = evaluator.x0.copy()
            x[i] = value
            stats.append(evaluator.stat(x))
        curvature = np.diff(stats, 2)
        # Gammapy's jumps by more than its own size at every pixel centre.
        assert np.abs(np.diff(curvature)).max() < 0.1 * np.abs(curvature).max(), name


@pytest.mark.parametrize("shape", [s for s in SMOOTH if s != "point"])
def test_statistic_is_the_integral_of_its_slope_at_any_size(shape: str) -> None:
    """From a hundredth of a pixel to beyond the map, wherever a new plane is laid out."""
    evaluator = bright(shape)
    i = next(i for i, (m, n) in enumerate(evaluator.names) if evaluator.is_size(m, n))
    # A generalised Gaussian of this size reaches to ten times it.
    sizes, stats, slopes = np.geomspace(2e-4, 0.7 if shape == "gauss-general" else 3.0, 300), [], []
    for size in sizes:
        x = evaluator.x0.copy()
        x[i] = size
        stat, gradient = evaluator.stat_and_gradient(x)
        stats.append(stat)
        slopes.append(gradient[i] * size)
    step = np.log(sizes[1] / sizes[0])
    bend = np.gradient(slopes, step)
    expected = 0.5 * step * np.add(slopes[1:], slopes[:-1]) - step**2 / 12 * np.diff(bend)
    above = np.array(stats)[1:] - min(stats)
    # A new plane is another approximation of the same: 1e-4 of counts that are thousands of sigma
    # from the minimum.
    assert np.all(np.abs(np.diff(stats) - expected) < 0.05 + 2e-4 * above)


@pytest.mark.parametrize("size", [2e-4, 0.03, 0.6, 4.0])
@pytest.mark.parametrize("kind", ["disk", "shell", "shell2", "round", "gauss", "gauss-general"])
def test_sources_from_a_hundredth_of_a_pixel_to_three_maps(kind: str, size: float) -> None:
    values = {
        "disk": {"r_0": size, "e": 0.5, "phi": 20.0, "edge_width": 0.1},
        "shell": {"radius": size, "width": 0.2 * size},
        "shell2": {"r_0": size, "eta": 0.2},
        "round": {"sigma": size},
        "gauss": {"sigma": size, "e": 0.8, "phi": 30.0},
        "gauss-general": {"r_0": size, "eta": 0.8, "e": 0.5, "phi": 40.0},
    }[kind]
    dataset = toy_dataset(slope=0.3)
    dataset.psf.weights[:] = dataset.psf.weights[:, :, 5:6, 6:7]
    shape = SMOOTH[kind][0](frame="galactic", lon_0=0.104, lat_0=-0.047, **values)
    models = source(shape, background=False)
    truth = (
        expected_counts(dataset, models[0])[0]
        if size < 0.05
        else expected_counts_near_equator(dataset, models[0])
    )
    evaluator = Evaluator([dataset], models)
    ours = evaluator.npred_of("src", evaluator.x0)[0][0]
    assert ours.sum() == pytest.approx(truth.sum(), rel=1e-3)
    assert ours.max() == pytest.approx(truth.max(), rel=3e-3)
    # A small round Gaussian takes the exposure at its centre: here, at 30 % per degree, that moves
    # it by 3e-4 deg.
    most = 6e-3 if kind == "round" and size < 0.05 else 3e-3
    np.testing.assert_allclose(ours, truth, atol=most * truth.max())
