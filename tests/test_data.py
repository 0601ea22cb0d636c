"""Events, good time, pointing and index files: against Gammapy, and where they go wrong."""

from __future__ import annotations

import gc
import logging
import os
import pickle
import weakref
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table as AstropyTable
from astropy.time import Time
from store import KINDS, Run, table, write_hdu_index, write_obs_index, write_store

from imgfit_widgets.core import data as data_module
from imgfit_widgets.core.data import DataStore, HduLocation, IrfCache
from imgfit_widgets.core.errors import ConfigError, DataError
from imgfit_widgets.core.events import GTI, EventList, TimeReference, reference_shift
from imgfit_widgets.core.tables import FileCache, read_table

REAL = {
    "hess-dl3-dr1": [23523, 23526, 23559, 23592],
    "cta-1dc/index/gps": [110380, 111140, 111159],
}
GAMMAPY_RUNS = """
import json, sys
from gammapy.data import DataStore
store = DataStore.from_dir(sys.argv[1])
out = []
for obs in store.get_observations(json.loads(sys.argv[2])):
    events = obs.events
    at = obs.get_pointing_icrs(obs.tmid)
    where = obs.meta.location
    out.append(dict(n=len(events.table), ra=at.ra.deg, dec=at.dec.deg,
        live=obs.observation_live_time_duration.to_value("s"), on=obs.gti.time_sum.to_value("s"),
        energy=float(events.energy.to_value("TeV").astype(float).sum()),
        ra_sum=float(events.radec.ra.deg.astype(float).sum()),
        first=float(events.time.tt.mjd.min()), site=[where.lon.deg, where.lat.deg]))
print(json.dumps(out))
"""


def one(tmp_path: Path, run: Run, **options):
    """The only observation of a store of one run."""
    return DataStore.from_dir(write_store(tmp_path, {1: run})).obs(1, **options)


@pytest.mark.parametrize("name", REAL)
def test_real_runs_are_those_of_gammapy(name, gammapy_data, gammapy):
    expected = gammapy(GAMMAPY_RUNS, gammapy_data / name, REAL[name])
    store = DataStore.from_dir(gammapy_data / name)
    for obs, peer in zip(store.get_observations(REAL[name]), expected, strict=True):
        events = obs.events
        assert len(events) == peer["n"]
        assert obs.pointing == pytest.approx((peer["ra"], peer["dec"]), abs=1e-10)
        assert obs.livetime == pytest.approx(peer["live"], rel=1e-12)
        assert obs.ontime == pytest.approx(peer["on"], rel=1e-12)
        assert events.energy.astype(float).sum() == pytest.approx(peer["energy"], rel=1e-12)
        assert events.ra.astype(float).sum() == pytest.approx(peer["ra_sum"], rel=1e-9)
        first = events.reference.time(events.time[np.argmin(events.time)])
        assert first.tt.mjd == pytest.approx(peer["first"], abs=1e-11)
        assert obs.location[:2] == pytest.approx(peer["site"])
        assert not events.ra.flags.writeable


def test_columns_and_keywords_are_those_that_astropy_reads(gammapy_data):
    for name, ids in REAL.items():
        store = DataStore.from_dir(gammapy_data / name)
        for obs in store.get_observations(ids):
            events = obs.events
            with fits.open(obs.hdus["events"].path) as hdus:
                data, header = hdus["EVENTS"].data, hdus["EVENTS"].header
                ra = data["RA"] + np.where(data["RA"] < 0, np.float32(360), np.float32(0))
                np.testing.assert_array_equal(events.ra, ra)
                np.testing.assert_array_equal(events.dec, data["DEC"])
                assert events.ra.dtype == events.dec.dtype == np.float32
                np.testing.assert_array_equal(events.energy, data["ENERGY"])
                np.testing.assert_array_equal(events.time, data["TIME"])
                for key in ("DEADC", "ONTIME", "RA_PNT", "GEOLAT"):
                    assert obs.keywords.number(key) == header[key]
                assert events.header["OBJECT"] == header["OBJECT"]


@pytest.mark.parametrize("name", REAL)
def test_index_is_the_one_that_astropy_reads(name, gammapy_data):
    store = DataStore.from_dir(gammapy_data / name)
    hdus = AstropyTable.read(gammapy_data / name / "hdu-index.fits.gz", hdu=1)
    runs = AstropyTable.read(gammapy_data / name / "obs-index.fits.gz", hdu=1)
    assert store.obs_ids == list(runs["OBS_ID"])
    np.testing.assert_array_equal(store.obs_index.dec, runs["DEC_PNT"])
    assert len(store.obs_table) == len(runs) and len(store.hdu_table) == len(hdus)
    for row in hdus:
        at = store.hdu_index.hdus(int(row["OBS_ID"]))[row["HDU_TYPE"].strip()]
        assert (at.name, at.hdu_class) == (row["HDU_NAME"].strip(), row["HDU_CLASS"].strip())
        folder = gammapy_data / name / row["FILE_DIR"].strip()
        assert at.path == Path(os.path.normpath(folder / row["FILE_NAME"].strip()))


# --- time -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("intervals", "ontime", "counts"),
    [
        ([(0, 2000)], 2000, 20),
        ([(0, 500), (1000, 1500)], 1000, 10),
        ([(1000, 1500), (0, 500)], 1000, 10),  # not in order
        ([(0, 600), (400, 1000)], 1000, 10),  # overlapping
        ([(0, 1000), (200, 300), (100, 900)], 1000, 10),  # one inside another
        ([(0, 500), (500, 1000)], 1000, 10),  # touching
        ([(0, 0), (300, 800), (900, 900)], 500, 5),  # empty ones
        ([(-5000, 0), (150, 150 + 1e-9)], 5000 + 1e-9, 1),
    ],
)
def test_good_time_and_events_within_it(intervals, ontime, counts, tmp_path):
    obs = one(tmp_path, Run(gti=intervals))
    assert obs.ontime == pytest.approx(ontime, rel=1e-12)
    assert obs.livetime == pytest.approx(0.9 * ontime, rel=1e-12)
    assert len(obs.events) == counts
    assert np.all(obs.gti.stop > obs.gti.start)
    assert np.all(obs.gti.start[1:] > obs.gti.stop[:-1])
    kept = [t for t in Run().time if any(a <= t <= b and b > a for a, b in intervals)]
    np.testing.assert_allclose(obs.events.time, kept)


def test_events_of_the_last_second_belong_to_a_run_timed_in_whole_seconds(tmp_path):
    """H.E.S.S. rounds good time to seconds: 12 of the 30129 events above lie behind their run."""
    time = np.array([-1.1, -0.9, 0.0, 500.5, 1000.0, 1999.0, 2000.9, 2001.0])
    kept = one(tmp_path / "a", Run(time=time, gti=[(0, 500), (600, 2000)])).events.time
    assert kept.tolist() == [-0.9, 0.0, 1000.0, 1999.0, 2000.9]
    kept = one(tmp_path / "b", Run(time=time, gti=[(0.25, 1999.75)])).events.time
    assert kept.tolist() == [500.5, 1000.0, 1999.0]


@pytest.mark.parametrize("intervals", [[], [(100, 100)]])
def test_a_run_without_good_time_is_named(intervals, tmp_path):
    obs = one(tmp_path, Run(gti=intervals))
    assert len(obs.events) == 0
    with pytest.raises(DataError, match=r"observation 1: has no good time: .*run_1\.fits \[GTI\]"):
        _ = obs.livetime


def test_an_interval_that_runs_backwards_is_named(tmp_path):
    with pytest.raises(
        DataError, match=r"\[GTI\]: an interval stops before it starts: row 2 goes from 9 to 8 s"
    ):
        _ = one(tmp_path, Run(gti=[(0, 5), (9, 8)])).gti


def test_gti_union_counts_no_time_twice_across_references_and_systems():
    tt = GTI(np.array([0.0]), np.array([100.0]), 51544.5, "tt")
    # UTC is 64.184 s behind TT at the start of 2000.
    utc = GTI(np.array([50.0 - 64.184]), np.array([200.0 - 64.184]), 51544.5, "utc")
    day = GTI(np.array([-86400.0 + 300.0]), np.array([-86400.0 + 400.0]), 51545.5, "tt")
    union = GTI.union([tt, utc, day])
    np.testing.assert_allclose(union.start, [0.0, 300.0], atol=1e-5)
    np.testing.assert_allclose(union.stop, [200.0, 400.0], atol=1e-5)
    assert union.time_system == "tt"


GAMMAPY_TIMES = """
import json, sys
from gammapy.data import EventList, GTI
out = []
for path in sys.argv[1:]:
    events, gti = EventList.read(path), GTI.read(path)
    out.append([events.time.tt.mjd.tolist(), gti.time_start.tt.mjd.tolist()])
print(json.dumps(out))
"""


def test_time_systems_and_references_are_gammapys(tmp_path, gammapy):
    """Events and intervals of different references and systems meet at the right instants."""
    start = Time("2017-01-01T00:00:00", scale="tt")
    gti_zero = (start - Time(51544.5, format="mjd", scale="tt")).to_value("s")
    found = []
    for system in ("TT", "TDB", "UTC", "TAI"):
        for reference in ((51544, 0.5), (51910, 0.000742870370370241), (57754, 0.25)):
            keys = {"MJDREFI": reference[0], "MJDREFF": reference[1], "TIMESYS": system}
            own = Time(*reference, format="mjd", scale=system.lower())
            clock = "tai" if system == "UTC" else system.lower()
            zero = (getattr(start, clock) - getattr(own, clock)).to_value("s")
            gti = [(gti_zero + 400.5, gti_zero + 800.5)]
            run = Run(time=zero + 50 + 100.0 * np.arange(20), gti=gti, header=keys)
            found.append(one(tmp_path / f"{system}{reference[0]}", run))
    peers = gammapy(GAMMAPY_TIMES, *(obs.hdus["events"].path for obs in found))
    for obs, (times, starts) in zip(found, peers, strict=True):
        events = obs.events
        assert len(events) == 4
        assert obs.ontime == pytest.approx(400, abs=1e-6)
        mjd = events.reference.time(events.time).tt.mjd
        np.testing.assert_allclose(mjd, times[4:8], rtol=0, atol=2e-11)
        np.testing.assert_allclose(obs.gti.time_start.tt.mjd, starts, rtol=0, atol=2e-11)


def test_times_in_days_and_shifts_of_the_clock(tmp_path):
    """A column without unit has that of TIMEUNIT; TIMEOFFS and TIMEZERO shift the reference."""
    day = 86400.0
    run = Run(
        time=np.array([100.0, 700.0, 1500.0]) / day,
        time_unit=None,
        gti=[(0.0, 1000.0 / day)],
        header={"TIMEUNIT": "d"},
        gti_header={"TIMEUNIT": "d"},
    )
    obs = one(tmp_path / "a", run)
    assert obs.ontime == pytest.approx(1000.0)
    np.testing.assert_allclose(obs.events.time, [100.0, 700.0])
    run.header.update({"TIMEOFFS": -200.0 / day, "TIMEZERO": -300.0 / day})
    np.testing.assert_allclose(one(tmp_path / "b", run).events.time, [700.0, 1500.0])


def test_reference_as_text_or_in_one_keyword(tmp_path):
    run = Run(gti_header={"MJDREFI": "51544", "MJDREFF": " 5.0D-1 "})
    assert len(one(tmp_path / "a", run).events) == 20
    run = Run(gti_header={"MJDREFI": None, "MJDREFF": None})
    run.gti_header["MJDREF"] = 51544.5
    assert len(one(tmp_path / "b", run).events) == 20


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ({"TIMESYS": "LST"}, r"\[EVENTS\]: keyword TIMESYS is 'LST'; expected one of TAI, TCB"),
        ({"TIMEUNIT": "furlong"}, r"\[EVENTS\]: keyword TIMEUNIT is 'furlong'; expected 's' or"),
        ({"MJDREFI": "soon"}, r"\[EVENTS\]: keyword MJDREFI is 'soon'; expected a number"),
        ({"MJDREFI": 99999999}, r"\[EVENTS\]: its times count from MJD 1e\+08 .* 0 to 200000"),
    ],
)
def test_time_keywords_that_cannot_be_used_are_named(header, text, tmp_path):
    with pytest.raises(DataError, match=text):
        _ = one(tmp_path, Run(header=header)).events


def test_reference_shift_is_exact_between_scales():
    utc, tt = TimeReference(57754.0, "utc"), TimeReference(57754.0, "tt")
    assert reference_shift(utc, tt) == pytest.approx(37 + 32.184, abs=1e-6)
    assert reference_shift(tt, utc) == pytest.approx(-37 - 32.184, abs=1e-6)


# --- cuts in time -------------------------------------------------------------------------------

GAMMAPY_CUT = """
import json, sys
from astropy.time import Time
from gammapy.data import DataStore
store = DataStore.from_dir(sys.argv[1])
ranges = [Time(pair) for pair in json.loads(sys.argv[3])]
chosen = store.get_observations(json.loads(sys.argv[2])).select_time(ranges)
print(json.dumps([[o.obs_id, len(o.events.table), o.observation_live_time_duration.to_value("s")]
    for o in chosen]))
"""


@pytest.mark.parametrize(
    ("name", "ranges"),
    [
        ("hess-dl3-dr1", [["2004-12-04T22:15:00", "2004-12-04T22:25:00"]]),
        ("hess-dl3-dr1", [["2004-12-04T22:20:00", "2004-12-06T23:30:00"]]),
        ("hess-dl3-dr1", [["2004-12-04T22:10:00", "2004-12-04T22:12:00"],
                          ["2004-12-06T23:00:00", "2004-12-09T00:00:00"]]),
        ("cta-1dc/index/gps", [["2021-01-21T12:05:00.5", "2021-04-25T12:00:00"]]),
    ],
)  # fmt: skip
def test_cut_in_time_is_gammapys(name, ranges, gammapy_data, gammapy):
    """Gammapy makes one observation of each run and range; their sums are to be the same."""
    peer: dict[int, np.ndarray] = {}
    for obs_id, *numbers in gammapy(GAMMAPY_CUT, gammapy_data / name, REAL[name], _json(ranges)):
        peer[obs_id] = peer.get(obs_id, 0) + np.array(numbers)
    store = DataStore.from_dir(gammapy_data / name)
    pairs = [(Time(a), Time(b)) for a, b in ranges]
    found = store.get_observations(REAL[name], time_ranges=pairs)
    assert peer and set(found.ids) == {i for i, (_n, live) in peer.items() if live > 0}
    for obs in found:
        assert len(obs.events) == peer[obs.obs_id][0]
        assert obs.livetime == pytest.approx(peer[obs.obs_id][1], abs=1e-4)


def _json(value):
    import json

    return json.dumps(value)


def at(*seconds: float) -> tuple[Time, Time]:
    start = Time(51544.5, format="mjd", scale="tt")
    low, high = (start + s * u.s for s in seconds)
    return low, high


def test_ranges_cut_events_and_good_time_alike(tmp_path):
    run = Run(gti=[(0, 700), (900, 2000)])
    # Overlapping ranges count once; the start counts, the end does not.
    ranges = [at(250.0, 600.0), at(500.0, 1050.0)]
    obs = one(tmp_path, run, time_ranges=ranges)
    assert obs.ontime == pytest.approx(450 + 150, abs=1e-5)
    np.testing.assert_allclose(obs.events.time, [250, 350, 450, 550, 650, 950])


def test_runs_without_time_left_drop_out(tmp_path, caplog):
    runs = {n: Run(time=t0 + 50.0 + 100 * np.arange(20), gti=[(t0, t0 + 2000)])
            for n, t0 in ((1, 0.0), (2, 5000.0), (3, 10000.0))}  # fmt: skip
    store = DataStore.from_dir(write_store(tmp_path, runs))
    with caplog.at_level(logging.INFO, data_module.__name__):
        found = store.get_observations(time_ranges=[at(1000.0, 6000.0)])
    assert found.ids == [1, 2]
    assert [obs.ontime for obs in found] == pytest.approx([1000.0, 1000.0], abs=1e-5)
    assert "Observation 3 has no good time in the ranges" in caplog.text
    with pytest.raises(
        DataError,
        match=r"no run is left: observations\.obs_time: 3 of 3 runs have no good time in 2000-01-02"
        r".*; their good time lies between 2000-01-01 11:58:55\.816 and 2000-01-01 15:18:55\.816",
    ):
        store.get_observations(time_ranges=[at(90000.0, 96000.0)])


def test_times_without_a_reference_cannot_be_cut(tmp_path):
    run = Run(header={"MJDREFI": None}, gti_header={"MJDREFI": None})
    store = write_store(tmp_path, {1: run})
    assert len(DataStore.from_dir(store).obs(1).events) == 20
    with pytest.raises(DataError, match=r"\[GTI\]: keyword MJDREFI is missing"):
        _ = DataStore.from_dir(store).obs(1, time_ranges=[at(0.0, 9.0)]).gti


# --- dead time, pointing, place -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"DEADC": 0.5}, 0.5),
        ({"DEADC": "0.75"}, 0.75),
        ({"DEADC": 1.00000001}, 1.0),  # rounded up in single precision
        ({"DEADC": None, "LIVETIME": 1500.0, "ONTIME": 2000.0}, 0.75),
        ({"DEADC": None, "LIVETIME": "1500 s", "ONTIME": "2 ks"}, 0.75),
        ({"DEADC": "nan", "LIVETIME": 1500.0, "ONTIME": 2000.0}, 0.75),
    ],
)
def test_dead_time(header, expected, tmp_path):
    obs = one(tmp_path, Run(header=header))
    assert obs.livetime == pytest.approx(2000 * expected)


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ({"DEADC": 0.0}, r"\[EVENTS\]: DEADC is 0; expected the share of live time, above 0"),
        ({"DEADC": -0.3}, r"\[EVENTS\]: DEADC is -0\.3; expected"),
        ({"DEADC": 1.2}, r"run_1\.fits \[EVENTS\]: DEADC is 1\.2; expected .* at most 1"),
        ({"DEADC": "much"}, r"keyword DEADC is 'much'; expected a number"),
        ({"DEADC": "nan"}, r"keyword DEADC is missing or no number, and LIVETIME and ONTIME"),
        ({"DEADC": "nan", "LIVETIME": 9.0}, r"keyword DEADC is missing .* LIVETIME and ONTIME"),
        ({"DEADC": "nan", "LIVETIME": 9.0, "ONTIME": 8.0}, r"LIVETIME / ONTIME is 1\.125; exp"),
        ({"DEADC": "nan", "LIVETIME": "9 m", "ONTIME": 8.0}, r"LIVETIME is '9 m'; .* in s"),
    ],
)
def test_a_dead_time_that_cannot_be_is_named(header, text, tmp_path):
    with pytest.raises(DataError, match=text):
        _ = one(tmp_path, Run(header=header)).livetime


def test_location_in_the_units_of_the_comment(tmp_path, gammapy_data):
    assert one(tmp_path, Run()).location == (16.5, -23.3, 1835.0)
    cta = DataStore.from_dir(gammapy_data / "cta-1dc/index/gps").obs(110380)
    assert cta.location == pytest.approx((79.4041, -24.6272, 2150.0))  # written as 2.15 [km]
    run = Run(header={"GEOLON": "", "GEOLAT": ""})
    assert one(tmp_path / "b", run).location is None


def pointing_table(time, ra, dec, **header):
    columns = [("TIME", "D", "s", time), ("RA_PNT", "D", "deg", ra), ("DEC_PNT", "D", "deg", dec)]
    return table("POINTING", columns, {"MJDREFI": 51544, "MJDREFF": 0.5, **header})


def test_pointing_from_header_table_or_index(tmp_path):
    blank = {"RA_PNT": "", "DEC_PNT": ""}
    kinds = {**KINDS, "pointing": "pointing"}
    assert one(tmp_path / "a", Run(pointing=(-10.0, 5.0))).pointing == (350.0, 5.0)
    assert one(tmp_path / "b", Run(header=blank)).pointing == (83.6, 22.0)

    # Good for [0, 100] and [300, 400]: the time between does not weigh.
    rows = pointing_table([0.0, 100.0, 200.0, 300.0, 400.0], [359.0, 359.0, 90.0, 1.0, 1.0],
                          [10.0, 10.0, 80.0, 10.0, 10.0])  # fmt: skip
    run = Run(header=blank, gti=[(0, 100), (300, 400)], extra=[rows])
    store = DataStore.from_dir(write_store(tmp_path / "c", {1: run}, kinds))
    ra, dec = store.obs(1).pointing
    mean = np.array([np.cos(np.radians(10)) * np.cos(np.radians(1)), 0.0, np.sin(np.radians(10))])
    assert min(ra, 360 - ra) == pytest.approx(0.0, abs=1e-9)
    assert dec == pytest.approx(np.degrees(np.arctan2(mean[2], mean[0])), abs=1e-9)

    # 3/4 of the good time at one place; a reference of its own.
    rows = pointing_table(np.array([0.0, 300.0, 300.0, 400.0]) - 43200.0, [10, 10, 12, 12],
                          [0.0, 0.0, 0.0, 0.0], MJDREFI=51545, MJDREFF=0.0)  # fmt: skip
    run = Run(header=blank, gti=[(0, 400)], extra=[rows])
    store = DataStore.from_dir(write_store(tmp_path / "d", {1: run}, kinds))
    assert store.obs(1).pointing == pytest.approx((10.5, 0.0), abs=1e-3)


@pytest.mark.parametrize(
    ("run", "text"),
    [
        (Run(header={"OBS_MODE": "DRIFT"}), r"observation 1: OBS_MODE is 'DRIFT' .*no image"),
        (Run(header={"DEC_PNT": 95.0}), r"\[EVENTS\]: keyword DEC_PNT is 95; expected -90 to 90"),
        (Run(header={"RA_PNT": "east"}), r"\[EVENTS\]: keyword RA_PNT is 'east'; expected a num"),
        (Run(header={"RA_PNT": "nan"}, pointing=(np.nan, 3.0)),
         r"observation 1: where it pointed is not known: .*\[EVENTS\] has no RA_PNT"),
    ],
)  # fmt: skip
def test_runs_that_point_nowhere_are_refused_by_name(run, text, tmp_path):
    store = write_store(tmp_path, {1: Run()})
    ra, dec = run.pointing
    if np.isnan(ra):
        run.pointing = (0.0, dec)
        write_obs_index(store, [(1, ra, dec)])
    run.hdus().writeto(store / "run_1.fits", overwrite=True)
    with pytest.raises(DataError, match=text):
        _ = DataStore.from_dir(store).obs(1).pointing


# --- events -----------------------------------------------------------------------------------


def test_an_empty_event_list_is_fine(tmp_path):
    obs = one(tmp_path, Run(time=np.zeros(0)))
    assert len(obs.events) == 0 and obs.events.ra.shape == (0,)
    assert obs.livetime == pytest.approx(1800.0)
    assert "events     : 0" in str(obs)


@pytest.mark.parametrize(("unit", "factor"), [("GeV", 1e3), ("MeV", 1e6), ("erg", 1.602176634)])
def test_energies_in_other_units(unit, factor, tmp_path):
    expected = np.geomspace(0.5, 20.0, 20)
    run = Run(columns={"ENERGY": ("D", unit, expected * factor)})
    np.testing.assert_allclose(one(tmp_path / "a", run).events.energy, expected, rtol=1e-12)
    run = Run(columns={"ENERGY": ("D", None, expected * factor)}, header={"EUNIT": unit})
    np.testing.assert_allclose(one(tmp_path / "b", run).events.energy, expected, rtol=1e-12)


@pytest.mark.parametrize("unit", ["degree", "degrees", "DEG", "rad"])
def test_angles_in_other_spellings_and_units(unit, tmp_path):
    ra = np.linspace(83.0, 84.0, 20)
    values = np.radians(ra) if unit == "rad" else ra
    run = Run(columns={"RA": ("D", unit, values)})
    np.testing.assert_allclose(one(tmp_path, run).events.ra, ra, rtol=1e-12)


def test_right_ascension_is_wrapped(tmp_path):
    ra = np.array([-10.0, 370.0, 359.9999, 360.0, 0.0, 720.5, -1e-9] + [1.0] * 13)
    run = Run(columns={"RA": ("E", "deg", ra)})
    found = one(tmp_path, run).events.ra
    assert found.dtype == np.float32
    assert np.all((found >= 0) & (found < 360))
    np.testing.assert_allclose(found[:7], [350, 10, 359.9999, 0, 0, 0.5, 0], atol=1e-4)


@pytest.mark.parametrize("column", ["RA", "DEC", "ENERGY", "TIME"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_counted(column, value, tmp_path):
    values = np.linspace(10.0, 20.0, 20)
    values[[3, 7, 8]] = value
    run = Run(columns={column: ("D", None, values)})
    with pytest.raises(
        DataError, match=rf"\[EVENTS\]: column {column} holds values .* not finite in 3 of 20 rows"
    ):
        _ = one(tmp_path, run).events


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"RA": None}, r"no column RA; there are EVENT_ID, TIME, DEC, ENERGY"),
        ({"TIME": None}, r"no column TIME; there are EVENT_ID, RA, DEC, ENERGY"),
        ({"RA": ("10A", None, ["x"] * 20)}, r"column RA holds text; expected numbers"),
        ({"RA": ("2E", "deg", np.ones((20, 2)))}, r"column RA has format 2E; expected one number"),
        ({"ENERGY": ("E", "cm", np.ones(20))}, r"column ENERGY has unit 'cm', expected .* 'TeV'"),
        ({"ENERGY": ("E", "q/q", np.ones(20))}, r"column ENERGY has unit 'q/q', expected"),
        ({"DEC": ("E", "deg", 91.0 * np.ones(20))}, r"column DEC holds 91 \(in 20 of 20 rows\)"),
    ],
)
def test_columns_that_cannot_be_used_are_named(columns, text, tmp_path):
    with pytest.raises(DataError, match=rf"run_1\.fits \[EVENTS\]: {text}"):
        _ = one(tmp_path, Run(columns=columns)).events


def test_scaled_and_unsigned_columns_are_read_as_astropy_reads_them(tmp_path):
    path = tmp_path / "scaled.fits"
    columns = [
        fits.Column("A", "I", array=np.array([1, 100, 250])),
        fits.Column("B", "J", bzero=2**31, array=np.array([1, 2**31, 2**32 - 1], dtype="u4")),
        fits.Column("C", "K", bzero=2**63, array=np.array([1, 2**63, 2**64 - 1], dtype="u8")),
        fits.Column("D", "K", null=-1, array=np.array([7, -1, 9])),
        fits.Column("E", "5A", array=np.array(["ab", "", "abcde"])),
        fits.Column("F", "3X", array=np.ones((3, 3), dtype=bool)),
        fits.Column("G", "PJ()", array=np.array([[1], [2, 3], []], dtype=object)),
        fits.Column("H", "L", array=np.array([True, False, True])),
        fits.Column("I", "D", array=np.array([1.5, 2.5, 3.5])),
    ]
    hdu = fits.BinTableHDU.from_columns(columns, name="X")
    hdu.header.update({"TSCAL1": 0.01, "TZERO1": 5.0})
    hdu.writeto(path)
    found = read_table(path, "x", ("A", "B", "C", "D", "E", "I"))
    np.testing.assert_allclose(found.columns["A"], [5.01, 6.0, 7.5])
    assert found.columns["B"].tolist() == [1, 2**31, 2**32 - 1]
    assert found.columns["C"].tolist() == [1, 2**63, 2**64 - 1]
    assert found.blank["D"].tolist() == [False, True, False]
    assert found.words("E") == ["ab", "", "abcde"]
    assert found.words("D") == ["7", "", "9"]
    np.testing.assert_array_equal(found.columns["I"], [1.5, 2.5, 3.5])
    with pytest.raises(DataError, match=r"column G has format 1P; expected one number a row"):
        read_table(path, "X", ("G",))


def test_a_table_larger_than_what_is_held_at_a_time(tmp_path, monkeypatch):
    import imgfit_widgets.core.tables as tables

    monkeypatch.setattr(tables, "CHUNK", 100)
    values = np.arange(1000.0)
    fits.BinTableHDU.from_columns([fits.Column("V", "D", array=values)], name="X").writeto(
        tmp_path / "x.fits"
    )
    np.testing.assert_array_equal(read_table(tmp_path / "x.fits", "X", ("V",)).columns["V"], values)


# --- index ------------------------------------------------------------------------------------


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


def test_responses_of_few_runs_are_kept(monkeypatch):
    read = []

    def fake(path, name, hdu_class):
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
    for obs in store.get_observations(REAL["hess-dl3-dr1"]):
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
