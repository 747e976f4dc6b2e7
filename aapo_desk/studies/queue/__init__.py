"""A queue of runs that are trained one after another, each in a trainer process of its own.

An entry is a file, so the queue survives the program that filled it, the screen, and a restart of the machine. A
supervisor process starts each run, follows it to its end, and resumes interrupted ones.
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
