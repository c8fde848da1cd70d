"""Names that patterns of strangers match, found in time linear in their length whatever the pattern (RE2)."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import islice

import re2

MOST_CHARACTERS = 1000
MOST_MATCHES = 10_000_000
"""Pairs of a pattern and a name that are compared. A comparison takes two microseconds or so."""
_PLAIN = re.compile(r"\^((?:[\w/ ,:;=@%&~'\"<>!-]|\\[^\w])+)(\$?)", re.ASCII)
_ESCAPED = re.compile(r"\\(.)")
_OPTIONS = re2.Options()
_OPTIONS.log_errors = False


class NotAPattern(ValueError):
    """A text that is no pattern; the message tells why."""


class Matcher:
    """Finds names by patterns. The same pattern is matched once; a fixed beginning, or a whole name, is looked up."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._sorted = sorted((name, place) for place, name in enumerate(names))
        self._found: dict[str, tuple[str, ...]] = {}
        self._left = MOST_MATCHES

    def matches(self, pattern: str) -> tuple[str, ...]:
        """Return the names in which the pattern is found anywhere. Raises NotAPattern."""
        if pattern not in self._found:
            self._found[pattern] = self._search(pattern)
        return self._found[pattern]

    def _search(self, pattern: str) -> tuple[str, ...]:
        if len(pattern) > MOST_CHARACTERS:
            raise NotAPattern(f"a pattern of at most {MOST_CHARACTERS:,} characters is")
        if plain := _PLAIN.fullmatch(pattern):
            return self._beginning_with(_ESCAPED.sub(r"\1", plain[1]), is_whole=bool(plain[2]))
        self._left -= len(self._names)
        if self._left < 0:
            allowed = "a pattern of one beginning (^text) or one name (^text$)"
            raise NotAPattern(f"{allowed} is: so many others on so many names would take too long")
        try:
            compiled = re2.compile(pattern, _OPTIONS)
        except re2.error as error:
            problem = error.args[0] if error.args else ""
            why = problem.decode(errors="replace") if isinstance(problem, bytes) else str(problem)
            raise NotAPattern(f"a regular expression (RE2: no lookahead, no backreference) is: {why}") from error
        return tuple(name for name in self._names if compiled.search(name))

    def _beginning_with(self, text: str, *, is_whole: bool) -> tuple[str, ...]:
        places: list[int] = []
        for name, place in islice(self._sorted, bisect_left(self._sorted, (text, 0)), None):
            if not name.startswith(text) or (is_whole and name != text):
                break
            places.append(place)
        return tuple(self._names[place] for place in sorted(places))
