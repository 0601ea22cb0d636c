"""What the last fit found, for reading, and the files to take home."""

from __future__ import annotations

import math
from typing import Any

from ..session import Session
from .lean import show
from .numbers import interval, measurement, signs, unit_text
from .style import Panel, button, card_head, download_link, escape, size_text, source_colour, text

MANY_PARAMETERS = 8  # beyond, correlations are colours with numbers as tooltips
SIGNIFICANCE = (
    "from TS with dof degrees of freedom, if it followed a chi-squared distribution; "
    "the live √ΔTS counts one degree of freedom, and the live ΔTS leaves other sources in place"
)


class Results(Panel):
    """Values and errors, significance of each source, correlations, downloads."""

    def __init__(self, session: Session) -> None:
        self.body = text(classes="imgfit-results-body")
        self.note = text(classes="imgfit-note")
        self.links = text(classes="imgfit-links")
        self.dataset_button = button("Dataset FITS…", "Prepare the dataset for download")
        self.dataset_link = text(classes="imgfit-links")
        head = card_head("Results", self.links, self.dataset_button, self.dataset_link)
        super().__init__(session, [head, self.note, self.body], "imgfit-card imgfit-results")
        self.dataset_button.on_click(lambda _: session.owner(self._prepare_dataset))
        session.observe(self._show, ["fit_result", "revision", "answers"])
        session.observe(self._drop_dataset, ["datasets", "dataset_name"])
        session.observe(self._check, "preview")
        self._show()
        self._drop_dataset()

    def _show(self, change: object = None) -> None:
        result = self.session.fit_result
        if result is None:
            self.body.value = '<span class="imgfit-muted">No fit yet.</span>'
        else:
            left = _sources(self.session, result) + _parameters(self.session, result)
            right = _correlation(self.session, result)
            self.body.value = (
                _headline(result)
                + f'<div class="imgfit-results-grid"><div>{left}</div><div>{right}</div></div>'
            )
        self._check()
        self._offer()

    def _check(self, change: object = None) -> None:
        """Say when parameters or data are no longer those of the fit."""
        stale = self.session.fit_result is not None and not self.session.fit_is_current
        self.note.value = "Models or data have changed since this fit." if stale else ""
        show(self.note, stale)

    def _offer(self) -> None:
        session = self.session
        links = []
        if len(session.models):
            links.append(download_link(*session.export_models(), "Models YAML"))
            links.append(download_link(*session.export_results("ecsv"), "Parameters ECSV"))
        if session.fit_result is not None:
            links.append(
                download_link(*session.export_results(), "Result JSON", "application/json")
            )
        self.links.value = "".join(links)

    def _drop_dataset(self, change: object = None) -> None:
        self.dataset_link.value = ""
        show(self.dataset_button, self.session.dataset is not None)

    def _prepare_dataset(self) -> None:
        exported = self.session.attempt(self.session.export_dataset)
        if exported is not None:
            name, content = exported
            label = f"{name} ({size_text(len(content))})"
            self.dataset_link.value = download_link(name, content, label, "application/gzip")
            show(self.dataset_button, False)


def _headline(result: Any) -> str:
    word = "done" if result.success else "failed"
    title = "converged" if result.success else "did not converge"
    return (
        f'<div class="imgfit-figures"><span class="imgfit-status-word imgfit-is-{word}">{title}'
        f"</span><span>Statistic <b>{signs(f'{result.total_stat:.2f}')}</b></span>"
        f"<span>Evaluations <b>{result.nfev}</b></span></div>"
        + ("" if result.success else f'<p class="imgfit-failed">{escape(result.message)}</p>')
    )


def _sources(session: Session, result: Any) -> str:
    """Significance and flux of each source."""
    if not result.ts:
        return ""
    models = result.models.copy()
    result.apply(models)
    edges = result.datasets[0].energy_axis.edges
    lines = []
    for name, source in result.ts.items():
        linear = models[name].linear_parameter
        strength = _strength(source.sigma, linear.value < 0)
        flux = models[name].spectral_model.integral(edges[0], edges[-1]).to_value("cm-2 s-1")
        error = flux * linear.error / linear.value if linear.value else 0.0
        lines.append(
            f"<tr><td>{_dot(session, name)}{escape(name)}</td>"
            f"<td>{signs(f'{source.ts:.1f}')}</td><td>{source.dof}</td>"
            f'<td title="{SIGNIFICANCE}">{strength}</td>'
            f"<td>{escape(measurement(float(flux), abs(float(error))))}</td></tr>"
        )
    band = f"{edges[0].value:g}–{edges[-1].value:g} {edges.unit}"
    head = (
        '<tr><th>source</th><th title="Test statistic: how much worse the fit is without it">TS'
        '</th><th title="Degrees of freedom: free parameters that the source adds">dof</th>'
        f'<th title="{SIGNIFICANCE}">signif. *</th>'
        '<th title="Integral between these energies, with the error of the amplitude">'
        f"flux {band} ({unit_text('cm-2 s-1')})</th></tr>"
    )
    note = f'<p class="imgfit-footnote">* {SIGNIFICANCE}</p>'
    return f'<table class="imgfit-ts">{head}{"".join(lines)}</table>{note}'


def _strength(sigma: float, negative: bool) -> str:
    """A significance; with a minus sign for a source that takes counts away."""
    if not math.isfinite(sigma):
        return "–"
    if negative:
        return f"<b>\N{MINUS SIGN}{abs(sigma):.1f} σ</b> <small>negative flux</small>"
    return f"<b>{sigma:.1f} σ</b>"


def _parameters(session: Session, result: Any) -> str:
    lines, last = [], ""
    asymmetric = session.asymmetric_errors
    for item in result.parameters:
        if item["frozen"]:
            continue
        if item["model"] != last:
            last = item["model"]
            title = f"{_dot(session, last)}{escape(last)}"
            lines.append(f'<tr class="imgfit-group"><td colspan="2">{title}</td></tr>')
        value, error, unit = item["value"], item["error"], item["unit"]
        both = asymmetric.get((last, item["name"]))
        words = measurement(value, error, unit) if both is None else interval(both)
        lines.append(
            f'<tr title="{value!r} ± {error!r} {escape(unit)}"><td>{escape(item["name"])}</td>'
            f"<td>{escape(words)}</td></tr>"
        )
    return f'<table class="imgfit-values">{"".join(lines)}</table>'


def _correlation(session: Session, result: Any) -> str:
    """The correlation matrix as a table of coloured cells."""
    names, matrix = result.names, result.correlation
    if matrix is None or len(names) < 2:
        return ""
    labels = [f"{model}.{name}" for model, name in names]
    compact = len(names) > MANY_PARAMETERS
    head = "".join(f"<th>{number + 1}</th>" for number in range(len(names)))
    lines = []
    for number, (model, name) in enumerate(names):
        cells = []
        for other, value in zip(labels, map(float, matrix[number]), strict=True):
            colour = "37, 99, 235" if value < 0 else "220, 38, 38"
            alpha = min(abs(value), 1.0) * 0.65
            title = escape(f"{labels[number]}, {other}: {signs(f'{value:.3f}')}")
            cells.append(
                f'<td style="background:rgba({colour},{alpha:.2f})" title="{title}">'
                f"{'' if compact else _signed(value)}</td>"
            )
        label = f"{_dot(session, model)}{escape(name)}"
        lines.append(
            f'<tr title="{escape(labels[number])}"><th>{number + 1}</th><th>{label}</th>'
            f"{''.join(cells)}</tr>"
        )
    caption = "Correlation" + (" (rest on a cell for its number)" if compact else "")
    css = "imgfit-correlation" + (" imgfit-compact" if compact else "")
    return (
        f'<table class="{css}"><caption>{caption}</caption>'
        f"<tr><th></th><th></th>{head}</tr>{''.join(lines)}</table>"
    )


def _dot(session: Session, name: str) -> str:
    colour = source_colour(session.models, name)
    return f'<i class="imgfit-dot" style="background:{colour}"></i>'


def _signed(value: float) -> str:
    """A coefficient without its leading zero: "−.12"; "1" on the diagonal."""
    if abs(value) > 0.995:
        return "1" if value > 0 else "\N{MINUS SIGN}1"
    digits = f"{abs(value):.2f}".removeprefix("0")
    return f"\N{MINUS SIGN}{digits}" if value < -0.005 else digits
