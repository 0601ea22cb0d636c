"""What the tests of the session and its panels share: places in the small simulated dataset."""

from __future__ import annotations

from imgfit_widgets.core.models import Models


def centre(session):
    """The centre of the map, degrees."""
    return session.dataset.geom.center_lonlat


def bright(demo_store):
    """Where the brightest source was simulated: longitude, latitude, flux."""
    model = Models.read(demo_store / "truth.yaml")[0]
    return (*model.spatial_model.position_lonlat, model.linear_parameter.value)
