"""How far two models' predictions are from each other."""

from __future__ import annotations

import pytest
import torch

from aapo_desk.export.distance import Bound, distance

ROWS = torch.randn(5, 7, generator=torch.Generator().manual_seed(3))


def test_the_same_logits_are_no_distance_apart_nor_are_those_moved_by_a_constant() -> None:
    for found in (ROWS, ROWS + 3.0):
        off = distance(ROWS, found)
        assert off.kl == pytest.approx(0, abs=1e-6)
        assert off.top1 == 1.0
        assert off.max_abs == pytest.approx(0, abs=1e-5)
        assert off.tokens == 5


def test_kl_is_of_the_expected_from_the_found_in_nats() -> None:
    expected, found = torch.tensor([[0.75, 0.25]]).log(), torch.tensor([[0.5, 0.5]]).log()
    assert distance(expected, found).kl == pytest.approx(
        0.75 * torch.tensor(1.5).log() + 0.25 * torch.tensor(0.5).log()
    )


def test_a_vocabulary_padded_at_its_end_is_no_difference_and_a_smaller_one_is_refused() -> None:
    assert distance(ROWS, torch.cat([ROWS, ROWS], 1)).kl == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="cannot be compared with"):
        distance(ROWS, ROWS[:, :5])


def test_what_is_not_a_number_is_out_of_every_bound() -> None:
    broken = ROWS.clone()
    broken[2, 3] = float("nan")
    assert Bound(kl=1e9, top1=0.0).breaches(distance(ROWS, broken), "its base")


def test_each_bound_is_told_on_its_own() -> None:
    off = distance(ROWS, -ROWS)
    assert len(Bound(kl=0.01, top1=0.9).breaches(off, "its base")) == 2
    assert Bound(kl=100.0, top1=0.0).breaches(off, "its base") == []
