"""Where attempts come from: one protocol between who asks and who works.

An assay run puts attempts into a source; workers claim them, run them in containers and finish
them. The in-process source serves one run; the queue and HTTP sources come behind the same protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from knockem_dagster.containers.attempts import Attempt, AttemptOutcome


class AttemptSource(Protocol):
    """Attempts between the run that asks for them and the workers that run them.

    An attempt that a worker hands back without blame (its serving container died under it) is
    finished as LOST; everything else counts towards maxFail.
    """

    async def put(self, attempts: Sequence[Attempt]) -> None:
        """Make attempts ready to be claimed."""
        ...

    async def outcomes(self) -> Sequence[AttemptOutcome]:
        """Wait for at least one finished attempt; return all that are finished by then."""
        ...

    async def claim(self, most: int) -> Sequence[Attempt]:
        """Wait for at least one ready attempt; return up to `most`. Empty when the source is closed."""
        ...

    async def finish(self, outcomes: Sequence[AttemptOutcome]) -> None:
        """Report finished attempts."""
        ...

    async def close(self) -> None:
        """Refuse further attempts and wake every waiting claim with an empty answer."""
        ...
