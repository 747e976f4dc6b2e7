"""Running a study: adding its runs to the queue and training them one after another, continuing where it stopped."""

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
    """One of a study's runs: the state of its queue entry, the reason of a failure, and the run once it exists."""

    state: str
    reason: str
    run: RunDirectory | None


def members(study: Study) -> dict[str, Member]:
    """Return the study's existing members by run name.

    A run whose entry was removed from the queue is found by its name.
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
    """Train the remaining runs of a study, the first seed of every arm before the second.

    An interrupted run continues from its last checkpoint; a run missing from the queue is added again; a failed run
    is not repeated. Returns whether all runs of the study have finished. Raises LaunchError if another process is
    working on the study or the queue, or if the run that measures the budget has failed.
    """
    with only_one(study):
        study = read_study(study.path)  # Its amount may have been measured in the meantime.
        if study.budget.amount is None:
            put_in(study)
            queue.work_off(tell, study=study.id, stop=stop)
            if stop and stop.count:
                return False
            study = measured(study)
            tell(f"each run gets {study.budget.words}, as measured in the first run")
        put_in(study)
        done = queue.work_off(tell, study=study.id, stop=stop)
    return done and all(member.state == "finished" for member in members(study).values())


def put_in(study: Study) -> None:
    """Add a study's missing runs to the queue: all of them, or only the one that measures the budget.

    If the process is killed halfway, the next call adds the rest. Raises as ``queue.add``.
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
    """Set the budget to the seconds that the study's first run has taken, save the study and return it.

    Raises LaunchError if that run has not finished.
    """
    name = study.run_name(study.arms[0], study.seeds[0])
    member = members(study).get(name)
    if member is None or member.run is None or member.state != "finished":
        why = f": {member.reason}" if member and member.reason else ""
        state = member.state if member else "not in the queue"
        raise LaunchError(
            f"the run that measures the budget ({name}) is {state}{why}; fix it, or start another study with --amount"
        )
    return with_amount(study, round(read_track(member.run, DEFAULT_METRIC).seconds[-1], 3))


@contextmanager
def only_one(study: Study) -> Iterator[None]:
    """Hold the study's lock, which the kernel releases when this process ends for any reason. Raises LaunchError."""
    try:
        with hold(study.lock):
            yield
    except LockHeldError:
        raise LaunchError(f"study {study.name} is already running; see: aapo-desk study show {study.id}") from None


def is_at_work(study: Study) -> bool:
    """Return whether a process is working on the study."""
    return is_held(study.lock)


def start_in_background(study: Study) -> None:
    """Run the study in a process with its own session, which outlives this one. Raises LaunchError if that fails."""
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
    # A thread waits for the process, which would otherwise stay a zombie after its end while this program runs.
    threading.Thread(target=process.wait, name=f"study {study.id}", daemon=True).start()
