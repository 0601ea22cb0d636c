"""The form of the configuration: options as typed fields, chips, folds, the projection."""

from __future__ import annotations

import pytest

from imgfit_widgets.core.config import AnalysisConfig
from imgfit_widgets.session import Session
from imgfit_widgets.widgets.config_editor import ConfigEditor
from imgfit_widgets.widgets.config_fields import Fold
from imgfit_widgets.widgets.lean import is_shown
from imgfit_widgets.widgets.options_form import LIKE_IMAGE

METHOD, MASKS = "datasets.background.method", "datasets.safe_mask.methods"
RING, SAFE = "datasets.background.parameters", "datasets.safe_mask.parameters"


@pytest.fixture
def session():
    return Session()


@pytest.fixture
def editor(session):
    return ConfigEditor(session)


def put(editor, path, value):
    editor.editors[path].input.value = value


def seen(widget):
    """Labels of the lines of options that are not hidden."""
    if not is_shown(widget):
        return []
    if hasattr(widget, "label"):
        return [widget.label]
    return [label for child in getattr(widget, "children", ()) for label in seen(child)]


def test_options_of_the_chosen_method_are_fields_that_write_the_mapping(session, editor):
    background, form = session.config.datasets.background, editor.options[0]
    assert seen(form) == []
    put(editor, METHOD, "fov_background")
    assert seen(form) == ["Norm by", "Min. counts", "Min. npred"]
    put(editor, f"{RING}.min_counts", "5")
    assert background.parameters == {"min_counts": 5.0}
    put(editor, f"{RING}.min_counts", "0")
    assert background.parameters == {}, "what is at its default is left out"

    put(editor, METHOD, "ring")
    assert seen(form) == ["Inner radius", "Ring width", "Grow up to"]
    put(editor, f"{RING}.r_in", "0.7 deg")
    put(editor, f"{RING}.width", "0.3 deg")
    assert background.parameters == {"r_in": "0.7 deg", "width": "0.3 deg"}
    put(editor, f"{RING}.r_out_max", "1.2 deg")
    assert seen(form)[3:] == ["Step", "Below α", "On radius", "When it grows"]
    assert background.options().adaptive
    put(editor, f"{RING}.r_in", "-1 deg")
    assert "expected an angle above 0" in editor.editors[f"{RING}.r_in"].message
    assert "Still 0.7 deg." in editor.refusal and editor.reduce_button.disabled
    put(editor, METHOD, "fov_background")
    assert background.parameters == {} and not editor.reduce_button.disabled
    assert background.options().method == "scale"
    session.undo()
    assert (background.method, background.parameters["r_in"]) == ("ring", "0.7 deg")
    assert editor.editors[f"{RING}.r_in"].input.value == "0.7 deg"
    assert editor.editors[f"{RING}.r_out_max"].input.value == "1.2 deg"


def test_options_that_come_as_yaml_are_shown_and_strange_ones_kept(session, editor):
    editor.yaml.area.value = (
        "datasets: {type: 3d, geom: {wcs: {skydir: {frame: galactic, lon: 0 deg, lat: 0 deg}}}, "
        "background: {method: ring, parameters: {r_in: 1 deg, width: wide, odd: 1}}}"
    )
    editor.yaml.apply.click()
    assert editor.editors[f"{RING}.r_in"].input.value == "1.0 deg"
    assert "'wide' cannot be used" in editor.editors[f"{RING}.width"].message
    put(editor, f"{RING}.width", "0.5 deg")
    assert session.config.datasets.background.parameters == {
        "odd": 1, "r_in": "1.0 deg", "width": "0.5 deg",
    }  # fmt: skip
    session.attempt(session.reduce)
    assert f"{RING}.odd: no such key" in session.error


def test_safe_masks_are_chips_and_show_the_options_they_use(session, editor):
    mask, chips = session.config.datasets.safe_mask, editor.editors[MASKS].input.chips
    assert chips["aeff-default"].value and seen(editor.options[1]) == []
    chips["edisp-bias"].value = True
    assert mask.methods == ["aeff-default", "edisp-bias"]
    chips["aeff-default"].value = False
    assert mask.methods == ["edisp-bias"]
    lines = ["Max. bias %", "Fixed offset", "Taken at", "Responses"]
    assert seen(editor.options[1]) == lines
    put(editor, f"{SAFE}.bias_percent", "20")
    for key, value in (("frame", "icrs"), ("lon", "83.6 deg"), ("lat", "22 deg")):
        put(editor, f"{SAFE}.position.{key}", value)
    assert mask.parameters == {
        "bias_percent": 20.0,
        "position": {"frame": "icrs", "lon": "83.6 deg", "lat": "22.0 deg"},
    }
    assert mask.options().bias_percent == 20
    session.config.datasets.safe_mask.methods = ["offset-max", "bkg-peak"]
    assert [word for word, chip in chips.items() if chip.value] == ["offset-max", "bkg-peak"]
    assert seen(editor.options[1]) == ["Max. offset"]
    put(editor, f"{SAFE}.offset_max", "4")
    assert "it has no unit" in editor.refusal
    chips["offset-max"].value = False
    assert editor.refusal == "", "what is hidden holds nothing up"


def test_the_same_is_in_gammapys_yaml(session, editor):
    put(editor, METHOD, "ring")
    put(editor, f"{RING}.r_in", "0.7 deg")
    put(editor, f"{RING}.width", "0.3 deg")
    again = AnalysisConfig.from_yaml(editor.yaml.area.value).datasets.background
    assert again.parameters == {"r_in": "0.7 deg", "width": "0.3 deg"}


def test_folded_parts_count_what_is_set_and_open_for_a_mistake(session, editor):
    folds = {fold.title: fold for fold in editor.form.children if isinstance(fold, Fold)}
    assert set(folds) == {
        "Select runs", "Maps to make", "Excess maps", "Files and processes", "Log",
    }  # fmt: skip
    part = folds["Select runs"]
    assert not any(is_shown(fold.body) for fold in folds.values())
    put(editor, "observations.obs_cone.radius", "3 deg")
    assert part.head.description == "Select runs · 1 set"
    put(editor, "observations.obs_cone.lat", "120 deg")
    assert is_shown(part.body)
    assert "from -90 to 90 deg" in editor.editors["observations.obs_cone.lat"].message
    session.attempt(session.reduce)
    put(editor, "general.n_jobs", "0")
    assert folds["Files and processes"].head.value


def test_the_projection_is_linked_and_refuses_what_is_no_image(session, editor, tmp_path):
    row = editor.projection
    row.choice.value = "TAN"
    assert session.geometry == "TAN" and not is_shown(row._file)
    row.choice.value = LIKE_IMAGE
    assert "Still TAN" in row.message and editor.reduce_button.disabled
    row.path.value = str(tmp_path / "none.fits")
    assert "no such file; expected a FITS file" in row.message and session.geometry == "TAN"
    row.choice.value = "CAR"
    assert session.geometry == "CAR" and not row.message and not editor.reduce_button.disabled
    session.undo()
    assert row.choice.value == "TAN"
