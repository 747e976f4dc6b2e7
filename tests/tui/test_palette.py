from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from textual.system_commands import SystemCommandsProvider

from aapo_desk.store import RunDirectory
from aapo_desk.tui.screens.monitor import MonitorScreen
from aapo_desk.tui.screens.palette import Palette
from tests.tui.driving import NARROW, Desk, settle


async def test_what_is_typed_as_the_palette_closes_starts_no_search_in_what_is_gone(
    desk: Desk, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[str] = []

    async def search(_self: Any, query: str) -> AsyncIterator[Any]:
        searched.append(query)
        await asyncio.sleep(0)
        if False:
            yield

    monkeypatch.setattr(SystemCommandsProvider, "search", search)
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("ctrl+p")
        palette = app.screen
        assert isinstance(palette, Palette)
        await pilot.press("z")
        await settle(pilot)
        assert searched == ["z"]
        palette._action_escape()
        palette._gather_commands("zx")  # as a key does that came with Escape
        await settle(pilot)
        assert searched == ["z"]
        assert isinstance(app.screen, MonitorScreen)
