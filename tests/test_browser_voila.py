"""The served workbench in a browser, on the real runs and on the demo: what a visitor does."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from browser import Server, WorkbenchPage, launched, number, running, serve_command, until, visit
from playwright.sync_api import Browser, expect

Open = Callable[[], contextlib.AbstractContextManager[WorkbenchPage]]

CENTRE = (0.0, 0.0)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with launched(chromium) as browser:
        yield browser


@pytest.fixture(scope="module")
def config(reference: Path, gammapy_data: Path) -> Path:
    return reference / "formats" / "A_config_input.yaml"


@pytest.fixture(scope="module")
def server(config: Path, gammapy_data: Path) -> Iterator[Server]:
    """The workbench on the tutorial's configuration."""
    with running(serve_command(config), GAMMAPY_DATA=str(gammapy_data)) as server:
        yield server


@pytest.fixture
def workbench(browser: Browser, server: Server) -> Iterator[WorkbenchPage]:
    """A page of the tutorial's workbench with its maps."""
    with visit(browser, server) as page:
        page.wait_for_maps()
        yield page


def test_a_clicked_dragged_and_fitted_source_is_that_of_the_command_line(
    workbench, cli, config, reference, tmp_path
):
    page = workbench.page
    assert "85 625 counts" in workbench.words(".imgfit-summary").replace("\u202f", " ")
    assert workbench.status == "done"
    workbench.start(".imgfit-reduce-button")
    expect(page.locator(".imgfit-progress [role=progressbar]")).to_be_visible()
    assert workbench.status == "running"
    workbench.wait_for_status("done")

    assert workbench.models == ["stacked-bkg"]
    flat = workbench.residual.picture
    workbench.add_source(*CENTRE)
    workbench.wait_for_models("Source-1")
    start = workbench.parameters("lon_0", "lat_0")
    assert start == pytest.approx(CENTRE, abs=workbench.map.degrees)
    assert workbench.parameter("amplitude") > 0
    until(page, lambda: workbench.delta_ts > 100, "a significant source")
    assert workbench.residual.picture != flat

    before = workbench.delta_ts
    live = workbench.drag_source(0.1, -0.03)
    assert live < 0.5 * before
    moved = np.subtract(workbench.parameters("lon_0", "lat_0"), start)
    assert moved == pytest.approx((0.1, -0.03), abs=1.1 * workbench.map.degrees)

    workbench.fit()
    name = tmp_path / "models.yaml"
    name.write_bytes((reference / "formats" / "A_models_input.yaml").read_bytes())
    done = cli("run", config, name, "-o", tmp_path / "out", "--json")
    assert done.status == 0, done.err
    found = workbench.results()
    expected = {
        f"{row['model']}.{row['name']}".replace("GC-1", "Source-1"): row
        for row in done.json()["fit"]["parameters"]
        if not row["frozen"]
    }
    assert set(found) == set(expected)
    for key, row in expected.items():
        value, error = found[key]
        assert value == pytest.approx(row["value"], abs=0.01 * row["error"]), key
        assert error == pytest.approx(row["error"], rel=0.01), key
    assert workbench.parameter("lon_0") == found["Source-1.lon_0"][0]
    ts, dof, sigma = workbench.significance()["Source-1"]
    assert (ts, dof, sigma) == (pytest.approx(1105, abs=10), 3, pytest.approx(33.0, abs=0.2))
    assert number(workbench.words(".imgfit-results .imgfit-figures span:has-text('Stat') b")) == (
        pytest.approx(done.json()["fit"]["stat"], abs=0.01)
    )


def test_a_gaussian_is_sized_by_its_handle(workbench):
    page, sky = workbench.page, workbench.map
    workbench.add_source(*CENTRE)
    workbench.find(".imgfit-shape select").select_option(label="Gaussian (gauss)")
    until(page, lambda: workbench.row("sigma").count() == 1, "a sigma in the table")
    before, before_ts = workbench.parameter("sigma"), workbench.delta_ts
    centre = workbench.held()
    at = workbench.place_of_handle()
    # The handle of a source this small stands off its circle, clear of its centre.
    reach = np.hypot(*np.subtract(at, centre))
    assert reach >= before / sky.degrees - 2 and reach == pytest.approx(16, abs=2)
    end = at[0] + 12, at[1] + 9
    expected = before * np.hypot(*np.subtract(end, centre)) / reach
    sky.drag(at, end, "nesw-resize")
    until(
        page,
        lambda: abs(workbench.parameter("sigma") - expected) < 2 * sky.degrees,
        f"a sigma near {expected}; it is {workbench.parameter('sigma')}",
    )
    assert workbench.parameters("lon_0", "lat_0") == pytest.approx(CENTRE, abs=1.1 * sky.degrees)
    until(page, lambda: workbench.delta_ts != before_ts, "another ΔTS")

    workbench.fit()
    sigma, error = workbench.results()["Source-1.sigma"]
    assert 0 < error < 0.1 * sigma
    assert workbench.parameter("sigma") == sigma
    assert workbench.significance()["Source-1"][1] == 4


def test_the_readout_follows_the_pointer_through_zoom_and_pan(workbench, tutorial):
    page, sky = workbench.page, workbench.map
    dataset = tutorial.datasets["stacked"]
    for lon, lat in ((0.0, 0.0), (1.31, -0.42), (-2.2, 1.7)):
        read = workbench.read(*sky.at(lon, lat))
        assert read["l, b"] == pytest.approx((lon % 360, lat), abs=1.5 * sky.degrees)
        position = SkyCoord(*read["l, b"], unit="deg", frame="galactic").icrs
        assert read["RA, Dec"][:2] == pytest.approx((position.ra.deg, position.dec.deg), abs=2e-4)
        x, y = dataset.geom.to_image().lonlat_to_pix(*read["l, b"])
        column, row = map(int, read["pixel"])
        assert (column, row) == (round(float(x)), round(float(y)))
        assert read["counts"] == [dataset.counts.data[:, row, column].sum()]
        background = dataset.background.data[:, row, column].sum()
        assert read["background"] == pytest.approx([background], rel=1e-3)
        assert set(read) >= {"npred", "residual", "exposure"}

    left, top, width, height = sky.plot
    x, y = left + 0.3 * width, top + 0.4 * height

    def degrees_across() -> float:
        """Degrees of latitude over 60 pixels of the screen, twice the pointer's place."""
        return workbench.read(x, y - 30)["l, b"][1] - workbench.read(x, y + 30)["l, b"][1]

    home, whole = workbench.read(x, y)["l, b"], degrees_across()
    assert whole == pytest.approx(60 * sky.degrees, rel=1e-3)
    workbench.read(x, y)
    page.mouse.wheel(0, -300)
    until(page, lambda: degrees_across() < 0.8 * whole, "a zoomed map")
    assert workbench.read(x, y)["l, b"] == pytest.approx(home, abs=sky.degrees)
    zoomed = degrees_across()
    sky.drag((x, y), (x + 80, y + 50), "grab")
    until(
        page,
        lambda: abs(workbench.read(x + 80, y + 50)["l, b"][1] - home[1]) < sky.degrees,
        "a map that moved with the pointer",
    )
    assert degrees_across() == pytest.approx(zoomed, rel=0.01)
    workbench.tool("Home")
    until(page, lambda: abs(degrees_across() / whole - 1) < 1e-3, "the whole map")
    assert workbench.read(x, y)["l, b"] == pytest.approx(home, abs=1e-4)


def test_colours_stretch_cuts_and_kind_change_the_picture(workbench):
    sky = workbench.map

    def choose(name: str, option: str) -> str:
        return workbench.repainted(sky, lambda: workbench.select(f".imgfit-map-{name}", option))

    looks = [sky.digest()]
    looks += [choose("colours", "viridis"), choose("stretch", "log"), choose("cut", "95 %")]
    assert len(set(looks)) == 4
    choose("cut", "99.9 %")
    choose("stretch", "sqrt")
    assert choose("colours", "inferno") == looks[0]
    assert choose("kind", "Exposure") not in looks
    assert workbench.read(*sky.at(0, 0))["exposure"][0] > 1e9


def test_keys_and_buttons_undo_move_and_remove(workbench):
    page, sky = workbench.page, workbench.map

    def at() -> list[float]:
        return workbench.parameters("lon_0", "lat_0")

    def wait_for(place: list[float]) -> None:
        until(page, lambda: at() == pytest.approx(place, abs=1e-9), f"{place}; it is {at()}")

    workbench.add_source(0.3, 0.2)
    clicked = at()
    workbench.drag_source(-0.2, 0.0)
    dragged = at()
    assert dragged[0] < clicked[0] - 0.1
    workbench.press(".imgfit-undo")
    wait_for(clicked)
    workbench.press(".imgfit-redo")
    wait_for(dragged)

    # Keys go to the map that was pressed last, also right after a drag.
    workbench.drag_source(0.1, 0.1)
    until(page, lambda: at() != pytest.approx(dragged, abs=0.05), "the drag")
    page.keyboard.press("Control+z")
    wait_for(dragged)

    sky.hover(*workbench.held(), "move")
    page.mouse.click(*workbench.held())
    page.keyboard.press("Control+z")
    wait_for(clicked)
    page.keyboard.press("Control+Shift+Z")
    wait_for(dragged)
    page.keyboard.press("ArrowRight")
    wait_for([dragged[0] - 0.02, dragged[1]])
    page.keyboard.press("ArrowUp")
    wait_for([dragged[0] - 0.02, dragged[1] + 0.02])
    page.keyboard.press("Delete")
    workbench.wait_for_models()
    page.keyboard.press("Control+z")
    workbench.wait_for_models("Source-1")
    wait_for([dragged[0] - 0.02, dragged[1] + 0.02])
    page.keyboard.press("n")
    until(page, lambda: sky.cursor(*sky.at(2, 2)) != "crosshair", "Navigate mode")
    expect(workbench.find(".imgfit-map-toolbar button.mod-active")).to_have_text(["Navigate"])


def test_bad_input_is_told_where_it_stands_and_costs_nothing(workbench):
    page = workbench.page
    workbench.add_source(*CENTRE)
    position, picture = workbench.parameters("lon_0", "lat_0"), workbench.map.picture

    workbench.enter("Pixel", "0.02 TeV")
    refusal = workbench.find(".imgfit-config .imgfit-field-error")
    expect(refusal).to_contain_text("0.02 TeV")
    expect(refusal).to_contain_text("Still 0.02 deg")
    assert refusal.evaluate("e => getComputedStyle(e).color") == "rgb(185, 28, 28)"
    workbench.press(".imgfit-config .imgfit-switch button:has-text('YAML')")
    assert "binsize: 0.02 deg" in workbench.find(".imgfit-config textarea").input_value()
    workbench.press(".imgfit-config .imgfit-switch button:has-text('Form')")
    workbench.enter("Pixel", "0.02 deg")
    expect(refusal).to_have_count(0)

    cell = workbench.cell("lat_0")
    cell.fill("north")
    cell.press("Tab")
    refusal = workbench.find(".imgfit-parameter-table .imgfit-field-error")
    expect(refusal).to_contain_text("north")
    assert workbench.parameters("lon_0", "lat_0") == position
    cell.fill(repr(position[1]))
    cell.press("Tab")
    expect(refusal).to_have_count(0)

    for run, words in (("111630", "111630"), ("987654", "987654")):
        workbench.enter("Runs", run)
        workbench.press(".imgfit-reduce-button")
        until(page, lambda words=words: words in workbench.error, f"a message about run {words}")
        assert len(workbench.error.splitlines()) == 1
        assert workbench.models == ["Source-1", "stacked-bkg"]
        assert workbench.map.picture == picture
    workbench.enter("Runs", "110380")
    workbench.start(".imgfit-reduce-button")
    workbench.wait_for_status("done")
    expect(workbench.find(".imgfit-summary")).to_contain_text("28\u202f735 counts")
    assert workbench.error == ""
    assert workbench.models == ["Source-1", "stacked-bkg"]
    workbench.fit()


def test_a_cancelled_reduction_and_fit_leave_everything_as_it_was(workbench):
    page = workbench.page
    workbench.add_source(*CENTRE)
    workbench.fit()
    found, picture = workbench.results(), workbench.map.picture

    workbench.enter("Reco", "24", which=2)
    workbench.start(".imgfit-reduce-button")
    workbench.press(".imgfit-cancel-button")
    workbench.wait_for_status("cancelled")
    assert workbench.map.picture == picture
    assert (workbench.results(), workbench.error) == (found, "")

    workbench.start(".imgfit-reduce-button")
    workbench.wait_for_status("done")
    workbench.find(".imgfit-shape select").select_option(label="Gaussian (gauss)")
    until(page, lambda: workbench.row("sigma").count() == 1, "a sigma in the table")
    names = ("lon_0", "lat_0", "sigma", "amplitude")
    before = workbench.settled_parameters(*names)
    workbench.start(".imgfit-fit-button")
    expect(workbench.find(".imgfit-fit-live")).to_contain_text("Evaluations")
    workbench.press(".imgfit-cancel-button")
    workbench.wait_for_status("cancelled")
    assert workbench.parameters(*names) == before
    assert (workbench.results(), workbench.error) == (found, "")

    workbench.find(".imgfit-shape select").select_option(label="Point (point)")
    until(page, lambda: workbench.row("sigma").count() == 0, "no sigma in the table")
    workbench.fit()
    again = workbench.results()
    for name in ("lon_0", "lat_0"):  # the same events in more bins
        value, error = again[f"Source-1.{name}"]
        assert value == pytest.approx(found[f"Source-1.{name}"][0], abs=2 * error)


def test_downloads_are_files_that_the_core_reads(workbench, tmp_path, tutorial):
    from imgfit_widgets import MapDataset, Models

    page = workbench.page
    workbench.add_source(*CENTRE)
    workbench.fit()
    fitted = workbench.results()

    def download(label: str) -> Path:
        with page.expect_download() as event:
            workbench.find(".imgfit-results a.imgfit-download").filter(has_text=label).click()
        path = tmp_path / event.value.suggested_filename
        event.value.save_as(path)
        return path

    models = Models.read(download("Models YAML"))
    assert models.names == ["Source-1", "stacked-bkg"]
    lon = models["Source-1"].spatial_model.lon_0
    assert (lon.value, lon.error) == pytest.approx(fitted["Source-1.lon_0"], rel=1e-6)

    result = json.loads(download("Result JSON").read_text())["fit"]
    rows = {f"{row['model']}.{row['name']}": row for row in result["parameters"]}
    assert rows["Source-1.amplitude"]["value"] == fitted["Source-1.amplitude"][0]
    assert result["success"] is True

    workbench.press(".imgfit-results button:has-text('Dataset FITS')")
    path = download(".fits.gz")
    assert gzip.decompress(path.read_bytes()).startswith(b"SIMPLE")
    dataset, own = MapDataset.read(path), tutorial.datasets["stacked"]
    assert np.array_equal(dataset.counts.data, own.counts.data)
    assert np.array_equal(dataset.mask_safe.data, own.mask_safe.data)
    assert np.allclose(dataset.exposure.data, own.exposure.data, rtol=1e-5)


def test_two_visitors_do_not_disturb_each_other(browser, server):
    with visit(browser, server) as one:
        one.wait_for_maps()
        with visit(browser, server) as two:
            two.wait_for_maps()
            one.add_source(*CENTRE)
            two.add_source(1.0, 0.5)
            two.add_source(-1.0, 0.5)
            one.fit()
            assert one.models == ["Source-1", "stacked-bkg"]
            assert two.models == ["Source-1", "Source-2", "stacked-bkg"]
            assert two.words(".imgfit-results-body") == "No fit yet."
        one.wait_for_models("Source-1")
        one.fit()


def test_a_page_asks_before_work_is_lost(workbench):
    """A reload began anew without a word; to stay keeps the kernel."""
    page, asked = workbench.page, []
    workbench.add_source(0.3, 0.2)
    page.once("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    page.evaluate("() => { location.reload(); }")
    until(page, lambda: asked == ["beforeunload"], "the question")
    workbench.press(".imgfit-undo")
    workbench.wait_for_models()


@pytest.mark.parametrize("worked", [False, True])
def test_a_page_that_is_left_leaves_no_kernel(browser, server, worked):
    with visit(browser, server, is_left=True) as visitor:
        page = visitor.page
        page.locator(".imgfit-workbench").wait_for()
        if worked:
            visitor.wait_for_maps()
            visitor.add_source(0.3, 0.2)
            page.once("dialog", lambda dialog: dialog.accept())
        data = page.locator("#jupyter-config-data").text_content()
        answer = f"{server.address}/api/kernels/{json.loads(data)['kernelId']}"
        page.reload(wait_until="commit")
        until(page, lambda: page.request.get(answer).status == 404, "the end of the kernel")
        visitor.wait_for_maps()


def test_the_demo_explains_itself_and_can_be_fitted(browser, tmp_path):
    with (
        running(serve_command(), XDG_CACHE_HOME=str(tmp_path)) as server,
        visit(browser, server) as demo,
    ):
        demo.wait_for_maps()
        assert "simulated field" in demo.words(".imgfit-about")
        sources = [name for name in demo.models if not name.endswith("-bkg")]
        assert len(sources) == 2
        demo.fit()
        found = demo.significance()
        assert set(found) == set(sources)
        assert all(sigma > 5 for _, _, sigma in found.values())
        truth = _truth(next(tmp_path.rglob("truth.yaml")))
        results = demo.results()
        for name in sources:
            for parameter in ("lon_0", "lat_0"):
                value, error = results[f"{name}.{parameter}"]
                assert abs(value - truth[name][parameter]) < 5 * error, (name, parameter)


def _truth(path: Path) -> dict[str, dict[str, Any]]:
    from imgfit_widgets import Models

    return {
        model.name: {parameter.name: parameter.value for parameter in model.parameters}
        for model in Models.read(path).sky_models
    }


def test_an_ellipse_is_turned_and_narrowed_by_its_handles(workbench):
    page, sky = workbench.page, workbench.map
    workbench.add_source(*CENTRE)
    workbench.find(".imgfit-shape select").select_option(label="Gaussian (gauss)")
    until(page, lambda: workbench.row("sigma").count() == 1, "a sigma in the table")
    workbench.set_parameter("sigma", 0.4)
    workbench.set_parameter("e", 0.8)
    centre = workbench.held()
    marks = sky.figure.locator("path.dot")
    until(page, lambda: marks.count() == 4, "a cross, its frame and two handles")
    at = workbench.place_of_handle()
    reach = 0.4 / sky.degrees
    assert np.hypot(*np.subtract(at, centre)) == pytest.approx(reach, abs=2)
    # Along the diagonal to the lower right: phi is -135 or 45 degrees, East being to the left.
    end = centre[0] + 0.7 * reach, centre[1] + 0.7 * reach
    sky.drag(at, end, "nesw-resize")
    until(page, lambda: abs(workbench.parameter("phi") - 45) < 3, "a phi of 45 degrees")
    assert workbench.parameter("sigma") == pytest.approx(0.4 * 0.99, abs=2.5 * sky.degrees)
    assert workbench.parameter("e") == pytest.approx(0.8)


def test_another_spectrum_keeps_the_flux(workbench):
    workbench.add_source(*CENTRE)
    until(workbench.page, lambda: workbench.delta_ts > 100, "a significant source")
    before = workbench.words(".imgfit-live")
    workbench.find(".imgfit-spectrum select").select_option(label="Power law (pl)")
    until(workbench.page, lambda: workbench.row("reference").count() == 1, "a reference energy")
    assert workbench.row("emin").count() == 0
    until(
        workbench.page,
        lambda: workbench.words(".imgfit-live").split("ΔTS")[1] == before.split("ΔTS")[1],
        "the same flux and ΔTS",
    )


def test_extension_and_contour_are_one_click_each(workbench):
    page = workbench.page
    workbench.add_source(*CENTRE)
    assert workbench.find(".imgfit-ask-contour").is_disabled()
    workbench.fit()
    words = workbench.ask("extension")
    # There is more emission around this source than the models have, and the answer says so.
    assert "TSext" in words and "sigma 0.5 deg" in words and "max_size" in words
    question = page.locator(".imgfit-question").filter(has=page.locator(".imgfit-ask-extension"))
    question.locator("select").select_option(label="disk")
    workbench.ask("extension")
    answer = ".imgfit-answer-extension"
    words = until(page, lambda: "r_0" in workbench.words(answer) and workbench.words(answer), "r_0")
    assert "TSext" in words and "r_0 <" in words and "95\u202f%" in words
    assert "39 %" in workbench.ask("contour")
    dashed = workbench.map.figure.locator("path.line[style*='stroke-dasharray']")
    until(page, lambda: any("L" in (d.get_attribute("d") or "") for d in dashed.all()), "a contour")
    expect(page.locator(".imgfit-contour")).to_be_visible()
    assert "imgfit-is-stale" not in (question.get_attribute("class") or "")
    workbench.set_parameter("lat_0", 0.05)
    until(
        page,
        lambda: "imgfit-is-stale" in (question.get_attribute("class") or ""),
        "an answer that is marked as stale",
    )


def test_a_found_peak_becomes_a_source(workbench):
    page = workbench.page
    workbench.find(".imgfit-search-button").scroll_into_view_if_needed()
    workbench.find(".imgfit-search-button").click()
    until(page, lambda: workbench.find(".imgfit-add-peak").count() > 0, "a peak", 120_000)
    workbench.find(".imgfit-add-peak").first.click()
    workbench.wait_for_models("Source-1")
    until(page, lambda: workbench.delta_ts > 100, "a significant source")
