"""Wrong use is refused before a model is loaded: one clear line, exit status 2, nothing left behind.

And what only looks wrong is accepted.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from aapo_desk import hardware, preview
from aapo_desk.cli.app import run
from aapo_desk.cli.train import configuration
from aapo_desk.config import METHODS, RunConfig, resolve
from aapo_desk.launch.child import environment
from aapo_desk.store import create_run, list_runs

SUMS = [{"problem": f"What is {a} + {b}?", "answer": str(a + b)} for a in range(1, 6) for b in range(1, 6)]
FILES = {
    "sums.jsonl": "\n".join(json.dumps(row) for row in SUMS),
    "empty.jsonl": "",
    "header.csv": "problem,answer\n",
    "broken.py": "import a_module_that_is_not_there\n",
    "fine.py": "def fair(completion, answer):\n    return 1.0\n",
    "short.py": "def fair(completion):\n    return 1.0\n",
    "broken.yaml": "model: [\n",
}


@pytest.fixture(autouse=True)
def here(desk_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_config: dict[str, Any]) -> Path:
    """A working directory with some data, a preset of the tiny model with two rewards and one run named "taken"."""
    config = tiny_config | {"rewards": [{"name": "math"}, *tiny_config["rewards"]]}
    folder = tmp_path / "here"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(folder)
    create_run(resolve(config), "taken")
    return folder


FROM_FILE = ("--set", "task.held_out=5", "--set", "evaluation.problems=5", "--set")
COUNTDOWN = ("--set", "task.source=countdown", "--set")


def algorithm(name: str, *sets: str) -> list[str]:
    """A command that takes this algorithm."""
    settings = (f"algorithm.name={name}", *(f"algorithm.{item}" for item in sets))
    return ["train", "tiny.yaml", *(part for item in settings for part in ("--set", item))]


LABELS = ("--set", "rewards=[{name: math}]")
REFUSED: dict[str, tuple[list[str], str]] = {
    "an unknown preset": (["train", "demmo"], r"demmo.*no such preset.*did you mean demo\?"),
    "a preset file that is not there": (["train", "no/such.yaml"], r"no/such\.yaml.*the file does not exist"),
    "a preset file that is no YAML": (["train", "broken.yaml"], r"broken\.yaml.*not valid YAML \(line 2\)"),
    "an unknown key": (
        ["train", "tiny.yaml", "--set", "rollout.group_sise=8"],
        r"rollout\.group_sise.*no such setting; did you mean rollout\.group_size\?",
    ),
    "a key without its section": (
        ["train", "tiny.yaml", "--set", "learning_rate=1"],
        r"learning_rate.*did you mean optimizer\.learning_rate\?",
    ),
    "no value": (["train", "tiny.yaml", "--set", "rollout.group_size"], r"PATH=VALUE"),
    "a wrong type": (
        ["train", "tiny.yaml", "--set", "run.steps=many"],
        r"run\.steps = 'many' \(from --set\): must be a valid integer",
    ),
    "true for a number": (["train", "tiny.yaml", "--set", "run.steps=true"], r"run\.steps = True.*must be a number"),
    "half a step": (["train", "tiny.yaml", "--set", "run.steps=2.5"], r"run\.steps = 2\.5.*integer"),
    "group_size 1": (
        ["train", "tiny.yaml", "--set", "rollout.group_size=1"],
        r"rollout\.group_size = 1.*greater than or equal to 2",
    ),
    "a negative number": (
        ["train", "tiny.yaml", "--set", "rollout.prompts_per_step=-4"],
        r"rollout\.prompts_per_step = -4.*greater than or equal to 1",
    ),
    "a negative learning rate": (
        ["train", "tiny.yaml", "--set", "optimizer.learning_rate=-1e-4"],
        r"optimizer\.learning_rate = '-1e-4'.*greater than 0",
    ),
    "not a number": (
        ["train", "tiny.yaml", "--set", "optimizer.learning_rate=.nan"],
        r"optimizer\.learning_rate = nan.*finite number",
    ),
    "an infinite weight": (
        ["train", "tiny.yaml", "--set", "rewards.0.weight=inf"],
        r"rewards\.0\.weight = 'inf'.*finite number",
    ),
    "margin_low above margin_high": (
        ["train", "tiny.yaml", "--set", "algorithm.margin_low=0.5"],
        r"margin_low \(0\.5\) must not be above margin_high \(0\.28\)",
    ),
    "zero steps": (["train", "tiny.yaml", "--set", "run.steps=0"], r"run\.steps = 0.*greater than or equal to 1"),
    "an unknown reward": (["train", "tiny.yaml", "--set", "rewards.0.name=maths"], r"maths.*did you mean math\?"),
    "a reward too many": (
        ["train", "tiny.yaml", "--set", "rewards.2.name=math"],
        r"rewards is a list; use a position from 0 to 1",
    ),
    "a custom reward that is not there": (
        ["train", "tiny.yaml", "--set", "rewards.0.name=nobody.py:fair"],
        r"nobody\.py",
    ),
    "a custom reward without its function": (
        ["train", "tiny.yaml", "--set", "rewards.0.name=fine.py:unfair"],
        r"fine\.py.*unfair",
    ),
    "a custom reward that takes too little": (
        ["train", "tiny.yaml", "--set", "rewards.0.name=short.py:fair"],
        r"short\.py:fair.*two arguments",
    ),
    "a custom reward that does not import": (
        ["train", "tiny.yaml", "--set", "rewards.0.name=broken.py:fair"],
        r"broken\.py.*a_module_that_is_not_there",
    ),
    "a missing data file": (
        ["train", "tiny.yaml", *FROM_FILE, "task.source=file:sum.jsonl"],
        r"task\.source = 'file:sum\.jsonl'.*no such file.*did you mean file:sums\.jsonl\?",
    ),
    "a data file of an unknown kind": (
        ["train", "tiny.yaml", *FROM_FILE, "task.source=file:fine.py"],
        r"task\.source = 'file:fine\.py'.*\.jsonl",
    ),
    "a file without the named column": (
        ["train", "tiny.yaml", *FROM_FILE, "task.source=file:sums.jsonl", "--set", "task.problem_column=problems"],
        r"task\.problem_column.*no column problems; it has the columns problem, answer; did you mean problem\?",
    ),
    "an empty data set": (["train", "tiny.yaml", *FROM_FILE, "task.source=file:empty.jsonl"], r"task\.source.*empty"),
    "a data set of nothing but its header": (
        ["train", "tiny.yaml", *FROM_FILE, "task.source=file:header.csv"],
        r"task\.source",
    ),
    "prompts all too long": (
        ["train", "tiny.yaml", "--set", "task.max_prompt_tokens=3"],
        r"task\.max_prompt_tokens = 3: all \d+ prompts are longer; the shortest has \d+ tokens",
    ),
    "a name in use": (["train", "tiny.yaml", "--name", "taken"], r"--name = 'taken': a run with this name exists"),
    "a name with a slash": (["train", "tiny.yaml", "--name", "a/b"], r"--name = 'a/b': must be text without slashes"),
    "an empty name": (["train", "tiny.yaml", "--name", ""], r"--name = '': must be text"),
    "a model folder that is not there": (
        ["train", "tiny.yaml", "--set", "model.id=./nowhere"],
        r"model\.id = './nowhere': there is no such folder",
    ),
    "a source of no known kind": (
        ["train", "tiny.yaml", "--set", "task.source=sums.jsonl"],
        r"task\.source = 'sums\.jsonl'.*arithmetic, .*hub:OWNER/DATASET or file:PATH",
    ),
    "a Countdown of one number": (
        ["train", "tiny.yaml", *COUNTDOWN, "task.options={numbers: 1}"],
        r"task\.options\.numbers\.0 = 1: must be greater than or equal to 2",
    ),
    "a Countdown that nothing reaches": (
        ["train", "tiny.yaml", *COUNTDOWN, "task.options={numbers: 2, high: 9, operations: +, target_low: 50}"],
        r"task\.options: no problem was found: the numbers 1 to 9, 2 of them with \+, hardly ever make 50 to 100",
    ),
    "an option of the countdown reward": (
        ["train", "tiny.yaml", "--set", "rewards.0={name: countdown, options: {well_formed: 2}}"],
        r"rewards\.0\.options\.well_formed = 2: must be a number from 0 to 1",
    ),
    "several updates of AAPO": (
        algorithm("aapo", "updates_per_rollout=2"),
        r"updates_per_rollout = 2: aapo has no ratio .* each rollout can be used for one update only",
    ),
    "several updates of GPG": (algorithm("gpg", "updates_per_rollout=4"), r"updates_per_rollout = 4: gpg has no ratio"),
    "several updates of RLOO by REINFORCE": (
        algorithm("rloo", "updates_per_rollout=2"),
        r"rloo has no ratio .* one update only; algorithm\.options\.variant=ppo_seq has such a ratio",
    ),
    "no update": (algorithm("grpo", "updates_per_rollout=0"), r"algorithm\.updates_per_rollout = 0.*greater than or"),
    "an option that an algorithm does not have": (
        algorithm("dapo", "options.max_refils=2"),
        r"dapo has no option 'max_refils'; available: .*; did you mean algorithm\.options\.max_refills\?",
    ),
    "an option of an algorithm that has none": (
        algorithm("aapo", "options.beta=0.1"),
        r"aapo has no option 'beta'; available: none",
    ),
    "an option below its range": (
        algorithm("grpo", "options.beta=-1"),
        r"option beta = -1: must be a number of at least 0",
    ),
    "a tau of zero": (algorithm("disco", "options.tau=0"), r"option tau = 0: must be a number above 0"),
    "a part of a refill": (algorithm("dapo", "options.max_refills=1.5"), r"max_refills = 1\.5: must be a whole number"),
    "a word for a number": (algorithm("apa", "options.alpha=much"), r"option alpha = 'much': must be a number"),
    "a number for a switch": (algorithm("gpg", "options.adjust=1"), r"option adjust = 1: must be true or false"),
    "an unknown variant": (algorithm("p3o", "options.variant=v3"), r"option variant = 'v3': must be v2 or v1"),
    "a margin for GRPO": (
        algorithm("grpo", "margin_low=-0.5"),
        r"algorithm\.margin_low = -0\.5 \(from --set\): grpo has no margin.*remove it, or set algorithm\.name=aapo",
    ),
    "an upper margin for APA": (algorithm("apa", "margin_high=1"), r"algorithm\.margin_high = 1\.0.*apa has no margin"),
    "a bank without a reference": (
        algorithm("p3o", "reference=bank"),
        r"algorithm\.reference = 'bank'.*p3o has no margin",
    ),
    "pairing without a margin": (algorithm("loop", "pairing=mean"), r"algorithm\.pairing = 'mean'.*loop has no margin"),
    "pairing where the margin is one number": (
        algorithm("aapo", "pairing=mean", "margin_low=0", "margin_high=0"),
        r"algorithm\.pairing = 'mean'.*margin_low and margin_high are equal",
    ),
    "an unknown pairing": (algorithm("aapo", "pairing=random"), r"algorithm\.pairing = 'random'.*'index' or 'mean'"),
    "aggregation where it means nothing": (
        algorithm("gpg", "aggregation=groups"),
        r"algorithm\.aggregation = 'groups'.*gpg has no margin",
    ),
    "scaling where there is none": (
        algorithm("dr_grpo", "scale_rewards=true"),
        r"algorithm\.scale_rewards = True.*dr_grpo never divides by the group's standard deviation",
    ),
    "two rewards for DisCO": (
        algorithm("disco"),
        r"rewards: .*disco.*exactly 0 or 1: exactly one.*count: math, format",
    ),
    "a weight for DisCO": (
        [*algorithm("disco"), *LABELS, "--set", "rewards.0.weight=0.5"],
        r"rewards\.0\.weight = 0\.5: .*disco.*it must be 1",
    ),
    "a graded reward for DisCO": (
        [*algorithm("disco"), "--set", "rewards=[{name: length}]"],
        r"rewards\.0\.name = 'length': .*disco.*the rewards that are 0 or 1 are math",
    ),
    "a partly right answer for DisCO": (
        [*algorithm("disco"), "--set", "rewards=[{name: countdown, options: {well_formed: 0.1}}]"],
        r"rewards\.0\.options\.well_formed = 0\.1: .*disco.*it must be 0",
    ),
    "a warm start that writes the same for every problem": (
        ["train", "tiny.yaml", "--set", "warm_start.solutions=4", "--set", "warm_start.template=Seven."],
        r"warm_start\.template = 'Seven\.': must contain \{solution\} or \{answer\}",
    ),
    "a warm start without epochs": (
        ["train", "tiny.yaml", "--set", "warm_start.epochs=0"],
        r"warm_start\.epochs = 0 \(from --set\): must be greater than or equal to 1",
    ),
    "no preset": (["train"], r"Missing argument 'PRESET\|FILE'"),
    "an unknown option": (["demo", "--hedless"], r"No such option: --hedless.*--headless"),
    "a screen's option for a command without one": (
        ["--read-only", "runs"],
        r"--read-only is not supported by runs",
    ),
    "an unknown command": (["trian"], r"No such command 'trian'"),
    "no such run": (["watch", "nobody"], r"RUN = 'nobody': there is no such run"),
    "removing without being asked": (["runs", "rm", "taken"], r"--yes: is required"),
    "the screen without a terminal": ([], r"the terminal UI needs an interactive terminal"),
}
if not hardware.gpus():
    REFUSED["a GPU preset without a GPU"] = (
        ["train", "qwen2.5-0.5b_qlora_8gb"],
        r"model\.device = 'cuda': .*--set model\.device=cpu.*aapo-desk demo",
    )


@pytest.mark.parametrize(("arguments", "expected"), REFUSED.values(), ids=REFUSED.keys())
def test_is_refused_in_one_line_with_status_2(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = list_runs()
    status = run(arguments)
    captured = capsys.readouterr()
    assert status == 2, captured.err
    (line,) = captured.err.splitlines()
    assert "Traceback" not in captured.err
    assert re.search(expected, line), line
    assert line not in captured.out
    assert list_runs() == before, "no run is left behind"


def test_the_program_itself_refuses_the_same_way(here: Path) -> None:
    """The whole program in a process of its own: the same line and status, and nothing heavy on the way."""
    arguments = ["train", "tiny.yaml", "--set", "rollout.group_size=1"]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "aapo_desk", *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(lines) == 1
    assert lines[0].startswith("rollout.group_size = 1 (from --set): ")
    assert not any(line.endswith((" torch", " transformers")) for line in done.stderr.splitlines())


def test_several_mistakes_are_told_together_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "tiny.yaml", "--set", "rollout.group_size=1", "--set", "run.steps=0"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert sorted(line.split()[0] for line in lines) == ["rollout.group_size", "run.steps"]


def accepted(*sets: str, preset: str = "tiny.yaml", name: str | None = None) -> tuple[RunConfig, dict[str, Any]]:
    """All that stands between a command line and the trainer, the preflight in this process."""
    config = configuration(preset, list(sets), name)
    return config, preview.preflight(config, lambda _: None)


NUMBERS: dict[str, tuple[str, str, Any]] = {
    "spaces around": (" rollout.group_size = 6 ", "rollout.group_size", 6),
    "an exponent without a point": ("optimizer.learning_rate=1e-4", "optimizer.learning_rate", 1e-4),
    "a whole number written as a decimal": ("rollout.group_size=8.0", "rollout.group_size", 8),
    "a number in quotes": ('run.steps="12"', "run.steps", 12),
    "no evaluation": ("evaluation.problems=0", "evaluation.problems", 0),
    "a high learning rate": ("optimizer.learning_rate=1", "optimizer.learning_rate", 1.0),
    "an equals sign in the value": ("task.system_prompt=say x=1", "task.system_prompt", "say x=1"),
    "off, which YAML reads as false": ("rollout.capture=off", "rollout.capture", "off"),
    "nothing as a value": ("task.system_prompt=", "task.system_prompt", None),
}


@pytest.mark.parametrize(("item", "path", "value"), NUMBERS.values(), ids=NUMBERS.keys())
def test_a_value_that_only_looks_wrong_is_accepted(item: str, path: str, value: Any) -> None:
    config, found = accepted(item)
    section, key = path.split(".")
    assert getattr(getattr(config, section), key) == value
    assert found["train"] > 0


@pytest.mark.parametrize("name", METHODS)
def test_every_algorithm_is_accepted_by_one_line(name: str) -> None:
    rewards = ["rewards=[{name: math}, {name: length, weight: 0}]"] if METHODS[name].labels else []
    config, _ = accepted(f"algorithm.name={name}", *rewards)
    assert config.algorithm.name == name


def test_a_reward_may_have_a_negative_weight_and_the_margins_may_be_equal() -> None:
    config, _ = accepted("rewards.0.weight=-0.5", "algorithm.margin_low=0", "algorithm.margin_high=0")
    assert config.rewards[0].weight == -0.5


@pytest.mark.parametrize("name", ["größer 三", "two words", "v1.2", "tak", "demo", "..."])
def test_an_odd_name_is_accepted(name: str) -> None:
    config = configuration("tiny.yaml", [], name)
    assert create_run(config, name).name == name


@pytest.mark.parametrize("preset", ["./tiny.yaml", "my presets/größe 1.yml", "absolute"])
def test_a_preset_may_be_given_by_its_path(preset: str, here: Path) -> None:
    (here / "my presets").mkdir()
    (here / "my presets" / "größe 1.yml").write_text((here / "tiny.yaml").read_text())
    assert accepted(preset=str(here / "tiny.yaml") if preset == "absolute" else preset)[1]["train"] > 0


ROWS = [(row["problem"], row["answer"]) for row in SUMS]
DATA: dict[str, tuple[str, bytes, list[str]]] = {
    "a path with spaces": ("my data/sums 1.jsonl", FILES["sums.jsonl"].encode(), []),
    "an answer column of numbers": (
        "numbers.jsonl",
        "\n".join(json.dumps({"problem": problem, "answer": int(answer)}) for problem, answer in ROWS).encode(),
        [],
    ),
    "lines that end as on Windows": ("crlf.jsonl", FILES["sums.jsonl"].replace("\n", "\r\n").encode(), []),
    "empty lines between": ("gaps.jsonl", FILES["sums.jsonl"].replace("\n", "\n\n").encode(), []),
    "a CSV as a spreadsheet saves it": (
        "bom.csv",
        b"\xef\xbb\xbf" + b"problem,answer\r\n" + "".join(f"{p},{a}\r\n" for p, a in ROWS).encode(),
        [],
    ),
    "a comma and a line break in a cell": (
        "quoted.csv",
        ("problem,answer\n" + "".join(f'"First,\n{p}",{a}\n' for p, a in ROWS)).encode(),
        [],
    ),
    "other columns besides": (
        "wide.csv",
        ("id,Frage,Antwort\n" + "".join(f"{i},{p},{a}\n" for i, (p, a) in enumerate(ROWS))).encode(),
        ["task.problem_column=Frage", "task.answer_column=Antwort"],
    ),
}


@pytest.mark.parametrize(("name", "content", "sets"), DATA.values(), ids=DATA.keys())
def test_data_that_only_look_wrong_are_accepted(name: str, content: bytes, sets: list[str]) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_bytes(content)
    _, found = accepted(f"task.source=file:{name}", "task.held_out=5", "evaluation.problems=5", *sets)
    assert (found["train"], found["held_out"], found["dropped"]) == (20, 5, 0)


def test_a_custom_reward_beside_you_is_accepted() -> None:
    config, _ = accepted("rewards.0.name=fine.py:fair")
    assert config.rewards[0].name == "fine.py:fair"


def test_a_gpu_preset_is_accepted_with_the_advice_that_its_refusal_gave() -> None:
    assert configuration("qwen2.5-0.5b_qlora_8gb", ["model.device=cpu"], None).model.device == "cpu"


def test_what_is_wrong_in_ones_own_preset_names_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    data = yaml.safe_load(Path("tiny.yaml").read_text())
    data["rollout"]["group_size"] = 1
    Path("mine.yaml").write_text(yaml.safe_dump(data))
    assert run(["train", os.fspath(Path("mine.yaml"))]) == 2
    assert "rollout.group_size = 1 (from mine.yaml): " in capsys.readouterr().err
