"""Reading YAML or JSON that a stranger wrote: no aliases, a bounded size, nothing but whole characters.

What does not belong here: what the keys mean.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import yaml

from knockem_dagster.errors import Fault, InvalidInput

MOST_BYTES = 16 << 20
"""Largest submission file and file of a genome, bytes. A genome must fit in a document besides: intake.py."""
MOST_VALUES = 10_000
"""Keys and values of a YAML file."""
_SURROGATE = re.compile("[\ud800-\udfff]")


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases, so that a small file cannot unfold into a large one, and with a bounded number of values.

    The reader takes 15 microseconds a value: a large genome is one value, a list of millions is no submission.
    """

    num_values = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.num_values += 1
        if self.num_values > MOST_VALUES:
            problem = f"more than {MOST_VALUES} values"
            raise yaml.constructor.ConstructorError(None, None, problem, self.peek_event().start_mark)
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.constructor.ConstructorError(None, None, "aliases (*name) are not allowed", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"the key {key.value[:40]!r} stands twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_mapping(data: bytes) -> Mapping[str, Any]:
    """Read a file whose content is a mapping. Raises InvalidInput with the one fault that makes it unreadable."""
    what = "The submission file cannot be read."
    if len(data) > MOST_BYTES:
        raise InvalidInput(what, [Fault("(file)", f"more than {MOST_BYTES} bytes", "a smaller file is")])
    try:
        content = _read_json_or_yaml(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidInput(what, [Fault("(file)", f"byte {error.start} is not UTF-8", "UTF-8 text is")]) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        where = getattr(error, "problem_mark", None)
        line = f"line {where.line + 1}: " if where is not None else ""
        problem = getattr(error, "problem", None) or str(error) or type(error).__name__
        fault = Fault("(file)", one_line(f"{line}{problem}"), "a whole YAML or JSON mapping without aliases is")
        raise InvalidInput(what, [fault]) from error
    half = next((text for text in _texts(content) if _SURROGATE.search(text)), None)
    if half is not None:
        allowed = "text of whole characters (no lone \\ud800 to \\udfff) is"
        raise InvalidInput(what, [Fault("(file)", shown(half), allowed)])
    if not isinstance(content, Mapping):
        found = "an empty file" if content is None else type(content).__name__
        raise InvalidInput(what, [Fault("(file)", found, "a mapping of keys such as genome and containerImage is")])
    return content


def _read_json_or_yaml(text: str) -> Any:
    """Read JSON, or else YAML: most JSON is YAML, but not its way to write characters beyond 16 bits."""
    if text.lstrip().startswith("{"):
        with suppress(json.JSONDecodeError):
            return json.loads(text, object_pairs_hook=_mapping_of)
    return yaml.load(text, Loader=_PlainLoader)  # a SafeLoader


def _mapping_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, value in pairs:
        if key in mapping:
            raise ValueError(f"the key {key[:40]!r} stands twice")
        mapping[key] = value
    return mapping


def _texts(content: Any) -> Iterator[str]:
    """Yield every text in what was read, keys included."""
    pending = [content]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            pending.extend([*value.keys(), *value.values()])
        elif isinstance(value, list | tuple | set):
            pending.extend(value)


def shown(value: object) -> str:
    """Return a value as a fault shows it: JSON where it can be that, cut to a line."""
    try:
        return one_line(json.dumps(value, default=str))
    except (TypeError, ValueError):
        return f"({type(value).__name__})"  # a mapping with dates as keys, or a number of thousands of digits


def one_line(text: str) -> str:
    """Return a text as a fault shows it: in one line, cut at 80 characters."""
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:77] + "..."
