"""The notebooks in JupyterLab: run all cells, then work with the widgets that they show."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from browser import Server, lab_command, launched, run_all_cells, running, until, visit
from playwright.sync_api import Browser

from imgfit_widgets.core.dataset import Datasets
from imgfit_widgets.core.fit import Fit
from imgfit_widgets.core.models import FoVBackgroundModel, Models

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with launched(chromium) as browser:
        yield browser


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, gammapy_data: Path, reference: Path):
    """A JupyterLab on copies of the quickstart and of a notebook with the tutorial's data."""
    folder = tmp_path_factory.mktemp("lab")
    notebooks = folder / "notebooks"
    notebooks.mkdir()
    quickstart = (NOTEBOOKS / "quickstart.ipynb").read_text(encoding="utf-8")
    (notebooks / "quickstart.ipynb").write_text(quickstart, encoding="utf-8")
    config = reference / "formats" / "A_config_input.yaml"
    cells = [
        "from imgfit_widgets import Workbench",
        f"workbench = Workbench({str(config)!r})\nworkbench.session.reduce()\nworkbench",
    ]
    tutorial = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(tutorial, notebooks / "tutorial.ipynb")
    home = str(folder / "home")
    with running(
        lab_command(notebooks),
        GAMMAPY_DATA=str(gammapy_data),
        JUPYTER_CONFIG_DIR=home,
        JUPYTERLAB_SETTINGS_DIR=home,
        JUPYTERLAB_WORKSPACES_DIR=home,
        IPYTHONDIR=home,
        XDG_CACHE_HOME=home,
    ) as server:
        yield server


@pytest.fixture
def notebook(browser: Browser, lab: Server, request: pytest.FixtureRequest):
    """The notebook of the test's parameter in JupyterLab, its cells run, its maps in sight."""
    with visit(browser, lab, f"/lab/tree/{request.param}.ipynb?reset") as workbench:
        page = workbench.page
        page.set_viewport_size({"width": 1700, "height": 1800})
        run_all_cells(page)
        page.evaluate(
            "() => void window.jupyterapp.commands.execute('application:toggle-left-area')"
        )
        workbench.find(".imgfit-map image").wait_for()
        workbench.find(".imgfit-map").scroll_into_view_if_needed()
        yield workbench


@pytest.mark.parametrize("notebook", ["tutorial"], indirect=True)
def test_the_real_runs_in_jupyterlab(notebook, tutorial, reference):
    notebook.wait_for_maps()
    notebook.add_source(0.0, 0.0)
    assert notebook.parameters("lon_0", "lat_0") == pytest.approx((0, 0), abs=notebook.map.degrees)
    until(notebook.page, lambda: notebook.delta_ts > 100, "a significant source")
    before = notebook.delta_ts
    # A pixel of this map is 0.025 deg; a bit further off, a fit ends in the next valley.
    assert notebook.drag_source(0.1, 0.1) < 0.5 * before
    notebook.fit()

    datasets = Datasets([tutorial.datasets["stacked"]])
    models = Models.read(reference / "formats" / "A_models_input.yaml")
    models.append(FoVBackgroundModel(dataset_name="stacked", name="stacked-bkg"))
    expected = Fit().solve(datasets, models)
    found = notebook.results()
    assert len(found) == len(expected.names) == 4
    for (model, name), value, error in zip(
        expected.names, expected.values, expected.errors, strict=True
    ):
        shown = found[f"{model.replace('GC-1', 'Source-1')}.{name}"]
        assert shown[0] == pytest.approx(value, abs=0.01 * error), name
        assert shown[1] == pytest.approx(error, rel=0.01), name


@pytest.mark.parametrize("notebook", ["quickstart"], indirect=True)
def test_the_quickstart_in_jupyterlab(notebook):
    sources = [name for name in notebook.models if not name.endswith("-bkg")]
    assert len(sources) == 2
    notebook.fit()
    found = notebook.significance()
    assert set(found) == set(sources)
    assert all(sigma > 5 for _, _, sigma in found.values())


@pytest.mark.parametrize("notebook", ["quickstart"], indirect=True)
def test_keys_go_to_the_map_or_to_jupyterlab(notebook):
    """A map kept all keys, Ctrl-S too; letters after a button of the toolbar edited cells."""
    page, shell = notebook.page, "window.jupyterapp.shell.currentWidget"

    def is_dirty() -> bool:
        return bool(page.evaluate(f"() => {shell}.context.model.dirty"))

    def cells() -> int:
        return int(page.evaluate(f"() => {shell}.content.widgets.length"))

    before = cells()
    page.evaluate(f"() => {shell}.context.model.setMetadata('imgfit', 1)")
    until(page, is_dirty, "a change to save")
    notebook.find(".imgfit-map .bqplot").first.click(position={"x": 150, "y": 60})
    page.keyboard.press("Control+s")
    until(page, lambda: not is_dirty(), "a saved notebook")

    active = notebook.find(".imgfit-map-toolbar button.mod-active").first
    for key, mode in (("e", "Edit"), ("n", "Navigate")):
        page.keyboard.press(key)
        until(page, lambda mode=mode: active.inner_text().strip() == mode, f"{mode} by its key")
    notebook.press(".imgfit-map-toolbar button:has-text('Edit')")
    until(page, lambda: active.inner_text().strip() == "Edit", "Edit by its button")
    page.keyboard.press("a")
    until(page, lambda: active.inner_text().strip() == "+ Add source", "Add source by its key")
    page.keyboard.press("Escape")
    assert cells() == before


@pytest.mark.parametrize("notebook", ["quickstart"], indirect=True)
def test_axes_can_be_read_in_a_dark_theme(notebook):
    page = notebook.page

    def use(theme: str) -> None:
        page.evaluate(
            "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme
        )
        light = str(theme.endswith("Light")).lower()
        page.locator(f"body[data-jp-theme-light={light}]").wait_for(state="attached")

    def fill(css: str) -> str:
        found = page.locator(f".imgfit-map .axis {css}").first
        return str(found.evaluate("element => getComputedStyle(element).fill"))

    use("JupyterLab Dark")
    try:
        until(page, lambda: fill("text:not(.axislabel)") == "rgb(55, 65, 81)", "dark numbers")
        assert fill("text.axislabel") == "rgb(55, 65, 81)"
    finally:
        use("JupyterLab Light")
