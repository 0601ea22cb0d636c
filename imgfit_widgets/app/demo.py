"""The demo: a simulated field, made once and kept in the user's cache.

`demo` gives its files within a second or so, the first time as well; `DEMO_TEXT` says what one
sees on it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..core.progress import Progress, silent
from ..core.simulate import (
    SOURCES,
    VERSION,
    demo_config,
    models_yaml,
    simulate_store,
)

DEMO_TEXT = (
    "This is a simulated field on the Galactic plane at l = 30°, seen in four pointings of half an "
    "hour: 48,000 events between 0.5 and 50 TeV, nearly all of them background of cosmic rays. "
    "Three sources are hidden in it: a bright point at the upper left, an extended one to the "
    "right of the centre, and a faint one. The models start with the first two, roughly placed; "
    "press Fit, then look for the third in the residual map and put a source on it."
)


@dataclass(frozen=True)
class DemoPaths:
    """Where the demo's files are.

    Parameters
    ----------
    config : Path
        The configuration, which names the store by its absolute path.
    models : Path
        The bright and the extended source, roughly placed.
    truth : Path
        What was simulated, as a models file.
    store : Path
        The DL3 store.
    """

    config: Path
    models: Path
    truth: Path
    store: Path


def demo(seed: int = 0, progress: Progress = silent) -> DemoPaths:
    """Give the files of the demo, simulated on the first call.

    They lie in ``$XDG_CACHE_HOME/imgfit_widgets`` (by default ``~/.cache``), or, where that cannot
    be written, in a folder of this user for temporary files.

    Raises
    ------
    DataError
        Neither folder can be written.
    """
    store = _cache() / f"demo-{VERSION}-{seed}"
    paths = DemoPaths(store / "demo.yaml", store / "demo-models.yaml", store / "truth.yaml", store)
    if not store.is_dir():
        # Built aside and moved at once, so that nobody ever sees half of it.
        fresh = Path(tempfile.mkdtemp(prefix="demo-", dir=store.parent))
        try:
            simulate_store(fresh, seed, progress)
            demo_config(store).write(fresh / paths.config.name)
            start = models_yaml(SOURCES[:2], start=True)
            (fresh / paths.models.name).write_text(start, encoding="utf-8")
            fresh.chmod(0o755)
            fresh.rename(store)
        except OSError:
            if not store.is_dir():  # else another process was faster
                raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return paths


def _cache() -> Path:
    """The first folder that can be written."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = cache / "imgfit_widgets"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder.resolve()
    except (OSError, RuntimeError):
        pass
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    folder = Path(tempfile.gettempdir()) / f"imgfit_widgets-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder.resolve()
