"""`demo`: a whole submission of the reference organism, and its estimates beside the truth."""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import subprocess
from enum import StrEnum
from itertools import count
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from knockem_dagster.assay_runs.control import resume
from knockem_dagster.assay_runs.intake import examine, store, submission_id
from knockem_dagster.assay_runs.places import place_of
from knockem_dagster.assay_runs.submission_file import SubmissionFile
from knockem_dagster.cli.carrying_out import carry_through, tell_end
from knockem_dagster.cli.terminal import FAILED, aside, for_people, open_platform, short
from knockem_dagster.errors import ContainerError
from knockem_dagster.platform import Platform
from knockem_dagster.records.submissions import State, SubmissionRecord

ORGANISMS = Path(__file__).parents[2] / "deploy" / "organisms"
IMAGE = "knockem/explicit"
BASE_IMAGE = "knockem/base"
USER = "demo@example.org"
"""Nobody's address: the demo's submissions belong to no user."""


class DemoRuntime(StrEnum):
    """Where the demo's organism runs."""

    PROCESS = "process"
    DOCKER = "docker"
    PODMAN = "podman"


def demo(
    runtime: Annotated[
        DemoRuntime, typer.Option(help="Run the organism as processes or in containers.")
    ] = DemoRuntime.PROCESS,
    seed: Annotated[int | None, typer.Option(min=0, help="Default: the first whose demo is not completed.")] = None,
) -> None:
    """Study a genome of 1,000 sites whose truth is known, from submission to report."""
    with open_platform() as platform:
        if runtime is not DemoRuntime.PROCESS:
            _have_image(runtime.value)
        submission = _submission(platform, runtime, seed)
        if not submission.state.is_final:
            again = "./knockem demo" + ("" if runtime is DemoRuntime.PROCESS else f" --runtime {runtime.value}")
            submission = carry_through(
                platform, submission.id, again=again + ("" if seed is None else f" --seed {seed}")
            )
        if submission.state is not State.COMPLETED:
            tell_end(submission)
            raise typer.Exit(FAILED)
        _show(platform, submission)


def _submission(platform: Platform, runtime: DemoRuntime, seed: int | None) -> SubmissionRecord:
    """Return the demo's submission: an interrupted one is taken up, a completed one leaves its seed to history."""
    records = platform.records
    for candidate in count(1) if seed is None else [seed]:
        file = _file(runtime, candidate)
        known = records.submissions.find_one(submission_id(file))
        if known is None:
            aside().print(f"Submitting {file.container_image} with seed {candidate}.", markup=False)
            return store(platform, asyncio.run(examine(platform, file)))
        if known.state in {State.FAILED, State.CANCELED}:
            aside().print(f"Going on with submission {short(known.id)}, which was {known.state.value}.", markup=False)
            return resume(platform, known)
        if known.state is not State.COMPLETED or seed is not None:
            aside().print(f"Submission {short(known.id)} with seed {candidate} is {known.state.value}.", markup=False)
            return known
    raise AssertionError("there is always another seed")


def _file(runtime: DemoRuntime, seed: int) -> SubmissionFile:
    return SubmissionFile(
        genome=(ORGANISMS / "explicit" / "demo_genome.json").read_text(encoding="utf-8"),
        container_image="explicit" if runtime is DemoRuntime.PROCESS else IMAGE,
        container_env={"EXPLICIT_MODE": "wright-fisher"},
        container_runtime=runtime.value,
        user_email=USER,
        seed=seed,
    )


def _have_image(engine: str) -> None:
    """Build the organism's image unless the engine has it; never pull one of that name from elsewhere.

    Raises ContainerError when it cannot be built.
    """
    if shutil.which(engine) is None:
        raise ContainerError(
            f"`{engine}` is not on PATH, and the demo's image is built with it; `./knockem demo` needs none."
        )
    if _attempt(engine, "image", "inspect", IMAGE) is None:
        return
    aside().print(f"Building the image {IMAGE}; this takes about a minute, once.")
    build, build_base = str(ORGANISMS / "build.sh"), str(ORGANISMS / "base" / "build.sh")
    trouble = _attempt(build, ENGINE=engine)
    if trouble is not None:
        aside().print("Its base image cannot be pulled; making one from Debian packages instead.")
        second = _attempt(build_base, BASE_IMAGE, ENGINE=engine) or _attempt(build, BASE_IMAGE, ENGINE=engine)
        if second is not None:
            raise ContainerError(f"The image {IMAGE} cannot be built.\n{trouble}\n{second}")


def _attempt(*command: str, **environment: str) -> str | None:
    """Run a command; None when it went well, else what it said last."""
    given = {**os.environ, **environment}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=given)
    if ended.returncode == 0:
        return None
    tail = "\n".join(f"  {line}" for line in (ended.stdout + ended.stderr).strip().splitlines()[-8:])
    return f"{' '.join(command)} failed with exit code {ended.returncode}:\n{tail}"


def _show(platform: Platform, submission: SubmissionRecord) -> None:
    # Here, because these draw in pandas and matplotlib, which commands that show no results need not wait for.
    from knockem_dagster.assay_runs.reporting import read_truth
    from knockem_dagster.assay_runs.tables import read_table, report_key
    from knockem_dagster.reports.truth import with_truth
    from knockem_dagster.reports.wording import number

    estimates = read_table(platform.objects, submission.id, "estimates")
    assert estimates is not None, "a completed submission has estimates"
    table = Table(title=f"Estimates of submission {short(submission.id)}, seed {submission.seed}", title_justify="left")
    for name in ("quantity", "method"):
        table.add_column(name)
    for name in ("estimate", "interval", "truth"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in with_truth(
        estimates, read_truth(platform.objects, submission.id), resolution=submission.resolution
    ).to_dict("records"):
        bounded = not (math.isnan(row["low"]) or math.isnan(row["high"]))
        interval = f"{number(row['low'])} to {number(row['high'])} ({row['level']:.0%})" if bounded else "none"
        table.add_row(row["quantity"], row["method"], number(row["value"]), interval, number(row["truth"]))
    console = for_people()
    console.print(table)
    place = place_of(platform, report_key(submission.id), what="The report")
    console.print(f"The report: {place}", markup=False, soft_wrap=True)
    console.print("`./knockem up` shows the run, its assets, checks and plots in the Dagster UI.")
