"""The command line without a terminal: plain lines, JSON, exit statuses."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from aapo_desk import __version__, launch
from aapo_desk.cli.app import run
from aapo_desk.cli.follow import Follower
from aapo_desk.cli.lines import base_against_tuned, evaluation_line, event_line, step_line
from aapo_desk.config import resolve
from aapo_desk.store import RunDirectory, RunWriter, create_run, list_runs
from tests.run_data import config, evaluation, finished, record, status
from tests.stand_in import STAND_IN, lives, nothing_left_running, until

__all__ = ["finished", "nothing_left_running"]

pytestmark = pytest.mark.usefixtures("desk_home")
Output = pytest.CaptureFixture[str]


def test_the_version_and_the_help_are_plain_text(capsys: Output) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"aapo-desk {__version__}\n"
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert "│" not in text
    assert "\x1b" not in text
    for command in (
        "demo",
        "train",
        "watch",
        "resume",
        "runs",
        "pause",
        "stop",
        "checkpoint",
        "presets",
        "fit",
        "bench",
        "compare",
        "doctor",
        "eval",
        "data",
        "export",
        "chat",
        "queue",
        "study",
    ):
        assert re.search(rf"^  {command} +\w", text, flags=re.MULTILINE), command


@pytest.mark.parametrize(
    "command",
    [
        *("demo", "train", "watch", "resume", "runs", "runs rm", "runs show", "pause"),
        *("presets show", "fit", "bench", "compare", "doctor", "eval", "data", "export", "chat"),
        *("queue add", "queue list", "queue rm", "queue run", "queue stop"),
        *("study start", "study list", "study show", "study run"),
    ],
)
def test_every_command_has_help(command: str, capsys: Output) -> None:
    assert run([*command.split(), "--help"]) == 0
    assert f"Usage: aapo-desk {command}" in capsys.readouterr().out


def test_without_runs_the_list_says_how_to_begin(capsys: Output) -> None:
    assert run(["runs"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "aapo-desk demo" in captured.err
    assert run(["runs", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"


@pytest.mark.parametrize("command", [["runs", "--json"], ["runs", "list", "--json"]])
def test_runs_as_json_are_one_array_newest_first(command: list[str], finished: RunDirectory, capsys: Output) -> None:
    other = create_run(config())
    assert run(command) == 0
    newest, oldest = json.loads(capsys.readouterr().out)
    assert newest["id"] == newest["name"] == other.id
    assert newest["state"] == "starting"
    assert newest["reward"] is None
    assert oldest["name"] == "sums"
    assert (oldest["state"], oldest["step"], oldest["steps"], oldest["reward"]) == ("finished", 12, 12, 1.0)
    assert (oldest["model"], oldest["task"], oldest["algorithm"]) == ("owner/model", "arithmetic", "aapo")


@pytest.mark.usefixtures("finished")
def test_runs_as_lines_stand_in_columns(capsys: Output) -> None:
    create_run(config(), "a longer name")
    assert run(["runs", "list"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["run", "state", "step", "reward", "model", "created"]
    assert len(lines) == 2
    assert {line[header.index("state") :].split()[0] for line in lines} == {"starting", "finished"}


@pytest.mark.usefixtures("finished")
def test_a_broken_run_does_not_hide_the_others(capsys: Output) -> None:
    damaged, foreign = create_run(config(), "damaged"), create_run(config(), "foreign")
    damaged.database.write_bytes(b"no database at all, only text " * 100)
    foreign.config.write_text('{"from": "another version", "model": "x", "run": 3}')
    assert run(["runs", "--json"]) == 0
    listed = {facts["name"]: facts for facts in json.loads(capsys.readouterr().out)}
    assert set(listed) == {"sums", "damaged", "foreign"}
    assert "damaged" in listed["damaged"]["problem"]
    assert run(["runs"]) == 0


def test_show_tells_a_run_and_its_evaluations(finished: RunDirectory, capsys: Output) -> None:
    assert run(["runs", "show", "sums"]) == 0
    text = capsys.readouterr().out
    assert f"sums ({finished.id})" in text
    assert str(finished.checkpoints / "step_000012" / "adapter") in text
    assert re.search(r"difference +\+0\.40 \[\+0\.30, \+0\.50\]", text)
    assert run(["runs", "show", "last", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["evaluations"]["12"]["difference"]["mean"] == pytest.approx(0.4)
    assert facts["config"]["run"]["steps"] == 12
    assert facts["metrics"]["reward"] == 1.0


@pytest.mark.parametrize(
    ("algorithm", "said"),
    [
        ({"name": "aapo"}, "aapo"),
        ({"name": "aapo", "reference": "bank"}, "aapo, banked reference"),
        ({"name": "aapo", "pairing": "mean"}, "aapo, margin to the reference's mean"),
        ({"name": "grpo"}, "grpo"),
    ],
)
def test_show_tells_the_algorithm_and_how_it_departs_from_the_paper(
    algorithm: dict[str, Any], said: str, capsys: Output
) -> None:
    create_run(resolve({"model": {"id": "owner/model"}, "task": {"source": "arithmetic"}, "algorithm": algorithm}))
    assert run(["runs", "show", "last"]) == 0
    assert re.search(rf"^algorithm +{said}$", capsys.readouterr().out, flags=re.MULTILINE)


def test_watching_an_ended_run_tells_it_in_order_and_its_last_word(finished: RunDirectory, capsys: Output) -> None:
    assert run(["watch", finished.id[:-1]]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    kinds = [line.split()[0].rstrip(",") for line in lines[:16]]
    assert kinds == ["started", "evaluation", *["step"] * 6, "evaluation", *["step"] * 6, "evaluation"]
    assert "base " in captured.out
    assert "tuned, step 12" in captured.out
    assert f"adapter: {finished.checkpoints}/step_000012/adapter" in lines
    assert f"best by evaluation: {finished.checkpoints}/step_000006/adapter" in lines
    assert lines[-1] == f"finished, 12 of 12 steps; watch it with: aapo-desk watch {finished.id}"


def test_watching_a_failed_run_gives_its_reason_and_status_1(finished: RunDirectory, capsys: Output) -> None:
    status(finished, "failed", message="CUDA ran out of\nmemory\x1b[2J", step=4)
    assert run(["watch", "sums", "--headless"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(r"aapo-desk: run sums failed: CUDA ran out of\nmemory\x1b[2J (log: ")


def test_watching_a_stopped_run_says_how_it_goes_on(finished: RunDirectory, capsys: Output) -> None:
    status(finished, "stopped", step=4)
    assert run(["watch", "sums"]) == 1
    assert f"stopped after step 4 of 12; resume with: aapo-desk resume {finished.id}" in capsys.readouterr().err


def test_a_step_fits_a_line_and_leads_with_what_tells() -> None:
    line = step_line(7, 120, record(7).metrics | {"seconds_update": 4.0, "loss": 0.0})
    assert line == (
        "step   7/120  reward  0.583  ref  0.100  |adv| 0.80  teaching  90%  grad 0.400  tokens    5     6.5 s"
    )
    empty = step_line(8, 120, {"reward": None})
    assert len(empty) == len(line)
    assert "reward      -" in empty


def test_an_evaluation_is_a_line_with_intervals() -> None:
    assert evaluation_line(0, evaluation(0.3)) == (
        "evaluation, base model: greedy 0.30 [0.20, 0.40]  sampled 0.20 [0.10, 0.30]  100 problems"
    )
    assert "after step 20: greedy 0.55 [0.45, 0.65]  change -0.05 [-0.15, +0.05]" in evaluation_line(
        20, evaluation(0.55, -0.05)
    )


def test_show_tells_the_alarms_that_stand(finished: RunDirectory, capsys: Output) -> None:
    writer = RunWriter(finished)
    still = {"kind": "adapter_still", "title": "it does not move", "message": "10 of 10.", "advice": "Look at it."}
    writer.write_event("alarm", 9, **still, since=4, severity="critical")
    writer.write_event("alarm", 9, kind="memory", title="memory is nearly full")
    writer.write_event("alarm_over", 11, kind="memory", title="memory is nearly full", since=9)
    writer.close()
    assert run(["runs", "show", "last"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("alarm")]
    assert lines == ["alarm      critical, since step 4: it does not move. 10 of 10. Try: Look at it."]
    assert run(["runs", "show", "last", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["alarms"] == [still | {"since": 4, "severity": "critical"}]


def test_there_is_no_last_word_without_an_evaluation_before_and_after() -> None:
    assert base_against_tuned({}) == []
    assert base_against_tuned({0: evaluation(0.3)}) == []
    assert base_against_tuned({5: evaluation(0.3)}) == []


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        ("checkpoint", {"path": "checkpoints/step_000010", "best": 3}, "checkpoint step_000010"),
        ("unscorable", {"count": 2, "error": "took too long"}, "2 answers could not be scored: took too long"),
        ("resumed", {"from_step": 10}, "resumed after step 10"),
        (
            "dropped",
            {"count": 3, "source": "training"},
            "dropped 3 problems (training) because their prompts are too long",
        ),
        ("alarm", {"message": "no reward"}, "ALARM: no reward"),
        ("alarm", {"title": "cut off", "message": "Half.", "advice": "More."}, "ALARM: cut off. Half. Try: More."),
        ("alarm_over", {"title": "cut off", "since": 5}, "alarm over: cut off (since step 5)"),
        (
            "oom",
            {"phase": "update", "smaller": "half the micro-batch"},
            "out of memory in the update, which is repeated: half the micro-batch",
        ),
        ("notice", {"message": "clear\x1b[2J\nscreen"}, r"clear\x1b[2J\nscreen"),
        ("finished", {}, None),
    ],
)
def test_an_event_is_one_harmless_line(kind: str, data: dict[str, Any], expected: str | None) -> None:
    assert event_line(kind, data) == expected


def test_a_follower_says_each_step_once_also_after_a_resume_wrote_them_again() -> None:
    run = create_run(config())
    writer = RunWriter(run)
    follower = Follower(run)
    for step in range(1, 6):
        writer.write_step(record(step))
    assert [line.split()[1:3] for line in follower.look()] == [[f"{step}/12", "reward"] for step in range(1, 6)]
    assert list(follower.look()) == []
    writer.rewind(3)
    writer.write_event("resumed", 3, from_step=3)
    writer.write_step(record(4))
    lines = list(follower.look())
    assert [line for line in lines if line.startswith("step")] == [step_line(4, 12, record(4).metrics)]
    assert "resumed after step 3" in lines
    writer.close()


def test_a_follower_that_skips_says_only_what_comes_after() -> None:
    run = create_run(config())
    writer = RunWriter(run)
    writer.write_step(record(1))
    writer.write_evaluation(0, "held_out", evaluation(0.3))
    follower = Follower(run)
    follower.skip()
    writer.write_step(record(2))
    assert [line.split()[0] for line in follower.look()] == ["step"]
    assert 0 in follower.evaluations
    writer.close()


@pytest.mark.parametrize("command", ["pause", "stop", "checkpoint"])
def test_a_request_to_a_living_run_is_written_for_its_trainer(command: str, capsys: Output) -> None:
    started = launch.start(config(), "living", command=STAND_IN)
    until(lambda: launch.state(started) == "running")
    os.kill(lives(started)[0], signal.SIGSTOP)
    assert run([command, "living"]) == 0
    assert "run living: it " in capsys.readouterr().out
    (request,) = started.commands.glob("*.json")
    assert json.loads(request.read_text())["command"] == command
    os.kill(lives(started)[0], signal.SIGCONT)


@pytest.mark.parametrize("command", ["pause", "stop", "checkpoint", "resume"])
def test_a_request_to_a_finished_run_fails_in_one_line(command: str, finished: RunDirectory, capsys: Output) -> None:
    assert run([command, "last"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert "finished" in captured.err


def test_removing_takes_the_folder_and_spares_the_living(finished: RunDirectory, capsys: Output) -> None:
    living = launch.start(config(), command=STAND_IN)
    until(lambda: launch.state(living) == "running")
    assert run(["runs", "rm", living.id, "--yes"]) == 1
    assert "is running; stop it first" in capsys.readouterr().err
    assert run(["runs", "rm", "sums", "-y"]) == 0
    assert capsys.readouterr().out == "removed sums\n"
    assert not finished.path.exists()
    assert list_runs() == [living]


def test_presets_are_listed_and_shown(capsys: Output) -> None:
    assert run(["presets"]) == 0
    assert re.search(r"^demo +\w", capsys.readouterr().out, flags=re.MULTILINE)
    assert run(["presets", "list", "--json"]) == 0
    listed = {preset["name"]: preset for preset in json.loads(capsys.readouterr().out)}
    assert Path(listed["demo"]["path"]).is_file()
    assert run(["presets", "show", "demo"]) == 0
    assert "source: arithmetic" in capsys.readouterr().out
    assert run(["presets", "show", "demo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["rollout"]["group_size"] >= 2


def test_a_misspelt_command_names_the_nearest(capsys: Output) -> None:
    assert run(["runs", "shw"]) == 2
    said = "aapo-desk: No such command 'shw'. Did you mean 'show'? See: aapo-desk runs --help\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("family", ["study", "rewards"])
def test_a_family_without_a_command_shows_its_commands_a_line_each(family: str, capsys: Output) -> None:
    assert run([family]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"Usage: aapo-desk {family} [OPTIONS] COMMAND [ARGS]..."
    assert "Commands:" in lines


@pytest.fixture
def mishap() -> RunDirectory:
    """A run whose folder somebody has damaged: asking it for something fails in a way nobody foresaw."""
    broken = create_run(config(), "broken")
    broken.commands.rmdir()
    return broken


@pytest.mark.usefixtures("mishap")
def test_an_unforeseen_error_is_one_line_and_a_traceback_in_a_file(capsys: Output, desk_home: Path) -> None:
    assert run(["stop", "broken"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("aapo-desk: unexpected error: FileNotFoundError: ")
    (log,) = (desk_home / "logs").iterdir()
    assert str(log) in line
    assert "Traceback" in log.read_text()


@pytest.mark.usefixtures("mishap")
def test_the_traceback_is_shown_to_who_asks_for_it(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AAPO_DESK_DEBUG", "1")
    assert run(["stop", "broken"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err
