"""How a source gets another shape, spectrum or frame, and keeps what can be kept.

A new shape keeps the position and the extent on the sky, a new spectrum the flux in a band and the
slope, another frame the place and the orientation. `put` replaces a part and carries links along;
`unlink` takes a parameter out of the ones that it is linked with. `signature` is what a fit depends
on besides the values.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .core.errors import ModelError
from .core.maps import convert_frame
from .core.models import (
    SPATIAL_MODELS,
    SPECTRAL_MODELS,
    ConstantSpectralModel,
    Models,
    Parameter,
    SkyModel,
    SpatialModel,
    SpectralModel,
    TemplateSpatialModel,
    TemplateSpectralModel,
)
from .core.models.spatial import Wave

SOURCE_SPECTRA = [cls for cls in SPECTRAL_MODELS if cls.unit]
"""Spectra of sources; one without a unit is the factor of a background."""
TABLE_POINTS = 41  # of a spectrum that is turned into a table
_REACH = 0.1  # phase at which a transform is still a parabola
_POLE = 1e-3  # deg; step towards the north whose direction in another frame is wanted


def shape_of(spatial: str | type[SpatialModel]) -> type[SpatialModel]:
    """A spatial model class from one of its tags; ModelError if there is none."""
    if not isinstance(spatial, str):
        return spatial
    known = {tag: cls for cls in SPATIAL_MODELS for tag in cls.tag}
    if spatial not in known:
        raise ModelError(f"{spatial!r} is not a shape; expected one of {', '.join(known)}")
    return known[spatial]


def spectrum_of(tag: str) -> type[SpectralModel]:
    """The spectral model class of a source from one of its tags; ModelError if there is none."""
    known = {name: cls for cls in SOURCE_SPECTRA for name in cls.tag}
    if tag not in known:
        raise ModelError(f"{tag!r} is not a spectrum; expected one of {', '.join(known)}")
    return known[tag]


# --- shape
def reshaped(source: SkyModel, tag: str, filename: str | None = None) -> SpatialModel:
    """Another shape for a source, at the same position and of the same extent.

    Parameters
    ----------
    source : SkyModel
    tag : str
    filename : str, optional
        The image of a template, which keeps its own position.

    Raises
    ------
    ModelError
        There is no such shape, or it needs a file and none is given, or the file cannot be used.
    """
    cls, old = shape_of(tag), source.spatial_model
    if cls.needs_file:
        if not (filename or "").strip():
            raise ModelError(
                f"{source.name}: a {cls.tag[0]} needs an image; expected the path of a FITS file"
            )
        return TemplateSpatialModel.read(str(filename).strip())
    lon, lat = old.position_lonlat
    new = cls.new_at(lon, lat, source.frame)
    kept = [name for name in ("lon_0", "lat_0", "e", "phi") if name in new.parameters.names]
    for name in kept:
        if name in old.parameters.names:
            _take_over(old.parameters[name], new.parameters[name])
    size, start = _extent(old, "e" in kept), _extent(new, "e" in kept)
    if size > 0 and start > 0:
        for part in cls.size_names:
            parameter = new.parameters[part]
            parameter.value = float(f"{parameter.value * size / start:.4g}")
    return new


def _take_over(old: Parameter, new: Parameter) -> None:
    """Make a parameter like another, as far as its own limits allow."""
    value = old.value * old.factor_to_expected
    new.value = float(np.fmin(np.fmax(value, new.min), new.max))
    new.frozen = old.frozen


def _extent(shape: SpatialModel, along: bool) -> float:
    """Standard deviation of a shape on the sky in degrees: of its major axis, or the mean of both.

    From the curvature of its transform at the origin; 0 for what is a point or has no transform.
    """
    values = shape.canonical_values()[2:]
    reach = shape.reach(values) if shape.size_parameter is not None else 0.0
    if not reach > 0:
        return 0.0
    names = shape.shape_names
    phi = math.radians(values[names.index("phi")]) if "phi" in names else 0.0
    k = _REACH / reach
    east = k * np.array([math.sin(phi), math.cos(phi)])
    north = k * np.array([math.cos(phi), -math.sin(phi)])
    total = shape.transform(values, Wave.of(0.0, 0.0), False)[0]
    ratio = shape.transform(values, Wave.of(east, north), False)[0] / total
    major, minor = np.sqrt(np.maximum(2.0 * (1.0 - ratio), 0.0)) / k
    return float(major if along else math.sqrt(major * minor))


def reframed(source: SkyModel, frame: str) -> SpatialModel:
    """The shape of a source with its position and orientation in another frame.

    Raises
    ------
    ModelError
        The frame is not known, or the shape is an image, whose frame is its own.
    """
    old: SpatialModel = source.spatial_model
    if frame == old.frame:
        return old.copy()
    if old.needs_file:
        raise ModelError(f"{source.name}: its frame is that of its image, {old.frame}")
    lon, lat = old.position_lonlat
    new: SpatialModel = type(old).new_at(lon, lat, frame)
    for parameter in old.parameters:
        twin = new.parameters[parameter.name]
        twin.unit = parameter.unit
        if parameter.name not in ("lon_0", "lat_0", "phi"):
            twin.min = twin.max = np.nan
            twin.value = parameter.value
            twin.min, twin.max = parameter.min, parameter.max
        twin.frozen, twin.prior = parameter.frozen, parameter.prior
    if old.has_position:
        at, up = (convert_frame(lon, b, old.frame, frame) for b in (lat, lat + _POLE))
        for name, value in zip(("lon_0", "lat_0"), at, strict=True):
            parameter = new.parameters[name]
            parameter.prior = None
            parameter.value = float(value) / parameter.factor_to_expected
        if "phi" in new.parameters.names:
            east = (float(up[0] - at[0]) + 180.0) % 360.0 - 180.0
            east *= math.cos(math.radians(float(at[1])))
            turn = math.degrees(math.atan2(east, float(up[1] - at[1])))
            phi = old.parameters["phi"]
            angle = phi.value * phi.factor_to_expected + turn
            new.parameters["phi"].value = ((angle + 90.0) % 180.0 - 90.0) / phi.factor_to_expected
    return new


# --- spectrum
def respectred(
    source: SkyModel, tag: str, band: tuple[float, float], bands: int = 1
) -> SpectralModel:
    """Another spectrum for a source, of the same flux in a band.

    The slope and the reference are kept where both have one; a curvature starts at 0. A table is
    that of the present spectrum.

    Parameters
    ----------
    source : SkyModel
    tag : str
    band : (float, float)
        Energies in TeV.
    bands : int
        In how many the data are: a single one says nothing of a spectrum's shape.
    """
    cls, old = spectrum_of(tag), source.spectral_model
    low, high = band
    if cls is TemplateSpectralModel:
        energy = np.geomspace(low / 10.0, high * 10.0, TABLE_POINTS)
        flux = np.maximum(old.evaluate(energy), 0.0)
        if not flux.any():
            raise ModelError(f"{source.name}: its flux is not above 0, so it makes no table")
        return TemplateSpectralModel(energy, flux)
    new = cls()
    slopes = ("index", "alpha") if "beta" in new.parameters.names else ("index",)
    for name in slopes:
        if name in new.parameters.names and (slope := _slope(old)) is not None:
            _take_over(slope, new.parameters[name])
    if "reference" in new.parameters.names and "reference" in old.parameters.names:
        _take_over(old.parameters["reference"], new.parameters["reference"])
    elif "reference" in new.parameters.names:
        new.parameters["reference"].value = 1.0
    if "emin" in new.parameters.names:
        new.parameters["emin"].value, new.parameters["emax"].value = low, high
    if "beta" in new.parameters.names:
        new.parameters["beta"].value = 0.0
    linear = new.parameters[new.linear]
    linear.value *= float(old.integral(low, high)) / float(new.integral(low, high))
    linear.frozen = old.parameters[old.linear].frozen
    if bands == 1:
        for parameter in new.parameters:
            parameter.frozen = parameter.frozen or parameter is not linear
    return new


def _slope(spectrum: SpectralModel) -> Parameter | None:
    """The photon index of a spectrum; None if it has none."""
    names = spectrum.parameters.names
    if "beta" in names:
        return spectrum.parameters["alpha"]
    if "index" in names:
        return spectrum.parameters["index"]
    flat = isinstance(spectrum, ConstantSpectralModel)
    return Parameter("index", 0.0) if flat else None


# --- parts and links
def put(models: Models, name: str, part: SpatialModel | SpectralModel) -> None:
    """Give a source another shape or spectrum; links stay where the value does."""
    model = models[name]
    kind = "spatial_model" if isinstance(part, SpatialModel) else "spectral_model"
    groups = []
    for gone in getattr(model, kind).parameters:
        others = linked_with(models, gone)
        unlink(models, gone)
        if others and gone.name in part.parameters.names:
            groups.append((part.parameters[gone.name], others[0]))
    setattr(model, kind, part)
    for parameter, other in groups:
        same = other.unit.is_equivalent(parameter.unit) and other.owner != parameter.owner
        if same and math.isclose(
            parameter.value * parameter.factor_to_expected,
            other.value * other.factor_to_expected,
            rel_tol=1e-9,
        ):
            parameter.link = other


def linked_with(models: Models, parameter: Parameter) -> list[Parameter]:
    """The other parameters that have their value in common with one."""
    return [p for p in models.parameters if p.leader is parameter.leader and p is not parameter]


def unlink(models: Models, parameter: Parameter) -> None:
    """Take a parameter out of those that it is linked with; the others stay linked."""
    followers = [p for p in models.parameters if p.link is parameter]
    target = parameter.link
    parameter.link = None
    for follower in followers:
        follower.link = None
        if target is None:
            target = follower
        else:
            follower.link = target


_ALIKE = ({"sigma", "r_0", "radius", "width"}, {"index", "alpha"})
"""Parameters of other names that may be one: sizes of shapes, slopes of spectra."""


def can_be_linked(models: Models, parameter: Parameter) -> list[Parameter]:
    """Parameters that one could follow: of the same meaning in other models first."""
    if parameter.owner not in models.names:
        return []
    taken = {id(p.leader) for p in (parameter, *linked_with(models, parameter))}
    frame = getattr(models[parameter.owner], "frame", None)

    def fits(other: Parameter) -> bool:
        if other.owner == parameter.owner or id(other.leader) in taken:
            return False
        if other.expected_unit != parameter.expected_unit or other.kind != parameter.kind:
            return False
        if other.name != parameter.name:
            return any({other.name, parameter.name} <= alike for alike in _ALIKE)
        turned = parameter.name in ("lon_0", "lat_0", "phi")
        return not turned or getattr(models[other.owner], "frame", None) == frame

    found = [p for p in models.parameters if fits(p)]
    return sorted(found, key=lambda p: p.name != parameter.name)


def find_parameter(models: Models, parameter: Parameter | str) -> Parameter:
    """A parameter given as itself or as ``MODEL.PARAMETER``; ModelError if there is none."""
    if isinstance(parameter, str):
        for known in models.parameters:
            if known.label == parameter:
                return known
        owner = next((m for m in models if parameter.startswith(f"{m.name}.")), None)
        labels = ", ".join(p.label for p in (owner or models).parameters)
        raise ModelError(f"{parameter}: no such parameter; expected one of {labels}")
    if not any(parameter is known for known in models.parameters):
        raise ModelError(f"{parameter.label}: it belongs to none of the models")
    return parameter


def signature(models: Models) -> tuple[Any, ...]:
    """All that a fit depends on but for the values, to be compared."""
    parameters = list(models.parameters)
    place = {id(p): number for number, p in reversed(list(enumerate(parameters)))}
    leaders: dict[int, int] = {}
    rows = []
    for number, p in enumerate(parameters):
        leader = leaders.setdefault(id(p.leader), place.get(id(p.leader), number))
        limits = tuple(None if math.isnan(v) else v for v in (p.min, p.max))
        rows.append((p.owner, p.name, str(p.unit), *limits, p.frozen, repr(p.prior), leader))
    shapes = tuple(
        (m.name, *map(_description, m.parts), getattr(m, "frame", ""), m.datasets_names)
        for m in models
    )
    return repr(shapes), tuple(rows)


def _description(part: Any) -> tuple[Any, ...]:
    """What a shape or spectrum is besides its parameters."""
    tables = (getattr(part, name, None) for name in ("energy", "values"))
    image = getattr(part, "map", None), getattr(part, "normalize", None)
    return (
        part.tag[0],
        *(None if t is None else t.tobytes() for t in tables),
        id(image[0]),
        image[1],
    )
