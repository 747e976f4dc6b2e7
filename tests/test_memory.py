"""The estimate of a run's memory and the plan made by it: published peaks, what the peak follows, what a plan does."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aapo_desk.config import RunConfig, resolve
from aapo_desk.memory import (
    ENOUGH_TOKENS,
    MOST_ROWS,
    MOST_TOKENS,
    ModelShape,
    Settings,
    estimate,
    loaded,
    plan,
    required,
)
from tests import published
from tests.shapes import QWEN3_1_7B

GIB = 1 << 30
BESIDE = Path(__file__).parents[2] / "shared" / "models" / "vram_measurements.jsonl"
MEASUREMENTS = Path(os.environ.get("AAPO_DESK_VRAM_MEASUREMENTS") or BESIDE)
QWEN = ModelShape.from_config(QWEN3_1_7B)


def test_a_multimodal_model_is_read_by_its_text_part() -> None:
    assert ModelShape.from_config({"model_type": "a wrapper", "hidden_size": 1, "text_config": QWEN3_1_7B}) == QWEN


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mamba"}, "memory of a mamba model"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"tie_word_embeddings": None}, "lacks tie_word_embeddings"),
        ({"use_sliding_window": True}, "lacks layer_types"),
        ({"model_type": "gemma3_text"}, "lacks sliding_window"),
        ({"layer_types": ["sliding_attention"] * 28}, "lacks sliding_window"),
    ],
)
def test_what_a_configuration_does_not_say_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelShape.from_config(QWEN3_1_7B | change)


def test_the_peak_is_what_was_published_for_trl(capsys: pytest.CaptureFixture[str]) -> None:
    if not MEASUREMENTS.is_file():
        pytest.skip(f"the published measurements are not at {MEASUREMENTS} (AAPO_DESK_VRAM_MEASUREMENTS says where)")
    rows = published.runs(MEASUREMENTS)
    deviations: list[float] = []
    lines: list[str] = []
    for row in rows:
        try:
            shape = published.shape(row)
        except ValueError as error:
            lines.append(f"  {row['model']}: skipped, {error}")
            continue
        found = estimate(shape, published.settings(row))
        deviations.append(found.peak / GIB / row["gib"] - 1)
        lines.append(
            f"  {row['model']}: {found.peak / GIB:.3f} GiB, published {row['gib']:.3f} ({deviations[-1]:+.1%}, peak in "
            f"the {found.peak_phase}) {row['settings']}"
        )
    counts = f"published peaks: {len(deviations)} held against the estimate, {len(rows) - len(deviations)} skipped"
    with capsys.disabled():
        print("\n" + "\n".join([counts, *lines]))  # noqa: T201
    if not deviations:
        pytest.skip(f"of none of the {len(rows)} published runs is the model's shape known here")
    assert max(map(abs, deviations)) < 0.1


def configured(prompt: int = 320, new: int = 384, group: int = 8, **model: Any) -> RunConfig:
    return resolve(
        {
            "model": {"id": "owner/model", **model},
            "lora": {"r": 32},
            "task": {"source": "arithmetic", "max_prompt_tokens": prompt},
            "rollout": {"group_size": group, "max_new_tokens": new, "prompts_per_step": 4},
        }
    )


def test_the_updates_peak_follows_the_token_budget_not_the_group_or_the_length() -> None:
    def peak(tokens: int, group: int, new: int) -> int:
        return estimate(QWEN, Settings.of(configured(new=new, group=group), "cuda", tokens=tokens)).update

    peaks = [peak(1024, group, new) for group, new in ((4, 256), (8, 256), (16, 256), (16, 1024), (64, 4096))]
    assert max(peaks) == min(peaks)
    resident = estimate(QWEN, Settings.of(configured(), "cuda")).resident
    assert peak(4096, 8, 256) - resident > 3 * (peaks[0] - resident)


@pytest.mark.parametrize("field", ["prompt_tokens", "completion_tokens", "rows", "tokens", "scored", "longest", "rank"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_more_of_anything_never_takes_less(field: str, checkpointing: bool) -> None:
    small = replace(Settings.of(configured(), "cuda", tokens=700, rows=8), checkpointing=checkpointing)
    values: list[dict[str, Any]] = [{field: value} for value in (1, 64, 700, 4096)]
    sizes = [replace(small, **value) for value in values]
    estimates = [estimate(QWEN, size) for size in sizes]
    assert [one.rollout for one in estimates] == sorted(one.rollout for one in estimates)
    assert [one.update for one in estimates] == sorted(one.update for one in estimates)
    assert estimates[0] != estimates[-1]


def test_the_peak_is_of_the_phase_that_takes_more() -> None:
    long_rollout = estimate(QWEN, Settings.of(configured(), "cuda", tokens=16, rows=256))
    long_update = estimate(QWEN, Settings.of(configured(), "cuda", tokens=4096, rows=1))
    assert (long_rollout.peak_phase, long_rollout.peak) == ("rollout", long_rollout.rollout)
    assert (long_update.peak_phase, long_update.peak) == ("update", long_update.update)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_plan_shrinks_with_free_memory_down_to_single_rows(device: str) -> None:
    plans = [plan(QWEN, configured(), gib * GIB, device) for gib in (0, 2, 4, 6, 8, 12, 16, 24, 48, 192)]
    assert (plans[0].token_budget, plans[0].batch_rows) == (1, 1)
    assert (plans[-1].token_budget, plans[-1].batch_rows) == (MOST_TOKENS[device], MOST_ROWS)
    # Less memory first costs the shadow weights, then the activations that are kept: never the other way round.
    savings = [(not one.gradient_checkpointing, one.shadow_weights) for one in plans]
    assert savings == sorted(savings)
    assert len(set(savings)) == 3
    for kind in set(savings):
        alike = [one for one, saving in zip(plans, savings, strict=True) if saving == kind]
        assert alike == sorted(alike, key=lambda one: (one.token_budget, one.batch_rows))
        assert alike == sorted(alike, key=lambda one: (one.batch_rows, one.token_budget))


@pytest.mark.parametrize("gib", [6, 8, 12, 24, 48])
def test_a_plan_fits_into_the_memory_it_was_made_for(gib: int) -> None:
    config = configured()
    made = plan(QWEN, config, gib * GIB, "cuda")
    settings = replace(
        Settings.of(config, "cuda", tokens=made.token_budget, rows=made.batch_rows),
        checkpointing=made.gradient_checkpointing,
        shadow=made.shadow_weights,
    )
    assert loaded(QWEN, config, "cuda") < required(estimate(QWEN, settings).peak, "cuda") <= gib * GIB


def test_longer_rows_never_get_a_larger_plan() -> None:
    plans = [plan(QWEN, configured(prompt=tokens, new=tokens), 7 * GIB, "cuda") for tokens in (64, 128, 256, 512)]
    assert not any(one.shadow_weights for one in plans)  # which only short rows would leave room for
    assert [one.batch_rows for one in plans] == sorted((one.batch_rows for one in plans), reverse=True)
    assert [one.token_budget for one in plans] == sorted((one.token_budget for one in plans), reverse=True)


def test_layers_are_checkpointed_only_where_the_longest_row_would_not_fit_otherwise() -> None:
    short, long = configured(), configured(new=4096)
    assert not plan(QWEN, short, 10 * GIB, "cuda").gradient_checkpointing
    made = plan(QWEN, long, 10 * GIB, "cuda")
    assert made.gradient_checkpointing
    assert made.token_budget >= 320 + 4096
    assert not plan(QWEN, long, 80 * GIB, "cuda").gradient_checkpointing


def test_shadow_weights_are_planned_where_they_leave_room_for_all_else() -> None:
    config = configured()
    assert not plan(QWEN, config, 8 * GIB, "cuda").shadow_weights
    made = plan(QWEN, config, 24 * GIB, "cuda")
    assert made.shadow_weights
    assert made.token_budget >= ENOUGH_TOKENS
    assert made.batch_rows >= 2 * 4 * 8
