"""Components: `SkyModel` joins a spectral and a spatial model; `FoVBackgroundModel` scales the
background of one dataset. `collection` gathers them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

import traitlets

from ..errors import ModelError
from .parameter import Parameter, ParameterOwner, Parameters
from .spatial import SpatialModel
from .spectral import PowerLawNormSpectralModel, SpectralModel

__all__ = ["Component", "FoVBackgroundModel", "SkyModel"]


class _NamedModel(traitlets.HasTraits):
    """What components share: a name that their parameters carry in messages."""

    name = traitlets.Unicode()

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    @property
    def _parts(self) -> tuple[ParameterOwner, ...]:
        raise NotImplementedError

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


class _Part(traitlets.TraitType[Any, Any]):
    """A spectral or spatial model of a source."""

    def __init__(self, kind: type[ParameterOwner], expected: str) -> None:
        super().__init__(default_value=None, allow_none=True)
        self.kind = kind
        self.expected = expected

    def validate(self, obj: Any, value: Any) -> Any:
        if not isinstance(value, self.kind):
            raise ModelError(f"{obj.name}: {self.name} {value!r} is {self.expected}")
        return value


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
    def _parts(self) -> tuple[ParameterOwner, ...]:
        parts = (self.spectral_model, self.spatial_model)
        return tuple(part for part in parts if part is not None)

    @traitlets.observe("spectral_model", "spatial_model")
    def _name_new_part(self, change: Any) -> None:
        for parameter in change["new"].parameters:
            parameter.owner = self.name

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
        super().__init__(name or f"{dataset_name}-bkg")

    @property
    def _parts(self) -> tuple[ParameterOwner, ...]:
        return (self.spectral_model,)

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
