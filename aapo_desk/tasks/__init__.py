"""Tasks: problems with right answers, generated or read from a data set, as prompts for a model.

check(config)         refuse what can be refused without reading data
load(config, seed)    load the problems to train on and those to evaluate on
prompts, order        turn problems into tokens; choose the problems of a step
"""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from pathlib import Path

from aapo_desk.config import ConfigError, TaskConfig, user_path
from aapo_desk.config import Problem as Refusal
from aapo_desk.hub import Progress, silent
from aapo_desk.tasks import arithmetic, countdown, files, gym, hub, tables
from aapo_desk.tasks.generated import Generator
from aapo_desk.tasks.records import Problem, TaskData

__all__ = ["Problem", "TaskData", "check", "load", "local_path"]

GENERATED: dict[str, Generator] = {"arithmetic": arithmetic, "countdown": countdown}
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")


def local_path(config: TaskConfig) -> Path | None:
    """Return the file or folder that the source names, or None for a generated task or a data set on the hub."""
    kind, _, name = config.source.partition(":")
    path = user_path(name)
    if kind == "file" or (kind == "hub" and (path.is_dir() or name.startswith(("/", "./", "../", "~")))):
        return path
    return None


def check(config: TaskConfig) -> None:
    """Check the task without reading data. Raises ConfigError for options, a missing file or an unknown suffix."""
    if config.source in GENERATED:
        GENERATED[config.source].check(config)
        return
    if config.source.startswith(gym.PREFIX):
        gym.check(config)
        return
    path = local_path(config)
    if path is None:
        _check_hub_name(config)
    else:
        _check_path(config, path)
    _check_options(config, single_file=path is not None and path.is_file())


def load(config: TaskConfig, seed: int, progress: Progress = silent) -> TaskData:
    """Load the problems of a task. The same seed gives the same problems in every process.

    Raises ConfigError for everything that ``check`` refuses, and for a source that cannot be read, lacks the named
    columns, is empty or has too few problems for the held-out part. Raises HubError for a data set that cannot be
    fetched from the hub. ``progress`` is called with the progress of the download.
    """
    check(config)
    if config.source in GENERATED:
        return GENERATED[config.source].load(config, seed)
    if config.source.startswith(gym.PREFIX):
        return gym.load(config, seed)
    path = local_path(config)
    if path is None:
        splits, commit = hub.read_hub(config, config.source.removeprefix("hub:"), progress)
        return replace(tables.task_data(config, splits, seed), revision=commit)
    if path.is_dir():
        plain = None if config.options else files.split_files(path, SUFFIXES)
        splits = files.read_splits(config, plain) if plain else hub.read_folder(config, path)
    else:
        splits = files.read_splits(config, {"train": path})
    return tables.task_data(config, splits, seed)


def _check_path(config: TaskConfig, path: Path) -> None:
    if not path.exists():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, beside, n=1)
        nearest = f"{config.source.partition(':')[0]}:{path.parent / close[0]}" if close else None
        raise ConfigError(Refusal("task.source", "there is no such file or folder", config.source, nearest=nearest))
    if path.is_file() and path.suffix.lower() not in SUFFIXES:
        message = f"must be a {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file, or a folder with the hub's layout"
        raise ConfigError(Refusal("task.source", message, config.source))


def _check_hub_name(config: TaskConfig) -> None:
    name = config.source.removeprefix("hub:")
    if Path(name).is_file():
        raise ConfigError(
            Refusal("task.source", "is a local file, not a hub data set", config.source, nearest=f"file:{name}")
        )
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        message = "must be hub:OWNER/DATASET, as on huggingface.co, or a local folder"
        raise ConfigError(Refusal("task.source", message, config.source))


def _check_options(config: TaskConfig, single_file: bool) -> None:
    known = [] if single_file else ["config", "folder"]
    for name, value in config.options.items():
        path = f"task.options.{name}"
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            has = "has no options" if single_file else "has the options config and folder"
            nearest = f"task.options.{close[0]}" if close else None
            raise ConfigError(Refusal(path, f"there is no such option; {config.source} {has}", None, nearest=nearest))
        if not isinstance(value, str) or not value:
            what = "configurations" if name == "config" else "folders"
            raise ConfigError(Refusal(path, f"must be the name of one of the data set's {what}", value))
    if single_file and config.split not in (None, "train"):
        raise ConfigError(
            Refusal("task.split", "a single file has only the split train; remove this setting", config.split)
        )
