"""The map viewer on a real session, without a browser: what a hand does and what it sees."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from imgfit_widgets.core.config import AnalysisConfig
from imgfit_widgets.core.estimators.display import MAP_KINDS, display_map, hatching
from imgfit_widgets.core.models import (
    Models,
    PointSpatialModel,
    PowerLawSpectralModel,
    SkyModel,
)
from imgfit_widgets.session import Session
from imgfit_widgets.widgets.gestures import Hit
from imgfit_widgets.widgets.lean import is_shown
from imgfit_widgets.widgets.map_panel import BY_HAND
from imgfit_widgets.widgets.map_viewer import MapViewer, overlays_of, scientific

GALACTIC_CENTRE = (-0.0518, -0.0500)


@pytest.fixture(scope="module")
def datasets(tutorial):
    return tutorial.datasets


@pytest.fixture
def session(datasets):
    session = Session()
    session.set_datasets(datasets)
    return session


@pytest.fixture
def viewer(session):
    return MapViewer(session)


def send(figure, kind, x=0.0, y=0.0, **more):
    """An event of the figure's mouse interaction at a map pixel."""
    zoom_x, zoom_y = figure.zoom
    x_low, _, _, y_high = figure.view.window
    event = {
        "event": kind,
        "pixel": {"x": (x - x_low) * zoom_x, "y": (y_high - y) * zoom_y},
        "domain": {"x": x, "y": y},
        **more,
    }
    figure._mouse._handle_custom_msg(event, None)


def hidden(widget):
    return not is_shown(widget)


def shape_of(session, name):
    return session.models[name].spatial_model


def add(viewer, lon=GALACTIC_CENTRE[0], lat=GALACTIC_CENTRE[1]):
    """Add a source with a click on the map; the answer is its name."""
    viewer.session.mode = "add"
    x, y = viewer.main.figure.geom.lonlat_to_pix(lon, lat)
    send(viewer.main.figure, "click", float(x), float(y))
    return viewer.session.selected


def test_without_data_it_says_what_to_do():
    viewer = MapViewer(Session())
    assert not hidden(viewer._empty) and "Reduce" in viewer._empty.value
    assert hidden(viewer._maps) and hidden(viewer.toolbar)
    viewer.main.figure._on_mouse(None, {"event": "keydown", "key": "0"}, None)


def test_maps_appear_when_data_do(session, viewer):
    late = Session()
    panel = MapViewer(late)
    late.set_datasets(session.datasets)
    assert hidden(panel._empty) and not hidden(panel._maps)
    np.testing.assert_array_equal(panel.main.figure.data, viewer.main.figure.data)


def test_it_shows_what_display_map_gives(session, viewer):
    dataset = session.dataset
    for kind in MAP_KINDS:
        viewer.main.kind.value = kind
        expected = display_map(dataset, kind, session.preview.npred[0], 0.1)
        np.testing.assert_allclose(viewer.main.figure.data, expected, rtol=1e-9, atol=1e-7)
        assert np.isnan(viewer.main.figure.data).any() == (kind != "mask")


def test_significances_are_centred_on_zero_in_a_diverging_map(viewer):
    figure = viewer.residual.figure
    assert figure.cuts == (-5.0, 5.0) and figure.colours == "blue-red"
    viewer.residual.cut.value = "±3 σ"
    assert figure.cuts == (-3.0, 3.0)
    viewer.residual.cut.value = "min–max"
    assert figure.cuts[0] == -figure.cuts[1]


def test_each_kind_of_map_keeps_its_own_look(viewer):
    panel = viewer.main
    panel.colours.value, panel.stretch.value = "viridis", "log"
    panel.kind.value = "significance"
    assert (panel.figure.colours, panel.figure.stretch) == ("blue-red", "linear")
    panel.cut.value = "±10 σ"
    panel.kind.value = "counts"
    assert (panel.figure.colours, panel.figure.stretch) == ("viridis", "log")
    panel.kind.value = "significance"
    assert panel.figure.cuts == (-10.0, 10.0)


def test_cuts_by_hand_start_from_those_shown(viewer):
    panel = viewer.main
    before = panel.figure.cuts
    assert hidden(panel.editor)
    panel.cut.value = BY_HAND
    assert not hidden(panel.editor) and panel.editor.cuts == before == panel.figure.cuts
    panel.editor.high.value = 3.0
    assert panel.figure.cuts == (before[0], 3.0)
    panel.editor.low.value = 4.0
    assert panel.editor.reason.value == "from 4: expected less than 3"
    assert panel.figure.cuts == (before[0], 3.0)
    panel.editor.low.value = before[0]
    assert hidden(panel.editor.reason) and not panel.editor.reason.value
    panel.kind.value = "exposure"
    assert hidden(panel.editor)
    panel.kind.value = "counts"
    assert panel.figure.cuts == (before[0], 3.0)


def test_correlation_radius_shows_only_where_it_applies_and_changes_the_map(viewer):
    assert hidden(viewer.main._radius_box) and not hidden(viewer.residual._radius_box)
    viewer.residual.radius.value = 0.3
    expected = display_map(viewer.session.dataset, "significance", None, 0.3)
    viewer.residual.kind.value = "significance"
    np.testing.assert_array_equal(viewer.residual.figure.data, expected)


def test_a_click_in_add_mode_puts_a_source_there(session, viewer):
    name = add(viewer, 0.5, -0.2)
    model = session.models[name]
    lon, lat = model.spatial_model.position_lonlat
    assert (lon, lat) == (pytest.approx(0.5, abs=1e-9), pytest.approx(-0.2, abs=1e-9))
    assert session.mode == "add" and session.selected == name
    (overlay,) = viewer.residual.figure.overlays
    assert overlay.name == name and overlay.selected
    assert overlay.x == pytest.approx(199.5 - 25.0) and overlay.y == pytest.approx(149.5 - 10.0)


def test_a_click_elsewhere_adds_nothing_in_other_modes(session, viewer):
    name = add(viewer)
    session.mode = "navigate"
    send(viewer.main.figure, "click", 50.0, 200.0)
    assert session.models.sky_models[0].name == name and len(session.models.sky_models) == 1
    assert session.selected == ""
    overlay = viewer.main.figure.overlays[0]
    send(viewer.main.figure, "click", overlay.x, overlay.y)
    assert session.selected == name


def test_what_cannot_be_added_is_said(session, viewer):
    session.mode = "add"
    send(viewer.main.figure, "click", -20.0, 10.0)
    assert len(session.models.sky_models) == 0
    assert session.error and session.error in viewer.hint.value


def test_a_drag_moves_the_source_and_residual_and_badge_follow(session, viewer):
    name = add(viewer, 0.35, 0.2)
    session.mode = "edit"
    figure, overlay = viewer.residual.figure, viewer.residual.figure.overlays[0]
    worth, before, revision = session.preview.delta_ts, figure.data, session.revision
    x, y = (float(v) for v in figure.geom.lonlat_to_pix(*GALACTIC_CENTRE))
    send(figure, "mousemove", overlay.x, overlay.y)
    send(figure, "dragstart", overlay.x, overlay.y)
    for share in np.linspace(0.1, 1.0, 10):
        send(
            figure,
            "dragmove",
            overlay.x + share * (x - overlay.x),
            overlay.y + share * (y - overlay.y),
        )
    moved = viewer.main.figure.overlays[0]
    assert (moved.x, moved.y) == (pytest.approx(x), pytest.approx(y))
    assert session.preview.delta_ts > worth + 500
    row, column = round(y), round(x)
    assert abs(figure.data[row, column]) < 0.3 * before[row, column]
    assert f"{session.preview.delta_ts:.1f}" in viewer.badge.value
    assert name in viewer.badge.value and "cm⁻² s⁻¹" in viewer.badge.value
    send(figure, "dragend", x, y)
    assert session.revision == revision + 1
    session.undo()
    assert session.models[name].spatial_model.position_lonlat == pytest.approx((0.35, 0.2))
    assert viewer.main.figure.overlays[0].x == pytest.approx(overlay.x)


def test_escape_in_a_drag_takes_it_back_and_undo_goes_on_recording(session, viewer):
    name = add(viewer, 0.35, 0.2)
    session.mode = "edit"
    figure, overlay = viewer.main.figure, viewer.main.figure.overlays[0]
    flux = session.models[name].linear_parameter.value
    send(figure, "dragstart", overlay.x, overlay.y)
    send(figure, "dragmove", overlay.x + 30.0, overlay.y + 20.0)
    assert session.models[name].linear_parameter.value != flux
    send(figure, "keydown", key="Escape")
    send(figure, "dragend", overlay.x + 30.0, overlay.y + 20.0)
    assert session.models[name].spatial_model.position_lonlat == pytest.approx((0.35, 0.2))
    assert session.models[name].linear_parameter.value == flux and session.selected == name
    assert figure.overlays[0].x == pytest.approx(overlay.x)
    assert not session.history.busy and not viewer.hand.busy
    session.nudge(1, 0)
    session.undo()
    assert session.models[name].spatial_model.position_lonlat == pytest.approx((0.35, 0.2))
    session.undo()
    assert len(session.models.sky_models) == 0


def test_colours_keep_their_values_during_a_drag(session, viewer):
    add(viewer)
    viewer.main.kind.value = "npred"
    session.mode = "edit"
    figure, overlay = viewer.main.figure, viewer.main.figure.overlays[0]
    cuts = figure.cuts
    send(figure, "dragstart", overlay.x, overlay.y)
    send(figure, "dragmove", overlay.x + 60.0, overlay.y + 20.0)
    assert figure.cuts == cuts
    send(figure, "dragend", overlay.x + 60.0, overlay.y + 20.0)


def test_the_handle_sets_the_size(session, viewer):
    session.add_source(*GALACTIC_CENTRE, spatial="gauss", name="G")
    session.models["G"].spatial_model.sigma.value = 0.4
    session.mode = "edit"
    figure = viewer.main.figure
    (overlay,) = figure.overlays
    (outline,) = overlay.outlines
    assert outline.label == "1σ"
    assert np.hypot(outline.x - overlay.x, outline.y - overlay.y) == pytest.approx(20.0, rel=1e-3)
    x, y = overlay.handle
    assert np.hypot(x - overlay.x, y - overlay.y) == pytest.approx(20.0, rel=1e-3)
    further = (overlay.x + 1.7 * (x - overlay.x), overlay.y + 1.7 * (y - overlay.y))
    send(figure, "dragstart", x, y)
    send(figure, "dragmove", *further)
    send(figure, "dragend", *further)
    assert session.models["G"].spatial_model.sigma.value == pytest.approx(0.68, rel=1e-3)
    assert session.models["G"].spatial_model.position_lonlat == pytest.approx(GALACTIC_CENTRE)


def test_the_handle_of_a_small_source_stays_clear_of_its_centre(session, viewer):
    session.add_source(*GALACTIC_CENTRE, spatial="gauss", name="G")
    session.models["G"].spatial_model.sigma.value = 0.05
    figure = viewer.main.figure

    def reach():
        (overlay,) = figure.overlays
        x, y = overlay.handle
        return np.hypot(x - overlay.x, y - overlay.y) * figure.zoom[0]

    assert reach() == pytest.approx(16.0)
    assert [outline.label for outline in figure.overlays[0].outlines] == ["1σ", ""]
    assert list(figure._labels.text) == ["G", "1σ"]
    viewer.view.zoom(2.0)
    assert reach() == pytest.approx(16.0)
    viewer.view.zoom(5.0)
    assert reach() == pytest.approx(2.5 * figure.zoom[0], rel=1e-3)


def test_a_source_that_takes_counts_away_says_so(session, viewer):
    name = session.add_source(2.0, -1.5)
    session.models[name].spectral_model.amplitude.value = -1e-13
    assert viewer.badge.value.count("negative") == 1
    assert "√ΔTS <b>\N{MINUS SIGN}" in viewer.badge.value


def test_a_source_that_is_worse_than_none_says_so_and_no_significance(session, viewer):
    name = session.add_source(*GALACTIC_CENTRE)
    amplitude = session.models[name].spectral_model.amplitude
    assert "√ΔTS" in viewer.badge.value and "worse" not in viewer.badge.value
    amplitude.value *= 100.0
    assert "worse than without it" in viewer.badge.value and "√ΔTS" not in viewer.badge.value
    session.undo()
    assert "√ΔTS" in viewer.badge.value


def test_overlays_follow_parameters_whoever_sets_them(session, viewer):
    name = add(viewer)
    session.models[name].spatial_model.lat_0.value = 1.0
    assert viewer.main.figure.overlays[0].y == pytest.approx(199.5)
    session.remove_source(name)
    assert viewer.main.figure.overlays == () and viewer.badge.value == ""


def test_sources_in_another_frame_lie_where_they_are(session, viewer):
    position = SkyCoord(0.5, -0.2, unit="deg", frame="galactic").icrs
    shape = PointSpatialModel.new_at(position.ra.deg, position.dec.deg, "icrs")
    session.set_models(Models([SkyModel(PowerLawSpectralModel(), shape, name="icrs")]))
    (overlay,) = viewer.main.figure.overlays
    assert (overlay.x, overlay.y) == (pytest.approx(174.5), pytest.approx(139.5))
    session.begin_drag("icrs")
    viewer.hand.drag(Hit("icrs", "source"), 184.5, 139.5)
    session.end_drag()
    lon, lat = shape_of(session, "icrs").position_lonlat
    moved = SkyCoord(lon, lat, unit="deg", frame="icrs").galactic
    assert (moved.l.deg, moved.b.deg) == (pytest.approx(0.3), pytest.approx(-0.2))


def test_position_errors_are_shown_only_for_a_fit_that_holds(session, viewer):
    name = add(viewer)
    shape = session.models[name].spatial_model
    shape.lon_0.error, shape.lat_0.error = 0.04, 0.02
    assert viewer.main.figure.overlays[0].errors == ()
    geom = viewer.main.figure.geom
    across, along = overlays_of(session.models, geom, errors=True)[0].errors
    assert np.ptp(across[:, 0]) == pytest.approx(4.0, rel=1e-3)
    assert np.ptp(along[:, 1]) == pytest.approx(2.0, rel=1e-3)


def test_both_maps_zoom_together(viewer):
    viewer.hand.zoom(2.0)
    first, second = viewer.main.figure, viewer.residual.figure
    assert first.view is second.view
    assert first._axes[0].tick_values.tolist() == second._axes[0].tick_values.tolist()
    viewer.toolbar.children[1].children[2].click()
    assert viewer.view.window[1] - viewer.view.window[0] == pytest.approx(400.0, rel=0.02)


def test_keys_do_what_buttons_do(session, viewer):
    name, figure = add(viewer), viewer.main.figure
    x = figure.overlays[0].x

    def press(key, **more):
        send(figure, "keydown", key=key, **more)

    press("ArrowRight")
    assert figure.overlays[0].x == pytest.approx(x + 1.0)
    press("z", ctrlKey=True)
    assert figure.overlays[0].x == pytest.approx(x)
    press("Z", ctrlKey=True)
    assert figure.overlays[0].x == pytest.approx(x + 1.0)
    press("Delete")
    assert name not in session.models.names
    press("Escape")
    assert session.mode == "navigate"
    press("E")  # Caps Lock
    assert session.mode == "edit" and figure.mode == "edit"
    press("b")
    assert figure.tool == viewer.residual.figure.tool == "box" and "box" in viewer.hint.value
    press("b")
    press("?")
    assert not hidden(viewer.toolbar.key_list) and viewer.toolbar.help.value
    press("?")
    assert hidden(viewer.toolbar.key_list)
    before = viewer.view.window
    press("+")
    assert viewer.view.window[1] - viewer.view.window[0] < before[1] - before[0]
    window = viewer.view.window
    press("ArrowLeft")
    assert viewer.view.window[0] < window[0]
    press("0")
    assert viewer.view.window == pytest.approx(before)


def test_mode_buttons_and_session_stay_together(session, viewer):
    modes = viewer.toolbar.modes
    modes["add"].value = True
    assert session.mode == "add" and not modes["navigate"].value
    session.mode = "edit"
    assert [name for name, toggle in modes.items() if toggle.value] == ["edit"]
    modes["edit"].value = False
    assert session.mode == "edit" and modes["edit"].value, "pressed once more"
    modes["add"].value = True
    modes["add"].value = False
    assert session.mode == "navigate" and modes["navigate"].value, "called off"
    modes["navigate"].value = False
    assert modes["navigate"].value


def test_undo_buttons_can_be_pressed_when_there_is_something_to_undo(session, viewer):
    fresh = MapViewer(Session())
    assert fresh.toolbar.undo.disabled and fresh.toolbar.redo.disabled
    add(viewer)
    assert not viewer.toolbar.undo.disabled
    viewer.toolbar.undo.click()
    assert len(session.models.sky_models) == 0 and not viewer.toolbar.redo.disabled


def test_readout_gives_both_frames_and_every_value(session, viewer):
    viewer.hand.hover(202.0, 147.0)
    words = viewer.readout.value
    assert "359.9500° \N{MINUS SIGN}0.0500°" in words
    icrs = SkyCoord(359.95, -0.05, unit="deg", frame="galactic").icrs
    assert f"{icrs.ra.deg:.4f}° {icrs.dec.deg:.4f}°".replace("-", "\N{MINUS SIGN}") in words
    assert "17h45m41.8s" in words and "\N{MINUS SIGN}29°00′18″" in words
    counts = session.dataset.counts.data[:, 147, 202].sum()
    assert f"counts <b>{counts:g}</b>" in words
    for name in ("npred", "background", "residual", "exposure"):
        assert name in words
    viewer.hand.hover(-30.0, 10.0)
    assert "off the map" in viewer.readout.value


def test_a_drag_of_a_source_that_is_gone_does_no_harm(session, viewer):
    name = add(viewer)
    hit = Hit(name, "source")
    viewer.hand.drag_start(hit)
    session.remove_source(name)
    viewer.hand.drag(hit, 10.0, 10.0)
    viewer.hand.drag_end(hit)
    assert len(session.models.sky_models) == 0


@pytest.mark.parametrize(
    ("value", "words"),
    [(2.9626e-11, "2.96×10⁻¹¹"), (1.87e10, "1.87×10¹⁰"), (0.0, "0"), (float("nan"), "–")],
)
def test_powers_of_ten_are_written_out(value, words):
    assert scientific(value) == words


def test_a_session_file_brings_the_looks_of_the_maps_back(session, viewer):
    viewer.main.kind.value = "excess"
    viewer.main.colours.value = "heat"
    viewer.residual.radius.value = 0.25
    _, content = session.export_session()
    other = MapViewer(Session())
    other.session.open(content)
    assert other.main.kind.value == "excess" and other.main.figure.colours == "heat"
    assert other.main.colours.value == "heat" and other.residual.radius.value == 0.25


def test_looks_that_are_not_known_are_left_out(viewer):
    looks = {"counts": {"colours": "jet", "stretch": "log", "cut": "?"}, "nothing": {}}
    viewer.session.view = {"maps": [{"kind": "psf", "looks": looks}]}
    assert viewer.main.kind.value == "counts"
    assert (viewer.main.figure.colours, viewer.main.figure.stretch) == ("inferno", "log")


def test_the_correlation_radius_of_the_configuration_is_where_the_maps_begin(datasets):
    session = Session("excess_map: {correlation_radius: 0.3 deg}")
    viewer = MapViewer(session)
    session.set_datasets(datasets)
    assert [panel.radius.value for panel in viewer.panels] == [pytest.approx(0.3)] * 2
    session.config.excess_map.correlation_radius = "0.2 deg"
    assert [panel.radius.value for panel in viewer.panels] == [pytest.approx(0.2)] * 2


def test_what_is_not_there_any_more_gives_way_to_the_first_choice(viewer):
    """Both maps then showed counts, and the readout the old pixel of the new map."""
    panel = viewer.panels[1]
    first, kinds = panel.kind.value, [kind for _, kind in panel.kind.options]
    panel.offer([*kinds, "ts"], [])
    panel.kind.value = "ts"
    panel.offer(kinds, [])
    assert panel.kind.value == first != viewer.panels[0].kind.value


def test_the_readout_follows_a_drag_and_undo(viewer):
    name = add(viewer)
    viewer.session.mode = "edit"
    figure = viewer.main.figure
    x, y = figure.overlays[0].x, figure.overlays[0].y
    send(figure, "mousemove", x, y)
    before = viewer.readout.value
    send(figure, "dragstart", x, y)
    send(figure, "dragmove", x + 12, y)
    assert f"pixel <b>{round(x + 12)}" in viewer.readout.value
    send(figure, "dragend", x + 12, y)
    send(figure, "mousemove", x, y)
    moved = viewer.readout.value
    assert moved != before and name in viewer.session.models.names
    viewer.session.undo()
    assert viewer.readout.value == before


# --- several bands, several datasets, and datasets that lack something


@pytest.fixture
def excluding(demo_store, tmp_path):
    """A session of two runs in three bands, not stacked, with a circle left out."""
    config = AnalysisConfig.read(demo_store / "config.yaml")
    region = tmp_path / "out.reg"
    region.write_text("galactic\ncircle(30.2,0.3,0.5)\n")
    config.observations.obs_ids = [1, 2]
    config.datasets.stack = False
    config.datasets.geom.wcs.binsize = "0.1 deg"
    config.datasets.geom.axes.energy.nbins = 3
    config.datasets.background.exclusion = region
    session = Session(config)
    session.reduce().wait(60)
    return session


def test_bands_datasets_and_true_energies_can_be_chosen(excluding):
    session, viewer = excluding, MapViewer(excluding)
    choice, figure = viewer.choice, viewer.main.figure
    assert [words for words, _ in choice.energy.options][:2] == ["All energies", "0.5 – 2.32 TeV"]
    total = np.nansum(figure.data)
    choice.energy.value = 0
    first = session.dataset.counts.data[0] * session.dataset.mask[0]
    assert np.nansum(figure.data) == first.sum() < total
    expected = display_map(session.dataset, "residual", session.preview.npred[0], 0.1, 0)
    np.testing.assert_allclose(viewer.residual.figure.data, expected, rtol=1e-9, atol=1e-7)

    names = session.datasets.names
    choice.dataset.value = names[1]
    assert session.dataset_name == names[1] and choice.band == 0
    assert np.nansum(figure.data) == (session.dataset.counts.data * session.dataset.mask)[0].sum()

    viewer.main.kind.value = "exposure"
    assert is_shown(viewer.main.true_band)
    viewer.main.true_band.value = 3
    plane = session.dataset.exposure.data[3]
    np.testing.assert_allclose(figure.data, np.where(plane > 0, plane, np.nan))
    viewer.main.kind.value = "mask"
    assert not is_shown(viewer.main.true_band)
    np.testing.assert_array_equal(figure.data, session.dataset.mask[0])

    saved = session.export_session()[1]
    other = Session(session.config)
    other.set_datasets(session.datasets)
    panel = MapViewer(other)
    other.open(saved)
    assert panel.choice.band == 0 and panel.main.kind.value == "mask"


def test_what_the_background_leaves_out_is_hatched(excluding):
    session, viewer = excluding, MapViewer(excluding)
    lon, lat = session.dataset.geom.pixel_lonlat
    inside = np.hypot((lon - 30.2) * np.cos(np.radians(lat)), lat - 0.3) < 0.5
    np.testing.assert_array_equal(session.excluded, inside)
    mark = viewer.main.figure._hatching
    x, y = np.ravel(mark.x), np.ravel(mark.y)
    rows, columns = np.nonzero(inside)
    assert np.nanmin(x) == columns.min() - 0.5 and np.nanmax(x) == columns.max() + 0.5
    assert np.nanmin(y) == rows.min() - 0.5 and np.nanmax(y) == rows.max() + 0.5
    viewer.choice.excluded.value = False
    assert np.size(viewer.residual.figure._hatching.x) == 2
    session.set_datasets(session.datasets[:1])
    assert session.excluded is None and hidden(viewer.choice.excluded)


@pytest.mark.parametrize("lacking", ["exposure", "background", "psf"])
def test_a_dataset_that_lacks_something_breaks_nothing(reduced, lacking):
    from imgfit_widgets.widgets.workbench import Workbench

    dataset = reduced[0]
    session = Session()
    changes = {lacking: None, "models": None}
    session.set_datasets(dataset._replace(**changes))
    workbench = Workbench(session=session)
    viewer = workbench.map_viewer
    kinds = [kind for _, kind in viewer.main.kind.options]
    for kind in kinds:
        viewer.main.kind.value = kind
        assert session.error == "", kind
    assert ("exposure" in kinds) == (lacking != "exposure")
    assert ("significance" in kinds) == (lacking != "background")
    viewer._hovered(10.0, 10.0)
    adding = viewer.toolbar.modes["add"]
    assert adding.disabled == (lacking == "exposure")
    if lacking == "exposure":
        assert "No exposure in stacked" in viewer.choice.why.value
        assert session.attempt(session.add_source, 30.0, 0.0) is None
        assert "No exposure" in session.error
    session.set_datasets(dataset)
    assert not adding.disabled and len(viewer.main.kind.options) == len(MAP_KINDS)


@pytest.mark.parametrize("spacing", [1, 2, 5])
def test_hatching_stays_within_the_mask_and_follows_its_border(spacing):
    mask = np.zeros((7, 9), dtype=bool)
    mask[1:4, 2:7] = True
    mask[5, 0] = True
    x, y = hatching(mask, spacing)
    pieces = np.stack([x, y], axis=-1).reshape(-1, 3, 2)[:, :2]
    straight = np.any(pieces[:, 0] == pieces[:, 1], axis=1)
    assert np.abs(np.diff(pieces[straight], axis=1)).sum() == 2 * (3 + 5) + 4
    for start, end in pieces[~straight]:
        for share in (0.01, 0.3, 0.77, 0.99):
            column, row = np.floor(start + share * (end - start) + 0.5).astype(int)
            assert mask[row, column]
