"""`queue inspect` and `queue rebuild`: looking at the queue, and bringing it in step with the record."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from knockem_dagster.cli.terminal import AsJson, answer_json, for_people, open_platform
from knockem_dagster.cli.wording import clock, counted
from knockem_dagster.cli.working import say
from knockem_dagster.jobs.inspection import OwnerState, owner_states, worker_states
from knockem_dagster.jobs.opening import queue_of, require_queue
from knockem_dagster.jobs.queue_views import QueueViews
from knockem_dagster.jobs.seed_structures import seed_structures
from knockem_dagster.jobs.tending import Tended, restore_workflows, tend
from knockem_dagster.jobs.working import runtimes_here
from knockem_dagster.platform import Platform

OWNERS_SHOWN = 30

app = typer.Typer(no_args_is_help=True, help="Look at the queue, or rebuild it from the record.")


@app.command()
def inspect(
    as_json: AsJson = False,
    limit: Annotated[int, typer.Option(min=1, help="With --json, attempts shown of each submission.")] = 100,
) -> None:
    """Show what is in the queue: whose, how much, for how long, and why nothing is claimed."""
    with open_platform() as platform:
        states, workers, structures = asyncio.run(_look(platform, most=limit if as_json else 0))
    if as_json:
        answer_json({"owners": [asdict(state) for state in states], "workers": workers, **structures})
    else:
        _show(states, workers)


@app.command()
def rebuild() -> None:
    """Put everything into the queue again that the record says is to do and that the queue does not know."""
    with open_platform() as platform:
        tended, number = asyncio.run(_rebuild(platform))
    console = for_people()
    console.print(f"{counted(number, 'job')} put into the queue again.")
    if tended.taken_out:
        console.print(f"Taken out, because over: {', '.join(owner[:8] for owner in tended.taken_out)}.")
    console.print("Running submissions put their competitions again themselves, within seconds.")


async def _look(platform: Platform, *, most: int) -> tuple[list[OwnerState], int, dict[str, Any]]:
    require_queue(platform)
    async with queue_of(platform) as queue:
        states = await owner_states(queue, platform.records)
        workers = len(await worker_states(queue, platform.records))
        return states, workers, await seed_structures(queue, platform.records, most=most) if most else {}


async def _rebuild(platform: Platform) -> tuple[Tended, int]:
    require_queue(platform)
    async with queue_of(platform) as queue:
        seconds = platform.settings.lease_seconds
        if waits := await QueueViews(queue).unsettled_seconds(lease_seconds=seconds):
            say(f"The queue has just been started: giving its workers {waits:.0f} s to find it again.")
            await asyncio.sleep(waits)
        number = await restore_workflows(queue, platform.records, all_of_them=True)
        tended = await tend(
            queue,
            platform.records,
            runtimes_here(platform),
            lease_seconds=seconds,
            say=say,
        )
        return tended, number + tended.put_again


def _show(states: list[OwnerState], workers: int) -> None:
    console = for_people()
    if not states:
        console.print(f"The queue is empty; {_there(workers)}.")
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("owner", no_wrap=True)
    for name in ("ready", "running", "retrying", "oldest wait"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why nothing is claimed", overflow="fold")
    for state in states[:OWNERS_SHOWN]:
        table.add_row(
            escape(state.owner[:8]),
            f"{state.ready:,}",
            f"{state.running:,}",
            f"{state.retrying:,}",
            "" if state.oldest_wait is None else clock(state.oldest_wait),
            escape(state.hindrance),
        )
    console.print(table)
    if len(states) > OWNERS_SHOWN:
        console.print(f"and {len(states) - OWNERS_SHOWN:,} more with less to do; --json shows all")
    ready, running = sum(state.ready for state in states), sum(state.running for state in states)
    console.print(f"{ready:,} ready and {running:,} running in all; {_there(workers)}.")


def _there(workers: int) -> str:
    return "no worker is there" if not workers else f"{counted(workers, 'worker')} there"
