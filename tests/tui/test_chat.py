from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from aapo_desk.store import RunDirectory
from aapo_desk.tui.app import DeskApp
from aapo_desk.tui.screens.chat import ChatScreen
from aapo_desk.tui.screens.home import HomeScreen
from aapo_desk.tui.screens.monitor import MonitorScreen
from aapo_desk.tui.widgets.ask_line import AskLine
from aapo_desk.tui.widgets.exchange import Exchange
from aapo_desk.tui.widgets.question import QuestionField
from tests.tui import fixed_run
from tests.tui.driving import NARROW, WIDE, Desk, press, settle, shown
from tests.tui.hostile import check_lines, screen

Compare = Callable[..., bool]
Said = dict[str, Any]

READY: Said = {
    "kind": "ready",
    "step": 30,
    "chosen": "the best by held-out accuracy",
    "model": fixed_run.config().model.id,
    "device": "CPU",
    "live": False,
    "context": 2048,
    "max_new_tokens": 256,
    "problems": [
        {"problem": "What is 4 + 9?\nThe number alone.", "answer": "13"},
        {"problem": "7 + 8 =", "answer": "15"},
    ],
    "note": "",
    "seconds": 3.2,
}


class Process:
    """Stands where the model process would: what it was sent, and what it is made to say."""

    def __init__(self, hear: Callable[[Said], None]) -> None:
        self._hear = hear
        self.sent: list[Said] = []
        self.ended = False

    def send(self, message: Said) -> None:
        self.sent.append(message)

    def end(self) -> None:
        self.ended = True

    def say(self, kind: str, **more: Any) -> None:
        self._hear({"kind": kind, **more})

    def ready(self, **more: Any) -> None:
        self._hear(READY | more)

    def answer(self, number: int, base: str, tuned: str) -> None:
        for side, text in (("base", base), ("tuned", tuned)):
            self.say("piece", id=number, side=side, text=text[:3])
            self.say("end", id=number, side=side, text=text, tokens=len(text), seconds=0.8, why="end")
        self.say("done", id=number, first=0.1, seconds=0.8)


class Chat:
    """The desk with a chat opened over a run's monitor."""

    def __init__(self, app: DeskApp, pilot: Pilot[Any], processes: list[Process]) -> None:
        self.app, self.pilot, self._processes = app, pilot, processes

    @property
    def process(self) -> Process:
        return self._processes[-1]

    @property
    def screen(self) -> ChatScreen:
        assert isinstance(self.app.screen, ChatScreen)
        return self.app.screen

    @property
    def field(self) -> QuestionField:
        return self.screen.query_one(QuestionField)

    @property
    def text(self) -> str:
        return shown(self.app)

    @property
    def told(self) -> list[str]:
        """Return the texts of the notifications."""
        return [note.message for note in self.app._notifications]

    async def hear(self) -> str:
        await settle(self.pilot)
        return self.text

    async def ask(self, text: str) -> None:
        self.field.put(text)
        await press(self.pilot, "enter")


class Opened:
    """An app whose model processes are ``Process``es."""

    def __init__(self, app: DeskApp) -> None:
        self.app = app
        self.processes: list[Process] = []
        app.open_chat = self._open

    def _open(self, run: RunDirectory, hear: Callable[[Said], None]) -> Process:
        self.processes.append(Process(hear))
        return self.processes[-1]

    async def by_key(self, pilot: Pilot[Any]) -> Chat:
        """The chat of the run that the screen shows."""
        await settle(pilot)
        await press(pilot, "t")
        return Chat(self.app, pilot, self.processes)

    async def chat(self, pilot: Pilot[Any]) -> Chat:
        """A run's chat, over a Home that has no runs to read."""
        self.app.chat(RunDirectory(Path("sums-first-try")))
        await settle(pilot)
        return Chat(self.app, pilot, self.processes)


@pytest.fixture
def opened(desk: Desk) -> Opened:
    return Opened(desk())


async def test_it_opens_from_the_monitor_loads_answers_and_takes_its_process_with_it(
    desk: Desk, run: RunDirectory
) -> None:
    opened = Opened(desk(run))
    async with opened.app.run_test(size=NARROW) as pilot:
        chat = await opened.by_key(pilot)
        assert "◌ loading" in chat.text
        chat.process.say("progress", text="loading torch and transformers")
        assert "loading torch and transformers" in await chat.hear()
        chat.process.ready()
        assert "✓ ready · SmolLM2-135M-Instruct on CPU · greedy, up to 256 tokens" in await chat.hear()
        await press(pilot, *"hi", "enter")
        assert chat.process.sent == [{"ask": 1, "text": "hi", "temperature": 0.0, "top_p": 1.0, "max_new_tokens": None}]
        chat.process.say("piece", id=1, side="tuned", text="Hel")
        chat.process.say("piece", id=1, side="tuned", text="lo")
        text = await chat.hear()
        assert "▶ answering" in text
        assert "base  waiting" in text
        assert "tuned  writing" in text
        assert "Hello" in text
        chat.process.answer(1, "Good day.", "Hello.")
        text = await chat.hear()
        assert "base  9 tokens · 0.8 s" in text
        assert "Good day." in text
        assert "✓ ready" in text
        process = chat.process
        await press(pilot, "escape")
        assert isinstance(opened.app.screen, MonitorScreen)
        assert process.ended


async def test_it_opens_from_the_run_under_the_cursor_on_home(desk: Desk, run: RunDirectory) -> None:
    opened = Opened(desk())
    async with opened.app.run_test(size=NARROW) as pilot:
        chat = await opened.by_key(pilot)
        assert chat.screen.run_directory == run
        await press(pilot, "escape")
        assert isinstance(opened.app.screen, HomeScreen)


async def test_leaving_the_desk_ends_the_process(opened: Opened) -> None:
    async with opened.app.run_test(size=NARROW) as pilot:
        chat = await opened.chat(pilot)
        await press(pilot, "ctrl+q")
    assert chat.process.ended


async def test_where_nothing_may_be_started_there_is_no_chat(desk: Desk, run: RunDirectory) -> None:
    opened = Opened(desk(run, read_only=True))
    async with opened.app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "t")
        assert isinstance(opened.app.screen, MonitorScreen)
        await press(pilot, "escape", "t")
        assert isinstance(opened.app.screen, HomeScreen)
    assert opened.processes == []


async def test_the_runs_own_problems_are_brought_one_after_the_other_and_asked_by_their_place(opened: Opened) -> None:
    async with opened.app.run_test(size=NARROW) as pilot:
        chat = await opened.chat(pilot)
        await press(pilot, "tab")
        assert chat.field.text == ""
        assert chat.told[-1] == "The model is still loading."
        chat.process.ready()
        await chat.hear()
        await press(pilot, "tab")
        assert chat.field.text == "What is 4 + 9?\nThe number alone."
        assert "problem 1 of 2 · right answer 13 · starts a new chat" in chat.text
        await press(pilot, "tab")
        assert chat.field.text == "7 + 8 ="
        await press(pilot, "tab", "shift+tab")
        assert "problem 2 of 2" in chat.text
        await press(pilot, "enter")
        assert chat.process.sent[-1]["own"] == 1
        assert "text" not in chat.process.sent[-1]
        assert "right answer: 15" in chat.text


async def test_a_problem_that_was_changed_is_a_question_of_ones_own(opened: Opened) -> None:
    async with opened.app.run_test(size=NARROW) as pilot:
        chat = await opened.chat(pilot)
        chat.process.ready()
        await chat.hear()
        await press(pilot, "shift+tab", "backspace", "?")
        assert "problem 2 of 2" not in chat.text
        await press(pilot, "enter")
        assert chat.process.sent[-1]["text"] == "7 + 8 ?"


async def test_escape_ends_an_answer_first_and_a_second_question_waits_for_its_end(opened: Opened) -> None:
    async with opened.app.run_test(size=NARROW) as pilot:
        chat = await opened.chat(pilot)
        chat.process.ready()
        await chat.ask("count")
        chat.process.say("piece", id=1, side="base", text="1 2 3")
        await chat.hear()
        await chat.ask("another")
        assert len(chat.process.sent) == 1
        assert chat.told[-1] == "An answer is being generated. Press esc to stop it."
        await press(pilot, "escape")
        assert chat.process.sent[-1] == {"cancel": 1}
        for side in ("base", "tuned"):
            chat.process.say("end", id=1, side=side, text="1 2 3", tokens=5, seconds=1.0, why="cancelled")
        chat.process.say("done", id=1, first=0.1, seconds=1.0)
        assert "base  5 tokens · 1.0 s, stopped" in await chat.hear()
        assert chat.field.text == "another"


async def test_a_question_asked_while_the_model_loads_is_answered_then(opened: Opened) -> None:
    async with opened.app.run_test(size=NARROW) as pilot:
        chat = await opened.chat(pilot)
        await chat.ask("early")
        assert chat.process.sent[-1]["text"] == "early"
        assert "◌ loading" in chat.text
        chat.process.ready()
        assert "▶ answering" in await chat.hear()
        chat.process.answer(1, "b", "t")
        assert "✓ ready" in await chat.hear()


async def test_anew_forgets_what_was_said_and_what_still_comes(opened: Opened) -> None:
    async with opened.app.run_test(size=NARROW) as pilot:
        chat = await opened.chat(pilot)
        chat.process.ready()
        await chat.ask("first")
        await press(pilot, "ctrl+r")
        assert chat.process.sent[-2:] == [{"cancel": 1}, {"reset": True}]
        chat.process.answer(1, "late", "late")
        assert "late" not in await chat.hear()
        assert not chat.screen.query(Exchange)
        await chat.ask("second")
        chat.process.answer(2, "b2", "t2")
        assert "t2" in await chat.hear()


async def test_a_refused_question_says_why_and_the_next_is_answered(opened: Opened) -> None:
    async with opened.app.run_test(size=NARROW) as pilot:
        chat = await opened.chat(pilot)
        chat.process.ready()
        await chat.ask("far too long")
        chat.process.say("refused", id=1, error="this is 9000 tokens; the model takes 2048")
        text = await chat.hear()
        assert "✗ this is 9000 tokens; the model takes 2048" in text
        assert "base  not asked" in text
        await chat.ask("short")
        assert chat.process.sent[-1]["ask"] == 2


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            {"problems": [{"path": "RUN", "message": "has no checkpoint yet, so nothing in it is tuned"}]},
            "no checkpoint",
        ),
        ({"error": "the model process was killed, perhaps by the system for want of memory"}, "was killed"),
    ],
)
async def test_a_failure_says_why_and_can_be_tried_again(opened: Opened, said: Said, words: str) -> None:
    async with opened.app.run_test(size=NARROW) as pilot:
        chat = await opened.chat(pilot)
        chat.process.say("failed", **said)
        text = await chat.hear()
        assert "✗ failed" in text
        assert words in text
        assert "ctrl+r tries again" in text
        await chat.ask("is anybody there")
        first = chat.process
        assert first.sent == []
        await press(pilot, "ctrl+r")
        assert first.ended
        assert chat.process is not first
        chat.process.ready()
        assert "✓ ready" in await chat.hear()


async def test_how_answers_are_drawn_is_typed_and_told(opened: Opened) -> None:
    async with opened.app.run_test(size=NARROW) as pilot:
        chat = await opened.chat(pilot)
        chat.process.ready()
        await chat.hear()
        await press(pilot, "ctrl+t")
        line = chat.screen.query_one(AskLine).query_one("#ask-input")
        assert line.value == "temperature 0 top-p 1 tokens 256"  # type: ignore[attr-defined]
        line.value = "temperature hot"  # type: ignore[attr-defined]
        await press(pilot, "enter")
        assert "must be a number" in chat.text
        line.value = "temperature 0.7 tokens 40"  # type: ignore[attr-defined]
        await press(pilot, "enter")
        assert "temperature 0.7, up to 40 tokens" in chat.text
        await chat.ask("again")
        assert (chat.process.sent[-1]["temperature"], chat.process.sent[-1]["max_new_tokens"]) == (0.7, 40)


async def test_a_run_that_trains_and_problems_that_were_trained_on_are_told(opened: Opened) -> None:
    async with opened.app.run_test(size=NARROW) as pilot:
        chat = await opened.chat(pilot)
        chat.process.ready(live=True, problems=[], note="its data cannot be read")
        text = await chat.hear()
        assert "This run is training" in text
        assert "its data cannot be read" in text
        await press(pilot, "tab")
        assert chat.told[-1] == "No problems are available."


async def test_what_a_model_says_is_shown_and_not_obeyed(opened: Opened) -> None:
    async with opened.app.run_test(size=NARROW) as pilot:
        chat = await opened.chat(pilot)
        evil = "\x1b[2J[bold]x[/] \u202eabc\r\n\x07"
        chat.process.ready(problems=[{"problem": f"own {evil}", "answer": evil}], note=evil)
        await chat.hear()
        await press(pilot, "tab")
        await press(pilot, "enter")
        chat.process.answer(1, evil, evil)
        text = await chat.hear()
        assert "␛[2J[bold]x[/]" in text
        check_lines(screen(opened.app), NARROW)


async def test_pasted_text_keeps_its_lines_and_loses_what_cannot_be_seen(opened: Opened) -> None:
    async with opened.app.run_test(size=NARROW) as pilot:
        chat = await opened.chat(pilot)
        chat.field.insert("one\r\ntwo\x1b[31m \u202ethree\ta")
        assert chat.field.text == "one\ntwo[31m three   a"
        await press(pilot, "ctrl+j", *"four")
        assert chat.field.text.endswith("a\nfour")


def conversation(size: tuple[int, int], done: bool) -> Callable[[Opened], Callable[[Pilot[Any]], Any]]:
    def of(opened: Opened) -> Callable[[Pilot[Any]], Any]:
        async def run_before(pilot: Pilot[Any]) -> None:
            chat = await opened.chat(pilot)
            chat.process.ready()
            await chat.hear()
            await press(pilot, "tab", "enter")
            chat.process.answer(1, "The sum of 4 and 9 is equal to the number 14.", "13")
            await chat.hear()
            if done:
                await press(pilot, "tab")
            else:
                await chat.ask("And 20 more?")
                chat.process.say("piece", id=2, side="base", text="20 more than")
                chat.process.say("piece", id=2, side="tuned", text="33")
                await chat.hear()

        return run_before

    return of


@pytest.mark.parametrize(("size", "done"), [(NARROW, False), (WIDE, True)], ids=["narrow", "wide"])
def test_it_looks_like_this(snap_compare: Compare, opened: Opened, size: tuple[int, int], done: bool) -> None:
    assert snap_compare(opened.app, run_before=conversation(size, done)(opened), terminal_size=size)
