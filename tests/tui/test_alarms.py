from __future__ import annotations

from collections.abc import Callable

import pytest
from rich.cells import cell_len
from textual.widgets import Static

from aapo_desk.health import BEGINS, ENDS, SEVERITIES, Alarm
from aapo_desk.store import RunDirectory, RunWriter
from aapo_desk.tui.screens.alarms import AlarmsScreen
from aapo_desk.tui.widgets.alarms import AlarmStrip, alarms_text, strip_text
from tests.tui import fixed_run
from tests.tui.driving import NARROW, WIDE, Desk, Live, press, read_again, settle, shown
from tests.tui.test_snapshots import then

CUT = Alarm(
    "truncation",
    "completions are cut off",
    "62% of the completions of the last 10 steps were cut off at 12 tokens.",
    "Raise rollout.max_new_tokens (now 12), or have the system prompt ask for shorter answers.",
    14,
    "warning",
)
STILL = Alarm(
    "adapter_still",
    "the adapter does not move",
    "10 of the last 10 steps had something to learn from, but the adapter did not change.",
    "Set model.backend=transformers, and check lora.targets.",
    21,
    "critical",
)


@pytest.fixture
def alarmed(run: RunDirectory) -> RunDirectory:
    """A run with two alarms that stand and one that is over."""
    writer = RunWriter(run)
    writer.write_event(BEGINS, 17, **CUT.as_json())
    writer.write_event(BEGINS, 20, kind="memory", title="memory is nearly full", severity="warning", since=20)
    writer.write_event(ENDS, 22, kind="memory", title="memory is nearly full", since=20)
    writer.write_event(BEGINS, 30, **STILL.as_json())
    writer.close()
    fixed_run._fix_times(run.database)
    return run


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_the_worst_alarm_is_on_the_monitor_and_a_key_or_a_click_tells_all(
    desk: Desk, alarmed: RunDirectory, size: tuple[int, int]
) -> None:
    app = desk(alarmed)
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        assert "!! critical: the adapter does not move, since step 21 · 1 more" in shown(app)
        await press(pilot, "a")
        assert "Raise rollout.max_new_tokens" in shown(app)
        text = str(app.screen.query_one("#dialog-text", Static).content)
        assert text.index("!! critical: the adapter") < text.index("! warning: completions are cut off")
        assert "memory" not in text
        await press(pilot, "escape")
        assert not isinstance(app.screen, AlarmsScreen)
        await pilot.click(AlarmStrip)
        assert isinstance(app.screen, AlarmsScreen)


@pytest.mark.parametrize(("done", "state", "said"), [(30, "running", True), (40, "finished", False)])
async def test_a_run_that_has_ended_is_not_said_to_go_on_meanwhile(
    desk: Desk, live: Live, done: int, state: str, said: bool
) -> None:
    run = fixed_run.write_run(done=done, state=state)
    if said:
        live(run)
    writer = RunWriter(run)
    writer.write_event(BEGINS, 17, **CUT.as_json())
    writer.close()
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        assert "? Help" in shown(app).splitlines()[-1]  # the keys fit beside the alarm
        await press(pilot, "a")
        assert "esc closes" in shown(app)
        assert ("the run continues" in shown(app)) == said


async def test_an_alarm_that_is_over_leaves_the_monitor_and_its_key_with_it(desk: Desk, run: RunDirectory) -> None:
    app = desk(run)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        assert not app.screen.query_one(AlarmStrip).display
        writer = RunWriter(run)
        writer.write_event(BEGINS, 30, **CUT.as_json())
        await read_again(pilot, app)
        assert app.screen.query_one(AlarmStrip).display
        assert "! warning: completions are cut off" in shown(app)
        writer.write_event(ENDS, 30, kind=CUT.kind, title=CUT.title, since=CUT.since)
        writer.close()
        await read_again(pilot, app)
        assert not app.screen.query_one(AlarmStrip).display
        await press(pilot, "a")
        assert not isinstance(app.screen, AlarmsScreen)


async def test_a_rewound_run_is_told_of_no_alarm_twice(desk: Desk, alarmed: RunDirectory) -> None:
    app = desk(alarmed)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        writer = RunWriter(alarmed)
        writer.rewind(25)
        writer.write_event("resumed", 25, from_step=25)
        writer.write_step(fixed_run.step_record(26))
        writer.close()
        await read_again(pilot, app)
        assert "!! critical: the adapter does not move, since step 21 · 1 more" in shown(app)


@pytest.mark.parametrize("width", [20, 40, 60, 78, 138])
def test_the_line_fits_and_keeps_how_bad_it_is_and_the_key(width: int) -> None:
    text = strip_text([STILL, CUT], width).plain
    assert cell_len(text) <= max(width, 32)
    assert text.startswith("!! critical: ")
    assert text.endswith("a: what to try")


def test_how_bad_it_is_is_told_by_mark_and_word() -> None:
    texts = [alarms_text([Alarm("x", "t", "m", "a", 1, severity)]).plain.split()[:2] for severity in SEVERITIES]
    assert texts == [["!!", "critical:"], ["!", "warning:"], ["i", "note:"]]


def test_what_an_alarm_quotes_is_shown_and_not_obeyed() -> None:
    alarm = Alarm("unscorable", "t[bold]", "a\x1b[2Jb", "c\u202ed", 1, "note")
    assert alarms_text([alarm]).plain.splitlines()[1:] == ["a␛[2Jb", "Try: c⟨U+202E⟩d"]


@pytest.mark.parametrize("size", [NARROW, WIDE])
def test_picture_of_the_monitor_with_alarms(
    snap_compare: Callable[..., bool], desk: Desk, alarmed: RunDirectory, size: tuple[int, int]
) -> None:
    assert snap_compare(desk(alarmed), terminal_size=size, run_before=then())


@pytest.mark.parametrize("size", [NARROW, WIDE])
def test_picture_of_the_alarms(
    snap_compare: Callable[..., bool], desk: Desk, alarmed: RunDirectory, size: tuple[int, int]
) -> None:
    assert snap_compare(desk(alarmed), terminal_size=size, run_before=then("a"))
