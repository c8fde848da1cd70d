"""The queue server as a service of `up`: started, mended when its file is broken, and ended after all that use it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from knockem_dagster.cli.supervision import Service
from knockem_dagster.settings import Settings
from knockem_dagster.stores.queue_connection import open_queue
from knockem_dagster.stores.queue_server import server_command, set_aside_unreadable


def queue_services(settings: Settings, log: Path) -> Sequence[Service]:
    """Return the embedded server; nothing where a served one is named, which is checked instead. Raises StoreError."""
    if settings.queue_url is not None:
        open_queue(settings).close()
        return ()

    def repair(exit_code: int) -> str:
        aside = set_aside_unreadable(settings, log=log, exit_code=exit_code)
        return "" if aside is None else f"The queue's file cannot be loaded; it is now {aside}, and the queue is empty."

    return (Service("queue", lambda: server_command(settings), log, repair=repair, ends_last=True),)
