"""Events, good time, pointing and index files: against Gammapy, and where they go wrong."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table as AstropyTable
from astropy.time import Time
from store import KINDS, Run, one, table, write_obs_index, write_store

from imgfit_widgets.core import data as data_module
from imgfit_widgets.core.data import DataStore
from imgfit_widgets.core.errors import DataError
from imgfit_widgets.core.events import GTI, TimeReference, reference_shift
from imgfit_widgets.core.tables import read_table

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
