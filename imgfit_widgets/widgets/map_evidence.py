"""What was found about positions, as curves on the sky: error ellipses and contours."""

from __future__ import annotations

import math
from typing import Any

from ..core.inference_result import Localisation
from ..core.models import SkyModel
from ..core.models.spatial import Outline, ellipse
from ..inferring import Answer
from ..session import Session

SHOWN = (0.68, 0.95)  # probabilities of the ellipses that are drawn
PLACE = ("lon_0", "lat_0")


def curves_of(session: Session) -> dict[str, list[Outline]]:
    """The newest curves that hold each source's position, in degrees of its frame.

    Those of data or models that have changed since are left out.
    """
    found: dict[str, list[Outline]] = {}
    now = session.circumstances if session.answers else None
    for answer in session.answers.values():
        curves = _curves(session, answer)
        if curves and now is not None and answer.holds(now):
            found[answer.source] = curves
    return found


def _curves(session: Session, answer: Answer) -> list[Outline]:
    if isinstance(answer.value, Localisation):
        return error_ellipses(answer.value)
    if answer.question != "find_contour":
        return []
    names = [tuple(name for _, name in contour.names) for contour in answer.value]
    if any(set(pair) != set(PLACE) for pair in names):
        return []
    model = session.models[answer.source] if answer.source in session.models.names else None
    if not isinstance(model, SkyModel) or not model.spatial_model.has_position:
        return []
    return [_contour(model, contour) for contour in answer.value]


def error_ellipses(place: Localisation) -> list[Outline]:
    """The ellipses that hold the position with the probabilities `SHOWN`."""
    curves = []
    for probability in SHOWN:
        reach = math.sqrt(-2.0 * math.log1p(-probability))
        axes = reach * place.semi_major, reach * place.semi_minor
        lon, lat = ellipse(place.lon, place.lat, *axes, math.radians(place.angle))
        curves.append((f"{100 * probability:.0f} % position", lon, lat))
    return curves


def _contour(model: SkyModel, contour: Any) -> Outline:
    columns = {
        name: values * model.spatial_model.parameters[name].factor_to_expected
        for (_, name), values in zip(contour.names, (contour.x, contour.y), strict=True)
    }
    return f"{100 * contour.cl:.0f} % position", columns["lon_0"], columns["lat_0"]
