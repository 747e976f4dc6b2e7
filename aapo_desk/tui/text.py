"""Text that others wrote (models, data sets, logs), made safe to put on a terminal.

Nothing here parses markup, and what ``visible`` gives must never be parsed as markup either: hand it to
``textual.content.Content`` or ``rich.text.Text``.
"""

from __future__ import annotations

import re
import unicodedata

from rich.cells import cell_len
from textual.content import Content

TAB = "    "

# Invisible, or moving things about: controls, format characters (bidirectional controls, zero-width joiners),
# surrogates, private use, unassigned, and the separators that some terminals take for a new line.
UNSAFE_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# Letters and marks by category that leave nothing to see: a joiner of graphemes, fillers, vowels never drawn.
UNSEEN = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0}
# Wishes for another glyph, on whose width terminals disagree.
VARIATIONS = {*range(0x180B, 0x180E), 0x180F, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}
SKIN_TONES = range(0x1F3FB, 0x1F400)
FLAG_LETTERS = range(0x1F1E6, 0x1F200)
MOST_MARKS = 3
MOST_LINES = 1000  # drawing tens of thousands takes seconds


class _Visible(dict[int, str]):
    """A translation table that fills itself as characters turn up."""

    def __missing__(self, code: int) -> str:
        shown = self[code] = _shown(code)
        return shown


def _shown(code: int) -> str:
    character = chr(code)
    if character == "\t":
        return TAB
    if code < 0x20:
        return chr(0x2400 + code)  # ␀ ␁ ... ␛
    if code == 0x7F:
        return "␡"
    if code in VARIATIONS:
        return ""
    if code in FLAG_LETTERS:
        return f"⟨{chr(ord('A') + code - FLAG_LETTERS.start)}⟩"
    if code in UNSEEN or code in SKIN_TONES or unicodedata.category(character) in UNSAFE_CATEGORIES:
        return f"⟨U+{code:04X}⟩"
    return character


_table = _Visible({0x0A: "\n"})
_jamo = re.compile("[\u1100-\u11ff]+")


def visible(text: str, limit: int = 20_000) -> str:
    """``text`` with everything that is no plain character written out: ESC as ``␛``, U+202E as ``⟨U+202E⟩``.

    Line ends stay line ends, tabs become blanks, a flag becomes its letters (``⟨D⟩⟨E⟩``), syllables in parts are put
    together, accents piled on one letter are counted from the fourth on. What lies beyond ``limit`` characters or
    ``MOST_LINES`` lines is left out, and it is said how much.
    """
    end = min(limit, _end_of_lines(text, MOST_LINES))
    kept = text[:end].replace("\r\n", "\n").translate(_table)
    kept = _jamo.sub(lambda match: unicodedata.normalize("NFC", match[0]), kept)
    kept = _without_piles(kept)
    kept = "\n".join(_grounded(line) for line in kept.split("\n"))
    return kept if len(text) <= end else f"{kept}\n… {len(text) - end} more characters"


def one_line(text: str, limit: int = 400) -> str:
    """``visible`` text in one line: line ends become ``⏎``."""
    return visible(text[:limit].strip()).replace("\n", "⏎")


def plain(text: str, limit: int = 20_000) -> Content:
    """``visible`` text as content for a widget; never read as markup."""
    return Content(visible(text, limit))


def _end_of_lines(text: str, lines: int) -> int:
    """Where the first so many lines end."""
    at = -1
    for _ in range(lines):
        at = text.find("\n", at + 1)
        if at < 0:
            return len(text)
    return at


def _without_piles(text: str) -> str:
    """``text`` with no more than ``MOST_MARKS`` marks on a letter: a pile of them reaches into other lines."""
    marks = "".join(sorted(filter(_is_mark, set(text))))
    if not marks:
        return text
    pile = f"([{marks}]{{{MOST_MARKS}}})([{marks}]+)"
    return re.sub(pile, lambda match: f"{match[1]}⟨+{len(match[2])}⟩", text)


def _is_mark(character: str) -> bool:
    """Whether a character sits on the one before it and takes no cell of its own."""
    return cell_len(character) == 0 and character != "\n"


def _grounded(line: str) -> str:
    """A mark at the beginning of a line would sit on what lies before it: give it a ring to sit on."""
    return f"◌{line}" if line and _is_mark(line[0]) else line
