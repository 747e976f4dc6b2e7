"""The desk's own themes. Text has a contrast of at least 4.5:1 on every background, even if drawn at 70 %.

Some of Textual's own themes have less, so only these are offered.
"""

from __future__ import annotations

from textual.theme import Theme

NAMES = ("aapo-dark", "aapo-light", "aapo-colour-blind", "aapo-high-contrast")

# One column for each theme. The colour-blind theme uses the hues of Okabe and Ito, Color Universal Design (2008),
# jfly.uni-koeln.de/color, which can be distinguished with any kind of colour blindness. Vermilion and green are a
# little lighter than theirs, for more contrast on the bars.
COLOURS = {
    "background": ("#10141b", "#fbfcfd", "#0b0e12", "#000000"),
    "surface": ("#161c25", "#f1f4f7", "#11161d", "#000000"),
    "panel": ("#1f2833", "#e4e9ef", "#181e27", "#141414"),  # bars and dialogs
    "foreground": ("#dfe6ee", "#1b2430", "#e6eaf0", "#ffffff"),
    "primary": ("#5cb8ff", "#0a57a4", "#56b4e9", "#7cd0ff"),  # the policy, and the focused widget
    "secondary": ("#ffb454", "#8f4700", "#e69f00", "#ffc25c"),  # the reference
    "accent": ("#c8a6ff", "#6a35b0", "#cc79a7", "#e0c2ff"),
    "success": ("#7fd88f", "#17642f", "#1fb98d", "#86f09a"),
    "warning": ("#ffcf6b", "#735000", "#f0e442", "#ffe36b"),
    "error": ("#ff8088", "#ad1f2b", "#ee6f1a", "#ff9ba0"),
    "cursor": ("#264863", "#b9d6f2", "#163c58", "#004a80"),
    "cursor without focus": ("#22303e", "#d9e3ed", "#1f2a36", "#303030"),
    "scrollbar": ("#3a4a5c", "#a9b6c4", "#3a4653", "#808080"),
}
ROLES = ("primary", "secondary", "accent", "success", "warning", "error")


def _theme(name: str, colours: dict[str, str], dark: bool) -> Theme:
    cursor, scrollbar = colours["cursor"], colours["scrollbar"]
    background, surface, panel, foreground = (
        colours[part] for part in ("background", "surface", "panel", "foreground")
    )
    strong = "#ffffff" if dark else "#000000"
    return Theme(
        name=name,
        dark=dark,
        background=background,
        surface=surface,
        panel=panel,
        foreground=foreground,
        primary=colours["primary"],
        secondary=colours["secondary"],
        accent=colours["accent"],
        success=colours["success"],
        warning=colours["warning"],
        error=colours["error"],
        variables={f"text-{role}": colours[role] for role in ROLES}
        | {
            "text-muted": "auto 80%",
            "text-disabled": "auto 75%",
            "foreground-muted": foreground,
            "foreground-disabled": foreground,
            "block-cursor-background": cursor,
            "block-cursor-foreground": strong,
            "block-cursor-blurred-background": colours["cursor without focus"],
            "block-cursor-blurred-foreground": foreground,
            "block-hover-background": surface,
            "input-cursor-background": foreground,
            "input-cursor-foreground": background,
            "input-selection-background": cursor,
            "input-selection-foreground": strong,
            "screen-selection-background": cursor,
            "screen-selection-foreground": strong,
            "border": colours["primary"],
            "border-blurred": scrollbar,
            "footer-background": panel,
            "footer-key-foreground": colours["primary"],
            "footer-description-foreground": foreground,
            "button-foreground": foreground,
            "button-color-foreground": background,
            "link-color": colours["primary"],
            "link-background-hover": cursor,
            "link-color-hover": strong,
            "scrollbar": scrollbar,
            "scrollbar-hover": colours["primary"],
            "scrollbar-active": colours["primary"],
            "scrollbar-background": surface,
            "scrollbar-background-hover": surface,
            "scrollbar-background-active": surface,
            "scrollbar-corner-color": surface,
        },
    )


THEMES = {
    name: _theme(name, {part: row[column] for part, row in COLOURS.items()}, dark=name != "aapo-light")
    for column, name in enumerate(NAMES)
}
DARK, LIGHT, COLOUR_BLIND, CONTRAST = THEMES.values()
