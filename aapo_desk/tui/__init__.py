"""The terminal UI."""

from aapo_desk.tui.app import DeskApp, run_app

__all__ = ["DeskApp", "run_app"]
