"""Waiting for what other processes and threads make true."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE_SECONDS = 60.0


def until(
    condition: Callable[[], T],
    what: str = "what is to hold",
    *,
    seconds: float = PATIENCE_SECONDS,
    look_seconds: float = 0.05,
) -> T:
    """Wait until a condition holds; return its value. Raises AssertionError when it does not."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(look_seconds)
    return value
