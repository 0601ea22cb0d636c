"""The session where a first user came to grief: off the map, stale errors, undo, served data."""

from __future__ import annotations

import shutil

import pytest
from small import bright, centre

from imgfit_widgets.core.config import AnalysisConfig
from imgfit_widgets.core.errors import ConfigError
from imgfit_widgets.core.fit import Fit
from imgfit_widgets.core.models import Models
from imgfit_widgets.session import Session


def test_a_source_off_the_map_is_named_and_the_others_still_count(session):
    lon, lat = centre(session)
    session.add_source(lon, lat)
    before = session.preview.npred[0].sum(), session.preview.flux["Source-1"]
    session.add_source(lon + 0.3, lat)
    session.models["Source-2"].spatial_model.lon_0.value = 200
    assert "Source-2" in session.error and "off the map" in session.error
    assert list(session.preview.flux) == ["Source-1"]
    assert session.preview.npred[0].sum() == pytest.approx(before[0], rel=0.01)
    session.select("Source-1")
    assert session.preview.delta_ts != 0 and "off the map" in session.error
    session.drag_to("Source-1", lon + 0.1, lat)
    assert session.preview.flux["Source-1"] > 0 and "Source-2" in session.error
    session.drag_to("Source-2", lon - 0.2, lat)
    assert set(session.preview.flux) == {"Source-1", "Source-2"} and session.error == ""
    session.undo()
    assert list(session.preview.flux) == ["Source-1"] and "Source-2" in session.error


@pytest.mark.parametrize("gesture", ["drag", "type", "shape", "snap"])
def test_a_gesture_takes_away_the_errors_of_the_fit_and_undo_brings_them_back(
    session, demo_store, gesture
):
    lon, lat, _ = bright(demo_store)
    session.add_source(lon, lat)
    session.fit().wait(60)

    def errors():
        return [p.error for p in session.models["Source-1"].parameters if p.name != "index"]

    fitted, covariance = errors(), session.models.covariance
    assert any(fitted)
    session.models["Source-1"].spatial_model.lon_0.frozen = True
    assert errors() == fitted
    session.undo()
    if gesture == "drag":
        session.drag_to("Source-1", lon + 0.05, lat)
        assert session.models["stacked-bkg"].parameters["norm"].error == 0
    elif gesture == "type":
        session.models["Source-1"].spatial_model.lon_0.value += 0.02
        assert session.models["stacked-bkg"].parameters["norm"].error > 0
    elif gesture == "shape":
        session.set_shape("Source-1", "gauss")
    else:
        session.snap().wait(60)
    assert not any(errors())
    if gesture != "shape":
        place = session.models.parameters.names.index("lon_0")
        assert not session.models.covariance[place].any()
    session.undo()
    assert errors() == fitted
    assert session.models.covariance == pytest.approx(covariance)


def test_undo_and_redo_keep_the_selection(session):
    lon, lat = centre(session)
    session.add_source(lon, lat)
    session.undo()
    assert session.selected == ""
    session.redo()
    assert session.selected == "Source-1" and session.preview.delta_ts != 0
    session.drag_to("Source-1", lon + 0.1, lat)
    session.undo()
    session.redo()
    assert session.selected == "Source-1"


def test_files_of_the_index_and_variables_cannot_lead_out_of_the_allowed_folders(
    demo_store, tmp_path, monkeypatch
):
    shutil.copytree(demo_store, tmp_path / "root")
    config = AnalysisConfig.read(tmp_path / "root" / "config.yaml")
    config.observations.datastore = tmp_path / "root"
    session = Session(config, data_roots=(str(tmp_path / "root"),))
    events = sorted((tmp_path / "root").rglob("*event*.fits*"))[0]
    shutil.move(events, tmp_path / "elsewhere.fits")
    events.symlink_to(tmp_path / "elsewhere.fits")
    session.reduce().wait(60)
    assert session.task.status == "failed"
    assert session.error.startswith("observations.datastore: the events file of run 1")
    assert "elsewhere" not in session.error
    monkeypatch.setenv("SECRET", "hush-hush")
    for path in ("$SECRET/x", "${SECRET}", str(tmp_path / "root" / "a$SECRET")):
        session.config.observations.datastore = path
        with pytest.raises(ConfigError, match="'SECRET', which this server does not fill in") as no:
            session.reduce()
        assert "hush" not in str(no.value)
    monkeypatch.setenv("GAMMAPY_DATA", str(demo_store))
    session.data_roots = (str(demo_store),)
    session.config.observations.datastore = "$GAMMAPY_DATA"
    session.config.datasets.geom.wcs.binsize = "0.2 deg"
    session.reduce().wait(60)
    assert session.task.status == "done"


def test_a_fit_made_in_code_counts_as_the_sessions_own(small, demo_store):
    """Its values came along, but every question still asked for a fit."""
    session = Session(small.config)
    session.set_datasets(small.datasets)
    session.set_models(Models([Models.read(demo_store / "truth.yaml")["bright"].copy()]))
    result = Fit().solve(session.datasets, session.models)
    session.select(session.models.sky_models[0].name)
    assert session.why_not("find_errors") != ""
    session.set_fit_result(result)
    assert session.fit_is_current and session.why_not("find_errors") == ""
    for row in result.parameters:
        parameter = session.models[row["model"]].parameters[row["name"]]
        assert parameter.value == row["value"]
        assert parameter.error == row["error"] or row["frozen"]
    # Of other data: they come along, as they are what the fit is of.
    other = Session(small.config)
    other.set_fit_result(result)
    assert other.fit_is_current and other.datasets.names == session.datasets.names
    session.undo()
    assert session.fit_result is None
