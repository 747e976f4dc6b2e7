"""Text that others wrote (models, data sets, logs), made safe to put on a terminal.

Nothing here parses markup, and what ``visible`` gives must never be parsed as markup either: hand it to
``textual.content.Content`` or ``rich.text.Text``.
"""

from __future__ import annotations

import re
import unicodedata

from textual.content import Content

TAB = "    "

# Invisible, or moving things about: controls, format characters (bidirectional controls, zero-width joiners),
# surrogates, private use, unassigned, and the separators that some terminals take for a new line.
UNSAFE_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
MARK_CATEGORIES = {"Mn", "Me"}
MOST_MARKS = 3


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
    if 0xFE00 <= code <= 0xFE0F:
        return ""  # a wish for another glyph, on whose width terminals disagree
    if unicodedata.category(character) in UNSAFE_CATEGORIES or 0x1F3FB <= code <= 0x1F3FF:
        return f"⟨U+{code:04X}⟩"
    return character


_table = _Visible({0x0A: "\n"})
_mark = "".join(f"{low}-{high}" for low, high in [("\u0300", "\u036f"), ("\u0483", "\u0489"), ("\u1ab0", "\u1aff")])
_mark += "".join(f"{low}-{high}" for low, high in [("\u1dc0", "\u1dff"), ("\u20d0", "\u20ff"), ("\ufe20", "\ufe2f")])
_pile = re.compile(f"([{_mark}]{{{MOST_MARKS}}})([{_mark}]+)")


def visible(text: str, limit: int = 20_000) -> str:
    """``text`` with everything that is no plain character written out: ESC as ``␛``, U+202E as ``⟨U+202E⟩``.

    Line ends stay line ends, tabs become blanks, accents piled on one letter are counted from the fourth on. What
    lies beyond ``limit`` characters is left out, and it is said how much.
    """
    kept = text[:limit].replace("\r\n", "\n").translate(_table)
    kept = _pile.sub(lambda match: f"{match[1]}⟨+{len(match[2])}⟩", kept)
    kept = "\n".join(_grounded(line) for line in kept.split("\n"))
    return kept if len(text) <= limit else f"{kept}\n… {len(text) - limit} more characters"


def one_line(text: str, limit: int = 400) -> str:
    """``visible`` text in one line: line ends become ``⏎``."""
    return visible(text[:limit].strip()).replace("\n", "⏎")


def plain(text: str, limit: int = 20_000) -> Content:
    """``visible`` text as content for a widget; never read as markup."""
    return Content(visible(text, limit))


def _grounded(line: str) -> str:
    """A mark at the beginning of a line would sit on what lies before it: give it a ring to sit on."""
    return f"◌{line}" if line and unicodedata.category(line[0]) in MARK_CATEGORIES else line
