"""The likelihood that follows a hand, kept compiled as long as data and models stay the same."""

from __future__ import annotations

from .changes import signature
from .core.dataset import Datasets
from .core.errors import ImgfitError, ModelError
from .core.fit import LiveLikelihood, LiveState
from .core.models import Models


class Preview:
    """Gives the `LiveState` of models on datasets; compiles anew only when that is needed.

    Sources off the map are left out, so that the others still count; ``problem`` says so.
    """

    def __init__(self) -> None:
        self._key: _Key | None = None
        self._likelihood: LiveLikelihood | None = None
        self._shown: object = None
        self._state: LiveState | None = None
        self._off: list[str] = []
        self.problem = ""

    def state(self, datasets: Datasets | None, models: Models, selected: str) -> LiveState | None:
        """The state of the parameters as they are; None where they have no likelihood."""
        if datasets is None or not len(models):
            self.problem = ""
            return None
        name = selected if selected in [model.name for model in models.sky_models] else None
        try:
            likelihood = self._compiled(datasets, models)
            if self._state is None or self._shown != name:
                self._state, self._shown = likelihood.update(name, resolve=False), name
        except ImgfitError as error:
            self._state, self.problem = None, str(error)
        return self._state

    def move(
        self, datasets: Datasets, models: Models, name: str, values: dict[str, float]
    ) -> LiveState:
        """Give a source new spatial values, re-solve amplitudes and norms, and set them all.

        Raises
        ------
        ModelError
            A value is refused; then none is changed.
        """
        likelihood = self._compiled(datasets, models)
        shape = models[name].spatial_model.parameters
        before = {parameter: shape[parameter].value for parameter in values}
        self._key = None  # until models and likelihood agree again
        try:
            for parameter, value in values.items():
                shape[parameter].value = value
            if name in self._off:  # it may be back on the map now
                likelihood = self._compiled(datasets, models)
            if name in self._off:
                raise ModelError(self.problem)
            state = likelihood.update(name, resolve=True, **values)
        except ImgfitError:
            self._key = None
            for parameter, value in before.items():
                shape[parameter].value = value
            raise
        for (owner, parameter), value in state.values.items():
            models[owner].parameters[parameter].value = value
        self._key, self._shown, self._state = _Key(datasets, models), name, state
        return state

    def _compiled(self, datasets: Datasets, models: Models) -> LiveLikelihood:
        key = _Key(datasets, models)
        if self._likelihood is None or self._key is None or not key.same(self._key):
            self._likelihood, self._state, self._key = None, None, None
            self._off, self.problem = [], ""
            try:
                self._likelihood = LiveLikelihood(datasets, models)
            except ModelError as error:
                self._off = off_the_map(datasets, models)
                if not self._off:
                    raise
                self.problem = str(error)
                there = Models(model for model in models if model.name not in self._off)
                self._likelihood = LiveLikelihood(datasets, there)
            self._key = key
        return self._likelihood


def off_the_map(datasets: Datasets, models: Models) -> list[str]:
    """Names of the sources whose position is not on the map of a dataset that they belong to."""
    return [
        model.name
        for model in models.sky_models
        for lon, lat in [model.spatial_model.position_lonlat]
        if model.spatial_model.has_position
        and not all(
            dataset.geom.contains(*dataset.geom.from_frame(lon, lat, model.frame))
            for dataset in datasets
            if model.datasets_names is None or dataset.name in model.datasets_names
        )
    ]


class _Key:
    """All that a likelihood is compiled from, told apart by what it is and not by its ``id``.

    The parts are kept alive here, so that no new one can be taken for one that is gone.
    """

    def __init__(self, datasets: Datasets, models: Models) -> None:
        parameters = list(models.parameters)
        self._parts = [datasets, *models, *parameters, *(p.unit for p in parameters)]
        # As text, in which NaN equals NaN.
        self._text = repr(([p.value for p in parameters], signature(models)))

    def same(self, other: _Key) -> bool:
        """Whether a likelihood compiled from either is the same."""
        return (
            self._text == other._text
            and len(self._parts) == len(other._parts)
            and all(mine is its for mine, its in zip(self._parts, other._parts, strict=True))
        )
