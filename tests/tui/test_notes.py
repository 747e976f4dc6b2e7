from __future__ import annotations

from aapo_desk.tui.widgets.notes import evaluations_text
from tests.tui.fixed_run import evaluation


def test_the_warm_start_has_its_row_between_the_base_and_the_first_step() -> None:
    found = {0: evaluation(0), 10: evaluation(10)}
    lines = evaluations_text(found, evaluation(30)).plain.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["step", "base", "warm", "10"]
    figures = evaluations_text({0: evaluation(30)}).plain.splitlines()[1].removeprefix("base")
    assert lines[2].removeprefix("warm") == figures
    assert "warm" not in evaluations_text(found).plain
