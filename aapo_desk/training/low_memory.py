"""System memory near its end: the run saves and stops while it still can, before the kernel kills something."""

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
"""The reserve: this share of all memory within these bounds, in bytes. A checkpoint takes less."""
LOOK_SECONDS = 1.0
"""How often memory is looked at."""
LOOKS, BETWEEN_SECONDS = 4, 0.25
"""A shortage is one that so many looks in a row find, once all that was free has been given back: caches of files that
were just written, or another program's start, may be over in an instant."""


class MemoryShort(StopRequested):
    """System memory is nearly used up. The step in flight is given up, as when somebody asks the run to stop."""


class LowMemory:
    """Looks at system memory now and then."""

    def __init__(self, store: RunWriter, device: torch.device) -> None:
        self._store = store
        self._device = device
        self._next = 0.0

    def check(self, step: int) -> None:
        """Raise MemoryShort, its event written, where memory is short and stays so. ``step``: the last finished."""
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
    """The bytes that are to stay free of so many."""
    return max(LEAST, min(MOST, int(SHARE * total)))
