"""Who calls: a token in the Authorization header, what its scope permits, and what is theirs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

from knockem_dagster.accounts.tokens import token_record
from knockem_dagster.api.http.site import Site, site_of
from knockem_dagster.errors import NotFound, NotPermitted
from knockem_dagster.records.accounts import Scope, TokenRecord
from knockem_dagster.records.jobs import WorkflowRecord
from knockem_dagster.records.submissions import SubmissionRecord

_bearer = HTTPBearer(auto_error=False, description="a token, as `./knockem token add` prints it")


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody with a token in force."""

    site: Site
    token: TokenRecord

    @property
    def email(self) -> str:
        """The address of the user."""
        return self.token.user_email

    @property
    def sees_all(self) -> bool:
        """Whether what belongs to others is theirs to see, too."""
        return self.token.scope is Scope.ADMINISTRATOR

    def owns(self, email: str) -> bool:
        """Tell whether what belongs to this user is the caller's to see and change."""
        return self.sees_all or email == self.email

    async def submission(self, id: str) -> SubmissionRecord:
        """Return a submission. Raises NotFound for another user's, as for none."""
        found = await asyncio.to_thread(self.site.records.submissions.find_one, id)
        if found is None or not self.owns(found.user_email):
            raise NotFound(f"There is no submission {id}.")
        return found

    async def workflow(self, id: str) -> WorkflowRecord:
        """Return a workflow. Raises NotFound for another user's, as for none."""
        found = await asyncio.to_thread(self.site.records.workflows.find_one, id)
        if found is None or not self.owns(found.user_email):
            raise NotFound(f"There is no workflow {id}.")
        return found


async def caller(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    """Return who calls, whatever the scope."""
    site = site_of(request)
    token = None
    if credentials is not None:
        token = await asyncio.to_thread(token_record, site.records, credentials.credentials)
    if token is None:
        why = "A token is needed." if credentials is None else "The token is unknown, revoked or expired."
        raise HTTPException(HTTPStatus.UNAUTHORIZED, why, headers={"WWW-Authenticate": "Bearer"})
    return Caller(site, token)


def scoped(*scopes: Scope) -> Any:
    """Return a dependency that gives the caller if their token has one of these scopes."""

    async def permitted(caller: Annotated[Caller, Depends(caller)]) -> Caller:
        if caller.token.scope not in scopes:
            needed = " or ".join(scopes)
            raise NotPermitted(f"This needs a token of scope {needed}; this one is of scope {caller.token.scope}.")
        return caller

    return Depends(permitted)


User = Annotated[Caller, scoped(Scope.USER, Scope.ADMINISTRATOR)]
Administrator = Annotated[Caller, scoped(Scope.ADMINISTRATOR)]
Worker = Annotated[Caller, scoped(Scope.WORKER)]
