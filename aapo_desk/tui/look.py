"""The preflight of a configuration being edited, run in threads: the model's shape, this machine, the first prompts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from textual.message import Message

from aapo_desk.config import ConfigError, ModelConfig, Problem, RunConfig
from aapo_desk.fit import Fit, judge, model_config, room, shape_of
from aapo_desk.hardware import Machine, machine
from aapo_desk.launch import LaunchError, Preflight, check, preflight
from aapo_desk.memory import ModelShape
from aapo_desk.tui.labels import model_label


@dataclass(frozen=True)
class Surroundings:
    """The data for the memory estimate: this machine and the model's shape; if that is None, ``reason`` says why."""

    model: ModelConfig
    shape: ModelShape | None
    reason: str
    machine: Machine

    def judge(self, config: RunConfig) -> tuple[Fit | None, str]:
        """Return how a configuration of this model fits this machine; or None and the reason why that is unknown."""
        space = room(config.model.device, self.machine)
        if space is None:
            return None, "no NVIDIA GPU was found, but model.device is cuda"
        if self.shape is None:
            return None, self.reason
        return judge(self.shape, config, space), ""


class Measured(Message):
    """The model's shape and the machine have been read."""

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__()
        self.surroundings = surroundings


class Said(Message):
    """A line of progress."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class Rendered(Message):
    """The preflight has succeeded. ``found`` holds the prompts."""

    def __init__(self, found: Preflight) -> None:
        super().__init__()
        self.found = found


class NotRendered(Message):
    """The preflight has failed. ``text`` says why; ``problems`` lists the errors of ``config``, if it is the cause."""

    def __init__(self, config: RunConfig, text: str, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__()
        self.config = config
        self.text = text
        self.problems = problems


class Absent(Message):
    """The preflight was not run because ``what`` (a model or a data set) would have to be downloaded first."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what


def look(config: RunConfig, fetch: bool, post: Callable[[Message], object], cancelled: threading.Event) -> None:
    """Post Measured, then Said for each line of progress, and last Rendered, NotRendered or Absent.

    Without ``fetch`` nothing is downloaded. After ``cancelled`` is set, nothing more is posted.
    """

    def say(message: Message) -> None:
        if not cancelled.is_set():
            post(message)

    say(Measured(_surroundings(config.model)))
    try:
        check(config)
        absent = "" if fetch else _absent(config)
        if absent:
            say(Absent(absent))
            return
        say(Rendered(preflight(config, lambda text: say(Said(text)), cancelled)))
    except ConfigError as error:
        say(NotRendered(config, str(error), error.problems))
    except (LaunchError, OSError) as error:
        say(NotRendered(config, str(error)))


def _surroundings(model: ModelConfig) -> Surroundings:
    try:
        return Surroundings(model, shape_of(model), "", machine())
    except ValueError as error:
        return Surroundings(model, None, str(error), machine())


def _absent(config: RunConfig) -> str:
    """Return the name of the model or data set that may have to be downloaded; "" if everything is on this machine."""
    if model_config(config.model) is None:
        return model_label(config.model.id)
    return config.task.source.removeprefix("hub:") if config.task.source.startswith("hub:") else ""
