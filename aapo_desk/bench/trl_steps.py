"""Complete training steps of TRL's GRPOTrainer with the same model, prompts, group size, lengths and sampling.

There are two ways. ``fair`` adapts TRL to the device: the adapter has a dtype that the device is fast at (TRL casts a
QLoRA adapter to bfloat16, which is slow on a CPU), autocast is on only if the device computes in 16 bits, and the base
model is loaded by us, so that its 4-bit layers keep their gradient on any CPU. ``as_it_comes`` gives TRL the path of
the model and keeps every default. TRL samples no reference.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import BitsAndBytesConfig, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from aapo_desk import tasks
from aapo_desk.bench.bed import about, first_step
from aapo_desk.bench.jobs import BenchError, Job, Measured
from aapo_desk.bench.rewards import score
from aapo_desk.models import sources
from aapo_desk.models.loading import choose_device, choose_dtype, load_base
from aapo_desk.tasks.prompts import fit
from aapo_desk.training.device.allocator import Peaks


class Clock(TrainerCallback):
    """A callback that records the seconds of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._started = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._started = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self._started)


def measure(job: Job) -> Measured:
    """Measure the seconds of each step by callbacks of TRL's trainer.

    The job's ``options`` are ``micro_batch``, ``checkpointing`` and ``as_it_comes``.
    """
    device = choose_device(job.config.model.device)
    peaks = Peaks(device)
    train = as_it_comes if job.options["as_it_comes"] else fair
    with tempfile.TemporaryDirectory() as folder:
        seconds, said = train(job, device, folder)
    tokens = float(job.config.rollout.max_new_tokens)
    steps = [{"seconds": value, "completion_tokens": tokens} for value in seconds[job.warm_up :]]
    return Measured(steps, peaks.read(), said)


def fair(job: Job, device: torch.device, folder: str) -> tuple[list[float], dict[str, Any]]:
    """Time TRL adapted to the device: a fast dtype for the adapter, a base model that we load, the job's settings."""
    dtype = choose_dtype(job.config.model.compute_dtype, device)
    resolved = sources.resolve(job.config.model)
    base = load_base(job.config.model, resolved, device, dtype)
    settings = {
        "bf16": dtype == torch.bfloat16,
        "fp16": dtype == torch.float16,
        "gradient_checkpointing": job.options["checkpointing"],
    }
    trainer, said = trainer_of(job, device, resolved, base, {}, settings | common(job, device, folder))
    adapter_dtype = torch.bfloat16 if dtype == torch.bfloat16 else torch.float32
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(adapter_dtype)
    return timed(trainer), said


def as_it_comes(job: Job, device: torch.device, folder: str) -> tuple[list[float], dict[str, Any]]:
    """Time TRL with its defaults, given only the path of the model and its quantization."""
    config = job.config
    resolved = sources.resolve(config.model)
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=choose_dtype(config.model.compute_dtype, device),
    )
    loading = {"quantization_config": quantization if config.model.quantization == "nf4" else None}
    trainer, said = trainer_of(job, device, resolved, resolved.path, loading, common(job, device, folder))
    return timed(trainer), said


def trainer_of(
    job: Job,
    device: torch.device,
    resolved: sources.ResolvedModel,
    model: Any,
    loading: dict[str, Any],
    settings: dict[str, Any],
) -> tuple[Any, dict[str, Any]]:
    """Return TRL's trainer of a new adapter on the prompts of a step, and the description of the measurement."""
    config = job.config
    tokenizer = sources.load_tokenizer(resolved, config.model.trust_remote_code)
    data = tasks.load(config.task, config.run.seed)
    fitted = fit(tokenizer, data.train, config.task, config.model.chat_template_options)
    chosen = first_step(len(fitted.problems), config)
    trainer = GRPOTrainer(
        model=model,
        **loading,
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=config.lora.r, lora_alpha=config.lora.alpha, target_modules=config.lora.targets, task_type="CAUSAL_LM"
        ),
        **asked(job, [fitted.problems[index] for index in chosen], tokenizer),
        args=GRPOConfig(**settings),
    )
    return trainer, about(job, device, [fitted.prompts[index] for index in chosen])


def common(job: Job, device: torch.device, folder: str) -> dict[str, Any]:
    """Return the settings of GRPOConfig that define the workload; how it is done is left to TRL."""
    config, rollout, micro_batch = job.config, job.config.rollout, job.options["micro_batch"]
    return {
        "output_dir": folder,
        "use_cpu": device.type == "cpu",
        "max_steps": job.warm_up + job.steps,
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": job.rows // micro_batch,
        "num_generations": rollout.group_size,
        "max_completion_length": rollout.max_new_tokens,
        "generation_kwargs": {"min_new_tokens": rollout.max_new_tokens},
        "temperature": rollout.temperature,
        "top_p": rollout.top_p,
        "top_k": rollout.top_k,
        "learning_rate": config.optimizer.learning_rate,
        "max_grad_norm": config.optimizer.max_grad_norm,
        "beta": 0.0,
        "trust_remote_code": config.model.trust_remote_code,
        "chat_template_kwargs": config.model.chat_template_options,
        "shuffle_dataset": False,
        "seed": config.run.seed,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
    }


def asked(job: Job, problems: Sequence[tasks.Problem], tokenizer: Any) -> dict[str, Any]:
    """Return the prompts in TRL's format, and the reward function."""
    longest = job.config.rollout.max_new_tokens

    def reward(completions: list[Any], completion_ids: list[list[int]], **_: Any) -> list[float]:
        if any(len(ids) != longest for ids in completion_ids):
            raise BenchError(
                f"TRL ended a completion before {longest} tokens, so its steps cannot be compared with ours"
            )
        texts = [done if isinstance(done, str) else done[0]["content"] for done in completions]
        return [score(text, "") for text in texts]

    system = job.config.task.system_prompt
    prompts: list[Any] = []
    for problem in problems:
        if tokenizer.chat_template is None:
            prompts.append("\n\n".join([*([] if system is None else [system]), problem.problem]) + "\n")
        else:
            first = [] if system is None else [{"role": "system", "content": system}]
            prompts.append([*first, {"role": "user", "content": problem.problem}])
    return {"train_dataset": Dataset.from_dict({"prompt": prompts}), "reward_funcs": reward}


def timed(trainer: Any) -> list[float]:
    """Train, and return the seconds of each step."""
    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    return clock.seconds
