"""``python -m tests.soak``: a long run of the tiny model, the UI on it and in use.

Exit status 1 where something grows or locks.

Prints resident memory of trainer, reward workers and UI over the run, the slope over its second half with the noise
about it, and the database's bytes a step.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import psutil

from aapo_desk.bench.terminal import Terminal
from aapo_desk.config import resolve
from aapo_desk.launch import start, state
from aapo_desk.launch.child import python
from aapo_desk.store import RunDirectory, RunReader

SECONDS_A_KEY = 0.1
LEFT = "\x1b[D"
KEYS = ("]", LEFT, LEFT, "n", "m", "o", "m", "G")
"""Pressed over and over: the next chart, steps back, samples, one chart alone and back, the notes. So the screen draws
in minutes what it would in hours."""
MOST_GROWTH = 10.0
"""MiB a 1000 steps, over the second half of the run: more than what is kept of a step and the allocator's scatter."""
PARTS = 10
GRAIN = 0.13
"""MiB that glibc takes from the system at a time: less is no growth."""
BYTES_A_NUMBER = 8


@dataclass
class Looks:
    """The measurements of one process: at which step, and MiB."""

    steps: list[int] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)

    def line(self, name: str, kept: float = 0.0) -> tuple[str, bool]:
        """A row for people, and whether it grows no more than a little. ``kept``: bytes that it keeps of each step.

        Flat: the second half of the run adds no more than its noise. Of ten parts of it the medians are compared, since
        a trainer's memory falls at each checkpoint and comes back; noise is twice the standard error of their sum of
        growths, from how unlike these are.
        """
        half = len(self.steps) // 2
        steps, mib = self.steps[half:], self.mib[half:]
        span = (steps[-1] - steps[0]) * (PARTS - 1) / PARTS
        bounds = [place * len(mib) // PARTS for place in range(PARTS + 1)]
        levels = [statistics.median(mib[first:last]) for first, last in pairwise(bounds)]
        growths = [after - before for before, after in pairwise(levels)]
        growth, noise = sum(growths), 2 * statistics.stdev(growths) * math.sqrt(PARTS - 1)
        slope = 1000 * growth / span
        flat = growth - kept * span / 2**20 <= max(noise, GRAIN)
        bounded = slope <= MOST_GROWTH
        tenths = [self.mib[place * (len(self.mib) - 1) // 10] for place in range(11)]
        sys.stderr.write(f"{name}: {' '.join(f'{value:.1f}' for value in tenths)} MiB at each tenth of the looks\n")
        held = f"first {self.mib[0]:.1f}, half-way {mib[0]:.1f}, last {mib[-1]:.1f}, most {max(self.mib):.1f} MiB"
        slopes = f"{slope:+.2f} MiB a 1000 steps, noise {1000 * noise / span:.2f}"
        if kept:
            slopes += f", {1000 * kept / 2**20:.2f} of it the numbers that it shows"
        word = "GROWS" if not bounded else "flat" if flat else "slow"
        return f"{name:8} {held}; {slopes}: {word}", bounded


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        os.environ["AAPO_DESK_HOME"] = str(Path(folder, "home"))
        run = start(resolve(configuration(_model(Path(folder, "model")), options.steps, options.device)), "soak")
        with Terminal([*python("aapo_desk"), "watch", "soak"], Path(folder, "home")) as terminal:
            looks, sizes = watch(run, terminal)
        return report(run, looks, sizes)


def _model(folder: Path) -> Path:
    """In a process of its own, which takes torch's memory with it."""
    program = "import sys; from pathlib import Path; from tests.tiny_model import make; make(Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True)
    return folder


def configuration(model: Path, steps: int, device: str) -> dict[str, object]:
    return {
        "model": {"id": str(model), "device": device, "quantization": "none" if device == "cpu" else "nf4"},
        "lora": {"r": 4, "alpha": 8},
        "task": {"source": "arithmetic", "held_out": 8, "max_prompt_tokens": 200},
        "rewards": [{"name": "math"}, {"name": "format", "options": {"pattern": "[a-m]"}}],
        "rollout": {"prompts_per_step": 2, "group_size": 4, "max_new_tokens": 6},
        "run": {"steps": steps, "checkpoint_every": 50},
        "evaluation": {"problems": 8, "every": 200},
    }


def watch(run: RunDirectory, terminal: Terminal) -> tuple[dict[str, Looks], list[tuple[int, int]]]:
    """Look at the processes until the trainer has ended."""
    looks = {name: Looks() for name in ("trainer", "workers", "ui")}
    sizes: list[tuple[int, int]] = []
    processes = {"ui": psutil.Process(terminal.pid)}
    while state(run) in {"starting", "running"}:
        for key in KEYS * 2:
            terminal.press(key)
            terminal.pump(SECONDS_A_KEY)
        step = int(run.read_status().get("step", 0))
        if not step:
            continue
        try:
            processes.setdefault("trainer", psutil.Process(run.read_status()["pid"]))
            held = {name: process.memory_info().rss for name, process in processes.items()}
            held["workers"] = sum(child.memory_info().rss for child in processes["trainer"].children(recursive=True))
        except psutil.NoSuchProcess:
            break
        if not held["workers"]:  # on its way out
            break
        for name, value in held.items():
            looks[name].steps.append(step)
            looks[name].mib.append(value / 2**20)
        sizes.append((step, run.database.stat().st_size))
    return looks, sizes


def report(run: RunDirectory, looks: dict[str, Looks], sizes: list[tuple[int, int]]) -> int:
    said = run.read_status()
    metrics = RunReader(run).poll().metrics
    found = [looks[name].line(name) for name in ("trainer", "workers")]
    found.append(looks["ui"].line("ui", BYTES_A_NUMBER * (1 + len(metrics[-1][2]))))
    if run.read_config().model.device == "cuda":
        held = [(step, values["memory_mb"] or 0.0) for step, _, values in metrics]
        found.append(Looks([step for step, _ in held], [mib for _, mib in held]).line("gpu"))
    for line, _ in found:
        sys.stdout.write(line + "\n")
    half = sizes[len(sizes) // 2]
    early = (half[1] - sizes[0][1]) / max(1, half[0] - sizes[0][0])
    late = (sizes[-1][1] - half[1]) / max(1, sizes[-1][0] - half[0])
    log = run.log.read_text(encoding="utf-8")
    locked = log.lower().count("database is locked")
    sys.stdout.write(
        f"state {said['state']}, {len(metrics)} steps in run.db of {sizes[-1][1] / 2**20:.2f} MiB: {early:.0f} bytes a "
        f"step in the first half, {late:.0f} in the second; {locked} lock errors in the log\n"
    )
    alike = abs(early - late) <= 0.1 * early
    return 0 if said["state"] == "finished" and all(fine for _, fine in found) and alike and not locked else 1


if __name__ == "__main__":
    began = time.monotonic()
    status = main()
    sys.stdout.write(f"{time.monotonic() - began:.0f} s\n")
    sys.exit(status)
