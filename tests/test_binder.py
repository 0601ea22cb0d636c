"""Binder: the same steps in a fresh environment, to the dashboard in a browser."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
BINDER = ROOT / "binder"
CHROMIUM_FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def test_every_requirement_is_pinned_and_covers_the_package() -> None:
    import tomllib

    lines = (BINDER / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    pinned = {pin.split("==")[0].lower().replace("_", "-") for pin in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[<>=]", line)[0].lower() for line in project["dependencies"]}
    assert needed <= pinned
    assert "jupyterlab" in pinned


def test_the_python_is_one_that_the_package_takes() -> None:
    assert (BINDER / "runtime.txt").read_text().strip() == "python-3.11"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A copy of the repository, and the environment in which Binder's steps were done."""
    base = tmp_path_factory.mktemp("binder")
    repository = base / "repository"
    skipped = shutil.ignore_patterns(".git", ".venv*", ".*_cache", "__pycache__", ".hypothesis")
    shutil.copytree(ROOT, repository, ignore=skipped)
    subprocess.run([sys.executable, "-m", "venv", base / "venv"], check=True)
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("JUPYTER", "IMGFIT"))
    }
    environment |= {
        "PATH": f"{base / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "VIRTUAL_ENV": str(base / "venv"),
        "HOME": str(base / "home"),
        "XDG_CACHE_HOME": str(base / "home" / ".cache"),
        "PIP_CACHE_DIR": os.environ.get("PIP_CACHE_DIR", str(Path.home() / ".cache" / "pip")),
    }
    environment.pop("GAMMAPY_DATA", None)
    (base / "home").mkdir()
    for step in (
        ["python", "-m", "pip", "install", "-q", "-r", "binder/requirements.txt"],
        ["binder/postBuild"],
    ):
        done = subprocess.run(
            step, cwd=repository, env=environment, capture_output=True, text=True, timeout=1200
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return repository, environment


@pytest.fixture(scope="module")
def server(built: tuple[Path, dict[str, str]]) -> Iterator[str]:
    """Address of a Jupyter server in the built environment."""
    repository, environment = built
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [
        "jupyter", "server", "--no-browser", "--allow-root", f"--port={port}",
        "--ServerApp.port_retries=0", "--IdentityProvider.token=",
    ]  # fmt: skip
    log = (repository.parent / "server.log").open("w+")
    process = subprocess.Popen(
        command, cwd=repository, env=environment, stdout=log, stderr=subprocess.STDOUT
    )
    address = f"http://localhost:{port}"
    try:
        end = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{address}/api/status", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None and time.monotonic() < end, _text(log.name)
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def _text(path: str) -> str:
    return Path(path).read_text()[-4000:]


def test_the_dashboard_opens_and_asks_no_other_host(server: str, chromium: str) -> None:
    foreign: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.on(
            "request",
            lambda request: (
                foreign.append(request.url)
                if not request.url.startswith(
                    (server, server.replace("http", "ws"), "data:", "blob:")
                )
                else None
            ),
        )
        page.goto(f"{server}/voila/render/notebooks/dashboard.ipynb", timeout=120_000)
        workbench = page.locator(".imgfit-workbench").first
        expect(workbench).to_be_visible(timeout=120_000)
        expect(page.locator(".imgfit-status").first).to_contain_text("done", timeout=120_000)
        expect(page.locator(".imgfit-map").first).to_be_visible()
        browser.close()
    assert foreign == []


def test_the_notebooks_are_served(server: str) -> None:
    for name in ("quickstart", "modeling_2d", "compose", "inference"):
        with urllib.request.urlopen(f"{server}/api/contents/notebooks/{name}.ipynb") as answer:
            assert answer.status == 200


def test_the_package_answers_on_the_command_line(built: tuple[Path, dict[str, str]]) -> None:
    repository, environment = built
    done = subprocess.run(
        ["imgfit-widgets", "--version"],
        cwd=repository.parent, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert re.fullmatch(r"imgfit-widgets \d+\.\d+\.\d+\n", done.stdout), done.stderr
