"""Where a user finds a stored object: a path on this machine, or a URL."""

from __future__ import annotations

from urllib.parse import urlsplit
from urllib.request import url2pathname

from knockem_dagster.errors import NotFound
from knockem_dagster.platform import Platform


def place_of(platform: Platform, key: str, *, what: str) -> str:
    """Return where an object is: a path when objects are a directory here, else its URL.

    Raises NotFound, beginning with `what`, when there is no such object.
    """
    if not platform.objects.exists(key):
        raise NotFound(f"{what} has not been made.")
    url = platform.objects.url(key)
    parts = urlsplit(url)
    return url2pathname(parts.path) if parts.scheme == "file" else url
