"""What estimates are given in: each quantity tells by its name."""

from __future__ import annotations

# The first of these words in its name tells what a quantity counts or measures.
_UNITS = {"sites": "sites", "sets": "sets", "effect": "detection thresholds", "resolution": "detection thresholds"}


def unit_of(quantity: str) -> str:
    """Return the unit of a quantity, by its name: sites, sets, or detection thresholds; empty when it tells none."""
    return next((_UNITS[word] for word in quantity.split() if word in _UNITS), "")
