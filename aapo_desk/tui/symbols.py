"""Symbols in ASCII: for terminals, fonts and locales that cannot show box drawing, blocks and braille.

The widgets draw with the symbols of ``GLYPHS`` and the ranges below it. ``AsciiFilter`` is the last thing that happens
to a line before it is written, so no widget needs to know: each symbol becomes one ASCII character that looks like it.
"""

from __future__ import annotations

from collections.abc import Mapping

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from aapo_desk.locales import shows_symbols

KEYS_IN_ASCII = {"⏎": "enter", "⇥": "tab", "␣": "space"}
"""Keys whose symbol says nothing once it is one ASCII character."""

GLYPHS = {
    # states
    "◌": "o",
    "▶": ">",
    "‖": "=",
    "◧": "%",
    "✓": "+",
    "■": "#",
    "✗": "x",
    # marks
    "●": "O",
    "○": "o",
    "◉": "@",
    "◀": "<",
    "◂": "<",
    "▸": ">",
    "▹": ">",
    "▲": "^",
    "△": "^",
    "▴": "^",
    "▼": "v",
    "▽": "v",
    "▾": "v",
    "◆": "*",
    "◇": "*",
    "★": "*",
    "☆": "*",
    "•": "*",
    "⚠": "!",
    "✔": "+",
    "✕": "x",
    "✘": "x",
    "⏎": "|",
    "␣": "_",
    "🔎": ">",
    "⌫": "<",
    "⌦": ">",
    # punctuation
    "·": "-",
    "–": "-",
    "—": "-",
    "−": "-",
    "…": "~",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "⟨": "<",
    "⟩": ">",
    "«": "<",
    "»": ">",
    "\u00a0": " ",
    # arithmetic
    "×": "x",
    "÷": "/",
    "±": "~",
    "≈": "~",
    "≤": "<",
    "≥": ">",
    "≠": "!",
    "°": "o",
    "²": "2",
    "³": "3",
    "Δ": "D",
    "∞": "8",
    # arrows
    "←": "<",
    "→": ">",
    "↑": "^",
    "↓": "v",
    "↔": "-",
    "↕": "|",
    "⇥": ">",
    "⇤": "<",
    "↵": "|",
    "↩": "<",
    # lines, where the name of the character does not tell: see _line
    "═": "=",
    "━": "=",
    "╍": "-",
    "┅": "-",
    "┉": "-",
    "╱": "/",
    "╲": "\\",
    "╳": "X",
    "╴": "-",
    "╶": "-",
    "╸": "=",
    "╺": "=",
    "╼": "-",
    "╾": "-",
    # blocks: columns rising from below, bars growing to the right, halves, shades
    "▁": "_",
    "▂": ".",
    "▃": ":",
    "▄": "-",
    "▅": "=",
    "▆": "+",
    "▇": "*",
    "█": "#",
    "▏": "|",
    "▎": "|",
    "▍": "|",
    "▌": "|",
    "▋": "|",
    "▊": "|",
    "▉": "#",
    "▕": "|",
    "▐": "|",
    "▀": '"',
    "▔": "-",
    "░": ".",
    "▒": "+",
    "▓": "%",
}

BOXES, BLOCKS, BRAILLE, PICTURES = (
    range(0x2500, 0x2580),
    range(0x2580, 0x25A0),
    range(0x2800, 0x2900),
    range(0x2400, 0x2440),
)
# What else draws and is no letter: arrows, mathematics, technical signs, shapes, dingbats, blocks of old computers.
SIGNS = (range(0x2190, 0x2400), range(0x25A0, 0x2800), range(0x2900, 0x2C00), range(0x1FB00, 0x1FC00))
UPRIGHT = frozenset("│┃║┆┇┊┋╎╏╵╷╹╻╽╿")
LEVEL = frozenset("─┄┈╌")


class AsciiFilter(LineFilter):
    """Every symbol as an ASCII character of the same width; with ``everything`` letters beyond ASCII too, as ``?``."""

    def __init__(self, everything: bool) -> None:
        super().__init__()
        self._table = _Everything() if everything else _Symbols()

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            segment if segment.text.isascii() else Segment(self.text(segment.text), segment.style, segment.control)
            for segment in segments
        ]

    def text(self, text: str) -> str:
        """The text, as many cells wide as before."""
        shown = text.translate(self._table)
        width = cell_len(text)
        return shown if len(shown) == width else set_cell_size(shown, width)


def ascii_filter(wanted: bool | None, environment: Mapping[str, str], encoding: str | None) -> AsciiFilter | None:
    """What to draw through; None where symbols are drawn as they are.

    ``wanted``: what the user said; None leaves it to the locale. Where the terminal cannot show more than ASCII, what
    models wrote is shown in ASCII too.
    """
    able = shows_symbols(environment, encoding)
    return AsciiFilter(everything=not able) if (not able if wanted is None else wanted) else None


class _Symbols(dict[int, str]):
    """A translation table that fills itself as characters turn up. A wide symbol gets a blank behind."""

    def __missing__(self, code: int) -> str:
        shown = self[code] = self.replacement(chr(code))
        return shown

    def replacement(self, character: str) -> str:
        shown = character if character.isascii() else symbol(character)
        return character if shown is None else shown.ljust(cell_len(character))


class _Everything(_Symbols):
    def replacement(self, character: str) -> str:
        shown = super().replacement(character)
        return shown if shown.isascii() else "?" * cell_len(character)


def symbol(character: str) -> str | None:
    """The ASCII character for one that draws something; None for what is a letter, a digit or ASCII already."""
    code = ord(character)
    if character in GLYPHS:
        return GLYPHS[character]
    if code in BRAILLE:
        return _dots(code - BRAILLE.start)
    if code in BOXES:
        return "|" if character in UPRIGHT else "-" if character in LEVEL else "+"
    if code in BLOCKS:
        return "#"
    if code in PICTURES:
        return "?"
    return "*" if any(code in signs for signs in SIGNS) else None


def _dots(mask: int) -> str:
    """A braille cell as the stroke that lies like its dots."""
    left = [row for row, bit in enumerate((0x01, 0x02, 0x04, 0x40)) if mask & bit]
    right = [row for row, bit in enumerate((0x08, 0x10, 0x20, 0x80)) if mask & bit]
    rows = sorted({*left, *right})
    if not rows:
        return " "
    if len(left) + len(right) == 1:
        return "'" if rows[0] < 2 else "."
    if rows[-1] - rows[0] < 2:
        return "''---._"[rows[0] + rows[-1]]
    if not (left and right):
        return "|"
    slope = sum(right) / len(right) - sum(left) / len(left)
    if abs(slope) >= 1:
        return "\\" if slope > 0 else "/"
    return "#" if len(left) + len(right) > 5 else "|" if len(rows) > 2 else ":"
