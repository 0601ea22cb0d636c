"""A plane that touches the sky at a source, on which extended sources are blurred: `SkyPlane`.

Pixels of a map have another shape on the sky at every place; on a plane of square cells around the
source, distances are those of the sky, so that a PSF is one convolution and a shape one Fourier
transform whatever the map's projection. `SkyPlane` holds the cells, the wave vectors and the way
from cells to the pixels of the map and back.

The plane keeps distances and directions from its centre (the azimuthal equidistant projection,
Calabretta & Greisen 2002, A&A 395, 1077, section 5.1.8); across them lengths are off by
theta^2 / 6, 3e-4 at 2.5 degrees, which enters the PSF only: areas are corrected for.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
from scipy import fft
from scipy.sparse import csr_array, kron

from .maps import WcsGeom, positions, rotation, unit_vectors

__all__ = ["SkyPlane", "TangentPoint", "points"]

_DEG = math.pi / 180.0
_TAPS = 6
_UNEQUAL = 3e-5
"""How far, in parts of the distance, rows and columns may be off before areas are unequal too."""
_APART = 8
"""Pixels from one whose area is computed to the next."""
_MORE = 4
"""Cells by which a part of them is larger than what it is to hold."""
_MANY_CELLS = 60_000
_THREADS = 2
"""Threads of the Fourier transform of many cells; as many anywhere, as bits may depend on it."""


class TangentPoint:
    """Where a plane touches the sky, and positions on it.

    Parameters
    ----------
    lon, lat : float
        Degrees.
    """

    def __init__(self, lon: float, lat: float) -> None:
        self.centre = lon, lat
        self._turned = 0.0
        lam, b = lon * _DEG, lat * _DEG
        sl, cl, sb, cb = math.sin(lam), math.cos(lam), math.sin(b), math.cos(b)
        # Rows: east, north and outward unit vectors, in the model's frame.
        self._basis = np.array([[-sl, cl, 0.0], [-sb * cl, -sb * sl, cb], [cb * cl, cb * sl, sb]])

    def place(self, lon: float, lat: float) -> tuple[float, float, np.ndarray]:
        """Position on the plane in degrees east and north of its centre.

        Returns
        -------
        u, v : float
        jacobian : ndarray, shape (2, 2)
            Rows u, v; columns per degree of lon, of lat.
        """
        lam, b = lon * _DEG, lat * _DEG
        sl, cl, sb, cb = math.sin(lam), math.cos(lam), math.sin(b), math.cos(b)
        e, n, w = self._basis @ np.array([cb * cl, cb * sl, sb])
        slopes = self._basis @ np.array([[-cb * sl, -sb * cl], [cb * cl, -sb * sl], [0.0, cb]])
        s2 = e * e + n * n
        factor, rate = _arc(math.sqrt(s2), w)
        u, v = e * factor, n * factor
        by = np.outer((e, n), rate * (e * slopes[0] + n * slopes[1]))
        return u / _DEG, v / _DEG, by + factor * slopes[:2]

    def turn(self, lon: float) -> tuple[float, float]:
        """How far North at a longitude points to the east of the plane's (degrees), and its slope.

        To first order in the distance from the centre.
        """
        rate = -math.sin(self.centre[1] * _DEG)
        along = rate * ((lon - self.centre[0] + 180.0) % 360.0 - 180.0)
        return along + self._turned / _DEG, rate


class SkyPlane(TangentPoint):
    """Square cells around a position, and how pixels of a map see them.

    Parameters
    ----------
    geom : WcsGeom
        The map.
    frame : str
        Frame of ``centre``. The plane's axes point East and North in it, or are turned from there
        (90 degrees at most) to the rows and columns of the map, wherever these point.
    centre : tuple of float
        Longitude and latitude in degrees.
    cell : float
        Size of a cell in degrees.
    half : tuple of float
        Half the width and height in degrees that must be free of what comes in again from the
        other side.
    box : tuple of int
        Pixels (y0, y1, x0, x1) of the map that are wanted.
    straight : tuple of float
        If rows and columns of pixels are those of the cells, to the second number of degrees as
        far as the first number of degrees from the centre, they are taken for that: much faster.
        To the third number, it is followed to first order how far off each pixel is.
    bin_size : int
        Sums over squares of so many pixels are wanted.

    Attributes
    ----------
    shape : tuple of int
        Cells (north, east).
    east, north : ndarray, shape (north, east // 2 + 1)
        Wave vectors in radians per degree, of the half that a real image needs.
    column_weight : ndarray, shape (east // 2 + 1,)
        How often each column stands for one of the whole spectrum.
    window : ndarray, as ``east``
        Transfer from cells to pixel integrals, and what the interpolation takes away.
    """

    def __init__(
        self,
        geom: WcsGeom,
        frame: str,
        centre: tuple[float, float],
        cell: float,
        half: tuple[float, float],
        box: tuple[int, int, int, int],
        straight: tuple[float, float, float] = (0.0, 0.0, 0.0),
        bin_size: int = 1,
    ) -> None:
        super().__init__(*centre)
        self.geom, self.frame, self.cell, self.box = geom, frame, cell, box
        self._bin = bin_size
        self._turn_to_pixels()
        nx, ny = (fft.next_fast_len(2 * math.ceil(h / cell) + 2 * _TAPS, real=True) for h in half)
        self.shape = (ny, nx)
        self._threads = _THREADS if nx * ny > _MANY_CELLS else None
        self._origin = nx // 2, ny // 2
        kx = 2.0 * math.pi * fft.rfftfreq(nx, cell)
        ky = 2.0 * math.pi * fft.fftfreq(ny, cell)
        self.east, self.north = np.broadcast_arrays(kx, ky[:, None])
        self._kx, self._ky = kx, ky
        self.column_weight = np.full(len(kx), 2.0)
        self.column_weight[0] = 1.0
        if nx % 2 == 0:
            self.column_weight[-1] = 1.0
        self._sampling: _Straight | _Scattered
        radius, tolerance, bent = straight
        off = self._crookedness(radius) if max(tolerance, bent) > 0 else math.inf
        if off <= max(tolerance, bent if bin_size == 1 else 0.0):
            self._sampling, pixel = self._along_axes(off > _UNEQUAL * radius, off > tolerance)
        else:
            self._sampling, pixel = self._at_each_pixel()
        gain = _spline_gain(kx * cell) * _spline_gain(ky * cell)[:, None]
        window = 1.0 / gain
        for east, north in pixel:
            along = kx * east if not north else kx * east + ky[:, None] * north
            along = ky[:, None] * north if not east else along
            window = window * np.sinc(along / (2.0 * math.pi))
        self.window = window

    # --- positions
    def _turn_to_pixels(self) -> None:
        x, y = self._middle()
        u, v = self._on_plane(
            x + np.array([0.5, -0.5, 0.0, 0.0]), y + np.array([0.0, 0, 0.5, -0.5])
        )
        row, column = (math.atan2(v[i] - v[i + 1], u[i] - u[i + 1]) for i in (0, 2))
        # Halfway between the two where pixels are oblique.
        angle = row + 0.5 * math.remainder(column - 0.5 * math.pi - row, math.pi)
        angle = math.remainder(angle, math.pi)
        if math.isfinite(angle):
            cos, sin = math.cos(angle), math.sin(angle)
            self._turned = angle
            self._basis[:2] = np.array([[cos, sin], [-sin, cos]]) @ self._basis[:2]

    def representable(self) -> np.ndarray:
        """1 for wave vectors that a real image holds with their phase, 0 for the last ones."""
        ny, nx = self.shape
        inside = np.ones(self.east.shape)
        if nx % 2 == 0:
            inside[:, -1] = 0.0
        if ny % 2 == 0:
            inside[ny // 2] = 0.0
        return inside

    def lonlat(
        self,
        du: float = 0.0,
        dv: float = 0.0,
        part: tuple[slice, slice] = (slice(None), slice(None)),
    ) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the cells in the model's frame, degrees, shape `shape`.

        Of points ``du, dv`` cells away from their centres, if given; of the cells of some ``part``.
        """
        ny, nx = self.shape
        u = (np.arange(nx) - self._origin[0] + du) * (self.cell * _DEG)
        v = (np.arange(ny) - self._origin[1] + dv) * (self.cell * _DEG)
        return self._sky(*np.broadcast_arrays(u[part[1]], v[part[0], None]))

    def within(self, radius: float) -> tuple[slice, slice]:
        """The rows and columns of cells up to some degrees from the centre, and a few more.

        Of a number that is quick to transform.
        """
        count = fft.next_fast_len(2 * (math.ceil(radius / self.cell) + _MORE), real=True)
        rows, columns = (
            slice(origin - count // 2, origin - count // 2 + count) if count < size else slice(size)
            for origin, size in zip(self._origin[::-1], self.shape, strict=True)
        )
        return rows, columns

    def padded(self, images: np.ndarray, part: tuple[slice, slice]) -> np.ndarray:
        """Images (k, rows, columns) of some part of the cells, their slopes continued to all."""
        if images.shape[1:] == self.shape:
            return images
        beside = [(s.start or 0, n - s.stop) for s, n in zip(part, self.shape, strict=True)]
        return np.pad(images, [(0, 0), *beside], mode="reflect", reflect_type="odd")

    def _sky(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        r = np.hypot(u, v)
        # Beyond the antipode there is nothing; those cells repeat it.
        r_in = np.minimum(r, math.pi)
        scale = np.sinc(r_in / math.pi)
        vectors = np.tensordot(self._basis.T, np.stack([u * scale, v * scale, np.cos(r_in)]), 1)
        vectors /= np.linalg.norm(vectors, axis=0)
        return positions(vectors)

    def phase(self, u: float, v: float) -> tuple[np.ndarray, np.ndarray]:
        """exp(-i k x) of a position as two factors, along east and along north."""
        i, j = self._origin
        return (
            np.exp(-1j * self._kx * (u + i * self.cell)),
            np.exp(-1j * self._ky * (v + j * self.cell)),
        )

    def along_east(self, spectrum: np.ndarray) -> float:
        """The sum of a real array over wave vectors, times their east component."""
        return float(spectrum.sum(axis=0) @ self._kx)

    def along_north(self, spectrum: np.ndarray) -> float:
        """The same with the north component."""
        return float(spectrum.sum(axis=1) @ self._ky)

    def axes(
        self, geom: WcsGeom, parts: int, radius: float, tolerance: float
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Pixels of a map along the cells' axes, if its rows and columns are the cells'.

        Parameters
        ----------
        geom : WcsGeom
            Of the map.
        parts : int
            Points in each cell, evenly spread.
        radius, tolerance : float
            As far as so many degrees from the centre they may be off by so many pixels.

        Returns
        -------
        x, y : ndarray, shape (parts, cells)
            Of points along east, along north.
        """

        def pixels(u: Any, v: Any) -> tuple[np.ndarray, np.ndarray]:
            lonlat = self._sky(*np.broadcast_arrays(u, v))
            return geom.lonlat_to_pix(*geom.from_frame(*lonlat, self.frame))

        # Over the part of the circle that the map covers.
        ny, nx = geom.shape
        columns, rows = np.linspace(-1, nx, 9), np.linspace(-1, ny, 9)
        covered = self._on_plane(columns, rows[:, None], geom)
        some, other = (
            np.linspace(max(-radius, np.nanmin(q)), min(radius, np.nanmax(q)), 17) * _DEG
            for q in covered
        )
        other = other[:, None]
        x, y = pixels(some, other)
        off = np.hypot(x - pixels(some, 0.0)[0], y - pixels(0.0, other)[1])
        # Beyond the map its outer pixels go on, wherever they lie exactly. NaN is not straight.
        with np.errstate(invalid="ignore"):
            beyond = (x < -1) | (x > nx) | (y < -1) | (y > ny)
        within = (np.hypot(some, other) <= radius * _DEG) & ~beyond
        if not off[within].max(initial=0.0) <= tolerance:
            return None
        u, v = (
            (points(parts)[:, None] + np.arange(count) - origin) * (self.cell * _DEG)
            for count, origin in zip(self.shape[::-1], self._origin, strict=True)
        )
        return pixels(u, 0.0)[0], pixels(0.0, v)[1]

    # --- images
    def image(self, spectrum: np.ndarray) -> np.ndarray:
        """Spectra (..., north, half east) to images of the cells."""
        return np.asarray(fft.irfft2(spectrum, s=self.shape, workers=self._threads))

    def spectrum(self, image: np.ndarray) -> np.ndarray:
        """Images of the cells to spectra."""
        return np.asarray(fft.rfft2(image, workers=self._threads))

    def to_pixels(self, cells: np.ndarray) -> np.ndarray:
        """Images of the cells (R, north, east), windowed, to counts in the box (R, y, x)."""
        return self._sampling.to_pixels(cells)

    def to_cells(self, pixels: np.ndarray) -> np.ndarray:
        """The transpose of `to_pixels`."""
        return self._sampling.to_cells(pixels)

    def _on_plane(
        self, x: np.ndarray, y: np.ndarray, geom: WcsGeom | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Degrees east and north of the centre of positions in pixels, of the map's by default."""
        geom = geom or self.geom
        lon, lat = geom.pix_to_lonlat(*np.broadcast_arrays(x, y))
        turn = self._basis @ rotation(geom.frame, self.frame)
        vectors = np.tensordot(turn, unit_vectors(lon, lat), axes=1)
        s = np.hypot(vectors[0], vectors[1])
        theta = np.arctan2(s, vectors[2])
        factor = np.where(s > 1e-12, theta / np.maximum(s, 1e-300), 1.0) / _DEG
        return vectors[0] * factor, vectors[1] * factor

    def _middle(self) -> tuple[float, float]:
        """The place in the box, in pixels, that is nearest to the centre."""
        y0, y1, x0, x1 = self.box
        x, y = self.geom.lonlat_to_pix(*self.geom.from_frame(*self.centre, self.frame))
        return float(np.clip(x, x0, x1 - 1)), float(np.clip(y, y0, y1 - 1))

    def _crookedness(self, radius: float) -> float:
        """How far (deg) pixels are at most from where straight rows and columns have them."""
        y0, y1, x0, x1 = self.box
        if y1 - y0 < 2 or x1 - x0 < 2:
            return math.inf
        middle = self._middle()
        # Closer than the radius, or there may be nothing to compare.
        beside = self._on_plane(middle[0] + np.array([0, 1, 0]), middle[1] + np.array([0, 0, 1]))
        pixel = min(math.hypot(*(q[k] - q[0] for q in beside)) for k in (1, 2))
        if not pixel > 0:
            return math.inf
        x, y = (
            np.linspace(max(low, at - radius / pixel), min(high - 1, at + radius / pixel), 17)
            for at, (low, high) in zip(middle, ((x0, x1), (y0, y1)), strict=True)
        )
        # With the row and the column through the middle.
        u, v = self._on_plane(np.append(x, middle[0]), np.append(y, middle[1])[:, None])
        if not np.all(np.isfinite(u)):
            return math.inf
        u, v, row, column = u[:-1, :-1], v[:-1, :-1], u[-1, :-1], v[:-1, -1:]
        off = np.maximum(np.abs(u - row), np.abs(v - column))
        return float(off[np.hypot(u, v) <= radius].max(initial=0.0))

    def _along_axes(self, unequal: bool, bent: bool) -> tuple[_Straight, Sides]:
        """Quintic B-splines from cells to pixels whose rows and columns are those of the cells.

        ``unequal`` if areas are not the products of the sides of rows and columns, ``bent`` if
        pixels are off these by a part of a cell.
        """
        y0, y1, x0, x1 = self.box
        x, y = np.arange(x0 - 1, x1 + 1.0), np.arange(y0 - 1, y1 + 1.0)
        middle = self._middle()
        u, v = self._on_plane(
            np.concatenate([x, np.full(len(y), middle[0])]),
            np.concatenate([np.full(len(x), middle[1]), y]),
        )
        u, v = u[: len(x)], v[len(x) :]
        sides = [0.5 * (q[2:] - q[:-2]) for q in (u, v)]
        columns, rows = (
            _spline_matrix(q[1:-1] / self.cell + origin, count, np.abs(side / self.cell), bent)
            for q, origin, count, side in zip(
                (u, v), self._origin, self.shape[::-1], sides, strict=True
            )
        )
        at = round(middle[0]) - x0, round(middle[1]) - y0
        share = self._area_share(*sides) if unequal else None
        if bent:
            share = self._area_share(*sides) * self._off_axes(u[1:-1], v[1:-1])
        if self._bin > 1:
            by_rows, by_columns = (_sums(m.shape[0], self._bin) for m in (rows, columns))
            rows, columns = by_rows @ rows, by_columns @ columns
            if share is not None:
                count = by_rows.sum(axis=1)[:, None] * by_columns.sum(axis=1)
                share = by_rows @ (by_columns @ share.T).T / count
        return _Straight(rows, columns, share), [
            (float(sides[0][at[0]]), 0.0),
            (0.0, float(sides[1][at[1]])),
        ]

    def _area_share(self, along_x: np.ndarray, along_y: np.ndarray) -> np.ndarray:
        """Areas of the box's pixels over the products of the sides of their columns and rows.

        It varies so slowly that a few pixels and straight lines between them do.
        """
        y0, y1, x0, x1 = self.box
        (x, to_x), (y, to_y) = (_hats(first, stop) for first, stop in ((x0, x1), (y0, y1)))
        step = np.array([1.0, -1.0, 0.0, 0.0])[:, None, None]
        beside = x + step, y[:, None] + step[::-1]
        (u1, u2, u3, u4), (v1, v2, v3, v4) = self._on_plane(*beside)
        area = 0.25 * np.abs((u1 - u2) * (v3 - v4) - (v1 - v2) * (u3 - u4))
        side_x = np.interp(x, np.arange(x0, x1), along_x)
        side_y = np.interp(y, np.arange(y0, y1), along_y)
        share = area / np.abs(side_x * side_y[:, None])
        return np.asarray(to_y @ np.nan_to_num(share, nan=1.0) @ to_x.T)

    def _pixel_sides(self) -> tuple[Pair, tuple[Pair, Pair], np.ndarray]:
        """Positions of the box's pixels on the plane, their sides there along x, y, and areas."""
        y0, y1, x0, x1 = self.box
        y, x = np.mgrid[y0 - 1 : y1 + 1, x0 - 1 : x1 + 1]
        u, v = self._on_plane(x, y)
        # The parallelogram of the central differences.
        (ux, uy), (vx, vy) = (
            (0.5 * (q[1:-1, 2:] - q[1:-1, :-2]), 0.5 * (q[2:, 1:-1] - q[:-2, 1:-1])) for q in (u, v)
        )
        area = np.abs(ux * vy - uy * vx)
        return (u[1:-1, 1:-1], v[1:-1, 1:-1]), ((ux, uy), (vx, vy)), area

    def _at_each_pixel(self) -> tuple[_Scattered, Sides]:
        """Quintic B-splines from cells to pixel centres times pixel areas; sides of a pixel."""
        inner, ((ux, uy), (vx, vy)), area = self._pixel_sides()
        middle = np.unravel_index(
            int(np.nanargmin(np.hypot(*inner))) if area.size else 0, area.shape
        )
        pixel = [
            (float(ux[middle]), float(vx[middle])),
            (float(uy[middle]), float(vy[middle])),
        ]
        ny, nx = self.shape
        px = inner[0].ravel() / self.cell + self._origin[0]
        py = inner[1].ravel() / self.cell + self._origin[1]
        weight = area.ravel() / self.cell**2
        good = np.isfinite(px) & np.isfinite(py) & np.isfinite(weight)
        px, py = np.where(good, px, 0.0), np.where(good, py, 0.0)
        # Pixels beyond the plane see nothing, not what comes in again from the other side.
        half = _TAPS // 2
        good &= (px >= half) & (px < nx - half) & (py >= half) & (py < ny - half)
        i, wx = _spline_weights(px)
        j, wy = _spline_weights(py)
        weights = np.where(good, weight, 0.0)[:, None, None] * wy[:, :, None] * wx[:, None, :]
        offset = np.arange(_TAPS)
        columns = (((j[:, None] + offset) % ny) * nx)[:, :, None] + ((i[:, None] + offset) % nx)[
            :, None, :
        ]
        count = len(px)
        pointer = np.arange(count + 1) * _TAPS**2
        matrix = csr_array(
            (weights.ravel(), columns.ravel().astype(np.int32), pointer.astype(np.int32)),
            shape=(count, ny * nx),
        )
        shape = area.shape
        if self._bin > 1:
            by_rows, by_columns = (_sums(n, self._bin) for n in shape)
            matrix = kron(by_rows, by_columns, format="csr") @ matrix
            shape = by_rows.shape[0], by_columns.shape[0]
        return _Scattered(matrix, shape, self.shape), pixel

    def _off_axes(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """What makes values and slopes on the axes (u, v) those of pixels: (2, 2, y, x).

        1, how far off they are along x; along y, and both: in cells, to first order.
        """
        y0, y1, x0, x1 = self.box
        (x, to_x), (y, to_y) = (_hats(first, stop) for first, stop in ((x0, x1), (y0, y1)))
        there = self._on_plane(x, y[:, None])
        along = np.interp(x, np.arange(x0, x1), u), np.interp(y, np.arange(y0, y1), v)[:, None]
        # Far out, where nothing is to be seen, it may be any number.
        off_u, off_v = (
            to_y @ np.clip(np.nan_to_num((at - on) / self.cell), -1.0, 1.0) @ to_x.T
            for at, on in zip(there, along, strict=True)
        )
        return np.array([[np.ones_like(off_u), off_u], [off_v, off_u * off_v]])


Pair = tuple[np.ndarray, np.ndarray]
Sides = list[tuple[float, float]]
"""What a pixel further along x and along y is on the plane: degrees east and north."""


class _Straight:
    """From cells to pixels and back along each axis: ``rows`` (y, north), ``columns`` (x, east).

    ``share`` (y, x) are the pixels' areas over the products of their rows' and columns' sides. Of
    shape (2, 2, y, x) it is by which values and slopes along x, slopes along y and along both count
    that follow each other in rows and columns.
    """

    def __init__(self, rows: csr_array, columns: csr_array, share: np.ndarray | None) -> None:
        self._there, self._share = (rows, columns), share
        self._back = rows.T.tocsr(), columns.T.tocsr()

    @cached_property
    def _in_single(self) -> tuple[csr_array, csr_array]:
        rows, columns = self._there
        return rows.astype(np.float32), columns.astype(np.float32)

    def to_pixels(self, cells: np.ndarray) -> np.ndarray:
        there = self._in_single if cells.dtype == np.float32 else self._there
        found = _along_both(*there, cells)
        if self._share is None:
            return found
        if self._share.ndim == 2:
            return np.asarray(found * self._share)
        ny, nx = self._share.shape[2:]
        found = found.reshape(-1, 2, ny, 2, nx)
        return np.asarray(np.einsum("kaybx,abyx->kyx", found, self._share))

    def to_cells(self, pixels: np.ndarray) -> np.ndarray:
        if self._share is not None and self._share.ndim == 2:
            pixels = pixels * self._share
        elif self._share is not None:
            ny, nx = self._share.shape[2:]
            pixels = np.einsum("kyx,abyx->kaybx", pixels, self._share).reshape(-1, 2 * ny, 2 * nx)
        return _along_both(*self._back, pixels)


def _along_both(rows: csr_array, columns: csr_array, images: np.ndarray) -> np.ndarray:
    """Images (R, y, x) times a matrix along y and one along x."""
    count, ny, nx = images.shape
    along = columns @ np.ascontiguousarray(images.reshape(-1, nx).T)
    along = np.ascontiguousarray(along.reshape(-1, count, ny).transpose(2, 1, 0))
    found = rows @ along.reshape(ny, -1)
    return np.asarray(found.reshape(len(found), count, -1).transpose(1, 0, 2))


class _Scattered:
    """The same for pixels that lie anyhow between the cells: ``matrix`` (pixels, cells)."""

    def __init__(self, matrix: csr_array, pixels: tuple[int, ...], cells: tuple[int, ...]) -> None:
        self._matrix, self._transpose = matrix, matrix.T.tocsr()
        self._pixels, self._cells = pixels, cells

    def to_pixels(self, cells: np.ndarray) -> np.ndarray:
        flat = self._matrix @ cells.reshape(len(cells), -1).T
        return np.ascontiguousarray(flat.T).reshape(len(cells), *self._pixels)

    def to_cells(self, pixels: np.ndarray) -> np.ndarray:
        flat = self._transpose @ pixels.reshape(len(pixels), -1).T
        return np.ascontiguousarray(flat.T).reshape(len(pixels), *self._cells)


def _sums(count: int, size: int) -> csr_array:
    """What sums ``size`` of ``count`` rows each; the last ones may be fewer."""
    place = np.arange(count)
    shape = -(-count // size), count
    return csr_array((np.ones(count), (place // size, place)), shape=shape)


def _hats(first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """A few places from ``first`` to before ``stop``, and what makes all (n, few) of them."""
    some = np.linspace(first, stop - 1, max(2, math.ceil((stop - first) / _APART) + 1))
    place = np.arange(stop - first) * ((len(some) - 1) / max(stop - 1 - first, 1))
    return some, np.maximum(1.0 - np.abs(place[:, None] - np.arange(len(some))), 0.0)


def points(count: int) -> np.ndarray:
    """Places spread evenly over a cell, in cells from its centre."""
    return (np.arange(count) + 0.5) / count - 0.5


def _arc(s: float, w: float) -> tuple[float, float]:
    """Theta / sin(theta) for sin s and cos w, and its derivative by s divided by s.

    The derivative is taken along the sphere, where dw = -s ds / w.
    """
    if s < 1e-4 and w > 0:
        return 1.0 + s * s / 6.0, 1.0 / 3.0 + 0.3 * s * s
    theta = math.atan2(s, w)
    s = max(s, 1e-12)
    cos = w if abs(w) > 1e-6 else 1e-6
    return theta / s, (s / cos - theta) / s**3


def _spline_weights(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First node (n,) and weights (n, 6) of the quintic B-spline at positions in cells."""
    i = np.floor(x).astype(int)
    t = x - i
    r = 1.0 - t
    t2, t4, t5 = t**2, t**4, t**5
    t3 = t**3
    weights = np.stack(
        [
            r**5,
            26 - 50 * t + 20 * t2 + 20 * t3 - 20 * t4 + 5 * t5,
            66 - 60 * t2 + 30 * t4 - 10 * t5,
            26 + 50 * t + 20 * t2 - 20 * t3 - 20 * t4 + 10 * t5,
            1 + 5 * t + 10 * t2 + 10 * t3 + 5 * t4 - 5 * t5,
            t5,
        ],
        axis=-1,
    )
    return i - 2, weights / 120.0


def _spline_matrix(x: np.ndarray, count: int, scale: np.ndarray, slopes: bool) -> csr_array:
    """Weights (n, count) of cells at positions in cells; none for positions beyond them.

    Those for the slopes follow if they are wanted: (2 n, count).
    """
    first, weights = _spline_weights(x)
    half = _TAPS // 2
    inside = (x >= half) & (x < count - half)
    scale = np.where(inside, scale, 0.0)[:, None]
    place = np.where(inside, first, 0)[:, None] + np.arange(_TAPS)
    parts = [weights * scale]
    if slopes:
        parts.append(_spline_slopes(x - np.floor(x)) * scale)
    rows = len(parts) * len(x)
    values, places = np.concatenate(parts).ravel(), np.tile(place.ravel(), len(parts))
    return csr_array((values, places, np.arange(rows + 1) * _TAPS), shape=(rows, count))


def _spline_slopes(t: np.ndarray) -> np.ndarray:
    """Derivatives (n, 6) of the weights of the quintic B-spline at t beyond a cell."""
    t2, t3, t4 = t**2, t**3, t**4
    slopes = [
        -((1.0 - t) ** 4),
        -10.0 + 8.0 * t + 12.0 * t2 - 16.0 * t3 + 5.0 * t4,
        -24.0 * t + 24.0 * t3 - 10.0 * t4,
        10.0 + 8.0 * t - 12.0 * t2 - 16.0 * t3 + 10.0 * t4,
        1.0 + 4.0 * t + 6.0 * t2 + 4.0 * t3 - 5.0 * t4,
        t4,
    ]
    return np.stack(slopes, axis=-1) / 24.0


def _spline_gain(omega: np.ndarray) -> np.ndarray:
    """What the quintic B-spline makes of a wave at the nodes: (33 + 26 cos + cos 2) / 60."""
    return np.asarray((33.0 + 26.0 * np.cos(omega) + np.cos(2.0 * omega)) / 60.0)
