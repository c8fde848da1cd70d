"""The truth that an organism tells of its own genome: asked here, or by a worker where all is left to them."""

from __future__ import annotations

from pydantic import TypeAdapter

from knockem_dagster.containers.truth import Truth
from knockem_dagster.jobs.errands import ask_workers
from knockem_dagster.jobs.organisms import organism_of
from knockem_dagster.platform import Platform
from knockem_dagster.records.genomes import GenomeRecord
from knockem_dagster.records.submissions import SubmissionRecord

TELL_TRUTH = "tell truth"
TOLD: TypeAdapter[Truth | None] = TypeAdapter(Truth | None)


async def tell_truth(platform: Platform, submission: SubmissionRecord, genome: GenomeRecord) -> Truth | None:
    """Return what the organism tells of its genome; None when it has no such command.

    Raises ContainerError, and WorkersAway where it is left to workers and none does it.
    """
    if platform.settings.leave_to_workers:
        runtime = submission.container_runtime
        return TOLD.validate_json(await ask_workers(platform, TELL_TRUTH, submission.id.encode(), runtime=runtime))
    return await organism_of(platform, submission, genome).describe_truth(genome.content or "", genome.num_sites)
