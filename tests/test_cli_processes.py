"""The whole program in a process of its own: pipes, signals, a terminal, and the tiny model from start to end."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aapo_desk import launch
from aapo_desk.cli.app import run
from aapo_desk.launch.child import environment
from aapo_desk.store import RunDirectory, RunWriter, create_run, find_run, list_runs
from tests.run_data import config, finished, record
from tests.stand_in import STAND_IN, lives, nothing_left_running, until

__all__ = ["finished", "nothing_left_running"]

pytestmark = pytest.mark.usefixtures("desk_home")


@contextmanager
def program(*arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env=environment() | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding=variables.get("PYTHONIOENCODING", "utf-8"),
        # Who started the tests in the background has Ctrl-C ignored, and the child would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_a_reader_that_goes_away_gets_no_traceback(finished: RunDirectory) -> None:
    with program("-m", "aapo_desk", "watch", "last") as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""


def test_an_output_without_room_is_not_taken_for_the_homes_disk(desk_home: Path) -> None:
    desk_home.mkdir()
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "aapo_desk", "presets"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert ended.returncode == 1
    said = f"the disk written to is full (not the disk of {desk_home}); free some space on it, or write elsewhere"
    assert ended.stderr == f"aapo-desk: {said}\n"


def test_an_output_without_unicode_does_not_break_the_work() -> None:
    create_run(config(), "größer 三")
    with program("-m", "aapo_desk", "runs", PYTHONIOENCODING="latin-1") as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert "größer ?" in out


FOLLOW = """
import sys
from pathlib import Path
from aapo_desk.cli.follow import Follower, follow
from aapo_desk.store import RunDirectory
sys.exit(follow(Follower(RunDirectory(Path(sys.argv[1]))), ends_the_run=sys.argv[2] == "ends"))
"""


@pytest.fixture
def living() -> RunDirectory:
    run = launch.start(config(), command=STAND_IN)
    until(lambda: launch.state(run) == "running")
    return run


@contextmanager
def following(run: RunDirectory, mode: str) -> Iterator[subprocess.Popen[str]]:
    with program("-c", FOLLOW, str(run.path), mode) as process:
        writer = RunWriter(run)
        writer.write_step(record(1))
        writer.close()
        assert process.stdout
        assert process.stdout.readline().startswith("step")  # it listens to signals by now
        yield process


def test_ctrl_c_in_a_headless_run_asks_it_to_stop_and_waits_for_its_end(living: RunDirectory) -> None:
    with following(living, "ends") as process:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "asked the run to write a checkpoint and stop" in err
    assert "stopped after step 3 of 12; resume with: aapo-desk resume" in err
    assert launch.state(living) == "stopped"


def test_a_second_ctrl_c_ends_it_at_once(living: RunDirectory) -> None:
    (trainer,) = lives(living)
    os.kill(trainer, signal.SIGSTOP)  # it cannot answer the first
    with following(living, "ends") as process:
        process.send_signal(signal.SIGINT)
        assert process.stderr
        assert "asked the run" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "killed the run" in err
    assert launch.state(living) == "crashed"


def test_ctrl_c_while_watching_leaves_the_run_running(living: RunDirectory) -> None:
    with following(living, "watches") as process:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert f"the run continues; watch it again with: aapo-desk watch {living.id}" in err
    time.sleep(0.1)
    assert launch.state(living) == "running"
    assert not list(living.commands.iterdir())


def test_a_terminal_that_disappears_takes_the_follower_along_and_leaves_the_run_running(living: RunDirectory) -> None:
    with following(living, "ends") as process:
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=30)
    assert process.returncode == -signal.SIGHUP
    time.sleep(0.1)
    assert launch.state(living) == "running"
    assert not list(living.commands.iterdir())


def test_ctrl_c_in_the_preflight_starts_nothing(tmp_path: Path, tiny_config: dict[str, Any]) -> None:
    preset = tmp_path / "tiny.yaml"
    preset.write_text(json.dumps(tiny_config))
    with program("-m", "aapo_desk", "train", str(preset)) as process:
        assert process.stdout
        assert process.stdout.readline() == "reading arithmetic\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "aapo-desk: cancelled; nothing was started\n")
    assert list_runs() == []


def in_a_terminal(*arguments: str, keys: bytes = b"", after: bytes = b"") -> tuple[int, bytes]:
    """Run the program in a terminal, press ``keys`` once ``after`` was drawn; its exit status and all it drew."""
    terminal, theirs = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "aapo_desk", *arguments],
        env=environment() | {"TERM": "xterm-256color"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    drawn = b""
    with contextlib.suppress(OSError):  # how a terminal says that its program has gone
        while chunk := os.read(terminal, 65536):
            drawn += chunk
            if keys and after in drawn:
                os.write(terminal, keys)
                keys = b""
    os.close(terminal)
    return process.wait(timeout=30), drawn


@pytest.mark.usefixtures("finished")
def test_in_a_terminal_a_run_is_watched_on_the_screen() -> None:
    status, drawn = in_a_terminal("watch", "sums", keys=b"q", after=b"sums")
    assert status == 0
    assert b"\x1b[?1049h" in drawn, "the screen was drawn"


def test_in_a_terminal_a_refusal_comes_before_any_screen() -> None:
    status, drawn = in_a_terminal("demo", "--set", "rollout.group_size=1", "--set", "rewards.0.name=mathh")
    assert status == 2
    assert b"\x1b[" not in drawn
    assert drawn.startswith(b"rollout.group_size = 1 (from --set): ")


@pytest.mark.slow
def test_a_headless_run_trains_the_tiny_model_to_its_last_word(tmp_path: Path, tiny_config: dict[str, Any]) -> None:
    preset = tmp_path / "tiny.yaml"
    preset.write_text(json.dumps(tiny_config | {"rewards": [{"name": "math"}, *tiny_config["rewards"]]}))
    with program("-m", "aapo_desk", "train", str(preset), "--headless", "--name", "tiny") as process:
        out, err = process.communicate(timeout=240)
    assert (process.returncode, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("step ")] == ["1/3", "2/3", "3/3"]
    assert len([line for line in lines if line.startswith("evaluation, ")]) == 2
    assert any(line.split()[0] == "difference" for line in lines)
    adapter = next(line for line in lines if line.startswith("adapter: ")).removeprefix("adapter: ")
    assert Path(adapter, "adapter_config.json").is_file()
    assert lines[-1].startswith("finished, 3 of 3 steps")


@pytest.mark.slow
def test_a_detached_run_is_stopped_and_resumed_to_its_end(tmp_path: Path, tiny_config: dict[str, Any]) -> None:
    preset = tmp_path / "tiny.yaml"
    tiny_config["run"]["steps"] = 20
    preset.write_text(json.dumps(tiny_config))
    with program("-m", "aapo_desk", "train", str(preset), "--detach") as process:
        out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    started = find_run("last")
    assert f"stop:  aapo-desk stop {started.id}" in out
    until(lambda: started.read_status().get("step", 0) >= 2, seconds=120)
    assert run(["stop", "last"]) == 0
    until(lambda: launch.state(started) == "stopped", seconds=60)
    until(lambda: not launch.is_alive(started))
    before = started.read_status()["step"]
    with program("-m", "aapo_desk", "resume", "last", "--headless") as process:
        out, err = process.communicate(timeout=240)
    assert (process.returncode, err) == (0, "")
    steps = [line.split()[1] for line in out.splitlines() if line.startswith("step ")]
    assert steps == [f"{step}/20" for step in range(before + 1, 21)], "no step twice, none left out"
