"""A step's pairs of completions as table rows: the columns, sorting, and the best and worst row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from aapo_desk.store import Sample
from aapo_desk.tui.labels import clipped, number, signed
from aapo_desk.tui.text import one_line

Value = float | str | None


@dataclass(frozen=True)
class Pair:
    """Row i of the policy's and of the reference's completions."""

    policy: Sample | None
    reference: Sample | None

    @property
    def some(self) -> Sample:
        """The policy's sample, or the reference's if there is no policy sample."""
        sample = self.policy or self.reference
        assert sample is not None
        return sample


@dataclass(frozen=True)
class Column:
    """A column: its key and title, its minimum width in cells, the value to sort by, and the text to show."""

    key: str
    title: str
    width: int
    value: Callable[[Pair], Value]
    show: Callable[[Pair], str]


def pairs(samples: Sequence[Sample]) -> list[Pair]:
    """Pair a step's samples by row."""
    rows = sorted({sample.row for sample in samples})
    policy = {sample.row: sample for sample in samples if not sample.is_reference}
    reference = {sample.row: sample for sample in samples if sample.is_reference}
    return [Pair(policy.get(row), reference.get(row)) for row in rows]


def unscorable(pair: Pair) -> bool:
    """Return whether the policy's or the reference's completion has no reward."""
    return any(sample is not None and sample.reward is None for sample in (pair.policy, pair.reference))


def reward_names(items: Sequence[Pair]) -> list[str]:
    """Return the names of the reward functions if there are several, else an empty list."""
    names = list(dict.fromkeys(name for pair in items for name in pair.some.rewards))
    return names if len(names) > 1 else []


def columns(items: Sequence[Pair]) -> list[Column]:
    """Return the table's columns, with one for each reward function if there are several."""
    made = [
        Column("row", "row", 4, lambda pair: pair.some.row, lambda pair: str(pair.some.row)),
        Column(
            "prompt", "prompt", 10, lambda pair: pair.some.prompt_id, lambda pair: one_line(pair.some.prompt_id, 80)
        ),
        _of_policy("reward", "reward", 7, lambda sample: sample.reward, number),
        Column(
            "reference", "ref.", 6, lambda pair: _reward(pair.reference), lambda pair: number(_reward(pair.reference))
        ),
        _of_policy("group", "group", 7, lambda sample: sample.group_advantage, signed),
        _of_policy("margin", "margin", 7, lambda sample: sample.margin, signed),
        _of_policy("advantage", "adv.", 7, lambda sample: sample.advantage, signed),
        _of_policy("tokens", "tokens", 7, lambda sample: sample.tokens, lambda value: number(value, 0)),
        _of_policy(
            "truncated", "cut", 4, lambda sample: float(sample.truncated), lambda value: "yes" if value else "–"
        ),
    ]
    taken = {column.key for column in made}
    for name in reward_names(items):
        title = clipped(one_line(name, 40), 6)
        key = f"reward/{name}" if name in taken else name
        made.append(_of_policy(key, title, max(7, cell_len(title) + 1), _reward_of(name), number))
    return made


def _reward(sample: Sample | None) -> float | None:
    return sample.reward if sample else None


def _reward_of(name: str) -> Callable[[Sample], float | None]:
    return lambda sample: sample.rewards.get(name)


def _of_policy(
    key: str, title: str, width: int, read: Callable[[Sample], float | None], show: Callable[[float | None], str]
) -> Column:
    def value(pair: Pair) -> float | None:
        return read(pair.policy) if pair.policy else None

    return Column(key, title, width, value, lambda pair: show(value(pair)))


def ordered(items: Sequence[Pair], column: Column, descending: bool) -> list[Pair]:
    """Sort pairs by a column. Pairs of equal value stay in order; those without a value come last."""
    known = [pair for pair in items if column.value(pair) is not None]
    unknown = [pair for pair in items if column.value(pair) is None]
    return sorted(known, key=column.value, reverse=descending) + unknown  # type: ignore[arg-type]


def best(items: Sequence[Pair]) -> Pair | None:
    """Return the pair with the policy's highest reward; ties go to the largest advantage, then to the fewest tokens."""
    return max((pair for pair in items if _scored(pair)), key=_merit, default=None)


def worst(items: Sequence[Pair]) -> Pair | None:
    """Return the last pair in the order of ``best``: the policy's lowest reward, with ties broken the other way."""
    return min((pair for pair in items if _scored(pair)), key=_merit, default=None)


def _scored(pair: Pair) -> bool:
    return _reward(pair.policy) is not None


def _merit(pair: Pair) -> tuple[float, float, int]:
    sample = pair.policy
    assert sample is not None
    assert sample.reward is not None
    return sample.reward, sample.advantage or 0.0, -sample.tokens
