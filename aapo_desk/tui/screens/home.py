"""The home screen: the list of runs, and the presets from which a run can be started."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.message import Message
from textual.widgets import DataTable, Input, OptionList, Static

from aapo_desk.config import ConfigError, RunConfig
from aapo_desk.store import RunDirectory, check_name, pin_run, rename_run
from aapo_desk.tui.arranging import VALUES, Order, arranged, matching
from aapo_desk.tui.labels import LIVE_STATES
from aapo_desk.tui.listing import PresetRow, RunList, RunRow
from aapo_desk.tui.poll import READ_ERRORS
from aapo_desk.tui.screens.dialogs import StartQuestion
from aapo_desk.tui.screens.guard import DeskScreen, TooSmall
from aapo_desk.tui.screens.managing import DeleteQuestion, RenameDialog
from aapo_desk.tui.text import one_line, visible
from aapo_desk.tui.widgets.keysline import KeysLine
from aapo_desk.tui.widgets.presetlist import PresetList
from aapo_desk.tui.widgets.queueline import QueueLine
from aapo_desk.tui.widgets.runfilter import RunFilter, put
from aapo_desk.tui.widgets.runtable import RunTable

SECONDS = 2.0
PRESETS_WIDTH = 54  # in a wide terminal, with its margin; as in home.tcss

WELCOME = """\
No runs yet.

Press Enter to see the demo: a small language model (SmolLM2, 135 million parameters) learns to add numbers with \
AAPO, on this machine's CPU, in minutes. You can watch its reward rise above that of the frozen reference.\
"""
NO_MATCH = "No run matches. Press esc to list them all."


class RunsRead(Message):
    """The list of runs has been read."""

    def __init__(self, rows: list[RunRow]) -> None:
        super().__init__()
        self.rows = rows


class PresetsRead(Message):
    """The list of presets has been read.

    ``against`` names the memory that the presets were compared with; it is empty if their fit is not known yet.
    """

    def __init__(self, rows: list[PresetRow], against: str = "") -> None:
        super().__init__()
        self.rows = rows
        self.against = against


class HomeScreen(DeskScreen[None]):
    """Runs and presets, side by side in a wide terminal, else one above the other."""

    CSS_PATH = "home.tcss"
    ACTING = frozenset({"chat", "pin", "rename", "delete", "enqueue", "work_queue"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "app.focus_next", "Switch", tooltip="Switch between the runs and the presets"),
        Binding(
            "slash", "filter", "Filter", key_display="/", tooltip="List only the runs whose name, model or state match"
        ),
        Binding("s", "sort", "Sort", tooltip="Sort the runs by the next column"),
        Binding("S", "reverse", "Reverse", show=False, tooltip="Reverse the order of the runs"),
        Binding(
            "x", "compare", "Compare", show=False, tooltip="Compare the marked runs, or this run with the pinned one"
        ),
        Binding(
            "u", "studies", "Studies", show=False, tooltip="Show the studies: methods or settings over several seeds"
        ),
        Binding("escape", "clear", "Clear", False, "esc", tooltip="Clear the filter, then the marks"),
        Binding("n", "new_run", "New run", tooltip="Open the preset under the cursor, or the demo, as a form"),
        Binding("Q", "work_queue", "Queue", show=False, tooltip="Train the queued runs, or stop the queue"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._list = RunList()
        self._reading = False
        self._rows: list[RunRow] | None = None
        self._presets: list[PresetRow] = []
        self._marked: set[str] = set()
        self._order = Order()
        self._possible: tuple[bool | None, ...] = ()

    def compose(self) -> ComposeResult:
        yield TooSmall(id="too-small")
        yield Static(id="title", markup=False)
        yield QueueLine(id="queue")
        with Container(id="lists"):
            with Container(id="runs"):
                yield RunFilter(id="runs-bar")
                yield Static(WELCOME, id="welcome", markup=False)
                yield RunTable(id="run-table")
            with Container(id="presets"):
                yield Static("start a new run", id="presets-title", classes="list-title", markup=False)
                yield PresetList(id="preset-list", markup=False)
        yield KeysLine()

    def on_mount(self) -> None:
        self._set_title()
        self.set_interval(SECONDS, self._read_runs)

    def on_screen_resume(self) -> None:
        self._read_runs()
        self.query_one(QueueLine).read()
        self.run_worker(self._load_presets, thread=True, group="presets", exit_on_error=False)

    # Data read

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
        rows = self.desk.read_presets()
        if not self._presets:  # show the names first: to judge the fit takes longer than to read the presets
            self.post_message(PresetsRead(rows))
        self.post_message(PresetsRead(*self.desk.judge_presets(rows)))

    @on(PresetsRead)
    def _show_presets(self, message: PresetsRead) -> None:
        if message.rows != self._presets:
            self._presets = message.rows
            self.query_one(PresetList).show(self._presets, self.has_class("-wide"))
        against = f" · {one_line(message.against)}" if message.against else ""
        title = Content.assemble(("start a new run", "bold"), against)
        put(self.query_one("#presets-title", Static), title)

    @on(RunsRead)
    def _show_runs(self, message: RunsRead) -> None:
        first = self._rows is None
        self._rows = message.rows
        self._marked &= {row.run.id for row in message.rows}
        with self.app.batch_update():
            self._set_title()
            self._draw_runs()
        if first:
            self.query_one(RunTable if message.rows else PresetList).focus()

    def on_resize(self) -> None:
        self.query_one(PresetList).show(self._presets, self.has_class("-wide"))
        self._draw_runs()

    def _draw_runs(self) -> None:
        """Draw the rows with the current filter, order and marks."""
        if self._rows is None:
            return
        bar, table, words = self.query_one(RunFilter), self.query_one(RunTable), self.query_one("#welcome", Static)
        listed = arranged(matching(self._rows, bar.text), self._order)
        table.display = bool(listed)
        words.display = not listed
        put(words, NO_MATCH if self._rows else WELCOME)
        bar.describe(len(listed), len(self._rows), len(self._marked), sum(row.pinned for row in self._rows))
        width = self.size.width - (PRESETS_WIDTH if self.has_class("-wide") else 0)
        table.show(listed, self._marked, self._order, self.desk.clock(), width)
        possible = tuple(self.check_action(action, ()) for action in ("clear", "filter"))
        if possible != self._possible:  # refreshing rebuilds the footer, so do it only when the keys change
            self._possible = possible
            self.refresh_bindings()

    def _set_title(self) -> None:
        rows = self._rows or []
        live = sum(row.state in LIVE_STATES for row in rows)
        count = f"{len(rows)} run{'' if len(rows) == 1 else 's'}, {live} live" if rows else ""
        title = Content.assemble(
            ("AAPO Desk", "bold $text-primary"),
            f"  {count}",
            ("  runs continue when you quit" if rows else "", "$foreground 70%"),
        )
        put(self.query_one("#title", Static), title)

    def farewell(self) -> str:
        live = sum(row.state in LIVE_STATES for row in self._rows or [])
        return f"{live} run{' continues' if live == 1 else 's continue'}. Watch with: aapo-desk" if live else ""

    # Filter, order and marks

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "clear":
            return bool(self._marked) or self.query_one(RunFilter).input.display
        if action in {"filter", "sort", "reverse"}:
            return bool(self._rows) and not self.query_one(RunFilter).input.has_focus
        return super().check_action(action, parameters)

    def action_filter(self) -> None:
        self.query_one(RunFilter).open()

    def action_to_runs(self) -> None:
        """Move the focus from the filter to the runs that match; close the filter if it is empty."""
        bar = self.query_one(RunFilter)
        if not bar.text.strip():
            bar.close()
        self.query_one(RunTable).focus()

    def action_clear(self) -> None:
        bar = self.query_one(RunFilter)
        if bar.input.display:
            bar.close()
            self.query_one(RunTable).focus()
        else:
            self._marked.clear()
        self._draw_runs()

    @on(Input.Changed, "#filter")
    def _filter(self) -> None:
        self._draw_runs()

    def action_sort(self) -> None:
        self._sort(self._order.next)

    def action_reverse(self) -> None:
        self._sort(self._order.by(self._order.column))

    @on(DataTable.HeaderSelected)
    def _sort_by_header(self, event: DataTable.HeaderSelected) -> None:
        if event.column_key.value in VALUES:
            self._sort(self._order.by(event.column_key.value))

    def _sort(self, order: Order) -> None:
        self._order = order
        self._draw_runs()

    def marked(self) -> list[RunDirectory]:
        """Return the marked runs in the order of the list, including those hidden by the filter."""
        rows = arranged(self._rows or [], self._order)
        return [row.run for row in rows if row.run.id in self._marked]

    def action_mark(self) -> None:
        if row := self.query_one(RunTable).under_cursor:
            self._marked ^= {row.run.id}
            self._draw_runs()

    # Actions on the run under the cursor

    def action_pin(self) -> None:
        if row := self.query_one(RunTable).under_cursor:
            try:
                pin_run(row.run, not row.pinned)
            except OSError as error:
                self._complain(f"Could not pin {row.name}: {error.strerror or error}")
            self._read_runs()

    def action_rename(self) -> None:
        row = self.query_one(RunTable).under_cursor
        if row is None:
            return

        def answered(name: str | None) -> None:
            if name is None or name == row.name:
                return
            try:
                rename_run(row.run, name)
            except ConfigError as error:
                self._complain(error.problems[0].message)
            except OSError as error:
                self._complain(f"Could not rename {row.name}: {error.strerror or error}")

        self.app.push_screen(RenameDialog(row.name, lambda name: _refusal(name, row.run)), answered)

    def action_delete(self) -> None:
        row = self.query_one(RunTable).under_cursor
        if row is None:
            return
        if row.state in LIVE_STATES:
            self._complain(f"{row.name} is {row.state}. Open it and stop it with s, then delete it.")
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.run_worker(lambda: self._delete(row), thread=True, group="delete", exit_on_error=False)

        self.app.push_screen(DeleteQuestion(row), answered)

    def _delete(self, row: RunRow) -> None:
        """Delete a run. Called in a thread, since checkpoints are large."""
        from aapo_desk import launch

        try:
            launch.remove(row.run)
            self.notify(f"Deleted {one_line(row.name)}.", timeout=3, markup=False)
        except launch.LaunchError as error:
            self._complain(str(error))
        except OSError as error:
            at = visible(str(error.filename or row.run.path))
            self._complain(f"Could not delete all of {row.name} ({error.strerror or error}). Delete {at} by hand.")
        self.app.call_from_thread(self._read_runs)

    def _complain(self, text: str) -> None:
        self.notify(one_line(text), severity="error", markup=False)

    # Other screens, and starting runs

    def action_compare(self) -> None:
        """Compare the marked runs, or the run under the cursor; a single run is compared with the pinned baseline."""
        from aapo_desk.tui.screens.compare import CompareScreen  # imported late so that the first frame comes sooner

        row = self.query_one(RunTable).under_cursor
        runs = self.marked() or ([row.run] if row else [])
        if len(runs) == 1:
            pinned = [row.run for row in self._rows or [] if row.pinned and row.run != runs[0]]
            runs = [*pinned[:1], *runs]
        if len(runs) < 2:
            self._complain("Mark at least two runs with space, or pin a baseline with p, to compare.")
            return
        try:
            self.app.push_screen(CompareScreen(runs))
        except ConfigError as error:
            self._complain(error.problems[0].message)

    def action_studies(self) -> None:
        from aapo_desk.tui.screens.study import StudyScreen  # imported late so that the first frame comes sooner

        self.app.push_screen(StudyScreen())

    def action_chat(self) -> None:
        if row := self.query_one(RunTable).under_cursor:
            self.desk.chat(row.run)

    @on(RunTable.RowSelected)
    def _open_run(self, event: RunTable.RowSelected) -> None:
        row = next((row for row in self._rows or [] if row.run.id == event.row_key.value), None)
        if row:
            self.desk.open_monitor(row.run)

    @on(OptionList.OptionSelected)
    def _ask_to_start(self, event: OptionList.OptionSelected) -> None:
        row = self._presets[event.option_index]
        if row.config is None:
            self._complain(row.error)
            return
        config = row.config

        def answered(yes: bool | None) -> None:
            if yes:
                self.desk.prepare(config, None)

        self.app.push_screen(StartQuestion(row), answered)

    def action_new_run(self) -> None:
        """Open a preset as a form: the one under the cursor if the presets have the focus, else the demo."""
        self._with_preset(self.desk.edit)

    def action_enqueue(self) -> None:
        """Add a run of the same preset that ``action_new_run`` would open to the queue."""
        self._with_preset(lambda name, config: self.desk.enqueue(config, name))

    def _with_preset(self, act: Callable[[str, RunConfig], None]) -> None:
        """Call ``act`` with the preset under the cursor if the presets have the focus, else with the demo."""
        options = self.query_one(PresetList)
        place = options.highlighted if options.has_focus else None
        if not self._presets:
            return
        row = self._presets[place or 0]
        if row.config is None:
            self._complain(row.error)
        else:
            act(row.name, row.config)

    def action_work_queue(self) -> None:
        self.query_one(QueueLine).start_or_stop()


def _refusal(name: str, run: RunDirectory) -> str:
    """Return what is wrong with a new name for a run, or "" if nothing is."""
    try:
        check_name(name, run)
    except ConfigError as error:
        return error.problems[0].message
    return ""
