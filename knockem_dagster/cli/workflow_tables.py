"""Workflows as the terminal shows them: for people as tables, for programs as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from knockem_dagster.cli.terminal import aside, for_people, short
from knockem_dagster.cli.wording import clock, counted, moment
from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.jobs.workflow_views import JobView, WorkflowView
from knockem_dagster.records.jobs import ResultRecord

_COLOURS = {
    "blocked": "white",
    "ready": "cyan",
    "running": "yellow",
    "completed": "green",
    "failed": "red",
    "canceled": "magenta",
    "terminated": "red",
    "disabled": "white",
}
_WITHOUT_CODE = (Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY, Outcome.LOST)


def table_of_workflows(views: Sequence[WorkflowView]) -> Table:
    """Return a row for each workflow."""
    table = Table(box=None, pad_edge=False)
    for name in ("id", "state", "name"):
        table.add_column(name, no_wrap=True)
    for name in ("jobs", "over", "failed"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("submitted (UTC)", no_wrap=True)
    for view in views:
        workflow = view.workflow
        table.add_row(
            short(workflow.id),
            _state(view),
            escape(workflow.name),
            f"{view.number:,}",
            f"{view.number_over:,}",
            f"{view.jobs.get('failed', 0):,}",
            moment(workflow.datetime),
        )
    return table


def summary_of_workflow(view: WorkflowView) -> dict[str, Any]:
    """Return a workflow for programs."""
    workflow = view.workflow
    return {
        "id": workflow.id,
        "name": workflow.name,
        "state": workflow.state,
        "datetime": workflow.datetime,
        "userEmail": workflow.user_email,
        "jobs": view.jobs,
    }


def summary_of_job(view: JobView) -> dict[str, Any]:
    """Return a job for programs."""
    result = view.result
    return {
        "id": view.job.id,
        "name": view.job.name,
        "state": view.state,
        "exitCode": None if result is None else result.exit_code,
        "wallSeconds": None if result is None else result.wall_seconds,
        "peakMemory": None if result is None else result.peak_memory,
    }


def in_words(view: WorkflowView) -> str:
    """Return how far a workflow is, in a line."""
    told = ", ".join(f"{number:,} {state}" for state, number in view.jobs.items())
    return f"{view.number_over:,} of {counted(view.number, 'job')} over: {told}"


def _state(view: WorkflowView) -> str:
    state = view.workflow.state
    if state == "completed" and view.has_failed:
        return "[red]completed, not all jobs[/]"
    return {"completed": "[green]completed[/]", "canceled": "[magenta]canceled[/]"}.get(state, f"[yellow]{state}[/]")


def ending_of(result: ResultRecord | None) -> str:
    """Return the exit code of a try, or what ended one that has none of its own."""
    if result is None:
        return ""
    if result.outcome in _WITHOUT_CODE:
        return result.outcome.value
    return "" if result.exit_code is None else str(result.exit_code)


def show_workflow(view: WorkflowView, jobs: Sequence[JobView], states: Sequence[str]) -> None:
    """Print a workflow and jobs of it: the first of those in any of these states, or of all."""
    console = for_people()
    workflow = view.workflow
    console.print(f"{escape(workflow.name)} ({workflow.id}): {_state(view)}")
    console.print(in_words(view))
    if not jobs:
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("job", overflow="fold")
    table.add_column("state", no_wrap=True)
    for name in ("exit code", "time", "memory"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in jobs:
        result = each.result
        table.add_row(
            escape(each.job.name),
            f"[{_COLOURS.get(each.state, 'white')}]{each.state}[/]",
            ending_of(result),
            "" if result is None or result.wall_seconds is None else clock(result.wall_seconds),
            "" if result is None or result.peak_memory is None else f"{result.peak_memory >> 20:,} MiB",
        )
    console.print(table)
    number = sum(view.jobs.get(state, 0) for state in set(states)) if states else view.number
    if len(jobs) < number:
        only = "" if states else ", `--state failed` only those"
        aside().print(f"The first {len(jobs)} of {number:,}; `--limit` shows more{only}.")
