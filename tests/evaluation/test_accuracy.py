"""Accuracy over all answers: a policy gains nothing by breaking the verifier, and old evaluations are told apart."""

from __future__ import annotations

import json

import pytest

from aapo_desk.cli.app import run as command
from aapo_desk.cli.lines import base_against_tuned, evaluation_line
from aapo_desk.evaluation import proportion
from aapo_desk.evaluation.accuracy import measure, on_one_rule, recounted
from aapo_desk.store import RunWriter, create_run
from aapo_desk.store.unscorable import evaluation_notes
from tests.run_data import config
from tests.scored import Scores, old_row, row

Output = pytest.CaptureFixture[str]

HALF_HANG: Scores = [1.0, 1.0, None, None]
BASE: Scores = [1.0, 0.0, 1.0, 0.0]


def test_a_policy_that_hangs_the_verifier_on_half_its_answers_has_them_wrong() -> None:
    data = row(HALF_HANG)
    for side in ("greedy", "sampled"):
        expected = proportion([1.0, 1.0, 0.0, 0.0])
        assert (data[side]["accuracy"], data[side]["low"], data[side]["high"]) == (0.5, expected.low, expected.high)
        assert (data[side]["unscorable"], data[side]["unscorable_as"]) == (2, "wrong")
        assert data[side]["scores"] == HALF_HANG, "the raw scores keep what could not be scored"


def test_the_paired_difference_counts_unscorable_answers_as_wrong() -> None:
    base = row(BASE)
    assert row(HALF_HANG, base)["difference"]["mean"] == pytest.approx((0 + 1 - 1 + 0) / 4)
    assert row([None] * 4, base)["difference_sampled"]["mean"] == pytest.approx(-0.5)


def test_where_all_answers_are_unscorable_the_accuracy_is_zero_and_the_line_says_why() -> None:
    data = row([None] * 4)
    assert (data["greedy"]["accuracy"], data["greedy"]["low"]) == (0.0, 0.0)
    line = evaluation_line(3, data)
    assert "greedy 0.00 [0.00, 0.49]" in line
    assert "greedy: 4 of 4 unscorable, counted as wrong" in line
    assert "MORE THAN A TENTH COULD NOT BE SCORED" in line


def test_the_line_is_loud_only_where_more_than_a_tenth_is_unscorable() -> None:
    tenth = evaluation_line(3, row([None] * 1 + [1.0] * 9))
    assert "greedy: 1 of 10 unscorable, counted as wrong" in tenth
    assert "MORE THAN A TENTH" not in tenth
    assert "unscorable" not in evaluation_line(3, row(BASE))


def test_the_row_of_an_older_version_says_that_it_left_unscorable_answers_out() -> None:
    assert evaluation_notes(old_row(HALF_HANG))[0] == "greedy: 2 of 4 scored; unscorable answers left out"
    assert evaluation_notes(old_row(BASE)) == []


def test_the_difference_to_an_older_versions_base_is_on_one_rule() -> None:
    base = old_row([1.0, None, None, None])  # 1.0 when measured; 0.25 over all answers
    assert row([1.0, 1.0, 0.0, 0.0], base)["difference"]["mean"] == pytest.approx(0.25)


def test_rows_of_older_versions_are_counted_again_with_their_differences() -> None:
    base = old_row([1.0, None, 0.0, 0.0])
    rows = recounted({0: base, 5: old_row(HALF_HANG, base), 10: row(BASE, base)})
    assert [rows[step]["greedy"]["accuracy"] for step in (0, 5, 10)] == [0.25, 0.5, 0.5]
    assert [rows[step]["difference"]["mean"] for step in (5, 10)] == [0.25, 0.25]
    assert evaluation_notes(rows[5])[0] == (
        "greedy: 2 of 4 unscorable, counted as wrong (recounted: they were left out when this was measured)"
    )
    assert base["greedy"]["accuracy"] == pytest.approx(1 / 3), "the stored row stays as it is"


def test_what_cannot_be_counted_again_stays_as_it_was_measured() -> None:
    measured = old_row(HALF_HANG, old_row(BASE))
    for side in ("greedy", "sampled"):
        measured[side] = measured[side] | {"scores": []}
    assert recounted({5: measured}) == {5: measured}
    assert on_one_rule({0: old_row(BASE), 5: old_row(HALF_HANG)})[5]["greedy"]["accuracy"] == 1.0, (
        "all on the older rule"
    )


def test_a_run_with_rows_of_both_kinds_is_summed_up_on_one_rule() -> None:
    base = old_row([1.0, None, None, None])
    lines = base_against_tuned({0: base, 5: row([1.0, 1.0, 0.0, 0.0], base)})
    assert any(line.split()[:2] == ["base", "0.25"] for line in lines)
    assert any("base, greedy: 3 of 4 unscorable, counted as wrong (recounted" in line for line in lines)
    untouched = base_against_tuned({0: base, 5: old_row(HALF_HANG, base)})
    assert any(line.split()[:2] == ["base", "1.00"] for line in untouched)
    assert any("tuned, greedy: 2 of 4 scored; unscorable answers left out" in line for line in untouched)


@pytest.mark.usefixtures("desk_home")
def test_an_older_run_is_shown_with_what_it_was_measured_with(capsys: Output) -> None:
    writer = RunWriter(create_run(config(), "older"))
    base = old_row(BASE)
    writer.write_evaluation(0, "held_out", base)
    writer.write_evaluation(5, "held_out", old_row(HALF_HANG, base))
    writer.close()
    assert command(["runs", "show", "older"]) == 0
    said = capsys.readouterr().out
    assert "tuned, greedy: 2 of 4 scored; unscorable answers left out" in said
    assert command(["runs", "show", "older", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["evaluations"]["5"]
    assert (shown["greedy"]["unscorable"], shown["greedy"]["unscorable_as"]) == (2, "left out")


def test_no_scores_have_no_accuracy() -> None:
    with pytest.raises(ValueError, match="no scores"):
        measure([])
