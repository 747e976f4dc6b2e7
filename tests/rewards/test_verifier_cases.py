"""The ``math`` reward on answer-equivalence cases of other projects' test suites.

Of the 713 core cases in the file that this was written with, 710 agree. The rest:

    expected  given         case           why
    wrong     unscorable    12:00 / 1:00   read as ratios, 12/0 and 1/0: math-verify raises where it compares them
    wrong     unscorable    a≠b≠c / c≠d≠e  math-verify raises on a chain of unequal signs
    right     wrong         ab / ba        a word of two letters is no product here: "no" and "on" are not equal

What breaks the verifier is left out of its group by design, and never a 0.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from aapo_desk.config import RewardConfig
from aapo_desk.rewards import Completion, RewardPool, Score

NEIGHBOUR = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "verifier_cases.jsonl"
SAID = {True: "right", False: "wrong"}


def line(case: Mapping[str, Any], score: Score) -> str:
    """A case that does not agree, as a row of the table: what was expected, what was given, and why."""
    expected = SAID[case["expected"]]
    if score.error is not None:
        given, why = "unscorable", score.error
    else:
        given = SAID[bool(score.total)]
        why = f"{'not ' if given == 'wrong' else ''}seen as equal; {case['kind']}, from {case['source']}"
    texts = f"{case['gold']!r:.40} / {case['pred'][-40:]!r}"
    return f"{case['id']}  {expected:8}  {given:10}  {texts:84}  {why:.100}"


@pytest.mark.slow
def test_math_agrees_with_the_core_cases(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(os.environ.get("AAPO_DESK_VERIFIER_CASES", NEIGHBOUR))
    if not path.exists():
        pytest.skip(f"{path} is not here; AAPO_DESK_VERIFIER_CASES can name such a file")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    cases = [row for row in rows if row["core"]]
    completions = [Completion(case["pred"], "", case["gold"], 1, 1, False) for case in cases]
    with RewardPool([RewardConfig(name="math")], workers=os.cpu_count() or 1, time_limit=60) as pool:
        scores = pool.score(completions)
    rest = [(case, score) for case, score in zip(cases, scores, strict=True) if score.total != float(case["expected"])]
    agreeing = len(cases) - len(rest)
    with capsys.disabled():
        sys.stdout.write(f"\nverifier cases: {agreeing} of {len(cases)} agree ({agreeing / len(cases):.2%})\n")
        sys.stdout.writelines(f"{line(case, score)}\n" for case, score in rest)
    lost = [score.error for score in scores if score.error and not score.error.startswith("math: raised ")]
    assert lost == [], "a case passed its time limit, or ended its worker"
    assert agreeing / len(cases) >= 0.97
