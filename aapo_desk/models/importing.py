"""Import peft and bitsandbytes without torch's compiler, whose import takes a fifth of a trainer's start-up time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, cast

import torch


def import_peft() -> None:
    """Import peft and bitsandbytes, if bitsandbytes has not been imported yet.

    While it is imported, bitsandbytes decorates its fallback functions for devices without its own kernels with
    ``torch.compile``, which imports torch's compiler and takes a second. AAPO Desk only runs on devices that have
    kernels. So the functions are left undecorated, and ``torch.compile`` is restored afterwards.
    """
    if "bitsandbytes" in sys.modules:
        return
    compiling = torch.compile
    torch.compile = cast(Any, _undecorated)
    try:
        import bitsandbytes  # noqa: F401
        import peft  # noqa: F401
    finally:
        torch.compile = compiling


def _undecorated(function: Callable[..., Any] | None = None, **_: Any) -> Any:
    return function if function is not None else lambda decorated: decorated
