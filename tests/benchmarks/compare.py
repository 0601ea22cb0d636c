"""Times analyses here and with Gammapy, in turn, and prints medians and ratios."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SHARED = ROOT.parent / "shared"
UNITS = {"peak memory": ("MB", 1.0), "one statistic": ("ms", 1e3)}
NAMES = ("import", "reduction", "fit", "one statistic", "peak memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", default=os.environ.get("IMGFIT_PEER_PYTHON"))
    parser.add_argument("--repeat", type=int, default=3, help="processes of each side")
    parser.add_argument("--cases", default="tutorial,hess,fine")
    parser.add_argument("--inner", type=int, default=3, help="analyses in each process")
    formats = Path(os.environ.get("IMGFIT_REFERENCE", SHARED / "reference")) / "formats"
    parser.add_argument("--config", default=formats / "A_config_input.yaml")
    parser.add_argument("--models", default=formats / "A_models_input.yaml")
    options = parser.parse_args()
    if not options.peer:
        parser.error("name an interpreter with Gammapy: --peer or IMGFIT_PEER_PYTHON")
    os.environ.setdefault("GAMMAPY_DATA", str(SHARED / "gammapy-data"))

    sides = {"ours": sys.executable, "gammapy": options.peer}
    print(f"{'':30s}{'Gammapy':>14s}{'ours':>14s}{'ratio':>10s}")
    for case in options.cases.split(","):
        figures: dict[str, dict[str, list[float]]] = {side: {} for side in sides}
        for _ in range(options.repeat):
            for side, python in sides.items():
                for name, values in run(python, side, case, options).items():
                    figures[side].setdefault(name, []).extend(values)
        counts = {side: set(figures[side]["counts"]) for side in sides}
        if counts["ours"] != counts["gammapy"]:
            sys.exit(f"{case}: the two count differently: {counts}")
        for name in NAMES if case == "tutorial" else ("reduction", "peak memory"):
            unit, scale = UNITS.get(name, ("s", 1.0))
            peer, ours = (median(figures[side][name]) * scale for side in ("gammapy", "ours"))
            label = f"{case}: {name}"
            print(f"{label:30s}{peer:11.4g} {unit:2s}{ours:11.4g} {unit:2s}{peer / ours:10.1f}")


def run(python: str, side: str, case: str, options: argparse.Namespace) -> dict[str, list[float]]:
    environment = dict(os.environ)
    if side == "ours":
        environment["PYTHONPATH"] = str(ROOT)
    else:
        environment.pop("PYTHONPATH", None)
    files = [options.config, options.models]
    command = [python, HERE / "side.py", side, case, options.inner, *files]
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
