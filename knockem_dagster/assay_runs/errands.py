"""The errands that workers run for those who leave all that runs organisms to them (KNOCKEM_LEAVE_TO_WORKERS)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from knockem_dagster.assay_runs.image_trial import TRY_COMMAND, ImageTrial, try_command
from knockem_dagster.assay_runs.intake import (
    ACCEPTED,
    EXAMINE,
    TIME_COMPETITIONS,
    TIMING,
    examine,
    time_competitions,
)
from knockem_dagster.assay_runs.submission_file import SubmissionFile
from knockem_dagster.assay_runs.truth import TELL_TRUTH, TOLD, tell_truth
from knockem_dagster.jobs.errands import Handler
from knockem_dagster.platform import Platform


async def _examine(platform: Platform, content: bytes) -> bytes:
    accepted = await examine(platform, SubmissionFile.model_validate_json(content), may_exist=True)
    return ACCEPTED.dump_json(accepted, by_alias=True)


async def _time_competitions(platform: Platform, content: bytes) -> bytes:
    return TIMING.dump_json(await time_competitions(platform, ACCEPTED.validate_json(content)))


async def _tell_truth(platform: Platform, content: bytes) -> bytes:
    submission = await asyncio.to_thread(platform.records.submissions.get, content.decode())
    genome = await asyncio.to_thread(platform.records.genomes.get, submission.genome_id)
    return TOLD.dump_json(await tell_truth(platform, submission, genome))


async def _try_command(platform: Platform, content: bytes) -> bytes:
    tried = await try_command(platform, ImageTrial.model_validate_json(content))
    return tried.model_dump_json().encode()


ERRANDS: Mapping[str, Handler] = {
    EXAMINE: _examine,
    TIME_COMPETITIONS: _time_competitions,
    TELL_TRUTH: _tell_truth,
    TRY_COMMAND: _try_command,
}
