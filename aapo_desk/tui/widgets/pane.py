"""A piece of text that scrolls up and down and leaves the other keys to the screen."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static


class Pane(VerticalScroll, inherit_bindings=False):
    """Scrolls with up and down, k and j, and the mouse wheel."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll_up", "Scroll up", show=False),
        Binding("down,j", "scroll_down", "Scroll down", show=False),
        Binding("pageup", "page_up", "Page up", show=False),
        Binding("pagedown", "page_down", "Page down", show=False),
    ]


def put(static: Static, content: Content) -> None:
    """The text's new content. All is laid out anew only where its height changes: that costs as much as drawing it."""
    static.update(content, layout=False)
    width, height = static.content_size
    if not width or static.visual.get_height(static.styles.get_rules(), width) != height:
        static.refresh(layout=True)
