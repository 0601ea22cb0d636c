"""Real servers and a real Chromium, and the workbench as a person sees it.

`running`
    A server process (`serve_command`, `lab_command`) on a free port, until the block ends.
`launched`
    Chromium under Playwright.
`visit`
    A page that notes what must not happen: requests to other hosts, errors in the console.
`WorkbenchPage`
    The workbench on such a page: its buttons and words, the parameter table, and `SkyMap`, which
    turns sky positions into places on the screen.

Everything waits for conditions. A number is read from the text or the tooltips of the page, where
the kernel put it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
VIEWPORT = {"width": 1700, "height": 1000}
TIMEOUT = 60_000  # milliseconds; generous, because machines are shared
KERNEL_START = 120_000

# What others' packages write into the console of every page that uses them.
FOREIGN_MESSAGES = (
    # bqplot draws a figure once before the page has given it a size.
    r"<(rect|svg)> attribute (width|height): A negative value is not valid",
    # The widget manager is told of widgets that were closed before it asked for them.
    r"Comm not found for comm id",
)


# A page that is left closes its connection while its widgets may still be reporting their sizes.
OF_A_LEFT_PAGE = "Cannot send"


@dataclass
class Server:
    """A server process: its address, and the file that its messages go to."""

    address: str
    log: Path


def serve_command(*arguments: object) -> Callable[[int], list[str]]:
    """``imgfit-widgets serve`` with these arguments."""
    command = [sys.executable, "-m", "imgfit_widgets.app.cli", "serve", *map(str, arguments)]
    return lambda port: [*command, "--no-browser", f"--port={port}"]


def lab_command(folder: Path) -> Callable[[int], list[str]]:
    """JupyterLab on a folder, with its application within a test's reach."""
    return lambda port: [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}",
        "--ServerApp.port_retries=0", "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}",
        "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None",
        "--LabApp.collaborative=False", "--LabApp.extension_manager=readonly",
    ]  # fmt: skip


@contextlib.contextmanager
def running(command: Callable[[int], list[str]], **environment: str) -> Iterator[Server]:
    """Run a server on a free port until the block ends."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="imgfit-test-") as folder:
        server = Server(f"http://localhost:{port}", Path(folder) / "log.txt")
        with server.log.open("wb") as log:
            process = subprocess.Popen(
                command(port),
                cwd=folder,
                env={**os.environ, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            _wait_for_port(port, process, server.log)
            yield server
        finally:
            process.send_signal(signal.SIGINT if "serve" in process.args else signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + KERNEL_START / 1000
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port), 1):
            return
        words = f"{process.args}\n{log.read_text(errors='replace')[-4000:]}"
        assert process.poll() is None, f"the server ended with {process.returncode}: {words}"
        assert time.monotonic() < end, f"the server does not listen on {port}: {words}"
        time.sleep(0.05)


@contextlib.contextmanager
def launched(chromium: str) -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watch:
    """What a page did that it must not do."""

    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    is_left: bool = False

    def follow(self, page: Page, address: str) -> None:
        """Take notes on a page that may only talk to one server."""
        own = (address, address.replace("http", "ws"), "data:", "blob:", "about:")
        page.on("request", lambda r: None if r.url.startswith(own) else self.requests.append(r.url))
        page.on("websocket", lambda w: None if w.url.startswith(own) else self._ask(w.url))
        page.on("pageerror", self._error)
        page.on("console", self._console)

    def _ask(self, url: str) -> None:
        self.requests.append(url)

    def _error(self, error: Any) -> None:
        if not (self.is_left and str(error) == OF_A_LEFT_PAGE):
            self.errors.append(str(error))

    def _console(self, message: Any) -> None:
        known = any(re.search(pattern, message.text) for pattern in FOREIGN_MESSAGES)
        if message.type == "error" and not known:
            self.errors.append(f"{message.text} {message.location.get('url', '')}".strip())

    def check(self) -> None:
        """Fail if anything was noted."""
        assert not self.requests, f"requests to other hosts: {self.requests}"
        assert not self.errors, f"errors in the browser's console: {self.errors}"


@contextlib.contextmanager
def visit(
    browser: Browser, server: Server, path: str = "/", is_left: bool = False
) -> Iterator[WorkbenchPage]:
    """A workbench page of its own; at the end, nothing forbidden may have happened on it.

    ``is_left`` says that it is reloaded or closed before the end.
    """
    context = browser.new_context(viewport=VIEWPORT, accept_downloads=True)
    context.set_default_timeout(TIMEOUT)
    page = context.new_page()
    watch = Watch(is_left=is_left)
    watch.follow(page, server.address)
    try:
        page.goto(server.address + path, timeout=KERNEL_START)
        yield WorkbenchPage(page)
        watch.check()
        assert "Traceback (most recent call last)" not in page.content()
    finally:
        context.close()


def run_all_cells(page: Page) -> None:
    """Run the notebook that JupyterLab has opened, once its kernel is ready."""
    page.wait_for_function(
        """() => window.jupyterapp?.shell.currentWidget?.sessionContext
            ?.session?.kernel?.status === 'idle'"""
    )
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    command(page, "notebook:run-all-cells")


def command(page: Page, name: str) -> None:
    """Start a command of JupyterLab, without waiting: some never answer."""
    page.evaluate("(name) => void window.jupyterapp.commands.execute(name)", name)


def until(page: Page, condition: Callable[[], Any], what: str, timeout: float = TIMEOUT) -> Any:
    """The first true answer of ``condition``; the page goes on meanwhile."""
    end = time.monotonic() + timeout / 1000
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < end, f"waited in vain for {what}"
        page.wait_for_timeout(20)


def numbers(text: str) -> list[float]:
    """The numbers of a text; minus signs, powers and thin spaces as the page writes them."""
    plain = text.replace("\N{MINUS SIGN}", "-").replace("\N{NARROW NO-BREAK SPACE}", "")
    power = re.compile(r"\s?×\s?10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)")
    digits = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    plain = power.sub(lambda found: "e" + found.group(1).translate(digits), plain)
    return [float(found) for found in re.findall(r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?", plain)]


def number(text: str) -> float:
    """The first number of a text."""
    found = numbers(text)
    assert found, f"no number in {text!r}"
    return found[0]


class SkyMap:
    """One of the maps: places on the screen for positions on the sky.

    Parameters
    ----------
    page : Page
    css : str
        Class of the figure.
    centre : (float, float)
        Longitude and latitude of the map's centre in degrees of its frame, near its equator.
    npix : (int, int)
    pixel : float
        Size of a map pixel in degrees.
    """

    def __init__(
        self,
        page: Page,
        css: str,
        centre: tuple[float, float] = (0.0, 0.0),
        npix: tuple[int, int] = (400, 300),
        pixel: float = 0.02,
    ) -> None:
        self.page, self.css = page, css
        self.centre, self.npix, self.pixel = centre, npix, pixel
        self.figure = page.locator(f".{css}")

    @property
    def plot(self) -> tuple[float, float, float, float]:
        """Left, top, width and height of the plot on the screen."""
        box = self.figure.locator("rect.plotarea_background").bounding_box()
        assert box is not None
        return box["x"], box["y"], box["width"], box["height"]

    @property
    def degrees(self) -> float:
        """Degrees on the sky per pixel of the screen, as long as the whole map is shown."""
        _, _, width, height = self.plot
        return self.pixel * max(self.npix[0] / width, self.npix[1] / height)

    def at(self, lon: float, lat: float) -> tuple[float, float]:
        """The place on the screen of a sky position, as long as the whole map is shown."""
        left, top, width, height = self.plot
        return (
            left + 0.5 * width - (lon - self.centre[0]) / self.degrees,
            top + 0.5 * height - (lat - self.centre[1]) / self.degrees,
        )

    @property
    def picture(self) -> str:
        """Address of the picture that is shown; another one after each repaint."""
        address = self.figure.locator("image").get_attribute("href")
        assert address
        return address

    def is_settled(self) -> bool:
        """Whether the plot has the shape of the map: the kernel sets its height by its width."""
        wide, high = self.page.evaluate(
            """async (css) => {
                const picture = new Image();
                picture.src = document.querySelector(`.${css} image`).getAttribute('href');
                await picture.decode();
                return [picture.width, picture.height];
            }""",
            self.css,
        )
        _, _, width, height = self.plot
        return abs(width * high / (height * wide) - 1.0) < 0.01

    def digest(self) -> str:
        """A digest of the colours of the picture that is shown."""
        return self.page.evaluate(
            """async (css) => {
                const picture = new Image();
                picture.src = document.querySelector(`.${css} image`).getAttribute('href');
                await picture.decode();
                const canvas = new OffscreenCanvas(picture.width, picture.height);
                const context = canvas.getContext('2d');
                context.drawImage(picture, 0, 0);
                const colours = context.getImageData(0, 0, canvas.width, canvas.height).data;
                const digest = new Uint8Array(await crypto.subtle.digest('SHA-1', colours));
                return Array.from(digest, (byte) => byte.toString(16)).join(' ');
            }""",
            self.css,
        )

    def cursor(self, x: float, y: float) -> str:
        """The shape of the pointer at a place of the screen."""
        return self.page.evaluate(
            "([x, y]) => getComputedStyle(document.elementFromPoint(x, y)).cursor", [x, y]
        )

    def hover(self, x: float, y: float, cursor: str) -> None:
        """Rest on a place until the kernel has answered with a shape of the pointer."""
        self.page.mouse.move(x, y)
        until(
            self.page,
            lambda: self.cursor(x, y) == cursor,
            f"the pointer {cursor!r} at {x:.0f}, {y:.0f}; it is {self.cursor(x, y)!r}",
        )

    def click(self, lon: float, lat: float) -> None:
        """Click on a sky position."""
        self.page.mouse.click(*self.at(lon, lat))

    def drag(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        cursor: str = "",
        steps: int = 8,
        inbetween: Callable[[], object] = lambda: None,
    ) -> None:
        """Drag from one place of the screen to another; ``inbetween`` is called before letting go.

        With ``cursor`` the drag begins when the pointer has that shape.
        """
        mouse = self.page.mouse
        if cursor:
            self.hover(*start, cursor)
        else:
            mouse.move(*start)
        mouse.down()
        mouse.move(*end, steps=steps)
        inbetween()
        mouse.up()


class WorkbenchPage:
    """The workbench in a browser."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.map = SkyMap(page, "imgfit-map")
        self.residual = SkyMap(page, "imgfit-residual-map")

    def find(self, css: str) -> Locator:
        """Elements by CSS; those hidden are left out."""
        return self.page.locator(css).filter(visible=True)

    def press(self, css: str) -> None:
        """Press a button, once it can be pressed."""
        if css.startswith((".imgfit-config", ".imgfit-reduce")):
            self.open_configuration()
        self.find(css).first.click()

    def words(self, css: str) -> str:
        """The visible text of an element."""
        return self.find(css).first.inner_text().strip()

    # -- state ----------------------------------------------------------------------------------

    @property
    def status(self) -> str:
        """The word of ``imgfit-status``."""
        return self.words(".imgfit-status")

    def wait_for_status(self, word: str) -> None:
        """Wait until ``imgfit-status`` says a word."""
        expect(self.find(".imgfit-status").first).to_have_text(word, timeout=KERNEL_START)

    def wait_for_maps(self) -> None:
        """Wait until data are reduced and both maps show a picture."""
        self.wait_for_status("done")
        for sky in (self.map, self.residual):
            expect(sky.figure.locator("image")).to_be_visible(timeout=TIMEOUT)
            until(self.page, sky.is_settled, f"the height of {sky.css} that suits its width")

    def start(self, button: str) -> None:
        """Press a button that starts work, and see the status leave its former word."""
        self.page.evaluate(
            """() => {
                const place = document.querySelector('.imgfit-status');
                window.imgfitSeen = [];
                window.imgfitObserver?.disconnect();
                window.imgfitObserver = new MutationObserver(
                    () => window.imgfitSeen.push(place.innerText.trim()));
                window.imgfitObserver.observe(
                    place, {childList: true, characterData: true, subtree: true});
            }"""
        )
        self.press(button)
        self.page.wait_for_function("() => window.imgfitSeen.includes('running')")

    @property
    def error(self) -> str:
        """The message in ``imgfit-error``; empty while there is none."""
        bar = self.find(".imgfit-error")
        return bar.first.locator("[role=alert]").inner_text().strip() if bar.count() else ""

    # -- models ---------------------------------------------------------------------------------

    @property
    def models(self) -> list[str]:
        """The names in the list of models."""
        names = self.find(".imgfit-model-list .imgfit-model-name").all_inner_texts()
        return [name.strip() for name in names]

    def wait_for_models(self, *names: str) -> None:
        """Wait until the list of models has these sources, then the background."""
        until(
            self.page,
            lambda: [name for name in self.models if not name.endswith("-bkg")] == list(names),
            f"the sources {names}; there are {self.models}",
        )

    def row(self, name: str) -> Locator:
        """The line of a parameter in the table."""
        cell = self.page.locator(f"//*[contains(@class, 'imgfit-cell-name')]//*[text()='{name}']")
        return self.find(".imgfit-parameter-table .imgfit-parameter-row").filter(has=cell)

    def cell(self, name: str, column: str = "value") -> Locator:
        """The input of a parameter: its value, min or max."""
        return self.row(name).locator(f".imgfit-cell-{column} input")

    def parameter(self, name: str) -> float:
        """A parameter's value with all digits, which the tooltip of its input has."""
        title = self.cell(name).get_attribute("title") or ""
        return float(title.rpartition(":")[2])

    def set_parameter(self, name: str, value: float) -> None:
        """Type a value into the table."""
        self.cell(name).fill(str(value))
        self.page.keyboard.press("Enter")
        until(self.page, lambda: self.parameter(name) == value, f"{name} {value}")

    def parameters(self, *names: str) -> list[float]:
        """Values of several parameters."""
        return [self.parameter(name) for name in names]

    def settled_parameters(self, *names: str) -> list[float]:
        """Values of several parameters once they have stood still for half a second."""
        while True:
            before = self.parameters(*names)
            self.page.wait_for_timeout(500)
            if self.parameters(*names) == before:
                return before

    @property
    def delta_ts(self) -> float:
        """The live ΔTS of the selected source."""
        return number(self.words(".imgfit-live span:has-text('ΔTS') b"))

    def add_source(self, lon: float, lat: float) -> None:
        """Press Add source and click on the map; the new source is selected."""
        before = len(self.models)
        self.mode("+ Add source")
        self.map.hover(*self.map.at(lon, lat), "crosshair")
        self.map.click(lon, lat)
        until(self.page, lambda: len(self.models) == before + 1, "one more model in the list")
        until(self.page, lambda: self.row("lon_0").count() == 1, "its parameters in the table")

    def tool(self, label: str) -> None:
        """Press a button of the maps' toolbar."""
        self.find(".imgfit-map-toolbar button").get_by_text(label, exact=True).click()

    def mode(self, label: str) -> None:
        """Go to a mode of the maps by its button; pressing it again would leave the mode."""
        active = self.find(".imgfit-map-toolbar button.mod-active").get_by_text(label, exact=True)
        if not active.count():
            self.tool(label)
            expect(active).to_have_count(1)

    def held(self) -> tuple[float, float]:
        """Go to Edit mode; the place on the screen where the selected source is held."""
        self.mode("Edit")
        return self.map.at(*self.parameters("lon_0", "lat_0"))

    def place_of_handle(self) -> tuple[float, float]:
        """The place on the screen of the size handle: the mark that is drawn last."""
        marks = self.map.figure.locator("path.dot")
        until(self.page, lambda: marks.count() >= 3, "two crosses and a handle")
        box = marks.last.bounding_box()
        assert box is not None
        return box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"]

    def drag_source(self, lon: float, lat: float, cursor: str = "move") -> float:
        """Drag the selected source by some degrees; the live ΔTS before it is let go."""
        seen: list[float] = []
        sky, before = self.map, self.words(".imgfit-live")
        old = self.parameters("lon_0", "lat_0")
        new, reach = (old[0] + lon, old[1] + lat), 1.5 * sky.degrees

        def arrived() -> bool:
            place = self.parameters("lon_0", "lat_0")
            return all(abs(a - b) < reach for a, b in zip(place, new, strict=True))

        def at_rest() -> bool:
            place = self.parameters("lon_0", "lat_0")
            self.page.wait_for_timeout(150)
            return self.parameters("lon_0", "lat_0") == place

        def look() -> None:
            until(self.page, arrived, f"a source at {new}")
            until(self.page, at_rest, "the last step of the drag")
            until(self.page, lambda: self.words(".imgfit-live") != before, "another live ΔTS")
            seen.append(self.delta_ts)

        sky.drag(self.held(), sky.at(*new), cursor, inbetween=look)
        return seen[0]

    # -- fit ------------------------------------------------------------------------------------

    def fit(self) -> None:
        """Press Fit and wait until it is done."""
        self.start(".imgfit-fit-button")
        self.wait_for_status("done")

    def ask(self, question: str) -> str:
        """Press a button of the panel around the minimum; the answer, once it is there."""
        button = self.find(f".imgfit-ask-{question}")
        expect(button).to_be_enabled()
        button.scroll_into_view_if_needed()
        button.click()
        answer = self.page.locator(f".imgfit-answer-{question}")
        until(self.page, lambda: answer.inner_text().strip() != "", f"an answer to {question}")
        self.wait_for_status("done")
        return answer.inner_text().strip()

    def results(self) -> dict[str, tuple[float, float]]:
        """Values and errors of the free parameters, all digits, by "MODEL.PARAMETER"."""
        lines = self.page.evaluate(
            """() => [...document.querySelectorAll('.imgfit-results .imgfit-values tr')].map(
                line => [line.innerText.split('\\t')[0].trim(), line.title])"""
        )
        found, model = {}, ""
        for name, title in lines:
            if not title:
                model = name
                continue
            value, error = title.split(" ± ")
            found[f"{model}.{name}"] = float(value), float(error.split(" ")[0])
        return found

    def significance(self) -> dict[str, tuple[float, int, float]]:
        """TS, degrees of freedom and σ of each source."""
        lines: Sequence[Sequence[str]] = self.page.evaluate(
            """() => [...document.querySelectorAll('.imgfit-results .imgfit-ts tr')]
                .map(line => [...line.querySelectorAll('td')].map(cell => cell.innerText.trim()))
                .filter(cells => cells.length)"""
        )
        return {name: (number(ts), int(dof), number(s)) for name, ts, dof, s, *_ in lines}

    # -- maps -----------------------------------------------------------------------------------

    def read(self, x: float, y: float) -> dict[str, list[float]]:
        """The readout at a place of the screen: its numbers by their labels."""
        self._hover(x + 23.0, y + 17.0)
        self._hover(x, y)
        return self.readout

    def _hover(self, x: float, y: float) -> None:
        before = self.words(".imgfit-readout")
        self.page.mouse.move(x, y)
        until(self.page, lambda: self.words(".imgfit-readout") != before, "a new readout")

    @property
    def readout(self) -> dict[str, list[float]]:
        """The numbers of the readout by their labels."""
        found = {}
        for part in self.find(".imgfit-readout span").all_inner_texts():
            label = re.match(r"[A-Za-z, ]*[A-Za-z]", part)
            rest = part[label.end() :] if label else part
            found[label.group() if label else ""] = numbers(rest)
        return found

    def select(self, css: str, option: str, which: int = 0) -> None:
        """Choose from a select: ``which`` is 0 for the left map and 1 for the residual map."""
        self.find(f"{css} select").nth(which).select_option(label=option)

    def repainted(self, sky: SkyMap, action: Callable[[], object]) -> str:
        """Do something, wait until a map shows other colours, and give their digest."""
        before = sky.digest()
        action()
        return until(
            self.page,
            lambda: (now := sky.digest()) != before and now,
            f"other colours in {sky.css}",
        )

    # -- configuration --------------------------------------------------------------------------

    def open_configuration(self) -> None:
        """Unfold the configuration, if it is folded away."""
        fold = self.find(".imgfit-header .imgfit-fold")
        if fold.count() and not self.find(".imgfit-config").count():
            fold.first.click()
            expect(self.find(".imgfit-config")).to_have_count(1, timeout=TIMEOUT)

    def form_row(self, label: str) -> Locator:
        """A line of the configuration's form, by its label."""
        self.open_configuration()
        words = self.page.locator(".imgfit-label span", has_text=re.compile(rf"^{label}$"))
        return self.find(".imgfit-config .imgfit-form-row").filter(has=words)

    def enter(self, label: str, value: str, which: int = 0) -> None:
        """Type into a text input of the form and leave it."""
        place = self.form_row(label).locator("input[type=text]").nth(which)
        place.fill(value)
        place.press("Tab")
