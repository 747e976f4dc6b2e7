"""Convert a process's share of a rollout or an evaluation to a message and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor

from aapo_desk.evaluation.asking import Answer, ask
from aapo_desk.models.policy import Policy
from aapo_desk.rewards import RewardPool, Score
from aapo_desk.rollout import Completions, Row, Sampling, Scored, Side, Sides
from aapo_desk.tasks import Problem
from aapo_desk.training.distributed.group import Message, Ranks


@dataclass(frozen=True)
class Share:
    """Both sides' scored completions of one process's share of a step's problems.

    ``sampled`` holds the reference's completions that were sampled in this step rather than read from its cache.
    """

    completions: Completions
    policy: list[Scored]
    reference: list[Scored] | None
    sampled: list[Scored]
    seconds: float
    """Seconds of the rollout alone."""
    broken: str | None = None
    """The place of a log-probability that is not finite; None if all are finite."""

    def letter(self) -> Message:
        """Return the share as a message: rewards as tensors, everything else about them as JSON."""
        sides = {"policy": self.policy, "sampled": self.sampled}
        if self.reference is not None:
            sides["reference"] = self.reference
        data = {name: [_about(one) for one in side] for name, side in sides.items()}
        tensors = {f"{name} rewards": _totals(side) for name, side in sides.items()}
        return Message(
            {"sides": data, "seconds": self.seconds, "broken": self.broken}, vars(self.completions) | tensors
        )

    @classmethod
    def read(cls, letter: Message) -> Self:
        """Restore a share from the message that ``letter`` returned."""
        tensors = dict(letter.tensors)
        totals = {name: tensors.pop(f"{name} rewards").tolist() for name in letter.data["sides"]}
        sides = {
            name: [_scored(one, total) for one, total in zip(side, totals[name], strict=True)]
            for name, side in letter.data["sides"].items()
        }
        completions = Completions(**tensors)
        said = letter.data["seconds"], letter.data["broken"]
        return cls(completions, sides["policy"], sides.get("reference"), sides["sampled"], *said)


def joined(shares: Sequence[Share], group_size: int) -> Sides:
    """Join the shares, which are in the order of their problems, to the sides of the whole step."""
    policy = [one for share in shares for one in share.policy]
    reference = None
    if shares[0].reference is not None:
        reference = Side([one for share in shares for one in share.reference or ()], group_size)
    decoded = [vars(share.completions) for share in shares]
    completions = Completions(**{name: torch.cat([one[name] for one in decoded]) for name in decoded[0]})
    sampled = [one for share in shares for one in share.sampled]
    broken = next((share.broken for share in shares if share.broken), None)
    return Sides(completions, Side(policy, group_size), reference, policy + sampled, broken)


def _about(one: Scored) -> dict[str, Any]:
    about = asdict(one)
    del about["score"]["total"]
    return about


def _scored(about: dict[str, Any], total: float) -> Scored:
    score = Score(total=None if math.isnan(total) else total, **about["score"])
    return Scored(about["text"], about["tokens"], about["truncated"], score)


def _totals(side: Sequence[Scored]) -> Tensor:
    totals = [math.nan if one.score.total is None else one.score.total for one in side]
    return torch.tensor(totals, dtype=torch.float64)


def asking(ranks: Ranks) -> Callable[..., list[Answer]]:
    """Return a function with the signature of ``ask`` that distributes the problems over all processes."""

    def asked(
        policy: Policy,
        problems: Sequence[Problem],
        prompts: Sequence[Sequence[int]],
        rows: Sequence[Row],
        max_new_tokens: int,
        sampling: Sampling,
        uniforms: Tensor,
        pool: RewardPool,
        batch_rows: int,
        progress: Callable[[float], None] = lambda _: None,
        fixed: bool = False,
    ) -> list[Answer]:
        dealt = [[place for place, row in enumerate(rows) if row.prompt in own] for own in ranks.slices(len(problems))]

        def letter(places: Sequence[int]) -> Message:
            about = [[rows[place].prompt, rows[place].adapter, rows[place].greedy] for place in places]
            settings = {"max_new_tokens": max_new_tokens, "batch_rows": batch_rows, "fixed": fixed}
            return Message({"rows": about, **settings}, {"uniforms": uniforms[places]})

        def work() -> list[Answer]:
            own = [rows[place] for place in dealt[0]]
            numbers = uniforms[dealt[0]]
            return ask(
                policy, problems, prompts, own, max_new_tokens, sampling, numbers, pool, batch_rows, progress, fixed
            )

        def read(said: Message) -> list[Answer]:
            return [Answer(**answer) for answer in said.data["answers"]]

        answers = ranks.run_on_all_ranks("ask", [letter(places) for places in dealt[1:]], work, read)
        found = {
            place: answer
            for places, share in zip(dealt, answers, strict=True)
            for place, answer in zip(places, share, strict=True)
        }
        return [found[place] for place in range(len(rows))]

    return asked
