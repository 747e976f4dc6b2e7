"""The look at a configuration before a run exists: cheap refusals, and the process that knows the tokenizer."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aapo_desk import hardware, launch
from aapo_desk.config import ConfigError, RunConfig, resolve
from aapo_desk.launch import LaunchError, Preflight
from aapo_desk.launch.child import environment, python
from tests.stand_in import exists, until


def config(**sections: Any) -> RunConfig:
    return resolve({"model": {"id": "owner/model"}, "task": {"source": "arithmetic"}} | sections)


PREFLIGHT = """
import json, sys
config = json.loads(sys.stdin.read())
print(json.dumps({"progress": "reading " + config["model"]["id"]}), file=sys.stderr)
print("a library's warning", file=sys.stderr)
print(json.dumps({"progress": "measuring"}), file=sys.stderr)
"""
FOUND = {
    "train": 5,
    "held_out": 2,
    "dropped": 1,
    "dropped_held_out": 0,
    "longest_prompt": 40,
    "model": "/m",
    "revision": None,
    "task_revision": None,
}
SHOWN = {"prompts": ["<user> 1 + 2"], "prompt_tokens": [7], "answers": ["3"], "notes": ["using the column q"]}


def preflight(script: str, progress: Callable[[str], None] = lambda _: None) -> launch.Preflight:
    return launch.preflight(config(), progress, command=[sys.executable, "-c", script])


def test_a_preflight_gives_its_progress_and_what_it_found() -> None:
    said: list[str] = []
    answer = json.dumps({"ok": True} | SHOWN | FOUND)
    found = preflight(f"{PREFLIGHT}\nprint({answer!r})", said.append)
    assert said == ["reading owner/model", "measuring"]
    assert (found.train, found.held_out, found.dropped, found.longest_prompt) == (5, 2, 1, 40)
    assert (found.prompts, found.prompt_tokens) == (["<user> 1 + 2"], [7])
    assert (found.answers, found.notes) == (["3"], ["using the column q"])


def test_a_run_is_pinned_to_the_commits_that_were_looked_at() -> None:
    given = config(task={"source": "hub:owner/data", "revision": "v1"})
    looked = Preflight(**FOUND, prompts=[], prompt_tokens=[], answers=[], notes=[])  # type: ignore[arg-type]
    assert looked.pin(given) == given
    pinned = replace(looked, revision="a" * 40, task_revision="b" * 40).pin(given)
    assert (pinned.model.revision, pinned.task.revision) == ("a" * 40, "b" * 40)
    assert pinned.model_copy(update={"model": given.model, "task": given.task}) == given


def test_a_preflight_that_refuses_is_a_configuration_error() -> None:
    problem = {
        "path": "task.problem_column",
        "message": "there is no such column; there are: q, a",
        "given": "question",
        "origin": "",
        "nearest": "q",
    }
    answer = json.dumps({"ok": False, "problems": [problem]})
    with pytest.raises(ConfigError) as error:
        preflight(f"{PREFLIGHT}\nprint({answer!r}); sys.exit(2)")
    assert (
        str(error.value)
        == "task.problem_column = 'question': there is no such column; there are: q, a; did you mean q?"
    )


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ('print(json.dumps({"ok": False, "error": "no network"})); sys.exit(1)', "no network"),
        ("sys.exit('it broke')", r"ended without an answer \(exit status 1\): it broke"),
        ("print('not JSON')", r"ended without an answer \(exit status 0\): a library's warning"),
        ("import os; os.kill(os.getpid(), 9)", r"exit status -9"),
    ],
)
def test_a_preflight_that_fails_says_why_in_one_line(end: str, expected: str) -> None:
    with pytest.raises(LaunchError, match=expected) as error:
        preflight(f"{PREFLIGHT}\n{end}")
    assert "\n" not in str(error.value)


def test_a_preflight_that_dies_before_it_reads_is_no_broken_pipe() -> None:
    long = config(task={"source": "arithmetic", "system_prompt": "x" * 1_000_000})
    with pytest.raises(LaunchError, match=r"ended without an answer \(exit status 3\)"):
        launch.preflight(long, command=[sys.executable, "-c", "import os; os._exit(3)"])


def test_a_cancelled_preflight_ends_with_all_it_started(tmp_path: Path) -> None:
    child = tmp_path / "child"
    script = (
        "import subprocess, sys, time\n"
        "process = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(child)!r}, 'w').write(str(process.pid)); time.sleep(60)"
    )
    cancelled = threading.Event()

    def cancel() -> None:
        until(lambda: child.exists() and child.read_text())
        cancelled.set()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(LaunchError, match="cancelled; nothing was started"):
        launch.preflight(config(), cancelled=cancelled, command=[sys.executable, "-c", script])
    thread.join()
    until(lambda: not exists(int(child.read_text())))


def test_a_users_file_beside_them_does_not_stand_in_for_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    monkeypatch.chdir(tmp_path)
    done = subprocess.run(
        [*python("aapo_desk"), "--version"], env=environment(), capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stderr == ""
    assert done.stdout.startswith("aapo-desk ")


@pytest.mark.skipif(bool(hardware.gpus()), reason="this machine has a GPU")
def test_a_gpu_is_asked_for_in_vain_with_the_way_to_do_without() -> None:
    with pytest.raises(ConfigError, match=r"model\.device = 'cuda': .*--set model\.device=cpu.*aapo-desk demo"):
        launch.check(config(model={"id": "owner/model", "device": "cuda"}))


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        launch.check(config(task={"source": f"file:{tmp_path}/none.jsonl"}, rewards=[{"name": "mathh"}]))
    assert [problem.path for problem in error.value.problems] == ["task.source", "rewards.0.name"]


def test_paths_become_absolute_before_the_run_is_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    Path("my model").mkdir()
    given = config(
        model={"id": "my model"},
        task={"source": "file:data/sums.jsonl"},
        rewards=[{"name": "score.py:fair"}, {"name": "~/other.py:fair"}, {"name": "math"}],
    )
    seen = launch.with_absolute_paths(given)
    assert seen.model.id == f"{tmp_path}/my model"
    assert seen.task.source == f"file:{tmp_path}/data/sums.jsonl"
    assert [reward.name for reward in seen.rewards] == [
        f"{tmp_path}/score.py:fair",
        f"{tmp_path}/user/other.py:fair",
        "math",
    ]
    for untouched in ({"id": "owner/model"}, {"id": "pip:a==1/b.gguf#sha256=0"}):
        assert launch.with_absolute_paths(config(model=untouched)) == config(model=untouched)
