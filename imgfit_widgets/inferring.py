"""What the data say of a source, in the background: each question is a verb, each answer is kept.

An `Answer` knows for which data and models it was found. As soon as those change it is stale, and
true again when they are undone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from traitlets import Dict

from .changes import signature
from .core.dataset import Datasets
from .core.errors import ImgfitError
from .core.fit import FitResult
from .core.inference import extension_test, flux_upper_limit, localise, source_ts
from .core.ladder import Ladder, compare_shapes, noun
from .core.models import Models
from .core.profile import Contour, MinosError, Profiles, models_at
from .core.progress import Progress, part
from .state import State
from .task import Task
from .verbs import verb

CONTOUR_LEVELS = (1.0, 2.0)
CONTOUR_POINTS = 24
PROFILE_REACH, PROFILE_POINTS = 3.0, 13


@dataclass(frozen=True)
class Question:
    """What can be asked of a source: its name in a sentence, and what has to be there."""

    words: str
    needs_fit: bool = False
    needs_position: bool = False


QUESTIONS: dict[str, Question] = {
    "find_significance": Question("Significance"),
    "find_errors": Question("Asymmetric errors", needs_fit=True),
    "find_position": Question("Localisation", needs_fit=True, needs_position=True),
    "find_extension": Question("Extension test", needs_position=True),
    "find_limit": Question("Flux limit"),
    "find_shape": Question("Comparison of shapes", needs_position=True),
    "find_profile": Question("Profile", needs_fit=True),
    "find_contour": Question("Contour", needs_fit=True),
}
"""By the verb that asks."""


@dataclass(frozen=True, eq=False)
class Circumstances:
    """Data and models as they were when something was asked."""

    datasets: tuple[Any, ...]
    signature: tuple[Any, ...]
    values: tuple[float, ...]

    @classmethod
    def of(cls, datasets: Datasets | None, models: Models) -> Circumstances:
        """As they are now."""
        values = tuple(p.value for p in models.parameters)
        return cls(tuple(datasets or ()), signature(models), values)

    def same(self, other: Circumstances) -> bool:
        """Whether an answer for one holds for the other."""
        return (
            len(self.datasets) == len(other.datasets)
            and all(a is b for a, b in zip(self.datasets, other.datasets, strict=True))
            and self.signature == other.signature
            and np.allclose(self.values, other.values, rtol=1e-9, atol=0.0)
        )


@dataclass(frozen=True, eq=False)
class Answer:
    """What was found.

    Attributes
    ----------
    question : str
        A key of `QUESTIONS`.
    source : str
        Of which source.
    value : object
        The result of the core.
    at : tuple of Circumstances
        For which it holds.
    fit : FitResult or None
        The fit around whose minimum it was found.
    """

    question: str
    source: str
    value: Any
    at: tuple[Circumstances, ...]
    fit: FitResult | None = None

    def holds(self, now: Circumstances) -> bool:
        """Whether it holds for data and models as they are ``now``."""
        return any(at.same(now) for at in self.at)


class Inferring(State):
    """Questions and answers; ``answers`` holds the newest of each by (question, source)."""

    answers: Dict[tuple[str, str], Answer] = Dict()

    def why_not(self, verb: str) -> str:
        """Why a verb cannot be done now, in words; empty if it can."""
        question = QUESTIONS.get(verb)
        if question is None:
            return super().why_not(verb)
        reason = super().why_not("snap")  # busy, no data, no source
        result, source = self.fit_result, self.source
        placed = source is None or source.spatial_model.has_position
        if not reason and question.needs_position and not placed:
            return "A source with a position is needed"
        if not reason and question.needs_fit:
            if result is None or not self.fit_is_current:
                return "Fit first"
            if not result.success:
                return "The fit found no minimum"
        # All others fit by themselves.
        return reason or ("" if question.needs_fit else super().why_not("fit"))

    def answer(self, question: str, source: str | None = None) -> Answer | None:
        """The newest answer to a question on a source, the selected one by default."""
        found: Answer | None = self.answers.get((question, source or self.selected))
        return found

    @property
    def circumstances(self) -> Circumstances:
        """Data and models as they are now; to be compared with those of an `Answer`."""
        return Circumstances.of(self.datasets, self.models)

    def is_current(self, answer: Answer) -> bool:
        """Whether data and models are those for which an answer was found."""
        return answer.holds(self.circumstances)

    @property
    def asymmetric_errors(self) -> dict[tuple[str, str], MinosError]:
        """Those that belong to the present fit, by (model, parameter)."""
        return {
            (error.model, error.name): error
            for answer in self.answers.values()
            if answer.question == "find_errors" and answer.fit is self.fit_result
            for error in answer.value
        }

    # --- questions
    @verb
    def find_significance(self) -> Task:
        """How much the selected source improves the fit, all else fitted again without it."""
        known = self.fit_result if self.fit_is_current else None
        known = known if known is not None and known.success else None

        def work(progress: Progress, datasets: Datasets, models: Models, name: str) -> Any:
            return source_ts(datasets, models, name, result=known, progress=progress)

        return self._ask("find_significance", work)

    @verb
    def find_extension(self, shape: str = "gauss") -> Task:
        """Whether the selected source is extended, and how large it may be."""

        def work(progress: Progress, datasets: Datasets, models: Models, name: str) -> Any:
            return extension_test(datasets, models, name, shape, progress=progress)

        return self._ask("find_extension", work)

    @verb
    def find_limit(self) -> Task:
        """How bright the selected source is at most, at its place."""

        def work(progress: Progress, datasets: Datasets, models: Models, name: str) -> Any:
            return flux_upper_limit(datasets, models, name, progress=progress)

        return self._ask("find_limit", work)

    @verb
    def find_shape(self) -> Task:
        """Which shape the selected source has: point, disk, Gaussian, elongated, or two."""

        def work(progress: Progress, datasets: Datasets, models: Models, name: str) -> Any:
            return compare_shapes(datasets, models, name, progress=progress)

        return self._ask("find_shape", work)

    @verb
    def adopt_shape(self, label: str) -> None:
        """Take over the fit of one of the compared shapes, "Gaussian" for example."""
        answer = self.answer("find_shape")
        if answer is None or not self.is_current(answer):
            raise ImgfitError("Models or data have changed since the shapes were compared")
        ladder: Ladder = answer.value
        rung = ladder[label]
        if rung.result is None:
            raise ImgfitError(f"{ladder.name}: no fit as {noun(label)}: {rung.message}")
        self._put(models_at(rung.result), self.datasets, self._reduced)
        rung.result.apply(self.models)
        self.fit_result = rung.result
        # The comparison does not depend on which of its shapes the source has.
        self._keep(replace(answer, at=(*answer.at, self.circumstances)))

    @verb
    def find_errors(self) -> Task:
        """Asymmetric errors (MINOS) of all free parameters of the selected source."""
        result = self.fit_result

        def work(progress: Progress, datasets: Datasets, models: Models, name: str) -> Any:
            profiles = Profiles(_fit(result))
            keys = [key for key in profiles.result.names if key[0] == name]
            if not keys:
                raise ImgfitError(f"{name}: none of its parameters was fitted")
            return profiles.minos_of(keys, progress)

        return self._ask("find_errors", work)

    @verb
    def find_position(self) -> Task:
        """Where the selected source is: radii of containment and the error ellipse."""
        result = self.fit_result

        def work(progress: Progress, datasets: Datasets, models: Models, name: str) -> Any:
            return localise(_fit(result), name, progress=progress)

        return self._ask("find_position", work)

    @verb
    def find_profile(self, parameter: str) -> Task:
        """The statistic along a parameter of the selected source, all else fitted again."""
        result, key = self.fit_result, f"{self.selected}.{parameter}"

        def work(progress: Progress, datasets: Datasets, models: Models, name: str) -> Any:
            profiles = Profiles(_fit(result))
            return profiles.stat_profile(
                key, bounds=PROFILE_REACH, n=PROFILE_POINTS, progress=progress
            )

        return self._ask("find_profile", work)

    @verb
    def find_contour(self, x: str, y: str) -> Task:
        """Contours of two parameters of the selected source where the statistic rises by 1 and 4.

        `Task.live` of the task is the ellipse of the covariance until the contours are there.
        """
        result, send = self.fit_result, self.task.send

        def work(progress: Progress, datasets: Datasets, models: Models, name: str) -> Any:
            profiles, keys = Profiles(_fit(result)), ((name, x), (name, y))
            send(tuple(profiles.ellipse(*keys, sigma=level) for level in CONTOUR_LEVELS))
            found: list[Contour] = []
            for number, level in enumerate(CONTOUR_LEVELS):
                share = part(progress, 0.5 * number, 0.5 * number + 0.5)
                found.append(
                    profiles.stat_contour(*keys, sigma=level, n=CONTOUR_POINTS, progress=share)
                )
            return tuple(found)

        return self._ask("find_contour", work)

    def _ask(self, question: str, work: Any) -> Task:
        """Work on copies in the background, and keep the answer with what it was found for."""
        datasets = self._require(question)
        name, models = self.selected, self.models.copy()
        at, fit = self.circumstances, self.fit_result

        def run(progress: Progress) -> Any:
            return work(progress, datasets, models, name)

        def apply(value: Any) -> None:
            self._keep(Answer(question, name, value, (at,), fit))

        self.task.start(run, apply, question)
        return self.task

    def _keep(self, answer: Answer) -> None:
        key = answer.question, answer.source
        others = {known: value for known, value in self.answers.items() if known != key}
        self.answers = {**others, key: answer}  # the newest comes last


def _fit(result: FitResult | None) -> FitResult:
    if result is None:
        raise ImgfitError("Fit first")
    return result
