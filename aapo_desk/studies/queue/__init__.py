"""Runs that wait for each other: one after another, each in a trainer process of its own.

An entry is a file, so the queue outlives whoever filled it, the screen and the machine's restart. A supervisor works it
off: it starts each run, follows it to its end, and takes up again what was cut off.
"""

from aapo_desk.studies.queue.entries import (
    ENDED,
    WAITING,
    Entry,
    add,
    entries,
    find_entry,
    remove,
    unreadable,
)
from aapo_desk.studies.queue.process import ask_to_stop, is_worked_off, log_file, start_supervisor
from aapo_desk.studies.queue.supervisor import NeverStop, Stop, work_off

__all__ = [
    "ENDED",
    "WAITING",
    "Entry",
    "NeverStop",
    "Stop",
    "add",
    "ask_to_stop",
    "entries",
    "find_entry",
    "is_worked_off",
    "log_file",
    "remove",
    "start_supervisor",
    "unreadable",
    "work_off",
]
