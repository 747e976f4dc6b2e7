"""The backend that a run trains with, chosen and recorded when it begins. Imports nothing heavy except unsloth."""

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
HOW = "reference rows are sampled in a separate batch, and no dequantized weights are kept"


class StartOver(Exception):
    """The process must be restarted: unsloth does not work and has already patched the libraries in it."""


def settled(config: RunConfig, store: RunWriter) -> Backend:
    """Return the run's backend, and import unsloth if that is it.

    If unsloth cannot be used, report and record that, and return transformers. Raises StartOver if unsloth has already
    patched libraries in this process.
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
        _say(store, f"unsloth {version} loads and runs the model; {HOW}")
    elif kept["version"] != version:
        _say(store, f"the run began with unsloth {kept['version']} and continues with {version}")
    store.remember(RECORD, {"name": "unsloth", "version": version})
    return "unsloth"


def give_up(store: RunWriter, error: UnslothError) -> None:
    """Report why unsloth is not used, and record transformers as the run's backend, also for when it is resumed."""
    _say(store, f"unsloth {error}: the run continues with transformers", logging.WARNING)
    store.remember(RECORD, {"name": "transformers", "why": str(error)})


def _say(store: RunWriter, message: str, level: int = logging.INFO) -> None:
    log.log(level, message)
    store.write_event("notice", store.last_step(), message=message)
