"""Any sequence of operations leaves a documents store as it leaves a dictionary."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knockem_dagster.stores.documents import (
    DeleteOne,
    Document,
    Documents,
    Operation,
    Patch,
    PatchOne,
    PutNew,
)

IDS = st.sampled_from(["a", "b", "c", "d"])
GROUPS = st.sampled_from(["x", "y", None])
RANKS = st.integers(-3, 3)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
FLOATS = st.floats(-(2.0**49), 2.0**49, width=32)  # the stand-in for MongoDB rounds larger ones when it patches
VALUES = st.recursive(
    st.none() | st.integers(-(2**53), 2**53) | FLOATS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["k", "l"]), inner, max_size=2),
    max_leaves=6,
)
DOCUMENTS = st.fixed_dictionaries(
    {"_id": IDS, "group": GROUPS, "rank": RANKS, "counts": st.just({"n": 0}), "value": VALUES}
)
PATCHES = st.one_of(
    st.builds(lambda group, rank: Patch(set={"group": group, "rank": rank}), GROUPS, RANKS),
    st.builds(lambda value: Patch(set={"value": value, "new.value": value}), VALUES),
    st.builds(lambda n: Patch(increment={"counts.n": n, "rank": 1}), RANKS),
    st.builds(lambda n: Patch(maximum={"rank": n}, unset=["value", "counts.m"]), RANKS),
)
OPERATIONS = st.one_of(
    st.builds(lambda document: PutNew("things", document), DOCUMENTS),
    st.builds(lambda id, patch: PatchOne("things", id, patch), IDS, PATCHES),
    st.builds(lambda id: DeleteOne("things", id), IDS),
)


class Model:
    """The documents store everybody has in mind: a dictionary."""

    def __init__(self) -> None:
        self.stored: dict[str, Document] = {}

    def apply(self, operation: Operation) -> bool:
        match operation:
            case PutNew(_, document):
                if document["_id"] in self.stored:
                    return False
                self.stored[document["_id"]] = copy.deepcopy(document)
                return True
            case PatchOne(_, id, patch):
                if id in self.stored:
                    self._change(self.stored[id], patch)
                return id in self.stored
            case DeleteOne(_, id):
                return self.stored.pop(id, None) is not None

    def claim(self, group: str | None, lowest: int, patch: Patch) -> Document | None:
        for document in sorted(self.stored.values(), key=lambda each: (each["rank"], each["_id"])):
            if document["group"] == group and document["rank"] >= lowest:
                self._change(document, patch)
                return document
        return None

    @staticmethod
    def _change(document: dict[str, Any], patch: Patch) -> None:
        def holder(path: str) -> tuple[dict[str, Any], str]:
            first, _, second = path.partition(".")
            return (document.setdefault(first, {}), second) if second else (document, first)

        for path, value in patch.set.items():
            place, name = holder(path)
            place[name] = copy.deepcopy(value)
        for path in patch.unset:
            place, name = holder(path)
            place.pop(name, None)
        for path, amount in patch.increment.items():
            place, name = holder(path)
            place[name] = place.get(name, 0) + amount
        for path, bound in patch.maximum.items():
            place, name = holder(path)
            place[name] = max(place[name], bound)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(st.lists(OPERATIONS, max_size=6), max_size=4),
    group=GROUPS.filter(bool),
    lowest=RANKS,
    patch=PATCHES,
)
def test_a_store_is_a_dictionary(
    documents: Documents, batches: list[list[Operation]], group: str, lowest: int, patch: Patch
) -> None:
    documents.delete("things", {})
    model = Model()
    for batch in batches:
        assert documents.bulk(batch) == [model.apply(operation) for operation in batch]
    assert documents.get_many("things", ["a", "b", "c", "d"]) == model.stored

    where = {"group": group, "rank": {"$gte": lowest}}
    matching = [each for each in model.stored.values() if each["group"] == group and each["rank"] >= lowest]
    found = list(documents.find("things", where, sort=[("rank", 1), ("_id", 1)]))
    assert found == sorted(matching, key=lambda each: (each["rank"], each["_id"]))
    assert documents.count("things", where) == len(matching)

    claimed = documents.claim("things", where, patch, sort=[("rank", 1), ("_id", 1)])
    assert claimed == model.claim(group, lowest, patch)
    assert {each["_id"]: each for each in documents.find("things", {})} == model.stored
