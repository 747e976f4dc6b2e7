"""Drawing tokens by uniforms."""

from __future__ import annotations

import pytest
import torch

from aapo_desk.rollout import Sampling, derive_seed, draw, uniforms


def draw_tokens(logits: torch.Tensor, sampling: Sampling, seed: int = 0) -> torch.Tensor:
    rows = len(logits)
    tokens, _, _ = draw(logits, uniforms(rows, 1, seed)[:, 0], torch.zeros(rows, dtype=torch.bool), sampling)
    return tokens


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_come_as_often_as_the_distribution_says(temperature: float) -> None:
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0, -30.0])
    expected = (logits / temperature).softmax(0)
    draws = 20_000
    tokens = draw_tokens(logits.expand(draws, -1), Sampling(temperature))
    counts = torch.bincount(tokens, minlength=5).double()
    likely = expected > 1e-6
    chi_square = ((counts - draws * expected)[likely] ** 2 / (draws * expected[likely])).sum()
    assert float(chi_square) < 16.3  # 3 degrees of freedom: 99.9 %
    assert int(counts[4]) == 0


def test_top_k_and_top_p_leave_the_likeliest_tokens() -> None:
    logits = torch.tensor([0.5, 0.25, 0.15, 0.1]).log().expand(4000, -1)
    assert set(draw_tokens(logits, Sampling(top_k=2)).tolist()) == {0, 1}
    assert set(draw_tokens(logits, Sampling(top_p=0.7)).tolist()) == {0, 1}
    assert set(draw_tokens(logits, Sampling(top_p=0.76)).tolist()) == {0, 1, 2}
    assert set(draw_tokens(logits, Sampling(top_p=1e-9)).tolist()) == {0}
    share = float((draw_tokens(logits, Sampling(top_k=2)) == 0).double().mean())
    assert abs(share - 2 / 3) < 0.03


@pytest.mark.parametrize("sampling", [Sampling(top_k=2), Sampling(top_p=0.7)])
def test_they_are_the_likeliest_wherever_they_stand(sampling: Sampling) -> None:
    logits = torch.tensor([0.1, 0.5, 0.15, 0.25]).log().expand(4000, -1)
    tokens, logps, _ = draw(logits, uniforms(4000, 1, 0)[:, 0], None, sampling)
    assert set(tokens.tolist()) == {1, 3}
    torch.testing.assert_close(logps, logits[0, tokens])  # of the distribution before it was cut
    assert abs(float((tokens == 1).double().mean()) - 2 / 3) < 0.03


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_k=2), Sampling(top_p=0.9), Sampling(0.0)])
def test_of_what_is_not_a_number_a_token_of_the_vocabulary_is_drawn(sampling: Sampling) -> None:
    """On a GPU any other would end the process, before anybody could say what broke."""
    tokens, logps, _ = draw(torch.full((3, 5), float("nan")), torch.tensor([0.0, 0.5, 0.9]), None, sampling)
    assert bool(((tokens >= 0) & (tokens < 5)).all())
    assert bool(torch.isnan(logps).all())


def test_no_uniform_draws_a_token_of_probability_zero() -> None:
    logits = torch.tensor([[0.0, 0.0, float("-inf")]]).expand(3, -1)
    highest = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0))
    uniform = torch.tensor([0.0, float(highest), 0.5])
    tokens, logps, entropy = draw(logits, uniform, torch.zeros(3, dtype=torch.bool), Sampling())
    assert tokens.max() <= 1
    assert torch.isfinite(logps).all()
    torch.testing.assert_close(entropy, torch.full((3,), 0.6931472))
    tokens, _, _ = draw(logits.flip(1), uniform, None, Sampling())
    assert tokens.min() >= 1


def test_greedy_rows_take_the_likeliest_token_beside_sampled_ones() -> None:
    logits = torch.tensor([[0.0, 1.0, 0.0]]).expand(500, -1)
    greedy = torch.arange(500) % 2 == 0
    tokens, _, _ = draw(logits, uniforms(500, 1, 3)[:, 0], greedy, Sampling())
    assert set(tokens[greedy].tolist()) == {1}
    assert set(tokens[~greedy].tolist()) == {0, 1, 2}


def test_seeds_for_different_purposes_and_steps_differ_and_stay() -> None:
    seeds = {derive_seed(seed, purpose, step) for seed in (0, 1) for purpose in ("a", "b") for step in (1, 2)}
    assert len(seeds) == 8
    assert derive_seed(0, "rollout", 1) == 9031339416194653806  # as on every machine and in every process
    assert torch.equal(uniforms(3, 4, 5), uniforms(3, 4, 5))
