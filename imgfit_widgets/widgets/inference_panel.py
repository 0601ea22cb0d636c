"""Around the minimum: questions about the selected source, one click each, and their answers.

An answer stays in its line; it is greyed as soon as models or data are no longer those that it was
found for. What it found on the sky is drawn by the map viewer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from ..core.ladder import SECOND, noun
from ..core.models import SkyModel
from ..inferring import QUESTIONS, Answer
from ..session import Session
from . import lean
from .charts import ContourChart, ProfileChart
from .lean import mark, show
from .numbers import interval, measurement, signs, unit_text
from .progress import ProgressBar
from .style import Panel, button, card_head, escape, row, text

REFRESH = 0.2  # seconds between two looks at what is stale while a source is dragged
STALE = "Models or data have changed since; ask again"
EXTENDED = [("Gaussian", "gauss"), ("disk", "disk")]
BUTTONS: dict[str, tuple[str, str]] = {
    "find_significance": (
        "Significance",
        "Test statistic against a fit without the source, all else fitted again",
    ),
    "find_errors": ("Errors ±", "Asymmetric errors (MINOS) of its free parameters"),
    "find_position": (
        "Position",
        "Radii that hold the true position with 68, 95 and 99 %, and the error ellipse on the map",
    ),
    "find_extension": ("Extension", "A point against an extended shape, and the largest size"),
    "find_limit": ("Flux limit", "95 % upper limit of the flux at this place"),
    "find_shape": (
        "Shapes",
        "Point, disk, Gaussian, elongated Gaussian and two points, from several starts each",
    ),
    "find_profile": ("Profile", "The statistic along one parameter, all else fitted again"),
    "find_contour": (
        "Contour",
        "Where the statistic has risen by 1 and by 4 in two parameters; a position on the map",
    ),
}


class InferencePanel(Panel):
    """A line for each question: its button, what it is asked for, and the newest answer."""

    def __init__(self, session: Session) -> None:
        self.reason = text(classes="imgfit-reason")
        self.progress = ProgressBar(session.task, QUESTIONS)
        self.shape = lean.Dropdown(options=EXTENDED, tooltip="Against which shape")
        self.parameter, self.x, self.y = (
            lean.Dropdown(options=[], tooltip=tip)
            for tip in ("Along which parameter", "First parameter", "Second parameter")
        )
        extras: dict[str, tuple[widgets.Dropdown, ...]] = {
            "find_extension": (self.shape,),
            "find_profile": (self.parameter,),
            "find_contour": (self.x, self.y),
        }
        self.profile, self.contour = ProfileChart(), ContourChart()
        self.adopt = {
            label: button(label, f"Take over the fit as {noun(label)}", "imgfit-adopt")
            for label in ("Point", "Disk", "Gaussian", "Elongated", SECOND)
        }
        adopting = row(
            text("Adopt", "imgfit-muted"), *self.adopt.values(), classes="imgfit-adopting"
        )
        below = {
            "find_profile": self.profile,
            "find_contour": self.contour,
            "find_shape": adopting,
        }
        self.lines = {verb: Line(verb, extras.get(verb, ()), below.get(verb)) for verb in BUTTONS}
        self.cancel = button("Cancel", "Stop what runs", "imgfit-cancel-button")
        head = card_head("Around the minimum", self.reason, self.cancel)
        super().__init__(
            session, [head, self.progress, *self.lines.values()], "imgfit-card imgfit-inference"
        )
        asked: dict[str, Callable[[], tuple[Any, ...]]] = {
            "find_extension": lambda: (self.shape.value,),
            "find_profile": lambda: (self.parameter.value,),
            "find_contour": lambda: (self.x.value, self.y.value),
        }
        for verb, line in self.lines.items():
            arguments = asked.get(verb, lambda: ())
            line.ask.on_click(
                lambda _, verb=verb, arguments=arguments: session.attempt(
                    getattr(session, verb), *arguments()
                )
            )
        for label, control in self.adopt.items():
            control.on_click(lambda _, label=label: session.attempt(session.adopt_shape, label))
        self.cancel.on_click(lambda _: session.cancel())
        session.observe(self._update, ["selected", "revision", "datasets", "fit_result", "answers"])
        session.observe(self._preview_changed, "preview")
        session.task.observe(self._update, "status")
        session.task.observe(self._follow, "live")
        self._update()

    def _preview_changed(self, change: object = None) -> None:
        self.session.owner.soon(self._update, REFRESH)

    def _update(self, change: object = None) -> None:
        session = self.session
        reasons = {verb: session.why_not(verb) for verb in self.lines}
        self._offer_parameters()
        fewest = [v for v in self.lines if v != "find_contour"]
        if len(self.x.options) < 2:
            reasons["find_contour"] = reasons["find_contour"] or "Only one parameter is free"
        now = session.circumstances
        for verb, line in self.lines.items():
            line.ask.disabled = bool(reasons[verb])
            line.ask.tooltip = reasons[verb] or BUTTONS[verb][1]
            answer = session.answer(verb)
            stale = answer is not None and not answer.holds(now)
            line.show_answer("" if answer is None else _words(answer), stale)
            show(line.below, answer is not None) if line.below is not None else None
        told = []
        for reason in dict.fromkeys(reasons[verb] for verb in fewest):
            some = [BUTTONS[verb][0] for verb in self.lines if reasons[verb] == reason]
            for_what = f" for: {', '.join(some)}" if len(some) < len(self.lines) else ""
            told += [escape(reason + for_what)] if reason else []
        self.reason.value = "<br>".join(told)
        self._draw()
        ladder = session.answer("find_shape")
        for label, control in self.adopt.items():
            rung = None if ladder is None else ladder.value[label]
            wrong = rung is None or rung.result is None or rung.result is session.fit_result
            old = ladder is None or not ladder.holds(now)
            control.disabled = wrong or old or session.task.running
        self.cancel.disabled = not session.task.running
        show(self.cancel, session.task.running and session.task.kind in QUESTIONS)

    def _offer_parameters(self) -> None:
        """Offer the free parameters of the selected source, the position first."""
        source = self.session.source
        names = [p.name for p in source.parameters if not p.frozen] if source else []
        names.sort(key=lambda name: name not in ("lon_0", "lat_0"))
        defaults = ((self.x, names[:1]), (self.y, names[1:2]), (self.parameter, _size_of(source)))
        for select, wanted in defaults:
            if tuple(select.options) != tuple(names):
                before = select.value
                select.options = names
                if before in names:
                    select.value = before
                elif wanted and wanted[0] in names:
                    select.value = wanted[0]

    def _draw(self) -> None:
        profile, contour = (self.session.answer(v) for v in ("find_profile", "find_contour"))
        if profile is not None:
            self.profile.draw(profile.value)
        if contour is not None:
            self.contour.draw(contour.value)

    def _follow(self, change: Any) -> None:
        """The ellipse of the covariance, until the contours are there."""
        if change.new is not None and self.session.task.kind == "find_contour":
            self.contour.draw(change.new)
            show(self.contour, True)


class Line(lean.VBox):
    """A question: its button, what it is asked for, the answer, and what belongs below it."""

    def __init__(
        self,
        verb: str,
        choices: tuple[widgets.Dropdown, ...],
        below: widgets.DOMWidget | None = None,
    ) -> None:
        label, tip = BUTTONS[verb]
        css = verb.replace("find_", "imgfit-ask-")
        self.ask = button(label, tip, f"imgfit-ask {css}")
        self.words = text(classes=f"imgfit-answer {css.replace('ask', 'answer')}")
        self.below = below
        super().__init__(
            [row(self.ask, *choices, self.words), *([below] if below is not None else [])],
            classes="imgfit-question",
        )

    def show_answer(self, words: str, stale: bool) -> None:
        """Show an answer, greyed if it is stale."""
        title = f' title="{STALE}"' if stale else ""
        note = ' <small class="imgfit-muted">stale</small>' if stale and words else ""
        self.words.value = f"<span{title}>{words}{note}</span>" if words else ""
        mark(self, "imgfit-is-stale", stale)


def _size_of(source: SkyModel | None) -> list[str]:
    """The parameter whose profile is most often wanted: a size, or the amplitude."""
    if source is None:
        return []
    size = source.spatial_model.size_parameter
    return [size if size is not None else source.linear_parameter.name]


def _words(answer: Answer) -> str:
    """An answer in one line of HTML."""
    return _SAY[answer.question](answer.value)


def _say_significance(found: Any) -> str:
    return (
        f"<b>{signs(f'{found.sigma:.1f}')} σ</b> · TS {signs(f'{found.ts:.1f}')}, "
        f"{found.dof} dof{_remark(found.message)}"
    )


def _say_errors(found: Any) -> str:
    lines = [
        f"<tr><td>{escape(error.name)}</td><td>{escape(interval(error))}"
        f"{_remark(error.message if not error.success else '')}</td></tr>"
        for error in found
    ]
    return f"<table>{''.join(lines)}</table>"


def _say_position(found: Any) -> str:
    ellipse = f"{found.semi_major:.2g}° × {found.semi_minor:.2g}° at {found.angle:.0f}°"
    radii = " · ".join(
        f"r<sub>{100 * c:g}</sub> <b>{r:.2g}°</b>"
        for c, r in zip(found.containment, found.radii, strict=True)
    )
    return f"{radii}<br>1σ ellipse {ellipse}{_remark(found.message)}"


def _say_extension(found: Any) -> str:
    limit = (
        f"{escape(found.parameter)} &lt; <b>{found.upper_limit:.3g}°</b> ({100 * found.cl:g} %)"
        if math.isfinite(found.upper_limit)
        else "no limit"
    )
    size = escape(measurement(found.size, found.error, "deg"))
    return (
        f"<b>{found.sigma:.1f} σ</b> · TS<sub>ext</sub> {signs(f'{found.ts:.1f}')} · "
        f"{escape(found.parameter)} {size} · {limit}{_remark(found.message)}"
    )


def _say_limit(found: Any) -> str:
    band = f"{found.energy_min:g}–{found.energy_max:g} TeV"
    flux = signs(f"{found.flux:.3g}")
    return f"&lt; <b>{flux}</b> {unit_text('cm-2 s-1')} ({band}, 95 %){_remark(found.message)}"


def _say_shape(found: Any) -> str:
    best = found.preferred
    lines = []
    for rung in found.rungs:
        bold = "b" if rung is best else "span"
        sigma = f"{rung.sigma:.1f} σ" if math.isfinite(rung.sigma) else "–"
        against = f' title="against a {escape(noun(rung.against))}"' if rung.against else ""
        aic = "–" if math.isnan(rung.aic) else signs(f"{rung.aic - best.aic:+.1f}")
        dts = "–" if math.isnan(rung.delta_ts) else signs(f"{rung.delta_ts:.1f}")
        dof = str(rung.dof) if rung.against and rung.result is not None else "–"
        lines.append(
            f"<tr{' title=' + chr(34) + escape(rung.message) + chr(34) if rung.message else ''}>"
            f"<td><{bold}>{escape(rung.label)}</{bold}></td><td>{dts}</td><td>{dof}</td>"
            f"<td{against}>{sigma}</td><td>{aic}</td></tr>"
        )
    head = (
        "<tr><th>shape</th><th title='Statistic of the point minus this one'>ΔTS</th>"
        "<th title='Free parameters more than the simpler shape that it contains'>dof</th>"
        "<th title='Against that simpler shape; an elongated one against a Gaussian'>signif.</th>"
        "<th title='Akaike, above the preferred shape; a second source, whose place was searched "
        "for, is preferred from 3 σ on'>ΔAIC</th></tr>"
    )
    return f"<table>{head}{''.join(lines)}</table>"


def _say_profile(found: Any) -> str:
    return f"{escape(found.name)}: rise of the statistic; dashed at 1 and 4"


def _say_contour(found: Any) -> str:
    levels = ", ".join(f"{100 * line.cl:.0f} %" for line in found)
    each = " and ".join(f"{line.sigma:g}σ" for line in found)
    title = f"Probability for both parameters; the lines are {each} of each on its own"
    return f'<span title="{title}">{levels}</span>' + _remark(
        " ".join({line.message for line in found}).strip()
    )


def _remark(message: str) -> str:
    return f' <small class="imgfit-stale">{escape(message)}</small>' if message else ""


_SAY: dict[str, Callable[[Any], str]] = {
    "find_significance": _say_significance,
    "find_errors": _say_errors,
    "find_position": _say_position,
    "find_extension": _say_extension,
    "find_limit": _say_limit,
    "find_shape": _say_shape,
    "find_profile": _say_profile,
    "find_contour": _say_contour,
}
