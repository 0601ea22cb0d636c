"""Point spread functions of DL3 files, each given out as mixtures of Gaussians (`mixture`).

`MultiGaussPSF`
    PSF_3GAUSS.
`KingPSF`
    PSF_KING.
`TablePSF`
    PSF_TABLE.

Each has ``mixture(energies, offsets)``; `PSFMap` is what a dataset holds of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError
from ..products import product
from .axis import FloatArray, IrfAxis
from .mixture import (
    PSF_WIDTHS,
    RAD_BOUNDS,
    add_gaussians,
    from_annuli,
    from_profiles,
    king,
    profiles,
    spread,
)
from .psf_map import PSFMap

__all__ = [
    "PSF_WIDTHS",
    "RAD_BOUNDS",
    "KingPSF",
    "MultiGaussPSF",
    "PSFMap",
    "TablePSF",
    "from_profiles",
    "profiles",
    "spread",
]


@dataclass(frozen=True, eq=False)
class MultiGaussPSF:
    """Up to three concentric Gaussians per true energy and offset (PSF_3GAUSS).

    Parameters
    ----------
    energy, offset : `IrfAxis`
        TeV and degrees.
    amplitude : ndarray, shape (3, energy, offset)
        Relative heights at the centre, the first one 1.
    sigma : ndarray, shape (3, energy, offset)
        Degrees; 0 means that the component is not used.
    """

    tag = "psf_3gauss"

    energy: IrfAxis
    offset: IrfAxis
    amplitude: FloatArray
    sigma: FloatArray

    def __post_init__(self) -> None:
        sigma, amplitude = np.array(self.sigma, dtype=float), np.array(self.amplitude, dtype=float)
        if not np.any(sigma > 0):
            raise DataError("psf_3gauss: every SIGMA is 0")
        # An unused component must not drag its neighbours' interpolated width towards 0, nor an
        # empty node at large offset or high energy: they take the nearest used width.
        for component in range(len(sigma)):
            used = sigma[component] > 0
            amplitude[component][~used] = 0.0 if component else 1.0
            if np.any(used):
                sigma[component] = _fill_nearest(sigma[component], used)
            else:
                sigma[component] = 1.0
        for name, array in (("sigma", sigma), ("amplitude", amplitude)):
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def mixture(self, energies: ArrayLike, offsets: ArrayLike) -> FloatArray:
        """Weights at true energies (T,) in TeV and offsets (P,) in degrees: (T, P, W).

        As the field does, the parameters are interpolated linearly, then normalised.
        """
        at_energy, at_offset = self.energy.weights(energies), self.offset.weights(offsets).T
        heights = np.maximum(product(at_energy @ self.amplitude, at_offset), 0.0)  # (3, T, P)
        widths = product(at_energy @ self.sigma, at_offset)
        content = heights * widths**2
        with np.errstate(invalid="ignore", divide="ignore"):
            content = np.nan_to_num(content / content.sum(axis=0))
        mixture = np.zeros((*content.shape[1:], len(PSF_WIDTHS)))
        for width, part in zip(widths, content, strict=True):
            if np.any(part > 0):
                add_gaussians(mixture.reshape(-1, len(PSF_WIDTHS)), width.ravel(), part.ravel())
        return mixture


def _fill_nearest(values: NDArray[Any], used: NDArray[np.bool_]) -> NDArray[Any]:
    """Values of unused nodes replaced by the nearest used one, along offset before energy."""
    filled = values.copy()
    energy, offset = np.nonzero(used)
    row, column = (place[:, None] for place in np.nonzero(~used))
    nearest = np.argmin(10 * np.abs(energy - row) + np.abs(offset - column), axis=1)
    filled[~used] = values[used][nearest]
    return filled


@dataclass(frozen=True, eq=False)
class KingPSF:
    """A King profile per true energy and offset (PSF_KING).

    ``(1 - 1 / gamma) / (2 pi sigma^2) (1 + r^2 / (2 gamma sigma^2))^-gamma`` (GADF v0.3).

    Parameters
    ----------
    energy, offset : `IrfAxis`
        TeV and degrees.
    sigma, gamma : ndarray, shape (energy, offset)
        Degrees, and the exponent; a node with a sigma of 0 is not used.
    """

    tag = "psf_king"

    energy: IrfAxis
    offset: IrfAxis
    sigma: FloatArray
    gamma: FloatArray

    def __post_init__(self) -> None:
        used = (self.sigma > 0) & (self.gamma > 1)
        if not used.any():
            raise DataError("psf_king: no SIGMA is above 0 with a GAMMA above 1")
        for name in ("sigma", "gamma"):
            array = _fill_nearest(np.array(getattr(self, name), dtype=float), used)
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def mixture(self, energies: ArrayLike, offsets: ArrayLike) -> FloatArray:
        """Weights at true energies (T,) in TeV and offsets (P,) in degrees: (T, P, W).

        As the field does, the parameters are interpolated linearly.
        """
        at_energy, at_offset = self.energy.weights(energies), self.offset.weights(offsets).T
        sigma = product(at_energy @ self.sigma, at_offset)
        gamma = product(at_energy @ self.gamma, at_offset)
        weights = king(np.maximum(sigma, 0.0).ravel(), gamma.ravel())
        return weights.reshape(*sigma.shape, len(PSF_WIDTHS))


@dataclass(frozen=True, eq=False)
class TablePSF:
    """Radial profiles per true energy and offset (PSF_TABLE).

    Parameters
    ----------
    energy, offset : `IrfAxis`
        TeV and degrees.
    rad : ndarray, shape (R + 1,)
        Edges of the radial bins, degrees.
    data : ndarray, shape (energy, offset, R)
        Surface brightness in any unit; rows of zeros are empty.
    """

    tag = "psf_table"

    energy: IrfAxis
    offset: IrfAxis
    rad: FloatArray
    data: FloatArray
    _annuli: FloatArray = field(init=False, repr=False)  # (nodes, R), contents
    _place: NDArray[np.intp] = field(init=False, repr=False)  # (energy, offset), nodes to take
    _scale: FloatArray = field(init=False, repr=False)  # (energy, offset)
    _mixtures: FloatArray = field(init=False, repr=False)  # (nodes, W), NaN until fitted

    def __post_init__(self) -> None:
        values = np.maximum(np.nan_to_num(np.asarray(self.data, dtype=float), posinf=0.0), 0.0)
        annuli = values * np.diff(self.rad**2)
        total = annuli.sum(axis=2)
        used = total > 0
        if not np.any(used):
            raise DataError("psf_table: every profile is empty")
        object.__setattr__(self, "_annuli", annuli.reshape(-1, annuli.shape[2]))
        # An empty profile takes the nearest one, with next to no weight beside others.
        place = _fill_nearest(np.arange(total.size).reshape(total.shape), used)
        object.__setattr__(self, "_place", place)
        object.__setattr__(self, "_scale", np.where(used, total, 1e-9 * total[used].min()))
        object.__setattr__(self, "_mixtures", np.full((total.size, len(PSF_WIDTHS)), np.nan))

    def _content(self, nodes: NDArray[np.bool_]) -> FloatArray:
        """Mixtures at some nodes (energy, offset), 0 at others: (energy, offset, W).

        Profiles are interpolated before they are normalised, so each counts by what it holds. They
        are fitted when they are first asked for, which for most is never.
        """
        wanted = np.unique(self._place[nodes])
        wanted = wanted[np.isnan(self._mixtures[wanted, 0])]
        if len(wanted):
            self._mixtures[wanted] = from_annuli(self._annuli[wanted].T, self.rad).T
        content = np.zeros((*nodes.shape, len(PSF_WIDTHS)))
        content[nodes] = self._mixtures[self._place[nodes]] * self._scale[nodes][:, None]
        return content

    def mixture(self, energies: ArrayLike, offsets: ArrayLike) -> FloatArray:
        """Weights at true energies (T,) in TeV and offsets (P,) in degrees: (T, P, W).

        As the field does, profiles are interpolated linearly, then normalised.
        """
        at_energy, at_offset = self.energy.weights(energies), self.offset.weights(offsets)
        content = self._content(np.outer(at_energy.any(axis=0), at_offset.any(axis=0)))
        n_energy, n_offset, n_widths = content.shape
        found = product(at_energy, content.reshape(n_energy, -1))
        found = product(at_offset, found.reshape(-1, n_offset, n_widths))
        np.maximum(found, 0.0, out=found)
        total = found.sum(axis=2, keepdims=True)
        return np.asarray(np.divide(found, total, out=np.zeros_like(found), where=total > 0))
