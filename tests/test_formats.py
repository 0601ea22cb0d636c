"""Every layout of DL3 files, reduced by Gammapy and by ours, map by map."""

from __future__ import annotations

import json

import numpy as np
import pytest
from dl3_store import POINTING, Layout, write

from imgfit_widgets import Analysis, AnalysisConfig

PEER = """
import json, logging, sys
import numpy as np
from astropy.utils import iers
from gammapy.analysis import Analysis, AnalysisConfig
iers.conf.auto_download = False
logging.disable()
for config, answer in json.loads(open(sys.argv[1]).read()):
    analysis = Analysis(AnalysisConfig.read(config))
    analysis.get_observations()
    analysis.get_datasets()
    dataset = analysis.datasets[0]
    np.savez(answer, counts=dataset.counts.data, mask=dataset.mask_safe.data,
             background=dataset.npred_background().data, exposure=dataset.exposure.data,
             edisp=dataset.edisp.edisp_map.data, psf=dataset.psf.psf_map.data)
print("null")
"""

TWO = (POINTING, (84.1, 21.7))
GAPS = ((0.0, 400.0), (700.0, 1300.0), (1500.0, 1700.0))
LAYOUTS = {
    "3gauss": Layout(),
    "king": Layout(psf="psf_king", gzip=True),
    "table": Layout(psf="psf_table", lower_names=True),
    "bkg_2d": Layout(bkg="bkg_2d"),
    "altaz": Layout(alignment="ALTAZ"),
    "altaz_gaps": Layout(alignment="ALTAZ", gti=GAPS),
    "reverse": Layout(alignment="REVERSE_LON_RADEC"),
    "nodes": Layout(nodes=True, psf="psf_king"),
    "table_nodes": Layout(nodes=True, psf="psf_table"),
    "king_bkg_2d": Layout(psf="psf_king", bkg="bkg_2d"),
    "gaps": Layout(gti=GAPS, deadc=0.7),
    "transposed": Layout(transposed=True, psf="psf_table"),
    "thresholds": Layout(thresholds=(1.1, 15.0)),
}


def settings(folder, method=None, energy=("0.5 TeV", "20 TeV", 2), methods=("offset-max",)):
    return AnalysisConfig(
        general={"log": {"level": "error"}},
        observations={"datastore": str(folder)},
        datasets={
            "type": "3d",
            "geom": {
                "wcs": {
                    "skydir": {"frame": "icrs", "lon": "83.63 deg", "lat": "22.01 deg"},
                    "binsize": "0.1 deg",
                    "binsize_irf": "0.5 deg",
                    "width": {"width": "6 deg", "height": "5 deg"},
                },
                "selection": {"offset_max": "2.5 deg"},
                "axes": {
                    "energy": dict(zip(("min", "max", "nbins"), energy, strict=True)),
                    "energy_true": {"min": "0.4 TeV", "max": "30 TeV", "nbins": 9},
                },
            },
            "background": {"method": method},
            "safe_mask": {"methods": list(methods), "parameters": {"offset_max": "2.2 deg"}},
        },
    )


@pytest.fixture(scope="module")
def cases(gammapy, gammapy_data, tmp_path_factory):
    """Of each case: our configuration and the maps of Gammapy."""
    folder = tmp_path_factory.mktemp("formats")
    configs = {}
    for name, layout in LAYOUTS.items():
        store = write(folder / name, layout, TWO if name in ("gaps", "altaz_gaps") else TWO[:1])
        methods = ("offset-max", "aeff-default") if layout.thresholds else ("offset-max",)
        configs[name] = settings(store, methods=methods, energy=("0.5 TeV", "20 TeV", 4))
    for bands in (1, 3):
        config = settings(
            gammapy_data / "hess-dl3-dr1",
            "fov_background",
            ("1 TeV", "10 TeV", bands),
            ("aeff-default", "offset-max"),
        )
        config.observations.obs_ids = [23523, 23526, 23559, 23592]
        config.datasets.safe_mask.parameters = {"offset_max": "2.5 deg"}
        configs[f"hess_{bands}"] = config
    jobs = []
    for name, config in configs.items():
        config.write(folder / f"{name}.yaml")
        jobs.append((str(folder / f"{name}.yaml"), str(folder / f"{name}.npz")))
    (folder / "jobs.json").write_text(json.dumps(jobs))
    gammapy(PEER, folder / "jobs.json")
    return {name: (config, np.load(folder / f"{name}.npz")) for name, config in configs.items()}


def reduce(config, accuracy="exact"):
    analysis = Analysis(config, accuracy=accuracy)
    analysis.get_observations()
    analysis.get_datasets()
    return analysis.datasets[0]


@pytest.mark.parametrize("name", [*LAYOUTS, "hess_1", "hess_3"])
def test_maps_are_gammapys(name, cases):
    config, theirs = cases[name]
    ours = reduce(config, "gammapy")
    assert theirs["counts"].sum() > 100
    np.testing.assert_array_equal(ours.counts.data, theirs["counts"])
    np.testing.assert_array_equal(ours.mask, theirs["mask"])
    inside = ours.mask
    np.testing.assert_allclose(
        ours.background.data[inside], theirs["background"][inside], rtol=1e-3
    )
    np.testing.assert_allclose(ours.exposure.data, theirs["exposure"], rtol=1e-3, atol=1.0)
    # Gammapy looks the mask up at the centres of bands. With most axes and on some machines these
    # come out of its logarithms beside themselves by a last digit, and then a masked band takes the
    # kernels of its neighbour, which nothing reads.
    bands = inside.any(axis=(1, 2))
    assert not ours.edisp.data[:, ~bands].any()
    # Nodes lie on pixel centres, to 4e-13 pixels. On the rim of a run's field of view, where the
    # pixel of a node is masked and one beside it is not, this rest decides whether the run enters
    # the kernel, and it is another one in Gammapy's window of the run than in ours.
    inner = slice(3, -3) if name.startswith("hess") else slice(None)
    np.testing.assert_allclose(
        ours.edisp.data[:, bands][:, :, inner, inner],
        theirs["edisp"][:, bands][:, :, inner, inner],
        atol=1e-3,
    )
    held = [_containment(t)[:, :, inner, inner] for t in (ours.psf.table(), theirs["psf"])]
    # H.E.S.S. tables are noisy from bin to bin, which a mixture of Gaussians smooths.
    np.testing.assert_allclose(*held, atol=0.03 if name.startswith("hess") else 0.005)


def _containment(table):
    rad = np.radians(0.01 * (np.arange(66) + 0.5))[:, None, None]
    return np.cumsum(table * 2 * np.pi * rad * np.radians(0.01), axis=1)


@pytest.mark.parametrize("accuracy", ["exact", "gammapy"])
def test_bands_below_every_threshold_stay_finite(accuracy, cases):
    config = cases["hess_1"][0].copy()
    config.datasets.geom.axes.energy.min = "0.1 TeV"
    config.datasets.geom.axes.energy.nbins = 4
    dataset = reduce(config, accuracy)
    assert dataset.mask.any(axis=(1, 2)).tolist() == [False, False, True, True]
    for values in (dataset.background.data, dataset.exposure.data, dataset.edisp.data):
        assert np.isfinite(values).all()
    assert np.isfinite(dataset.psf.weights).all()
