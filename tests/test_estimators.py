"""Excess maps, found sources and energy-dependent morphology: against Gammapy and brute force."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import yaml
from scipy.optimize import brentq
from scipy.signal import fftconvolve
from scipy.stats import norm

from imgfit_widgets import Analysis, AnalysisConfig
from imgfit_widgets.core.dataset import MapDataset
from imgfit_widgets.core.errors import DataError, InputError, ModelError
from imgfit_widgets.core.estimators import known_background as known
from imgfit_widgets.core.estimators.bands import (
    ReferenceCounts,
    energy_bands,
    neighbour_correlation,
)
from imgfit_widgets.core.estimators.excess import excess_maps, sqrt_ts
from imgfit_widgets.core.estimators.excess_map import ExcessMapEstimator
from imgfit_widgets.core.estimators.find import find_sources, log_trials
from imgfit_widgets.core.estimators.morphology import (
    EnergyDependentMorphologyEstimator,
    fit_bands,
)
from imgfit_widgets.core.estimators.slices import slice_by_energy
from imgfit_widgets.core.estimators.ts_map import TSMapEstimator
from imgfit_widgets.core.evaluator import Evaluator
from imgfit_widgets.core.maps import MapAxis, WcsGeom, WcsNDMap
from imgfit_widgets.core.models import (
    FoVBackgroundModel,
    GaussianPrior,
    GaussianSpatialModel,
    Models,
    PointSpatialModel,
    PowerLaw2SpectralModel,
    PowerLawSpectralModel,
    SkyModel,
)
from imgfit_widgets.core.progress import Cancelled
from imgfit_widgets.core.toys import fake_counts


def reduced(case, reference, folder):
    """The dataset of a reference case, with Gammapy's approximations, and its JSON."""
    found = json.loads((reference / f"gammapy/{case}.json").read_text())
    path = folder / f"{case}.yaml"
    path.write_text(yaml.safe_dump(found["config"]))
    analysis = Analysis(AnalysisConfig.read(path), accuracy="gammapy")
    analysis.get_observations()
    analysis.get_datasets()
    return analysis.datasets["stacked"], found


@pytest.fixture(scope="module")
def edm(gammapy_data, reference, tmp_path_factory):
    """The reference case C_edm: 4 x 4 deg, three bands."""
    return reduced("C_edm", reference, tmp_path_factory.mktemp("edm"))


def galactic_centre(sigma=None, lon=-0.05, lat=-0.05, amplitude=2.5e-11):
    spectral = PowerLaw2SpectralModel(amplitude=amplitude, index=2.0, emin=0.1, emax=10.0)
    spectral.index.frozen = True
    shape = PointSpatialModel(frame="galactic", lon_0=lon, lat_0=lat)
    if sigma is not None:
        shape = GaussianSpatialModel(frame="galactic", lon_0=lon, lat_0=lat, sigma=sigma)
    return Models([SkyModel(spectral, shape, "GC-1"), FoVBackgroundModel(dataset_name="stacked")])


# --- counts over a known background
@pytest.mark.parametrize("n_sigma", [1.0, 2.0, 5.0])
def test_errors_and_limits_solve_the_likelihood(n_sigma):
    for n, b in [(1.0, 3.0), (12.0, 7.5), (400.0, 100.0)]:
        counts, background = np.array([n]), np.array([b])

        def rise(mu, n=n):
            return 2 * (mu - n - n * np.log(mu / n)) - n_sigma**2

        up, down = brentq(rise, n, 20 * n + 50), brentq(rise, 1e-30, n)
        assert known.errp(counts, n_sigma)[0] == pytest.approx(up - n)
        assert known.errn(counts, n_sigma)[0] == pytest.approx(n - down)
        assert known.upper_limit(counts, background, n_sigma)[0] == pytest.approx(up - b)
        excess = known.matching_excess(background, n_sigma)
        assert sqrt_ts(background + excess, background)[0] == pytest.approx(n_sigma)
    none = np.zeros(1)
    assert known.errn(none, n_sigma)[0] == 0
    assert known.errp(none, n_sigma)[0] == n_sigma**2 / 2
    assert known.upper_limit(none, np.array([3.0]), n_sigma)[0] == n_sigma**2 / 2
    assert np.isnan(known.matching_excess(none, n_sigma)[0])


# --- excess maps
def test_excess_map_is_that_of_the_reference(tutorial_gammapy, reference):
    dataset = tutorial_gammapy.datasets["stacked"]
    maps = ExcessMapEstimator("0.06 deg").run(dataset)
    expected = json.loads((reference / "gammapy/A_seed.json").read_text())["excess"]["0.06"]
    arrays = np.load(reference / "gammapy/A_seed.npz")
    found = maps["sqrt_ts"].data[0]
    row, column = arrays["cutout_origin_yx"]
    np.testing.assert_allclose(
        found[row : row + 51, column : column + 51], arrays["sqrt_ts_0.06"], atol=1e-5
    )
    assert np.isfinite(found).sum() == expected["n_finite"]
    assert np.nanmax(found) == pytest.approx(expected["sqrt_ts_max"], abs=1e-5)
    assert list(np.unravel_index(np.nanargmax(found), found.shape)) == expected["argmax_yx"]
    assert np.nanmean(found) == pytest.approx(expected["mean"], abs=1e-5)
    assert np.nanstd(found) == pytest.approx(expected["std"], abs=1e-5)
    y, x = expected["argmax_yx"]
    for name, key in [
        ("counts", "counts"), ("npred_background", "npred_background"),
        ("npred_excess", "npred_excess"), ("npred", "npred"),
    ]:  # fmt: skip
        assert maps[name].data[0, y, x] == pytest.approx(expected[key]["gc"][0], rel=1e-5)
    wide = json.loads((reference / "gammapy/A_seed.json").read_text())["excess"]["0.1"]
    found = ExcessMapEstimator("0.1 deg").run(dataset)["sqrt_ts"].data[0]
    assert np.nanmax(found) == pytest.approx(wide["sqrt_ts_max"], abs=1e-5)
    assert list(np.unravel_index(np.nanargmax(found), found.shape)) == wide["argmax_yx"]


def test_errors_limits_and_flux_are_gammapys(tutorial_gammapy, tmp_path, gammapy):
    """Fluxes to the 0.1 % that the energy dispersion of the map's centre makes at others."""
    dataset = tutorial_gammapy.datasets["stacked"]
    path = tmp_path / "dataset.fits.gz"
    dataset.write(path)
    maps = ExcessMapEstimator("0.06 deg", selection_optional="all").run(dataset)
    places = np.argwhere(np.isfinite(maps["ts"].data[0]))[::977]
    names = ["counts", "npred_excess", "ts", "sqrt_ts"]
    names += [f"flux{end}" for end in ("", "_err", "_errn", "_errp", "_ul", "_sensitivity")]
    found = gammapy(
        """
import sys, json
from gammapy.datasets import MapDataset
from gammapy.estimators import ExcessMapEstimator
maps = ExcessMapEstimator("0.06 deg", selection_optional="all").run(MapDataset.read(sys.argv[1]))
names, places = json.loads(sys.argv[2])
print(json.dumps({n: [float(maps[n].data[0, y, x]) for y, x in places] for n in names}))
""",
        path,
        json.dumps([names, places.tolist()]),
    )
    for name in names:
        ours = maps[name].data[0][tuple(places.T)]
        theirs = np.array(found[name])
        if not name.startswith("flux"):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4, err_msg=name)
            continue
        np.testing.assert_allclose(ours, theirs, rtol=0.05, err_msg=name)
        assert np.median(np.abs(ours / theirs - 1)) < 2e-3, name
    assert maps["flux"].unit == "cm-2 s-1"


def test_reference_counts_are_those_of_a_source_that_stays_in_its_pixel(edm):
    """The evaluator's total of a point source, whose PSF loses nothing well inside the map."""
    dataset, _ = edm
    spectral = PowerLawSpectralModel(index=2.3)
    cube = ReferenceCounts.of(dataset, spectral).cube(dataset.geom.shape)
    for y, x in [(100, 100), (70, 130), (140, 95)]:
        lon, lat = (float(v) for v in dataset.geom.pix_to_lonlat(x, y))
        shape = PointSpatialModel(frame="galactic", lon_0=lon, lat_0=lat)
        evaluator = Evaluator([dataset], Models([SkyModel(spectral, shape, "at")]))
        total = evaluator.npred_of("at", evaluator.x0)[0].sum(axis=(1, 2))
        np.testing.assert_allclose(cube[:, y, x], total, rtol=2e-4)


def test_bands_masks_and_models_enter_the_sums(edm):
    dataset, _ = edm
    edges = dataset.energy_axis.bounds
    maps = ExcessMapEstimator("0.1 deg", energy_edges=edges[[0, 2, 3]]).run(dataset)
    every = ExcessMapEstimator("0.1 deg").run(dataset)
    assert every["counts"].data.shape == (3, 200, 200)
    for name in ("counts", "npred_background"):
        total = every[name].data[:2].sum(axis=0)
        np.testing.assert_allclose(maps[name].data[0], total, rtol=1e-9, atol=1e-7)
        np.testing.assert_allclose(maps[name].data[1], every[name].data[2], atol=1e-9)
    np.testing.assert_allclose(maps.energy_axis.bounds, edges[[0, 2, 3]])
    mask = np.ones((3, 200, 200), dtype=bool)
    mask[1] = False
    mask[:, 80:120, 90:95] = False
    cut = ExcessMapEstimator(0.1, sum_over_energy_groups=True).run(dataset, mask=mask)
    inside = mask.any(axis=0)
    counts = np.where(mask, dataset.counts.data, 0.0).sum(axis=0)
    background = np.where(mask, dataset.background.data, 0.0).sum(axis=0)
    expected = excess_maps(counts, background, inside, 5.0)
    np.testing.assert_allclose(cut["sqrt_ts"].data[0], expected.sqrt_ts, atol=1e-9)
    assert np.isnan(cut["flux"].data[0][80:120, 90:95]).all()
    assert np.isfinite(cut["flux"].data[0][inside]).all()
    whole = slice_by_energy(dataset, slice(0, 3))
    whole.models = galactic_centre(amplitude=3e-11)
    with_model = ExcessMapEstimator(0.1).run(whole)
    y, x = (round(float(v)) for v in reversed(dataset.geom.lonlat_to_pix(-0.05, -0.05)))
    assert every["sqrt_ts"].data[1, y, x] > 15
    assert abs(with_model["sqrt_ts"].data[1, y, x]) < 6
    np.testing.assert_allclose(
        with_model["npred_excess"].data - every["npred_excess"].data,
        every["npred_background"].data - with_model["npred_background"].data,
        atol=1e-6,
    )


def test_maps_are_written_and_summarised(edm, tmp_path):
    from astropy.io import fits

    dataset, _ = edm
    maps = ExcessMapEstimator("0.1 deg", selection_optional="ul").run(dataset)
    path = tmp_path / "maps.fits"
    maps.write(path)
    with fits.open(path) as hdus:
        np.testing.assert_allclose(hdus["SQRT_TS"].data, maps["sqrt_ts"].data, rtol=1e-6)
        assert hdus["FLUX_UL"].header["BUNIT"] == "cm-2 s-1"
        np.testing.assert_allclose(hdus["ENERGY_BANDS"].data["E_MIN"][0], 0.1)
    with pytest.raises(DataError, match="exists already; pass overwrite=True"):
        maps.write(path)
    info = json.loads(json.dumps(maps.to_dict()))
    assert [band["peak"]["sqrt_ts"] > 10 for band in info["bands"]] == [True] * 3
    assert "0.1 to 0.464 TeV: highest at galactic" in str(maps)
    assert maps.sqrt_ts is maps["sqrt_ts"]
    with pytest.raises(DataError, match="there is no map 'flax'; there are counts, npred"):
        maps["flax"]


def test_bad_input_of_excess_maps_is_named(edm):
    dataset, _ = edm
    with pytest.raises(InputError, match=r"correlation_radius: '-0.1 deg' is out of range"):
        ExcessMapEstimator("-0.1 deg")
    with pytest.raises(InputError, match="correlation_radius: 'wide' cannot be used; expected an"):
        ExcessMapEstimator("wide")
    with pytest.raises(InputError, match=r"energy_edges: .* leave a band without a bin"):
        ExcessMapEstimator(energy_edges=["0.1 TeV", "0.11 TeV", "10 TeV"]).run(dataset)
    with pytest.raises(InputError, match=r"energy_edges: \[3, 1\] TeV; expected two or more that"):
        energy_bands(dataset.energy_axis, [3, 1])
    with pytest.raises(InputError, match="mask: holds float64 numbers; expected true and false"):
        ExcessMapEstimator().run(dataset, mask=np.ones((200, 200)))
    with pytest.raises(DataError, match="dataset 'bare': has neither background nor models"):
        ExcessMapEstimator().run(MapDataset("bare", dataset.counts))

    def stop(fraction, message):
        raise Cancelled

    with pytest.raises(Cancelled):
        ExcessMapEstimator().run(dataset, progress=stop)


# --- found sources
def test_peaks_are_found_with_their_flux_and_become_models(tutorial_gammapy):
    dataset = tutorial_gammapy.datasets["stacked"]
    maps = TSMapEstimator().run(dataset)
    found = find_sources(maps, threshold=6)
    table = found.table
    assert list(table["sqrt_ts"]) == sorted(table["sqrt_ts"], reverse=True)
    assert table["sqrt_ts"].min() >= 6
    first = table[0]
    assert first["lon"] == pytest.approx(-0.05181, abs=0.006)
    assert first["lat"] == pytest.approx(-0.04997, abs=0.006)
    assert (first["ra"], first["dec"]) == pytest.approx((266.4, -29.0), abs=0.05)
    assert first["flux"] == pytest.approx(2.9626e-11, rel=0.02)
    np.testing.assert_allclose(table["p_value"], norm.sf(table["sqrt_ts"]), rtol=1e-6)
    assert (table["sigma_post"] < table["sqrt_ts"]).all()
    assert first["sigma_post"] > 32
    models = found.to_models(taken=["source-2"])
    assert models.names[:3] == ["source-1", "source-2-2", "source-3"]
    near = models[0].spectral_model.integral(0.1, 10.0)
    assert near == pytest.approx(first["flux"], rel=1e-6)
    assert models[0].spatial_model.lon_0.value == pytest.approx(first["lon"])
    far = find_sources(maps, threshold=6, min_distance="0.5 deg").table
    separations = np.hypot(np.subtract.outer(far["lon"], far["lon"]),
                           np.subtract.outer(far["lat"], far["lat"]))  # fmt: skip
    assert 1 < len(far) < len(table)
    assert separations[np.triu_indices(len(far), 1)].min() >= 0.499
    assert "sigma, " in str(found)
    assert json.loads(json.dumps(found.to_dict()))["sources"][0]["name"] == "source-1"


@pytest.mark.parametrize(("kind", "most"), [("gauss", 1.3), ("disk", 2.0)])
def test_trials_are_those_of_noise(kind, most):
    """How often smoothed noise passes a height anywhere, against the formula.

    For a sharp disk the formula is known to be on the safe side.
    """
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-15:16, -15:16]
    kernel = np.exp(-0.5 * (x**2 + y**2) / 9.0)
    if kind == "disk":
        kernel = (x**2 + y**2 <= 25).astype(float)
    highest = []
    for _ in range(400):
        noise = fftconvolve(rng.normal(size=(180, 150)), kernel, mode="valid")
        highest.append(noise.max() / np.sqrt((kernel**2).sum()))
    valid = np.ones(noise.shape, dtype=bool)
    for u in (3.5, 4.0):
        trials = np.exp(log_trials(np.array([u]), valid, neighbour_correlation(kernel)))[0]
        expected = 1 - np.exp(-trials * norm.sf(u))
        seen = np.mean(np.array(highest) > u)
        spread = 3 * np.sqrt(seen * (1 - seen) / 400)
        assert seen - spread < expected < most * (seen + spread), (u, expected, seen)


def test_a_planted_peak_is_placed_between_pixels_and_neighbours_are_left_out():
    geom = WcsGeom.create((10.0, 5.0), (4.0, 3.0), 0.05, "CAR", "galactic")
    lon, lat = geom.pixel_lonlat
    image = np.zeros(geom.shape)
    for at, height in [((10.013, 5.02), 9.0), ((10.5, 5.5), 7.0), ((9.2, 4.4), 3.0)]:
        distance = (lon - at[0]) ** 2 + (lat - at[1]) ** 2
        image = np.maximum(image, height * np.exp(-0.25 * distance / 0.15**2))
    image[:, :5] = np.nan
    found = find_sources(WcsNDMap(geom, image), threshold=5, min_distance=0.2)
    assert len(found) == 2
    assert found.table["lon"][0] == pytest.approx(10.013, abs=2e-3)
    assert found.table["lat"][0] == pytest.approx(5.02, abs=2e-3)
    # Without a correlation, every pixel is a trial.
    assert found.table["trials"][0] == pytest.approx(np.isfinite(image).sum())
    chance = norm.sf(image[np.isfinite(image)].max()) * np.isfinite(image).sum()
    assert found.table["sigma_post"][0] == pytest.approx(norm.isf(chance), abs=0.01)
    assert len(find_sources(WcsNDMap(geom, image), 5, min_distance=2.0)) == 1
    none = find_sources(WcsNDMap(geom, image), threshold=20)
    assert len(none) == 0
    assert "No peak reaches sqrt(TS) 20" in str(none)
    with pytest.raises(DataError, match="the map has no flux"):
        found.to_models()
    with pytest.raises(InputError, match="band: 3; the map has 1, counted from 0"):
        find_sources(WcsNDMap(geom, image), band=3)
    with pytest.raises(InputError, match="threshold: nan; expected"):
        find_sources(WcsNDMap(geom, image), threshold=float("nan"))
    with pytest.raises(DataError, match="the map has no valid pixel"):
        find_sources(WcsNDMap(geom, np.full(geom.shape, np.nan)))


# --- energy bands
def test_numbers_of_numpy_are_numbers(edm):
    """They were refused, with a reason that was not theirs."""
    dataset, _ = edm
    edges = np.array([1, 10])
    own, _ = energy_bands(dataset.energy_axis, edges)
    assert own.bounds == pytest.approx(energy_bands(dataset.energy_axis, [1.0, 10.0])[0].bounds)
    maps = ExcessMapEstimator(np.float32(0.1), n_sigma=np.int64(2))
    assert maps.n_sigma == 2.0
    with pytest.raises(InputError, match="n_sigma: '2' is no number of sigmas"):
        ExcessMapEstimator(0.1, n_sigma="2")


def test_slices_add_up_to_the_whole(edm):
    dataset, _ = edm
    models = galactic_centre()
    slices = [slice_by_energy(dataset, slice(i, i + 1)) for i in range(3)]
    total = 0.0
    for i, one in enumerate(slices):
        evaluator = Evaluator([one], models)
        image = evaluator.npred(evaluator.x0)[0][0]
        whole = Evaluator([dataset], models)
        # A band alone has a rectangle of its own around the source, of which 2e-5 is left out.
        np.testing.assert_allclose(image, whole.npred(whole.x0)[0][i], rtol=1e-5)
        total += evaluator.stat(evaluator.x0)
    assert total == pytest.approx(whole.stat(whole.x0), abs=1e-3)


def test_bands_are_those_of_gammapy_from_a_start_from_which_its_lowest_one_ran_away(
    gammapy_data, reference, tmp_path
):
    dataset, _ = reduced("C_3bands", reference, tmp_path)
    expected = json.loads((reference / "gammapy/C_3bands_goodstart.json").read_text())["perband"]
    start = galactic_centre(lon=0.02, lat=0.01, amplitude=1e-12)
    bands = fit_bands(dataset, start)
    assert len(bands) == 3
    for band, theirs in zip(bands, expected, strict=True):
        main, null = theirs["main"], theirs["null"]
        assert band.success
        assert (band.energy_min, band.energy_max) == pytest.approx(theirs["band"])
        for i, name in enumerate(("amplitude", "lon_0", "lat_0")):
            # Gammapy's positions are off by up to one sigma, and its errors too small.
            away = abs(band.values[name] - main["values"][i]) / main["errors"][i]
            assert away < (0.6 if name == "amplitude" else 1.1), (name, away)
            ratio = band.errors[name] / main["errors"][i]
            assert 0.95 < ratio < 1.5, name
        assert band.ts == pytest.approx(null["stat"] - main["stat"], rel=0.01)
        assert band.dof == 3
    assert start["GC-1"].spatial_model.lon_0.value == 0.02


def test_bands_and_common_shape_are_gammapys_where_its_minima_are(edm):
    """With the size held below that of the diffuse emission, in which Gammapy's last band ends."""
    dataset, case = edm
    expected = case["edmorph"]
    models = galactic_centre(0.05)
    free = EnergyDependentMorphologyEstimator().run(dataset, models)
    assert free.success
    theirs = expected["energy_dependence"]["result"]
    above = expected["src_above_bkg"]
    for i in (0, 1):
        band = free.bands[i]
        for name in ("lon_0", "lat_0", "sigma"):
            error = theirs[f"{name}_err"][i + 1]
            assert band.values[name] == pytest.approx(theirs[name][i + 1], abs=0.3 * error)
            assert band.errors[name] == pytest.approx(error, rel=0.1)
        assert band.ts == pytest.approx(above["delta_ts"][i], abs=1.0)
        assert band.significance == pytest.approx(above["significance"][i], abs=0.05)
    assert [b.dof for b in free.bands] == above["df"]
    assert free.dof == expected["energy_dependence"]["df"]
    # In the last band there is a minimum far below Gammapy's.
    assert free.bands[2].ts > above["delta_ts"][2] + 50
    models["GC-1"].spatial_model.sigma.max = 0.1
    held = EnergyDependentMorphologyEstimator().run(dataset, models)
    for name in ("lon_0", "lat_0", "sigma"):
        error = theirs[f"{name}_err"][0]
        assert held.common.values[name] == pytest.approx(theirs[name][0], abs=0.5 * error), name
        assert held.common.errors[name] == pytest.approx(error, rel=0.1), name


def test_a_prior_on_the_common_shape_counts_once(edm):
    """It was counted once a band, which made its error smaller by the root of their number."""
    dataset, _ = edm
    models = galactic_centre(0.05)
    sigma = models["GC-1"].spatial_model.sigma
    sigma.max, sigma.value = 0.1, 0.07
    sigma.prior = GaussianPrior(0.07, 1e-4)  # far narrower than what the data say
    tight = EnergyDependentMorphologyEstimator().run(dataset, models)
    assert tight.common.errors["sigma"] == pytest.approx(1e-4, rel=0.02)
    assert abs(tight.delta_ts) < 30 and tight.dof == 9 - 3
    prior = sigma.prior
    sigma.prior = GaussianPrior(prior.mu, 100.0)  # says nothing, whatever its normalisation
    wide = EnergyDependentMorphologyEstimator().run(dataset, models)
    sigma.prior = None
    none = EnergyDependentMorphologyEstimator().run(dataset, models)
    assert wide.delta_ts == pytest.approx(none.delta_ts, abs=0.05)


def test_bands_start_from_an_amplitude_of_zero(edm):
    """Where a bounded fit has left it."""
    dataset, _ = edm
    models = galactic_centre(0.05)
    from_there = fit_bands(dataset, models)
    models["GC-1"].spectral_model.amplitude.value = 0.0
    for band, other in zip(fit_bands(dataset, models), from_there, strict=True):
        assert band.success and band.flux == pytest.approx(other.flux, rel=0.05)


def test_the_comparison_does_not_depend_on_the_start(edm):
    dataset, _ = edm
    done = []
    found = [
        EnergyDependentMorphologyEstimator().run(
            dataset,
            galactic_centre(sigma),
            lambda fraction, _, sigma=sigma: done.append((sigma, fraction)),
        )
        for sigma in (0.02, 0.1)
    ]
    assert done == sorted(done)
    assert found[0].delta_ts == pytest.approx(found[1].delta_ts, abs=0.01)
    assert found[0].common.stat >= sum(band.stat for band in found[0].bands)
    table = found[0].to_table()
    assert list(table["hypothesis"]) == ["H0", "H1", "H1", "H1"]
    assert table["sigma"][2] == found[0].bands[1].values["sigma"]
    assert table["energy_min"].unit == "TeV"
    assert "The shape changes with energy" in str(found[0])
    assert json.loads(json.dumps(found[0].to_dict()))["dof"] == 6


@pytest.mark.parametrize("changes", [False, True])
def test_planted_shapes_are_told_apart(edm, changes):
    """A size of 0.15 deg in all bands, or one that falls from 0.25 to 0.08 deg."""
    dataset, _ = edm
    sizes = (0.25, 0.15, 0.08) if changes else (0.15, 0.15, 0.15)
    counts = np.empty(dataset.geom.data_shape)
    for i, size in enumerate(sizes):
        one = slice_by_energy(dataset, slice(i, i + 1))
        fake = fake_counts(one, galactic_centre(size, amplitude=8e-11), seed=[9, i])[0]
        counts[i] = fake.counts.data[0]
    toy = MapDataset(
        "stacked", WcsNDMap(dataset.geom, counts), dataset.background, dataset.exposure,
        dataset.psf, dataset.edisp, dataset.mask_safe, dataset.mask_fit,
    )  # fmt: skip
    found = EnergyDependentMorphologyEstimator().run(toy, galactic_centre(0.1))
    assert found.success
    assert (found.significance > 5) is changes
    for band, size in zip(found.bands, sizes, strict=True):
        assert abs(band.values["sigma"] - size) < 3.5 * band.errors["sigma"]
    if not changes:
        assert found.delta_ts < 20
        assert abs(found.common.values["sigma"] - 0.15) < 3.5 * found.common.errors["sigma"]
        assert found.common.errors["sigma"] < min(b.errors["sigma"] for b in found.bands)


def test_bad_input_of_bands_is_named(edm):
    dataset, _ = edm
    models = galactic_centre()
    with pytest.raises(ModelError, match="source: there is no 'GC-2'; there are GC-1"):
        fit_bands(dataset, models, source="GC-2")
    with pytest.raises(InputError, match="one band alone cannot differ"):
        EnergyDependentMorphologyEstimator([0.1, 10]).run(dataset, models)
    with pytest.raises(InputError, match="there is no source; add one first"):
        fit_bands(dataset, Models())
    models["GC-1"].spatial_model.parameters.freeze_all()
    with pytest.raises(InputError, match="GC-1: neither position nor size is free"):
        EnergyDependentMorphologyEstimator().run(dataset, models)
    models["GC-1"].spectral_model.amplitude.frozen = True
    with pytest.raises(ModelError, match=r"GC-1.amplitude: is frozen; free it to fit it in each"):
        fit_bands(dataset, models)

    def stop(fraction, message):
        if fraction > 0.3:
            raise Cancelled

    with pytest.raises(Cancelled):
        EnergyDependentMorphologyEstimator().run(dataset, galactic_centre(0.1), progress=stop)


def test_a_band_without_counts_is_told_and_not_dropped(edm):
    dataset, _ = edm
    counts = dataset.counts.data.copy()
    counts[2] = 0.0
    empty = MapDataset(
        "stacked", WcsNDMap(dataset.geom, counts), dataset.background, dataset.exposure,
        dataset.psf, dataset.edisp,
    )  # fmt: skip
    found = EnergyDependentMorphologyEstimator().run(empty, galactic_centre())
    assert not found.success
    assert not found.bands[2].success
    assert "no counts in the bins to fit" in found.bands[2].message
    assert found.message.startswith("No comparison: the fit of 2.15 to 10 TeV failed")
    assert found.to_dict()["delta_ts"] is None
    assert len(found.to_table()) == 4


def test_energy_edges_between_those_of_bins_are_moved_with_a_word(caplog):
    """Only the table showed it."""
    axis = MapAxis.from_energy_bounds("0.1 TeV", "10 TeV", 4)
    with caplog.at_level(logging.WARNING):
        assert energy_bands(axis, [0.1, 1.0, 10.0])[1] == [slice(0, 2), slice(2, 4)]
    assert not caplog.text
    with caplog.at_level(logging.WARNING):
        assert energy_bands(axis, [0.12, 2.0, 10.0])[1] == [slice(0, 3), slice(3, 4)]
    assert "[0.12, 2, 10] TeV are taken at the nearest edges of the bins, [0.1, 3.16, 10]" in (
        caplog.text
    )
