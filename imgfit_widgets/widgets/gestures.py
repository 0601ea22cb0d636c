"""What a hand does on a map, told from the mouse and key events of one figure.

`Overlay`
    A source as the map shows it, in map pixels.
`hit_test`
    Which part of which overlay lies under the pointer, measured on the screen.
`Mouse`
    Turns raw events into the calls of a `Listener`: hover, click, drag of a source or of its size
    handle, keys; and serves the figure's own tools, box zoom and contrast.

Three habits of the browser's side shape this file. A drag that pans the map never reaches the
kernel, so panning is switched off as soon as the pointer rests on something that can be dragged. d3
swallows the click of a hand that moved by a single pixel, so a short drag counts as a click here.
The release of the right button is not told: contrast follows it from the press on, until the
pointer rests, leaves the map or clicks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

MODES = ("navigate", "edit", "add")
TOLERANCE = 8.0  # screen pixels between the pointer and what it takes hold of
CLICK_REACH = 4.0  # screen pixels up to which a press and release are a click
REST = 0.4  # seconds without a move after which the right button counts as released
CONTRAST_LIMITS = (0.1, 20.0)


class Outline(NamedTuple):
    """A closed curve in map pixels, and what it means ("1σ")."""

    label: str
    x: FloatArray
    y: FloatArray


@dataclass(frozen=True, eq=False)
class Overlay:
    """A source on the map.

    ``x, y`` are map pixels; ``handle`` is the place at which its size is dragged, ``further`` those
    of other parts of its shape, by a name for each; ``errors`` are the ends of its one-sigma
    position errors, shape (2, 2): point, (x, y); ``uncertainty`` are curves that hold the position.
    """

    name: str
    x: float
    y: float
    colour: str
    selected: bool = False
    outlines: tuple[Outline, ...] = ()
    handle: tuple[float, float] | None = None
    errors: tuple[FloatArray, ...] = field(default=())
    further: tuple[tuple[str, tuple[float, float]], ...] = ()
    uncertainty: tuple[Outline, ...] = ()

    def place(self, part: str) -> tuple[float, float]:
        """Where a part is held: the centre, the size handle, or a further one."""
        places = {"handle": self.handle, **dict(self.further)}
        return places.get(part) or (self.x, self.y)


class Hit(NamedTuple):
    """What lies under the pointer: a centre (``source``), a size ``handle`` or a further one."""

    name: str
    part: str


class Listener(Protocol):
    """Whoever acts on the gestures; positions are map pixels."""

    def hover(self, x: float, y: float) -> None: ...
    def click(self, x: float, y: float, hit: Hit | None) -> None: ...
    def drag_start(self, hit: Hit) -> None: ...
    def drag(self, hit: Hit, x: float, y: float) -> None: ...
    def drag_end(self, hit: Hit) -> None: ...
    def drag_cancel(self, hit: Hit) -> None: ...
    def key(self, key: str) -> None: ...


class Surface(Protocol):
    """What `Mouse` needs of the figure it works on."""

    mode: str
    tool: str
    overlays: Sequence[Overlay]
    bias: float
    contrast: float

    @property
    def zoom(self) -> tuple[float, float]:
        """Screen pixels per map pixel along x and y."""

    @property
    def plot_size(self) -> tuple[float, float]:
        """Width and height of the plot in screen pixels."""

    def learn_size(self, pixel: tuple[float, float], domain: tuple[float, float]) -> None: ...
    def hold(self, held: bool, cursor: str) -> None: ...
    def show_box(self, corners: tuple[float, float, float, float] | None) -> None: ...
    def zoom_to_box(self, corners: tuple[float, float, float, float]) -> None: ...


def hit_test(
    overlays: Sequence[Overlay],
    x: float,
    y: float,
    zoom: tuple[float, float],
    tolerance: float = TOLERANCE,
) -> Hit | None:
    """The nearest handle or source within ``tolerance`` screen pixels of a map position.

    The selected source comes first, so that one of two sources on the same spot can be held on to;
    a handle comes before a centre, because it is the smaller target.
    """
    best: tuple[tuple[bool, float], Hit] | None = None
    for overlay in overlays:
        targets: list[tuple[str, tuple[float, float], float]] = [
            ("source", (overlay.x, overlay.y), 0.0)
        ]
        if overlay.handle is not None:
            targets.append(("handle", overlay.handle, 2.0))
        targets += [(part, place, 2.0) for part, place in overlay.further]
        for part, (at_x, at_y), advantage in targets:
            distance = math.hypot((x - at_x) * zoom[0], (y - at_y) * zoom[1])
            if distance <= tolerance:
                rank = (not overlay.selected, distance - advantage)
                if best is None or rank < best[0]:
                    best = rank, Hit(overlay.name, part)
    return best[1] if best else None


@dataclass
class _Press:
    """A drag under way: what it holds, where it began (screen, map), how far it went."""

    kind: str
    pixel: tuple[float, float]
    at: tuple[float, float]
    hit: Hit | None = None
    grip: tuple[float, float] = (0.0, 0.0)
    reach: float = 0.0
    moved: bool = False
    values: tuple[float, float] = (0.5, 1.0)


class Mouse:
    """The state of one pointer over one figure."""

    def __init__(self, surface: Surface, listener: Listener | None = None) -> None:
        self.surface = surface
        self.listener = listener
        self._press: _Press | None = None
        self._follow: _Press | None = None
        self._followed_at = 0.0
        self._at: tuple[float, float] | None = None

    @property
    def dragging(self) -> bool:
        """Whether something is being dragged."""
        return self._press is not None and self._press.moved

    @property
    def at(self) -> tuple[float, float] | None:
        """Where the pointer was last seen, in map pixels."""
        return self._at

    def handle(self, event: dict[str, Any]) -> None:
        """Act on one event of the figure's mouse interaction."""
        kind = event.get("event")
        if kind in ("keydown",):
            self._key(event)
            return
        if kind == "mouseleave":
            self._follow = None
            return
        pixel = (float(event["pixel"]["x"]), float(event["pixel"]["y"]))
        at = (float(event["domain"]["x"]), float(event["domain"]["y"]))
        if not all(map(math.isfinite, (*pixel, *at))):
            return
        self._at = at
        if kind == "dragstart":
            self._drag_start(pixel, at)
            return
        if kind in ("dragmove", "dragend"):
            self._drag(pixel, at, ended=kind == "dragend")
            if self.listener:
                self.listener.hover(*at)
            return
        self.surface.learn_size(pixel, at)
        if kind == "mousemove":
            self._follow_right_button(pixel)
            self.rehover()
            if self.listener:
                self.listener.hover(*at)
        elif kind == "click":
            self._click(at)
        elif kind == "dblclick":
            self._follow = None
            self.surface.bias, self.surface.contrast = 0.5, 1.0
        elif kind == "contextmenu":
            self._follow, self._followed_at = self._grip_contrast(pixel, at), time.monotonic()

    def rehover(self) -> None:
        """Switch between panning and holding, by what lies under the pointer now."""
        if self._press is not None:
            return
        surface = self.surface
        if surface.tool:
            surface.hold(True, "crosshair" if surface.tool == "box" else "all-scroll")
            return
        hit = self.hit()
        if hit is not None and surface.mode != "navigate":
            surface.hold(True, "move" if hit.part == "source" else "nesw-resize")
        elif hit is not None:
            surface.hold(False, "pointer")
        else:
            surface.hold(
                False, {"navigate": "grab", "edit": "default"}.get(surface.mode, "crosshair")
            )

    def hit(self) -> Hit | None:
        """What lies under the pointer."""
        if self._at is None:
            return None
        return hit_test(self.surface.overlays, *self._at, self.surface.zoom)

    def short_pan(self) -> None:
        """The figure was panned by less than a click's reach: that was a click of a moving hand."""
        if self._at is not None:
            self._click(self._at)

    def cancel(self) -> None:
        """Let go of whatever is held; a source goes back to where it was taken."""
        press, self._press, self._follow = self._press, None, None
        self.surface.show_box(None)
        if press is not None and press.moved and press.hit is not None and self.listener:
            self.listener.drag_cancel(press.hit)
        self.rehover()

    def _click(self, at: tuple[float, float]) -> None:
        following, self._follow = self._is_following(), None
        if following:
            return
        if self.listener and not self.surface.tool:
            self.listener.click(*at, hit_test(self.surface.overlays, *at, self.surface.zoom))
            self.rehover()

    def _drag_start(self, pixel: tuple[float, float], at: tuple[float, float]) -> None:
        surface, self._follow = self.surface, None
        lost = self._press  # a drag whose end the browser never told
        if lost is not None and lost.moved and lost.hit is not None and self.listener:
            self.listener.drag_end(lost.hit)
        if surface.tool == "box":
            self._press = _Press("box", pixel, at)
        elif surface.tool == "contrast":
            self._press = self._grip_contrast(pixel, at)
        else:
            hit = hit_test(surface.overlays, *at, surface.zoom)
            self._press = _Press("none", pixel, at)
            if hit is not None and surface.mode != "navigate":
                target = next(item for item in surface.overlays if item.name == hit.name)
                held = target.place(hit.part)
                grip = (held[0] - at[0], held[1] - at[1])
                self._press = _Press("hit", pixel, at, hit, grip)

    def _drag(self, pixel: tuple[float, float], at: tuple[float, float], ended: bool) -> None:
        press = self._press
        if press is None:
            return
        reach = math.hypot(pixel[0] - press.pixel[0], pixel[1] - press.pixel[1])
        press.reach = max(press.reach, reach)
        if press.kind == "contrast":
            self._change_contrast(press, pixel)
        elif press.reach >= CLICK_REACH:
            self._move(press, at)
        if ended:
            self._release(press, at)

    def _move(self, press: _Press, at: tuple[float, float]) -> None:
        if press.kind == "box":
            press.moved = True
            self.surface.show_box((press.at[0], at[0], press.at[1], at[1]))
        elif press.hit is not None and self.listener:
            if not press.moved:
                press.moved = True
                self.listener.drag_start(press.hit)
            self.listener.drag(press.hit, at[0] + press.grip[0], at[1] + press.grip[1])

    def _release(self, press: _Press, at: tuple[float, float]) -> None:
        self._press = None
        if press.kind == "box":
            self.surface.show_box(None)
            if press.moved:
                self.surface.tool = ""
                self.surface.zoom_to_box((press.at[0], at[0], press.at[1], at[1]))
        elif press.moved and press.hit is not None and self.listener:
            self.listener.drag_end(press.hit)
        elif press.kind != "contrast" and 0.0 < press.reach < CLICK_REACH:
            # d3 swallowed the click because the pointer moved; without any move it still comes.
            self._click(press.at)
        self.rehover()

    def _is_following(self) -> bool:
        return self._follow is not None and time.monotonic() - self._followed_at < REST

    def _follow_right_button(self, pixel: tuple[float, float]) -> None:
        if self._follow is not None and self._is_following():
            self._change_contrast(self._follow, pixel)
            self._followed_at = time.monotonic()
        else:
            self._follow = None

    def _grip_contrast(self, pixel: tuple[float, float], at: tuple[float, float]) -> _Press:
        values = (self.surface.bias, self.surface.contrast)
        return _Press("contrast", pixel, at, values=values)

    def _change_contrast(self, press: _Press, pixel: tuple[float, float]) -> None:
        width, height = self.surface.plot_size
        bias = press.values[0] + (pixel[0] - press.pixel[0]) / width
        steps = 3.0 * (press.pixel[1] - pixel[1]) / height
        contrast = press.values[1] * math.exp(steps)
        self.surface.bias = min(max(bias, 0.0), 1.0)
        self.surface.contrast = min(max(contrast, CONTRAST_LIMITS[0]), CONTRAST_LIMITS[1])

    def _key(self, event: dict[str, Any]) -> None:
        key = str(event.get("key", ""))
        if event.get("altKey"):
            return  # the browser's
        if event.get("ctrlKey") or event.get("metaKey"):
            key = f"Ctrl-{'Shift-' if key.isupper() else ''}{key.upper()}"
        elif len(key) == 1:
            key = key.lower()  # with Caps Lock too
        if key == "Escape" and (self._press or self._follow or self.surface.tool):
            self.surface.tool = ""
            self.cancel()
            return
        if self.listener:
            self.listener.key(key)
