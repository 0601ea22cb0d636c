"""Reduced data of an image: counts, background, exposure and responses, with the models put on it.

`MapDataset`
    One set of maps. Its arrays are read-only; only `models` and `mask_fit` are set by its user.
`Datasets`
    Several, by index or by name.

FITS files are in `dataset_io`, images of other programs in `images`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, overload

import astropy.units as u
import numpy as np
from astropy.table import Table
from numpy.typing import ArrayLike, NDArray

from .data import GTI, RunInfo
from .dataset_io import read_parts, write_parts
from .errors import DataError, ModelError
from .evaluator import Evaluator
from .images import image_parts
from .irf.edisp import EDispKernelMap
from .irf.psf import PSFMap
from .maps import MapAxis, WcsGeom, WcsNDMap
from .models import FoVBackgroundModel, Models

FloatArray = NDArray[np.float64]
Image = str | os.PathLike[str] | WcsNDMap | NDArray[Any]


class MapDataset:
    """Maps of one reduction, and the models that describe them.

    Parameters
    ----------
    name : str
    counts : `WcsNDMap`
        Events, axes (energy, y, x).
    background : `WcsNDMap` or None
        Expected counts that are no photons of a modelled source, like ``counts``.
    exposure : `WcsNDMap` or None
        m2 s, axes (energy_true, y, x).
    psf : `PSFMap` or None
    edisp : `EDispKernelMap` or None
    mask_safe, mask_fit : `WcsNDMap` of bool or None
        Bins with valid data, and bins to fit.
    gti : `GTI` or None
    runs : tuple of `RunInfo`
    notes : tuple of str
        What was assumed where something was missing; printed with the dataset.
    """

    tag = "MapDataset"
    stat_type = "cash"

    def __init__(
        self,
        name: str,
        counts: WcsNDMap,
        background: WcsNDMap | None = None,
        exposure: WcsNDMap | None = None,
        psf: PSFMap | None = None,
        edisp: EDispKernelMap | None = None,
        mask_safe: WcsNDMap | None = None,
        mask_fit: WcsNDMap | None = None,
        gti: GTI | None = None,
        runs: tuple[RunInfo, ...] = (),
        models: Models | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self._name = name
        self._counts = counts
        self._background = background
        self._exposure = exposure
        self._psf = psf
        self._edisp = edisp
        self._mask_safe = mask_safe
        self._mask_fit = self._given_mask_fit = mask_fit
        self._gti = gti
        self._runs = runs
        self._notes = tuple(notes)
        self.models = models

    @property
    def models(self) -> Models | None:
        """What describes the data; a list of models becomes a collection."""
        return self._models

    @models.setter
    def models(self, models: Models | Iterable[Any] | None) -> None:
        self._models = as_collection(models)

    @property
    def name(self) -> str:
        return self._name

    @property
    def counts(self) -> WcsNDMap:
        return self._counts

    @property
    def background(self) -> WcsNDMap | None:
        return self._background

    @property
    def exposure(self) -> WcsNDMap | None:
        return self._exposure

    @property
    def psf(self) -> PSFMap | None:
        return self._psf

    @property
    def edisp(self) -> EDispKernelMap | None:
        return self._edisp

    @property
    def mask_safe(self) -> WcsNDMap | None:
        return self._mask_safe

    @property
    def mask_fit(self) -> WcsNDMap | None:
        """Bins to fit; a map of bool, or an array (energy, y, x) or (y, x), replaces them."""
        return self._mask_fit

    @mask_fit.setter
    def mask_fit(self, mask: WcsNDMap | ArrayLike | None) -> None:
        if mask is not None:
            given = np.asarray(mask.data if isinstance(mask, WcsNDMap) else mask, dtype=bool)
            shape = self.geom.data_shape
            if given.ndim > 3 or given.shape[-2:] != shape[-2:] or given.shape[:-2] not in (
                (), (1,), shape[:1]
            ):  # fmt: skip
                raise DataError(
                    f"dataset {self.name}.mask_fit: has shape {given.shape}; expected {shape} or "
                    f"{shape[1:]}"
                )
            mask = WcsNDMap(self.geom, np.broadcast_to(given, shape).copy())
        self._mask_fit = self._given_mask_fit = mask
        self.__dict__.pop("mask", None)

    @property
    def gti(self) -> GTI | None:
        return self._gti

    @property
    def runs(self) -> tuple[RunInfo, ...]:
        return self._runs

    @property
    def notes(self) -> tuple[str, ...]:
        return self._notes

    @property
    def livetime(self) -> float:
        """Total live time in s."""
        return float(sum(run.livetime for run in self.runs))

    @property
    def geom(self) -> WcsGeom:
        return self.counts.geom

    @property
    def energy_axis(self) -> MapAxis:
        return self.geom.axes["energy"]

    @property
    def energy_axis_true(self) -> MapAxis:
        if self.exposure is None:
            raise DataError(f"dataset {self.name}: has no exposure")
        return self.exposure.geom.axes["energy_true"]

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """Bins that enter the statistic: shape (energy, y, x)."""
        mask = np.ones(self.geom.data_shape, dtype=bool)
        for part in (self.mask_safe, self.mask_fit):
            if part is not None:
                mask &= np.asarray(part.data, dtype=bool)
        mask.flags.writeable = False
        return mask

    def with_fit_range(
        self, energy_min: float | None, energy_max: float | None, tolerance: float = 1e-9
    ) -> MapDataset:
        """The dataset with only reconstructed bins wholly between two energies (TeV) to fit.

        Of the mask that it came with, unless that is a range of energies too. Itself, if these are
        what it fits. ``tolerance`` is relative; by default it makes up for rounding.
        """
        bounds = self.energy_axis.bounds
        low = -np.inf if energy_min is None else energy_min * (1 - tolerance)
        high = np.inf if energy_max is None else energy_max * (1 + tolerance)
        inside = (bounds[:-1] >= low) & (bounds[1:] <= high)
        if not inside.any():
            raise DataError(
                f"fit.fit_range: no energy bin of dataset {self.name} "
                f"({bounds[0]:g} to {bounds[-1]:g} TeV) lies wholly within it"
            )
        mask = np.broadcast_to(inside[:, None, None], self.geom.data_shape)
        if self._given_mask_fit is not None:
            given = np.asarray(self._given_mask_fit.data, dtype=bool)
            # A range of energies, as a dataset file brings it, gives way to another one.
            is_range = bool(np.all(given == given[:, :1, :1]))
            if not is_range or (energy_min is None and energy_max is None):
                mask = mask & given
        if self.mask_fit is not None and np.array_equal(self.mask_fit.data, mask):
            return self
        other = self._replace(mask_fit=WcsNDMap(self.geom, mask))
        other._given_mask_fit = self._given_mask_fit
        return other

    def with_models(self, models: Models | None) -> MapDataset:
        """The dataset with other models; the data are shared."""
        return self._replace(models=models)

    def _replace(self, **changes: Any) -> MapDataset:
        values = {
            key: getattr(self, key)
            for key in [
                "name",
                "counts",
                "background",
                "exposure",
                "psf",
                "edisp",
                "mask_safe",
                "mask_fit",
                "gti",
                "runs",
                "models",
                "notes",
            ]
        }
        other = MapDataset(**{**values, **changes})
        if "mask_fit" not in changes:
            other._given_mask_fit = self._given_mask_fit
        return other

    @property
    def background_model(self) -> FoVBackgroundModel | None:
        """The model that scales this dataset's background."""
        return None if self.models is None else self.models.background_model(self.name)

    def _own_models(self) -> Models:
        """Those of the models that apply to this dataset, of several that share them."""
        return Models([model for model in self.models or () if model.applies_to(self.name)])

    def _evaluator(self) -> Evaluator:
        return Evaluator([self], self._own_models())

    def npred_background(self) -> WcsNDMap:
        """Expected background counts, with the background model applied."""
        models = self.models
        background = Models([self.background_model] if self.background_model else [])
        if self.background is None:
            return WcsNDMap(self.geom, np.zeros(self.geom.data_shape))
        if models is None or not len(background):
            return self.background
        evaluator = Evaluator([self], background)
        return WcsNDMap(self.geom, evaluator.npred(evaluator.x0)[0])

    def npred(self) -> WcsNDMap:
        """Expected counts of all models and the background."""
        evaluator = self._evaluator()
        return WcsNDMap(self.geom, evaluator.npred(evaluator.x0)[0])

    def npred_signal(self) -> WcsNDMap:
        """Expected counts of the sources."""
        return WcsNDMap(self.geom, self.npred().data - self.npred_background().data)

    def stat_sum(self) -> float:
        """Fit statistic of the models as they are (cash over the mask), with their priors."""
        evaluator = self._evaluator()
        priors = evaluator.models.parameters.prior_stat_sum()
        return float(evaluator.stat(evaluator.x0)) + priors

    def residuals(self, method: str = "diff") -> WcsNDMap:
        """Counts minus predicted counts: ``diff``, ``diff/model`` or ``diff/sqrt(model)``."""
        scale: dict[str, Callable[[FloatArray], FloatArray]] = {
            "diff": np.ones_like,
            "diff/model": np.array,
            "diff/sqrt(model)": np.sqrt,
        }
        if method not in scale:
            raise DataError(f"residuals: method {method!r} is not one of {', '.join(scale)}")
        npred = self.npred().data
        with np.errstate(invalid="ignore", divide="ignore"):
            return WcsNDMap(self.geom, (self.counts.data - npred) / scale[method](npred))

    def info_dict(self) -> dict[str, Any]:
        """Name, sums within the mask of valid data, exposure and bins."""
        safe = (
            slice(None) if self.mask_safe is None else np.asarray(self.mask_safe.data, dtype=bool)
        )
        counts = float(self.counts.data[safe].sum())
        background = 0.0 if self.background is None else float(self.background.data[safe].sum())
        exposure = np.array([]) if self.exposure is None else self.exposure.data
        exposure = exposure[exposure > 0]
        return {
            "name": self.name,
            "counts": counts,
            "background": background,
            "excess": counts - background,
            "exposure_min": float(exposure.min()) if exposure.size else None,
            "exposure_max": float(exposure.max()) if exposure.size else None,
            "livetime": self.livetime,
            "n_bins": int(self.counts.data.size),
            "n_fit_bins": int(self.mask.sum()),
            "fov_norm": {
                str(run.obs_id): run.fov_norm for run in self.runs if run.fov_norm is not None
            },
        }

    def __str__(self) -> str:
        info = self.info_dict()
        applied = list(self._own_models())
        parameters = [parameter for model in applied for parameter in model.parameters]
        npred_background = float(self.npred_background().data[self.mask].sum())
        signal = stat = float("nan")
        npred = npred_background
        if applied:
            npred_map = self.npred().data
            npred = float(npred_map[self.mask].sum())
            if any(not isinstance(model, FoVBackgroundModel) for model in applied):
                signal = npred - npred_background
            evaluator = self._evaluator()
            stat = float(evaluator.stat(evaluator.x0))

        def exposure(value: float | None) -> str:
            return "none" if value is None else f"{value:.2e} m2 s"

        lines = [
            "MapDataset",
            "----------",
            "",
            f"  Name                            : {self.name} ",
            "",
            f"  Total counts                    : {info['counts']:.0f} ",
            f"  Total background counts         : {info['background']:.2f}",
            f"  Total excess counts             : {info['excess']:.2f}",
            "",
            f"  Predicted counts                : {npred:.2f}",
            f"  Predicted background counts     : {npred_background:.2f}",
            f"  Predicted excess counts         : {signal:.2f}",
            "",
            f"  Exposure min                    : {exposure(info['exposure_min'])}",
            f"  Exposure max                    : {exposure(info['exposure_max'])}",
            "",
            f"  Number of total bins            : {info['n_bins']} ",
            f"  Number of fit bins              : {info['n_fit_bins']} ",
            "",
            f"  Fit statistic type              : {self.stat_type}",
            f"  Fit statistic value (-2 log(L)) : {stat:.2f}",
            "",
            f"  Number of models                : {len(applied)} ",
            f"  Number of parameters            : {len(parameters)}",
            f"  Number of free parameters       : {sum(not p.frozen for p in parameters)}",
            "",
        ]
        lines += [f"  Note: {note}" for note in self.notes] + [""] * bool(self.notes)
        for index, model in enumerate(applied):
            lines += [f"  Component {index}: {type(model).__name__}", "  "]
            lines += [f"  {line}" for line in str(model).splitlines()[2:]]
        return "\n".join(lines)

    def write(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write a FITS file in Gammapy's MapDataset layout (gzip if it ends in .gz)."""
        write_parts(self, path, overwrite)

    @classmethod
    def read(cls, path: str | os.PathLike[str], name: str | None = None) -> MapDataset:
        """Read a FITS file that this program or Gammapy wrote."""
        parts = read_parts(path)
        if name is not None:
            parts["name"] = name
        return cls(**parts)

    @classmethod
    def from_images(
        cls,
        counts: Image,
        background: Image | float | None = None,
        exposure: Image | u.Quantity | float | None = None,
        psf: Image | u.Quantity | float | Mapping[str, Any] | Table | None = None,
        *,
        name: str | None = None,
        energy: Sequence[Any] | MapAxis | None = None,
        mask: Image | None = None,
        exposure_unit: str | None = None,
    ) -> MapDataset:
        """A dataset from images on the sky.

        Each is a path (``FILE`` or ``FILE[HDU]``), a `WcsNDMap`, or an array or number on the
        pixels of the counts. Maps on other pixels are brought to those of the counts: the
        background by its counts per sky area, the exposure by interpolation, the mask by the
        nearest pixel. Any celestial projection, galactic or equatorial (ICRS, FK5 J2000). What was
        assumed is in `notes`; see `images` for what stands for an image that is missing.

        Parameters
        ----------
        counts : path or `WcsNDMap`, shape (y, x) or (energy, y, x)
            Whole numbers of events; NaN where there are no data.
        background : path, `WcsNDMap`, array, float or "flat", optional
            Expected counts in each pixel.
        exposure : path, `WcsNDMap`, array, number or text like "3e10 cm2 s", optional
            An area times a time: one plane for all energies, one for each band, or planes at
            energies of their own (ENERGIES, BANDS), which are interpolated as power laws.
        psf : width, path, `WcsNDMap`, array or table, optional
            A Gaussian's sigma ("0.05 deg", an angle, or degrees) or ``{"fwhm": "0.12 deg"}``; an
            image of the kernel (an array has the pixels of the counts); or a table with columns
            rad and psf (FITS, ECSV, CSV). Described by circular Gaussians.
        name : str, optional
            By default that of the counts' file.
        energy : sequence of energies, optional
            Edges of the counts' bands (TeV if no unit), instead of what the file says.
        mask : path, `WcsNDMap` or array, optional
            Not 0 where data are valid.
        exposure_unit : str, optional
            Instead of what the file says (BUNIT).

        Raises
        ------
        DataError
            Naming the image and its file, HDU, keyword or pixel, the value and what was expected.
        """
        return cls(
            **image_parts(
                counts,
                background,
                exposure,
                psf,
                name=name,
                energy=energy,
                mask=mask,
                exposure_unit=exposure_unit,
            )
        )


def as_collection(models: Models | Iterable[Any] | None) -> Models | None:
    """Models as a collection, which they may be already."""
    return models if models is None or isinstance(models, Models) else Models(models)


class Datasets(Sequence[MapDataset]):
    """Datasets that are analysed together."""

    def __init__(self, datasets: Iterable[MapDataset] = ()) -> None:
        self._datasets = tuple(datasets)
        names = self.names
        if len(set(names)) != len(names):
            raise DataError(f"datasets: names must differ, got {', '.join(names)}")

    @property
    def names(self) -> list[str]:
        return [dataset.name for dataset in self._datasets]

    @overload
    def __getitem__(self, key: int | str) -> MapDataset: ...
    @overload
    def __getitem__(self, key: slice) -> Datasets: ...
    def __getitem__(self, key: int | str | slice) -> MapDataset | Datasets:
        if isinstance(key, slice):
            return Datasets(self._datasets[key])
        if isinstance(key, str):
            for dataset in self._datasets:
                if dataset.name == key:
                    return dataset
            raise KeyError(f"no dataset {key!r}; there are {', '.join(self.names) or 'none'}")
        return self._datasets[key]

    def __len__(self) -> int:
        return len(self._datasets)

    def __iter__(self) -> Iterator[MapDataset]:
        return iter(self._datasets)

    @property
    def models(self) -> Models:
        """All models that apply to some of the datasets, each once.

        The same object as theirs if they share one.

        Raises
        ------
        ModelError
            If a source applies to a dataset that has other models: its ``datasets_names`` must say
            where it belongs.
        """
        groups = {id(d.models): d.models for d in self if d.models is not None}
        every = {id(model): model for group in groups.values() for model in group}
        found = [model for model in every.values() if any(map(model.applies_to, self.names))]
        for dataset in self:
            own = set(map(id, dataset.models or ()))
            for model in found:
                if model.applies_to(dataset.name) and id(model) not in own:
                    others = [d.name for d in self if model in (d.models or ())]
                    raise ModelError(
                        f"{model.name}: is among the models of {', '.join(others)}, not of "
                        f"{dataset.name}; expected it on both, or its datasets_names to say where"
                    )
        if len(groups) == 1 and len(found) == len(every):
            return next(iter(groups.values()))
        return Models(found)

    @models.setter
    def models(self, models: Models | Iterable[Any] | None) -> None:
        models = as_collection(models)
        for name in {n for model in models or () for n in model.datasets_names or ()}:
            if name not in self.names:
                raise ModelError(
                    f"datasets_names: {name!r} is not a dataset; there are {', '.join(self.names)}"
                )
        for dataset in self:
            dataset.models = models

    def __str__(self) -> str:
        return "Datasets\n--------\n\n" + "\n".join(
            f"Dataset {index}:\n\n{dataset}" for index, dataset in enumerate(self)
        )
