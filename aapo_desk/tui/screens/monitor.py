"""The monitor screen: one run, live or finished, step by step."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.reactive import var
from textual.widgets import Static

from aapo_desk.health import Alarm, standing
from aapo_desk.store import Delta, Histogram, RunDirectory, Sample
from aapo_desk.tui.history import History
from aapo_desk.tui.labels import FAILED_STATES, LIVE_STATES
from aapo_desk.tui.poll import (
    About,
    DetailRead,
    HistogramsRead,
    ReadFailed,
    Reading,
    RunPoll,
    RunRead,
    RunSource,
)
from aapo_desk.tui.screens.alarms import AlarmsScreen
from aapo_desk.tui.screens.asking import TRAINER_ACTIONS, TRAINER_KEYS, AskingScreen
from aapo_desk.tui.screens.guard import TooSmall
from aapo_desk.tui.screens.samples import SamplesScreen
from aapo_desk.tui.text import one_line
from aapo_desk.tui.widgets.alarms import AlarmStrip
from aapo_desk.tui.widgets.charts import CHART_KEYS, Charts, Which
from aapo_desk.tui.widgets.header import HeaderFacts, RunHeader
from aapo_desk.tui.widgets.histogram import HistogramView
from aapo_desk.tui.widgets.keysline import KeysLine
from aapo_desk.tui.widgets.machine import MachineView
from aapo_desk.tui.widgets.notes import VIEWS, NotesView, Tabs, evaluations_text, events_text, log_text
from aapo_desk.tui.widgets.phases import Phases, PhasesView
from aapo_desk.tui.widgets.plot import Plot
from aapo_desk.tui.widgets.samples import SampleView
from aapo_desk.tui.widgets.scrubber import Scrubber
from aapo_desk.tui.widgets.teaching import Shares, TeachingView

HISTOGRAMS = {
    "group_advantage": ("group advantage", "group adv."),
    "margin": ("margin", "margin"),
    "advantage": ("advantage", "advantage"),
}
JUMP = 10
STEPS = Binding.Group("Step", compact=True)


class MonitorScreen(AskingScreen):
    """A run's charts, samples and events, with keys that control its trainer. Leaving it does not affect the run."""

    CSS_PATH = "monitor.tcss"
    ACTING = TRAINER_ACTIONS | {"chat"}
    BINDINGS: ClassVar[list[BindingType]] = [
        *TRAINER_KEYS,
        Binding("left", "move(-1)", "Previous step", key_display="←", group=STEPS),
        Binding("right", "move(1)", "Next step", key_display="→", group=STEPS),
        Binding("h", "move(-1)", "Previous step", show=False),
        Binding("l", "move(1)", "Next step", show=False),
        Binding("shift+left,H", f"move(-{JUMP})", f"Back {JUMP} steps", show=False),
        Binding("shift+right,L", f"move({JUMP})", f"Forward {JUMP} steps", show=False),
        Binding("home", "first", "First step", show=False),
        Binding("end,G", "follow", "Follow the newest step", show=False),
        *CHART_KEYS,
        Binding("n", "turn(1)", "Next sample", show=False),
        Binding("N", "turn(-1)", "Previous sample", show=False),
        Binding("down,j", "scroll(1)", "Scroll the text down", show=False),
        Binding("up,k", "scroll(-1)", "Scroll the text up", show=False),
        Binding("v", "samples", "Samples", tooltip="Show all completions of this step: sort, filter, find, copy"),
        Binding("t", "chat", "Chat", show=False, tooltip="Chat with this run's base and tuned model"),
        Binding("a", "alarms", "Alarms", show=False, tooltip="Show the active alarms, and what to try"),
        Binding("o", "view", "View", tooltip="Next view: completions, events, log, evaluations"),
        Binding(
            "slash", "find", "Find", key_display="/", show=False, tooltip="Show only events and log lines with a text"
        ),
        Binding("escape", "shrink", "Back", key_display="esc", tooltip="Back to the whole monitor"),
        Binding("escape", "back", "Home", key_display="esc", tooltip="Back to the runs; this run continues"),
        Binding("b", "shrink", "Back", show=False),
        Binding("b", "back", "Home", show=False),
    ]

    # A reactive would redraw the whole screen; with `var`, the watchers update only the widgets that show the value.
    step: var[int] = var(0, init=False)
    following: var[bool] = var(True, init=False)

    def __init__(self, run: RunDirectory, source: RunSource) -> None:
        super().__init__(run)
        self.history = History()
        self._poll = RunPoll(self, source)
        self._about: About | None = None
        self._status: dict[str, Any] = {}
        self._reason = ""
        self._unreadable = ""
        self._alarms: list[Alarm] = []

    def compose(self) -> ComposeResult:
        yield TooSmall(id="too-small")
        yield RunHeader(id="header")
        yield AlarmStrip(id="alarms")
        with Container(id="top"):
            yield Charts(id="charts")
            with Container(id="side"):
                yield TeachingView(id="teaching")
                yield PhasesView(id="phases")
                yield MachineView(id="machine")
                yield Static(id="evaluations", markup=False)
        yield Scrubber(id="scrubber")
        with Container(id="histograms"):
            for name, (title, short) in HISTOGRAMS.items():
                yield HistogramView(title, short, id=f"histogram-{name}")
        with Container(id="lower"):
            yield SampleView(id="samples")
            yield NotesView(id="notes")
        yield KeysLine()

    def on_mount(self) -> None:
        self._poll.start()

    # Data read

    @on(RunRead)
    def _take_in(self, message: RunRead) -> None:
        reading = message.reading
        with self.app.batch_update():
            self._unreadable = ""
            if reading.about is not None:
                self._about = reading.about
                self.query_one(Charts).suit(self._has_margin)
            self._status = reading.status
            self._reason = reading.reason or ""
            self.history.extend(reading.delta)
            if reading.history is not None:
                self.history.replace(reading.history)
            if reading.delta.metrics or reading.delta.reset or reading.history is not None:
                self._new_steps(reading.delta.reset)
            if reading.history is not None:
                self.watch_step(self.step)
            if reading.log is not None:
                self.query_one(NotesView).put("log", log_text(reading.log))
            if reading.delta.events or reading.delta.reset:
                self.query_one(NotesView).put("events", events_text(self.history.events))
                self._show_alarms(reading.delta)
            if reading.delta.evaluations or reading.delta.reset:
                self._show_evaluations()
            self.query_one(MachineView).add(reading.machine)
            self.state = reading.state
            self._show_header(reading)

    @on(DetailRead)
    def _take_detail(self, message: DetailRead) -> None:
        detail = message.detail
        if detail.step == self.step:
            self._show_detail(detail.histograms, detail.samples)

    def _show_detail(self, histograms: Mapping[str, Histogram], samples: list[Sample]) -> None:
        with self.app.batch_update():
            for name in HISTOGRAMS:
                absent = "the algorithm has none" if histograms and name not in histograms else "no values in this step"
                self.query_one(f"#histogram-{name}", HistogramView).show(histograms.get(name), absent)
            self.query_one(SampleView).show(samples)

    @on(Charts.HistogramsWanted)
    def _want_histograms(self, message: Charts.HistogramsWanted) -> None:
        self._poll.want_histograms(message.name, message.steps)

    @on(HistogramsRead)
    def _take_histograms(self, message: HistogramsRead) -> None:
        self.query_one(Charts).take_histograms(message.name, message.histograms)

    @on(ReadFailed)
    def _say_unreadable(self, message: ReadFailed) -> None:
        self._unreadable = message.reason
        self._show_header(None)

    def _new_steps(self, reset: bool) -> None:
        scrubber = self.query_one(Scrubber)
        scrubber.first, scrubber.last = self.history.first_step, self.history.last_step
        self.query_one(Charts).take(self.history, reset)
        if self.following or not self.history.first_step <= self.step <= self.history.last_step:
            self.step = self.history.last_step
            if reset and not self.following:
                self.following = True
        elif reset:
            self._poll.want(self.step)

    def _show_evaluations(self) -> None:
        text = evaluations_text(self.history.evaluations, self.history.warm_start)
        self.query_one("#evaluations", Static).update(text)
        self.query_one(NotesView).put("evaluations", text)

    def _show_alarms(self, delta: Delta) -> None:
        before = [] if delta.reset else self._alarms  # after a reset all events are read again
        self._alarms = standing(((event.kind, event.data) for event in delta.events), before)
        self.query_one(AlarmStrip).show(self._alarms)

    def _show_header(self, reading: Reading | None) -> None:
        self.query_one(RunHeader).show(self._facts())
        if reading is not None and not self.history.steps:
            message = one_line(str(self._status.get("message") or ""))
            if reading.state == "crashed":  # the last message says what the trainer was doing, not that it crashed
                message = "crashed before the first step"
            self.query_one(Charts).wait(message or f"{reading.state}: no step yet")

    def _facts(self) -> HeaderFacts:
        return HeaderFacts.of(
            self._about.name if self._about else self.run_directory.id,
            self.state,
            self._status,
            self.history,
            self._about.config if self._about else None,
            self.desk.clock(),
            self._unreadable or self._reason,
        )

    # The selected step, and what is shown of it

    def watch_step(self, step: int) -> None:
        self.query_one(Scrubber).step = step
        self._mark()
        self.query_one(TeachingView).show(self._shares("teaching_group"), self._shares("teaching"), self._has_margin)
        seconds = {name: self.history.value(f"seconds_{name}", step) for name in ("rollout", "reward", "update")}
        self.query_one(PhasesView).show(Phases(**seconds))
        if step:
            self._poll.want(step)
        else:  # the run was rewound to before its first step
            self._show_detail({}, [])

    @property
    def _has_margin(self) -> bool:
        """True if the run's method compares with the reference. True until the configuration has been read."""
        return self._about is None or self._about.config.algorithm.method.has_margin

    def _mark(self) -> None:
        self.query_one(Charts).mark(self.step, line=not self.following)

    def _shares(self, key: str) -> Shares:
        trace = self.query_one(Charts).trace(key)
        return Shares(self.history.value(key, self.step), trace.means[: bisect_right(trace.steps, self.step)])

    def watch_following(self, following: bool) -> None:
        self.query_one(Scrubber).following = following
        self._mark()

    def watch_state(self, before: str, state: str) -> None:
        self.refresh_bindings()
        self.query_one(Scrubber).live = state in LIVE_STATES
        if state in FAILED_STATES:
            self._open("log")
        elif before in FAILED_STATES and state in LIVE_STATES:
            self._open("completions")

    def _go_to(self, step: int) -> None:
        history = self.history
        if not history.steps:
            return
        step = min(history.last_step, max(history.first_step, step))
        self.following = step == history.last_step
        self.step = step

    def action_move(self, by: int) -> None:
        self._go_to(self.step + by)

    def action_first(self) -> None:
        self._go_to(self.history.first_step)

    @on(Scrubber.Follow)
    def action_follow(self) -> None:
        self._go_to(self.history.last_step)

    @on(Scrubber.Moved)
    def _scrub(self, message: Scrubber.Moved) -> None:
        self._go_to(message.step)

    @on(Plot.Picked)
    def _pick(self, message: Plot.Picked) -> None:
        self._go_to(message.step)

    def action_chart(self, which: Which) -> None:
        self.query_one(Charts).perform(which)

    def action_shrink(self) -> None:
        self.query_one(Charts).mode = "panel"

    @on(Charts.Arranged)
    def _arrange(self) -> None:
        """Lay out the charts for their mode, and show the panel that belongs to the selected chart below them."""
        charts = self.query_one(Charts)
        self.set_class(charts.mode != "panel", "-charts-only")
        for part in self.query(".part"):
            part.set_class(part.id == charts.spec.part, "-shown")
        self.refresh_bindings()

    def action_turn(self, by: int) -> None:
        self.query_one(SampleView).turn(by)

    def action_samples(self) -> None:
        """Open the step's completions on top of the monitor."""
        self.app.push_screen(SamplesScreen(self.run_directory, None if self.following else self.step))

    def action_chat(self) -> None:
        self.desk.chat(self.run_directory)

    @on(Tabs.Clicked)
    def action_view(self) -> None:
        """Show the next view; in a narrow terminal the completions are one of the views."""
        notes = self.query_one(NotesView)
        wide = self.has_class("-wide")
        views: tuple[str, ...] = VIEWS if wide else ("completions", *VIEWS)
        current = notes.view if wide or self.has_class("-notes") else "completions"
        self._open(views[(views.index(current) + 1) % len(views)])

    def action_find(self) -> None:
        """Ask for a text to find in the events and the log."""
        notes = self.query_one(NotesView)
        if not self.has_class("-wide") and not self.has_class("-notes"):
            self._open("log")
        notes.ask()

    def action_scroll(self, by: int) -> None:
        """Scroll the completions, or the view that is shown instead of them."""
        notes = self.has_class("-notes") and not self.has_class("-wide")
        for pane in self.query("#notes-pane" if notes else "CompletionPane"):
            pane.scroll_relative(y=by, animate=False)

    @on(AlarmStrip.Clicked)
    def action_alarms(self) -> None:
        self.app.push_screen(AlarmsScreen(self._alarms, self.state in LIVE_STATES))

    def _open(self, view: str) -> None:
        self.set_class(view != "completions", "-notes")
        if view != "completions":
            self.query_one(NotesView).open(view)

    # Keys, and requests to the trainer

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if not super().check_action(action, parameters):
            return False
        match action:
            case "shrink":
                return self.has_class("-charts-only")
            case "back" | "turn" | "view" | "find":
                return not self.has_class("-charts-only")
            case "alarms":
                return bool(self._alarms)
        return True

    @property
    def run_name(self) -> str:
        return one_line(self._about.name) if self._about else self.run_directory.id

    def asked(self) -> None:
        self._poll.tick()

    def farewell(self) -> str:
        name = self.run_name
        return f"{name} continues. Watch it with: aapo-desk watch {name}" if self.state in LIVE_STATES else ""

    def action_back(self) -> None:
        self.desk.go_home()
