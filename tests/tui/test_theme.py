from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from textual.app import ComposeResult
from textual.color import Color
from textual.containers import VerticalScroll
from textual.pilot import Pilot
from textual.theme import Theme
from textual.widgets import (
    Checkbox,
    DataTable,
    Footer,
    Input,
    OptionList,
    Select,
    Static,
    Switch,
    TabbedContent,
    TabPane,
)

from aapo_desk.store import RunDirectory
from aapo_desk.tui.app import DeskApp
from aapo_desk.tui.screens.guard import DeskScreen
from aapo_desk.tui.settings import Settings, load_settings, save_settings, settings_file
from aapo_desk.tui.theme import COLOUR_BLIND, CONTRAST, DARK, LIGHT, THEMES
from tests.tui.contrast import LEAST, contrast, faint, texts
from tests.tui.driving import NARROW, WIDE, Desk, press, settle

Compare = Callable[..., bool]

GROUNDS = ("background", "surface", "panel")
COLOURS = ("foreground", "primary", "secondary", "accent", "success", "warning", "error")
each_theme = pytest.mark.parametrize("theme", THEMES.values(), ids=THEMES)


def on_ground(theme: Theme, ground: str, name: str, share: float = 1.0) -> float:
    below = Color.parse(getattr(theme, ground))
    return contrast(below.blend(Color.parse(getattr(theme, name)), share), below)


@each_theme
@pytest.mark.parametrize("ground", GROUNDS)
def test_text_of_every_colour_is_readable(theme: Theme, ground: str) -> None:
    """At least 4.5:1 (WCAG 2), also where the text is drawn at 70 %, as what is of less weight is."""
    for name in COLOURS:
        assert on_ground(theme, ground, name) >= LEAST, name
    assert on_ground(theme, ground, "foreground", 0.7) >= LEAST


@each_theme
def test_raw_points_and_the_scrollbar_can_be_seen(theme: Theme) -> None:
    """At least 3:1 for the points, which are no text; the scrollbar's knob differs from its ground."""
    assert on_ground(theme, "background", "foreground", 0.55) >= 3
    knob, ground = (Color.parse(theme.variables[name]) for name in ("scrollbar", "scrollbar-background"))
    assert contrast(knob, ground) >= 1.5


def test_the_high_contrast_theme_has_seven_to_one() -> None:
    for ground in GROUNDS:
        for name in COLOURS:
            assert on_ground(CONTRAST, ground, name) >= 7, (ground, name)


def seen_without(cone: str, colour: str) -> tuple[float, ...]:
    """A colour as someone sees it who lacks a cone: Machado, Oliveira and Fernandes (2009), severity 1, linear RGB."""
    matrices = {
        "red": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
        "green": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
        "blue": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
    }
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in Color.parse(colour).normalized
    ]
    return tuple(sum(a * b for a, b in zip(row, linear, strict=True)) for row in matrices[cone])


@pytest.mark.parametrize("cone", ["red", "green", "blue"])
def test_policy_and_reference_differ_for_the_colour_blind(cone: str) -> None:
    """In linear light, by more than a fifth of the way from black to white along one channel."""
    policy, reference = seen_without(cone, COLOUR_BLIND.primary), seen_without(cone, str(COLOUR_BLIND.secondary))
    assert max(abs(a - b) for a, b in zip(policy, reference, strict=True)) > 0.2


async def in_each_theme(pilot: Pilot[Any], app: DeskApp, region: str | None = None) -> dict[str, list[str]]:
    found = {}
    for name in THEMES:
        app.theme = name
        await pilot.pause()
        await pilot.pause()
        part = app.screen.query_one(region).region if region else None
        if unreadable := faint(app, part):
            found[name] = unreadable
    return found


async def test_all_text_of_the_wide_monitor_is_readable(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        assert await in_each_theme(pilot, app) == {}


async def test_all_text_of_the_monitor_and_of_its_dialogs_is_readable(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        for severity in ("information", "warning", "error"):
            app.notify(f"what it says: {severity}", severity=severity)
        await settle(pilot)
        assert await in_each_theme(pilot, app) == {}
        await press(pilot, "s")
        assert await in_each_theme(pilot, app, "#dialog") == {}
        await press(pilot, "escape", "question_mark")
        assert await in_each_theme(pilot, app, "#dialog") == {}
        await press(pilot, "escape", "ctrl+p")
        assert app.screen.query_one("CommandList").region
        assert await in_each_theme(pilot, app, "CommandList") == {}
        assert await in_each_theme(pilot, app, "CommandInput") == {}


async def test_all_text_of_home_is_readable_wherever_the_cursor_is(desk: Desk, run: RunDirectory) -> None:
    app = desk()
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        assert await in_each_theme(pilot, app) == {}
        await press(pilot, "tab")
        assert await in_each_theme(pilot, app) == {}


class Gallery(DeskScreen[None]):
    """Textual's widgets that screens are made of."""

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Input(placeholder="what is missing", id="empty")
            yield Input("0.5", disabled=True)
            yield Input("text")
            yield Checkbox("on", value=True)
            yield Checkbox("off")
            yield Checkbox("disabled", disabled=True)
            yield Switch(value=True)
            yield Select([("one", 1), ("two", 2)], prompt="choose")
            yield OptionList("first", "second")
            yield DataTable[str](cursor_type="row", zebra_stripes=True)
            with TabbedContent("chosen", "other"):
                yield TabPane("chosen", Static("chosen"))
                yield TabPane("other", Static("other"))
        yield Footer()

    def on_mount(self) -> None:
        table = self.query_one(DataTable)
        table.add_columns("column", "another")
        for row in range(3):
            table.add_row(str(row), "cell")


async def test_text_of_widgets_that_screens_may_use_is_readable(desk: Desk) -> None:
    app = desk()
    async with app.run_test(size=(100, 60)) as pilot:
        app.push_screen(Gallery())
        await settle(pilot)
        for _ in range(4):
            assert await in_each_theme(pilot, app) == {}
            await press(pilot, "tab")


async def test_only_our_themes_are_offered(desk: Desk) -> None:
    app = desk()
    async with app.run_test(size=NARROW):
        assert list(app.available_themes) == list(THEMES)


async def test_the_theme_that_was_chosen_is_there_again(desk: Desk) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        assert app.theme == DARK.name
        app.theme = LIGHT.name
        await settle(pilot)
        assert not app._notifications
    assert json.loads(settings_file().read_text()) == {"theme": LIGHT.name}
    assert desk().theme == LIGHT.name


async def test_a_theme_that_cannot_be_remembered_says_so_and_is_used(desk: Desk) -> None:
    settings_file().parent.parent.mkdir(parents=True, exist_ok=True)
    settings_file().parent.write_text("a file where the folder should be")
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        app.theme = LIGHT.name
        await settle(pilot)
        (said,) = app._notifications
        assert said.message.startswith("Could not save the theme: ")
        assert app.theme == LIGHT.name


@pytest.mark.parametrize("text", ["", "{", "[]", '{"theme": 3}', '{"theme": "textual-light"}', '{"theme": null}'])
def test_broken_settings_are_as_good_as_none(text: str) -> None:
    settings_file().parent.mkdir(parents=True)
    settings_file().write_text(text)
    assert load_settings() == Settings()


def test_settings_come_back() -> None:
    save_settings(Settings(theme=LIGHT.name))
    assert load_settings() == Settings(theme=LIGHT.name)


@pytest.mark.parametrize("theme", [LIGHT, COLOUR_BLIND], ids=lambda theme: theme.name)
def test_monitor_in_another_theme(snap_compare: Compare, desk: Desk, run: RunDirectory, theme: Theme) -> None:
    app = desk(run)
    app.theme = theme.name
    assert snap_compare(app, terminal_size=WIDE, run_before=settle)


@pytest.mark.parametrize("size", [NARROW, WIDE])
def test_home_without_colour(
    snap_compare: Compare, desk: Desk, run: RunDirectory, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert snap_compare(desk(), terminal_size=size, run_before=settle)


@pytest.mark.parametrize("keys", [[], ["tab"], ["enter"], ["enter", "s"], ["enter", "question_mark"]])
async def test_without_colour_no_colour_is_left_and_the_cursor_is_told_by_its_look(
    desk: Desk, run: RunDirectory, monkeypatch: pytest.MonkeyPatch, keys: list[str]
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, *keys)
        drawn = list(texts(app))
        for text, style in drawn:
            for colour in (style.color, style.bgcolor):
                red, green, blue = colour.get_truecolor() if colour else (0, 0, 0)
                assert red == green == blue, text
        if not keys:
            assert "sums-first-try" in {text.strip() for text, style in drawn if style.reverse}
        if keys == ["tab"]:
            assert "demo" in {text.strip() for text, style in drawn if style.underline and style.bold}
