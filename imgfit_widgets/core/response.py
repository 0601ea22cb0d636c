"""What the instrument does to a source at one position: exposure, mixture of widths.

Everything is a smooth function of the pixel position (x, y) of the source, with exact derivatives:

`DatasetLike`
    What is read of a dataset, here and by the evaluator.
`PixelPosition`
    Sky coordinates of a model to pixels, and how a small circle on the sky looks in pixels.
`SmoothGrid`
    Values on the nodes of a map, interpolated with a continuous slope.
`Response`, `Nearby`
    Exposure, energy dispersion and PSF of a dataset at a position.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Protocol

import numpy as np

from .errors import DataError
from .maps import WcsGeom, rotation, unit_vectors
from .pixels import few_images

__all__ = [
    "DatasetLike",
    "LocalResponse",
    "Nearby",
    "PixelPosition",
    "Response",
    "SmoothGrid",
]

_DEG = math.pi / 180.0


class DatasetLike(Protocol):
    """What is read of a dataset: maps of counts-like quantities and responses.

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


class PixelPosition:
    """Positions of one sky frame in the pixels of one geometry.

    Plate carrée and tangential maps are computed in closed form; the rotation between the model's
    frame and the projection's native one is found from the geometry itself. Other projections go
    through the WCS, with differences for derivatives: as exact, but slower.
    """

    @staticmethod
    def of(geom: WcsGeom, frame: str) -> PixelPosition:
        """One for all who ask for the same pixels and frame."""
        return _position_of(_Pixels(geom), frame)

    def __init__(self, geom: WcsGeom, frame: str) -> None:
        self.geom, self.frame = geom, frame
        self.closed = geom.projection if geom.projection in ("CAR", "TAN") else ""
        if self.closed and not self._find_rotation():
            self.closed = ""

    def _find_rotation(self) -> bool:
        geom = self.geom
        scale = np.asarray(geom.wcs.pixel_scale_matrix, dtype=float)
        self._plane = scale
        self._zero = np.asarray(geom.wcs.wcs.crpix, dtype=float) - 1.0
        (a, b), (c, d) = np.linalg.inv(scale).tolist()
        self._affine = a, b, c, d, *self._zero.tolist()
        # From components uu, uv, vv in the projection plane to xx, xy, yy in pixels.
        self._to_pixel = np.array(
            [
                [a * a, a * c, c * c],
                [2 * a * b, a * d + b * c, 2 * c * d],
                [b * b, b * d, d * d],
            ]
        )
        self._scale, self._to_pixel_rows = scale.tolist(), self._to_pixel.tolist()
        nx, ny = geom.npix
        grids = np.meshgrid(np.linspace(0, nx - 1, 5), np.linspace(0, ny - 1, 5))
        x, y = (v.ravel() for v in grids)
        lon, lat = geom.pix_to_lonlat(x, y)
        good = np.isfinite(lon) & np.isfinite(lat)
        sky = unit_vectors(lon[good], lat[good])
        plane = scale @ (np.stack([x, y])[:, good] - self._zero[:, None])
        if self.closed == "CAR":
            native = unit_vectors(plane[0], plane[1])
        else:
            p = plane * _DEG
            native = np.stack([-p[1], p[0], np.ones_like(p[0])])
            native /= np.linalg.norm(native, axis=0)
        u, _, vt = np.linalg.svd(native @ sky.T)
        turn = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
        self._turn = [[float(v) for v in row] for row in turn @ rotation(self.frame, geom.frame)]
        return bool(np.allclose(turn @ sky, native, atol=1e-10))

    def extent(self, lon_0: float) -> tuple[float, float, float, float]:
        """Least and largest longitude (near ``lon_0``) and latitude of the map, degrees."""
        lon, low, high = self._sample
        lon = (lon - lon_0 + 180.0) % 360.0 - 180.0 + lon_0
        return float(lon.min()), float(lon.max()), low, high

    @cached_property
    def _sample(self) -> tuple[np.ndarray, float, float]:
        """Longitudes all over the map and its border, its least and largest latitude."""
        ny, nx = self.geom.shape
        x, y = np.meshgrid(np.linspace(-0.5, nx - 0.5, 21), np.linspace(-0.5, ny - 0.5, 21))
        lon, lat = self.geom.to_frame(*self.geom.pix_to_lonlat(x, y), self.frame)
        good = np.isfinite(lon) & np.isfinite(lat)
        return lon[good], float(lat[good].min()), float(lat[good].max())

    def at(self, lon: float, lat: float) -> tuple[float, float, np.ndarray]:
        """Pixel position and its derivatives.

        Parameters
        ----------
        lon, lat : float
            Degrees, in the model's frame.

        Returns
        -------
        x, y : float
            0-based pixel coordinates.
        jacobian : ndarray, shape (2, 2)
            Rows x, y; columns per degree of lon, per degree of lat.
        """
        if not self.closed:
            return self._at_by_wcs(lon, lat)
        sl, cl = math.sin(lon * _DEG), math.cos(lon * _DEG)
        sb, cb = math.sin(lat * _DEG), math.cos(lat * _DEG)
        # Native components, and how they change per radian of lon and of lat. Written out, because
        # this is a good part of what one statistic takes.
        e, f, g, h = cb * cl, cb * sl, -sb * cl, -sb * sl
        n0, n1, n2 = (r0 * e + r1 * f + r2 * sb for r0, r1, r2 in self._turn)
        l0, l1, l2 = (r1 * e - r0 * f for r0, r1, _ in self._turn)
        b0, b1, b2 = (r0 * g + r1 * h + r2 * cb for r0, r1, r2 in self._turn)
        if self.closed == "CAR":
            rr = max(n0 * n0 + n1 * n1, 1e-20)
            r = math.sqrt(rr)
            u, v = math.atan2(n1, n0) / _DEG, math.atan2(n2, r) / _DEG
            ul, ub = (n0 * l1 - n1 * l0) / rr, (n0 * b1 - n1 * b0) / rr
            vl, vb = l2 / r, b2 / r
        else:
            # Behind the tangent plane there is no pixel: the position is pushed far out.
            n2 = max(n2, 1e-3)
            x, y = n1 / n2, n0 / n2
            u, v = x / _DEG, -y / _DEG
            ul, ub = (l1 - x * l2) / n2, (b1 - x * b2) / n2
            vl, vb = (y * l2 - l0) / n2, (y * b2 - b0) / n2
        a, b, c, d, x0, y0 = self._affine
        return (
            a * u + b * v + x0,
            c * u + d * v + y0,
            np.array([[a * ul + b * vl, a * ub + b * vb], [c * ul + d * vl, c * ub + d * vb]]),
        )

    def metric(self, x: float, y: float) -> np.ndarray:
        """Pixel covariance of a circular Gaussian of 1 deg at a pixel position.

        Returns
        -------
        ndarray, shape (3, 3)
            Rows: value, derivative with respect to x, to y; columns xx, xy, yy, in pixels squared.
        """
        if not self.closed:
            return self._metric_by_wcs(x, y)
        dx, dy = x - self._zero[0], y - self._zero[1]
        (a, b), (c, d) = self._scale
        u, v = (a * dx + b * dy) * _DEG, (c * dx + d * dy) * _DEG
        # In the projection plane: components uu, uv, vv and their slopes along u and v.
        if self.closed == "CAR":
            uu = 1.0 / max(math.cos(v), 1e-6) ** 2
            slope = 2.0 * uu * math.tan(v) * _DEG
            (xx, xy, yy), _, (own_xx, own_xy, own_yy) = self._to_pixel_rows
            return np.array(
                [
                    [uu * xx + own_xx, uu * xy + own_xy, uu * yy + own_yy],
                    [c * slope * xx, c * slope * xy, c * slope * yy],
                    [d * slope * xx, d * slope * xy, d * slope * yy],
                ]
            )
        h = 1.0 + u * u + v * v
        m = np.array(
            [
                [h * (1 + u * u), h * u * v, h * (1 + v * v)],
                [2 * u * (1 + u * u + h), v * (h + 2 * u * u), 2 * u * (1 + v * v)],
                [2 * v * (1 + u * u), u * (h + 2 * v * v), 2 * v * (1 + v * v + h)],
            ]
        )
        m[1:] *= _DEG
        m = m @ self._to_pixel
        m[1:] = self._plane.T @ m[1:]
        return np.asarray(m)

    def _at_by_wcs(self, lon: float, lat: float) -> tuple[float, float, np.ndarray]:
        h = 1e-3
        lons = np.array([lon, lon + h, lon - h, lon, lon])
        lats = np.array([lat, lat, lat, lat + h, lat - h])
        x, y = self.geom.lonlat_to_pix(*self.geom.from_frame(lons, lats, self.frame))
        if not np.all(np.isfinite([x, y])):
            return -1e6, -1e6, np.zeros((2, 2))
        columns = [[(v[1] - v[2]) / (2 * h), (v[3] - v[4]) / (2 * h)] for v in (x, y)]
        return float(x[0]), float(y[0]), np.array(columns)

    def _metric_by_wcs(self, x: float, y: float) -> np.ndarray:
        def components(px: float, py: float) -> np.ndarray:
            j = self.geom.jacobian(px, py)
            m = j @ j.T
            return np.array([m[0, 0], m[0, 1], m[1, 1]])

        return np.array(
            [
                components(x, y),
                components(x + 0.5, y) - components(x - 0.5, y),
                components(x, y + 0.5) - components(x, y - 0.5),
            ]
        )


class _Pixels:
    """A geometry as a key: equal to others whose pixels are in the same places."""

    def __init__(self, geom: WcsGeom) -> None:
        self.geom, self._key = geom, geom.pixel_key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Pixels) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@lru_cache(maxsize=32)
def _position_of(pixels: _Pixels, frame: str) -> PixelPosition:
    return PixelPosition(pixels.geom, frame)


class SmoothGrid:
    """Node values interpolated by local cubics (Keys 1981, IEEE ASSP 29, 1153; a = -1/2).

    Continuous with its slope and exact for quadratics. Where one of the 16 nodes around the
    position holds nothing (all its values 0), linear between those of the 4 next nodes that do.

    Parameters
    ----------
    data : ndarray, shape (..., ny, nx)
    kept : ndarray of int, optional
        Places along the last of the leading axes that are wanted; all by default.
    """

    def __init__(self, data: np.ndarray, kept: np.ndarray | None = None) -> None:
        if kept is not None and len(kept) == kept[-1] + 1 - kept[0]:
            # Next to each other: the others need not be looked at.
            data, kept = data[..., kept[0] : kept[-1] + 1, :, :], None
        self.data, self._kept = data, kept
        self._cell: tuple[int, int] | None = None
        self._nodes = np.empty((16, 0))
        self._largest: np.ndarray | None = None
        self._lead: tuple[int, ...] = ()
        self._valid: np.ndarray | None = None
        self._both_cell: tuple[int, int] | None = None
        self._both: np.ndarray | None = None

    def largest(self, x: float, y: float) -> np.ndarray:
        """The largest value, whatever its sign, of the 16 nodes around a position."""
        self._gather(math.floor(x), math.floor(y))
        if self._largest is None:
            self._largest = np.abs(self._nodes).max(axis=0).reshape(self._lead)
        return self._largest

    def at(self, x: float, y: float, turn: np.ndarray) -> np.ndarray:
        """Value and derivatives: shape (3, ...).

        ``turn``, shape (3, 3), makes of the value and the derivatives by x and y those that are
        wanted.
        """
        i, j = math.floor(x), math.floor(y)
        self._gather(i, j)
        valid = self._valid
        values = (turn @ _basis(x - i, y - j, valid is None)) @ self._nodes
        if valid is not None:
            share, *slopes = turn @ (_basis(x - i, y - j, False) @ valid)
            if share <= 1e-12:
                return np.zeros((3, *self._lead))
            values /= share
            for k, slope in enumerate(slopes):
                values[k + 1] -= values[0] * (slope / share)
        return np.asarray(values.reshape(3, *self._lead))

    def with_other(
        self, other: SmoothGrid, x: float, y: float, turn: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """`at` of this grid and of another one of the same pixels, in one go.

        None if either has a node that holds nothing.
        """
        cell = i, j = math.floor(x), math.floor(y)
        if cell != self._both_cell:
            self._gather(i, j)
            other._gather(i, j)
            self._both_cell = cell
            full = self._valid is None and other._valid is None
            self._both = np.hstack([self._nodes, other._nodes]) if full else None
        if self._both is None:
            return None
        values = (turn @ _basis(x - i, y - j, True)) @ self._both
        own = self._nodes.shape[1]
        return values[:, :own].reshape(3, *self._lead), values[:, own:].reshape(3, *other._lead)

    def _gather(self, i: int, j: int) -> None:
        if (i, j) == self._cell:
            return
        ny, nx = self.data.shape[-2:]
        if 1 <= i < nx - 2 and 1 <= j < ny - 2:
            patch = self.data[..., j - 1 : j + 3, i - 1 : i + 3]
        else:
            rows = np.clip(np.arange(j - 1, j + 3), 0, ny - 1)
            columns = np.clip(np.arange(i - 1, i + 3), 0, nx - 1)
            patch = self.data[..., rows[:, None], columns]
        nodes = np.array(patch, dtype=float).reshape(-1, 16)
        if not np.isfinite(nodes.sum()):
            nodes = np.where(np.isfinite(nodes), nodes, 0.0)
        valid = np.asarray(nodes.any(axis=0))
        self._valid = None if valid.all() else valid
        nodes = nodes.reshape(*patch.shape[:-2], 16)
        if self._kept is not None:
            nodes = nodes[..., self._kept, :]
        self._lead = nodes.shape[:-1]
        self._nodes = np.ascontiguousarray(nodes.reshape(-1, 16).T)
        self._cell, self._largest = (i, j), None


def _basis(tx: float, ty: float, cubic: bool) -> np.ndarray:
    """Weights of 16 nodes for a position between them, and their derivatives: shape (3, 16)."""
    along = _keys if cubic else _linear
    (x, by_x), (y, by_y) = along(tx), along(ty)
    rows = np.array((y, y, by_y, x, by_x, x))
    return np.asarray((rows[:3, :, None] * rows[3:, None, :]).reshape(3, 16))


def _keys(t: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Weights of the nodes at -1, 0, 1, 2 for a position t in [0, 1), and their derivatives."""
    t2, t3 = t * t, t * t * t
    return (
        (
            -0.5 * t3 + t2 - 0.5 * t,
            1.5 * t3 - 2.5 * t2 + 1.0,
            -1.5 * t3 + 2.0 * t2 + 0.5 * t,
            0.5 * t3 - 0.5 * t2,
        ),
        (-1.5 * t2 + 2.0 * t - 0.5, 4.5 * t2 - 5.0 * t, -4.5 * t2 + 4.0 * t + 0.5, 1.5 * t2 - t),
    )


def _linear(t: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return (0.0, 1.0 - t, t, 0.0), (0.0, -1.0, 1.0, 0.0)


@dataclass
class LocalResponse:
    """A dataset's response at one position; first axis: value, derivative along x, along y.

    Attributes
    ----------
    exposure : ndarray, shape (3, T)
        cm2 s.
    edisp : ndarray, shape (3, T, R)
        Probability to be reconstructed in band R.
    weights : ndarray, shape (3, T, W)
        PSF mixture.
    """

    exposure: np.ndarray
    edisp: np.ndarray
    weights: np.ndarray


class Response:
    """Exposure, energy dispersion and PSF of a dataset as functions of pixel position."""

    def __init__(self, dataset: DatasetLike) -> None:
        geom = dataset.geom
        for key in ("exposure", "psf", "edisp"):
            if getattr(dataset, key) is None:
                raise DataError(f"dataset {dataset.name!r}: has no {key}, which a source needs")
        self.widths = np.asarray(dataset.psf.widths, dtype=float)
        self._data = dataset.exposure.data, dataset.edisp.data, dataset.psf.weights
        self.exposure_pixel = float(min(dataset.exposure.geom.binsz))
        own = _Pixels(geom)
        self.same_pixels = own == _Pixels(dataset.exposure.geom)
        self._maps = tuple(
            _pixel_map(own, _Pixels(other.geom))
            for other in (dataset.exposure, dataset.edisp, dataset.psf)
        )
        self.whole = self.around()

    def around(self, used: np.ndarray | None = None) -> Nearby:
        """The response for one source, of those widths only whose places are given."""
        exposure, edisp, weights = self._data
        grids = SmoothGrid(exposure), SmoothGrid(edisp), SmoothGrid(weights, used)
        nearby = Nearby(tuple(zip(grids, self._maps, strict=True)))
        if used is not None:
            nearby.begin_as(self.whole, used)
        return nearby

    def at(self, x: float, y: float) -> LocalResponse:
        """The response at a position in pixels of the counts map, of all widths."""
        return self.whole.at(x, y)

    @property
    def exposure(self) -> np.ndarray:
        """The exposure in m2 s, shape (T, y, x) of its own pixels."""
        return np.asarray(self._data[0])

    def exposure_images(
        self, box: tuple[int, int, int, int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The exposure in cm2 s as few images and their mixing, see `few_images`.

        Of its pixels (y0, y1, x0, x1), if given.
        """
        y0, y1, x0, x1 = box or (0, None, 0, None)
        mixing, images = few_images(self._data[0][:, y0:y1, x0:x1])
        return mixing * 1e4, images

    def exposure_step(self, box: tuple[int, int, int, int], length: float) -> float:
        """How sharply the exposure bends within pixels (y0, y1, x0, x1) of the counts map.

        The largest second difference over ``length`` degrees, or over a pixel of the exposure where
        that is longer, as a part of the largest value: 1e-4 for one instrument's field of view, the
        height of the step where the field of view of one of several runs ends.
        """
        y0, y1, x0, x1 = box
        corners = [self._maps[0].position(x, y) for x in (x0, x1 - 1) for y in (y0, y1 - 1)]
        ny, nx = self._data[0].shape[-2:]
        (left, right), (low, high) = (
            (math.floor(min(q)) - 1, math.ceil(max(q)) + 2) for q in zip(*corners, strict=True)
        )
        plane = self._data[0][self._main_plane]
        part = np.nan_to_num(plane[max(low, 0) : min(high, ny), max(left, 0) : min(right, nx)])
        top = float(part.max(initial=0.0))
        if not top > 0.0:
            return 0.0
        bends = (float(np.abs(np.diff(part, 2, axis)).max(initial=0.0)) for axis in (0, 1))
        return max(bends) / top * min(1.0, length / self.exposure_pixel)

    def border_bend(self, box: tuple[int, int, int, int], length: float) -> float:
        """How much the exposure changes over ``length`` degrees next to the border of the map.

        As a part of the largest value within pixels (y0, y1, x0, x1) of an exposure in the same
        pixels as the counts; 0 for pixels that do not touch the border.
        """
        y0, y1, x0, x1 = box
        ny, nx = self._data[0].shape[-2:]
        part = np.nan_to_num(self._data[0][self._main_plane, y0:y1, x0:x1])
        top = float(part.max(initial=0.0))
        if not top > 0.0:
            return 0.0
        rows, columns = np.abs(np.diff(part, axis=0)), np.abs(np.diff(part, axis=1))
        at_border = [
            (rows[:1], y0 == 0),
            (rows[-1:], y1 == ny),
            (columns[:, :1], x0 == 0),
            (columns[:, -1:], x1 == nx),
        ]
        slopes = [float(slope.max(initial=0.0)) for slope, touched in at_border if touched]
        return max(slopes, default=0.0) / top * length / self.exposure_pixel

    @cached_property
    def _main_plane(self) -> int:
        """The energy that weighs most; a field of view ends at the same place in all."""
        sample = np.nan_to_num(self._data[0][:, ::7, ::7])
        return int(np.argmax(sample.reshape(len(sample), -1).sum(axis=1)))

    def largest_weights(self, x: float, y: float) -> np.ndarray:
        """Largest PSF weights, whatever their sign, of the nodes around a position, (T, W)."""
        return self.whole.largest_weights(x, y)

    def psf_node(self, x: float, y: float) -> tuple[int, int]:
        """The node of the PSF before a position."""
        i, j = self._maps[2].position(x, y)
        return math.floor(i), math.floor(j)


class Nearby:
    """The response where one source is: it remembers the nodes around the last position."""

    def __init__(self, grids: tuple[tuple[SmoothGrid, _PixelMap], ...]) -> None:
        self._grids = grids
        self._place, self._local = (math.nan, math.nan), LocalResponse(*[np.empty(0)] * 3)

    def begin_as(self, whole: Nearby, used: np.ndarray) -> None:
        """Take over what one of all widths found last."""
        local = whole._local
        if len(local.weights):
            self._local = LocalResponse(local.exposure, local.edisp, local.weights[:, :, used])
            self._place = whole._place

    def at(self, x: float, y: float) -> LocalResponse:
        """The response at a position in pixels of the counts map; not to be changed."""
        if (x, y) != self._place:
            self._place, self._local = (x, y), self._at(x, y)
        return self._local

    def _at(self, x: float, y: float) -> LocalResponse:
        (exposure, fine), (edisp, coarse), (weights, other) = self._grids
        found = exposure.at(*fine.position(x, y), fine.turn(x, y)) * 1e4  # m2 s to cm2 s
        place, turn = coarse.position(x, y), coarse.turn(x, y)
        if coarse is other and (both := edisp.with_other(weights, *place, turn)):
            return LocalResponse(found, *both)
        by_weights = weights.at(*other.position(x, y), other.turn(x, y))
        return LocalResponse(found, edisp.at(*place, turn), by_weights)

    def largest_weights(self, x: float, y: float) -> np.ndarray:
        """Largest PSF weights, whatever their sign, of the nodes around a position, (T, W)."""
        grid, pixel_map = self._grids[2]
        return grid.largest(*pixel_map.position(x, y))


class _PixelMap:
    """Pixels of one map as a polynomial of the pixels of another one."""

    def __init__(self, coefficients: np.ndarray, origin: tuple[float, float], scale: float) -> None:
        self._c, self._origin, self._scale = coefficients, origin, scale
        self._degree = coefficients.shape[1] - 1
        if self._degree == 1:
            slopes = np.stack([coefficients[:, 1, 0], coefficients[:, 0, 1]], axis=1) / scale
            self._turn = _turn(slopes)
            first = coefficients[:, 0, 0] - slopes @ np.array(origin)
            self._affine = np.column_stack([first, slopes]).tolist()

    def position(self, x: float, y: float) -> tuple[float, float]:
        if self._degree == 1:
            (a, b, c), (d, e, f) = self._affine
            return a + b * x + c * y, d + e * x + f * y
        u, v = (x - self._origin[0]) / self._scale, (y - self._origin[1]) / self._scale
        a, b = (float(np.polynomial.polynomial.polyval2d(u, v, c)) for c in self._c)
        return a, b

    def turn(self, x: float, y: float) -> np.ndarray:
        """What makes of a value and its derivatives by that map's x, y those by the counts map's.

        Shape (3, 3).
        """
        if self._degree == 1:
            return self._turn
        h = 0.5
        ends = [self.position(x + h, y), self.position(x - h, y)]
        ends += [self.position(x, y + h), self.position(x, y - h)]
        slopes = [[ends[0][k] - ends[1][k], ends[2][k] - ends[3][k]] for k in (0, 1)]
        return _turn(np.array(slopes))


def _turn(jacobian: np.ndarray) -> np.ndarray:
    turn = np.zeros((3, 3))
    turn[0, 0] = 1.0
    turn[1:, 1:] = jacobian.T
    return turn


@lru_cache(maxsize=32)
def _pixel_map(pixels: _Pixels, others: _Pixels) -> _PixelMap:
    """Some pixels in terms of others: affine if projected alike."""
    geom, other = pixels.geom, others.geom
    nx, ny = geom.npix
    grids = np.meshgrid(np.linspace(-0.5, nx - 0.5, 9), np.linspace(-0.5, ny - 0.5, 9))
    x, y = (v.ravel() for v in grids)
    lon, lat = geom.pix_to_lonlat(x, y)
    target = np.stack(other.lonlat_to_pix(*other.from_frame(lon, lat, geom.frame)))
    good = np.all(np.isfinite(target), axis=0)
    if good.sum() < 40:
        raise DataError("the response maps do not lie on the part of the sky that the counts cover")
    origin, scale = ((nx - 1) / 2.0, (ny - 1) / 2.0), max(nx, ny) / 2.0
    u, v = (x[good] - origin[0]) / scale, (y[good] - origin[1]) / scale
    for degree in (1, 3, 5):
        design = np.polynomial.polynomial.polyvander2d(u, v, [degree, degree])
        keep = np.add.outer(range(degree + 1), range(degree + 1)).ravel() <= degree
        solved = np.linalg.lstsq(design[:, keep], target[:, good].T, rcond=None)[0]
        worst = np.abs(design[:, keep] @ solved - target[:, good].T).max()
        coefficients = np.zeros((2, (degree + 1) ** 2))
        coefficients[:, keep] = solved.T
        if worst < (1e-6 if degree == 1 else 1e-3):
            break
    else:
        raise DataError(
            "the response maps are projected so differently from the counts that positions "
            f"cannot be matched (off by {worst:.2g} pixels); use one projection for all"
        )
    return _PixelMap(coefficients.reshape(2, degree + 1, degree + 1), origin, scale)
