"""The organisms of submissions, as a worker runs them: one for each, whose knocked-out genomes are kept."""

from __future__ import annotations

from collections import OrderedDict

from knockem_dagster.containers.contract import Organism
from knockem_dagster.containers.runtime import RUN_BY_DIGEST, ContainerSpec, Image, Limits
from knockem_dagster.errors import ContainerError
from knockem_dagster.jobs.requirements import Requirement
from knockem_dagster.jobs.worker_sources import WorkerRecord
from knockem_dagster.platform import Platform
from knockem_dagster.records.genomes import GenomeRecord
from knockem_dagster.records.submissions import SubmissionRecord

MOST_ORGANISMS = 16


def organism_of(platform: Platform, submission: SubmissionRecord, genome: GenomeRecord) -> Organism:
    """Return a submission's organism under its runtime, with its environment and limits, ready to run its commands."""
    runtime = platform.runtime(submission.container_runtime)
    spec = ContainerSpec(
        image=Image(submission.container_runtime, submission.container_image, submission.image_digest),
        environment={
            **submission.container_env,
            "KNOCKEM_USER_EMAIL": submission.user_email,
            "KNOCKEM_RUNMODE": platform.settings.environment,
        },
        limits=Limits(
            cpus=submission.limits.cpus,
            memory_mib=submission.limits.memory_mib,
            timeout_seconds=submission.timeout_seconds,
        ),
        submission_id=submission.id,
    )
    return Organism(runtime, spec, wild_type=genome.content or "")


def requirement_of(submission: SubmissionRecord) -> Requirement:
    """Return what one container of a submission needs."""
    return Requirement(
        cpus=submission.limits.cpus,
        memory_mib=submission.limits.memory_mib,
        seconds=submission.timeout_seconds,
        runtime=submission.container_runtime,
    )


async def check_organism(platform: Platform, submission: SubmissionRecord) -> None:
    """Make sure that the image is still the one that was accepted: results of two must not be mixed.

    Raises ContainerError when it is not there any more, or is another.
    """
    runtime = submission.container_runtime
    if runtime in RUN_BY_DIGEST:
        return  # whatever its name stands for by now
    image = await platform.runtime(runtime).resolve(submission.container_image)
    if image.digest != submission.image_digest:
        raise ContainerError(
            f"The organism {submission.container_image} has changed since the study was accepted (it is "
            f"{image.digest[:19]}, it was {submission.image_digest[:19]}), and results of two organisms must not "
            f"be mixed. Put it back and `./knockem resume {submission.id[:8]}`, or submit it with another seed."
        )


class Organisms:
    """The organisms of the submissions that a worker works for; those used last are kept."""

    def __init__(self, platform: Platform, record: WorkerRecord) -> None:
        self._platform = platform
        self._record = record
        self._kept: OrderedDict[str, Organism] = OrderedDict()

    async def of(self, submission_id: str) -> Organism:
        """Return a submission's organism. Raises ContainerError when this machine does not have it."""
        if submission_id not in self._kept:
            submission, genome = await self._record.study(submission_id)
            await check_organism(self._platform, submission)
            if submission.container_runtime in RUN_BY_DIGEST:
                await self._platform.runtime(submission.container_runtime).resolve(submission.image_digest)
            self._kept[submission_id] = organism_of(self._platform, submission, genome)
            if len(self._kept) > MOST_ORGANISMS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(submission_id)
        return self._kept[submission_id]
