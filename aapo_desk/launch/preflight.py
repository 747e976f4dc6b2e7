"""Checks before a run is created: cheap ones in this process, then a subprocess that loads the tokenizer."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from aapo_desk.config import ConfigError, Problem, RunConfig, user_path
from aapo_desk.launch.child import environment, python
from aapo_desk.launch.errors import LaunchError


@dataclass(frozen=True)
class Preflight:
    """The result of the preflight.

    It holds the numbers of problems, the longest prompt in tokens, the model, the hub commits of model (``revision``)
    and data set (``task_revision``), and the first prompts as text with their lengths in tokens.
    """

    train: int
    held_out: int
    dropped: int
    dropped_held_out: int
    longest_prompt: int
    model: str
    revision: str | None
    task_revision: str | None
    prompts: list[str]
    prompt_tokens: list[int]
    answers: list[str]
    """The answers to the first prompts."""
    notes: list[str]
    """The decisions made for the user while reading the data, one sentence each."""

    def pin(self, config: RunConfig) -> RunConfig:
        """Return the configuration with the checked commits filled in.

        The run, and every run continued from it, then use the same files even if the hub's branches change.
        """
        model, task = config.model, config.task
        if self.revision:
            model = model.model_copy(update={"revision": self.revision})
        if self.task_revision:
            task = task.model_copy(update={"revision": self.task_revision})
        return config.model_copy(update={"model": model, "task": task})


def check(config: RunConfig) -> None:
    """Run the checks that need neither model nor tokenizer. Raises ConfigError with all problems found."""
    from aapo_desk import rewards, tasks  # Imported here because listing runs needs none of them.
    from aapo_desk.tasks import solutions

    problems: list[Problem] = []
    checks: tuple[Callable[[], None], ...] = (
        lambda: _check_device(config),
        lambda: tasks.check(config.task),
        lambda: rewards.check(config.rewards),
        lambda: _check_recipes(config),
        lambda: _check_labels(config),
        lambda: solutions.check(config.warm_start),
    )
    for look in checks:
        try:
            look()
        except ConfigError as error:
            problems.extend(error.problems)
    if problems:
        raise ConfigError(*problems)


def _check_recipes(config: RunConfig) -> None:
    """Refuse the reward ``reasoning_gym``, which asks a problem's generator, for problems that have no generator."""
    if config.task.source.startswith("reasoning-gym:"):
        return
    for index, reward in enumerate(config.rewards):
        if reward.name == "reasoning_gym":
            message = "can only score problems from task.source=reasoning-gym:NAME"
            raise ConfigError(Problem(f"rewards.{index}.name", message, reward.name))


def _check_labels(config: RunConfig) -> None:
    """Refuse rewards other than 0 and 1 for algorithms that learn only from right and wrong."""
    from aapo_desk.rewards import not_labels

    if config.algorithm.method.labels and (found := not_labels(config.rewards)):
        path, why, given = found
        needed = f"algorithm.name={config.algorithm.name} needs rewards that are exactly 0 or 1: {why}"
        raise ConfigError(Problem(path, needed, given))


def _check_device(config: RunConfig) -> None:
    if config.model.device != "cuda":
        return
    from aapo_desk.hardware import gpus  # Imported here to keep the start of the screen fast.

    if not gpus():
        message = (
            "no NVIDIA GPU was found on this machine; use the CPU with --set model.device=cpu, or try: aapo-desk demo"
        )
        raise ConfigError(Problem("model.device", message, "cuda"))


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """Return the configuration with absolute paths, so that it works from any working directory."""
    from aapo_desk import tasks

    task, model = config.task, config.model
    if path := tasks.local_path(task):
        kind = task.source.partition(":")[0]
        task = task.model_copy(update={"source": f"{kind}:{_absolute(path)}"})
    # The same rule as in the models package, which must not be imported here: an id is a folder if it looks like a
    # path, or if such a folder exists.
    if model.id.startswith(("/", "./", "../", "~")) or Path(model.id).is_dir():
        model = model.model_copy(update={"id": _absolute(model.id)})
    functions = []
    for reward in config.rewards:
        file, colon, function = reward.name.rpartition(":")
        if colon and file.endswith(".py"):
            reward = reward.model_copy(update={"name": f"{_absolute(file)}:{function}"})
        functions.append(reward)
    return config.model_copy(update={"task": task, "model": model, "rewards": functions})


def _absolute(path: str | Path) -> str:
    return str(user_path(path).absolute())


def preflight(
    config: RunConfig,
    progress: Callable[[str], None] = lambda _: None,
    cancelled: threading.Event | None = None,
    command: Sequence[str] = (),
) -> Preflight:
    """Check the data with the model's tokenizer, in a process of its own.

    Args:
        config: The configuration to check.
        progress: Called in this thread with each progress line of the process.
        cancelled: Setting it ends the process within a fraction of a second.
        command: The process to run; by default this package's own.

    Raises ConfigError for what the user can fix in the configuration, LaunchError for everything else.
    """
    answer = _ask(list(command) or [*python("aapo_desk.preview"), "preflight"], config, progress, cancelled)
    return Preflight(**{key: answer[key] for key in Preflight.__dataclass_fields__})


def show_data(config: RunConfig, progress: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Return how the data are interpreted, as JSON, by running ``aapo_desk.preview.show_data`` in a process of its own.

    Raises ConfigError and LaunchError as ``preflight`` does.
    """
    answer = _ask([*python("aapo_desk.preview"), "data"], config, progress, None)
    return {key: value for key, value in answer.items() if key != "ok"}


def _ask(
    command: list[str], config: RunConfig, progress: Callable[[str], None], cancelled: threading.Event | None
) -> dict[str, Any]:
    """Run the process on a configuration and return its answer. Raises ConfigError and LaunchError."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=environment(),
        # A session of its own, so that Ctrl-C reaches only this process, and its children (a download) end with it.
        start_new_session=True,
    )
    with process:  # closes the pipes and waits
        output, noise = _listen(process, config, progress, cancelled or threading.Event())
    return _verdict(_json_object(output), process.returncode, noise)


def _listen(
    process: subprocess.Popen[str],
    config: RunConfig,
    progress: Callable[[str], None],
    cancelled: threading.Event,
) -> tuple[str, list[str]]:
    """Return the process's standard output, and its standard error without progress lines, once both are closed."""
    assert process.stdin
    assert process.stdout
    assert process.stderr
    lines: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()
    readers = [
        threading.Thread(target=_read, args=(name, stream, lines), daemon=True)
        for name, stream in (("out", process.stdout), ("err", process.stderr))
    ]
    for reader in readers:
        reader.start()
    try:
        with contextlib.suppress(BrokenPipeError):  # It died before reading; its standard error tells why.
            process.stdin.write(config.model_dump_json())
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        return _sort_lines(lines, progress, cancelled)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # This also ends its children.
        raise
    finally:
        for reader in readers:
            reader.join()


def _sort_lines(
    lines: queue.SimpleQueue[tuple[str, str | None]], progress: Callable[[str], None], cancelled: threading.Event
) -> tuple[str, list[str]]:
    output: list[str] = []
    noise: list[str] = []
    still_open = 2
    while still_open:
        if cancelled.is_set():
            raise LaunchError("cancelled; nothing was started")
        try:
            name, line = lines.get(timeout=0.1)
        except queue.Empty:
            continue
        if line is None:
            still_open -= 1
        elif name == "out":
            output.append(line)
        elif (message := _progress_in(line)) is not None:
            progress(message)
        elif line.strip():
            noise.append(line.strip())
    return "".join(output), noise


def _read(name: str, stream: IO[str], lines: queue.SimpleQueue[tuple[str, str | None]]) -> None:
    for line in stream:
        lines.put((name, line))
    lines.put((name, None))


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _progress_in(line: str) -> str | None:
    """Return the progress message in a line of the process's standard error; None for a library's own output."""
    message = (_json_object(line) or {}).get("progress")
    return None if message is None else str(message)


def _verdict(answer: dict[str, Any] | None, status: int, noise: Sequence[str]) -> dict[str, Any]:
    if answer is None:
        last = f": {noise[-1]}" if noise else ""
        raise LaunchError(f"the preflight ended without an answer (exit status {status}){last}")
    if answer.get("ok"):
        return answer
    if problems := answer.get("problems"):
        raise ConfigError(*(Problem(**problem) for problem in problems))
    raise LaunchError(str(answer.get("error") or f"the preflight failed (exit status {status})"))
