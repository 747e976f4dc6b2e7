"""The samples screen: a step's completions in a table, with one pair of them in full beside it."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.widgets import DataTable, Static

from aapo_desk.store import Place, RunDirectory, SampleReader, Span
from aapo_desk.tui.poll import ReadFailed
from aapo_desk.tui.sample_filters import FILTER_HELP, FILTERS, FilterError, holds, typed_filter
from aapo_desk.tui.sample_poll import SamplePoll, SearchDone, SearchProgress, SpanRead, StepRead
from aapo_desk.tui.sample_rows import Column, Pair, best, columns, ordered, pairs, worst
from aapo_desk.tui.screens.guard import DeskScreen, TooSmall
from aapo_desk.tui.text import one_line
from aapo_desk.tui.widgets.ask_line import AskLine
from aapo_desk.tui.widgets.keysline import KeysLine
from aapo_desk.tui.widgets.sample_detail import SampleDetail
from aapo_desk.tui.widgets.sample_table import ASCENDING, DESCENDING, SampleTable

JUMP = 10
FIND, FILTER = "find", "filter"
MUTED = "$foreground 70%"
STEPS = Binding.Group("Step", compact=True)
ENDS = Binding.Group("Best/worst", compact=True)
UPWARD = {"row", "prompt"}  # columns sorted in ascending order at first
NOTHING_YET = "No completions yet. They appear after the first step."


class SamplesScreen(DeskScreen[None]):
    """The stored completions of a run, opened on top of the monitor at ``step``; None follows the newest step."""

    CSS_PATH = "samples.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1)", "Previous step", key_display="←", group=STEPS),
        Binding("right", "move(1)", "Next step", key_display="→", group=STEPS),
        Binding("h,left_square_bracket", "move(-1)", "Previous step", show=False),
        Binding("l,right_square_bracket", "move(1)", "Next step", show=False),
        Binding("shift+left,H", f"move(-{JUMP})", f"Back {JUMP} steps", show=False),
        Binding("shift+right,L", f"move({JUMP})", f"Forward {JUMP} steps", show=False),
        Binding("home", "first", "First step", show=False),
        Binding("end,G", "follow", "Follow the newest step", show=False),
        Binding("B", "best", "Best", group=ENDS, tooltip="Go to the row with the highest reward, of those shown"),
        Binding("W", "worst", "Worst", group=ENDS, tooltip="Go to the row with the lowest reward, of those shown"),
        Binding("down,j", "row(1)", "Next row", show=False),
        Binding("up,k", "row(-1)", "Previous row", show=False),
        Binding("slash", "find", "Find", key_display="/", tooltip="Find text in all steps' prompts and completions"),
        Binding("n", "find_next(True)", "Next match", show=False),
        Binding("N", "find_next(False)", "Previous match", show=False),
        Binding("f", "next_filter", "Filter", tooltip="Next filter: cut off, unscorable, by advantage, by margin"),
        Binding("F", "type_filter", "Type a filter", show=False, tooltip=f"Type a filter, like {FILTER_HELP}"),
        Binding("s", "sort(1)", "Sort", tooltip="Sort by the next column"),
        Binding("S", "sort(-1)", "Sort by the previous column", show=False),
        Binding("r", "reverse", "Reverse the order", show=False),
        Binding("enter,o", "whole", "Whole", key_display="⏎", tooltip="Show only the texts, or the table again"),
        Binding("J,shift+down", "scroll(1)", "Scroll the texts down", show=False),
        Binding("K,shift+up", "scroll(-1)", "Scroll the texts up", show=False),
        Binding("pagedown,space", "page(1)", "A page down in the texts", show=False),
        Binding("pageup", "page(-1)", "A page up in the texts", show=False),
        Binding("y", "copy('completion')", "Copy the policy's completion", show=False),
        Binding("Y", "copy('reference')", "Copy the reference's completion", show=False),
        Binding("p", "copy('prompt')", "Copy the prompt", show=False),
        Binding("escape", "back", "Back", key_display="esc", tooltip="Stop the search, or go back to the monitor"),
        Binding("b", "back", "Back", show=False),
    ]

    def __init__(self, run: RunDirectory, step: int | None) -> None:
        super().__init__()
        self.run_directory = run
        self.step = 0
        self.following = step is None
        self._goal = step or 0
        self._poll = SamplePoll(self, SampleReader(run))
        self._run_name = one_line(run.name)
        self._span: Span | None = None
        self._pairs: list[Pair] = []
        self._columns: list[Column] = columns([])
        self._row = 0
        self._sort, self._descending = "row", False
        self._filter, self._typed = next(iter(FILTERS)), ""
        self._wanted = ""
        self._searching: int | None = None
        self._row_found: int | None = None

    def compose(self) -> ComposeResult:
        yield TooSmall(id="too-small")
        yield Static(id="samples-title", markup=False)
        yield Static(id="samples-state", markup=False)
        with Container(id="samples-body"):
            yield SampleTable(id="sample-table")
            yield SampleDetail(id="sample-detail")
        yield AskLine(id="ask")
        yield KeysLine()

    def on_mount(self) -> None:
        self._fill()
        self.query_one(SampleTable).focus()
        self._poll.start()
        if not self.following:
            self._poll.want(self._goal, True)

    # Data read

    @on(SpanRead)
    def _take_span(self, message: SpanRead) -> None:
        before, self._span = self._span, message.span
        if message.span is None:
            return
        rewound = before is not None and before.generation != message.span.generation
        if self.following and (rewound or message.span.last != self.step):
            self._go_to(message.span.last, True)
        elif rewound:
            self._poll.want(self._goal, False)
        self._show_title()

    @on(StepRead)
    def _take_step(self, message: StepRead) -> None:
        if message.goal != self._goal:
            return
        self.step = self._goal = message.step
        self._pairs = pairs(message.samples)
        self._columns = columns(self._pairs)
        if self._sort not in {column.key for column in self._columns}:
            self._sort, self._descending = "row", False
        with self.app.batch_update():
            self._fill()
        if self._row_found is not None:
            self._choose_found(self._row_found)

    @on(ReadFailed)
    def _say_unreadable(self, message: ReadFailed) -> None:
        self._searching = None
        self.query_one("#samples-state", Static).update(Content.styled(one_line(message.reason), "$text-error"))

    # Drawing

    def _fill(self) -> None:
        table = self.query_one(SampleTable)
        place = max(0, table.cursor_row)
        items = self._chosen_rows()
        rows = [pair.some.row for pair in items]
        place = rows.index(self._row) if self._row in rows else place
        table.show(items, self._columns, self._sort, self._descending, place)
        self._show_pair()
        self._show_title()

    def _chosen_rows(self) -> list[Pair]:
        try:
            typed = typed_filter(self._typed, self._columns)
        except FilterError:  # the filter names a reward function that this step does not have
            typed = FILTERS["all rows"]
        named = FILTERS[self._filter]
        kept = [pair for pair in self._pairs if named(pair) and typed(pair)]
        column = next(column for column in self._columns if column.key == self._sort)
        return ordered(kept, column, self._descending)

    def _show_pair(self) -> None:
        pair = self.query_one(SampleTable).chosen
        if pair is not None:
            self._row = pair.some.row
        absent = "No row matches the filter. Press f or F to change it." if self._pairs else NOTHING_YET
        self.query_one(SampleDetail).show(pair, absent, self._wanted)

    def _show_title(self) -> None:
        last = self._span.last if self._span else self.step
        where = f"step {self.step} of {last}" if self.step else "no step yet"
        newest = "  ▶ newest" if self.following else "  end: newest"
        self.query_one("#samples-title", Static).update(
            Content.assemble((self._run_name, "bold"), f"  samples  {where}", (newest, MUTED))
        )
        self.query_one("#samples-state", Static).update(self._state())

    def _state(self) -> Content:
        """Return the state line: the number of rows, their order, the filters and the search."""
        shown, mark = len(self.query_one(SampleTable).shown), DESCENDING if self._descending else ASCENDING
        count = f"{shown} row{'' if shown == 1 else 's'}"
        parts = [count if shown == len(self._pairs) else f"{shown} of {len(self._pairs)} rows"]
        parts.append(f"by {one_line(self._sort, 20)} {mark}")
        if self._filter != next(iter(FILTERS)):
            parts.append(self._filter)
        if self._typed:
            parts.append(self._typed)
        if self._wanted:
            here = sum(holds(pair, self._wanted) for pair in self._pairs)
            parts.append(f"/{self._wanted}: {here} here, n next")
        if self._searching is not None:
            parts.append(f"searching, step {self._searching} …  esc stops")
        return Content(" · ".join(parts))

    @on(DataTable.RowHighlighted)
    def _row_chosen(self, event: DataTable.RowHighlighted) -> None:
        event.stop()
        pair = self.query_one(SampleTable).chosen
        if pair is not None and pair.some.row != self._row:
            self._show_pair()

    # Navigation

    def _go_to(self, goal: int, forward: bool) -> None:
        if self._span is None:
            return
        self._goal = min(self._span.last, max(self._span.first, goal))
        self.following = self._goal == self._span.last
        self._row_found = None
        self._poll.want(self._goal, forward)

    def action_move(self, by: int) -> None:
        self._go_to(self._goal + by, by > 0)

    def action_first(self) -> None:
        self._go_to(0, True)

    def action_follow(self) -> None:
        if self._span is not None:
            self._go_to(self._span.last, True)

    def action_row(self, by: int) -> None:
        table = self.query_one(SampleTable)
        table.move_cursor(row=min(max(0, table.cursor_row + by), max(0, len(table.shown) - 1)), animate=False)
        self._show_pair()

    def action_best(self) -> None:
        self._choose(best(self.query_one(SampleTable).shown))

    def action_worst(self) -> None:
        self._choose(worst(self.query_one(SampleTable).shown))

    def _choose(self, pair: Pair | None) -> None:
        table = self.query_one(SampleTable)
        if pair is None:
            self.notify("No row shown has a reward.", severity="warning")
            return
        table.move_cursor(row=table.shown.index(pair), animate=False)
        self._show_pair()

    def action_whole(self) -> None:
        self.toggle_class("-whole")
        self.query_one(SampleDetail).show_whole(self.has_class("-whole"))

    def action_scroll(self, by: int) -> None:
        self.query_one(SampleDetail).scroll_relative(y=by, animate=False)

    def action_page(self, by: int) -> None:
        detail = self.query_one(SampleDetail)
        detail.scroll_relative(y=by * max(1, detail.size.height - 1), animate=False)

    def action_back(self) -> None:
        if self._searching is not None:
            self.workers.cancel_group(self, "search")
            self._searching = None
            self._show_title()
        else:
            self.dismiss()

    def farewell(self) -> str:
        stack = self.app.screen_stack
        below = stack[stack.index(self) - 1]
        return below.farewell() if isinstance(below, DeskScreen) else ""

    # Order and filters

    def action_sort(self, by: int) -> None:
        keys = [column.key for column in self._columns]
        self._sort_by(keys[(keys.index(self._sort) + by) % len(keys)])

    def action_reverse(self) -> None:
        self._descending = not self._descending
        self._fill()

    @on(DataTable.HeaderSelected)
    def _sort_clicked(self, event: DataTable.HeaderSelected) -> None:
        event.stop()
        if event.column_key.value == self._sort:
            self.action_reverse()
        elif event.column_key.value is not None:
            self._sort_by(event.column_key.value)

    def _sort_by(self, key: str) -> None:
        self._sort, self._descending = key, key not in UPWARD
        self._fill()

    def action_next_filter(self) -> None:
        names = list(FILTERS)
        self._filter = names[(names.index(self._filter) + 1) % len(names)]
        self._fill()

    def action_type_filter(self) -> None:
        self.query_one(AskLine).ask(FILTER, self._typed, FILTER_HELP)

    @on(AskLine.Answered)
    def _take_line(self, message: AskLine.Answered) -> None:
        line = self.query_one(AskLine)
        if message.purpose == FIND:
            self._wanted = message.text
            self._show_pair()
            if message.text:
                self._search(Place(self._goal, self._row - 1), True)
        else:
            try:
                typed_filter(message.text, self._columns)
            except FilterError as error:
                line.refuse(one_line(str(error)))
                return
            self._typed = message.text.strip()
            self._fill()
        line.action_close()
        self._show_title()

    @on(AskLine.Closed)
    def _line_closed(self) -> None:
        self.query_one(SampleTable).focus()

    # Search

    def action_find(self) -> None:
        self.query_one(AskLine).ask(FIND, self._wanted, "text in the prompts and completions of all steps")

    def action_find_next(self, forward: bool) -> None:
        if self._wanted:
            self._search(Place(self._goal, self._row), forward)
        else:
            self.action_find()

    def _search(self, start: Place, forward: bool) -> None:
        self._searching = start.step
        self._poll.search(self._wanted, start, forward)

    @on(SearchProgress)
    def _tell_progress(self, message: SearchProgress) -> None:
        if self._searching is not None:
            self._searching = message.step
            self._show_title()

    @on(SearchDone)
    def _take_place(self, message: SearchDone) -> None:
        self._searching = None
        place = message.place
        if place is None:
            self.notify(f"Not found: {one_line(self._wanted, 60)}", severity="warning", markup=False)
        elif place.step == self.step == self._goal:
            self._choose_found(place.row)
        else:
            self._go_to(place.step, True)
            self._row_found = place.row
        self._show_title()

    def _choose_found(self, row: int) -> None:
        """Move the cursor to a row; clear the filters if they hide it."""
        self._row_found = None
        if row not in [pair.some.row for pair in self.query_one(SampleTable).shown]:
            self._filter, self._typed = next(iter(FILTERS)), ""
            self.notify("The filter hid the match and has been cleared.", markup=False)
        self._row = row
        self._fill()

    # Copying

    def action_copy(self, what: str) -> None:
        pair = self.query_one(SampleTable).chosen
        if pair is None:
            return
        side = pair.reference if what == "reference" else pair.policy
        if side is None:
            self.notify("This row has no such completion.", severity="warning")
            return
        text = side.prompt if what == "prompt" else side.completion
        self.app.copy_to_clipboard(text.encode("utf-8", errors="replace").decode())
        name = {"completion": "the policy's completion", "reference": "the reference's completion"}.get(
            what, "the prompt"
        )
        self.notify(f"Copied {name}, {len(text)} characters.", timeout=3, markup=False)
