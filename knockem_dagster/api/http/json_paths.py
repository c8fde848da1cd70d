"""Filters on JSON of users: JSONPath (RFC 9535), but for what may take long.

That are functions on regular expressions, and what looks at everything again for each thing it looks at: filters within
filters, `..`, and `$` within a filter. What is left takes time in proportion to the data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TypeVar

from jsonpath_rfc9535 import JSONPathEnvironment, JSONPathError

from knockem_dagster.errors import Fault, InvalidInput
from knockem_dagster.mapping_file import one_line, shown
from knockem_dagster.records.job_graph import UserDataRecord
from knockem_dagster.records.jobs import EventRecord

DataT = TypeVar("DataT", EventRecord, UserDataRecord)


class _Environment(JSONPathEnvironment):
    def setup_function_extensions(self) -> None:
        super().setup_function_extensions()
        for name in ("match", "search"):
            self.function_extensions.pop(name, None)


_ENVIRONMENT = _Environment()
_QUOTED = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""")


class JsonPath:
    """A path; the empty one is in everything. Raises InvalidInput for what is none."""

    def __init__(self, text: str) -> None:
        plain = _QUOTED.sub("''", text)
        if ".." in plain or plain.count("?") > 1 or "$" in plain[1:]:
            allowed = "a path with at most one filter, without .., and with $ at its beginning only, is"
            raise InvalidInput("There is no such filter.", [Fault("where", shown(text), allowed)])
        try:
            self._query = _ENVIRONMENT.compile(text) if text else None
        except (JSONPathError, RecursionError, ValueError) as error:
            fault = Fault("where", shown(text), one_line(f"a JSONPath (RFC 9535) is: {error}"))
            raise InvalidInput("There is no such filter.", [fault]) from error

    def chosen(self, documents: Iterable[DataT]) -> Iterator[DataT]:
        """Yield those documents in whose data the path finds anything."""
        return (each for each in documents if self.is_in(each.data))

    def is_in(self, content: object) -> bool:
        """Tell whether the path finds anything there."""
        if self._query is None:
            return True
        return isinstance(content, dict | list) and next(iter(self._query.finditer(content)), None) is not None
