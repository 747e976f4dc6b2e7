"""A run's events, its log and its evaluations as text."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Container
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import Static

from aapo_desk.evaluation.accuracy import on_one_rule
from aapo_desk.store import Event, event_words
from aapo_desk.store.unscorable import evaluation_notes, unscorable_mark
from aapo_desk.tui.text import one_line, visible
from aapo_desk.tui.widgets.ask_line import AskLine
from aapo_desk.tui.widgets.header import interval
from aapo_desk.tui.widgets.pane import Pane

VIEWS = ("events", "log", "evaluations")
SEARCHED = ("events", "log")


class Tabs(Static):
    """The names of the views. A click goes to the next view."""

    class Clicked(Message):
        """The user wants the next view."""

    def on_click(self, event: events.Click) -> None:
        event.stop()
        self.post_message(self.Clicked())


class NotesView(Container):
    """A view of one of three texts at a time, which follows new lines unless the user has scrolled up.

    If the user has given a search text, events and log show only the lines that contain it.
    """

    view: reactive[str] = reactive("events", init=False)

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._texts: dict[str, Content] = dict.fromkeys(VIEWS, Content("nothing yet"))
        self._wanted = ""

    def compose(self) -> ComposeResult:
        yield Tabs(id="notes-title", markup=False)
        with Pane(id="notes-pane"):
            yield Static(id="notes-text", markup=False)
        yield AskLine(id="notes-ask")

    def on_mount(self) -> None:
        self._show_view()

    def open(self, view: str) -> None:
        """Switch to a view and scroll to its end."""
        self.view = view
        self._show_view()

    def ask(self) -> None:
        """Ask for the search text that filters the lines of events and log."""
        if self.view not in SEARCHED:
            self.open("log")
        self.query_one(AskLine).ask("Lines with", self._wanted, "any text; empty: all lines")

    @on(AskLine.Answered)
    def _take_wanted(self, message: AskLine.Answered) -> None:
        message.stop()
        self._wanted = message.text.strip()
        self.query_one(AskLine).action_close()
        self._show_view()

    @on(AskLine.Closed)
    def _leave_line(self, message: AskLine.Closed) -> None:
        message.stop()
        self.screen.set_focus(None)

    def put(self, view: str, text: Content) -> None:
        """Replace the text of a view."""
        if text == self._texts[view]:
            return
        self._texts[view] = text
        if view == self.view:
            self._show_view(moved=False)

    def _show_view(self, moved: bool = True) -> None:
        title = [
            (f"[{name}] " if name == self.view else f" {name}  ", "bold" if name == self.view else "$foreground 70%")
            for name in VIEWS
        ]
        text = self._texts[self.view]
        if self._wanted and self.view in SEARCHED:
            lines = text.split("\n")
            kept = [line for line in lines if self._wanted.lower() in line.plain.lower()]
            text = Content("\n").join(kept)
            title.append((f" {len(kept)} of {len(lines)} with “{self._wanted}”", "$text-secondary"))
        self.query_one("#notes-title", Static).update(Content.assemble(*title))
        pane = self.query_one("#notes-pane", Pane)
        at_end = moved or pane.scroll_offset.y >= pane.max_scroll_y
        self.query_one("#notes-text", Static).update(text)
        if at_end and self.view != "evaluations":
            pane.call_after_refresh(pane.scroll_end, animate=False)


def log_text(lines: Sequence[str]) -> Content:
    return Content(visible("\n".join(lines), 100_000))


def events_text(items: Iterable[Event]) -> Content:
    """Return one line for each event, oldest first."""
    return Content("\n".join(map(_event_line, items)) or "nothing yet")


def _event_line(event: Event) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(event.time))
    return f"{clock}  step {event.step:<4} {one_line(event_words(event.kind, event.data))}"


def evaluations_text(
    evaluations: Mapping[int, Mapping[str, Any]], warm_start: Mapping[str, Any] | None = None
) -> Content:
    """Return a table of held-out accuracy by step, and below it the gain of the tuned model over the base model.

    ``warm_start`` is the evaluation after the warm start, which is shown between the base and the first step.
    """
    if not evaluations:
        return Content("not evaluated yet")
    evaluations = on_one_rule(evaluations)
    lines: list[Content] = [Content.styled("step  greedy              sampled", "$foreground 70%")]
    for step in sorted(evaluations):
        data = evaluations[step]
        lines.append(_evaluation_line("base" if step == 0 else str(step), data))
        if step == 0 and warm_start:
            lines.append(_evaluation_line("warm", warm_start))
    last = max(evaluations)
    for name, label in (("difference", "greedy "), ("difference_sampled", "sampled")):
        item = evaluations[last].get(name) if last else None
        if item:
            text = interval(item.get("mean"), item.get("low"), item.get("high"), sign=True)
            lines.append(Content.styled(f"gain {label} {text}", "bold"))
    problems = evaluations[last].get("problems")
    lines.append(Content.styled(f"{problems} held-out problems, paired; [95 % interval]", "$foreground 70%"))
    if notes := evaluation_notes(evaluations[last]):
        lines += [Content.styled(f"{'base' if last == 0 else last} {note}", "$text-warning") for note in notes]
    return Content("\n").join(lines)


def _evaluation_line(who: str, data: Mapping[str, Any]) -> Content:
    sides = [data.get(name) or {} for name in ("greedy", "sampled")]
    cells = [_answers(side) for side in sides]
    marks = [unscorable_mark(side, int(data.get("problems") or 0)) or "none" for side in sides]
    beside = "" if set(marks) == {"none"} else f"  {marks[0]}, {marks[1]}"
    return Content(f"{who:<5} {cells[0]:<19} {cells[1]}{beside}")


def _answers(data: Mapping[str, Any] | None) -> str:
    return interval(data.get("accuracy"), data.get("low"), data.get("high")) if data else "–"
