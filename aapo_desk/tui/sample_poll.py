"""Reading of a run's samples in threads: the stored steps, the samples of one step, and a search for a text."""

from __future__ import annotations

import threading
import time
from typing import Any

from textual.message import Message
from textual.screen import Screen
from textual.worker import get_current_worker

from aapo_desk.store import Place, Sample, SampleReader, Span
from aapo_desk.tui.poll import READ_ERRORS, ReadFailed

SECONDS = 0.5
PROGRESS_SECONDS = 0.2


class SpanRead(Message):
    """The span of steps that have samples now; None if there are no samples."""

    def __init__(self, span: Span | None) -> None:
        super().__init__()
        self.span = span


class StepRead(Message):
    """The samples of ``step``, which is the nearest step to ``goal`` that has any."""

    def __init__(self, goal: int, step: int, samples: list[Sample]) -> None:
        super().__init__()
        self.goal = goal
        self.step = step
        self.samples = samples


class SearchProgress(Message):
    """The search has reached this step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step


class SearchDone(Message):
    """The search has ended. ``place`` is the match, or None if nothing was found."""

    def __init__(self, place: Place | None) -> None:
        super().__init__()
        self.place = place


class SamplePoll:
    """A poller that posts one run's samples to a screen."""

    def __init__(self, screen: Screen[Any], reader: SampleReader) -> None:
        self._screen = screen
        self._reader = reader
        self._looking = False
        self._wanted: tuple[int, bool] | None = None
        self._reading = False
        self._lock = threading.Lock()

    def start(self) -> None:
        self._screen.set_interval(SECONDS, self.tick)
        self.tick()

    def tick(self) -> None:
        """Read the span of stored steps, unless such a read is in progress."""
        if not self._looking:
            self._looking = True
            self._screen.run_worker(self._look, thread=True, group="span", exit_on_error=False)

    def want(self, goal: int, forward: bool) -> None:
        """Request a step, or the nearest one beyond it in the direction of ``forward``.

        Of the requests made while a step is being read, only the last one is answered.
        """
        with self._lock:
            self._wanted = (goal, forward)
            if self._reading:
                return
            self._reading = True
        self._screen.run_worker(self._read, thread=True, group="step", exit_on_error=False)

    def search(self, text: str, start: Place, forward: bool) -> None:
        """Search all steps for a text; a search in progress is cancelled."""

        def look() -> None:
            self._search(text, start, forward)

        self._screen.run_worker(look, thread=True, group="search", exclusive=True, exit_on_error=False)

    def _look(self) -> None:
        try:
            self._screen.post_message(SpanRead(self._reader.stored_span()))
        except READ_ERRORS as error:
            self._screen.post_message(ReadFailed(str(error)))
        finally:
            self._looking = False

    def _read(self) -> None:
        while (wanted := self._next()) is not None:
            goal, forward = wanted
            try:
                step = self._reader.step_near(goal, forward)
                if step is not None:
                    self._screen.post_message(StepRead(goal, step, self._reader.samples(step)))
            except READ_ERRORS as error:
                self._screen.post_message(ReadFailed(str(error)))

    def _next(self) -> tuple[int, bool] | None:
        with self._lock:
            wanted, self._wanted = self._wanted, None
            self._reading = wanted is not None
            return wanted

    def _search(self, text: str, start: Place, forward: bool) -> None:
        worker = get_current_worker()
        told = time.monotonic()

        def going_on(step: int) -> bool:
            nonlocal told
            if time.monotonic() - told > PROGRESS_SECONDS:
                told = time.monotonic()
                self._screen.post_message(SearchProgress(step))
            return not worker.is_cancelled

        try:
            place = self._reader.find(text, start, forward, going_on)
        except READ_ERRORS as error:
            self._screen.post_message(ReadFailed(str(error)))
            place = None
        if not worker.is_cancelled:
            self._screen.post_message(SearchDone(place))
