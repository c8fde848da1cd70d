"""The layout of a workflow file, as torc documents it (NREL, docs "Workflow Specification Reference", 0.12 to 0.25).

What belongs here: the keys and the types of their values. What they stand for is in expansion.py and job_graph.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from knockem_dagster.jobs.specs.parameters import Mode, Parameter, ParameterValue
from knockem_dagster.jobs.walltimes import seconds_of_walltime
from knockem_dagster.mapping_file import storable_json

_MEMORY = re.compile(r"(\d+)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_MOST_MEMORY_MIB = 1 << 30
_DURATION = TypeAdapter(timedelta)
_MOST_SECONDS = 366 * 86400.0


def _parameter(value: object) -> Parameter:
    """Accept a text or number, or a list of such, the items of which are what they are: "007" stays a text."""
    if isinstance(value, list | tuple):
        items: Sequence[object] = value
        return tuple(_item(item) for item in items)
    if isinstance(value, str):
        return value
    return str(_item(value))


def _item(value: object) -> ParameterValue:
    if isinstance(value, float) and math.isfinite(value):
        return Decimal(str(value))
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise ValueError("texts and numbers are")
    return value


def _memory_mib(value: object) -> int:
    """Return MiB, rounded up, from a text such as "512k", "2g" or a number of bytes (powers of 1,024)."""
    found = _MEMORY.fullmatch(str(value).strip())
    if found is None:
        raise ValueError('a number of bytes with k, m, g or t, such as "512m" or "2g", is')
    mib = _mib(int(found[1]), found[2])
    if not 0 < mib <= _MOST_MEMORY_MIB:
        raise ValueError("more than nothing, and no more than a pebibyte, is")
    return mib


def mib_of_slurm(text: str) -> int:
    """Return the MiB that --mem of SLURM says: without a letter it is MiB, and 0 is all. Raises ValueError."""
    found = _MEMORY.fullmatch(text.strip())
    mib = -1 if found is None else _mib(int(found[1]), found[2] or "m")
    if found is None or mib > _MOST_MEMORY_MIB:
        raise ValueError('what --mem of SLURM takes, such as "16000" (MiB), "16g" or "0" (all), is')
    return mib


def _mib(number: int, letter: str) -> int:
    return -(-(number * 1024 ** _POWERS[letter.lower()]) // (1 << 20))


def _seconds(value: object) -> float:
    """Return seconds from an ISO 8601 duration."""
    try:
        if not isinstance(value, str) or not value.lstrip("+").startswith("P"):
            raise ValueError
        seconds = _DURATION.validate_python(value).total_seconds()
    except (ValueError, ValidationError) as error:
        raise ValueError("an ISO 8601 duration such as PT30M or P1DT2H is") from error
    if not 0 < seconds <= _MOST_SECONDS:
        raise ValueError("a duration above 0 and up to P366D is")
    return seconds


def _walltime(value: str) -> str:
    """Make sure that SLURM can read a time."""
    seconds_of_walltime(value)
    return value


def _mem(value: str) -> str:
    """Make sure that SLURM can read an amount of memory."""
    mib_of_slurm(value)
    return value


def _granularity(value: object) -> object:
    """Accept the spellings of earlier versions, too."""
    return {"summary": "Summary", "time_series": "TimeSeries"}.get(value, value) if isinstance(value, str) else value


def _at_least_one(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        raise ValueError("at least one is needed")
    return value


def _path(value: str) -> str:
    if "\0" in value:
        raise ValueError("a path without a zero byte is")
    return value


Name = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")]
Text = Annotated[str, AfterValidator(_path)]
_PLAIN_VALUE = {"anyOf": [{"type": "string"}, {"type": "number"}]}
_VALUES = {"anyOf": [*_PLAIN_VALUE["anyOf"], {"type": "array", "minItems": 1, "items": _PLAIN_VALUE}]}
Parameters = dict[str, Annotated[Parameter, PlainValidator(_parameter), WithJsonSchema(_VALUES)]]
Memory = Annotated[
    int, BeforeValidator(_memory_mib), WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "integer"}]})
]
Duration = Annotated[float, BeforeValidator(_seconds), WithJsonSchema({"type": "string", "format": "duration"})]
Count = Annotated[int, Field(ge=1, lt=1 << 31)]
Seconds = Annotated[int, Field(ge=0, lt=1 << 31)]
ExitCode = Annotated[int, Field(ge=0, le=255)]
EdgeKind = Literal["blocks", "needs", "produces", "requires", "scheduled_by", "stores"]
Environment = dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], Text]


class SpecPart(BaseModel):
    """A part of a workflow file. Keys that it does not know are faults; those without a value are left out."""

    EARLIER_NAMES: ClassVar[Mapping[str, str]] = {}
    """Keys that were called otherwise in earlier versions of torc, with what they are called now."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    @model_validator(mode="before")
    @classmethod
    def _with_present_names(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        given: Mapping[Any, Any] = content
        return {
            name if (name := cls.EARLIER_NAMES.get(key, key)) not in given else key: value
            for key, value in given.items()
            if value is not None
        }


class Expandable(SpecPart):
    """A part that stands for several, one for each combination of parameters."""

    parameters: Parameters | None = None
    parameter_mode: Mode = "product"
    use_parameters: tuple[str, ...] | None = None


class StdioSpec(SpecPart):
    """What becomes of what a job writes."""

    mode: Literal["separate", "combined", "no_stdout", "no_stderr", "none"] = "separate"
    delete_on_success: bool = False


class JobSpec(Expandable):
    """A command, what it needs and what it waits for."""

    LISTS: ClassVar[tuple[str, ...]] = (
        "depends_on",
        "depends_on_regexes",
        "input_files",
        "input_file_regexes",
        "output_files",
        "output_file_regexes",
        "input_user_data",
        "input_user_data_regexes",
        "output_user_data",
        "output_user_data_regexes",
    )
    """The fields that name others. Those of jobs with one name are put together."""
    EARLIER_NAMES: ClassVar[Mapping[str, str]] = {
        "blocked_by_job_names": "depends_on",
        "blocked_by_job_name_regexes": "depends_on_regexes",
        "input_file_names": "input_files",
        "input_file_name_regexes": "input_file_regexes",
        "output_file_names": "output_files",
        "output_file_name_regexes": "output_file_regexes",
        "input_user_data_names": "input_user_data",
        "input_user_data_name_regexes": "input_user_data_regexes",
        "output_data_names": "output_user_data",
        "output_user_data_name_regexes": "output_user_data_regexes",
        "resource_requirements_name": "resource_requirements",
        "scheduler_name": "scheduler",
    }

    name: Name
    command: Annotated[Text, Field(min_length=1)]
    invocation_script: Text | None = None
    env: Environment | None = None
    priority: int = Field(default=0, ge=-(1 << 31), lt=1 << 31)
    resource_requirements: str | None = None
    failure_handler: str | None = None
    scheduler: str | None = None
    cancel_on_blocking_job_failure: bool = False
    supports_termination: bool = False
    depends_on: tuple[str, ...] | None = None
    depends_on_regexes: tuple[str, ...] | None = None
    input_files: tuple[str, ...] | None = None
    input_file_regexes: tuple[str, ...] | None = None
    output_files: tuple[str, ...] | None = None
    output_file_regexes: tuple[str, ...] | None = None
    input_user_data: tuple[str, ...] | None = None
    input_user_data_regexes: tuple[str, ...] | None = None
    output_user_data: tuple[str, ...] | None = None
    output_user_data_regexes: tuple[str, ...] | None = None
    stdio: StdioSpec | None = None


class FileSpec(Expandable):
    """A file that jobs read or write."""

    name: Name
    path: Annotated[Text, Field(min_length=1)]
    identifier: str | None = None
    st_mtime: float | None = None


class UserDataSpec(Expandable):
    """JSON that jobs read or write."""

    name: Name
    data: Annotated[Any, AfterValidator(storable_json)] = None
    is_ephemeral: bool = False


class ResourceRequirementsSpec(SpecPart):
    """What a job needs: CPUs, memory (MiB), GPUs, nodes, and seconds at most."""

    name: Name
    num_cpus: int = Field(gt=0, le=1 << 16)
    memory: Memory
    num_gpus: int = Field(default=0, ge=0, le=1 << 10)
    num_nodes: int = Field(default=1, ge=1, le=1 << 16)
    runtime: Duration = 3600.0


class FailureRuleSpec(SpecPart):
    """What is done when a job ends with one of these exit codes."""

    exit_codes: tuple[ExitCode, ...] = ()
    match_all_exit_codes: bool = False
    recovery_script: Text | None = None
    max_retries: int = Field(default=3, ge=0, le=1000)


class FailureHandlerSpec(SpecPart):
    """Rules, of which the first that fits counts."""

    name: Name
    rules: tuple[FailureRuleSpec, ...]


class SlurmSchedulerSpec(SpecPart):
    """How nodes are asked of SLURM."""

    name: Name
    account: str | None = None
    partition: str | None = None
    nodes: Count = 1
    walltime: Annotated[str, AfterValidator(_walltime)] = "01:00:00"
    mem: Annotated[str, AfterValidator(_mem)] | None = None
    gres: str | None = None
    qos: str | None = None
    ntasks_per_node: Count | None = None
    tmp: str | None = None
    extra: str | None = None
    serialize_allocations: bool = False


class ActionSpec(SpecPart):
    """What is done when jobs, workers or the workflow get so far."""

    trigger_type: Literal[
        "on_workflow_start",
        "on_workflow_complete",
        "on_jobs_ready",
        "on_jobs_complete",
        "on_worker_start",
        "on_worker_complete",
    ]
    action_type: Literal["run_commands", "schedule_nodes"]
    jobs: tuple[str, ...] | None = None
    job_name_regexes: tuple[str, ...] | None = None
    commands: tuple[Text, ...] | None = None
    scheduler: str | None = None
    scheduler_type: Literal["slurm", "local"] | None = None
    num_allocations: Count | None = None
    start_one_worker_per_node: bool | None = None
    max_parallel_jobs: Count | None = None
    persistent: bool = False


class EdgeSpec(SpecPart):
    """What one node is to another, both as "collection/name". Torc's files have no such key: its API has."""

    kind: EdgeKind
    origin: str = Field(alias="from", max_length=600)
    target: str = Field(alias="to", max_length=600)


class ResourceMonitorSpec(SpecPart):
    """What is measured while jobs run."""

    enabled: bool = False
    granularity: Annotated[Literal["Summary", "TimeSeries"], BeforeValidator(_granularity)] = "Summary"
    sample_interval_seconds: Count = 5
    generate_plots: bool = False


class ExecutionSpec(SpecPart):
    """How jobs are run and ended."""

    mode: Literal["direct", "slurm", "auto"] = "direct"
    sigkill_headroom_seconds: Seconds = 60
    timeout_exit_code: ExitCode = 152
    staggered_start: bool = True
    stdio: StdioSpec | None = None
    limit_resources: bool = True
    termination_signal: str = "SIGTERM"
    sigterm_lead_seconds: Seconds = 30
    oom_exit_code: ExitCode = 137
    srun_termination_signal: str | None = None
    enable_cpu_bind: bool = False
    srun_mpi: str | None = None


class WorkflowSpec(SpecPart):
    """A whole workflow file."""

    name: Name
    user: str | None = None
    description: str | None = None
    project: str | None = None
    metadata: str | None = None
    parameters: Parameters | None = None
    variables: dict[str, str] | None = None
    env: Environment | None = None
    jobs: Annotated[tuple[JobSpec, ...], AfterValidator(_at_least_one)]
    files: tuple[FileSpec, ...] | None = None
    user_data: tuple[UserDataSpec, ...] | None = None
    resource_requirements: tuple[ResourceRequirementsSpec, ...] | None = None
    failure_handlers: tuple[FailureHandlerSpec, ...] | None = None
    slurm_schedulers: tuple[SlurmSchedulerSpec, ...] | None = None
    slurm_defaults: dict[str, str | bool] | None = None
    actions: tuple[ActionSpec, ...] | None = None
    edges: tuple[EdgeSpec, ...] | None = None
    resource_monitor: ResourceMonitorSpec | None = None
    execution_config: ExecutionSpec | None = None
    use_pending_failed: bool = False
    jobs_sort_method: Literal["none", "gpus_runtime_memory", "gpus_memory_runtime"] | None = None
    enable_ro_crate: bool = False
    access_groups: tuple[str, ...] | None = None
    compute_node_expiration_buffer_seconds: Seconds | None = None
    compute_node_wait_for_new_jobs_seconds: Seconds | None = None
    compute_node_ignore_workflow_completion: bool = False
    compute_node_wait_for_healthy_database_minutes: Seconds | None = None
