"""The panels as Python objects: links with traits, refusals, reasons. No kernel and no browser."""

from __future__ import annotations

import asyncio
import base64
import re

import numpy as np
import pytest

from imgfit_widgets.app.serve import (
    ENVIRONMENT,
    TEMPLATE_ROOT,
    _prepare,
    _voila_config,
    serve,
    workbench,
)
from imgfit_widgets.core.config import AnalysisConfig
from imgfit_widgets.core.errors import ImgfitError, InputError
from imgfit_widgets.core.models import Models
from imgfit_widgets.session import Session
from imgfit_widgets.widgets.config_editor import ConfigEditor
from imgfit_widgets.widgets.fit_panel import FitPanel
from imgfit_widgets.widgets.lean import is_shown
from imgfit_widgets.widgets.model_editor import ModelEditor
from imgfit_widgets.widgets.numbers import (
    count_text,
    error_text,
    limit_text,
    measurement,
    unit_text,
    value_text,
)
from imgfit_widgets.widgets.results import Results
from imgfit_widgets.widgets.style import SOURCE_COLOURS, source_colour, style_text
from imgfit_widgets.widgets.workbench import Workbench

BINSIZE = "datasets.geom.wcs.binsize"


def classes(widget):
    """All CSS classes of a widget and those inside it."""
    found = set(getattr(widget, "_dom_classes", ()))
    for child in getattr(widget, "children", ()):
        found |= classes(child)
    return found


def link(html, name):
    """Content of the download link for a file name."""
    found = re.search(rf'download="{re.escape(name)}"[^>]*href="data:[^;]*;base64,([^"]*)"', html)
    assert found, html[:200]
    return base64.b64decode(found.group(1))


def uploaded(name, content):
    """What a FileUpload holds after a file was chosen."""
    from datetime import UTC, datetime

    facts = {"name": name, "type": "", "size": len(content), "content": memoryview(content)}
    return ({**facts, "last_modified": datetime.now(UTC)},)


# --- configuration


def test_every_key_of_the_tutorial_has_a_field_with_help_unit_and_default(reference):
    import yaml

    text = (reference / "formats" / "A_config_input.yaml").read_text()

    def paths(data, prefix=""):
        for key, value in data.items():
            path = f"{prefix}{key}"
            if isinstance(value, dict) and value and not path.endswith("parameters"):
                yield from paths(value, f"{path}.")
            else:
                yield path

    editor = ConfigEditor(Session(text))
    mappings = {"datasets.background.parameters", "datasets.safe_mask.parameters"}
    assert set(paths(yaml.safe_load(text))) - mappings <= set(editor.editors)
    for mapping in mappings:
        assert any(path.startswith(f"{mapping}.") for path in editor.editors)
    spectra = ("flux_points", "light_curve", "datasets.on_region", "datasets.containment")
    known = {field.path for field in AnalysisConfig().fields()}
    left = {path for path in known - set(editor.editors) if not path.startswith(spectra)}
    assert left == mappings, "every key of images has a field of its own"
    tip = editor.editors[BINSIZE].input.tooltip
    assert "Size of a pixel" in tip and "Unit: deg" in tip and "Default: 0.02 deg" in tip


def test_a_field_and_its_trait_are_the_same():
    session = Session()
    editor = ConfigEditor(session)
    field = editor.editors[BINSIZE].input
    field.value = "0.05deg"
    assert session.config.datasets.geom.wcs.binsize.deg == 0.05 and field.value == "0.05 deg"
    session.config.datasets.geom.wcs.binsize = "6 arcmin"
    assert field.value == "6.0 arcmin"
    session.set_config("observations: {obs_ids: [4, 5]}\ndatasets: {stack: false}")
    assert editor.editors["observations.obs_ids"].input.value == "4, 5"
    assert editor.editors["datasets.stack"].input.value is False
    editor.editors["datasets.stack"].input.value = True
    editor.editors["datasets.background.method"].input.value = "fov_background"
    assert session.config.datasets.stack and session.config.datasets.background.method
    editor.editors["datasets.background.method"].input.value = ""
    assert session.config.datasets.background.method is None
    editor.reset.click()
    assert session.config.to_dict() == AnalysisConfig().to_dict() and field.value == "0.02 deg"


@pytest.mark.parametrize(
    ("path", "text", "reason"),
    [
        (BINSIZE, "3 kg", "'3 kg' cannot be used"),
        (BINSIZE, "0.02", "it has no unit"),
        (BINSIZE, "", "expected an angle"),
        ("observations.obs_ids", "1, x", "'x' is not a whole number"),
        ("datasets.geom.axes.energy.nbins", "0", "a whole number from 1 up"),
        ("datasets.safe_mask.methods", "ofset-max", "did you mean 'offset-max'?"),
    ],
)
def test_a_bad_value_is_explained_beside_its_field_and_the_old_one_is_kept(path, text, reason):
    session = Session()
    editor = ConfigEditor(session)
    field = editor.editors[path]
    before = field.field.text
    line = next(line for line in editor.rows if field in line.editors)
    field.input.value = text
    assert reason in field.message and f"Still {before or 'empty'}." in field.message
    assert reason.split("'")[0] in line._error.value.replace("&#x27;", "'")
    assert "imgfit-invalid" in field.input._dom_classes and field.field.text == before
    assert field.input.value == text, "what was typed stays, to be mended"
    field.input.value = before
    assert field.message == "" and "imgfit-invalid" not in field.input._dom_classes


def test_an_error_of_the_reduction_is_shown_at_the_field_it_names(session):
    editor = ConfigEditor(session)
    editor.editors["datasets.background.method"].input.value = "reflected"
    editor.reduce_button.click()
    message = editor.editors["datasets.background.method"].message
    assert "expected null or fov_background or ring, for images" in message
    assert session.error.startswith("datasets.background.method")


def test_reduce_button_says_why_it_waits_and_what_is_stale(session):
    editor = ConfigEditor(session)
    assert not editor.reduce_button.disabled
    assert editor.reason.value == "The maps are of this configuration: 12\u202f004 counts"
    editor.editors[BINSIZE].input.value = "0.1 deg"
    assert "Changed since the last reduction" in editor.reason.value
    editor.reduce_button.click()
    assert editor.reduce_button.disabled and is_shown(editor.cancel_button)
    editor.cancel_button.click()
    session.task.wait(60)
    assert session.task.status == "cancelled"
    assert not editor.reduce_button.disabled and not is_shown(editor.cancel_button)


def test_a_form_on_its_own_tells_why_a_reduction_failed(session):
    """Also where the reason is none of a field that it has; the workbench has its bar."""
    editor = ConfigEditor(session)
    session.config.datasets.geom.wcs.skydir = {
        "lon": "100 deg",
        "lat": "40 deg",
        "frame": "galactic",
    }
    editor.reduce_button.click()
    session.task.wait(60)
    assert session.task.status == "failed"
    assert "does not overlap" in editor.reason.value and "imgfit-failed" in editor.reason.value


def test_a_form_beside_data_from_elsewhere_does_not_claim_them(small):
    session = Session(small.config)
    session.set_datasets(small.datasets)
    assert ConfigEditor(session).reason.value == ""


def test_the_form_makes_room_when_the_first_maps_come(small):
    workbench = Workbench(Session(small.config))
    assert workbench.header.configuration.value
    workbench.session.set_datasets(small.datasets)
    assert not workbench.header.configuration.value
    workbench.header.configuration.value = True
    workbench.session.set_datasets(small.datasets)
    assert workbench.header.configuration.value, "opened by hand"


def test_yaml_goes_out_and_comes_in(session):
    editor = ConfigEditor(session)
    yaml = editor.yaml
    assert AnalysisConfig.from_yaml(yaml.area.value).to_dict() == session.config.to_dict()
    yaml.area.value = yaml.area.value.replace("binsize: 0.05 deg", "binsize: 0.07 deg")
    yaml.apply.click()
    assert editor.editors[BINSIZE].input.value == "0.07 deg"
    assert b"binsize: 0.07 deg" in link(yaml.link.value, "config.yaml")
    yaml.area.value = "datasets: {geomm: 1}"
    yaml.apply.click()
    assert "datasets.geomm: no such key; did you mean datasets.geom?" in session.error
    yaml.upload.value = uploaded("a.yaml", b"datasets: {geom: {wcs: {binsize: 0.2 deg}}}")
    assert editor.editors[BINSIZE].input.value == "0.2 deg" and session.error == ""


# --- models


def cell(editor, name):
    return next(line for line in editor.rows if line.parameter.name == name)


def test_parameter_table_and_parameters_are_the_same(session):
    editor = ModelEditor(session)
    name = session.add_source(*session.dataset.geom.center_lonlat)
    parameter = session.models[name].spatial_model.lon_0
    line = cell(editor, "lon_0")
    line.value.value = "30.25"
    assert parameter.value == 30.25
    line.value.value = "1800 arcmin"
    assert parameter.value == pytest.approx(30) and line.value.value == "30"
    line.min.value, line.max.value = "29", "31"
    assert (parameter.min, parameter.max) == (29, 31)
    line.min.value = ""
    assert np.isnan(parameter.min)
    line.frozen.value = True
    assert parameter.frozen
    parameter.frozen = False
    assert line.frozen.value is False
    parameter.value, parameter.error = 30.123456, 0.00271
    assert (line.value.value, line.error.value) == ("30.1235", "± 0.0027")
    assert repr(parameter.value) in line.value.tooltip
    line.value.value = "30.1235"
    assert parameter.value == 30.123456, "leaving a field does not round what it shows"


@pytest.mark.parametrize(
    ("field", "text", "reason"),
    [
        ("value", "abc", "is not a number"),
        ("value", "91", "outside its limits"),
        ("max", "-91", "max -91 is below"),
        ("value", "3 kg", "cannot be converted"),
    ],
)
def test_a_bad_number_is_refused_beside_its_row(session, field, text, reason):
    editor = ModelEditor(session)
    name = session.add_source(*session.dataset.geom.center_lonlat)
    parameter = session.models[name].spatial_model.lat_0
    before = parameter.value, parameter.max
    line = cell(editor, "lat_0")
    getattr(line, field).value = text
    assert reason in line._refusal.value and f"{name}.lat_0" in line._refusal.value
    assert (parameter.value, parameter.max) == before
    assert getattr(line, field).value == text
    line.min.value = "-80"
    assert reason in line._refusal.value, "another field does not take its reason away"
    setattr(parameter, field, 0.1 if field == "value" else 80.0)
    assert line._refusal.value == ""
    assert "imgfit-invalid" not in getattr(line, field)._dom_classes


def test_list_selects_shapes_and_removes(session):
    editor = ModelEditor(session)
    lon, lat = session.dataset.geom.center_lonlat
    for offset in (0, 0.5):
        session.add_source(lon + offset, lat)
    items = editor.list.children
    assert len(items) == 3 and editor.shown.name == "Source-2"
    items[0].children[1].click()
    assert session.selected == "Source-1" and "imgfit-selected" in items[0]._dom_classes
    editor.shape.select.value = "gauss"
    assert session.models["Source-1"].spatial_model.tag[-1] == "gauss"
    assert editor.list.children[0].children[2].value == "gauss"
    assert [line.parameter.name for line in editor.rows][-3:] == ["sigma", "e", "phi"]
    editor.list.children[1].children[3].click()
    assert session.models.names == ["Source-1", "stacked-bkg"]
    editor.undo_button.click()
    assert session.models.names == ["Source-1", "Source-2", "stacked-bkg"]
    editor.redo_button.click()
    assert session.models.names == ["Source-1", "stacked-bkg"] and editor.redo_button.disabled


def test_rows_that_are_gone_live_on_for_a_page_that_loads(small, monkeypatch):
    """Then they are closed with all that is in them, or a kernel would keep more and more."""
    monkeypatch.setattr("imgfit_widgets.widgets.style.RETIRED", 0.2)

    async def main() -> None:
        session = Session(small.config)
        session.set_datasets(small.datasets, small.config)
        session.select("stacked-bkg")
        editor = ModelEditor(session)
        old = editor.list.children[0], editor.rows[0], editor.rows[0].value
        session.add_source(*session.dataset.geom.center_lonlat)
        assert not {*old} & {*editor.list.children, *editor.rows}
        assert all(widget.comm is not None for widget in old)
        await asyncio.sleep(0.5)
        assert all(widget.comm is None for widget in old)
        assert all(line.comm is not None for line in editor.rows)

    asyncio.run(main())


def test_models_yaml_goes_out_and_comes_in(session, demo_store):
    editor = ModelEditor(session)
    editor.yaml.area.value = (demo_store / "truth.yaml").read_text()
    editor.yaml.apply.click()
    assert session.models.names[-1] == "stacked-bkg" and len(session.models) > 2
    assert Models.from_yaml(link(editor.yaml.link.value, "models.yaml").decode()).names == (
        session.models.names
    )
    editor.yaml.area.value = "components: [{name: x, type: SkyModel}]"
    editor.yaml.apply.click()
    assert "components[0] (x).spectral: missing" in session.error


def test_a_source_is_renamed_in_its_field_and_a_bad_name_is_refused_there(session):
    editor = ModelEditor(session)
    name = session.add_source(*session.dataset.geom.center_lonlat)
    field = editor.name_field
    assert field.input.value == name and is_shown(field)
    field.input.value = "Crab"
    assert session.models.names == ["Crab", "stacked-bkg"] and session.selected == "Crab"
    assert editor.list.children[0].children[1].description == "Crab"
    field.input.value = "stacked-bkg"
    assert "already" in field.refusal.value and "imgfit-invalid" in field._dom_classes
    assert session.models.names == ["Crab", "stacked-bkg"]
    field.input.value = " Crab "
    assert field.refusal.value == "" and field.input.value == "Crab"
    session.undo()
    assert field.input.value == name and editor.list.children[0].children[1].description == name
    session.select("stacked-bkg")
    assert not is_shown(field)


def test_rows_of_models_that_are_gone_stop_following(session):
    editor = ModelEditor(session)
    name = session.add_source(*session.dataset.geom.center_lonlat)
    parameter = session.models[name].spatial_model.lon_0
    old = cell(editor, "lon_0")
    session.select("stacked-bkg")
    parameter.value = 30.5
    assert old.value.value != "30.5"
    assert {line.parameter.owner for line in editor.rows} == {"stacked-bkg"}


# --- fit and results


def test_fit_panel_says_why_it_cannot_and_how_it_went(session):
    panel = FitPanel(Session())
    assert panel.fit_button.disabled and panel.reason.value == "Reduce the data first"
    assert "idle" in panel.status.value and panel.cancel_button.disabled
    panel = FitPanel(session)
    assert not panel.fit_button.disabled
    session.models["stacked-bkg"].parameters.freeze_all()
    assert panel.fit_button.disabled and panel.reason.value == "Every parameter is frozen"
    session.undo()
    session.add_source(*session.dataset.geom.center_lonlat)
    assert "ΔTS of Source-1" in panel.live.value
    panel.fit_button.click()
    assert panel.fit_button.disabled and not panel.cancel_button.disabled
    assert "running" in panel.status.value and panel.reason.value == "fitting"
    session.task.wait(60)
    assert "done" in panel.status.value and "Fit done in" in panel.reason.value
    assert f"{session.fit_result.stat:.2f}" in panel.live.value


def test_the_search_before_a_fit_is_linked_and_finds_the_source(session):
    panel = FitPanel(session)
    lon, lat = session.dataset.geom.center_lonlat
    session.add_source(lon, lat)
    panel.search.value = 1.5
    assert session.search_radius == 1.5
    session.search_radius = 0.0
    assert panel.search.value == 0.0
    panel.fit_button.click()
    session.task.wait(60)
    plain = session.fit_result.stat
    session.undo()
    panel.search.value = 1.5
    panel.fit_button.click()
    session.task.wait(60)
    assert session.fit_result.success and session.fit_result.stat < plain - 100.0


def test_a_failed_fit_is_explained_in_words(session):
    panel, results = FitPanel(session), Results(session)
    name = session.add_source(*session.dataset.geom.center_lonlat)
    session.models[name].spectral_model.index.frozen = False
    panel.fit_button.click()
    session.task.wait(60)
    assert "failed" in panel.status.value and name in panel.reason.value
    assert "did not converge" in results.body.value
    assert not panel.fit_button.disabled
    session.undo()
    assert panel.reason.value == "", "that was another model"


def test_results_show_what_the_fit_found_and_when_it_is_stale(session):
    results = Results(session)
    assert "No fit yet" in results.body.value and not is_shown(results.note)
    name = session.add_source(*session.dataset.geom.center_lonlat)
    session.fit().wait(60)
    result, body = session.fit_result, results.body.value
    lat = measurement(result.value(name, "lat_0"), result.error(name, "lat_0"), "deg")
    assert lat in body and f"{result.stat:.2f}" in body
    assert f"{result.ts[name].ts:.1f}" in body and f"{result.ts[name].sigma:.1f} σ" in body
    assert "imgfit-correlation" in body and not is_shown(results.note)
    session.models[name].spatial_model.lat_0.value += 0.1
    assert "changed since this fit" in results.note.value and is_shown(results.note)
    session.undo()
    assert not is_shown(results.note)


def test_results_can_be_taken_home(session):
    results = Results(session)
    session.fit().wait(60)
    assert b"stacked" in link(results.links.value, "models.yaml")
    assert b'"success": true' in link(results.links.value, "result.json")
    assert b"ecsv" in link(results.links.value, "parameters.ecsv").lower()
    results.dataset_button.click()
    assert link(results.dataset_link.value, "dataset-stacked.fits.gz")[:2] == b"\x1f\x8b"


# --- workbench


def test_the_workbench_has_all_names_that_others_rely_on(session):
    names = "workbench config reduce-button map residual-map readout add-source model-list"
    names += " parameter-table fit-button cancel-button progress status results error"
    assert {f"imgfit-{name}" for name in names.split()} <= classes(Workbench(session))


def test_errors_are_shown_and_dismissed(session):
    workbench = Workbench(session)
    bar = workbench.error_bar
    assert not is_shown(bar)
    session.attempt(session.set_models, "components: <b>")
    assert is_shown(bar) and "components" in bar.message.value
    assert "<b>" not in bar.message.value
    bar.dismiss.click()
    assert session.error == "" and not is_shown(bar)


def test_a_workbench_takes_whatever_is_at_hand(session, small, tmp_path):
    path = tmp_path / "config.yaml"
    small.config.write(path)
    expected = small.config.to_dict()
    for source in (path, str(path), small.config.to_yaml(), small.config):
        assert Workbench(source).session.config.to_dict() == expected
    assert Workbench(small.datasets["stacked"]).session.dataset is small.datasets["stacked"]
    assert Workbench(session).session is session is Workbench(session=session).session
    with pytest.raises(InputError, match="int cannot be worked on"):
        Workbench(3)
    with pytest.raises(ImgfitError, match=r"nowhere\.yaml"):
        Workbench("nowhere.yaml")


def test_a_session_file_is_opened_from_the_header(session):
    workbench = Workbench(session)
    session.add_source(*session.dataset.geom.center_lonlat)
    saved = link(workbench.header.link.value, "session.imgfit")
    other = Workbench()
    other.header.upload.value = uploaded("a.imgfit", saved)
    assert other.session.models.names == ["Source-1", "stacked-bkg"]
    other.header.upload.value = uploaded("a.imgfit", b"no")
    assert "a.imgfit: not a session file" in other.session.error


def test_a_file_that_cannot_be_read_is_named_and_can_be_opened_once_more(session):
    editor = ModelEditor(session)
    lon, lat = session.dataset.geom.center_lonlat
    file = uploaded("one.reg", f"{session.dataset.geom.frame}\ncircle({lon}, {lat}, 0.1)".encode())
    for count in (1, 2):  # the very same file, as after an undo
        editor.regions.value = file
        assert (len(session.models.sky_models), session.error) == (count, "")
    editor.regions.value = uploaded("two.reg", b"galactic\ncircle(0, 0,\n")
    assert session.error.startswith("two.reg: ")
    editor.regions.value = uploaded("photo.reg", b"\x89PNG")
    assert session.error == "photo.reg: byte 0 is 0x89; expected text in UTF-8"
    assert len(session.models.sky_models) == 2


@pytest.mark.parametrize("preheated", [False, True])
def test_a_kernel_that_is_kept_ready_waits_for_its_page(monkeypatch, preheated):
    """Else it would work beside those in use, and be busy just when its page comes."""
    monkeypatch.setenv("VOILA_PREHEAT", str(preheated))
    monkeypatch.setattr("imgfit_widgets.widgets.workbench.UNSEEN", 0.05)
    monkeypatch.setattr("imgfit_widgets.widgets.workbench.LATER", 0.05)

    async def visit():
        begun = []
        workbench = Workbench(session=Session(), begin=lambda: begun.append("reduction"))
        await asyncio.sleep(0.2)
        before = begun.copy(), workbench._config_editor is not None
        workbench._view_count = 1
        await asyncio.sleep(0.2)
        return before, begun, workbench._config_editor is not None

    before, begun, form = asyncio.run(visit())
    assert before == (([], False) if preheated else (["reduction"], True))
    assert begun == ["reduction"] and form


def test_two_workbenches_in_one_kernel_share_nothing(session):
    other = Workbench()
    session.add_source(*session.dataset.geom.center_lonlat)
    assert len(other.session.models) == 0 and other.session.error == ""


def test_the_style_asks_nothing_of_other_hosts():
    assert "imgfit-workbench" in style_text()
    assert not re.search(r"https?:|@import|url\(", style_text())


def test_colours_of_sources_are_those_of_their_place(session):
    lon, lat = session.dataset.geom.center_lonlat
    first, second = session.add_source(lon, lat), session.add_source(lon + 0.5, lat)
    assert source_colour(session.models, first) == SOURCE_COLOURS[0]
    assert source_colour(session.models, second) == SOURCE_COLOURS[1]
    assert source_colour(session.models, "stacked-bkg") not in SOURCE_COLOURS


def test_a_name_is_never_taken_for_html(session):
    import ipywidgets

    name = "<img src=x onerror=alert(1)>"
    workbench = Workbench(session)

    def check():
        seen, waiting = [], [workbench]
        while waiting:
            widget = waiting.pop()
            waiting += getattr(widget, "children", ())
            if isinstance(widget, ipywidgets.HTML):
                assert "<img src=x" not in widget.value
                seen.append(widget.value)
        return "".join(seen)

    session.add_source(*session.dataset.geom.center_lonlat, name=name)
    session.fit().wait(60)
    assert session.fit_result.success and "&lt;img src=x" in check()
    with pytest.raises(ImgfitError):
        session.rename("stacked-bkg", name)
    session.models[name].spatial_model.lon_0.value += 0.01
    session.models[name].spectral_model.index.frozen = False
    session.attempt(session.set_models, f"components: [{{name: '{name}', type: '{name}'}}]")
    assert name in session.error
    check()
    session.fit().wait(60)
    check()


# --- what is served


def test_a_visitor_finds_the_data_reduced_and_undo_empty(small, demo_store, tmp_path):
    config = tmp_path / "config.yaml"
    small.config.write(config)
    settings = {"config": str(config), "models": str(demo_store / "models.yaml")}
    session = workbench(settings).session
    session.task.wait(60)
    assert session.task.status == "done" and session.models.names[-1] == "stacked-bkg"
    assert len(session.models) > 2 and not session.history.can_undo
    assert session.selected == session.models.names[0]


def test_a_visitor_of_a_broken_configuration_is_told_so(tmp_path):
    (tmp_path / "config.yaml").write_text("datasets: {geomm: 1}")
    session = workbench({"config": str(tmp_path / "config.yaml")}).session
    assert "did you mean datasets.geom?" in session.error and session.task.status == "idle"


def test_a_visitor_cannot_read_outside_of_the_data_roots(small, tmp_path):
    config = tmp_path / "config.yaml"
    small.config.write(config)
    session = workbench({"config": str(config), "data_roots": [str(tmp_path)]}).session
    assert "not in a folder that this server may read" in session.error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"config": "nowhere.yaml"}, r"nowhere\.yaml: cannot read the configuration"),
        ({"models": "models.yaml"}, "models need a configuration too"),
        ({"data_roots": ["/nowhere"]}, "'/nowhere' is not a folder"),
        ({"port": 1_000_000}, "1000000 cannot be used"),
    ],
)
def test_serve_reports_a_mistake_before_it_starts(arguments, message):
    with pytest.raises(InputError, match=message):
        serve(**arguments, open_browser=False)


def test_the_server_shows_no_tracebacks_and_loads_only_what_it_needs(tmp_path, monkeypatch):
    import json
    import sys

    monkeypatch.setenv("JUPYTER_PATH", "/elsewhere")
    monkeypatch.setenv(ENVIRONMENT, "{}")
    notebook = _prepare(tmp_path, {"data_roots": []})
    name = json.loads(notebook.read_text())["metadata"]["kernelspec"]["name"]
    spec = json.loads((tmp_path / "share" / "kernels" / name / "kernel.json").read_text())
    assert spec["argv"][0] == sys.executable, "the kernel is this interpreter"
    config = _voila_config(8866, False)
    voila = config["VoilaConfiguration"]
    assert not voila["show_tracebacks"] and voila["file_allowlist"] == []
    assert "bqplot" in voila["extension_allowlist"] and config["Voila"]["ip"] == "localhost"
    assert config["MappingKernelManager"]["cull_connected"] is False


def test_the_page_asks_nothing_of_other_hosts():
    pages = [path for path in TEMPLATE_ROOT.rglob("*") if path.is_file()]
    assert len(pages) >= 4
    for page in pages:
        assert not re.search(r"https?://|//cdn|@import", page.read_text()), page


# --- numbers


@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        (-0.0518133, 0.00272, ("-0.0518", "0.0027")),
        (2.9626e-11, 1.459e-12, ("2.96e-11", "1.5e-12")),
        (0.99282, 0.00341, ("0.9928", "0.0034")),
        (0.0996, 0.00996, ("0.100", "0.010")),
        (123456.7, 321.0, ("123460", "320")),
        (0.0, 0.001, ("0.0000", "0.0010")),
        (-1.616563e-12, 0.0, ("-1.617e-12", "")),
        (30.25, 0.0, ("30.25", "")),
        (1.5, float("nan"), ("1.5", "")),
    ],
)
def test_numbers_have_two_digits_of_their_error(value, error, expected):
    assert (value_text(value, error), error_text(error, value)) == expected


def test_numbers_for_reading():
    assert measurement(2.9626e-11, 1.459e-12, "s-1 cm-2") == "(2.96 ± 0.15) × 10⁻¹¹ cm⁻² s⁻¹"
    assert measurement(-0.05181, 0.00272, "deg") == "\N{MINUS SIGN}0.0518 ± 0.0027 deg"
    assert measurement(3e-11, 5e-11) == "(3.0 ± 5.0) × 10⁻¹¹"
    assert unit_text("TeV-1 s-1 cm-2") == "cm⁻² s⁻¹ TeV⁻¹" and unit_text("") == ""
    assert count_text(85625.4) == "85\N{NARROW NO-BREAK SPACE}625"
    assert limit_text(float("nan")) == "" and limit_text(-90) == "-90"
