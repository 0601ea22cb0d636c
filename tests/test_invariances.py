"""What must not change a likelihood: frame, pixel phase, order, splitting, units."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from toy import WIDTHS, toy_dataset, toy_models, with_counts

from imgfit_widgets.core.evaluator import Evaluator
from imgfit_widgets.core.fit import Fit
from imgfit_widgets.core.maps import WcsGeom, WcsNDMap, convert_frame
from imgfit_widgets.core.models import (
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
)

few = settings(derandomize=True, deadline=None, max_examples=12, database=None)

sizes = st.floats(0.01, 0.25)
ovals = {"e": st.floats(0.1, 0.9), "phi": st.floats(-180.0, 180.0)}
SHAPES: dict[Any, dict[str, st.SearchStrategy[float]]] = {
    PointSpatialModel: {},
    GaussianSpatialModel: {"sigma": sizes, **ovals},
    DiskSpatialModel: {"r_0": sizes, "edge_width": st.floats(0.01, 0.5), **ovals},
    ShellSpatialModel: {"radius": sizes, "width": sizes},
    Shell2SpatialModel: {"r_0": sizes, "eta": st.floats(0.05, 1.0)},
    GeneralizedGaussianSpatialModel: {"r_0": sizes, "eta": st.floats(0.1, 1.0), **ovals},
}


@st.composite
def shapes(draw: Any) -> Any:
    """Any shape near the middle of the map; a Gaussian is round in every second case."""
    kind = draw(st.sampled_from(list(SHAPES)))
    values = {name: draw(strategy) for name, strategy in SHAPES[kind].items()}
    if kind is GaussianSpatialModel and draw(st.booleans()):
        values = {"sigma": values["sigma"]}
    lon, lat = draw(st.floats(-0.3, 0.3)), draw(st.floats(-0.3, 0.3))
    return kind(frame="galactic", lon_0=lon, lat_0=lat, **values)


def source(spatial: Any, amplitude: float = 3e-11, name: str = "src") -> SkyModel:
    spectral = PowerLaw2SpectralModel(amplitude=amplitude, index=2.2, emin=0.5, emax=5.0)
    spectral.index.frozen = True
    return SkyModel(spectral, spatial, name)


def with_background(*sources: SkyModel, dataset: str = "toy") -> Models:
    return Models([*sources, FoVBackgroundModel(dataset_name=dataset)])


def npred(dataset: Any, models: Models) -> np.ndarray:
    evaluator = Evaluator([dataset], models)
    return evaluator.npred(evaluator.x0)[0]


def drawn(dataset: Any, models: Models, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return with_counts(dataset, rng.poisson(npred(dataset, models)).astype(float))


def stat(datasets: list[Any], models: Models) -> float:
    evaluator = Evaluator(datasets, models)
    return evaluator.stat(evaluator.x0)


def changed(dataset: Any, **more: Any) -> Any:
    return SimpleNamespace(**{**vars(dataset), **more})


FIELDS = [("CAR", (0.0, 0.0)), ("TAN", (120.0, -40.0)), ("CAR", (30.0, 60.0))]


# Smaller than a pixel, and turned against the pixels.
TINY = GaussianSpatialModel(frame="galactic", lon_0=0.0, lat_0=0.0, sigma=0.012, e=0.5, phi=0.0)


# --- frame
@few
@given(shapes(), st.sampled_from(FIELDS))
@example(TINY, FIELDS[0])
def test_the_frame_of_a_source_changes_nothing(spatial: Any, field: Any) -> None:
    """A position angle turns with North; the rest is the same sky."""
    proj, centre = field
    dataset = toy_dataset(1, proj, centre, slope=0.3)
    lon, lat = dataset.geom.pix_to_lonlat(
        60.0 + 50 * spatial.lon_0.value, 50.0 + 50 * spatial.lat_0.value
    )
    spatial.lon_0.value, spatial.lat_0.value = float(lon), float(lat)
    twin = spatial.copy()
    twin.frame = "icrs"
    there = convert_frame(lon, lat, "galactic", "icrs")
    twin.lon_0.value, twin.lat_0.value = (float(v) for v in there)
    if "phi" in spatial.parameters.names:
        pole = convert_frame(0.0, 90.0, "galactic", "icrs")
        twin.phi.value = spatial.phi.value + bearing(*there, *pole)
    models, twins = with_background(source(spatial)), with_background(source(twin))
    ours, theirs = npred(dataset, models), npred(dataset, twins)
    signal = (ours - dataset.background.data).max()
    np.testing.assert_allclose(theirs, ours, atol=1e-3 * signal)
    dataset = drawn(dataset, models)
    # The cells on which extended shapes are computed are turned against each other.
    assert stat([dataset], twins) == pytest.approx(stat([dataset], models), abs=0.06)


def bearing(lon: Any, lat: Any, to_lon: Any, to_lat: Any) -> float:
    """Direction from one place to another, from North towards East (deg)."""
    lon, lat, to_lon, to_lat = (np.radians(float(v)) for v in (lon, lat, to_lon, to_lat))
    east = np.cos(to_lat) * np.sin(to_lon - lon)
    north = np.cos(lat) * np.sin(to_lat) - np.sin(lat) * np.cos(to_lat) * np.cos(to_lon - lon)
    return float(np.degrees(np.arctan2(east, north)))


def test_a_fit_finds_the_same_source_in_either_frame() -> None:
    spatial = GaussianSpatialModel(frame="galactic", lon_0=0.1, lat_0=-0.05, sigma=0.15)
    dataset = drawn(toy_dataset(slope=0.3), with_background(source(spatial)))
    results = []
    for frame in ("galactic", "icrs"):
        lon, lat = (float(v) for v in convert_frame(0.13, -0.02, "galactic", frame))
        start = GaussianSpatialModel(frame=frame, lon_0=lon, lat_0=lat, sigma=0.1)
        results.append(Fit().solve([dataset], with_background(source(start))))
    here, there = results
    assert there.total_stat == pytest.approx(here.total_stat, abs=2e-3)
    for name in ("amplitude", "sigma"):
        error = here.error("src", name)
        assert there.value("src", name) == pytest.approx(here.value("src", name), abs=0.01 * error)
    at = [r.value("src", "lon_0") for r in results], [r.value("src", "lat_0") for r in results]
    back = convert_frame(at[0][1], at[1][1], "icrs", "galactic")
    assert float(back[0]) == pytest.approx(at[0][0], abs=2e-5)
    assert float(back[1]) == pytest.approx(at[1][0], abs=2e-5)


# --- pixel phase
def shifted(phase: tuple[float, float]) -> Any:
    """The same sky and instrument in pixels that lie elsewhere; flat background and PSF."""
    dataset = toy_dataset(slope=0.0)
    centre = 0.02 * phase[0], 0.02 * phase[1]
    geom = WcsGeom.create(centre, (2.4, 2.0), 0.02, "CAR", "galactic", [dataset.energy_axis])
    lon = (geom.pixel_lonlat[0] + 180.0) % 360.0 - 180.0
    exposure = np.stack([(1.0 + 0.2 * lon) * v for v in (2e9, 5e9, 8e9)])
    weights = np.ones_like(dataset.psf.weights) * dataset.psf.weights[:, :, 5:6, 6:7]
    return changed(
        dataset,
        geom=geom,
        counts=WcsNDMap(geom, np.zeros(geom.data_shape)),
        background=WcsNDMap(geom, np.full(geom.data_shape, 0.6)),
        exposure=WcsNDMap(geom.to_cube([dataset.energy_axis_true]), exposure, "m2 s"),
        psf=SimpleNamespace(widths=WIDTHS, weights=weights, geom=dataset.psf.geom),
    )


phases = st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5))


@few
@given(shapes(), phases)
def test_the_phase_of_the_pixels_changes_no_total_and_no_error(spatial: Any, phase: Any) -> None:
    models = with_background(source(spatial))
    for p in spatial.parameters:
        p.frozen = p.name in ("e", "phi", "edge_width", "eta", "width")
    found = []
    for dataset in (shifted((0.0, 0.0)), shifted(phase)):
        evaluator = Evaluator([dataset], models)
        image = evaluator.npred_of("src", evaluator.x0)[0]
        covariance = np.linalg.inv(evaluator.derivatives(evaluator.x0).expected)
        found.append((image.sum(), np.sqrt(np.diag(covariance))))
    assert found[1][0] == pytest.approx(found[0][0], rel=5e-4)
    # Errors do depend on it a little: pixels are as wide as the narrowest part of the PSF.
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=0.02)


@settings(few, max_examples=6)
@given(shapes(), phases)
def test_expected_counts_give_back_a_source_at_any_phase(spatial: Any, phase: Any) -> None:
    """Fitted from beside the truth: no parameter is pulled towards pixels."""
    for p in spatial.parameters:
        p.frozen = p.name in ("e", "phi", "edge_width", "eta", "width")
    models, dataset = with_background(source(spatial)), shifted(phase)
    dataset = with_counts(dataset, npred(dataset, models))
    truth = Evaluator([dataset], models).x0
    start = models.copy()
    start.parameters["lon_0"].value += 0.03
    start.parameters["lat_0"].value -= 0.02
    result = Fit().solve([dataset], start)
    assert result.success, result.message
    free = result.errors > 0
    assert np.abs((result.values - truth)[free] / result.errors[free]).max() < 0.02


# --- order
@few
@given(shapes(), shapes(), st.booleans())
def test_the_order_of_sources_changes_nothing(one: Any, two: Any, far: bool) -> None:
    if far:
        two.lon_0.value += 0.7
    models = [source(one, name="one"), source(two, name="two")]
    dataset = drawn(toy_dataset(2, slope=0.3), with_background(*models))
    there = stat([dataset], with_background(*models))
    assert stat([dataset], with_background(*models[::-1])) == pytest.approx(there, abs=1e-6)
    back = Models([FoVBackgroundModel(dataset_name="toy"), *models])
    assert stat([dataset], back) == pytest.approx(there, abs=1e-6)


def test_the_order_of_sources_changes_no_fit() -> None:
    pair = toy_models(0.1, -0.05, name="one"), toy_models(0.22, 0.0, name="two")
    sources = [pair[0][0], pair[1][0]]
    dataset = drawn(toy_dataset(slope=0.3), with_background(*sources))
    fits = [Fit().solve([dataset], with_background(*order)) for order in (sources, sources[::-1])]
    for (model, name), value, error in zip(
        fits[0].names, fits[0].values, fits[0].errors, strict=True
    ):
        assert fits[1].value(model, name) == pytest.approx(value, abs=1e-3 * error)
        assert fits[1].error(model, name) == pytest.approx(error, rel=1e-3)


# --- splitting
@few
@given(shapes(), st.integers(0, 2**32 - 1))
def test_masks_that_part_the_pixels_part_the_statistic(spatial: Any, seed: int) -> None:
    models = with_background(source(spatial))
    whole = drawn(toy_dataset(2, slope=0.3), models, seed)
    mask = np.random.default_rng(seed).random(whole.counts.data.shape) < 0.5
    parts = [changed(whole, mask=m) for m in (mask, ~mask)]
    assert sum(stat([part], models) for part in parts) == pytest.approx(
        stat([whole], models), abs=1e-6
    )


@few
@given(shapes(), st.floats(0.05, 0.95))
def test_parts_of_an_exposure_predict_parts_of_the_counts(spatial: Any, share: float) -> None:
    models, whole = with_background(source(spatial)), toy_dataset(2, slope=0.3)
    images = [npred(livetime(whole, part), models) for part in (share, 1.0 - share)]
    np.testing.assert_allclose(sum(images), npred(whole, models), rtol=1e-9)


def livetime(dataset: Any, share: float, **more: Any) -> Any:
    """The dataset of a part of the time."""
    return changed(
        dataset,
        background=WcsNDMap(dataset.geom, dataset.background.data * share),
        exposure=WcsNDMap(dataset.exposure.geom, dataset.exposure.data * share, "m2 s"),
        **more,
    )


@pytest.mark.parametrize("sigma", [None, 0.15])
def test_a_joint_fit_of_two_parts_is_the_fit_of_their_sum(sigma: float | None) -> None:
    """Also with counts that differ between the halves: the sum is sufficient."""
    models = toy_models(sigma=sigma)
    whole = drawn(toy_dataset(slope=0.3), models)
    rng = np.random.default_rng(3)
    first = rng.binomial(whole.counts.data.astype(int), 0.3).astype(float)
    parts = [
        with_counts(livetime(whole, share, name=name), counts)
        for share, name, counts in (
            (0.3, "first", first),
            (0.7, "second", whole.counts.data - first),
        )
    ]
    joint = Models([models[0].copy(), *(FoVBackgroundModel(dataset_name=p.name) for p in parts)])
    norms = [m.parameters["norm"] for m in joint if isinstance(m, FoVBackgroundModel)]
    norms[1].link = norms[0]
    one, two = Fit().solve([whole], models), Fit().solve(parts, joint)
    for name in ("amplitude", "lon_0", "lat_0", *(["sigma"] if sigma else [])):
        error = one.error("src", name)
        assert two.value("src", name) == pytest.approx(one.value("src", name), abs=0.01 * error)
        assert two.error("src", name) == pytest.approx(error, rel=0.01)


# --- scale
@few
@given(shapes(), st.floats(-3.0, 3.0))
def test_exposure_and_amplitude_only_matter_as_a_product(spatial: Any, power: float) -> None:
    dataset, factor = toy_dataset(1, slope=0.3), 10.0**power
    more = changed(
        dataset,
        exposure=WcsNDMap(dataset.exposure.geom, dataset.exposure.data * factor, "m2 s"),
    )
    faint = with_background(source(spatial.copy(), 3e-11 / factor))
    ours = npred(dataset, with_background(source(spatial)))
    np.testing.assert_allclose(npred(more, faint), ours, rtol=1e-9, atol=1e-9)
