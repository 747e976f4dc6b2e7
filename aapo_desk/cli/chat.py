"""The ``chat`` command: a run's base and tuned models answer the same questions."""

from __future__ import annotations

import queue
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aapo_desk.cli.output import complain, interactive, printable, say, say_json
from aapo_desk.cli.start import Offline
from aapo_desk.config import ConfigError, Problem
from aapo_desk.store import find_run

if TYPE_CHECKING:
    from aapo_desk.chat import Answering, Said, Side
    from aapo_desk.store import RunDirectory

WHY = {"end": "", "length": ", cut off", "context": ", cut off: the model's context is full", "cancelled": ", stopped"}


def add_to(app: typer.Typer) -> None:
    app.command("chat")(chat)


def chat(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id, unique start of an id, name, or: last.")],
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", metavar="TEXT", help="Answer this and exit. Repeatable."),
    ] = None,
    step: Annotated[
        str | None,
        typer.Option(
            "--step", metavar="N|best|last", help="Checkpoint to load (default: best; last while the run is training)."
        ),
    ] = None,
    base_only: Annotated[bool, typer.Option("--base-only", help="Only the base model answers.")] = False,
    tuned_only: Annotated[bool, typer.Option("--tuned-only", help="Only the tuned model answers.")] = False,
    temperature: Annotated[
        float, typer.Option("--temperature", help="Sampling temperature; 0 is greedy decoding.")
    ] = 0.0,
    top_p: Annotated[float, typer.Option("--top-p", help="Nucleus sampling threshold.")] = 1.0,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", help="Longest answer in tokens (default: 256, or the run's own).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
    offline: Offline = False,
) -> None:
    """Ask a run's base and tuned models the same questions, side by side.

    In a terminal this is a conversation; /help lists its commands. In a pipe, each line of standard input is a separate
    question. The model is loaded once, in a separate process.
    """
    from aapo_desk.chat import SIDES, Answering

    if base_only and tuned_only:
        raise ConfigError(Problem("--base-only", "cannot be combined with --tuned-only; give one of them"))
    answering = Answering(temperature, top_p, max_new_tokens)
    answering.check()
    talks = interactive() and not prompt
    if talks and json:
        raise ConfigError(Problem("--json", "needs --prompt, or questions on standard input, one per line"))
    sides: Sequence[Side] = ("base",) if base_only else ("tuned",) if tuned_only else SIDES
    directory = find_run(run)
    try:
        with _loaded(directory, step, sides) as talk:
            if talks:
                from aapo_desk.cli.dialogue import Dialogue

                Dialogue(talk, answering).run()
                return
            answers = _answered(talk, prompt or _lines(sys.stdin), answering, tell=not json)
    except ChatFailed as error:
        complain(str(error))
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        complain("cancelled")
        raise typer.Exit(130) from None
    if json:
        say_json(_document(talk.ready, answering, answers))
    if any("error" in answer for answer in answers):
        raise typer.Exit(1)


class ChatFailed(Exception):
    """Raised when the model process has ended; the message says why."""


class Talk:
    """A connection to the model process: it loads the model, sends questions and receives messages."""

    def __init__(self, run: RunDirectory, step: str | None, sides: Sequence[Side]) -> None:
        from aapo_desk.chat import ChatProcess

        self.sides = sides
        self.ready: Said = {}
        self._heard: queue.SimpleQueue[Said] = queue.SimpleQueue()
        self._process = ChatProcess(run, step, sides, self._heard.put)
        self._asked = 0

    def load(self) -> None:
        """Wait until the model is ready, printing progress. Raises ConfigError and ChatFailed."""
        while not self.ready:
            said = self._next()
            if said["kind"] == "progress":
                complain(said["text"], prefix="")
            elif said["kind"] == "ready":
                self.ready = said

    def ask(self, question: dict[str, Any], answering: Answering) -> Iterator[Said]:
        """Send a question and return an iterator over the messages about it, up to ``done`` or ``refused``."""
        self._asked += 1
        self._process.send({"ask": self._asked, **question, **answering.as_json()})
        return self._said()

    def _said(self) -> Iterator[Said]:
        while True:
            said = self._next()
            if said.get("id") == self._asked:
                yield said
                if said["kind"] in ("done", "refused"):
                    return

    def cancel(self) -> None:
        """Stop the answer that is being generated."""
        self._process.send({"cancel": self._asked})

    def reset(self) -> None:
        """Clear the conversation."""
        self._process.send({"reset": True})

    def end(self) -> None:
        self._process.end()

    def _next(self) -> Said:
        said = self._heard.get()
        if said["kind"] != "failed":
            return said
        if problems := said.get("problems"):
            raise ConfigError(*(Problem(**problem) for problem in problems))
        raise ChatFailed(said["error"])


@contextmanager
def _loaded(run: RunDirectory, step: str | None, sides: Sequence[Side]) -> Iterator[Talk]:
    talk = Talk(run, step, sides)
    try:
        talk.load()
        for line in introduction(talk.ready):
            complain(line, prefix="")
        yield talk
    finally:
        talk.end()


def introduction(ready: Said) -> list[str]:
    """Return lines that say which run, checkpoint and model answer."""
    model = f"{ready['model'].partition('#')[0].rpartition('/')[2]} on {ready['device']}"
    lines = [
        f"run {ready['name']}, step {ready['step']} ({ready['chosen']}), {model}, {ready['seconds']:.1f} s to load"
    ]
    if ready["live"]:
        lines.append(
            "this run is still training: answers come from the checkpoint above, and the two share the machine"
        )
    if ready["note"]:
        lines.append(f"the run's own problems: {ready['note']}")
    return lines


def _lines(stream: Iterable[str]) -> Iterator[str]:
    """Return an iterator over the lines of a pipe, each a question; undecodable bytes become replacement characters."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure:
        reconfigure(errors="replace")
    return (line.rstrip("\r\n") for line in stream if line.strip())


def _answered(talk: Talk, questions: Iterable[str], answering: Answering, tell: bool) -> list[dict[str, Any]]:
    """Ask each question in a new conversation. With ``tell``, print each answer as soon as it is complete."""
    answers = []
    for question in questions:
        talk.reset()
        answer: dict[str, Any] = {"question": question}
        for said in talk.ask({"text": question}, answering):
            match said["kind"]:
                case "end":
                    answer[said["side"]] = {name: said[name] for name in ("text", "tokens", "seconds", "why")}
                case "done":
                    answer["first_token_seconds"] = said["first"]
                case "refused":
                    answer["error"] = said["error"]
        answers.append(answer)
        if tell:
            _tell(answer, talk.sides)
    return answers


def _tell(answer: dict[str, Any], sides: Sequence[Side]) -> None:
    """Print a question and its answers, each line labelled with the side that said it."""
    say(f"asked  {shown(answer['question'])[0]}")
    if "error" in answer:
        complain(answer["error"])
    for side in sides:
        if side in answer:
            for line in shown(answer[side]["text"]):
                say(f"{side:<5}  {line}".rstrip())


def shown(text: str) -> list[str]:
    """Return a model's text as lines, with control characters shown instead of sent to the terminal."""
    return [printable(line.expandtabs(4)) for line in text.replace("\r\n", "\n").split("\n")]


def count(said: Said) -> str:
    """Return an answer's statistics, such as ``12 tokens, 0.8 s, cut off``."""
    return f"{said['tokens']} tokens, {said['seconds']:.1f} s{WHY[said['why']]}"


def _document(ready: Said, answering: Answering, answers: list[dict[str, Any]]) -> dict[str, Any]:
    longest = answering.max_new_tokens or ready["max_new_tokens"]
    return {
        "run": {"id": ready["run"], "name": ready["name"]},
        **{name: ready[name] for name in ("step", "chosen", "live", "model", "device")},
        "sampling": answering.as_json() | {"max_new_tokens": longest},
        "loading_seconds": ready["seconds"],
        "answers": answers,
    }
