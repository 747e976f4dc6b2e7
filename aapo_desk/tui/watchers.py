"""What Textual watches, forgotten where the watcher has gone.

A widget that watches another's attribute is kept by it until that attribute changes, which may be never
(github.com/Textualize/textual/issues/6666): each key of a footer, each text area by the app's theme.
"""

from __future__ import annotations

from textual.dom import DOMNode


def forget_closed(watched: DOMNode) -> None:
    """Let go of widgets that have closed and still watch this one."""
    for watchers in getattr(watched, "__watchers", {}).values():
        watchers[:] = [(widget, callback) for widget, callback in watchers if not widget._closing]
