"""Every notebook runs from top to bottom in a kernel of its own, and is stored without output."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import ipywidgets
import nbformat
import pytest
from nbclient import NotebookClient

from imgfit_widgets.core.models import (
    GaussianSpatialModel,
    Models,
    PowerLawSpectralModel,
    SkyModel,
)

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
NAMES = ("quickstart", "modeling_2d", "reduction", "dashboard", "compose", "inference")


def test_the_notebooks_are_the_ones_that_are_promised():
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_notebook_is_stored_without_output(name):
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.parametrize("name", NAMES)
def test_notebook_runs(name, gammapy_data, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("GAMMAPY_DATA", str(gammapy_data))
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    streams = [
        output.text
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stderr"
    ]
    assert not [text for text in streams if "Traceback" in text or "Warning" in text]
    shown = {
        mime
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        for mime in output.get("data", {})
    }
    assert "application/vnd.jupyter.widget-view+json" in shown


def test_quickstart_takes_five_cells_to_a_fitted_source():
    notebook = nbformat.read(NOTEBOOKS / "quickstart.ipynb", as_version=4)
    assert sum(cell.cell_type == "code" for cell in notebook.cells) == 5


def test_compose_links_panels_in_ten_lines():
    notebook = nbformat.read(NOTEBOOKS / "compose.ipynb", as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert sum(bool(line.strip()) for line in first.source.splitlines()) <= 10


def test_the_slider_of_compose_leaves_a_fitted_value_as_it_is():
    """A page rounds what a slider is given to its steps, and sends that back."""
    notebook = nbformat.read(NOTEBOOKS / "compose.ipynb", as_version=4)
    source = [cell.source for cell in notebook.cells if cell.cell_type == "code"][1]
    models = [
        SkyModel(PowerLawSpectralModel(), GaussianSpatialModel(sigma="0.1893123 deg"), name)
        for name in ("a", "b")
    ]
    names = {"widgets": ipywidgets, "session": SimpleNamespace(models=Models(models))}
    exec(source, names)
    slider, sigma = names["slider"], names["sigma"]
    assert slider.value == sigma.value
    slider.value = 0.19
    assert sigma.value != 0.19, "what the page sent back"
    slider.value = 0.25
    assert sigma.value == 0.25, "what the hand did"
    sigma.value = 0.1312345
    assert slider.value == sigma.value
