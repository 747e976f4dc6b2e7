from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aapo_desk.config import ConfigError, resolve
from aapo_desk.models.sources import ModelError
from aapo_desk.preview import main, preflight


@pytest.fixture
def config(tiny_config: dict[str, Any], tiny_model: Path, tmp_path: Path) -> dict[str, Any]:
    """The tiny model's configuration, on a copy of its folder that holds no weights."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return tiny_config | {"model": tiny_config["model"] | {"id": str(folder)}}


def look(config: dict[str, Any], **overrides: Any) -> tuple[dict[str, Any], list[str]]:
    said: list[str] = []
    found = preflight(resolve(config, {key.replace("__", "."): value for key, value in overrides.items()}), said.append)
    return found, said


def refusal(config: dict[str, Any], **overrides: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        look(config, **overrides)
    return str(caught.value)


def write_problems(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"problem": text, "answer": "1"}) + "\n" for text in texts))
    return f"file:{path}"


def run(arguments: list[str], text: str) -> tuple[int, dict[str, Any], list[str]]:
    """Exit status, standard output and what was said of the progress, of the real process."""
    command = [sys.executable, "-m", "aapo_desk.preview", *arguments]
    process = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    progress = [json.loads(line)["progress"] for line in process.stderr.splitlines() if line.startswith('{"progress"')]
    return process.returncode, json.loads(process.stdout), progress


def test_the_process_answers_in_json_without_the_models_weights(config: dict[str, Any]) -> None:
    status, answer, progress = run(["preflight"], resolve(config).model_dump_json())
    assert status == 0
    prompts = answer.pop("prompts")
    tokens = answer.pop("prompt_tokens")
    longest = answer.pop("longest_prompt")
    assert all(answer.isdecimal() for answer in answer.pop("answers"))
    model = config["model"]["id"]
    assert answer == {
        "ok": True,
        "train": answer["train"],
        "held_out": 8,
        "dropped": 0,
        "dropped_held_out": 0,
        "model": model,
        "revision": None,
        "task_revision": None,
        "notes": [],
    }
    assert 300 < answer["train"] < 400
    assert 20 < longest <= 200
    assert len(prompts) == len(tokens) == 3
    assert 20 < max(tokens) <= longest
    assert prompts[0].startswith("<|im_start|>user\nWhat is ")
    assert prompts[0].endswith(" Answer with just the number.<|im_end|>\n<|im_start|>assistant\n")
    assert progress == ["reading arithmetic", f"loading the tokenizer of {model}", progress[2]]
    assert progress[2].startswith("measuring ")


def test_the_process_names_what_the_user_must_mend(config: dict[str, Any]) -> None:
    wrong = resolve(config, {"task.held_out": 400}).model_dump_json()
    status, answer, _ = run(["preflight"], wrong)
    assert status == 2
    assert answer["ok"] is False
    assert [problem["path"] for problem in answer["problems"]] == ["task.held_out"]
    assert answer["problems"][0]["given"] == 400
    assert set(answer["problems"][0]) == {"path", "message", "given", "origin", "nearest"}


def test_the_process_names_a_model_that_cannot_be_had(config: dict[str, Any]) -> None:
    (Path(config["model"]["id"]) / "tokenizer.json").write_text("no json")
    (Path(config["model"]["id"]) / "tokenizer_config.json").unlink()
    status, answer, _ = run(["preflight"], json.dumps(config))
    assert status == 1
    assert answer["ok"] is False
    assert "\n" not in answer["error"]
    assert answer["error"]


def test_the_process_names_data_that_cannot_be_had(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    status, answer, _ = run(["preflight"], json.dumps(config | {"task": {"source": "hub:owner/not-in-the-cache"}}))
    assert status == 1
    assert answer["error"].startswith("the data set owner/not-in-the-cache, revision main, is not in the cache")


def test_a_configuration_that_is_no_json_is_refused() -> None:
    status, answer, _ = run(["preflight"], "{")
    assert status == 2
    assert answer["problems"][0]["message"].startswith("is not JSON")


def test_another_command_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights"]) == 2
    assert "usage: python -m aapo_desk.preview preflight|data" in capsys.readouterr().err


def test_prompts_that_are_too_long_are_counted_apart_for_training_and_held_out(
    config: dict[str, Any], tmp_path: Path
) -> None:
    config["task"] = {"source": write_problems(tmp_path / "a.jsonl", [f"{n}" + "long " * n for n in range(40)])}
    found, _ = look(config, task__held_out=20, task__max_prompt_tokens=100)
    assert found["train"] + found["dropped"] == 20
    assert found["held_out"] + found["dropped_held_out"] == 20
    assert found["dropped"] + found["dropped_held_out"] > 5
    assert found["longest_prompt"] <= 100


def test_rows_that_are_left_out_are_told_of(config: dict[str, Any], tmp_path: Path) -> None:
    config["task"] = {"source": write_problems(tmp_path / "a.jsonl", ["p", "q", "", ""]), "held_out": 1}
    found, said = look(config)
    assert (found["train"], found["held_out"]) == (1, 1)
    assert "2 rows without a problem: left out" in said


def test_prompts_all_too_long_are_refused_with_the_shortest_length(config: dict[str, Any]) -> None:
    shortest = look(config, task__held_out=0, task__options={"high": 1})[0]["longest_prompt"]
    said = refusal(config, task__held_out=0, task__options={"high": 1}, task__max_prompt_tokens=shortest - 1)
    assert said.startswith(f"task.max_prompt_tokens = {shortest - 1}: all 1 prompts are longer")
    assert f"the shortest has {shortest} tokens" in said


def test_prompts_all_too_short_are_refused_with_the_longest_length(config: dict[str, Any]) -> None:
    longest = look(config)[0]["longest_prompt"]
    said = refusal(config, task__min_prompt_tokens=longest + 1)
    assert said.startswith(f"task.min_prompt_tokens = {longest + 1}: all ")
    assert said.endswith(f"prompts are shorter; the longest has {longest} tokens")


def test_prompts_and_completions_that_exceed_the_models_context_are_refused(config: dict[str, Any]) -> None:
    longest = look(config)[0]["longest_prompt"]
    assert look(config, rollout__max_new_tokens=1024 - longest)[0]["longest_prompt"] == longest
    said = refusal(config, rollout__max_new_tokens=1025 - longest)
    assert said.startswith(f"rollout.max_new_tokens = {1025 - longest}: with the longest prompt ({longest} tokens)")
    assert f"{1024 - longest} is the maximum" in said
    assert refusal(config, evaluation__max_new_tokens=1024).startswith("evaluation.max_new_tokens = 1024: ")
    assert look(config, evaluation__max_new_tokens=1024, evaluation__problems=0)


def test_a_slip_in_the_data_is_known_before_the_model_is_fetched(config: dict[str, Any]) -> None:
    config["model"] = {"id": "owner/model-that-does-not-exist"}
    assert refusal(config, task__held_out=10_000).startswith("task.held_out = 10000: ")


def test_an_impossible_model_id_is_refused_at_once(config: dict[str, Any]) -> None:
    config["model"] = {"id": "no such/model/at all"}
    assert refusal(config).startswith("model.id = ")


def test_a_model_that_float16_does_not_carry_is_refused_by_name_before_its_weights_are_there(
    config: dict[str, Any],
) -> None:
    file = Path(config["model"]["id"]) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": "gemma3_text"}))
    said = refusal(config, model__compute_dtype="float16")
    assert said.startswith("model.compute_dtype = 'float16': Gemma 3 cannot be computed in float16")
    assert look(config, model__compute_dtype="float32")[0]["train"] > 0


def test_a_model_folder_that_cannot_be_read_is_a_model_error(config: dict[str, Any]) -> None:
    (Path(config["model"]["id"]) / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be loaded"):
        look(config)


def test_an_unsloth_that_is_not_there_is_noted_before_a_run_begins(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "unsloth", None)
    found, said = look(config, model__backend="unsloth")
    line = "unsloth is not installed (pip install 'aapo-desk[unsloth]'): the run will use transformers"
    assert found["notes"] == [line]
    assert line in said
    assert look(config)[0]["notes"] == []


def test_a_warm_start_is_looked_at_by_the_models_own_tokenizer(config: dict[str, Any]) -> None:
    found, said = look(config, warm_start__solutions=40)
    assert found["notes"] == ["warm start: 40 worked solutions, up to 3 tokens"]
    assert found["notes"][0] in said
    assert "rollout.max_new_tokens (1), with the end-of-sequence token; the shortest has 2 tokens" in refusal(
        config, warm_start__solutions=40, rollout__max_new_tokens=1
    )
