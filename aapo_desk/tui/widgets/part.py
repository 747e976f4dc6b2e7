"""What stands beside the charts in a wide terminal, and one at a time below them in a narrow one."""

from __future__ import annotations

from typing import ClassVar

from rich.style import Style
from textual.strip import Strip

from aapo_desk.tui.widgets.cells import Piece, strip
from aapo_desk.tui.widgets.drawn import Drawn


class Part(Drawn):
    """Lines of styled pieces. ``KIND`` begins the names of its component classes, as in ``teaching--title``."""

    KIND: ClassVar[str]
    ALLOW_SELECT = False

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id, classes="part")

    def pieces(self, y: int) -> list[Piece]:
        """Line ``y``; empty where there is nothing to say."""
        raise NotImplementedError

    def render_line(self, y: int) -> Strip:
        return strip(self.pieces(y), self.size.width, self.ground)

    def _style(self, part: str) -> Style:
        return self.get_component_rich_style(f"{self.KIND}--{part}")
