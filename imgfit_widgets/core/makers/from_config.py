"""From a configuration to the settings of a reduction."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..config import AnalysisConfig, EnergyAxis
from ..errors import DataError
from ..fits_maps import read_geom
from ..maps import MapAxis, WcsGeom, convert_frame
from ..options import FoVBackgroundOptions, RingOptions, SafeMaskOptions
from .background import (
    AdaptiveRingBackground,
    BackgroundMethod,
    FoVBackground,
    RingBackground,
)
from .exclusion import Exclusion
from .reduction import Reduction
from .safe_mask import SafeMask

PROJECTIONS = ("CAR", "TAN")
"""Projections of the maps that a configuration describes; others come from a FITS image."""

Geometry = WcsGeom | str | os.PathLike[str] | None


def reduction_from_config(
    config: AnalysisConfig, accuracy: str = "exact", geometry: Geometry = None
) -> Reduction:
    """The reduction that a configuration asks for.

    Parameters
    ----------
    config : `AnalysisConfig`
    accuracy : {"exact", "gammapy"}
    geometry : `WcsGeom`, path or str, optional
        The pixels of the maps instead of those that the configuration asks for: a geometry, a FITS
        image whose pixels are taken, or a projection (``CAR``, the default, or ``TAN``) for the
        pixels of the configuration.

    Raises
    ------
    ConfigError, DataError
        For an option, an exclusion or a geometry that cannot be used.
    """
    settings = config.datasets
    axes, background = settings.geom.axes, settings.background
    exact = accuracy == "exact"
    axis = _energy_axis(axes.energy, "energy", exact)
    true = axes.energy if axes.energy_true.min is None else axes.energy_true
    exclusion = None
    if background.exclusion is not None and background.method is not None:
        exclusion = Exclusion(background.exclusion, background.path_of("exclusion"))
    return Reduction(
        geom=_geometry(config, axis, geometry),
        energy_axis_true=_energy_axis(true, "energy_true", exact),
        binsz_irf=settings.geom.wcs.binsize_irf.to_value("deg"),
        offset_max=settings.geom.selection.offset_max.to_value("deg"),
        safe_mask=_safe_mask(settings.safe_mask.methods, settings.safe_mask.options()),
        background=_background(background.options(), exact),
        exclusion=exclusion,
        selection=tuple(settings.map_selection),
        accuracy=accuracy,
    )


def _geometry(config: AnalysisConfig, axis: MapAxis, given: Geometry) -> WcsGeom:
    if isinstance(given, WcsGeom):
        return given.to_cube([axis])
    projection = "CAR"
    if given is not None:
        if str(given).upper() not in PROJECTIONS:
            if not Path(given).is_file():
                raise DataError(
                    f"geometry: {str(given)!r}: no such file; expected {', '.join(PROJECTIONS)} or "
                    "a FITS image"
                )
            return read_geom(given).to_cube([axis])
        projection = str(given).upper()
    wcs = config.datasets.geom.wcs
    return WcsGeom.create(
        (wcs.skydir.lon.to_value("deg"), wcs.skydir.lat.to_value("deg")),
        (wcs.width.width.to_value("deg"), wcs.width.height.to_value("deg")),
        wcs.binsize.to_value("deg"),
        projection,
        wcs.skydir.frame,
        axes=[axis],
    )


def _energy_axis(section: EnergyAxis, name: str, exact: bool) -> MapAxis:
    axis = MapAxis.from_energy_bounds(section.min, section.max, section.nbins, name)
    if exact:
        return axis
    # Gammapy's edges are off in the last bit, which decides whether a bin ends within a range.
    low, high = (np.log(end.to_value("TeV")) for end in (section.min, section.max))
    return MapAxis(name, np.exp(np.linspace(low, high, section.nbins + 1)))


def _safe_mask(methods: Iterable[str], options: SafeMaskOptions) -> SafeMask:
    position = None
    if options.position.is_set():
        at = options.position
        lon, lat = convert_frame(at.lon.deg, at.lat.deg, at.frame, "icrs")
        position = float(lon), float(lat)
    fixed = options.fixed_offset
    return SafeMask(
        tuple(methods),
        options.offset_max.to_value("deg"),
        options.aeff_percent,
        options.bias_percent,
        position,
        None if fixed is None else fixed.to_value("deg"),
        options.irfs == "DL3",
    )


def _background(
    options: FoVBackgroundOptions | RingOptions | None, exact: bool
) -> BackgroundMethod | None:
    if options is None:
        return None
    if isinstance(options, FoVBackgroundOptions):
        return FoVBackground(options.min_counts, options.min_npred_background)
    r_in, width = options.r_in.to_value("deg"), options.width.to_value("deg")
    if not options.adaptive:
        return RingBackground(r_in, width, inside_only=exact)
    return AdaptiveRingBackground(
        r_in,
        width,
        options.r_out_max.to_value("deg"),
        options.stepsize.to_value("deg"),
        options.threshold_alpha,
        options.theta.to_value("deg") if exact else 0.0,
        options.method == "fixed_width",
        inside_only=exact,
    )
