"""One side of the comparison: an analysis with either program, its figures as JSON on one line.

Run by `compare.py` as ``python side.py {ours,gammapy} CASE REPEAT CONFIG MODELS``: the case
``tutorial`` is reduced and fitted, ``fine`` (its responses on a grid of 0.1 deg) and ``hess`` (four
runs of the public H.E.S.S. data) are reduced.
"""

import json
import logging
import resource
import sys
import time
import warnings

warnings.simplefilter("ignore")

HESS = {
    "observations": {
        "datastore": "$GAMMAPY_DATA/hess-dl3-dr1",
        "obs_ids": [23523, 23526, 23559, 23592],
    },
    "datasets": {
        "type": "3d",
        "stack": True,
        "geom": {
            "wcs": {
                "skydir": {"frame": "icrs", "lon": "83.633 deg", "lat": "22.014 deg"},
                "binsize": "0.02 deg",
                "width": {"width": "5 deg", "height": "5 deg"},
            },
            "axes": {
                "energy": {"min": "1 TeV", "max": "10 TeV", "nbins": 1},
                "energy_true": {"min": "0.5 TeV", "max": "20 TeV", "nbins": 16},
            },
        },
        "background": {"method": "fov_background"},
        "safe_mask": {
            "methods": ["aeff-default", "offset-max"],
            "parameters": {"offset_max": "2.5 deg"},
        },
    },
}


def main(side: str, case: str, repeat: int, config_path: str, models_path: str) -> None:
    start = time.perf_counter()
    if side == "ours":
        from imgfit_widgets.core.analysis import Analysis, AnalysisConfig
    else:
        from gammapy.analysis import Analysis, AnalysisConfig
    figures: dict[str, list[float]] = {"import": [time.perf_counter() - start]}
    logging.disable(logging.CRITICAL)
    with open(models_path) as file:
        models = file.read()

    def timed(name: str, function: object) -> None:
        start = time.perf_counter()
        function()
        figures.setdefault(name, []).append(time.perf_counter() - start)

    def reduce() -> None:
        analysis.get_observations()
        analysis.get_datasets()

    for _ in range(repeat):
        config = AnalysisConfig(**HESS) if case == "hess" else AnalysisConfig.read(config_path)
        if case == "fine":
            config.datasets.geom.wcs.binsize_irf = "0.1 deg"
        analysis = Analysis(config)
        timed("reduction", reduce)
        figures.setdefault("peak memory", []).append(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        )
        if case != "tutorial":
            continue
        analysis.set_models(models)
        timed("fit", analysis.run_fit)
        figures["one statistic"] = statistics(side, analysis)
    figures["peak memory"] = figures["peak memory"][:1]
    figures["counts"] = [float(analysis.datasets[0].counts.data.sum())]
    print(json.dumps(figures))


def statistics(side: str, analysis: object) -> list[float]:
    """Seconds of the statistic at 20 positions of the source."""
    lon = analysis.models.parameters["lon_0"]
    first = lon.value
    times = []
    if side == "ours":
        from imgfit_widgets.core.evaluator import Evaluator

        evaluator = Evaluator(analysis.datasets, analysis.models)
        x = evaluator.x0.copy()
        place = evaluator.names.index(("GC-1", "lon_0"))
    for step in range(20):
        start = time.perf_counter()
        if side == "ours":
            x[place] = first + 1e-3 * step
            evaluator.stat(x)
        else:
            lon.value = first + 1e-3 * step
            analysis.datasets.stat_sum()
        times.append(time.perf_counter() - start)
    lon.value = first
    return times


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5])
