"""Times fits, one statistic and the TS map here and with Gammapy, in turn.

    python tests/benchmarks/fits.py [--cases point,gauss,...] [--repeat 1] [--peer PYTHON]

Both sides read the same dataset files (written first, with Gammapy's approximations), in fresh
processes, and start from the same models. A fit is what a user calls: ``Fit().run(datasets)`` with
the default backend, covariance included. Printed are medians, their ratio, how far the statistic
lies above the lower one of the two minima (each in its side's own prediction of the model), and
whether a side did not converge.

The cases: ``point``, ``two points``, ``gauss``, ``ellipse`` (an elliptical Gaussian), ``disk`` on
simulated shapes or the tutorial's data; ``wide gauss``, which grows from 0.1 deg over all of the
tutorial's map; ``joint``, the tutorial's three runs with a norm each;
``statistic``, one evaluation at a moved position; ``re-solve`` (ours only), amplitude and norm of a
moved source solved anew, as when it is dragged; ``ts map``.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import ts_map

ROOT, SHARED = ts_map.ROOT, ts_map.SHARED
FITS = ("point", "two points", "gauss", "wide gauss", "ellipse", "disk", "joint")
CASES = (*FITS, "statistic", "re-solve", "ts map")
SHAPES = {"two points": "two_points_0.12deg", "gauss": "gauss", "ellipse": "gauss_ell"}
SHAPES["disk"] = "disk"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", default=os.environ.get("IMGFIT_PEER_PYTHON"))
    parser.add_argument("--repeat", type=int, default=1, help="processes of each side")
    parser.add_argument("--inner", type=int, default=21, help="repeats of ours in each process")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("--side", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side, case, folder, inner = options.side
        print(json.dumps(one_side(side, case, Path(folder), int(inner))))
        return
    if not options.peer and not options.ours_only:
        parser.error("name an interpreter with Gammapy: --peer or IMGFIT_PEER_PYTHON")
    os.environ.setdefault("GAMMAPY_DATA", str(SHARED / "gammapy-data"))
    cases = options.cases.split(",")
    if unknown := set(cases) - set(CASES):
        parser.error(f"no such case: {', '.join(unknown)}; there are: {', '.join(CASES)}")
    with tempfile.TemporaryDirectory() as folder:
        write_cases(Path(folder), cases)
        print(f"{'':12s}{'Gammapy':>12s}{'ours':>12s}{'ratio':>9s}   above the lower minimum")
        for case in cases:
            found: dict[str, list[dict[str, Any]]] = {"ours": [], "gammapy": []}
            for _ in range(options.repeat):
                found["ours"].append(run(sys.executable, "ours", case, folder, options.inner))
                if case != "re-solve" and not options.ours_only:
                    found["gammapy"].append(run(options.peer, "gammapy", case, folder, 1))
            print(line(case, found["ours"], found["gammapy"]), flush=True)


def line(case: str, ours: list[dict[str, Any]], peer: list[dict[str, Any]]) -> str:
    own = median(second for answer in ours for second in answer["seconds"])
    text = f"{case:12s}{'':12s}{1e3 * own:9.3f} ms"
    if peer:
        other = median(second for answer in peer for second in answer["seconds"])
        text = f"{case:12s}{1e3 * other:9.1f} ms{1e3 * own:9.3f} ms{other / own:9.0f}"
    sides = {"Gammapy": peer, "ours": ours}
    stats = {name: side[0]["stat"] for name, side in sides.items() if side and "stat" in side[0]}
    if stats:
        lowest = min(stats.values())
        text += "   " + ", ".join(f"{name} {stat - lowest:.2f}" for name, stat in stats.items())
    failed = [name for name, side in sides.items() if side and not side[0].get("success", True)]
    return text + "".join(f"   {name} did not converge" for name in failed)


def write_cases(folder: Path, cases: list[str]) -> None:
    """The dataset files and models of the cases; what one needs is in a folder of its name."""
    sys.path.insert(0, str(ROOT))
    import numpy as np

    from imgfit_widgets import AnalysisConfig, MapDataset, Models
    from imgfit_widgets.core.maps import WcsNDMap
    from imgfit_widgets.core.models import GaussianSpatialModel

    reference = Path(os.environ.get("IMGFIT_REFERENCE", SHARED / "reference"))
    logging.disable(logging.CRITICAL)
    tutorial = AnalysisConfig.read(reference / "formats" / "A_config_input.yaml")
    point = Models.read(reference / "formats" / "A_models_input.yaml")
    shapes = json.loads((reference / "gammapy" / "sim_shapes.json").read_text())
    maps = dict(np.load(reference / "gammapy" / "sim_shapes.npz"))
    stacked, field = None, None
    for case in cases:
        models = point
        if case in SHAPES:
            field = field or reduced(AnalysisConfig.from_dict(shapes["config"]))[0]
            models = Models.from_yaml(shapes[SHAPES[case]]["start"])
            counts, background = (
                WcsNDMap(field.counts.geom, maps[key][None].astype(float))
                for key in (f"counts_{SHAPES[case]}", "bkg")
            )
            kept = field.exposure, field.psf, field.edisp, field.mask_safe, field.mask_fit
            datasets = [MapDataset("stacked", counts, background, *kept)]
        elif case == "joint":
            apart = tutorial.copy()
            apart.datasets.stack = False
            datasets = reduced(apart)
        else:
            datasets = stacked = stacked or reduced(tutorial)
        place = folder / case
        place.mkdir()
        for dataset in datasets:
            dataset.write(place / f"{dataset.name}.fits.gz")
        if case == "wide gauss":
            models = models.copy()
            spatial = models[0].spatial_model
            models[0].spatial_model = GaussianSpatialModel(
                lon_0=spatial.lon_0.quantity,
                lat_0=spatial.lat_0.quantity,
                sigma="0.1 deg",
                frame="galactic",
            )
        models.write(place / "models.yaml")


def reduced(config: Any) -> Any:
    from imgfit_widgets import Analysis

    analysis = Analysis(config, accuracy="gammapy")
    analysis.get_observations()
    analysis.get_datasets()
    return analysis.datasets


def run(python: str, side: str, case: str, folder: str, inner: int) -> dict[str, Any]:
    environment = dict(os.environ)
    environment.pop("PYTHONPATH", None)
    if side == "ours":
        environment["PYTHONPATH"] = str(ROOT)
    command = [python, __file__, "--side", side, case, folder, str(inner)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{case}: {side} failed:\n{done.stderr[-3000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


# --- what each side does
def one_side(side: str, case: str, folder: Path, inner: int) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    Datasets: Any
    Fit: Any
    FoVBackgroundModel: Any
    MapDataset: Any
    Models: Any
    if side == "ours":
        from imgfit_widgets import Datasets, Fit, MapDataset, Models
        from imgfit_widgets.core.models import FoVBackgroundModel
    else:
        from gammapy.datasets import Datasets, MapDataset
        from gammapy.modeling import Fit
        from gammapy.modeling.models import FoVBackgroundModel, Models

    files = sorted((folder / case).glob("*.fits.gz"))
    if case == "ts map":
        return {"seconds": ts_map.one_side(side, str(files[0]), str(folder / f"{side}.npz"))}
    named = [(file, file.name.removesuffix(".fits.gz")) for file in files]

    def fresh() -> Any:
        """Datasets and models that nothing is known of yet."""
        datasets = Datasets([MapDataset.read(file, name=name) for file, name in named])
        models = Models.read(folder / case / "models.yaml")
        models.extend([FoVBackgroundModel(dataset_name=name) for name in datasets.names])
        datasets.models = models
        return datasets

    if case in ("statistic", "re-solve"):
        call = statistic(side, fresh()) if case == "statistic" else resolve(fresh())
        return {"seconds": timed(call, 20 * inner)}
    seconds = []
    for _ in range(inner):
        result: Any = None  # or the fit's time would hold that of freeing the one before
        datasets = fresh()
        fit = Fit()
        start = time.perf_counter()
        result = fit.run(datasets)
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": seconds,
        "success": bool(result.success),
        "stat": float(datasets.stat_sum() if side == "gammapy" else result.total_stat),
    }


def timed(call: Callable[[int], object], count: int) -> list[float]:
    seconds = []
    for step in range(count):
        start = time.perf_counter()
        call(step)
        seconds.append(time.perf_counter() - start)
    return seconds


def statistic(side: str, datasets: Any) -> Callable[[int], object]:
    models = datasets.models
    lon = models.parameters["lon_0"]
    first = lon.value
    if side == "gammapy":

        def call(step: int) -> object:
            lon.value = first + 1e-3 * (step % 20)
            return datasets.stat_sum()

        return call
    from imgfit_widgets.core.evaluator import Evaluator

    evaluator = Evaluator(datasets, models)
    x = evaluator.x0.copy()
    place = evaluator.names.index(("GC-1", "lon_0"))

    def ours(step: int) -> object:
        x[place] = first + 1e-3 * (step % 20)
        return evaluator.stat(x)

    return ours


def resolve(datasets: Any) -> Callable[[int], object]:
    from imgfit_widgets import LiveLikelihood

    live = LiveLikelihood(datasets, datasets.models)
    return lambda step: live.update("GC-1", lon_0=1e-3 * (step % 20), lat_0=0.01)


if __name__ == "__main__":
    main()
