"""The terminal UI: Home, Preparing, Monitor. It reads run directories and asks trainers; it never trains."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import ClassVar

from rich.text import Text
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from aapo_desk.config import RunConfig
from aapo_desk.store import RunDirectory
from aapo_desk.tui.poll import PresetRow, RunSource, StoredRun, read_presets
from aapo_desk.tui.screens.dialogs import HelpScreen
from aapo_desk.tui.screens.guard import SMALLEST, TALL, WIDE, DeskScreen
from aapo_desk.tui.screens.home import HomeScreen
from aapo_desk.tui.screens.monitor import MonitorScreen
from aapo_desk.tui.screens.preparing import PreparingScreen
from aapo_desk.tui.theme import DARK

WRONG_USE, FAILED = 2, 1
SWITCH_SECONDS = 0.001  # while the screen is drawn, a thread with a database open waits so long to go on
NOT_IN_HELP = {"Focus Next", "Focus Previous", "Copy selected text"}  # what every Textual app has


class DeskApp(App[int]):
    """The desk. ``run``: watch it at once. ``start``: prepare and start a run of this configuration and name.

    ``clock`` gives the unix time, ``open_source`` what a monitor reads a run through, ``read_presets`` what Home
    offers; tests set them.
    """

    TITLE = "AAPO Desk"
    CSS_PATH = "app.tcss"
    AUTO_FOCUS = None
    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (SMALLEST[0], "-narrow"), (WIDE, "-wide")]  # noqa: RUF012 - as in App
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (SMALLEST[1], "-low"), (TALL, "-high")]  # noqa: RUF012 - as in App
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit", tooltip="Leave; runs go on"),
        Binding("question_mark", "help", "Help", key_display="?", tooltip="All keys of this screen"),
        Binding("ctrl+c,ctrl+q", "quit", "Quit", show=False, system=True),
    ]

    def __init__(self, run: RunDirectory | None = None, start: tuple[RunConfig, str | None] | None = None) -> None:
        super().__init__()
        self.clock: Callable[[], float] = time.time
        self.open_source: Callable[[RunDirectory], RunSource] = StoredRun
        self.read_presets: Callable[[], list[PresetRow]] = read_presets
        self.refusal: str | None = None
        self._run_first = run
        self._start_first = start
        self.register_theme(DARK)
        self.theme = DARK.name

    def on_mount(self) -> None:
        """Open the first screen, over Textual's blank one."""
        sys.setswitchinterval(SWITCH_SECONDS)
        if self._run_first is not None:
            self.open_monitor(self._run_first)
        elif self._start_first is not None:
            self.push_screen(PreparingScreen(*self._start_first, leave_app=True))
        else:
            self.push_screen(HomeScreen())

    def open_monitor(self, run: RunDirectory, instead: bool = False) -> None:
        """Watch a run; ``instead`` of the screen that is there."""
        screen = MonitorScreen(run, self.open_source(run))
        if instead:
            self.switch_screen(screen)
        else:
            self.push_screen(screen)

    def prepare(self, config: RunConfig, name: str | None) -> None:
        """Start a run after its preflight."""
        self.push_screen(PreparingScreen(config, name, leave_app=False))

    def go_home(self) -> None:
        """From a monitor back to the runs."""
        if any(isinstance(screen, HomeScreen) for screen in self.screen_stack):
            self.pop_screen()
        else:
            self.switch_screen(HomeScreen())

    def refuse(self, reason: str, wrong_use: bool) -> None:
        """End with a reason that ``run_app`` prints; ``wrong_use``: it lies in the configuration."""
        self.refusal = reason
        status = WRONG_USE if wrong_use else FAILED
        self.exit(status, return_code=status)

    async def action_quit(self) -> None:
        """Leave. Runs go on, and it is said so."""
        screens = [screen for screen in reversed(self.screen_stack) if isinstance(screen, DeskScreen)]
        farewell = screens[0].farewell() if screens else ""
        self.exit(0, message=Text(farewell) if farewell else None)

    def action_help(self) -> None:
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen(self._keys()))

    def _keys(self) -> list[tuple[str, str]]:
        """The keys that do something here, those of one action together, with what they do."""
        by_action: dict[str, tuple[list[str], str]] = {}
        for active in self.screen.active_bindings.values():
            binding = active.binding
            if not _worth_telling(binding):
                continue
            keys, _ = by_action.setdefault(binding.action, ([], binding.tooltip or binding.description))
            keys.append(self.get_key_display(binding))
        return [(" ".join(dict.fromkeys(keys)), text) for keys, text in by_action.values()]

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The palette: everything a key does here, then Textual's own."""
        seen = {"quit", "command_palette"}
        for active in screen.active_bindings.values():
            binding = active.binding
            if binding.action in seen or not _worth_telling(binding):
                continue
            seen.add(binding.action)
            node, action = active.node, binding.action

            async def perform(action: str = action, node: object = node) -> None:
                await self.run_action(action, node)  # type: ignore[arg-type]

            key = self.get_key_display(binding)
            yield SystemCommand(binding.description, binding.tooltip or f"Key: {key}", perform)
        yield from super().get_system_commands(screen)


def _worth_telling(binding: Binding) -> bool:
    return bool(binding.description) and not binding.system and binding.description not in NOT_IN_HELP


def run_app(run: RunDirectory | None = None, start: tuple[RunConfig, str | None] | None = None) -> int:
    """Run the desk until the user leaves.

    Gives the exit status: 2 where the configuration was refused, 1 where the start failed or was given up, the reason
    printed on standard error; else 0.
    """
    app = DeskApp(run, start)
    result = app.run()
    if app.refusal is not None:
        sys.stderr.write(f"{app.refusal}\n")
    return result or app.return_code or 0
