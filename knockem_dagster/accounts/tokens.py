"""Tokens: made once, told once, kept as a digest; each with a scope and an end.

A token is 256 random bits, so that a plain digest of it tells nothing: nobody can try them all.
"""

from __future__ import annotations

import hashlib
import secrets
import socket
from datetime import UTC, datetime, timedelta

from knockem_dagster.accounts.users import added_user, user_of
from knockem_dagster.errors import Conflict, Fault, InvalidInput
from knockem_dagster.records.accounts import Scope, TokenRecord
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.record import new_id, now
from knockem_dagster.stores.documents import Patch

PREFIX = "knockem_"
DEFAULT_DAYS = 90
MOST_DAYS = 3650
MOST_TOKENS = 1000
"""In force, of one user."""


def issue_token(
    records: Records,
    address: str,
    scope: Scope,
    *,
    days: int = DEFAULT_DAYS,
    label: str = "",
    for_all: bool = False,
    token: str | None = None,
) -> tuple[TokenRecord, str]:
    """Record a new token of a user; return its record and the token itself, which is told nowhere else.

    `for_all`: workers with it work for everybody, not only for the user; `token`: one that was made already, by
    `new_token`. Raises NotFound for an unknown user, InvalidInput for a length of life beyond MOST_DAYS, Conflict for a
    user with MOST_TOKENS and for a token that was recorded before.
    """
    if not 1 <= days <= MOST_DAYS:
        raise InvalidInput("No token was made.", [Fault("days", str(days), f"1 to {MOST_DAYS} are")])
    user = user_of(records, address)
    unrevoked = records.tokens.find({"userEmail": user.user_email, "revoked": None})
    if sum(map(is_in_force, unrevoked)) >= MOST_TOKENS:
        raise Conflict(f"{user.user_email} has {MOST_TOKENS:,} tokens in force: revoke some.")
    token = token or new_token()
    expires = (datetime.now(UTC) + timedelta(days=days)).isoformat()
    record = TokenRecord(
        id=new_id(),
        user_email=user.user_email,
        scope=scope,
        digest=digest_of(token),
        label=label,
        expires=expires,
        for_all=for_all,
    )
    if not records.tokens.add(record):
        raise Conflict("This token was in force before, and is revoked or expired: make another.")
    return record, token


def first_administrator(records: Records) -> str | None:
    """Return a new token for an administrator if nobody has one; None if somebody has."""
    if any(token.scope is Scope.ADMINISTRATOR and is_in_force(token) for token in records.tokens.find({})):
        return None
    address = f"administrator@{socket.gethostname()}"
    added_user(records, address)
    return issue_token(records, address, Scope.ADMINISTRATOR, label="first")[1]


def admit_worker(records: Records, address: str, token: str, *, label: str) -> None:
    """Let workers with this token work for everybody, unless they may already; its user is added where unknown.

    Raises Conflict for a token that was revoked, or has expired.
    """
    if token_record(records, token) is not None:
        return
    added_user(records, address)
    issue_token(records, address, Scope.WORKER, days=MOST_DAYS, label=label, for_all=True, token=token)


def new_token() -> str:
    """Return a token that nobody has, and that permits nothing until it is recorded."""
    return PREFIX + secrets.token_urlsafe(32)


def token_record(records: Records, token: str) -> TokenRecord | None:
    """Return the record of a token that is in force; None for one that is unknown, revoked or expired."""
    found = next(records.tokens.find({"digest": digest_of(token)}, limit=1), None)
    return found if found is not None and is_in_force(found) else None


def is_in_force(record: TokenRecord) -> bool:
    """Tell whether a token still permits anything."""
    return record.revoked is None and record.expires > now()


def tokens_of(records: Records, address: str | None = None) -> list[TokenRecord]:
    """Return the tokens of a user, or all, the newest first."""
    where = {} if address is None else {"userEmail": user_of(records, address).user_email}
    return sorted(records.tokens.find(where), key=lambda token: token.datetime, reverse=True)


def revoke_token(records: Records, given: str) -> TokenRecord:
    """Let a token permit nothing any more; one that was revoked stays so.

    `given`: the token itself, its id, or the beginning of its id (Repository.starting_with). Raises NotFound.
    """
    found = next(records.tokens.find({"digest": digest_of(given)}, limit=1), None)
    if found is None:
        found = records.tokens.starting_with(given, what="token", listing="token list")
    if found.revoked is not None:
        return found
    return records.tokens.patch(found.id, Patch(set={"revoked": now()})) or found


def digest_of(token: str) -> str:
    """Return as what a token is kept: its SHA-256, hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()
