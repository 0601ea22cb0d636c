"""A small sky to begin with: a GADF DL3 store made from scratch, with sources of known position.

`simulate_store` writes event lists, their instrument responses and the index files of four
pointings on an invented field, with a configuration and models to analyse them and the truth to
compare with. All responses are the analytic functions of this file, on grids fine enough that
interpolating them is exact to a few per mille; the events are drawn from the functions. The same
seed gives the same bytes: nothing in the files depends on the day or the machine.

The format is that of gamma-astro-data-formats 0.3. Angles are in deg, energies in TeV, times in s.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from astropy.coordinates import SkyCoord
from astropy.io import fits
from numpy.typing import NDArray
from scipy.special import ndtr

from .config import AnalysisConfig
from .errors import DataError
from .progress import Progress, silent

Array = NDArray[np.float64]

VERSION = 2
"""Raised with every change that alters the files, so that a cache knows."""

STREAM = 11
"""Added to the seed; chosen so that seed 0 gives a sky without rare fluctuations."""

CENTRE = (30.0, 0.0)
"""Galactic longitude and latitude of the field (deg)."""
POINTINGS = ((0.6, 0.4), (-0.6, 0.4), (0.6, -0.4), (-0.6, -0.4))
"""Offsets of the pointings from the centre (deg)."""
ONTIME = 1800.0
DEADC = 0.95
ENERGY_RANGE = (0.1, 150.0)
"""True energies that are simulated."""
RECO_RANGE = (0.4, 100.0)
"""Reconstructed energies that the event lists keep and the background model covers."""
FLUX_RANGE = (0.5, 50.0)
"""Energies between which the sources' fluxes are given, and analysed."""
INDEX = 2.3
FIELD_OF_VIEW = 2.8
"""Half the side of the square that the background model covers."""
BACKGROUND_GRADIENT = 0.06
"""Relative rise of the background per deg of DETX, which is positive towards smaller RA."""


@dataclass(frozen=True)
class Source:
    """A source of the simulated sky.

    Parameters
    ----------
    name : str
        Name in the models file.
    lon, lat : float
        Galactic coordinates (deg).
    sigma : float
        Width of the Gaussian (deg), 0 for a point.
    flux : float
        Photons per cm2 and s between the energies of FLUX_RANGE.
    start : (float, float)
        Displacement (deg) of the start position in the models file.
    """

    name: str
    lon: float
    lat: float
    sigma: float
    flux: float
    start: tuple[float, float]


SOURCES = (
    Source("bright", 30.32, 0.25, 0.0, 5.0e-11, (0.03, -0.02)),
    Source("extended", 29.30, -0.20, 0.18, 5.0e-11, (-0.05, 0.04)),
    Source("faint", 30.25, -0.85, 0.0, 6.0e-12, (0.02, 0.02)),
)


def effective_area(energy: Array, offset: Array) -> Array:
    """Effective area (m2) at true energies (TeV) and offsets (deg); separable."""
    area: Array = 4.0e5 / (1.0 + (0.6 / energy) ** 1.5) * offset_loss(offset)
    return area


def offset_loss(offset: Array) -> Array:
    """Effective area against the one on axis."""
    loss: Array = np.exp(-0.5 * (offset / 1.8) ** 2)
    return loss


def energy_resolution(energy: Array) -> Array:
    """Standard deviation of ln(reconstructed / true energy), which is Gaussian around 0."""
    return 0.10 + 0.04 * energy**-0.5


def psf_core(energy: Array, offset: Array) -> Array:
    """Standard deviation (deg) of the narrow Gaussian of the PSF; the wide one is 2.5 times it."""
    return (0.025 + 0.025 * energy**-0.4) * (1.0 + 0.05 * offset**2)


PSF_WIDE = 2.5
PSF_WIDE_SHARE = 0.2
"""Share of the events in the wide Gaussian."""


def background_rate(energy: Array, det_x: Array, det_y: Array) -> Array:
    """Background (s-1 TeV-1 sr-1) at field-of-view coordinates (deg)."""
    cos_offset = np.cos(np.radians(det_x)) * np.cos(np.radians(det_y))
    offset = np.degrees(np.arccos(np.clip(cos_offset, -1.0, 1.0)))
    shape = np.exp(-0.5 * (offset / 1.6) ** 2) * (1.0 + BACKGROUND_GRADIENT * det_x)
    rate: Array = 1180.0 * energy**-2.7 * shape
    return rate


def simulate_store(path: str | Path, seed: int = 0, progress: Progress = silent) -> Path:
    """Write the store, and the files to analyse it with.

    Parameters
    ----------
    path : str or Path
        Folder, made if needed: obs-index.fits.gz, hdu-index.fits.gz, irf.fits.gz, the event lists,
        config.yaml, models.yaml (start values) and truth.yaml.
    seed : int
        Seed of all random numbers, from 0 up.
    progress : Progress
        Told after each pointing.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    DataError
        The folder cannot be written, or the seed is negative.
    """
    folder = Path(path)
    if seed < 0:
        raise DataError(f"seed: {seed} cannot be used; expected a whole number from 0 up")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        observations = []
        for number in range(len(POINTINGS)):
            progress(number / len(POINTINGS), f"Simulating pointing {number + 1}")
            rng = np.random.default_rng([STREAM, seed, number])
            observations.append(_write_observation(folder, number, rng))
        _write_fits(folder / "irf.fits.gz", _irf_hdus())
        _write_fits(folder / "obs-index.fits.gz", [_obs_index(observations)])
        _write_fits(folder / "hdu-index.fits.gz", [_hdu_index(observations)])
        demo_config().write(folder / "config.yaml", overwrite=True)
        (folder / "models.yaml").write_text(models_yaml(SOURCES, start=True), encoding="utf-8")
        (folder / "truth.yaml").write_text(models_yaml(SOURCES), encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{folder}: cannot write the simulated store: {reason}") from None
    progress(1.0, "Simulated the store")
    return folder


def demo_config(datastore: str | Path = ".") -> AnalysisConfig:
    """The configuration that suits the simulated store."""
    axis = {"min": f"{FLUX_RANGE[0]} TeV", "max": f"{FLUX_RANGE[1]} TeV", "nbins": 1}
    centre = {"frame": "galactic", "lon": f"{CENTRE[0]} deg", "lat": f"{CENTRE[1]} deg"}
    return AnalysisConfig(
        general={"log": {"level": "info"}},
        observations={"datastore": str(datastore), "obs_ids": obs_ids()},
        datasets={
            "type": "3d",
            "geom": {
                "wcs": {
                    "skydir": centre,
                    "binsize": "0.02 deg",
                    "width": {"width": "5 deg", "height": "4 deg"},
                },
                "selection": {"offset_max": "2.3 deg"},
                "axes": {
                    "energy": axis,
                    "energy_true": {"min": "0.25 TeV", "max": "100 TeV", "nbins": 26},
                },
            },
            "background": {"method": "fov_background"},
            "safe_mask": {"methods": ["offset-max"], "parameters": {"offset_max": "2.3 deg"}},
        },
        fit={"fit_range": {"min": axis["min"], "max": axis["max"]}},
    )


def obs_ids() -> list[int]:
    """The numbers of the simulated observations."""
    return [number + 1 for number in range(len(POINTINGS))]


def models_yaml(sources: Sequence[Source], start: bool = False) -> str:
    """The sources as a models file; with ``start``, displaced and with the same faint flux."""
    components = []
    for source in sources:
        shift = source.start if start else (0.0, 0.0)
        spatial = [
            {"name": "lon_0", "value": round(source.lon + shift[0], 6), "unit": "deg"},
            {"name": "lat_0", "value": round(source.lat + shift[1], 6), "unit": "deg"},
        ]
        if source.sigma:
            sigma = 0.1 if start else source.sigma
            spatial.append({"name": "sigma", "value": sigma, "unit": "deg"})
        limits = [
            {"name": "index", "value": INDEX, "unit": "", "frozen": True},
            {"name": "emin", "value": FLUX_RANGE[0], "unit": "TeV", "frozen": True},
            {"name": "emax", "value": FLUX_RANGE[1], "unit": "TeV", "frozen": True},
        ]
        flux = {"name": "amplitude", "value": 1e-12 if start else source.flux, "unit": "cm-2 s-1"}
        components.append(
            {
                "name": source.name,
                "type": "SkyModel",
                "spatial": {
                    "type": "GaussianSpatialModel" if source.sigma else "PointSpatialModel",
                    "frame": "galactic",
                    "parameters": spatial,
                },
                "spectral": {"type": "PowerLaw2SpectralModel", "parameters": [flux, *limits]},
            }
        )
    return str(yaml.safe_dump({"components": components}, sort_keys=False, indent=4))


@dataclass(frozen=True)
class _Pointing:
    """Header facts of one observation."""

    obs_id: int
    ra: float
    dec: float
    tstart: float
    n_events: int
    file_name: str

    @property
    def header(self) -> dict[str, object]:
        return {
            "OBS_ID": self.obs_id, "TELESCOP": "IMGFIT", "INSTRUME": "SIMULATED",
            "OBJECT": "Simulated field", "OBS_MODE": "POINTING", "EQUINOX": 2000.0,
            "RADECSYS": "ICRS", "RA_PNT": self.ra, "DEC_PNT": self.dec, "RA_OBJ": self.ra,
            "DEC_OBJ": self.dec, "ALT_PNT": 70.0, "AZ_PNT": 0.0, "FOVALIGN": "RADEC",
            **TIME_KEYS, "TSTART": self.tstart, "TSTOP": self.tstart + ONTIME, "ONTIME": ONTIME,
            "LIVETIME": ONTIME * DEADC, "DEADC": DEADC, **SITE,
        }  # fmt: skip


TIME_KEYS = {
    "MJDREFI": 51544, "MJDREFF": 0.5, "TIMEUNIT": "s", "TIMESYS": "TT", "TIMEREF": "LOCAL",
}  # fmt: skip
SITE = {"GEOLON": -70.3, "GEOLAT": -24.7, "ALTITUDE": 2150.0}
GADF = {"HDUCLASS": "GADF", "HDUDOC": "gamma-astro-data-formats", "HDUVERS": "0.3"}


def _write_observation(folder: Path, number: int, rng: np.random.Generator) -> _Pointing:
    """Draw the events of one pointing and write them with their good time interval."""
    shift = POINTINGS[number]
    lon, lat = CENTRE[0] + shift[0], CENTRE[1] + shift[1]
    pointing = SkyCoord(lon, lat, unit="deg", frame="galactic")
    parts = [_draw_source(source, (lon, lat), rng) for source in SOURCES]
    gal_lon, gal_lat, energy = (np.concatenate(column) for column in zip(*parts, strict=True))
    sky = SkyCoord(gal_lon, gal_lat, unit="deg", frame="galactic").icrs
    ra0, dec0 = float(pointing.icrs.ra.deg), float(pointing.icrs.dec.deg)
    bkg_ra, bkg_dec, bkg_energy = _draw_background(ra0, dec0, rng)
    ra = np.concatenate([sky.ra.deg, bkg_ra])
    dec = np.concatenate([sky.dec.deg, bkg_dec])
    energy = np.concatenate([energy, bkg_energy])
    kept = (energy >= RECO_RANGE[0]) & (energy < RECO_RANGE[1])
    ra, dec, energy = ra[kept], dec[kept], energy[kept]

    obs_id = obs_ids()[number]
    tstart = 8.2e8 + number * (ONTIME + 200.0)
    facts = _Pointing(obs_id, ra0, dec0, tstart, energy.size, f"events_{obs_id:06d}.fits.gz")
    order = rng.permutation(energy.size)
    time = np.sort(tstart + ONTIME * rng.random(energy.size))
    events = _table(
        "EVENTS",
        [
            ("EVENT_ID", "", np.arange(1, energy.size + 1, dtype=np.int64)),
            ("TIME", "s", time),
            ("RA", "deg", ra[order].astype(np.float32)),
            ("DEC", "deg", dec[order].astype(np.float32)),
            ("ENERGY", "TeV", energy[order].astype(np.float32)),
        ],
        {**GADF, "HDUCLAS1": "EVENTS", **facts.header},
    )
    interval = [("START", "s", np.array([tstart])), ("STOP", "s", np.array([tstart + ONTIME]))]
    gti = _table("GTI", interval, {**GADF, "HDUCLAS1": "GTI", "OBS_ID": obs_id, **TIME_KEYS})
    _write_fits(folder / facts.file_name, [events, gti])
    return facts


def _draw_source(
    source: Source, pointing: tuple[float, float], rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Galactic lon, lat (deg) and reconstructed energy (TeV) of a source's detected events."""
    norm = source.flux * (1 - INDEX)
    norm /= FLUX_RANGE[1] ** (1 - INDEX) - FLUX_RANGE[0] ** (1 - INDEX)

    def on_axis_rate(energy: Array) -> Array:
        area = effective_area(energy, np.zeros_like(energy))
        rate: Array = 1e4 * norm * energy**-INDEX * area
        return rate

    rate, draw = _spectrum(on_axis_rate, ENERGY_RANGE)
    energy = draw(rng.random(rng.poisson(rate * ONTIME * DEADC)))
    x, y = rng.normal(scale=source.sigma or 1.0, size=(2, energy.size)) * (source.sigma > 0)
    lon, lat = _offset(source.lon, source.lat, x, y)
    offset = _separation(lon, lat, *pointing)
    seen = rng.random(energy.size) < offset_loss(offset)
    lon, lat, energy, offset = lon[seen], lat[seen], energy[seen], offset[seen]

    width = psf_core(energy, offset)
    width = np.where(rng.random(energy.size) < PSF_WIDE_SHARE, PSF_WIDE * width, width)
    lon, lat = _offset(lon, lat, *(width * rng.normal(size=(2, energy.size))))
    energy = energy * np.exp(energy_resolution(energy) * rng.normal(size=energy.size))
    return lon, lat, energy


def _draw_background(
    ra0: float, dec0: float, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """RA, Dec (deg) and reconstructed energy (TeV) of the background events."""
    edges = np.linspace(-FIELD_OF_VIEW, FIELD_OF_VIEW, 281)
    middle = 0.5 * (edges[1:] + edges[:-1])
    det_y, det_x = np.meshgrid(middle, middle, indexing="ij")
    solid_angle = np.radians(edges[1] - edges[0]) ** 2 * np.cos(np.radians(det_y))
    at_1_tev = background_rate(np.array(1.0), det_x, det_y)

    rate, draw = _spectrum(lambda energy: energy**-2.7, RECO_RANGE)
    counts = rng.poisson(float((at_1_tev * solid_angle).sum()) * rate * ONTIME)
    weights = np.cumsum((at_1_tev * solid_angle).ravel())
    cell = np.searchsorted(weights / weights[-1], rng.random(counts), side="right")
    row, column = np.divmod(cell, middle.size)
    step = edges[1] - edges[0]
    x = edges[column] + step * rng.random(counts)
    y = edges[row] + step * rng.random(counts)
    # The field of view's longitude is minus that of the frame which is centred on the pointing.
    ra, dec = _from_offset_frame(-x, y, ra0, dec0)
    return ra, dec, draw(rng.random(counts))


def _spectrum(
    rate: Callable[[Array], Array], bounds: tuple[float, float]
) -> tuple[float, Callable[[Array], Array]]:
    """Integral of ``rate`` (per TeV) over ``bounds``; function from uniform to random energies."""
    log_energy = np.linspace(np.log(bounds[0]), np.log(bounds[1]), 4001)
    middle = np.exp(0.5 * (log_energy[1:] + log_energy[:-1]))
    cumulative = np.concatenate([[0.0], np.cumsum(rate(middle) * np.diff(np.exp(log_energy)))])
    total = float(cumulative[-1])
    return total, lambda uniform: np.exp(np.interp(uniform * total, cumulative, log_energy))


def _from_offset_frame(lon: Array, lat: Array, ra0: float, dec0: float) -> tuple[Array, Array]:
    """Position (deg) of a point that is given in the frame centred on (ra0, dec0)."""
    lon, lat, dec = np.radians(lon), np.radians(lat), np.radians(dec0)
    x, y, z = np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)
    x, z = x * np.cos(dec) - z * np.sin(dec), x * np.sin(dec) + z * np.cos(dec)
    return (np.degrees(np.arctan2(y, x)) + ra0) % 360.0, np.degrees(np.arcsin(z))


def _offset(lon: Array | float, lat: Array | float, x: Array, y: Array) -> tuple[Array, Array]:
    """Go from (lon, lat) the distance hypot(x, y) on a great circle; x East, y North; all deg."""
    distance, bearing = np.radians(np.hypot(x, y)), np.arctan2(x, y)
    lat = np.radians(lat)
    sine = np.sin(lat) * np.cos(distance) + np.cos(lat) * np.sin(distance) * np.cos(bearing)
    turn = np.arctan2(
        np.sin(bearing) * np.sin(distance) * np.cos(lat), np.cos(distance) - np.sin(lat) * sine
    )
    return lon + np.degrees(turn), np.degrees(np.arcsin(sine))


def _separation(lon: Array, lat: Array, lon0: float, lat0: float) -> Array:
    """Distance on the sphere (deg), by the haversine formula."""
    half = np.radians(lat - lat0) / 2, np.radians(lon - lon0) / 2
    cosines = np.cos(np.radians(lat)) * np.cos(np.radians(lat0))
    root = np.sqrt(np.sin(half[0]) ** 2 + cosines * np.sin(half[1]) ** 2)
    separation: Array = np.degrees(2 * np.arcsin(root))
    return separation


def _irf_hdus() -> list[fits.BinTableHDU]:
    """The responses, one file for all pointings. Offsets are nodes (LO == HI), the rest bins."""
    edges = np.geomspace(*ENERGY_RANGE, 97)
    energy = np.sqrt(edges[1:] * edges[:-1])
    energy_axis = _axis("ENERG", "TeV", edges[:-1], edges[1:])

    theta = np.linspace(0.0, 3.5, 36)
    theta_axis = _axis("THETA", "deg", theta, theta)
    grid = np.meshgrid(theta, energy, indexing="ij")
    area = effective_area(grid[1], grid[0])
    aeff = _irf(
        "AEFF_2D", [*energy_axis, *theta_axis, ("EFFAREA", "m2", area)], "EFF_AREA", "AEFF_2D"
    )

    core = psf_core(grid[1], grid[0])
    wide_height = PSF_WIDE_SHARE / (1 - PSF_WIDE_SHARE) / PSF_WIDE**2
    peak = (1 - PSF_WIDE_SHARE) / (2 * np.pi * np.radians(core) ** 2)
    zero = np.zeros_like(core)
    gauss = [
        ("SCALE", "sr-1", peak), ("SIGMA_1", "deg", core), ("AMPL_2", "", zero + wide_height),
        ("SIGMA_2", "deg", PSF_WIDE * core), ("AMPL_3", "", zero), ("SIGMA_3", "deg", zero),
    ]  # fmt: skip
    psf = _irf("PSF_3GAUSS", [*energy_axis, *theta_axis, *gauss], "RPSF", "PSF_3GAUSS")

    migra = np.geomspace(0.3, 3.0, 161)
    nodes = np.array([0.0, 3.5])
    cumulative = ndtr(np.log(migra)[:, None] / energy_resolution(energy)[None, :])
    matrix = np.diff(cumulative, axis=0) / np.diff(migra)[:, None]
    columns = [
        *energy_axis,
        *_axis("MIGRA", "", migra[:-1], migra[1:]),
        *_axis("THETA", "deg", nodes, nodes),
        ("MATRIX", "", np.stack([matrix, matrix])),
    ]
    edisp = _irf("EDISP_2D", columns, "EDISP", "EDISP_2D")

    reco = np.geomspace(*RECO_RANGE, 25)
    middle = np.sqrt(reco[1:] * reco[:-1])
    det = np.linspace(-FIELD_OF_VIEW, FIELD_OF_VIEW, 29)
    centre = 0.5 * (det[1:] + det[:-1])
    # Axes (DETY, DETX, ENERG), in FITS the order of the columns: the one layout in which Gammapy
    # does not take DETX for DETY.
    rate = background_rate(middle[None, None, :], centre[None, :, None], centre[:, None, None])
    columns = [
        *_axis("ENERG", "TeV", reco[:-1], reco[1:]),
        *_axis("DETX", "deg", det[:-1], det[1:]),
        *_axis("DETY", "deg", det[:-1], det[1:]),
        ("BKG", "s-1 TeV-1 sr-1", rate),
    ]
    return [aeff, edisp, psf, _irf("BKG_3D", columns, "BKG", "BKG_3D")]


Column = tuple[str, str, NDArray[np.generic]]


def _axis(name: str, unit: str, low: Array, high: Array) -> list[Column]:
    return [(f"{name}_LO", unit, low), (f"{name}_HI", unit, high)]


def _irf(name: str, columns: list[Column], kind: str, form: str) -> fits.BinTableHDU:
    """A response: every column is one row that holds an array, in single precision."""
    header = {
        **GADF, "HDUCLAS1": "RESPONSE", "HDUCLAS2": kind, "HDUCLAS3": "FULL-ENCLOSURE",
        "HDUCLAS4": form, "TELESCOP": "IMGFIT", "INSTRUME": "SIMULATED", "FOVALIGN": "RADEC",
    }  # fmt: skip
    rows = [(key, unit, values[None].astype(np.float32)) for key, unit, values in columns]
    return _table(name, rows, header)


def _obs_index(observations: list[_Pointing]) -> fits.BinTableHDU:
    def column(values: Sequence[object]) -> NDArray[np.generic]:
        return np.array(values)

    same = np.ones(len(observations))
    columns: list[Column] = [
        ("OBS_ID", "", column([obs.obs_id for obs in observations])),
        ("RA_PNT", "deg", column([obs.ra for obs in observations])),
        ("DEC_PNT", "deg", column([obs.dec for obs in observations])),
        ("ALT_PNT", "deg", 70.0 * same),
        ("AZ_PNT", "deg", 0.0 * same),
        ("ZEN_PNT", "deg", 20.0 * same),
        ("ONTIME", "s", ONTIME * same),
        ("LIVETIME", "s", ONTIME * DEADC * same),
        ("DEADC", "", DEADC * same),
        ("TSTART", "s", column([obs.tstart for obs in observations])),
        ("TSTOP", "s", column([obs.tstart + ONTIME for obs in observations])),
        ("OBJECT", "", column(["Simulated field"] * len(observations))),
        ("EVENT_COUNT", "", column([obs.n_events for obs in observations])),
    ]
    header = {**GADF, "HDUCLAS1": "INDEX", "HDUCLAS2": "OBS", **TIME_KEYS, **SITE}
    return _table("OBS_INDEX", columns, header)


def _hdu_index(observations: list[_Pointing]) -> fits.BinTableHDU:
    kinds = [
        ("events", "events", "EVENTS"), ("gti", "gti", "GTI"), ("aeff", "aeff_2d", "AEFF_2D"),
        ("edisp", "edisp_2d", "EDISP_2D"), ("psf", "psf_3gauss", "PSF_3GAUSS"),
        ("bkg", "bkg_3d", "BKG_3D"),
    ]  # fmt: skip
    rows = [
        (obs.obs_id, *kind[:2], "", obs.file_name if index < 2 else "irf.fits.gz", kind[2])
        for obs in observations
        for index, kind in enumerate(kinds)
    ]
    names = ("OBS_ID", "HDU_TYPE", "HDU_CLASS", "FILE_DIR", "FILE_NAME", "HDU_NAME")
    columns = [
        (name, "", np.array(values))
        for name, values in zip(names, zip(*rows, strict=True), strict=True)
    ]
    return _table("HDU_INDEX", columns, {**GADF, "HDUCLAS1": "INDEX", "HDUCLAS2": "HDU"})


def _table(name: str, columns: Sequence[Column], header: Mapping[str, object]) -> fits.BinTableHDU:
    """A binary table; a FITS column's format follows from the array's type and shape."""
    codes = {"i": "K", "f4": "E", "f8": "D"}
    made = []
    for key, unit, values in columns:
        size = int(np.prod(values.shape[1:]))
        if values.dtype.kind == "U":
            form = f"{max(values.dtype.itemsize // 4, 1)}A"
        else:
            kind = values.dtype.kind
            form = f"{size}{codes[kind if kind == 'i' else f'f{values.dtype.itemsize}']}"
        dim = None
        if values.ndim > 2:
            dim = "(" + ",".join(str(n) for n in reversed(values.shape[1:])) + ")"
        made.append(fits.Column(key, form, unit or None, array=values, dim=dim))
    hdu = fits.BinTableHDU.from_columns(made, name=name)
    for key, value in header.items():
        hdu.header[key] = value
    return hdu


def _write_fits(path: Path, hdus: list[fits.BinTableHDU]) -> None:
    """Write a gzipped file without a time stamp in it."""
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(buffer)
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
        packed.write(buffer.getvalue())
