"""The trainer's alarms: checked after each step and evaluation, with an event when an alarm begins or ends."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from aapo_desk.config import RunConfig
from aapo_desk.hardware import Machine
from aapo_desk.health import BEGINS, ENDS, LONGEST_WINDOW, WINDOW, Alarm, Facts, check, standing
from aapo_desk.models.policy import Policy
from aapo_desk.rewards import bounds
from aapo_desk.store import RunWriter

log = logging.getLogger(__name__)

Metrics = Mapping[str, float | None]


class Watch:
    """The alarms in force, and the metrics that they are judged by: those of the run's first and its latest steps."""

    def __init__(self, config: RunConfig, policy: Policy, store: RunWriter) -> None:
        self._config = config
        self._policy = policy
        self._store = store
        self._first: list[tuple[int, Metrics]] = []
        self._last: deque[tuple[int, Metrics]] = deque(maxlen=LONGEST_WINDOW)
        self._evaluations: Mapping[int, Mapping[str, Any]] = {}
        self._facts = Facts()
        self._zero = True
        self.alarms: list[Alarm] = []

    def resume(self, evaluations: Mapping[int, Mapping[str, Any]]) -> None:
        """Load alarms and metrics from the rewound record, so that alarms in force are not reported again."""
        self.alarms = standing(self._store.events(BEGINS, ENDS))
        self._evaluations = evaluations
        for step, metrics in self._store.metrics(WINDOW, LONGEST_WINDOW):
            self._add(step, metrics)

    def step(self, step: int, metrics: Metrics, machine: Machine) -> None:
        """Check the alarms after a step."""
        self._add(step, metrics)
        self._facts = self._look(metrics, machine)
        self._judge(step)

    def evaluation(self, step: int, evaluations: Mapping[int, Mapping[str, Any]]) -> None:
        """Check the alarms after an evaluation."""
        self._evaluations = evaluations
        self._judge(step)

    def _add(self, step: int, metrics: Metrics) -> None:
        (self._first if step <= WINDOW else self._last).append((step, metrics))

    def _look(self, metrics: Metrics, machine: Machine) -> Facts:
        device = self._policy.device
        self._zero = self._zero and _is_zero(self._policy)
        known = Facts(self._policy.computes_exactly, bounds(self._config.rewards)[1], self._zero)
        if device.type == "cuda":
            total = torch.cuda.get_device_properties(device).total_memory / 2**20
            taken = metrics.get("memory_mb") or 0.0
            return replace(known, memory_used=taken, memory_total=total, memory="the GPU's memory")
        used = machine.memory_total - machine.memory_available
        return replace(known, memory_used=used, memory_total=machine.memory_total, memory="this machine's memory")

    def _judge(self, step: int) -> None:
        alarms = check([*self._first, *self._last], self._evaluations, self._config, self._facts, self.alarms)
        for alarm in self.alarms:
            if alarm not in alarms:
                log.info("alarm over: %s (since step %d)", alarm.title, alarm.since)
                self._store.write_event(ENDS, step, kind=alarm.kind, title=alarm.title, since=alarm.since)
        for alarm in alarms:
            if alarm not in self.alarms:
                log.warning("alarm: %s. %s %s", alarm.title, alarm.message, alarm.advice)
                self._store.write_event(BEGINS, step, **alarm.as_json())
        self.alarms = alarms


def _is_zero(policy: Policy) -> bool:
    """Return whether the adapter still changes nothing: every lora_B is zero. Reads all of them."""
    return not any(bool(value.any()) for name, value in policy.adapter_parameters().items() if "lora_B" in name)
