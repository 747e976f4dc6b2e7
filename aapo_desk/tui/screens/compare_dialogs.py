"""The dialogs of the compare screen: which metric to compare, and where to save."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from aapo_desk.config import ConfigError, user_path
from aapo_desk.store import StoreError
from aapo_desk.studies import Axis, Comparison, save, save_ending
from aapo_desk.tui.screens.dialogs import Dialog
from aapo_desk.tui.text import one_line, plain


class MetricList(OptionList):
    """A list of metrics; Enter selects one."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select", "Compare", tooltip="Compare the runs by this metric"),
        Binding("j", "cursor_down", "Down", show=False),
        Binding("k", "cursor_up", "Up", show=False),
    ]


class MetricChoice(Dialog[str]):
    """A dialog that returns the chosen metric, or None after Escape."""

    AUTO_FOCUS = "#metric-list"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,m", "dismiss", "Cancel")]

    def __init__(self, metrics: Sequence[str], current: str) -> None:
        super().__init__()
        self._metrics = list(metrics)
        self._current = current

    def compose(self) -> ComposeResult:
        with Container(id="dialog"):
            yield Static(Content.styled("Compare by", "bold"), id="dialog-title")
            yield MetricList(*(Option(Content(one_line(name))) for name in self._metrics), id="metric-list")

    def on_mount(self) -> None:
        if self._current in self._metrics:
            self.query_one(MetricList).highlighted = self._metrics.index(self._current)

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._metrics[event.option_index])


class Saved(Message):
    """The file was written to ``path``, or ``problem`` says why not."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__()
        self.path = path
        self.problem = problem


class SaveDialog(Dialog[Path]):
    """A dialog that saves the comparison and returns the path, or None after Escape. The suffix sets the format."""

    AUTO_FOCUS = "#save-path"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss", "Cancel")]

    def __init__(self, comparison: Comparison, axis: Axis) -> None:
        super().__init__()
        self._comparison = comparison
        self._axis = axis
        self._replaces: Path | None = None
        self._busy = False

    def compose(self) -> ComposeResult:
        name = f"compare-{self._comparison.metric.replace('/', '-')}.png"
        with Container(id="dialog"):
            yield Static(Content.styled("Save the comparison", "bold"), id="dialog-title")
            yield Input(name, id="save-path", select_on_focus=False, compact=True)
            yield Static(id="save-said", markup=False)

    def on_mount(self) -> None:
        self._say(".png or .svg: the chart. .csv: every step of every run. Enter saves, Escape cancels.")

    def _say(self, text: str) -> None:
        self.query_one("#save-said", Static).update(plain(text))

    @on(Input.Submitted)
    def _write(self, event: Input.Submitted) -> None:
        path = user_path(event.value.strip())
        try:
            save_ending(path)
        except ConfigError as error:
            self._say(str(error))
            return
        if path.exists() and self._replaces != path:
            self._replaces = path
            self._say(f"{path} exists. Press Enter again to replace it.")
            return
        if not self._busy:
            self._busy = True
            self._say("saving …")
            self.run_worker(lambda: self._save(path), thread=True, exit_on_error=False)

    def _save(self, path: Path) -> None:
        from aapo_desk.studies.pictures import PicturesMissing

        problem = ""
        try:
            save(path, self._comparison, self._axis)
        except OSError as error:
            problem = f"Could not write {path}: {error.strerror or error}"
        except (PicturesMissing, StoreError, sqlite3.Error) as error:
            problem = str(error)
        self.post_message(Saved(path, problem))

    @on(Saved)
    def _saved(self, message: Saved) -> None:
        self._busy = False
        if message.problem:
            self._say(message.problem)
        else:
            self.dismiss(message.path)
