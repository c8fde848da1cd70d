"""What a command job is and how it ended: values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from knockem_dagster.containers.attempts import Outcome


@dataclass(frozen=True, slots=True)
class Command:
    """One plain command: the program's name or path with its arguments, and what it may use.

    `environment` is all it gets beside PATH, HOME and LANG, which are the worker's unless given here.
    `folder` is where it runs (None: where the worker was started). Without `keep_output` what it
    writes goes to /dev/null. `memory_mib` bounds the resident memory of its whole process tree.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    folder: Path | None = None
    timeout_seconds: float | None = None
    memory_mib: int | None = None
    keep_output: bool = False

    def __post_init__(self) -> None:
        if not self.arguments:
            raise ValueError("a command needs at least the name of a program")


@dataclass(frozen=True, slots=True)
class CommandEnded:
    """How a command ended and what it used.

    `exit_code` is negative for a signal, 127 when there was no such program, 126 when it could not
    be executed. `tail` is the end of what it wrote (4 KiB, with keep_output only), or why it did not start.
    `peak_memory` is bytes: that of its largest process, or the largest sum over its tree that was
    seen (first after 15 ms, then every 50 ms or sooner), whichever is more. The least that can be told is
    the size of the spawner, 8 MB: a command that used less is recorded with that. `cpu_seconds` includes
    all descendants, but for children of processes that ignore SIGCHLD: the kernel keeps no account of them.
    """

    outcome: Outcome
    exit_code: int
    tail: str
    peak_memory: int
    cpu_seconds: float
    wall_seconds: float

    @classmethod
    def lost(cls, reason: str) -> CommandEnded:
        """Return how a command ended that was lost with its spawner, or could not be started for want of resources."""
        return cls(Outcome.LOST, exit_code=-9, tail=reason, peak_memory=0, cpu_seconds=0.0, wall_seconds=0.0)
