"""`python3 -m knockem.cli`: fetch-genome ID, report-competition UPDATES NUM_ALPHA NUM_BETA, cleanup-genome ID."""

import json
import math
import os
import shutil
import sys

USAGE = """usage: python3 -m knockem.cli COMMAND
  fetch-genome ID                                  print a genome of this competition
  report-competition UPDATES NUM_ALPHA NUM_BETA    report how the competition ended
  cleanup-genome ID                                accepted, does nothing"""


class UsageError(Exception):
    """The command cannot be carried out as it was given."""


def fetch_genome(genome: str) -> None:
    """Print a genome's content, byte for byte."""
    folder = _variable("KNOCKEM_GENOMES")
    known = sorted(os.listdir(folder))  # noqa: PTH208 - one idiom for every Python from 3.6
    if genome not in known:
        raise UsageError("there is no genome {!r} here; the genomes are: {}".format(genome, ", ".join(known)))
    with open(os.path.join(folder, genome), "rb") as file:  # noqa: PTH118, PTH123
        shutil.copyfileobj(file, sys.stdout.buffer)
    sys.stdout.buffer.flush()


def report_competition(updates: str, num_alpha: str, num_beta: str) -> None:
    """Write the result, whole or not at all. Counts of individuals may be fractional; they are rounded."""
    report = {
        "updatesElapsed": _number("UPDATES", updates),
        "numAlpha": round(_number("NUM_ALPHA", num_alpha)),
        "numBeta": round(_number("NUM_BETA", num_beta)),
    }
    path = _variable("KNOCKEM_RESULT")
    partial = f"{path}.{os.getpid()}"
    with open(partial, "w", encoding="ascii") as file:  # noqa: PTH123
        json.dump(report, file)
    os.replace(partial, path)  # noqa: PTH105


def cleanup_genome(genome: str) -> None:
    """Do nothing: genomes go when the container goes."""


def main(arguments: "list[str]") -> int:
    """Carry out one command; return the exit code, 2 for one that cannot be carried out."""
    commands = {
        "fetch-genome": (fetch_genome, 1),
        "report-competition": (report_competition, 3),
        "cleanup-genome": (cleanup_genome, 1),
    }
    name, values = (arguments or [""])[0], arguments[1:]
    try:
        if name not in commands or len(values) != commands[name][1]:
            raise UsageError(USAGE)
        commands[name][0](*values)
    except UsageError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _variable(name: str) -> str:
    if name not in os.environ:
        raise UsageError(f"{name} is not set: this command works inside a competition only")
    return os.environ[name]


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise UsageError(f"{name} must be a number, not {text!r}") from None
    if not math.isfinite(number) or number < 0:
        raise UsageError(f"{name} must be a finite number, zero or more, not {text!r}")
    return number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
