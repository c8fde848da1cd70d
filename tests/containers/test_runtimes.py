"""What every runtime promises of every command it starts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from knockem_dagster.containers import podman_service
from knockem_dagster.containers.marked_processes import marked_processes
from knockem_dagster.containers.owners import current_owner
from knockem_dagster.containers.runtime import EndCause, Limits, Mount
from knockem_dagster.containers.runtimes import open_runtime, runtime_for_image
from knockem_dagster.errors import ContainerError, ConversationOver, ImageNotFound
from tests.containers.laboratory import EAT_MEMORY, Laboratory

ROOT = Path(__file__).parents[2]
PODMAN_INFO = json.dumps({"host": {"idMappings": {}, "security": {"rootless": True}, "cgroupControllers": ["memory"]}})


def test_input_output_exit_code_and_times_are_told(laboratory: Laboratory) -> None:
    spec = laboratory.organism(speak='tr a-z A-Z; echo "last words $1" >&2; exit 3')
    ended = asyncio.run(laboratory.runtime.run(spec, ["speak", "it's me"], b"hello\n"))
    assert (ended.cause, ended.exit_code, ended.stdout) == (EndCause.EXITED, 3, b"HELLO\n")
    assert "last words it's me" in ended.tail
    assert 0 < ended.wall_seconds < 20
    if laboratory.runtime.name == "process":  # a short container may be gone before its counters were read
        assert ended.cpu_seconds is not None and 0 < ended.cpu_seconds < 5


def test_a_signal_is_a_negative_exit_code(laboratory: Laboratory) -> None:
    # Of its own signals, a container's first process feels only those of a fault.
    spec = laboratory.organism(die="exec python3 -c 'import ctypes; ctypes.string_at(0)'")
    ended = asyncio.run(laboratory.runtime.run(spec, ["die"]))
    assert ended.exit_code == -signal.SIGSEGV


def test_the_environment_is_clean(laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_CALLER", "1")
    spec = laboratory.organism(show="env")
    spec = type(spec)(spec.image, {**spec.environment, "ASKED_FOR": "a=b c"}, spec.limits, spec.mounts)
    shown = asyncio.run(laboratory.runtime.run(spec, ["show"])).stdout.decode().splitlines()
    assert "ASKED_FOR=a=b c" in shown
    assert not any("SECRET" in line for line in shown)
    names = {line.split("=")[0] for line in shown}
    usual = {"ASKED_FOR", "PATH", "LANG", "HOME", "TMPDIR", "PWD", "HOSTNAME", "_", "SHLVL"}
    assert names <= usual | {"KNOCKEM_OWNER", "TERM", "container"}  # of the process runtime, and of podman


def test_a_command_has_a_place_to_write_that_is_its_own_and_goes_with_it(laboratory: Laboratory) -> None:
    spec = laboratory.organism(write='ls -A "$HOME"; echo x >"$HOME/x" && cat "$HOME/x" && pwd')
    first = asyncio.run(laboratory.runtime.run(spec, ["write"]))
    second = asyncio.run(laboratory.runtime.run(spec, ["write"]))
    assert first.stdout.startswith(b"x\n") and second.stdout.startswith(b"x\n")
    if laboratory.runtime.name == "process":
        folder = Path(first.stdout.decode().split()[1])
        assert folder != Path(second.stdout.decode().split()[1])
        assert not folder.exists()


def test_mounted_files_are_seen_where_the_environment_says(laboratory: Laboratory, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "genome").write_text("ACGT")
    (tmp_path / "given").chmod(0o755)
    results = tmp_path / "results"
    results.mkdir()
    results.chmod(0o777)
    spec = laboratory.organism(copy='cat "$GENOMES/genome" >"$RESULTS/copy"')
    mounts = [*spec.mounts, Mount(tmp_path / "given", "/k/given"), Mount(results, "/k/results", writable=True)]
    environment = {**spec.environment, "GENOMES": "/k/given", "RESULTS": "/k/results"}
    spec = type(spec)(spec.image, environment, spec.limits, mounts)
    ended = asyncio.run(laboratory.runtime.run(spec, ["copy"]))
    assert ended.exit_code == 0, ended.tail
    assert (results / "copy").read_text() == "ACGT"


def test_a_missing_command_is_named(laboratory: Laboratory) -> None:
    spec = laboratory.organism(other="true")
    ended = asyncio.run(laboratory.runtime.run(spec, ["knockem_count_sites"]))
    assert ended.cause == EndCause.NOT_FOUND
    assert "knockem_count_sites" in ended.tail


def test_a_command_whose_interpreter_is_missing_is_named(laboratory: Laboratory) -> None:
    spec = laboratory.organism(speak="#!/no/such/interpreter\n")
    ended = asyncio.run(laboratory.runtime.run(spec, ["speak"]))
    assert ended.cause == EndCause.NOT_FOUND
    assert "speak" in ended.tail


def test_a_command_that_is_not_executable_is_named(laboratory: Laboratory) -> None:
    spec = laboratory.organism(speak="true")
    (laboratory.organisms / "trial" / "speak").chmod(0o644)
    ended = asyncio.run(laboratory.runtime.run(spec, ["speak"]))
    assert ended.cause == EndCause.NOT_FOUND
    assert "speak" in ended.tail


def test_a_command_that_hangs_is_ended_with_its_children(laboratory: Laboratory) -> None:
    spec = laboratory.organism(limits=Limits(timeout_seconds=0.5), hang="sleep 600 & echo waiting; wait")
    ended = asyncio.run(laboratory.runtime.run(spec, ["hang"]))
    assert ended.cause == EndCause.TIMED_OUT
    assert 0.5 <= ended.wall_seconds < 10
    assert "waiting" in ended.tail


def test_a_command_that_does_not_read_its_input_is_not_waited_for(laboratory: Laboratory) -> None:
    spec = laboratory.organism(ignore="echo done")
    ended = asyncio.run(laboratory.runtime.run(spec, ["ignore"], b"x" * 10_000_000))
    assert (ended.cause, ended.stdout) == (EndCause.EXITED, b"done\n")


@pytest.mark.parametrize("victim", ["itself", "child"])
def test_a_memory_kill_is_told_apart(laboratory: Laboratory, victim: str) -> None:
    start = "exec python3" if victim == "itself" else "python3"
    spec = laboratory.organism(
        limits=Limits(memory_mib=64, timeout_seconds=30), grow=f'{start} -c "{EAT_MEMORY}"; echo survived; exit 0'
    )
    ended = asyncio.run(laboratory.runtime.run(spec, ["grow"]))
    assert ended.cause == EndCause.OUT_OF_MEMORY, ended
    assert ended.peak_memory is not None and ended.peak_memory > 32 << 20


def test_memory_below_the_limit_is_no_fault_and_its_peak_is_told(laboratory: Laboratory) -> None:
    spec = laboratory.organism(
        limits=Limits(memory_mib=256, timeout_seconds=30),
        grow="exec python3 -c \"import time; held = b'x' * (100 << 20); time.sleep(0.3)\"",
    )
    ended = asyncio.run(laboratory.runtime.run(spec, ["grow"]))
    assert (ended.cause, ended.exit_code) == (EndCause.EXITED, 0)
    if ended.peak_memory is None:
        assert laboratory.runtime.isolates  # its counters vanish with it: on a busy machine they are missed
    else:
        assert 100 << 20 <= ended.peak_memory <= 256 << 20


def test_output_beyond_the_cap_is_cut_as_it_arrives(laboratory: Laboratory) -> None:
    spec = laboratory.organism(limits=Limits(output_bytes=10_000, timeout_seconds=60), flood="yes | head -c 50000000")
    ended = asyncio.run(laboratory.runtime.run(spec, ["flood"]))
    assert (ended.cause, ended.exit_code) == (EndCause.EXITED, 0)
    assert ended.stdout == b"y\n" * 5_000
    assert ended.stdout_cut
    assert len(ended.tail) < 10_000


@pytest.mark.slow
def test_a_gigabyte_of_output_does_not_stay_in_memory(processes: Laboratory) -> None:
    spec = processes.organism(limits=Limits(timeout_seconds=60), flood="yes | head -c 1000000000")
    before = _resident_bytes()
    ended = asyncio.run(processes.runtime.run(spec, ["flood"]))
    assert ended.stdout_cut
    assert _resident_bytes() - before < 50 << 20


def test_too_many_processes_are_not_let_loose(laboratory: Laboratory) -> None:
    spec = laboratory.organism(
        limits=Limits(processes=20, timeout_seconds=20), fork="for i in $(seq 100); do sleep 30 & done; wait"
    )
    ended = asyncio.run(laboratory.runtime.run(spec, ["fork"]))
    assert ended.exit_code != 0
    assert "processes" in ended.tail or "fork" in ended.tail.lower()


def test_a_canceled_command_leaves_nothing(laboratory: Laboratory) -> None:
    spec = laboratory.organism(submission_id="canceled", hang="echo started; sleep 600")

    async def cancel() -> None:
        conversation = await laboratory.runtime.converse(spec, ["hang"])
        assert await conversation.read() == [b"started"]
        running = asyncio.create_task(laboratory.runtime.run(spec, ["hang"]))
        await asyncio.wait([running], timeout=0.5)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await conversation.end()

    asyncio.run(cancel())
    assert asyncio.run(laboratory.runtime.remove_leftovers("canceled")) == 0


def test_a_daemon_that_keeps_the_output_open_is_found_and_killed(laboratory: Laboratory) -> None:
    spec = laboratory.organism(
        limits=Limits(timeout_seconds=10),
        submission_id="daemon",
        leave="""
            #!/usr/bin/env python3
            import os, time
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    print("daemon", flush=True)
                    time.sleep(600)
                os._exit(0)
            os.wait()
        """,
    )
    ended = asyncio.run(laboratory.runtime.run(spec, ["leave"]))
    assert (ended.cause, ended.exit_code) == (EndCause.EXITED, 0)
    assert ended.wall_seconds < 5
    assert asyncio.run(laboratory.runtime.remove_leftovers("daemon")) == 0


def test_one_talks_a_line_at_a_time(laboratory: Laboratory) -> None:
    spec = laboratory.organism(echo='echo ready; while read -r line; do echo "<$line>"; done; echo over >&2')

    async def talk() -> list[bytes]:
        conversation = await laboratory.runtime.converse(spec, ["echo"])
        heard = list(await conversation.read())
        await conversation.write(b"one\ntwo\n")
        while len(heard) < 3:
            heard += await conversation.read()
        ended = await conversation.end()
        assert ended.cause == EndCause.EXITED
        assert await conversation.end() == ended
        assert await conversation.read() == []
        with pytest.raises(ConversationOver):
            await conversation.write(b"three\n")
        return heard

    assert asyncio.run(talk()) == [b"ready", b"<one>", b"<two>"]


def test_a_command_that_says_too_much_unasked_is_ended(laboratory: Laboratory) -> None:
    spec = laboratory.organism(flood="yes | tr -d '\\n'")

    async def listen() -> str:
        conversation = await laboratory.runtime.converse(spec, ["flood"])
        assert await conversation.read() == []
        return (await conversation.end()).tail

    assert "not asked for" in asyncio.run(listen())


def test_a_conversation_with_a_missing_command_is_over(laboratory: Laboratory) -> None:
    spec = laboratory.organism(other="true")

    async def listen() -> str:
        conversation = await laboratory.runtime.converse(spec, ["knockem_serve"])
        assert await conversation.read() == []
        return (await conversation.end()).cause

    assert asyncio.run(listen()) == EndCause.NOT_FOUND


def test_a_conversation_grown_past_its_memory_is_told(laboratory: Laboratory) -> None:
    spec = laboratory.organism(
        limits=Limits(memory_mib=64), grow=f'echo ready; read -r line; exec python3 -c "{EAT_MEMORY}"'
    )

    async def grow() -> str:
        conversation = await laboratory.runtime.converse(spec, ["grow"])
        assert await conversation.read() == [b"ready"]
        await conversation.write(b"go\n")
        assert await conversation.read() == []
        return (await conversation.end()).cause

    assert asyncio.run(grow()) == EndCause.OUT_OF_MEMORY


CALLER = """
import asyncio, sys
from pathlib import Path
from knockem_dagster.containers.runtime import ContainerSpec, Image, Mount
from knockem_dagster.containers.runtimes import open_runtime

async def main(name, reference, digest, organisms):
    runtime = open_runtime(name, organisms=[Path(organisms)])
    mounts = [] if name == "process" else [Mount(Path(organisms) / "trial", "/organism")]
    environment = {} if name == "process" else {"PATH": "/organism:/usr/bin:/bin"}
    spec = ContainerSpec(Image(name, reference, digest), environment, mounts=mounts, submission_id="orphaned")
    conversation = await runtime.converse(spec, ["hang"])
    print((await conversation.read())[0].decode(), flush=True)
    await asyncio.sleep(600)

asyncio.run(main(*sys.argv[1:]))
"""


def killed_caller(laboratory: Laboratory) -> int:
    """Start a command with a grandchild in another session, kill who started it, and return the caller's number."""
    spec = laboratory.organism(hang="(setsid sleep 600 >/dev/null 2>&1 </dev/null &); echo started; sleep 600")
    image = spec.image
    with subprocess.Popen(
        [sys.executable, "-c", CALLER, image.runtime, image.reference, image.digest, str(laboratory.organisms)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as caller:
        assert caller.stdout is not None and caller.stdout.readline() == b"started\n"
        caller.send_signal(signal.SIGKILL)
    return caller.pid


def test_what_a_killed_caller_started_is_removed(laboratory: Laboratory) -> None:
    caller = killed_caller(laboratory)
    removed = asyncio.run(laboratory.runtime.remove_leftovers())
    assert removed >= 1 or laboratory.runtime.name == "process"  # the caller's warden may have been there first
    _wait_until(lambda: not _marked("orphaned"))
    assert asyncio.run(laboratory.runtime.remove_leftovers("orphaned")) == 0
    assert not list(Path(tempfile.gettempdir()).glob(f"knockem-*~{caller}~*"))


def test_the_warden_alone_ends_what_a_killed_caller_started(processes: Laboratory) -> None:
    killed_caller(processes)
    _wait_until(lambda: not _marked("orphaned"))
    assert asyncio.run(processes.runtime.remove_leftovers("orphaned")) == 0


def test_what_a_living_owner_started_is_left_alone(laboratory: Laboratory) -> None:
    spec = laboratory.organism(submission_id="alive", echo="echo ready; read -r line; echo $line; sleep 600")

    async def talk() -> int:
        conversation = await laboratory.runtime.converse(spec, ["echo"])
        await conversation.read()
        await laboratory.runtime.remove_leftovers()
        await conversation.write(b"still here\n")
        assert await conversation.read() == [b"still here"]
        removed = await laboratory.runtime.remove_leftovers("alive")
        assert await conversation.read() == []
        await conversation.end()
        return removed

    assert asyncio.run(talk()) >= 1
    assert not current_owner().is_gone


def test_a_missing_image_is_named(laboratory: Laboratory) -> None:
    with pytest.raises(ImageNotFound, match="no-such-organism"):
        asyncio.run(laboratory.runtime.resolve("no-such-organism"))


def test_the_runtime_of_an_image_is_told_by_what_is_there(
    processes: Laboratory, nothing_on_path: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(podman_service, "KEPT_SECONDS", 0.0)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/s")
    processes.organism(any="true")

    def runtime_of(reference: str) -> str:
        return runtime_for_image(reference, organisms=[processes.organisms])

    assert runtime_of("trial") == "process"
    assert runtime_of("trial:latest") == "docker"  # which says what to install
    put_on_path(tmp_path, "apptainer", "")
    assert runtime_of("trial:latest") == "apptainer"
    put_on_path(tmp_path, "podman", f"echo '{PODMAN_INFO}'")
    assert runtime_of("trial:latest") == "podman"
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(f"{tmp_path}/s")
        engine.listen()
        assert runtime_of("trial:latest") == "docker"
    assert runtime_of("trial") == "process"


def test_podman_is_looked_for_again_some_time_after_it_was_not_there(
    nothing_on_path: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert not podman_service.has_podman()
    put_on_path(tmp_path, "podman", f"echo '{PODMAN_INFO}'")
    assert not podman_service.has_podman()
    later = time.monotonic() + podman_service.KEPT_SECONDS
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert podman_service.podman_facts() == podman_service.PodmanFacts(frozenset({"memory"}), maps_users=False)


def put_on_path(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_auto_falls_back_to_processes_and_docker_says_what_is_missing(
    nothing_on_path: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    assert open_runtime("auto", organisms=[tmp_path]).name == "process"
    with pytest.raises(ContainerError, match="--runtime process"):
        open_runtime("docker", organisms=[tmp_path])
    monkeypatch.setenv("DOCKER_HOST", "tcp://elsewhere:2375")
    with pytest.raises(ContainerError, match="must run on it"):
        open_runtime("docker", organisms=[tmp_path])


def _marked(submission_id: str) -> list[int]:
    return [pid for pid, _, mark in marked_processes() if mark.endswith(f"#{submission_id}")]


def _wait_until(is_so: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
