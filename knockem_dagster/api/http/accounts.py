"""Users and tokens over HTTP, for administrators; and who one is."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import Field

from knockem_dagster.accounts.tokens import DEFAULT_DAYS, MOST_DAYS, issue_token, revoke_token
from knockem_dagster.accounts.users import add_user, set_quotas, user_of
from knockem_dagster.api.http.bodies import described_body, read_body
from knockem_dagster.api.http.callers import Administrator, Caller, User, caller
from knockem_dagster.api.http.paging import At, Page, page_of
from knockem_dagster.errors import NotFound, NotPermitted
from knockem_dagster.records.accounts import QuotasValue, Scope, TokenRecord, UserRecord
from knockem_dagster.records.record import Value

router = APIRouter(prefix="/v1", tags=["accounts"])
Address = Annotated[str, Path(max_length=330)]


class Self(Value):
    """Who calls."""

    user_email: str
    scope: Scope
    token_id: str
    expires: str = Field(description="when the token ends: ISO 8601, UTC")


class NewUser(Value):
    """A user to be added."""

    user_email: str = Field(max_length=330)
    quotas: QuotasValue = QuotasValue()


class NewToken(Value):
    """A token to be made. Users make their own, for themselves and their workers."""

    user_email: str | None = Field(default=None, max_length=330, description="whose; default: the caller's")
    scope: Scope
    days: int = Field(default=DEFAULT_DAYS, ge=1, le=MOST_DAYS)
    label: str = Field(default="", max_length=200)
    for_all: bool = Field(default=False, description="workers with it work for everybody; for administrators to say")


class TokenModel(Value):
    """A token as others see it."""

    id: str
    user_email: str
    scope: Scope
    label: str
    for_all: bool
    created: str
    expires: str
    revoked: str | None


class IssuedToken(TokenModel):
    """A new token; it is told nowhere else."""

    token: str


@router.get("/self", operation_id="get_self")
async def get_self(caller: Annotated[Caller, Depends(caller)]) -> Self:
    """Tell whose token this is, and what it permits."""
    token = caller.token
    return Self(user_email=token.user_email, scope=token.scope, token_id=token.id, expires=token.expires)


@router.post(
    "/users", status_code=HTTPStatus.CREATED, openapi_extra=described_body("NewUser"), operation_id="create_user"
)
async def create_user(request: Request, caller: Administrator) -> UserRecord:
    """Add a user."""
    new = await read_body(request, NewUser)
    return await asyncio.to_thread(add_user, caller.site.records, new.user_email, new.quotas)


@router.get("/users", operation_id="list_users")
async def list_users(caller: Administrator, at: At) -> Page[UserRecord]:
    """Return all users, by address."""
    users = caller.site.records.users
    return await asyncio.to_thread(page_of, users, {}, at, field="userEmail")


@router.get("/users/{address}", operation_id="get_user")
async def get_user(address: Address, caller: User) -> UserRecord:
    """Return a user, with quotas; others than oneself are for administrators."""
    if not caller.owns(address):
        raise NotFound(f"There is no user {address!r}.")
    return await asyncio.to_thread(user_of, caller.site.records, address)


@router.put("/users/{address}/quotas", openapi_extra=described_body("QuotasValue"), operation_id="put_quotas")
async def put_quotas(address: Address, request: Request, caller: Administrator) -> UserRecord:
    """Change how much a user may have."""
    quotas = await read_body(request, QuotasValue)
    return await asyncio.to_thread(set_quotas, caller.site.records, address, quotas)


@router.post(
    "/tokens", status_code=HTTPStatus.CREATED, openapi_extra=described_body("NewToken"), operation_id="create_token"
)
async def create_token(request: Request, caller: User) -> IssuedToken:
    """Make a token. What a user's permit is for themselves and their workers; an administrator's for anybody."""
    new = await read_body(request, NewToken)
    address = new.user_email or caller.email
    if not caller.owns(address):
        raise NotFound(f"There is no user {address!r}.")
    if (new.scope is Scope.ADMINISTRATOR or new.for_all) and not caller.sees_all:
        raise NotPermitted("Only an administrator's token makes tokens that permit more than what is one's own.")
    record, token = await asyncio.to_thread(
        issue_token,
        caller.site.records,
        address,
        new.scope,
        days=new.days,
        label=new.label,
        for_all=new.for_all,
    )
    return IssuedToken(**_model(record).model_dump(), token=token)


@router.get("/tokens", operation_id="list_tokens")
async def list_tokens(
    caller: User,
    at: At,
    user_email: Annotated[str | None, Query(alias="userEmail", max_length=330, description="whose")] = None,
) -> Page[TokenModel]:
    """Return the tokens of a user, one's own by default, the newest first."""
    address = user_email or caller.email
    if not caller.owns(address):
        raise NotFound(f"There is no user {address!r}.")
    tokens, where = caller.site.records.tokens, {"userEmail": address}
    found = await asyncio.to_thread(page_of, tokens, where, at, field="datetime", newest_first=True)
    return Page(items=tuple(_model(each) for each in found.items), next=found.next)


@router.delete("/tokens/{token}", operation_id="revoke_token")
async def delete_token(token: Annotated[str, Path(max_length=100)], caller: User) -> TokenModel:
    """Let a token, named by its id, permit nothing any more."""
    found = await asyncio.to_thread(caller.site.records.tokens.find_one, token)
    if found is None or not caller.owns(found.user_email):
        raise NotFound(f"There is no token {token!r}.")
    return _model(await asyncio.to_thread(revoke_token, caller.site.records, found.id))


def _model(token: TokenRecord) -> TokenModel:
    return TokenModel(
        id=token.id,
        user_email=token.user_email,
        scope=token.scope,
        label=token.label,
        for_all=token.for_all,
        created=token.datetime,
        expires=token.expires,
        revoked=token.revoked,
    )


MODELS = (NewUser, NewToken, QuotasValue)
"""What bodies that are read as they are hold."""
