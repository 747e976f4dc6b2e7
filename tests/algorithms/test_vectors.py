"""Reference vectors: advantages, loss and gradient of each objective, to 1e-6.

``AAPO_DESK_VECTORS`` names another file of the same form. Positions outside a mask hold junk on purpose.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from aapo_desk.algorithms import Algorithm, Batch, aapo, apa, dapo, disco, dr_grpo, gpg, grpo, loop, p3o, rloo
from aapo_desk.config import METHODS
from aapo_desk.training.forward import backpropagate, flat

FILE = Path(os.environ.get("AAPO_DESK_VECTORS") or Path(__file__).parents[1] / "data" / "objectives.jsonl")
CASES: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text().splitlines() if line.strip()]

# The vectors' parameters by the authors' names. Whatever is not named here is no argument, and fails its case.


def make_aapo(scale_rewards: bool, std_eps: float, clip_low: float, clip_high: float) -> Algorithm:
    return aapo.make(clip_low, clip_high, scale_rewards, std_eps)


def make_grpo(scale_rewards: bool, std_eps: float, eps_low: float, eps_high: float, beta: float) -> Algorithm:
    return grpo.make(eps_low, eps_high, beta, scale_rewards, std_eps)


def make_dr_grpo(eps_low: float, eps_high: float, beta: float, max_tokens: int) -> Algorithm:
    return dr_grpo.make(max_tokens, eps_low, eps_high, beta)


def make_dapo(
    scale_rewards: bool, std_eps: float, eps_low: float, eps_high: float, filter_zero_variance: bool
) -> Algorithm:
    return dapo.make(eps_low, eps_high, filter_zero_variance, 0, scale_rewards, std_eps)


def make_gpg(scale_rewards: bool, std_eps: float, beta: float, adjust_gd: bool) -> Algorithm:
    return gpg.make(beta, adjust_gd, scale_rewards, std_eps)


def make_rloo(variant: str, eps_low: float, eps_high: float, kl_beta: float) -> Algorithm:
    return rloo.make(variant, eps_low, eps_high, kl_beta)


def make_loop(eps: float, loss_type: str, loss_div_factor: float, adv_normalization: bool) -> Algorithm:
    ratio = {"pg_per_token": "token", "pg_per_trajectory": "trajectory"}[loss_type]
    return loop.make(1, eps, ratio, loss_div_factor, adv_normalization)


def make_disco(score: str, dro: bool, tau: float, delta: float, beta: float, kl_type: str) -> Algorithm:
    return disco.make({"logL": "logl", "Lratio": "lratio"}[score], dro, tau, beta, delta, kl_type)


def make_p3o(variant: str, kl_coef: float, cliprange: float, cliprange_ratio: float, pairing: str) -> Algorithm:
    return p3o.make(variant, kl_coef, cliprange, cliprange_ratio, pairing)


def make_apa(scale_rewards: bool, std_eps: float, adv_coeff: float) -> Algorithm:
    return apa.make(adv_coeff, scale_rewards, std_eps)


MAKES: dict[str, Callable[..., Algorithm]] = {
    "aapo": make_aapo,
    "grpo": make_grpo,
    "dr_grpo": make_dr_grpo,
    "dapo": make_dapo,
    "gpg": make_gpg,
    "rloo": make_rloo,
    "loop": make_loop,
    "disco_logl": make_disco,
    "disco_lratio": make_disco,
    "discob_logl": make_disco,
    "discob_lratio": make_disco,
    "p3o_v1": make_p3o,
    "p3o_v2": make_p3o,
    "apa": make_apa,
}


def assert_near(actual: torch.Tensor | None, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0.0, atol=1e-6)


def tensor(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def batch_of(case: dict[str, Any]) -> Batch:
    keys = ("rewards", "mask", "ref_rewards", "old_logps", "ref_logps")
    return Batch(*(tensor(case[key]) for key in keys))


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["id"]))
def test_objective_equals_its_reference(case: dict[str, Any]) -> None:
    algorithm = MAKES[case["objective"]](**case["params"])
    batch, logps = batch_of(case), tensor(case["logps"])

    objective = algorithm.objective(batch, logps)

    assert algorithm.has_advantages == (case["advantages"] is not None)
    if algorithm.has_advantages:
        assert_near(objective.advantages.total.reshape(-1), tensor(case["advantages"]))
    # DisCO's own code gives a value that its gradient is not of; beside it stands one that has that gradient.
    assert_near(objective.loss, tensor(case.get("loss_gradient_equal_form", case["loss"])))
    assert_near(objective.gradient, tensor(case["grad"]))
    assert not objective.gradient[batch.mask == 0].any()
    for rows in (1, 3, len(logps)):
        table = logps.clone().requires_grad_()
        batches = [[part.tolist()] for part in torch.arange(len(logps)).split(rows)]
        backpropagate(lambda batch, table=table: table[flat(batch)], objective.gradient, batches)  # type: ignore[misc]
        assert_near(table.grad, tensor(case["grad"]))


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["id"]))
def test_what_an_algorithm_declares_is_all_that_it_looks_at(case: dict[str, Any]) -> None:
    """NaN in the place of everything that it does not ask for, and of rewards that are no such thing."""
    algorithm = MAKES[case["objective"]](**case["params"])
    batch, logps = batch_of(case), tensor(case["logps"])
    nothing = torch.full_like(logps, torch.nan)
    asked = Batch(
        batch.rewards,
        batch.mask,
        batch.reference_rewards if algorithm.needs_reference_rewards else torch.full_like(batch.rewards, torch.nan),
        batch.old_logps if algorithm.needs_old_logps else nothing,
        batch.reference_logps if algorithm.needs_reference_logps else nothing,
    )
    assert_near(algorithm.objective(asked, logps).gradient, tensor(case["grad"]))
    if not algorithm.gradient_needs_logps:
        # An update of the policy that sampled: its log-probs, whatever they are, change nothing.
        mine = Batch(batch.rewards, batch.mask, batch.reference_rewards)
        at_zero = algorithm.objective(mine, torch.zeros_like(logps))
        assert_near(algorithm.objective(mine, logps).gradient, at_zero.gradient)


def test_every_objective_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    counts = Counter(case["objective"] for case in CASES)
    with capsys.disabled():
        print(f"\nreference vectors in {FILE.name}, cases by objective:")  # noqa: T201
        for name, count in sorted(counts.items()):
            print(f"  {name:14} {count:3}")  # noqa: T201
    assert counts
    assert counts.keys() <= MAKES.keys()
    assert {make.__name__.removeprefix("make_") for make in MAKES.values()} == METHODS.keys()
