"""What the podman runtime adds to the docker one: a service of its own, and honesty about what it may limit."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from knockem_dagster.containers import podman_service
from knockem_dagster.containers.engine_api import EngineError
from knockem_dagster.containers.hardening import describe_container
from knockem_dagster.containers.podman_engine import for_podman
from knockem_dagster.containers.podman_service import PodmanEngine, PodmanFacts
from knockem_dagster.containers.runtime import ContainerSpec, EndCause, Image
from knockem_dagster.containers.runtimes import open_runtime, runtime_for_image
from knockem_dagster.errors import ContainerError
from tests.containers.laboratory import BASE_IMAGE, podman_laboratory

BODY = describe_container(ContainerSpec(Image("podman", "some/image", "sha256:0")), ["count"], image_user="")


def test_nothing_is_asked_for_that_podman_may_not_limit() -> None:
    host = for_podman(BODY, PodmanFacts(frozenset({"memory", "pids"}), maps_users=True))["HostConfig"]
    assert "NanoCpus" not in host and host["PidsLimit"] == 128 and host["Memory"] == 1024 << 20
    host = for_podman(BODY, PodmanFacts(frozenset(), maps_users=True))["HostConfig"]
    assert not {"NanoCpus", "PidsLimit", "Memory", "MemorySwap"} & host.keys()
    assert host["NetworkMode"] == "none" and host["CapDrop"] == ["ALL"] and host["ReadonlyRootfs"]


def test_without_subordinate_ids_a_container_has_its_root_only() -> None:
    assert for_podman(BODY, PodmanFacts(frozenset(), maps_users=True))["User"] == "65534:65534"
    assert for_podman(BODY, PodmanFacts(frozenset(), maps_users=False))["User"] == "0:0"


@pytest.mark.docker
def test_a_service_that_was_killed_is_started_again(podman: None, tmp_path: Path) -> None:
    laboratory = podman_laboratory(tmp_path)
    spec = laboratory.organism(speak="echo hello")
    assert asyncio.run(laboratory.runtime.run(spec, ["speak"])).stdout == b"hello\n"
    services = [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and child.cmdline()[1:3] == ["system", "service"]
    ]
    assert len(services) == 1
    tree = [*services, *services[0].children(recursive=True)]
    for process in tree:
        os.kill(process.pid, signal.SIGKILL)
    psutil.wait_procs(tree)
    ended = asyncio.run(laboratory.runtime.run(spec, ["speak"]))
    assert (ended.cause, ended.stdout) == (EndCause.EXITED, b"hello\n")


def test_a_container_that_ends_while_podman_looks_is_looked_at_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    socket, requests = tmp_path / "podman.sock", list[bytes]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readline())
        if len(requests) == 2:
            writer.write(b'HTTP/1.0 200 OK\r\n\r\n{"State": {"Running": false}}')
        else:
            writer.write(b"HTTP/1.0 500 Internal Server Error\r\n\r\n")
            writer.write(b'{"message": "read /proc/22496/cgroup: no such process"}')
        writer.close()

    async def ask() -> None:
        async with await asyncio.start_unix_server(answer, socket):
            assert await PodmanEngine().call("GET", "/containers/a/json") == {"State": {"Running": False}}
            with pytest.raises(EngineError, match="no such process"):
                await PodmanEngine().call("POST", "/containers/a/start")

    service = subprocess.Popen(["sleep", "60"])
    monkeypatch.setitem(podman_service._services, os.getpid(), podman_service._Service(service, socket))
    try:
        asyncio.run(ask())
    finally:
        service.kill()
        service.wait()
    assert len(requests) == 3, "what changes something is asked for once"


@pytest.mark.docker
def test_output_is_whole_though_the_input_is_never_read(podman: None, tmp_path: Path) -> None:
    laboratory = podman_laboratory(tmp_path)
    spec = laboratory.organism(ignore="echo done")

    async def ignored() -> list[bytes]:
        ends = [await laboratory.runtime.run(spec, ["ignore"], b"x" * 10_000_000) for _ in range(5)]
        return [ended.stdout for ended in ends]

    assert asyncio.run(ignored()) == [b"done\n"] * 5


@pytest.mark.docker
def test_an_image_of_this_machine_is_pinned_by_its_id(podman: None) -> None:
    image = asyncio.run(open_runtime("podman", organisms=[]).resolve(BASE_IMAGE))
    assert (image.runtime, image.digest.partition(":")[0]) == ("podman", "sha256")
    assert asyncio.run(PodmanEngine().call("GET", f"/images/{image.digest}/json"))["Id"] == image.digest


@pytest.mark.docker
def test_podman_runs_images_where_no_engine_answers(
    podman: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    assert runtime_for_image(BASE_IMAGE, organisms=[]) == "podman"


def test_without_podman_it_is_said_what_to_install(nothing_on_path: None) -> None:
    with pytest.raises(ContainerError, match="install podman"):
        open_runtime("podman", organisms=[])
