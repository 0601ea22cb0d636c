"""Small charts: the histogram behind the cuts, the statistic during a fit, a likelihood profile.

`CutEditor`
    Histogram of a map with its two cuts, to be set by number or by slider.
`TraceChart`
    A quantity that grows point by point, such as the fit statistic against evaluations.
`ProfileChart`
    The statistic against one parameter, with the value and its errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets
import numpy as np
from bqplot import Axis, Figure, LinearScale, Lines
from numpy.typing import ArrayLike, NDArray
from traitlets import Float, Tuple, Unicode, observe

from .palette import nice_step, number, separate

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


class CutEditor(widgets.VBox):
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
        self.low = widgets.FloatText(description="from", style=style, layout={"width": "130px"})
        self.high = widgets.FloatText(description="to", style=style, layout={"width": "130px"})
        self.slider = widgets.FloatRangeSlider(
            readout=False, continuous_update=True, layout={"width": "auto", "flex": "1 1 120px"}
        )
        self._range = (0.0, 1.0)
        self._before: tuple[float, float] | None = None
        super().__init__(
            [figure, widgets.HBox([self.low, self.slider, self.high]).add_class("imgfit-row")]
        )
        self.add_class("imgfit-cuts")
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
        if self.low.value < self.high.value:
            self.cuts = (self.low.value, self.high.value)

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


class TraceChart(widgets.VBox):
    """A curve that grows: add points while something runs."""

    def __init__(
        self, x_label: str = "evaluations", y_label: str = "statistic", height: int = 150
    ) -> None:
        self._x, self._y = LinearScale(), LinearScale()
        self.line = Lines(
            x=_NOTHING,
            y=_NOTHING,
            scales={"x": self._x, "y": self._y},
            colors=[ACCENT],
            stroke_width=1.8,
        )
        self._points: list[tuple[float, float]] = []
        axes = _axes(self._x, self._y, x_label, y_label)
        super().__init__([_figure([self.line], axes, height, left=64)])
        axes[1].label_offset = "54px"
        self.add_class("imgfit-trace")

    def clear(self) -> None:
        """Start anew."""
        self._points = []
        self._draw(_NOTHING, _NOTHING)

    def add(self, x: float, y: float) -> None:
        """Add a point; one that is not finite is left out."""
        if np.isfinite(x) and np.isfinite(y):
            self._points.append((float(x), float(y)))
            points = np.array(self._points)
            self._draw(points[:, 0], points[:, 1])

    def _draw(self, x: FloatArray, y: FloatArray) -> None:
        with self.line.hold_sync():
            self.line.x, self.line.y = x, y


class ProfileChart(widgets.VBox):
    """ΔTS against one parameter, its best value, and the values where it has risen by 1."""

    def __init__(self, height: int = 190) -> None:
        self._x, self._y = LinearScale(), LinearScale(min=0.0)
        scales = {"x": self._x, "y": self._y}
        self.curve = Lines(x=_NOTHING, y=_NOTHING, scales=scales, colors=[ACCENT], stroke_width=1.8)
        self.best = Lines(
            x=_NOTHING, y=_NOTHING, scales=scales, colors=[MUTED], line_style="dashed"
        )
        self.level = Lines(x=_NOTHING, y=_NOTHING, scales=scales, colors=[MUTED], stroke_width=1.0)
        self._axes = _axes(self._x, self._y, "", "ΔTS")
        super().__init__([_figure([self.level, self.best, self.curve], self._axes, height)])
        self.add_class("imgfit-profile")

    def show(
        self,
        x: ArrayLike,
        delta_ts: ArrayLike,
        best: float,
        errors: tuple[float, float] | None = None,
        label: str = "",
    ) -> None:
        """Draw a profile.

        Parameters
        ----------
        x, delta_ts : array_like
            Parameter values, and the statistic above its minimum there.
        best : float
            The value at the minimum.
        errors : (float, float), optional
            Its errors downwards and upwards, both positive.
        label : str
            Name and unit of the parameter.
        """
        values, height = np.asarray(x, dtype=float), np.asarray(delta_ts, dtype=float)
        top = float(np.nanmax(height, initial=1.0))
        at = [best] if errors is None else [best - errors[0], best, best + errors[1]]
        with self.curve.hold_sync():
            self.curve.x, self.curve.y = values, height
        with self.level.hold_sync():
            self.level.x, self.level.y = np.array([values.min(), values.max()]), np.ones(2)
        rises = [[[place, place], [0.0, top]] for place in at]
        gap = np.array([[np.nan], [np.nan]])
        parts = [part for rise in rises for part in (gap, np.array(rise))][1:]
        joined = np.concatenate(parts, axis=1)
        with self.best.hold_sync():
            self.best.x, self.best.y = joined
        self._axes[0].label = label or number(best)
