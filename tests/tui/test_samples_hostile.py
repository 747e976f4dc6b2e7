"""Hostile text on the rendered screen: it is shown as text, and changes nothing outside its own place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip

from aapo_desk.store import Delta, Event, RunDirectory, Sample
from aapo_desk.tui.poll import About, DetailRead, Reading, RunRead, StepDetail
from aapo_desk.tui.sample_poll import StepRead
from aapo_desk.tui.text import visible
from tests.tui import fixed_run
from tests.tui.driving import NARROW, WIDE, Desk, press, settle
from tests.tui.hostile import HUGE, check_lines, check_styles, looks, outside, screen, texts

STEP = 30
HARMLESS = "To add 3 and 3, we first write it down"


class Stage:
    """The desk over a run, in an event loop that continues from one example to the next."""

    def __init__(self, desk: Desk, run: RunDirectory, size: tuple[int, int]) -> None:
        self.size = size
        self.run = run
        self.app = desk(run)
        self._runner = asyncio.Runner()
        self._test = self.app.run_test(size=size)
        self._pilot = self._runner.run(self._test.__aenter__())
        self._runner.run(settle(self._pilot))

    def press(self, *keys: str) -> None:
        self._runner.run(press(self._pilot, *keys))

    def post(self, *messages: Message) -> list[Strip]:
        """Give messages to the screen; what is then to be seen."""

        async def give() -> list[Strip]:
            for message in messages:
                self.app.screen.post_message(message)
            await self._pilot.pause()
            return screen(self.app)

        return self._runner.run(give())

    def region(self, selector: str) -> Region:
        widget = self.app.screen.query_one(selector)
        return widget.region.intersection(self.app.screen.region)

    def close(self) -> None:
        self._runner.run(self._test.__aexit__(None, None, None))
        self._runner.close()


Open = Callable[..., Stage]


@pytest.fixture
def stage(desk: Desk, run: RunDirectory) -> Iterator[Open]:
    """Opens the desk at a size."""
    opened: list[Stage] = []

    def open_stage(size: tuple[int, int], *keys: str) -> Stage:
        opened.append(Stage(desk, run, size))
        opened[-1].press(*keys)
        return opened[-1]

    yield open_stage
    for made in opened:
        made.close()


def samples(**fields: Any) -> list[Sample]:
    """A step's samples, the first pair's fields replaced."""
    return [replace(sample, **fields) if sample.row == 0 else sample for sample in fixed_run.step_record(STEP).samples]


def step(**fields: Any) -> StepRead:
    return StepRead(STEP, STEP, samples(**fields))


def fuzz(examples: int) -> Callable[[Callable[[str], None]], None]:
    """Run the check that follows over so many hostile texts."""

    def run(check: Callable[[str], None]) -> None:
        health = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
        settings(max_examples=examples, deadline=None, database=None, suppress_health_check=health)(
            given(texts)(check)
        )()

    return run


def check_detail(desk: Stage, harmless: list[Strip], text: str) -> list[Strip]:
    """Show a text everywhere in the detail: outside of it nothing changes, and the completion's beginning is read."""
    strips = desk.post(step(completion=text, prompt=text, answer=text))
    check_lines(strips, desk.size)
    detail = desk.region("#sample-detail")
    assert outside(strips, [detail]) == outside(harmless, [detail])
    policy = desk.region("#sample-policy > .sample-side-text").intersection(detail)
    shown = "".join(strips[y].crop(policy.x, policy.right).text for y in range(policy.y, policy.bottom))
    assert _solid(visible(text)).startswith(_solid(shown))
    return strips


def _solid(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize(("size", "keys"), [(NARROW, ("v",)), (WIDE, ("v", "enter"))])
def test_texts_of_a_sample_change_nothing_outside_the_detail(
    stage: Open, size: tuple[int, int], keys: tuple[str, ...]
) -> None:
    desk = stage(size, *keys)
    harmless = [desk.post(step(completion=text, prompt=text, answer="6")) for text in (HARMLESS, f"{HARMLESS} " * 99)]
    allowed = {looks(segment) for strips in harmless for strip in strips for segment in strip}

    @fuzz(15)
    def check(text: str) -> None:
        check_styles(check_detail(desk, harmless[0], text), allowed)


def test_a_hundred_thousand_characters_change_nothing_outside_the_detail(stage: Open) -> None:
    desk = stage(NARROW, "v")
    harmless = desk.post(step(completion=HARMLESS, prompt=HARMLESS, answer="6"))
    for text in HUGE:
        check_detail(desk, harmless, text)


@pytest.mark.parametrize("size", [NARROW, WIDE])
def test_names_from_files_stay_in_their_columns(stage: Open, size: tuple[int, int]) -> None:
    desk = stage(size, "v")
    harmless = desk.post(step(prompt_id="sum", rewards={"math": 1.0, "form": 0.5}))

    @fuzz(10)
    def check(text: str) -> None:
        strips = desk.post(step(prompt_id=text, rewards={"math": 1.0, text: 0.5}))
        check_lines(strips, desk.size)
        body = desk.region("#samples-body")
        assert outside(strips, [body]) == outside(harmless, [body])


def test_names_events_log_and_samples_stay_in_their_places_on_the_monitor(stage: Open) -> None:
    desk = stage(WIDE)
    config = desk.run.read_config()
    status = desk.run.read_status()

    def reading(text: str) -> list[Message]:
        event = Event(1, fixed_run.time_of(STEP), STEP, "notice", {"message": text})
        about = About(text or "unnamed", config)
        read = Reading("running", status | {"message": text}, Delta(events=[event]), about, [text])
        return [RunRead(read), DetailRead(StepDetail(STEP, {}, samples(completion=text, prompt=text, answer=text)))]

    harmless = desk.post(*reading(HARMLESS))

    @fuzz(10)
    def check(text: str) -> None:
        strips = desk.post(*reading(text))
        check_lines(strips, desk.size)
        places = [desk.region(selector) for selector in ("#header", "#samples", "#notes")]
        assert outside(strips, places) == outside(harmless, places)
