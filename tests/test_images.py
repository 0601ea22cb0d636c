"""A dataset from images of other programs: their projections, units, grids and PSFs."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from imgfit_widgets import Fit, MapDataset, Models, Workbench
from imgfit_widgets.core.dataset import Datasets
from imgfit_widgets.core.errors import DataError
from imgfit_widgets.core.files import read_datasets
from imgfit_widgets.core.irf.psf import PSF_WIDTHS, profiles
from imgfit_widgets.core.maps import MapAxis, WcsGeom, WcsNDMap, separation
from imgfit_widgets.core.models import (
    FoVBackgroundModel,
    GaussianSpatialModel,
    PointSpatialModel,
    PowerLaw2SpectralModel,
    SkyModel,
)

LON, LAT = 83.63, 22.01
SOURCE = (83.73, 22.06)


def sky(proj="TAN", kind="icrs", turn=0.0, flip=False, n=81, binsz=0.03, at=(LON, LAT)):
    """A square map of any projection."""
    wcs = WCS(naxis=2)
    names = {"icrs": ("RA--", "DEC-"), "galactic": ("GLON", "GLAT")}[kind]
    wcs.wcs.ctype = [f"{name}-{proj}" for name in names]
    wcs.wcs.crpix = [(n + 1) / 2] * 2
    wcs.wcs.crval = at
    wcs.wcs.cdelt = [binsz if flip else -binsz, binsz]
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    wcs.wcs.pc = [[c, -s], [s, c]]
    wcs.wcs.set()
    return WcsGeom(wcs, (n, n))


def gaussian(geom, sigma, total, at=SOURCE):
    """Counts of a Gaussian by sums over 7 x 7 points in each pixel."""
    y, x = np.mgrid[: geom.shape[0], : geom.shape[1]].astype(float)
    image = np.zeros(geom.shape)
    part = (np.arange(7) + 0.5) / 7 - 0.5
    for dy in part:
        for dx in part:
            lon, lat = geom.pix_to_lonlat(x + dx, y + dy)
            image += np.exp(-0.5 * (separation(lon, lat, *at) / sigma) ** 2)
    area = np.degrees(np.degrees(geom.solid_angle()))
    return total * image / 49 * area / (2 * np.pi * sigma**2)


def model(geom, sigma=None, amplitude=1000.0, at=SOURCE, energy=(1, 10)):
    where = {"lon_0": at[0] * u.deg, "lat_0": at[1] * u.deg, "frame": geom.frame}
    shape = (
        PointSpatialModel(**where)
        if sigma is None
        else GaussianSpatialModel(sigma=sigma * u.deg, **where)
    )
    spectrum = PowerLaw2SpectralModel(
        amplitude=amplitude * u.Unit("cm-2 s-1"),
        emin=energy[0] * u.TeV,
        emax=energy[1] * u.TeV,
        index=2.0,
    )
    spectrum.index.frozen = True
    return SkyModel(spectrum, shape, name="src")


def counts_of(geom, seed=0, level=0.2):
    return np.random.default_rng(seed).poisson(gaussian(geom, 0.1, 1000.0) + level)


def write_image(path, geom, data, **cards):
    header = geom.wcs.to_header()
    header.update(cards)
    fits.PrimaryHDU(np.asarray(data), header).writeto(path, overwrite=True)
    return path


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"proj": "SIN"},
        {"proj": "ZEA", "turn": 30.0},
        {"proj": "AIT"},
        {"proj": "CAR", "at": (83.63, 0.0), "n": 81},
        {"flip": True},
        {"kind": "galactic", "turn": 70.0},
    ],
)
def test_a_source_is_predicted_and_found_in_any_projection(change):
    at = SOURCE if change.get("proj") != "CAR" else (83.73, 0.05)
    geom = sky(**change)
    expected = gaussian(geom, np.hypot(0.06, 0.08), 1000.0, at)
    counts = np.random.default_rng(1).poisson(expected + 0.2)
    dataset = MapDataset.from_images(WcsNDMap(geom, counts), 0.2, psf="0.06 deg")
    dataset.models = Models([model(geom, 0.08, at=at)])
    ours = dataset.npred_signal().data[0]
    assert np.abs(ours - expected).max() < 3e-3 * expected.max()
    start = model(geom, 0.05, 500.0, at=(at[0] + 0.04, at[1] - 0.03))
    models = Models([start, FoVBackgroundModel(dataset_name=dataset.name)])
    result = Fit().run(Datasets([dataset]), models)
    assert result.success
    for name, truth in (("amplitude", 1000.0), ("lon_0", at[0]), ("lat_0", at[1]), ("sigma", 0.08)):
        found = models.parameters[name]
        assert abs(found.value - truth) < 4 * found.error < 0.4 * max(abs(truth), 1.0), name


def test_without_exposure_the_amplitude_is_the_number_of_counts():
    geom = sky()
    dataset = MapDataset.from_images(WcsNDMap(geom, counts_of(geom)), "flat", psf="0.06 deg")
    dataset.models = Models([model(geom, 0.08, amplitude=123.0)])
    assert dataset.npred_signal().data.sum() == pytest.approx(123.0, rel=1e-3)
    text = str(dataset)
    assert "Note: no exposure: 1 cm2 s" in text
    assert "Note: the counts' energies are not known; taken as 1 to 10 TeV" in text
    assert dataset.background.data.sum() == pytest.approx(dataset.counts.data.sum())


def test_the_norm_of_a_flat_background_is_its_share_of_the_counts():
    geom = sky()
    counts = counts_of(geom, level=0.5)
    dataset = MapDataset.from_images(WcsNDMap(geom, counts), "flat", psf="0.06 deg")
    models = Models([model(geom, 0.08), FoVBackgroundModel(dataset_name="image")])
    assert Fit().run(Datasets([dataset]), models).success
    norm = models.parameters["norm"]
    assert abs(norm.value - 0.5 * counts.size / counts.sum()) < 4 * norm.error < 0.1


def test_a_fit_without_background_takes_every_count_as_the_sources():
    geom = sky()
    counts = np.random.default_rng(2).poisson(gaussian(geom, 0.1, 1000.0))
    dataset = MapDataset.from_images(WcsNDMap(geom, counts), psf="0.06 deg")
    models = Models([model(geom, 0.05, 800.0)])
    result = Fit().run(Datasets([dataset]), models)
    assert result.success
    assert models.parameters["amplitude"].value == pytest.approx(counts.sum(), rel=2e-3)
    assert any("no background" in note for note in dataset.notes)


def test_notes_and_numbers_survive_a_file(tmp_path):
    geom = sky()
    dataset = MapDataset.from_images(WcsNDMap(geom, counts_of(geom)), 0.3, psf="0.06 deg")
    dataset.write(tmp_path / "image.fits")
    again = MapDataset.read(tmp_path / "image.fits")
    assert again.notes == dataset.notes
    for one in (dataset, again):
        one.models = Models([model(geom, 0.08)])
    assert again.stat_sum() == pytest.approx(dataset.stat_sum(), abs=1e-3)


# Files


def test_images_in_files_with_axes_of_length_one_and_named_hdus(tmp_path):
    geom = sky()
    counts = counts_of(geom)
    write_image(tmp_path / "counts.fits", geom, counts[None, None].astype(np.float32))
    other = fits.HDUList(
        [
            fits.PrimaryHDU(),
            fits.ImageHDU(np.full(geom.shape, 0.25), geom.wcs.to_header(), name="BKG"),
            fits.ImageHDU(np.full(geom.shape, 3e6), geom.wcs.to_header(), name="EXPO"),
        ]
    )
    other["EXPO"].header["BUNIT"] = "m2 s"
    other.writeto(tmp_path / "other.fits")
    dataset = MapDataset.from_images(
        tmp_path / "counts.fits",
        f"{tmp_path}/other.fits[BKG]",
        f"{tmp_path}/other.fits[2]",
        "0.06 deg",
        energy=("300 GeV", "30 TeV"),
    )
    assert dataset.name == "counts"
    np.testing.assert_array_equal(dataset.counts.data[0], counts)
    assert dataset.background.data.max() == 0.25
    assert dataset.exposure.data.min() == pytest.approx(3e6)
    assert dataset.energy_axis.bounds == pytest.approx([0.3, 30.0])
    dataset.models = Models([model(geom, 0.08, 1e-8, energy=(0.3, 30))])
    assert dataset.npred_signal().data.sum() == pytest.approx(1e-8 * 3e10, rel=1e-3)
    with pytest.raises(DataError, match=r"other.fits: has several images.*1 BKG, 2 EXPO"):
        MapDataset.from_images(tmp_path / "other.fits")
    with pytest.raises(DataError, match=r"no HDU 'NONE'; there are 0 PRIMARY, 1 BKG"):
        MapDataset.from_images(f"{tmp_path}/other.fits[none]")


def test_latitude_along_x_is_turned(tmp_path):
    geom = sky()
    counts = counts_of(geom)
    header = geom.wcs.to_header()
    turned = header.copy()
    for key in ("CTYPE", "CRVAL", "CDELT", "CRPIX", "CUNIT"):
        turned[f"{key}1"], turned[f"{key}2"] = header[f"{key}2"], header[f"{key}1"]
    fits.PrimaryHDU(counts.T.astype(float), turned).writeto(tmp_path / "turned.fits")
    dataset = MapDataset.from_images(tmp_path / "turned.fits", psf="0.06 deg")
    np.testing.assert_array_equal(dataset.counts.data[0], counts)
    assert dataset.geom.is_aligned(geom.to_cube(dataset.geom.axes))


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ({"RADESYS": "FK5", "EQUINOX": 2000.0}, None),
        ({"RADESYS": "FK4", "EQUINOX": 1950.0}, "equatorial system is FK4 of equinox 1950"),
        ({"RADESYS": "FK5", "EQUINOX": 1975.0}, "is FK5 of equinox 1975; expected ICRS or FK5"),
        ({"CTYPE1": "ELON-TAN", "CTYPE2": "ELAT-TAN"}, "neither galactic nor equatorial"),
        ({"CTYPE1": "X", "CTYPE2": "Y"}, "has no sky coordinates .CTYPE1 'X'"),
        ({"BUNIT": "cm-2 s-1"}, "unit .BUNIT. is 'cm-2 s-1'; expected counts"),
    ],
)
def test_sky_systems_and_units_of_counts(tmp_path, cards, message):
    geom = sky(n=21)
    header = geom.wcs.to_header()
    del header["RADESYS"]
    header.update(cards)
    path = tmp_path / "counts.fits"
    fits.PrimaryHDU(np.ones(geom.shape), header).writeto(path)
    if message is None:
        assert MapDataset.from_images(path, psf=0.1).geom.frame == "icrs"
        return
    with pytest.raises(DataError, match=rf"counts.fits \[PRIMARY\]: .*{message}"):
        MapDataset.from_images(path, psf=0.1)


def test_values_that_are_no_counts_are_named_and_nan_is_masked():
    geom = sky(n=21)
    for value, message in ((-1.0, "is -1; expected 0 or more"), (0.4, "is 0.4; expected whole")):
        data = np.ones(geom.shape)
        data[3, 7] = value
        with pytest.raises(DataError, match=rf"counts: pixel \(x, y\) = \(7, 3\) {message}"):
            MapDataset.from_images(WcsNDMap(geom, data), psf=0.1)
    data[3, 7] = np.nan
    background = np.full(geom.shape, 0.5)
    background[4, 8] = np.nan
    dataset = MapDataset.from_images(WcsNDMap(geom, data), background, psf=0.1)
    assert sorted(map(tuple, np.argwhere(~dataset.mask))) == [(0, 3, 7), (0, 4, 8)]
    assert dataset.counts.data.sum() == data.size - 2
    assert np.isfinite(dataset.stat_sum())
    with pytest.raises(DataError, match="no pixel is left to fit"):
        MapDataset.from_images(WcsNDMap(geom, np.full(geom.shape, np.nan)), psf=0.1)


@pytest.mark.parametrize("table", ["EBOUNDS", "BANDS"])
def test_cubes_have_the_energies_of_their_tables(tmp_path, table):
    geom = sky(n=21)
    edges = np.geomspace(1e5, 1e7, 4)
    cube = np.arange(3)[:, None, None] * np.ones(geom.shape)
    unit, factor = ("MeV", 1.0) if table == "BANDS" else ("keV", 1e3)
    columns = [
        fits.Column("E_MIN", "D", unit=unit, array=edges[:-1] * factor),
        fits.Column("E_MAX", "D", unit=unit, array=edges[1:] * factor),
    ]
    bounds = fits.BinTableHDU.from_columns(columns, name=table)
    bounds.header["AXCOLS1"] = "E_MIN,E_MAX"
    if table == "EBOUNDS":
        del bounds.header["TUNIT1"], bounds.header["TUNIT2"]
    fits.HDUList([fits.PrimaryHDU(cube, geom.wcs.to_header()), bounds]).writeto(
        tmp_path / "cube.fits"
    )
    # An exposure at energies of its own, falling as a power law.
    nodes = np.geomspace(5e4, 2e7, 9)
    expo = 1e10 * (nodes / 1e6)[:, None, None] ** 0.5 * np.ones(geom.shape)
    energies = fits.BinTableHDU.from_columns(
        [fits.Column("Energy", "D", unit="MeV", array=nodes)], name="ENERGIES"
    )
    image = fits.PrimaryHDU(expo, geom.wcs.to_header())
    image.header["BUNIT"] = "cm^2 s"
    fits.HDUList([image, energies]).writeto(tmp_path / "expo.fits")
    dataset = MapDataset.from_images(
        tmp_path / "cube.fits", 0.1 * np.ones(cube.shape), tmp_path / "expo.fits", 0.1
    )
    np.testing.assert_allclose(dataset.energy_axis.bounds, edges * 1e-6, rtol=1e-9)
    source = model(geom, 0.1, 1e-9, at=(LON, LAT), energy=(0.1, 10))
    dataset.models = Models([source])
    # Flux of index 2 times E^0.5, integrated over each band.
    norm = 1e-9 / (1 / 0.1 - 1 / 10)
    primitive = -norm * 1e10 * (edges * 1e-6) ** -0.5 / 0.5
    found = dataset.npred_signal().data.sum(axis=(1, 2))
    inside = gaussian(geom, np.hypot(0.1, 0.1), 1.0, (LON, LAT)).sum()
    np.testing.assert_allclose(found / inside, np.diff(primitive), rtol=3e-3)
    with pytest.raises(DataError, match=r"energy: gives 1 bins, but .*cube.fits .* has 3"):
        MapDataset.from_images(tmp_path / "cube.fits", energy=("1 TeV", "10 TeV"))


# Other grids


def test_images_on_other_pixels_come_to_those_of_the_counts():
    geom = sky()
    other = sky("CAR", "galactic", n=240, binsz=0.05, at=(184.5, -5.8))
    lon, lat = other.to_frame(*other.pixel_lonlat, "icrs")
    slope = 1.0 + 0.3 * (lon - LON) + 0.2 * (lat - LAT)
    area = np.degrees(np.degrees(other.solid_angle()))
    here = 1.0 + 0.3 * (geom.pixel_lonlat[0] - LON) + 0.2 * (geom.pixel_lonlat[1] - LAT)
    here_area = np.degrees(np.degrees(geom.solid_angle()))
    dataset = MapDataset.from_images(
        WcsNDMap(geom, counts_of(geom)),
        WcsNDMap(other, 80.0 * slope * area),
        WcsNDMap(other, 1e9 * slope, "m2 s"),
        0.06,
        mask=WcsNDMap(other, (lat < LAT + 0.5).astype(int)),
    )
    good = dataset.mask[0]
    expected = 80.0 * here * here_area
    np.testing.assert_allclose(dataset.background.data[0][good], expected[good], rtol=1e-3)
    np.testing.assert_allclose(dataset.exposure.data[0], 1e9 * here, rtol=1e-3)
    limit = geom.pixel_lonlat[1] - (LAT + 0.5)
    assert good[limit < -0.05].all() and not good[limit > 0.05].any()


@pytest.mark.parametrize("role", ["background", "exposure", "mask"])
def test_an_image_of_another_place_is_refused(role):
    geom, other = sky(n=21), sky(n=21, at=(200.0, 22.0))
    elsewhere = WcsNDMap(other, np.ones(other.shape), "m2 s" if role == "exposure" else "")
    with pytest.raises(DataError, match=rf"{role}: does not overlap the counts.*\(200, 22\)"):
        MapDataset.from_images(WcsNDMap(geom, np.ones(geom.shape)), psf=0.1, **{role: elsewhere})


def test_what_is_not_covered_is_not_fitted():
    geom, other = sky(), sky(n=41)
    dataset = MapDataset.from_images(
        WcsNDMap(geom, counts_of(geom)), WcsNDMap(other, np.full(other.shape, 0.2)), psf=0.1
    )
    assert dataset.mask.sum() == pytest.approx(41**2, abs=85)
    assert np.isfinite(dataset.background.data).all()


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        ("3e10 cm2 s", None, 3e6),
        ("3e6 m2 s", None, 3e6),
        (3e10 * u.Unit("cm2 s"), None, 3e6),
        (2.0, "km2 h", 2e6 * 3600),
        (3e10, None, 3e6),
    ],
)
def test_units_of_an_exposure(value, unit, expected):
    geom = sky(n=21)
    image = WcsNDMap(geom, np.ones(geom.shape))
    dataset = MapDataset.from_images(image, 0.1, value, 0.1, exposure_unit=unit)
    assert dataset.exposure.data.max() == pytest.approx(expected)
    assumed = [note for note in dataset.notes if "taken as cm2 s" in note]
    assert len(assumed) == (unit is None and isinstance(value, float))
    with pytest.raises(DataError, match=r"exposure: its unit \(BUNIT\) is 's'.*like 'm2 s'"):
        MapDataset.from_images(image, 0.1, 5.0, 0.1, exposure_unit="s")


# PSF


def radial(dataset, radii):
    weights = dataset.psf.weights[0, :, 0, 0]
    assert weights.sum() == pytest.approx(1.0, abs=1e-6)
    return profiles(weights, radii)


def king(radii, sigma=0.05, gamma=2.5):
    """King profile (Kirsch et al.), normalised to 1 in deg-2."""
    norm = (1 - 1 / gamma) / (2 * np.pi * sigma**2)
    return norm * (1 + radii**2 / (2 * gamma * sigma**2)) ** -gamma


def image_of(n=41):
    geom = sky(n=n)
    return WcsNDMap(geom, np.ones(geom.shape))


@pytest.mark.parametrize(
    "psf",
    [
        "0.06 deg", 0.06, 3.6 * u.arcmin, {"sigma": "0.06 deg"},
        {"fwhm": f"{0.06 * 2.354820:.6f} deg"}, "fwhm 0.14128920 deg", "sigma 216 arcsec",
    ],
)  # fmt: skip
def test_widths_of_a_gaussian(psf):
    radii = np.array([0.0, 0.03, 0.06, 0.12])
    dataset = MapDataset.from_images(image_of(), 0.1, psf=psf)
    expected = np.exp(-0.5 * (radii / 0.06) ** 2) / (2 * np.pi * 0.06**2)
    np.testing.assert_allclose(radial(dataset, radii), expected, atol=1e-3 * expected[0])


@pytest.mark.parametrize(
    ("psf", "message"),
    [
        ("0.05 m", "neither a width like '0.05 deg' nor a file"),
        ("-0.05 deg", "width of -0.05 deg cannot be used; expected more than 0"),
        ({"fwhm": "wide"}, "psf.fwhm: 'wide' is not an angle"),
        ({"width": 3}, "expected {sigma: 0.05 deg} or {fwhm: 0.12 deg}"),
        (5.0, r"width of 5 deg cannot be used; .* at most 1.6"),
        (np.zeros((5, 5)), "pixels add up to 0"),
        (np.ones(7), "expected a width like '0.05 deg', an image"),
    ],
)
def test_what_is_no_psf_is_refused(psf, message):
    with pytest.raises(DataError, match=message):
        MapDataset.from_images(image_of(), 0.1, psf=psf)


@pytest.mark.parametrize("binsz", [(0.02, 0.02), (0.03, 0.015)])
def test_an_image_of_a_kernel_is_undone_of_its_pixels_and_centred(tmp_path, binsz):
    """A sum of two Gaussians, integrated over pixels that are not square, off the middle."""
    from scipy.special import erf

    def along(step, n, centre, sigma):
        edges = (np.arange(n + 1) - n / 2) * step
        return np.diff(0.5 * erf((edges - centre) / (np.sqrt(2) * sigma)))

    kernel = 0
    for share, sigma in ((0.7, 0.05), (0.3, 0.12)):
        y, x = along(binsz[1], 91, -0.03, sigma), along(binsz[0], 61, 0.04, sigma)
        kernel = kernel + share * y[:, None] * x
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [31, 46]
    wcs.wcs.crval, wcs.wcs.cdelt = [10.0, 0.0], [-binsz[0], binsz[1]]
    path = tmp_path / "kernel.fits"
    fits.PrimaryHDU(kernel * 17.0, wcs.to_header()).writeto(path)
    dataset = MapDataset.from_images(image_of(), 0.1, psf=path)
    radii = np.linspace(0, 0.3, 13)
    expected = sum(
        share * np.exp(-0.5 * (radii / sigma) ** 2) / (2 * np.pi * sigma**2)
        for share, sigma in ((0.7, 0.05), (0.3, 0.12))
    )
    np.testing.assert_allclose(radial(dataset, radii), expected, atol=0.01 * expected[0])
    assert any("centroid of the kernel is" in note for note in dataset.notes)


def test_an_array_is_a_kernel_on_the_pixels_of_the_counts():
    x = np.arange(-10, 11) * 0.03
    kernel = king(np.hypot(x[:, None], x))
    dataset = MapDataset.from_images(image_of(), 0.1, psf=kernel)
    held = 1 - np.exp(-0.5 * (0.1 / PSF_WIDTHS) ** 2)
    inside = float(held @ dataset.psf.weights[0, :, 0, 0])
    # Containment of a King profile; the kernel ends at 0.3 deg, its own pixels hold 3 % less.
    expected = 1 - (1 + 0.1**2 / (5 * 0.05**2)) ** -1.5
    assert inside == pytest.approx(expected / 0.94, abs=0.03)


def test_a_kernel_that_is_not_circular_is_told_with_numbers():
    x = np.arange(-20, 21) * 0.03
    for ratio, refused in ((1.2, False), (2.5, True)):
        kernel = np.exp(-0.5 * ((x[:, None] / 0.1) ** 2 + (x / (0.1 * ratio)) ** 2))
        if refused:
            with pytest.raises(DataError, match=r"long axis of the PSF is 2\.\d\d times"):
                MapDataset.from_images(image_of(), 0.1, psf=kernel)
        else:
            notes = MapDataset.from_images(image_of(), 0.1, psf=kernel).notes
            assert any("long axis of the PSF is 1.2" in note for note in notes)


@pytest.mark.parametrize("name", ["psf.ecsv", "psf.csv", "psf.fits"])
def test_a_radial_profile_from_a_table(tmp_path, name):
    radii = np.linspace(0, 0.8, 161)
    unit = {"psf.ecsv": u.arcmin, "psf.csv": None, "psf.fits": u.rad}[name]
    column = radii if unit is None else (radii * u.deg).to(unit)
    Table({"rad": column, "psf": 3.0 * king(radii)}).write(tmp_path / name)
    dataset = MapDataset.from_images(image_of(), 0.1, psf=tmp_path / name)
    total = 1 - (1 + 0.8**2 / (5 * 0.05**2)) ** -1.5
    at = np.array([0.0, 0.02, 0.05, 0.1, 0.2, 0.4])
    expected = king(at) / total
    np.testing.assert_allclose(radial(dataset, at), expected, rtol=0.05, atol=0.01 * expected[0])
    assert any("rad has no unit; taken as deg" in note for note in dataset.notes) == (unit is None)
    Table({"r2": radii, "flux": king(radii)}).write(tmp_path / f"bad-{name}")
    with pytest.raises(DataError, match=r"columns r2, flux; expected rad"):
        MapDataset.from_images(image_of(), 0.1, psf=tmp_path / f"bad-{name}")


def test_the_table_of_fermis_gtpsf(tmp_path):
    theta = np.linspace(0, 3, 301)
    energies = np.geomspace(1e6, 1e7, 5)
    widths = np.geomspace(0.2, 0.1, 5)
    table = np.exp(-0.5 * (theta / widths[:, None]) ** 2) / widths[:, None] ** 2
    psf = fits.BinTableHDU.from_columns(
        [
            fits.Column("Energy", "D", unit="MeV", array=energies),
            fits.Column("Exposure", "D", array=np.ones(5)),
            fits.Column("Psf", "301D", unit="sr-1", array=table),
        ],
        name="PSF",
    )
    radii = fits.BinTableHDU.from_columns([fits.Column("Theta", "D", array=theta)], name="THETA")
    fits.HDUList([fits.PrimaryHDU(), psf, radii]).writeto(tmp_path / "gtpsf.fits")
    dataset = MapDataset.from_images(
        image_of(), 0.1, psf=tmp_path / "gtpsf.fits", energy=(3.1622, 3.1623)
    )
    sigma = np.sqrt(0.1 * 0.2)
    at = np.array([0.0, 0.1, 0.3])
    expected = np.exp(-0.5 * (at / sigma) ** 2) / (2 * np.pi * sigma**2)
    np.testing.assert_allclose(radial(dataset, at), expected, atol=5e-3 * expected[0])


def test_no_psf_is_one_pixel_wide():
    dataset = MapDataset.from_images(image_of(), 0.1)
    sigma = 0.03 / 2.3548
    assert radial(dataset, [0.0])[0] == pytest.approx(1 / (2 * np.pi * sigma**2), rel=2e-3)
    assert any("FWHM of one pixel" in note for note in dataset.notes)


# Lists, the command line, the workbench


@pytest.fixture
def images(tmp_path):
    geom = sky()
    write_image(tmp_path / "counts.fits", geom, counts_of(geom))
    write_image(tmp_path / "exposure.fits", geom, np.full(geom.shape, 1e6), BUNIT="m2 s")
    (tmp_path / "datasets.yaml").write_text(
        "datasets:\n-   name: crab\n    type: ImageDataset\n    counts: counts.fits\n"
        "    background: flat\n    exposure: exposure.fits\n    psf: {fwhm: 0.14 deg}\n"
        "    energy: [1 TeV, 10 TeV]\n"
    )
    Models([model(geom, 0.05, 5e-8)]).write(tmp_path / "models.yaml")
    return tmp_path


def test_a_list_of_images_is_read_and_fitted(images, cli):
    dataset = read_datasets(images / "datasets.yaml")["crab"]
    assert dataset.exposure.data.max() == 1e6
    done = cli(
        "fit", images / "datasets.yaml", images / "models.yaml", "-o", images / "out", "--json"
    )
    assert done.status == 0, done.err
    fit = done.json()["fit"]
    assert fit["success"]
    found = {p["name"]: (p["value"], p["error"]) for p in fit["parameters"]}
    assert abs(found["amplitude"][0] - 1e-7) < 4 * found["amplitude"][1] < 4e-8
    assert abs(found["lon_0"][0] - SOURCE[0]) < 4 * found["lon_0"][1]
    stat = cli("stat", images / "datasets.yaml", images / "out/models.yaml", "--json")
    assert stat.status == 0, stat.err
    assert stat.json()["stat"] == pytest.approx(fit["stat"], abs=1e-6)


def test_a_bare_image_is_refused_with_what_to_do(images, cli):
    done = cli("fit", images / "counts.fits", images / "models.yaml", "-o", images / "out")
    assert done.status == 2
    assert "a plain image (HDU PRIMARY) is not a dataset" in done.err
    assert "type: ImageDataset" in done.err and "Traceback" not in done.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("counts: nowhere.fits", "nowhere.fits: no such file"),
        ("background: 0.1", r"datasets\[0\]: has no counts"),
        ("counts: counts.fits, pfs: 0.1", "key 'pfs' is not known; expected name, type, counts"),
        ("counts: [a, b]", r"datasets\[0\].counts: \['a', 'b'\] cannot be used; expected a path"),
        ("counts: counts.fits, mask: true", r"datasets\[0\].mask: True cannot be used"),
        ("counts: counts.fits, psf: nothing", "psf: .*nothing' is neither a width"),
        ("counts: counts.fits, energy: 5 TeV", "energy: '5 TeV' cannot be used; expected edges"),
        ("counts: $NO_SUCH_FOLDER/a.fits", "environment variable NO_SUCH_FOLDER is not set"),
    ],
)
def test_mistakes_in_a_list_name_file_and_key(images, text, message):
    path = images / "wrong.yaml"
    path.write_text(f"datasets:\n- {{type: ImageDataset, {text}}}\n")
    with pytest.raises(DataError, match=message) as caught:
        read_datasets(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "datasets: 3", "- a", "datasets: []", "datasets: [1]", "a: ["]
)
def test_what_is_no_list_of_datasets_is_refused(tmp_path, text):
    path = tmp_path / "datasets.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=r"datasets.yaml: (not a list|is not YAML|lists no)"):
        read_datasets(path)


def test_numbers_in_a_list_are_values_however_yaml_takes_them(images):
    path = images / "numbers.yaml"
    path.write_text(
        "datasets:\n- {counts: counts.fits, background: 2e-1, exposure: 3e10, psf: 6e-2}\n"
    )
    dataset = read_datasets(path)[0]
    assert dataset.name == "counts"
    assert dataset.background.data.max() == pytest.approx(0.2)
    assert dataset.exposure.data.max() == pytest.approx(3e6)
    assert radial(dataset, [0.0])[0] == pytest.approx(1 / (2 * np.pi * 0.06**2), rel=2e-3)


def test_two_images_of_one_name_are_refused(images):
    path = images / "two.yaml"
    path.write_text("datasets:\n" + "- {name: a, counts: counts.fits}\n" * 2)
    with pytest.raises(DataError, match=r"two.yaml: datasets: names must differ, got a, a"):
        read_datasets(path)


@pytest.mark.parametrize("background", [None, "flat"])
def test_the_workbench_shows_and_fits_images(background):
    geom = sky()
    counts = WcsNDMap(geom, counts_of(geom, level=0.05))
    bench = Workbench(MapDataset.from_images(counts, background, psf="0.06 deg"))
    bench.session.add_source(*SOURCE, spatial="gauss")
    result = Fit().run(bench.session.datasets, bench.session.models.copy())
    assert result.success
    amplitude = next(p for p in result.parameters if p["name"] == "amplitude")
    expected = counts.data.sum() if background is None else 1000
    assert amplitude["value"] == pytest.approx(expected, rel=0.15)


def test_damaged_images_are_one_error_or_whole_numbers(images):
    rng = np.random.default_rng(5)
    raw = (images / "counts.fits").read_bytes()
    path, refused = images / "damaged.fits", 0
    for number in range(200):
        content = bytearray(raw)
        if number % 4 == 0:
            content = content[: rng.integers(1, len(content))]
        else:
            first, last = (0, 2880) if number % 4 < 3 else (2880, len(raw))
            for _ in range(rng.integers(1, 6)):
                content[rng.integers(first, last)] = rng.integers(256)
        path.write_bytes(bytes(content))
        try:
            dataset = MapDataset.from_images(path, 0.1, psf=0.1)
        except DataError as error:
            assert str(path) in str(error)
            refused += 1
            continue
        assert np.isfinite(dataset.stat_sum())
    assert 50 < refused < 200


def test_bands_given_by_hand_and_an_axis_object():
    geom = sky(n=21)
    axis = MapAxis.from_energy_bounds("1 TeV", "10 TeV", 2)
    cube = WcsNDMap(geom.to_cube([axis]), np.ones((2, 21, 21)))
    assert MapDataset.from_images(cube, psf=0.1).energy_axis.is_like(axis)
    given = MapDataset.from_images(cube, psf=0.1, energy=["2 TeV", "3 TeV", "4000 GeV"])
    assert given.energy_axis.bounds == pytest.approx([2, 3, 4])
    with pytest.raises(DataError, match=r"background: has 1 energy bands, the counts have 2"):
        MapDataset.from_images(cube, np.ones(geom.shape), psf=0.1)
