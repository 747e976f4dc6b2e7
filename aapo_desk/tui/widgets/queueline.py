"""The queue in one line of Home: what trains, waits or has failed. The line is hidden if there is nothing of these."""

from __future__ import annotations

from dataclasses import dataclass

from textual import on
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from aapo_desk.store import home
from aapo_desk.tui.labels import LIVE_STATES, clipped
from aapo_desk.tui.poll import READ_ERRORS
from aapo_desk.tui.screens.dialogs import Question
from aapo_desk.tui.text import one_line
from aapo_desk.tui.widgets.runfilter import put

SECONDS = 2.0
LONGEST_NAME = 24
FAINT = "$foreground 70%"


@dataclass(frozen=True)
class QueueState:
    """The queue as Home shows it. ``failed`` holds pairs of a label and a reason."""

    worked_off: bool = False
    now: tuple[str, str] | None = None
    """The label and state of the entry that is training; None if there is none."""

    waiting: tuple[str, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()


class QueueRead(Message):
    """The queue has been read."""

    def __init__(self, state: QueueState) -> None:
        super().__init__()
        self.state = state


class QueueLine(Static):
    """A line that reads the queue in a thread and shows it."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id, markup=False)
        self._state = QueueState()
        self._reading = False

    def on_mount(self) -> None:
        self.set_interval(SECONDS, self.read)

    def read(self) -> None:
        """Read the queue in the background, unless it is being read already."""
        if self.screen.is_current and not self._reading:
            self._reading = True
            self.run_worker(self._load, thread=True, group="queue", exit_on_error=False)

    def _load(self) -> None:
        try:
            self.post_message(QueueRead(read_queue()))
        except READ_ERRORS as error:
            self.notify(one_line(str(error)), severity="error", markup=False)
        finally:
            self._reading = False

    @on(QueueRead)
    def _show(self, message: QueueRead) -> None:
        message.stop()
        self._state = message.state
        text = described(message.state)
        self.display = bool(text)
        put(self, text)

    def start_or_stop(self) -> None:
        """Start the queue in the background; if it is running, ask for confirmation and stop it."""
        if self._state.worked_off:
            text = "The current run saves a checkpoint and stops. Press Q to resume it later."
            question = Question("Stop the queue?", Content(text), "y  Stop it", "n  Keep going", default=False)
            self.app.push_screen(question, lambda yes: self._do(start=False) if yes else None)
        elif self._state.waiting or self._state.now:
            self._do(start=True)
        else:
            self.notify("The queue is empty. Press a on a preset to add it.", severity="warning", markup=False)

    def _do(self, start: bool) -> None:
        def work() -> None:
            from aapo_desk.launch import LaunchError
            from aapo_desk.studies import queue

            try:
                if start:
                    queue.start_supervisor()
                else:
                    queue.ask_to_stop()
            except (LaunchError, OSError) as error:
                self.notify(one_line(str(error)), severity="error", markup=False)
            self.app.call_from_thread(self.read)

        self.run_worker(work, thread=True, group="queue-work", exit_on_error=False)


def read_queue() -> QueueState:
    """Return the state of the queue. Raises what reading its files raises (see ``READ_ERRORS``)."""
    if not (home() / "queue").is_dir():
        return QueueState()
    from aapo_desk.studies import queue  # imported late, so that Home opens faster for users without a queue

    found = queue.entries()
    now = next(((entry.label, entry.state) for entry in found if entry.state in LIVE_STATES), None)
    waiting = tuple(entry.label for entry in found if entry.state in queue.WAITING)
    failed = tuple((f"{entry.id} {entry.label}", entry.reason) for entry in found if entry.state == "failed")
    return QueueState(queue.is_worked_off(), now, waiting, failed)


def described(state: QueueState) -> Content:
    """Return the text of the line; empty if nothing trains, waits or has failed."""
    parts: list[Content] = []
    if state.now:
        name, current = state.now
        parts.append(Content.assemble((f"▶ {_name(name)}", "bold"), f" is {current}"))
    if state.waiting:
        names = ", ".join(_name(name) for name in state.waiting)
        parts.append(Content(f"{len(state.waiting)} waiting: {names}"))
    if state.failed:
        name, why = state.failed[-1]
        others = f"{len(state.failed)} failed, the last: " if len(state.failed) > 1 else "failed: "
        parts.append(Content.styled(f"✗ {others}{_name(name)}: {one_line(why)}", "$text-error"))
    if not parts:
        return Content("")
    key = "Q stops it" if state.worked_off else "Q starts it" if state.waiting or state.now else ""
    head = Content.assemble(("queue", "bold"), (f"  {key}" if key else "", FAINT), "  ")
    return head + Content(" · ").join(parts)


def _name(text: str) -> str:
    return clipped(one_line(text), LONGEST_NAME)
