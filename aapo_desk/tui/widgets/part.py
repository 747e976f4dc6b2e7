"""The base class of the panels beside the charts; in a narrow terminal one panel at a time is below the charts."""

from __future__ import annotations

from typing import ClassVar

from rich.style import Style
from textual.strip import Strip

from aapo_desk.tui.widgets.cells import Piece, strip
from aapo_desk.tui.widgets.drawn import Drawn


class Part(Drawn):
    """A panel of lines made of styled pieces.

    ``KIND`` is the prefix of its component classes, as in ``teaching--title``.
    """

    KIND: ClassVar[str]
    ALLOW_SELECT = False

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id, classes="part")

    def pieces(self, y: int) -> list[Piece]:
        """Return the pieces of line ``y``; an empty list leaves it blank."""
        raise NotImplementedError

    def render_line(self, y: int) -> Strip:
        return strip(self.pieces(y), self.size.width, self.ground)

    def _style(self, part: str) -> Style:
        return self.get_component_rich_style(f"{self.KIND}--{part}")
