"""`list`, `status` and `logs`: reading what is recorded."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from knockem_dagster.assay_runs.status import (
    AttemptLog,
    SubmissionStatus,
    attempt_logs,
    expected_total,
    is_leased,
    submission_status,
)
from knockem_dagster.cli.terminal import AsJson, SubmissionId, answer_json, for_people, open_platform, short
from knockem_dagster.cli.wording import clock, counted, moment
from knockem_dagster.errors import QueueAway
from knockem_dagster.jobs.inspection import OwnerState, owner_states
from knockem_dagster.jobs.opening import queue_of
from knockem_dagster.platform import Platform
from knockem_dagster.records.submissions import State, SubmissionRecord

_COLOURS = {
    State.ACCEPTED: "cyan",
    State.RUNNING: "yellow",
    State.COMPLETED: "green",
    State.FAILED: "red",
    State.CANCELED: "magenta",
}


def list_submissions(
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many, the newest.")] = 100, as_json: AsJson = False
) -> None:
    """List submissions, the newest first."""
    with open_platform() as platform:
        found = list(platform.records.submissions.find({}, sort=[("datetime", -1)], limit=limit))
    if as_json:
        answer_json([_listed(submission) for submission in found])
        return
    if not found:
        for_people().print("There is no submission yet. `./knockem demo` makes one; `./knockem submit FILE` yours.")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("id", "state", "organism"):
        table.add_column(name, no_wrap=True)
    for name in ("sites", "done", "expected"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("submitted (UTC)", no_wrap=True)
    for submission in found:
        table.add_row(
            short(submission.id),
            _state(submission.state, is_worked_on=is_leased(submission)),
            escape(submission.container_image),
            f"{submission.num_sites:,}",
            f"{submission.counters.submission_num_completed_competitions:,}",
            f"{expected_total(submission):,}",
            moment(submission.datetime),
        )
    for_people().print(table)


def _state(state: State, *, is_worked_on: bool) -> str:
    """Return the state for people: what is running without a run was interrupted."""
    shown = "interrupted" if state is State.RUNNING and not is_worked_on else state.value
    return f"[{_COLOURS[state]}]{shown}[/]"


def status(submission: SubmissionId, as_json: AsJson = False) -> None:
    """Show how far a submission is. Exits 0 when completed, 1 when failed or canceled, 3 while it is going."""
    with open_platform() as platform:
        found = submission_status(platform.records, platform.records.submissions.resolve(submission))
        queued = asyncio.run(_in_queue(platform, found.id)) if not found.state.is_final else None
    if as_json:
        answer_json({**found.to_json(), "queue": None if queued is None else asdict(queued)})
    else:
        _show(found, queued)
    raise typer.Exit(found.exit_code)


def logs(
    submission: SubmissionId,
    failed: Annotated[bool, typer.Option("--failed", help="Only attempts that brought no result.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many attempts.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show attempts: the command, how it ended, and the last lines of its output."""
    with open_platform() as platform:
        record = platform.records.submissions.resolve(submission)
        found = attempt_logs(platform.records, record, failed_only=failed, limit=limit)
    if as_json:
        answer_json(found)
        return
    if not found:
        for_people().print("No attempt has failed." if failed else "No attempt has ended yet.")
    for log in found:
        _show_attempt(log)
    if len(found) == limit:
        for_people().print(f"[dim]There may be more: --limit shows more than {limit}.[/dim]")


async def _in_queue(platform: Platform, submission_id: str) -> OwnerState | None:
    """Return what the queue has of a submission; None where there is no queue or nothing in it."""
    if not platform.has_queue:
        return None
    with contextlib.suppress(QueueAway):
        async with queue_of(platform) as queue:
            states = await owner_states(queue, platform.records, owner=submission_id)
            return states[0] if states else None


def _listed(submission: SubmissionRecord) -> dict[str, object]:
    return {
        "id": submission.id,
        "state": submission.state.value,
        "organism": submission.container_image,
        "sites": submission.num_sites,
        "done": submission.counters.submission_num_completed_competitions,
        "total": expected_total(submission),
        "is_worked_on": is_leased(submission),
        "submitted": submission.datetime,
    }


def _show(found: SubmissionStatus, queued: OwnerState | None) -> None:
    lines = Table.grid(padding=(0, 2))
    lines.add_row("submission", found.id)
    state = _state(found.state, is_worked_on=found.is_worked_on)
    lines.add_row("state", state + ("" if found.reason is None else f": {escape(found.reason)}"))
    lines.add_row("organism", f"{escape(found.organism)} ({found.runtime}), {counted(found.sites, 'site')}")
    lines.add_row("assays", f"{found.assays_done} of {found.assays_total} done")
    expected = "" if found.state is State.COMPLETED else f" of about {found.total:,}"
    lines.add_row("competitions", f"{found.done:,}{expected} done, {found.active:,} in work")
    if queued is not None:
        hindrance = (
            f"; nothing is claimed: {escape(queued.hindrance)}" if queued.hindrance and not queued.running else ""
        )
        lines.add_row("queue", f"{queued.ready:,} ready, {queued.running:,} with workers{hindrance}")
    if found.rate is not None:
        left = "" if found.seconds_left is None else f", about {clock(found.seconds_left)} left"
        lines.add_row("rate", f"{found.rate:,.1f} competitions/s{left}")
    lines.add_row("lost", _losses(found))
    for each in found.given_up:
        what = f"{each.assay_type}, {each.purpose}, replicate {each.replicate}"
        lines.add_row("given up", f"{escape(what)}: {escape(each.reason)}")
    if found.interruptions:
        lines.add_row("interrupted", counted(found.interruptions, "time"))
    lines.add_row("submitted", moment(found.submitted))
    if found.finished is not None:
        lines.add_row("finished", moment(found.finished))
    console = for_people()
    console.print(lines)
    console.print(_next_step(found))


def _losses(found: SubmissionStatus) -> str:
    failed = {outcome: number for outcome, number in found.attempts.items() if outcome != "succeeded"}
    if not failed and not found.untestable:
        return "nothing"
    causes = ", ".join(f"{number:,} {outcome}" for outcome, number in failed.items()) or "none"
    return f"{counted(found.untestable, 'competition')} untestable; attempts without a result: {causes}"


def _next_step(found: SubmissionStatus) -> str:
    id = short(found.id)
    match found.state:
        case State.COMPLETED:
            return (
                f"`./knockem report {id}` shows the report, `./knockem export {id} DIR` its tables; "
                f"`./knockem extend {id}` asks more of it."
            )
        case State.CANCELED:
            return f"`./knockem resume {id}` goes on with it, `./knockem purge {id}` removes it."
        case State.FAILED:
            return f"`./knockem logs {id} --failed` shows what went wrong; `./knockem resume {id}` goes on with it."
        case _ if not found.is_worked_on:
            return f"Nobody works on it at this moment: `./knockem up` does, or `./knockem resume {id} --wait` here."
        case _:
            return f"`./knockem cancel {id}` ends it."


def _show_attempt(log: AttemptLog) -> None:
    console = for_people()
    colour = "green" if log.outcome == "succeeded" else "red"
    code = "" if log.exit_code is None else f", exit code {log.exit_code}"
    wall = "" if log.wall_seconds is None else f", {log.wall_seconds:.2f} s"
    console.print(
        f"[bold]{escape(log.assay_type)}[/] {escape(log.purpose)}, replicate {log.replicate}, try {log.number}: "
        f"[{colour}]{log.outcome}[/]{code}{wall}"
    )
    console.print(f"  command  {log.command or 'none'}", markup=False)
    console.print(f"  attempt  {log.attempt_id}  {moment(log.ended)}", markup=False)
    for line in log.tail.strip().splitlines()[-10:]:
        console.print(f"  | {line}", markup=False)
