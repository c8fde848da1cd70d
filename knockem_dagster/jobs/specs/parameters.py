"""Parameters of a workflow file: the values that a text stands for, and which of them go together.

The notations are those that torc documents (NREL, docs "Job Parameterization"): ranges with both ends, with or without
a step, lists, and single values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import product
from typing import Literal, TypeAlias

ParameterValue: TypeAlias = int | Decimal | str
"""A decimal has the digits it was written with, so that a range of steps of 0.1 holds 0.3."""
Parameter: TypeAlias = str | tuple[ParameterValue, ...]
"""A text that stands for values, or the values themselves."""
Combination: TypeAlias = Mapping[str, ParameterValue]
Mode: TypeAlias = Literal["product", "zip"]

MOST_VALUES = 200_000
"""Values of one parameter, and combinations of several."""
_MOST_DIGITS = 18
_MOST_CHARACTERS = 100
"""Of a number; what has more is text."""
_INTEGER = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")


class NotAParameter(ValueError):
    """A text that stands for no values, or for too many; the message tells what is allowed."""


@dataclass(frozen=True, slots=True)
class _Range:
    """Numbers from `start` to `end`, both included, in steps."""

    start: Decimal
    end: Decimal
    step: Decimal
    is_integer: bool

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return max(0, math.floor((self.end - self.start) / self.step) + 1)

    def values(self) -> list[ParameterValue]:
        """Return the numbers."""
        numbers = [self.start + number * self.step for number in range(self.size)]
        return [int(number) for number in numbers] if self.is_integer else list(numbers)


def values_of(parameter: Parameter) -> Sequence[ParameterValue]:
    """Return what a text stands for: "1:10", "0:100:10", "0.0:1.0:0.1", "[a,b]", "['a','b']", or one value.

    Braces around a range are ignored; a list is its values. Raises NotAParameter for a range that is none, no values or
    more than MOST_VALUES.
    """
    values = _notated(parameter) if isinstance(parameter, str) else parameter
    if not values:
        raise NotAParameter("at least one value is")
    _check_size(len(values))
    return values


def _notated(text: str) -> list[ParameterValue]:
    text = text.strip()
    if text.startswith("{") and text.endswith("}") and "," not in text:
        text = text[1:-1].strip()
    if text.startswith("[") and text.endswith("]"):
        inner = text[1:-1].strip()
        return [_single(item.strip()) for item in inner.split(",")] if inner else []
    if ":" in text:
        found = _range_of(text)
        _check_size(found.size)
        return found.values()
    return [_single(text)]


def combinations_of(parameters: Mapping[str, Sequence[ParameterValue]], mode: Mode) -> Iterator[Combination]:
    """Yield which values go together: all with all, the last parameter changing fastest, or the first with the first.

    Raises NotAParameter when there would be more than MOST_VALUES, or when lists to be zipped differ in length.
    """
    sizes = {name: len(values) for name, values in parameters.items()}
    if mode == "zip":
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{name} has {size}" for name, size in sizes.items())
            raise NotAParameter(f"zip needs as many values of each parameter; {told}")
        return (dict(zip(parameters, values, strict=True)) for values in zip(*parameters.values(), strict=True))
    _check_size(math.prod(sizes.values()))
    return (dict(zip(parameters, values, strict=True)) for values in product(*parameters.values()))


def _check_size(size: int) -> None:
    if size > MOST_VALUES:
        raise NotAParameter(f"these are {size:,}, and at most {MOST_VALUES:,} are")


def _single(text: str) -> ParameterValue:
    if not _NUMBER.fullmatch(text) or len(text) > _MOST_CHARACTERS:
        return text.strip("'\"")
    if _INTEGER.fullmatch(text):
        return int(text)
    number = Decimal(text)
    return number if abs(number.adjusted()) <= _MOST_DIGITS else text


def _range_of(text: str) -> _Range:
    parts = [part.strip() for part in text.split(":")]
    allowed = "a range is start:end or start:end:step, of numbers"
    try:
        start, end, step = (Decimal(part) for part in ([*parts, "1"] if len(parts) == 2 else parts))
    except (InvalidOperation, ValueError) as error:
        raise NotAParameter(allowed) from error
    if not (start.is_finite() and end.is_finite() and step.is_finite()) or step == 0:
        raise NotAParameter(f"{allowed}, and the step is not 0")
    if any(abs(each.adjusted()) > _MOST_DIGITS for each in (start, end, step)):
        raise NotAParameter(f"{allowed} of at most {_MOST_DIGITS} digits")
    is_integer = all(_INTEGER.fullmatch(part) for part in parts)
    return _Range(start, end, step, is_integer)
