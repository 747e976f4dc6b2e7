"""Run a complete evaluation: load problems, model and adapter, choose how to compute, and store answers by batch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from aapo_desk import __version__
from aapo_desk.checkpoint import Checkpoint, checkpoint_name, list_checkpoints, load_adapter, newest_whole
from aapo_desk.config import ConfigError
from aapo_desk.config import Problem as Refusal
from aapo_desk.evaluation import results
from aapo_desk.evaluation.batches import Asked, answered
from aapo_desk.evaluation.held_out import judged_by
from aapo_desk.evaluation.request import BEST, LAST, Request, content_ids, read_problems
from aapo_desk.evaluation.results import SIDES, Head, Results
from aapo_desk.memory import loaded, plan
from aapo_desk.models import sources
from aapo_desk.models.ends import TEMPLATE_END, read_ends
from aapo_desk.models.loading import choose_device, load_policy
from aapo_desk.models.policy import Policy
from aapo_desk.models.room import free_bytes, shape_of
from aapo_desk.rewards import RewardPool
from aapo_desk.rollout import Sampling, can_be_fixed
from aapo_desk.rollout.trial import CPU_ROWS, Workload
from aapo_desk.rollout.verify import verify_fast_paths
from aapo_desk.store import RunDirectory, RunReader, home
from aapo_desk.tasks import Problem
from aapo_desk.tasks.prompts import Fit, fit

MOST_ROWS = {"cpu": 64, "cuda": 256}
"""The maximum batch size, in rows. Larger batches save little time, and an interruption loses more work."""

Tell = Callable[[str], None]
Progress = Callable[[float, float | None], None]
"""Called with the share that is done and the seconds that are left (None if they cannot be estimated yet)."""


class Interrupted(Exception):
    """The evaluation was interrupted by Ctrl-C. ``str()`` is one line for the user that says what is stored."""

    def __init__(self, kept: Results) -> None:
        done = f"{len(kept.lines)} of {kept.head['problems']} problems are stored in {kept.folder}"
        super().__init__(f"interrupted: {done}; run the same command again to continue")


@dataclass(frozen=True)
class _Subject:
    """The subject of an evaluation: the model on disk and, for a run, the checkpoint with the adapter."""

    resolved: sources.ResolvedModel
    checkpoint: Checkpoint | None
    adapter: str | None
    """The SHA-256 of the adapter's weights."""


def work(request: Request, tell: Tell = lambda _: None, progress: Progress = lambda *_: None) -> tuple[Path, Head]:
    """Run or continue an evaluation, and return the folder of the results and their head.

    Raises ConfigError for what the user can fix; ModelError, HubError, CheckpointError, RewardError and
    EvaluationError for what fails; Interrupted on Ctrl-C.
    """
    config = request.config
    sources.check_id(config.model)
    tell(f"reading {config.task.source}")
    problems, total = read_problems(request)
    device = choose_device(config.model.device)
    checkpoint, adapter = _checkpoint(request)
    subject = _Subject(sources.resolve(config.model, lambda text, _share=None, /: tell(text)), checkpoint, adapter)
    with RewardPool(judged_by(config.rewards)) as pool:
        head = _head(request, subject, problems, total, device, pool)
        with results.opened(_folder(request, subject, head), head) as kept:
            if kept.head["finished"]:
                tell("this was evaluated before; showing the stored results")
                if kept.count_again():
                    tell("accuracies recomputed: unscorable answers, left out when evaluated, now count as wrong")
            else:
                try:
                    _answer(request, subject, problems, pool, kept, tell, progress)
                except KeyboardInterrupt:
                    raise Interrupted(kept) from None
            return kept.folder, kept.head


def _answer(
    request: Request,
    subject: _Subject,
    problems: Sequence[Problem],
    pool: RewardPool,
    kept: Results,
    tell: Tell,
    progress: Progress,
) -> None:
    """Load the model, answer the problems that have no answer yet, and write the summary."""
    config = request.config
    tell(f"loading {config.model.id}")
    policy = load_policy(config.model, config.lora, subject.resolved, config.run.seed)
    if policy.template_end is not None:
        tell(TEMPLATE_END.format(policy.tokenizer.convert_ids_to_tokens(policy.template_end)))
    if subject.checkpoint:
        load_adapter(subject.checkpoint, policy)
    fitted = _fit(policy, problems, request)
    asked = Asked(
        fitted.problems,
        fitted.prompts,
        _longest_answer(policy, request, fitted),
        request.samples,
        None if request.greedy else Sampling.of(config.rollout),
        config.run.seed,
        SIDES if subject.checkpoint else ("base",),
    )
    choices = _settle(policy, request, asked, kept.head["choices"], tell)
    facts = {"problems": len(fitted.problems), "dropped": fitted.dropped, "max_new_tokens": asked.max_new_tokens}
    kept.change(choices=choices, **facts)
    done = len(kept.lines)
    if done:
        tell(f"continuing after {done} of {len(asked.problems)} problems")
    began = last = time.monotonic()
    before = done / len(asked.problems)
    # A batch begins with the prefill, so time is proportional to the share only from about half a batch on.
    left = len(asked.problems) - done
    telling = before + min(choices["batch_rows"] // asked.rows, left) / len(asked.problems) / 2

    def report(share: float) -> None:
        gone = time.monotonic() - began
        progress(share, gone * (1 - share) / (share - before) if share > telling else None)

    def changed(new: dict[str, int]) -> None:
        kept.change(choices=kept.head["choices"] | new)

    fixed = bool(choices["fixed_steps"])
    for lines in answered(policy, asked, pool, choices["batch_rows"], fixed, done, report, changed):
        now = time.monotonic()
        kept.add(lines, now - last)
        last = now
    kept.finish()


def _checkpoint(request: Request) -> tuple[Checkpoint | None, str | None]:
    """Return the requested checkpoint and its adapter's SHA-256. Raises ConfigError if there is no such checkpoint."""
    run = request.run
    if run is None:
        return None, None
    there = list_checkpoints(run.checkpoints)
    if not there:
        message = (
            "has no checkpoint yet, so there is no adapter; to evaluate its base model alone: "
            f"aapo-desk eval {request.config.model.id}"
        )
        raise ConfigError(Refusal("RUN", message, run.name))
    if request.step == LAST:
        found = newest_whole(run.checkpoints)
        assert found is not None
        checkpoint, state = found[:2]
    else:
        step = _best(run) if request.step == BEST else int(request.step)
        checkpoint = next((one for one in there if one.step == step), there[0])
        if checkpoint.step != step:
            steps = ", ".join(str(one.step) for one in reversed(there))
            raise ConfigError(Refusal("--step", f"this step has no checkpoint; available are {steps}", request.step))
        state = checkpoint.read_asked_state()
    return checkpoint, state["checksums"]["adapter/adapter_model.safetensors"]


def _best(run: RunDirectory) -> int:
    """Return the step of the best evaluation, as the trainer recorded it."""
    events = RunReader(run).overview(1, 1).events
    best = [event.data.get("best") for event in events if event.kind in ("checkpoint", "finished")]
    if not best or best[-1] is None:
        raise ConfigError(Refusal("--step", f"this run has no evaluated step yet; give a step number, or {LAST}", BEST))
    return int(best[-1])


def _head(
    request: Request,
    subject: _Subject,
    problems: Sequence[Problem],
    total: int,
    device: torch.device,
    pool: RewardPool,
) -> Head:
    """Return the head of the results, which identifies this evaluation.

    Two evaluations with equal ``asked`` can be paired, whichever model answered.
    """
    config = request.config
    ids = content_ids(problems)
    judge = judged_by(config.rewards)[0]
    asked = {
        "problems": _digest(sorted(ids)),
        "system_prompt": config.task.system_prompt,
        "max_prompt_tokens": config.task.max_prompt_tokens,
        "max_new_tokens": config.evaluation_tokens,
        "samples": request.samples,
        "sampling": None if request.greedy else dataclasses.asdict(Sampling.of(config.rollout)),
        "judge": {"name": judge.name, "options": judge.options},
    }
    end = read_ends(config.model, subject.resolved).template
    answering = {
        # Only if there is one, so that older results of all other models, made before this field existed, stay valid.
        **({} if end is None else {"template_end": end}),
        "model": config.model.model_dump(mode="json"),
        "identity": sources.identity(config.model, subject.resolved),
        "adapter": subject.adapter,
        "weights": [config.rollout.weights, config.rollout.capture],
        "device": device.type,
        "seed": config.run.seed,
        "order": _digest(ids),
        "judge": _digest(pool.definition),
    }
    run = request.run
    return {
        "task": request.task,
        "source": config.task.source,
        "split": config.task.split,
        "run": {"id": run.id, "name": run.name} if run else None,
        "step": subject.checkpoint.step if subject.checkpoint else None,
        "total": total,
        "problems": len(problems),
        "asked": asked,
        "answering": answering,
        "key": _digest([asked, answering]),
        "choices": None,
        "versions": {"aapo-desk": __version__} | {name: version(name) for name in ("torch", "transformers", "peft")},
    }


def _folder(request: Request, subject: _Subject, head: Mapping[str, Any]) -> Path:
    mode = "greedy" if request.greedy else f"sampled{request.samples}"
    who = checkpoint_name(subject.checkpoint.step) if subject.checkpoint else _short(request.config.model.id)
    name = f"{_short(request.task)}-{who}-{mode}-{head['key'][:8]}"
    return (request.run.evaluations if request.run else home() / "evaluations") / name


def _short(name: str) -> str:
    """Return the last part of a path or an id, as part of a file name."""
    stem = re.sub(r"\.(jsonl?|csv|parquet|gguf)$", "", name.partition("#")[0].rstrip("/"))
    return re.sub(r"[^A-Za-z0-9._]+", "-", re.split(r"[/:]", stem)[-1])[:40].strip(".-") or "data"


def _fit(policy: Policy, problems: Sequence[Problem], request: Request) -> Fit:
    """Return the problems with prompts that are short enough. Raises ConfigError if there are none."""
    task = request.config.task
    fitted = fit(policy.tokenizer, problems, task, request.config.model.chat_template_options)
    if not fitted.problems:
        message = f"every prompt is longer than this limit; the shortest has {fitted.shortest} tokens"
        raise ConfigError(Refusal("task.max_prompt_tokens", message, task.max_prompt_tokens))
    first = slice(request.most)
    return dataclasses.replace(fitted, problems=fitted.problems[first], prompts=fitted.prompts[first])


def _longest_answer(policy: Policy, request: Request, fitted: Fit) -> int:
    """Return the maximum answer length in tokens, shortened to fit the model's context.

    Raises ConfigError if the user set a length that does not fit, or if no token fits.
    """
    wanted = request.config.evaluation_tokens
    context = getattr(policy.causal.config.get_text_config(), "max_position_embeddings", None)
    if context is None or fitted.longest + wanted <= context:
        return wanted
    left = int(context) - fitted.longest
    if request.length_given or left < 1:
        message = (
            f"together with the longest prompt ({fitted.longest} tokens) this exceeds the model's context of "
            f"{context} tokens; the maximum is {max(left, 0)}"
        )
        raise ConfigError(Refusal("--max-new-tokens", message, wanted))
    return left


def _settle(policy: Policy, request: Request, asked: Asked, kept: dict[str, int] | None, tell: Tell) -> dict[str, int]:
    """Return the execution plan for this device: the one that these results were begun with, else a new, verified one.

    Also applies the plan to ``policy`` and torch.
    """
    choices = kept or _choose(policy, request, asked)
    torch.set_num_threads(choices["threads"])
    if kept is None:
        tell("comparing the fast paths with the plain one on this device")
        prompts = asked.prompts[: max(1, choices["batch_rows"] // asked.rows)]
        rows = min(choices["batch_rows"], CPU_ROWS) if policy.device.type == "cpu" else choices["batch_rows"]
        workload = Workload(prompts, max(1, asked.rows // 2), asked.max_new_tokens, rows, updates=False)
        verdict = verify_fast_paths(policy, workload, Sampling(), choices)
        for line in verdict.refused.values():
            tell(line)
        choices = verdict.choices
    policy.masks_rows = bool(choices["row_mask"])
    if choices["shadow_weights"] and policy.shadow is None:
        policy.use_shadow()
    return choices


def _choose(policy: Policy, request: Request, asked: Asked) -> dict[str, int]:
    """Return the execution plan that the trainer would choose for the lengths that occur here."""
    config, kind = request.config, policy.device.type
    longest = max(map(len, asked.prompts))
    config = config.model_copy(
        update={
            "task": config.task.model_copy(update={"max_prompt_tokens": longest}),
            "rollout": config.rollout.model_copy(update={"max_new_tokens": asked.max_new_tokens}),
            "evaluation": config.evaluation.model_copy(update={"max_new_tokens": asked.max_new_tokens}),
        }
    )
    shape = shape_of(policy)
    planned = plan(shape, config, free_bytes(policy.device) + loaded(shape, config, kind), kind)
    return {
        "batch_rows": min(planned.batch_rows, MOST_ROWS[kind]),
        "shadow_weights": int(planned.shadow_weights),
        "fixed_steps": int(kind == "cuda" and config.rollout.capture == "auto" and can_be_fixed(policy)),
        "row_mask": 1,
        "threads": torch.get_num_threads(),
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
