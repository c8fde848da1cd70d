"""Made-up archives of job logs of any size, in the very format of Galaxy's exporter.

Tools, metrics and datasets per job are about those of a real server: five metrics of every job, six of the cgroup it
ran in (of either version), two datasets. The values are random, and mean nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO

from numpy.random import Generator, default_rng

TOOLS = 400
ROWS_PER_JOB = 14
_GENERATED = "1795212662.5"
_BEGINNING = datetime(2024, 1, 1)
_JOBS_AT_ONCE = 10_000
_HEADERS = {
    "jobs": "id\ttool_id\ttool_version\tstate\tcreate_time\n",
    "metric_num": "job_id\tplugin\tname\tvalue\n",
    "datasets": "job_id\tdataset_id\textension\tfile_size\tparam_name\ttype\n",
}


def write_archive(folder: Path, jobs: int, *, seed: int, first_id: int = 1) -> tuple[Path, Path]:
    """Write a report of so many jobs, whose ids count from the first; return its archive and its metadata."""
    rng = default_rng(seed)
    states: Counter[str] = Counter()
    archive = folder / f"{_GENERATED}.tar.gz"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        members = {name: (Path(scratch) / name).open("w+") for name in _HEADERS}
        for name, header in _HEADERS.items():
            members[name].write(header)
        end = first_id + jobs
        for first in range(first_id, end, _JOBS_AT_ONCE):
            _write_jobs(members, range(first, min(first + _JOBS_AT_ONCE, end)), rng, states)
        with tarfile.open(archive, "w:gz", compresslevel=6) as out:
            for name, content in members.items():
                content.close()
                out.add(content.name, f"srv/galaxy/reports/{_GENERATED}.{name}.tsv")
    metadata = {
        "version": 3,
        "galaxy_version": "26.1",
        "generated": _GENERATED,
        "report_hash": f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}",
        "users": {"active": 100, "total": 1000},
        "jobs": states,
    }
    described = archive.with_name(f"{_GENERATED}.json")
    described.write_text(json.dumps(metadata))
    return archive, described


def _write_jobs(members: dict[str, IO[str]], ids: range, rng: Generator, states: Counter[str]) -> None:
    number = len(ids)
    tools = rng.zipf(1.5, number) % TOOLS
    state = rng.choice(["ok", "error", "deleted"], number, p=[0.86, 0.09, 0.05])
    states.update(state.tolist())
    begins = 1704067200 + 160 * rng.permutation(number)
    seconds = 1 + rng.lognormal(4, 1.5, number).astype(int)
    memory = rng.lognormal(20, 1.4, number).astype(int)
    sizes = rng.lognormal(13, 2, (number, 2))
    is_v2 = rng.random(number) < 0.4
    lines = {name: io.StringIO() for name in _HEADERS}
    columns = zip(ids, tools.tolist(), state.tolist(), begins.tolist(), seconds.tolist(), memory.tolist(), strict=True)
    for index, (id, tool, ended, begin, took, peak) in enumerate(columns):
        name = f"toolshed.g2.bx.psu.edu/repos/iuc/tool_{tool}/tool_{tool}"
        created = _BEGINNING + timedelta(seconds=begin - 1704067200, microseconds=id)
        lines["jobs"].write(f"{id}\t{name}\t1.{tool % 7}+galaxy{tool % 3}\t{ended}\t{created}\n")
        metrics = _of_cgroup_2(took, peak) if is_v2[index] else _of_cgroup_1(took, peak)
        for plugin, metric, value in (*_of_core(begin, took), *metrics):
            lines["metric_num"].write(f"{id}\t{plugin}\t{metric}\t{f'{value}.0000000' if value else '0E-7'}\n")
        for place in (0, 1):
            size = int(float(f"{sizes[index, place]:.2g}"))
            kind = ("input", "output")[place]
            lines["datasets"].write(f"{id}\t{2 * id + place}\ttabular\t{size}\t{kind}\t{kind}\n")
    for name, text in lines.items():
        members[name].write(text.getvalue())


def _of_core(begin: int, took: int) -> Iterator[tuple[str, str, int]]:
    yield "core", "galaxy_slots", 4
    yield "core", "galaxy_memory_mb", 4096
    yield "core", "start_epoch", begin
    yield "core", "end_epoch", begin + took
    yield "core", "runtime_seconds", took


def _of_cgroup_1(took: int, peak: int) -> Iterator[tuple[str, str, int]]:
    yield "cgroup", "memory.memsw.max_usage_in_bytes", peak
    yield "cgroup", "memory.max_usage_in_bytes", peak
    yield "cgroup", "memory.limit_in_bytes", 9223372036854771712
    yield "cgroup", "memory.failcnt", 0
    yield "cgroup", "cpuacct.usage", took * 1_234_567_890
    yield "cgroup", "cpu.shares", 4096


def _of_cgroup_2(took: int, peak: int) -> Iterator[tuple[str, str, int]]:
    yield "cgroup", "memory.peak", peak
    yield "cgroup", "memory.events.oom_kill", 0
    yield "cgroup", "cpu.stat.usage_usec", took * 1_234_567
    yield "cgroup", "cpu.stat.user_usec", took * 1_034_567
    yield "cgroup", "cpu.stat.system_usec", took * 200_000
    yield "cgroup", "cpu.stat.nr_throttled", 0
