"""Small charts: a map's histogram with its cuts, a profile of the statistic, contours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from bqplot import Axis, Figure, LinearScale, Lines, Scatter
from numpy.typing import ArrayLike, NDArray
from traitlets import Float, Tuple, Unicode, observe

from ..core.profile import Contour, StatProfile
from . import lean
from .lean import show
from .numbers import unit_text
from .palette import nice_step, separate
from .style import row, text

FloatArray = NDArray[np.float64]

ACCENT, LIGHT, MUTED = "#2563eb", "#93c5fd", "#94a3b8"
N_BINS = 80
TICKS = {"font-size": "10.5px"}
# A curve that draws nothing; bqplot complains of one without points.
_NOTHING = np.zeros(2)


def _figure(marks: Sequence[Any], axes: Sequence[Axis], height: int, left: int = 48) -> Figure:
    figure = Figure(
        marks=list(marks),
        axes=list(axes),
        fig_margin={"top": 8, "bottom": 36, "left": left, "right": 10},
        padding_x=0.0,
        padding_y=0.03,
        min_aspect_ratio=0.01,
        max_aspect_ratio=100.0,
        animation_duration=0,
        display_toolbar=False,
        background_style={"fill": "#ffffff"},
        layout={"width": "100%", "height": f"{height}px", "min_width": "0"},
    )
    return figure.add_class("imgfit-chart")


def _axes(x: LinearScale, y: LinearScale, x_label: str, y_label: str) -> list[Axis]:
    common = {"grid_lines": "none", "tick_style": TICKS, "num_ticks": 5, "tick_format": "~g"}
    return [
        Axis(scale=x, label=x_label, label_offset="30px", **common),
        Axis(scale=y, orientation="vertical", label=y_label, label_offset="38px", **common),
    ]


def _round_values(low: float, high: float, number: int) -> FloatArray:
    """About ``number`` round values in a range."""
    if not high > low:
        return np.array([low])
    step = nice_step((high - low) / number)
    first, last = int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9))
    # Through their decimal form, so that 0.3 is not 0.30000000000000004 on the screen.
    return np.array([float(f"{index * step:.6g}") for index in range(first, last + 1)])


class CutEditor(lean.VBox):
    """The histogram of a map's values, on a logarithmic scale, and its two cuts.

    ``cuts`` is (low, high); it can be linked to a `SkyFigure`'s trait of the same name.
    ``label`` says of what the values are.
    """

    cuts = Tuple(Float(), Float(), default_value=(0.0, 1.0))
    label = Unicode()

    def __init__(self) -> None:
        self._x, self._y = LinearScale(), LinearScale(min=0.0)
        scales = {"x": self._x, "y": self._y}
        self.bars = Lines(
            x=_NOTHING,
            y=_NOTHING,
            scales=scales,
            interpolation="step-after",
            colors=[ACCENT],
            fill="bottom",
            fill_colors=[LIGHT],
            fill_opacities=[0.6],
            stroke_width=1.0,
        )
        self.marker = Lines(x=_NOTHING, y=_NOTHING, scales=scales, colors=["#dc2626"])
        self._axes = _axes(self._x, self._y, "", "log₁₀ (1 + pixels)")
        figure = _figure([self.bars, self.marker], self._axes, 140, left=56)
        style = {"description_width": "initial"}
        self.low = lean.FloatText(description="from", style=style, layout={"width": "130px"})
        self.high = lean.FloatText(description="to", style=style, layout={"width": "130px"})
        self.slider = lean.FloatRangeSlider(
            readout=False, continuous_update=True, layout={"width": "auto", "flex": "1 1 120px"}
        )
        self._range = (0.0, 1.0)
        self._before: tuple[float, float] | None = None
        self.reason = text(classes="imgfit-reason imgfit-failed")
        show(self.reason, False)
        super().__init__(
            [figure, row(self.low, self.slider, self.high), self.reason], classes="imgfit-cuts"
        )
        self._show_cuts()
        self.low.observe(self._typed, "value")
        self.high.observe(self._typed, "value")
        self.slider.observe(self._slid, "value")

    def show(self, data: ArrayLike, cuts: tuple[float, float] | None = None) -> None:
        """Draw the histogram of the finite values of a map, and new cuts if there are any."""
        values = np.asarray(data, dtype=float)
        values = values[np.isfinite(values)]
        if not values.size:
            return
        self._range = separate(float(values.min()), float(values.max()))
        counts, edges = np.histogram(values, bins=N_BINS, range=self._range)
        with self.bars.hold_sync():
            self.bars.x = edges
            self.bars.y = np.log10(1.0 + np.append(counts, counts[-1]))
        if cuts is None or cuts == self.cuts:
            self._show_cuts()
        else:
            self.cuts = cuts  # which draws

    @observe("label")
    def _show_label(self, _: object) -> None:
        self._axes[0].label = self.label

    @observe("cuts")
    def _show_cuts(self, _: object = None) -> None:
        low, high = self.cuts
        bottom, top = min(low, self._range[0]), max(high, self._range[1])
        y_max = float(np.max(self.bars.y)) or 1.0
        with self.marker.hold_sync():
            self.marker.x = np.array([low, low, np.nan, high, high])
            self.marker.y = np.array([0.0, y_max, np.nan, y_max, 0.0])
        self._x.min, self._x.max = bottom, top
        self._axes[0].tick_values = _round_values(bottom, top, 10)
        self._axes[1].tick_values = _round_values(0.0, y_max, 4)
        # The observers find the cuts already as they say, so nothing comes back.
        self.low.value, self.high.value = low, high
        if (bottom, top) != (self.slider.min, self.slider.max):
            self._before = self.slider.value
        with self.slider.hold_sync(), self.slider.hold_trait_notifications():
            if bottom < self.slider.max:
                self.slider.min, self.slider.max = bottom, top
            else:
                self.slider.max, self.slider.min = top, bottom
            self.slider.step = (top - bottom) / 500.0
            self.slider.value = (low, high)

    def _typed(self, _: object) -> None:
        low, high = self.low.value, self.high.value
        fits = low < high
        self.reason.value = "" if fits else f"from {low:g}: expected less than {high:g}"
        show(self.reason, not fits)
        if fits:
            self.cuts = (low, high)

    def _slid(self, _: object) -> None:
        low, high = self.slider.value
        step = self.slider.step
        if self._before and all(
            min(abs(end - old), abs(end - new)) <= step
            for end, old, new in zip((low, high), self._before, self.cuts, strict=True)
        ):
            # The browser answers a new range with the ends that it had before.
            self.slider.value = self.cuts
            return
        self._before = None
        # A slider knows only its own steps: a cut set by number stays as it is until it is moved.
        low = self.cuts[0] if abs(low - self.cuts[0]) < step else float(f"{low:.4g}")
        high = self.cuts[1] if abs(high - self.cuts[1]) < step else float(f"{high:.4g}")
        if low < high:
            self.cuts = (low, high)


class ProfileChart(lean.VBox):
    """The rise of the statistic along a parameter, with lines where it has risen by 1 and 4."""

    def __init__(self) -> None:
        self._x, self._y = LinearScale(), LinearScale(min=0.0)
        scales = {"x": self._x, "y": self._y}
        self.line = Lines(
            x=_NOTHING, y=_NOTHING, scales=scales, colors=[ACCENT], marker="circle", marker_size=20
        )
        self.levels = Lines(
            x=_NOTHING, y=_NOTHING, scales=scales, colors=[MUTED], line_style="dashed"
        )
        self._axes = _axes(self._x, self._y, "", "rise")
        super().__init__(
            [_figure([self.levels, self.line], self._axes, 170)], classes="imgfit-profile"
        )

    def draw(self, profile: StatProfile) -> None:
        """Show a profile; points where the others found no minimum are left out."""
        seen = np.isfinite(profile.stat)
        if np.count_nonzero(seen) < 2:
            return
        x, y = profile.values[seen], profile.delta[seen]
        low, high = float(x.min()), float(x.max())
        _set(self._axes[0], label=_label(profile.name, profile.unit))
        _ticks(self._axes, (low, high), (0.0, float(max(y.max(), 4.5))), (self._x, self._y))
        with self.line.hold_sync():
            self.line.x, self.line.y = x, y
        with self.levels.hold_sync():
            self.levels.x = np.array([low, high, np.nan, low, high])
            self.levels.y = np.array([1.0, 1.0, np.nan, 4.0, 4.0])


class ContourChart(lean.VBox):
    """Closed lines of two parameters around the minimum, which is marked."""

    def __init__(self) -> None:
        self._x, self._y = LinearScale(), LinearScale()
        scales = {"x": self._x, "y": self._y}
        self.lines = Lines(x=_NOTHING, y=_NOTHING, scales=scales, colors=[ACCENT, LIGHT])
        self.best = Scatter(
            x=_NOTHING, y=_NOTHING, scales=scales, colors=[ACCENT], marker="cross", default_size=48
        )
        self._axes = _axes(self._x, self._y, "", "")
        self._axes[1].label_offset = "50px"  # clear of numbers such as -0.2345
        self.figure = _figure([self.lines, self.best], self._axes, 230, left=74)
        super().__init__([self.figure], classes="imgfit-contour")

    def draw(self, contours: Sequence[Contour]) -> None:
        """Show contours of one pair of parameters."""
        length = max(len(line.x) for line in contours)
        x, y = (
            np.array(
                [np.pad(getattr(c, name), (0, length - len(c.x)), mode="edge") for c in contours]
            )
            for name in ("x", "y")
        )
        seen = np.isfinite(x) & np.isfinite(y)
        if np.count_nonzero(seen) < 2:
            return
        first = contours[0]
        for axis, (_, name), unit in zip(self._axes, first.names, first.units, strict=True):
            _set(axis, label=_label(name, unit))
        # East is left, as on the maps.
        self._x.reverse = first.names[0][1] == "lon_0"
        spans = [(float(v[seen].min()), float(v[seen].max())) for v in (x, y)]
        wide_x, wide_y = ((a - 0.08 * (b - a), b + 0.08 * (b - a)) for a, b in spans)
        _ticks(self._axes, wide_x, wide_y, (self._x, self._y))
        with self.lines.hold_sync():
            self.lines.x, self.lines.y = x, y
        with self.best.hold_sync():
            self.best.x, self.best.y = (np.array([value]) for value in first.minimum)


def _label(name: str, unit: str) -> str:
    """An axis's label."""
    return f"{name} ({unit_text(unit)})" if unit_text(unit) else name


def _ticks(
    axes: Sequence[Axis],
    x: tuple[float, float],
    y: tuple[float, float],
    scales: tuple[LinearScale, LinearScale],
) -> None:
    """Ranges with round ticks; long numbers get fewer of them."""
    for axis, (low, high), scale in zip(axes, (x, y), scales, strict=True):
        with scale.hold_sync():
            scale.min, scale.max = low, high
        values = _round_values(low, high, 5 if axis.orientation == "vertical" else 4)
        axis.tick_values = values


def _set(axis: Axis, **values: Any) -> None:
    for name, value in values.items():
        if getattr(axis, name) != value:
            setattr(axis, name, value)
