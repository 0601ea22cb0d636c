"""The simulated store: the same bytes every time, valid for Gammapy, and fits find the truth."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.coordinates import SkyCoord, SkyOffsetFrame
from astropy.io import fits

from imgfit_widgets import Analysis, AnalysisConfig, Models
from imgfit_widgets.app.demo import DEMO_TEXT, demo
from imgfit_widgets.core import simulate as sim
from imgfit_widgets.core.errors import DataError


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_seed_gives_the_same_bytes_and_another_seed_others(
    demo_store: Path, tmp_path: Path
) -> None:
    first = contents(demo_store)
    time.sleep(1.1)  # a time stamp of whole seconds would differ
    assert contents(sim.simulate_store(tmp_path / "again", seed=0)) == first
    other = contents(sim.simulate_store(tmp_path / "other", seed=1))
    assert set(other) == set(first)
    changed = {name for name in first if other[name] != first[name]}
    assert changed == {f"events_{n:06d}.fits.gz" for n in (1, 2, 3, 4)} | {"obs-index.fits.gz"}


def test_the_store_is_small(demo_store: Path) -> None:
    assert sum(len(data) for data in contents(demo_store).values()) < 5e6


def test_background_events_follow_the_background_model() -> None:
    """Counts along both coordinates of the field of view against the function, by chi squared."""
    ra0, dec0 = 280.0, -3.0
    rng = np.random.default_rng(5)
    ra, dec, energy = (
        np.concatenate(parts)
        for parts in zip(*(sim._draw_background(ra0, dec0, rng) for _ in range(8)), strict=True)
    )
    frame = SkyOffsetFrame(origin=SkyCoord(ra0, dec0, unit="deg"))
    place = SkyCoord(ra, dec, unit="deg").transform_to(frame)
    edges = np.linspace(-2.8, 2.8, 29)
    middle = 0.5 * (edges[1:] + edges[:-1])
    det_y, det_x = np.meshgrid(middle, middle, indexing="ij")
    area = np.radians(0.2) ** 2 * np.cos(np.radians(det_y))
    log_energy = np.linspace(np.log(0.4), np.log(100), 4000)
    spectrum = np.exp(log_energy) ** -1.7
    per_tev = float(np.sum(0.5 * (spectrum[1:] + spectrum[:-1]) * np.diff(log_energy)))
    at_1_tev = sim.background_rate(np.array(1.0), det_x, det_y) * area
    expected = 8 * sim.ONTIME * per_tev * at_1_tev
    lon = -place.lon.wrap_at("180d").deg
    found, _, _ = np.histogram2d(place.lat.deg, lon, bins=edges)
    assert found.sum() == pytest.approx(expected.sum(), abs=4 * np.sqrt(expected.sum()))
    chi2 = float(((found - expected) ** 2 / expected).sum())
    assert abs(chi2 - found.size) < 5 * np.sqrt(2 * found.size)
    assert np.mean(energy < 0.8) == pytest.approx(0.6923, abs=0.004)


@pytest.mark.parametrize("sigma", [0.0, 0.18])
def test_source_events_follow_flux_area_and_psf(sigma: float) -> None:
    source = sim.Source("s", 30.0, 1.0, sigma, 5e-11, (0.0, 0.0))
    rng = np.random.default_rng(6)
    draws = [sim._draw_source(source, (30.0, 0.0), rng) for _ in range(400)]
    lon, lat, _ = (np.concatenate(parts) for parts in zip(*draws, strict=True))
    energy = np.geomspace(*sim.ENERGY_RANGE, 20001)
    flux = 5e-11 * 1.3 / (0.5**-1.3 - 50**-1.3) * energy**-2.3 * 1e4
    rate = flux * sim.effective_area(energy, np.full_like(energy, 1.0))
    width = sim.psf_core(energy, np.full_like(energy, 1.0))
    total = np.trapezoid(rate, energy)
    loss = (
        1.0
        if sigma == 0
        else (1 + sigma**2 / 1.8**2) ** -1 * np.exp(0.5 / 1.8**2 - 0.5 / (1.8**2 + sigma**2))
    )
    expected = 400 * sim.ONTIME * sim.DEADC * total * loss
    assert lon.size == pytest.approx(expected, abs=4 * np.sqrt(expected))
    shares = (1 - sim.PSF_WIDE_SHARE) + sim.PSF_WIDE_SHARE * sim.PSF_WIDE**2
    variance = np.trapezoid(rate * width**2, energy) / total * shares + sigma**2
    error = 1 / np.sqrt(lon.size)
    assert np.std(lat) == pytest.approx(np.sqrt(variance), rel=6 * error + 0.004)
    shift = -(sigma**2) / (1.8**2 + sigma**2)  # an extended source is seen better near the axis
    assert np.mean(lat) == pytest.approx(1.0 + shift, abs=4 * np.sqrt(variance) * error)
    assert np.mean(lon) == pytest.approx(30.0, abs=4 * np.sqrt(variance) * error)


def analyse(store: Path) -> Any:
    analysis = Analysis(AnalysisConfig.read(store / "config.yaml"))
    analysis.get_observations()
    analysis.get_datasets()
    analysis.set_models(Models.read(store / "models.yaml"))
    return analysis, analysis.run_fit()


def test_the_fit_finds_the_truth_from_the_start_values(tmp_path: Path) -> None:
    truth = {
        (model.name, parameter.name): parameter.value
        for text in [sim.models_yaml(sim.SOURCES)]
        for model in Models.from_yaml(text)
        for parameter in model.parameters
    }
    pulls = []
    for seed in range(4):
        _, result = analyse(sim.simulate_store(tmp_path / str(seed), seed))
        assert result.success, result.message
        assert 15 < result.ts["faint"].ts < 80
        assert result.ts["bright"].ts > 1000
        pulls += [
            (value - truth[name]) / error
            for name, value, error in zip(result.names, result.values, result.errors, strict=True)
            if name in truth
        ]
    assert len(pulls) == 4 * 10
    assert abs(np.mean(pulls)) < 4 / np.sqrt(len(pulls))
    assert 0.6 < np.std(pulls) < 1.5
    assert np.max(np.abs(pulls)) < 4


def test_gammapy_reads_the_store_and_reduces_the_same(demo_store: Path, gammapy: Any) -> None:
    code = """
import json, logging, os, sys
os.chdir(sys.argv[1])
from gammapy.analysis import Analysis, AnalysisConfig
from gammapy.modeling.models import Models
config = AnalysisConfig.read("config.yaml")
config.general.log.level = "error"
analysis = Analysis(config)
analysis.get_observations()
analysis.get_datasets()
dataset = analysis.datasets[0]
counts, background = float(dataset.counts.data.sum()), dataset.background.data[0]
analysis.set_models(Models.read("truth.yaml"))
print(json.dumps({
    "runs": [int(i) for i in analysis.observations.ids], "counts": counts,
    "background": background[::20, ::20].tolist(),
    "exposure": [float(dataset.exposure.data.min()), float(dataset.exposure.data.max())],
    "npred": {m.name: float(dataset.npred_signal([m.name]).data.sum())
              for m in analysis.models[:3]},
}))
"""
    theirs = gammapy(code, demo_store)
    assert theirs["runs"] == sim.obs_ids()
    analysis = Analysis(AnalysisConfig.read(demo_store / "config.yaml"))
    analysis.get_observations()
    analysis.get_datasets()
    dataset = analysis.datasets[0]
    assert float(dataset.counts.data.sum()) == theirs["counts"]
    background = np.array(theirs["background"])
    ours = dataset.background.data[0, ::20, ::20]
    # A power law in energy: Gammapy's one-bin integral is exact here.
    np.testing.assert_allclose(ours, background, rtol=2e-3, atol=1e-6)
    assert dataset.exposure.data.max() == pytest.approx(theirs["exposure"][1], rel=1e-3)
    analysis.set_models(Models.read(demo_store / "truth.yaml"))
    from imgfit_widgets.core.evaluator import Evaluator

    evaluator = Evaluator(analysis.datasets, analysis.models)
    for name, npred in theirs["npred"].items():
        found = evaluator.npred_of(name, evaluator.x0)[0].sum()
        assert found == pytest.approx(npred, rel=5e-3), name


def test_the_headers_say_what_the_format_asks_for(demo_store: Path) -> None:
    with fits.open(demo_store / "events_000001.fits.gz") as hdus:
        header = hdus["EVENTS"].header
        for key in (
            "HDUCLASS",
            "OBS_ID",
            "RA_PNT",
            "DEC_PNT",
            "TSTART",
            "TSTOP",
            "DEADC",
            "MJDREFI",
        ):
            assert key in header
        events = hdus["EVENTS"].data
        assert len(events) > 10000
        assert np.all(np.diff(events["TIME"]) >= 0)
        assert header["TSTART"] <= events["TIME"].min()
        assert events["TIME"].max() <= header["TSTOP"]
        interval = hdus["GTI"].data
        assert float((interval["STOP"] - interval["START"]).sum()) == header["ONTIME"]
    with fits.open(demo_store / "hdu-index.fits.gz") as hdus:
        assert len(hdus[1].data) == 4 * 6


@pytest.mark.parametrize("folder", ["file", "file/inside"])
def test_a_folder_that_cannot_be_made_is_named(folder: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file.*: cannot write the simulated store"):
        sim.simulate_store(tmp_path / folder)


def test_a_negative_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="seed: -1"):
        sim.simulate_store(tmp_path, seed=-1)


def test_the_demo_is_made_once_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    start = time.process_time()
    paths = demo()
    assert time.process_time() - start < 5
    config = AnalysisConfig.read(paths.config)
    config.check_supported()
    assert config.observations.datastore_path == paths.store
    assert Models.read(paths.models).names == ["bright", "extended"]
    before = paths.config.stat().st_mtime_ns
    assert demo() == paths
    assert paths.config.stat().st_mtime_ns == before
    assert [p.name for p in paths.store.parent.iterdir()] == [f"demo-{sim.VERSION}-0"]
    assert "residual map" in DEMO_TEXT


def test_the_demo_lives_without_a_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert tmp_path in demo().store.parents
