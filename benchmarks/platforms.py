"""A platform of a benchmark's own: embedded stores below a folder, whatever the settings of the caller are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from knockem_dagster.platform import Platform
from knockem_dagster.settings import load_settings


@contextmanager
def platform_in(home: Path) -> Iterator[Platform]:
    """Give a platform whose record and objects are below `home`, and open."""
    settings = load_settings(
        home=home, environment="testing", documents_url=None, queue_url=None, objects_url=None, ui_url=None
    )
    platform = Platform(settings)
    try:
        _ = platform.records, platform.objects
        yield platform
    finally:
        platform.close()
