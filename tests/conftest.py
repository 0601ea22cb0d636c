"""What the tests stand on: real data, reference numbers, a simulated store, Gammapy, Chromium.

What a fresh machine can get (Gammapy from the package index, Chromium from Debian) is installed;
what is missing after that makes a test fail with a message that says how to mend it. Nothing skips.

- ``GAMMAPY_DATA`` is taken from the environment, else from ``../shared/gammapy-data``;
- ``IMGFIT_REFERENCE`` likewise, else ``../shared/reference``;
- ``IMGFIT_PEER_PYTHON`` is an interpreter with Gammapy, else one is made in the user's cache.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
GAMMAPY = ("gammapy==2.1", "regions<0.12")

if "GAMMAPY_DATA" not in os.environ and (SHARED / "gammapy-data").is_dir():
    os.environ["GAMMAPY_DATA"] = str(SHARED / "gammapy-data")


def _folder(variable: str, default: Path, inside: str) -> Path:
    folder = Path(os.environ.get(variable) or default)
    if not (folder / inside).exists():
        pytest.fail(f"{folder} has no {inside}; set {variable} to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def gammapy_data() -> Path:
    """The folder of real DL3 data."""
    return _folder("GAMMAPY_DATA", SHARED / "gammapy-data", "cta-1dc/index/gps")


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of reference numbers."""
    return _folder("IMGFIT_REFERENCE", SHARED / "reference", "formats")


@pytest.fixture(scope="session")
def cache() -> Path:
    """A folder that outlives the tests."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = folder / "imgfit_widgets-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def gammapy_python(cache: Path) -> str:
    """An interpreter with Gammapy, in an environment of its own."""
    python = os.environ.get("IMGFIT_PEER_PYTHON")
    if python is None:
        folder = cache / GAMMAPY[0].replace("==", "-")
        python = str(folder / "bin" / "python")
        with (cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # tests side by side make it once
            _make_peer(folder, python)
    check = _call([python, "-c", "import gammapy; print(gammapy.__version__)"])
    if check.returncode:
        pytest.fail(f"{python} (IMGFIT_PEER_PYTHON) has no Gammapy:\n{check.stderr[-2000:]}")
    return python


def _make_peer(folder: Path, python: str) -> None:
    if Path(python).exists() and not _call([python, "-c", "import gammapy"]).returncode:
        return
    venv.create(folder, with_pip=True, clear=True)
    install = _call([python, "-m", "pip", "install", "-q", *GAMMAPY])
    if install.returncode:
        pytest.fail(
            f"cannot install {' '.join(GAMMAPY)}; set IMGFIT_PEER_PYTHON to an interpreter that "
            f"has it\n{install.stderr[-2000:]}"
        )


@pytest.fixture(scope="session")
def gammapy(gammapy_python: str) -> Any:
    """Run Python code with Gammapy; the answer is what it prints last, read as JSON."""

    def run(code: str, *arguments: object) -> Any:
        command = [gammapy_python, "-W", "ignore", "-c", code, *map(str, arguments)]
        done = _call(command)
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout.strip().splitlines()[-1])

    return run


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium; installed with apt-get where that is possible."""
    found = _chromium()
    if found is None and shutil.which("apt-get") and os.geteuid() == 0:
        _call(["apt-get", "update", "-q"])
        _call(["apt-get", "install", "-q", "-y", "--no-install-recommends", "chromium"])
        found = _chromium()
    if found is None:
        pytest.fail("no Chromium on PATH; install it (Debian: apt-get install chromium)")
    return found


def _chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)


@pytest.fixture(scope="session")
def demo_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated store of seed 0, with config, models and truth; not to be changed."""
    from imgfit_widgets.core.simulate import simulate_store

    return simulate_store(tmp_path_factory.mktemp("demo") / "store", seed=0)


@pytest.fixture(scope="session")
def small(demo_store: Path) -> Any:
    """One run of the simulated field in coarse pixels, reduced (Analysis). Not to be changed."""
    from imgfit_widgets import Analysis, AnalysisConfig

    config = AnalysisConfig.read(demo_store / "config.yaml")
    config.observations.obs_ids = [1]
    config.datasets.geom.wcs.binsize = "0.05 deg"
    analysis = Analysis(config)
    analysis.get_observations()
    analysis.get_datasets()
    return analysis


@pytest.fixture
def small_config(small: Any) -> Any:
    return small.config.copy()


@pytest.fixture
def reduced(small: Any) -> Any:
    return small.datasets


@pytest.fixture
def session(small: Any) -> Any:
    """A session with data, as after Reduce."""
    from imgfit_widgets import Session

    session = Session(small.config)
    session.set_datasets(small.datasets, small.config)
    return session


@pytest.fixture
def cli(tmp_path: Path) -> Any:
    """Run ``imgfit-widgets`` as a process; the answer has status, out, err and json()."""

    def run(*arguments: object, **environment: str) -> SimpleNamespace:
        command = [sys.executable, "-m", "imgfit_widgets.app.cli", *map(str, arguments)]
        done = _call(command, cwd=tmp_path, env={**os.environ, **environment})
        return SimpleNamespace(
            status=done.returncode,
            out=done.stdout,
            err=done.stderr,
            json=lambda: json.loads(done.stdout.strip().splitlines()[-1]),
        )

    return run


def _analysis(gammapy_data: Path, reference: Path, accuracy: str) -> Any:
    from imgfit_widgets import Analysis, AnalysisConfig

    config = AnalysisConfig.read(reference / "formats" / "A_config_input.yaml")
    analysis = Analysis(config, accuracy=accuracy)
    analysis.get_observations()
    analysis.get_datasets()
    return analysis


@pytest.fixture(scope="session")
def tutorial(gammapy_data: Path, reference: Path) -> Any:
    """The tutorial's datasets, exact. Put no models on it: make datasets or copies of your own."""
    return _analysis(gammapy_data, reference, "exact")


@pytest.fixture(scope="session")
def tutorial_gammapy(gammapy_data: Path, reference: Path) -> Any:
    """The tutorial's datasets with Gammapy's approximations in the reduction."""
    return _analysis(gammapy_data, reference, "gammapy")


def _call(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=1200, **options)


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """The image of a Gaussian of 0.06 deg in a FITS file."""
    import numpy as np
    from astropy.io import fits

    from imgfit_widgets.core.maps import WcsGeom

    geom = WcsGeom.create((0.1, -0.05), (0.6, 0.5), 0.01, "TAN", "galactic")
    lon, lat = geom.pixel_lonlat
    image = np.exp(-0.5 * ((lon - 0.1) ** 2 + (lat + 0.05) ** 2) / 0.06**2)
    hdu = fits.PrimaryHDU(image.astype("f4"), geom.wcs.to_header())
    hdu.header["BUNIT"] = "sr-1"
    path = tmp_path / "image.fits"
    hdu.writeto(path)
    return path
