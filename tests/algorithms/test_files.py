"""One file and one line an algorithm, and the two agree."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from aapo_desk import algorithms
from aapo_desk.algorithms import build
from aapo_desk.config import METHODS, AlgorithmConfig, RolloutConfig

FOLDER = Path(algorithms.__file__).parent
LONGEST = 80


def test_there_is_a_file_for_each_algorithm_and_no_other_place_names_them() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} - {"__init__", "base"} == METHODS.keys()
    shared = "".join((FOLDER / name).read_text() for name in ("__init__.py", "base.py"))
    assert not [name for name in METHODS if name in shared.lower().split()]


@pytest.mark.parametrize("name", METHODS)
def test_a_file_is_short_and_opens_with_its_formula_its_source_and_its_deviations(name: str) -> None:
    text = (FOLDER / f"{name}.py").read_text()
    assert len(text.splitlines()) <= LONGEST
    opening = ast.get_docstring(ast.parse(text)) or ""
    assert "arXiv" in opening
    assert " L " in opening
    assert "Deviations" in opening


@pytest.mark.parametrize("name", METHODS)
def test_what_a_file_declares_is_what_its_line_says(name: str) -> None:
    method, made = METHODS[name], build(AlgorithmConfig(name=name))
    assert made.name == name
    assert made.needs_reference_rewards == method.has_margin
    assert made.needs_labels == method.labels


@pytest.mark.parametrize("name", METHODS)
def test_several_updates_are_allowed_where_something_corrects_for_an_older_policy(name: str) -> None:
    """A ratio to the old log-probs; APA's solution does not depend on who sampled."""
    made = build(AlgorithmConfig(name=name))
    assert METHODS[name].reuses(METHODS[name].complete({})) == (made.needs_old_logps or name == "apa")


def test_options_and_sizes_reach_the_algorithm() -> None:
    import torch

    from aapo_desk.algorithms import Batch

    rewards, mask = torch.tensor([[1.0, 0.0]]), torch.ones(2, 3, dtype=torch.float64)
    batch, logps = Batch(rewards.double(), mask), torch.zeros(2, 3, dtype=torch.float64)
    config = AlgorithmConfig(name="dr_grpo")
    sized = build(config, RolloutConfig(max_new_tokens=5)).objective(batch, logps).gradient
    twice = build(config, RolloutConfig(max_new_tokens=10)).objective(batch, logps).gradient
    torch.testing.assert_close(sized, 2 * twice)
    divided = build(AlgorithmConfig(name="loop"), RolloutConfig(prompts_per_step=1, group_size=2))
    given = build(AlgorithmConfig(name="loop", options={"loss_div_factor": 4}))
    torch.testing.assert_close(divided.objective(batch, logps).gradient, 2 * given.objective(batch, logps).gradient)
    assert build(AlgorithmConfig(name="dapo")).max_refills == 3
    assert build(AlgorithmConfig(name="dapo", options={"max_refills": 0})).max_refills == 0
