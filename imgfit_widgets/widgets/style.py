"""How panels look: the style sheet, and the few building blocks that all panels are made of.

`Panel` is the base of every panel: it brings the style sheet along, so that a single panel looks
right in a page of one's own. Colours and spacing live in the ``*.css`` files beside this module.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from typing import Any

import ipywidgets as widgets

from ..core.errors import ImgfitError, InputError
from ..core.models import Models
from ..session import Session
from ..task import Owner
from . import lean

SOURCE_COLOURS = (
    *("#22d3ee", "#facc15", "#4ade80", "#f472b6", "#fb923c", "#a78bfa", "#f87171", "#2dd4bf"),
)
"""Colours of sources, the same in the list and on the maps; bright enough for dark maps."""
RETIRED = 60.0
"""Seconds for which widgets live on that are shown no more, by when a page has loaded."""


@cache
def style_text() -> str:
    """All style sheets of the package, as one text."""
    folder = resources.files(__package__ or __name__)
    sheets = sorted(
        (item for item in folder.iterdir() if item.name.endswith(".css")),
        key=lambda item: (item.name != "style.css", item.name),
    )
    return "\n".join(sheet.read_text(encoding="utf-8") for sheet in sheets)


class StyleSheet(lean.HTML):
    """An invisible widget that brings the style sheet into a page; all panels share one.

    And ``page.js``, which runs when the style is loaded: the one way to the page that widgets have
    in JupyterLab without an extension of its own.
    """

    def __init__(self) -> None:
        script = (resources.files(__package__ or __name__) / "page.js").read_text(encoding="utf-8")
        load = html.escape(script, quote=True)
        super().__init__(f'<style onload="{load}">{style_text()}</style>', classes="imgfit-style")


class Panel(lean.VBox):
    """Base of panels: a column of widgets around one session.

    Parameters
    ----------
    session : Session
    children : sequence of Widget
    classes : str
        CSS classes beside ``imgfit``, separated by blanks.
    """

    def __init__(
        self, session: Session, children: Sequence[widgets.Widget] = (), classes: str = ""
    ) -> None:
        self.session = session
        # A layout of its own, as it is what users put into their pages and give a size.
        layout = widgets.Layout()
        super().__init__(
            [lean.shared(StyleSheet), *children], classes=f"imgfit {classes}", layout=layout
        )


def source_colour(models: Models, name: str) -> str:
    """The colour of a source: by its place among the sources."""
    names = [model.name for model in models.sky_models]
    return SOURCE_COLOURS[names.index(name) % len(SOURCE_COLOURS)] if name in names else "#94a3b8"


def escape(text: object) -> str:
    """Text that is safe in HTML."""
    return html.escape(str(text))


def text(value: str = "", classes: str = "") -> widgets.HTML:
    """An HTML widget with CSS classes."""
    return lean.HTML(value, classes=f"imgfit-text {classes}")


def button(label: str, tooltip: str = "", classes: str = "", **traits: Any) -> widgets.Button:
    """A button; ``classes`` such as imgfit-primary or imgfit-quiet give its look."""
    classes = f"imgfit-button {classes}"
    return lean.Button(description=label, tooltip=tooltip, classes=classes, **traits)


def row(*children: widgets.Widget, classes: str = "") -> widgets.HBox:
    """Widgets side by side."""
    return lean.HBox(children, classes=f"imgfit-row {classes}")


def retire(owner: Owner, old: Sequence[widgets.Widget]) -> None:
    """Close widgets that were taken out of the page, with all that is in them.

    Not at once: a page that is loading has them on its list still, and would miss them.
    """

    def close(some: Sequence[widgets.Widget]) -> None:
        for widget in some:
            close(getattr(widget, "children", ()))
            widget.close()

    if old:
        owner.soon(lambda: close(old), RETIRED)


def card_head(title: str, *controls: widgets.Widget) -> widgets.HBox:
    """The head of a card: its title at the left, controls at the right."""
    return row(text(f"<h3>{escape(title)}</h3>"), *controls, classes="imgfit-card-head")


def switch(options: Sequence[str], tooltips: Sequence[str] = ()) -> widgets.ToggleButtons:
    """A small switch between views of one card."""
    return lean.ToggleButtons(
        options=list(options), tooltips=list(tooltips), classes="imgfit-switch"
    )


def download_link(name: str, content: bytes, label: str, mime: str = "text/plain") -> str:
    """A link that holds the file itself, since a dashboard may not serve files."""
    data = base64.b64encode(content).decode()
    return (
        f'<a class="imgfit-download" download="{escape(name)}" title="Download {escape(name)}" '
        f'href="data:{mime};base64,{data}">{escape(label)}</a>'
    )


def size_text(n_bytes: int) -> str:
    """``1234567`` → "1.2 MB"."""
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e5 else f"{max(n_bytes / 1e3, 0.1):.1f} kB"


def upload_button(label: str, accept: str) -> widgets.FileUpload:
    """A button that opens a file; the style sheet shows its title instead of a file count."""
    return lean.FileUpload(
        accept=accept,
        description=label,
        tooltip=label,
        icon="",
        classes="imgfit-button imgfit-upload",
    )


def on_upload(
    upload: widgets.FileUpload,
    session: Session,
    take: Callable[[Any], object],
    binary: bool = False,
) -> None:
    """Have ``take`` called with the content of each file that is opened, as text or as bytes.

    Errors name the file.
    """

    def opened(change: Any) -> None:
        if change.new:
            file = change.new[-1]
            upload.value = ()  # or the same file could not be opened once more
            session.owner(lambda: session.attempt(read, str(file["name"]), bytes(file["content"])))

    def read(name: str, content: bytes) -> None:
        try:
            take(content if binary else _text_of(content))
        except ImgfitError as error:
            raise type(error)(f"{name}: {error}") from error

    upload.observe(opened, "value")


def _text_of(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"byte {error.start} is {content[error.start]:#04x}; expected text in UTF-8"
        ) from None
