"""The UI's bench: short runs, the real program in a pseudo-terminal."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from aapo_desk.bench import ui
from aapo_desk.bench.jobs import BenchError
from aapo_desk.bench.long_run import trainer_of, write_run
from aapo_desk.bench.terminal import Terminal
from aapo_desk.bench.ui_training import bench_training, slowdown
from aapo_desk.cli.app import run as run_command
from aapo_desk.config import resolve
from aapo_desk.store import RunReader

pytestmark = pytest.mark.usefixtures("desk_home")

TRAINER = """
import sys, time
from pathlib import Path
from aapo_desk.bench.long_run import trainer_of
from aapo_desk.store import RunDirectory
with trainer_of(RunDirectory(Path(sys.argv[1]))) as trainer:
    while True:
        trainer.write_step()
        time.sleep(0.1)
"""


def test_a_long_run_is_what_a_trainer_leaves() -> None:
    run = write_run("long", 250)
    reader = RunReader(run)
    delta = reader.poll()
    assert [step for step, _, _ in delta.metrics] == list(range(1, 251))
    assert {"reward", "reference_reward", "teaching", "seconds_update"} <= delta.metrics[0][2].keys()
    assert {event.kind for event in delta.events} >= {"started", "checkpoint"}
    assert delta.evaluations
    assert reader.histograms(125).keys() >= {"group_advantage", "margin", "advantage"}
    assert reader.samples(250)[0].completion.startswith("(250)")
    with trainer_of(run) as trainer:
        trainer.write_step()
    assert [step for step, _, _ in reader.poll().metrics] == [251]


@pytest.mark.slow
def test_the_document_holds_the_figures_of_monitor_and_home(
    desk_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few_of = {"STARTS": 1, "RUNS_AT_HOME": 3, "REFRESHES": 1, "SCRUBS": 2, "SECONDS_AT_REST": 1, "SECONDS_TO_SETTLE": 1}
    for name, few in few_of.items():
        monkeypatch.setattr(ui, name, few)
    assert run_command(["bench", "--ui", "--steps", "100", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    figures = ("first_frame_s", "refresh_ms", "idle_cpu_percent", "scrub_ms", "memory_mb")
    for where in (document, document["home"]):
        assert [where[name] >= 0 for name in figures] == [True] * len(figures)
        assert where["memory_mb"] > 10
    assert document["reads"] > 0
    assert not desk_home.exists()
    assert os.environ["AAPO_DESK_HOME"] == str(desk_home)


def test_training_is_measured_with_the_ui_and_without(desk_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolve({"model": {"id": "owner/model"}, "task": {"source": "arithmetic"}})
    monkeypatch.setattr("aapo_desk.bench.ui_training.PAIRS_A_ROUND", 2)
    document: dict[str, Any] = bench_training(config, 1, lambda _: None, (sys.executable, "-c", TRAINER))
    assert len(document["pairs"]) == 2
    assert all(pair["with"] > 0.1 and pair["without"] > 0.1 for pair in document["pairs"])
    assert document["reads"] > 0
    assert 0 < document["wal_mb"] < 8
    assert not desk_home.exists()


def test_a_training_that_ends_early_says_why() -> None:
    config = resolve({"model": {"id": "owner/model"}, "task": {"source": "arithmetic"}})
    with pytest.raises(BenchError, match="the run is crashed: ValueError: no card"):
        bench_training(config, 1, lambda _: None, (sys.executable, "-c", "raise ValueError('no card')"))


def test_a_program_that_ends_before_it_shows_anything_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(BenchError, match=r"waiting for never .* the UI has ended: hello"),
        Terminal([sys.executable, "-c", "print('\\33[1mhello')"], tmp_path) as terminal,
    ):
        terminal.wait_for("never")


@pytest.mark.parametrize("options", [["--training"], ["--ui", "--against", "trl"]])
def test_options_that_do_not_go_together_are_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["bench", *options]) == 2
    assert "--training needs --ui" in capsys.readouterr().err


def test_pairs_that_differ_by_chance_have_zero_in_their_interval() -> None:
    pairs = [{"without": 1.0, "with": 1.0 + change} for change in (-0.02, 0.03, -0.01, 0.01, 0.0)]
    found = slowdown(pairs)
    assert found["mean"] == pytest.approx(0.2)
    assert found["low"] < 0 < found["high"]
    assert found["high"] - found["mean"] == pytest.approx(2.776 * 1.924 / 5**0.5, rel=0.01)
