"""Score completions in worker processes, so that no completion can hang, crash or exhaust the memory of the trainer.

A worker gets one completion at a time. A worker that takes too long, dies or fills its memory is killed and replaced;
its completion is unscorable, and the others keep their scores.
"""

from __future__ import annotations

import math
import selectors
import time
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from aapo_desk.rewards.base import NO_SCORE, Completion, FailingReward, Refusal, RefusedError, RewardError, Score
from aapo_desk.rewards.custom import is_custom
from aapo_desk.rewards.definition import definition
from aapo_desk.rewards.process import START_LIMIT, WorkerGoneError, WorkerProcess, setup_message

if TYPE_CHECKING:
    from aapo_desk.config import RewardConfig

_MAX_IDLE_DEATHS = 10
REPLY = frozenset({"value", "error", "read", "retire"})


@dataclass
class _Task:
    """A completion that is being scored: the scores received so far, and the first answer that was read."""

    completion: Completion
    values: list[float | None] = field(default_factory=list)
    error: str | None = None
    read: str | None = None


@dataclass
class _Worker:
    """A worker and its current work, due by ``deadline``: starting (not ``ready``) or scoring ``task``."""

    process: WorkerProcess
    deadline: float
    ready: bool = False
    task: _Task | None = None

    @property
    def busy(self) -> bool:
        return not self.ready or self.task is not None


class RewardPool:
    """Scores completions with the configured rewards (checked by ``check``), in processes started when first needed.

    workers: number of parallel processes. time_limit: seconds per completion, for all rewards together.
    memory_limit_mb: address space of a worker. The files of custom rewards are read once, here; ``reload`` reads them
    again. Raises RewardError if a worker cannot start. Not thread-safe.
    """

    def __init__(
        self,
        rewards: Sequence[RewardConfig],
        workers: int = 2,
        time_limit: float = 5.0,
        memory_limit_mb: int = 2048,
    ) -> None:
        self.names = part_names(rewards)
        self._rewards = rewards
        self._memory_limit_mb = memory_limit_mb
        self._weights = [reward.weight for reward in rewards]
        self._size = workers
        self._time_limit = time_limit
        self._workers: list[_Worker] = []
        self._starter: ThreadPoolExecutor | None = None
        self._idle_deaths = 0
        self._failed_in_a_row: Counter[str] = Counter()
        self._unproved = {name for name, reward in zip(self.names, rewards, strict=True) if is_custom(reward.name)}
        self._patience: int | None = None
        self._failing: FailingReward | None = None
        self._setup = self._read()

    def _read(self) -> dict[str, Any]:
        try:
            return setup_message(self._rewards, self._memory_limit_mb)
        except RefusedError as error:
            raise RewardError(f"the rewards cannot be loaded: {error}") from None

    def reload(self) -> None:
        """Read the files of custom rewards again, for new workers. Raises RewardError if one cannot be read."""
        self.close()
        self._setup = self._read()

    @property
    def definition(self) -> dict[str, Any]:
        """Everything that determines a score besides the completion, as JSON; see ``aapo_desk.rewards.definition``."""
        return definition(self._setup, self._weights) | {"time_limit": self._time_limit}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all workers. A later ``score`` starts new ones."""
        while self._workers:
            self._workers.pop().process.end()
        if self._starter is not None:
            self._starter.shutdown()
            self._starter = None

    def score(self, completions: Sequence[Completion], patience: int | None = None) -> list[Score]:
        """Return the scores in the order of the completions. Raises RewardError if the workers cannot work.

        Raises FailingReward if one reward fails on ``patience`` completions in a row, counted across calls. A result of
        None counts as a failure only for a custom reward that has never returned anything else.
        """
        tasks = [_Task(completion) for completion in completions]
        waiting = deque(tasks)
        self._idle_deaths = 0
        self._patience, self._failing = patience, None
        try:
            while waiting or any(worker.task for worker in self._workers):
                self._start_workers(len(waiting))
                self._hand_out(waiting)
                self._wait()
                if self._failing:
                    self._failed_in_a_row.clear()
                    raise self._failing
        except BaseException:
            self.close()  # else a busy worker would answer the next call with scores of this one
            raise
        return [self._total(task) for task in tasks]

    def _note(self, task: _Task, error: str | None) -> None:
        """Record the outcome of the current part: a score, or an ``error``."""
        name = self.names[len(task.values)]
        if error is None:
            self._unproved.discard(name)
        if error is None or (error == NO_SCORE and name not in self._unproved):
            del self._failed_in_a_row[name]
            return
        self._failed_in_a_row[name] = count = self._failed_in_a_row[name] + 1
        if self._failing is None and self._patience is not None and count >= self._patience:
            self._failing = FailingReward(name, error, count, task.completion.text)

    def _start_workers(self, waiting: int) -> None:
        free = sum(worker.task is None for worker in self._workers)
        for _ in range(min(waiting - free, self._size - len(self._workers))):
            # PR_SET_PDEATHSIG ends a worker when the thread that started it ends, so this thread must stay alive.
            self._starter = self._starter or ThreadPoolExecutor(1, "reward-starter")
            process = self._starter.submit(WorkerProcess, self._setup).result()
            self._workers.append(_Worker(process, time.monotonic() + START_LIMIT))

    def _hand_out(self, waiting: deque[_Task]) -> None:
        for worker in [worker for worker in self._workers if not worker.busy]:
            if not waiting:
                return
            try:
                worker.process.send(asdict(waiting[0].completion), self._time_limit)
            except WorkerGoneError as gone:
                self._lose(worker, str(gone))
            else:
                worker.task = waiting.popleft()
                worker.deadline = time.monotonic() + self._time_limit

    def _wait(self) -> None:
        """Wait until a worker sends a message or exceeds its time limit, and handle it."""
        now = time.monotonic()
        deadlines = [worker.deadline - now for worker in self._workers if worker.busy]
        if not deadlines:
            return
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                selector.register(worker.process, selectors.EVENT_READ, worker)
            heard = [key.data for key, _ in selector.select(max(0.0, min(deadlines)))]
        for worker in heard:
            self._listen(worker)
        now = time.monotonic()
        for worker in [worker for worker in self._workers if worker.busy and worker.deadline <= now]:
            self._lose(worker, None)

    def _listen(self, worker: _Worker) -> None:
        try:
            messages = worker.process.receive(limit=1.0)
        except WorkerGoneError as gone:
            self._lose(worker, str(gone))
            return
        for message in messages:
            if worker not in self._workers:  # dismissed because of an earlier message
                return
            if worker.task is not None:
                self._take(worker, worker.task, message)
            elif "refused" in message:
                refused = [f"{self.names[at]}: {Refusal(**refusal)}" for at, refusal in message["refused"]]
                raise RewardError(f"the rewards cannot be loaded: {'; '.join(refused)}")
            else:
                worker.ready = True

    def _take(self, worker: _Worker, task: _Task, message: dict[str, Any]) -> None:
        """Handle a message with the score of one part."""
        if message.keys() != REPLY or not isinstance(message["value"], int | float | None):
            self._lose(worker, "broke the protocol")
            return
        if message["retire"]:
            self._fail(task, message["error"])
            self._dismiss(worker)
            return
        self._note(task, message["error"])
        if message["error"] and not task.error:
            task.error = f"{self.names[len(task.values)]}: {message['error']}"
        task.values.append(message["value"])
        task.read = message["read"] if task.read is None else task.read
        if len(task.values) == len(self.names):
            worker.task = None

    def _lose(self, worker: _Worker, how: str | None) -> None:
        """Handle a worker that has ended (``how`` says in what way) or that has taken too long (``how`` is None)."""
        if not worker.ready:
            raise RewardError(
                f"a reward worker did not start: it {how or f'did not load its rewards within {START_LIMIT:g} s'}"
            )
        if worker.task is not None:
            self._fail(worker.task, f"the worker {how}" if how else f"timed out after {self._time_limit:g} s")
        else:
            self._idle_deaths += 1
            if self._idle_deaths > _MAX_IDLE_DEATHS:
                raise RewardError(f"reward workers keep ending while they are idle: the last one {how}")
        self._dismiss(worker)

    def _fail(self, task: _Task, why: str) -> None:
        """Mark the current part and those after it as unscorable."""
        self._note(task, why)
        task.error = task.error or f"{self.names[len(task.values)]}: {why}"
        task.values += [None] * (len(self.names) - len(task.values))

    def _dismiss(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.process.end()

    def _total(self, task: _Task) -> Score:
        parts = dict(zip(self.names, task.values, strict=True))
        if any(value is None for value in task.values):
            return Score(None, parts, task.error, task.read)
        total = sum(weight * (value or 0.0) for weight, value in zip(self._weights, task.values, strict=True))
        if not math.isfinite(total):
            return Score(None, parts, f"the weighted sum of {parts} is not finite", task.read)
        return Score(total, parts, read=task.read)


def part_names(rewards: Sequence[RewardConfig]) -> list[str]:
    """Return the names of a score's parts. A custom reward has its function's name; a second ``name`` is ``name_2``."""
    names: list[str] = []
    for reward in rewards:
        name = base = reward.name.rpartition(":")[2]
        number = 1
        while name in names:
            number += 1
            name = f"{base}_{number}"
        names.append(name)
    return names
