"""What each assay of a study may ask for, given what is asked already: a budget holds over all stages together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from knockem_dagster.knockout.allotment import Allotment
from knockem_dagster.records.assays import AssayType
from knockem_dagster.records.stages import StageValue, WeighingGoalValue
from knockem_dagster.records.submissions import SubmissionRecord

Asked = Mapping[AssayType, int]
"""How many different competitions each assay has asked for so far; those recorded, whatever came of them."""


@dataclass(frozen=True, slots=True)
class SearchStart:
    """Where a search for sets begins: what it knows, and how many competitions of earlier searches are not its own."""

    known: tuple[frozenset[int], ...] = ()
    asked_before: int = 0


def allotment_of(submission: SubmissionRecord) -> Allotment:
    """Return what the options of the submission's current stage allow."""
    return Allotment(
        submission.num_sites,
        submission.resolution,
        submission.error_rate,
        submission.budget,
        skeletons_follow=AssayType.PREFIX_SKELETONS in submission.assay_types,
    )


def weighing_goal(submission: SubmissionRecord, asked: Asked) -> WeighingGoalValue:
    """Return what weighing aims at in the current stage, when so much is asked."""
    allotment = allotment_of(submission)
    return WeighingGoalValue(
        error=allotment.weighing_error,
        most_competitions=allotment.for_weighing(
            _spent(asked, AssayType.WEIGHING, AssayType.SET_ENUMERATION, AssayType.PREFIX_SKELETONS),
            sets_follow=AssayType.SET_ENUMERATION in submission.assay_types,
            searched=asked.get(AssayType.SET_ENUMERATION, 0),
            on_skeletons=asked.get(AssayType.PREFIX_SKELETONS, 0),
        ),
    )


def left_for_sets(submission: SubmissionRecord, asked: Asked, start: SearchStart) -> int:
    """Return what a search for sets that begins there may ask for, what it has asked already included."""
    return allotment_of(submission).for_sets(
        _spent(asked, AssayType.SET_ENUMERATION, AssayType.PREFIX_SKELETONS) + start.asked_before,
        on_skeletons=asked.get(AssayType.PREFIX_SKELETONS, 0),
    )


def left_for_skeletons(submission: SubmissionRecord, asked: Asked) -> int:
    """Return what the search for skeletons may ask for, what it has asked already included."""
    return allotment_of(submission).left(_spent(asked, AssayType.PREFIX_SKELETONS))


def search_start(stages: tuple[StageValue, ...], *, weighed: int) -> SearchStart:
    """Return where the search for sets begins, now that weighing has taken so many competitions.

    A search in an earlier stage with the same weights is done again, by its recorded answers, and goes on where it
    ended. With other weights it is another search, and begins with what was found.
    """
    for stage in reversed(stages):
        if stage.weighed != weighed:
            return SearchStart(tuple(frozenset(each) for each in stage.sets), stage.searched)
    return SearchStart()


def _spent(asked: Asked, *but: AssayType) -> int:
    return sum(number for assay_type, number in asked.items() if assay_type not in but)
