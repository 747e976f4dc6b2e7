"""Refuse rewards that cannot work, before a run starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from aapo_desk.rewards import custom
from aapo_desk.rewards.base import Refusal, RefusedError, nearest
from aapo_desk.rewards.builtin import BUILT_IN, built_in
from aapo_desk.rewards.process import START_LIMIT, WorkerGoneError, WorkerProcess, setup_message

if TYPE_CHECKING:
    from aapo_desk.config import RewardConfig


def check(rewards: Sequence[RewardConfig], memory_limit_mb: int = 2048) -> None:
    """Raise ConfigError with every error: unknown names, invalid options, custom rewards that do not load.

    Custom rewards are loaded in a worker process, under the pool's memory limit. Built-in rewards need no process.
    """
    # Imported here because the workers import this package and must start fast, without pydantic.
    from aapo_desk.config import ConfigError, Problem

    problems = [
        Problem(
            f"rewards.{index}.options.{refusal.option}" if refusal.option else f"rewards.{index}.name",
            refusal.message,
            refusal.given if refusal.option else reward.name,
            nearest=refusal.nearest,
        )
        for index, reward in enumerate(rewards)
        for refusal in _refusals(reward, memory_limit_mb)
    ]
    if problems:
        raise ConfigError(*problems)


def _refusals(reward: RewardConfig, memory_limit_mb: int) -> Iterator[Refusal]:
    if reward.name in BUILT_IN:
        yield from built_in(reward.name).check(reward.options)
    elif custom.is_custom(reward.name):
        try:
            yield from _try_in_worker(reward, memory_limit_mb)
        except RefusedError as error:
            yield from error.refusals
    else:
        allowed = f"there is no such reward; there are {', '.join(BUILT_IN)}, or your own as FILE.py:FUNCTION"
        yield Refusal(None, allowed, None, nearest(reward.name, BUILT_IN))


def _try_in_worker(reward: RewardConfig, memory_limit_mb: int) -> Iterator[Refusal]:
    worker = WorkerProcess(setup_message([reward], memory_limit_mb))
    try:
        messages = worker.receive(START_LIMIT)
    except WorkerGoneError as gone:
        yield Refusal(None, f"cannot be imported: the process that tried it {gone}")
        return
    finally:
        worker.end()
    if not messages:
        yield Refusal(None, f"cannot be imported: it takes more than {START_LIMIT:g} s")
        return
    for _, refusal in messages[0].get("refused", []):
        yield Refusal(**refusal)
