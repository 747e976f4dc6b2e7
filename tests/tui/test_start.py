from __future__ import annotations

import subprocess
import sys

import pytest
from textual.color import Color

from aapo_desk.tui.theme import DARK

HEAVY = {"torch", "transformers", "peft", "datasets", "sympy", "bitsandbytes", "numpy", "math_verify"}


def test_the_screen_is_there_without_the_heavy_parts() -> None:
    answer = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import aapo_desk.tui.app"],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in answer.stderr.splitlines()}
    assert "textual" in imported
    assert not imported & HEAVY


@pytest.mark.parametrize("ground", ["background", "surface", "panel"])
@pytest.mark.parametrize("name", ["foreground", "primary", "secondary", "accent", "success", "warning", "error"])
def test_text_of_every_colour_is_readable(name: str, ground: str) -> None:
    """At least 4.5:1 (WCAG 2), also where the text is drawn at 70 %, as what is of less weight is."""
    below = Color.parse(getattr(DARK, ground))
    text = Color.parse(getattr(DARK, name))
    assert contrast(text, below) >= 4.5
    if name == "foreground":
        assert contrast(below.blend(text, 0.7), below) >= 4.5


def contrast(one: Color, other: Color) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: Color) -> float:
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour.normalized]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
