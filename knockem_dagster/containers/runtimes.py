"""Opens the runtime that a setting names, and tells which runtime an image is for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

from knockem_dagster.containers.apptainer import ApptainerRuntime, has_apptainer
from knockem_dagster.containers.docker_engine import DockerRuntime
from knockem_dagster.containers.engine_api import engine_socket, is_listening
from knockem_dagster.containers.organism_folders import find_organism
from knockem_dagster.containers.podman_engine import PodmanRuntime
from knockem_dagster.containers.podman_service import has_podman
from knockem_dagster.containers.processes import ProcessRuntime
from knockem_dagster.containers.runtime import Runtime, RuntimeName
from knockem_dagster.errors import ContainerError, ImageNotFound
from knockem_dagster.settings import RUNTIMES


def open_runtime(name: Literal["auto", RuntimeName], *, organisms: Sequence[Path]) -> Runtime:
    """Return a runtime; `auto` is what runs images here, else process.

    `organisms` are the folders of trusted organism folders (KNOCKEM_ORGANISMS), for the process runtime.
    Raises ContainerError when the named one cannot be used here.
    """
    if name == "auto":
        name = image_runtime_here() or "process"
    match name:
        case "process":
            return ProcessRuntime(organisms)
        case "docker":
            return DockerRuntime()
        case "podman":
            return PodmanRuntime()
        case "apptainer":
            return ApptainerRuntime()


def has_engine() -> bool:
    """Tell whether a container engine answers on this machine."""
    try:
        return is_listening(engine_socket())
    except ContainerError:
        return False


IS_HERE: Mapping[RuntimeName, Callable[[], bool]] = {
    "process": lambda: True,
    "docker": has_engine,
    "podman": has_podman,
    "apptainer": has_apptainer,
}
"""How each runtime is found out; those that run images in the order in which they are chosen."""


def runtime_names_here() -> list[RuntimeName]:
    """Name the runtimes that can be used on this machine by this user, the best for images first."""
    return [name for name, is_here in IS_HERE.items() if is_here()]


def image_runtime_here(among: Collection[RuntimeName] = RUNTIMES) -> RuntimeName | None:
    """Name the runtime that runs images on this machine: docker, else podman, else apptainer; None without any."""
    return next((name for name, is_here in IS_HERE.items() if name != "process" and name in among and is_here()), None)


def runtime_for_image(
    reference: str, *, organisms: Sequence[Path], among: Collection[RuntimeName] = RUNTIMES
) -> RuntimeName:
    """Tell which runtime an image is for: process when it names an organism folder, else what among these runs images.

    Where nothing does that is docker, which says what to install.
    """
    try:
        find_organism(reference, organisms)
    except ImageNotFound:
        return image_runtime_here(among) or "docker"
    return "process"
