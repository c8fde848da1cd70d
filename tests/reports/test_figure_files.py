from __future__ import annotations

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from knockem_dagster.reports import figures
from knockem_dagster.reports.figure_files import to_page_svg, to_png, to_svg
from knockem_dagster.reports.figure_style import new_figure
from knockem_dagster.reports.previews import figure_markdown
from tests.reports import synthetic


@pytest.fixture(scope="module")
def crowded() -> Figure:
    given = synthetic.inputs(num_sites=10_000)
    return figures.site_evidence(given.tables["sites"], given.truth)


def noise() -> Figure:
    figure = new_figure(2.3)
    figure.add_subplot().imshow(np.random.default_rng(1).random((300, 300)), interpolation="nearest")
    return figure


def test_png_is_a_480_pixel_preview_within_its_limit() -> None:
    given = synthetic.inputs(num_sites=1_000)
    picture = to_png(figures.dose_response(titration=given.tables["titration"], fit=given.dose_fit))
    assert len(picture) <= 20_000
    with Image.open(io.BytesIO(picture)) as opened:
        assert opened.format == "PNG"
        assert 470 <= opened.width <= 490


def test_png_of_ten_thousand_sites_is_still_readable(crowded: Figure) -> None:
    picture = to_png(crowded)
    assert len(picture) <= 20_000
    with Image.open(io.BytesIO(picture)) as opened:
        assert opened.width >= 320


def test_png_shrinks_until_it_fits() -> None:
    picture = to_png(noise(), max_bytes=9_000)
    assert len(picture) <= 9_000
    with Image.open(io.BytesIO(picture)) as opened:
        assert 150 <= opened.width < 470


def test_png_that_cannot_fit_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="store it as an object and link it"):
        to_png(noise(), max_bytes=300)


def test_markdown_preview_is_within_its_limit_with_its_base64(crowded: Figure) -> None:
    text = figure_markdown(crowded, description="evidence [by] site")
    assert len(text.encode()) <= 20_000
    found = re.fullmatch(r"!\[evidence \\\[by\\\] site\]\(data:image/png;base64,([A-Za-z0-9+/=]+)\)", text)
    assert found is not None
    with Image.open(io.BytesIO(base64.b64decode(found[1]))) as opened:
        opened.verify()


def test_svg_is_the_same_every_time(crowded: Figure) -> None:
    assert to_svg(crowded) == to_svg(crowded)


def test_page_svgs_do_not_share_ids(crowded: Figure) -> None:
    one, other = (
        {element.get("id") for element in ElementTree.fromstring(svg).iter() if element.get("id")}
        for svg in (to_page_svg(crowded, name=name, description="d") for name in ("one", "other"))
    )
    assert one
    assert one.isdisjoint(other)


def test_page_svg_finds_everything_it_refers_to(crowded: Figure) -> None:
    svg = to_page_svg(crowded, name="sites", description="d")
    ids = {element.get("id") for element in ElementTree.fromstring(svg).iter()}
    referred = set(re.findall(r"url\(#([^)]+)\)", svg)) | set(re.findall(r'href="#([^"]+)"', svg))
    assert referred
    assert referred <= ids


def test_page_svg_is_described_and_takes_its_size_from_the_page(crowded: Figure) -> None:
    root = ElementTree.fromstring(to_page_svg(crowded, name="sites", description='by "site" <1>'))
    assert root.get("role") == "img"
    assert root.get("aria-label") == 'by "site" <1>'
    assert root.get("viewBox")
    assert root.get("width") is None
