"""What the docker runtime promises beyond the common suite: isolation, digests, and the kernel's counters."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockem_dagster.containers.cgroup_counters import CgroupCounters
from knockem_dagster.containers.docker_engine import DockerRuntime
from knockem_dagster.containers.engine_api import Engine, engine_socket
from knockem_dagster.containers.frames import STDERR, STDOUT, FrameReader
from knockem_dagster.containers.hardening import is_unprivileged
from knockem_dagster.containers.runtime import ContainerSpec, EndCause, Image, Limits
from knockem_dagster.errors import ContainerError, ContractError, ImageNotFound
from tests.containers.laboratory import BASE_IMAGE, EAT_MEMORY, Laboratory


def said(laboratory: Laboratory, script: str, **limits: float) -> list[str]:
    spec = laboratory.organism(limits=Limits(**{"timeout_seconds": 30, **limits}), probe=script)
    ended = asyncio.run(laboratory.runtime.run(spec, ["probe"]))
    assert ended.cause == EndCause.EXITED
    return ended.stdout.decode().splitlines()


@pytest.mark.isolation
def test_there_is_no_network(laboratory: Laboratory) -> None:
    script = """
        #!/usr/bin/env python3
        import os, socket
        print(*sorted(os.listdir("/sys/class/net")))
        try:
            socket.create_connection(("192.0.2.1", 80), timeout=5)
        except OSError as error:
            print(error.strerror)
    """
    assert said(laboratory, script) == ["lo", "Network is unreachable"]


@pytest.mark.isolation
def test_the_root_is_read_only_and_there_is_a_place_to_write(laboratory: Laboratory) -> None:
    script = """
        for place in / /organism; do grep " $place " /proc/mounts | tail -1 | cut -d " " -f 4 | cut -d , -f 1; done
        touch /x || echo refused
        touch /tmp/x && echo written
    """
    assert said(laboratory, script) == ["ro", "ro", "refused", "written"]


@pytest.mark.isolation
def test_the_user_is_unprivileged_and_has_no_capabilities(laboratory: Laboratory) -> None:
    told = said(laboratory, "id -u; id -g; grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status")
    assert told[:2] == ["65534", "65534"]
    status = dict(line.split(":\t") for line in told[2:])
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


@pytest.mark.isolation
def test_other_processes_and_the_callers_environment_cannot_be_seen(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_CALLER", "hidden")
    told = said(laboratory, "cat /proc/[0-9]*/environ | tr '\\0' '\\n'; ls -d /proc/[0-9]* | wc -l")
    assert not any("hidden" in line for line in told)
    assert int(told[-1]) <= 5


@pytest.mark.isolation
def test_limits_are_set_on_the_container(laboratory: Laboratory) -> None:
    if not Path("/sys/fs/cgroup/memory").is_dir():
        pytest.skip("reads the counters of cgroup version 1")
    if laboratory.watches_memory:
        pytest.skip("the kernel does not let this user limit what containers use: it is watched")
    script = """
        cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max
        cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us
    """
    memory, processes, quota, period = map(int, said(laboratory, script, cpus=0.5, memory_mib=100, processes=17))
    assert (memory, processes, quota / period) == (100 << 20, 17, 0.5)


@pytest.mark.docker
def test_the_user_of_an_image_is_kept_unless_it_is_root(containers: Laboratory, tmp_path: Path) -> None:
    spec = containers.organism(probe="id -u")
    for user, expected in (("1234", b"1234\n"), ("root", b"65534\n")):
        (tmp_path / "Dockerfile").write_text(f"FROM {BASE_IMAGE}\nUSER {user}\n")
        build = ["docker", "build", "--quiet", "--tag", "knockem-test/user", tmp_path]
        subprocess.run(build, check=True, capture_output=True, env={"DOCKER_BUILDKIT": "0", "PATH": "/usr/bin:/bin"})
        try:
            image = asyncio.run(DockerRuntime().resolve("knockem-test/user"))
            own = ContainerSpec(image, spec.environment, spec.limits, spec.mounts)
            assert asyncio.run(DockerRuntime().run(own, ["probe"])).stdout == expected
        finally:
            subprocess.run(["docker", "image", "rm", "knockem-test/user"], check=True, capture_output=True)


@pytest.mark.docker
def test_an_image_is_pinned_and_runs_by_its_digest(containers: Laboratory) -> None:
    spec = containers.organism(probe="true")
    assert spec.image.digest.startswith("sha256:")
    renamed = Image("docker", "another/name", spec.image.digest)
    own = ContainerSpec(renamed, spec.environment, spec.limits, spec.mounts)
    assert asyncio.run(containers.runtime.run(own, ["probe"])).exit_code == 0


@pytest.mark.docker
def test_a_removed_image_and_one_of_another_runtime_are_clear_errors(containers: Laboratory) -> None:
    gone = ContainerSpec(Image("docker", "once/here", f"sha256:{'0' * 64}"))
    with pytest.raises(ImageNotFound, match="was removed"):
        asyncio.run(containers.runtime.run(gone, ["probe"]))
    other = ContainerSpec(Image("process", "trial", "sha256:0"))
    with pytest.raises(ContractError, match="resolve it again"):
        asyncio.run(containers.runtime.run(other, ["probe"]))


@pytest.mark.docker
def test_what_the_engine_cannot_start_is_a_clear_error_and_leaves_nothing(containers: Laboratory) -> None:
    spec = containers.organism(submission_id="unstartable", probe="true")
    absent = [type(spec.mounts[0])(Path("/no/such/folder"), "/absent")]
    broken = ContainerSpec(spec.image, {}, spec.limits, absent, "unstartable")
    with pytest.raises(ContainerError, match="/no/such/folder"):
        asyncio.run(containers.runtime.run(broken, ["probe"]))
    assert asyncio.run(containers.runtime.remove_leftovers("unstartable")) == 0


@pytest.mark.docker
def test_a_memory_kill_is_known_where_the_counters_cannot_be_seen(
    containers: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CgroupCounters, "of_container", lambda container, pid: None)
    spec = containers.organism(
        limits=Limits(memory_mib=64, timeout_seconds=30), grow=f'python3 -c "{EAT_MEMORY}"; exit 0'
    )
    assert asyncio.run(containers.runtime.run(spec, ["grow"])).cause == EndCause.OUT_OF_MEMORY


@pytest.mark.docker
def test_the_engine_remembers_memory_kills_of_children(containers: Laboratory) -> None:
    """OOMKilled alone is not enough: on some engines it tells only of the first process."""
    start = ["docker", "run", "--detach", "--network", "none", "--memory", "64m", "--memory-swap", "64m", BASE_IMAGE]
    grow = [*start, "sh", "-c", f'python3 -c "{EAT_MEMORY}"; exit 0']
    container = subprocess.run(grow, check=True, capture_output=True, text=True).stdout.strip()
    try:
        subprocess.run(["docker", "wait", container], check=True, capture_output=True)
        engine = Engine(engine_socket())
        assert asyncio.run(engine.past_events("oom", container=container, since=0.0))
        assert not asyncio.run(engine.past_events("oom", container="another", since=0.0))
    finally:
        subprocess.run(["docker", "rm", "--force", container], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("user", "expected"),
    [("", False), ("0", False), ("root", False), ("0:1000", False), ("root:users", False), ("00", False),
     ("1000", True), ("nobody", True), ("1000:0", True)],
)  # fmt: skip
def test_root_is_recognised_by_any_name(user: str, expected: bool) -> None:
    assert is_unprivileged(user) is expected


@given(st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(max_size=40))), st.integers(1, 60))
def test_frames_are_found_however_the_stream_is_cut(frames: list[tuple[int, bytes]], size: int) -> None:
    stream = b"".join(bytes([kind, 0, 0, 0]) + len(body).to_bytes(4, "big") + body for kind, body in frames)
    reader = FrameReader()
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert [frame for piece in pieces for frame in reader.feed(piece)] == frames
