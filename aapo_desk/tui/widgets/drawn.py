"""A widget that draws its lines itself."""

from __future__ import annotations

from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget


class Drawn(Widget):
    """``ground`` is the style below all it draws: found once a drawing, for finding it takes as long as a line."""

    ground = Style.null()

    def render_lines(self, crop: Region) -> list[Strip]:
        self.ground = self.rich_style
        return super().render_lines(crop)
