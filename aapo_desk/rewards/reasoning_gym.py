"""The ``reasoning_gym`` reward: the score, 0 to 1, of the problem's own scorer in reasoning-gym.

For problems of ``task.source=reasoning-gym:NAME``, many of which have more than one right answer. The answer is the
text inside the last ``<answer>...</answer>``, else inside the last ``\\boxed{}``, else all text after the last
``</think>``.
Many scorers give partial credit to a text that contains the right answer among other words.

Some scorers would execute model text; ``guard`` prevents that. The problem is generated again from its recipe, because
the scorer needs the generator's own entry. If another version of the package generates a different problem, the
completion is unscorable. The reward has no options.
"""

from __future__ import annotations

import importlib.util
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from aapo_desk.rewards.base import Completion, Refusal, Scorer, unknown_options
from aapo_desk.rewards.guard import only_formulas

MISSING = "needs the package reasoning-gym: pip install 'aapo-desk[reasoning-gym]'"
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_BOXED = re.compile(r"\\boxed\s*\{([^{}]*)\}")


def check(options: Mapping[str, Any]) -> Iterator[Refusal]:
    yield from unknown_options(options)
    if importlib.util.find_spec("reasoning_gym") is None:
        yield Refusal(None, MISSING)


def build(options: Mapping[str, Any]) -> Scorer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of its dependencies are written for older versions of Python
        import reasoning_gym

    @lru_cache(maxsize=8)
    def generator(text: str) -> Any:
        recipe = json.loads(text)
        options = recipe.pop("options")
        return reasoning_gym.create_dataset(recipe.pop("name"), **recipe, **options)

    def score(completion: Completion) -> float:
        if not completion.recipe:
            raise ValueError("this reward scores only problems of task.source=reasoning-gym:NAME")
        recipe = json.loads(completion.recipe)
        index = recipe.pop("index")
        made = generator(json.dumps(recipe))
        entry = made[index]
        if entry["question"].split() != completion.problem.split():
            raise ValueError("the installed version of reasoning-gym generates a different problem from this recipe")
        with only_formulas():
            return float(made.score_answer(answer_in(completion.text), entry))

    return score


def answer_in(text: str) -> str:
    """Return the answer in the text of a completion."""
    text = text.rpartition("</think>")[2]
    found = _TAGGED.findall(text) or _BOXED.findall(text)
    return str(found[-1] if found else text).strip()
