"""Taking the jobs of workers whose lease has lapsed, after ending what these workers still run on this machine."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from knockem_dagster.containers.owners import current_owner
from knockem_dagster.errors import ContainerError
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.jobs.queue_views import QueueViews


class OwnedRemover(Protocol):
    """What can end the containers that a process has started: every runtime can."""

    async def remove_owned_by(self, owner: str) -> int:
        """Remove what one process of this machine has started, dead or alive."""
        ...


@dataclass(frozen=True, slots=True)
class Reaped:
    """A worker that was given up, the host it was on, and how many jobs were taken from it."""

    worker: str
    host: str
    jobs: int


async def reap_lapsed(queue: Queue, runtimes: Sequence[OwnedRemover], *, lease_seconds: float) -> list[Reaped]:
    """Give up workers whose lease has lapsed; return which.

    Their containers are removed before their jobs are claimable, or two might run at a time; before that their leases
    are ended, or they might hand in as failed what was killed. On another host that is for somebody there to do, who
    is given as long again. A server that has just started knows no lease better than its workers do: these are given
    time to renew them. A worker of this process lives, and looks after itself.
    """
    lapsed = await queue.lapsed_workers()
    views = QueueViews(queue)
    if not lapsed or await views.unsettled_seconds(lease_seconds=lease_seconds):
        return []
    workers = await views.workers()
    reaped: list[Reaped] = []
    for name in lapsed:
        said = workers[name].description if name in workers else {}
        host = str(said.get("host", ""))
        is_here = host == socket.gethostname()
        if is_here:
            if said["owner"] == str(current_owner()) or await queue.end_leases([name]) == [-1]:
                continue
            for runtime in runtimes:
                try:
                    await runtime.remove_owned_by(said["owner"])
                except ContainerError:
                    continue  # its engine does not answer: then its containers cannot be found from here either
        [jobs] = await queue.reap([name], patience_seconds=0.0 if is_here else lease_seconds)
        if jobs >= 0:
            reaped.append(Reaped(name, host, jobs))
    return reaped
