"""Data sets in the hub's layout: from local folders, and from a hub on this machine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aapo_desk import tasks
from aapo_desk.config import ConfigError, TaskConfig
from aapo_desk.hub import HubError, Repo
from aapo_desk.tasks import Problem, TaskData
from tests.hub_server import COMMIT, GATED_LOG_IN, Hub, folder_files, go_offline_here

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


def test_of_a_data_set_without_a_card_one_folder_can_be_named(tmp_path: Path) -> None:
    """As hkust-nlp/SimpleRL-Zoo-Data is laid out."""
    for name, count in (("easy", 20), ("hard", 30)):
        write_parquet(tmp_path / name / "train.parquet", numbered(name, count))
        write_parquet(tmp_path / name / "test.parquet", numbered(f"{name} test", 8))
    data = load(f"file:{tmp_path}", options={"folder": "hard"})
    assert len(data.train) == 30
    assert all(problem.problem.startswith("hard test ") for problem in data.held_out)
    assert "task.source" in refusal(f"file:{tmp_path}", options={"folder": "harder"})
    assert "must be the name of one of the data set's folders" in refusal(f"file:{tmp_path}", options={"folder": 3})


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
    assert said.endswith("has several configurations; choose one of: main, socratic")


def test_an_unknown_configuration_is_refused_with_those_there_are(gsm8k: Path) -> None:
    said = refusal(f"hub:{gsm8k}", options={"config": "mian"})
    assert said.startswith("task.options.config = 'mian': ")
    assert said.endswith("has no such configuration; it has: main, socratic")


def test_an_unknown_split_is_refused_with_those_there_are(gsm8k: Path) -> None:
    said = refusal(f"hub:{gsm8k}", options={"config": "main"}, split="tset")
    assert "has no split tset; its splits: train, test; did you mean test?" in said


def test_a_missing_column_is_refused_with_the_columns_there_are(gsm8k: Path) -> None:
    said = refusal(f"file:{gsm8k}", options={"config": "main"}, problem_column="problem")
    assert "has no column problem; it has the columns question, answer" in said


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
    said = "': has no data file; JSONL, JSON, CSV and Parquet can be read"
    assert refusal(f"file:{tmp_path}").endswith(said)
    (tmp_path / "train").mkdir()
    assert refusal(f"file:{tmp_path}").endswith(said)


# From a hub on this machine, by the real client.


@pytest.fixture
def hub(served_hub: Hub, gsm8k: Path) -> Hub:
    served_hub.add("datasets/openai/gsm8k", folder_files(gsm8k) | {"socratic.md": b"", "images/a.png": b"x" * 5000})
    return served_hub


MAIN: dict[str, Any] = {"options": {"config": "main"}}


def fetched() -> set[str]:
    snapshot = Repo("dataset", "openai/gsm8k").snapshot(COMMIT)
    return {path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()}


def test_a_data_set_of_the_hub_reads_as_its_folder_does(hub: Hub, gsm8k: Path) -> None:
    data = load("hub:openai/gsm8k", **MAIN)
    assert data.revision == COMMIT
    assert replace(data, revision=None) == load(f"file:{gsm8k}", **MAIN)


def test_only_the_files_of_the_configuration_are_fetched(hub: Hub, gsm8k: Path) -> None:
    write_parquet(gsm8k / "socratic/train-0.parquet", numbered("why", 400))
    before, _, after = GSM8K_CARD.rpartition("main/train-*")
    (gsm8k / "README.md").write_text(f"{before}socratic/train-*{after}")
    hub.add("datasets/openai/gsm8k", folder_files(gsm8k))
    assert len(load("hub:openai/gsm8k", options={"config": "socratic"}).train) == 395
    assert fetched() == {"README.md", "socratic/train-0.parquet"}
    assert len(load("hub:openai/gsm8k", **MAIN).train) == 30


def test_a_pinned_data_set_is_read_from_the_cache_when_the_branch_has_moved_on(hub: Hub, gsm8k: Path) -> None:
    first = load("hub:openai/gsm8k", **MAIN)
    write_parquet(gsm8k / "main/train-00000-of-00001.parquet", numbered("new", 40))
    hub.add("datasets/openai/gsm8k", folder_files(gsm8k), "d" * 40)
    assert len(load("hub:openai/gsm8k", **MAIN).train) == 40
    hub.asked.clear()
    assert load("hub:openai/gsm8k", revision=COMMIT, **MAIN) == first
    assert hub.asked == []


def test_offline_a_data_set_comes_from_the_cache_or_says_what_is_missing(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load("hub:openai/gsm8k", **MAIN)
    go_offline_here(monkeypatch)
    assert load("hub:openai/gsm8k", **MAIN) == first
    part = next(Repo("dataset", "openai/gsm8k").snapshot(COMMIT).glob("main/train-*"))
    part.unlink()
    with pytest.raises(HubError, match=rf"is incomplete in the cache .*: main/{part.name} is missing"):
        load("hub:openai/gsm8k", **MAIN)
    with pytest.raises(HubError, match="the data set owner/other, revision main, is not in the cache"):
        load("hub:owner/other")


@pytest.mark.parametrize(
    ("source", "settings", "said"),
    [
        ("hub:openai/gsm8j", {}, "task.source = 'hub:openai/gsm8j': there is no such data set on the hub (http"),
        ("hub:openai/gsm8k", {"revision": "v9"}, "task.revision = 'v9': the data set openai/gsm8k has no branch, tag"),
        ("hub:openai/gsm8k", {}, "hub:openai/gsm8k has several configurations; choose one of: main, socratic"),
        ("hub:owner/pictures", {}, "task.source = 'hub:owner/pictures': has no data file; JSONL"),
        ("hub:owner/packed", {}, "its files are in archives, which cannot be read"),
    ],
)
def test_what_is_wrong_with_a_data_set_of_the_hub_names_its_setting(
    hub: Hub, source: str, settings: dict[str, Any], said: str
) -> None:
    hub.add("datasets/owner/pictures", {"README.md": b"Pictures."})
    hub.add("datasets/owner/packed", {"data.zip": b"PK"})
    line = refusal(source, **settings)
    assert said in line
    assert "/tmp" not in line


def test_a_gated_data_set_says_what_to_click(hub: Hub) -> None:
    hub.refusals[None] = GATED_LOG_IN
    with pytest.raises(
        HubError, match=r"the data set openai/gsm8k is gated: open http.*/datasets/openai/gsm8k, log in"
    ):
        load("hub:openai/gsm8k", **MAIN)
