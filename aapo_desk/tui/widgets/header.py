"""The monitor's header: three lines that show what the run is doing, how far it is, and whether it learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from rich.cells import cell_len
from textual.content import Content
from textual.widgets import Static

from aapo_desk.config import RunConfig
from aapo_desk.store import Budget, budget_of, progress, share_done
from aapo_desk.store.unscorable import unscorable_mark
from aapo_desk.tui.history import History
from aapo_desk.tui.labels import (
    FAILED_STATES,
    LIVE_STATES,
    algorithm_label,
    duration,
    memory,
    model_label,
    number,
    percent,
    signed,
    state_label,
)
from aapo_desk.tui.text import one_line
from aapo_desk.tui.widgets.blocks import bar

SILENT_SECONDS = 15.0
BAR_WIDTHS = (30, 18, 10, 6)

Part = tuple[str, str]  # text, style


@dataclass(frozen=True)
class HeaderFacts:
    """All values that the header shows. Times are in seconds; ``silent`` is the time since the last heartbeat."""

    name: str
    state: str
    step: int
    steps: int
    budget: Budget | None = None
    phase: str = ""
    progress: float | None = None
    message: str = ""
    model: str = ""
    algorithm: str = ""
    elapsed: float | None = None
    remaining: float | None = None
    tokens_per_second: float | None = None
    memory_mb: float | None = None
    logp_gap: float | None = None  # difference between rollout and update log-probabilities, in nats per token
    silent: float = 0.0
    base: Mapping[str, Any] | None = None
    latest: tuple[int, Mapping[str, Any]] | None = None
    problem: str = ""  # why the run failed, or why it cannot be read

    @classmethod
    def of(
        cls,
        name: str,
        state: str,
        status: Mapping[str, Any],
        history: History,
        config: RunConfig | None,
        now: float,
        problem: str,
    ) -> Self:
        """Collect what the header shows of a run at the time ``now``. ``config`` is None until it has been read."""
        live = state in LIVE_STATES
        step = history.last_step
        steps = int(status.get("steps") or (config.run.steps if config else 0))
        budget = budget_of(status)
        heartbeat = status.get("heartbeat")
        return cls(
            name=name,
            state=state,
            step=step,
            steps=steps,
            budget=budget,
            phase=str(status.get("phase") or ""),
            progress=status.get("progress"),
            message=str(status.get("message") or ""),
            model=model_label(config.model.id) if config else "",
            algorithm=algorithm_label(
                config.algorithm, config.task.difficulty, config.lora.start_from, config.warm_start.solutions
            )
            if config
            else "",
            elapsed=history.elapsed(now if state in ("running", "stopping") else None),
            remaining=history.remaining(steps, config.evaluation.every, bool(config.evaluated_problems), budget)
            if config
            else None,
            tokens_per_second=history.value("tokens_per_second", step),
            memory_mb=history.value("memory_mb", step),
            logp_gap=history.value("logp_gap", step),
            silent=max(0.0, now - heartbeat) if live and isinstance(heartbeat, int | float) else 0.0,
            base=history.base(),
            latest=history.latest(),
            problem=problem,
        )


class RunHeader(Static):
    """A widget that shows HeaderFacts in as many words as fit."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id, markup=False)
        self._facts: HeaderFacts | None = None

    def show(self, facts: HeaderFacts) -> None:
        if facts != self._facts:
            self._facts = facts
            self._render_facts()

    def on_resize(self) -> None:
        self._render_facts()

    def _render_facts(self) -> None:
        width = self.content_size.width
        if self._facts is not None and width:
            lines = [first_line(self._facts, width), second_line(self._facts, width), third_line(self._facts, width)]
            self.update(Content("\n").join(Content.assemble(*line) for line in lines), layout=False)


def first_line(facts: HeaderFacts, width: int) -> list[Part]:
    """Return state, name, step, a progress bar and the remaining time."""
    style = {"running": "$text-success", "finished": "$text-success", "paused": "$text-warning"}.get(facts.state)
    style = style or ("$text-error" if facts.state in FAILED_STATES else "$text-warning")
    state: Part = (f"{state_label(facts.state)} ", f"bold {style}")
    share = share_done(facts.step, facts.steps, facts.budget)
    tail = f"  ETA {duration(facts.remaining)}" if facts.state == "running" and facts.remaining is not None else ""
    steps = f"  step {progress(facts.step, facts.steps, facts.budget)} "
    room = width - cell_len(state[0]) - len(steps) - len(tail) - len(" 100 %")
    name = one_line(facts.name)
    for size in BAR_WIDTHS:
        if room - size - 2 >= min(cell_len(name), 24):
            name = _cut(name, room - size - 2)
            gauge = f"▕{bar(share, size)}▏"
            return [state, (name, "bold"), (steps, ""), (gauge, style), (f" {share * 100:.0f} %", ""), (tail, "bold")]
    return _fit([state, (name, "bold"), (steps, ""), (tail, "")], width)


def second_line(facts: HeaderFacts, width: int) -> list[Part]:
    """Return what the run is doing now or how it ended; if there is a problem, only the problem."""
    if facts.problem:
        hint = "  r: resume" if facts.state in FAILED_STATES else ""
        text = one_line(facts.problem)
        return [(_cut(text, max(0, width - len(hint))), "$text-error"), (hint, "bold")]
    if facts.state not in LIVE_STATES:
        return _separated([(_ended(facts), "bold"), *_standing(facts)], width)
    phase = "p: continue" if facts.state == "paused" else one_line(facts.phase)
    if facts.progress is not None and facts.state != "paused":
        phase += f" {percent(facts.progress)}"
    parts: list[Part] = [(phase, "bold")] if phase else []
    if facts.silent > SILENT_SECONDS:
        parts.append((f"no heartbeat for {duration(facts.silent)}", "$text-warning"))
    if facts.elapsed is not None:
        parts.append((f"elapsed {duration(facts.elapsed)}", ""))
    if facts.tokens_per_second is not None:
        parts.append((f"{facts.tokens_per_second:.0f} tok/s", ""))
    if facts.memory_mb is not None:
        parts.append((f"memory {memory(facts.memory_mb)}", ""))
    why = facts.message if facts.state == "paused" and facts.message != "paused" else ""
    if why or (facts.message and not facts.step):
        parts.insert(1, (one_line(facts.message), "$text-warning" if why else ""))
    return _separated([*parts, *_standing(facts)], width)


def third_line(facts: HeaderFacts, width: int) -> list[Part]:
    """Return the held-out accuracy of greedy answers: of the base model, now, and the paired gain."""
    if facts.base is None and facts.latest is None:
        return [("held-out accuracy: not evaluated yet", "$foreground 70%")]
    base = _accuracy(facts.base)
    if facts.latest is None:
        return [("held-out accuracy  ", "$foreground 70%"), (f"base {base}", "bold")]
    step, data = facts.latest
    now, who = _accuracy(data), "tuned" if facts.state == "finished" else f"step {step}"
    gain, short_gain = _gain(data)
    base_value, now_value = _in_short(facts.base), _in_short(data)
    variants: list[list[Part]] = [
        [("held-out accuracy  ", "$foreground 70%"), (f"base {base} → {who} {now}", "bold"), (f"   gain {gain}", "")],
        [("held out ", "$foreground 70%"), (f"{base} → {now}", "bold"), (f"  gain {gain}", "")],
        [("held out ", "$foreground 70%"), (f"{base_value} → {now}", "bold"), (f"  gain {short_gain}", "")],
        [("held out ", "$foreground 70%"), (f"{base_value} → {now_value}", "bold"), (f"  gain {short_gain}", "")],
    ]
    return next((line for line in variants if _width(line) <= width), _fit(variants[-1], width))


def interval(value: float | None, low: float | None, high: float | None, sign: bool = False) -> str:
    """Return a value with its 95 % interval, as in ``0.56 [0.46, 0.66]``."""
    form = signed if sign else number
    return f"{form(value)} [{form(low)}, {form(high)}]"


def _accuracy(data: Mapping[str, Any] | None) -> str:
    greedy = (data or {}).get("greedy")
    if not greedy:
        return "–"
    return interval(greedy.get("accuracy"), greedy.get("low"), greedy.get("high")) + _unscorable(data, greedy)


def _in_short(data: Mapping[str, Any] | None) -> str:
    """Return the greedy accuracy without its interval."""
    greedy = (data or {}).get("greedy") or {}
    return number(greedy.get("accuracy")) + _unscorable(data, greedy)


def _unscorable(data: Mapping[str, Any] | None, side: Mapping[str, Any]) -> str:
    """Return the number of answers that could not be scored, in brackets to follow an accuracy; "" if there is none."""
    mark = unscorable_mark(side, int((data or {}).get("problems") or 0))
    return f" ({mark})" if mark else ""


def _gain(data: Mapping[str, Any]) -> tuple[str, str]:
    difference = data.get("difference")
    if not difference:
        return "–", "–"
    mean = difference.get("mean")
    return interval(mean, difference.get("low"), difference.get("high"), sign=True), signed(mean)


def _standing(facts: HeaderFacts) -> list[Part]:
    gap = "" if facts.logp_gap is None else f"rollout-update gap {facts.logp_gap:.1g}"
    return [(text, "$foreground 70%") for text in (one_line(facts.model), facts.algorithm, gap) if text]


def _ended(facts: HeaderFacts) -> str:
    took = f" in {duration(facts.elapsed)}" if facts.elapsed is not None else ""
    if facts.state == "stopped":
        if not facts.step:
            return "stopped before the first step; r restarts it"
        return f"stopped after step {facts.step}{took}; r resumes from the last checkpoint"
    return f"{facts.state}{took}"


def _separated(parts: Sequence[Part], width: int) -> list[Part]:
    """Join the parts with dots, and leave out the last ones that do not fit ``width``."""
    line: list[Part] = []
    for text, style in parts:
        dot = " · " if line else ""
        if _width(line) + len(dot) + cell_len(text) > width:
            if not line:
                line.append((_cut(text, width), style))
            break
        line += [(dot, "$foreground 70%"), (text, style)]
    return line


def _fit(parts: Sequence[Part], width: int) -> list[Part]:
    kept: list[Part] = []
    for text, style in parts:
        kept.append((_cut(text, max(0, width - _width(kept))), style))
    return kept


def _width(parts: Sequence[Part]) -> int:
    return sum(cell_len(text) for text, _ in parts)


def _cut(text: str, width: int) -> str:
    if cell_len(text) <= width:
        return text
    while text and cell_len(text) > width - 1:
        text = text[:-1]
    return f"{text}…" if width > 0 else ""
