from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from aapo_desk.tui.text import one_line, plain, visible


@pytest.mark.parametrize(
    ("given_text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("a\x00b\x07c\x7f", "a␀b␇c␡"),
        ("c1 \x9b31m", "c1 ⟨U+009B⟩31m"),
        ("rtl \u202eevil\u202c", "rtl ⟨U+202E⟩evil⟨U+202C⟩"),
        ("isolate \u2066x\u2069", "isolate ⟨U+2066⟩x⟨U+2069⟩"),
        ("zero\u200bwidth\ufeff", "zero⟨U+200B⟩width⟨U+FEFF⟩"),
        ("line\u2028end", "line⟨U+2028⟩end"),
        ("a\tb", "a    b"),
        ("one\r\ntwo\rthree", "one\ntwo␍three"),
        ("👨\u200d👩", "👨⟨U+200D⟩👩"),
        ("❤\ufe0f", "❤"),
        ("👍🏽", "👍⟨U+1F3FD⟩"),
        ("🇩🇪 🇫", "⟨D⟩⟨E⟩ ⟨F⟩"),
        ("漢\U000e0100\u180b", "漢"),
        ("blank \u3164\u115f\u034f", "blank ⟨U+3164⟩⟨U+115F⟩⟨U+034F⟩"),
        ("\u1112\u1161\u11ab", "한"),
        ("\u0e01" + "\u0e49" * 5, "\u0e01\u0e49\u0e49\u0e49⟨+2⟩"),
        ("\u0903 first", "◌\u0903 first"),
        ("हिन्दी", "हिन्दी"),
        ("\ud800 alone", "⟨U+D800⟩ alone"),
        ("e" + "\u0301" * 9, "e\u0301\u0301\u0301⟨+6⟩"),
        ("\u0301first", "◌\u0301first"),
        ("[bold]not markup[/bold]", "[bold]not markup[/bold]"),
        ("naïve 漢字 42 + 1", "naïve 漢字 42 + 1"),
    ],
)
def test_controls_are_written_out_and_text_stays(given_text: str, shown: str) -> None:
    assert visible(given_text) == shown


def test_long_text_is_cut_and_says_how_much_is_left() -> None:
    assert visible("x" * 30, limit=10) == "x" * 10 + "\n… 20 more characters"


def test_many_lines_are_cut_and_say_how_much_is_left() -> None:
    assert visible("a\n" * 1500) == "a\n" * 999 + "a\n… 1001 more characters"


def test_one_line_marks_line_ends() -> None:
    assert one_line(" a\nb\n") == "a⏎b"


def test_plain_content_holds_markup_literally() -> None:
    assert plain("[red]x[/] [@click=app.quit]y[/]").plain == "[red]x[/] [@click=app.quit]y[/]"


@given(st.text(alphabet=st.characters(), max_size=200))
def test_nothing_invisible_or_controlling_is_left(text: str) -> None:
    shown = visible(text)
    assert not [c for c in shown if c != "\n" and unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}]
    assert "\x1b" not in shown


@given(st.text(alphabet=st.characters(), max_size=100))
def test_widths_add_up_character_by_character(text: str) -> None:
    """No sequence is drawn wider or narrower than its parts: terminals need not agree on sequences."""
    for line in visible(text).split("\n"):
        assert cell_len(line) == sum(cell_len(character) for character in line)
