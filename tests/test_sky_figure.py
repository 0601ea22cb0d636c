"""The map on the screen, without a browser: colours, ticks, gestures, events, figure."""

from __future__ import annotations

import asyncio
import io
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from imgfit_widgets.core.maps import WcsGeom
from imgfit_widgets.task import Owner
from imgfit_widgets.widgets import palette
from imgfit_widgets.widgets.charts import CutEditor
from imgfit_widgets.widgets.events import EventQueue
from imgfit_widgets.widgets.gestures import Hit, Outline, Overlay, hit_test
from imgfit_widgets.widgets.sky_figure import SkyFigure
from imgfit_widgets.widgets.sky_ticks import (
    format_degrees,
    format_sexagesimal,
    grid_lines,
    sky_ticks,
)

WHOLE = (-0.5, 399.5, -0.5, 299.5)


@pytest.fixture
def geom():
    return WcsGeom.create((0.0, 0.0), (8.0, 6.0), 0.02, proj="CAR", frame="galactic")


class Log:
    """A listener that writes down what it is told."""

    def __init__(self) -> None:
        self.calls = []
        self.hovers = []

    def hover(self, x, y):
        self.hovers.append((x, y))

    def __getattr__(self, name):
        return lambda *args: self.calls.append((name, *args))

    @property
    def names(self):
        return [call[0] for call in self.calls]


def decoded(png: bytes) -> np.ndarray:
    """The colours of a PNG, shape (ny, nx, 3), row 0 at the bottom, as Pillow reads them."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))[::-1]


# -- colours


def test_png_shows_each_value_in_its_colour_and_nan_in_grey():
    data = np.array([[0.0, 1.0, 2.0], [4.0, np.nan, 99.0]])
    table = palette.colour_table("gray")
    picture = decoded(palette.encode_png(palette.to_index(data, 0.0, 4.0), table))
    levels = picture[..., 0]
    assert levels.tolist()[0] == [0, 64, 128]
    assert levels[1, 0] == levels[1, 2] == 255
    assert tuple(picture[1, 1]) == palette.BLANK_COLOUR


@pytest.mark.parametrize("name", ["inferno", "viridis", "magma", "cividis"])
def test_colour_maps_are_those_of_matplotlib(name):
    import matplotlib

    expected = 255 * matplotlib.colormaps[name](np.linspace(0, 1, palette.N_COLOURS))[:, :3]
    assert np.abs(palette.colour_table(name)[:-1] - expected).max() < 11


def test_bias_moves_and_contrast_steepens_the_colours():
    plain = palette.colour_table("gray")[:-1, 0].astype(int)
    brighter = palette.colour_table("gray", bias=0.25)[:-1, 0].astype(int)
    steeper = palette.colour_table("gray", contrast=2.0)[:-1, 0].astype(int)
    assert brighter[64] == pytest.approx(plain[127], abs=2)
    assert (steeper[0], steeper[127], steeper[-1]) == (0, pytest.approx(128, abs=2), 255)
    assert np.flatnonzero(steeper > 0)[0] == pytest.approx(64, abs=2)


@pytest.mark.parametrize("kind", palette.STRETCHES)
def test_stretches_rise_from_0_to_1_and_are_inverted(kind):
    values = np.linspace(-3.0, 12.0, 31)
    position = palette.stretch(values, -3.0, 12.0, kind)
    assert position[0] == 0.0 and position[-1] == pytest.approx(1.0)
    assert np.all(np.diff(position) > 0)
    np.testing.assert_allclose(palette.unstretch(position, -3.0, 12.0, kind), values, atol=1e-12)
    assert np.isnan(palette.stretch(np.nan, 0.0, 1.0, kind))


def test_log_and_sqrt_lift_faint_values():
    assert palette.stretch(0.25, 0.0, 1.0, "sqrt") == pytest.approx(0.5)
    assert palette.stretch(0.01, 0.0, 1.0, "log") == pytest.approx(np.log(11) / np.log(1001))


def test_cuts_ignore_nan_and_can_centre_on_zero():
    data = np.array([np.nan, -2.0, 0.0, 1.0, 10.0, np.inf])
    assert palette.cut_levels(data) == (-2.0, 10.0)
    assert palette.cut_levels(data, symmetric=True) == (-10.0, 10.0)
    low, high = palette.cut_levels(np.arange(1001.0), 99.0)
    assert (low, high) == (pytest.approx(5.0), pytest.approx(995.0))


@pytest.mark.parametrize("data", [[np.nan], [3.0, 3.0], [0.0], [-1e-12, -1e-12], [1.87e10]])
def test_cuts_of_an_empty_or_flat_map_are_apart(data):
    low, high = palette.cut_levels(data)
    assert low < high


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [(0, 85, "log"), (-5, 5, "linear"), (1.57e8, 1.87e10, "sqrt"), (0, 3.2e-3, "asinh")],
)
def test_bar_ticks_stand_at_their_values_and_apart(low, high, kind):
    ticks = palette.bar_ticks(low, high, kind)
    positions = np.array([at for at, _ in ticks])
    values = [float(label.replace("\N{MINUS SIGN}", "-")) for _, label in ticks]
    assert positions[0] == 0.0 and positions[-1] == 1.0
    assert np.diff(positions).min() > 0.13
    np.testing.assert_allclose(palette.stretch(values, low, high, kind), positions, atol=0.01)


# -- ticks


def test_ticks_stand_where_the_wcs_says_with_east_to_the_left(geom):
    ticks = sky_ticks(geom, WHOLE)
    assert [tick.label for tick in ticks.lon] == ["4°", "2°", "0°", "358°", "356°"]
    for tick in ticks.lon:
        assert geom.lonlat_to_pix(tick.value, -3.0)[0] == pytest.approx(tick.at, abs=1e-6)
    for tick in ticks.lat:
        assert geom.lonlat_to_pix(4.0, tick.value)[1] == pytest.approx(tick.at, abs=1e-6)


@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_a_small_map_still_has_two_ticks_on_each_edge(geom, wanted):
    ticks = sky_ticks(geom, WHOLE, wanted, wanted)
    assert 2 <= len(ticks.lon) <= 5 and 2 <= len(ticks.lat) <= 5


def test_ticks_get_finer_with_zoom(geom):
    ticks = sky_ticks(geom, (195.0, 205.0, 145.0, 152.5))
    assert [tick.label for tick in ticks.lon] == ["0.05°", "0.00°", "359.95°", "359.90°"]


def test_ticks_follow_curved_coordinates():
    geom = WcsGeom.create((83.63, 70.0), (10.0, 8.0), 0.05, proj="TAN", frame="icrs")
    ticks = sky_ticks(geom, (-0.5, 199.5, -0.5, 159.5), sexagesimal=True)
    assert {tick.label[-1] for tick in ticks.lon} <= {"h", "m"}
    for tick in ticks.lon:
        lon, _ = geom.pix_to_lonlat(tick.at, -0.5)
        assert float(lon) == pytest.approx(tick.value, abs=2e-3)


def test_labels_in_degrees_and_sexagesimal():
    assert format_degrees(-0.25, 0.05) == "\N{MINUS SIGN}0.25°"
    assert format_degrees(359.9999, 0.1, longitude=True) == "0.0°"
    assert format_sexagesimal(266.4168, True, 1e-3) == "17h45m40.0s"
    assert format_sexagesimal(-29.0078, False, 1e-3) == "\N{MINUS SIGN}29°00′28″"
    assert format_sexagesimal(-0.0001, False, 1.0) == "0°"


def test_grid_lines_keep_their_coordinate(geom):
    ticks = sky_ticks(geom, WHOLE)
    x, y = grid_lines(geom, WHOLE, ticks)
    assert np.isfinite([x[0], x[-1], y[0], y[-1]]).all()
    lon, lat = geom.pix_to_lonlat(x[:65], y[:65])
    assert np.ptp(lon) < 1e-9 and np.ptp(lat) > 5.9


# -- gestures


def overlay(name, x, y, **traits):
    return Overlay(name, x, y, "#22d3ee", **traits)


def test_hits_are_measured_on_the_screen():
    sources = (overlay("a", 100.0, 100.0), overlay("b", 110.0, 100.0))
    assert hit_test(sources, 103.0, 100.0, (1.0, 1.0)) == Hit("a", "source")
    assert hit_test(sources, 107.0, 100.0, (1.0, 1.0)) == Hit("b", "source")
    assert hit_test(sources, 105.0, 100.0, (20.0, 20.0)) is None
    assert hit_test(sources, 100.0, 95.0, (1.0, 2.0)) is None


def test_the_selected_of_two_sources_on_one_spot_is_held_on_to():
    sources = (overlay("a", 1.0, 1.0), overlay("b", 1.0, 1.0, selected=True))
    assert hit_test(sources, 1.0, 1.0, (10.0, 10.0)) == Hit("b", "source")


def test_a_handle_comes_before_its_own_centre():
    source = overlay("a", 10.0, 10.0, selected=True, handle=(11.0, 10.0))
    assert hit_test((source,), 10.6, 10.0, (8.0, 8.0)) == Hit("a", "handle")
    assert hit_test((source,), 10.0, 10.0, (8.0, 8.0)) == Hit("a", "source")


@pytest.fixture
def scene(geom):
    """A figure of one screen pixel per map pixel, and what its listener hears."""
    log = Log()
    figure = SkyFigure(listener=log)
    figure.set_geom(geom)
    figure.view.set_plot_size(400.0, 300.0)
    figure.show(np.arange(120000.0).reshape(300, 400))
    figure.overlays = (overlay("a", 200.0, 150.0, selected=True, handle=(240.0, 150.0)),)

    def send(kind, x=0.0, y=0.0, **more):
        event = {
            "event": kind,
            "pixel": {"x": x + 0.5, "y": 299.5 - y},
            "domain": {"x": x, "y": y},
            **more,
        }
        figure._mouse._handle_custom_msg(event, None)

    return SimpleNamespace(figure=figure, log=log, send=send)


def test_a_click_says_what_it_hit(scene):
    scene.send("click", 201.0, 150.0)
    scene.send("click", 20.0, 30.0)
    assert scene.log.calls == [
        ("click", 201.0, 150.0, Hit("a", "source")),
        ("click", 20.0, 30.0, None),
    ]


def test_panning_is_off_only_over_what_can_be_dragged(scene):
    figure = scene.figure
    scene.send("mousemove", 200.0, 150.0)
    assert figure._mouse.next is figure._pan and figure._mouse.cursor == "pointer"
    figure.mode = "edit"
    assert figure._mouse.next is None and figure._mouse.cursor == "move"
    scene.send("mousemove", 100.0, 150.0)
    assert figure._mouse.next is figure._pan
    assert (100.0, 150.0) in scene.log.hovers


def test_a_source_follows_the_hand_from_where_it_was_taken(scene):
    scene.figure.mode = "edit"
    scene.send("dragstart", 202.0, 151.0)
    scene.send("dragmove", 203.0, 151.0)
    scene.send("dragmove", 222.0, 161.0)
    scene.send("dragend", 222.0, 161.0)
    hit = Hit("a", "source")
    assert scene.log.names == ["drag_start", "drag", "drag", "drag_end"]
    assert scene.log.calls[1] == ("drag", hit, 220.0, 160.0)


def test_a_handle_is_dragged_as_a_handle(scene):
    scene.figure.mode = "add"
    scene.send("dragstart", 240.0, 150.0)
    scene.send("dragmove", 260.0, 150.0)
    assert scene.log.calls[0] == ("drag_start", Hit("a", "handle"))
    assert scene.log.calls[1] == ("drag", Hit("a", "handle"), 260.0, 150.0)


def test_a_click_of_a_moving_hand_is_a_click(scene):
    scene.figure.mode = "edit"
    scene.send("dragstart", 200.0, 150.0)
    scene.send("dragmove", 202.0, 151.0)
    scene.send("dragend", 202.0, 151.0)
    assert scene.log.calls == [("click", 200.0, 150.0, Hit("a", "source"))]


def test_a_press_without_any_move_is_left_to_the_click_that_follows(scene):
    scene.figure.mode = "edit"
    scene.send("dragstart", 200.0, 150.0)
    scene.send("dragend", 200.0, 150.0)
    assert scene.log.calls == []


def test_a_pan_shorter_than_a_click_is_a_click_and_is_taken_back(scene):
    view = scene.figure.view
    before = view.window
    scene.send("mousemove", 50.0, 60.0)
    view.x_scale.min, view.x_scale.max = view.x_scale.min - 2.0, view.x_scale.max - 2.0
    assert view.window != before
    view._changed_at -= 1.0
    view._settle()
    assert view.window == before
    assert scene.log.calls[-1] == ("click", 50.0, 60.0, None)


def test_a_real_pan_stays(scene):
    view = scene.figure.view
    scene.send("mousemove", 50.0, 60.0)
    view.x_scale.min, view.x_scale.max = view.x_scale.min - 30.0, view.x_scale.max - 30.0
    view._changed_at -= 1.0
    view._settle()
    assert view.window[0] == pytest.approx(-30.5)
    assert "click" not in scene.log.names


def test_box_zoom_shows_the_box_in_square_pixels(scene):
    figure = scene.figure
    figure.tool = "box"
    scene.send("dragstart", 100.0, 100.0)
    scene.send("dragmove", 140.0, 110.0)
    assert np.ptp(figure._box.x) == pytest.approx(40.0)
    scene.send("dragend", 140.0, 110.0)
    x_low, x_high, y_low, y_high = figure.view.window
    assert (x_low, x_high) == (pytest.approx(100.0), pytest.approx(140.0))
    assert (y_low + y_high) / 2 == pytest.approx(105.0)
    assert y_high - y_low == pytest.approx(30.0)
    assert figure.tool == "" and scene.log.calls == []


def test_right_button_changes_contrast_until_a_click(scene):
    figure = scene.figure
    scene.send("contextmenu", 200.0, 150.0, button=2)
    scene.send("mousemove", 240.0, 180.0)
    assert figure.bias == pytest.approx(0.6)
    assert figure.contrast == pytest.approx(np.exp(0.3))
    scene.send("click", 240.0, 180.0)
    scene.send("mousemove", 300.0, 180.0)
    assert figure.bias == pytest.approx(0.6) and "click" not in scene.log.names
    scene.send("dblclick", 300.0, 180.0)
    assert (figure.bias, figure.contrast) == (0.5, 1.0)


@pytest.mark.parametrize("end", ["rest", "leave", "press"])
def test_the_release_of_the_right_button_is_not_told_so_a_rest_or_a_leave_ends_it(
    scene, monkeypatch, end
):
    now = [0.0]
    monkeypatch.setattr("imgfit_widgets.widgets.gestures.time.monotonic", lambda: now[0])
    scene.send("contextmenu", 200.0, 150.0, button=2)
    for step in (1, 2):
        now[0] += 0.3
        scene.send("mousemove", 200.0 + 20 * step, 150.0)
    assert scene.figure.bias == pytest.approx(0.6)
    if end == "rest":
        now[0] += 0.5
    elif end == "leave":
        scene.figure._mouse._handle_custom_msg({"event": "mouseleave"}, None)
    else:
        scene.send("dragstart", 240.0, 150.0)
        scene.send("dragend", 240.0, 150.0)
    for x in (300.0, 310.0):
        scene.send("mousemove", x, 150.0)
    assert scene.figure.bias == pytest.approx(0.6)
    scene.send("click", 310.0, 150.0)
    assert scene.log.names[-1] == "click", "which is no longer the one that ends it"


def test_the_pointer_is_told_in_a_drag_too(scene):
    scene.figure.mode = "edit"
    scene.send("dragstart", 200.0, 150.0)
    scene.send("dragmove", 222.0, 161.0)
    assert scene.log.hovers[-1] == (222.0, 161.0)


def test_keys_reach_the_listener_with_their_modifiers(scene):
    for key in (
        {"key": "Delete"},
        {"key": "z", "ctrlKey": True},
        {"key": "Z", "ctrlKey": True},
        {"key": "ArrowLeft"},
    ):
        scene.send("keydown", **key)
    assert [call[1] for call in scene.log.calls] == [
        "Delete",
        "Ctrl-Z",
        "Ctrl-Shift-Z",
        "ArrowLeft",
    ]


def test_escape_ends_the_drag_that_it_interrupts(scene):
    scene.figure.mode = "edit"
    scene.send("dragstart", 200.0, 150.0)
    scene.send("dragmove", 222.0, 161.0)
    scene.send("keydown", key="Escape")
    scene.send("dragmove", 230.0, 165.0)
    scene.send("dragend", 230.0, 165.0)
    assert scene.log.names == ["drag_start", "drag", "drag_cancel"]


def test_a_drag_whose_end_was_lost_ends_with_the_next(scene):
    scene.figure.mode = "edit"
    scene.send("dragstart", 200.0, 150.0)
    scene.send("dragmove", 222.0, 161.0)
    scene.send("dragstart", 20.0, 20.0)
    assert scene.log.names == ["drag_start", "drag", "drag_end"]


def test_escape_first_lays_a_tool_down(scene):
    scene.figure.tool = "contrast"
    scene.send("keydown", key="Escape")
    assert scene.figure.tool == "" and scene.log.calls == []
    scene.send("keydown", key="Escape")
    assert scene.log.calls == [("key", "Escape")]


# -- events


def test_stale_moves_are_dropped_and_order_is_kept():
    seen = []

    async def play():
        queue = EventQueue(Owner())

        def act(what):
            seen.append(what)
            time.sleep(0.004)

        queue.post(lambda: act("start"))
        for step in range(50):
            queue.post(lambda step=step: act(step), newest="move")
        queue.post(lambda: act("end"))
        queue.post(lambda: act(50), newest="move")
        while len(seen) < 4:
            await asyncio.sleep(0.002)

    asyncio.run(asyncio.wait_for(play(), 5))
    assert seen == ["start", 49, "end", 50]


def test_an_action_that_fails_does_not_stop_the_queue():
    seen = []

    async def play():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: seen.append("error"))
        queue = EventQueue(Owner())
        queue.post(lambda: 1 / 0)
        queue.post(lambda: seen.append("next"))
        while "next" not in seen:
            await asyncio.sleep(0.002)

    asyncio.run(asyncio.wait_for(play(), 5))
    assert seen == ["error", "next"]


# -- the figure


def shown(figure: SkyFigure) -> np.ndarray:
    return decoded(bytes(figure._image.image.value))


def test_figure_draws_values_between_its_cuts(geom):
    figure = SkyFigure()
    figure.set_geom(geom)
    figure.colours = "gray"
    figure.show(np.tile(np.arange(400.0), (300, 1)), (0.0, 399.0))
    assert shown(figure)[10, [0, 200, 399], 0].tolist() == [0, 128, 255]
    figure.cuts = (0.0, 100.0)
    assert shown(figure)[10, [0, 50, 399], 0].tolist() == [0, 128, 255]


def test_a_new_picture_is_a_new_image_widget_because_bqplot_ignores_a_new_value(geom):
    figure = SkyFigure()
    figure.set_geom(geom)
    figure.show(np.zeros((300, 400)))
    first = figure._image.image
    figure.show(np.ones((300, 400)))
    assert figure._image.image is not first


def test_pixel_centres_are_integers_of_the_scales(geom):
    figure = SkyFigure()
    figure.set_geom(geom)
    data = np.zeros((300, 400))
    data[7, 11] = 5.0
    figure.show(data)
    assert figure._image.x.tolist() == [-0.5, 399.5] and figure._image.y.tolist() == [-0.5, 299.5]
    assert figure.value_at(11.4, 6.6) == 5.0
    assert np.isnan(figure.value_at(-0.6, 3.0))


def test_tick_labels_are_found_by_the_positions_that_javascript_writes(geom):
    figure = SkyFigure()
    figure.set_geom(geom)
    for factor in (1.0, 3.3, 10.0):
        figure.view.zoom(factor, (123.4, 77.7))
        for axis in figure._axes:
            assert len(axis.tick_values) >= 2
            for value in axis.tick_values:
                key = str(int(value)) if float(value).is_integer() else repr(float(value))
                assert axis.tick_labels[key].endswith("°")


def test_zoom_keeps_the_place_under_the_pointer_and_home_shows_all(geom):
    figure = SkyFigure()
    figure.set_geom(geom)
    view = figure.view
    view.zoom(4.0, (100.0, 50.0))
    x_low, x_high = view.window[:2]
    assert (100.0 - x_low) / (x_high - x_low) == pytest.approx(100.5 / 400.0, abs=2e-3)
    assert x_high - x_low == pytest.approx(100.0, rel=0.01)
    view.home()
    assert view.window[0] <= -0.5 and view.window[1] >= 399.5


def test_pixels_stay_square_when_the_page_changes_its_size(geom):
    figure = SkyFigure()
    figure.set_geom(geom)
    for width, height in ((900.0, 500.0), (350.0, 640.0)):
        figure.view.set_plot_size(width, height)
        assert figure.zoom[0] == pytest.approx(figure.zoom[1])
        x_low, x_high, y_low, y_high = figure.view.window
        assert x_low <= -0.5 and x_high >= 399.5 and y_low <= -0.5 and y_high >= 299.5


def test_figure_takes_the_height_that_its_map_needs(geom):
    figure = SkyFigure()
    figure.set_geom(geom)
    box = {"x": 0, "y": 0, "width": 474.0, "height": 300.0, "resized_at": "", "focused_at": ""}
    figure._listener.view_data = {"view1": box}
    assert figure.plot_size == (400.0, 300.0)
    assert figure.figure.layout.height == "348px"
    assert figure.view.window == pytest.approx(WHOLE)


def test_overlays_are_drawn_where_they_are(geom):
    figure = SkyFigure()
    figure.set_geom(geom)
    angle = np.linspace(0.0, 2 * np.pi, 65)
    ring = Outline("1σ", 100.0 + 40 * np.cos(angle), 90.0 + 40 * np.sin(angle))
    bar = np.array([[100.0, 87.0], [100.0, 93.0]])
    figure.overlays = (
        overlay(
            "G", 100.0, 90.0, selected=True, outlines=(ring,), handle=(128.0, 62.0), errors=(bar,)
        ),
        overlay("P", 300.0, 20.0),
    )
    assert list(figure._labels.text) == ["G", "1σ", "P"]
    assert figure._crosses.x.tolist() == [100.0, 100.0, 300.0]
    assert figure._crosses.colors[0] == "#ffffff"
    assert (figure._handles.x[0], figure._handles.y[0]) == (128.0, 62.0)
    x = figure._curves.x
    assert x.shape[0] == 2 and np.isfinite(x[:, -1]).all()
    assert np.nanmin(x[0, 3:]) == pytest.approx(60.0) and np.nanmax(x[0]) == pytest.approx(140.0)
    figure.view.zoom(12.0, (100.0, 90.0))
    assert "±1σ position" in list(figure._labels.text)


def test_names_of_sources_side_by_side_do_not_cover_each_other(scene):
    places = {"one": (200.0, 150.0), "two": (205.0, 147.0), "three": (190.0, 140.0)}
    scene.figure.overlays = tuple(
        overlay(name, *place) for name, place in [*places.items(), ("far", (280.0, 149.0))]
    )
    labels = scene.figure._labels
    assert labels.x.tolist() == [200.0, 205.0, 190.0, 280.0]
    assert labels.y[[0, 3]].tolist() == [150.0, 149.0], "they stay where they are"
    heights = np.sort(labels.y[:3])
    assert np.diff(heights).min() >= 13.0, "a line apart"
    assert labels.y[1] < 147.0 and labels.y[2] < 140.0
    scene.figure.view.zoom(10.0, (200.0, 150.0))
    assert labels.y[:3].tolist() == [150.0, 147.0, 140.0], "closer, they are apart anyway"


def test_a_name_does_not_hide_a_handle(scene):
    source = overlay("a source", 200.0, 150.0, selected=True)
    labels = scene.figure._labels
    # The name begins 10 pixels right of and above its source.
    for handle, moved in (((240.0, 150.0), False), ((230.0, 164.0), True), ((280.0, 164.0), False)):
        scene.figure.overlays = (replace(source, handle=handle),)
        assert (labels.y[0] < 150.0) == moved
        assert not moved or handle[1] - (labels.y[0] + 10.0) > 15.0


# -- charts


def test_cut_editor_takes_numbers_and_refuses_reversed_cuts():
    editor = CutEditor()
    editor.show(np.arange(101.0))
    editor.cuts = (10.0, 60.0)
    assert (editor.low.value, editor.high.value) == (10.0, 60.0)
    editor.high.value = 33.25
    assert editor.cuts == (10.0, 33.25)
    editor.low.value = 50.0
    assert editor.cuts == (10.0, 33.25)
    assert 10 ** editor.bars.y.max() - 1 == pytest.approx(2.0)
    assert editor.marker.x[[0, -1]].tolist() == [10.0, 33.25]
