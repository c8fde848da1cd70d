"""The worker in the image of deploy/Dockerfile, or in one made from it: how it is started, and how long it drains."""

from __future__ import annotations

from knockem_dagster.nodes.node_pools import LEAVING_SECONDS, NodePool

DRAIN_SECONDS = 30
"""How long a worker that is told to end may take: it finishes or hands back its work within 20 s."""


def image_arguments(pool: NodePool) -> list[str]:
    """Return the arguments of the image's entry point, which is `python -P -m`."""
    return ["knockem_dagster", *pool.worker_arguments(), "--time-left", f"{pool.walltime - LEAVING_SECONDS}"]
