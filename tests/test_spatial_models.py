"""Shapes on the sky: their counts against brute force, gradients, smoothness, files and regions."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from brute_force import expected_counts, expected_counts_near_equator
from toy import predicted, source, toy_dataset, toy_models, with_counts

from imgfit_widgets.core.errors import ImgfitError, ModelError
from imgfit_widgets.core.evaluator import Evaluator
from imgfit_widgets.core.extended import ExtendedSource
from imgfit_widgets.core.fit import Fit
from imgfit_widgets.core.maps import WcsGeom, WcsNDMap
from imgfit_widgets.core.models import (
    SPATIAL_MODELS,
    ConstantSpatialModel,
    DiskSpatialModel,
    FoVBackgroundModel,
    GaussianSpatialModel,
    GeneralizedGaussianSpatialModel,
    Models,
    PointSpatialModel,
    PowerLaw2SpectralModel,
    Shell2SpatialModel,
    ShellSpatialModel,
    SkyModel,
    TemplateSpatialModel,
)
from imgfit_widgets.core.models.regions import (
    models_from_regions,
    models_to_regions,
    read_regions,
    write_regions,
)
from imgfit_widgets.core.models.spatial import Wave
from imgfit_widgets.core.plane import SkyPlane
from imgfit_widgets.core.stats import cash

SHAPES = {
    "disk": DiskSpatialModel,
    "shell": ShellSpatialModel,
    "shell2": Shell2SpatialModel,
    "gauss": GaussianSpatialModel,
    "gauss-general": GeneralizedGaussianSpatialModel,
}


def place(dataset: Any, x: float, y: float, frame: str = "galactic") -> dict[str, Any]:
    lon, lat = dataset.geom.to_frame(*dataset.geom.pix_to_lonlat(x, y), frame)
    return {"frame": frame, "lon_0": float(lon), "lat_0": float(lat)}


def random_shape(kind: str, rng: np.random.Generator) -> dict[str, float]:
    """Sizes from a tenth of a pixel (0.02 deg) to much of the map."""
    size = float(np.exp(rng.uniform(np.log(0.004), np.log(0.3))))
    elliptic = {"e": float(rng.uniform(0.05, 0.95)), "phi": float(rng.uniform(-180, 180))}
    return {
        "disk": {"r_0": size, "edge_width": float(rng.choice([0.01, 0.2, 0.6])), **elliptic},
        "shell": {"radius": size, "width": size * float(rng.uniform(0.02, 1.0))},
        "shell2": {"r_0": size, "eta": float(rng.uniform(0.02, 1.0))},
        "gauss": {"sigma": 0.7 * size, **elliptic},
        "gauss-general": {"r_0": 0.4 * size, "eta": float(rng.uniform(0.05, 1.0)), **elliptic},
    }[kind]


FIELDS = [
    ("CAR", (0.0, 0.0), "galactic"),
    ("CAR", (30.0, 60.0), "galactic"),
    ("TAN", (359.9, -60.0), "icrs"),
    ("CAR", (120.0, 20.0), "icrs"),
]


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("number", range(4))
def test_counts_are_those_of_brute_force(kind: str, number: int) -> None:
    rng = np.random.default_rng([number, list(SHAPES).index(kind)])
    proj, centre, frame = FIELDS[number]
    dataset = toy_dataset(1, proj, centre, slope=0.4, width=(1.6, 1.5))
    at = place(dataset, *rng.uniform(36, 42, 2), frame)
    models = source(SHAPES[kind](**at, **random_shape(kind, rng)))
    ours, truth = predicted(dataset, models)[0], expected_counts(dataset, models[0])[0]
    assert ours.sum() == pytest.approx(truth.sum(), rel=1e-3)
    assert ours.max() == pytest.approx(truth.max(), rel=1e-3)
    bright = truth > 0.05 * truth.max()
    np.testing.assert_allclose(ours[bright], truth[bright], rtol=5e-3)


@pytest.mark.parametrize("phase", [(0.0, 0.0), (0.5, 0.5), (0.13, 0.71)])
def test_a_disk_of_a_tenth_of_a_pixel_is_a_point(phase: tuple[float, float]) -> None:
    dataset = toy_dataset()
    at = place(dataset, 60 + phase[0], 48 + phase[1])
    small = predicted(dataset, source(DiskSpatialModel(r_0=1e-4, **at)))[0]
    point = predicted(dataset, source(PointSpatialModel(**at)))[0]
    assert small.sum() == pytest.approx(point.sum(), rel=1e-3)
    np.testing.assert_allclose(small, point, atol=1e-3 * point.max())


def test_a_disk_larger_than_the_map_is_flat_within_it() -> None:
    dataset = toy_dataset()
    at = place(dataset, 60.2, 48.3)
    disk = predicted(dataset, source(DiskSpatialModel(r_0=6.0, **at)))[0]
    area = np.pi * np.radians(6.0) ** 2
    flat = predicted(dataset, source(ConstantSpatialModel(value=1 / area)))[0]
    np.testing.assert_allclose(disk, flat, rtol=2e-3)


def test_both_ways_to_a_round_gaussian_agree() -> None:
    dataset = toy_dataset(2, slope=0.4, width=(3.2, 3.0))
    at = place(dataset, 80.3, 70.6)
    short = source(GaussianSpatialModel(sigma=0.2, **at))
    long = source(GaussianSpatialModel(sigma=0.2, **at))
    long.parameters["e"].frozen = False
    kinds = [type(Evaluator([dataset], m).terms[0].sources[0]) for m in (short, long)]
    assert (kinds[0] is ExtendedSource, kinds[1] is ExtendedSource) == (False, True)
    a, b = predicted(dataset, short), predicted(dataset, long)
    np.testing.assert_allclose(a, b, atol=1e-3 * a.max())


def test_a_soft_disk_has_the_brightness_of_gammapys() -> None:
    dataset = toy_dataset(width=(3.2, 3.0))
    at = place(dataset, 80.0, 70.0)
    sharp, soft = (
        predicted(dataset, source(DiskSpatialModel(r_0=0.3, edge_width=w, **at))).sum()
        for w in (0.0, 0.5)
    )
    sigma = 0.5 / 2.326174307353347 / np.sqrt(2)
    assert soft / sharp == pytest.approx(1 + sigma**2, rel=1e-4)


def test_a_shell_is_never_nan() -> None:
    """Gammapy's is, in the pixel whose distance is the inner radius to the last bit."""
    shell = ShellSpatialModel(lon_0=0, lat_0=0, radius=0.3, width=0.1)
    lon = np.concatenate([np.linspace(0, 0.5, 4001), 0.3 + np.arange(-50, 50) * 2e-17])
    values = shell.evaluate(lon, 0.0)
    assert np.all(np.isfinite(values))
    assert values.max() == values[np.argmin(np.abs(lon - 0.3))]
    assert values[lon > 0.4001].max() == 0.0
    point = predicted(toy_dataset(), toy_models(0.0, 0.0))
    for radius, width in ((0.0, 0.0), (0.3, 0.0), (0.0, 0.3)):
        shell = ShellSpatialModel(frame="galactic", radius=radius, width=width)
        image = predicted(toy_dataset(), source(shell))
        assert np.all(np.isfinite(image))
        assert image.sum() == pytest.approx(point.sum(), rel=1e-2)


# --- gradients and smoothness
def gradient_cases() -> list[tuple[str, dict[str, float]]]:
    return [
        ("disk", {"r_0": 0.15}),
        ("disk", {"r_0": 0.3, "e": 0.9, "phi": 35.0, "edge_width": 0.4}),
        ("disk", {"r_0": 0.005}),
        ("shell", {"radius": 0.2, "width": 0.05}),
        ("shell2", {"r_0": 0.3, "eta": 0.2}),
        ("gauss", {"sigma": 0.15, "e": 0.8, "phi": -50.0}),
        ("gauss-general", {"r_0": 0.1, "eta": 0.8, "e": 0.6, "phi": 100.0}),
    ]


@pytest.mark.parametrize(("kind", "values"), gradient_cases())
def test_gradient_and_information_are_those_of_differences(
    kind: str, values: dict[str, float]
) -> None:
    dataset = toy_dataset(2, "CAR", (30.0, 40.0), slope=0.4)
    models = source(SHAPES[kind](**place(dataset, 61.3, 48.8), **values), background=True)
    for parameter in models.parameters:
        parameter.frozen = parameter.name in ("emin", "emax", "tilt", "reference")
        if "e" not in values and parameter.name in ("e", "phi"):
            parameter.frozen = True
    evaluator = Evaluator([dataset], models)
    rng = np.random.default_rng(1)
    counts = rng.poisson(evaluator.npred(evaluator.x0)[0]).astype(float)
    evaluator = Evaluator([with_counts(dataset, counts)], models)
    x = evaluator.x0 * 1.01
    evaluator.recentre(x)
    gradient = evaluator.stat_and_gradient(x)[1]
    steps = {"amplitude": 2e-15, "phi": 1e-3}
    columns = []
    for i, (_, name) in enumerate(evaluator.names):
        step = np.zeros(len(x))
        step[i] = steps.get(name, 1e-5)
        ends = [evaluator.stat(x + step), evaluator.stat(x - step)]
        size = max(abs(gradient[i]), 0.01 / abs(step[i]) * 1e-5)
        found = (ends[0] - ends[1]) / (2 * step[i])
        assert found == pytest.approx(gradient[i], abs=1e-5 * size), name
        images = [evaluator.npred(x + s)[0] for s in (step, -step)]
        columns.append((images[0] - images[1]).ravel() / (2 * step[i]))
    stack = np.array(columns)
    expected = 2 * (stack / evaluator.npred(x)[0].ravel()) @ stack.T
    scale = np.sqrt(np.diag(expected))
    found = evaluator.derivatives(x)
    assert found.stat == evaluator.stat(x)
    np.testing.assert_allclose(found.gradient, gradient, rtol=1e-9)
    both = np.outer(scale, scale)
    np.testing.assert_allclose(found.expected / both, expected / both, atol=1e-3)
    rows = []
    for i in range(len(x)):
        step = np.zeros(len(x))
        step[i] = min(0.01 / scale[i], 1e-3)
        ends = [evaluator.stat_and_gradient(x + s)[1] for s in (step, -step)]
        rows.append((ends[0] - ends[1]) / (2 * step[i]))
    np.testing.assert_allclose(found.observed / both, np.array(rows) / both, rtol=1e-3, atol=5e-3)


def test_a_new_plane_changes_nothing() -> None:
    dataset = toy_dataset(slope=0.3)
    models = source(ShellSpatialModel(frame="galactic", radius=0.2, width=0.05), background=True)
    evaluator = Evaluator([dataset], models)
    dataset = with_counts(dataset, evaluator.npred(evaluator.x0)[0])
    evaluator = Evaluator([dataset], models)
    first = evaluator.stat(evaluator.x0)
    for radius in (0.1, 0.3, 0.02, 0.4):
        x = evaluator.x0.copy()
        x[3] = radius
        evaluator.stat(x)
    assert evaluator.stat(evaluator.x0) == pytest.approx(first, abs=2e-3)


@pytest.mark.parametrize(
    ("name", "start", "stop"),
    [("lon_0", 0.08, 0.12), ("lat_0", -0.07, -0.03), ("r_0", 0.13, 0.19), ("phi", 10.0, 60.0)],
)
def test_curvature_has_no_cusp(name: str, start: float, stop: float) -> None:
    dataset = toy_dataset(slope=0.3)
    spatial = DiskSpatialModel(frame="galactic", lon_0=0.1, lat_0=-0.05, r_0=0.16, e=0.6, phi=35.0)
    models = source(spatial, 1e-10, background=True)
    for key in ("e", "phi"):
        spatial.parameters[key].frozen = False
    evaluator = Evaluator([dataset], models)
    dataset = with_counts(dataset, evaluator.npred(evaluator.x0)[0])
    evaluator = Evaluator([dataset], models)
    i = [n for _, n in evaluator.names].index(name)
    stats = []
    for value in np.linspace(start, stop, 81):
        x = evaluator.x0.copy()
        x[i] = value
        stats.append(evaluator.stat(x))
    curvature = np.diff(stats, 2)
    assert curvature.min() > 0
    assert np.abs(np.diff(curvature)).max() < 0.05 * curvature.max()


@pytest.mark.parametrize("lat", [-89.99, -60.0, 89.5])
def test_a_source_near_a_pole_keeps_its_counts(lat: float) -> None:
    dataset = toy_dataset(1, "TAN", (40.0, lat), width=(1.6, 1.5))
    at = place(dataset, 38.3, 37.1)
    point = predicted(dataset, source(PointSpatialModel(**at))).sum()
    for spatial in (
        DiskSpatialModel(r_0=0.2, **at),
        GaussianSpatialModel(sigma=0.1, e=0.7, phi=20.0, **at),
    ):
        assert predicted(dataset, source(spatial)).sum() == pytest.approx(point, rel=2e-3)


@pytest.mark.parametrize("kind", SHAPES)
def test_any_values_on_the_way_of_a_fit_give_finite_numbers(kind: str) -> None:
    dataset = with_counts(toy_dataset(), np.full((1, 100, 120), 1.0))
    models = source(SHAPES[kind](frame="galactic", lon_0=0.1), background=True)
    for parameter in models[0].spatial_model.parameters:
        parameter.frozen = False
    evaluator = Evaluator([dataset], models)
    rng = np.random.default_rng(4)
    limits = {"e": (0, 1), "phi": (-400, 400), "edge_width": (0, 1), "eta": (0.02, 1)}
    for trial in range(25):
        x = evaluator.x0.copy()
        for i, (_, name) in enumerate(evaluator.names):
            if name in ("lon_0", "lat_0"):
                x[i] += rng.normal() * (0.2 if trial < 20 else 3.0)
            elif evaluator.is_size("src", name):
                x[i] = rng.choice([0.0, 1e-9, 0.03, 0.4, 2.0])
            elif name in limits:
                x[i] = rng.choice([*limits[name], rng.uniform(*limits[name])])
        stat, gradient = evaluator.stat_and_gradient(x)
        assert np.isfinite(stat), x
        assert np.all(np.isfinite(gradient)), x
        derivatives = evaluator.derivatives(x)
        assert np.all(np.isfinite(derivatives.expected))
        assert np.all(np.isfinite(derivatives.observed))


# --- fits
def test_injected_shapes_are_recovered(gammapy_data: Path, reference: Path) -> None:
    import yaml

    from imgfit_widgets import Analysis, AnalysisConfig

    cases = json.loads((reference / "gammapy" / "sim_shapes.json").read_text())
    maps = np.load(reference / "gammapy" / "sim_shapes.npz")
    analysis = Analysis(AnalysisConfig.from_yaml(yaml.safe_dump(cases["config"])))
    analysis.get_observations()
    analysis.get_datasets()
    dataset = analysis.datasets[0]
    for name, case in cases.items():
        if name in ("config", "note"):
            continue
        injected = SimpleNamespace(
            name="stacked",
            geom=dataset.geom,
            energy_axis=dataset.energy_axis,
            energy_axis_true=dataset.energy_axis_true,
            counts=WcsNDMap(dataset.geom, maps[f"counts_{name}"][None].astype(float)),
            background=WcsNDMap(dataset.geom, maps["bkg"][None].astype(float)),
            exposure=dataset.exposure,
            psf=dataset.psf,
            edisp=dataset.edisp,
            mask=maps["mask"][None],
        )
        models = Models.from_yaml(case["start"])
        models.append(FoVBackgroundModel(dataset_name="stacked"))
        result = Fit().solve([injected], models)
        assert result.success, (name, result.message)
        truth = Models.from_yaml(case["truth"])
        for (model, key), value, error in zip(
            result.names, result.values, result.errors, strict=True
        ):
            expected = 1.0 if key == "norm" else truth[model].parameters[key].value
            assert abs(value - expected) < 3 * error, (name, model, key)
        if case["fit"]["stat"] is not None:
            # Gammapy's minimum, from its own prediction of the same model, is no deeper by much.
            assert result.total_stat < case["fit"]["stat"] + 25.0
        if name in ("gauss", "gauss_ell", "disk"):
            # And ours is that of the true prediction.
            result.apply(models)
            source, norm = models[0], models[1].parameters["norm"].value
            mu = expected_counts_near_equator(injected, source) + norm * maps["bkg"]
            stat = cash(maps[f"counts_{name}"], mu)[maps["mask"]].sum()
            assert result.total_stat == pytest.approx(stat, abs=0.1)


def test_an_ellipse_is_found_from_a_round_start() -> None:
    dataset = toy_dataset()
    at = {"frame": "galactic", "lon_0": 0.1, "lat_0": -0.05}
    models = source(GaussianSpatialModel(sigma=0.2, e=0.9, phi=-60.0, **at), 2e-10, True)
    evaluator = Evaluator([dataset], models)
    dataset = with_counts(dataset, evaluator.npred(evaluator.x0)[0])
    start = source(GaussianSpatialModel(sigma=0.1, **at), 1e-10, True)
    for key in ("e", "phi"):
        start.parameters[key].frozen = False
    result = Fit().solve([dataset], start)
    assert result.success, result.message
    assert result.value("src", "e") == pytest.approx(0.9, abs=1e-3)
    assert result.value("src", "phi") % 180.0 == pytest.approx(120.0, abs=0.1)
    assert result.value("src", "sigma") == pytest.approx(0.2, abs=1e-3)


def oval(dataset: Any, **start: Any) -> tuple[Any, Models]:
    """Counts of an ellipse with phi = 120 deg, as expected, and a round source to fit to them."""
    at = {"frame": "galactic", "lon_0": 0.1, "lat_0": -0.05}
    truth = source(GaussianSpatialModel(sigma=0.2, e=0.9, phi=-60.0, **at), 2e-10, True)
    round_one = source(GaussianSpatialModel(sigma=0.1, **at, **start), 1e-10, True)
    for key in ("e", "phi"):
        round_one.parameters[key].frozen = False
    evaluator = Evaluator([dataset], truth)
    return with_counts(dataset, evaluator.npred(evaluator.x0)[0]), round_one


@pytest.mark.parametrize(
    ("low", "high", "start"),
    [(0.0, 360.0, 350.0), (-360.0, 0.0, -5.0), (90.0, 150.0, 100.0), (-90.0, -40.0, -45.0)],
)
def test_angles_end_within_their_limits(low: float, high: float, start: float) -> None:
    dataset, models = oval(toy_dataset())
    phi = models["src"].spatial_model.phi
    phi.min = phi.max = np.nan
    phi.value, phi.min, phi.max = start, low, high
    result = Fit().solve([dataset], models)
    assert result.success, result.message
    found = result.value("src", "phi")
    assert low <= found <= high
    assert found % 180.0 == pytest.approx(120.0, abs=0.1)
    result.apply(models)
    evaluator = Evaluator([dataset], models)
    assert evaluator.stat(evaluator.x0) == pytest.approx(result.total_stat, abs=1e-6)


def test_linked_ellipses_leave_the_saddle_together() -> None:
    dataset, models = oval(toy_dataset())
    truth = Models([models["src"].copy(), models["src"].copy("twin")])
    for model, lon in ((truth["src"], 0.6), (truth["twin"], -0.6)):
        shape = model.spatial_model
        shape.lon_0.value, shape.sigma.value, shape.e.value, shape.phi.value = lon, 0.15, 0.8, 40.0
    models = Models([m.copy() for m in truth] + [FoVBackgroundModel(dataset_name="toy")])
    for model in truth:
        shape = models[model.name].spatial_model
        shape.e.value, shape.phi.value = 0.0, 0.0
    first, second = models["src"].spatial_model, models["twin"].spatial_model
    second.e.link, second.phi.link = first.e, first.phi
    evaluator = Evaluator([dataset], Models([*truth, models[-1]]))
    dataset = with_counts(dataset, evaluator.npred(evaluator.x0)[0])
    result = Fit().solve([dataset], models)
    assert result.success, result.message
    assert ("twin", "e") not in result.names and ("twin", "phi") not in result.names
    assert result.value("src", "e") == pytest.approx(0.8, abs=1e-3)
    assert result.value("src", "phi") % 180.0 == pytest.approx(40.0, abs=0.1)


def test_a_size_ends_within_its_upper_limit_from_either_side() -> None:
    dataset, models = oval(toy_dataset())
    sigma = models["src"].spatial_model.sigma
    sigma.max, sigma.value = 0.12, 1e-4
    result = Fit().solve([dataset], models)
    assert result.success, result.message
    assert result.value("src", "sigma") == pytest.approx(0.12, abs=1e-9)
    assert "At its limit, so without an error: src.sigma" in result.message


@pytest.mark.parametrize(
    "case", ["B_disk", "B_disk_edge0.3", "B_gauss_ell", "B_shell_fixed_geometry"]
)
def test_gammapys_predictions_are_met_loosely(tutorial: Any, reference: Path, case: str) -> None:
    data = json.loads((reference / "gammapy" / f"{case}.json").read_text())
    models = Models.from_yaml(data["models"])
    evaluator = Evaluator([tutorial.datasets["stacked"]], models)
    ours = evaluator.npred_of("GC-1", evaluator.x0)[0].sum()
    fixed = data["fixed"][0]
    assert ours == pytest.approx(np.sum(fixed["npred_signal"]), rel=0.02)


# --- outlines, limits, names
@pytest.mark.parametrize("shape", [s for s in SPATIAL_MODELS if not s.needs_file])
def test_every_shape_has_what_the_editor_and_the_map_need(shape: Any) -> None:
    model = shape.new_at(120.0, 35.0, "icrs")
    assert model.evaluation_radius.to_value("deg") >= 0
    assert np.all(model.evaluate(np.array([120.0, 121.0]), 35.0) >= 0)
    for label, lon, lat in model.outline():
        assert label
        assert (lon[0], lat[0]) == (pytest.approx(lon[-1]), pytest.approx(lat[-1]))
    if model.size_parameter:
        value = model.parameters[model.size_parameter].value
        _, lon, lat = model.outline()[0]
        assert lat.max() - 35.0 == pytest.approx(value, rel=1e-3)
    frozen = {p.name for p in model.parameters if p.frozen}
    assert frozen == {"e", "phi", "edge_width", "value"} & set(model.parameters.names)
    for name in shape.size_names:
        with pytest.raises(ImgfitError, match=f"{name}: value -1 is outside its limits"):
            model.parameters[name].value = -1


def test_an_outline_turns_from_north_towards_east() -> None:
    disk = DiskSpatialModel(r_0=0.5, e=0.9, phi=30.0, lon_0=10.0, lat_0=0.0)
    _, lon, lat = disk.outline()[0]
    far = np.argmax(np.hypot(lon - 10.0, lat))
    assert np.degrees(np.arctan2(lon[far] - 10.0, lat[far])) % 180.0 == pytest.approx(30, abs=0.1)
    assert np.hypot(lon - 10.0, lat).min() == pytest.approx(0.5 * np.sqrt(1 - 0.81), rel=1e-3)
    inside = disk.evaluate(10.0 + 0.45 * np.sin(np.radians(30)), 0.45 * np.cos(np.radians(30)))
    assert inside > 0
    assert disk.evaluate(10.0 - 0.45 * np.sin(np.radians(30)), 0.45 * np.cos(np.radians(30))) == 0


# --- Gammapy
ROUND_TRIP = """
import json, os, sys
import numpy as np
import astropy.units as u
os.chdir(os.path.dirname(sys.argv[2]))  # where it puts images that it writes along
from gammapy.modeling.models import Models
models = Models.read(sys.argv[1])
lon, lat = np.array(json.loads(sys.argv[3])) * u.deg
answer = {m.name: {"parameters": {p.name: [p.value, str(p.unit), p.frozen] for p in
          m.spatial_model.parameters}, "frame": m.spatial_model.frame,
          "values": np.broadcast_to(m.spatial_model(lon, lat).to_value("sr-1"), lon.shape).tolist()}
          for m in models}
models.write(sys.argv[2], overwrite=True, write_covariance=False)
print(json.dumps(answer))
"""


def test_gammapy_reads_shapes_as_they_are_and_writes_them_back(
    gammapy: Any, tmp_path: Path, template: Path
) -> None:
    at = {"frame": "galactic", "lon_0": 0.1, "lat_0": -0.05}
    shapes = {
        "disk": DiskSpatialModel(r_0=0.2, e=0.7, phi=40.0, edge_width=0.2, **at),
        "gauss": GaussianSpatialModel(sigma=0.1, e=0.6, phi=-30.0, **at),
        "general": GeneralizedGaussianSpatialModel(r_0=0.1, eta=0.7, e=0.3, phi=10.0, **at),
        "shell": ShellSpatialModel(radius=0.15, width=0.07, **at),
        "shell2": Shell2SpatialModel(r_0=0.25, eta=0.3, **at),
        "template": TemplateSpatialModel.read(template),
        "flat": ConstantSpatialModel(value=3.0),
        "point": PointSpatialModel(**at),
    }
    models = Models(SkyModel(PowerLaw2SpectralModel(), s, name) for name, s in shapes.items())
    models["disk"].spatial_model.e.frozen = False
    models.write(tmp_path / "ours.yaml", write_covariance=False)
    rng = np.random.default_rng(2)
    lon, lat = 0.1 + rng.uniform(-0.25, 0.25, 40), -0.05 + rng.uniform(-0.25, 0.25, 40)
    where = json.dumps([lon.tolist(), lat.tolist()])
    code = ROUND_TRIP.replace("m.spatial_model(lon, lat)", "value(m)").replace(
        "answer =",
        "value = lambda m: m.spatial_model(lon, lat) if m.name != 'point' else 0 / u.sr\nanswer =",
    )
    found = gammapy(code, tmp_path / "ours.yaml", tmp_path / "theirs.yaml", where)
    again = Models.read(tmp_path / "theirs.yaml")
    for name, spatial in shapes.items():
        theirs = found[name]
        for p in spatial.parameters:
            if name == "flat":  # Gammapy drops its value on writing, and writes no frame
                continue
            value, unit, frozen = theirs["parameters"][p.name]
            assert (unit, frozen) == (p.unit.to_string(), p.frozen), (name, p.name)
            assert value == pytest.approx(p.value), (name, p.name)
            back = again[name].spatial_model.parameters[p.name]
            assert (back.value, back.frozen) == (pytest.approx(p.value), p.frozen)
        if name in ("point", "flat"):
            continue
        ours = spatial.evaluate(lon, lat)
        size = 0.03 if name == "template" else 2e-4
        np.testing.assert_allclose(ours, theirs["values"], atol=size * ours.max(), err_msg=name)


# --- regions
def test_regions_come_back_as_the_shapes_they_were(tmp_path: Path) -> None:
    at = {"frame": "galactic", "lon_0": 10.0, "lat_0": -3.0}
    shapes = [
        PointSpatialModel(**at),
        DiskSpatialModel(r_0=0.3, **at),
        DiskSpatialModel(r_0=0.3, e=0.8, phi=35.0, **at),
        GaussianSpatialModel(sigma=0.2, e=0.5, phi=-20.0, **at),
        GaussianSpatialModel(sigma=0.2, **at),
        ShellSpatialModel(radius=0.2, width=0.1, **at),
        Shell2SpatialModel(r_0=0.5, eta=0.3, **at),
    ]
    models = Models(
        SkyModel(PowerLaw2SpectralModel(), s, f"source {i}") for i, s in enumerate(shapes)
    )
    models.append(SkyModel(PowerLaw2SpectralModel(), ConstantSpatialModel(), "flat"))
    write_regions(models, tmp_path / "sources.reg")
    with pytest.raises(ModelError, match="the file exists"):
        write_regions(models, tmp_path / "sources.reg")
    again = read_regions(tmp_path / "sources.reg")
    assert again.names == [f"source {i}" for i in range(7)]
    for model, spatial in zip(again, shapes, strict=True):
        assert type(model.spatial_model) is type(spatial)
        assert model.frame == "galactic"
        np.testing.assert_allclose(
            model.spatial_model.canonical_values(), spatial.canonical_values(), atol=1e-6
        )
    turned = read_regions(tmp_path / "sources.reg", frame="icrs")[2].spatial_model
    original = shapes[2]
    lon, lat = 10.0 + np.array([0.1, -0.1, 0.15, 0.0]), -3.0 + np.array([0.2, 0.2, -0.05, 0.28])
    geom = WcsGeom.create((10.0, -3.0), 1.0, 0.1, "CAR", "galactic")
    np.testing.assert_allclose(
        turned.radius(*geom.to_frame(lon, lat, "icrs")), original.radius(lon, lat), rtol=1e-3
    )


def test_regions_of_ds9_are_read_and_what_is_no_source_is_named(tmp_path: Path) -> None:
    path = tmp_path / "hand.reg"
    path.write_text(
        'fk5\ncircle(83.63,22.01,600") # text={Crab}\nellipse(83.0,22.0,0.3,0.1,0) # tag={gauss}\n'
    )
    models = read_regions(path)
    assert models[0].name == "Crab"
    assert models[0].spatial_model.r_0.value == pytest.approx(1 / 6)
    wide = models[1].spatial_model
    # DS9's first axis points along the longitude at an angle of 0.
    assert isinstance(wide, GaussianSpatialModel)
    assert abs(wide.phi.value) == pytest.approx(90.0)
    assert wide.sigma.value == pytest.approx(0.3)
    path.write_text("fk5\nbox(83.63,22.01,1,2,0)\n")
    with pytest.raises(ModelError, match=r"hand\.reg: regions\[0\]: a RectangleSkyRegion is no"):
        read_regions(path)
    path.write_text("image\ncircle(10,10,3)\n")
    with pytest.raises(ModelError, match=r"regions\[0\]: a CirclePixelRegion is no shape"):
        read_regions(path)
    assert len(models_from_regions(models_to_regions(models))) == 2


@pytest.mark.parametrize(
    ("lat", "radius", "ways", "off"),
    [(0.0, 3.0, (5e-3, 0.0), 4e-5), (0.0, 3.0, (0.0, 5e-3), 2e-5), (3.0, 3.0, (0.0, 0.1), 3e-4)],
)
def test_rows_that_are_taken_for_straight_see_what_each_pixel_does(lat, radius, ways, off):
    """A wide Gaussian in a map of 5 deg: by rows and columns, and by each pixel's own place.

    Straight ones; those that are followed to first order, which are not straight at all off the
    equator.
    """
    geom = WcsGeom.create((0.2, lat), (5.0, 4.0), 0.04, frame="galactic")
    ny, nx = geom.shape
    counts = []
    for tolerances in (ways, (0.0, 0.0)):
        plane = SkyPlane(
            geom,
            "galactic",
            (0.3, lat - 0.1),
            0.05,
            (6.0, 6.0),
            (0, ny, 0, nx),
            (radius, *tolerances),
        )
        wave = Wave.of(plane.east, plane.north)
        shape = GaussianSpatialModel(sigma="0.9 deg").transform(
            np.array([0.9, 0.0, 0.0]), wave, False
        )[0]
        along_x, along_y = plane.phase(0.0, 0.0)
        image = plane.image(shape * along_y[:, None] * along_x * plane.window)
        counts.append(plane.to_pixels(image[None])[0])
        back = plane.to_cells(counts[-1][None])[0]
        assert np.vdot(back, image) == pytest.approx(np.vdot(counts[-1], counts[-1]), rel=1e-12)
    straight, exact = counts
    assert not np.array_equal(straight, exact)
    # Twice as far off without the areas of pixels away from the axes.
    np.testing.assert_allclose(straight, exact, atol=off * exact.max())
    assert straight.sum() == pytest.approx(exact.sum(), rel=1e-4)
