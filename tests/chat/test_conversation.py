"""Both sides answer in one batch, each after its own history; held against transformers' own generate."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from aapo_desk.chat.conversation import Conversation
from aapo_desk.chat.request import SIDES, Side
from aapo_desk.config import RunConfig, resolve
from aapo_desk.models.policy import Policy
from aapo_desk.tasks import Problem
from aapo_desk.tasks.prompts import render
from aapo_desk.tasks.records import Turn
from tests.policies import load_tiny

WIDTH = 10
SUM = "What is 2 plus 3?"
OWN = [
    Problem("1", "the sum of 1 and 2", "3"),
    Problem("2", "plus", "4", (Turn("user", "number"), Turn("assistant", "two"))),
]


@pytest.fixture(scope="module")
def policy(tiny_model: Path) -> Policy:
    return load_tiny(tiny_model)


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> RunConfig:
    return resolve(
        {
            "model": {"id": str(tiny_model), "device": "cpu", "quantization": "none"},
            "task": {"source": "arithmetic", "system_prompt": "just the number"},
        }
    )


class Listener:
    """The messages of a conversation."""

    def __init__(self, policy: Policy, config: RunConfig, sides: tuple[Side, ...] = SIDES) -> None:
        self.said: list[dict[str, Any]] = []
        self.conversation = Conversation(policy, config, sides, OWN, self._hear)
        self._asked = 0

    def _hear(self, kind: str, **more: Any) -> None:
        self.said.append({"kind": kind, **more})

    def ask(self, text: str | None = SUM, cancel_after: int = 99, **more: Any) -> dict[str, dict[str, Any]]:
        """The ends of the answers by side."""
        self._asked += 1
        self.said.clear()
        looks = iter(range(1, 1000))
        settings = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": WIDTH} | more
        question = {} if text is None else {"text": text}
        self.conversation.ask({"ask": self._asked, **question, **settings}, lambda: next(looks) >= cancel_after)
        return {said["side"]: said for said in self.of("end")}

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [said for said in self.said if said["kind"] == kind]


@pytest.fixture
def talk(policy: Policy, config: RunConfig) -> Listener:
    return Listener(policy, config)


@torch.no_grad()
def generated(policy: Policy, config: RunConfig, side: str, question: str, *before: Turn) -> str:
    """The plain way: one side alone, by transformers."""
    prompt = render(policy.tokenizer, Problem("", question, "", before), config.task, {})
    ids = torch.tensor([prompt])
    settings = {"max_new_tokens": WIDTH, "do_sample": False, "eos_token_id": list(policy.eos_ids)}
    if side == "tuned":
        out = policy.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)
    else:
        with policy.as_reference():
            out = policy.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)
    return str(policy.tokenizer.decode(out[0, len(prompt) :], skip_special_tokens=True))


def test_each_side_says_what_it_says_alone_and_the_two_differ(
    talk: Listener, policy: Policy, config: RunConfig
) -> None:
    ends = talk.ask()
    for side in SIDES:
        assert ends[side]["text"] == generated(policy, config, side, SUM)
    assert ends["base"]["text"] != ends["tuned"]["text"]


def test_pieces_come_before_the_ends_from_both_sides_in_turn(talk: Listener) -> None:
    ends = talk.ask()
    kinds = [said["kind"] for said in talk.said]
    assert (kinds[0], kinds[-1]) == ("begun", "done")
    assert {said["side"] for said in talk.of("piece")[:4]} == set(SIDES)
    for side in SIDES:
        pieces = "".join(said["text"] for said in talk.of("piece") if said["side"] == side)
        assert ends[side]["text"].startswith(pieces.rstrip("\ufffd"))
    assert 0 < talk.of("done")[0]["first"] <= talk.of("done")[0]["seconds"]


def test_each_question_stands_behind_all_that_was_said_to_and_by_that_side(
    talk: Listener, policy: Policy, config: RunConfig
) -> None:
    said: dict[str, list[Turn]] = {side: [] for side in SIDES}
    for question in (SUM, "And what is the sum of two?", "number"):
        ends = talk.ask(question)
        for side in SIDES:
            assert ends[side]["text"] == generated(policy, config, side, question, *said[side])
            said[side] += [Turn("user", question), Turn("assistant", ends[side]["text"])]


def test_after_a_reset_nothing_is_remembered(talk: Listener) -> None:
    first = talk.ask()
    talk.ask("number")
    talk.conversation.reset()
    assert {side: end["text"] for side, end in talk.ask().items()} == {side: end["text"] for side, end in first.items()}


def test_a_problem_of_the_run_is_asked_by_itself_with_what_belongs_before_it(
    talk: Listener, policy: Policy, config: RunConfig
) -> None:
    talk.ask()
    for place, problem in enumerate(OWN):
        ends = talk.ask(None, own=place)
        for side in SIDES:
            assert ends[side]["text"] == generated(policy, config, side, problem.problem, *problem.before)


def test_one_side_alone_answers_the_same(talk: Listener, policy: Policy, config: RunConfig) -> None:
    both = talk.ask()
    alone = Listener(policy, config, ("tuned",)).ask()
    assert {side: end["text"] for side, end in alone.items()} == {"tuned": both["tuned"]["text"]}


def test_an_answer_ends_where_it_is_cancelled_and_stays_in_the_conversation(talk: Listener) -> None:
    ends = talk.ask(cancel_after=3)
    assert [(end["tokens"], end["why"]) for end in ends.values()] == [(3, "cancelled")] * 2
    alone = talk.of("begun")[0]["prompt_tokens"]["base"]
    talk.ask()
    assert talk.of("begun")[0]["prompt_tokens"]["base"] > alone + 3


def test_an_answer_ends_at_an_ending_token_and_the_other_goes_on(
    talk: Listener, policy: Policy, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = talk.ask()
    tokens = [policy.tokenizer.encode(free[side]["text"]) for side in SIDES]
    end = next(token for token in tokens[0] if token not in tokens[1])
    monkeypatch.setattr(policy, "eos_ids", (end,))
    ends = Listener(policy, config).ask()
    assert (ends["base"]["why"], ends["tuned"]["why"]) == ("end", "length")
    assert ends["base"]["tokens"] < ends["tuned"]["tokens"] == WIDTH


@pytest.mark.parametrize(("spare", "tokens", "why"), [(WIDTH, WIDTH, "length"), (4, 4, "context"), (1, 1, "context")])
def test_an_answer_is_no_longer_than_the_model_takes(talk: Listener, spare: int, tokens: int, why: str) -> None:
    talk.ask(max_new_tokens=1)
    talk.conversation.reset()
    talk.conversation.context = talk.of("begun")[0]["prompt_tokens"]["base"] + spare
    assert [(end["tokens"], end["why"]) for end in talk.ask().values()] == [(tokens, why)] * 2


@pytest.mark.parametrize(
    ("question", "error"),
    [
        ({"text": "sum " * 600}, r"this is \d+ tokens, but the model's context is 1024 .*start a new conversation"),
        ({"text": "  \n "}, "the question is empty"),
        ({"text": None, "own": 2}, "there is no problem 3: 2 are available"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused_and_forgotten(
    talk: Listener, question: dict[str, Any], error: str
) -> None:
    assert talk.ask(**question) == {}
    (refused,) = talk.of("refused")
    assert re.search(error, refused["error"])
    fresh = talk.ask()
    assert all(end["tokens"] for end in fresh.values())


def test_sampled_answers_follow_the_temperature_and_are_the_same_in_a_new_process(
    policy: Policy, config: RunConfig
) -> None:
    def texts(**sampling: Any) -> list[str]:
        return [end["text"] for end in Listener(policy, config).ask(**sampling).values()]

    assert texts(temperature=2.0) == texts(temperature=2.0)
    assert texts(temperature=2.0) != texts()
    assert texts(temperature=2.0, top_p=1e-6) == texts()  # only the likeliest token is left


def test_where_rows_cannot_be_masked_the_sides_answer_one_after_the_other(
    talk: Listener, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = {side: end["text"] for side, end in talk.ask().items()}
    talk.conversation.reset()
    monkeypatch.setattr(policy, "masks_rows", False)
    assert {side: end["text"] for side, end in talk.ask().items()} == both
