"""The ``math`` reward on answer-equivalence cases of other projects' test suites."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from aapo_desk.config import RewardConfig
from aapo_desk.rewards import Completion, RewardPool

NEIGHBOUR = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "verifier_cases.jsonl"


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
    agreeing = sum(score.total == float(case["expected"]) for score, case in zip(scores, cases, strict=True))
    errors = [score.error for score in scores if score.error]
    with capsys.disabled():
        sys.stdout.write(f"\nverifier cases: {agreeing} of {len(cases)} agree ({agreeing / len(cases):.2%})\n")
    assert not [error for error in errors if "raised" not in error], "a worker was lost"
    assert agreeing / len(cases) >= 0.97
