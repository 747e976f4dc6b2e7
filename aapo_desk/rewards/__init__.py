"""Rewards: functions from a completion to a number, run in worker processes that can be killed.

``check`` refuses what cannot work, ``RewardPool`` scores. The built-in ones stand in ``builtin``, a module each; a
user's own is ``FILE.py:FUNCTION``. An answer that hangs or breaks a reward is unscorable, never silently 0.
"""

from aapo_desk.rewards.base import Completion, FailingReward, RewardError, Score
from aapo_desk.rewards.checking import check
from aapo_desk.rewards.pool import RewardPool, part_names
from aapo_desk.rewards.ranges import bounds, not_labels

__all__ = [
    "Completion",
    "FailingReward",
    "RewardError",
    "RewardPool",
    "Score",
    "bounds",
    "check",
    "not_labels",
    "part_names",
]
