"""The Textual app of AAPO Desk. It reads run directories and sends requests to trainers; it never trains itself."""

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
NOT_OURS = {"Quit", "Keys", "Screenshot"}  # Textual's palette commands that the desk replaces with its own
LOOK_SECONDS = 2.0
SWITCH_SECONDS = 0.001  # the longest that a thread with an open database waits for the thread that draws the screen


class DeskApp(App[int]):
    """The terminal app.

    ``run``: a run whose monitor is opened first. ``start``: a configuration and a run name; the run is prepared and
    started first. ``read_only``: runs are shown, but none is started or changed and no request is sent to a trainer.
    ``ascii_only``: a line filter for terminals that cannot show symbols, else None. The theme is the saved one.

    Tests replace these attributes: ``clock`` returns the unix time, ``open_source`` the reader that a monitor uses,
    ``open_chat`` the model process of a run, ``read_presets`` the presets that Home lists, and ``judge_presets`` the
    same presets with how each fits this machine.
    """

    TITLE = "AAPO Desk"
    CSS_PATH = "app.tcss"
    AUTO_FOCUS = None
    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (SMALLEST[0], "-narrow"), (WIDE, "-wide")]  # noqa: RUF012 - as in App
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (SMALLEST[1], "-low"), (TALL, "-high")]  # noqa: RUF012 - as in App
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit", tooltip="Quit; runs continue"),
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
        """Register the desk's themes and remove Textual's own, some of which have too little contrast."""
        others = set(self.available_themes)
        for theme in THEMES.values():
            self.register_theme(theme)
        self.theme = self._settings.theme
        for name in others:
            self.unregister_theme(name)

    def on_mount(self) -> None:
        """Open the first screen on top of Textual's blank one."""
        self.theme_changed_signal.subscribe(self, self._remember_theme)
        if self.read_only:
            self.notify("Read-only: runs are shown; nothing can be started or changed.", markup=False)
        sys.setswitchinterval(SWITCH_SECONDS)
        self.set_interval(LOOK_SECONDS, self._leave_with_the_terminal)
        if self._run_first is not None:
            self.open_monitor(self._run_first)
        elif self._start_first is not None:
            self.push_screen(PreparingScreen(*self._start_first, leave_app=True))
        else:
            self.push_screen(HomeScreen())

    def _leave_with_the_terminal(self) -> None:
        """Exit if the terminal has closed without sending a signal: reading from it would only keep a core busy."""
        if not self.is_headless and _terminal_is_gone():
            os._exit(FAILED)  # there is nothing left to restore

    def open_monitor(self, run: RunDirectory, instead: bool = False) -> None:
        """Open the monitor of a run; with ``instead`` it replaces the current screen."""
        screen = MonitorScreen(run, self.open_source(run))
        if instead:
            self.switch_screen(screen)
        else:
            self.push_screen(screen)

    def prepare(self, config: RunConfig, name: str | None) -> None:
        """Run the preflight for a run, then start it."""
        if self.may_act():
            self.push_screen(PreparingScreen(config, name, leave_app=False))

    def enqueue(self, config: RunConfig, preset: str) -> None:
        """Run the preflight for a run, then add it to the queue. ``preset`` names the preset it was made from."""
        if self.may_act():
            self.push_screen(PreparingScreen(config, None, leave_app=False, queue_as=preset))

    def edit(self, name: str, config: RunConfig) -> None:
        """Open a preset's configuration as a form."""
        from aapo_desk.tui.screens.new_run import NewRunScreen  # imported late so that the first frame comes sooner

        self.push_screen(NewRunScreen(name, config))

    def chat(self, run: RunDirectory) -> None:
        """Open a chat with a run's base and tuned model, which run in a separate process."""
        from aapo_desk.tui.screens.chat import ChatScreen  # imported late so that the first frame comes sooner

        self.push_screen(ChatScreen(run, self.open_chat))

    def go_home(self) -> None:
        """Return from a monitor to Home; the form that the run was started from is closed too."""
        if any(isinstance(screen, HomeScreen) for screen in self.screen_stack):
            while not isinstance(self.screen, HomeScreen):
                self.pop_screen()
        else:
            self.switch_screen(HomeScreen())

    def refuse(self, reason: str, wrong_use: bool) -> None:
        """Exit with a reason that ``run_app`` prints. ``wrong_use``: the configuration is the cause."""
        self.refusal = reason
        status = WRONG_USE if wrong_use else FAILED
        self.exit(status, return_code=status)

    async def action_quit(self) -> None:
        """Quit; ask first if unsaved edits of a form would be lost. Runs continue, and the farewell says so."""
        screen = next((screen for screen in reversed(self.screen_stack) if isinstance(screen, DeskScreen)), None)
        lost = screen.unsaved() if screen else ""
        if lost and screen is self.screen:  # with a dialog on top, it was asked already or the user means to quit
            question = Question("Quit AAPO Desk?", Content(lost), "y  Quit", "n  Stay", default=False)
            self.push_screen(question, lambda yes: self._bid_farewell(screen) if yes else None)
        else:
            self._bid_farewell(screen)

    def _bid_farewell(self, screen: DeskScreen[Any] | None) -> None:
        farewell = screen.farewell() if screen else ""
        self.exit(0, message=Text(farewell) if farewell else None)

    def may_act(self) -> bool:
        """Return whether the desk may start or change something; in read-only mode, notify the user that it may not."""
        if self.read_only:
            self.notify("Read-only: restart without --read-only to do this.", severity="warning", markup=False)
        return not self.read_only

    def action_command_palette(self) -> None:
        if not isinstance(self.screen, Palette):
            self.push_screen(Palette(id="--command-palette"))

    def action_help(self) -> None:
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen([(self._keys_of(offer), offer.text) for offer in self._offers(self.screen)]))

    def action_copy(self) -> None:
        """Copy the selection to the terminal's clipboard with OSC 52, which also works over ssh."""
        screen = self.screen
        text = screen.get_selected_text() or (screen.copyable() if isinstance(screen, DeskScreen) else "")
        if not text:
            self.notify("Nothing is selected. Drag over some text first.", severity="warning", markup=False)
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
            self.notify(f"Could not save the screenshot: {one_line(str(error))}", severity="error", markup=False)
        else:
            self.notify(f"Saved {one_line(str(path))}", markup=False)

    def _remember_theme(self, theme: Theme) -> None:
        if theme.name == self._settings.theme:
            return
        self._settings = Settings(theme=theme.name)
        try:
            save_settings(self._settings)
        except OSError as error:
            self.notify(f"Could not save the theme: {one_line(str(error))}", severity="warning", markup=False)

    def _offers(self, screen: Screen[object]) -> list[Offer]:
        return offers((active.node, active.binding) for active in screen.active_bindings.values())

    def get_key_display(self, binding: Binding) -> str:
        shown = super().get_key_display(binding)
        return KEYS_IN_ASCII.get(shown, shown) if self._ascii else shown

    def _keys_of(self, offer: Offer) -> str:
        return " ".join(dict.fromkeys(self.get_key_display(binding) for binding in offer.keys))

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Yield the palette's commands: every key binding of this screen, then Textual's commands not replaced."""
        for offer in self._offers(screen):
            if offer.action == "command_palette":
                continue

            async def perform(offer: Offer = offer) -> None:
                await self.run_action(offer.action, offer.node)

            keys = self._keys_of(offer)
            yield SystemCommand(offer.title, f"{offer.text} ({keys})" if offer.text != offer.title else keys, perform)
        yield from (command for command in super().get_system_commands(screen) if command.title not in NOT_OURS)


def _open_chat(run: RunDirectory, hear: Callable[[dict[str, Any]], None]) -> ModelProcess:
    """Start the base and the tuned model of a run's best checkpoint, or of its last one if the run is live."""
    from aapo_desk.chat import SIDES, ChatProcess

    return ChatProcess(run, None, SIDES, hear)


def _terminal_is_gone() -> bool:
    """Return whether the other end of standard input's terminal was closed."""
    look = select.poll()
    look.register(0, 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in look.poll(0))


def run_app(
    run: RunDirectory | None = None,
    start: tuple[RunConfig, str | None] | None = None,
    read_only: bool = False,
    ascii_only: bool | None = None,
) -> int:
    """Run the desk until the user quits. ``ascii_only``: draw in ASCII only; None decides by the locale.

    Returns the exit status: 2 if the configuration was refused, 1 if the start failed or was cancelled, else 0. The
    reason for a 1 or 2 is printed on standard error.
    """
    encoding = getattr(sys.__stderr__, "encoding", None)  # Textual draws on standard error
    app = DeskApp(run, start, read_only, ascii_filter(ascii_only, os.environ, encoding))
    result = app.run()
    if app.refusal is not None:
        sys.stderr.write(f"{app.refusal}\n")
    return result or app.return_code or 0
