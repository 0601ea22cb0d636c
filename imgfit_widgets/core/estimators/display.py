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
    "mask": MapKind("Safe mask", "bands", "Energy bands in which a pixel is used, by the masks"),
}


def kinds_of(dataset: MapDataset) -> list[str]:
    """The kinds of maps that a dataset has the data for."""
    needs = {
        "background": dataset.background,
        "excess": dataset.background,
        "significance": dataset.background,
        "exposure": dataset.exposure,
    }
    return [kind for kind in MAP_KINDS if kind not in needs or needs[kind] is not None]


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
        Reconstructed energy bin, of the exposure true energy bin; None for the sum over all, of
        the exposure the mean.

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
    used = _plane(dataset.mask.astype(float), None if kind == "exposure" else band)
    if kind == "exposure":
        return _exposure(dataset, band)
    if kind == "mask":
        return used
    mask = used > 0
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
    band : int, optional
        Reconstructed energy bin; None for the sum over all.
    """

    def __init__(
        self,
        dataset: MapDataset,
        correlation_radius_deg: float = 0.1,
        band: int | None = None,
    ) -> None:
        self._bands = slice(None) if band is None else slice(band, band + 1)
        self._inside = np.where(dataset.mask, 1.0, 0.0)[self._bands]
        radii = [correlation_radius_deg / scale for scale in dataset.geom.pixel_scales]
        counts = _plane(dataset.counts.data[self._bands] * self._inside, None)
        mask = _plane(self._inside, None) > 0
        self._significance = Significance(counts, mask, *radii)

    def __call__(self, npred: FloatArray) -> FloatArray:
        """The map, shape (ny, nx), for expected counts of shape (energy, y, x)."""
        return self._significance(np.einsum("eyx,eyx->yx", npred[self._bands], self._inside))


def _plane(cube: FloatArray, band: int | None) -> FloatArray:
    return np.asarray(cube.sum(axis=0) if band is None else cube[band])


def _exposure(dataset: MapDataset, band: int | None = None) -> FloatArray:
    if dataset.exposure is None:
        raise DataError(f"dataset {dataset.name}: has no exposure")
    if band is not None:
        plane = np.asarray(dataset.exposure.data[band], dtype=float)
    else:
        bounds = dataset.energy_axis_true.bounds
        weights = 1.0 / bounds[:-1] - 1.0 / bounds[1:]
        plane = np.tensordot(weights / weights.sum(), dataset.exposure.data, axes=1)
    return np.where(plane > 0, plane, np.nan)


def hatching(mask: NDArray[np.bool_], spacing: int) -> tuple[FloatArray, FloatArray]:
    """Lines that mark the pixels of a mask: their outline, and diagonals within.

    Parameters
    ----------
    mask : ndarray of bool, shape (ny, nx)
    spacing : int
        Pixels between two diagonals.

    Returns
    -------
    x, y : ndarray
        Pixel coordinates of the ends of straight pieces, each two followed by NaN.
    """
    ny, nx = mask.shape
    pieces: list[tuple[float, float, float, float]] = []
    padded = np.pad(mask, 1)
    for along_x in (True, False):
        cells = padded if along_x else padded.T
        # Row j of ``edges`` is the border below row j of the mask.
        edges = (cells[1:] != cells[:-1])[:, 1:-1]
        for j in np.flatnonzero(edges.any(axis=1)):
            for start, stop in _stretches(edges[j]):
                line = (start - 0.5, j - 0.5, stop - 0.5, j - 0.5)
                pieces.append(line if along_x else (line[1], line[0], line[3], line[2]))
    for offset in range(-ny + 1, nx, max(spacing, 1)):
        first = max(-offset, 0)
        for start, stop in _stretches(np.diagonal(mask, offset)):
            y = first + start - 0.5, first + stop - 0.5
            pieces.append((y[0] + offset, y[0], y[1] + offset, y[1]))
    ends = np.array(pieces).reshape(-1, 2, 2)
    table = np.concatenate([ends, np.full((len(ends), 1, 2), np.nan)], axis=1).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _stretches(row: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Starts and ends (exclusive) of the stretches in which a row is true."""
    steps = np.diff(np.concatenate([[0], row.astype(np.int8), [0]]))
    return list(
        zip(np.flatnonzero(steps > 0).tolist(), np.flatnonzero(steps < 0).tolist(), strict=True)
    )
