"""The result of a competition, as an organism reports it, read and judged."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from knockem_dagster.errors import BadResult
from knockem_dagster.knockout.competitions import Counts

MOST_INDIVIDUALS = 2**53
"""Counts beyond this are no longer whole numbers in JSON."""

MOST_RESULT_BYTES = 1 << 16


def parse_result(result: bytes | Mapping[str, Any]) -> Counts:
    """Return the counts of a reported result {"updatesElapsed", "numAlpha", "numBeta"}.

    Counts of individuals may be fractional and are rounded. Raises BadResult for what is no answer: text,
    a number that is missing, negative or not finite, no updates, nobody left.
    """
    fields = _read_object(result) if isinstance(result, bytes) else result
    updates = _number(fields, "updatesElapsed")
    num_alpha, num_beta = _individuals(fields, "numAlpha"), _individuals(fields, "numBeta")
    if updates == 0:
        raise BadResult("no updates elapsed: updatesElapsed must be positive")
    if num_alpha + num_beta == 0:
        raise BadResult("both populations are extinct: numAlpha and numBeta are 0")
    return Counts(updates, num_alpha, num_beta)


def read_result_file(path: Path) -> Counts:
    """Return the counts in a file that a container wrote. Raises BadResult.

    The container had this folder to itself: a link, a pipe or a file without end is refused, not followed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise BadResult(
            "it ended without reporting: call `python3 -m knockem.cli report-competition`, or write $KNOCKEM_RESULT"
        ) from None
    except OSError as error:
        raise BadResult(f"the result file cannot be read ({error.strerror})") from error
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BadResult("the result is not a plain file")
        content = file.read(MOST_RESULT_BYTES + 1)
    if len(content) > MOST_RESULT_BYTES:
        raise BadResult(f"the result file is larger than {MOST_RESULT_BYTES} bytes")
    return parse_result(content)


def loads_lenient(line: bytes) -> Any:
    """Parse JSON, and also NaN and Infinity, which Python's writers produce. Raises ValueError."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(line)


def _read_object(content: bytes) -> Mapping[str, Any]:
    try:
        fields = loads_lenient(content)
    except (ValueError, RecursionError) as error:
        start = content[:80].decode("utf-8", "replace")
        raise BadResult(f"the result is not JSON ({error}): it begins {start!r}") from error
    if not isinstance(fields, dict):
        raise BadResult("the result must be a JSON object with updatesElapsed, numAlpha and numBeta")
    return fields


def _number(fields: Mapping[str, Any], name: str) -> float:
    value = fields.get(name)
    if value is None:
        raise BadResult(f"{name} is missing")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadResult(f"{name} must be a number, not {str(value)[:80]!r}")
    if not 0 <= value < math.inf:
        raise BadResult(f"{name} must be a finite number, zero or more, not {value}")
    return value


def _individuals(fields: Mapping[str, Any], name: str) -> int:
    value = _number(fields, name)
    if value > MOST_INDIVIDUALS:
        raise BadResult(f"{name} is larger than can be counted: {value}")
    return round(value)
