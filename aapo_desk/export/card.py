"""The README.md (model card) of an export: what it is, how it was trained, its accuracy and how to use it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aapo_desk.config import RunConfig
from aapo_desk.export.request import Form, Source
from aapo_desk.export.usage import usages
from aapo_desk.models.ids import wheel_model
from aapo_desk.store import RunReader
from aapo_desk.store.unscorable import unscorable_words

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 48
ROWS = 10
CURVES = {
    "reward": "reward",
    "reference_reward": "the reference's reward",
    "completion_tokens": "completion, in tokens",
    "entropy": "entropy, in nats",
    "grad_norm": "gradient norm",
}
LIBRARIES: dict[Form, str] = {"adapter": "peft", "merged": "transformers", "gguf": "gguf"}


def card(source: Source, form: Form, record: Mapping[str, Any], file: str | None) -> str:
    """Return the text of the README.md. ``record`` is the export's record; ``file`` is the name of the GGUF file."""
    config = source.config
    base = record["base"]
    parts = [
        _front_matter(config, form),
        f"# {source.run.name}\n",
        _what(source, form, record),
        "## Held-out accuracy\n",
        _accuracy(record, config.lora.start_from),
        "## Training\n",
        _settings(config, source.step, record),
        _curves(source),
        "## Compared with the model it was made from\n",
        _proof(record),
        "## Use\n",
        *(
            f"{usage.tool}:\n\n```\n{chr(10).join(usage.lines)}\n```\n"
            for usage in usages(form, Path(), base["path"], base["revision"], base["four_bit"], file, base.get("ends"))
        ),
        _prompt(config),
    ]
    return "\n".join(part for part in parts if part)


def _front_matter(config: RunConfig, form: Form) -> str:
    lines = ["---", f"library_name: {LIBRARIES[form]}", "pipeline_tag: text-generation"]
    if not (wheel_model(config.model.id) or Path(config.model.id).is_dir()):
        lines.insert(1, f"base_model: {config.model.id}")
    return "\n".join([*lines, f"tags: [{config.algorithm.name}, lora, reinforcement-learning]", "---", ""])


def _what(source: Source, form: Form, record: Mapping[str, Any]) -> str:
    kinds = {
        "adapter": "A LoRA adapter for",
        "merged": f"A LoRA adapter merged ({record.get('dtype')}) into",
        "gguf": f"A GGUF file ({record.get('quant')}) of a LoRA adapter merged into",
    }
    plan = _planned(source.config, source.step)
    return (
        f"{kinds[form]} `{source.config.model.id}`, trained by reinforcement learning "
        f"({source.config.algorithm.name}) with AAPO Desk. Step {source.step} of {plan}: {source.chosen}.\n"
    )


def _accuracy(record: Mapping[str, Any], start_from: str | None) -> str:
    held_out = record.get("held_out")
    if held_out is None:
        return "Not measured.\n"
    run = held_out["run"]
    rows = [
        ("base model, as in training" if start_from is None else "before training", held_out["base"]),
        ("tuned model, as in training", run),
        ("this export", held_out["greedy"]),
    ]
    shown = [(name, _interval(found, held_out["problems"])) for name, found in rows]
    lines = [
        f"| fraction of {held_out['problems']} problems right, greedy decoding | with 95 % interval |",
        "|---|---|",
    ]
    lines += [f"| {name} | {value} |" for name, value in shown if value]
    if run:
        lines += ["", f"Compared with the run's own evaluation: {agreement(run)}."]
    return "\n".join(lines) + "\n"


def agreement(run: Mapping[str, Any]) -> str:
    """Return, in words, how far the answers agree with those of the run's own evaluation."""
    return f"{run['same_answers']} identical answers, {run['same_scores']} equally right or wrong"


def _interval(found: Mapping[str, Any] | None, problems: int) -> str | None:
    if found is None or found["accuracy"] is None:
        return None
    unscorable = unscorable_words(found, problems)
    return f"{found['accuracy']:.2f} [{found['low']:.2f}, {found['high']:.2f}]" + (f"; {unscorable}" * bool(unscorable))


def _settings(config: RunConfig, step: int, record: Mapping[str, Any]) -> str:
    quantised = {"nf4": "4-bit NF4 (QLoRA)", "none": "not quantized"}[config.model.quantization]
    rewards = ", ".join(f"{reward.name} x {reward.weight:g}" for reward in config.rewards)
    rollout, optimizer, warm = config.rollout, config.optimizer, config.warm_start
    warmed = f"{warm.solutions} worked solutions, {warm.epochs} epochs, learning rate {warm.learning_rate:g}"
    rows = {
        "base": f"`{config.model.id}`" + (f" at `{record['base']['revision']}`" if record["base"]["revision"] else ""),
        "base during training": quantised,
        "adapter": f"LoRA r={config.lora.r}, alpha={config.lora.alpha}, on {_targets(config)}",
        **({"started from": f"the adapter `{config.lora.start_from}`"} if config.lora.start_from else {}),
        **({"warm start": warmed} if warm.solutions else {}),
        "task": f"`{config.task.source}`",
        "rewards": rewards,
        "algorithm": config.algorithm.name,
        "one step": f"{rollout.prompts_per_step} prompts x {rollout.group_size} completions of up to "
        f"{rollout.max_new_tokens} tokens, temperature {rollout.temperature:g}",
        "steps": f"{step} of {_planned(config, step)}",
        "learning rate": f"{optimizer.learning_rate:g}, {optimizer.schedule}, {optimizer.warmup_steps} warm-up steps",
        "seed": str(config.run.seed),
        "versions": ", ".join(f"{name} {version}" for name, version in record["versions"].items()),
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]) + "\n"


def _planned(config: RunConfig, step: int) -> str:
    """Return the planned length of the run: its budget, if it has one and ended early, else its number of steps."""
    plan = config.run
    if plan.steps > step and plan.seconds is not None:
        return f"a run of {plan.seconds:g} seconds"
    if plan.steps > step and plan.completions is not None:
        return f"a run of {plan.completions} completions"
    return str(plan.steps)


def _targets(config: RunConfig) -> str:
    return config.lora.targets if isinstance(config.lora.targets, str) else ", ".join(config.lora.targets)


def _curves(source: Source) -> str:
    """Return the training curves up to the exported step: one bar chart per line, and a table of a few steps."""
    reader = RunReader(source.run)
    series = {key: [pair for pair in reader.series(key) if pair[0] <= source.step] for key in CURVES}
    drawn = {key: points for key, points in series.items() if points}
    if not drawn:
        return ""
    lines = [f"Steps 1 to {source.step}; the bars range from the lowest to the highest value:", "", "```"]
    for key, points in drawn.items():
        values = [value for _, value in points]
        lines.append(f"{CURVES[key]:<24}{bars(values, WIDTH)}  {min(values):.3g} to {max(values):.3g}")
    lines += ["```", ""]
    steps = [step for step, _ in next(iter(drawn.values()))]
    shown = sorted({steps[number * (len(steps) - 1) // max(1, ROWS - 1)] for number in range(ROWS)} & set(steps))
    tables = {key: dict(points) for key, points in drawn.items()}
    lines += [f"| step | {' | '.join(CURVES[key] for key in drawn)} |", "|---" * (len(drawn) + 1) + "|"]
    for step in shown:
        cells = [f"{table[step]:.3f}" if step in table else "" for table in tables.values()]
        lines.append(f"| {step} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def bars(values: Sequence[float], width: int) -> str:
    """Return the values as a row of bars, averaged down to at most ``width`` bars."""
    count = min(width, len(values))
    edges = [number * len(values) // count for number in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((mean - low) * scale)] for mean in means)


def _proof(record: Mapping[str, Any]) -> str:
    lines = [f"- {line}" for line in proof_lines(record)]
    return "\n".join(lines) + "\n"


def proof_lines(record: Mapping[str, Any]) -> list[str]:
    """Return the notes for the user of the export, followed by the results of the comparisons, in words."""
    lines = list(record.get("notes", []))
    for proof in record["proofs"]:
        found, bound = proof["distance"], proof["bound"]
        allowed = "" if bound is None else f" (allowed: at most {bound['kl']:g} and at least {bound['top1']:.0%})"
        lines.append(
            f"{proof['what']} compared with {proof['against']}: KL {found['kl']:.2g} nats, "
            f"same most likely token {found['top1']:.1%} of {found['tokens']}{allowed}; "
            f"logits differ by up to {found['max_abs']:.2g}"
        )
    return lines


def _prompt(config: RunConfig) -> str:
    if config.task.system_prompt is None:
        return ""
    return f"It was trained with this system prompt:\n\n```\n{config.task.system_prompt}\n```\n"
