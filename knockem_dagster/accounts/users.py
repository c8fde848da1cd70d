"""Who may use the platform: users by their e-mail address."""

from __future__ import annotations

import re
from contextlib import suppress

from knockem_dagster.errors import Conflict, Fault, InvalidInput, NotFound
from knockem_dagster.mapping_file import shown
from knockem_dagster.records.accounts import QuotasValue, UserRecord
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.record import derived_id
from knockem_dagster.stores.documents import Patch

_ADDRESS = re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s\x00-\x1f]{1,255}")
"""Somebody at some machine: inside an institution that need not be a name that mail is delivered to."""


def user_id(address: str) -> str:
    """Return the id of the user with this address."""
    return derived_id("user", address.lower())


def is_address(text: str) -> bool:
    """Tell whether a text can be a user's address."""
    return _ADDRESS.fullmatch(text) is not None


def add_user(records: Records, address: str, quotas: QuotasValue | None = None) -> UserRecord:
    """Record a user. Raises InvalidInput for what is no address, Conflict when the user is there already."""
    if not is_address(address):
        raise InvalidInput("The user cannot be added.", [Fault("userEmail", shown(address), "somebody@somewhere is")])
    user = UserRecord(id=user_id(address), user_email=address, quotas=quotas or QuotasValue())
    if not records.users.add(user):
        raise Conflict(f"There is a user {address} already.")
    return user


def added_user(records: Records, address: str) -> UserRecord:
    """Return the user with this address, who is added where unknown. Raises InvalidInput for what is no address."""
    with suppress(Conflict):
        return add_user(records, address)
    return user_of(records, address)


def user_of(records: Records, address: str) -> UserRecord:
    """Return the user with this address. Raises NotFound."""
    user = records.users.find_one(user_id(address))
    if user is None:
        raise NotFound(f"There is no user {address!r}; `./knockem user add {address}` adds one.")
    return user


def set_quotas(records: Records, address: str, quotas: QuotasValue) -> UserRecord:
    """Change what a user may have. Raises NotFound."""
    changed = Patch(set={"quotas": quotas.model_dump(by_alias=True, exclude_none=True)})
    return records.users.patch(user_id(address), changed) or user_of(records, address)
