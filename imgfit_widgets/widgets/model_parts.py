"""The choices above the parameters: which spectrum, which shape, in which frame and datasets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..changes import SOURCE_SPECTRA, shape_of
from ..core.models import SPATIAL_MODELS, SkyModel
from ..core.models.spatial import FRAMES
from ..session import Session
from . import lean
from .lean import mark, show
from .style import escape, row, text

SHAPE_WORDS = {
    "point": "Point",
    "gauss": "Gaussian",
    "disk": "Disk",
    "shell": "Shell, inner radius",
    "shell2": "Shell, outer radius",
    "gauss-general": "Generalised Gaussian",
    "template": "Image from a file",
    "const": "Flat, everywhere",
}
SPECTRUM_WORDS = {
    "pl": "Power law",
    "pl-2": "Power law, flux in a band",
    "ecpl": "Power law with cutoff",
    "lp": "Log parabola",
    "const": "Constant",
    "template": "Table",
}


def choices(kinds: Sequence[Any], words: dict[str, str]) -> list[tuple[str, str]]:
    """Words and tag of each model class, for a select: ``("Gaussian (gauss)", "gauss")``."""
    tags = [cls.tag[-1] for cls in kinds]
    return [(f"{words.get(tag, tag)} ({tag})", tag) for tag in tags]


class Choice(lean.VBox):
    """A select for a part of the source in the table; what is refused is explained below it."""

    def __init__(
        self, session: Session, title: str, kinds: Sequence[Any], words: dict[str, str], css: str
    ) -> None:
        self.session, self._source, self._following = session, "", False
        self.kinds = {cls.tag[-1]: cls for cls in kinds}
        self.select = lean.Dropdown(options=choices(kinds, words), classes=css)
        self.refusal = text(classes="imgfit-field-error")
        self.line = row(text(f"<b>{title}</b>"), self.select, classes="imgfit-part")
        super().__init__([self.line, self.refusal])
        self.select.observe(self._chosen, "value")
        self.refuse("")

    def follow(self, model: SkyModel) -> None:
        """Show a source."""
        self._following = True
        self._source = model.name
        self.show_model(model)
        self._following = False
        self.refuse("")

    def show_model(self, model: SkyModel) -> None:
        """Bring the inputs to a source."""
        raise NotImplementedError

    def choose(self, tag: str) -> None:
        """Give the source what was chosen."""
        raise NotImplementedError

    def call(self, verb: Any, *args: Any) -> None:
        """Call a verb for the source; what is refused is explained here and taken back."""
        self.session.attempt(verb, self._source, *args)
        error = self.session.error
        if error and self._source in self.session.models.names:
            self.follow(self.session.models[self._source])
        self.refuse(error)

    def refuse(self, reason: str) -> None:
        """Say why something was refused."""
        self.refusal.value = escape(reason)
        show(self.refusal, bool(reason))

    def show_tag(self, tag: str) -> None:
        """Show what the source has."""
        self.select.value = tag
        document = (self.kinds[tag].__doc__ or "").strip().split("\n\n")[0]
        self.select.tooltip = " ".join(document.replace("`", "").split())

    def _chosen(self, change: Any) -> None:
        if not self._following:
            self.session.owner(lambda: self.choose(change.new))


class SpectrumChoice(Choice):
    """The spectral model of a source."""

    def __init__(self, session: Session) -> None:
        super().__init__(session, "Spectrum", SOURCE_SPECTRA, SPECTRUM_WORDS, "imgfit-spectrum")

    def show_model(self, model: SkyModel) -> None:
        self.show_tag(model.spectral_model.tag[-1])

    def choose(self, tag: str) -> None:
        self.call(self.session.set_spectrum, tag)


class ShapeChoice(Choice):
    """The spatial model of a source, the frame of its position, and the image of a template."""

    def __init__(self, session: Session) -> None:
        super().__init__(session, "Shape", SPATIAL_MODELS, SHAPE_WORDS, "imgfit-shape")
        self.frame = lean.Dropdown(
            options=list(FRAMES), tooltip="Frame of the position and of phi", classes="imgfit-frame"
        )
        self.path = lean.Text(
            placeholder="path of a FITS image",
            tooltip="The image whose brightness is the shape",
            continuous_update=False,
            classes="imgfit-template-path",
        )
        self.line.children = [*self.line.children, self.frame]
        self.children = [self.line, self.path, self.refusal]
        show(self.path, False)
        self.frame.observe(self._frame_chosen, "value")
        self.path.observe(self._path_entered, "value")

    def show_model(self, model: SkyModel) -> None:
        shape = model.spatial_model
        self.show_tag(shape.tag[-1])
        self.frame.value = model.frame
        self.frame.disabled = shape.needs_file
        show(self.frame, shape.has_position)
        self.path.value = str(getattr(shape, "filename", None) or "")
        show(self.path, shape.needs_file)

    def choose(self, tag: str) -> None:
        if shape_of(tag).needs_file:
            show(self.path, True)
            self.refuse("")
            if not self.path.value:
                return
            self.call(self.session.set_shape, tag, self.path.value)
        else:
            self.call(self.session.set_shape, tag)

    def _frame_chosen(self, change: Any) -> None:
        if not self._following:
            self.session.owner(lambda: self.call(self.session.set_frame, change.new))

    def _path_entered(self, change: Any) -> None:
        if not self._following and change.new.strip():
            self.session.owner(lambda: self._read(change.new.strip()))

    def _read(self, path: str) -> None:
        """Take an image; a path that cannot be used stays in its field, to be mended."""
        tag, session = self.select.value, self.session
        session.attempt(session.set_shape, self._source, tag, path)
        self.refuse(session.error)
        mark(self.path, "imgfit-invalid", session.error)


class DatasetsChoice(lean.VBox):
    """Which datasets the source in the table is in; shown where there are several."""

    def __init__(self, session: Session) -> None:
        self.session, self._source, self._following = session, "", False
        self.select = lean.SelectMultiple(
            tooltip="Datasets that contain the source; Ctrl or Shift chooses several",
            classes="imgfit-datasets-names",
        )
        label = text("datasets", "imgfit-cell-name")
        super().__init__([row(label, self.select, classes="imgfit-rename")])
        self.select.observe(self._chosen, "value")

    def follow(self, model: Any) -> None:
        """Show a source; nothing is shown of a background."""
        names = self.session.datasets.names if self.session.datasets is not None else []
        visible = isinstance(model, SkyModel) and len(names) > 1
        show(self, visible)
        if not visible:
            return
        self._following = True
        self._source = model.name
        if tuple(self.select.options) != tuple(names):
            self.select.options = names
            self.select.rows = min(len(names), 4)
        self.select.value = tuple(name for name in names if model.applies_to(name))
        self._following = False

    def _chosen(self, change: Any) -> None:
        if not self._following:
            self.session.owner(lambda: self._apply(change.new))

    def _apply(self, names: tuple[str, ...]) -> None:
        session = self.session
        session.attempt(session.set_datasets_names, self._source, names)
        if session.error:
            self.follow(session.models[self._source])
