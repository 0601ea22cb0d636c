"""The rows of the parameter table: a number, its limits, and what it is linked with or known from.

Every cell is a trait of a `Parameter`: an edit sets it, a change by the map, the fit or a script is
shown. Links and priors hide behind the button at the end of a row; what is set stands below it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
import numpy as np

from ..changes import can_be_linked, linked_with
from ..core.errors import ModelError
from ..core.models import GaussianPrior, Parameter, Prior, UniformPrior
from ..session import Session
from . import lean
from .lean import is_shown, mark, show
from .numbers import error_text, limit_text, measurement, signs, unit_text, value_text
from .style import button, escape, row, text

REFRESH = 0.08  # seconds: while a source is dragged, numbers need not follow every step
NO_LINK, NO_PRIOR = "none", "none"
PRIOR_WORDS: dict[str, tuple[type[Prior], tuple[str, str]]] = {
    "Gaussian": (GaussianPrior, ("mean", "σ")),
    "uniform": (UniformPrior, ("min", "max")),
}


class NumberField(lean.Text):
    """A text input that is linked with one number of a parameter: value, min or max.

    It shows the number as short as its error allows and takes any number, or one with a unit; the
    tooltip has all digits. What is refused stays in the input, marked, with the reason in
    ``message``.
    """

    def __init__(
        self, session: Session, parameter: Parameter, name: str, report: Callable[[str], None]
    ) -> None:
        self.session, self.parameter, self._name, self._report = session, parameter, name, report
        super().__init__(
            continuous_update=False,
            placeholder="" if name == "value" else name,
            classes=f"imgfit-cell-{name}",
        )
        parameter.observe(self._changed, [name, "error"] if name == "value" else name)
        self.observe(self._edited, "value")
        self._show()

    def detach(self) -> None:
        """Stop following the parameter."""
        self.parameter.unobserve(
            self._changed, [self._name, "error"] if self._name == "value" else self._name
        )

    @property
    def shown(self) -> str:
        """The number as text."""
        number = getattr(self.parameter, self._name)
        if self._name == "value":
            return value_text(number, self.parameter.error)
        return limit_text(number)

    def _changed(self, change: object = None) -> None:
        self.session.owner.soon(self._show, REFRESH)

    def _show(self) -> None:
        mark(self, "imgfit-invalid", False)
        self._report("")
        number = getattr(self.parameter, self._name)
        self.value = self.shown
        self.tooltip = f"{self.parameter.label} {self._name}: {number!r}"

    def _edited(self, change: Any) -> None:
        self.session.owner(functools.partial(self._apply, change.new))

    def _apply(self, content: str) -> None:
        if content.strip() == self.shown:
            self._show()
            return
        empty = not content.strip() and self._name != "value"
        try:
            setattr(self.parameter, self._name, float("nan") if empty else content.strip())
        except ModelError as error:
            mark(self, "imgfit-invalid")
            self._report(str(error))
            return
        self._show()


class ParameterRow(lean.VBox):
    """One parameter: name and unit, value, error, frozen, min, max; links and priors on request.

    Below: why an edit was refused, and what the parameter is linked with or known from.
    """

    def __init__(self, session: Session, parameter: Parameter, tooltip: str) -> None:
        self.parameter = parameter
        self._session = session
        self._refusal = text(classes="imgfit-field-error")
        self._reasons: dict[str, str] = {}
        self.value, self.min, self.max = (
            NumberField(session, parameter, name, functools.partial(self._refuse, name))
            for name in ("value", "min", "max")
        )
        self.frozen = lean.Checkbox(
            indent=False, tooltip="A frozen parameter is not fitted", classes="imgfit-cell-frozen"
        )
        self.error = text(classes="imgfit-cell-error")
        self.more = button("⋯", f"Link and prior of {parameter.name}", "imgfit-quiet imgfit-more")
        self.note = text(classes="imgfit-parameter-note")
        self.ties: Ties | None = None
        self._link = widgets.link((parameter, "frozen"), (self.frozen, "value"))
        unit = escape(unit_text(parameter.unit_text))
        name = text(
            f'<span title="{escape(tooltip)}">{escape(parameter.name)}<small>{unit}</small></span>',
            "imgfit-cell-name",
        )
        self._line = line = row(
            name,
            self.value,
            self.error,
            self.frozen,
            self.min,
            self.max,
            self.more,
            classes="imgfit-parameter-row",
        )
        super().__init__([line, self._refusal, self.note])
        self.more.on_click(lambda _: session.owner(self._toggle))
        parameter.observe(self._changed, ["error", "frozen"])
        parameter.observe(self._ties_changed, ["link", "prior"])
        session.observe(self._ties_changed, "revision")
        self._show()
        self._ties_changed()

    def detach(self) -> None:
        """Stop following the parameter."""
        for cell in (self.value, self.min, self.max):
            cell.detach()
        self._link.unlink()
        self.parameter.unobserve(self._changed, ["error", "frozen"])
        self.parameter.unobserve(self._ties_changed, ["link", "prior"])
        self._session.unobserve(self._ties_changed, "revision")

    def _changed(self, change: object = None) -> None:
        self._session.owner.soon(self._show, REFRESH)

    def _show(self) -> None:
        parameter = self.parameter
        words = error_text(parameter.error, parameter.value)
        self.error.value = f"± {words}" if words else ""
        self._mark_error()
        mark(self, "imgfit-is-frozen", parameter.frozen)

    def _mark_error(self) -> None:
        """Grey an error of a fit of other data or models."""
        session = self._session
        old = bool(self.error.value and session.fit_result) and not session.fit_is_current
        if old != ("imgfit-old" in self.error._dom_classes):
            mark(self.error, "imgfit-old", old)
            self.error.tooltip = "Of a fit of other models or data" if old else None

    def _refuse(self, name: str, reason: str) -> None:
        """Why what is in one of the fields is refused; as long as it is, also beside others."""
        self._reasons.pop(name, None)
        if reason:
            self._reasons[name] = reason
        self._refusal.value = "<br>".join(map(escape, self._reasons.values()))
        show(self._refusal, bool(self._reasons))

    def _toggle(self) -> None:
        """Show or hide links and priors; they are made when first asked for."""
        if self.ties is None:
            self.ties = Ties(self._session, self.parameter)
            self.children = [self._line, self._refusal, self.note, self.ties]
        else:
            show(self.ties, not is_shown(self.ties))
        self.ties.update()

    def _ties_changed(self, change: object = None) -> None:
        self._mark_error()
        words = [*_link_words(self._session, self.parameter), *_prior_words(self.parameter)]
        self.note.value = " · ".join(words)
        show(self.note, bool(words))
        if self.ties is not None:
            self.ties.update()


class Ties(lean.VBox):
    """What holds a parameter besides the data: another parameter or a prior; both can be edited."""

    def __init__(self, session: Session, parameter: Parameter) -> None:
        self._session, self._parameter = session, parameter
        self._updating = False
        self.link = lean.Dropdown(
            options=[NO_LINK],
            tooltip="A parameter of another model with the same value",
            classes="imgfit-link",
        )
        self.prior = lean.Dropdown(
            options=[NO_PRIOR, *PRIOR_WORDS],
            tooltip="What is known of it before the fit",
            classes="imgfit-prior",
        )
        self.numbers = [lean.Text(continuous_update=False) for _ in range(2)]
        self.labels = [text(classes="imgfit-muted") for _ in range(2)]
        self.refusal = text(classes="imgfit-field-error")
        pairs = [cell for pair in zip(self.labels, self.numbers, strict=True) for cell in pair]
        super().__init__(
            [
                row(text("link", "imgfit-tie-label"), self.link),
                row(text("prior", "imgfit-tie-label"), self.prior, *pairs),
                self.refusal,
            ],
            classes="imgfit-ties",
        )
        self.link.observe(lambda c: session.owner(self._linked), "value")
        self.prior.observe(lambda c: session.owner(self._prior_chosen), "value")
        for number in self.numbers:
            number.observe(lambda c: session.owner(self._prior_edited), "value")
        self.update()

    def update(self) -> None:
        """Show the link and the prior as they are."""
        models, parameter = self._session.models, self._parameter
        if parameter.owner not in models.names:
            return
        partners = [p.label for p in linked_with(models, parameter)]
        options = [NO_LINK, *partners, *(p.label for p in can_be_linked(models, parameter))]
        self._updating = True
        if tuple(self.link.options) != tuple(options):
            self.link.options = options
        self.link.value = partners[0] if partners else NO_LINK
        prior = parameter.prior
        word = next((w for w, (cls, _) in PRIOR_WORDS.items() if isinstance(prior, cls)), NO_PRIOR)
        self.prior.value = word
        labels = PRIOR_WORDS[word][1] if prior is not None else ("", "")
        fields = prior.fields if prior is not None else ()
        for number, (label, cell) in enumerate(zip(self.labels, self.numbers, strict=True)):
            label.value = labels[number]
            cell.value = f"{getattr(prior, fields[number]):.6g}" if fields else ""
            show(label, prior is not None)
            show(cell, prior is not None)
        self._updating = False
        self._refuse("")

    def _linked(self) -> None:
        if self._updating:
            return
        session, wanted = self._session, self.link.value
        if wanted in (None, NO_LINK):
            session.attempt(session.unlink, self._parameter)
        else:
            session.attempt(session.link, self._parameter, wanted)
        self._refuse(session.error)

    def _prior_chosen(self) -> None:
        if self._updating:
            return
        prior = None
        if self.prior.value in PRIOR_WORDS:
            prior = _first_prior(self._parameter, PRIOR_WORDS[self.prior.value][0])
        self._set(prior)

    def _prior_edited(self) -> None:
        if self._updating or self.prior.value not in PRIOR_WORDS:
            return
        cls, labels = PRIOR_WORDS[self.prior.value]
        values = []
        for label, cell in zip(labels, self.numbers, strict=True):
            try:
                values.append(float(cell.value))
            except ValueError:
                label_of = f"{self._parameter.label}: {label} of the prior"
                self._refuse(f"{label_of} {cell.value!r} is not a number; expected one")
                return
        try:
            prior = cls(*values)
        except ModelError as error:
            self._refuse(f"{self._parameter.label}: {error}")
            return
        self._set(prior)

    def _set(self, prior: Prior | None) -> None:
        session = self._session
        session.attempt(session.set_prior, self._parameter, prior)
        self._refuse(session.error)

    def _refuse(self, reason: str) -> None:
        self.refusal.value = escape(reason)
        show(self.refusal, bool(reason))


def _first_prior(parameter: Parameter, cls: type[Prior]) -> Prior:
    """A prior around the present value, to be edited."""
    value = parameter.value
    width = parameter.error if parameter.error > 0 else 0.1 * abs(value) or 0.1
    if cls is GaussianPrior:
        return GaussianPrior(_short(value), _short(width))
    low = value - 5.0 * width if np.isnan(parameter.min) else parameter.min
    high = value + 5.0 * width if np.isnan(parameter.max) else parameter.max
    return UniformPrior(_short(low), _short(high))


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _link_words(session: Session, parameter: Parameter) -> list[str]:
    if parameter.owner not in session.models.names:
        return []
    labels = [p.label for p in linked_with(session.models, parameter)]
    return [f"↔ linked with {escape(', '.join(labels))}"] if labels else []


def _prior_words(parameter: Parameter) -> list[str]:
    prior, unit = parameter.prior, parameter.unit_text
    if isinstance(prior, GaussianPrior):
        return [f"prior {escape(measurement(prior.mu, prior.sigma, unit))}"]
    if isinstance(prior, UniformPrior):
        limits = " to ".join(signs(f"{v:.4g}") for v in (prior.min, prior.max))
        return [f"prior {escape(f'{limits} {unit_text(unit)}'.rstrip())}"]
    return [] if prior is None else [f"prior {escape(prior.tag)}"]
