"""Interactive fitting of 2D gamma-ray images in Jupyter.

The headless core (`imgfit_widgets.core`) reduces event lists to maps and fits models to them; the
widgets stand on it. The public names below are loaded when first used, so that the core starts
without a widget library.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "core.analysis": ("Analysis",),
    "core.config": ("AnalysisConfig",),
    "core.dataset": ("Datasets", "MapDataset"),
    "core.fit": ("Fit", "FitResult", "LiveLikelihood"),
    "core.inference": (
        "compare",
        "extension_test",
        "flux_upper_limit",
        "information_criteria",
        "localise",
        "source_ts",
    ),
    "core.ladder": ("compare_shapes",),
    "core.profile": ("Profiles",),
    "core.estimators.excess_map": ("ExcessMapEstimator",),
    "core.estimators.ts_map": ("TSMapEstimator",),
    "core.estimators.find": ("find_sources",),
    "core.models": ("Models",),
    "session": ("Session",),
    "widgets.workbench": ("Workbench",),
    "widgets.map_viewer": ("MapViewer",),
    "widgets.config_editor": ("ConfigEditor",),
    "widgets.model_editor": ("ModelEditor",),
    "widgets.fit_panel": ("FitPanel",),
    "widgets.inference_panel": ("InferencePanel",),
    "widgets.search_panel": ("SearchPanel",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
