"""The terminal UI: Home, Preparing, Monitor. It reads run directories and asks trainers; it never trains."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import Screen
from textual.theme import Theme

from aapo_desk.config import RunConfig
from aapo_desk.store import RunDirectory, home, write_atomically
from aapo_desk.tui.keys import Offer, offers
from aapo_desk.tui.listing import PresetRow, judge_presets, read_presets
from aapo_desk.tui.poll import RunSource, StoredRun
from aapo_desk.tui.screens.dialogs import HelpScreen, Question
from aapo_desk.tui.screens.guard import SMALLEST, TALL, WIDE, DeskScreen
from aapo_desk.tui.screens.home import HomeScreen
from aapo_desk.tui.screens.monitor import MonitorScreen
from aapo_desk.tui.screens.palette import Palette
from aapo_desk.tui.screens.preparing import PreparingScreen
from aapo_desk.tui.settings import Settings, load_settings, save_settings
from aapo_desk.tui.symbols import KEYS_IN_ASCII, AsciiFilter, ascii_filter
from aapo_desk.tui.text import one_line
from aapo_desk.tui.theme import THEMES

if TYPE_CHECKING:
    from aapo_desk.tui.screens.chat import ModelProcess, OpenChat

WRONG_USE, FAILED = 2, 1
NOT_OURS = {"Quit", "Keys", "Screenshot"}  # Textual's commands that the desk has in its own words
LOOK_SECONDS = 2.0
SWITCH_SECONDS = 0.001  # while the screen is drawn, a thread with a database open waits so long to go on


class DeskApp(App[int]):
    """The desk. ``run``: watch it at once. ``start``: prepare and start a run of this configuration and name.

    ``read_only``: no run is started, asked for anything or changed. ``ascii_only``: what lines are drawn through where
    symbols cannot be shown. The theme is the one remembered.

    ``clock`` gives the unix time, ``open_source`` what a monitor reads a run through, ``open_chat`` a run's model
    process, ``read_presets`` what Home offers, ``judge_presets`` how it fits this machine; tests set them.
    """

    TITLE = "AAPO Desk"
    CSS_PATH = "app.tcss"
    AUTO_FOCUS = None
    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (SMALLEST[0], "-narrow"), (WIDE, "-wide")]  # noqa: RUF012 - as in App
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (SMALLEST[1], "-low"), (TALL, "-high")]  # noqa: RUF012 - as in App
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit", tooltip="Leave; runs go on"),
        Binding("question_mark", "help", "Help", key_display="?", tooltip="All keys of this screen"),
        Binding("y,ctrl+y", "copy", "Copy", show=False, tooltip="Copy what is selected"),
        Binding("f2", "picture", "Screenshot", show=False, tooltip="Save a picture (SVG) of this screen"),
        Binding("ctrl+c,ctrl+q", "quit", "Quit", show=False, system=True),
    ]

    def __init__(
        self,
        run: RunDirectory | None = None,
        start: tuple[RunConfig, str | None] | None = None,
        read_only: bool = False,
        ascii_only: AsciiFilter | None = None,
    ) -> None:
        super().__init__()
        self.read_only = read_only
        self.clock: Callable[[], float] = time.time
        self.open_source: Callable[[RunDirectory], RunSource] = StoredRun
        self.open_chat: OpenChat = _open_chat
        self.read_presets: Callable[[], list[PresetRow]] = read_presets
        self.judge_presets: Callable[[Sequence[PresetRow]], tuple[list[PresetRow], str]] = judge_presets
        self.refusal: str | None = None
        self._run_first = run
        self._start_first = start
        self._settings = load_settings()
        self._offer_themes()
        self._ascii = ascii_only is not None
        if ascii_only is not None:
            self._filters.append(ascii_only)

    def _offer_themes(self) -> None:
        """Ours instead of Textual's, some of whose text is too faint."""
        others = set(self.available_themes)
        for theme in THEMES.values():
            self.register_theme(theme)
        self.theme = self._settings.theme
        for name in others:
            self.unregister_theme(name)

    def on_mount(self) -> None:
        """Open the first screen, over Textual's blank one."""
        self.theme_changed_signal.subscribe(self, self._remember_theme)
        if self.read_only:
            self.notify("Read-only: runs are shown, nothing is started or asked of them.", markup=False)
        sys.setswitchinterval(SWITCH_SECONDS)
        self.set_interval(LOOK_SECONDS, self._leave_with_the_terminal)
        if self._run_first is not None:
            self.open_monitor(self._run_first)
        elif self._start_first is not None:
            self.push_screen(PreparingScreen(*self._start_first, leave_app=True))
        else:
            self.push_screen(HomeScreen())

    def _leave_with_the_terminal(self) -> None:
        """End where the terminal has gone without a signal: reading from it would only keep a core busy."""
        if not self.is_headless and _terminal_is_gone():
            os._exit(FAILED)  # there is nothing left to restore

    def open_monitor(self, run: RunDirectory, instead: bool = False) -> None:
        """Watch a run; ``instead`` of the screen that is there."""
        screen = MonitorScreen(run, self.open_source(run))
        if instead:
            self.switch_screen(screen)
        else:
            self.push_screen(screen)

    def prepare(self, config: RunConfig, name: str | None) -> None:
        """Start a run after its preflight."""
        if self.may_act():
            self.push_screen(PreparingScreen(config, name, leave_app=False))

    def enqueue(self, config: RunConfig, preset: str) -> None:
        """Put a run into the queue after its preflight. ``preset``: what it came from."""
        if self.may_act():
            self.push_screen(PreparingScreen(config, None, leave_app=False, queue_as=preset))

    def edit(self, name: str, config: RunConfig) -> None:
        """Open a preset's configuration as a form."""
        from aapo_desk.tui.screens.new_run import NewRunScreen  # the first frame does not wait for it

        self.push_screen(NewRunScreen(name, config))

    def chat(self, run: RunDirectory) -> None:
        """Ask a run's base and tuned model, in a process of their own."""
        from aapo_desk.tui.screens.chat import ChatScreen  # the first frame does not wait for it

        self.push_screen(ChatScreen(run, self.open_chat))

    def go_home(self) -> None:
        """From a monitor back to the runs, also over the form it was started from."""
        if any(isinstance(screen, HomeScreen) for screen in self.screen_stack):
            while not isinstance(self.screen, HomeScreen):
                self.pop_screen()
        else:
            self.switch_screen(HomeScreen())

    def refuse(self, reason: str, wrong_use: bool) -> None:
        """End with a reason that ``run_app`` prints; ``wrong_use``: it lies in the configuration."""
        self.refusal = reason
        status = WRONG_USE if wrong_use else FAILED
        self.exit(status, return_code=status)

    async def action_quit(self) -> None:
        """Leave, once more asked where a form would be lost. Runs go on, and it is said so."""
        screen = next((screen for screen in reversed(self.screen_stack) if isinstance(screen, DeskScreen)), None)
        lost = screen.unsaved() if screen else ""
        if lost and screen is self.screen:  # over a dialog it was asked, or leaving is meant
            question = Question("Quit AAPO Desk?", Content(lost), "y  Quit", "n  Go on", default=False)
            self.push_screen(question, lambda yes: self._bid_farewell(screen) if yes else None)
        else:
            self._bid_farewell(screen)

    def _bid_farewell(self, screen: DeskScreen[Any] | None) -> None:
        farewell = screen.farewell() if screen else ""
        self.exit(0, message=Text(farewell) if farewell else None)

    def may_act(self) -> bool:
        """Whether something may be started, asked or changed; where not, a line says so."""
        if self.read_only:
            self.notify("Read-only: start aapo-desk without --read-only for that.", severity="warning", markup=False)
        return not self.read_only

    def action_command_palette(self) -> None:
        if not isinstance(self.screen, Palette):
            self.push_screen(Palette(id="--command-palette"))

    def action_help(self) -> None:
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen([(self._keys_of(offer), offer.text) for offer in self._offers(self.screen)]))

    def action_copy(self) -> None:
        """To the terminal's clipboard, by OSC 52: also over ssh."""
        screen = self.screen
        text = screen.get_selected_text() or (screen.copyable() if isinstance(screen, DeskScreen) else "")
        if not text:
            self.notify("Nothing is selected: drag over some text first.", severity="warning", markup=False)
            return
        self.copy_to_clipboard(text)
        self.notify(f"Copied: {one_line(text, 60)}", timeout=3, markup=False)

    def action_picture(self) -> None:
        name = time.strftime("%Y%m%d-%H%M%S", time.localtime(self.clock()))
        path = home() / "screenshots" / f"{name}.svg"
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(path, self.export_screenshot(), durable=False)
        except OSError as error:
            self.notify(f"No picture saved: {one_line(str(error))}", severity="error", markup=False)
        else:
            self.notify(f"Saved {one_line(str(path))}", markup=False)

    def _remember_theme(self, theme: Theme) -> None:
        if theme.name == self._settings.theme:
            return
        self._settings = Settings(theme=theme.name)
        try:
            save_settings(self._settings)
        except OSError as error:
            self.notify(f"The theme is not remembered: {one_line(str(error))}", severity="warning", markup=False)

    def _offers(self, screen: Screen[object]) -> list[Offer]:
        return offers((active.node, active.binding) for active in screen.active_bindings.values())

    def get_key_display(self, binding: Binding) -> str:
        shown = super().get_key_display(binding)
        return KEYS_IN_ASCII.get(shown, shown) if self._ascii else shown

    def _keys_of(self, offer: Offer) -> str:
        return " ".join(dict.fromkeys(self.get_key_display(binding) for binding in offer.keys))

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The palette: everything a key does here, then what is left of Textual's own."""
        for offer in self._offers(screen):
            if offer.action == "command_palette":
                continue

            async def perform(offer: Offer = offer) -> None:
                await self.run_action(offer.action, offer.node)

            keys = self._keys_of(offer)
            yield SystemCommand(offer.title, f"{offer.text} ({keys})" if offer.text != offer.title else keys, perform)
        yield from (command for command in super().get_system_commands(screen) if command.title not in NOT_OURS)


def _open_chat(run: RunDirectory, hear: Callable[[dict[str, Any]], None]) -> ModelProcess:
    """Both sides of a run's best checkpoint; of a live run's last."""
    from aapo_desk.chat import SIDES, ChatProcess

    return ChatProcess(run, None, SIDES, hear)


def _terminal_is_gone() -> bool:
    """Whether the other side of standard input's terminal was closed."""
    look = select.poll()
    look.register(0, 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in look.poll(0))


def run_app(
    run: RunDirectory | None = None,
    start: tuple[RunConfig, str | None] | None = None,
    read_only: bool = False,
    ascii_only: bool | None = None,
) -> int:
    """Run the desk until the user leaves. ``ascii_only``: None leaves it to the locale.

    Gives the exit status: 2 where the configuration was refused, 1 where the start failed or was given up, the reason
    printed on standard error; else 0.
    """
    encoding = getattr(sys.__stderr__, "encoding", None)  # what Textual draws on
    app = DeskApp(run, start, read_only, ascii_filter(ascii_only, os.environ, encoding))
    result = app.run()
    if app.refusal is not None:
        sys.stderr.write(f"{app.refusal}\n")
    return result or app.return_code or 0
