"""What assays may ask for: a budget holds over all stages, and from which stage a result stands."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from knockem_dagster.assay_runs.shares import (
    SearchStart,
    left_for_sets,
    left_for_skeletons,
    search_start,
    weighing_goal,
)
from knockem_dagster.records.assays import AssayType
from knockem_dagster.records.stages import StageValue, stage_of_result
from tests.services.submissions import a_submission

WEIGHING, SETS, SKELETONS = AssayType.WEIGHING, AssayType.SET_ENUMERATION, AssayType.PREFIX_SKELETONS


def stage(**changes: object) -> StageValue:
    return StageValue.model_validate({"resolution": 0.4, "error_rate": 0.02, "skeletons": 5, **changes})


@given(st.lists(st.tuples(st.integers(50, 5000), *[st.floats(0, 1)] * 3), min_size=1, max_size=4), st.data())
def test_no_budget_is_ever_exceeded_whatever_each_assay_takes_of_its_share(
    stages: list[tuple[int, float, float, float]], data: st.DataObject
) -> None:
    asked_for = (WEIGHING, *[each for each in (SETS, SKELETONS) if data.draw(st.booleans(), label=each.value)])
    budget, asked = 0, {AssayType.NULLDIST: 12, WEIGHING: 0, SETS: 0, SKELETONS: 0}
    for more, weighing, sets, skeletons in stages:
        budget += more
        submission = a_submission(budget=budget, assay_types=asked_for)
        goal = weighing_goal(submission, asked)
        asked[WEIGHING] = max(asked[WEIGHING], int(weighing * goal.most_competitions))
        if SETS in asked_for:
            before = asked[SETS]
            left = left_for_sets(submission, asked, SearchStart(asked_before=before))
            asked[SETS] = before + int(sets * left)
        if SKELETONS in asked_for:
            asked[SKELETONS] = max(asked[SKELETONS], int(skeletons * left_for_skeletons(submission, asked)))
        assert goal.error == 0
        assert sum(asked.values()) <= budget


def test_without_a_budget_the_resolution_decides_and_nothing_runs_out() -> None:
    coarse, fine = (weighing_goal(a_submission(resolution=each), {}) for each in (0.4, 0.1))
    assert coarse.error == 4 * fine.error > 0
    assert left_for_sets(a_submission(), {SETS: 10**6}, SearchStart(asked_before=10**6)) >= 10**6


def test_a_search_begins_with_what_was_found_when_the_weights_are_others() -> None:
    stages = (stage(weighed=100, sets=[[1, 2]], searched=30), stage(weighed=200, sets=[[1, 2], [7]], searched=50))
    assert search_start(stages, weighed=300) == SearchStart((frozenset({1, 2}), frozenset({7})), 50)


def test_a_search_with_the_same_weights_is_done_again_from_where_it_began() -> None:
    stages = (stage(weighed=100, sets=[[1, 2]], searched=30), stage(weighed=200, sets=[[1, 2], [7]], searched=50))
    assert search_start(stages, weighed=200) == SearchStart((frozenset({1, 2}),), 30)
    assert search_start(stages[:1], weighed=100) == SearchStart()
    assert search_start((), weighed=100) == SearchStart()


def test_a_weighing_that_was_not_over_has_shown_nothing_to_a_search() -> None:
    assert search_start((stage(weighed=None, searched=0),), weighed=100) == SearchStart()


def test_a_result_stands_until_an_option_of_its_assay_or_of_one_it_needs_changes() -> None:
    stages = (stage(), stage(resolution=0.2), stage(resolution=0.2, skeletons=9))
    assert [stage_of_result(each, stages) for each in (WEIGHING, SETS, SKELETONS)] == [1, 1, 2]
    assert stage_of_result(AssayType.JACKKNIFE_KNOCKOUT, stages) == 2
    assert stage_of_result(AssayType.SKELETON_MARK_RECAPTURE, stages) == 2
    assert stage_of_result(SKELETONS, (stage(budget=100), stage(budget=200))) == 1
    frozen = {AssayType.NULLDIST, AssayType.SCREEN_CRITICAL, AssayType.DOSE_CALIBRATION, AssayType.DOSE_TITRATION}
    assert {stage_of_result(each, (*stages, stage(budget=5))) for each in frozen} == {0}
