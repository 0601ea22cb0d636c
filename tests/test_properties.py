"""Properties that hold for any geometry, axis, stack, configuration and dataset."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import yaml
from astropy.wcs import WCS
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from imgfit_widgets import AnalysisConfig, MapDataset
from imgfit_widgets.core.data import DataStore
from imgfit_widgets.core.makers import reduce_observations, reduction_from_config
from imgfit_widgets.core.maps import MapAxis, WcsGeom, convert_frame, nearest_pixel, unit_vectors

few = settings(derandomize=True, deadline=None, max_examples=60, database=None)

centres = st.tuples(st.floats(0.0, 360.0), st.floats(-89.0, 89.0))
frames = st.sampled_from(["icrs", "galactic"])
shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@st.composite
def geometries(draw: Any) -> WcsGeom:
    """Any projection, turned, with pixels that are not square and a reference off the map."""
    kind = draw(st.sampled_from(["TAN", "SIN", "ZEA", "STG", "ARC", "CAR", "AIT"]))
    lon, lat = ("RA---", "DEC--") if draw(frames) == "icrs" else ("GLON-", "GLAT-")
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = [lon + kind, lat + kind]
    at = draw(centres)
    wcs.wcs.crval = (at[0], 0.0) if kind in ("CAR", "AIT") else at
    ny, nx = draw(shapes)
    wcs.wcs.crpix = draw(st.floats(-40.0, 80.0)), draw(st.floats(-40.0, 80.0))
    turn = np.radians(draw(st.floats(0.0, 360.0)))
    size = draw(st.floats(0.02, 0.15)), draw(st.floats(0.02, 0.15))
    flip = draw(st.sampled_from([-1.0, 1.0]))
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = matrix * [flip * size[0], size[1]]
    if draw(st.booleans()):
        wcs.wcs.cd = matrix
    else:
        wcs.wcs.cdelt = [-size[0], size[1]]
        wcs.wcs.pc = matrix / np.array([[-size[0]], [size[1]]])
    wcs.wcs.set()
    return WcsGeom(wcs, (ny, nx))


def apart(geom: WcsGeom, a: Any, b: Any) -> float:
    """Largest distance of positions on the unit sphere."""
    return float(np.abs(unit_vectors(*a) - unit_vectors(*b)).max())


@few
@given(geometries(), st.floats(-0.5, 40.0), st.floats(-0.5, 40.0))
def test_pixels_to_the_sky_and_back(geom, x, y):
    lon, lat = geom.pix_to_lonlat(np.array([x]), np.array([y]))
    back = geom.lonlat_to_pix(lon, lat)
    np.testing.assert_allclose(np.ravel(back), [x, y], atol=1e-6)
    turned = geom.to_frame(lon, lat, "icrs")
    assert apart(geom, geom.from_frame(*turned, "icrs"), (lon, lat)) < 1e-12


@few
@given(geometries())
def test_another_pixel_size_keeps_centre_and_sky(geom):
    """What a coarse grid covers is what the map covers, to half a coarse pixel at each edge."""
    coarse = geom.to_binsz(0.3)
    assert apart(geom, coarse.center_lonlat, geom.center_lonlat) < 1e-9
    np.testing.assert_allclose(coarse.binsz, 0.3, rtol=1e-9)
    for n, m, size in zip(geom.npix, coarse.npix, geom.binsz, strict=True):
        assert abs(n * size - m * 0.3) <= max(0.15 + 1e-9, 0.3 - n * size)
    block = geom.downsample(3)
    corner = block.pix_to_lonlat(-0.5, -0.5)
    assert apart(geom, corner, geom.pix_to_lonlat(-0.5, -0.5)) < 1e-9
    x, y = block.lonlat_to_pix(*geom.pix_to_lonlat(4.0, 7.0))
    np.testing.assert_allclose([float(x), float(y)], [1.0, 2.0], atol=1e-6)


@few
@given(geometries())
def test_solid_angles_add_up(geom):
    """A block of 3 x 3 pixels has the area of its pixels, whatever the projection."""
    ny, nx = (3 * (n // 3) for n in geom.shape)
    assume(nx and ny)
    fine = geom.crop(slice(0, ny), slice(0, nx))
    area = fine.solid_angle().reshape(ny // 3, 3, nx // 3, 3).sum(axis=(1, 3))
    np.testing.assert_allclose(fine.downsample(3).solid_angle(), area, rtol=2e-3)


@pytest.mark.parametrize("kind", ["CAR", "AIT", "MOL"])
def test_solid_angles_of_the_whole_sky_are_its_area(kind):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = [f"GLON-{kind}", f"GLAT-{kind}"], [0.0, 0.0]
    wcs.wcs.cdelt, wcs.wcs.crpix = [-0.5, 0.5], [360.5, 180.5]
    area = WcsGeom(wcs, (360, 720)).solid_angle()
    assert np.nansum(area) == pytest.approx(4 * np.pi, rel=1e-2)


@few
@given(geometries(), st.data())
def test_a_cutout_has_the_same_pixels(geom, data):
    ny, nx = geom.shape
    row, column = data.draw(st.integers(0, ny - 1)), data.draw(st.integers(0, nx - 1))
    part = geom.crop(slice(row, ny), slice(column, nx))
    assert part.shape == (ny - row, nx - column)
    assert apart(geom, part.pix_to_lonlat(0, 0), geom.pix_to_lonlat(column, row)) < 1e-9
    np.testing.assert_allclose(part.binsz, geom.binsz)


@few
@given(st.floats(1e-3, 10.0), st.floats(1.01, 1e4), st.integers(1, 60))
def test_axes(low, factor, nbin):
    axis = MapAxis.from_energy_bounds(f"{low} TeV", f"{low * factor} TeV", nbin)
    assert axis.nbin == nbin
    np.testing.assert_allclose(axis.bounds[[0, -1]], [low, low * factor], rtol=1e-12)
    assert np.all((axis.centers > axis.bounds[:-1]) & (axis.centers < axis.bounds[1:]))
    np.testing.assert_allclose(np.diff(np.log(axis.bounds)), np.log(factor) / nbin, rtol=1e-6)
    assert axis.is_like(MapAxis("energy", axis.bounds * 1000.0, "GeV"))


@few
@given(st.floats(-1e4, 1e4))
def test_a_coordinate_lies_in_its_nearest_pixel(x):
    pixel = int(nearest_pixel(x))
    assert pixel - 0.5 <= x < pixel + 0.5 or np.isclose(abs(x - pixel), 0.5)


@few
@given(centres, frames, frames)
def test_frames_turn_back(centre, one, other):
    there = convert_frame(*centre, one, other)
    again = convert_frame(*there, other, one)
    assert np.abs(unit_vectors(*again) - unit_vectors(*centre)).max() < 1e-12


# Configurations

angles = st.floats(0.01, 20.0).map(lambda v: f"{v} deg")


@st.composite
def configurations(draw: Any) -> dict[str, Any]:
    low, factor = draw(st.floats(0.01, 5.0)), draw(st.floats(1.1, 100.0))
    axis = {"min": f"{low} TeV", "max": f"{low * factor} TeV", "nbins": draw(st.integers(1, 30))}
    lon, lat = draw(centres)
    return {
        "observations": {
            "datastore": draw(st.sampled_from(["$GAMMAPY_DATA/x", "store", "/a/b c"])),
            "obs_ids": draw(st.lists(st.integers(0, 10**6), unique=True, max_size=4)),
        },
        "datasets": {
            "type": "3d",
            "stack": draw(st.booleans()),
            "geom": {
                "wcs": {
                    "skydir": {"frame": draw(frames), "lon": f"{lon} deg", "lat": f"{lat} deg"},
                    "binsize": draw(angles),
                    draw(st.sampled_from(["width", "fov"])): {
                        "width": draw(angles), "height": draw(angles),
                    },
                    "binsize_irf": draw(angles),
                },
                "selection": {"offset_max": draw(angles)},
                "axes": {"energy": axis, "energy_true": axis},
            },
            "background": draw(st.sampled_from([
                {"method": "fov_background"},
                {"method": "ring", "parameters": {"r_in": "0.5 deg", "width": "0.3 deg"}},
                {"method": None},
            ])),
            "safe_mask": {
                "methods": draw(st.lists(st.sampled_from(
                    ["aeff-default", "aeff-max", "edisp-bias", "offset-max", "bkg-peak"]
                ), unique=True)),
                "parameters": {"offset_max": draw(angles)},
            },
        },
        "fit": {"fit_range": {"min": "0.1 TeV", "max": "30.0 TeV"}},
    }  # fmt: skip


written: list[str] = []


@settings(few, max_examples=40)
@given(configurations())
def test_a_configuration_comes_back_from_its_file(data):
    config = AnalysisConfig.from_dict(data)
    text = config.to_yaml()
    again = AnalysisConfig.from_yaml(text)
    assert again.to_dict() == config.to_dict()
    assert again.to_yaml() == text
    assert AnalysisConfig.from_dict(config.changes()).to_dict() == config.to_dict()
    written.append(text)


def test_gammapy_reads_the_same(gammapy, tmp_path):
    """All of them in one process; the width of version 0.18 is written as today's."""
    texts = written or [AnalysisConfig().to_yaml()]
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.yaml").write_text(text)
    found = gammapy(
        """
import sys, json, pathlib
from gammapy.analysis import AnalysisConfig
found = []
for number in range(int(sys.argv[2])):
    config = AnalysisConfig.read(pathlib.Path(sys.argv[1]) / f"{number}.yaml")
    geom, axes = config.datasets.geom, config.datasets.geom.axes
    found.append([
        geom.wcs.binsize.to_value("deg"), geom.wcs.width.width.to_value("deg"),
        geom.wcs.width.height.to_value("deg"), geom.wcs.binsize_irf.to_value("deg"),
        geom.selection.offset_max.to_value("deg"), axes.energy.min.to_value("TeV"),
        axes.energy.max.to_value("TeV"), axes.energy.nbins, config.observations.obs_ids,
        [getattr(m, "value", m) for m in config.datasets.safe_mask.methods], config.datasets.stack,
    ])
print(json.dumps(found))
""",
        tmp_path,
        len(texts),
    )
    for text, theirs in zip(texts, found, strict=True):
        config = AnalysisConfig.from_yaml(text)
        wcs, axis = config.datasets.geom.wcs, config.datasets.geom.axes.energy
        ours = [
            wcs.binsize.to_value("deg"), wcs.width.width.to_value("deg"),
            wcs.width.height.to_value("deg"), wcs.binsize_irf.to_value("deg"),
            config.datasets.geom.selection.offset_max.to_value("deg"), axis.min.to_value("TeV"),
            axis.max.to_value("TeV"),
        ]  # fmt: skip
        np.testing.assert_allclose(theirs[:7], ours, rtol=1e-12)
        rest = [axis.nbins, config.observations.obs_ids, config.datasets.safe_mask.methods]
        assert theirs[7:] == [*rest, config.datasets.stack]


def test_the_width_of_version_018_is_todays():
    old = yaml.safe_load("datasets: {geom: {wcs: {fov: {width: 3 deg, height: 2 deg}}}}")
    new = yaml.safe_load("datasets: {geom: {wcs: {width: {width: 3 deg, height: 2 deg}}}}")
    assert AnalysisConfig.from_dict(old).to_dict() == AnalysisConfig.from_dict(new).to_dict()


# Stacks and files


@pytest.fixture(scope="module")
def stacked(demo_store):
    """Three runs and the means to reduce them."""
    config = AnalysisConfig.read(demo_store / "config.yaml")
    wcs = config.datasets.geom.wcs
    wcs.binsize, wcs.binsize_irf = "0.2 deg", "0.8 deg"
    config.datasets.geom.axes.energy.nbins = 2
    config.datasets.geom.axes.energy_true.nbins = 5
    observations = DataStore.from_dir(demo_store).get_observations([1, 2, 3])
    reduction = reduction_from_config(config)
    return list(observations), reduction, reduce_observations(observations, reduction)[0]


@settings(few, max_examples=6)
@given(st.permutations([0, 1, 2]))
def test_the_order_of_the_runs_does_not_matter(stacked, order):
    runs, reduction, expected = stacked
    found = reduce_observations([runs[i] for i in order], reduction)[0]
    np.testing.assert_array_equal(found.counts.data, expected.counts.data)
    np.testing.assert_array_equal(found.mask, expected.mask)
    for name in ("background", "exposure"):
        ours, known = getattr(found, name).data, getattr(expected, name).data
        np.testing.assert_allclose(ours, known, rtol=1e-12)
    np.testing.assert_allclose(found.psf.weights, expected.psf.weights, atol=1e-12)
    np.testing.assert_allclose(found.edisp.data, expected.edisp.data, atol=1e-12)


@settings(few, max_examples=4)
@given(st.sampled_from([[0], [0, 1], [1, 2], [0, 1, 2]]))
def test_a_dataset_comes_back_from_its_file(stacked, tmp_path_factory, chosen):
    """Maps to single precision, masks and counts to the bit; twice written is once written."""
    runs, reduction, _ = stacked
    dataset = reduce_observations([runs[i] for i in chosen], reduction)[0]
    folder = tmp_path_factory.mktemp("files")
    dataset.write(folder / "a.fits")
    found = MapDataset.read(folder / "a.fits")
    assert found.geom.is_aligned(dataset.geom)
    np.testing.assert_array_equal(found.counts.data, dataset.counts.data)
    np.testing.assert_array_equal(found.mask, dataset.mask)
    for name in ("background", "exposure"):
        ours, known = getattr(found, name).data, getattr(dataset, name).data
        np.testing.assert_allclose(ours, known, rtol=1e-6, atol=1e-6 * known.max())
    np.testing.assert_allclose(found.psf.weights, dataset.psf.weights, atol=1e-6)
    np.testing.assert_allclose(found.edisp.data, dataset.edisp.data, atol=1e-6)
    assert [run.obs_id for run in found.runs] == [run.obs_id for run in dataset.runs]
    assert found.livetime == pytest.approx(dataset.livetime)
    found.write(folder / "b.fits")
    again = MapDataset.read(folder / "b.fits")
    np.testing.assert_array_equal(again.exposure.data, found.exposure.data)
    np.testing.assert_array_equal(again.psf.weights, found.psf.weights)
