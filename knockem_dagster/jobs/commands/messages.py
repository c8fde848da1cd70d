"""What a worker and its spawner say to each other, and how it goes over their socket.

Messages are marshalled tuples behind their length: both ends are the same interpreter, and nothing is
quicker. The spawner imports this: no import here may make it larger (see spawner.py).
"""

from __future__ import annotations

import marshal

TYPE_CHECKING = False  # as the module typing has it, whose import costs a megabyte
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

LENGTH_BYTES = 4

START, KILL = 0, 1
"""Requests: (START, number, arguments, environment, folder, keep_output) and (KILL, number)."""

READY, RUNNING, ENDED, REFUSED = 0, 1, 2, 3
"""Replies: (READY, spawner's pid), (RUNNING, number, pid), (REFUSED, number, exit code or None, reason) and
(ENDED, number, exit code, tail, peak in bytes, CPU seconds, wall seconds)."""


def pack(message: tuple[Any, ...]) -> bytes:
    """Return a message as it goes over the socket."""
    body = marshal.dumps(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def unpack(pending: bytearray) -> Iterator[tuple[Any, ...]]:
    """Take every whole message from the start of what has arrived."""
    start = 0
    while (body := start + LENGTH_BYTES) <= len(pending):
        end = body + int.from_bytes(pending[start:body], "big")
        if end > len(pending):
            break
        yield marshal.loads(pending[body:end])
        start = end
    del pending[:start]
