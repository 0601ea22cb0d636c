"""The house keeps its shape: which module may import which, what lies where, how long a file is."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "imgfit_widgets"

# Later layers import from earlier ones. Modules of one layer may import each other, without a
# cycle, only inside a folder (``irf``, ``models``, ``widgets``) or where CHAINS says so.
LAYERS = [
    ["core.derivatives", "core.errors", "core.products", "core.progress", "core.yaml_text"],
    ["core.fields", "core.paths"],
    ["core.options"],
    ["core.config", "core.maps", "core.stats", "core.parallel"],
    ["core.tables"],
    ["core.irf"],
    ["core.events", "core.index"],
    ["core.data", "core.models"],
    ["core.selection"],
    ["core.pixels", "core.plane"],
    ["core.response"],
    ["core.extended_state", "core.source_state"],
    ["core.source"],
    ["core.extended", "core.flat", "core.gaussian"],
    ["core.evaluator"],
    ["core.likelihood"],
    ["core.fits_maps"],
    ["core.response_io"],
    ["core.image_psf"],
    ["core.live", "core.fit_result", "core.profile_result", "core.dataset_io", "core.images"],
    ["core.dataset", "core.minimise", "core.inference_result"],
    ["core.verdict", "core.profile"],
    ["core.makers", "core.fit"],
    ["core.inference"],
    ["core.ladder"],
    ["core.estimators", "core.simulate", "core.files", "core.toys"],
    ["core.analysis"],
    ["core"],
    [""],
    ["task", "changes"],
    ["history", "sources", "preview", "session_files"],
    ["reducing"],
    ["state"],
    ["exports", "verbs"],
    ["editing", "inferring"],
    ["searching"],
    ["session"],
    ["widgets"],
    ["app"],
    ["__main__"],
]
FORBIDDEN_IN_CORE = ("ipywidgets", "bqplot", "bqplot_image_gl", "IPython", "voila", "matplotlib")
TOP_LEVEL = {
    "imgfit_widgets", "notebooks", "tests", "binder",
    "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md",
}  # fmt: skip


def module_name(path: Path) -> str:
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def layer(module: str) -> int:
    """The layer of a module, found by the longest name that leads to it."""
    parts = module.split(".") if module else []
    for length in range(len(parts), -1, -1):
        name = ".".join(parts[:length])
        for number, names in enumerate(LAYERS):
            if name in names and (length == len(parts) or name not in ("", "core")):
                return number
    raise AssertionError(f"{module} stands in no layer; give it one in LAYERS")


def imported(module: str) -> set[str]:
    """Modules of the package that a module imports, at its top or inside a function."""
    path = MODULES[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    package = [part for part in package if part]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {".".join(n[1:]) for n in names if n[0] == "imgfit_widgets"}
        elif isinstance(node, ast.ImportFrom):
            base = (node.module or "").split(".") if node.module else []
            if node.level:
                base = package[: len(package) - node.level + 1] + base
            elif base[:1] == ["imgfit_widgets"]:
                base = base[1:]
            else:
                continue
            for alias in node.names:
                whole = ".".join([*base, alias.name])
                found.add(whole if whole in MODULES else ".".join(base))
    return found - {module}


def folder(module: str) -> str:
    """The folder whose modules may import each other: irf, models, estimators, widgets or app."""
    parts = module.split(".")
    whole = parts if MODULES[module].name == "__init__.py" else parts[:-1]
    name = ".".join(whole)
    return name if name not in ("", "core") else module


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    for other in imported(module):
        assert other in MODULES, f"{module} imports {other}, which does not exist"
        if folder(other) == folder(module):
            continue
        if other == "" and layer(module) < layer(""):
            names = import_names(module)
            assert names <= {"__version__"}, f"{module} imports {names} from the package"
            continue
        assert layer(other) < layer(module), f"{module} must not import {other}"


def import_names(module: str) -> set[str]:
    """What a module takes from the package itself."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    nodes = [node for node in nodes if node.module == "imgfit_widgets" and not node.level]
    return {a.name for node in nodes for a in node.names if a.name not in MODULES}


def test_no_import_cycles() -> None:
    graph = {module: imported(module) & set(MODULES) for module in MODULES}
    # A package's __init__ gathers its modules; importing it back from inside is the cycle to find.
    done: set[str] = set()
    path: list[str] = []

    def visit(module: str) -> None:
        assert module not in path, " → ".join([*path[path.index(module) :], module])
        if module in done:
            return
        path.append(module)
        for other in sorted(graph[module]):
            if other != "":
                visit(other)
        path.pop()
        done.add(module)

    for module in MODULES:
        visit(module)


LONE_IMPORTS = """
import importlib, json, os, sys, traceback
names, forbidden, libraries = map(json.loads, sys.argv[1:])
for library in libraries:
    importlib.import_module(library)
failed = {}
for name in names:
    pid = os.fork()
    if pid == 0:
        try:
            importlib.import_module(name)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        loaded = [module for module in forbidden if module in sys.modules]
        if loaded:
            print(name, "loads", loaded, file=sys.stderr)
            os._exit(2)
        os._exit(0)
    if os.waitpid(pid, 0)[1]:
        failed[name] = True
print(json.dumps(sorted(failed)))
"""


# Loaded once, for speed: what of other libraries the modules load anyway.
HEADLESS = [
    *("astropy.coordinates", "astropy.io.fits", "astropy.table", "astropy.wcs", "iminuit"),
    *("scipy.fft", "scipy.ndimage", "scipy.optimize", "scipy.sparse", "scipy.special"),
    *("concurrent.futures.process", "multiprocessing.connection", "traitlets", "yaml"),
]
ON_SCREEN = ["PIL.Image", "bqplot", "bqplot_image_gl", "ipywidgets"]


@pytest.mark.parametrize("core", [True, False])
def test_every_module_imports_alone_and_the_core_loads_no_widget_library(core: bool) -> None:
    """Each import runs in its own fork of a process that has imported nothing of the package."""
    names = [
        f"imgfit_widgets.{module}".rstrip(".")
        for module in MODULES
        if (module.split(".")[0] == "core") == core
    ]
    forbidden, libraries = (FORBIDDEN_IN_CORE, HEADLESS) if core else ([], [*HEADLESS, *ON_SCREEN])
    assert len(names) > 20
    run = subprocess.run(
        [sys.executable, "-c", LONE_IMPORTS, *map(json.dumps, (names, forbidden, libraries))],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == [], run.stderr


def test_core_imports_matplotlib_only_inside_functions() -> None:
    for module, path in MODULES.items():
        if not module.startswith("core"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not [n for n in names if n.split(".")[0] in FORBIDDEN_IN_CORE], module


def test_importing_the_package_is_light() -> None:
    code = "import sys, imgfit_widgets; print('numpy' in sys.modules, 'ipywidgets' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout.split() == ["False", "False"], run.stderr


def test_public_names_are_there() -> None:
    import imgfit_widgets

    everyday = {"Fit", "FitResult", "Profiles", "extension_test", "localise", "TSMapEstimator"}
    assert everyday <= set(imgfit_widgets.__all__)
    for name in imgfit_widgets.__all__:
        assert getattr(imgfit_widgets, name) is not None, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        imgfit_widgets.nothing  # noqa: B018


def tracked() -> list[str]:
    run = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT)
    if run.returncode == 0:
        return run.stdout.split("\n")[:-1]
    skipped = ("__pycache__", ".egg-info", ".ipynb_checkpoints")
    files = [p for p in ROOT.rglob("*") if p.is_file()]
    names = [p.relative_to(ROOT).as_posix() for p in files]
    return [n for n in names if not n.startswith(".") and not any(s in n for s in skipped)]


def test_top_level_holds_only_what_the_design_names() -> None:
    names = {name.split("/")[0] for name in tracked()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def test_no_file_asks_to_be_split() -> None:
    lengths = {}
    for name in tracked():
        path = ROOT / name
        if path.suffix == ".py" and path.is_file():
            lengths[name] = len(path.read_text(encoding="utf-8").splitlines())
    assert len(lengths) > 20
    assert {name: length for name, length in lengths.items() if length > 700} == {}


def test_only_one_file_has_threads() -> None:
    users = []
    for module in MODULES:
        tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            if "threading" in names:
                users.append(module)
    assert sorted(set(users)) == ["task"]


def test_bqplot_stays_in_two_files() -> None:
    users = set()
    for module in MODULES:
        tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            users |= {module for name in names if name.split(".")[0].startswith("bqplot")}
    assert users <= {"widgets.sky_figure", "widgets.charts"}


def test_session_stays_under_300_lines() -> None:
    assert len(MODULES["session"].read_text(encoding="utf-8").splitlines()) < 300
