"""What a report says first: which sentences there are, and what each of them holds."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from knockem_dagster.knockout.quantities import unit_of
from knockem_dagster.records.tables import TABLES
from knockem_dagster.reports.first_screen import MOST_SENTENCES, first_screen
from knockem_dagster.reports.inputs import ReportInputs
from knockem_dagster.reports.sentences import Sentence
from knockem_dagster.reports.text import report_text
from tests.reports import synthetic

NAN = math.nan
SETS_METHOD = "weighing and enumeration of sets"
WEIGHED = [
    ("functional sites", 91.8, 88.0, 96.0, SETS_METHOD),
    ("additive sites", 52.9, 49.0, 57.0, "weighing; effects spread evenly"),
    ("additive sites", 58.2, 50.0, 70.0, "weighing; room for many small effects"),
    ("sites with effect above the resolution", 46.4, 45.0, 48.0, "weighing"),
    ("additive sites named", 31.0, NAN, NAN, "weighing"),
    ("mean effect of additive sites", 0.424, NAN, NAN, "weighing; of those named"),
    ("epistatic sets", 10.1, 10.0, 11.0, SETS_METHOD),
    ("epistatic sites", 40.0, NAN, NAN, SETS_METHOD),
]
PUBLISHED_TABLES = {"null_distribution", "screen", "calibration", "titration", "skeletons", "jackknife", "estimates"}


def estimates_table(rows: list[tuple[str, float, float, float, str]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            (quantity, value, low, high, unit_of(quantity), NAN if math.isnan(low) else 0.95, method, 5_881)
            for quantity, value, low, high, method in rows
        ],
        columns=["quantity", "value", "low", "high", "unit", "level", "method", "n"],
    )


@functools.cache
def weighed() -> ReportInputs:
    """A study of weighing and enumeration: 31 sites named, 40 in sets, 929 not resolved, nothing lost."""
    given = synthetic.inputs(num_sites=1_000, losses=synthetic.lossless())
    finding = np.array(["additive"] * 31 + ["in a set"] * 40 + ["not resolved"] * 929)
    tables = {name: given.tables[name] for name in ("null_distribution", "weights", "sets", "study")}
    return replace(
        given,
        submission=replace(given.submission, assay_types=["nulldist", "weighing", "setEnumeration"], resolution=0.1),
        tables={
            **tables,
            "estimates": estimates_table(WEIGHED),
            "sites": given.tables["sites"].assign(finding=finding),
        },
        competitions_by_assay={"nulldist": 100, "weighing": 5_000, "setEnumeration": 23_250},
    )


@functools.cache
def published() -> ReportInputs:
    given = synthetic.inputs(num_sites=1_000)
    return replace(
        given, tables={name: table for name, table in given.tables.items() if name in {*PUBLISHED_TABLES, "sites"}}
    )


def sentence(inputs: ReportInputs, words: str) -> Sentence:
    """Return the one sentence that has these words."""
    [found] = [each for each in first_screen(inputs) if words in each.plain]
    return found


def with_skeletons(made: int) -> ReportInputs:
    given = synthetic.inputs(num_sites=1_000, losses=synthetic.lossless())
    rows = [("sites of a minimal genome", 81.2, 78.0, 84.0, "skeletons by prefix search")]
    rows.append(("effect of all deletions together", 1.23, 0.9, 1.6, "skeletons by prefix search"))
    if made == 1:
        rows = [("sites of a minimal genome", 81.0, NAN, NAN, "skeletons by prefix search")]
    summary = pd.DataFrame({column.name: np.ones(made) for column in TABLES["prefix_skeleton_summary"].columns})
    return replace(given, tables={"prefix_skeleton_summary": summary, "estimates": estimates_table(rows)})


def with_estimates(inputs: ReportInputs, changes: dict[str, tuple[float, str]]) -> ReportInputs:
    """Return the inputs with the value and what is appended to the method of some quantities changed, no interval."""
    table = inputs.tables["estimates"].copy()
    for quantity, (value, reason) in changes.items():
        chosen = table["quantity"] == quantity
        table.loc[chosen, ["value", "low", "high", "level"]] = [value, NAN, NAN, NAN]
        table.loc[chosen, "method"] = table.loc[chosen, "method"] + reason
    return replace(inputs, tables={**inputs.tables, "estimates": table})


def test_a_weighed_study_is_told_in_seven_sentences_in_order() -> None:
    told = [each.plain for each in first_screen(weighed())]
    assert [text.partition(" (")[0] for text in told[:2]] == [
        "91.8 of 1,000 sites are functional",
        "52.9 of 1,000 sites are additive, each with an effect of its own",
    ]
    assert [text.split()[0] for text in told] == ["91.8", "52.9", "31", "10.1", "929", "0", "28,350"]
    assert not any(each.warns for each in first_screen(weighed()))


def test_counts_have_their_interval_and_the_total_has_both_priors() -> None:
    assert "(95% interval 88 to 96)" in sentence(weighed(), "functional").plain
    additive = sentence(weighed(), "are additive").plain
    assert "(95% interval 49 to 57; with room for many small effects: 58.2, 50 to 70)" in additive
    sets = sentence(weighed(), "redundant sets").plain
    assert sets.startswith("10.1 redundant sets that cost 0.5 detection thresholds or more (95% interval 10 to 11);")
    assert "; 10 with 40 sites in all were found" in sets


def test_named_sites_come_with_their_error_rate_and_the_resolution() -> None:
    named = sentence(weighed(), "named one by one").plain
    assert named.startswith("31 additive sites are named one by one, at most 0.02 of them by mistake in expectation")
    assert "46.4 sites (95% interval 45 to 48) have an effect above 0.1 detection thresholds" in named


def test_other_sites_are_not_resolved_below_the_effect_that_would_have_been_named() -> None:
    rest = sentence(weighed(), "not resolved").plain
    assert rest == (
        "929 other sites are not resolved: an effect above 0.322 detection thresholds would have been named with a "
        "probability of 0.977, a smaller one may have been missed."
    )


@pytest.mark.parametrize("given", [weighed, published])
def test_no_sentence_calls_a_site_neutral_or_without_effect(given: object) -> None:
    text = report_text(given())  # type: ignore[operator]
    assert "neutral" not in text.lower()
    assert "no effect" not in text.lower()


def test_where_no_assay_tests_any_site_all_are_untested() -> None:
    given = synthetic.inputs(num_sites=20, losses=synthetic.lossless(), only={"sites"})
    given = replace(given, tables={"sites": given.tables["sites"].assign(finding="not tested")})
    told = sentence(given, "not tested").plain
    assert told.startswith("20 sites were not tested, for no assay that was asked for tests any; effects below one")


def test_what_was_not_tested_is_told_even_if_every_site_was() -> None:
    told = sentence(weighed(), "left untested").plain
    assert told.startswith("0 sites were left untested; sets that cost less than 0.5 detection thresholds were not")
    without = replace(
        weighed(), submission=replace(weighed().submission, assay_types=["nulldist", "weighing"]), sets_complete=True
    )
    assert "redundant sets were not looked for: ask for setEnumeration" in sentence(without, "left untested").plain


def test_untested_sites_and_lost_competitions_warn_before_anything_else() -> None:
    told = first_screen(replace(weighed(), losses=synthetic.lossy()))
    assert [each.warns for each in told] == [True, True, *[False] * 5]
    assert told[0].plain.startswith("3 sites could not be tested (3, 217, 641): any may be functional or not")
    assert "37 (0.1%) gave no answer" in told[1].plain
    assert "1,702 of 30,015 attempts (5.7%) failed, at 14% of the workers’ time" in told[1].plain


def test_a_budget_that_ended_the_search_warns() -> None:
    study = synthetic.study(synthetic.organism(np.random.default_rng(1), 1_000), BUDGET=5_000)
    ended = replace(weighed(), tables={**weighed().tables, "study": study}, sets_complete=False)
    told = sentence(ended, "the budget")
    assert told.warns
    assert "the budget of 5,000 competitions ended before all redundant sets were searched for" in told.plain


def test_a_declined_estimate_is_the_first_sentence_with_its_reason() -> None:
    drift = "; declined: the null drifts between batches"
    declined = with_estimates(
        weighed(), {"functional sites": (NAN, drift), "epistatic sets": (NAN, drift), "epistatic sites": (NAN, drift)}
    )
    told = first_screen(declined)
    assert told[0].warns
    assert told[0].plain == (
        "No estimate and no interval is given for functional sites, epistatic sets and epistatic sites: "
        "the null drifts between batches."
    )
    assert not any("are functional" in each.plain or "redundant sets (" in each.plain for each in told)


def test_an_estimate_that_kept_its_value_lacks_its_interval_only() -> None:
    declined = with_estimates(weighed(), {"functional sites": (91.8, "; declined: effects do not add up")})
    assert first_screen(declined)[0].plain == "No interval is given for functional sites: effects do not add up."
    assert "no interval: the method gives none" in sentence(declined, "are functional").plain


def test_a_declined_estimate_is_not_replaced_by_a_published_one() -> None:
    drift = with_estimates(weighed(), {"functional sites": (NAN, "; declined: it drifts")})
    other = estimates_table([("functional sites", 140.0, 120.0, 160.0, "mark-recapture (Burnham-Overton 1979)")])
    both = pd.concat([other, drift.tables["estimates"]], ignore_index=True)
    told = first_screen(replace(drift, tables={**drift.tables, "estimates": both}))
    assert told[0].plain.startswith("No estimate and no interval is given for functional sites")
    assert not any("140" in each.plain for each in told)


def test_a_mean_of_no_named_site_is_missing_without_a_word() -> None:
    none = with_estimates(weighed(), {"additive sites named": (0.0, ""), "mean effect of additive sites": (NAN, "")})
    assert not any("No estimate" in each.plain for each in first_screen(none))
    assert "mean effect" not in sentence(none, "named one by one").plain


def test_published_assays_alone_are_told_without_weighing() -> None:
    told = [each.plain for each in first_screen(published())]
    assert any("sites are functional (95% interval 80.1 to 96.6)" in text for text in told)
    assert any("are additive, each with an effect of its own (no interval: the method gives none)" in t for t in told)
    assert any("are epistatic" in text for text in told)
    assert any("are detected when knocked out alone" in text for text in told)
    assert any("not resolved: one knockout shows an effect of about one detection threshold" in text for text in told)
    assert any("effects below one threshold were not looked for site by site: ask for weighing" in t for t in told)


def test_an_estimate_nobody_knows_is_quoted_by_its_name_while_there_is_room() -> None:
    new = estimates_table([(f"quantity {number}", 7.0, 6.0, 9.0, "skeletons by prefix search") for number in range(20)])
    told = first_screen(replace(published(), tables={"estimates": new}))
    assert len(told) == MOST_SENTENCES
    assert any(each.plain == "7 is the estimate of “quantity 0” (95% interval 6 to 9)." for each in told)


@pytest.mark.parametrize("given", [weighed, published])
@pytest.mark.parametrize("lost", [synthetic.lossy(), synthetic.lossless()])
def test_there_are_never_more_than_eight_sentences(given: object, lost: object) -> None:
    inputs: ReportInputs = replace(given(), losses=lost, sets_complete=False)  # type: ignore[operator]
    published_rows = synthetic.inputs(num_sites=1_000).tables["estimates"]
    both = pd.concat([inputs.tables["estimates"], published_rows, estimates_table(WEIGHED)], ignore_index=True)
    declined = with_estimates(
        replace(inputs, tables={**inputs.tables, "estimates": both}), {"epistatic sites": (NAN, "; declined: a")}
    )
    told = first_screen(declined)
    assert 6 <= len(told) <= MOST_SENTENCES
    assert all(each.plain.endswith(".") for each in told)


def test_a_study_without_estimates_says_what_it_took() -> None:
    bare = replace(weighed(), tables={})
    assert [each.plain for each in first_screen(bare)] == [
        "28,350 competitions were asked for, 23,250 of them by setEnumeration, and all were answered at the first "
        "attempt."
    ]


def test_truth_stands_beside_a_number_and_outside_its_sentence() -> None:
    found = sentence(weighed(), "functional")
    assert "truth: " in found.aside
    assert "truth" not in found.plain
    assert "truth" not in sentence(replace(weighed(), truth=None), "functional").aside


def test_minimal_genomes_are_told_with_the_range_of_those_made() -> None:
    several = (
        "81.2 of 1,000 sites are left in a minimal genome, on average (78 to 84 in the 5 that were made); all other"
    )
    assert sentence(with_skeletons(5), "minimal").plain == (
        f"{several} sites together cost 1.23 detection thresholds (95% interval 0.9 to 1.6)."
    )
    assert sentence(with_skeletons(1), "minimal").plain == (
        "81 of 1,000 sites are left in a minimal genome, on average (only one was made)."
    )
