"""Going on with a study that is over: a finer resolution, a larger budget or more skeletons, in a new stage of it.

What was found stays readable until the new stage has something better. No recorded competition is run again: every
assay asks its earlier questions first, finds their answers, and goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from knockem_dagster.assay_runs.findings import Findings
from knockem_dagster.assay_runs.intake import expected_competitions
from knockem_dagster.assay_runs.shares import weighing_goal
from knockem_dagster.assay_runs.status import is_leased
from knockem_dagster.assay_runs.submission_file import FINEST_RESOLUTION, MOST_BUDGET, MOST_SKELETONS
from knockem_dagster.errors import Fault, InvalidInput, SubmissionBusy
from knockem_dagster.knockout.score_model import ScoreModel
from knockem_dagster.platform import Platform
from knockem_dagster.records.assays import AssayType, with_needs
from knockem_dagster.records.stages import OPTIONS_OF, StageValue, WeighingGoalValue
from knockem_dagster.records.submissions import SubmissionRecord


@dataclass(frozen=True, slots=True)
class Extension:
    """What to ask for from now on: smallest effect (detection thresholds), competitions and skeletons, all in all."""

    resolution: float | None = None
    budget: int | None = None
    skeletons: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options that are to change."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def extend(platform: Platform, submission: SubmissionRecord, extension: Extension) -> SubmissionRecord:
    """Open a submission that is over in a new stage, and return it.

    Raises InvalidInput with every fault of the extension, SubmissionBusy while the submission is not over.
    """
    if not submission.state.is_final or is_leased(submission):
        raise _busy(submission)
    findings = Findings(platform, submission)
    asked = findings.asked()
    faults = list(_faults(submission, extension, is_exact=_is_exact(submission, findings)))
    if faults:
        raise InvalidInput(f"Submission {submission.id} cannot be extended so.", faults)
    stage = _stage(submission, findings, asked)
    extended = submission.model_copy(update={**extension.options, "stages": (*submission.stages, stage)})
    found = platform.records.assay_results.find({"submissionId": submission.id})
    expected = expected_competitions(extended, submission.num_sites, is_exact=submission.stated_unit is not None)
    changes = {
        **extension.options,
        "expectedCompetitions": max(expected, sum(asked.values())),
        "counters.submissionNumCompletedAssays": sum(extended.stands(result) for result in found),
    }
    submissions = platform.records.submissions
    if not submissions.open_stage(submission, stage, changes):
        raise _busy(submissions.get(submission.id))
    return submissions.get(submission.id)


def _busy(submission: SubmissionRecord) -> SubmissionBusy:
    id = submission.id[:8]
    if submission.state.is_final:
        return SubmissionBusy(f"The run of submission {submission.id} is just ending; extend it in a moment.")
    return SubmissionBusy(
        f"Submission {submission.id} is {submission.state.value}; `./knockem status {id}` shows how far it is. "
        f"Extend it when it is over, or end it with `./knockem cancel {id}`: what is recorded is kept."
    )


def _is_exact(submission: SubmissionRecord, findings: Findings) -> bool:
    """Tell whether the organism is without noise, as far as is known."""
    if findings.standing(AssayType.NULLDIST) is None:
        return submission.stated_unit is not None
    return ScoreModel.fit(findings.null).is_exact


def _faults(submission: SubmissionRecord, extension: Extension, *, is_exact: bool) -> Iterator[Fault]:
    if not extension.options:
        yield Fault("extension", "none", "at least one of a finer resolution, a larger budget or more skeletons is")
    if extension.resolution is not None and (why := _not_finer(submission, extension, is_exact=is_exact)):
        yield Fault("resolution", f"{extension.resolution:g}", why)
    if extension.budget is not None and (why := _not_larger(submission, extension.budget)):
        yield Fault("budget", str(extension.budget), why)
    if extension.skeletons is not None and (why := _not_more(submission, extension.skeletons)):
        yield Fault("skeletons", str(extension.skeletons), why)


def _not_finer(submission: SubmissionRecord, extension: Extension, *, is_exact: bool) -> str:
    """Return why the resolution cannot be this one; empty if it can."""
    resolution, present = extension.resolution or 0.0, submission.resolution
    if not _goes_by(submission, "resolution"):
        return _nothing_for("weighs no sites", AssayType.WEIGHING)
    if is_exact:
        return "the organism is without noise, so that effects are known as finely as they can be"
    if submission.budget is not None and extension.budget is None:
        return f"the study weighs as finely as its budget of {submission.budget} allows; a larger budget is"
    if not FINEST_RESOLUTION <= resolution < present:
        return f"the study has {present:g} (detection thresholds); a finer one, from {FINEST_RESOLUTION:g}, is"
    return ""


def _not_larger(submission: SubmissionRecord, budget: int) -> str:
    """Return why the budget cannot be this one; empty if it can."""
    present = submission.budget
    if not _goes_by(submission, "budget"):
        return _nothing_for("has no assay that goes by a budget", AssayType.WEIGHING)
    if present is None:
        return "the study has no budget, so there is nothing to enlarge; a finer resolution or more skeletons are"
    if not present < budget <= MOST_BUDGET:
        return f"the study has {present} (competitions in all); a larger whole number, up to {MOST_BUDGET}, is"
    return ""


def _not_more(submission: SubmissionRecord, skeletons: int) -> str:
    """Return why the number of skeletons cannot be this one; empty if it can."""
    present = submission.skeletons
    if not _goes_by(submission, "skeletons"):
        return _nothing_for("makes no skeletons", AssayType.PREFIX_SKELETONS)
    if not present < skeletons <= MOST_SKELETONS:
        return f"the study has {present} (in all); a larger whole number, up to {MOST_SKELETONS}, is"
    return ""


def _goes_by(submission: SubmissionRecord, option: str) -> bool:
    wanted = with_needs(frozenset(submission.assay_types))
    return any(option in OPTIONS_OF.get(each, ()) for each in wanted)


def _nothing_for(why: str, assay_type: AssayType) -> str:
    return f"the study {why}; a new submission with {assay_type.value} among its assayTypes can"


def _stage(submission: SubmissionRecord, findings: Findings, asked: dict[AssayType, int]) -> StageValue:
    """Return what the stage that is over was, and what the next one starts from."""
    weighed, found = findings.standing(AssayType.WEIGHING), findings.sets
    known = () if found is None else (*found.sets, *(frozenset([site]) for site in found.lone))
    return StageValue(
        resolution=submission.resolution,
        budget=submission.budget,
        error_rate=submission.error_rate,
        skeletons=submission.skeletons,
        weighing=_goal(submission, asked),
        weighed=None if weighed is None or findings.weights is None else findings.weights.num_competitions,
        sets=tuple(tuple(sorted(each)) for each in known),
        searched=asked.get(AssayType.SET_ENUMERATION, 0),
    )


def _goal(submission: SubmissionRecord, asked: dict[AssayType, int]) -> WeighingGoalValue | None:
    """Return what weighing aimed at; None if it did not begin in this stage."""
    began_unrecorded = submission.weighing is None and not submission.stages and asked.get(AssayType.WEIGHING, 0) > 0
    if not began_unrecorded:
        return submission.weighing
    followers = (AssayType.WEIGHING, AssayType.SET_ENUMERATION, AssayType.PREFIX_SKELETONS)
    return weighing_goal(submission, {each: number for each, number in asked.items() if each not in followers})
