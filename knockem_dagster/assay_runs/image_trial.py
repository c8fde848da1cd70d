"""Single contract commands of an image, tried before there is a submission: here, or by a worker. Nothing is stored."""

from __future__ import annotations

from typing import Literal, TypeAlias

from knockem_dagster.containers.attempts import Attempt, GenomeVariant, Outcome
from knockem_dagster.containers.contract import Organism
from knockem_dagster.containers.runtime import ContainerSpec, Limits
from knockem_dagster.jobs.errands import ask_workers
from knockem_dagster.knockout.competitions import Counts
from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.platform import Platform
from knockem_dagster.records.record import Value, derived_id, new_id
from knockem_dagster.settings import RuntimeName

TRY_COMMAND = "try command"
Command: TypeAlias = Literal["knockem_count_sites", "knockem_apply_knockout", "knockem_compete_two"]
_SUBMISSION = "trial"


class ImageTrial(Value):
    """One command of an image, and what to try it with. `num_sites` is the genome's, once it was counted."""

    command: Command
    image: str
    runtime: Literal["auto", RuntimeName]
    genome: str
    environment: dict[str, str]
    sites: tuple[int, ...]
    num_sites: int = 0
    timeout_seconds: float
    memory_mib: int


class Tried(Value):
    """What came of a command: sites counted, a genome knocked out, or how a competition ended and what it printed."""

    num_sites: int | None = None
    genome: str | None = None
    outcome: Outcome | None = None
    counts: Counts | None = None
    wall_seconds: float | None = None
    tail: str = ""


async def try_command(platform: Platform, trial: ImageTrial) -> Tried:
    """Run the command once.

    Raises ContractError where it does not keep the contract, ContainerError, ImageNotFound; WorkersAway where it is
    left to workers and none does it.
    """
    if platform.settings.leave_to_workers:
        runtime = platform.runtime_named(trial.runtime)
        answer = await ask_workers(platform, TRY_COMMAND, trial.model_dump_json().encode(), runtime=runtime)
        return Tried.model_validate_json(answer)
    organism = await _organism(platform, trial)
    match trial.command:
        case "knockem_count_sites":
            return Tried(num_sites=await organism.count_sites(trial.genome))
        case "knockem_apply_knockout":
            return Tried(genome=await organism.apply_knockout(trial.genome, trial.sites))
        case "knockem_compete_two":
            ended = await organism.compete(_attempt(trial))
            return Tried(outcome=ended.outcome, counts=ended.counts, wall_seconds=ended.wall_seconds, tail=ended.tail)


async def _organism(platform: Platform, trial: ImageTrial) -> Organism:
    runtime = platform.runtime(platform.runtime_for(trial.image, trial.runtime))
    image = await runtime.resolve(trial.image)
    limits = Limits(timeout_seconds=trial.timeout_seconds, memory_mib=trial.memory_mib)
    spec = ContainerSpec(image=image, environment=trial.environment, limits=limits, submission_id=_SUBMISSION)
    return Organism(runtime, spec, wild_type=trial.genome)


def _attempt(trial: ImageTrial) -> Attempt:
    """Return a competition of the wild type against the knockout."""
    id = new_id()
    return Attempt(
        id=derived_id(id, "attempt"),
        competition_id=derived_id(id, "competition"),
        assay_id=derived_id(id, "assay"),
        submission_id=_SUBMISSION,
        alpha=GenomeVariant(derived_id(id, "alpha"), KnockoutSet.none(trial.num_sites)),
        beta=GenomeVariant(derived_id(id, "beta"), KnockoutSet.of(trial.sites, trial.num_sites)),
        seed=1,
    )
