"""aapo-desk chat: lines, JSON, the conversation in a terminal, exit statuses."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from aapo_desk.cli import chat, dialogue
from aapo_desk.cli.app import run
from aapo_desk.cli.dialogue import Columns, OneAfterTheOther, wrapped
from aapo_desk.config import resolve
from aapo_desk.store import RunDirectory, create_run
from tests.chat.stand_in import stand_in

__all__ = ["stand_in"]

Output = pytest.CaptureFixture[str]
Type = Callable[..., tuple[int, str]]


@pytest.fixture
def sums(desk_home: Path) -> RunDirectory:
    return create_run(resolve({"model": {"id": "owner/tiny"}, "task": {"source": "arithmetic"}}), "sums")


def asked(sums: RunDirectory) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (sums.path / "asked.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("stand_in")
def test_a_prompt_is_answered_in_lines_that_say_whose_they_are(sums: RunDirectory, capsys: Output) -> None:
    assert run(["chat", "sums", "--prompt", "2 + 3 =", "--temperature", "0.5", "--max-new-tokens", "9"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "asked  2 + 3 =",
        "base   base on 2 + 3 =",
        "tuned  tuned",
        "tuned  in \\x1b[31mred",  # shown, not obeyed
    ]
    assert "run sums, step 5 (the best by held-out accuracy), tiny on CPU, 1.5 s to load" in captured.err
    assert asked(sums)[-1] == {"ask": 1, "text": "2 + 3 =", "temperature": 0.5, "top_p": 1.0, "max_new_tokens": 9}


@pytest.mark.usefixtures("stand_in")
def test_questions_in_a_pipe_are_asked_each_by_itself(
    sums: RunDirectory, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = io.TextIOWrapper(io.BytesIO("first\n\n  \nzw\u00f6lf \n".encode() + b"b\xffd"), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", pipe)
    assert run(["chat", "sums", "--tuned-only"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("asked")] == ["asked  first", "asked  zwölf ", "asked  b\ufffdd"]
    assert not any(line.startswith("base") for line in lines)
    assert [request.get("text") or request.get("reset") for request in asked(sums)] == [
        *(True, "first", True, "zwölf ", True, "b\ufffdd")
    ]


@pytest.mark.usefixtures("stand_in")
def test_as_json_it_is_one_document_and_a_refusal_is_a_failure(sums: RunDirectory, capsys: Output) -> None:
    assert run(["chat", "sums", "--json", "--prompt", "hello", "--prompt", "too long"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["run"]["name"] == "sums"
    assert (document["step"], document["device"]) == (5, "CPU")
    assert document["sampling"] == {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 256}
    first, second = document["answers"]
    assert first["base"] == {"text": "base on hello", "tokens": 3, "seconds": 0.5, "why": "end"}
    assert first["tuned"]["text"] == "tuned\nin \x1b[31mred"
    assert first["first_token_seconds"] == 0.1
    assert second == {"question": "too long", "error": "with what was said before, this is 9000 tokens"}


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--step", "7"], 2, "--step = '7': there is no such checkpoint"),
        (["--step", "8"], 1, "aapo-desk: the checkpoint is damaged"),
        (["--prompt", "die"], 1, "aapo-desk: the model process ended with status 1: it broke"),
        (["--base-only", "--tuned-only"], 2, "cannot be combined with --tuned-only"),
        (["--temperature", "-1"], 2, "--temperature = -1.0: must be 0 (greedy) to 5"),
        (["--top-p", "0"], 2, "--top-p = 0.0: must be above 0"),
        (["--max-new-tokens", "0"], 2, "--max-new-tokens = 0: must be 1 or more"),
    ],
)
@pytest.mark.usefixtures("stand_in")
def test_what_fails_is_one_line_and_a_status(
    sums: RunDirectory, capsys: Output, options: list[str], status: int, said: str
) -> None:
    assert run(["chat", "sums", "--prompt", "a", *options]) == status
    captured = capsys.readouterr()
    assert said in captured.err.splitlines()[-1]
    assert "Traceback" not in captured.err


def test_a_run_without_a_checkpoint_is_told_by_the_real_process_before_a_model_is_loaded(
    sums: RunDirectory, capsys: Output
) -> None:
    assert run(["chat", "sums", "--prompt", "a", "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "has no checkpoint yet" in captured.err
    assert "loading" not in captured.err


@pytest.mark.usefixtures("stand_in")
def test_json_in_a_conversation_is_refused(sums: RunDirectory, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "interactive", lambda: True)
    assert run(["chat", "sums", "--json"]) == 2
    assert "needs --prompt" in capsys.readouterr().err


# The conversation in a terminal


@pytest.fixture
def typed(sums: RunDirectory, capsys: Output, monkeypatch: pytest.MonkeyPatch, stand_in: None) -> Type:
    """Types lines into the conversation, then Ctrl-D; gives the exit status and what is left on the terminal."""

    def type_lines(*lines: str, columns: int = 80) -> tuple[int, str]:
        left: Iterator[str] = iter(lines)

        def read(_: str) -> str:
            for line in left:
                return line
            raise EOFError

        monkeypatch.setattr(chat, "interactive", lambda: True)
        monkeypatch.setattr(dialogue, "_columns", lambda: columns)
        monkeypatch.setattr("builtins.input", read)
        status = run(["chat", "sums"])
        captured = capsys.readouterr()
        return status, on_terminal(captured.out) + captured.err

    return type_lines


def on_terminal(written: str) -> str:
    """Return the final text of each line: everything written after its last carriage return."""
    lines = [line.rpartition("\r")[2].replace("\x1b[K", "") for line in written.split("\n")]
    return "\n".join(line.rstrip() for line in lines)


def test_in_a_narrow_terminal_the_answers_come_one_after_the_other(typed: Type) -> None:
    status, text = typed("hello")
    assert status == 0
    assert "base   base on hello\n       (3 tokens, 0.5 s)\ntuned  tuned\nin \\x1b[31mred" in text


def test_in_a_wide_one_they_stand_side_by_side(typed: Type) -> None:
    text = typed("hello", columns=100)[1]
    rows = [[cell.strip() for cell in line.split(" | ")] for line in text.splitlines() if " | " in line]
    assert rows == [
        ["base", "tuned"],
        ["base on hello", "tuned"],
        ["", "in \\x1b[31mred"],
        ["(3 tokens, 0.5 s)", "(3 tokens, 0.5 s)"],
    ]


def test_the_runs_own_problems_are_listed_ten_at_a_time_and_asked_by_their_number(
    typed: Type, sums: RunDirectory
) -> None:
    text = typed("/prompts", "/prompts", "/2", "/13", "/quit", "never asked")[1]
    assert "/1    0 + 0 =  [0]" in text
    assert "/12   11 + 11 =  [22]" in text
    assert "right answer: 2" in text
    assert "there is no problem 13: 12 are available" in text
    assert [request["own"] for request in asked(sums)] == [1]


def test_settings_and_a_reset_are_told_to_the_process(typed: Type, sums: RunDirectory) -> None:
    text = typed("/set temperature 0.7 tokens 5", "/set heat 3", "hello", "/reset", " /hello", "/what")[1]
    assert "Answers are temperature 0.7, up to 5 tokens." in text
    assert "allowed are temperature, top-p, tokens" in text
    assert "unknown command /what" in text
    first, reset, second = asked(sums)
    assert (first["temperature"], first["max_new_tokens"], reset, second["text"]) == (0.7, 5, {"reset": True}, "/hello")


def test_a_refused_question_leaves_the_conversation_open(typed: Type) -> None:
    status, text = typed("too long", "hello")
    assert status == 0
    assert "this is 9000 tokens" in text
    assert "base on hello" in text


def test_ctrl_c_ends_the_answer_and_not_the_conversation(typed: Type, sums: RunDirectory) -> None:
    timer = threading.Timer(0.7, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    status, text = typed("a long one", "hello")
    timer.join()
    assert status == 0
    assert "(3 tokens, 0.5 s, stopped)" in text
    assert "base on hello" in text


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [""]),
        ("one two three", ["one two", "three"]),
        ("one\n\n  two", ["one", "", "  two"]),
        ("abcdefghijk l", ["abcdefgh", "ijk l"]),
        ("a bcdefghijk", ["a", "bcdefghi", "jk"]),
        ("漢字漢字漢 a", ["漢字漢字", "漢 a"]),
        ("\x1b[2J", ["\\x1b[2J"]),
    ],
)
def test_text_is_broken_between_words_where_it_can_be(text: str, lines: list[str]) -> None:
    assert wrapped(text, 8) == lines
    assert all(cell_len(line) <= 8 for line in wrapped(text, 8))


def test_columns_that_grow_unevenly_leave_every_line_of_both(capsys: Output) -> None:
    base, tuned = "one two three four five six seven", "1"
    columns = Columns(("base", "tuned"), 9)
    for piece in base.split(" "):
        columns.add("base", f"{piece} ")
        if piece == "two":
            columns.add("tuned", tuned)
            columns.end({"side": "tuned", "text": tuned, "tokens": 1, "seconds": 0.1, "why": "end"})
    columns.end({"side": "base", "text": base, "tokens": 7, "seconds": 0.1, "why": "length"})
    _, *rows, _ = (line.partition("|") for line in on_terminal(capsys.readouterr().out).splitlines())
    assert " ".join(left.strip() for left, _, _ in rows) == base
    assert [right.strip() for _, _, right in rows] == ["1", *[""] * (len(rows) - 1)]


def test_the_second_answer_waits_for_the_first(capsys: Output) -> None:
    shape = OneAfterTheOther(("base", "tuned"))
    end = {"tokens": 1, "seconds": 0.1, "why": "end"}
    for side, text in (("base", "b1 "), ("tuned", "t1 "), ("base", "b2"), ("tuned", "t2")):
        shape.add("base" if side == "base" else "tuned", text)
    shape.end({"side": "tuned", "text": "t1 t2", **end})
    assert capsys.readouterr().out == "base   b1 b2"
    shape.end({"side": "base", "text": "b1 b2", **end})
    assert capsys.readouterr().out.split() == [
        "(1",
        "tokens,",
        "0.1",
        "s)",
        "tuned",
        "t1",
        "t2",
        "(1",
        "tokens,",
        "0.1",
        "s)",
    ]
