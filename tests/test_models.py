"""Models: parameters that refuse bad values, spectra against quadrature, files as Gammapy's."""

from __future__ import annotations

import contextlib
import copy
import gc
import itertools
import pickle
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from imgfit_widgets.core.errors import ModelError
from imgfit_widgets.core.models import (
    FoVBackgroundModel,
    GaussianSpatialModel,
    Models,
    Parameter,
    PointSpatialModel,
    PowerLaw2SpectralModel,
    PowerLawNormSpectralModel,
    PowerLawSpectralModel,
    SkyModel,
)


def source(name: str = "src", **spatial: Any) -> SkyModel:
    return SkyModel(PowerLaw2SpectralModel(), PointSpatialModel(**spatial), name=name)


# --- parameters
@pytest.mark.parametrize(
    ("name", "trait", "value", "message"),
    [
        ("lon_0", "value", "abc", "src.lon_0: value 'abc' is not a number; expected one in 'deg'"),
        ("lon_0", "value", "1 TeV", "src.lon_0: value '1 TeV' cannot be converted to 'deg'"),
        ("lon_0", "value", np.nan, "src.lon_0: value nan is not a finite number"),
        ("lon_0", "value", True, "src.lon_0: value True is not a number"),
        ("lat_0", "value", 91, "src.lat_0: value 91 is outside its limits; expected a number from"),
        ("lat_0", "min", 5, "src.lat_0: min 5 is above the value 0"),
        ("lat_0", "max", -5, "src.lat_0: max -5 is below the value 0"),
        ("lat_0", "error", -1, "src.lat_0: error -1 is negative"),
        ("amplitude", "unit", "TeV", "src.amplitude: unit 'TeV' cannot be converted to"),
        ("amplitude", "unit", "foo", "src.amplitude: unit 'foo' is not a unit"),
        ("lon_0", "link", 3, "src.lon_0: link 3 is no parameter"),
    ],
)
def test_bad_assignment_is_refused_by_name(name: str, trait: str, value: Any, message: str) -> None:
    parameter = source().parameters[name]
    before = getattr(parameter, trait)
    with pytest.raises(ModelError) as caught:
        setattr(parameter, trait, value)
    assert str(caught.value).startswith(message)
    after = getattr(parameter, trait)
    assert after == before or (np.isnan(after) and np.isnan(before))


def test_values_take_text_and_quantities() -> None:
    lon = source().spatial_model.lon_0
    lon.value = "0.5"
    assert lon.value == 0.5
    lon.value = "30 arcmin"
    assert lon.value == pytest.approx(0.5)
    lon.quantity = 1.0 * u.rad
    assert lon.quantity.to_value("deg") == pytest.approx(np.degrees(1.0))
    model = GaussianSpatialModel(lon_0="0.1 rad", sigma=0.2)
    assert model.lon_0.unit == u.rad
    assert model.position.data.lon.deg == pytest.approx(np.degrees(0.1))


def test_limits_in_another_unit_follow_it() -> None:
    lat = PointSpatialModel(lat_0="1 rad").lat_0
    assert (lat.min, lat.max) == pytest.approx((-np.pi / 2, np.pi / 2))


def test_a_parameter_cannot_be_overwritten() -> None:
    model = source()
    with pytest.raises(ModelError, match=r"src\.lon_0: cannot be replaced by 3"):
        model.spatial_model.lon_0 = 3  # type: ignore[assignment]
    with pytest.raises(ModelError, match="PointSpatialModel: no parameter 'sigma'"):
        PointSpatialModel(sigma=1)
    with pytest.raises(ModelError, match=r"src\.foo: no such parameter; expected one of amplitude"):
        model.parameters["foo"]


def test_parameters_notify_and_follow_the_name() -> None:
    seen = []
    model = source()
    model.parameters["lon_0"].observe(lambda change: seen.append(change["new"]), "value")
    model.parameters["lon_0"].value = 2
    assert seen == [2.0]
    model.name = "new"
    assert model.parameters["lon_0"].label == "new.lon_0"


# --- spectra
@pytest.mark.parametrize("index", [0.5, 1.0, 1.0 + 1e-9, 2.0, 3.3])
@pytest.mark.parametrize("kind", [PowerLawSpectralModel, PowerLaw2SpectralModel])
def test_integrals_and_slopes_of_power_laws(kind: Any, index: float) -> None:
    extra = {"reference": 2.0} if kind is PowerLawSpectralModel else {"emin": 0.2, "emax": 20.0}
    model = kind(index=index, amplitude=3e-12, **extra)
    low, high = np.array([0.3, 1.0]), np.array([0.9, 7.0])
    for a, b, flux in zip(low, high, model.integral(low, high), strict=True):
        points = np.geomspace(a, b, 40)
        parts = [
            quad(lambda e: float(model.evaluate(e)), p, q, epsabs=0)[0]
            for p, q in itertools.pairwise(points)
        ]
        assert flux == pytest.approx(sum(parts), rel=1e-9)
    values = model.canonical_values()
    slopes = model.integral_values(values, low, high)[1]
    for i, value in enumerate(values):
        step = np.zeros(len(values))
        step[i] = 1e-5 * value
        ends = [model.integral_values(values + sign * step, low, high)[0] for sign in (1, -1)]
        np.testing.assert_allclose(slopes[i], (ends[0] - ends[1]) / (2 * step[i]), rtol=1e-6)


def test_power_law_2_amplitude_is_the_flux_between_its_energies() -> None:
    model = PowerLaw2SpectralModel(amplitude="3e-7 m-2 s-1", emin="100 GeV", emax="10 TeV")
    assert model.integral("0.1 TeV", "10 TeV").to_value("cm-2 s-1") == pytest.approx(3e-11)
    assert model(1 * u.TeV).unit == u.Unit("cm-2 s-1 TeV-1")


def test_background_norm_falls_by_its_tilt() -> None:
    model = PowerLawNormSpectralModel(norm=2.0, tilt=0.5, reference="2 TeV")
    np.testing.assert_allclose(model.evaluate([2.0, 8.0]), [2.0, 1.0])


# --- shapes
def test_gaussian_holds_one_and_its_outline_is_one_sigma_away() -> None:
    model = GaussianSpatialModel(frame="galactic", lon_0=10, lat_0=60, sigma=2.0)
    ((label, lon, lat),) = model.outline()
    assert label == "1σ"
    at = model.position
    from astropy.coordinates import SkyCoord

    edge = SkyCoord(lon, lat, unit="deg", frame="galactic")
    np.testing.assert_allclose(edge.separation(at).deg, 2.0, atol=1e-9)
    lon_g, lat_g = np.meshgrid(np.linspace(-30, 50, 801), np.linspace(48, 72, 481))
    cell = np.radians(0.1) * np.radians(0.05) * np.cos(np.radians(lat_g))
    assert (model.evaluate(lon_g, lat_g) * cell).sum() == pytest.approx(1.0, abs=2e-4)
    assert model.evaluation_radius == 10 * u.deg
    assert PointSpatialModel().outline() == []


def test_new_at_puts_a_model_of_default_shape() -> None:
    model = GaussianSpatialModel.new_at(1.0, 2.0, "galactic")
    assert (model.lon_0.value, model.lat_0.value, model.frame) == (1.0, 2.0, "galactic")
    assert model.size_parameter == "sigma"
    with pytest.raises(ModelError, match="frame 'fk4' is not known; expected icrs or galactic"):
        PointSpatialModel(frame="fk4")


# --- the collection
def test_models_are_found_by_name_and_position() -> None:
    models = Models([source("a"), source("b")])
    assert models["b"] is models[1]
    assert models.names == ["a", "b"]
    with pytest.raises(ModelError, match="c: no such model; there are: a, b"):
        models["c"]
    with pytest.raises(ModelError, match="a: this name is used twice"):
        models.append(source("a"))
    seen = []
    models.observe(lambda change: seen.append(len(change["new"])), "components")
    models.append(FoVBackgroundModel(dataset_name="x"))
    models.remove("a")
    models.insert(0, source("c"))
    assert seen == [3, 2, 3]
    assert models.names == ["c", "b", "x-bkg"]
    assert models.background_model("x") is models["x-bkg"]
    assert models.background_model("y") is None
    assert models.unique_name() == "source-1"


def test_a_rename_to_a_taken_name_is_refused_and_the_old_one_stays() -> None:
    """Two components of one name were mixed up by the likelihood."""
    models = Models([source("a"), source("b"), FoVBackgroundModel(dataset_name="x")])
    for other in ("a", "x-bkg"):
        message = f"b: cannot be renamed to {other}: this name is taken"
        with pytest.raises(ModelError, match=message):
            models["b"].name = other
        with pytest.raises(ModelError, match=message), models["b"].hold_trait_notifications():
            models["b"].name = other
    for bad in ("", "  ", 3, None):
        with pytest.raises(ModelError, match=f"b: name {bad!r} cannot be used"):
            models["b"].name = bad
    assert models.names == ["a", "b", "x-bkg"]
    assert {p.owner for p in models["b"].parameters} == {"b"}
    models["b"].name = "c"
    gone = models["a"]
    models.remove("a")
    gone.name = "c"
    models["c"].name = "a"
    assert models.names == ["a", "x-bkg"]


def test_a_part_that_two_models_share_is_refused() -> None:
    """The parameters of a shared part carry one model's name; the other's were a KeyError."""
    a, b = source("a"), source("b")
    models = Models([a, b])
    with pytest.raises(ModelError, match="b: its spatial model is that of a too; each model needs"):
        b.spatial_model = a.spatial_model
    with pytest.raises(ModelError, match="b: its spectral model is that of a too"):
        b.spectral_model = a.spectral_model
    shared = SkyModel(a.spectral_model, PointSpatialModel(), "c")
    with pytest.raises(ModelError, match="c: its spectral model is that of a too"):
        models.append(shared)
    assert models.names == ["a", "b"]
    backgrounds = [FoVBackgroundModel(dataset_name=name) for name in "xy"]
    with pytest.raises(ModelError, match="y-bkg: its spectral model is that of x-bkg too"):
        backgrounds[1].spectral_model = backgrounds[0].spectral_model
        Models(backgrounds)


def test_a_new_part_carries_the_name_and_none_is_no_part() -> None:
    model = FoVBackgroundModel(dataset_name="x")
    model.spectral_model = PowerLawNormSpectralModel(norm=2)
    assert model.parameters["norm"].label == "x-bkg.norm"
    with pytest.raises(ModelError, match="x-bkg: spectral_model None is not supported"):
        model.spectral_model = None
    with pytest.raises(ModelError, match="src: spatial_model None is no spatial model"):
        SkyModel(PowerLawSpectralModel(), name="src")


def test_collections_made_for_a_moment_leave_nothing_behind() -> None:
    """Each of them left two handlers on every source for good."""
    model = source("a")
    before = sum(map(len, model._trait_notifiers.values()))
    gc.disable()
    try:
        for _ in range(20):
            Models([model, source("b")])
        assert len(model.collections) == 0
    finally:
        gc.enable()
    assert sum(map(len, model._trait_notifiers.values())) == before
    model.name = "b"


def test_pickled_and_deeply_copied_models_keep_their_rules() -> None:
    models = Models([source("a"), source("b")])
    for twin in (pickle.loads(pickle.dumps(models)), copy.deepcopy(models)):
        seen: list[str] = []
        twin.observe(lambda change, seen=seen: seen.append(change["name"]), "components")
        twin["a"].spatial_model = GaussianSpatialModel()
        assert seen == ["components"]
        with pytest.raises(ModelError, match="b: cannot be renamed to a"):
            twin["b"].name = "a"


def test_a_copy_shares_nothing() -> None:
    models = Models([source("a", lon_0=1.0)])
    models.set_covariance(models.parameters, np.diag(np.arange(1.0, 7.0)))
    models["a"].parameters["lat_0"].max = 5
    twin = models.copy()
    twin["a"].parameters["lon_0"].value = 7
    assert models["a"].parameters["lon_0"].value == 1
    assert twin["a"].parameters["lat_0"].max == 5
    np.testing.assert_array_equal(twin.covariance, models.covariance)
    assert twin.to_dict() != models.to_dict()


def test_covariance_survives_a_changed_list() -> None:
    models = Models([source("a")])
    matrix = np.full((6, 6), 0.5) + np.diag(np.ones(6))
    models.covariance = matrix
    assert models.parameters["lon_0"].error == pytest.approx(np.sqrt(1.5))
    models.insert(0, FoVBackgroundModel(dataset_name="x"))
    np.testing.assert_array_equal(models.covariance[3:, 3:], matrix)
    assert not models.covariance[:3].any()
    with pytest.raises(ModelError, match=r"covariance: shape \(2, 2\) does not fit 9 parameters"):
        models.covariance = np.eye(2)


def test_parameters_table_and_print_are_those_of_the_field(reference: Path) -> None:
    models = Models.read(reference / "formats" / "A_models_fitted.yaml")
    table = models.to_parameters_table()
    expected = ["model", "type", "name", "value", "unit", "error", "min", "max", "frozen"]
    assert table.colnames[:9] == expected
    assert len(table) == 9
    assert table["value"][0] == pytest.approx(2.969980597830714e-11)
    assert table["unit"][0] == "s-1 cm-2"
    text = str(models)
    for line in (
        "Component 0: SkyModel",
        "  Name                      : GC-1",
        "  Spatial  model type       : PointSpatialModel",
        "    index                 (frozen):      2.000",
        "    amplitude                     :   2.97e-11   +/- 1.5e-12 1 / (s cm2)",
        "  Datasets names            : ['stacked']",
    ):
        assert line in text


# --- files
def test_yaml_numbers_without_a_dot_are_numbers() -> None:
    models = Models.from_yaml(
        """
        - name: a
          type: SkyModel
          spatial: {type: point, parameters: [{name: lon_0, value: 1e-1, min: -1e0}]}
          spectral: {type: pl-2, parameters: [{name: amplitude, value: 1e-12}]}
        """
    )
    assert models.parameters["amplitude"].value == 1e-12
    assert (models.parameters["lon_0"].value, models.parameters["lon_0"].min) == (0.1, -1.0)


SOURCE = "- {{name: a, type: SkyModel, spatial: {spatial}, spectral: {spectral}}}"
POINT, LAW = "{type: point}", "{type: pl}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "models: line 1, column 5: not valid YAML"),
        ("components: 3", "components: found int; expected a list of models"),
        ("{}", "components: found nothing"),
        ("[3]", "components[0]: found 3; expected a mapping"),
        ("component: []", "models.component: 'component' is not known; did you mean 'components'?"),
        (
            SOURCE.format(spatial="{type: PontSpatialModel}", spectral=LAW),
            "components[0] (a).spatial.type: 'PontSpatialModel' is not known; did you mean "
            "'PointSpatialModel'?",
        ),
        (
            SOURCE.format(spatial="{type: point, parameters: [{name: lon}]}", spectral=LAW),
            "components[0] (a).spatial.parameters[0].name: 'lon' is not known; did you mean",
        ),
        (
            SOURCE.format(
                spatial="{type: point, parameters: [{name: lon_0, value: x}]}", spectral=LAW
            ),
            "components[0] (a).spatial.parameters[0] (lon_0): value 'x' is not a number",
        ),
        (
            SOURCE.format(
                spatial="{type: point, parameters: [{name: lon_0, unit: TeV}]}", spectral=LAW
            ),
            "components[0] (a).spatial.parameters[0] (lon_0): unit 'TeV' cannot be converted",
        ),
        (
            SOURCE.format(
                spatial="{type: point, parameters: [{name: lon_0, link: [x]}]}", spectral=LAW
            ),
            "components[0] (a).spatial.parameters[0] (lon_0).link: found ['x']; expected a label",
        ),
        (
            SOURCE.format(spatial="{type: point, frame: fk4}", spectral=LAW),
            "components[0] (a).spatial: PointSpatialModel: frame 'fk4' is not known",
        ),
        ("- {name: a, spectral: {type: pl}}", "components[0] (a).spatial: missing"),
        (
            SOURCE.format(
                spatial="{type: point, parameters: [{name: lon_0}, {name: lon_0}]}", spectral=LAW
            ),
            "components[0] (a).spatial.parameters[1] (lon_0): this parameter is given twice",
        ),
        (
            SOURCE.format(
                spatial="{type: point, parameters: [{name: lon_0, prior: {type: x}}]}", spectral=LAW
            ),
            "components[0] (a).spatial.parameters[0] (lon_0).prior: type: 'x' is not known",
        ),
        (
            SOURCE.format(
                spatial="{type: point, parameters: [{name: lon_0, unit: 5}]}", spectral=LAW
            ),
            "components[0] (a).spatial.parameters[0] (lon_0).unit: found 5; expected a text",
        ),
        (SOURCE.format(spatial="[1]", spectral=LAW), "components[0] (a).spatial: found [1]"),
        (SOURCE.format(spatial="{type: [x]}", spectral=LAW), "components[0] (a).spatial.type: ['x"),
        (
            SOURCE.format(spatial="{type: point, parameters: 0}", spectral=LAW),
            "components[0] (a).spatial.parameters: found 0; expected a list",
        ),
        ("- {name: a, type: [x]}", "components[0] (a).type: ['x'] is not known"),
        ("- {name: [a]}", "components[0].name: found ['a']; expected a text"),
        ("- {name: a, apply_irf: true}", "components[0] (a).apply_irf: found True; expected a map"),
        ("- {name: a, apply_irf: [psf]}", "components[0] (a).apply_irf: found ['psf']"),
        ("- {name: a, apply_irf: {psf: 1}}", "components[0] (a).apply_irf.psf: found 1; expected"),
        (
            "- {name: a, apply_irf: {psf: false}}",
            "components[0] (a).apply_irf.psf: switching off a response is not supported",
        ),
        ("- {name: a, datasets_names: 5}", "components[0] (a).datasets_names: found 5; expected a"),
        ("- {name: a, datasets_names: [[b]]}", "components[0] (a).datasets_names: found [['b']]"),
        ("- {name: a, datasets_names: []}", "components[0] (a).datasets_names: found []"),
        ("components: []\ncovariance: [x]", "covariance: found ['x']; expected the name of a file"),
        (
            "components: []\ncomponents: []",
            "models: line 2, column 1: not valid YAML: the key 'components' is given twice, first "
            "in line 1",
        ),
        ("- {type: FoVBackgroundModel}", "components[0].datasets_names: found None"),
        (
            "- {type: SkyModel, temporal: {type: x}}",
            "components[0].temporal: temporal models are not supported",
        ),
    ],
)
def test_bad_yaml_is_one_message_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        Models.from_yaml(text)
    assert str(caught.value).startswith(message)


def test_a_key_that_a_merge_brings_may_be_given_again() -> None:
    models = Models.from_yaml(
        """
        components:
        - &one {name: a, spatial: {type: point}, spectral: {type: pl}}
        - &two {<<: *one, name: b}
        - {<<: *two, name: c}
        """
    )
    assert models.names == ["a", "b", "c"]


def test_a_covariance_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    Models([source()]).write(path)
    for content, reason in ((b"\xff", "not a text file"), (b"", "is not a table of 0")):
        (tmp_path / "m_covariance.dat").write_bytes(content)
        with pytest.raises(ModelError, match=rf"covariance: .*m_covariance\.dat .*{reason}"):
            Models.read(path)


def test_text_that_names_a_covariance_says_that_it_is_not_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    Models.from_yaml("{components: [], covariance: m.dat}")
    assert caplog.messages == [
        "covariance: 'm.dat' is not read, because these models come from no file"
    ]


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(deadline=None)
@given(place=st.integers(min_value=0), junk=JUNK)
def test_no_value_breaks_the_reader_in_another_way(place: int, junk: Any) -> None:
    """Wrong types ended in an AttributeError or a TypeError."""
    models = Models([source("a"), FoVBackgroundModel(dataset_name="x")])
    data = models.to_dict(full_output=True)
    data["components"][0] |= {"apply_irf": {"psf": True}, "datasets_names": ["x"]}
    places = list(holders(data))
    holder, key = places[place % len(places)]
    holder[key] = junk
    with contextlib.suppress(ModelError):
        Models.from_dict(data)


def holders(data: Any) -> Any:
    """Everything in nested lists and mappings: what it lies in, and its key there."""
    if isinstance(data, (dict, list)):
        for key in data if isinstance(data, dict) else range(len(data)):
            yield data, key
            yield from holders(data[key])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.yaml: models file cannot be read: No such file"):
        Models.read(tmp_path / "none.yaml")


def test_files_of_gammapy_round_trip(reference: Path, tmp_path: Path) -> None:
    path = reference / "formats" / "A_models_fitted.yaml"
    models = Models.read(path)
    assert models.covariance[0, 4] == pytest.approx(1.756325900829702e-16)
    models.write(tmp_path / "models.yaml")
    with pytest.raises(ModelError, match="the file exists; give overwrite=True"):
        models.write(tmp_path / "models.yaml")
    ours = yaml.safe_load((tmp_path / "models.yaml").read_text())
    theirs = yaml.safe_load(path.read_text())
    assert ours["components"] == theirs["components"]
    again = Models.read(tmp_path / "models.yaml")
    np.testing.assert_array_equal(again.covariance, models.covariance)
    dat = (path.parent / "A_models_fitted_covariance.dat").read_text()
    assert (tmp_path / "models_covariance.dat").read_text() == dat


def test_gammapy_reads_what_is_written(gammapy: Any, tmp_path: Path) -> None:
    spatial = GaussianSpatialModel(frame="icrs", lon_0=83.6, lat_0=22.0, sigma="0.1 deg")
    spatial.sigma.max = 2.0
    models = Models(
        [
            SkyModel(PowerLawSpectralModel(index=2.3), spatial, "crab", ["a"]),
            FoVBackgroundModel(dataset_name="a"),
        ]
    )
    free = models.parameters.free_parameters
    rng = np.random.default_rng(1)
    root = rng.normal(size=(len(free), len(free)))
    models.set_covariance(free, root @ root.T)
    models.write(tmp_path / "m.yaml")
    found = gammapy(
        "import json, sys; from gammapy.modeling.models import Models;"
        "m = Models.read(sys.argv[1]); p = m.parameters;"
        "print(json.dumps({'names': p.names, 'value': list(p.value),"
        "'error': [q.error for q in p], 'frozen': [q.frozen for q in p],"
        "'max': [q.max for q in p], 'cov': m.covariance.data.tolist(),"
        "'models': m.names, 'sets': [list(c.datasets_names) for c in m]}))",
        tmp_path / "m.yaml",
    )
    parameters = models.parameters
    assert found["names"] == parameters.names
    assert found["models"] == ["crab", "a-bkg"]
    assert found["sets"] == [["a"], ["a"]]
    assert found["frozen"] == [p.frozen for p in parameters]
    np.testing.assert_allclose(found["value"], parameters.value)
    np.testing.assert_allclose(found["error"], [p.error for p in parameters])
    np.testing.assert_array_equal(found["max"], [p.max for p in parameters])
    np.testing.assert_allclose(found["cov"], models.covariance)


def test_full_output_reads_back() -> None:
    models = Models([source("a", lon_0=3.0)])
    text = models.to_yaml(full_output=True)
    assert "min: -90.0" in text
    assert Models.from_yaml(text).to_yaml(full_output=True) == text


def test_parameter_prints_what_it_is() -> None:
    parameter = Parameter("x", 1.5, "deg", error=0.1, frozen=True)
    assert repr(parameter) == "Parameter(x = 1.5 +/- 0.1 deg, frozen)"
