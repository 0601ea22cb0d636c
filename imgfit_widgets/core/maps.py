"""Maps on the sky: an axis, a geometry, and an array on that geometry.

`MapAxis`
    The edges of the bins of one non-spatial axis (energy, true energy, offset from a source).
`WcsGeom`
    A celestial WCS with the number of its pixels and any further axes. Works in plain degrees
    of its own frame; the one place that turns pixels into positions and back.
`WcsNDMap`
    A read-only array with its geometry and unit; what every reduced quantity is kept in.

Arrays are indexed ``[..., y, x]``: further axes first, then rows (latitude), then columns
(longitude). Pixel coordinates are 0-based, integers at pixel centres. The frames are ``icrs`` and
``galactic``; both are tied by one constant rotation, so positions are turned as plain unit vectors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, overload

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from numpy.typing import ArrayLike, NDArray

from .errors import DataError
from .progress import Progress, silent

if TYPE_CHECKING:
    from matplotlib.axes import Axes as PlotAxes

FloatArray = NDArray[np.float64]

# Pixels whose place is found between two looks at whether to stop.
_PIXELS = 65536

FRAMES = ("icrs", "galactic")
_PREFIX = {"icrs": ("RA--", "DEC-"), "galactic": ("GLON", "GLAT")}


@lru_cache(maxsize=1)
def _icrs_to_galactic() -> FloatArray:
    """Rotation matrix (3, 3) that turns ICRS unit vectors into galactic ones."""
    basis = SkyCoord(x=[1, 0, 0], y=[0, 1, 0], z=[0, 0, 1], representation_type="cartesian")
    return np.asarray(basis.galactic.cartesian.xyz.value, dtype=float)


def unit_vectors(lon: ArrayLike, lat: ArrayLike) -> FloatArray:
    """Unit vectors, shape (3, ...), of longitudes and latitudes in degrees.

    Degrees become radians in the precision in which they come; the rest is double precision.
    """
    lon_rad = np.asarray(np.radians(lon), dtype=np.float64)
    lat_rad = np.asarray(np.radians(lat), dtype=np.float64)
    cos_lat = np.cos(lat_rad)
    vectors = np.empty((3, *np.broadcast_shapes(lon_rad.shape, lat_rad.shape)))
    np.multiply(cos_lat, np.cos(lon_rad), out=vectors[0, ...])
    np.multiply(cos_lat, np.sin(lon_rad), out=vectors[1, ...])
    np.sin(np.broadcast_to(lat_rad, vectors.shape[1:]), out=vectors[2, ...])
    return vectors


def rotation(frame_in: str, frame_out: str) -> FloatArray:
    """Rotation matrix (3, 3) from one frame's unit vectors to another's."""
    for frame in (frame_in, frame_out):
        if frame not in FRAMES:
            raise DataError(f"frame: {frame!r} is not one of {', '.join(FRAMES)}")
    if frame_in == frame_out:
        return np.eye(3)
    matrix = _icrs_to_galactic()
    return matrix if frame_in == "icrs" else matrix.T


def convert_frame(
    lon: ArrayLike, lat: ArrayLike, frame_in: str, frame_out: str
) -> tuple[FloatArray, FloatArray]:
    """Positions in degrees, turned from one frame into another; longitudes in [0, 360)."""
    if frame_in == frame_out:
        return np.asarray(lon, dtype=float), np.asarray(lat, dtype=float)
    return positions(np.tensordot(rotation(frame_in, frame_out), unit_vectors(lon, lat), axes=1))


def positions(vectors: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Longitudes in [0, 360) and latitudes, in degrees, of unit vectors (3, ...)."""
    x, y, z = vectors
    lon = np.degrees(np.arctan2(y, x))
    lon += 360.0 * (lon < 0.0)
    return lon, np.degrees(np.arctan2(z, np.sqrt(x * x + y * y)))


def nearest_pixel(at: ArrayLike) -> NDArray[np.intp]:
    """Index of the pixel in which a coordinate lies; an edge belongs to the upper one."""
    return np.floor(np.asarray(at, dtype=float) + 0.5).astype(np.intp)


def separation(lon_1: ArrayLike, lat_1: ArrayLike, lon_2: float, lat_2: float) -> FloatArray:
    """Angular distances in degrees from one position (chord formula, exact to 1e-8)."""
    chord = unit_vectors(lon_1, lat_1) - unit_vectors(lon_2, lat_2).reshape(
        (3,) + (1,) * np.ndim(lon_1)
    )
    half = 0.5 * np.sqrt(np.sum(chord * chord, axis=0))
    return np.asarray(np.degrees(2.0 * np.arcsin(np.minimum(half, 1.0))))


@dataclass(frozen=True, eq=False)
class MapAxis:
    """Bins along one axis.

    Parameters
    ----------
    name : str
        ``energy`` (reconstructed), ``energy_true``, ``rad``.
    bounds : ndarray, shape (nbin + 1,)
        Bin edges in ``unit``, increasing.
    unit : str
    interp : {"log", "lin"}
        Whether bin centres are geometric or arithmetic means of the edges.
    """

    name: str
    bounds: FloatArray
    unit: str = "TeV"
    interp: str = "log"

    def __post_init__(self) -> None:
        bounds = np.array(self.bounds, dtype=float)
        if bounds.ndim != 1 or len(bounds) < 2 or not np.all(np.diff(bounds) > 0):
            raise DataError(f"axis {self.name}: edges must increase, got {bounds.tolist()}")
        if self.interp == "log" and bounds[0] <= 0:
            raise DataError(f"axis {self.name}: edges must be positive, got {bounds[0]:g}")
        bounds.flags.writeable = False
        object.__setattr__(self, "bounds", bounds)

    @classmethod
    def from_energy_bounds(
        cls,
        energy_min: u.Quantity | str,
        energy_max: u.Quantity | str,
        nbin: int,
        name: str = "energy",
    ) -> MapAxis:
        """Logarithmic energy bins between two energies, in TeV."""
        low, high = (u.Quantity(value).to_value("TeV") for value in (energy_min, energy_max))
        if not 0 < low < high or nbin < 1:
            raise DataError(
                f"axis {name}: need 0 < min < max and at least 1 bin, got {low:g} TeV to "
                f"{high:g} TeV in {nbin} bins"
            )
        return cls(name, np.geomspace(low, high, nbin + 1))

    @property
    def nbin(self) -> int:
        return len(self.bounds) - 1

    @cached_property
    def centers(self) -> FloatArray:
        """Bin centres in ``unit``, shape (nbin,): geometric for ``log``, else arithmetic."""
        low, high = self.bounds[:-1], self.bounds[1:]
        return np.sqrt(low * high) if self.interp == "log" else 0.5 * (low + high)

    @property
    def edges(self) -> u.Quantity:
        return u.Quantity(self.bounds, self.unit)

    @property
    def center(self) -> u.Quantity:
        return u.Quantity(self.centers, self.unit)

    def is_like(self, other: MapAxis) -> bool:
        """Whether two axes have the same bins."""
        return (
            self.nbin == other.nbin
            and u.Unit(self.unit).is_equivalent(other.unit)
            and bool(np.allclose(self.edges.to_value(other.unit), other.bounds, rtol=1e-6))
        )

    def __str__(self) -> str:
        return (
            f"MapAxis\n-------\n\n  Name       : {self.name}\n  Unit       : {self.unit!r}\n"
            f"  Nbins      : {self.nbin}\n  Edges min  : {self.bounds[0]:.1e} {self.unit}\n"
            f"  Edges max  : {self.bounds[-1]:.1e} {self.unit}\n  Interp     : {self.interp}\n"
        )


class Axes(tuple[MapAxis, ...]):
    """Further axes of a geometry, by position or by name."""

    @overload  # type: ignore[override]
    def __getitem__(self, key: int | str) -> MapAxis: ...
    @overload
    def __getitem__(self, key: slice) -> Axes: ...
    def __getitem__(self, key: int | str | slice) -> MapAxis | Axes:
        if isinstance(key, str):
            for axis in self:
                if axis.name == key:
                    return axis
            raise KeyError(f"no axis {key!r}; there are {', '.join(self.names) or 'none'}")
        found = super().__getitem__(key)
        return Axes(found) if isinstance(found, tuple) else found

    @property
    def names(self) -> list[str]:
        return [axis.name for axis in self]


@dataclass(frozen=True, eq=False)
class WcsGeom:
    """Pixels on the sky, and further axes.

    Parameters
    ----------
    wcs : `~astropy.wcs.WCS`
        Celestial, two axes, in ``icrs`` or ``galactic``.
    shape : tuple of int
        (ny, nx).
    axes : sequence of `MapAxis`
        Further axes in the order of the array's leading dimensions.
    """

    wcs: WCS
    shape: tuple[int, int]
    axes: Axes = field(default_factory=Axes)

    is_region = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", Axes(self.axes))
        object.__setattr__(self, "shape", (int(self.shape[0]), int(self.shape[1])))

    @classmethod
    def create(
        cls,
        skydir: SkyCoord | tuple[float, float] = (0.0, 0.0),
        width: float | tuple[float, float] = 10.0,
        binsz: float = 0.1,
        proj: str = "CAR",
        frame: str = "icrs",
        axes: Sequence[MapAxis] = (),
    ) -> WcsGeom:
        """A map of ``width`` degrees (lon, lat) in pixels of ``binsz`` degrees around ``skydir``.

        As in Gammapy, the reference point of the projection is the map's centre, for a plate
        carrée map too, so that its pixels are square there, whatever the latitude.
        """
        if isinstance(skydir, SkyCoord):
            at = skydir.transform_to(frame).spherical
            lon, lat = at.lon.deg, at.lat.deg
        else:
            lon, lat = (float(value) for value in skydir)
        width_lon, width_lat = np.broadcast_to(np.asarray(width, dtype=float), 2)
        nx, ny = round(float(width_lon) / binsz), round(float(width_lat) / binsz)
        if nx < 1 or ny < 1:
            raise DataError(
                f"map: width {width_lon:g} x {width_lat:g} deg holds no pixel of {binsz:g} deg"
            )
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = [f"{name}-{proj}" for name in _prefix(frame)]
        wcs.wcs.cunit = ["deg", "deg"]
        wcs.wcs.cdelt = [-binsz, binsz]
        wcs.wcs.crpix = [(nx + 1) / 2.0, (ny + 1) / 2.0]
        wcs.wcs.crval = [lon, lat]
        wcs.wcs.set()
        return cls(wcs, (ny, nx), Axes(axes))

    @cached_property
    def pixel_key(self) -> tuple[Any, ...]:
        """Hashable, and the same for geometries whose pixels are in the same places."""
        w = self.wcs.wcs
        numbers = (w.crval, w.crpix, w.cdelt, w.get_pc(), [w.lonpole, w.latpole])
        text = *w.ctype, repr(w.get_pv()), id(self.wcs) if self.wcs.has_distortion else None
        return (
            self.frame,
            self.shape,
            text,
            np.concatenate([np.ravel(n) for n in numbers]).tobytes(),
        )

    @cached_property
    def frame(self) -> str:
        ctype = str(self.wcs.wcs.ctype[0])
        if ctype.startswith("GLON"):
            return "galactic"
        if ctype.startswith("RA--"):
            return "icrs"
        raise DataError(f"map: WCS axis {ctype!r} is neither galactic nor equatorial")

    @property
    def projection(self) -> str:
        return str(self.wcs.wcs.ctype[0])[-3:]

    @property
    def npix(self) -> tuple[int, int]:
        """(nx, ny)."""
        return self.shape[1], self.shape[0]

    @property
    def data_shape(self) -> tuple[int, ...]:
        return (*(axis.nbin for axis in self.axes), *self.shape)

    @cached_property
    def pixel_scales(self) -> tuple[float, float]:
        """Size in degrees on the sky along x and y of the central pixel.

        Where the map's centre has no sky (a corner of an all-sky map), of the pixel at the
        reference point of the projection, to which `binsz` belongs.
        """
        x, y = (self.npix[0] - 1) / 2.0, (self.npix[1] - 1) / 2.0
        scales = []
        for dx, dy in ((0.5, 0.0), (0.0, 0.5)):
            lon, lat = self.pix_to_lonlat(np.array([x - dx, x + dx]), np.array([y - dy, y + dy]))
            scales.append(float(separation(lon[:1], lat[:1], lon[1], lat[1])[0]))
        if not np.all(np.isfinite(scales)) or min(scales) <= 0.0:
            return self.binsz
        return scales[0], scales[1]

    @cached_property
    def binsz(self) -> tuple[float, float]:
        """Pixel size along x and y in degrees at the reference point, as the header has it."""
        scale = np.sqrt((np.asarray(self.wcs.pixel_scale_matrix) ** 2).sum(axis=0))
        return float(scale[0]), float(scale[1])

    @cached_property
    def center_lonlat(self) -> tuple[float, float]:
        """The map's centre in degrees of its own frame, longitude in [0, 360)."""
        centre = [[(self.npix[0] - 1) / 2.0, (self.npix[1] - 1) / 2.0]]
        lon, lat = self.wcs.wcs_pix2world(centre, 0)[0]
        return float(lon) % 360.0, float(lat)

    @property
    def center_skydir(self) -> SkyCoord:
        lon, lat = self.center_lonlat
        return SkyCoord(lon, lat, unit="deg", frame=self.frame)

    @property
    def width(self) -> tuple[float, float]:
        """Width of the map in degrees (lon, lat) as pixels times their size."""
        return self.npix[0] * self.binsz[0], self.npix[1] * self.binsz[1]

    def wrap(self, lon: ArrayLike) -> FloatArray:
        """Longitudes moved to within 180 degrees of the map's centre, which is kept near 0."""
        centre = self.center_lonlat[0]
        centre = centre - 360.0 if centre > 180.0 else centre
        degrees = np.asarray(lon, dtype=float)
        return np.asarray(degrees - 360.0 * np.floor((degrees - (centre - 180.0)) / 360.0))

    def pix_to_lonlat(self, x: ArrayLike, y: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Positions in degrees of the map's frame; NaN where the projection has no sky.

        Longitudes run on continuously across the map.
        """
        x, y = np.broadcast_arrays(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
        lon, lat = self.wcs.wcs_pix2world(x.ravel(), y.ravel(), 0)
        return self.wrap(lon).reshape(x.shape), np.asarray(lat).reshape(x.shape)

    def lonlat_to_pix(self, lon: ArrayLike, lat: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """0-based pixel coordinates of positions in degrees of the map's frame."""
        lon, lat = np.broadcast_arrays(np.asarray(lon, dtype=float), np.asarray(lat, dtype=float))
        x, y = self.wcs.wcs_world2pix(lon.ravel(), lat.ravel(), 0)
        return np.asarray(x).reshape(lon.shape), np.asarray(y).reshape(lon.shape)

    def to_frame(self, lon: ArrayLike, lat: ArrayLike, frame: str) -> tuple[FloatArray, FloatArray]:
        """Positions of the map's frame, in another frame."""
        return convert_frame(lon, lat, self.frame, frame)

    def from_frame(
        self, lon: ArrayLike, lat: ArrayLike, frame: str
    ) -> tuple[FloatArray, FloatArray]:
        """Positions of another frame, in the map's."""
        return convert_frame(lon, lat, frame, self.frame)

    def jacobian(self, x: float, y: float) -> FloatArray:
        """How pixels follow the sky at a pixel position.

        Returns
        -------
        ndarray, shape (2, 2)
            Rows x, y; columns: per degree towards increasing longitude (true angle, so
            ``cos(lat) dlon``) and per degree towards increasing latitude.
        """
        lon, lat = (float(value) for value in self.pix_to_lonlat(x, y))
        step = 1e-4
        d_lon = step / max(math.cos(math.radians(lat)), 1e-6)
        px, py = self.lonlat_to_pix(
            np.array([lon + d_lon, lon - d_lon, lon, lon]),
            np.array([lat, lat, lat + step, lat - step]),
        )
        return np.array([[px[0] - px[1], px[2] - px[3]], [py[0] - py[1], py[2] - py[3]]]) / (
            2.0 * step
        )

    def contains(self, lon: ArrayLike, lat: ArrayLike) -> NDArray[np.bool_]:
        """Whether positions (map's frame, degrees) fall onto a pixel."""
        x, y = self.lonlat_to_pix(lon, lat)
        nx, ny = self.npix
        with np.errstate(invalid="ignore"):
            inside = (x >= -0.5) & (x < nx - 0.5) & (y >= -0.5) & (y < ny - 0.5)
        return np.asarray(inside)

    @cached_property
    def pixel_lonlat(self) -> tuple[FloatArray, FloatArray]:
        """Longitude and latitude of every pixel centre, each of shape (ny, nx), degrees."""
        y, x = np.mgrid[: self.shape[0], : self.shape[1]]
        return self.pix_to_lonlat(x, y)

    def survey(self, progress: Progress = silent) -> tuple[FloatArray, FloatArray]:
        """Where the pixels lie on the sky and how much of it they hold, found once.

        Parameters
        ----------
        progress : callable
            Called between parts of the map; may raise `Cancelled`.

        Returns
        -------
        vectors : ndarray, shape (3, ny, nx)
            ICRS unit vectors of the pixel centres; NaN beyond the projection.
        solid_angle : ndarray, shape (ny, nx)
            sr; see `solid_angle`.
        """
        known = self.__dict__.get("_survey")
        if known is not None:
            return known  # type: ignore[no-any-return]
        ny, nx = self.shape
        vectors, area = np.empty((3, ny, nx)), np.empty((ny, nx))
        turn = rotation(self.frame, "icrs")
        step = max(1, _PIXELS // nx)
        for start in range(0, ny, step):
            progress(start / ny, "pixels of the map")
            rows = slice(start, min(start + step, ny))
            # With a border of one pixel, for the differences.
            y, x = np.mgrid[rows.start - 1 : rows.stop + 1, -1 : nx + 1]
            v = unit_vectors(*self.pix_to_lonlat(x, y))
            vectors[:, rows] = np.tensordot(turn, v[:, 1:-1, 1:-1], axes=1)
            ax, ay, az = 0.5 * (v[:, 1:-1, 2:] - v[:, 1:-1, :-2])
            bx, by, bz = 0.5 * (v[:, 2:, 1:-1] - v[:, :-2, 1:-1])
            cross = (ay * bz - az * by) ** 2 + (az * bx - ax * bz) ** 2 + (ax * by - ay * bx) ** 2
            np.sqrt(cross, out=area[rows])
        vectors.flags.writeable = area.flags.writeable = False
        self.__dict__["_survey"] = vectors, area
        return vectors, area

    @property
    def icrs_vectors(self) -> FloatArray:
        """ICRS unit vectors of the pixel centres, (3, ny, nx); NaN beyond the projection."""
        return self.survey()[0]

    def solid_angle(self) -> FloatArray:
        """Solid angle of every pixel in sr, shape (ny, nx).

        The parallelogram of the central differences along x and y; exact to the square of the
        pixel size in radians.
        """
        return self.survey()[1]

    def to_image(self) -> WcsGeom:
        return replace(self, axes=Axes())

    def to_cube(self, axes: Sequence[MapAxis]) -> WcsGeom:
        return replace(self, axes=Axes(axes))

    def to_binsz(self, binsz: float) -> WcsGeom:
        """The same part of the sky in pixels of about another size (degrees), in both directions.

        Projection, rotation and reference point stay, so the pixels of both are tied by a factor
        along each axis and have the centre of the map in common.
        """
        shape = [
            max(round(n * size / binsz), 1) for n, size in zip(self.npix, self.binsz, strict=True)
        ]
        return self._resampled(
            np.array([binsz / size for size in self.binsz]), (shape[0], shape[1])
        )

    def downsample(self, pixels: int) -> WcsGeom:
        """An image in pixels of ``pixels`` x ``pixels`` of this one's, which covers it."""
        return self._resampled(
            np.array([pixels, pixels], dtype=float),
            (-(-self.npix[0] // pixels), -(-self.npix[1] // pixels)),
            corner=True,
        ).to_image()

    def _resampled(
        self, factors: FloatArray, npix: tuple[int, int], corner: bool = False
    ) -> WcsGeom:
        """Pixels ``factors`` (x, y) times as large; corners or centres of the maps coincide."""
        old = 0.0 if corner else np.asarray(self.npix) / 2.0
        new = 0.0 if corner else np.asarray(npix) / 2.0
        wcs = self.wcs.deepcopy()
        # The columns of the matrix belong to x and y, whatever keywords it came from.
        matrix = np.asarray(wcs.pixel_scale_matrix) * factors
        if wcs.wcs.has_cd():
            wcs.wcs.cd = matrix
        else:
            if wcs.wcs.has_crota():
                wcs = _without_crota(wcs)
            cdelt = np.array(wcs.wcs.cdelt) * factors
            wcs.wcs.cdelt = cdelt
            wcs.wcs.pc = matrix / cdelt[:, None]
        wcs.wcs.crpix = (np.array(self.wcs.wcs.crpix) - 0.5 - old) / factors + new + 0.5
        wcs.wcs.set()
        return WcsGeom(wcs, (npix[1], npix[0]), self.axes)

    def crop(self, rows: slice, columns: slice) -> WcsGeom:
        """The part of the map in some rows and columns, on the same pixel grid."""
        wcs = self.wcs.deepcopy()
        wcs.wcs.crpix = [
            wcs.wcs.crpix[0] - columns.start,
            wcs.wcs.crpix[1] - rows.start,
        ]
        wcs.wcs.set()
        return WcsGeom(wcs, (rows.stop - rows.start, columns.stop - columns.start), self.axes)

    def is_aligned(self, other: WcsGeom, tolerance: float = 1e-3) -> bool:
        """Whether another geometry has the same pixels (to a fraction of a pixel)."""
        if self.shape != other.shape or self.frame != other.frame:
            return False
        nx, ny = self.npix
        x, y = np.array([0.0, nx - 1.0, 0.0, nx - 1.0]), np.array([0.0, 0.0, ny - 1.0, ny - 1.0])
        other_x, other_y = other.lonlat_to_pix(*self.pix_to_lonlat(x, y))
        return bool(
            np.allclose(x, other_x, atol=tolerance) and np.allclose(y, other_y, atol=tolerance)
        )

    def __str__(self) -> str:
        lon, lat = self.center_lonlat
        return (
            "WcsGeom\n\n"
            f"\taxes       : {['lon', 'lat', *self.axes.names]}\n"
            f"\tshape      : {(*self.npix, *(axis.nbin for axis in self.axes))}\n"
            f"\tndim       : {2 + len(self.axes)}\n"
            f"\tframe      : {self.frame}\n"
            f"\tprojection : {self.projection}\n"
            f"\tcenter     : {lon:.1f} deg, {lat:.1f} deg\n"
            f"\twidth      : {self.width[0]:.1f} deg x {self.width[1]:.1f} deg\n"
        )


def _without_crota(wcs: WCS) -> WCS:
    """The same coordinates without the keyword CROTA, beside which no other matrix may stand."""
    header = wcs.to_header()
    return WCS(header)


def _prefix(frame: str) -> tuple[str, str]:
    if frame not in _PREFIX:
        raise DataError(f"frame: {frame!r} is not one of {', '.join(FRAMES)}")
    return _PREFIX[frame]


@dataclass(frozen=True, eq=False)
class WcsNDMap:
    """An array on a geometry.

    Parameters
    ----------
    geom : `WcsGeom`
    data : ndarray, shape ``geom.data_shape``
        Made read-only: a changed map is a new map.
    unit : str
    meta : dict
        What the FITS header keeps in ``META``.
    """

    geom: WcsGeom
    data: NDArray[Any]
    unit: str = ""
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        data = np.asarray(self.data)
        if data.shape != self.geom.data_shape:
            raise DataError(
                f"map: data {data.shape} do not fit the geometry {self.geom.data_shape}"
            )
        data = data.view()
        data.flags.writeable = False
        object.__setattr__(self, "data", data)

    @property
    def quantity(self) -> u.Quantity:
        return u.Quantity(self.data, self.unit)

    def sum_over_axes(self) -> WcsNDMap:
        """The map summed over all but its sky axes."""
        leading = tuple(range(len(self.geom.axes)))
        return replace(self, geom=self.geom.to_image(), data=self.data.sum(axis=leading))

    reduce_over_axes = sum_over_axes

    def interp_by_coord(self, lon: ArrayLike, lat: ArrayLike) -> FloatArray:
        """Values between pixel centres by bilinear interpolation; NaN off the map.

        Positions in degrees of the map's frame, shape S; returns shape (axes..., S).
        """
        x, y = self.geom.lonlat_to_pix(lon, lat)
        nx, ny = self.geom.npix
        x0 = np.clip(np.floor(np.nan_to_num(x)).astype(int), 0, max(nx - 2, 0))
        y0 = np.clip(np.floor(np.nan_to_num(y)).astype(int), 0, max(ny - 2, 0))
        x1, y1 = np.minimum(x0 + 1, nx - 1), np.minimum(y0 + 1, ny - 1)
        fx, fy = np.clip(x - x0, 0.0, 1.0), np.clip(y - y0, 0.0, 1.0)
        values = (1 - fy) * ((1 - fx) * self.data[..., y0, x0] + fx * self.data[..., y0, x1])
        values = values + fy * ((1 - fx) * self.data[..., y1, x0] + fx * self.data[..., y1, x1])
        return np.where(self.geom.contains(lon, lat), values, np.nan)

    def get_by_coord(self, lon: ArrayLike, lat: ArrayLike) -> FloatArray:
        """Values of the pixels that hold some positions (degrees, map's frame); NaN off the map."""
        x, y = self.geom.lonlat_to_pix(lon, lat)
        nx, ny = self.geom.npix
        column = np.clip(np.rint(np.nan_to_num(x)).astype(int), 0, nx - 1)
        row = np.clip(np.rint(np.nan_to_num(y)).astype(int), 0, ny - 1)
        values = np.asarray(self.data[..., row, column], dtype=float)
        return np.where(self.geom.contains(lon, lat), values, np.nan)

    def plot(
        self,
        ax: PlotAxes | None = None,
        add_cbar: bool = False,
        stretch: str = "linear",
        **kwargs: Any,
    ) -> PlotAxes:
        """Draw a map of one plane on sky axes with matplotlib (``vmin``, ``vmax``, ``cmap`` …)."""
        # Only here, so that the headless core loads without a figure library.
        import matplotlib.pyplot as plt
        from astropy.visualization import simple_norm

        image = self.data.reshape((-1, *self.geom.shape))
        if len(image) != 1:
            raise DataError(
                f"plot: the map has {len(image)} planes; sum them first with sum_over_axes()"
            )
        if ax is None:
            ax = plt.figure(figsize=(9, 6)).add_subplot(projection=self.geom.wcs)
        kwargs.setdefault("cmap", "afmhot")
        kwargs.setdefault("origin", "lower")
        kwargs.setdefault("interpolation", "nearest")
        if "norm" not in kwargs:
            kwargs["norm"] = simple_norm(
                image[0][np.isfinite(image[0])],
                stretch,
                vmin=kwargs.pop("vmin", None),
                vmax=kwargs.pop("vmax", None),
            )
        drawn = ax.imshow(image[0], **kwargs)
        label = {"galactic": ("Galactic longitude", "Galactic latitude")}.get(
            self.geom.frame, ("Right ascension", "Declination")
        )
        ax.set_xlabel(label[0])
        ax.set_ylabel(label[1])
        if add_cbar:
            ax.figure.colorbar(drawn, ax=ax, label=self.unit)
        return ax

    def __str__(self) -> str:
        unit = u.Unit(self.unit).to_string() if self.unit else "''"
        return (
            "WcsNDMap\n\n"
            f"  geom  : WcsGeom \n"
            f"  axes  : {['lon', 'lat', *self.geom.axes.names]}\n"
            f"  shape : {(*self.geom.npix, *(axis.nbin for axis in self.geom.axes))}\n"
            f"  ndim  : {2 + len(self.geom.axes)}\n"
            f"  unit  : {unit}\n"
            f"  dtype : {self.data.dtype} \n"
        )
