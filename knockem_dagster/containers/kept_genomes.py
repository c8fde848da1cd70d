"""Which genomes a serving container keeps, and the requests that make it keep those a competition needs."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import orjson

from knockem_dagster.containers.attempts import Attempt, GenomeVariant

WILD_TYPE = "wild-type"
LINE = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE


class KeptGenomes:
    """Follows what the container was told to keep: the wild type, and the variants used last, up to `most`.

    A variant in use by an unanswered attempt is never forgotten, so the bound can be passed by what is in use.
    Requests other than competitions have whole numbers as ids; competitions have their attempt's id, a string.
    """

    def __init__(self, wild_type: str, *, most: int) -> None:
        self._wild_type = wild_type
        self._most = most
        self._users: OrderedDict[str, int] = OrderedDict()
        self._wild_type_sent = False
        self._last_id = 0
        self.unanswered: dict[int, str] = {}
        """Requests for genomes that have no answer yet: id, and the genome's name."""

    def requests_for(self, attempt: Attempt) -> bytes:
        """Return the lines that ask for this competition, what its genomes need first. `release` it when answered."""
        lines: list[bytes] = []
        alpha = self._use(attempt.alpha, None, lines)
        beta = self._use(attempt.beta, attempt.alpha, lines)
        compete = {"id": attempt.id, "op": "compete_two", "alpha": alpha, "beta": beta, "seed": attempt.seed}
        lines.append(orjson.dumps(compete, option=LINE))
        if len(self._users) > self._most:
            self._forget(lines)
        return b"".join(lines)

    def release(self, attempt: Attempt) -> None:
        """Its answer is there: the genomes may be forgotten when others are needed more."""
        for variant in (attempt.alpha, attempt.beta):
            name = name_of(variant)
            if name in self._users:
                self._users[name] -= 1

    def answered(self, request: int) -> str | None:
        """Return the genome a request was about, once; None when there is no such request."""
        return self.unanswered.pop(request, None)

    def was_refused(self, name: str) -> None:
        """The container could not make this genome: it is asked for again if another attempt needs it."""
        self._users.pop(name, None)
        if name == WILD_TYPE:
            self._wild_type_sent = False

    def _use(self, variant: GenomeVariant, background: GenomeVariant | None, lines: list[bytes]) -> str:
        name = name_of(variant)
        if not self._wild_type_sent:
            self._wild_type_sent = True
            self._request(WILD_TYPE, {"op": "genome", "content": self._wild_type}, lines)
        if name == WILD_TYPE:
            return name
        if name in self._users:
            self._users[name] += 1
            self._users.move_to_end(name)
            return name
        parent, missing = WILD_TYPE, variant.knockout
        if background is not None and background.knockout.issubset(variant.knockout):
            parent, missing = name_of(background), variant.knockout - background.knockout
        self._users[name] = 1
        self._request(name, {"op": "knockout", "parent": parent, "sites": missing.sites}, lines)
        return name

    def _forget(self, lines: list[bytes]) -> None:
        excess = len(self._users) - self._most
        forgotten = [name for name, users in self._users.items() if users <= 0][:excess]
        if forgotten:
            for name in forgotten:
                del self._users[name]
            request = {"id": self._next_id(""), "op": "forget", "genomes": forgotten}
            lines.append(orjson.dumps(request, option=LINE))

    def _request(self, name: str, fields: dict[str, Any], lines: list[bytes]) -> None:
        lines.append(orjson.dumps({"id": self._next_id(name), "genome": name, **fields}, option=LINE))

    def _next_id(self, name: str) -> int:
        self._last_id += 1
        self.unanswered[self._last_id] = name
        return self._last_id


def name_of(variant: GenomeVariant) -> str:
    """Return the name a variant has in a serving container."""
    return WILD_TYPE if variant.knockout.is_wild_type else variant.id
