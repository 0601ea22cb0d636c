"""The search for sources: make a TS map, list its peaks, add one as a source by a click."""

from __future__ import annotations

from typing import Any

from astropy.coordinates import SkyCoord

from ..searching import NULLS, THRESHOLD
from ..session import Session
from . import lean
from .lean import mark, show
from .numbers import signs
from .progress import ProgressBar
from .style import Panel, button, card_head, escape, retire, row, text

MOST = 12  # peaks that are listed
_AT = 0.1
"""Degrees, or twice the size of a source: a peak that close is the source itself."""
POST = (
    "Significance after the trials: how rare such a peak is anywhere on this map, "
    "by the Euler characteristic of a Gaussian field"
)


class SearchPanel(Panel):
    """TS map against the background or the models, its peaks, and a button to add each."""

    def __init__(self, session: Session) -> None:
        self.against = lean.Dropdown(
            options=[(words, key) for key, words in NULLS.items()],
            tooltip="What a further point source is compared with",
            classes="imgfit-search-against",
        )
        self._chosen = False  # by hand
        self.threshold = lean.BoundedFloatText(
            value=THRESHOLD,
            min=1.0,
            max=50.0,
            step=0.5,
            tooltip="Least √TS of a peak, from 1 to 50",
            classes="imgfit-search-threshold",
        )
        self.start = button("Find sources", classes="imgfit-search-button")
        self.note = text(classes="imgfit-muted imgfit-search-note")
        self.progress = ProgressBar(session.task, ["search"])
        self.peaks = lean.VBox(classes="imgfit-peaks")
        super().__init__(
            session,
            [
                card_head("Search", self.start),
                row(text("against", "imgfit-muted"), self.against, self.threshold, text("σ")),
                self.progress,
                self.note,
                self.peaks,
            ],
            "imgfit-card imgfit-search",
        )
        self.start.on_click(
            lambda _: session.attempt(
                session.find_sources, self.against.value, self.threshold.value
            )
        )
        self.against.observe(self._choose, "value")
        session.observe(self._list, "search")
        session.observe(self._update, ["revision", "datasets", "fit_result"])
        session.task.observe(self._update, "status")
        self._list()

    def _choose(self, change: Any) -> None:
        """Stay with what a person has chosen."""
        self._chosen |= change["new"] != self._expected

    @property
    def _expected(self) -> str:
        """Against what one would search: once sources are fitted, for what they leave over."""
        session = self.session
        return "models" if session.fit_result and session.models.sky_models else "background"

    def _source_at(self, lon: float, lat: float, frame: str) -> str:
        """The source that lies at a peak, "" if there is none."""
        there = SkyCoord(lon, lat, unit="deg", frame=frame)
        for source in self.session.models.sky_models:
            shape, size = source.spatial_model, 0.0
            if shape.size_parameter is not None:
                parameter = shape.parameters[shape.size_parameter]
                size = abs(parameter.value * parameter.factor_to_expected)
            if shape.has_position and shape.position.separation(there).deg < max(_AT, 2.0 * size):
                return str(source.name)
        return ""

    def _list(self, change: Any = None) -> None:
        search, session = self.session.search, self.session
        lines, frame = [], "" if search is None else search.found.frame
        for item in [] if search is None else search.found.table[:MOST]:
            name, lat = str(item["name"]), signs(f"{item['lat']:+.3f}")
            words = (
                f"<span>{item['lon']:.3f}° {lat}°</span>"
                f"<span>√TS <b>{item['sqrt_ts']:.1f}</b></span>"
                f'<span title="{escape(POST)}">post-trial <b>{item["sigma_post"]:.1f} σ</b></span>'
            )
            add = button("Add", f"Add {name} as a point source", "imgfit-add-peak")
            at = self._source_at(float(item["lon"]), float(item["lat"]), frame)
            if at:
                words += f'<span class="imgfit-muted">at {escape(at)}</span>'
                add.tooltip += f"; {at} is there already, and a fit could not tell the two apart"
            add.on_click(lambda _, name=name: session.attempt(session.add_found, name))
            lines.append(row(text(words), add, classes="imgfit-peak"))
        old, self.peaks.children = self.peaks.children, lines
        retire(session.owner, old)
        self._update()

    def _update(self, change: Any = None) -> None:
        session, search = self.session, self.session.search
        if not self._chosen:
            self.against.value = self._expected
        reason = session.why_not("find_sources")
        self.start.disabled = bool(reason)
        self.start.tooltip = reason or "Make a map of √TS and list its peaks"
        words = reason if search is None else ""
        if search is not None:
            count = len(search.found)
            peaks = f"{count} peak{'s' if count != 1 else ''}" if count else "No peak"
            words = f"{peaks} above {search.found.threshold:g} σ against {NULLS[search.against]}; "
            words += "the map is a choice above the maps."
            if not session.search_is_current:
                words += " Models or data have changed since."
        self.note.value = escape(words)
        mark(self, "imgfit-is-stale", search and not session.search_is_current)
        show(self.note, bool(words))
