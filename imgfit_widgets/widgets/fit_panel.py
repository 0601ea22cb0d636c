"""The fit: start and cancel it, and watch it while it runs."""

from __future__ import annotations

import math
from typing import Any

from ..core.fit import FitStep
from ..inferring import QUESTIONS
from ..session import Session
from . import lean
from .lean import show
from .numbers import count_text, signs, value_text
from .progress import ProgressBar
from .style import Panel, button, card_head, escape, row, text

REFRESH = 0.08  # seconds between two looks at the statistic while a source is dragged
_KINDS = {
    "reduce": ("reducing the data", "Reduction"),
    "read": ("reading datasets", "Reading"),
    "fit": ("fitting", "Fit"),
    "snap": ("moving the source", "Move"),
    "search": ("searching for sources", "Search"),
    **{verb: (question.words.lower(), question.words) for verb, question in QUESTIONS.items()},
}
"""What runs, and what has run."""
_SEARCH = (
    "Begin the fit where a source with a free position fits best within so many degrees; "
    "0: begin where it stands"
)


class FitPanel(Panel):
    """Fit and Cancel buttons, status, and the statistic and parameters during a run."""

    def __init__(self, session: Session) -> None:
        self.fit_button = button("Fit", classes="imgfit-primary imgfit-fit-button")
        self.cancel_button = button("Cancel", "Stop what runs", "imgfit-cancel-button")
        self.status = text(classes="imgfit-status")
        self.reason = text(classes="imgfit-reason")
        self.progress = ProgressBar(session.task, classes="imgfit-progress")
        self.live = text(classes="imgfit-fit-live")
        self.search = lean.BoundedFloatText(
            value=session.search_radius,
            min=0.0,
            max=180.0,
            step=0.05,
            tooltip=_SEARCH,
            classes="imgfit-search-radius",
        )
        self.subject = text(classes="imgfit-about-status")
        head = card_head("Fit", self.subject, self.status)
        actions = row(self.fit_button, self.cancel_button, self.reason)
        look = row(
            text("first look for each source within", "imgfit-muted"), self.search, text("°")
        )
        super().__init__(
            session, [head, actions, look, self.progress, self.live], "imgfit-card imgfit-fit"
        )
        self._at = session.circumstances
        self.search.observe(
            lambda change: session.owner(lambda: session.set_trait("search_radius", change.new)),
            "value",
        )
        session.observe(lambda change: self.search.set_trait("value", change.new), "search_radius")
        self.fit_button.on_click(lambda _: session.attempt(session.fit))
        self.cancel_button.on_click(lambda _: session.cancel())
        session.task.observe(self._update, ["status", "message"])
        session.task.observe(self._follow, "live")
        session.observe(self._update, ["revision", "datasets"])
        session.observe(self._preview_changed, "preview")
        self._update()

    def _update(self, change: object = None) -> None:
        task, session = self.session.task, self.session
        reason = session.why_not("fit")
        self.fit_button.disabled = bool(reason)
        self.cancel_button.disabled = not task.running
        self.cancel_button.tooltip = session.why_not("cancel") or "Stop what runs"
        detail = _KINDS.get(task.kind, ("", ""))[0] if task.running else ""
        self.subject.value = f"{_done(task.kind).lower()} ·" if task.status != "idle" else ""
        told = task.error if task.status == "failed" else task.message
        self.status.value = (
            f'<span class="imgfit-status-word imgfit-is-{task.status}" '
            f'title="{escape(told or detail)}">{task.status}</span>'
        )
        if getattr(change, "name", "") == "status":
            self._at = session.circumstances
        # Of a fit only until something is changed, such as by undo.
        failed = task.status == "failed" and (
            task.kind != "fit" or session.circumstances.same(self._at)
        )
        if task.running:
            self.reason.value = detail
        elif failed:
            # The workbench shows the error in its own place and leaves it out here.
            self.reason.value = (
                f'<span class="imgfit-failed">{_done(task.kind)} failed'
                f'<span class="imgfit-reason-text">: {escape(task.error)}</span></span>'
            )
        elif task.status in ("done", "cancelled"):
            self.reason.value = escape(reason or f"{_done(task.kind)} {task.message}")
        else:
            self.reason.value = escape(reason)
        if not task.running:
            self._show_statistic()

    def _follow(self, change: Any) -> None:
        step = change.new
        if not isinstance(step, FitStep):
            return
        cells = "".join(
            f"<tr><td>{escape(model)}</td><td>{escape(name)}</td><td>{signs(value_text(value))}</td></tr>"
            for (model, name), value in step.values.items()
        )
        stat = signs(f"{step.stat:.2f}") if math.isfinite(step.stat) else "…"
        self.live.value = (
            f'<div class="imgfit-figures"><span>Statistic <b>{stat}</b></span>'
            f"<span>Evaluations <b>{step.nfev}</b></span></div><table>{cells}</table>"
        )

    def _preview_changed(self, change: object = None) -> None:
        # In a drag the map goes first: each further message costs the page a layout.
        self.session.owner.soon(self._show_statistic, REFRESH)

    def _show_statistic(self, change: object = None) -> None:
        """Between fits: the statistic of the parameters as they are."""
        state = self.session.preview
        if self.session.task.running:
            return
        show(self.live, state is not None)
        if state is None:
            return
        parts = [f"<span>Statistic <b>{signs(f'{state.stat:.2f}')}</b></span>"]
        name = self.session.selected
        dts = state.delta_ts
        if name in [model.name for model in self.session.models.sky_models]:
            parts.append(f"<span>ΔTS of {escape(name)} <b>{signs(f'{dts:.1f}')}</b></span>")
        predicted = sum(float(npred.sum()) for npred in state.npred)
        parts.append(f"<span>Predicted <b>{count_text(predicted)}</b></span>")
        self.live.value = f'<div class="imgfit-figures">{"".join(parts)}</div>'


def _done(kind: str) -> str:
    return _KINDS.get(kind, ("", ""))[1]
