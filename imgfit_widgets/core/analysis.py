"""The whole analysis, from a configuration to a fitted model, as verbs that read top to bottom.

::

    analysis = Analysis(config)
    analysis.get_observations()
    analysis.get_datasets()
    analysis.set_models(models_yaml)
    analysis.run_fit()
    print(analysis.fit_result)
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, cast

from .config import AnalysisConfig
from .data import DataStore, Observations
from .dataset import Datasets
from .errors import ConfigError, DataError, ModelError
from .estimators.excess_map import ExcessMapEstimator
from .estimators.flux_maps import FluxMaps
from .files import read_datasets, write_datasets, write_fit
from .fit import Fit, FitResult
from .makers import reduce_observations, reduction_from_config
from .maps import MapAxis, WcsGeom
from .models import FoVBackgroundModel, Models, SkyModel
from .parallel import open_executor
from .paths import expand_path
from .progress import Progress, part, silent
from .selection import select_ids, time_ranges

log = logging.getLogger(__name__)


class Analysis:
    """An analysis of images, driven by a configuration.

    Parameters
    ----------
    config : `AnalysisConfig` or dict
    accuracy : {"exact", "gammapy"}
        Whether the reduction integrates finely or reproduces Gammapy's approximations.
    executor : `~concurrent.futures.Executor`, optional
        Where runs are reduced; by default ``general.n_jobs`` processes, or just here.
    set_logging : bool
        Whether Python's logging is configured as ``general.log`` says.
    geometry : `WcsGeom`, path or str, optional
        The pixels of the maps instead of those that the configuration asks for: a geometry, a FITS
        image whose pixels are taken, or a projection (``CAR``, the default, or ``TAN``) for the
        pixels of the configuration.
    skip_failed : bool
        Go on without the runs that cannot be used; `failed` names them.

    Attributes
    ----------
    observations : `Observations` or None
    failed : dict of int to str
        Why runs were left out.
    datasets : `Datasets` or None
    fit_result : `FitResult` or None
    excess_map : `FluxMaps` or None
    timing : dict
        Seconds that the reduction (``reduce_s``) and the fit (``fit_s``) took.
    """

    def __init__(
        self,
        config: AnalysisConfig | Mapping[str, Any],
        accuracy: str = "exact",
        executor: Executor | None = None,
        set_logging: bool = True,
        geometry: WcsGeom | str | os.PathLike[str] | None = None,
        skip_failed: bool = False,
    ) -> None:
        self.config = (
            config if isinstance(config, AnalysisConfig) else AnalysisConfig.from_dict(config)
        )
        if set_logging:
            self.config.set_logging()
        self.accuracy = accuracy
        self.executor = executor
        self.geometry = geometry
        self.skip_failed = skip_failed
        self.failed: dict[int, str] = {}
        self.datastore: DataStore | None = None
        self.observations: Observations | None = None
        self.datasets: Datasets | None = None
        self.fit = Fit()
        self.fit_result: FitResult | None = None
        self.excess_map: FluxMaps | None = None
        self.timing: dict[str, float] = {}

    @property
    def models(self) -> Models:
        """The models on the datasets."""
        return self._needs_datasets("models").models

    @models.setter
    def models(self, models: Models | str | Iterable[Any]) -> None:
        self.set_models(models, extend=False)

    def get_observations(self) -> None:
        """Find the selected runs in the data store.

        Raises
        ------
        ConfigError, DataError
            For a value that is not supported, a store or run that is not there.
        """
        self.config.check_supported()
        settings = self.config.observations
        log.info("Fetching observations.")
        self.datastore = DataStore.from_dir(settings.datastore_path)
        self.failed = {}
        self.observations = self.datastore.get_observations(
            select_ids(self.datastore, settings),
            settings.required_irf,
            self.failed if self.skip_failed else None,
            time_ranges(settings),
        )
        log.info("Number of selected observations: %d", len(self.observations))

    def get_datasets(self, progress: Progress = silent) -> None:
        """Reduce the runs to map datasets.

        Raises
        ------
        DataError
            If no observations are selected or they do not cover the map.
        """
        if not self.observations:
            raise DataError("observations: none selected; call get_observations() first")
        start = time.perf_counter()
        log.info("Creating geometry.")
        reduction = reduction_from_config(self.config, self.accuracy, self.geometry)
        log.info("Creating datasets.")
        n_jobs = min(self.config.general.n_jobs, len(self.observations))
        with open_executor(1 if self.executor is not None else n_jobs) as processes:
            datasets = reduce_observations(
                self.observations,
                reduction,
                stack=self.config.datasets.stack,
                progress=progress,
                executor=self.executor or processes,
                failed=self.failed if self.skip_failed else None,
                unused=self.failed,
            )
        self.datasets = self._in_fit_range(datasets)
        self.fit_result = None
        self.timing["reduce_s"] = time.perf_counter() - start

    def _in_fit_range(self, datasets: Datasets) -> Datasets:
        """Datasets with only the bins of ``fit.fit_range`` to fit."""
        limits = self.config.fit.fit_range
        low, high = (None if e is None else e.to_value("TeV") for e in (limits.min, limits.max))
        tolerance = 1e-9 if self.accuracy == "exact" else 0.0
        ranged = [dataset.with_fit_range(low, high, tolerance) for dataset in datasets]
        # Who holds the datasets goes on with them, as long as they are the same.
        same = all(new is old for new, old in zip(ranged, datasets, strict=True))
        return datasets if same else Datasets(ranged)

    def set_models(
        self, models: Models | str | os.PathLike[str] | Iterable[Any], extend: bool = True
    ) -> None:
        """Put models on the datasets; each dataset without a background model gets one.

        Parameters
        ----------
        models : `Models`, list of models, YAML text or path of a YAML file
        extend : bool
            Keep the models that the datasets have already, unless one of the same name comes.
        """
        datasets = self._needs_datasets("models")
        log.info("Reading model.")
        new = as_models(models)
        if extend:
            new.extend(model for model in datasets.models if model.name not in new.names)
        datasets.models = with_background(new, datasets)
        self.fit_result = None
        log.info("%s", new)

    def run_fit(self, progress: Progress = silent) -> FitResult:
        """Fit the models to the datasets; values, errors and covariance are set on the models."""
        datasets = self._needs_datasets("run_fit()")
        models = datasets.models
        if not any(isinstance(model, SkyModel) for model in models) and not len(models):
            raise ModelError("models: none set; call set_models() first")
        self.datasets = datasets = self._in_fit_range(datasets)
        log.info("Fitting datasets.")
        self.fit_result = None
        start = time.perf_counter()
        self.fit_result = self.fit.run(datasets, models, progress=progress)
        self.timing["fit_s"] = time.perf_counter() - start
        log.info("%s", self.fit_result)
        return self.fit_result

    def get_excess_map(self, progress: Progress = silent) -> FluxMaps:
        """Excess and significance maps as the section ``excess_map`` asks for.

        What the models predict counts as background, so leave out what is to be seen.

        Returns
        -------
        FluxMaps
            Also kept as `excess_map`.

        Raises
        ------
        DataError, ConfigError
            If there are several datasets, or an option of ``excess_map.parameters`` is unknown.
        """
        datasets = self._needs_datasets("get_excess_map()")
        if len(datasets) != 1:
            raise DataError(
                f"get_excess_map(): there are {len(datasets)} datasets; expected one "
                "(datasets.stack: true)"
            )
        log.info("Computing excess maps.")
        settings = self.config.excess_map
        edges = None
        missing = [field for field in settings.energy_edges.fields() if field.value is None]
        if missing and len(missing) < len(settings.energy_edges.fields()):
            raise ConfigError(f"{missing[0].path}: not set; expected {missing[0].expected}")
        if not missing:
            axis = MapAxis.from_energy_bounds(*(f.value for f in settings.energy_edges.fields()))
            edges = axis.edges
        try:
            estimator = ExcessMapEstimator(
                settings.correlation_radius, energy_edges=edges, **settings.parameters
            )
        except TypeError as error:
            raise ConfigError(f"{settings.path_of('parameters')}: {error}") from error
        self.excess_map = estimator.run(datasets[0], progress=progress)
        return self.excess_map

    def read_models(self, path: str | Path, extend: bool = True) -> None:
        """Put the models of a YAML file on the datasets."""
        self.set_models(Models.read(path), extend=extend)

    def write_models(self, overwrite: bool = True) -> Path:
        """Write the models, with their covariance, to ``general.models_file``."""
        path = self._file("models_file")
        self.models.write(path, overwrite=overwrite)
        return path

    def read_datasets(self) -> None:
        """Read ``general.datasets_file``, and the models of ``general.models_file`` if it is set.

        Raises
        ------
        ConfigError, DataError
            If the key is not set or the file cannot be used.
        """
        self.datasets = self._in_fit_range(read_datasets(self._file("datasets_file")))
        self.fit_result = None
        if self.config.general.models_file is not None:
            self.read_models(self._file("models_file"), extend=False)

    def write_datasets(self, overwrite: bool = True) -> list[Path]:
        """Write the datasets beside ``general.datasets_file``, which lists them."""
        path = self._file("datasets_file")
        datasets = self._needs_datasets("write_datasets()")
        written = list(write_datasets(datasets, path.parent, overwrite, path.name))
        if self.config.general.models_file is not None and len(self.models):
            written.append(self.write_models(overwrite))
        return written

    def _file(self, key: str) -> Path:
        """The file that a key of ``general`` names."""
        general = self.config.general
        value = getattr(general, key)
        if value is None:
            raise ConfigError(f"{general.path_of(key)}: not set; expected the path of a YAML file")
        return expand_path(value, general.path_of(key))

    def run(self, models: Any, progress: Progress = silent) -> FitResult:
        """All of it: observations, datasets, models, fit."""
        self.get_observations()
        self.get_datasets(part(progress, 0.0, 0.8))
        self.set_models(models)
        return self.run_fit(part(progress, 0.8, 1.0))

    def write(self, outdir: str | os.PathLike[str], overwrite: bool = True) -> list[Path]:
        """Write what there is: datasets, models with covariance, parameters and fit result.

        Returns
        -------
        list of Path
            The files written.
        """
        folder = Path(outdir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{folder}: cannot be made ({error.strerror})") from error
        written = list(write_datasets(self._needs_datasets("write()"), folder, overwrite))
        if len(self.models):
            written += write_fit(self.models, self.fit_result, folder, overwrite)
        return written

    def _needs_datasets(self, what: str) -> Datasets:
        if self.datasets is None:
            raise DataError(f"{what}: there are no datasets yet; call get_datasets() first")
        return self.datasets


def as_models(models: Models | str | os.PathLike[str] | Iterable[Any]) -> Models:
    """Models from YAML text, a file or a list; a list's models are taken as they are."""
    if isinstance(models, Models):
        return models
    if isinstance(models, os.PathLike):
        return Models.read(Path(models))
    if isinstance(models, str):
        one_line = "\n" not in models.strip() and ":" not in models.strip()
        return Models.read(models) if one_line else Models.from_yaml(models)
    return Models(cast("Iterable[Any]", models))


def with_background(models: Models, datasets: Datasets) -> Models:
    """The models, with a background model (norm 1) for each dataset that has none."""
    for dataset in datasets:
        if dataset.background is not None and models.background_model(dataset.name) is None:
            models.append(FoVBackgroundModel(dataset_name=dataset.name))
    return models
