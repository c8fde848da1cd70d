"""A job for trying an image from the launchpad: each contract command in a container, once."""

import asyncio
from typing import Literal

import dagster as dg
from pydantic import Field

from knockem_dagster.assay_runs.image_trial import Command, ImageTrial, Tried, try_command
from knockem_dagster.errors import KnockemError
from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.settings import RuntimeName
from resources.platform import PlatformResource


class Trial(dg.Config):
    """What to try: an image with a genome. Type these into the launchpad."""

    image: str = Field(description="image name, or organism folder below KNOCKEM_ORGANISMS", examples=["explicit"])
    runtime: Literal["auto", RuntimeName] = Field(default="auto", description="where the commands run")
    genome: str = Field(description="the genome's content")
    environment: dict[str, str] = Field(default={}, description="containerEnv")
    sites: list[int] = Field(default=[0], description="zero-based sites to knock out")
    timeout_seconds: float = Field(default=60.0, description="seconds per command")
    memory_mib: int = Field(default=1024, description="MiB per container")


def _tried(platform: PlatformResource, trial: Trial, command: Command, *, num_sites: int = 0) -> Tried:
    """Run one command. Raises Failure, which Dagster shows as it is."""
    try:
        if num_sites:
            KnockoutSet.of(trial.sites, num_sites)  # only for its ValueError: no command is tried with other sites
        wanted = ImageTrial(**trial.model_dump(), command=command, num_sites=num_sites)
        return asyncio.run(try_command(platform.open(), wanted))
    except (KnockemError, ValueError) as error:
        raise dg.Failure(str(error)) from error


@dg.op(description="knockem_count_sites in a container.")
def count_sites(context: dg.OpExecutionContext, config: Trial, platform: PlatformResource) -> int:
    """Count the genome's sites."""
    number = _tried(platform, config, "knockem_count_sites").num_sites
    assert number is not None
    context.add_output_metadata({"sites": number})
    return number


@dg.op(description="knockem_apply_knockout in a container.")
def apply_knockout(context: dg.OpExecutionContext, config: Trial, platform: PlatformResource, num_sites: int) -> int:
    """Knock sites out."""
    content = _tried(platform, config, "knockem_apply_knockout", num_sites=num_sites).genome
    assert content is not None
    context.add_output_metadata({"knocked-out genome": dg.MetadataValue.text(content[:2000])})
    return num_sites


@dg.op(description="knockem_compete_two in a container: wild type against knockout.")
def compete_two(context: dg.OpExecutionContext, config: Trial, platform: PlatformResource, num_sites: int) -> None:
    """Let the knockout compete with the wild type."""
    ended = _tried(platform, config, "knockem_compete_two", num_sites=num_sites)
    if ended.counts is None:
        raise dg.Failure(f"The competition gave no result: {ended.outcome}.", metadata={"output": ended.tail})
    context.add_output_metadata(
        {
            "updates elapsed": ended.counts.updates_elapsed,
            "alpha": ended.counts.num_alpha,
            "beta": ended.counts.num_beta,
            "wall seconds": ended.wall_seconds or 0.0,
        }
    )


@dg.graph
def trial_steps() -> None:
    """Count, knock out, compete."""
    compete_two(apply_knockout(count_sites()))


@dg.config_mapping
def one_trial(config: Trial) -> dg.RunConfig:
    """Give every command the same image and genome, so that the launchpad asks for them once."""
    return dg.RunConfig(ops=dict.fromkeys(("count_sites", "apply_knockout", "compete_two"), config))


try_image = trial_steps.to_job(
    name="try_image",
    config=one_trial,
    executor_def=dg.in_process_executor,
    description="Tries an image from the launchpad: each contract command once, in a container.",
)
