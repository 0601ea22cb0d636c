"""Dataset files that are not what they seem: units, geometries, values and runs."""

from __future__ import annotations

import logging
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits

from imgfit_widgets.core.data import DataStore, RunInfo
from imgfit_widgets.core.dataset import Datasets, MapDataset
from imgfit_widgets.core.errors import DataError
from imgfit_widgets.core.files import read_datasets, write_datasets
from imgfit_widgets.core.maps import WcsNDMap
from imgfit_widgets.core.models import (
    Models,
    PointSpatialModel,
    PowerLaw2SpectralModel,
    SkyModel,
)


@pytest.fixture(scope="module")
def dataset(demo_store) -> MapDataset:
    from imgfit_widgets import Analysis, AnalysisConfig

    analysis = Analysis(AnalysisConfig.read(demo_store / "config.yaml"))
    analysis.get_observations()
    analysis.get_datasets()
    return analysis.datasets[0]


@pytest.fixture
def file(dataset, tmp_path):
    """A dataset file to be changed."""
    path = tmp_path / "dataset.fits"
    dataset.write(path)
    return path


def test_maps_come_back_as_they_were(dataset, file):
    again = MapDataset.read(file)
    assert again.name == dataset.name
    assert again.runs == dataset.runs
    np.testing.assert_array_equal(again.counts.data, dataset.counts.data)
    np.testing.assert_array_equal(again.mask, dataset.mask)
    np.testing.assert_allclose(again.background.data, dataset.background.data, rtol=1e-6)
    np.testing.assert_allclose(again.exposure.data, dataset.exposure.data, rtol=1e-6)
    np.testing.assert_allclose(again.psf.weights, dataset.psf.weights, atol=1e-6)
    np.testing.assert_allclose(again.edisp.data, dataset.edisp.data, rtol=1e-6)
    np.testing.assert_allclose(again.gti.start, dataset.gti.start)


@pytest.mark.parametrize("name", ["007", "0x10", "yes", "src: one #2", "dé", "a/b"])
def test_any_name_of_a_dataset_comes_back(name, dataset, tmp_path):
    """Some came back as numbers, some left a file that could not be read."""
    named = MapDataset(
        name, dataset.counts, dataset.background, dataset.exposure, dataset.psf, dataset.edisp
    )
    list(write_datasets(Datasets([named]), tmp_path))
    assert read_datasets(tmp_path / "datasets.yaml").names == [name]


def test_a_fit_range_does_not_cost_a_mask_of_its_own(dataset):
    """The mask of a file was gone after reading, and regions were fitted that it leaves out.

    Gammapy's analysis puts its range in the place of the mask.
    """
    chosen = np.zeros(dataset.geom.data_shape, dtype=bool)
    chosen[:, 40:80, 50:90] = True
    masked = dataset._replace(mask_fit=WcsNDMap(dataset.geom, chosen))
    assert masked.with_fit_range(None, None) is masked
    assert masked.with_fit_range(0.1, 100.0) is masked
    whole = np.ones(dataset.geom.data_shape, dtype=bool)
    ranged = dataset._replace(mask_fit=WcsNDMap(dataset.geom, whole & False))
    assert ranged.with_fit_range(0.1, 100.0).mask_fit.data.all()  # a range gives way to another


@pytest.mark.parametrize("kind", ["map", "cube", "image"])
def test_a_mask_to_fit_can_be_set(kind, dataset):
    """It had no setter: datasets had to be built anew from their parts."""
    chosen = np.zeros(dataset.geom.data_shape, dtype=bool)
    chosen[:, 40:80, 50:90] = True
    own = dataset.with_models(None)
    before = own.mask.sum()
    own.mask_fit = {
        "map": WcsNDMap(dataset.geom, chosen), "cube": chosen.astype(int), "image": chosen[0]
    }[kind]  # fmt: skip
    np.testing.assert_array_equal(own.mask_fit.data, chosen)
    assert own.mask.sum() == (chosen & dataset.mask).sum() < before
    assert own.with_fit_range(0.1, 100.0) is own
    own.mask_fit = None
    assert own.mask.sum() == before
    with pytest.raises(DataError, match=r"mask_fit: has shape \(3, 3\); expected \(1, "):
        own.mask_fit = np.ones((3, 3))


def test_what_is_written_is_read_however_steep_the_area(dataset, tmp_path):
    """A whole bin gives many times what the area at its centre does where that rises steeply."""
    edisp = replace(dataset.edisp, data=5.0 * dataset.edisp.data)
    dataset._replace(edisp=edisp).write(tmp_path / "steep.fits")
    again = MapDataset.read(tmp_path / "steep.fits")
    np.testing.assert_allclose(again.edisp.data, edisp.data, rtol=1e-6)


def test_exposure_in_another_unit_is_converted(dataset, file):
    with fits.open(file, mode="update") as hdus:
        for name in ("EXPOSURE", "PSF_EXPOSURE", "EDISP_EXPOSURE"):
            hdus[name].data *= 1e4
            hdus[name].header["BUNIT"] = "cm2 s"
    again = MapDataset.read(file)
    assert again.exposure.unit == "m2 s"
    np.testing.assert_allclose(again.exposure.data, dataset.exposure.data, rtol=1e-5)
    np.testing.assert_allclose(again.psf.exposure, dataset.psf.exposure, rtol=1e-5)


def test_exposure_in_a_wrong_unit_is_refused(file):
    fits.setval(file, "BUNIT", value="m2", extname="EXPOSURE")
    with pytest.raises(DataError, match=r"\[EXPOSURE\]: its unit \(BUNIT\) is 'm2'.*'m2 s'"):
        MapDataset.read(file)


def test_a_truncated_gzipped_event_file_is_named_as_such(demo_store, tmp_path):
    """It was once said to have no HDU EVENTS."""
    import gzip
    import shutil

    store = tmp_path / "store"
    shutil.copytree(demo_store, store)
    index = DataStore.from_dir(store)
    path = index.obs(index.obs_ids[0]).hdus["events"].path
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert content[:2] == gzip.compress(b"")[:2]
    with pytest.raises(DataError, match=r"cannot be read to its end; the file is truncated"):
        _ = index.obs(index.obs_ids[0]).events


def test_runs_that_nobody_named_are_explained(gammapy_data):
    store = DataStore.from_dir(gammapy_data / "cta-1dc/index/gps")
    with pytest.raises(DataError, match=r"111630.*no runs were named, so all 4 of the index"):
        store.get_observations()


@pytest.mark.parametrize("name", ["BACKGROUND", "MASK_SAFE"])
def test_maps_of_other_pixels_are_refused(file, name):
    fits.setval(file, "CRVAL1", value=31.0, extname=name)
    with pytest.raises(DataError, match=rf"\[{name}\]: its pixels are not those of COUNTS"):
        MapDataset.read(file)


def test_values_that_are_not_finite_are_refused_inside_the_mask_and_zero_outside(dataset, file):
    outside = tuple(np.argwhere(~dataset.mask)[0])
    inside = tuple(np.argwhere(dataset.mask)[0])
    with fits.open(file, mode="update") as hdus:
        hdus["BACKGROUND"].data[outside] = np.nan
    assert MapDataset.read(file).background.data[outside] == 0.0
    with fits.open(file, mode="update") as hdus:
        hdus["COUNTS"].data[inside] = np.nan
    with pytest.raises(DataError, match=r"\[COUNTS\]: holds values that are not finite"):
        MapDataset.read(file)


def test_negative_counts_are_refused(file):
    with fits.open(file, mode="update") as hdus:
        hdus["COUNTS"].data[0, 50, 50] = -1.0
    with pytest.raises(DataError, match=r"\[COUNTS\]: holds negative values"):
        MapDataset.read(file)


def test_runs_of_several_telescopes_keep_their_names(dataset, tmp_path):
    runs = tuple(
        RunInfo(number, telescope, 10.0, 20.0, 100.0)
        for number, telescope in enumerate(("CTA-N", "HESS", "M"))
    )
    path = tmp_path / "several.fits"
    dataset._replace(runs=runs).write(path)
    assert MapDataset.read(path).runs == runs


def test_live_time_in_hours_is_read_as_such(file):
    with fits.open(file, mode="update") as hdus:
        hdus["EXPOSURE"].header["META"] = '{"livetime": "2.0 h"}'
        columns = hdus["META_TABLE"].columns
        columns.del_col("LIVETIME")
        hdus["META_TABLE"] = fits.BinTableHDU.from_columns(columns, name="META_TABLE")
    assert MapDataset.read(file).livetime == pytest.approx(7200)


def test_a_truncated_file_is_one_clear_error(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"dataset.fits.*truncated"):
        MapDataset.read(file)


def test_datasets_of_other_types_are_refused(tmp_path):
    path = tmp_path / "datasets.yaml"
    path.write_text("datasets:\n- {name: a, type: SpectrumDataset, filename: a.fits}\n")
    with pytest.raises(DataError, match="type 'SpectrumDataset' are not supported"):
        read_datasets(path)
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(DataError, match=r"folder.yaml: no such file"):
        read_datasets(tmp_path / "folder.yaml")


def _change_background(store, target, **changes):
    """A copy of a store with changes to its background table."""
    import shutil

    shutil.copytree(store, target)
    path = next(
        target / row["FILE_DIR"].strip() / row["FILE_NAME"].strip()
        for row in fits.getdata(next(target.glob("hdu-index*")), 1)
        if row["HDU_TYPE"].strip() == "bkg"
    )
    with fits.open(path, mode="update") as hdus:
        hdu = next(hdu for hdu in hdus if "BKG" in hdu.name or "BACKGROUND" in hdu.name)
        for key, value in changes.items():
            hdu.header[key] = value
    return DataStore.from_dir(target)


def test_background_aligned_with_something_else_is_refused(demo_store, tmp_path):
    store = _change_background(demo_store, tmp_path / "store", FOVALIGN="TELESCOPE")
    with pytest.raises(DataError, match="FOVALIGN is 'TELESCOPE', expected one of RADEC, ALTAZ"):
        _ = store.obs(store.obs_ids[0]).bkg


def test_background_aligned_with_the_horizon_needs_the_place_of_the_telescope(demo_store, tmp_path):
    store = _change_background(demo_store, tmp_path / "store", FOVALIGN="ALTAZ")
    systems = store.obs(1).fov_rotations(exact=True)
    assert len(systems) > 1 and sum(weight for weight, _ in systems) == pytest.approx(1.0)
    events = store.obs(1).hdus["events"]
    with fits.open(events.path, mode="update") as hdus:
        del hdus[events.name].header["GEOLAT"]
    with pytest.raises(DataError, match=r"keywords GEOLON and GEOLAT are missing.*'ALTAZ'"):
        DataStore.from_dir(store.base_dir).obs(1).fov_rotations(exact=True)


def test_background_in_a_wrong_unit_is_refused_and_not_guessed(demo_store, tmp_path):
    index = DataStore.from_dir(demo_store)
    location = index.obs(index.obs_ids[0]).hdus["bkg"]
    with fits.open(location.path) as hdus:
        hdu = hdus[location.name]
        number = next(i for i in range(1, 20) if hdu.header.get(f"TTYPE{i}") in ("BKG", "BGD"))
    store = _change_background(demo_store, tmp_path / "store", **{f"TUNIT{number}": "m2"})
    with pytest.raises(DataError, match="has unit 'm2', expected one like 's-1 MeV-1 sr-1'"):
        _ = store.obs(store.obs_ids[0]).bkg


def test_the_cta_unit_is_taken_as_what_it_means_with_a_warning(gammapy_data, caplog):
    store = DataStore.from_dir(gammapy_data / "cta-1dc/index/gps")
    with caplog.at_level(logging.WARNING):
        background = store.obs(110380).bkg
    assert "1/s/MeV/sr" in caplog.text
    assert 1e-12 < background.data.max() < 1.0


def test_excess_is_correlated_in_a_circle_on_the_sky_at_any_latitude(dataset):
    from imgfit_widgets.core.estimators.excess import disk_sum

    image = np.zeros((41, 41))
    image[20, 20] = 1.0
    # Pixels half as wide as high, as at b = 60 deg: twice as many along x.
    spread = disk_sum(image, 8.0, 4.0)
    assert spread[20].sum() == 17
    assert spread[:, 20].sum() == 9


def test_a_point_far_outside_the_exposure_predicts_nothing(dataset):
    spectrum = PowerLaw2SpectralModel(amplitude=1e-11 * u.Unit("cm-2 s-1"))
    lon, lat = dataset.geom.pix_to_lonlat(1.0, 1.0)
    place = PointSpatialModel(lon_0=float(lon) * u.deg, lat_0=float(lat) * u.deg, frame="galactic")
    copy = dataset._replace(models=Models([SkyModel(spectrum, place, name="edge")]))
    assert np.isfinite(copy.npred().data).all()
