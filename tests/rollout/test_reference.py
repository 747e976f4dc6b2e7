"""The banked reference: what a key holds, what is drawn, and when nothing is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from aapo_desk.algorithms import build
from aapo_desk.config import REFERENCE_ALGORITHMS, AlgorithmConfig, ModelConfig, RunConfig, banks_reference, resolve
from aapo_desk.models.policy import Policy
from aapo_desk.models.sources import ResolvedModel, identity
from aapo_desk.models.sources import resolve as resolve_model
from aapo_desk.rewards import RewardPool, Score
from aapo_desk.rollout import Bank, BankedReference, Completions, Scored
from aapo_desk.rollout.reference import settings
from aapo_desk.tasks import Problem
from tests.policies import load_tiny

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [20, 21], [30, 31, 32, 33]]
PROBLEMS = [Problem(str(number), f"problem {number}", str(number)) for number in range(3)]
SIZE = 4


@pytest.fixture(scope="module")
def policy(tiny_model: Path) -> Policy:
    return load_tiny(tiny_model)


@pytest.fixture
def config(tiny_config: dict[str, Any]) -> dict[str, Any]:
    rewards = [{"name": "math"}, *tiny_config["rewards"]]
    return tiny_config | {"rewards": rewards, "algorithm": {"reference": "bank"}}


def banked(config: RunConfig, policy: Policy, folder: Path) -> BankedReference:
    with RewardPool(config.rewards) as pool:
        facts = settings(config, policy, resolve_model(config.model), pool)
    return BankedReference(config, policy, facts, Bank(folder / "reference.db", pytest.fail))


def key(config: RunConfig, policy: Policy, folder: Path) -> str:
    return banked(config, policy, folder).key(PROMPTS[0], PROBLEMS[0])


def scored(completions: Completions) -> list[Scored]:
    """A score that tells the completions apart."""
    rows = [completions.row(row) for row in range(len(completions.lengths))]
    return [Scored(str(row), len(row), False, Score(float(sum(row)), {})) for row in rows]


@contextmanager
def rows_read(policy: Policy) -> Iterator[list[int]]:
    """How many rows each pass through the model has."""
    counts: list[int] = []
    embeddings = policy.causal.get_input_embeddings()
    hook = embeddings.register_forward_hook(lambda _module, inputs, _output: counts.append(len(inputs[0])))
    try:
        yield counts
    finally:
        hook.remove()


def step(reference: BankedReference, places: Sequence[int]) -> list[Scored]:
    """Do what a step does with the reference cache."""
    found = reference.look_up([PROMPTS[place] for place in places], [PROBLEMS[place] for place in places])
    drawn = found.draw(99, lambda _: None)
    return found.complete([one for each in drawn for one in scored(each.completions)])


def test_a_prompt_is_sampled_once_and_its_group_reused(config: dict[str, Any], policy: Policy, tmp_path: Path) -> None:
    reference = banked(resolve(config), policy, tmp_path)
    first = step(reference, [0, 1])
    with rows_read(policy) as rows:
        assert step(reference, [1, 0]) == first[SIZE:] + first[:SIZE]
        assert step(banked(resolve(config), policy, tmp_path), [0, 1]) == first  # from the disk
    assert rows == []


def test_a_step_with_some_prompts_banked_samples_the_others_alone(
    config: dict[str, Any], policy: Policy, tmp_path: Path
) -> None:
    reference = banked(resolve(config), policy, tmp_path)
    known = step(reference, [0])
    with rows_read(policy) as rows:
        both = step(reference, [1, 0, 2])
    assert both[SIZE : 2 * SIZE] == known
    assert rows[:2] == [2, 2 * SIZE]  # two prompts read, then their groups


def test_a_prompt_that_a_step_holds_twice_is_sampled_once(
    config: dict[str, Any], policy: Policy, tmp_path: Path
) -> None:
    reference = banked(resolve(config), policy, tmp_path)
    with rows_read(policy) as rows:
        group = step(reference, [1, 0, 1])
    assert rows[:2] == [2, 2 * SIZE]
    assert group[:SIZE] == group[2 * SIZE :]
    assert group[:SIZE] != group[SIZE : 2 * SIZE]


def test_what_is_drawn_for_a_prompt_is_the_same_alone_and_in_any_batch(
    config: dict[str, Any], policy: Policy, tmp_path: Path
) -> None:
    reference = banked(resolve(config), policy, tmp_path)
    together = scored(reference.sample(PROMPTS))
    assert scored(reference.sample(PROMPTS, batch_rows=5)) == together
    assert scored(reference.sample(PROMPTS[::-1]))[:SIZE] == together[2 * SIZE :]
    alone = [scored(reference.sample([prompt])) for prompt in PROMPTS]
    assert [one for group in alone for one in group] == together
    assert len({one.text for one in together}) > SIZE


def test_it_is_the_frozen_base_that_is_sampled(config: dict[str, Any], policy: Policy, tmp_path: Path) -> None:
    reference = banked(resolve(config), policy, tmp_path)
    before = scored(reference.sample(PROMPTS))
    b = [value for name, value in policy.adapter_parameters().items() if "lora_B" in name]
    kept = [value.detach().clone() for value in b]
    for value in b:
        value.data *= -3
    try:
        assert scored(reference.sample(PROMPTS)) == before
    finally:
        for value, was in zip(b, kept, strict=True):
            value.data.copy_(was)


def test_another_seed_draws_another_group(config: dict[str, Any], policy: Policy, tmp_path: Path) -> None:
    first = banked(resolve(config), policy, tmp_path)
    second = banked(resolve(config, {"run.seed": 7}), policy, tmp_path)
    assert step(first, [0, 1]) != step(second, [0, 1])
    assert step(banked(resolve(config), policy, tmp_path), [0, 1]) == step(first, [0, 1])


@pytest.mark.parametrize(
    "change",
    [
        {"run.seed": 1},
        {"model.quantization": "nf4"},
        {"model.compute_dtype": "float64"},
        {"model.trust_remote_code": True},
        {"rollout.temperature": 0.9},
        {"rollout.top_p": 0.9},
        {"rollout.top_k": 5},
        {"rollout.max_new_tokens": 7},
        {"rollout.group_size": 5},
        {"rewards.0.weight": 0.5},
        {"rewards.0.options": {"worked_out": True}},
        {"rewards.1.options.pattern": "[a-n]"},
        {"rewards": [{"name": "math"}]},
        {"rewards": [{"name": "format", "options": {"pattern": "[a-m]"}}, {"name": "math"}]},
    ],
    ids=str,
)
def test_whatever_determines_the_rewards_changes_the_key(
    change: dict[str, Any], config: dict[str, Any], policy: Policy, tmp_path: Path
) -> None:
    assert key(resolve(config, change), policy, tmp_path) != key(resolve(config), policy, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"run.steps": 9, "run.checkpoint_every": 2},
        {"optimizer.learning_rate": 0.5},
        {"lora.r": 2},
        {"algorithm.margin_high": 1.0, "algorithm.scale_rewards": False},
        {"rollout.prompts_per_step": 1},
        {"evaluation.problems": 0},
        {"model.compute_dtype": "float32"},  # what auto means on the CPU
    ],
    ids=str,
)
def test_what_does_not_touch_them_leaves_the_key(
    change: dict[str, Any], config: dict[str, Any], policy: Policy, tmp_path: Path
) -> None:
    assert key(resolve(config, change), policy, tmp_path) == key(resolve(config), policy, tmp_path)


def test_prompt_problem_answer_and_eos_are_in_the_key(config: dict[str, Any], policy: Policy, tmp_path: Path) -> None:
    reference = banked(resolve(config), policy, tmp_path)
    prompt, problem = PROMPTS[0], PROBLEMS[0]
    keys = {
        reference.key(prompt, problem),
        reference.key(PROMPTS[1], problem),
        reference.key(prompt, replace(problem, answer="9")),
        reference.key(prompt, replace(problem, problem="as the rewards see it")),
        key(resolve(config), replace(policy, eos_ids=(5, 6)), tmp_path),
        key(
            resolve(config, {"model.compute_dtype": "float32"}), replace(policy, device=torch.device("cuda")), tmp_path
        ),
    }
    assert len(keys) == 6
    assert reference.key(prompt, replace(problem, id="another")) in keys


def test_a_custom_rewards_text_and_the_files_beside_it_are_in_the_key(
    config: dict[str, Any], policy: Policy, tmp_path: Path
) -> None:
    file = tmp_path / "own" / "mine.py"
    file.parent.mkdir()
    file.write_text("def score(completion, answer):\n    return 1.0\n")
    own = resolve(config, {"rewards": [{"name": f"{file}:score"}]})
    keys = [key(own, policy, tmp_path)]
    file.with_name("helper.py").write_text("LIMIT = 3\n")
    keys.append(key(own, policy, tmp_path))
    file.write_text("def score(completion, answer):\n    return 0.5\n")
    keys.append(key(own, policy, tmp_path))
    assert len(set(keys)) == 3
    file.with_name("notes.txt").write_text("nothing that is imported")
    assert key(own, policy, tmp_path) == keys[-1]


def test_a_model_folder_is_known_by_what_lies_in_it_not_by_its_place(tiny_model: Path, tmp_path: Path) -> None:
    def known(folder: Path) -> dict[str, Any]:
        model = ModelConfig(id=str(folder))
        return identity(model, resolve_model(model))

    linked = tmp_path / "elsewhere"
    linked.mkdir()
    for path in tiny_model.iterdir():
        (linked / path.name).hardlink_to(path)
    assert known(linked) == known(tiny_model)
    weights = linked / "model.safetensors"
    whole = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(whole[:-4] + b"tune")  # as many bytes, other values
    assert known(linked) != known(tiny_model)


def test_a_hub_model_is_known_by_its_commit_and_a_pinned_one_by_its_checksum(tmp_path: Path) -> None:
    hub = ModelConfig(id="owner/name")
    known = [identity(hub, ResolvedModel(str(tmp_path), "owner/name", commit * 40)) for commit in "aab"]
    assert known[0] == known[1] != known[2]
    pinned = ModelConfig(id=f"pip:name==1.0/weights.gguf#sha256={'0' * 64}")
    assert identity(pinned, ResolvedModel(str(tmp_path), str(tmp_path))) == {"id": pinned.id}


def test_unscorable_completions_stay_so(config: dict[str, Any], policy: Policy, tmp_path: Path) -> None:
    reference = banked(resolve(config), policy, tmp_path)
    found = reference.look_up(PROMPTS[:1], PROBLEMS[:1])
    group = [Scored("x", 1, True, Score(None, {"math": None}, "math: timed out"))] * SIZE
    found.complete(group)
    assert step(banked(resolve(config), policy, tmp_path), [0]) == group


@pytest.mark.parametrize("name", AlgorithmConfig.model_fields["name"].annotation.__args__)  # type: ignore[union-attr]
def test_only_algorithms_that_need_reference_rewards_bank_them(name: Any) -> None:
    assert build(AlgorithmConfig(name=name)).needs_reference_rewards == (name in REFERENCE_ALGORITHMS)
    assert banks_reference(name, "bank") == (name in REFERENCE_ALGORITHMS)
    assert not banks_reference(name, "fresh")
