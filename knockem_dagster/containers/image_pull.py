"""Fetches images from registries, with the credentials of the Docker configuration, through the Docker SDK."""

from __future__ import annotations

import docker
import docker.errors

from knockem_dagster.errors import ImageNotFound


def pull_image(reference: str) -> None:
    """Pull an image, blocking. Raises ImageNotFound when no registry has it or none can be reached."""
    try:
        client = docker.from_env()
    except docker.errors.DockerException as error:
        raise ImageNotFound(f"image {reference!r} is not on this machine and cannot be pulled: {error}") from error
    try:
        client.images.pull(reference)
    except docker.errors.DockerException as error:
        raise ImageNotFound(
            f"image {reference!r} is not on this machine, and pulling it failed: {error}. Check its name, "
            "`docker login` for a private registry, or build it here with `docker build -t`."
        ) from error
    finally:
        client.close()
