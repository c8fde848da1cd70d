"""Figures as bytes: a standalone SVG, a PNG for print or a small one as preview, and SVG that lives inside a page."""

from __future__ import annotations

import base64
import io
import re
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image

from knockem_dagster.reports.figure_style import BLUE, GRID, INK, NEUTRAL, ORANGE, PAPER, WIDTH_INCHES

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_RASTER_DOTS_PER_INCH = 300
_PRINT_DOTS_PER_INCH = 600
_PREVIEW_WIDTHS = (480, 400, 360, 320, 280, 240, 160)
_PREVIEW_COLOURS = (64, 32, 16)

# The page's style sheet gives each colour a value on light and on dark paper.
_PAGE_COLOURS = {
    PAPER: "var(--paper)",
    INK: "var(--ink)",
    GRID: "var(--grid)",
    NEUTRAL: "var(--neutral)",
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
}


def to_svg(figure: Figure) -> str:
    """Return the figure as a standalone SVG document; the same figure gives the same text."""
    _settle(figure)
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "knockem"}):
        figure.savefig(buffer, format="svg", dpi=_RASTER_DOTS_PER_INCH, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def to_data_uri(figure: Figure) -> str:
    """Return the figure as an address that holds the standalone SVG document itself."""
    return f"data:image/svg+xml;base64,{base64.b64encode(to_svg(figure).encode()).decode()}"


def to_png(figure: Figure, *, max_bytes: int = 20_000) -> bytes:
    """Return the figure as a PNG about 480 pixels wide, with fewer colours and pixels until it fits.

    Raises ValueError when it does not fit at 160 pixels and 16 colours.
    """
    _settle(figure)
    for width in _PREVIEW_WIDTHS:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=width / WIDTH_INCHES)
        picture = Image.open(buffer).convert("RGB")
        for colours in _PREVIEW_COLOURS:
            smaller = io.BytesIO()
            palette = picture.quantize(colors=colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
            palette.save(smaller, format="PNG", optimize=True)
            if smaller.tell() <= max_bytes:
                return smaller.getvalue()
    raise ValueError(
        f"this figure does not fit into {max_bytes:,} bytes as a preview; "
        "allow more, or store it as an object and link it"
    )


def to_print_png(figure: Figure) -> bytes:
    """Return the figure as a PNG for print: 600 dots per inch at the figure's own width."""
    _settle(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_PRINT_DOTS_PER_INCH)
    return buffer.getvalue()


def _settle(figure: Figure) -> None:
    """Lay the figure out once: a second pass of the layout engine would shift everything by a hair."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")


def to_page_svg(figure: Figure, *, name: str, description: str) -> str:
    """Return the figure as an `<svg>` element for a page that holds several.

    `name` (letters, digits, hyphens) makes its ids unique in the page; `description` is read out instead
    of the picture. Colours become the page's, sizes its column's.
    """
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(to_svg(figure))
    for unwanted in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
        for parent in root.iter():
            for child in parent.findall(unwanted):
                parent.remove(child)
    for element in root.iter():
        for key, value in element.attrib.items():
            element.set(key, _for_page(key, value, name))
    del root.attrib["width"], root.attrib["height"]
    root.set("role", "img")
    root.set("aria-label", description)
    return ElementTree.tostring(root, encoding="unicode")


def _for_page(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == f"{{{_XLINK}}}href":
        return re.sub(r"^#", f"#{name}-", value)
    value = value.replace("url(#", f"url(#{name}-")
    if key in ("style", "fill", "stroke"):
        for colour, variable in _PAGE_COLOURS.items():
            value = value.replace(colour, variable)
    return value
