"""Models: what the sky and the background are taken to be, with parameters that a fit adjusts.

`parameter` holds the numbers, `spatial` and `spectral` the shapes, `sky` the components,
`collection` the `Models` that gathers them, `io` the YAML and covariance files.
"""

from __future__ import annotations

from .collection import Models
from .parameter import Parameter, ParameterField, Parameters
from .sky import Component, FoVBackgroundModel, SkyModel
from .spatial import (
    SPATIAL_MODELS,
    ConstantSpatialModel,
    DiskSpatialModel,
    GaussianSpatialModel,
    GeneralizedGaussianSpatialModel,
    PointSpatialModel,
    Shell2SpatialModel,
    ShellSpatialModel,
    SpatialModel,
    TemplateSpatialModel,
)
from .spectral import (
    SPECTRAL_MODELS,
    PowerLaw2SpectralModel,
    PowerLawNormSpectralModel,
    PowerLawSpectralModel,
    SpectralModel,
)

__all__ = [
    "SPATIAL_MODELS",
    "SPECTRAL_MODELS",
    "Component",
    "ConstantSpatialModel",
    "DiskSpatialModel",
    "FoVBackgroundModel",
    "GaussianSpatialModel",
    "GeneralizedGaussianSpatialModel",
    "Models",
    "Parameter",
    "ParameterField",
    "Parameters",
    "PointSpatialModel",
    "PowerLaw2SpectralModel",
    "PowerLawNormSpectralModel",
    "PowerLawSpectralModel",
    "Shell2SpatialModel",
    "ShellSpatialModel",
    "SkyModel",
    "SpatialModel",
    "SpectralModel",
    "TemplateSpatialModel",
]
