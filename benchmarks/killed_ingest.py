"""Processes that take job logs in, killed at random moments, or several at once, and readers meanwhile.

Part of the campaign of ingest_faults.py.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from numpy.random import Generator

from benchmarks.ingest_process import BEGUN, COMPUTED, receive_all, take_in
from benchmarks.measurement import Measurement
from benchmarks.spoiled_archives import GoodReport, read_good
from benchmarks.workplace import ROOT
from knockem_dagster.errors import KnockemError
from knockem_dagster.joblogs.folders import instance_id
from knockem_dagster.joblogs.instances import instance_called
from knockem_dagster.joblogs.ledger import Ledger, table_key
from knockem_dagster.joblogs.marts import TABLES, Marts, mart_key
from knockem_dagster.joblogs.removal import remove_instance
from knockem_dagster.platform import Platform
from knockem_dagster.settings import load_settings

KILLS = 200
FEWEST_KILLS = 4
KILLS_OF_A_HOME = 4
ROUNDS = 10
AT_ONCE = 3
SECONDS_BETWEEN_LOOKS = 0.1
PATIENCE_SECONDS = 300.0
INSTANCES = ("first-server", "second-server")
JOBS_COUNTED = """
SELECT
    (SELECT count(*) FROM jobs),
    (SELECT coalesce(sum(jobs), 0)::BIGINT FROM tools),
    (SELECT coalesce(sum(jobs), 0)::BIGINT FROM tool_months),
    (SELECT coalesce(sum(jobs), 0)::BIGINT FROM months)
"""
"""The jobs in each mart: always as many."""
_SMALL, _LARGER = (
    ROOT / f"tests/data/joblogs/{instance}/archives/0.tar.gz"
    for instance in ("a8fe6488-b87f-55ae-ae9e-2d2764db2977", "2682d42c-a922-5412-90a0-ccba9e740b60")
)
_UNFINISHED = re.compile(r".*#\d+")
Content = dict[str, list[tuple[Any, ...]]]


def measure_killed_ingest(folder: Path, rng: Generator, *, scale: float) -> list[Measurement]:
    """Kill processes, let several be at work at once, and read meanwhile.

    Raises KnockemError for anything else than what is in a home that was left in peace.
    """
    campaign = _Campaign(folder, rng)
    kills = max(FEWEST_KILLS, round(KILLS * scale))
    early = campaign.kill(kills)
    rounds = max(1, round(ROUNDS * scale))
    looks = campaign.read_meanwhile(rounds)
    campaign.remove_meanwhile(rounds)
    return [
        Measurement("processes killed at work, after which all marts are right", kills, "processes", kills),
        Measurement("of these killed before they had computed any", early, "processes", kills),
        Measurement(f"times that {AT_ONCE} processes took in the same", rounds, "times", rounds),
        Measurement("looks at marts meanwhile, each with the old or the new totals", looks, "looks", looks),
        Measurement("instances removed while their marts were computed", rounds, "instances", rounds),
        Measurement("other totals", 0, "looks", looks, "at most", 0),
    ]


class _Campaign:
    """Reports of two instances, the same for every home, and what is in a home that is left in peace."""

    def __init__(self, folder: Path, rng: Generator) -> None:
        self._folder = folder
        self._rng = rng
        self._number = itertools.count()
        small, larger = read_good(_SMALL), read_good(_LARGER)
        self._fewer, self._all = folder / "fewer", folder / "all"
        for instance in INSTANCES:
            # Jobs of which several tell, and one report that is not to be trusted.
            some = {str(number): small.shifted(40 * number, generated=str(9 - number)) for number in range(3)}
            some["bad"] = GoodReport(small.archive[:-9], small.metadata, {})
            _write(self._fewer / instance / "archives", some)
            _write(self._all / instance / "archives", {**some, "late": larger})
        self._old, self._new = (self._left_in_peace(reports) for reports in (self._fewer, self._all))
        with _process(self._new_home(), self._all) as process:
            _wait_for(process, BEGUN)
            began = time.monotonic()
            _wait_for_end(process)
        self._seconds = time.monotonic() - began

    def kill(self, number: int) -> int:
        """Kill so many processes; return how many had computed nothing by then. Raises KnockemError."""
        early = 0
        for first in range(0, number, KILLS_OF_A_HOME):
            home = self._new_home()
            kills = min(KILLS_OF_A_HOME, number - first)
            early += sum(self._kill_one(home) for _ in range(kills))
            with _opened(home) as platform:
                _check_readable(platform)
                take_in(platform, self._all)
                self._check(platform, self._new, f"{kills} processes were killed")
                check_swept(platform)
            shutil.rmtree(home)
        return early

    def read_meanwhile(self, rounds: int) -> int:
        """Let several processes compute marts of more reports, again and again; return how often was looked.

        Raises KnockemError where anything but old and new totals is seen.
        """
        looks = 0
        for _ in range(rounds):
            home = self._new_home()
            with _opened(home) as platform:
                take_in(platform, self._fewer)
                self._check(platform, self._old, "nothing happened")
                receive_all(platform, self._all)
                looks += self._look(home, platform)
                take_in(platform, self._all)
                self._check(platform, self._new, f"{AT_ONCE} processes were at work at once")
            shutil.rmtree(home)
        return looks

    def remove_meanwhile(self, rounds: int) -> None:
        """Remove an instance at a random moment while a process computes its marts.

        Raises KnockemError where anything names it afterwards, or rows of others are not as they were.
        """
        gone, left = INSTANCES
        for _ in range(rounds):
            home = self._new_home()
            with _opened(home) as platform:
                with _process(home, self._all) as process:
                    _wait_for(process, BEGUN)
                    _wait_for(process, COMPUTED)
                    time.sleep(float(self._rng.uniform(0, self._seconds / 2)))
                    found = instance_called(platform.records, gone)
                    remove_instance(platform.records, platform.objects, found)
                    process.communicate(timeout=PATIENCE_SECONDS)  # what it does then is to fail
                platform.records.documents.erase_deleted()
                take_in(platform, self._all / left)
                expected = {
                    name: [row for row in rows if row[0] == instance_id(left)] for name, rows in self._new.items()
                }
                self._check(platform, expected, f"{gone} was removed")
            check_nowhere(home, gone, found.id)
            shutil.rmtree(home)

    def _look(self, home: Path, platform: Platform) -> int:
        marts, looks = Marts(platform.records, platform.objects), 0
        old, new = _totals(self._old), _totals(self._new)
        with ExitStack() as all_of_them:
            processes = [all_of_them.enter_context(_process(home, self._all)) for _ in range(AT_ONCE)]
            while any(process.poll() is None for process in processes):
                for instance in map(instance_id, INSTANCES):
                    with marts.opened([instance]) as opened:
                        counted = set(opened.sql(JOBS_COUNTED).fetchall()[0])
                    if counted not in ({old[instance]}, {new[instance]}):
                        raise KnockemError(f"{counted} jobs are seen, neither {old[instance]} nor {new[instance]}")
                    looks += 1
                time.sleep(SECONDS_BETWEEN_LOOKS)
            for process in processes:
                _wait_for_end(process)
        return looks

    def _kill_one(self, home: Path) -> bool:
        """Kill a process at work; tell whether it had computed no marts."""
        with _process(home, self._all, "--sweeping") as process:
            _wait_for(process, BEGUN)
            moment = float(self._rng.uniform(0, self._seconds))
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                process.kill()
            said, trouble = process.communicate()
            if process.returncode > 0:
                raise KnockemError(f"a process failed after others were killed: {trouble}")
            return COMPUTED not in said

    def _left_in_peace(self, reports: Path) -> Content:
        with _opened(self._new_home()) as platform:
            take_in(platform, reports)
            return content_of(platform)

    def _check(self, platform: Platform, expected: Content, happened: str) -> None:
        found = content_of(platform)
        for name in expected:
            if found[name] != expected[name]:
                other = next(iter(set(map(str, found[name])) ^ set(map(str, expected[name]))), "")
                raise KnockemError(f"after {happened}, {name} is not as in a home left in peace: {other}")

    def _new_home(self) -> Path:
        return self._folder / f"home-{next(self._number)}"


def content_of(platform: Platform) -> Content:
    """Return all rows of all marts, and what the ledger says of each report."""
    with Marts(platform.records, platform.objects).opened() as opened:
        found = {name: [_rounded(row) for row in opened.sql(f"FROM {name}").fetchall()] for name in TABLES}
    found["ledger"] = [
        (each.instance_id, each.name, each.state, each.parser_version, each.kept, each.rejected, str(each.quarantine))
        for each in platform.records.job_log_reports.find({})
    ]
    return {name: sorted(rows, key=repr) for name, rows in found.items()}


def check_swept(platform: Platform) -> None:
    """Sweep, and make sure that nothing is left but what is in use, and the archives. Raises KnockemError."""
    marts, ledger = Marts(platform.records, platform.objects), Ledger(platform.records, platform.objects)
    marts.sweep(older=timedelta(0))
    in_use = marts.in_use()
    wanted = {mart_key(*each, name) for each in in_use.items() for name in TABLES}
    loaded = [report for instance in in_use for report in ledger.in_use(instance)]
    wanted |= {table_key(each, name) for each in loaded for name in (*each.kept, "job_resources")}
    stored = {entry.key for folder in ("marts", "lake") for entry in platform.objects.list(f"joblogs/{folder}")}
    if stored != wanted:
        stray, missing = sorted(stored - wanted), sorted(wanted - stored)
        raise KnockemError(f"after sweeping, {stray[:3]} of {len(stray)} are left, {missing[:3]} are missing")


def check_nowhere(home: Path, *words: str) -> None:
    """Make sure that no file or folder of a home has any of these words in it. Raises KnockemError."""
    for path in home.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        for word in words:
            if word in str(path.relative_to(home)) or word.encode() in content:
                raise KnockemError(f"{path} names what was removed")


def _check_readable(platform: Platform) -> None:
    with Marts(platform.records, platform.objects).opened() as opened:
        counted = opened.sql(JOBS_COUNTED).fetchall()[0]
    if len(set(counted)) > 1:
        raise KnockemError(f"after a kill, the marts have {counted} jobs")


def _totals(content: Content) -> Mapping[str, int]:
    return {id: sum(row[0] == id for row in content["jobs"]) for id in map(instance_id, INSTANCES)}


def _rounded(value: Any) -> Any:
    """Return a row whose sums do not depend on the order in which they were added."""
    match value:
        case float():
            return float(f"{value:.12g}")
        case tuple() | list():
            return tuple(map(_rounded, value))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        case _:
            return value


def _write(folder: Path, reports: Mapping[str, GoodReport]) -> None:
    folder.mkdir(parents=True)
    for name, report in reports.items():
        (folder / f"{name}.tar.gz").write_bytes(report.archive)
        (folder / f"{name}.json").write_bytes(report.metadata)


@contextmanager
def _opened(home: Path) -> Iterator[Platform]:
    platform = Platform(load_settings(home=home, documents_url=None, queue_url=None))
    try:
        yield platform
    finally:
        platform.close()


@contextmanager
def _process(home: Path, reports: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """Give a process that takes in these reports; its temporary files are in the home."""
    scratch = home / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.ingest_process", str(home), str(reports), *more],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def _wait_for(process: subprocess.Popen[str], said: str) -> None:
    assert process.stdout is not None
    if process.stdout.readline().strip() != said:
        raise KnockemError(f"a process does not begin: {process.communicate()[1]}")


def _wait_for_end(process: subprocess.Popen[str]) -> None:
    _, trouble = process.communicate(timeout=PATIENCE_SECONDS)
    if process.returncode:
        raise KnockemError(f"a process failed: {trouble}")
