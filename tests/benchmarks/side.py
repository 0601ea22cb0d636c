"""One side of the comparison: the tutorial's analysis with either program, as JSON on one line.

Run by `compare.py` as ``python side.py {ours,gammapy} CONFIG MODELS REPEAT``.
"""

import json
import logging
import resource
import sys
import time
import warnings

warnings.simplefilter("ignore")


def main(side: str, config_path: str, models_path: str, repeat: int) -> None:
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
        analysis = Analysis(AnalysisConfig.read(config_path))
        timed("reduction", reduce)
        figures.setdefault("peak memory", []).append(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        )
        analysis.set_models(models)
        timed("fit", analysis.run_fit)
        figures["one statistic"] = statistics(side, analysis)
    figures["peak memory"] = figures["peak memory"][:1]
    figures["amplitude"] = [analysis.models.parameters["amplitude"].value]
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
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
