"""The memory allocator: peak memory by phase, and returning freed memory to the device."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Parameters of glibc's mallopt (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD)."""
KEPT_AT_MOST = 32 << 20
"""Bytes: glibc's dynamic threshold grows up to this size; freed blocks below it are kept for the next allocation."""


class MemoryGoneError(RuntimeError):
    """Not even the smallest piece of a phase fits into memory. Everything computed before that phase is intact."""


class TornStepError(RuntimeError):
    """Memory ran out while the optimiser changed the adapter: the state in memory is unusable."""


class Peaks:
    """Peak memory of each phase, in MiB: of tensors on a GPU, resident on the CPU.

    Resident memory is read from the kernel's high-water mark, which is reset for each phase. Unlike getrusage's, it
    does not include what the process held before exec.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._phase = "loading"
        self._found: dict[str, float] = {}

    def enter(self, phase: str, _progress: float | None = None) -> None:
        """Count the memory held from now on for ``phase``."""
        if phase != self._phase:
            self._close()
            self._phase = phase

    def read(self) -> dict[str, float]:
        """Return the peaks so far, in MiB by phase."""
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
    """Return freed memory to the device, which the allocator would otherwise keep, so that other uses can have it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # only glibc has it
        trim(0)


@contextmanager
def freed_at_once() -> Iterator[None]:
    """Return every tensor of more than a megabyte to the system as soon as it is freed, inside the context.

    glibc would keep it, and loading a model, comparing its fast paths and dequantizing 4-bit weights at each use leave
    holes of many sizes: a sixth of a small model's memory. In return every new tensor needs fresh pages, which slows
    code that makes many of them.
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
    """Return the memory held now, in MiB: of tensors on a GPU, resident on the CPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 2**20
    return _status("VmRSS")


def _status(name: str) -> float:
    match = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), flags=re.MULTILINE)
    assert match, f"/proc/self/status has no {name}"
    return int(match[1]) / 1024
