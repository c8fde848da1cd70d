"""A submission whose run is killed while a worker outside of it works: the next run takes up what is under way.

Part of the campaign of faults (faults.py).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

from numpy.random import Generator

from benchmarks.measurement import Measurement
from benchmarks.reference_organism import ReferenceGenome
from benchmarks.workplace import ROOT, Workplace, tables_of, until
from knockem_dagster.errors import KnockemError

LEASE_SECONDS = 3.0
SECONDS_EACH = 0.15
"""How long a competition takes while runs are killed: there must be something left to do for all of them."""
PACE = "seconds_each"
NUM_SITES = 60
BUSY_EXIT = 1
SLOW_SERVING = """\
#!/usr/bin/env python3
import sys
import time
from pathlib import Path

from explicit_competition import EXACT_UNIT, exact, mode_from_environment
from explicit_genome import run
from explicit_serving import Server


class SlowServer(Server):
    def compete_two(self, request):
        time.sleep(float(Path(__file__).resolve().parents[2].joinpath("seconds_each").read_text()))
        return super().compete_two(request)


def serve():
    compete = mode_from_environment()
    SlowServer(compete, unit=EXACT_UNIT if compete is exact else None).serve(sys.stdin.fileno(), sys.stdout.fileno())


run(serve)
"""


def measure_killed_runs(folder: Path, rng: Generator, *, kills: int) -> list[Measurement]:
    """Kill a run so often, and compare with one that was left in peace. Raises KnockemError."""
    genome = ReferenceGenome.draw(rng, num_sites=NUM_SITES, num_additive=6, num_sets=2)
    study = _study(folder, genome.to_json(), seed=int(rng.integers(1 << 31)))
    peaceful = _place(folder / "peaceful", seconds_each=0.0)
    with peaceful:
        done = peaceful.command("submit", "--yes", "--wait", study)
        if done.returncode != 0:
            raise KnockemError(f"the undisturbed run failed: {done.stderr}")
        expected = tables_of(peaceful, done.stdout.split()[-1])
    with _place(folder / "disturbed", seconds_each=SECONDS_EACH) as place:
        place.start_server()
        place.start_worker("--cpus", "2")
        id = place.command("submit", "--yes", study).stdout.split()[-1]
        found = _carry_through(place, id, rng, kills)
        if tables_of(place, id) != expected:
            raise KnockemError("the tables differ from those of an undisturbed run")
        return _checked(place, id, kills, found)


def _carry_through(place: Workplace, id: str, rng: Generator, kills: int) -> int:
    """Run the submission to its end, killing its first runs; return how many answers came while there was no run."""
    found = 0
    for _ in range(kills):
        run = _start_run(place, id)
        _until_it_works(place, id)
        time.sleep(float(rng.uniform(0.0, 1.0)))
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        until(lambda: not any(place.on_queue(lambda queue: queue.jobs_of(id))), "the worker to do what was under way")
        found += len(place.on_queue(lambda queue: queue.outcomes(id)))
    _set_pace(place.folder, 0.0)
    if _start_run(place, id).wait(300) != 0:
        raise KnockemError(f"the last run failed: {(place.folder / 'commands.log').read_text()[-2000:]}")
    return found


def _until_it_works(place: Workplace, id: str) -> None:
    before = _number_answered(place, id)
    until(lambda: _number_answered(place, id) > before, "the run to work", seconds=120)


def _start_run(place: Workplace, id: str) -> subprocess.Popen[bytes]:
    """Start a run as soon as nobody holds the submission any more."""
    submissions = place.platform.records.submissions
    until(lambda: submissions.get(id).lease.until < time.time(), "the lease of the killed run to lapse")
    return place.start("resume", id, "--wait")


def _number_answered(place: Workplace, id: str) -> int:
    return place.platform.records.documents.count("competitionResults", {"submissionId": id})


def _checked(place: Workplace, id: str, kills: int, found: int) -> list[Measurement]:
    records = place.platform.records
    number = _number_answered(place, id)
    attempts = {made.id for made in records.attempts.find({"submissionId": id})}
    ended = list(records.attempt_results.find({"submissionId": id}))
    succeeded = Counter(result.competition_id for result in ended if result.outcome == "succeeded")
    if {result.id for result in ended} != attempts:
        raise KnockemError("an attempt has no result")
    if len(succeeded) != number or set(succeeded.values()) != {1}:
        raise KnockemError("a competition was answered more than once")
    if any(result.outcome not in ("succeeded", "lost") or not (result.blameless or result.result) for result in ended):
        raise KnockemError("a killed run is blamed on a competition")
    if any(place.on_queue(lambda queue: queue.jobs_of(id))):
        raise KnockemError("the queue still has attempts of a submission that is completed")
    again = len(attempts) - number
    return [
        Measurement("runs killed, tables those of an undisturbed run", kills, "blows", number),
        Measurement("answers of others while no run was there, taken up by the next", found, "answers", number),
        Measurement("competitions tried again", again, "attempts", number, "all competitions", number),
    ]


def _place(folder: Path, *, seconds_each: float) -> Workplace:
    organism = folder / "organisms" / "slow"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "deploy" / "organisms" / "explicit", organism, ignore=ignored)
    (organism / "knockem_serve").write_text(SLOW_SERVING)
    _set_pace(folder, seconds_each)
    return Workplace(folder, lease_seconds=LEASE_SECONDS, KNOCKEM_ORGANISMS=str(folder / "organisms"))


def _set_pace(folder: Path, seconds_each: float) -> None:
    """Tell the organism how long a competition takes from now on."""
    pace = folder / PACE
    new = pace.with_suffix(".new")
    new.write_text(str(seconds_each))
    new.replace(pace)


def _study(folder: Path, genome: str, *, seed: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "genome.json").write_text(genome)
    content = {
        "genome": "genome.json",
        "containerImage": "slow",
        "containerEnv": {"EXPLICIT_MODE": "wright-fisher"},
        "containerRuntime": "process",
        "assayTypes": ["nulldist", "screenCritical", "skeletonization"],
        "skeletons": 4,
        "maxActive": 8,
        "userEmail": "bench@example.org",
        "seed": seed,
    }
    path = folder / "study.json"
    path.write_text(json.dumps(content))
    return path
