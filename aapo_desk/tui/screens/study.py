"""The study screen: what each study compares, the arms' curves with bands, their results, and the progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import OptionList, Static

from aapo_desk.launch import LaunchError
from aapo_desk.studies import SMOOTHING, running
from aapo_desk.studies.findings import READ_ERRORS, Findings, StudyReader
from aapo_desk.studies.study import Study, list_studies
from aapo_desk.tui.labels import duration
from aapo_desk.tui.screens.guard import DeskScreen, TooSmall
from aapo_desk.tui.text import one_line
from aapo_desk.tui.widgets.keysline import KeysLine
from aapo_desk.tui.widgets.overlay import Line, OverlayChart
from aapo_desk.tui.widgets.pane import Pane
from aapo_desk.tui.widgets.standings import amount
from aapo_desk.tui.widgets.studytext import outcomes_text, progress_text, runs_text, spent_text

SECONDS = 3.0
VIEWS = ("outcomes", "spent", "runs")
SAID_BY = {"steps": "step", "seconds": "training time", "completions": "sampled completions"}
NO_STUDIES = """\
No studies yet.

A study compares methods, or values of a setting, over several seeds:

    aapo-desk study demo --algorithms aapo,grpo,gpg --seeds 3 --budget completions\
"""


class StudyRead(Message):
    """The list of studies and the findings of the selected one have been read."""

    def __init__(self, studies: list[Study], findings: Findings | None) -> None:
        super().__init__()
        self.studies = studies
        self.findings = findings


class StudyScreen(DeskScreen[None]):
    """All studies. The one under the cursor is shown and kept up to date."""

    CSS_PATH = "study.tcss"
    ACTING = frozenset({"go_on"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("o", "view", "View", tooltip="Next view, if only one fits: outcomes, what was spent, runs"),
        Binding("r", "go_on", "Resume", tooltip="Train the remaining runs of this study, in the background"),
        Binding("escape", "back", "Home", key_display="esc", tooltip="Back to the runs"),
        Binding("b", "back", "Home", show=False),
    ]

    view: reactive[str] = reactive(VIEWS[0], init=False)

    def __init__(self) -> None:
        super().__init__()
        self._studies: list[Study] = []
        self._chosen: str | None = None
        self._reader: StudyReader | None = None
        self._findings: Findings | None = None
        self._possible: bool | None = None
        """True if the footer offers the key that resumes the study; None before it was first drawn."""
        self._reading = False

    def compose(self) -> ComposeResult:
        yield TooSmall(id="too-small")
        yield Static("reading the studies …", id="study-title", markup=False)
        yield Static(NO_STUDIES, id="study-none", markup=False)
        with Container(id="study-body"):
            yield OptionList(id="study-list", markup=False)
            with Container(id="study-shown"):
                yield Static(id="study-progress", markup=False)
                yield OverlayChart(id="overlay")
                yield Static(id="study-tabs", markup=False)
                for view in VIEWS:
                    with Pane(id=f"study-{view}"):
                        yield Static(id=f"study-{view}-text", markup=False)
        yield KeysLine()

    def on_mount(self) -> None:
        self.watch_view()
        self.set_interval(SECONDS, self._read)
        self.query_one(OptionList).focus()

    def on_screen_resume(self) -> None:
        self._read()

    def on_resize(self) -> None:
        self.call_after_refresh(self._show_text)

    # Data read

    def _read(self) -> None:
        if self.is_current and not self._reading:
            self._reading = True
            self.run_worker(self._load, thread=True, group="studies", exit_on_error=False)

    def _load(self) -> None:
        try:
            studies = list_studies()
            study = next((one for one in studies if one.id == self._chosen), studies[0] if studies else None)
            if study and (self._reader is None or self._reader.study != study):
                self._reader = StudyReader(study)
            findings = self._reader.read() if study and self._reader else None
        except READ_ERRORS as error:
            self.notify(one_line(str(error)), severity="error", markup=False)
            return
        finally:
            self._reading = False
        self.post_message(StudyRead(studies, findings))

    @on(StudyRead)
    def _take_in(self, message: StudyRead) -> None:
        findings = message.findings
        if findings and self._chosen not in (None, findings.study.id):
            self._read()  # another study was chosen while this one was read
            return
        self.set_class(findings is None, "-none")
        if [study.id for study in message.studies] != [study.id for study in self._studies]:
            self._list(message.studies, findings)
        self._studies = message.studies
        if findings != self._findings or findings is None:
            self._findings = findings
            self._show()
        elif self._findings:
            self._show_progress(self._findings)

    def _list(self, studies: list[Study], shown: Findings | None) -> None:
        options = self.query_one(OptionList)
        ids = [study.id for study in studies]
        with self.prevent(OptionList.OptionHighlighted):
            options.clear_options()
            options.add_options([one_line(study.name, 40) for study in studies])
            options.highlighted = ids.index(shown.study.id) if shown and shown.study.id in ids else None

    @on(OptionList.OptionHighlighted)
    def _choose(self, event: OptionList.OptionHighlighted) -> None:
        study = self._studies[event.option_index] if event.option_index < len(self._studies) else None
        if study and study.id != self._chosen:
            self._chosen = study.id
            self._read()

    # Drawing

    def _show(self) -> None:
        findings = self._findings
        title = self.query_one("#study-title", Static)
        if findings is None:
            title.update(Content.styled("Studies", "bold $text-primary"))
            return
        study = findings.study
        title.update(
            Content.assemble(
                ("Study", "bold $text-primary"), f"  {one_line(study.name, 40)}",
                (f"  {one_line(study.words)}", "$foreground 70%"),
            )
        )  # fmt: skip
        kind = study.budget.kind
        lines = [
            Line(arm.letter, arm.band.xs, arm.band.mean, (arm.band.low, arm.band.high) if arm.band.seeds > 1 else ())
            for arm in findings.arms
            if len(arm.band.xs)
        ]
        places: dict[str, Callable[[float], str]] = {
            "steps": lambda x: f"{x:.0f}",
            "seconds": duration,
            "completions": amount,
        }
        said = f"{findings.metric} by {SAID_BY[kind]}, exponential mean {SMOOTHING:g}; dots: lowest and highest seed"
        with self.app.batch_update():
            self.query_one(OverlayChart).show(said, lines, places[kind], "no steps yet")
            self._show_text()
            self._show_progress(findings)

    def _show_progress(self, findings: Findings) -> None:
        self.query_one("#study-progress", Static).update(progress_text(findings))
        if (possible := self.check_action("go_on", ())) != self._possible:  # rebuild the footer only then
            self._possible = possible
            self.refresh_bindings()

    def _show_text(self) -> None:
        findings = self._findings
        if findings is None:
            return
        texts = {"outcomes": outcomes_text, "spent": spent_text, "runs": runs_text}
        for view, text in texts.items():
            width = self.query_one(f"#study-{view}", Pane).scrollable_content_region.width
            if width:
                self.query_one(f"#study-{view}-text", Static).update(text(findings, width))

    def watch_view(self) -> None:
        for view in VIEWS:
            self.set_class(view == self.view, f"-view-{view}")
        tabs = [
            (f"[{view}] " if view == self.view else f" {view}  ", "bold" if view == self.view else "$foreground 70%")
            for view in VIEWS
        ]
        self.query_one("#study-tabs", Static).update(Content.assemble(*tabs))
        self.call_after_refresh(self._show_text)

    # Actions

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "go_on" and not (self._findings and self._findings.left and not self._findings.at_work):
            return False
        return super().check_action(action, parameters)

    def action_view(self) -> None:
        self.view = VIEWS[(VIEWS.index(self.view) + 1) % len(VIEWS)]

    def action_go_on(self) -> None:
        if self._findings is None or not self.desk.may_act():
            return
        try:
            running.start_in_background(self._findings.study)
        except LaunchError as error:
            self.notify(one_line(str(error)), severity="error", markup=False)
        else:
            self.notify("The study continues in the background, also after you quit.", markup=False)

    def action_back(self) -> None:
        self.app.pop_screen()
