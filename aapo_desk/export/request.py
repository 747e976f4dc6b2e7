"""The request for an export: the checkpoint of a run, the format, and the folder to write to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from aapo_desk.config import ConfigError, Problem, RunConfig
from aapo_desk.export.folders import check_target
from aapo_desk.store import RunDirectory, RunReader

Form = Literal["adapter", "merged", "gguf"]
FORMS: tuple[Form, ...] = get_args(Form)
QUANTS = ("f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m")
"""llama.cpp's names for the weight formats of a GGUF file, from the most to the least precise."""

HELD_OUT = "held_out"


class ExportError(RuntimeError):
    """Raised if an export could not be made. The message says why and what to do."""


@dataclass(frozen=True)
class Source:
    """A checkpoint of a run, with the run's configuration and evaluations."""

    run: RunDirectory
    config: RunConfig
    step: int
    chosen: str
    """Why this checkpoint was chosen, in words: ``the best by held-out accuracy``, ``the last``, ``as asked``."""
    evaluations: dict[int, dict[str, Any]]
    """The run's held-out evaluations by step. Step 0 is the base model."""

    @property
    def name(self) -> str:
        """The checkpoint in words, such as ``step 20 of run sums``."""
        return f"step {self.step} of run {self.run.name}"


@dataclass(frozen=True)
class Request:
    """An export that was asked for: its source, format and target folder."""

    source: Source
    form: Form
    to: Path
    quant: str = "f16"
    """One of QUANTS; used for GGUF only."""
    force: bool = False
    """True if an existing export may be replaced."""
    offline: bool = False

    @property
    def label(self) -> str:
        """The format in words: ``adapter``, ``merged``, or for example ``gguf q4_k_m``."""
        return f"{self.form} {self.quant}" if self.form == "gguf" else self.form


def check_request(form: Form, quant: str | None, to: Path, force: bool) -> None:
    """Refuse a request that cannot be fulfilled, before a model is loaded. Raises ConfigError."""
    problems = []
    if quant is not None and form != "gguf":
        problems.append(Problem("--quant", f"needs --format gguf, not {form}", quant))
    if quant is not None and quant not in QUANTS:
        problems.append(Problem("--quant", f"must be one of {', '.join(QUANTS)}", quant))
    if problem := check_target(to, force):
        problems.append(problem)
    if problems:
        raise ConfigError(*problems)


def choose(run: RunDirectory, step: str) -> Source:
    """Return the checkpoint that ``step`` refers to: a number, ``best`` or ``last``.

    Raises ConfigError if there is none. Whether the checkpoint is intact is checked when it is read.
    """
    delta = RunReader(run).poll()
    evaluations = {number: data for number, name, data in delta.evaluations if name == HELD_OUT}
    best = next((event.data["best"] for event in reversed(delta.events) if event.data.get("best")), None)
    steps = sorted(int(path.name.removeprefix("step_")) for path in run.checkpoints.glob("step_*") if path.is_dir())
    if not steps:
        raise ConfigError(Problem("RUN", "has no checkpoint yet, so there is nothing to export", run.name))
    number, why = _meant(step, steps, best)
    return Source(run, run.read_config(), number, why, evaluations)


def _meant(step: str, steps: list[int], best: int | None) -> tuple[int, str]:
    if step == "best":
        if best in steps:
            assert best is not None
            return best, "the best by held-out accuracy"
        if best is None:
            return steps[-1], "the last: the run was not evaluated"
        message = f"the best checkpoint, step {best}, no longer exists; {_there_are(steps)}"
        raise ConfigError(Problem("--step", message, step))
    if step == "last":
        return steps[-1], "the last"
    if not step.isdecimal() or int(step) not in steps:
        raise ConfigError(Problem("--step", f"there is no such checkpoint; {_there_are(steps)}, best and last", step))
    return int(step), "as asked"


def _there_are(steps: list[int]) -> str:
    return f"there are {', '.join(map(str, steps))}"
