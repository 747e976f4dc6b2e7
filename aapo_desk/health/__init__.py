"""Alarms, which tell what is wrong with a run and what to try.

``check`` judges the recent metrics. The trainer calls it after each step and writes an event when an alarm begins or
ends, so that every reader sees the same alarms; ``standing`` derives the active alarms from these events.
"""

from aapo_desk.health.alarm import BEGINS, ENDS, SEVERITIES, Alarm, standing
from aapo_desk.health.checks import KINDS, check
from aapo_desk.health.thresholds import LONGEST_WINDOW, WINDOW
from aapo_desk.health.view import Facts

__all__ = ["BEGINS", "ENDS", "KINDS", "LONGEST_WINDOW", "SEVERITIES", "WINDOW", "Alarm", "Facts", "check", "standing"]
