"""`ExcessMapEstimator`: excess, significance, flux and limits within a circle around each pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dataset import MapDataset
from ..errors import DataError
from ..maps import WcsNDMap
from ..models import PointSpatialModel, SkyModel, SpectralModel
from ..progress import Progress, silent
from . import known_background as known
from .bands import (
    ReferenceCounts,
    as_degrees,
    combined_mask,
    energy_bands,
    names_of,
    neighbour_correlation,
    reference_spectrum,
)
from .excess import disk_sum, excess_maps
from .flux_maps import UNITS, FluxMaps

FloatArray = NDArray[np.float64]

__all__ = ["ExcessMapEstimator"]

OPTIONAL = ("errn-errp", "ul", "sensitivity")


class ExcessMapEstimator:
    """Correlated excess and its significance over everything that the models predict.

    The expectation is taken as known, so the significance is the Cash form of Li & Ma (1983), ApJ
    272, 317: ``sign(n - b) sqrt(2 (n ln(n / b) - n + b))``. To see a source, leave it out of the
    models. Names and definitions are those of Gammapy's estimator of the same name.

    Parameters
    ----------
    correlation_radius : float, str or Quantity
        Pixels whose centres lie within it are summed, by the size of a pixel in the middle of the
        map; degrees if a number.
    n_sigma, n_sigma_ul, n_sigma_sensitivity : float
        Of errors, upper limits (from the best excess, negative ones too) and the sensitivity.
    selection_optional : sequence of str
        ``errn-errp``, ``ul``, ``sensitivity`` or ``all``.
    energy_edges : sequence of energies, optional
        Bands; by default each energy bin, or with ``sum_over_energy_groups`` all together.
    spectral_model : SpectralModel, optional
        For the flux: a power law of index 2 by default.
    """

    tag = "ExcessMapEstimator"

    def __init__(
        self,
        correlation_radius: Any = "0.1 deg",
        n_sigma: float = 1.0,
        n_sigma_ul: float = 2.0,
        selection_optional: Any = None,
        energy_edges: Any = None,
        spectral_model: SpectralModel | None = None,
        n_sigma_sensitivity: float = 5.0,
        sum_over_energy_groups: bool = False,
    ) -> None:
        self.correlation_radius = as_degrees("correlation_radius", correlation_radius)
        self.n_sigma = known.check_n_sigma("n_sigma", n_sigma)
        self.n_sigma_ul = known.check_n_sigma("n_sigma_ul", n_sigma_ul)
        self.n_sigma_sensitivity = known.check_n_sigma("n_sigma_sensitivity", n_sigma_sensitivity)
        self.selection_optional = names_of(selection_optional, OPTIONAL)
        self.energy_edges = energy_edges
        self.spectral_model = reference_spectrum(spectral_model)
        self.sum_over_energy_groups = sum_over_energy_groups

    def run(self, dataset: MapDataset, mask: Any = None, progress: Progress = silent) -> FluxMaps:
        """Make the maps.

        Parameters
        ----------
        dataset : `MapDataset`
            With models, if some of the counts are to be explained by them.
        mask : ndarray or `WcsNDMap` of bool, optional
            Used besides the dataset's ``mask_safe`` and ``mask_fit``.
        progress : Progress
            Called before each band; may raise `Cancelled`.

        Returns
        -------
        `FluxMaps`
            ``counts``, ``npred_background`` (what the models and the background predict),
            ``npred_excess``, ``npred`` (background and excess), ``ts``, ``sqrt_ts``, ``err``; with
            an exposure also ``norm`` and ``flux`` (cm-2 s-1) with their ``_err``; and
            what was chosen: ``errn``, ``errp``, ``ul``, ``sensitivity`` in counts and as ``norm_*``
            and ``flux_*``.

        Raises
        ------
        DataError
            If nothing is expected: there is neither background nor a model.
        InputError
            If a mask or the energy edges do not fit.
        """
        if dataset.background is None and not dataset.models:
            raise DataError(
                f"dataset {dataset.name!r}: has neither background nor models, so there is no "
                "excess over them"
            )
        inside = combined_mask(dataset, mask)
        axis, bins = energy_bands(
            dataset.energy_axis, self.energy_edges, self.sum_over_energy_groups
        )
        progress(0.0, "Predicting counts")
        expected = dataset.npred().data
        reference = None
        if dataset.exposure is not None and dataset.edisp is not None:
            reference = ReferenceCounts.of(dataset, self.spectral_model).cube(dataset.geom.shape)
        radii = [self.correlation_radius / scale for scale in dataset.geom.pixel_scales]
        parts: list[dict[str, FloatArray]] = []
        for number, band in enumerate(bins):
            progress(0.2 + 0.8 * number / len(bins), f"Excess map {number + 1} of {len(bins)}")
            flux = self._flux(axis.bounds[number], axis.bounds[number + 1])
            parts.append(self._band(dataset, expected, reference, inside, band, radii, flux))
        geom = dataset.geom.to_cube([axis])
        maps = {
            name: WcsNDMap(geom, np.stack([p[name] for p in parts]), UNITS.get(name[:4], ""))
            for name in parts[0]
        }
        progress(1.0, "Excess map done")
        meta = {
            "correlation_radius": self.correlation_radius,
            "n_sigma": self.n_sigma,
            "n_sigma_ul": self.n_sigma_ul,
            "n_sigma_sensitivity": self.n_sigma_sensitivity,
            "neighbour_correlation": [list(_correlation(radii))] * len(bins),
        }
        model = SkyModel(self.spectral_model, PointSpatialModel(frame=geom.frame), "reference")
        return FluxMaps(maps, self.tag, model if reference is not None else None, meta)

    def _flux(self, low: float, high: float) -> float:
        return float(self.spectral_model.integral(low, high))

    def _band(
        self,
        dataset: MapDataset,
        expected: FloatArray,
        reference: FloatArray | None,
        inside: NDArray[np.bool_],
        band: slice,
        radii: list[float],
        flux: float,
    ) -> dict[str, FloatArray]:
        used = inside[band]
        mask = np.asarray(used.any(axis=0))
        counts = np.where(used, dataset.counts.data[band], 0.0).sum(axis=0)
        background = np.where(used, expected[band], 0.0).sum(axis=0)
        sums = excess_maps(counts, background, mask, *radii)
        n, b = np.where(mask, sums.counts, 0.0), np.where(mask, sums.expected, 0.0)
        found = {
            "counts": sums.counts,
            "npred": sums.counts,
            "npred_background": sums.expected,
            "npred_excess": sums.excess,
            "ts": sums.sqrt_ts**2,
            "sqrt_ts": sums.sqrt_ts,
        }
        in_counts = {"err": np.sqrt(n) * self.n_sigma}
        if "errn-errp" in self.selection_optional:
            in_counts["errn"] = known.errn(n, self.n_sigma)
            in_counts["errp"] = known.errp(n, self.n_sigma)
        if "ul" in self.selection_optional:
            in_counts["ul"] = known.upper_limit(n, b, self.n_sigma_ul)
        if "sensitivity" in self.selection_optional:
            in_counts["sensitivity"] = known.matching_excess(b, self.n_sigma_sensitivity)
        found |= in_counts
        if reference is not None:
            # Counts of the reference flux if it all came from the circle: the mean of its pixels.
            whole = np.where(used, reference[band], 0.0).sum(axis=0)
            mean = disk_sum(whole, *radii)
            number = disk_sum(mask.astype(float), *radii)
            valid = mask & (mean > 1e-9 * max(float(mean.max()), 1e-300))
            scale = np.divide(number, mean, out=np.full(mask.shape, np.nan), where=valid)
            for word, unit in (("norm", 1.0), ("flux", flux)):
                found[word] = sums.excess * scale * unit
                for name, values in in_counts.items():
                    found[f"{word}_{name}"] = values * scale * unit
        return {name: np.where(mask, values, np.nan) for name, values in found.items()}


def _correlation(radii: list[float]) -> tuple[float, float]:
    """How the sums in two neighbouring circles are correlated."""
    dot = np.zeros([2 * int(radius) + 3 for radius in reversed(radii)])
    dot[dot.shape[0] // 2, dot.shape[1] // 2] = 1.0
    return neighbour_correlation(np.rint(disk_sum(dot, *radii)))
