"""How readable what is on the screen is: contrast by WCAG 2, of every character as it is drawn."""

from __future__ import annotations

from collections.abc import Iterator

from rich.style import Style
from textual.color import Color
from textual.geometry import Region

from aapo_desk.tui.app import DeskApp
from aapo_desk.tui.symbols import symbol

LEAST = 4.5


def contrast(one: Color, other: Color) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: Color) -> float:
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour.normalized]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def faint(app: DeskApp, part: Region | None = None) -> list[str]:
    """The text on the screen (or a part of it) with less than 4.5:1, as ``text (contrast)``."""
    found = []
    for text, style in texts(app, part):
        ratio = contrast_of(style)
        if 1 < ratio < LEAST:  # 1: a box that is not ticked
            found.append(f"{text.strip()} ({ratio:.1f})")
    return found


def texts(app: DeskApp, part: Region | None = None) -> Iterator[tuple[str, Style]]:
    """Return the text that is written and not drawn: plots, bars, borders and blanks are left out."""
    region = part or app.screen.region
    strips = app.screen._compositor.render_strips()
    for line in strips[region.y : region.bottom]:
        for segment in line.crop(region.x, region.right):
            words = "".join(letter for letter in segment.text if letter.isascii() or symbol(letter) is None)
            if words.strip() and segment.style is not None:
                yield segment.text, segment.style


def contrast_of(style: Style) -> float:
    assert style.color is not None
    assert style.bgcolor is not None
    ratio = contrast(Color.from_rich_color(style.color), Color.from_rich_color(style.bgcolor))
    return 1.0 if style.dim else ratio
