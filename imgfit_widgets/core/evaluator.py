"""The likelihood of datasets and models as a function of a flat float64 vector.

`Evaluator` is compiled once from datasets and models. It then gives the Cash statistic and its
exact gradient for any values of the free parameters, in their own units and in the order of
``models.parameters.free_parameters``. It holds no Quantity and no trait.

How the work is kept small. A source is a sum over mixture widths w of ``c[r, w] Ey[w] (x) Ex[w]``:
r is the energy band, E a Gaussian integrated over the pixels of one axis, c the expected counts.
Only the pixels of a rectangle around each source are touched at a step (sources whose rectangles
overlap share a region); everywhere else the prediction is the scaled background, whose statistic
is a closed form of sums taken at compile. The gradient is taken backwards: from the derivative G of
the statistic by each pixel's prediction, through ``G Ex`` and ``Ey G``, never through an image for
each parameter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .errors import DataError, ModelError
from .maps import WcsGeom
from .models import (
    FoVBackgroundModel,
    GaussianSpatialModel,
    Models,
    PointSpatialModel,
    SkyModel,
    SpectralModel,
)
from .response import LocalResponse, PixelIntegrals, PixelPosition, Response
from .stats import FLOOR, TRUNCATION, PoissonTerm

__all__ = ["DatasetLike", "Evaluator"]

_TAIL = 2e-5
"""Share of a source that may lie beyond its rectangle on each axis."""
_NEGLIGIBLE = 1e-9
"""Widths whose share of the mixture stays below this are left out."""
_MIN_MARGIN_DEG = 0.06
"""How far a source may move before its rectangle follows."""


class DatasetLike(Protocol):
    """What the evaluator reads of a dataset: maps of counts-like quantities and responses.

    ``counts, background`` (band, y, x) and ``exposure`` (true energy, y, x; m2 s) are maps with
    ``data``; ``edisp`` has ``data`` (true energy, band, y, x) and ``psf`` has ``widths`` (deg) and
    ``weights`` (true energy, width, y, x), each on a ``geom`` of its own. ``mask`` marks the bins
    that are fitted.
    """

    @property
    def name(self) -> str: ...
    @property
    def geom(self) -> WcsGeom: ...
    @property
    def energy_axis(self) -> Any: ...
    @property
    def energy_axis_true(self) -> Any: ...
    @property
    def counts(self) -> Any: ...
    @property
    def background(self) -> Any: ...
    @property
    def exposure(self) -> Any: ...
    @property
    def edisp(self) -> Any: ...
    @property
    def psf(self) -> Any: ...
    @property
    def mask(self) -> np.ndarray | None: ...


class Evaluator:
    """Statistic, gradient and prediction of datasets under models.

    Not to be shared between threads.

    Parameters
    ----------
    datasets : sequence of DatasetLike
    models : Models
        Read now; later changes of them have no effect.

    Raises
    ------
    ModelError
        For a model that these datasets cannot be compared with: its name, parameter and why.

    Attributes
    ----------
    names : list of (model, parameter)
        The free parameters.
    x0 : ndarray, shape (n_free,)
        Their values in the models.
    free_places : ndarray of int, shape (n_free,)
        Their positions among all parameters.
    """

    def __init__(self, datasets: Sequence[DatasetLike], models: Models) -> None:
        self.models = models
        check_models(datasets, models)
        parameters = list(models.parameters)
        self._place = {(p.owner, p.name): i for i, p in enumerate(parameters)}
        self._base = np.array([p.value * p.factor_to_expected for p in parameters])
        free = [i for i, p in enumerate(parameters) if not p.frozen]
        self.free_places = np.array(free, dtype=int)
        self.units = np.array([parameters[i].factor_to_expected for i in free])
        self.names = [(parameters[i].owner, parameters[i].name) for i in free]
        self.x0 = np.array([parameters[i].value for i in free])
        self.free_parameters = [parameters[i] for i in free]
        free_set = set(free)
        self.terms = [DatasetTerm(d, models, self._place, free_set) for d in datasets]
        for model in models.sky_models:
            sources = self._sources(model.name)
            if not any(s.on_map(self._base) for s in sources):
                raise ModelError(sources[0].off_map_message(self._base))

    def full(self, x: np.ndarray) -> np.ndarray:
        """All parameters in canonical units, with the free ones at ``x``."""
        p = self._base.copy()
        p[self.free_places] = x * self.units
        return p

    def place(self, model: str, parameter: str) -> int:
        """Position of a parameter among all parameters."""
        return self._place[(model, parameter)]

    def stat(self, x: np.ndarray) -> float:
        """Cash statistic over the fit mask."""
        p = self.full(x)
        return sum(term.evaluate(p, None) for term in self.terms)

    def stat_and_gradient(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Cash statistic and its derivatives with respect to ``x``."""
        p = self.full(x)
        gradient = np.zeros(len(p))
        stat = sum(term.evaluate(p, gradient) for term in self.terms)
        return stat, gradient[self.free_places] * self.units

    def information(self, x: np.ndarray) -> np.ndarray:
        """Expected second derivatives of the statistic, shape (n_free, n_free).

        The Fisher information: never negative, also where the statistic itself curves down. The
        drift of the response with position is left out of it.
        """
        p = self.full(x)
        place = {int(place): i for i, place in enumerate(self.free_places)}
        matrix = np.zeros((len(x), len(x)))
        for term in self.terms:
            term.add_information(p, place, matrix)
        return matrix * np.outer(self.units, self.units)

    def npred(self, x: np.ndarray) -> list[np.ndarray]:
        """Predicted counts of each dataset, background included, shape (band, y, x)."""
        return self.npred_full(self.full(x))

    def npred_full(self, p: np.ndarray) -> list[np.ndarray]:
        """`npred` for all parameters in canonical units."""
        found = []
        for term in self.terms:
            image = term.predicted_background(p)
            for source in term.sources:
                source.add_to(image, p)
            found.append(image)
        return found

    def npred_of(self, model: str, x: np.ndarray) -> list[np.ndarray]:
        """Predicted counts of one component in each dataset, shape (band, y, x)."""
        p = self.full(x)
        component = self.models[model]
        found = []
        for term in self.terms:
            if isinstance(component, FoVBackgroundModel):
                own = term.norm is not None and term.norm.model == model
                found.append(term.predicted_background(p) if own else np.zeros(term.shape))
                continue
            image = np.zeros(term.shape)
            for source in term.sources:
                if source.model.name == model:
                    source.add_to(image, p)
            found.append(image)
        return found

    def recentre(self, x: np.ndarray) -> None:
        """Place every rectangle around its source at ``x``."""
        p = self.full(x)
        for term in self.terms:
            term.lay_out(p)

    def position_on_map(self, model: str, x: np.ndarray) -> bool:
        """Whether a source at ``x`` lies on a pixel of at least one dataset."""
        p = self.full(x)
        return any(s.on_map(p) for s in self._sources(model))

    def extent(self, model: str) -> tuple[tuple[float, float], tuple[float, float], float]:
        """The longitudes, latitudes and half the diagonal of the maps that a source may be on.

        Degrees in the source's frame; longitudes are near that of the source in its models.
        """
        lon_0 = float(self._base[self.place(model, "lon_0")])
        parts = [s.extent(lon_0) for s in self._sources(model)]
        lows, highs = np.min(parts, axis=0), np.max(parts, axis=0)
        return (lows[0], highs[1]), (lows[2], highs[3]), highs[4]

    def _sources(self, model: str) -> list[Source]:
        return [s for term in self.terms for s in term.sources if s.model.name == model]


def check_models(datasets: Sequence[DatasetLike], models: Models) -> None:
    """Refuse models that cannot be evaluated on these datasets."""
    names = [d.name for d in datasets]
    known = ", ".join(repr(n) for n in names) or "none"
    seen: dict[str, str] = {}
    for model in models:
        wanted = model.datasets_names
        if wanted is not None and not set(wanted) & set(names):
            raise ModelError(
                f"{model.name}.datasets_names: {', '.join(map(repr, wanted))} is not among the "
                f"datasets; there are: {known}"
            )
        if isinstance(model, FoVBackgroundModel):
            other = seen.setdefault(model.dataset_name, model.name)
            if other != model.name:
                raise ModelError(
                    f"{model.name}: dataset {model.dataset_name!r} has a background model already, "
                    f"{other!r}"
                )
            if datasets[names.index(model.dataset_name)].background is None:
                raise ModelError(
                    f"{model.name}: dataset {model.dataset_name!r} has no background to scale"
                )
            continue
        spatial = model.spatial_model
        if not isinstance(spatial, (PointSpatialModel, GaussianSpatialModel)):
            raise ModelError(
                f"{model.name}: spatial model {type(spatial).__name__} is not supported in a fit"
            )
        if isinstance(spatial, GaussianSpatialModel) and (
            spatial.e.value != 0 or not spatial.e.frozen or not spatial.phi.frozen
        ):
            raise ModelError(
                f"{model.name}.e: an elongated Gaussian is not supported yet; expected e = 0 and "
                "frozen, phi frozen"
            )
        _check_spectrum(model)


def _check_spectrum(model: SkyModel) -> None:
    values = {p.name: p.value * p.factor_to_expected for p in model.spectral_model.parameters}
    for name in ("emin", "emax", "reference"):
        if name in values and not values[name] > 0:
            raise ModelError(f"{model.name}.{name}: {values[name]:g} TeV; expected more than 0")
    if "emin" in values and not values["emin"] < values["emax"]:
        raise ModelError(
            f"{model.name}.emax: {values['emax']:g} TeV; expected more than emin, "
            f"{values['emin']:g} TeV"
        )


class _Norm:
    """The background factor of each band and its derivatives."""

    def __init__(
        self, model: FoVBackgroundModel, place: dict[tuple[str, str], int], energy: np.ndarray
    ) -> None:
        self.model = model.name
        self.tilt, self.norm, self.reference = (
            place[(model.name, name)] for name in ("tilt", "norm", "reference")
        )
        self._log_energy = np.log(energy)

    def shape(self, p: np.ndarray) -> np.ndarray:
        """Factor of each band at norm 1."""
        return np.asarray(np.exp(-p[self.tilt] * self._distance(p)))

    def columns(self, p: np.ndarray) -> dict[int, np.ndarray]:
        """Derivatives of each band's factor by each parameter."""
        shape = self.shape(p)
        factor = p[self.norm] * shape
        return {
            self.norm: shape,
            self.tilt: -factor * self._distance(p),
            self.reference: factor * (p[self.tilt] / p[self.reference]),
        }

    def add_gradient(self, p: np.ndarray, slope: np.ndarray, gradient: np.ndarray) -> None:
        """``slope``: derivative of the statistic by each band's factor."""
        for place, column in self.columns(p).items():
            gradient[place] += float(slope @ column)

    def _distance(self, p: np.ndarray) -> np.ndarray:
        return np.asarray(self._log_energy - math.log(p[self.reference]))


class Source:
    """One source in one dataset: its counts in each band and width, and its rectangle."""

    def __init__(
        self,
        model: SkyModel,
        dataset: DatasetLike,
        response: Response,
        place: dict[tuple[str, str], int],
        free: set[int],
    ) -> None:
        self.model, self.geom, self._response = model, dataset.geom, response
        self.dataset_name = dataset.name
        self._spectral: SpectralModel = model.spectral_model
        self._spectrum = [place[(model.name, q.name)] for q in self._spectral.parameters]
        self.linear = place[(model.name, self._spectral.linear)]
        self._linear_at = self._spectrum.index(self.linear)
        self._shape_free = any(i in free for i in self._spectrum if i != self.linear)
        self._lon, self._lat = place[(model.name, "lon_0")], place[(model.name, "lat_0")]
        self._sigma = place.get((model.name, "sigma"))
        self._pixel = PixelPosition(dataset.geom, model.frame)
        edges = np.asarray(dataset.energy_axis_true.edges.to_value("TeV"), dtype=float)
        self._energies = edges[:-1], edges[1:]
        self._flux_key: tuple[float, ...] | None = None
        self._flux = self._flux_slopes = np.empty(0)
        self._place_key = (np.nan, np.nan)
        self._place = (np.nan, np.nan, np.empty((2, 2)))
        # The rectangle: pixels [y0, y1) x [x0, x1), the widths used there, and where the source
        # has to stay for it to hold.
        self.box = (0, 0, 0, 0)
        self._used = np.arange(len(response.widths))
        self._centre = (np.nan, np.nan)
        self._margin = 0.0
        self._sigma_range = (0.0, 0.0)

    # --- position
    def position(self, p: np.ndarray) -> tuple[float, float, np.ndarray]:
        """Pixel coordinates and their derivatives by (lon, lat)."""
        key = float(p[self._lon]), float(p[self._lat])
        if key != self._place_key:
            self._place_key, self._place = key, self._pixel.at(*key)
        return self._place

    def on_map(self, p: np.ndarray) -> bool:
        """Whether the position falls onto a pixel."""
        x, y, _ = self.position(p)
        ny, nx = self.geom.shape
        return -0.5 <= x <= nx - 0.5 and -0.5 <= y <= ny - 0.5

    def off_map_message(self, p: np.ndarray) -> str:
        """What to tell a user whose source is not on the map."""
        lon, lat = self.geom.center_lonlat
        width, height = self.geom.width
        return (
            f"{self.model.name}.lon_0, lat_0: ({p[self._lon]:g}, {p[self._lat]:g}) deg "
            f"{self.model.frame} is off the map of dataset {self.dataset_name!r}; expected a "
            f"position on its {width:g} x {height:g} deg around ({lon:g}, {lat:g}) deg "
            f"{self.geom.frame}"
        )

    def extent(self, lon_0: float) -> tuple[float, float, float, float, float]:
        """Least and largest lon and lat of the map (deg, the model's frame), half its diagonal."""
        ny, nx = self.geom.shape
        x, y = np.meshgrid(np.linspace(-0.5, nx - 0.5, 21), np.linspace(-0.5, ny - 0.5, 21))
        lon, lat = self.geom.to_frame(*self.geom.pix_to_lonlat(x, y), self.model.frame)
        lon = (lon - lon_0 + 180.0) % 360.0 - 180.0 + lon_0
        half = 0.5 * math.hypot(*self.geom.width)
        return (
            float(np.nanmin(lon)), float(np.nanmax(lon)),
            float(np.nanmin(lat)), float(np.nanmax(lat)), half,
        )

    def psf_width(self, p: np.ndarray) -> float:
        """Effective width (deg) of the source in the map: the mixture's, with its own size."""
        unit = self.state(p, slopes=False)
        total = float(unit.unit.sum())
        if not total > 0:
            return float(np.median(self._response.widths))
        variance = float((unit.unit @ unit.sigma**2).sum()) / total
        return math.sqrt(variance) if variance > 0 else float(self._response.widths[0])

    # --- rectangle
    def stays(self, p: np.ndarray) -> bool:
        """Whether the rectangle still holds the source."""
        x, y, _ = self.position(p)
        if not max(abs(x - self._centre[0]), abs(y - self._centre[1])) <= self._margin:
            return False
        size = abs(p[self._sigma]) if self._sigma is not None else 0.0
        return bool(self._sigma_range[0] <= size <= self._sigma_range[1])

    def lay_out(self, p: np.ndarray) -> None:
        """Put the rectangle around the source."""
        x, y, _ = self.position(p)
        ny, nx = self.geom.shape
        size = abs(float(p[self._sigma])) if self._sigma is not None else 0.0
        flux = self._unit_flux(p)[0]
        local = self._response.at(x, y)
        strength = np.abs(flux * local.exposure[0])[:, None] * np.abs(local.edisp[0])
        share = strength.max(axis=1)
        share = share / max(float(share.sum()), 1e-300)
        nodes = self._response.weight_nodes(x, y)
        reached = np.einsum("ntw,t->w", np.abs(nodes), share)
        used = np.flatnonzero(reached > _NEGLIGIBLE)
        self._used = used if len(used) else np.arange(len(self._response.widths))
        mixture = (share @ local.weights[0])[self._used]
        largest = 1.3 * size + 0.3 * float(self._response.widths[self._used].min())
        widths = np.hypot(self._response.widths[self._used], largest if size else 0.0)
        reach = _reach(mixture, widths)
        margin = max(_MIN_MARGIN_DEG, 0.1 * reach)
        metric = self._pixel.metric(x, y)[0]
        scale = math.sqrt(metric[0]), math.sqrt(metric[2])
        self._centre, self._margin = (x, y), margin * min(scale)
        self._sigma_range = (0.5 * size if size > 0.5 * reach else 0.0, largest)
        half = [(reach + margin) * s for s in scale]
        self.box = (
            int(np.clip(math.floor(y - half[1]), 0, ny)),
            int(np.clip(math.ceil(y + half[1]) + 1, 0, ny)),
            int(np.clip(math.floor(x - half[0]), 0, nx)),
            int(np.clip(math.ceil(x + half[0]) + 1, 0, nx)),
        )

    # --- prediction
    def _unit_flux(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Flux (cm-2 s-1) in each true-energy bin at amplitude 1, and its derivatives."""
        values = p[self._spectrum]
        values[self._linear_at] = 1.0
        key = tuple(values)
        if key != self._flux_key:
            self._flux, self._flux_slopes = self._spectral.integral_values(values, *self._energies)
            self._flux_key = key
        return self._flux, self._flux_slopes

    def state(self, p: np.ndarray, slopes: bool) -> SourceState:
        """Everything about the source at ``p`` that its pixels and gradient need."""
        x, y, jacobian = self.position(p)
        flux, flux_slopes = self._unit_flux(p)
        local = self._response.at(x, y)
        weights = local.weights[:, :, self._used]
        rate = flux * local.exposure[0]
        spread = rate[:, None] * local.edisp[0]
        unit = spread.T @ weights[0]
        unit_slopes = np.empty((0, *unit.shape))
        if slopes:
            moved = (flux * local.exposure[1:])[:, :, None] * local.edisp[0]
            moved += rate[:, None] * local.edisp[1:]
            unit_slopes = moved.transpose(0, 2, 1) @ weights[0] + spread.T @ weights[1:]
        metric = self._pixel.metric(x, y)
        size = float(p[self._sigma]) if self._sigma is not None else 0.0
        sigma = self._response.widths[self._used]
        if size:
            sigma = np.hypot(sigma, size)
        scale = np.sqrt(metric[0, [0, 2]])
        y0, y1, x0, x1 = self.box
        along_x = PixelIntegrals(x0, x1, x, sigma * scale[0])
        along_y = PixelIntegrals(y0, y1, y, sigma * scale[1])
        rho = float(metric[0, 1] / (scale[0] * scale[1]))
        if abs(rho) < 1e-9:
            rho = 0.0
        return SourceState(
            self, float(p[self.linear]), jacobian, local, weights, flux_slopes, unit, unit_slopes,
            metric, scale, rho, size, sigma, along_x, along_y,
        )

    def add_to(self, image: np.ndarray, p: np.ndarray) -> None:
        """Add the predicted counts to a full image, with a rectangle of their own."""
        if not self.stays(p):
            self.lay_out(p)
        y0, y1, x0, x1 = self.box
        if y1 > y0 and x1 > x0:
            image[:, y0:y1, x0:x1] += self.state(p, slopes=False).counts()

    def columns(self, state: SourceState) -> dict[int, np.ndarray]:
        """Derivatives of the counts in the rectangle by each parameter, shape (R, ny, nx)."""
        by_x, by_y, by_size = state.slopes()
        jacobian = state.jacobian
        found = {
            self.linear: state.template(),
            self._lon: by_x * jacobian[0, 0] + by_y * jacobian[1, 0],
            self._lat: by_x * jacobian[0, 1] + by_y * jacobian[1, 1],
        }
        if self._sigma is not None:
            found[self._sigma] = by_size
        if self._shape_free:
            for i, place in enumerate(self._spectrum):
                if i != self._linear_at:
                    rate = state.amplitude * state.flux_slopes[i] * state.local.exposure[0]
                    unit = (rate[:, None] * state.local.edisp[0]).T @ state.weights[0]
                    left = state.along_y.value.T * unit[:, None, :]
                    found[place] = left @ state.along_x.value
        return found

    def add_gradient(self, state: SourceState, slope: np.ndarray, gradient: np.ndarray) -> None:
        """Add to ``gradient`` what follows from the statistic's derivative by each pixel."""
        by_unit, by_xy, by_size = state.pull_back(slope)
        amplitude = state.amplitude
        gradient[self.linear] += float(np.vdot(by_unit, state.unit))
        by_lonlat = (by_xy * amplitude) @ state.jacobian
        gradient[self._lon] += by_lonlat[0]
        gradient[self._lat] += by_lonlat[1]
        if self._sigma is not None:
            gradient[self._sigma] += by_size * amplitude
        if self._shape_free:
            by_spread = state.weights[0] @ by_unit.T
            by_flux = state.local.exposure[0] * np.sum(state.local.edisp[0] * by_spread, axis=1)
            for i, place in enumerate(self._spectrum):
                if i != self._linear_at:
                    gradient[place] += amplitude * float(state.flux_slopes[i] @ by_flux)


@dataclass
class SourceState:
    """A source at given parameters: counts at amplitude 1 by band and width, and pixel integrals.

    ``unit`` has shape (R, W), ``unit_slopes`` (2, R, W) by x and y; ``sigma`` (W,) is in degrees.
    """

    source: Source
    amplitude: float
    jacobian: np.ndarray
    local: LocalResponse
    weights: np.ndarray
    flux_slopes: np.ndarray
    unit: np.ndarray
    unit_slopes: np.ndarray
    metric: np.ndarray
    scale: np.ndarray
    rho: float
    size: float
    sigma: np.ndarray
    along_x: PixelIntegrals
    along_y: PixelIntegrals

    def template(self) -> np.ndarray:
        """Counts in the rectangle at amplitude 1, shape (R, ny, nx)."""
        left = self.along_y.value.T * self.unit[:, None, :]
        image = left @ self.along_x.value
        if self.rho:
            left = self.along_y.moment(0).T * self.unit[:, None, :]
            image += self.rho * (left @ self.along_x.moment(0))
        return np.asarray(image)

    def counts(self) -> np.ndarray:
        """Counts in the rectangle."""
        return self.template() * self.amplitude

    def slopes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Derivatives of the counts by pixel x, by y and by size, at a fixed response.

        Each of shape (R, ny, nx).
        """
        ax, ay, unit = self.along_x, self.along_y, self.unit * self.amplitude
        left = ay.value.T * unit[:, None, :]
        by_x = -left @ (ax.moment(0) / ax.sigma[:, None])
        by_y = -((ay.moment(0) / ay.sigma[:, None]).T * unit[:, None, :]) @ ax.value
        if not self.size:
            return by_x, by_y, np.zeros_like(by_x)
        share = self.size / self.sigma**2
        by_size = -left @ (ax.moment(1) * share[:, None])
        by_size -= ((ay.moment(1) * share[:, None]).T * unit[:, None, :]) @ ax.value
        return by_x, by_y, by_size

    def pull_back(self, slope: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """From the derivative by each pixel's counts to those by what shapes the source.

        Parameters
        ----------
        slope : ndarray, shape (R, ny, nx)

        Returns
        -------
        by_unit : ndarray, shape (R, W)
            By `unit`, for amplitude 1.
        by_xy : ndarray, shape (2,)
            By the pixel position, for amplitude 1.
        by_size : float
            By the source's sigma in degrees, for amplitude 1.
        """
        ax, ay, unit = self.along_x, self.along_y, self.unit
        to_x = slope @ ax.value.T
        by_unit = np.einsum("wi,riw->rw", ay.value, to_x)
        over_y = np.einsum("rw,riw->wi", unit, to_x)
        over_x = np.einsum("rw,rwj->wj", unit, ay.value @ slope)
        x0, y0 = ax.moment(0), ay.moment(0)
        # For each width: by the centre and by sigma along each axis, in pixels.
        by_x = -np.einsum("wj,wj->w", x0, over_x) / ax.sigma
        by_y = -np.einsum("wi,wi->w", y0, over_y) / ay.sigma
        by_sx = -np.einsum("wj,wj->w", ax.moment(1), over_x) / ax.sigma
        by_sy = -np.einsum("wi,wi->w", ay.moment(1), over_y) / ay.sigma
        by_rho = 0.0
        if self.rho:
            to_x = slope @ x0.T
            turned = np.einsum("wi,riw->rw", y0, to_x)
            by_unit = by_unit + self.rho * turned
            by_rho = float(np.vdot(unit, turned))
            over_y = np.einsum("rw,riw->wi", unit, to_x)
            over_x = np.einsum("rw,rwj->wj", unit, y0 @ slope)
            rho = self.rho
            by_x += rho * np.einsum("wj,wj->w", ax.moment(1), over_x) / ax.sigma
            by_y += rho * np.einsum("wi,wi->w", ay.moment(1), over_y) / ay.sigma
            by_sx += rho * np.einsum("wj,wj->w", ax.moment(2), over_x) / ax.sigma
            by_sy += rho * np.einsum("wi,wi->w", ay.moment(2), over_y) / ay.sigma
        by_scale = np.array([by_sx @ self.sigma, by_sy @ self.sigma])
        by_xy = np.array([by_x.sum(), by_y.sum()])
        scale_slopes = 0.5 * self.metric[1:, [0, 2]] / self.scale
        by_xy += scale_slopes @ by_scale
        if self.rho:
            rho_slopes = self.metric[1:, 1] / np.prod(self.scale)
            rho_slopes -= self.rho * (scale_slopes @ (1.0 / self.scale))
            by_xy += by_rho * rho_slopes
        by_xy += self.unit_slopes.reshape(2, -1) @ by_unit.ravel()
        by_size = float((by_sx * self.scale[0] + by_sy * self.scale[1]) @ (self.size / self.sigma))
        return by_unit, by_xy, by_size


class Region:
    """Pixels that one or several overlapping sources reach."""

    def __init__(self, term: DatasetTerm, box: tuple[int, int, int, int], members: list[int]):
        y0, y1, x0, x1 = box
        cut = (slice(None), slice(y0, y1), slice(x0, x1))
        self.background = np.ascontiguousarray(term.background[cut])
        mask = None if term.mask is None else np.ascontiguousarray(term.mask[cut])
        self.poisson = PoissonTerm(np.ascontiguousarray(term.counts[cut]), self.background, mask)
        self.members = members
        self.slices = []
        for member in members:
            a, b, c, d = term.sources[member].box
            self.slices.append((slice(None), slice(a - y0, b - y0), slice(c - x0, d - x0)))
        self.sums = BandSums.of(self.poisson.n, self.background, self.poisson.weight)


@dataclass
class BandSums:
    """What the statistic of a scaled background needs to know of some pixels, by band.

    ``counts`` and ``log`` leave out pixels without background, whose statistic is ``fixed``.
    """

    background: np.ndarray
    counts: np.ndarray
    log: np.ndarray
    fixed: np.ndarray

    @classmethod
    def of(cls, n: np.ndarray, background: np.ndarray, weight: np.ndarray | None) -> BandSums:
        if background.size and background.min() > TRUNCATION:
            filled, log = n, np.log(background)
            fixed = np.zeros(len(n))
        else:
            empty = background <= TRUNCATION
            filled = np.where(empty, 0.0, n)
            log = np.log(np.where(empty, 1.0, background))
            fixed = -2.0 * math.log(TRUNCATION) * (n - filled).sum(axis=(1, 2))
        weighted = background if weight is None else background * weight
        return cls(
            weighted.sum(axis=(1, 2)),
            filled.sum(axis=(1, 2)),
            np.einsum("ryx,ryx->r", filled, log),
            fixed,
        )

    def minus(self, other: BandSums) -> BandSums:
        return BandSums(
            self.background - other.background,
            self.counts - other.counts,
            self.log - other.log,
            self.fixed - other.fixed,
        )

    def stat_and_slope(self, factor: np.ndarray) -> tuple[float, np.ndarray]:
        """Statistic of ``factor * background`` and its derivative by each band's factor.

        Bends below `FLOOR` as `PoissonTerm` does.
        """
        held = np.maximum(factor, FLOOR)
        bent = np.minimum(factor / FLOOR - 1.0, 0.0)
        positive = held * np.exp(np.maximum(bent, -700.0))
        stat = 2.0 * (positive * self.background - self.counts * (np.log(held) + bent) - self.log)
        slope = 2.0 * (self.background * positive - self.counts) / held
        return float(np.sum(stat + self.fixed)), slope

    def curvature(self, factor: np.ndarray) -> np.ndarray:
        """Second derivative by each band's factor (0 where bent: only the slope matters there)."""
        return np.where(factor > FLOOR, 2.0 * self.counts / np.maximum(factor, FLOOR) ** 2, 0.0)


class DatasetTerm:
    """One dataset's part of the statistic."""

    def __init__(
        self,
        dataset: DatasetLike,
        models: Models,
        place: dict[tuple[str, str], int],
        free: set[int],
    ) -> None:
        self.name, self.geom = dataset.name, dataset.geom
        edges = np.asarray(dataset.energy_axis.edges.to_value("TeV"), dtype=float)
        self.shape = (len(edges) - 1, *dataset.geom.shape)
        if dataset.counts is None:
            raise DataError(f"dataset {dataset.name!r}: has no counts to compare a model with")
        self.mask = None if dataset.mask is None else np.asarray(dataset.mask, dtype=bool)
        if self.mask is not None and not self.mask.any():
            raise DataError(
                f"dataset {dataset.name!r}: the mask leaves no bin to fit; widen the fit range or "
                "the safe mask"
            )
        counts = np.asarray(dataset.counts.data, dtype=float)
        self.counts = counts if self.mask is None else np.where(self.mask, counts, 0.0)
        self.background = np.zeros(self.shape)
        if dataset.background is not None:
            self.background = np.maximum(np.nan_to_num(
                np.asarray(dataset.background.data, dtype=float)), 0.0)
        background_model = models.background_model(dataset.name)
        self.norm: _Norm | None = None
        if background_model is not None:
            self.norm = _Norm(background_model, place, np.sqrt(edges[:-1] * edges[1:]))
        wanted = [m for m in models.sky_models if m.applies_to(dataset.name)]
        response = Response(dataset) if wanted else None
        self.sources = [Source(m, dataset, response, place, free) for m in wanted if response]
        self._ones = np.ones(self.shape[0])
        weight = None if self.mask is None else self.mask
        self.totals = BandSums.of(self.counts, self.background, weight)
        self.outside = self.totals
        self.regions: list[Region] | None = None

    def factor(self, p: np.ndarray) -> np.ndarray:
        """Background factor of each band."""
        return self._ones if self.norm is None else p[self.norm.norm] * self.norm.shape(p)

    def predicted_background(self, p: np.ndarray) -> np.ndarray:
        """Scaled background, shape (R, y, x)."""
        return np.asarray(self.background * self.factor(p)[:, None, None])

    def lay_out(self, p: np.ndarray) -> None:
        """Place the rectangles and cut the map into regions and the rest."""
        for source in self.sources:
            source.lay_out(p)
        groups: list[tuple[tuple[int, int, int, int], list[int]]] = []
        for number, source in enumerate(self.sources):
            box, members = source.box, [number]
            if box[1] <= box[0] or box[3] <= box[2]:
                continue
            merged = True
            while merged:
                merged = False
                for group in groups:
                    if _overlap(box, group[0]):
                        box, members = _union(box, group[0]), members + group[1]
                        groups.remove(group)
                        merged = True
                        break
            groups.append((box, members))
        self.regions = [Region(self, box, sorted(members)) for box, members in groups]
        self.outside = self.totals
        for region in self.regions:
            self.outside = self.outside.minus(region.sums)

    def settle(self, p: np.ndarray) -> list[Region]:
        """The regions, laid out anew if a source has left its rectangle."""
        if self.regions is None or not all(s.stays(p) for s in self.sources):
            self.lay_out(p)
        return self.regions or []

    def evaluate(self, p: np.ndarray, gradient: np.ndarray | None) -> float:
        """Statistic; adds to ``gradient`` (by all parameters, canonical units) if given."""
        regions = self.settle(p)
        factor = self.factor(p)
        stat, by_factor = self.outside.stat_and_slope(factor)
        for region in regions:
            states = [self.sources[m].state(p, gradient is not None) for m in region.members]
            mu = region.background * factor[:, None, None]
            for state, cut in zip(states, region.slices, strict=True):
                mu[cut] += state.counts()
            part, slope = region.poisson.sum_and_slope(mu)
            stat += part
            if gradient is None:
                continue
            by_factor = by_factor + np.einsum("ryx,ryx->r", slope, region.background)
            for state, cut in zip(states, region.slices, strict=True):
                state.source.add_gradient(state, slope[cut], gradient)
        if gradient is not None and self.norm is not None:
            self.norm.add_gradient(p, by_factor, gradient)
        return stat


    def add_information(self, p: np.ndarray, free: dict[int, int], matrix: np.ndarray) -> None:
        """Add this dataset's Fisher information to ``matrix``, whose rows ``free`` gives."""
        regions = self.settle(p)
        factor = self.factor(p)
        norm: dict[int, np.ndarray] = {}
        if self.norm is not None:
            norm = {k: v for k, v in self.norm.columns(p).items() if k in free}
            rows = [free[place] for place in norm]
            slopes = np.array(list(norm.values())).reshape(len(rows), -1)
            content = self.outside.background / np.maximum(factor, FLOOR)
            matrix[np.ix_(rows, rows)] += 2.0 * (slopes * content) @ slopes.T
        for region in regions:
            mu = region.background * factor[:, None, None]
            images = {k: region.background * v[:, None, None] for k, v in norm.items()}
            for member, cut in zip(region.members, region.slices, strict=True):
                source = self.sources[member]
                state = source.state(p, slopes=False)
                mu[cut] += state.counts()
                for place, column in source.columns(state).items():
                    if place in free:
                        image = images.setdefault(place, np.zeros_like(mu))
                        image[cut] += column
            rows = [free[place] for place in images]
            weight = 2.0 / np.maximum(mu, np.maximum(region.poisson.floor, 1e-12))
            if region.poisson.weight is not None:
                weight *= region.poisson.weight
            stack = np.array([image.ravel() for image in images.values()]).reshape(len(rows), -1)
            matrix[np.ix_(rows, rows)] += (stack * weight.ravel()) @ stack.T


def _reach(mixture: np.ndarray, widths: np.ndarray) -> float:
    """Distance (deg) beyond which, along one axis, less than `_TAIL` of the mixture lies."""
    from scipy.special import erfc

    total = abs(float(mixture.sum()))
    if not total > 0:
        return float(5.0 * widths.min())
    distance = np.linspace(0.0, 5.0 * float(widths.max()), 400)
    tail = np.abs(erfc(distance[:, None] / (math.sqrt(2.0) * widths)) @ mixture) / total
    beyond = np.flatnonzero(tail > _TAIL)
    return float(distance[min(beyond[-1] + 1, len(distance) - 1)]) if len(beyond) else 0.0


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]


def _union(
    a: tuple[int, int, int, int], b: tuple[int, int, int, int]
) -> tuple[int, int, int, int]:
    return min(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), max(a[3], b[3])
