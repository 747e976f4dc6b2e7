"""The desk's own themes: text has at least 4.5:1 on every ground, also where it is drawn at 70 %.

Textual's own miss that in places, so only these are offered.
"""

from __future__ import annotations

from textual.theme import Theme


def _theme(
    name: str,
    *,
    dark: bool,
    grounds: tuple[str, str, str],
    foreground: str,
    policy: str,
    reference: str,
    accent: str,
    success: str,
    warning: str,
    error: str,
    cursor: tuple[str, str],
    scrollbar: str,
) -> Theme:
    """``grounds``: of the screen, of what lies on it, of bars and dialogs. ``cursor``: its ground, with and without
    the focus. ``policy`` also marks what has the focus."""
    background, surface, panel = grounds
    strong = "#ffffff" if dark else "#000000"
    return Theme(
        name=name,
        dark=dark,
        background=background,
        surface=surface,
        panel=panel,
        foreground=foreground,
        primary=policy,
        secondary=reference,
        accent=accent,
        success=success,
        warning=warning,
        error=error,
        variables={
            "text-primary": policy,
            "text-secondary": reference,
            "text-accent": accent,
            "text-success": success,
            "text-warning": warning,
            "text-error": error,
            "text-muted": "auto 80%",
            "text-disabled": "auto 75%",
            "foreground-muted": foreground,
            "foreground-disabled": foreground,
            "block-cursor-background": cursor[0],
            "block-cursor-foreground": strong,
            "block-cursor-blurred-background": cursor[1],
            "block-cursor-blurred-foreground": foreground,
            "block-hover-background": surface,
            "input-cursor-background": foreground,
            "input-cursor-foreground": background,
            "input-selection-background": cursor[0],
            "input-selection-foreground": strong,
            "screen-selection-background": cursor[0],
            "screen-selection-foreground": strong,
            "border": policy,
            "border-blurred": scrollbar,
            "footer-background": panel,
            "footer-key-foreground": policy,
            "footer-description-foreground": foreground,
            "button-foreground": foreground,
            "button-color-foreground": background,
            "link-color": policy,
            "link-background-hover": cursor[0],
            "link-color-hover": strong,
            "scrollbar": scrollbar,
            "scrollbar-hover": policy,
            "scrollbar-active": policy,
            "scrollbar-background": surface,
            "scrollbar-background-hover": surface,
            "scrollbar-background-active": surface,
            "scrollbar-corner-color": surface,
        },
    )


DARK = _theme(
    "aapo-dark",
    dark=True,
    grounds=("#10141b", "#161c25", "#1f2833"),
    foreground="#dfe6ee",
    policy="#5cb8ff",
    reference="#ffb454",
    accent="#c8a6ff",
    success="#7fd88f",
    warning="#ffcf6b",
    error="#ff8088",
    cursor=("#264863", "#22303e"),
    scrollbar="#3a4a5c",
)

LIGHT = _theme(
    "aapo-light",
    dark=False,
    grounds=("#fbfcfd", "#f1f4f7", "#e4e9ef"),
    foreground="#1b2430",
    policy="#0a57a4",
    reference="#8f4700",
    accent="#6a35b0",
    success="#17642f",
    warning="#735000",
    error="#ad1f2b",
    cursor=("#b9d6f2", "#d9e3ed"),
    scrollbar="#a9b6c4",
)

# The hues of Okabe and Ito, Color Universal Design (2008), jfly.uni-koeln.de/color: told apart by people with any kind
# of colour blindness. Vermilion is a little lighter than theirs, for the contrast on the bars.
COLOUR_BLIND = _theme(
    "aapo-colour-blind",
    dark=True,
    grounds=("#0b0e12", "#11161d", "#181e27"),
    foreground="#e6eaf0",
    policy="#56b4e9",
    reference="#e69f00",
    accent="#cc79a7",
    success="#00a87b",
    warning="#f0e442",
    error="#ee6f1a",
    cursor=("#1d4a6b", "#1f2a36"),
    scrollbar="#3a4653",
)

CONTRAST = _theme(
    "aapo-high-contrast",
    dark=True,
    grounds=("#000000", "#000000", "#141414"),
    foreground="#ffffff",
    policy="#7cd0ff",
    reference="#ffc25c",
    accent="#e0c2ff",
    success="#86f09a",
    warning="#ffe36b",
    error="#ff9ba0",
    cursor=("#004a80", "#303030"),
    scrollbar="#808080",
)

THEMES = {theme.name: theme for theme in (DARK, LIGHT, COLOUR_BLIND, CONTRAST)}
