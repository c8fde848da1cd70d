"""Times as people and schedulers write them."""

from __future__ import annotations

import re

_TIME = re.compile(r"(?:(?:(?P<days>\d+)-)?(?:(?P<hours>\d+):)?(?P<minutes>\d+):)?(?P<seconds>\d+)", re.ASCII)
_DAYS = re.compile(r"(?P<days>\d+)-(?P<hours>\d+)(?::(?P<minutes>\d+)(?::(?P<seconds>\d+))?)?", re.ASCII)
_MOST_LETTERS = 40


def seconds_of(text: str) -> int:
    """Return the seconds that SS, MM:SS, HH:MM:SS or D-HH:MM:SS says. Raises ValueError."""
    found = _TIME.fullmatch(text.strip())
    if found is None or len(text) > _MOST_LETTERS:
        raise ValueError("seconds, MM:SS, HH:MM:SS or D-HH:MM:SS are")
    return _seconds(found)


def seconds_of_walltime(text: str) -> int:
    """Return the seconds of a walltime as SLURM reads it: a plain number is minutes, D-HH is days and hours.

    The page of `sbatch`, option --time, lists the forms. Raises ValueError.
    """
    text = text.strip()
    found = _DAYS.fullmatch(text) or _TIME.fullmatch(f"{text}:0" if text.isdigit() else text)
    if found is None or len(text) > _MOST_LETTERS:
        raise ValueError("minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS are")
    return _seconds(found)


def walltime_of(seconds: float) -> str:
    """Return a walltime, D-HH:MM:SS, rounded up to a minute as SLURM does."""
    minutes = -int(-seconds // 60)
    return f"{minutes // 1440}-{minutes // 60 % 24:02}:{minutes % 60:02}:00"


def _seconds(found: re.Match[str]) -> int:
    days, hours, minutes, seconds = (int(found[name] or 0) for name in ("days", "hours", "minutes", "seconds"))
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
