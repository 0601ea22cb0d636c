"""Index files, what a run must have, memory, and stores with damaged files."""

from __future__ import annotations

import gc
import logging
import pickle
import weakref
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from store import KINDS, Run, one, table, write_hdu_index, write_obs_index, write_store

from imgfit_widgets.core import data as data_module
from imgfit_widgets.core.data import DataStore, HduLocation, IrfCache
from imgfit_widgets.core.errors import ConfigError, DataError
from imgfit_widgets.core.events import EventList
from imgfit_widgets.core.tables import FileCache, read_table


def rows_of(number: int, folder: str = "", file: str = "", kinds: dict[str, str] = KINDS):
    name = file or f"run_{number}.fits"
    return [(number, kind, cls, folder, name, kind.upper()) for kind, cls in kinds.items()]


@pytest.mark.parametrize("folder", ["", "./", ".", "sub/..", "   ", "ABSOLUTE", "$IMGFIT_RUNS/x"])
def test_folders_of_an_index(folder, tmp_path, monkeypatch):
    """The files lie beside the index, or in the folder that an environment variable names."""
    monkeypatch.setenv("IMGFIT_RUNS", str(tmp_path))
    store = write_store(tmp_path / "x", {1: Run()})
    (store / "sub").mkdir()
    write_hdu_index(store, rows_of(1, folder.replace("ABSOLUTE", str(store))))
    obs = DataStore.from_dir(store).obs(1)
    assert obs.hdus["events"].path == store / "run_1.fits"
    assert len(obs.events) == 20


def test_a_folder_with_a_variable_that_is_not_set(tmp_path):
    store = write_store(tmp_path, {1: Run()})
    write_hdu_index(store, rows_of(1, "$IMGFIT_NOT_SET/x"))
    with pytest.raises(DataError, match=r"\[HDU_INDEX\]: .*the environment variable IMGFIT_NOT_SE"):
        DataStore.from_dir(store).obs(1)


def test_plain_and_wrongly_named_index_files(tmp_path):
    store = write_store(tmp_path, {1: Run()})
    with fits.open(store / "obs-index.fits.gz") as hdus:
        hdus.writeto(store / "obs-index.fits")
    (store / "obs-index.fits.gz").unlink()
    assert DataStore.from_dir(store).obs_ids == [1]
    (store / "obs-index.fits").rename(store / "obs-index.fits.gz")  # not gzipped at all
    assert DataStore.from_dir(store).obs_ids == [1]


@pytest.mark.parametrize("name", ["hdu-index", "obs-index"])
def test_both_index_files_are_needed(name, tmp_path):
    store = write_store(tmp_path, {1: Run()})
    (store / f"{name}.fits.gz").unlink()
    with pytest.raises(DataError, match=rf"no {name}\.fits\.gz; expected a DL3 data store"):
        DataStore.from_dir(store)


def test_missing_columns_of_an_index_are_named(tmp_path):
    store = write_store(tmp_path, {1: Run()})
    with fits.open(store / "hdu-index.fits.gz") as hdus:
        columns = [c for c in hdus[1].columns if c.name not in ("FILE_DIR", "HDU_CLASS")]
        hdu = fits.BinTableHDU.from_columns(columns, name="HDU_INDEX")
        hdu.writeto(store / "hdu-index.fits.gz", overwrite=True)
    with pytest.raises(
        DataError, match=r"\[HDU_INDEX\]: no column HDU_CLASS, FILE_DIR; there are OBS_ID, HDU_TYPE"
    ):
        DataStore.from_dir(store)


def test_case_blanks_and_doubles_of_an_index(tmp_path, gammapy_data):
    """Of several HDUs of a type the first counts that can be read; blank rows list nothing."""
    store = write_store(tmp_path, {1: Run(), 2: Run()})
    rows = [
        (1, "EVENTS", "Events", " ", "run_1.fits ", "events"),
        (1, "Gti", "GTI", "", "run_1.fits", "gti "),
        (1, "", "", "", "", ""),
        (1, "psf", "", "", "", ""),
        (1, "psf", "psf_unheard_of", "", "first.fits", "PSF"),
        (1, "psf", "PSF_3GAUSS", "", "second.fits", "PSF"),
        (1, "psf", "psf_3gauss", "", "third.fits", "PSF2"),
        *rows_of(2),
    ]
    write_hdu_index(store, rows)
    obs = DataStore.from_dir(store).obs(1, ())
    assert len(obs.events) == 20
    assert obs.hdus["psf"] == HduLocation(store / "second.fits", "PSF", "psf_3gauss")
    assert obs.has("events") and not obs.has("psf") and not obs.has("bkg")
    hess = DataStore.from_dir(gammapy_data / "hess-dl3-dr1").obs(23523)
    assert hess.hdus["psf"].hdu_class == "psf_table"
    assert all(hess.has(kind) for kind in KINDS)


@pytest.mark.parametrize(
    ("form", "ids"),
    [("10A", ["1", "2", " 2 ", ""]), ("D", [1.0, 2.0, 2.0, np.nan]), ("E", [1, 2, 2, np.nan])],
)
def test_run_numbers_as_text_or_float_and_twice(form, ids, tmp_path):
    store = write_store(tmp_path, {1: Run(), 2: Run()})
    write_obs_index(store, [(i, 1.0, 2.0) for i in ids], form)
    rows = [(str(r[0]) if form == "10A" else r[0], *r[1:]) for r in [*rows_of(1), *rows_of(2)]]
    write_hdu_index(store, rows, form)
    found = DataStore.from_dir(store).get_observations()
    assert found.ids == [1, 2]
    assert [len(obs.events) for obs in found] == [20, 20]


@pytest.mark.parametrize(("form", "value"), [("10A", "one"), ("D", 1.5), ("D", 1e300)])
def test_a_run_number_that_is_none_is_named(form, value, tmp_path):
    store = write_store(tmp_path, {1: Run()})
    write_obs_index(store, [(value, 1.0, 2.0)], form)
    with pytest.raises(DataError, match=r"\[OBS_INDEX\]: OBS_ID in row 1 is .*expected a whole"):
        DataStore.from_dir(store)


def test_a_run_of_only_one_index(tmp_path):
    store = write_store(tmp_path, {1: Run(), 2: Run()})
    write_hdu_index(store, rows_of(1))
    opened = DataStore.from_dir(store)
    with pytest.raises(DataError, match=r"observation 2: listed in .*obs-index.* not in .*hdu-ind"):
        opened.get_observations([1, 2])
    with pytest.raises(DataError, match=r"observation 3: not in the index of .*; it lists 1, 2$"):
        opened.get_observations([3])


# --- which parts a run must have, and runs that cannot be used -------------------------------


def test_only_what_is_required_must_be_there(tmp_path):
    store = write_store(tmp_path, {1: Run(), 2: Run()})
    write_hdu_index(store, [*rows_of(1)[:4], *rows_of(2)[:3], rows_of(2, file="gone.fits")[3]])
    opened = DataStore.from_dir(store)
    with pytest.raises(DataError, match=r"observation 1: the HDU index lists no psf, bkg, which"):
        opened.obs(1)
    assert opened.obs(1, ["aeff", "events"]).has("aeff")
    with pytest.raises(DataError, match=r"observation 2: its edisp file is not there: .*gone"):
        opened.obs(2, ["aeff", "edisp"])
    assert opened.get_observations(required_irf=["gti", "aeff"]).ids == [1, 2]
    assert not opened.obs(2, ()).has("edisp")
    with pytest.raises(DataError, match=r"required_irf: 'tau' is no part of a run; expected some"):
        opened.obs(1, ["tau"])


def test_point_like_runs_are_refused_once_and_clearly(tmp_path):
    kinds = {k: KINDS[k] for k in ("events", "gti", "aeff", "edisp")}
    text = r"observation 1: a point-like response .*lists no psf, bkg; images need full-enclosure"
    store = write_store(tmp_path / "a", {1: Run()}, {**kinds, "rad_max": "rad_max_2d"})
    with pytest.raises(DataError, match=text):
        DataStore.from_dir(store).get_observations()
    # Without a table, the header of the response tells.
    aeff = table("AEFF", [("X", "E", None, [1.0])], {"HDUCLAS3": "POINT-LIKE"})
    store = write_store(tmp_path / "b", {1: Run(extra=[aeff])}, kinds)
    with pytest.raises(DataError, match=text):
        DataStore.from_dir(store).obs(1)
    with pytest.raises(DataError, match=r"point-like response \(rad_max\).* full-enclosure"):
        DataStore.from_dir(write_store(tmp_path / "c", {1: Run()})).obs(1, ["aeff", "rad_max"])


def test_runs_that_cannot_be_used_are_left_out_with_their_reason(tmp_path, caplog):
    runs = {
        1: Run(),
        2: Run(header={"OBS_MODE": "DRIFT"}),
        3: Run(header={"DEADC": 3.0}),
        4: Run(gti=[]),
        5: Run(),
        6: Run(),
    }
    store = write_store(tmp_path, runs)
    (store / "run_5.fits").write_bytes((store / "run_5.fits").read_bytes()[:5000])
    (store / "run_6.fits").unlink()
    failed: dict[int, str] = {}
    with caplog.at_level(logging.WARNING):
        found = DataStore.from_dir(store).get_observations([7, 6, 5, 4, 3, 2, 1], failed=failed)
    assert found.ids == [1]
    reasons = {7: "not in the index", 6: "not there", 5: "truncated", 4: "no good time",
               3: "DEADC is 3", 2: "DRIFT"}  # fmt: skip
    assert list(failed) == list(reasons)
    for number, text in reasons.items():
        assert text in failed[number] and "\n" not in failed[number]
        assert f"Observation {number} is left out: {failed[number]}" in caplog.text
    with pytest.raises(DataError, match=r"no run is left: 2 of 2 runs cannot be used; the first: "):
        DataStore.from_dir(store).get_observations([6, 5], failed={})


# --- memory -----------------------------------------------------------------------------------


def test_events_live_no_longer_than_they_are_used(tmp_path):
    obs = one(tmp_path, Run())
    events = obs.events
    seen = weakref.ref(events.ra)
    del events
    gc.collect()
    assert seen() is None
    assert not any(isinstance(v, (EventList, np.ndarray)) for v in vars(obs).values())


def test_what_a_run_keeps_does_not_grow_with_its_header(tmp_path):
    run = Run(header={f"MID{i:05d}": i for i in range(500)})
    obs = one(tmp_path, run)
    _ = obs.pointing, obs.livetime, obs.location, obs.telescope
    assert obs.keywords.number("MID00499") == 499
    assert obs.events.header["MID00007"] == 7
    assert len(pickle.dumps(obs)) < 6000


def test_responses_of_few_runs_are_kept(monkeypatch):
    read = []

    def fake(path, name, hdu_class, files=None):
        read.append(name)
        return object()

    monkeypatch.setattr(data_module, "read_irf", fake)
    cache = IrfCache(3)
    places = [HduLocation(Path("x"), name, "psf_table") for name in "abcd"]
    first = cache.get(places[0])
    assert cache.get(places[0]) is first
    for place in (*places[:3], places[0], places[3], places[0]):
        cache.get(place)
    assert read == ["a", "b", "c", "d"] and len(cache) == 3
    cache.get(places[1])  # gone, since it was not used longest
    assert read[-1] == "b" and len(read) == 5
    assert len(pickle.loads(pickle.dumps(cache))) == 0


def test_one_unpacking_serves_all_hdus_of_a_run(gammapy_data, monkeypatch):
    import gzip

    calls = []
    decompress = gzip.decompress
    monkeypatch.setattr(gzip, "decompress", lambda data: calls.append(1) or decompress(data))
    store = DataStore.from_dir(gammapy_data / "hess-dl3-dr1")
    calls.clear()
    for obs in store.get_observations([23523, 23526, 23559, 23592]):
        _ = obs.pointing, obs.livetime, obs.events, obs.location
    assert len(calls) == 4
    assert len(store.files._files) == 2
    again = pickle.loads(pickle.dumps(obs))
    assert len(again.files._files) == 0 and len(again.events) == len(obs.events)


def test_a_file_that_changed_is_unpacked_anew(tmp_path):
    store = write_store(tmp_path, {1: Run()})
    files = FileCache()
    before = read_table(store / "obs-index.fits.gz", None, ("OBS_ID",), files)
    write_obs_index(store, [(5, 1.0, 2.0), (6, 1.0, 2.0)])
    after = read_table(store / "obs-index.fits.gz", None, ("OBS_ID",), files)
    assert (before.n_rows, after.columns["OBS_ID"].tolist()) == (1, [5, 6])


# --- damaged files ------------------------------------------------------------------------------


def outcome(store: Path, names: tuple[str, ...]) -> str:
    """What comes of reading a store: "read" or the message; any other exception is the fault."""
    try:
        opened = DataStore.from_dir(store)
        for obs in opened.get_observations():
            events = obs.events
            numbers = [*obs.pointing, obs.livetime, obs.ontime, *(obs.location or ())]
            assert np.all(np.isfinite(numbers)) and 0 < obs.livetime <= obs.ontime
            assert np.all((events.ra >= 0) & (events.ra < 360)) and np.all(abs(events.dec) <= 90)
            assert np.all(np.isfinite(events.energy)) and np.all(np.isfinite(events.time))
            assert str(obs)
    except (DataError, ConfigError) as error:
        assert any(name in str(error) for name in names), str(error)
        assert "\n" not in str(error)
        return str(error)
    return "read"


NAMES = ("run_1.fits", "hdu-index.fits", "obs-index.fits", "observation ")


@pytest.mark.parametrize("file", ["run_1.fits", "hdu-index.fits.gz", "obs-index.fits.gz"])
def test_damaged_files_give_one_clear_error_or_right_numbers(file, tmp_path):
    store = write_store(tmp_path, {1: Run()})
    content = (store / file).read_bytes()
    rng = np.random.default_rng(5)
    seen = []
    for step in range(150):
        changed = bytearray(content)
        if step % 3 == 0:
            changed = changed[: rng.integers(len(content))]
        else:
            for place in rng.integers(len(content), size=1 + step % 7):
                changed[place] = rng.integers(256)
        (store / file).write_bytes(bytes(changed))
        seen.append(outcome(store, NAMES))
    assert len({text for text in seen if text != "read"}) > 3
    assert outcome(store, NAMES) and all(seen)
    if file.endswith(".gz"):
        assert "read" not in seen[0::3]  # a cut stream is never taken for the whole


@pytest.mark.parametrize("file", ["run_1.fits", "hdu-index.fits", "obs-index.fits"])
def test_damaged_headers_give_one_clear_error_or_right_numbers(file, tmp_path):
    """Each keyword of the tables' layout, lost or with values that it cannot have."""
    store = write_store(tmp_path, {1: Run()})
    if file != "run_1.fits":
        with fits.open(store / f"{file}.gz") as hdus:
            hdus.writeto(store / file)
        (store / f"{file}.gz").unlink()
    content = (store / file).read_bytes()
    bad = ["", "-1", "999999999999", "1.5", "'text'", "T", "NaN", "'9999999D'", "'K'", "0", "3"]
    seen = set()
    for start in range(0, len(content), 80):
        card = content[start : start + 80]
        key = card[:8].strip()
        if card[8:10] != b"= " or not key.isascii():
            continue
        for value in (None, *bad):
            new = b"COMMENT".ljust(80) if value is None else (card[:10] + value.encode()).ljust(80)
            (store / file).write_bytes(content[:start] + new + content[start + 80 :])
            seen.add(outcome(store, NAMES))
    assert len(seen) > 20


def test_other_files_in_the_place_of_a_table(tmp_path):
    store = write_store(tmp_path, {1: Run()})
    path = store / "run_1.fits"
    for content, text in (
        (b"", r"there are|not a FITS|no HDU"),
        (b"hello", "not a FITS file"),
        (b"x" * 5000, "not a FITS file"),
        (b"\x1f\x8b" + b"y" * 100, "truncated or damaged"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"run_1\.fits: .*({text})"):
            _ = DataStore.from_dir(store).obs(1).events
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((3, 3)), name="EVENTS")]).writeto(
        path, overwrite=True
    )
    with pytest.raises(DataError, match=r"run_1\.fits \[EVENTS\]: holds no table; expected a bin"):
        _ = DataStore.from_dir(store).obs(1).pointing
    Run().hdus()[:2].writeto(path, overwrite=True)
    with pytest.raises(DataError, match=r"run_1\.fits: no HDU 'GTI'; there are PRIMARY, EVENTS"):
        _ = DataStore.from_dir(store).obs(1).events
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=r"its events file is not there"):
        DataStore.from_dir(store).obs(1)


def test_a_response_under_another_name_is_refused(tmp_path):
    store = write_store(tmp_path, {1: Run()}, {**KINDS, "psf": "aeff_2d"})
    with pytest.raises(DataError, match=r"\[PSF\]: listed as 'psf' but of class 'aeff_2d'"):
        _ = DataStore.from_dir(store).obs(1).psf
