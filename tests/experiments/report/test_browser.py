"""Pages in headless Chromium: no complaint, a film that plays, and text that can be read on any screen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.experiments.command import exit_code
from tests.experiments.report.browser import CHROMIUM, Browser, browser
from tests.experiments.report.test_page import QUICK, RESULTS, cart_pole

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"),
]
SCREENS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]
# The smallest font, and the smallest contrast between text and what is behind it (WCAG 2), of all text on the page.
READABILITY = """
(() => {
  const channel = (value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const parse = (color) => color.match(/[\\d.]+/g).map(Number)
    .map((part, index) => (index < 3 && !color.startsWith("color(srgb") ? part / 255 : part));
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const over = ([r, g, b, a = 1], under) => [r, g, b].map((part, index) => a * part + (1 - a) * under[index]);
  const ground = (node) => {
    const own = node && parse(getComputedStyle(node).backgroundColor);
    if (!node) return [1, 1, 1];
    return own.length < 4 || own[3] === 1 ? own.slice(0, 3) : over(own, ground(node.parentElement));
  };
  let [font, contrast, worst] = [99, 99, ""];
  const walker = document.createTreeWalker(document.getElementById("page"), NodeFilter.SHOW_TEXT);
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const node = text.parentElement;
    if (!text.textContent.trim() || !node.getClientRects().length) continue;
    const style = getComputedStyle(node);
    const color = parse(node.closest("svg") ? style.fill : style.color);
    const [a, b] = [luminance(color), luminance(ground(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    font = Math.min(font, parseFloat(style.fontSize));
    if (ratio < contrast) [contrast, worst] = [ratio, text.textContent];
  }
  return { font, contrast, worst };
})()
"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A tab of a browser."""
    pytest.importorskip("websockets", reason="websockets is of the extra test")
    with browser(tmp_path_factory.mktemp("chromium") / "profile") as opened:
        yield opened


@pytest.fixture(scope="module", params=["one run", "a file and heat maps", "three compared"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, finished_run: Path) -> Path:
    """Pages of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    file = cart_pole(folder / "a_dataset_file_with_a_long_name_that_has_to_be_broken_somewhere_on_narrow_screens.npz")
    subjects = {
        "one run": (finished_run,),
        "a file and heat maps": (file, "--generalisation", RESULTS / "generalisation_cartpole.json"),
        "three compared": (finished_run, file, RESULTS.parents[1] / finished_run),
    }
    out = folder / "page.html"
    assert exit_code("report", *subjects[request.param], "--out", out, *QUICK) == 0
    return out


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_text_is_readable_and_nothing_sticks_out(tab: Browser, page: Path, width: int, scheme: str) -> None:
    tab.complaints.clear()
    tab.requests.clear()
    tab.open(page, width, scheme)
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 28)"}[scheme]
    readable = tab.evaluate(READABILITY)
    assert readable["font"] >= 12 and readable["contrast"] >= 4.5, readable
    assert tab.complaints == [] and {address.partition(":")[0] for address in tab.requests} == {"file"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_film_plays_pauses_and_jumps(tab: Browser, page: Path, scheme: str) -> None:
    tab.complaints.clear()
    tab.open(page, 1280, scheme)
    frame = "Number(document.querySelector('[data-frame]').dataset.frame)"
    tab.evaluate("document.querySelector('[data-frame]').scrollIntoView({ block: 'center' })")
    first = tab.evaluate(frame)
    tab.wait(f"{frame} !== {first}")
    tab.evaluate("[...document.querySelectorAll('button')].find((button) => button.textContent === 'Pause').click()")
    paused = tab.evaluate(frame)
    time.sleep(0.5)
    assert tab.evaluate(frame) == paused
    slide = "(() => { const slider = document.querySelector('input[type=range]'); slider.value = 3; "
    tab.evaluate(slide + "slider.dispatchEvent(new Event('input')); })()")
    assert tab.evaluate(frame) == 3
    step = tab.evaluate("JSON.parse(document.getElementById('data').textContent).runs[0].pairs.nearest.steps[0]")
    card = "[...document.querySelectorAll('.card')].find((card) => card.querySelector('h3').textContent === 'Pair 0')"
    tab.evaluate(f"{card}.querySelector('.facts button').click()")
    assert tab.evaluate(frame) == step
    drawn = "(() => { const canvas = document.querySelector('[data-frame]'); return canvas.getContext('2d')"
    drawn += ".getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0); })()"
    assert tab.evaluate(drawn)
    assert tab.complaints == []


def test_the_curve_tells_its_values_under_the_pointer(tab: Browser, tmp_path: Path, finished_run: Path) -> None:
    out = tmp_path / "page.html"
    assert exit_code("report", finished_run, "--out", out, *QUICK, "--max-removals", "0") == 0
    tab.open(out, 1280, "light")
    box = tab.evaluate("document.querySelector('.chart').getBoundingClientRect().toJSON()")
    for share, iteration in ((0.99, "4"), (0.5, "2")):
        x = box["x"] + 70 + share * (box["width"] - 82)
        tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=box["y"] + box["height"] / 2)
        tab.wait(f"document.querySelector('.tip strong').textContent === 'iteration {iteration}'")
    assert "fresh keys" in tab.evaluate("document.querySelector('.tip').textContent")
    choose = (
        "[...document.querySelectorAll('button')].find((button) => button.textContent === 'environment steps').click()"
    )
    tab.evaluate(choose)
    tab.wait("document.querySelector('.chart svg').textContent.includes('environment steps')")
