"""What this machine has: snapshots of its GPUs (through NVML, where there is one) and of its CPU."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import psutil


@dataclass(frozen=True)
class Gpu:
    """One card at one moment. Memory in MiB, temperature in degrees Celsius, power in watts."""

    name: str
    memory_total: int
    memory_used: int
    utilisation: int | None
    temperature: int | None
    power: float | None
    compute_capability: tuple[int, int] | None


@dataclass(frozen=True)
class Machine:
    """The machine at one moment. Memory in MiB, the CPU's use in percent of all cores."""

    cores: int
    cpu_percent: float
    memory_total: int
    memory_available: int
    gpus: tuple[Gpu, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def _optional(read: Any, *arguments: Any) -> Any:
    """A reading that some cards do not offer."""
    import pynvml

    try:
        return read(*arguments)
    except pynvml.NVMLError:
        return None


def gpus() -> tuple[Gpu, ...]:
    """The NVIDIA cards that the driver shows; none where there is no driver."""
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


def machine() -> Machine:
    """A snapshot of everything."""
    memory = psutil.virtual_memory()
    return Machine(
        cores=psutil.cpu_count() or 1,
        cpu_percent=psutil.cpu_percent(),
        memory_total=memory.total >> 20,
        memory_available=memory.available >> 20,
        gpus=gpus(),
    )
