"""Rewards: functions from a completion to a number, run in worker processes that can be killed.

``check`` refuses rewards that cannot work, ``RewardPool`` scores completions. ``builtin`` lists the built-in rewards,
each of which is a module; a custom reward is ``FILE.py:FUNCTION``. A completion that hangs or breaks a reward is
unscorable, never silently 0.
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
