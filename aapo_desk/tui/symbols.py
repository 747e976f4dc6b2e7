"""ASCII replacements for symbols, for terminals, fonts and locales without box drawing, block and braille characters.

The widgets draw with the symbols in ``GLYPHS`` and in the ranges below it. ``AsciiFilter`` is applied to each line just
before it is written, so widgets need no special case: each symbol becomes one ASCII character that looks like it.
"""

from __future__ import annotations

from collections.abc import Mapping

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from aapo_desk.locales import shows_symbols

KEYS_IN_ASCII = {"⏎": "enter", "⇥": "tab", "␣": "space"}
"""Names for the keys whose symbol would be meaningless as a single ASCII character."""

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
    # lines that the rule for box drawing in `symbol` would replace badly
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
    # blocks: columns growing upward, bars growing to the right, halves, shades
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
# Other symbols that are not letters: arrows, mathematics, technical signs, shapes, dingbats, legacy computing blocks.
SIGNS = (range(0x2190, 0x2400), range(0x25A0, 0x2800), range(0x2900, 0x2C00), range(0x1FB00, 0x1FC00))
UPRIGHT = frozenset("│┃║┆┇┊┋╎╏╵╷╹╻╽╿")
LEVEL = frozenset("─┄┈╌")


class AsciiFilter(LineFilter):
    """A line filter that replaces every symbol by ASCII of the same width.

    With ``everything``, all other non-ASCII characters, such as letters, become ``?``.
    """

    def __init__(self, everything: bool) -> None:
        super().__init__()
        self._table = _Everything() if everything else _Symbols()

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            segment if segment.text.isascii() else Segment(self.text(segment.text), segment.style, segment.control)
            for segment in segments
        ]

    def text(self, text: str) -> str:
        """Return the text in ASCII, with its width in cells unchanged."""
        shown = text.translate(self._table)
        width = cell_len(text)
        return shown if len(shown) == width else set_cell_size(shown, width)


def ascii_filter(wanted: bool | None, environment: Mapping[str, str], encoding: str | None) -> AsciiFilter | None:
    """Return the line filter to draw through, or None if symbols are drawn as they are.

    ``wanted``: the user's choice; None decides by the locale. If the terminal can show only ASCII, the text written by
    models is replaced as well.
    """
    able = shows_symbols(environment, encoding)
    return AsciiFilter(everything=not able) if (not able if wanted is None else wanted) else None


class _Symbols(dict[int, str]):
    """A table for ``str.translate`` that fills itself on demand. A wide symbol gets a space after it."""

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
    """Return the ASCII replacement of a symbol; None for letters, digits and ASCII characters."""
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
    """Return the ASCII character that looks most like the dots of a braille cell."""
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
