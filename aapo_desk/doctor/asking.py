"""Run checks in a separate process, so that a library that fails, crashes or hangs does not affect this one."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from aapo_desk.launch.child import environment, python

START_SECONDS = 60.0
"""Time limit for the process to start."""


@dataclass(frozen=True)
class Answer:
    """The result of a job, or the error that prevented one."""

    found: dict[str, Any] | None = None
    error: str | None = None


def ask(jobs: Sequence[str], seconds: float, variables: Mapping[str, str] | None = None) -> dict[str, Answer]:
    """Run the jobs one after the other in a process and return the answer of each.

    If a job ends the process or takes longer than ``seconds``, its answer is an error, and the remaining jobs run in a
    new process. ``variables`` are added to the environment of the process.
    """
    answers: dict[str, Answer] = {}
    while left := [job for job in jobs if job not in answers]:
        answers |= _one_process(left, seconds, variables or {})
    return answers


def _one_process(jobs: Sequence[str], seconds: float, variables: Mapping[str, str]) -> dict[str, Answer]:
    """Run the jobs in one process and return the answers that it gave, at least one."""
    answers: dict[str, Answer] = {}
    at: str | None = None
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as noise:
        process = subprocess.Popen(
            [*python("aapo_desk.doctor.worker"), *jobs],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=noise,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=environment() | dict(variables),
            start_new_session=True,  # so that its children end with it
        )
        with process:
            late = False
            try:
                for said in _lines(process, seconds):
                    at = said["job"]
                    if "found" in said or "error" in said:
                        answers[at] = Answer(said.get("found"), said.get("error"))
                        at = None
            except TimeoutError:
                late = True
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        if late or len(answers) < len(jobs):
            why = f"gave no answer within {seconds:g} s" if late else _end(process.returncode, noise)
            # If the process died before its first job, a new process would fail in the same way.
            stuck = [at] if at else [] if answers else jobs
            answers |= {job: Answer(error=why) for job in stuck}
    return answers


def _lines(process: subprocess.Popen[str], seconds: float) -> Iterator[dict[str, Any]]:
    """Yield the messages of the process until it closes its output. Raises TimeoutError if none comes in time."""
    assert process.stdout
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    patience = START_SECONDS
    while True:
        try:
            line = lines.get(timeout=patience)
        except queue.Empty:
            raise TimeoutError from None
        if line is None:
            return
        patience = seconds
        yield json.loads(line)


def _read(stream: IO[str], lines: queue.SimpleQueue[str | None]) -> None:
    with contextlib.suppress(ValueError):  # the stream is closed after the process has been killed
        for line in stream:
            lines.put(line)
    lines.put(None)


def _end(status: int, noise: IO[str]) -> str:
    """Return how the process ended, if it ended before it answered."""
    noise.seek(0)
    said = [line.strip() for line in noise.read().splitlines() if line.strip()]
    if status < 0:
        return f"ended the process by {signal.Signals(-status).name}"
    return f"ended the process with status {status}" + (f": {said[-1]}" if said else "")
