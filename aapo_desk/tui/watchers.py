"""Removal of closed widgets from the watchers that Textual keeps, which would be a memory leak.

A widget that watches an attribute of another object is referenced by it until the attribute changes, which may be never
(github.com/Textualize/textual/issues/6666). This concerns each key of a footer, and each text area, which watches the
app's theme.
"""

from __future__ import annotations

from textual.dom import DOMNode


def forget_closed(watched: DOMNode) -> None:
    """Remove the watchers of ``watched`` whose widgets have closed."""
    for watchers in getattr(watched, "__watchers", {}).values():
        watchers[:] = [(widget, callback) for widget, callback in watchers if not widget._closing]
