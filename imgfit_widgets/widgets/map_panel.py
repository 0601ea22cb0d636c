"""One map with its display controls: which map, colours, stretch, cuts, correlation radius."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import ipywidgets as widgets
import numpy as np
from numpy.typing import NDArray
from traitlets import Dict, observe

from ..core.estimators.display import MAP_KINDS as DATA_KINDS
from ..core.estimators.display import MapKind
from ..core.maps import WcsGeom
from ..task import Owner
from . import lean, palette
from .charts import CutEditor
from .gestures import Listener
from .lean import show
from .numbers import unit_text
from .sky_figure import SkyFigure, SkyView
from .style import row, text

FloatArray = NDArray[np.float64]
Source = Callable[[str, float, int | None], FloatArray]

TS_MAP = "ts"
MAP_KINDS = {
    **DATA_KINDS,
    TS_MAP: MapKind(
        "√TS of a point source",
        "σ",
        "How much a further point source at each pixel would improve the fit; from the search",
        diverging=True,
    ),
}
"""The maps of a dataset, and that of a search."""
BY_HAND = "by hand"
SIGMA_CUTS = {"±3 σ": 3.0, "±5 σ": 5.0, "±10 σ": 10.0}
RADIUS = 0.1
MEAN = -1  # stands for no true energy in a select, to which None means that nothing is chosen


@dataclass(frozen=True)
class Look:
    """How one kind of map is drawn; ``by_hand`` holds the cuts when ``cut`` says so."""

    colours: str
    stretch: str
    cut: str
    by_hand: tuple[float, float] = (0.0, 1.0)


def default_look(kind: str) -> Look:
    """A sensible first look at a kind of map."""
    if MAP_KINDS[kind].unit == "σ":
        return Look("blue-red", "linear", "±5 σ")
    if MAP_KINDS[kind].diverging:
        return Look("blue-red", "linear", "99.9 %")
    if kind == "mask":
        return Look("gray", "linear", "min–max")
    if kind == "exposure":
        return Look("viridis", "linear", "min–max")
    return Look("inferno", "sqrt", "99.9 %")


class MapPanel(lean.VBox):
    """A `SkyFigure` with selects for what it shows and how.

    Parameters
    ----------
    source : callable
        ``source(kind, radius, true_band)`` gives the values of a map, shape (ny, nx).
    kind : str
        The map to begin with.
    view, owner, listener
        As for `SkyFigure`.

    ``editor``, the histogram for cuts by hand, is for whoever has a place for it. ``state`` is what
    a session file keeps: the kind of map, the radius, and the looks by kind.
    """

    state = Dict()

    def __init__(
        self,
        source: Source,
        kind: str,
        owner: Owner,
        view: SkyView | None = None,
        listener: Listener | None = None,
    ) -> None:
        self._source = source
        self._looks = {name: default_look(name) for name in MAP_KINDS}
        self._applying, self._offering, self._first = "", False, kind
        self.figure = SkyFigure(owner, view, listener)
        self.kind = lean.Dropdown(
            options=[(item.label, name) for name, item in MAP_KINDS.items()],
            value=kind,
            tooltip="Which map is shown",
            classes="imgfit-map-kind",
        )
        self.radius = lean.BoundedFloatText(
            value=RADIUS,
            min=0.0,
            max=5.0,
            step=0.02,
            tooltip="Correlation radius in degrees, up to 5",
        )
        self.true_band = lean.Dropdown(
            options=[("mean", MEAN)],
            tooltip="True energy of the exposure",
            classes="imgfit-map-true-band",
        )
        self._radius_box = row(text("r"), self.radius, text("°"), classes="imgfit-map-radius")
        self.colours = _select(list(palette.COLOUR_MAPS), "Colour map", "imgfit-map-colours")
        self.stretch = _select(list(palette.STRETCHES), "Stretch", "imgfit-map-stretch")
        self.cut = _select([BY_HAND], "Values of the first and the last colour", "imgfit-map-cut")
        self.editor = CutEditor()
        show(self.editor, False)
        # What belongs to the colour bar stands under it, so that both maps begin at one height.
        super().__init__(
            [
                row(self.kind, self._radius_box, self.true_band, classes="imgfit-map-title"),
                self.figure,
                row(self.colours, self.stretch, self.cut, classes="imgfit-map-controls"),
            ],
            classes="imgfit-map-panel",
        )
        self._apply_look()
        self._note_state()
        # JupyterLab delivers a control's events on a thread of its own; the owner acts on them.
        self.kind.observe(lambda _: owner(self._kind_changed), "value")
        self.radius.observe(lambda _: owner(self._radius_changed), "value")
        self.true_band.observe(lambda _: owner(self.refresh), "value")
        for control in (self.colours, self.stretch, self.cut):
            control.observe(lambda change: owner(lambda: self._look_changed(change)), "value")
        self.editor.observe(lambda _: owner(self._cuts_by_hand), "cuts")

    @property
    def look(self) -> Look:
        """How the present kind of map is drawn."""
        return self._looks[self.kind.value]

    @property
    def follows_model(self) -> bool:
        """Whether the map changes with the models."""
        return MAP_KINDS[self.kind.value].follows_model

    def set_geom(self, geom: WcsGeom) -> None:
        """Show maps of another geometry."""
        self.figure.set_geom(geom)

    def offer(self, kinds: Sequence[str], true_bands: Sequence[str]) -> None:
        """Offer only kinds of maps that there are data for, and exposures at these energies."""
        options = [(MAP_KINDS[kind].label, kind) for kind in kinds]
        if tuple(options) != tuple(self.kind.options):
            wanted = next(k for k in (self.kind.value, self._first, kinds[0]) if k in kinds)
            self._offering = True  # new options choose the first by themselves
            self.kind.options = options
            self.kind.value = wanted
            self._offering = False
            self._apply_look()
            self._note_state()
        bands = [("mean", MEAN), *((words, k) for k, words in enumerate(true_bands))]
        if tuple(bands) != tuple(self.true_band.options):
            self.true_band.options = bands

    def refresh(self, recut: bool = True) -> None:
        """Draw the map anew; without ``recut`` the colours keep their values, as in a drag."""
        band = None if self.true_band.value in (MEAN, None) else self.true_band.value
        data = self._source(self.kind.value, self.radius.value, band)
        self.figure.show(data, self._levels(data) if recut else None)
        if self.look.cut == BY_HAND and recut:
            self.editor.show(data)

    def _levels(self, data: FloatArray) -> tuple[float, float]:
        look, diverging = self.look, self.look.colours in palette.DIVERGING
        if look.cut == BY_HAND:
            return look.by_hand
        if look.cut in SIGMA_CUTS:
            return -SIGMA_CUTS[look.cut], SIGMA_CUTS[look.cut]
        return palette.cut_levels(data, palette.CUTS[look.cut], symmetric=diverging)

    def _note_state(self) -> None:
        looks = {kind: asdict(look) for kind, look in self._looks.items()}
        self.state = {"kind": self.kind.value, "radius": self.radius.value, "looks": looks}

    @observe("state")
    def _restore(self, change: Any) -> None:
        """Take over a state from outside; what a file holds that is not known is left out."""
        state = change.new
        looks = dict(self._looks)
        for kind, known in state.get("looks", {}).items():
            if kind in looks:
                looks[kind] = _known_look(known, looks[kind])
        offered = [name for _, name in self.kind.options]
        kind = state.get("kind") if state.get("kind") in offered else self.kind.value
        radius = float(state.get("radius", self.radius.value))
        if (looks, kind, radius) != (self._looks, self.kind.value, self.radius.value):
            self._looks = looks
            self.radius.value, self.kind.value = radius, kind
            self._kind_changed()

    def _radius_changed(self) -> None:
        self._note_state()
        self.refresh()

    def _kind_changed(self) -> None:
        if self._offering:
            return
        self._apply_look()
        self._note_state()
        self.refresh()

    def _apply_look(self) -> None:
        """Bring the controls to the look of the present kind."""
        kind, look = MAP_KINDS[self.kind.value], self.look
        # The controls change one after the other; none of them may be taken for the user's hand.
        self._applying = self.kind.value
        self.cut.options = [*(SIGMA_CUTS if kind.unit == "σ" else ()), *palette.CUTS, BY_HAND]
        self.cut.value, self.colours.value, self.stretch.value = (
            look.cut,
            look.colours,
            look.stretch,
        )
        self._applying = ""
        show(self._radius_box, kind.correlated)
        show(self.true_band, self.kind.value == "exposure" and len(self.true_band.options) > 2)
        show(self.editor, look.cut == BY_HAND)
        self._draw_look(look)
        self.kind.tooltip = kind.help

    def _draw_look(self, look: Look) -> None:
        kind = MAP_KINDS[self.kind.value]
        unit = f" ({unit_text(kind.unit)})" if kind.unit not in ("", kind.label.lower()) else ""
        self.figure.bar_label = self.editor.label = kind.label + unit
        self.figure.colours, self.figure.stretch = look.colours, look.stretch

    def _look_changed(self, change: Any) -> None:
        if self._applying:
            return
        look = replace(
            self.look, colours=self.colours.value, stretch=self.stretch.value, cut=self.cut.value
        )
        by_hand = look.cut == BY_HAND
        if by_hand and self.look.cut != BY_HAND:
            look = replace(look, by_hand=self.figure.cuts)
        self._looks[self.kind.value] = look
        self._draw_look(look)
        if by_hand and change.owner is self.cut:
            self.editor.show(self.figure.data, look.by_hand)
        show(self.editor, by_hand)
        self.figure.show(self.figure.data, self._levels(self.figure.data))
        self._note_state()

    def _cuts_by_hand(self) -> None:
        if self.look.cut == BY_HAND:
            self._looks[self.kind.value] = replace(self.look, by_hand=self.editor.cuts)
            self.figure.cuts = self.editor.cuts
            self._note_state()


def _known_look(values: dict[str, Any], default: Look) -> Look:
    """A look from a file, with the default's values where the file's are not known."""
    colours, stretch, cut = (values.get(name) for name in ("colours", "stretch", "cut"))
    low, high = values.get("by_hand", default.by_hand)
    return Look(
        colours if colours in palette.COLOUR_MAPS else default.colours,
        stretch if stretch in palette.STRETCHES else default.stretch,
        cut if cut in (*palette.CUTS, *SIGMA_CUTS, BY_HAND) else default.cut,
        palette.separate(float(low), float(high)),
    )


def _select(options: list[str], tooltip: str, css: str) -> widgets.Dropdown:
    return lean.Dropdown(options=options, value=options[0], tooltip=tooltip, classes=css)
