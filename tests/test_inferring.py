"""Questions to the data as verbs of a session: answers, when they are stale, what is adopted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from imgfit_widgets.core.errors import ImgfitError, InputError, ModelError
from imgfit_widgets.core.inference import source_ts
from imgfit_widgets.core.ladder import compare_shapes
from imgfit_widgets.core.profile import Profiles
from imgfit_widgets.inferring import QUESTIONS
from imgfit_widgets.session import Session


@pytest.fixture
def fitted(session, demo_store):
    """The demo's models, fitted; the extended source is selected."""
    session.set_models((demo_store / "truth.yaml").read_text())
    session.fit().wait(120)
    assert session.fit_result.success
    session.select("extended")
    return session


def ask(session, verb, *arguments):
    getattr(session, verb)(*arguments).wait(240)
    assert session.task.status == "done", session.task.error
    return session.answer(verb)


def test_what_cannot_be_asked_now_says_why(session):
    empty = Session()
    assert {empty.why_not(verb) for verb in QUESTIONS} == {"Reduce the data first"}
    assert {session.why_not(verb) for verb in QUESTIONS} == {"Select a source first"}
    session.add_source(*session.dataset.geom.center_lonlat)
    reasons = {verb: session.why_not(verb) for verb in QUESTIONS}
    assert {v for v, why in reasons.items() if why == "Fit first"} == {
        verb for verb, question in QUESTIONS.items() if question.needs_fit
    }
    assert reasons["find_extension"] == ""
    with pytest.raises(ImgfitError, match="Fit first"):
        session.find_errors()
    session.fit()
    assert session.why_not("find_extension") == "Fitting"
    session.task.wait(120)


def test_answers_are_those_of_the_core_and_become_stale(fitted):
    answer = ask(fitted, "find_significance")
    models = fitted.models.copy()
    expected = source_ts(fitted.datasets, models, "extended")
    assert answer.value.ts == pytest.approx(expected.ts, rel=1e-6)
    assert fitted.is_current(answer)
    fitted.models["extended"].spatial_model.lat_0.value += 0.01
    assert not fitted.is_current(answer)
    fitted.undo()
    assert fitted.is_current(answer), "undone, it is true again"
    fitted.set_prior("extended.sigma", None)
    fitted.models["bright"].spatial_model.lon_0.frozen = True
    assert not fitted.is_current(answer)


def test_asymmetric_errors_belong_to_the_fit(fitted):
    answer = ask(fitted, "find_errors")
    free = [name for model, name in fitted.fit_result.names if model == "extended"]
    assert [error.name for error in answer.value] == free
    key = ("extended", "sigma")
    error, hesse = fitted.asymmetric_errors[key], fitted.fit_result.error(*key)
    assert error.errn == pytest.approx(hesse, rel=0.3) and error.errn != error.errp
    assert error.upper == Profiles(fitted.fit_result).minos(key).upper
    fitted.fit().wait(120)
    assert fitted.asymmetric_errors == {}, "another fit has other errors"


def test_a_position_a_limit_and_an_extension(fitted):
    place = ask(fitted, "find_position").value
    assert 0 < place.r68 < place.r95 < place.r99 < 0.2
    limit = ask(fitted, "find_limit").value
    assert limit.value > limit.best
    test = ask(fitted, "find_extension", "disk").value
    assert test.parameter == "r_0" and test.sigma > 4


def test_contour_and_profile_of_chosen_parameters(fitted):
    seen = []
    fitted.task.observe(lambda change: seen.append(change.new), "live")
    inner, outer = ask(fitted, "find_contour", "lon_0", "lat_0").value
    assert (inner.sigma, outer.sigma) == (1.0, 2.0) and inner.success and outer.success
    assert np.ptp(outer.x) > np.ptp(inner.x) > 0
    assert any(value is not None and len(value) == 2 for value in seen), "the ellipse comes first"
    profile = ask(fitted, "find_profile", "sigma").value
    assert profile.name == "sigma" and profile.delta.max() > 4
    fitted.find_profile("nothing")
    fitted.task.wait(60)
    assert fitted.task.status == "failed" and "nothing" in fitted.task.error


def test_a_question_can_be_cancelled(fitted):
    fitted.find_shape()
    fitted.cancel()
    fitted.task.wait(60)
    assert fitted.task.status == "cancelled" and fitted.answer("find_shape") is None


def test_shapes_are_compared_and_one_is_adopted(fitted):
    fitted.set_shape("extended", "point")
    ladder = ask(fitted, "find_shape").value
    rungs = {rung.label: rung for rung in ladder.rungs}
    assert list(rungs) == ["Point", "Disk", "Gaussian", "Elongated", "Second source"]
    assert rungs["Gaussian"].dof == 1 and rungs["Elongated"].dof == 2
    assert rungs["Gaussian"].sigma == pytest.approx(math.sqrt(rungs["Gaussian"].ts))
    assert rungs["Gaussian"].sigma > 3
    assert rungs["Gaussian"].aic < rungs["Point"].aic
    assert rungs["Elongated"].ts >= 0 and rungs["Elongated"].against == "Gaussian"
    second = rungs["Second source"]
    assert (second.dof, second.against, second.ts) == (3, "Point", second.delta_ts)
    assert second.aic > rungs["Gaussian"].aic, "it is extended, and not two"
    assert "Gaussian" in str(ladder) and ladder.to_dict()["rungs"][0]["label"] == "Point"
    fitted.adopt_shape("Gaussian")
    assert fitted.models["extended"].spatial_model.tag[-1] == "gauss" and fitted.fit_is_current
    fitted.adopt_shape("Disk")
    assert fitted.models["extended"].spatial_model.tag[-1] == "disk"
    fitted.undo()
    assert fitted.models["extended"].spatial_model.tag[-1] == "gauss" and fitted.fit_is_current
    names = list(fitted.models.names)
    fitted.adopt_shape("Second source")
    assert set(fitted.models.names) - set(names) == {"extended-b"} and fitted.fit_is_current
    assert fitted.selected == "extended"
    fitted.adopt_shape("Disk")
    assert list(fitted.models.names) == names
    fitted.undo()
    assert "extended-b" in fitted.models.names
    fitted.undo()
    with pytest.raises(ModelError, match="'Ring' is no hypothesis; expected one of Point"):
        fitted.adopt_shape("Ring")
    fitted.models["bright"].spatial_model.lon_0.value += 0.01
    with pytest.raises(ImgfitError, match="have changed since"):
        fitted.adopt_shape("Disk")


def test_a_background_has_no_shape(session):
    with pytest.raises(ModelError, match="it is no source"):
        compare_shapes(session.datasets, session.models, "stacked-bkg")


# --- search
def test_peaks_are_found_and_become_sources(session, demo_store):
    assert Session().why_not("find_sources") == "Reduce the data first"
    session.find_sources().wait(240)
    assert session.task.status == "done", session.task.error
    search = session.search
    assert search.maps["sqrt_ts"].data.shape == (1, *session.dataset.geom.shape)
    assert session.search_is_current and len(search.found) >= 2
    peak = search.found.table[0]
    assert peak["sqrt_ts"] > peak["sigma_post"] > 5
    name = session.add_found(str(peak["name"]))
    source = session.models[name]
    assert source.spatial_model.position_lonlat == pytest.approx((peak["lon"], peak["lat"]))
    assert session.search_is_current, "it counts against the background"
    assert session.preview.delta_ts > 50
    session.undo()
    assert name not in session.models.names
    with pytest.raises(ModelError, match="Nova: no such peak"):
        session.add_found("Nova")


def test_a_search_against_the_models_sees_what_they_leave(session, demo_store):
    session.set_models((demo_store / "truth.yaml").read_text())
    session.fit().wait(120)
    session.find_sources("models", threshold=5.0).wait(240)
    assert len(session.search.found) == 0
    session.remove_source("bright")
    assert not session.search_is_current
    with pytest.raises(InputError, match="against: 'sky'; expected one of background, models"):
        session.find_sources("sky")


def test_with_all_frozen_it_says_so_before(session):
    session.add_source(*session.dataset.geom.center_lonlat)
    for parameter in session.models.parameters:
        parameter.frozen = True
    asked = {verb for verb, question in QUESTIONS.items() if not question.needs_fit}
    assert {session.why_not(verb) for verb in asked} == {"Every parameter is frozen"}
