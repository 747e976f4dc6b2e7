"""A base for screens that control the trainer of one run: pause, continue, save, stop and resume."""

from __future__ import annotations

from typing import ClassVar, Literal

from textual import work
from textual.binding import Binding, BindingType
from textual.reactive import var

from aapo_desk.config import ConfigError
from aapo_desk.store import RunDirectory
from aapo_desk.tui.labels import LIVE_STATES, RESUMABLE_STATES
from aapo_desk.tui.screens.dialogs import StopQuestion
from aapo_desk.tui.screens.guard import DeskScreen
from aapo_desk.tui.text import one_line

ASKABLE_STATES = LIVE_STATES - {"stopping"}
TRAINER_ACTIONS = frozenset({"pause", "unpause", "stop", "checkpoint", "resume"})
TRAINER_KEYS: list[BindingType] = [
    Binding("p", "unpause", "Continue", tooltip="Continue the paused run"),
    Binding("p", "pause", "Pause", tooltip="Pause the run after this step"),
    Binding("s", "stop", "Stop", tooltip="Write a checkpoint and stop the run; asks first"),
    Binding("c", "checkpoint", "Save", show=False, tooltip="Write a checkpoint now"),
    Binding("r", "resume", "Resume", tooltip="Resume the run from its last checkpoint"),
]


class AskingScreen(DeskScreen[None]):
    """A screen for the run in ``run_directory``. Only the keys that make sense in the run's ``state`` are offered."""

    ACTING: ClassVar[frozenset[str]] = TRAINER_ACTIONS

    state: var[str] = var("starting", init=False)

    def __init__(self, run: RunDirectory) -> None:
        super().__init__()
        self.run_directory = run

    @property
    def run_name(self) -> str:
        """The run's name, on one line."""
        raise NotImplementedError

    def asked(self) -> None:
        """Update the screen after a request was sent to the trainer."""
        raise NotImplementedError

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if not super().check_action(action, parameters):
            return False
        match action:
            case "resume":
                return self.state in RESUMABLE_STATES
            case "unpause":
                return self.state == "paused"
            case "pause":
                return self.state in ASKABLE_STATES - {"paused"}
            case "stop" | "checkpoint":
                return self.state in ASKABLE_STATES
        return True

    def action_pause(self) -> None:
        self._ask("pause", "The run pauses after this step.")

    def action_unpause(self) -> None:
        self._ask("resume", "The run continues.")

    def action_checkpoint(self) -> None:
        self._ask("checkpoint", "The run saves a checkpoint after this step.")

    def action_resume(self) -> None:
        self._ask("resume", "Starting the trainer from the last checkpoint.")

    def action_stop(self) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                self._ask("stop", "The run saves a checkpoint and stops.")

        self.app.push_screen(StopQuestion(self.run_name), answered)

    @work(thread=True, group="ask")
    def _ask(self, command: Literal["pause", "checkpoint", "stop", "resume"], done: str) -> None:
        from aapo_desk import launch

        try:
            if command == "resume":
                launch.resume(self.run_directory)
            else:
                launch.request(self.run_directory, command)
        except (launch.LaunchError, ConfigError, OSError) as error:
            self.notify(one_line(str(error)), severity="error", markup=False)
        else:
            self.notify(done, timeout=3, markup=False)
            self.app.call_from_thread(self.asked)
