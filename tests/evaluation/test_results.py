"""The stored results of an evaluation: whole batches, whatever happened while they were written, and their sums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aapo_desk.evaluation.results import ROWS, EvaluationError, finished, opened, read_lines, summarise


def answer(score: float | None, tokens: int = 4) -> dict[str, Any]:
    return {"completion": "so\u2028it is", "score": score, "readable": 1.0, "tokens": tokens, "truncated": tokens > 9}


def line(name: str, base: list[float | None], tuned: list[float | None] | None = None) -> dict[str, Any]:
    sides = {"base": list(map(answer, base))}
    if tuned is not None:
        sides["tuned"] = list(map(answer, tuned))
    return {"id": name, **sides}


HEAD = {"key": "k", "task": "sums", "problems": 4}
FIRST, SECOND = [line("a", [1.0]), line("b", [0.0])], [line("c", [1.0]), line("d", [1.0])]


@pytest.mark.parametrize(
    "left",
    ['{"id": "c", "ba', '{"id": "c", "base": []}\n', '{"id": "c", "base": []}\n{"id": "d"', "\x00" * 100],
    ids=["a torn line", "half a batch", "half a batch and a torn line", "zeros, as after a power cut"],
)
def test_what_a_killed_process_left_of_a_batch_is_written_again(tmp_path: Path, left: str) -> None:
    kept = tmp_path / "evaluations" / "sums"
    with opened(kept, HEAD) as results:
        results.add(FIRST, 1.0)
    with (kept / ROWS).open("a") as file:
        file.write(left)
    with opened(kept, HEAD) as results:
        assert results.lines == FIRST
        results.add(SECOND, 2.0)
        results.finish()
    assert read_lines(kept) == FIRST + SECOND
    assert (kept / ROWS).read_text().count("\n") == 4
    ((folder, head),) = finished(kept.parent)
    assert folder == kept
    assert (head["done"], head["seconds"], head["summary"]["base"]["accuracy"]) == (4, 3.0, 0.75)


def test_results_of_another_evaluation_are_begun_anew(tmp_path: Path) -> None:
    with opened(tmp_path, HEAD) as results:
        results.add(FIRST, 1.0)
    with opened(tmp_path, HEAD | {"key": "other"}) as results:
        assert results.lines == []
    assert read_lines(tmp_path) == []


def test_lines_that_are_missing_are_told(tmp_path: Path) -> None:
    with opened(tmp_path, HEAD) as results:
        results.add(FIRST, 1.0)
    (tmp_path / ROWS).write_text("")
    with (
        pytest.raises(EvaluationError, match=r"does not have the 2 problems.*remove the folder"),
        opened(tmp_path, HEAD),
    ):
        pass


def test_two_processes_do_not_write_the_same_results(tmp_path: Path) -> None:
    with (
        opened(tmp_path, HEAD) as results,
        pytest.raises(EvaluationError, match="another process is using"),
        opened(tmp_path, HEAD),
    ):
        results.add(FIRST, 1.0)
    with opened(tmp_path, HEAD):
        pass


def test_a_summary_counts_unscorable_answers_as_wrong_on_both_sides() -> None:
    lines = [
        line("a", [0.0, 0.0], [1.0, 1.0]),
        line("b", [1.0, 0.0], [None, 0.0]),
        line("c", [None, None], [1.0, 1.0]),
        line("d", [1.0, 1.0], [1.0, 1.0]),
    ]
    found = summarise(lines)
    assert found["base"]["accuracy"] == pytest.approx((0 + 0.5 + 0 + 1) / 4)
    assert (found["base"]["unscorable"], found["base"]["answers"]) == (2, 8)
    assert found["tuned"]["accuracy"] == pytest.approx((1 + 0 + 1 + 1) / 4)
    assert [found[side]["unscorable_as"] for side in ("base", "tuned")] == ["wrong", "wrong"]
    difference = found["difference"]
    assert difference["mean"] == pytest.approx((1 - 0.5 + 1 + 0) / 4)
    assert (difference["problems"], difference["better"], difference["worse"]) == (4, 2, 1)
    assert difference["low"] < difference["mean"] < difference["high"]


def test_where_nothing_could_be_scored_the_accuracy_is_zero_with_its_interval() -> None:
    found = summarise([line("a", [None], [1.0]), line("b", [None], [None])])
    assert (found["base"]["accuracy"], found["base"]["low"], found["base"]["unscorable"]) == (0.0, 0.0, 2)
    assert 0 < found["base"]["high"] < 1
    assert found["difference"]["mean"] == 0.5
    assert "tuned" not in summarise(FIRST)


def left_out(accuracy: float, unscorable: int, answers: int) -> dict[str, Any]:
    """A side of a summary as older versions wrote it: the accuracy is over the scorable answers."""
    return {"accuracy": accuracy, "low": 0.0, "high": 1.0, "answers": answers, "unscorable": unscorable}


def test_a_finished_evaluation_of_an_older_version_is_counted_again_from_its_lines(tmp_path: Path) -> None:
    kept = tmp_path / "sums"
    lines = [line("a", [1.0], [1.0]), line("b", [0.0], [None]), line("c", [1.0], [None])]
    with opened(kept, HEAD) as results:
        results.add(lines, 1.0)
        results.change(finished=1.0, summary={"base": left_out(2 / 3, 0, 3), "tuned": left_out(1.0, 2, 3)})
    with opened(kept, HEAD) as results:
        assert results.count_again()
        assert not results.count_again(), "it is counted as this version counts"
    ((_, head),) = finished(tmp_path)
    assert head["summary"] == summarise(lines)
    assert head["summary"]["tuned"]["accuracy"] == pytest.approx(1 / 3)
    assert [answer["score"] for one in read_lines(kept) for answer in one["tuned"]] == [1.0, None, None]
