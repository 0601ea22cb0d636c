"""The command line ``imgfit-widgets``: the analysis without a notebook, and the served workbench.

Results go to standard output, everything else to standard error. Exit status: 0 done, 1 the
analysis failed, 2 the input is wrong; an error is one line, never a traceback. With ``--json`` the
last thing on standard output is one JSON object, whose keys `_summary` and its callers make.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from .. import __version__
from ..core.errors import DataError, FitError, ImgfitError, InputError, ModelError

log = logging.getLogger("imgfit_widgets")

Summary = dict[str, Any]
SUMMARY_KEYS = ("datasets", "failed", "stat", "npred", "fit", "timing", "version")
DATASET_KEYS = (
    "name", "counts", "background", "exposure_min", "exposure_max", "n_bins", "n_fit_bins",
    "fov_norm",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the answer is the exit status."""
    # Before numpy is loaded, for this process and its kernels: the matrices here are small, and a
    # second thread of the linear algebra mostly waits for the first one.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    args = _parser().parse_args(argv)
    try:
        with _messages_on_stderr(args.json):
            status, summary = args.command(args)
        if args.json:
            print(json.dumps(_finite(summary), allow_nan=False))
        return int(status)
    except InputError as error:
        return _fail(error, 2)
    except ImgfitError as error:
        return _fail(error, 1)
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else error, 2)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except Exception as error:
        log.debug("Traceback of the error below", exc_info=True)
        return _fail(f"{type(error).__name__}: {error} (a fault of imgfit_widgets; report it)", 1)


def _fail(error: object, status: int) -> int:
    print("imgfit-widgets: error:", _one_line(error), file=sys.stderr)
    return status


def _one_line(words: object) -> str:
    return " ".join(str(words).split())


# What each command does; every one answers with the exit status and the summary for --json.


def run(args: argparse.Namespace) -> tuple[int, Summary]:
    """Reduce and fit."""
    from ..core.models import Models

    models = Models.read(args.models)  # a mistake there is told before the long part
    with _reduced(args) as analysis:
        analysis.fit.search_radius = args.search
        analysis.set_models(models)
        return _fit(args, analysis.datasets, analysis.run_fit, analysis.timing, analysis.failed)


def reduce(args: argparse.Namespace) -> tuple[int, Summary]:
    """Only reduce."""
    with _reduced(args) as analysis:
        for dataset in [] if args.json else analysis.datasets:
            print(dataset)
        return 0, _summary(analysis.datasets, analysis.timing, analysis.failed)


def fit(args: argparse.Namespace) -> tuple[int, Summary]:
    """Fit dataset files."""
    from ..core.fit import Fit

    _make_folder(args)
    datasets = _datasets_with_models(args)
    timing: dict[str, float] = {}

    def solve() -> Any:
        log.info("Fitting datasets.")
        start = time.perf_counter()
        result = Fit(search_radius=args.search).run(datasets, datasets.models)
        timing["fit_s"] = time.perf_counter() - start
        return result

    return _fit(args, datasets, solve, timing)


def stat(args: argparse.Namespace) -> tuple[int, Summary]:
    """Evaluate the statistic, without a fit."""
    datasets = _datasets_with_models(args)
    for assignment in args.set:
        _assign(datasets.models, assignment)
    values = _values(datasets)
    if not args.json:
        print(f"stat: {values['stat']:.6f}")
        for name, counts in values["npred"].items():
            print(f"npred {name}: {counts:.6g}")
    return 0, {**values, "version": __version__}


def simulate(args: argparse.Namespace) -> tuple[int, Summary]:
    """Write a small DL3 store."""
    from ..core.simulate import simulate_store

    _log_as()
    store = simulate_store(args.output, args.seed, lambda fraction, message: log.info(message))
    names = ("config", "models", "truth")
    files = {"store": str(store), **{name: str(store / f"{name}.yaml") for name in names}}
    if not args.json:
        print(f"Simulated store: {store}")
        print(f"Fit it with: imgfit-widgets run {files['config']} {files['models']} -o results")
    return 0, {**files, "version": __version__}


def serve(args: argparse.Namespace) -> tuple[int, Summary]:
    """Serve the workbench."""
    from .serve import serve as start

    start(args.config, args.models, args.port, not args.no_browser, args.data_root)
    return 0, {"version": __version__}


# What they share.


@contextlib.contextmanager
def _reduced(args: argparse.Namespace) -> Iterator[Any]:
    """An analysis with its datasets made, and written if asked for."""
    from ..core.analysis import Analysis
    from ..core.config import AnalysisConfig
    from ..core.files import write_datasets
    from ..core.parallel import open_executor

    config = AnalysisConfig.read(args.config)
    if args.n_jobs is not None:
        config.set("general.n_jobs", args.n_jobs)
    _log_as(config.general.log)
    args.output = args.output or _outdir(config)
    _make_folder(args)
    with open_executor(1, args.scheduler) as executor:
        analysis = Analysis(
            config,
            accuracy=args.accuracy,
            executor=executor,
            geometry=args.geometry,
            skip_failed=args.skip_failed,
        )
        analysis.get_observations()
        analysis.get_datasets()
    if args.output is not None and analysis.datasets is not None:
        for path in write_datasets(analysis.datasets, args.output):
            log.info("Wrote %s", path)
    for run, reason in analysis.failed.items():
        # Not in the log, whose level may hide it: nobody may miss that data are missing.
        print(f"imgfit-widgets: run {run} is left out: {_one_line(reason)}", file=sys.stderr)
    yield analysis


def _datasets_with_models(args: argparse.Namespace) -> Any:
    """The datasets of a file with the models on them, and a background model for each."""
    from ..core.analysis import with_background
    from ..core.files import read_datasets
    from ..core.models import Models

    _log_as()
    models = Models.read(args.models)
    datasets = read_datasets(args.dataset)
    datasets.models = with_background(models, datasets)
    return datasets


def _fit(
    args: argparse.Namespace,
    datasets: Any,
    solve: Callable[[], Any],
    timing: dict[str, float],
    failed: Mapping[int, str] = MappingProxyType({}),
) -> tuple[int, Summary]:
    """Solve, write and sum up; a fit that did not converge is status 1, with its reason."""
    from ..core.files import write_fit

    failure: dict[str, Any] | None = None
    try:
        result = solve()
    except (InputError, FitError) as error:
        failure = {"success": False, "message": str(error)}
        result = None
        if args.output is not None:
            # What an earlier fit left there is of other datasets.
            for name in ("parameters.ecsv", "models_covariance.dat"):
                (args.output / name).unlink(missing_ok=True)
            _write_json(args.output / "result.json", {"fit": failure, "version": __version__})
        if not isinstance(error, FitError):
            raise
    values = {} if result is None else _values(datasets)
    fitted = failure if result is None else result.to_dict()
    summary = {**_summary(datasets, timing, failed), **values, "fit": fitted}
    summary = {key: summary[key] for key in SUMMARY_KEYS if key in summary}
    if args.output is not None and result is not None:
        write_fit(datasets.models, result, args.output)
        _write_json(args.output / "result.json", summary)
    if result is not None and not args.json:
        print(result)
        print(datasets.models)
    if not summary["fit"]["success"]:
        _fail(f"the fit did not succeed: {summary['fit']['message']}", 1)
        return 1, summary
    return 0, summary


def _write_json(path: Path, content: Summary) -> None:
    text = json.dumps(_finite(content), indent=2, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _summary(
    datasets: Any, timing: dict[str, float], failed: Mapping[int, str] = MappingProxyType({})
) -> Summary:
    """What is said of reduced datasets, and of the runs that they leave out."""
    infos = [dataset.info_dict() for dataset in datasets]
    return {
        "datasets": [{key: info[key] for key in DATASET_KEYS if key in info} for info in infos],
        **({"failed": {str(run): reason for run, reason in failed.items()}} if failed else {}),
        "timing": {key: timing[key] for key in ("reduce_s", "fit_s") if key in timing},
        "version": __version__,
    }


def _values(datasets: Any) -> Summary:
    """The statistic and the predicted counts within the fit mask, of all and of each model."""
    from ..core.evaluator import Evaluator

    models = datasets.models
    evaluator = Evaluator(datasets, models)
    masks = [dataset.mask for dataset in datasets]

    def total(parts: Sequence[Any]) -> float:
        return float(sum(part[mask].sum() for part, mask in zip(parts, masks, strict=True)))

    x = evaluator.x0
    npred = {"total": total(evaluator.npred(x))}
    npred.update({name: total(evaluator.npred_of(name, x)) for name in models.names})
    return {"stat": evaluator.stat(x) + models.parameters.prior_stat_sum(), "npred": npred}


def _assign(models: Any, assignment: str) -> None:
    """Set ``MODEL.PARAM=VALUE``."""
    target, equals, value = assignment.rpartition("=")  # a name may hold one
    model, dot, parameter = target.strip().rpartition(".")
    expected = f"--set {assignment}: expected MODEL.PARAM=VALUE"
    if not equals or not dot:
        raise ModelError(expected)
    try:
        number = float(value)
    except ValueError:
        raise ModelError(f"{expected}; {value!r} is not a number") from None
    models[model].parameters[parameter].value = number


def _outdir(config: Any) -> Path | None:
    """The configuration's folder for results, unless it is at its default.

    That is the current folder, where a run that was given no folder must not replace files.
    """
    from ..core.paths import expand_path

    path = "general.outdir"
    folder = expand_path(config.get(path), path)
    return None if folder == Path(config.field(path).default) else folder


def _make_folder(args: argparse.Namespace) -> None:
    """Make the folder for the results before the work, not after it.

    Raises
    ------
    DataError
        If it cannot be made, or the results would replace the models that the user gave.
    """
    from ..core.files import MODELS_FILE

    folder = args.output
    if folder is None:
        return
    models = getattr(args, "models", None)
    if models is not None and (folder / MODELS_FILE).resolve() == Path(models).resolve():
        raise DataError(
            f"{folder}: the fitted models would replace {models}; expected another folder (-o)"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot make this folder: {error.strerror}") from None


def _finite(value: Any) -> Any:
    """The same, with what JSON cannot say (NaN, infinities) as null."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if hasattr(value, "tolist"):
        return _finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def _messages_on_stderr(json_wanted: bool) -> Iterator[None]:
    """Keep standard output for the result; warnings become one line each."""
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        if json_wanted:
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))

        def show(message: Warning | str, *_: object, **__: object) -> None:
            log.warning("%s", message)

        warnings.showwarning = show
        yield


def _log_as(options: Any = None) -> None:
    """Show messages on standard error, unless the configuration says otherwise."""
    if options is None or (options.filename is None and options.format is None):
        name = "INFO" if options is None else options.level.upper()
        level = logging.getLevelNamesMapping().get(name, logging.INFO)
        logging.basicConfig(stream=sys.stderr, format="%(message)s", level=level)


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, as every other error."""

    def error(self, message: str) -> NoReturn:
        sys.exit(_fail(f"{message}; see {self.prog} --help", 2))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="imgfit-widgets",
        description="Fit 2D gamma-ray images: in the browser (serve) or here.",
        epilog="Exit status: 0 done, 1 the analysis failed, 2 the input is wrong.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(function: Callable[..., Any], text: str, json_too: bool = True) -> Any:
        added = commands.add_parser(function.__name__, help=text, description=text + ".")
        added.set_defaults(command=function, json=False)
        if json_too:
            added.add_argument(
                "--json", action="store_true", help="print one JSON object on standard output"
            )
        return added

    config = {"metavar": "CONFIG", "help": "analysis configuration (YAML)"}
    models = {"metavar": "MODELS", "help": "models (YAML)"}
    output = {"metavar": "DIR", "type": Path, "help": "folder for the results"}
    search: dict[str, Any] = {
        "metavar": "DEG",
        "type": _radius,
        "default": 0.0,
        "help": "begin each source where it fits best within so many degrees (0: where it is)",
    }

    added = command(serve, "serve the workbench as a dashboard; without CONFIG on the demo", False)
    added.add_argument("config", nargs="?", **config)
    added.add_argument("models", nargs="?", **models)
    added.add_argument("--port", type=_port, metavar="N", help="port (default: a free one)")
    added.add_argument("--no-browser", action="store_true", help="do not open a browser")
    added.add_argument(
        "--data-root",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="let the page read files below DIR (repeat for several)",
    )

    for function, text in (
        (run, "reduce observations and fit models"),
        (reduce, "only reduce observations to datasets"),
    ):
        added = command(function, text)
        added.add_argument("config", **config)
        if function is run:
            added.add_argument("models", **models)
            added.add_argument("--search", **search)
        added.add_argument(
            "-o", "--output", **{**output, "help": "folder for the results (general.outdir)"}
        )
        added.add_argument(
            "--accuracy",
            choices=("exact", "gammapy"),
            default="exact",
            help="exact integrals (default), or the approximations that Gammapy makes",
        )
        added.add_argument(
            "--geometry",
            metavar="CAR|TAN|FITS",
            help="projection of the map, or a FITS image whose pixels are taken (default: CAR)",
        )
        added.add_argument(
            "--skip-failed",
            action="store_true",
            help="go on without the runs that cannot be used, and name them",
        )
        group = added.add_mutually_exclusive_group()
        group.add_argument("--n-jobs", type=_count, metavar="N", help="processes to reduce with")
        group.add_argument("--scheduler", metavar="ADDRESS", help="Dask scheduler to reduce on")

    dataset = {"metavar": "DATASET", "help": "dataset (FITS), or datasets.yaml"}
    added = command(fit, "fit models to a dataset")
    added.add_argument("dataset", **dataset)
    added.add_argument("models", **models)
    added.add_argument("--search", **search)
    added.add_argument("-o", "--output", **output)

    added = command(stat, "give the fit statistic and predicted counts, without a fit")
    added.add_argument("dataset", **dataset)
    added.add_argument("models", **models)
    added.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="MODEL.PARAM=VALUE",
        help="set a parameter (repeat for several)",
    )

    added = command(simulate, "write a small DL3 store to try things on")
    added.add_argument("-o", "--output", required=True, **output)
    added.add_argument("--seed", type=_seed, default=0, metavar="N", help="random seed (0)")
    return parser


def _radius(text: str) -> float:
    try:
        degrees = float(text)
    except ValueError:
        degrees = math.nan
    if not 0.0 <= degrees <= 180.0:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used; expected 0 to 180 degrees")
    return degrees


def _number(low: int, high: float, what: str) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text!r} cannot be used; expected {what}")
        return number

    return parse


_count = _number(1, math.inf, "a whole number from 1 up")
_seed = _number(0, math.inf, "a whole number from 0 up")
_port = _number(0, 65535, "a port from 0 to 65535")


if __name__ == "__main__":
    sys.exit(main())
