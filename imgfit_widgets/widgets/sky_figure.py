"""A map on the screen: image, sky axes, colour bar, sources, and the mouse.

`SkyView`
    Which part of the sky is seen, in map pixels. Figures that share one zoom and pan together,
    in the browser, without asking the kernel.
`SkyFigure`
    One map in such a view. Given a `WcsGeom` and a 2D array it draws; what the hand does goes to
    its `gestures.Listener`.

With charts.py the only file that knows bqplot. The image is an indexed PNG in an Image mark: the
fastest of the ways that bqplot offers, and it needs no WebGL. The mark ignores a new value of its
image widget, so two image widgets take turns.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from typing import Any

import ipywidgets as widgets
import numpy as np
from bqplot import Axis, Figure, Label, LinearScale, Lines, PanZoom, Scatter
from bqplot import Image as ImageMark
from bqplot_image_gl.interacts import MouseInteraction
from bqplot_image_gl.viewlistener import ViewListener
from numpy.typing import NDArray
from traitlets import Any as AnyTrait
from traitlets import Bool, Enum, Float, HasTraits, Tuple, Unicode, observe

from ..core.maps import WcsGeom
from ..task import Owner
from . import lean, palette
from .events import EventQueue
from .gestures import CLICK_REACH, MODES, Listener, Mouse, Outline, Overlay
from .sky_ticks import Tick, View, axis_labels, grid_lines, sky_ticks

FloatArray = NDArray[np.float64]

MARGIN = {"top": 8, "bottom": 40, "left": 62, "right": 12}
HEIGHTS = (180, 640)  # least and largest height of a plot in screen pixels
QUIET = 0.25  # seconds without change after which a pan is over
EVENTS = ["dragstart", "dragmove", "dragend", "click", "dblclick", "contextmenu", "mousemove"]
EVENTS += ["mouseleave"]
TICK_STYLE = {"font-size": "11px"}
LONG_LABEL = 7

_NONE = np.array([])
# A curve that draws nothing.
_NOWHERE = np.zeros((1, 2))
_LETTER, _LINE = 6.5, 14.0
"""Width of a letter and height of a label, in pixels of the screen."""
_OFFSET = 10
"""Pixels by which a label stands right of and above its place."""


class SkyView(HasTraits):
    """The part of a map that is seen, and the scales that figures share.

    ``window`` is (x low, x high, y low, y high) in map pixels, ``plot_size`` the plot's width and
    height on the screen. Pixels stay square on the screen: whoever sets a window gets the smallest
    one of the plot's shape that holds it.
    """

    window = Tuple(Float(), Float(), Float(), Float(), default_value=(-0.5, 0.5, -0.5, 0.5))
    plot_size = Tuple(Float(), Float(), default_value=(420.0, 315.0))

    def __init__(self, queue: EventQueue, owner: Owner) -> None:
        super().__init__()
        self._queue, self._owner = queue, owner
        # Padding would leave room for markers at the edge, and shift pixels against the ticks.
        self.x_scale, self.y_scale = (
            LinearScale(min=-0.5, max=0.5, allow_padding=False) for _ in range(2)
        )
        self.npix = (1, 1)
        self.active: Mouse | None = None
        self._is_home = True
        self._settled: View = self.window
        self._changed_at = 0.0
        for scale in (self.x_scale, self.y_scale):
            scale.observe(self._scale_moved, ["min", "max"])

    @property
    def zoom_level(self) -> tuple[float, float]:
        """Screen pixels per map pixel along x and y."""
        x_low, x_high, y_low, y_high = self.window
        return self.plot_size[0] / (x_high - x_low), self.plot_size[1] / (y_high - y_low)

    def set_map(self, npix: tuple[int, int]) -> None:
        """Show a map of (nx, ny) pixels as a whole."""
        self.npix = npix
        self.home()

    def home(self) -> None:
        """Show the whole map."""
        self.set_window((-0.5, self.npix[0] - 0.5, -0.5, self.npix[1] - 0.5))
        self._is_home = True

    def zoom(self, factor: float, at: tuple[float, float] | None = None) -> None:
        """Zoom in by a factor, keeping a map position (or the middle) where it is."""
        x_low, x_high, y_low, y_high = self.window
        x, y = at or (0.5 * (x_low + x_high), 0.5 * (y_low + y_high))
        self.set_window(
            (
                x + (x_low - x) / factor,
                x + (x_high - x) / factor,
                y + (y_low - y) / factor,
                y + (y_high - y) / factor,
            )
        )

    def set_window(self, window: View) -> None:
        """Show a part of the map, widened to the shape of the plot."""
        x_low, x_high, y_low, y_high = window
        width, height = max(abs(x_high - x_low), 0.5), max(abs(y_high - y_low), 0.5)
        x, y = 0.5 * (x_low + x_high), 0.5 * (y_low + y_high)
        pixel = max(width / self.plot_size[0], height / self.plot_size[1])
        half_x, half_y = 0.5 * pixel * self.plot_size[0], 0.5 * pixel * self.plot_size[1]
        self._is_home = False
        self.window = self._settled = (x - half_x, x + half_x, y - half_y, y + half_y)
        for scale, low, high in (
            (self.x_scale, x - half_x, x + half_x),
            (self.y_scale, y - half_y, y + half_y),
        ):
            with scale.hold_sync():
                scale.min, scale.max = low, high

    def set_plot_size(self, width: float, height: float) -> None:
        """The plot has this size on the screen now; its pixels become square again."""
        if (width, height) == self.plot_size:
            return
        x_low, x_high, y_low, y_high = self.window
        scale = (x_high - x_low) / self.plot_size[0]
        was_home = self._is_home
        self.plot_size = (width, height)
        if was_home:
            self.home()
            return
        middle, half = 0.5 * (y_low + y_high), 0.5 * scale * height
        x, half_x = 0.5 * (x_low + x_high), 0.5 * scale * width
        self.set_window((x - half_x, x + half_x, middle - half, middle + half))

    def _scale_moved(self, _: object) -> None:
        self._queue.post(self._follow_scales, newest="window")

    def _follow_scales(self) -> None:
        """Take over a window that the browser set by wheel or pan."""
        window = (self.x_scale.min, self.x_scale.max, self.y_scale.min, self.y_scale.max)
        if window == self.window or not (window[0] < window[1] and window[2] < window[3]):
            return
        self._is_home = False
        self.window = window
        self._changed_at = time.perf_counter()
        if self._owner.has_loop:
            self._owner.soon(self._settle, QUIET)

    def _settle(self) -> None:
        """Once a pan is over: one shorter than a click's reach was a click of a moving hand."""
        since = time.perf_counter() - self._changed_at
        if since < 0.9 * QUIET:
            self._owner.soon(self._settle, QUIET - since)
            return
        old, new = np.array(self._settled), np.array(self.window)
        shift = (new - old)[[0, 2]] * self.zoom_level
        same_size = np.allclose(np.diff(old)[[0, 2]], np.diff(new)[[0, 2]], rtol=1e-9)
        self._settled = self.window
        if same_size and 0.0 < float(np.hypot(*shift)) < CLICK_REACH:
            self.set_window(tuple(old.tolist()))
            if self.active is not None:
                self.active.short_pan()


class SkyFigure(lean.VBox):
    """A 2D array of values on the sky.

    Parameters
    ----------
    owner : `Owner`, optional
        The thread that owns the state; all events are handled there.
    view : `SkyView`, optional
        Shared by figures that zoom together; all of them must be shown at the same size.
    """

    mode = Enum(MODES, "navigate")
    tool = Enum(["", "box", "contrast"], "")
    colours = Enum(list(palette.COLOUR_MAPS), "inferno")
    stretch = Enum(palette.STRETCHES, "linear")
    cuts = Tuple(Float(), Float(), default_value=(0.0, 1.0))
    bias = Float(0.5)
    contrast = Float(1.0)
    bar_label = Unicode()
    sexagesimal = Bool(False)
    grid = Bool(False)
    overlays: Any = AnyTrait(())

    def __init__(
        self,
        owner: Owner | None = None,
        view: SkyView | None = None,
        listener: Listener | None = None,
    ) -> None:
        owner = owner or Owner()
        self.queue = EventQueue(owner)
        self.view = view or SkyView(self.queue, owner)
        self.leads = view is None
        self.geom: WcsGeom | None = None
        self.data: FloatArray = np.full((1, 1), np.nan)
        self.mouse = Mouse(self, listener)
        self._index = np.full((1, 1), palette.BLANK, np.uint8)
        self._table = palette.colour_table("inferno")
        self._sent: dict[tuple[int, str], Any] = {}
        self._labelled: dict[str, dict[str, str]] = {}
        self._build()
        self._bar = lean.HTML(classes="imgfit-colour-bar")
        super().__init__([self.figure, self._bar], classes="imgfit-sky")
        self.view.observe(self._show_window, ["window", "plot_size"])
        self._repaint()

    # -- what it is made of ---------------------------------------------------------------------

    def _build(self) -> None:
        self._scales = {"x": self.view.x_scale, "y": self.view.y_scale}
        blank = palette.encode_png(self._index, self._table)
        self._images = [lean.Image(value=blank, format="png") for _ in range(2)]
        self._image = ImageMark(
            image=self._images[0], scales=self._scales, x=[-0.5, 0.5], y=[-0.5, 0.5], pixelated=True
        )
        self._grid = self._lines(
            ["#9fb3cc"], stroke_width=0.9, opacities=[0.95], line_style="dashed"
        )
        self._curves = self._lines(["#ffffff"], stroke_width=1.7)
        # Dashed and thin: where a source is must never look like how large it is.
        self._uncertainty = self._lines(["#ffffff"], stroke_width=1.4, line_style="dashed")
        self._hatching = self._lines(["#22c55e"], stroke_width=1.1, opacities=[0.9])
        self._box = self._lines(["#ffffff"], stroke_width=1.5, line_style="dashed")
        # Few marks: each one that changes costs the browser a millisecond or two in every step of
        # a drag. So sizes come by a scale, where 1 stands for the default size.
        sized = {**self._scales, "size": LinearScale(min=0.0, max=1.0)}
        self._crosses = Scatter(
            x=_NONE, y=_NONE, size=_NONE, scales=sized, marker="cross", default_size=300
        )
        self._handles = Scatter(
            x=_NONE, y=_NONE, scales=self._scales, marker="square", default_size=80
        )
        for points in (self._crosses, self._handles):
            points.stroke = "#101418"
        self._labels = Label(
            x=_NONE,
            y=_NONE,
            text=np.array([], dtype=str),
            scales=self._scales,
            default_size=12.5,
            x_offset=_OFFSET,
            y_offset=-_OFFSET,
        )
        self._axes = [
            Axis(
                scale=scale,
                orientation=orientation,
                grid_lines="none",
                tick_style=TICK_STYLE,
                label_offset=offset,
                tick_values=np.array([]),
            )
            for scale, orientation, offset in (
                (self.view.x_scale, "horizontal", "32px"),
                (self.view.y_scale, "vertical", "48px"),
            )
        ]
        self._pan = PanZoom(scales={"x": [self.view.x_scale], "y": [self.view.y_scale]})
        self._mouse = MouseInteraction(
            x_scale=self.view.x_scale,
            y_scale=self.view.y_scale,
            next=self._pan,
            events=[*EVENTS, "keydown"],
            move_throttle=25,
            cursor="grab",
        )
        self._mouse.on_msg(self._on_mouse)
        self.figure = Figure(
            marks=[
                self._image,
                self._grid,
                self._hatching,
                self._crosses,
                self._curves,
                self._uncertainty,
                self._handles,
                self._labels,
                self._box,
            ],
            axes=self._axes,
            interaction=self._mouse,
            fig_margin=MARGIN,
            padding_x=0.0,
            padding_y=0.0,
            min_aspect_ratio=0.01,
            max_aspect_ratio=100.0,
            animation_duration=0,
            display_toolbar=False,
            background_style={"fill": "#d7dbe0"},
            layout={"width": "100%", "height": "363px", "min_width": "0"},
        )
        # Tells the kernel how large the page shows the figure.
        self._listener = ViewListener(widget=self.figure)
        self._listener.observe(self._resized, "view_data")

    def _lines(self, colours: list[str], **style: Any) -> Lines:
        return Lines(x=_NOWHERE, y=_NOWHERE, scales=self._scales, colors=colours, **style)

    # -- the map --------------------------------------------------------------------------------

    def set_geom(self, geom: WcsGeom) -> None:
        """Show maps of this geometry from now on; the view goes to the whole map."""
        self.geom = geom
        nx, ny = geom.npix
        self._image.x, self._image.y = [-0.5, nx - 0.5], [-0.5, ny - 0.5]
        self._fit_height()
        if self.leads:
            self.view.set_map((nx, ny))
        self._show_window()

    def show(self, data: FloatArray, cuts: tuple[float, float] | None = None) -> None:
        """Draw values, shape (ny, nx), between new cuts if there are any; NaN is drawn in grey."""
        self.data = np.asarray(data, dtype=float)
        if cuts is not None and cuts != self.cuts:
            self.cuts = cuts  # which draws
            return
        low, high = self.cuts
        self._index = palette.to_index(self.data, low, high, self.stretch)
        self._paint()

    def hatch(self, x: FloatArray, y: FloatArray) -> None:
        """Draw pieces of lines, parted by NaN, over a part of the map; empty arrays draw none."""
        # bqplot complains of a NaN at the end.
        self._set_lines(self._hatching, x[None, :-1], y[None, :-1])

    def value_at(self, x: float, y: float) -> float:
        """The value of the pixel that holds a position; NaN off the map."""
        column, row = round(x), round(y)
        ny, nx = self.data.shape
        return float(self.data[row, column]) if 0 <= row < ny and 0 <= column < nx else float("nan")

    @observe("cuts", "stretch")
    def _recut(self, _: object) -> None:
        self.show(self.data)
        self._draw_bar()

    @observe("colours", "bias", "contrast")
    def _recolour(self, _: object) -> None:
        self.queue.post(self._repaint, newest="colours")

    def _repaint(self) -> None:
        self._table = palette.colour_table(self.colours, self.bias, self.contrast)
        self._paint()
        self._draw_bar()

    def _paint(self) -> None:
        spare = self._images[self._image.image is self._images[0]]
        spare.value = palette.encode_png(self._index, self._table)
        self._image.image = spare

    @observe("bar_label")
    def _draw_bar(self, _: object = None) -> None:
        low, high = self.cuts
        ticks = "".join(
            f'<span style="left:{100 * at:.2f}%">{escape(label)}</span>'
            for at, label in palette.bar_ticks(low, high, self.stretch)
        )
        ramp = palette.gradient(self._table)
        self._bar.value = (
            f'<div class="imgfit-scale-ramp" style="background:{ramp}"></div>'
            f'<div class="imgfit-scale-ticks">{ticks}</div>'
            f'<div class="imgfit-scale-label">{escape(self.bar_label)}</div>'
        )

    # -- size and window ------------------------------------------------------------------------

    @property
    def zoom(self) -> tuple[float, float]:
        """Screen pixels per map pixel along x and y."""
        return self.view.zoom_level

    @property
    def plot_size(self) -> tuple[float, float]:
        """Width and height of the plot in screen pixels."""
        return self.view.plot_size

    def _resized(self, _: object) -> None:
        self.queue.post(self._fit_height, newest="size")

    def _fit_height(self) -> None:
        """Give the figure the height at which the whole map fills it."""
        views = [view for view in self._listener.view_data.values() if view["width"] > 0]
        nx, ny = self.geom.npix if self.geom else (4, 3)
        margins = MARGIN["left"] + MARGIN["right"], MARGIN["top"] + MARGIN["bottom"]
        width = max(float(views[-1]["width"]) - margins[0], 50.0) if views else self.plot_size[0]
        height = float(round(min(max(width * ny / nx, HEIGHTS[0]), HEIGHTS[1])))
        self.figure.layout.height = f"{height + margins[1]:.0f}px"
        if self.leads:
            self.view.set_plot_size(width, height)

    def learn_size(self, pixel: tuple[float, float], domain: tuple[float, float]) -> None:
        """Note that the pointer is over this figure."""
        self.view.active = self.mouse

    @observe("sexagesimal", "grid")
    def _show_window(self, _: object = None) -> None:
        """Ticks and grid follow the window."""
        if self.geom is None:
            return
        window = self.view.window
        n_lon = max(2, int(self.plot_size[0] // (105 if self.sexagesimal else 75)))
        n_lat = max(2, int(self.plot_size[1] // 40))
        ticks = sky_ticks(self.geom, window, n_lon, n_lat, self.sexagesimal)
        names = axis_labels(self.geom.frame)
        for axis, edge, name in zip(self._axes, ticks, names, strict=True):
            self._set_ticks(axis, edge)
            # Labels with seconds of arc take the room of the name of the vertical axis.
            crowded = axis.side == "left" and any(len(tick.label) > LONG_LABEL for tick in edge)
            self._set(axis, label="" if crowded else name)
        x, y = grid_lines(self.geom, window, ticks) if self.grid else (_NONE, _NONE)
        self._set_lines(self._grid, x[None], y[None])
        self._draw_overlays()

    def _set_ticks(self, axis: Axis, ticks: Sequence[Tick]) -> None:
        # The browser looks a label up by its position as JavaScript writes it, and with a delay.
        # So labels go first, in a message of their own, along with those still shown.
        at = [round(tick.at, 3) + 0.0 for tick in ticks]
        labels = {
            f"{x:.3f}".rstrip("0").rstrip("."): tick.label
            for x, tick in zip(at, ticks, strict=True)
        }
        self._set(axis, tick_labels={**self._labelled.get(axis.side, {}), **labels})
        self._set(axis, tick_values=np.array(at))
        self._labelled[axis.side] = labels

    # -- sources --------------------------------------------------------------------------------

    @observe("overlays")
    def _draw_overlays(self, _: object = None) -> None:
        shown: Sequence[Overlay] = self.overlays
        colours = [overlay.colour for overlay in shown]
        curves = [_curves(overlay, self.zoom) for overlay in shown]
        self._set_lines(
            self._curves,
            _stacked([curve[:, 0] for curve in curves]),
            _stacked([curve[:, 1] for curve in curves]),
            colours,
        )
        around = [_joined(overlay.uncertainty) for overlay in shown]
        self._set_lines(
            self._uncertainty,
            _stacked([curve[:, 0] for curve in around]),
            _stacked([curve[:, 1] for curve in around]),
            colours,
        )
        # The selected source gets a larger cross behind its own; a ring would look like a size.
        crosses = [(item.x, item.y, 1.0, "#ffffff") for item in shown if item.selected]
        crosses += [(item.x, item.y, 0.3, item.colour) for item in shown]
        self._set(
            self._crosses,
            x=np.array([cross[0] for cross in crosses]),
            y=np.array([cross[1] for cross in crosses]),
            size=np.array([cross[2] for cross in crosses]),
            colors=[cross[3] for cross in crosses] or ["#ffffff"],
        )
        handles = [(*place, item.colour) for item in shown for _, place in item.further]
        handles += [(*item.handle, item.colour) for item in shown if item.handle is not None]
        self._set(
            self._handles,
            x=np.array([handle[0] for handle in handles]),
            y=np.array([handle[1] for handle in handles]),
            colors=[handle[2] for handle in handles] or ["#ffffff"],
        )
        labels = _apart(
            [label for overlay in shown for label in _labels(overlay, self.zoom)],
            [(x, y) for x, y, _ in handles],
            self.zoom,
        )
        self._set(
            self._labels,
            x=np.array([label[0] for label in labels]),
            y=np.array([label[1] for label in labels]),
            text=np.array([label[2] for label in labels], dtype=str),
            colors=[label[3] for label in labels] or ["#ffffff"],
        )
        if self.view.active is self.mouse:
            self.mouse.rehover()

    def _set_lines(
        self, mark: Lines, x: FloatArray, y: FloatArray, colours: Sequence[str] = ()
    ) -> None:
        if x.size < 2:
            x = y = _NOWHERE
        values: dict[str, Any] = {"x": x, "y": y}
        if colours:
            values["colors"] = list(colours)
        self._set(mark, **values)

    def _set(self, widget: widgets.Widget, **values: Any) -> None:
        """Set traits in one message, and only those that differ from what was sent before."""
        changed = {}
        for name, value in values.items():
            key = (id(widget), name)
            if key not in self._sent or not _same(self._sent[key], value):
                changed[name] = self._sent[key] = value
        if changed:
            with widget.hold_sync():
                for name, value in changed.items():
                    setattr(widget, name, value)

    # -- the mouse ------------------------------------------------------------------------------

    def _on_mouse(self, _: object, event: dict[str, Any], __: object) -> None:
        kind = event.get("event", "")
        newest = kind if kind in ("mousemove", "dragmove") else ""
        self.queue.post(lambda: self.mouse.handle(event), newest)

    def hold(self, held: bool, cursor: str) -> None:
        """Let drags come to the kernel (``held``) or pan the map in the browser."""
        target = None if held else self._pan
        if self._mouse.next is not target:
            self._mouse.next = target
        if self._mouse.cursor != cursor:
            self._mouse.cursor = cursor

    def show_box(self, corners: View | None) -> None:
        """Draw the frame of a box zoom, or take it away."""
        if corners is None:
            self._set_lines(self._box, np.array([[]]), np.array([[]]))
            return
        x_1, x_2, y_1, y_2 = corners
        self._set_lines(
            self._box, np.array([[x_1, x_2, x_2, x_1, x_1]]), np.array([[y_1, y_1, y_2, y_2, y_1]])
        )

    def zoom_to_box(self, corners: View) -> None:
        """Show the part of the map in a box."""
        x_1, x_2, y_1, y_2 = corners
        self.view.set_window((min(x_1, x_2), max(x_1, x_2), min(y_1, y_2), max(y_1, y_2)))

    @observe("mode", "tool")
    def _mode_changed(self, _: object) -> None:
        if not self.mouse.dragging:
            self.mouse.rehover()


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, np.ndarray) and isinstance(new, np.ndarray):
        equal_nan = new.dtype.kind == "f" and old.dtype.kind == "f"
        return old.shape == new.shape and np.array_equal(old, new, equal_nan=equal_nan)
    return bool(old == new)


def _stacked(curves: Sequence[FloatArray]) -> FloatArray:
    """Curves as the rows of an array, filled up with their last points."""
    length = max([len(curve) for curve in curves], default=2)
    rows = [np.pad(curve, (0, length - len(curve)), mode="edge") for curve in curves]
    return np.array(rows) if rows else _NOWHERE


def _joined(outlines: Sequence[Outline]) -> FloatArray:
    """Curves one after the other, parted by NaN, after a point that draws nothing; (n, 2)."""
    parts = [np.zeros((2, 2))]
    for outline in outlines:
        parts += [np.full((1, 2), np.nan), np.column_stack([outline.x, outline.y])]
    return np.concatenate(parts)


def _curves(overlay: Overlay, zoom: tuple[float, float]) -> FloatArray:
    """Outlines of a source, and its position errors as bars with caps of 7 screen pixels.

    Shape (n, 2), curves parted by NaN. A point that draws nothing comes first, and no NaN last:
    bqplot complains of curves that are empty or end in NaN.
    """
    gap = np.full((1, 2), np.nan)
    parts = [_joined(overlay.outlines)]
    for start, end in overlay.errors:
        along = (end - start) * zoom
        length = float(np.hypot(*along))
        if length > 0.0:
            cap = 3.5 * np.array([-along[1], along[0]]) / length / zoom
            for centre, half in (
                (start, cap),
                (end, cap),
                (0.5 * (start + end), 0.5 * (end - start)),
            ):
                parts += [gap, np.array([centre - half, centre + half])]
    return np.concatenate(parts)


Words = tuple[float, float, str, str]
"""Place, words and colour."""


def _apart(
    labels: Sequence[Words], handles: Sequence[tuple[float, float]], zoom: tuple[float, float]
) -> list[Words]:
    """Labels, each below the handles and those before it that it would cover."""
    found: list[Words] = []
    # A handle takes the room of a letter that is written on it.
    taken = [
        (x - (_OFFSET + 0.5 * _LETTER) / zoom[0], y - (_OFFSET + 0.3 * _LINE) / zoom[1], 1)
        for x, y in handles
    ]
    for x, y, words, colour in labels:
        for _ in range(len(taken) + 1):
            covered = [
                at_y
                for at_x, at_y, letters in taken
                if -_LETTER * letters < (at_x - x) * zoom[0] < _LETTER * len(words)
                and abs(at_y - y) * zoom[1] < 0.99 * _LINE
            ]
            if not covered:
                break
            y = min(covered) - _LINE / zoom[1]
        found.append((x, y, words, colour))
        taken.append((x, y, len(words)))
    return found


def _labels(overlay: Overlay, zoom: tuple[float, float]) -> list[Words]:
    """A source's name, and what each of its curves means."""
    labels = [(overlay.x, overlay.y, overlay.name, overlay.colour)]
    named = [outline for outline in overlay.outlines if outline.label]
    large = [outline for outline in named if np.ptp(outline.x) * zoom[0] > 40.0]
    for curves in (large, overlay.uncertainty):
        for number, outline in enumerate(curves):
            if np.ptp(outline.x) * zoom[0] > 40.0:
                # The second one of nested curves at its other end, clear of the first one's.
                if number % 2:
                    at, lower = int(np.nanargmin(outline.y - 0.5 * outline.x)), 18.0 / zoom[1]
                else:
                    at, lower = int(np.nanargmax(outline.y - 0.5 * outline.x)), 0.0
                place = outline.x[at], outline.y[at] - lower
                labels.append((*place, outline.label, overlay.colour))
    small = [outline for outline in named if np.ptp(outline.x) * zoom[0] <= 40.0]
    if small:  # below them, clear of the name; the mark shifts all labels by (10, -10) pixels
        below = min(float(np.nanmin(outline.y)) for outline in small) - 25.0 / zoom[1]
        words = ", ".join(outline.label for outline in small)
        labels.append((overlay.x - 18.0 / zoom[0], below, words, overlay.colour))
    for bar in overlay.errors[-1:]:
        if np.ptp(bar[:, 1]) * zoom[1] > 60.0:
            x, y = bar[int(np.argmin(bar[:, 1]))]
            labels.append((x, y, "±1σ position", overlay.colour))
    return labels
