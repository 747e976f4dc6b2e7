"""The rewards that ``check`` refuses, with which message, and those that it must accept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aapo_desk.config import ConfigError, RewardConfig
from aapo_desk.rewards import check

MINE = """
import functools
def score(completion, answer, *, style="short", problem=""): return 1.0
def demanding(completion, answer, level): return 1.0
def everything(completion, answer, **given): return 1.0
def lonely(completion): return 1.0
def positional(completion, answer, more, /): return 1.0
async def later(completion, answer): return 1.0
def renamed(text, gold): return 1.0
def whatever(*given): return 1.0
twice = functools.partial(score, style="long")
class Judge:
    def __call__(self, completion, answer): return 1.0
judge = Judge()
number = 7
_hidden = lambda completion, answer: 1.0
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "broken.py").write_text("def score(completion, answer):\n    return )\n")
    (tmp_path / "missing.py").write_text("import a_package_that_is_not_there\n")
    (tmp_path / "leaves.py").write_text("import sys\n\nsys.exit('no thanks')\n")
    (tmp_path / "dies.py").write_text("import os\nos._exit(4)\n")
    (tmp_path / "fills.py").write_text("held = bytearray(8 << 30)\n")
    (tmp_path / "sleeps.py").write_text("import time\ntime.sleep(1000)\n")
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe\x00score")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("maths", {}, "rewards.0.name = 'maths': there is no such reward; there are math, format, length, readable, "),
        ("maths", {}, "; did you mean math?"),
        ("", {}, "rewards.0.name"),
        ("math", {"presision": 6}, "rewards.0.options.presision: there is no such option; its options are worked_out"),
        ("readable", {"x": 1}, "rewards.0.options.x: there is no such option"),
        ("cosine", {"right_short": "1"}, "rewards.0.options.right_short = '1': must be a number"),
        ("cosine", {"exceeded": True}, "rewards.0.options.exceeded = True: must be a number"),
        ("cosine", {"longest": 0}, "rewards.0.options.longest = 0: must be a number of tokens, 1 or more"),
        ("cosine", {"worked_out": 1}, "rewards.0.options.worked_out = 1: must be true or false"),
        ("cosine", {"right": 1}, "there is no such option; its options are right_short, right_long, wrong_short"),
        ("repetition", {"words": 2.5}, "rewards.0.options.words = 2.5: must be a number of words, 1 or more"),
        ("repetition", {"penalty": -1}, "rewards.0.options.penalty = -1: must be a number above 0"),
        ("tags", {"names": []}, "rewards.0.options.names = []: must be a list of tags without their brackets"),
        ("tags", {"names": "think"}, "rewards.0.options.names = 'think': must be a list of tags"),
        ("tags", {"names": ["<think>"]}, "rewards.0.options.names = ['<think>']: must be a list of tags without"),
        ("tags", {"names": ["a", "a"]}, "rewards.0.options.names = ['a', 'a']: contains a tag twice"),
        ("overlong", {"margin": 0}, "rewards.0.options.margin = 0: must be a number of tokens, 1 or more"),
        (
            "overlong",
            {"longest": 10, "margin": 20},
            "rewards.0.options.margin = 20: must not be more than longest (10)",
        ),
        ("numeric", {"relative": -0.1}, "rewards.0.options.relative = -0.1: must be a number, 0 or more"),
        ("numeric", {"tolerance": 1}, "there is no such option; its options are relative, absolute"),
        ("countdown", {"well_formed": 1.5}, "rewards.0.options.well_formed = 1.5: must be a number from 0 to 1"),
        ("countdown", {"well_formed": -0.1}, "rewards.0.options.well_formed = -0.1: must be a number from 0 to 1"),
        ("countdown", {"well_formed": True}, "rewards.0.options.well_formed = True: must be a number from 0 to 1"),
        ("countdown", {"well_formed": "0.1"}, "rewards.0.options.well_formed = '0.1': must be a number from 0 to 1"),
        ("countdown", {"all_numbers": 1}, "rewards.0.options.all_numbers = 1: must be true or false"),
        ("countdown", {"all_numbres": True}, "there is no such option; its options are well_formed, all_numbers; did"),
        ("count down", {}, "rewards.0.name = 'count down': there is no such reward;"),
        ("format", {}, "rewards.0.options.pattern: is missing"),
        ("format", {"pattern": ""}, "rewards.0.options.pattern = '': must be a regular expression"),
        ("format", {"pattern": 42}, "rewards.0.options.pattern = 42: must be a regular expression"),
        ("format", {"pattern": "(a"}, "rewards.0.options.pattern = '(a': is not a regular expression: missing )"),
        ("format", {"pattern": "a", "mode": "ful"}, "rewards.0.options.mode = 'ful': must be search or full; did you"),
        (
            "format",
            {"patern": "a"},
            "rewards.0.options.patern: there is no such option; its options are pattern, mode;",
        ),
        ("length", {"target": -1}, "rewards.0.options.target = -1: must be a number of tokens, 0 or more"),
        ("length", {"target": "64"}, "rewards.0.options.target = '64': must be"),
        ("length", {"target": True}, "rewards.0.options.target = True: must be"),
        ("length", {"target": float("nan")}, "rewards.0.options.target = nan: must be"),
        ("length", {"targt": 1}, "; did you mean target?"),
        ("nowhere.py:score", {}, "rewards.0.name = 'nowhere.py:score': there is no file /"),
        ("mine.py", {}, "rewards.0.name = 'mine.py': a custom reward must be FILE.py:FUNCTION"),
        ("mine.py:", {}, "must be FILE.py:FUNCTION"),
        ("mine:score", {}, "must be FILE.py:FUNCTION"),
        ("mine.py:1+1", {}, "must be FILE.py:FUNCTION"),
        (".:score", {}, "must be FILE.py:FUNCTION"),
        ("binary.py:score", {}, "is not Python text"),
        ("mine.py:scores", {}, "mine.py has no function scores; it has score, demanding, "),
        ("mine.py:scores", {}, "; did you mean score?"),
        ("mine.py:number", {}, "number in mine.py is of type int, not a plain function"),
        ("mine.py:later", {}, "later in mine.py is an async function, not a plain function"),
        ("mine.py:lonely", {}, "must take two arguments: the text of the completion and the right answer"),
        ("mine.py:positional", {}, "requires a third positional argument"),
        ("mine.py:demanding", {}, "rewards.0.options.level: is missing: the function needs the argument level"),
        (
            "mine.py:score",
            {"stile": 1},
            "rewards.0.options.stile: the function has no such argument; did you mean sty",
        ),
        ("mine.py:everything", {"answer": 1}, "rewards.0.options.answer: is passed to the function anyway"),
        ("mine.py:score", {"problem": 1}, "rewards.0.options.problem: is passed to the function anyway"),
        ("broken.py:score", {}, "cannot be imported: SyntaxError: unmatched ')' (line 2)"),
        (
            "missing.py:score",
            {},
            "cannot be imported: ModuleNotFoundError: No module named 'a_package_that_is_not_there'",
        ),
        ("leaves.py:score", {}, "cannot be imported: SystemExit: no thanks (line 3)"),
        ("dies.py:score", {}, "cannot be imported: the process that tried it ended with status 4"),
        ("fills.py:score", {}, "loading it takes more memory than a worker may use (2048 MB)"),
    ],
)
def test_a_reward_that_cannot_work_is_refused_in_one_line(
    folder: Path, name: str, options: dict[str, Any], expected: str
) -> None:
    # Made without validation: some of these values do not get as far as this check from a file.
    with pytest.raises(ConfigError) as refused:
        check([RewardConfig.model_construct(name=name, weight=1.0, options=options)])
    assert expected in str(refused.value)
    assert len(str(refused.value).splitlines()) == len(refused.value.problems)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("math", {}),
        ("readable", {}),
        ("format", {"pattern": "[[x]](?:a|b)* \\boxed\\{"}),
        ("format", {"pattern": " "}),
        ("format", {"pattern": "(a+)+$", "mode": "full"}),
        ("length", {}),
        ("length", {"target": 0}),
        ("length", {"target": 64.5}),
        ("length", {"target": 10**9}),
        ("countdown", {}),
        ("countdown", {"well_formed": 0, "all_numbers": False}),
        ("countdown", {"well_formed": 1.0}),
        ("mine.py:score", {}),
        ("./mine.py:score", {"style": "long"}),
        ("mine.py:demanding", {"level": None}),
        ("mine.py:everything", {"anything": [1, {"a": 2}]}),
        ("mine.py:renamed", {}),
        ("mine.py:whatever", {}),
        ("mine.py:twice", {}),
        ("mine.py:judge", {}),
        ("mine.py:_hidden", {}),
        ("a folder: odd/math.py:math", {}),
    ],
)
def test_what_only_looks_wrong_is_accepted(folder: Path, name: str, options: dict[str, Any]) -> None:
    odd = folder / "a folder: odd"
    odd.mkdir()
    (odd / "math.py").write_text("import math as standard\ndef math(completion, answer): return standard.pi\n")
    check([RewardConfig(name=name, weight=-1, options=options)])


def test_every_problem_is_told_under_its_own_position(folder: Path) -> None:
    rewards = [
        RewardConfig(name="math"),
        RewardConfig(name="format", options={"mode": "none", "patern": "a"}),
        RewardConfig(name="mine.py:nothing"),
    ]
    with pytest.raises(ConfigError) as refused:
        check(rewards)
    paths = [problem.path for problem in refused.value.problems]
    assert paths == [
        "rewards.1.options.patern",
        "rewards.1.options.pattern",
        "rewards.1.options.mode",
        "rewards.2.name",
    ]


def test_a_file_that_never_finishes_importing_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aapo_desk.rewards.checking.START_LIMIT", 1.0)
    with pytest.raises(ConfigError, match="cannot be imported: it takes more than 1 s"):
        check([RewardConfig(name="sleeps.py:score")])
