"""From gestures and keys on a map to verbs of the session, and the toolbar that does the same.

`Hand` is the `gestures.Listener` of both maps of a viewer. Everything it does has a button in
`Toolbar` or in another panel, and is a method of the session.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
from traitlets import Bool, HasTraits, link

from ..core.maps import WcsGeom
from ..core.models import SpatialModel
from ..core.models.spatial import EllipticModel
from ..core.models.spatial_base import separation_angle
from ..session import Session
from ..task import Owner
from . import lean
from .gestures import Hit
from .lean import HIDDEN, show
from .sky_figure import SkyFigure, SkyView
from .style import button, escape, row, text

ZOOM_STEP = 1.5
PAN_STEP = 0.1  # of what is seen

KEYS = (
    ("n e a", "Navigate, Edit, Add source"),
    ("Delete", "remove the selected source"),
    ("← ↑ → ↓", "move it by one pixel; pan if none is selected"),
    ("s", "snap it to the best position nearby"),
    ("f", "fit"),
    ("Ctrl-Z  Ctrl-Shift-Z", "undo, redo"),
    ("+ −", "zoom at the pointer"),
    ("0", "the whole map"),
    ("b", "box zoom"),
    ("c", "contrast and bias by dragging; also: right button, move without a rest"),
    ("Esc", "take a drag back; leave a tool or a mode"),
    ("?", "show or hide this list"),
)
ARROWS = {"ArrowLeft": (-1, 0), "ArrowRight": (1, 0), "ArrowUp": (0, 1), "ArrowDown": (0, -1)}


class Hand(HasTraits):
    """Acts on the session for whoever works on a map.

    Parameters
    ----------
    session : Session
    view : SkyView
    figure : SkyFigure
        Whose geometry turns pixels into positions, and whose tools the keys switch.
    hovered : callable
        Called with the map pixel under the pointer.
    """

    help_shown = Bool(False)

    def __init__(
        self,
        session: Session,
        view: SkyView,
        figure: Callable[[], SkyFigure],
        hovered: Callable[[float, float], None],
    ) -> None:
        super().__init__()
        self._session, self._view, self._figure, self._hovered = session, view, figure, hovered
        self.busy = False
        self._size_per_degree = 1.0

    @property
    def _geom(self) -> WcsGeom | None:
        return self._figure().geom

    def hover(self, x: float, y: float) -> None:
        """Show what is under the pointer."""
        self._hovered(x, y)

    def click(self, x: float, y: float, hit: Hit | None) -> None:
        """Select a source, add one in Add mode, or select none."""
        session, geom = self._session, self._geom
        if hit is not None:
            session.select(hit.name)
        elif session.mode == "add" and geom is not None:
            lon, lat = (float(value) for value in geom.pix_to_lonlat(x, y))
            session.attempt(session.add_source, lon, lat)
        else:
            session.select("")

    def drag_start(self, hit: Hit) -> None:
        """Take hold of a source or of its size."""
        self.busy = True
        self._session.begin_drag(hit.name)
        if hit.part == "handle":
            size = _size(self._session.models[hit.name].spatial_model)
            overlay = next(o for o in self._figure().overlays if o.name == hit.name)
            distance = self._polar(hit.name, *overlay.place("handle"))[0]
            self._size_per_degree = size / max(distance, 1e-9)

    def drag(self, hit: Hit, x: float, y: float) -> None:
        """Move what is held to a map pixel."""
        session, geom = self._session, self._geom
        if hit.name not in session.models.names or geom is None:
            return
        if hit.part != "source":
            distance, angle = self._polar(hit.name, x, y)
            if hit.part == "handle":
                distance *= self._size_per_degree
            values = shape_values(session.models[hit.name].spatial_model, hit.part, distance, angle)
            session.attempt(session.drag_shape, hit.name, **values)
        else:
            lon, lat = (float(value) for value in geom.pix_to_lonlat(x, y))
            session.attempt(session.drag_to, hit.name, lon, lat)

    def drag_end(self, hit: Hit) -> None:
        """Let go: the whole drag is one step of undo."""
        self.busy = False
        self._session.end_drag()

    def drag_cancel(self, hit: Hit) -> None:
        """Let go and take the drag back."""
        self.busy = False
        self._session.attempt(self._session.cancel_drag)

    def key(self, key: str) -> None:
        """Do what a key stands for."""
        session, view = self._session, self._view
        actions: dict[str, Callable[[], Any]] = {
            "n": lambda: self._set_mode("navigate"),
            "e": lambda: self._set_mode("edit"),
            "a": lambda: self._set_mode("add"),
            "Escape": self._leave,
            "Delete": lambda: session.attempt(session.remove_source),
            "Backspace": lambda: session.attempt(session.remove_source),
            "s": lambda: session.attempt(session.snap),
            "f": lambda: session.attempt(session.fit),
            "Ctrl-Z": session.undo,
            "Ctrl-Shift-Z": session.redo,
            "Ctrl-Y": session.redo,
            "+": lambda: self.zoom(ZOOM_STEP, at_pointer=True),
            "=": lambda: self.zoom(ZOOM_STEP, at_pointer=True),
            "-": lambda: self.zoom(1.0 / ZOOM_STEP, at_pointer=True),
            "0": view.home,
            "b": lambda: self._toggle_tool("box"),
            "c": lambda: self._toggle_tool("contrast"),
            "?": lambda: self.set_trait("help_shown", not self.help_shown),
        }
        if key in ARROWS:
            self._arrow(*ARROWS[key])
        elif key in actions:
            actions[key]()

    def zoom(self, factor: float, at_pointer: bool = False) -> None:
        """Zoom in by a factor, at the pointer or in the middle."""
        mouse = self._view.active
        self._view.zoom(factor, mouse.at if mouse and at_pointer else None)

    def _arrow(self, dx: int, dy: int) -> None:
        session = self._session
        if session.selected and not session.why_not("nudge"):
            session.attempt(session.nudge, dx, dy)
            return
        x_low, x_high, y_low, y_high = self._view.window
        x, y = dx * PAN_STEP * (x_high - x_low), dy * PAN_STEP * (y_high - y_low)
        self._view.set_window((x_low + x, x_high + x, y_low + y, y_high + y))

    def _leave(self) -> None:
        self.help_shown = False
        self._set_mode("navigate")

    def _set_mode(self, mode: str) -> None:
        self._session.mode = mode

    def _toggle_tool(self, tool: str) -> None:
        figure = self._figure()
        figure.tool = "" if figure.tool == tool else tool

    def _polar(self, name: str, x: float, y: float) -> tuple[float, float]:
        """Degrees on the sky from a source's centre to a map pixel, and the position angle."""
        geom, model = self._geom, self._session.models[name].spatial_model
        if geom is None:
            return 0.0, 0.0
        place = geom.to_frame(*geom.pix_to_lonlat(x, y), model.frame)
        lon, lat = model.position_lonlat
        distance, angle = separation_angle(lon, lat, *place)
        return float(distance), math.degrees(float(angle))


def shape_values(shape: SpatialModel, part: str, distance: float, angle: float) -> dict[str, float]:
    """Parameters of a shape whose handle lies at a distance and a position angle, in degrees.

    ``handle`` is the end of the major axis, or any point of a round outline; ``minor`` the end of
    the minor axis; ``width`` a point of the other circle of a shell.
    """
    size = _size(shape)
    if part == "handle":
        values = {str(shape.size_parameter): distance}
        if isinstance(shape, EllipticModel) and shape.parameters["e"].value > 0.0:
            values["phi"] = (angle + 90.0) % 180.0 - 90.0
        return values
    ratio = distance / max(size, 1e-9)
    if part == "minor":
        return {"e": math.sqrt(max(1.0 - min(ratio, 1.0) ** 2, 0.0))}
    return {"eta": 1.0 - ratio} if "eta" in shape.parameters.names else {"width": distance - size}


def _size(shape: SpatialModel) -> float:
    """The size parameter in degrees."""
    parameter = shape.parameters[str(shape.size_parameter)]
    return float(parameter.value * parameter.factor_to_expected)


class Toolbar(lean.HBox):
    """Buttons for the modes, the tools, zoom and undo; the list of keys is `key_list`."""

    def __init__(self, session: Session, view: SkyView, figure: SkyFigure, hand: Hand) -> None:
        self._session, act = session, session.owner
        self.modes = {
            "navigate": _toggle("Navigate", "Pan, zoom and select (n)"),
            "edit": _toggle("Edit", "Move and size sources (e)"),
            "add": _toggle(
                "+ Add source", "Click on the map to add a source (a)", "imgfit-add-source"
            ),
        }
        self.tools = {
            "box": _toggle("Box zoom", "Zoom into a box that you draw (b)", "imgfit-box-zoom"),
            "contrast": _toggle("Contrast", "Drag: sideways bias, upwards contrast (c)"),
        }
        self.undo = _tool(act, "↶", "Undo (Ctrl-Z)", session.undo, "imgfit-undo")
        self.redo = _tool(act, "↷", "Redo (Ctrl-Shift-Z)", session.redo, "imgfit-redo")
        zoom = (
            _tool(act, "−", "Zoom out (-)", lambda: hand.zoom(1.0 / ZOOM_STEP), "imgfit-zoom-out"),
            _tool(act, "+", "Zoom in (+)", lambda: hand.zoom(ZOOM_STEP), "imgfit-zoom-in"),
            _tool(act, "Home", "Show the whole map (0)", view.home, "imgfit-home"),
        )
        self.grid = _toggle("Grid", "Lines of equal longitude and latitude")
        self.sexagesimal = _toggle("h m s", "Axes in hours, minutes, seconds instead of degrees")
        self.help = _toggle("?", "Keys", "imgfit-keys-button")
        lines = "".join(f"<dt>{escape(key)}</dt><dd>{escape(what)}</dd>" for key, what in KEYS)
        words = f"<b>Keys</b> work after a click on a map.<dl>{lines}</dl>"
        self.key_list = text(words, f"imgfit-keys {HIDDEN}")
        super().__init__(
            [
                _group(*self.modes.values()),
                _group(*zoom),
                _group(*self.tools.values()),
                _group(self.undo, self.redo),
                _group(self.grid, self.sexagesimal, self.help),
                self.key_list,
            ],
            classes="imgfit-map-toolbar",
        )
        link((hand, "help_shown"), (self.help, "value"))
        hand.observe(self._show_keys, "help_shown")
        for name, toggle in self.modes.items():
            # Who presses Edit again wants to edit; only the placing of a source is called off.
            off = "navigate" if name == "add" else name
            _choice(session, "mode", name, toggle, off, session.owner)
        for name, toggle in self.tools.items():
            _choice(figure, "tool", name, toggle, "", session.owner)
        session.observe(self._show_undo, "revision")
        self._show_undo()

    def _show_keys(self, change: Any) -> None:
        show(self.key_list, change.new)

    def _show_undo(self, _: object = None) -> None:
        for verb, control in (("undo", self.undo), ("redo", self.redo)):
            control.disabled = bool(self._session.why_not(verb))


def _choice(
    owner: HasTraits, trait: str, value: str, toggle: widgets.ToggleButton, off: str, act: Owner
) -> None:
    """Keep a toggle pressed while a trait has a value; pressing sets it, releasing sets ``off``."""

    def follow(_: object = None) -> None:
        toggle.value = getattr(owner, trait) == value

    def press(change: Any) -> None:
        if change.new:
            setattr(owner, trait, value)
        elif getattr(owner, trait) == value:
            setattr(owner, trait, off)
            follow()  # what stands for ``off`` itself cannot be released

    follow()
    owner.observe(follow, trait)
    toggle.observe(lambda change: act(lambda: press(change)), "value")


def _toggle(label: str, tooltip: str, css: str = "") -> widgets.ToggleButton:
    classes = f"imgfit-button imgfit-tool {css}"
    return lean.ToggleButton(description=label, tooltip=tooltip, classes=classes)


def _tool(
    act: Owner, label: str, tooltip: str, action: Callable[[], Any], css: str
) -> widgets.Button:
    control = button(label, tooltip, f"imgfit-tool {css}")
    control.on_click(lambda _: act(action))
    return control


def _group(*controls: widgets.Widget) -> widgets.HBox:
    return row(*controls, classes="imgfit-tool-group")
