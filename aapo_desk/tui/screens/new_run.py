"""The new-run screen: a form for a preset's configuration, with its memory estimate, changes and first prompts."""

from __future__ import annotations

import threading
from functools import partial
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Input, Static

from aapo_desk.config import RunConfig, Setting
from aapo_desk.launch import Preflight
from aapo_desk.tui.draft import Checked, Draft
from aapo_desk.tui.labels import clipped
from aapo_desk.tui.look import Absent, Measured, NotRendered, Rendered, Said, Surroundings, look
from aapo_desk.tui.screens.dialogs import Question
from aapo_desk.tui.screens.guard import DeskScreen, TooSmall
from aapo_desk.tui.screens.saving import SaveDialog
from aapo_desk.tui.text import one_line, plain
from aapo_desk.tui.widgets.fitgauge import FitGauge
from aapo_desk.tui.widgets.keysline import KeysLine
from aapo_desk.tui.widgets.pane import Pane
from aapo_desk.tui.widgets.settingrow import SettingRow
from aapo_desk.tui.widgets.settingsform import SettingsForm

QUIET_SECONDS = 0.6
"""How long the form waits after the last edit before it starts the preflight."""
FAINT = "$foreground 70%"
LONGEST_ANSWER = 200
KINDS = {"integer": "a whole number", "number": "a number", "text": "text", "yaml": "YAML or JSON"}


class NewRunScreen(DeskScreen[None]):
    """A form for the configuration of the preset ``name``.

    Ctrl keys work in every field. Escape leaves the field, then the form.
    """

    CSS_PATH = "new_run.tcss"
    ACTING = frozenset({"start", "enqueue", "save", "fetch"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+r", "start", "Start", tooltip="Check everything, then start this run"),
        Binding("ctrl+l", "enqueue", "Queue", show=False, tooltip="Check everything, then add this run to the queue"),
        Binding("ctrl+s", "save", "Save", tooltip="Save this as a preset of your own"),
        Binding("ctrl+t", "reset", "Reset", tooltip="Reset this field to the preset's value"),
        Binding(
            "slash,ctrl+f",
            "search",
            "Search",
            key_display="/",
            tooltip="Show only fields with words in their name or help",
        ),
        Binding("ctrl+n", "side", "Prompts", tooltip="Show the changes to the preset, and the prompts"),
        Binding("ctrl+o", "fetch", "Fetch", tooltip="Download what the prompts need, then show them"),
        Binding("escape", "back", "Back", key_display="esc", tooltip="Leave the field, then the form"),
    ]

    def __init__(self, name: str, config: RunConfig) -> None:
        super().__init__()
        self._preset = name
        self._draft = Draft(config)
        self._checked = self._draft.check()
        self._found: tuple[RunConfig, dict[str, str]] = (config, {})
        self._surroundings: Surroundings | None = None
        self._may_fetch = False
        self._absent = False
        self._put_last: dict[str, Content] = {}
        self._timer: Timer | None = None
        self._cancelled = threading.Event()

    def compose(self) -> ComposeResult:
        texts = {path: self._draft.text(path) for path in self._draft.settings}
        yield TooSmall(id="too-small")
        yield Static(id="new-title", markup=False)
        with Container(id="new-body"):
            with Container(id="new-left"):
                with Container(id="search-bar"):
                    yield Static("search", markup=False)
                    yield Input(id="search", placeholder="words in a field's name or help", compact=True)
                yield SettingsForm(self._draft.settings.values(), texts, id="form")
            yield FitGauge(id="gauge")
            with Container(id="new-side"):
                yield Static(f"changes to {one_line(self._preset)}", classes="side-title", markup=False)
                with Pane(id="differs-pane"):
                    yield Static(id="differs", markup=False)
                yield Static("prompts", classes="side-title", markup=False)
                with Pane(id="prompts-pane"):
                    yield Static(id="prompts", markup=False)
        yield Static(id="setting-help", markup=False)
        yield KeysLine()

    def on_mount(self) -> None:
        self.query_one("#search-bar").display = False
        self.query_one(SettingsForm).focus()
        self._show()
        self._look()

    def on_unmount(self) -> None:
        self._cancelled.set()

    # Edits

    @on(SettingRow.Edited)
    def _edited(self, message: SettingRow.Edited) -> None:
        self._draft.edit(message.path, message.text)
        self._check()

    def _check(self) -> None:
        resettable = self.check_action("reset", ())
        self._checked = self._draft.check()
        if self.check_action("reset", ()) != resettable:
            self.refresh_bindings()
        self._show()
        self._cancelled.set()
        if self._timer is not None:
            self._timer.stop()
        if self._checked.config is None:
            self._show_prompts(Content("Fix the fields marked ✗ first."))
        else:
            self._timer = self.set_timer(QUIET_SECONDS, self._look)

    def _errors(self) -> dict[str, str]:
        """Return the errors of validation, or those that the preflight found, if it was of this same configuration."""
        config, found = self._found
        return found if self._checked.config == config else self._checked.errors

    def _show(self) -> None:
        errors = self._errors()
        with self.app.batch_update():
            self.query_one(SettingsForm).tell(self._checked.changes, errors)
            self._show_title(errors)
            self._show_differences(self._checked)
            self._show_gauge()
            self._show_help(self.query_one(SettingsForm).current)

    def _show_title(self, errors: dict[str, str]) -> None:
        changes = self._checked.changes
        title = Content.assemble(
            ("New run", "bold $text-primary"),
            f"  from {one_line(self._preset)}",
            (f"  {_count(len(changes), 'change')}" if changes else "", FAINT),
            (f"  ✗ {_count(len(errors), 'field')} with errors" if errors else "", "$text-error"),
        )
        self._put("#new-title", title, layout=False)

    def _show_differences(self, checked: Checked) -> None:
        lines = [
            Content.assemble((path, "bold"), "\n  ", (_shown(before), FAINT), " → ", _shown(now))
            for path, (before, now) in checked.changes.items()
        ]
        self._put("#differs", Content("\n").join(lines) if lines else Content.styled("None yet.", FAINT))

    def _put(self, selector: str, content: Content, layout: bool = True) -> None:
        """Show a text in a widget; nothing is drawn if it is the same. ``layout``: whether the size may change."""
        if self._put_last.get(selector) != content:
            self._put_last[selector] = content
            self.query_one(selector, Static).update(content, layout=layout)

    @on(SettingsForm.Moved)
    def _moved(self, message: SettingsForm.Moved) -> None:
        self._show_help(message.setting)
        self.refresh_bindings()

    def _show_help(self, setting: Setting) -> None:
        facts = [setting.bounds or KINDS.get(setting.kind, "")]
        facts += ["may be empty"] if setting.optional else []
        facts += [f"default {_shown(setting.default)}"] if setting.default is not None else []
        if setting.path in self._checked.changes:
            facts.append(f"preset {_shown(self._checked.changes[setting.path][0])}")
        said = " · ".join(fact for fact in facts if fact)
        text = Content.assemble((setting.path, "bold $text-primary"), (f"  {said}", FAINT), f"\n{setting.help}")
        self._put("#setting-help", text, layout=False)

    def action_reset(self) -> None:
        path = self.query_one(SettingsForm).current.path
        text = self._draft.preset_text(path)
        self._draft.edit(path, text)
        self.query_one(SettingsForm).set_text(path, text)
        self._check()

    # The preflight

    def _look(self) -> None:
        config = self._checked.config
        if config is None:
            return
        self._cancelled = threading.Event()
        self._show_prompts(Content.styled("checking …", FAINT))
        work = partial(look, config, self._may_fetch, self.post_message, self._cancelled)
        self.run_worker(work, thread=True, group="look", exit_on_error=False)

    @on(Measured)
    def _measured(self, message: Measured) -> None:
        self._surroundings = message.surroundings
        self._show_gauge()

    def _show_gauge(self) -> None:
        gauge, surroundings, config = self.query_one(FitGauge), self._surroundings, self._checked.config
        if config is None:
            gauge.show(None, "unknown while a field has errors")
        elif surroundings is None or surroundings.model != config.model.model_copy(
            update={"device": surroundings.model.device}
        ):
            gauge.show(None, "checking the model and this machine")
        else:
            gauge.show(*surroundings.judge(config))

    @on(Said)
    def _said(self, message: Said) -> None:
        self._show_prompts(Content.styled(one_line(message.text), FAINT))

    @on(Absent)
    def _is_absent(self, message: Absent) -> None:
        text = f"{one_line(message.what)} is not on this machine yet.\nPress ctrl+o to download what the prompts need."
        self._show_prompts(Content(text), absent=True)

    @on(Rendered)
    def _rendered(self, message: Rendered) -> None:
        self._show_prompts(_prompts(message.found))

    @on(NotRendered)
    def _not_rendered(self, message: NotRendered) -> None:
        self._found = (message.config, self._draft.place(message.problems))
        self._show_prompts(Content.styled("✗ ", "$text-error") + plain(message.text))
        self._show()

    def _show_prompts(self, text: Content, absent: bool = False) -> None:
        self._put("#prompts", text)
        if absent != self._absent:
            self._absent = absent
            self.refresh_bindings()

    def action_fetch(self) -> None:
        self._may_fetch = True
        self._look()

    # Search, the side panel, and leaving

    def action_search(self) -> None:
        self.query_one("#search-bar").display = True
        self.set_focus(self.query_one("#search"))  # focus at once, so that the next keys typed go into the field

    @on(Input.Changed, "#search")
    def _search(self, event: Input.Changed) -> None:
        event.stop()
        found = self.query_one(SettingsForm).find(event.value)
        if not found:
            self._put("#setting-help", Content("No field has these words in its name or help."), layout=False)

    @on(Input.Submitted, "#search")
    def _to_the_found(self) -> None:
        self.query_one(SettingsForm).focus()

    def action_side(self) -> None:
        self.toggle_class("-side")
        self.query_one("#prompts-pane" if self.has_class("-side") else "#form").focus()

    def action_back(self) -> None:
        field, form = self.query_one("#search", Input), self.query_one(SettingsForm)
        if self.has_class("-side") and not self.has_class("-wide"):
            self.action_side()
        elif form.has_focus_within and not form.has_focus:
            form.focus()
        elif self.query_one("#search-bar").display:
            field.value = ""
            self.query_one("#search-bar").display = False
            form.focus()
        elif lost := self.unsaved():
            question = Question("Leave the form?", Content(lost), "y  Leave", "n  Stay", default=False)
            self.app.push_screen(question, self._leave)
        else:
            self._leave(True)

    def unsaved(self) -> str:
        changes = len(self._checked.changes)
        return f"{_count(changes, 'change')} to {one_line(self._preset)} will be lost." if changes else ""

    def _leave(self, yes: bool | None) -> None:
        if yes:
            self.dismiss()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if not super().check_action(action, parameters):
            return False
        if action == "side":
            return not self.has_class("-wide")
        if action == "fetch":
            return self._absent
        if action == "reset":
            return self.query_one(SettingsForm).current.path in self._checked.changes
        return True

    def action_start(self) -> None:
        if (config := self._usable()) is not None:
            self.desk.prepare(config, None)

    def action_enqueue(self) -> None:
        if (config := self._usable()) is not None:
            self.desk.enqueue(config, self._preset + (", changed" if self._checked.changes else ""))

    def action_save(self) -> None:
        if (config := self._usable()) is None:
            return
        notes = [f"{self._preset}, changed in the form:"] if self._checked.changes else [f"A copy of {self._preset}."]
        notes += [
            f"  {path}: {_shown(before)} -> {_shown(now)}" for path, (before, now) in self._checked.changes.items()
        ]

        def saved(name: str | None) -> None:
            if name is not None:
                self.notify(f"Saved as {name}.", markup=False)

        self.app.push_screen(SaveDialog(config, self._preset, notes), saved)

    def _usable(self) -> RunConfig | None:
        """Return the configuration; if it has errors, move the cursor to the first one and return None."""
        if self._checked.config is None:
            path, error = next(iter(self._checked.errors.items()))
            self.query_one(SettingsForm).go_to(path)
            self.notify(f"{path}: {one_line(error)}", title="Fix this first", severity="error", markup=False)
        return self._checked.config


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _shown(text: str) -> str:
    return one_line(text) or "empty"


def _prompts(found: Preflight) -> Content:
    """Format the preflight's counts and notes, then each prompt as the model will read it."""
    numbers = (
        f"{found.train} problems to train on, {found.held_out} held out; longest prompt {found.longest_prompt} tokens"
    )
    too_long = found.dropped + found.dropped_held_out
    dropped = f"; {too_long} left out (too long or too short)" if too_long else ""
    parts = [Content.styled(f"{numbers}{dropped}", FAINT)]
    parts += [Content.styled(one_line(note), FAINT) for note in found.notes]
    shown = zip(found.prompts, found.prompt_tokens, found.answers, strict=True)
    for place, (text, tokens, answer) in enumerate(shown, start=1):
        parts.append(Content.assemble((f"\n{place}", "bold $text-primary"), (f"  {tokens} tokens", FAINT)))
        parts.append(plain(text.rstrip("\n"), 4000))
        parts.append(Content.assemble(("answer  ", FAINT), plain(clipped(one_line(answer), LONGEST_ANSWER))))
    return Content("\n").join(parts)
