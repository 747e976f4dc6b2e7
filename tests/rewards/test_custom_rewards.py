"""A user's own reward functions, well and badly behaved, in real workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from aapo_desk.config import RewardConfig
from aapo_desk.rewards import Completion, RewardError, RewardPool, Score, part_names

REWARDS = """
import os, random, subprocess, sys, time
import numbers_of_mine

def score(completion, answer):
    if completion == "raise":
        raise ValueError("bad \\x1b[31mthing\\nhere")
    if completion == "exit":
        sys.exit(3)
    if completion == "die":
        os._exit(3)
    if completion == "text":
        return "0.5"
    if completion == "nan":
        return float("nan")
    if completion == "huge":
        return 10 ** 400
    if completion == "none":
        return None
    if completion == "sleep":
        time.sleep(1000)
    if completion == "fill":
        held = []
        while True:
            held.append(bytearray(1 << 20))
    if completion == "swallow":
        held = []
        try:
            while True:
                held.append(bytearray(1 << 20))
        except MemoryError:
            return 0.0
    if completion == "print":
        print("x" * 100_000, flush=True)
        print("x" * 100_000, file=sys.stderr, flush=True)
        os.write(1, b"nonsense\\n")
        subprocess.run(["echo", "nonsense"], check=True)
    if completion == "input":
        return float(sys.stdin.read() == "")
    if completion == "dice":
        return random.random()
    return numbers_of_mine.ONE if completion == answer else False

def context(completion, answer, *, problem, truncated, scale=1.0):
    return scale * len(problem) + truncated

def everything(completion, answer, **given):
    return sum(len(name) for name in given)
"""


def completion(text: str, answer: str = "yes", truncated: bool = False) -> Completion:
    return Completion(text, problem="1 + 1?", answer=answer, tokens=5, max_tokens=50, truncated=truncated)


@pytest.fixture
def rewards(tmp_path: Path) -> Path:
    (tmp_path / "numbers_of_mine.py").write_text("ONE = 1\n")
    path = tmp_path / "my rewards.py"
    path.write_text(REWARDS)
    return path


def own(path: Path, function: str = "score", weight: float = 1.0, **options: object) -> RewardConfig:
    return RewardConfig(name=f"{path}:{function}", weight=weight, options=options)


def test_numbers_and_truths_are_scores_and_order_is_kept(rewards: Path) -> None:
    answers = ["yes", "no", "no", "yes", "no"] * 40
    with RewardPool([own(rewards)], workers=2) as pool:
        scores = pool.score([completion(text) for text in answers])
    assert scores == [Score(float(text == "yes"), {"score": float(text == "yes")}) for text in answers]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("raise", "score: raised ValueError: bad [31mthing here (line 7)"),
        ("exit", "score: raised SystemExit: 3 (line 9)"),
        ("die", "score: the worker ended with status 3"),
        ("text", "score: returned '0.5' (str), not a finite number or None"),
        ("nan", "score: returned nan (float), not a finite number or None"),
        ("huge", "score: raised OverflowError: int too large to convert to float"),
        ("none", "score: returned no score (None)"),
        ("sleep", "score: timed out after 2 s"),
        ("fill", "score: out of memory (the limit is 256 MB)"),
        ("swallow", "score: out of memory (the limit is 256 MB)"),
    ],
)
def test_a_reward_that_misbehaves_costs_one_answer_and_no_neighbour(rewards: Path, text: str, error: str) -> None:
    texts = ["yes", "no", text, "yes", "no", "yes"]
    limit = 2 if text == "sleep" else 60  # a busy machine must not turn another end into this one
    with RewardPool([own(rewards)], workers=2, time_limit=limit, memory_limit_mb=256) as pool:
        scores = pool.score([completion(text) for text in texts])
        again = pool.score([completion("yes")])
    assert [score.total for score in scores] == [1.0, 0.0, None, 1.0, 0.0, 1.0]
    assert scores[2] == Score(None, {"score": None}, error)
    assert again == [Score(1.0, {"score": 1.0})]


def test_what_a_reward_prints_or_reads_does_not_reach_the_protocol(rewards: Path) -> None:
    with RewardPool([own(rewards)], workers=1) as pool:
        scores = pool.score([completion(text) for text in ("print", "yes", "input")])
    assert [score.total for score in scores] == [0.0, 1.0, 1.0]


def test_chance_in_a_reward_follows_from_the_completion(rewards: Path) -> None:
    with RewardPool([own(rewards)], workers=2) as pool:
        first = pool.score([completion("dice")] * 4)
    with RewardPool([own(rewards)], workers=1) as pool:
        assert pool.score([completion("yes"), completion("dice")])[1] == first[0]
    assert len({score.total for score in first}) == 1


def test_a_function_gets_the_context_and_options_that_it_names(rewards: Path) -> None:
    with RewardPool([own(rewards, "context", scale=0.5), own(rewards, "everything", a=1, bc=2)], workers=1) as pool:
        [score] = pool.score([completion("", truncated=True)])
    assert score.parts == {"context": 0.5 * len("1 + 1?") + 1, "everything": len("problemtokensmax_tokenstruncatedabc")}


def test_the_total_is_the_weighted_sum_and_needs_every_part(rewards: Path) -> None:
    parts = [own(rewards, weight=2), RewardConfig(name="length", weight=-0.5), own(rewards, weight=0)]
    with RewardPool(parts, workers=1) as pool:
        right, without = pool.score([completion("yes"), completion("none")])
    assert right.parts == {"score": 1.0, "length": 0.9, "score_2": 1.0}
    assert right.total == pytest.approx(2 - 0.45)
    assert without == Score(None, {"score": None, "length": 0.9, "score_2": None}, "score: returned no score (None)")


def test_a_sum_beyond_all_numbers_is_unscorable(rewards: Path) -> None:
    with RewardPool([own(rewards, weight=1.7e308), own(rewards, weight=1.7e308)], workers=1) as pool:
        [score] = pool.score([completion("yes")])
    assert score.total is None
    assert score.error is not None
    assert "not finite" in score.error


def test_parts_of_the_same_name_get_numbers(rewards: Path) -> None:
    names = ["math", f"{rewards}:math", "math", "length", f"{rewards}:math_2"]
    unique = part_names([RewardConfig(name=name) for name in names])
    assert unique == ["math", "math_2", "math_3", "length", "math_2_2"]


def test_a_change_to_the_file_waits_for_the_next_pool(rewards: Path) -> None:
    with RewardPool([own(rewards)], workers=1) as pool:
        pool.score([completion("yes")])
        rewards.write_text("def score(completion, answer):\n    return 7\n")
        after = pool.score([completion("die"), completion("yes")])
    assert [score.total for score in after] == [None, 1.0]
    with RewardPool([own(rewards)], workers=1) as pool:
        assert pool.score([completion("yes")])[0].total == 7.0


def test_a_missing_file_or_function_is_an_error_and_not_a_loop(rewards: Path) -> None:
    with pytest.raises(RewardError, match="there is no file"):
        RewardPool([own(rewards.with_name("other.py"))])
    with RewardPool([own(rewards, "scores")]) as pool, pytest.raises(RewardError, match=r"did you mean score\?"):
        pool.score([completion("yes")])


def test_too_little_memory_to_start_is_an_error_and_not_a_loop() -> None:
    with RewardPool([RewardConfig(name="math")], memory_limit_mb=40) as pool, pytest.raises(RewardError):
        pool.score([completion("yes")])


def test_no_completions_need_no_worker() -> None:
    with RewardPool([RewardConfig(name="math")], memory_limit_mb=1) as pool:
        assert pool.score([]) == []
