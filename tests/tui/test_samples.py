from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from aapo_desk.store import RunDirectory, RunReader, RunWriter, Sample
from aapo_desk.tui.app import DeskApp
from aapo_desk.tui.screens.monitor import MonitorScreen
from aapo_desk.tui.screens.samples import SamplesScreen
from aapo_desk.tui.widgets.sample_detail import SampleDetail
from aapo_desk.tui.widgets.sample_table import SampleTable
from tests.tui import fixed_run
from tests.tui.driving import NARROW, WIDE, Desk, press, settle, shown, until

Compare = Callable[..., bool]


@pytest.fixture
def thinking(run: RunDirectory) -> RunDirectory:
    """The run with a step 31: two reward functions, answers of some length, one cut off, one unscorable."""
    record = fixed_run.step_record(31)
    say = "We add the tens first: 10 and 20 are 30. Then 4 and 7 are 11, so the sum is"
    answers = ["41.", "51.", "41. Check: 41 - 17 = 24, which", "forty-one.", "31.", "41.", "41!", "42."]
    samples: list[Sample] = []
    for place, (sample, answer) in enumerate(zip(record.samples[::2], answers, strict=True)):
        right = answer.startswith("41")
        scores: dict[str, float | None] = {"math": float(right), "readable": 0.5 + place / 16}
        reward = None if answer == "forty-one." else (float(right) + 0.5 + place / 16) / 2
        common = replace(sample, prompt="What is 14 + 27?\nAnswer with a short reason.", answer="41", rewards=scores)
        samples.append(
            replace(common, completion=f"{say} {answer}", reward=reward, tokens=30 + place, truncated=place == 2)
        )
        other = f"{say.replace('tens', 'ones').replace(' so', ' and')} {answer if place % 2 else '41.'}"
        samples.append(replace(common, completion=other, reward=0.75, tokens=31, is_reference=True))
    writer = RunWriter(run)
    writer.write_step(replace(record, samples=samples))
    writer.close()
    return run


def samples_screen(app: DeskApp) -> SamplesScreen:
    assert isinstance(app.screen, SamplesScreen)
    return app.screen


def row(app: DeskApp) -> int:
    """The row under the cursor."""
    pair = app.screen.query_one(SampleTable).chosen
    assert pair is not None
    return pair.some.row


def rows(app: DeskApp) -> list[int]:
    return [pair.some.row for pair in app.screen.query_one(SampleTable).shown]


def reward(app: DeskApp) -> float | None:
    pair = app.screen.query_one(SampleTable).chosen
    assert pair is not None
    assert pair.policy is not None
    return pair.policy.reward


def rewards(app: DeskApp) -> list[float]:
    """Those of the policy, from above."""
    sides = [pair.policy for pair in app.screen.query_one(SampleTable).shown]
    return [side.reward for side in sides if side is not None and side.reward is not None]


def told(app: DeskApp) -> list[str]:
    """Return the texts of the notifications."""
    return [note.message for note in app._notifications]


def open_samples(*keys: str) -> Callable[[Pilot[Any]], Any]:
    async def run_before(pilot: Pilot[Any]) -> None:
        await settle(pilot)
        await press(pilot, "v")
        for key in keys:
            await press(pilot, key)

    return run_before


async def test_two_keys_lead_from_the_monitor_to_the_best_completion_of_the_last_step(
    desk: Desk, thinking: RunDirectory
) -> None:
    app = desk(thinking)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "v", "B")
        assert samples_screen(app).step == 31
        best = max(RunReader(thinking).samples(31)[::2], key=lambda sample: sample.reward or 0)
        assert reward(app) == best.reward
        assert best.completion.split()[-1] in shown(app)
        await press(pilot, "W")
        assert reward(app) == min(rewards(app))
        await press(pilot, "escape")
        assert isinstance(app.screen, MonitorScreen)


async def test_it_opens_at_the_step_that_the_monitor_shows(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "left", "left", "v")
        assert (samples_screen(app).step, samples_screen(app).following) == (28, False)


async def test_arrows_and_brackets_go_from_step_to_step_and_end_follows(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "v", "left", "left_square_bracket", "h")
        assert (samples_screen(app).step, samples_screen(app).following) == (27, False)
        await press(pilot, "H", "right", "right_square_bracket")
        assert samples_screen(app).step == 19
        await press(pilot, "home")
        assert samples_screen(app).step == 1
        await press(pilot, "end")
        assert (samples_screen(app).step, samples_screen(app).following) == (30, True)


async def test_a_new_step_is_shown_to_a_follower_only_and_a_rewound_one_goes(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "v")
        writer = RunWriter(run)
        writer.write_step(fixed_run.step_record(31))
        await until(pilot, lambda: samples_screen(app).step == 31)
        await press(pilot, "left", "left")
        writer.write_step(fixed_run.step_record(32))
        await until(pilot, lambda: "of 32" in shown(app))
        assert samples_screen(app).step == 29
        writer.rewind(20)
        writer.close()
        await until(pilot, lambda: samples_screen(app).step == 20)


async def test_any_column_sorts_by_key_and_by_click_on_its_head(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "v", "r")
        assert rows(app) == sorted(rows(app), reverse=True)
        await press(pilot, "s", "s")
        assert "by reward ▾" in shown(app)
        assert rewards(app) == sorted(rewards(app), reverse=True)
        head = shown(app).split("\n")[2].index("row")
        await pilot.click(SampleTable, offset=(head + 1, 0))
        await settle(pilot)
        assert rows(app) == sorted(rows(app))
        await pilot.click(SampleTable, offset=(head + 1, 0))
        await settle(pilot)
        assert rows(app) == sorted(rows(app), reverse=True)


async def test_a_click_on_a_row_shows_its_texts(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "v")
        await pilot.click(SampleTable, offset=(10, 4))
        await settle(pilot)
        assert row(app) == 12
        assert "row 12" in shown(app)


async def test_filters_by_key_leave_the_rows_they_name_and_say_so(desk: Desk, thinking: RunDirectory) -> None:
    app = desk(thinking)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "v", "f")
        assert rows(app) == [8]
        assert "1 of 8 rows" in shown(app)
        assert "cut off" in shown(app).split("\n")[1]
        await press(pilot, "f")
        assert rows(app) == [12]
        assert "unscorable" in shown(app)


async def test_a_typed_filter_is_refused_beside_its_field_and_applied_when_right(
    desk: Desk, thinking: RunDirectory
) -> None:
    app = desk(thinking)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "v", "F", "x", "greater_than_sign", "1", "enter")
        assert "unknown column x;" in shown(app)
        assert isinstance(app.focused, Input)
        app.focused.value = "tokens<33 math=1"
        await press(pilot, "enter")
        assert rows(app) == [0, 8]
        await press(pilot, "F", "x", "escape")
        assert rows(app) == [0, 8]
        await press(pilot, "F", "x", "enter")
        assert "No row matches the filter" in shown(app)


async def test_search_finds_over_all_steps_and_goes_on_and_back(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    wanted = RunReader(run).samples(17)[0].prompt
    places = [
        (step, sample.row)
        for step in range(1, 31)
        for sample in RunReader(run).samples(step)
        if not sample.is_reference and wanted.lower() in sample.prompt.lower()
    ]
    assert len(places) > 1
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "v", "slash")
        app.screen.query_one(Input).value = wanted.upper()
        await press(pilot, "enter")

        def at() -> tuple[int, int]:
            return samples_screen(app).step, row(app)

        first = next((place for place in places if place >= (30, 0)), places[0])
        start = places.index(first)
        await until(pilot, lambda: at() == first)
        for by in (1, 2, 1):
            await press(pilot, "n" if by == 2 or at() == first else "N")
            await until(pilot, lambda by=by: at() == places[(start + by) % len(places)])  # type: ignore[misc]
        assert not samples_screen(app).following


async def test_what_is_not_found_is_said(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "v", "slash", *"[b]z", "enter")
        await until(pilot, lambda: told(app) == ["Not found: [b]z"])
        assert samples_screen(app).step == 30


async def test_a_filter_that_hides_what_was_found_is_taken_off(desk: Desk, thinking: RunDirectory) -> None:
    app = desk(thinking)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "v", "f", "slash", *"ty-", "enter")
        await until(pilot, lambda: row(app) == 12)
        assert len(rows(app)) == 8


async def test_what_differs_is_underlined_in_both_texts(desk: Desk, thinking: RunDirectory) -> None:
    app = desk(thinking)
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        await press(pilot, "v", "enter")
        lines = app.screen._compositor.render_strips()
        underlined = [s.text.strip() for line in lines for s in line if s.style and s.style.underline and s.style.bold]
        assert sorted(underlined) == ["and", "ones", "so", "tens"]


async def test_enter_shows_the_texts_alone_with_the_whole_prompt_and_rows_still_go_by(
    desk: Desk, thinking: RunDirectory
) -> None:
    app = desk(thinking)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "v")
        assert "What is 14 + 27?⏎Answer" in shown(app)
        await press(pilot, "enter")
        assert not app.screen.query_one(SampleTable).display
        assert "What is 14 + 27?⏎Answer" not in shown(app)
        assert "Answer with a short reason." in shown(app)
        await press(pilot, "j", "down")
        assert "row 8" in shown(app)
        await press(pilot, "enter", "k")
        assert "row 4" in shown(app)


async def test_long_texts_scroll_while_the_cursor_stays(desk: Desk, run: RunDirectory) -> None:
    record = fixed_run.step_record(31)
    long = [replace(sample, completion="\n".join(map(str, range(200)))) for sample in record.samples]
    writer = RunWriter(run)
    writer.write_step(replace(record, samples=long))
    writer.close()
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "v", "space", "J", "J", "K")
        detail = app.screen.query_one(SampleDetail)
        assert detail.scroll_offset.y == detail.size.height
        assert row(app) == 0
        await press(pilot, "pageup", "pageup")
        assert detail.scroll_offset.y == 0


async def test_completion_reference_and_prompt_are_copied_as_they_were_written(desk: Desk, run: RunDirectory) -> None:
    record = fixed_run.step_record(31)
    raw = "\x1b[31mred\u202e [b]"
    writer = RunWriter(run)
    writer.write_step(replace(record, samples=[replace(record.samples[0], completion=raw, prompt="one\ntwo")]))
    writer.close()
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "v", "y")
        assert app.clipboard == raw
        await press(pilot, "p")
        assert app.clipboard == "one\ntwo"
        await press(pilot, "Y")
        assert app.clipboard == "one\ntwo"
        assert told(app)[-1] == "This row has no such completion."


async def test_a_run_without_completions_says_so(desk: Desk) -> None:
    run = fixed_run.new_run("empty")
    fixed_run.put_status(run, "starting", 0, fixed_run.STARTED)
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "v", "right", "B", "n", "escape")
        assert "No completions yet" in shown(app)


async def test_leaving_the_desk_from_here_tells_how_to_come_back(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "v")
        assert "aapo-desk watch sums-first-try" in samples_screen(app).farewell()


@pytest.mark.parametrize("size", [NARROW, WIDE])
def test_samples(snap_compare: Compare, desk: Desk, thinking: RunDirectory, size: tuple[int, int]) -> None:
    assert snap_compare(desk(thinking), terminal_size=size, run_before=open_samples("B"))


def test_samples_whole(snap_compare: Compare, desk: Desk, thinking: RunDirectory) -> None:
    assert snap_compare(desk(thinking), terminal_size=(80, 24), run_before=open_samples("j", "enter"))


def test_samples_searched(snap_compare: Compare, desk: Desk, thinking: RunDirectory) -> None:
    keys = ["s", "s", "slash", *"sum", "enter", "F", *"adv>0"]
    assert snap_compare(desk(thinking), terminal_size=(140, 40), run_before=open_samples(*keys))


def test_samples_without_colour(
    snap_compare: Compare, desk: Desk, thinking: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert snap_compare(desk(thinking), terminal_size=(80, 24), run_before=open_samples("B"))
