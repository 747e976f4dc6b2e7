"""The facts that the doctor knows about a machine. This module collects none, so that tests can invent machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from aapo_desk.hardware import Graphics

LIBRARIES = ("torch", "bitsandbytes", "transformers", "accelerate", "peft", "datasets", "textual")
"""The libraries that are checked, by distribution name. unsloth is checked too if it is installed."""


@dataclass(frozen=True)
class System:
    """The operating system and the hardware. Memory is in MiB."""

    os: str
    release: str
    python: str
    cores: int
    memory_total: int
    memory_available: int
    wsl: int = 0
    """The version (1 or 2) of the Windows Subsystem for Linux; 0 outside it."""
    vendors: tuple[str, ...] = ()
    """The vendors (nvidia, amd, intel) of the graphics cards on the PCI bus, which the kernel sees without a driver."""
    visible_devices: str | None = None
    """The value of CUDA_VISIBLE_DEVICES, if it is set."""


@dataclass(frozen=True)
class Library:
    """A library. ``error``: why it cannot be used, if it was tried and failed."""

    version: str | None
    """None if it is not installed."""
    wanted: str = ""
    """The version that this package requires, such as ``>=5.17``."""
    fits: bool = True
    error: str | None = None


@dataclass(frozen=True)
class Torch:
    """The facts that torch reports about its build and about the GPU that it would use."""

    cuda: str | None
    """The CUDA version that torch is built for; None if it is built without CUDA."""
    devices: int = 0
    archs: tuple[str, ...] = ()
    """The architectures that the build has code for, such as sm_86."""
    name: str | None = None
    capability: tuple[int, int] | None = None
    error: str | None = None
    """Why the GPU cannot be used, or why a small matrix product on it failed."""


@dataclass(frozen=True)
class Hub:
    """The state of the Hugging Face hub.

    ``offline``: the option or variable that forbids connections. ``token``: where the user's token was found. The token
    itself is never stored here.
    """

    endpoint: str
    offline: str | None = None
    status: int | None = None
    """HTTP status of the who-am-I request; None if there was no answer."""
    error: str | None = None
    token: str | None = None


@dataclass(frozen=True)
class Place:
    """A folder that the program writes to; it may not exist yet. Free space is in MiB."""

    path: str
    free: int | None
    writable: bool
    file_system: str | None = None
    network: bool = False


@dataclass(frozen=True)
class Terminal:
    """The terminal. ``size``: columns and lines; None if there is no terminal."""

    size: tuple[int, int] | None
    name: str = ""
    colours: int = 0
    no_colour: bool = False
    symbols: bool = True
    """True if the locale supports more than ASCII."""
    multiplexer: str | None = None
    clipboard: str | None = None
    """The value of tmux's set-clipboard option."""


@dataclass(frozen=True)
class Probe:
    """The result of one tiny, real training step.

    ``paths``: for each fast path, None if it agreed with the plain path on this device, else how it differed. Paths
    that do not exist on the device are absent.
    """

    device: str = ""
    dtype: str = ""
    quantization: str = ""
    seconds: float = 0.0
    grad_norm: float = 0.0
    update_norm: float = 0.0
    loss_scale: float | None = None
    paths: Mapping[str, str | None] = field(default_factory=dict)
    error: str | None = None
    """Why there was no step; the other fields are then meaningless."""


@dataclass(frozen=True)
class Facts:
    """All facts about a machine. ``torch`` is None if torch could not be checked (``libraries`` says why)."""

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
        """True if there is an NVIDIA card, usable or not."""
        return bool(self.graphics.gpus) or "nvidia" in self.system.vendors

    @property
    def on_gpu(self) -> bool:
        """True if torch can compute on the GPU."""
        return self.torch is not None and self.torch.devices > 0 and self.torch.error is None
