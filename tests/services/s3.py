"""An S3 server for tests: moto, over HTTP on loopback, inside the test process and gone with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import httpx
from moto.server import ThreadedMotoServer

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextmanager
def s3_server() -> Iterator[str]:
    """Give the server's http:// address."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def s3_client(endpoint: str) -> Iterator[Any]:
    """Give a client of the server."""
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        region_name=CREDENTIALS["AWS_REGION"],
    )
    try:
        yield client
    finally:
        client.close()


@contextmanager
def admitting_nobody(endpoint: str) -> Iterator[None]:
    """Let the server refuse everybody meanwhile."""

    def check(requests: str) -> None:
        httpx.post(f"{endpoint}/moto-api/reset-auth", content=requests).raise_for_status()

    check("0")
    try:
        yield
    finally:
        check("inf")


def make_bucket(endpoint: str, bucket: str) -> None:
    """Make an empty bucket."""
    with s3_client(endpoint) as client:
        client.create_bucket(Bucket=bucket)
