"""A conversation in a terminal: base and tuned in two columns if they fit, else one after the other."""

from __future__ import annotations

import shutil
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import zip_longest
from typing import Any

from rich.cells import cell_len, chop_cells

from aapo_desk.chat import Answering, Said, Side
from aapo_desk.cli.chat import Talk, count, shown
from aapo_desk.cli.output import complain, printable, say
from aapo_desk.config import ConfigError

LEAST_COLUMN = 40
"""Minimum column width in characters; on narrower terminals the answers come one after the other."""
GAP = " | "
LISTED = 10
HELP = """\
/prompts [N]      list ten of the run's own problems, from number N; /3 asks number 3 in a new conversation
/set NAME VALUE   set temperature (0 is greedy), top-p or tokens (the longest answer)
/reset            clear the conversation
/quit             leave, as does Ctrl-D; Ctrl-C stops an answer
To ask a question that begins with /, put a space before it."""


class Dialogue:
    """A loop that reads lines and answers them until the user leaves."""

    def __init__(self, talk: Talk, answering: Answering) -> None:
        self._talk = talk
        self._answering = answering
        self._listed = 0

    def run(self) -> None:
        """Read and answer lines until the user leaves. Raises ChatFailed if the model process ends by itself."""
        with suppress(ImportError):
            import readline  # noqa: F401 (gives input() line editing and history)
        self._say_how()
        say("/prompts lists the run's own problems, /help all commands; Ctrl-C stops an answer, Ctrl-D ends the chat.")
        while True:
            try:
                line = input("> ")
            except EOFError:
                say()
                return
            except KeyboardInterrupt:
                say()
                continue
            if line.strip() in ("/quit", "/exit"):
                return
            self._take(line)

    def _take(self, line: str) -> None:
        name, _, rest = line.strip().partition(" ")
        if not name:
            return
        if not line.startswith("/"):
            self._ask({"text": line.strip()})
        elif name[1:].isdecimal():
            self._ask_own(int(name[1:]))
        elif name == "/prompts":
            self._list(rest)
        elif name == "/set":
            self._set(rest)
        elif name == "/reset":
            self._talk.reset()
            say("Conversation cleared.")
        else:
            if name != "/help":
                complain(f"unknown command {name}", prefix="")
            say(HELP)

    # The run's own problems

    def _list(self, start: str) -> None:
        problems = self._talk.ready["problems"]
        if not problems:
            say(f"None available: {printable(self._talk.ready['note'])}.")
            return
        first = int(start) - 1 if start.strip().isdecimal() else self._listed
        first = first if 0 <= first < len(problems) else 0
        for place, problem in enumerate(problems[first : first + LISTED], start=first + 1):
            text, answer = (printable(" ".join(problem[name].split())) for name in ("problem", "answer"))
            say(_fitting(f"/{place:<4} {text}", _columns() - 1 - len(answer) - 4) + f"  [{answer}]")
        self._listed = first + LISTED
        say(f"{len(problems)} in total, with the right answers in brackets; /prompts again shows the next.")

    def _ask_own(self, number: int) -> None:
        problems = self._talk.ready["problems"]
        if not 1 <= number <= len(problems):
            complain(f"there is no problem {number}: {len(problems)} are available", prefix="")
            return
        problem = problems[number - 1]
        for line in shown(problem["problem"]):
            say(f"  {line}".rstrip())
        say(f"  right answer: {printable(problem['answer'])}")
        self._ask({"own": number - 1})

    # Answers

    def _set(self, text: str) -> None:
        try:
            self._answering = self._answering.changed(text)
        except ConfigError as error:
            complain(str(error), prefix="")
        self._say_how()

    def _say_how(self) -> None:
        say(f"Answers are {self._answering.words(self._talk.ready['max_new_tokens'])}.")

    def _ask(self, question: dict[str, Any]) -> None:
        sides = self._talk.sides
        width = (_columns() - 1 - len(GAP) * (len(sides) - 1)) // len(sides)
        wide = len(sides) > 1 and width >= LEAST_COLUMN
        messages = self._talk.ask(question, self._answering)
        shape: Shape
        with _ctrl_c(self._talk.cancel):
            for said in messages:
                match said["kind"]:
                    case "begun":
                        shape = Columns(sides, width) if wide else OneAfterTheOther(sides)
                    case "piece":
                        shape.add(said["side"], said["text"])
                    case "end":
                        shape.end(said)
                    case "refused":
                        complain(said["error"], prefix="")


@contextmanager
def _ctrl_c(act: Callable[[], None]) -> Iterator[None]:
    """Inside the block, the first Ctrl-C calls ``act``. A second one raises KeyboardInterrupt as usual, in case
    ``act`` had no effect."""
    before = signal.getsignal(signal.SIGINT)

    def interrupted(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        act()

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Shape(ABC):
    """A layout that draws the answers to one question as they arrive."""

    @abstractmethod
    def add(self, side: Side, text: str) -> None:
        """Draw the next piece of one answer."""

    @abstractmethod
    def end(self, said: Said) -> None:
        """Draw the end of one answer, given its complete text and statistics."""


class OneAfterTheOther(Shape):
    """A layout that draws the first answer as it arrives, then what has arrived of the next one."""

    def __init__(self, sides: Sequence[Side]) -> None:
        self._left = list(sides)
        self._waiting = dict.fromkeys(sides, "")
        self._ends: dict[Side, Said] = {}
        self._begin()

    def add(self, side: Side, text: str) -> None:
        if self._left[0] == side:
            _write("\n".join(shown(text)))
        else:
            self._waiting[side] += text

    def end(self, said: Said) -> None:
        self._ends[said["side"]] = said
        while self._left and self._left[0] in self._ends:
            _write(f"\n       ({count(self._ends[self._left.pop(0)])})\n")
            self._begin()

    def _begin(self) -> None:
        if self._left:
            _write(f"{self._left[0]:<5}  " + "\n".join(shown(self._waiting[self._left[0]])))


class Columns(Shape):
    """A layout of two columns of ``width`` characters. A row is final once neither column can still change it."""

    def __init__(self, sides: Sequence[Side], width: int) -> None:
        self._width = width
        self._texts = dict.fromkeys(sides, "")
        self._ends: dict[Side, Said] = {}
        self._done = 0
        say(self._row(list(sides)))

    def add(self, side: Side, text: str) -> None:
        self._texts[side] += text
        self._draw()

    def end(self, said: Said) -> None:
        self._texts[said["side"]] = said["text"]
        self._ends[said["side"]] = said
        self._draw()
        if len(self._ends) == len(self._texts):
            _write("\n")
            say(self._row([f"({count(self._ends[side])})" for side in self._texts]))

    def _draw(self) -> None:
        sides = {side: wrapped(text, self._width) for side, text in self._texts.items()}
        settled = min(10**9 if side in self._ends else len(lines) - 1 for side, lines in sides.items())
        rows = list(zip_longest(*sides.values(), fillvalue=""))
        for place in range(self._done, min(settled + 1, len(rows))):
            last = place == len(rows) - 1 or place == settled
            _write(f"\r{self._row(rows[place])}\x1b[K" + ("" if last else "\n"))
            self._done = place

    def _row(self, cells: Sequence[str]) -> str:
        return GAP.join(cell + " " * (self._width - cell_len(cell)) for cell in cells).rstrip()


def wrapped(text: str, width: int) -> list[str]:
    """Return a model's text in lines of ``width`` cells, broken between words if possible.

    Appending to the text changes only the last line.
    """
    lines = []
    for paragraph in shown(text):
        line = ""
        for place, word in enumerate(paragraph.split(" ")):
            longer = f"{line} {word}" if place else word
            if cell_len(longer) <= width:
                line = longer
            if cell_len(longer) <= width or not word:  # a space at the end of a full line starts no new line
                continue
            if place:
                lines.append(line)
            *full, line = chop_cells(word, width) or [""]
            lines += full
        lines.append(line)
    return lines


def _columns() -> int:
    return shutil.get_terminal_size().columns


def _fitting(text: str, width: int) -> str:
    """Return ``text`` cut to ``width`` cells, ending in dots if it was cut."""
    return text if cell_len(text) <= width else f"{chop_cells(text, max(1, width - 3))[0]}..."


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
