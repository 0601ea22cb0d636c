"""Sources as the editor changes them: what a new shape, spectrum or frame keeps; links, priors."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from imgfit_widgets.changes import can_be_linked, linked_with
from imgfit_widgets.core.errors import ConfigError, ModelError
from imgfit_widgets.core.models import (
    SPATIAL_MODELS,
    SPECTRAL_MODELS,
    GaussianPrior,
    Models,
    UniformPrior,
)
from imgfit_widgets.session import Session

SHAPES = [cls.tag[-1] for cls in SPATIAL_MODELS if cls.size_parameter]
SPECTRA = [cls.tag[-1] for cls in SPECTRAL_MODELS if cls.unit]


@pytest.fixture
def source(session):
    name = session.add_source(*session.dataset.geom.center_lonlat, spatial="gauss")
    session.models[name].spatial_model.lon_0.value += 0.1
    return session.models[name]


def variance(shape, axis):
    """Second moment of a shape along longitude (0) or latitude (1), by a sum over a grid."""
    lon, lat = shape.position_lonlat
    steps = (np.arange(601) - 300) * 0.005
    offsets = np.meshgrid(steps, steps)
    weight = shape.evaluate(lon + offsets[0], lat + offsets[1])
    return float((weight * offsets[axis] ** 2).sum() / weight.sum())


# --- shape
@pytest.mark.parametrize("tag", SHAPES)
def test_a_new_shape_keeps_place_and_extent(session, source, tag):
    place = source.spatial_model.position_lonlat
    source.spatial_model.sigma.value = 0.2
    steps = session.history
    session.set_shape(source.name, tag)
    shape = source.spatial_model
    assert tag in shape.tag and shape.position_lonlat == place and shape.frame == "galactic"
    for axis in (0, 1):
        assert variance(shape, axis) == pytest.approx(0.04, rel=0.03)
    session.undo()
    assert session.models[source.name].spatial_model.tag[-1] == "gauss" and steps.can_redo


def test_an_ellipse_stays_the_same_ellipse_and_a_round_shape_takes_its_mean(session, source):
    shape = source.spatial_model
    shape.sigma.value, shape.e.value, shape.phi.value = 0.2, 0.8, 30.0
    shape.e.frozen = False
    session.set_shape(source.name, "disk")
    disk = source.spatial_model
    assert (disk.e.value, disk.phi.value, disk.e.frozen) == (0.8, 30.0, False)
    assert disk.r_0.value == pytest.approx(0.4, rel=0.01), "r_0 / 2 is a disk's deviation"
    session.set_shape(source.name, "shell2")
    mean = 0.2 * np.sqrt(0.6)
    assert variance(source.spatial_model, 0) == pytest.approx(mean**2, rel=0.03)


def test_a_point_becomes_a_shape_of_its_default_size(session, source):
    session.set_shape(source.name, "point")
    session.set_shape(source.name, "disk")
    assert source.spatial_model.r_0.value == 0.1


def test_a_template_needs_an_image_it_may_read(session, source, tmp_path):
    with pytest.raises(ModelError, match="Source-1: a TemplateSpatialModel needs an image"):
        session.set_shape(source.name, "template")
    with pytest.raises(ModelError, match=r"nowhere\.fits: cannot be read"):
        session.set_shape(source.name, "template", str(tmp_path / "nowhere.fits"))
    assert source.spatial_model.tag[-1] == "gauss" and "nowhere" in session.error
    path = tmp_path / "image.fits"
    image(session, path)
    session.set_shape(source.name, "template", str(path))
    assert source.spatial_model.tag[-1] == "template" and session.error == ""
    session.data_roots = (str(tmp_path / "elsewhere"),)
    with pytest.raises(ConfigError, match=r"Source-1\.filename: .* not in a folder"):
        session.set_shape(source.name, "template", str(path))
    text = session.models.to_yaml()
    with pytest.raises(ConfigError, match=r"spatial\.filename"):
        session.set_models(text)
    saved = session.export_session()[1]
    with pytest.raises(ConfigError, match=r"spatial\.filename"):
        Session(data_roots=session.data_roots).open(saved)
    Session().open(saved)


def image(session, path):
    geom = session.dataset.geom.to_image()
    data = np.zeros(geom.shape)
    data[20:40, 30:50] = 1.0
    fits.writeto(path, data, geom.wcs.to_header())


# --- spectrum
@pytest.mark.parametrize("tag", SPECTRA)
def test_a_new_spectrum_keeps_the_flux_and_the_slope(session, source, tag):
    source.spectral_model.index.value = 2.4
    bounds = session.dataset.energy_axis.bounds
    before = source.spectral_model.integral(*bounds[[0, -1]])
    session.set_spectrum(source.name, tag)
    spectrum = source.spectral_model
    assert tag in spectrum.tag
    assert spectrum.integral(*bounds[[0, -1]]) == pytest.approx(before, rel=1e-3)
    free = [p.name for p in spectrum.parameters if not p.frozen]
    assert free == [spectrum.linear], "one band says nothing of the others"
    if tag in ("pl", "lp", "template"):
        e = np.array([1.0, 10.0])
        flux = spectrum.evaluate(e)
        assert np.log(flux[0] / flux[1]) / np.log(10) == pytest.approx(2.4, abs=1e-6)
    session.set_spectrum(source.name, "pl-2")
    assert source.spectral_model.integral(*bounds[[0, -1]]) == pytest.approx(before, rel=1e-3)


def test_a_factor_of_a_background_is_no_spectrum_of_a_source(session, source):
    with pytest.raises(ModelError, match="'pl-norm' is not a spectrum; expected one of"):
        session.set_spectrum(source.name, "pl-norm")
    with pytest.raises(ModelError, match="it is a background"):
        session.set_spectrum("stacked-bkg", "pl")


# --- frame and datasets
def test_another_frame_is_the_same_place_and_the_same_ellipse(session, source):
    shape = source.spatial_model
    shape.sigma.value, shape.e.value, shape.phi.value = 0.2, 0.8, 20.0
    geom = session.dataset.geom.to_image()
    lon, lat = geom.pix_to_lonlat(*np.meshgrid(*(np.arange(n, dtype=float) for n in geom.npix)))
    before = shape.evaluate(lon, lat)
    session.set_frame(source.name, "icrs")
    turned = source.spatial_model
    assert turned.frame == "icrs" and abs(turned.phi.value - 20.0) > 10
    there = geom.to_frame(lon, lat, "icrs")
    np.testing.assert_allclose(turned.evaluate(*there), before, atol=2e-4 * before.max())
    session.undo()
    assert session.models[source.name].frame == "galactic"


def test_a_source_belongs_to_the_datasets_that_are_chosen(session, source):
    with pytest.raises(ModelError, match="'other' is no dataset; expected some of stacked"):
        session.set_datasets_names(source.name, ["other"])
    with pytest.raises(ModelError, match="at least one"):
        session.set_datasets_names(source.name, [])
    session.set_datasets_names(source.name, ["stacked"])
    assert source.datasets_names is None, "all of them"


# --- links and priors
def test_links_are_made_and_dissolved_as_steps_of_undo(session, source):
    lon, lat = session.dataset.geom.center_lonlat
    second = session.add_source(lon - 0.5, lat)
    third = session.add_source(lon + 0.5, lat)
    first = source.spatial_model.lat_0
    labels = [p.label for p in can_be_linked(session.models, first)]
    assert labels == [f"{second}.lat_0", f"{third}.lat_0"]
    for name in (second, third):
        session.link(f"{name}.lat_0", first)
    first.value = 0.3
    assert {session.models[name].spatial_model.lat_0.value for name in (second, third)} == {0.3}
    assert [p.label for p in linked_with(session.models, first)] == labels
    session.unlink(first)
    first.value = 0.1
    two, three = (session.models[name].spatial_model.lat_0 for name in (second, third))
    assert (two.value, three.value) == (0.3, 0.3) and three.leader is two.leader is two
    session.undo(), session.undo()
    assert len(linked_with(session.models, session.models[second].spatial_model.lat_0)) == 2
    # No size follows an angle, and no index a curvature.
    names = {p.name for p in can_be_linked(session.models, source.parameters["sigma"])}
    assert names <= {"sigma", "r_0", "radius", "width"}
    assert {p.name for p in can_be_linked(session.models, source.parameters["index"])} == {"index"}
    with pytest.raises(ModelError, match=r"Source-1\.lat: no such parameter; expected one of"):
        session.link("Source-1.lat", first)


def test_a_link_of_the_place_outlives_the_shape(session, source):
    other = session.add_source(*session.dataset.geom.center_lonlat)
    session.link(f"{other}.lat_0", source.spatial_model.lat_0)
    session.set_shape(source.name, "disk")
    assert linked_with(session.models, source.spatial_model.lat_0) == [
        session.models[other].spatial_model.lat_0
    ]
    source.spatial_model.lat_0.value = 0.25
    assert session.models[other].spatial_model.lat_0.value == 0.25


def test_priors_are_set_and_undone_and_make_a_fit_stale(session, source):
    session.fit().wait(120)
    assert session.fit_is_current
    session.set_prior(f"{source.name}.sigma", GaussianPrior(0.2, 0.01))
    assert source.spatial_model.sigma.prior == GaussianPrior(0.2, 0.01)
    assert not session.fit_is_current
    session.undo()
    assert session.models[source.name].spatial_model.sigma.prior is None and session.fit_is_current
    session.set_prior(f"{source.name}.sigma", UniformPrior(0.05, 0.3))
    assert "UniformPrior" in session.models.to_yaml()
    session.set_prior(f"{source.name}.sigma", None)
    assert session.fit_is_current


def test_a_prior_pulls_the_live_statistic(session, source):
    before = session.preview.stat
    prior = GaussianPrior(source.spatial_model.sigma.value + 1.0, 0.1)
    session.set_prior(source.spatial_model.sigma, prior)
    assert session.preview.stat - before == pytest.approx(
        prior.penalty(source.spatial_model.sigma.value)[0]
    )


# --- regions
def test_regions_come_in_as_sources_and_go_out_again(session, source):
    lon, lat = session.dataset.geom.center_lonlat
    text = f"galactic\ncircle({lon},{lat},0.2) # text={{Ring}}\npoint({lon - 0.3},{lat})\n"
    names = session.add_regions(text)
    assert names[0] == "Ring" and session.selected == names[-1]
    assert [session.models[n].spatial_model.tag[-1] for n in names] == ["disk", "point"]
    name, content = session.export_regions()
    assert name == "sources.reg" and b"Ring" in content
    session.undo()
    assert session.models.names == [source.name, "stacked-bkg"]
    session.models[source.name].parameters["sigma"].value = 0.0
    assert b"point" in session.export_regions()[1], "a circle has no radius of 0"
    with pytest.raises(ModelError, match="not on the map"):
        session.add_regions("galactic\npoint(10,0)\n")
    with pytest.raises(ModelError, match="expected points, circles"):
        session.add_regions("nothing of use")
    session.set_models(Models())
    assert session.export_regions()[0] == "sources.reg"
