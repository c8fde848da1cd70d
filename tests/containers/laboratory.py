"""Organisms made of a few lines of script, for every runtime this machine has."""

from __future__ import annotations

import asyncio
import os
import subprocess
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path

from knockem_dagster.containers.apptainer import ApptainerRuntime
from knockem_dagster.containers.attempts import Attempt, GenomeVariant
from knockem_dagster.containers.docker_engine import DockerRuntime
from knockem_dagster.containers.podman_engine import PodmanRuntime
from knockem_dagster.containers.podman_service import podman_facts
from knockem_dagster.containers.processes import ProcessRuntime
from knockem_dagster.containers.runtime import ContainerSpec, Limits, Mount, Runtime
from knockem_dagster.errors import ContainerError
from knockem_dagster.knockout.knockouts import KnockoutSet

BASE_IMAGE = "knockem/base"
ORGANISMS = Path(__file__).parents[2] / "deploy" / "organisms"

EAT_MEMORY = "held = []\nwhile True: held.append(b'x' * 10**6)"
SITES = 8


@dataclass(frozen=True)
class Laboratory:
    """A runtime, and a folder to put organisms in."""

    runtime: Runtime
    organisms: Path
    base_image: str = BASE_IMAGE

    @property
    def watches_memory(self) -> bool:
        """Whether memory is looked at, process by process, as no cgroup counts it."""
        if self.runtime.name == "podman":
            return "memory" not in podman_facts().controllers
        return self.runtime.name != "docker"

    def organism(self, *, limits: Limits | None = None, submission_id: str = "", **scripts: str) -> ContainerSpec:
        """Return how to start an organism with these commands: /bin/sh, unless they begin with #!."""
        folder = self.organisms / "trial"
        folder.mkdir()
        for name, script in scripts.items():
            path = folder / name
            text = textwrap.dedent(script).lstrip("\n")
            path.write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}")
            path.chmod(0o755)
        limits = limits or Limits(timeout_seconds=30)
        if self.runtime.name == "process":
            image = asyncio.run(self.runtime.resolve("trial"))
            return ContainerSpec(image, limits=limits, submission_id=submission_id)
        image = asyncio.run(self.runtime.resolve(self.base_image))
        environment = {"PATH": "/organism:/usr/local/bin:/usr/bin:/bin"}
        mounts = [Mount(folder, "/organism")]
        return ContainerSpec(image, environment, limits, mounts, submission_id)


def process_laboratory(folder: Path) -> Laboratory:
    """Return a laboratory without isolation."""
    organisms = folder / "organisms"
    organisms.mkdir()
    return Laboratory(ProcessRuntime([organisms]), organisms)


def docker_laboratory(folder: Path) -> Laboratory:
    """Return a laboratory of containers; `build_base_image` must have been called."""
    organisms = folder / "organisms"
    organisms.mkdir()
    return Laboratory(DockerRuntime(), organisms)


def podman_laboratory(folder: Path) -> Laboratory:
    """Return a laboratory of podman's containers; `build_base_image` must have been called for it."""
    organisms = folder / "organisms"
    organisms.mkdir()
    return Laboratory(PodmanRuntime(), organisms)


def apptainer_laboratory(folder: Path, image: str) -> Laboratory:
    """Return a laboratory of apptainer's containers, which run in this image."""
    organisms = folder / "organisms"
    organisms.mkdir()
    return Laboratory(ApptainerRuntime(), organisms, image)


def why_no_podman() -> str | None:
    """Return why podman, with the base image, cannot be used here; None where it can."""
    try:
        podman_facts()
    except ContainerError as error:
        return str(error)
    return build_base_image("podman")


def build_base_image(engine: str = "docker") -> str | None:
    """Make the image the trials run in, from Debian packages; return why that is not possible here."""
    present = subprocess.run([engine, "image", "inspect", BASE_IMAGE], capture_output=True, check=False)
    if present.returncode == 0:
        return None
    environment = {**os.environ, "ENGINE": engine}
    built = subprocess.run(
        [ORGANISMS / "base" / "build.sh", BASE_IMAGE], capture_output=True, text=True, check=False, env=environment
    )
    return None if built.returncode == 0 else f"no base image: {built.stderr[-500:]}"


def build_organism_images() -> str | None:
    """Make the images knockem/explicit, knockem/additive and knockem/unruly; return why that is not possible here."""
    reason = build_base_image()
    if reason is None:
        subprocess.run([ORGANISMS / "build.sh", BASE_IMAGE], capture_output=True, check=True)
    return reason


def attempt(id: str = "attempt-1", *, alpha: tuple[int, ...] = (), beta: tuple[int, ...] = (1,)) -> Attempt:
    """Return an attempt between two variants of a genome with SITES sites."""
    return Attempt(
        id=id,
        competition_id=f"competition-of-{id}",
        assay_id="assay-1",
        submission_id="submission-1",
        alpha=variant(alpha),
        beta=variant(beta),
        seed=2**62 + 1,
    )


def variant(sites: tuple[int, ...]) -> GenomeVariant:
    """Return a variant named after its sites."""
    return GenomeVariant("genome" + "".join(f"-{site}" for site in sites), KnockoutSet.of(sites, SITES))


def with_limits(specification: ContainerSpec, **limits: float) -> ContainerSpec:
    """Return the specification with some limits changed."""
    return replace(specification, limits=replace(specification.limits, **limits))
