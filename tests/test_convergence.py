"""Every fit ends in a minimum or says why not, and what to do, wherever it starts."""

from __future__ import annotations

from typing import Any

import instrument
import numpy as np
import pytest
from toy import toy_dataset, toy_models, with_counts

from imgfit_widgets.core.errors import ImgfitError
from imgfit_widgets.core.evaluator import DatasetTerm, Evaluator
from imgfit_widgets.core.fit import Fit
from imgfit_widgets.core.models import (
    DiskSpatialModel,
    FoVBackgroundModel,
    GaussianSpatialModel,
    Models,
    PointSpatialModel,
    PowerLaw2SpectralModel,
    ShellSpatialModel,
    SkyModel,
)

STARTS = 200
SHAPES: dict[str, list[tuple[Any, dict[str, float]]]] = {
    "point": [(PointSpatialModel, {})],
    "two points": [(PointSpatialModel, {}), (PointSpatialModel, {"lon_0": 0.26})],
    "gauss": [(GaussianSpatialModel, {"sigma": 0.2})],
    "elliptical gauss": [(GaussianSpatialModel, {"sigma": 0.25, "e": 0.8, "phi": 50.0})],
    "disk": [(DiskSpatialModel, {"r_0": 0.3})],
    "elliptical disk": [(DiskSpatialModel, {"r_0": 0.35, "e": 0.7, "phi": -30.0})],
    "shell": [(ShellSpatialModel, {"radius": 0.25, "width": 0.1})],
}
SIZES = ("sigma", "r_0", "radius", "width")
WHAT_TO_DO = ("freeze", "start", "fit again", "reduce", "widen")


def models_of(shape: str) -> Models:
    models = Models([FoVBackgroundModel(dataset_name="toy")])
    for number, (kind, values) in enumerate(SHAPES[shape]):
        spatial = kind(frame="galactic", **{"lon_0": 0.1, "lat_0": -0.05, **values})
        for name in ("e", "phi"):
            if name in values:
                spatial.parameters[name].frozen = False
        spectral = PowerLaw2SpectralModel(
            amplitude=3e-11, index=instrument.INDEX, emin=0.5, emax=6.0
        )
        spectral.index.frozen = True
        models.append(SkyModel(spectral, spatial, f"src-{number}"))
    return models


def moved(models: Models, rng: np.random.Generator) -> Models:
    """Up to half a degree away, sizes from a fifth to five times the truth."""
    start = models.copy()
    for model in start.sky_models:
        away, angle = 0.5 * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
        model.spatial_model.lon_0.value += away * np.cos(angle)
        model.spatial_model.lat_0.value += away * np.sin(angle)
        model.linear_parameter.value *= float(rng.choice([0.1, 1.0, 5.0]))
        for parameter in model.spatial_model.parameters:
            if parameter.name in SIZES:
                parameter.value *= np.exp(rng.uniform(np.log(0.2), np.log(5.0)))
            elif not parameter.frozen and parameter.name == "e":
                parameter.value = rng.uniform(0.0, 0.95)
            elif not parameter.frozen and parameter.name == "phi":
                parameter.value = rng.uniform(-180.0, 180.0)
    return start


def check_minimum(dataset: Any, start: Models, result: Any) -> None:
    """Flat, lower than its surroundings, and with the statistic that it is said to have."""
    evaluator = Evaluator([dataset], start)
    x, free = result.values, result.errors > 0
    stat, gradient = evaluator.stat_and_gradient(x)
    assert stat == pytest.approx(result.total_stat, abs=5e-3)
    assert np.abs((gradient * result.errors)[free]).max() < 0.02
    assert result.edm < 1e-4
    rng = np.random.default_rng(0)
    axes = np.linalg.cholesky(result.covariance[np.ix_(free, free)])
    for direction in (*np.eye(free.sum()), *rng.normal(size=(6, free.sum()))):
        # Near: the valley of a source of no significance is narrower than its errors.
        for sign in (-0.05, 0.05):
            beside = x.copy()
            beside[free] += sign * axes @ direction / np.linalg.norm(direction)
            assert evaluator.stat(beside) > result.total_stat


@pytest.mark.parametrize("shape", SHAPES)
def test_any_start_ends_in_a_minimum_or_says_why(shape: str) -> None:
    models = models_of(shape)
    empty, rng = instrument.dataset(), np.random.default_rng([5, list(SHAPES).index(shape)])
    evaluator = Evaluator([empty], models)
    drawn = rng.poisson(evaluator.npred(evaluator.x0)[0]).astype(float)
    dataset = with_counts(empty, drawn)
    best, close = Fit().solve([dataset], models), 0
    assert best.success, best.message
    for _ in range(STARTS):
        start = moved(models, rng)
        result = Fit().solve([dataset], start)
        assert np.all(np.isfinite(result.values))
        if result.success:
            check_minimum(dataset, start, result)
            close += result.total_stat < best.total_stat + 0.1
        else:
            assert any(word in result.message for word in WHAT_TO_DO), result.message
    # Most starts find the source itself, not a fluctuation far from it.
    assert close > 0.5 * STARTS


@pytest.mark.parametrize("sigma", [None, 0.1, 0.3])
@pytest.mark.parametrize("amplitude", [2e-12, 2e-11, 5e-10])
def test_an_index_that_one_band_does_not_tell_is_named(
    sigma: float | None, amplitude: float
) -> None:
    """Only the width of the PSF depends on energy then; of an extended source not even that."""
    models = toy_models(amplitude=amplitude, sigma=sigma)
    evaluator = Evaluator([toy_dataset()], models)
    rng = np.random.default_rng(1)
    drawn = rng.poisson(evaluator.npred(evaluator.x0)[0]).astype(float)
    models.parameters["index"].frozen = False
    result = Fit().solve([with_counts(toy_dataset(), drawn)], models)
    assert "freeze" in result.message
    assert "src.index" in result.message
    assert not result.success or (sigma is None and result.error("src", "index") < 0.5)


def test_a_fit_that_is_interrupted_says_so() -> None:
    models = models_of("gauss")
    evaluator = Evaluator([instrument.dataset()], models)
    expected = evaluator.npred(evaluator.x0)[0]
    start = moved(models, np.random.default_rng(3))
    try:
        result = Fit(max_calls=1).solve([with_counts(instrument.dataset(), expected)], start)
    except ImgfitError as error:
        pytest.fail(f"raised: {error}")
    assert not result.success and any(word in result.message for word in WHAT_TO_DO)


@pytest.mark.parametrize("start", [0.04, 0.1, 0.2])
def test_a_source_grows_far_on_the_rough_prediction(
    start: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stopped where bins grew with the source, as more in a bin looks like a worse fit."""
    models = models_of("gauss")
    models[1].spatial_model.sigma.value = 0.6
    models[1].parameters["amplitude"].value = 3e-10
    empty = instrument.dataset()
    evaluator = Evaluator([empty], models)
    rng = np.random.default_rng(2)
    drawn = rng.poisson(evaluator.npred(evaluator.x0)[0]).astype(float)
    models[1].spatial_model.sigma.value = start
    exact, differentiate = [], DatasetTerm.differentiate

    def counted(term: DatasetTerm, *args: Any) -> float:
        exact.append(not term.rough)
        return differentiate(term, *args)

    monkeypatch.setattr(DatasetTerm, "differentiate", counted)
    result = Fit().solve([with_counts(empty, drawn)], models)
    assert result.success, result.message
    sigma = result.names.index(("src-0", "sigma"))
    assert abs(result.values[sigma] - 0.6) < 4.0 * result.errors[sigma]
    assert sum(exact) <= 3
