"""Axes, geometries and maps against astropy and closed formulas."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from imgfit_widgets.core.errors import DataError
from imgfit_widgets.core.maps import MapAxis, WcsGeom, WcsNDMap, convert_frame, separation


def make(
    proj: str = "CAR", frame: str = "galactic", centre: tuple[float, float] = (0, 0)
) -> WcsGeom:
    return WcsGeom.create(centre, (8, 6), 0.02, proj, frame)


@pytest.mark.parametrize("proj", ["CAR", "TAN"])
@pytest.mark.parametrize(("frame", "centre"), [("galactic", (0, 0)), ("icrs", (266.4, -29.0))])
def test_pixels_and_positions_are_inverse(proj, frame, centre):
    geom = make(proj, frame, centre)
    x, y = np.array([-0.5, 3.2, 399.0]), np.array([10.0, 150.25, 299.4])
    back = geom.lonlat_to_pix(*geom.pix_to_lonlat(x, y))
    np.testing.assert_allclose(back, (x, y), atol=1e-8)


def test_longitudes_run_on_across_the_galactic_centre():
    lon, _ = make().pix_to_lonlat(np.array([0.0, 399.0]), 150.0)
    np.testing.assert_allclose(lon, [3.99, -3.99])


def test_positions_of_either_branch_give_the_same_pixel():
    geom = make()
    np.testing.assert_allclose(geom.lonlat_to_pix(359.95, 0.0), geom.lonlat_to_pix(-0.05, 0.0))


def test_frames_turn_as_in_astropy():
    rng = np.random.default_rng(1)
    lon, lat = rng.uniform(0, 360, 50), rng.uniform(-90, 90, 50)
    expected = SkyCoord(lon, lat, unit="deg").galactic
    found = convert_frame(lon, lat, "icrs", "galactic")
    np.testing.assert_allclose(found, (expected.l.deg, expected.b.deg), atol=1e-9)
    np.testing.assert_allclose(convert_frame(*found, "galactic", "icrs"), (lon, lat), atol=1e-9)


def test_separation_is_astropys():
    lon, lat = np.array([10.0, 10.0001, 200.0]), np.array([-5.0, -5.0, 60.0])
    expected = SkyCoord(lon, lat, unit="deg").separation(SkyCoord(10, -5, unit="deg")).deg
    np.testing.assert_allclose(separation(lon, lat, 10, -5), expected, atol=1e-10)


@pytest.mark.parametrize("proj", ["CAR", "TAN"])
def test_solid_angles_add_up_to_the_maps_own(proj):
    geom = make(proj)
    area = geom.solid_angle()
    if proj == "CAR":
        _, lat = geom.pixel_lonlat
        np.testing.assert_allclose(area, np.radians(0.02) ** 2 * np.cos(np.radians(lat)), rtol=1e-7)
    else:
        # Gnomonic: the area falls with the cube of the cosine of the distance from the centre.
        lon, lat = geom.pixel_lonlat
        distance = np.radians(separation(lon, lat, 0.0, 0.0))
        np.testing.assert_allclose(area, np.radians(0.02) ** 2 * np.cos(distance) ** 3, rtol=1e-6)


def test_jacobian_is_the_derivative_of_pixels():
    geom = make("CAR", "icrs", (83.6, 22.0))
    x, y = 120.0, 210.0
    lon, lat = (float(v) for v in geom.pix_to_lonlat(x, y))
    step = 0.001 / np.cos(np.radians(lat))
    east = geom.lonlat_to_pix([lon + step, lon - step], lat)
    north = geom.lonlat_to_pix(lon, [lat + 0.001, lat - 0.001])
    expected = np.array([[v[0] - v[1] for v in east], [v[0] - v[1] for v in north]]) / 0.002
    np.testing.assert_allclose(geom.jacobian(x, y), expected.T, rtol=1e-5, atol=1e-4)


def test_crop_keeps_the_pixels_where_they_are():
    geom = make()
    part = geom.crop(slice(20, 60), slice(30, 100))
    assert part.shape == (40, 70)
    np.testing.assert_allclose(part.pix_to_lonlat(0, 0), geom.pix_to_lonlat(30, 20), atol=1e-10)


def test_axis_refuses_edges_that_do_not_increase():
    with pytest.raises(DataError, match="axis energy: need 0 < min < max"):
        MapAxis.from_energy_bounds("10 TeV", "0.1 TeV", 3)
    with pytest.raises(DataError, match="edges must increase"):
        MapAxis("rad", np.array([0.0, 2.0, 1.0]), "deg", "lin")


def test_axis_centres_are_geometric():
    axis = MapAxis.from_energy_bounds("0.1 TeV", "10 TeV", 2)
    np.testing.assert_allclose(axis.edges.to_value(u.GeV), [100, 1000, 10000])
    np.testing.assert_allclose(axis.centers, [np.sqrt(0.1), np.sqrt(10)])


def test_maps_are_read_only_and_fit_their_geometry():
    axis = MapAxis.from_energy_bounds("0.1 TeV", "10 TeV", 2)
    geom = make().to_cube([axis])
    sky_map = WcsNDMap(geom, np.ones(geom.data_shape))
    with pytest.raises(ValueError, match="read-only"):
        sky_map.data[0, 0, 0] = 3.0
    assert sky_map.sum_over_axes().data.shape == (300, 400)
    assert sky_map.reduce_over_axes().data[0, 0] == 2.0
    with pytest.raises(DataError, match="do not fit"):
        WcsNDMap(geom, np.ones((1, 300, 400)))


def test_interpolation_is_exact_for_a_plane():
    geom = make()
    lon, lat = geom.pixel_lonlat
    sky_map = WcsNDMap(geom, 2.0 * lon - 3.0 * lat + 1.0)
    at_lon, at_lat = np.array([0.013, -2.345]), np.array([0.004, 1.111])
    np.testing.assert_allclose(
        sky_map.interp_by_coord(at_lon, at_lat), 2 * at_lon - 3 * at_lat + 1, atol=1e-10
    )
    assert np.isnan(sky_map.interp_by_coord(5.0, 0.0))


def test_print_shows_what_the_tutorial_shows():
    axis = MapAxis.from_energy_bounds("0.1 TeV", "10 TeV", 1)
    geom = make().to_cube([axis])
    text = str(WcsNDMap(geom, np.zeros(geom.data_shape, dtype=np.float32)))
    for line in ("geom  : WcsGeom", "axes  : ['lon', 'lat', 'energy']", "shape : (400, 300, 1)"):
        assert line in text
    assert "ndim  : 3" in text
    assert "dtype : float32" in text
