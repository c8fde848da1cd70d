"""What a command writes, kept within bounds as it arrives: its head, its tail, its lines."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

TAIL_BYTES = 4096


class Head:
    """The first `limit` bytes of a stream; the rest is dropped as it arrives."""

    def __init__(self, limit: int) -> None:
        self._kept = bytearray()
        self._limit = limit
        self.cut = False

    def feed(self, data: bytes) -> None:
        """Keep what still fits."""
        room = self._limit - len(self._kept)
        if room > 0:
            self._kept += data[:room]
        self.cut = self.cut or len(data) > room

    @property
    def content(self) -> bytes:
        """The bytes kept."""
        return bytes(self._kept)


class Tail:
    """The last `limit` bytes of a stream, as text."""

    def __init__(self, limit: int = TAIL_BYTES) -> None:
        self._kept = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> None:
        """Keep the end of what has arrived."""
        self._kept += data[-self._limit :]
        if len(self._kept) > 2 * self._limit:
            del self._kept[: -self._limit]

    @property
    def text(self) -> str:
        """The end of the stream; bytes that are no UTF-8 are replaced."""
        return self._kept[-self._limit :].decode("utf-8", "replace").strip()


class Capture:
    """Standard output and error of a command that runs to its end."""

    def __init__(self, limit: int) -> None:
        self._head = Head(limit)
        self._tail = Tail()

    def feed_stdout(self, data: bytes) -> bool:
        """Take what the command wrote to its standard output: always welcome, kept as far as it fits."""
        self._head.feed(data)
        self._tail.feed(data)
        return True

    def feed_stderr(self, data: bytes) -> None:
        """Take what the command wrote to its standard error."""
        self._tail.feed(data)

    def close(self) -> None:
        """Nothing more will come; there is nobody to tell."""

    @property
    def stdout(self) -> bytes:
        """The beginning of standard output, cut at the limit."""
        return self._head.content

    @property
    def stdout_cut(self) -> bool:
        """Whether there was more than the limit."""
        return self._head.cut

    @property
    def tail(self) -> str:
        """The end of both, in the order of arrival."""
        return self._tail.text


class Inbox:
    """Lines a command wrote that nobody has read yet, for one reader.

    A command that writes more than `limit` bytes ahead of its reader says what nobody asked for:
    `feed_stdout` then closes the inbox and answers False.
    """

    def __init__(self, limit: int) -> None:
        self._pending = bytearray()
        self._limit = limit
        self._tail = Tail()
        self._has_lines = asyncio.Event()
        self._closed = False

    def feed_stdout(self, data: bytes) -> bool:
        """Take what arrived; False when it is more than the inbox holds."""
        if self._closed:
            return False
        self._pending += data
        if len(self._pending) > self._limit:
            self._tail.feed(f"\nwrote more than {self._limit} bytes that were not asked for".encode())
            self._pending.clear()
            self.close()
            return False
        if b"\n" in data:
            self._has_lines.set()
        return True

    def feed_stderr(self, data: bytes) -> None:
        """Keep the end of standard error."""
        self._tail.feed(data)

    def close(self) -> None:
        """Nothing more will come; wakes the reader."""
        self._closed = True
        self._has_lines.set()

    async def read(self) -> Sequence[bytes]:
        """Wait for whole lines and return all there are, without line ends; empty when closed and drained."""
        await self._has_lines.wait()
        end = self._pending.rfind(b"\n")
        lines = bytes(self._pending[:end]).split(b"\n") if end >= 0 else []
        del self._pending[: end + 1]
        if not self._closed:
            self._has_lines.clear()
        return lines

    @property
    def tail(self) -> str:
        """The end of standard error, and why the inbox was closed early if it was."""
        return self._tail.text
