"""The queue by the command line, and with trainers that train."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from aapo_desk.cli.app import run
from aapo_desk.config import RunConfig, resolve
from aapo_desk.launch.child import environment
from aapo_desk.store import list_runs, runs_folder
from aapo_desk.studies import queue
from tests.stand_in import nothing_left_running, until

__all__ = ["nothing_left_running"]

pytestmark = pytest.mark.usefixtures("desk_home")
Output = pytest.CaptureFixture[str]


def config(**sections: Any) -> RunConfig:
    return resolve({"model": {"id": "owner/model"}, "task": {"source": "arithmetic"}} | sections)


@pytest.fixture
def unstartable() -> queue.Entry:
    """An entry whose reward's file has gone since it was added."""
    return queue.add(config(rewards=[{"name": "gone.py:score"}]), preset="mine.yaml", name="first")


def test_add_looks_at_everything_first_and_says_how_to_go_on(
    tiny_config: dict[str, Any], tmp_path: Path, capsys: Output
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(tiny_config))
    assert run(["queue", "add", str(file), "--set", "run.steps=2", "--name", "short"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("problems to train on" in line for line in lines)
    assert lines[-2] == "queued as 0001; 1 waiting"
    assert "aapo-desk queue run" in lines[-1]
    (entry,) = queue.entries()
    assert (entry.name, entry.preset, entry.config["run"]["steps"]) == ("short", str(file), 2)
    assert list_runs() == []


def test_a_home_that_is_a_file_is_told_with_what_to_do(
    tiny_config: dict[str, Any], tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "mine.yaml"
    home.write_text(yaml.safe_dump(tiny_config))
    monkeypatch.setenv("AAPO_DESK_HOME", str(home))
    assert run(["queue", "add", str(home)]) == 1
    said = f"cannot create the folder {home} (Not a directory); set AAPO_DESK_HOME to another folder"
    assert capsys.readouterr().err == f"aapo-desk: {said}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo", "--set", "rollout.group_size=1"], "rollout.group_size"),
        (["demo", "--set", "task.source=file:none.jsonl"], "there is no such file"),
        (["demo", "--name", "a/b"], "must be text without slashes"),
        (["no-such-preset"], "no-such-preset"),
    ],
)
def test_what_train_refuses_is_not_queued(arguments: list[str], words: str, capsys: Output) -> None:
    assert run(["queue", "add", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert queue.entries() == []


def test_the_list_shows_each_entry_and_why_one_failed(unstartable: queue.Entry, capsys: Output) -> None:
    queue.add(config(), preset="demo")
    assert run(["queue"]) == 0
    header, first, second, last = capsys.readouterr().out.splitlines()
    assert header.split() == ["entry", "state", "name", "from", "step", "run"]
    assert first.split() == ["0001", "waiting", "first", "mine.yaml", "0/100", "-"]
    assert second.split() == ["0002", "waiting", "-", "demo", "0/100", "-"]
    assert last == "the queue is not running; start it with: aapo-desk queue run"
    queue.remove("2")
    assert run(["queue", "run"]) == 1
    capsys.readouterr()
    assert run(["queue", "list"]) == 0
    assert "0001 failed: not started: rewards.0.name" in capsys.readouterr().out.splitlines()[-1]


def test_the_list_as_json_is_one_array(unstartable: queue.Entry, desk_home: Path, capsys: Output) -> None:
    (desk_home / "queue" / "0009.json").write_text("{")
    assert run(["queue", "list", "--json"]) == 0
    captured = capsys.readouterr()
    (entry,) = json.loads(captured.out)
    assert (entry["id"], entry["name"], entry["state"], entry["run"]) == ("0001", "first", "waiting", None)
    assert entry["config"]["model"]["id"] == "owner/model"
    assert "0009.json is not a queue entry" in captured.err


def test_without_entries_every_command_says_how_to_begin(capsys: Output) -> None:
    for command in ("list", "run"):
        assert run(["queue", command]) == 0
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "aapo-desk queue add" in captured.err
    assert run(["queue", "list", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"
    assert run(["queue", "stop"]) == 1
    assert "the queue is not running" in capsys.readouterr().err


def test_rm_takes_entries_off_or_all_that_have_ended(unstartable: queue.Entry, capsys: Output) -> None:
    assert run(["queue", "run"]) == 1
    queue.add(config(), preset="demo", name="b")
    queue.add(config(), preset="demo", name="c")
    capsys.readouterr()
    assert run(["queue", "rm", "--ended"]) == 0
    assert run(["queue", "rm", "3"]) == 0
    assert capsys.readouterr().out == "removed 0001 first\nremoved 0003 c\n"
    assert [entry.name for entry in queue.entries()] == ["b"]
    assert run(["queue", "rm"]) == 2
    assert run(["queue", "rm", "b", "nobody"]) == 2
    assert [entry.name for entry in queue.entries()] == ["b"], "all or none"


def test_detached_it_is_worked_off_in_the_background(unstartable: queue.Entry, capsys: Output) -> None:
    assert run(["queue", "run", "--detach"]) == 0
    assert "1 to go" in capsys.readouterr().out
    until(lambda: queue.entries()[0].state == "failed")
    until(lambda: not queue.is_worked_off())
    assert "0001 first failed: not started" in queue.log_file().read_text()
    assert queue.log_file().stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_three_short_runs_of_which_one_fails_end_with_two_results_and_one_reason(
    tiny_config: dict[str, Any], tmp_path: Path
) -> None:
    """Trainers that train; the model of the second has lost its files since it was queued."""
    lost = tmp_path / "lost"
    lost.mkdir()
    short = tiny_config | {"run": {"steps": 1}, "evaluation": {"problems": 0}}
    for number in range(1, 4):
        model = {"id": str(lost)} if number == 2 else {}
        queue.add(resolve(short | {"model": short["model"] | model}), preset="tiny", name=f"short-{number}")
    command = [sys.executable, "-m", "aapo_desk", "queue", "run"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=250, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    found = queue.entries()
    assert [entry.state for entry in found] == ["finished", "failed", "finished"]
    (reason,) = (entry.reason for entry in found if entry.reason)
    assert "the folder has no config.json, so it is not a model" in reason
    lines = [line.split("  ", 1)[1] for line in done.stdout.splitlines()]
    assert [line for line in lines if reason in line] == [f"0002 short-2 failed: {reason}"]
    assert lines[-1] == "queue: 2 finished, 1 failed"
    adapters = runs_folder().glob("*/checkpoints/step_000001/adapter/adapter_model.safetensors")
    assert len(list(adapters)) == 2
