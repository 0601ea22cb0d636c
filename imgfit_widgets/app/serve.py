"""The workbench as a dashboard: Voila on this machine, with a page that asks nothing of others.

`serve` starts the server, `workbench` builds the page inside each visitor's kernel. What the one
tells the other goes through the environment, since kernels are processes of their own.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from traitlets.config import Config

from ..core.config import AnalysisConfig
from ..core.errors import ConfigError, ImgfitError, InputError
from ..core.models import Models

TEMPLATE_ROOT = Path(__file__).parent / "template"
TEMPLATE = "imgfit"
EXTENSIONS = (
    "@voila-dashboards/widgets-manager8",
    "@jupyter-widgets/jupyterlab-manager",
    "bqplot",
    "bqscales",
    "bqplot-image-gl",
)
"""The browser extensions that the page loads; each further one costs time."""
ENVIRONMENT = "IMGFIT_WIDGETS_SERVE"
FIRST_PORT = 8866
IDLE_SECONDS = 600  # a kernel without a page is stopped after this time


def serve(
    config: str | os.PathLike[str] | None = None,
    models: str | os.PathLike[str] | None = None,
    port: int | None = None,
    open_browser: bool = True,
    data_roots: Sequence[str | os.PathLike[str]] = (),
) -> None:
    """Serve the workbench on localhost until interrupted.

    Parameters
    ----------
    config, models : path, optional
        What to start with; the bundled demo without ``config``.
    port : int, optional
        By default 8866 or the next free one.
    open_browser : bool
    data_roots : sequence of paths
        If given, a configuration may only read data below these folders.

    Raises
    ------
    InputError
        A file cannot be read, a folder does not exist, the port is taken.
    """
    settings = _settings(config, models, data_roots)
    port = _free_port(port)
    try:
        from voila.app import Voila
    except ImportError:
        raise InputError("serve: the package voila is missing; install it to serve") from None
    with tempfile.TemporaryDirectory(prefix="imgfit-serve-") as folder:
        notebook = _prepare(Path(folder), settings)
        app: Any = Voila(config=Config(_voila_config(port, open_browser)))
        app.initialize([str(notebook)])
        print(f"imgfit workbench: http://localhost:{port}/ (Ctrl-C stops it)", flush=True)
        app.start()


def workbench(settings: dict[str, Any] | None = None) -> Any:
    """The workbench that a visitor sees; reduces at once, so that there are maps to look at.

    Parameters
    ----------
    settings : dict, optional
        ``config``, ``models`` (paths) and ``data_roots``; by default what `serve` has set.
    """
    from ..session import Session
    from ..widgets.workbench import Workbench

    if settings is None:
        settings = json.loads(os.environ.get(ENVIRONMENT, "{}"))
    config, models = settings.get("config"), settings.get("models")
    roots, about = settings.get("data_roots", ()), ""
    if config is None:
        from .demo import DEMO_TEXT, demo

        paths = demo()
        config, models, about = paths.config, paths.models, DEMO_TEXT
        roots = (*roots, str(paths.store)) if roots else ()
    session = Session(data_roots=tuple(roots))
    filled = session.attempt(_fill, session, config, models)
    begin = functools.partial(session.attempt, session.begin) if filled else None
    return Workbench(session=session, about=about, begin=begin)


def _fill(session: Any, config: Any, models: Any) -> bool:
    session.set_config(AnalysisConfig.read(config))
    if models is not None:
        session.set_models(Models.read(models))
    session.history.clear()
    return True


def _settings(config: Any, models: Any, data_roots: Sequence[Any]) -> dict[str, Any]:
    """What kernels are told, after a look at the files, so that a mistake is reported here."""
    settings: dict[str, Any] = {}
    if config is None and models is not None:
        raise InputError(f"{models}: models need a configuration too")
    if config is not None:
        AnalysisConfig.read(config).check_supported()
        settings["config"] = str(Path(config).expanduser().resolve())
    if models is not None:
        Models.read(models)
        settings["models"] = str(Path(models).expanduser().resolve())
    for root in data_roots:
        if not Path(root).expanduser().is_dir():
            raise ConfigError(f"--data-root: {str(root)!r} is not a folder")
    settings["data_roots"] = [str(Path(root).expanduser().resolve()) for root in data_roots]
    return settings


def _prepare(folder: Path, settings: dict[str, Any]) -> Path:
    """Write the notebook that Voila renders and a kernel of this very interpreter."""
    cell: dict[str, Any] = {
        "cell_type": "code",
        "execution_count": None,
        "id": "workbench",
        "metadata": {},
        "outputs": [],
        "source": "from imgfit_widgets.app.serve import workbench\n\nworkbench()",
    }
    kernel = {"name": "imgfit", "display_name": "imgfit", "language": "python"}
    metadata = {"kernelspec": kernel, "title": "imgfit workbench"}
    notebook = {"cells": [cell], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    path = folder / "workbench.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf-8")
    launcher = [sys.executable, "-m", "ipykernel_launcher"]
    spec = {
        "argv": [*launcher, "-f", "{connection_file}", "--log-level=40"],
        "display_name": "imgfit",
        "language": "python",
    }
    place = folder / "share" / "kernels" / "imgfit"
    place.mkdir(parents=True)
    (place / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    searched = [str(folder / "share"), str(TEMPLATE_ROOT), os.environ.get("JUPYTER_PATH", "")]
    os.environ["JUPYTER_PATH"] = os.pathsep.join(part for part in searched if part)
    os.environ[ENVIRONMENT] = json.dumps(settings)
    return path


def _voila_config(port: int, open_browser: bool) -> dict[str, dict[str, Any]]:
    """Voila's settings."""
    return {
        "Voila": {
            "port": port,
            "port_retries": 0,
            "ip": "localhost",
            "open_browser": open_browser,
            "log_level": logging.ERROR,
            "kernel_websocket_connection_class": "imgfit_widgets.app.connection.PromptConnection",
            "config_file_paths": [],  # nobody's settings for other dashboards
        },
        "VoilaConfiguration": {
            "template": TEMPLATE,
            "theme": "light",
            "allow_template_override": "NO",
            "allow_theme_override": "NO",
            "file_allowlist": [],
            "show_tracebacks": False,
            "extension_allowlist": list(EXTENSIONS),
            "preheat_kernel": True,
            "default_pool_size": 1,
        },
        # A new kernel for the next visitor waits until the page of this one is there.
        "VoilaKernelManager": {"fill_delay": 8.0},
        "MappingKernelManager": {
            "cull_interval": 60,
            "cull_idle_timeout": IDLE_SECONDS,
            "cull_connected": False,
        },
    }


def _free_port(port: int | None) -> int:
    """The port asked for, if it is free, or the first free one."""
    for candidate in [port] if port else range(FIRST_PORT, FIRST_PORT + 50):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("localhost", candidate))
            except (OSError, OverflowError):
                continue
            return candidate
    if port:
        raise InputError(f"--port: {port} cannot be used; it is taken or not allowed")
    raise ImgfitError(f"no free port between {FIRST_PORT} and {FIRST_PORT + 49}")
