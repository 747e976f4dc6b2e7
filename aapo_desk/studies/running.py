"""A study at work: its runs put in the queue and trained one after another; begun again, it goes on where it was."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aapo_desk import launch
from aapo_desk.launch import LaunchError
from aapo_desk.launch.child import environment, python
from aapo_desk.store import RunDirectory, list_runs, runs_folder
from aapo_desk.store.locks import LockHeldError, hold, is_held
from aapo_desk.studies import queue
from aapo_desk.studies.comparison import DEFAULT_METRIC
from aapo_desk.studies.study import Study, read_study, with_amount
from aapo_desk.studies.track import read_track

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Member:
    """One of a study's runs: the state of its entry in the queue, and the run once there is one.

    ``reason``: of a failure.
    """

    state: str
    reason: str
    run: RunDirectory | None


def members(study: Study) -> dict[str, Member]:
    """Those that there are, by their name.

    A run whose entry was taken off the queue is known by its name.
    """
    names = {study.run_name(arm, seed) for arm in study.arms for seed in study.seeds}
    found = {}
    for entry in queue.entries(study.id):
        run = RunDirectory(runs_folder() / entry.run) if entry.run else None
        if entry.name in names:
            found[entry.name] = Member(entry.state, entry.reason, run if run and run.config.is_file() else None)
    if len(found) < len(names):
        for run in list_runs():
            if (name := run.name) in names and name not in found:
                found[name] = Member(launch.state(run), launch.reason(run) or "", run)
    return found


def work(study: Study, tell: Tell, stop: queue.Stop | None = None) -> bool:
    """Train what is left of a study, the first seed of each arm before the second. Whether all of it finished.

    What was cut off goes on from its last checkpoint; what is not in the queue is put in again; what failed stays so.
    Raises LaunchError where somebody else works at the study or at the queue, or where the run that measures the budget
    has failed.
    """
    with only_one(study):
        study = read_study(study.path)  # its amount may have come meanwhile
        if study.budget.amount is None:
            put_in(study)
            queue.work_off(tell, study=study.id, stop=stop)
            if stop and stop.count:
                return False
            study = measured(study)
            tell(f"each run may take {study.budget.words}, as the first did")
        put_in(study)
        done = queue.work_off(tell, study=study.id, stop=stop)
    return done and all(member.state == "finished" for member in members(study).values())


def put_in(study: Study) -> None:
    """Put what is missing of a study's runs in the queue: all, or the one that measures its budget.

    One that was killed between two of them goes on here. Raises as ``queue.add``.
    """
    wanted = [(arm, seed) for seed in study.seeds for arm in study.arms]
    if study.budget.amount is None:
        wanted = wanted[:1]
    known = members(study)
    for arm, seed in wanted:
        name = study.run_name(arm, seed)
        if name not in known:
            queue.add(study.config(arm, seed), preset=study.preset, name=name, study=study.id)


def measured(study: Study) -> Study:
    """The study with the seconds that its first run has taken as everyone's budget, and written so.

    Raises LaunchError where that run has not finished.
    """
    name = study.run_name(study.arms[0], study.seeds[0])
    member = members(study).get(name)
    if member is None or member.run is None or member.state != "finished":
        why = f": {member.reason}" if member and member.reason else ""
        state = member.state if member else "not in the queue"
        raise LaunchError(
            f"the run that measures the budget ({name}) is {state}{why}; mend it, or start another study with --amount"
        )
    return with_amount(study, round(read_track(member.run, DEFAULT_METRIC).seconds[-1], 3))


@contextmanager
def only_one(study: Study) -> Iterator[None]:
    """Be the one that works at it; the kernel frees the lock when this process ends, however. Raises LaunchError."""
    try:
        with hold(study.lock):
            yield
    except LockHeldError:
        raise LaunchError(f"study {study.name} runs already; see: aapo-desk study show {study.id}") from None


def is_at_work(study: Study) -> bool:
    """Whether a process works at it."""
    return is_held(study.lock)


def start_in_background(study: Study) -> None:
    """Work at it in a session of its own, which outlives who called. Raises LaunchError where that cannot be."""
    try:
        study.log.touch(mode=0o600)
        with study.log.open("ab") as log:
            process = subprocess.Popen(
                [*python("aapo_desk"), "study", "run", study.id],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=study.path,
                env=environment(),
                start_new_session=True,
            )
    except OSError as error:
        raise LaunchError(f"the study cannot be started: {error.strerror or error}") from error
    # Somebody must take note of its end, or it stays behind as a zombie while this program goes on.
    threading.Thread(target=process.wait, name=f"study {study.id}", daemon=True).start()
