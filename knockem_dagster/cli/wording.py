"""Numbers and times in words, for the terminal."""

from __future__ import annotations

from datetime import UTC, datetime


def counted(count: int, thing: str) -> str:
    """Return a count with its noun, in the plural unless it is one."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def clock(seconds: float) -> str:
    """Return a duration as people read it: 12 s, 3 min 05 s, 2 h 10 min, 3 d 4 h."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86_400:
        return f"{whole // 3_600} h {whole % 3_600 // 60:02} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3_600} h"


def moment(time: str) -> str:
    """Return an ISO 8601 time to the second, in UTC."""
    return datetime.fromisoformat(time).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
