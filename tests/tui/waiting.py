"""Waiting for the screen in tests. Textual's pilot sleeps in steps of 20 ms until its process has been idle for one,
twice a key: most of a test's time. Here a wait ends when nothing is left to do.
"""

from __future__ import annotations

import asyncio
from typing import Any

from textual.pilot import Pilot

QUIET_TURNS = 3
MOST_UPDATES = 100  # something that always moves is not waited for


async def nothing_runs(*_: float) -> None:
    """Until nothing in the event loop could continue now: every message is handled, and what came of it."""
    loop: Any = asyncio.get_running_loop()
    quiet = 0
    while quiet < QUIET_TURNS:
        await asyncio.sleep(0)
        quiet = 0 if loop._ready else quiet + 1


async def all_drawn(pilot: Pilot[Any]) -> bool:
    """Until nothing runs, and the screen has been laid out and drawn as often as that asked for."""
    await nothing_runs()
    for _ in range(MOST_UPDATES):
        screen = pilot.app.screen
        if not screen._update_timer._active.is_set():
            break
        screen._on_timer_update()
        await nothing_runs()
    return True
