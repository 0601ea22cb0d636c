"""Extended sources where the exposure ends: at the edge of the field of view of one of the runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from brute_force import expected_counts, expected_counts_near_equator
from toy import WIDTHS, toy_dataset, toy_models, with_counts

from imgfit_widgets.core.evaluator import Evaluator
from imgfit_widgets.core.extended import ExtendedSource, _pixels_per_cell
from imgfit_widgets.core.fit import Fit
from imgfit_widgets.core.gaussian import GaussianSource
from imgfit_widgets.core.maps import WcsGeom, WcsNDMap, convert_frame
from imgfit_widgets.core.models import (
    DiskSpatialModel,
    GaussianSpatialModel,
    GeneralizedGaussianSpatialModel,
    Models,
    ShellSpatialModel,
)
from imgfit_widgets.core.pixels import longer_waves
from imgfit_widgets.core.plane import SkyPlane
from imgfit_widgets.core.source import Source

EDGES = {
    "column": lambda lon, lat: lon < 0.113,
    "oblique": lambda lon, lat: 0.8 * lon + 0.6 * lat < 0.0537,
    "field of view": lambda lon, lat: np.hypot(lon + 1.5, lat - 0.5) < 1.62,
}
SHAPES = {
    "small gauss": (GaussianSpatialModel, {"sigma": 0.05}),
    "gauss": (GaussianSpatialModel, {"sigma": 0.2}),
    "wide gauss": (GaussianSpatialModel, {"sigma": 0.7}),
    "ellipse": (GaussianSpatialModel, {"sigma": 0.2, "e": 0.7, "phi": 30.0}),
    "disk": (DiskSpatialModel, {"r_0": 0.3, "edge_width": 0.1}),
    "shell": (ShellSpatialModel, {"radius": 0.25, "width": 0.05}),
    "gauss-general": (GeneralizedGaussianSpatialModel, {"r_0": 0.15, "eta": 0.8}),
}


def seen_until(edge: str, beyond: float) -> Any:
    """A dataset whose exposure falls to a part ``beyond`` of it."""
    dataset = toy_dataset()
    lon, lat = dataset.geom.pixel_lonlat
    step = np.where(EDGES[edge]((lon + 180.0) % 360.0 - 180.0, lat), 1.0, beyond)
    exposure = WcsNDMap(dataset.exposure.geom, dataset.exposure.data * step, "m2 s")
    return one_psf(SimpleNamespace(**{**vars(dataset), "exposure": exposure}))


def one_psf(dataset: Any) -> Any:
    """The same dataset with the PSF of its centre everywhere."""
    weights = np.ones_like(dataset.psf.weights) * dataset.psf.weights[:, :, 5:6, 6:7]
    psf = SimpleNamespace(widths=WIDTHS, weights=weights, geom=dataset.psf.geom)
    return SimpleNamespace(**{**vars(dataset), "psf": psf})


def source(shape: str, lon: float, lat: float, amplitude: float = 2e-11, **more: Any) -> Models:
    kind, values = SHAPES[shape]
    models = toy_models(amplitude=amplitude, **more)
    models[0].spatial_model = kind(frame="galactic", lon_0=lon, lat_0=lat, **values)
    return models


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("edge", "lon", "lat", "beyond"),
    [
        ("column", 0.1, -0.05, 0.0),
        ("oblique", 0.071, 0.033, 0.7),
        ("field of view", 0.13, -0.02, 0.0),
    ],
)
def test_counts_at_an_edge_are_those_of_brute_force(
    shape: str, edge: str, lon: float, lat: float, beyond: float
) -> None:
    dataset = seen_until(edge, beyond)
    models = source(shape, lon, lat, background=False)
    evaluator = Evaluator([dataset], models)
    ours = evaluator.npred_of("src", evaluator.x0)[0][0]
    truth = expected_counts_near_equator(dataset, models[0])
    # Of a small source beyond the edge only a tail is left, whose slope is steep in a pixel.
    total = 2e-3 if shape == "small gauss" else 1e-3
    assert ours.sum() == pytest.approx(truth.sum(), rel=total)
    assert ours.max() == pytest.approx(truth.max(), rel=3e-3)
    np.testing.assert_allclose(ours, truth, atol=3e-3 * truth.max())


SMALL = [
    (DiskSpatialModel, {"r_0": 0.03, "edge_width": 0.1}),
    (DiskSpatialModel, {"r_0": 0.008, "edge_width": 0.1}),
    (GaussianSpatialModel, {"sigma": 0.015}),
    (GaussianSpatialModel, {"sigma": 0.03, "e": 0.8, "phi": 30.0}),
    (ShellSpatialModel, {"radius": 0.02, "width": 0.005}),
]


@pytest.mark.parametrize("shape", range(len(SMALL)))
@pytest.mark.parametrize("edge", EDGES)
def test_a_source_smaller_than_the_psf_at_an_edge(shape: int, edge: str) -> None:
    """Its counts follow from where on the step, which is as steep, each part of it lies."""
    lon, lat = {"column": (0.1, -0.05), "oblique": (0.071, 0.033)}.get(edge, (0.03, -0.02))
    dataset = seen_until(edge, 0.3)
    kind, values = SMALL[shape]
    models = toy_models(amplitude=2e-11, background=False)
    models[0].spatial_model = kind(frame="galactic", lon_0=lon, lat_0=lat, **values)
    evaluator = Evaluator([dataset], models)
    ours = evaluator.npred_of("src", evaluator.x0)[0][0]
    truth = expected_counts(dataset, models[0], apart=1.5e-3)[0]
    assert ours.sum() == pytest.approx(truth.sum(), rel=1e-3)
    np.testing.assert_allclose(ours, truth, atol=1.5e-3 * truth.max())


def test_a_disk_that_shrinks_at_an_edge_is_computed_as_one_that_starts_small() -> None:
    found = []
    for r_0 in (0.03, 0.008):
        models = toy_models(amplitude=2e-11)
        models[0].spatial_model = DiskSpatialModel(
            frame="galactic", lon_0=0.071, lat_0=0.033, r_0=r_0, edge_width=0.1
        )
        evaluator = Evaluator([seen_until("oblique", 0.3)], models)
        x = evaluator.x0.copy()
        place = evaluator.names.index(("src", "r_0"))
        for radius in np.geomspace(r_0, 0.008, 12):
            x[place] = radius
            evaluator.stat(x)
        found.append(evaluator.npred_of("src", x)[0].sum())
    assert found[0] == pytest.approx(found[1], rel=3e-4)


@pytest.mark.parametrize(
    "shape", ["small gauss", "gauss", "wide gauss", "disk", "shell", "small disk"]
)
@pytest.mark.parametrize("frame", ["galactic", "icrs"])
def test_an_edge_is_where_it_is_in_cells_that_are_not_the_maps(
    shape: str, frame: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where axes are not turned to those of the pixels the exposure takes another way."""
    dataset = seen_until("oblique", 0.3)
    kind, values = SHAPES.get(shape, (DiskSpatialModel, {"r_0": 0.06, "edge_width": 0.1}))
    images = []
    for own, straight in (("galactic", True), (frame, False)):
        if not straight:
            monkeypatch.setattr(SkyPlane, "axes", lambda *_: None)
            monkeypatch.setattr(SkyPlane, "_turn_to_pixels", lambda _: None)
        lon, lat = (float(v) for v in convert_frame(0.071, 0.033, "galactic", own))
        models = toy_models(amplitude=2e-11, background=False)
        models[0].spatial_model = kind(frame=own, lon_0=lon, lat_0=lat, **values)
        evaluator = Evaluator([dataset], models)
        images.append(evaluator.npred_of("src", evaluator.x0)[0][0])
    np.testing.assert_allclose(images[1], images[0], atol=3e-3 * images[0].max())


@pytest.mark.parametrize("shape", ["ellipse", "disk"])
@pytest.mark.parametrize("phi", [30.0, 67.0, -50.0])
def test_a_tilted_source_is_the_same_in_another_frame(shape: str, phi: float) -> None:
    """Position angles are counted from North, wherever the cells' axes point."""
    kind, values = SHAPES[shape]
    values = {**values, "e": 0.8, "phi": phi}
    found = {}
    for frame in ("galactic", "icrs"):
        lon, lat = (float(v) for v in convert_frame(0.071, 0.033, "galactic", frame))
        north = convert_frame(0.071, 0.034, "galactic", frame)
        east = (float(north[0]) - lon) * np.cos(np.radians(lat))
        own = {**values, "phi": phi + np.degrees(np.arctan2(east, float(north[1]) - lat))}
        models = toy_models(amplitude=2e-11, background=False)
        models[0].spatial_model = kind(frame=frame, lon_0=lon, lat_0=lat, **own)
        evaluator = Evaluator([seen_until("oblique", 0.3)], models)
        found[frame] = evaluator.npred_of("src", evaluator.x0)[0][0]
    np.testing.assert_allclose(
        found["icrs"], found["galactic"], atol=1e-3 * found["galactic"].max()
    )


def test_the_size_of_cells_is_told_across_the_seam_of_a_map() -> None:
    """There they seemed to span all of the map, and its image to need a margin of four such."""
    y, x = np.mgrid[:40, :30] * np.array([2.0, -1.5])[:, None, None]
    x[:, 16:] += 3600.0
    y[:20, 12] = np.nan
    np.testing.assert_allclose(_pixels_per_cell(x, y), [[-1.5, 0.0], [0.0, 2.0]])
    np.testing.assert_array_equal(_pixels_per_cell(x * np.nan, y), np.eye(2))


@pytest.mark.parametrize("cell", [0.3, 0.7, 1.0, 2.3])
def test_longer_waves_are_what_lines_between_pixels_leave_of_them(cell: float) -> None:
    count = np.array([160, 150])
    y, x = np.random.default_rng(3).uniform(60.0, 90.0, (2, 500))
    grid = np.mgrid[:160, :150]
    for waves in ((8, 15), (0, 21), (29, 6), (53, 54)):
        one, other = (
            np.cos(np.pi * n / c * (at + 0.5)) for n, c, at in zip(waves, count, grid, strict=True)
        )
        found = longer_waves((one * other)[None], x, y, cell * np.eye(2))[0]
        frequency = np.array(waves) / (2.0 * count)  # of a pixel
        left = np.prod(np.sinc(frequency) ** 2) * (frequency.max() * 2.0 * cell < 1.0)
        truth = left
        for n, c, at in zip(waves, count, (y, x), strict=True):
            truth = truth * np.cos(np.pi * n / c * (at + 0.5))
        # The same function has shorter waves as well, which much smaller cells hold.
        shorter = sum(np.sinc(1.0 - f) ** 2 for f in frequency) if cell < 0.5 else 0.0
        assert np.abs(found - truth).max() < 3e-3 + 0.9 * (frequency**2).sum() + shorter


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
    for sigma, begins, kind in (
        (0.05, GaussianSource, GaussianSource),
        (0.015, Source, ExtendedSource),
    ):
        models = [source("small gauss", *place) for place in ((-0.6, 0.1), (0.1, -0.05))]
        for one in models:
            one[0].spatial_model.sigma.value = sigma
        evaluator, there = (Evaluator([dataset], one) for one in models)
        evaluator.stat(evaluator.x0)
        assert type(evaluator.terms[0].sources[0]) is begins
        assert evaluator.stat(there.x0) == pytest.approx(there.stat(there.x0), abs=2e-3)
        assert type(evaluator.terms[0].sources[0]) is kind


def test_a_fit_at_an_edge_finds_the_source() -> None:
    dataset, models = seen_until("field of view", 0.0), source("gauss", 0.1, -0.05, 2e-10)
    expected = expected_counts_near_equator(dataset, models[0])[None] + dataset.background.data
    result = Fit().solve([with_counts(dataset, expected)], source("gauss", 0.02, 0.01, 1e-10))
    assert result.success, result.message
    truth = [2e-10, 0.1, -0.05, 0.2, 1.0]
    assert np.all(np.abs(result.values - truth) < 0.05 * result.errors)


# --- other places where an exposure is no polynomial
@pytest.mark.parametrize("sigma", [0.1, 0.25, 0.6, 4.0])
@pytest.mark.parametrize("lon", [0.1, 1.0])
def test_a_gaussian_over_the_border_of_the_map(sigma: float, lon: float) -> None:
    dataset = one_psf(toy_dataset(slope=0.3))
    models = toy_models(lon, -0.047, sigma=sigma, background=False)
    evaluator = Evaluator([dataset], models)
    ours = evaluator.npred_of("src", evaluator.x0)[0][0]
    truth = expected_counts_near_equator(dataset, models[0])
    assert ours.sum() == pytest.approx(truth.sum(), rel=1e-3)
    assert ours.max() == pytest.approx(truth.max(), rel=3e-3)
    np.testing.assert_allclose(ours, truth, atol=3e-3 * truth.max())


def test_an_exposure_in_coarser_pixels_is_taken_where_the_photons_come_from() -> None:
    fine = one_psf(toy_dataset(slope=0.3))
    coarse = WcsGeom.create((0.0, 0.0), (2.4, 2.0), 0.1, "CAR", "galactic", fine.exposure.geom.axes)
    lon = (coarse.pixel_lonlat[0] + 180.0) % 360.0 - 180.0
    values = np.stack([(1.0 + 0.3 * lon) * v for v in (2e9, 5e9, 8e9)])
    dataset = SimpleNamespace(**{**vars(fine), "exposure": WcsNDMap(coarse, values, "m2 s")})
    images = []
    for data in (fine, dataset):
        evaluator = Evaluator([data], toy_models(0.1, 0.05, sigma=0.25, background=False))
        images.append(evaluator.npred_of("src", evaluator.x0)[0])
    np.testing.assert_allclose(images[1], images[0], atol=5e-4 * images[0].max())


@pytest.mark.parametrize("straight", [True, False])
def test_a_step_in_an_exposure_of_coarser_pixels(
    straight: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small Gaussians took the exposure at their centre there: up to 47 % of them was lost."""
    fine = seen_until("oblique", 0.2)
    coarse = WcsGeom.create(
        (0.0, 0.0), (2.4, 2.04), 0.06, "CAR", "galactic", fine.exposure.geom.axes
    )
    lon, lat = coarse.pixel_lonlat
    step = np.where(EDGES["oblique"]((lon + 180.0) % 360.0 - 180.0, lat), 1.0, 0.2)
    values = np.array([2e9, 5e9, 8e9])[:, None, None] * step
    dataset = SimpleNamespace(**{**vars(fine), "exposure": WcsNDMap(coarse, values, "m2 s")})
    if not straight:
        monkeypatch.setattr(SkyPlane, "axes", lambda *_: None)
    models = toy_models(0.071, 0.033, sigma=0.04, background=False)
    evaluator = Evaluator([dataset], models)
    ours = evaluator.npred_of("src", evaluator.x0)[0][0]
    truth = expected_counts(dataset, models[0], apart=2e-3)[0]
    assert ours.sum() == pytest.approx(truth.sum(), rel=1e-3)
    np.testing.assert_allclose(ours, truth, atol=3e-3 * truth.max())


def test_a_source_far_wider_than_a_map_on_a_steep_exposure() -> None:
    """What goes on beyond the border began anywhere within a cell of 0.1 deg."""
    dataset = toy_dataset(slope=1.2, width=(0.5, 0.4))
    weights = np.ones_like(dataset.psf.weights) * dataset.psf.weights[:, :, :1, :1]
    psf = SimpleNamespace(widths=WIDTHS, weights=weights, geom=dataset.psf.geom)
    dataset = SimpleNamespace(**{**vars(dataset), "psf": psf})
    models = toy_models(0.03, 0.02, sigma=0.8, background=False)
    evaluator = Evaluator([dataset], models)
    ours = evaluator.npred_of("src", evaluator.x0)[0][0]
    truth = expected_counts_near_equator(dataset, models[0])
    assert ours.sum() == pytest.approx(truth.sum(), rel=1e-3)
    np.testing.assert_allclose(ours, truth, atol=3e-3 * truth.max())


def test_a_turned_exposure_smaller_than_a_source_is_not_taken_for_straight() -> None:
    geom = WcsGeom.create((10.0, 40.0), (0.3, 0.3), 0.02, "TAN", "galactic")
    plane = SkyPlane(geom, "icrs", tuple(map(float, convert_frame(10.0, 40.0, "galactic", "icrs"))),
                     0.05, (3.0, 3.0), (0, 15, 0, 15))  # fmt: skip
    turned = WcsGeom.create(
        convert_frame(10.0, 40.0, "galactic", "icrs"), (0.3, 0.3), 0.02, "TAN", "icrs"
    )
    assert plane.axes(geom, 2, 2.5, 0.05) is not None
    assert plane.axes(turned, 2, 2.5, 0.05) is None


@pytest.mark.parametrize("shape", sorted(set(SHAPES) - {"wide gauss"}))
def test_a_source_without_any_exposure_has_no_counts_and_fails_in_words(shape: str) -> None:
    """Sums over no image at all broke off with an internal error."""
    whole = toy_dataset(3)
    x = np.arange(whole.geom.shape[1])
    exposure = whole.exposure.data * (x < 20)
    exposure[0] = 0.0
    dark = WcsNDMap(whole.exposure.geom, exposure, "m2 s")
    dataset = SimpleNamespace(**{**vars(whole), "exposure": dark})
    models = source(shape, -0.8, 0.1)
    models[0].spectral_model.index.frozen = False
    evaluator = Evaluator([dataset], models)
    assert evaluator.npred_of("src", evaluator.x0)[0].sum() == pytest.approx(0.0, abs=1e-3)
    seen = with_counts(dataset, np.round(dataset.background.data * 1.02))
    result = Fit(max_calls=200).solve(seen, models)
    assert not result.success and "src" in result.message
