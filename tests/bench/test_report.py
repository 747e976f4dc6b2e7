"""The plan of a benchmark, and the report on its measurements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from aapo_desk.bench.jobs import BenchError, Job, Measured
from aapo_desk.bench.peers import Peer, peers, worth_another_round
from aapo_desk.bench.report import ratios, report
from aapo_desk.bench.rounds import run_rounds
from aapo_desk.cli.bench import lines
from aapo_desk.config import RunConfig, resolve

SHAPE = {"prompts": 4, "prompt_tokens": [44, 46], "group_size": 8, "new_tokens": 12}
CHOICES = {"share_prompts": 1}
ABOUT = {"device": "a processor", "versions": {"torch": "2.13.0"}, "shape": SHAPE}
TRL_SECONDS = {
    "trl_4": 20.0,
    "trl_8": 16.0,
    "trl_16": 17.0,
    "trl_32": 30.0,
    "trl_4_checkpointing": 25.0,
    "trl_8_checkpointing": 24.0,
}
TRL_MEMORY = {"trl_4": 2500.0, "trl_8": 2900.0, "trl_16": 4000.0, "trl_4_checkpointing": 2000.0}


def config(**rollout: int) -> RunConfig:
    sizes = {"prompts_per_step": 4, "group_size": 8, "max_new_tokens": 12} | rollout
    return resolve({"model": {"id": "owner/model"}, "task": {"source": "arithmetic"}, "rollout": sizes})


def measured(key: str, seconds: float, peak: float) -> Measured:
    step = {"seconds": seconds, "seconds_rollout": seconds / 2, "seconds_update": seconds / 4, "added_mb": 10.0}
    step |= {"update_to_matmul": 1.5, "update_to_shapes": 1.2}
    return Measured([step, step | {"seconds": seconds * 1.1}], {"rollout": peak, "update": peak - 1}, ABOUT)


def stand_in(seconds: Mapping[str, float], memory: Mapping[str, float], planned: list[Peer]) -> Any:
    """Takes a job for done: the seconds and MiB of its peer, by key."""
    keys = {id(peer.job): peer.key for peer in planned}

    def run(job: Job) -> Measured:
        key = keys[id(job)]
        return measured(key, seconds.get(key, 8.0), memory.get(key, 3000.0))

    return run


def test_a_plan_holds_our_ways_and_growing_updates_and_trl_only_where_asked_for() -> None:
    ours = [peer.key for peer in peers(config(), None)]
    assert {
        "aapo_fresh",
        "aapo_fresh_adapter",
        "aapo_least",
        "aapo_bank",
        "grpo",
        "dense",
        "generate",
        "arithmetic",
    } <= set(ours)
    assert [key for key in ours if key.startswith("update_memory")] == [
        "update_memory_4x12",
        "update_memory_8x12",
        "update_memory_16x12",
        "update_memory_16x24",
    ]
    against = [peer.key for peer in peers(config(), "trl")]
    assert {key for key in against if key not in ours} == {
        *(f"trl_{size}" for size in (4, 8, 16, 32)), "trl_4_checkpointing", "trl_8_checkpointing", "trl_as_it_comes",
    }  # fmt: skip


def test_growing_updates_keep_to_one_token_budget() -> None:
    sized = [peer.job for peer in peers(config(), None) if peer.key.startswith("update_memory")]
    assert {job.choices["token_budget"] for job in sized} == {4 * 4 * 12}
    assert [job.tokens for job in sized] == [192, 384, 768, 1536]


def test_only_micro_batches_that_divide_the_step_are_tried() -> None:
    planned = {peer.key: peer for peer in peers(config(prompts_per_step=2, group_size=6), "trl")}
    assert [key for key in planned if key.startswith("trl")] == ["trl_4", "trl_4_checkpointing", "trl_as_it_comes"]
    assert planned["trl_as_it_comes"].job.options["micro_batch"] == 6


def test_what_is_compared_has_neither_dropout_nor_evaluations_nor_options_of_another_algorithm() -> None:
    given = resolve(
        {
            "model": {"id": "owner/model"},
            "task": {"source": "arithmetic"},
            "lora": {"dropout": 0.1},
            "algorithm": {"name": "grpo", "options": {"beta": 0.04}},
        }
    )
    for peer in peers(given, "trl"):
        settings = peer.job.config
        assert settings.lora.dropout == 0
        assert settings.evaluated_problems == 0
        assert settings.algorithm.options == {}
        assert settings.rewards[0].name.endswith("rewards.py:score")


def test_a_job_survives_json() -> None:
    job = peers(config(), "trl")[-5].job
    assert Job.from_json(job.as_json()) == job


def test_peers_are_taken_in_turn_and_after_the_first_round_only_those_that_matter() -> None:
    planned = peers(config(), "trl")
    said: list[str] = []
    found = run_rounds(planned, 3, said.append, stand_in(TRL_SECONDS, TRL_MEMORY, planned))
    rounds = {key: len(results) for key, results in found.items()}
    assert list(rounds) == [peer.key for peer in planned]
    # 16 is within a tenth of the best time, 4 with checkpointing has the least memory.
    assert {key for key, count in rounds.items() if count == 3} == {
        "aapo_fresh", "aapo_fresh_adapter", "aapo_least", "aapo_bank", "grpo", "dense", "generate", "arithmetic",
        "trl_8", "trl_16", "trl_4_checkpointing",
    }  # fmt: skip
    assert set(rounds.values()) == {1, 3}
    assert said[0].startswith("round 1/3: AAPO, fresh reference: 8.00, 8.80 s, 3000 MiB")
    second = [line.removeprefix("round 2/3: ").partition(":")[0] for line in said if line.startswith("round 2/3")]
    assert second[0] == "AAPO, fresh reference"


def test_a_setting_of_trl_that_fails_is_left_out_and_said_and_ours_ends_it() -> None:
    planned = peers(config(), "trl")
    good = stand_in(TRL_SECONDS, TRL_MEMORY, planned)

    def run(job: Job) -> Measured:
        if job.options.get("micro_batch") == 32:
            raise BenchError("out of memory")
        return good(job)  # type: ignore[no-any-return]

    said: list[str] = []
    found = run_rounds(planned, 1, said.append, run)
    assert "trl_32" not in found
    assert "round 1/1: TRL GRPO, micro-batch 32: left out: out of memory" in said
    assert "trl_32" not in {row["key"] for row in report(planned, found)["rows"]}

    def broken(job: Job) -> Measured:
        raise BenchError("out of memory")

    with pytest.raises(BenchError, match="AAPO, fresh reference: out of memory"):
        run_rounds(planned, 1, said.append, broken)


def test_without_trl_every_round_holds_all_but_what_one_round_tells() -> None:
    planned = peers(config(), None)
    first = {peer.key: measured(peer.key, 1.0, 1.0) for peer in planned}
    kept = worth_another_round(planned, first)
    assert [peer.key for peer in kept] == [peer.key for peer in planned if not peer.once]


def test_ratios_are_trls_best_over_ours_for_time_and_for_memory() -> None:
    planned = peers(config(), "trl")
    seconds = TRL_SECONDS | {"aapo_fresh": 8.0, "grpo": 4.0, "generate": 12.0, "dense": 6.0, "trl_as_it_comes": 1.0}
    memory = TRL_MEMORY | {"aapo_least": 1000.0, "trl_as_it_comes": 1.0}
    document = report(planned, run_rounds(planned, 1, lambda _: None, stand_in(seconds, memory, planned)))
    found = document["ratios"]
    assert found["aapo_fresh"] == pytest.approx(2.0)
    assert found["grpo"] == pytest.approx(4.0)
    assert found["memory"] == pytest.approx(2.0)
    assert found["rollout_to_plain"] == pytest.approx(12.6 / 4)
    assert found["update_to_plain"] == pytest.approx(6 / 4)
    assert (found["update_to_matmul"], found["update_to_shapes"]) == (1.5, 1.2)
    assert {**document, "rows": 0, "ratios": 0, "note": 0} == {**ABOUT, "rows": 0, "ratios": 0, "note": 0}


def test_without_trl_there_are_no_ratios_against_it() -> None:
    planned = peers(config(), None)
    document = report(planned, run_rounds(planned, 1, lambda _: None, stand_in({}, {}, planned)))
    assert set(document["ratios"]) == {"rollout_to_plain", "update_to_plain", "update_to_matmul", "update_to_shapes"}
    assert ratios([]) == {}


def test_a_row_holds_medians_over_all_rounds_and_its_tokens_a_second() -> None:
    planned = peers(config(), None)
    times = iter([9.0, 8.0, 30.0])

    def run(job: Job) -> Measured:
        if job is planned[0].job:
            steps = [{"seconds": next(times), "seconds_rollout": 4.0}]
            return Measured(steps, {"rollout": 5.0, "update": 7.0}, ABOUT | {"choices": CHOICES})
        return measured("", 1.0, 1.0)

    rows = {row["key"]: row for row in report(planned, run_rounds(planned, 3, lambda _: None, run))["rows"]}
    step, rollout = rows["aapo_fresh"], rows["rollout_grouped"]
    assert (step["seconds"], step["seconds_least"], step["seconds_most"], step["steps"]) == (9.0, 8.0, 30.0, 3)
    assert (step["peak_mb"], rollout["peak_mb"]) == (7.0, 5.0)
    assert step["choices"] == CHOICES
    assert step["tokens_per_second"] == pytest.approx(4 * 8 * 12 / 9)
    assert rollout["tokens_per_second"] == pytest.approx(2 * 4 * 8 * 12 / 4)


def test_lines_for_people_stand_in_columns_with_the_ratios_below() -> None:
    planned = peers(config(), "trl")
    found = run_rounds(planned, 1, lambda _: None, stand_in(TRL_SECONDS, TRL_MEMORY, planned))
    said = lines(report(planned, found))
    assert said[:2] == ["a processor", "4 prompts of 44 to 46 tokens x 8 completions of 12"]
    assert said[2].split() == ["what", "s", "rollout", "reward", "update", "tokens/s", "MiB"]
    assert said[3].split() == ["AAPO,", "fresh", "reference", "8.40", "4.00", "2.00", "45.71", "3000"]
    assert any(line.startswith("aapo_fresh 2.00") for line in said)
