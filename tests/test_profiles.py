"""Around a minimum: errors, profiles and contours are what fits with held parameters say."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import chi2
from toy import toy_dataset, toy_models, with_counts

from imgfit_widgets.core.errors import FitError, ModelError
from imgfit_widgets.core.evaluator import Evaluator
from imgfit_widgets.core.fit import Fit, FitResult
from imgfit_widgets.core.maps import WcsNDMap
from imgfit_widgets.core.models import FoVBackgroundModel, GaussianSpatialModel, Models
from imgfit_widgets.core.profile import Profiles
from imgfit_widgets.core.progress import Cancelled


def drawn_of(dataset: Any, models: Models, seed: int = 4) -> Any:
    evaluator = Evaluator([dataset], models)
    expected = evaluator.npred(evaluator.x0)[0]
    return with_counts(dataset, np.random.default_rng(seed).poisson(expected).astype(float))


@pytest.fixture(scope="module")
def faint() -> Any:
    """Counts of a source of some 60 photons, whose likelihood is no parabola."""
    return drawn_of(toy_dataset(), toy_models(amplitude=2.5e-12))


@pytest.fixture(scope="module")
def result(faint: Any) -> FitResult:
    result = Fit().solve(faint, toy_models(amplitude=2.5e-12))
    assert result.success
    return result


@pytest.fixture(scope="module")
def profiles(result: FitResult) -> Profiles:
    return Profiles(result)


def stat_with(dataset: Any, result: FitResult, **held: float) -> float:
    """The statistic of a fit of its own with some parameters of the source frozen."""
    models = toy_models(amplitude=2.5e-12)
    for model, name in result.names:
        models[model].parameters[name].value = result.value(model, name)
    for name, value in held.items():
        models["src"].parameters[name].value = value
        models["src"].parameters[name].frozen = True
    fitted = Fit().solve(dataset, models)
    assert fitted.success, fitted.message
    return fitted.total_stat


# --- one parameter
@pytest.mark.parametrize("name", ["amplitude", "lon_0", "lat_0"])
@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_asymmetric_errors_are_where_a_fit_has_risen(
    name: str, sigma: float, faint: Any, result: FitResult, profiles: Profiles
) -> None:
    error = profiles.minos(f"src.{name}", sigma)
    assert error.success
    assert not (error.at_limit_lower or error.at_limit_upper)
    assert error.lower < 0 < error.upper
    for side in (error.lower, error.upper):
        stat = stat_with(faint, result, **{name: error.value + side})
        assert stat - result.total_stat == pytest.approx(sigma**2, abs=2e-3)
    assert (error.errn, error.errp) == (-error.lower, error.upper)
    assert json.loads(json.dumps(error.to_dict()))["upper"] == error.upper


def test_errors_of_a_counting_experiment_are_those_of_its_formula() -> None:
    """Background alone: the statistic is 2 (norm B - N ln norm) up to a constant."""
    dataset = toy_dataset()
    dataset.background = WcsNDMap(dataset.geom, 1e-3 * dataset.background.data)
    counts = np.zeros(dataset.background.data.shape)
    counts[0, 10, 10:17] = 1.0
    dataset = with_counts(dataset, counts)
    models = Models([FoVBackgroundModel(dataset_name="toy")])
    total, n = dataset.background.data.sum(), 7.0
    result = Fit().solve(dataset, models)
    assert result.values[0] == pytest.approx(n / total, rel=1e-6)
    found = Profiles(result).minos("toy-bkg.norm")

    def rise(mu: float) -> float:
        return 2 * (mu - n - n * np.log(mu / n)) - 1.0

    low, high = brentq(rise, 1.0, n), brentq(rise, n, 30.0)
    assert (found.lower * total, found.upper * total) == pytest.approx(
        (low - n, high - n), rel=1e-3
    )
    assert found.upper > 1.2 * -found.lower


def test_profile_is_that_of_fits(faint: Any, result: FitResult, profiles: Profiles) -> None:
    profile = profiles.stat_profile("src.amplitude", n=5)
    centre, error = result.value("src", "amplitude"), result.error("src", "amplitude")
    np.testing.assert_allclose(
        profile.values, np.linspace(centre - 2 * error, centre + 2 * error, 5)
    )
    expected = [stat_with(faint, result, amplitude=v) for v in profile.values]
    np.testing.assert_allclose(profile.stat, expected, atol=1e-4)
    assert profile.delta[2] == pytest.approx(0.0, abs=1e-6)
    given = profiles.stat_profile(("src", "lon_0"), values=[0.1, 0.05])
    np.testing.assert_allclose(given.values, [0.05, 0.1])
    assert given.others.shape == (2, 4)


def test_limits_are_reported_as_limits() -> None:
    dataset = drawn_of(toy_dataset(), toy_models(amplitude=3e-11))
    models = toy_models(sigma=0.05, amplitude=3e-11)
    models.parameters["lon_0"].max = 0.101
    result = Fit().solve(dataset, models)
    assert result.success
    profiles = Profiles(result)
    size = profiles.minos("src.sigma", 3.0)
    assert size.at_limit_lower and not size.at_limit_upper
    assert size.value + size.lower == pytest.approx(0.0, abs=1e-9)
    assert "meets its limit" in size.message
    if np.isfinite(result.error("src", "lon_0")):
        lon = profiles.minos("src.lon_0", 3.0)
        assert lon.at_limit_upper and lon.value + lon.upper == pytest.approx(0.101)


# --- two parameters
@pytest.mark.parametrize("level", [{"sigma": 1.0}, {"sigma": 2.0}, {"cl": 0.6827}])
def test_contour_points_are_on_the_level(
    level: dict[str, float], faint: Any, result: FitResult, profiles: Profiles
) -> None:
    contour = profiles.stat_contour("src.lon_0", "src.amplitude", n=12, **level)
    assert contour.success
    assert (contour.x[0], contour.y[0]) == (contour.x[-1], contour.y[-1])
    rise = level["sigma"] ** 2 if "sigma" in level else chi2.ppf(0.6827, 2)
    for x, y in list(zip(contour.x, contour.y, strict=True))[:-1:2]:
        stat = stat_with(faint, result, lon_0=x, amplitude=y)
        assert stat - result.total_stat == pytest.approx(rise, abs=3e-3)
    dx = (contour.x - result.value("src", "lon_0")) / result.error("src", "lon_0")
    dy = (contour.y - result.value("src", "amplitude")) / result.error("src", "amplitude")
    turned = np.unwrap(np.arctan2(dy, dx))
    assert np.all(np.diff(turned) > 0)
    assert turned[-1] - turned[0] == pytest.approx(2 * np.pi)


def test_contour_of_many_counts_is_the_ellipse() -> None:
    dataset = drawn_of(toy_dataset(), toy_models(amplitude=1e-9))
    profiles = Profiles(Fit().solve(dataset, toy_models(amplitude=1e-9)))
    contour = profiles.stat_contour("src.lon_0", "src.lat_0", sigma=2, n=24)
    ellipse = profiles.ellipse("src.lon_0", "src.lat_0", sigma=2, n=25)
    error = profiles.result.error("src", "lon_0")
    np.testing.assert_allclose(contour.x, ellipse.x, atol=0.02 * error)
    np.testing.assert_allclose(contour.y, ellipse.y, atol=0.02 * error)
    assert contour.cl == pytest.approx(1 - np.exp(-2.0))


def test_contour_stops_at_a_limit(faint: Any, result: FitResult) -> None:
    models = toy_models(amplitude=2.5e-12)
    edge = result.value("src", "lon_0") + 0.5 * result.error("src", "lon_0")
    models.parameters["lon_0"].max = max(edge, 0.1)
    bounded = Fit().solve(faint, models)
    contour = Profiles(bounded).stat_contour("src.lon_0", "src.lat_0", sigma=3, n=12)
    assert contour.success and contour.at_limit.any()
    assert contour.x.max() <= max(edge, 0.1) + 1e-9
    assert not contour.closed
    assert f"ends at a limit of a parameter: src.lon_0 = {max(edge, 0.1):g}." in contour.message
    # The last points on the level come close to the limit.
    beside = np.flatnonzero(np.diff(contour.at_limit.astype(int)))
    step = np.hypot(
        np.diff(contour.x)[beside] / result.error("src", "lon_0"),
        np.diff(contour.y)[beside] / result.error("src", "lat_0"),
    )
    assert len(beside) == 2 and step.max() < 0.2


def within(contour: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points lie inside a closed line, by the crossings of a ray."""
    inside = np.zeros(x.shape, dtype=bool)
    ends = np.stack([contour.x, contour.y], axis=1)
    for (x1, y1), (x2, y2) in pairwise(ends[contour.valid]):
        if y1 != y2:
            inside ^= ((y1 > y) != (y2 > y)) & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return inside


def test_a_curved_contour_is_that_of_a_dense_grid() -> None:
    """Eccentricity and direction of a weak ellipse, 2 sigma."""
    models = toy_models(amplitude=5e-12)
    at = {"frame": "galactic", "lon_0": 0.1, "lat_0": -0.05}
    shape = GaussianSpatialModel(sigma=0.15, e=0.8, phi=30.0, **at)
    shape.e.frozen = shape.phi.frozen = False
    shape.lon_0.frozen = shape.lat_0.frozen = shape.sigma.frozen = True
    models["src"].spatial_model = shape
    evaluator = Evaluator([toy_dataset()], models)
    dataset = with_counts(toy_dataset(), evaluator.npred(evaluator.x0)[0])
    profiles = Profiles(Fit().solve(dataset, models))
    contour = profiles.stat_contour("src.e", "src.phi", sigma=2, n=24)
    assert contour.closed and contour.success and not contour.message
    middle = 0.5 * (contour.x.min() + contour.x.max())
    assert abs(middle - 0.8) > 0.2 * np.ptp(contour.x)  # no ellipse
    x, y = np.linspace(0.2, 0.97, 12), np.linspace(-15.0, 75.0, 12)
    surface = profiles.stat_surface("src.e", "src.phi", x, y)
    root = np.sqrt(np.maximum(surface.stat - surface.stat_min, 0.0))
    inside = within(contour, *np.meshgrid(x, y, indexing="ij"))
    assert 20 < inside.sum() < 100
    assert np.all(np.abs(root[inside != (root < 2.0)] - 2.0) < 0.05)


def test_a_contour_in_its_own_shadow_says_so() -> None:
    """One source fitted to six on a horseshoe, whose arms do not see each other."""
    arc = np.radians([200, 150, 100, 50, 0, -50])
    each = [
        toy_models(
            0.16 * np.cos(a), 0.16 * np.sin(a), 6e-13 * (1.2 if k == 2 else 1.0), name=f"{k}"
        )
        for k, a in enumerate(arc)
    ]
    truth = Models([*(models[0] for models in each), each[0][1]])
    evaluator = Evaluator([toy_dataset()], truth)
    dataset = with_counts(toy_dataset(), evaluator.npred(evaluator.x0)[0])
    profiles = Profiles(Fit().solve(dataset, toy_models(0.0, 0.16, 2e-12)))
    pair = "src.lon_0", "src.lat_0"
    assert profiles.stat_contour(*pair, sigma=2, n=16).closed
    shadowed = profiles.stat_contour(*pair, sigma=4, n=24)
    assert shadowed.success and not shadowed.closed
    assert "not seen whole from the minimum" in shadowed.message


def test_surface_is_that_of_fits(faint: Any, result: FitResult, profiles: Profiles) -> None:
    surface = profiles.stat_surface("src.lon_0", "src.lat_0", n=5)
    assert surface.stat.shape == (5, 5)
    assert surface.stat.min() == pytest.approx(result.total_stat, abs=1e-5)
    for i, k in ((0, 0), (1, 4), (4, 2)):
        stat = stat_with(faint, result, lon_0=surface.x[i], lat_0=surface.y[k])
        assert surface.stat[i, k] == pytest.approx(stat, abs=1e-3)


# --- protocol
def test_points_come_one_by_one_and_a_cancel_passes(profiles: Profiles) -> None:
    points = profiles.iter_contour("src.lon_0", "src.lat_0", n=8)
    first = next(points)
    assert first.valid
    whole = profiles.stat_contour("src.lon_0", "src.lat_0", n=8)
    assert (first.x, first.y) == (whole.x[0], whole.y[0])
    fractions: list[float] = []

    def watch(fraction: float, message: str) -> None:
        fractions.append(fraction)
        if len(fractions) == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        profiles.stat_profile("src.lon_0", progress=watch)
    assert fractions == sorted(fractions)


def test_what_has_no_profile_is_refused(faint: Any, profiles: Profiles) -> None:
    with pytest.raises(ModelError, match=r"src\.sigma: not a free parameter .* src\.lon_0"):
        profiles.minos("src.sigma")
    with pytest.raises(ModelError, match="two different parameters"):
        profiles.stat_contour("src.lon_0", "src.lon_0")
    with pytest.raises(FitError, match="sigma -1; expected a number above 0"):
        profiles.minos("src.lon_0", -1)
    with pytest.raises(FitError, match=r"cl 2.0; expected a probability"):
        profiles.stat_contour("src.lon_0", "src.lat_0", cl=2.0)
    with pytest.raises(ModelError, match=r"src\.lat_0: scan value 95 is outside"):
        profiles.stat_profile("src.lat_0", values=[95.0])
    failed = Fit(max_calls=1).solve(faint, toy_models(-0.9, 0.8))
    if not failed.success:
        with pytest.raises(FitError, match="no minimum to look around"):
            Profiles(failed)


def test_fit_has_gammapys_calls(faint: Any, result: FitResult) -> None:
    models = toy_models(amplitude=2.5e-12)
    before = models.to_dict()
    error = Fit().confidence(faint, models.parameters["lon_0"], models=models)
    assert models.to_dict() == before
    assert error.errp == pytest.approx(Profiles(result).minos("src.lon_0").upper, rel=1e-3)
    assert len(Fit().stat_profile(result, "src.lon_0", n=3).stat) == 3
    assert len(Fit().stat_contour(result, "src.lon_0", "src.lat_0", n=6).x) == 7
    assert Fit().stat_surface(result, "src.lon_0", "src.lat_0", n=2).stat.shape == (2, 2)


# --- against Gammapy on the real runs; its likelihood has cusps in position
def test_errors_and_contour_are_near_gammapys(tutorial_gammapy: Any, reference: Path) -> None:
    theirs = json.loads((reference / "gammapy" / "A_globalmin.json").read_text())
    models = Models.from_yaml(theirs["models"])
    models.append(FoVBackgroundModel(dataset_name="stacked"))
    profiles = Profiles(Fit().solve(tutorial_gammapy.datasets["stacked"], models))
    for name, tolerance in (("amplitude", 0.02), ("lon_0", 0.18), ("lat_0", 0.18), ("norm", 0.003)):
        found = profiles.minos(("stacked-bkg" if name == "norm" else "GC-1", name))
        assert found.success
        assert found.errp == pytest.approx(theirs["minos"][name]["errp"], rel=tolerance)
        assert found.errn == pytest.approx(theirs["minos"][name]["errn"], rel=tolerance)
    line = theirs["profile"]["amplitude"]
    shift = profiles.result.value("GC-1", "amplitude") - line["values"][4]
    rise = profiles.stat_profile("GC-1.amplitude", np.array(line["values"]) + shift).delta
    np.testing.assert_allclose(rise, np.array(line["stat"]) - line["stat"][4], rtol=0.04, atol=0.01)
    contour = profiles.stat_contour("GC-1.lon_0", "GC-1.lat_0", sigma=1)
    for ours, key in ((contour.x, "x"), (contour.y, "y")):
        width = np.ptp(theirs["contour"]["cl0.393_sigma1"][key])
        assert np.ptp(ours) == pytest.approx(width, rel=0.18)
