"""The queue: what is kept of an entry, and how a supervisor works it off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aapo_desk import launch
from aapo_desk.config import ConfigError, RunConfig, resolve
from aapo_desk.launch import LaunchError
from aapo_desk.launch.child import environment
from aapo_desk.store import RunDirectory, find_run, list_runs, runs_folder
from aapo_desk.studies import queue
from aapo_desk.studies.queue import supervisor
from tests.stand_in import STAND_IN, nothing_left_running, until
from tests.studies.playing import PLAYED, played

__all__ = ["nothing_left_running"]

pytestmark = pytest.mark.usefixtures("desk_home")


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "SECONDS_BETWEEN_LOOKS", 0.02)
    monkeypatch.setattr(supervisor, "SECONDS_BETWEEN_LOOKS_AT_OTHERS", 0.02)


def config(**sections: Any) -> RunConfig:
    return resolve({"model": {"id": "owner/model"}, "task": {"source": "arithmetic"}} | sections)


def add(*names: str, study: str | None = None) -> None:
    for name in names:
        queue.add(config(), preset="tiny", name=name, study=study)


def states() -> dict[str, str]:
    return {entry.label: entry.state for entry in queue.entries()}


def work_off(**more: Any) -> tuple[bool, list[str]]:
    """Return whether all runs finished, and the messages."""
    told: list[str] = []
    return queue.work_off(told.append, command=PLAYED, **more), told


class Asked:
    """Asks once for each of these conditions, as each comes true."""

    def __init__(self, *conditions: Callable[[], Any]) -> None:
        self.count = 0
        self._left = list(conditions)

    def wait(self, seconds: float) -> None:
        if self._left and self._left[0]():
            self.count += 1
            self._left.pop(0)
        threading.Event().wait(seconds)


@contextmanager
def working_off() -> Iterator[list[str]]:
    """A supervisor in a thread; gives what it tells, as it does."""
    told: list[str] = []
    thread = threading.Thread(target=lambda: queue.work_off(told.append, command=PLAYED))
    thread.start()
    try:
        yield told
    finally:
        thread.join()


def running(name: str) -> bool:
    return any(run.name == name and launch.state(run) == "running" for run in list_runs())


# What is kept


def test_an_entry_is_a_private_file_that_holds_the_resolved_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sums.jsonl").touch()
    added = queue.add(config(task={"source": "file:sums.jsonl"}), preset="mine.yaml", name="a", study="s1")
    assert (added.id, added.state, added.run, added.reason) == ("0001", "waiting", None, "")
    assert queue.entries() == [added]
    assert RunConfig.model_validate(added.config).task.source == f"file:{tmp_path}/sums.jsonl"
    (file,) = (tmp_path / "home" / "queue").glob("*.json")
    assert file.stat().st_mode & 0o077 == 0
    assert file.parent.stat().st_mode & 0o077 == 0


def test_entries_are_in_the_order_of_adding_and_those_of_a_study_can_be_had_alone() -> None:
    add("a", "b")
    add("c", study="s1")
    add("d")
    assert [entry.name for entry in queue.entries()] == ["a", "b", "c", "d"]
    assert [entry.name for entry in queue.entries("s1")] == ["c"]


def test_those_who_add_at_once_get_numbers_of_their_own() -> None:
    threads = [threading.Thread(target=add, args=(f"a{number}", f"b{number}")) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [entry.id for entry in queue.entries()] == [f"{number:04d}" for number in range(1, 13)]


def test_a_number_does_not_come_back() -> None:
    add("a", "b")
    queue.remove("0002")
    add("c")
    assert [entry.id for entry in queue.entries()] == ["0001", "0003"]


def test_a_name_that_waits_already_is_refused() -> None:
    add("a")
    with pytest.raises(ConfigError, match="an entry with this name is waiting"):
        add("a")
    with pytest.raises(ConfigError, match="must be text without slashes"):
        add("a/b")
    assert len(queue.entries()) == 1


@pytest.mark.parametrize("reference", ["0002", "2", "b"])
def test_a_waiting_entry_is_removed_by_its_number_or_name(reference: str) -> None:
    add("a", "b", "c")
    assert queue.remove(reference).name == "b"
    assert [entry.name for entry in queue.entries()] == ["a", "c"]


@pytest.mark.parametrize("reference", ["3", "0", "x", ""])
def test_what_names_no_entry_removes_none(reference: str) -> None:
    add("a", "b")
    with pytest.raises(ConfigError, match="there is no such entry"):
        queue.remove(reference)
    assert len(queue.entries()) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not a JSON object"),
        ('{"format": 2}', "another version of aapo-desk"),
        ('{"format": 1, "id": "0002"}', "name, config, preset, study, added is missing or wrong"),
        ('{"format": 1, "id": "0002", "name": 3, "config": {}, "preset": "", "study": null, "added": 1}', "name is"),
    ],
)
def test_a_file_that_is_no_entry_is_left_out_with_a_word(desk_home: Path, text: str, words: str) -> None:
    add("a")
    (desk_home / "queue" / "0002.json").write_text(text)
    assert [entry.name for entry in queue.entries()] == ["a"]
    (said,) = queue.unreadable()
    assert words in said
    add("c")
    assert [entry.id for entry in queue.entries()] == ["0001", "0003"]
    finished, told = work_off()
    assert finished
    assert told[0] == f"ignored: {said}"


# How it is worked off


def test_of_five_runs_of_which_one_fails_there_are_four_results_and_one_reason(desk_home: Path) -> None:
    add("a", "b", "fails", "d", "e")
    finished, told = work_off()
    assert not finished
    assert states() == {"a": "finished", "b": "finished", "fails": "failed", "d": "finished", "e": "finished"}
    assert [entry.reason for entry in queue.entries() if entry.reason] == ["the reward broke"]
    assert "0003 fails failed: the reward broke" in told
    assert told[-1] == "queue: 4 finished, 1 failed"
    order = ["a", "b", "fails", "d", "e"]
    assert played(desk_home) == [f"{what} {name}" for name in order for what in ("begin", "end")], "one after another"


def test_what_is_added_meanwhile_is_trained_too() -> None:
    add("a")
    told: list[str] = []

    def tell(line: str) -> None:
        if not told:
            add("b")
        told.append(line)

    assert queue.work_off(tell, command=PLAYED)
    assert states() == {"a": "finished", "b": "finished"}


def test_of_a_study_only_its_own_are_trained() -> None:
    add("a")
    add("b", study="s1")
    assert work_off(study="s1")[0]
    assert states() == {"a": "waiting", "b": "finished"}


def test_an_empty_queue_is_done() -> None:
    assert work_off() == (True, [])


def test_a_run_that_crashes_goes_on_once_more_for_each_step_it_gets_further() -> None:
    add("limps", "dies", "c")
    finished, told = work_off()
    assert not finished
    assert states() == {"limps": "finished", "dies": "failed", "c": "finished"}
    crashed, again = [line for line in told if line.startswith("0001")][1:3]
    assert crashed.startswith("0001 limps interrupted: the trainer ended without an error message")
    assert again == f"0001 limps resumed (crashed after step 2) as run {find_run('limps').id}"
    (reason,) = (entry.reason for entry in queue.entries() if entry.name == "dies")
    assert reason.startswith("crashed again without progress after step 4: ")
    assert sum("dies resumed" in line for line in told) == 1


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"model": {"id": "owner/model", "device": "cuda"}}, "not started: model.device"),
        ({"rewards": [{"name": "gone.py:score"}]}, "not started: rewards.0.name"),
    ],
)
def test_an_entry_that_cannot_start_has_failed_and_the_next_one_trains(
    sections: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aapo_desk.hardware.gpus", lambda: ())
    queue.add(config(**sections), preset="tiny")
    add("b")
    assert not work_off()[0]
    first, second = queue.entries()
    assert (first.state, first.run, second.state) == ("failed", None, "finished")
    assert first.reason.startswith(words)


def test_an_entry_of_another_versions_settings_says_so(desk_home: Path) -> None:
    add("a")
    file = desk_home / "queue" / "0001.json"
    entry = json.loads(file.read_text())
    entry["config"]["rollout"]["group_size"] = 1
    file.write_text(json.dumps(entry))
    assert not work_off()[0]
    (failed,) = queue.entries()
    assert "its configuration is not valid for this version of aapo-desk: rollout.group_size" in failed.reason


def test_a_name_that_was_taken_meanwhile_holds_nobody_up() -> None:
    add("a")
    taken = launch.start(config(), "a", command=PLAYED)
    until(lambda: launch.state(taken) == "finished")
    assert work_off()[0]
    (entry,) = queue.entries()
    assert entry.run != taken.id


def test_a_run_that_was_removed_is_not_trained_again() -> None:
    add("a")
    work_off()
    launch.remove(find_run("a"))
    assert states() == {"a": "removed"}
    assert work_off() == (True, [])


# Stopped, paused, killed


def test_asked_to_stop_the_run_stops_too_and_goes_on_the_next_time() -> None:
    add("stays", "b")
    finished, told = work_off(stop=Asked(lambda: running("stays")))
    assert not finished
    assert states() == {"stays": "interrupted", "b": "waiting"}
    assert launch.state(find_run("stays")) == "stopped"
    assert "0001 stays interrupted; resume it with: aapo-desk queue run" in told
    before = find_run("stays").id
    assert work_off()[0]
    assert [(entry.state, entry.run == before) for entry in queue.entries()] == [
        ("finished", True),
        ("finished", False),
    ]


def test_asked_twice_it_ends_at_once() -> None:
    queue.add(config(), preset="tiny", name="a")

    def deaf() -> bool:
        """Once it trains; it is stopped in its tracks and hears nothing."""
        if not running("a"):
            return False
        os.kill(find_run("a").read_status()["pid"], signal.SIGSTOP)
        return True

    told: list[str] = []
    finished = queue.work_off(told.append, command=STAND_IN, stop=Asked(deaf, lambda: True))
    assert not finished
    assert told[-3].startswith("killed the run")
    assert states() == {"a": "interrupted"}


def test_a_wish_from_elsewhere_stops_it_too() -> None:
    add("stays")
    with pytest.raises(LaunchError, match="the queue is not running"):
        queue.ask_to_stop()
    with working_off():
        until(lambda: running("stays"))
        assert queue.is_worked_off()
        queue.ask_to_stop()
    assert not queue.is_worked_off()
    assert states() == {"stays": "interrupted"}
    assert work_off()[0], "the wish was for the one before"


def test_a_run_that_the_user_stops_is_left_and_the_next_one_trains() -> None:
    add("stays", "b")
    with working_off() as told:
        until(lambda: running("stays"))
        with pytest.raises(LaunchError, match="entry 0001 is running; stop its run first"):
            queue.remove("stays")
        launch.request(find_run("stays"), "stop")
    assert states() == {"stays": "stopped", "b": "finished"}
    assert "0001 stays stopped after step 3" in told
    assert work_off() == (True, [])


def test_a_paused_run_is_waited_for_and_it_is_said() -> None:
    add("stays")
    with working_off() as told:
        until(lambda: running("stays"))
        run = find_run("stays")
        launch.request(run, "pause")
        until(lambda: any("is paused" in line for line in told))
        launch.resume(run)
        until(lambda: "0001 stays is running again" in told)
        launch.request(run, "stop")
    assert f"0001 stays is paused; the queue waits. Resume it with: aapo-desk resume {run.id}" in told


def test_a_run_outside_the_queue_is_waited_for(desk_home: Path) -> None:
    add("a")
    other = launch.start(config(), "stays outside", command=PLAYED)
    until(lambda: running("stays outside"))
    with working_off() as told:
        until(lambda: told)
        assert states() == {"a": "waiting"}
        launch.request(other, "stop")
    assert told[0] == "waiting for run stays outside, which is running"
    assert played(desk_home) == ["begin stays outside", "end stays outside", "begin a", "end a"]


def test_a_second_supervisor_is_refused() -> None:
    add("stays")
    with working_off():
        until(lambda: running("stays"))
        with pytest.raises(LaunchError, match="the queue is already running"):
            work_off()
        queue.ask_to_stop()


def test_a_supervisor_killed_in_the_middle_leaves_nothing_undone_or_done_twice(desk_home: Path) -> None:
    add("a", "stays", "c")
    script = (
        "import sys; from aapo_desk.studies import queue\n"
        "from tests.studies.playing import PLAYED\n"
        "queue.work_off(print, command=PLAYED)"
    )
    killed = subprocess.Popen(
        [sys.executable, "-c", script], env=environment(), cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL
    )
    until(lambda: running("stays"))
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert states() == {"a": "finished", "stays": "running", "c": "waiting"}, "the trainer lives on"
    os.kill(find_run("stays").read_status()["pid"], signal.SIGKILL)  # as when the machine goes down
    until(lambda: states()["stays"] == "interrupted")
    assert work_off()[0]
    assert states() == {"a": "finished", "stays": "finished", "c": "finished"}
    assert played(desk_home) == [
        "begin a", "end a", "begin stays", "begin stays", "end stays", "begin c", "end c",
    ]  # fmt: skip
    assert len(list_runs()) == 3


def test_a_run_that_ended_while_nobody_looked_has_its_result() -> None:
    add("fails")
    with pytest.raises(KeyboardInterrupt):
        queue.work_off(lambda line: signal.raise_signal(signal.SIGINT), command=PLAYED)
    until(lambda: states() == {"fails": "failed"})
    finished, told = work_off()
    assert not finished
    assert told == ["0001 fails failed: the reward broke", "queue: 1 failed"]


def test_killed_while_a_runs_folder_is_made_it_is_made_again(desk_home: Path) -> None:
    add("a")
    file = desk_home / "queue" / "0001.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"run": "20260101-100000-abcd"}))
    half = runs_folder() / "20260101-100000-abcd"
    half.mkdir(parents=True)
    assert states() == {"a": "waiting"}
    assert work_off()[0]
    assert [run.path for run in list_runs()] == [entry_run(queue.entries()[0]).path]
    assert not half.exists()


def entry_run(entry: queue.Entry) -> RunDirectory:
    assert entry.run
    return RunDirectory(runs_folder() / entry.run)
