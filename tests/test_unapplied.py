"""What was typed and is not applied yet: it is kept, marked, and handed over or refused."""

from __future__ import annotations

import pytest

from imgfit_widgets.widgets.config_editor import ConfigEditor
from imgfit_widgets.widgets.lean import is_shown
from imgfit_widgets.widgets.model_editor import ModelEditor

BINSIZE = "datasets.geom.wcs.binsize"


def hidden(widget):
    return not is_shown(widget)


def test_reduce_takes_the_yaml_text_that_is_not_applied_yet(session):
    editor = ConfigEditor(session)
    yaml = editor.yaml
    assert hidden(yaml.mark) and hidden(yaml.revert)
    yaml.area.value = yaml.area.value.replace("binsize: 0.05 deg", "binsize: 0.2 deg")
    typed = yaml.area.value
    assert not hidden(yaml.mark) and "not applied yet" in yaml.mark.value
    session.revision += 1
    assert yaml.area.value == typed
    editor.reduce_button.click()
    session.task.wait(60)
    assert session.dataset.geom.pixel_scales[0] == pytest.approx(0.2)
    assert hidden(yaml.mark) and "binsize: 0.2 deg" in yaml.area.value


def test_yaml_text_that_cannot_be_used_is_kept_with_the_reason_and_nothing_runs(session):
    editor, models = ConfigEditor(session), ModelEditor(session)
    editor.yaml.area.value = "datasets: {geomm: 1}"
    editor.reduce_button.click()
    assert "datasets.geomm" in session.error and session.task.status == "idle"
    assert editor.yaml.area.value == "datasets: {geomm: 1}" and "geomm" in editor.yaml.mark.value
    editor.yaml.revert.click()
    assert "binsize: 0.05 deg" in editor.yaml.area.value and hidden(editor.yaml.mark)
    editor.yaml.area.value = editor.yaml.area.value.replace("0.05 deg", "0.2 deg")
    editor.editors["datasets.stack"].input.value = False
    editor.reduce_button.click()
    assert "changed elsewhere" in session.error and session.task.status == "idle"
    assert "0.2 deg" in editor.yaml.area.value and not session.config.datasets.stack
    models.yaml.area.value = "components: [{name: x, type: SkyModel}]"
    session.attempt(session.fit)
    assert session.error and session.task.status == "idle"
    assert models.yaml.area.value.startswith("components: [{name: x")


def test_fit_takes_the_models_text_that_is_not_applied_yet(session, demo_store):
    editor = ModelEditor(session)
    editor.yaml.area.value = (demo_store / "models.yaml").read_text()
    session.fit().wait(60)
    assert "bright" in session.models.names and session.fit_result is not None
    assert hidden(editor.yaml.mark)


def test_an_input_that_cannot_be_used_stops_the_reduction(session):
    editor = ConfigEditor(session)
    editor.editors[BINSIZE].input.value = "wide"
    assert editor.reduce_button.disabled and "Pixel: " in editor.reason.value
    session.attempt(session.reduce)
    assert session.error.startswith("Pixel: ") and "'wide'" in session.error
    assert session.task.status == "idle"
    editor.reset.click()
    assert not editor.reduce_button.disabled and editor.editors[BINSIZE].message == ""
    session.error = f"{BINSIZE}: too coarse"
    assert editor.editors[BINSIZE].message and not editor.reduce_button.disabled


def test_reverting_text_that_was_refused_takes_its_error_along(session):
    editor = ConfigEditor(session)
    yaml = editor.yaml
    before = yaml.area.value
    yaml.area.value = before.replace("binsize: 0.05 deg", "binsize: 0.05 TeV")
    yaml.apply.click()
    assert "0.05 TeV" in session.error and "0.05 TeV" in yaml.mark.value
    yaml.revert.click()
    assert yaml.area.value == before and session.error == "" and hidden(yaml.mark)
