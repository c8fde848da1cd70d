"""Where attempts come from: the protocols between who asks and who works.

An assay run puts attempts into a source and hears what came of them; slots of a worker claim them, run them in
containers and hand in their outcomes. In process both meet in one object (in_process.py); with the queue between them
the asker has a QueueSource, each slot a QueueDesk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from knockem_dagster.containers.attempts import Attempt, AttemptOutcome


class AttemptSource(Protocol):
    """The asker's side."""

    async def put(self, attempts: Sequence[Attempt]) -> None:
        """Make attempts ready to be claimed."""
        ...

    async def adopt(self, attempts: Sequence[Attempt]) -> None:
        """Expect the outcomes of attempts that an earlier run put and that are still under way."""
        ...

    async def outcomes(self) -> Sequence[AttemptOutcome]:
        """Wait for at least one finished attempt; return all that are finished by then.

        Asking again tells that the earlier ones are recorded.
        """
        ...


class AttemptDesk(Protocol):
    """The worker's side.

    An attempt that a worker hands in without blame (its serving container died under it) is LOST; everything
    else counts towards maxFail.
    """

    async def claim(self, most: int) -> Sequence[Attempt]:
        """Wait for at least one ready attempt; return up to `most`. Empty when there is nothing more to do here."""
        ...

    async def finish(self, outcomes: Sequence[AttemptOutcome]) -> None:
        """Hand in finished attempts."""
        ...
