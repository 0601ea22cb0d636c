"""Datasets and fit results as files in a folder.

`read_datasets`
    A dataset file, or all that a ``datasets.yaml`` lists: dataset files, or images.
`write_datasets`, `write_fit`
    What the command line and `Analysis.write` leave behind.

An entry of a ``datasets.yaml`` is a file in Gammapy's layout (``type: MapDataset``, its
``filename``), or images::

    datasets:
    -   name: crab
        type: ImageDataset
        counts: counts.fits          # FILE or FILE[HDU]; all paths are relative to this file
        background: background.fits  # or a number of counts per pixel, or flat
        exposure: exposure.fits      # or a value: 3e10 cm2 s
        psf: 0.05 deg                # sigma; or {fwhm: 0.12 deg}, or an image or table
        energy: [1 TeV, 10 TeV]
        mask: mask.fits              # 0 leaves a pixel out
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from .dataset import Datasets, MapDataset
from .errors import ConfigError, DataError
from .fit_result import FitResult
from .fits_maps import naming
from .image_psf import width_of
from .images import check_keys, is_quantity
from .models import Models
from .paths import expand_path
from .yaml_text import YamlProblem, load_yaml

IMAGE_KEYS = (
    "name", "type", "counts", "background", "exposure", "psf", "energy", "mask", "exposure_unit",
)  # fmt: skip
MODELS_FILE = "models.yaml"  # of a fit, in its folder
FILE_TYPES = ("MapDataset", "MapDatasetOnOff")
# What each key may be besides a path.
_VALUES: dict[str, tuple[type, ...]] = {
    "counts": (str,),
    "background": (str, int, float),
    "exposure": (str, int, float),
    "psf": (str, int, float, Mapping),
    "mask": (str,),
}


def write_datasets(
    datasets: Datasets, folder: Path, overwrite: bool = True, index: str = "datasets.yaml"
) -> Iterable[Path]:
    """Write ``dataset-NAME.fits.gz`` for each dataset, and the YAML file that lists them."""
    entries = []
    for dataset in datasets:
        path = folder / f"dataset-{dataset.name.replace('/', '_')}.fits.gz"
        dataset.write(path, overwrite=overwrite)
        entries.append({"name": dataset.name, "type": "MapDataset", "filename": path.name})
        yield path
    listing = folder / index
    if listing.exists() and not overwrite:
        raise DataError(f"{listing}: exists already; choose another name or allow overwriting")
    text = yaml.safe_dump({"datasets": entries}, sort_keys=False, allow_unicode=True)
    listing.write_text(text, encoding="utf-8")
    yield listing


def write_fit(
    models: Models, result: FitResult | None, folder: Path, overwrite: bool = True
) -> list[Path]:
    """Write ``models.yaml`` with covariance, ``parameters.ecsv`` and, if any, ``result.json``."""
    files = [folder / MODELS_FILE, folder / "parameters.ecsv"]
    models.write(files[0], overwrite=overwrite)
    models.to_parameters_table().write(files[1], format="ascii.ecsv", overwrite=overwrite)
    summary = folder / "result.json"
    if result is not None:
        files.append(summary)
        summary.write_text(json.dumps({"fit": result.to_dict()}, indent=2) + "\n")
    elif overwrite:
        summary.unlink(missing_ok=True)  # it would be of other models
    return files


def read_datasets(path: str | os.PathLike[str]) -> Datasets:
    """Datasets of a FITS file, or all that a ``datasets.yaml`` lists.

    Raises
    ------
    DataError
        If a file is missing or not a dataset; naming file, entry and key.
    """
    source = Path(path)
    if source.suffix.lower() not in (".yaml", ".yml"):
        return Datasets([MapDataset.read(source)])
    if not source.is_file():
        raise DataError(f"{source}: no such file")
    try:
        content = load_yaml(source.read_text(encoding="utf-8"))
    except (YamlProblem, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{source}: is not YAML ({error})") from error
    entries = content.get("datasets") if isinstance(content, Mapping) else None
    if not isinstance(entries, list) or not all(isinstance(e, Mapping) for e in entries):
        raise DataError(
            f"{source}: not a list of datasets; expected datasets: and under it entries with name, "
            "type and filename (or counts)"
        )
    if not entries:
        raise DataError(f"{source}: lists no dataset")
    with naming(str(source)):
        return Datasets(
            _read_entry(dict(entry), source, f"{source}: datasets[{number}]")
            for number, entry in enumerate(entries)
        )


def _read_entry(entry: dict[str, Any], source: Path, where: str) -> MapDataset:
    kind = str(entry.get("type", "ImageDataset" if "counts" in entry else "MapDataset"))
    if kind == "ImageDataset":
        return _read_images(entry, source, where)
    if kind not in FILE_TYPES:
        raise DataError(
            f"{where}: datasets of type {kind!r} are not supported; supported: "
            f"{', '.join((*FILE_TYPES, 'ImageDataset'))}"
        )
    if "filename" not in entry:
        raise DataError(f"{where}: has no filename; expected that of a dataset's FITS file")
    name = entry.get("name")
    return MapDataset.read(
        _beside(entry["filename"], source, f"{where}.filename"), None if name is None else str(name)
    )


def _read_images(entry: dict[str, Any], source: Path, where: str) -> MapDataset:
    check_keys(entry, IMAGE_KEYS, where)
    if entry.get("counts") is None:
        raise DataError(f"{where}: has no counts; expected the path of an image of counts")
    values = {key: value for key, value in entry.items() if key != "type" and value is not None}
    for key in _VALUES:
        value = values.get(key)
        if isinstance(value, str) and not _is_value(key, value):
            values[key] = _beside(value, source, f"{where}.{key}")
        elif value is not None and (isinstance(value, bool) or not isinstance(value, _VALUES[key])):
            raise DataError(f"{where}.{key}: {value!r} cannot be used; expected a path")
    if "name" in values:
        values["name"] = str(values["name"])
    try:
        return MapDataset.from_images(**values)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def _is_value(key: str, text: str) -> bool:
    """Whether a text says a value (a width, a level, an exposure) instead of a path."""
    if key == "background" and text.strip().lower() == "flat":
        return True
    if key in ("background", "exposure") and is_quantity(text):
        return True
    return key == "psf" and width_of(text) is not None


def _beside(value: Any, source: Path, where: str) -> str:
    """A path of an entry, relative to the file that lists it."""
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: {value!r} is not a path")
    try:
        path = expand_path(value.strip(), where)
    except ConfigError as error:
        raise DataError(str(error)) from error
    return str(source.parent / path)
