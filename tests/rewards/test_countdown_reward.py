"""The ``countdown`` reward: the rules of the game, the places where an expression may be, what is no answer."""

from __future__ import annotations

from typing import Any

import pytest

from aapo_desk.config import RewardConfig
from aapo_desk.rewards import Completion, RewardPool, countdown

GIVEN = "98 from 44, 19, 35"
SOME = "63 from some of 44, 19, 35"
SOLUTION = "44 + (19 + 35)"


def score(text: str, answer: str = GIVEN, **options: Any) -> float:
    completion = Completion(text, problem="", answer=answer, tokens=9, max_tokens=99, truncated=False)
    return float(countdown.build(options)(completion))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>44 + 19 + 35</answer>", GIVEN),
        ("<answer>\n35 + (44 + 19)\n</answer>", GIVEN),
        ("<think>44 - 19 is 25</think><answer>44 + 19 + 35 = 98</answer>", GIVEN),
        ("<answer>98 = 44 + 19 + 35</answer> I hope.", GIVEN),
        ("<answer>44 + 19 + 35 = 63 + 35 = 98</answer>", GIVEN),
        ("<answer>$44 + 19 + 35$.</answer>", GIVEN),
        ("<answer>1 + 1</answer> no: <answer>44 + 19 + 35</answer>", GIVEN),
        ("<answer><answer>44 + 19 + 35</answer>", GIVEN),
        ("So \\boxed{44 + 19 + 35}.", GIVEN),
        ("\\boxed{1} or rather \\boxed{44+19+35}", GIVEN),
        ("First 44 + 19 = 63.\n44 + 19 + 35 = 98.\n", GIVEN),
        ("<think>44 + 19?</think>\n44 + 19 + 35", GIVEN),
        ("<answer>44 + 19 + 35", GIVEN),
        ("<answer>\\boxed{44 + 19 + 35}</answer>", GIVEN),
        ("44 + 19 + 35", SOLUTION),
        ("19 - -44 + 35", GIVEN),
        ("44 + 19", SOME),
        ("8 / (3 - 8 / 3)", "24 from 8, 3, 8, 3"),
        ("7 / 3 * 3", "7 from [7 3 3]"),
        ("-4 + 9", "5 from 4, 9"),
        ("9 × 4 ÷ 2 − 8", "10 from 9, 4, 2, 8"),
        ("44 + 19 + 35", "98 from 44, 19, 35 by + -"),
        ("98", "98 from some of 98, 1"),
    ],
)
def test_an_expression_that_makes_the_target_of_the_numbers_is_right(text: str, answer: str) -> None:
    assert score(text, answer) == 1.0


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>44 + 19 - 35</answer>", GIVEN),  # another value
        ("<answer>44 + 54</answer>", GIVEN),  # a number that was not given
        ("<answer>44 + 19 + 35 + 0</answer>", GIVEN),
        ("<answer>44 + 19 + 35 + 44 - 44</answer>", GIVEN),  # one used thrice
        ("<answer>44 + 19</answer>", "63 from 44, 19, 35"),  # one left out
        ("<answer>44 + 19 + 35 = 99</answer>", GIVEN),  # an equation that is false
        ("<answer>44 + 19 + 35 = 63 + 35 = 99</answer>", GIVEN),
        ("<answer>44 + 19 + 35 + 1 / 0</answer>", GIVEN),
        ("<answer>35 * 2 / 35</answer>", "2 from 2, 35"),
        ("<answer>6 * 4</answer>", "24 from 6, 4 by + -"),  # an operation that was not allowed
        ("<answer>100 - 2</answer>", GIVEN),
    ],
)
def test_an_expression_that_is_not_right_is_worth_what_is_set_for_it(text: str, answer: str) -> None:
    assert score(text, answer) == 0.0
    assert score(text, answer, well_formed=0.1) == 0.1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "98",  # a number alone teaches no form
        "<answer>98</answer>",
        "<answer></answer>",
        "<answer>none</answer>\n44 + 19 + 35",
        "44 + 19 + 35\nThat is it.",
        "<answer>44 + 19 + 35 =</answer>",
        "<answer>44 plus 19 plus 35</answer>",
        "<answer>٤٤ + ١٩ + ٣٥</answer>",
        "<answer>４４ + １９ + ３５</answer>",
        "<answer>eval('44 + 19 + 35')</answer>",
        "<answer>44 + 19 + 35 ** 1</answer>",
        "<answer>" + "(" * 100 + "44" + ")" * 100 + " + 19 + 35</answer>",
        "<answer>" + "44 + 19 + 35 = " * 1000 + "98</answer>",
    ],
)
def test_what_is_no_expression_is_worth_nothing(text: str) -> None:
    assert score(text, well_formed=0.1) == 0.0


def test_numbers_may_be_left_out_where_the_option_or_the_answer_says_so() -> None:
    assert score("44 + 19", "63 from 44, 19, 35") == 0.0
    assert score("44 + 19", "63 from 44, 19, 35", all_numbers=False) == 1.0
    assert score("44 + 19 + 44", "107 from 44, 19, 35", all_numbers=False) == 0.0
    assert score("44 + 35", "44 + (19 - 19) + 35") == 0.0
    assert score("44 + 35", "44 + (19 - 19) + 35", all_numbers=False) == 1.0


@pytest.mark.parametrize("answer", ["98", "blue", "98 from", "98 from blue", "44 + 19 +", "1 / 0", "98 from 1.5", "5"])
def test_a_right_answer_without_numbers_and_target_is_unscorable_and_says_so(answer: str) -> None:
    with pytest.raises(ValueError, match="the right answer must be like '98 from 44, 19, 35' or a solution"):
        score("44 + 19 + 35", answer)


def test_the_pool_scores_it_beside_others() -> None:
    rewards = [
        RewardConfig(name="countdown", options={"well_formed": 0.1}, weight=0.8),
        RewardConfig(name="tags", weight=0.2),
    ]
    texts = ["<think>a</think><answer>44 + 19 + 35</answer>", "<answer>44 + 19</answer>", "44"]
    completions = [Completion(text, "", GIVEN, 9, 99, False) for text in texts]
    with RewardPool(rewards, workers=1, time_limit=60) as pool:
        scores = pool.score([*completions, Completion("1", "", "blue", 1, 99, False)])
    assert [score.parts["countdown"] for score in scores] == [1.0, 0.1, 0.0, None]
    assert [score.total for score in scores[:3]] == pytest.approx([1.0, 0.18, 0.0])
    assert (scores[3].error or "").startswith("countdown: raised ValueError: the right answer must be like")
