"""The one state that all widgets share: what is edited, what was computed, and its history.

Three things follow from the state by themselves, without any verb: the predicted counts of the
present parameters (`preview`), one step of undo for every gesture or edit (`history`), and the
answer to whether data and fit still belong to it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from traitlets import Any as AnyTrait
from traitlets import Bool, Dict, Enum, Float, HasTraits, Instance, Int, Unicode, observe

from . import sources
from .changes import signature
from .core.config import AnalysisConfig
from .core.dataset import Datasets, MapDataset
from .core.errors import ImgfitError
from .core.fit import FitResult
from .core.models import Models, Parameter, SkyModel
from .history import History, Step
from .preview import Preview
from .reducing import Reduced, Request, excluded, run_of
from .task import Owner, Task

log = logging.getLogger(__name__)


class State(HasTraits):
    """What a workbench knows.

    ``models`` is one object for the whole life of the state: its ``components`` are replaced.
    ``preview`` is the `LiveState` (predicted counts, statistic, ΔTS) of the parameters as they are.
    ``selected`` names a model, ``dataset_name`` the dataset that is displayed, ``error`` says what
    went wrong last; each may be empty. ``view`` is what panels want to be kept in a session file.
    ``revision`` grows with every step, undo and redo: who depends on the whole state watches it.
    ``drafts`` holds, by verb, what hands over edits that are not applied yet, such as YAML text,
    before the verb runs; it raises an `ImgfitError` if they cannot be used.

    ``geometry`` (a projection, CAR or TAN, or the path of a FITS image whose pixels are taken) and
    ``skip_failed`` (go on without runs that fail) are asked of a reduction beside ``config``, whose
    file has no keys for them. ``reduced`` is what came of the last one, with the runs left out.
    ``search_radius`` is asked of a fit: degrees around each source in which it first looks for the
    place where the source fits best; 0 for none.
    """

    config = Instance(AnalysisConfig)
    geometry = Unicode("CAR")
    skip_failed = Bool(False)
    search_radius = Float(0.0, min=0.0, max=180.0)
    reduced = Instance(Reduced, allow_none=True, default_value=None)
    datasets = Instance(Datasets, allow_none=True, default_value=None)
    models = Instance(Models)
    fit_result = Instance(FitResult, allow_none=True, default_value=None)
    preview = AnyTrait(None, allow_none=True)
    selected = Unicode()
    mode = Enum(["navigate", "edit", "add"], "navigate")
    error = Unicode()
    dataset_name = Unicode()
    view = Dict()
    revision = Int()

    data_roots: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__(config=AnalysisConfig(), models=Models())
        self.owner = Owner()
        self.task = Task(self.owner)
        self.drafts: dict[str, list[Callable[[], object]]] = {"reduce": [], "fit": []}
        self._preview = Preview()
        self._problem, self._clearing = "", False
        self._reduced: object = None
        self._excluded: tuple[object, object, Any] = (None, None, None)
        self._followed: list[Parameter] = []
        self.history = History(self._take, self._restore, self._committed, self.owner)
        self.models.observe(self._follow, "components")
        self.config.observe_all(self.history.changed)
        self.observe(self.history.changed, ["geometry", "skip_failed", "search_radius"])
        self.task.observe(self._task_changed, "status")

    @property
    def dataset(self) -> MapDataset | None:
        """The dataset that is displayed."""
        if self.datasets is None or self.dataset_name not in self.datasets.names:
            return None
        return self.datasets[self.dataset_name]

    @property
    def source(self) -> SkyModel | None:
        """The selected source."""
        return next((m for m in self.models.sky_models if m.name == self.selected), None)

    @property
    def fit_is_current(self) -> bool:
        """Whether data, models and values are those that the last fit ended with."""
        result = self.fit_result
        if result is None or list(result.datasets) != list(self.datasets or ()):
            return False
        now, then = list(self.models.parameters), result.parameters
        return signature(self.models) == signature(result.models) and all(
            math.isclose(p.value, row["value"], rel_tol=1e-9)
            for p, row in zip(now, then, strict=True)
        )

    @property
    def data_are_current(self) -> bool:
        """Whether the datasets are those of the configuration as it is."""
        return self._reduced in (None, recipe(self.config, self.geometry))

    @property
    def data_are_reduced(self) -> bool:
        """Whether the datasets came of a reduction, and not from elsewhere."""
        return self._reduced is not None

    @property
    def failed(self) -> dict[int, str]:
        """Runs that the last reduction left out, with their reasons."""
        reduced = self.reduced
        return reduced.failed if reduced is not None and reduced.datasets is self.datasets else {}

    @property
    def failed_run(self) -> int | None:
        """The run at which the last reduction ended; None if it was not because of one."""
        failed = self.task.kind == "reduce" and self.task.status == "failed"
        return run_of(self.task.error) if failed and self.error == self.task.error else None

    @property
    def excluded(self) -> Any:
        """Pixels of the displayed dataset that its background leaves out, (ny, nx), or None."""
        reduced, dataset = self.reduced, self.dataset
        if reduced is None or reduced.datasets is not self.datasets:
            return None
        if self._excluded[:2] != (reduced, dataset):
            self._excluded = (reduced, dataset, excluded(reduced.exclusion, dataset))
        return self._excluded[2]

    @property
    def request(self) -> Request:
        """The reduction that is asked for now."""
        return Request(self.config.copy(), self.geometry, self.skip_failed, self.data_roots)

    # --- what can be done
    def why_not(self, verb: str) -> str:
        """Why a verb cannot be done now, in words; empty if it can."""
        busy = {
            "reduce": "Reducing the data", "read": "Reading datasets", "fit": "Fitting",
            "snap": "Moving the source", "search": "Searching for sources",
        }  # fmt: skip
        if verb in ("reduce", "read_datasets", "fit", "snap") and self.task.running:
            return busy.get(self.task.kind, "Looking around the minimum")
        if verb == "read_datasets" and self.config.general.datasets_file is None:
            return "Name a file of datasets first"
        if verb in ("fit", "snap", "nudge", "add_source", "export_dataset") and not self.datasets:
            return "Reduce the data first"
        if verb == "add_source" and cast(MapDataset, self.dataset).exposure is None:
            return f"No exposure in {self.dataset_name}: a source cannot be predicted without"
        if verb == "fit" and not len(self.models.parameters.free_parameters):
            return "Every parameter is frozen"
        if verb in ("remove_source", "snap", "nudge") and self.source is None:
            return "Select a source first"
        if verb == "cancel" and not self.task.running:
            return "Nothing is running"
        nothing = verb in ("undo", "redo") and not getattr(self.history, f"can_{verb}")
        return f"Nothing to {verb}" if nothing else ""

    def attempt(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a verb for a widget: what goes wrong ends in ``error`` and is not raised.

        Anything but an `ImgfitError` is a fault of this program: its traceback goes to the log.
        """
        try:
            return function(*args, **kwargs)
        except ImgfitError as error:
            self.error = str(error)
        except Exception as error:
            log.exception("%s failed", getattr(function, "__name__", "a verb"))
            words = str(error).strip().split("\n")[0]
            self.error = f"unexpected: {type(error).__name__}: {words}; please report"
        return None

    def _require(self, verb: str) -> Datasets | None:
        """The datasets; ImgfitError with the reason if the verb cannot be done now."""
        reason = self.why_not(verb)
        if reason:
            raise ImgfitError(reason)
        return self.datasets

    def _take_drafts(self, verb: str) -> None:
        for take in self.drafts[verb]:
            take()

    def _dataset(self, verb: str) -> MapDataset:
        self._require(verb)
        return cast(MapDataset, self.dataset)

    # --- changes, for the verbs
    def _put(
        self, models: Models, datasets: Datasets | None, reduced: object, selected: str = ""
    ) -> None:
        """Take over models and datasets together, with the backgrounds that they need.

        ``reduced`` is the `recipe` of the datasets; None if they came from elsewhere.
        ``selected`` is the model to select if the one that is selected is gone.
        """
        parameters, errors = models.parameters, [p.error for p in models.parameters]
        with self.history.gesture():
            if models is not self.models:
                self.models.components = models.components
                self.models.set_covariance(parameters, models.covariance)
                for parameter, error in zip(parameters, errors, strict=True):
                    parameter.error = error
            self.models.components = sources.for_datasets(self.models, datasets)
            self._reduced = reduced
            with self.hold_trait_notifications():
                self.datasets = datasets
                if datasets is not None and self.dataset_name not in datasets.names:
                    self.dataset_name = datasets.names[0]
                names = self.models.names
                if self.selected not in names:
                    self.selected = selected if selected in names else ""
        self._refresh()

    def _move(self, name: str, **values: float) -> None:
        """Give a source new spatial values; amplitudes and norms are solved anew.

        What changes loses its error: that belongs to the values that a fit ended with.
        """
        with self.history.gesture():
            changed = list(self.models[name].parameters)
            if self.datasets is not None:
                self.preview = self._preview.move(self.datasets, self.models, name, values)
                solved = self.preview.values
                changed += [self.models[owner].parameters[key] for owner, key in solved]
            sources.without_errors(self.models, changed)

    # --- what follows by itself
    @observe("selected")
    def _refresh(self, change: object = None) -> None:
        self.preview = self._preview.state(self.datasets, self.models, self.selected)
        problem, known = self._preview.problem, self._problem
        self._problem = problem
        if problem != known and (problem or self.error == known):
            self.error = problem

    def _follow(self, change: object = None) -> None:
        """Watch the parameters of the present components."""
        for parameter in self._followed:
            parameter.unobserve(self._edited)
        self._followed = list(self.models.parameters)
        for parameter in self._followed:
            parameter.observe(self._edited)
        self._edited()

    def _edited(self, change: Any = None) -> None:
        if self.history.busy or self._clearing:
            return
        if any(p.owner != model.name for model in self.models for p in model.parameters):
            return  # a name is passed on; the last parameter to hear of it tells
        if change is not None and change.name == "value":
            self._clearing = True
            sources.without_errors(self.models, list(self.models[change.owner.owner].parameters))
            self._clearing = False
        self.history.changed()
        self.owner.soon(self._refresh)

    def _task_changed(self, change: Any) -> None:
        self.error = self.task.error if change.new == "failed" else ""

    # --- history
    def _take(self) -> Step[_Moment]:
        config, models = self.config.to_dict(), self.models
        asked = (self.geometry, self.skip_failed, self.search_radius)
        numbers = [(p.value, p.error) for p in models.parameters]
        ids = id(self.datasets), id(self.fit_result)
        token = repr((config, asked, signature(models), numbers, *ids))
        moment = _Moment(
            config,
            asked,
            models.copy(),
            self.datasets,
            self.fit_result,
            (self._reduced, self.reduced),
            self.selected,
        )
        return Step(token, moment)

    def _restore(self, moment: _Moment) -> None:
        self.config.take(AnalysisConfig.from_dict(moment.config))
        self.geometry, self.skip_failed, self.search_radius = moment.asked
        self.fit_result = moment.fit_result
        datasets, origin = moment.datasets, moment.origin
        if datasets is None:  # data that are there stay, and so does what they are from
            datasets, origin = self.datasets, (self._reduced, self.reduced)
        self.reduced = origin[1]
        self._put(moment.models.copy(), datasets, origin[0], selected=moment.selected)

    def _committed(self) -> None:
        self._refresh()
        self.error = self._problem  # what else went wrong before this step is over
        self.revision += 1


@dataclass(frozen=True)
class _Moment:
    """What one step of the history keeps. Datasets and results never change, so no copies."""

    config: dict[str, Any]
    asked: tuple[str, bool, float]
    models: Models
    datasets: Datasets | None
    fit_result: FitResult | None
    origin: tuple[object, Reduced | None]
    selected: str


def recipe(config: AnalysisConfig, geometry: str) -> tuple[Any, ...]:
    """All that decides what the datasets are, to be compared."""
    return (config.to_dict(), geometry)
