"""Run by Gammapy: datasets of many kinds, written to a folder, with what it predicts of them.

``write FOLDER`` writes NAME.fits.gz, NAME.yaml (models) and NAME.npy (predicted counts) of each
case, and datasets.yaml; ``read FOLDER`` reads our-NAME.fits.gz of each. Both print JSON.
"""

import json
import sys

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from gammapy.data import GTI
from gammapy.datasets import Datasets, MapDataset, MapDatasetOnOff
from gammapy.irf import EDispKernelMap, EDispMap, PSFMap, RecoPSFMap
from gammapy.maps import Map, MapAxis, WcsGeom
from gammapy.modeling.models import (
    FoVBackgroundModel,
    GaussianSpatialModel,
    Models,
    PowerLaw2SpectralModel,
    SkyModel,
)

FOLDER = sys.argv[2]
RNG = np.random.default_rng(1)
CENTRE = SkyCoord(0, 0, unit="deg", frame="galactic")
BANDS = MapAxis.from_energy_bounds("10 GeV", "2 TeV", nbin=5)
ONE = MapAxis.from_energy_bounds("10 GeV", "2 TeV", nbin=1)
MEV = MapAxis.from_energy_bounds("10000 MeV", "2000000 MeV", nbin=5)
# The grid of the Fermi-LAT datasets: nodes, not bins.
NODES = MapAxis.from_nodes(np.geomspace(8, 2500, 20) * u.GeV, interp="log", name="energy_true")
EDGES = MapAxis.from_energy_bounds("8 GeV", "2.5 TeV", nbin=20, name="energy_true")
IMAGE = WcsGeom.create(skydir=(0, 0), frame="galactic", width=(5, 4), binsz=0.05)
TAN = WcsGeom.create(skydir=(83.6, 22.0), frame="icrs", proj="TAN", width=(5, 4), binsz=0.05)
SIGMA = np.geomspace(0.15, 0.05, 20) * u.deg


def make(name, image=IMAGE, bands=BANDS, true=EDGES, psf=None, edisp="diagonal", unit="m2 s"):
    geom = image.to_cube([bands])
    counts = Map.from_geom(geom, data=RNG.poisson(0.4, geom.data_shape).astype(float))
    background = Map.from_geom(geom, data=np.full(geom.data_shape, 0.4))
    exposure = Map.from_geom(image.to_cube([true]), unit=unit)
    shape = 1 + 0.3 * np.sin(np.arange(true.nbin))
    level = 3e7 if unit == "m2 s" else 3e11
    exposure.data = level * shape[:, None, None] * np.ones(exposure.data.shape)
    if psf is None:
        psf = PSFMap.from_gauss(energy_axis_true=true, sigma=SIGMA[: true.nbin])
    if isinstance(edisp, str):
        edisp = EDispKernelMap.from_diagonal_response(bands, true)
    return MapDataset(
        counts=counts, background=background, exposure=exposure, psf=psf, edisp=edisp, name=name
    )


def source(dataset):
    centre = dataset.counts.geom.center_skydir
    spectrum = PowerLaw2SpectralModel(
        index=2.2, amplitude="2e-8 cm-2 s-1", emin="10 GeV", emax="2 TeV"
    )
    shape = GaussianSpatialModel(
        lon_0=centre.data.lon, lat_0=centre.data.lat, sigma="0.3 deg", frame=centre.frame.name
    )
    return SkyModel(spectrum, shape, name="src")


def cases():
    yield make("fermi", true=NODES, unit="cm2 s")
    gauss = EDispKernelMap.from_gauss(energy_axis=BANDS, energy_axis_true=EDGES, sigma=0.15, bias=0)
    yield make("kernel", edisp=gauss)
    yield make("migra", edisp=EDispMap.from_diagonal_response(EDGES))
    migra = MapAxis.from_bounds(0.2, 5, nbin=150, name="migra", node_type="edges")
    wide = EDispMap.from_diagonal_response(EDGES, migra)
    density = np.exp(-0.5 * ((migra.center.value - 1) / 0.2) ** 2) / np.sqrt(2 * np.pi) / 0.2
    wide.edisp_map.data = density[None, :, None, None] * np.ones(wide.edisp_map.data.shape)
    yield make("migra-wide", edisp=wide)
    yield make("tan", image=TAN)
    yield make("one-band", bands=ONE)
    reco = RecoPSFMap.from_gauss(energy_axis=BANDS, sigma=np.geomspace(0.15, 0.05, 5) * u.deg)
    yield make("reco-psf", psf=reco)
    coarse = WcsGeom.create(skydir=CENTRE, frame="icrs", proj="TAN", width=(12, 12), binsz=1.0)
    psf = PSFMap.from_gauss(energy_axis_true=EDGES, sigma=SIGMA, geom=coarse)
    edisp = EDispKernelMap.from_diagonal_response(BANDS, EDGES, geom=coarse)
    yield make("coarse", psf=psf, edisp=edisp)
    psf = PSFMap.from_gauss(energy_axis_true=EDGES, sigma=SIGMA).to_region_nd_map(CENTRE)
    edisp = EDispKernelMap.from_diagonal_response(BANDS, EDGES).to_region_nd_map(CENTRE)
    yield make("region", psf=psf, edisp=edisp)
    dataset = make("mev", bands=MEV)
    safe = Map.from_geom(dataset.counts.geom, data=np.ones(dataset.counts.data.shape, bool))
    safe.data[0, :20] = False
    fit = safe.copy()
    fit.data[:, :, :10] = False
    dataset.mask_safe, dataset.mask_fit = safe, fit
    dataset.gti = GTI.create([0] * u.h, [1] * u.h)
    yield dataset
    true = MapAxis.from_energy_bounds("10 GeV", "2 TeV", nbin=5, name="energy_true")
    yield make("no-edisp", true=true, edisp=None)
    dataset = make("bare")
    dataset.psf = dataset.edisp = dataset.exposure = None
    yield dataset


def write():
    facts = {}
    for dataset in cases():
        models = [] if dataset.exposure is None else [source(dataset)]
        models = Models([*models, FoVBackgroundModel(dataset_name=dataset.name)])
        dataset.models = models
        dataset.write(f"{FOLDER}/{dataset.name}.fits.gz")
        models.write(f"{FOLDER}/{dataset.name}.yaml", write_covariance=False)
        np.save(f"{FOLDER}/{dataset.name}.npy", dataset.npred().data)
        facts[dataset.name] = {
            "stat": float(dataset.stat_sum()),
            "background": float(dataset.npred_background().data.sum()),
        }
    dataset = make("on-off")
    off = dataset.counts.copy()
    off.data = RNG.poisson(2.0, off.data.shape).astype(float)
    on_off = MapDatasetOnOff.from_map_dataset(
        dataset, acceptance=1.0, acceptance_off=5.0, counts_off=off, name="on-off"
    )
    on_off.write(f"{FOLDER}/on-off.fits.gz")
    facts["on-off"] = {"background": float(on_off.background.data.sum())}
    both = Datasets([make("first", true=NODES), make("second", bands=ONE)])
    both.models = Models(
        [source(both[0]), *(FoVBackgroundModel(dataset_name=d.name) for d in both)]
    )
    both.write(f"{FOLDER}/datasets.yaml", filename_models=f"{FOLDER}/models.yaml")
    facts["both"] = float(both.stat_sum())
    spectrum = make("spectrum").to_spectrum_dataset(CENTRE_REGION)
    Datasets([spectrum]).write(f"{FOLDER}/spectra.yaml")
    sparse = make("sparse")
    hdus = sparse.to_hdulist()
    hdus["COUNTS"] = sparse.counts.to_hdu(hdu="COUNTS", hdu_bands="COUNTS_BANDS", sparse=True)
    hdus.writeto(f"{FOLDER}/sparse.fits")
    return facts


def read():
    facts = {}
    for name in sys.argv[3:]:
        dataset = MapDataset.read(f"{FOLDER}/our-{name}.fits.gz")
        dataset.models = Models.read(f"{FOLDER}/{name}.yaml")
        theirs = np.load(f"{FOLDER}/{name}.npy")
        ours = dataset.npred().data
        original = MapDataset.read(f"{FOLDER}/{name}.fits.gz") if name != "reco-psf" else dataset
        facts[name] = {
            "name": dataset.name,
            "geom": bool(original.counts.geom == dataset.counts.geom),
            "counts": bool(np.array_equal(original.counts.data, dataset.counts.data)),
            "npred": float(np.abs(ours - theirs).max() / (theirs.max() - 0.39)),
            "total": float(ours.sum() / theirs.sum()),
        }
    return facts


if __name__ == "__main__":
    from regions import CircleSkyRegion

    CENTRE_REGION = CircleSkyRegion(CENTRE, 0.5 * u.deg)
    print(json.dumps(write() if sys.argv[1] == "write" else read()))
