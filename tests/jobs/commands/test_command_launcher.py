"""Real commands through the launcher: how they end, what is kept of their output, and what they find at their start."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest

from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.containers.output import TAIL_BYTES
from knockem_dagster.errors import SpawnerLost
from knockem_dagster.jobs.commands.command import Command
from knockem_dagster.jobs.commands.launcher import CommandLauncher
from knockem_dagster.jobs.commands.messages import pack, unpack
from tests.jobs.commands.running import PYTHON, in_a_launcher, is_gone, run, shell, until


def test_an_exit_code_tells_success_from_failure():
    done, failed = run(Command(("true",)), shell("exit 3"))
    assert (done.outcome, done.exit_code) == (Outcome.SUCCEEDED, 0)
    assert (failed.outcome, failed.exit_code) == (Outcome.FAILED, 3)


def test_a_signal_is_a_negative_exit_code():
    by_itself, segmentation = run(shell("kill -9 $$"), shell("kill -SEGV $$"))
    assert (by_itself.outcome, by_itself.exit_code) == (Outcome.FAILED, -9)
    assert (segmentation.outcome, segmentation.exit_code) == (Outcome.FAILED, -11)


def test_what_cannot_start_says_why(tmp_path: Path):
    plain, no_interpreter = tmp_path / "plain", tmp_path / "no-interpreter"
    plain.write_text("echo hello\n")
    plain.chmod(0o755)
    no_interpreter.write_text("#!/no/such/interpreter\n")
    no_interpreter.chmod(0o755)
    cases = [
        (Command(("nonesuch",)), 127, "not found on PATH"),
        (Command(("/no/such/program",)), 127, "not found"),
        (Command(("/etc/passwd",)), 126, "Permission denied"),
        (Command((str(plain),)), 126, "first line"),
        (Command((str(no_interpreter),)), 126, "first line"),
        (Command(("true",), folder=tmp_path / "nowhere"), 126, "nowhere"),
        (Command(("true", "a\0b")), 126, "null byte"),
        (Command(("true", "x" * (3 << 20))), 126, "too long"),
        (Command(("true",)), 0, ""),  # and none of these harmed what came after
    ]
    for ended, (_, exit_code, reason) in zip(run(*[command for command, _, _ in cases]), cases, strict=True):
        assert ended.exit_code == exit_code
        assert reason in ended.tail
        assert ended.outcome is (Outcome.FAILED if exit_code else Outcome.SUCCEEDED)


def test_a_command_has_arguments():
    with pytest.raises(ValueError, match="name of a program"):
        Command(())


def test_a_command_finds_its_own_environment_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET", "not for jobs")
    monkeypatch.setenv("HOME", "/somewhere")
    (ended,) = run(shell("pwd; env", environment={"GIVEN": "1", "LANG": "de_DE"}, folder=tmp_path))
    folder, *lines = ended.tail.splitlines()
    found = dict(line.split("=", 1) for line in lines)
    assert folder == str(tmp_path)
    assert {"GIVEN": "1", "LANG": "de_DE", "HOME": "/somewhere", "PATH": os.environ["PATH"]}.items() <= found.items()
    assert found.keys() - {"GIVEN", "LANG", "HOME", "PATH", "KNOCKEM_OWNER", "PWD"} <= {"OLDPWD", "SHLVL", "_"}


def test_a_program_is_looked_for_on_its_own_path(tmp_path: Path):
    (tmp_path / "hello").write_text("#!/bin/sh\necho hello from $0\n")
    (tmp_path / "hello").chmod(0o755)
    found, relative = run(
        Command(("hello",), environment={"PATH": f"/nowhere:{tmp_path}:/bin"}, keep_output=True),
        Command(("./hello",), folder=tmp_path, keep_output=True),
    )
    assert found.tail == f"hello from {tmp_path}/hello"
    assert relative.tail == "hello from ./hello"


def test_nothing_of_ours_leaks_into_a_command():
    look = "import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1], os.getsid(0) == os.getpid())"
    masks = "sed -n 's/^Sig[BI][lg][kn]:[[:space:]]*//p' /proc/self/status"
    quiet = "[ /proc/self/fd/0 -ef /dev/null ] && echo silence"
    held = os.pipe()  # stands for whatever a worker has open, carelessly made
    for end in held:
        os.set_inheritable(end, True)
    descriptors, signals, inputs = run(Command((*PYTHON, look), keep_output=True), shell(masks), shell(quiet))
    for end in held:
        os.close(end)
    assert descriptors.tail == "[0, 1, 2] True"
    blocked, ignored = (int(mask, 16) for mask in signals.tail.split())
    assert not blocked
    assert not ignored & 0x7FFFFFFF  # signals 32 and 33 are glibc's own
    assert inputs.tail == "silence"


def test_output_is_kept_only_where_asked_for():
    both, neither = run(shell("echo out; echo err >&2"), Command(("/bin/sh", "-c", "echo out; echo err >&2")))
    assert both.tail == "out\nerr"
    assert neither.tail == ""


def test_a_flood_of_output_is_read_but_its_end_only_is_kept():
    async def story(opened: CommandLauncher) -> None:
        await opened.run(Command(("true",)))
        before = spawner_peak(opened)
        ended = await opened.run(shell("head -c 300000000 /dev/zero | tr '\\0' x; echo; echo the end"))
        assert ended.tail.endswith("xxx\nthe end")
        assert TAIL_BYTES - 1 <= len(ended.tail) <= TAIL_BYTES
        assert spawner_peak(opened) - before < 1 << 20

    in_a_launcher(story)


def test_the_end_of_output_is_kept_however_much_waits_in_the_pipe(tmp_path: Path):
    begun, go = tmp_path / "begun", tmp_path / "go"
    large = "import fcntl, os; fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 1 << 20); os.write(1, b'x' * 900_000 + b' the end')"
    script = (
        f'echo $$ > {begun}.new; mv {begun}.new {begun}; until [ -e {go} ]; do :; done; exec "{PYTHON[0]}" -c "{large}"'
    )

    async def story(opened: CommandLauncher) -> None:
        running = asyncio.create_task(opened.run(shell(script)))
        await until(begun.exists)
        assert opened.spawner_pid is not None
        os.kill(opened.spawner_pid, signal.SIGSTOP)  # it comes to look when all is over
        go.touch()
        await until(lambda: is_gone(int(begun.read_text())))
        os.kill(opened.spawner_pid, signal.SIGCONT)
        assert (await running).tail.endswith("xxx the end")

    in_a_launcher(story)


def open_files(opened: CommandLauncher) -> int:
    return len(list(Path(f"/proc/{opened.spawner_pid}/fd").iterdir()))


def spawner_peak(opened: CommandLauncher) -> int:
    """Return bytes of the most memory the spawner ever had."""
    for line in Path(f"/proc/{opened.spawner_pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise AssertionError("the spawner has ended")


def test_a_command_is_killed_at_its_time_limit():
    (ended,) = run(shell("echo begun; sleep 60", timeout_seconds=0.2))
    assert (ended.outcome, ended.exit_code, ended.tail) == (Outcome.TIMED_OUT, -9, "begun")
    assert 0.15 < ended.wall_seconds < 10


def test_a_command_that_ends_in_time_is_not_timed_out():
    (ended,) = run(shell("exit 4", timeout_seconds=30))
    assert (ended.outcome, ended.exit_code) == (Outcome.FAILED, 4)


def test_many_run_at_once_and_each_gets_its_own_end():
    async def story(opened: CommandLauncher) -> None:
        ends = await asyncio.gather(*[opened.run(shell(f"echo {n}; exit {n}")) for n in range(100)])
        assert [(ended.exit_code, ended.tail) for ended in ends] == [(n, str(n)) for n in range(100)]

    in_a_launcher(story)


def test_a_thousand_short_commands_leave_the_spawner_as_small_and_as_empty_as_before():
    async def story(opened: CommandLauncher) -> None:
        async def slot(count: int) -> None:
            for _ in range(count):
                assert (await opened.run(Command(("/bin/true",)))).exit_code == 0

        await asyncio.gather(slot(50), slot(50))
        peak, files = spawner_peak(opened), open_files(opened)
        await asyncio.gather(slot(500), slot(500))
        assert spawner_peak(opened) - peak < 1 << 20
        assert open_files(opened) <= files + 2  # those of the last two may be closing

    in_a_launcher(story)


def test_a_run_can_be_cancelled_at_any_moment():
    """Also while its end is on its way: whoever cancels must not wait for ever."""
    chance = random.Random(8)

    async def story(opened: CommandLauncher) -> None:
        await opened.run(Command(("true",)))
        for _ in range(150):
            task = asyncio.create_task(opened.run(Command(("/bin/true",))))
            await asyncio.wait([task], timeout=chance.uniform(0, 0.004))
            task.cancel()
            ended = (await asyncio.gather(task, return_exceptions=True))[0]
            assert isinstance(ended, asyncio.CancelledError) or ended.exit_code == 0

    in_a_launcher(story)


def test_a_closed_launcher_says_so():
    async def story() -> None:
        opened = CommandLauncher()
        await opened.run(Command(("true",)))
        running = asyncio.create_task(opened.run(Command(("sleep", "60"))))
        await asyncio.wait([running], timeout=0)
        opened.close()
        with pytest.raises(SpawnerLost, match="ended"):
            await running
        with pytest.raises(SpawnerLost, match="closed"):
            await opened.run(Command(("true",)))

    asyncio.run(story())


def test_messages_are_unpacked_whole_however_they_arrive():
    messages = [(1, "a" * n, {"k": b"v" * n}) for n in (0, 1, 300, 70000)]
    stream = b"".join(map(pack, messages))
    for size in (1, 3, 1000, len(stream)):
        pending, found = bytearray(), []
        for start in range(0, len(stream), size):
            pending += stream[start : start + size]
            found += unpack(pending)
        assert found == messages
        assert not pending
