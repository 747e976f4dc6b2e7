"""Several processes train one run as a single process does, with gloo on the loopback interface."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import torch
from safetensors.torch import load_file

from aapo_desk.config import resolve
from aapo_desk.launch.child import environment, python
from aapo_desk.store import RunDirectory, RunReader, create_run
from aapo_desk.training.control import StopRequested
from aapo_desk.training.distributed.env import Place, RankError, check
from aapo_desk.training.distributed.group import Message, Ranks, answered
from aapo_desk.training.distributed.worker import Follower
from aapo_desk.training.micro_batches import shard
from tests.training.in_process import train

T = TypeVar("T")

STEPS = 6
CLOSE = 1e-5
CLOCKS = ("seconds_", "tokens_per_second", "memory_mb")

# A class that another process unpickles by name must be in an importable file.
WITNESS = """
import os, sys

def hook(event, arguments, _file=os.environ["WITNESS"]):
    if event == "pickle.find_class":
        with open(_file, "a") as file:
            file.write(f"{arguments!r}\\n")

sys.addaudithook(hook)
"""


@pytest.fixture
def config(tiny_config: dict[str, Any]) -> dict[str, Any]:
    """Three prompts per step, so that two processes have unequal shares."""
    return tiny_config | {
        "rollout": tiny_config["rollout"] | {"prompts_per_step": 3},
        "optimizer": {"learning_rate": 1e-3},
        "run": {"steps": STEPS, "checkpoint_every": 1, "keep_checkpoints": 9},
    }


def launched(run: RunDirectory, size: int = 2, **more: str) -> list[subprocess.Popen[str]]:
    """Start the run's processes as a launcher does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = environment() | {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)} | more
    return [
        subprocess.Popen(
            [*python("aapo_desk.training"), str(run.path)],
            env=variables | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]


def finish(processes: Sequence[subprocess.Popen[str]], seconds: float = 120) -> tuple[list[int], str]:
    """Wait for the processes, killing any left over; return their exit statuses and combined output."""
    said = []
    try:
        for process in processes:
            said.append(process.communicate(timeout=seconds)[0])
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    return [process.returncode for process in processes], "\n".join(said)


def wait_for_step(run: RunDirectory, processes: Sequence[subprocess.Popen[str]]) -> None:
    """Wait until the run's first step is written; fail if a process has ended."""
    while not (run.database.exists() and RunReader(run).last_metrics()):
        assert all(process.poll() is None for process in processes), finish(processes)
        time.sleep(0.01)


def numbers(run: RunDirectory) -> list[dict[str, Any]]:
    found = RunReader(run).poll().metrics
    assert [step for step, _, _ in found] == list(range(1, run.read_config().run.steps + 1))
    return [{key: value for key, value in data.items() if not key.startswith(CLOCKS)} for _, _, data in found]


def evaluations(run: RunDirectory) -> list[tuple[int, Any, Any]]:
    return [(step, data["greedy"], data["sampled"]) for step, _, data in RunReader(run).poll().evaluations]


def adapter(run: RunDirectory, step: int = STEPS) -> dict[str, torch.Tensor]:
    return load_file(run.checkpoints / f"step_{step:06d}" / "adapter" / "adapter_model.safetensors")


def test_slices_are_neighbours_and_as_even_as_they_can_be() -> None:
    assert Ranks(Place(0, 3)).slices(7) == [range(0, 3), range(3, 5), range(5, 7)]
    assert Ranks(Place(0, 3)).slices(2) == [range(0, 1), range(1, 2), range(2, 2)]
    assert Ranks(Place()).slices(2) == [range(0, 2)]


def test_groups_are_dealt_whole_and_by_their_tokens() -> None:
    prompts, completions = [5] * 8, [1, 1, 9, 9, 2, 2, 3, 3]
    assert shard(prompts, completions, range(8), 2, 2) == [[2, 3], [0, 1, 4, 5, 6, 7]]
    assert shard(prompts, completions, [3, 6], 2, 2) == [[3], [6]]
    assert shard(prompts, completions, [3], 2, 2) == [[3], []]
    assert shard(prompts, completions, range(8), 2, 1) == [list(range(8))]


def test_without_a_launcher_a_process_is_alone() -> None:
    assert Place.of({}) == Place()
    assert Place.of({"WORLD_SIZE": "1", "RANK": "0"}) == Place()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        ({"WORLD_SIZE": "2"}, "MASTER_ADDR is not set"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "here"}, "RANK is not set"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "here", "RANK": "2"}, "RANK is 2, but WORLD_SIZE is 2"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "here", "RANK": "1", "MASTER_PORT": "0"}, "MASTER_PORT is '0'"),
    ],
)
def test_what_no_launcher_sets_is_refused_by_name(variables: dict[str, str], words: str) -> None:
    with pytest.raises(RankError, match=words):
        Place.of(variables)


def test_more_processes_than_prompts_and_unsloth_are_refused(config: dict[str, Any]) -> None:
    check(resolve(config), 3)
    with pytest.raises(RankError, match=r"prompts_per_step is 3, but 4 processes were started"):
        check(resolve(config), 4)
    unsloth = resolve(config | {"model": config["model"] | {"backend": "unsloth"}})
    check(unsloth, 1)
    with pytest.raises(RankError, match="trains in one process"):
        check(unsloth, 2)


class Answering(Ranks):
    """Two processes without a connection: the other's answer is given in advance."""

    def __init__(self, answer: Message) -> None:
        super().__init__(Place(0, 2))
        self.answer = answer
        self.heard = 0

    def _announce(self, task: str, letters: Sequence[Message]) -> None: ...

    def _hear(self, rank: int) -> Message:
        self.heard += 1
        return self.answer


@pytest.mark.parametrize(
    ("failure", "seen"),
    [
        (torch.OutOfMemoryError("no memory left"), torch.OutOfMemoryError),
        (ValueError("no memory left\nat all"), RankError),
    ],
)
def test_a_share_that_fails_elsewhere_fails_here(failure: Exception, seen: type[Exception]) -> None:
    def fails(task: str, letter: Message) -> Message:
        raise failure

    ranks = Answering(answered("logps", Message(), fails))
    with pytest.raises(seen, match=r"^process 1 of 2 on \S+: logps: no memory left$"):
        ranks.run_on_all_ranks("logps", [Message()], lambda: 0, lambda _: 0)


def test_the_others_are_heard_also_where_the_own_share_fails() -> None:
    def stopped() -> int:
        raise StopRequested

    ranks = Answering(Message())
    with pytest.raises(StopRequested):
        ranks.run_on_all_ranks("sample", [Message()], stopped, lambda _: 0)
    assert ranks.heard == 1


@pytest.mark.slow
def test_two_processes_stopped_and_resumed_end_as_one(desk_home: Path, config: dict[str, Any], tmp_path: Path) -> None:
    alone, spread = (create_run(resolve(config), name) for name in ("alone", "spread"))
    train(alone)
    (tmp_path / "sitecustomize.py").write_text(WITNESS)
    seen = tmp_path / "seen"
    seen.touch()
    path = f"{tmp_path}{os.pathsep}{environment().get('PYTHONPATH', '')}"
    processes = launched(spread, WITNESS=str(seen), PYTHONPATH=path)
    heard = _listening(processes)
    wait_for_step(spread, processes)
    for process in processes:  # as a launcher that is asked to end does
        process.send_signal(signal.SIGTERM)
    statuses, said = finish(processes)
    assert statuses == [0, 0], said
    assert spread.read_status()["state"] == "stopped", said
    statuses, said = finish(launched(spread, WITNESS=str(seen), PYTHONPATH=path))
    assert statuses == [0, 0], said
    assert seen.read_text() == "", "nothing was unpickled"
    assert heard
    assert all(address.removeprefix("::ffff:").startswith(("127.", "::1")) for address in heard), heard

    for one, other in zip(numbers(alone), numbers(spread), strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert other[name] == pytest.approx(value, abs=CLOSE, rel=CLOSE), name
    assert max(data["update_norm"] for data in numbers(spread)) > 1e-3
    for step in range(1, STEPS + 1):
        theirs = adapter(spread, step)
        for name, value in adapter(alone, step).items():
            torch.testing.assert_close(theirs[name], value, atol=CLOSE, rtol=0)
    reader, other_reader = RunReader(spread), RunReader(alone)
    for step in range(1, STEPS + 1):
        ours, theirs_too = reader.samples(step), other_reader.samples(step)
        assert [(one.completion, one.rewards, one.reward, one.is_reference) for one in ours] == [
            (one.completion, one.rewards, one.reward, one.is_reference) for one in theirs_too
        ]


def _listening(processes: Sequence[subprocess.Popen[str]]) -> set[str]:
    """Return the addresses at which the processes listen while they run."""
    heard: set[str] = set()

    def watch() -> None:
        while any(process.poll() is None for process in processes):
            for process in processes:
                try:
                    found = psutil.Process(process.pid).net_connections()
                except psutil.Error:
                    continue
                heard.update(str(one.laddr.ip) for one in found if one.status == psutil.CONN_LISTEN)
            time.sleep(0.1)

    threading.Thread(target=watch, daemon=True).start()
    return heard


@pytest.mark.slow
def test_a_process_that_dies_fails_the_run_and_nobody_waits_for_it(desk_home: Path, config: dict[str, Any]) -> None:
    run = create_run(resolve(config | {"run": {"steps": 10_000, "checkpoint_every": 10_000}}), "long")
    processes = launched(run, 2)
    wait_for_step(run, processes)
    processes[1].kill()
    statuses, said = finish(processes, 60)
    assert statuses == [1, -signal.SIGKILL], said
    status = run.read_status()
    assert status["state"] == "failed", said
    assert "can no longer be reached" in status["message"]


class Beside(Ranks):
    """Two ranks in one process: the messages to and from the second go through JSON as between processes."""

    def __init__(self, run: RunDirectory, stack: ExitStack) -> None:
        super().__init__(Place(0, 2))
        self.other = Follower(run, run.read_config(), Ranks(Place(1, 2)), stack)

    def run_on_all_ranks(
        self, task: str, letters: Sequence[Message], work: Callable[[], T], read: Callable[[Message], T]
    ) -> list[T]:
        mine = work()
        with torch.no_grad():
            for own, theirs in zip(self.weights, self.other.ranks.weights, strict=True):
                theirs.copy_(own)
        return [mine, read(through(self.other(task, through(letters[0]))))]

    def sum_gradients(self) -> None:
        for own, theirs in zip(self.weights, self.other.ranks.weights, strict=True):
            if own.grad is not None and theirs.grad is not None:
                own.grad += theirs.grad
            elif theirs.grad is not None:
                own.grad = theirs.grad.clone()


def through(letter: Message) -> Message:
    return Message(json.loads(json.dumps(letter.data)), {name: value.clone() for name, value in letter.tensors.items()})


METHODS: dict[str, dict[str, Any]] = {
    "banked reference": {"algorithm": {"name": "aapo", "reference": "bank"}, "evaluation": {"problems": 3}},
    "refilled groups": {"algorithm": {"name": "dapo", "options": {"max_refills": 2}}},
    "several updates, reference log-probs": {"algorithm": {"name": "p3o", "updates_per_rollout": 2}},
    "a loss over the whole step": {
        "algorithm": {"name": "disco"},
        "rewards": [{"name": "format", "options": {"pattern": "[a-d]"}}],
    },
}


@pytest.mark.parametrize("method", METHODS)
def test_shares_of_a_step_add_up_whatever_is_learnt_from_them(
    desk_home: Path, config: dict[str, Any], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config | {"evaluation": {"problems": 0}, "run": {"steps": 2}} | METHODS[method]
    alone, spread = (create_run(resolve(settings), name) for name in ("alone", "spread"))
    train(alone)
    monkeypatch.setenv("AAPO_DESK_HOME", str(desk_home / "another"))  # so another reference cache
    with ExitStack() as stack:
        train(spread, Beside(spread, stack))
    for one, other in zip(numbers(alone), numbers(spread), strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert other[name] == pytest.approx(value, abs=CLOSE, rel=CLOSE), name
    assert any(data["update_norm"] > 0 for data in numbers(alone))
    theirs = adapter(spread, 2)
    for name, value in adapter(alone, 2).items():
        torch.testing.assert_close(theirs[name], value, atol=CLOSE, rtol=0)
    assert evaluations(spread) == evaluations(alone)
    assert bool(evaluations(alone)) == ("evaluation" in METHODS[method])
