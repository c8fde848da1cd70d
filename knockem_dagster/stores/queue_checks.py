"""What a queue server must be, and plain words, free of passwords, for one that is not or does not answer."""

from __future__ import annotations

import re
import ssl
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

from redis import exceptions

from knockem_dagster.errors import QueueAway, StoreError
from knockem_dagster.settings import Settings
from knockem_dagster.stores.queue_server import queue_folder

OLDEST_VERSION = (6, 2)
_UNCHANGED_JOBS = "noeviction"


def check_server(information: Mapping[str, object], settings: Settings) -> None:
    """Check a server by its answer to INFO; StoreError if it is unfit. Managed servers refuse CONFIG, but give this."""
    fault = _fault(information)
    if fault:
        raise StoreError(f"{_name(settings)} cannot hold the queue: {fault}")


@contextmanager
def explained(settings: Settings) -> Generator[None]:
    """Turn what the client raises into QueueAway or StoreError."""
    try:
        yield
    except exceptions.RedisError as error:
        explanation = _explanation(error, settings)
    except TimeoutError:
        explanation = _explanation(exceptions.TimeoutError(), settings)
    except (ValueError, TypeError):
        if not urlsplit(settings.queue_url or "").query:
            raise
        explanation = StoreError(f"{_name(settings)} is named with options that do not exist or do not fit; correct "
                                 "what follows the question mark in KNOCKEM_QUEUE_URL")  # fmt: skip
    else:
        return
    raise explanation from None  # the cause may quote what was sent, and with it the password


def _fault(information: Mapping[str, object]) -> str:
    version = re.match(r"([0-9]+)\.([0-9]+)", str(information.get("redis_version", "")))
    if version is None:
        return "it does not tell its version; use Redis or Valkey"
    if (int(version[1]), int(version[2])) < OLDEST_VERSION:
        wanted = ".".join(map(str, OLDEST_VERSION))
        return f"it is version {information['redis_version']}; use Redis {wanted} or later, or Valkey"
    mode = information.get("server_mode", information.get("redis_mode", "standalone"))  # Valkey's name, Redis's name
    if mode != "standalone":
        return f"it runs in {mode} mode; use a server that stands alone"
    role = information.get("role")
    if role != "master":
        return f"it is a {role}, which cannot be written to; name its primary in KNOCKEM_QUEUE_URL"
    policy = information.get("maxmemory_policy", "unknown")
    if policy != _UNCHANGED_JOBS:
        return (
            f"its maxmemory-policy is {policy}, so it may drop jobs when memory runs short; set "
            f"`maxmemory-policy {_UNCHANGED_JOBS}` in its configuration"
        )
    return ""


def _explanation(error: exceptions.RedisError, settings: Settings) -> StoreError:
    start_it = (
        "start it with `./knockem up`"
        if settings.queue_url is None
        else "start it, or correct the address in KNOCKEM_QUEUE_URL"
    )
    kind = StoreError
    match error:
        case exceptions.BusyLoadingError():
            kind, words = QueueAway, "is still loading its file; try again in a moment"
        case exceptions.AuthenticationError() | exceptions.AuthorizationError():
            words = (
                "refuses the user or the password, or wants one; correct KNOCKEM_QUEUE_URL (user:password@host, "
                "special characters percent-encoded)"
            )
        case exceptions.NoPermissionError():
            words = "does not let this user do what the queue needs; allow it all commands and keys"
        case exceptions.InvalidResponse():
            words = "speaks neither Redis nor Valkey, it is something else; correct the address in KNOCKEM_QUEUE_URL"
        case exceptions.TimeoutError():
            kind, words = QueueAway, f"does not answer in time, if it is one; look at its load, or {start_it}"
        case exceptions.ConnectionError(__context__=ssl.SSLError() as cause):
            words = (
                f"does not speak TLS, or not with a certificate that is trusted here ({cause.reason or cause}); "
                "correct the certificate, or the address in KNOCKEM_QUEUE_URL"
            )
        case exceptions.ConnectionError(__context__=OSError() as cause):
            kind, words = QueueAway, f"cannot be reached ({cause.strerror or cause}); {start_it}"
        case exceptions.ConnectionError():
            kind = QueueAway
            words = f"hangs up: it is ending, wants rediss://, or is no Redis or Valkey server; {start_it}"
        case _:
            words = f"refuses to talk: {_without_password(str(error), settings)}"
    return kind(f"{_name(settings)} {words}")


def _name(settings: Settings) -> str:
    """Return what to call the server: its address without user, password and options."""
    if settings.queue_url is None:
        return f"the queue server in {queue_folder(settings)}"
    parts = urlsplit(settings.queue_url)
    return f"the queue server at {parts.netloc.rpartition('@')[2]}{unquote(parts.path)}"


def _without_password(text: str, settings: Settings) -> str:
    # Some servers repeat a command that they do not know, AUTH included.
    password = urlsplit(settings.queue_url or "").password
    return "(its words are hidden: they hold the password)" if password and unquote(password) in text else text
