"""A closer look at a configuration being edited: its model's shape, this machine, the first prompts. In threads."""

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
    """What the gauge goes by: a model's shape (None: ``reason`` says why) and this machine."""

    model: ModelConfig
    shape: ModelShape | None
    reason: str
    machine: Machine

    def judge(self, config: RunConfig) -> tuple[Fit | None, str]:
        """How a configuration of this model fits, or why that is not known."""
        space = room(config.model.device, self.machine)
        if space is None:
            return None, "this machine shows no NVIDIA GPU, and model.device is cuda"
        if self.shape is None:
            return None, self.reason
        return judge(self.shape, config, space), ""


class Measured(Message):
    """The surroundings have come."""

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__()
        self.surroundings = surroundings


class Said(Message):
    """What is being done."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class Rendered(Message):
    """The prompts have come."""

    def __init__(self, found: Preflight) -> None:
        super().__init__()
        self.found = found


class NotRendered(Message):
    """They have not; ``text`` says why. ``problems``: what is wrong with ``config``, if it is that."""

    def __init__(self, config: RunConfig, text: str, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__()
        self.config = config
        self.text = text
        self.problems = problems


class Absent(Message):
    """They have not, since something would have to be fetched for them."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what


def look(config: RunConfig, fetch: bool, post: Callable[[Message], object], cancelled: threading.Event) -> None:
    """Post Measured, then Said as it goes on, at last Rendered, NotRendered or Absent. Nothing once it is cancelled.

    Without ``fetch`` nothing is downloaded.
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
    """What may have to be fetched, in words; "" where everything is here."""
    if model_config(config.model) is None:
        return model_label(config.model.id)
    return config.task.source.removeprefix("hub:") if config.task.source.startswith("hub:") else ""
