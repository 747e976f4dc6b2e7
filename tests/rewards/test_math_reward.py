"""The ``math`` and ``readable`` rewards through real workers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from aapo_desk.config import RewardConfig
from aapo_desk.rewards import Completion, RewardPool, Score


def completion(text: str, answer: str) -> Completion:
    return Completion(text, problem="", answer=answer, tokens=5, max_tokens=50, truncated=False)


@pytest.fixture(scope="module")
def pool() -> Iterator[RewardPool]:
    # The time limit is wide: what is meant to be scored here must not depend on how busy the machine is.
    with RewardPool([RewardConfig(name="math"), RewardConfig(name="readable", weight=0)], 1, time_limit=60) as pool:
        yield pool


@pytest.fixture(scope="module")
def strict_pool() -> Iterator[RewardPool]:
    with RewardPool([RewardConfig(name="math", options={"worked_out": True})], 1, time_limit=60) as pool:
        yield pool


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("12 + 7", "19"),
        ("\\boxed{12 + 7}", "19"),
        ("= 12 + 7", "19"),
        ("12 + 7 = 12 + 7", "19"),
        ("19 = 12 + 7", "19"),
        ("3 * 4", "12"),
        ("12 - 7", "5"),
    ],
)
def test_repeating_the_question_is_no_answer_where_it_must_be_worked_out(
    strict_pool: RewardPool, text: str, answer: str
) -> None:
    assert strict_pool.score([completion(text, answer), completion(f"It is {answer}.", answer)]) == [
        Score(0.0, {"math": 0.0}),
        Score(1.0, {"math": 1.0}),
    ]


def test_an_expression_that_comes_to_the_answer_is_equal_otherwise(pool: RewardPool) -> None:
    assert pool.score([completion("12 + 7", "19")])[0].total == 1.0


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("72", "72"),
        (" 72\n", "72"),
        ("72.", "72"),
        ("The answer is 72.", "72"),
        ("It is 72", "72"),
        ("Answer:72", "72"),
        ("72 apples", "72"),
        ("**72**", "72"),
        ("$72", "72"),
        ("#### 72", "72"),
        ("\\boxed{72}", "72"),
        ("First 3, then 4. The sum is $7$.", "7"),
        ("12 + 7 = 19", "19"),
        ("x = 4", "4"),
        ("72", "\\boxed{72}"),
        ("72", "$72$"),
        ("42", "42 apples"),
        ("-5", "-5"),
        ("\N{MINUS SIGN}5", "-5"),
        ("Final answer: -3.5", "-3.5"),
        ("1234", "1,234"),
        ("1,234", "1234"),
        ("0.5", "\\frac{1}{2}"),
        ("1/2", "\\frac{1}{2}"),
        ("\\frac{2}{4}", "1/2"),
        ("(r+5)^2", "(r+5)(r+5)"),
        ("\\begin{pmatrix} 1 & 0.5 \\\\ 0 & 1 \\end{pmatrix}", "\\begin{pmatrix} 1 & 1/2 \\\\ 0 & 1 \\end{pmatrix}"),
        ("$12:00$", "$12:00$"),
        ("<answer>72</answer>", "72"),
        ("<think>7 or 8?</think><answer>72</answer>", "72"),
        ("<think>\\boxed{3}</think>\n<answer>\n$72$\n</answer>\nI am 100% sure.", "72"),
        ("<answer>71</answer> No, <answer>72</answer>", "72"),
        ("<answer>It is 72.</answer>", "72"),
        ("<answer>72", "72"),
        ("<think>\\boxed{71}</think> It is 72.", "72"),
        ("<think>It is \\boxed{72}</think>", "72"),
        ("<answer>White</answer>", "white"),
        ("<answer>2x + 3</answer>", "3 + 2x"),
        ("\\frac{\\sqrt(3)}{2}", "\\frac{\\sqrt{3}}{2}"),
        ("\\sqrt[4](16)", "2"),
        ("\\boxed{-2, 1}", "-2,1"),
        ("$1,-2$", "-2,1"),
        ("-2.1", "-2,1"),
        ("3,4", "$\\{3, 4\\}$"),
        ("٧٢", "72"),
        ("答案是 ７２", "72"),
        ("\\boxed{３ + ４}", "7"),
        ("white", "White"),
        ("The colour is $\\text{white}$", "\\text{white}"),
    ],
)
def test_an_equal_answer_is_right(pool: RewardPool, text: str, answer: str) -> None:
    assert pool.score([completion(text, answer)]) == [Score(1.0, {"math": 1.0, "readable": 1.0})]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("73", "72"),
        ("5", "-5"),
        ("-5", "5"),
        ("12 + 7 = 20", "19"),
        ("19 20", "19"),
        ("12, 19", "19"),
        ("$\\{2, 1\\}$", "-2,1"),
        ("\\frac{1}{3}", "1/2"),
        ("It was 72, but now it is 71", "72"),
        ("<think>It is 72.</think><answer>71</answer>", "72"),
        ("<answer>71</answer> or \\boxed{72}", "72"),
        ("<think>It is \\boxed{72}</think> It is 71.", "72"),
    ],
)
def test_another_answer_is_wrong_but_readable(pool: RewardPool, text: str, answer: str) -> None:
    assert pool.score([completion(text, answer)]) == [Score(0.0, {"math": 0.0, "readable": 1.0})]


@pytest.mark.parametrize(
    "text", ["", "\n", "I do not know.", "seventy-two", "Yes.", "!!!!", "\\frac{", "$$", "💥", "72 <answer></answer>"]
)
def test_a_text_without_an_answer_is_wrong_and_not_readable(pool: RewardPool, text: str) -> None:
    assert pool.score([completion(text, "72")]) == [Score(0.0, {"math": 0.0, "readable": 0.0})]


def test_what_breaks_the_verifier_is_unscorable_and_never_zero(pool: RewardPool) -> None:
    [score] = pool.score([completion("$1:00$", "$12:00$")])
    assert score.total is None
    assert score.parts == {"math": None, "readable": 1.0}
    assert score.error == "math: raised ValueError: Can't evaluate nan or zoo"


def test_an_empty_right_answer_is_said_and_not_scored(pool: RewardPool) -> None:
    [score] = pool.score([completion("", " ")])
    assert score.parts["math"] is None
    assert score.error == "math: raised ValueError: the right answer is empty"


def test_what_hangs_the_verifier_is_unscorable_and_its_neighbours_are_scored() -> None:
    texts = ["72", "\\boxed{9^{9^{9^{9}}}}", "The answer is 72.", "71"]
    with RewardPool([RewardConfig(name="math")], workers=1, time_limit=2) as pool:
        scores = pool.score([completion(text, "72") for text in texts])
    assert [score.total for score in scores] == [1.0, None, 1.0, 0.0]
    assert scores[1].error == "math: timed out after 2 s"


def test_code_in_a_completion_is_not_run(pool: RewardPool, tmp_path_factory: pytest.TempPathFactory) -> None:
    trace = tmp_path_factory.mktemp("trace") / "ran"
    code = f"__import__('os').system('touch {trace}')"
    pool.score([completion(text, "72") for text in (code, f"${code}$", f"\\boxed{{{code}}}", f"1 + {code}")])
    assert not trace.exists()


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("So it is $\\frac{3}{4}$ of them: \\boxed{0.75}", "0.75"),
        ("They have 12 and 7 apples, 19 in all.", "19"),
        ("12 + 7", "12 + 7"),
        ("I do not know", None),
    ],
)
def test_a_score_tells_the_answer_that_was_read(pool: RewardPool, text: str, read: str | None) -> None:
    (score,) = pool.score([completion(text, "19")])
    assert score.read == read
