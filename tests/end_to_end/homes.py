"""A KNOCKEM_HOME of its own for a test of the whole system: its organism, its submissions, its `up`, its processes.

What belongs here: starting and looking. Killing is in campaign.py; what must hold is in the tests.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from tests.services import waiting
from tests.services.command_line import ROOT, command_line, environment_of

PATIENCE_SECONDS = 240.0
"""How long to wait for what must come: the machine may be loaded."""
until = partial(waiting.until, seconds=PATIENCE_SECONDS, look_seconds=0.05)
LEASE_SECONDS = "6"
SECONDS_EACH = 0.04
"""How long a slowed competition takes: long enough for a submission to be hit."""
UNFINISHED = ("QUEUED", "NOT_STARTED", "MANAGED", "STARTING", "STARTED", "CANCELING")

GENOME = {
    "sites": 60,
    "effects": {str(site): 0.4 + 0.15 * number for number, site in enumerate(range(3, 51, 6))},
    "sets": [{"sites": [1, 14, 27], "penalty": 1.3}, {"sites": [8, 31], "penalty": 1.1}],
}
SLOW_SERVING = """\
#!/usr/bin/env python3
import sys
import time
from pathlib import Path

from explicit_competition import EXACT_UNIT, exact, mode_from_environment
from explicit_genome import run
from explicit_serving import Server

PACE = Path(__file__).resolve().parents[2] / "seconds_each"


class SlowServer(Server):
    def compete_two(self, request):
        time.sleep(float(PACE.read_text()))
        return super().compete_two(request)


def serve():
    compete = mode_from_environment()
    SlowServer(compete, unit=EXACT_UNIT if compete is exact else None).serve(sys.stdin.fileno(), sys.stdout.fileno())


run(serve)
"""


def make_organisms(folder: Path, *, seconds_each: float = 0.0, tells_truth: bool = True) -> Path:
    """Make a folder with one organism, `slow`: explicit, at the pace that a file beside the folder tells."""
    source = ROOT / "deploy" / "organisms" / "explicit"
    organism = folder / "organisms" / "slow"
    shutil.copytree(source, organism, ignore=shutil.ignore_patterns("__pycache__"))
    serve = organism / "knockem_serve"
    serve.write_text(SLOW_SERVING)
    if not tells_truth:
        (organism / "knockem_describe_truth").unlink()
    set_pace(folder, seconds_each)
    return folder / "organisms"


def set_pace(folder: Path, seconds_each: float) -> None:
    """Tell the organism in `folder` how long a competition takes from now on."""
    pace = folder / "seconds_each"
    pace.with_suffix(".new").write_text(str(seconds_each))
    pace.with_suffix(".new").replace(pace)


@dataclass
class Home:
    """A KNOCKEM_HOME with its organisms. `process` is its `up`, when that runs."""

    folder: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def make(cls, folder: Path, *, seconds_each: float = 0.0, tells_truth: bool = True, **environment: str) -> Home:
        """Make an empty home in `folder`, which must not exist."""
        folder.mkdir()
        organisms = make_organisms(folder, seconds_each=seconds_each, tells_truth=tells_truth)
        settings = {"KNOCKEM_ORGANISMS": str(organisms), "KNOCKEM_LEASE_SECONDS": LEASE_SECONDS, **environment}
        return cls(folder, settings)

    @property
    def path(self) -> Path:
        return self.folder / "home"

    @property
    def data(self) -> Path:
        return self.path / "testing"

    @property
    def documents(self) -> Path:
        return self.data / "documents.sqlite"

    def command(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command of the product to its end."""
        return subprocess.run(
            command_line(*arguments),
            env=environment_of(self.path, **self.environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=2 * PATIENCE_SECONDS,
        )

    def start(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Start a command in a session of its own, its output appended to a file beside the home."""
        with (self.folder / "output").open("ab") as output:
            return subprocess.Popen(
                command_line(*arguments),
                env=environment_of(self.path, **self.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def submission_file(self, *, seed: int = 1, **changes: object) -> Path:
        """Write a submission of the slow organism: 750 competitions, with changes. None removes a key."""
        (self.folder / "genome.json").write_text(json.dumps(GENOME))
        content: dict[str, object] = {
            "genome": "genome.json",
            "containerImage": "slow",
            "containerEnv": {"EXPLICIT_MODE": "exact"},
            "containerRuntime": "process",
            "assayTypes": [
                "nulldist",
                "screenCritical",
                "doseCalibration",
                "skeletonization",
                "jackknifeKnockout",
                "skeletonSampleAndJackknife",
                "skeletonMarkRecapture",
            ],
            "skeletons": 8,
            "maxActive": 8,
            "userEmail": "someone@example.org",
            "seed": seed,
            **changes,
        }
        path = self.folder / f"study-{seed}.json"
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
        return path

    def submit(self, *, seed: int = 1, **changes: object) -> str:
        """Submit without waiting; return the submission's id."""
        done = self.command("submit", "--yes", self.submission_file(seed=seed, **changes))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()[-1]

    def complete(self, *, seed: int = 1, **changes: object) -> str:
        """Submit and carry through in one undisturbed process; return the submission's id."""
        done = self.command("submit", "--yes", "--wait", self.submission_file(seed=seed, **changes))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()[-1]

    def up(self) -> None:
        """Start `up`."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.process = self.start("up", "--port", str(port))

    def down(self) -> int:
        """Ask `up` to end and return its exit code."""
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(60)
        self.process = None
        return code

    def processes(self) -> dict[int, psutil.Process]:
        """Return all processes that work for this home, wardens included, by their number."""
        wanted = str(self.folder).encode()
        ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            if process.pid in ours:
                continue
            try:
                told = [Path(f"/proc/{process.pid}/{part}").read_bytes() for part in ("environ", "cmdline")]
            except OSError:
                continue
            if any(wanted in part for part in told):
                found[process.pid] = process
        return found

    def destroy(self) -> None:
        """Kill whatever works for this home; a test that failed must leave nothing running."""
        while alive := [*self.processes().values()]:
            for process in alive:
                kill(process.pid)
            psutil.wait_procs(alive, timeout=5)
        if self.process is not None:
            self.process.wait(5)

    def documents_of(self, collection: str) -> list[dict[str, Any]]:
        """Return all documents of a collection, read straight from the file."""
        with self._reading(self.documents) as connection:
            return [json.loads(body) for (body,) in connection.execute(f'SELECT body FROM "{collection}"')]

    def submissions(self) -> dict[str, dict[str, Any]]:
        """Return the submissions by id."""
        return {document["id"]: document for document in self.documents_of("submissions")}

    def dagster_runs(self) -> list[tuple[str, str]]:
        """Return (run id, status) of every Dagster run."""
        path = self.data / "dagster" / "history" / "runs.db"
        if not path.exists():
            return []
        with self._reading(path) as connection:
            return list(connection.execute("SELECT run_id, status FROM runs"))

    @staticmethod
    @contextmanager
    def _reading(path: Path) -> Generator[sqlite3.Connection]:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=30)
        try:
            yield connection
        finally:
            connection.close()

    def tables(self, submission_id: str) -> dict[str, bytes]:
        """Return the content of a submission's tables by name."""
        folder = self.data / "objects" / "submissions" / submission_id / "tables"
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}

    def num_results(self) -> int:
        """Return how many competitions have a result."""
        return len(self.documents_of("competitionResults"))

    def run_processes(self) -> list[int]:
        """Return the processes that hold the lease of a running submission and live."""
        owners = (document["lease"]["owner"] for document in self.submissions().values())
        return [pid for owner in owners if owner and psutil.pid_exists(pid := int(owner.split(":")[1]))]

    def serving_processes(self) -> list[int]:
        """Return the containers of the process runtime that serve this home's submissions."""
        found = self.processes().items()
        return [pid for pid, process in found if any("knockem_serve" in part for part in command_line_of(process))]

    def is_finished(self) -> bool:
        """Tell whether every submission is completed and Dagster believes no run to be under way."""
        states = {document["state"] for document in self.submissions().values()}
        assert states <= {"accepted", "running", "completed"}, self.submissions()
        return states <= {"completed"} and self.nothing_is_under_way()

    def nothing_is_under_way(self) -> bool:
        """Tell whether Dagster believes every run to be over."""
        return not any(status in UNFINISHED for _, status in self.dagster_runs())


def command_line_of(process: psutil.Process) -> list[str]:
    """Return how a process was started; nothing when it has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def kill(pid: int) -> bool:
    """Send SIGKILL; tell whether the process was still there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
