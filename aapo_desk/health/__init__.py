"""The alarms: what is wrong with a run, in words, and what to try.

``check`` judges the recent numbers; the trainer asks it after each step and writes an event where an alarm begins or
ends, so that every reader sees the same: ``standing`` makes the alarms of now out of the events.
"""

from aapo_desk.health.alarm import BEGINS, ENDS, SEVERITIES, Alarm, standing
from aapo_desk.health.checks import KINDS, check
from aapo_desk.health.thresholds import LONGEST_WINDOW, WINDOW
from aapo_desk.health.view import Facts

__all__ = ["BEGINS", "ENDS", "KINDS", "LONGEST_WINDOW", "SEVERITIES", "WINDOW", "Alarm", "Facts", "check", "standing"]
