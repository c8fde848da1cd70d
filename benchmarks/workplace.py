"""A workplace for campaigns of faults: a home with a queue server and workers of its own, all of which may be killed.

What belongs here: starting, killing and looking. When what is killed is in faults.py.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from knockem_dagster.containers.marked_processes import MARK, mark_of
from knockem_dagster.containers.owners import current_owner
from knockem_dagster.containers.warden import ensure_warden
from knockem_dagster.errors import KnockemError, QueueAway
from knockem_dagster.jobs.job_records import submit_jobs
from knockem_dagster.jobs.opening import queue_of
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.jobs.queue_views import QueueViews
from knockem_dagster.platform import Platform
from knockem_dagster.records.jobs import JobRecord, ResultRecord, WorkflowRecord
from knockem_dagster.settings import load_settings
from knockem_dagster.stores.queue_connection import embedded_queue_answers
from knockem_dagster.stores.queue_server import queue_folder, server_command

ROOT = Path(__file__).parents[1]
PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.02

T = TypeVar("T")


def until(
    condition: Callable[[], T], what: str, *, seconds: float = PATIENCE_SECONDS, look_seconds: float = LOOK_SECONDS
) -> T:
    """Wait for what other processes make true; return its value. Raises KnockemError when it does not come.

    `look_seconds`: how often it is looked; a look that is work for the machine keeps others from theirs.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise KnockemError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(look_seconds)
    return value


@dataclass
class WorkerCommand:
    """A `knockem worker` as a process of its own. Its output is in `log`."""

    process: subprocess.Popen[bytes]
    log: Path
    pid: int
    """Of the worker itself, where it was started through another program."""

    @property
    def said(self) -> str:
        """All it has said so far."""
        return self.log.read_text()

    @property
    def name(self) -> str:
        """Its name in the queue; empty until it has said it."""
        words = self.said.partition("Worker ")[2].split()
        return words[0] if words else ""

    def signal(self, number: int) -> None:
        """Send it a signal; nothing happens when it has ended."""
        if self.process.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> int:
        """Ask it to end, and return its exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS)


@dataclass
class ApiCommand:
    """A `knockem api` as a process of its own, which answers at `url`."""

    process: subprocess.Popen[bytes]
    url: str

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.kill()
        self.process.wait()


class Workplace:
    """A home below `folder`, which is made. Leave nothing running: `close` it, or use it as a context manager."""

    def __init__(self, folder: Path, *, lease_seconds: float, **settings: str) -> None:
        """`settings`: more variables for every process, as KNOCKEM_ORGANISMS."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.home = folder / "home"
        self._settings = {
            "KNOCKEM_HOME": str(self.home),
            "KNOCKEM_ENVIRONMENT": "testing",
            "KNOCKEM_LEASE_SECONDS": f"{lease_seconds:g}",
            **settings,
        }
        organisms = settings.get("KNOCKEM_ORGANISMS")
        more = {} if organisms is None else {"organisms": organisms}
        self.platform = Platform(
            load_settings(
                home=self.home, environment="testing", lease_seconds=lease_seconds, queue_url=None,
                documents_url=None, objects_url=None, **more,
            )
        )  # fmt: skip
        self.workers: list[WorkerCommand] = []
        self._others: list[subprocess.Popen[bytes]] = []
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Workplace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a command on this home, free of the caller's settings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("KNOCKEM_", "DAGSTER_"))}
        return {**kept, "PYTHONPATH": str(ROOT), **self._settings, **more}

    def start_server(self) -> None:
        """Start the queue server on what its files hold, and wait until it answers."""
        ensure_warden()
        with (self.folder / "queue.log").open("ab") as log:
            self._server = subprocess.Popen(
                server_command(self.platform.settings),
                env={**os.environ, MARK: mark_of(str(current_owner()), 0, "")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(lambda: embedded_queue_answers(self.platform.settings), "the queue server")

    def kill_server(self) -> None:
        """End the queue server with SIGKILL; what it wrote stays."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def forget_queue(self) -> None:
        """Remove the files of a server that was killed."""
        shutil.rmtree(queue_folder(self.platform.settings))

    def start_worker(self, *arguments: str, through: Sequence[str] = (), **more: str) -> WorkerCommand:
        """Start a worker; `through`: a program that starts it, with that program's arguments."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        process = self._start([*through, *_command_line("worker", *arguments)], log, **more)
        worker = WorkerCommand(process, log, process.pid)
        self.workers.append(worker)
        return worker

    def start_api(self, port: int = 0) -> ApiCommand:
        """Start the HTTP API, on any port unless one is named, and wait until it answers."""
        log = self.folder / f"api-{len(self._others)}.log"
        process = self._start(_command_line("api", "--port", str(port)), log)
        self._others.append(process)
        said = until(lambda: re.search(r"running on (http://[0-9.:]+)", log.read_text()), "the HTTP API")
        return ApiCommand(process, said[1])

    def start_daemon(self) -> subprocess.Popen[bytes]:
        """Start Dagster's daemon, which does the upkeep."""
        # Here, because importing Dagster takes more than a second, and few need it.
        from knockem_dagster.definitions import dagster_home, dagster_instance

        with dagster_instance(self.platform.settings):
            pass  # its files are made here, once: the daemon and who asks for it would both try
        home = dagster_home(self.platform.settings)
        command = [sys.executable, "-P", "-m", "dagster._daemon", "run", "--workspace", str(ROOT / "workspace.yaml")]
        daemon = self._start(command, self.folder / "daemon.log", DAGSTER_HOME=str(home))
        self._others.append(daemon)
        return daemon

    def daemon_lives(self) -> bool:
        """Tell whether a daemon has ever evaluated sensors here."""
        from knockem_dagster.definitions import dagster_instance

        with dagster_instance(self.platform.settings) as instance:
            return "SENSOR" in instance.get_daemon_heartbeats()

    def start(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Start a command in the background; its output goes to `commands.log`."""
        process = self._start(_command_line(*arguments), self.folder / "commands.log")
        self._others.append(process)
        return process

    def command(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            _command_line(*arguments), env=self.environment(), capture_output=True, text=True, check=False, timeout=300
        )

    def on_queue(self, work: Callable[[Queue], Awaitable[T]]) -> T:
        """Do something with the queue."""

        async def opened() -> T:
            async with queue_of(self.platform) as queue:
                return await work(queue)

        return asyncio.run(opened())

    def submit(self, workflow: WorkflowRecord, jobs: Sequence[JobRecord]) -> None:
        """Submit jobs."""
        self.on_queue(lambda queue: submit_jobs(self.platform.records, queue, workflow, jobs))

    def results(self, workflow: str) -> list[ResultRecord]:
        """Return what is recorded of the tries at a workflow's jobs."""
        return list(self.platform.records.results.find({"workflowId": workflow}))

    def final_results(self, workflow: str) -> dict[str, ResultRecord]:
        """Return the last result of each job that has one."""
        return {result.job_id: result for result in self.results(workflow) if result.final}

    def is_registered(self, worker: WorkerCommand) -> bool:
        """Tell whether the queue knows a worker."""

        async def look(queue: Queue) -> bool:
            return worker.name in await QueueViews(queue).workers()

        try:
            return bool(worker.name) and self.on_queue(look)
        except QueueAway:
            return False

    def processes(self) -> dict[int, str]:
        """Return the processes that work for this home, with their commands; the queue server is not among them."""
        found: dict[int, str] = {}
        ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
        if self._server is not None:
            ours.add(self._server.pid)
        for process in psutil.process_iter():
            try:
                told = [Path(f"/proc/{process.pid}/{part}").read_bytes() for part in ("environ", "cmdline")]
            except OSError:
                continue
            if process.pid not in ours and any(str(self.folder).encode() in part for part in told):
                found[process.pid] = told[1].replace(b"\0", b" ").decode("utf-8", "replace")[:200]
        return found

    def close(self) -> None:
        """Kill whatever works for this home."""
        for worker in self.workers:
            worker.signal(signal.SIGCONT)
            worker.kill()
        for process in self._others:
            process.kill()
            process.wait()
        while left := self.processes():
            for pid in left:
                with _ended_meanwhile():
                    os.kill(pid, signal.SIGKILL)
        self.kill_server()
        self.platform.close()

    def _start(self, command: Sequence[str], log: Path, **more: str) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                env=self.environment(**more),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )


@contextmanager
def _ended_meanwhile() -> Iterator[None]:
    try:
        yield
    except ProcessLookupError:
        return


def _command_line(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-P", "-m", "knockem_dagster", *map(str, arguments)]


def tables_of(workplace: Workplace, submission_id: str) -> Mapping[str, bytes]:
    """Return the content of a submission's tables by name."""
    folder = workplace.platform.settings.folder / "objects" / "submissions" / submission_id / "tables"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
