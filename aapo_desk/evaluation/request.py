"""The request for an evaluation, checked as far as possible without loading a model, and its problems."""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aapo_desk import tasks
from aapo_desk.config import ConfigError, RunConfig, TaskConfig, field_paths, nearest_key, resolve, user_path
from aapo_desk.config import Problem as Refusal
from aapo_desk.evaluation.benchmarks import BENCHMARKS, MAX_PROMPT_TOKENS, SYSTEM_PROMPT, Benchmark, last_box
from aapo_desk.hub import HubError
from aapo_desk.store import RunDirectory, find_run, list_runs
from aapo_desk.tasks import Problem

OWN = "own"
BEST, LAST = "best", "last"
Columns = tuple[str | None, str | None]
"""The columns of problem and answer; None means the most likely column that exists."""
COLUMNS: tuple[Columns, ...] = (("problem", "answer"), ("question", "answer"), (None, None))
"""The names that most data sets use, tried in this order."""
MAX_NEW_TOKENS = 512
SETTABLE = ("model.", "task.", "rewards", "rollout.top_p", "rollout.top_k", "rollout.weights", "rollout.capture")
SEED = "run.seed"
SAID_OTHERWISE = {
    "rollout.temperature": "--temperature",
    "rollout.max_new_tokens": "--max-new-tokens",
    "evaluation.max_new_tokens": "--max-new-tokens",
    "evaluation.problems": "--problems",
    "task.source": "--task",
    "task.split": "--split",
}
"""Settings that have an option of their own in ``aapo-desk eval``."""


@dataclass(frozen=True)
class Wanted:
    """The options of the command line. ``reference`` is a run or a model; no ``temperature`` means greedy."""

    reference: str
    task: str | None = None
    data: str | None = None
    split: str | None = None
    problems: int | None = None
    samples: int = 1
    temperature: float | None = None
    max_new_tokens: int | None = None
    step: str | None = None
    sets: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """A checked request. ``config`` holds the model, the task, the rewards and the maximum answer length."""

    config: RunConfig
    task: str
    benchmark: Benchmark | None
    run: RunDirectory | None
    """None if a model without a run is evaluated."""
    step: str
    """The step of the run's checkpoint: a number, ``best`` or ``last``."""
    problems: int | None
    samples: int
    greedy: bool
    length_given: bool
    """True if the user set the maximum answer length. If not, it may be shortened to fit the model's context."""
    columns: Sequence[Columns]
    """The column names to try, most likely first."""

    @property
    def most(self) -> int | None:
        """Return how many problems to evaluate at most; None for all.

        A run's own held-out problems are limited as in its training: to the first ones whose prompts fit.
        """
        return self.config.evaluated_problems or None if self.task == OWN else None


def request(wanted: Wanted) -> Request:
    """Check the command line's options and turn them into a request.

    Raises ConfigError with what was given, what is allowed and what to do.
    """
    _check_sampling(wanted)
    _check_sets(wanted.sets)
    run = _run(wanted.reference)
    task = wanted.task or (OWN if run else None)
    if task is None:
        raise ConfigError(Refusal("--task", f"is missing: {_tasks(run)}"))
    benchmark = BENCHMARKS.get(task)
    _check_task(wanted, task, run)
    known = run.read_config() if run else None
    tree: dict[str, Any] = known.model_dump(mode="json") if known else {"model": {"id": wanted.reference}}
    columns = _columns(wanted, benchmark, known)
    tree["task"] = tree["task"] if task == OWN else _task_section(wanted, task, benchmark, known, columns[0])
    if benchmark or known is None:
        tree["rewards"] = [{"name": "math"}]
    length = wanted.max_new_tokens or _length(benchmark, known)
    rollout = {key: value for key, value in tree.get("rollout", {}).items() if key in ("weights", "capture")}
    tree["rollout"] = rollout | {"temperature": wanted.temperature or 1.0, "max_new_tokens": length}
    tree["evaluation"] = tree.get("evaluation", {}) | {"max_new_tokens": length}
    return Request(
        config=resolve(tree, wanted.sets),
        task=task,
        benchmark=benchmark,
        run=run,
        step=_step(wanted.step, run),
        problems=wanted.problems,
        samples=wanted.samples,
        greedy=wanted.temperature is None,
        length_given=wanted.max_new_tokens is not None,
        columns=columns,
    )


def read_problems(asked: Request) -> tuple[list[Problem], int]:
    """Return the problems to evaluate, and how many the task has in total.

    A subset of a given size is always the same one, whatever the order of the file. Raises ConfigError and HubError as
    ``tasks.load`` does; for a named task, HubError also says how to use a local copy.
    """
    try:
        problems = _own(asked) if asked.task == OWN else _of_source(asked)
    except HubError as error:
        if asked.benchmark is None:
            raise
        raise HubError(f"{error}; to use a local copy with --task {asked.task}, add --data PATH") from error
    if asked.benchmark and asked.benchmark.in_box:
        problems = [replace(problem, answer=last_box(problem.answer)) for problem in problems]
    chosen = set(range(len(problems)))
    if asked.problems is not None:
        by_content = sorted(chosen, key=lambda place: (content_id(problems[place]), place))
        chosen = set(by_content[: asked.problems])
    return [problem for place, problem in enumerate(problems) if place in chosen], len(problems)


def content_id(problem: Problem) -> str:
    """Return an id made from a problem's text and answer, independent of the file it was read from."""
    text = f"{' '.join(problem.problem.split())}\0{problem.answer}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def content_ids(problems: Sequence[Problem]) -> list[str]:
    """Return the ``content_id`` of each problem; repetitions of a problem get the suffix -2, -3 and so on."""
    seen: Counter[str] = Counter()
    ids = []
    for problem in problems:
        own = content_id(problem)
        seen[own] += 1
        ids.append(own if seen[own] == 1 else f"{own}-{seen[own]}")
    return ids


def _own(asked: Request) -> list[Problem]:
    """Return a run's held-out problems."""
    problems = tasks.load(asked.config.task, asked.config.run.seed).held_out
    if not problems:
        raise ConfigError(Refusal("--task", "this run has no held-out problems; name another task", OWN))
    return problems


def _of_source(asked: Request) -> list[Problem]:
    """Return every problem of the split, read with the first pair of columns that exists.

    If none exists, raises the error of the last pair.
    """
    refused: ConfigError | None = None
    for problem_column, answer_column in asked.columns:
        columns = {"problem_column": problem_column, "answer_column": answer_column}
        try:
            return tasks.load(asked.config.task.model_copy(update=columns), seed=0).train
        except ConfigError as error:
            if not all(problem.path in ("task.problem_column", "task.answer_column") for problem in error.problems):
                raise
            refused = error
    assert refused is not None
    raise refused


def _check_sampling(wanted: Wanted) -> None:
    if wanted.temperature is not None and wanted.temperature <= 0:
        message = "must be above 0; leave it out for one greedy answer"
        raise ConfigError(Refusal("--temperature", message, wanted.temperature))
    if wanted.samples > 1 and wanted.temperature is None:
        message = "several greedy answers would all be the same; set a temperature, such as --temperature 0.6"
        raise ConfigError(Refusal("--samples", message, wanted.samples))


def _check_sets(sets: Mapping[str, Any]) -> None:
    """Refuse settings that would have no effect."""
    known = set(field_paths())
    for path, value in sets.items():
        if path in SAID_OTHERWISE:
            raise ConfigError(Refusal(path, f"use {SAID_OTHERWISE[path]} instead", value, "--set"))
        if not path.startswith(SETTABLE) and path != SEED:
            allowed = ", ".join(f"{name}*" if name.endswith(".") else name for name in (*SETTABLE, SEED))
            message = f"has no effect in an evaluation; these have: {allowed}"
            raise ConfigError(Refusal(path, message, value, "--set", nearest_key(path) if path not in known else None))


def _run(reference: str) -> RunDirectory | None:
    """Return the run that is meant; None if it is a model: a folder, a file in a wheel, or owner/name on the hub."""
    if any(reference in (run.id, run.name) for run in list_runs()):
        return find_run(reference)
    if reference.startswith(("pip:", "~", ".")) or "/" in reference or Path(reference).is_dir():
        return None
    return find_run(reference)


def _tasks(run: RunDirectory | None) -> str:
    own = f"{OWN} (the run's held-out problems), " if run else ""
    return f"allowed are {', '.join(BENCHMARKS)}, {own}file:PATH and hub:OWNER/DATASET"


def _check_task(wanted: Wanted, task: str, run: RunDirectory | None) -> None:
    named, source = task in BENCHMARKS, task.startswith(("file:", "hub:"))
    if not (named or source or task == OWN):
        close = difflib.get_close_matches(task.lower(), [*BENCHMARKS, OWN], n=1, cutoff=0.5)
        nearest = f"file:{task}" if user_path(task).exists() else close[0] if close else None
        raise ConfigError(Refusal("--task", f"there is no such task; {_tasks(run)}", task, nearest=nearest))
    if task == OWN and run is None:
        message = "a model has no held-out problems; name another task, or a run"
        raise ConfigError(Refusal("--task", message, task))
    if wanted.data is not None and not named:
        message = "is for a local copy of a named task; for a file of your own use --task file:PATH"
        raise ConfigError(Refusal("--data", message, wanted.data))
    if wanted.data is not None and not user_path(wanted.data).exists():
        raise ConfigError(Refusal("--data", "there is no such file or folder", wanted.data))
    if wanted.split is not None and task == OWN:
        raise ConfigError(Refusal("--split", "a run's own held-out problems have no splits", wanted.split))


def _columns(wanted: Wanted, benchmark: Benchmark | None, known: RunConfig | None) -> list[Columns]:
    named = [wanted.sets.get("task.problem_column"), wanted.sets.get("task.answer_column")]
    if any(named):
        return [(str(named[0] or COLUMNS[0][0]), str(named[1] or COLUMNS[0][1]))]
    first: list[Columns] = []
    if benchmark:
        first = [(benchmark.problem_column, benchmark.answer_column)]
    elif known and known.task.source != "arithmetic":
        first = [(known.task.problem_column or COLUMNS[0][0], known.task.answer_column or COLUMNS[0][1])]
    return list(dict.fromkeys([*first, *(COLUMNS if wanted.data or not benchmark else ())]))


def _task_section(
    wanted: Wanted, task: str, benchmark: Benchmark | None, known: RunConfig | None, columns: Columns
) -> dict[str, Any]:
    """Return the ``task`` section of the configuration.

    For a file or data set of the user's own, the system prompt is the one that the run was trained with.
    """
    source = f"file:{wanted.data}" if wanted.data is not None else benchmark.source if benchmark else task
    local = tasks.local_path(TaskConfig(source=source))
    single = local is not None and not local.is_dir()
    as_trained = known.task if known and not benchmark else None
    return {
        "source": source,
        "split": wanted.split or (None if single else benchmark.split if benchmark else "test"),
        "problem_column": columns[0],
        "answer_column": columns[1],
        "held_out": 0,
        "system_prompt": as_trained.system_prompt if as_trained else SYSTEM_PROMPT,
        "max_prompt_tokens": MAX_PROMPT_TOKENS,
        "options": dict(benchmark.options) if benchmark and local is None else {},
    }


def _length(benchmark: Benchmark | None, known: RunConfig | None) -> int:
    if benchmark:
        return benchmark.max_new_tokens
    return known.evaluation_tokens if known else MAX_NEW_TOKENS


def _step(step: str | None, run: RunDirectory | None) -> str:
    if step is None:
        return LAST
    if run is None:
        raise ConfigError(Refusal("--step", "a model has no checkpoints; leave it out, or name a run", step))
    if step not in (BEST, LAST) and not step.isdecimal():
        raise ConfigError(Refusal("--step", f"must be a step number, {BEST} or {LAST}", step))
    return step
