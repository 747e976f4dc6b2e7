"""The charts of a run: one in a narrow terminal, as many as fit in a wide one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.message import Message
from textual.reactive import reactive

from aapo_desk.store import Histogram
from aapo_desk.tui.charts import BY_NAME, BY_NAME_WITHOUT_MARGIN, ChartSpec, Curve
from aapo_desk.tui.choices import ChartChoices, load_choices, save_choices
from aapo_desk.tui.history import History
from aapo_desk.tui.trace import Trace, smoothed_at
from aapo_desk.tui.widgets.braille import Series, Style
from aapo_desk.tui.widgets.chart import LineChart
from aapo_desk.tui.widgets.heatmap import HeatMap
from aapo_desk.tui.widgets.plot import Heading, Legend, Plot

LEAST_WIDTH, LEAST_HEIGHT = 42, 7
WAYS: list[tuple[str, str, Style]] = [("lead", "━━", "line"), ("second", "╍╍", "dashes"), ("third", "┈┈", "dots")]
RAW = "⠐⠂"

Mode = Literal["panel", "all", "one"]
Which = Literal["previous", "next", "earlier", "later", "one", "all", "smooth", "log", "hide", "show"]

GROUP = Binding.Group("Chart", compact=True)
CHART_KEYS: list[BindingType] = [
    Binding("left_square_bracket", "chart('previous')", "Previous chart", key_display="[", group=GROUP),
    Binding("right_square_bracket", "chart('next')", "Next chart", key_display="]", group=GROUP),
    Binding("m", "chart('one')", "Max", show=False, tooltip="Show only this chart at full size, or go back"),
    Binding("w", "chart('all')", "All charts", show=False, tooltip="Fill the screen with charts, or go back"),
    Binding(
        "e",
        "chart('smooth')",
        "Smooth",
        show=False,
        tooltip="Turn the chart's smoothed line (an exponential moving average) on or off",
    ),
    Binding("y", "chart('log')", "Logarithmic", show=False, tooltip="Turn the chart's logarithmic axis on or off"),
    Binding("x", "chart('hide')", "Hide the chart", show=False),
    Binding("X", "chart('show')", "Show all charts again", show=False),
    Binding(
        "left_curly_bracket",
        "chart('earlier')",
        "Move chart forward",
        key_display="{",
        show=False,
        tooltip="Move the chart one place forward",
    ),
    Binding(
        "right_curly_bracket",
        "chart('later')",
        "Move chart back",
        key_display="}",
        show=False,
        tooltip="Move the chart one place back",
    ),
]


class Charts(Container):
    """The charts that the user has not hidden, in pages. The page with the chosen chart is shown.

    Only visible charts are kept up to date.
    """

    chosen: reactive[str] = reactive("", init=False)
    mode: reactive[Mode] = reactive("panel", init=False)

    class HistogramsWanted(Message):
        """The heat map needs the histograms of these steps."""

        def __init__(self, name: str, steps: list[int]) -> None:
            super().__init__()
            self.name = name
            self.steps = steps

    class Arranged(Message):
        """Another chart was chosen, or the layout of the charts changed."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.choices = load_choices()
        self.set_reactive(Charts.chosen, self.choices.visible[0])
        self._specs = BY_NAME
        self._history = History()
        self._traces: dict[str, Trace] = {}
        self._step = 0
        self._cursor_line = False

    def compose(self) -> ComposeResult:
        for name in self.choices.order:
            spec = self._specs[name]
            kind = HeatMap if spec.histogram else LineChart
            yield kind(spec.title, "waiting for the first step", id=f"chart-{name}")

    @property
    def spec(self) -> ChartSpec:
        """Return the specification of the chosen chart."""
        return self._specs[self.chosen]

    # Input

    def take(self, history: History, reset: bool) -> None:
        """Take over the run's history so far.

        ``reset`` means that the history was replaced, and not only extended by new steps.
        """
        self._history = history
        if reset:
            self._traces.clear()
            for heat_map in self.query(HeatMap):
                heat_map.clear()
        self._draw()

    def suit(self, margin: bool) -> None:
        """Use the titles and notes for an algorithm with or without a ``margin``."""
        specs = BY_NAME if margin else BY_NAME_WITHOUT_MARGIN
        if specs is not self._specs:
            self._specs = specs
            self._arrange()

    def take_histograms(self, name: str, histograms: Mapping[int, Histogram | None]) -> None:
        """Add histograms that were asked for with ``HistogramsWanted``."""
        for spec in self._specs.values():
            if spec.histogram == name:
                self.query_one(f"#chart-{spec.name}", HeatMap).add(histograms)
        self._ask()

    def mark(self, step: int, line: bool) -> None:
        """Put the cursor on a step; ``line`` draws it as a vertical line through the plot."""
        self._step, self._cursor_line = step, line
        for name in self.in_sight:
            self._mark(self._specs[name])

    def wait(self, reason: str) -> None:
        """Set the text that is shown while there is nothing to draw."""
        for plot in self.query(Plot):
            plot.wait(reason)

    # Layout

    @property
    def shape(self) -> tuple[int, int]:
        """Return the number of columns and rows of charts on a page."""
        if self.mode == "one":
            return 1, 1
        visible = len(self.choices.visible)
        columns = min(visible, max(1, self.size.width // LEAST_WIDTH))
        return columns, min(-(-visible // columns), max(1, self.size.height // LEAST_HEIGHT))

    @property
    def in_sight(self) -> list[str]:
        """Return the names of the charts on the page of the chosen chart."""
        visible = self.choices.visible
        columns, rows = self.shape
        start = visible.index(self.chosen) // (columns * rows) * columns * rows
        return visible[start : start + columns * rows]

    def on_resize(self, event: events.Resize) -> None:
        self._arrange()

    def watch_chosen(self) -> None:
        self._arrange()

    def watch_mode(self) -> None:
        self._arrange()

    def _arrange(self) -> None:
        visible, in_sight = self.choices.visible, self.in_sight
        self.styles.grid_size_columns, self.styles.grid_size_rows = self.shape
        with self.app.batch_update():
            for name, spec in self._specs.items():
                plot = self._plot(name)
                plot.display = name in in_sight
                if not plot.display:
                    continue
                words = [
                    word for word, used in (("log", name in self.choices.log), ("each step", self._raw(spec))) if used
                ]
                alone = len(in_sight) == 1
                place = f"[ {visible.index(name) + 1}/{len(visible)} ]" if name == self.chosen else ""
                chosen = None if alone else name == self.chosen
                plot.head(Heading(chosen, place, ", ".join(words), spec.note, spec.insists))
            self._draw()
        self.post_message(self.Arranged())

    def _plot(self, name: str) -> Plot:
        return self.query_one(f"#chart-{name}", Plot)

    def _raw(self, spec: ChartSpec) -> bool:
        """Return whether the user has turned off the smoothed line of a chart that has one by default."""
        return spec.smooth and not self._smooth(spec)

    def _smooth(self, spec: ChartSpec) -> bool:
        return spec.name in self.choices.smooth

    def _draw(self) -> None:
        """Update the visible charts."""
        history = self._history
        for name in self.in_sight:
            spec, plot = self._specs[name], self._plot(name)
            if isinstance(plot, HeatMap):
                plot.span(history.first_step, history.last_step)
            elif isinstance(plot, LineChart):
                if history.steps:
                    plot.wait(f"no value{' above 0' if name in self.choices.log else ''} in any step so far")
                plot.show(self._series(spec), self._legend(spec), name in self.choices.log, spec.span)
            self._mark(spec)
        self._ask()

    def _ask(self) -> None:
        history = self._history
        for name in self.in_sight:
            plot = self._plot(name)
            if isinstance(plot, HeatMap) and history.steps:
                missing = plot.missing(history.first_step, history.last_step)
                if missing:
                    self.post_message(self.HistogramsWanted(self._specs[name].histogram, missing))

    def _mark(self, spec: ChartSpec) -> None:
        plot = self._plot(spec.name)
        plot.mark(self._step or None, self._legend(spec) if spec.curves else [], self._cursor_line)

    def trace(self, key: str) -> Trace:
        """Return the updated trace of a metric: its history reduced to a few numbers."""
        trace = self._traces.setdefault(key, Trace())
        trace.update(self._history.steps, self._history.column(key))
        return trace

    def _curves(self, spec: ChartSpec) -> list[tuple[Curve, tuple[str, str, Style]]]:
        """Return the curves that have values, each with its name, legend mark and line style.

        The first curve is always included, so that the legend shows what is missing.
        """
        ways = zip(spec.curves, WAYS, strict=False)
        return [each for place, each in enumerate(ways) if not place or not self.trace(each[0].key).empty]

    def _series(self, spec: ChartSpec) -> list[Series]:
        smooth = self._smooth(spec)
        series: list[Series] = []
        for curve, (name, _, style) in reversed(self._curves(spec)):
            trace = self.trace(curve.key)
            series.append(Series(name, trace.steps, trace.smooth() if smooth else trace.means, style))
        if smooth:
            steps, values = self.trace(spec.curves[0].key).spread()
            series.insert(0, Series("raw", steps, values, "points"))
        return series

    def _legend(self, spec: ChartSpec) -> list[Legend]:
        smooth, history = self._smooth(spec), self._history
        place = history.index(self._step)
        legend: list[Legend] = []
        for curve, (name, mark, _) in self._curves(spec):
            values = history.column(curve.key)
            value = smoothed_at(values, place) if smooth and place is not None else history.value(curve.key, self._step)
            text = spec.form(value)
            labels = [f"{label} {text}".lstrip() for label in (curve.label, curve.short)]
            legend.append(Legend(name, mark, labels[0], labels[1]))
        if smooth:
            text = spec.form(history.value(spec.curves[0].key, self._step))
            legend.append(Legend("raw", RAW, f"each step {text}", text))
        return legend

    # User actions

    def perform(self, which: Which) -> None:
        """Do what a key of ``CHART_KEYS`` asks for to the chosen chart."""
        visible = self.choices.visible
        match which:
            case "previous" | "next":
                by = 1 if which == "next" else -1
                self.chosen = visible[(visible.index(self.chosen) + by) % len(visible)]
            case "one" | "all":
                self.mode = "panel" if self.mode == which else which
            case "hide":
                self._hide()
            case "show":
                self._choose(self.choices.show_all())
            case "smooth":
                self._choose(self.choices.toggle_smooth(self.chosen))
            case "log":
                self._choose(self.choices.toggle_log(self.chosen))
            case "earlier" | "later":
                self._choose(self.choices.move(self.chosen, 1 if which == "later" else -1))

    def _hide(self) -> None:
        visible = self.choices.visible
        if len(visible) == 1:
            self.notify("The last chart cannot be hidden.", timeout=3)
            return
        hidden = self.chosen
        place = visible.index(hidden)
        self.chosen = visible[place + 1] if place + 1 < len(visible) else visible[place - 1]
        self._choose(self.choices.hide(hidden))
        self.notify("Hidden. X shows all charts again.", timeout=3)

    def _choose(self, choices: ChartChoices) -> None:
        """Apply the user's chart preferences and save them."""
        if choices == self.choices:
            return
        self.choices = choices
        self.sort_children(key=lambda child: choices.order.index((child.id or "").removeprefix("chart-")))
        self._arrange()
        try:
            save_choices(choices)
        except OSError as error:
            self.notify(f"Could not save chart preferences: {error}", severity="warning", markup=False)

    @on(Plot.Picked)
    def _pick(self, message: Plot.Picked) -> None:
        self.chosen = (message.plot.id or "").removeprefix("chart-")
