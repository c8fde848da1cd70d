"""Long lists, a page at a time: in the order of one field, then of ids, from where the page before ended."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi import Depends, Query
from pydantic import Field

from knockem_dagster.errors import Fault, InvalidInput
from knockem_dagster.mapping_file import shown
from knockem_dagster.records.record import Record, Repository, Value
from knockem_dagster.records.tables import Column
from knockem_dagster.stores.declarations import value_at
from knockem_dagster.stores.documents import Sort

MOST_ITEMS = 1000
ItemT = TypeVar("ItemT")
RecordT = TypeVar("RecordT", bound=Record)


@dataclass(frozen=True, slots=True)
class PlaceInList:
    """Which page of a list is asked for."""

    limit: Annotated[int, Query(ge=1, le=MOST_ITEMS, description="items of a page, at most")] = 100
    cursor: Annotated[str, Query(max_length=2000, description="`next` of the page before; empty for the first")] = ""


At = Annotated[PlaceInList, Depends()]


class Page(Value, Generic[ItemT]):
    """Some items of a list, and where the next ones are."""

    items: tuple[ItemT, ...]
    next: str | None = Field(default=None, description="`cursor` of the next page; null when this is the last")


def cursor_of(*place: str) -> str:
    """Return a place in a list as a text for a URL."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def place_at(cursor: str, parts: int) -> list[str] | None:
    """Return the place that a cursor stands for; None at the beginning. Raises InvalidInput for what is no cursor."""
    if not cursor:
        return None
    try:
        place = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        json.dumps(place, ensure_ascii=False).encode()  # no half of a character
    except (binascii.Error, ValueError, RecursionError):
        place = None
    if not isinstance(place, list) or len(place) != parts or not all(isinstance(part, str) for part in place):
        fault = Fault("cursor", shown(cursor), "what `next` of the page before said is")
        raise InvalidInput("There is no such page.", [fault])
    return [str(part) for part in place]


class TableModel(Value):
    """A page of the rows of a table."""

    name: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str | bool | int | float | None, ...], ...] = Field(description="in the order of the columns")
    number: int = Field(description="rows in all")
    next: str | None = Field(default=None, description="`cursor` of the next page; null when this is the last")


def first_row(at: PlaceInList) -> int:
    """Return the number of the row that a page of a table begins with, from 0. Raises InvalidInput for no cursor."""
    place = place_at(at.cursor, 1)
    if place is None:
        return 0
    if not place[0].isdecimal():
        raise InvalidInput("There is no such page.", [Fault("cursor", shown(at.cursor), "what `next` said is")])
    return int(place[0])


def page_of_all(items: Mapping[str, ItemT], at: PlaceInList) -> Page[ItemT]:
    """Return a page of what is all at hand, in the order of the names. Raises InvalidInput for what is no cursor."""
    place = place_at(at.cursor, 1)
    names = sorted(name for name in items if place is None or name > place[0])
    here = names[: at.limit]
    return Page(items=tuple(items[name] for name in here), next=cursor_of(here[-1]) if len(names) > at.limit else None)


def page_of(
    repository: Repository[RecordT],
    where: Mapping[str, Any],
    at: PlaceInList,
    *,
    field: str,
    newest_first: bool = False,
) -> Page[RecordT]:
    """Return a page of matching records, by a text field and then by id; for an index that has the field last."""
    place = place_at(at.cursor, 2)
    if place is not None:
        where = {**where, field: {"$lte" if newest_first else "$gte": place[0]}}
    direction: Literal[1, -1] = -1 if newest_first else 1
    sort: Sort = [(field, direction), *([("_id", direction)] if field != "_id" else [])]
    found: list[RecordT] = []
    ends = ("", "")
    for document in repository.documents.find(repository.name, where, sort=sort):
        here = (str(value_at(document, field)), str(document["_id"]))
        if place is not None and (here >= (place[0], place[1]) if newest_first else here <= (place[0], place[1])):
            continue
        if len(found) == at.limit:
            return Page(items=tuple(found), next=cursor_of(*ends))
        found.append(repository.model.from_document(document))
        ends = here
    return Page(items=tuple(found))
