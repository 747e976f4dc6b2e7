"""Deterministic algorithms on CUDA, for tests that compare two runs bit for bit.

By default CUDA adds with atomic operations in the backward passes of ``index_select`` and of memory-efficient
attention, in an order that differs from run to run. torch has deterministic kernels for the first, and its plain
attention is one. For ``cumsum``, which sampling uses, it has none: there it only warns, and two runs differ if a
uniform number falls within rounding of a token's boundary (about 1e-7), which these short runs do not meet.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

TRAINER = [
    sys.executable,
    "-c",
    "import sys, warnings\n"
    "from tests.determinism import set_deterministic\n"
    "from aapo_desk.training.__main__ import main\n"
    "warnings.filterwarnings('ignore', message='.*deterministic')\n"
    "set_deterministic(True)\n"
    "sys.exit(main(sys.argv[1:]))\n",
]
"""A trainer process that computes deterministically; the run's folder comes after it."""
WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
"""The environment variable that cuBLAS needs before its first product."""


def set_deterministic(wanted: bool) -> None:
    """Choose torch's deterministic kernels, or its default ones."""
    import torch

    torch.use_deterministic_algorithms(wanted, warn_only=True)
    torch.backends.cuda.enable_flash_sdp(not wanted)
    torch.backends.cuda.enable_mem_efficient_sdp(not wanted)
    torch.backends.cuda.enable_cudnn_sdp(not wanted)


@contextmanager
def deterministic() -> Iterator[None]:
    """Inside, this process computes deterministically."""
    set_deterministic(True)
    try:
        yield
    finally:
        set_deterministic(False)
