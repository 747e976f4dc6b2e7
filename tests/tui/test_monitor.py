from __future__ import annotations

import re
from dataclasses import replace

import pytest
from rich.cells import cell_len
from textual.widgets import Static

from aapo_desk.store import RunDirectory, RunReader, RunWriter
from aapo_desk.tui.screens.home import HomeScreen
from aapo_desk.tui.screens.monitor import HISTOGRAMS, MonitorScreen
from aapo_desk.tui.widgets.histogram import HistogramView
from aapo_desk.tui.widgets.notes import NotesView
from aapo_desk.tui.widgets.scrubber import Scrubber
from tests.tui import fixed_run
from tests.tui.driving import (
    NARROW,
    WIDE,
    Desk,
    Live,
    commands,
    monitor,
    press,
    read_again,
    resize,
    settle,
    shown,
    until,
)


async def test_scrubbing_loads_that_steps_histograms_and_samples(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        assert monitor(app).step == 30
        await press(pilot, "left", "h", "left")
        assert monitor(app).step == 27
        histograms = RunReader(run).histograms(27)
        for name in HISTOGRAMS:
            assert app.screen.query_one(f"#histogram-{name}", HistogramView).shown == histograms[name]
        assert RunReader(run).samples(27)[0].prompt in shown(app)
        await press(pilot, "right", "l")
        assert monitor(app).step == 29


async def test_home_goes_to_the_first_step_and_end_follows_again(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "home", "left")
        assert (monitor(app).step, monitor(app).following) == (1, False)
        await press(pilot, "shift+right")
        assert monitor(app).step == 11
        await press(pilot, "end")
        assert (monitor(app).step, monitor(app).following) == (30, True)


async def test_a_new_step_moves_a_follower_and_leaves_a_scrubber_where_he_is(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        writer = RunWriter(run)
        writer.write_step(fixed_run.step_record(31))
        await read_again(pilot, app)
        assert monitor(app).step == 31
        assert "step 31/40" in shown(app)
        await press(pilot, "left", "left")
        writer.write_step(fixed_run.step_record(32))
        writer.close()
        await read_again(pilot, app)
        assert monitor(app).step == 29
        assert "step 29 of 32" in shown(app)


async def test_new_steps_come_by_themselves(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        writer = RunWriter(run)
        writer.write_step(fixed_run.step_record(31))
        writer.close()
        await until(pilot, lambda: monitor(app).step == 31)


async def test_a_rewound_history_is_read_anew(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        writer = RunWriter(run)
        writer.rewind(20)
        writer.close()
        await read_again(pilot, app)
        assert monitor(app).history.last_step == 20
        assert (monitor(app).step, monitor(app).following) == (20, True)


async def test_the_track_can_be_clicked_and_dragged(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        scrubber = app.screen.query_one(Scrubber)
        start = len(scrubber._label) + 1
        await pilot.mouse_down(Scrubber, offset=(start, 0))
        await settle(pilot)
        assert monitor(app).step == 1
        await pilot.hover(Scrubber, offset=(start + scrubber._width // 2, 0))
        await pilot.mouse_up(Scrubber, offset=(start + scrubber._width // 2, 0))
        await settle(pilot)
        assert 13 <= monitor(app).step <= 18
        await pilot.click(Scrubber, offset=(78, 0))
        await settle(pilot)
        assert monitor(app).following


async def test_a_click_in_the_chart_goes_to_that_step(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.click("#charts", offset=(6, 3))
        await settle(pilot)
        assert monitor(app).step == 1


async def test_a_crashed_run_shows_why_and_its_log_and_offers_resume(desk: Desk) -> None:
    run = fixed_run.write_run(done=7)
    with run.log.open("a", encoding="utf-8") as log:
        log.write("Traceback (most recent call last):\n  File\nRuntimeError: no more memory\n")
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        text = shown(app)
        assert "✗ crashed" in text
        assert text.count("RuntimeError: no more memory") == 2  # in the head and in the log
        assert "r Resume" in text


async def test_back_leads_home_and_the_run_stays(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "escape")
        assert isinstance(app.screen, HomeScreen)
        assert "sums-first-try" in shown(app)
        await press(pilot, "enter")
        assert isinstance(app.screen, MonitorScreen)
        await press(pilot, "b")
        assert isinstance(app.screen, HomeScreen)
        assert commands(run) == []


HOSTILE = {  # a completion, and a part of it as it is shown
    "[bold red]boo[/] [@click=app.quit]x[/]": "[bold red]boo[/] [@click=app.quit]x[/]",
    "\x1b[2J\x1b[31mred\x07": "␛[2J␛[31mred␇",
    "abc \u202edcba": "abc ⟨U+202E⟩dcba",
    "[/][/unbalanced": "[/][/unbalanced",
    "漢字 👨\u200d👩 e" + "\u0301" * 20: "漢字 👨⟨U+200D⟩👩",
    "x" * 100_000: "xxxxxxxxxxxxxxxx",
}


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_hostile_text_is_shown_as_text(desk: Desk, live: Live, size: tuple[int, int]) -> None:
    run = fixed_run.write_run(done=1)
    live(run)
    record = fixed_run.step_record(2)
    samples = [
        replace(record.samples[0], row=row, completion=text, prompt=text, answer=text, is_reference=reference)
        for row, text in enumerate(HOSTILE)
        for reference in (False, True)
    ]
    writer = RunWriter(run)
    writer.write_step(replace(record, samples=samples))
    for text in HOSTILE:
        writer.write_event("notice", 2, message=text)
    writer.close()
    run.log.write_text("\n".join(HOSTILE), encoding="utf-8")
    app = desk(run)
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        for expected in HOSTILE.values():
            lines = shown(app).split("\n")
            assert len(lines) == size[1]
            assert all(cell_len(line) == size[0] for line in lines)
            assert not set("\x1b\x07\u202e\u200d") & set("".join(lines))
            assert expected in "".join(lines)
            assert "p Pause" in lines[-1]
            await press(pilot, "n")
        for _ in range(4):
            await press(pilot, "o")
            assert not set("\x1b\x07\u202e\u200d") & set(shown(app))


async def test_a_hostile_run_name_is_shown_as_text(desk: Desk, live: Live) -> None:
    run = fixed_run.write_run("[b]x[@click=quit]", done=1)
    live(run)
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        assert "[b]x[@click=quit]" in shown(app)
        await press(pilot, "escape")
        assert "[b]x[@click=" in shown(app)  # its column is narrow


async def test_samples_are_turned_over_and_come_round(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        assert "completion 1 of 8" in shown(app)
        await press(pilot, "n", "n")
        assert "completion 3 of 8" in shown(app)
        await press(pilot, "N", "N", "N")
        assert "completion 8 of 8" in shown(app)


async def test_the_view_key_goes_through_events_log_evaluations_and_back(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        for sight in (
            "checkpoint step_000030",
            "step 30/40 reward 0.7",
            "gain greedy  +0.39 [+0.29, +0.49]",
            "completion 1",
        ):
            await press(pilot, "o")
            assert sight in shown(app)


async def test_all_is_seen_at_once_in_a_wide_terminal(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        text = shown(app)
        for sight in ("reward", "rows that teach", "gain greedy", "margin", "policy", "reference", "[events]"):
            assert sight in text
        await press(pilot, "o")
        assert app.screen.query_one(NotesView).view == "log"


async def test_a_run_that_has_not_said_anything_is_starting(desk: Desk, live: Live) -> None:
    run = fixed_run.new_run("fresh")
    live(run)
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        assert "◌ starting fresh" in shown(app)
        assert "no step yet" in shown(app)
        writer = RunWriter(run)
        writer.write_step(fixed_run.step_record(1))
        writer.close()
        fixed_run.put_status(run, "running", 1, fixed_run.time_of(1))
        await read_again(pilot, app)
        assert "▶ running fresh" in shown(app)


async def test_a_run_of_a_newer_version_is_refused_by_name(desk: Desk, run: RunDirectory) -> None:
    import sqlite3

    connection = sqlite3.connect(run.database)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    app = desk(run)
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        assert "written by a newer aapo-desk" in shown(app)


async def test_a_terminal_too_small_is_told_so_and_all_comes_back_when_it_grows(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=(59, 24)) as pilot:
        await settle(pilot)
        for width, height in ((59, 24), (80, 19), (20, 5)):
            await resize(pilot, width, height)
            assert "needed" in shown(app)
        await resize(pilot, 80, 24)
        assert "needed" not in shown(app)
        assert "step 30/40" in shown(app)


async def test_every_size_from_the_smallest_shows_all_parts(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        for width, height in ((60, 20), (80, 24), (119, 31), (120, 32), (200, 60)):
            await resize(pilot, width, height)
            for name in ("header", "charts", "teaching", "scrubber", "histogram-margin", "policy", "reference"):
                region = app.screen.query_one(f"#{name}").region
                assert region.area > 0, (name, width)
                assert region.bottom <= height - 1, (name, width)
            assert app.screen.query_one("#charts").size.height >= 5
            assert app.screen.query_one("#histogram-margin").size.height >= 3


async def test_colours_can_be_off(desk: Desk, run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        fills = set(re.findall(r"r\d+ \{ fill: (#[0-9a-f]{6})", app.export_screenshot()))
        fills.discard("#c5c8c6")  # the export's own, for what has no style
        assert len(fills) > 3
        assert all(len({fill[1:3], fill[3:5], fill[5:7]}) == 1 for fill in fills), fills


async def test_help_lists_the_keys_of_the_screen_and_leaves_on_any_of_its_keys(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "question_mark")
        text = str(app.screen.query_one("#dialog-text", Static).content)
        for line in (
            "Pause the run",
            "Write a checkpoint now",
            "Previous step",
            "Follow the newest step",
            "Quit; runs continue",
        ):
            assert line in text
        await press(pilot, "escape")
        assert isinstance(app.screen, MonitorScreen)


async def test_each_key_is_in_the_palette(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        titles = [command.title for command in app.get_system_commands(app.screen)]
        for title in ("Pause", "Stop", "Save", "Next step", "Follow the newest step", "Home", "Help", "Quit"):
            assert titles.count(title) == 1, title
        command = next(c for c in app.get_system_commands(app.screen) if c.title == "Save")
        await command.callback()
        await settle(pilot)
        assert commands(run) == ["checkpoint"]


async def test_quitting_says_that_the_run_goes_on(
    desk: Desk, run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("q")
    assert app.return_value == 0
    assert "sums-first-try continues" in capsys.readouterr().err


async def test_a_run_rewound_to_its_beginning_shows_nothing_of_the_steps_that_are_gone(
    desk: Desk, run: RunDirectory
) -> None:
    app = desk(run)
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        assert app.screen.query_one("#histogram-advantage", HistogramView).shown is not None
        writer = RunWriter(run)
        writer.rewind(0)
        writer.close()
        await read_again(pilot, app)
        assert monitor(app).step == 0
        assert [view.shown for view in app.screen.query(HistogramView)] == [None] * len(HISTOGRAMS)
        assert "completion 1 of" not in shown(app)
