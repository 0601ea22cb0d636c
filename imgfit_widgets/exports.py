"""What goes out of a session: a file name and the file's content, as a page offers downloads."""

from __future__ import annotations

from pathlib import Path

from . import session_files as files
from .core.models.regions import models_to_regions
from .state import State


class Exports(State):
    """A `State` and what can be downloaded of it; nothing here changes it."""

    def export_session(self) -> tuple[str, bytes]:
        """What `open` takes back: configuration, models and view."""
        asked = (self.geometry, self.skip_failed, self.search_radius)
        return files.export_session(
            files.Saved(self.config, self.models, self.view, self.selected, *asked)
        )

    def export_config(self) -> tuple[str, bytes]:
        """The configuration as YAML."""
        return "config.yaml", self.config.to_yaml().encode()

    def export_models(self) -> tuple[str, bytes]:
        """The models as YAML."""
        return "models.yaml", self.models.to_yaml().encode()

    def export_regions(self) -> tuple[str, bytes]:
        """The outlines of the sources as DS9 regions."""
        regions = models_to_regions(self.models)
        return "sources.reg", str(regions.serialize(format="ds9")).encode()

    def export_dataset(self) -> tuple[str, bytes]:
        """The displayed dataset as FITS."""
        return files.export_dataset(self._dataset("export_dataset"))

    def export_results(self, form: str = "json") -> tuple[str, bytes]:
        """The fit result ("json") or the parameter table ("ecsv")."""
        return files.export_results(self.fit_result, self.models, form)

    def save(self, path: str | Path) -> None:
        """Write a session file."""
        files.write_bytes(path, self.export_session()[1])
