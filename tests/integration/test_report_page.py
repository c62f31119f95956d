"""The report's page in a real browser: figures, keyboard, search, narrow windows, dark colours, and
nothing that is asked of a network."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.helpers.browser import Browser, browsing
from tests.helpers.report import Example, planned, write_example
from tritier.report import Paths, build_report, collect, render_page

# A text of 3:1 against its ground is what WCAG 2 asks of large text and of graphics.
_LEAST_CONTRAST = 3.0


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("browser") / "profile") as found:
        yield found


@pytest.fixture(scope="module")
def example() -> Example:
    return planned()


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory, example: Example) -> Paths:
    return write_example(tmp_path_factory.mktemp("documents") / "all", example)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, paths: Paths) -> Path:
    """A page with every chapter."""
    target = tmp_path_factory.mktemp("page") / "report.html"
    target.write_text(render_page(build_report(collect(paths))), encoding="utf-8")
    return target


def problems(browser: Browser) -> list[str]:
    """What is wrong with the page that is open: messages, requests, figures without anything in
    them, a page that is wider than its window."""
    browser.wait_for("document.querySelectorAll('.plot:not(.js-plotly-plot)').length === 0")
    found = [f"console: {text}" for text in browser.logs()]
    found += [f"asked for {url}" for url in browser.requests()]
    found += [f"empty: {name}" for name in browser.run(_EMPTY_FIGURES)]
    wide = browser.run("return [document.documentElement.scrollWidth, window.innerWidth]")
    if wide[0] > wide[1]:
        found.append(f"{wide[0]} px wide in a window of {wide[1]}")
    return found


_EMPTY_FIGURES = """
return Array.from(document.querySelectorAll('figure')).filter(function (figure) {
  var plot = figure.querySelector('.plot');
  if (plot) {
    var drawn = plot.querySelectorAll('.trace path, .points path, .point path, .bars path');
    return drawn.length === 0 || plot.getBoundingClientRect().height < 200;
  }
  var svg = figure.querySelector('svg.tt-svg');
  return !svg || svg.querySelectorAll('path, rect').length === 0 ||
    svg.getBoundingClientRect().width < 100;
}).map(function (figure) { return figure.id; });
"""


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (360, False)])
def test_all_figures_are_there_and_nothing_is_wrong(
    browser: Browser, page: Path, paths: Paths, width: int, dark: bool
) -> None:
    browser.open(page, width, dark=dark)
    assert problems(browser) == []
    wanted = [figure.id for figure in build_report(collect(paths)).figures]
    ids = browser.run("return Array.from(document.querySelectorAll('figure')).map(f => f.id)")
    assert ids == wanted
    assert len(wanted) >= 12


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("<body>", "<body><script>throw new Error('injected')</script>", "console: .*"),
        ("<body>", "<body><img src='http://127.0.0.1:9/x.png'>", "console: .*"),
        ('"type":"bar"', '"type":"nothing"', None),
        ("<body>", "<body><div style='width:5000px'>wide</div>", "5000"),
        ("(function () {", "(function () { throw new Error('broken');", "console: .*"),
    ],
)  # fmt: skip
def test_a_broken_page_is_found(
    browser: Browser, page: Path, tmp_path: Path, old: str, new: str, told: str | None
) -> None:
    """The control of the check: each of these pages has a fault."""
    text = page.read_text(encoding="utf-8")
    if told is None:
        old, new = _without_points(text)
    assert old in text
    broken = tmp_path / "broken.html"
    broken.write_text(text.replace(old, new, 1), encoding="utf-8")
    browser.open(broken)
    try:
        found = problems(browser)
    except Exception as error:  # charts that are never drawn
        found = [f"console: {type(error).__name__}"]
    assert found


def _without_points(text: str) -> tuple[str, str]:
    """The data of the first chart, and none."""
    start = text.index('id="charts">') + len('id="charts">')
    first = text.index('"data": [', start)
    return text[first : text.index('"layout"', first)], '"data": [], '


def test_colours_follow_the_system_and_the_reader(browser: Browser, page: Path) -> None:
    browser.open(page, dark=False)
    light = _colours(browser)
    browser.emulate(dark=True)
    browser.wait_for(f"getComputedStyle(document.body).backgroundColor !== '{light[0]}'")
    dark = _colours(browser)
    assert _luminance(light[0]) > 0.8 > 0.2 > _luminance(dark[0])
    for ground, text in (light[:2], dark[:2]):
        assert _contrast(ground, text) > 7
    for ground, line in ((light[0], light[2]), (dark[0], dark[2])):
        assert _contrast(ground, line) >= _LEAST_CONTRAST
    assert light[2] != dark[2]  # charts are drawn anew
    browser.run("document.querySelector('[data-set-theme=light]').click()")
    assert _colours(browser)[0] == light[0]
    browser.driver.refresh()
    browser.wait_for("document.readyState === 'complete'")
    assert _colours(browser)[0] == light[0]  # remembered
    assert browser.run("return document.querySelector('[aria-pressed=true]').textContent") == (
        "Light"
    )
    browser.run("document.querySelector('[data-set-theme=auto]').click()")
    assert _colours(browser)[0] == dark[0]


def _colours(browser: Browser) -> list[str]:
    """Of the page's ground, its text, and the first line of the first chart."""
    found: list[str] = browser.run(
        "return [getComputedStyle(document.body).backgroundColor,"
        " getComputedStyle(document.body).color,"
        " document.querySelector('.plot .js-line').style.stroke]"
    )
    return found


def _channels(colour: str) -> list[float]:
    return [float(x) / 255 for x in colour[colour.index("(") + 1 : -1].split(",")[:3]]


def _luminance(colour: str) -> float:
    parts = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in _channels(colour)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def _contrast(first: str, second: str) -> float:
    low, high = sorted((_luminance(first), _luminance(second)))
    return (high + 0.05) / (low + 0.05)


def _press(browser: Browser, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser.driver).send_keys(*keys).perform()


def test_the_keyboard_is_enough(browser: Browser, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(page)
    focused = "document.activeElement"
    _press(browser, Keys.TAB)
    assert browser.run(f"return {focused}.textContent") == "Skip to the report"
    _press(browser, Keys.ENTER)
    browser.wait_for("location.hash === '#main'")
    seen = []
    for _ in range(60):
        _press(browser, Keys.TAB)
        seen.append(browser.run(
            f"return [{focused}.tagName, getComputedStyle({focused}).outlineStyle]"
        ))  # fmt: skip
    assert {"SUMMARY", "INPUT", "BUTTON", "DIV"} <= {tag for tag, _ in seen}
    assert [
        tag for tag, outline in seen if outline == "none" and tag != "BODY"
    ] == []  # one sees where one is
    details = "document.querySelector('details.alternative')"
    browser.run(f"{details}.querySelector('summary').focus()")
    _press(browser, Keys.ENTER)
    browser.wait_for(f"{details}.open")
    assert browser.run(f"return {details}.querySelectorAll('tbody tr').length") > 3


def test_a_layer_is_found_by_its_name(browser: Browser, page: Path) -> None:
    from selenium.webdriver.common.by import By

    browser.open(page)
    field = browser.driver.find_element(By.CSS_SELECTOR, "#layer-graph input")
    field.send_keys("conv3")
    browser.wait_for("document.querySelectorAll('#layer-graph .tt-hit').length === 1")
    assert "conv3" in browser.run("return document.querySelector('.tt-hit').textContent")
    field.clear()
    field.send_keys("nothing like that")
    browser.wait_for("document.querySelectorAll('#layer-graph .tt-hit').length === 0")
    assert browser.logs() == []


def test_headings_landmarks_and_names(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.run("return document.querySelectorAll('h1').length") == 1
    for tag in ("header", "nav", "main", "footer"):
        assert browser.run(f"return document.querySelectorAll('{tag}').length") == 1, tag
    levels = browser.run(
        "return Array.from(document.querySelectorAll('h1,h2,h3,h4')).map(h => +h.tagName[1])"
    )
    assert all(b - a <= 1 for a, b in pairwise(levels))
    targets = browser.run("return Array.from(document.querySelectorAll('nav a')).map(a => a.hash)")
    assert all(browser.run(f"return !!document.querySelector('{x}')") for x in targets)
    nameless = browser.run(
        "return Array.from(document.querySelectorAll('button,input,[role=img],[role=region]'))"
        ".filter(e => !e.textContent.trim() && !e.getAttribute('aria-label')"
        " && !(e.labels && e.labels.length)).length"
    )
    assert nameless == 0


def test_on_paper_it_is_light_and_complete(browser: Browser, page: Path) -> None:
    browser.open(page, dark=True)
    pdf = browser.printed()
    assert pdf[:5] == b"%PDF-"
    assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") >= 3
    assert browser.logs() == []


def test_a_plan_alone_is_a_page(browser: Browser, paths: Paths, tmp_path: Path) -> None:
    target = tmp_path / "alone.html"
    target.write_text(render_page(build_report(collect(Paths(paths.plan)))), encoding="utf-8")
    browser.open(target, 360)
    assert problems(browser) == []
    assert browser.run("return typeof window.Plotly") == "undefined"
    assert browser.run("return document.querySelectorAll('.missing').length") >= 8


def test_the_page_is_not_blank(browser: Browser, page: Path, tmp_path: Path) -> None:
    """Something is really painted where a chart is."""
    browser.open(page)
    browser.run("document.querySelector('#throughput-concurrency').scrollIntoView()")
    browser.screenshot(tmp_path / "seen.png", whole=False)
    with Image.open(io.BytesIO((tmp_path / "seen.png").read_bytes())) as picture:
        colours: Any = picture.convert("RGB").getcolors(maxcolors=1 << 24)
    assert len(colours) > 200
