"""A conversation with both models: each side has its own history, and both answer a question in one batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import torch

from aapo_desk.chat.request import MAX_NEW_TOKENS, Answering, Side
from aapo_desk.chat.words import Words
from aapo_desk.config import ConfigError, RunConfig
from aapo_desk.models.policy import Policy
from aapo_desk.rollout import Row, Sampling, derive_seed, stream, uniforms
from aapo_desk.tasks import Problem
from aapo_desk.tasks.prompts import render
from aapo_desk.tasks.records import Turn

Say = Callable[..., None]
"""Sends a message: its kind, and its fields as keyword arguments."""
Cancelled = Callable[[], bool]


class RefusedError(ValueError):
    """A question cannot be answered; the message says why and what to do."""


class Conversation:
    """The conversation so far, to which further questions are added. ``problems`` are the run's own."""

    def __init__(
        self, policy: Policy, config: RunConfig, sides: Sequence[Side], problems: Sequence[Problem], say: Say
    ) -> None:
        self.policy = policy
        self.longest = max(MAX_NEW_TOKENS, config.evaluation_tokens)
        context = getattr(policy.causal.config.get_text_config(), "max_position_embeddings", None)
        self.context: int | None = None if context is None else int(context)
        self._config = config
        self._problems = problems
        self._say = say
        self._asked = 0
        self._before: dict[Side, tuple[Turn, ...]] = dict.fromkeys(sides, ())

    def reset(self) -> None:
        """Forget the conversation."""
        self._before = dict.fromkeys(self._before, ())

    def ask(self, request: Mapping[str, Any], cancelled: Cancelled) -> None:
        """Answer or refuse one question, and send messages about it. ``cancelled`` is called after each token."""
        try:
            questions = self._questions(request)
            prompts = {side: self._prompt(question) for side, question in questions.items()}
            answering = Answering(request["temperature"], request["top_p"], request["max_new_tokens"])
            room = self._room(max(map(len, prompts.values())), answering.max_new_tokens)
        except RefusedError as error:
            self._say("refused", id=request["ask"], error=str(error))
            return
        try:
            texts = self._answer(request["ask"], prompts, answering, room, cancelled)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            small = "the GPU ran out of memory for this answer; start a new conversation, or ask for fewer tokens"
            self._say("refused", id=request["ask"], error=small)
            return
        for side, question in questions.items():
            self._before[side] = (
                *question.before,
                Turn("user", question.problem),
                Turn("assistant", texts[side]),
            )

    def _questions(self, request: Mapping[str, Any]) -> dict[Side, Problem]:
        """Return the question for each side, with that side's history."""
        if "own" in request:
            place = request["own"]
            if not 0 <= place < len(self._problems):
                raise RefusedError(f"there is no problem {place + 1}: {len(self._problems)} are available")
            return dict.fromkeys(self._before, self._problems[place])
        text = str(request["text"])
        if not text.strip():
            raise RefusedError("the question is empty")
        return {side: Problem("question", text, "", before) for side, before in self._before.items()}

    def _prompt(self, question: Problem) -> list[int]:
        try:
            return render(self.policy.tokenizer, question, self._config.task, self._config.model.chat_template_options)
        except ConfigError as error:
            raise RefusedError(error.problems[0].message) from error

    def _room(self, prompt: int, wanted: int | None) -> _Room:
        """Return how many tokens the answer to a prompt of ``prompt`` tokens may have.

        Raises RefusedError if the prompt fills the model's context.
        """
        width = wanted or self.longest
        if self.context is None or prompt + width <= self.context:
            return _Room(width, "length")
        if prompt >= self.context:
            raise RefusedError(
                f"together with the conversation so far this is {prompt} tokens, but the model's context is "
                f"{self.context} tokens including its answer; start a new conversation, or ask a shorter question"
            )
        return _Room(self.context - prompt, "context")

    def _answer(
        self,
        number: int,
        prompts: Mapping[Side, list[int]],
        answering: Answering,
        room: _Room,
        cancelled: Cancelled,
    ) -> dict[Side, str]:
        """Generate both answers, sending each piece as it is drawn, and return their texts."""
        began, first = time.perf_counter(), None
        self._say("begun", id=number, prompt_tokens={side: len(prompt) for side, prompt in prompts.items()})
        answers = [_Answer(number, side, Words(self.policy.tokenizer), began, self._say) for side in prompts]
        rows = [Row(place, answer.side == "tuned") for place, answer in enumerate(answers)]
        self._asked += 1
        # Both sides use the same uniforms, and a new process that is asked the same questions gives the same answers.
        drawn = uniforms(1, room.width, derive_seed(self._config.run.seed, "chat", self._asked)).expand(len(rows), -1)
        sampling = Sampling(answering.temperature, answering.top_p)
        with closing(stream(self.policy, list(prompts.values()), rows, room.width, sampling, drawn)) as steps:
            for new in steps:
                first = first or time.perf_counter() - began
                columns = (new.rows, new.tokens, new.ended)
                for row, token, ended in zip(*(column.tolist() for column in columns), strict=True):
                    answers[row].add(token, ended)
                if cancelled():
                    break
        for answer in answers:
            if not answer.over:
                answer.end(room.why if answer.tokens == room.width else "cancelled")
        self._say("done", id=number, first=round(first or 0.0, 3), seconds=round(time.perf_counter() - began, 3))
        return {answer.side: answer.words.whole() for answer in answers}


@dataclass(frozen=True)
class _Room:
    """The maximum length of an answer in tokens, and the reason reported for an answer that ends there."""

    width: int
    why: Literal["length", "context"]


@dataclass
class _Answer:
    """One side's answer while it is being generated."""

    number: int
    side: Side
    words: Words
    began: float
    say: Say
    tokens: int = 0
    over: bool = False

    def add(self, token: int, ended: bool) -> None:
        self.tokens += 1
        if not ended and (piece := self.words.add(token)):  # the end token may not be flagged as special
            self.say("piece", id=self.number, side=self.side, text=piece)
        if ended:
            self.end("end")

    def end(self, why: str) -> None:
        self.over = True
        seconds = round(time.perf_counter() - self.began, 3)
        whole = self.words.whole()
        self.say("end", id=self.number, side=self.side, text=whole, tokens=self.tokens, seconds=seconds, why=why)
