"""The kernel's counters of a container: kills for memory, peak memory, CPU time.

The engine's OOMKilled is about the first process; a child killed for memory shows only in the
cgroup's own counters. These vanish with the container, within milliseconds of the first process's end.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Counters:
    """Numbers of one moment: processes killed for memory, bytes at the peak, seconds of CPU. None: not told."""

    memory_kills: int
    peak_memory: int | None
    cpu_seconds: float | None


@dataclass(frozen=True, slots=True)
class CgroupCounters:
    """Where the counters of one container are; version 1 has a tree for each controller, version 2 one tree."""

    version: int
    memory: Path
    cpu: Path

    @classmethod
    def of_container(cls, container: str, pid: int) -> CgroupCounters | None:
        """Find the counters of a container (by id) whose first process is `pid`; None when it has ended.

        None also where the engine counts processes differently, as in a virtual machine: there the
        number is another process's, and its cgroup does not carry the container's id.
        """
        try:
            lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
        except (FileNotFoundError, ProcessLookupError):
            return None
        paths = {
            controller: path.lstrip("/")
            for _, controllers, path in (line.split(":", 2) for line in lines)
            for controller in controllers.split(",")
        }
        if "memory" in paths:
            found = cls(1, CGROUP_ROOT / "memory" / paths["memory"], CGROUP_ROOT / "cpuacct" / paths["cpuacct"])
        else:
            folder = CGROUP_ROOT / paths.get("", "")
            found = cls(2, folder, folder)
        return found if container in str(found.memory) and found.memory.is_dir() else None

    def read(self) -> Counters | None:
        """Read them now; None when the cgroup is gone."""
        try:
            return self._read_version_1() if self.version == 1 else self._read_version_2()
        except OSError:  # removed before or while it was read (ENOENT or ENODEV)
            return None

    def _read_version_1(self) -> Counters:
        return Counters(
            memory_kills=_field(self.memory / "memory.oom_control", "oom_kill"),
            peak_memory=int(_text(self.memory / "memory.max_usage_in_bytes")),
            cpu_seconds=int(_text(self.cpu / "cpuacct.usage")) / 1e9,
        )

    def _read_version_2(self) -> Counters:
        peak = self.memory / "memory.peak"  # since Linux 5.19
        return Counters(
            memory_kills=_field(self.memory / "memory.events", "oom_kill"),
            peak_memory=int(_text(peak)) if peak.exists() else None,
            cpu_seconds=_field(self.cpu / "cpu.stat", "usage_usec") / 1e6,
        )


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii")


def _field(path: Path, name: str) -> int:
    """Return the number beside a name in a file of "name number" lines; 0 when the kernel does not tell it."""
    fields = dict(line.split() for line in _text(path).splitlines())
    return int(fields.get(name, 0))
