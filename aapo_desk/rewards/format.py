"""The ``format`` reward: 1 if the completion matches a regular expression, else 0.

Options: ``pattern``, the regular expression (Python's ``re``; a dot also matches line ends), and ``mode``: ``search``
(the default: the pattern may match anywhere) or ``full`` (it must match the whole completion).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from aapo_desk.rewards.base import Completion, Refusal, Scorer, nearest, unknown_options

MODES = ("search", "full")


def check(options: Mapping[str, Any]) -> Iterator[Refusal]:
    yield from unknown_options(options, ("pattern", "mode"))
    pattern, mode = options.get("pattern"), options.get("mode", MODES[0])
    if "pattern" not in options:
        yield Refusal("pattern", "is missing: format needs a regular expression, such as <answer>.+</answer>")
    elif not isinstance(pattern, str) or not pattern:
        yield Refusal("pattern", "must be a regular expression, as text that is not empty", pattern)
    else:
        try:
            _compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            yield Refusal("pattern", f"is not a regular expression: {error}", pattern)
    if mode not in MODES:
        yield Refusal("mode", f"must be {' or '.join(MODES)}", mode, nearest(str(mode), MODES))


def build(options: Mapping[str, Any]) -> Scorer:
    pattern = _compile(options["pattern"])
    matches = pattern.fullmatch if options.get("mode") == "full" else pattern.search

    def score(completion: Completion) -> float:
        return float(matches(completion.text) is not None)

    return score


def _compile(pattern: str) -> re.Pattern[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # for example "possible nested set", which is not an error
        return re.compile(pattern, re.DOTALL)
