"""Complete small DL3 stores in every layout that the format allows, for comparisons with Gammapy.

The responses are smooth functions that are symmetric in nothing, so an axis that is swapped,
turned or shifted shows in every map.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from store import REFERENCE, table, write_hdu_index

POINTING = (83.2, 22.4)
# 2004-12-04, 22 h UTC: the bundled Earth rotation tables hold it.
START = 155469600.0
SITE = {"GEOLON": 16.5, "GEOLAT": -23.3, "ALTITUDE": 1835.0}
ENERGY = np.geomspace(0.2, 60.0, 21)
RECO = np.geomspace(0.3, 50.0, 13)
THETA = np.linspace(0.0, 4.0, 9)
DETX = np.linspace(-3.4, 3.4, 18)
DETY = np.linspace(-3.2, 3.2, 15)


@dataclass(frozen=True)
class Layout:
    """How a store is laid out.

    Parameters
    ----------
    psf : {"psf_3gauss", "psf_king", "psf_table"}
    bkg : {"bkg_2d", "bkg_3d"}
    alignment : str
        FOVALIGN of the background.
    gzip : bool
    lower_names : bool
        The index gives the names of HDUs in lower case.
    nodes : bool
        LO == HI on the axes of the effective area, the PSF and the energy dispersion.
    gti : tuple of (float, float)
        Good time, s after START.
    deadc : float
    transposed : bool
        The background's axes in the order of its columns, not reversed: Gammapy takes it both ways.
    thresholds : tuple of (float, float), optional
        LO_THRES and HI_THRES in TeV.
    """

    psf: str = "psf_3gauss"
    bkg: str = "bkg_3d"
    alignment: str = "RADEC"
    gzip: bool = False
    lower_names: bool = False
    nodes: bool = False
    gti: tuple[tuple[float, float], ...] = ((0.0, 1700.0),)
    deadc: float = 0.9
    transposed: bool = False
    thresholds: tuple[float, float] | None = None


def write(folder: Path, layout: Layout, pointings: tuple[tuple[float, float], ...] = (POINTING,)):
    """Write a store of one run a pointing; answers the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, facts = [], []
    suffix = ".fits.gz" if layout.gzip else ".fits"
    for number, pointing in enumerate(pointings, start=1):
        start = START + 2000.0 * (number - 1)
        hdus = [*_events(number, start, pointing, layout), *responses(layout)]
        name = f"run_{number}{suffix}"
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(folder / name, overwrite=True)
        kinds = ("events", "gti", "aeff_2d", "edisp_2d", layout.psf, layout.bkg)
        for hdu, kind in zip(hdus, kinds, strict=True):
            named = hdu.name.lower() if layout.lower_names else hdu.name
            rows.append((number, kind.split("_")[0], kind, "", name, named))
        facts.append((number, *pointing, start, start + layout.gti[-1][1]))
    write_hdu_index(folder, rows)
    names = (("OBS_ID", "K"), ("RA_PNT", "D"), ("DEC_PNT", "D"), ("TSTART", "D"), ("TSTOP", "D"))
    units = ("", "deg", "deg", "s", "s")
    columns = [
        (name, form, unit, np.array([fact[i] for fact in facts]))
        for i, ((name, form), unit) in enumerate(zip(names, units, strict=True))
    ]
    index = table("OBS_INDEX", columns, {**REFERENCE, **SITE})
    fits.HDUList([fits.PrimaryHDU(), index]).writeto(folder / "obs-index.fits.gz", overwrite=True)
    return folder


def _events(number: int, start: float, pointing: tuple[float, float], layout: Layout) -> list[Any]:
    rng = np.random.default_rng(number)
    gti = np.array(layout.gti)
    count = 4000
    x, y = rng.normal(scale=1.1, size=(2, count))
    energy = np.clip(0.4 * (1.0 - rng.random(count)) ** (-1.0 / 1.7), 0.4, 45.0)
    header = {
        **REFERENCE, **SITE, "OBS_ID": number, "TELESCOP": "TEST", "OBJECT": "Nothing",
        "OBS_MODE": "POINTING", "RADECSYS": "ICRS", "EQUINOX": 2000.0, "RA_PNT": pointing[0],
        "DEC_PNT": pointing[1], "RA_OBJ": pointing[0], "DEC_OBJ": pointing[1], "ALT_PNT": 45.0,
        "AZ_PNT": 20.0, "DEADC": layout.deadc, "TSTART": start, "TSTOP": start + gti[-1, 1],
        "ONTIME": float(np.sum(np.diff(gti))), "HDUCLASS": "GADF", "HDUCLAS1": "EVENTS",
        "LIVETIME": layout.deadc * float(np.sum(np.diff(gti))),
        "TIMEREF": "LOCAL", "DATE-OBS": "2004-12-04",
    }  # fmt: skip
    which = rng.integers(len(gti), size=count)
    time = start + gti[which, 0] + rng.random(count) * (gti[which, 1] - gti[which, 0])
    ra = pointing[0] + x / np.cos(np.radians(pointing[1]))
    columns = [
        ("EVENT_ID", "K", None, np.arange(count)),
        ("TIME", "D", "s", np.sort(time)),
        ("RA", "E", "deg", ra),
        ("DEC", "E", "deg", pointing[1] + y),
        ("ENERGY", "E", "TeV", energy),
    ]
    bounds = [("START", "D", "s", start + gti[:, 0]), ("STOP", "D", "s", start + gti[:, 1])]
    return [
        table("EVENTS", columns, header),
        table("GTI", bounds, {**REFERENCE, "HDUCLASS": "GADF", "HDUCLAS1": "GTI"}),
    ]


def responses(layout: Layout) -> list[Any]:
    """HDUs of the effective area, the energy dispersion, the PSF and the background."""
    energy_lo, energy_hi, energy = _bins(ENERGY, layout.nodes, log=True)
    theta_lo, theta_hi, offset = _bins(THETA, layout.nodes)
    axes = [("ENERG", "TeV", energy_lo, energy_hi), ("THETA", "deg", theta_lo, theta_hi)]
    e, t = np.meshgrid(energy, offset, indexing="ij")
    area = 3e5 / (1.0 + (0.7 / e) ** 2) * np.exp(-0.5 * (t / 1.9) ** 2)
    limits = {}
    if layout.thresholds:
        limits = dict(zip(("LO_THRES", "HI_THRES"), layout.thresholds, strict=True))
    aeff = _hdu("AEFF", "EFF_AREA", "AEFF_2D", axes, [("EFFAREA", "m2", area)], layout, limits)

    migra = np.linspace(0.2, 3.0, 141)
    middle = 0.5 * (migra[1:] + migra[:-1])
    bias, width = 1.0 + 0.05 / e + 0.01 * t, 0.12 + 0.05 * e**-0.5
    density = np.exp(-0.5 * ((middle[None, :, None] - bias[:, None]) / width[:, None]) ** 2)
    density /= (density * np.diff(migra)[:, None]).sum(axis=1, keepdims=True)
    edisp_axes = [axes[0], ("MIGRA", "", migra[:-1], migra[1:]), axes[1]]
    edisp = _hdu("EDISP", "EDISP", "EDISP_2D", edisp_axes, [("MATRIX", "", density)], layout)
    return [aeff, edisp, _psf(layout, axes, e, t), _background(layout)]


def _psf(layout: Layout, axes: list[Any], e: Any, t: Any) -> Any:
    core = (0.03 + 0.03 * e**-0.5) * (1.0 + 0.06 * t**2)
    if layout.psf == "psf_king":
        columns = [("SIGMA", "deg", core), ("GAMMA", "", 1.7 + 0.3 * t + 0.2 * e**0.3)]
    elif layout.psf == "psf_3gauss":
        columns = [
            ("SCALE", "sr-1", np.full_like(e, 1.0)), ("SIGMA_1", "deg", core),
            ("AMPL_2", "", 0.08 + 0.01 * t), ("SIGMA_2", "deg", 2.2 * core),
            ("AMPL_3", "", np.zeros_like(e)), ("SIGMA_3", "deg", np.zeros_like(e)),
        ]  # fmt: skip
    else:
        edges = np.concatenate([np.linspace(0.0, 0.3, 61), np.linspace(0.31, 0.7, 40)])
        rad = 0.5 * (edges[1:] + edges[:-1])
        values = np.exp(-0.5 * (rad / core[..., None]) ** 2) / core[..., None] ** 2
        values += 0.1 * np.exp(-0.5 * (rad / (2.0 * core[..., None])) ** 2) / core[..., None] ** 2
        values /= (values * np.pi * np.diff(np.radians(edges) ** 2)).sum(axis=2, keepdims=True)
        axes = [*axes, ("RAD", "deg", edges[:-1], edges[1:])]
        columns = [("RPSF", "sr-1", values)]
    return _hdu("PSF", "RPSF", layout.psf.upper(), axes, columns, layout)


def _background(layout: Layout) -> Any:
    energy = np.sqrt(RECO[1:] * RECO[:-1])
    axes = [("ENERG", "TeV", RECO[:-1], RECO[1:])]
    if layout.bkg == "bkg_2d":
        theta = 0.5 * (THETA[1:] + THETA[:-1])
        rate = 2e-4 * energy[:, None] ** -2.7 * np.exp(-0.5 * (theta / 1.5) ** 2)
        axes.append(("THETA", "deg", THETA[:-1], THETA[1:]))
        return _hdu("BKG", "BKG", "BKG_2D", axes, [("BKG", "s-1 MeV-1 sr-1", rate)], layout)
    x, y = (0.5 * (edges[1:] + edges[:-1]) for edges in (DETX, DETY))
    shape = np.exp(-0.5 * ((x[:, None] - 0.3) / 1.7) ** 2 - 0.5 * ((y + 0.4) / 1.3) ** 2)
    slope = -2.7 + 0.05 * x[:, None] - 0.08 * y
    rate = 2e-4 * energy[:, None, None] ** slope * shape
    axes += [("DETX", "deg", DETX[:-1], DETX[1:]), ("DETY", "deg", DETY[:-1], DETY[1:])]
    columns = [("BKG", "s-1 MeV-1 sr-1", rate)]
    return _hdu("BKG", "BKG", "BKG_3D", axes, columns, layout, {"FOVALIGN": layout.alignment})


def _bins(edges: Any, nodes: bool, log: bool = False) -> tuple[Any, Any, Any]:
    """LO, HI and where the functions are taken."""
    if nodes:
        return edges, edges, edges
    low, high = edges[:-1], edges[1:]
    return low, high, np.sqrt(low * high) if log else 0.5 * (low + high)


def _hdu(
    name: str, kind: str, form: str, axes: Any, columns: Any, layout: Layout, header: Any = None
) -> Any:
    """A response HDU of axes (name, unit, LO, HI) and columns (name, unit, values)."""
    made = []
    for axis, unit, low, high in axes:
        for end, values in (("LO", low), ("HI", high)):
            values = np.asarray(values, dtype=">f4")
            made.append(
                fits.Column(f"{axis}_{end}", f"{len(values)}E", unit or None, array=values[None])
            )
    for column, unit, values in columns:
        data = np.asarray(values if layout.transposed and kind == "BKG" else values.T, dtype=">f4")
        dim = str(tuple(data.shape[::-1])).replace(" ", "")
        made.append(fits.Column(column, f"{data.size}E", unit or None, dim=dim, array=data[None]))
    hdu = fits.BinTableHDU.from_columns(made, name=name)
    hdu.header.update(
        {
            "HDUCLASS": "GADF",
            "HDUDOC": "gamma-astro-data-formats",
            "HDUVERS": "0.3",
            "HDUCLAS1": "RESPONSE",
            "HDUCLAS2": kind,
            "HDUCLAS3": "FULL-ENCLOSURE",
            "HDUCLAS4": form,
            **(header or {}),
        }
    )
    return hdu
