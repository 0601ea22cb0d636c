"""Response classes against closed forms, fine integrals and astropy; the H.E.S.S. runs."""

from __future__ import annotations

import logging
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import AltAz, EarthLocation, SkyCoord
from astropy.io import fits
from astropy.time import Time
from astropy.utils import iers

from imgfit_widgets import Analysis, AnalysisConfig
from imgfit_widgets.core.data import DataStore
from imgfit_widgets.core.errors import DataError
from imgfit_widgets.core.irf.axis import IrfAxis
from imgfit_widgets.core.irf.background import Background2D, Background3D, fill_energy_gaps
from imgfit_widgets.core.irf.fov import altaz_systems, radec_system
from imgfit_widgets.core.irf.mixture import PSF_WIDTHS, from_annuli, king
from imgfit_widgets.core.irf.psf import TablePSF
from imgfit_widgets.core.makers.responses import (
    Listed,
    OffsetResponses,
    ResponseCache,
    StackedResponses,
)
from imgfit_widgets.core.maps import MapAxis, WcsGeom, unit_vectors

RUNS = [23523, 23526, 23559, 23592]


def contents(weights: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """What mixtures (W, ...) hold within radii (N,)."""
    inside = 1.0 - np.exp(-0.5 * (radii[:, None] / PSF_WIDTHS) ** 2)
    return inside @ weights


@pytest.mark.parametrize("gamma", [1.3, 1.8, 3.0, 8.0, 11.9, 12.1, 40.0])
@pytest.mark.parametrize("sigma", [0.03, 0.1])
def test_a_king_profile_is_met_by_its_mixture(sigma, gamma):
    weights = king(np.array([sigma]), np.array([gamma]))[0]
    assert weights.min() > -0.02 and weights.sum() == pytest.approx(1.0)
    radii = sigma * np.array([0.3, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0])
    exact = 1.0 - (1.0 + radii**2 / (2 * gamma * sigma**2)) ** (1.0 - gamma)
    # The widths end at 1.6 deg, and what a flat tail has beyond is shared out.
    lost = (1.0 + (3.0 * PSF_WIDTHS[-1]) ** 2 / (2 * gamma * sigma**2)) ** (1.0 - gamma)
    np.testing.assert_allclose(contents(weights, radii), exact, atol=2e-3 + 3 * lost)


def hess(gammapy_data, run=23523):
    return DataStore.from_dir(gammapy_data / "hess-dl3-dr1").obs(run)


def test_hess_psf_tables_keep_what_lies_within_any_radius(gammapy_data):
    psf = hess(gammapy_data).psf
    assert isinstance(psf, TablePSF)
    rows = psf.data * np.diff(psf.rad**2)
    filled = rows.sum(axis=2) > 0
    assert 0.1 < 1.0 - filled.mean() < 0.3  # a part of the table is empty
    mixtures = psf.mixture(psf.energy.nodes, psf.offset.nodes)
    assert np.all(np.isfinite(mixtures)) and np.all(mixtures >= 0)
    np.testing.assert_allclose(mixtures.sum(axis=2), 1.0)
    table = np.cumsum(rows, axis=2)[filled]
    table /= table[:, -1:]
    found = contents(mixtures[filled].T, psf.rad[1:]).T
    found /= found[:, -1:]
    worst = np.abs(found - table).max(axis=1)
    assert np.median(worst) < 0.005
    # Rows of a handful of simulated events cannot be met by anything smooth.
    assert np.percentile(worst, 75) < 0.03


def test_a_smooth_table_comes_back_as_the_mixture_it_is():
    edges = np.sqrt(np.arange(145) * 5e-4)
    for sigma in (0.04, 0.08):
        content = -np.diff(np.exp(-0.5 * (edges / sigma) ** 2))[:, None]
        weights = from_annuli(content, edges)[:, 0]
        radii = sigma * np.array([0.5, 1.0, 1.5, 2.5])
        np.testing.assert_allclose(
            contents(weights, radii), 1 - np.exp(-0.5 * (radii / sigma) ** 2), atol=1e-2
        )


def fine_rate(bkg: Background3D, low: float, high: float, lon: float, lat: float) -> float:
    """Integral of a 3D background over a band, by 4000 steps, interpolated apart from the core."""
    energies = np.geomspace(max(low, bkg.energy.edges[0]), min(high, bkg.energy.edges[1]), 4001)

    def weights(axis: IrfAxis, value: float, log: bool = False) -> list[tuple[int, float]]:
        nodes = np.log(axis.nodes) if log else axis.nodes
        at = np.log(value) if log else value
        i = int(np.clip(np.searchsorted(nodes, at) - 1, 0, len(nodes) - 2))
        part = (at - nodes[i]) / (nodes[i + 1] - nodes[i])
        return [(i, 1 - part), (i + 1, part)]

    table = np.log(np.maximum(bkg.data, np.finfo(np.float32).tiny))
    spectrum = sum(
        a * b * table[:, i, j]
        for i, a in weights(bkg.fov_lon, lon)
        for j, b in weights(bkg.fov_lat, lat)
    )
    rate = []
    for energy in energies:
        (i, a), (j, b) = weights(bkg.energy, energy, log=True)
        rate.append(np.exp(a * spectrum[i] + b * spectrum[j]))
    rate = np.array(rate)
    rate[rate < 1e-36] = 0.0
    return float(np.trapezoid(rate * energies, np.log(energies)) * 1e6)


@pytest.mark.parametrize("bands", [(1, 10, 1), (1, 10, 3), (0.1, 10, 1), (0.3, 30, 2)])
@pytest.mark.parametrize("store", ["cta-1dc/index/gps", "hess-dl3-dr1"])
def test_background_in_a_band_is_converged(store, bands, gammapy_data):
    run = 110380 if store.startswith("cta") else 23523
    bkg = DataStore.from_dir(gammapy_data / store).obs(run).bkg
    axis = MapAxis.from_energy_bounds(bands[0] * u.TeV, bands[1] * u.TeV, bands[2])
    places = [(0.1, 0.05), (0.7, -0.4), (-1.3, 0.6), (0.2, 1.9), (-1.7, -1.1)]
    found = bkg.integrate(axis, *np.transpose(places))
    assert np.all(np.isfinite(found))
    for band, (low, high) in enumerate(zip(axis.bounds[:-1], axis.bounds[1:], strict=True)):
        exact = np.array([fine_rate(bkg, low, high, *place) for place in places])
        np.testing.assert_allclose(found[band], exact, rtol=1e-3)


@pytest.mark.parametrize(
    ("store", "reco", "true"),
    [
        ("cta-1dc/index/gps", (0.1, 10, 1), (0.1, 10, 30)),
        ("cta-1dc/index/gps", (0.1, 10, 3), (0.05, 30, 20)),
        ("hess-dl3-dr1", (1, 10, 1), (0.5, 20, 16)),
        ("hess-dl3-dr1", (1, 10, 5), (0.5, 20, 16)),
    ],
)
def test_photons_in_a_band_are_converged_across_the_field(store, reco, true, gammapy_data):
    """Area times energy dispersion in the bins, against 3000 steps in true energy."""
    run = 110380 if store.startswith("cta") else 23523
    observation = DataStore.from_dir(gammapy_data / store).obs(run)
    axis = MapAxis.from_energy_bounds(reco[0] * u.TeV, reco[1] * u.TeV, reco[2])
    axis_true = MapAxis.from_energy_bounds(true[0] * u.TeV, true[1] * u.TeV, true[2], "energy_true")
    offsets = np.linspace(0, 2.3, 24)
    tables = {"aeff": observation.aeff, "edisp": observation.edisp}
    responses = ResponseCache().get(tables, axis, axis_true, offsets, exact=True)
    flux = 1 / axis_true.bounds[:-1] - 1 / axis_true.bounds[1:]
    at_offsets = np.einsum("t,ktr->rk", flux, responses.photons)
    found = at_offsets @ responses.at.to(offsets).T

    steps = np.geomspace(true[0], true[1], 3001)
    energies = np.sqrt(steps[1:] * steps[:-1])
    exact = np.einsum(
        "t,to,tro->ro",
        1 / steps[:-1] - 1 / steps[1:],
        observation.aeff.evaluate(energies, offsets),
        observation.edisp.probabilities(energies, axis, offsets),
    )
    np.testing.assert_allclose(found, exact, rtol=1e-3)


@pytest.mark.parametrize("store", ["cta-1dc/index/gps", "hess-dl3-dr1"])
def test_responses_between_their_offsets_are_those_of_the_tables(store, gammapy_data):
    run = 110380 if store.startswith("cta") else 23523
    observation = DataStore.from_dir(gammapy_data / store).obs(run)
    tables = {kind: getattr(observation, kind) for kind in ("aeff", "edisp", "psf")}
    axis = MapAxis.from_energy_bounds("0.2 TeV", "50 TeV", 3)
    axis_true = MapAxis.from_energy_bounds("0.3 TeV", "30 TeV", 12, "energy_true")
    offsets = np.linspace(0.0, 2.45, 50)
    cache = ResponseCache()
    made = cache.get(tables, axis, axis_true, offsets, exact=True)
    assert cache.get(tables, axis, axis_true, offsets[:-1], exact=True) is made
    direct = OffsetResponses.of(tables, Listed(offsets), axis, axis_true, exact=True)

    to_offsets = made.at.to(offsets)
    np.testing.assert_allclose(to_offsets.sum(axis=1), 1.0)
    area = direct.photons.max(axis=(0, 2))[:, None]
    away = np.abs(_between(to_offsets, made.photons) - direct.photons) / area
    inside = offsets >= observation.edisp.offset.nodes[0]
    assert away[inside].max() < 3e-4 and np.median(away) < 1e-6
    # Nearer to the pointing than the first node densities are drawn on, and cut at 0.
    assert away.max() < 1e-3
    radii = np.array([0.03, 0.06, 0.1, 0.2, 0.4])
    np.testing.assert_allclose(_between(to_offsets, made.area), direct.area, rtol=1e-3, atol=1.0)
    exposed = direct.area > 0
    held = [
        contents((psf[exposed] / psf[exposed].sum(axis=1, keepdims=True)).T, radii)
        for psf in (_between(to_offsets, made.psf), direct.psf)
    ]
    np.testing.assert_allclose(*held, atol=1e-3)
    # Nothing is known beyond the table.
    beyond = made.at.to(np.array([made.at.borders[-1] + 0.1, np.nan]))
    assert not beyond.nnz


def _between(matrix, values):
    """Values (K, ...) taken to other offsets by a matrix (P, K)."""
    return (matrix @ values.reshape(len(values), -1)).reshape(-1, *values.shape[1:])


@pytest.mark.parametrize(
    ("store", "at_once"),
    [("cta-1dc/index/gps", 1 << 21), ("cta-1dc/index/gps", 300), ("hess-dl3-dr1", 1 << 21)],
)
def test_the_mean_of_runs_is_weighted_by_their_exposure(store, at_once, gammapy_data, monkeypatch):
    """Of runs that share their responses and of others, at each node of the grid."""
    monkeypatch.setattr("imgfit_widgets.core.makers.responses._AT_ONCE", at_once)
    runs = (110380, 111140) if store.startswith("cta") else RUNS[:2]
    axis = MapAxis.from_energy_bounds("0.5 TeV", "20 TeV", 2)
    axis_true = MapAxis.from_energy_bounds("0.5 TeV", "20 TeV", 6, "energy_true")
    geom = WcsGeom.create((1.0, -0.5), (2.0, 1.6), 0.2, frame="galactic")
    stacked = StackedResponses(geom, axis, axis_true, psf=True, edisp=True)
    rng, cache = np.random.default_rng(3), ResponseCache()
    nodes = slice(1, geom.shape[0]), slice(0, geom.shape[1] - 2)
    shape = nodes[0].stop - 1, nodes[1].stop
    sums = {"psf": 0.0, "edisp": 0.0, "exposure": 0.0}
    for run, livetime in zip((*runs, runs[0]), (900.0, 1500.0, 400.0), strict=True):
        observation = DataStore.from_dir(gammapy_data / store).obs(run)
        tables = {kind: getattr(observation, kind) for kind in ("aeff", "edisp", "psf")}
        offsets = rng.uniform(0.0, 2.2, shape)
        seen = rng.random(shape) < 0.7
        responses = cache.get(tables, axis, axis_true, np.array([2.4]), exact=True)
        stacked.add(responses, nodes, offsets, livetime, seen, np.stack([seen, seen]))
        direct = OffsetResponses.of(tables, Listed(offsets.ravel()), axis, axis_true, exact=True)
        place = np.searchsorted(direct.at.offsets, offsets)
        weight = livetime * seen[..., None]
        sums["psf"] += direct.psf[place] * weight[..., None]
        sums["edisp"] += direct.photons[place] * weight[..., None]
        sums["exposure"] += direct.area[place] * weight
    nowhere = np.zeros((0, 0), dtype=bool)
    stacked.add(responses, (slice(0, 0),) * 2, nowhere * 1.0, 1.0, nowhere, nowhere[None])
    psf, edisp = stacked.maps()
    inside = (..., *nodes)
    exposure = np.moveaxis(sums["exposure"], 2, 0)
    for found in (psf, edisp):
        np.testing.assert_allclose(found.exposure[inside], exposure, rtol=1e-3, atol=1.0)
        assert not found.exposure[:, 0].any() and not found.exposure[..., -1].any()
    used = exposure > 1e-3 * exposure.max()
    radii = np.array([0.03, 0.06, 0.1, 0.2, 0.4])
    held = [
        contents(np.moveaxis(values, 1, -1)[used].T, radii)
        for values in (
            psf.weights[inside],
            np.moveaxis(sums["psf"], (2, 3), (0, 1)) / np.maximum(exposure, 1e-9)[:, None],
        )
    ]
    np.testing.assert_allclose(*held, atol=1e-3)
    expected = np.moveaxis(sums["edisp"], (2, 3), (0, 1)) / np.maximum(exposure, 1e-9)[:, None]
    np.testing.assert_allclose(
        np.moveaxis(edisp.data[inside], 1, -1)[used], np.moveaxis(expected, 1, -1)[used], atol=2e-3
    )


def test_gaps_in_energy_are_filled_between_but_not_beyond():
    rate = np.array([[0.0, 1.0], [4.0, 0.0], [0.0, np.nan], [1.0, 8.0], [0.0, 0.0]])
    filled = fill_energy_gaps(rate)
    np.testing.assert_allclose(filled[:, 0], [0, 4, 2, 1, 0])
    np.testing.assert_allclose(filled[:, 1], [1, 2, 4, 8, 0])


def test_a_background_by_offset_counts_the_distance_only():
    energy = IrfAxis.from_bounds("energy", [0.1, 1.0], [1.0, 10.0], log=True)
    offset = IrfAxis.from_bounds("offset", [0.0, 1.0, 2.0], [1.0, 2.0, 3.0])
    table = np.array([[4.0, 2.0, 1.0], [0.4, 0.2, 0.1]])
    bkg = Background2D(energy, offset, table)
    band = MapAxis.from_energy_bounds("0.5 TeV", "5 TeV", 1)
    angle = np.linspace(0, 2 * np.pi, 7)
    # Small offsets, so that the flat distance is the one on the sphere.
    ring = bkg.integrate(band, 0.2 * np.cos(angle), 0.2 * np.sin(angle))
    np.testing.assert_allclose(ring, ring[0, 0], rtol=1e-5)
    # Halfway between two nodes the rate is their geometric mean; beyond the outer ones constant.
    at = bkg.integrate(band, np.array([0.5, 1.0, 1.5, 2.9, 3.2]), np.zeros(5))[0]
    assert at[1] == pytest.approx(np.sqrt(at[0] * at[2]), rel=1e-6)
    assert at[3] == pytest.approx(bkg.integrate(band, [2.5], [0.0])[0, 0])
    assert at[4] == 0.0
    assert bkg.integrate(band, [3.2], [0.0], power_law_bins=True)[0, 0] == pytest.approx(at[3])


def test_field_of_view_runs_against_right_ascension_and_with_declination():
    matrix = radec_system(83.6, 22.0)
    x, y, z = matrix @ unit_vectors(83.5, 22.5)
    assert np.degrees(np.arctan2(y, x)) == pytest.approx(0.1 * np.cos(np.radians(22.5)), rel=1e-3)
    assert np.degrees(np.arcsin(z)) == pytest.approx(0.5, abs=1e-3)
    assert (radec_system(83.6, 22.0, reverse=True) @ unit_vectors(83.5, 22.5))[1] < 0


def test_the_horizon_turns_the_field_as_astropy_has_it():
    location = (16.5, -23.27, 1800.0)
    place = EarthLocation.from_geodetic(*location[:2], location[2])
    ra, dec = 83.63, 22.01
    start = Time("2019-01-10T20:00:00", scale="utc")
    systems = altaz_systems(
        ra, dec, location, np.array([start.mjd]), np.array([start.mjd + 1e-6]), exact=True
    )
    assert len(systems) == 1 and systems[0][0] == 1.0
    with iers.conf.set_temp("auto_download", False):
        frame = AltAz(obstime=start, location=place)
        pointing = SkyCoord(ra, dec, unit="deg").transform_to(frame)
        target = SkyCoord(ra + 1.2, dec - 0.8, unit="deg").transform_to(frame)
    offset = target.transform_to(pointing.skyoffset_frame())
    x, y, z = systems[0][1] @ unit_vectors(ra + 1.2, dec - 0.8)
    assert np.degrees(np.arctan2(y, x)) == pytest.approx(-offset.lon.wrap_at("180d").deg, abs=1e-3)
    assert np.degrees(np.arcsin(z)) == pytest.approx(offset.lat.deg, abs=1e-3)


def test_the_horizon_is_followed_through_every_interval():
    start = np.array([58493.80, 58493.83])
    stop = np.array([58493.81, 58493.85])
    systems = altaz_systems(83.63, 22.01, (16.5, -23.27, 1800.0), start, stop)
    weights = np.array([weight for weight, _ in systems])
    assert weights.sum() == pytest.approx(1.0) and len(systems) > 10
    turned = [np.degrees(np.arctan2(*(m @ unit_vectors(83.63, 23.0))[1:])) for _, m in systems]
    steps = np.abs(np.diff(turned))
    assert np.sort(steps)[:-1].max() < 0.6  # but for the gap
    same = altaz_systems(83.63, 22.01, (16.5, -23.27, 1800.0), start, stop, exact=False)
    assert sum(weight for weight, _ in same) == pytest.approx(1.0)


def test_thresholds_come_from_the_header_and_0_is_none(gammapy_data, caplog):
    aeff = hess(gammapy_data).aeff
    assert (aeff.energy_min, aeff.energy_max) == pytest.approx((0.870963589956081, 100.0))
    observation = DataStore.from_dir(gammapy_data / "cta-1dc/index/gps").obs(110380)
    assert (observation.aeff.energy_min, observation.aeff.energy_max) == (None, None)


def test_a_point_like_response_is_refused_by_name(gammapy_data, tmp_path):
    observation = hess(gammapy_data)
    at = observation.hdus["aeff"]
    with fits.open(at.path) as hdus:
        hdus[at.name].header["HDUCLAS3"] = "POINT-LIKE"
        hdus.writeto(tmp_path / "run.fits")
    observation.hdus["aeff"] = replace(at, path=tmp_path / "run.fits")
    with pytest.raises(DataError, match=r"run\.fits \[.*\]: is a point-like response"):
        _ = observation.aeff


def crab(**axes) -> AnalysisConfig:
    energy = {"min": "1 TeV", "max": "10 TeV", "nbins": 1, **axes}
    return AnalysisConfig.from_dict(
        {
            "observations": {"datastore": "$GAMMAPY_DATA/hess-dl3-dr1", "obs_ids": RUNS},
            "datasets": {
                "type": "3d",
                "geom": {
                    "wcs": {
                        "skydir": {"frame": "icrs", "lon": "83.633 deg", "lat": "22.014 deg"},
                        "width": {"width": "4 deg", "height": "4 deg"},
                        "binsize": "0.04 deg",
                    },
                    "axes": {"energy": energy},
                },
                "background": {"method": "fov_background"},
                "safe_mask": {
                    "methods": ["aeff-default", "offset-max"],
                    "parameters": {"offset_max": "2.5 deg"},
                },
            },
        }
    )


CRAB = """
components:
- name: crab
  type: SkyModel
  spatial:
    type: PointSpatialModel
    frame: icrs
    parameters:
    - {name: lon_0, value: 83.7, unit: deg}
    - {name: lat_0, value: 22.08, unit: deg}
  spectral:
    type: PowerLawSpectralModel
    parameters:
    - {name: index, value: 2.6, frozen: true}
    - {name: amplitude, value: 1.0e-12, unit: cm-2 s-1 TeV-1}
    - {name: reference, value: 1.0, unit: TeV, frozen: true}
"""


def test_the_hess_runs_reduce_and_fit(gammapy_data):
    analysis = Analysis(crab())
    result = analysis.run(CRAB)
    assert result.success
    found = {p.name: p for p in analysis.models["crab"].parameters}
    assert found["lon_0"].value == pytest.approx(83.63, abs=0.02)
    assert found["lat_0"].value == pytest.approx(22.015, abs=0.02)
    # Between half and one and a half of the nebula's 3.8e-11 (H.E.S.S. 2006, A&A 457, 899).
    assert found["amplitude"].value == pytest.approx(3.8e-11, rel=0.5)
    assert result.ts["crab"].ts > 1000


def test_bands_below_the_table_are_empty_where_gammapy_has_nan(gammapy_data):
    analysis = Analysis(crab(min="0.1 TeV", nbins=2))
    analysis.get_observations()
    analysis.get_datasets()
    dataset = analysis.datasets[0]
    for sky_map in (dataset.background, dataset.exposure):
        assert np.all(np.isfinite(sky_map.data))
    assert np.all(np.isfinite(dataset.psf.weights)) and np.all(np.isfinite(dataset.edisp.data))
    # The thresholds of the runs lie near 0.9 TeV, so the lower band, 0.1 to 1 TeV, is not trusted.
    assert not dataset.mask_safe.data[0].any() and dataset.mask_safe.data[1].any()


@pytest.mark.parametrize("min_energy", [0.5, 0.88])
def test_runs_of_which_no_energy_bin_is_trusted_say_from_where_they_are(gammapy_data, min_energy):
    """The thresholds of the four lie between 0.66 and 0.871 TeV."""
    analysis = Analysis(crab(min=f"{min_energy} TeV"))
    analysis.get_observations()
    if min_energy == 0.88:
        analysis.get_datasets()
        assert not analysis.failed
        return
    match = (
        r"23523: aeff-default trusts it from 0\.871 TeV to 100 TeV, where no whole bin "
        r"of datasets\.geom\.axes\.energy lies \(1 bin from 0\.5 to 10 TeV\).* \(and 3 more\)"
    )
    with pytest.raises(DataError, match=match):
        analysis.get_datasets()
    assert len(analysis.failed) == 4


def test_a_mask_without_thresholds_in_the_header_says_so(gammapy_data, caplog, reference):
    config = AnalysisConfig.read(reference / "formats/A_config_input.yaml")
    config.observations.obs_ids = [110380]
    config.datasets.geom.wcs.binsize = "0.1 deg"
    config.datasets.safe_mask.methods = ["aeff-default", "offset-max"]
    analysis = Analysis(config)
    analysis.get_observations()
    with caplog.at_level(logging.WARNING):
        analysis.get_datasets()
    assert "110380: the header of its effective area has no lower threshold" in caplog.text
