"""Options of the methods as typed fields, and the projection of the maps.

In the file, options are a free mapping, ``parameters``. `OptionsForm` shows it as the section that
core/options.py makes of it: an edit writes the mapping, without what is at its default; a mapping
from elsewhere is shown. Only what the chosen methods use is seen.
"""

from __future__ import annotations

from typing import Any

from traitlets import Unicode, observe

from ..core.errors import ConfigError, ImgfitError
from ..core.fields import Field, Section
from ..core.options import FoVBackgroundOptions, RingOptions, SafeMaskOptions
from ..reducing import check_geometry
from ..session import Session
from . import lean
from .config_fields import FieldEditor, FormRow
from .lean import mark, show
from .style import escape, row, text

LIKE_IMAGE = "like a FITS image"


class OptionsForm(lean.VBox):
    """The mapping ``parameters`` of a section as fields of ``options``.

    Parameters
    ----------
    session : Session
    owner : Section
        Whose mapping is edited.
    options : Section
        What the mapping means.
    lines : dict of str to tuple of str
        Labels, and the names of the options on each line.
    """

    def __init__(
        self, session: Session, owner: Section, options: Section, lines: dict[str, tuple[str, ...]]
    ) -> None:
        self.session, self.owner, self.section = session, owner, options
        self._own = False
        known = {field.path.removeprefix(f"{options.path}."): field for field in options.fields()}
        self.rows = [
            FormRow(session, label, [known[name] for name in names])
            for label, names in lines.items()
        ]
        self.uses = dict(zip(self.rows, lines.values(), strict=True))
        for line in self.rows:
            for editor in line.editors:
                editor.apply = self._setter(editor.field)
        super().__init__(self.rows, classes="imgfit-options")
        owner.observe(self.show_mapping, "parameters")
        self.show_mapping()

    def _setter(self, field: Field) -> Any:
        def apply(value: Any) -> None:
            field.set(value)
            self._write()

        return apply

    def _write(self) -> None:
        """Put what is not at its default into the mapping; keys that are not known stay in it."""
        known = self.section.keys()
        kept = {k: v for k, v in self.owner.parameters.items() if k not in known}
        data, default = self.section.to_dict(), type(self.section)().to_dict()
        set_ = {key: value for key, value in data.items() if value != default[key]}
        for key, value in set_.items():
            if isinstance(value, dict):
                set_[key] = {name: item for name, item in value.items() if item is not None}
        self._own = True
        try:
            self.owner.parameters = {**kept, **set_}
        finally:
            self._own = False

    def show_mapping(self, change: object = None) -> None:
        """Show the mapping; what it holds that is refused is said at its field."""
        if self._own:
            return
        refused, known = {}, self.section.keys()
        self.section.take(type(self.section)())
        for key, value in self.owner.parameters.items():
            if key in known:
                try:
                    self.section.fill({key: value})
                except ConfigError as error:
                    refused[key] = str(error)
        for line in self.rows:
            for editor in line.editors:
                reason = refused.get(editor.field.path.removeprefix(f"{self.section.path}."))
                if reason:
                    editor.message = reason.removeprefix(f"{editor.field.path}: ")

    def reveal(self, names: set[str]) -> None:
        """Show only the lines of these options."""
        for line, used in self.uses.items():
            seen = bool(set(used) & names)
            show(line, seen)
            for editor in [] if seen else line.editors:
                editor.show()  # what was refused there must not hold a reduction up


class BackgroundOptions(lean.VBox):
    """The options of the background method that is chosen."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.background = background = session.config.datasets.background
        fov = FoVBackgroundOptions(background, "parameters")
        self.forms = {
            "fov_background": OptionsForm(
                session, background, fov,
                {
                    "Norm by": ("method",),
                    "Min. counts": ("min_counts",),
                    "Min. npred": ("min_npred_background",),
                },
            ),
            "ring": OptionsForm(
                session, background, RingOptions(background, "parameters"),
                {
                    "Inner radius": ("r_in",),
                    "Ring width": ("width",),
                    "Grow up to": ("r_out_max",),
                    "Step": ("stepsize",),
                    "Below α": ("threshold_alpha",),
                    "On radius": ("theta",),
                    "When it grows": ("method",),
                },
            ),
        }  # fmt: skip
        super().__init__(list(self.forms.values()))
        background.observe(self._reveal, ["method", "parameters"])
        self._reveal()

    @property
    def rows(self) -> list[FormRow]:
        """The lines of all methods."""
        return [line for form in self.forms.values() for line in form.rows]

    def watch(self, editor: FieldEditor) -> None:
        """Let the choice of a method drop the options of the one before, in one gesture."""

        def apply(value: Any) -> None:
            editor.field.set(value)
            form = self.forms.get(self.background.method or "")
            names = form.section.keys() if form else []
            keep = {k: v for k, v in self.background.parameters.items() if k in names}
            # A word such as "scale" for a ring's method is of the other one.
            keep.pop("method", None)
            self.background.parameters = keep
            self.show_mapping()

        editor.apply = apply

    def show_mapping(self) -> None:
        """Show what the mappings hold in place of what was typed."""
        for form in self.forms.values():
            form.show_mapping()

    def _reveal(self, change: object = None) -> None:
        for method, form in self.forms.items():
            show(form, method == self.background.method)
        ring = self.forms["ring"]
        names = {"r_in", "width", "r_out_max"}
        if ring.section.adaptive:
            names |= {"stepsize", "threshold_alpha", "theta", "method"}
        ring.reveal(names)


class SafeMaskOptionsForm(OptionsForm):
    """The options that the chosen safe masks use."""

    def __init__(self, session: Session) -> None:
        mask = session.config.datasets.safe_mask
        lines = {
            "Max. offset": ("offset_max",),
            "Min. area %": ("aeff_percent",),
            "Max. bias %": ("bias_percent",),
            "Fixed offset": ("fixed_offset",),
            "Taken at": ("position.frame", "position.lon", "position.lat"),
            "Responses": ("irfs",),
        }
        super().__init__(session, mask, SafeMaskOptions(mask, "parameters"), lines)
        mask.observe(self._reveal, "methods")
        self._reveal()

    def _reveal(self, change: object = None) -> None:
        methods, names = self.owner.methods, set()
        if "offset-max" in methods:
            names.add("offset_max")
        for method, name in (("aeff-max", "aeff_percent"), ("edisp-bias", "bias_percent")):
            if method in methods:
                names |= {name, "fixed_offset", "position.frame", "irfs"}
        self.reveal(names)


class ProjectionRow(lean.VBox):
    """How the sky is laid on the map: a projection, or the pixels of a FITS image."""

    message = Unicode()
    """Why the last input was refused; empty when it is right."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.choice = lean.Dropdown(options=["CAR", "TAN", LIKE_IMAGE], classes="imgfit-projection")
        self.path = lean.Text(continuous_update=False, placeholder="path of the image")
        help_ = (
            "CAR: plate carrée. TAN: tangential (gnomonic). Or the pixels of a FITS image, then "
            "frame, centre, size and pixel above are not used.\nKept in the session file; "
            "Gammapy's configuration has no key for it."
        )
        head = text(f'<span title="{escape(help_)}">Projection</span>', "imgfit-label")
        self.path.tooltip = self.choice.tooltip = help_
        self._error = text(classes="imgfit-field-error")
        self._file = row(text("", "imgfit-label"), self.path, classes="imgfit-form-row")
        super().__init__(
            [
                row(head, row(self.choice, classes="imgfit-inputs"), classes="imgfit-form-row"),
                self._file,
                self._error,
            ],
            classes="imgfit-projection-row",
        )
        show(self._error, False)
        session.observe(self.show, "geometry")
        self.choice.observe(lambda _: session.owner(self._chosen), "value")
        self.path.observe(lambda _: session.owner(self._typed), "value")
        self.show()

    def show(self, change: object = None) -> None:
        """Show the geometry of the session."""
        word = self.session.geometry
        if word in self.choice.options:
            self.choice.value = word
        else:
            self.choice.value, self.path.value = LIKE_IMAGE, word
        self.message = ""
        self._shape()

    def _shape(self) -> None:
        show(self._file, self.choice.value == LIKE_IMAGE)

    def _chosen(self) -> None:
        self._shape()
        if self.choice.value == LIKE_IMAGE:
            self._typed()
        else:
            self._take(self.choice.value)

    def _typed(self) -> None:
        if self.choice.value != LIKE_IMAGE:
            return
        if self.path.value.strip():
            self._take(self.path.value)
        else:
            self.message = f"type the path of the image. Still {self.session.geometry}."

    def _take(self, word: str) -> None:
        try:
            geometry = check_geometry(word, self.session.data_roots)
        except ImgfitError as error:
            reason = str(error).removeprefix("geometry: ")
            self.message = f"{reason}. Still {self.session.geometry}."
            return
        self.message = ""
        self.session.geometry = geometry

    @observe("message")
    def _mark(self, change: Any) -> None:
        mark(self.path, "imgfit-invalid", change.new)
        self._error.value = escape(change.new)
        show(self._error, bool(change.new))
