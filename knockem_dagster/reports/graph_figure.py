"""A graph of jobs as a picture: levels from left to right, each node with a bar of its jobs' states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.sax.saxutils import escape, quoteattr

STATE_COLOURS = {
    "blocked": "#c3cad2",
    "ready": "#e3b341",
    "running": "#2a7fb8",
    "completed": "#3a9a5b",
    "failed": "#cc3b3b",
    "canceled": "#9a6fb0",
    "terminated": "#b0563f",
    "disabled": "#8b939e",
}
"""In the order of a job's life. Pictures name states in words besides: colours alone tell too little."""
_WIDTH, _HEIGHT, _ACROSS, _DOWN, _MARGIN = 190, 46, 70, 14, 12
_LETTERS = 26
_ROUNDS = 4
_STYLE = (
    "text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,'Liberation Sans',sans-serif;fill:#27303b}"
    ".small{font-size:10.5px;fill:#5b6673}.node rect.box{fill:#fff;stroke:#aab3bd}"
    ".edge{fill:none;stroke:#aab3bd;stroke-width:1.3}.node{cursor:pointer}.node:hover rect.box{stroke:#1f6fa8}"
)


@dataclass(frozen=True, slots=True)
class FigureNode:
    """A node: its name, its level from the left, how many of its jobs are in which state."""

    name: str
    level: int
    states: Mapping[str, int]


def graph_svg(nodes: Sequence[FigureNode], edges: Sequence[tuple[int, int]], *, title: str) -> str:
    """Return the picture as SVG. Edges are pairs of places in `nodes`, the one waited for first."""
    points, ways = _with_ways(nodes, edges)
    rows = _rows(points, [pair for way in ways for pair in pairwise(way)])
    levels = 1 + max((node.level for node in nodes), default=0)
    tallest = 1 + max(rows, default=0)
    width = 2 * _MARGIN + levels * _WIDTH + (levels - 1) * _ACROSS
    height = 2 * _MARGIN + tallest * (_HEIGHT + _DOWN) + 22
    corners = [
        (
            _MARGIN + node.level * (_WIDTH + _ACROSS),
            _MARGIN + row * (_HEIGHT + _DOWN) + _offset(points, node.level, tallest),
        )
        for node, row in zip(points, rows, strict=True)
    ]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" aria-label={quoteattr(title)}><title>{escape(title)}</title><style>{_STYLE}</style>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        *(_edge([corners[place] for place in way]) for way in ways),
        *(_node(node, corner) for node, corner in zip(nodes, corners, strict=False)),
        _legend(nodes, height - _MARGIN),
        "</svg>",
    ]
    return "\n".join(parts)


def _with_ways(
    nodes: Sequence[FigureNode], edges: Sequence[tuple[int, int]]
) -> tuple[list[FigureNode], list[list[int]]]:
    """Return the nodes, followed by the points at which long edges pass the levels between; and each edge's points."""
    points, ways = list(nodes), list[list[int]]()
    for origin, target in edges:
        way = [origin]
        for level in range(nodes[origin].level + 1, nodes[target].level):
            points.append(FigureNode(nodes[target].name, level, {}))
            way.append(len(points) - 1)
        ways.append([*way, target])
    return points, ways


def _rows(nodes: Sequence[FigureNode], edges: Sequence[tuple[int, int]]) -> list[int]:
    """Return for each node its row within its level: near the middle of its neighbours, so that few edges cross."""
    by_level: dict[int, list[int]] = {}
    for place, node in enumerate(nodes):
        by_level.setdefault(node.level, []).append(place)
    neighbours: dict[int, list[int]] = {place: [] for place in range(len(nodes))}
    for origin, target in edges:
        neighbours[origin].append(target)
        neighbours[target].append(origin)
    rows = {place: float(row) for places in by_level.values() for row, place in enumerate(places)}
    for _ in range(_ROUNDS):
        for places in by_level.values():
            middle = {
                place: sum(rows[each] for each in neighbours[place]) / len(neighbours[place])
                if neighbours[place]
                else rows[place]
                for place in places
            }
            places.sort(key=lambda place: (middle[place], nodes[place].name))
            rows |= {place: float(row) for row, place in enumerate(places)}
    return [int(rows[place]) for place in range(len(nodes))]


def _offset(nodes: Sequence[FigureNode], level: int, tallest: int) -> float:
    """Return how far down a level begins, so that all are centred."""
    number = sum(node.level == level for node in nodes)
    return (tallest - number) * (_HEIGHT + _DOWN) / 2


def _edge(corners: Sequence[tuple[float, float]]) -> str:
    """Draw an edge from the right of its first corner's box, across those between, to the left of the last one's."""
    (x, y), *rest = [(x, y + _HEIGHT / 2) for x, y in corners]
    path = [f"M{x + _WIDTH:g},{y:g}"]
    before = (x + _WIDTH, y)
    for number, (x, y) in enumerate(rest, start=1):
        bend = max(30.0, (x - before[0]) / 2)
        path.append(f"C{before[0] + bend:g},{before[1]:g} {x - bend:g},{y:g} {x:g},{y:g}")
        before = (x, y)
        if number < len(rest):
            path.append(f"H{x + _WIDTH:g}")
            before = (x + _WIDTH, y)
    return f'<path class="edge" d="{" ".join(path)}"/>'


def _node(node: FigureNode, corner: tuple[float, float]) -> str:
    x, y = corner
    number = sum(node.states.values())
    told = ", ".join(f"{count:,} {state}" for state, count in _ordered(node.states))
    striking = [f"{node.states[state]:,} {state}" for state in ("failed", "running") if node.states.get(state)]
    short = told.partition(" ")[2] if number == 1 else ", ".join([f"{number:,} jobs", *striking])
    name = node.name if len(node.name) <= _LETTERS else f"{node.name[: _LETTERS - 1]}…"
    bar: list[str] = []
    left = x + 8.0
    for state, count in _ordered(node.states):
        share = (_WIDTH - 16) * count / number
        colour = STATE_COLOURS[state]
        bar.append(f'<rect x="{left:.1f}" y="{y + 36:g}" width="{share:.1f}" height="5" fill="{colour}"/>')
        left += share
    return (
        f'<g class="node" data-name={quoteattr(node.name)}><title>{escape(f"{node.name}: {told}")}</title>'
        f'<rect class="box" x="{x:g}" y="{y:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="6"/>'
        f'<text x="{x + 8:g}" y="{y + 16:g}">{escape(name)}</text>'
        f'<text class="small" x="{x + 8:g}" y="{y + 30:g}">{escape(short)}</text>{"".join(bar)}</g>'
    )


def _legend(nodes: Sequence[FigureNode], y: float) -> str:
    there = [state for state in STATE_COLOURS if any(node.states.get(state) for node in nodes)]
    parts: list[str] = []
    for number, state in enumerate(there):
        x = _MARGIN + 92 * number
        parts.append(f'<rect x="{x}" y="{y - 9:g}" width="10" height="10" fill="{STATE_COLOURS[state]}"/>')
        parts.append(f'<text class="small" x="{x + 15}" y="{y:g}">{state}</text>')
    return "".join(parts)


def _ordered(states: Mapping[str, int]) -> list[tuple[str, int]]:
    return [(state, states[state]) for state in STATE_COLOURS if states.get(state)]
