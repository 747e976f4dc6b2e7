"""Snapshots of this machine: its GPUs (through NVML, if available), CPU and memory."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

ROOT = Path("/")
"""The folder that contains /proc and /sys."""

BFLOAT16_FROM = (8, 0)
"""The lowest compute capability that supports bfloat16 (Ampere)."""


@dataclass(frozen=True)
class Gpu:
    """A snapshot of one GPU. Memory in MiB, temperature in degrees Celsius, power in watts."""

    name: str
    memory_total: int
    memory_used: int
    utilisation: int | None
    temperature: int | None
    power: float | None
    compute_capability: tuple[int, int] | None


@dataclass(frozen=True)
class Machine:
    """A snapshot of the machine. Memory in MiB, as by ``spare_memory``; CPU usage in percent of all cores."""

    cores: int
    cpu_percent: float
    memory_total: int
    memory_available: int
    gpus: tuple[Gpu, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Holder:
    """A process that uses a GPU's memory, in MiB; None if the driver does not report how much (WSL, Windows)."""

    pid: int
    name: str
    memory: int | None


@dataclass(frozen=True)
class Graphics:
    """The facts that the NVIDIA driver reports. ``error`` is its own message if it cannot be used."""

    driver: str | None = None
    cuda: tuple[int, int] | None = None
    """The newest CUDA version that the driver supports."""
    gpus: tuple[Gpu, ...] = ()
    holders: tuple[tuple[Holder, ...], ...] = ()
    """The processes that use each GPU's memory, largest first."""
    error: str | None = None


def _optional(read: Any, *arguments: Any) -> Any:
    """Return an NVML reading; None if the GPU does not support it."""
    import pynvml

    try:
        return read(*arguments)
    except pynvml.NVMLError:
        return None


def gpus() -> tuple[Gpu, ...]:
    """Return the NVIDIA GPUs that the driver reports; empty if there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        return tuple(_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def graphics() -> Graphics:
    """Return the driver, its GPUs, and the processes that use their memory."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Graphics(error=str(error))
    try:
        version, cuda = str(pynvml.nvmlSystemGetDriverVersion()), _optional(pynvml.nvmlSystemGetCudaDriverVersion_v2)
        # 12040 is CUDA 12.4.
        known = Graphics(version, (cuda // 1000, cuda % 1000 // 10) if cuda else None)
        cards = range(pynvml.nvmlDeviceGetCount())
        seen = tuple(_gpu(pynvml, index) for index in cards)
        return replace(known, gpus=seen, holders=tuple(_holders(pynvml, index) for index in cards))
    except pynvml.NVMLError as error:
        return Graphics(error=str(error))
    finally:
        pynvml.nvmlShutdown()


def _holders(pynvml: Any, index: int) -> tuple[Holder, ...]:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    found: dict[int, Holder] = {}  # By process id, since a process that computes and draws is in both lists.
    for read in (pynvml.nvmlDeviceGetComputeRunningProcesses, pynvml.nvmlDeviceGetGraphicsRunningProcesses):
        for process in _optional(read, handle) or ():
            used = process.usedGpuMemory
            found[process.pid] = Holder(process.pid, _name(process.pid), None if used is None else used >> 20)
    return tuple(sorted(found.values(), key=lambda holder: -(holder.memory or 0)))


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:  # The process has just ended, or belongs to another container.
        return "?"


def _gpu(pynvml: Any, index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    rates = _optional(pynvml.nvmlDeviceGetUtilizationRates, handle)
    power = _optional(pynvml.nvmlDeviceGetPowerUsage, handle)
    return Gpu(
        name=str(pynvml.nvmlDeviceGetName(handle)),
        memory_total=memory.total >> 20,
        memory_used=memory.used >> 20,
        utilisation=rates.gpu if rates else None,
        temperature=_optional(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
        power=power / 1000 if power is not None else None,
        compute_capability=_optional(pynvml.nvmlDeviceGetCudaComputeCapability, handle),
    )


@dataclass(frozen=True)
class Spare:
    """Available and total system memory in bytes; ``limit`` names what limits it."""

    available: int
    total: int
    limit: str


def spare_memory(swapping: bool = False) -> Spare:
    """Return the available memory of the machine or, if less, of a control group that contains this process.

    ``swapping`` adds free swap, since nothing is killed before swap is full. Planning does not use it, as it is too
    slow.
    """
    memory = psutil.virtual_memory()
    swap = _swap_free(ROOT) if swapping else 0
    spares = [Spare(memory.available + swap, memory.total, "this machine"), *_control_groups(ROOT, swap)]
    return min(spares, key=lambda spare: spare.available)


def _swap_free(root: Path) -> int:
    try:
        found = re.search(r"^SwapFree:\s+(\d+) kB", (root / "proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) << 10 if found else 0


def _control_groups(root: Path, swap: int) -> Iterator[Spare]:
    """Yield the available memory of each control group (version 1 or 2) that limits this process."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for number, names, path in (line.split(":", 2) for line in lines):
        if number == "0" and not names:
            mount, files = root / "sys/fs/cgroup", ("memory.max", "memory.current")
        elif "memory" in names.split(","):
            mount, files = root / "sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        # In a container the path may be the one outside it, which is not visible; the mount is then the group itself.
        group = mount / path.strip("/")
        for folder in (group, *group.parents) if group.is_relative_to(mount) else ():
            if found := _group_spare(folder, files, swap):
                yield found
            if folder == mount:
                break


def _group_spare(folder: Path, files: tuple[str, str], swap: int) -> Spare | None:
    """Return a control group's available memory; None if it has no limit.

    Its cache of files on disk can be reclaimed at once, so it counts as available.
    """
    try:
        most, taken = (int((folder / name).read_text()) for name in files)
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # "max": no limit
        return None
    if most >= psutil.virtual_memory().total:  # Version 1 reports a huge number instead of "no limit".
        return None
    caches = sum(int(stat.get(name, 0)) for name in ("inactive_file", "active_file"))
    with contextlib.suppress(OSError, ValueError):  # Version 1 has no such file, and "max" means no limit.
        most_swap, swapped = (int((folder / f"memory.swap.{name}").read_text()) for name in ("max", "current"))
        swap = min(swap, most_swap - swapped)
    return Spare(max(0, most - taken + min(caches, taken) + swap), most, "its control group")


def machine() -> Machine:
    """Return a snapshot of the machine and its GPUs."""
    memory = spare_memory()
    return Machine(
        cores=psutil.cpu_count() or 1,
        cpu_percent=psutil.cpu_percent(),
        memory_total=memory.total >> 20,
        memory_available=memory.available >> 20,
        gpus=gpus(),
    )
