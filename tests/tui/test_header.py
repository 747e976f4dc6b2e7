from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len

from aapo_desk.store import Budget, Delta
from aapo_desk.tui.history import History
from aapo_desk.tui.widgets.header import HeaderFacts, first_line, second_line, third_line
from tests.tui.fixed_run import evaluation

FACTS = HeaderFacts(
    name="sums",
    state="running",
    step=18,
    steps=30,
    phase="rollout",
    progress=0.45,
    model="SmolLM2-135M-Instruct",
    algorithm="AAPO",
    elapsed=192.0,
    remaining=130.0,
    tokens_per_second=412.3,
    memory_mb=1900.0,
    base=evaluation(0),
    latest=(10, evaluation(10)),
)


def words(line: list[tuple[str, str]]) -> str:
    return "".join(text for text, _ in line)


def test_the_first_line_says_state_name_steps_and_the_time_left() -> None:
    line = words(first_line(FACTS, 80))
    assert line.startswith("▶ running sums  step 18/30 ")
    assert line.endswith(" 60 %  ETA 2m 10s")


def test_where_a_budget_ends_the_run_the_first_line_says_what_is_gone_of_it() -> None:
    line = words(first_line(replace(FACTS, steps=10**6, budget=Budget("seconds", 120.0, 30.0)), 80))
    assert line.startswith("▶ running sums  step 18, 30 of 120 s ")
    assert line.endswith(" 25 %  ETA 2m 10s")


def test_the_second_line_says_the_phase_and_the_rates() -> None:
    assert words(second_line(FACTS, 120)) == (
        "rollout 45 % · elapsed 3m 12s · 412 tok/s · memory 1.9 GB · SmolLM2-135M-Instruct · AAPO"
    )


def test_the_second_line_says_that_the_reference_is_banked() -> None:
    assert words(second_line(replace(FACTS, algorithm="AAPO, banked reference"), 120)).endswith(
        "AAPO, banked reference"
    )


def test_the_third_line_says_base_now_and_gain_with_intervals() -> None:
    line = words(third_line(FACTS, 120))
    assert "base 0.27 [0.18, 0.36] → step 10 0.40 [0.31, 0.49]" in line
    assert "gain +0.13 [+0.03, +0.23]" in line
    assert "tuned 0.40" in words(third_line(replace(FACTS, state="finished"), 120))


@pytest.mark.parametrize("width", [60, 120])
def test_the_third_line_says_how_many_answers_are_unscorable(width: int) -> None:
    unscored = evaluation(10) | {"problems": 100}
    unscored["greedy"] = {
        **unscored["greedy"],
        "accuracy": 0.0,
        "low": 0.0,
        "unscorable": 100,
        "unscorable_as": "wrong",
    }
    assert "(100 unscorable)" in words(third_line(replace(FACTS, latest=(10, unscored)), width))
    older = evaluation(10) | {"problems": 100}
    older["greedy"] = {**older["greedy"], "unscorable": 3}
    assert "(97 of 100 scored)" in words(third_line(replace(FACTS, latest=(10, older)), width))


@pytest.mark.parametrize("width", [60, 61, 72, 80, 100, 120, 160, 240])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"name": "a name that goes on and on and will not end before the line does " * 2},
        {"name": "漢字" * 40},
        {"state": "crashed", "problem": "torch.OutOfMemoryError: CUDA out of memory. " * 5},
        {"state": "finished", "step": 30},
        {"silent": 4000.0, "step": 0, "message": "loading " * 40},
        {"steps": 0, "step": 0, "base": None, "latest": None, "progress": None, "elapsed": None, "phase": ""},
    ],
)
def test_no_line_is_wider_than_its_room(width: int, changes: dict[str, Any]) -> None:
    facts = replace(FACTS, **changes)
    for line in (first_line, second_line, third_line):
        assert cell_len(words(line(facts, width))) <= width


def test_a_failed_run_says_why_and_what_to_press() -> None:
    line = words(second_line(replace(FACTS, state="crashed", problem="KeyError: 'x'"), 80))
    assert line == "KeyError: 'x'  r: resume"


def test_a_stopped_run_says_how_to_go_on() -> None:
    assert "r resumes" in words(second_line(replace(FACTS, state="stopped"), 80))


def test_a_silent_trainer_is_noticed() -> None:
    assert "no heartbeat for 42 s" in words(second_line(replace(FACTS, silent=42.0), 80))


def test_the_second_line_says_how_far_rollout_and_update_are_apart_where_there_is_room() -> None:
    facts = replace(FACTS, logp_gap=0.0000213)
    assert words(second_line(facts, 140)).endswith(" · rollout-update gap 2e-05")
    assert "gap" not in words(second_line(facts, 80))


@pytest.mark.parametrize(("state", "elapsed"), [("running", 100.0), ("paused", 50.0), ("starting", 50.0)])
def test_time_goes_on_while_it_trains_and_not_while_it_waits_or_loads(state: str, elapsed: float) -> None:
    history = History()
    history.extend(Delta(metrics=[(1, 0.0, {}), (2, 50.0, {})]))
    assert HeaderFacts.of("sums", state, {}, history, None, 100.0, "").elapsed == elapsed


def test_a_run_stopped_before_its_first_step_has_no_checkpoint_to_go_on_from() -> None:
    stopped = replace(FACTS, state="stopped")
    assert "stopped after step 18 in 3m 12s; r resumes from the last checkpoint" in words(second_line(stopped, 120))
    assert "stopped before the first step; r restarts it" in words(second_line(replace(stopped, step=0), 120))
