"""Everything that can be done on the screen, as methods.

A `Session` is the state that all widgets share (see `imgfit_widgets.state`) with the verbs that
change it. Widgets link to its traits and call its verbs; a script can do the same. Verbs run on the
thread that owns the state; long ones hand their work to `Session.task`. A verb that cannot be done
leaves the state as it was, says why in ``error`` and raises an `ImgfitError`; `Session.attempt`
calls one without raising.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, cast

from . import reducing, sources
from . import session_files as files
from .core.config import AnalysisConfig
from .core.dataset import Datasets, MapDataset
from .core.errors import ImgfitError
from .core.fit import Fit, FitResult
from .core.models import Models, SkyModel
from .core.profile import models_at
from .editing import Editing
from .exports import Exports
from .searching import Searching
from .state import recipe
from .task import Task
from .verbs import verb


class Session(Editing, Searching, Exports):
    """A `State` and the verbs that change it.

    Parameters
    ----------
    config, models : AnalysisConfig and Models, or their YAML text, optional
    data_roots : tuple of paths
        If given, a configuration may only read data below these folders.
    """

    def __init__(
        self,
        config: AnalysisConfig | str | None = None,
        models: Models | str | None = None,
        data_roots: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.data_roots = tuple(data_roots)
        if config is not None:
            self.set_config(config)
        if models is not None:
            self.set_models(models)
        self.history.clear()

    # --- configuration and reduction
    @verb
    def set_config(self, config: AnalysisConfig | str) -> None:
        """Take over a configuration: an object or YAML text."""
        self.config.take(AnalysisConfig.from_yaml(config) if isinstance(config, str) else config)

    @verb
    def reduce(self) -> Task:
        """Reduce the observations to datasets, in the background; a failure changes nothing."""
        self._require("reduce")
        self._take_drafts("reduce")
        request = self.request
        request.check()
        self._named_models()

        def apply(reduced: reducing.Reduced) -> None:
            with self.history.gesture():
                self.reduced = reduced
                self.set_datasets(reduced.datasets, request.config, request.geometry)

        self.task.start(request.run, apply, "reduce")
        return self.task

    @verb
    def reduce_without(self, run: int) -> Task:
        """Take a run out of the selection and reduce the others."""
        self._require("reduce")
        rest = reducing.runs_without(self.config, run)
        self.config.observations.obs_file, self.config.observations.obs_ids = None, rest
        return self.reduce()

    @verb
    def begin(self) -> Task:
        """Read the datasets that the configuration names, if they are there, or else reduce."""
        here = reducing.has_datasets(self.config, self.data_roots)
        return self.read_datasets() if here else self.reduce()

    @verb
    def read_models(self) -> None:
        """Take over the models of ``general.models_file``."""
        self.set_models(reducing.read_models(self.config, self.data_roots))

    def _named_models(self) -> None:
        """Begin with the models that the configuration names, unless others are given."""
        if self.datasets is None and not self.models.sky_models and self.config.general.models_file:
            self.read_models()

    @verb
    def read_datasets(self) -> Task:
        """Read the datasets of ``general.datasets_file``, in the background."""
        self._require("read_datasets")
        self._named_models()
        config, roots = self.config.copy(), self.data_roots

        def work(progress: Any) -> Datasets:
            progress(0.0, "Reading datasets")
            return reducing.read_datasets(config, roots)

        self.task.start(work, self.set_datasets, "read", estimate=False)
        return self.task

    @verb
    def set_datasets(
        self,
        datasets: Datasets | MapDataset,
        config: AnalysisConfig | None = None,
        geometry: str = "CAR",
    ) -> None:
        """Take over datasets, reduced as ``config`` says, and the models they bring along.

        As in `Analysis.set_models`, a model that is there already stays as it is; a dataset that
        has and brings no background model gets one.
        """
        first = self.datasets is None
        new = Datasets([datasets]) if isinstance(datasets, MapDataset) else datasets
        self.models.extend(sources.brought_along(new, self.models))
        self._put(self.models, new, None if config is None else recipe(config, geometry))
        if first:
            self.history.absorb()

    @verb
    def add_found(self, peak: str) -> str:
        """Add a peak of the last search as a point source; its name."""
        row, search = self.found(peak), self.search
        frame = None if search is None else search.found.frame
        name = self.models.unique_name("Source")
        return self.add_source(float(row["lon"]), float(row["lat"]), frame, name=name)

    # --- by hand
    def begin_drag(self, name: str) -> None:
        """Take hold of a source or its size handle; until `end_drag` all is one step of undo."""
        self.history.commit()  # an edit that still waits is a step of its own
        self.history.begin()
        self.selected = name

    @verb
    def drag_to(self, name: str, lon: float, lat: float) -> None:
        """Move a source to (lon, lat) in degrees of the map's frame; fluxes are solved anew."""
        geom = self._dataset("add_source").geom
        if geom.contains(lon, lat):  # else the source waits at the edge for the hand to come back
            self._move(name, **sources.moved(geom, self.models[name], lon, lat))

    @verb
    def drag_size(self, name: str, value: float) -> None:
        """Give a source another size, in degrees; fluxes are solved anew."""
        size = self.models[name].spatial_model.size_parameter
        self.drag_shape(name, **({} if size is None else {size: value}))

    @verb
    def drag_shape(self, name: str, **values: float) -> None:
        """Give a source other shape parameters, angles in degrees; fluxes are solved anew.

        A value beyond a limit stops there.
        """
        self._move(name, **sources.reshaped_by_hand(self.models[name], values))

    def end_drag(self) -> None:
        """Let go."""
        self.history.end()

    def cancel_drag(self) -> None:
        """Let go, with everything back to where it was at `begin_drag`."""
        self.history.abandon()

    @verb
    def nudge(self, dx: float, dy: float) -> None:
        """Move the selected source by pixels of the map."""
        geom = self._dataset("nudge").geom
        source = cast(SkyModel, self.source)
        self.drag_to(source.name, *sources.stepped(geom, source, dx, dy))

    @verb
    def snap(self) -> Task:
        """Move the selected source to the best position nearby, in the background."""
        datasets, name, names = self._require("snap"), self.selected, self.models.names
        models = sources.only_position(self.models, name)
        work = functools.partial(Fit().solve, datasets, models)

        def apply(result: FitResult) -> None:
            if self.models.names != names or self.datasets is not datasets:
                raise ImgfitError(f"Models or data changed while {name} was moved; snap again")
            if not result.success:
                raise ImgfitError(f"{name} stays where it is: {result.message}")
            with self.history.gesture():
                place = {p: result.value(name, p) for p in ("lon_0", "lat_0")}
                self._move(name, **place)

        self.task.start(work, apply, "snap", estimate=False)
        return self.task

    # --- fit
    @verb
    def fit(self) -> Task:
        """Fit all free parameters in the background; ``task.live`` is its newest step.

        First, sources are looked for within ``search_radius`` of where they are.
        """
        self._require("fit")
        self._take_drafts("fit")
        datasets, models, names = self._require("fit"), self.models.copy(), self.models.names
        solver = Fit(search_radius=self.search_radius)

        def work(progress: Any) -> FitResult:
            result = solver.solve(datasets, models, progress, self.task.send)
            dict(result.ts)  # computed here and not when it is shown
            return result

        def apply(result: FitResult) -> None:
            if self.models.names != names or self.datasets is not datasets:
                raise ImgfitError("Models or data changed while the fit ran; fit again")
            with self.history.gesture():
                result.apply(self.models)
                self.fit_result = result
            if not result.success:
                raise ImgfitError(result.message)

        self.task.start(work, apply, "fit", estimate=False)
        return self.task

    @verb
    def set_fit_result(self, result: FitResult) -> None:
        """Take over a fit that was made in code: its data, its models, errors and all.

        From then on it counts as the session's own: questions about the minimum can be asked.
        """
        same = self.datasets is not None and list(result.datasets) == list(self.datasets)
        datasets = self.datasets if same else Datasets(cast("list[MapDataset]", result.datasets))
        self._put(models_at(result), datasets, self._reduced if same else None)
        result.apply(self.models)
        self.fit_result = result
        if not result.success:
            raise ImgfitError(result.message)

    def cancel(self) -> None:
        """Stop what runs."""
        self.owner(self.task.cancel)

    def undo(self) -> None:
        """Take the last gesture back."""
        self.owner(self.history.undo)

    def redo(self) -> None:
        """Do again what was undone."""
        self.owner(self.history.redo)

    # --- files; what goes out is in exports.py
    @verb
    def open(self, source: str | Path | bytes) -> None:
        """Take over a session file, from a path or its content; `reduce` then makes the data."""
        saved = files.read_session(source, self.data_roots)
        # Refused, if at all, before anything is taken over.
        sources.for_datasets(saved.models, self.datasets)
        self.config.take(saved.config)
        self.geometry, self.skip_failed = saved.geometry, saved.skip_failed
        self.search_radius = saved.search_radius
        self._put(saved.models, self.datasets, self._reduced)
        self.view = saved.view
        self.select(saved.selected)
