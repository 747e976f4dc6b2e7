"""The chat screen: it asks a run's base and tuned model the same question. Both run in a separate process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, Protocol

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import Static, TextArea

from aapo_desk.chat.request import Answering
from aapo_desk.config import ConfigError
from aapo_desk.store import RunDirectory
from aapo_desk.tui.labels import model_label
from aapo_desk.tui.screens.guard import DeskScreen, TooSmall
from aapo_desk.tui.text import one_line, plain, visible
from aapo_desk.tui.widgets.ask_line import AskLine
from aapo_desk.tui.widgets.exchange import Exchange
from aapo_desk.tui.widgets.keysline import KeysLine
from aapo_desk.tui.widgets.pane import Pane
from aapo_desk.tui.widgets.question import QuestionField

MUTED = "$foreground 70%"
MOST_EXCHANGES = 100
SAMPLING = "sampling"
SAMPLING_HELP = "temperature 0.7 top-p 0.9 tokens 256; temperature 0 is greedy"
MARKS = {"loading": "◌", "ready": "✓", "answering": "▶", "failed": "✗"}

Said = dict[str, Any]
State = Literal["loading", "ready", "answering", "failed"]


class ModelProcess(Protocol):
    """The part of ``aapo_desk.chat.ChatProcess`` that the screen uses."""

    def send(self, message: Said) -> None: ...

    def end(self) -> None: ...


OpenChat = Callable[[RunDirectory, Callable[[Said], None]], ModelProcess]


class Heard(Message):
    """A message from the model process."""

    def __init__(self, said: Said) -> None:
        super().__init__()
        self.said = said


class ChatScreen(DeskScreen[None]):
    """A chat, opened on top of Home or the monitor. Closing it ends the model process; a live run continues."""

    CSS_PATH = "chat.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+r", "anew", "Restart", tooltip="Clear the chat; after a failure, load the model again"),
        Binding("ctrl+t", "sampling", "Sampling", tooltip=f"How answers are sampled: {SAMPLING_HELP}"),
        Binding("f1", "app.help", "Help", show=False, tooltip="All keys of this screen"),
        Binding("escape", "stop", "Stop", key_display="esc", tooltip="Stop the answers being generated"),
        Binding("escape", "back", "Back", key_display="esc", tooltip="Close the chat and end the model process"),
    ]

    def __init__(self, run: RunDirectory, open_chat: OpenChat) -> None:
        super().__init__()
        self.run_directory = run
        self.state: State = "loading"
        self._open_chat = open_chat
        self._process: ModelProcess | None = None
        self._ready: Said = {}
        self._answering = Answering()
        self._asked = 0
        self._current: Exchange | None = None
        self._began = 0.0
        self._doing = "starting"
        self._own: int | None = None
        self._own_text: str | None = None

    def compose(self) -> ComposeResult:
        yield TooSmall(id="too-small")
        yield Static(id="chat-title", markup=False)
        yield Static(id="chat-state", markup=False)
        with Pane(id="chat-log", can_focus=False):
            yield Static(id="chat-about", markup=False)
        yield Static(id="chat-own", markup=False)
        yield QuestionField(id="chat-question", placeholder="ask both models; tab inserts one of the run's problems")
        yield AskLine(id="ask")
        yield KeysLine()

    def on_mount(self) -> None:
        self.query_one(QuestionField).focus()
        self.query_one("#chat-own").display = False
        self.set_interval(1.0, self._show_state)
        self._load()

    def on_unmount(self) -> None:
        if self._process is not None:
            self._process.end()

    # The process

    def _load(self) -> None:
        self.state, self._began, self._doing = "loading", self.desk.clock(), "starting"
        self._process = self._open_chat(self.run_directory, self._hear)
        self._show()

    def _hear(self, said: Said) -> None:
        """Post a message from the model process to the screen. Called in the thread that reads the process."""
        self.post_message(Heard(said))

    @on(Heard)
    def _take(self, message: Heard) -> None:
        said = message.said
        match said["kind"]:
            case "progress":
                self._doing = one_line(said["text"])
                self._show_state()
            case "ready":
                self._ready = said
                self.state = "answering" if self._current else "ready"
                self._show()
            case "failed":
                self._fail(said)
            case "piece" | "end" | "done" | "refused" if said["id"] == self._asked and self._current:
                self._take_answer(self._current, said)

    def _take_answer(self, exchange: Exchange, said: Said) -> None:
        follow = self._is_at_end()
        match said["kind"]:
            case "piece":
                exchange.answers[said["side"]].add(said["text"])
            case "end":
                exchange.answers[said["side"]].end(said)
            case "refused":
                exchange.refuse(said["error"])
        if said["kind"] in ("done", "refused"):
            self._current = None
            self.state = "ready"
            self._show_state()
            self.refresh_bindings()
        if follow:
            self.query_one("#chat-log", Pane).scroll_end(animate=False)

    def _fail(self, said: Said) -> None:
        problems = said.get("problems")
        reason = "\n".join(problem["message"] for problem in problems) if problems else said["error"]
        if self._current:
            self._current.refuse("the model process has ended")
            self._current = None
        self.state, self._doing = "failed", reason
        self._show()

    # Drawing

    def _show(self) -> None:
        ready = self._ready
        where = f"  step {ready['step']}, {ready['chosen']}" if ready else ""
        title = Content.assemble((one_line(self.run_directory.name), "bold"), "  chat", (where, MUTED))
        self.query_one("#chat-title", Static).update(title)
        self.query_one("#chat-about", Static).update(self._about())
        self._show_state()
        self.refresh_bindings()

    def _about(self) -> Content:
        """Return the introduction above the first question, or why no model could be loaded."""
        if self.state == "failed":
            said = Content.assemble(("✗ This run's models cannot answer\n\n", "bold $text-error"), plain(self._doing))
            return Content.assemble(said, ("\n\nctrl+r tries again, esc closes", MUTED))
        if not self._ready:
            return Content.styled("Loading the base and the tuned model in a separate process.", MUTED)
        ready, lines = self._ready, []
        if ready["live"]:
            lines.append("This run is training. The chat uses its last checkpoint and shares the machine with it.")
        problems = len(ready["problems"])
        lines.append(
            f"tab inserts one of the run's {problems} problems, with its right answer; it is asked in a new chat."
            if problems
            else "The run's problems are not available."
        )
        if ready["note"]:
            lines.append(f"{one_line(ready['note'])}.")
        return Content.styled("\n".join(lines), MUTED)

    def _show_state(self) -> None:
        parts = [f"{MARKS[self.state]} {self.state}"]
        match self.state:
            case "loading":
                parts += [self._doing, f"{max(0.0, self.desk.clock() - self._began):.0f} s"]
            case "failed":
                parts += [one_line(self._doing)]
            case _:
                parts += [f"{one_line(model_label(self._ready['model']))} on {one_line(self._ready['device'])}"]
                parts += [self._answering.words(self._ready["max_new_tokens"])]
        self.query_one("#chat-state", Static).update(Content(" · ".join(parts)))

    def _is_at_end(self) -> bool:
        log = self.query_one("#chat-log", Pane)
        return log.scroll_y >= log.max_scroll_y - 1

    # Questions

    @on(QuestionField.Asked)
    def _ask(self, message: QuestionField.Asked) -> None:
        if self.state == "failed":
            self.notify("No model is loaded. Press ctrl+r to load it again.", severity="warning", markup=False)
            return
        if self._current:
            self.notify("An answer is being generated. Press esc to stop it.", severity="warning", markup=False)
            return
        own = self._own if message.text == self._own_text else None
        question = {"text": message.text} if own is None else {"own": own}
        self._asked += 1
        assert self._process
        self._process.send({"ask": self._asked, **question, **self._answering.as_json()})
        about = "" if own is None else f"right answer: {one_line(self._ready['problems'][own]['answer'], 60)}"
        self._current = Exchange(message.text, about)
        self.state = "answering" if self._ready else "loading"
        self._put_question("", None)
        self._add(self._current)
        self._show_state()
        self.refresh_bindings()

    def _add(self, exchange: Exchange) -> None:
        log = self.query_one("#chat-log", Pane)
        before = list(self.query(Exchange))
        for old in before[: len(before) - MOST_EXCHANGES + 1]:
            old.remove()
        log.mount(exchange)
        self.call_after_refresh(log.scroll_end, animate=False)

    def action_own(self, by: int) -> None:
        """Put another of the run's problems into the question field, ``by`` places from the current one."""
        problems = self._ready.get("problems", [])
        if not problems:
            words = "The model is still loading." if self.state == "loading" else "No problems are available."
            self.notify(words, severity="warning", markup=False)
            return
        start = -1 if by > 0 else 0
        self._own = ((start if self._own is None else self._own) + by) % len(problems)
        problem = problems[self._own]
        self._put_question(visible(problem["problem"]), self._own)

    def _put_question(self, text: str, own: int | None) -> None:
        self._own_text = text if own is not None else None
        self.query_one(QuestionField).put(text)

    @on(TextArea.Changed)
    def _say_whose(self) -> None:
        """Show the right answer while the question field holds one of the run's problems, unedited."""
        line = self.query_one("#chat-own", Static)
        own = self._own if self.query_one(QuestionField).text == self._own_text else None
        line.display = own is not None
        if own is not None:
            problems = self._ready["problems"]
            answer = one_line(problems[own]["answer"], 60)
            line.update(Content(f"problem {own + 1} of {len(problems)} · right answer {answer} · starts a new chat"))

    # Keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        match action:
            case "stop":
                return self._current is not None and self.state == "answering"
            case "back":
                return self._current is None or self.state != "answering"
        return super().check_action(action, parameters)

    def action_stop(self) -> None:
        assert self._process
        self._process.send({"cancel": self._asked})

    def action_anew(self) -> None:
        if self.state == "failed":
            if self._process is not None:
                self._process.end()
            self._ready = {}
            self._load()
            return
        assert self._process
        self._process.send({"cancel": self._asked})
        self._process.send({"reset": True})
        self._current = None
        self.state = "ready" if self._ready else "loading"
        self.query(Exchange).remove()
        self._show()

    def action_page(self, by: int) -> None:
        log = self.query_one("#chat-log", Pane)
        log.scroll_relative(y=by * max(1, log.size.height - 1), animate=False)

    def action_sampling(self) -> None:
        settings = self._answering
        tokens = settings.max_new_tokens or self._ready.get("max_new_tokens")
        now = f"temperature {settings.temperature:g} top-p {settings.top_p:g}" + (f" tokens {tokens}" if tokens else "")
        self.query_one(AskLine).ask(SAMPLING, now, SAMPLING_HELP)

    @on(AskLine.Answered)
    def _take_sampling(self, message: AskLine.Answered) -> None:
        line = self.query_one(AskLine)
        try:
            self._answering = self._answering.changed(message.text)
        except ConfigError as error:
            line.refuse(one_line(str(error.problems[0])))
            return
        line.action_close()
        self._show_state()

    @on(AskLine.Closed)
    def _line_closed(self) -> None:
        self.query_one(QuestionField).focus()

    def action_back(self) -> None:
        self.dismiss()

    def copyable(self) -> str:
        """Return the tuned model's last answer."""
        exchanges = list(self.query(Exchange))
        return exchanges[-1].answers["tuned"].text if exchanges else ""

    def farewell(self) -> str:
        stack = self.app.screen_stack
        below = stack[stack.index(self) - 1]
        return below.farewell() if isinstance(below, DeskScreen) else ""
