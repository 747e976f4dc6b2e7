"""Benchmarks for users: our steps by phase, our fast paths against the plain ones, our steps against TRL's, the UI.

peers        what is measured: jobs with their settings
rounds       runs the jobs in rounds, each in its own process
worker       the program of such a process; steps, generate, updates, arithmetic and trl_steps do the jobs
report       rows and ratios of the results
ui           measures the terminal UI in a pseudo-terminal over the runs that long_run writes
ui_training  measures whether the UI slows a training; watched is the UI that it opens
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
    """Measure a configuration on this device, and TRL as well if ``against`` is "trl".

    ``progress`` is called with a line of text for each measurement.

    Returns the JSON document: device, versions, shape, note, rows, ratios.
    Raises ConfigError for what the user can fix and BenchError for a measurement that failed.
    """
    planned = peers(config, against)
    return report(planned, run_rounds(planned, rounds, progress, run_job))
