"""Links, priors, spectra in a fit, and the answers on a source: against fits and formulas."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2, norm
from toy import toy_dataset, toy_models, with_counts

from imgfit_widgets.core.dataset import MapDataset
from imgfit_widgets.core.errors import FitError, ModelError
from imgfit_widgets.core.evaluator import Evaluator
from imgfit_widgets.core.fit import Fit, LiveLikelihood
from imgfit_widgets.core.inference import (
    compare,
    extension_test,
    flux_upper_limit,
    information_criteria,
    localise,
    source_ts,
)
from imgfit_widgets.core.ladder import compare_shapes
from imgfit_widgets.core.likelihood import Likelihood
from imgfit_widgets.core.maps import MapAxis, WcsGeom, WcsNDMap
from imgfit_widgets.core.models import (
    ConstantSpatialModel,
    ExpCutoffPowerLawSpectralModel,
    FoVBackgroundModel,
    GaussianPrior,
    LogParabolaSpectralModel,
    Models,
    TemplateSpectralModel,
    UniformPrior,
)
from imgfit_widgets.core.profile import Profiles
from imgfit_widgets.core.stats import cash


def counts_of(dataset: Any, models: Models, seed: int | None = 4) -> Any:
    evaluator = Evaluator([dataset], models)
    expected = evaluator.npred(evaluator.x0)[0]
    if seed is None:
        return with_counts(dataset, expected)
    return with_counts(dataset, np.random.default_rng(seed).poisson(expected).astype(float))


@pytest.fixture(scope="module")
def drawn() -> Any:
    return counts_of(toy_dataset(), toy_models())


def two_linked() -> Models:
    """Two sources with one amplitude, a prior on it and a free index in common."""
    models = Models([*toy_models(), toy_models(-0.5, 0.3, name="other")[0]])
    first, second = models["src"].spectral_model, models["other"].spectral_model
    second.amplitude.link, second.index.link = first.amplitude, first.index
    first.index.frozen = False
    first.amplitude.prior = GaussianPrior(2.5e-11, 1e-12)
    return models


# --- links
def test_other_shapes_keep_the_links_of_a_source(drawn: Any) -> None:
    """Followers of a replaced position went on alone, which is another hypothesis."""
    models = Models([*toy_models(), toy_models(sigma=0.5, name="halo")[0]])
    for name in ("lon_0", "lat_0"):
        models["halo"].parameters[name].link = models["src"].parameters[name]
    fitted = Fit().solve(drawn, models)
    point = compare_shapes(drawn, models, "src")["Point"].result
    assert point.names == fitted.names
    assert point.total_stat == pytest.approx(fitted.total_stat, abs=1e-6)


def test_profiles_notice_new_links_and_priors(drawn: Any) -> None:
    models = Models([*toy_models(), toy_models(-0.5, 0.3, name="other")[0]])
    result = Fit().solve(drawn, models)
    amplitude = models["other"].spectral_model.amplitude
    amplitude.prior = GaussianPrior(1e-11, 1e-12)
    with pytest.raises(FitError, match="other links or priors than were fitted; fit again"):
        Profiles(result).minos("src.lon_0")
    amplitude.prior = None
    amplitude.link = models["src"].spectral_model.amplitude
    with pytest.raises(FitError, match="other links or priors"):
        Profiles(result).minos("src.lon_0")


@pytest.mark.parametrize(("unit", "scale"), [("deg", 1.0), ("arcmin", 60.0), ("arcsec", 3600.0)])
def test_the_unit_of_a_prior_has_no_part_in_a_comparison(
    unit: str, scale: float, drawn: Any
) -> None:
    models = toy_models()
    lat = models["src"].parameters["lat_0"]
    lat.min = lat.max = np.nan
    lat.unit = unit
    lat.value, lat.prior = -0.05 * scale, GaussianPrior(-0.05 * scale, 0.01 * scale)
    found, result = source_ts(drawn, models, "src"), Fit().solve(drawn, models)
    assert found.ts == pytest.approx(result.ts["src"].ts, abs=0.01)
    assert found.delta_aic == pytest.approx(2 * 3 - found.ts, abs=1e-6)
    n = information_criteria(found.richer).n_bins
    assert found.delta_bic == pytest.approx(3 * np.log(n) - found.ts, abs=1e-6)


def test_a_prior_shared_with_another_source_counts_once_in_a_ts(drawn: Any) -> None:
    """What is left without the source keeps the prior, which was taken off nevertheless."""
    found = {}
    for sigma in (None, 1e-9):
        models = two_linked()
        models["src"].spectral_model.index.frozen = True
        prior = None if sigma is None else GaussianPrior(2.5e-11, sigma)
        models["src"].spectral_model.amplitude.prior = prior
        found[sigma] = [source_ts(drawn, models, name).ts for name in ("src", "other")]
    assert found[1e-9] == pytest.approx(found[None], abs=0.02), "the prior says nothing"


@pytest.mark.parametrize("sigma", [None, 1e-3])
def test_what_is_known_of_a_spectrum_makes_no_second_source(sigma: Any, drawn: Any) -> None:
    """The copy brought the prior along, whose scale then spoke for two sources."""
    models = toy_models()
    index = models["src"].spectral_model.index
    index.frozen, index.prior = True, None if sigma is None else GaussianPrior(index.value, sigma)
    second = compare_shapes(drawn, models, "src")["Second source"]
    assert second.delta_ts < 12 and second.sigma < 3


def test_a_second_source_is_preferred_from_three_sigma_on(drawn: Any) -> None:
    """Its place is searched for, so that AIC alone prefers one beside every other single point."""
    ladder = compare_shapes(drawn, toy_models(), "src")
    rungs = {rung.label: rung for rung in ladder.rungs}
    for sigma, label in ((2.9, "Point"), (3.1, "Second source")):
        rung = replace(rungs["Second source"], sigma=sigma, aic=rungs["Point"].aic - 5.0)
        others = [r for r in ladder.rungs if r.label in ("Point",)]
        assert replace(ladder, rungs=(*others, rung)).preferred.label == label


def test_a_limit_of_linked_sources_is_the_same_whichever_is_asked(drawn: Any) -> None:
    models = two_linked()
    models["src"].spectral_model.index.frozen = True
    models["src"].spectral_model.amplitude.prior = None
    one, other = (flux_upper_limit(drawn, models, name) for name in ("src", "other"))
    assert "other.amplitude" in one.message and "src.amplitude" in other.message
    assert "linked" in one.message
    # The positions that are held differ by name only where both are fixed.
    for name in ("src", "other"):
        for key in ("lon_0", "lat_0"):
            models[name].parameters[key].frozen = True
    one, other = (flux_upper_limit(drawn, models, name) for name in ("src", "other"))
    assert one.value == pytest.approx(other.value, rel=1e-4)
    assert one.best == pytest.approx(other.best, rel=1e-4)


def test_a_prior_without_weight_bounds_nothing() -> None:
    prior = UniformPrior(0.0, 1.0, weight=0.0)
    assert prior.limits == (-np.inf, np.inf) and prior.penalty(5.0) == (0.0, 0.0, 0.0)
    assert UniformPrior(0.0, 1.0).limits == (0.0, 1.0)


@pytest.mark.parametrize(("level", "seed"), [(1e-3, 0), (0.03, 1), (0.03, 6)])
def test_a_deficit_takes_no_more_than_there_is(level: float, seed: int) -> None:
    """Where there are few counts, thousands were predicted below 0, and called a minimum."""
    geom = WcsGeom.create((0, 0), (1.6, 1.2), 0.02, "CAR", "galactic", [MapAxis("energy", [1, 10])])
    counts = np.random.default_rng(seed).poisson(level, geom.data_shape).astype(float)
    x, y = geom.lonlat_to_pix(0.013, 0.007)
    rows, columns = np.indices(geom.shape)
    counts[0][np.hypot(columns - x, rows - y) < 9] = 0.0
    flat = np.full(geom.data_shape, level)
    dataset = MapDataset.from_images(WcsNDMap(geom, counts), flat, "1e13 cm2 s", 0.05, name="toy")
    models = toy_models(0.013, 0.007, amplitude=1e-13)
    for name in ("lon_0", "lat_0"):
        models["src"].parameters[name].frozen = True
    models["toy-bkg"].parameters["norm"].frozen = True
    result = Fit().solve(dataset, models)
    assert result.success and "held at 0" in result.message
    # The lowest amplitude with which no prediction is negative, and the statistic there.
    evaluator = Evaluator([dataset], models)
    at_one = evaluator.npred(evaluator.x0)[0] - flat
    lowest = -1e-13 * level / at_one.max()
    best = result.value("src", "amplitude")
    assert 1.1 * lowest < best < 0.95 * lowest
    mu = flat + at_one * lowest / 1e-13
    ts = float(cash(counts, flat).sum() - cash(counts, mu).sum())
    assert result.ts["src"].ts == pytest.approx(ts, rel=0.05)
    minos = Profiles(result).minos("src.amplitude")
    assert minos.success and abs(minos.lower) < 0.5 * abs(minos.upper)
    # Only upwards anything is known: how far is what an error says there.
    assert result.error("src", "amplitude") == pytest.approx(minos.upper, rel=0.8)


def test_an_image_without_background_is_not_held_at_0() -> None:
    """Far from the source nothing is predicted there, which no error may depend on."""
    models = toy_models(background=False)
    dataset = toy_dataset()
    evaluator = Evaluator([dataset], models)
    expected = evaluator.npred_of("src", evaluator.x0)[0]
    counts = np.random.default_rng(1).poisson(expected).astype(float)
    alone = with_counts(SimpleNamespace(**{**vars(dataset), "background": None}), counts)
    result = Fit().solve(alone, models)
    assert result.success and "held" not in result.message
    # Only the number of events tells the amplitude.
    share = result.error("src", "amplitude") / result.value("src", "amplitude")
    assert share == pytest.approx(counts.sum() ** -0.5, rel=0.02)


def test_a_linked_position_is_localised(drawn: Any) -> None:
    models = Models([*toy_models(), toy_models(-0.5, 0.3, name="other")[0]])
    models["other"].parameters["lat_0"].link = models["src"].parameters["lat_0"]
    result = Fit().solve(counts_of(toy_dataset(), models), models)
    assert result.key("other", "lat_0") == ("src", "lat_0")
    assert result.value("other", "lat_0") == result.value("src", "lat_0")
    place = localise(result, "other", check=False)
    assert place.lat == result.value("src", "lat_0")
    with pytest.raises(FitError, match=r"src\.reference: not fitted; expected a free parameter"):
        result.value("src", "reference")


def test_a_source_without_a_parameter_of_its_own_cannot_be_tested(drawn: Any) -> None:
    models = Models([*toy_models(), toy_models(-0.5, 0.3, name="other")[0]])
    for parameter in models["other"].parameters:
        parameter.frozen = True
    with pytest.raises(ModelError, match=r"other: .* it has none: free its amplitude"):
        source_ts(drawn, models, "other")
    own = models["other"].spectral_model.amplitude
    own.frozen, own.link = False, models["src"].spectral_model.amplitude
    with pytest.raises(ModelError, match=r"other: .* shares all of them \(other.amplitude\)"):
        source_ts(drawn, models, "other")


def test_one_parameter_at_its_limit_does_not_cost_the_errors_of_all(drawn: Any) -> None:
    models = toy_models()
    lon = models["src"].parameters["lon_0"]
    best = Fit().solve(drawn, models).value("src", "lon_0")
    lon.value = best + 0.05
    lon.min, lon.max = best + 0.01, best + 0.5
    result = Fit().solve(drawn, models)
    keys = [key for key in result.names if key[0] == "src"]
    errors = {error.name: error for error in Profiles(result).minos_of(keys)}
    assert "at its limit" in errors["lon_0"].message and not errors["lon_0"].success
    assert errors["lat_0"].success and errors["amplitude"].success


def test_linked_likelihood_has_the_gradient_of_its_statistic() -> None:
    dataset = counts_of(toy_dataset(3), two_linked())
    like = Likelihood([dataset], two_linked())
    assert ("other", "amplitude") not in like.names and len(like.names) == 7
    x = like.x0 * 1.01
    stat, gradient = like.stat_and_gradient(x)
    assert stat == pytest.approx(like.stat(x), abs=1e-9)
    for i in range(len(x)):
        step = np.zeros(len(x))
        step[i] = 1e-4 * abs(x[i])
        slope = (like.stat(x + step) - like.stat(x - step)) / (2 * step[i])
        assert gradient[i] == pytest.approx(slope, rel=1e-4, abs=1e-3 / abs(x[i]))
    information = like.information(x)
    np.testing.assert_allclose(information, information.T)
    assert np.linalg.eigvalsh(information * np.outer(x, x)).min() > 0


def test_linked_sources_are_fitted_as_one_number() -> None:
    models = two_linked()
    models["src"].spectral_model.amplitude.prior = None
    models["src"].spectral_model.index.frozen = True
    dataset = counts_of(toy_dataset(), models)
    result = Fit().run(dataset, models)
    assert result.success, result.message
    free = models.copy()
    free["other"].spectral_model.amplitude.link = None
    apart = Fit().solve(dataset, free)
    values = [apart.value(name, "amplitude") for name in ("src", "other")]
    errors = np.array([apart.error(name, "amplitude") for name in ("src", "other")])
    mean = np.sum(values / errors**2) / np.sum(errors**-2)
    assert result.value("src", "amplitude") == pytest.approx(mean, rel=0.01)
    assert result.error("src", "amplitude") == pytest.approx(np.sum(errors**-2) ** -0.5, rel=0.02)
    assert models["other"].spectral_model.amplitude.value == result.value("src", "amplitude")
    assert models["other"].spectral_model.amplitude.error == result.error("src", "amplitude")
    row = next(r for r in result.parameters if (r["model"], r["name"]) == ("other", "amplitude"))
    assert row["value"] == result.value("src", "amplitude")
    test = compare(result, apart)
    assert (test.dof, test.ts >= 0) == (1, True)
    state = LiveLikelihood([dataset], models).update("src", lon_0=result.value("src", "lon_0"))
    assert state.stat == pytest.approx(result.total_stat, abs=1e-4)


def test_linked_norms_of_two_datasets_are_one() -> None:
    second = counts_of(toy_dataset(name="b"), toy_models(dataset="b"), seed=5)
    first = counts_of(toy_dataset(), toy_models())
    models = toy_models()
    models.append(FoVBackgroundModel(dataset_name="b"))
    models["b-bkg"].spectral_model.norm.link = models["toy-bkg"].spectral_model.norm
    result = Fit().solve([first, second], models)
    assert result.success, result.message
    assert len(result.names) == 4
    single = Fit().solve(first, toy_models())
    ratio = result.error("toy-bkg", "norm") / single.error("toy-bkg", "norm")
    assert ratio == pytest.approx(np.sqrt(0.5), rel=0.02)


# --- priors
def test_a_gaussian_prior_is_one_more_measurement(drawn: Any) -> None:
    plain = Fit().solve(drawn, toy_models())
    value, error = plain.value("src", "lat_0"), plain.error("src", "lat_0")
    models = toy_models()
    models.parameters["lat_0"].prior = GaussianPrior(value + error, error)
    result = Fit().solve(drawn, models)
    assert result.success
    assert result.value("src", "lat_0") == pytest.approx(value + 0.5 * error, abs=0.02 * error)
    assert result.error("src", "lat_0") == pytest.approx(error * np.sqrt(0.5), rel=0.02)
    pull = (result.value("src", "lat_0") - value - error) / error
    cash = Evaluator([drawn], toy_models()).stat(result.values)
    assert result.total_stat - cash == pytest.approx(pull**2 + np.log(2 * np.pi * error**2))
    # What the prior adds is the same with and without the source.
    assert result.ts["src"].ts == pytest.approx(plain.ts["src"].ts, abs=1.0)


def test_a_uniform_prior_is_a_limit(drawn: Any) -> None:
    plain = Fit().solve(drawn, toy_models())
    top = plain.value("src", "amplitude") - plain.error("src", "amplitude")
    models = toy_models()
    models.parameters["amplitude"].prior = UniformPrior(0.0, top)
    result = Fit().solve(drawn, models)
    assert result.success, result.message
    assert result.value("src", "amplitude") == pytest.approx(top, rel=1e-6)
    assert "At its limit" in result.message
    models.parameters["amplitude"].value = top
    models.parameters["amplitude"].min = top
    models.parameters["amplitude"].prior = UniformPrior(0.0, 0.5 * top)
    with pytest.raises(ModelError, match=r"src\.amplitude: its prior allows .* common range"):
        Fit().solve(drawn, models)


# --- spectra
@pytest.mark.parametrize(
    ("spectrum", "free"),
    [
        (ExpCutoffPowerLawSpectralModel(index=1.8, amplitude=2e-10, lambda_=0.25), "lambda_"),
        (LogParabolaSpectralModel(amplitude=2e-10, reference=1.0, alpha=2.0, beta=0.2), "beta"),
        (TemplateSpectralModel([0.2, 1.0, 20.0], [1e-9, 1e-10, 1e-13], norm=1.2, tilt=0.1), "tilt"),
    ],
)
def test_shapes_are_fitted_in_three_bands(spectrum: Any, free: str) -> None:
    truth = toy_models()
    truth["src"].spectral_model = spectrum.copy()
    for name in ("index", "alpha", "lambda_", "beta", "tilt"):
        if name in spectrum.parameters.names:
            truth["src"].spectral_model.parameters[name].frozen = name not in (free, "index")
    dataset = counts_of(toy_dataset(3), truth, seed=None)
    start = truth.copy()
    start["src"].spectral_model.parameters[free].value *= 1.5
    start["src"].linear_parameter.value *= 0.3
    result = Fit().solve(dataset, start)
    assert result.success, result.message
    for (model, name), value, error in zip(result.names, result.values, result.errors, strict=True):
        assert abs(value - truth[model].parameters[name].value) < 0.01 * error, name


def test_one_band_cannot_measure_a_shape_and_the_fit_says_so(drawn: Any) -> None:
    models = toy_models()
    models["src"].spectral_model.index.frozen = False
    result = Fit().solve(drawn, models)
    # The toy's PSF depends strongly on energy; that is all that its index is measured by.
    assert result.success
    assert result.error("src", "index") > 0.2
    assert "src.index follows from the width of the PSF alone; freeze it" in result.message
    models["src"].spectral_model = ExpCutoffPowerLawSpectralModel(amplitude=1e-11)
    result = Fit().solve(drawn, models)
    assert not result.success
    assert "with one energy band of src's data; freeze src." in result.message
    bands = counts_of(toy_dataset(3), toy_models())
    models = toy_models()
    models["src"].spectral_model.index.frozen = False
    result = Fit().solve(bands, models)
    assert result.success
    assert "band" not in result.message


def test_background_tilt_is_fitted_in_three_bands() -> None:
    truth = toy_models()
    tilt = truth["toy-bkg"].spectral_model.tilt
    tilt.value, tilt.frozen = 0.1, False
    dataset = counts_of(toy_dataset(3), truth, seed=None)
    start = truth.copy()
    start["toy-bkg"].spectral_model.tilt.value = 0.0
    result = Fit().solve(dataset, start)
    assert result.success, result.message
    assert result.value("toy-bkg", "tilt") == pytest.approx(0.1, abs=1e-5)


# --- search
def test_the_neighbourhood_is_searched_if_asked_for() -> None:
    dataset = counts_of(toy_dataset(), toy_models(0.7, 0.5, 1e-11))
    start = toy_models(0.2, 0.1, 1e-12)
    found = Fit(search_radius=0.8).solve(dataset, start)
    assert found.success
    assert found.value("src", "lon_0") == pytest.approx(0.7, abs=0.02)
    assert found.value("src", "lat_0") == pytest.approx(0.5, abs=0.02)
    with pytest.raises(FitError, match="search_radius -1"):
        Fit(search_radius=-1)


# --- is it there, which model
def test_source_ts_is_the_difference_of_two_fits(drawn: Any) -> None:
    found = source_ts(drawn, toy_models(0.12), "src")
    full = Fit().solve(drawn, toy_models())
    null = Fit().solve(drawn, Models([FoVBackgroundModel(dataset_name="toy")]))
    assert found.ts == pytest.approx(null.total_stat - full.total_stat, abs=1e-4)
    assert found.dof == 3
    assert norm.sf(found.sigma) * 2 == pytest.approx(found.p_value, rel=1e-6, abs=1e-300)
    assert found.delta_aic == pytest.approx(6 - found.ts)
    assert found.delta_bic == pytest.approx(3 * np.log(12000) - found.ts)
    assert str(found).startswith("src: TS = ")
    assert json.loads(json.dumps(found.to_dict()))["dof"] == 3
    criteria = information_criteria(full)
    assert (criteria.n_free, criteria.n_bins) == (4, 12000)
    assert criteria.aic == pytest.approx(full.total_stat + 8)
    with pytest.raises(FitError, match="has to have more"):
        compare(full, null)
    with pytest.raises(FitError, match="different datasets"):
        compare(Fit().solve(counts_of(toy_dataset(), toy_models()), null.models), full)
    # Without it nothing is left to fit: the background as it is.
    lone = source_ts(drawn, toy_models(background=False), "src")
    assert lone.dof == 3 and lone.simpler.names == ()
    mu = drawn.background.data
    assert lone.simpler.total_stat == pytest.approx(cash(drawn.counts.data, mu).sum())
    assert lone.ts == pytest.approx(lone.simpler.total_stat - lone.richer.total_stat)
    with pytest.raises(ModelError, match="toy-bkg: it is no source"):
        source_ts(drawn, toy_models(), "toy-bkg")


def test_ts_of_no_source_follows_chi2() -> None:
    """Amplitude alone, position frozen: one degree of freedom, either sign."""
    models = toy_models(amplitude=0.0)
    for name in ("lon_0", "lat_0"):
        models.parameters[name].frozen = True
    found = [
        source_ts(counts_of(toy_dataset(), models, seed), models, "src").ts for seed in range(40)
    ]
    assert min(found) > -1e-6
    assert np.mean(found) == pytest.approx(1.0, abs=3 * np.sqrt(2 / 40))


# --- extension
def test_an_extended_source_is_told_from_a_point() -> None:
    dataset = counts_of(toy_dataset(), toy_models(sigma=0.1, amplitude=3e-11))
    found = extension_test(dataset, toy_models(amplitude=3e-11), "src")
    assert found.sigma > 5
    assert found.size == pytest.approx(0.1, abs=4 * found.error)
    assert found.p_value == pytest.approx(0.5 * chi2.sf(found.ts, 1))
    assert found.size < found.upper_limit < found.size + 2.5 * found.error
    held = toy_models(sigma=found.upper_limit, amplitude=3e-11)
    held.parameters["sigma"].frozen = True
    rise = Fit().solve(dataset, held).total_stat - found.extended.total_stat
    assert rise == pytest.approx(norm.ppf(0.95) ** 2, abs=5e-3)
    assert "sigma <" in str(found)


def test_extension_is_that_of_the_source_and_not_of_what_surrounds_it() -> None:
    """A small source within a ring of six that the models lack."""
    angles = np.arange(6) * np.pi / 3
    ring = [
        toy_models(0.1 + 0.4 * np.cos(a), -0.05 + 0.4 * np.sin(a), 6e-12, name=f"{k}")[0]
        for k, a in enumerate(angles)
    ]
    truth = Models([*ring, *toy_models(sigma=0.05, amplitude=5e-12)])
    dataset = counts_of(toy_dataset(width=(4.8, 4.0)), truth, seed=None)
    found = extension_test(dataset, toy_models(amplitude=2e-11), "src")
    assert not found.at_bound
    assert found.size == pytest.approx(0.05, abs=0.01)
    assert found.size < found.upper_limit < 0.1
    assert "A deeper minimum lies beyond sigma =" in found.message
    assert max(found.ts_sizes) > found.ts + 10.0
    assert len(found.sizes) == len(found.ts_sizes) and found.sizes[-1] == 0.5
    inside = extension_test(dataset, toy_models(amplitude=2e-11), "src", max_size=0.03)
    assert inside.at_bound and inside.size == pytest.approx(0.03)
    assert "still gets better at max_size = 0.03 deg" in inside.message
    assert "<" not in str(inside)
    with pytest.raises(FitError, match=r"max_size 0\.0; expected degrees"):
        extension_test(dataset, toy_models(), "src", max_size=0.0)


def test_a_point_is_not_extended_and_its_size_is_limited() -> None:
    dataset = counts_of(toy_dataset(), toy_models(amplitude=3e-11))
    models = toy_models(sigma=0.2, amplitude=3e-11)
    before = models.to_dict()
    found = extension_test(dataset, models, "src")
    assert models.to_dict() == before
    assert 0 <= found.ts < 6
    assert 0.0 < found.upper_limit < 0.05
    with pytest.raises(ModelError, match="shape 'point' has no size"):
        extension_test(dataset, models, "src", "point")


# --- limits
def test_extension_needs_a_shape_with_a_point_at_its_end(drawn: Any) -> None:
    for shape in ("shell", "gauss-general", "point"):
        with pytest.raises(ModelError, match="expected one of GaussianSpatialModel, gauss, Disk"):
            extension_test([drawn], toy_models(), "src", shape)
    flat = toy_models()
    flat["src"].spatial_model = ConstantSpatialModel()
    with pytest.raises(ModelError, match="src: it has no position"):
        extension_test([drawn], flat, "src")


def test_upper_limit_is_where_the_profile_has_risen(drawn: Any) -> None:
    models = toy_models(-0.5, 0.4)
    found = flux_upper_limit(drawn, models, "src", cl=0.9)
    held = toy_models(-0.5, 0.4, found.value)
    held["src"].freeze()
    stat = Fit().solve(drawn, held).total_stat
    held.parameters["amplitude"].value = max(found.best, 0.0)
    low = Fit().solve(drawn, held).total_stat
    assert stat - low == pytest.approx(norm.ppf(0.9) ** 2, abs=2e-3)
    assert found.flux == pytest.approx(found.value)  # emin, emax are those of the band
    assert 0 < found.value < 2e-12


def test_upper_limit_of_a_deficit_is_counted_from_zero() -> None:
    base = toy_models(amplitude=0.0)
    dataset = counts_of(toy_dataset(), base, seed=None)
    hole = toy_models(amplitude=-1e-12)
    dataset = with_counts(dataset, np.maximum(counts_of(toy_dataset(), hole, None).counts.data, 0))
    empty = flux_upper_limit(counts_of(toy_dataset(), base, None), base, "src")
    found = flux_upper_limit(dataset, base, "src")
    assert found.best < 0
    assert "counted from 0" in found.message
    assert 0 < found.value < empty.value
    assert found.ts < 0
    # In the Gaussian limit an empty place has a limit of 1.645 errors.
    assert empty.value == pytest.approx(1.645 * empty.error, rel=0.1)


# --- place
def test_localisation_radii_hold_what_they_say(drawn: Any) -> None:
    result = Fit().solve(drawn, toy_models())
    found = localise(result, "src")
    rows = [result.names.index(("src", name)) for name in ("lon_0", "lat_0")]
    block = result.covariance[np.ix_(rows, rows)]
    points = np.random.default_rng(0).multivariate_normal([0, 0], block, 200_000)
    points[:, 0] *= np.cos(np.radians(found.lat))
    distance = np.hypot(*points.T)
    for radius, share in ((found.r68, 0.68), (found.r95, 0.95), (found.r99, 0.99)):
        assert np.mean(distance < radius) == pytest.approx(share, abs=0.003)
    assert found.semi_major * found.semi_minor == pytest.approx(
        np.sqrt(np.linalg.det(block)) * np.cos(np.radians(found.lat)), rel=1e-9
    )
    assert max(found.deviation) < 0.1
    frozen = toy_models()
    frozen.parameters["lon_0"].frozen = True
    with pytest.raises(FitError, match=r"src\.lon_0: not fitted; free the position"):
        localise(Fit().solve(drawn, frozen), "src")


# --- where Gammapy fails
def test_a_fit_in_icrs_stays_on_the_map() -> None:
    """Minuit's first step of one unit is 100 degrees at longitudes of 100 and more."""
    dataset = counts_of(toy_dataset(), toy_models(), seed=4)
    galactic = Fit().solve(dataset, toy_models())
    position = toy_models(0.13, -0.08)["src"].position.icrs
    models = toy_models(position.ra.deg, position.dec.deg, 1e-12, frame="icrs")
    result = Fit().run(dataset, models)
    assert result.success, result.message
    assert result.value("src", "lon_0") > 100
    assert result.total_stat == pytest.approx(galactic.total_stat, abs=1e-5)
    found = models["src"].position.galactic
    assert found.b.deg == pytest.approx(galactic.value("src", "lat_0"), abs=1e-5)
    contour = Fit().stat_contour(result, "src.lon_0", "src.lat_0", n=8)
    assert contour.success


def test_three_bands_are_fitted_from_the_tutorials_start(reference: Path) -> None:
    """Gammapy's lowest band runs away from there; its fit from a good start is the target."""
    from imgfit_widgets.core.analysis import Analysis

    cases = {
        k: json.loads((reference / "gammapy" / f"{k}.json").read_text())
        for k in ("C_3bands", "C_3bands_goodstart")
    }
    analysis = Analysis(cases["C_3bands"]["config"], accuracy="gammapy")
    analysis.get_observations()
    analysis.get_datasets()
    models = Models.from_yaml(cases["C_3bands"]["models"])
    names = [d.name for d in analysis.datasets]
    models.extend(FoVBackgroundModel(dataset_name=n) for n in names if f"{n}-bkg" not in models)
    result = Fit().solve(list(analysis.datasets), models)
    assert result.success, result.message
    target = cases["C_3bands_goodstart"]["fit"]
    for label, value, error in zip(target["free"], target["values"], target["errors"], strict=True):
        model, _, name = label.split(".")
        if name in ("amplitude", "norm"):
            assert result.value(model, name) == pytest.approx(value, abs=0.5 * error)
        else:
            assert result.value(model, name) == pytest.approx(value, abs=1.5 * error)


def test_extension_of_a_source_wider_than_half_a_degree_is_found() -> None:
    """Sizes were tried up to 0.5 deg, whatever the model said."""
    models = toy_models(0.1, -0.05, amplitude=3e-10, sigma=0.6)
    evaluator = Evaluator([toy_dataset()], models)
    dataset = with_counts(toy_dataset(), evaluator.npred(evaluator.x0)[0])
    found = extension_test([dataset], models, "src")
    assert found.size == pytest.approx(0.6, abs=0.02)
    assert found.upper_limit > 0.6
    assert extension_test([dataset], models, "src", max_size=0.5).at_bound
