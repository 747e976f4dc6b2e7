"""Trainer processes: started, found alive or dead, asked, ended."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from aapo_desk import launch
from aapo_desk.config import ConfigError, RunConfig, resolve
from aapo_desk.launch import LaunchError
from aapo_desk.launch.child import environment
from aapo_desk.store import RunDirectory, create_run, find_run, list_runs, read_command, runs_folder
from aapo_desk.store.locks import hold
from tests.stand_in import STAND_IN, TRAINER, exists, lives, nothing_left_running, until

__all__ = ["nothing_left_running"]

pytestmark = pytest.mark.usefixtures("desk_home")


def config(**sections: Any) -> RunConfig:
    return resolve({"model": {"id": "owner/model"}, "task": {"source": "arithmetic"}} | sections)


@pytest.fixture
def running() -> RunDirectory:
    run = launch.start(config(), command=STAND_IN)
    until(lambda: launch.state(run) == "running")
    return run


def ask(run: RunDirectory, command: launch.Command, then: str) -> None:
    launch.request(run, command)
    until(lambda: launch.state(run) == then)


def test_a_started_trainer_is_alive_soon() -> None:
    run = launch.start(config(), "first", command=STAND_IN)
    assert launch.state(run) in ("starting", "running")
    until(lambda: launch.state(run) == "running")
    assert launch.is_alive(run)
    assert launch.reason(run) is None


def test_before_the_trainer_says_a_word_the_run_is_starting_and_can_be_ended() -> None:
    run = launch.start(config(), command=[sys.executable, "-c", "import time; time.sleep(60)"])
    status = run.read_status()
    words = {"state", "phase", "step", "steps", "budget", "progress", "message", "heartbeat", "started", "pid", "host"}
    assert set(status) == words
    assert (status["state"], status["step"], status["steps"]) == ("starting", 0, 100)
    assert launch.state(run) == "starting"
    assert not launch.is_alive(run)
    launch.kill(run)
    until(lambda: launch.state(run) == "crashed")


def test_the_trainer_has_a_session_of_its_own_no_input_and_its_output_in_the_log(running: RunDirectory) -> None:
    (pid,) = lives(running)
    assert os.getsid(pid) == pid != os.getsid(0)
    text = running.log.read_text()
    assert f"stdin '' cwd {running.path}" in text
    assert text.startswith("--- starting the trainer")
    assert running.log.stat().st_mode & 0o077 == 0


def test_the_trainer_outlives_the_program_that_started_it(desk_home: Path) -> None:
    script = (
        "import sys; from aapo_desk import launch; from aapo_desk.config import resolve\n"
        "config = resolve({'model': {'id': 'a/b'}, 'task': {'source': 'arithmetic'}})\n"
        "print(launch.start(config, command=[sys.executable, '-c', sys.argv[1]]).path)"
    )
    arguments = [sys.executable, "-c", script, TRAINER]
    done = subprocess.run(arguments, env=environment(), capture_output=True, text=True, check=True, timeout=30)
    assert done.stderr == ""
    run = RunDirectory(Path(done.stdout.strip()))
    until(lambda: launch.state(run) == "running")
    time.sleep(0.2)
    assert launch.is_alive(run)


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (["-c", "import no_such_module_at_all"], "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        (["-m", "no_such_module_at_all"], "No module named no_such_module_at_all"),
        (["-c", "raise MemoryError"], "MemoryError"),
        (["-c", "import os; os.abort()"], "Fatal Python error: Aborted"),
        (["-c", "pass"], "without an error message"),
    ],
)
def test_a_trainer_that_dies_at_once_is_crashed_with_the_reason_from_its_log(program: list[str], expected: str) -> None:
    run = launch.start(config(), command=[sys.executable, "-X", "faulthandler", *program])
    until(lambda: launch.state(run) == "crashed")
    assert expected in str(launch.reason(run))
    assert "\n" not in str(launch.reason(run))


def test_the_reason_is_that_of_the_last_start() -> None:
    run = launch.start(config(), command=[sys.executable, "-c", "import no_such_module_at_all"])
    until(lambda: launch.state(run) == "crashed")
    launch.resume(run, command=[sys.executable, "-c", "raise ValueError('second try')"])
    until(lambda: launch.state(run) == "crashed")
    assert launch.reason(run) == "ValueError: second try"


def test_of_what_is_told_in_a_log_the_last_of_the_last_start_counts() -> None:
    run = launch.start(config(), command=[sys.executable, "-c", "raise ValueError('first try')"])
    until(lambda: launch.state(run) == "crashed")
    launch.resume(run, command=[sys.executable, "-c", "pass"])
    until(lambda: launch.state(run) == "crashed")
    assert "without an error message" in str(launch.reason(run))
    two = (
        "try:\n    raise ValueError('cause')\nexcept ValueError as error:\n    raise RuntimeError('outcome') from error"
    )
    launch.resume(run, command=[sys.executable, "-c", two])
    until(lambda: launch.state(run) == "crashed")
    assert launch.reason(run) == "RuntimeError: outcome"


def test_a_program_that_cannot_be_started_leaves_no_run_behind(desk_home: Path) -> None:
    with pytest.raises(LaunchError, match="the trainer cannot be started: No such file"):
        launch.start(config(), command=["/no/such/program"])
    assert list((desk_home / "runs").iterdir()) == []


def test_a_killed_trainer_is_crashed_not_running(running: RunDirectory) -> None:
    assert running.read_status()["state"] == "running"
    os.killpg(lives(running)[0], signal.SIGKILL)
    until(lambda: launch.state(running) == "crashed")
    assert "without an error message" in str(launch.reason(running))


def test_a_failed_run_gives_the_trainers_own_reason() -> None:
    run = create_run(config())
    run.status.write_text(json.dumps({"state": "failed", "message": "CUDA ran out of memory", "heartbeat": 0}))
    assert launch.state(run) == "failed"
    assert launch.reason(run) == "CUDA ran out of memory"


@pytest.mark.parametrize("age", [3600, -3600])  # old, or the clock has been set back since
def test_a_run_without_a_word_yet_is_starting_while_it_is_new(age: float) -> None:
    run = create_run(config())
    assert launch.state(run) == "starting"
    os.utime(run.config, (time.time() - age,) * 2)
    assert launch.state(run) == "crashed"


@pytest.mark.parametrize("claimed", ["starting", "running"])
@pytest.mark.parametrize(
    ("age", "host", "alive"),
    [
        (0, socket.gethostname(), False),  # its process is gone
        (0, "another-machine", True),  # nobody here can look, so it is believed for a while
        (3600, "another-machine", False),
        (-3600, "another-machine", False),  # a clock was set
    ],
)
def test_a_claim_to_live_without_a_lock_is_believed_only_while_it_can_be_true(
    age: float, host: str, alive: bool, claimed: str
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    run = create_run(config())
    run.lock.touch()  # left over, held by nobody
    status = {"state": claimed, "heartbeat": time.time() - age, "pid": ended.pid, "host": host}
    run.status.write_text(json.dumps(status))
    assert launch.state(run) == (claimed if alive else "crashed")
    if alive:
        with pytest.raises(LaunchError, match=f"is {claimed} already"):
            launch.resume(run, command=STAND_IN)


def test_a_process_that_has_the_trainers_number_does_not_make_a_run_live() -> None:
    """On its way to the lock a trainer may be seen by its number alone; one that says "running" holds the lock."""
    run = create_run(config())
    run.lock.touch()

    def said(state: str, pid: int) -> str:
        status = {"state": state, "heartbeat": time.time(), "pid": pid, "host": socket.gethostname()}
        run.status.write_text(json.dumps(status))
        return launch.state(run)

    assert said("running", os.getpid()) == "crashed"
    assert said("starting", os.getpid()) == "starting"
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        until(lambda: psutil.Process(ended.pid).status() == psutil.STATUS_ZOMBIE)
        assert said("starting", ended.pid) == "crashed"


def test_a_run_directory_that_was_moved_here_from_another_machine_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = create_run(config(), "moved")
    there.lock.touch()
    status = {"state": "running", "step": 3, "heartbeat": time.time() - 60, "pid": os.getpid(), "host": "old-machine"}
    there.status.write_text(json.dumps(status))
    monkeypatch.setenv("AAPO_DESK_HOME", str(tmp_path / "new-home"))
    shutil.copytree(there.path, runs_folder() / there.id)
    here = find_run("moved")
    assert launch.state(here) == "crashed", "a process here has the number that its trainer had there"
    launch.resume(here, command=STAND_IN)
    until(lambda: launch.state(here) == "running")
    assert not launch.is_alive(there)


def test_asking_whether_it_lives_does_not_keep_a_trainer_from_its_lock() -> None:
    run = create_run(config())
    run.lock.touch()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            launch.is_alive(run)

    watchers = [threading.Thread(target=look) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    try:
        os.utime(run.config, (0, 0))
        launch.resume(run, command=STAND_IN)
        until(lambda: run.read_status().get("state") == "running")
    finally:
        stop.set()
        for watcher in watchers:
            watcher.join()
    assert launch.is_alive(run)


def test_two_readers_at_once_do_not_take_each_other_for_a_trainer() -> None:
    run = create_run(config())
    run.lock.touch()
    with run.lock.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert not launch.is_alive(run)


def test_a_run_without_a_lock_file_is_not_alive_and_gets_none_by_asking() -> None:
    run = create_run(config())
    assert not launch.is_alive(run)
    assert not run.lock.exists()


def test_requests_reach_the_trainer(running: RunDirectory) -> None:
    ask(running, "pause", then="paused")
    launch.resume(running)
    until(lambda: launch.state(running) == "running")
    ask(running, "stop", then="stopped")
    until(lambda: not launch.is_alive(running))
    assert list(running.commands.iterdir()) == []


@pytest.mark.parametrize("command", launch.COMMANDS)
def test_a_run_that_does_not_live_cannot_be_asked(command: launch.Command, running: RunDirectory) -> None:
    ask(running, "stop", then="stopped")
    until(lambda: not launch.is_alive(running))
    with pytest.raises(LaunchError, match=rf"is not running \(stopped\), so it cannot be asked to {command}"):
        launch.request(running, command)
    assert list(running.commands.iterdir()) == []


def test_a_stopped_run_goes_on_in_a_new_process_without_old_requests(running: RunDirectory) -> None:
    ask(running, "stop", then="stopped")
    until(lambda: not launch.is_alive(running))
    (running.commands / "old.json").write_text(json.dumps({"command": "stop", "time": 0}))
    launch.resume(running, command=STAND_IN)
    assert launch.state(running) in ("starting", "running")
    until(lambda: len(lives(running)) == 2)
    time.sleep(0.1)
    assert launch.state(running) == "running"


def test_resume_takes_back_a_pause_that_was_not_carried_out_yet(running: RunDirectory) -> None:
    os.kill(lives(running)[0], signal.SIGSTOP)
    launch.request(running, "pause")
    launch.resume(running)
    commands = [json.loads(path.read_text())["command"] for path in running.commands.iterdir()]
    assert sorted(commands) == ["pause", "resume"]
    os.kill(lives(running)[0], signal.SIGCONT)


def test_resume_is_refused_where_it_makes_no_sense(running: RunDirectory) -> None:
    with pytest.raises(LaunchError, match="is running already"):
        launch.resume(running, command=STAND_IN)
    ask(running, "checkpoint", then="finished")  # the stand-in's way to come to its end
    until(lambda: not launch.is_alive(running))
    with pytest.raises(LaunchError, match="has finished all its steps"):
        launch.resume(running, command=STAND_IN)


def test_a_plan_is_not_changed_under_a_trainer(running: RunDirectory) -> None:
    said = (
        "is running, but its number of steps can only be changed while it is stopped; "
        f"stop it first with: aapo-desk stop {running.id}"
    )
    with pytest.raises(LaunchError, match=said):
        launch.resume(running, steps=20)
    ask(running, "pause", then="paused")
    with pytest.raises(LaunchError, match="is paused, but its number of steps can only be changed while it is stopped"):
        launch.resume(running, steps=20)
    assert launch.state(running) == "paused"


def test_a_plan_may_end_with_the_warm_up_and_not_in_it() -> None:
    run = create_run(config(optimizer={"learning_rate": 1e-3, "warmup_steps": 5}, run={"steps": 9}))
    run.status.write_text(json.dumps({"state": "stopped", "step": 0}))
    with pytest.raises(ConfigError, match=r"--steps = 4: is less than optimizer\.warmup_steps \(5\)"):
        launch.resume(run, command=STAND_IN, steps=4)
    launch.resume(run, command=STAND_IN, steps=5)
    assert run.replanned_steps() == 5


def test_a_request_that_cannot_be_written_is_told_unless_its_name_finds_room(
    running: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = OSError(errno.EROFS, "Read-only file system")

    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr("aapo_desk.launch.trainer.write_atomically", refuse)
    with pytest.raises(OSError, match="Read-only"):
        launch.request(running, "pause")
    assert list(running.commands.iterdir()) == []
    error = OSError(errno.ENOSPC, "No space left on device")
    run = create_run(config())
    run.status.write_text(running.status.read_text())
    with hold(run.lock):
        launch.request(run, "pause")
        (asked,) = run.commands.iterdir()
        assert read_command(asked) == "pause"
        assert asked.stat().st_size == 0


def test_of_two_resumes_at_once_one_starts_a_trainer(running: RunDirectory) -> None:
    ask(running, "stop", then="stopped")
    until(lambda: not launch.is_alive(running))
    refusals: list[str] = []

    def resume() -> None:
        try:
            launch.resume(running, command=STAND_IN)
        except LaunchError as error:
            refusals.append(str(error))

    both = [threading.Thread(target=resume) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    until(lambda: launch.state(running) == "running")
    assert len(refusals) == 1
    assert "already" in refusals[0]
    assert len(lives(running)) == 2


def test_ending_at_once_takes_the_workers_along(running: RunDirectory) -> None:
    worker = int((running.path / "worker").read_text())
    assert exists(worker)
    launch.kill(running)
    until(lambda: not exists(worker))
    until(lambda: launch.state(running) == "crashed")
    with pytest.raises(LaunchError, match="is not running"):
        launch.kill(running)


def test_a_process_that_is_no_trainer_is_not_ended(running: RunDirectory) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])  # in our own group
    try:
        honest = running.read_status()
        os.kill(honest["pid"], signal.SIGSTOP)
        running.status.write_text(json.dumps(honest | {"pid": bystander.pid}))
        with pytest.raises(LaunchError, match="has no trainer process"):
            launch.kill(running)
        running.status.write_text(json.dumps(honest | {"host": "another-machine"}))
        with pytest.raises(LaunchError, match="runs on another-machine; end it there"):
            launch.kill(running)
        assert bystander.poll() is None
        running.status.write_text(json.dumps(honest))
        os.kill(honest["pid"], signal.SIGCONT)
    finally:
        bystander.kill()
        bystander.wait()


def test_a_run_is_removed_only_when_nothing_trains_in_it(running: RunDirectory) -> None:
    with pytest.raises(LaunchError, match="is running; stop it first"):
        launch.remove(running)
    ask(running, "stop", then="stopped")
    until(lambda: not launch.is_alive(running))
    launch.remove(running)
    assert not running.path.exists()
    assert list_runs() == []
