from __future__ import annotations

import base64
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from textual.binding import Binding
from textual.dom import DOMNode
from textual.screen import ModalScreen, Screen
from textual.widgets import OptionList

import aapo_desk.tui
from aapo_desk.store import RunDirectory, home
from aapo_desk.tui.app import DeskApp
from aapo_desk.tui.keys import offers
from aapo_desk.tui.screens.dialogs import Dialog, HelpScreen
from aapo_desk.tui.screens.guard import DeskScreen
from aapo_desk.tui.widgets.keysline import KeysLine
from tests.tui.driving import NARROW, WIDE, Desk, press, settle, shown


def node_classes() -> Iterator[type[DOMNode]]:
    """Every screen, widget and app of the desk that has keys of its own."""
    for module in pkgutil.walk_packages(aapo_desk.tui.__path__, "aapo_desk.tui."):
        for _, found in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if found.__module__ == module.name and issubclass(found, DOMNode) and "BINDINGS" in vars(found):
                yield found


CLASSES = list(node_classes())
SCREENS: list[type[DOMNode]] = [owner for owner in CLASSES if issubclass(owner, Screen)]
each_class = pytest.mark.parametrize("owner", CLASSES, ids=[owner.__name__ for owner in CLASSES])


def bindings(owner: type[DOMNode]) -> list[Binding]:
    return [binding for binding in Binding.make_bindings(owner.BINDINGS) if not binding.system]


def test_the_walk_finds_the_screens() -> None:
    assert {"DeskApp", "HomeScreen", "MonitorScreen", "RunTable", "Question"} <= {owner.__name__ for owner in CLASSES}


@each_class
def test_every_binding_is_offered_to_help_and_the_palette(owner: type[DOMNode]) -> None:
    keys = bindings(owner)
    offered = offers((None, binding) for binding in keys)
    assert sorted(binding.key for offer in offered for binding in offer.keys) == sorted(binding.key for binding in keys)
    assert all(offer.title and offer.text for offer in offered)


@each_class
def test_every_binding_leads_to_an_action(owner: type[DOMNode]) -> None:
    for binding in bindings(owner):
        target, _, name = binding.action.partition("(")[0].rpartition(".")
        holders: list[type[DOMNode]] = [owner] if not target else SCREENS if target == "screen" else [DeskApp]
        names = (f"action_{name}", f"_action_{name}")
        assert any(hasattr(holder, method) for holder in holders for method in names), binding


@pytest.mark.parametrize("owner", [owner for owner in CLASSES if issubclass(owner, DeskScreen)])
def test_what_is_refused_where_nothing_may_be_written_are_actions(owner: type[DeskScreen[object]]) -> None:
    for name in owner.ACTING:
        assert hasattr(owner, f"action_{name}"), name


def test_every_dialog_has_help_and_the_palette() -> None:
    modal = {owner for owner in CLASSES if issubclass(owner, ModalScreen)}
    assert {owner for owner in modal if not issubclass(owner, Dialog)} == set(), "a dialog is to be a Dialog"


async def told(app: DeskApp) -> tuple[set[str], set[str], str]:
    """The titles of all that the keys of this screen do, those in the palette, and the text of its help."""
    screen = app.screen
    offered = offers((active.node, active.binding) for active in screen.active_bindings.values())
    titles = {offer.title for offer in offered if offer.action.rpartition(".")[2] != "command_palette"}
    palette = {command.title for command in app.get_system_commands(screen)}
    app.action_help()
    await app.workers.wait_for_complete()
    assert isinstance(app.screen, HelpScreen)
    text = " ".join(" ".join(key) for key in app.screen.keys)
    assert all(offer.text in text for offer in offered)
    app.pop_screen()
    return titles, palette, text


async def test_help_begins_with_what_the_screen_does_and_ends_with_how_to_move_in_a_list(
    desk: Desk, run: RunDirectory
) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "question_mark")
        assert isinstance(app.screen, HelpScreen)
        texts = [text for _, text in app.screen.keys]
        assert texts[0] == "Watch this run"
        assert texts.index("Quit; runs continue") < texts.index("Cursor up")


async def test_all_keys_of_a_living_screen_are_in_its_palette_and_its_help(desk: Desk, run: RunDirectory) -> None:
    app = desk()
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        for keys in ([], ["tab"], ["enter"], ["n", "tab", "enter"], ["s"]):
            await press(pilot, *keys)
            titles, palette, _ = await told(app)
            assert titles
            assert titles <= palette
            await settle(pilot)


async def test_help_over_a_dialog_tells_its_keys(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "s", "question_mark")
        text = shown(app)
        assert "Keys" in text
        assert "y  Yes" in text
        await press(pilot, "question_mark", "n")
        assert not isinstance(app.screen, ModalScreen)


async def test_a_picture_is_saved_and_it_is_said_where(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "f2")
        (said,) = app._notifications
        picture = Path(said.message.removeprefix("Saved "))
        assert picture == home() / "screenshots" / "20260102-100339.svg"
        text = picture.read_text(encoding="utf-8")
        assert text.startswith("<svg")
        assert "sums-first-try" in text


async def test_a_picture_that_cannot_be_saved_says_so(desk: Desk) -> None:
    home().mkdir(parents=True)
    (home() / "screenshots").write_text("in the way")
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "f2")
        (said,) = app._notifications
        assert said.message.startswith("Could not save the screenshot: ")


async def test_the_line_under_the_cursor_is_copied(desk: Desk, run: RunDirectory) -> None:
    app = desk()
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "y")
        assert "sums-first-try" in app.clipboard.split("\t")
        app.screen.query_one(OptionList).focus()
        await press(pilot, "y")
        assert "SmolLM2-135M learns to add" in app.clipboard


async def test_text_that_was_selected_is_copied_by_osc_52(
    desk: Desk, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        written: list[str] = []
        assert app._driver is not None
        monkeypatch.setattr(app._driver, "write", written.append)
        await pilot.mouse_down("#problem", offset=(0, 0))
        await pilot.hover("#problem", offset=(9, 0))
        await pilot.mouse_up("#problem", offset=(9, 0))
        await press(pilot, "ctrl+y")
        assert app.clipboard == "completion"
        assert f"\x1b]52;c;{base64.b64encode(b'completion').decode()}\a" in "".join(chain(written))


async def test_where_nothing_is_selected_copy_says_so(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "ctrl+y")
        (said,) = app._notifications
        assert said.message == "Nothing is selected. Drag over some text first."
        assert app.clipboard == ""


async def test_the_line_of_keys_is_made_anew_once_and_only_where_a_key_has_changed(
    desk: Desk, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = 0
    recompose = KeysLine.recompose

    async def counting(line: KeysLine) -> None:
        nonlocal times
        times += 1
        await recompose(line)

    app, seen = desk(run), []
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        monkeypatch.setattr(KeysLine, "recompose", counting)
        for key in ("right_square_bracket", "m", "m"):  # another chart; that alone, from where there is a way back
            await press(pilot, key)
            seen.append((times, "Back" in shown(app)))
    assert seen == [(0, False), (1, True), (2, False)]
