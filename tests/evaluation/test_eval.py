"""aapo-desk eval on the tiny model: base and tuned, interrupted, killed and continued."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aapo_desk.cli.app import run
from aapo_desk.evaluation import work as working
from aapo_desk.evaluation.held_out import HeldOut, evaluate, judged_by
from aapo_desk.evaluation.request import Wanted, request
from aapo_desk.evaluation.results import HEAD, ROWS, read_head, read_lines
from aapo_desk.evaluation.work import Interrupted, work
from aapo_desk.launch.child import environment
from aapo_desk.models import ends
from aapo_desk.rewards import RewardPool
from aapo_desk.store import RunDirectory, RunWriter
from aapo_desk.tasks import Problem
from aapo_desk.tasks.prompts import fit
from tests import run_data
from tests.policies import load_tiny
from tests.stand_in import until
from tests.tiny_model import stop_elsewhere

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working, "MOST_ROWS", {"cpu": 8})


def texts(folder: Path, side: str = "tuned") -> list[list[str]]:
    return [[answer["completion"] for answer in line[side]] for line in read_lines(folder)]


def evaluated(wanted: Wanted) -> Path:
    return work(request(wanted))[0]


def test_base_and_tuned_are_asked_in_one_go_and_every_answer_is_kept(
    tuned: RunDirectory, sums: str, capsys: Output
) -> None:
    assert run(["eval", "tuned", "--task", sums, "--max-new-tokens", "6", "--json"]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    (folder,) = tuned.evaluations.iterdir()
    assert (told["folder"], folder.name.rpartition("-")[0]) == (str(folder), "sums-step_000003-greedy")
    assert (told["step"], told["problems"], told["total"], told["dropped"]) == (3, 10, 10, 0)
    lines = read_lines(folder)
    assert sorted(line["source_id"] for line in lines) == [f"train-{number}" for number in range(10)]
    for line in lines:
        assert line["answer"] == str(eval_sum(line["problem"]))
        for side in ("base", "tuned"):
            (answer,) = line[side]
            assert answer["score"] == float(re.search("[a-h]", answer["completion"]) is not None)
            assert 1 <= answer["tokens"] <= 6
    for side in ("base", "tuned"):
        scores = [line[side][0]["score"] for line in lines]
        assert told["summary"][side]["accuracy"] == pytest.approx(sum(scores) / 10)
    assert texts(folder, "base") != texts(folder, "tuned")
    assert told["summary"]["difference"]["problems"] == 10


def eval_sum(problem: str) -> int:
    return sum(map(int, re.findall(r"\d+", problem)))


def test_the_lines_tell_what_was_asked_and_a_second_call_asks_nothing_again(
    tuned: RunDirectory, sums: str, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["eval", "tuned", "--task", sums, "--problems", "4", "--max-new-tokens", "5"]
    assert run(arguments) == 0
    said = capsys.readouterr().out
    assert re.match(r"file:\S+: 4 of 10 problems, greedy, up to 5 new tokens, 95 % intervals\n", said)
    for who in ("base", "tuned, step 3"):
        assert re.search(
            rf"^{who} +\d\.\d{{3}} \[\d\.\d{{3}}, \d\.\d{{3}}\] +[1-5] +\d+\.\d% +0$", said, flags=re.MULTILINE
        )
    assert re.search(r"^difference [+-]\S+ \[\S+ \S+\], paired over 4 problems: \d better, \d worse$", said, flags=re.M)
    assert said.splitlines()[-1] == f"kept: {next(tuned.evaluations.iterdir())}"
    monkeypatch.setattr(working, "load_policy", None)
    assert run(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out == said
    assert "evaluated before" in captured.err


def test_answers_that_break_the_reward_are_wrong_and_an_older_result_is_counted_again(
    tuned: RunDirectory, sums: str, tmp_path: Path, capsys: Output
) -> None:
    reward = tmp_path / "lengths.py"
    reward.write_text("def score(completion, answer):\n    return 1.0 if len(completion) % 2 else 1 / 0\n")
    arguments = ["eval", "tuned", "--task", sums, "--max-new-tokens", "6"]
    arguments += ["--set", f'rewards=[{{name: "{reward}:score"}}]']
    assert run(arguments) == 0
    said = capsys.readouterr().out
    (folder,) = tuned.evaluations.iterdir()
    scores = [line["tuned"][0]["score"] for line in read_lines(folder)]
    assert set(scores) == {1.0, None}
    share, broken = scores.count(1.0) / 10, scores.count(None)
    assert re.search(rf"^tuned, step 3 +{share:.3f} \[.* {broken}$", said, flags=re.MULTILINE)
    assert f"tuned, step 3: {broken} of 10 unscorable, counted as wrong" in said

    head = json.loads((folder / HEAD).read_text())
    for side in head["summary"].values():
        side.pop("unscorable_as", None)
    head["summary"]["tuned"] |= {"accuracy": 1.0, "low": 0.5, "high": 1.0}
    (folder / HEAD).write_text(json.dumps(head))
    assert run(arguments) == 0
    again = capsys.readouterr()
    assert again.out == said
    assert "accuracies recomputed: unscorable answers" in again.err


def test_an_interrupted_evaluation_goes_on_to_the_same_results(tuned: RunDirectory, sums: str) -> None:
    asked = request(Wanted("tuned", sums, max_new_tokens=6))
    undisturbed, _ = work(asked)
    whole = read_lines(undisturbed)
    shutil.rmtree(undisturbed)

    def interrupt(share: float, left: float | None) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(
        Interrupted, match=r"interrupted: 4 of 10 problems are stored in .*; run the same command again"
    ):
        work(asked, progress=interrupt)
    told: list[str] = []
    folder, head = work(asked, tell=told.append)
    assert "continuing after 4 of 10 problems" in told
    assert read_lines(folder) == whole
    assert head["summary"]["difference"]["problems"] == 10


def test_a_run_answers_its_own_problems_as_in_its_own_evaluation(
    tuned: RunDirectory, tiny_model: Path, judged_by_letters: dict[str, Any]
) -> None:
    folder = evaluated(Wanted("tuned"))
    lines = read_lines(folder)
    asked = request(Wanted("tuned"))
    by_id = {line["source_id"]: line for line in lines}
    problems = [Problem(name, line["problem"], line["answer"]) for name, line in by_id.items()]
    policy = load_tiny(tiny_model)
    prompts = [fit(policy.tokenizer, [problem], asked.config.task, {}).prompts[0] for problem in problems]
    with RewardPool(judged_by(asked.config.rewards)) as pool:
        data = evaluate(policy, HeldOut(problems, prompts, pool), asked.config, None)
    assert len(problems) == judged_by_letters["evaluation"]["problems"]
    assert data["greedy"]["answers"] == [by_id[name]["tuned"][0]["completion"] for name in data["ids"]]
    assert data["greedy"]["scores"] == [by_id[name]["tuned"][0]["score"] for name in data["ids"]]


def test_a_bare_model_answers_as_the_base_of_a_run_and_is_kept_at_home(
    tuned: RunDirectory, sums: str, tiny_model: Path, desk_home: Path
) -> None:
    sets = {"model.device": "cpu", "model.quantization": "none", "task.system_prompt": None}
    of_model = evaluated(Wanted(str(tiny_model), sums, max_new_tokens=6, sets=sets))
    of_run = evaluated(Wanted("tuned", sums, max_new_tokens=6))
    assert of_model.parent == desk_home / "evaluations"
    assert texts(of_model, "base") == texts(of_run, "base")
    head = read_head(of_model)
    assert head is not None
    assert (head["run"], head["step"]) == (None, None)
    assert head["summary"].keys() == {"base"}


def test_the_step_may_be_named_or_be_the_best(tuned: RunDirectory, sums: str, capsys: Output) -> None:
    arguments = ["eval", "tuned", "--task", sums, "--problems", "2", "--max-new-tokens", "3", "--json", "--step"]
    assert run([*arguments, "2"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 2
    assert run([*arguments, "best"]) == 2
    assert "has no evaluated step yet" in capsys.readouterr().err
    assert run([*arguments, "7"]) == 2
    assert "--step = '7': this step has no checkpoint; available are 2, 3" in capsys.readouterr().err
    writer = RunWriter(tuned)
    writer.write_step(run_data.record(3))
    writer.write_event("checkpoint", 3, path="checkpoints/step_000003", best=2)
    writer.close()
    assert run([*arguments, "best"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 2


def test_a_damaged_checkpoint_is_a_line_and_status_1(tuned: RunDirectory, sums: str, capsys: Output) -> None:
    (tuned.checkpoints / "step_000002" / "adapter" / "adapter_model.safetensors").write_bytes(b"nothing")
    assert run(["eval", "tuned", "--task", sums, "--step", "2"]) == 1
    word = capsys.readouterr().err.splitlines()[-1]
    assert "adapter_model.safetensors is missing or damaged (its checksum is wrong; 7 bytes)" in word


def test_an_answer_longer_than_the_model_takes_is_refused_where_it_was_asked_for(
    tuned: RunDirectory, sums: str, capsys: Output
) -> None:
    assert run(["eval", "tuned", "--task", sums, "--max-new-tokens", "1020"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "--max-new-tokens" in line]
    longest, most = map(int, re.findall(r"prompt \((\d+) tokens\).* the maximum is (\d+)", line)[0])
    assert longest + most == 1024


@pytest.mark.slow
def test_killed_and_continued_it_gives_the_same_results(
    tuned: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working, "MOST_ROWS", {"cpu": 64})  # as in the process to be killed
    file = tmp_path / "many.jsonl"
    file.write_text(
        "\n".join(json.dumps({"problem": f"What is {a} plus 1?", "answer": str(a + 1)}) for a in range(160))
    )
    arguments = ["eval", "tuned", "--task", f"file:{file}", "--max-new-tokens", "60"]
    assert run(arguments) == 0
    (folder,) = tuned.evaluations.iterdir()
    undisturbed = folder.rename(tmp_path / "undisturbed")

    process = subprocess.Popen(
        [sys.executable, "-m", "aapo_desk", *arguments], env=environment(), stderr=subprocess.PIPE
    )
    with process:
        try:
            until(lambda: (read_head(folder) or {}).get("done"), seconds=120)
            os.kill(process.pid, signal.SIGKILL)
        finally:
            process.kill()
    head = read_head(folder)
    assert head is not None
    assert 0 < head["done"] < 160, "it was killed half-way"
    with (folder / ROWS).open("a") as rows:
        rows.write('{"id": "torn')
    assert run(arguments) == 0
    assert (folder / ROWS).read_bytes() == (undisturbed / ROWS).read_bytes()
    summaries = [json.loads((one / HEAD).read_text())["summary"] for one in (folder, undisturbed)]
    assert summaries[0] == summaries[1]


def test_results_from_before_the_chat_templates_end_was_looked_for_are_not_taken_for_those_with_it(
    tiny_model: Path, tmp_path: Path, desk_home: Path, sums: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stop_elsewhere(tiny_model, tmp_path / "model")
    asked = request(Wanted(str(folder), sums, max_new_tokens=6))
    keys = {}
    for version in ("new", "old"):
        told: list[str] = []
        keys[version] = work(asked, tell=told.append)[1]["key"]
        assert any("the chat template ends a turn with <|im_end|>" in line for line in told) == (version == "new")
        monkeypatch.setattr(ends, "template_end", lambda *_: None)
    assert keys["new"] != keys["old"]
