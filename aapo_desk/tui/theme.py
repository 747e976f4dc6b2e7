"""The desk's own colours: dark, with text of at least 4.5:1 on every ground."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="aapo-dark",
    dark=True,
    background="#10141b",
    surface="#161c25",
    panel="#1f2833",
    foreground="#dfe6ee",
    primary="#5cb8ff",  # the policy, and what has the focus
    secondary="#ffb454",  # the reference
    accent="#c8a6ff",
    success="#7fd88f",
    warning="#ffcf6b",
    error="#ff8088",
    variables={
        "text-primary": "#5cb8ff",
        "text-secondary": "#ffb454",
        "text-accent": "#c8a6ff",
        "text-success": "#7fd88f",
        "text-warning": "#ffcf6b",
        "text-error": "#ff8088",
        "block-cursor-background": "#2b4f6e",
        "block-cursor-foreground": "#ffffff",
        "block-cursor-blurred-background": "#22303e",
        "block-cursor-blurred-foreground": "#dfe6ee",
        "footer-background": "#1f2833",
        "footer-key-foreground": "#5cb8ff",
        "footer-description-foreground": "#dfe6ee",
        "button-color-foreground": "#10141b",
        "scrollbar": "#3a4a5c",
        "scrollbar-background": "#161c25",
    },
)
