"""What every benchmark answers with: measurements beside their references, for people and for programs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from rich import box
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measured `value` in its `unit`, from `n` repetitions, beside the value of a named `reference` if any."""

    name: str
    value: float
    unit: str
    n: int
    reference: str = ""
    reference_value: float | None = None

    @property
    def ratio(self) -> float | None:
        """Return value / reference value; None where there is no reference or it is zero."""
        return self.value / self.reference_value if self.reference_value else None


def as_json(measurements: Sequence[Measurement]) -> str:
    """Return the measurements as a JSON list of {name, value, unit, reference, reference_value, ratio, n}."""
    return json.dumps([{**asdict(each), "ratio": each.ratio} for each in measurements], indent=2)


def print_table(measurements: Sequence[Measurement], *, title: str, console: Console | None = None) -> None:
    """Print the measurements as a table for people."""
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("measurement")
    table.add_column("value", justify="right")
    table.add_column("unit")
    for name in ("reference value", "ratio", "n"):
        table.add_column(name, justify="right")
    table.add_column("reference")
    for each in measurements:
        table.add_row(
            each.name,
            _number(each.value),
            each.unit,
            _number(each.reference_value),
            _number(each.ratio),
            f"{each.n:,}",
            each.reference,
        )
    (console or Console()).print(table)


def command(run: Callable[[float, int], Sequence[Measurement]], *, about: str | None, title: str) -> None:
    """Be a benchmark's command line: run it at the scale and seed that were given, and print what it measured."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full number of repetitions (default 1)")
    parser.add_argument("--seed", type=int, default=1, help="same seed, same random numbers (default 1)")
    parser.add_argument("--json", action="store_true", help="a JSON list instead of a table")
    chosen = parser.parse_args()
    measured = run(chosen.scale, chosen.seed)
    if chosen.json:
        print(as_json(measured))
    else:
        print_table(measured, title=title)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
