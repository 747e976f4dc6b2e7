"""The command, and measurements in processes of their own."""

from __future__ import annotations

import json
import shutil
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from aapo_desk.bench.jobs import BenchError, Job
from aapo_desk.bench.peers import REWARDS
from aapo_desk.bench.rounds import run_job
from aapo_desk.cli.app import run
from aapo_desk.config import ConfigError, resolve

pytestmark = pytest.mark.usefixtures("desk_home")
NO_TRL, WHY_NOT = find_spec("trl") is None, "TRL is not installed (the extra: bench)"
Output = pytest.CaptureFixture[str]


@pytest.mark.slow
def test_a_job_is_done_in_a_process_of_its_own_and_leaves_nothing(desk_home: Path, tiny_config: dict[str, Any]) -> None:
    settings = resolve(tiny_config | {"rewards": REWARDS, "evaluation": {"problems": 0}})
    measured = run_job(Job("updates", settings, steps=1))
    assert len(measured.steps) == 1
    assert measured.steps[0]["seconds"] > 0
    assert measured.peak_mb > 50
    assert not desk_home.exists()


@pytest.mark.slow
def test_what_the_user_must_mend_comes_back_as_such(tiny_config: dict[str, Any]) -> None:
    settings = resolve(tiny_config, {"task.max_prompt_tokens": 1})
    with pytest.raises(ConfigError, match=r"task\.max_prompt_tokens = 1"):
        run_job(Job("updates", settings))


@pytest.mark.slow
def test_a_job_that_breaks_says_why(tiny_config: dict[str, Any], tiny_model: Path, tmp_path: Path) -> None:
    weightless = shutil.copytree(tiny_model, tmp_path / "weightless")
    (weightless / "model.safetensors").unlink()
    with pytest.raises(BenchError, match=f"^{weightless} cannot be loaded"):
        run_job(Job("updates", resolve(tiny_config, {"model.id": str(weightless)})))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "against", [[], pytest.param(["--against", "trl"], marks=pytest.mark.skipif(NO_TRL, reason=WHY_NOT))]
)
def test_the_document_is_all_there_is_on_standard_output(
    against: list[str], tiny_config: dict[str, Any], tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not against:  # a process each takes its time: the whole plan only where it is the point
        peers = sys.modules["aapo_desk.bench.peers"]  # as an attribute of its package it is the function
        few = [variant for variant in peers.VARIANTS if variant.key in ("aapo_fresh", "grpo", "dense", "arithmetic")]
        monkeypatch.setattr(peers, "VARIANTS", few)
        monkeypatch.setattr(peers, "update_memory", lambda config: [])
    preset = tmp_path / "tiny.yaml"
    preset.write_text(yaml.safe_dump(tiny_config))
    quantized = ["--set", "model.quantization=nf4"]
    assert run(["bench", str(preset), "--rounds", "1", "--json", *quantized, *against]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert set(document) == {"device", "versions", "shape", "note", "rows", "ratios"}
    for row in document["rows"]:
        assert row["seconds"] > 0
        assert row["tokens_per_second"] > 0
        assert row["peak_mb"] > 0
    keys = {row["key"] for row in document["rows"]}
    assert {"rollout_grouped", "update_shared", "update_dense"} <= keys
    assert ({"trl_4", "trl_8", "trl_8_checkpointing", "trl_as_it_comes"} <= keys) == bool(against)
    assert {"aapo_fresh", "grpo", "memory"} <= set(document["ratios"]) or not against
    assert all(value > 0 for value in document["ratios"].values())
    assert captured.err.startswith("round 1/1: AAPO, fresh reference: ")


@pytest.mark.parametrize("command", ["train", "bench"])
def test_a_preset_that_there_is_not_is_refused_as_by_train(command: str, capsys: Output) -> None:
    assert run([command, "dem"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [captured.err.rstrip("\n")]
    assert "demo" in captured.err


def test_a_bad_setting_and_an_unknown_rival_are_wrong_use(capsys: Output) -> None:
    assert run(["bench", "demo", "--set", "rollout.group_size=1"]) == 2
    assert "rollout.group_size = 1" in capsys.readouterr().err
    assert run(["bench", "--against", "verl"]) == 2
    assert "'trl'" in capsys.readouterr().err
    assert run(["bench", "--rounds", "0"]) == 2
    assert "--rounds" in capsys.readouterr().err


@pytest.mark.parametrize("found", [None, "0.29.0"])
def test_without_trl_one_line_says_how_to_get_it(
    found: str | None, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def version(name: str) -> str:
        if name == "trl" and found is None:
            raise metadata.PackageNotFoundError(name)
        return found if name == "trl" and found else "1.0"

    monkeypatch.setattr(metadata, "version", version)
    assert run(["bench", "demo", "--against", "trl"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("aapo-desk: --against trl needs TRL")
    assert "pip install 'aapo-desk[bench]'" in line
