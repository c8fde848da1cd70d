"""A workflow on its way into the record and the queue: nodes and edges of its graph as documents, all or nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from knockem_dagster.errors import Conflict
from knockem_dagster.jobs.job_records import put_missing
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.jobs.recovery import ATTEMPT
from knockem_dagster.jobs.specs.action_jobs import action_command, action_name, jobs_with_actions
from knockem_dagster.jobs.specs.job_graph import GraphJob, JobGraph
from knockem_dagster.jobs.specs.workflow_spec import ActionSpec
from knockem_dagster.jobs.unblocking import state_after, state_changes
from knockem_dagster.records.catalog import OF_A_GRAPH, Records
from knockem_dagster.records.job_graph import (
    BlocksEdge,
    EdgeRecord,
    FileRecord,
    NeedsEdge,
    ProducesEdge,
    RequiresEdge,
    ResourceRequirementsRecord,
    ScheduledByEdge,
    SchedulerConfigurationRecord,
    StoresEdge,
    UserDataRecord,
    WorkerActionRecord,
    edge_id,
    place_of,
)
from knockem_dagster.records.jobs import (
    MOST_READ_FILES,
    FailureRuleValue,
    JobRecord,
    JobState,
    ResourcesValue,
    WorkflowRecord,
)
from knockem_dagster.records.record import Record, derived_id, new_id, now, revision
from knockem_dagster.stores.documents import Patch, PutNew
from knockem_dagster.stores.paging import pages

PAGE = 5000
MOST_ACTIVE = 10_000
"""Jobs of a workflow at a time, unless its submitter says otherwise."""
DEFAULT_RESOURCES = ResourcesValue(cpus=1.0, memoryMiB=1024)
"""What a job may use that names no resource requirements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitter:
    """Who submits a workflow, and the folder in which its commands run: where the worker was started, if None.

    `resources`: what jobs may use, by name, that get anything else than their file says.
    """

    user_email: str
    folder: str | None
    max_active: int = MOST_ACTIVE
    resources: Mapping[str, ResourcesValue] = field(default_factory=dict[str, ResourcesValue])


def store_workflow(records: Records, graph: JobGraph, submitter: Submitter) -> WorkflowRecord:
    """Record a workflow with all its nodes and edges, not yet running. Until it runs it can be taken back whole."""
    workflow = WorkflowRecord(
        id=new_id(),
        name=graph.spec.name,
        description=graph.spec.description or "",
        max_active=submitter.max_active,
        user_email=submitter.user_email,
        is_graph=True,
    )
    records.workflows.add(workflow)
    try:
        for page in pages(_Documents(workflow, graph, submitter).operations(), PAGE):
            records.documents.bulk(page)
    except BaseException:
        take_back(records, workflow.id)
        raise
    return workflow


def command_of(graph: JobGraph, job: GraphJob, user_data: Mapping[str, str]) -> tuple[str, ...]:
    """Return the command of a job, with what is given for user data, by name."""
    script = "" if job.spec.invocation_script is None else f"{job.spec.invocation_script} "
    return "bash", "-c", graph.with_references(f"{script}{job.spec.command}", user_data)


async def start_workflow(records: Records, queue: Queue, workflow: WorkflowRecord) -> None:
    """Let a recorded workflow run: what waits for nothing is ready. Raises Conflict if it is canceled by now."""
    await say_it_runs(records, workflow)
    await put_missing(records, queue, workflow)


async def say_it_runs(records: Records, workflow: WorkflowRecord) -> None:
    """Tell the record that a workflow runs. Raises Conflict if its state is not the known one any more."""
    known = {"_id": workflow.id, "state": workflow.state}
    running = Patch(set={"state": "running"}, unset=("cpuSeconds", "ended"))
    if await asyncio.to_thread(records.documents.claim, records.workflows.name, known, running) is None:
        raise Conflict(f"Workflow {workflow.id} is not {workflow.state} any more: somebody else was quicker.")


async def cancel_workflow(records: Records, queue: Queue | None, workflow: WorkflowRecord) -> int:
    """End a workflow: what is in work is ended, what waits is not begun. Return how many jobs were not over.

    Whoever died while canceling it is made up for by who does it again.
    """
    going = {"_id": workflow.id, "state": {"$in": ["uninitialized", "running"]}}
    canceled = Patch(set={"state": "canceled", "ended": now()})
    await asyncio.to_thread(records.documents.claim, records.workflows.name, going, canceled)
    if queue is not None:
        await queue.cancel(workflow.id)  # what has ended, and is not recorded yet, will be
    return await asyncio.to_thread(_cancel_jobs, records, workflow.id)


def _cancel_jobs(records: Records, workflow: str) -> int:
    number = 0
    waiting = [job.id for job in records.jobs.find({"workflowId": workflow, "state": JobState.BLOCKED.value})]
    for page in pages(waiting, PAGE):
        records.documents.bulk(state_changes(dict.fromkeys(page, JobState.CANCELED)))
        ended = records.results.get_many(page)  # recorded meanwhile
        records.documents.bulk(state_changes({id: state_after(result) for id, result in ended.items()}))
        number += len(page) - len(ended)
    return number


def take_back(records: Records, workflow: str) -> None:
    """Remove a workflow from the record with all that belongs to it."""
    for model in (*OF_A_GRAPH, JobRecord):
        records.documents.delete(model.collection.name, {"workflowId": workflow})
    records.documents.delete(WorkflowRecord.collection.name, {"_id": workflow})


def resources_of(graph: JobGraph, name: str | None) -> ResourcesValue:
    """Return what jobs may use that name these resource requirements, or none."""
    if name is None:
        return DEFAULT_RESOURCES
    needs = graph.requirements[name]
    return ResourcesValue(
        cpus=float(needs.num_cpus), memoryMiB=needs.memory, gpus=needs.num_gpus, seconds=needs.runtime
    )


class _Documents:
    """The documents of a workflow's graph."""

    def __init__(self, workflow: WorkflowRecord, graph: JobGraph, submitter: Submitter) -> None:
        self._workflow = workflow
        self._graph = graph
        self._submitter = submitter
        # Stamped once: there may be hundreds of thousands.
        self._stamps = {"workflowId": workflow.id, "datetime": now(), "revisionKnockem": revision()}
        self._jobs = jobs_with_actions(graph)
        self._job_ids = {name: self._id(JobRecord, name) for name in self._jobs}
        self._user_data_ids = {name: self._id(UserDataRecord, name) for name in graph.user_data}
        self._made = {name for job in graph.jobs.values() for name in job.files.outputs}
        self._dependents = Counter(blocker for job in self._jobs.values() for blocker in job.blockers)

    def operations(self) -> Iterator[PutNew]:
        """Yield what stores them: nodes first."""
        for record in self._nodes_beside_jobs():
            yield PutNew(record.collection.name, record.to_document())
        for name, job in self._jobs.items():
            yield PutNew(JobRecord.collection.name, self._job(name, job).to_document())
        for name, job in self._jobs.items():
            yield from self._edges(name, job)

    def _id(self, model: type[Record], name: str) -> str:
        return derived_id(self._workflow.id, model.collection.name, name)

    def _nodes_beside_jobs(self) -> Iterator[Record]:
        graph = self._graph
        for name, file in graph.files.items():
            yield self._node(FileRecord, name, path=file.path)
        for name, data in graph.user_data.items():
            yield self._node(UserDataRecord, name, data=data.data, is_ephemeral=data.is_ephemeral)
        for name, needs in graph.requirements.items():
            numbers = {"num_cpus": needs.num_cpus, "num_gpus": needs.num_gpus, "num_nodes": needs.num_nodes}
            yield self._node(
                ResourceRequirementsRecord, name, memory_mib=needs.memory, seconds=needs.runtime, **numbers
            )
        for name, scheduler in graph.schedulers.items():
            options = graph.options_of(scheduler)
            number = graph.num_nodes_of(scheduler)
            yield self._node(SchedulerConfigurationRecord, name, scheduler="slurm", options=options, num_nodes=number)
        for number, action in enumerate(graph.actions):
            if action.is_for_workers:
                yield self._worker_action(number, action.spec)

    def _node(self, model: type[Record], name: str, **fields: Any) -> Record:
        id = self._id(model, name)
        return model.model_validate({"id": id, "workflow_id": self._workflow.id, "name": name, **fields})

    def _worker_action(self, number: int, action: ActionSpec) -> Record:
        return self._node(
            WorkerActionRecord,
            action_name(number, action),
            number=number,
            trigger=action.trigger_type,
            command=("bash", "-c", self._filled(action_command(action))),
            environment=self._environment({}),
            folder=self._submitter.folder,
        )

    def _job(self, name: str, job: GraphJob) -> JobRecord:
        spec, id = job.spec, self._job_ids[name]
        return JobRecord(
            id=id,
            datetime=self._stamps["datetime"],
            revision_knockem=self._stamps["revisionKnockem"],
            workflow_id=self._workflow.id,
            name=name,
            command=command_of(self._graph, job, self._user_data_ids),
            environment={
                **self._environment(spec.env or {}),
                "TORC_JOB_ID": id,
                "TORC_JOB_NAME": name,
                ATTEMPT: "1",
            },
            folder=self._submitter.folder,
            keep_output=spec.stdio is None or spec.stdio.mode != "none",
            resources=self._submitter.resources.get(name) or resources_of(self._graph, spec.resource_requirements),
            state=JobState.BLOCKED,
            num_dependents=self._dependents[name],
            cancel_on_blocking_job_failure=spec.cancel_on_blocking_job_failure,
            priority=spec.priority,
            is_action=job.is_action,
            failure_rules=self._rules(spec.failure_handler),
            reads=self._reads(job),
        )

    def _environment(self, own: Mapping[str, str]) -> dict[str, str]:
        """Return the variables that every command of the workflow gets, with its own, which come first."""
        given = {**(self._graph.spec.env or {}), **own}
        of_workflow = {"TORC_WORKFLOW_ID": self._workflow.id, "TORC_OUTPUT_DIR": self._submitter.folder or "."}
        return {**{key: self._filled(text) for key, text in given.items()}, **of_workflow}

    def _filled(self, text: str) -> str:
        return self._graph.with_references(text, self._user_data_ids)

    def _reads(self, job: GraphJob) -> tuple[str, ...]:
        """Return the paths of the files that a job reads and does not make, those first that no job makes."""
        names = sorted(set(job.files.inputs) - set(job.files.outputs), key=lambda name: (name in self._made, name))
        return tuple(self._graph.files[name].path for name in names[:MOST_READ_FILES])

    def _rules(self, name: str | None) -> tuple[FailureRuleValue, ...]:
        rules = () if name is None else self._graph.handlers[name].rules
        return tuple(FailureRuleValue.model_validate(rule.model_dump()) for rule in rules)

    def _edges(self, name: str, job: GraphJob) -> Iterator[PutNew]:
        here = place_of(JobRecord, self._job_ids[name])
        for blocker in job.blockers:
            yield self._edge(BlocksEdge, place_of(JobRecord, self._job_ids[blocker]), here)
        yield from self._links(here, NeedsEdge, FileRecord, job.files.inputs)
        yield from self._links(here, ProducesEdge, FileRecord, job.files.outputs)
        yield from self._links(here, NeedsEdge, UserDataRecord, job.user_data.inputs)
        yield from self._links(here, StoresEdge, UserDataRecord, job.user_data.outputs)
        if job.spec.resource_requirements is not None:
            yield from self._links(here, RequiresEdge, ResourceRequirementsRecord, [job.spec.resource_requirements])
        if job.spec.scheduler is not None:
            yield from self._links(here, ScheduledByEdge, SchedulerConfigurationRecord, [job.spec.scheduler])

    def _links(self, here: str, edge: type[EdgeRecord], node: type[Record], names: Sequence[str]) -> Iterator[PutNew]:
        for name in names:
            yield self._edge(edge, here, place_of(node, self._id(node, name)))

    def _edge(self, kind: type[EdgeRecord], origin: str, target: str) -> PutNew:
        id = edge_id(kind, origin, target)
        return PutNew(kind.collection.name, {"_id": id, "id": id, "_from": origin, "_to": target, **self._stamps})
