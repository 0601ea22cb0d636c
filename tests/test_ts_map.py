"""The TS map against the likelihood pixel by pixel, against Gammapy, and as its reader uses it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar
from toy import toy_dataset

from imgfit_widgets import AnalysisConfig
from imgfit_widgets.core.analysis import Analysis
from imgfit_widgets.core.dataset import MapDataset
from imgfit_widgets.core.errors import DataError, InputError, ModelError
from imgfit_widgets.core.estimators import ts_blocks
from imgfit_widgets.core.estimators.norm_fit import Templates, fit_norms
from imgfit_widgets.core.estimators.ts_map import TSMapEstimator
from imgfit_widgets.core.evaluator import Evaluator
from imgfit_widgets.core.maps import WcsNDMap
from imgfit_widgets.core.models import (
    FoVBackgroundModel,
    GaussianSpatialModel,
    Models,
    PointSpatialModel,
    PowerLaw2SpectralModel,
    PowerLawSpectralModel,
    SkyModel,
)
from imgfit_widgets.core.progress import Cancelled


def as_dataset(toy: Any, seed: int = 0, source: float = 0.0) -> MapDataset:
    """A made-up dataset as a `MapDataset`, with counts of its background and one hot spot."""
    rng = np.random.default_rng(seed)
    # The drift of the made-up PSF goes below 0 on maps that are wide in longitude.
    toy.psf.weights = np.maximum(toy.psf.weights, 0.02)
    toy.psf.weights /= toy.psf.weights.sum(axis=1, keepdims=True)
    mean = toy.background.data.copy()
    ny, nx = toy.geom.shape
    y, x = np.mgrid[:ny, :nx]
    spot = np.exp(-0.5 * ((y - ny // 3) ** 2 + (x - nx // 2) ** 2) / 9.0)
    counts = rng.poisson(mean + source * spot)
    mask = None if toy.mask is None else WcsNDMap(toy.geom, toy.mask)
    return MapDataset(
        toy.name,
        WcsNDMap(toy.geom, counts.astype(float)),
        toy.background,
        toy.exposure,
        toy.psf,
        toy.edisp,
        mask_safe=mask,
    )


def source_at(dataset: MapDataset, y: int, x: int, sigma: float = 0.0) -> SkyModel:
    lon, lat = (float(v) for v in dataset.geom.pix_to_lonlat(x, y))
    shape: Any = PointSpatialModel(frame=dataset.geom.frame, lon_0=lon, lat_0=lat)
    if sigma:
        shape = GaussianSpatialModel(frame=dataset.geom.frame, lon_0=lon, lat_0=lat, sigma=sigma)
    return SkyModel(PowerLawSpectralModel(index=2.0), shape, "at")


def _above(values: np.ndarray) -> np.ndarray:
    """Far out, a mixture's Gaussians can leave traces below 0, which no count may see."""
    return np.maximum(values, -1.0 + 1e-12)


def one_by_one(dataset: MapDataset, y: int, x: int, sigma: float = 0.0) -> dict[str, float]:
    """Norm, errors, limit and TS of a source at one pixel, from the fit's own likelihood."""
    evaluator = Evaluator([dataset], Models([source_at(dataset, y, x, sigma)]))
    mask = dataset.mask & (dataset.background.data > 0)
    kernel = evaluator.npred_of("at", evaluator.x0)[0][mask]
    n, b = dataset.counts.data[mask], dataset.background.data[mask]

    def rise(norm: float) -> float:
        return float(2.0 * np.sum(norm * kernel - n * np.log1p(_above(norm * kernel / b))))

    lowest = -1.0 / np.max(kernel / b)
    top = 4.0 * (n[kernel > 1e-3 * kernel.max()].sum() + 10.0) / kernel.sum()
    best = minimize_scalar(
        rise, bounds=(lowest * (1 - 1e-9), top), method="bounded", options={"xatol": 1e-10 * top}
    )
    norm = float(best.x)
    return {
        "norm": norm,
        "ts": -best.fun,
        "norm_err": float(1.0 / np.sqrt(np.sum(n * (kernel / (b + norm * kernel)) ** 2))),
        "norm_ul": brentq(lambda f: rise(f) - best.fun - 4.0, norm, norm + top),
        "norm_errp": brentq(lambda f: rise(f) - best.fun - 1.0, norm, norm + top) - norm,
    }


def assert_same(maps: Any, dataset: MapDataset, y: int, x: int, sigma: float = 0.0) -> None:
    expected = one_by_one(dataset, y, x, sigma)
    error = expected["norm_err"]
    for name, value in expected.items():
        found = float(maps[name].data[0, y, x])
        if name == "ts":
            assert found == pytest.approx(value, abs=5e-3, rel=3e-4), (name, y, x)
        else:
            assert found == pytest.approx(value, abs=3e-3 * error, rel=3e-4), (name, y, x)


@pytest.mark.parametrize(
    ("proj", "centre", "bands"),
    [("CAR", (0.0, 0.0), 1), ("TAN", (30.0, 60.0), 3), ("CAR", (10.0, 50.0), 2)],
)
def test_every_pixel_is_a_fit_with_the_exact_image_of_the_source(proj, centre, bands):
    """Bright and empty pixels, the map's corner, and projections that shear and stretch."""
    toy = toy_dataset(bands, proj, centre, slope=0.2)
    dataset = as_dataset(toy, 1, source=15.0)
    maps = TSMapEstimator(selection_optional="all").run(dataset)
    ny, nx = dataset.geom.shape
    for y, x in [(0, 0), (ny // 3, nx // 2), (ny // 3 + 6, nx // 2), (70, 20), (ny - 1, 60)]:
        assert_same(maps, dataset, y, x)
    assert float(maps["sqrt_ts"].data[0, ny // 3, nx // 2]) > 20


def test_a_gaussian_is_mapped_like_a_point():
    dataset = as_dataset(toy_dataset(1), 2, source=2.0)
    estimator = TSMapEstimator(source_at(dataset, 0, 0, 0.05), selection_optional="all")
    maps = estimator.run(dataset)
    for y, x in [(33, 60), (60, 100)]:
        assert_same(maps, dataset, y, x, 0.05)


def test_masked_pixels_count_for_nothing():
    toy = toy_dataset(2)
    mask = np.ones(toy.geom.data_shape, dtype=bool)
    mask[:, :, 40:55] = False
    mask[1, 50:] = False
    toy.mask = mask
    dataset = as_dataset(toy, 3, source=5.0)
    maps = TSMapEstimator(selection_optional="all").run(dataset)
    assert np.isnan(maps["ts"].data[0][:, 40:55]).all()
    assert np.isfinite(maps["ts"].data[0][:, 55:]).all()
    for y, x in [(33, 56), (49, 60), (52, 39)]:
        assert_same(maps, dataset, y, x)
    own = np.zeros(dataset.geom.shape, dtype=bool)
    own[20:45, 50:70] = True
    few = TSMapEstimator(selection_optional="all").run(dataset, mask=own)
    assert np.isfinite(few["ts"].data).sum() == 25 * 15
    cut = MapDataset(
        "cut", dataset.counts, dataset.background, dataset.exposure, dataset.psf, dataset.edisp,
        mask_safe=WcsNDMap(dataset.geom, mask & own),
    )  # fmt: skip
    assert_same(few, cut, 33, 60)


def test_series_and_single_pixels_give_the_same_map(monkeypatch):
    dataset = as_dataset(toy_dataset(1), 4, source=3.0)
    fast = TSMapEstimator(selection_optional="all").run(dataset)
    monkeypatch.setattr(ts_blocks, "_SMALL", 0.0)
    slow = TSMapEstimator(selection_optional="all").run(dataset)
    for name in ("ts", "norm", "norm_err", "norm_errn", "norm_errp", "norm_ul"):
        np.testing.assert_allclose(
            fast[name].data,
            slow[name].data,
            rtol=1e-3,
            atol=1e-3 * np.nanmax(slow["norm_err"].data),
        )


def test_map_is_that_of_gammapy_within_what_its_one_kernel_allows(tutorial_gammapy, reference):
    """Gammapy's image of the source is that of the map's centre, split over four pixels."""
    dataset = tutorial_gammapy.datasets["stacked"]
    expected = np.load(reference / "gammapy/A_seed.npz")
    maps = TSMapEstimator().run(dataset)
    cut = (0, slice(132, 163), slice(187, 218))
    sqrt_ts, flux, error = (maps[key].data[cut] for key in ("sqrt_ts", "flux", "flux_err"))
    np.testing.assert_allclose(np.abs(sqrt_ts), np.sqrt(expected["tsmap_ts"]), atol=0.1)
    away = (flux * 1e11 - expected["tsmap_flux"]) / (error * 1e11)
    assert np.abs(away).max() < 0.4
    assert np.median(np.abs(away)) < 0.1
    assert sqrt_ts[15, 15] == pytest.approx(33.3619, abs=0.02)
    assert flux[15, 15] == pytest.approx(2.947345e-11, rel=0.012)
    assert error[15, 15] == pytest.approx(1.453299e-12, rel=0.012)
    for y, x in [(147, 202), (140, 202), (62, 235), (286, 63)]:
        wanted = one_by_one(dataset, y, x)
        assert maps["norm"].data[0, y, x] == pytest.approx(
            wanted["norm"], abs=1e-3 * wanted["norm_err"] + 1e-4 * abs(wanted["norm"])
        )
        assert maps["ts"].data[0, y, x] == pytest.approx(wanted["ts"], abs=2e-3, rel=1e-4)


@pytest.fixture(scope="module")
def three_bands(demo_store):
    """One run of the simulated field in coarse pixels and three energy bands."""
    config = AnalysisConfig.read(demo_store / "config.yaml")
    config.observations.obs_ids = [1]
    config.datasets.geom.wcs.binsize = "0.05 deg"
    config.datasets.geom.axes.energy.nbins = 3
    analysis = Analysis(config)
    analysis.get_observations()
    analysis.get_datasets()
    return analysis.datasets["stacked"]


def _from_centre(dataset):
    y, x = np.mgrid[: dataset.geom.shape[0], : dataset.geom.shape[1]]
    lon, lat = 30.6, 0.4  # where the run points
    at_x, at_y = (float(v) for v in dataset.geom.lonlat_to_pix(lon, lat))
    return y - at_y, x - at_x


def test_bands_are_fitted_with_one_norm_as_in_gammapy(three_bands, tmp_path, gammapy):
    path = tmp_path / "dataset.fits.gz"
    three_bands.write(path)
    maps = TSMapEstimator(selection_optional="ul").run(three_bands)
    # Well inside, because Gammapy's one kernel is that of the centre.
    inside = np.isfinite(maps["ts"].data[0]) & (np.hypot(*_from_centre(three_bands)) < 20)
    places = np.argwhere(inside)[::83]
    found = gammapy(
        """
import sys, json
import numpy as np
from gammapy.datasets import MapDataset
from gammapy.estimators import TSMapEstimator
dataset = MapDataset.read(sys.argv[1])
places = json.loads(sys.argv[2])
mask = np.zeros(dataset.geoms["geom"].data_shape[1:], dtype=bool)
estimator = TSMapEstimator(
    kernel_width="1 deg", sum_over_energy_groups=False, selection_optional=["ul"], rtol=1e-4,
    energy_edges=[dataset.counts.geom.axes["energy"].edges[0],
                  dataset.counts.geom.axes["energy"].edges[-1]],
)
maps = estimator.run(dataset)
print(json.dumps({name: [float(maps[name].data[0, y, x]) for y, x in places]
                  for name in ("sqrt_ts", "flux", "flux_err", "flux_ul")}))
""",
        path,
        [[int(y), int(x)] for y, x in places],
    )
    ours = {k: maps[k].data[0][tuple(places.T)] for k in found}
    np.testing.assert_allclose(ours["sqrt_ts"], found["sqrt_ts"], atol=0.35)
    for name in ("flux", "flux_ul"):
        away = (ours[name] - np.array(found[name])) / ours["flux_err"]
        assert np.median(np.abs(away)) < 0.1, name
    np.testing.assert_allclose(ours["flux_err"], found["flux_err"], rtol=0.1)
    for y, x in places[:3]:
        assert_same(TSMapEstimator(selection_optional="all").run(three_bands), three_bands, y, x)


def test_each_band_by_itself_is_a_map_of_that_band(three_bands):
    edges = three_bands.energy_axis.bounds
    maps = TSMapEstimator(energy_edges=edges[[0, 1, 3]]).run(three_bands)
    assert maps["ts"].data.shape == (2, *three_bands.geom.shape)
    only = three_bands.with_fit_range(edges[1], edges[3])
    second = TSMapEstimator().run(only)
    # Not to the last digit: other pixels are taken one by one when a band is only masked.
    error = second["norm_err"].data[0]
    np.testing.assert_allclose(
        maps["norm"].data[1] / error, second["norm"].data[0] / error, atol=0.03
    )
    low, high = edges[1], edges[3]
    flux = maps.reference_model.spectral_model.integral(low, high)
    np.testing.assert_allclose(maps["flux"].data[1], maps["norm"].data[1] * flux, rtol=1e-12)


def test_models_on_the_dataset_are_the_null_hypothesis():
    toy = toy_dataset(1)
    dataset = as_dataset(toy, 5, source=15.0)
    lon, lat = (float(v) for v in dataset.geom.pix_to_lonlat(60, 33))
    spectral = PowerLaw2SpectralModel(amplitude=1e-11, index=2.0, emin=0.5, emax=5.0)
    model = SkyModel(spectral, PointSpatialModel(frame="galactic", lon_0=lon, lat_0=lat), "hot")
    without = TSMapEstimator().run(dataset)
    # The amplitude that the map itself gives, in the other spectrum's terms.
    ratio = without["npred_excess"].data[0, 33, 60]
    dataset.models = Models([model, FoVBackgroundModel(dataset_name="toy")])
    spectral.amplitude.value *= ratio / dataset.npred_signal().data.sum()
    with_it = TSMapEstimator().run(dataset)
    assert without["sqrt_ts"].data[0, 33, 60] > 20
    assert abs(with_it["sqrt_ts"].data[0, 33, 60]) < 3


def test_datasets_on_the_same_pixels_are_fitted_together():
    first, second = (as_dataset(toy_dataset(1, name=n), 6, source=4.0) for n in ("a", "b"))
    one, two = TSMapEstimator().run(first), TSMapEstimator().run([first, second])
    np.testing.assert_allclose(two["ts"].data, 2.0 * one["ts"].data, rtol=1e-3, atol=2e-3)
    error = one["norm_err"].data
    np.testing.assert_allclose(two["norm"].data / error, one["norm"].data / error, atol=5e-3)
    other = as_dataset(toy_dataset(1, name="c", width=(2.0, 2.0)), 6)
    with pytest.raises(DataError, match="dataset 'c' has other pixels than 'a'"):
        TSMapEstimator().run([first, other])


def test_without_counts_the_factor_is_the_lowest_and_limits_follow_the_straight_line():
    toy = toy_dataset(1)
    dataset = as_dataset(toy, 0)
    empty = MapDataset(
        "empty", WcsNDMap(toy.geom, np.zeros(toy.geom.data_shape)), toy.background, toy.exposure,
        toy.psf, toy.edisp,
    )  # fmt: skip
    maps = TSMapEstimator(selection_optional="all").run(empty)
    evaluator = Evaluator([dataset], Models([source_at(dataset, 50, 60)]))
    kernel = evaluator.npred_of("at", evaluator.x0)[0]
    lowest = -1.0 / np.max(kernel / dataset.background.data)
    assert maps["norm"].data[0, 50, 60] == pytest.approx(lowest, rel=1e-3)
    # Twice the kernel's sum is the slope of the statistic; it rises by 4 for two sigmas.
    assert maps["norm_ul"].data[0, 50, 60] - lowest == pytest.approx(2.0 / kernel.sum(), rel=2e-3)
    for name in maps.available_quantities:
        assert np.isfinite(maps[name].data).all(), name


def test_processes_give_the_same_numbers():
    dataset = as_dataset(toy_dataset(1), 7, source=4.0)
    one = TSMapEstimator(selection_optional="ul").run(dataset)
    two = TSMapEstimator(selection_optional="ul", n_jobs=2).run(dataset)
    for name in one.available_quantities:
        np.testing.assert_array_equal(one[name].data, two[name].data)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_progress_rises_and_cancels(n_jobs):
    dataset = as_dataset(toy_dataset(1), 8)
    seen: list[float] = []

    def watch(fraction: float, message: str) -> None:
        seen.append(fraction)
        if fraction > 0.4:
            raise Cancelled

    with pytest.raises(Cancelled):
        TSMapEstimator(n_jobs=n_jobs).run(dataset, progress=watch)
    assert seen == sorted(seen)
    assert len(seen) >= 5
    assert seen[-1] < 0.9


def test_bad_input_is_named():
    toy = toy_dataset(1)
    dataset = as_dataset(toy)
    with pytest.raises(InputError, match="kernel_width: '1 kg' cannot be used; expected an angle"):
        TSMapEstimator(kernel_width="1 kg")
    with pytest.raises(InputError, match="n_sigma: -1 is no number of sigmas"):
        TSMapEstimator(n_sigma=-1)
    with pytest.raises(InputError, match="selection_optional: 'upper' is not one of all, errn"):
        TSMapEstimator(selection_optional=["upper"])
    with pytest.raises(InputError, match=r"mask: shape \(3, 3\) does not fit dataset 'toy'"):
        TSMapEstimator().run(dataset, mask=np.ones((3, 3), bool))
    with pytest.raises(InputError, match="mask: leaves no bin of dataset 'toy'"):
        TSMapEstimator().run(dataset, mask=np.zeros(dataset.geom.shape, bool))
    with pytest.raises(DataError, match="dataset 'bare' has no background"):
        TSMapEstimator().run(MapDataset("bare", dataset.counts))
    with pytest.raises(DataError, match="dataset 'bare': has no psf"):
        TSMapEstimator().run(
            MapDataset("bare", dataset.counts, toy.background, toy.exposure, None, toy.edisp)
        )
    with pytest.raises(InputError, match="there is no dataset"):
        TSMapEstimator().run([])
    elongated = source_at(dataset, 0, 0, 0.1)
    elongated.spatial_model.e.value = 0.5
    with pytest.raises(
        ModelError, match="at: GaussianSpatialModel cannot be the shape of a TS map"
    ):
        TSMapEstimator(elongated)


def test_norms_of_one_pixel_follow_the_closed_form():
    """One pixel: F K = n - b, TS of Cash, and the crossing of Lambert's W."""
    n, b, k = np.array([3.0, 0.0, 40.0]), np.array([1.0, 2.0, 60.0]), np.array([2.0, 1.0, 5.0])
    ratio = (k / b)[:, None]
    templates = Templates(ratio, n[:, None], k, np.zeros((3, 3)), -b / k)
    fit = fit_norms(templates, asymmetric=True, limit=True)
    np.testing.assert_allclose(fit.norm, (n - b) / k, atol=2e-3)
    expected = [2 * (3 * np.log(3.0) - 2), 4.0, 2 * (40 * np.log(40 / 60) + 20)]
    np.testing.assert_allclose(fit.ts, expected, rtol=1e-4)
    np.testing.assert_allclose(fit.err[[0, 2]], np.sqrt(n[[0, 2]]) / k[[0, 2]], rtol=1e-3)
    for i in (0, 2):

        def rise(s, by, n=n[i]):
            return 2 * (s - n - n * np.log(s / n)) - by

        up = brentq(rise, n[i], 10 * n[i] + 10, args=(4.0,))
        down = brentq(rise, 1e-9, n[i], args=(1.0,))
        assert fit.ul[i] == pytest.approx((up - b[i]) / k[i], abs=2e-3)
        assert fit.errn[i] == pytest.approx((n[i] - down) / k[i], abs=2e-3)
