"""The panels around the minimum and of the search, and what they draw, without a browser."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import chi2

from imgfit_widgets.core.maps import WcsGeom, WcsNDMap, separation
from imgfit_widgets.core.models import (
    DiskSpatialModel,
    GaussianSpatialModel,
    GeneralizedGaussianSpatialModel,
    Models,
    PowerLawSpectralModel,
    Shell2SpatialModel,
    ShellSpatialModel,
    SkyModel,
    TemplateSpatialModel,
)
from imgfit_widgets.core.models.spatial_base import separation_angle
from imgfit_widgets.core.profile_result import MinosError
from imgfit_widgets.session import Session
from imgfit_widgets.widgets.inference_panel import BUTTONS, InferencePanel
from imgfit_widgets.widgets.lean import is_shown
from imgfit_widgets.widgets.map_evidence import curves_of
from imgfit_widgets.widgets.map_hand import shape_values
from imgfit_widgets.widgets.map_panel import TS_MAP
from imgfit_widgets.widgets.map_viewer import MapViewer, overlays_of
from imgfit_widgets.widgets.model_editor import ModelEditor
from imgfit_widgets.widgets.model_parts import SHAPE_WORDS, SPECTRUM_WORDS
from imgfit_widgets.widgets.numbers import interval
from imgfit_widgets.widgets.results import Results
from imgfit_widgets.widgets.search_panel import SearchPanel


@pytest.fixture
def fitted(session, demo_store):
    session.set_models((demo_store / "truth.yaml").read_text())
    session.fit().wait(120)
    session.select("extended")
    return session


def press(session, control):
    control.click()
    session.task.wait(240)
    assert session.task.status == "done", session.task.error


# --- the panel
def test_buttons_say_why_they_wait(session):
    panel = InferencePanel(session)
    assert panel.reason.value == "Select a source first"
    assert all(line.ask.disabled for line in panel.lines.values())
    session.add_source(*session.dataset.geom.center_lonlat)
    assert not panel.lines["find_extension"].ask.disabled
    assert panel.lines["find_errors"].ask.tooltip == "Fit first"
    assert panel.reason.value == "Fit first for: Errors ±, Position, Profile, Contour"
    name = session.selected
    session.set_shape(name, "const")
    assert "A source with a position is needed for: Position, Extension" in panel.reason.value
    assert panel.lines["find_extension"].ask.disabled and panel.lines["find_shape"].ask.disabled
    session.undo()
    assert set(panel.lines) == set(BUTTONS)


def test_answers_are_shown_and_greyed_when_they_are_stale(fitted):
    panel = InferencePanel(fitted)
    line = panel.lines["find_significance"]
    press(fitted, line.ask)
    found = fitted.answer("find_significance").value
    assert f"{found.sigma:.1f} σ" in line.words.value and f"{found.dof} dof" in line.words.value
    assert "imgfit-is-stale" not in line._dom_classes
    fitted.models["extended"].spatial_model.sigma.value *= 1.1
    assert "imgfit-is-stale" in line._dom_classes and "stale" in line.words.value
    fitted.undo()
    assert "imgfit-is-stale" not in line._dom_classes
    fitted.select("bright")
    assert line.words.value == "", "another source, another answer"


def test_errors_of_both_sides_stand_in_the_results(fitted):
    panel, results = InferencePanel(fitted), Results(fitted)
    press(fitted, panel.lines["find_errors"].ask)
    error = fitted.asymmetric_errors["extended", "sigma"]
    assert interval(error) in results.body.value
    assert interval(error) in panel.lines["find_errors"].words.value


def test_profile_and_contour_are_drawn(fitted):
    panel = InferencePanel(fitted)
    assert panel.parameter.value == "sigma" and (panel.x.value, panel.y.value) == ("lon_0", "lat_0")
    assert not is_shown(panel.profile) and not is_shown(panel.contour)
    press(fitted, panel.lines["find_profile"].ask)
    profile = fitted.answer("find_profile").value
    assert is_shown(panel.profile)
    np.testing.assert_array_equal(panel.profile.line.y, profile.delta)
    panel.y.value = "sigma"
    press(fitted, panel.lines["find_contour"].ask)
    assert panel.contour.lines.x.shape[0] == 2
    result = fitted.fit_result
    best = [result.values[result.names.index(("extended", name))] for name in ("lon_0", "sigma")]
    np.testing.assert_array_equal([panel.contour.best.x[0], panel.contour.best.y[0]], best)
    assert [axis.label for axis in panel.contour._axes] == ["lon_0 (deg)", "sigma (deg)"]
    assert curves_of(fitted) == {}, "only a position is drawn on the map"


def test_a_shape_is_adopted_by_its_button(fitted):
    panel = InferencePanel(fitted)
    press(fitted, panel.lines["find_shape"].ask)
    assert "Elongated" in panel.lines["find_shape"].words.value
    panel.adopt["Disk"].click()
    assert fitted.models["extended"].spatial_model.tag[-1] == "disk" and fitted.fit_is_current
    assert panel.adopt["Disk"].disabled and not panel.adopt["Gaussian"].disabled


def test_intervals_have_as_many_digits_as_their_smaller_side():
    def error(value, lower, upper, unit="deg", **flags):
        known = {"valid_lower": True, "valid_upper": True}
        known |= {"at_limit_lower": False, "at_limit_upper": False} | flags
        return MinosError("a", "b", unit, value, 1.0, lower, upper, nfev=1, **known)

    assert interval(error(0.10213, -0.0112, 0.0131)) == "0.102 (−0.011 +0.013) deg"
    assert interval(error(5.5e-11, -4.7e-12, 4.9e-12, "s-1 cm-2")) == (
        "5.50 (−0.47 +0.49) × 10⁻¹¹ cm⁻² s⁻¹"
    )
    assert interval(error(0.02, -0.02, 0.013, at_limit_lower=True)) == "0.020 (limit +0.013) deg"
    lost = error(0.02, math.nan, 0.013, valid_lower=False)
    assert interval(lost) == "0.020 (−? +0.013) deg"


# --- on the map
def test_a_position_is_drawn_as_ellipses_of_its_probabilities(fitted):
    viewer = MapViewer(fitted)
    fitted.find_position().wait(240)
    place = fitted.answer("find_position").value
    overlay = next(o for o in viewer.main.figure.overlays if o.name == "extended")
    assert [curve.label for curve in overlay.uncertainty] == ["68 % position", "95 % position"]
    for (_, lon, lat), share in zip(curves_of(fitted)["extended"], (0.68, 0.95), strict=True):
        far = separation(lon, lat, place.lon, place.lat)
        assert far.max() == pytest.approx(place.semi_major * math.sqrt(chi2.ppf(share, 2)))
    mark = viewer.main.figure._uncertainty
    assert mark.line_style == "dashed" and mark.x.size > 100
    fitted.find_contour("lon_0", "lat_0").wait(240)
    overlay = next(o for o in viewer.main.figure.overlays if o.name == "extended")
    assert [curve.label for curve in overlay.uncertainty] == ["39 % position", "86 % position"]
    fitted.models["extended"].spatial_model.lon_0.value += 0.01
    overlay = next(o for o in viewer.main.figure.overlays if o.name == "extended")
    assert overlay.uncertainty == (), "what is stale is not drawn"


SHAPES = [
    (GaussianSpatialModel(sigma=0.3, e=0.7, phi=30.0), "1σ"),
    (DiskSpatialModel(r_0=0.3, e=0.7, phi=-60.0), "r₀"),
    (GeneralizedGaussianSpatialModel(r_0=0.3, e=0.7, phi=100.0), "r₀"),
]


@pytest.mark.parametrize("frame", ["icrs", "galactic"])
@pytest.mark.parametrize(
    ("proj", "map_frame"), [("TAN", "icrs"), ("CAR", "galactic"), ("TAN", "galactic")]
)
@pytest.mark.parametrize(("shape", "label"), SHAPES)
def test_an_ellipse_is_drawn_where_it_is_on_any_map(shape, label, proj, map_frame, frame):
    geom = (
        WcsGeom.create(skydir=(83.6, 22.0), frame="icrs", width=(3, 3), binsz=0.02, proj=proj)
        if map_frame == "icrs"
        else WcsGeom.create(
            skydir=(184.5, -5.8), frame="galactic", width=(3, 3), binsz=0.02, proj=proj
        )
    )
    lon, lat = (83.6, 22.0) if frame == "icrs" else (184.5, -5.8)
    values = {p.name: p for p in shape.parameters}
    values |= {"lon_0": lon, "lat_0": lat}
    model = SkyModel(PowerLawSpectralModel(), type(shape)(frame=frame, **values), "a")
    overlay = overlays_of(Models([model]), geom, "a")[0]
    outline = overlay.outlines[0]
    assert outline.label == label
    place = geom.to_frame(*geom.pix_to_lonlat(outline.x, outline.y), frame)
    np.testing.assert_allclose(model.spatial_model.radius(*place), 1.0, atol=2e-3)
    # The handles are the ends of the axes; the major one points from North to East by phi.
    major = geom.to_frame(*geom.pix_to_lonlat(*overlay.handle), frame)
    minor = geom.to_frame(*geom.pix_to_lonlat(*overlay.place("minor")), frame)
    far = [float(separation(*place, lon, lat)) for place in (major, minor)]
    assert far == pytest.approx([0.3, 0.3 * math.sqrt(1 - 0.49)], rel=2e-3)
    angle = math.degrees(float(separation_angle(lon, lat, *major)[1]))
    wanted = shape.phi.value
    assert (angle - wanted + 90) % 180 - 90 == pytest.approx(0, abs=1.0)


def test_handles_give_the_parameters_whose_outline_they_lie_on():
    ellipse = GaussianSpatialModel(sigma=0.3, e=0.6)
    assert shape_values(ellipse, "handle", 0.4, 120.0) == {"sigma": 0.4, "phi": -60.0}
    assert shape_values(ellipse, "minor", 0.18, 0.0)["e"] == pytest.approx(0.8)
    assert shape_values(ellipse, "minor", 0.5, 0.0)["e"] == 0.0
    round_one = GaussianSpatialModel(sigma=0.3)
    assert shape_values(round_one, "handle", 0.4, 120.0) == {"sigma": 0.4}
    shell = ShellSpatialModel(radius=0.2, width=0.1)
    assert shape_values(shell, "width", 0.5, 0.0) == {"width": pytest.approx(0.3)}
    assert shape_values(Shell2SpatialModel(r_0=0.4), "width", 0.3, 0.0)["eta"] == pytest.approx(
        0.25
    )


def test_shells_have_two_circles_and_a_template_its_lines_of_light_and_its_frame(
    session, demo_store
):
    lon, lat = session.dataset.geom.center_lonlat
    name = session.add_source(lon, lat, spatial="shell")
    geom = session.dataset.geom.to_image()
    overlay = overlays_of(session.models, geom, name)[0]
    assert [outline.label for outline in overlay.outlines[:2]] == ["inner", "outer"]
    assert [part for part, _ in overlay.further] == ["width"]
    session.drag_shape(name, width=0.2)
    assert session.models[name].spatial_model.width.value == pytest.approx(0.2)
    session.drag_shape(name, radius=-1.0)
    assert session.models[name].spatial_model.radius.value == pytest.approx(1e-4)
    plane = WcsNDMap(geom, session.dataset.counts.data.sum(axis=0))
    session.models[name].spatial_model = TemplateSpatialModel(map=plane)
    first, *_, outline = overlays_of(session.models, geom)[0].outlines
    assert (first.label, outline.label) == ("68 % of the light", "image")
    nx, ny = geom.npix
    assert (outline.x.min(), outline.x.max()) == pytest.approx((-0.5, nx - 0.5), abs=0.01)
    assert (outline.y.min(), outline.y.max()) == pytest.approx((-0.5, ny - 0.5), abs=0.01)


# --- the editor
def test_the_editor_offers_every_shape_and_spectrum_in_words(session):
    editor = ModelEditor(session)
    session.add_source(*session.dataset.geom.center_lonlat)
    for choice, words in ((editor.shape, SHAPE_WORDS), (editor.spectrum, SPECTRUM_WORDS)):
        assert {tag for _, tag in choice.select.options} == set(words)
        assert all(f"({tag})" in label for label, tag in choice.select.options)
        for tag in set(words) - {"template"}:
            choice.select.value = tag
            assert choice.refusal.value == "" and choice.select.value == tag
            assert choice.select.tooltip
            assert [r.parameter for r in editor.rows] == list(editor.shown.parameters)


def test_a_template_is_asked_for_by_its_path(session, tmp_path):
    editor = ModelEditor(session)
    name = session.add_source(*session.dataset.geom.center_lonlat)
    assert not is_shown(editor.shape.path)
    editor.shape.select.value = "template"
    assert is_shown(editor.shape.path)
    assert session.models[name].spatial_model.tag[-1] == "point", "until there is an image"
    editor.shape.path.value = str(tmp_path / "none.fits")
    assert "No such file" in editor.shape.refusal.value
    assert "imgfit-invalid" in editor.shape.path._dom_classes
    editor.shape.select.value = "disk"
    assert not is_shown(editor.shape.path) and editor.shape.refusal.value == ""


def test_links_and_priors_hide_behind_a_row_and_show_below_it(session):
    editor = ModelEditor(session)
    lon, lat = session.dataset.geom.center_lonlat
    first, second = session.add_source(lon, lat), session.add_source(lon + 0.3, lat)
    line = next(r for r in editor.rows if r.parameter.name == "lat_0")
    assert line.ties is None and not is_shown(line.note)
    line.more.click()
    line.ties.link.value = f"{first}.lat_0"
    assert session.models[second].spatial_model.lat_0.leader.owner == first
    assert f"linked with {first}.lat_0" in line.note.value
    line.ties.prior.value = "Gaussian"
    line.ties.numbers[0].value, line.ties.numbers[1].value = "0.1", "0.02"
    prior = session.models[first].spatial_model.lat_0.prior
    assert (prior.mu, prior.sigma) == (0.1, 0.02) and "0.100 ± 0.020 deg" in line.note.value
    line.ties.numbers[1].value = "-1"
    assert "expected more than 0" in line.ties.refusal.value
    line.ties.numbers[1].value = "x"
    assert "is not a number" in line.ties.refusal.value
    line.ties.prior.value = "none"
    line.ties.link.value = "none"
    assert not is_shown(line.note)
    line.more.click()
    assert not is_shown(line.ties)


def test_the_frame_and_the_datasets_of_a_source_are_chosen(session):
    editor = ModelEditor(session)
    name = session.add_source(*session.dataset.geom.center_lonlat)
    editor.shape.frame.value = "icrs"
    assert session.models[name].frame == "icrs"
    assert not is_shown(editor.datasets), "there is only one"
    dataset = session.dataset
    from imgfit_widgets.core.dataset import Datasets, MapDataset

    other = MapDataset(
        "other",
        dataset.counts,
        dataset.background,
        dataset.exposure,
        dataset.psf,
        dataset.edisp,
        dataset.mask_safe,
    )
    session.set_datasets(Datasets([dataset, other]))
    assert is_shown(editor.datasets)
    assert editor.datasets.select.value == ("stacked", "other")
    editor.datasets.select.value = ("other",)
    assert session.models[name].datasets_names == ["other"]
    session.undo()
    assert editor.datasets.select.value == ("stacked", "other")


# --- search
def test_a_search_lists_peaks_and_offers_its_map(session):
    panel, viewer = SearchPanel(session), MapViewer(session)
    assert TS_MAP not in [kind for _, kind in viewer.main.kind.options]
    press(session, panel.start)
    assert viewer.residual.kind.value == TS_MAP
    np.testing.assert_array_equal(
        viewer.residual.figure.data, session.search.maps["sqrt_ts"].data[0]
    )
    lines = panel.peaks.children
    assert (
        len(lines) == min(len(session.search.found), 12)
        and "post-trial" in lines[0].children[0].value
    )
    lines[0].children[1].click()
    assert session.selected == "Source-1" and session.preview.delta_ts > 50
    assert SearchPanel(Session()).start.disabled


def test_a_search_goes_on_from_a_fit_and_names_the_source_at_a_peak(session, demo_store):
    panel = SearchPanel(session)
    session.set_models((demo_store / "truth.yaml").read_text())
    assert panel.against.value == "background"
    session.fit().wait(120)
    assert panel.against.value == "models"
    added = session.add_source(*session.dataset.geom.center_lonlat)
    assert panel.against.value == "models", "also before the next fit"
    session.remove_source(added)
    panel.against.value = "background"
    press(session, panel.start)
    assert panel.against.value == "background", "what was chosen stays"
    first = panel.peaks.children[0]
    assert "at bright" in first.children[0].value
    assert "bright is there already" in first.children[1].tooltip
    assert any("at extended" in line.children[0].value for line in panel.peaks.children)
