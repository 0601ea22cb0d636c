"""Models: what the sky and the background are taken to be, with parameters that a fit adjusts.

`parameter` holds the numbers, `prior` what is known of them, `spatial` and `spectral` the shapes,
`sky` the components, `collection` the `Models` that gathers them, `io` the YAML and covariance
files.
"""

from __future__ import annotations

from .collection import Models
from .parameter import Parameter, ParameterField, Parameters
from .prior import PRIORS, GaussianPrior, Prior, UniformPrior
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
    ConstantSpectralModel,
    ExpCutoffPowerLawSpectralModel,
    LogParabolaSpectralModel,
    PowerLaw2SpectralModel,
    PowerLawNormSpectralModel,
    PowerLawSpectralModel,
    SpectralModel,
    TemplateSpectralModel,
)

__all__ = [
    "PRIORS",
    "SPATIAL_MODELS",
    "SPECTRAL_MODELS",
    "Component",
    "ConstantSpatialModel",
    "ConstantSpectralModel",
    "DiskSpatialModel",
    "ExpCutoffPowerLawSpectralModel",
    "FoVBackgroundModel",
    "GaussianPrior",
    "GaussianSpatialModel",
    "GeneralizedGaussianSpatialModel",
    "LogParabolaSpectralModel",
    "Models",
    "Parameter",
    "ParameterField",
    "Parameters",
    "PointSpatialModel",
    "PowerLaw2SpectralModel",
    "PowerLawNormSpectralModel",
    "PowerLawSpectralModel",
    "Prior",
    "Shell2SpatialModel",
    "ShellSpatialModel",
    "SkyModel",
    "SpatialModel",
    "SpectralModel",
    "TemplateSpatialModel",
    "TemplateSpectralModel",
    "UniformPrior",
]
