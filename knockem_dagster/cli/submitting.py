"""`submit`: a file in, a submission stored, and on request carried through."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from knockem_dagster.assay_runs.intake import Accepted, Timing, examine, store, time_competitions
from knockem_dagster.assay_runs.submission_file import read_submission_file
from knockem_dagster.cli.carrying_out import carry_through, daemon_is_running, tell_end
from knockem_dagster.cli.measured import measured_of, offer
from knockem_dagster.cli.terminal import FAILED, USAGE, AsJson, answer_json, aside, open_platform, short
from knockem_dagster.cli.wording import clock, counted
from knockem_dagster.errors import KnockemError, QueueAway
from knockem_dagster.joblogs.tool_names import tool_of_image
from knockem_dagster.jobs.inspection import who_cannot
from knockem_dagster.jobs.opening import queue_of
from knockem_dagster.jobs.organisms import requirement_of
from knockem_dagster.platform import Platform
from knockem_dagster.records.jobs import ResourcesValue
from knockem_dagster.records.submissions import LimitsValue, State, SubmissionRecord

LONG_SECONDS = 3_600.0
"""A submission expected to take longer than this asks for --yes."""


def submit(
    file: Annotated[Path, typer.Argument(help="The submission: a YAML or JSON file.")],
    *,
    wait: Annotated[
        bool, typer.Option("--wait", help="Stay until the submission is over, and run it if no daemon does.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Submit even if it is expected to take more than an hour.")
    ] = False,
    measured: Annotated[
        bool, typer.Option("--measured", help="Give containers what earlier ones of the image used, with a margin.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Submit a study: check the file, time three competitions, store it."""
    with open_platform() as platform:
        accepted, timing = asyncio.run(_examine(platform, file, measured=measured))
        expected = (
            f"{file}: {counted(accepted.submission.num_sites, 'site')}; about "
            f"{counted(timing.expected_competitions, 'competition')}, {clock(timing.expected_seconds)} at "
            f"{1000 * max(timing.seconds_each):,.1f} ms each, if the machine has nothing else to do"
        )
        aside().print(expected, markup=False, soft_wrap=True)
        if timing.expected_seconds > LONG_SECONDS and not yes:
            waiting = " --wait" if wait else ""
            aside().print(
                "That is more than an hour, so nothing was stored. To submit it all the same: "
                f"./knockem submit {file} --yes{waiting}",
                markup=False,
                soft_wrap=True,
            )
            raise typer.Exit(USAGE)
        lacking = asyncio.run(_lacking(platform, accepted.submission))
        if lacking:
            aside().print(f"{lacking}: only the run's own worker can work on it.", markup=False, soft_wrap=True)
        submission = store(platform, accepted)
        finish(platform, submission, wait=wait, as_json=as_json, timing=timing)


def finish(
    platform: Platform, submission: SubmissionRecord, *, wait: bool, as_json: bool, timing: Timing | None = None
) -> None:
    """Carry an open submission through if asked to, else say who will. Exits 1 when it ends without being completed."""
    id = short(submission.id)
    if wait:
        submission = carry_through(platform, submission.id, again=f"./knockem resume {id} --wait")
        tell_end(submission)
    else:
        is_running = daemon_is_running(platform)
        aside().print(
            f"Submission {id} is {submission.state.value}. "
            + (
                f"The daemon takes it up; `./knockem status {id}` shows how far it is."
                if is_running
                else "No daemon is running: `./knockem up` starts one, which takes it up."
            ),
            soft_wrap=True,
        )
    if as_json:
        answer_json(
            {
                "id": submission.id,
                "state": submission.state.value,
                "reason": submission.reason,
                "timing": None if timing is None else asdict(timing),
            }
        )
    else:
        typer.echo(submission.id)
    if wait and submission.state is not State.COMPLETED:
        raise typer.Exit(FAILED)


async def _lacking(platform: Platform, submission: SubmissionRecord) -> str:
    """Tell what no registered worker offers that the submission needs; empty where there is no queue."""
    if platform.has_queue:
        with contextlib.suppress(QueueAway):
            async with queue_of(platform) as queue:
                lacking = await who_cannot(queue, requirement_of(submission))
                return lacking[:1].upper() + lacking[1:]
    return ""


async def _examine(platform: Platform, file: Path, *, measured: bool) -> tuple[Accepted, Timing]:
    try:
        data = await asyncio.to_thread(file.read_bytes)
    except OSError as error:
        raise KnockemError(f"The submission file {file} cannot be read: {error.strerror}.") from error
    asked = read_submission_file(data, folder=file.parent)
    accepted = await examine(platform, asked)
    limits = accepted.submission.limits
    given = ResourcesValue(cpus=limits.cpus, memoryMiB=limits.memory_mib)
    tool = (tool_of_image(asked.container_image), accepted.submission.image_digest)
    found = (await asyncio.to_thread(measured_of, platform, [tool], anew=measured)).get(tool)
    if found is not None:
        offer(platform, tool[0], given, found, accepted=measured)
        if measured:
            better = found.resources(given)
            limits = LimitsValue(cpus=better.cpus, memoryMiB=better.memory_mib)
            accepted = await examine(platform, asked.model_copy(update={"limits": limits}))
    elif measured:
        aside().print(f"Of {tool[0]} too few jobs are known: its limits are those of the file.", markup=False)
    return accepted, await time_competitions(platform, accepted)
