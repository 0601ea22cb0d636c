"""Spectral models: how a source's photons are spread over energy.

In an image with one wide energy band they only set the scale: `PowerLaw2SpectralModel` is the usual
choice, its amplitude being the flux between emin and emax. `PowerLawNormSpectralModel` is the
dimensionless factor of a background. To add a model, declare its parameters in the units it
computes in, implement `evaluate_values` and `integral_values`, and append it to `SPECTRAL_MODELS`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from astropy import units as u

from .parameter import ParameterField, ParameterOwner

__all__ = [
    "SPECTRAL_MODELS",
    "PowerLaw2SpectralModel",
    "PowerLawNormSpectralModel",
    "PowerLawSpectralModel",
    "SpectralModel",
]

FLUX = "cm-2 s-1"
DIFFERENTIAL = "cm-2 s-1 TeV-1"


class SpectralModel(ParameterOwner):
    """Base: photons per area, time and energy as a function of energy."""

    kind = "spectral"
    linear: ClassVar[str] = "amplitude"
    """The parameter that the flux is proportional to."""
    unit: ClassVar[str] = DIFFERENTIAL

    def evaluate_values(self, values: np.ndarray, energy: np.ndarray) -> np.ndarray:
        """Differential flux at ``energy`` (TeV), in cm-2 s-1 TeV-1, for parameter ``values``."""
        raise NotImplementedError

    def integral_values(
        self, values: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Flux between energies and its derivatives.

        Parameters
        ----------
        values : ndarray, shape (n_parameters,)
            In the declared units and order.
        low, high : ndarray, shape (n_bins,)
            Energies in TeV.

        Returns
        -------
        flux : ndarray, shape (n_bins,)
            In cm-2 s-1.
        derivatives : ndarray, shape (n_parameters, n_bins)
        """
        raise NotImplementedError

    def evaluate(self, energy: Any) -> Any:
        """Differential flux in cm-2 s-1 TeV-1 at ``energy`` (TeV, array)."""
        energy = np.asarray(energy, dtype=float)
        return self.evaluate_values(self.canonical_values(), energy)

    def integral(self, energy_min: Any, energy_max: Any) -> Any:
        """Flux between two energies; floats are TeV and cm-2 s-1, quantities give quantities."""
        quantity = isinstance(energy_min, (u.Quantity, str))
        low = np.atleast_1d(_tev(energy_min))
        high = np.atleast_1d(_tev(energy_max))
        flux = self.integral_values(self.canonical_values(), low, high)[0]
        flux = flux if np.ndim(_tev(energy_min)) else flux[0]
        return flux * u.Unit(FLUX) if quantity else flux

    def __call__(self, energy: Any) -> u.Quantity:
        """Differential flux as a quantity."""
        return self.evaluate(_tev(energy)) * u.Unit(self.unit)


class PowerLawSpectralModel(SpectralModel):
    """``amplitude * (E / reference) ** -index``."""

    tag = ("PowerLawSpectralModel", "pl")
    index = ParameterField(2.0, help="photon index")
    amplitude = ParameterField(1e-12, DIFFERENTIAL, help="differential flux at the reference")
    reference = ParameterField(1.0, "TeV", frozen=True, help="reference energy")

    def evaluate_values(self, values: np.ndarray, energy: np.ndarray) -> np.ndarray:
        index, amplitude, reference = values
        return np.asarray(amplitude * (energy / reference) ** -index)

    def integral_values(
        self, values: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        index, amplitude, reference = values
        shape, slope = _power_integral(index, low / reference, high / reference)
        flux = amplitude * reference * shape
        return flux, np.array(
            [amplitude * reference * slope, reference * shape, index * flux / reference]
        )


class PowerLaw2SpectralModel(SpectralModel):
    """A power law whose amplitude is the flux between emin and emax."""

    tag = ("PowerLaw2SpectralModel", "pl-2")
    amplitude = ParameterField(1e-12, FLUX, help="flux between emin and emax")
    index = ParameterField(2.0, help="photon index")
    emin = ParameterField(0.1, "TeV", frozen=True, help="lower end of the amplitude's energies")
    emax = ParameterField(100.0, "TeV", frozen=True, help="upper end of the amplitude's energies")

    def evaluate_values(self, values: np.ndarray, energy: np.ndarray) -> np.ndarray:
        amplitude, index, emin, emax = values
        norm = _power_integral(index, np.array([emin]), np.array([emax]))[0][0]
        return np.asarray(amplitude * energy**-index / norm)

    def integral_values(
        self, values: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        amplitude, index, emin, emax = values
        shape, slope = _power_integral(index, low, high)
        norm, norm_slope = (v[0] for v in _power_integral(index, *np.array([[emin], [emax]])))
        unit = shape / norm
        flux = amplitude * unit
        return flux, np.array(
            [
                unit,
                amplitude * (slope - unit * norm_slope) / norm,
                flux * emin**-index / norm,
                -flux * emax**-index / norm,
            ]
        )


class PowerLawNormSpectralModel(SpectralModel):
    """The factor ``norm * (E / reference) ** -tilt`` of a background."""

    tag = ("PowerLawNormSpectralModel", "pl-norm")
    linear = "norm"
    unit = ""
    tilt = ParameterField(0.0, frozen=True, help="softening of the background")
    norm = ParameterField(1.0, help="factor of the background")
    reference = ParameterField(1.0, "TeV", frozen=True, help="energy where the tilt has no effect")

    def evaluate_values(self, values: np.ndarray, energy: np.ndarray) -> np.ndarray:
        tilt, norm, reference = values
        return np.asarray(norm * (energy / reference) ** -tilt)


SPECTRAL_MODELS: list[type[SpectralModel]] = [
    PowerLawSpectralModel,
    PowerLaw2SpectralModel,
    PowerLawNormSpectralModel,
]


def _power_integral(
    index: float, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The integral of E**-index from low to high and its derivative with respect to index.

    Written with ``expm1`` so that index 1, where the primitive is a logarithm, is no exception.
    """
    s = 1.0 - index
    log_low = np.log(low)
    width = np.log(high) - log_low
    z = s * width
    near = np.abs(z) < 1e-3
    safe = np.where(near, 1.0, z)
    phi = np.where(near, 1 + z / 2 + z**2 / 6 + z**3 / 24, np.expm1(safe) / safe)
    slope = np.where(near, 0.5 + z / 3 + z**2 / 8 + z**3 / 30, (np.exp(safe) - phi) / safe)
    scale = low**s * width
    return scale * phi, -(log_low * scale * phi + scale * width * slope)


def _tev(energy: Any) -> Any:
    if isinstance(energy, (u.Quantity, str)):
        return u.Quantity(energy).to_value("TeV")
    return np.asarray(energy, dtype=float)
