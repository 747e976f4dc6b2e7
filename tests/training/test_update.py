"""One update gives the same result whatever the micro-batches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from aapo_desk.algorithms import Algorithm, aapo, grpo
from aapo_desk.config import OptimizerConfig
from aapo_desk.models import logprobs
from aapo_desk.models.logprobs import Pack
from aapo_desk.models.policy import Policy
from aapo_desk.rollout import Row, Sampling, decode, uniforms
from aapo_desk.training import forward
from aapo_desk.training import update as engine
from aapo_desk.training.forward import Rollout, flat
from aapo_desk.training.micro_batches import Cost, micro_batches
from aapo_desk.training.update import checkpoint_layers, learning_rate, update
from tests.policies import load_tiny

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12]]
COMPLETIONS = [[20, 21, 22, 2], [23, 2], [24, 25, 26, 27, 28], [29], [30, 31], [32, 33, 2], [34, 35, 36], [37, 2]]
ROLLOUT = Rollout([PROMPTS[row // 4] for row in range(8)], COMPLETIONS, temperature=1.0, group_size=4)
SHARING = Cost(token=1, pair=0)
"""Under which sharing a prompt always pays."""
REWARDS = torch.tensor([[1.0, 0.0, 0.5, float("nan")], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
REFERENCE = torch.tensor([[0.0, 1.0, 0.5, 0.0], [1.0, 0.0, 1.0, 0.9]], dtype=torch.float64)


def run_update(
    policy: Policy, algorithm: Algorithm, token_budget: int, rate: float = 0.0, cost: Cost | None = None
) -> engine.Update:
    optimizer = torch.optim.SGD(policy.adapter_parameters().values(), lr=0.0)
    return update(
        policy, optimizer, algorithm, ROLLOUT, REWARDS, REFERENCE,
        rate=rate, max_grad_norm=1e9, token_budget=token_budget, cost=cost,
    )  # fmt: skip


@pytest.mark.parametrize("algorithm", [aapo.make(), aapo.make(aggregation="groups"), grpo.make(), grpo.make(beta=0.1)])
def test_loss_and_gradient_do_not_depend_on_the_micro_batch(tiny_model: Path, algorithm: Algorithm) -> None:
    policy = load_tiny(tiny_model, "float64")
    results = []
    for token_budget in (1, 12, 10_000):
        done = run_update(policy, algorithm, token_budget)
        gradients = [parameter.grad.clone() for parameter in policy.adapter_parameters().values()]  # type: ignore[union-attr]
        results.append((done.loss, done.grad_norm, gradients))
    assert results[0][1] > 0
    for loss, norm, gradients in results[1:]:
        assert loss == pytest.approx(results[0][0], abs=1e-9)
        assert norm == pytest.approx(results[0][1], abs=1e-9)
        for one, other in zip(gradients, results[0][2], strict=True):
            torch.testing.assert_close(one, other, atol=1e-9, rtol=0)


def test_a_gradient_that_is_too_long_is_cut_to_its_longest(tiny_model: Path) -> None:
    moves = []
    for most in (1e9, 0.01):
        policy = load_tiny(tiny_model, "float64")
        optimizer = torch.optim.SGD(policy.adapter_parameters().values(), lr=0.0)
        done = update(
            policy, optimizer, aapo.make(), ROLLOUT, REWARDS, REFERENCE, rate=0.5, max_grad_norm=most, token_budget=99
        )
        assert done.grad_norm > 0.02  # as it was
        moves.append((done.update_norm, done.grad_norm))
    assert moves[0][0] == pytest.approx(0.5 * moves[0][1], rel=1e-4)
    assert moves[1][0] == pytest.approx(0.5 * 0.01, rel=1e-3)


def test_of_several_updates_loss_and_gradient_are_means_and_the_way_is_the_sum(tiny_model: Path) -> None:
    """With a learning rate of almost 0, each of the three updates equals the first."""
    found = []
    for updates in (1, 3):
        policy = load_tiny(tiny_model, "float64")
        optimizer = torch.optim.SGD(policy.adapter_parameters().values(), lr=0.0)
        done = update(
            policy, optimizer, aapo.make(), ROLLOUT, REWARDS, REFERENCE,
            rate=1e-6, max_grad_norm=1e9, token_budget=99, updates=updates,
        )  # fmt: skip
        found.append((done.loss, done.grad_norm, done.update_norm / updates))
    assert min(map(abs, found[0][:2])) > 0.01
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_sharing_prompts_gives_the_dense_loss_and_gradient(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model, "float64")
    results = []
    for budget, cost in ((10_000, None), (10_000, SHARING), (14, SHARING)):
        done = run_update(policy, aapo.make(), budget, cost=cost)
        gradients = [parameter.grad.clone() for parameter in policy.adapter_parameters().values()]  # type: ignore[union-attr]
        results.append((done.loss, gradients))
    for loss, gradients in results[1:]:
        assert loss == pytest.approx(results[0][0], abs=1e-9)
        for one, other in zip(gradients, results[0][1], strict=True):
            torch.testing.assert_close(one, other, atol=1e-6 * float(other.abs().max()), rtol=0)


@pytest.mark.parametrize("algorithm", [aapo.make(), grpo.make(beta=0.1)])
@pytest.mark.parametrize("cost", [None, SHARING])
def test_computing_layers_again_gives_the_same_loss_and_gradient(
    tiny_model: Path, algorithm: Algorithm, cost: Cost | None
) -> None:
    policy = load_tiny(tiny_model, "float64")
    results = []
    for again in (False, True):
        if again:
            checkpoint_layers(policy)
        done = run_update(policy, algorithm, 24, cost=cost)
        gradients = [parameter.grad.clone() for parameter in policy.adapter_parameters().values()]  # type: ignore[union-attr]
        results.append((done.loss, gradients))
    assert max(float(gradient.abs().max()) for gradient in results[0][1]) > 0.01
    assert results[1][0] == pytest.approx(results[0][0], abs=1e-9)
    for one, other in zip(results[1][1], results[0][1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=0)


def test_layers_are_computed_again_in_the_update_and_nowhere_else(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model)
    checkpoint_layers(policy)
    calls: list[bool] = []
    policy.decoder.layers[0].input_layernorm.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    run_update(policy, grpo.make(beta=0.1), 10_000)
    # The reference's and the policy's log-probabilities, then the pass with gradient, and its recomputation.
    assert calls == [False, False, True, True]
    calls.clear()
    decode(policy, PROMPTS, [Row(0), Row(1, adapter=False)], 3, Sampling(), uniforms(2, 3, 0))
    embedded = policy.causal.get_input_embeddings()(torch.tensor([5]))
    assert len(calls) == 3
    assert not any(calls)
    assert not embedded.requires_grad


def test_the_gradient_is_that_of_the_loss_written_out(tiny_model: Path) -> None:
    """Compare with AAPO's formula through the model's own forward and autograd, without our engine."""
    policy = load_tiny(tiny_model, "float64")
    run_update(policy, aapo.make(), 12)
    from_engine = [parameter.grad.clone() for parameter in policy.adapter_parameters().values()]  # type: ignore[union-attr]
    policy.model.zero_grad()
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    for row, completion in enumerate(COMPLETIONS):
        reward, reference = REWARDS.flatten()[row], REFERENCE.flatten()[row]
        if torch.isnan(reward):
            continue
        group = REWARDS[row // 4][~torch.isnan(REWARDS[row // 4])]
        advantage = (reward - group.mean()) / (group.std() + 1e-4) if group.max() > group.min() else 0.0
        advantage = advantage + (reward - reference).clamp(-0.2, 0.28)
        prompt = PROMPTS[row // 4]
        logits = policy.model(torch.tensor([prompt + completion])).logits[0]
        logps = logits.log_softmax(1)[range(len(prompt) - 1, len(prompt) + len(completion) - 1), completion]
        total = total - advantage * logps.sum()
        tokens += len(completion)
    (total / tokens).backward()
    for parameter, gradient in zip(policy.adapter_parameters().values(), from_engine, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("token_budget", [12, 10_000])
def test_several_updates_are_the_formula_with_the_log_probs_from_before_the_first(
    tiny_model: Path, token_budget: int
) -> None:
    """Compare with three steps on GRPO's clipped loss through the model's own forward, without our engine."""
    rate, low, high = 2.0, 0.99, 1.01
    policy, rows = (
        load_tiny(tiny_model, "float64"),
        [row for row in range(8) if not torch.isnan(REWARDS.flatten()[row])],
    )
    optimizer = torch.optim.SGD(policy.adapter_parameters().values(), lr=rate)
    done = update(
        policy, optimizer, grpo.make(1 - low, high - 1), ROLLOUT, REWARDS, None,
        rate=rate, max_grad_norm=1e9, token_budget=token_budget, updates=3,
    )  # fmt: skip

    other = load_tiny(tiny_model, "float64")
    scored = REWARDS[0, :3]
    advantages = [*((scored - scored.mean()) / (scored.std() + 1e-4)).tolist(), None, 0.0, 0.0, 0.0, 0.0]
    old: dict[int, torch.Tensor] = {}
    clipped = 0
    for _ in range(3):
        other.model.zero_grad()
        loss = torch.zeros((), dtype=torch.float64)
        for row in rows:
            prompt, completion = PROMPTS[row // 4], COMPLETIONS[row]
            logits = other.model(torch.tensor([prompt + completion])).logits[0]
            logps = logits.log_softmax(1)[range(len(prompt) - 1, len(prompt) + len(completion) - 1), completion]
            ratio = (logps - old.setdefault(row, logps.detach())).exp()
            advantage = torch.tensor(advantages[row], dtype=torch.float64)
            terms = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(low, high))
            clipped += int(((ratio < low) | (ratio > high)).sum())
            loss = loss + terms.mean() / len(rows)
        loss.backward()
        for parameter in other.adapter_parameters().values():
            assert parameter.grad is not None
            parameter.data -= rate * parameter.grad
    assert clipped > 5
    assert done.update_norm > 0.01
    for parameter, by_hand in zip(
        policy.adapter_parameters().values(), other.adapter_parameters().values(), strict=True
    ):
        torch.testing.assert_close(parameter, by_hand, atol=1e-9, rtol=0)


def test_rows_without_advantage_are_not_computed_and_change_nothing(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load_tiny(tiny_model)
    computed: list[int] = []
    plain = logprobs.pack_logps

    def counting(policy: Policy, packs: list[Pack], *rest: object) -> torch.Tensor:
        computed.append(sum(len(pack.completions) for pack in packs))
        return plain(policy, packs, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(forward, "pack_logps", counting)
    run_update(policy, aapo.make(), 10_000)
    # Row 3 is unscorable; rows 4 and 6 have neither a group advantage nor a margin; row 2 neither: 0.5 is the mean.
    assert sum(computed) == 4


def test_a_step_without_signal_leaves_the_adapter_as_it_is(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model)
    before = [value.detach().clone() for value in policy.adapter_parameters().values()]
    ones = torch.ones(2, 4, dtype=torch.float64)
    optimizer = torch.optim.AdamW(policy.adapter_parameters().values(), weight_decay=0.0)
    done = update(
        policy, optimizer, aapo.make(), ROLLOUT, ones, ones, rate=1e-2, max_grad_norm=1.0, token_budget=64
    )  # fmt: skip
    assert (done.loss, done.grad_norm, done.update_norm, done.applied) == (0.0, 0.0, 0.0, True)
    for old, new in zip(before, policy.adapter_parameters().values(), strict=True):
        assert torch.equal(old, new)


def test_a_gradient_that_is_not_finite_changes_nothing_and_says_so(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model)
    weight = next(iter(policy.adapter_parameters().values()))
    weight.data[0, 0] = float("inf")
    others = [value.detach().clone() for value in policy.adapter_parameters().values()]
    done = run_update(policy, aapo.make(), 64, rate=1.0)
    assert not done.applied
    for old, new in zip(others, policy.adapter_parameters().values(), strict=True):
        assert torch.equal(old, new)


@pytest.mark.parametrize("cost", [None, SHARING])
@pytest.mark.parametrize("budget", [1, 12, 20, 1000])
def test_micro_batches_keep_to_the_budget_and_hold_every_row_once(cost: Cost | None, budget: int) -> None:
    prompts, completions = [5] * 3 + [4] * 3, [7, 3, 9, 3, 20, 1]
    batches = micro_batches(prompts, completions, [0, 1, 2, 3, 5], 3, budget, cost)
    assert sorted(row for batch in batches for row in flat(batch)) == [0, 1, 2, 3, 5]
    for batch in batches:
        assert all(len({row // 3 for row in pack}) == 1 for pack in batch)
        longest = max(prompts[pack[0]] + sum(completions[row] for row in pack) for pack in batch)
        assert len(batch) * longest <= budget or (len(batch), len(batch[0])) == (1, 1)
    assert micro_batches(prompts, completions, [], 3, budget, cost) == []


def test_prompts_are_shared_where_that_costs_less() -> None:
    cost = Cost(token=3_500_000, pair=1152)  # one layer of SmolLM2-135M
    assert cost.completions_a_pack(prompt=44, completion=12, most=8) == 8
    assert cost.completions_a_pack(prompt=100, completion=1000, most=8) == 1
    assert Cost(token=0, pair=1).completions_a_pack(prompt=10, completion=10, most=8) == 1


def test_the_learning_rate_warms_up_and_follows_its_schedule() -> None:
    def rates(schedule: str, warmup: int = 0) -> list[float]:
        config = OptimizerConfig.model_validate({"learning_rate": 1.0, "schedule": schedule, "warmup_steps": warmup})
        return [round(learning_rate(config, step, 4), 4) for step in range(1, 5)]

    assert rates("constant") == [1, 1, 1, 1]
    assert rates("linear") == [1, 0.75, 0.5, 0.25]
    assert rates("cosine") == [1, 0.8536, 0.5, 0.1464]
    assert rates("constant", warmup=2) == [0.3333, 0.6667, 1, 1]
    assert rates("linear", warmup=4) == [0.2, 0.4, 0.6, 0.8]
