"""A search for sources: a map of the test statistic of a further point source, and its peaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from traitlets import Instance

from .core.dataset import MapDataset
from .core.errors import InputError, ModelError
from .core.estimators.find import FoundSources, find_sources
from .core.estimators.flux_maps import FluxMaps
from .core.estimators.ts_map import TSMapEstimator
from .core.models import Models
from .core.progress import Progress
from .inferring import Circumstances, Inferring
from .task import Task
from .verbs import verb

NULLS = {"background": "the background alone", "models": "the models as they are"}
"""What a TS map is counted against."""
THRESHOLD = 4.0


@dataclass(frozen=True, eq=False)
class Search:
    """A TS map and the peaks in it.

    Attributes
    ----------
    maps : FluxMaps
        With ``sqrt_ts``, one band.
    found : FoundSources
    against : str
        A key of `NULLS`.
    at : Circumstances
    """

    maps: FluxMaps
    found: FoundSources
    against: str
    at: Circumstances


class Searching(Inferring):
    """The verbs of a search; ``search`` is the newest one."""

    search = Instance(Search, allow_none=True, default_value=None)

    def why_not(self, verb: str) -> str:
        """Why a verb cannot be done now, in words; empty if it can."""
        if verb != "find_sources":
            return super().why_not(verb)
        reason = super().why_not("fit")
        return "" if reason == "Every parameter is frozen" else reason

    @property
    def search_is_current(self) -> bool:
        """Whether the data, and the models if it counts against them, are those of the search."""
        search = self.search
        if search is None:
            return False
        return search.at.same(self._search_circumstances(search.against))

    def _search_circumstances(self, against: str) -> Circumstances:
        """What a search depends on; a background only is re-scaled with every source that comes."""
        return Circumstances.of(self.datasets, self.models if against == "models" else Models())

    @verb
    def find_sources(self, against: str = "background", threshold: float = THRESHOLD) -> Task:
        """Make a TS map and find its peaks above a threshold in σ, in the background.

        Parameters
        ----------
        against : str
            ``background`` shows every source, ``models`` what they leave over.
        threshold : float
            Least sqrt(TS).
        """
        if against not in NULLS:
            raise InputError(f"against: {against!r}; expected one of {', '.join(NULLS)}")
        datasets = self._require("find_sources")
        null = _null(self.models, against).copy()
        at = self._search_circumstances(against)

        def work(progress: Progress) -> tuple[FluxMaps, FoundSources]:
            group = [_with_models(dataset, null) for dataset in datasets or ()]
            maps = TSMapEstimator().run(group, progress=progress)
            return maps, find_sources(maps, threshold, stem="Peak")

        def apply(result: tuple[FluxMaps, FoundSources]) -> None:
            self.search = Search(*result, against, at)

        self.task.start(work, apply, "search")
        return self.task

    def found(self, name: str) -> Any:
        """The row of the table of peaks with a name; ModelError if there is none."""
        table = None if self.search is None else self.search.found.table
        for row in () if table is None else table:
            if str(row["name"]) == name:
                return row
        raise ModelError(f"{name}: no such peak was found")


def _null(models: Models, against: str) -> Models:
    """The models that a search counts against."""
    return models if against == "models" else Models(models.background_models)


def _with_models(dataset: MapDataset, models: Models) -> MapDataset:
    """The dataset with those of the models that apply to it."""
    own = [m for m in models if m.datasets_names is None or dataset.name in m.datasets_names]
    return dataset.with_models(Models(own))
