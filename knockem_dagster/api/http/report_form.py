"""A report of job logs as it arrives: a form of three parts, as Galaxy's uploader sends it, read as a stream.

The archive goes to a file, hashed on the way. What is no such form, too large or too slow is not read to its end.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from http import HTTPStatus
from typing import Any, BinaryIO

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import Request

from knockem_dagster.errors import Fault, InvalidInput
from knockem_dagster.joblogs import report_metadata
from knockem_dagster.joblogs.folders import MOST_REPORT_BYTES

MOST_BYTES = MOST_REPORT_BYTES
"""Of a form."""
MOST_SECONDS = 3600.0
SILENT_SECONDS = 30.0
"""How long a sender may send nothing."""
TOO_LARGE = f"A report has at most {MOST_BYTES:,} bytes."
TOO_SLOW = f"A sender may be silent for {SILENT_SECONDS:g} s, and has {MOST_SECONDS:g} s for a report."
_BLOCK = 1 << 20
_MOST_NAME = 200
_PARTS = "the parts identifier, meta and data, once each, are"


class ReportForm:
    """The parts `identifier`, `meta` and `data`: a report's name, its metadata and its archive.

    `name`: "" until it has arrived. `metadata`: cut behind more than any metadata have. `digest`: of the archive.
    """

    def __init__(self, archive: BinaryIO) -> None:
        """Prepare to write the archive to this file."""
        self._archive = archive
        self._hash = hashlib.sha256()
        self._header, self._value, self._disposition = b"", b"", b""
        self._part = ""
        self._parts: dict[str, bytearray] = {}
        self._ended: set[str] = set()
        self._is_complete = False

    @property
    def name(self) -> str:
        """The name of the report."""
        return self._parts["identifier"].decode(errors="replace") if "identifier" in self._ended else ""

    @property
    def metadata(self) -> bytes:
        """What is said of the report."""
        return bytes(self._parts["meta"])

    @property
    def digest(self) -> str:
        """The archive's SHA-256, hexadecimal."""
        return self._hash.hexdigest()

    async def read(self, request: Request) -> None:
        """Read the form to its end.

        Raises InvalidInput for what is no such form, HTTPException for one that is too large or too slow,
        ClientDisconnect where the sender goes away.
        """
        parser = self._parser(request.headers.get("content-type", ""))
        said = request.headers.get("content-length", "")
        size = int(said) if said.isdecimal() else 0
        end = time.monotonic() + MOST_SECONDS
        stream, block, number = aiter(request.stream()), bytearray(), 0
        while (chunk := await _next(stream, end)) is not None:
            block += chunk
            number += len(chunk)
            if max(number, size) > MOST_BYTES:
                with suppress(InvalidInput):
                    _write(parser, bytes(block))  # its name, perhaps
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, TOO_LARGE)
            if len(block) >= _BLOCK:
                await asyncio.to_thread(_write, parser, bytes(block))
                block.clear()
        await asyncio.to_thread(_write, parser, bytes(block))
        if not self._is_complete:
            raise _no_form("the form", f"{number:,} bytes", "one that does not end before its last boundary is")
        if missing := sorted({"identifier", "meta", "data"} - self._ended):
            raise _no_form("the form", f"without {', '.join(missing)}", _PARTS)

    def _parser(self, content_type: str) -> MultipartParser:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not boundary:
            raise _no_form("Content-Type", content_type, "multipart/form-data with a boundary is")
        return MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._take_header_name,
                "on_header_value": self._take_header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._open,
                "on_part_data": self._take,
                "on_part_end": self._end,
                "on_end": self._finish,
            },
        )

    def _begin(self) -> None:
        self._header, self._value, self._disposition = b"", b"", b""

    def _take_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _take_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _open(self) -> None:
        name = parse_options_header(self._disposition)[1].get(b"name", b"").decode(errors="replace")
        if name not in {"identifier", "meta", "data"} or name in self._parts:
            raise _no_form("the form", f"a part {name[:_MOST_NAME]!r}", _PARTS)
        self._part = name
        self._parts[name] = bytearray()

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._part == "data":
            self._hash.update(data[start:end])
            self._archive.write(data[start:end])
            return
        most = report_metadata.MOST_BYTES + 1 if self._part == "meta" else _MOST_NAME
        here = self._parts[self._part]
        here += data[start : min(end, start + most - len(here))]

    def _end(self) -> None:
        self._ended.add(self._part)

    def _finish(self) -> None:
        self._is_complete = True


def _write(parser: MultipartParser, block: bytes) -> None:
    try:
        parser.write(block)
    except FormParserError as error:
        raise _no_form("the form", str(error), "what RFC 7578 describes is") from error


async def _next(stream: AsyncIterator[bytes], end: float) -> bytes | None:
    try:
        async with asyncio.timeout(min(SILENT_SECONDS, end - time.monotonic())):
            return await anext(stream, None)
    except TimeoutError as error:
        # Who goes on so would keep the connection for ever.
        closing = {"Connection": "close"}
        raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, TOO_SLOW, headers=closing) from error


def _no_form(field: str, value: str, allowed: str) -> InvalidInput:
    return InvalidInput("This is no report.", [Fault(field, value[:_MOST_NAME], allowed)])


FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["identifier", "meta", "data"],
                    "properties": {
                        "identifier": {"type": "string", "description": "the report's name"},
                        "meta": {"type": "string", "format": "binary", "description": "NAME.json"},
                        "data": {"type": "string", "format": "binary", "description": "NAME.tar.gz"},
                    },
                }
            }
        },
    }
}
"""How its requests are described."""
