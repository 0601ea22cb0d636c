"""Spectral models: how a source's photons are spread over energy.

In an image with one wide energy band they only set the scale: `PowerLaw2SpectralModel` is the usual
choice, its amplitude being the flux between emin and emax. With several bands the shape can be
fitted too: `ExpCutoffPowerLawSpectralModel` and `LogParabolaSpectralModel` curve, and
`TemplateSpectralModel` scales and tilts a table. `PowerLawNormSpectralModel` is the dimensionless
factor of a background. To add a model, declare its parameters in the units it computes in,
implement `evaluate_values` and `integral_values` (or, on `CurvedSpectralModel`, only the logarithm
of the shape), and append it to `SPECTRAL_MODELS`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from astropy import units as u

from ..errors import ModelError
from .parameter import ParameterField, ParameterOwner

__all__ = [
    "SPECTRAL_MODELS",
    "ConstantSpectralModel",
    "CurvedSpectralModel",
    "ExpCutoffPowerLawSpectralModel",
    "LogParabolaSpectralModel",
    "PowerLaw2SpectralModel",
    "PowerLawNormSpectralModel",
    "PowerLawSpectralModel",
    "SpectralModel",
    "TemplateSpectralModel",
]

FLUX = "cm-2 s-1"
DIFFERENTIAL = "cm-2 s-1 TeV-1"
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
_PANEL, _FALL, _MOST = 0.5, 5.0, 200
"""A panel of the quadrature spans at most so much of ln E, and of the integrand's logarithm."""


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

    def copy(self) -> SpectralModel:
        """A copy that shares no parameter."""
        return type(self)(**{p.name: p for p in self.parameters})

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


class ConstantSpectralModel(SpectralModel):
    """The same differential flux at all energies."""

    tag = ("ConstantSpectralModel", "const")
    linear = "const"
    const = ParameterField(1e-12, DIFFERENTIAL, help="differential flux")

    def evaluate_values(self, values: np.ndarray, energy: np.ndarray) -> np.ndarray:
        return np.full(np.shape(energy), float(values[0]))

    def integral_values(
        self, values: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        return values[0] * (high - low), np.array([high - low])


class CurvedSpectralModel(SpectralModel):
    """Base of models without a closed integral: ``amplitude * exp(g(ln E))``.

    The integral over a bin is a Gauss-Legendre sum of 12 nodes in ln E on as many panels as keep
    the integrand simple: 1e-12 of the flux. The derivatives are sums over the same nodes.
    """

    def log_shape(self, values: np.ndarray, log_energy: np.ndarray) -> tuple[np.ndarray, Any]:
        """Logarithm of the flux at amplitude 1 and its derivatives.

        Parameters
        ----------
        values : ndarray, shape (n_parameters,)
        log_energy : ndarray
            ln(E / TeV).

        Returns
        -------
        g : ndarray, like log_energy
        slopes : dict of str to ndarray
            By every parameter but the amplitude.
        """
        raise NotImplementedError

    def evaluate_values(self, values: np.ndarray, energy: np.ndarray) -> np.ndarray:
        amplitude = values[self.parameters.names.index(self.linear)]
        g = self.log_shape(values, np.log(energy))[0]
        return np.asarray(amplitude * np.exp(np.minimum(g, 600.0)))

    def integral_values(
        self, values: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        names = self.parameters.names
        linear = names.index(self.linear)
        start, width = np.log(low), np.log(high) - np.log(low)
        # What the integrand does across a bin, seen at nine points: curves bend slowly in ln E.
        seen = start[:, None] + width[:, None] * np.linspace(0.0, 1.0, 9)
        fall = np.abs(np.diff(self.log_shape(values, seen)[0] + seen, axis=1)).max(axis=1) * 8.0
        wanted = np.ceil(np.maximum(width / _PANEL, np.minimum(fall, 1e3) / _FALL)).max(initial=1.0)
        panels = int(np.clip(wanted, 1, _MOST))
        step = width[:, None] / panels
        middle = start[:, None] + step * (np.arange(panels) + 0.5)
        t = middle[:, :, None] + 0.5 * step[:, :, None] * _NODES
        g, slopes = self.log_shape(values, t)
        content = np.exp(np.minimum(g + t, 600.0)) * (0.5 * step[:, :, None] * _WEIGHTS)
        flux = content.sum(axis=(1, 2))
        found = np.empty((len(names), len(flux)))
        for i, name in enumerate(names):
            if i == linear:
                found[i] = flux
            else:
                found[i] = values[linear] * (content * slopes[name]).sum(axis=(1, 2))
        return values[linear] * flux, found


class ExpCutoffPowerLawSpectralModel(CurvedSpectralModel):
    """``amplitude * (E / reference) ** -index * exp(-(lambda_ * E) ** alpha)``."""

    tag = ("ExpCutoffPowerLawSpectralModel", "ecpl")
    index = ParameterField(1.5, help="photon index below the cutoff")
    amplitude = ParameterField(1e-12, DIFFERENTIAL, help="flux at the reference but for the cutoff")
    reference = ParameterField(1.0, "TeV", frozen=True, help="reference energy")
    lambda_ = ParameterField(0.1, "TeV-1", help="inverse of the cutoff energy")
    alpha = ParameterField(1.0, frozen=True, help="how sharp the cutoff is")

    def log_shape(self, values: np.ndarray, log_energy: np.ndarray) -> tuple[np.ndarray, Any]:
        index, _, reference, rate, alpha = values
        distance = log_energy - np.log(reference)
        # A negative rate, which a fit may try, rises as steeply as its opposite falls.
        sign, size = np.sign(rate), max(abs(float(rate)), 1e-12)
        log_x = np.log(size) + log_energy
        cut = np.exp(np.minimum(alpha * log_x, 600.0))
        return -index * distance - sign * cut, {
            "index": -distance,
            "reference": np.full_like(distance, index / reference),
            "lambda_": -cut * alpha / size,
            "alpha": -sign * cut * log_x,
        }


class LogParabolaSpectralModel(CurvedSpectralModel):
    """``amplitude * (E / reference) ** (-alpha - beta * ln(E / reference))``."""

    tag = ("LogParabolaSpectralModel", "lp")
    amplitude = ParameterField(1e-12, DIFFERENTIAL, help="differential flux at the reference")
    reference = ParameterField(10.0, "TeV", frozen=True, help="reference energy")
    alpha = ParameterField(2.0, help="photon index at the reference")
    beta = ParameterField(1.0, help="how fast the index grows with ln E, halved")

    def log_shape(self, values: np.ndarray, log_energy: np.ndarray) -> tuple[np.ndarray, Any]:
        _, reference, alpha, beta = values
        distance = log_energy - np.log(reference)
        return -(alpha + beta * distance) * distance, {
            "reference": (alpha + 2.0 * beta * distance) / reference,
            "alpha": -distance,
            "beta": -(distance**2),
        }


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


class TemplateSpectralModel(SpectralModel):
    """A table of fluxes times ``norm * (E / reference) ** -tilt``.

    Between its energies the table is interpolated as power laws; outside them, and next to an
    entry of 0, there are no photons. In files a free or changed factor is written as Gammapy's
    product of a template and a PowerLawNormSpectralModel.

    Parameters
    ----------
    energy : Quantity or array, shape (n,)
        Rising; TeV if without a unit.
    values : Quantity or array, shape (n,)
        0 or more; cm-2 s-1 TeV-1 if without a unit.
    **factor
        ``norm``, ``tilt``, ``reference``.
    """

    tag = ("TemplateSpectralModel", "template")
    linear = "norm"
    tilt = ParameterField(0.0, frozen=True, help="softening of the table")
    norm = ParameterField(1.0, help="factor of the table")
    reference = ParameterField(1.0, "TeV", frozen=True, help="energy where the tilt has no effect")

    def __init__(self, energy: Any, values: Any, **factor: Any) -> None:
        super().__init__(**factor)
        self.energy = _table_column("energy", energy, "TeV")
        self.values = _table_column("values", values, DIFFERENTIAL)
        name = self.tag[0]
        if len(self.energy) != len(self.values) or len(self.energy) < 2:
            raise ModelError(
                f"{name}: {len(self.energy)} energies and {len(self.values)} values; expected as "
                "many of each, 2 or more"
            )
        if not (self.energy[0] > 0 and np.all(np.diff(self.energy) > 0)):
            raise ModelError(f"{name}.energy: expected positive energies that rise")
        if np.any(self.values < 0) or not np.any(self.values > 0):
            raise ModelError(f"{name}.values: expected no negative number and one above 0")

    def copy(self) -> TemplateSpectralModel:
        """A copy that shares no parameter."""
        return type(self)(self.energy, self.values, **{p.name: p for p in self.parameters})

    def _index(self) -> np.ndarray:
        """Photon index between two entries each; NaN where there are no photons."""
        full = (self.values[1:] > 0) & (self.values[:-1] > 0)
        log = np.log(np.where(self.values > 0, self.values, 1.0))
        return np.where(full, -np.diff(log) / np.diff(np.log(self.energy)), np.nan)

    def evaluate_values(self, values: np.ndarray, energy: np.ndarray) -> np.ndarray:
        tilt, norm, reference = values
        energy = np.asarray(energy, dtype=float)
        k = np.clip(np.searchsorted(self.energy, energy, "right") - 1, 0, len(self.energy) - 2)
        found = self.values[k] * (energy / self.energy[k]) ** -self._index()[k]
        inside = (energy >= self.energy[0]) & (energy <= self.energy[-1])
        table = np.where(inside, np.nan_to_num(found), 0.0)
        return np.asarray(norm * table * (energy / reference) ** -tilt)

    def integral_values(
        self, values: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        tilt, norm, reference = values
        index = self._index()
        used = np.flatnonzero(np.isfinite(index))
        start, stop = self.energy[used], self.energy[used + 1]
        # The overlap of every bin with every stretch of the table, in units of its lower end.
        first = np.maximum(low[:, None], start) / start
        last = np.maximum(np.minimum(high[:, None], stop) / start, first)
        shape, slope = _power_integral(index[used] + tilt, first, last)
        scale = self.values[used] * start * (start / reference) ** -tilt
        unit = (shape * scale).sum(axis=1)
        by_tilt = ((slope - shape * np.log(start / reference)) * scale).sum(axis=1)
        return norm * unit, np.array([norm * by_tilt, unit, norm * unit * (tilt / reference)])


SPECTRAL_MODELS: list[type[SpectralModel]] = [
    PowerLawSpectralModel,
    PowerLaw2SpectralModel,
    PowerLawNormSpectralModel,
    ExpCutoffPowerLawSpectralModel,
    LogParabolaSpectralModel,
    ConstantSpectralModel,
    TemplateSpectralModel,
]


def _power_integral(
    index: float | np.ndarray, low: np.ndarray, high: np.ndarray
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


def _table_column(name: str, data: Any, unit: str) -> np.ndarray:
    """A column of a template as floats in ``unit``, read-only."""
    try:
        column = np.array(u.Quantity(data, None if hasattr(data, "unit") else unit).to_value(unit))
        column = np.array(column, dtype=float)
    except (TypeError, ValueError, u.UnitConversionError) as error:
        raise ModelError(
            f"TemplateSpectralModel.{name}: not a list of numbers in '{unit}': {error}"
        ) from None
    if column.ndim != 1 or not np.all(np.isfinite(column)):
        raise ModelError(f"TemplateSpectralModel.{name}: expected a list of finite numbers")
    column.flags.writeable = False
    return column
