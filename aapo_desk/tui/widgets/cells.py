"""Conversion of styled pieces of text to the lines that Textual draws."""

from __future__ import annotations

from collections.abc import Iterable

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

Piece = tuple[str, Style]


def strip(pieces: Iterable[Piece], width: int, ground: Style) -> Strip:
    """Return one line of exactly ``width`` cells: cut, or padded with blanks in the style ``ground``."""
    segments: list[Segment] = []
    left = width
    for text, style in pieces:
        size = cell_len(text)
        if size > left:
            text, size = set_cell_size(text, left), left
        if text:
            segments.append(Segment(text, ground + style))
        left -= size
        if left <= 0:
            break
    if left > 0:
        segments.append(Segment(" " * left, ground))
    return Strip(segments, width)


def runs(characters: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Join neighbours of the same name: [("⣿", "a"), ("⣿", "a"), (" ", "")] becomes [("⣿⣿", "a"), (" ", "")]."""
    joined: list[tuple[str, str]] = []
    for character, name in characters:
        if joined and joined[-1][1] == name:
            joined[-1] = (joined[-1][0] + character, name)
        else:
            joined.append((character, name))
    return joined
