"""The graph that a workflow file stands for: its nodes by name, and which job waits for which."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from knockem_dagster.jobs.specs.workflow_spec import (
    ActionSpec,
    FailureHandlerSpec,
    FileSpec,
    JobSpec,
    ResourceRequirementsSpec,
    SlurmSchedulerSpec,
    UserDataSpec,
    WorkflowSpec,
)

Kind: TypeAlias = Literal["files", "user_data"]
Direction: TypeAlias = Literal["input", "output"]

_TRIGGERS_OF_WORKERS = ("on_worker_start", "on_worker_complete")
_WITHOUT_EFFECT = (
    "resource_monitor",
    "execution_config",
    "use_pending_failed",
    "jobs_sort_method",
    "enable_ro_crate",
    "access_groups",
    "compute_node_expiration_buffer_seconds",
    "compute_node_wait_for_new_jobs_seconds",
    "compute_node_ignore_workflow_completion",
    "compute_node_wait_for_healthy_database_minutes",
)
_OF_JOBS = ("scheduler", "supports_termination")
_OF_SCHEDULERS = ("ntasks_per_node",)
_OF_ACTIONS = ("start_one_worker_per_node", "max_parallel_jobs", "persistent")

_REFERENCE = re.compile(r"\$\{(files|user_data)\.(input|output)\.([^{}]+)\}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A file or user data that a command names, as in `${files.input.NAME}`."""

    kind: Kind
    direction: Direction
    name: str


def references_in(text: str) -> Iterator[Reference]:
    """Yield what a text names."""
    for found in _REFERENCE.finditer(text):
        yield _reference(found)


def _reference(found: re.Match[str]) -> Reference:
    return Reference(
        "files" if found[1] == "files" else "user_data", "input" if found[2] == "input" else "output", found[3]
    )


@dataclass(frozen=True, slots=True)
class Links:
    """The files, or the user data, that a job reads and writes, by name."""

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GraphJob:
    """A job as it was defined, with all that its patterns and references stand for.

    `blockers` are the jobs that it waits for: those it names, then those that make what it reads.
    """

    spec: JobSpec
    files: Links
    user_data: Links
    blockers: tuple[str, ...]
    is_action: bool = False


@dataclass(frozen=True, slots=True)
class TriggeredAction:
    """An action with the jobs that its trigger waits for; none for triggers of the workflow or a worker.

    `made_by` are the jobs that make what its commands read.
    """

    spec: ActionSpec
    jobs: tuple[str, ...]
    made_by: tuple[str, ...]

    @property
    def is_job(self) -> bool:
        """Tell whether the action is run as a job: no nodes are had so, and what each worker runs is no job."""
        return self.spec.action_type == "run_commands" and not self.is_for_workers

    @property
    def is_for_workers(self) -> bool:
        """Tell whether each worker runs the action's commands."""
        return self.spec.action_type == "run_commands" and self.spec.trigger_type in _TRIGGERS_OF_WORKERS

    @property
    def is_for_nodes(self) -> bool:
        """Tell whether the action lets nodes be acquired; they are once work is ready, whatever its trigger."""
        return self.spec.action_type == "schedule_nodes" and self.spec.scheduler_type != "local"


def with_defaults(scheduler: SlurmSchedulerSpec, defaults: Mapping[str, str | bool]) -> SlurmSchedulerSpec:
    """Return a scheduler with what it does not say itself; defaults without a key of their own go to `extra`.

    Raises ValidationError for a default that such a key cannot be.
    """
    known = {name: value for name, value in defaults.items() if name in SlurmSchedulerSpec.model_fields}
    whole = SlurmSchedulerSpec.model_validate({**known, **scheduler.model_dump(exclude_unset=True)})
    others = [
        shlex.quote(f"--{name}" if value is True else f"--{name}={value}")
        for name, value in defaults.items()
        if name not in known and value is not False
    ]
    extra = " ".join([*others, *([whole.extra] if whole.extra else [])])
    return whole.model_copy(update={"extra": extra or None})


@dataclass(frozen=True, slots=True)
class JobGraph:
    """All nodes of a workflow by name. Every name that stands in one is known, and no job waits for itself."""

    spec: WorkflowSpec
    jobs: Mapping[str, GraphJob]
    files: Mapping[str, FileSpec]
    user_data: Mapping[str, UserDataSpec]
    requirements: Mapping[str, ResourceRequirementsSpec]
    handlers: Mapping[str, FailureHandlerSpec]
    schedulers: Mapping[str, SlurmSchedulerSpec]
    actions: Sequence[TriggeredAction]

    def without_effect(self, *, acquires_nodes: bool) -> list[str]:
        """Return the keys of the file that are checked and change nothing yet.

        `acquires_nodes`: whether the platform asks the schedulers of workflow files for nodes.
        """
        given = [key for key in _WITHOUT_EFFECT if key in self.spec.model_fields_set]
        idle = {
            f"{each.spec.action_type} {each.spec.trigger_type}"
            for each in self.actions
            if each.spec.action_type != "run_commands" and not (each.is_for_nodes and acquires_nodes)
        }
        parts = [
            *((job.spec, _OF_JOBS) for job in self.jobs.values()),
            *((self._with_defaults(scheduler), _OF_SCHEDULERS) for scheduler in self.schedulers.values()),
            *((action.spec, _OF_ACTIONS) for action in self.actions),
        ]
        of_parts = {key for part, keys in parts for key in keys if getattr(part, key)}
        nodes = {"num_nodes" for needs in self.requirements.values() if needs.num_nodes > 1}
        return [*given, *sorted(idle), *sorted(of_parts | nodes)]

    @property
    def num_dependencies(self) -> int:
        """How many pairs of jobs there are of which one waits for the other."""
        return sum(len(job.blockers) for job in self.jobs.values())

    @property
    def num_ready_at_once(self) -> int:
        """How many jobs wait for none."""
        return sum(not job.blockers for job in self.jobs.values())

    def num_nodes_of(self, scheduler: SlurmSchedulerSpec) -> int:
        """Return how many nodes the actions ask of a scheduler."""
        asked = (each.spec for each in self.actions if each.is_for_nodes and each.spec.scheduler == scheduler.name)
        return sum(each.num_allocations or 1 for each in asked) * scheduler.nodes

    def options_of(self, scheduler: SlurmSchedulerSpec) -> dict[str, str | int | bool]:
        """Return the options of a scheduler, with the defaults for all of them."""
        return self._with_defaults(scheduler).model_dump(exclude_none=True, exclude={"name"})

    def _with_defaults(self, scheduler: SlurmSchedulerSpec) -> SlurmSchedulerSpec:
        return with_defaults(scheduler, self.spec.slurm_defaults or {})

    def with_references(self, text: str, user_data: Mapping[str, str]) -> str:
        """Return a command with the paths of files, and what is given for user data, in place of references."""

        def filled(found: re.Match[str]) -> str:
            reference = _reference(found)
            return self.files[reference.name].path if reference.kind == "files" else user_data[reference.name]

        return _REFERENCE.sub(filled, text)
