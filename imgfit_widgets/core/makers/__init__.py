"""Reduction: observations and a geometry become map datasets.

`Reduction`
    What is asked for: geometry, energy axes, cuts, safe masks, background method, accuracy.
`reduction_from_config`
    The same from a configuration.
`reduce_observations`
    Runs it over observations, stacked into one dataset or one dataset a run.
`SafeMask`
    Which bins of a run are trusted.
`FoVBackground`, `RingBackground`, `AdaptiveRingBackground`
    How the expected background of a run is matched to its counts.
`Exclusion`
    Parts of the sky that are kept out of that, from a FITS mask or DS9 regions.

With ``accuracy="exact"`` the background follows every energy node of its table, and area, energy
dispersion and PSF are averaged over each true-energy bin; ``"gammapy"`` takes them as Gammapy 2.1
does (one power law between the edges of a bin, the bin's centre). Where else the two differ, the
code says so.
"""

from .background import (
    AdaptiveRingBackground,
    BackgroundMethod,
    FoVBackground,
    RingBackground,
)
from .exclusion import Exclusion
from .from_config import PROJECTIONS, reduction_from_config
from .reduction import ACCURACIES, MAPS, Reduction
from .safe_mask import SafeMask
from .stack import reduce_observations

__all__ = [
    "ACCURACIES",
    "MAPS",
    "PROJECTIONS",
    "AdaptiveRingBackground",
    "BackgroundMethod",
    "Exclusion",
    "FoVBackground",
    "Reduction",
    "RingBackground",
    "SafeMask",
    "reduce_observations",
    "reduction_from_config",
]
