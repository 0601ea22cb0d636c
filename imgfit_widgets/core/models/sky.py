"""Components: `SkyModel` joins a spectral and a spatial model; `FoVBackgroundModel` scales the
background of one dataset. `collection` gathers them.
"""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Iterable
from typing import Any, Protocol

import traitlets

from ..errors import ModelError
from .parameter import Parameter, ParameterOwner, Parameters
from .spatial import SpatialModel
from .spectral import PowerLawNormSpectralModel, SpectralModel

__all__ = ["Component", "FoVBackgroundModel", "SkyModel"]


class Collection(Protocol):
    """What a component asks and tells the collections that it is in."""

    def check_name(self, component: Any, name: str) -> None:
        """Raise ModelError if another component has that name."""

    def check_part(self, component: Any, part: ParameterOwner) -> None:
        """Raise ModelError if another component has that part."""

    def tell_new_part(self) -> None:
        """A component has another shape or spectrum."""


class _Name(traitlets.TraitType[Any, Any]):
    """A text that no other component of a collection has."""

    def validate(self, obj: Any, value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            old = obj._trait_values.get(self.name) or "model"
            raise ModelError(
                f"{old}: name {value!r} cannot be used; expected at least one character"
            )
        for collection in obj.collections:
            collection.check_name(obj, value)
        return value


class _Part(traitlets.TraitType[Any, Any]):
    """A spectral or spatial model that no other component of a collection has."""

    def __init__(self, kind: type[ParameterOwner], expected: str) -> None:
        super().__init__(default_value=None, allow_none=True)
        self.kind = kind
        self.expected = expected

    def set(self, obj: Any, value: Any) -> None:
        # None only stands for what the constructor has not set yet.
        super().set(obj, self.validate(obj, value))

    def validate(self, obj: Any, value: Any) -> Any:
        if not isinstance(value, self.kind):
            raise ModelError(f"{obj.name}: {self.name} {value!r} is {self.expected}")
        for collection in obj.collections:
            collection.check_part(obj, value)
        return value


class _NamedModel(traitlets.HasTraits):
    """What components share: a name that their parameters carry in messages, and parts.

    ``collections`` are those that the component is in. They are held weakly: a collection that was
    made for a moment leaves nothing behind.
    """

    name = _Name("")

    def __init__(self, name: str) -> None:
        super().__init__()
        self.collections: weakref.WeakSet[Collection] = weakref.WeakSet()
        self.name = name

    # Pickled or deeply copied, a component leaves its collections; a collection takes it in again.
    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in super().__getstate__().items() if k != "collections"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.collections = weakref.WeakSet()

    def applies_to(self, dataset_name: str) -> bool:
        """Whether it is in that dataset."""
        names: list[str] | None = getattr(self, "datasets_names", None)
        return names is None or dataset_name in names

    @property
    def parts(self) -> tuple[ParameterOwner, ...]:
        """The spectral and, of a source, the spatial model."""
        raise NotImplementedError

    @traitlets.observe("name")
    def _pass_name_on(self, change: Any) -> None:
        for parameter in self.parameters:
            parameter.owner = self.name

    @property
    def parameters(self) -> Parameters:
        """All parameters, the spectral ones first."""
        return Parameters(p for part in self.parts for p in part.parameters)

    @property
    def frozen(self) -> bool:
        """Whether every parameter is frozen."""
        return all(p.frozen for p in self.parameters)

    def freeze(self) -> None:
        """Freeze every parameter."""
        self.parameters.freeze_all()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    def _tell_new_part(self, change: Any) -> None:
        for parameter in change["new"].parameters:
            parameter.owner = self.name
        for collection in tuple(self.collections):
            collection.tell_new_part()

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

    # Traits, so that replacing a part is seen by whoever shows or compiles the model.
    spectral_model = _Part(SpectralModel, "no spectral model")
    spatial_model = _Part(SpatialModel, "no spatial model; an image needs one")

    def __init__(
        self,
        spectral_model: SpectralModel,
        spatial_model: SpatialModel | None = None,
        name: str | None = None,
        datasets_names: str | Iterable[str] | None = None,
    ) -> None:
        name = uuid.uuid4().hex[:8] if name is None else name
        super().__init__(name)
        self.spectral_model = spectral_model
        self.spatial_model = spatial_model
        self.datasets_names = _names_list(datasets_names)

    @property
    def parts(self) -> tuple[ParameterOwner, ...]:
        parts = (self.spectral_model, self.spatial_model)
        return tuple(part for part in parts if part is not None)

    @traitlets.observe("spectral_model", "spatial_model")
    def _part_changed(self, change: Any) -> None:
        self._tell_new_part(change)

    @property
    def position(self) -> Any:
        """Centre of the source (SkyCoord)."""
        return self.spatial_model.position

    @property
    def frame(self) -> str:
        """Frame of the spatial model."""
        return str(self.spatial_model.frame)

    @property
    def linear_parameter(self) -> Parameter:
        """The parameter that the predicted counts are proportional to."""
        parameter: Parameter = self.spectral_model.parameters[self.spectral_model.linear]
        return parameter

    def copy(self, name: str | None = None) -> SkyModel:
        """A copy that shares no parameter, with the covariance."""
        spatial = self.spatial_model.copy()
        spectral = self.spectral_model.copy()
        copy = SkyModel(spectral, spatial, self.name if name is None else name, self.datasets_names)
        copy.parameters.share_as(self.parameters)
        return copy

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

    spectral_model = _Part(
        PowerLawNormSpectralModel,
        "not supported for a background; expected a PowerLawNormSpectralModel",
    )

    def __init__(
        self,
        spectral_model: SpectralModel | None = None,
        dataset_name: str | None = None,
        name: str | None = None,
    ) -> None:
        if not dataset_name:
            raise ModelError("FoVBackgroundModel: dataset_name is missing; whose background is it?")
        super().__init__(name or f"{dataset_name}-bkg")
        self.datasets_names = [dataset_name]
        self.spectral_model = spectral_model or PowerLawNormSpectralModel()

    @property
    def parts(self) -> tuple[ParameterOwner, ...]:
        return () if self.spectral_model is None else (self.spectral_model,)

    @traitlets.observe("spectral_model")
    def _part_changed(self, change: Any) -> None:
        self._tell_new_part(change)

    @property
    def dataset_name(self) -> str:
        """The dataset whose background is scaled."""
        return self.datasets_names[0]

    def copy(self, name: str | None = None) -> FoVBackgroundModel:
        """A copy that shares no parameter, with the covariance."""
        spectral = PowerLawNormSpectralModel(**{p.name: p for p in self.spectral_model.parameters})
        copy = FoVBackgroundModel(spectral, self.dataset_name, name or self.name)
        copy.parameters.share_as(self.parameters)
        return copy

    def _header(self) -> list[tuple[str, str]]:
        return [
            ("Name", self.name),
            ("Datasets names", str(self.datasets_names)),
            ("Spectral model type", type(self.spectral_model).__name__),
        ]


Component = SkyModel | FoVBackgroundModel


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
