"""Read the splits of a data set on the hub, or of a folder with the hub's layout, through ``datasets``.

``datasets`` only reads a local folder here and makes no connection. It decides which files of a data set belong to a
configuration: it gets a folder with empty files of all their names, and only the files that it selects are fetched.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aapo_desk import hub
from aapo_desk.config import ConfigError, TaskConfig
from aapo_desk.config import Problem as Refusal
from aapo_desk.tasks.columns import needed
from aapo_desk.tasks.tables import Table, evaluation_splits, training_split

CARDS = ("README.md", ".huggingface.yaml", "dataset_infos.json")
"""The files in which a data set declares its configurations and splits."""


def read_hub(config: TaskConfig, name: str, progress: hub.Progress = hub.silent) -> tuple[dict[str, Table], str]:
    """Read the split to train on and those to evaluate on of the hub's data set ``name``, and return their commit too.

    Raises ConfigError if there is no such data set, revision, configuration or split, and HubError if it cannot be
    fetched: no connection, no access, no disk space.
    """
    repo = hub.Repo("dataset", name)
    try:
        listing = hub.look_up(repo, config.revision, progress)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            folder = Path(scratch) / name.rpartition("/")[2]
            _show_names(folder, listing.sizes)
            _link(folder, hub.fetch(repo, listing, [card for card in CARDS if card in listing.sizes], progress), CARDS)
            needed = _data_files(config, folder)
            _link(folder, hub.fetch(repo, listing, needed, progress), needed)
            progress(f"reading the {repo}")
            return read_folder(config, folder), listing.commit
    except hub.HubError as error:
        if error.wrong == "id":
            raise ConfigError(Refusal("task.source", str(error), config.source)) from error
        if error.wrong == "revision":
            raise ConfigError(Refusal("task.revision", str(error), config.revision)) from error
        raise


def _show_names(folder: Path, names: Iterable[str]) -> None:
    """Create empty files with these names."""
    folder.mkdir()
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _link(folder: Path, snapshot: Path, names: Iterable[str]) -> None:
    """Replace the empty files by links to the cached files."""
    for name in names:
        if (snapshot / name).is_file():
            (folder / name).unlink()
            (folder / name).symlink_to((snapshot / name).absolute())


def _data_files(config: TaskConfig, folder: Path) -> list[str]:
    """Return the files of the requested configuration, by their names in the folder."""
    with _quiet(), _refusing(config, folder), tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        import datasets

        builder = datasets.load_dataset_builder(
            str(folder), config.options.get("config"), data_dir=config.options.get("folder"), cache_dir=cache
        )
        paths = [path for split in (builder.config.data_files or {}).values() for path in split]
    return [Path(path).relative_to(folder.resolve()).as_posix() for path in paths]


def read_folder(config: TaskConfig, folder: Path) -> dict[str, Table]:
    """Read the split to train on and those to evaluate on of a folder with the hub's layout.

    The cache of ``datasets`` goes to a temporary folder, because it would only hold copies of local files, which may be
    out of date. Raises ConfigError if there is no such configuration or split, or if the data cannot be read.
    """
    with _quiet(), _refusing(config, folder), tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        import datasets

        part = config.options.get("folder")
        return _tables(
            config, datasets.load_dataset(str(folder), config.options.get("config"), data_dir=part, cache_dir=cache)
        )


def _tables(config: TaskConfig, loaded: Any) -> dict[str, Table]:
    """Return the splits and columns that the task needs. All rows are in memory, and no file stays open."""
    names = [str(name) for name in loaded]
    train = training_split(config, names)
    tables = {}
    for name in (train, *evaluation_splits(train, names)):
        columns = list(loaded[name].column_names)
        wanted = needed(config, columns)
        tables[name] = Table(columns, loaded[name].select_columns(wanted).to_list() if wanted else [])
    return tables


@contextmanager
def _quiet() -> Iterator[None]:
    """Turn off the progress bars and the log of ``datasets``. Errors are raised and reported in one line instead."""
    import datasets

    level = datasets.logging.get_verbosity()
    drawn = datasets.is_progress_bar_enabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if drawn:
            datasets.enable_progress_bars()


@contextmanager
def _refusing(config: TaskConfig, folder: Path) -> Iterator[None]:
    """Turn the errors of ``datasets`` while it loads a folder into a ConfigError of one line that says what to do."""
    from datasets.exceptions import DatasetsError

    try:
        yield
    except ConfigError:
        raise
    except zipfile.BadZipFile as error:
        message = "its files are in archives, which cannot be read; unpack them and name the folder: file:PATH"
        raise ConfigError(Refusal("task.source", message, config.source)) from error
    except (OSError, ValueError, RuntimeError, StopIteration, DatasetsError) as error:
        raise _refusal(config, folder, error) from error


def _refusal(config: TaskConfig, folder: Path, error: Exception) -> ConfigError:
    text = " ".join(str(error.__cause__ or error).split()).replace(str(folder.resolve()), config.source)
    chosen = config.options.get("config")
    if "Config name is missing" in text or ("BuilderConfig" in text and "not found" in text):
        names = text[text.find("[") + 1 : text.find("]")].replace("'", "") if "[" in text else "unknown"
        reason = "has several configurations; choose one of" if chosen is None else "has no such configuration; it has"
        return ConfigError(Refusal("task.options.config", f"{config.source} {reason}: {names}", chosen))
    if "doesn't contain any data files" in text:
        message = "has no data file; JSONL, JSON, CSV and Parquet can be read"
        return ConfigError(Refusal("task.source", message, config.source))
    reason = text[:300] or "it has no data"
    return ConfigError(Refusal("task.source", f"cannot be read: {reason}", config.source))
