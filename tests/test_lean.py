"""What widgets cost a page: few messages, none of which is lost."""

from __future__ import annotations

import json
from collections import Counter

import ipywidgets
import pytest
from comm import DummyComm
from jupyter_client.manager import start_new_kernel

from imgfit_widgets.widgets import lean
from imgfit_widgets.widgets.workbench import Workbench

FLOOD = """
from imgfit_widgets.widgets import lean

many = [lean.HTML("x" * 40_000) for _ in range(2500)]
print([widget.comm.comm_id for widget in many])
"""


@pytest.fixture
def told(monkeypatch):
    """Kind and content of all messages of widgets, as they come."""
    messages = []

    def note(self, kind, data=None, metadata=None, buffers=None, **keys):
        messages.append((kind, data))

    monkeypatch.setattr(DummyComm, "publish_msg", note)
    return messages


def test_a_kernel_keeps_what_a_slow_server_has_not_taken_yet():
    """More than ZeroMQ and the network hold together, told while nobody listens."""
    manager, client = start_new_kernel()
    try:
        asked = client.execute(FLOOD)
        client.get_shell_msg(timeout=120)  # by now all has been told
        opened, printed = set(), ""
        while True:
            message = client.get_iopub_msg(timeout=20)
            if message["parent_header"].get("msg_id") != asked:
                continue
            if message["msg_type"] == "comm_open":
                opened.add(message["content"]["comm_id"])
            elif message["msg_type"] == "stream":
                printed += message["content"]["text"]
            elif message["content"].get("execution_state") == "idle":
                break
        told = json.loads(printed.replace("'", '"'))
        assert len(told) == 2500
        assert [name for name in told if name not in opened] == []
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_the_workbench_is_told_in_few_messages(told):
    """They were 3600 while each widget had its own layout and style, and its classes later."""
    workbench = Workbench()
    assert workbench.config_editor.rows
    kinds = Counter(kind for kind, _ in told)
    assert kinds["comm_open"] < 1000 and kinds["comm_msg"] < 350
    sheets = [data for _, data in told if "<style" in str(data["state"].get("value"))]
    assert len(sheets) <= 1


def test_widgets_have_their_classes_from_the_start_and_share_the_rest(told):
    first, second = (lean.Button(description=word, classes="imgfit-a imgfit-b") for word in "xy")
    opened = [data["state"] for kind, data in told if data["state"]["_model_name"] == "ButtonModel"]
    assert [state["_dom_classes"] for state in opened] == [("imgfit-a", "imgfit-b")] * 2
    assert {kind for kind, _ in told} == {"comm_open"}
    assert first.layout is second.layout and first.style is second.style


def test_what_is_shared_stays_as_it_is():
    first, second = lean.HTML("a"), lean.HTML("b")
    with pytest.raises(AttributeError, match="width: this Layout belongs to many widgets"):
        first.layout.width = "80px"
    with pytest.raises(AttributeError, match="background: this HTMLStyle belongs to many widgets"):
        first.style.background = "red"
    first.layout = {"width": "80px"}
    first.layout.height = "20px"
    assert (first.layout.width, second.layout.width) == ("80px", None)
    given = lean.HTML("c", layout={"width": "1em"})
    given.layout.width = "2em"
    assert second.layout.width is None


def test_widgets_are_made_after_all_others_were_closed():
    gone = lean.HTML("a").layout
    ipywidgets.Widget.close_all()
    after = lean.HTML("b").layout
    assert gone.comm is None and after.comm is not None


def test_marks_and_what_is_shown(told):
    widget = lean.HTML("a")
    del told[:]
    lean.show(widget)
    lean.mark(widget, "imgfit-a", None)
    assert told == [] and lean.is_shown(widget), "nothing changed, nothing is told"
    lean.show(widget, False)
    lean.mark(widget, "imgfit-a")
    assert not lean.is_shown(widget) and len(told) == 2
    lean.show(widget)
    assert lean.is_shown(widget) and widget._dom_classes == ("imgfit-a",)
