"""Many competitions in one process: the requests of knockem_serve, one JSON object a line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from explicit_genome import InputError, Landscape, parse_genome

PROTOCOL = 1
CHUNK = 1 << 16


class ServedGenome:
    """A genome as the server keeps it: of what is knocked out only what has an effect, so thousands fit."""

    __slots__ = ("effect", "knocked_out", "landscape")

    def __init__(self, landscape: Landscape, knocked_out: frozenset[int]) -> None:
        self.landscape = landscape
        self.knocked_out = knocked_out
        self.effect = landscape.effect(knocked_out)


class Server:
    """Answers requests about the genomes it was given.

    `compete(effect, seed)` returns a competition's result; `unit`, if given, is the score of one detection
    threshold, stated by organisms without noise.
    """

    def __init__(self, compete: Callable[[float, int], dict[str, object]], unit: float | None = None) -> None:
        self.compete = compete
        self.unit = unit
        self.genomes: dict[str, ServedGenome] = {}
        self.operations = {
            "hello": self.hello,
            "genome": self.genome,
            "knockout": self.knockout,
            "count_sites": self.count_sites,
            "compete_two": self.compete_two,
            "forget": self.forget,
        }

    def hello(self, request: dict) -> dict[str, object]:
        """Tell the protocol spoken here."""
        return {"protocol": PROTOCOL} if self.unit is None else {"protocol": PROTOCOL, "unit": self.unit}

    def genome(self, request: dict) -> dict[str, object]:
        """Keep a genome given by its content."""
        genome = parse_genome(request["content"])
        functional = genome.landscape.functional
        self.genomes[request["genome"]] = ServedGenome(genome.landscape, functional & genome.knocked_out)
        return {}

    def knockout(self, request: dict) -> dict[str, object]:
        """Make and keep a genome that lacks sites of its parent."""
        parent, sites = self.find(request["parent"]), request["sites"]
        parent.landscape.check(sites)
        knocked_out = parent.knocked_out | parent.landscape.functional.intersection(sites)
        self.genomes[request["genome"]] = ServedGenome(parent.landscape, knocked_out)
        return {}

    def count_sites(self, request: dict) -> dict[str, object]:
        """Tell the number of sites of a genome."""
        return {"sites": self.find(request["genome"]).landscape.num_sites}

    def compete_two(self, request: dict) -> dict[str, object]:
        """Let two kept genomes compete."""
        effect = self.find(request["beta"]).effect - self.find(request["alpha"]).effect
        return self.compete(effect, request["seed"])

    def forget(self, request: dict) -> dict[str, object]:
        """Drop genomes; those not kept are no error, as a new server is told to forget what an old one kept."""
        for genome in request["genomes"]:
            self.genomes.pop(genome, None)
        return {}

    def find(self, genome: str) -> ServedGenome:
        """Return a kept genome. Raises InputError when it is not here."""
        if genome not in self.genomes:
            raise InputError(f"genome {genome!r} is not kept here; send it with 'genome' or 'knockout' first")
        return self.genomes[genome]

    def answer(self, line: bytes) -> str:
        """Answer one line with one line; whatever is wrong with a request fails that request alone."""
        identity = None
        try:
            request = json.loads(line)
            identity = request.get("id")
            answer = self.operations[request["op"]](request)
        except InputError as error:
            answer = {"error": str(error)}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            answer = {"error": f"malformed request ({type(error).__name__}: {error}); see the container contract"}
        answer["id"] = identity
        return json.dumps(answer)

    def serve(self, source: int, target: int) -> None:
        """Answer the lines of one file descriptor on another until it ends.

        All whole lines that have arrived are answered by one write: each write wakes the other side.
        """
        pending = b""
        while chunk := os.read(source, CHUNK):
            *lines, pending = (pending + chunk).split(b"\n")
            answers = "".join(self.answer(line) + "\n" for line in lines).encode()
            while answers:
                answers = answers[os.write(target, answers) :]
