"""The life of the worker processes: when they start, that they end, what they inherit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from aapo_desk.config import RewardConfig
from aapo_desk.rewards import Completion, RewardError, RewardPool, check

REWARDS = """
import os, subprocess, time

def score(completion, answer):
    if completion == "sleep":
        time.sleep(1000)
    if completion == "child":
        child = subprocess.Popen(["sleep", "1000"])
        with open(answer, "w") as file:
            file.write(str(child.pid))
        time.sleep(1000)
    if completion == "meet":
        open(f"{answer}/{os.getpid()}", "w").close()
        while len(os.listdir(answer)) < 2:
            time.sleep(0.01)
    if completion == "descriptors":
        return len(os.listdir("/proc/self/fd"))
    if completion == "inherits":
        return os.path.exists(f"/proc/self/fd/{answer}")
    return os.getpid()
"""


def completion(text: str, answer: str = "") -> Completion:
    return Completion(text, problem="", answer=answer, tokens=5, max_tokens=50, truncated=False)


def workers() -> list[psutil.Process]:
    """The reward workers of this process that live."""
    found = psutil.Process().children(recursive=True)
    return [child for child in found if any("rewards.worker" in part for part in child.cmdline())]


def lives(pid: int) -> bool:
    """A zombie has ended, though nobody has waited for it."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_gone(pids: list[int], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while any(lives(pid) for pid in pids):
        assert time.monotonic() < deadline, "a process outlived what it belongs to"
        time.sleep(0.02)


@pytest.fixture
def own(tmp_path: Path) -> RewardConfig:
    (tmp_path / "mine.py").write_text(REWARDS)
    return RewardConfig(name=f"{tmp_path}/mine.py:score")


def test_workers_start_when_first_needed_and_end_with_the_pool(own: RewardConfig) -> None:
    with RewardPool([own], workers=2) as pool:
        assert workers() == []
        pool.score([completion("pid")])
        assert len(workers()) == 1
        pool.score([completion("pid")] * 8)
        alive = [worker.pid for worker in workers()]
        assert len(alive) == 2
    assert not any(lives(pid) for pid in alive)


def test_workers_work_side_by_side(own: RewardConfig, tmp_path: Path) -> None:
    """Each waits for the other, so one after the other they would never end."""
    (tmp_path / "met").mkdir()
    with RewardPool([own], workers=2, time_limit=60) as pool:
        scores = pool.score([completion("meet", str(tmp_path / "met"))] * 2)
    assert None not in {score.total for score in scores}


def test_a_hanging_reward_is_ended_with_what_it_started(own: RewardConfig, tmp_path: Path) -> None:
    with RewardPool([own], workers=1, time_limit=2) as pool:
        [score] = pool.score([completion("child", str(tmp_path / "child"))])
    assert score.error == "score: timed out after 2 s"
    wait_until_gone([int((tmp_path / "child").read_text())])


def test_an_idle_worker_that_dies_is_replaced_and_no_answer_is_blamed(own: RewardConfig) -> None:
    with RewardPool([own], workers=1) as pool:
        pool.score([completion("pid")])
        [first] = workers()
        first.kill()
        wait_until_gone([first.pid])
        [score] = pool.score([completion("pid")])
    assert score.error is None
    assert score.total != first.pid


def test_a_pool_can_be_used_by_one_thread_after_another(own: RewardConfig) -> None:
    scores: list[float | None] = []
    with RewardPool([own], workers=2) as pool:
        for _ in range(3):
            thread = threading.Thread(target=lambda: scores.extend(s.total for s in pool.score([completion("pid")])))
            thread.start()
            thread.join()
    assert len(scores) == 3
    assert None not in scores


def test_an_interrupted_score_leaves_no_answer_for_the_next(own: RewardConfig) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with RewardPool([own], workers=1) as pool:
            pool.score([completion("pid")])
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(KeyboardInterrupt):
                pool.score([completion("sleep")])
            assert workers() == []
            assert pool.score([completion("pid")])[0].error is None
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_worker_inherits_no_descriptor_and_knows_no_other_workers_pipe(own: RewardConfig, tmp_path: Path) -> None:
    with (tmp_path / "run.lock").open("w") as lock, RewardPool([own], workers=2) as pool:
        os.set_inheritable(lock.fileno(), True)
        number = os.dup2(lock.fileno(), 77)
        try:
            counts = pool.score([completion("descriptors")] * 6)
            held = pool.score([completion("inherits", str(number))] * 6)
        finally:
            os.close(number)
    # Standard input, output and error, the two ends of the protocol, and the listing itself.
    assert {score.total for score in counts} == {6.0}
    assert {score.total for score in held} == {0.0}


@pytest.mark.parametrize("signals", [[signal.SIGKILL], [signal.SIGINT, signal.SIGKILL]])
def test_workers_die_with_a_killed_parent_even_while_busy(tmp_path: Path, signals: list[signal.Signals]) -> None:
    script = """
import signal, sys, threading, time
from aapo_desk.config import RewardConfig
from aapo_desk.rewards import Completion, RewardPool
signal.signal(signal.SIGINT, signal.SIG_IGN)
def completion(text): return Completion(text, "", "", 1, 9, False)
pool = RewardPool([RewardConfig(name="format", options={"pattern": "(a+)+$"})], workers=2, time_limit=1000)
pool.score([completion("aa")] * 4)
print("ready", flush=True)
pool.score([completion("a" * 60 + "b")])
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        busy_and_idle = [child.pid for child in psutil.Process(parent.pid).children()]
        assert len(busy_and_idle) == 2
        time.sleep(0.2)
        for number in signals:
            parent.send_signal(number)
        wait_until_gone(busy_and_idle)
    finally:
        parent.kill()
        parent.communicate()


def test_a_worker_whose_input_is_closed_ends_by_itself() -> None:
    worker = [sys.executable, "-m", "aapo_desk.rewards.worker"]
    setup = '{"rewards": [{"name": "length", "options": {}, "custom": null}], "memory_limit_mb": 512}\n'
    ended = subprocess.run(worker, input=setup, capture_output=True, text=True, timeout=30, check=True)
    assert ended.stdout == '{"ready": true}\n'
    assert subprocess.run(worker, input="", capture_output=True, text=True, timeout=30, check=True).stdout == ""


def test_a_worker_that_cannot_start_is_one_clear_error(own: RewardConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with RewardPool([own]) as pool, pytest.raises(RewardError, match="a reward worker did not start: it ended with"):
        pool.score([completion("pid")])
    assert workers() == []


def test_a_worker_that_takes_for_ever_to_start_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aapo_desk.rewards.pool.START_LIMIT", 1.0)
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(1000)\n")
    slow = RewardConfig(name=f"{tmp_path}/slow.py:score")
    with RewardPool([slow]) as pool, pytest.raises(RewardError, match="it did not load its rewards within 1 s"):
        pool.score([completion("pid")])
    assert workers() == []


def test_the_parent_loads_neither_the_verifier_nor_anything_heavy(tmp_path: Path) -> None:
    script = """
import sys
from aapo_desk.config import RewardConfig
from aapo_desk.rewards import Completion, RewardPool, check
rewards = [RewardConfig(name="math"), RewardConfig(name="readable"), RewardConfig(name="length")]
check(rewards)
with RewardPool(rewards, workers=1, time_limit=60) as pool:
    assert pool.score([Completion("72", "", "72", 5, 10, False)])[0].total == 2.5
print(sorted({"sympy", "math_verify", "torch", "transformers", "latex2sympy2_extended"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_checking_built_in_rewards_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    check([RewardConfig(name="math"), RewardConfig(name="format", options={"pattern": "a"})])
