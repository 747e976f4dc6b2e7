"""Targets of the fuzzing, and what must hold. Each takes a folder of its own."""

from __future__ import annotations

import contextlib
import io
import json
import math
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from aapo_desk import presets, tasks
from aapo_desk.cli.app import run as command
from aapo_desk.config import ConfigError, RewardConfig, TaskConfig, differences, parse_set, resolve
from aapo_desk.rewards import Completion, RewardPool
from aapo_desk.store import RunDirectory, create_run
from aapo_desk.training.control import Control
from aapo_desk.tui.text import visible
from tests.fuzz import strategies
from tests.run_data import config as run_config
from tests.run_data import write_finished


@dataclass(frozen=True)
class Target:
    """``drawn`` goes to ``work`` with a folder."""

    drawn: st.SearchStrategy[Any]
    work: Callable[[Any, Path], None]


def configuration(given: tuple[dict[str, Any], dict[str, Any]], _: Path) -> None:
    tree, overrides = given
    with contextlib.suppress(ConfigError):
        config = resolve(tree, overrides)
        again = resolve(json.loads(config.model_dump_json()))
        assert not differences(config, again)


def settings(given: list[str], _: Path) -> None:
    with contextlib.suppress(ConfigError):
        presets.load("demo", parse_set(given))


def preset(data: bytes, folder: Path) -> None:
    file = folder / "given.yaml"
    file.write_bytes(data)
    with contextlib.suppress(ConfigError):
        presets.load(str(file))


def say(arguments: list[str]) -> None:
    """One command line, as the user's: its exit status is one of three, and no error is one that nobody foresaw."""
    said, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
        status = command(arguments)
    assert status in (0, 1, 2), (status, arguments)
    assert "unexpected error" not in complained.getvalue(), complained.getvalue()
    assert "Traceback" not in said.getvalue() + complained.getvalue()
    if status:
        assert complained.getvalue().strip(), f"{arguments}: nothing was said"


def command_line(arguments: list[str], _: Path) -> None:
    say(arguments)


def request(data: bytes, _: Path) -> None:
    run = _a_run("asked")
    run.commands.mkdir(exist_ok=True)
    (run.commands / "one.json").write_bytes(data)
    control = Control(run, 3)
    control.take_commands()
    assert not list(run.commands.iterdir())


def run_directory(given: tuple[str, bytes, int], _: Path) -> None:
    """A finished run of which one file is damaged: lists, shows and compares."""
    name, noise, place = given
    run = _finished()
    file = run.path / name
    whole = file.read_bytes()
    place %= len(whole) + 1
    try:
        file.write_bytes(whole[:place] + noise + whole[place + len(noise) :] if noise else whole[:place])
        for arguments in (["runs"], ["runs", "--json"], ["runs", "show", run.id], ["runs", "show", run.id, "--json"]):
            say(arguments)
        say(["compare", run.id, run.id])
    finally:
        file.write_bytes(whole)
        for beside in run.path.glob("run.db-*"):
            beside.unlink()


def data_file(given: tuple[str, bytes], folder: Path) -> None:
    kind, data = given
    file = folder / f"data{kind}"
    file.write_bytes(data)
    with contextlib.suppress(ConfigError):
        tasks.load(TaskConfig(source=f"file:{file}", held_out=1), seed=0)


def completion(given: list[str], _: Path) -> None:
    scores = _pool().score([Completion(text, "1 + 1", "2", 5, 9, False) for text in given])
    assert len(scores) == len(given)
    for score, text in zip(scores, given, strict=True):
        assert score.error or math.isfinite(score.total or 0.0)
        shown = visible(text)
        assert not [one for one in shown if one != "\n" and unicodedata.category(one) in ("Cc", "Cf", "Cs")]


@cache
def _pool() -> RewardPool:
    given = [
        {"name": "math"},
        {"name": "format", "options": {"pattern": "<answer>.*?</answer>"}},
        {"name": "repetition"},
    ]
    rewards = [RewardConfig.model_validate(one) for one in given]
    return RewardPool(rewards, workers=1)


@cache
def _a_run(name: str) -> RunDirectory:
    return create_run(run_config(), name)


@cache
def _finished() -> RunDirectory:
    run = create_run(run_config(), "finished")
    write_finished(run).close()
    return run


def forget() -> None:
    """End what is kept from example to example."""
    if _pool.cache_info().currsize:
        _pool().close()
    for kept in (_pool, _a_run, _finished):
        kept.cache_clear()


TARGETS = {
    "config": Target(st.tuples(strategies.trees(), strategies.overrides), configuration),
    "settings": Target(strategies.settings_given, settings),
    "presets": Target(st.deferred(strategies.preset_files), preset),
    "command lines": Target(strategies.command_lines, command_line),
    "requests": Target(strategies.requests, request),
    "run directories": Target(
        st.tuples(
            st.sampled_from(["config.json", "meta.json", "status.json", "run.db"]),
            st.binary(max_size=30),
            st.integers(0, 1 << 20),
        ),
        run_directory,
    ),
    "data files": Target(strategies.tables, data_file),
    "completions": Target(strategies.completions, completion),
}
