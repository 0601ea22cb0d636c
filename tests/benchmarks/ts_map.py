"""Times the TS map of the tutorial's stacked dataset here and with Gammapy, in turn.

    python tests/benchmarks/ts_map.py [--repeat 3] [--peer PYTHON]

Both sides read one dataset file that is written first, in fresh processes, with the background as
the null hypothesis and a point with a power law of index 2 as the source; what is timed is the
estimator's `run` alone. Gammapy gets a kernel as wide as ours becomes (0.6 deg; its default is as
wide as the map and takes hours). Prints each side's median, their ratio, and how far the maps lie
apart.
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
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
WIDTH = "0.6 deg"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", default=os.environ.get("IMGFIT_PEER_PYTHON"))
    parser.add_argument("--repeat", type=int, default=3, help="processes of each side")
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(one_side(*options.side)))
        return
    if not options.peer:
        parser.error("name an interpreter with Gammapy: --peer or IMGFIT_PEER_PYTHON")
    os.environ.setdefault("GAMMAPY_DATA", str(SHARED / "gammapy-data"))
    sides = {"ours": sys.executable, "gammapy": options.peer}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        dataset = write_dataset(Path(folder))
        for _ in range(options.repeat):
            for side, python in sides.items():
                out = Path(folder) / f"{side}.npz"
                seconds[side] += run(python, side, dataset, out)
        peer, ours = (median(seconds[side]) for side in ("gammapy", "ours"))
        print(f"TS map of 400 x 300 pixels: Gammapy {peer:.3g} s, ours {ours:.3g} s")
        print(f"ratio of medians {peer / ours:.1f}")
        print(apart(Path(folder)))


def write_dataset(folder: Path) -> Path:
    """The tutorial's stacked dataset with Gammapy's approximations, as a file."""
    sys.path.insert(0, str(ROOT))
    from imgfit_widgets.core.analysis import Analysis, AnalysisConfig

    formats = Path(os.environ.get("IMGFIT_REFERENCE", SHARED / "reference")) / "formats"
    logging.disable(logging.CRITICAL)
    analysis = Analysis(AnalysisConfig.read(formats / "A_config_input.yaml"), accuracy="gammapy")
    analysis.get_observations()
    analysis.get_datasets()
    path = folder / "dataset.fits.gz"
    analysis.datasets["stacked"].write(path)
    return path


def run(python: str, side: str, dataset: Path, out: Path) -> list[float]:
    environment = dict(os.environ)
    environment.pop("PYTHONPATH", None)
    if side == "ours":
        environment["PYTHONPATH"] = str(ROOT)
    command = [python, __file__, "--side", side, str(dataset), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
    return [float(value) for value in json.loads(done.stdout.strip().splitlines()[-1])]


def one_side(side: str, dataset: str, out: str) -> list[float]:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    import numpy as np

    estimator: Any
    data: Any
    if side == "ours":
        from imgfit_widgets.core.dataset import MapDataset
        from imgfit_widgets.core.estimators.ts_map import TSMapEstimator

        data, estimator = MapDataset.read(dataset), TSMapEstimator()
    else:
        from gammapy.datasets import MapDataset
        from gammapy.estimators import TSMapEstimator

        data, estimator = MapDataset.read(dataset), TSMapEstimator(kernel_width=WIDTH, n_jobs=1)
    seconds = []
    for _ in range(3 if side == "ours" else 1):
        start = time.perf_counter()
        maps = estimator.run(data)
        seconds.append(time.perf_counter() - start)
    np.savez(out, sqrt_ts=maps["sqrt_ts"].data[0], flux=maps["flux"].data[0])
    return seconds


def apart(folder: Path) -> str:
    import numpy as np

    ours, peer = (np.load(folder / f"{side}.npz")["sqrt_ts"] for side in ("ours", "gammapy"))
    both = np.isfinite(ours) & np.isfinite(peer)
    away = np.abs(ours - peer)[both]
    return (
        f"sqrt(TS) of {both.sum()} pixels: {np.median(away):.3f} apart in the median, "
        f"{np.quantile(away, 0.99):.3f} at most in 99 %, {away.max():.2f} at most"
    )


if __name__ == "__main__":
    main()
