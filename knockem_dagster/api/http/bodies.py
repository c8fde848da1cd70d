"""Bodies of requests: bounded, and read as they are where our own readers find all their faults."""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from knockem_dagster.api.http.problems import problem
from knockem_dagster.errors import Fault, InvalidInput
from knockem_dagster.mapping_file import FileKind, one_line, read_mapping, shown

MOST_BYTES = 33 << 20
"""The largest workflow file, and somewhat more."""
_REQUEST = FileKind(name="request", keys="those of its schema", most_bytes=MOST_BYTES, most_values=100_000)
ModelT = TypeVar("ModelT", bound=BaseModel)
_TOO_LARGE = f"A request has at most {MOST_BYTES:,} bytes."


class BoundedBodies:
    """Refuses requests with a body that is too large, without reading it; but for paths that see to that themselves."""

    def __init__(self, app: ASGIApp, *, unbounded: re.Pattern[str]) -> None:
        self._app = app
        self._unbounded = unbounded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http" or self._unbounded.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        said = Headers(scope=scope).get("content-length", "")
        if said.isdecimal() and (len(said) > 15 or int(said) > MOST_BYTES):
            await problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _TOO_LARGE)(scope, receive, send)
            return
        number = 0

        async def bounded() -> Message:
            nonlocal number
            message = await receive()
            number += len(message.get("body", b""))
            if number > MOST_BYTES:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _TOO_LARGE)
            return message

        await self._app(scope, bounded, send)


def described_body(model: str, *media_types: str) -> dict[str, Any]:
    """Return how the specification describes a body that is read as it is."""
    schema = {"$ref": f"#/components/schemas/{model}"}
    content = {media_type: {"schema": schema} for media_type in ("application/json", *media_types)}
    return {"requestBody": {"required": True, "content": content}}


async def read_body(request: Request, model: type[ModelT]) -> ModelT:
    """Return the body of a request as a model. Raises InvalidInput with every fault."""
    body = await request.body()
    return await asyncio.to_thread(_read, body, model)


def _read(body: bytes, model: type[ModelT]) -> ModelT:
    try:
        return model.model_validate(read_mapping(body, _REQUEST, "json"))
    except ValidationError as error:
        faults = [
            Fault(one_line(".".join(map(str, each["loc"]))), shown(each["input"]), one_line(each["msg"]))
            for each in error.errors(include_url=False)
        ]
        raise InvalidInput("The request has faults.", faults) from error
