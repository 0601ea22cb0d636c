"""Readers and mixtures of instrument responses against formulas and integrals of the test's own."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import AltAz, EarthLocation, SkyCoord
from astropy.io import fits
from astropy.time import Time
from astropy.utils import iers
from dl3_store import SITE, Layout, responses

from imgfit_widgets.core.errors import DataError
from imgfit_widgets.core.irf.background import fill_energy_gaps
from imgfit_widgets.core.irf.fov import altaz_systems
from imgfit_widgets.core.irf.io import read_irf
from imgfit_widgets.core.irf.mixture import PSF_WIDTHS, from_annuli, king
from imgfit_widgets.core.maps import MapAxis, unit_vectors

KINDS = {"AEFF": "aeff_2d", "EDISP": "edisp_2d", "PSF": "psf_3gauss", "BKG": "bkg_3d"}


@pytest.mark.parametrize("gamma", [1.5, 2.0, 4.0, 11.0, 13.0, 60.0])
def test_a_king_profile_is_a_mixture(gamma):
    sigma, rad = 0.05, np.array([0.03, 0.06, 0.1, 0.2, 0.4])
    weights = king(np.array([sigma]), np.array([gamma]))[0]
    held = (1.0 - np.exp(-0.5 * (rad[:, None] / PSF_WIDTHS) ** 2)) @ weights
    exact = 1.0 - (1.0 + rad**2 / (2.0 * gamma * sigma**2)) ** (1.0 - gamma)
    # What lies beyond the widest Gaussian is left out: up to 5 % for the flattest.
    np.testing.assert_allclose(held, exact, atol=0.005 if gamma >= 2 else 0.05)


def test_smooth_tables_come_back_from_their_annuli():
    edges, sigma = np.linspace(0.0, 0.7, 141), np.array([0.035, 0.05, 0.08, 0.1])
    outside = np.exp(-0.5 * (edges[:, None] / sigma) ** 2)
    outside += 0.5 * np.exp(-0.5 * (edges[:, None] / (2.0 * sigma)) ** 2)
    weights = from_annuli(outside[:-1] - outside[1:], edges)
    held = (1.0 - np.exp(-0.5 * (edges[:, None] / PSF_WIDTHS) ** 2)) @ weights
    np.testing.assert_allclose(held, 1.0 - outside / 1.5, atol=0.006)
    np.testing.assert_allclose(weights.sum(axis=0), 1.0)
    assert weights.min() >= 0.0


def test_the_background_of_hess_is_integrated_along_every_node(gammapy_data):
    path = gammapy_data / "hess-dl3-dr1/data/hess_dl3_dr1_obs_id_023523.fits.gz"
    table = read_irf(path, "bkg", "bkg_3d")
    column, row = np.meshgrid(np.arange(10, 40, 3), np.arange(10, 40, 3))
    lon, lat = table.fov_lon.nodes[column.ravel()], table.fov_lat.nodes[row.ravel()]
    for *ends, count in (("1 TeV", "8 TeV", 1), ("1 TeV", "8 TeV", 3)):
        bands = MapAxis.from_energy_bounds(*ends, count)
        found = table.integrate(bands, lon, lat)
        for band, (low, high) in enumerate(zip(bands.bounds[:-1], bands.bounds[1:], strict=True)):
            energy = np.geomspace(low, high, 2000)
            rate = [
                np.interp(np.log(energy), np.log(table.energy.nodes), np.log(spectrum + 1e-37))
                for spectrum in table.data[:, column.ravel(), row.ravel()].T
            ]
            exact = np.trapezoid(np.exp(rate) * energy * 1e6, np.log(energy), axis=1)
            np.testing.assert_allclose(found[band], exact, rtol=1e-3)


def test_gaps_in_energy_are_filled_but_not_the_ends():
    rate = np.array([0.0, 8.0, 0.0, np.nan, 1.0, 0.0])[:, None]
    np.testing.assert_allclose(fill_energy_gaps(rate)[:, 0], [0.0, 8.0, 4.0, 2.0, 1.0, 0.0])


def test_the_horizon_is_astropys():
    mjd, (ra, dec) = 53343.9, (83.2, 22.4)
    site = SITE["GEOLON"], SITE["GEOLAT"], SITE["ALTITUDE"]
    (_, matrix), *_ = altaz_systems(ra, dec, site, np.array([mjd]), np.array([mjd + 1e-5]))
    place = EarthLocation(lon=site[0] * u.deg, lat=site[1] * u.deg, height=site[2] * u.m)
    points = np.array([84.5, 82.0, 83.2]), np.array([22.4, 23.1, 20.9])
    with iers.conf.set_temp("auto_download", False):
        frame = AltAz(obstime=Time(mjd, format="mjd"), location=place)
        centre = SkyCoord(ra, dec, unit="deg").transform_to(frame)
        sky = SkyCoord(*points, unit="deg").transform_to(frame)
        lon, lat = centre.spherical_offsets_to(sky)
    x, y, z = matrix @ unit_vectors(*points)
    np.testing.assert_allclose(np.degrees(np.arctan2(y, x)), -lon.deg, atol=2e-3)
    np.testing.assert_allclose(np.degrees(np.arcsin(z)), lat.deg, atol=2e-3)


def written(folder, hdu):
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(folder / "irf.fits", overwrite=True)
    return folder / "irf.fits"


def test_thresholds_are_read_and_point_like_responses_refused(tmp_path):
    hdu = responses(Layout(thresholds=(1.1, 15.0)))[0]
    area = read_irf(written(tmp_path, hdu), "AEFF", "aeff_2d")
    assert (area.energy_min, area.energy_max) == (1.1, 15.0)
    hdu.header["HDUCLAS3"] = "POINT-LIKE"
    with pytest.raises(DataError, match=r"irf.fits \[AEFF\].*point-like"):
        read_irf(written(tmp_path, hdu), "AEFF", "aeff_2d")


@pytest.mark.parametrize("number", range(4))
def test_a_missing_column_is_named_with_file_and_hdu(tmp_path, number):
    hdu = responses(Layout())[number]
    for column in (hdu.columns.names[0], hdu.columns.names[-1]):
        kept = [c for c in hdu.columns if c.name != column]
        if column == "SIGMA_3":
            continue  # fewer components are allowed
        path = written(tmp_path, fits.BinTableHDU.from_columns(kept, name=hdu.name))
        with pytest.raises(DataError, match=rf"irf.fits \[{hdu.name}\].*{column}"):
            read_irf(path, hdu.name, KINDS[hdu.name])


@pytest.mark.parametrize("value", [0.0, np.nan, -1.0])
@pytest.mark.parametrize("column", ["EFFAREA", "MATRIX", "SIGMA_1", "BKG"])
def test_a_response_without_a_number_of_use_is_refused(tmp_path, column, value):
    """A PSF of nothing but NaN gave a source eight times as bright."""
    hdu = next(hdu for hdu in responses(Layout()) if column in hdu.columns.names)
    hdu.data[column][:] = value
    path = written(tmp_path, hdu)
    if column == "BKG" and value == 0.0:
        assert read_irf(path, hdu.name, "bkg_3d") is not None
        return
    with pytest.raises(DataError, match=rf"irf.fits \[{hdu.name}\].*{column} holds no number"):
        read_irf(path, hdu.name, KINDS[hdu.name])


@pytest.mark.parametrize("psf", ["psf_3gauss", "psf_king", "psf_table"])
def test_damaged_responses_are_refused_or_finite(tmp_path, psf):
    rng = np.random.default_rng(5)
    refused = 0
    bands = MapAxis.from_energy_bounds("0.5 TeV", "20 TeV", 2)
    lon, lat = np.array([0.0, 1.0]), np.array([0.5, -2.0])
    for number, hdu in enumerate(responses(Layout(psf=psf))):
        kind = {**KINDS, "PSF": psf}[hdu.name]
        whole = written(tmp_path, hdu).read_bytes()
        for _ in range(25):
            damaged = bytearray(whole)
            for place in rng.integers(2880, len(damaged), size=6):
                damaged[place] = int(rng.integers(256))
            path = tmp_path / "damaged.fits"
            path.write_bytes(bytes(damaged))
            try:
                irf = read_irf(path, hdu.name, kind)
                found = (
                    irf.evaluate([1.0, 5.0], [0.1, 2.0]) if number == 0
                    else irf.probabilities([1.0, 5.0], bands, [0.1, 2.0]) if number == 1
                    else irf.mixture([1.0, 5.0], [0.1, 2.0]) if number == 2
                    else irf.integrate(bands, lon, lat)
                )  # fmt: skip
            except DataError as error:
                refused += 1
                assert str(path) in str(error)
            else:
                assert np.isfinite(found).all()
    assert refused > 0
