"""The reduction of a session: what it is asked for, what comes of it, which run it failed at.

`Request` is all that decides what comes out; `Request.run` does it, on any thread. `read_models`
and `read_datasets` read what a configuration names instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import session_files as files
from .core.analysis import Analysis
from .core.config import AnalysisConfig
from .core.data import DataStore
from .core.dataset import Datasets, MapDataset
from .core.errors import ConfigError, ImgfitError
from .core.files import read_datasets as read_dataset_files
from .core.fits_maps import read_geom
from .core.makers.exclusion import Exclusion
from .core.makers.from_config import PROJECTIONS
from .core.models import Models
from .core.paths import expand_path
from .core.progress import Progress
from .core.selection import select_ids

REMEDY_MARK = "To go on, "
REMEDY = "choose “Go on without runs that fail”, or reduce without run {run}"


@dataclass(frozen=True, eq=False)
class Reduced:
    """Datasets, and what is known of how they were made.

    Parameters
    ----------
    datasets : Datasets
    failed : dict of int to str
        Runs that were left out, with their reasons.
    exclusion : Exclusion or None
        What was kept out of the estimate of the background.
    """

    datasets: Datasets
    failed: dict[int, str] = field(default_factory=dict)
    exclusion: Exclusion | None = None


@dataclass(frozen=True, eq=False)
class Request:
    """What a reduction is asked for.

    Parameters
    ----------
    config : AnalysisConfig
        Not to be changed any more.
    geometry : str
        A projection, or the path of a FITS image whose pixels are taken.
    skip_failed : bool
        Go on without the runs that cannot be used.
    roots : tuple of str
        Folders that may be read; none given allows all.
    """

    config: AnalysisConfig
    geometry: str = "CAR"
    skip_failed: bool = False
    roots: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse what cannot be reduced, or not be read, before anything runs."""
        self.config.check_supported()
        files.check_allowed(self.config, self.roots)
        check_geometry(self.geometry, self.roots)

    def run(self, progress: Progress) -> Reduced:
        """Reduce; ImgfitError naming the run, the file or the key that is wrong."""
        analysis = Analysis(
            self.config,
            set_logging=False,
            geometry=_expanded(self.geometry),
            skip_failed=self.skip_failed,
        )
        progress(0.0, "Looking for the runs")
        with _remedy(self.config):
            analysis.get_observations()
        observations = analysis.observations or ()
        files.check_observations(observations, self.roots)
        number = len(observations)

        def report(fraction: float, message: str) -> None:
            place = min(int(fraction * number) + 1, number)
            progress(fraction, f"{message} ({place} of {number})" if number > 1 else message)

        with _remedy(self.config):
            analysis.get_datasets(report)
        background = self.config.datasets.background
        exclusion = None
        if background.method is not None and background.exclusion is not None:
            exclusion = Exclusion(background.exclusion, background.path_of("exclusion"))
        return Reduced(analysis.datasets or Datasets(), dict(analysis.failed), exclusion)


@contextmanager
def _remedy(config: AnalysisConfig) -> Iterator[None]:
    """Say with the failure of a run how to go on with the others, if there are others."""
    try:
        yield
    except ImgfitError as error:
        run = run_of(str(error))
        try:
            others = [] if run is None else runs_without(config, run)
        except ImgfitError:
            others = []
        if not others:
            raise
        remedy = REMEDY.format(run=run)
        raise type(error)(f"{error}. {REMEDY_MARK}{remedy}") from error


def check_geometry(text: str, roots: Sequence[str] = ()) -> str:
    """The geometry as it is kept: a projection in capitals, or a path as it was written.

    Raises
    ------
    ConfigError, DataError
        Neither a projection nor a FITS image that may be read.
    """
    word = text.strip()
    if word.upper() in PROJECTIONS:
        return word.upper()
    if not word:
        raise ConfigError(
            f"geometry: empty; expected {' or '.join(PROJECTIONS)}, or the path of a FITS image"
        )
    files.check_path("geometry", word, roots)
    read_geom(expand_path(word, "geometry"))
    return word


def run_of(message: str) -> int | None:
    """The run that an error of a reduction is about; None if it is about no single one."""
    found = re.match(r"(?:observations\.\w+: )?observation (\d+)\b", message)
    return int(found.group(1)) if found else None


def runs_without(config: AnalysisConfig, run: int) -> list[int]:
    """The runs that a configuration selects, but for one.

    Raises
    ------
    ConfigError
        No run is left.
    """
    store = DataStore.from_dir(config.observations.datastore_path)
    rest = [number for number in select_ids(store, config.observations) if number != run]
    if not rest:
        raise ConfigError(f"observations.obs_ids: without run {run} no run is left")
    return rest


def excluded(exclusion: Exclusion | None, dataset: MapDataset | None) -> NDArray[np.bool_] | None:
    """Pixels of a dataset that are kept out of its background, shape (ny, nx); None if none are."""
    if exclusion is None or dataset is None:
        return None
    mask = ~exclusion.keep(dataset.geom.to_image())
    return mask if mask.any() else None


def read_models(config: AnalysisConfig, roots: Sequence[str] = ()) -> Models:
    """The models of ``general.models_file``; ConfigError, DataError or ModelError if unusable."""
    return Models.read(_named(config, "general.models_file", roots))


def read_datasets(config: AnalysisConfig, roots: Sequence[str] = ()) -> Datasets:
    """The datasets of ``general.datasets_file``; ConfigError or DataError if unusable."""
    return read_dataset_files(_named(config, "general.datasets_file", roots))


def has_datasets(config: AnalysisConfig, roots: Sequence[str] = ()) -> bool:
    """Whether the configuration names datasets that are there."""
    try:
        return _named(config, "general.datasets_file", roots).is_file()
    except ConfigError:
        return False


def _named(config: AnalysisConfig, key: str, roots: Sequence[str]) -> Path:
    """The file that a key names."""
    value = config.get(key)
    if value is None:
        raise ConfigError(f"{key}: not set; expected the path of a file")
    files.check_path(key, value, roots)
    path = expand_path(value, key)
    if not path.is_file():
        raise ConfigError(f"{key}: {str(value)!r}: no such file")
    return path


def _expanded(geometry: str) -> str | Path:
    return geometry if geometry in PROJECTIONS else expand_path(geometry, "geometry")
