"""Pictures of graphs: every node and edge is there, states are told in words, and no name can break out of it."""

from __future__ import annotations

from xml.etree import ElementTree

from knockem_dagster.reports.graph_figure import FigureNode, graph_svg

SVG = "{http://www.w3.org/2000/svg}"
NODES = [
    FigureNode("prepare", 0, {"completed": 1}),
    FigureNode("measure_#", 1, {"completed": 3, "running": 1, "failed": 2}),
    FigureNode('<script>alert("&")</script>', 1, {"blocked": 1}),
    FigureNode("gather", 2, {"blocked": 1}),
]
EDGES = [(0, 1), (0, 2), (1, 3), (2, 3)]


def test_nodes_edges_and_states_are_in_the_picture() -> None:
    root = ElementTree.fromstring(graph_svg(NODES, EDGES, title="a <graph>"))
    assert [title.text for title in root.findall(f"{SVG}title")] == ["a <graph>"]
    found = {node.get("data-name"): node for node in root.iter(f"{SVG}g")}
    assert found.keys() == {node.name for node in NODES}
    assert len(root.findall(f"{SVG}path")) == len(EDGES)
    [title] = found["measure_#"].findall(f"{SVG}title")
    assert title.text == "measure_#: 1 running, 3 completed, 2 failed"
    bars = [float(bar.get("width", 0)) for bar in found["measure_#"].findall(f"{SVG}rect")[1:]]
    assert [round(width / sum(bars) * 6) for width in bars] == [1, 3, 2]
    assert not list(root.iter(f"{SVG}script"))


def test_levels_stand_from_left_to_right_and_do_not_overlap() -> None:
    root = ElementTree.fromstring(graph_svg(NODES, EDGES, title="t"))
    place = ("x", "y", "width", "height")
    boxes = {
        node.get("data-name"): [float(node.findall(f"{SVG}rect")[0].get(key, "0")) for key in place]
        for node in root.iter(f"{SVG}g")
    }
    first, second, other, last = (boxes[node.name] for node in NODES)
    assert first[0] + first[2] < second[0] == other[0]
    assert second[0] + second[2] < last[0]
    assert abs(second[1] - other[1]) > second[3]
    width, height = float(root.get("width", "0")), float(root.get("height", "0"))
    assert all(x + w <= width and y + h <= height for x, y, w, h in boxes.values())


def test_long_edges_pass_other_nodes_by() -> None:
    nodes = [FigureNode(name, level, {"ready": 1}) for level, name in enumerate("abc")]
    root = ElementTree.fromstring(graph_svg(nodes, [(0, 1), (1, 2), (0, 2)], title="t"))
    [box] = [node.findall(f"{SVG}rect")[0] for node in root.iter(f"{SVG}g") if node.get("data-name") == "b"]
    top, height = float(box.get("y", "0")), float(box.get("height", "0"))
    [long] = [path.get("d", "") for path in root.findall(f"{SVG}path") if "H" in path.get("d", "")]
    passes = float(long.partition(" H")[0].rpartition(",")[2])
    assert not top <= passes <= top + height


def test_an_empty_graph_is_a_picture() -> None:
    root = ElementTree.fromstring(graph_svg([], [], title="nothing"))
    assert [title.text for title in root.findall(f"{SVG}title")] == ["nothing"]
    assert min(float(root.get(side, "0")) for side in ("width", "height")) > 0
    assert not [*root.iter(f"{SVG}g"), *root.iter(f"{SVG}path")]
