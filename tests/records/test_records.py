"""Documents as other programs read them: the seed's names, deterministic ids, and the lease."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockem_dagster.containers.attempts import Attempt, AttemptOutcome, GenomeVariant, Outcome
from knockem_dagster.errors import KnockemError, NotFound, SettingsError
from knockem_dagster.knockout.competitions import Competition, Counts
from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.records import record as record_module
from knockem_dagster.records.assays import NEEDS, AssayType, with_needs
from knockem_dagster.records.catalog import COLLECTIONS, Records
from knockem_dagster.records.competitions import (
    CompetitionAttemptResultRecord,
    CompetitionResultRecord,
    CountsValue,
    competition_id,
    competition_seed,
)
from knockem_dagster.records.genomes import GenomeRecord, wild_type
from knockem_dagster.records.record import derived_id, revision
from knockem_dagster.records.submissions import State, SubmissionRecord
from knockem_dagster.records.tables import TABLES, describe_tables
from knockem_dagster.stores.sqlite_documents import SqliteDocuments

ID = "22222222-0000-5000-8000-000000000000"


def submission(id: str = ID, **changes: Any) -> SubmissionRecord:
    fields: dict[str, Any] = {
        "id": id,
        "assay_types": (AssayType.NULLDIST,),
        "assay_ids": ("a",),
        "container_image": "explicit",
        "container_env": {"EXPLICIT_MODE": "exact"},
        "genome_id": "g",
        "max_active": 8,
        "max_fail": 3,
        "user_email": "darwin@example.org",
        "timeout_seconds": 10,
        "seed": 7,
        "skeletons": 2,
        "tolerated_untested": 0.05,
        "container_runtime": "process",
        "image_digest": "sha256:0",
        "num_sites": 10,
        "content_digest": "0",
    }
    return SubmissionRecord(**{**fields, **changes})


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    opened = Records(SqliteDocuments(tmp_path / "documents.sqlite", COLLECTIONS))
    yield opened
    opened.close()


SEED_FIELDS = {
    "submissions": "assayIds assayTypes containerEnv containerImage datetime genomeId id maxActive maxFail "
    "revisionKnockem userEmail",
    "genomes": "content datetime isEphemeral id numSites revisionKnockem userEmail",
    "competitionResults": "assayId competitionAttemptId datetime id numKnockoutSites result revisionKnockem "
    "submissionId userEmail",
    "competitionAttemptResults": "assayId competitionId datetime id revisionKnockem result submissionId userEmail",
}


def test_stored_names_are_the_seeds() -> None:
    counts = CountsValue.of(Counts(3.0, 4, 5))
    attempt = _attempt()
    stored: dict[str, dict[str, Any]] = {
        "submissions": submission().to_document(),
        "genomes": wild_type(ID, "x", num_sites=3, user_email="a@example.org").to_document(),
        "competitionResults": CompetitionResultRecord(
            id="c", submission_id=ID, assay_id="a", competition_attempt_id="t", genome_id_beta="b",
            num_knockout_sites=2, result=counts, user_email="a@example.org",
        ).to_document(),
        "competitionAttemptResults": CompetitionAttemptResultRecord.of(
            AttemptOutcome(attempt, Outcome.SUCCEEDED, counts=Counts(3.0, 4, 5)), user_email="a@example.org"
        ).to_document(),
    }  # fmt: skip
    for collection, fields in SEED_FIELDS.items():
        assert set(fields.split()) <= stored[collection].keys(), collection
        assert stored[collection]["_id"] == stored[collection]["id"]
    assert stored["competitionResults"]["result"] == {"updatesElapsed": 3.0, "numAlpha": 4, "numBeta": 5}


def test_the_eight_collections_of_the_seed_are_declared() -> None:
    assert {
        "genomes", "submissions", "assays", "assayResults",
        "competitions", "competitionResults", "competitionAttempts", "competitionAttemptResults",
    } <= {collection.name for collection in COLLECTIONS}  # fmt: skip


def test_record_comes_back_as_it_was_stored(records: Records) -> None:
    original = submission()
    assert records.submissions.add(original)
    assert records.submissions.get(ID) == original
    assert not records.submissions.add(original)


def test_missing_record_is_named(records: Records) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        records.assays.get("nowhere")


@given(st.lists(st.text(max_size=5), min_size=1, max_size=4))
def test_derived_ids_are_uuids_and_depend_on_the_parts(parts: list[str]) -> None:
    id = derived_id(*parts)
    assert str(uuid.UUID(id)) == id
    assert uuid.UUID(id).version == 5
    assert derived_id(*parts) == id
    assert derived_id(*parts, "more") != id


def test_competition_id_and_seed_depend_on_everything_asked() -> None:
    nothing, one, two = (KnockoutSet.of(sites, 9) for sites in ([], [1], [2]))
    asked = [
        Competition(nothing, one, "screen"),
        Competition(nothing, two, "screen"),
        Competition(one, two, "screen"),
        Competition(nothing, one, "jackknife"),
        Competition(nothing, one, "screen", 1),
    ]
    assert len({competition_id("assay", each) for each in asked}) == len(asked)
    assert competition_id("assay", asked[0]) != competition_id("other", asked[0])
    seeds = {competition_seed(7, "nulldist", each) for each in asked}
    assert len(seeds) == len(asked)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert competition_seed(8, "nulldist", asked[0]) not in seeds


@given(st.sets(st.integers(0, 9_999), max_size=50))
def test_knocked_out_genome_keeps_its_sites_in_the_record(sites: set[int]) -> None:
    parent = wild_type(ID, "content", num_sites=10_000, user_email="a@example.org")
    variant = GenomeRecord.from_document(parent.variant(KnockoutSet.of(sites, 10_000)).to_document())
    assert set(variant.knockout.sites.tolist()) == sites
    assert (variant == parent) is (not sites)
    assert len(variant.knockout_bitset or "") <= 1700


def test_needs_of_an_assay_are_closed() -> None:
    assert with_needs({AssayType.DOSE_TITRATION}) == {
        AssayType.DOSE_TITRATION, AssayType.DOSE_CALIBRATION, AssayType.SCREEN_CRITICAL, AssayType.NULLDIST,
    }  # fmt: skip
    assert set(NEEDS) == set(AssayType)


def test_lease_is_given_to_one_of_many(records: Records) -> None:
    records.submissions.add(submission())
    taken: list[str] = []
    barrier = threading.Barrier(8)

    def take(name: str) -> None:
        barrier.wait()
        if records.submissions.acquire_lease(ID, name, 60) is not None:
            taken.append(name)

    threads = [threading.Thread(target=take, args=(f"run {number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1
    assert records.submissions.acquire_lease(ID, taken[0], 60) is not None


def test_lapsed_lease_goes_to_the_next(records: Records) -> None:
    records.submissions.add(submission())
    assert records.submissions.acquire_lease(ID, "dead", -1) is not None
    taken = records.submissions.acquire_lease(ID, "next", 60)
    assert taken is not None
    assert (taken.lease.owner, taken.state) == ("next", State.RUNNING)
    assert taken.lease.until > time.time()
    records.submissions.release_lease(ID, "dead")
    assert records.submissions.acquire_lease(ID, "third", 60) is None
    records.submissions.release_lease(ID, "next")
    assert records.submissions.acquire_lease(ID, "third", 60) is not None


@pytest.mark.parametrize("state", [State.COMPLETED, State.FAILED, State.CANCELED])
def test_final_submission_gives_no_lease(records: Records, state: State) -> None:
    records.submissions.add(submission(state=state))
    assert records.submissions.acquire_lease(ID, "run", 60) is None


def test_state_moves_only_from_where_it_may(records: Records) -> None:
    records.submissions.add(submission())
    assert records.submissions.move(ID, State.CANCELED, reason="by its user", sources=(State.ACCEPTED, State.RUNNING))
    assert not records.submissions.move(ID, State.COMPLETED, sources=(State.RUNNING,))
    assert records.submissions.get(ID).reason == "by its user"
    assert records.submissions.get(ID).finished is not None
    assert records.submissions.reopen(ID)
    again = records.submissions.get(ID)
    assert (again.state, again.reason, again.finished) == (State.ACCEPTED, None, None)
    assert (again.interruptions, again.resumed is not None) == (1, True)
    assert not records.submissions.reopen(ID)


def test_submission_is_found_by_the_beginning_of_its_id(records: Records) -> None:
    records.submissions.add(submission())
    records.submissions.add(submission("22223333-0000-5000-8000-000000000000"))
    assert records.submissions.resolve("222222").id == ID
    with pytest.raises(KnockemError, match="Several"):
        records.submissions.resolve("2222")
    with pytest.raises(KnockemError, match="no submission"):
        records.submissions.resolve("9999")
    with pytest.raises(KnockemError, match="no submission"):
        records.submissions.resolve("2")


@pytest.mark.parametrize("packed", [False, True])
def test_revision_is_read_from_the_checkout_where_git_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    folder = tmp_path / ".git"
    (folder / "refs" / "heads").mkdir(parents=True)
    (folder / "HEAD").write_text("ref: refs/heads/main\n")
    commit = "0123456789" * 4
    if packed:
        (folder / "packed-refs").write_text(f"# pack-refs with: peeled\n{commit} refs/heads/main\n")
    else:
        (folder / "refs" / "heads" / "main").write_text(commit + "\n")
    monkeypatch.setattr(record_module, "_STAMP", tmp_path / "package" / "REVISION")
    monkeypatch.setenv("PATH", str(tmp_path))
    revision.cache_clear()
    try:
        assert revision() == "0123456"
    finally:
        revision.cache_clear()


def test_unknown_revision_is_refused_outside_testing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_module, "_STAMP", tmp_path / "REVISION")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    revision.cache_clear()
    try:
        monkeypatch.setenv("KNOCKEM_ENVIRONMENT", "testing")
        assert revision() == "unknown"
        revision.cache_clear()
        monkeypatch.setenv("KNOCKEM_ENVIRONMENT", "production")
        with pytest.raises(SettingsError, match="revision"):
            revision()
        (tmp_path / "REVISION").write_text("abc1234\n")
        assert revision() == "abc1234"
    finally:
        revision.cache_clear()


def test_tables_have_a_sort_key_among_their_columns() -> None:
    for table in TABLES.values():
        names = [column.name for column in table.columns]
        assert len(set(names)) == len(names)
        assert set(table.sort_key) <= set(names)


def test_documentation_of_the_tables_is_what_the_code_declares() -> None:
    page = Path(__file__).parents[2] / "docs" / "tables.md"
    assert page.read_text(encoding="utf-8") == describe_tables()


def _attempt() -> Attempt:
    side = GenomeVariant("g", KnockoutSet.none(3))
    return Attempt("t", "c", "a", ID, side, side, 1)
