"""The worker inside a run that has no queue: slots around an in-process source."""

from __future__ import annotations

import asyncio

from knockem_dagster.containers.contract import Organism
from knockem_dagster.jobs.in_process import InProcessSource
from knockem_dagster.jobs.slots import Slot


class Worker:
    """Runs a source's attempts with one organism, in `slots` containers at a time."""

    def __init__(self, source: InProcessSource, organism: Organism, *, slots: int, most_in_flight: int) -> None:
        self._source = source
        self._organism = organism
        self._slots = slots
        self._share = max(1, most_in_flight // slots)

    async def run(self) -> None:
        """Work until the source is closed. Raises ContainerError when the image cannot be used at all."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._slots):
                group.create_task(Slot(self._source, self._organism, self._share).run())
