"""The preparing screen: the progress of the preflight before a run starts, and the reason if it does not start."""

from __future__ import annotations

import threading
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from aapo_desk.config import ConfigError, RunConfig
from aapo_desk.store import RunDirectory
from aapo_desk.tui.labels import model_label
from aapo_desk.tui.screens.guard import DeskScreen, TooSmall
from aapo_desk.tui.text import one_line, plain
from aapo_desk.tui.widgets.keysline import KeysLine
from aapo_desk.tui.widgets.pane import Pane

LINES_KEPT = 200


class Progress(Message):
    """A line of progress from the preflight."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class Started(Message):
    """The trainer process has been started."""

    def __init__(self, run: RunDirectory) -> None:
        super().__init__()
        self.run = run


class Queued(Message):
    """The run was added to the queue. ``entry`` is the id of its queue entry."""

    def __init__(self, entry: str) -> None:
        super().__init__()
        self.entry = entry


class Refused(Message):
    """The run was not started. ``text`` says why; ``wrong_use`` means that the configuration is the cause."""

    def __init__(self, text: str, wrong_use: bool) -> None:
        super().__init__()
        self.text = text
        self.wrong_use = wrong_use


class PreparingScreen(DeskScreen[None]):
    """The preflight of a run, in a thread, after which the run starts. Escape cancels; after an error any key closes.

    With ``queue_as``, the name of the preset it was made from, the run is added to the queue instead of started.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "Cancel", key_display="esc")]

    def __init__(self, config: RunConfig, name: str | None, leave_app: bool, queue_as: str | None = None) -> None:
        super().__init__()
        self._config = config
        self._name = name
        self._leave_app = leave_app
        self._queue_as = queue_as
        self._cancelled = threading.Event()
        self._lines: list[str] = []
        self._refusal: Refused | None = None

    def compose(self) -> ComposeResult:
        model = one_line(model_label(self._config.model.id))
        name = f"{one_line(self._name)}, " if self._name else ""
        yield TooSmall(id="too-small")
        with Container(id="preparing"):
            yield Static(
                Content.assemble(("Preparing ", "bold $text-primary"), f"{name}{model}"),
                id="preparing-title",
            )
            with Pane(id="preparing-pane"):
                yield Static(id="preparing-lines", markup=False)
            yield Static(id="refusal", markup=False)
        yield KeysLine()

    def on_mount(self) -> None:
        self.query_one("#refusal").display = False
        self._add("checking the configuration")
        self.run_worker(self._prepare, thread=True, group="prepare")

    def on_unmount(self) -> None:
        self._cancelled.set()

    def _prepare(self) -> None:
        from aapo_desk import launch

        try:
            launch.check(self._config)
            launch.find_start(self._config)
            found = launch.preflight(self._config, lambda text: self._post(Progress(text)), self._cancelled)
            if self._cancelled.is_set():
                return
            self._post(self._use(found.pin(self._config)))
        except ConfigError as error:
            self._post(Refused(str(error), wrong_use=True))
        except (launch.LaunchError, OSError) as error:
            self._post(Refused(str(error), wrong_use=False))

    def _use(self, config: RunConfig) -> Message:
        """Start or queue the checked configuration."""
        if self._queue_as is not None:
            from aapo_desk.studies import queue

            return Queued(queue.add(config, preset=self._queue_as, name=self._name).id)
        from aapo_desk import launch

        self._post(Progress("starting the trainer"))
        return Started(launch.start(config, self._name))

    def _post(self, message: Message) -> None:
        if not self._cancelled.is_set():
            self.post_message(message)

    @on(Progress)
    def _on_progress(self, message: Progress) -> None:
        self._add(message.text)

    def _add(self, text: str) -> None:
        self._lines = [*self._lines, one_line(text)][-LINES_KEPT:]
        done, now = self._lines[:-1], self._lines[-1]
        lines = [Content.styled(f"  {line}", "$foreground 70%") for line in done]
        self.query_one("#preparing-lines", Static).update(
            Content("\n").join([*lines, Content.assemble(("▸ ", "bold $text-primary"), now)])
        )
        self.query_one(Pane).scroll_end(animate=False)

    @on(Started)
    def _on_started(self, message: Started) -> None:
        self.desk.open_monitor(message.run, instead=True)

    @on(Queued)
    def _on_queued(self, message: Queued) -> None:
        self.notify(f"Queued as {message.entry}. Press Q on Home to start the queue.", markup=False)
        self._leave()

    @on(Refused)
    def _on_refused(self, message: Refused) -> None:
        self._refusal = message
        panel = self.query_one("#refusal", Static)
        panel.display = True
        title = "✗ Not started" if self._queue_as is None else "✗ Not queued"
        text = Content.assemble((title, "bold $text-error"), "\n\n", plain(message.text))
        panel.update(Content("").join([text, Content.styled("\n\npress any key to close", "$foreground 70%")]))
        self.refresh_bindings()

    def on_key(self, event: events.Key) -> None:
        if self._refusal is not None:
            event.stop()
            self._leave()

    def on_click(self) -> None:
        if self._refusal is not None:
            self._leave()

    def action_cancel(self) -> None:
        self._cancelled.set()
        self._leave()

    def farewell(self) -> str:
        return "nothing was started" if self._queue_as is None else "nothing was queued"

    def _leave(self) -> None:
        if self._leave_app and self._refusal is not None:
            self.desk.refuse(self._refusal.text, self._refusal.wrong_use)
        elif self._leave_app:
            self.desk.refuse("cancelled; nothing was started", wrong_use=False)
        else:
            self.app.pop_screen()
