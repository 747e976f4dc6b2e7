"""The most memory that a process has held, phase by phase."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Names of glibc's mallopt."""
KEPT_AT_MOST = 32 << 20
"""Bytes: up to this size glibc by itself comes to keep what is freed, for the next that asks."""


class MemoryGoneError(RuntimeError):
    """Not even the smallest piece of a phase fits into memory. What was computed before that phase is whole."""


class TornStepError(RuntimeError):
    """Memory ran out while the optimiser changed the adapter: what is in memory now is nothing to go on from."""


class Peaks:
    """MiB held at the most in each phase: tensors' on a GPU, resident on the CPU.

    Resident memory is read from the kernel's high-water mark, which begins anew with each phase. Unlike getrusage's
    it does not hold what the parent had before this program took its place.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._phase = "loading"
        self._found: dict[str, float] = {}

    def enter(self, phase: str, _progress: float | None = None) -> None:
        """What is held from now on counts for ``phase``."""
        if phase != self._phase:
            self._close()
            self._phase = phase

    def read(self) -> dict[str, float]:
        """The peaks so far."""
        self._close()
        return dict(self._found)

    def _close(self) -> None:
        self._found[self._phase] = max(self._found.get(self._phase, 0.0), self._peak())
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            Path("/proc/self/clear_refs").write_text("5")

    def _peak(self) -> float:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 2**20
        return _status("VmHWM")


def give_back(device: torch.device) -> None:
    """Return what was freed to the device, where the allocator would keep it: what is taken next is then seen."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc's
        trim(0)


@contextmanager
def freed_at_once() -> Iterator[None]:
    """Inside, a tensor of more than a megabyte goes back to the system when it is freed.

    glibc would keep it, and loading a model, comparing its paths and weights made of 4 bits at each use leave holes of
    many sizes: a sixth of a small model's memory. Each new tensor costs its pages anew, which slows what makes many.
    """
    settle = getattr(ctypes.CDLL(None), "mallopt", None)
    if settle is None:
        yield
        return
    settle(MMAP_THRESHOLD, 1 << 20)
    try:
        yield
    finally:
        settle(MMAP_THRESHOLD, KEPT_AT_MOST)
        settle(TRIM_THRESHOLD, 2 * KEPT_AT_MOST)


def held_mb(device: torch.device) -> float:
    """MiB held now."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 2**20
    return _status("VmRSS")


def _status(name: str) -> float:
    match = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), flags=re.MULTILINE)
    assert match, f"the kernel does not tell {name}"
    return int(match[1]) / 1024
