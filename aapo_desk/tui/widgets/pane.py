"""A container that scrolls up and down and leaves all other keys to the screen."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static


class Pane(VerticalScroll, inherit_bindings=False):
    """A container that scrolls with up and down, k and j, page up and page down, and the mouse wheel."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll_up", "Scroll up", show=False),
        Binding("down,j", "scroll_down", "Scroll down", show=False),
        Binding("pageup", "page_up", "Page up", show=False),
        Binding("pagedown", "page_down", "Page down", show=False),
    ]


def put(static: Static, content: Content) -> None:
    """Replace the content of a text, with a new layout only if its height changes: that takes as long as drawing it."""
    static.update(content, layout=False)
    width, height = static.content_size
    if not width or static.visual.get_height(static.styles.get_rules(), width) != height:
        static.refresh(layout=True)
