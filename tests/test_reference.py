"""The reduction with ``accuracy="gammapy"`` against what Gammapy 2.1 gives, case by case.

The cases A, C, D, E of the reference numbers differ in their geometry, energy bands, safe masks
and background methods. Each distinct configuration is reduced once.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imgfit_widgets import Analysis, AnalysisConfig
from imgfit_widgets.core.analysis import with_background
from imgfit_widgets.core.dataset import Datasets, MapDataset
from imgfit_widgets.core.evaluator import Evaluator
from imgfit_widgets.core.maps import WcsNDMap
from imgfit_widgets.core.models import Models

# The others repeat the configuration of A_seed or of C_3bands.
CASES = (
    "A_seed", "A_etrue_default", "A_norebinirf", "C_3bands", "C_edm", "D_aeffdefault",
    "D_aeffmax", "D_bkgpeak", "D_edispbias", "D_fovfit", "D_fovscale_excl", "D_nobkgmaker",
    "D_ring", "E_icrs", "E_small", "E_tan", "E_unstacked",
)  # fmt: skip
REPEATED = {
    "A_globalmin": "A_seed",
    "E_icrs_modelicrs": "A_seed",
    "E_icrs_modelicrs_amp3e-11": "A_seed",
    "C_3bands_goodstart": "C_3bands",
}


@cache
def numbers(folder: Path, case: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{case}.json").read_text())
    return found


@cache
def reduced(folder: Path, case: str) -> Datasets:
    known = numbers(folder, case)
    config = AnalysisConfig.from_dict(known["config"])
    if config.datasets.background.exclusion is not None:
        config.datasets.background.exclusion = folder / config.datasets.background.exclusion
    analysis = Analysis(config, "gammapy", set_logging=False, geometry=known["proj"])
    analysis.get_observations()
    analysis.get_datasets()
    assert analysis.datasets is not None
    return analysis.datasets


@pytest.fixture(scope="module", autouse=True)
def _forget():
    yield
    reduced.cache_clear()


@pytest.fixture(scope="module", params=CASES)
def case(request, gammapy_data, reference):
    """Datasets of a case with Gammapy's numbers for each of them."""
    folder = reference / "gammapy"
    known, datasets = numbers(folder, request.param), reduced(folder, request.param)
    assert len(datasets) == len(known["datasets"])
    return known, datasets, list(zip(datasets, known["datasets"], strict=True))


def close(found: Any, expected: Any, rel: float, what: str = "") -> None:
    np.testing.assert_allclose(np.ravel(found), np.ravel(expected), rtol=rel, err_msg=what)


def test_every_case_is_here(reference):
    """A case whose configuration is that of another one needs no reduction of its own."""
    folder = reference / "gammapy"
    found = {path.stem for path in folder.glob("[ACDE]_*.json")}
    assert found == {*CASES, *REPEATED}
    for name, other in REPEATED.items():
        mine, its = numbers(folder, name), numbers(folder, other)
        assert (mine["config"], mine["proj"]) == (its["config"], its["proj"])


def test_pixels_and_axes_are_gammapys(case):
    for dataset, expected in case[2]:
        assert list(dataset.geom.data_shape) == expected["shape"]
        header = dataset.geom.wcs.to_header()
        for key, value in expected["wcs"].items():
            if key.startswith(("CTYPE", "CRVAL", "CRPIX", "CDELT")):
                found = header.get(key, 0.0)
                assert found == value if isinstance(value, str) else abs(found - value) < 1e-9
        close(dataset.energy_axis.bounds, expected["energy_edges_TeV"], 1e-9)
        close(dataset.energy_axis_true.bounds, expected["energy_true_edges_TeV"], 1e-9)


def test_counts_and_masks_are_gammapys(case):
    """Event by event and bin by bin: there is no rounding in a count."""
    for dataset, expected in case[2]:
        counts, mask = dataset.counts.data, dataset.mask
        close(counts.sum(axis=(1, 2)), expected["counts_per_bin"], 0.0)
        assert counts.sum() == expected["counts_total"]
        assert counts[mask].sum() == expected["counts_fit"]
        assert int(dataset.mask_safe.data.sum()) == expected["n_safe"]
        assert mask.size == expected["n_bins"]
        assert int(mask.sum()) == expected["n_fit"]
        assert mask.sum(axis=(1, 2)).tolist() == expected["n_fit_per_bin"]
        assert dataset.livetime == pytest.approx(expected["livetime_s"], rel=1e-6)


def test_backgrounds_are_gammapys(case):
    """Gammapy's sums include the norm of unstacked runs, which ours leave to the model."""
    known, _, pairs = case
    for number, (dataset, expected) in enumerate(pairs):
        norm = known["fov_norms"][number]["norm"] if len(pairs) > 1 else 1.0
        rel = 2e-5 if known["case"] == "D_fovfit" else 2e-6  # its fit stops at a tolerance
        background = dataset.background.data * norm
        assert np.isfinite(background).all()
        close(background.sum(axis=(1, 2)), expected["background_per_bin"], rel)
        close(background[dataset.mask].sum(), expected["background_fit"], rel)
        for name, (row, column) in expected["bkg_pix_index_yx"].items():
            close(background[:, row, column], expected["background_pix"][name], rel, name)


def test_exposures_are_gammapys(case):
    for dataset, expected in case[2]:
        exposure = dataset.exposure
        close(exposure.data.sum(axis=(1, 2)), expected["exposure_sum_per_etrue"], 2e-6)
        close(exposure.data.max(), expected["exposure_max"], 2e-6)
        for name, (lon, lat) in expected["positions"].items():
            found = exposure.interp_by_coord(lon, lat)
            # Rounding leaves some below the first node of the area's table.
            known = np.array(expected["exposure"][name])
            close(found, np.where(known < 1e-6, 0.0, known), 2e-6, name)


def at_node(dataset: MapDataset, values: np.ndarray, lon: float, lat: float) -> np.ndarray:
    """Values of a response map at the node that is nearest, the lower one of two."""
    x, y = dataset.psf.geom.lonlat_to_pix(lon, lat)
    return np.asarray(values[..., int(np.ceil(y - 0.5)), int(np.ceil(x - 0.5))])


def test_energy_dispersions_are_gammapys(case):
    for dataset, expected in case[2]:
        for name, kernel in expected["edisp"].items():
            found = at_node(dataset, dataset.edisp.data, *expected["positions"][name])
            # What Gammapy keeps of a band that is nowhere safe is a matter of its rounding.
            safe = dataset.mask_safe.data.any(axis=(1, 2))
            kernel = np.array(kernel)[:, safe]
            np.testing.assert_allclose(found[:, safe], kernel, atol=1e-6, err_msg=name)


def test_psf_radii_are_gammapys(case):
    """The radii stand in steps of 0.0005 deg, in a profile of bins of 0.01 deg up to 0.66 deg."""
    for dataset, expected in case[2]:
        rad = np.linspace(0.0, 0.66, 6601)
        inside = 1.0 - np.exp(-0.5 * (rad[:, None] / dataset.psf.widths) ** 2)
        for fraction, key in ((0.68, "psf_r68_deg"), (0.95, "psf_r95_deg")):
            for name, radii in expected[key].items():
                weights = at_node(dataset, dataset.psf.weights, *expected["positions"][name])
                held = weights @ inside.T
                seen = held[:, -1] > 0
                held = np.maximum.accumulate(held[seen] / held[seen, -1:], axis=1)
                found = [np.interp(fraction, row, rad) for row in held]
                radii = np.array(radii)
                assert np.nan_to_num(radii[~seen]).max(initial=0.0) < 5e-4  # no more than a step
                np.testing.assert_allclose(found, radii[seen], atol=1e-3, rtol=1.2e-2, err_msg=name)


def test_norms_of_the_runs_are_gammapys(case):
    known, datasets, _ = case
    expected = {str(run["obs_id"]): run["norm"] for run in known["fov_norms"]}
    found: dict[str, float] = {}
    for dataset in datasets:
        found |= dataset.info_dict().get("fov_norm") or {}
    if known["config"]["datasets"]["background"]["method"] != "fov_background":
        assert found == {}
        return
    # Its method "fit" stops at a tolerance.
    rel = 1e-4 if known["config"]["datasets"]["background"]["parameters"] else 1e-6
    assert found == pytest.approx(expected, rel=rel)


def null_stat(datasets: Datasets, norms: list[float]) -> float:
    """The statistic without sources at some norms of the backgrounds."""
    models = with_background(Models(), datasets)
    for dataset, norm in zip(datasets, norms, strict=True):
        models.background_model(dataset.name).parameters["norm"].value = norm
    evaluator = Evaluator(list(datasets), models)
    return float(evaluator.stat(evaluator.x0))


def test_statistics_without_a_source_are_gammapys(case):
    known, datasets, _ = case
    if known.get("null_fit") is None:
        assert known["case"] == "C_edm"
        return
    found = null_stat(datasets, known["null_fit"]["values"])
    expected = known["null_fit"]["stat"]
    assert found == pytest.approx(expected, abs=0.02 * max(abs(expected) / 1e5, 1.0))


def test_statistics_of_unstacked_runs_are_gammapys(gammapy_data, reference):
    """Of each run by itself; the source is the same for all, so their differences are known."""
    folder = reference / "gammapy"
    known, datasets = numbers(folder, "E_unstacked"), reduced(folder, "E_unstacked")
    norms = known["null_fit"]["values"]
    parts = [
        null_stat(Datasets([dataset]), [norm])
        for dataset, norm in zip(datasets, norms, strict=True)
    ]
    assert sum(parts) == pytest.approx(known["null_fit"]["stat"], abs=0.03)


def test_maps_are_read_only(case):
    for dataset, _ in case[2]:
        for image in (dataset.counts, dataset.background, dataset.exposure):
            assert isinstance(image, WcsNDMap)
            with pytest.raises(ValueError, match="read-only"):
                image.data[...] = 0.0
