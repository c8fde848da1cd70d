"""Writing a report of jobs as Galaxy's exporter writes them: format version 3, whose reader is report.py."""

from __future__ import annotations

import hashlib
import json
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from isal import igzip

from knockem_dagster.joblogs.members import JOBS, METRIC_NUM

_MEMBERS = (JOBS, METRIC_NUM)
_BLANKS = str.maketrans(dict.fromkeys("\t\n\r\0", " "))
_COMPRESSION = 2
"""Of isal, whose largest is 3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RanJob:
    """A job that is over: what it was given and what it used; None for what is not known.

    `state` is one of Galaxy's. Memory is in MiB as given, in bytes as used; times are seconds, `created` is in UTC.
    """

    id: int
    tool_id: str
    tool_version: str
    state: str
    created: datetime
    cores: float
    memory_mib: int
    runtime: float | None
    cpu: float | None
    peak_memory: int | None
    is_out_of_memory: bool


def write_report(folder: Path, jobs: Iterable[RanJob], *, generated: datetime, revision: str) -> tuple[Path, bytes]:
    """Write a report of these jobs into a folder; return its archive and its metadata.

    The same jobs are the same bytes, whoever writes them, and whenever. `revision`: of knockem, told of as theirs.
    """
    archive = folder / "report.tar.gz"
    states: Counter[str] = Counter()
    with ExitStack() as opened:
        scratch = Path(opened.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        paths = {member.name: scratch / member.name for member in _MEMBERS}
        texts = {name: opened.enter_context(path.open("w", newline="")) for name, path in paths.items()}
        for member in _MEMBERS:
            texts[member.name].write("\t".join(member.columns) + "\n")
        for job in jobs:
            states[job.state] += 1
            fields = (job.id, job.tool_id, job.tool_version, job.state, job.created.replace(tzinfo=None).isoformat(" "))
            texts[JOBS.name].write(_line(fields))
            texts[METRIC_NUM.name].writelines(_line((job.id, *metric)) for metric in _metrics(job))
        packed = opened.enter_context(igzip.IGzipFile(archive, "wb", compresslevel=_COMPRESSION, mtime=0))
        with tarfile.open(fileobj=packed, mode="w") as out:
            for name, path in paths.items():
                texts[name].close()
                out.add(path, f"report.{name}.tsv", filter=_of_nobody)
        packed.close()
    metadata = {
        "version": 3,
        "galaxy_version": f"knockem {revision}",
        "generated": f"{generated.timestamp():.6f}",
        "report_hash": f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}",
        "jobs": states,
    }
    return archive, json.dumps(metadata).encode()


def _of_nobody(header: tarfile.TarInfo) -> tarfile.TarInfo:
    header.uid = header.gid = header.mtime = 0
    header.mode = 0o644
    header.uname = header.gname = ""
    return header


def _metrics(job: RanJob) -> Iterator[tuple[str, str, float]]:
    yield "core", "galaxy_slots", job.cores
    yield "core", "galaxy_memory_mb", job.memory_mib
    yield "cgroup", "memory.max", job.memory_mib << 20
    yield "cgroup", "memory.events.oom_kill", int(job.is_out_of_memory)
    if job.runtime is not None:
        yield "core", "runtime_seconds", job.runtime
    if job.cpu is not None:
        yield "cgroup", "cpu.stat.usage_usec", 1e6 * job.cpu
    if job.peak_memory is not None:
        yield "cgroup", "memory.peak", job.peak_memory


def _line(fields: Iterable[object]) -> str:
    return "\t".join(str(field).translate(_BLANKS) for field in fields) + "\n"
