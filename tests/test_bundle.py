"""The archive for a bug report: what is in it, what is not, and that a damaged run gives one too."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aapo_desk.bundle import Bundle, make
from aapo_desk.bundle.privacy import Privacy
from aapo_desk.cli.app import run as command
from aapo_desk.config import resolve
from aapo_desk.store import RunDirectory, RunWriter, Sample, StepRecord, create_run
from tests.run_data import evaluation

Output = pytest.CaptureFixture[str]

SECRET = "correct-horse-battery-42"
SYSTEM_PROMPT, PROMPT, COMPLETION = "You are my diary.", "What did I do on Monday?", "You robbed\na bank."
ALWAYS = {"README.txt", "state.json", "machine.json", "config.json", "meta.json", "status.json", "record.json"}
ALWAYS |= {"events.jsonl", "metrics.jsonl", "evaluations.json", "system.jsonl", "files.json", "train.log"}


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with a home folder, a token and a secret in the environment, and a current folder."""
    user = tmp_path / "home" / "alice"
    (user / "here").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(user))
    monkeypatch.setenv("AAPO_DESK_HOME", str(user / "desk"))
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.chdir(user / "here")
    return user


@pytest.fixture
def crashed(user: Path) -> RunDirectory:
    """A run with texts of the user in every place that has any."""
    config = resolve(
        {
            "model": {"id": str(user / "models" / "mine")},
            "task": {"source": f"file:{user}/diary.jsonl", "system_prompt": SYSTEM_PROMPT},
        }
    )
    run = create_run(config, "crashed")
    run.meta.write_text(json.dumps(run.read_meta() | {"notes": PROMPT}))
    run.status.write_text(json.dumps({"state": "running", "step": 2, "heartbeat": 1.0, "host": "alices-laptop"}))
    writer = RunWriter(run)
    writer.remember("about", {"versions": {"torch": "2.13.0"}})
    for step in (1, 2):
        samples = [_sample(step, is_reference) for is_reference in (False, True)]
        writer.write_step(StepRecord(step, float(step), {"reward": step / 4}, {}, samples))
    writer.write_system({"cores": 2})
    writer.write_evaluation(2, "held_out", evaluation(0.5) | {"ids": ["p1"], "greedy": {"answers": [COMPLETION]}})
    error = f"polite: raised ValueError: no score for {COMPLETION[:9]} (line 3)"
    writer.write_event("unscorable", 2, count=1, error=error, function="polite", completion=COMPLETION)
    writer.close()
    run.log.write_text(
        f"12:00 WARNING 1 completions could not be scored; the first: {error}\n"
        f"12:01 INFO loading {user}/models/mine with {SECRET} from https://alice:pa55@hub.example/x\n"
        f"12:02 INFO Authorization: Bearer abcdefgh12345678ijkl and hf_{'a1' * 17}\n"
        f"12:03 INFO the example was {COMPLETION!r}\n"
        "Traceback (most recent call last)\nRuntimeError: CUDA error: an illegal memory access was encountered\n"
    )
    return run


def _sample(step: int, is_reference: bool) -> Sample:
    return Sample(
        step=step,
        prompt_id="p1",
        row=0,
        prompt=PROMPT,
        completion=COMPLETION,
        answer="robbed",
        reward=None,
        rewards={},
        group_advantage=None,
        margin=None,
        advantage=None,
        tokens=4,
        truncated=False,
        is_reference=is_reference,
    )


def contents(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name).decode() for name in archive.namelist()}


def bundled(run: RunDirectory, with_samples: bool = False) -> tuple[Bundle, dict[str, str]]:
    made = make(run, run.path.parent / "out.zip", with_samples)
    return made, contents(made.path)


def test_a_bundle_holds_what_a_bug_report_needs(crashed: RunDirectory) -> None:
    made, parts = bundled(crashed)
    assert made.problems == []
    assert set(parts) == ALWAYS == set(made.files)
    state = json.loads(parts["state.json"])
    assert (state["state"], state["reason"]) == (
        "crashed",
        "RuntimeError: CUDA error: an illegal memory access was encountered",
    )
    assert [json.loads(line)["reward"] for line in parts["metrics.jsonl"].splitlines()] == [0.25, 0.5]
    (event,) = map(json.loads, parts["events.jsonl"].splitlines())
    assert event["data"]["error"] == "polite: raised ValueError: (left out) (line 3)"
    assert event["data"]["completion"] == f"(left out: {len(COMPLETION)} characters)"
    machine = json.loads(parts["machine.json"])
    assert machine["versions"]["torch"]
    assert machine["environment"]["OMP_NUM_THREADS"] == "3"
    assert json.loads(parts["record.json"])["about"] == {"versions": {"torch": "2.13.0"}}
    assert json.loads(parts["config.json"])["rollout"]["group_size"] >= 2
    assert json.loads(parts["status.json"])["host"] == "another machine"
    assert json.loads(parts["files.json"])["config.json"]["mode"] == "0o600"
    assert made.path.stat().st_mode & 0o077 == 0


SECRETS = (SECRET, "pa55", "abcdefgh12345678ijkl", "a1a1a1", "alice")
TEXTS = (SYSTEM_PROMPT, PROMPT, COMPLETION, repr(COMPLETION)[1:-1], COMPLETION[:9], "robbed")


@pytest.mark.parametrize("with_samples", [False, True])
def test_the_users_data_are_in_it_only_when_asked_for_and_tokens_never(
    crashed: RunDirectory, with_samples: bool
) -> None:
    _, parts = bundled(crashed, with_samples)
    whole = "\n".join(parts.values())
    assert [secret for secret in SECRETS if secret in whole] == []
    found = [text for text in TEXTS if text in whole.replace("\\n", "\n")]
    if with_samples:
        assert {SYSTEM_PROMPT, PROMPT, COMPLETION} <= set(found)
        assert len(parts["samples.jsonl"].splitlines()) == 4
    else:
        assert found == []
        assert "samples.jsonl" not in parts
    assert "~/models/mine" in parts["config.json"]
    assert "~/models/mine" in parts["train.log"]


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink()


def _instead(path: Path, make: Callable[[Path], None]) -> None:
    path.unlink()
    make(path)


DAMAGE: dict[str, tuple[Callable[[RunDirectory], Any], set[str]]] = {
    "no database": (lambda run: _remove(run.database), set()),
    "a database that is none": (
        lambda run: run.database.write_bytes(b"x" * 8192),
        {"record.json", "events.jsonl", "metrics.jsonl", "evaluations.json", "system.jsonl"},
    ),
    "a configuration that is none": (lambda run: run.config.write_text("{"), {"config.json"}),
    "a configuration of nobody": (lambda run: run.config.write_text("[]"), set()),
    "a status of nonsense": (lambda run: run.status.write_text('{"state": 3, "heartbeat": "x"}'), set()),
    "nothing but a configuration": (
        lambda run: _remove(*(path for path in run.path.iterdir() if path.is_file() and path != run.config)),
        {"meta.json", "status.json", "train.log"},
    ),
    "a log that is a folder": (lambda run: _instead(run.log, Path.mkdir), set()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_gives_what_is_left_and_says_what_is_not(damage: str, crashed: RunDirectory) -> None:
    break_it, missing = DAMAGE[damage]
    break_it(crashed)
    made, parts = bundled(crashed)
    assert set(parts) == ALWAYS - missing
    assert {problem.partition(" ")[0] for problem in made.problems} == missing
    assert all(problem in parts["README.txt"] for problem in made.problems)


def test_the_command_writes_it_here_under_the_runs_name(crashed: RunDirectory, capsys: Output, user: Path) -> None:
    assert command(["runs", "export", "last", "--bundle"]) == 0
    written = user / "here" / f"aapo-desk-{crashed.id}.zip"
    assert capsys.readouterr().out.startswith(f"{written}: README.txt, events.jsonl")
    assert command(["runs", "export", "last", "--bundle", "--to", "other.zip", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["path"], set(said["files"]), said["problems"]) == (str(user / "here" / "other.zip"), ALWAYS, [])


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["last"], 2, r"--bundle: is missing; to export an adapter, run: aapo-desk export RUN"),
        (["nobody", "--bundle"], 2, "RUN = 'nobody': there is no such run"),
        (["last", "--bundle", "--to", "out.tar"], 2, "--to = 'out.tar': must be an existing folder or a file name"),
        (["last", "--bundle", "--to", "no/out.zip"], 2, "/here/no does not exist"),
        (["last", "--bundle", "--to", "taken.zip"], 2, "already exists; give another name or remove it"),
        (["last", "--bundle", "--to", f"{'x' * 300}.zip"], 2, "cannot be used: File name too long"),
        (["last", "--bundle", "--to", f"{'x' * 250}.zip"], 1, "cannot be written: File name too long"),
    ],
)
@pytest.mark.usefixtures("crashed")
def test_what_cannot_be_done_is_said_in_a_line(
    arguments: list[str], status: int, expected: str, capsys: Output, user: Path
) -> None:
    (user / "here" / "taken.zip").write_text("mine")
    assert command(["runs", "export", *arguments]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert expected in line
    assert [path.name for path in (user / "here").iterdir()] == ["taken.zip"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("reading {home}/data and {home}", "reading ~/data and ~"),
        ("reading {home}-two/data", "reading {home}-two/data"),
        ("max_prompt_tokens=200 token_budget: 4096", "max_prompt_tokens=200 token_budget: 4096"),
        ("https://user@host/x", "https://(secret)@host/x"),
        ("ghp_0123456789abcdefghij", "(secret)"),
        (
            "polite: returned 'a secret' (str), not a finite number or None",
            "polite: returned (left out) (str), not a finite number or None",
        ),
    ],
)
def test_texts_lose_what_is_private_and_keep_the_rest(text: str, expected: str, user: Path) -> None:
    assert Privacy(texts=False).text(text.format(home=user)) == expected.format(home=user)
