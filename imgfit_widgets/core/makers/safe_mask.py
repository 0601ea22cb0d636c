"""Safe masks: which bins of a run are trusted.

The methods are those of the field's standard tool, under its names: a largest offset, the energy
thresholds in the file's header, a least effective area, a largest bias of the energy, and the peak
of the background's spectrum. All but the first set limits in energy for the whole run; a bin counts
only if it lies wholly inside.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data import Observation
from ..irf.axis import FloatArray, IrfAxis
from ..maps import MapAxis

log = logging.getLogger(__name__)

METHODS = ("offset-max", "aeff-default", "aeff-max", "edisp-bias", "bkg-peak")
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class SafeMask:
    """Settings of the safe masks.

    Parameters
    ----------
    methods : tuple of str
        Out of `METHODS`; a bin is trusted if all agree.
    offset_max : float
        Degrees; bins at this distance from the pointing or further are not trusted.
    aeff_percent, bias_percent : float
    position : (float, float) or None
        ICRS degrees at which effective area and bias are looked at; None for the map's centre.
    fixed_offset : float or None
        Distance from the pointing in degrees at which they are looked at instead.
    file_bins : bool
        Take the thresholds from the bins of the response tables instead of those of the map.
    """

    methods: tuple[str, ...] = ()
    offset_max: float = 3.0
    aeff_percent: float = 10.0
    bias_percent: float = 10.0
    position: tuple[float, float] | None = None
    fixed_offset: float | None = None
    file_bins: bool = False

    @property
    def offset_limit(self) -> float:
        """Offset in degrees below which events are used; infinite without such a cut."""
        return self.offset_max if "offset-max" in self.methods else np.inf

    @property
    def responses(self) -> list[str]:
        """Responses that the methods need."""
        need = {"aeff-default": "aeff", "aeff-max": "aeff", "edisp-bias": "edisp"}
        found = {need[method] for method in self.methods if method in need}
        if self.file_bins and "bkg-peak" in self.methods:
            found.add("bkg")
        return sorted(found)

    def energies(
        self,
        observation: Observation,
        axis: MapAxis,
        axis_true: MapAxis,
        offset: float,
        background: FloatArray | None,
    ) -> tuple[float, float]:
        """From which reconstructed energy of a run to which (TeV) it is trusted.

        Parameters
        ----------
        observation : `Observation`
        axis, axis_true : `MapAxis`
        offset : float
            Distance of `position` from the pointing, degrees.
        background : ndarray, shape (R,), or None
            Expected background counts of the run in each bin.
        """
        if self.fixed_offset is not None:
            offset = self.fixed_offset
        elif self.file_bins and self.position is None:
            offset = 0.0
        low, high = [0.0], np.inf
        for method in self.methods:
            if method == "aeff-default":
                low.append(_header_limit(observation, "lower", observation.aeff.energy_min) or 0.0)
                high = _header_limit(observation, "upper", observation.aeff.energy_max) or np.inf
            elif method == "aeff-max":
                low.append(self._area_threshold(observation, axis_true, offset))
            elif method == "edisp-bias":
                low.append(self._bias_threshold(observation, axis, axis_true, offset))
            elif method == "bkg-peak":
                low.append(self._background_peak(observation, axis, background))
        return max(low), high

    def _area_threshold(self, observation: Observation, axis_true: MapAxis, offset: float) -> float:
        """Energy (TeV) from which the effective area is a part of its largest value."""
        aeff = observation.aeff
        if self.file_bins:
            energies = aeff.energy.bounds
            area = aeff.evaluate(energies, [offset])[:, 0]
            good = energies[area > self.aeff_percent / 100.0 * area.max()]
            return float(good[0]) if len(good) else np.inf
        area = aeff.evaluate(axis_true.centers, [offset])[:, 0]
        if not np.any(area > 0):
            log.warning(
                "Observation %d: no effective area at %.2f deg from its pointing, so the mask "
                "aeff-max leaves none of its bins",
                observation.obs_id,
                offset,
            )
            return np.inf
        start = int(np.flatnonzero(area > 0)[0])
        threshold = self.aeff_percent / 100.0 * area.max()
        found = _crossing(axis_true.centers[start:], area[start:], threshold, rising=True)
        return float(axis_true.centers[start]) if found is None else found

    def _bias_threshold(
        self, observation: Observation, axis: MapAxis, axis_true: MapAxis, offset: float
    ) -> float:
        """Reconstructed energy (TeV) from which the bias of the energy is small."""
        edisp = observation.edisp
        if self.file_bins:
            bounds = _bounds(edisp.energy)
            axis = MapAxis("energy", bounds)
            axis_true = MapAxis("energy_true", bounds)
        kernel = edisp.probabilities(axis_true.centers, axis, [offset])[..., 0]
        total = kernel.sum(axis=1)
        mean = np.divide(kernel @ axis.centers, total, out=np.zeros(len(total)), where=total > 0)
        bias = (mean - axis_true.centers) / axis_true.centers
        peak = int(np.argmax(bias))
        limit = self.bias_percent / 100.0
        found = _crossing(axis_true.centers[peak:], bias[peak:], limit, rising=False)
        at = float(axis_true.centers[peak]) if found is None else found
        return at * (1.0 + limit)

    def _background_peak(
        self, observation: Observation, axis: MapAxis, background: FloatArray | None
    ) -> float:
        """Lower edge (TeV) of the bin in which most background is expected."""
        if self.file_bins:
            bkg = observation.bkg
            return float(_bounds(bkg.energy)[int(np.argmax(bkg.spectrum()))])
        if background is None:
            return 0.0
        return float(axis.bounds[int(np.argmax(background))])


def bins_within(axis: MapAxis, low: float, high: float) -> NDArray[np.bool_]:
    """Bins of an axis that lie whole between two energies (TeV), shape (R,)."""
    # Edges that are the limit to the last bits of a sum of logarithms are inside.
    inside = axis.bounds[:-1] >= low * (1 - 1e-10)
    return np.asarray(inside & (axis.bounds[1:] <= high * (1 + 1e-10)))


def _header_limit(observation: Observation, which: str, value: float | None) -> float | None:
    if value is None:
        log.warning(
            "Observation %d: the header of its effective area has no %s threshold of energy, so "
            "the mask aeff-default does not cut there",
            observation.obs_id,
            which,
        )
    return value


def _bounds(axis: IrfAxis) -> FloatArray:
    """Edges of an axis' bins; geometric means between its nodes where it has only these."""
    if len(axis.bounds) > len(axis.nodes):
        return axis.bounds
    middle = np.sqrt(axis.nodes[1:] * axis.nodes[:-1])
    return np.concatenate([[axis.nodes[0]], middle, [axis.nodes[-1]]])


def _crossing(energies: FloatArray, values: FloatArray, level: float, rising: bool) -> float | None:
    """First energy at which values pass a level, by interpolation in the logarithm of both."""
    log_values = np.log(np.maximum(values, _TINY)) - np.log(max(level, _TINY))
    before, after = log_values[:-1], log_values[1:]
    passes = (before < 0) & (after >= 0) if rising else (before > 0) & (after <= 0)
    if not passes.any():
        return None
    first = int(np.flatnonzero(passes)[0])
    share = before[first] / (before[first] - after[first])
    step = np.log(energies[first + 1] / energies[first])
    return float(energies[first] * np.exp(share * step))
