"""A gauge of whether a run fits in memory: a verdict, a bar and the numbers."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from aapo_desk.fit import Fit
from aapo_desk.tui.text import one_line
from aapo_desk.tui.widgets.blocks import bar

WORDS = {
    "fits": ("✓ fits", "bold $text-success"),
    "tight": ("≈ tight", "bold $text-warning"),
    "too large": ("✗ too large", "bold $text-error"),
}
NARROW_BAR = 14
EDGE = "$foreground 70%"


class FitGauge(Static):
    """A gauge of the share of free memory that a run needs, in one line, or in four if there is enough height."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id, markup=False)
        self._fit: Fit | None = None
        self._reason = "checking this machine"

    def show(self, fit: Fit | None, reason: str = "") -> None:
        """Show a memory estimate, or the ``reason`` why there is none if ``fit`` is None."""
        self._fit, self._reason = fit, reason
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        tall = self.size.height > 1
        if self._fit is None:
            unknown = Content.assemble(("? memory", "bold"), ("\n" if tall else "  "), one_line(self._reason))
            self.update(unknown, layout=False)
        else:
            self.update(_tall(self._fit, self.size.width) if tall else _one_line(self._fit), layout=False)


def _one_line(fit: Fit) -> Content:
    return Content.assemble(
        WORDS[fit.verdict], " ", *_bar(fit, NARROW_BAR), " ", _numbers(fit), (f" · peak in {fit.peak_phase}", EDGE)
    )


def _tall(fit: Fit, width: int) -> Content:
    place = one_line(fit.room.name) if fit.room.device == "cuda" else "RAM, on the CPU"
    detail = f"at least {_gigabytes(fit.least)} GB, {_gigabytes(fit.full)} GB for full speed"
    return Content("\n").join(
        [
            Content.assemble(("memory  ", "bold"), WORDS[fit.verdict], (f"  {place}", EDGE)),
            Content.assemble(*_bar(fit, max(4, width - 2))),
            Content.assemble(_numbers(fit), (f" · peak in {fit.peak_phase}", EDGE)),
            Content.styled(detail, EDGE),
        ]
    )


def _bar(fit: Fit, width: int) -> list[tuple[str, str]]:
    share = fit.needed / fit.room.free if fit.room.free else 1.0
    return [("▕", EDGE), (bar(min(1.0, share), width), WORDS[fit.verdict][1]), ("▏", EDGE)]


def _numbers(fit: Fit) -> str:
    least = "" if fit.verdict == "fits" else "at least "
    return f"{least}{_gigabytes(fit.needed)} of {_gigabytes(fit.room.free)} GB free"


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:.1f}"
