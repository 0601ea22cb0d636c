"""Sources as regions of DS9 and back.

A point, a circle or ellipse, and an annulus become a point, a disk and a shell; a region with the
tag ``gauss`` or ``gauss-general`` becomes that shape. Names are the regions' texts. The package
`regions` is loaded inside the functions, because it loads a figure library.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from astropy import units as u
from astropy.coordinates import SkyCoord

from ..errors import ModelError
from .collection import Models
from .sky import SkyModel
from .spatial import (
    DiskSpatialModel,
    EllipticModel,
    GaussianSpatialModel,
    GeneralizedGaussianSpatialModel,
    PointSpatialModel,
    Shell2SpatialModel,
    ShellSpatialModel,
    SpatialModel,
)
from .spectral import PowerLaw2SpectralModel, SpectralModel

__all__ = [
    "models_from_ds9",
    "models_from_regions",
    "models_to_regions",
    "read_regions",
    "write_regions",
]

_ELLIPTIC: list[type[EllipticModel]] = [
    DiskSpatialModel,
    GaussianSpatialModel,
    GeneralizedGaussianSpatialModel,
]


def models_to_regions(models: Iterable[Any]) -> Any:
    """Regions of the sources that have an outline: their size parameter, without the PSF.

    Parameters
    ----------
    models : Models
        Templates, flat emission and backgrounds are left out.

    Returns
    -------
    regions.Regions
        Points, ellipses (circles where round) and annuli with name and shape in ``meta``.
    """
    from regions import Regions

    found = []
    for model in models:
        if not isinstance(model, SkyModel):
            continue
        region = _to_region(model.spatial_model)
        if region is not None:
            region.meta["text"] = model.name
            region.meta["tag"] = [model.spatial_model.tag[-1]]
            found.append(region)
    return Regions(found)


def models_from_regions(
    regions: Iterable[Any],
    spectral_model: SpectralModel | None = None,
    frame: str | None = None,
) -> Models:
    """Sources of the shape of some regions.

    Parameters
    ----------
    regions : iterable of regions.SkyRegion
        Points, circles, ellipses and annuli.
    spectral_model : SpectralModel, optional
        Each source gets a copy; a power law of index 2 with a flux of 1e-12 cm-2 s-1 between 0.1
        and 100 TeV by default.
    frame : str, optional
        ``icrs`` or ``galactic``; by default that of each region.

    Raises
    ------
    ModelError
        For a region that is no source shape: its number, kind and what is expected.
    """
    models = Models()
    for number, region in enumerate(regions):
        where = f"regions[{number}]"
        spatial = _from_region(region, frame, where)
        text = str(region.meta.get("text") or region.meta.get("label") or "").strip()
        name = text if text and text not in models.names else models.unique_name(text or "source")
        spectral = spectral_model or PowerLaw2SpectralModel()
        copy = type(spectral)(**{p.name: p for p in spectral.parameters})
        models.append(SkyModel(copy, spatial, name))
    return models


def read_regions(
    path: str | os.PathLike[str],
    spectral_model: SpectralModel | None = None,
    frame: str | None = None,
) -> Models:
    """Sources from a region file of DS9 (``.reg``)."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise ModelError(f"{path}: region file cannot be read: {reason}") from None
    return models_from_ds9(text, spectral_model, frame, str(path))


def models_from_ds9(
    text: str,
    spectral_model: SpectralModel | None = None,
    frame: str | None = None,
    where: str = "regions",
) -> Models:
    """Sources from the text of a region file of DS9; ``where`` begins error messages."""
    from regions import Regions

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            regions = Regions.parse(text, format="ds9")
    except Exception as error:
        raise ModelError(f"{where}: not a region file of DS9: {error}") from None
    if not len(regions):
        raise ModelError(f"{where}: no region; expected points, circles, ellipses or annuli")
    try:
        return models_from_regions(regions, spectral_model, frame)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None


def write_regions(
    models: Iterable[Any], path: str | os.PathLike[str], overwrite: bool = False
) -> None:
    """Write the sources as a region file of DS9."""
    target = Path(path).expanduser()
    if target.exists() and not overwrite:
        raise ModelError(f"{target}: the file exists; give overwrite=True to replace it")
    target.write_text(models_to_regions(models).serialize(format="ds9"), encoding="utf-8")


def _to_region(spatial: SpatialModel) -> Any:
    from regions import (
        CircleAnnulusSkyRegion,
        CircleSkyRegion,
        EllipseSkyRegion,
        PointSkyRegion,
    )

    if isinstance(spatial, PointSpatialModel):
        return PointSkyRegion(spatial.position)
    if isinstance(spatial, EllipticModel):
        major, minor, phi = spatial.semi_axes
        if not minor > 0:  # regions have no size of 0
            return PointSkyRegion(spatial.position)
        if major == minor:
            return CircleSkyRegion(spatial.position, major * u.deg)
        return EllipseSkyRegion(
            spatial.position,
            width=2 * minor * u.deg,
            height=2 * major * u.deg,
            angle=math.degrees(phi) * u.deg,
        )
    if isinstance(spatial, (ShellSpatialModel, Shell2SpatialModel)):
        inner, outer = spatial.radii
        if not outer > 0:
            return PointSkyRegion(spatial.position)
        if not inner > 0:
            return CircleSkyRegion(spatial.position, outer * u.deg)
        return CircleAnnulusSkyRegion(spatial.position, inner * u.deg, outer * u.deg)
    return None


def _from_region(region: Any, frame: str | None, where: str) -> SpatialModel:
    from regions import (
        CircleAnnulusSkyRegion,
        CircleSkyRegion,
        EllipseSkyRegion,
        PointSkyRegion,
    )

    kind = type(region).__name__
    centre = getattr(region, "center", None)
    if not isinstance(centre, SkyCoord) or not centre.isscalar:
        raise ModelError(
            f"{where}: a {kind} is no shape of a source; expected a point, circle, ellipse or "
            "annulus in sky coordinates"
        )
    own = frame or ("galactic" if centre.frame.name == "galactic" else "icrs")
    at = centre.transform_to(own).spherical
    place: dict[str, Any] = {"frame": own, "lon_0": at.lon.deg, "lat_0": at.lat.deg}
    tags = region.meta.get("tag") or []
    tags = [tags] if isinstance(tags, str) else [str(tag) for tag in tags]
    if isinstance(region, PointSkyRegion):
        return PointSpatialModel(**place)
    if isinstance(region, CircleAnnulusSkyRegion):
        inner, outer = (_degrees(r, where) for r in (region.inner_radius, region.outer_radius))
        if any(tag in Shell2SpatialModel.tag for tag in tags):
            return Shell2SpatialModel(**place, r_0=outer, eta=1.0 - inner / outer)
        return ShellSpatialModel(**place, radius=inner, width=outer - inner)
    if isinstance(region, CircleSkyRegion):
        major = minor = _degrees(region.radius, where)
        angle = 0.0
    elif isinstance(region, EllipseSkyRegion):
        width, height = (0.5 * _degrees(v, where) for v in (region.width, region.height))
        # Height lies along North at an angle of 0, and turns towards East as phi does.
        angle = float(region.angle.to_value("deg"))
        major, minor = max(width, height), min(width, height)
        if width > height:
            angle += 90.0
        if own != ("galactic" if centre.frame.name == "galactic" else "icrs"):
            angle += _turn(centre, own)
    else:
        raise ModelError(
            f"{where}: a {kind} is no shape of a source; expected a point, circle, ellipse or "
            "annulus"
        )
    shape = next((c for c in _ELLIPTIC if set(c.tag) & set(tags)), DiskSpatialModel)
    values: dict[str, Any] = {str(shape.size_parameter): major}
    if minor < major:
        values |= {
            "e": math.sqrt(1.0 - (minor / major) ** 2),
            "phi": (angle + 90.0) % 180.0 - 90.0,
        }
    return shape(**place, **values)


def _degrees(value: Any, where: str) -> float:
    size = float(value.to_value("deg"))
    if not size > 0:
        raise ModelError(f"{where}: a size is {size:g} deg; expected more than 0")
    return size


def _turn(centre: SkyCoord, frame: str) -> float:
    """Position angle (deg) in another frame of the North of a position's own frame."""
    up = centre.directional_offset_by(0 * u.deg, 1 * u.arcmin)
    return float(centre.transform_to(frame).position_angle(up.transform_to(frame)).deg)
