"""aapo-desk study: what it refuses, what it plans, what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from aapo_desk.cli.app import run
from aapo_desk.studies import queue
from aapo_desk.studies.study import list_studies
from tests import studied

Output = pytest.CaptureFixture[str]

PRESET = {
    "model": {"id": "owner/model", "device": "cpu"},
    "task": {"source": "arithmetic", "held_out": 20},
    "rollout": {"prompts_per_step": 2, "group_size": 4},
    "optimizer": {"schedule": "cosine"},
    "run": {"steps": 6, "seed": 5},
}


@pytest.fixture
def preset(tmp_path: Path, desk_home: Path) -> str:
    path = tmp_path / "sums.yaml"
    path.write_text(yaml.safe_dump(PRESET))
    return str(path)


ALGORITHMS = "aapo, grpo, dr_grpo, dapo, gpg, rloo, loop, disco, p3o, apa"
MEASURED = "must be the same in all arms, because they are measured by it or the study sets it"
WRONG: dict[str, tuple[list[str], str]] = {
    "nothing to compare": (
        [],
        "--algorithms: give either --algorithms A,B,... or --vary PATH=V,W,..., to say what the study compares",
    ),
    "both": (
        ["--algorithms", "aapo,grpo", "--vary", "lora.r=4,8"],
        "--algorithms = 'aapo,grpo': give either --algorithms A,B,... or --vary PATH=V,W,..., to say what the "
        "study compares",
    ),
    "unknown": (
        ["--algorithms", "aapo,gppo"],
        f"--algorithms = 'gppo': there is no such algorithm; available are {ALGORITHMS}; did you mean grpo?",
    ),
    "one arm": (
        ["--algorithms", "aapo"],
        "--algorithms = 'aapo': a study needs two or more arms; separate them with commas",
    ),
    "twice": (
        ["--algorithms", "aapo,grpo,aapo"],
        "--algorithms = 'aapo,grpo,aapo': contains aapo twice; remove one",
    ),
    "too many": (
        ["--vary", "lora.r=1,2,3,4,5,6,7"],
        "--vary = '1,2,3,4,5,6,7': at most 6 arms are possible; remove some",
    ),
    "no path": (
        ["--vary", "index,mean"],
        "--vary = 'index,mean': must be PATH=V,W,..., such as algorithm.pairing=index,mean",
    ),
    "unknown setting": (
        ["--vary", "algorithm.pairings=index,mean"],
        "algorithm.pairings (from --vary, arm index): there is no such setting; did you mean algorithm.pairing?",
    ),
    "measured by": (["--vary", "task.held_out=5,10"], f"task.held_out (from --vary): {MEASURED}"),
    "seed": (["--vary", "run.seed=1,2"], f"run.seed (from --vary): {MEASURED}"),
    "set and varied": (
        ["--vary", "lora.r=4,8", "--set", "lora.r=2"],
        "lora.r = 2 (from --set): already varies between the arms (--vary); remove it here",
    ),
    "budget by hand": (
        ["--algorithms", "aapo,grpo", "--set", "run.seconds=9"],
        "run.seconds = 9 (from --set): is set by the study; use --budget and --amount instead",
    ),
    "a setting that an arm refuses": (
        ["--algorithms", "aapo,grpo", "--set", "algorithm.pairing=mean"],
        "algorithm.pairing = 'mean' (from --set, arm grpo): grpo has no margin, so this setting has no effect; remove "
        "it, or set algorithm.name=aapo",
    ),
    "updates that an arm refuses": (
        ["--algorithms", "grpo,gpg", "--set", "algorithm.updates_per_rollout=2"],
        "algorithm (from --set, arm gpg): updates_per_rollout = 2: gpg has no ratio that corrects for the sampling "
        "policy, so each rollout can be used for one update only",
    ),
    "an option that an arm lacks": (
        ["--algorithms", "grpo,gpg", "--set", "algorithm.options.epsilon_low=0.1"],
        "algorithm (from --set, arm gpg): gpg has no option 'epsilon_low'; available: beta, adjust",
    ),
    "rewards that an arm cannot learn from": (
        ["--algorithms", "aapo,disco", "--set", "rewards=[{name: length}]"],
        "rewards.0.name",
    ),
    "nothing to measure by": (
        ["--algorithms", "aapo,grpo", "--set", "evaluation.problems=0"],
        "evaluation.problems = 0: a study compares accuracy on held-out problems; hold some out with "
        "task.held_out and evaluation.problems",
    ),
    "a budget of nothing": (["--algorithms", "aapo,grpo", "--amount", "0"], "--amount = 0.0: must be above 0"),
    "half a step": (
        ["--algorithms", "aapo,grpo", "--amount", "2.5"],
        "--amount = 2.5: must be a whole number of steps",
    ),
    "less than a step": (
        ["--algorithms", "grpo,aapo", "--budget", "completions", "--amount", "15"],
        "--amount = 15: the first step of aapo alone samples 16; raise it",
    ),
    "a warm-up longer than the budget": (
        ["--algorithms", "aapo,grpo", "--set", "optimizer.warmup_steps=4", "--amount", "2"],
        "configuration (from arm aapo): optimizer.warmup_steps (4) is more than run.steps (2), so the learning "
        "rate would never reach its peak",
    ),
    "a name with a slash": (
        ["--algorithms", "aapo,grpo", "--name", "a/b"],
        "--name = 'a/b': must be text without slashes, and not 'last'",
    ),
    "a picture of another kind": (
        ["--algorithms", "aapo,grpo", "--plot", "a.pdf"],
        "--plot = 'a.pdf': must end in .png or .svg",
    ),
    "no seeds": (["--algorithms", "aapo,grpo", "--seeds", "0"], "aapo-desk: Invalid value for '--seeds': "),
    "another budget": (
        ["--algorithms", "aapo,grpo", "--budget", "tokens"],
        "aapo-desk: Invalid value for '--budget': 'tokens' is not one of 'steps', 'seconds', 'completions'. See: ",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_one_clear_line_and_nothing_is_left_behind(case: str, preset: str, capsys: Output) -> None:
    arguments, said = WRONG[case]
    assert run(["study", preset, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(said)
    assert captured.err.count("\n") == 1
    assert list_studies() == []
    assert queue.entries() == []


@pytest.mark.usefixtures("desk_home")
@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["study", "show", "last"], 2, "STUDY = 'last': there are no studies yet; start one with: aapo-desk study "),
        (["study", "run", "nobody"], 2, "STUDY = 'nobody': there are no studies yet"),
        (["study", "nothing", "--algorithms", "aapo,grpo"], 2, "preset = 'nothing': there is no such preset"),
    ],
)
def test_what_is_not_there_is_said(arguments: list[str], status: int, said: str, capsys: Output) -> None:
    assert run(arguments) == status
    assert capsys.readouterr().err.startswith(said)


def test_the_list_is_empty_at_first_and_names_each_study(desk_home: Path, capsys: Output) -> None:
    assert run(["study", "list"]) == 0
    assert capsys.readouterr().out.startswith("no studies yet; start one with: ")
    studied.write_study("sums")
    assert run(["study", "list"]) == 0
    assert re.search(r"^sums +5 of 6, 1 failed .* demo: aapo against grpo; 3 seeds each", capsys.readouterr().out, re.M)
    assert run(["study", "list", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["name"], one["runs"], one["finished"], one["failed"], one["at_work"]) == ("sums", 6, 5, 1, False)


def test_a_study_is_told_in_lines(desk_home: Path, capsys: Output) -> None:
    studied.write_study("sums")
    assert run(["study", "show", "sums"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    text = captured.out
    assert text.startswith("study sums: demo: aapo against grpo; 3 seeds each; 640 sampled completions\n")
    assert "5 of 6 runs finished\nsums grpo 2 is failed: the disk is full\n" in text
    assert re.search(r"^A  aapo  3 of 3 +10 +640 +\d+ +60  0\.\d+ \[0\.\d+, 0\.\d+\] +25% +75%$", text, re.M)
    assert re.search(r"^B  grpo  2 of 3 +20 +640 ", text, re.M)
    assert re.search(r"^B  grpo .* -0\.\d\d \[-0\.\d\d, \+0\.\d\d\] no difference seen$", text, re.M)
    assert "2 seeds: the intervals are valid for other seeds and problems" in text


def test_json_is_one_document_with_all_of_it(desk_home: Path, capsys: Output) -> None:
    studied.write_study("sums")
    assert run(["study", "show", "last", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    found = json.loads(captured.out)
    assert (found["budget"], found["seeds"]) == ({"kind": "completions", "amount": 640}, [0, 1, 2])
    aapo, grpo = found["arms"]
    assert [one["state"] for one in grpo["runs"]] == ["finished", "finished", "failed"]
    assert aapo["evaluation"]["greedy"]["against_baseline"] is None
    against = grpo["evaluation"]["greedy"]["against_baseline"]
    assert (against["seeds"], against["pairs"], against["said"]) == (2, 200, "no difference seen")
    assert against["low"] <= 0 <= against["high"]
    assert aapo["curve"]["x"] == [64.0 * step for step in range(1, 11)]
    assert aapo["curve"]["low"][0] <= aapo["curve"]["mean"][0] <= aapo["curve"]["high"][0]


@pytest.mark.parametrize("name", ["out.png", "out.svg"])
def test_the_picture_is_of_the_kind_its_ending_tells(
    name: str, desk_home: Path, tmp_path: Path, capsys: Output
) -> None:
    studied.write_study("sums $a^{b$ 数")
    path = tmp_path / name
    assert run(["study", "show", "last", "--plot", str(path)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.endswith(f"written: {path}\n")
    assert path.read_bytes()[:4] == b"\x89PNG" if name.endswith("png") else b"no difference seen" in path.read_bytes()
