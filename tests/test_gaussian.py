"""Round Gaussians on the pixels of the map, with an exposure that is followed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from brute_force import expected_counts
from toy import steep, toy_dataset, toy_models, with_counts

from imgfit_widgets.core.evaluator import Evaluator
from imgfit_widgets.core.extended import ExtendedSource
from imgfit_widgets.core.gaussian import GaussianSource
from imgfit_widgets.core.maps import WcsGeom, WcsNDMap
from imgfit_widgets.core.source import Source


def source_of(evaluator: Evaluator) -> Source:
    return evaluator.terms[0].sources[0]


@pytest.mark.parametrize(
    ("sigma", "proj", "frame"),
    [
        (0.041, "CAR", "galactic"),
        (0.041, "TAN", "icrs"),
        (0.1, "TAN", "galactic"),
        (0.25, "CAR", "icrs"),
    ],
)
def test_counts_are_those_of_brute_force(sigma: float, proj: str, frame: str) -> None:
    """With an exposure that falls steeply, and faster at some energies than at others."""
    dataset = steep(toy_dataset(proj=proj))
    lon, lat = dataset.geom.to_frame(0.113, -0.068, frame)
    models = toy_models(float(lon), float(lat), sigma=sigma, frame=frame, background=False)
    evaluator = Evaluator([dataset], models)
    ours = evaluator.npred_of("src", evaluator.x0)[0][0]
    assert type(source_of(evaluator)) is GaussianSource
    truth = expected_counts(dataset, models[0])[0]
    assert ours.sum() == pytest.approx(truth.sum(), rel=2e-4)
    np.testing.assert_allclose(ours, truth, atol=7e-4 * truth.max())


@pytest.mark.parametrize("place", [(1.18, 0.3), (1.23, 1.02), (-0.9, 0.99)])
def test_the_exposure_goes_on_beyond_the_map(place: tuple[float, float]) -> None:
    """At a border, beyond a corner, where the exposure bends as it is continued."""
    dataset = steep(toy_dataset())
    evaluator = Evaluator([dataset], toy_models(sigma=0.2, background=False))
    x = evaluator.x0.copy()
    x[1:3] = place
    ours = evaluator.npred_of("src", x)[0][0]
    assert type(source_of(evaluator)) is GaussianSource
    truth = expected_counts(dataset, toy_models(*place, sigma=0.2, background=False)[0])[0]
    np.testing.assert_allclose(ours, truth, atol=1e-3 * truth.max())


@pytest.mark.parametrize("sigma", [0.025, 0.12])
@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("proj", ["CAR", "TAN"])
def test_derivatives_are_exact(sigma: float, bands: int, proj: str) -> None:
    """All of the gradient; second ones but for what the drift of the response adds to residuals."""
    dataset = steep(toy_dataset(bands, proj))
    models = toy_models(0.3, 0.2, sigma=sigma, amplitude=6e-11)
    models[0].spectral_model.index.frozen = False
    evaluator = Evaluator([dataset], models)
    counts = np.round(1.1 * evaluator.npred(evaluator.x0)[0])
    evaluator = Evaluator([with_counts(dataset, counts)], models)
    x = evaluator.x0
    evaluator.recentre(x)
    assert type(source_of(evaluator)) is GaussianSource
    found = evaluator.derivatives(x)
    stat, gradient = evaluator.stat_and_gradient(x)
    assert stat == pytest.approx(found.stat, abs=1e-9) and stat == evaluator.stat(x)
    np.testing.assert_allclose(found.gradient, gradient, rtol=1e-9)
    errors = np.sqrt(2.0 / np.diag(found.expected))
    second = np.empty_like(found.observed)
    for i, error in enumerate(errors):
        step = np.zeros(len(x))
        step[i] = 1e-3 * error
        ends = [evaluator.stat_and_gradient(x + s * step) for s in (1.0, -1.0)]
        slope = (ends[0][0] - ends[1][0]) / (2.0 * step[i])
        assert slope == pytest.approx(gradient[i], abs=1e-4 / error)
        second[i] = (ends[0][1] - ends[1][1]) / (2.0 * step[i])
    scale = np.outer(errors, errors)
    np.testing.assert_allclose(found.observed * scale, second * scale, atol=0.04)


def test_the_way_changes_smoothly_with_the_size() -> None:
    """From the exposure at the centre, over where it begins to be followed, to a wide source."""
    dataset, models = steep(toy_dataset()), toy_models(sigma=0.03, amplitude=6e-11)
    evaluator = Evaluator([dataset], models)
    dataset = with_counts(dataset, evaluator.npred(evaluator.x0)[0])
    evaluator = Evaluator([dataset], models)
    place, kinds, slopes = evaluator.names.index(("src", "sigma")), set(), []
    sizes = np.linspace(0.012, 0.05, 77)
    x = evaluator.x0.copy()
    for x[place] in sizes:
        slopes.append(evaluator.stat_and_gradient(x)[1][place])
        kinds.add(type(source_of(evaluator)))
    assert kinds == {Source, GaussianSource}
    curvature = np.diff(slopes)
    assert np.abs(np.diff(curvature)).max() < 0.05 * np.abs(curvature).max()


def test_rough_predictions_are_near_the_exact_ones() -> None:
    dataset = steep(toy_dataset())
    models = toy_models(sigma=0.3, amplitude=2e-10)
    evaluator = Evaluator([dataset], models)
    dataset = with_counts(dataset, evaluator.npred(evaluator.x0)[0])
    evaluator = Evaluator([dataset], models)
    x = evaluator.x0.copy()
    x[1:4] += 0.02, -0.01, 0.03
    exact = [evaluator.stat(x) - evaluator.stat(evaluator.x0), evaluator.stat_and_gradient(x)[1]]
    evaluator.set_rough(True)
    evaluator.recentre(x)
    assert source_of(evaluator).bin > 2
    stat, gradient = evaluator.stat_and_gradient(x)
    assert stat - evaluator.stat(evaluator.x0) == pytest.approx(exact[0], rel=0.1)
    np.testing.assert_allclose(gradient, exact[1], atol=0.1 * np.abs(exact[1]).max())
    evaluator.set_rough(False)
    evaluator.recentre(x)
    assert source_of(evaluator).bin == 1


def test_where_pixels_do_not_do_a_plane_is_taken() -> None:
    """An exposure in other pixels, pixels that are oblique, a source of very many pixels."""
    coarse = WcsGeom.create((0.0, 0.0), (2.4, 2.0), 0.05, "CAR", "galactic")
    dataset = toy_dataset()
    axes = dataset.exposure.geom.axes
    exposure = WcsNDMap(WcsGeom(coarse.wcs, coarse.shape, axes), np.full((3, 40, 48), 5e9), "m2 s")
    other = SimpleNamespace(**{**vars(dataset), "exposure": exposure})
    wcs = dataset.geom.wcs.deepcopy()
    wcs.wcs.pc = [[1.0, 0.4], [0.0, 1.0]]
    geom = WcsGeom(wcs, dataset.geom.shape, dataset.geom.axes)
    skewed: dict[str, Any] = {
        name: WcsNDMap(WcsGeom(wcs, geom.shape, q.geom.axes), q.data, q.unit)
        for name, q in vars(dataset).items()
        if isinstance(q, WcsNDMap)
    }
    oblique = SimpleNamespace(**{**vars(dataset), **skewed, "geom": geom})
    for data, sigma in ((other, 0.1), (oblique, 0.1), (dataset, 2.0)):
        evaluator = Evaluator([data], toy_models(sigma=sigma, background=False))
        evaluator.recentre(evaluator.x0)
        assert type(source_of(evaluator)) is ExtendedSource
    evaluator = Evaluator([dataset], toy_models(sigma=0.1, background=False))
    evaluator.recentre(evaluator.x0)
    assert type(source_of(evaluator)) is GaussianSource
