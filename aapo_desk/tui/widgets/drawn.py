"""The base class of widgets that draw their own lines."""

from __future__ import annotations

from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget


class Drawn(Widget):
    """A widget that looks up its background style ``ground`` once for each drawing.

    The lookup takes as long as drawing a line.
    """

    ground = Style.null()

    def render_lines(self, crop: Region) -> list[Strip]:
        self.ground = self.rich_style
        return super().render_lines(crop)
