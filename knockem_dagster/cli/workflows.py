"""`workflow submit`, `list`, `status`, `logs`, `graph`, `restart` and `cancel`: jobs that wait for one another."""

from __future__ import annotations

import asyncio
import getpass
import socket
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from knockem_dagster.cli.measured import measured_of, offer
from knockem_dagster.cli.terminal import FAILED, AsJson, answer_json, for_people, open_platform, short
from knockem_dagster.cli.wording import clock, counted
from knockem_dagster.cli.workflow_tables import (
    in_words,
    show_workflow,
    summary_of_job,
    summary_of_workflow,
    table_of_workflows,
)
from knockem_dagster.cli.working import say
from knockem_dagster.errors import KnockemError
from knockem_dagster.joblogs.tool_names import COMMAND, tool_of_command
from knockem_dagster.jobs.graph_pictures import draw_graph
from knockem_dagster.jobs.inspection import unsatisfiable
from knockem_dagster.jobs.job_enqueueing import requirement_of_command
from knockem_dagster.jobs.near_source import NearSource
from knockem_dagster.jobs.opening import queue_of, require_queue
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.jobs.queue_views import QueueViews, Worker
from knockem_dagster.jobs.restarting import Enlargement, restart_workflow
from knockem_dagster.jobs.specs.graph_builder import graph_of
from knockem_dagster.jobs.specs.job_graph import JobGraph
from knockem_dagster.jobs.specs.reading import read_workflow_file
from knockem_dagster.jobs.workflow_views import STATES, JobView, WorkflowView, job_states, view_jobs, view_workflow
from knockem_dagster.jobs.workflows import (
    MOST_ACTIVE,
    Submitter,
    cancel_workflow,
    command_of,
    resources_of,
    start_workflow,
    store_workflow,
)
from knockem_dagster.jobs.working import WorkerProcess, capacity_here
from knockem_dagster.nodes.opening import has_workflow_limits
from knockem_dagster.platform import Platform
from knockem_dagster.records.jobs import ResourcesValue, WorkflowRecord
from knockem_dagster.settings import load_settings

GOING = 3
"""Exit code of `status` while a workflow is going."""
LOOK_SECONDS = 1.0
app = typer.Typer(no_args_is_help=True, help="Jobs that wait for one another.")

WorkflowId = Annotated[
    str, typer.Argument(metavar="ID", help="A workflow's id, or at least 4 characters of its beginning.")
]


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(help="The workflow: a YAML, JSON or JSON5 file.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the file and say what it stands for.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until it is over, with a worker of its own.")] = False,
    max_active: Annotated[int, typer.Option(min=1, help="Jobs at a time, on all workers together.")] = MOST_ACTIVE,
    measured: Annotated[
        bool, typer.Option("--measured", help="Give jobs what earlier ones of their program used, with a margin.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Submit a workflow: check the whole file, store it, make ready what waits for nothing."""
    graph = _graph_in(file)
    without_effect = graph.without_effect(acquires_nodes=has_workflow_limits(load_settings()))
    if without_effect:
        say(f"Checked, but without effect so far: {', '.join(without_effect)}.")
    if dry_run:
        _tell_graph(file, graph, as_json=as_json)
        return
    with open_platform() as platform:
        require_queue(platform)
        submitter = Submitter(
            user_email=graph.spec.user or f"{getpass.getuser()}@{socket.gethostname()}",
            folder=str(Path.cwd()),
            max_active=max_active,
            resources=_measured_resources(platform, graph, accepted=measured),
        )
        view = asyncio.run(_submit(platform, graph, submitter, wait=wait))
    if as_json:
        answer_json(summary_of_workflow(view))
    else:
        typer.echo(view.workflow.id)
    if wait:
        say(f"Workflow {short(view.workflow.id)} is {view.workflow.state}, with {in_words(view)}.")
        if view.has_failed:
            raise typer.Exit(FAILED)


@app.command("list")
def list_workflows(
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many, the newest.")] = 50, as_json: AsJson = False
) -> None:
    """List workflows, the newest first."""
    with open_platform() as platform:
        views = asyncio.run(_views(platform, limit))
    if as_json:
        answer_json([summary_of_workflow(view) for view in views])
    elif not views:
        for_people().print("There is no workflow yet. `./knockem workflow submit FILE` submits one.")
    else:
        for_people().print(table_of_workflows(views))


@app.command()
def status(
    workflow: WorkflowId,
    state: Annotated[list[str] | None, typer.Option(help=f"Show jobs in this state: {', '.join(STATES)}.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many jobs.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show how far a workflow is. Exits 0 when all its jobs completed, 1 when not all did, 3 while it is going."""
    states = tuple(state or ())
    unknown = [each for each in states if each not in STATES]
    if unknown:
        raise KnockemError(f"{unknown[0]!r} is no state of a job; these are: {', '.join(STATES)}.")
    with open_platform() as platform:
        record = _resolve(platform, workflow)
        view, jobs = asyncio.run(_look(platform, record, states, limit))
    if as_json:
        answer_json({**summary_of_workflow(view), "jobList": [summary_of_job(each) for each in jobs]})
    else:
        show_workflow(view, jobs, states)
    if not view.workflow.is_over:
        raise typer.Exit(GOING)
    if view.has_failed:
        raise typer.Exit(FAILED)


@app.command()
def logs(
    workflow: WorkflowId,
    job: Annotated[str, typer.Argument(help="The job's name.")],
    as_json: AsJson = False,
) -> None:
    """Show what came of each try at a job, with the end of what it wrote."""
    with open_platform() as platform:
        record = _resolve(platform, workflow)
        found = next(platform.records.jobs.find({"workflowId": record.id, "name": job}, limit=1), None)
        if found is None:
            raise KnockemError(
                f"Workflow {short(record.id)} has no job {job!r}; `./knockem workflow status` lists them."
            )
        where = {"workflowId": record.id, "jobId": found.id}
        tries = sorted(platform.records.results.find(where), key=lambda result: result.datetime)
    if as_json:
        answer_json([each.model_dump(by_alias=True, mode="json") for each in tries])
        return
    console = for_people()
    console.print(f"$ {found.command[-1]}", markup=False, soft_wrap=True)
    for number, each in enumerate(tries, start=1):
        seconds = "" if each.wall_seconds is None else f" after {clock(each.wall_seconds)}"
        memory = "" if each.peak_memory is None else f", {each.peak_memory >> 20:,} MiB at most"
        code = "" if each.exit_code is None else f", exit code {each.exit_code}"
        told = f"try {number}: {each.outcome.value}{seconds}{code}{memory}, on {each.compute_node}"
        console.print(told, markup=False, soft_wrap=True)
        if each.tail:
            console.print(each.tail.rstrip(), markup=False, soft_wrap=True)
    if not tries:
        is_over = found.state is not None and found.state.is_over
        console.print(f"It is {found.state}, and no try at it is recorded." if is_over else "It has not ended yet.")


@app.command()
def graph(
    workflow: WorkflowId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", dir_okay=False, help="The SVG file.  [default: workflow-ID.svg]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Draw nothing: answer with jobs and edges as JSON.")] = False,
) -> None:
    """Draw which job waits for which, with the states they are in, as an SVG file; many like jobs as one node."""
    with open_platform() as platform:
        record = _resolve(platform, workflow)
        if as_json:
            answer_json(asyncio.run(_jobs_and_edges(platform, record)))
            return
        picture = asyncio.run(_picture(platform, record))
    path = output or Path(f"workflow-{short(record.id)}.svg")
    try:
        path.write_text(picture, encoding="utf-8")
    except OSError as error:
        raise KnockemError(f"The picture cannot be written to {path}: {error.strerror}.") from error
    typer.echo(str(path))


@app.command()
def restart(
    workflow: WorkflowId,
    memory_factor: Annotated[
        float, typer.Option(min=1.0, max=100.0, help="Enlarge the memory of jobs that ran out of it.")
    ] = 1.5,
    time_factor: Annotated[
        float, typer.Option(min=1.0, max=100.0, help="Enlarge the time of jobs that ran out of it.")
    ] = 1.5,
    as_json: AsJson = False,
) -> None:
    """Run again what did not complete or read what has changed, and what waited for these; nothing else."""
    with open_platform() as platform:
        require_queue(platform)
        record = _resolve(platform, workflow)
        enlargement = Enlargement(memory=memory_factor, time=time_factor)
        number = asyncio.run(_restart(platform, record, enlargement))
    if as_json:
        answer_json({"id": record.id, "jobs": number})
    else:
        for_people().print(f"{counted(number, 'job')} of workflow {short(record.id)} go again.")


@app.command()
def cancel(workflow: WorkflowId, as_json: AsJson = False) -> None:
    """Cancel a workflow: what runs is ended, nothing more is begun. What is recorded is kept."""
    with open_platform() as platform:
        record = _resolve(platform, workflow)
        if record.state == "completed":
            raise KnockemError(f"Workflow {short(record.id)} is completed already.")
        number = asyncio.run(_cancel(platform, record))
    if as_json:
        answer_json({"id": record.id, "jobs": number})
    else:
        for_people().print(f"Workflow {short(record.id)} is canceled; {counted(number, 'job')} had not ended.")


def _graph_in(file: Path) -> JobGraph:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise KnockemError(f"The workflow file {file} cannot be read: {error.strerror}.") from error
    return graph_of(read_workflow_file(data, name=file.name))


def _tell_graph(file: Path, graph: JobGraph, *, as_json: bool) -> None:
    numbers = {
        "jobs": len(graph.jobs),
        "dependencies": graph.num_dependencies,
        "readyAtOnce": graph.num_ready_at_once,
        "files": len(graph.files),
        "userData": len(graph.user_data),
    }
    if as_json:
        answer_json({"name": graph.spec.name, **numbers})
        return
    ready = f"{graph.num_ready_at_once:,} ready at once"
    told = f"{file}: {counted(len(graph.jobs), 'job')}, {ready}; dependencies: {graph.num_dependencies:,}"
    for_people().print(told, markup=False, soft_wrap=True)


async def _submit(platform: Platform, graph: JobGraph, submitter: Submitter, *, wait: bool) -> WorkflowView:
    async with queue_of(platform) as queue:
        workflow = await asyncio.to_thread(store_workflow, platform.records, graph, submitter)
        await start_workflow(platform.records, queue, workflow)
        if wait:
            await _carry_through(platform, queue, workflow)
        elif workers := await QueueViews(queue).workers():
            _say_what_is_lacking(graph, workers)
        else:
            say("No worker is there: `./knockem worker` starts one.")
        return await view_workflow(platform.records, queue, await _current(platform, workflow))


def _measured_resources(platform: Platform, graph: JobGraph, *, accepted: bool) -> dict[str, ResourcesValue]:
    """Offer what earlier jobs of the same programs used; return what jobs get, by name, if that is accepted."""
    names = {name: name for name in graph.user_data}  # what they stand for differs each time
    tools = {name: (tool_of_command(command_of(graph, job, names)), COMMAND) for name, job in graph.jobs.items()}
    found = measured_of(platform, sorted(set(tools.values())), anew=accepted)
    jobs = {name: job.spec.resource_requirements for name, job in graph.jobs.items() if tools[name] in found}
    given = {needs: resources_of(graph, needs) for needs in set(jobs.values())}
    for tool, needs in sorted({(tools[name], needs or "") for name, needs in jobs.items()}):
        offer(platform, tool[0], given[needs or None], found[tool], accepted=accepted)
    if not accepted:
        return {}
    return {name: found[tools[name]].resources(given[needs]) for name, needs in jobs.items()}


def _say_what_is_lacking(graph: JobGraph, workers: Mapping[str, Worker]) -> None:
    """Say which jobs no registered worker can ever run."""
    for name, number in Counter(job.spec.resource_requirements for job in graph.jobs.values()).items():
        lacking = unsatisfiable(requirement_of_command(resources_of(graph, name)), workers)
        if lacking:
            needing = "without resource_requirements" if name is None else f"with {name!r}"
            say(f"{lacking[:1].upper()}{lacking[1:]}: {counted(number, 'job')} {needing} will wait until one does.")


async def _carry_through(platform: Platform, queue: Queue, workflow: WorkflowRecord) -> None:
    """Work on a workflow until it is over, saying how far it is."""
    worker = WorkerProcess(platform, NearSource(platform.records, queue), capacity_here(platform), say=say)
    working = asyncio.create_task(worker.run())
    told = ""
    try:
        while (await _current(platform, workflow)).state == "running":
            line = in_words(await view_workflow(platform.records, queue, workflow))
            if line != told:
                say(line)
                told = line
            await asyncio.wait([working], timeout=LOOK_SECONDS)
            if working.done():
                break
    finally:
        worker.stop()
        await working


async def _current(platform: Platform, workflow: WorkflowRecord) -> WorkflowRecord:
    return await asyncio.to_thread(platform.records.workflows.get, workflow.id)


async def _views(platform: Platform, limit: int) -> list[WorkflowView]:
    newest = platform.records.workflows.find({"isGraph": True}, sort=[("datetime", -1)], limit=limit)
    async with _queue_if_any(platform) as queue:
        return [await view_workflow(platform.records, queue, each) for each in newest]


async def _look(
    platform: Platform, workflow: WorkflowRecord, states: tuple[str, ...], most: int
) -> tuple[WorkflowView, list[JobView]]:
    async with _queue_if_any(platform) as queue:
        view = await view_workflow(platform.records, queue, workflow)
        return view, await view_jobs(platform.records, queue, workflow, states=states, most=most)


async def _jobs_and_edges(platform: Platform, workflow: WorkflowRecord) -> dict[str, Any]:
    records, where = platform.records, {"workflowId": workflow.id}
    async with _queue_if_any(platform) as queue:
        states = await job_states(records, queue, workflow)
    jobs = [{"id": job.id, "name": job.name, "state": states[job.id]} for job in records.jobs.find(where)]
    blocks = [edge.model_dump(by_alias=True, include={"origin", "target"}) for edge in records.blocks.find(where)]
    return {"jobs": jobs, "blocks": blocks}


async def _picture(platform: Platform, workflow: WorkflowRecord) -> str:
    async with _queue_if_any(platform) as queue:
        return await draw_graph(platform.records, queue, workflow)


async def _restart(platform: Platform, workflow: WorkflowRecord, enlargement: Enlargement) -> int:
    async with queue_of(platform) as queue:
        return await restart_workflow(platform.records, queue, workflow.id, enlargement)


async def _cancel(platform: Platform, workflow: WorkflowRecord) -> int:
    async with _queue_if_any(platform) as queue:
        return await cancel_workflow(platform.records, queue, workflow)


@asynccontextmanager
async def _queue_if_any(platform: Platform) -> AsyncGenerator[Queue | None]:
    if not platform.has_queue:
        yield None
        return
    async with queue_of(platform) as queue:
        yield queue


def _resolve(platform: Platform, prefix: str) -> WorkflowRecord:
    """Return the one workflow whose id begins so. Raises NotFound for none or several."""
    return platform.records.workflows.starting_with(prefix, what="workflow", listing="workflow list")
