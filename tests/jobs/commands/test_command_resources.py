"""What a job used is its own: peak memory and CPU time, whoever started it and whatever ran before."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.jobs.commands.command import Command
from tests.jobs.commands.running import PYTHON, run, shell

MEGABYTE = 10**6
MOST = "int(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1]) << 10"
"""What a Python job says of its own peak memory."""


def python(script: str, **rest: object) -> Command:
    return Command((*PYTHON, script), keep_output=True, **rest)  # type: ignore[arg-type]


def holding(megabytes: int, seconds: float) -> str:
    """A program of about this size that keeps it for a while."""
    grow = f"held = bytearray(max(0, {megabytes} * {MEGABYTE} - ({MOST})))\nheld[::4096] = b'x' * len(held[::4096])"
    return f"import time\n{grow}\ntime.sleep({seconds})\nprint({MOST})"


@pytest.fixture
def grandparent(tmp_path: Path) -> Command:
    """A job whose grandchild holds 300 MB for 200 ms."""
    (tmp_path / "grandchild.py").write_text(holding(300, 0.2))
    child = f'"{sys.executable}" -I -S {tmp_path}/grandchild.py; exit 0'
    return shell(f"sh -c '{child}'; exit 0")


def test_a_small_job_after_a_large_one_is_recorded_with_its_own_peak(grandparent: Command):
    large, small, again = run(grandparent, python(holding(10, 0)), python(holding(10, 0.2)))
    assert large.peak_memory == pytest.approx(300 * MEGABYTE, rel=0.1)
    assert small.peak_memory == pytest.approx(10 * MEGABYTE, rel=0.1)
    assert again.peak_memory == pytest.approx(10 * MEGABYTE, rel=0.1)
    assert int(small.tail) == pytest.approx(10 * MEGABYTE, rel=0.05), "the job itself was not of the size meant"


def test_a_peak_too_short_to_be_seen_is_still_recorded():
    (ended,) = run(python(f"held = bytearray(200 * {MEGABYTE}); held[::4096] = b'x' * len(held[::4096])"))
    assert ended.peak_memory == pytest.approx(210 * MEGABYTE, rel=0.1)


def test_the_least_that_can_be_told_is_the_spawner_not_this_process():
    held = bytearray(b"x") * (100 * MEGABYTE)
    (ended,) = run(Command(("/bin/true",)))
    assert ended.peak_memory < 9.5 * MEGABYTE
    del held


def test_processes_side_by_side_are_added_up(tmp_path: Path):
    (tmp_path / "part.py").write_text(holding(60, 0.3))
    part = f'"{sys.executable}" -I -S {tmp_path}/part.py'
    (ended,) = run(shell(f"{part} & {part} & {part} & wait"))
    assert ended.peak_memory == pytest.approx(180 * MEGABYTE, rel=0.1)


def test_a_tree_that_grows_past_its_memory_is_killed(tmp_path: Path):
    (tmp_path / "part.py").write_text(holding(60, 60))
    part = f'"{sys.executable}" -I -S {tmp_path}/part.py'
    within, beyond = run(
        shell("exit 5", memory_mib=100),
        shell(f"{part} & {part} & {part} & wait", memory_mib=100, timeout_seconds=50),
    )
    assert (within.outcome, within.exit_code) == (Outcome.FAILED, 5)
    assert (beyond.outcome, beyond.exit_code) == (Outcome.OUT_OF_MEMORY, -9)
    assert beyond.peak_memory > 100 << 20


def test_cpu_time_is_that_of_all_who_worked():
    busy = f'"{sys.executable}" -I -S -c "import time\nwhile time.process_time() < 0.25: pass"'
    until_it_is_dead = 'while read -r _ _ state _ < /proc/$p/stat && [ "$state" != Z ]; do sleep 0.1; done 2> /dev/null'
    alone, nested, abandoned, idle = run(
        shell(f"exec {busy}"),
        shell(f"sh -c '{busy}; exit 0'; exit 0"),
        shell(f"p=$({busy} >&2 & echo $!); {busy}; {until_it_is_dead}"),
        Command(("sleep", "0.3")),
    )
    assert alone.cpu_seconds == pytest.approx(0.25, rel=0.2)
    assert nested.cpu_seconds == pytest.approx(0.25, rel=0.2)
    assert abandoned.cpu_seconds == pytest.approx(0.5, rel=0.2), "one worked for a parent that did not wait for it"
    assert idle.cpu_seconds < 0.05
    assert idle.wall_seconds == pytest.approx(0.3, abs=0.25)
