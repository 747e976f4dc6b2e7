"""Data sets in the hub's layout, from local folders: the same code reads them from the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aapo_desk import tasks
from aapo_desk.config import ConfigError, TaskConfig
from aapo_desk.tasks import Problem, TaskData

GSM8K_CARD = """---
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train-*}
  - {split: test, path: main/test-*}
- config_name: socratic
  data_files:
  - {split: train, path: main/train-*}
---
"""


def write_parquet(path: Path, columns: dict[str, list[Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def numbered(word: str, count: int) -> dict[str, list[Any]]:
    return {
        "question": [f"{word} {n}?" for n in range(count)],
        "answer": [f"It is so.\n#### 1,{n:03d}" for n in range(count)],
    }


@pytest.fixture
def gsm8k(tmp_path: Path) -> Path:
    """A folder as openai/gsm8k is laid out on the hub."""
    folder = tmp_path / "gsm8k"
    write_parquet(folder / "main/train-00000-of-00001.parquet", numbered("train", 30))
    write_parquet(folder / "main/test-00000-of-00001.parquet", numbered("test", 12))
    (folder / "README.md").write_text(GSM8K_CARD)
    return folder


def load(source: str, seed: int = 0, **settings: Any) -> TaskData:
    settings = {"problem_column": "question", "held_out": 5} | settings
    return tasks.load(TaskConfig(source=source, **settings), seed)


def refusal(source: str, **settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(source, **settings)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["file", "hub"])
def test_a_folder_in_the_hubs_layout_is_evaluated_on_its_own_test_split(gsm8k: Path, kind: str) -> None:
    data = load(f"{kind}:{gsm8k}", options={"config": "main"})
    assert len(data.train) == 30
    assert data.train[7] == Problem("train-7", "train 7?", "1007")
    assert len(data.held_out) == 5
    assert all(problem.id.startswith("test-") for problem in data.held_out)
    assert load(f"{kind}:{gsm8k}", options={"config": "main"}) == data
    assert load(f"{kind}:{gsm8k}", seed=1, options={"config": "main"}).held_out != data.held_out


def test_without_a_split_of_its_own_the_held_out_part_comes_from_training(gsm8k: Path) -> None:
    data = load(f"file:{gsm8k}", options={"config": "socratic"})
    assert len(data.train) == 25
    assert {p.id for p in data.held_out}.isdisjoint(p.id for p in data.train)


def test_a_small_test_split_is_taken_whole(gsm8k: Path) -> None:
    data = load(f"file:{gsm8k}", options={"config": "main"}, held_out=100)
    assert len(data.held_out) == 12
    assert len(data.train) == 30


def test_training_on_the_test_split_holds_out_a_part_of_it(gsm8k: Path) -> None:
    data = load(f"file:{gsm8k}", options={"config": "main"}, split="test")
    assert len(data.train) == 7
    assert {p.id for p in data.held_out}.isdisjoint(p.id for p in data.train)


def test_a_validation_split_serves_where_the_test_split_has_no_answers(tmp_path: Path) -> None:
    for split, answers in (("train", ["1", "2"]), ("validation", ["3", "4"]), ("test", ["", None])):
        rows = [{"problem": f"{split} {n}", "answer": answer} for n, answer in enumerate(answers)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load(f"file:{tmp_path}", problem_column="problem")
    assert {problem.id for problem in data.held_out} == {"validation-0", "validation-1"}


def test_a_held_out_problem_that_is_in_the_training_split_too_is_not_trained_on(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", {"question": ["a", "b", "c"], "answer": [1, 2, 3]})
    write_parquet(tmp_path / "test.parquet", {"question": ["b ", "d"], "answer": [2, 4]})
    data = load(f"file:{tmp_path}")
    assert [problem.problem for problem in data.train] == ["a", "c"]


def test_nothing_is_printed_while_reading(gsm8k: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(f"file:{gsm8k}", options={"config": "main"})
    assert capfd.readouterr() == ("", "")


def test_the_configuration_that_must_be_chosen_is_asked_for(gsm8k: Path) -> None:
    said = refusal(f"hub:{gsm8k}")
    assert said.startswith("task.options.config: ")
    assert said.endswith("needs one of its configurations: main, socratic")


def test_an_unknown_configuration_is_refused_with_those_there_are(gsm8k: Path) -> None:
    said = refusal(f"hub:{gsm8k}", options={"config": "mian"})
    assert said.startswith("task.options.config = 'mian': ")
    assert said.endswith("has no such configuration: main, socratic")


def test_an_unknown_split_is_refused_with_those_there_are(gsm8k: Path) -> None:
    said = refusal(f"hub:{gsm8k}", options={"config": "main"}, split="tset")
    assert "has no split tset; it has train, test; did you mean test?" in said


def test_a_missing_column_is_refused_with_the_columns_there_are(gsm8k: Path) -> None:
    said = refusal(f"file:{gsm8k}", options={"config": "main"}, problem_column="problem")
    assert "has no column problem; it has question, answer" in said


@pytest.mark.parametrize(
    ("source", "settings", "said"),
    [
        ("hub:a b/c", {}, "must be hub:OWNER/DATASET"),
        ("hub:a/b/c", {}, "must be hub:OWNER/DATASET"),
        ("hub:./nowhere", {}, "there is no such file or folder"),
        ("hub:owner/name", {"options": {"cnofig": "x"}}, "did you mean task.options.config?"),
        ("hub:owner/name", {"options": {"config": 3}}, "must be the name of one of the data set's configurations"),
    ],
)
def test_what_cannot_be_a_data_set_is_refused_before_anything_is_read(
    source: str, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        tasks.check(TaskConfig(source=source, **settings))
    assert said in str(caught.value)


def test_a_file_given_as_a_hub_name_is_pointed_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").touch()
    assert "did you mean file:a.jsonl?" in refusal("hub:a.jsonl")


def test_an_empty_folder_is_refused_in_a_line(tmp_path: Path) -> None:
    assert "doesn't contain any data files" in refusal(f"file:{tmp_path}")


def test_a_hub_that_cannot_be_reached_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets
    import huggingface_hub.constants

    # The libraries' own offline mode stands for a missing network; the cache is empty.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    said = refusal("hub:owner/data-set-that-is-not-cached")
    assert "the hub cannot be reached; check the network, or name a local copy: file:PATH" in said
