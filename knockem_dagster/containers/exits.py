"""Being told the moment a process ends, whosoever's child it is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable


class ExitWatch:
    """Calls back once in the event loop when a process has ended (pidfd, Linux 5.3)."""

    def __init__(self, pid: int, on_exit: Callable[[], object]) -> None:
        """Raises ProcessLookupError when there is no such process."""
        self._pidfd: int | None = os.pidfd_open(pid)
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._pidfd, self._exited)

    def stop(self) -> None:
        """Stop watching; harmless when it has called back already."""
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    def _exited(self) -> None:
        self.stop()
        self._on_exit()
