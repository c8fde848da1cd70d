"""Patches applied to a document in memory, with the meaning MongoDB gives the same operators.

Sources of the semantics: the MongoDB manual's pages on $set, $unset, $inc, $max and $addToSet. One restriction
holds on every store: a path leads through objects, never through lists.
"""

from __future__ import annotations

from typing import Any, cast

import orjson

from knockem_dagster.errors import StoreError
from knockem_dagster.stores.documents import Document, Patch


def apply_patch(document: Document, patch: Patch) -> None:
    """Change a document in place; StoreError, naming the field, if it does not hold what the patch needs."""
    for path, value in patch.set.items():
        parent, name = _parent(document, path)
        parent[name] = value
    for path in patch.unset:
        _remove(document, path)
    for path, amount in patch.increment.items():
        parent, name = _parent(document, path)
        current = parent.get(name, 0)
        if isinstance(current, bool) or not isinstance(current, (int, float)):
            raise _unsuited(document, path, current, "increment", "a number")
        parent[name] = current + amount
    for path, bound in patch.maximum.items():
        parent, name = _parent(document, path)
        if name not in parent or _order(parent[name]) < _order(bound):
            parent[name] = bound
    for path, member in patch.add_to_set.items():
        parent, name = _parent(document, path)
        members = parent.setdefault(name, [])
        if not isinstance(members, list):
            raise _unsuited(document, path, members, "add to", "a list")
        if not any(_equal(member, present) for present in cast("list[Any]", members)):
            cast("list[Any]", members).append(member)


def _parent(document: Document, path: str) -> tuple[dict[str, Any], str]:
    *names, last = path.split(".")
    parent = document
    for name in names:
        child = parent.setdefault(name, {})
        if not isinstance(child, dict):
            raise _unsuited(document, path, child, "reach", "an object on the way")
        parent = cast("dict[str, Any]", child)
    return parent, last


def _remove(document: Document, path: str) -> None:
    *names, last = path.split(".")
    parent: Any = document
    for name in names:
        parent = cast("dict[str, Any]", parent).get(name)
        if not isinstance(parent, dict):
            return
    cast("dict[str, Any]", parent).pop(last, None)


def _order(value: object) -> tuple[int, Any]:
    """MongoDB's order between types: null, numbers, text, objects, lists, booleans."""
    match value:
        case None:
            return 0, 0
        case bool():
            return 5, value
        case int() | float():
            return 1, value
        case str():
            return 2, value
        case dict():
            return 3, 0
        case _:
            return 4, 0


def _equal(first: object, second: object) -> bool:
    if isinstance(first, (int, float)) and isinstance(second, (int, float)):
        return first == second and isinstance(first, bool) == isinstance(second, bool)
    return orjson.dumps(first) == orjson.dumps(second)


def _unsuited(document: Document, path: str, found: object, deed: str, needed: str) -> StoreError:
    return StoreError(
        f"cannot {deed} {path} of document {document['_id']}: it holds {type(found).__name__} {found!r:.60}, "
        f"and {needed} is needed; nothing was changed"
    )
