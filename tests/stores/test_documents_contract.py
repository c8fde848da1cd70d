"""What every documents store promises, on each of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from knockem_dagster.errors import StoreError
from knockem_dagster.stores.documents import DeleteOne, Document, Documents, Operation, Patch, PatchOne, PutNew, Where
from tests.services.document_stores import (
    DocumentsAddress,
    Processes,
    claim_all,
    increment_together,
    put_same,
    put_same_names,
    start_writing_batches,
)

ignores_bad_patches = pytest.mark.stand_in_cannot("refuse an update that does not suit the document")


def things(count: int, **fields: object) -> list[Document]:
    return [{"_id": f"{n:05}", "group": "g", "rank": n, **fields} for n in range(count)]


def put_all(documents: Documents, collection: str, stored: list[Document]) -> None:
    assert all(documents.bulk([PutNew(collection, document) for document in stored]))


def ids(found: Iterator[Document]) -> list[str]:
    return [document["_id"] for document in found]


class TestGetAndPut:
    def test_a_document_comes_back_as_it_was(self, documents: Documents) -> None:
        document = {
            "_id": "ä/1 2",
            "text": 'naïve 𝄞 "quoted" \\u0000',
            "whole": 2**62,
            "negative": -(2**63),
            "real": 0.1,
            "nothing": None,
            "nested": {"list": [1, "two", {"three": [[]]}], "empty": {}},
        }
        assert documents.put_new("plain", document)
        assert documents.get("plain", "ä/1 2") == document

    @pytest.mark.stand_in_cannot("keep true apart from 1")
    def test_booleans_stay_booleans(self, documents: Documents) -> None:
        documents.put_new("plain", {"_id": "1", "yes": True, "no": False, "one": 1})
        found = documents.get("plain", "1")
        assert found is not None
        assert [type(found[name]) for name in ("yes", "no", "one")] == [bool, bool, int]

    def test_what_is_missing_is_none(self, documents: Documents) -> None:
        assert documents.get("plain", "nobody") is None

    def test_the_same_id_again_is_false_and_changes_nothing(self, documents: Documents) -> None:
        assert documents.put_new("plain", {"_id": "1", "n": 1})
        assert not documents.put_new("plain", {"_id": "1", "n": 2})
        assert documents.get("plain", "1") == {"_id": "1", "n": 1}

    def test_a_taken_unique_value_is_false_and_changes_nothing(self, documents: Documents) -> None:
        assert documents.put_new("names", {"_id": "1", "name": "a", "owner": "x", "number": 1})
        assert not documents.put_new("names", {"_id": "2", "name": "a", "owner": "x", "number": 2})
        assert not documents.put_new("names", {"_id": "3", "name": "b", "owner": "x", "number": 1})
        assert documents.put_new("names", {"_id": "4", "name": "b", "owner": "x", "number": 2})
        assert documents.count("names", {}) == 2

    def test_many_come_back_by_id_and_the_missing_are_left_out(self, documents: Documents) -> None:
        put_all(documents, "things", things(600))
        wanted = [f"{n:05}" for n in range(300, 12_500)]
        found = documents.get_many("things", wanted)
        assert sorted(found) == wanted[:300]
        assert found["00300"]["rank"] == 300
        assert documents.get_many("things", []) == {}

    @pytest.mark.parametrize(
        ("document", "complaint"),
        [
            ({"name": "x"}, "string _id"),
            ({"_id": 7}, "string _id"),
            ({"_id": ""}, "string _id"),
            ({"_id": "1", "score": float("nan")}, "NaN"),
            ({"_id": "1", "deep": [{"score": float("inf")}]}, "infinity"),
            ({"_id": "1", "made": object()}, "not JSON"),
            ({"_id": "1", "text": "\ud800"}, "not JSON"),
            ({"_id": "1", "text": "x" * 17_000_000}, "object store"),
            ({"_id": "1", "group": ["a"]}, "indexed"),
            ({"_id": "1", "place": {"shelf": {}}}, "place.shelf"),
        ],
    )
    def test_what_cannot_be_kept_faithfully_is_refused(
        self, documents: Documents, document: Document, complaint: str
    ) -> None:
        with pytest.raises(StoreError, match=complaint):
            documents.put_new("things", document)
        with pytest.raises(StoreError, match=complaint):
            documents.bulk([PutNew("things", {"_id": "before"}), PutNew("things", document)])
        assert documents.count("things", {}) == 0

    def test_a_unique_field_must_have_a_value(self, documents: Documents) -> None:
        with pytest.raises(StoreError, match="number of names 1 is in a unique index"):
            documents.put_new("names", {"_id": "1", "name": "a", "owner": "x"})


class TestPatch:
    def test_every_kind_of_change_at_once(self, documents: Documents) -> None:
        documents.put_new(
            "plain", {"_id": "1", "n": 1, "gone": 1, "tags": ["a"], "last": "2026-01-01", "deep": {"x": 1}}
        )
        patch = Patch(
            set={"deep.y.z": [1], "name": "new"},
            unset=["gone", "deep.x", "never.there"],
            increment={"n": 2, "real": 0.5, "counts.failed": 1},
            maximum={"last": "2026-02-01", "top": 3},
            add_to_set={"tags": "b"},
        )
        expected = {
            "_id": "1",
            "n": 3,
            "real": 0.5,
            "counts": {"failed": 1},
            "tags": ["a", "b"],
            "last": "2026-02-01",
            "top": 3,
            "deep": {"y": {"z": [1]}},
            "name": "new",
        }
        assert documents.patch("plain", "1", patch) == expected
        assert documents.get("plain", "1") == expected

    def test_a_lower_maximum_and_a_present_member_change_nothing(self, documents: Documents) -> None:
        document = {"_id": "1", "top": 5, "last": "b", "tags": ["a", {"k": [1]}]}
        documents.put_new("plain", document)
        patch = Patch(maximum={"top": 4, "last": "a"}, add_to_set={"tags": "a"})
        assert documents.patch("plain", "1", patch) == document
        assert documents.patch("plain", "1", Patch(add_to_set={"tags": {"k": [1]}})) == document

    @pytest.mark.stand_in_cannot("begin a list with $addToSet")
    def test_the_first_member_begins_the_list(self, documents: Documents) -> None:
        documents.put_new("plain", {"_id": "1"})
        add = Patch(add_to_set={"deep.tags": {"k": 1}})
        assert documents.patch("plain", "1", add) == {"_id": "1", "deep": {"tags": [{"k": 1}]}}

    def test_a_missing_document_is_none_and_is_not_made(self, documents: Documents) -> None:
        assert documents.patch("plain", "1", Patch(set={"x": 1})) is None
        assert documents.get("plain", "1") is None

    @ignores_bad_patches
    @pytest.mark.parametrize(
        "patch",
        [Patch(increment={"text": 1}), Patch(set={"text.below": 1}), Patch(add_to_set={"text": 1}),
         Patch(increment={"nothing": 1})],
    )  # fmt: skip
    def test_a_patch_that_does_not_suit_the_document_is_refused_whole(self, documents: Documents, patch: Patch) -> None:
        document = {"_id": "1", "text": "t", "n": 1, "nothing": None}
        documents.put_new("plain", document)
        both = Patch(set={**patch.set, "n": 2}, increment=patch.increment, add_to_set=patch.add_to_set)
        with pytest.raises(StoreError):
            documents.patch("plain", "1", both)
        assert documents.get("plain", "1") == document

    @pytest.mark.stand_in_cannot("say that a patch broke a unique index")
    def test_a_patch_to_a_taken_unique_value_is_refused(self, documents: Documents) -> None:
        put_all(documents, "names", [{"_id": n, "name": n, "owner": n, "number": 1} for n in "ab"])
        with pytest.raises(StoreError, match="unique index"):
            documents.patch("names", "b", Patch(set={"name": "a"}))
        assert documents.get("names", "b") == {"_id": "b", "name": "b", "owner": "b", "number": 1}

    @pytest.mark.parametrize(
        ("patch", "complaint"),
        [
            (Patch(), "changes nothing"),
            (Patch(set={"_id": "2"}), "_id"),
            (Patch(set={"a": 1}, increment={"a": 1}), "a twice"),
            (Patch(set={"a": {}, "a.b": 1}), "a.b twice"),
            (Patch(set={"$where": 1}), "name a field"),
            (Patch(set={"a..b": 1}), "name a field"),
            (Patch(set={"a": float("nan")}), "NaN"),
            (Patch(unset=["name"]), "unique index"),
            (Patch(set={"name": None}), "unique index"),
            (Patch(set={"name": [1]}), "indexed"),
        ],
    )
    def test_a_patch_no_store_could_apply_is_refused(self, documents: Documents, patch: Patch, complaint: str) -> None:
        document = {"_id": "1", "name": "a", "owner": "x", "number": 1}
        documents.put_new("names", document)
        with pytest.raises(StoreError, match=complaint):
            documents.patch("names", "1", patch)
        with pytest.raises(StoreError, match=complaint):
            documents.bulk([PatchOne("names", "1", Patch(set={"z": 1})), PatchOne("names", "1", patch)])
        assert documents.get("names", "1") == document


class TestFind:
    @pytest.mark.parametrize(
        ("where", "expected"),
        [
            ({"group": "a"}, "024"),
            ({"group": "a", "rank": {"$gt": 0, "$lte": 4}}, "24"),
            ({"group": "a", "rank": {"$gte": 2, "$lt": 4}}, "2"),
            ({"group": {"$in": ["b", "none"]}, "rank": {"$in": [1, 5, 7]}}, "15"),
            ({"group": {"$in": []}}, ""),
            pytest.param({"group": None}, "67", marks=pytest.mark.stand_in_cannot("count documents without the field")),
            ({"state": "s", "rank": 3}, "3"),
            ({"place.shelf": {"$gte": "k"}}, "45"),
            ({"_id": "3"}, "3"),
            ({"_id": {"$gte": "2", "$lt": "4"}}, "23"),
            ({"_id": {"$in": ["1", "2", "9"]}, "place.shelf": None}, "12"),
            ({"_id": "3", "unindexed": 3}, "3"),
            ({"_id": "3", "unindexed": 4}, ""),
            ({}, "01234567"),
        ],
    )
    def test_conditions_select(self, documents: Documents, where: Where, expected: str) -> None:
        for n in range(6):
            document: Document = {"_id": str(n), "group": "ab"[n % 2], "rank": n, "state": "s", "unindexed": n}
            documents.put_new("things", document | ({"place": {"shelf": "k" * n}} if n > 3 else {}))
        documents.put_new("things", {"_id": "6", "group": None})
        documents.put_new("things", {"_id": "7"})
        assert sorted(ids(documents.find("things", where))) == list(expected)
        assert documents.count("things", where) == len(expected)
        assert documents.delete("things", where) == len(expected)
        assert documents.count("things", {}) == 8 - len(expected)

    def test_sort_and_limit(self, documents: Documents) -> None:
        put_all(documents, "things", things(20))
        where = {"group": "g"}
        assert ids(documents.find("things", where, sort=[("rank", -1)], limit=3)) == ["00019", "00018", "00017"]
        assert ids(documents.find("things", where, sort=[("rank", 1)], limit=1)) == ["00000"]
        assert ids(documents.find("things", {}, sort=[("_id", -1)], limit=1)) == ["00019"]
        assert ids(documents.find("things", {}, sort=[("group", 1), ("rank", -1)], limit=1)) == ["00019"]
        assert ids(documents.find("things", where, limit=0)) == []
        assert len(ids(documents.find("things", where, limit=7))) == 7

    def test_nulls_numbers_and_text_sort_in_that_order(self, documents: Documents) -> None:
        for n, rank in enumerate(["b", 10, None, 9.5, "B", "é", "z"]):
            documents.put_new("things", {"_id": str(n), "group": "g", "rank": rank})
        found = [document["rank"] for document in documents.find("things", {"group": "g"}, sort=[("rank", 1)])]
        assert found == [None, 9.5, 10, "B", "b", "z", "é"]

    def test_more_than_a_page_comes_whole_and_in_order(self, documents: Documents) -> None:
        put_all(documents, "things", things(1000))
        found = ids(documents.find("things", {"group": "g"}, sort=[("rank", 1)]))
        assert found == [f"{n:05}" for n in range(1000)]

    def test_one_may_write_while_reading_and_stop_in_the_middle(self, documents: Documents) -> None:
        put_all(documents, "things", things(700))
        for document in documents.find("things", {"group": "g"}, sort=[("rank", 1)]):
            documents.patch("things", document["_id"], Patch(set={"state": "seen"}))
            if document["rank"] == 599:
                break
        assert documents.count("things", {"state": "seen"}) == 600

    @pytest.mark.parametrize(
        ("where", "sort", "named"),
        [
            ({"unindexed": 1}, [], "unindexed"),
            ({"group": "a", "unindexed": 1}, [], "unindexed"),
            ({"rank": 1}, [], "rank"),
            ({"group": "a", "state": "b"}, [], "group, state"),
            ({"group": "a"}, [("unindexed", 1)], "unindexed"),
            ({}, [("rank", 1)], "rank"),
            ({"_id": {"$gt": "1"}, "unindexed": 1}, [], "unindexed"),
        ],
    )
    def test_a_query_without_an_index_is_refused_by_name(
        self, documents: Documents, where: Where, sort: list[tuple[str, int]], named: str
    ) -> None:
        complaint = f"collection things has no index for a query by {named};"
        with pytest.raises(StoreError, match=complaint):
            documents.find("things", where, sort=sort)
        with pytest.raises(StoreError, match=complaint):
            documents.claim("things", where, Patch(set={"x": 1}), sort=sort)
        if not sort:
            with pytest.raises(StoreError, match=complaint):
                documents.count("things", where)
            with pytest.raises(StoreError, match=complaint):
                documents.delete("things", where)

    @pytest.mark.parametrize(
        "where",
        [
            {"group": {"$ne": 1}},
            {"group": {"$gt": None}},
            {"group": {"$in": [None]}},
            {"group": {"$in": "abc"}},
            {"group": {}},
            {"group": {"shelf": 1}},
            {"group": ["a"]},
            {"group": {"$in": [["a"]]}},
            {"$where": "1"},
            {"group') OR 1=1 --": 1},
            {"_id": 5},
        ],
    )
    def test_a_condition_of_another_kind_is_refused(self, documents: Documents, where: Where) -> None:
        with pytest.raises(StoreError):
            documents.find("things", where)

    def test_an_undeclared_collection_is_refused_by_name(self, documents: Documents) -> None:
        calls = (
            lambda: documents.get("others", "1"),
            lambda: documents.put_new("others", {"_id": "1"}),
            lambda: documents.patch("others", "1", Patch(set={"x": 1})),
            lambda: documents.find("others", {}),
            lambda: documents.bulk([DeleteOne("others", "1")]),
        )
        for call in calls:
            with pytest.raises(StoreError, match="'others' is not declared"):
                call()


class TestBulk:
    def test_operations_apply_in_order_and_each_answers(self, documents: Documents) -> None:
        documents.put_new("things", {"_id": "old", "n": 1})
        operations: list[Operation] = [
            PatchOne("things", "new", Patch(set={"n": 0})),
            PutNew("things", {"_id": "new", "n": 1}),
            PatchOne("things", "new", Patch(increment={"n": 10})),
            PutNew("things", {"_id": "new", "n": 99}),
            PutNew("plain", {"_id": "new"}),
            DeleteOne("things", "old"),
            DeleteOne("things", "old"),
            PatchOne("things", "old", Patch(set={"n": 2})),
            PutNew("things", {"_id": "old", "n": 3}),
            PatchOne("things", "nobody", Patch(set={"n": 2})),
        ]
        applied = documents.bulk(operations)
        assert applied == [False, True, True, False, True, True, False, False, True, False]
        assert documents.get("things", "new") == {"_id": "new", "n": 11}
        assert documents.get("things", "old") == {"_id": "old", "n": 3}
        assert documents.bulk([]) == []

    def test_taken_unique_values_do_not_stop_what_follows(self, documents: Documents) -> None:
        def name(id: str, name: str) -> PutNew:
            return PutNew("names", {"_id": id, "name": name, "owner": id, "number": 1})

        documents.put_new("names", name("0", "a").document)
        operations = [name("1", "a"), name("2", "b"), name("3", "b"), name("2", "c"), name("4", "c")]
        assert documents.bulk(operations) == [False, True, False, False, True]
        assert sorted(ids(documents.find("names", {}))) == ["0", "2", "4"]

    @ignores_bad_patches
    def test_a_patch_that_does_not_suit_its_document_fails_the_batch(self, documents: Documents) -> None:
        documents.put_new("plain", {"_id": "1", "text": "t"})
        with pytest.raises(StoreError):
            documents.bulk([PutNew("plain", {"_id": "2"}), PatchOne("plain", "1", Patch(increment={"text": 1}))])
        assert documents.get("plain", "1") == {"_id": "1", "text": "t"}


class TestClaim:
    def test_the_first_that_matches_is_taken_once(self, documents: Documents) -> None:
        put_all(documents, "things", things(3, state="free"))
        patch = Patch(set={"state": "taken"})
        taken = [documents.claim("things", {"state": "free"}, patch, sort=[("rank", -1)]) for _ in range(4)]
        assert [thing and thing["_id"] for thing in taken] == ["00002", "00001", "00000", None]
        assert taken[0] == {"_id": "00002", "group": "g", "rank": 2, "state": "taken"}

    def test_an_id_with_a_condition_compares_and_sets(self, documents: Documents) -> None:
        documents.put_new("plain", {"_id": "1", "revision": 1})
        step = Patch(increment={"revision": 1})
        assert documents.claim("plain", {"_id": "1", "revision": 1}, step) == {"_id": "1", "revision": 2}
        assert documents.claim("plain", {"_id": "1", "revision": 1}, step) is None


class TestTogether:
    """Several processes on one store."""

    def test_each_thing_is_claimed_once(self, address: DocumentsAddress, processes: Processes) -> None:
        documents = address.open()
        put_all(documents, "things", things(120, state="free"))
        claimed = processes.run(claim_all, address)
        assert sorted(claimed) == [f"{n:05}" for n in range(120)]
        assert {thing["times"] for thing in documents.find("things", {"state": "taken"})} == {1}
        documents.close()

    def test_each_id_is_new_once(self, address: DocumentsAddress, processes: Processes) -> None:
        new = processes.run(put_same, address)
        assert sorted(new) == [f"{n:03}" for n in range(60)]

    def test_each_unique_value_is_won_once(self, address: DocumentsAddress, processes: Processes) -> None:
        won = processes.run(put_same_names, address)
        assert sorted(won) == [f"{n:03}" for n in range(60)]

    def test_no_increment_is_lost(self, address: DocumentsAddress, processes: Processes) -> None:
        documents = address.open()
        documents.put_new("things", {"_id": "counter", "by": []})
        processes.run(increment_together, address)
        counter = documents.get("things", "counter")
        assert counter is not None
        assert (counter["total"], sorted(counter["by"])) == (180, [0, 1, 2])
        documents.close()

    @pytest.mark.parametrize("batches", [1, 4])
    def test_a_process_killed_in_a_batch_leaves_all_or_a_beginning_of_it(
        self, address: DocumentsAddress, batches: int
    ) -> None:
        writer = start_writing_batches(address, size=1000)
        try:
            assert writer.stdout is not None
            acknowledged = [int(writer.stdout.readline()) for _ in range(batches)]
        finally:
            writer.kill()  # it is in the middle of its next batch now
            writer.communicate()
        documents = address.open()
        for batch in acknowledged:
            assert documents.count("things", {"group": batch}) == 1000
        cut = [document["rank"] for document in documents.find("things", {"group": batches}, sort=[("rank", 1)])]
        if address.path is not None:
            assert len(cut) in {0, 1000}
        assert cut == list(range(len(cut)))
        assert documents.put_new("things", {"_id": "after"})
        documents.close()

    def test_threads_share_one_store(self, documents: Documents) -> None:
        documents.put_new("things", {"_id": "counter"})

        def add() -> None:
            for _ in range(50):
                documents.patch("things", "counter", Patch(increment={"total": 1}))

        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counter = documents.get("things", "counter")
        assert counter is not None
        assert counter["total"] == 200
