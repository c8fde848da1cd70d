"""The report as a reader meets it: chromium, without network, on a desk and on a phone."""

from __future__ import annotations

import functools
import itertools
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from knockem_dagster.reports.inputs import ReportInputs
from knockem_dagster.reports.methods import methods_paragraph
from knockem_dagster.reports.page import report_page
from knockem_dagster.reports.study_facts import StudyFacts
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


@functools.cache
def in_sets() -> ReportInputs:
    """2,000 sites; set 3 are the sites 30 to 32, and site 5 has an effect of -7.5, which no other comes near."""
    given = synthetic.inputs(num_sites=2_000, only={"sites"})
    sites = given.tables["sites"].copy()
    sites.loc[30:32, "set"] = 3
    sites.loc[5, ["effect", "low", "high"]] = [-7.5, -8.37, -6.63]
    return replace(given, tables={"sites": sites})


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
        "in sets": report_page(in_sets()),
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
    height = VIEWPORTS[visit.page.viewport_size["width"]]  # type: ignore[index]
    warnings = visit.page.locator("#found .warns")
    assert warnings.count() == 2
    assert "37 (0.1%) gave no answer" in warnings.nth(1).inner_text()
    box, found = warnings.last.bounding_box(), visit.page.locator("#found li:not(.warns)").first.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] <= height
    assert found is not None
    assert box["y"] < found["y"] < height


@pytest.mark.parametrize("visit", [("lossy", 1280)], indirect=True, ids=str)
def test_all_sentences_are_on_the_first_screen_of_a_desk(visit: Visit) -> None:
    box = visit.page.locator("#found").bounding_box()
    assert box is not None
    assert box["y"] + box["height"] <= VIEWPORTS[1280]


@pytest.mark.parametrize("visit", [("lossy", 390)], indirect=True, ids=str)
def test_methods_are_copied_as_they_stand(visit: Visit) -> None:
    visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button = visit.page.locator("#methods").get_by_role("button")
    button.click()
    assert button.inner_text() == "Copied"
    copied = visit.page.evaluate("navigator.clipboard.readText()")
    assert copied.strip() == methods_paragraph(StudyFacts(synthetic.inputs(num_sites=1_000).tables["study"]))
    assert visit.complaints == []


@pytest.mark.parametrize("visit", [("lossy", 390)], indirect=True, ids=str)
def test_hostile_output_does_not_run(visit: Visit) -> None:
    assert visit.page.title().startswith("Knockout report")
    assert visit.page.locator("img").count() == 0
    assert visit.page.locator("script").count() == 2  # the table's data and report.js
    assert "<script>" in visit.page.locator("details pre").first.inner_text()


@pytest.mark.parametrize("visit", [("lossy", 1280)], indirect=True, ids=str)
def test_page_can_be_read_out(visit: Visit) -> None:
    assert visit.page.locator("html").get_attribute("lang") == "en"
    assert visit.page.locator("h1").count() == 1
    assert visit.page.get_by_role("img").count() == 7
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


def test_a_script_that_is_not_ours_is_refused(browser: Browser, tmp_path: Path) -> None:
    made = report_page(synthetic.inputs(num_sites=200))
    target = tmp_path / "report.html"
    target.write_text(made.replace("</main>", "<script>document.title = 'owned'</script></main>"), encoding="utf-8")
    page = browser.new_page()
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(target.as_uri())
    assert not page.title().startswith("owned")
    assert any("Content Security Policy" in text for text in refused)
    assert page.locator("#sites th button").count() > 0
    page.close()


TEXT_OF_ROWS = "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"


def rows(page: Page) -> list[list[str]]:
    return page.locator("#sites tbody tr").evaluate_all(TEXT_OF_ROWS)


def column(page: Page, title: str) -> list[float]:
    """The values that a column shows, missing ones as NaN."""
    titles = page.locator("#sites th").all_inner_texts()
    texts = [row[titles.index(title)] for row in rows(page)]
    return [math.nan if text == "–" else float(text.replace("−", "-").replace(",", "")) for text in texts]


def sort_by(page: Page, title: str) -> str | None:
    """Click a header; return how its column is sorted then."""
    header = page.get_by_role("columnheader", name=title)
    header.get_by_role("button").click()
    return header.get_attribute("aria-sort")


def search(page: Page, query: str) -> str:
    """Search the sites; return what the page says it found."""
    page.get_by_role("searchbox", name="Search").fill(query)
    return page.locator("#sites output").inner_text()


@pytest.mark.parametrize("visit", [("10,000 sites", width) for width in VIEWPORTS], indirect=True, ids=str)
def test_ten_thousand_sites_are_at_hand_with_few_of_them_in_the_document(visit: Visit, files: dict[str, Path]) -> None:
    assert files["10,000 sites"].stat().st_size < 5_000_000
    assert len(rows(visit.page)) == 100
    assert visit.page.locator("*").count() < 6_000
    assert visit.page.locator("#sites output").inner_text() == "1–100 of 10,000 sites"


@pytest.mark.parametrize("visit", [("10,000 sites", 1280)], indirect=True, ids=str)
@pytest.mark.parametrize(("title", "first"), [("Effect", "descending"), ("Site", "ascending"), ("High", "descending")])
def test_a_click_sorts_every_site_and_another_turns_the_order(visit: Visit, title: str, first: str) -> None:
    sites = synthetic.inputs(num_sites=10_000).tables["sites"][title.lower()].dropna()
    for way in (first, "ascending" if first == "descending" else "descending"):
        assert sort_by(visit.page, title) == way
        expected = sites.sort_values(ascending=way == "ascending").head(100)
        assert column(visit.page, title) == pytest.approx(expected.tolist(), abs=0.005001)
        assert visit.page.locator("#sites th:not([aria-sort=none])").count() == 1


@pytest.mark.parametrize("visit", [("lossy", 1280)], indirect=True, ids=str)
def test_columns_are_sorted_from_the_keyboard(visit: Visit) -> None:
    button = visit.page.get_by_role("columnheader", name="Site").get_by_role("button")
    button.focus()
    visit.page.keyboard.press("Enter")
    assert column(visit.page, "Site") == list(range(100))
    visit.page.keyboard.press("Space")
    assert column(visit.page, "Site") == list(range(999, 899, -1))


@pytest.mark.parametrize("visit", [("lossy", 1280)], indirect=True, ids=str)
def test_sites_without_a_value_come_last_either_way(visit: Visit) -> None:
    for _ in range(2):
        sort_by(visit.page, "Effect")
        for _ in range(9):
            visit.page.get_by_role("button", name="Next").click()
        assert visit.page.get_by_role("button", name="Next").is_disabled()
        assert visit.page.locator("#sites output").inner_text() == "901–1,000 of 1,000 sites"
        assert [math.isnan(effect) for effect in column(visit.page, "Effect")] == [False] * 99 + [True]


SEARCHES = {
    "12": {12},
    "site 12": {12},
    "sites 100-120": set(range(100, 121)),
    "site <= 2": {0, 1, 2},
    "1,234": {1_234},
    "3, 217, 641": {3, 217, 641},
    "100-120": set(range(100, 121)),
    "100 – 120 7": {7, *range(100, 121)},
    "set 3": {30, 31, 32},
    "Set = 3": {30, 31, 32},
    "set 3 31-40": {31, 32},
    "set>=3 set<4": {30, 31, 32},
    "effect < -7.4": {5},
    "effect = -7.5": {5},
    "−7.50": {5},
    "-7.50": {5},
    "set 99": set[int](),
    "nothing": set[int](),
    "<b>": set[int](),
    "0.5.(": set[int](),
}


@pytest.mark.parametrize("visit", [("in sets", 1280)], indirect=True, ids=str)
def test_search_finds_sites_by_number_range_column_and_text(visit: Visit) -> None:
    found: dict[str, set[float]] = {}
    for query, expected in SEARCHES.items():
        told = search(visit.page, query)
        found[query] = set(column(visit.page, "Site"))
        size = len(expected)
        assert told == (f"1–{size} of {size} site{'s' if size > 1 else ''}" if size else "No site matches")
    assert found == SEARCHES
    assert search(visit.page, "") == "1–100 of 2,000 sites"
    assert visit.complaints == []


@pytest.mark.parametrize("visit", [("in sets", 1280)], indirect=True, ids=str)
def test_what_was_found_is_sorted_and_saved_as_it_stands(visit: Visit) -> None:
    search(visit.page, "set 3 5")
    assert rows(visit.page) == []
    search(visit.page, "30-32 5")
    sort_by(visit.page, "Site")
    with visit.page.expect_download() as saving:
        visit.page.get_by_role("button", name="Save as CSV").click()
    assert saving.value.suggested_filename.endswith("-sites.csv")
    saved = pd.read_csv(saving.value.path())
    given = in_sets().tables["sites"].iloc[[5, 30, 31, 32]].reset_index(drop=True)
    assert list(saved.columns) == list(given.columns)
    pd.testing.assert_frame_equal(
        saved, given.assign(set=given["set"].where(given["set"] >= 0)), check_dtype=False, rtol=1e-5
    )
    assert visit.complaints == []


def test_without_javascript_the_first_rows_are_those_of_the_script(browser: Browser, files: dict[str, Path]) -> None:
    found: list[list[list[str]]] = []
    for javascript in (True, False):
        context = browser.new_context(java_script_enabled=javascript)
        page = context.new_page()
        page.goto(files["10,000 sites"].as_uri())
        found.append(rows(page))
        assert page.get_by_role("searchbox", name="Search").is_visible() is javascript
        assert page.get_by_role("button", name="Next").is_visible() is javascript
        context.close()
    assert len(found[0]) == 100
    assert found[0] == found[1]


@pytest.mark.parametrize("visit", [("lossy", 390)], indirect=True, ids=str)
def test_every_figure_is_saved_as_a_standalone_svg(visit: Visit) -> None:
    links = visit.page.get_by_role("link", name="Save as SVG")
    assert links.count() == visit.page.get_by_role("img").count() == 7
    names: set[str] = set()
    for link in links.all():
        with visit.page.expect_download() as saving:
            link.click()
        names.add(saving.value.suggested_filename)
        root = ElementTree.fromstring(saving.value.path().read_text(encoding="utf-8"))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert float(root.attrib["width"].removesuffix("pt")) == pytest.approx(85 / 25.4 * 72, abs=0.1)
        assert "var(--" not in ElementTree.tostring(root, encoding="unicode")
    assert len(names) == 7
    assert all(name.endswith(".svg") for name in names)
