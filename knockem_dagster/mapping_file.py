"""Reading YAML, JSON or JSON5 that a stranger wrote: no aliases, a bounded size, nothing but whole characters.

What does not belong here: what the keys mean. YAML is read by the core schema of YAML 1.2: `1:10` and `yes` are text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import pyjson5
import yaml

from knockem_dagster.errors import Fault, InvalidInput

Syntax: TypeAlias = Literal["yaml", "json5", "json"]
"""How a file is written. JSON alone is for those who are not to wait: broken JSON may be YAML that takes minutes."""
_WHOLE: Mapping[Syntax, str] = {
    "yaml": "a whole YAML or JSON mapping without aliases is",
    "json5": "a whole JSON5 mapping is",
    "json": "a whole JSON mapping is",
}
MOST_BYTES = 16 << 20
"""Largest submission file and file of a genome, bytes. A genome must fit in a document besides: intake.py."""
MOST_VALUES = 10_000
"""Keys and values of a submission in YAML. The reader takes 15 microseconds a value, and a genome is one."""
MOST_ALLOWED = 400
"""Characters of what a fault says is allowed, where somebody else's words say it."""
MOST_LEVELS = 64
"""Lists and mappings within one another. A document store allows 100, and puts some around them."""
_BYTES = re.compile("b'([^']*)'")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileKind:
    """A kind of file: what it is called, examples of its keys, its most bytes, and values if it is YAML."""

    name: str
    keys: str
    most_bytes: int
    most_values: int


SUBMISSION = FileKind(
    name="submission file", keys="genome and containerImage", most_bytes=MOST_BYTES, most_values=MOST_VALUES
)


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases, so that a small file cannot unfold into a large one, and with a bounded number of values.

    Plain scalars are what the core schema of YAML 1.2 says (section 10.3.2), not numbers of base 60, dates or "on".
    """

    def __init__(self, text: str, most_values: int) -> None:
        super().__init__(text)
        self._most_values = most_values
        self._num_values = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._num_values += 1
        if self._num_values > self._most_values:
            problem = f"more than {self._most_values} values"
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

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Read an integer: decimal unless it says otherwise, leading zeros or not."""
        return int(node.value, 0 if node.value[:2] in ("0o", "0x") else 10)


_NUMBER = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
_DIGITS = "-+.0123456789"
_PlainLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"|~|null|Null|NULL", ["", *"~nN"]),
    ("bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", [*_DIGITS]),
    ("float", rf"{_NUMBER}|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", [*_DIGITS]),
):
    _PlainLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)
_PlainLoader.add_constructor("tag:yaml.org,2002:int", _PlainLoader.construct_yaml_int)


def read_mapping(data: bytes, kind: FileKind = SUBMISSION, syntax: Syntax = "yaml") -> Mapping[str, Any]:
    """Read a file whose content is a mapping: YAML (or JSON), JSON5, or JSON alone.

    Raises InvalidInput with the one fault that makes it unreadable.
    """
    what = f"The {kind.name} cannot be read."
    if len(data) > kind.most_bytes:
        raise InvalidInput(what, [Fault("(file)", f"more than {kind.most_bytes} bytes", "a smaller file is")])
    try:
        text = data.decode("utf-8")
        content = _read(text, kind, syntax)
    except UnicodeDecodeError as error:
        raise InvalidInput(what, [Fault("(file)", f"byte {error.start} is not UTF-8", "UTF-8 text is")]) from error
    except pyjson5.Json5DecoderException as error:
        problem = _BYTES.sub(r"\1", error.message or "it ends too soon")
        raise InvalidInput(what, [Fault("(file)", one_line(problem), _WHOLE[syntax])]) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        where = getattr(error, "problem_mark", None)
        line = f"line {where.line + 1}: " if where is not None else ""
        problem = getattr(error, "problem", None) or str(error) or type(error).__name__
        raise InvalidInput(what, [Fault("(file)", one_line(f"{line}{problem}"), _WHOLE[syntax])]) from error
    if _levels_of(content) > MOST_LEVELS:
        allowed = f"at most {MOST_LEVELS} are"
        raise InvalidInput(what, [Fault("(file)", "too many lists and mappings within one another", allowed)])
    half = next((text for text in texts_in(content, keys=True) if _SURROGATE.search(text)), None)
    if half is not None:
        allowed = "text of whole characters (no lone \\ud800 to \\udfff) is"
        raise InvalidInput(what, [Fault("(file)", shown(half), allowed)])
    if not isinstance(content, Mapping):
        found = "an empty file" if content is None else type(content).__name__
        raise InvalidInput(what, [Fault("(file)", found, f"a mapping of keys such as {kind.keys} is")])
    return content


def _read(text: str, kind: FileKind, syntax: Syntax) -> Any:
    match syntax:
        case "json":
            return json.loads(text, object_pairs_hook=_mapping_of)
        case "json5":
            return pyjson5.decode(text, maxdepth=MOST_LEVELS)
        case "yaml":
            return _read_json_or_yaml(text, kind.most_values)


def _read_json_or_yaml(text: str, most_values: int) -> Any:
    """Read JSON, or else YAML: most JSON is YAML, but not its way to write characters beyond 16 bits."""
    if text.lstrip().startswith("{"):
        with suppress(json.JSONDecodeError):
            return json.loads(text, object_pairs_hook=_mapping_of)
    loader = _PlainLoader(text, most_values)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _mapping_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, value in pairs:
        if key in mapping:
            raise ValueError(f"the key {key[:40]!r} stands twice")
        mapping[key] = value
    return mapping


def texts_in(content: Any, *, keys: bool = False) -> Iterator[str]:
    """Yield every text in what was read; the keys of mappings, too, if so told."""
    pending = [content]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, (list, tuple, set)):
            pending.extend(value)
        elif isinstance(value, Mapping):
            pending.extend(value.values())
            if keys:
                pending.extend(value.keys())


def _levels_of(content: Any) -> int:
    """Return how many lists and mappings stand within one another, without recursion."""
    levels, here = 0, [content]
    while here:
        within = [value for value in here if isinstance(value, Mapping | list)]
        here = [each for value in within for each in (value.values() if isinstance(value, Mapping) else value)]
        levels += bool(within)
    return levels


def storable_json(value: object) -> object:
    """Return a value that is JSON, and that every store can hold. Raises ValueError for any other."""
    pending = [value]
    while pending:
        match pending.pop():
            case None | bool() | str():
                pass
            case int(number) if number.bit_length() < 64:
                pass
            case float(number) if math.isfinite(number):
                pass
            case list(items):
                pending.extend(items)
            case dict(items) if all(isinstance(key, str) and "\0" not in key for key in items):
                pending.extend(items.values())
            case _:
                raise ValueError("JSON with texts as keys, and whole numbers of 64 bits, is")
    return value


def shown(value: object) -> str:
    """Return a value as a fault shows it: JSON where it can be that, cut to a line."""
    try:
        return one_line(json.dumps(value, default=str))
    except (TypeError, ValueError):
        return f"({type(value).__name__})"  # a mapping with dates as keys, or a number of thousands of digits


def one_line(text: str, *, most: int = 80) -> str:
    """Return a text as a fault shows it: in one line, cut at so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 3] + "..."
