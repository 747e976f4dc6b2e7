"""The panels beside the charts: the phases of a step and the machine."""

from __future__ import annotations

from typing import Any

import pytest
from textual.app import App, ComposeResult

from aapo_desk.tui.widgets.machine import MachineView
from aapo_desk.tui.widgets.phases import Phases, PhasesView, shared

CARD = {
    "name": "NVIDIA GeForce RTX 4070",
    "memory_total": 12288,
    "memory_used": 7270,
    "utilisation": 97,
    "temperature": 63,
    "power": 180.4,
}
MACHINE = {"cpu_percent": 37.0, "memory_total": 24576, "memory_available": 16384, "gpus": []}


class PartsApp(App[None]):
    """The two parts at a given size."""

    def __init__(self, height: int, width: int = 76) -> None:
        super().__init__()
        names = [*PhasesView.COMPONENT_CLASSES, *MachineView.COMPONENT_CLASSES]
        PartsApp.CSS = "".join(f".{name} {{ color: red; }}" for name in names)
        self._room = (width, height)

    def compose(self) -> ComposeResult:
        for view in (PhasesView(id="phases"), MachineView(id="machine")):
            view.styles.width, view.styles.height = self._room
            yield view

    def text(self, name: str) -> list[str]:
        view = self.query_one(f"#{name}")
        return [view.render_line(y).text.rstrip() for y in range(view.size.height)]


@pytest.mark.parametrize(
    ("values", "width", "sizes"),
    [
        ([3.0, 1.0], 8, [6, 2]),
        ([1.0, 1.0, 1.0], 10, [3, 4, 3]),
        ([100.0, 0.01, 50.0], 12, [7, 1, 4]),
        ([0.0, 0.0], 12, [0, 0]),
        ([5.0, 0.0], 4, [4, 0]),
    ],
)
def test_a_bar_is_shared_out_whole_and_nothing_that_took_time_is_lost(
    values: list[float], width: int, sizes: list[int]
) -> None:
    assert shared(values, width) == sizes


async def test_phases_are_told_apart_by_their_characters() -> None:
    async with (app := PartsApp(1)).run_test():
        assert app.text("phases") == ["phases of a step    no data"]
        app.query_one(PhasesView).show(Phases(rollout=3.0, reward=0.1, update=3.0))
        (line,) = app.text("phases")
        assert "█ rollout 3.0 s ░ reward 0.1 s ▒ update 3.0 s" in line
        bar = line.removeprefix("phases of a step  ").partition("  ")[0]
        assert bar.count("█") == pytest.approx(bar.count("▒"), abs=1)
        assert bar.count("░") == 1


async def test_a_machine_with_a_card_shows_its_use_memory_temperature_and_power() -> None:
    async with (app := PartsApp(3, 60)).run_test():
        view = app.query_one(MachineView)
        assert app.text("machine") == ["machine  no data yet", "", ""]
        view.add([{**MACHINE, "gpus": [{**CARD, "utilisation": 10}]}, {**MACHINE, "gpus": [CARD]}])
        title, card, cpu = app.text("machine")
        assert title == "machine"
        assert card.startswith("GPU ")
        assert "97 % 7.1/12.0 GB 63 °C 180 W  ▁█" in card
        assert "37 % 8.0/24.0 GB" in cpu
        assert view.get_content_height(view.size, view.size, 60) == 3


@pytest.mark.parametrize(
    ("snapshot", "sight"),
    [
        ({**MACHINE, "gpus": [CARD]}, "machine  RTX 4070 97 % 7.1/12.0 GB 63 °C 180 W  CPU 37 % 8.0/24.0 GB"),
        (MACHINE, "machine  CPU 37 % 8.0/24.0 GB"),
        (
            {**MACHINE, "gpus": [{**CARD, "utilisation": None, "temperature": None, "power": None}]},
            "RTX 4070 – 7.1/12.0 GB ",
        ),
        ({}, "machine  CPU – memory –"),
    ],
)
async def test_in_one_line_the_machine_says_what_it_knows(snapshot: dict[str, Any], sight: str) -> None:
    async with (app := PartsApp(1)).run_test():
        app.query_one(MachineView).add([snapshot])
        assert sight in app.text("machine")[0]
