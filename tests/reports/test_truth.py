from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockem_dagster.reports.inputs import Quantity, TruthFacts
from knockem_dagster.reports.truth import SiteKind, site_kinds, true_values, with_truth
from tests.reports import synthetic

SITES = st.integers(0, 30)
TRUTHS = st.builds(
    TruthFacts,
    effects=st.dictionaries(SITES, st.floats(-1, 3)),
    sets=st.lists(st.lists(SITES, min_size=2, max_size=5, unique=True), max_size=5),
)


def test_true_values_of_a_small_organism() -> None:
    truth = TruthFacts(effects={0: 0.2, 1: 0.4, 2: 1.0, 3: 1.4, 4: 0.0, 5: -0.3}, sets=[[3, 7], [7, 8, 9]])
    assert true_values(truth, resolution=0.3) == {
        "additive sites": 5,
        "mean effect of additive sites": pytest.approx(0.54),
        "epistatic sites": 4,
        "sites detected alone": 2,
        "functional sites": 8,
        "functional sites above the resolution": 6,
        "epistatic sets": 2,
        "sites with effect above the resolution": 3,
    }


@given(TRUTHS)
def test_functional_sites_are_the_union_of_additive_and_epistatic(truth: TruthFacts) -> None:
    values = true_values(truth)
    additive, epistatic = values[Quantity.ADDITIVE_SITES], values[Quantity.EPISTATIC_SITES]
    assert max(additive, epistatic) <= values[Quantity.FUNCTIONAL_SITES] <= additive + epistatic
    assert values[Quantity.DETECTED_ALONE] <= additive
    assert math.isnan(values[Quantity.MEAN_EFFECT]) == (additive == 0)


@given(TRUTHS)
def test_kinds_agree_with_the_counts(truth: TruthFacts) -> None:
    kinds = site_kinds(np.arange(31), truth)
    assert kinds is not None
    assert kinds.count(SiteKind.EPISTATIC) == true_values(truth)[Quantity.EPISTATIC_SITES]
    assert 31 - kinds.count(SiteKind.WITHOUT_EFFECT) == true_values(truth)[Quantity.FUNCTIONAL_SITES]


def test_truth_adds_one_column_and_changes_nothing() -> None:
    given = synthetic.inputs(num_sites=100)
    estimates = given.tables["estimates"]
    before = estimates.copy()
    for truth in (given.truth, None):
        pd.testing.assert_frame_equal(with_truth(estimates, truth).drop(columns="truth"), before)
    assert with_truth(estimates, given.truth)["truth"].notna().all()
    assert with_truth(estimates, None)["truth"].isna().all()


def test_unknown_quantities_have_no_truth() -> None:
    estimates = synthetic.inputs(num_sites=100).tables["estimates"].assign(quantity="something newer")
    assert with_truth(estimates, TruthFacts(effects={1: 0.5}, sets=[]))["truth"].isna().all()
