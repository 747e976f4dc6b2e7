"""The compare screen: up to six runs in one chart, their results, and the settings in which they differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import Static

from aapo_desk.store import RunDirectory
from aapo_desk.studies import AXES, DEFAULT_METRIC, SMOOTHING, Axis, Comparer, Comparison
from aapo_desk.tui.labels import duration
from aapo_desk.tui.screens.compare_dialogs import MetricChoice, SaveDialog
from aapo_desk.tui.screens.guard import DeskScreen, TooSmall
from aapo_desk.tui.text import one_line
from aapo_desk.tui.widgets.keysline import KeysLine
from aapo_desk.tui.widgets.overlay import Line, OverlayChart
from aapo_desk.tui.widgets.pane import Pane
from aapo_desk.tui.widgets.standings import amount, evaluations_text, runs_text, settings_text

SECONDS = 3.0
SMOOTHINGS = (0.0, SMOOTHING, 0.95, 0.99)
JUMP = 10
VIEWS = ("runs", "evaluations", "settings")
MOVE = Binding.Group("Cursor", compact=True)


class Compared(Message):
    """A new comparison has been read."""

    def __init__(self, comparison: Comparison) -> None:
        super().__init__()
        self.comparison = comparison


class CompareScreen(DeskScreen[None]):
    """A comparison of ``runs``, read again every few seconds. Raises ConfigError if ``Comparer`` refuses the runs."""

    CSS_PATH = "compare.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "metric", "Metric", tooltip="Choose the metric to compare"),
        Binding("x", "axis", "Axis", tooltip="Next x axis: steps, training time, tokens"),
        Binding("e", "smooth", "Smooth", tooltip="Next smoothing (exponential mean): off, 0.8, 0.95, 0.99"),
        Binding("left", "move(-1)", "Left", key_display="←", group=MOVE),
        Binding("right", "move(1)", "Right", key_display="→", group=MOVE),
        Binding("h", "move(-1)", "Left", show=False),
        Binding("l", "move(1)", "Right", show=False),
        Binding("shift+left,H", f"move(-{JUMP})", f"{JUMP} columns left", show=False),
        Binding("shift+right,L", f"move({JUMP})", f"{JUMP} columns right", show=False),
        Binding("home", "first", "Cursor to the start", show=False),
        Binding("end,G", "last", "Each run's last step", show=False),
        Binding("down,j", "scroll(1)", "Scroll the text down", show=False),
        Binding("up,k", "scroll(-1)", "Scroll the text up", show=False),
        Binding("o", "view", "View", tooltip="Next view, if only one fits: runs, evaluations, settings"),
        Binding("s", "save", "Save", tooltip="Save a picture (PNG, SVG), or every step as CSV"),
        Binding("escape", "back", "Home", key_display="esc", tooltip="Back to the runs"),
        Binding("b", "back", "Home", show=False),
    ]

    metric: reactive[str] = reactive(DEFAULT_METRIC, init=False)
    smoothing: reactive[float] = reactive(SMOOTHING, init=False)
    axis: reactive[Axis] = reactive[Axis]("step", init=False)
    cursor: reactive[float | None] = reactive[float | None](None, init=False)
    view: reactive[str] = reactive(VIEWS[0], init=False)

    def __init__(self, runs: Sequence[RunDirectory]) -> None:
        super().__init__()
        self.runs = list(runs)
        self._comparer = Comparer(runs)
        self._comparison: Comparison | None = None
        self._reading = False

    def compose(self) -> ComposeResult:
        yield TooSmall(id="too-small")
        yield Static("reading the runs …", id="compare-title", markup=False)
        yield OverlayChart(id="overlay")
        with Container(id="compare-lower"):
            yield Static(id="compare-tabs", markup=False)
            with Pane(id="compare-runs"):
                yield Static(id="compare-runs-text", markup=False)
            with Container(id="compare-details"):
                with Pane(id="compare-evaluations"):
                    yield Static(id="compare-evaluations-text", markup=False)
                with Pane(id="compare-settings"):
                    yield Static(id="compare-settings-text", markup=False)
        yield KeysLine()

    def on_mount(self) -> None:
        self.watch_view()
        self.set_interval(SECONDS, self._read)

    def on_screen_resume(self) -> None:
        self._read()

    def on_resize(self) -> None:
        self.call_after_refresh(self._show_text)

    # Data read

    def _read(self) -> None:
        if self.is_current and not self._reading:
            self._reading = True
            self.run_worker(self._load, thread=True, group="compare", exit_on_error=False)

    def _load(self) -> None:
        try:
            comparison = self._comparer.read(self.metric, self.smoothing)
        finally:
            self._reading = False
        self.post_message(Compared(comparison))

    @on(Compared)
    def _take_in(self, message: Compared) -> None:
        comparison = message.comparison
        if (comparison.metric, comparison.smoothing) != (self.metric, self.smoothing):
            self._read()  # the metric or the smoothing was changed while this was read
            return
        if comparison != self._comparison:
            self._comparison = comparison
            self._show()

    # Drawing

    def _show(self) -> None:
        comparison, axis = self._comparison, self.axis
        if comparison is None:
            return
        smoothing = f", exponential mean {comparison.smoothing:g}" if comparison.smoothing else ""
        title = one_line(f"{comparison.metric} by {_axis_name(axis)}{smoothing}")
        lines = [
            Line(entry.letter, entry.points.xs(axis), entry.points.smooth)
            for entry in comparison.entries
            if entry.points.reach(axis) is not None
        ]
        waiting = f"no run has {one_line(comparison.metric)}" if lines else "no steps yet"
        chart = self.query_one(OverlayChart)
        with self.app.batch_update():
            chart.show(title, lines, lambda x: _place(axis, x), waiting)
            chart.mark(self.cursor)
            self._show_text()

    def _show_text(self) -> None:
        comparison = self._comparison
        if comparison is None:
            return
        baseline = comparison.baseline
        where = "each run's last step" if self.cursor is None else f"at {_axis_name(self.axis)} "
        where += "" if self.cursor is None else _place(self.axis, self.cursor)
        why = "pinned" if baseline.pinned else "the first; pin another on Home"
        self.query_one("#compare-title", Static).update(
            Content.assemble(
                ("Compare", "bold $text-primary"),
                f"  {where}",
                (f"  baseline {baseline.letter}: {one_line(baseline.name, 40)} ({why})", "$foreground 70%"),
            )
        )
        texts: dict[str, Callable[[int], Content]] = {
            "runs": lambda width: runs_text(comparison, self.axis, self.cursor, width),
            "evaluations": lambda width: evaluations_text(comparison, width),
            "settings": lambda width: settings_text(comparison, width),
        }
        for name, text in texts.items():
            width = self.query_one(f"#compare-{name}", Pane).scrollable_content_region.width
            if width:
                self.query_one(f"#compare-{name}-text", Static).update(text(width))

    def watch_metric(self) -> None:
        self._read()

    def watch_smoothing(self) -> None:
        self._read()

    def watch_axis(self) -> None:
        self.cursor = None
        self._show()

    def watch_cursor(self) -> None:
        self.query_one(OverlayChart).mark(self.cursor)
        self._show_text()

    def watch_view(self) -> None:
        for view in VIEWS:
            self.set_class(view == self.view, f"-view-{view}")
        tabs = [
            (f"[{view}] " if view == self.view else f" {view}  ", "bold" if view == self.view else "$foreground 70%")
            for view in VIEWS
        ]
        self.query_one("#compare-tabs", Static).update(Content.assemble(*tabs))
        self.call_after_refresh(self._show_text)

    # Actions

    def action_axis(self) -> None:
        self.axis = AXES[(AXES.index(self.axis) + 1) % len(AXES)]

    def action_smooth(self) -> None:
        self.smoothing = SMOOTHINGS[(SMOOTHINGS.index(self.smoothing) + 1) % len(SMOOTHINGS)]

    def action_view(self) -> None:
        self.view = VIEWS[(VIEWS.index(self.view) + 1) % len(VIEWS)]

    @on(OverlayChart.Picked)
    def _pick(self, event: OverlayChart.Picked) -> None:
        self._go(event.x)

    def action_move(self, columns: int) -> None:
        chart = self.query_one(OverlayChart)
        if chart.span is None:
            return
        first, last = chart.span
        column = (last - first) / max(1, chart.columns - 1)
        column = max(1.0, column) if self.axis == "step" else column
        self._go((last if self.cursor is None else self.cursor) + columns * column)

    def action_first(self) -> None:
        if (span := self.query_one(OverlayChart).span) is not None:
            self._go(span[0])

    def action_last(self) -> None:
        self.cursor = None

    def _go(self, x: float) -> None:
        """Move the cursor to ``x``, limited to the chart's span and rounded to a whole step on the step axis."""
        span = self.query_one(OverlayChart).span
        if span is not None:
            x = min(span[1], max(span[0], x))
            self.cursor = float(round(x)) if self.axis == "step" else x

    def action_scroll(self, lines: int) -> None:
        name = "settings" if self.has_class("-wide") else self.view
        self.query_one(f"#compare-{name}", Pane).scroll_relative(y=lines, animate=False)

    def action_metric(self) -> None:
        comparison = self._comparison
        if comparison is None or not comparison.metrics:
            self.notify("No metrics yet: no run has finished a step.", markup=False)
            return

        def chosen(metric: str | None) -> None:
            if metric is not None:
                self.metric = metric

        self.app.push_screen(MetricChoice(comparison.metrics, self.metric), chosen)

    def action_save(self) -> None:
        if self._comparison is None:
            return

        def saved(path: Path | None) -> None:
            if path is not None:
                self.notify(f"Saved {one_line(str(path))}", markup=False)

        self.app.push_screen(SaveDialog(self._comparison, self.axis), saved)

    def action_back(self) -> None:
        self.app.pop_screen()


def _axis_name(axis: Axis) -> str:
    return {"step": "step", "time": "training time", "tokens": "completion tokens"}[axis]


def _place(axis: Axis, x: float) -> str:
    return {"step": f"{x:.0f}", "time": duration(x), "tokens": amount(x)}[axis]
