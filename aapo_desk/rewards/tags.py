"""The ``tags`` reward: the fraction of the required tags that occur exactly once.

    (tags, of <think> </think> <answer> </answer>, that occur exactly once) / 4

Like open-r1's ``tag_count``. It rewards partial progress towards a form that ``format`` rewards only as a whole.
Deviation: open-r1 also requires the line ends around the tags.

Option: ``names`` of the tags (default: think, answer); each name stands for an opening and a closing tag.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from aapo_desk.rewards.base import Completion, Refusal, Scorer, unknown_options

DEFAULT = ("think", "answer")


def check(options: Mapping[str, Any]) -> Iterator[Refusal]:
    yield from unknown_options(options, ("names",))
    names = options.get("names", DEFAULT)
    fit = isinstance(names, list | tuple) and all(
        isinstance(name, str) and re.fullmatch(r"[\w.-]+", name) for name in names
    )
    if not fit or not names:
        yield Refusal("names", "must be a list of tags without their brackets, such as [think, answer]", names)
    elif len(set(names)) < len(names):
        yield Refusal("names", "contains a tag twice", names)


def build(options: Mapping[str, Any]) -> Scorer:
    tags = [tag for name in options.get("names", DEFAULT) for tag in (f"<{name}>", f"</{name}>")]

    def score(completion: Completion) -> float:
        return sum(completion.text.count(tag) == 1 for tag in tags) / len(tags)

    return score
