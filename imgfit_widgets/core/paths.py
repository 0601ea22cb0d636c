"""Paths as users write them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .errors import ConfigError


def expand_path(path: str | os.PathLike[str], where: str) -> Path:
    """A path with ``~`` and ``$VARIABLES`` filled in.

    Raises
    ------
    ConfigError
        If a variable is not set; the message starts with ``where``.
    """
    text = os.path.expandvars(os.fspath(path))
    unset = re.search(r"\$(\w+|\{\w+\})", text)
    if unset:
        name = unset.group(1).strip("{}")
        raise ConfigError(f"{where}: {str(path)!r}: the environment variable {name} is not set")
    return Path(text).expanduser()
