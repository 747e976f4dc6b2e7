"""Text that would like to do something to the screen, and what the screen must look like all the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from hypothesis import strategies as st
from rich.cells import cell_len
from rich.segment import Segment
from textual.geometry import Region
from textual.strip import Strip

from aapo_desk.tui.app import DeskApp

PIECES = [
    "[bold red]", "[/]", "[/bold]", "[@click=app.quit]x[/]", "[link=http://a]", "[on red]", "\\[", "[$error]",
    "\x1b[2J", "\x1b[31m", "\x1b]8;;http://a\x1b\\", "\x1b]52;c;aGk=\x07", "\x1bP", "\x1b[10;10H", "\x1b", "\x00",
    "\x9b31m", "\x9d0;t\x9c", "\x85", "\r", "\r\n", "\n", "\n\n", "\t", "\v", "\f", "\b\b\b", "\x7f", "\x1c", "\u2028",
    "\u202e", "\u202d", "\u2066", "\u2069", "\u200f", "\u061c", "\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad",
    "e" + "\u0301" * 40, "\u0e01" + "\u0e49" * 12, "\u0627" + "\u064b" * 9, "\u0300", "\u20dd", "\u0903" * 5, "\u034f",
    "\ufe0f", "\U000e0100", "\u3164", "\u115f", "\u1160", "\u1112\u1161\u11ab", "\u180b", "\u17b4",
    "👨\u200d👩\u200d👧", "🇩🇪", "🇩", "👍🏽", "❤\ufe0f", "1\ufe0f\u20e3", "🏴\U000e0067\U000e007f", "🫠",
    "漢字", "ｆｕｌｌ", "한국어", "हिन्दी", "שלום", "مرحبا", "ﷺ", "\ud800", "\udfff", "\ue000", "\U000f0000", "\uffff",
    "\u00a0", "\u3000", "\u2003", "word", " ", "42", "a" * 120,
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES) | st.text(st.characters(), max_size=8), max_size=12).map("".join)

HUGE = [
    "x" * 100_000,
    "\n" * 100_000,
    "漢" * 100_000,
    "\u0301" * 100_000,
    "👨\u200d👩" * 33_333,
]
MARKS = "\u0300\u20dd\u0301\u0e49\u064b\u0903"
CONTROLS = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def screen(app: DeskApp) -> list[Strip]:
    return app.screen._compositor.render_strips()


def check_lines(strips: list[Strip], size: tuple[int, int]) -> None:
    """Every line is as wide as the screen, in whatever pieces it is counted, and holds nothing but text."""
    width, height = size
    assert len(strips) == height
    for strip in strips:
        line = strip.text
        assert sum(segment.cell_length for segment in strip) == width, line
        assert cell_len(line) == width, line
        assert sum(map(cell_len, line)) == width, line
        assert not any(unicodedata.category(character) in CONTROLS for character in line), repr(line)
        assert not re.search(f"[{MARKS}]{{4}}", line), ascii(line)  # a pile reaches into the lines around
        assert all(segment.control is None for segment in strip), repr(line)


def check_styles(strips: Iterable[Strip], allowed: set[object]) -> None:
    """No piece has a colour or attribute that the screen itself does not give, nor any link or action."""
    for strip in strips:
        for segment in strip:
            assert segment.style is None or (segment.style.link is None and "@click" not in segment.style.meta), segment
            assert looks(segment) in allowed, segment


def looks(segment: Segment) -> object:
    style = segment.style
    return style and (style.color, style.bgcolor, style.bold, style.italic, style.underline, style.blink, style.strike)


def outside(strips: list[Strip], inside: list[Region]) -> list[list[tuple[str, object]]]:
    """The cells that are in none of the regions, and how they look."""
    kept = []
    for y, strip in enumerate(strips):
        at, pieces = 0, []
        for left, right in sorted((region.x, region.right) for region in inside if region.y <= y < region.bottom):
            pieces.append(strip.crop(at, max(at, left)))
            at = max(at, right)
        pieces.append(strip.crop(at, strip.cell_length))
        cells = [(character, looks(segment)) for piece in pieces for segment in piece for character in segment.text]
        kept.append(cells)
    return kept
