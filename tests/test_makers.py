"""Reductions in many geometries, with every safe mask, background method, selection and failure.

What is expected is computed here in another way: from the events with astropy's coordinates, from
great-circle distances, from the formulas that the simulated responses were made of, or by loops.
"""

from __future__ import annotations

import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from imgfit_widgets import Analysis, AnalysisConfig
from imgfit_widgets.core.errors import ConfigError, DataError
from imgfit_widgets.core.makers import (
    AdaptiveRingBackground,
    Exclusion,
    FoVBackground,
    RingBackground,
    reduce_observations,
    reduction_from_config,
)
from imgfit_widgets.core.makers.background import ring_kernel
from imgfit_widgets.core.maps import WcsGeom, convert_frame
from imgfit_widgets.core.parallel import open_executor
from imgfit_widgets.core.progress import Cancelled
from imgfit_widgets.core.simulate import effective_area, simulate_store


@pytest.fixture
def config(demo_store):
    """Two runs in coarse pixels on a map that holds their fields of view."""
    config = AnalysisConfig.read(demo_store / "config.yaml")
    config.observations.obs_ids = [1, 2]
    wcs = config.datasets.geom.wcs
    wcs.binsize, wcs.binsize_irf = "0.1 deg", "0.4 deg"
    wcs.width = {"width": "6.4 deg", "height": "6.4 deg"}
    config.datasets.geom.axes.energy_true.nbins = 6
    return config


def reduced(config: AnalysisConfig, geometry: Any = None, **options: Any) -> Any:
    analysis = Analysis(config, set_logging=False, geometry=geometry, **options)
    analysis.get_observations()
    analysis.get_datasets()
    return analysis.datasets


def wcs(
    kind: str,
    crval: tuple[float, float],
    crpix: tuple[float, float],
    cdelt: tuple[float, float],
    turn: float = 0.0,
) -> WCS:
    lon, lat = ("GLON-", "GLAT-") if kind[0] == "g" else ("RA---", "DEC--")
    found = WCS(naxis=2)
    found.wcs.ctype = [lon + kind[1:], lat + kind[1:]]
    found.wcs.crval, found.wcs.crpix = crval, crpix
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    found.wcs.cd = np.array([[c, -s], [s, c]]) * cdelt
    found.wcs.set()
    return found


RA, DEC = (float(v) for v in convert_frame(30.0, 0.0, "galactic", "icrs"))
GEOMETRIES = {
    "galactic CAR": WcsGeom.create((30, 0), 6.4, 0.1, "CAR", "galactic"),
    "galactic TAN": WcsGeom.create((30, 0), 6.4, 0.1, "TAN", "galactic"),
    "icrs CAR": WcsGeom.create((RA, DEC), 9.0, 0.1, "CAR", "icrs"),
    "icrs TAN": WcsGeom.create((RA, DEC), 9.0, 0.1, "TAN", "icrs"),
    "turned": WcsGeom(wcs("iTAN", (RA, DEC), (45.5, 45.5), (-0.1, 0.1), 35.0), (90, 90)),
    "SIN": WcsGeom(wcs("iSIN", (RA, DEC), (30.5, 60.5), (-0.1, 0.15), 10.0), (120, 90)),
    "wide pixels": WcsGeom(wcs("gCAR", (30, 0), (40.5, 30.5), (-0.08, 0.12)), (60, 80)),
    "flipped": WcsGeom(wcs("gCAR", (30, 0), (32.5, 32.5), (0.1, -0.1)), (64, 64)),
    "reference far off": WcsGeom(wcs("gZEA", (0, 90), (-4.5e2, 7.8e2), (-0.1, 0.1)), (64, 64)),
    "reference beside": WcsGeom(wcs("gTAN", (10, 0), (240.5, 32.5), (-0.1, 0.1)), (64, 80)),
    "all sky AIT": WcsGeom(wcs("gAIT", (0, 0), (400.5, 200.5), (-0.45, 0.45)), (400, 800)),
    "all sky CAR": WcsGeom(wcs("gCAR", (0, 0), (360.5, 180.5), (-0.5, 0.5)), (360, 720)),
}


def expected_counts(config: AnalysisConfig, geom: WcsGeom, store: Any) -> int:
    """Events in pixels whose centre is near enough to the pointing, with astropy's coordinates."""
    total = 0
    frame = SkyCoord(0, 0, unit="deg", frame=geom.frame)
    limit = u.Quantity(config.datasets.safe_mask.parameters["offset_max"])
    for number in config.observations.obs_ids:
        (file,) = store.rglob(f"*{number:03d}*.fits*")
        with fits.open(file) as hdus:
            events, header = hdus["EVENTS"].data, hdus["EVENTS"].header
            ra, dec, energy = (np.array(events[k], float) for k in ("RA", "DEC", "ENERGY"))
            pointing = SkyCoord(header["RA_PNT"], header["DEC_PNT"], unit="deg")
        at = SkyCoord(ra, dec, unit="deg")
        x, y = at.transform_to(frame).spherical.lon.deg, at.transform_to(frame).spherical.lat.deg
        x, y = (np.floor(v + 0.5) for v in geom.wcs.wcs_world2pix(x, y, 0))
        centres = geom.wcs.wcs_pix2world(x, y, 0)
        near = SkyCoord(*centres, unit="deg", frame=geom.frame).separation(pointing) < limit
        inside = (x >= 0) & (x < geom.npix[0]) & (y >= 0) & (y < geom.npix[1])
        total += int((near & inside & (energy >= 0.5) & (energy < 50.0)).sum())
    return total


@pytest.mark.parametrize("name", [k for k in GEOMETRIES if k != "reference far off"])
@pytest.mark.parametrize("accuracy", ["exact", "gammapy"])
def test_any_geometry_holds_the_same_sky(name, accuracy, config, demo_store):
    """Events once each, background and exposure per sky area; no NaN where there is no sky."""
    geom = GEOMETRIES[name]
    config.datasets.background.method = None
    dataset = reduced(config, geom, accuracy=accuracy)[0]
    reference = reduced(config)[0]
    for found in (
        dataset.counts, dataset.background, dataset.exposure,
    ):  # fmt: skip
        assert np.isfinite(found.data).all()
    assert np.isfinite(dataset.psf.weights).all()
    assert np.isfinite(dataset.edisp.data).all()
    # A pixel whose centre lies on the limit, or an event on an edge, may fall to either side.
    expected = expected_counts(config, geom, demo_store)
    assert dataset.counts.data[dataset.mask].sum() == pytest.approx(expected, abs=15)
    coarse = 2e-2 if name.startswith("all sky") else 5e-3
    total = dataset.background.data[dataset.mask].sum()
    assert total == pytest.approx(reference.background.data[reference.mask].sum(), rel=coarse)
    exposures = []
    for each in (dataset, reference):
        area = np.nan_to_num(each.geom.solid_angle())
        exposures.append((each.exposure.data * area).sum(axis=(1, 2)))
    np.testing.assert_allclose(*exposures, rtol=coarse)
    lon, lat = dataset.geom.from_frame(RA + 0.3, DEC - 0.2, "icrs")
    at = [dataset.exposure.interp_by_coord(lon, lat)]
    at.append(
        reference.exposure.interp_by_coord(*convert_frame(RA + 0.3, DEC - 0.2, "icrs", "galactic"))
    )
    np.testing.assert_allclose(*at, rtol=2e-2 if name.startswith("all sky") else 2e-3)


def test_a_map_around_the_pole_of_its_projection(config):
    """The window of a run is found where a projection's pole lies far from the map."""
    geom = WcsGeom(wcs("gZEA", (0, 90), (0, 0), (-0.1, 0.1)), (64, 64))
    x, y = (float(v) for v in geom.lonlat_to_pix(30.0, 0.0))
    moved = wcs("gZEA", (0, 90), (32.5 - x, 32.5 - y), (-0.1, 0.1))
    dataset = reduced(config, WcsGeom(moved, (64, 64)))[0]
    assert dataset.counts.data.sum() > 20000
    assert np.isfinite(dataset.background.data).all()


@pytest.mark.parametrize("binsz", ["0.1 deg", "0.7 deg", "3 deg", "20 deg"])
@pytest.mark.parametrize("bands", [1, 4])
def test_responses_on_any_grid(binsz, bands, config):
    config.datasets.geom.wcs.binsize_irf = binsz
    config.datasets.geom.axes.energy.nbins = bands
    dataset = reduced(config)[0]
    seen = dataset.psf.exposure > 0
    weights = np.moveaxis(dataset.psf.weights, 1, 0).sum(axis=0)
    np.testing.assert_allclose(weights[seen], 1.0, atol=1e-9)
    assert dataset.edisp.data.min() >= 0.0
    assert dataset.edisp.data.sum(axis=1).max() < 1.05


def test_geometry_comes_from_an_image(config, tmp_path):
    geom = GEOMETRIES["turned"]
    path = tmp_path / "image.fits"
    header = geom.wcs.to_header()
    fits.PrimaryHDU(np.full(geom.shape, np.nan), header).writeto(path)
    dataset = reduced(config, path)[0]
    assert dataset.geom.is_aligned(geom)
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "plain.fits")
    with pytest.raises(DataError, match=r"plain\.fits .*has no sky coordinates"):
        reduced(config, tmp_path / "plain.fits")
    with pytest.raises(DataError, match=r"none\.fits': no such file"):
        reduced(config, tmp_path / "none.fits")


# Safe masks


def bands(config: AnalysisConfig) -> np.ndarray:
    return np.asarray(reduced(config)[0].mask_safe.data.any(axis=(1, 2)))


@pytest.mark.parametrize("irfs", ["DL4", "DL3"])
@pytest.mark.parametrize("percent", [1.0, 10.0, 60.0])
def test_area_thresholds_are_those_of_the_simulated_area(irfs, percent, config):
    axes = config.datasets.geom.axes
    axes.energy.nbins = 20
    axes.energy_true = {"min": "0.1 TeV", "max": "100 TeV", "nbins": 60}
    config.datasets.safe_mask.methods = ["aeff-max"]
    config.datasets.safe_mask.parameters = {
        "aeff_percent": percent, "fixed_offset": "1 deg", "irfs": irfs,
    }  # fmt: skip
    energies = np.geomspace(0.1, 100.0, 20001)
    area = effective_area(energies, np.full(energies.shape, 1.0))
    threshold = energies[np.argmax(area >= percent / 100.0 * area.max())]
    edges = np.geomspace(0.5, 50.0, 21)
    expected = edges[:-1] >= threshold
    found = bands(config)
    # A band whose edge is the threshold to the width of a bin may fall to either side.
    sure = np.abs(np.log(edges[:-1] / threshold)) > 0.12
    np.testing.assert_array_equal(found[sure], expected[sure])


def test_methods_together_trust_what_each_of_them_trusts(config):
    config.datasets.geom.axes.energy.nbins = 12
    config.datasets.background.method = None
    options = {"aeff_percent": 40, "bias_percent": 3, "offset_max": "1.5 deg"}
    config.datasets.safe_mask.parameters = options
    methods = ["offset-max", "aeff-max", "edisp-bias", "bkg-peak"]
    masks = []
    config.observations.obs_ids = [1]
    for method in methods:
        config.datasets.safe_mask.methods = [method]
        masks.append(reduced(config)[0].mask_safe.data)
    config.datasets.safe_mask.methods = methods
    found = reduced(config)[0].mask_safe.data
    np.testing.assert_array_equal(found, np.logical_and.reduce(masks))
    assert 0 < found.sum() < min(mask.sum() for mask in masks)


# Exclusions


def separation(geom: WcsGeom, lon: float, lat: float, frame: str) -> np.ndarray:
    pixels = SkyCoord(*geom.pixel_lonlat, unit="deg", frame=geom.frame)
    return np.asarray(pixels.separation(SkyCoord(lon, lat, unit="deg", frame=frame)).deg)


@pytest.mark.parametrize("frame", ["galactic", "icrs"])
@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize(
    ("proj", "centre"),
    [("CAR", (0.0, 0.0)), ("TAN", (359.9, 0.2)), ("CAR", (120.0, 80.0)), ("TAN", (10.0, 89.5)),
     ("TAN", (200.0, -80.0))],
)  # fmt: skip
def test_regions_exclude_what_lies_in_them(frame, sign, proj, centre, tmp_path):
    """Circle, annulus, ellipse, box and polygon by distances and bearings on the sphere."""
    geom = WcsGeom.create(centre, 6.0, 0.1, proj, "galactic")
    at = SkyCoord(*geom.center_lonlat, unit="deg", frame="galactic").transform_to(frame)
    lon, lat = at.spherical.lon.deg, at.spherical.lat.deg
    pixels = SkyCoord(*geom.pixel_lonlat, unit="deg", frame="galactic").transform_to(frame)
    offset = SkyCoord(lon, lat, unit="deg", frame=frame)
    distance, bearing = offset.separation(pixels).deg, offset.position_angle(pixels).rad
    # In the tangential plane of the region's centre.
    radius = np.degrees(np.tan(np.radians(distance)))
    x, y = radius * np.sin(bearing), radius * np.cos(bearing)
    corner = [
        offset.directional_offset_by(angle * u.deg, 1.2 * u.deg).spherical
        for angle in (0, 120, 240)
    ]
    corners = ",".join(f"{c.lon.deg:.9f},{c.lat.deg:.9f}" for c in corner)
    r = np.degrees(np.tan(np.radians(1.2)))
    sides = [
        x * np.sin(np.radians(a)) + y * np.cos(np.radians(a)) - 0.5 * r for a in (60, 180, 300)
    ]
    cases = {
        f"circle({lon},{lat},1.05)": distance - 1.05,
        f"annulus({lon},{lat},0.55,1.05)": np.maximum(distance - 1.05, 0.55 - distance),
        f"ellipse({lon},{lat},1.55,0.75,30)": (
            np.hypot(
                (-x * np.cos(np.pi / 6) + y * np.sin(np.pi / 6)) / 1.55,
                (x * np.sin(np.pi / 6) + y * np.cos(np.pi / 6)) / 0.75,
            )
            - 1.0
        ),
        f"box({lon},{lat},2.5,1.3,0)": np.maximum(np.abs(x) - 1.25, np.abs(y) - 0.65),
        f"polygon({corners})": np.maximum.reduce(sides),
    }
    for text, outside in cases.items():
        path = tmp_path / "region.reg"
        path.write_text(f"{frame}\n{sign}{text}\n")
        keep = Exclusion(path).keep(geom)
        sure = np.abs(outside) > 5e-3
        np.testing.assert_array_equal(keep[sure], (outside > 0)[sure], err_msg=text)


def test_a_mask_is_looked_up_wherever_it_lies(tmp_path):
    """In another frame and projection, with latitude along x; beyond it the sky is kept."""
    own = WcsGeom.create((RA, DEC), 4.0, 0.02, "TAN", "icrs")
    data = separation(own, 30.2, 0.1, "galactic") > 0.8
    path = tmp_path / "mask.fits"
    fits.PrimaryHDU(data.astype(np.int16), own.wcs.to_header()).writeto(path)
    geom = WcsGeom.create((30, 0), 8.0, 0.1, "CAR", "galactic")
    expected = separation(geom, 30.2, 0.1, "galactic")
    sure = np.abs(expected - 0.8) > 0.03
    keep = Exclusion(path).keep(geom)
    np.testing.assert_array_equal(keep[sure], expected[sure] > 0.8)
    turned = fits.PrimaryHDU(data.T.astype(np.float32), own.wcs.swapaxes(0, 1).to_header())
    turned.writeto(tmp_path / "turned.fits")
    np.testing.assert_array_equal(Exclusion(tmp_path / "turned.fits").keep(geom), keep)
    cube = np.stack([data, ~data]).astype(np.int16)
    fits.PrimaryHDU(cube, own.wcs.to_header()).writeto(tmp_path / "cube.fits")
    with pytest.raises(DataError, match=r"cube\.fits .*planes"):
        Exclusion(tmp_path / "cube.fits")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "a.reg",
            "galactic\ncircle(x,y,1)",
            "cannot be read as ds9 regions|no region with an area",
        ),
        ("a.reg", "", "no region with an area"),
        ("a.reg", "image\ncircle(10,10,3)", "is in pixels; expected a region on the sky"),
        ("a.fits", "SIMPLE", "not a FITS file|cannot be read"),
    ],
)
def test_a_bad_exclusion_is_named(name, content, reason, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=reason) as caught:
        Exclusion(tmp_path / name)
    assert name in str(caught.value)


# Backgrounds


def test_the_scale_of_a_run_is_its_ratio_outside_of_the_exclusion(config, tmp_path):
    region = tmp_path / "a.reg"
    region.write_text("galactic\ncircle(30,0,0.8)\n")
    config.datasets.stack = False
    config.datasets.background.method = None
    raw = reduced(config)
    config.datasets.background.method = "fov_background"
    config.datasets.background.exclusion = region
    for plain, scaled in zip(raw, reduced(config), strict=True):
        used = plain.mask & (separation(plain.geom.to_image(), 30, 0, "galactic") > 0.8)
        counts = plain.counts.data[used].sum()
        norm = counts / plain.background.data[used].sum()
        assert scaled.runs[0].fov_norm == pytest.approx(norm, rel=1e-12)
        parameter = scaled.background_model.parameters["norm"]
        assert parameter.error == pytest.approx(norm / np.sqrt(counts), rel=1e-9)
        np.testing.assert_array_equal(plain.background.data, scaled.background.data)


def looped_ring(values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Sums over the pixels of a kernel, pixel by pixel."""
    half_y, half_x = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = np.pad(values, ((half_y, half_y), (half_x, half_x)))
    out = np.zeros(values.shape)
    for j in range(values.shape[0]):
        for i in range(values.shape[1]):
            box = padded[j : j + kernel.shape[0], i : i + kernel.shape[1]]
            out[j, i] = (box * kernel).sum()
    return out


@pytest.fixture
def field():
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:41, :47]
    background = 2.0 * np.exp(-((x - 23) ** 2 + (y - 20) ** 2) / 400.0)[None]
    counts = rng.poisson(background).astype(float)
    valid = (np.hypot(x - 23, y - 20) < 19)[None]
    keep = np.hypot(x - 20, y - 22) > 4
    return counts, background, valid, keep


@pytest.mark.parametrize("inside_only", [True, False])
def test_a_ring_is_a_sum_over_its_pixels(inside_only, field):
    counts, background, valid, keep = field
    ring = RingBackground(0.515, 0.29, inside_only)
    found = ring.run(counts, background, valid, keep, (0.1, 0.1))
    used = (keep & valid if inside_only else np.broadcast_to(keep, valid.shape))[0]
    distance = np.hypot(*np.mgrid[-8:9, -8:9])
    kernel = ((distance > 5.15) & (distance < 8.05)).astype(float)
    off = looped_ring(counts[0] * used, kernel)
    acceptance = looped_ring(background[0] * used, kernel)
    some = acceptance > 1e-6
    expected = np.where(some, background[0] * off / np.where(some, acceptance, 1.0), 0.0)
    np.testing.assert_allclose(found.background[0], expected, atol=1e-9)
    np.testing.assert_array_equal(found.mask[0], some)


def test_a_ring_in_wide_pixels_is_round_on_the_sky():
    kernel = ring_kernel(0.5, 0.3, (0.05, 0.1))
    half = kernel.shape[0] // 2, kernel.shape[1] // 2
    y, x = np.mgrid[-half[0] : half[0] + 1, -half[1] : half[1] + 1]
    distance = np.hypot(0.05 * x, 0.1 * y)
    np.testing.assert_array_equal(kernel > 0, (distance >= 0.5) & (distance <= 0.8))


@pytest.mark.parametrize("fixed_width", [True, False])
def test_an_adaptive_ring_grows_until_it_has_enough(fixed_width, field):
    counts, background, valid, keep = field
    method = AdaptiveRingBackground(0.31, 0.23, 1.2, 0.1, 0.15, 0.22, fixed_width)
    found = method.run(counts, background, valid, keep, (0.1, 0.1))
    used = (keep & valid)[0]
    disk = looped_ring(background[0], ring_kernel(0.0, 0.22, (0.1, 0.1)))
    expected, open_ = np.zeros(used.shape), np.ones(used.shape, dtype=bool)
    for step in range(20):
        r_in, width = (0.31 + 0.1 * step, 0.23) if fixed_width else (0.31, 0.23 + 0.1 * step)
        if r_in + width >= 1.2:
            break
        kernel = ring_kernel(r_in, width, (0.1, 0.1))
        acceptance = looped_ring(background[0] * used, kernel)
        off = looped_ring(counts[0] * used, kernel)
        enough = open_ & (acceptance > 1e-9) & (disk <= 0.15 * acceptance)
        expected[enough] = background[0][enough] * off[enough] / acceptance[enough]
        open_ &= ~enough
    np.testing.assert_allclose(found.background[0], expected, atol=1e-8)
    np.testing.assert_array_equal(found.mask[0], ~open_)
    assert open_.any()
    assert not open_.all()


def test_a_run_that_cannot_be_scaled_is_not_used(config):
    for key, value in (("min_counts", 1e7), ("min_npred_background", 1e7)):
        config.datasets.background.parameters = {key: value}
        with pytest.raises(DataError, match=r"no run can be used; observation 1.*expected"):
            reduced(config)
    nothing = np.zeros((1, 3, 3))
    used = np.ones((1, 3, 3), dtype=bool)
    found = FoVBackground().run(nothing, nothing, used, used[0], (0.1, 0.1))
    assert "cannot be scaled" in found.problem


# Selections, runs and failures


@pytest.mark.parametrize(
    "names",
    [["counts"], ["counts", "background"], ["counts", "exposure"],
     ["counts", "exposure", "edisp"], ["counts", "exposure", "psf", "background"]],
)  # fmt: skip
def test_only_the_maps_that_are_asked_for_are_made(names, config):
    config.datasets.background.method = None
    whole = reduced(config)[0]
    config.datasets.map_selection = names
    found = reduced(config)[0]
    made = [k for k in ("background", "exposure", "psf", "edisp") if getattr(found, k) is not None]
    assert sorted(["counts", *made]) == sorted(names)
    if "background" in names:
        np.testing.assert_array_equal(found.counts.data, whole.counts.data)
        np.testing.assert_array_equal(found.background.data, whole.background.data)


def test_a_stack_is_the_sum_of_its_runs_within_their_masks(config):
    stacked = reduced(config)[0]
    config.datasets.stack = False
    counts, background = np.zeros(stacked.geom.data_shape), np.zeros(stacked.geom.data_shape)
    for run in reduced(config):
        x, y = stacked.geom.lonlat_to_pix(*run.geom.pix_to_lonlat(0, 0))
        rows = slice(round(float(y)), round(float(y)) + run.geom.shape[0])
        columns = slice(round(float(x)), round(float(x)) + run.geom.shape[1])
        counts[:, rows, columns] += np.where(run.mask, run.counts.data, 0)
        scaled = run.background.data * run.runs[0].fov_norm
        background[:, rows, columns] += np.where(run.mask, scaled, 0)
    np.testing.assert_array_equal(stacked.counts.data, counts)
    np.testing.assert_allclose(stacked.background.data, background, rtol=1e-12)


@pytest.fixture
def broken_store(tmp_path):
    """A store whose second run has an events file that was cut off."""
    store = simulate_store(tmp_path / "store", seed=3)
    (file,) = store.rglob("*002*.fits*")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
    return store


def of_store(store: Any, ids: list[int]) -> AnalysisConfig:
    config = AnalysisConfig.read(store / "config.yaml")
    config.observations.datastore = store
    config.observations.obs_ids = ids
    config.datasets.geom.wcs.binsize = "0.2 deg"
    return config


def test_a_broken_run_is_named_and_the_others_are_reduced(broken_store):
    config = of_store(broken_store, [1, 2, 3])
    with pytest.raises(DataError, match="002"):
        reduced(config)
    analysis = Analysis(config, set_logging=False, skip_failed=True)
    analysis.get_observations()
    analysis.get_datasets()
    assert list(analysis.failed) == [2]
    assert "002" in analysis.failed[2]
    assert [run.obs_id for run in analysis.datasets[0].runs] == [1, 3]
    expected = reduced(of_store(broken_store, [1, 3]))[0]
    np.testing.assert_array_equal(analysis.datasets[0].counts.data, expected.counts.data)
    # Of as many broken runs as good ones the good ones were thrown away too.
    more = Analysis(of_store(broken_store, [1, 2]), set_logging=False, skip_failed=True)
    more.get_observations()
    more.get_datasets()
    assert [run.obs_id for run in more.datasets[0].runs] == [1]
    alone = Analysis(of_store(broken_store, [2]), set_logging=False, skip_failed=True)
    with pytest.raises(DataError, match="002"):
        alone.get_observations()
        alone.get_datasets()


def test_a_ring_beyond_the_map_leaves_nothing(config):
    """Round-off of the transform was taken for acceptance: background 0 where it was trusted."""
    config.datasets.background.method = "ring"
    config.datasets.background.parameters = {"r_in": "10 deg", "width": "0.3 deg"}
    with pytest.raises(DataError, match="no bin of the map is left"):
        reduced(config)


def test_a_run_off_the_map_adds_nothing(config, caplog):
    config.datasets.geom.wcs.skydir = {"frame": "galactic", "lon": "40 deg", "lat": "0 deg"}
    with pytest.raises(DataError, match="does not overlap"):
        reduced(config)
    config.datasets.geom.wcs.skydir = {"frame": "galactic", "lon": "35.5 deg", "lat": "0.4 deg"}
    dataset = reduced(config)[0]
    assert [run.obs_id for run in dataset.runs] == [1]
    assert "Observation 2 does not overlap" in caplog.text


def test_a_ring_without_its_maps_is_refused_by_key(config):
    config.datasets.map_selection = ["counts", "exposure"]
    with pytest.raises(ConfigError, match=r"datasets\.map_selection"):
        reduced(config)


# Workers, progress, memory


def same(a: Any, b: Any) -> None:
    for name in ("counts", "background", "exposure", "mask_safe"):
        np.testing.assert_array_equal(getattr(a, name).data, getattr(b, name).data)
    np.testing.assert_array_equal(a.psf.weights, b.psf.weights)
    np.testing.assert_array_equal(a.edisp.data, b.edisp.data)


def test_workers_change_no_bit(config, monkeypatch):
    config.observations.obs_ids = [1, 2, 3]
    alone = reduced(config)[0]
    with ThreadPoolExecutor(3) as pool:
        same(reduced(config, executor=pool)[0], alone)
    # Nor does the number of threads that BLAS has there.
    for threads in "12":
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", threads)
        with open_executor(2) as pool:
            same(reduced(config, executor=pool)[0], alone)


def test_cancelling_at_any_call_leaves_nothing(config):
    config.observations.obs_ids = [1]
    config.datasets.geom.wcs.binsize = "0.2 deg"
    analysis = Analysis(config, set_logging=False)
    analysis.get_observations()
    calls = 0

    def count(fraction: float, message: str) -> None:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise Cancelled

    stop_at = -1
    analysis.get_datasets(count)
    expected, total = analysis.datasets[0], calls
    assert total > 10
    for number in range(1, total + 1):
        calls, stop_at = 0, number
        again = Analysis(config, set_logging=False)
        again.observations = analysis.observations
        with pytest.raises(Cancelled):
            again.get_datasets(count)
        assert again.datasets is None
    calls, stop_at = 0, -1
    analysis.get_datasets(count)
    same(analysis.datasets[0], expected)


def test_a_large_map_is_left_often_enough_to_be_cancelled(config):
    """The longest time between two looks at whether to stop, on 1000 x 1000 pixels."""
    config.observations.obs_ids = [1]
    wcs_ = config.datasets.geom.wcs
    wcs_.binsize, wcs_.binsize_irf = "0.006 deg", "0.1 deg"
    wcs_.width = {"width": "6 deg", "height": "6 deg"}
    analysis = Analysis(config, set_logging=False)
    analysis.get_observations()
    times = [time.process_time()]
    analysis.get_datasets(lambda fraction, message: times.append(time.process_time()))
    assert len(times) > 20
    assert max(np.diff(times)) < 3.0  # about 0.1 s of the processor


def test_processes_are_cancelled_while_they_work(config):
    config.observations.obs_ids = [1, 2, 3, 4]
    config.general.n_jobs = 2
    analysis = Analysis(config, set_logging=False)
    analysis.get_observations()

    def stop(fraction: float, message: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        analysis.get_datasets(stop)
    assert analysis.datasets is None


def test_memory_does_not_grow_with_the_number_of_runs(config):
    config.observations.obs_ids = [1]
    config.datasets.geom.wcs.binsize = "0.05 deg"
    analysis = Analysis(config, set_logging=False)
    analysis.get_observations()
    reduction = reduction_from_config(config)
    (run,) = analysis.observations
    reduce_observations([run], reduction)
    peaks = []
    for number in (3, 12):
        tracemalloc.start()
        reduce_observations([run] * number, reduction)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] + 1e6


ADAPTIVE = """
import sys, numpy as np, astropy.units as u
from gammapy.data import DataStore
from gammapy.datasets import MapDataset
from gammapy.makers import AdaptiveRingBackgroundMaker, MapDatasetMaker, SafeMaskMaker
from gammapy.maps import MapAxis, WcsGeom
store, name, method = sys.argv[1:]
axis = MapAxis.from_energy_bounds("0.5 TeV", "50 TeV", 1)
true = MapAxis.from_energy_bounds("0.25 TeV", "100 TeV", 6, name="energy_true")
geom = WcsGeom.create(
    skydir=(30.0, 0.0), binsz=0.1, width=(6.4, 6.4), frame="galactic", proj="CAR", axes=[axis]
)
empty = MapDataset.create(geom, energy_axis_true=true, binsz_irf=0.4)
observation = DataStore.from_dir(store).obs(1)
cut = empty.cutout(observation.get_pointing_icrs(observation.tmid), width=2 * 2.3 * u.deg)
dataset = MapDatasetMaker().run(cut, observation)
dataset = SafeMaskMaker(methods=["offset-max"], offset_max=2.3 * u.deg).run(dataset, observation)
maker = AdaptiveRingBackgroundMaker(
    r_in=0.53 * u.deg, width=0.21 * u.deg, r_out_max=1.1 * u.deg, stepsize=0.1 * u.deg,
    threshold_alpha=0.02, theta=0.22 * u.deg, method=method,
)
found = maker.run(dataset)
np.savez(
    name, alpha=found.alpha.data, off=found.counts_off.data, mask=found.mask_safe.data,
    counts=found.counts.data,
)
print("null")
"""


@pytest.mark.parametrize("method", ["fixed_width", "fixed_r_in"])
def test_an_adaptive_ring_is_gammapys_in_its_accuracy(
    method, config, demo_store, gammapy, tmp_path
):
    gammapy(ADAPTIVE, demo_store, tmp_path / "found.npz", method)
    theirs = np.load(tmp_path / "found.npz")
    config.observations.obs_ids = [1]
    config.datasets.stack = False
    config.datasets.background.method = "ring"
    config.datasets.background.parameters = {
        "r_in": "0.53 deg", "width": "0.21 deg", "r_out_max": "1.1 deg", "stepsize": "0.1 deg",
        "threshold_alpha": 0.02, "theta": "0.22 deg", "method": method,
    }  # fmt: skip
    ours = reduced(config, accuracy="gammapy")[0]
    np.testing.assert_array_equal(ours.counts.data, theirs["counts"])
    np.testing.assert_array_equal(ours.mask_safe.data, theirs["mask"])
    expected = theirs["alpha"] * theirs["off"]
    used = ours.mask_safe.data.astype(bool)
    assert used.sum() > 500
    np.testing.assert_allclose(ours.background.data[used], expected[used], rtol=1e-5)


def test_a_background_of_next_to_nothing_is_not_scaled():
    """A table of 0 leaves a trace between its nodes, which was scaled by 1e33."""
    counts, everywhere = np.ones((1, 4, 4)), np.ones((1, 4, 4), dtype=bool)
    found = FoVBackground().run(counts, 1e-32 * counts, everywhere, everywhere, (0.02, 0.02))
    assert "cannot be scaled" in found.problem
    usual = FoVBackground().run(counts, 0.5 * counts, everywhere, everywhere, (0.02, 0.02))
    assert not usual.problem and usual.norm == 2.0
