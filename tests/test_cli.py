"""The command line: its contract (status, streams, JSON, files) and what it says to bad input."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from astropy.io import fits
from astropy.table import Table

import imgfit_widgets
from imgfit_widgets import AnalysisConfig, Models
from imgfit_widgets.app import cli as module


@pytest.fixture(scope="module")
def done(demo_store: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """One run on the simulated store: its folder and its JSON."""
    folder = tmp_path_factory.mktemp("run")
    code = run_here("run", demo_store / "config.yaml", demo_store / "models.yaml", "-o", folder)
    assert code.status == 0, code.err
    return SimpleNamespace(folder=folder, result=json.loads((folder / "result.json").read_text()))


def run_here(*arguments: object) -> SimpleNamespace:
    """Run a command in this process, with its output as text."""
    import contextlib
    import io

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = module.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code
    return SimpleNamespace(status=status, out=out.getvalue(), err=err.getvalue())


def small(store: Path, folder: Path, **changes: Any) -> Path:
    """The simulated store's configuration with changes by path, written to a file."""
    config = AnalysisConfig.read(store / "config.yaml")
    config.observations.datastore = store
    for path, value in changes.items():
        config.set(path.replace("__", "."), value)
    config.write(folder / "config.yaml", overwrite=True)
    return folder / "config.yaml"


def fails(answer: SimpleNamespace, status: int, *words: str) -> None:
    """Status, one line that starts as it should, with these words; no traceback, no JSON."""
    assert answer.status == status, answer.err
    assert "Traceback" not in answer.err
    lines = [line for line in answer.err.splitlines() if line.startswith("imgfit-widgets: error: ")]
    assert len(lines) == 1, answer.err
    assert answer.err.splitlines()[-1] == lines[0]
    for word in words:
        assert word in lines[0]


def test_the_package_is_a_command_too() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "imgfit_widgets", "fit", "--help"], capture_output=True, text=True
    )
    assert told.returncode == 0 and told.stdout.startswith("usage: imgfit-widgets fit")


def test_run_gives_the_contract(demo_store: Path, cli: Any, tmp_path: Path) -> None:
    config = small(demo_store, tmp_path)
    answer = cli("run", config, demo_store / "models.yaml", "-o", tmp_path / "out", "--json")
    assert answer.status == 0, answer.err
    assert len(answer.out.strip().splitlines()) == 1
    result = answer.json()
    assert set(result) == {"datasets", "stat", "npred", "fit", "timing", "version"}
    (dataset,) = result["datasets"]
    assert list(dataset) == [
        "name", "counts", "background", "exposure_min", "exposure_max", "n_bins", "n_fit_bins",
        "fov_norm",
    ]  # fmt: skip
    assert dataset["name"] == "stacked"
    assert dataset["n_bins"] == 250 * 200
    assert set(dataset["fov_norm"]) == {"1", "2", "3", "4"}
    assert set(result["npred"]) == {"total", "bright", "extended", "faint", "stacked-bkg"}
    assert result["npred"]["total"] == pytest.approx(
        sum(value for name, value in result["npred"].items() if name != "total")
    )
    fit = result["fit"]
    assert fit["success"] is True
    assert fit["stat"] == pytest.approx(result["stat"])
    assert {"message", "nfev", "parameters", "covariance"} <= set(fit)
    assert set(fit["parameters"][0]) >= {
        "model", "name", "value", "unit", "error", "min", "max", "frozen",
    }  # fmt: skip
    names = fit["covariance"]["names"]
    assert names == [
        f"{row['model']}.{row['name']}" for row in fit["parameters"] if not row["frozen"]
    ]
    assert [len(row) for row in fit["covariance"]["data"]] == [len(names)] * len(names)
    assert set(result["timing"]) == {"reduce_s", "fit_s"}
    assert result["version"] == imgfit_widgets.__version__
    assert "Processing observation 1" in answer.err
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {
        "dataset-stacked.fits.gz", "datasets.yaml", "models.yaml", "models_covariance.dat",
        "parameters.ecsv", "result.json",
    }  # fmt: skip
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == result


def test_written_files_hold_the_result(done: SimpleNamespace) -> None:
    models = Models.read(done.folder / "models.yaml")
    rows = {(row["model"], row["name"]): row for row in done.result["fit"]["parameters"]}
    for model in models:
        for parameter in model.parameters:
            row = rows[model.name, parameter.name]
            assert parameter.value == pytest.approx(row["value"])
            assert parameter.error == pytest.approx(row["error"])
    found = done.result["fit"]["covariance"]
    places = [f"{p.owner}.{p.name}" for p in models.parameters]
    index = [places.index(name) for name in found["names"]]
    written, errors = models.covariance[np.ix_(index, index)], np.sqrt(np.diag(found["data"]))
    # Correlations too.
    np.testing.assert_allclose((written - found["data"]) / np.outer(errors, errors), 0, atol=1e-6)
    table = Table.read(done.folder / "parameters.ecsv", format="ascii.ecsv")
    assert len(table) == len(rows)
    listed = yaml.safe_load((done.folder / "datasets.yaml").read_text())
    assert [entry["name"] for entry in listed["datasets"]] == ["stacked"]


def test_gammapy_reads_the_written_files_and_finds_the_same_statistic(
    done: SimpleNamespace, gammapy: Any
) -> None:
    code = """
import json, sys
from gammapy.datasets import Datasets
folder = sys.argv[1]
datasets = Datasets.read(folder + "/datasets.yaml", folder + "/models.yaml")
covariance = datasets.models.covariance.data
print(json.dumps({
    "counts": float(datasets[0].counts.data.sum()), "stat": float(datasets.stat_sum()),
    "names": datasets.models.names, "errors": (covariance.diagonal() ** 0.5).tolist(),
}))
"""
    theirs = gammapy(code, done.folder)
    assert theirs["counts"] == done.result["datasets"][0]["counts"]
    assert theirs["names"] == ["bright", "extended", "faint", "stacked-bkg"]
    # Gammapy's approximate point sources cost it a few units.
    assert theirs["stat"] == pytest.approx(done.result["stat"], abs=15)
    errors = sorted(error for error in theirs["errors"] if error > 0)
    free = [row["error"] for row in done.result["fit"]["parameters"] if not row["frozen"]]
    assert errors == pytest.approx(sorted(free), rel=1e-6)


def test_fit_of_the_written_dataset_gives_the_same(done: SimpleNamespace, tmp_path: Path) -> None:
    models = done.folder / "models.yaml"
    for dataset in ("dataset-stacked.fits.gz", "datasets.yaml"):
        answer = run_here("fit", done.folder / dataset, models, "-o", tmp_path / "o", "--json")
        assert answer.status == 0, answer.err
        result = json.loads(answer.out)
        assert set(result["timing"]) == {"fit_s"}
        assert result["stat"] == pytest.approx(done.result["stat"], abs=0.05)
        for ours, first in zip(
            result["fit"]["parameters"], done.result["fit"]["parameters"], strict=True
        ):
            assert ours["value"] == pytest.approx(
                first["value"], abs=0.01 * first["error"] + 1e-12 * abs(first["value"])
            )
    assert (tmp_path / "o" / "models.yaml").exists()


def test_search_finds_a_source_that_is_further_off(
    demo_store: Path, done: SimpleNamespace, tmp_path: Path
) -> None:
    """From 0.3 deg beside its source, within the radius that is asked for."""
    models = Models.read(demo_store / "models.yaml")
    source = models.sky_models[0]
    lat = source.spatial_model.lat_0
    found = next(
        row["value"]
        for row in done.result["fit"]["parameters"]
        if (row["model"], row["name"]) == (source.name, "lat_0")
    )
    lat.value = found + 0.3
    models.write(tmp_path / "models.yaml")
    dataset = next(done.folder.glob("dataset-*.fits.gz"))
    command = ("fit", dataset, tmp_path / "models.yaml", "--json", "-o", tmp_path / "out")
    values = {}
    for radius in (0, 0.4):
        answer = run_here(*command, "--search", radius)
        assert answer.status == 0, answer.err
        rows = json.loads(answer.out.strip().splitlines()[-1])["fit"]["parameters"]
        at = {(row["model"], row["name"]): row["value"] for row in rows}
        values[radius] = at[source.name, "lat_0"]
    assert values[0.4] == pytest.approx(found, abs=1e-4)
    fails(run_here(*command, "--search", "far"), 2, "--search", "expected 0 to 180 degrees")
    fails(run_here("run", "a", "b", "--search", -1), 2, "--search", "expected 0 to 180 degrees")


def test_stat_sets_parameters_and_fits_nothing(done: SimpleNamespace) -> None:
    dataset, models = done.folder / "dataset-stacked.fits.gz", done.folder / "models.yaml"
    best = json.loads(run_here("stat", dataset, models, "--json").out)
    assert set(best) == {"stat", "npred", "version"}
    assert best["stat"] == pytest.approx(done.result["stat"], abs=0.05)
    moved = json.loads(
        run_here(
            "stat", dataset, models, "--json", "--set", "stacked-bkg.norm=0.5",
            "--set", "bright.amplitude=0",
        ).out
    )  # fmt: skip
    assert moved["npred"]["bright"] == 0
    assert moved["npred"]["stacked-bkg"] == pytest.approx(
        best["npred"]["stacked-bkg"] * 0.5 / models_norm(models)
    )
    assert moved["stat"] > best["stat"] + 1000


def models_norm(path: Path) -> float:
    return float(Models.read(path)["stacked-bkg"].parameters["norm"].value)


def test_reduce_only_reduces(demo_store: Path, tmp_path: Path) -> None:
    config = small(demo_store, tmp_path, datasets__stack=False, observations__obs_ids=[2, 3])
    answer = run_here("reduce", config, "-o", tmp_path / "out", "--json")
    assert answer.status == 0, answer.err
    result = json.loads(answer.out)
    assert set(result) == {"datasets", "timing", "version"}
    assert set(result["timing"]) == {"reduce_s"}
    names = [dataset["name"] for dataset in result["datasets"]]
    assert len(names) == 2
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"datasets.yaml", *(f"dataset-{name}.fits.gz" for name in names)}


def test_skip_failed_goes_on_and_names_what_is_left_out(demo_store: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(demo_store, store)
    broken = store / "events_000002.fits.gz"
    broken.write_bytes(broken.read_bytes()[:4000])
    config = AnalysisConfig.read(store / "config.yaml")
    config.datasets.geom.wcs.binsize = "0.1 deg"
    config.write(tmp_path / "c.yaml")
    fails(run_here("reduce", tmp_path / "c.yaml"), 2, "observation 2", broken.name)
    models = store / "models.yaml"
    for words in (("reduce", tmp_path / "c.yaml"), ("run", tmp_path / "c.yaml", models)):
        answer = run_here(*words, "--skip-failed", "--json")
        assert answer.status == 0, answer.err
        result = json.loads(answer.out)
        assert list(result["failed"]) == ["2"] and broken.name in result["failed"]["2"]
        assert "run 2 is left out" in answer.err
        assert list(result["datasets"][0]["fov_norm"]) == ["1", "3", "4"]


def test_a_run_whose_background_cannot_be_scaled_is_named(demo_store: Path, tmp_path: Path) -> None:
    """The log said so, if its level let it."""
    store = tmp_path / "store"
    shutil.copytree(demo_store, store)
    events = store / "events_000002.fits.gz"
    with fits.open(events) as hdus:
        hdus["EVENTS"].data = hdus["EVENTS"].data[:0]
        hdus.writeto(events, overwrite=True)
    config = AnalysisConfig.read(store / "config.yaml")
    config.datasets.geom.wcs.binsize = "0.1 deg"
    config.general.log.level = "error"
    config.write(tmp_path / "c.yaml")
    answer = run_here("reduce", tmp_path / "c.yaml", "--json")
    assert answer.status == 0, answer.err
    assert "its background cannot be scaled" in json.loads(answer.out)["failed"]["2"]
    assert "run 2 is left out" in answer.err


def test_a_failed_fit_leaves_no_result_of_another(demo_store: Path, tmp_path: Path) -> None:
    config = small(demo_store, tmp_path)
    out = tmp_path / "out"
    assert run_here("run", config, demo_store / "models.yaml", "-o", out).status == 0
    assert json.loads((out / "result.json").read_text())["fit"]["success"] is True
    far = Models.read(demo_store / "models.yaml")
    far["bright"].spatial_model.lon_0.value = 80.0
    far.write(tmp_path / "far.yaml")
    fails(run_here("run", config, tmp_path / "far.yaml", "-o", out), 2, "bright", "off the map")
    left = json.loads((out / "result.json").read_text())["fit"]
    assert left["success"] is False and "off the map" in left["message"]
    assert not (out / "parameters.ecsv").exists()


def test_geometry_is_a_projection_or_that_of_an_image(demo_store: Path, tmp_path: Path) -> None:
    from imgfit_widgets import MapDataset

    config = small(demo_store, tmp_path, observations__obs_ids=[1])
    answer = run_here("reduce", config, "-o", tmp_path / "tan", "--geometry", "TAN")
    assert answer.status == 0, answer.err
    made = tmp_path / "tan" / "dataset-stacked.fits.gz"
    assert MapDataset.read(made).geom.wcs.wcs.ctype[0] == "GLON-TAN"
    like = run_here("reduce", config, "-o", tmp_path / "like", "--geometry", made, "--json")
    assert like.status == 0, like.err
    assert "failed" not in json.loads(like.out)
    again = MapDataset.read(tmp_path / "like" / made.name)
    assert (again.counts.data == MapDataset.read(made).counts.data).all()
    fails(run_here("reduce", config, "--geometry", "SIN"), 2, "SIN", "FITS image")


def test_fitted_models_do_not_replace_those_that_were_given(
    demo_store: Path, done: SimpleNamespace, tmp_path: Path
) -> None:
    models = tmp_path / "models.yaml"
    models.write_text((demo_store / "models.yaml").read_text())
    given = models.read_text()
    config, dataset = small(demo_store, tmp_path), next(done.folder.glob("dataset-*.fits.gz"))
    for command in (("run", config), ("fit", dataset)):
        answer = run_here(*command, models, "-o", tmp_path / "deep" / "..")
        fails(answer, 2, str(models), "another folder (-o)")
    assert models.read_text() == given and not list(tmp_path.glob("*.fits.gz"))


def test_results_go_to_the_outdir_of_the_configuration(demo_store: Path, tmp_path: Path) -> None:
    """general.outdir was accepted and ignored."""
    changes = {"general__outdir": str(tmp_path / "out"), "flux_points__source": "a"}
    config = small(demo_store, tmp_path, observations__obs_ids=[1], **changes)
    answer = run_here("reduce", config)
    assert answer.status == 0, answer.err
    assert (tmp_path / "out" / "dataset-stacked.fits.gz").exists()
    answer = run_here("reduce", config, "-o", tmp_path / "other")
    assert (tmp_path / "other" / "datasets.yaml").exists()


def test_processes_change_no_number(demo_store: Path, cli: Any, tmp_path: Path) -> None:
    config = small(demo_store, tmp_path)
    alone = cli("reduce", config, "--json").json()
    both = cli("reduce", config, "--json", "--n-jobs", 2).json()
    assert both["datasets"] == alone["datasets"]


def test_a_dask_scheduler_changes_no_number(demo_store: Path, cli: Any, tmp_path: Path) -> None:
    from distributed import LocalCluster

    config = small(demo_store, tmp_path)
    alone = cli("reduce", config, "--json").json()
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        there = cli("reduce", config, "--json", "--scheduler", cluster.scheduler_address)
    assert there.status == 0, there.err
    assert there.json()["datasets"] == alone["datasets"]


def test_accuracy_gammapy_reaches_the_reduction(
    gammapy_data: Path, reference: Path, cli: Any, tmp_path: Path
) -> None:
    formats = reference / "formats"
    answer = cli(
        "run", formats / "A_config_input.yaml", formats / "A_models_input.yaml",
        "--accuracy", "gammapy", "--json",
    )  # fmt: skip
    assert answer.status == 0, answer.err
    result = answer.json()
    (dataset,) = result["datasets"]
    assert dataset["counts"] == 85625
    assert (dataset["n_bins"], dataset["n_fit_bins"]) == (120000, 96602)
    assert f"{dataset['exposure_min']:.2e} {dataset['exposure_max']:.2e}" == "1.57e+08 1.87e+10"
    norms = [dataset["fov_norm"][run] for run in ("110380", "111140", "111159")]
    assert norms == pytest.approx([1.11799, 1.10733, 1.10610], abs=5e-4)
    values = {row["name"]: row for row in result["fit"]["parameters"] if not row["frozen"]}
    expected = {
        "amplitude": (2.9626e-11, 1.459e-12), "lon_0": (-0.05181, 0.00272),
        "lat_0": (-0.04997, 0.00267), "norm": (0.99282, 0.00341),
    }  # fmt: skip
    for name, (value, error) in expected.items():
        assert values[name]["value"] == pytest.approx(value, abs=0.1 * error)
        assert values[name]["error"] == pytest.approx(error, rel=0.03)


def test_exact_is_the_default(gammapy_data: Path, reference: Path, tmp_path: Path) -> None:
    config = reference / "formats" / "A_config_input.yaml"
    (default,) = json.loads(run_here("reduce", config, "--json").out)["datasets"]
    assert default["fov_norm"]["110380"] == pytest.approx(1.1553, abs=0.002)


def test_without_json_people_read_it(done: SimpleNamespace) -> None:
    dataset, models = done.folder / "dataset-stacked.fits.gz", done.folder / "models.yaml"
    answer = run_here("fit", dataset, models)
    assert "total stat" in answer.out
    assert "bright" in answer.out
    assert "npred bright:" in run_here("stat", dataset, models).out


def test_simulate_writes_a_store_that_run_takes(tmp_path: Path) -> None:
    answer = run_here("simulate", "-o", tmp_path / "s", "--seed", 3, "--json")
    assert answer.status == 0
    files = json.loads(answer.out)
    assert Path(files["config"]).is_file()
    assert (tmp_path / "s" / "hdu-index.fits.gz").is_file()
    answer = run_here("run", files["config"], files["truth"], "--json")
    assert answer.status == 0, answer.err
    assert json.loads(answer.out)["fit"]["success"]


def test_a_fit_that_does_not_converge_is_status_1_and_still_json(
    done: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from imgfit_widgets.core import fit

    run = fit.Fit.run

    def unlucky(self: Any, *args: Any, **options: Any) -> Any:
        return replace(run(self, *args, **options), success=False, message="a valley without end")

    monkeypatch.setattr(fit.Fit, "run", unlucky)
    dataset, models = done.folder / "dataset-stacked.fits.gz", done.folder / "models.yaml"
    answer = run_here("fit", dataset, models, "--json")
    fails(answer, 1, "a valley without end")
    result = json.loads(answer.out.strip().splitlines()[-1])
    assert result["fit"]["success"] is False
    assert result["fit"]["message"] == "a valley without end"


def test_a_fit_that_cannot_be_done_is_status_1_and_still_json(
    done: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imgfit_widgets.core import fit
    from imgfit_widgets.core.errors import FitError

    def impossible(self: Any, *args: Any, **options: Any) -> Any:
        raise FitError("nothing to fit")

    monkeypatch.setattr(fit.Fit, "run", impossible)
    dataset, models = done.folder / "dataset-stacked.fits.gz", done.folder / "models.yaml"
    answer = run_here("fit", dataset, models, "--json", "-o", tmp_path / "o")
    fails(answer, 1, "nothing to fit")
    assert json.loads(answer.out)["fit"] == {"success": False, "message": "nothing to fit"}


def test_an_unforeseen_error_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from imgfit_widgets.core import simulate

    def broken(*_: object) -> None:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(simulate, "simulate_store", broken)
    fails(run_here("simulate", "-o", tmp_path / "x"), 1, "ZeroDivisionError: division by zero")


# Bad input: status 2 and one clear message each.


def test_usage_errors_are_one_line_too() -> None:
    fails(run_here(), 2, "COMMAND")
    fails(run_here("fitt"), 2, "invalid choice: 'fitt'")
    fails(run_here("run", "config.yaml"), 2, "MODELS", "imgfit-widgets run --help")
    fails(run_here("reduce", "c.yaml", "--n-jobs", "0"), 2, "from 1 up")
    fails(run_here("simulate", "-o", "x", "--seed", "-1"), 2, "from 0 up")
    fails(run_here("serve", "--port", "99999"), 2, "from 0 to 65535")


def test_missing_files_are_named(done: SimpleNamespace, demo_store: Path, tmp_path: Path) -> None:
    config, models = demo_store / "config.yaml", demo_store / "models.yaml"
    missing = tmp_path / "nothing.yaml"
    fails(run_here("run", missing, models), 2, str(missing))
    fails(run_here("run", config, missing), 2, str(missing))
    fails(run_here("reduce", missing), 2, str(missing))
    fails(run_here("stat", tmp_path / "no.fits", models), 2, str(tmp_path / "no.fits"))
    fails(run_here("fit", tmp_path / "no.yaml", models), 2, str(tmp_path / "no.yaml"))
    other = small(demo_store, tmp_path, observations__datastore=str(tmp_path / "nowhere"))
    fails(run_here("reduce", other), 2, str(tmp_path / "nowhere"))


def test_an_unset_variable_is_named(cli: Any, demo_store: Path, tmp_path: Path) -> None:
    config = small(demo_store, tmp_path, observations__datastore="$IMGFIT_NOWHERE/store")
    fails(cli("reduce", config), 2, "IMGFIT_NOWHERE", "observations.datastore")


def test_a_run_in_the_index_but_not_on_disk_is_named(
    gammapy_data: Path, reference: Path, tmp_path: Path
) -> None:
    config = AnalysisConfig.read(reference / "formats" / "A_config_input.yaml")
    config.observations.obs_ids = [110380, 111630]
    config.write(tmp_path / "c.yaml")
    fails(run_here("reduce", tmp_path / "c.yaml"), 2, "111630", "gps_baseline_111630.fits")


def test_an_unknown_run_is_named(demo_store: Path, tmp_path: Path) -> None:
    config = small(demo_store, tmp_path, observations__obs_ids=[1, 77])
    fails(run_here("reduce", config), 2, "77")


TEXTS = [
    ("datasets: {geom: {wcs: {binsize: 0.02 TeV}}}", "datasets.geom.wcs.binsize", "0.02 TeV"),
    ("datasets: {geom: {wcs: {binsz: 0.02 deg}}}", "datasets.geom.wcs.binsz", "wcs.binsize?"),
    ("datasets: {type: 1d}", "datasets.type", "3d"),
    ("datasets: [1", "not valid YAML", "line 1"),
    ("datasets: {type: 3d}", "datasets.geom.wcs.skydir", "not set"),
]


@pytest.mark.parametrize(("text", "key", "hint"), TEXTS)
def test_a_wrong_configuration_names_file_key_and_remedy(
    text: str, key: str, hint: str, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text(text)
    fails(run_here("reduce", tmp_path / "c.yaml"), 2, key, hint)


def test_a_map_without_exposure_is_refused(demo_store: Path, tmp_path: Path) -> None:
    centre = {"datasets__geom__wcs__skydir__lon": "120 deg"}
    config = small(demo_store, tmp_path, **centre)
    answer = run_here("run", config, demo_store / "models.yaml")
    fails(answer, 2)
    assert re.search(r"exposure|pointing|cover|observation", answer.err)


def test_an_empty_fit_range_is_refused(demo_store: Path, tmp_path: Path) -> None:
    ranges = {"fit__fit_range__min": "60 TeV", "fit__fit_range__max": "70 TeV"}
    config = small(demo_store, tmp_path, **ranges)
    answer = run_here("run", config, demo_store / "models.yaml", "--json")
    fails(answer, answer.status)
    assert answer.status in (1, 2)


def test_a_source_off_the_map_is_named(
    done: SimpleNamespace, demo_store: Path, tmp_path: Path
) -> None:
    text = (demo_store / "models.yaml").read_text().replace("30.35", "50.35")
    (tmp_path / "m.yaml").write_text(text)
    dataset = done.folder / "dataset-stacked.fits.gz"
    fails(run_here("fit", dataset, tmp_path / "m.yaml"), 2, "bright", "map")


MODELS = [
    ("components: [{name: a, type: SkyModle}]", "SkyModel"),
    (
        "components:\n- name: a\n  type: SkyModel\n  spectral: {type: PowerLaw3}\n"
        "  spatial: {type: PointSpatialModel}",
        "PowerLaw",
    ),
    ("componets: []", "components"),
    ("just text", "components"),
]


@pytest.mark.parametrize(("text", "hint"), MODELS)
def test_wrong_models_are_named(
    text: str, hint: str, done: SimpleNamespace, tmp_path: Path
) -> None:
    (tmp_path / "m.yaml").write_text(text)
    answer = run_here("stat", done.folder / "dataset-stacked.fits.gz", tmp_path / "m.yaml")
    fails(answer, 2, hint)


@pytest.mark.parametrize(
    ("assignment", "hint"),
    [
        ("bright.amplitude", "MODEL.PARAM=VALUE"),
        ("amplitude=1", "MODEL.PARAM=VALUE"),
        ("bright.amplitude=much", "'much' is not a number"),
        ("brigth.amplitude=1", "bright"),
        ("bright.amplitud=1", "amplitude"),
        ("bright.lat_0=nan", "bright.lat_0"),
    ],
)
def test_a_wrong_assignment_is_named(assignment: str, hint: str, done: SimpleNamespace) -> None:
    dataset, models = done.folder / "dataset-stacked.fits.gz", done.folder / "models.yaml"
    fails(run_here("stat", dataset, models, "--set", assignment), 2, hint)


@pytest.mark.parametrize("size", [0, 100, 40_000])
def test_a_truncated_dataset_is_named(size: int, done: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "cut.fits.gz"
    path.write_bytes((done.folder / "dataset-stacked.fits.gz").read_bytes()[:size])
    fails(run_here("stat", path, done.folder / "models.yaml"), 2, str(path))


@pytest.mark.parametrize("name", ["events_000002.fits.gz", "irf.fits.gz", "hdu-index.fits.gz"])
def test_a_truncated_file_of_the_store_is_named(
    name: str, demo_store: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(demo_store, store)
    data = (store / name).read_bytes()
    (store / name).write_bytes(data[: len(data) // 2])
    fails(run_here("reduce", store / "config.yaml"), 2, name)


def test_a_file_that_is_no_dataset_is_named(demo_store: Path) -> None:
    answer = run_here("stat", demo_store / "irf.fits.gz", demo_store / "models.yaml")
    fails(answer, 2, "irf.fits.gz", "COUNTS")


def test_an_output_folder_that_cannot_be_made_is_told_before_the_work(
    demo_store: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    config, models = demo_store / "config.yaml", demo_store / "models.yaml"
    answer = run_here("run", config, models, "-o", tmp_path / "file" / "out")
    fails(answer, 2, str(tmp_path / "file" / "out"))
    assert "Processing" not in answer.err


def test_a_scheduler_that_does_not_answer_is_named(demo_store: Path) -> None:
    answer = run_here("reduce", demo_store / "config.yaml", "--scheduler", "nonsense")
    fails(answer, 2, "nonsense")


def test_serve_hands_its_arguments_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from imgfit_widgets.app import serve

    calls: list[Any] = []
    monkeypatch.setattr(serve, "serve", lambda *args: calls.append(args))
    assert run_here("serve").status == 0
    roots = ["--data-root", tmp_path, "--data-root", os.sep]
    assert run_here("serve", "c.yaml", "m.yaml", "--port", 8877, "--no-browser", *roots).status == 0
    assert calls[0][:2] == (None, None)
    assert calls[0][3] is True
    assert calls[1] == ("c.yaml", "m.yaml", 8877, False, [tmp_path, Path(os.sep)])
