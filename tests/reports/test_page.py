from __future__ import annotations

import functools
import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest

from knockem_dagster.assay_runs.findings import INTERIM_ESTIMATES
from knockem_dagster.errors import InvalidInput
from knockem_dagster.records.tables import TABLES
from knockem_dagster.reports.caveats import loss_details
from knockem_dagster.reports.inputs import NegativeBinomialFit, NullFacts, ReportInputs
from knockem_dagster.reports.page import report_page
from tests.reports import synthetic


class Outline(HTMLParser):
    """Tags, ids and attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id" and value]


@functools.cache
def given() -> ReportInputs:
    return synthetic.inputs(num_sites=200)


@functools.cache
def page() -> str:
    return report_page(given())


def test_report_at_ten_thousand_sites_stays_under_five_megabytes() -> None:
    assert len(report_page(synthetic.inputs(num_sites=10_000)).encode()) < 5_000_000


def test_report_is_the_same_every_time() -> None:
    assert report_page(given()) == page()


def test_report_refers_to_nothing_outside_itself() -> None:
    outline = Outline(page())
    referring = [value for name, value in outline.attributes if name in {"src", "href", "xlink:href", "data", "action"}]
    assert all(value.startswith(("data:", "#")) for value in referring)
    assert "@import" not in page()
    assert not re.search(r"url\((?!#)", page())
    assert outline.tags.count("script") == 2


def test_ids_are_unique() -> None:
    ids = Outline(page()).ids
    assert len(ids) == len(set(ids)) > 10


def test_hostile_output_is_shown_and_not_run() -> None:
    assert re.findall("<script[^>]*>", page()) == ['<script type="application/json">', "<script>"]
    assert "<img" not in page()
    assert "&lt;script&gt;document.title" in page()
    assert "\x00" not in page()
    assert "\x1b" not in page()


def test_every_text_of_the_inputs_is_escaped() -> None:
    evil = "<b onload=x>&"
    submission = replace(
        given().submission, organism=evil, id=evil, digest=evil, revision=evil, user_email=evil, settings={evil: evil}
    )
    tables = {"estimates": given().tables["estimates"].assign(method=evil)}
    facts = replace(synthetic.lossy(), attempts={evil: 3})
    made = report_page(
        replace(given(), submission=submission, tables=tables, losses=facts, competitions_by_assay={evil: 1})
    )
    assert "<b " not in made
    assert made.count("&lt;b onload=x&gt;&amp;") >= 10


def test_output_is_cut_to_its_last_lines() -> None:
    longest = max(len(run) for run in re.findall("x+", page()))
    assert 1_900 <= longest <= 2_000


@pytest.mark.parametrize("present", [*(name for name in TABLES if name != INTERIM_ESTIMATES), None])
def test_report_is_made_from_any_one_table_or_none(present: str | None) -> None:
    tables = {} if present is None else {present: given().tables[present]}
    made = report_page(replace(given(), tables=tables, dose_fit=None, null=None))
    assert "competitions were asked for" in made
    assert 'id="provenance"' in made


@pytest.mark.parametrize(
    "pair", list(itertools.combinations(("null_distribution", "skeletons", "jackknife", "sites"), 2))
)
def test_sections_appear_exactly_when_their_tables_are_there(pair: tuple[str, str]) -> None:
    made = report_page(replace(given(), tables={name: given().tables[name] for name in pair}))
    assert ('id="section-null"' in made) == ("null_distribution" in pair)
    assert ('id="section-sites"' in made) == ("sites" in pair)
    assert ('id="section-skeletons"' in made) == ("skeletons" in pair)
    assert ('id="section-jackknife"' in made) == (set(pair) == {"skeletons", "jackknife"})


def test_report_of_empty_tables_is_that_of_missing_ones() -> None:
    empty = {name: table.head(0) for name, table in given().tables.items()}
    assert report_page(replace(given(), tables=empty)) == report_page(replace(given(), tables={}))


def test_tables_that_are_not_declared_are_refused_with_every_fault() -> None:
    with pytest.raises(InvalidInput) as refused:
        replace(
            given(), tables={"sitez": pd.DataFrame(), "sites": given().tables["sites"].drop(columns=["low", "set"])}
        )
    assert [fault.field for fault in refused.value.faults] == ["tables", "tables.sites"]
    assert "low, set" in str(refused.value)


def rows_of_estimates(made: str) -> list[dict[str, str]]:
    card = made[made.index('id="estimates"') :]
    bodies = re.findall(r"<tr role=\"row\">(.*?)</tr>", card[: card.index("</table>")], re.DOTALL)[1:]
    return [
        {
            "quantity": re.findall(r"<th[^>]*>(.*?)</th>", body)[0],
            **dict(re.findall(r'data-label="(\w+)">(.*?)</td>', body)),
        }
        for body in bodies
    ]


def test_truth_stands_beside_each_estimate() -> None:
    rows = {row["quantity"]: row for row in rows_of_estimates(page())}
    assert rows["additive sites"]["Truth"] == "10"
    assert rows["epistatic sites"]["Truth"] == "8"
    assert rows["additive sites"]["Interval"] == "none"
    assert rows["functional sites"]["Interval"].endswith("(95%)")


def test_without_a_truth_only_its_column_is_empty() -> None:
    without = replace(given(), truth=None, tables={"estimates": given().tables["estimates"]})
    told, untold = rows_of_estimates(page()), rows_of_estimates(report_page(without))
    assert [{**row, "Truth": ""} for row in told] == [{**row, "Truth": ""} for row in untold]
    assert {row["Truth"] for row in untold} == {"–"}


def test_an_estimate_that_was_not_possible_says_so() -> None:
    estimates = given().tables["estimates"].assign(value=float("nan"), low=float("nan"), high=float("nan"))
    made = report_page(replace(given(), tables={"estimates": estimates}))
    assert [row["Estimate"] for row in rows_of_estimates(made)] == ["not possible"] * 5


def test_exact_organism_is_reported() -> None:
    tables = {"null_distribution": given().tables["null_distribution"].assign(score=0.0)}
    null = NullFacts(mean=0.0, sd=0.0, threshold=0.25, unit=0.25, symmetry_p=float("nan"))
    assert "this organism answers exactly" in report_page(replace(given(), tables=tables, null=null))


def test_organism_without_any_effect_is_reported() -> None:
    tables = {
        **given().tables,
        "skeletons": given().tables["skeletons"].assign(kept=False),
        "titration": given().tables["titration"].assign(detected=False),
        "sites": given()
        .tables["sites"]
        .assign(effect=float("nan"), low=float("nan"), high=float("nan"), probability=0.0),
    }
    null = NullFacts(mean=0.0, sd=0.0, threshold=0.0, unit=float("nan"), symmetry_p=float("nan"))
    fit = NegativeBinomialFit(r=float("nan"), p=0.0)
    made = report_page(replace(given(), tables=tables, null=null, dose_fit=fit, truth=None))
    assert "200 sites (100%) stayed in none" in made
    assert not re.search(r"\bnan\b", re.sub(r"<svg.*?</svg>", "", made, flags=re.DOTALL), re.IGNORECASE)
    assert "negative binomial fit:" not in made


def test_what_became_of_lost_competitions_stands_with_the_attempts() -> None:
    told = loss_details(synthetic.lossy())
    assert told[0].startswith("37 competitions stayed untestable after every retry")
    assert told[-1].startswith("All attempts together occupied workers for 8.7 h; 1.2 h of it")
    card = page()[page().index('id="attempts"') :]
    assert all(detail in card for detail in told)


def test_what_each_assay_asked_and_lost_is_told() -> None:
    asked = {"nulldist": 100, "weighing": 5_000, "setEnumeration": 23_250}
    card = report_page(replace(given(), competitions_by_assay=asked))
    rows = re.findall(r"<tr><th scope=\"row\">(\w+)</th>(.*?)</tr>", card[card.index('id="assays"') :])
    cells = {name: re.findall(r'<td class="numeric">(.*?)</td>', row) for name, row in rows[:3]}
    assert cells == {
        "nulldist": ["100", "0.4%", "0"],
        "weighing": ["5,000", "17.6%", "30"],
        "setEnumeration": ["23,250", "82%", "7"],
    }


def test_table_of_sites_appears_only_where_a_site_has_evidence() -> None:
    sites = given().tables["sites"]
    nothing = sites.assign(effect=float("nan"), low=float("nan"), high=float("nan"), probability=float("nan"))
    assert 'id="sites"' in page()
    without = report_page(replace(given(), tables={"sites": nothing}))
    assert 'id="section-sites"' in without
    assert 'id="sites"' not in without
    assert "<script" not in without
    assert "script-src" not in without


def test_methods_paragraph_appears_only_where_its_table_is_there() -> None:
    assert 'id="methods"' in page()
    assert 'id="methods"' not in report_page(replace(given(), tables={"sites": given().tables["sites"]}))
