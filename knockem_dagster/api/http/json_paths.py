"""Filters on JSON of users: JSONPath (RFC 9535), but for its functions on regular expressions, which may never end."""

from __future__ import annotations

from jsonpath_rfc9535 import JSONPathEnvironment, JSONPathError

from knockem_dagster.errors import Fault, InvalidInput
from knockem_dagster.mapping_file import one_line, shown


class _Environment(JSONPathEnvironment):
    def setup_function_extensions(self) -> None:
        super().setup_function_extensions()
        for name in ("match", "search"):
            self.function_extensions.pop(name, None)


_ENVIRONMENT = _Environment()


class JsonPath:
    """A path; the empty one is in everything. Raises InvalidInput for what is none."""

    def __init__(self, text: str) -> None:
        try:
            self._query = _ENVIRONMENT.compile(text) if text else None
        except (JSONPathError, RecursionError, ValueError) as error:
            fault = Fault("where", shown(text), one_line(f"a JSONPath (RFC 9535) is: {error}"))
            raise InvalidInput("There is no such filter.", [fault]) from error

    def is_in(self, content: object) -> bool:
        """Tell whether the path finds anything there."""
        if self._query is None:
            return True
        return isinstance(content, dict | list) and next(iter(self._query.finditer(content)), None) is not None
