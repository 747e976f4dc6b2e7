"""Runs beside each other: their axes, their distances, their settings, their evaluations."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from aapo_desk.config import ConfigError
from aapo_desk.store import RunDirectory, RunWriter, StepRecord, create_run
from aapo_desk.studies import Comparer, Comparison, difference
from aapo_desk.studies.curve import MOST_POINTS, Curve, TrainingClock, exponential_mean
from aapo_desk.studies.held_out import final_evaluation
from tests import compared_runs, run_data, scored

pytestmark = pytest.mark.usefixtures("desk_home")
write = compared_runs.write_run


def compared(*runs: RunDirectory, metric: str = "reward", smoothing: float = 0.0) -> Comparison:
    return Comparer(runs).read(metric, smoothing)


def add_steps(run: RunDirectory, *rewards: float, first: int = 1) -> None:
    writer = RunWriter(run)
    for step, reward in enumerate(rewards, start=first):
        writer.write_step(
            StepRecord(step, compared_runs.BEGAN + step, {"reward": reward, "completion_tokens": 2}, {}, [])
        )
    writer.close()


def test_a_curve_is_read_over_steps_training_time_and_tokens() -> None:
    (entry,) = compared(write("one", steps=3, seconds=6.0)).entries
    points = entry.points
    assert list(points.steps) == [1, 2, 3]
    assert list(points.seconds) == [6.0, 12.0, 18.0]
    assert list(points.tokens) == [112, 224, 336]  # 3.5 tokens a completion, 4 prompts of 8
    assert (entry.totals.steps, entry.totals.seconds, entry.totals.tokens, entry.totals.completions) == (3, 18, 336, 96)


def test_time_in_which_nobody_trained_does_not_count() -> None:
    clock = TrainingClock()
    assert clock.read([110.0, 120.0], [(100.0, True)]) == [10.0, 20.0]
    # Stopped at 125, resumed at 1000, then two more steps.
    assert clock.read([1010.0, 1020.0], [(125.0, False), (1000.0, True)]) == [35.0, 45.0]


def test_the_exponential_mean_starts_without_a_pull_to_zero_and_passes_over_what_is_missing() -> None:
    smooth = exponential_mean([1.0, 1.0, math.nan, 3.0], 0.5)
    assert list(smooth) == pytest.approx([1.0, 1.0, 1.0, (0.5 * 0.75 + 0.5 * 3) / 0.875])
    assert list(exponential_mean([1.0, 2.0], 0.0)) == [1.0, 2.0]
    assert math.isnan(exponential_mean([math.nan], 0.5)[0])


def test_a_long_curve_is_thinned_to_means_and_keeps_its_ends() -> None:
    run = create_run(run_data.config(5000), "long")
    add_steps(run, 0.0)
    with closing(sqlite3.connect(run.database)) as connection, connection:  # one transaction: the writer's takes longer
        rows = [(step, float(step), f'{{"reward": {step % 2}}}') for step in range(2, 12_001)]
        connection.executemany("INSERT INTO metrics VALUES (?, ?, ?)", rows)
    points = compared(run).entries[0].points
    assert len(points.steps) == MOST_POINTS
    assert points.steps[-1] == 12_000
    assert points.values[3] == 0.5


def test_what_is_new_is_added_and_a_rewound_run_is_read_again() -> None:
    run = create_run(run_data.config(), "growing")
    add_steps(run, 0.1, 0.2)
    comparer = Comparer([run])
    assert list(comparer.read("reward", 0.0).entries[0].points.values) == [0.1, 0.2]
    add_steps(run, 0.3, first=3)
    assert list(comparer.read("reward", 0.0).entries[0].points.values) == [0.1, 0.2, 0.3]
    assert list(comparer.read("completion_tokens", 0.0).entries[0].points.values) == [2, 2, 2]
    writer = RunWriter(run)
    writer.rewind(1)
    writer.close()
    add_steps(run, 0.9, first=2)
    assert list(comparer.read("reward", 0.0).entries[0].points.values) == [0.1, 0.9]


def test_a_metric_that_only_some_steps_have_leaves_gaps() -> None:
    run = create_run(run_data.config(), "gaps")
    writer = RunWriter(run)
    for step, values in enumerate([{"reward": 1.0}, {"reward": 1.0, "reward/format": 0.5}, {"reward": 1.0}], start=1):
        writer.write_step(StepRecord(step, 0.0, values, {}, []))
    writer.close()
    comparison = compared(run, metric="reward/format")
    assert list(comparison.metrics) == ["reward", "reward/format"]
    assert [math.isfinite(value) for value in comparison.entries[0].points.values] == [False, True, False]


def test_the_pinned_run_is_the_baseline_else_the_first() -> None:
    first, second = write("first", steps=1), write("second", steps=1)
    assert compared(first, second).baseline.name == "first"
    pinned = write("pinned", steps=1, pinned=True)
    assert compared(first, second, pinned).baseline.name == "pinned"


def test_runs_of_different_length_are_compared_where_both_have_been() -> None:
    short, long = create_run(run_data.config(), "short"), create_run(run_data.config(), "long")
    add_steps(short, 0.1, 0.2)
    add_steps(long, 0.3, 0.5, 0.9)
    comparison = compared(short, long)
    standing = comparison.standing(comparison.entries[1], "step")
    assert (standing.value, standing.x, standing.at) == (0.9, 3, 2)
    assert standing.difference == pytest.approx(0.3)
    at_one = comparison.standing(comparison.entries[1], "step", 1)
    assert at_one.value == 0.3
    assert at_one.difference == pytest.approx(0.2)
    beyond = comparison.standing(comparison.entries[0], "step", 3)
    assert (beyond.value, beyond.difference) == (None, None)


def test_only_the_settings_that_differ_are_told_by_path() -> None:
    settings: dict[str, Any] = {"lora.r": 32, "rewards": [{"name": "math"}, {"name": "length", "weight": 0.2}]}
    one, other = write("one", steps=0), write("other", steps=0, overrides=settings)
    differing = compared(one, other).differing()
    assert differing["lora.r"] == [16, 32]
    assert [reward["name"] for reward in differing["rewards"][1]] == ["math", "length"]
    assert set(differing) == {"lora.r", "rewards"}
    assert compared(one, write("same", steps=0)).differing() == {}


def test_a_run_of_another_version_and_a_damaged_one_do_not_hide_the_others() -> None:
    good, old, broken = write("good", steps=2), write("old", steps=2), write("broken", steps=2)
    old.config.write_text('{"model": {"id": "owner/model", "gone": 1}}')
    broken.database.write_bytes(b"no database at all, but long enough to be looked at " * 40)
    first, second, third = compared(good, old, broken).entries
    assert first.problem == ""
    assert (second.problem, second.config, second.totals.tokens) == (
        "",
        {"model.id": "owner/model", "model.gone": 1},
        None,
    )
    assert "is damaged" in third.problem
    assert third.totals.steps == 0


def test_more_than_six_runs_none_and_one_twice_are_refused() -> None:
    runs = [write(str(number), steps=0, right=None) for number in range(7)]
    for wrong, said in [
        (runs, "RUN = 7: 1 to 6 runs"),
        ([], "RUN = 0: 1 to 6 runs"),
        ([runs[0]] * 2, "RUN = '0': this run"),
    ]:
        with pytest.raises(ConfigError, match=said):
            Comparer(wrong)


def test_evaluations_over_the_same_problems_are_compared_problem_by_problem() -> None:
    before, after = (entry.final for entry in compared(write("a", right=(27, 60)), write("b", right=(27, 75))).entries)
    assert before is not None
    assert after is not None
    found = difference(before, after, "greedy")
    assert found is not None
    assert (found.paired, found.problems) == (True, 100)
    assert found.estimate.mean == pytest.approx(0.15)
    assert found.estimate.low > 0.07


@pytest.mark.parametrize(
    "overrides",
    [
        {"task.options": {"low": 1, "high": 50}},
        {"rewards": [{"name": "math", "options": {"worked_out": True}}]},
        {"rewards": [{"name": "format", "options": {"pattern": "a"}}]},
    ],
)
def test_other_problems_or_another_judge_make_it_unpaired_and_its_interval_wider(overrides: dict[str, Any]) -> None:
    runs = write("a", right=(27, 60)), write("b", right=(27, 75), overrides=overrides)
    before, after = (entry.final for entry in compared(*runs).entries)
    assert before is not None
    assert after is not None
    found = difference(before, after, "greedy")
    assert found is not None
    assert not found.paired
    assert found.estimate.mean == pytest.approx(0.15)
    assert found.estimate.low < 0.03


def test_an_evaluation_before_the_first_step_says_nothing_of_a_tuned_model() -> None:
    final = final_evaluation({0: compared_runs.evaluation(27)}, {})
    assert final is not None
    assert (final.step, final.greedy.tuned, final.greedy.gain) == (0, None, None)
    assert final.greedy.base is not None
    assert difference(final, final, "greedy") is None
    assert final_evaluation({}, {}) is None


def test_a_run_without_a_database_is_empty() -> None:
    run = create_run(run_data.config(), "no database")
    entry = compared(run).entries[0]
    assert (entry.problem, entry.totals.steps, entry.final, list(entry.points.steps)) == ("", 0, None, [])
    curve = Curve(run)
    curve.read("reward")
    assert curve.keys == {}


def ended(name: str, base: dict[str, Any], tuned: dict[str, Any]) -> RunDirectory:
    """A run that was evaluated before and after its one step."""
    run = create_run(run_data.config(), name)
    add_steps(run, 0.5)
    writer = RunWriter(run)
    writer.write_evaluation(0, "held_out", base)
    writer.write_evaluation(1, "held_out", tuned)
    writer.close()
    return run


def test_a_run_whose_answers_are_unscorable_loses_to_one_that_answers() -> None:
    base = scored.row([0.0, 0.0, 0.0, 1.0])
    answering = ended("answering", base, scored.row([1.0, 1.0, 0.0, 1.0], base))
    hanging = ended("hanging", base, scored.row([1.0, None, None, None], base))
    first, second = (entry.final for entry in compared(answering, hanging).entries)
    assert first is not None
    assert second is not None
    found = difference(first, second, "greedy")
    assert found is not None
    assert (found.estimate.mean, found.problems) == (-0.5, 4)
    assert second.greedy.notes[0] == "tuned: 3 of 4 unscorable, counted as wrong"


def test_a_run_of_an_older_version_is_compared_on_the_rule_of_this_one() -> None:
    old_base = scored.old_row([1.0, None, 0.0, 0.0])
    older = ended("older", old_base, scored.old_row([1.0, None, None, None], old_base))
    base = scored.row([1.0, 0.0, 0.0, 0.0])
    newer = ended("newer", base, scored.row([1.0, 1.0, 0.0, 0.0], base))
    before, after = (entry.final for entry in compared(older, newer).entries)
    assert before is not None
    assert after is not None
    outcome = before.greedy
    assert outcome.base is not None
    assert outcome.tuned is not None
    assert outcome.gain is not None
    assert (outcome.base.mean, outcome.tuned.mean, outcome.gain.mean) == (0.25, 0.25, 0.0)
    assert "recounted" in outcome.notes[0]
    found = difference(before, after, "greedy")
    assert found is not None
    assert (found.estimate.mean, found.problems) == (0.25, 4)


def test_an_older_evaluation_without_its_scores_is_labelled_and_not_compared() -> None:
    base = scored.row([1.0, 0.0, 0.0, 0.0])
    bare = scored.old_row([1.0, None, None, None], base)
    bare |= {side: bare[side] | {"scores": []} for side in ("greedy", "sampled")}
    before = final_evaluation({0: base, 1: bare}, {})
    after = final_evaluation({0: base, 1: scored.row([1.0, 1.0, 0.0, 0.0], base)}, {})
    assert before is not None
    assert after is not None
    assert before.greedy.notes[0] == "tuned: 1 of 4 scored; unscorable answers left out"
    assert difference(before, after, "greedy") is None
