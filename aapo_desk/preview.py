"""A process that previews a run's data as the model sees it, loading the tokenizer but never the weights.

    python -m aapo_desk.preview preflight < config.json    what a run would use; downloads the tokenizer
    python -m aapo_desk.preview data < config.json         how the data were read; downloads no model

Standard output has one JSON object: the result, ``{"ok": true, ...}``; configuration problems that the user must fix,
``{"ok": false, "problems": [...]}``, with exit status 2; or a failure, ``{"ok": false, "error": "..."}``, with exit
status 1. Standard error has one JSON object per line of progress, ``{"progress": "..."}``, and the libraries' output.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from aapo_desk import hub, tasks
from aapo_desk.config import ConfigError, Problem, RunConfig, resolve
from aapo_desk.fit import model_config
from aapo_desk.models import sources, unsloth
from aapo_desk.models.ids import NO_MODEL
from aapo_desk.models.precision import overflowing
from aapo_desk.tasks import prompts, solutions

SHOWN_PROMPTS = 3
Progress = Callable[[str], None]


def _without_share(progress: Progress) -> hub.Progress:
    """Return ``progress`` as a callback that ignores the share done (0 to 1), which the text says too."""

    def told(text: str, _share: float | None = None) -> None:
        progress(text)

    return told


def preflight(config: RunConfig, progress: Progress) -> dict[str, Any]:
    """Return what a run of ``config`` would use: problem counts, prompt lengths in tokens, the first prompts as text.

    The data are read first, so that a mistake there is reported before the model is downloaded. Raises ConfigError for
    what the user can fix in the configuration, and ModelError or HubError if the model or the data are unavailable.
    """
    told = _without_share(progress)
    sources.check_id(config.model)
    progress(f"reading {config.task.source}")
    data = tasks.load(config.task, config.run.seed, told)
    notes = [*data.notes, *_backend_notes(config)]
    for note in notes:
        progress(note)
    resolved = sources.resolve(config.model, told, weights=False)
    progress(f"loading the tokenizer of {resolved.name}")
    model = _model_config(resolved, config)
    _refuse_float16(model, config)
    tokenizer = sources.load_tokenizer(resolved, config.model.trust_remote_code)
    progress(f"measuring {len(data.train) + len(data.held_out)} prompts")
    options = config.model.chat_template_options
    train = prompts.fit(tokenizer, data.train, config.task, options)
    held_out = prompts.fit(tokenizer, data.held_out, config.task, options)
    for fit in (train, held_out):
        prompts.refuse_empty(config.task, fit)
    if worked := solutions.choose(tokenizer, train.problems, config):
        notes.append(worked.words())
        progress(notes[-1])
    longest = max(train.longest, held_out.longest)
    _refuse_if_beyond(_context_length(model, tokenizer), longest, config)
    return {
        "train": len(train.problems),
        "held_out": len(held_out.problems),
        "dropped": train.dropped,
        "dropped_held_out": held_out.dropped,
        "longest_prompt": longest,
        "model": resolved.name,
        "revision": resolved.revision,
        "task_revision": data.revision,
        "prompts": [str(tokenizer.decode(prompt)) for prompt in train.prompts[:SHOWN_PROMPTS]],
        "prompt_tokens": [len(prompt) for prompt in train.prompts[:SHOWN_PROMPTS]],
        "answers": [problem.answer for problem in train.problems[:SHOWN_PROMPTS]],
        "notes": notes,
    }


def _backend_notes(config: RunConfig) -> list[str]:
    """Return a note if unsloth is missing.

    It is not imported, as that takes as long as the whole preflight; the run finds out whether it works.
    """
    if config.model.backend != "unsloth" or unsloth.installed():
        return []
    return [f"unsloth is not installed ({unsloth.INSTALL}): the run will use transformers"]


def show_data(config: RunConfig, progress: Progress) -> dict[str, Any]:
    """Return how the data of ``config`` were read, and the first problems (as prompts if the tokenizer is local).

    No model is downloaded; the id ``NO_MODEL`` stands for none. Raises ConfigError if the data cannot be read.
    """
    progress(f"reading {config.task.source}")
    data = tasks.load(config.task, config.run.seed, _without_share(progress))
    found: dict[str, Any] = {
        "source": config.task.source,
        "reading": dataclasses.asdict(data.reading) if data.reading else None,
        "notes": data.notes,
        "train": len(data.train),
        "held_out": len(data.held_out),
    }
    tokenizer, why_not = _tokenizer_at_hand(config, progress)
    if tokenizer is None:
        shown = [_shown(problem, None, None) for problem in data.train[:SHOWN_PROMPTS]]
        return {**found, "prompts": None, "no_prompts": why_not, "problems": shown}
    progress(f"measuring {len(data.train) + len(data.held_out)} prompts")
    options = config.model.chat_template_options
    train, held_out = (prompts.fit(tokenizer, part, config.task, options) for part in (data.train, data.held_out))
    pairs = list(zip(train.problems, train.prompts, strict=True))[:SHOWN_PROMPTS]
    return {
        **found,
        "train": len(train.problems),
        "held_out": len(held_out.problems),
        "prompts": {
            "shortest": train.shortest,
            "longest": train.longest_of_all,
            "too_long": train.too_long + held_out.too_long,
            "too_short": train.too_short + held_out.too_short,
        },
        "no_prompts": None,
        "problems": [_shown(problem, str(tokenizer.decode(prompt)), len(prompt)) for problem, prompt in pairs],
    }


def _shown(problem: tasks.Problem, prompt: str | None, tokens: int | None) -> dict[str, Any]:
    return {
        "id": problem.id,
        "problem": problem.problem,
        "answer": problem.answer,
        "prompt": prompt,
        "prompt_tokens": tokens,
    }


def _tokenizer_at_hand(config: RunConfig, progress: Progress) -> tuple[Any, str | None]:
    """Return the model's tokenizer if it needs no download, else None and the reason."""
    if config.model.id == NO_MODEL:
        return None, "no model is given"
    if model_config(config.model) is None:
        return None, f"{config.model.id} is not on this machine yet"
    try:
        resolved = sources.resolve(config.model, lambda text, _share=None, /: progress(text), weights=False)
        return sources.load_tokenizer(resolved, config.model.trust_remote_code), None
    except sources.ModelError as error:
        return None, str(error)


def _refuse_if_beyond(context: int | None, longest: int, config: RunConfig) -> None:
    """Raise ConfigError if the longest prompt plus the longest completion exceed the model's context length."""
    asked = {"rollout.max_new_tokens": config.rollout.max_new_tokens}
    if config.evaluated_problems and config.evaluation.max_new_tokens:
        asked["evaluation.max_new_tokens"] = config.evaluation.max_new_tokens
    for path, tokens in asked.items():
        if context is not None and longest + tokens > context:
            message = (
                f"with the longest prompt ({longest} tokens) it exceeds the model's context of {context} tokens; "
                f"{context - longest} is the maximum"
                if longest < context
                else f"the longest prompt ({longest} tokens) fills the model's context of {context} tokens; "
                f"lower task.max_prompt_tokens to less than that"
            )
            raise ConfigError(Problem(path, message, tokens))


def _model_config(resolved: sources.ResolvedModel, config: RunConfig) -> Any:
    """Return the model's own configuration, or None if only its tokenizer is local so far. Raises ModelError."""
    if not Path(resolved.path, "config.json").is_file():
        return None
    return sources.load_config(resolved, config.model.trust_remote_code)


def _refuse_float16(model: Any, config: RunConfig) -> None:
    """Raise ConfigError if the run would use float16 and the model overflows in it, before downloading its weights."""
    if model is None or overflowing(model) is None or config.model.compute_dtype not in ("auto", "float16"):
        return
    from aapo_desk.models.loading import check_dtype, choose_device  # needs torch, to resolve auto

    check_dtype(config.model, model, choose_device(config.model.device))


def _context_length(model: Any, tokenizer: Any) -> int | None:
    """Return the model's context length in tokens, from its configuration or tokenizer, or None if it is unknown."""
    if model is not None:
        length = getattr(model.get_text_config(), "max_position_embeddings", None)
    else:
        length = getattr(tokenizer, "model_max_length", None)
    # A tokenizer that does not know its limit reports a number far above that of any model.
    return int(length) if length and length < 10**9 else None


def main(arguments: list[str]) -> int:
    """Run the process: read a configuration from standard input, write the answer to standard output."""
    work = {"preflight": preflight, "data": show_data}.get(" ".join(arguments))
    if work is None:
        sys.stderr.write("usage: python -m aapo_desk.preview preflight|data < config.json\n")
        return 2
    answers = own_standard_output()
    silence_libraries()
    try:
        found = work(_read_config(sys.stdin), _say)
    except ConfigError as error:
        problems = [dataclasses.asdict(problem) for problem in error.problems]
        return _answer(answers, {"ok": False, "problems": problems}, 2)
    except (sources.ModelError, hub.HubError) as error:
        return _answer(answers, {"ok": False, "error": str(error)}, 1)
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        _answer(answers, {"ok": False, "error": f"{type(error).__name__}: {first}"}, 1)
        raise  # the traceback goes to standard error, and the exit status is 1
    return _answer(answers, {"ok": True, **found}, 0)


def _read_config(stream: IO[str]) -> RunConfig:
    try:
        data = json.load(stream)
    except ValueError as error:
        raise ConfigError(Problem("configuration", f"is not JSON: {error}")) from error
    if not isinstance(data, dict):
        raise ConfigError(Problem("configuration", "must be a mapping with the sections model, task, rollout, ..."))
    return resolve(data)


def own_standard_output() -> IO[str]:
    """Return standard output, reserved for the answer: from now on, what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def silence_libraries() -> None:
    """Set the environment that silences libraries. Call it before importing them; values set by the user are kept."""
    for name, value in (
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        ("HF_HUB_VERBOSITY", "error"),
        ("TRANSFORMERS_VERBOSITY", "error"),
    ):
        os.environ.setdefault(name, value)
    warnings.simplefilter("ignore")


def _say(text: str) -> None:
    sys.stderr.write(json.dumps({"progress": text}) + "\n")
    sys.stderr.flush()


def _answer(answers: IO[str], answer: dict[str, Any], status: int) -> int:
    with answers:
        answers.write(json.dumps(answer, default=str) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
