from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.color import Color

from aapo_desk.locales import shows_symbols
from aapo_desk.store import RunDirectory
from aapo_desk.tui.labels import STATE_SYMBOLS
from aapo_desk.tui.symbols import GLYPHS, AsciiFilter, ascii_filter, symbol
from aapo_desk.tui.text import visible
from aapo_desk.tui.widgets.blocks import GROWING, RISING
from aapo_desk.tui.widgets.braille import Frame, Series, draw
from tests.tui.driving import NARROW, WIDE, Desk, press, settle, shown

Compare = Callable[..., bool]
SYMBOLS, EVERYTHING = AsciiFilter(everything=False), AsciiFilter(everything=True)


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_no_cell_of_any_screen_is_beyond_ascii(desk: Desk, run: RunDirectory, size: tuple[int, int]) -> None:
    app = desk(ascii_only=SYMBOLS)
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        for keys in (
            [],
            ["tab", "enter"],
            ["n", "tab", "enter"],
            ["o"],
            ["s"],
            ["n", "question_mark"],
            ["escape", "ctrl+p"],
        ):
            await press(pilot, *keys)
            app.notify("what it says")
            await settle(pilot)
            text = shown(app)
            assert text.isascii(), (keys, sorted({letter for letter in text if not letter.isascii()}))


async def test_the_screen_says_the_same_in_ascii(desk: Desk, run: RunDirectory) -> None:
    said = []
    for drawn_through in (None, SYMBOLS):
        app = desk(run, ascii_only=drawn_through)
        async with app.run_test(size=WIDE) as pilot:
            await settle(pilot)
            said.append(shown(app).split("\n"))
    assert [cell_len(line) for line in said[0]] == [cell_len(line) for line in said[1]]
    words = [re.findall(r"[A-Za-z0-9.]{3,}", " ".join(lines)) for lines in said]
    assert {word for word in words[0] if len(word) > 3} <= set(words[1])


async def test_keys_are_told_by_their_names_where_their_symbols_would_say_nothing(
    desk: Desk, run: RunDirectory
) -> None:
    app = desk(ascii_only=SYMBOLS)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        assert shown(app).splitlines()[-1].startswith("enter Open ")
        await press(pilot, "tab")
        assert re.fullmatch(r"enter Start e Edit first .* q Quit \? Help *", shown(app).splitlines()[-1])


@pytest.mark.parametrize("size", [NARROW, WIDE])
def test_monitor_in_ascii(snap_compare: Compare, desk: Desk, run: RunDirectory, size: tuple[int, int]) -> None:
    assert snap_compare(desk(run, ascii_only=SYMBOLS), terminal_size=size, run_before=settle)


def test_home_in_ascii(snap_compare: Compare, desk: Desk, run: RunDirectory) -> None:
    assert snap_compare(desk(ascii_only=SYMBOLS), terminal_size=NARROW, run_before=settle)


def test_every_state_has_a_mark_of_its_own_in_ascii() -> None:
    marks = {SYMBOLS.text(mark) for mark in STATE_SYMBOLS.values()}
    assert len(marks) == len(set(STATE_SYMBOLS.values()))
    assert all(mark.isascii() and len(mark) == 1 for mark in marks)


def test_bars_are_the_fuller_the_more_they_stand_for() -> None:
    assert SYMBOLS.text(RISING) == " _.:-=+*#"
    assert SYMBOLS.text(GROWING) == " ||||||##"
    assert SYMBOLS.text("▕████▌   ▏") == "|#####|   |".replace("#####", "####")


@pytest.mark.parametrize(
    ("ys", "drawn"),
    [
        ([0, 1, 2, 3], ".'"),
        ([3, 2, 1, 0], "'."),
        ([0, 0, 0, 0], "__"),
        ([3, 3, 3, 3], "''"),
        ([0, 3, 3, 3], "/'"),
        ([3, 0, 0, 0], "\\_"),
    ],
)
def test_a_line_of_dots_goes_the_same_way_in_ascii(ys: list[float], drawn: str) -> None:
    line = Series("line", [0, 1, 2, 3], ys, "line")
    (row,) = draw([line], 2, 1, Frame(0, 3, 0, 3))
    assert SYMBOLS.text(row.text) == drawn


def test_every_braille_cell_is_one_ascii_character_and_only_the_empty_one_is_blank() -> None:
    cells = [symbol(chr(code)) for code in range(0x2800, 0x2900)]
    assert all(cell is not None and cell.isascii() and len(cell) == 1 for cell in cells)
    assert [place for place, cell in enumerate(cells) if cell == " "] == [0]


def test_every_symbol_in_the_table_is_as_wide_as_before() -> None:
    for glyph, mark in GLYPHS.items():
        assert mark.isascii(), glyph
        assert len(mark) == 1, glyph
        assert len(SYMBOLS.text(glyph)) == cell_len(glyph), glyph


def test_letters_stay_unless_the_terminal_cannot_show_them() -> None:
    assert SYMBOLS.text("größer 数 → ✓") == "größer 数 > +"
    assert EVERYTHING.text("größer 数 → ✓") == "gr??er ?? > +"


@given(st.text())
def test_any_text_becomes_ascii_of_the_same_width(text: str) -> None:
    safe = visible(text).replace("\n", "")
    shown = EVERYTHING.text(safe)
    assert shown.isascii()
    assert len(shown) == cell_len(safe)


@given(st.text())
def test_where_letters_stay_nothing_moves(text: str) -> None:
    safe = visible(text).replace("\n", "")
    shown = SYMBOLS.text(safe)
    assert cell_len(shown) == cell_len(safe)
    assert all(unicodedata.category(letter)[0] != "S" or symbol(letter) is None for letter in shown)


def test_the_filter_keeps_styles_and_leaves_ascii_segments_alone() -> None:
    plain, drawn = Segment("abc", Style(bold=True)), Segment("─✓", Style(italic=True))
    result = SYMBOLS.apply([plain, drawn], Color(0, 0, 0))
    assert result[0] is plain
    assert result[1] == Segment("-+", Style(italic=True))


@pytest.mark.parametrize(
    ("variables", "encoding", "able"),
    [
        ({"LANG": "en_US.UTF-8"}, "utf-8", True),
        ({"LANG": "de_DE.utf8"}, "utf-8", True),
        ({"LANG": "C.UTF-8"}, "utf-8", True),
        ({"LANG": "C"}, "utf-8", False),
        ({"LANG": "POSIX"}, "utf-8", False),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, "utf-8", False),  # as Python has changed it for itself
        ({"LANG": "C", "LC_CTYPE": "en_US.UTF-8"}, "utf-8", True),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "C"}, "utf-8", False),
        ({"LANG": "en_US.ISO-8859-1"}, "utf-8", False),
        ({"LANG": "de_DE@euro"}, "iso8859-15", False),
        ({"LANG": "en_US.UTF-8"}, "latin-1", False),
        ({"LANG": "en_US.UTF-8"}, None, True),
        ({}, "utf-8", True),
        ({"LC_CTYPE": "C.UTF-8"}, "utf-8", True),
    ],
)
def test_the_locale_tells_what_the_terminal_shows(variables: dict[str, str], encoding: str | None, able: bool) -> None:
    assert shows_symbols(variables, encoding) is able


def test_what_the_user_says_goes_before_the_locale() -> None:
    able, unable = {"LANG": "en_US.UTF-8"}, {"LANG": "C"}
    assert ascii_filter(None, able, "utf-8") is None
    assert ascii_filter(False, unable, "utf-8") is None
    chosen, forced = ascii_filter(True, able, "utf-8"), ascii_filter(None, unable, "utf-8")
    assert chosen is not None
    assert chosen.text("é") == "é"
    assert forced is not None
    assert forced.text("é") == "?"
