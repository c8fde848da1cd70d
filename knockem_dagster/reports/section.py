"""A section of a report: a titled figure and what it shows."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.figure import Figure

from knockem_dagster.reports.figure_files import to_data_uri, to_page_svg


@dataclass(frozen=True, slots=True)
class Section:
    """A titled figure, what it shows in one paragraph, and the same for those who cannot see it."""

    name: str
    title: str
    explanation: str
    figure: Figure
    description: str

    @property
    def svg(self) -> str:
        """The figure as an `<svg>` element."""
        return to_page_svg(self.figure, name=self.name, description=self.description)

    @property
    def file(self) -> str:
        """The figure as the address of an SVG file, for a link that saves it."""
        return to_data_uri(self.figure)
