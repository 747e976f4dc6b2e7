"""Driving the desk in tests: wait, press, read the screen."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from textual.pilot import Pilot

from aapo_desk.store import RunDirectory
from aapo_desk.tui.app import DeskApp
from aapo_desk.tui.screens.monitor import MonitorScreen

Desk = Callable[..., DeskApp]
Live = Callable[[RunDirectory], None]

NARROW, WIDE = (80, 24), (140, 40)


def monitor(app: DeskApp) -> MonitorScreen:
    assert isinstance(app.screen, MonitorScreen)
    return app.screen


def shown(app: DeskApp) -> str:
    """All that is on the screen, as text."""
    return "\n".join("".join(segment.text for segment in line) for line in app.screen._compositor.render_strips())


def commands(run: RunDirectory) -> list[str]:
    return sorted(json.loads(path.read_text())["command"] for path in run.commands.glob("*.json"))


async def press(pilot: Pilot[Any], *keys: str) -> None:
    for key in keys:
        await pilot.press(key)
    await settle(pilot)


async def read_again(pilot: Pilot[Any], app: DeskApp) -> None:
    monitor(app)._poll.tick()
    await settle(pilot)


async def until(pilot: Pilot[Any], holds: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for what a thread, a timer or another process brings."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        await pilot.pause(0.01)
    await settle(pilot)


async def resize(pilot: Pilot[Any], width: int, height: int) -> None:
    """Textual waits a moment for further resizes."""
    await pilot.resize_terminal(width, height)
    await until(pilot, lambda: pilot.app.screen.outer_size == (width, height))


async def settle(pilot: Pilot[Any]) -> None:
    """Wait until everything read has been drawn."""
    for _ in range(2):
        await pilot.app.workers.wait_for_complete()
        await pilot.pause()
