"""Importing peft and bitsandbytes without the compiler, which takes a fifth of what a trainer needs to start."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, cast

import torch


def import_peft() -> None:
    """Import both, if that has not been done.

    bitsandbytes decorates, as it is imported, what it does on devices without kernels of its own with
    ``torch.compile``, and each use of that imports torch's compiler: a second. AAPO Desk runs where it has kernels.
    The functions stay what they are, and ``torch.compile`` is there again afterwards.
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
