"""Let a loaded policy answer problems in batches, base and tuned model in the same batch.

The batches depend only on the problems and on the batch size, so a resumed evaluation computes the same batches as an
uninterrupted one, bit for bit on the same device. The sample drawn for a problem depends on the seed, the problem and
the sample's number, not on its batch; base and tuned model use the same uniforms.
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
    """Problems with their prompts' token ids, and how to answer them. If ``sampling`` is None, greedily and once."""

    problems: Sequence[Problem]
    prompts: Sequence[Sequence[int]]
    max_new_tokens: int
    samples: int = 1
    sampling: Sampling | None = None
    seed: int = 0
    sides: Sequence[Side] = SIDES
    """Which models answer: the base model, and the model with its adapter."""

    @property
    def rows(self) -> int:
        """Return the number of rows per problem."""
        return self.samples * len(self.sides)


def evaluate(
    policy: Policy,
    asked: Asked,
    pool: RewardPool,
    batch_rows: int = 64,
    fixed: bool = False,
    progress: Progress = lambda _: None,
) -> tuple[dict[str, Any], list[Line]]:
    """Evaluate all problems in one call, and return the summary (see ``results``) and one line per problem.

    ``pool`` runs the rewards that ``judged_by`` returns; ``fixed`` is as in ``decode``. Raises RewardError, and
    EvaluationError if not even one row fits in memory.
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
    """Yield the lines of one batch of problems after the other, the longest prompts first.

    ``done`` problems were answered earlier, in whole batches of the same size, and are skipped. ``progress`` is called
    with the share of all problems that is done. If the GPU runs out of memory, the batch size is halved; if the decode
    step cannot be captured as a CUDA graph, no further capture is tried. ``changed`` is called with such new choices.
    Raises RewardError, and EvaluationError if not even one row fits in memory.
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
                message = "the device ran out of memory with a single answer at a time; lower --max-new-tokens"
                raise EvaluationError(message) from None
            batch_rows //= 2
            log.warning("the device ran out of memory; the batch size is now %d rows", batch_rows)
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
    """Return each problem's answers, ordered by side, then by sample."""
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
    # At temperature 0 ``draw`` takes the argmax, without sorting or sampling.
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
