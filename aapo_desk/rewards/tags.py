"""The ``tags`` reward: the share of the wanted tags that are there, each exactly once.

    (tags, of <think> </think> <answer> </answer>, that occur exactly once) / 4

As open-r1's ``tag_count``: a first step towards the form that ``format`` wants whole. Deviation: open-r1 also demands
the line ends around the tags.

Option: ``names`` of the tags (default think, answer); each has an opening and a closing one.
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
        yield Refusal("names", "holds a tag twice", names)


def build(options: Mapping[str, Any]) -> Scorer:
    tags = [tag for name in options.get("names", DEFAULT) for tag in (f"<{name}>", f"</{name}>")]

    def score(completion: Completion) -> float:
        return sum(completion.text.count(tag) == 1 for tag in tags) / len(tags)

    return score
