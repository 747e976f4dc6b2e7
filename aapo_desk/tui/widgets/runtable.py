"""The table of runs: its cells, the widths of its columns, and the keys that act on the run under the cursor."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.style import Style
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.widgets import DataTable

from aapo_desk.store import progress
from aapo_desk.tui.arranging import VALUES, Order
from aapo_desk.tui.labels import LIVE_STATES, age, model_label, number, percent, state_label
from aapo_desk.tui.listing import RunRow
from aapo_desk.tui.text import one_line
from aapo_desk.tui.widgets.sparkline import sparkline

MARKED, PINNED = "●", "◆"
MARK = "mark"
FIXED = {MARK: 2, "state": 10, "step": 5, "reward": 7, "trend": 8, "age": 6}
LEAST = {"name": 8, "model": 6}
LONGEST = {"name": 40, "model": 24, "trend": 24}
RIGHT = frozenset({"step", "reward", "age"})
SCROLLBAR, GAP = 1, 1


class RunTable(DataTable[Text]):
    """A table of runs. The arrow keys move the cursor, Enter opens the run under it."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"run-table--trend"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select_cursor", "Open", tooltip="Watch this run"),
        Binding("j", "cursor_down", "Down", show=False),
        Binding("k", "cursor_up", "Up", show=False),
        Binding("g", "scroll_top", "First run", show=False),
        Binding("G", "scroll_bottom", "Last run", show=False),
        Binding("space", "screen.mark", "Mark", tooltip="Mark or unmark this run"),
        Binding("p", "screen.pin", "Pin", tooltip="Pin this run to the top of the list as a baseline, or unpin it"),
        Binding("t", "screen.chat", "Chat", tooltip="Chat with this run's base and tuned models", show=False),
        Binding("r", "screen.rename", "Rename", tooltip="Rename this run", show=False),
        Binding("d,delete", "screen.delete", "Delete", tooltip="Delete this run from disk, after asking", show=False),
    ]

    def __init__(self, id: str) -> None:
        super().__init__(id=id, cursor_type="row", zebra_stripes=False, cell_padding=0)
        self._shown: list[RunRow] = []
        self._head: dict[str, tuple[Text, int]] = {}

    @property
    def under_cursor(self) -> RunRow | None:
        """Return the run under the cursor, or None if the table is empty."""
        return self._shown[self.cursor_row] if 0 <= self.cursor_row < len(self._shown) else None

    async def on_click(self, event: Click) -> None:
        """Move the cursor to a clicked run, open the run under the cursor, or mark a run clicked at its left edge."""
        row, column = event.style.meta.get("row", -1), event.style.meta.get("column", -1)
        if not 0 <= row < len(self._shown):
            return
        if column == 0:
            self.move_cursor(row=row)
            await self.run_action("screen.mark")
        elif row == self.cursor_row:
            self.action_select_cursor()
        else:
            return
        event.prevent_default()  # DataTable selects a row only if the same cell is clicked twice

    def show(self, rows: Sequence[RunRow], marked: Collection[str], order: Order, now: float, width: int) -> None:
        """Draw these rows in ``width`` characters, with the cursor on the same run as before.

        ``now`` is the time in seconds from which the runs' ages are counted.
        """
        longest = {
            column: max((cell_len(text(row)) for row in rows), default=0)
            for column, text in (("step", _steps), ("name", _name), ("model", _model))
        }
        head = {
            column: (Text(_label(column, order, wide)), wide + GAP)
            for column, wide in column_widths(width, longest).items()
        }
        widths = {column: wide - GAP for column, (_, wide) in head.items()}
        trend = self.get_component_rich_style("run-table--trend", partial=True)
        cells = [_cells(row, widths, marked, now, trend) for row in rows]
        if head != self._head or [row.run.id for row in rows] != [row.run.id for row in self._shown]:
            self._rebuild(rows, head, cells)
        else:
            for row, line in zip(rows, cells, strict=True):
                for column, cell in line.items():
                    if self.get_cell(row.run.id, column) != cell:
                        self.update_cell(row.run.id, column, cell)
            self._shown = list(rows)

    def _rebuild(
        self, rows: Sequence[RunRow], head: dict[str, tuple[Text, int]], cells: Sequence[dict[str, Text]]
    ) -> None:
        before, place, offset = self.under_cursor, self.cursor_row, self.scroll_offset
        self.clear(columns=True)
        for column, (label, wide) in head.items():
            self.add_column(label, width=wide, key=column)
        for row, line in zip(rows, cells, strict=True):
            self.add_row(*line.values(), key=row.run.id)
        self._head, self._shown = head, list(rows)
        ids = [row.run.id for row in rows]
        self.scroll_to(y=offset.y, animate=False)
        at = ids.index(before.run.id) if before and before.run.id in ids else min(place, len(ids) - 1)
        self.move_cursor(row=max(0, at))


def column_widths(room: int, longest: Mapping[str, int]) -> dict[str, int]:
    """Return the widths of the columns, without the gap after each.

    Name, model and trend share the room that the others leave, and the name column gets what no model needs.
    ``longest`` holds the widths of the longest texts in the columns step, name and model.
    """
    fixed = FIXED | {"step": max(FIXED["step"], longest["step"])}
    left = room - SCROLLBAR - sum(fixed.values()) - GAP * (len(fixed) + len(LEAST)) - sum(LEAST.values())
    name = min(LONGEST["name"], LEAST["name"] + max(0, left * 5 // 11))
    model = min(LONGEST["model"], LEAST["model"] + max(0, left * 5 // 11))
    taken = max(0, min(model - max(LEAST["model"], longest["model"]), min(LONGEST["name"], longest["name"]) - name))
    name, model = name + taken, model - taken
    trend = min(LONGEST["trend"], FIXED["trend"] + max(0, left - (name - LEAST["name"]) - (model - LEAST["model"])))
    widths = fixed | {"name": name, "model": model, "trend": trend}
    return {column: widths[column] for column in (MARK, *VALUES)}


def _label(column: str, order: Order, width: int) -> str:
    """Return the column's name, followed by an arrow for the direction if the table is sorted by it."""
    if column == MARK:
        return ""
    arrow = ("↓" if order.descending else "↑") if column == order.column else ""
    return _placed(column + arrow, width, right=column in RIGHT)


def _cells(row: RunRow, widths: dict[str, int], marked: Collection[str], now: float, trend: Style) -> dict[str, Text]:
    texts = {
        MARK: MARKED if row.run.id in marked else "",
        "state": state_label(row.state),
        "name": _name(row),
        "model": _model(row),
        "step": _steps(row),
        "reward": number(row.reward),
        "trend": sparkline(row.rewards, widths["trend"]),
        "age": age(now - row.created),
    }
    styles: dict[str, str | Style] = {"state": "bold" if row.state in LIVE_STATES else "", "trend": trend}
    return {
        column: Text.assemble((_placed(text, widths[column], column in RIGHT), styles.get(column, "")))
        for column, text in texts.items()
    }


def _name(row: RunRow) -> str:
    return (f"{PINNED} " if row.pinned else "") + one_line(row.name)


def _model(row: RunRow) -> str:
    return one_line(model_label(row.model))


def _steps(row: RunRow) -> str:
    """Return the step as in ``12/300``, or as in ``12, 34 %`` if a budget ends the run, whose text would be longer."""
    text = progress(row.step, row.steps, row.budget)
    return f"{row.step}, {percent(row.budget.share)}" if row.budget and "/" not in text else text


def _placed(text: str, width: int, right: bool) -> str:
    """Return the text in ``width`` cells: cut with an ellipsis, or padded on the left if ``right``."""
    if cell_len(text) > width:
        return set_cell_size(text, width - 1) + "…"
    return " " * (width - cell_len(text)) + text if right else text
