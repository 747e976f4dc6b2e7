"""A process's place among those that compute a run together, as its launcher says in the environment.

``torchrun`` and ``accelerate launch`` set these variables, and anybody may by hand: RANK, WORLD_SIZE, LOCAL_RANK,
MASTER_ADDR, MASTER_PORT. Imports nothing heavy.
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
    """The processes of a run cannot work together. ``str()`` is one line for the user."""


@dataclass(frozen=True)
class Place:
    """Rank 0 leads: it alone writes and decides. Alone, a process is rank 0 of 1."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Among the processes on this host; the number of the GPU that this one takes."""
    address: str = ""
    port: int = 0
    attempt: str = "0"
    """How often the launcher has started the processes anew."""
    hosted: bool = False
    """Whether the launcher serves the port at which the processes meet; else rank 0 does."""
    one_host: bool = True

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Self:
        """Raises RankError where they are not what a launcher sets."""
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
        """Whether the processes meet at an address that no other host reaches."""
        return self.address.startswith(LOOPBACK)

    def __str__(self) -> str:
        return f"process {self.rank} of {self.size} on {socket.gethostname()}"


def check(config: RunConfig, size: int) -> None:
    """Refuse what so many processes cannot compute together. Raises RankError."""
    prompts = config.rollout.prompts_per_step
    if prompts < size:
        raise RankError(
            f"rollout.prompts_per_step is {prompts}, and {size} processes were started: each needs a prompt of its "
            f"own; start {prompts} or fewer"
        )
    if size > 1 and config.model.backend == "unsloth":
        raise RankError(
            f"model.backend is unsloth, which trains in one process, and {size} were started: start one, or make the "
            "run with model.backend=transformers"
        )


def _number(variables: Mapping[str, str], name: str, least: int) -> int:
    text = variables.get(name)
    if text is None:
        raise RankError(f"{name} is not set beside WORLD_SIZE: {AT_ONCE}")
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise RankError(f"{name} is {text!r}, and must be a whole number from {least} on: {AT_ONCE}")
    return int(text)
