"""An instrument given by formulas, and what it counts of a source by quadrature: numpy only.

The likelihood is given maps of this instrument; the counts that toys are drawn from never pass
through them. A source is cut into points by Gauss-Legendre quadrature in polar coordinates, each
with the exposure, the PSF and the energy dispersion of its own place and energy; every point puts
the PSF's Gaussians into every pixel by Gauss-Legendre quadrature over the pixel. The sky is flat
but for the cosine of each point's latitude: within half a degree of the equator, where sources
are, that is right to 4e-5.
"""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from imgfit_widgets.core.maps import MapAxis, WcsGeom, WcsNDMap

SIDE, PIXEL = 40, 0.05
TRUE_EDGES = np.geomspace(0.3, 12.0, 17)
EDGES = np.array([0.5, 1.5, 6.0])
WIDTHS = np.array([0.04, 0.07, 0.12])
INDEX = 2.2


# --- formulas: positions in degrees, energies in TeV; arrays of one shape with a last energy axis
def exposure(lon: Any, lat: Any, energy: np.ndarray) -> np.ndarray:
    """In m2 s: falls off from a pointing at (0.3, -0.2), faster at high energy, and is tilted."""
    lon, lat = np.asarray(lon)[..., None], np.asarray(lat)[..., None]
    r2 = (lon - 0.3) ** 2 + (lat + 0.2) ** 2
    return 4e9 * energy**0.6 * np.exp(-0.12 * r2 * energy**0.2) * (1 + 0.1 * lon)


def psf_weights(lon: Any, lat: Any, energy: np.ndarray) -> np.ndarray:
    """Mixture over `WIDTHS`, last axis: narrower at high energy, wider towards one side."""
    narrow = 0.35 + 0.2 * np.log10(energy) - 0.03 * np.asarray(lon)[..., None]
    wide = 0.25 - 0.1 * np.log10(energy) + 0.02 * np.asarray(lat)[..., None]
    return np.stack([narrow, 1 - narrow - wide, wide], axis=-1)


def dispersion(energy: np.ndarray) -> np.ndarray:
    """Probability of each band of `EDGES`, shape (energy, band): 15 % wide and 5 % too low."""
    nodes, weights = np.polynomial.legendre.leggauss(60)
    shares = []
    for low, high in zip(np.log(EDGES[:-1]), np.log(EDGES[1:]), strict=True):
        t = 0.5 * (low + high) + 0.5 * (high - low) * nodes
        pull = (t - np.log(0.95 * energy)[:, None]) / 0.15
        density = np.exp(-0.5 * pull**2) / (0.15 * np.sqrt(2 * np.pi))
        shares.append(0.5 * (high - low) * density @ weights)
    return np.stack(shares, axis=-1)


def background(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Counts in a pixel of each band, shape (band, ...)."""
    shape = np.exp(-0.15 * (lon**2 + lat**2)) * (1 + 0.1 * lat)
    return np.stack([2.5 * shape, 0.5 * shape])


def energies(per_bin: int) -> tuple[np.ndarray, np.ndarray]:
    """Energies and fluxes (at 1 cm-2 s-1 between 0.5 and 6 TeV), shape (true bin, per_bin)."""
    fine = np.geomspace(TRUE_EDGES[:-1], TRUE_EDGES[1:], per_bin + 1)
    g = 1.0 - INDEX
    total = EDGES[-1] ** g - EDGES[0] ** g
    return np.sqrt(fine[:-1] * fine[1:]).T, ((fine[1:] ** g - fine[:-1] ** g) / total).T


# --- brute force
def points(kind: str, lon: float, lat: float, size: float) -> tuple[np.ndarray, ...]:
    """Longitude, latitude and share of the flux of the points that a source is cut into."""
    if kind == "point":
        return np.array([lon]), np.array([lat]), np.ones(1)
    reach = size if kind == "disk" else 5.5 * size
    x, w = np.polynomial.legendre.leggauss(20)
    angle = 2 * np.pi * (np.arange(36) + 0.5) / 36
    rho = 0.5 * reach * (x + 1)
    ring = w * rho * (1.0 if kind == "disk" else np.exp(-0.5 * (rho / size) ** 2))
    share = np.repeat(ring / ring.sum(), len(angle)) / len(angle)
    north = np.outer(rho, np.sin(angle)).ravel()
    east = np.outer(rho, np.cos(angle)).ravel()
    return lon + east / np.cos(np.radians(lat)), lat + north, share


def brute_force(kind: str, lon: float, lat: float, size: float, amplitude: float) -> np.ndarray:
    """Counts of a source, shape (band, y, x); ``amplitude`` in cm-2 s-1 from 0.5 to 6 TeV."""
    energy, flux = (part.ravel() for part in energies(3))
    x, y, share = points(kind, lon, lat, size)
    emitted = np.einsum(
        "ne,new,er->rwn",
        1e4 * amplitude * flux * exposure(x, y, energy) * share[:, None],
        psf_weights(x, y, energy),
        dispersion(energy),
    )
    nodes, weights = np.polynomial.legendre.leggauss(3)
    centre = PIXEL * (np.arange(SIDE) - 0.5 * (SIDE - 1))
    inner = centre[:, None] + 0.5 * PIXEL * nodes
    east = (-inner[None] - x[:, None, None]) * np.cos(np.radians(y))[:, None, None]
    north = inner[None] - y[:, None, None]
    found = np.zeros((len(EDGES) - 1, SIDE, SIDE))
    for k, sigma in enumerate(WIDTHS):
        across, along = (
            np.exp(-0.5 * (d / sigma) ** 2) @ (weights * 0.5 * PIXEL / (np.sqrt(2 * np.pi) * sigma))
            for d in (east, north)
        )
        across *= np.cos(np.radians(y))[:, None]
        found += np.stack([(along * part[:, None]).T @ across for part in emitted[:, k]])
    return found


# --- what the likelihood is given
@cache
def dataset() -> Any:
    """Maps of the instrument, responses averaged over the true-energy bins for an index of 2.

    Its counts are 0.
    """
    axis, axis_true = MapAxis("energy", EDGES), MapAxis("energy_true", TRUE_EDGES)
    width = (SIDE * PIXEL, SIDE * PIXEL)
    geom = WcsGeom.create((0.0, 0.0), width, PIXEL, "CAR", "galactic", [axis])
    coarse = WcsGeom.create((0.0, 0.0), width, 0.2, "CAR", "galactic")
    fine = np.geomspace(TRUE_EDGES[:-1], TRUE_EDGES[1:], 4)
    energy = np.sqrt(fine[:-1] * fine[1:]).T
    weight = (1 / fine[:-1] - 1 / fine[1:]).T
    weight /= weight.sum(axis=1, keepdims=True)

    def average(values: np.ndarray) -> np.ndarray:
        """From (..., fine energy) to (true bin, ...)."""
        by_bin = values.reshape(*values.shape[:-1], *weight.shape)
        return np.moveaxis((by_bin * weight).sum(axis=-1), -1, 0)

    def degrees(of: WcsGeom) -> tuple[np.ndarray, np.ndarray]:
        lon, lat = of.pixel_lonlat
        return (lon + 180.0) % 360.0 - 180.0, lat

    here, there = degrees(geom), degrees(coarse)
    effective = average(exposure(*here, energy.ravel()))
    # Photons that are detected decide the PSF and the dispersion of a bin.
    detected = average(exposure(0.0, 0.0, energy.ravel()))
    weights = psf_weights(*there, energy.ravel()) * exposure(0.0, 0.0, energy.ravel())[:, None]
    psf = average(np.moveaxis(weights, -2, -1)) / detected[:, None, None, None]
    spread = dispersion(energy.ravel()).T * exposure(0.0, 0.0, energy.ravel())
    edisp = average(spread) / detected[:, None]
    return SimpleNamespace(
        name="toy",
        geom=geom,
        energy_axis=axis,
        energy_axis_true=axis_true,
        counts=WcsNDMap(geom, np.zeros(geom.data_shape)),
        background=WcsNDMap(geom, background(*here)),
        exposure=WcsNDMap(geom.to_cube([axis_true]), effective, "m2 s"),
        edisp=SimpleNamespace(data=edisp[:, :, None, None] * np.ones(coarse.shape), geom=coarse),
        psf=SimpleNamespace(
            widths=WIDTHS, weights=np.ascontiguousarray(np.moveaxis(psf, -1, 1)), geom=coarse
        ),
        mask=None,
        models=None,
    )
