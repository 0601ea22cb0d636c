"""`FluxMaps`: what the map estimators return, one map for each quantity and energy band."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from ..errors import DataError
from ..maps import MapAxis, WcsGeom, WcsNDMap
from ..models import SkyModel

__all__ = ["UNITS", "FluxMaps"]

UNITS = {"flux": "cm-2 s-1"}
"""Units of quantities that start with a word; the others are counts, sigmas or pure numbers."""


@dataclass(frozen=True, eq=False)
class FluxMaps:
    """Maps of several quantities over the same bands and pixels.

    Attributes
    ----------
    maps : mapping of str to `WcsNDMap`
        Each of shape (band, ny, nx); NaN outside the mask.
    kind : str
        The estimator that made them.
    reference_model : `SkyModel` or None
        What a norm of 1 stands for.
    meta : dict
        Correlation radius or kernel, n_sigma and the like.
    """

    maps: Mapping[str, WcsNDMap]
    kind: str
    reference_model: SkyModel | None = field(default=None, repr=False)
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def available_quantities(self) -> list[str]:
        """Names of the maps."""
        return list(self.maps)

    @property
    def geom(self) -> WcsGeom:
        return next(iter(self.maps.values())).geom

    @property
    def energy_axis(self) -> MapAxis:
        return self.geom.axes["energy"]

    def __getitem__(self, name: str) -> WcsNDMap:
        if name not in self.maps:
            raise DataError(
                f"{self.kind}: there is no map {name!r}; there are {', '.join(self.maps)}"
            )
        return self.maps[name]

    def __getattr__(self, name: str) -> WcsNDMap:
        # As in Gammapy, ``maps.sqrt_ts`` is ``maps["sqrt_ts"]``.
        if name.startswith("_") or name not in self.maps:
            raise AttributeError(name)
        return self.maps[name]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the bands, and where each is highest."""
        bands = []
        bounds = self.energy_axis.bounds
        for band, image in enumerate(self["sqrt_ts"].data):
            row: dict[str, Any] = {
                "energy_min": float(bounds[band]),
                "energy_max": float(bounds[band + 1]),
                "n_pixels": int(np.isfinite(image).sum()),
            }
            if row["n_pixels"]:
                y, x = np.unravel_index(int(np.nanargmax(image)), image.shape)
                lon, lat = self.geom.pix_to_lonlat(x, y)
                row["peak"] = {"lon": float(lon), "lat": float(lat), "sqrt_ts": float(image[y, x])}
            bands.append(row)
        return {
            "kind": self.kind,
            "frame": self.geom.frame,
            "quantities": self.available_quantities,
            "bands": bands,
            **self.meta,
        }

    def write(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write a FITS file with one image HDU a quantity, of (band, y, x), and the bands' edges.

        Raises
        ------
        DataError
            If the file exists and is not to be overwritten, or cannot be written.
        """
        target = Path(path)
        if target.exists() and not overwrite:
            raise DataError(f"{target}: exists already; pass overwrite=True to replace it")
        hdus: list[Any] = [fits.PrimaryHDU()]
        for name, image in self.maps.items():
            header = image.geom.wcs.to_header()
            if image.unit:
                header["BUNIT"] = image.unit
            hdus.append(fits.ImageHDU(image.data.astype(np.float32), header, name.upper()))
        bounds = self.energy_axis.bounds
        columns = [
            fits.Column("CHANNEL", "J", array=np.arange(len(bounds) - 1)),
            fits.Column("E_MIN", "D", unit="TeV", array=bounds[:-1]),
            fits.Column("E_MAX", "D", unit="TeV", array=bounds[1:]),
        ]
        hdus.append(fits.BinTableHDU.from_columns(columns, name="ENERGY_BANDS"))
        try:
            fits.HDUList(hdus).writeto(target, overwrite=overwrite)
        except OSError as error:
            raise DataError(f"{target}: cannot be written ({error})") from error

    def __str__(self) -> str:
        info = self.to_dict()
        lines = [self.kind, "-" * len(self.kind), ""]
        lines.append(f"  Quantities : {', '.join(self.available_quantities)}")
        for band in info["bands"]:
            text = f"  {band['energy_min']:.3g} to {band['energy_max']:.3g} TeV: "
            if "peak" in band:
                peak = band["peak"]
                text += (
                    f"highest at {self.geom.frame} ({peak['lon']:.3f}, {peak['lat']:.3f}) deg, "
                    f"sqrt(TS) {peak['sqrt_ts']:.2f}"
                )
            else:
                text += "no pixel with valid data"
            lines.append(text)
        return "\n".join(lines) + "\n"
