"""Dataset files as Gammapy writes them: every kind of response, grid and energy axis."""

from __future__ import annotations

import gzip
import io
import logging
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from imgfit_widgets.core.dataset import MapDataset
from imgfit_widgets.core.errors import DataError
from imgfit_widgets.core.files import read_datasets, write_datasets
from imgfit_widgets.core.models import Models

CODE = (Path(__file__).parent / "gammapy_files.py").read_text()
SOURCES = (
    "fermi", "kernel", "migra", "migra-wide", "tan", "one-band", "reco-psf", "coarse", "region",
    "mev", "no-edisp",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(gammapy, tmp_path_factory):
    """A folder of files that Gammapy wrote, and what it says of them."""
    path = tmp_path_factory.mktemp("gammapy")
    return path, gammapy(CODE, "write", path)


def read(folder, name):
    dataset = MapDataset.read(folder[0] / f"{name}.fits.gz")
    dataset.models = Models.read(folder[0] / f"{name}.yaml")
    return dataset, np.load(folder[0] / f"{name}.npy")


@pytest.mark.parametrize("name", SOURCES)
def test_predictions_of_every_kind_of_file_are_gammapys(folder, name):
    dataset, theirs = read(folder, name)
    assert dataset.name == name
    assert dataset.npred_background().data.sum() == pytest.approx(
        folder[1][name]["background"], rel=1e-6
    )
    background = dataset.background.data
    ours, theirs = dataset.npred().data - background, theirs - background
    np.testing.assert_allclose(ours.sum(axis=(1, 2)), theirs.sum(axis=(1, 2)), rtol=1e-3)
    assert np.abs(ours - theirs).max() < 2e-3 * theirs.max()
    # A PSF of 0.05 to 0.15 deg and its kernel on pixels of 0.05 deg: the likelihoods agree to
    # what the pixels of the kernel make.
    assert dataset.stat_sum() == pytest.approx(folder[1][name]["stat"], abs=4.0)


def test_the_masks_and_times_of_a_file_are_read(folder):
    dataset, _ = read(folder, "mev")
    assert dataset.energy_axis.bounds[[0, -1]] == pytest.approx([0.01, 2.0])
    assert not dataset.mask[0, :20].any() and not dataset.mask[:, :, :10].any()
    assert dataset.mask.sum() == 4 * 80 * 90 + 60 * 90
    assert dataset.gti.time_sum == pytest.approx(3600)


def test_counts_and_background_alone_have_a_statistic_and_no_sources(folder, tmp_path):
    dataset, theirs = read(folder, "bare")
    assert dataset.exposure is None and dataset.psf is None
    np.testing.assert_allclose(dataset.npred().data, theirs, rtol=1e-6)
    assert dataset.stat_sum() == pytest.approx(folder[1]["bare"]["stat"], rel=1e-6)
    assert "Exposure min                    : none" in str(dataset)
    dataset.write(tmp_path / "bare.fits")
    again = MapDataset.read(tmp_path / "bare.fits")
    np.testing.assert_array_equal(again.counts.data, dataset.counts.data)
    again.models = Models([m for m in Models.read(folder[0] / "fermi.yaml") if m.name == "src"])
    with pytest.raises(DataError, match="'bare': has no exposure, which a source needs"):
        again.npred()


def test_off_counts_become_a_background_with_a_word_about_their_fluctuations(folder, caplog):
    with caplog.at_level(logging.WARNING):
        dataset = MapDataset.read(folder[0] / "on-off.fits.gz")
    expected = folder[1]["on-off"]["background"]
    assert dataset.background.data.sum() == pytest.approx(expected, rel=1e-6)
    assert "alpha times the OFF counts" in caplog.text and "wstat" in caplog.text


def test_a_list_of_datasets_is_read_as_gammapy_wrote_it(folder):
    datasets = read_datasets(folder[0] / "datasets.yaml")
    assert datasets.names == ["first", "second"]
    datasets.models = Models.read(folder[0] / "models.yaml")
    assert sum(d.stat_sum() for d in datasets) == pytest.approx(folder[1]["both"], abs=4.0)


def test_what_is_no_map_dataset_is_refused_by_name(folder):
    with pytest.raises(DataError, match=r"datasets\[0\]: .*type 'SpectrumDataset.*supported: Map"):
        read_datasets(folder[0] / "spectra.yaml")
    with pytest.raises(DataError, match=r"sparse.fits \[COUNTS\]: is a sparse map"):
        MapDataset.read(folder[0] / "sparse.fits")


def test_files_written_here_mean_the_same_to_gammapy(folder, gammapy):
    names = [*SOURCES, "bare"]
    for name in names:
        MapDataset.read(folder[0] / f"{name}.fits.gz").write(folder[0] / f"our-{name}.fits.gz")
    for name, facts in gammapy(CODE, "read", folder[0], *names).items():
        assert facts["name"] == name
        assert facts["geom"] and facts["counts"], name
        assert facts["total"] == pytest.approx(1.0, rel=1e-3), name
        assert facts["npred"] < 5e-3, name


def test_written_lists_are_read_back(folder, tmp_path):
    dataset, _ = read(folder, "one-band")
    list(write_datasets(read_datasets(folder[0] / "datasets.yaml"), tmp_path))
    again = read_datasets(tmp_path / "datasets.yaml")
    assert again.names == ["first", "second"]
    assert again[1].geom.is_aligned(dataset.geom)


# Files that another version or a hand changed


def changed(folder, name, target, change):
    with fits.open(folder[0] / f"{name}.fits.gz") as hdus:
        change(hdus)
        hdus.writeto(target)
    return target


def rename(hdus, old, new):
    for hdu in hdus:
        for key, value in list(hdu.header.items()):
            if isinstance(value, str) and old in value and key.startswith(("TTYPE", "AXCOLS")):
                hdu.header[key] = value.replace(old, new)


def test_an_old_name_of_the_psf_axis_is_known(folder, tmp_path):
    path = changed(folder, "kernel", tmp_path / "old.fits", lambda h: rename(h, "RAD", "THETA"))
    new = MapDataset.read(folder[0] / "kernel.fits.gz")
    np.testing.assert_allclose(MapDataset.read(path).psf.weights, new.psf.weights)


def test_a_healpix_exposure_is_refused_with_a_remedy(folder, tmp_path):
    def to_healpix(hdus):
        table = fits.BinTableHDU.from_columns(
            [fits.Column("CHANNEL1", "D", array=np.ones(12))], name="EXPOSURE"
        )
        table.header["PIXTYPE"] = "HEALPIX"
        hdus["EXPOSURE"] = table

    path = changed(folder, "kernel", tmp_path / "hpx.fits", to_healpix)
    with pytest.raises(DataError, match=r"\[EXPOSURE\]: is a HEALPix map.*interp_to_geom"):
        MapDataset.read(path)


def test_an_exposure_on_coarser_pixels_is_interpolated(folder, tmp_path):
    def coarsen(hdus):
        hdu = hdus["EXPOSURE"]
        data = hdu.data.reshape(20, 20, 4, 25, 4).mean(axis=(2, 4))
        hdu.data = data * (1 + 0.01 * np.arange(25))
        for axis in (1, 2):
            hdu.header[f"CDELT{axis}"] *= 4
            hdu.header[f"CRPIX{axis}"] = (hdu.header[f"CRPIX{axis}"] - 0.5) / 4 + 0.5

    path = changed(folder, "kernel", tmp_path / "coarse.fits", coarsen)
    exposure = MapDataset.read(path).exposure
    original = MapDataset.read(folder[0] / "kernel.fits.gz").exposure.data
    x = (np.arange(100) - 1.5) / 4
    expected = original[:, 40] * (1 + 0.01 * np.clip(x, 0, 24))
    np.testing.assert_allclose(exposure.data[:, 40], expected, rtol=1e-5)


def test_responses_of_another_part_of_the_sky_are_refused(folder, tmp_path):
    def move(hdus):
        hdus["EXPOSURE"].header["CRVAL1"] = 40.0

    path = changed(folder, "kernel", tmp_path / "moved.fits", move)
    with pytest.raises(DataError, match=r"\[EXPOSURE\]: lies on another part of the sky"):
        MapDataset.read(path)


@pytest.mark.parametrize(
    ("hdu", "column", "value", "message"),
    [
        ("COUNTS_BANDS", "E_MIN", np.nan, r"\[COUNTS_BANDS\]: column E_MIN is empty or not finite"),
        ("COUNTS_BANDS", "E_MAX", 0.02, r"\[COUNTS_BANDS\]: axis energy: its bins do not follow"),
        ("EXPOSURE_BANDS", "ENERGY_TRUE_MIN", -1.0, r"\[EXPOSURE_BANDS\]: axis energy_true"),
    ],
)
def test_wrong_bands_are_named(folder, tmp_path, hdu, column, value, message):
    def change(hdus):
        hdus[hdu].data[column][0] = value

    path = changed(folder, "kernel", tmp_path / "bands.fits", change)
    with pytest.raises(DataError, match=message):
        MapDataset.read(path)


def test_a_missing_table_of_axes_is_named(folder, tmp_path):
    def drop(hdus):
        del hdus["PSF_BANDS"]

    path = changed(folder, "kernel", tmp_path / "dropped.fits", drop)
    with pytest.raises(DataError, match=r"\[PSF\]: its table of axes .*'PSF_BANDS' is not in"):
        MapDataset.read(path)


def test_probabilities_that_are_none_are_refused(folder, tmp_path):
    def change(hdus):
        hdus["EDISP"].data[:] *= 7

    path = changed(folder, "kernel", tmp_path / "seven.fits", change)
    with pytest.raises(DataError, match=r"\[EDISP\]: probabilities reach from 0 to 7"):
        MapDataset.read(path)


def mutate(raw, rng):
    """A damaged copy of a file: bytes, length or values changed."""
    content = bytearray(raw)
    kind = rng.choice(["header", "data", "cut", "drop", "values"])
    with fits.open(io.BytesIO(raw)) as hdus:
        number = int(rng.integers(1, len(hdus)))
        info = hdus[number].fileinfo()
        head, start, stop = info["hdrLoc"], info["datLoc"], info["datLoc"] + info["datSpan"]
        if kind == "header":
            for _ in range(rng.integers(1, 4)):
                content[rng.integers(head, start)] = rng.integers(32, 200)
        elif kind == "data" and stop > start:
            for _ in range(rng.integers(1, 50)):
                content[rng.integers(start, stop)] = rng.integers(256)
        elif kind == "cut":
            content = content[: rng.integers(1, len(content))]
        elif kind == "drop" or isinstance(hdus[number], fits.BinTableHDU):
            del hdus[number]
            content = io.BytesIO()
            hdus.writeto(content)
            content = content.getvalue()
        elif kind == "values":
            data = np.array(hdus[number].data, dtype=float)
            places = rng.integers(data.size, size=rng.integers(1, data.size + 1))
            data.flat[places] = rng.choice([np.nan, np.inf, -np.inf, -1.0, 1e38])
            hdus[number].data = data
            content = io.BytesIO()
            hdus.writeto(content)
            content = content.getvalue()
    return bytes(content)


@pytest.mark.parametrize("name", ["kernel", "migra", "region", "on-off", "mev", "coarse"])
def test_a_damaged_file_is_one_error_or_whole_numbers(folder, tmp_path, name):
    rng = np.random.default_rng(sum(map(ord, name)))
    raw = gzip.decompress((folder[0] / f"{name}.fits.gz").read_bytes())
    models = Models([m for m in Models.read(folder[0] / "kernel.yaml") if m.name == "src"])
    path, refused = tmp_path / "damaged.fits", 0
    for _ in range(50):
        path.write_bytes(mutate(raw, rng))
        try:
            dataset = MapDataset.read(path)
        except DataError as error:
            assert str(path) in str(error)
            refused += 1
            continue
        str(dataset)
        dataset.models = models
        try:
            assert np.all(np.isfinite(dataset.npred().data))
        except DataError as error:
            assert "which a source needs" in str(error)
    assert 15 < refused < 50
