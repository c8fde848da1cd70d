"""Nothing of a job outlives it, its worker or its spawner, however any of them ends."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.errors import SpawnerLost
from knockem_dagster.jobs.commands.command import Command
from knockem_dagster.jobs.commands.launcher import CommandLauncher
from tests.jobs.commands.running import SECONDS, in_a_launcher, is_gone, run, shell, until

DAEMON = "setsid sh -c 'echo $$ > {file}.new && mv {file}.new {file} && exec sleep 300' &"
"""Leaves a process in a session of its own, whose number is in the file once it is there."""


def appears(file: Path) -> str:
    """A piece of shell that waits for a file."""
    return f"until [ -e {file} ]; do sleep 0.01; done;"


def ends_soon(pid: int) -> bool:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], SECONDS)[0])
    finally:
        os.close(pidfd)


@pytest.mark.parametrize("keep_output", [True, False])
@pytest.mark.parametrize("ending", ["exit 0", "exit 7", "kill -9 $$"])
def test_a_daemon_that_a_job_leaves_is_gone_when_its_end_is_known(tmp_path: Path, ending: str, keep_output: bool):
    file = tmp_path / "daemon"
    script = f"{DAEMON.format(file=file)} {appears(file)} {ending}"
    (ended,) = run(Command(("/bin/sh", "-c", script), keep_output=keep_output))
    assert ended.exit_code in (0, 7, -9)
    assert is_gone(int(file.read_text()))


def test_a_daemon_s_own_daemons_are_gone_too(tmp_path: Path):
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    script = f"{DAEMON.format(file=inner)} {DAEMON.format(file=outer)} {appears(outer)} {appears(inner)} exec sleep 300"
    nested = tmp_path / "nested.sh"
    nested.write_text(script)
    run(shell(f"setsid sh {nested} & {appears(inner)} {appears(outer)} exit 0"))
    assert is_gone(int(inner.read_text()))
    assert is_gone(int(outer.read_text()))


def test_one_job_s_end_leaves_another_s_daemon_alone(tmp_path: Path):
    async def story(opened: CommandLauncher) -> None:
        file, stop = tmp_path / "daemon", tmp_path / "stop"
        script = f"({DAEMON.format(file=file)}); {appears(stop)} kill -0 $(cat {file}) && echo alive"
        long = asyncio.create_task(opened.run(shell(script)))
        await until(file.exists)
        for _ in range(20):
            await opened.run(Command(("/bin/true",)))
        stop.touch()
        assert (await long).tail == "alive"
        assert is_gone(int(file.read_text()))

    in_a_launcher(story)


def test_a_daemon_is_gone_with_its_job_while_others_run_on(tmp_path: Path):
    async def story(opened: CommandLauncher) -> None:
        begun, file = tmp_path / "begun", tmp_path / "daemon"
        long = asyncio.create_task(opened.run(shell(f"touch {begun}; sleep 300")))
        await until(begun.exists)
        await opened.run(shell(f"{DAEMON.format(file=file)} {appears(file)} exit 0"))
        assert is_gone(int(file.read_text()))
        assert not long.done()
        long.cancel()

    in_a_launcher(story)


def test_the_dead_that_a_long_job_abandons_do_not_pile_up(tmp_path: Path):
    """A job whose orphans nobody reaped would fill the table of processes."""
    orphan = tmp_path / "orphan"
    script = (
        f"(sh -c 'echo $$ > {orphan}' &); {appears(orphan)} while [ -e /proc/$(cat {orphan}) ]; do sleep 0.02; done"
    )
    (ended,) = run(shell(script, timeout_seconds=SECONDS))
    assert ended.outcome is Outcome.SUCCEEDED


def test_a_daemon_that_hides_is_gone_once_nothing_runs(tmp_path: Path):
    """Without its mark, and in a session of its own, nothing tells whose it is."""

    async def story(opened: CommandLauncher) -> None:
        file = tmp_path / "daemon"
        hidden = f'env -i PATH="$PATH" {DAEMON.format(file=file)} {appears(file)} exit 0'
        await opened.run(Command(("/bin/sh", "-c", hidden)))
        await until(lambda: is_gone(int(file.read_text())))
        assert is_gone(int(file.read_text()))

    in_a_launcher(story)


def test_a_time_out_ends_all_of_a_job(tmp_path: Path):
    file = tmp_path / "daemon"
    (ended,) = run(shell(f"{DAEMON.format(file=file)} {appears(file)} sleep 300", timeout_seconds=1))
    assert ended.outcome is Outcome.TIMED_OUT
    assert is_gone(int(file.read_text()))


def test_a_cancelled_job_is_gone_when_its_run_returns(tmp_path: Path):
    async def story(opened: CommandLauncher) -> None:
        file = tmp_path / "daemon"
        task = asyncio.create_task(opened.run(shell(f"{DAEMON.format(file=file)} sleep 300")))
        await until(file.exists)
        task.cancel()
        await asyncio.wait([task], timeout=0)
        task.cancel()  # impatience changes nothing
        with pytest.raises(asyncio.CancelledError):
            await task
        assert is_gone(int(file.read_text()))
        assert (await opened.run(Command(("true",)))).exit_code == 0

    in_a_launcher(story)


def test_closing_ends_everything(tmp_path: Path):
    async def story() -> None:
        opened = CommandLauncher()
        file = tmp_path / "daemon"
        task = asyncio.create_task(opened.run(shell(f"{DAEMON.format(file=file)} sleep 300")))
        await until(file.exists)
        spawner = opened.spawner_pid
        assert spawner is not None
        opened.close()
        assert is_gone(int(file.read_text()))
        assert is_gone(spawner)
        with pytest.raises(SpawnerLost):
            await task

    asyncio.run(story())


def test_a_lost_spawner_is_told_and_replaced(tmp_path: Path):
    async def story(opened: CommandLauncher) -> None:
        file = tmp_path / "daemon"
        task = asyncio.create_task(opened.run(shell(f"{DAEMON.format(file=file)} sleep 300")))
        await until(file.exists)
        spawner = opened.spawner_pid
        assert spawner is not None
        os.kill(spawner, signal.SIGKILL)
        with pytest.raises(SpawnerLost, match="run again"):
            await task
        assert ends_soon(int(file.read_text()))
        assert (await opened.run(Command(("true",)))).exit_code == 0
        assert opened.spawner_pid not in (None, spawner)

    in_a_launcher(story)


WORKER = """
import asyncio, sys
from knockem_dagster.jobs.commands.command import Command
from knockem_dagster.jobs.commands.launcher import CommandLauncher

async def main():
    launcher = CommandLauncher()
    task = asyncio.create_task(launcher.run(Command(("/bin/sh", "-c", sys.argv[1]))))
    while launcher.spawner_pid is None:
        await asyncio.sleep(0.001)
    print(launcher.spawner_pid, flush=True)
    await task

asyncio.run(main())
"""


def kill_with_its_spawner(worker: int, spawner: int) -> None:
    os.kill(worker, signal.SIGSTOP)  # so that neither can clear up after the other
    os.kill(spawner, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)


ENDINGS: dict[str, Callable[[int, int], None]] = {
    "killed": lambda worker, _: os.kill(worker, signal.SIGKILL),
    "terminated": lambda worker, _: os.kill(worker, signal.SIGTERM),
    "killed with its spawner": kill_with_its_spawner,
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_killed_worker_s_jobs_die_with_it(tmp_path: Path, ending: str):
    job, daemon = tmp_path / "job", tmp_path / "daemon"
    script = f"{DAEMON.format(file=daemon)} {appears(daemon)} echo $$ > {job}.new; mv {job}.new {job}; sleep 300; exit"
    with subprocess.Popen([sys.executable, "-c", WORKER, script], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        spawner = int(worker.stdout.readline())
        asyncio.run(until(job.exists))
        ENDINGS[ending](worker.pid, spawner)
    for pid in (int(job.read_text()), int(daemon.read_text()), spawner):
        assert ends_soon(pid)
