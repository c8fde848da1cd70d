"""Where the services of `up` are reached: the wanted port, or the next that is free, told once they answer there."""

from __future__ import annotations

import http.client
import socket
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from knockem_dagster.errors import KnockemError

HOST = "127.0.0.1"
"""Whoever reaches the UI can start runs: it is for this machine only."""
PORTS_TRIED = 100


@dataclass(slots=True)
class Address:
    """The address of a service: `path` is answered as soon as it is up; `told` once people know."""

    name: str
    port: int
    path: str
    told: bool = False

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{HOST}:{self.port}"

    def find_port(self, say: Callable[[str], None], *, but: Sequence[int] = ()) -> None:
        """Go to the next free port, `but` none of these. Raises KnockemError when there is none nearby."""
        wanted = self.port
        for port in range(wanted, min(wanted + PORTS_TRIED, 65536)):
            if port not in but and is_free(port):
                self.port = port
                if port != wanted:
                    say(f"Port {wanted} is taken; {self.name} is on port {port}.")
                return
        raise KnockemError(f"No port from {wanted} on is free; name another with --port.")

    def has_begun_to_answer(self) -> bool:
        """Tell whether the service is up, and was not when this was asked before."""
        if self.told or not self._answers():
            return False
        self.told = True
        return True

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}{self.path}", timeout=1):
                return True
        except (OSError, http.client.HTTPException):  # nobody is there yet, or somebody who speaks no HTTP
            return False


def is_free(port: int) -> bool:
    """Tell whether a port can be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
