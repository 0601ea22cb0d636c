"""Components and their collection.

`SkyModel` joins a spectral and a spatial model; `FoVBackgroundModel` scales the background of one
dataset; `Models` is the ordered collection that is fitted, read and written.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, overload

import numpy as np
import traitlets
from astropy.table import Column, Table

from ..errors import ModelError
from .parameter import Parameter, ParameterOwner, Parameters
from .spatial import SpatialModel
from .spectral import PowerLawNormSpectralModel, SpectralModel

__all__ = ["Component", "FoVBackgroundModel", "Models", "SkyModel"]


class _NamedModel(traitlets.HasTraits):
    """What components share: a name that their parameters carry in messages."""

    name = traitlets.Unicode()

    def __init__(self, name: str, parts: Iterable[ParameterOwner]) -> None:
        super().__init__()
        self._parts = tuple(parts)
        self.name = name

    @traitlets.validate("name")
    def _check_name(self, proposal: dict[str, Any]) -> str:
        name = proposal["value"]
        if not name.strip():
            raise ModelError("model name: expected at least one character, got an empty text")
        return str(name)

    @traitlets.observe("name")
    def _pass_name_on(self, change: Any) -> None:
        for parameter in self.parameters:
            parameter.owner = self.name

    @property
    def parameters(self) -> Parameters:
        """All parameters, the spectral ones first."""
        return Parameters(p for part in self._parts for p in part.parameters)

    @property
    def frozen(self) -> bool:
        """Whether every parameter is frozen."""
        return all(p.frozen for p in self.parameters)

    def freeze(self) -> None:
        """Freeze every parameter."""
        self.parameters.freeze_all()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    def _header(self) -> list[tuple[str, str]]:
        raise NotImplementedError

    def __str__(self) -> str:
        lines = [type(self).__name__, ""]
        lines += [f"  {key:<26}: {value}".rstrip() for key, value in self._header()]
        lines.append("  Parameters:")
        lines += [_parameter_line(p) for p in self.parameters]
        return "\n".join(lines) + "\n"


class SkyModel(_NamedModel):
    """A source: a spectrum times a shape on the sky.

    Parameters
    ----------
    spectral_model : SpectralModel
    spatial_model : SpatialModel
    name : str, optional
        A short random one by default.
    datasets_names : str or list of str, optional
        The datasets that contain the source, all by default.
    """

    tag = ("SkyModel", "sky-model")

    def __init__(
        self,
        spectral_model: SpectralModel,
        spatial_model: SpatialModel | None = None,
        name: str | None = None,
        datasets_names: str | Iterable[str] | None = None,
    ) -> None:
        name = uuid.uuid4().hex[:8] if name is None else name
        if not isinstance(spectral_model, SpectralModel):
            raise ModelError(f"{name}: spectral_model {spectral_model!r} is no spectral model")
        if not isinstance(spatial_model, SpatialModel):
            raise ModelError(
                f"{name}: spatial_model {spatial_model!r} is no spatial model; an image needs one"
            )
        self.spectral_model = spectral_model
        self.spatial_model = spatial_model
        self.datasets_names = _names_list(datasets_names)
        super().__init__(name, (spectral_model, spatial_model))

    @property
    def position(self) -> Any:
        """Centre of the source (SkyCoord)."""
        return self.spatial_model.position

    @property
    def frame(self) -> str:
        """Frame of the spatial model."""
        return self.spatial_model.frame

    @property
    def linear_parameter(self) -> Parameter:
        """The parameter that the predicted counts are proportional to."""
        return self.spectral_model.parameters[self.spectral_model.linear]

    def applies_to(self, dataset_name: str) -> bool:
        """Whether the source is in that dataset."""
        return self.datasets_names is None or dataset_name in self.datasets_names

    def copy(self, name: str | None = None) -> SkyModel:
        """A copy that shares no parameter."""
        spatial = type(self.spatial_model)(
            frame=self.frame, **{p.name: p for p in self.spatial_model.parameters}
        )
        spectral = type(self.spectral_model)(**{p.name: p for p in self.spectral_model.parameters})
        return SkyModel(spectral, spatial, self.name if name is None else name, self.datasets_names)

    def _header(self) -> list[tuple[str, str]]:
        return [
            ("Name", self.name),
            ("Datasets names", str(self.datasets_names)),
            ("Spectral model type", type(self.spectral_model).__name__),
            ("Spatial  model type", type(self.spatial_model).__name__),
            ("Temporal model type", ""),
        ]


class FoVBackgroundModel(_NamedModel):
    """The factor on the background of one dataset, ``norm * (E / reference) ** -tilt``.

    Parameters
    ----------
    spectral_model : PowerLawNormSpectralModel, optional
    dataset_name : str
    name : str, optional
        ``DATASET-bkg`` by default.
    """

    tag = ("FoVBackgroundModel", "fov-bkg")

    def __init__(
        self,
        spectral_model: SpectralModel | None = None,
        dataset_name: str | None = None,
        name: str | None = None,
    ) -> None:
        if not dataset_name:
            raise ModelError("FoVBackgroundModel: dataset_name is missing; whose background is it?")
        spectral = PowerLawNormSpectralModel() if spectral_model is None else spectral_model
        if not isinstance(spectral, PowerLawNormSpectralModel):
            raise ModelError(
                f"{name or dataset_name + '-bkg'}: spectral model {type(spectral).__name__} is not "
                "supported for a background; expected PowerLawNormSpectralModel"
            )
        self.spectral_model = spectral
        self.datasets_names = [dataset_name]
        super().__init__(name or f"{dataset_name}-bkg", (spectral,))

    @property
    def dataset_name(self) -> str:
        """The dataset whose background is scaled."""
        return self.datasets_names[0]

    def copy(self, name: str | None = None) -> FoVBackgroundModel:
        """A copy that shares no parameter."""
        spectral = PowerLawNormSpectralModel(**{p.name: p for p in self.spectral_model.parameters})
        return FoVBackgroundModel(spectral, self.dataset_name, name or self.name)

    def _header(self) -> list[tuple[str, str]]:
        return [
            ("Name", self.name),
            ("Datasets names", str(self.datasets_names)),
            ("Spectral model type", type(self.spectral_model).__name__),
        ]


Component = SkyModel | FoVBackgroundModel


class _Components(traitlets.TraitType[Any, Any]):
    """A tuple of components with different names."""

    def validate(self, obj: Any, value: Any) -> tuple[Component, ...]:
        components: list[Component] = []
        for item in value:
            if not isinstance(item, (SkyModel, FoVBackgroundModel)):
                raise ModelError(f"models: {item!r} is neither a SkyModel nor a FoVBackgroundModel")
            if any(item.name == other.name for other in components):
                raise ModelError(f"{item.name}: this name is used twice; each model needs its own")
            components.append(item)
        return tuple(components)


class Models(traitlets.HasTraits):
    """Components in order.

    ``components`` is a tuple that is replaced as a whole whenever the list changes, so that one
    observer sees every change of the list.
    """

    components = _Components(())

    def __init__(self, components: Iterable[Component] | Component = ()) -> None:
        super().__init__()
        if isinstance(components, (SkyModel, FoVBackgroundModel)):
            components = (components,)
        self._covariance: tuple[tuple[Parameter, ...], np.ndarray] | None = None
        self.components = tuple(components)

    # --- a list by name and position
    def __len__(self) -> int:
        return len(self.components)

    def __iter__(self) -> Iterator[Component]:
        return iter(self.components)

    def __contains__(self, item: object) -> bool:
        return item in self.components or item in self.names

    @overload
    def __getitem__(self, key: slice) -> Models: ...
    @overload
    def __getitem__(self, key: str | int) -> Any: ...
    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, slice):
            return Models(self.components[key])
        if isinstance(key, str):
            for component in self.components:
                if component.name == key:
                    return component
            known = ", ".join(self.names) or "none"
            raise ModelError(f"{key}: no such model; there are: {known}")
        return self.components[key]

    def append(self, component: Component) -> None:
        """Add a component at the end."""
        self.components = (*self.components, component)

    def extend(self, components: Iterable[Component]) -> None:
        """Add components at the end."""
        self.components = (*self.components, *components)

    def insert(self, index: int, component: Component) -> None:
        """Add a component before position ``index``."""
        items = list(self.components)
        items.insert(index, component)
        self.components = tuple(items)

    def remove(self, component: Component | str) -> None:
        """Take a component out, given itself or its name."""
        name = component if isinstance(component, str) else component.name
        gone = self[name]
        self.components = tuple(c for c in self.components if c is not gone)

    def replace(self, name: str, component: Component) -> None:
        """Put ``component`` in the place of the one called ``name``."""
        gone = self[name]
        self.components = tuple(component if c is gone else c for c in self.components)

    @property
    def names(self) -> list[str]:
        """Names in order."""
        return [c.name for c in self.components]

    @property
    def sky_models(self) -> tuple[SkyModel, ...]:
        """The sources."""
        return tuple(c for c in self.components if isinstance(c, SkyModel))

    @property
    def background_models(self) -> tuple[FoVBackgroundModel, ...]:
        """The background models."""
        return tuple(c for c in self.components if isinstance(c, FoVBackgroundModel))

    def background_model(self, dataset_name: str) -> FoVBackgroundModel | None:
        """The background model of a dataset, None if there is none."""
        for component in self.background_models:
            if component.dataset_name == dataset_name:
                return component
        return None

    def unique_name(self, stem: str = "source") -> str:
        """``stem-1`` or the next number that is not taken."""
        number = 1
        while f"{stem}-{number}" in self.names:
            number += 1
        return f"{stem}-{number}"

    @property
    def parameters(self) -> Parameters:
        """All parameters of all components, in order."""
        return Parameters(p for c in self.components for p in c.parameters)

    # --- covariance
    @property
    def covariance(self) -> np.ndarray:
        """Covariance of all parameters, shape (n, n), in their units; frozen ones are 0.

        Set it with such an array, or with `set_covariance` for some parameters. Parameters that
        the last fit did not know have their error squared on the diagonal.
        """
        parameters = list(self.parameters)
        matrix = np.diag([np.nan_to_num(p.error) ** 2 for p in parameters])
        if self._covariance is not None:
            known, block = self._covariance
            place = {id(p): i for i, p in enumerate(known)}
            here = [(i, place[id(p)]) for i, p in enumerate(parameters) if id(p) in place]
            rows, columns = [i for i, _ in here], [k for _, k in here]
            matrix[np.ix_(rows, rows)] = block[np.ix_(columns, columns)]
        return np.asarray(matrix, dtype=float)

    @covariance.setter
    def covariance(self, matrix: Any) -> None:
        self.set_covariance(self.parameters, matrix)

    def set_covariance(self, parameters: Iterable[Parameter], matrix: Any) -> None:
        """Store the covariance of some parameters and set their errors from its diagonal."""
        items = tuple(parameters)
        block = np.array(matrix, dtype=float)
        if block.shape != (len(items), len(items)):
            raise ModelError(
                f"covariance: shape {block.shape} does not fit {len(items)} parameters"
            )
        self._covariance = (items, block)
        for parameter, variance in zip(items, np.diag(block), strict=True):
            parameter.error = float(np.sqrt(variance)) if variance >= 0 else np.nan

    # --- files
    @classmethod
    def from_yaml(cls, text: str, path: str | Path | None = None) -> Models:
        """Models from YAML text; see `imgfit_widgets.core.models.io`."""
        from .io import models_from_yaml

        return models_from_yaml(text, path)

    @classmethod
    def from_dict(cls, data: Any) -> Models:
        """Models from the content of a YAML file."""
        from .io import models_from_dict

        return models_from_dict(data)

    @classmethod
    def read(cls, path: str | Path) -> Models:
        """Models and, if the file names it, their covariance."""
        from .io import read_models

        return read_models(path)

    def write(
        self,
        path: str | Path,
        overwrite: bool = False,
        full_output: bool = False,
        write_covariance: bool = True,
    ) -> None:
        """Write YAML and, beside it, ``STEM_covariance.dat``."""
        from .io import write_models

        write_models(self, path, overwrite, full_output, write_covariance)

    def to_dict(self, full_output: bool = False) -> dict[str, Any]:
        """The content of a YAML file; defaults are left out unless ``full_output``."""
        from .io import models_to_dict

        return models_to_dict(self, full_output)

    def to_yaml(self, full_output: bool = False) -> str:
        """YAML text as Gammapy reads it."""
        from .io import models_to_yaml

        return models_to_yaml(self, full_output)

    # --- views
    def to_parameters_table(self) -> Table:
        """All parameters with values, errors and limits: Gammapy's columns."""
        table = self.parameters.to_table()
        owners = np.array([p.owner for p in self.parameters], dtype=str)
        table.add_column(Column(owners, name="model"), index=0)
        return table

    def copy(self) -> Models:
        """A copy that shares no parameter, with the covariance."""
        copy = Models(c.copy() for c in self.components)
        if self._covariance is not None:
            twin = dict(zip(map(id, self.parameters), copy.parameters, strict=True))
            known, block = self._covariance
            kept = [i for i, p in enumerate(known) if id(p) in twin]
            copy._covariance = (
                tuple(twin[id(known[i])] for i in kept),
                block[np.ix_(kept, kept)].copy(),
            )
        return copy

    def __repr__(self) -> str:
        return f"Models({self.names})"

    def __str__(self) -> str:
        text = "Models\n\n"
        for number, component in enumerate(self.components):
            text += f"Component {number}: {component}\n"
        return text


def _names_list(names: str | Iterable[str] | None) -> list[str] | None:
    if names is None:
        return None
    return [names] if isinstance(names, str) else [str(name) for name in names]


def _parameter_line(p: Parameter) -> str:
    frozen = "(frozen)" if p.frozen else ""
    value = f"{p.value:10.2e}" if p.value and not 1e-3 <= abs(p.value) < 1e6 else f"{p.value:10.3f}"
    error = ""
    if not p.frozen and p.error:
        error = f"+/- {p.error:.1e}" if p.error < 1e-3 else f"+/- {p.error:.3f}"
    return f"    {p.name:<22}{frozen:<8}: {value}   {error:<11} {p.unit}".rstrip()
