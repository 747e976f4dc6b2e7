"""A study whose runs have come to their ends, written by the real store and queue."""

from __future__ import annotations

import json
import random
from typing import Any

from aapo_desk.config import resolve
from aapo_desk.evaluation import proportion
from aapo_desk.store import RunDirectory, RunWriter, StepRecord, create_run
from aapo_desk.studies import running
from aapo_desk.studies.arms import ALGORITHM, Arm, make_budget
from aapo_desk.studies.queue.entries import change, records
from aapo_desk.studies.study import Study, create_study

BEGAN = 1_767_348_000.0
PROBLEMS = 100
COMPLETIONS = 32
"""Rewards of the policy in a step."""

RIGHT = {"aapo": (70, 74, 66), "grpo": (68, 75, 60), "gpg": (80, 81, 82)}
"""Held-out problems of each seed that are answered right in the end; 27 are at first."""

SETTINGS = {
    "model": {"id": "owner/SmolLM2-135M-Instruct"},
    "task": {"source": "arithmetic"},
    "rollout": {"prompts_per_step": 4, "group_size": 8},
    "run": {"steps": 10},
}


def make_study(name: str, algorithms: tuple[str, ...] = ("aapo", "grpo"), seeds: int = 3) -> Study:
    """A new study, its runs waiting."""
    arms = [Arm(label, resolve(SETTINGS, {ALGORITHM: label})) for label in algorithms]
    study = create_study(name, "demo", ALGORITHM, arms, range(seeds), make_budget("completions", None, arms))
    running.put_in(study)
    return study


def write_study(name: str) -> Study:
    """aapo against grpo with three seeds; grpo's last has failed."""
    study = make_study(name)
    end(study, failing=("grpo", 2))
    return study


def end(study: Study, failing: tuple[str, int] | None = None) -> None:
    """Let all that waits come to its end."""
    for record in records(study.id):
        label, seed = record.config["algorithm"]["name"], record.config["run"]["seed"]
        run = write_run(record.name or "", record.config, RIGHT[label][seed], (label, seed) == failing)
        change(record, run=run.id, begun=True, settled=True)


def write_run(name: str, config: dict[str, Any], right: int, failed: bool = False) -> RunDirectory:
    """A run of the configuration that has taken all its steps, or failed after the third."""
    label, seed = config["algorithm"]["name"], config["run"]["seed"]
    steps = 3 if failed else config["run"]["steps"]
    run = create_run(resolve(config), name)
    state = "failed" if failed else "finished"
    words = "the disk is full" if failed else ""
    run.status.write_text(json.dumps({"state": state, "step": steps, "steps": steps, "heartbeat": 0, "message": words}))
    writer = RunWriter(run)
    writer.write_event("started", 0)
    writer.write_steps(
        StepRecord(step, BEGAN + 6 * step, metrics(label, seed, step), {}, []) for step in range(1, steps + 1)
    )
    writer.write_evaluation(0, "held_out", evaluation(seed, 27))
    if not failed:
        writer.write_evaluation(steps, "held_out", evaluation(seed, right))
    writer.close()
    return run


def metrics(label: str, seed: int, step: int) -> dict[str, float]:
    margin = label == "aapo"
    noise = random.Random(f"{label} {seed} {step}").uniform(-0.1, 0.1)
    return {
        "reward": min(1.0, max(0.0, 0.1 + step / (15 if margin else 25) + noise)),
        "teaching_group": 0.25,
        "teaching": 0.75 if margin else 0.25,
        "seconds_rollout": 3.0,
        "seconds_reward": 0.5,
        "seconds_update": 2.5,
        "tokens_per_second": 100.0,
        "sampled_completions": COMPLETIONS * (2.0 if margin else 1.0),
    }


def evaluation(seed: int, right: int) -> dict[str, Any]:
    """The first ``right`` problems of the seed's own are answered right."""
    scores = [1.0] * right + [0.0] * (PROBLEMS - right)
    share = proportion(scores)
    answers = {"accuracy": share.mean, "low": share.low, "high": share.high, "scores": scores}
    return {
        "problems": PROBLEMS,
        "ids": [f"{seed}-{number}" for number in range(PROBLEMS)],
        "greedy": answers,
        "sampled": answers,
    }
