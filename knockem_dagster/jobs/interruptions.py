"""Notices that a machine will be taken away, as AWS gives them to spot instances two minutes before.

The address answers 404 until there is a notice: "Spot Instance interruption notices", Amazon EC2 User Guide. Where the
machine wants a token for its metadata (IMDSv2), one is fetched from the same host.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from urllib.parse import urljoin

import httpx

AWS_NOTICE = "http://169.254.169.254/latest/meta-data/spot/instance-action"
LOOK_SECONDS = 5.0
"""How often AWS recommends to look."""
_TOKEN_SECONDS = 21600


async def interruption_notice_at(address: str, *, look_seconds: float = LOOK_SECONDS) -> str:
    """Return what the notice says, as soon as there is one."""
    async with httpx.AsyncClient(timeout=look_seconds, trust_env=False) as client:
        headers: dict[str, str] = {}
        while True:
            try:
                answer = await client.get(address, headers=headers)
                if answer.status_code == HTTPStatus.UNAUTHORIZED:
                    headers = await _metadata_token(client, address)
                elif answer.is_success:
                    return " ".join(answer.text.split())[:200]
            except httpx.TransportError:
                pass  # a machine that is slow to answer is looked at again
            await asyncio.sleep(look_seconds)


async def _metadata_token(client: httpx.AsyncClient, address: str) -> dict[str, str]:
    asked = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_SECONDS)}
    answer = await client.put(urljoin(address, "/latest/api/token"), headers=asked)
    return {"X-aws-ec2-metadata-token": answer.text} if answer.is_success else {}
