"""Dialogs used by several screens: yes-or-no questions, starting a preset, stopping a run, and the list of keys."""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from aapo_desk.tui.labels import algorithm_label, model_label
from aapo_desk.tui.listing import PresetRow
from aapo_desk.tui.text import one_line, plain
from aapo_desk.tui.widgets.pane import Pane

Result = TypeVar("Result")


class Dialog(ModalScreen[Result], Generic[Result]):
    """A modal dialog. The keys of the screen below are off while it is open; help and the palette still work."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "app.help", "Help", key_display="?", show=False, tooltip="All keys of this dialog"),
        Binding("ctrl+p", "app.command_palette", "Commands", show=False, priority=True),
    ]


class Question(Dialog[bool]):
    """A yes-or-no question; Escape means no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape", "answer(False)", "No"),
        Binding("left,right,h,l", "other_button", "Other button", show=False),
    ]

    def __init__(self, title: str, text: Content, yes: str, no: str, default: bool) -> None:
        super().__init__()
        self._title = title
        self._text = text
        self._yes = yes
        self._no = no
        self._default = default

    def compose(self) -> ComposeResult:
        with Container(id="dialog"):
            yield Static(Content.styled(self._title, "bold"), id="dialog-title")
            with Pane(id="dialog-body", can_focus=False):
                yield Static(self._text, id="dialog-text")
            with Horizontal(id="dialog-buttons"):
                yield Button(Content(self._yes), id="yes", compact=True)
                yield Button(Content(self._no), id="no", compact=True)

    def on_mount(self) -> None:
        self.query_one("#yes" if self._default else "#no", Button).focus()

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)

    def action_other_button(self) -> None:
        self.focus_next(Button)

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")


class StopQuestion(Question):
    """The question asked before a run is stopped. The default answer is no."""

    def __init__(self, name: str) -> None:
        text = (
            "The run writes a checkpoint first; r resumes it later. To leave it running in the background, quit with q."
        )
        super().__init__(f"Stop {one_line(name)}?", Content(text), "y  Stop", "n  Keep running", default=False)


class StartQuestion(Question):
    """A preset's description with the question whether to start it. The default answer is yes."""

    def __init__(self, row: PresetRow) -> None:
        super().__init__(f"Start {one_line(row.name)}?", describe(row), "y  Start", "n  Cancel", default=True)


def describe(row: PresetRow) -> Content:
    """Describe a preset: its model, task, method, number of steps, memory, and its author's notes."""
    parts: list[Content] = [Content.styled(one_line(row.title), "bold"), Content("")]
    config = row.config
    if config is not None:
        batch = config.rollout
        weights = "4-bit weights (nf4)" if config.model.quantization == "nf4" else "weights not quantized"
        device = "the GPU if there is one" if config.model.device == "auto" else f"the {config.model.device.upper()}"
        algorithm = algorithm_label(
            config.algorithm, config.task.difficulty, config.lora.start_from, config.warm_start.solutions
        )
        facts = {
            "model": ", ".join([one_line(model_label(config.model.id)), weights, f"on {device}"]),
            "task": f"{one_line(config.task.source)}, {config.evaluated_problems} problems held out",
            "method": f"{algorithm}, LoRA r={config.lora.r}, learning rate {config.optimizer.learning_rate:g}",
            "steps": f"{config.run.steps} of {batch.prompts_per_step} prompts x {batch.group_size} completions, "
            f"up to {batch.max_new_tokens} tokens each",
        }
        limits = [f"{config.run.seconds:g} s of training"] if config.run.seconds else []
        limits += [f"{config.run.completions} sampled completions"] if config.run.completions else []
        if limits:
            facts["ends"] = f"after {' or '.join(limits)}, or earlier"
        if row.fit:
            facts["memory"] = row.fit.detail
        parts += [Content.assemble((f"{name:<8}", "$foreground 70%"), text) for name, text in facts.items()]
    if row.notes:
        parts += [Content(""), *(plain(note) for note in row.notes)]
    return Content("\n").join(parts)


class HelpScreen(Dialog[None]):
    """A list of the keys of the screen below, taken from its bindings."""

    AUTO_FOCUS = "#dialog-body"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,q,enter", "dismiss", "Close")]

    def __init__(self, keys: list[tuple[str, str]]) -> None:
        super().__init__()
        self.keys = keys

    def compose(self) -> ComposeResult:
        lines = [Content.assemble((f"{keys:>14}  ", "bold $text-primary"), text) for keys, text in self.keys]
        with Container(id="dialog"):
            yield Static(Content.styled("Keys", "bold"), id="dialog-title")
            with Pane(id="dialog-body"):
                yield Static(Content("\n").join(lines), id="dialog-text")
            yield Static(Content.styled("esc closes · runs continue whatever is closed here", "$foreground 70%"))

    def on_click(self) -> None:
        self.dismiss()
