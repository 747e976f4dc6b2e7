"""Escaping of untrusted text (from models, data sets, logs) so that it is safe to show in a terminal.

Nothing here parses markup, and the result of ``visible`` must never be parsed as markup either: pass it to
``textual.content.Content`` or ``rich.text.Text``.
"""

from __future__ import annotations

import re
import unicodedata

from rich.cells import cell_len
from textual.content import Content

TAB = "    "

# Categories that are invisible or move other text: controls, format characters (bidirectional controls, zero-width
# joiners), surrogates, private use, unassigned, and the separators that some terminals treat as a new line.
UNSAFE_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# Invisible characters whose category is letter or mark: the grapheme joiner, fillers, and vowels that are never drawn.
UNSEEN = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0}
# Variation selectors, which request another glyph. Terminals disagree on its width.
VARIATIONS = {*range(0x180B, 0x180E), 0x180F, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}
SKIN_TONES = range(0x1F3FB, 0x1F400)
FLAG_LETTERS = range(0x1F1E6, 0x1F200)
MOST_MARKS = 3
MOST_LINES = 1000  # drawing tens of thousands of lines takes seconds


class _Visible(dict[int, str]):
    """A table for ``str.translate`` that fills itself on demand."""

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
    """Return ``text`` with every unsafe or invisible character spelled out: ESC as ``␛``, U+202E as ``⟨U+202E⟩``.

    Line ends stay line ends, tabs become spaces, a flag becomes its letters (``⟨D⟩⟨E⟩``), decomposed Hangul syllables
    are composed, and of the accents on one letter those after the third are replaced by their number. The text after
    ``limit`` characters or ``MOST_LINES`` lines is cut, and the number of characters left out is appended.
    """
    end = min(limit, _end_of_lines(text, MOST_LINES))
    kept = text[:end].replace("\r\n", "\n").translate(_table)
    kept = _jamo.sub(lambda match: unicodedata.normalize("NFC", match[0]), kept)
    kept = _without_piles(kept)
    kept = "\n".join(_grounded(line) for line in kept.split("\n"))
    return kept if len(text) <= end else f"{kept}\n… {len(text) - end} more characters"


def one_line(text: str, limit: int = 400) -> str:
    """Return ``visible`` text on one line: line ends become ``⏎``."""
    return visible(text[:limit].strip()).replace("\n", "⏎")


def plain(text: str, limit: int = 20_000) -> Content:
    """Return ``visible`` text as content for a widget; it is never parsed as markup."""
    return Content(visible(text, limit))


def _end_of_lines(text: str, lines: int) -> int:
    """Return the offset at which the first ``lines`` lines end."""
    at = -1
    for _ in range(lines):
        at = text.find("\n", at + 1)
        if at < 0:
            return len(text)
    return at


def _without_piles(text: str) -> str:
    """Limit the combining marks on a letter to ``MOST_MARKS``, since a pile of them reaches into other lines."""
    marks = "".join(sorted(filter(_is_mark, set(text))))
    if not marks:
        return text
    pile = f"([{marks}]{{{MOST_MARKS}}})([{marks}]+)"
    return re.sub(pile, lambda match: f"{match[1]}⟨+{len(match[2])}⟩", text)


def _is_mark(character: str) -> bool:
    """Return whether a character combines with the one before it and takes no cell of its own."""
    return cell_len(character) == 0 and character != "\n"


def _grounded(line: str) -> str:
    """Put a dotted circle before a mark at the start of a line; it would combine with the text left of it otherwise."""
    return f"◌{line}" if line and _is_mark(line[0]) else line
