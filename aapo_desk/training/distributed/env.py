"""A process's rank among those that train a run together, from the launcher's environment variables.

``torchrun`` and ``accelerate launch`` set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; they may also be
set by hand. Imports nothing heavy.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from aapo_desk.config import RunConfig

AT_ONCE = "a launcher such as torchrun or accelerate launch sets it"
LOOPBACK = ("127.", "::1", "localhost")


class RankError(RuntimeError):
    """The processes of a run cannot train it together. ``str()`` is one line for the user."""


@dataclass(frozen=True)
class Place:
    """A process's rank, and how to reach the others. Rank 0 leads: only it writes and decides. A single process is
    rank 0 of 1."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """The rank among the processes on this host, and the index of the GPU that this process uses."""
    address: str = ""
    port: int = 0
    attempt: str = "0"
    """How often the launcher has restarted the processes."""
    hosted: bool = False
    """True if the launcher serves the rendezvous port; else rank 0 does."""
    one_host: bool = True

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Self:
        """Read the place from environment variables. Raises RankError if they are not what a launcher sets."""
        size = _number(variables, "WORLD_SIZE", 1) if "WORLD_SIZE" in variables else 1
        if size == 1:
            return cls()
        address = variables.get("MASTER_ADDR", "")
        if not address:
            raise RankError(f"WORLD_SIZE is {size}, but MASTER_ADDR is not set: {AT_ONCE}")
        rank = _number(variables, "RANK", 0)
        if rank >= size:
            raise RankError(f"RANK is {rank}, but WORLD_SIZE is {size}: ranks count from 0")
        return cls(
            rank,
            size,
            _number(variables, "LOCAL_RANK", 0) if "LOCAL_RANK" in variables else 0,
            address,
            _number(variables, "MASTER_PORT", 1),
            variables.get("TORCHELASTIC_RESTART_COUNT", "0"),
            variables.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
            address.startswith(LOOPBACK) or variables.get("LOCAL_WORLD_SIZE") == str(size),
        )

    @property
    def loopback(self) -> bool:
        """True if the rendezvous address is a loopback one, which no other host can reach."""
        return self.address.startswith(LOOPBACK)

    def __str__(self) -> str:
        return f"process {self.rank} of {self.size} on {socket.gethostname()}"


def check(config: RunConfig, size: int) -> None:
    """Raise RankError if ``size`` processes cannot train this configuration together."""
    prompts = config.rollout.prompts_per_step
    if prompts < size:
        raise RankError(
            f"rollout.prompts_per_step is {prompts}, but {size} processes were started: each needs at least one "
            f"prompt; start {prompts} or fewer"
        )
    if size > 1 and config.model.backend == "unsloth":
        raise RankError(
            f"model.backend is unsloth, which trains in one process, but {size} were started: start one, or create "
            "the run with model.backend=transformers"
        )


def _number(variables: Mapping[str, str], name: str, least: int) -> int:
    text = variables.get(name)
    if text is None:
        raise RankError(f"{name} is not set, but WORLD_SIZE is: {AT_ONCE}")
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise RankError(f"{name} is {text!r}, but must be a whole number of at least {least}: {AT_ONCE}")
    return int(text)
