"""The command: what it prints, its exit status, and one look at the machine that runs the tests."""

from __future__ import annotations

import json
import re

import pytest

from aapo_desk import doctor, hardware
from aapo_desk.cli.app import run
from aapo_desk.cli.doctor import lines
from aapo_desk.doctor.facts import Facts, Library
from aapo_desk.doctor.finding import ok, problem
from tests.doctor.machines import HOBBYIST, LAPTOP, with_library

Output = pytest.CaptureFixture[str]


def answer(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "look", lambda offline, probe: facts)


@pytest.mark.parametrize(
    ("facts", "status"), [(HOBBYIST, 0), (LAPTOP, 0), (with_library("bitsandbytes", Library(None)), 1)]
)
def test_the_exit_status_says_whether_training_can_work(
    facts: Facts, status: int, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    answer(facts, monkeypatch)
    assert run(["doctor"]) == status
    plain = capsys.readouterr()
    assert plain.err == ""
    assert "\x1b" not in plain.out
    assert ("training" in plain.out.splitlines()[-1]) or status == 1
    assert run(["doctor", "--json"]) == status
    document = json.loads(capsys.readouterr().out)
    assert document["works"] is (status == 0)
    assert document["findings"][-1]["state"] == ("problem" if status else "ok")
    assert document["facts"]["terminal"]["size"] == [120, 40]


def test_the_lines_stand_in_columns_and_break_where_the_terminal_ends() -> None:
    found = [ok("gpu", "a card"), problem("gpu memory", "word " * 20, "do this")]
    assert lines(found) == [
        "gpu         ok       a card",
        f"gpu memory  problem  {'word ' * 20}",
        "                     do this",
    ]
    broken = lines(found, 81)
    assert len(broken) == 4
    assert max(map(len, broken)) <= 81
    assert broken[2].startswith(" " * 21 + "word")


def test_control_characters_of_a_library_are_shown_and_not_obeyed() -> None:
    assert lines([problem("peft", "\x1b[2Jgone\nand more")]) == ["peft  problem  \\x1b[2Jgone\\nand more"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--probes"], r"No such option: --probes.*--help"), (["gpu"], r"unexpected extra argument")],
)
def test_wrong_use_is_one_line_and_looks_at_nothing(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.delattr(doctor, "look")
    assert run(["doctor", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert re.search(said, captured.err)


@pytest.mark.slow
def test_this_machine_trains_a_tiny_step(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    status = run(["doctor", "--json", "--probe", "--offline"])
    document = json.loads(capsys.readouterr().out)
    told = {finding["name"]: finding for finding in document["findings"]}
    assert told["hub"]["found"] == "not checked: --offline"
    assert {finding["state"] for finding in document["findings"]} <= {"ok", "warning", "problem"}
    for library in ("torch", "bitsandbytes", "transformers", "peft", "datasets", "textual"):
        assert told[library]["state"] == "ok", told[library]
    assert told["probe"]["state"] == "ok", told["probe"]
    step = document["facts"]["probe"]
    assert (step["quantization"], step["error"]) == ("nf4", None)
    assert step["grad_norm"] > 0
    assert step["update_norm"] > 0
    assert set(step["paths"].values()) == {None}
    on_gpu = bool(hardware.gpus())
    assert ("fixed_steps" in step["paths"]) == on_gpu
    assert step["device"] == ("cuda" if on_gpu else "cpu")
    assert document["works"] is (status == 0) is True
