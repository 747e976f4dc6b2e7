"""``fit``: a verdict with its table, changes that can be used as they stand, and wrong use in one clear line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from aapo_desk import fit as fitting
from aapo_desk import hardware
from aapo_desk.cli.app import run
from tests.shapes import QWEN3_1_7B, QWEN3_8B, RTX_4060

Output = pytest.CaptureFixture[str]
GIB = 1 << 30


@pytest.fixture(autouse=True)
def here(desk_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models as folders, a preset file for each, and a machine without a GPU."""
    monkeypatch.chdir(tmp_path)
    for name, numbers in (("small", QWEN3_1_7B), ("large", QWEN3_8B)):
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(numbers))
        data = {"model": {"id": str(folder)}, "task": {"source": "arithmetic"}}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(data))
    unknown = {"model": {"id": "nobody/has-this"}, "task": {"source": "arithmetic"}}
    (tmp_path / "unknown.yaml").write_text(yaml.safe_dump(unknown))
    monkeypatch.setattr(hardware, "machine", lambda: hardware.Machine(8, 3.0, 32000, 21000, ()))


def judged(capsys: Output, *arguments: str) -> dict[str, Any]:
    assert run(["fit", *arguments, "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_the_document_says_what_is_needed_and_what_it_is_made_of(capsys: Output) -> None:
    document = judged(capsys, "small.yaml", "--vram", "24")
    assert (document["verdict"], document["device"], document["free"]) == ("fits", "cuda", 24 * GIB)
    assert document["needed"] == document["full"] > document["least"]
    at_peak = sum(term["bytes"] for term in document["terms"] if term["at_peak"])
    assert at_peak == document["needed"]
    assert {term["phase"] for term in document["terms"]} == {"always", "rollout", "update"}
    assert document["plan"]["shadow_weights"] is True
    assert document["changes"] == []


def test_without_a_card_named_this_machine_is_what_counts(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    document = judged(capsys, "small.yaml")
    assert (document["device"], document["free"]) == ("cpu", 21000 << 20)
    monkeypatch.setattr(hardware, "machine", lambda: hardware.Machine(8, 3.0, 32000, 21000, (RTX_4060,)))
    document = judged(capsys, "small.yaml")
    assert (document["card"], document["free"], document["total"]) == (RTX_4060.name, 7576 << 20, 8188 << 20)


def test_what_is_set_counts(capsys: Output) -> None:
    plain = judged(capsys, "small.yaml", "--vram", "8")
    longer = judged(capsys, "small.yaml", "--vram", "8", "--set", "rollout.max_new_tokens=4096")
    assert longer["least"] > plain["least"]


def test_what_is_said_to_help_helps_as_it_stands(capsys: Output) -> None:
    long = ["--set", "model.quantization=none", "--set", "rollout.max_new_tokens=8192"]
    command = ["large.yaml", "--vram", "12", *long]
    assert run(["fit", *command]) == 0
    text = capsys.readouterr().out
    assert ": too large\n" in text
    said = re.findall(r"^  (--set .+)$", text, flags=re.MULTILINE)
    assert said
    for line in said:
        document = judged(capsys, *command, *line.split())
        assert document["verdict"] in ("fits", "tight")


def test_lines_show_the_bar_the_table_and_the_phase(capsys: Output) -> None:
    assert run(["fit", "small.yaml", "--vram", "6"]) == 0
    first, bar, *rest = capsys.readouterr().out.splitlines()
    assert first.endswith("models/small on a GPU with 6 GB: tight")
    assert re.fullmatch(r"\[#+\.+\] at least 2\.\d of 6\.0 GB free, peak in the update", bar)
    columns = [line.split() for line in rest]
    weights = next(line for line in columns if line[:2] == ["always", "weights"])
    assert weights[2] == weights[3]
    shares = [float(line[-1]) for line in columns[2:] if len(line) > 3 and re.fullmatch(r"\d+\.\d\d", line[-2])]
    total = next(line for line in columns if line[:1] == ["total"])
    assert sum(shares) == pytest.approx(float(total[-1]), abs=0.05)
    assert any(line.startswith("planned: up to ") for line in rest)
    assert any("drives a desktop" in line for line in rest)


def test_a_card_that_others_fill_is_said_to_be_enough_without_them(
    capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = hardware.Gpu("card", 8188, 7000, None, None, None, None)
    monkeypatch.setattr(hardware, "machine", lambda: hardware.Machine(8, 3.0, 32000, 21000, (busy,)))
    document = judged(capsys, "small.yaml")
    assert document["verdict"] == "too large"
    assert any(
        "other programs use 6.8 GB of it; without them the verdict would be: " in note for note in document["notes"]
    )


@pytest.mark.parametrize(
    ("wsl", "said"), [(True, "trust the estimate: do not start"), (False, "not have enough memory")]
)
def test_a_run_that_is_too_large_spills_on_wsl_and_fails_elsewhere(
    capsys: Output, monkeypatch: pytest.MonkeyPatch, wsl: bool, said: str
) -> None:
    monkeypatch.setattr(fitting, "spills", lambda: wsl)
    document = judged(capsys, "large.yaml", "--vram", "4")
    assert (document["verdict"], document["plan"]) == ("too large", None)
    assert said in document["notes"][0]


def test_where_nothing_helps_it_is_said(capsys: Output) -> None:
    assert run(["fit", "large.yaml", "--vram", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "no setting makes it fit: use a smaller model"


def test_a_model_of_unknown_size_is_said_to_be_one(capsys: Output) -> None:
    assert run(["fit", "unknown.yaml"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    said = "the model's size is not known until it has been downloaded"
    assert captured.err == f"aapo-desk: cannot estimate the memory for nobody/has-this: {said}\n"


REFUSED: dict[str, tuple[list[str], str]] = {
    "no preset": ([], "Missing argument 'PRESET|FILE'"),
    "an unknown preset": (["demmo"], "preset = 'demmo': there is no such preset"),
    "a file that is not there": (["gone.yaml"], "preset = 'gone.yaml': the file does not exist"),
    "an unknown setting": (["small.yaml", "--set", "lora.rank=8"], "did you mean lora.r"),
    "a setting without a value": (["small.yaml", "--set", "lora.r"], "--set needs PATH=VALUE"),
    "a setting out of bounds": (["small.yaml", "--set", "lora.r=0"], "lora.r = 0"),
    "no memory": (
        ["small.yaml", "--vram", "0"],
        "--vram = 0.0: must be the memory of a GPU in GB, above 0 and at most 1024",
    ),
    "less than none": (["small.yaml", "--vram", "-8"], "--vram = -8.0: must be the memory of a GPU"),
    "no number": (["small.yaml", "--vram", "nan"], "--vram = nan: must be the memory of a GPU"),
    "endless memory": (["small.yaml", "--vram", "inf"], "--vram = inf: must be the memory of a GPU"),
    "words": (
        ["small.yaml", "--vram", "much"],
        "Invalid value for '--vram': Input should be a valid number, unable to parse string as a number, not 'much'. ",
    ),
    "a card for a run on the processor": (
        ["small.yaml", "--vram", "8", "--set", "model.device=cpu"],
        "--vram = 8.0: applies to GPUs, but this run uses the CPU; add --set model.device=cuda",
    ),
    "a GPU that is not there": (
        ["small.yaml", "--set", "model.device=cuda"],
        "model.device = 'cuda': found no NVIDIA GPU on this machine; give the memory of a GPU in GB, such as --vram 12",
    ),
}


@pytest.mark.parametrize(("arguments", "said"), REFUSED.values(), ids=REFUSED)
def test_wrong_use_is_refused_in_one_line(capsys: Output, arguments: list[str], said: str) -> None:
    assert run(["fit", *arguments, "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert said in line
