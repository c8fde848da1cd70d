"""What a study will take: competitions from imagined genomes, time from an earlier study or a few competitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from knockem_dagster.assay_runs.intake import Accepted, time_competitions
from knockem_dagster.assay_runs.procedures import skeleton_settings
from knockem_dagster.errors import KnockemError
from knockem_dagster.knockout.allotment import Allotment
from knockem_dagster.knockout.planning import Need, Wanted, plan_study
from knockem_dagster.platform import Platform
from knockem_dagster.records.assays import PUBLISHED_ASSAYS, AssayType, with_needs
from knockem_dagster.records.submissions import State, SubmissionRecord

_FEWEST_COMPETITIONS = 100
"""A study with fewer says nothing of its organism's pace."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a study needs for each share of functional sites, and how fast it will go (competitions a second).

    `source` tells where the rate comes from. Competitions of assay types `left_out` come on top.
    """

    num_sites: int
    needs: Sequence[Need]
    rate: float
    source: str
    left_out: tuple[AssayType, ...] = ()


async def make_plan(platform: Platform, accepted: Accepted) -> Plan:
    """Plan an examined submission; three competitions are timed unless a rate is known.

    Raises KnockemError when it asks for nothing that is planned: published procedures are not.
    """
    submission = accepted.submission
    asked = with_needs(frozenset(submission.assay_types))
    left_out = tuple(each for each in PUBLISHED_ASSAYS if each in asked and each is not AssayType.NULLDIST)
    wanted = Wanted(
        weighing=AssayType.WEIGHING in asked,
        sets=AssayType.SET_ENUMERATION in asked,
        skeletons=skeleton_settings(submission) if AssayType.PREFIX_SKELETONS in asked else None,
    )
    if not wanted.weighing and wanted.skeletons is None:
        raise KnockemError(
            "Only weighing, setEnumeration and prefixSkeletons are planned, and this study asks for none of them; "
            "`./knockem submit` tells about how much the published procedures take."
        )
    rate, source = recorded_rate(platform, submission), "an earlier study with this organism"
    if rate is None:
        timing = await time_competitions(platform, accepted)
        slots = max(1, min(submission.max_active, platform.settings.cpus))
        rate, source = slots / float(np.median(timing.seconds_each)), f"{len(timing.seconds_each)} timed competitions"
    needs = await plan_study(
        Allotment(submission.num_sites, submission.resolution, submission.error_rate, submission.budget),
        np.random.default_rng(submission.seed),
        wanted,
        is_exact=submission.stated_unit is not None,
    )
    return Plan(submission.num_sites, needs, rate, source, left_out)


def recorded_rate(platform: Platform, submission: SubmissionRecord) -> float | None:
    """Return the competitions a second of the newest study with the same organism; None where there is none."""
    digest, runtime = submission.image_digest, submission.container_runtime
    completed = platform.records.submissions.find({"state": State.COMPLETED.value})
    for study in sorted(completed, key=lambda each: each.datetime, reverse=True):
        number = study.counters.submission_num_completed_competitions - study.completed_before
        is_same = (study.image_digest, study.container_runtime) == (digest, runtime)
        if is_same and study.started and study.finished and number >= _FEWEST_COMPETITIONS:
            took = datetime.fromisoformat(study.finished) - datetime.fromisoformat(study.started)
            return number / max(1e-3, took.total_seconds())
    return None
