"""A pair of completions in full: prompt, answer, terms of the advantage, both texts with their differences marked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice

from rich.cells import cell_len
from textual import events
from textual.app import ComposeResult
from textual.containers import Container
from textual.content import Content, Span
from textual.widgets import Static

from aapo_desk.store import Sample
from aapo_desk.tui.difference import Difference, Stretch, compare
from aapo_desk.tui.labels import clipped, number, signed
from aapo_desk.tui.sample_rows import Pair
from aapo_desk.tui.text import one_line, visible
from aapo_desk.tui.widgets.pane import Pane

SIDE_BY_SIDE = 60
PROMPT_LINES = 2
MUTED = "$foreground 70%"
DIFFERS = "bold underline"
FOUND = "reverse"
MOST_FOUND = 500


class SampleDetail(Pane, can_focus=False):
    """A view of one pair, with the first lines of its prompt or, after ``show_whole(True)``, all of it."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._pair: Pair | None = None
        self._absent = ""
        self._wanted = ""

    def compose(self) -> ComposeResult:
        yield Static(id="sample-head", markup=False)
        yield Static(id="sample-prompt", markup=False)
        yield Static(id="sample-terms", markup=False)
        with Container(id="sample-texts"):
            for side in ("policy", "reference"):
                with Container(id=f"sample-{side}", classes="sample-side"):
                    yield Static(classes="sample-side-head", markup=False)
                    yield Static(classes="sample-side-text", markup=False)

    def show(self, pair: Pair | None, absent: str, wanted: str) -> None:
        """Show a pair, or the reason ``absent`` why there is none; ``wanted`` is marked in its texts."""
        if pair != self._pair:
            self.scroll_home(animate=False)
        self._pair, self._absent, self._wanted = pair, absent, wanted
        self._update()

    def show_whole(self, whole: bool) -> None:
        """Show the prompt in full, or only its first lines."""
        self.set_class(whole, "-whole")
        self._show_prompt()

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(event.size.width < SIDE_BY_SIDE, "-stacked")
        self._show_prompt()

    def _update(self) -> None:
        pair = self._pair
        self.query_one("#sample-texts").display = pair is not None
        self.query_one("#sample-head", Static).update(_head(pair) if pair else Content(self._absent))
        self.query_one("#sample-terms", Static).update(_terms(pair) if pair else Content(""))
        self._show_prompt()
        if pair is None:
            return
        texts = [visible(sample.completion) if sample else "" for sample in (pair.policy, pair.reference)]
        both = pair.policy is not None and pair.reference is not None
        difference = compare(*texts) if both else Difference([], [], None)
        stretches = (difference.left, difference.right)
        for side, sample, text, differs in zip(
            ("policy", "reference"), (pair.policy, pair.reference), texts, stretches, strict=True
        ):
            body = self._marked(text, differs if difference.told else []) if sample else _missing(side)
            self.query_one(f"#sample-{side} > .sample-side-head", Static).update(_side_head(side, sample))
            self.query_one(f"#sample-{side} > .sample-side-text", Static).update(body)
        if both:
            self.query_one("#sample-terms", Static).update(_terms(pair) + _likeness(difference, texts))

    def _show_prompt(self) -> None:
        prompt = visible(self._pair.some.prompt) if self._pair else ""
        if not self.has_class("-whole"):
            room = PROMPT_LINES * self.size.width - len("prompt  ")
            prompt = clipped(prompt.strip().replace("\n", "⏎"), _fitting(prompt, room))
        shown = Content.assemble(("prompt  ", MUTED), self._marked(prompt, [])) if self._pair else Content("")
        self.query_one("#sample-prompt", Static).update(shown)

    def _marked(self, text: str, differs: Sequence[Stretch]) -> Content:
        spans = [Span(start, end, DIFFERS) for start, end in differs]
        if self._wanted:
            found = re.finditer(re.escape(visible(self._wanted)), text, re.IGNORECASE)
            spans += [Span(*match.span(), FOUND) for match in islice(found, MOST_FOUND)]
        return Content(text, spans)


def _fitting(text: str, cells: int) -> int:
    """Return how many characters fit into ``cells``, if they are as wide as those of ``text`` on average."""
    return max(1, int(cells * len(text) / max(1, cell_len(text))))


def _head(pair: Pair) -> Content:
    some = pair.some
    return Content.assemble(
        (f"row {some.row}", "bold"),
        f"  {one_line(some.prompt_id, 60)}",
        ("  answer ", MUTED),
        one_line(some.answer, 200),
    )


def _terms(pair: Pair) -> Content:
    policy = pair.policy
    if policy is None or policy.advantage is None:
        return Content("")
    terms = f" = group {signed(policy.group_advantage)} + margin {signed(policy.margin)}"
    return Content.assemble(
        ("advantage ", MUTED), (signed(policy.advantage), "bold"), terms if policy.margin is not None else ""
    )


def _likeness(difference: Difference, texts: Sequence[str]) -> Content:
    """Return what the marks mean, or why there are none."""
    if texts[0] == texts[1]:
        words = "identical"
    elif difference.shared is None:
        words = "too long to compare"
    elif difference.told:
        words = "underlined: not in the other"
    else:
        words = "almost nothing in common"
    return Content.styled(f"  {words}", MUTED)


def _side_head(side: str, sample: Sample | None) -> Content:
    if sample is None:
        return Content.styled(side, "bold")
    reward = "unscorable" if sample.reward is None else f"reward {number(sample.reward)}"
    tokens = f"{sample.tokens} tokens{', cut off' if sample.truncated else ''}"
    lines = [Content.assemble((side, "bold"), f"  {reward}"), Content.styled(tokens, MUTED)]
    if len(sample.rewards) > 1:
        scores = " · ".join(f"{one_line(name, 40)} {number(score)}" for name, score in sample.rewards.items())
        lines.append(Content.styled(scores, MUTED))
    return Content("\n").join(lines)


def _missing(side: str) -> Content:
    words = "not saved" if side == "policy" else "none: this algorithm or step samples no reference"
    return Content.styled(words, MUTED)
