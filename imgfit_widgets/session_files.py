"""What goes out of a session and comes back in: downloads, the session file, allowed folders.

A session file is a zip with ``config.yaml`` and ``models.yaml``, which Gammapy reads, and
``session.json`` for what Gammapy does not know: errors' covariance, the view, what is selected, the
projection of the maps, whether runs that fail are skipped and where a fit looks first.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from .core.config import AnalysisConfig
from .core.data import Observation
from .core.dataset import MapDataset
from .core.errors import ConfigError, DataError, ImgfitError
from .core.fit import FitResult
from .core.models import Models
from .core.paths import expand_path

FORMAT = 1
PARTS = ("config.yaml", "models.yaml", "session.json")
MAX_BYTES = 50_000_000  # unpacked; a session file is text, so anything larger is not one


@dataclass(frozen=True)
class Saved:
    """The content of a session file."""

    config: AnalysisConfig
    models: Models
    view: dict[str, Any]
    selected: str
    geometry: str = "CAR"
    skip_failed: bool = False
    search_radius: float = 0.0


def export_session(saved: Saved) -> tuple[str, bytes]:
    """File name and bytes of a session file; ``view`` holds what JSON can hold."""
    config, models = saved.config, saved.models
    content = {
        "format": FORMAT,
        "covariance": models.covariance.tolist(),
        "view": saved.view,
        "selected": saved.selected,
        "geometry": saved.geometry,
        "skip_failed": saved.skip_failed,
        "search_radius": saved.search_radius,
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        texts = {
            "config.yaml": config.to_yaml(),
            "models.yaml": models.to_yaml(),
            "session.json": json.dumps(content),
        }
        for name, text in texts.items():
            # Without the time of writing, so that equal sessions are equal files.
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, text)
    return "session.imgfit", buffer.getvalue()


def read_session(
    source: str | os.PathLike[str] | bytes, roots: Sequence[str | os.PathLike[str]] = ()
) -> Saved:
    """Read and check a session file, from a path or its content.

    Images that its models name are read only below ``roots``; none given allows all.

    Raises
    ------
    DataError
        This is not a session file, or of a later format, or its covariance or view is wrong.
    ConfigError, ModelError
        Its configuration or models are wrong.
    """
    content = source if isinstance(source, bytes) else read_bytes(source)
    where = "" if isinstance(source, bytes) else f"{source}: "
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(item.file_size for item in archive.infolist()) > MAX_BYTES:
                raise DataError(f"{where}too large for a session file")
            config, models, text = (archive.read(part).decode() for part in PARTS)
        state = json.loads(text)
        version, covariance = int(state["format"]), state["covariance"]
        view, selected = state.get("view", {}), str(state.get("selected", ""))
        geometry, skip = state.get("geometry", "CAR"), state.get("skip_failed", False)
        radius = state.get("search_radius", 0.0)
    except ImgfitError:
        raise
    except Exception:  # a damaged or encrypted archive raises anything, from zlib's to struct's
        raise DataError(f"{where}not a session file; expected one saved here") from None
    if version > FORMAT:
        raise DataError(f"{where}saved by a later version (format {version}, expected {FORMAT})")
    check_models(models, roots)
    found = Models.from_yaml(models)
    if covariance:
        found.covariance = _matrix(covariance, len(found.parameters), where)
    if not _is_view(view):
        raise DataError(f"{where}view {view!r:.80} cannot be used; expected one saved here")
    if not isinstance(geometry, str) or not geometry.strip():
        raise DataError(f"{where}geometry {geometry!r:.80} is not CAR, TAN or a path")
    if not isinstance(skip, bool):
        raise DataError(f"{where}skip_failed {skip!r:.80} is not true or false")
    if type(radius) not in (int, float) or not 0.0 <= radius <= 180.0:
        raise DataError(f"{where}search_radius {radius!r:.80} is not from 0 to 180 deg")
    asked = geometry, skip, float(radius)
    return Saved(AnalysisConfig.from_yaml(config), found, view, selected, *asked)


def _matrix(rows: Any, size: int, where: str) -> np.ndarray:
    """A covariance of ``size`` parameters."""
    try:
        matrix = np.array(rows, dtype=float)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape != (size, size) or np.isinf(matrix).any():
        raise DataError(f"{where}covariance is not a table of {size} × {size} finite numbers")
    return matrix


def _is_view(view: Any) -> bool:
    """Whether panels can take a view over: of each map its kind, radius and looks."""

    def is_number(value: Any) -> bool:
        return isinstance(value, (int, float)) and math.isfinite(value)

    def is_look(look: Any) -> bool:
        limits = look.get("by_hand", [0.0, 1.0])
        texts = [look.get(key) for key in ("colours", "stretch", "cut")]
        return (
            all(isinstance(text, str | None) for text in texts)
            and isinstance(limits, list)
            and len(limits) == 2
            and all(map(is_number, limits))
        )

    try:
        band = view.get("band")
        return (band is None or type(band) is int) and all(
            isinstance(state.get("kind"), str | None)
            and is_number(state.get("radius", 0.1))
            and all(is_look(look) for look in state.get("looks", {}).values())
            for state in view.get("maps", [])
        )
    except (AttributeError, TypeError, OverflowError):
        return False


def export_dataset(dataset: MapDataset) -> tuple[str, bytes]:
    """A dataset as gzipped FITS, in the layout of Gammapy's MapDataset."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"dataset-{dataset.name}.fits.gz"
        dataset.write(path)
        return path.name, path.read_bytes()


def export_results(result: FitResult | None, models: Models, form: str) -> tuple[str, bytes]:
    """The fit result as JSON, as on the command line, or the parameter table as ECSV.

    Raises
    ------
    ImgfitError
        There is no fit result yet.
    """
    if form == "ecsv":
        text = io.StringIO()
        models.to_parameters_table().write(text, format="ascii.ecsv")
        return "parameters.ecsv", text.getvalue().encode()
    if result is None:
        raise ImgfitError("There is no fit result yet; fit first")
    return "result.json", json.dumps({"fit": result.to_dict()}, indent=2).encode()


def check_allowed(config: AnalysisConfig, roots: Sequence[str | os.PathLike[str]]) -> None:
    """Refuse paths of a configuration that lie outside of ``roots``; none given allows all.

    Raises
    ------
    ConfigError
        Names the key and the path as it was written, not what it expands to.
    """
    if not roots:
        return
    for item in _read_paths(config):
        check_path(item.path, item.value, roots)


def check_path(
    key: str, value: str | os.PathLike[str], roots: Sequence[str | os.PathLike[str]]
) -> None:
    """Refuse one path that lies outside of ``roots``, as `check_allowed` does."""
    if not roots:
        return
    # The message of an error would tell what any other variable holds.
    other = set(re.findall(r"\$\{?([^/{}$]*)", str(value))) - {"GAMMAPY_DATA"}
    if other:
        raise ConfigError(
            f"{key}: {str(value)!r} uses the environment variable {min(other)!r}, which this "
            "server does not fill in; expected $GAMMAPY_DATA or none"
        )
    if not _is_below(expand_path(value, key), roots):
        raise ConfigError(
            f"{key}: {str(value)!r} is not in a folder that this server may read; expected a path "
            f"below {' or '.join(map(str, roots))}"
        )


def check_models(text: str, roots: Sequence[str | os.PathLike[str]]) -> None:
    """Refuse models whose images lie outside of ``roots``, before any of them is read."""
    if not roots:
        return
    try:
        components = yaml.safe_load(text)["components"]
        shapes = [item["spatial"] for item in components if "spatial" in item]
    except (yaml.YAMLError, KeyError, TypeError):
        return  # whoever reads the models says what is wrong with them
    for shape in shapes:
        if isinstance(shape, dict) and "filename" in shape:
            check_path("spatial.filename", str(shape["filename"]), roots)


def check_observations(
    observations: Iterable[Observation], roots: Sequence[str | os.PathLike[str]]
) -> None:
    """Refuse runs whose files, as the index names them or links lead, lie outside of ``roots``.

    Raises
    ------
    ConfigError
        Names the run and the file, not where it leads to.
    """
    if not roots:
        return
    for observation in observations:
        for kind, hdu in observation.hdus.items():
            if not _is_below(hdu.path, roots):
                raise ConfigError(
                    f"observations.datastore: the {kind} file of run {observation.obs_id}, "
                    f"{hdu.path.name}, is not in a folder that this server may read; expected one "
                    f"below {' or '.join(map(str, roots))}"
                )


def _is_below(path: Path, roots: Sequence[str | os.PathLike[str]]) -> bool:
    """Whether a path, with links followed, lies in one of the folders."""
    allowed = (Path(root).expanduser().resolve() for root in roots)
    return any(path.resolve().is_relative_to(root) for root in allowed)


def _read_paths(config: AnalysisConfig) -> Iterable[Any]:
    written = {"general.log.filename"}
    for item in config.fields():
        if isinstance(item.value, Path) and item.path not in written:
            yield item


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """A file's content; DataError with the reason if that fails."""
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file; ImgfitError with the reason if that fails."""
    try:
        Path(path).expanduser().write_bytes(content)
    except OSError as error:
        raise ImgfitError(f"{path}: cannot be written: {error.strerror}") from None
