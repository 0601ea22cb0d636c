"""The collection of components that a fit adjusts together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, overload

import numpy as np
import traitlets
from astropy.table import Column, Table

from ..errors import ModelError
from .io import models_from_dict, models_from_yaml, models_to_dict, models_to_yaml, read_models
from .io import write_models as write_files
from .parameter import Parameter, ParameterOwner, Parameters
from .sky import Component, FoVBackgroundModel, SkyModel


class _Components(traitlets.TraitType[Any, Any]):
    """A tuple of components with different names, and with no part in common."""

    def validate(self, obj: Any, value: Any) -> tuple[Component, ...]:
        components: list[Component] = []
        for item in value:
            if not isinstance(item, (SkyModel, FoVBackgroundModel)):
                raise ModelError(f"models: {item!r} is neither a SkyModel nor a FoVBackgroundModel")
            _check_name(components, item, item.name)
            for part in item.parts:
                _check_part(components, item, part)
            components.append(item)
        return tuple(components)


def _check_name(components: Iterable[Component], item: Component, name: str) -> None:
    if any(name == other.name for other in components):
        if name != item.name:
            raise ModelError(f"{item.name}: cannot be renamed to {name}: this name is taken")
        raise ModelError(f"{name}: this name is used twice; each model needs its own")


def _check_part(components: Iterable[Component], item: Component, part: ParameterOwner) -> None:
    for other in components:
        if any(part is found for found in other.parts):
            raise ModelError(
                f"{item.name}: its {part.kind} model is that of {other.name} too; each model needs "
                "its own, such as copy() of a whole model has"
            )


class Models(traitlets.HasTraits):
    """Components in order.

    ``components`` is a tuple that is replaced as a whole whenever the list changes, so that one
    observer sees every change of the list.
    """

    components = _Components(())

    @traitlets.observe("components")
    def _join_components(self, change: Any) -> None:
        for component in change["old"] or ():
            component.collections.discard(self)
        for component in change["new"]:
            component.collections.add(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for component in self.components:
            component.collections.add(self)

    def check_name(self, component: Component, name: str) -> None:
        """Raise ModelError if another component has that name already."""
        _check_name((c for c in self.components if c is not component), component, name)

    def check_part(self, component: Component, part: ParameterOwner) -> None:
        """Raise ModelError if another component has that spatial or spectral model."""
        _check_part((c for c in self.components if c is not component), component, part)

    def tell_new_part(self) -> None:
        """A source with another shape or spectrum is another list, for whoever watches it."""
        self.notify_change(
            traitlets.Bunch(
                name="components",
                old=self.components,
                new=self.components,
                owner=self,
                type="change",
            )
        )

    def __init__(self, components: Iterable[Component] | Component = ()) -> None:
        super().__init__()
        if isinstance(components, (SkyModel, FoVBackgroundModel)):
            components = (components,)
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

        Set it with such an array, or with `set_covariance` for some parameters. It stays with the
        parameters, in whatever collection they are. Those that no fit knew have their error squared
        on the diagonal.
        """
        return self.parameters.covariance

    @covariance.setter
    def covariance(self, matrix: Any) -> None:
        self.set_covariance(self.parameters, matrix)

    def set_covariance(self, parameters: Iterable[Parameter], matrix: Any) -> None:
        """Store the covariance of some parameters and set their errors from its diagonal."""
        items = Parameters(parameters)
        block = np.array(matrix, dtype=float)
        if block.shape != (len(items), len(items)):
            raise ModelError(
                f"covariance: shape {block.shape} does not fit {len(items)} parameters"
            )
        items.share(block)
        for parameter, variance in zip(items, np.diag(block), strict=True):
            parameter.error = float(np.sqrt(variance)) if variance >= 0 else np.nan

    # --- files
    @classmethod
    def from_yaml(cls, text: str, path: str | Path | None = None) -> Models:
        """Models from YAML text; see `imgfit_widgets.core.models.io`."""
        return models_from_yaml(cls, text, path)

    @classmethod
    def from_dict(cls, data: Any) -> Models:
        """Models from the content of a YAML file."""
        return models_from_dict(cls, data)

    @classmethod
    def read(cls, path: str | Path) -> Models:
        """Models and, if the file names it, their covariance."""
        return read_models(cls, path)

    def write(
        self,
        path: str | Path,
        overwrite: bool = False,
        full_output: bool = False,
        write_covariance: bool = True,
    ) -> None:
        """Write YAML and, beside it, ``STEM_covariance.dat``."""
        write_files(self, path, overwrite, full_output, write_covariance)

    def to_dict(self, full_output: bool = False) -> dict[str, Any]:
        """The content of a YAML file; defaults are left out unless ``full_output``."""
        return models_to_dict(self, full_output)

    def to_yaml(self, full_output: bool = False) -> str:
        """YAML text as Gammapy reads it."""
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
        first: dict[int, Parameter] = {}
        for parameter, new in zip(self.parameters, copy.parameters, strict=True):
            leader = first.setdefault(id(parameter.leader), new)
            if leader is not new:
                new.link = leader
        copy.parameters.share_as(self.parameters)
        return copy

    def __repr__(self) -> str:
        return f"Models({self.names})"

    def __str__(self) -> str:
        text = "Models\n\n"
        for number, component in enumerate(self.components):
            text += f"Component {number}: {component}\n"
        return text
