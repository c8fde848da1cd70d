"""Finding the numbers of a text, and looking them up in the table `study`."""

from __future__ import annotations

import contextlib

import pandas as pd

from knockem_dagster.reports.wording import number


def numbers_not_in(text: str, table: pd.DataFrame) -> list[str]:
    """Return the words of a text that hold a digit and are no value of the table: as it stands, rounded, or in %."""
    known: set[str] = set()
    for value in table["value"]:
        known.update((part.strip(",") for part in value.split()), [value])
        with contextlib.suppress(ValueError):
            known |= {number(float(value)), f"{number(100 * float(value))}%"}
    words = [word.strip("(),.;:") for word in text.split()]
    return [word for word in words if any(sign.isdigit() for sign in word) and word not in known | _NAMES]


_NAMES = {"SHA-256"}
"""Words with digits that are no numbers."""
