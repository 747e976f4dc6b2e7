"""Home: the runs there are, and the presets to start one from."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.message import Message
from textual.widgets import DataTable, Footer, OptionList, Static
from textual.widgets.option_list import Option

from aapo_desk.tui.labels import LIVE_STATES, age, clipped, model_label, number, state_label
from aapo_desk.tui.poll import READ_ERRORS, PresetRow, RunList, RunRow
from aapo_desk.tui.screens.dialogs import StartQuestion
from aapo_desk.tui.screens.guard import DeskScreen, TooSmall
from aapo_desk.tui.text import one_line

SECONDS = 2.0
COLUMNS = {"state": 10, "name": 20, "model": 16, "step": 9, "reward": 6, "age": 6}
LONGEST = {"name": 40, "model": 30}
PRESETS_WIDTH = 54  # in a wide terminal, with its margin; as in app.tcss
SCROLLBAR = 1

WELCOME = """\
No runs yet.

Press Enter to see the demo: a small language model (SmolLM2, 135 million parameters) learns to add numbers with \
AAPO, on this machine's processor, in minutes. You watch its reward rise above the frozen reference's.\
"""


class RunsRead(Message):
    """The list of runs has come."""

    def __init__(self, rows: list[RunRow]) -> None:
        super().__init__()
        self.rows = rows


class PresetsRead(Message):
    """The list of presets has come."""

    def __init__(self, rows: list[PresetRow]) -> None:
        super().__init__()
        self.rows = rows


class RunTable(DataTable[Text]):
    """The runs; the arrows move, Enter opens."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select_cursor", "Open", tooltip="Watch this run"),
        Binding("j", "cursor_down", "Down", show=False),
        Binding("k", "cursor_up", "Up", show=False),
    ]


class PresetList(OptionList):
    """The presets; Enter shows one and asks whether to start it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select", "Start", tooltip="Show what this preset is, then start it"),
        Binding("e", "screen.new_run", "Edit, then start", tooltip="Open this preset as a form"),
        Binding("j", "cursor_down", "Down", show=False),
        Binding("k", "cursor_up", "Up", show=False),
    ]


class HomeScreen(DeskScreen[None]):
    """Runs and presets side by side, or one above the other."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "app.focus_next", "Runs / presets"),
        Binding("n", "new_run", "New run", tooltip="Open the preset under the cursor, else the demo, as a form"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._list = RunList()
        self._reading = False
        self._rows: list[RunRow] | None = None
        self._presets: list[PresetRow] = []
        self._widths = dict(COLUMNS)

    def compose(self) -> ComposeResult:
        yield TooSmall(id="too-small")
        yield Static(id="title", markup=False)
        with Container(id="lists"):
            with Container(id="runs"):
                yield Static("runs", classes="list-title")
                yield Static(WELCOME, id="welcome", markup=False)
                yield RunTable(id="run-table", cursor_type="row", zebra_stripes=False)
            with Container(id="presets"):
                yield Static("start a new run", classes="list-title")
                yield PresetList(id="preset-list", markup=False)
        yield Footer(compact=True)

    def on_mount(self) -> None:
        self._set_title()
        self.set_interval(SECONDS, self._read_runs)

    def on_screen_resume(self) -> None:
        self._read_runs()
        self.run_worker(self._load_presets, thread=True, group="presets", exit_on_error=False)

    # What comes in

    def _read_runs(self) -> None:
        if self.is_current and not self._reading:
            self._reading = True
            self.run_worker(self._load_runs, thread=True, group="runs", exit_on_error=False)

    def _load_runs(self) -> None:
        try:
            self.post_message(RunsRead(self._list.read()))
        except READ_ERRORS as error:
            self.notify(one_line(str(error)), severity="error", markup=False)
        finally:
            self._reading = False

    def _load_presets(self) -> None:
        self.post_message(PresetsRead(self.desk.read_presets()))

    @on(PresetsRead)
    def _show_presets(self, message: PresetsRead) -> None:
        self._presets = message.rows
        self._fill_presets()

    def _fill_presets(self) -> None:
        options = self.query_one(PresetList)
        place = options.highlighted or 0
        wide = self.has_class("-wide")
        options.clear_options()
        options.add_options([Option(_offer(row, wide), id=row.name) for row in self._presets])
        options.highlighted = place if self._presets else None

    @on(RunsRead)
    def _show_runs(self, message: RunsRead) -> None:
        first = self._rows is None
        before = [row.run.id for row in self._rows or []]
        self._rows = message.rows
        with self.app.batch_update():
            table = self.query_one(RunTable)
            table.display = bool(message.rows)
            self.query_one("#welcome").display = not message.rows
            self._set_title()
            if before != [row.run.id for row in message.rows] or not table.columns:
                self._rebuild()
            else:
                self._refresh_cells()
        if first:
            (table if message.rows else self.query_one(PresetList)).focus()

    def on_resize(self) -> None:
        widths = _column_widths(self.size.width - (PRESETS_WIDTH if self.has_class("-wide") else 0))
        if widths != self._widths:
            self._widths = widths
            self._fill_presets()
            if self._rows is not None:
                self._rebuild()

    def _rebuild(self) -> None:
        """Fill the table anew, with the cursor on the run it was on."""
        table = self.query_one(RunTable)
        rows = self._rows or []
        key = table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value if table.row_count else None
        table.clear(columns=True)
        for name, width in self._widths.items():
            table.add_column(name, width=width, key=name)
        for row in rows:
            table.add_row(*self._cells(row).values(), key=row.run.id)
        ids = [row.run.id for row in rows]
        table.move_cursor(row=ids.index(key) if key in ids else 0)

    def _refresh_cells(self) -> None:
        table = self.query_one(RunTable)
        for row in self._rows or []:
            for column, cell in self._cells(row).items():
                if table.get_cell(row.run.id, column) != cell:
                    table.update_cell(row.run.id, column, cell)

    def _cells(self, row: RunRow) -> dict[str, Text]:
        widths = self._widths
        return {
            "state": Text(state_label(row.state), style="bold" if row.state in LIVE_STATES else ""),
            "name": Text(clipped(one_line(row.name), widths["name"])),
            "model": Text(clipped(one_line(model_label(row.model)), widths["model"])),
            "step": Text(f"{row.step}/{row.steps}", justify="right"),
            "reward": Text(number(row.reward), justify="right"),
            "age": Text(age(self.desk.clock() - row.created), justify="right"),
        }

    def _set_title(self) -> None:
        rows = self._rows or []
        live = sum(row.state in LIVE_STATES for row in rows)
        count = f"{len(rows)} run{'' if len(rows) == 1 else 's'}, {live} live" if rows else ""
        self.query_one("#title", Static).update(
            Content.assemble(
                ("AAPO Desk", "bold $text-primary"),
                f"  {count}",
                ("  runs go on when you leave" if rows else "", "$foreground 70%"),
            )
        )

    def farewell(self) -> str:
        live = sum(row.state in LIVE_STATES for row in self._rows or [])
        return f"{live} run{' goes' if live == 1 else 's go'} on. Watch with: aapo-desk" if live else ""

    # What is asked for

    @on(RunTable.RowSelected)
    def _open_run(self, event: RunTable.RowSelected) -> None:
        row = next((row for row in self._rows or [] if row.run.id == event.row_key.value), None)
        if row:
            self.desk.open_monitor(row.run)

    @on(OptionList.OptionSelected)
    def _ask_to_start(self, event: OptionList.OptionSelected) -> None:
        row = self._presets[event.option_index]
        if row.config is None:
            self.notify(one_line(row.error), severity="error", markup=False)
            return
        config = row.config

        def answered(yes: bool | None) -> None:
            if yes:
                self.desk.prepare(config, None)

        self.app.push_screen(StartQuestion(row), answered)

    def action_new_run(self) -> None:
        options = self.query_one(PresetList)
        place = options.highlighted if options.has_focus else None
        if not self._presets:
            return
        row = self._presets[place or 0]
        if row.config is None:
            self.notify(one_line(row.error), severity="error", markup=False)
        else:
            self.desk.edit(row.name, row.config)


def _column_widths(room: int) -> dict[str, int]:
    """The columns' widths without their padding: names and models get what the others leave."""
    left = room - SCROLLBAR - sum(COLUMNS.values()) - 2 * len(COLUMNS)
    name = min(LONGEST["name"], max(8, COLUMNS["name"] + left * 2 // 3))
    model = min(LONGEST["model"], max(6, COLUMNS["model"] + left - (name - COLUMNS["name"])))
    return COLUMNS | {"name": name, "model": model}


def _offer(row: PresetRow, wide: bool) -> Content:
    """A preset in one line, or in two where there is height for it."""
    name, title = one_line(row.name), "✗ cannot be used" if row.error else one_line(row.title)
    if wide:
        return Content.assemble((name, "bold"), "\n", (f"  {title}", "$foreground 70%"))
    return Content.assemble((f"{name:<24} ", "bold"), (title, "$foreground 70%"))
