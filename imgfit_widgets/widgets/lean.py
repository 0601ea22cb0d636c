"""The widgets of ipywidgets, so that hundreds of them cost a page little.

Each widget of ipywidgets brings a layout and mostly a style along, which are widgets of their own
that the page must be told of, and each CSS class that is added later is a further message. These
share layout and style, have their classes from the start, and are a third of the messages. What
they look like is for the style sheet to say; `mark` and `show` switch it.

A shared layout cannot be changed; a widget that needs its own is given one:
``widget.layout = {"width": "80px"}``.
"""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets
from IPython.core.getipython import get_ipython

HIDDEN = "imgfit-hidden"


class _Shared:
    """Mixin of a layout or style that many widgets have: it stays as it was made."""

    _made = False

    def __setattr__(self, name: str, value: object) -> None:
        if self._made and name in self.keys:  # type: ignore[attr-defined]
            kind = type(self).__name__
            raise AttributeError(
                f"{name}: this {kind} belongs to many widgets; give the widget a {kind} of its own"
            )
        super().__setattr__(name, value)


_shared: dict[type, Any] = {}


def shared(kind: type) -> Any:
    """The layout, style or style sheet of a class that widgets have in common."""
    known = _shared.get(kind)
    if known is None or known.comm is None:  # not made yet, or closed with all widgets
        keep_messages()
        known = _shared[kind] = type(kind.__name__, (_Shared, kind), {})()
        known._made = True
    return known


def keep_messages() -> None:
    """Have the kernel keep all that it tells the page until the server has taken it.

    By default ZeroMQ drops what comes after a thousand messages that wait, which some hundred
    widgets made at once are, on a busy machine. The page would then miss widgets for good.
    """
    thread = getattr(getattr(get_ipython(), "kernel", None), "iopub_thread", None)
    if getattr(thread, "socket", None) is not None:
        import zmq

        thread.schedule(lambda: thread.socket.setsockopt(zmq.SNDHWM, 0))  # type: ignore[union-attr]


class Lean:
    """Mixin: CSS classes from the start, layout and style shared unless they are given.

    ``classes`` are CSS classes, separated by blanks.
    """

    def __init__(self, *args: Any, classes: str = "", **traits: Any) -> None:
        for name in ("layout", "style"):
            trait = self.traits().get(name)  # type: ignore[attr-defined]
            if trait is not None and name not in traits:
                traits[name] = shared(trait.klass)
        traits["_dom_classes"] = tuple(classes.split())
        super().__init__(*args, **traits)


class Box(Lean, widgets.Box):
    """Widgets together."""


class HBox(Lean, widgets.HBox):
    """Widgets side by side."""


class VBox(Lean, widgets.VBox):
    """Widgets one under the other."""


class HTML(Lean, widgets.HTML):
    """Text in HTML."""


class Image(Lean, widgets.Image):
    """A picture."""


class Button(Lean, widgets.Button):
    """A button."""


class ToggleButton(Lean, widgets.ToggleButton):
    """A button that stays down."""


class ToggleButtons(Lean, widgets.ToggleButtons):
    """Buttons of which one is down."""


class Checkbox(Lean, widgets.Checkbox):
    """A box to tick."""


class Dropdown(Lean, widgets.Dropdown):
    """One of a list."""


class SelectMultiple(Lean, widgets.SelectMultiple):
    """Some of a list."""


class Text(Lean, widgets.Text):
    """A line of text."""


class Textarea(Lean, widgets.Textarea):
    """Lines of text."""


class FloatText(Lean, widgets.FloatText):
    """A number."""


class BoundedFloatText(Lean, widgets.BoundedFloatText):
    """A number within bounds."""


class FloatRangeSlider(Lean, widgets.FloatRangeSlider):
    """Two numbers on a scale."""


class FileUpload(Lean, widgets.FileUpload):
    """A file of the visitor's."""


def mark(widget: widgets.DOMWidget, name: str, on: object = True) -> None:
    """Give a widget a CSS class, or take it away."""
    if bool(on) != (name in widget._dom_classes):
        (widget.add_class if on else widget.remove_class)(name)


def show(widget: widgets.DOMWidget, visible: object = True) -> None:
    """Show a widget, or take it out of the page's layout."""
    mark(widget, HIDDEN, not visible)


def is_shown(widget: widgets.DOMWidget) -> bool:
    """Whether a widget is in the page's layout, as far as it goes by itself."""
    return HIDDEN not in widget._dom_classes
