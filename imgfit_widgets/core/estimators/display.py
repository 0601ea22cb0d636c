"""Maps of a dataset as a viewer shows them: one plane, NaN where there are no valid data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..dataset import MapDataset
from ..errors import DataError
from .excess import Significance, excess_maps

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class MapKind:
    """A kind of map.

    Parameters
    ----------
    label, unit, help : str
    diverging : bool
        Whether values lie symmetrically around 0.
    follows_model : bool
        Whether it changes with the models.
    correlated : bool
        Whether it is summed within the correlation radius.
    """

    label: str
    unit: str
    help: str
    diverging: bool = False
    follows_model: bool = False
    correlated: bool = False


MAP_KINDS: dict[str, MapKind] = {
    "counts": MapKind("Counts", "counts", "Events in each pixel"),
    "background": MapKind("Background", "counts", "Expected counts that are no gamma rays"),
    "npred": MapKind(
        "Predicted counts", "counts", "Background and all sources of the model", follows_model=True
    ),
    "excess": MapKind(
        "Excess",
        "counts",
        "Counts minus background within the correlation radius",
        diverging=True,
        correlated=True,
    ),
    "residual": MapKind(
        "Residual significance",
        "σ",
        "Significance of counts over the whole model, within the correlation radius",
        diverging=True,
        follows_model=True,
        correlated=True,
    ),
    "significance": MapKind(
        "Significance",
        "σ",
        "Significance of counts over the background, within the correlation radius",
        diverging=True,
        correlated=True,
    ),
    "exposure": MapKind(
        "Exposure", "m2 s", "Area times time, averaged over energy for a power law of index 2"
    ),
}


def display_map(
    dataset: MapDataset,
    kind: str,
    npred: FloatArray | None = None,
    correlation_radius_deg: float = 0.1,
    band: int | None = None,
) -> FloatArray:
    """One map of a dataset for a viewer.

    Parameters
    ----------
    dataset : `MapDataset`
    kind : str
        A key of `MAP_KINDS`.
    npred : ndarray, shape (energy, y, x), optional
        Expected counts of the current models; by default those of ``dataset.models``.
    correlation_radius_deg : float
        Degrees, for the kinds that are summed within a circle.
    band : int, optional
        Reconstructed energy bin; None for the sum over all.

    Returns
    -------
    ndarray, shape (ny, nx)

    Raises
    ------
    DataError
        If the dataset lacks what the map is made of.
    """
    if kind not in MAP_KINDS:
        raise DataError(f"map: {kind!r} is not one of {', '.join(MAP_KINDS)}")
    mask = _plane(dataset.mask.astype(float), band) > 0
    if kind == "exposure":
        return _exposure(dataset)
    inside = np.where(dataset.mask, 1.0, 0.0)
    counts = _plane(dataset.counts.data * inside, band)
    if kind == "counts":
        return np.where(mask, counts, np.nan)
    if kind in ("npred", "residual"):
        expected = dataset.npred().data if npred is None else npred
    elif dataset.background is None:
        raise DataError(f"dataset {dataset.name}: has no background, so no map of {kind}")
    else:
        expected = dataset.npred_background().data
    expected = _plane(expected * inside, band)
    if kind in ("background", "npred"):
        return np.where(mask, expected, np.nan)
    radii = [correlation_radius_deg / scale for scale in dataset.geom.pixel_scales]
    maps = excess_maps(counts, expected, mask, *radii)
    return maps.excess if kind == "excess" else maps.sqrt_ts


class ResidualMap:
    """The residual map of a dataset for one prediction after another, as in a drag.

    The same as `display_map` of the kind "residual", with what the prediction does not change
    computed once.

    Parameters
    ----------
    dataset : `MapDataset`
    correlation_radius_deg : float
        Degrees.
    """

    def __init__(self, dataset: MapDataset, correlation_radius_deg: float = 0.1) -> None:
        self._inside = np.where(dataset.mask, 1.0, 0.0)
        radii = [correlation_radius_deg / scale for scale in dataset.geom.pixel_scales]
        counts = _plane(dataset.counts.data * self._inside, None)
        mask = _plane(self._inside, None) > 0
        self._significance = Significance(counts, mask, *radii)

    def __call__(self, npred: FloatArray) -> FloatArray:
        """The map, shape (ny, nx), for expected counts of shape (energy, y, x)."""
        return self._significance(np.einsum("eyx,eyx->yx", npred, self._inside))


def _plane(cube: FloatArray, band: int | None) -> FloatArray:
    return np.asarray(cube.sum(axis=0) if band is None else cube[band])


def _exposure(dataset: MapDataset) -> FloatArray:
    if dataset.exposure is None:
        raise DataError(f"dataset {dataset.name}: has no exposure")
    bounds = dataset.energy_axis_true.bounds
    weights = 1.0 / bounds[:-1] - 1.0 / bounds[1:]
    mean = np.tensordot(weights / weights.sum(), dataset.exposure.data, axes=1)
    return np.where(mean > 0, mean, np.nan)
