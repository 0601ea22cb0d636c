"""One energy band of a dataset as a dataset of its own, and models to fit there."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..dataset import MapDataset
from ..errors import ModelError
from ..irf.edisp import EDispKernelMap
from ..maps import MapAxis, WcsNDMap
from ..models import FoVBackgroundModel, Models, SkyModel

__all__ = ["band_models", "slice_by_energy"]


def slice_by_energy(dataset: MapDataset, bins: slice, name: str | None = None) -> MapDataset:
    """The reconstructed bins ``bins`` of a dataset; exposure and PSF are shared, models left out.

    The energy dispersion is that into these bins alone, so predictions are those of the whole.
    """
    axis = dataset.energy_axis
    band = MapAxis(axis.name, axis.bounds[bins.start : bins.stop + 1], axis.unit, axis.interp)
    geom = dataset.geom.to_cube([band])

    def part(image: WcsNDMap | None) -> WcsNDMap | None:
        return None if image is None else WcsNDMap(geom, image.data[bins], image.unit, image.meta)

    edisp = dataset.edisp
    if edisp is not None:
        edisp = EDispKernelMap(
            edisp.geom, band, edisp.energy_true, edisp.data[:, bins], edisp.exposure
        )
    return MapDataset(
        name=dataset.name if name is None else name,
        counts=WcsNDMap(geom, dataset.counts.data[bins]),
        background=part(dataset.background),
        exposure=dataset.exposure,
        psf=dataset.psf,
        edisp=edisp,
        mask_safe=part(dataset.mask_safe),
        mask_fit=part(dataset.mask_fit),
        gti=dataset.gti,
        runs=dataset.runs,
    )


def band_models(
    models: Models, source: str, datasets: Iterable[MapDataset], at: dict[str, float] | None = None
) -> Models:
    """Copies to fit a source in one band: its amplitude, position and size as they are freed.

    The rest of its spectrum is frozen, because a band says little of it; so are other sources. Each
    dataset that has a background gets a free norm, as in Gammapy's estimator.

    Parameters
    ----------
    models : `Models`
    source : str
        Name of the source.
    datasets : iterable of `MapDataset`
        The slices.
    at : dict, optional
        Values of the source's parameters to begin with, in their units.

    Raises
    ------
    ModelError
        If there is no such source, or its amplitude is frozen.
    """
    names = [model.name for model in models.sky_models]
    if source not in names:
        raise ModelError(f"source: there is no {source!r}; there are {', '.join(names) or 'none'}")
    found: list[SkyModel | FoVBackgroundModel] = []
    for model in models.sky_models:
        copy = model.copy()
        if model.name != source:
            copy.freeze()
        else:
            linear = copy.linear_parameter
            if linear.frozen:
                raise ModelError(f"{linear.label}: is frozen; free it to fit it in each band")
            for parameter in copy.spectral_model.parameters:
                parameter.frozen = parameter is not linear
            for key, value in (at or {}).items():
                # Rounding may have left a value beyond its limit by the last digit.
                parameter = copy.parameters[key]
                low, high = np.nan_to_num([parameter.min, parameter.max], nan=np.nan)
                low = -np.inf if np.isnan(low) else low
                high = np.inf if np.isnan(high) else high
                parameter.value = float(np.clip(value, low, high))
        found.append(copy)
    for dataset in datasets:
        if dataset.background is not None:
            old = models.background_model(dataset.name)
            new = FoVBackgroundModel(dataset_name=dataset.name)
            background = new if old is None else old.copy()  # with its limits and priors
            background.freeze()
            background.parameters["norm"].frozen = False
            found.append(background)
    return Models(found)
