from __future__ import annotations

import subprocess
import sys

HEAVY = {"torch", "transformers", "peft", "datasets", "sympy", "bitsandbytes", "numpy", "math_verify"}


def test_the_screen_is_there_without_the_heavy_parts() -> None:
    answer = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import aapo_desk.tui.app"],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in answer.stderr.splitlines()}
    assert "textual" in imported
    assert not imported & HEAVY
