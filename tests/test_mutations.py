"""Thousands of damaged inputs: each gives one ImgfitError of one line, or a finite result.

Seeded, so that a failure comes back. What counts as damage: keys dropped, doubled, misspelt;
values of another type, unit or size; bytes flipped, files cut, columns dropped, numbers that are
none.
"""

from __future__ import annotations

import copy
import gzip
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from astropy.io import fits

from imgfit_widgets import AnalysisConfig, MapDataset
from imgfit_widgets.core.data import DataStore
from imgfit_widgets.core.errors import ImgfitError
from imgfit_widgets.core.fits_maps import read_geom
from imgfit_widgets.core.makers import Exclusion, reduce_observations, reduction_from_config
from imgfit_widgets.core.maps import WcsGeom
from imgfit_widgets.core.models import Models
from imgfit_widgets.core.simulate import simulate_store

JUNK: list[Any] = [
    None, True, -1, 0, 1e400, float("nan"), 10**40, -(10**400), "", " ", "abc", "1 TeV", "1 deg",
    "-3 deg", "nan deg", "inf TeV", "1e500 TeV", "1 parsec", "0 deg", "1e-300 deg", "icrs", [], {},
    [1, 2], ["x"], {"a": {"b": [None]}}, [[[]]], "é∞", "\0", "2020-01-01", "2020-99-01", "$HOME",
    "$NOT_SET_ANYWHERE/x", 0.5, "3", "true",
]  # fmt: skip


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all nodes below one."""
    found: list[tuple[Any, ...]] = []
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        found.append((*path, key))
        if isinstance(value, (dict, list)):
            found += places(value, (*path, key))
    return found


def mutated(data: Any, rng: random.Random) -> Any:
    """A copy of nested data with one to three of its nodes spoiled."""
    data = copy.deepcopy(data)
    for _ in range(rng.randint(1, 3)):
        every = places(data)
        if not every:
            return data
        *parents, key = rng.choice(every)
        node = data
        for parent in parents:
            node = node[parent]
        how = rng.randrange(5)
        if how == 0:
            del node[key]
        elif how == 1 and isinstance(node, dict):
            word = str(key)
            at = rng.randrange(len(word))
            node[word[:at] + rng.choice("xyz_-é") + word[at + 1 :]] = node.pop(key)
        elif how == 2 and isinstance(node, list):
            node.append(copy.deepcopy(node[key]))
        elif how == 3:
            node[key] = {str(key): copy.deepcopy(node[key])}
        else:
            node[key] = copy.deepcopy(rng.choice(JUNK))
    return data


def garbled(text: str, rng: random.Random) -> str:
    """Text with a few characters changed, dropped or doubled, or cut off."""
    letters = list(text)
    if rng.random() < 0.2:
        return text[: rng.randrange(len(text))]
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(letters))
        letters[at] = rng.choice(
            ["", letters[at] * 2, "\t", ":", "{", "]", "*", "&a", "!!x ", "\n"]
        )
    return "".join(letters)


def refused(error: ImgfitError) -> bool:
    text = str(error)
    assert text.strip(), type(error)
    assert "Traceback" not in text
    assert len(text.splitlines()) == 1, text
    return True


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """A store in coarse pixels."""
    return simulate_store(tmp_path_factory.mktemp("mutations") / "store", seed=1)


def config_of(store: Path) -> AnalysisConfig:
    config = AnalysisConfig.read(store / "config.yaml")
    config.observations.datastore = store
    config.observations.obs_ids = [1]
    wcs = config.datasets.geom.wcs
    wcs.binsize, wcs.binsize_irf = "0.4 deg", "2 deg"
    config.datasets.geom.axes.energy_true.nbins = 4
    return config


def test_configurations(store):
    """Read, checked, written and read again."""
    rng = random.Random(11)
    whole = config_of(store).to_dict()
    whole["observations"]["obs_time"] = {"start": ["2020-01-01"], "stop": ["2020-01-02"]}
    whole["datasets"]["safe_mask"]["parameters"] |= {"aeff_percent": 10, "irfs": "DL4"}
    text = yaml.safe_dump(whole)
    bad = 0
    for number in range(900):
        try:
            if number % 3:
                config = AnalysisConfig.from_dict(mutated(whole, rng))
            else:
                config = AnalysisConfig.from_yaml(garbled(text, rng))
            config.check_supported()
            config.copy()
            again = AnalysisConfig.from_yaml(config.to_yaml())
            assert again.to_yaml() == config.to_yaml()
            reduction = reduction_from_config(config)
            assert np.isfinite(reduction.geom.pixel_scales).all()
        except ImgfitError as error:
            bad += refused(error)
    assert 300 < bad < 900


def test_models(reference):
    """Read, written and read again."""
    rng = random.Random(12)
    text = (reference / "formats/A_models_input.yaml").read_text()
    whole = yaml.safe_load(text)
    bad = 0
    for number in range(900):
        try:
            spoiled = garbled(text, rng) if number % 3 == 0 else yaml.safe_dump(mutated(whole, rng))
            models = Models.from_yaml(spoiled)
            Models.from_yaml(models.to_yaml())
        except ImgfitError as error:
            bad += refused(error)
    assert 300 < bad < 900


# FITS


def damaged(raw: bytes, rng: np.random.Generator, number: int) -> bytes:
    """Bytes cut off, or flipped in the headers or anywhere."""
    content = bytearray(raw)
    if number % 4 == 0:
        return bytes(content[: rng.integers(0, len(content))])
    headers = [
        at for at in range(0, len(raw), 2880) if raw[at : at + 8] in (b"SIMPLE  ", b"XTENSION")
    ]
    for _ in range(rng.integers(1, 8)):
        if number % 4 == 1:
            at = int(rng.choice(headers)) + int(rng.integers(0, 2880))
        else:
            at = int(rng.integers(0, len(content)))
        if at < len(content):
            content[at] = rng.integers(256)
    return bytes(content)


def rewritten(raw: bytes, rng: np.random.Generator) -> bytes:
    """A table without a column, or with numbers that are none, huge or negative."""
    import io

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(io.BytesIO(raw)) as hdus:
            tables = [i for i, hdu in enumerate(hdus) if isinstance(hdu, fits.BinTableHDU)]
            images = [i for i, hdu in enumerate(hdus) if hdu.is_image and hdu.data is not None]
            at = int(rng.choice(tables + images))
            hdu = hdus[at]
            value = rng.choice([np.nan, np.inf, -1.0, 1e30, 0.0])
            if at in images:
                data = np.array(hdu.data, dtype=float)
                data.flat[rng.integers(0, data.size, max(1, data.size // 10))] = value
                hdus[at].data = data
            else:
                name = str(rng.choice(hdu.columns.names))
                if rng.random() < 0.4:
                    columns = [column for column in hdu.columns if column.name != name]
                    hdus[at] = fits.BinTableHDU.from_columns(columns, name=hdu.name, header=None)
                elif np.issubdtype(hdu.data[name].dtype, np.floating) and hdu.data[name].size:
                    data = hdu.data[name]
                    data.flat[rng.integers(0, data.size, max(1, data.size // 10))] = value
            out = io.BytesIO()
            hdus.writeto(out, output_verify="ignore")
    return out.getvalue()


def unpacked(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def packed(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)


def finite(dataset: MapDataset) -> None:
    for image in (dataset.counts, dataset.background, dataset.exposure):
        if image is not None:
            assert np.isfinite(image.data).all()
    if dataset.psf is not None:
        assert np.isfinite(dataset.psf.weights).all()
    if dataset.edisp is not None:
        assert np.isfinite(dataset.edisp.data).all()


@pytest.mark.parametrize("name", ["events", "irf", "hdu-index", "obs-index"])
def test_files_of_a_store(name, store, tmp_path):
    """Reduced from the store again after each damage; the other files stay whole."""
    import shutil

    here = tmp_path / "store"
    shutil.copytree(store, here)
    files = [
        path for path in here.rglob("*.fits*") if name in path.name or name in path.parent.name
    ]
    if name == "events":
        files = [path for path in here.rglob("*.fits*") if "001" in path.name]
    path = files[0]
    raw, rng = unpacked(path), np.random.default_rng(13)
    config = config_of(here)
    reduction, bad = reduction_from_config(config), 0
    total = 120
    for number in range(total):
        packed(path, rewritten(raw, rng) if number % 4 == 3 else damaged(raw, rng, number))
        try:
            observations = DataStore.from_dir(here).get_observations([1])
            finite(reduce_observations(observations, reduction)[0])
        except ImgfitError as error:
            bad += refused(error)
    assert 10 < bad < total


def test_dataset_files(store, tmp_path):
    config = config_of(store)
    observations = DataStore.from_dir(store).get_observations([1])
    dataset = reduce_observations(observations, reduction_from_config(config))[0]
    path = tmp_path / "dataset.fits"
    dataset.write(path)
    raw, rng, bad = path.read_bytes(), np.random.default_rng(14), 0
    for number in range(160):
        path.write_bytes(rewritten(raw, rng) if number % 4 == 3 else damaged(raw, rng, number))
        try:
            found = MapDataset.read(path)
            finite(found)
            assert np.isfinite(found.stat_sum())
        except ImgfitError as error:
            bad += refused(error)
    assert 40 < bad < 160


def test_exclusions_and_geometries(tmp_path):
    geom = WcsGeom.create((30, 0), 6.0, 0.2, "CAR", "galactic")
    own = WcsGeom.create((30, 0), 3.0, 0.1, "TAN", "galactic")
    path = tmp_path / "mask.fits"
    fits.PrimaryHDU(np.ones(own.shape, np.int16), own.wcs.to_header()).writeto(path)
    raw, rng, bad = path.read_bytes(), np.random.default_rng(15), 0
    for number in range(300):
        path.write_bytes(damaged(raw, rng, number))
        try:
            assert Exclusion(path).keep(geom).shape == geom.shape
            found = read_geom(path)
            assert np.isfinite(found.pixel_scales).all()
            assert found.to_binsz(max(found.binsz) * 3.0).shape[0] >= 1
        except ImgfitError as error:
            bad += refused(error)
    assert 50 < bad < 300
    region = tmp_path / "region.reg"
    text = (
        "# Region file format: DS9\nglobal color=green\ngalactic\ncircle(30.1,0.2,0.5)\n"
        "-ellipse(29.5,0,0.5,0.3,20)\nicrs;box(281,-2.6,1,1,30)\npolygon(30,0,31,0,31,1)\n"
    )
    texts, bad = random.Random(16), 0
    for _ in range(300):
        region.write_text(garbled(text, texts))
        try:
            assert Exclusion(region).keep(geom).dtype == bool
        except ImgfitError as error:
            bad += refused(error)
    assert bad < 300
