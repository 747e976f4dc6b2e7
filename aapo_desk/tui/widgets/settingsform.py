"""The settings form: every setting in its section, with a cursor that moves from row to row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, Static

from aapo_desk.config import Setting
from aapo_desk.tui.text import one_line
from aapo_desk.tui.widgets.choice import ChoiceView
from aapo_desk.tui.widgets.settingrow import SettingRow


class SectionTitle(Static):
    """The name of a section, with any error that concerns the section as a whole."""

    def __init__(self, section: str) -> None:
        super().__init__(markup=False)
        self.section = section
        self._error: str | None = None

    def on_mount(self) -> None:
        self.tell("")

    def tell(self, error: str) -> None:
        if error == self._error:
            return
        self._error = error
        words = f"  ✗ {one_line(error)}" if error else ""
        self.update(Content.assemble((self.section, "bold"), (words, "$text-error")), layout=False)


class SettingsForm(VerticalScroll, can_focus=True, inherit_bindings=False):
    """The form. While it has the focus, the keys move its cursor; while a field has it, they move between fields."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", "Next field", show=False),
        Binding("up,k", "move(-1)", "Previous field", show=False),
        Binding("enter,i", "enter", "Edit", show=False, tooltip="Edit the field under the cursor"),
        Binding("left,h", "choose(-1)", "Previous choice", show=False),
        Binding("right,l,space", "choose(1)", "Next choice", show=False),
        Binding("pagedown,ctrl+d", "move(10)", "Ten fields down", show=False),
        Binding("pageup,ctrl+u", "move(-10)", "Ten fields up", show=False),
        Binding("home,g", "move(-1000)", "First field", show=False),
        Binding("end,G", "move(1000)", "Last field", show=False),
    ]

    class Moved(Message):
        """The cursor moved to another setting."""

        def __init__(self, setting: Setting) -> None:
            super().__init__()
            self.setting = setting

    def __init__(self, settings: Iterable[Setting], texts: Mapping[str, str], *, id: str) -> None:
        super().__init__(id=id)
        self._rows = {setting.path: SettingRow(setting, texts[setting.path]) for setting in settings}
        sections = dict.fromkeys(row.setting.section for row in self._rows.values())
        self._titles = {section: SectionTitle(section) for section in sections}
        self._current = next(iter(self._rows.values()))

    def compose(self) -> ComposeResult:
        for section, title in self._titles.items():
            yield title
            yield from (row for row in self._rows.values() if row.setting.section == section)

    def on_mount(self) -> None:
        self._put_cursor(self._current)

    def watch_has_focus(self, _has_focus: bool) -> None:
        """Update the style of the form alone.

        Textual would update every row as well, which causes a noticeable delay; no row's style depends on the focus.
        """
        self.app.stylesheet.update_nodes([self], animate=True)

    @property
    def current(self) -> Setting:
        """Return the setting under the cursor."""
        return self._current.setting

    def set_text(self, path: str, text: str) -> None:
        self._rows[path].set_text(text)

    def tell(self, changes: Mapping[str, tuple[str, str]], errors: Mapping[str, str]) -> None:
        """Mark changed settings and errors by path; an error that belongs to no setting is shown at its section."""
        for path, row in self._rows.items():
            row.tell(changes[path][0] if path in changes else None, errors.get(path, ""))
        for section, title in self._titles.items():
            # ``rewards`` is a section and a setting, and its row shows the error already.
            title.tell("" if section in self._rows else errors.get(section, ""))

    def find(self, text: str) -> int:
        """Show only the settings with every word of ``text`` in their path or help, and return their number."""
        words = text.lower().split()
        for row in self._rows.values():
            searched = f"{row.setting.path} {row.setting.help}".lower()
            row.display = all(word in searched for word in words)
        shown = self._shown()
        sections = {row.setting.section for row in shown}
        for section, title in self._titles.items():
            title.display = section in sections
        if shown and not self._current.display:
            self._put_cursor(shown[0])
        return len(shown)

    def _shown(self) -> list[SettingRow]:
        return [row for row in self._rows.values() if row.display]

    def _put_cursor(self, row: SettingRow) -> None:
        self._current.set_current(False)
        self._current = row
        row.set_current(True)
        # Scroll to the section's title too if this is its first setting.
        first = next(other for other in self._rows.values() if other.setting.section == row.setting.section)
        if row is first:
            self.scroll_to_widget(self._titles[row.setting.section], animate=False)
        self.scroll_to_widget(row, animate=False)
        self.post_message(self.Moved(row.setting))

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        row = _row_of(event.widget)
        if row is not None and row is not self._current:
            self._put_cursor(row)

    def action_move(self, steps: int) -> None:
        shown = self._shown()
        if not shown:
            return
        place = shown.index(self._current) + steps if self._current in shown else 0
        row = shown[min(len(shown) - 1, max(0, place))]
        self._put_cursor(row)
        if not self.has_focus:
            self.screen.set_focus(row.control)

    def action_enter(self) -> None:
        if self.has_focus:
            self.screen.set_focus(self._current.control)
        else:
            self.action_move(1)

    @on(Input.Submitted)
    def _next_field(self) -> None:
        self.action_move(1)

    def action_choose(self, step: int) -> None:
        if isinstance(self._current.control, ChoiceView):
            self._current.control.action_choose(step)

    def go_to(self, path: str) -> None:
        """Put the cursor on a setting and focus its field. A setting hidden by a search is shown again."""
        if row := self._rows.get(path):
            row.display = True
            self._put_cursor(row)
            self.screen.set_focus(row.control)


def _row_of(widget: Widget) -> SettingRow | None:
    return next((node for node in widget.ancestors if isinstance(node, SettingRow)), None)
