"""A loaded policy answers any problems, base and tuned in the same batches.

The batches follow from the problems and their size alone, so an evaluation that goes on computes those that one left
alone would have computed, to the last bit on the same device. What is drawn for a problem's sample follows from the
seed, the problem and the sample's number, whatever batch it is in; base and tuned draw by the same uniforms.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from aapo_desk.evaluation.asking import Answer, ask
from aapo_desk.evaluation.request import content_id, content_ids
from aapo_desk.evaluation.results import SIDES, EvaluationError, Line, Side, summarise
from aapo_desk.models.policy import Policy
from aapo_desk.rewards import RewardPool
from aapo_desk.rollout import CaptureError, Row, Sampling, derive_seed, uniforms
from aapo_desk.tasks import Problem

log = logging.getLogger(__name__)

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Asked:
    """Problems with their prompts' token ids, and how each is answered. ``sampling`` None: greedily, one answer."""

    problems: Sequence[Problem]
    prompts: Sequence[Sequence[int]]
    max_new_tokens: int
    samples: int = 1
    sampling: Sampling | None = None
    seed: int = 0
    sides: Sequence[Side] = SIDES
    """Who answers: the base model, and the one with its adapter."""

    @property
    def rows(self) -> int:
        """Rows a problem."""
        return self.samples * len(self.sides)


def evaluate(
    policy: Policy,
    asked: Asked,
    pool: RewardPool,
    batch_rows: int = 64,
    fixed: bool = False,
    progress: Progress = lambda _: None,
) -> tuple[dict[str, Any], list[Line]]:
    """All of it at once: the summary (see ``results``) and a line a problem.

    ``pool`` is of the rewards that ``judged_by`` names; ``fixed`` is as in ``decode``. Raises RewardError.
    """
    lines: list[Line] = []
    for batch in answered(policy, asked, pool, batch_rows, fixed, 0, progress):
        lines += batch
    return summarise(lines), lines


def answered(
    policy: Policy,
    asked: Asked,
    pool: RewardPool,
    batch_rows: int,
    fixed: bool = False,
    done: int = 0,
    progress: Progress = lambda _: None,
    changed: Callable[[dict[str, int]], None] = lambda _: None,
) -> Iterator[list[Line]]:
    """The lines of one batch of problems after the other, those with the longest prompts first.

    ``done``: so many problems were answered before, in whole batches of the same size. ``progress`` hears the share of
    all problems that is done. If a GPU's memory is too small for a batch, batches become half as large; if the decode
    step cannot be captured as a CUDA graph, no further capture is tried. ``changed`` hears of the new choices. Raises
    RewardError, and EvaluationError if not one row fits.
    """
    order = sorted(range(len(asked.problems)), key=lambda place: (-len(asked.prompts[place]), place))
    ids = content_ids(asked.problems)
    while done < len(order):
        batch = order[done : done + max(1, batch_rows // asked.rows)]

        def report(share: float, done: int = done, size: int = len(batch)) -> None:
            progress((done + share * size) / len(order))

        try:
            answers = _ask(policy, asked, batch, pool, batch_rows, report, fixed)
        except torch.OutOfMemoryError:
            if batch_rows == 1:
                message = "the device's memory is too small for one answer at a time; lower --max-new-tokens"
                raise EvaluationError(message) from None
            batch_rows //= 2
            log.warning("the device's memory is too small: from here on %d rows at once", batch_rows)
            changed({"batch_rows": batch_rows})
            torch.cuda.empty_cache()
            continue
        except CaptureError as error:
            log.warning("the decode step cannot be captured as a CUDA graph: %s; decoding without graphs", error)
            fixed = False
            changed({"fixed_steps": 0})
            continue
        yield [_line(asked, place, ids[place], mine) for place, mine in zip(batch, answers, strict=True)]
        done += len(batch)


def _ask(
    policy: Policy,
    asked: Asked,
    batch: Sequence[int],
    pool: RewardPool,
    batch_rows: int,
    progress: Progress,
    fixed: bool,
) -> list[list[Answer]]:
    """Each problem's answers, by side and sample."""
    greedy = asked.sampling is None
    rows = [
        Row(place, side == "tuned", greedy) for place in batch for side in asked.sides for _ in range(asked.samples)
    ]
    width = asked.max_new_tokens
    if greedy:
        numbers = torch.zeros(len(rows), width)
    else:
        seeds = [
            derive_seed(asked.seed, "evaluation", content_id(asked.problems[place]), sample)
            for place in batch
            for _ in asked.sides
            for sample in range(asked.samples)
        ]
        numbers = torch.cat([uniforms(1, width, seed) for seed in seeds])
    # At temperature 0 nothing is sorted or drawn.
    sampling = asked.sampling or Sampling(temperature=0.0)
    answers = ask(
        policy, asked.problems, asked.prompts, rows, width, sampling, numbers, pool, batch_rows, progress, fixed
    )
    return [answers[start : start + asked.rows] for start in range(0, len(answers), asked.rows)]


def _line(asked: Asked, place: int, content: str, answers: Sequence[Answer]) -> Line:
    problem = asked.problems[place]
    by_side: dict[str, list[dict[str, Any]]] = {
        side: [_answer(answer) for answer in answers[number * asked.samples : (number + 1) * asked.samples]]
        for number, side in enumerate(asked.sides)
    }
    return {
        "id": content,
        "source_id": problem.id,
        "problem": problem.problem,
        "answer": problem.answer,
        "prompt_tokens": len(asked.prompts[place]),
        **by_side,
    }


def _answer(answer: Answer) -> dict[str, Any]:
    return {
        "completion": answer.text,
        "read": answer.read,
        "score": answer.score,
        "readable": answer.readable,
        "tokens": answer.tokens,
        "truncated": answer.truncated,
        "error": answer.error,
    }
