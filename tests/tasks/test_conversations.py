"""Problems that are conversations: the last question is asked, with all that was said before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aapo_desk import tasks
from aapo_desk.config import ConfigError, TaskConfig
from aapo_desk.tasks import TaskData
from aapo_desk.tasks.prompts import render
from aapo_desk.tasks.records import Turn


def load(path: Path, *rows: dict[str, Any], **settings: Any) -> TaskData:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tasks.load(TaskConfig(source=f"file:{path}", held_out=0, **settings), 0)


def messages(*said: str) -> list[dict[str, str]]:
    """``u: text`` and so on."""
    roles = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return [{"role": roles[text[0]], "content": text[3:]} for text in said]


def test_a_single_question_is_the_problem(tmp_path: Path) -> None:
    data = load(tmp_path / "a.jsonl", {"prompt": messages("u: 1 + 2?"), "answer": 3})
    assert (data.train[0].problem, data.train[0].before, data.train[0].answer) == ("1 + 2?", (), "3")


def test_what_was_said_before_is_kept_and_what_came_after_is_not(tmp_path: Path) -> None:
    said = messages("s: Be brief.", "u: 1 + 2?", "a: 3", "u: And doubled?", "a: 3 + 3\n#### 6")
    data = load(tmp_path / "a.jsonl", {"messages": said})
    assert data.train[0].problem == "And doubled?"
    assert data.train[0].before == (Turn("system", "Be brief."), Turn("user", "1 + 2?"), Turn("assistant", "3"))
    assert data.train[0].answer == "6"
    assert "1 row with a conversation: the prompt ends with the last question" in data.notes[-1]


def test_the_names_of_sharegpt_and_texts_in_parts_are_understood(tmp_path: Path) -> None:
    row = {
        "conversations": [
            {"from": "human", "value": [{"type": "text", "text": "1 +"}, {"type": "text", "text": "2?"}]},
            {"from": "gpt", "value": "3"},
        ]
    }
    data = load(tmp_path / "a.jsonl", row)
    assert (data.train[0].problem, data.train[0].answer) == ("1 +\n2?", "3")


def test_conversations_without_a_question_or_an_answer_are_dropped_and_counted(tmp_path: Path) -> None:
    data = load(
        tmp_path / "a.jsonl",
        {"messages": messages("u: q", "a: 1")},
        {"messages": messages("s: s", "a: 1")},
        {"messages": messages("u: q")},
        {"messages": []},
    )
    assert data.reading
    assert (len(data.train), data.reading.no_problem, data.reading.no_answer) == (1, 2, 1)


def test_the_same_question_after_other_words_is_another_problem(tmp_path: Path) -> None:
    rows = [{"prompt": messages(f"u: {n}", "a: ok", "u: double it"), "answer": 2 * n} for n in range(4)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = tasks.load(TaskConfig(source=f"file:{path}", held_out=2), 0)
    assert (len(data.train), len(data.held_out)) == (2, 2)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (messages("u: q", "t: r"), "line 1 of .* has a message with the role tool; allowed are system, user and"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "a part of the type image_url; only text"),
        ([{"role": "user", "content": {"x": 1}}], r"has nested values in this column \(x\)"),
        (["q", "r"], "has a list in this column; name a column of text or numbers"),
    ],
)
def test_messages_that_cannot_be_used_are_refused_with_their_line(tmp_path: Path, value: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        load(tmp_path / "a.jsonl", {"prompt": value, "answer": 1})
    assert str(caught.value).startswith("task.problem_column = 'prompt': ")


class Spelled:
    """A tokenizer that gives a letter a token; its template is a line a message."""

    chat_template: Any = "lines"

    def apply_chat_template(self, conversation: Any, *args: Any, **kwargs: Any) -> list[int]:
        return self.encode("".join(f"[{said['role']}]{said['content']}" for said in conversation))

    def encode(self, text: Any, *args: Any, **kwargs: Any) -> list[int]:
        return [ord(letter) for letter in text]


@pytest.mark.parametrize(
    ("system", "prompt"),
    [
        (None, "[system]Be brief.[user]1?[assistant]2[user]3?"),
        ("Think.", "[system]Think.[user]1?[assistant]2[user]3?"),
    ],
)
def test_a_prompt_holds_the_conversation_under_the_tasks_system_prompt_or_its_own(
    tmp_path: Path, system: str | None, prompt: str
) -> None:
    said = messages("s: Be brief.", "u: 1?", "a: 2", "u: 3?")
    problem = load(tmp_path / "a.jsonl", {"prompt": said, "answer": 4}).train[0]
    task = TaskConfig(source="arithmetic", system_prompt=system)
    assert "".join(map(chr, render(Spelled(), problem, task, {}))) == prompt
