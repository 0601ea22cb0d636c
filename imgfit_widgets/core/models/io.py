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
from astropy import units as u

from ..errors import ModelError
from ..yaml_text import YamlProblem, load_yaml
from .parameter import Parameter, ParameterOwner, Parameters, link_labels
from .prior import prior_from_dict
from .sky import Component, FoVBackgroundModel, SkyModel
from .spatial import SPATIAL_MODELS, SpatialModel
from .spectral import SPECTRAL_MODELS, PowerLawNormSpectralModel, SpectralModel
from .spectral import TemplateSpectralModel as Template

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
_COMPOUND = ("CompoundSpectralModel", "compound")
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
    models = cls(_component(item, f"components[{i}]") for i, item in enumerate(data))
    _link_up(models, data)
    return models


def models_to_dict(models: ModelsLike, full_output: bool = False) -> dict[str, Any]:
    """The content of a YAML file."""
    components = [_component_to_dict(c, full_output) for c in models]
    labels = link_labels(models.parameters)
    if labels:
        for component, data in zip(models, components, strict=True):
            for entries in _parameter_lists(component, data):
                for parameter, entry in entries:
                    if id(parameter) in labels:
                        entry["link"] = labels[id(parameter)]
    return {"components": components}


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
    # A file in the same folder is named without it, as in Gammapy, so that the folder can move;
    # any other from the root, as it is not beside this one.
    for spatial in _with_files(data):
        file = Path(spatial["filename"]).expanduser()
        if file.absolute().parent == path.absolute().parent:
            spatial["filename"] = file.name
        elif not spatial["filename"].startswith("$"):
            spatial["filename"] = str(file.absolute())
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
    spectral = _spectral(data["spectral"], f"{where}.spectral")
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
    if issubclass(cls, SpatialModel):
        own = ("frame", *cls.further_keys)
    else:
        own = ("energy", "values") if cls is Template else ()
    _known_keys(data, ("type", "parameters", *own), where)
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
        if cls is Template:
            values |= {key: _table_column(data, key, where) for key in own}
            if "norm" not in values:
                # In Gammapy a template has no parameter: it is as it is.
                values["norm"] = Parameter("norm", 1.0, frozen=True)
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
    link = data.get("link")
    if link is not None and not _is_word(link):
        raise ModelError(f"{where}.link: found {link!r}; expected a label such as {name}@shared")
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
    if data.get("prior") not in (None, "", {}, []):
        try:
            parameter.prior = prior_from_dict(data["prior"], parameter.unit)
        except ModelError as error:
            raise ModelError(f"{where}.prior: {error}") from None
    return name, parameter


def _spectral(data: Any, where: str) -> Any:
    """A source's spectrum; of the products of two only that of a template and a factor."""
    if not isinstance(data, dict) or data.get("type") not in _COMPOUND:
        return _part(data, SPECTRAL_MODELS, where)
    _known_keys(data, ("type", "model1", "model2", "operator"), where)
    template, factor = (
        _part(data.get(key), SPECTRAL_MODELS, f"{where}.{key}") for key in ("model1", "model2")
    )
    if (
        not isinstance(template, Template)
        or not isinstance(factor, PowerLawNormSpectralModel)
        or data.get("operator") != "mul"
    ):
        raise ModelError(
            f"{where}: {data.get('operator')!r} of {template.tag[0]} and {factor.tag[0]}; expected "
            "'mul' of a TemplateSpectralModel and a PowerLawNormSpectralModel"
        )
    return Template(template.energy, template.values, **{p.name: p for p in factor.parameters})


def _table_column(data: dict[str, Any], key: str, where: str) -> Any:
    """A column of a template: a mapping with ``data`` and ``unit``."""
    entry = data.get(key)
    if not isinstance(entry, dict) or set(entry) != {"data", "unit"}:
        raise ModelError(f"{where}.{key}: found {entry!r}; expected a mapping with data and unit")
    numbers = [_as_float(v) for v in entry["data"]] if isinstance(entry["data"], list) else [None]
    if None in numbers:
        raise ModelError(f"{where}.{key}.data: found {entry['data']!r}; expected a list of numbers")
    try:
        return u.Quantity(numbers, str(entry["unit"]))
    except (TypeError, ValueError) as error:
        raise ModelError(f"{where}.{key}.unit: {entry['unit']!r}: {error}") from None


def _as_float(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def _parameter_lists(
    component: Component, data: dict[str, Any]
) -> Iterator[Iterator[tuple[Parameter, dict[str, Any]]]]:
    """The parameters of each part of a component beside their entries in a file's content."""
    for part in component.parts:
        block = data.get(part.kind)
        block = block.get("model2", block) if isinstance(block, dict) else {}
        entries = {str(entry["name"]): entry for entry in block.get("parameters") or ()}
        yield ((p, entries[p.name]) for p in part.parameters if p.name in entries)


def _link_up(models: ModelsLike, data: list[Any]) -> None:
    """Link the parameters whose entries carry one label; the first one gives the value."""
    first: dict[str, Parameter] = {}
    for component, content in zip(models, data, strict=True):
        for entries in _parameter_lists(component, content):
            for parameter, entry in entries:
                label = entry.get("link")
                if label is not None:
                    leader = first.setdefault(str(label), parameter)
                    if leader is not parameter:
                        parameter.link = leader


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
    if isinstance(part, Template):
        table = {"type": part.tag[0], "parameters": list[Any]()} | {
            key: {"data": getattr(part, key).tolist(), "unit": unit}
            for key, unit in (("energy", "TeV"), ("values", "1 / (TeV s cm2)"))
        }
        if _is_bare(part):
            return table
        factor = PowerLawNormSpectralModel(**{p.name: p for p in part.parameters})
        return {
            "type": _COMPOUND[0],
            "model1": table,
            "model2": _part_to_dict(factor, full),
            "operator": "mul",
        }
    data: dict[str, Any] = {"type": part.tag[0]}
    if isinstance(part, SpatialModel):
        if part.has_position:
            data["frame"] = part.frame
        data |= part.to_dict()
    fields = part.fields()
    data["parameters"] = [_parameter_to_dict(p, fields[p.name], full) for p in part.parameters]
    return data


def _is_bare(part: ParameterOwner) -> bool:
    """Whether a template is just its table: a factor of 1 that no fit changes."""
    tilt, norm = part.parameters["tilt"], part.parameters["norm"]
    return norm.value == 1.0 and norm.frozen and tilt.value == 0.0 and tilt.frozen


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
    if p.prior is not None:
        data["prior"] = p.prior.to_dict()
    return data


# --- covariance
def _parameter_paths(models: ModelsLike) -> list[str]:
    """Names as Gammapy writes them: ``MODEL.spatial.PARAMETER``.

    A template's factor is the second model of its product, ``MODEL.spectral.model2.norm``.
    """
    return [
        f"{component.name}.{part.kind}.{'model2.' if isinstance(part, Template) else ''}{p.name}"
        for component in models
        for part in component.parts
        for p in part.parameters
    ]


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
    # From the right: a name may hold the sign that stands between cells.
    cells = (line.strip("|").rsplit("|", len(lines) - 1) for line in lines)
    rows = [[cell.strip() for cell in row] for row in cells]
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
    # Of linked parameters Gammapy fills the first row only.
    single = {id(p) for p in Parameters(known.values()).unique_parameters}
    known = {name: p for name, p in known.items() if id(p) in single}
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
