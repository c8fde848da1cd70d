"""`user add|list` and `token add|list|revoke`: who may use the HTTP API, and how much of the platform is theirs."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from knockem_dagster.accounts.tokens import (
    DEFAULT_DAYS,
    MOST_DAYS,
    is_in_force,
    issue_token,
    revoke_token,
    tokens_of,
)
from knockem_dagster.accounts.users import add_user
from knockem_dagster.cli.terminal import AsJson, answer_json, aside, for_people, open_platform, short
from knockem_dagster.errors import Fault, InvalidInput
from knockem_dagster.mapping_file import shown
from knockem_dagster.records.accounts import QuotasValue, Scope, TokenRecord, UserRecord

users = typer.Typer(no_args_is_help=True, help="Users of the HTTP API.")
tokens = typer.Typer(no_args_is_help=True, help="Tokens, by which programs speak for users.")
Address = Annotated[str, typer.Argument(metavar="EMAIL", help="The user's e-mail address.")]


@users.command("add")
def add(
    address: Address,
    active_jobs: Annotated[int | None, typer.Option(min=0, help="Jobs that may be going at a time.")] = None,
    cpu_hours: Annotated[float | None, typer.Option(min=0, help="CPU hours in all.")] = None,
    stored_bytes: Annotated[int | None, typer.Option(min=0, help="Bytes that may be sent over HTTP in all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Add a user; without limits where none are given."""
    try:
        quotas = QuotasValue(active_jobs=active_jobs, cpu_hours=cpu_hours, stored_bytes=stored_bytes)
    except ValidationError as error:
        found = ((str(each["loc"][0]).replace("_", "-"), each) for each in error.errors())
        faults = [Fault(f"--{name}", shown(each["input"]), each["msg"]) for name, each in found]
        raise InvalidInput("The user cannot be added.", faults) from error
    with open_platform() as platform:
        user = add_user(platform.records, address, quotas)
    if as_json:
        answer_json(_summary_of_user(user))
        return
    for_people().print(
        f"{user.user_email} is a user. `./knockem token add {user.user_email}` makes a token.", markup=False
    )


@users.command("list")
def list_users(as_json: AsJson = False) -> None:
    """List the users."""
    with open_platform() as platform:
        found = sorted(platform.records.users.find({}), key=lambda user: user.user_email)
    if as_json:
        answer_json([_summary_of_user(user) for user in found])
        return
    table = Table(box=None, pad_edge=False)
    for name in ("user", "active jobs", "CPU hours", "stored bytes"):
        table.add_column(name, justify="left" if name == "user" else "right")
    for user in found:
        quotas = user.quotas
        limits = (quotas.active_jobs, quotas.cpu_hours, quotas.stored_bytes)
        table.add_row(escape(user.user_email), *("no limit" if each is None else f"{each:,}" for each in limits))
    for_people().print(table)


@tokens.command("add")
def add_token(
    address: Address,
    *,
    scope: Annotated[Scope, typer.Option(help="What it permits.")] = Scope.USER,
    days: Annotated[int, typer.Option(min=1, max=MOST_DAYS, help="How long it is in force.")] = DEFAULT_DAYS,
    label: Annotated[str, typer.Option(help="What it is for.")] = "",
    for_all: Annotated[
        bool, typer.Option("--for-all", help="Workers with it work for everybody, not only for this user.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it; it is told nowhere else."""
    with open_platform() as platform:
        record, token = issue_token(platform.records, address, scope, days=days, label=label, for_all=for_all)
    if as_json:
        answer_json({**_summary_of_token(record), "token": token})
        return
    aside().print(f"Token {short(record.id)} of scope {scope} is in force until {record.expires[:10]}.", markup=False)
    typer.echo(token)


@tokens.command("list")
def list_tokens(
    address: Annotated[str | None, typer.Argument(metavar="[EMAIL]", help="Only this user's.")] = None,
    as_json: AsJson = False,
) -> None:
    """List tokens, the newest first; never the tokens themselves."""
    with open_platform() as platform:
        found = tokens_of(platform.records, address)
    if as_json:
        answer_json([_summary_of_token(token) for token in found])
        return
    table = Table(box=None, pad_edge=False)
    for name in ("token", "user", "scope", "label", "until", "state"):
        table.add_column(name)
    for token in found:
        table.add_row(
            short(token.id),
            escape(token.user_email),
            token.scope,
            escape(token.label),
            token.expires[:10],
            _state(token),
        )
    for_people().print(table)


@tokens.command("revoke")
def revoke(
    token: Annotated[str, typer.Argument(metavar="ID", help="A token's id, its beginning, or the token.")],
    as_json: AsJson = False,
) -> None:
    """Let a token permit nothing any more."""
    with open_platform() as platform:
        record = revoke_token(platform.records, token)
    if as_json:
        answer_json(_summary_of_token(record))
        return
    for_people().print(f"Token {short(record.id)} of {record.user_email} is revoked.", markup=False)


def _state(token: TokenRecord) -> str:
    if token.revoked is not None:
        return "[red]revoked[/]"
    return "[green]in force[/]" if is_in_force(token) else "[yellow]expired[/]"


def _summary_of_user(user: UserRecord) -> dict[str, object]:
    return {"userEmail": user.user_email, "quotas": user.quotas.model_dump(by_alias=True)}


def _summary_of_token(token: TokenRecord) -> dict[str, object]:
    return {
        "id": token.id,
        "userEmail": token.user_email,
        "scope": token.scope.value,
        "label": token.label,
        "expires": token.expires,
        "revoked": token.revoked,
    }
