"""Opens the runtime that a setting names, and tells which runtime an image is for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from knockem_dagster.containers.docker_engine import DockerRuntime
from knockem_dagster.containers.engine_api import engine_socket, is_listening
from knockem_dagster.containers.organism_folders import find_organism
from knockem_dagster.containers.processes import ProcessRuntime
from knockem_dagster.containers.runtime import Runtime, RuntimeName
from knockem_dagster.errors import ContainerError, ImageNotFound


def open_runtime(name: RuntimeName | Literal["auto"], *, organisms: Sequence[Path]) -> Runtime:
    """Return a runtime; `auto` is docker where an engine answers, else process.

    `organisms` are the folders of trusted organism folders (KNOCKEM_ORGANISMS), for the process runtime.
    Raises ContainerError when the named one cannot be used here.
    """
    if name == "process" or (name == "auto" and not has_engine()):
        return ProcessRuntime(organisms)
    return DockerRuntime()


def has_engine() -> bool:
    """Tell whether a container engine answers on this machine."""
    try:
        return is_listening(engine_socket())
    except ContainerError:
        return False


def runtime_for_image(reference: str, *, organisms: Sequence[Path]) -> RuntimeName:
    """Tell which runtime an image is for: process when it names an organism folder, else docker."""
    try:
        find_organism(reference, organisms)
    except ImageNotFound:
        return "docker"
    return "process"
