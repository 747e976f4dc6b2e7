"""A row of choices that is too short for all of them."""

from __future__ import annotations

import pytest
from textual.app import App, ComposeResult
from textual.widgets import Static

from aapo_desk.tui.widgets.choice import ChoiceView

METHODS = ["aapo", "grpo", "dr_grpo", "dapo", "gpg", "rloo", "loop", "disco", "p3o", "apa"]


class Form(App[None]):
    CSS = "ChoiceView { width: 36; height: 1; }"

    def compose(self) -> ComposeResult:
        yield Static("method")
        yield ChoiceView(METHODS, "aapo")


def drawn(view: ChoiceView) -> str:
    return view.render().plain


@pytest.mark.parametrize("width", [12, 13, 20, 36, 50, 78, 79, 120])
@pytest.mark.parametrize("chosen", METHODS)
def test_the_chosen_one_is_in_sight_in_any_width_and_nothing_is_cut(chosen: str, width: int) -> None:
    view = ChoiceView(METHODS, chosen)
    shown = view.in_sight(width)
    assert METHODS.index(chosen) in shown
    cells = sum(len(METHODS[place]) + 4 for place in shown) - 2
    signs = 3 * (shown.start > 0) + 3 * (shown.stop < len(METHODS))
    assert cells + signs <= max(width, len(chosen) + 2 + 6)
    assert len(shown) == len(METHODS) or width < 79


async def test_keys_lead_to_every_choice_and_a_click_takes_what_is_under_it() -> None:
    async with Form().run_test(size=(60, 5)) as pilot:
        view = pilot.app.query_one(ChoiceView)
        view.focus()
        assert drawn(view) == "● aapo  ○ grpo  ○ dr_grpo  …"
        for method in METHODS[1:]:
            await pilot.press("right")
            assert view.chosen == method
            assert f"● {method}" in drawn(view)
        assert drawn(view) == "…  ○ loop  ○ disco  ○ p3o  ● apa"
        await pilot.click(ChoiceView, offset=(13, 0))
        assert view.chosen == "disco"
