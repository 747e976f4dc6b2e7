"""Low system memory: the run saves and stops while it still can, before the kernel kills a process."""

from __future__ import annotations

import gc
import logging
import time

import psutil
import torch

from aapo_desk.hardware import Spare, spare_memory
from aapo_desk.store import RunWriter, event_words
from aapo_desk.training.control import StopRequested
from aapo_desk.training.device.allocator import give_back

log = logging.getLogger(__name__)

LEAST, MOST, SHARE = 256 << 20, 1 << 30, 0.02
"""The reserve to keep free: ``SHARE`` of all memory, within these bounds in bytes. A checkpoint takes less."""
LOOK_SECONDS = 1.0
"""Seconds between two checks of system memory."""
LOOKS, BETWEEN_SECONDS = 4, 0.25
"""Memory counts as short if this many checks in a row find it so, after all freed memory has been given back: a
shortage caused by caches of files just written, or by another program's start, may pass at once."""


class MemoryShort(StopRequested):
    """System memory is nearly used up. The step in progress is dropped, as for any requested stop."""


class LowMemory:
    """Checks system memory at intervals and stops the run if it stays short."""

    def __init__(self, store: RunWriter, device: torch.device) -> None:
        self._store = store
        self._device = device
        self._next = 0.0

    def check(self, step: int) -> None:
        """Write an event and raise MemoryShort if memory is and stays short. ``step`` is the last finished step."""
        if time.monotonic() < self._next:
            return
        found = spare_memory(swapping=True)
        if found.available < reserve(found.total):
            gc.collect()
            give_back(self._device)
            for _ in range(LOOKS):
                time.sleep(BETWEEN_SECONDS)
                found = spare_memory(swapping=True)
                if found.available >= reserve(found.total):
                    break
            else:
                self._stop(step, found)
        self._next = time.monotonic() + LOOK_SECONDS

    def _stop(self, step: int, found: Spare) -> None:
        data = {
            "available_mb": found.available >> 20,
            "reserve_mb": reserve(found.total) >> 20,
            "total_mb": found.total >> 20,
            "own_mb": psutil.Process().memory_info().rss >> 20,
            "limit": found.limit,
        }
        words = event_words("memory_short", data)
        log.warning(words)
        self._store.write_event("memory_short", step, **data)
        raise MemoryShort(words)


def reserve(total: int) -> int:
    """Return how many of ``total`` bytes of memory must stay free."""
    return max(LEAST, min(MOST, int(SHARE * total)))
