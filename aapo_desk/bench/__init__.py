"""Measurements for users: our steps by phase, our paths beside the plain ones, our steps beside TRL's, the terminal UI.

peers     what is measured, each a job with the settings that make it what it is
rounds    the jobs, each in a process of its own, in turn
worker    such a process; steps, generate, updates, arithmetic and trl_steps do the jobs
report    rows and ratios
ui        the terminal UI over the runs of long_run, in a terminal; ui_training: beside a training, watched
"""

from __future__ import annotations

from typing import Any

from aapo_desk.bench.jobs import BenchError
from aapo_desk.bench.peers import peers
from aapo_desk.bench.report import report
from aapo_desk.bench.rounds import Progress, run_job, run_rounds
from aapo_desk.config import RunConfig

__all__ = ["BenchError", "bench"]


def bench(config: RunConfig, against: str | None, rounds: int, progress: Progress) -> dict[str, Any]:
    """Measure a configuration on this device, beside TRL where ``against`` is "trl".

    Gives the JSON document: device, versions, shape, rows, ratios. ``progress`` hears a line a measurement.
    Raises ConfigError for what the user can mend, BenchError for what failed.
    """
    planned = peers(config, against)
    return report(planned, run_rounds(planned, rounds, progress, run_job))
