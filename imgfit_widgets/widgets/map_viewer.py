"""The maps of a session: look at them, add sources by a click, move and size them by hand.

`MapViewer` shows two maps that zoom together, by default the counts and what a model leaves of
them. It computes nothing: map_hand.py turns gestures into verbs of the session, and what the
session sets, parameters and predicted counts, is drawn. `overlays_of` says how a source looks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from traitlets import link

from ..core.dataset import MapDataset
from ..core.errors import ImgfitError
from ..core.estimators.display import ResidualMap, display_map, hatching, kinds_of
from ..core.maps import WcsGeom
from ..core.models import Models, SkyModel, SpatialModel
from ..core.models.spatial import EllipticModel
from ..core.models.spatial import Outline as SkyCurve
from ..session import Session
from . import lean
from .events import EventQueue
from .gestures import Outline, Overlay
from .lean import show
from .map_choice import MapChoice, band_words
from .map_evidence import curves_of
from .map_hand import Hand, Toolbar
from .map_panel import MAP_KINDS, TS_MAP, MapPanel
from .sky_figure import SkyView
from .sky_ticks import format_sexagesimal
from .style import Panel, escape, row, source_colour, text

FloatArray = NDArray[np.float64]

HINTS = {
    "navigate": "Drag pans, wheel zooms, click selects.",
    "edit": "Drag a source, or its square to size it.",
    "add": "Click to place a source. Esc leaves.",
    "box": "Draw a box around what you want to see.",
    "contrast": "Drag ↔ bias, ↕ contrast. Double click resets.",
}
HANDLE_REACH = 16.0  # screen pixels at least between a source's centre and its size handle
REDUCING = "<h3>Reducing the data…</h3>The maps will appear here."
NO_DATA = (
    "<h3>No sky map yet</h3>Choose observations and the geometry of the map, then press "
    "<b>Reduce</b>: counts, background and exposure will appear here. Add sources with a click, "
    "drag them until the residual map is flat, and press <b>Fit</b>."
)


def overlays_of(
    models: Models,
    geom: WcsGeom,
    selected: str = "",
    errors: bool = False,
    zoom: float = math.inf,
    stretch: float | None = None,
    uncertainty: Mapping[str, Sequence[SkyCurve]] = MappingProxyType({}),
) -> tuple[Overlay, ...]:
    """How the sources of models look on a map.

    Parameters
    ----------
    models : Models
    geom : WcsGeom
    selected : str
        Name of the source that is shown with its size handle.
    errors : bool
        Whether the errors of positions are shown: those of a fit that still holds.
    zoom : float
        Screen pixels per map pixel; a size handle stays clear of the centre on the screen.
    stretch : float, optional
        The handle's distance in units of the size, as it was when a drag took hold of it.
    uncertainty : mapping of str to sequence of (label, longitudes, latitudes)
        Curves around the positions of sources, in degrees of each source's frame.
    """
    least = HANDLE_REACH / zoom
    return tuple(
        _overlay(
            model,
            geom,
            source_colour(models, model.name),
            model.name == selected,
            errors,
            least,
            stretch,
            uncertainty.get(model.name, ()),
        )
        for model in models.sky_models
        if model.spatial_model.has_position
    )


def _overlay(
    model: SkyModel,
    geom: WcsGeom,
    colour: str,
    selected: bool,
    with_errors: bool,
    least_reach: float,
    stretch: float | None,
    around: Sequence[SkyCurve],
) -> Overlay:
    shape = model.spatial_model

    def pixels(lon: Any, lat: Any) -> FloatArray:
        return np.stack(geom.lonlat_to_pix(*geom.from_frame(lon, lat, shape.frame)), axis=-1)

    lon, lat = shape.position_lonlat
    x, y = (float(value) for value in pixels(lon, lat))
    outlines = tuple(Outline(label, *pixels(lons, lats).T) for label, lons, lats in shape.outline())
    uncertainty = tuple(Outline(label, *pixels(lons, lats).T) for label, lons, lats in around)
    handle: tuple[float, float] | None = None
    further: tuple[tuple[str, tuple[float, float]], ...] = ()
    if shape.size_parameter is not None and outlines and selected:
        curve = outlines[0]
        at = int(np.nanargmax(curve.x - curve.y))
        if isinstance(shape, EllipticModel) and not (
            shape.parameters["e"].frozen and is_round(shape)
        ):
            at, minor = _axes_ends(curve)
            further = (("minor", (float(curve.x[minor]), float(curve.y[minor]))),)
        elif len(outlines) > 1:
            other = outlines[1]
            up = int(np.nanargmax(other.x + other.y))
            further = (("width", (float(other.x[up]), float(other.y[up]))),)
        handle = edge = (float(curve.x[at]), float(curve.y[at]))
        reach = math.hypot(edge[0] - x, edge[1] - y)
        share = max(1.0, least_reach / reach if reach else 1.0) if stretch is None else stretch
        if share > 1.0:
            handle = (x + share * (edge[0] - x), y + share * (edge[1] - y))
            ends = np.array([edge, handle])
            outlines = (*outlines, Outline("", ends[:, 0], ends[:, 1]))
    errors = []
    if with_errors:
        for d_lon, d_lat in ((_error(shape.lon_0), 0.0), (0.0, _error(shape.lat_0))):
            if d_lon or d_lat:
                ends = np.array([-1.0, 1.0])
                errors.append(pixels(lon + ends * d_lon, lat + ends * d_lat))
    return Overlay(
        model.name, x, y, colour, selected, outlines, handle, tuple(errors), further, uncertainty
    )


def is_round(shape: SpatialModel) -> bool:
    """Whether an elliptical shape is round as it is."""
    return "e" not in shape.parameters.names or shape.parameters["e"].value == 0.0


def _axes_ends(curve: Outline) -> tuple[int, int]:
    """Points of an ellipse at the ends of its major and minor axis, those to the lower right."""
    quarter = (len(curve.x) - 1) // 4
    ends = (0, 2 * quarter), (quarter, 3 * quarter)
    right = [max(pair, key=lambda k: float(curve.x[k] - curve.y[k])) for pair in ends]
    return right[0], right[1]


def _stretch(overlay: Overlay) -> float:
    """The distance of a source's handle from its centre in units of its size."""
    if overlay.handle is None or overlay.outlines[-1].label:
        return 1.0
    (x, _), (y, _) = overlay.outlines[-1].x, overlay.outlines[-1].y
    far = math.hypot(overlay.handle[0] - overlay.x, overlay.handle[1] - overlay.y)
    return far / math.hypot(x - overlay.x, y - overlay.y)


def _error(parameter: Any) -> float:
    """A parameter's error in degrees; 0 if it has none."""
    error = float(parameter.error * parameter.factor_to_expected)
    return error if math.isfinite(error) else 0.0


class MapViewer(Panel):
    """Two maps of a session's dataset with its sources.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        owner = session.owner
        self._queue = EventQueue(owner)
        self._cache: dict[tuple[str, float, int | None], FloatArray] = {}
        self._cached_for: object = None
        self._residual: tuple[tuple[float, int | None], ResidualMap] | None = None
        self._followed: list[Any] = []
        self._pointer: tuple[float, float] | None = None
        self._stretch = 1.0
        self.view = SkyView(self._queue, owner)
        self.hand = Hand(session, self.view, lambda: self.main.figure, self._hovered)
        self.main, self.residual = (
            MapPanel(self._map, kind, owner, self.view, self.hand)
            for kind in ("counts", "residual")
        )
        self.panels = (self.main, self.residual)
        self.main.figure.leads = True
        self.main.figure.add_class("imgfit-map")
        self.residual.figure.add_class("imgfit-residual-map")
        self.toolbar = Toolbar(session, self.view, self.main.figure, self.hand)
        self.choice = MapChoice(session)
        self.hint = text("", "imgfit-hint")
        self.badge = text("", "imgfit-live")
        self.readout = text("", "imgfit-readout")
        self._maps = lean.HBox(self.panels, classes="imgfit-maps")
        # Below both maps, where one histogram has the width of both.
        self._editors = lean.HBox(
            [panel.editor for panel in self.panels], classes="imgfit-cut-editors"
        )
        self._shown = [
            self.toolbar,
            self.choice,
            row(self.hint, self.badge, classes="imgfit-map-status"),
            self._maps,
            self._editors,
            self.readout,
        ]
        self._empty = text(NO_DATA, "imgfit-no-map")
        super().__init__(
            session,
            [self._empty, *self._shown],
            "imgfit-map-viewer imgfit-card",
        )
        for panel in self.panels:
            link((session, "mode"), (panel.figure, "mode"))
            link((self.toolbar.grid, "value"), (panel.figure, "grid"))
            link((self.toolbar.sexagesimal, "value"), (panel.figure, "sexagesimal"))
            panel.observe(self._note_view, "state")
        link((self.main.figure, "tool"), (self.residual.figure, "tool"))
        self.main.figure.observe(self._show_hint, "tool")
        session.observe(self._show_hint, ["mode", "error"])
        session.observe(self._dataset_changed, ["datasets", "dataset_name"])
        self.choice.observe(self._band_changed, "band")
        self.choice.excluded.observe(lambda _: session.owner(self._draw_exclusion), "value")
        session.task.observe(self._show_empty, "status")
        session.observe(self._preview_changed, "preview")
        session.observe(self._sources_changed, ["selected", "fit_result", "revision"])
        session.observe(self._sources_changed, "answers")
        session.observe(self._searched, "search")
        session.observe(self._view_opened, "view")
        self.view.observe(self._zoomed, ["window", "plot_size"])
        session.models.observe(self._follow_models, "components")
        session.config.excess_map.observe(self._take_radius, "correlation_radius")
        self._take_radius()
        self._follow_models()
        self._show_empty()
        self._dataset_changed()
        self._show_hint()

    # -- what the session sets ------------------------------------------------------------------

    def _dataset_changed(self, _: object = None) -> None:
        dataset = self.session.dataset
        for part in self._shown:
            show(part, dataset is not None)
        show(self._empty, dataset is None)
        if dataset is None:
            return
        geom, old = dataset.geom.to_image(), self.main.figure.geom
        if old is None or not geom.is_aligned(old):
            self._pointer = None  # its pixel is elsewhere now
            for panel in self.panels:
                panel.set_geom(geom)
            hours = geom.frame == "icrs"
            self.toolbar.sexagesimal.description = "h m s" if hours else "° ′ ″"
            self.toolbar.sexagesimal.tooltip = (
                "Axes in hours, minutes, seconds instead of degrees"
                if hours
                else "Axes in degrees, minutes, seconds of arc instead of decimals"
            )
        self.choice.offer(dataset)
        self.toolbar.modes["add"].disabled = bool(self.session.why_not("add_source"))
        self._offer_kinds(dataset)
        self._draw_exclusion()
        self._queue.post(self._redraw, newest="maps")
        self._sources_changed()

    def _offer_kinds(self, dataset: MapDataset) -> None:
        search = self.session.search
        kinds = kinds_of(dataset)
        if search is not None and any(dataset is known for known in search.at.datasets):
            kinds = [*kinds, TS_MAP]
        bands = [] if dataset.exposure is None else band_words(dataset.energy_axis_true)
        for panel in self.panels:
            panel.offer(kinds, bands)

    def _searched(self, _: object) -> None:
        """Show the map of a new search in the place of the residual."""
        dataset = self.session.dataset
        if dataset is not None and self.session.search is not None:
            self._offer_kinds(dataset)
            self.residual.kind.value = TS_MAP
            self._queue.post(self._redraw, newest="maps")

    def _band_changed(self, _: object = None) -> None:
        self._queue.post(self._redraw, newest="maps")
        self._note_view(None)

    def _draw_exclusion(self) -> None:
        """Hatch what is kept out of the estimate of the background."""
        excluded = self.session.excluded if self.choice.excluded.value else None
        x = y = np.array([])
        if excluded is not None:
            x, y = hatching(excluded, max(excluded.shape) // 30)
        for panel in self.panels:
            panel.figure.hatch(x, y)

    def _show_empty(self, _: object = None) -> None:
        task = self.session.task
        self._empty.value = REDUCING if task.running and task.kind == "reduce" else NO_DATA

    def _preview_changed(self, _: object) -> None:
        self._queue.post(self._follow_preview, newest="preview")

    def _follow_models(self, _: object = None) -> None:
        for parameter in self._followed:
            parameter.unobserve(self._sources_changed, ["value", "error"])
        self._followed = [
            parameter
            for model in self.session.models.sky_models
            for parameter in model.spatial_model.parameters
        ]
        for parameter in self._followed:
            parameter.observe(self._sources_changed, ["value", "error"])
        # At once: other panels build tables now, and a new source should not wait for them.
        self._draw_sources()

    def _sources_changed(self, _: object = None) -> None:
        # In a drag the maps go first; the sources follow with them.
        if not (self.hand.busy and self.session.preview is not None):
            self._queue.post(self._draw_sources, newest="sources")

    def _zoomed(self, _: object) -> None:
        # Only a size handle depends on the zoom.
        if any(overlay.handle is not None for overlay in self.main.figure.overlays):
            self._sources_changed()

    def _note_view(self, _: object) -> None:
        """Leave in the session what a session file should keep."""
        states = [panel.state for panel in self.panels]
        view = {**self.session.view, "maps": states, "band": self.choice.band}
        if self.session.view != view:
            self.session.view = view

    def _take_radius(self, _: object = None) -> None:
        """Begin with the correlation radius of the configuration."""
        radius = self.session.config.excess_map.correlation_radius.to_value("deg")
        for panel in self.panels:
            panel.radius.value = radius

    def _view_opened(self, change: Any) -> None:
        for panel, state in zip(self.panels, change.new.get("maps", []), strict=False):
            panel.state = state
        self.choice.take(change.new.get("band"))

    # -- drawing --------------------------------------------------------------------------------

    def _draw_sources(self) -> None:
        session, geom = self.session, self.main.figure.geom
        if geom is None:
            return
        errors = not self.hand.busy and session.fit_is_current
        overlays = overlays_of(
            session.models,
            geom,
            session.selected,
            errors,
            self.main.figure.zoom[0],
            self._stretch if self.hand.busy else None,
            {} if self.hand.busy else curves_of(session),
        )
        if not self.hand.busy:
            self._stretch = max([_stretch(overlay) for overlay in overlays], default=1.0)
        for panel in self.panels:
            panel.figure.overlays = overlays
        self._show_badge()

    def _redraw(self) -> None:
        if self.session.dataset is not None:
            for panel in self.panels:
                panel.refresh()
            self._show_badge()
            self._show_readout()

    def _follow_preview(self) -> None:
        """Draw what changes with the models; colours keep their values while a hand drags."""
        if self.session.dataset is not None:
            for panel in self.panels:
                if panel.follows_model:
                    panel.refresh(recut=not self.hand.busy)
            if self.hand.busy:
                self._draw_sources()
            self._show_badge()
            self._show_readout()

    def _map(self, kind: str, radius: float, true_band: int | None = None) -> FloatArray:
        """The values of a map; those that no model changes are kept."""
        dataset = self.session.dataset
        if self._cached_for is not dataset:
            self._cache, self._residual, self._cached_for = {}, None, dataset
        if dataset is None:
            return np.full((1, 1), np.nan)
        search = self.session.search
        if kind == TS_MAP and search is not None:
            return np.asarray(search.maps["sqrt_ts"].data[0])
        band = true_band if kind == "exposure" else self.choice.band
        key = (kind, radius if MAP_KINDS[kind].correlated else 0.0, band)
        if key in self._cache:
            return self._cache[key]
        try:
            npred = self._npred()
            if kind == "residual" and npred is not None:
                if self._residual is None or self._residual[0] != (radius, band):
                    self._residual = (radius, band), ResidualMap(dataset, radius, band)
                return self._residual[1](npred)
            data = display_map(dataset, kind, npred, radius, band)
        except ImgfitError as error:
            self.session.error = str(error)
            data = np.full(dataset.geom.shape, np.nan)
        if not MAP_KINDS[kind].follows_model:
            self._cache[key] = data
        return data

    def _npred(self) -> FloatArray | None:
        """Predicted counts (energy, y, x) of the displayed dataset; None without a preview."""
        session = self.session
        if session.preview is None or session.datasets is None:
            return None
        npred: FloatArray = session.preview.npred[
            session.datasets.names.index(session.dataset_name)
        ]
        return npred

    # -- words ----------------------------------------------------------------------------------

    def _show_hint(self, _: object = None) -> None:
        # A workbench shows errors in a place of its own and hides this one.
        error = self.session.error
        words = f'<span class="imgfit-hint-error">{escape(error)}</span> ' if error else ""
        self.hint.value = words + escape(HINTS[self.main.figure.tool or self.session.mode])

    def _show_badge(self) -> None:
        """What the selected source is worth where it is."""
        session = self.session
        names = [model.name for model in session.models.sky_models]
        if session.preview is None or session.selected not in names:
            self.badge.value = ""
            return
        delta_ts = session.preview.delta_ts
        flux = session.preview.flux.get(session.selected, math.nan)
        colour = source_colour(session.models, session.selected)
        # A source that takes counts away is as significant as its ΔTS, downwards.
        negative = flux < 0
        sigma = math.copysign(math.sqrt(abs(delta_ts)), -1.0 if negative else delta_ts)
        what = "<small>negative</small> flux" if negative else "flux"
        worth = f"<span>√ΔTS <b>{_signed(sigma)}</b></span>"
        if delta_ts < 0 and not negative:
            # Its flux is as somebody put it, that of the background without it the best.
            worth = '<span class="imgfit-muted">worse than without it: fit, or drag it</span>'
        self.badge.value = (
            f'<i style="background:{colour}"></i><b>{escape(session.selected)}</b>'
            f"<span>ΔTS <b>{_signed(delta_ts)}</b></span>{worth}"
            f"<span>{what} <b>{scientific(flux)}</b> cm⁻² s⁻¹</span>"
        )

    def _hovered(self, x: float, y: float) -> None:
        self._pointer = (x, y)
        self._show_readout()

    def _show_readout(self) -> None:
        """Where the pointer is, and the values of the maps there."""
        geom, dataset = self.main.figure.geom, self.session.dataset
        if self._pointer is None or geom is None or dataset is None:
            self.readout.value = '<span class="imgfit-muted">Move over a map to read it.</span>'
            return
        x, y = self._pointer
        lon, lat = geom.pix_to_lonlat(x, y)
        parts = [
            f"l, b <b>{_degrees(*geom.to_frame(lon, lat, 'galactic'))}</b>",
            f"RA, Dec {_equatorial(*geom.to_frame(lon, lat, 'icrs'))}",
            f"pixel <b>{round(x)}, {round(y)}</b>",
        ]
        parts += [f"{label} <b>{value}</b>" for label, value in self._values(round(x), round(y))]
        self.readout.value = "".join(f"<span>{part}</span>" for part in parts)

    def _values(self, column: int, row_: int) -> list[tuple[str, str]]:
        """Labels and values of the maps at a pixel."""
        dataset = self.session.dataset
        ny, nx = dataset.geom.shape if dataset is not None else (0, 0)
        if dataset is None or not (0 <= column < nx and 0 <= row_ < ny):
            return [("", "off the map")]
        band = self.choice.band
        bands = slice(None) if band is None else slice(band, band + 1)
        cubes = {"counts": dataset.counts.data, "npred": self._npred()}
        if dataset.background is not None:
            cubes["background"] = dataset.background.data
        values = [
            (name, f"{float(cube[bands, row_, column].sum()):.4g}")
            for name, cube in cubes.items()
            if cube is not None
        ]
        shown = {panel.kind.value: panel for panel in self.panels}
        for kind, panel in shown.items():
            if kind not in cubes and kind != "exposure":
                value = panel.figure.value_at(column, row_)
                values.append((kind, _plain(value, MAP_KINDS[kind].unit)))
        if dataset.exposure is not None:
            exposure = self._map("exposure", 0.0)[row_, column]
            values.append(("exposure", f"{scientific(float(exposure))} m² s"))
        return values


def _plain(value: float, unit: str) -> str:
    words = f"{value:.3g} {unit}" if math.isfinite(value) else "–"
    return words.replace("-", "\N{MINUS SIGN}")


def _signed(value: float) -> str:
    return f"{value:.1f}".replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else "–"


def _degrees(lon: Any, lat: Any) -> str:
    """A position in degrees."""
    return f"{float(lon) % 360.0:.4f}° {float(lat):+.4f}°".replace("-", "\N{MINUS SIGN}")


def _equatorial(lon: Any, lat: Any) -> str:
    """An equatorial position in degrees and sexagesimal."""
    hours = format_sexagesimal(float(lon), True, 1e-3)
    return f"<b>{_degrees(lon, lat)}</b> ({hours} {format_sexagesimal(float(lat), False, 1e-3)})"


def scientific(value: float, digits: int = 3) -> str:
    """A number as 1.23×10⁻¹²."""
    if not math.isfinite(value):
        return "–"
    if value == 0.0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa}×10{raised}".replace("-", "\N{MINUS SIGN}")
