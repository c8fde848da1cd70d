"""Names in braces in a workflow file: `{i}`, `{i:03d}`, `{rate:.4f}`. `${...}` is the shell's, or a reference's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal

from knockem_dagster.jobs.specs.parameters import Combination, ParameterValue

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLACE = re.compile(r"(?<!\$)\{([A-Za-z_][A-Za-z0-9_]*)(?::([^{}]*))?\}")
_PADDED = re.compile(r"0?\d{1,2}d")
_ROUNDED = re.compile(r"\.(\d{1,2})f")


class UnknownFormat(ValueError):
    """What follows a colon in braces is no format; the message tells which ones are."""


def filled(template: str, values: Combination, *, escape: bool = False) -> str:
    """Return a text with names in braces replaced by their values; other names are left. Raises UnknownFormat.

    `escape`: for a pattern, in which a value stands for itself.
    """

    def value_at(place: re.Match[str]) -> str:
        if place[1] not in values:
            return place[0]
        text = _formatted(values[place[1]], place[2])
        return re.escape(text) if escape else text

    return _PLACE.sub(value_at, template) if "{" in template else template


def names_in(template: str) -> Iterator[str]:
    """Yield the names that stand in braces."""
    return (place[1] for place in _PLACE.finditer(template))


def text_of(value: ParameterValue) -> str:
    """Return a value as it stands in a text: numbers without an exponent, and without a fraction of zero."""
    if not isinstance(value, Decimal):
        return str(value)
    text = f"{value:f}"
    return (text.rstrip("0").rstrip(".") or "0") if "." in text else text


def _formatted(value: ParameterValue, form: str | None) -> str:
    """Return a value in a form; as in torc, one for whole numbers leaves others as they are, and the reverse."""
    if form is None:
        return text_of(value)
    if _PADDED.fullmatch(form):
        return f"{value:{form}}" if isinstance(value, int) else text_of(value)
    if rounded := _ROUNDED.fullmatch(form):
        return f"{value:.{rounded[1]}f}" if isinstance(value, Decimal) else text_of(value)
    raise UnknownFormat(f"{{...:{form}}} is no format; {{i:03d}} pads a whole number, {{x:.4f}} rounds another")


def filled_throughout(content: object, values: Combination) -> object:
    """Return JSON-like content with the names filled in every text but the keys of mappings."""
    if isinstance(content, str):
        return filled(content, values)
    if isinstance(content, Mapping):
        return {key: filled_throughout(value, values) for key, value in content.items()}
    if isinstance(content, list):
        return [filled_throughout(value, values) for value in content]
    return content
