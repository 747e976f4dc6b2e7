"""Which backend a run trains with: chosen at its start, then kept on its record. Imports nothing heavy but unsloth."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aapo_desk.config import RunConfig
from aapo_desk.models import unsloth
from aapo_desk.models.unsloth import UnslothError
from aapo_desk.store import RunWriter

if TYPE_CHECKING:
    from aapo_desk.models.policy import Backend

log = logging.getLogger(__name__)

RECORD = "backend"
HOW = "reference rows are sampled in a batch of their own, and there are no shadow weights"


class StartOver(Exception):
    """The process is to begin again: unsloth, which does not work, has changed the libraries in it."""


def settled(config: RunConfig, store: RunWriter) -> Backend:
    """The run's backend; unsloth is imported by now. Where it cannot be had, that is said and put on record.

    Raises StartOver where it has left traces in this process.
    """
    kept = store.recall(RECORD) or {}
    if kept.get("name", config.model.backend) != "unsloth":
        return "transformers"
    try:
        version = unsloth.bring_in(config.model.device)
    except UnslothError as error:
        give_up(store, error)
        if error.imported:
            raise StartOver from error
        return "transformers"
    if not kept:
        _say(store, f"unsloth {version} loads and computes the model; {HOW}")
    elif kept["version"] != version:
        _say(store, f"the run began with unsloth {kept['version']} and goes on with {version}")
    store.remember(RECORD, {"name": "unsloth", "version": version})
    return "unsloth"


def give_up(store: RunWriter, error: UnslothError) -> None:
    """Say why it is not unsloth, and put transformers on record, for now and whenever the run is resumed."""
    _say(store, f"unsloth {error}: the run goes on with transformers", logging.WARNING)
    store.remember(RECORD, {"name": "transformers", "why": str(error)})


def _say(store: RunWriter, message: str, level: int = logging.INFO) -> None:
    log.log(level, message)
    store.write_event("notice", store.last_step(), message=message)
