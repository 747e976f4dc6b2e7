"""Run the measurements in rounds, each measurement in a process of its own."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from aapo_desk.bench.jobs import BenchError, Job, Measured
from aapo_desk.bench.peers import Peer, worth_another_round
from aapo_desk.config import ConfigError, Problem
from aapo_desk.launch.child import environment, python

Progress = Callable[[str], None]
Run = Callable[[Job], Measured]


def run_rounds(peers: Sequence[Peer], rounds: int, progress: Progress, run: Run) -> dict[str, list[Measured]]:
    """Measure the peers and return the results of each by its key, one for each round.

    If a TRL setting fails, which may be for lack of memory, ``progress`` reports it and the others are still measured.
    Raises BenchError if any other measurement fails.
    """
    found: dict[str, list[Measured]] = {}
    for number in range(rounds):
        for peer in peers:
            place = f"round {number + 1}/{rounds}: {peer.what}"
            try:
                measured = run(peer.job)
            except BenchError as error:
                if not peer.job.worker.startswith("trl"):
                    raise BenchError(f"{peer.what}: {error}") from error
                progress(f"{place}: left out: {error}")
                continue
            found.setdefault(peer.key, []).append(measured)
            seconds = ", ".join(f"{step['seconds']:.2f}" for step in measured.steps)
            progress(f"{place}: {seconds} s, {measured.peak_mb:.0f} MiB")
        if number == 0:
            peers = worth_another_round(peers, {key: results[0] for key, results in found.items()})
    return found


def run_job(job: Job) -> Measured:
    """Do a job in a process of its own, with a temporary home for the files of its run.

    Raises ConfigError for what the user can fix and BenchError if the measurement failed.
    """
    with tempfile.TemporaryDirectory(prefix="aapo-desk-bench-") as home, Path(home, "noise").open("w+") as noise:
        process = subprocess.Popen(
            python("aapo_desk.bench.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=noise,
            text=True,
            encoding="utf-8",
            env=environment() | {"AAPO_DESK_HOME": home, "TOKENIZERS_PARALLELISM": "false"},
        )
        with process:
            try:
                output, _ = process.communicate(json.dumps(job.as_json()))
            except BaseException:
                process.kill()
                raise
        noise.seek(0)
        return _verdict(output, process.returncode, noise.read())


def _verdict(output: str, status: int, noise: str) -> Measured:
    try:
        answer = json.loads(output)
    except ValueError:
        last = next((line for line in reversed(noise.splitlines()) if line.strip()), "")
        raise BenchError(f"the measurement process ended without a result (exit status {status}): {last}") from None
    if answer["ok"]:
        return Measured(answer["steps"], answer["peaks"], answer["about"])
    if problems := answer.get("problems"):
        raise ConfigError(*(Problem(**problem) for problem in problems))
    raise BenchError(answer["error"])
