"""Which runs a configuration selects, against Gammapy's Analysis."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from astropy.time import Time
from store import Run, write_hdu_index, write_obs_index, write_store

from imgfit_widgets import AnalysisConfig
from imgfit_widgets.core.data import DataStore
from imgfit_widgets.core.errors import ConfigError, DataError
from imgfit_widgets.core.selection import read_ids, select_ids, time_ranges

GAMMAPY_IDS = """
import json, sys
from gammapy.analysis import Analysis, AnalysisConfig
out = []
for settings in json.loads(open(sys.argv[1]).read()):
    analysis = Analysis(AnalysisConfig(observations=settings))
    analysis._set_data_store()
    try:
        out.append(sorted(analysis._make_obs_table_selection()))
    except Exception as error:
        out.append(type(error).__name__)
print(json.dumps(out))
"""
LISTS = {
    "plain": "23523\n23526\n",
    "without end": "23523\n23526",
    "comments": "# runs\n23523 # good\n\n23526\n",
    "heading": "# OBS_ID QUALITY\n23523 1\n23526 2\n",
    "columns": "23523 0.5 crab\n23526 0.7 crab\n",
    "tabs": "23523\tcrab\n23526\tcrab\n",
    "commas": "23523,crab\n23526,crab\n",
    "semicolons": "23523;crab\n23526;crab\n",
    "bars": "| 23523 | 1 |\n| 23526 | 2 |\n",
    "line ends": "23523\r\n23526\r\n",
    "one": "23523\n",
}


def settings(**values):
    """The section ``observations`` of a configuration."""
    return AnalysisConfig(observations=values).observations


@pytest.fixture(scope="module")
def hess(gammapy_data):
    return DataStore.from_dir(gammapy_data / "hess-dl3-dr1")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs 5, 3, 9 (the order of the index), at declinations of 0, 1 and 2 degrees."""
    folder = tmp_path_factory.mktemp("made")
    runs = {5: Run(pointing=(10, 0)), 3: Run(pointing=(10, 1)), 9: Run(pointing=(10, 2))}
    return DataStore.from_dir(write_store(folder, runs))


def cone(lon, lat, radius, frame="icrs"):
    return {"lon": f"{lon} deg", "lat": f"{lat} deg", "radius": f"{radius} deg", "frame": frame}


def test_selections_are_gammapys(hess, tmp_path, gammapy):
    """Cones in both frames, at all radii, with and without lists; and every layout of a list."""
    rng = np.random.default_rng(3)
    cases = [{}, {"obs_ids": [23526, 20136, 23523]}]
    for radius in (0.3, 0.6, 5, 30, 80, 179):
        lon, lat = rng.uniform(0, 360), rng.uniform(-90, 90)
        cases.append({"obs_cone": cone(lon, lat, radius)})
        cases.append({"obs_cone": cone(lon, lat, radius, "galactic")})
        cases.append({"obs_cone": cone(83.63, 22.01, radius)})
        cases.append({"obs_cone": cone(0, 0, radius, "galactic")})
        cases.append({"obs_ids": [23523, 20136], "obs_cone": cone(83.63, 22.01, radius)})
    for name, text in LISTS.items():
        path = tmp_path / f"{name.replace(' ', '_')}.txt"
        path.write_text(text, newline="")
        cases.append({"obs_file": str(path)})
        cases.append({"obs_file": str(path), "obs_cone": cone(83.63, 22.01, 2.0)})
    cases.append({"obs_ids": [23523], "obs_file": str(path)})
    cases.append({"obs_ids": [7]})
    file = tmp_path / "cases.json"
    file.write_text(json.dumps([{**case, "datastore": str(hess.base_dir)} for case in cases]))
    some, refused = 0, set()
    for case, expected in zip(cases, gammapy(GAMMAPY_IDS, file), strict=True):
        if isinstance(expected, str) and "obs_file" in case and "obs_ids" not in case:
            refused.add(Path(case["obs_file"]).stem)
            assert select_ids(hess, settings(**case)), case
        elif expected == [] or isinstance(expected, str):
            with pytest.raises((ConfigError, DataError)):
                select_ids(hess, settings(**case))
        else:
            some += 1
            assert sorted(select_ids(hess, settings(**case))) == expected, case
    assert some > 30
    assert refused <= {"bars", "comments", "semicolons"}  # which it cannot read


def test_order_is_that_of_the_index_or_of_the_list(made, tmp_path):
    assert select_ids(made, settings()) == [5, 3, 9]
    assert select_ids(made, settings(obs_ids=[9, 5])) == [9, 5]
    path = tmp_path / "runs.txt"
    path.write_text("9\n3\n9\n5\n3\n")
    assert select_ids(made, settings(obs_file=path)) == [9, 3, 5]
    assert select_ids(made, settings(obs_file=path, obs_cone=cone(10, 0, 1.5))) == [3, 5]


def test_the_rim_of_a_cone_is_outside(made):
    assert select_ids(made, settings(obs_cone=cone(10, 0, 1.0 + 1e-9))) == [5, 3]
    assert select_ids(made, settings(obs_cone=cone(10, 0, 1.0 - 1e-9))) == [5]
    assert select_ids(made, settings(obs_cone=cone(370, 0, 0.1))) == [5]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"lon": "10 deg"}, r"^observations\.obs_cone\.frame: not set, but lon is; expected all"),
        ({"lon": "1 deg", "frame": "icrs"}, r"obs_cone\.lat: not set, but frame, lon are; exp"),
        ({"frame": "icrs", "lon": "1 deg", "lat": "1 deg"}, r"obs_cone\.radius: not set, but fra"),
        ({"radius": "2 deg"}, r"obs_cone\.frame: not set, but radius is"),
    ],
)
def test_an_incomplete_cone_is_named(values, text, made):
    with pytest.raises(ConfigError, match=text):
        select_ids(made, settings(obs_cone=values))


def test_a_frame_alone_is_no_cone(made):
    assert select_ids(made, settings(obs_cone={"frame": "icrs"})) == [5, 3, 9]


def test_nothing_left_says_what_each_step_kept(made, tmp_path):
    path = tmp_path / "runs.txt"
    path.write_text("9\n3\n")
    with pytest.raises(
        ConfigError,
        match=r"^observations\.obs_cone: no run is left: 3 in the index .*obs-index\.fits\.gz, "
        r"2 by observations\.obs_file, 0 by observations\.obs_cone \(radius 0\.5 deg\); the "
        r"nearest, 3, points 1 deg from its centre$",
    ):
        select_ids(made, settings(obs_file=path, obs_cone=cone(10, 0, 0.5)))


def test_lists_and_files_exclude_each_other(made, tmp_path):
    with pytest.raises(ConfigError, match=r"obs_file: 'x\.txt' and observations\.obs_ids are both"):
        select_ids(made, settings(obs_ids=[5], obs_file="x.txt"))


def test_a_run_that_the_index_does_not_list_is_named(made, tmp_path):
    with pytest.raises(
        DataError, match=r"observations\.obs_ids: observation 7: not in the index.*lists 5, 3, 9$"
    ):
        select_ids(made, settings(obs_ids=[5, 7]))


def test_an_index_without_runs(tmp_path):
    store = write_store(tmp_path, {1: Run()})
    write_obs_index(store, [(np.nan, 1.0, 1.0)], "D")
    with pytest.raises(ConfigError, match=r"observations\.datastore: no run is selected: 0 in the"):
        select_ids(DataStore.from_dir(store), settings())


def test_pointings_that_the_index_does_not_know(tmp_path, caplog):
    store = write_store(tmp_path, {1: Run(), 2: Run()})
    write_obs_index(store, [(1, np.nan, 22.0), (2, 83.6, 22.0)])
    with caplog.at_level(logging.WARNING):
        found = select_ids(DataStore.from_dir(store), settings(obs_cone=cone(83.6, 22, 1)))
    assert found == [2]
    assert "where these runs pointed is not in" in caplog.text and ": 1" in caplog.text
    # A run that only the HDU index lists can be named, but not be searched for.
    write_obs_index(store, [(2, 83.6, 22.0)])
    opened = DataStore.from_dir(store)
    assert select_ids(opened, settings(obs_ids=[1])) == [1]
    with pytest.raises(ConfigError, match=r"no run is left: 1 in .*, 1 by .*obs_ids, 0 by"):
        select_ids(opened, settings(obs_ids=[1], obs_cone=cone(83.6, 22, 1)))


def test_an_index_without_pointings_is_named(tmp_path):
    from astropy.io import fits

    store = write_store(tmp_path, {1: Run()})
    hdu = fits.BinTableHDU.from_columns([fits.Column("OBS_ID", "K", array=[1])])
    hdu.writeto(store / "obs-index.fits.gz", overwrite=True)
    opened = DataStore.from_dir(store)
    assert select_ids(opened, settings()) == [1]
    with pytest.raises(DataError, match=r"obs-index\.fits\.gz: no column RA_PNT, which obser"):
        select_ids(opened, settings(obs_cone=cone(83.6, 22, 1)))


# --- lists of runs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        *(text for name, text in LISTS.items() if name != "one"),
        "OBS_ID\n23523\n23526\n",
        'OBS_ID,NAME\n"23523",crab\n"23526",crab\n',
        "# %ECSV 1.0\n# ---\n# datatype:\n# - {name: ID, datatype: int64}\nID\n23523\n23526",
        "====== ====\nOBS_ID NAME\n====== ====\n 23523 crab\n 23526 crab\n====== ====\n",
        "\ufeff23523\n23526\n",
        "  23523.0\n\t23526.0\n",
        "23523\n23526\n23523\n",
        "\\begin{table}\n\\begin{tabular}{cc}\nOBS_ID & N \\\\\n23523 & 1 \\\\\n23526 & 2 \\\\\n"
        "\\end{tabular}\n\\end{table}\n",
    ],
)
def test_lists_in_many_layouts(text, tmp_path):
    path = tmp_path / "runs.txt"
    path.write_text(text, encoding="utf-8", newline="")
    assert read_ids(path) == [23523, 23526]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"23523\nabc\n", r"runs\.txt, line 2: 'abc' is no observation number; expected a whole"),
        (b"23523\n1.5\n", r"runs\.txt, line 2: '1\.5' is no observation number"),
        (b"# x\n\n23523 1\nnan 2\n", r"runs\.txt, line 4: 'nan' is no observation number"),
        (b"A\nB\n1\n", r"line 2: 'B' is no observation number"),
        (b"99999999999999999999999\n23523\n", r"line 1: '99999999999999999999999' is no obs"),
        (b"", r"runs\.txt: lists no observations; expected one a line"),
        (b"# nothing\n\n", r"runs\.txt: lists no observations"),
        (b"OBS_ID\n", r"runs\.txt: lists no observations"),
        (b"\xff\xfe\x00", r"runs\.txt: no text; expected a list"),
        (b"SIMPLE  =  T\0", r"runs\.txt: no text"),
    ],
)
def test_lists_that_cannot_be_used_name_file_line_and_value(content, text, tmp_path):
    path = tmp_path / "runs.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^observations\.obs_file: .*{text}"):
        read_ids(path)


def test_files_that_are_not_there(tmp_path, made):
    with pytest.raises(ConfigError, match=r"obs_file: .*none\.txt: cannot be read: no such file"):
        select_ids(made, settings(obs_file=tmp_path / "none.txt"))
    with pytest.raises(ConfigError, match=r"cannot be read: not a file"):
        read_ids(tmp_path)
    with pytest.raises(ConfigError, match=r"obs_file: .*variable NOT_SET_AT_ALL is not set"):
        read_ids("$NOT_SET_AT_ALL/runs.txt")


# --- time -------------------------------------------------------------------------------------


def test_ranges_of_time():
    assert time_ranges(settings()) == []
    (pair,) = time_ranges(settings(obs_time={"start": "2004-12-04", "stop": "2004-12-05 22:00"}))
    assert [t.isot for t in pair] == ["2004-12-04T00:00:00.000", "2004-12-05T22:00:00.000"]
    several = {"start": ["2004-12-04", "2005-01-01"], "stop": ["2004-12-05", "2005-01-02"]}
    pairs = time_ranges(settings(obs_time=several))
    assert [(a.isot[:10], b.isot[:10]) for a, b in pairs] == [
        ("2004-12-04", "2004-12-05"),
        ("2005-01-01", "2005-01-02"),
    ]
    tai = {"start": Time(53343.0, format="mjd", scale="tai"), "stop": Time("2004-12-05")}
    assert time_ranges(settings(obs_time=tai))[0][0].scale == "tai"


@pytest.mark.parametrize(
    ("start", "stop", "text"),
    [
        ("2004-12-04", None, r"^observations\.obs_time\.stop: not set, but .*start is; expected"),
        (None, "2004-12-04", r"^observations\.obs_time\.start: not set, but .*stop is"),
        (["2004-12-04", "2004-12-06"], ["2004-12-05"], r"stop: has 1 times, .*start has 2; exp"),
        (["2004-12-04"], "2004-12-03", r"obs_time: start 2004-12-04.* is not before stop 2004-12"),
        ("2004-12-04", "2004-12-04", r"start 2004-12-04.* is not before stop"),
    ],
)
def test_ranges_of_time_that_cannot_be(start, stop, text):
    section = settings()
    section.obs_time.start, section.obs_time.stop = start, stop
    with pytest.raises(ConfigError, match=text):
        time_ranges(section)


GAMMAPY_TIMED = """
import json, sys
from gammapy.analysis import Analysis, AnalysisConfig
analysis = Analysis(AnalysisConfig(observations=json.loads(sys.argv[1])))
analysis.get_observations()
print(json.dumps([[o.obs_id, len(o.events.table), o.observation_live_time_duration.to_value("s")]
    for o in analysis.observations]))
"""


def test_a_whole_selection_is_gammapys(gammapy_data, gammapy):
    values = {
        "datastore": str(gammapy_data / "hess-dl3-dr1"),
        "obs_ids": [23523, 23526, 23559, 23592],
        "obs_cone": cone(83.63, 22.01, 1.0),
        "obs_time": {"start": "2004-12-04T22:30:00", "stop": "2004-12-04T23:00:00"},
    }
    section = settings(**values)
    store = DataStore.from_dir(section.datastore_path)
    found = store.get_observations(
        select_ids(store, section), section.required_irf, time_ranges=time_ranges(section)
    )
    peers = gammapy(GAMMAPY_TIMED, json.dumps(values))
    assert found.ids == [peer[0] for peer in peers] == [23523, 23526]
    for obs, (_id, counts, live) in zip(found, peers, strict=True):
        assert len(obs.events) == counts > 0
        assert obs.livetime == pytest.approx(live, abs=1e-4)


def test_selecting_among_many_runs_reads_no_run(tmp_path):
    """The index alone decides; the files need not be there."""
    folder = write_store(tmp_path, {1: Run()})
    n = 3000
    dec = np.linspace(-80, 80, n)
    write_obs_index(folder, [(i, 10.0, d) for i, d in enumerate(dec)])
    write_hdu_index(folder, [(i, "events", "events", "", "no.fits", "EVENTS") for i in range(n)])
    found = select_ids(DataStore.from_dir(folder), settings(obs_cone=cone(10, 0, 10)))
    assert found == [i for i, d in enumerate(dec) if abs(d) < 10]
