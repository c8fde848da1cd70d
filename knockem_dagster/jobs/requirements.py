"""What a job needs and what a worker offers: resource requirements, their classes, and whether they fit.

Jobs with equal requirements are of one class; workers are asked for classes, never for single jobs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Self

import orjson


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """What a job needs while it runs: CPUs, memory in MiB, GPUs, seconds at most, and the runtime that starts it.

    `runtime` is the name of a container runtime, or "command" for a plain command of the worker's machine. Turns are
    taken by the CPU time that jobs have had, so each needs some.
    """

    cpus: float
    memory_mib: int
    gpus: int = 0
    seconds: float = 0.0
    runtime: str = "process"

    def __post_init__(self) -> None:
        """Refuse what no job can need. Raises ValueError."""
        if not self.cpus > 0 or self.memory_mib < 0 or self.gpus < 0 or self.seconds < 0:
            raise ValueError(f"{self} is no requirement: CPUs are above 0, the rest 0 or more")

    @property
    def name(self) -> str:
        """The name of its class, the same for equal requirements: readable, without spaces."""
        gpus = f"-{self.gpus}gpu" if self.gpus else ""
        seconds = f"-{self.seconds:g}s" if self.seconds else ""
        return f"{self.runtime}-{self.cpus:g}cpu-{self.memory_mib}MiB{gpus}{seconds}"

    def to_json(self) -> bytes:
        """Return the form that the queue keeps."""
        return orjson.dumps(
            {
                "cpus": self.cpus,
                "memoryMiB": self.memory_mib,
                "gpus": self.gpus,
                "seconds": self.seconds,
                "runtime": self.runtime,
            }
        )

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Read the form that the queue keeps."""
        fields: dict[str, Any] = orjson.loads(text)
        return cls(
            cpus=fields["cpus"],
            memory_mib=fields["memoryMiB"],
            gpus=fields["gpus"],
            seconds=fields["seconds"],
            runtime=fields["runtime"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What a worker has, or has left: CPUs, memory in MiB, GPUs, seconds to live (None: no end), runtimes."""

    cpus: float
    memory_mib: int
    gpus: int = 0
    seconds_left: float | None = None
    runtimes: frozenset[str] = frozenset({"process", "command"})

    def fits(self, requirement: Requirement) -> bool:
        """Tell whether a job with this requirement can be started in what is left."""
        return (
            requirement.cpus <= self.cpus + 1e-9
            and requirement.memory_mib <= self.memory_mib
            and requirement.gpus <= self.gpus
            and requirement.seconds <= (math.inf if self.seconds_left is None else self.seconds_left)
            and requirement.runtime in self.runtimes
        )

    def without(self, requirement: Requirement) -> Capacity:
        """Return what is left when a job with this requirement has been started."""
        return replace(
            self,
            cpus=self.cpus - requirement.cpus,
            memory_mib=self.memory_mib - requirement.memory_mib,
            gpus=self.gpus - requirement.gpus,
        )

    def with_returned(self, requirement: Requirement) -> Capacity:
        """Return what is left when such a job has ended."""
        return replace(
            self,
            cpus=self.cpus + requirement.cpus,
            memory_mib=self.memory_mib + requirement.memory_mib,
            gpus=self.gpus + requirement.gpus,
        )
