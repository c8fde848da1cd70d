"""`worker` and `workers`: working on what is in the queue, and looking at who does."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from knockem_dagster.assay_runs.errands import ERRANDS
from knockem_dagster.cli.terminal import AsJson, answer_json, aside, for_people, open_platform
from knockem_dagster.cli.wording import clock, counted
from knockem_dagster.errors import KnockemError
from knockem_dagster.jobs.compute_node import DRAIN_SECONDS
from knockem_dagster.jobs.errands import run_errands
from knockem_dagster.jobs.http_source import source_at
from knockem_dagster.jobs.inspection import WorkerState, worker_states
from knockem_dagster.jobs.interruptions import AWS_NOTICE, interruption_notice_at
from knockem_dagster.jobs.near_source import NearSource
from knockem_dagster.jobs.opening import queue_of, require_queue
from knockem_dagster.jobs.requirements import Capacity
from knockem_dagster.jobs.walltimes import seconds_of
from knockem_dagster.jobs.worker_sources import WorkSource
from knockem_dagster.jobs.working import WorkerProcess, capacity_here
from knockem_dagster.platform import Platform

TOLD_SECONDS = 10.0
DRAINING = f"what is in work is finished within {DRAIN_SECONDS:g} s or handed back"


def worker(
    *,
    cpus: Annotated[float | None, typer.Option(help="CPUs to offer.  [default: KNOCKEM_CPUS, all]")] = None,
    memory: Annotated[int | None, typer.Option(metavar="MIB", help="Memory to offer.  [default: all]")] = None,
    gpus: Annotated[int, typer.Option(help="GPUs to offer.")] = 0,
    time_left: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="End after it: seconds, MM:SS, HH:MM:SS or D-HH:MM:SS.  [default: never]"),
    ] = None,
    runtimes: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...", help="What to offer: command, process, docker, ....  [default: all there are]"
        ),
    ] = None,
    end_when_idle: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="End when there was nothing to do, or nobody answered, for so long.  [default: never]"
        ),
    ] = None,
    interruption_notice: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help=f"End as soon as this address tells of an interruption; AWS's is {AWS_NOTICE}."
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            help="Work for the platform at this address, with the token in KNOCKEM_TOKEN.  [default: KNOCKEM_URL]"
        ),
    ] = None,
) -> None:
    """Work on whatever is in the queue, until Ctrl-C or SIGTERM: what is in work is finished or handed back."""
    if cpus is not None and cpus <= 0:
        raise KnockemError(f"A worker with {cpus:g} CPUs can do nothing: offer some with --cpus, or leave it out.")
    if memory is not None and memory <= 0:
        raise KnockemError(f"A worker with {memory} MiB of memory can do nothing: offer some, or leave --memory out.")
    if gpus < 0:
        raise KnockemError(f"{gpus} GPUs cannot be offered: --gpus is 0 or more.")
    if interruption_notice is not None and not interruption_notice.startswith(("http://", "https://")):
        raise KnockemError(f"{interruption_notice!r} is no address of HTTP: AWS gives notice at {AWS_NOTICE}.")
    seconds = None if time_left is None else _seconds("--time-left", time_left)
    idle = None if end_when_idle is None else _seconds("--end-when-idle", end_when_idle)
    with open_platform() as platform:
        capacity = capacity_here(platform, cpus=cpus, memory_mib=memory, gpus=gpus, seconds_left=seconds)
        if runtimes is not None:
            capacity = replace(capacity, runtimes=_chosen(runtimes, capacity.runtimes))
        url = url or platform.settings.url
        if url is None:
            require_queue(platform)
        asyncio.run(_work(platform, capacity, url, idle_seconds=idle, notice=interruption_notice))


def workers(as_json: AsJson = False) -> None:
    """Show who works: what each offers, what it does, when it was last heard of, what it has done."""
    with open_platform() as platform:
        require_queue(platform)
        found = asyncio.run(_worker_states(platform))
    if as_json:
        answer_json([each.model_dump(mode="json") for each in found])
    elif not found:
        for_people().print("No worker is there. A run brings its own; `./knockem worker` starts one for all.")
    else:
        for_people().print(_table(found))


@asynccontextmanager
async def _source(platform: Platform, url: str | None, *, patience_seconds: float) -> AsyncGenerator[WorkSource]:
    """Give the stores by the settings, or the platform at a URL once it answers, within so long."""
    if url is None:
        async with queue_of(platform) as queue:
            yield NearSource(platform.records, queue)
        return
    token = platform.settings.token
    os.environ.pop("KNOCKEM_TOKEN", None)  # what runs here is not handed it
    if token is None:
        raise KnockemError(
            "A worker over HTTP needs a token in KNOCKEM_TOKEN; `./knockem token add USER --scope worker` makes one."
        )
    async with source_at(url, token, patience_seconds=patience_seconds) as source:
        yield source


async def _work(
    platform: Platform, capacity: Capacity, url: str | None, *, idle_seconds: float | None, notice: str | None
) -> None:
    async with _source(platform, url, patience_seconds=idle_seconds or 0.0) as source:
        process = WorkerProcess(platform, source, capacity, say=say, idle_seconds=idle_seconds)
        working = asyncio.current_task()
        assert working is not None
        loop = asyncio.get_running_loop()
        asked = 0

        def end() -> None:
            nonlocal asked
            asked += 1
            if asked == 1:
                say(f"Ending: {DRAINING}. Once more ends it at once.")
                process.stop()
            else:
                working.cancel()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, end)
        beside = [asyncio.create_task(_tell(process, capacity))]
        if notice is not None:
            beside.append(asyncio.create_task(_end_when_interrupted(process, notice)))
        errands: list[asyncio.Task[None]] = []
        if url is None and capacity.runtimes - {"command"}:
            running = run_errands(platform, ERRANDS, runtimes=capacity.runtimes, over=process.is_ending, say=say)
            errands.append(asyncio.create_task(running))
        try:
            await process.run()
            process.stop()
            await asyncio.gather(*errands, return_exceptions=True)
        except asyncio.CancelledError:
            say("Ended at once; what was in work goes to others.")
        finally:
            for task in (*beside, *errands):
                task.cancel()
            for fault in await asyncio.gather(*beside, *errands, return_exceptions=True):
                if isinstance(fault, Exception):
                    say(f"{type(fault).__name__}: {fault}")
        say(f"Done: {process.tally}.")


async def _tell(process: WorkerProcess, capacity: Capacity) -> None:
    """Say what the worker offers, and from time to time what was done, when there is something new to say."""
    await process.registered()
    say(f"Worker {process.name} offers {_offer(capacity)}. Ctrl-C ends it.")
    told = process.tally
    while True:
        await asyncio.sleep(TOLD_SECONDS)
        if process.tally != told:
            told = process.tally
            say(f"So far: {told}.")


async def _end_when_interrupted(process: WorkerProcess, address: str) -> None:
    """Drain the worker as soon as there is notice that its machine will be taken away."""
    said = await interruption_notice_at(address)
    say(f"This machine will be taken away ({said}). Ending: {DRAINING}.")
    process.stop()


async def _worker_states(platform: Platform) -> list[WorkerState]:
    async with queue_of(platform) as queue:
        return await worker_states(queue, platform.records)


def _table(found: list[WorkerState]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("worker", "host"):
        table.add_column(name, overflow="fold")
    for name in ("CPUs", "memory", "GPUs", "jobs"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("current job", overflow="fold")
    for name in ("last beat", "done", "failed"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in found:
        table.add_row(
            escape(f"in the run of {each.only[:8]}" if each.only else each.name),
            escape(each.host),
            f"{each.cpus:g}",
            f"{each.memory_mib / 1024:.1f} GiB",
            f"{each.gpus}",
            f"{each.jobs}",
            escape(each.current or "waits for work"),
            f"{clock(each.last_beat)} ago",
            f"{each.done:,}",
            f"{each.failed:,}",
        )
    return table


def _offer(capacity: Capacity) -> str:
    parts = [counted(int(capacity.cpus), "CPU") if capacity.cpus % 1 == 0 else f"{capacity.cpus:g} CPUs"]
    parts.append(f"{capacity.memory_mib / 1024:.1f} GiB of memory")
    if capacity.gpus:
        parts.append(counted(capacity.gpus, "GPU"))
    if capacity.seconds_left is not None:
        parts.append(f"for {clock(capacity.seconds_left)}")
    return ", ".join(parts) + f" ({', '.join(sorted(capacity.runtimes))})"


def _chosen(names: str, there: frozenset[str]) -> frozenset[str]:
    """Return the runtimes that are named. Raises KnockemError for one that is not there."""
    chosen = frozenset(name.strip() for name in names.split(","))
    if missing := chosen - there:
        raise KnockemError(
            f"This machine cannot offer {', '.join(sorted(missing))}: there are {', '.join(sorted(there))}."
        )
    return chosen


def _seconds(option: str, text: str) -> float:
    """Read a time as schedulers write it. Raises KnockemError."""
    try:
        return seconds_of(text)
    except ValueError as error:
        raise KnockemError(f"{option} {text!r} is no time: give seconds, MM:SS, HH:MM:SS or D-HH:MM:SS.") from error


def say(line: str) -> None:
    """Tell people on standard error."""
    aside().print(line, markup=False, soft_wrap=True)
