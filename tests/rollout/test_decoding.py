"""Grouped decoding against the plain way: one row at a time through transformers' own generate."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from aapo_desk.models.logprobs import Pack, pack_logps
from aapo_desk.models.policy import Policy
from aapo_desk.rollout import Completions, Row, Sampling, captured, decode, uniforms
from tests.policies import load_tiny

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [20, 21], [30, 31, 32, 33]]
WIDTH = 12


@pytest.fixture(scope="module")
def policy(tiny_model: Path) -> Policy:
    return load_tiny(tiny_model)


def greedy(policy: Policy, rows: list[Row], width: int = WIDTH, batch_rows: int = 99) -> Completions:
    return decode(policy, PROMPTS, rows, width, Sampling(), uniforms(len(rows), width, 0), batch_rows)


def sampled(policy: Policy, rows: list[Row], batch_rows: int = 99, seed: int = 7) -> Completions:
    return decode(policy, PROMPTS, rows, WIDTH, Sampling(1.3), uniforms(len(rows), WIDTH, seed), batch_rows)


@torch.no_grad()
def generated(policy: Policy, prompt: list[int], adapter: bool, width: int = WIDTH) -> list[int]:
    """The plain path."""
    ids = torch.tensor([prompt])
    settings = {"max_new_tokens": width, "do_sample": False, "eos_token_id": list(policy.eos_ids)}
    if adapter:
        out = policy.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)
    else:
        with policy.as_reference():
            out = policy.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)
    return [int(token) for token in out[0, len(prompt) :]]


def test_greedy_rows_equal_plain_generation_for_policy_and_reference_in_one_batch(policy: Policy) -> None:
    rows = [Row(prompt, adapter, greedy=True) for adapter in (True, False) for prompt in range(3) for _ in range(2)]
    done = greedy(policy, rows)
    texts = [done.row(number) for number in range(len(rows))]
    for row, text in zip(rows, texts, strict=True):
        assert text == generated(policy, PROMPTS[row.prompt], row.adapter)
    assert texts[:6] != texts[6:]  # the adapter does something, and the mask keeps it from the reference


@pytest.mark.parametrize("lengths", [(1, 3, 7, 2), (0, 3, 7, 2)], ids=["more in each", "one ends there"])
def test_what_all_prompts_begin_with_is_read_once_and_changes_nothing(policy: Policy, lengths: tuple[int, ...]) -> None:
    start = list(range(40, 52))
    prompts = [start + list(range(60 + number, 60 + number + more)) for number, more in enumerate(lengths)]
    rows = [Row(prompt, adapter, greedy=True) for adapter in (True, False) for prompt in range(4) for _ in range(2)]
    seen: list[int] = []
    hook = policy.decoder.register_forward_pre_hook(
        lambda module, _, given: seen.append(given["input_ids"].numel()), with_kwargs=True
    )
    try:
        done = decode(policy, prompts, rows, WIDTH, Sampling(), uniforms(len(rows), WIDTH, 0))
    finally:
        hook.remove()
    assert seen[0] in (2 * 11, 2 * 12)  # each side reads the start; one token is left to each prompt
    for number, row in enumerate(rows):
        assert done.row(number) == generated(policy, prompts[row.prompt], row.adapter)


def test_rows_end_at_any_of_several_eos_tokens_and_leave_the_batch(policy: Policy) -> None:
    rows = [Row(prompt, adapter, greedy=True) for adapter in (True, False) for prompt in range(3)]
    free = greedy(policy, rows)
    ends = (int(free.tokens[0, 2]), int(free.tokens[4, 0]))
    cut = Policy(policy.model, policy.tokenizer, policy.device, ends, policy.pad_id)
    done = greedy(cut, rows)
    assert done.ended.any()
    for row in range(len(rows)):
        whole = free.row(row)
        end = next((number + 1 for number, token in enumerate(whole) if token in ends), len(whole))
        assert done.row(row) == whole[:end]
        assert bool(done.ended[row]) == (whole[end - 1] in ends)
        assert (done.tokens[row, end:] == policy.pad_id).all()
        assert not done.logps[row, end:].any()


def test_a_split_of_the_batch_changes_nothing(policy: Policy) -> None:
    rows = [Row(prompt, adapter) for adapter in (True, False) for prompt in range(3) for _ in range(4)]
    whole = sampled(policy, rows)
    for size in (1, 5, 24):
        part = sampled(policy, rows, batch_rows=size)
        assert torch.equal(part.tokens, whole.tokens)
        torch.testing.assert_close(part.logps, whole.logps)
    assert len({tuple(whole.row(number)) for number in range(4)}) > 1
    assert not torch.equal(sampled(policy, rows, seed=8).tokens, whole.tokens)


def test_log_probs_of_the_rollout_equal_those_of_the_update(policy: Policy) -> None:
    rows = [Row(prompt, adapter=True) for prompt in range(3) for _ in range(3)]
    done = sampled(policy, rows)
    dense = [Pack(PROMPTS[row.prompt], [done.row(number)]) for number, row in enumerate(rows)]
    with torch.no_grad():
        again = pack_logps(policy, dense, WIDTH, temperature=1.3)
    torch.testing.assert_close(done.logps, again, atol=1e-4, rtol=0)


def test_one_token_completions_and_groups_that_end_at_once(policy: Policy) -> None:
    rows = [Row(1, greedy=True), Row(1, greedy=True)]
    first = greedy(policy, rows, width=1)
    assert first.lengths.tolist() == [1, 1]
    assert not first.ended.any()
    end = int(first.tokens[0, 0])
    cut = Policy(policy.model, policy.tokenizer, policy.device, (end,), policy.pad_id)
    done = greedy(cut, rows)
    assert done.ended.all()
    assert done.lengths.tolist() == [1, 1]


@pytest.mark.parametrize(("start", "read"), [(12, [(2, 12), (6, 7)]), (4, [(6, 11)])])
def test_what_all_prompts_begin_with_is_read_once_by_each_side(
    policy: Policy, start: int, read: list[tuple[int, int]]
) -> None:
    prompts = [[*range(60, 60 + start), *prompt] for prompt in PROMPTS]
    rows = [Row(prompt, adapter) for adapter in (True, False) for prompt in range(3) for _ in range(2)]
    seen: list[tuple[int, int]] = []
    hook = policy.decoder.register_forward_pre_hook(
        lambda _module, _args, inputs: seen.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    with hook:
        decode(policy, prompts, rows, 1, Sampling(), uniforms(len(rows), 1, 0))
    assert seen == read


def test_progress_rises_to_one(policy: Policy) -> None:
    heard: list[float] = []
    rows = [Row(0), Row(1), Row(2)]
    decode(policy, PROMPTS, rows, 4, Sampling(), uniforms(3, 4, 0), batch_rows=2, progress=heard.append)
    assert heard == sorted(heard)
    assert heard[-1] == 1


@pytest.mark.parametrize(("shadow", "least_part"), [(False, 64), (True, 64), (True, 8)])
def test_fixed_steps_give_what_growing_ones_do(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, shadow: bool, least_part: int
) -> None:
    monkeypatch.setattr(captured, "LEAST_PART", least_part)
    policy = load_tiny(tiny_model, quantization="nf4")
    if shadow:
        policy.use_shadow()
    rows = [
        Row(prompt, adapter, greedy) for adapter in (True, False) for prompt in range(3) for greedy in (True, False)
    ]
    numbers = uniforms(len(rows), 40, 5)
    free = decode(policy, PROMPTS, rows, 40, Sampling(1.3), numbers)
    # Ends that come at many different steps, so that rows move to the front more than once.
    policy.eos_ids = tuple(int(free.tokens[row, 3 * row]) for row in range(len(rows)))
    growing = decode(policy, PROMPTS, rows, 40, Sampling(1.3), numbers)
    fixed = decode(policy, PROMPTS, rows, 40, Sampling(1.3), numbers, fixed=True)
    assert len(set(growing.lengths.tolist())) > 3
    for name in ("tokens", "lengths", "ended"):
        assert torch.equal(getattr(fixed, name), getattr(growing, name)), name
    torch.testing.assert_close(fixed.logps, growing.logps, atol=1e-4, rtol=0)
    torch.testing.assert_close(fixed.entropy, growing.entropy, atol=1e-4, rtol=0)


def test_a_fixed_step_sees_no_more_of_the_cache_than_the_part_that_is_being_filled(policy: Policy) -> None:
    """Attention reads all that a step sees, at every step."""
    seen: list[int] = []
    hook = policy.decoder.register_forward_pre_hook(
        lambda _module, _args, inputs: seen.append(inputs["attention_mask"].shape[-1]), with_kwargs=True
    )
    filled, width = max(map(len, PROMPTS)), 400
    policy.eos_ids = ()
    with hook:
        decode(policy, PROMPTS, [Row(0), Row(1)], width, Sampling(), uniforms(2, width, 0), fixed=True)
    steps = seen[1:]  # after the prompts
    assert steps == sorted(steps)
    assert len(set(steps)) == captured.PARTS
    for written, part in enumerate(steps, start=1):
        assert filled + written <= part < filled + written + width / captured.PARTS + captured.STEPS_BETWEEN_LOOKS
        assert part % captured.ALIGNMENT == 0


def test_greedy_rows_by_shadow_weights_equal_plain_generation(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model, quantization="nf4")
    plain = [generated(policy, PROMPTS[prompt], adapter) for adapter in (True, False) for prompt in range(3)]
    policy.use_shadow()
    done = greedy(policy, [Row(prompt, adapter, greedy=True) for adapter in (True, False) for prompt in range(3)])
    assert [done.row(row) for row in range(6)] == plain
