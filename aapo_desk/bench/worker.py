"""The process of one measurement: ``python -m aapo_desk.bench.worker < job.json``.

It writes one JSON object to standard output: ``{"ok": true, ...}`` with the results; ``{"ok": false, "problems":
[...]}`` with exit status 2 for what the user must fix; or ``{"ok": false, "error": "..."}`` with exit status 1 if the
measurement failed.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

from aapo_desk.bench.jobs import Job, Measured
from aapo_desk.config import ConfigError
from aapo_desk.hub import HubError
from aapo_desk.models.sources import ModelError
from aapo_desk.preview import own_standard_output, silence_libraries
from aapo_desk.rewards.worker import die_with_parent


def measure(job: Job) -> Measured:
    """Do a job in this process."""
    module = importlib.import_module(f"aapo_desk.bench.{job.worker}")
    measured: Callable[[Job], Measured] = module.measure
    return measured(job)


def main() -> int:
    die_with_parent()  # a measurement whose parent has died would only disturb others
    answers = own_standard_output()
    silence_libraries()
    answer: dict[str, Any]
    try:
        answer = {"ok": True, **dataclasses.asdict(measure(Job.from_json(json.load(sys.stdin))))}
        status = 0
    except ConfigError as error:
        answer = {"ok": False, "problems": [dataclasses.asdict(problem) for problem in error.problems]}
        status = 2
    except (ModelError, HubError) as error:
        answer = {"ok": False, "error": str(error)}
        status = 1
    except Exception as error:  # noqa: BLE001 - the parent process reports it
        traceback.print_exception(error)
        first = next(iter(str(error).splitlines()), "")
        answer = {"ok": False, "error": f"{type(error).__name__}: {first}"}
        status = 1
    with answers:
        answers.write(json.dumps(answer, default=str) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
