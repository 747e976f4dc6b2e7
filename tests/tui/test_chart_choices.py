from __future__ import annotations

import json
from pathlib import Path

import pytest

from aapo_desk.tui.charts import BY_NAME
from aapo_desk.tui.choices import ChartChoices, choices_file, load_choices, save_choices


def test_who_never_chose_sees_all_charts_in_their_order() -> None:
    assert load_choices().visible == list(BY_NAME)


def test_what_was_chosen_is_there_the_next_time() -> None:
    choices = ChartChoices().hide("entropy").toggle_log("grad_norm").toggle_smooth("reward").move("reward", 1)
    save_choices(choices)
    assert load_choices() == choices
    assert choices_file().stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"order": 3, "hidden": {"a": 1}}', '{"log": [1, null, "no such"]}', "\x00"]
)
def test_a_broken_file_is_as_good_as_none(text: str) -> None:
    choices_file().parent.mkdir(parents=True)
    choices_file().write_text(text)
    assert load_choices() == ChartChoices()


def test_a_chart_that_the_file_does_not_know_comes_last_and_all_hidden_is_none_hidden() -> None:
    choices_file().parent.mkdir(parents=True)
    choices_file().write_text(json.dumps({"order": ["loss", "loss", "gone", "reward"], "hidden": list(BY_NAME)}))
    choices = load_choices()
    assert choices.order[:2] == ("loss", "reward")
    assert sorted(choices.order) == sorted(BY_NAME)
    assert choices.visible == list(choices.order)


def test_a_chart_moves_past_its_visible_neighbour_and_stays_at_the_ends() -> None:
    first, second, third, *_ = BY_NAME
    choices = ChartChoices().hide(second)
    assert choices.move(first, -1) == choices
    moved = choices.move(first, 1)
    assert moved.visible[:2] == [third, first]
    assert moved.move(first, -1).visible == choices.visible
    assert moved.show_all().order[:3] == (second, third, first)


def test_choices_that_cannot_be_written_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AAPO_DESK_CONFIG", str(tmp_path / "file"))
    with pytest.raises(OSError):
        save_choices(ChartChoices())
