"""Rewards that fail in a run: the worker is killed and replaced, and ten failures in a row pause the run."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aapo_desk.config import RewardConfig, resolve
from aapo_desk.rewards import Completion
from aapo_desk.store import RunDirectory, RunReader, RunWriter, create_run
from aapo_desk.training import control
from aapo_desk.training.control import Control, StopRequested
from aapo_desk.training.pauses import PausingPool
from tests.faults.injecting import PATIENCE, ask, configuration, kinds, learned, onlooker, train, until_paused

GOOD = "import re\ndef score(completion, answer):\n    return float(bool(re.search('[a-m]', completion)))\n"
TEXT = "a completion of more than five hundred characters " * 12

HANGS = "while True:\n    pass"
LEAKS = "while True:\n    held.append(bytearray(1 << 26))"
FLOODS = """
for number in range(3, 20):
    try:
        while True:
            os.write(number, b"x" * 65536)
    except OSError:
        pass
"""
LIES = """
class Liar(float):
    def __float__(self):
        return float("nan")
return Liar(1)
"""
FAULTS = {
    "hangs": (HANGS, "score: timed out after 0.4 s"),
    "raises": ("raise ValueError(completion[:12])", "score: raised ValueError: a completion (line 4)"),
    "dies": ("os._exit(3)", "score: the worker ended with status 3"),
    "leaks": (LEAKS, "score: out of memory (the limit is 512 MB)"),
    "floods": (FLOODS, "score: the worker broke the protocol"),
    "gives text": ("return '1'", "score: returned '1' (str), not a finite number or None"),
    "gives NaN": ("return float('nan')", "score: returned nan (float), not a finite number or None"),
    "gives several": ("return [1.0, 0.0]", "score: returned [1.0, 0.0] (list), not a finite number or None"),
    "lies": (LIES, "score: returned 1.0 (Liar), not a finite number or None"),
    "forgets to return": ("len(completion)", "score: returned no score (None)"),
}


def written(path: Path, body: str) -> None:
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    path.write_text(f"import os\nheld = []\ndef score(completion, answer):\n{lines}")


def completions(count: int) -> list[Completion]:
    return [Completion(TEXT, "1 + 1 =", "2", tokens=5, max_tokens=50, truncated=False) for _ in range(count)]


class Bench:
    """A reward pool as in a run, without the run."""

    def __init__(self, tmp_path: Path, body: str) -> None:
        self.path = tmp_path / "mine.py"
        written(self.path, body)
        self.run = create_run(resolve({"model": {"id": "owner/model"}, "task": {"source": "arithmetic"}}))
        self.store = RunWriter(self.run)
        self.control = Control(self.run, 9)
        self.control.say(state="running")
        self.pool = PausingPool([RewardConfig(name=f"{self.path}:score")], self.control, self.store)
        self.pool._time_limit = 0.4 if body == HANGS else 60.0  # a busy machine must not cause time-outs
        self.pool._memory_limit_mb = 512
        self.pool.reload()

    def close(self) -> None:
        self.pool.close()
        self.store.close()


@pytest.fixture
def bench(desk_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(control, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(control, "HEARTBEAT_SECONDS", 0.1)
    made: list[Bench] = []

    def make(body: str) -> Bench:
        made.append(Bench(tmp_path, body))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("fault", FAULTS)
def test_ten_failures_in_a_row_pause_the_run_and_a_mended_file_scores_the_same_answers(
    fault: str, bench: Callable[[str], Bench]
) -> None:
    body, error = FAULTS[fault]
    made = bench(body)

    def mend() -> None:
        said = until_paused(made.run)
        assert said.startswith(f"paused: the reward score in {made.path} failed on 10 answers in a row, the last: ")
        assert f"fix it, then: aapo-desk resume {made.run.id}" in said
        made.pool._time_limit = 60.0
        made.path.write_text(GOOD)
        ask(made.run, "resume")

    with made.control, onlooker(made.run, mend):
        scores = made.pool.score(completions(12))
    assert [score.total for score in scores] == [1.0] * 12
    assert made.control.status["state"] == "running"
    failing, unpaused = RunReader(made.run).poll().events
    assert (failing.kind, unpaused.kind) == ("rewards_failing", "unpaused")
    assert failing.data == {"function": "score", "error": error, "count": 10, "completion": TEXT[:500]}


def test_a_resume_from_before_the_pause_does_not_end_it(bench: Callable[[str], Bench]) -> None:
    made = bench("raise ValueError")
    made.control.resumed.set()

    def stop() -> None:
        until_paused(made.run)
        ask(made.run, "stop")

    with made.control, onlooker(made.run, stop), pytest.raises(StopRequested):
        made.pool.score(completions(30))
    assert [event.kind for event in RunReader(made.run).poll().events] == ["rewards_failing"]


def test_failures_in_a_row_are_counted_over_the_steps(bench: Callable[[str], Bench]) -> None:
    made = bench("raise ValueError")

    def stop() -> None:
        until_paused(made.run)
        ask(made.run, "stop")

    with made.control, onlooker(made.run, stop):
        assert [score.total for score in made.pool.score(completions(9))] == [None] * 9
        with pytest.raises(StopRequested):
            made.pool.score(completions(1))


def test_failures_with_scores_between_them_pause_nothing(bench: Callable[[str], Bench]) -> None:
    made = bench("held.append(1)\nif len(held) % 4:\n    raise ValueError\nreturn 1.0")
    scores = made.pool.score(completions(40))
    assert {score.total for score in scores} == {None, 1.0}
    assert RunReader(made.run).poll().events == []


def test_a_reward_that_can_score_may_decline_as_often_as_it_likes(bench: Callable[[str], Bench]) -> None:
    made = bench("held.append(1)\nreturn 1.0 if len(held) == 1 else None")
    assert [score.total for score in made.pool.score(completions(30))].count(None) >= 28
    assert RunReader(made.run).poll().events == []


def test_a_resume_with_nothing_mended_goes_on_without_the_scores_and_a_broken_file_pauses_again(
    bench: Callable[[str], Bench],
) -> None:
    made = bench("raise ValueError")

    def resume_and_hear(words: str) -> None:
        ask(made.run, "resume")
        deadline = time.monotonic() + PATIENCE
        while words not in until_paused(made.run):
            assert time.monotonic() < deadline, f"it did not say: {words}"
            time.sleep(0.02)

    def look() -> None:
        until_paused(made.run)
        made.path.write_text("def score(")
        resume_and_hear("cannot be imported: SyntaxError")
        written(made.path, "raise ValueError")
        resume_and_hear("failed on 10 answers in a row")
        ask(made.run, "resume")

    with made.control, onlooker(made.run, look):
        scores = made.pool.score(completions(30))
    assert [score.total for score in scores] == [None] * 30


def test_a_run_whose_reward_is_mended_ends_as_one_in_which_it_was_never_broken(
    desk_home: Path,
    tiny_model: Path,
    undisturbed: RunDirectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(GOOD.replace("return", "raise ValueError\n    return"))
    run = create_run(configuration(tiny_model, rewards=[{"name": f"{path}:score"}]), "mended")

    def mend() -> None:
        until_paused(run)
        path.write_text(GOOD)
        ask(run, "resume")

    with onlooker(run, mend):
        assert train(run) == 0
    assert "rewards_failing" in kinds(run)
    assert "unscorable" not in kinds(run)
    mended, whole = learned(run), learned(undisturbed)
    assert mended["tensors"] == whole["tensors"]
    assert mended["samples"] == whole["samples"]


def test_an_unscorable_answer_is_told_with_the_function_and_its_input(
    desk_home: Path, tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "mine.py"
    path.write_text("import os\ndef score(completion, answer):\n    return 1.0 if len(completion) % 2 else 'one'\n")
    run = create_run(configuration(tiny_model, rewards=[{"name": f"{path}:score"}]), "unscorable")
    assert train(run) == 0
    told = [event.data for event in RunReader(run).poll().events if event.kind == "unscorable"]
    assert told
    for data in told:
        assert data["function"] == "score"
        assert data["error"] == "score: returned 'one' (str), not a finite number or None"
        assert len(data["completion"]) % 2 == 0
