"""A completion of the policy and one of the reference, side by side or one above the other."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Container
from textual.content import Content
from textual.widgets import Static

from aapo_desk.store import Sample
from aapo_desk.tui.labels import number, signed
from aapo_desk.tui.sample_rows import Pair, pairs
from aapo_desk.tui.text import one_line, plain
from aapo_desk.tui.widgets.pane import Pane, put


def terms(sample: Sample) -> str:
    """Return the rewards by function, the terms of the advantage and the number of tokens in one line."""
    reward = "unscorable" if sample.reward is None else f"reward {number(sample.reward)}"
    if len(sample.rewards) > 1:
        reward += f" ({', '.join(f'{one_line(name, 40)} {number(score)}' for name, score in sample.rewards.items())})"
    parts = [reward]
    if sample.advantage is not None:
        group, margin, total = (signed(term) for term in (sample.group_advantage, sample.margin, sample.advantage))
        sum_of = f"group {group} + margin {margin} = " if sample.margin is not None else ""
        parts.append(f"{sum_of}advantage {total}")
    parts.append(f"{sample.tokens} tokens{', cut off' if sample.truncated else ''}")
    return " · ".join(parts)


class CompletionPane(Pane):
    """A completion: which model wrote it, its rewards and advantage, and its text."""

    def __init__(self, who: str, *, id: str) -> None:
        super().__init__(id=id)
        self._who = who
        self._sample: Sample | None = None

    def compose(self) -> ComposeResult:
        yield Static(id=f"{self.id}-terms", classes="terms", markup=False)
        yield Static(id=f"{self.id}-text", classes="completion", markup=False)

    def show(self, sample: Sample | None, absent: str) -> None:
        self.scroll_home(animate=False)
        terms_line = f"  {terms(sample)}" if sample else ""
        put(self.query_one(".terms", Static), Content.assemble((self._who, "bold"), terms_line))
        put(self.query_one(".completion", Static), plain(sample.completion) if sample else Content(absent))


class SampleView(Container):
    """A pair of completions with their problem above."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._pairs: list[Pair] = []
        self.place = 0

    def compose(self) -> ComposeResult:
        yield Static(id="problem", markup=False)
        with Container(id="completions"):
            yield CompletionPane("policy", id="policy")
            yield CompletionPane("reference", id="reference")

    def show(self, samples: list[Sample]) -> None:
        """Show the samples of another step, at the same position in the list if it has as many pairs."""
        self._pairs = pairs(samples)
        self.place = min(self.place, max(0, len(self._pairs) - 1))
        self._update()

    def turn(self, by: int) -> None:
        """Move ``by`` pairs forward or back; the first pair follows the last."""
        if self._pairs:
            self.place = (self.place + by) % len(self._pairs)
            self._update()

    def _update(self) -> None:
        problem = self.query_one("#problem", Static)
        policy, reference = (self.query_one(f"#{name}", CompletionPane) for name in ("policy", "reference"))
        if not self._pairs:
            put(problem, Content.assemble(("completions", "bold"), "  none saved for this step"))
            policy.show(None, "")
            reference.show(None, "")
            return
        pair = self._pairs[self.place]
        some = pair.policy or pair.reference
        assert some is not None
        head = f"completion {self.place + 1} of {len(self._pairs)}"
        put(
            problem,
            Content.assemble(
                (head, "bold"),
                f"  {one_line(some.prompt, 2000)}",
                ("  answer ", "$foreground 70%"),
                one_line(some.answer),
            ),
        )
        policy.show(pair.policy, "not saved")
        reference.show(pair.reference, "none: this algorithm or step samples no reference")
