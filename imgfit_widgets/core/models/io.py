"""Models as YAML with a covariance beside it, in Gammapy's layout.

Written files leave out what is at its default. In a file, numbers may be spelled ``1e-12``, which
YAML itself reads as text. Whatever a file asks for and this package does not do is refused by name.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import yaml

from ..errors import ModelError
from ..yaml_text import YamlProblem, load_yaml
from .parameter import Parameter, ParameterOwner, Parameters
from .sky import Component, FoVBackgroundModel, SkyModel
from .spatial import SPATIAL_MODELS, SpatialModel
from .spectral import SPECTRAL_MODELS, PowerLawNormSpectralModel, SpectralModel

log = logging.getLogger(__name__)


class ModelsLike(Protocol):
    """What is read into and written from here; `Models` is one."""

    covariance: Any

    def __init__(self, components: Iterable[Component]) -> None: ...

    def __iter__(self) -> Iterator[Component]: ...

    @property
    def parameters(self) -> Parameters: ...

    def set_covariance(self, parameters: Iterable[Parameter], matrix: Any) -> None: ...


M = TypeVar("M", bound=ModelsLike)

_COMPONENT_KEYS = ("name", "type", "spectral", "spatial", "datasets_names")
_PARAMETER_KEYS = ("name", "value", "unit", "error", "min", "max", "frozen")
# Gammapy's hints for its own optimiser and table; they do not change the model.
_IGNORED_PARAMETER_KEYS: tuple[str, ...] = (
    *("interp", "scale_method", "scale_transform"),
    *("scan_min", "scan_max", "scan_n_values", "scan_n_sigma", "scan_values"),
)
_RESPONSES = ("exposure", "psf", "edisp")
_TOP_KEYS = ("components", "covariance", "metadata", "checksum")


def models_from_yaml(cls: type[M], text: str, path: str | Path | None = None) -> M:
    """Models from YAML text.

    Parameters
    ----------
    cls : type
        `Models`.
    text : str
    path : path, optional
        Where the text comes from: named in errors, and where a covariance file is looked for.

    Raises
    ------
    ModelError
        With the place in the file, the value found and what was expected.
    """
    prefix = f"{path}: " if path else ""
    try:
        data = load_yaml(text)
    except YamlProblem as error:
        where = f"{error.place}: " if error.place else ""
        raise ModelError(f"{prefix}models: {where}not valid YAML: {error}") from None
    if path:
        for spatial in _with_files(data):
            beside = Path(path).expanduser().parent / spatial["filename"]
            if beside.exists():
                spatial["filename"] = str(beside)
    try:
        models = models_from_dict(cls, data)
        file = data.get("covariance") if isinstance(data, dict) else None
        if file is not None and not (isinstance(file, str) and file.strip()):
            raise ModelError(f"covariance: found {file!r}; expected the name of a file")
        if file is not None and path:
            _read_covariance(models, Path(path).parent / file)
        elif file is not None:
            log.warning("covariance: %r is not read, because these models come from no file", file)
    except ModelError as error:
        raise ModelError(f"{prefix}{error}") from None
    return models


def read_models(cls: type[M], path: str | Path) -> M:
    """Models from a YAML file."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise ModelError(f"{path}: models file cannot be read: {reason}") from None
    return models_from_yaml(cls, text, Path(path).expanduser())


def models_from_dict(cls: type[M], data: Any) -> M:
    """Models from a file's content: a mapping with ``components``, or their list."""
    if isinstance(data, dict):
        _known_keys(data, _TOP_KEYS, "models")
        data = data.get("components")
    if not isinstance(data, list):
        found = "nothing" if data is None else type(data).__name__
        raise ModelError(f"components: found {found}; expected a list of models")
    return cls(_component(item, f"components[{i}]") for i, item in enumerate(data))


def models_to_dict(models: ModelsLike, full_output: bool = False) -> dict[str, Any]:
    """The content of a YAML file."""
    return {"components": [_component_to_dict(c, full_output) for c in models]}


def models_to_yaml(models: ModelsLike, full_output: bool = False) -> str:
    """YAML text."""
    return _dump(models_to_dict(models, full_output))


def write_models(
    models: ModelsLike,
    path: str | Path,
    overwrite: bool = False,
    full_output: bool = False,
    write_covariance: bool = True,
) -> None:
    """Write YAML and the covariance beside it."""
    path = Path(path).expanduser()
    covariance_path = path.with_name(f"{path.stem}_covariance.dat")
    data = models_to_dict(models, full_output)
    # A file in the same folder is named without it, as in Gammapy, so that the folder can move.
    for spatial in _with_files(data):
        if Path(spatial["filename"]).expanduser().absolute().parent == path.absolute().parent:
            spatial["filename"] = Path(spatial["filename"]).name
    targets = [path]
    if write_covariance and len(models.parameters):
        data["covariance"] = covariance_path.name
        targets.append(covariance_path)
    for target in targets:
        if target.exists() and not overwrite:
            raise ModelError(f"{target}: the file exists; give overwrite=True to replace it")
    data["metadata"] = {
        "creator": "imgfit_widgets",
        "date": datetime.now(UTC).replace(tzinfo=None).isoformat(),
        "origin": None,
    }
    if len(targets) == 2:
        covariance_path.write_text(_covariance_text(models), encoding="utf-8")
    path.write_text(_dump(data), encoding="utf-8")


def _with_files(data: Any) -> list[dict[str, Any]]:
    """The spatial parts of a file's content that name a file of their own."""
    components = data.get("components") if isinstance(data, dict) else data
    if not isinstance(components, list):
        return []
    parts = [c.get("spatial") for c in components if isinstance(c, dict)]
    return [p for p in parts if isinstance(p, dict) and isinstance(p.get("filename"), str)]


# --- one component
def _component(data: Any, where: str) -> Component:
    if not isinstance(data, dict):
        raise ModelError(f"{where}: found {data!r}; expected a mapping with name, type and so on")
    name = data.get("name")
    if name is not None and not _is_word(name):
        raise ModelError(f"{where}.name: found {name!r}; expected a text")
    where = f"{where} ({name})" if name else where
    if data.get("temporal"):
        raise ModelError(f"{where}.temporal: temporal models are not supported")
    _check_responses(data.get("apply_irf"), f"{where}.apply_irf")
    _known_keys(data, (*_COMPONENT_KEYS, "temporal", "apply_irf"), where)
    kinds: dict[str, type[Component]] = {
        **dict.fromkeys(SkyModel.tag, SkyModel),
        **dict.fromkeys(FoVBackgroundModel.tag, FoVBackgroundModel),
    }
    kind = data.get("type", "SkyModel")
    if not isinstance(kind, str) or kind not in kinds:
        raise ModelError(f"{where}.type: {_unknown(kind, [SkyModel.tag[0], 'FoVBackgroundModel'])}")
    names = _datasets_names(data.get("datasets_names"), f"{where}.datasets_names")
    make = _background if kinds[kind] is FoVBackgroundModel else _source
    try:
        return make(data, None if name is None else str(name), names, where)
    except ModelError as error:
        raise ModelError(str(error) if where in str(error) else f"{where}: {error}") from None


def _background(
    data: dict[str, Any], name: str | None, names: list[str] | None, where: str
) -> FoVBackgroundModel:
    if data.get("spatial") is not None:
        raise ModelError(f"{where}.spatial: a spatial model of the background is not supported")
    if names is None or len(names) != 1:
        raise ModelError(f"{where}.datasets_names: found {names!r}; expected one dataset name")
    spectral = data.get("spectral")
    norm = None if spectral is None else _part(spectral, SPECTRAL_MODELS, f"{where}.spectral")
    if norm is not None and not isinstance(norm, PowerLawNormSpectralModel):
        raise ModelError(f"{where}.spectral.type: expected PowerLawNormSpectralModel")
    return FoVBackgroundModel(norm, names[0], name)


def _source(
    data: dict[str, Any], name: str | None, names: list[str] | None, where: str
) -> SkyModel:
    for key in ("spectral", "spatial"):
        if data.get(key) is None:
            raise ModelError(f"{where}.{key}: missing; a source needs a {key} model")
    spectral = _part(data["spectral"], SPECTRAL_MODELS, f"{where}.spectral")
    if isinstance(spectral, PowerLawNormSpectralModel):
        raise ModelError(f"{where}.spectral.type: PowerLawNormSpectralModel is for backgrounds")
    return SkyModel(
        spectral, _part(data["spatial"], SPATIAL_MODELS, f"{where}.spatial"), name, names
    )


def _check_responses(data: Any, where: str) -> None:
    """Refuse to switch off a response; a file of Gammapy may say that all are on."""
    if data is None:
        return
    if not isinstance(data, dict):
        raise ModelError(f"{where}: found {data!r}; expected a mapping such as {{psf: true}}")
    _known_keys(data, _RESPONSES, where)
    for key, value in data.items():
        if value is False:
            raise ModelError(f"{where}.{key}: switching off a response is not supported")
        if value is not True:
            raise ModelError(f"{where}.{key}: found {value!r}; expected true")


def _datasets_names(data: Any, where: str) -> list[str] | None:
    if data is None:
        return None
    names = data if isinstance(data, list) else [data]
    if not names or not all(map(_is_word, names)) or isinstance(data, (int, float)):
        raise ModelError(f"{where}: found {data!r}; expected a dataset name, or a list of them")
    return [str(name) for name in names]


def _is_word(value: Any) -> bool:
    """Whether it is a text, or a number that YAML made of one."""
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _part(data: Any, registry: list[Any], where: str) -> Any:
    """A spatial or spectral model from its mapping."""
    if not isinstance(data, dict):
        raise ModelError(f"{where}: found {data!r}; expected a mapping with type and parameters")
    classes: dict[str, type[SpatialModel] | type[SpectralModel]] = {
        tag: cls for cls in registry for tag in cls.tag
    }
    kind = data.get("type")
    if not isinstance(kind, str) or kind not in classes:
        raise ModelError(f"{where}.type: {_unknown(kind, [cls.tag[0] for cls in registry])}")
    cls = classes[kind]
    further = ("frame", *cls.further_keys) if issubclass(cls, SpatialModel) else ()
    _known_keys(data, ("type", "parameters", *further), where)
    entries = data.get("parameters")
    entries = [] if entries is None else entries
    if not isinstance(entries, list):
        raise ModelError(f"{where}.parameters: found {entries!r}; expected a list")
    try:
        values: dict[str, Any] = {}
        for i, item in enumerate(entries):
            name, parameter = _parameter(item, cls, f"{where}.parameters[{i}]")
            if name in values:
                raise ModelError(f"{where}.parameters[{i}] ({name}): this parameter is given twice")
            values[name] = parameter
        if issubclass(cls, SpatialModel):
            frame = data.get("frame")
            return cls.from_dict(data, None if frame is None else str(frame), values)
        return cls(**values)
    except ModelError as error:
        raise ModelError(str(error) if where in str(error) else f"{where}: {error}") from None


def _parameter(data: Any, cls: type[ParameterOwner], where: str) -> tuple[str, Parameter]:
    if not isinstance(data, dict) or "name" not in data:
        raise ModelError(f"{where}: found {data!r}; expected a mapping with name and value")
    name, fields = str(data["name"]), cls.fields()
    if name not in fields:
        raise ModelError(f"{where}.name: {_unknown(name, list(fields))}")
    where = f"{where} ({name})"
    for key in ("link", "prior"):
        if data.get(key) not in (None, "", {}, []):
            raise ModelError(f"{where}.{key}: not supported yet")
    _known_keys(data, (*_PARAMETER_KEYS, *_IGNORED_PARAMETER_KEYS, "link", "prior"), where)
    field = fields[name]
    unit = data.get("unit")
    if unit is not None and not isinstance(unit, str):
        raise ModelError(f"{where}.unit: found {unit!r}; expected a text such as deg")
    frozen = data.get("frozen", field.frozen)
    if not isinstance(frozen, bool):
        raise ModelError(f"{where}.frozen: found {frozen!r}; expected true or false")
    try:
        made = field.make(cls.kind, None)
        parameter = Parameter(
            name,
            data.get("value", field.value),
            made.unit if unit is None else unit,
            error=data.get("error", 0.0),
            min=np.nan,
            max=np.nan,
            frozen=frozen,
            expected_unit=field.unit,
            kind=cls.kind,
        )
        scale = float(field.unit.to(parameter.unit))
        for limit in ("min", "max"):
            setattr(parameter, limit, data.get(limit, getattr(field, limit) * scale))
    except ModelError as error:
        raise ModelError(f"{where}: {str(error).removeprefix(f'{name}: ')}") from None
    return name, parameter


def _component_to_dict(component: Component, full: bool) -> dict[str, Any]:
    data: dict[str, Any] = {"name": component.name, "type": component.tag[0]}
    if isinstance(component, FoVBackgroundModel):
        if component.name == f"{component.dataset_name}-bkg":
            del data["name"]
        data["datasets_names"] = list(component.datasets_names)
        data["spectral"] = _part_to_dict(component.spectral_model, full)
        return data
    if component.datasets_names is not None:
        data["datasets_names"] = list(component.datasets_names)
    data["spectral"] = _part_to_dict(component.spectral_model, full)
    data["spatial"] = _part_to_dict(component.spatial_model, full)
    return data


def _part_to_dict(part: ParameterOwner, full: bool) -> dict[str, Any]:
    data: dict[str, Any] = {"type": part.tag[0]}
    if isinstance(part, SpatialModel):
        if part.has_position:
            data["frame"] = part.frame
        data |= part.to_dict()
    fields = part.fields()
    data["parameters"] = [_parameter_to_dict(p, fields[p.name], full) for p in part.parameters]
    return data


def _parameter_to_dict(p: Parameter, field: Any, full: bool) -> dict[str, Any]:
    data: dict[str, Any] = {"name": p.name, "value": float(p.value)}
    scale = float(field.unit.to(p.unit))
    if p.unit_text or full:
        data["unit"] = p.unit_text
    if p.error or full:
        data["error"] = float(p.error)
    for limit in ("min", "max"):
        value, default = getattr(p, limit), getattr(field, limit) * scale
        same = value == default or (np.isnan(value) and np.isnan(default))
        if full or not same:
            data[limit] = float(value)
    if full or p.frozen != field.frozen:
        data["frozen"] = bool(p.frozen)
    return data


# --- covariance
def _parameter_paths(models: ModelsLike) -> list[str]:
    """Names as Gammapy writes them: ``MODEL.spatial.PARAMETER``."""
    return [f"{p.owner}.{p.kind}.{p.name}" for p in models.parameters]


def _covariance_text(models: ModelsLike) -> str:
    names, matrix = _parameter_paths(models), models.covariance
    columns = [["Parameters", *names]]
    for k in range(len(names)):
        columns.append([str(k), *(repr(float(v)) for v in matrix[:, k])])
    widths = [max(map(len, column)) for column in columns]
    rows = zip(*columns, strict=True)
    return (
        "\n".join(
            "| " + " | ".join(t.rjust(w) for t, w in zip(row, widths, strict=True)) + " |"
            for row in rows
        )
        + "\n"
    )


def _read_covariance(models: ModelsLike, path: Path) -> None:
    """Set the covariance from a file; parameters that it does not name keep their error."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or no path at all
        reason = getattr(error, "strerror", None) or "not a text file"
        raise ModelError(f"covariance: {path} cannot be read: {reason}") from None
    lines = [line.strip() for line in lines if line.strip()]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    try:
        names = [row[0] for row in rows[1:]]
        matrix = np.array([[float(cell) for cell in row[1:]] for row in rows[1:]])
        if matrix.shape != (len(names), len(names)):
            raise ValueError("not square")
    except (IndexError, ValueError) as error:
        raise ModelError(
            f"covariance: {path} is not a table of {max(len(rows) - 1, 0)} parameters ({error})"
        ) from None
    known = dict(zip(_parameter_paths(models), models.parameters, strict=True))
    here = [i for i, name in enumerate(names) if name in known]
    models.set_covariance((known[names[i]] for i in here), matrix[np.ix_(here, here)])


# --- helpers
def _known_keys(data: dict[str, Any], allowed: tuple[str, ...], where: str) -> None:
    for key in data:
        if key not in allowed:
            raise ModelError(f"{where}.{key}: {_unknown(key, list(allowed))}")


def _unknown(found: Any, allowed: list[str]) -> str:
    near = difflib.get_close_matches(str(found), allowed, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{found!r} is not known{hint} Expected one of {', '.join(allowed)}"


class _Dumper(yaml.SafeDumper):
    """Lists are indented below their key, as in Gammapy's files."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _dump(data: dict[str, Any]) -> str:
    return str(
        yaml.dump(data, Dumper=_Dumper, sort_keys=False, indent=4, width=80, allow_unicode=True)
    )
