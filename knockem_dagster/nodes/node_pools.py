"""Node pools: of which scheduler nodes may be asked, how, and within what limits, as the user's file says.

What belongs here: the keys of the file and what they mean. How a scheduler is asked is in its own module.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, field_validator

from knockem_dagster.accounts.users import is_address
from knockem_dagster.errors import Fault, InvalidInput
from knockem_dagster.jobs.requirements import Capacity
from knockem_dagster.jobs.specs.reading import faults_of
from knockem_dagster.jobs.specs.workflow_spec import Count, Environment, Memory, Name, SpecPart, Text
from knockem_dagster.jobs.walltimes import seconds_of_walltime
from knockem_dagster.mapping_file import FileKind, read_mapping, shown

FILE = FileKind(name="file of node pools", keys="url and pools", most_bytes=1 << 20, most_values=10_000)
LEAST_WALLTIME = 300
STARTING_SECONDS = 60
"""What a node is given until its worker is at work."""
LEAVING_SECONDS = 60
"""How long before the end of its walltime a node's worker is to have ended."""
_NOT_OF_ONE = ("array", "wrap")
_SHORT_ARRAY = re.compile(r"-[HIOQVhksuv]*a")
"""-a, also behind letters that take no value: SLURM reads several in a row."""
Runtime = Literal["command", "process", "docker", "podman", "apptainer"]
TolerationKey = Literal["key", "operator", "value", "effect", "tolerationSeconds"]


def _walltime(value: object) -> int:
    """Return seconds, of whole minutes as SLURM takes them: what is asked for is what is counted."""
    seconds = -(-seconds_of_walltime(str(value)) // 60) * 60
    if not LEAST_WALLTIME <= seconds <= 366 * 86400:
        raise ValueError("a time from five minutes to a year, such as 04:00:00, is")
    return seconds


def _option(value: str) -> str:
    if not value.startswith("-"):
        raise ValueError("an option that begins with a hyphen is")
    name = value.removeprefix("--").partition("=")[0]
    if _SHORT_ARRAY.match(value) or (value.startswith("--") and any(each.startswith(name) for each in _NOT_OF_ONE)):
        raise ValueError("an option of one job that runs its script is: --array and --wrap would go beyond the limits")
    return value


def _user(value: str) -> str:
    if not is_address(value):
        raise ValueError("somebody@somewhere is")
    return value


def _url(value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise ValueError("an http:// or https:// address is")
    return value.rstrip("/")


Walltime = Annotated[int, BeforeValidator(_walltime)]
Url = Annotated[str, AfterValidator(_url)]
Option = Annotated[Text, AfterValidator(_option)]


class NodePool(SpecPart):
    """Nodes of one kind, each with one worker."""

    SHARES_FILES: ClassVar[bool] = False
    """Whether nodes see the folders of jobs, as those of a cluster do."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    scheduler: str
    cpus: float = Field(gt=0, le=1e6)
    memory: Memory
    gpus: int = Field(default=0, ge=0, le=1 << 10)
    walltime: Walltime
    max_nodes: Count
    max_node_hours: float = Field(gt=0, le=1e9, description="in all, also of nodes that are over")
    idle_seconds: float = Field(default=60.0, ge=1, le=86400)
    user: Annotated[str, AfterValidator(_user)] | None = Field(
        default=None, description="whose jobs alone they work on; none: everybody's"
    )
    runtimes: tuple[Runtime, ...] = Field(
        default=(), validate_default=True, description="that workers offer; default: all that need no image"
    )
    environment: Environment | None = None
    interruption_notice: Url | None = None

    @field_validator("runtimes", mode="after")
    @classmethod
    def _check_runtimes(cls, runtimes: tuple[Runtime, ...]) -> tuple[Runtime, ...]:
        if "command" in runtimes and not cls.SHARES_FILES:
            raise ValueError(
                "those of containers and process are: these nodes share no disk, so that what one job writes no other "
                "could read"
            )
        return runtimes or (("command", "process") if cls.SHARES_FILES else ("process",))

    @property
    def capacity(self) -> Capacity:
        """What a node of the pool offers."""
        return Capacity(
            cpus=self.cpus,
            memory_mib=self.memory,
            gpus=self.gpus,
            seconds_left=self.walltime - STARTING_SECONDS - LEAVING_SECONDS,
            runtimes=frozenset(self.runtimes),
        )

    @property
    def digest(self) -> str:
        """Tells configurations of a pool apart."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    def worker_arguments(self) -> tuple[str, ...]:
        """Return the arguments of `knockem` on a node, but for the time that is left."""
        options = {
            "--cpus": f"{self.cpus:g}",
            "--memory": f"{self.memory}",
            "--gpus": f"{self.gpus}",
            "--runtimes": ",".join(self.runtimes),
            "--end-when-idle": f"{self.idle_seconds:.0f}",
            **({} if self.interruption_notice is None else {"--interruption-notice": self.interruption_notice}),
        }
        return ("worker", *(part for option in options.items() for part in option))


class SlurmPool(NodePool):
    """Nodes of a SLURM cluster, each one job of `sbatch`."""

    SHARES_FILES: ClassVar[bool] = True

    account: Name | None = None
    partition: Name | None = None
    qos: Name | None = None
    gres: Name | None = None
    constraint: Name | None = None
    tmp: Name | None = None
    extra: tuple[Option, ...] = Field(default=(), description="further options of sbatch")
    setup: tuple[Text, ...] = Field(default=(), description="lines of shell before the worker starts")
    command: tuple[Text, ...] = Field(default=(), description="what stands for `./knockem` there; default: it")
    folder: Text | None = Field(default=None, description="where workers start, and their logs are; default: none")


class KubernetesPool(NodePool):
    """Pods of a Kubernetes cluster, each one Job."""

    image: Name
    namespace: Name = "default"
    context: Name | None = Field(default=None, description="of the kubeconfig; default: its current one")
    service_account: Name | None = None
    image_pull_secrets: tuple[Name, ...] = ()
    node_selector: dict[str, str] | None = None
    tolerations: tuple[dict[TolerationKey, str | int], ...] = Field(
        default=(), description="as in a pod's specification"
    )
    gpu_resource: Name = "nvidia.com/gpu"


class AwsBatchPool(NodePool):
    """Jobs of AWS Batch."""

    job_queue: Name
    job_definition: Name
    region: Name | None = None
    endpoint: Url | None = Field(default=None, description="of a server other than Amazon's")


class ComposePool(NodePool):
    """Containers of a service of Docker Compose."""

    file: Text
    service: Name = "worker"
    project: Name | None = None

    @field_validator("file")
    @classmethod
    def _is_absolute(cls, value: str) -> str:
        if not value.startswith("/"):
            raise ValueError("an absolute path is")
        return value


POOL_KINDS: Mapping[str, type[NodePool]] = {
    "slurm": SlurmPool,
    "kubernetes": KubernetesPool,
    "aws_batch": AwsBatchPool,
    "compose": ComposePool,
}


class WorkflowLimits(SpecPart):
    """Within which the SLURM schedulers of workflow files are used, all of them together."""

    max_nodes: Count
    max_node_hours: float = Field(gt=0, le=1e9, description="in all, also of workflows that are over")
    cpus: float = Field(gt=0, le=1e6, description="of a node whose scheduler says nothing of them")
    memory: Memory
    idle_seconds: float = Field(default=60.0, ge=1, le=86400)
    setup: tuple[Text, ...] = ()
    command: tuple[Text, ...] = ()
    folder: Text | None = None


class NodePools(SpecPart):
    """A whole file of node pools. `url`: where nodes reach the HTTP API."""

    url: Url
    pools: tuple[Any, ...] = ()
    workflows: WorkflowLimits | None = None


def read_node_pools(path: Path, *, is_named: bool = False) -> tuple[NodePools, tuple[NodePool, ...]] | None:
    """Return what a file of node pools says; None where there is no file, unless somebody has named it.

    Raises InvalidInput with every fault.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not is_named:
            return None
        fault = Fault("(file)", str(path), f"a file that can be read is: {error.strerror}")
        raise InvalidInput("The file of node pools cannot be read.", [fault]) from error
    faults: list[Fault] = []
    content = read_mapping(data, FILE)
    whole = _valid(NodePools, content, "", faults)
    named: Any = content.get("pools")
    listed: list[Any] = named if isinstance(named, list) else []
    pools = [_pool(f"pools[{n}]", each, faults) for n, each in enumerate(listed)]
    names = [pool.name for pool in pools if pool is not None]
    faults += [
        Fault("pools", shown(name), "a name of its own is") for name in sorted({*names}) if names.count(name) > 1
    ]
    if faults or whole is None:
        raise InvalidInput(f"No node is asked for: {path} has these faults:", faults)
    return whole, tuple(pool for pool in pools if pool is not None)


def _pool(place: str, content: Any, faults: list[Fault]) -> NodePool | None:
    kind: Any = content.get("scheduler") if isinstance(content, Mapping) else None
    if not isinstance(kind, str) or kind not in POOL_KINDS:
        faults.append(Fault(f"{place}.scheduler", shown(kind), f"{', '.join(POOL_KINDS)} are"))
        return None
    return _valid(POOL_KINDS[kind], content, place, faults)


def _valid(part: type[Any], content: object, place: str, faults: list[Fault]) -> Any:
    try:
        return part.model_validate(content)
    except ValidationError as error:
        faults += faults_of(error, at=place, part=part)
        return None
