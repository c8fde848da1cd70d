"""Errors as problem details (RFC 9457): one shape for whatever goes wrong, with every fault of an input."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import Field
from starlette.exceptions import HTTPException

from knockem_dagster.errors import (
    Conflict,
    ContainerError,
    Fault,
    InvalidInput,
    KnockemError,
    LeaseLapsed,
    NotFound,
    NotPermitted,
    StoreError,
)
from knockem_dagster.jobs.http_source import LEASE_LAPSED
from knockem_dagster.mapping_file import MOST_ALLOWED, one_line, shown
from knockem_dagster.records.record import Value

MEDIA_TYPE = "application/problem+json"
_STATUS: Sequence[tuple[type[KnockemError], HTTPStatus]] = (
    (InvalidInput, HTTPStatus.UNPROCESSABLE_ENTITY),
    (NotFound, HTTPStatus.NOT_FOUND),
    (NotPermitted, HTTPStatus.FORBIDDEN),
    (Conflict, HTTPStatus.CONFLICT),
    (LeaseLapsed, HTTPStatus.CONFLICT),
    (StoreError, HTTPStatus.SERVICE_UNAVAILABLE),
    (ContainerError, HTTPStatus.SERVICE_UNAVAILABLE),
    (KnockemError, HTTPStatus.CONFLICT),
)
_log = logging.getLogger(__name__)


class Problem(Value):
    """What went wrong."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    faults: tuple[Fault, ...] = Field(default=(), description="all that is wrong with the input")


def problem(
    status: int,
    detail: str,
    faults: Sequence[Fault] = (),
    *,
    type: str = "about:blank",
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Return the answer that tells a problem."""
    found = Problem(
        type=type,
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        faults=tuple(faults),
    )
    content = found.model_dump(mode="json", by_alias=True)
    return JSONResponse(content, status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def explain_errors(app: FastAPI) -> None:
    """Let every error of an application be told as a problem."""

    async def ours(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, KnockemError)
        status = next(status for kind, status in _STATUS if isinstance(error, kind))
        if isinstance(error, InvalidInput):
            return problem(status, error.what, error.faults)
        type = LEASE_LAPSED if isinstance(error, LeaseLapsed) else "about:blank"
        return problem(status, str(error), type=type)

    async def invalid(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        faults = [_fault(each) for each in error.errors()]
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "The request has faults.", faults)

    async def general(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return problem(error.status_code, str(error.detail), headers=error.headers)

    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "This is a fault of the server; its log tells more.")

    app.add_exception_handler(KnockemError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, general)
    app.add_exception_handler(Exception, unexpected)


def _fault(error: Mapping[str, Any]) -> Fault:
    place = ".".join(str(part) for part in error["loc"])
    return Fault(one_line(place), shown(error.get("input")), one_line(str(error["msg"]), most=MOST_ALLOWED))
