"""What is kept of an evaluation: whole batches, whatever happened while they were written, and what they come to."""

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
        pytest.raises(EvaluationError, match=r"does not hold the 2 problems.*remove the folder"),
        opened(tmp_path, HEAD),
    ):
        pass


def test_two_processes_do_not_write_the_same_results(tmp_path: Path) -> None:
    with (
        opened(tmp_path, HEAD) as results,
        pytest.raises(EvaluationError, match="another process is at work"),
        opened(tmp_path, HEAD),
    ):
        results.add(FIRST, 1.0)
    with opened(tmp_path, HEAD):
        pass


def test_a_summary_counts_what_could_not_be_scored_and_pairs_the_rest() -> None:
    lines = [
        line("a", [0.0, 0.0], [1.0, 1.0]),
        line("b", [1.0, 0.0], [None, 0.0]),
        line("c", [None, None], [1.0, 1.0]),
        line("d", [1.0, 1.0], [1.0, 1.0]),
    ]
    found = summarise(lines)
    assert found["base"]["accuracy"] == pytest.approx(0.5)  # of a, b and d: 0, 0.5 and 1
    assert (found["base"]["unscorable"], found["base"]["answers"]) == (2, 8)
    assert found["tuned"]["accuracy"] == pytest.approx(0.75)
    difference = found["difference"]
    assert difference["mean"] == pytest.approx((1 - 0.5 + 0) / 3)
    assert (difference["problems"], difference["better"], difference["worse"]) == (3, 1, 1)
    assert difference["low"] < difference["mean"] < difference["high"]


def test_where_nothing_could_be_scored_there_is_no_accuracy() -> None:
    found = summarise([line("a", [None], [1.0])])
    assert (found["base"]["accuracy"], found["base"]["unscorable"], found["difference"]) == (None, 1, None)
    assert "tuned" not in summarise(FIRST)
