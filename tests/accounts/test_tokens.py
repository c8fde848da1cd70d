"""Tokens: told once, kept as a digest, in force until they expire or are revoked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from knockem_dagster.accounts.tokens import (
    admit_worker,
    issue_token,
    new_token,
    revoke_token,
    token_record,
    tokens_of,
)
from knockem_dagster.accounts.users import add_user, set_quotas, user_of
from knockem_dagster.errors import Conflict, InvalidInput, NotFound
from knockem_dagster.platform import Platform
from knockem_dagster.records.accounts import QuotasValue, Scope
from knockem_dagster.stores.documents import Patch
from tests.services.job_play import record_in

ALICE = "alice@example.org"


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with record_in(tmp_path / "home") as opened:
        add_user(opened.records, ALICE)
        yield opened


def test_a_token_is_known_by_itself_and_kept_as_a_digest(platform: Platform) -> None:
    record, token = issue_token(platform.records, ALICE, Scope.USER, label="laptop")
    assert token_record(platform.records, token) == record
    assert (record.user_email, record.scope, record.label) == (ALICE, Scope.USER, "laptop")
    assert token not in str(record.to_document())
    assert token.encode() not in b"".join(path.read_bytes() for path in platform.settings.home.rglob("*.sqlite*"))
    assert token_record(platform.records, token[:-1]) is None
    assert token_record(platform.records, "") is None


def test_tokens_end(platform: Platform) -> None:
    record, token = issue_token(platform.records, ALICE, Scope.WORKER, days=1)
    revoked, other = issue_token(platform.records, ALICE, Scope.WORKER)
    assert revoke_token(platform.records, revoked.id[:8]).revoked is not None
    assert revoke_token(platform.records, revoked.id) == platform.records.tokens.get(revoked.id), "twice is once"
    assert token_record(platform.records, other) is None
    assert token_record(platform.records, token) == record
    yesterday = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    platform.records.tokens.patch(record.id, Patch(set={"expires": yesterday}))
    assert token_record(platform.records, token) is None
    assert [each.id for each in tokens_of(platform.records, ALICE)] == [revoked.id, record.id]


def test_a_worker_is_admitted_once_and_not_by_a_token_that_was_revoked(platform: Platform) -> None:
    token = new_token()
    for _ in range(2):
        admit_worker(platform.records, "commands@localhost", token, label="the service commands")
    [admitted] = tokens_of(platform.records, "commands@localhost")
    assert (admitted.scope, admitted.for_all) == (Scope.WORKER, True)
    revoke_token(platform.records, token)
    with pytest.raises(Conflict, match="revoked or expired: make another"):
        admit_worker(platform.records, "commands@localhost", token, label="the service commands")
    assert [each.id for each in tokens_of(platform.records, "commands@localhost")] == [admitted.id]


def test_what_is_no_user_or_token_is_refused(platform: Platform) -> None:
    with pytest.raises(NotFound, match="user add bob"):
        issue_token(platform.records, "bob@example.org", Scope.USER)
    with pytest.raises(InvalidInput, match="1 to 3650"):
        issue_token(platform.records, ALICE, Scope.USER, days=0)
    with pytest.raises(NotFound, match="There is no token"):
        revoke_token(platform.records, "nothing")
    for wrong in ("", "alice", "a b@example.org", "a@b@c", "@example.org", "a@\n"):
        with pytest.raises(InvalidInput):
            add_user(platform.records, wrong)
    with pytest.raises(Conflict, match="already"):
        add_user(platform.records, ALICE)


def test_quotas_are_changed_as_a_whole(platform: Platform) -> None:
    set_quotas(platform.records, ALICE, QuotasValue(active_jobs=5, cpu_hours=1.5))
    assert set_quotas(platform.records, ALICE, QuotasValue(stored_bytes=7)).quotas == QuotasValue(stored_bytes=7)
    assert user_of(platform.records, ALICE).quotas == QuotasValue(stored_bytes=7)
    with pytest.raises(NotFound):
        set_quotas(platform.records, "bob@example.org", QuotasValue())
