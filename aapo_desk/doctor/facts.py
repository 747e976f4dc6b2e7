"""What the doctor knows of a machine. Nothing here looks at one: a test makes up machines that nobody has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from aapo_desk.hardware import Graphics

LIBRARIES = ("torch", "bitsandbytes", "transformers", "accelerate", "peft", "datasets", "textual")
"""What is looked at, by the names of their distributions. unsloth besides, where it is installed."""


@dataclass(frozen=True)
class System:
    """Memory in MiB."""

    os: str
    release: str
    python: str
    cores: int
    memory_total: int
    memory_available: int
    wsl: int = 0
    """1 or 2 inside Windows' subsystem for Linux."""
    vendors: tuple[str, ...] = ()
    """Of the graphics cards on the PCI bus, as the kernel sees them without any driver: nvidia, amd, intel."""
    visible_devices: str | None = None
    """CUDA_VISIBLE_DEVICES, where it is set."""


@dataclass(frozen=True)
class Library:
    """An installed library. ``error``: why it cannot be used, where it was tried and cannot."""

    version: str | None
    """None: not installed."""
    wanted: str = ""
    """What this package asks for, as ``>=5.17``."""
    fits: bool = True
    error: str | None = None


@dataclass(frozen=True)
class Torch:
    """What torch says of itself and of the GPU that it would use."""

    cuda: str | None
    """The CUDA that it is built for; None: built without."""
    devices: int = 0
    archs: tuple[str, ...] = ()
    """What it has code for, as sm_86."""
    name: str | None = None
    capability: tuple[int, int] | None = None
    error: str | None = None
    """Why the GPU cannot be used, or a small product on it failed."""


@dataclass(frozen=True)
class Hub:
    """``offline``: what forbids connections. ``token``: where there is one. The token itself is nowhere here."""

    endpoint: str
    offline: str | None = None
    status: int | None = None
    """HTTP status of the question who we are; None where nothing answered."""
    error: str | None = None
    token: str | None = None


@dataclass(frozen=True)
class Place:
    """A folder that is written to, now or once it exists. Free space in MiB."""

    path: str
    free: int | None
    writable: bool
    file_system: str | None = None
    network: bool = False


@dataclass(frozen=True)
class Terminal:
    """``size``: columns and lines; None where there is no terminal."""

    size: tuple[int, int] | None
    name: str = ""
    colours: int = 0
    no_colour: bool = False
    symbols: bool = True
    """Whether the locale has more than ASCII."""
    multiplexer: str | None = None
    clipboard: str | None = None
    """tmux's set-clipboard."""


@dataclass(frozen=True)
class Probe:
    """One tiny training step for real. ``paths``: of each fast path, None where it agreed with the plain one on this
    device, else how it differed; what does not exist on the device is missing."""

    device: str = ""
    dtype: str = ""
    quantization: str = ""
    seconds: float = 0.0
    grad_norm: float = 0.0
    update_norm: float = 0.0
    loss_scale: float | None = None
    paths: Mapping[str, str | None] = field(default_factory=dict)
    error: str | None = None
    """Why there was no step; the rest says nothing then."""


@dataclass(frozen=True)
class Facts:
    """Everything. ``torch`` is None where torch could not be asked (``libraries`` says why)."""

    system: System
    graphics: Graphics
    torch: Torch | None
    libraries: Mapping[str, Library]
    hub: Hub
    runs: Place
    models: Place
    terminal: Terminal
    probe: Probe | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def has_gpu(self) -> bool:
        """Whether there is an NVIDIA card, be it usable or not."""
        return bool(self.graphics.gpus) or "nvidia" in self.system.vendors

    @property
    def on_gpu(self) -> bool:
        """Whether torch can compute on it."""
        return self.torch is not None and self.torch.devices > 0 and self.torch.error is None
