"""Start, fork, find, pause, resume, stop and end trainer processes.

A trainer is a separate process in its own session, so it outlives the program that started it. The lock that it holds
shows that it is alive; it reports everything else in the run directory.
"""

from aapo_desk.launch.errors import LaunchError
from aapo_desk.launch.forking import fork, forked_config, kept_checkpoint
from aapo_desk.launch.preflight import Preflight, check, preflight, show_data, with_absolute_paths
from aapo_desk.launch.starting import find_start
from aapo_desk.launch.trainer import (
    COMMANDS,
    LIVE,
    Command,
    is_alive,
    kill,
    reason,
    remove,
    request,
    resume,
    start,
    state,
)

__all__ = [
    "COMMANDS",
    "LIVE",
    "Command",
    "LaunchError",
    "Preflight",
    "check",
    "find_start",
    "fork",
    "forked_config",
    "is_alive",
    "kept_checkpoint",
    "kill",
    "preflight",
    "reason",
    "remove",
    "request",
    "resume",
    "show_data",
    "start",
    "state",
    "with_absolute_paths",
]
