"""The report as a reader meets it: chromium, without network, on a desk and on a phone."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from knockem_dagster.reports.page import report_page
from knockem_dagster.reports.summary import SubmissionSummary, summary_page
from tests.reports import synthetic

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
VIEWPORTS = {1280: 800, 390: 844}

# What sticks out on the right, but for what scrolls in a container of its own or is hidden.
OVERFLOWING = """
[...document.querySelectorAll('main *')]
    .filter(element => !element.closest('.scroll, svg, .stack thead'))
    .filter(element => element.getBoundingClientRect().right > innerWidth + 1)
    .map(element => element.outerHTML.slice(0, 80))
"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    long_names = synthetic.inputs(num_sites=200)
    long_names = replace(
        long_names,
        submission=replace(long_names.submission, organism="o" * 300, settings={"s" * 200: "v" * 400}),
        competitions_by_assay={"a" * 120: 5},
        losses=replace(synthetic.lossy(), attempts={"p" * 120: 7}),
        tables={**long_names.tables, "estimates": long_names.tables["estimates"].assign(method="m" * 200)},
    )
    pages = {
        "lossy": report_page(synthetic.inputs(num_sites=1_000)),
        "10,000 sites": report_page(synthetic.inputs(num_sites=10_000)),
        "bare": report_page(replace(synthetic.inputs(num_sites=20, losses=synthetic.lossless()), tables={})),
        "long names": report_page(long_names),
        "summary": summary_page(
            [SubmissionSummary(submission="s" * 36, organism="o" * 80, state="completed", sites=10_000, competitions=9)]
            * 5
        ),
    }
    folder = tmp_path_factory.mktemp("pages")
    written = {name: folder / f"{number}.html" for number, name in enumerate(pages)}
    for name, path in written.items():
        path.write_text(pages[name], encoding="utf-8")
    return written


@dataclass
class Visit:
    """A page that was opened, with everything it complained about or asked the network for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def visit(browser: Browser, files: dict[str, Path], request: pytest.FixtureRequest) -> Iterator[Visit]:
    name, width = request.param
    context = browser.new_context(viewport={"width": width, "height": VIEWPORTS[width]}, offline=True)
    page = context.new_page()
    made = Visit(page)
    page.on("console", lambda message: made.complaints.append(message.text))
    page.on("pageerror", lambda error: made.complaints.append(str(error)))
    page.on("request", lambda sent: made.requests.append(sent.url))
    page.goto(files[name].as_uri())
    yield made
    context.close()


EVERY_PAGE = [
    (name, width) for name in ("lossy", "10,000 sites", "bare", "long names", "summary") for width in VIEWPORTS
]


@pytest.mark.parametrize("visit", EVERY_PAGE, indirect=True, ids=str)
def test_page_opens_quietly_without_network_and_fits_its_width(visit: Visit) -> None:
    assert visit.complaints == []
    assert [url for url in visit.requests if not url.startswith(("file:", "data:"))] == []
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert visit.page.evaluate(OVERFLOWING) == []


@pytest.mark.parametrize("visit", [("lossy", width) for width in VIEWPORTS], indirect=True, ids=str)
def test_what_was_lost_is_on_the_first_screen(visit: Visit) -> None:
    box = visit.page.locator("#lost").bounding_box()
    assert box is not None
    assert box["y"] + box["height"] <= VIEWPORTS[visit.page.viewport_size["width"]]  # type: ignore[index]
    assert visit.page.locator("#lost .verdict").inner_text() == "37 of 28,350 competitions (0.1%) gave no answer."
    found = visit.page.locator("#found li").first.bounding_box()
    assert found is not None
    assert found["y"] < VIEWPORTS[visit.page.viewport_size["width"]]  # type: ignore[index]


@pytest.mark.parametrize("visit", [("lossy", 390)], indirect=True, ids=str)
def test_hostile_output_does_not_run(visit: Visit) -> None:
    assert visit.page.title().startswith("Knockout report")
    assert visit.page.locator("script, img").count() == 0
    assert "<script>" in visit.page.locator("details pre").first.inner_text()


@pytest.mark.parametrize("visit", [("lossy", 1280)], indirect=True, ids=str)
def test_page_can_be_read_out(visit: Visit) -> None:
    assert visit.page.locator("html").get_attribute("lang") == "en"
    assert visit.page.locator("h1").count() == 1
    assert visit.page.get_by_role("img").count() == 5
    named = visit.page.locator("svg[role=img]").evaluate_all(
        "all => all.every(e => e.getAttribute('aria-label').length > 20)"
    )
    assert named
    levels = visit.page.locator("h1, h2, h3").evaluate_all("all => all.map(e => Number(e.tagName[1]))")
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


@pytest.mark.parametrize("visit", [("lossy", 390)], indirect=True, ids=str)
def test_dark_paper_carries_light_ink(visit: Visit) -> None:
    brightness = "getComputedStyle(document.body).color.match(/\\d+/g).slice(0, 3).map(Number).reduce((a, b) => a + b)"
    ink = "getComputedStyle(document.querySelector('svg text')).fill"
    visit.page.emulate_media(color_scheme="light")
    light, light_ink = visit.page.evaluate(brightness), visit.page.evaluate(ink)
    visit.page.emulate_media(color_scheme="dark")
    assert visit.page.evaluate(brightness) > light
    assert visit.page.evaluate(ink) != light_ink
