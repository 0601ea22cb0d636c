"""Times a drag in the served workbench: from the mouse to the repainted residual map.

A real ``imgfit-widgets serve`` on the tutorial's data, a real Chromium (headless, so without a
screen's refresh to wait for). A source is put on the Galactic centre and dragged around it, first
step by step: each move of the mouse waits for the repaint that it causes. The page itself takes the
times, on one clock:

- the start is the ``timeStamp`` of the ``mousemove`` event, set when the browser received it, seen
  by a listener on the window in the capture phase, before any library;
- the end is in the frame that shows the new picture: a MutationObserver sees the residual map's
  ``image`` element get another address, its ``load`` event says that the picture is decoded, and a
  message posted from the next requestAnimationFrame arrives after that frame was painted.

Then the mouse moves on without waiting, as a hand does, and the repaints of a second are counted.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from math import cos, radians, sin
from pathlib import Path
from statistics import median, quantiles

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SHARED = ROOT.parent / "shared"
sys.path[:0] = [str(ROOT), str(HERE.parent)]

WATCH = """() => {
    const image = document.querySelector('.imgfit-residual-map image');
    window.imgfitMoved = 0;
    window.imgfitTimes = [];
    window.imgfitWait = () => {
        window.imgfitNext = new Promise((resolve) => { window.imgfitTell = resolve; });
    };
    window.imgfitWait();
    window.addEventListener('mousemove', (event) => { window.imgfitMoved = event.timeStamp; },
                            {capture: true});
    const channel = new MessageChannel();
    let started = 0;
    channel.port1.onmessage = () => {
        window.imgfitTimes.push(performance.now() - started);
        window.imgfitTell();
    };
    image.addEventListener('load', () => {
        requestAnimationFrame(() => channel.port2.postMessage(null));
    });
    new MutationObserver(() => { started = window.imgfitMoved; })
        .observe(image, {attributes: true, attributeFilter: ['href', 'xlink:href']});
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    formats = Path(os.environ.get("IMGFIT_REFERENCE", SHARED / "reference")) / "formats"
    parser.add_argument("--config", default=formats / "A_config_input.yaml")
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--pause", type=float, default=0.0, help="ms between two steps")
    parser.add_argument("--shape", default="point", choices=["point", "gauss"])
    options = parser.parse_args()
    if not options.chromium:
        parser.error("name a Chromium: --chromium")
    os.environ.setdefault("GAMMAPY_DATA", str(SHARED / "gammapy-data"))
    os.environ["PYTHONPATH"] = str(ROOT)

    times, repaints = measure(options)
    nine = quantiles(times, n=10)[-1]
    print(f"{options.shape} source, {len(times)} steps, mouse to repainted residual map:")
    print(f"median {median(times):.1f} ms, 90th percentile {nine:.1f} ms")
    print(f"without waiting: {repaints:.0f} repaints per second")


def measure(options: argparse.Namespace) -> tuple[list[float], float]:
    """Milliseconds of each step, and repaints per second of a drag that does not wait."""
    from browser import launched, running, serve_command, until, visit

    with (
        running(serve_command(options.config)) as server,
        launched(options.chromium) as browser,
        visit(browser, server) as workbench,
    ):
        page, sky = workbench.page, workbench.residual
        workbench.wait_for_maps()
        workbench.add_source(0.0, 0.0)
        if options.shape == "gauss":
            workbench.find(".imgfit-shape select").select_option(label="Gaussian (gauss)")
            until(page, lambda: workbench.row("sigma").count() == 1, "a sigma in the table")
        x, y = workbench.held()
        workbench.map.hover(x, y, "move")
        sky.digest()
        page.evaluate(WATCH)
        page.mouse.down()

        def place(step: int) -> tuple[float, float]:
            angle = radians(15 * step)
            return x + 14 * cos(angle), y + 14 * sin(angle)

        for step in range(options.steps + 1):  # the first one takes hold
            page.evaluate("window.imgfitWait()")
            page.mouse.move(*place(step))
            page.evaluate("() => window.imgfitNext")
            page.wait_for_timeout(options.pause)
        times = page.evaluate("window.imgfitTimes")[1:]

        start = time.perf_counter()
        before = page.evaluate("window.imgfitTimes.length")
        for step in range(2 * options.steps):
            page.mouse.move(*place(step))
        repaints = page.evaluate("window.imgfitTimes.length") - before
        rate = repaints / (time.perf_counter() - start)
        page.mouse.up()
    return times, rate


if __name__ == "__main__":
    main()
