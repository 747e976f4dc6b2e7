"""The run directory, which holds a run's configuration, state and metrics.

``RunDirectory`` names the paths, the trainer writes through ``RunWriter``, and everything else reads through
``RunReader``. The database is SQLite with one transaction per step; readers open it read-only, ask for what is newer
than what they have, and close it at once.
"""

from aapo_desk.store.budget import SPENT_BY, Budget, budget_in, budget_of, planned_budget, progress, share_done
from aapo_desk.store.checkpoints import Checkpoint, CheckpointError, list_checkpoints
from aapo_desk.store.curves import CurveReader
from aapo_desk.store.directory import (
    RunDirectory,
    StoreError,
    check_name,
    create_run,
    find_run,
    flush,
    home,
    list_runs,
    newer,
    overwrite,
    pin_run,
    read_command,
    read_json,
    rename_run,
    runs_folder,
    write_atomically,
)
from aapo_desk.store.forking import copy_history
from aapo_desk.store.reader import Delta, RunReader
from aapo_desk.store.records import SCHEMA_VERSION, Event, Histogram, Sample, StepRecord
from aapo_desk.store.samples import Place, SampleReader, Span
from aapo_desk.store.trend import Trend
from aapo_desk.store.wording import TROUBLE, event_words, forked_words
from aapo_desk.store.writer import NETWORK_FILE_SYSTEMS, Keep, RunWriter, at_once, file_system

__all__ = [
    "NETWORK_FILE_SYSTEMS",
    "SCHEMA_VERSION",
    "SPENT_BY",
    "TROUBLE",
    "Budget",
    "Checkpoint",
    "CheckpointError",
    "CurveReader",
    "Delta",
    "Event",
    "Histogram",
    "Keep",
    "Place",
    "RunDirectory",
    "RunReader",
    "RunWriter",
    "Sample",
    "SampleReader",
    "Span",
    "StepRecord",
    "StoreError",
    "Trend",
    "at_once",
    "budget_in",
    "budget_of",
    "check_name",
    "copy_history",
    "create_run",
    "event_words",
    "file_system",
    "find_run",
    "flush",
    "forked_words",
    "home",
    "list_checkpoints",
    "list_runs",
    "newer",
    "overwrite",
    "pin_run",
    "planned_budget",
    "progress",
    "read_command",
    "read_json",
    "rename_run",
    "runs_folder",
    "share_done",
    "write_atomically",
]
