"""What a session asks of a reduction beside its configuration, and what it says of the result."""

from __future__ import annotations

import asyncio
import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits

from imgfit_widgets.core.config import AnalysisConfig
from imgfit_widgets.core.errors import ConfigError, DataError, ImgfitError
from imgfit_widgets.reducing import check_geometry, run_of
from imgfit_widgets.session import Session
from imgfit_widgets.task import Owner, Task
from imgfit_widgets.widgets.config_editor import ConfigEditor, left_out_words
from imgfit_widgets.widgets.lean import is_shown
from imgfit_widgets.widgets.workbench import ErrorBar, Workbench


@pytest.fixture
def coarse(demo_store):
    config = AnalysisConfig.read(demo_store / "config.yaml")
    config.datasets.geom.wcs.binsize = "0.1 deg"
    return config


@pytest.fixture
def broken(demo_store, coarse, tmp_path):
    """A configuration of a store in which the events of run 2 are cut off."""
    store = tmp_path / "store"
    shutil.copytree(demo_store, store)
    path = next(path for path in store.rglob("*0002*.fits*"))
    path.write_bytes(path.read_bytes()[:4000])
    coarse.observations.datastore = store
    return coarse


@pytest.fixture
def image(tmp_path):
    """A FITS image of 60 × 40 tangential pixels."""
    header = fits.Header(
        {
            "CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN", "CRVAL1": 30.0, "CRVAL2": 0.0,
            "CRPIX1": 30.5, "CRPIX2": 20.5, "CDELT1": -0.05, "CDELT2": 0.05,
            "CUNIT1": "deg", "CUNIT2": "deg",
        }
    )  # fmt: skip
    path = tmp_path / "image.fits"
    fits.PrimaryHDU(np.zeros((40, 60), dtype=np.float32), header).writeto(path)
    return path


def projection(session):
    return session.dataset.geom.wcs.wcs.ctype[0]


def test_a_session_reduces_in_another_projection_and_on_the_pixels_of_an_image(coarse, image):
    session = Session(coarse)
    session.geometry = "TAN"
    session.reduce().wait(60)
    assert projection(session) == "GLON-TAN" and session.dataset.geom.shape == (40, 50)
    assert session.data_are_current
    session.geometry = str(image)
    assert not session.data_are_current
    session.reduce().wait(60)
    assert session.dataset.geom.shape == (40, 60)
    assert session.dataset.geom.pixel_scales == pytest.approx((0.05, 0.05), rel=1e-3)
    session.undo()
    assert session.dataset.geom.shape == (40, 50) and not session.data_are_current
    session.undo()
    assert session.geometry == "TAN" and session.data_are_current


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("", "geometry: empty; expected CAR or TAN"),
        ("ARC", "ARC: no such file; expected a FITS file"),
        ("config.yaml", "is no FITS file"),
    ],
)
def test_a_geometry_that_is_none_is_refused_before_anything_runs(
    coarse, demo_store, word, reason, monkeypatch
):
    monkeypatch.chdir(demo_store)
    session = Session(coarse)
    session.geometry = word
    with pytest.raises(ImgfitError, match=reason):
        session.reduce()
    assert not session.task.running and reason in session.error
    assert check_geometry(" tan ") == "TAN"


def test_a_served_session_takes_no_geometry_from_elsewhere(coarse, demo_store, image):
    session = Session(coarse, data_roots=(str(demo_store),))
    session.geometry = str(image)
    with pytest.raises(ConfigError, match=r"geometry: .* not in a folder that this server"):
        session.reduce()


def test_the_session_file_keeps_what_is_asked_of_reduction_and_fit(coarse):
    session = Session(coarse)
    session.geometry, session.skip_failed, session.search_radius = "TAN", True, 0.4
    other = Session()
    other.open(session.export_session()[1])
    assert (other.geometry, other.skip_failed, other.search_radius) == ("TAN", True, 0.4)
    other.undo()
    assert (other.geometry, other.skip_failed, other.search_radius) == ("CAR", False, 0.0)


def test_a_run_that_fails_is_named_with_the_remedy_and_taken_out_by_a_button(broken):
    session = Session(broken)
    bar = ErrorBar(session)
    assert not is_shown(bar.without)
    session.reduce().wait(60)
    assert session.task.status == "failed" and session.failed_run == 2
    assert session.error.startswith("observation 2: ") and session.datasets is None
    assert "“Go on without runs that fail”, or reduce without run 2" in session.error
    assert is_shown(bar.without)
    assert bar.without.description == "Reduce without run 2"
    bar.without.click()
    session.task.wait(60)
    assert session.task.status == "done" and not is_shown(bar.without)
    assert session.config.observations.obs_ids == [1, 3, 4]
    assert [run.obs_id for run in session.dataset.runs] == [1, 3, 4]
    assert session.failed == {}


def test_runs_that_are_skipped_are_listed_with_their_reasons(broken):
    session = Session(broken)
    editor = ConfigEditor(session)
    editor.skip.value = True
    assert session.skip_failed
    session.reduce().wait(60)
    assert session.task.status == "done" and list(session.failed) == [2]
    assert [run.obs_id for run in session.dataset.runs] == [1, 3, 4]
    assert "1 run is left out:" in editor.left_out.value and "<b>2</b>" in editor.left_out.value
    assert is_shown(editor.left_out)
    session.set_datasets(session.datasets[:1])
    assert session.failed == {} and not is_shown(editor.left_out)
    assert left_out_words({3: "a <b", 4: "c"}).startswith("2 runs are left out:")
    assert "a &lt;b" in left_out_words({3: "a <b"})


def test_a_single_run_that_fails_has_no_remedy(broken):
    broken.observations.obs_ids = [2]
    session = Session(broken)
    session.reduce().wait(60)
    assert session.error.startswith("observation 2: ") and "To go on" not in session.error
    assert run_of("observations.obs_ids: observation 7: not in the index") == 7
    assert run_of("datasets.geom: observation 7") is None


def test_the_models_and_datasets_that_a_configuration_names_are_taken(
    coarse, demo_store, small, tmp_path
):
    coarse.general.models_file = demo_store / "truth.yaml"
    session = Session(coarse)
    session.reduce().wait(60)
    assert len(session.models.sky_models) == 3
    session.models.components = ()
    session.reduce().wait(60)
    assert len(session.models.sky_models) == 0, "sources that were removed stay away"

    path = tmp_path / "there.fits.gz"
    session.dataset.write(path)
    coarse.general.datasets_file = "there.fits.gz"
    coarse.write(tmp_path / "config.yaml")
    start = Workbench(tmp_path / "config.yaml").session
    assert start.task.wait(60).status == "done" and start.task.kind == "read"
    assert start.dataset.counts.data.sum() == session.dataset.counts.data.sum()
    assert len(start.models.sky_models) == 3 and start.data_are_current
    assert start.begin().wait(60).kind == "read"
    start.config.general.datasets_file = "gone.fits"
    assert start.begin().wait(60).kind == "reduce"


def test_files_that_are_named_but_not_there_are_said(coarse):
    session = Session(coarse)
    assert session.why_not("read_datasets") == "Name a file of datasets first"
    coarse = session.config
    coarse.general.datasets_file = "gone.fits"
    assert session.read_datasets().wait(60).status == "failed"
    assert session.error == "general.datasets_file: 'gone.fits': no such file"
    coarse.general.models_file = "gone.yaml"
    with pytest.raises(ConfigError, match=r"general\.models_file: 'gone.yaml': no such file"):
        session.reduce()


def test_progress_names_run_step_and_place(coarse):
    session, seen = Session(coarse), []
    session.task.observe(lambda change: seen.append(change.new), "message")
    session.request.run(lambda fraction, message: seen.append(message))
    assert "Looking for the runs" in seen
    assert "Run 1: safe mask (1 of 4)" in seen and "Run 4: background (4 of 4)" in seen


def test_a_reduction_of_a_fine_map_is_cancelled_within_a_fifth_of_a_second(coarse, demo_store):
    """Single steps on such a map take longer than that; nobody waits for them."""
    coarse.datasets.geom.wcs.binsize = "0.0025 deg"

    async def main():
        session, waits = Session(coarse), []
        for delay in (0.3, 1.0, 1.7):
            session.reduce()
            await asyncio.sleep(delay)
            assert session.task.running
            start = time.monotonic()
            session.cancel()
            while session.task.running:
                await asyncio.sleep(0.005)
            waits.append(time.monotonic() - start)
            assert session.task.status == "cancelled" and session.datasets is None
        return session, waits

    session, waits = asyncio.run(main())
    assert min(waits) < 0.2, waits
    assert session.task.status == "cancelled" and session.datasets is None


def test_what_cancelled_work_still_gives_is_dropped():
    async def main():
        task, given = Task(Owner()), []
        gate = SimpleNamespace(open=False)

        def work(progress):
            while not gate.open:
                time.sleep(0.01)
            return "late"

        task.start(work, given.append, "reduce")
        task.cancel()
        while task.running:
            await asyncio.sleep(0.01)
        task.start(lambda progress: "new", given.append, "fit")
        gate.open = True
        while task.running:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        return task, given

    task, given = asyncio.run(main())
    assert given == ["new"] and (task.kind, task.status) == ("fit", "done")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((" ", False, 0.0), "geometry ' ' is not CAR, TAN or a path"),
        (("CAR", "no", 0.0), "skip_failed 'no' is not true or false"),
        (("CAR", False, -1.0), r"search_radius -1\.0 is not from 0 to 180 deg"),
        (("CAR", False, True), "search_radius True is not from 0 to 180 deg"),
        (("CAR", False, float("nan")), "search_radius nan is not from 0 to 180 deg"),
    ],
)
def test_what_is_damaged_in_a_session_file_is_named(coarse, asked, message):
    from imgfit_widgets import session_files as files

    session = Session(coarse)
    saved = files.Saved(session.config, session.models, {}, "", *asked)
    with pytest.raises(DataError, match=message):
        files.read_session(files.export_session(saved)[1])
