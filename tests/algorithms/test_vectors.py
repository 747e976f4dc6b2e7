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

from aapo_desk.algorithms import Algorithm, Batch, aapo, grpo
from aapo_desk.training.update import backpropagate, flat

FILE = Path(os.environ.get("AAPO_DESK_VECTORS") or Path(__file__).parents[1] / "data" / "objectives.jsonl")
CASES: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text().splitlines() if line.strip()]

NOT_BUILT = {
    "dr_grpo", "dapo", "gpg", "rloo", "loop", "disco_logl", "disco_lratio", "discob_logl", "discob_lratio",
    "p3o_v1", "p3o_v2", "apa",
}  # fmt: skip


def make_aapo(scale_rewards: bool, std_eps: float, clip_low: float, clip_high: float) -> Algorithm:
    return aapo.make(clip_low, clip_high, scale_rewards, std_eps)


def make_grpo(scale_rewards: bool, std_eps: float, eps_low: float, eps_high: float, beta: float) -> Algorithm:
    return grpo.make(eps_low, eps_high, beta, scale_rewards, std_eps)


BUILT: dict[str, Callable[..., Algorithm]] = {"aapo": make_aapo, "grpo": make_grpo}
RUN = [case for case in CASES if case["objective"] in BUILT]


def assert_near(actual: torch.Tensor | None, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0.0, atol=1e-6)


def tensor(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("case", RUN, ids=lambda case: str(case["id"]))
def test_objective_equals_its_reference(case: dict[str, Any]) -> None:
    algorithm = BUILT[case["objective"]](**case["params"])
    batch = Batch(
        tensor(case["rewards"]),
        tensor(case["mask"]),
        tensor(case["ref_rewards"]),
        tensor(case["old_logps"]),
        tensor(case["ref_logps"]),
    )
    logps = tensor(case["logps"])

    objective = algorithm.objective(batch, logps)

    assert_near(objective.advantages.total.reshape(-1), tensor(case["advantages"]))
    assert_near(objective.loss, tensor(case["loss"]))
    assert_near(objective.gradient, tensor(case["grad"]))
    assert not objective.gradient[batch.mask == 0].any()
    for rows in (1, 3, len(logps)):
        table = logps.clone().requires_grad_()
        batches = [[part.tolist()] for part in torch.arange(len(logps)).split(rows)]
        backpropagate(lambda batch, table=table: table[flat(batch)], objective.gradient, batches)  # type: ignore[misc]
        assert_near(table.grad, tensor(case["grad"]))


def test_every_objective_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    counts = Counter(case["objective"] for case in CASES)
    with capsys.disabled():
        print(f"\nreference vectors in {FILE.name}:")  # noqa: T201
        for name, count in sorted(counts.items()):
            print(f"  {name:14} {count:3} {'run' if name in BUILT else 'left (not built yet)'}")  # noqa: T201
    assert RUN
    assert not counts.keys() - BUILT.keys() - NOT_BUILT
