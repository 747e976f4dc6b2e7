"""Splits of a data set on the hub, or of a folder in the hub's layout, through ``datasets``."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aapo_desk.config import ConfigError, TaskConfig
from aapo_desk.config import Problem as Refusal
from aapo_desk.tasks.columns import needed
from aapo_desk.tasks.tables import Table, evaluation_splits, training_split


def read_hub(config: TaskConfig, name: str) -> dict[str, Table]:
    """The split to train on and those to evaluate on of the hub's data set ``name``.

    Raises ConfigError where there is no such data set, configuration or split, where it cannot be reached and where
    it is not open to everyone.
    """
    with _quiet(), _refusing(config):
        import datasets

        return _tables(config, datasets.load_dataset(name, config.options.get("config")))


def read_folder(config: TaskConfig, folder: Path) -> dict[str, Table]:
    """As ``read_hub``, of a folder in the hub's layout.

    What ``datasets`` writes while it reads goes to a temporary folder: its cache would only hold copies of local
    files, and those of older states of them.
    """
    with _quiet(), _refusing(config), tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        import datasets

        return _tables(config, datasets.load_dataset(str(folder), config.options.get("config"), cache_dir=cache))


def _tables(config: TaskConfig, loaded: Any) -> dict[str, Table]:
    """The rows of the splits the task needs, of the columns it names; everything in memory, nothing kept open."""
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
    """``datasets`` draws no progress bars and logs nothing: what goes wrong is raised, and told in one line."""
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
def _refusing(config: TaskConfig) -> Iterator[None]:
    """What ``datasets`` raises while it loads, as a ConfigError of one line that says what to do."""
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    try:
        yield
    except ConfigError:
        raise
    except DatasetNotFoundError as error:
        if "gated" in str(error) or "ask for access" in str(error):
            message = (
                "is gated: accept its terms on its page at huggingface.co, then log in with `hf auth login` "
                "(or set HF_TOKEN)"
            )
        else:
            message = (
                "there is no such data set on the hub, or it is private; check the name, or log in with `hf auth login`"
            )
        raise ConfigError(Refusal("task.source", message, config.source)) from error
    except ConnectionError as error:
        message = "the hub cannot be reached; check the network, or name a local copy: file:PATH"
        raise ConfigError(Refusal("task.source", message, config.source)) from error
    except (OSError, ValueError, RuntimeError, StopIteration, DatasetsError) as error:
        raise _refusal(config, error) from error


def _refusal(config: TaskConfig, error: Exception) -> ConfigError:
    text = " ".join(str(error.__cause__ or error).split())
    chosen = config.options.get("config")
    if "Config name is missing" in text or ("BuilderConfig" in text and "not found" in text):
        names = text[text.find("[") + 1 : text.find("]")].replace("'", "") if "[" in text else "unknown"
        wanted = "needs one of its configurations" if chosen is None else "has no such configuration"
        return ConfigError(Refusal("task.options.config", f"{config.source} {wanted}: {names}", chosen))
    reason = text[:300] or "it holds no data"
    return ConfigError(Refusal("task.source", f"cannot be read: {reason}", config.source))
