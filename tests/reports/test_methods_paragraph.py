"""The methods paragraph: each number in it is one of the table's, and it tells of the assays that ran only."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest

from knockem_dagster.records.tables import TABLES
from knockem_dagster.reports import study_facts
from knockem_dagster.reports.methods import methods_paragraph
from knockem_dagster.reports.study_facts import StudyFacts, study_table
from tests.reports import synthetic
from tests.reports.numbers import numbers_not_in

PUBLISHED = {
    "screenCritical": {"DISCOVERY_RATE": 0.05},
    "doseCalibration": {"SMEAR": 250},
    "doseTitration": {"TITRATION_DOSES": 5, "TITRATION_REPLICATES": 1_000},
    "skeletonization": {"SKELETONS_MADE": 20},
    "jackknifeKnockout": {},
    "prefixSkeletons": {"PREFIX_MADE": 5, "PREFIX_RESOLUTION": 0.4},
}


def study(**changes: float | str | None) -> pd.DataFrame:
    return synthetic.study(synthetic.organism(np.random.default_rng(1), 1_000), **changes)


def everything() -> pd.DataFrame:
    """A study in which every assay ran."""
    facts = {name: value for given in PUBLISHED.values() for name, value in given.items()}
    asked = {study_facts.asked_by(name): 1_000 + number for number, name in enumerate(PUBLISHED)}
    stages = {study_facts.stage(1): "resolution 0.8, budget 900, skeletons 3", study_facts.stage(2): "resolution 0.4"}
    return pd.concat([study(BUDGET=30_000, **facts), study_table(asked), study_table(stages)], ignore_index=True)


EXACT = {"NULL_SD": 0.0, "NULL_MEAN": 0.0, "NULL_P": None, "STANDARD_ERROR": 0.0, "SURELY_NAMED": 0.0, "POWER": None}
CASES = {
    "weighed": study(),
    "every assay": everything(),
    "without noise": study(**EXACT),
    "budget ended": study(SETS_COMPLETE="no", BUDGET=5_000),
    "one of each": study(SITES=1, ASKED=1, UNTESTED=1, NULL_COMPETITIONS=1),
}


@pytest.mark.parametrize("table", CASES.values(), ids=CASES)
def test_every_number_stands_in_the_table(table: pd.DataFrame) -> None:
    paragraph = methods_paragraph(StudyFacts(table))
    assert len(re.findall(r"\d+", paragraph)) > 20
    assert numbers_not_in(paragraph, table) == []


def test_a_number_that_is_not_in_the_table_would_be_found() -> None:
    paragraph = methods_paragraph(StudyFacts(study()))
    assert numbers_not_in(f"{paragraph} At 12.5% and in 77 runs.", study()) == ["12.5%", "77"]
    assert numbers_not_in(paragraph, study(SEED=5)) == ["20240417"]


def test_only_assays_that_ran_are_told() -> None:
    weighed, every = methods_paragraph(StudyFacts(study())), methods_paragraph(StudyFacts(everything()))
    parts = ("Benjamini", "negative binomial", "greedy deletion", "taken as epistatic", "bisecting prefixes")
    for words in (*parts, "asked for resolution 0.8, budget 900, skeletons 3; then for resolution 0.4."):
        assert words in every
        assert words not in weighed
    assert "chemical balance" in weighed
    assert "sequential probability ratio" in weighed


def test_an_organism_without_noise_is_told_as_such() -> None:
    told = methods_paragraph(StudyFacts(study(**EXACT)))
    assert "free of noise" in told
    assert "spike-and-slab" not in told
    assert "sequential" not in told


def test_without_its_table_there_is_no_paragraph() -> None:
    assert methods_paragraph(StudyFacts(None)) == ""


def test_facts_are_read_back_as_they_were_and_missing_ones_have_no_row() -> None:
    table = study_table(
        {
            study_facts.SEED: 7,
            study_facts.THRESHOLD: 1 / 3,
            study_facts.ORGANISM: "explicit",
            study_facts.BUDGET: None,
            study_facts.UNIT: math.nan,
        }
    )
    facts = StudyFacts(table)
    assert list(table.columns) == [column.name for column in TABLES["study"].columns]
    assert (facts.number(study_facts.SEED), facts.text(study_facts.SEED)) == (7, "7")
    assert facts.number(study_facts.THRESHOLD) == 1 / 3
    assert facts.text(study_facts.ORGANISM) == "explicit"
    assert len(table) == 3
    assert study_facts.BUDGET not in facts
    assert math.isnan(facts.number(study_facts.UNIT))


def test_every_fact_has_a_name_of_its_own_and_a_meaning() -> None:
    facts = [value for value in vars(study_facts).values() if isinstance(value, study_facts.Fact)]
    assert len({fact.name for fact in facts}) == len(facts) > 30
    assert all(fact.meaning for fact in facts)
