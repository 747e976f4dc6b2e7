"""The background process, ``python -m aapo_desk.training RUN_DIR``.

Exit status 0: finished or stopped; 1: failed; 2: wrong arguments.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from aapo_desk.models.unsloth import UnslothError
from aapo_desk.store import RunDirectory, RunWriter, StoreError, at_once
from aapo_desk.store.full import trouble
from aapo_desk.training import backend as backends
from aapo_desk.training.backend import StartOver
from aapo_desk.training.control import AlreadyRunning, Control, StopRequested, locked
from aapo_desk.training.distributed.env import Place, RankError, check
from aapo_desk.training.pauses import NoRoom, Room

log = logging.getLogger("aapo_desk.training")

LEAD_SECONDS = 5.0
STOPPED = "stopped; resuming continues from here"
STOPPED_FULL = "stopped while the disk was full; resuming continues from the last checkpoint"


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not Path(arguments[0], "config.json").is_file():
        sys.stderr.write("usage: python -m aapo_desk.training RUN_DIR (a folder with a config.json)\n")
        return 2
    environment = dict(os.environ)
    run = RunDirectory(Path(arguments[0]).resolve())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s", stream=sys.stderr)
    logging.captureWarnings(True)
    # The libraries' notes to their own developers would only distract the reader of a run's log.
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    for name in ("httpx", "httpx2"):  # they log a line for every request
        logging.getLogger(name).setLevel(logging.WARNING)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    try:
        place = Place.of(os.environ)
        if place.rank:
            return take_part(run, place)
        with locked(run):
            return work(run, place)
    except (AlreadyRunning, RankError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"cannot train the run: {trouble(error, run.path) or error}\n")
        return 1
    except StartOver:
        sys.stderr.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def take_part(run: RunDirectory, place: Place) -> int:
    """Do this process's share of the run that rank 0 leads; only rank 0 writes. Raises RankError."""
    try:
        config = run.read_config()
        check(config, place.size)
    except (StoreError, RankError) as error:
        # A launcher ends all processes as soon as one ends, and rank 0 needs the time to record the reason.
        time.sleep(LEAD_SECONDS)
        sys.stderr.write(f"{place}: {error}\n")
        return 1
    from aapo_desk.training.distributed.worker import follow

    follow(run, config, place)
    return 0


def work(run: RunDirectory, place: Place) -> int:
    """Train under the lock and record the outcome in status.json and the events. Returns the exit status.

    Refuses a run that a newer version has written. Raises StartOver, with the run still in state "starting", if this
    process cannot continue but a new one can.
    """
    try:
        config = run.read_config()
    except StoreError as error:  # nothing in the run directory is changed
        sys.stderr.write(f"{error}\n")
        return 1
    with Control(run, config.run.steps) as control:
        control.take_signals()
        store: RunWriter | None = None
        room = Room(run, control)
        try:
            room.store = store = RunWriter(run, room.keep)
            control.say(step=store.last_step())
            _train(run, store, control, place)
        except StartOver:
            assert store is not None
            if control.stop.is_set():
                return _stopped(store, control)
            log.info("restarting without unsloth")
            raise
        except StopRequested as stop:
            return _stopped(store, control, STOPPED_FULL if isinstance(stop, NoRoom) else STOPPED)
        except Exception as error:
            log.exception("the run failed")
            line = trouble(error, run.path) or next(iter(str(error).splitlines()), "") or type(error).__name__
            _last_event(store, "failed", error=line)
            control.say(state="failed", phase="idle", progress=None, message=line)
            return 1
        finally:
            if store is not None:
                store.close()
        control.say(state="finished", phase="idle", progress=None, message="finished")
        log.info("finished")
        return 0


def _stopped(store: RunWriter | None, control: Control, message: str = STOPPED) -> int:
    _last_event(store, "stopped")
    control.say(state="stopped", phase="idle", progress=None, message=message)
    log.info("%s (step %d)", message, control.status["step"])
    return 0


def _last_event(store: RunWriter | None, kind: str, **data: Any) -> None:
    """Write the run's final event. If it cannot be written, only status.json tells the outcome."""
    if store is None:
        return
    store.keep = at_once
    try:
        store.write_event(kind, store.last_step(), **data)
    except sqlite3.Error as error:
        log.warning("could not write the event %s: %s", kind, error)


def _train(run: RunDirectory, store: RunWriter, control: Control, place: Place) -> None:
    # The heavy imports run after the heartbeat has begun, so that the run is seen to start at once.
    control.report("loading", None, "loading torch and transformers")
    config = run.read_config()
    check(config, place.size)
    backend = backends.settled(config, store)  # unsloth must be imported before transformers
    from aapo_desk.training.distributed.group import init_process_group
    from aapo_desk.training.setup import describe, prepared
    from aapo_desk.training.trainer import Trainer

    store.remember("about", describe(config, backend, place.size))

    def waiting(message: str) -> None:
        control.report("loading", None, message)

    try:
        with (
            init_process_group(place, config.model.device, waiting) as ranks,
            prepared(config, store, control, backend=backend, ranks=ranks) as ready,
        ):
            Trainer(run, config, ready, store, control).train()
    except UnslothError as error:
        backends.give_up(store, error)
        raise StartOver from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
