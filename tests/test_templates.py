"""Shapes that are no formula: images from files, and flat emission."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from brute_force import expected_counts
from toy import predicted, source, toy_dataset, with_counts

from imgfit_widgets.core.errors import ModelError
from imgfit_widgets.core.fit import Fit
from imgfit_widgets.core.maps import WcsGeom, WcsNDMap
from imgfit_widgets.core.models import (
    ConstantSpatialModel,
    GaussianSpatialModel,
    Models,
    TemplateSpatialModel,
)


def test_a_template_is_the_shape_of_its_image(template: Path) -> None:
    dataset = toy_dataset(2, slope=0.3)
    models = source(TemplateSpatialModel.read(template))
    ours = predicted(dataset, models)
    at = {"frame": "galactic", "lon_0": 0.1, "lat_0": -0.05}
    truth = expected_counts(dataset, source(GaussianSpatialModel(sigma=0.06, **at))[0])
    assert ours.sum() == pytest.approx(truth.sum(), rel=1e-3)
    assert ours.max() == pytest.approx(truth.max(), rel=3e-3)
    models.parameters["lon_0"].value += 0.0137
    moved = predicted(dataset, models)
    x = np.arange(moved.shape[2])
    shift = [(m * x).sum() / m.sum() for m in (ours, moved)]
    assert shift[1] - shift[0] == pytest.approx(-0.0137 / 0.02, abs=0.01)


def test_a_template_shows_where_most_of_its_light_comes_from(tmp_path: Path) -> None:
    for cells in (60, 901):  # and in larger pixels than those of a large image
        geom = WcsGeom.create((0.1, 60.0), 0.6, 0.6 / cells, "TAN", "galactic")
        lon, lat = geom.pixel_lonlat
        across = (lon - 0.1) * np.cos(np.radians(lat))
        two = [
            np.exp(-0.5 * ((across - x) ** 2 + (lat - 60.1) ** 2) / 0.03**2) for x in (-0.15, 0.15)
        ]
        model = TemplateSpatialModel(WcsNDMap(geom, sum(two)))
        labels = [label for label, _, _ in model.outline()]
        assert labels == ["68 % of the light", "", "image"]
        # 68 % of a Gaussian lie within 1.51 of its widths.
        places = []
        for _, lon, lat in model.outline()[:2]:
            x, y = (lon - 0.1) * np.cos(np.radians(60.1)), lat - 60.1
            places.append(float(x.mean()))
            radius = np.hypot(x - 0.15 * np.sign(x.mean()), y)
            np.testing.assert_allclose(radius, 1.51 * 0.03, atol=0.003)
            assert (x[0], y[0]) == (x[-1], y[-1])
        assert sorted(np.sign(places)) == [-1.0, 1.0]
        before = model.outline()[0][1]
        model.lon_0.value += 1.0
        np.testing.assert_allclose(model.outline()[0][1], before + 1.0)
    flat = TemplateSpatialModel(WcsNDMap(geom, np.ones(geom.shape)), normalize=False)
    assert [label for label, _, _ in flat.outline()] == ["image"]


def test_a_template_is_kept_by_the_path_of_its_image(template: Path, tmp_path: Path) -> None:
    models = source(TemplateSpatialModel.read(template, normalize=False))
    models.write(tmp_path / "models.yaml")
    # Beside the models file: without its folder, which may then move.
    assert f"filename: {template.name}\n" in (tmp_path / "models.yaml").read_text()
    (tmp_path / "far").mkdir()
    models.write(tmp_path / "far" / "models.yaml")
    assert f"filename: {template}\n" in (tmp_path / "far" / "models.yaml").read_text()
    # However it was named, from another folder.
    with contextlib.chdir(tmp_path):
        near = source(TemplateSpatialModel.read(template.name, normalize=False))
        near.write(Path("far") / "models.yaml", overwrite=True)
    assert Models.read(tmp_path / "far" / "models.yaml")[0].spatial_model.filename == str(template)
    again = Models.read(tmp_path / "models.yaml")
    spatial = again[0].spatial_model
    assert (spatial.filename, spatial.normalize, spatial.frame) == (
        str(template),
        False,
        "galactic",
    )
    np.testing.assert_allclose(spatial.canonical_values(), [0.1, -0.05], atol=1e-9)
    assert again.copy()[0].spatial_model.filename == str(template)
    assert spatial.evaluate(0.1, -0.05) == pytest.approx(1.0, abs=1e-2)
    assert spatial.lon_0.frozen


def test_images_that_are_no_shape_are_named(template: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nothing\.fits: cannot be read as FITS: No such file"):
        TemplateSpatialModel.read(tmp_path / "nothing.fits")
    header = fits.getheader(template)
    for name, data, message in (
        ("nan", np.full((5, 5), np.nan), "25 of its 25 pixels are not finite"),
        ("zero", np.zeros((5, 5)), "all its pixels are 0"),
        ("less", np.eye(5) - 0.5, "a pixel is -0.5; expected 0 or more"),
        ("cube", np.ones((3, 5, 5)), r"its shape is \(3, 5, 5\); expected one plane"),
    ):
        path = tmp_path / f"{name}.fits"
        fits.PrimaryHDU(data, header).writeto(path)
        with pytest.raises(ModelError, match=rf"{name}\.fits.*{message}"):
            TemplateSpatialModel.read(path)
    with pytest.raises(ModelError, match=r"spatial\.filename|filename: found None"):
        Models.from_yaml(
            "components:\n- name: a\n  type: SkyModel\n  spectral: {type: PowerLawSpectralModel}\n"
            "  spatial: {type: TemplateSpatialModel}\n"
        )
    with pytest.raises(ModelError, match="needs an image"):
        TemplateSpatialModel.new_at(0.0, 0.0, "icrs")


def test_flat_emission_is_exposure_times_solid_angle() -> None:
    dataset = toy_dataset(1, "CAR", (30.0, 60.0), slope=0.3)
    models = source(ConstantSpatialModel(value=50.0))
    ours = predicted(dataset, models)[0]
    edges = dataset.energy_axis_true.bounds
    flux = 2e-11 * (edges[:-1] ** -1.2 - edges[1:] ** -1.2) / (0.5**-1.2 - 5.0**-1.2)
    edisp = dataset.edisp.data[:, 0, 0, 0]
    expected = np.tensordot(flux * edisp, dataset.exposure.data * 1e4, axes=1)
    np.testing.assert_allclose(ours, expected * dataset.geom.solid_angle() * 50.0, rtol=1e-5)
    image = with_counts(dataset, ours[None] + dataset.background.data)
    start = source(ConstantSpatialModel(value=50.0), 1e-11, background=True)
    result = Fit().solve([image], start)
    assert result.success, result.message
    assert result.value("src", "amplitude") == pytest.approx(2e-11, rel=1e-3)
