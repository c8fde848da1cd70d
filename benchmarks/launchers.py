"""Others that start many short commands two at a time: xargs, HyperQueue, and nothing but posix_spawn.

Each gives how long it took and what it used, start-ups excluded. What does not belong here: our own worker (jobs.py).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from knockem_dagster.errors import KnockemError

ROOT = Path(__file__).parents[1]
AT_A_TIME = 2
COMMAND = "/bin/true"
SPAWN_LOOP = f"""\
import json, os, time
def start():
    return os.posix_spawn({COMMAND!r}, [{COMMAND!r}], {{}})
left = %d
began = time.perf_counter()
for _ in range({AT_A_TIME}):
    start()
for _ in range(left - {AT_A_TIME}):
    os.wait4(-1, 0)
    start()
for _ in range({AT_A_TIME}):
    os.wait4(-1, 0)
seconds = time.perf_counter() - began
print(json.dumps([seconds, sum(os.times()[:2])]))
"""


@dataclass(frozen=True, slots=True)
class Launched:
    """What starting a number of commands took: seconds, its own CPU seconds, and those of all processes together."""

    seconds: float
    own_cpu_seconds: float
    cpu_seconds: float


def spawn_loop(number: int) -> Launched:
    """Start them with posix_spawn in a small interpreter that does nothing else: the least that it can cost."""
    return _started([sys.executable, "-I", "-S", "-c", SPAWN_LOOP % number])


def hyperqueue(number: int) -> Launched:
    """Give them to HyperQueue: a LocalCluster with one worker of two CPUs, one job of so many tasks, no output files.

    From when its first task starts to when its last one does: two more tasks leave the times. Asking whether the job
    is done would not do, which HyperQueue answers once a second.
    """
    if importlib.util.find_spec("hyperqueue") is None:
        raise KnockemError("HyperQueue is missing: it is in the extra `dev`, and there is none but for Linux on x86-64")
    return _started([sys.executable, "-m", "benchmarks.launchers", "hyperqueue", str(number)])


def xargs(number: int) -> Launched:
    """Give them to `xargs -P2`, one argument each; its start-up, a millisecond, is included."""
    with tempfile.TemporaryFile() as arguments:
        arguments.write(b"".join(b"%d\n" % index for index in range(number)))
        arguments.seek(0)
        before, began = _children_cpu(), time.perf_counter()
        subprocess.run(["xargs", f"-P{AT_A_TIME}", "-n1", COMMAND], stdin=arguments, check=True)
        seconds = time.perf_counter() - began
    # What is its own cannot be told from what its children used.
    return Launched(seconds, 0.0, _children_cpu() - before)


def _started(command: list[str]) -> Launched:
    before = _children_cpu()
    with tempfile.TemporaryDirectory(prefix="knockem-bench-") as folder:
        environment = {**os.environ, "TMPDIR": folder}  # HyperQueue does not remove its own
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise KnockemError(f"{' '.join(command[:4])} ... failed:\n{ended.stderr}")
    seconds, own = json.loads(ended.stdout.splitlines()[-1])
    return Launched(seconds, own, _children_cpu() - before)


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run_hyperqueue(number: int) -> tuple[float, float]:
    """Run the array in this process, which becomes server and worker; return seconds, and CPU seconds of its own."""
    from hyperqueue import Job, LocalCluster
    from hyperqueue.cluster import WorkerConfig

    with tempfile.TemporaryDirectory(prefix="knockem-bench-") as folder:
        first, last = Path(folder, "first"), Path(folder, "last")
        job = Job(default_workdir=folder)
        job.program(["touch", str(first)], stdout=None, stderr=None, priority=1)
        for _ in range(number):
            job.program([COMMAND], stdout=None, stderr=None)
        job.program(["touch", str(last)], stdout=None, stderr=None, priority=-1)
        with LocalCluster(folder, WorkerConfig(cores=AT_A_TIME)) as cluster:
            client = cluster.client()
            cpu = time.process_time()
            client.wait_for_jobs([client.submit(job)])
            cpu = time.process_time() - cpu
        return last.stat().st_mtime - first.stat().st_mtime, cpu


def main() -> None:
    """Run HyperQueue in a process of its own, which `hyperqueue` starts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("launcher", choices=["hyperqueue"])
    parser.add_argument("number", type=int)
    chosen = parser.parse_args()
    print(json.dumps(_run_hyperqueue(chosen.number)))


if __name__ == "__main__":
    main()
