"""Names that patterns of strangers match, found in time linear in their length whatever the pattern (RE2)."""

from __future__ import annotations

from collections.abc import Sequence

import re2

MOST_CHARACTERS = 1000
_OPTIONS = re2.Options()
_OPTIONS.log_errors = False


class NotAPattern(ValueError):
    """A text that is no pattern; the message tells why."""


class Matcher:
    """Finds names by patterns. The same pattern is matched once."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._found: dict[str, tuple[str, ...]] = {}

    def matches(self, pattern: str) -> tuple[str, ...]:
        """Return the names in which the pattern is found anywhere. Raises NotAPattern."""
        if pattern not in self._found:
            self._found[pattern] = self._search(pattern)
        return self._found[pattern]

    def _search(self, pattern: str) -> tuple[str, ...]:
        if len(pattern) > MOST_CHARACTERS:
            raise NotAPattern(f"a pattern of at most {MOST_CHARACTERS:,} characters is")
        try:
            compiled = re2.compile(pattern, _OPTIONS)
        except re2.error as error:
            problem = error.args[0] if error.args else ""
            why = problem.decode(errors="replace") if isinstance(problem, bytes) else str(problem)
            raise NotAPattern(f"a regular expression (RE2: no lookahead, no backreference) is: {why}") from error
        return tuple(name for name in self._names if compiled.search(name))
