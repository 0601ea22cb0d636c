"""The reduction of the tutorial's runs against Gammapy's numbers and the brute-force truth."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from brute_force import exposure_over

from imgfit_widgets import AnalysisConfig
from imgfit_widgets.core.analysis import Analysis, with_background
from imgfit_widgets.core.data import DataStore
from imgfit_widgets.core.dataset import Datasets, MapDataset
from imgfit_widgets.core.errors import ConfigError, DataError
from imgfit_widgets.core.evaluator import Evaluator
from imgfit_widgets.core.irf.psf import PSF_WIDTHS, RAD_BOUNDS, from_profiles, profiles, spread
from imgfit_widgets.core.maps import MapAxis
from imgfit_widgets.core.models import GaussianSpatialModel, Models
from imgfit_widgets.core.progress import Cancelled


@pytest.fixture(scope="module")
def numbers(reference):
    return json.loads((reference / "gammapy/A_seed.json").read_text())


@pytest.fixture
def config(gammapy_data, reference):
    return AnalysisConfig.read(reference / "formats/A_config_input.yaml")


def reduced(config: AnalysisConfig, **options) -> Datasets:
    analysis = Analysis(config, **options)
    analysis.get_observations()
    analysis.get_datasets()
    return analysis.datasets


@pytest.mark.parametrize("accuracy", ["tutorial", "tutorial_gammapy"])
def test_counts_bins_and_exposure_are_gammapys(accuracy, numbers, request):
    dataset = request.getfixturevalue(accuracy).datasets["stacked"]
    info, expected = dataset.info_dict(), numbers["datasets"][0]
    assert info["counts"] == 85625
    assert (info["n_bins"], info["n_fit_bins"]) == (120000, 96602)
    assert info["exposure_min"] == pytest.approx(expected["exposure_min"], rel=1e-5)
    assert info["exposure_max"] == pytest.approx(expected["exposure_max"], rel=1e-5)
    assert info["livetime"] == pytest.approx(expected["livetime_s"])
    for name, (lon, lat) in expected["positions"].items():
        found = dataset.exposure.interp_by_coord(lon, lat)
        np.testing.assert_allclose(found, expected["exposure"][name], rtol=1e-3, err_msg=name)


def test_every_run_counts_what_gammapy_counts(config, numbers):
    for run in numbers["fov_norms"]:
        config.observations.obs_ids = [run["obs_id"]]
        info = reduced(config)["stacked"].info_dict()
        assert (info["counts"], info["n_fit_bins"]) == (run["counts_safe"], run["n_safe"])


def test_background_norms_are_gammapys_in_its_accuracy(tutorial_gammapy):
    norms = tutorial_gammapy.datasets["stacked"].info_dict()["fov_norm"]
    expected = {"110380": 1.11799, "111140": 1.10733, "111159": 1.10610}
    assert norms == pytest.approx(expected, abs=5e-4)


def test_background_pixels_are_gammapys_in_its_accuracy(tutorial_gammapy, numbers):
    dataset, expected = tutorial_gammapy.datasets["stacked"], numbers["datasets"][0]
    for name, (row, column) in expected["bkg_pix_index_yx"].items():
        found = dataset.background.data[:, row, column]
        np.testing.assert_allclose(found, expected["background_pix"][name], rtol=1e-3)


def test_statistic_without_a_source_is_gammapys_in_its_accuracy(tutorial_gammapy):
    dataset = tutorial_gammapy.datasets["stacked"]
    models = with_background(Models(), [dataset])
    evaluator = Evaluator([dataset], models)
    assert evaluator.stat(np.array([1.0])) == pytest.approx(171088.05, abs=0.5)


def test_energy_dispersion_and_psf_are_gammapys_in_its_accuracy(tutorial_gammapy, numbers):
    dataset, expected = tutorial_gammapy.datasets["stacked"], numbers["datasets"][0]
    centre = dataset.edisp.data[:, 0, 14:16, 19:21].mean(axis=(1, 2))
    np.testing.assert_allclose(centre, np.ravel(expected["edisp"]["center"]), atol=3e-3)
    found = dataset.psf.containment_radius(0.68, 0.0, 0.0)
    np.testing.assert_allclose(found, expected["psf_r68_deg"]["center"], atol=1.5e-3)


def test_exact_background_has_the_shape_that_the_data_have(tutorial, tutorial_gammapy):
    """Fine integration in energy is better by far more than chance; the data decide."""
    stats = []
    for analysis in (tutorial, tutorial_gammapy):
        dataset = analysis.datasets["stacked"]
        stats.append(Evaluator([dataset], with_background(Models(), [dataset])).stat(np.ones(1)))
    assert stats[1] - stats[0] > 30


@pytest.mark.parametrize(
    ("source", "total", "peak", "pixel"),
    [("tutorial", 5e-4, 2e-3, 5e-3), ("gammapy_file", 3e-3, 5e-3, 2e-2)],
)
@pytest.mark.parametrize(
    ("key", "lon", "sigma"), [("T00", -0.05, 0), ("T_half", -0.04, 0), ("T_gauss0p05", -0.04, 0.05)]
)
def test_predicted_counts_are_the_truth(
    source, total, peak, pixel, key, lon, sigma, reference, request
):
    analysis = request.getfixturevalue(source)
    dataset = analysis if isinstance(analysis, MapDataset) else analysis.datasets["stacked"]
    models = Models.read(reference / "formats/A_models_input.yaml")
    model = models["GC-1"]
    if sigma:
        model.spatial_model = GaussianSpatialModel(sigma=f"{sigma} deg", frame="galactic")
    model.parameters["lon_0"].value = model.parameters["lat_0"].value = lon
    model.parameters["amplitude"].value = 3e-11
    evaluator = Evaluator([dataset], models)
    truth = np.load(reference / "gammapy/truth_A.npz")
    expected, (row, column) = truth[key], truth["origin_yx"]
    found = evaluator.npred_of("GC-1", evaluator.x0)[0][0][row : row + 51, column : column + 51]

    assert found.sum() == pytest.approx(expected.sum(), rel=total)
    assert found.max() == pytest.approx(expected.max(), rel=peak)
    if sigma:
        # The truth has the exposure at the centre; the photons come from all over the source.
        expected = expected * exposure_over(dataset, model, expected)
    bright = expected > 0.01 * expected.max()
    np.testing.assert_allclose(found[bright], expected[bright], rtol=pixel)
    grid = np.mgrid[:51, :51]
    shift = [(found * g).sum() / found.sum() - (expected * g).sum() / expected.sum() for g in grid]
    np.testing.assert_allclose(np.multiply(shift, 0.02), 0.0, atol=1e-5)


@pytest.fixture(scope="module")
def gammapy_file(gammapy, gammapy_data, reference, tmp_path_factory) -> MapDataset:
    """The tutorial's dataset as Gammapy reduces and writes it."""
    path = tmp_path_factory.mktemp("gammapy") / "stacked.fits"
    gammapy(
        """
import sys, logging
from gammapy.analysis import Analysis, AnalysisConfig
logging.disable()
analysis = Analysis(AnalysisConfig.read(sys.argv[1]))
analysis.get_observations()
analysis.get_datasets()
analysis.datasets["stacked"].write(sys.argv[2])
print("null")
""",
        reference / "formats/A_config_input.yaml",
        path,
    )
    return MapDataset.read(path)


def test_gammapys_file_holds_what_ours_reduces(gammapy_file, tutorial_gammapy):
    ours = tutorial_gammapy.datasets["stacked"]
    np.testing.assert_array_equal(gammapy_file.counts.data, ours.counts.data)
    np.testing.assert_array_equal(gammapy_file.mask, ours.mask)
    inside = ours.mask
    np.testing.assert_allclose(
        gammapy_file.background.data[inside], ours.background.data[inside], rtol=1e-3
    )
    np.testing.assert_allclose(gammapy_file.exposure.data, ours.exposure.data, rtol=1e-5, atol=1e-3)
    assert [run.obs_id for run in gammapy_file.runs] == [110380, 111140, 111159]
    assert gammapy_file.livetime == pytest.approx(ours.livetime)


def test_unstacked_runs_keep_their_own_window_and_norm(config):
    config.datasets.stack = False
    datasets = reduced(config, accuracy="gammapy")
    assert datasets.names == ["obs-110380", "obs-111140", "obs-111159"]
    first = datasets[0]
    info = first.info_dict()
    assert first.geom.shape == (210, 250)
    assert (info["counts"], info["n_fit_bins"]) == (28735, 44031)
    assert first.counts.data.sum() == 32527
    assert first.background.data.sum() == pytest.approx(32418.417 / 1.1179876, rel=1e-3)
    assert first.background_model.parameters["norm"].value == pytest.approx(1.11799, abs=5e-4)


def test_numbers_do_not_depend_on_the_workers(config, tutorial):
    with ThreadPoolExecutor(2) as pool:
        found = reduced(config, executor=pool)["stacked"]
    expected = tutorial.datasets["stacked"]
    np.testing.assert_array_equal(found.background.data, expected.background.data)
    np.testing.assert_array_equal(found.psf.weights, expected.psf.weights)


def test_progress_runs_to_the_end_and_cancel_leaves_nothing(config):
    analysis = Analysis(config)
    analysis.get_observations()
    seen: list[tuple[float, str]] = []
    analysis.get_datasets(lambda fraction, message: seen.append((fraction, message)))
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert any("Run 111140" in message for _, message in seen)

    def stop(fraction: float, message: str) -> None:
        if fraction > 0.4:
            raise Cancelled

    again = Analysis(config)
    again.get_observations()
    with pytest.raises(Cancelled):
        again.get_datasets(stop)
    assert again.datasets is None


def test_a_map_elsewhere_has_no_exposure(config):
    config.datasets.geom.wcs.skydir = {"lon": "90 deg", "lat": "0 deg", "frame": "galactic"}
    with pytest.raises(DataError, match=r"skydir: the map does not overlap .*110380.*no exposure"):
        reduced(config)


def test_runs_that_are_not_there_are_named(gammapy_data):
    store = DataStore.from_dir("$GAMMAPY_DATA/cta-1dc/index/gps")
    with pytest.raises(
        DataError, match=r"observation 111630: its events file is not there: .*111630"
    ):
        store.get_observations([110380, 111630])
    with pytest.raises(DataError, match="observation 7: not in the index"):
        store.get_observations([7])
    with pytest.raises(DataError, match="no such folder"):
        DataStore.from_dir("/nowhere")
    with pytest.raises(ConfigError, match=r"variable NOT_SET_AT_ALL is not set"):
        DataStore.from_dir("$NOT_SET_AT_ALL/x")


def test_a_response_of_an_unknown_class_is_refused_by_name(gammapy_data):
    observation = DataStore.from_dir("$GAMMAPY_DATA/hess-dl3-dr1").obs(23523)
    at = observation.hdus["psf"]
    observation.hdus["psf"] = replace(at, hdu_class="psf_moffat")
    with pytest.raises(DataError, match=r"023523.*\[psf\]: .*'psf_moffat' cannot be read"):
        _ = observation.psf


@pytest.mark.parametrize("sigma", [0.0047, 0.0123, 0.05, 0.0777, 0.31])
def test_any_gaussian_is_a_mixture_of_the_fixed_widths(sigma):
    weights = spread([sigma])[0]
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)
    rad = np.linspace(0, 5 * sigma, 200)
    exact = np.exp(-0.5 * (rad / sigma) ** 2) / (2 * np.pi * sigma**2)
    assert np.abs(profiles(weights, rad) - exact).max() < 6e-4 * exact[0]
    assert (weights * PSF_WIDTHS**2).sum() == pytest.approx(sigma**2, rel=2e-3)


@pytest.mark.parametrize("sigma", [0.02, 0.05, 0.15])
def test_a_tabulated_gaussian_comes_back(sigma):
    rad = MapAxis("rad", RAD_BOUNDS, "deg", "lin")
    table = np.exp(-0.5 * (rad.centers / sigma) ** 2)
    weights = from_profiles(table, rad)
    grid = np.linspace(0, 4 * sigma, 100)
    exact = np.exp(-0.5 * (grid / sigma) ** 2) / (2 * np.pi * sigma**2)
    assert np.abs(profiles(weights, grid) - exact).max() < 4e-3 * exact[0]
