"""The allocator, with memory as the system counts it."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import json
import torch
from aapo_desk.training.device.allocator import freed_at_once, held_mb

CPU = torch.device("cpu")

def left():
    before = held_mb(CPU)
    tensors = [torch.ones(1 << 19) for _ in range(200)]
    kept = tensors[::10]
    del tensors
    return held_mb(CPU) - before

with freed_at_once():
    inside = left()
print(json.dumps([inside, left()]))
"""


def test_what_is_freed_while_a_model_is_loaded_goes_back_at_once() -> None:
    """Free 400 MiB but for a tenth, interspersed with the rest, in a new process: else the holes left by other tests
    would be filled first."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=True)
    inside, afterwards = json.loads(done.stdout)
    assert 30 < inside < 100
    assert afterwards > 200
