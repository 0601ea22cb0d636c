"""AnalysisConfig: Gammapy's YAML both ways, and errors that name the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import astropy.units as u
import pytest
import traitlets
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from imgfit_widgets.core.config import AnalysisConfig
from imgfit_widgets.core.data import DataStore
from imgfit_widgets.core.errors import ConfigError, ImgfitError


def built_by_attributes() -> AnalysisConfig:
    """The tutorial's configuration, built as the tutorial builds it."""
    config = AnalysisConfig()
    config.observations.datastore = "$GAMMAPY_DATA/cta-1dc/index/gps/"
    config.observations.obs_ids = [110380, 111140, 111159]
    config.datasets.type = "3d"
    config.datasets.geom.wcs.skydir = {"lon": "0 deg", "lat": "0 deg", "frame": "galactic"}
    config.datasets.geom.wcs.fov = {"width": "8 deg", "height": "6 deg"}
    config.datasets.geom.wcs.binsize = "0.02 deg"
    config.datasets.geom.selection.offset_max = 2.5 * u.deg
    config.datasets.safe_mask.methods = ["offset-max"]
    config.datasets.safe_mask.parameters = {"offset_max": 2.5 * u.deg}
    config.datasets.background.method = "fov_background"
    config.fit.fit_range = {"min": "0.1 TeV", "max": "30.0 TeV"}
    config.datasets.geom.axes.energy.min = "0.1 TeV"
    config.datasets.geom.axes.energy.max = "10 TeV"
    config.datasets.geom.axes.energy.nbins = 1
    config.datasets.geom.axes.energy_true = {"min": "0.1 TeV", "max": "10 TeV", "nbins": 30}
    config.datasets.geom.wcs.binsize_irf = 0.2 * u.deg
    return config


def test_the_tutorial_builds_what_the_files_say(reference: Path) -> None:
    formats = reference / "formats"
    built = built_by_attributes()
    assert built.to_dict() == AnalysisConfig.read(formats / "A_config_input.yaml").to_dict()
    theirs = yaml.safe_load((formats / "A_config_written_by_gammapy.yaml").read_text())
    del theirs["metadata"]
    theirs["general"]["log"]["level"] = "info"
    assert built.to_dict() == theirs
    assert list(built.to_dict()) == list(theirs)
    built.check_supported()


def test_print_shows_the_yaml_indented() -> None:
    lines = str(built_by_attributes()).splitlines()
    assert lines[:4] == ["AnalysisConfig", "", "    general:", "        log:"]
    assert "                binsize: 0.02 deg" in lines


def test_yaml_round_trip_keeps_every_value() -> None:
    config = built_by_attributes()
    config.observations.obs_time = {"start": "2020-01-01", "stop": "2020-01-02 10:00:00"}
    config.datasets.background.exclusion = "masks/gc.fits"
    config.general.n_jobs = 4
    again = AnalysisConfig.from_yaml(config.to_yaml())
    assert again.to_dict() == config.to_dict()
    assert str(again.observations.datastore) == "$GAMMAPY_DATA/cta-1dc/index/gps"


def test_keys_of_version_0_18_are_read() -> None:
    text = "datasets: {geom: {wcs: {fov: {width: 8.0 deg, height: 6.0 deg}}}}"
    config = AnalysisConfig.from_yaml(text)
    assert config.datasets.geom.wcs.width.width == 8 * u.deg
    assert config.datasets.geom.wcs.fov is config.datasets.geom.wcs.width
    both = "datasets: {geom: {wcs: {fov: {width: 8 deg}, width: {width: 7 deg}}}}"
    with pytest.raises(ConfigError, match=r"datasets\.geom\.wcs\.fov: .* older name"):
        AnalysisConfig.from_yaml(both)


def test_gammapy_reads_ours_and_we_read_its(gammapy: Any, tmp_path: Path) -> None:
    config = built_by_attributes()
    config.datasets.geom.wcs.skydir.lon = "5h34m"
    config.datasets.geom.wcs.binsize_irf = 1e-5 * u.deg
    config.write(tmp_path / "ours.yaml")
    code = """
import json, sys
from gammapy.analysis import AnalysisConfig
config = AnalysisConfig.read(sys.argv[1])
config.write(sys.argv[2])
print(json.dumps(json.loads(config.model_dump_json())))
"""
    theirs = gammapy(code, tmp_path / "ours.yaml", tmp_path / "theirs.yaml")
    ours = config.to_dict()
    wcs = theirs["datasets"]["geom"]["wcs"]
    assert wcs["binsize_irf"] == "1e-05 deg"  # the same, in a spelling that Gammapy cannot read
    wcs["binsize_irf"] = "0.00001 deg"
    # Gammapy expands the variable when it is set.
    del theirs["observations"]["datastore"], ours["observations"]["datastore"]
    assert theirs == ours
    again = AnalysisConfig.read(tmp_path / "theirs.yaml").to_dict()
    assert ours["datasets"]["geom"]["wcs"]["binsize_irf"] == "0.00001 deg"
    del again["observations"]["datastore"]
    assert again == ours


def test_defaults_are_those_of_gammapy(gammapy: Any) -> None:
    code = "from gammapy.analysis import AnalysisConfig as A; print(A().model_dump_json())"
    theirs, ours = gammapy(code), AnalysisConfig().to_dict()
    theirs["observations"]["datastore"] = ours["observations"]["datastore"]
    assert ours == theirs


BAD = [
    ("datasets.geom.wcs.binsize", "0.02 TeV", "TeV is not the unit of an angle"),
    ("datasets.geom.wcs.binsize", "0.02", "it has no unit"),
    ("datasets.geom.wcs.binsize", 0.02, "it has no unit"),
    ("datasets.geom.wcs.binsize", "-0.02 deg", "not above 0"),
    ("datasets.geom.wcs.binsize", "0 deg", "not above 0"),
    ("datasets.geom.wcs.binsize", "nan deg", "not a finite number"),
    ("datasets.geom.wcs.binsize", [1, 2] * u.deg, "a single number"),
    ("datasets.geom.wcs.binsize", None, "expected an angle"),
    ("datasets.geom.wcs.binsize", 10**400, "expected an angle"),
    ("observations.obs_time.start", {"a": 1}, "a date and time"),
    ("datasets.geom.wcs.binsize", "wide", "expected an angle"),
    ("datasets.geom.wcs.skydir.lat", "91 deg", "from -90 to 90 deg"),
    ("datasets.geom.wcs.skydir.frame", "galctic", "did you mean 'galactic'"),
    ("datasets.geom.axes.energy.min", "1 deg", "deg is not the unit of an energy"),
    ("datasets.geom.axes.energy.nbins", 0, "from 1 up"),
    ("datasets.geom.axes.energy.nbins", 1.5, "a whole number"),
    ("datasets.geom.axes.energy.nbins", True, "a whole number"),
    ("datasets.stack", "perhaps", "true or false"),
    ("datasets.safe_mask.methods", ["offset_max"], "did you mean 'offset-max'"),
    ("datasets.safe_mask.parameters", [1], "a mapping"),
    ("observations.obs_ids", "110380, x", "'x' is not a whole number"),
    ("observations.obs_ids", [1, 1], "1 stands there twice"),
    ("observations.obs_time.start", "yesterday", "a date and time"),
    ("observations.datastore", "", "a path"),
]


@pytest.mark.parametrize(("path", "value", "reason"), BAD)
def test_a_bad_value_is_refused_by_path_and_the_old_one_stays(
    path: str, value: Any, reason: str
) -> None:
    config = built_by_attributes()
    before = config.to_dict()
    with pytest.raises(ConfigError) as caught:
        config.set(path, value)
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)
    assert "expected" in str(caught.value)
    assert config.to_dict() == before


BAD_KEYS = [
    ("datasets: {geom: {wcs: {binsz: 0.1 deg}}}", "datasets.geom.wcs.binsz", "wcs.binsize?"),
    ("datasets: {geom: {binsize: 0.1 deg}}", "datasets.geom.binsize", "datasets.geom.wcs.binsize"),
    ("dataset: {stack: true}", "dataset", "did you mean datasets?"),
    ("datasets: {geom: {wcs: {width: 8 deg}}}", "datasets.geom.wcs.width", "width, height"),
    ("general: {log: {lvl: info}}", "general.log.lvl", "general.log.level"),
    ("datasets: {geom: {axes: {energy: {min: 10 TeV, max: 1 TeV}}}}",
     "datasets.geom.axes.energy", "min 10.0 TeV is not below max 1.0 TeV"),
    ("fit: {fit_range: {min: 2 TeV, max: 2 TeV}}", "fit.fit_range", "not below"),
    ("observations: {obs_time: {start: 2020-01-02, stop: 2020-01-01}}",
     "observations.obs_time", "is not before"),
    ("datasets: [", "configuration", "not valid YAML in line 1"),
    ("fit: {}\ngeneral: {}\nfit: {}", "configuration",
     "not valid YAML in line 3, column 1: the key 'fit' is given twice, first in line 1"),
    ("observations: {obs_time: {start: 2020-13-01}}", "configuration",
     "not valid YAML in line 1, column 34: month must be in 1..12"),
    ("[" * 5000, "configuration", "nested too deeply"),
    ("- 1", "configuration", "expected a mapping"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "path", "hint"), BAD_KEYS)
def test_a_bad_file_names_the_key_and_the_nearest_right_one(
    text: str, path: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        AnalysisConfig.from_yaml(text)
    assert str(caught.value).startswith(f"{path}: ")
    assert hint in str(caught.value)
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.yaml: "):
        AnalysisConfig.read(file)


def test_assigning_an_unknown_attribute_is_an_error() -> None:
    config = AnalysisConfig()
    with pytest.raises(ConfigError, match=r"did you mean datasets\.geom\.wcs\.binsize\?"):
        config.datasets.geom.wcs.binsz = "0.1 deg"
    with pytest.raises(AttributeError, match=r"did you mean datasets\.geom\.wcs\.binsize\?"):
        _ = config.datasets.geom.wcs.binsz


def test_a_bad_mapping_changes_nothing_of_its_section() -> None:
    config = built_by_attributes()
    before = config.to_dict()
    with pytest.raises(ConfigError, match=r"datasets\.geom\.wcs\.width\.height"):
        config.datasets.geom.wcs.width = {"width": "3 deg", "height": "3 TeV"}
    assert config.to_dict() == before


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_an_unreadable_file_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        AnalysisConfig.read(tmp_path / name)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a text file"):
        AnalysisConfig.read(tmp_path / "binary.yaml")


def test_write_keeps_an_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    AnalysisConfig().write(path)
    with pytest.raises(ConfigError, match="exists already"):
        AnalysisConfig().write(path)
    built_by_attributes().write(path, overwrite=True)
    assert AnalysisConfig.read(path).datasets.type == "3d"


def test_an_unset_variable_in_the_data_store_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GAMMAPY_DATA", raising=False)
    config = built_by_attributes()
    with pytest.raises(ConfigError, match=r"observations\.datastore: .* GAMMAPY_DATA is not set"):
        _ = config.observations.datastore_path
    monkeypatch.setenv("GAMMAPY_DATA", "/data")
    assert config.observations.datastore_path == Path("/data/cta-1dc/index/gps")


def test_a_store_beside_the_file_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "store").mkdir(parents=True)
    (tmp_path / "a" / "c.yaml").write_text("observations: {datastore: store}")
    monkeypatch.chdir(tmp_path)
    config = AnalysisConfig.read("a/c.yaml")
    assert config.observations.datastore_path == (tmp_path / "a" / "store").resolve()


UNSUPPORTED = [
    ("datasets.type", "1d", "expected 3d, for images; 1d is for spectra"),
    ("datasets.background.method", "reflected", "expected null or fov_background or ring"),
    ("datasets.background.parameters", {"method": "guess"}, "expected one of scale, fit"),
    ("datasets.background.parameters", {"exponent": 2}, ".exponent: no such key"),
    ("datasets.background.parameters", {"min_counts": -1}, "expected a number from 0 up"),
    ("datasets.map_selection", ["exposure"], "expected counts among the maps"),
    ("datasets.map_selection", ["counts"], "expected background for the method fov_background"),
    ("observations.required_irf", ["aeff", "rad_max"], "expected full-enclosure responses"),
    ("datasets.safe_mask.parameters", {"offset_max": "2 TeV"}, "expected an angle"),
    ("datasets.safe_mask.parameters", {"ofset_max": "2 deg"}, "parameters.offset_max?"),
    ("datasets.safe_mask.parameters", {"aeff_percent": 200}, "expected a number from 0 to 100"),
    (
        "datasets.safe_mask.parameters",
        {"position": {"lon": "1 deg"}},
        "frame, lon and lat together",
    ),
    ("datasets.safe_mask.parameters", {"irfs": "DL5"}, "expected one of DL4, DL3"),
    ("datasets.geom.wcs.skydir.lon", "", "not set"),
    ("datasets.geom.wcs.skydir.lon", "361 deg", "expected an angle from -360 to 360 deg"),
    ("datasets.geom.axes.energy.nbins", "", "not set"),
    ("datasets.safe_mask.parameters", {"offset_max": 10**400}, "expected an angle"),
    ("datasets.geom.wcs.binsize", "9 deg", "less than one pixel"),
    ("datasets.geom.wcs.binsize", "0.01 arcsec", "larger pixels"),
    ("datasets.geom.wcs.binsize_irf", "0.0001 deg", "expected larger pixels"),
]

SUPPORTED = [
    ("datasets.safe_mask.methods", ["aeff-default", "bkg-peak"]),
    ("datasets.safe_mask.parameters", {"aeff_percent": 10}),
    ("datasets.background.exclusion", "mask.fits"),
    ("datasets.background.parameters", {"method": "fit"}),
    ("observations.obs_file", "runs.txt"),
    ("observations.required_irf", ["aeff"]),
    ("general.models_file", "models.yaml"),
    ("general.datasets_file", "datasets.yaml"),
    ("excess_map.parameters", {"n_sigma": 1}),
    ("excess_map.energy_edges.min", "1 TeV"),
]


@pytest.mark.parametrize(("path", "value"), SUPPORTED)
def test_what_the_reduction_can_do_passes(path: str, value: Any) -> None:
    config = built_by_attributes()
    config.set(path, value)
    config.check_supported()


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({}, r"parameters\.r_in: not set"),
        ({"r_in": "0.5 deg"}, r"parameters\.width: not set"),
        ({"r_in": "0.5 deg", "width": "0.3 deg", "r_out_max": "0.6 deg"}, r"r_out_max: 0\.6 deg"),
        ({"r_in": "-1 deg", "width": "0.3 deg"}, r"r_in: .*not above 0"),
    ],
)
def test_a_ring_needs_its_radii(parameters: dict[str, Any], reason: str) -> None:
    config = built_by_attributes()
    config.datasets.background.method = "ring"
    config.datasets.background.parameters = parameters
    with pytest.raises(ConfigError, match=reason):
        config.check_supported()


@pytest.mark.parametrize(
    ("start", "stop", "reason"),
    [
        (["2020-01-01", "2020-01-03"], ["2020-01-02"], "stop: has 1 times, .*start has 2"),
        (["2020-01-01", "2020-01-03"], "2020-01-04", "stop: has 1 times, .*start has 2"),
        (["2020-01-01"] * 3, ["2020-01-02"] * 2, "stop: has 2 times, .*start has 3"),
        (["2020-01-01", "2020-01-05"], ["2020-01-02", "2020-01-04"], "is not before"),
    ],
)
def test_times_that_do_not_pair_are_refused(start: Any, stop: Any, reason: str) -> None:
    """Lists of 3 and 2 were numpy's ValueError; 2 beside 1 were compared with each other."""
    with pytest.raises(ConfigError, match=rf"^observations\.obs_time.*{reason}"):
        AnalysisConfig.from_dict({"observations": {"obs_time": {"start": start, "stop": stop}}})


def test_a_store_in_one_file_is_refused_clearly(tmp_path: Path) -> None:
    file = tmp_path / "events.fits"
    file.write_bytes(b" " * 2880)
    with pytest.raises(ImgfitError, match="is a file; expected the folder with the index files"):
        DataStore.from_dir(file)


@pytest.mark.parametrize(("path", "value", "reason"), UNSUPPORTED)
def test_what_the_reduction_cannot_do_is_refused_by_name(
    path: str, value: Any, reason: str
) -> None:
    config = built_by_attributes()
    config.set(path, value)
    with pytest.raises(ConfigError) as caught:
        config.check_supported()
    head = "datasets.geom.wcs.width.width" if value == "9 deg" else path
    assert str(caught.value).startswith(head)
    assert reason in str(caught.value)


def test_a_ring_needs_its_size() -> None:
    config = built_by_attributes()
    config.datasets.background.method = "ring"
    with pytest.raises(
        ConfigError, match=r"background\.parameters\.r_in: not set; the method ring"
    ):
        config.check_supported()
    config.datasets.background.parameters = {"r_in": "0.5 deg", "width": "0.2 deg"}
    config.check_supported()
    assert not config.datasets.background.options().adaptive
    config.datasets.background.parameters["r_out_max"] = "0.6 deg"
    with pytest.raises(ConfigError, match=r"r_out_max: 0\.6 deg is less than r_in \+ width"):
        config.check_supported()


def test_every_key_that_nothing_uses_is_refused_or_told() -> None:
    """What was not on a list of refusals was ignored in silence."""
    changes: dict[str, Any] = {
        "text": "other", "quantity": "3 deg", "int": 7, "bool": False, "dict": {"a": 1},
        "time": "2020-01-01",
    }  # fmt: skip
    found: dict[str, list[str]] = {"used": [], "refused": [], "told": []}
    for path in [field.path for field in AnalysisConfig().fields()]:
        config = built_by_attributes()
        field = config.field(path)
        if field.kind in ("choices", "ids") or path.startswith(("datasets.geom", "fit")):
            continue
        value = field.choices[0] if field.kind == "choice" else changes[field.kind]
        field.set("3 TeV" if field.unit == "TeV" else value)
        try:
            config.check_supported()
        except ConfigError as error:
            assert str(error).startswith(f"{path}")
            found["refused"].append(path)
        else:
            found["told" if config.without_effect() else "used"].append(path)
    assert found["used"] == [
        "general.log.level", "general.log.filename", "general.log.filemode", "general.log.format",
        "general.log.datefmt", "general.outdir", "general.n_jobs", "general.datasets_file",
        "general.models_file", "observations.datastore", "observations.obs_file",
        "observations.obs_cone.frame", "observations.obs_cone.lon", "observations.obs_cone.lat",
        "observations.obs_cone.radius", "observations.obs_time.start", "observations.obs_time.stop",
        "datasets.stack", "datasets.background.exclusion", "excess_map.correlation_radius",
        "excess_map.parameters", "excess_map.energy_edges.min", "excess_map.energy_edges.max",
        "excess_map.energy_edges.nbins",
    ]  # fmt: skip
    assert found["refused"] == [
        "datasets.type", "datasets.background.method", "datasets.background.parameters",
        "datasets.safe_mask.parameters",
    ]  # fmt: skip
    assert {path.split(".")[0] for path in found["told"]} == {
        "datasets", "flux_points", "light_curve",
    }  # fmt: skip
    assert len(found["told"]) == 5 + 5 + 7


def test_sections_of_other_products_are_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    config = built_by_attributes()
    config.flux_points = {"energy": {"min": "0.1 TeV", "max": "10 TeV", "nbins": 30}}
    config.datasets.containment_correction = False
    with caplog.at_level("INFO"):
        config.check_supported()
    assert caplog.messages == [
        "Without effect on images: datasets.containment_correction, flux_points"
    ]
    caplog.clear()
    with caplog.at_level("INFO"):
        built_by_attributes().check_supported()
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("level", "loud", "expected debug, info"),
        ("filename", "missing/log.txt", "a file in a folder that is there"),
        ("filename", ".", "a file in a folder that is there"),
        ("filename", "$IMGFIT_NO_SUCH/log.txt", "IMGFIT_NO_SUCH is not set"),
        ("filemode", "r", "expected w to start the file anew or a to append"),
        ("format", "%(nothing)s", "a format of Python's logging"),
        ("format", "plain", "a format of Python's logging"),
    ],
)
def test_a_wrong_log_setting_is_refused_by_name(
    key: str, value: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing folder was a FileNotFoundError, a bad format a traceback at each message."""
    monkeypatch.chdir(tmp_path)
    config = AnalysisConfig()
    config.set(f"general.log.{key}", value)
    with pytest.raises(ConfigError) as caught:
        config.set_logging()
    assert str(caught.value).startswith(f"general.log.{key}: ")
    assert reason in str(caught.value)


def test_a_number_beyond_all_floats_is_too_many_bins() -> None:
    config = built_by_attributes()
    config.datasets.geom.axes.energy.nbins = 10**400
    with pytest.raises(ConfigError, match=r"binsize: .* fewer bins"):
        config.check_supported()


def test_a_value_changed_in_place_is_caught_at_use() -> None:
    config = built_by_attributes()
    config.observations.obs_ids.append("x")
    with pytest.raises(ConfigError, match=r"observations\.obs_ids"):
        config.check()


def test_every_field_has_help_and_takes_its_own_text_back() -> None:
    config = built_by_attributes()
    before = config.to_dict()
    kinds = set()
    for field in config.fields():
        assert field.help.endswith("."), field.path
        assert field.expected
        kinds.add(field.kind)
        field.set(field.text)
        config.set(field.path, config.get(field.path))
    assert config.to_dict() == before
    assert kinds == {
        "text", "quantity", "choice", "choices", "int", "bool", "ids", "dict", "time",
    }  # fmt: skip
    defaults = {field.path: field.default_text for field in config.fields()}
    assert defaults["datasets.geom.axes.energy.nbins"] == "5"
    assert defaults["datasets.geom.axes.energy_true.nbins"] == "16"
    assert defaults["fit.fit_range.min"] == ""
    assert config.field("datasets.geom.wcs.binsize").unit == "deg"
    assert config.field("datasets.geom.wcs.skydir.frame").choices == ("icrs", "galactic")


def test_get_and_set_of_a_wrong_path_name_the_nearest() -> None:
    config = AnalysisConfig()
    with pytest.raises(ConfigError, match=r"did you mean datasets\.geom\?"):
        config.get("datasets.geo.wcs.binsize")
    with pytest.raises(ConfigError, match=r"did you mean datasets\.geom\.wcs\.binsize\?"):
        config.set("datasets.geom.wcs.bin_size", "1 deg")


def test_widgets_can_link_to_a_field_and_sections_are_never_replaced() -> None:
    config = AnalysisConfig()
    wcs = config.datasets.geom.wcs

    class Box(traitlets.HasTraits):
        value = traitlets.Any()

    box = Box()
    traitlets.link((wcs, "binsize"), (box, "value"))
    config.datasets.geom = {"wcs": {"binsize": "0.05 deg"}}
    assert config.datasets.geom.wcs is wcs
    assert box.value == 0.05 * u.deg
    box.value = "0.1 deg"
    assert wcs.binsize == 0.1 * u.deg


def test_observe_all_sees_each_change_until_stopped() -> None:
    config = AnalysisConfig()
    seen: list[str] = []
    stop = config.observe_all(lambda change: seen.append(change.owner.path_of(change.name)))
    config.datasets.geom.wcs.binsize = "0.05 deg"
    config.observations.obs_ids = [1]
    stop()
    config.observations.obs_ids = [2]
    assert seen == ["datasets.geom.wcs.binsize", "observations.obs_ids"]


def test_copies_are_independent() -> None:
    config = built_by_attributes()
    other = config.copy()
    assert other.to_dict() == config.to_dict()
    other.datasets.safe_mask.parameters["offset_max"] = "1 deg"
    other.observations.obs_ids.append(5)
    assert config.datasets.safe_mask.parameters == {"offset_max": 2.5 * u.deg}
    assert config.observations.obs_ids == [110380, 111140, 111159]


def test_update_puts_only_what_is_given_over_the_rest() -> None:
    config = built_by_attributes()
    new = config.update("datasets: {geom: {wcs: {fov: {width: 3 deg}}}}")
    assert new.datasets.geom.wcs.width.width == 3 * u.deg
    assert new.datasets.geom.wcs.width.height == 6 * u.deg
    assert config.datasets.geom.wcs.width.width == 8 * u.deg


@settings(deadline=None)
@given(
    value=st.floats(1e-8, 1e4),
    unit=st.sampled_from(["deg", "arcmin", "arcsec", "rad"]),
)
def test_any_angle_survives_its_yaml(value: float, unit: str) -> None:
    config = AnalysisConfig()
    config.datasets.geom.wcs.binsize = value * u.Unit(unit)
    again = AnalysisConfig.from_yaml(config.to_yaml())
    assert again.datasets.geom.wcs.binsize == config.datasets.geom.wcs.binsize
    assert again.to_yaml() == config.to_yaml()


@settings(deadline=None)
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
))  # fmt: skip
def test_no_value_breaks_the_reader_in_another_way(value: Any) -> None:
    for data in (value, {"datasets": value}, {"datasets": {"geom": {"wcs": {"binsize": value}}}}):
        try:
            AnalysisConfig.from_dict(data)
        except ImgfitError as error:
            assert str(error)
