"""Spectra, priors and links: integrals against independent ones, files against Gammapy."""

from __future__ import annotations

import copy
import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import special
from scipy.integrate import quad

from imgfit_widgets.core.errors import ModelError
from imgfit_widgets.core.models import (
    ConstantSpectralModel,
    ExpCutoffPowerLawSpectralModel,
    FoVBackgroundModel,
    GaussianPrior,
    LogParabolaSpectralModel,
    Models,
    PointSpatialModel,
    PowerLaw2SpectralModel,
    PowerLawSpectralModel,
    SkyModel,
    SpectralModel,
    TemplateSpectralModel,
    UniformPrior,
)

TABLE = [0.1, 0.5, 2.0, 30.0], [4e-11, 3e-12, 2e-13, 1e-16]
MODELS: list[SpectralModel] = [
    PowerLawSpectralModel(index=2.3, amplitude=3e-12, reference=0.7),
    PowerLawSpectralModel(index=1.0, amplitude=3e-12),
    PowerLaw2SpectralModel(index=2.4, amplitude=3e-11, emin=0.3, emax=20.0),
    ExpCutoffPowerLawSpectralModel(index=1.7, amplitude=3e-12, lambda_=0.2),
    ExpCutoffPowerLawSpectralModel(index=2.2, amplitude=3e-12, lambda_=3.0, alpha=0.5),
    ExpCutoffPowerLawSpectralModel(index=0.5, amplitude=3e-12, lambda_=0.9, alpha=2.0),
    LogParabolaSpectralModel(amplitude=3e-12, reference=2.0, alpha=2.1, beta=0.3),
    LogParabolaSpectralModel(amplitude=3e-12, reference=1.0, alpha=1.0, beta=1.5),
    ConstantSpectralModel(const=2e-12),
    TemplateSpectralModel(*TABLE, norm=1.3, tilt=0.2, reference=0.8),
]
IDS = [f"{type(m).__name__}-{i}" for i, m in enumerate(MODELS)]


@pytest.mark.parametrize("model", MODELS, ids=IDS)
@pytest.mark.parametrize("edges", [(0.1, 0.11), (0.4, 1.1), (0.1, 30.0)])
def test_integral_is_that_of_adaptive_quadrature(
    model: SpectralModel, edges: tuple[float, float]
) -> None:
    def integrand(t: float) -> float:
        return float(np.exp(t) * model.evaluate(np.array([np.exp(t)]))[0]) * 1e12

    nodes = [np.log(e) for e in TABLE[0] if edges[0] < e < edges[1]] or None
    low, high = np.log(edges)
    parts = [low, *(nodes or []), high]
    expected = sum(
        quad(integrand, a, b, epsrel=1e-12, epsabs=0, limit=400)[0] for a, b in pairwise(parts)
    )
    assert model.integral(*edges) * 1e12 == pytest.approx(expected, rel=1e-10)


def test_cutoff_integral_is_an_incomplete_gamma_function() -> None:
    model = ExpCutoffPowerLawSpectralModel(index=0.6, amplitude=1e-12, lambda_=0.5)
    low, high, a = 0.1, 300.0, 0.4
    primitive = special.gammainc(a, 0.5 * np.array([low, high])) * special.gamma(a)
    expected = 1e-12 * 0.5**-a * (primitive[1] - primitive[0])
    assert model.integral(low, high) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("model", MODELS, ids=IDS)
def test_derivatives_are_those_of_the_integral(model: SpectralModel) -> None:
    low, high = np.array([0.1, 0.6, 3.0]), np.array([0.6, 3.0, 12.0])
    values = model.canonical_values()
    slopes = model.integral_values(values, low, high)[1]
    for i, value in enumerate(values):
        step = np.zeros(len(values))
        step[i] = 1e-4 * max(abs(value), 1e-30)
        sides = [model.integral_values(values + s * step, low, high)[0] for s in (-1, 1)]
        expected = (sides[1] - sides[0]) / (2 * step[i])
        np.testing.assert_allclose(slopes[i], expected, rtol=2e-7, atol=1e-8 * abs(expected).max())


def test_extreme_shapes_stay_finite() -> None:
    edges = np.geomspace(0.01, 100.0, 20)
    for model in (
        ExpCutoffPowerLawSpectralModel(lambda_=500.0),
        ExpCutoffPowerLawSpectralModel(lambda_=0.0, alpha=0.5),
        ExpCutoffPowerLawSpectralModel(lambda_=-10.0, alpha=1.3),
        LogParabolaSpectralModel(alpha=10.0, beta=-5.0),
    ):
        for found in model.integral_values(model.canonical_values(), edges[:-1], edges[1:]):
            assert np.all(np.isfinite(found))


def test_a_template_has_no_photons_outside_its_table() -> None:
    model = TemplateSpectralModel([1.0, 2.0, 4.0], [1e-12, 0.0, 1e-13])
    assert model.integral(2.5, 8.0) == 0.0
    assert TemplateSpectralModel(*TABLE).integral(0.01, 100.0) == pytest.approx(
        TemplateSpectralModel(*TABLE).integral(0.1, 30.0), rel=1e-12
    )
    np.testing.assert_array_equal(TemplateSpectralModel(*TABLE).evaluate([0.05, 40.0]), 0.0)


@pytest.mark.parametrize(
    ("energy", "values", "message"),
    [
        ([1.0], [1.0], "1 energies and 1 values"),
        ([2.0, 1.0], [1.0, 1.0], "positive energies that rise"),
        ([1.0, 2.0], [1.0, -1.0], "no negative number"),
        ([1.0, np.nan], [1.0, 1.0], "finite numbers"),
        ([1.0, 2.0], "x", "not a list of numbers"),
    ],
)
def test_bad_tables_are_refused(energy: Any, values: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        TemplateSpectralModel(energy, values)


# --- links
def two_sources() -> Models:
    return Models(
        [
            SkyModel(PowerLawSpectralModel(index=2.0), PointSpatialModel(), "a"),
            SkyModel(PowerLawSpectralModel(index=3.0), PointSpatialModel(), "b"),
        ]
    )


def test_linked_parameters_are_one() -> None:
    models = two_sources()
    a, b = (m.spectral_model.index for m in models)
    models["b"].spectral_model.index = a  # as in Gammapy
    assert (b.value, b.leader) == (2.0, a)
    a.value = 2.2
    assert b.value == 2.2
    b.value, b.max, b.frozen = 2.4, 3.0, True
    assert (a.value, a.max, a.frozen) == (2.4, 3.0, True)
    b.frozen = False
    b.error = 0.1
    assert a.error == 0.1
    names = [(p.owner, p.name) for p in models.parameters.free_parameters]
    assert ("a", "index") in names and ("b", "index") not in names
    assert models.to_parameters_table()["link"].tolist().count("index@a") == 2
    b.link = None
    a.value = 2.0
    assert b.value == 2.4


@pytest.mark.parametrize(
    "twin_of", [copy.deepcopy, Models.copy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_copies_keep_their_own_links(twin_of: Any) -> None:
    models = two_sources()
    models["b"].spectral_model.index.link = models["a"].spectral_model.index
    twin = twin_of(models)
    twin["a"].spectral_model.index.value = 2.7
    assert twin["b"].spectral_model.index.value == 2.7
    assert models["b"].spectral_model.index.value == 2.0


def test_bad_links_are_refused() -> None:
    models = two_sources()
    a, b = (m.spectral_model for m in models)
    with pytest.raises(ModelError, match=r"b\.amplitude: cannot be linked to a\.index"):
        b.amplitude.link = a.index
    a.index.link = b.index
    with pytest.raises(ModelError, match=r"b\.index: cannot be linked to a\.index, which follows"):
        b.index.link = a.index


def test_a_linked_parameter_has_one_row_of_covariance() -> None:
    models = two_sources()
    models["b"].spectral_model.index.link = models["a"].spectral_model.index
    items = [models["a"].spectral_model.index, models["a"].spectral_model.amplitude]
    models.set_covariance(items, [[0.04, 1e-14], [1e-14, 1e-26]])
    names = [(p.owner, p.name) for p in models.parameters]
    i, k, m = (names.index(n) for n in (("a", "index"), ("b", "index"), ("a", "amplitude")))
    np.testing.assert_allclose(models.covariance[[i, k, i], [k, k, m]], [0.04, 0.04, 1e-14])
    assert models.covariance[k, m] == 1e-14
    assert models["b"].spectral_model.index.error == pytest.approx(0.2)


# --- priors
def test_priors_are_log_densities() -> None:
    stat, slope, curvature = GaussianPrior(mu=1.0, sigma=0.5, weight=2.0).penalty(1.3)
    expected = -2 * np.log(np.exp(-0.5 * 0.6**2) / np.sqrt(2 * np.pi * 0.25))
    assert (stat, slope, curvature) == pytest.approx((2 * expected, 2 * 2.4, 16.0))
    assert UniformPrior(1.0, 3.0).penalty(2.0)[0] == pytest.approx(2 * np.log(2))
    assert UniformPrior(1.0, 3.0).penalty(4.0)[0] == np.inf


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ("{type: LaplacePrior, parameters: []}", "'LaplacePrior' is not known"),
        ("{type: GaussianPrior}", "parameters: found None"),
        ("{type: GaussianPrior, parameters: [{name: mean, value: 1}]}", "a name out of mu, sigma"),
        ("{type: GaussianPrior, parameters: [{name: sigma, value: 0}]}", "expected more than 0"),
        ("{type: GaussianPrior, parameters: [{name: mu, value: x}]}", "not a finite number"),
        ("{type: UniformPrior, parameters: [{name: min, value: 2}]}", "expected min below max"),
        ("{type: UniformPrior, parameters: [], weight: -1}", "expected 0 or more"),
        ("{type: GaussianPrior, parameters: [{name: mu, value: 1, unit: s}]}", "not convertible"),
        ("7", "expected a mapping"),
    ],
)
def test_bad_priors_are_refused_with_their_place(prior: str, message: str) -> None:
    text = (
        "components: [{name: a, type: SkyModel, spatial: {type: point}, spectral: {type: pl, "
        f"parameters: [{{name: index, value: 2, prior: {prior}}}]}}}}]"
    )
    with pytest.raises(ModelError, match=message) as caught:
        Models.from_yaml(text)
    assert "components[0] (a).spectral.parameters[0] (index).prior" in str(caught.value)


# --- files
def whole() -> Models:
    """Every spectrum, a link, priors and a background."""
    spectra = [
        PowerLawSpectralModel(index=2.3),
        PowerLaw2SpectralModel(index=2.1, amplitude=2e-12),
        ExpCutoffPowerLawSpectralModel(lambda_="0.3 TeV-1", alpha=0.8),
        LogParabolaSpectralModel(alpha=2.2, beta=0.2),
        ConstantSpectralModel(const=3e-12),
        TemplateSpectralModel(*TABLE, norm=1.4, tilt=0.3),
        TemplateSpectralModel(*TABLE),
    ]
    models = Models(
        SkyModel(s, PointSpatialModel("galactic"), f"m{i}", "d1") for i, s in enumerate(spectra)
    )
    models["m6"].spectral_model.norm.frozen = True
    models["m1"].spectral_model.index = models["m0"].spectral_model.index
    models["m0"].spectral_model.index.prior = GaussianPrior(2.2, 0.1)
    models["m2"].spectral_model.index.prior = UniformPrior(1.0, 3.0)
    models.append(FoVBackgroundModel(dataset_name="d1"))
    models["d1-bkg"].spectral_model.tilt.frozen = False
    return models


def test_yaml_comes_back_as_it_was() -> None:
    models = whole()
    back = Models.from_yaml(models.to_yaml())
    assert back.to_yaml(full_output=True) == models.to_yaml(full_output=True)
    assert back["m1"].spectral_model.index.leader is back["m0"].spectral_model.index
    assert back["m2"].spectral_model.index.prior == UniformPrior(1.0, 3.0)


def test_files_cross_to_gammapy_and_back(tmp_path: Path, gammapy: Any) -> None:
    models = whole()
    rng = np.random.default_rng(1)
    free = models.parameters.free_parameters
    root = rng.normal(size=(len(free), len(free)))
    scale = np.array([0.03 * max(abs(p.value), 1e-12) for p in free])
    models.set_covariance(free, root @ root.T * np.outer(scale, scale))
    models.write(tmp_path / "ours.yaml")
    code = """
import sys, json, numpy as np, astropy.units as u
from gammapy.modeling.models import Models
models = Models.read(sys.argv[1])
bins = np.geomspace(0.1, 30, 40) * u.TeV
def flux(m):
    fine = np.geomspace(0.1, 30, 20001)
    e = fine * u.TeV
    d = m.spectral_model(e).to_value("cm-2 s-1 TeV-1")
    return float(np.sum((d[1:] * fine[1:] + d[:-1] * fine[:-1]) / 2 * np.diff(np.log(fine))))
models.write(sys.argv[2], overwrite=True)
def peers(name):
    return float(models[name].spectral_model.integral(0.4 * u.TeV, 5 * u.TeV).to_value("cm-2 s-1"))
print(json.dumps({
    "linked": models["m0"].spectral_model.index is models["m1"].spectral_model.index,
    "prior": float(models["m0"].spectral_model.index.prior_stat_sum()),
    "uniform": float(models["m2"].spectral_model.index.prior_stat_sum()),
    "error": float(models["m0"].spectral_model.index.error),
    "covariance": np.asarray(models.covariance.data).tolist(),
    "flux": {m.name: flux(m) for m in models if m.name.startswith("m")},
    "closed": {n: peers(n) for n in ("m0", "m1")},
    "tilt": bool(models["d1-bkg"].spectral_model.tilt.frozen),
}))
"""
    found = gammapy(code, tmp_path / "ours.yaml", tmp_path / "theirs.yaml")
    index = models["m0"].spectral_model.index
    assert found["linked"] and not found["tilt"]
    assert found["prior"] == pytest.approx(index.prior.penalty(index.value)[0])
    assert found["uniform"] == pytest.approx(2 * np.log(2))
    assert found["error"] == pytest.approx(index.error)
    for name, flux in found["flux"].items():
        assert models[name].spectral_model.integral(0.1, 30.0) == pytest.approx(flux, rel=1e-6)
    for name, flux in found["closed"].items():
        assert models[name].spectral_model.integral(0.4, 5.0) == pytest.approx(flux, rel=1e-9)
    back = Models.read(tmp_path / "theirs.yaml")
    assert back.names == models.names
    assert back["m1"].spectral_model.index.leader is back["m0"].spectral_model.index
    assert back["m0"].spectral_model.index.prior == GaussianPrior(2.2, 0.1)
    np.testing.assert_allclose(back.parameters.value, models.parameters.value, rtol=1e-12)
    np.testing.assert_allclose(
        [p.error for p in back.parameters], [p.error for p in models.parameters], rtol=1e-9
    )
