"""Cases that the vectors do not contain: unscorable rows, float noise, aggregation."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from aapo_desk.algorithms import Algorithm, Batch, aapo, apa, build, dapo, gpg, grpo
from aapo_desk.algorithms.base import group_advantage
from aapo_desk.config import METHODS, AlgorithmConfig, RolloutConfig

NAN = math.nan


def rewards(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_a_group_that_is_constant_but_for_float_noise_has_no_group_advantage() -> None:
    noisy = torch.full((1, 24), 0.85, dtype=torch.float32)
    assert float(noisy.std()) != 0  # the trap: a deviation that is noise
    assert not group_advantage(noisy, scale=True, epsilon=1e-6).any()


def test_a_constant_group_still_teaches_where_the_reference_differs() -> None:
    batch = Batch(rewards([1, 1], [0, 0]), torch.ones(4, 3, dtype=torch.float64), rewards([0, 1], [1, 0]))
    advantages = aapo.make().advantages(batch)
    assert not advantages.group.any()
    torch.testing.assert_close(advantages.total, rewards([0.28, 0.0], [-0.2, 0.0]))


def test_unscorable_rows_are_left_out_of_mean_deviation_and_loss() -> None:
    mask = torch.ones(4, 2, dtype=torch.float64)
    logps = torch.full((4, 2), -0.5, dtype=torch.float64)
    with_gap = Batch(rewards([1, 0, NAN, 1]), mask, rewards([0, 0, 1, 0]))
    without = Batch(rewards([1, 0, 1]), mask[:3], rewards([0, 0, 0]))
    algorithm = aapo.make()
    gap, whole = algorithm.objective(with_gap, logps), algorithm.objective(without, logps[:3])
    torch.testing.assert_close(gap.advantages.total[:, [0, 1, 3]], whole.advantages.total)
    torch.testing.assert_close(gap.loss, whole.loss)
    assert not gap.gradient[2].any()
    torch.testing.assert_close(gap.gradient[[0, 1, 3]], whole.gradient)


def test_a_group_with_one_scorable_row_has_no_group_advantage() -> None:
    assert not group_advantage(rewards([NAN, 1, NAN]), scale=True).any()


def test_a_row_whose_reference_is_unscorable_has_no_margin() -> None:
    batch = Batch(rewards([1, 0]), torch.ones(2, 1, dtype=torch.float64), rewards([NAN, 1]))
    assert aapo.make().advantages(batch).margin.tolist() == [[0.0, -0.2]]


def test_paired_by_the_mean_each_row_is_held_against_its_whole_reference_group() -> None:
    """Unscorable completions of the reference are left out of its mean; where all are, there is no margin."""
    mask = torch.ones(6, 1, dtype=torch.float64)
    batch = Batch(rewards([0.5, 0.6], [1, 0], [1, 1]), mask, rewards([0, 1], [NAN, 0.1], [NAN, NAN]))
    margin = aapo.make(pairing="mean").advantages(batch).margin
    torch.testing.assert_close(margin, rewards([0.0, 0.1], [0.28, -0.1], [0.0, 0.0]))


@pytest.mark.parametrize("name", METHODS)
def test_an_unscorable_row_counts_nowhere_in_any_algorithm(name: str) -> None:
    """The same step without that row has the same gradient, but for what is divided by the rows asked for."""
    generator = torch.Generator().manual_seed(0)
    logps, old, reference = -torch.rand(3, 4, 2, dtype=torch.float64, generator=generator)
    mask = torch.ones(4, 2, dtype=torch.float64)
    scores, others = rewards([1, 0, 1, NAN]), rewards([0, 0, 1, 0])
    algorithm = build(AlgorithmConfig(name=name), RolloutConfig(prompts_per_step=1, group_size=4))
    gap = algorithm.objective(Batch(scores, mask, others, old, reference), logps)
    whole = Batch(scores[:, :3], mask[:3], others[:, :3], old[:3], reference[:3])
    assert not gap.gradient[3].any()
    torch.testing.assert_close(gap.gradient[:3], algorithm.objective(whole, logps[:3]).gradient)


def test_a_step_without_any_scorable_row_has_loss_and_gradient_zero() -> None:
    batch = Batch(rewards([NAN, NAN]), torch.ones(2, 3, dtype=torch.float64), rewards([1, NAN]))
    nothing = torch.zeros(2, 3, dtype=torch.float64)
    batch = replace(batch, old_logps=nothing, reference_logps=nothing)
    for algorithm in (*(build(AlgorithmConfig(name=name)) for name in METHODS), aapo.make(aggregation="groups")):
        objective = algorithm.objective(batch, nothing)
        assert float(objective.loss) == 0
        assert not objective.gradient.any()


def test_aggregation_over_groups_is_the_mean_of_each_groups_own_token_mean() -> None:
    mask = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 0, 0], [1, 0, 0]], dtype=torch.float64)
    logps = -torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = Batch(rewards([1, 0], [0, 1]), mask, rewards([0, 0], [0, 0]))
    halves = [
        Batch(whole.rewards[i : i + 1], mask[2 * i : 2 * i + 2], whole.reference_rewards[i : i + 1])  # type: ignore[index]
        for i in (0, 1)
    ]
    one, each = aapo.make(aggregation="groups"), aapo.make()
    expected = sum(each.objective(half, logps[2 * i : 2 * i + 2]).loss for i, half in enumerate(halves)) / 2
    torch.testing.assert_close(one.objective(whole, logps).loss, torch.as_tensor(expected))


def test_over_groups_one_without_a_scorable_row_is_no_group() -> None:
    mask = torch.ones(4, 2, dtype=torch.float64)
    logps = torch.full((4, 2), -0.5, dtype=torch.float64)
    algorithm = aapo.make(aggregation="groups")
    with_gap = Batch(rewards([1, 0], [NAN, NAN]), mask, rewards([0, 0], [0, 0]))
    without = Batch(rewards([1, 0]), mask[:2], rewards([0, 0]))
    gap, whole = algorithm.objective(with_gap, logps), algorithm.objective(without, logps[:2])
    assert float(whole.loss) != 0
    torch.testing.assert_close(gap.loss, whole.loss)
    torch.testing.assert_close(gap.gradient[:2], whole.gradient)


def moved_up(ratio: float) -> tuple[Batch, torch.Tensor]:
    """A group whose first completion is right, and log-probs by which each token is so many times as likely as then."""
    old = torch.full((2, 1), -1.0, dtype=torch.float64)
    return Batch(rewards([1, 0]), torch.ones(2, 1, dtype=torch.float64), old_logps=old), old + math.log(ratio)


def test_the_upper_bound_of_the_ratio_is_for_what_is_better_and_the_lower_for_what_is_worse() -> None:
    algorithm = grpo.make(epsilon_low=0.1, epsilon_high=0.3)
    for ratio, better, worse in ((1.2, True, True), (1.4, False, True), (0.95, True, True), (0.8, True, False)):
        gradient = algorithm.objective(*moved_up(ratio)).gradient
        assert (bool(gradient[0].any()), bool(gradient[1].any())) == (better, worse)


def test_dapo_lets_a_token_become_more_than_a_fifth_more_likely() -> None:
    assert dapo.make().objective(*moved_up(1.25)).gradient[0].any()
    assert not dapo.make().objective(*moved_up(1.3)).gradient[0].any()


def half_constant() -> tuple[Batch, Batch, torch.Tensor]:
    """A step of a group that varies and one that does not; the first alone; log-probs."""
    mask, scores = torch.ones(4, 2, dtype=torch.float64), rewards([1, 0], [1, 1])
    logps = -torch.rand(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return Batch(scores, mask), Batch(scores[:1], mask[:2]), logps


@pytest.mark.parametrize("algorithm", [dapo.make(), gpg.make()], ids=["dapo", "gpg"])
def test_a_constant_group_weakens_nothing_where_it_is_left_out_or_made_up_for(algorithm: Algorithm) -> None:
    step, varied, logps = half_constant()
    whole, alone = algorithm.objective(step, logps), algorithm.objective(varied, logps[:2])
    assert alone.gradient.any()
    torch.testing.assert_close(whole.gradient[:2], alone.gradient)
    torch.testing.assert_close(whole.loss, alone.loss)


@pytest.mark.parametrize("algorithm", [dapo.make(filter_constant=False), gpg.make(adjust=False)], ids=["dapo", "gpg"])
def test_a_constant_group_counts_in_the_mean_where_that_is_asked_for(algorithm: Algorithm) -> None:
    step, varied, logps = half_constant()
    whole, alone = algorithm.objective(step, logps), algorithm.objective(varied, logps[:2])
    torch.testing.assert_close(whole.gradient[:2], alone.gradient / 2)


@pytest.mark.parametrize("algorithm", [grpo.make(beta=0.1), apa.make()], ids=["grpo", "apa"])
def test_what_stands_behind_a_completions_end_reaches_nothing(algorithm: Algorithm) -> None:
    mask = torch.tensor([[1, 1], [1, 0]], dtype=torch.float64)
    logps = torch.full((2, 2), -1.0, dtype=torch.float64)
    batch = Batch(rewards([1, 0]), mask, old_logps=logps, reference_logps=logps)
    expected = algorithm.objective(batch, logps)
    junk = torch.tensor([[-1, -1], [-1, 5000]], dtype=torch.float64)  # exp of it is infinite
    found = algorithm.objective(replace(batch, old_logps=logps, reference_logps=junk), logps)
    torch.testing.assert_close(found.loss, expected.loss)
    torch.testing.assert_close(found.gradient, expected.gradient)


def test_grpo_on_its_own_rollout_has_the_gradient_it_would_have_with_old_log_probs() -> None:
    mask = torch.ones(4, 3, dtype=torch.float64)
    logps = -torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    algorithm = grpo.make()
    implied = algorithm.objective(Batch(rewards([1, 0], [0.5, 1]), mask), torch.zeros_like(logps))
    explicit = algorithm.objective(Batch(rewards([1, 0], [0.5, 1]), mask, old_logps=logps), logps)
    torch.testing.assert_close(implied.gradient, explicit.gradient)


def test_the_configuration_reaches_the_algorithm() -> None:
    batch = Batch(rewards([1, 0]), torch.ones(2, 1, dtype=torch.float64), rewards([0, 1]))
    made = build(AlgorithmConfig(margin_low=-0.5, margin_high=0.1, scale_rewards=False))
    assert made.advantages(batch).total.tolist() == [[0.6, -1.0]]
    assert not build(AlgorithmConfig(name="grpo")).needs_reference_rewards
    assert build(AlgorithmConfig(name="grpo", options={"beta": 0.04})).needs_reference_logps
