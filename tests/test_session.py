"""The session: verbs, undo, preview, files. No widget and no browser."""

from __future__ import annotations

import asyncio
import math
import threading
import time

import numpy as np
import pytest
from astropy import units as u
from small import bright, centre
from traitlets import TraitError

from imgfit_widgets.core.analysis import Analysis
from imgfit_widgets.core.config import AnalysisConfig
from imgfit_widgets.core.dataset import MapDataset
from imgfit_widgets.core.errors import ConfigError, DataError, ImgfitError, ModelError
from imgfit_widgets.core.maps import WcsGeom, WcsNDMap
from imgfit_widgets.core.models import Models
from imgfit_widgets.session import Session

# --- reduction


def test_reduce_runs_in_the_background_and_adds_a_background_model(small_config):
    session = Session(small_config)
    assert session.why_not("fit") == "Reduce the data first"
    task = session.reduce()
    assert task.status == "running" and session.why_not("reduce") == "Reducing the data"
    task.wait(60)
    assert task.status == "done" and session.models.names == ["stacked-bkg"]
    assert session.dataset.counts.data.sum() > 5000
    assert session.data_are_current and session.why_not("fit") == ""
    session.config.datasets.geom.wcs.binsize = "0.1 deg"
    assert not session.data_are_current


def test_a_failed_reduction_says_why_and_keeps_what_there_was(session, reduced, tmp_path):
    session.add_source(*centre(session))
    session.config.observations.datastore = tmp_path
    session.reduce().wait(60)
    assert session.task.status == "failed"
    assert session.error == session.task.error and str(tmp_path) in session.error
    assert session.datasets is reduced and "Source-1" in session.models.names
    session.undo()
    session.reduce().wait(60)
    assert session.task.status == "done" and session.error == ""


def test_what_is_not_supported_is_refused_before_anything_runs(session):
    session.config.datasets.background.method = "reflected"
    with pytest.raises(ConfigError, match=r"background\.method: 'reflected' cannot be used"):
        session.reduce()
    assert session.error.startswith("datasets.background.method") and not session.task.running


def test_a_cancelled_reduction_changes_nothing(session, reduced):
    session.reduce()
    session.cancel()
    session.task.wait(60)
    assert session.task.status == "cancelled" and session.datasets is reduced
    assert session.error == ""


def test_paths_outside_of_the_allowed_folders_are_refused(demo_store, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", str(tmp_path / "secret"))
    session = Session(AnalysisConfig.read(demo_store / "config.yaml"), data_roots=(str(tmp_path),))
    with pytest.raises(ConfigError, match="not in a folder that this server may read"):
        session.reduce()
    session.config.observations.datastore = "$SECRET/../../x"
    with pytest.raises(ConfigError) as error:
        session.reduce()
    assert "$SECRET" in str(error.value) and "secret" not in str(error.value).lower().split("$")[0]
    session.data_roots = (str(demo_store),)
    session.config.observations.datastore = demo_store
    session.config.datasets.geom.wcs.binsize = "0.1 deg"
    session.reduce().wait(60)
    assert session.task.status == "done"


def test_backgrounds_follow_the_datasets(session, small_config):
    config = small_config.copy()
    config.datasets.stack = False
    config.observations.obs_ids = [1, 2]
    session.add_source(*centre(session))
    session.set_config(config)
    session.reduce().wait(60)
    names = session.datasets.names
    assert len(names) == 2 and session.dataset_name == names[0]
    assert session.models.names == ["Source-1", *(f"{name}-bkg" for name in names)]
    assert len(session.preview.npred) == 2


def test_the_norms_that_a_reduction_fitted_are_where_the_backgrounds_start(small_config):
    config = small_config.copy()
    config.datasets.stack = False
    session = Session(config)
    session.reduce().wait(60)
    (model,) = session.models.background_models
    found = session.dataset.background_model.parameters["norm"]
    assert found.value != 1 and found.error > 0
    norm = model.parameters["norm"]
    assert (norm.value, norm.error) == (found.value, found.error) and norm is not found
    session.set_models(Models())
    assert session.models.background_models[0].parameters["norm"].value == found.value


def test_datasets_bring_the_models_of_their_analysis_along(small_config, demo_store):
    analysis = Analysis(small_config)
    analysis.get_observations()
    analysis.get_datasets()
    analysis.set_models(Models.read(demo_store / "truth.yaml"))
    theirs = analysis.models
    theirs.background_model("stacked").parameters["norm"].value = 1.25
    session = Session()
    session.set_datasets(analysis.datasets)
    assert session.models.names == theirs.names
    assert session.models["stacked-bkg"].parameters["norm"].value == 1.25
    mine = session.models[0].linear_parameter
    assert mine is not theirs[0].linear_parameter
    mine.value *= 2
    flux = mine.value
    session.set_datasets(analysis.datasets)
    assert session.models.names == theirs.names
    assert session.models[0].linear_parameter.value == flux, "what is there already stays"


def test_data_keep_the_configuration_that_they_are_from_when_undo_keeps_them(small_config):
    session = Session(small_config)
    session.config.datasets.geom.wcs.binsize = "0.1 deg"
    session.reduce().wait(60)
    assert session.data_are_current
    session.undo()
    assert session.config.datasets.geom.wcs.binsize.deg == 0.05
    assert session.dataset.geom.pixel_scales[0] == pytest.approx(0.1)
    assert not session.data_are_current
    session.redo()
    assert session.data_are_current


# --- sources by hand


def test_a_new_source_has_a_fresh_name_and_the_flux_that_the_counts_ask_for(session, demo_store):
    lon, lat, flux = bright(demo_store)
    name = session.add_source(lon, lat)
    assert name == "Source-1" == session.selected
    model = session.models[name]
    assert model.frame == session.dataset.geom.frame
    assert model.spectral_model.index.value == 2 and model.spectral_model.index.frozen
    assert model.spatial_model.position_lonlat == pytest.approx((lon, lat))
    assert 0.5 * flux < model.linear_parameter.value < 2 * flux
    assert session.preview.delta_ts > 100
    assert session.add_source(lon + 0.5, lat) == "Source-2"
    assert session.models.names == ["Source-1", "Source-2", "stacked-bkg"]


def test_a_source_in_another_frame_ends_up_at_the_same_place(session):
    geom = session.dataset.geom
    lon, lat = centre(session)
    ra, dec = geom.to_frame(lon + 0.3, lat + 0.2, "icrs")
    name = session.add_source(float(ra), float(dec), frame="icrs")
    assert session.models[name].spatial_model.position_lonlat == pytest.approx(
        (lon + 0.3, lat + 0.2), abs=1e-6
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((120.0, 40.0), "is not on the map"), ((30.0, 0.0, None, "cube"), "'cube' is not a shape")],
)
def test_a_source_that_cannot_be_is_refused(session, arguments, message):
    with pytest.raises(ModelError, match=message):
        session.add_source(*arguments)
    assert session.models.names == ["stacked-bkg"] and not session.history.can_undo


def test_dragging_solves_fluxes_and_is_one_step_of_undo(session, demo_store):
    lon, lat, _ = bright(demo_store)
    name = session.add_source(lon + 0.4, lat)
    start, away = session.models[name].linear_parameter.value, session.preview.delta_ts
    session.begin_drag(name)
    for step in range(9):
        session.drag_to(name, lon + 0.4 - 0.05 * step, lat)
    session.end_drag()
    assert session.models[name].spatial_model.lon_0.value == pytest.approx(lon)
    assert session.models[name].linear_parameter.value > 3 * abs(start)
    assert session.preview.delta_ts > away + 100
    session.undo()
    assert session.models[name].spatial_model.lon_0.value == pytest.approx(lon + 0.4)
    assert session.models[name].linear_parameter.value == start
    session.redo()
    assert session.models[name].spatial_model.lon_0.value == pytest.approx(lon)
    session.undo()
    session.undo()
    assert session.models.names == ["stacked-bkg"] and session.why_not("undo") == "Nothing to undo"


def test_a_source_waits_at_the_edge_when_the_hand_leaves_the_map(session):
    lon, lat = centre(session)
    name = session.add_source(lon, lat)
    session.drag_to(name, lon + 50, lat)
    assert session.models[name].spatial_model.position_lonlat == pytest.approx((lon, lat))


def test_the_preview_is_that_of_the_present_values_after_any_edit(session):
    name = session.add_source(*centre(session), spatial="gauss")
    before = session.preview
    session.models[name].spatial_model.sigma.value = 0.4
    assert session.preview is not before
    from imgfit_widgets.core.evaluator import Evaluator

    evaluator = Evaluator(list(session.datasets), session.models)
    assert session.preview.stat == pytest.approx(evaluator.stat(evaluator.x0), abs=1e-6)
    assert session.models[name].spatial_model.sigma.value == 0.4


def test_size_shape_nudge_and_removal(session):
    lon, lat = centre(session)
    name = session.add_source(lon, lat)
    session.drag_size(name, 0.3)
    assert session.models[name].spatial_model.tag[-1] == "point"
    session.set_shape(name, "gauss")
    session.drag_size(name, 0.3)
    assert session.models[name].spatial_model.sigma.value == pytest.approx(0.3)
    session.nudge(2, 0)
    assert session.models[name].spatial_model.lon_0.value == pytest.approx(lon - 0.1, abs=1e-3)
    beside = session.add_source(lon + 0.4, lat)
    session.remove_source()
    assert session.selected == name, "the one beside, so that the form and the map agree"
    assert beside not in session.models.names
    session.remove_source()
    assert session.selected == "" and session.models.names == ["stacked-bkg"]
    with pytest.raises(ImgfitError, match="Select a source first"):
        session.remove_source()


def test_snap_finds_the_source_beside(session, demo_store):
    lon, lat, _ = bright(demo_store)
    name = session.add_source(lon + 0.05, lat - 0.05)
    before = session.preview.delta_ts
    session.snap().wait(60)
    assert session.models[name].spatial_model.position_lonlat == pytest.approx((lon, lat), abs=0.02)
    assert session.preview.delta_ts > before
    session.undo()
    assert session.models[name].spatial_model.lon_0.value == pytest.approx(lon + 0.05)


def test_a_snap_that_fails_says_so_and_leaves_the_source(session, monkeypatch):
    from dataclasses import replace

    from imgfit_widgets import session as module

    lon, lat = centre(session)
    name = session.add_source(lon, lat)
    solve = module.Fit.solve

    def fail(*arguments):
        return replace(solve(*arguments), success=False, message="did not converge")

    monkeypatch.setattr(module.Fit, "solve", fail)
    session.snap().wait(60)
    assert session.task.status == "failed"
    assert session.error == f"{name} stays where it is: did not converge"
    assert session.models[name].spatial_model.position_lonlat == (lon, lat)


def test_a_snap_on_data_that_are_gone_is_not_applied(session, reduced):
    from imgfit_widgets.core.dataset import Datasets

    lon, lat = centre(session)
    name = session.add_source(lon, lat)
    session.snap()
    session.set_datasets(Datasets(reduced))
    session.task.wait(60)
    assert session.task.status == "failed" and "data changed" in session.error
    assert session.models[name].spatial_model.position_lonlat == (lon, lat)


def stat_anew(session):
    """The statistic of the session's models, compiled for the occasion."""
    from imgfit_widgets.core.evaluator import Evaluator

    evaluator = Evaluator(list(session.datasets), session.models)
    return pytest.approx(evaluator.stat(evaluator.x0), abs=1e-6)


def test_the_preview_follows_a_change_of_unit(session):
    name = session.add_source(*centre(session))
    amplitude, before = session.models[name].linear_parameter, session.preview.stat
    amplitude.unit = "m-2 s-1"
    assert session.preview.stat == stat_anew(session) != before


def test_the_preview_follows_frame_and_datasets_of_a_source(session):
    name = session.add_source(*centre(session))
    source, before = session.models[name], session.preview.stat
    source.datasets_names = ["another"]
    norm = session.models["stacked-bkg"].parameters["norm"]
    norm.error = 0.1
    assert session.preview is None, "there is no such dataset"
    source.datasets_names = ["stacked"]
    norm.error = 0.2
    assert session.preview.stat == stat_anew(session) == before
    source.spatial_model.frame = "icrs"
    norm.error = 0.3
    assert not session.preview.flux, "there is no such place on the map"
    assert "off the map" in session.error


def test_the_preview_follows_a_name_that_a_script_sets(session):
    name = session.add_source(*centre(session))
    session.models[name].name = "Crab"
    assert session.preview.stat == stat_anew(session) and list(session.preview.flux) == ["Crab"]
    session.undo()
    assert session.models.names == [name, "stacked-bkg"]


def test_a_source_is_renamed_and_that_is_one_step_of_undo(session):
    name = session.add_source(*centre(session))
    session.rename(name, " Crab ")
    assert session.models.names == ["Crab", "stacked-bkg"] and session.selected == "Crab"
    assert {p.owner for p in session.models["Crab"].parameters} == {"Crab"}
    session.nudge(1, 1)
    assert session.preview.stat == stat_anew(session)
    session.undo()
    session.undo()
    assert session.models.names == [name, "stacked-bkg"] and session.preview.flux[name]
    session.redo()
    assert session.models.names == ["Crab", "stacked-bkg"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("  ", "the new name is empty"), ("stacked-bkg", "there is a model 'stacked-bkg' already")],
)
def test_a_name_that_cannot_be_is_refused(session, name, message):
    session.add_source(*centre(session))
    revision = session.revision
    with pytest.raises(ModelError, match=f"Source-1: {message}"):
        session.rename("Source-1", name)
    assert session.models.names == ["Source-1", "stacked-bkg"] and session.revision == revision


# --- fit


def test_fit_sets_values_and_errors_and_knows_when_it_is_no_longer_current(session, demo_store):
    lon, lat, flux = bright(demo_store)
    name = session.add_source(lon + 0.03, lat)
    session.fit().wait(60)
    assert session.task.status == "done" and session.fit_result.success
    parameter = session.models[name].linear_parameter
    assert abs(parameter.value - flux) < 5 * parameter.error
    assert session.fit_result.ts[name].ts == pytest.approx(session.preview.delta_ts, abs=1e-3)
    assert session.fit_is_current
    value = parameter.value
    parameter.value = 1.01 * value
    assert not session.fit_is_current
    parameter.value = value
    assert session.fit_is_current
    session.models[name].spatial_model.lat_0.frozen = True
    assert not session.fit_is_current


def test_fit_looks_around_its_sources_if_asked(session, demo_store):
    lon, lat, _ = bright(demo_store)
    name = session.add_source(lon + 0.05, lat)
    session.fit().wait(60)
    at = session.fit_result.value(name, "lon_0")
    session.models[name].spatial_model.lat_0.value += 0.35
    session.search_radius = 0.45
    session.fit().wait(60)
    assert session.fit_result.value(name, "lon_0") == pytest.approx(at, abs=1e-4)
    with pytest.raises(TraitError):
        session.search_radius = -1.0


def test_a_new_source_has_the_flux_of_its_counts_whatever_the_exposure():
    """5000 counts over a flat background with an exposure of 1 cm2 s."""
    y, x = np.mgrid[:60, :60]
    shape = np.exp(-0.5 * ((x - 30) ** 2 + (y - 30) ** 2) / 2.5**2) / (2 * np.pi * 2.5**2)
    geom = WcsGeom.create((0.0, 0.0), (1.2, 1.2), 0.02, "CAR", "galactic")
    counts = WcsNDMap(geom, np.round(10.0 + 5000.0 * shape))
    background = WcsNDMap(geom, np.full(geom.shape, 10.0))
    session = Session()
    exposure = 1.0 * u.Unit("cm2 s")
    session.set_datasets(MapDataset.from_images(counts, background, exposure, "0.05 deg"))
    name = session.add_source(*geom.center_lonlat)
    amplitude = session.models[name].linear_parameter.value
    assert amplitude == pytest.approx(5000.0, rel=0.03)
    session.fit().wait(60)
    assert session.fit_result.success, session.fit_result.message
    assert session.fit_result.value(name, "amplitude") == pytest.approx(5000.0, rel=0.03)


def test_undo_takes_a_fit_back_whole(session):
    name = session.add_source(*centre(session))
    start = session.models[name].linear_parameter.value
    session.fit().wait(60)
    session.undo()
    assert session.fit_result is None
    assert session.models[name].linear_parameter.value == start
    assert session.models[name].linear_parameter.error == 0
    session.redo()
    assert session.fit_is_current and session.models[name].linear_parameter.error > 0


def test_the_fit_sends_its_steps_while_it_runs(session):
    session.add_source(*centre(session))
    steps = []
    session.task.observe(lambda change: steps.append(change.new), "live")
    session.fit().wait(60)
    steps = [step for step in steps if step is not None]
    assert steps and ("Source-1", "lon_0") in steps[-1].values


def test_a_fit_that_fails_says_why(session):
    name = session.add_source(*centre(session))
    session.models[name].spectral_model.index.frozen = False
    session.fit().wait(60)
    assert session.task.status == "failed" and name in session.error
    assert session.fit_result is not None and not session.fit_result.success


def test_models_that_change_while_a_fit_runs_are_not_overwritten(session, monkeypatch):
    from imgfit_widgets import session as module

    release, solve = threading.Event(), module.Fit.solve

    def slow(self, *arguments):
        release.wait(10)
        return solve(self, *arguments)

    monkeypatch.setattr(module.Fit, "solve", slow)
    name = session.add_source(*centre(session))
    session.fit()
    session.remove_source(name)
    release.set()
    session.task.wait(60)
    assert session.task.status == "failed" and "changed while the fit ran" in session.error
    assert session.models.names == ["stacked-bkg"]


@pytest.mark.parametrize("verb", ["fit", "snap", "nudge", "add_source"])
def test_verbs_say_what_they_need(verb):
    assert Session().why_not(verb) == "Reduce the data first"


# --- undo of edits


def test_every_edit_is_a_step_and_an_edit_that_changes_nothing_is_none(session):
    norm = session.models["stacked-bkg"].parameters["norm"]
    norm.value = 1.1
    norm.min = 0.5
    session.config.datasets.geom.wcs.binsize = "0.1 deg"
    norm = session.models["stacked-bkg"].parameters["norm"]
    norm.value = norm.value
    session.undo()
    assert session.config.datasets.geom.wcs.binsize.deg == 0.05
    session.undo()
    assert math.isnan(session.models["stacked-bkg"].parameters["norm"].min)
    session.undo()
    assert session.models["stacked-bkg"].parameters["norm"].value == 1
    assert not session.history.can_undo


def test_a_new_edit_drops_what_was_undone(session):
    session.add_source(*centre(session))
    session.undo()
    assert session.history.can_redo
    session.models["stacked-bkg"].parameters["norm"].value = 1.2
    assert not session.history.can_redo and session.why_not("redo") == "Nothing to redo"


# --- errors, files, threads


def test_a_bad_config_or_model_text_leaves_everything(session):
    before = session.config.to_dict()
    with pytest.raises(ConfigError, match=r"datasets\.geom\.wcs\.binsize"):
        session.set_config("datasets: {geom: {wcs: {binsize: 3 kg}}}")
    assert session.config.to_dict() == before and "binsize" in session.error
    assert session.attempt(session.set_models, "components: 3") is None
    assert "components" in session.error and session.models.names == ["stacked-bkg"]
    session.add_source(*centre(session))
    assert session.error == ""


def test_a_session_file_brings_everything_back(session, tmp_path):
    session.add_source(*centre(session), spatial="gauss")
    session.fit().wait(60)
    session.view = {"kind": "residual"}
    session.save(tmp_path / "a.imgfit")
    other = Session()
    other.open(tmp_path / "a.imgfit")
    assert other.config.to_dict() == session.config.to_dict()
    assert other.selected == "Source-1" and other.view == {"kind": "residual"}
    for mine, theirs in zip(other.models.parameters, session.models.parameters, strict=True):
        assert (mine.label, mine.value, mine.frozen) == (theirs.label, theirs.value, theirs.frozen)
        assert mine.error == pytest.approx(theirs.error)
    assert other.models.covariance == pytest.approx(session.models.covariance)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"nonsense"])
def test_what_is_no_session_file_is_refused(session, content):
    with pytest.raises(DataError, match="not a session file"):
        session.open(content)
    with pytest.raises(DataError, match=r"/nowhere\.imgfit: cannot be read"):
        session.open("/nowhere.imgfit")


def archive(session, **changes):
    """A session file whose session.json is changed."""
    import io
    import json
    import zipfile

    source = zipfile.ZipFile(io.BytesIO(session.export_session()[1]))
    parts = {name: source.read(name) for name in source.namelist()}
    parts["session.json"] = json.dumps({**json.loads(parts["session.json"]), **changes}).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for name, content in parts.items():
            target.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"covariance": [[1.0]]}, "covariance is not a table of 3 × 3"),
        ({"covariance": [["x"] * 3] * 3}, "covariance is not a table of 3 × 3"),
        ({"covariance": 7}, "covariance is not a table of 3 × 3"),
        ({"view": 3}, "view 3 cannot be used"),
        ({"view": {"maps": 5}}, "cannot be used"),
        ({"view": {"maps": [3]}}, "cannot be used"),
        ({"view": {"maps": [{"kind": ["counts"]}]}}, "cannot be used"),
        ({"view": {"maps": [{"radius": "wide"}]}}, "cannot be used"),
        ({"view": {"maps": [{"looks": {"counts": {"by_hand": [1]}}}]}}, "cannot be used"),
        ({"format": 2}, "saved by a later version"),
        ({"format": [1]}, "not a session file"),
    ],
)
def test_a_session_file_with_a_mistake_changes_nothing(session, changes, message):
    content = archive(session, **changes)
    session.add_source(*centre(session))
    session.config.datasets.geom.wcs.binsize = "0.1 deg"
    before, revision = session.export_session(), session.revision
    with pytest.raises(DataError, match=message):
        session.open(content)
    assert session.export_session()[1] == before[1] and session.revision == revision


def test_an_encrypted_or_damaged_session_file_is_refused_in_words(session):
    content = bytearray(archive(session))
    for marker, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(marker) + offset] |= 1
    with pytest.raises(DataError, match="not a session file"):
        session.open(bytes(content))
    packed = bytearray(session.export_session()[1])
    packed[60:90] = bytes(30)
    with pytest.raises(DataError, match="not a session file"):
        session.open(bytes(packed))


def test_a_fault_of_the_program_is_said_and_logged_and_not_raised(session, caplog):
    def fault():
        raise KeyError("lon_0")

    assert session.attempt(fault) is None
    assert session.error == "unexpected: KeyError: 'lon_0'; please report"
    assert "fault failed" in caplog.text and "Traceback" in caplog.text


def test_exports_are_files_that_can_be_read_again(session, tmp_path):
    import json

    from astropy.table import Table

    from imgfit_widgets.core.dataset import MapDataset

    session.add_source(*centre(session))
    with pytest.raises(ImgfitError, match="no fit result yet"):
        session.export_results()
    session.fit().wait(60)
    assert Models.from_yaml(session.export_models()[1].decode()).names == session.models.names
    text = session.export_config()[1].decode()
    assert AnalysisConfig.from_yaml(text).to_dict() == session.config.to_dict()
    result = json.loads(session.export_results()[1])
    assert result["fit"]["success"] and result["fit"]["ts"]["Source-1"]["dof"] == 3
    (tmp_path / "p.ecsv").write_bytes(session.export_results("ecsv")[1])
    assert "lon_0" in Table.read(tmp_path / "p.ecsv")["name"]
    name, content = session.export_dataset()
    (tmp_path / name).write_bytes(content)
    counts = MapDataset.read(tmp_path / name).counts.data
    assert (counts == session.dataset.counts.data).all()


def test_verbs_from_another_thread_run_on_the_owner(small_config, reduced):
    async def main():
        session = Session(small_config)
        session.set_datasets(reduced)
        threads = set()
        session.models.observe(lambda change: threads.add(threading.current_thread()), "components")
        place = centre(session)
        other = threading.Thread(target=session.add_source, args=place)
        other.start()
        end = time.monotonic() + 5
        while "Source-1" not in session.models.names and time.monotonic() < end:
            await asyncio.sleep(0.01)
        return threads

    assert asyncio.run(main()) == {threading.current_thread()}


def test_edits_within_one_turn_of_the_loop_are_one_step_and_one_preview(small_config, reduced):
    async def main():
        session = Session(small_config)
        session.set_datasets(reduced)
        await asyncio.sleep(0.05)
        seen = []
        session.observe(lambda change: seen.append(change.new), "preview")
        for value in (1.1, 1.2, 1.3):
            session.models["stacked-bkg"].parameters["norm"].value = value
        await asyncio.sleep(0.05)
        session.undo()
        return len(seen), session.models["stacked-bkg"].parameters["norm"].value

    previews, norm = asyncio.run(main())
    assert previews == 2 and norm == 1  # one for the edits, one for the undo
