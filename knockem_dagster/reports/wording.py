"""Numbers as a reader wants them: rounded to what they can bear, with words around them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime

MISSING = "–"
_MINUS = "−"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float) -> str:
    """Return a number with three significant digits and thousands separated; a dash when it is missing."""
    if not math.isfinite(value):
        return MISSING
    size = abs(value)
    if value == round(value) or size >= 100:
        text = f"{value:,.0f}"
    elif size >= 10:
        text = f"{value:.1f}"
    elif size < 0.001:
        digits, exponent = f"{value:.2e}".split("e")
        text = f"{float(digits):g}×10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    else:
        text = f"{value:.3g}"
    return text.replace("-", _MINUS, 1) if text.startswith("-") else text


def decimals(value: float, places: int = 2) -> str:
    """Return a number with a fixed number of decimals, for columns; a dash when it is missing."""
    if not math.isfinite(value):
        return MISSING
    # Adding zero turns a rounded -0.0 into 0.0.
    return f"{round(value, places) + 0.0:,.{places}f}".replace("-", _MINUS)


def counted(count: int, thing: str) -> str:
    """Return a count with its noun, in the plural unless it is one."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def plural(count: float, one: str, many: str) -> str:
    """Return the words that go with a count which stands elsewhere."""
    return one if count == 1 else many


def enumerated(items: Sequence[str]) -> str:
    """Return items as a sentence has them: with commas, and "and" before the last."""
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)


def share(part: float, whole: float) -> str:
    """Return part of whole as a percentage; never "0%" for something nor "100%" for less than all."""
    if whole <= 0:
        return MISSING
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "<0.1%"
    if 99.9 < percent < 100:
        return ">99.9%"
    return f"{percent:.1f}%".replace(".0%", "%")


def duration(seconds: float) -> str:
    """Return seconds in the largest unit that leaves at least one."""
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def moment(when: datetime | None) -> str:
    """Return a time to the minute in UTC; a time without zone is taken as UTC."""
    if when is None:
        return MISSING
    known = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    return known.strftime("%Y-%m-%d %H:%M UTC")


def listed(items: list[str], most: int) -> str:
    """Return the items with commas, and how many there are beyond `most`."""
    shown = ", ".join(items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most:,} more"


def last_part(text: str, *, characters: int) -> str:
    """Return the end of a program's output without control characters, marked where it was cut."""
    kept = text[-characters:]
    clean = "".join(
        sign if sign in "\n\t" or unicodedata.category(sign) not in {"Cc", "Cs", "Cn"} else "�"
        for sign in kept.replace("\r\n", "\n")
    )
    return clean if len(text) <= characters else f"… {clean}"
