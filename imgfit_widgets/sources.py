"""Sources as a hand makes and changes them, and the models that go with a set of datasets."""

from __future__ import annotations

import numpy as np

from .changes import shape_of
from .core.analysis import with_background
from .core.dataset import Datasets, MapDataset
from .core.errors import ModelError
from .core.maps import WcsGeom
from .core.models import (
    Component,
    Models,
    Parameter,
    PowerLaw2SpectralModel,
    SkyModel,
    SpatialModel,
)
from .core.models.regions import models_from_ds9

START_FLUX = 1e-12  # cm-2 s-1; only a start, the counts at the place decide
MAX_ECCENTRICITY = 0.999  # by hand; an ellipse without a width has no brightness
MIN_SIZE = 1e-4  # deg; a source that is dragged smaller would be a point


def new_source(
    dataset: MapDataset,
    position: tuple[float, float],
    frame: str | None,
    spatial: str | type[SpatialModel],
    name: str,
) -> SkyModel:
    """A source with start values that make sense: a power law of index 2 over the map's energies.

    Parameters
    ----------
    dataset : MapDataset
    position : (float, float)
        Longitude and latitude in degrees of ``frame``, by default of the map's.
    frame : str or None
    spatial : str or class
        A spatial model or its tag.
    name : str

    Raises
    ------
    ModelError
        The position is not on the map, or there is no such shape.
    """
    geom = dataset.geom
    lon, lat = position
    if frame is not None and frame != geom.frame:
        lon, lat = (float(value) for value in geom.from_frame(lon, lat, frame))
    if not geom.contains(lon, lat):
        raise ModelError(
            f"{name}: {lon:.3f}, {lat:.3f} deg ({geom.frame}) is not on the map; expected a "
            "position inside it"
        )
    edges = dataset.energy_axis.edges
    spectrum = PowerLaw2SpectralModel(amplitude=START_FLUX, emin=edges[0], emax=edges[-1])
    spectrum.index.frozen = True  # one image says nothing of it
    return SkyModel(spectrum, shape_of(spatial).new_at(lon, lat, geom.frame), name=name)


def from_regions(text: str, dataset: MapDataset, models: Models) -> list[SkyModel]:
    """Sources of the shape of DS9 regions, with start values as of `new_source`.

    Raises
    ------
    ModelError
        The text is no region file, or a region is no shape of a source or not on the map.
    """
    taken, found = list(models.names), []
    for model in models_from_ds9(text).sky_models:
        shape, name, number = model.spatial_model, model.name, 1
        while name in taken:
            number += 1
            name = f"{model.name}-{number}"
        taken.append(name)
        source = new_source(dataset, shape.position_lonlat, shape.frame, "point", name)
        source.spatial_model = shape.copy()
        found.append(source)
    return found


def only_position(models: Models, name: str) -> Models:
    """A copy in which only the position of one source, amplitudes and norms are free."""
    models = models.copy()
    for parameter in models.parameters:
        moves = parameter.owner == name and parameter.name in ("lon_0", "lat_0")
        linear = parameter.name in ("amplitude", "norm") and not parameter.frozen
        parameter.frozen = not (moves or linear)
    return models


def moved(geom: WcsGeom, source: SkyModel, lon: float, lat: float) -> dict[str, float]:
    """Parameters that put a source to a position in degrees of the map's frame."""
    if source.frame != geom.frame:
        lon, lat = (float(value) for value in geom.to_frame(lon, lat, source.frame))
    shape = source.spatial_model
    if not shape.has_position:
        return {}
    return {
        "lon_0": lon / shape.lon_0.factor_to_expected,
        "lat_0": lat / shape.lat_0.factor_to_expected,
    }


def reshaped_by_hand(source: SkyModel, values: dict[str, float]) -> dict[str, float]:
    """Shape parameters, in degrees where they are angles, kept within their limits."""
    found = {}
    for name, value in values.items():
        parameter = source.spatial_model.parameters[name]
        if name in source.spatial_model.size_names:
            value = max(value, MIN_SIZE)
        value = min(value, MAX_ECCENTRICITY) if name == "e" else value
        inside = float(
            np.fmin(np.fmax(value / parameter.factor_to_expected, parameter.min), parameter.max)
        )
        found[name] = inside
    return found


def stepped(geom: WcsGeom, source: SkyModel, dx: float, dy: float) -> tuple[float, float]:
    """The position, in degrees of the map's frame, some pixels away from a source."""
    lon, lat = source.spatial_model.position_lonlat
    x, y = geom.lonlat_to_pix(*geom.from_frame(lon, lat, source.frame))
    lon, lat = geom.pix_to_lonlat(x + dx, y + dy)
    return float(lon), float(lat)


def without_errors(models: Models, parameters: list[Parameter]) -> None:
    """Take the errors of a former fit, and their covariance, from parameters that changed."""
    gone = [parameter for parameter in parameters if parameter.error != 0]
    if not gone:
        return
    every, matrix = list(models.parameters), models.covariance
    errors = [parameter.error for parameter in every]
    places = [place for place, parameter in enumerate(every) if parameter in gone]
    matrix[places, :] = matrix[:, places] = 0.0
    models.set_covariance(every, matrix)
    for parameter, error in zip(every, errors, strict=True):
        parameter.error = 0.0 if parameter in gone else error


def brought_along(datasets: Datasets, models: Models) -> list[Component]:
    """Copies of the sources on datasets, without those whose name a model has already."""
    return [m.copy() for m in datasets.models.sky_models if m.name not in models.names]


def for_datasets(models: Models, datasets: Datasets | None) -> tuple[Component, ...]:
    """The components with a background for each dataset, and none for those that are not there.

    A background that is missing is the one that its dataset brings along, such as the norm of a
    reduction, or else starts at 1.
    """
    if datasets is None:
        return tuple(models)
    gone = [m for m in models.background_models if m.dataset_name not in datasets.names]
    kept = Models(model for model in models if model not in gone)
    for dataset in datasets:
        own = dataset.background_model
        if own is not None and kept.background_model(dataset.name) is None:
            kept.append(own.copy())
    return tuple(with_background(kept, datasets))
