"""The multiplexed stream of an attached container without a terminal, taken apart.

Docker Engine API, "Attach to a container": each frame has a header of eight bytes, the first of which
is the stream (1 standard output, 2 standard error) and the last four the payload's length, big-endian.
"""

from __future__ import annotations

from collections.abc import Iterator

HEADER_BYTES = 8
STDOUT = 1
STDERR = 2


class FrameReader:
    """Collects bytes until frames are whole."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Take what arrived and yield (stream, payload) of every frame completed by it."""
        self._pending += data
        start = 0
        while len(self._pending) - start >= HEADER_BYTES:
            body = start + HEADER_BYTES
            end = body + int.from_bytes(self._pending[start + 4 : body], "big")
            if len(self._pending) < end:
                break
            yield self._pending[start], bytes(self._pending[body:end])
            start = end
        del self._pending[:start]
