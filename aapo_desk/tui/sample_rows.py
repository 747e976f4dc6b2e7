"""A step's pairs of completions as rows: what the columns hold, their order, the best and the worst."""

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
    """What belongs together: policy row i and reference row i."""

    policy: Sample | None
    reference: Sample | None

    @property
    def some(self) -> Sample:
        """The policy's side, or the reference's where there is no other."""
        sample = self.policy or self.reference
        assert sample is not None
        return sample


@dataclass(frozen=True)
class Column:
    """One column: what it is called, how wide at least, the value to sort by, the words to show."""

    key: str
    title: str
    width: int
    value: Callable[[Pair], Value]
    show: Callable[[Pair], str]


def pairs(samples: Sequence[Sample]) -> list[Pair]:
    """The step's samples by row."""
    rows = sorted({sample.row for sample in samples})
    policy = {sample.row: sample for sample in samples if not sample.is_reference}
    reference = {sample.row: sample for sample in samples if sample.is_reference}
    return [Pair(policy.get(row), reference.get(row)) for row in rows]


def unscorable(pair: Pair) -> bool:
    """Whether either side has no reward."""
    return any(sample is not None and sample.reward is None for sample in (pair.policy, pair.reference))


def reward_names(items: Sequence[Pair]) -> list[str]:
    """The reward functions, where there are several."""
    names = list(dict.fromkeys(name for pair in items for name in pair.some.rewards))
    return names if len(names) > 1 else []


def columns(items: Sequence[Pair]) -> list[Column]:
    """The table's columns; a column for each reward function where there are several."""
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
    """By one column; pairs of equal value by row, those without a value last."""
    known = [pair for pair in items if column.value(pair) is not None]
    unknown = [pair for pair in items if column.value(pair) is None]
    return sorted(known, key=column.value, reverse=descending) + unknown  # type: ignore[arg-type]


def best(items: Sequence[Pair]) -> Pair | None:
    """The highest reward of the policy; of several, what teaches most, then the shortest."""
    return max((pair for pair in items if _scored(pair)), key=_merit, default=None)


def worst(items: Sequence[Pair]) -> Pair | None:
    """The other end of ``best``."""
    return min((pair for pair in items if _scored(pair)), key=_merit, default=None)


def _scored(pair: Pair) -> bool:
    return _reward(pair.policy) is not None


def _merit(pair: Pair) -> tuple[float, float, int]:
    sample = pair.policy
    assert sample is not None
    assert sample.reward is not None
    return sample.reward, sample.advantage or 0.0, -sample.tokens
