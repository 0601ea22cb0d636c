"""Small charts: the histogram of a map with its two cuts, to be set by number or by slider."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets
import numpy as np
from bqplot import Axis, Figure, LinearScale, Lines
from numpy.typing import ArrayLike, NDArray
from traitlets import Float, Tuple, Unicode, observe

from .palette import nice_step, separate

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
